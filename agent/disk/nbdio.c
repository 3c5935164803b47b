/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/disk/nbdio.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#define NBDIO_GOODBYE_MS 100

static int lost(struct err *err, const char *what)
{
	const char *words = nbd_get_error();
	return err_set(err, ERR_PEER_LOST, "NBD %s: %.300s", what, words ? words : "the connection is gone");
}

int nbdio_turn(struct nbd_handle *nbd, const struct disk_cancel *cancel, int64_t deadline_ms, bool *ret_moved,
               struct err *err)
{
	short events = 0, got = 0;
	unsigned direction = nbd_aio_get_direction(nbd);
	*ret_moved = false;
	if (nbd_aio_is_dead(nbd) > 0 || nbd_aio_is_closed(nbd) > 0)
		return err_set(err, ERR_PEER_LOST, "NBD: the connection is gone");
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		events |= POLLOUT;
	if (disk_wait(cancel, nbd_aio_get_fd(nbd), events, deadline_ms, &got, err) < 0)
		return -1;
	if (!got)
		return 0;
	*ret_moved = true;
	/* a hang-up is found by reading; only one of the two, the other may have changed by then */
	int result = 0;
	if ((direction & LIBNBD_AIO_DIRECTION_READ) && (got & (POLLIN | POLLHUP | POLLERR)))
		result = nbd_aio_notify_read(nbd);
	else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (got & (POLLOUT | POLLHUP | POLLERR)))
		result = nbd_aio_notify_write(nbd);
	return result < 0 ? lost(err, "connection") : 0;
}

int nbdio_open(struct nbd_handle **ret_nbd, int fd, const char *export_name, const char *context,
               const struct disk_cancel *cancel, struct err *err)
{
	int64_t deadline_ms = disk_now_ms() + NBDIO_CONNECT_MS;
	struct nbd_handle *nbd = nbd_create();
	if (!nbd) {
		close(fd);
		return err_set(err, ERR_NO_MEMORY, "NBD: %.300s", nbd_get_error());
	}
	if (nbd_set_export_name(nbd, export_name) < 0 || (context && nbd_add_meta_context(nbd, context) < 0) ||
	    nbd_aio_connect_socket(nbd, fd) < 0) {
		lost(err, "connect");
		goto out;
	}
	while (nbd_aio_is_connecting(nbd) > 0) {
		bool moved;
		if (nbdio_turn(nbd, cancel, deadline_ms, &moved, err) < 0)
			goto out;
		if (!moved) {
			err_set(err, ERR_TIMEOUT, "NBD: no handshake within %d ms", NBDIO_CONNECT_MS);
			goto out;
		}
	}
	if (nbd_aio_is_ready(nbd) <= 0) {
		err_set(err, ERR_EXPORTER, "NBD: the export was refused");
		goto out;
	}
	*ret_nbd = nbd;
	return 0;
out:
	nbd_close(nbd);
	return -1;
}

int nbdio_open_unix(struct nbd_handle **ret_nbd, const char *path, const char *export_name, const char *context,
                    const struct disk_cancel *cancel, struct err *err)
{
	int fd;
	if (disk_connect_unix(cancel, path, disk_now_ms() + NBDIO_CONNECT_MS, &fd, err) < 0)
		return -1;
	return nbdio_open(ret_nbd, fd, export_name, context, cancel, err) < 0 ? err_wrap(err, "%s", path) : 0;
}

int nbdio_finish(struct nbd_handle *nbd, int64_t cookie, const struct disk_cancel *cancel, int64_t deadline_ms,
                 struct err *err)
{
	if (cookie < 0)
		return lost(err, "command");
	for (;;) {
		bool moved;
		int done = nbd_aio_command_completed(nbd, (uint64_t)cookie);
		if (done > 0)
			return 0;
		if (done < 0) {
			int errnum = nbd_get_errno();
			if (nbd_aio_is_dead(nbd) > 0 || nbd_aio_is_closed(nbd) > 0)
				return lost(err, "command");
			return err_errno(err, ERR_EXPORTER, errnum ? errnum : EIO, "NBD command");
		}
		if (nbdio_turn(nbd, cancel, deadline_ms, &moved, err) < 0)
			return -1;
		if (!moved)
			return err_set(err, ERR_TIMEOUT, "NBD: no answer in time");
	}
}

void nbdio_close(struct nbd_handle *nbd)
{
	if (!nbd)
		return;
	int64_t deadline_ms = disk_now_ms() + NBDIO_GOODBYE_MS;
	if (nbd_aio_is_ready(nbd) > 0 && nbd_aio_in_flight(nbd) == 0 && nbd_aio_disconnect(nbd, 0) >= 0) {
		bool moved = true;
		while (moved && nbd_aio_is_closed(nbd) == 0 && nbd_aio_is_dead(nbd) == 0)
			if (nbdio_turn(nbd, NULL, deadline_ms, &moved, NULL) < 0)
				break;
	}
	nbd_close(nbd);
}
