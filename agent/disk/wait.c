/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/disk/wait.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"

#define WAIT_CONNECT_RETRY_MS 20 /* a full backlog of a unix socket gives no event to wait for */

int disk_cancel_open(struct disk_cancel *cancel, struct err *err)
{
	atomic_store(&cancel->set, false);
	cancel->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return cancel->event_fd >= 0 ? 0 : err_errno(err, ERR_IO, errno, "eventfd");
}

void disk_cancel_close(struct disk_cancel *cancel)
{
	if (cancel->event_fd >= 0)
		close(cancel->event_fd);
	cancel->event_fd = -1;
}

void disk_cancel_set(struct disk_cancel *cancel)
{
	uint64_t one = 1;
	if (atomic_exchange(&cancel->set, true))
		return;
	ssize_t wrote = write(cancel->event_fd, &one, sizeof(one));
	(void)wrote; /* an eventfd at 0 takes a 1 */
}

bool disk_cancelled(const struct disk_cancel *cancel)
{
	return cancel && atomic_load(&cancel->set);
}

int64_t disk_now_ms(void)
{
	return clock_ms(&clock_real);
}

int disk_wait(const struct disk_cancel *cancel, int fd, short events, int64_t deadline_ms, short *ret_events,
              struct err *err)
{
	for (;;) {
		struct pollfd fds[2] = { { .fd = fd, .events = events },
			                 { .fd = cancel ? cancel->event_fd : -1, .events = POLLIN } };
		if (disk_cancelled(cancel))
			return err_set(err, ERR_CANCELLED, "cancelled");
		int64_t left = deadline_ms - disk_now_ms();
		left = left < 0 ? 0 : left > INT_MAX ? INT_MAX : left;
		int n = poll(fds, 2, (int)left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, ERR_IO, errno, "poll");
		if (fds[1].revents)
			return err_set(err, ERR_CANCELLED, "cancelled");
		*ret_events = fds[0].revents;
		return 0;
	}
}

static int connect_once(const struct sockaddr_un *address, int *ret_fd)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
		*ret_fd = fd;
		return 0;
	}
	int saved = errno;
	close(fd);
	return saved;
}

int disk_connect_unix(const struct disk_cancel *cancel, const char *path, int64_t deadline_ms, int *ret_fd,
                      struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, ERR_CONFIG, "connect %s: path too long for a unix socket", path);
	strcpy(address.sun_path, path);
	for (;;) {
		short events;
		int errnum = connect_once(&address, ret_fd);
		if (errnum == 0)
			return 0;
		if (errnum == ENOENT || errnum == ECONNREFUSED)
			return err_errno(err, ERR_UNREACHABLE, errnum, "connect %s", path);
		if (errnum != EAGAIN && errnum != EINTR)
			return err_errno(err, ERR_IO, errnum, "connect %s", path);
		int64_t now = disk_now_ms();
		if (now >= deadline_ms)
			return err_set(err, ERR_TIMEOUT, "connect %s: nobody accepts", path);
		if (disk_wait(cancel, -1, 0, now + WAIT_CONNECT_RETRY_MS, &events, err) < 0)
			return -1;
	}
}
