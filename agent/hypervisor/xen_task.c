/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen: a long call of libxl on a thread of its own. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/hypervisor/xen_driver.h"

#define SOCKET_BYTES (1 << 20)

static void *task_main(void *arg)
{
	struct xen_task *task = arg;
	uint64_t one = 1;
	task->rc = task->run(task);
	close(task->stream_fd); /* the reader sees the end, once the helper is gone too */
	task->stream_fd = -1;
	atomic_store(&task->over, true);
	ssize_t n = write(task->event_fd, &one, sizeof(one));
	(void)n; /* an eventfd at 0 takes it */
	return NULL;
}

static void task_free(struct xen_task *task)
{
	if (task->ctx != NULL)
		libxl_ctx_free(task->ctx);
	libxl_domain_config_dispose(&task->config);
	if (task->stream_fd >= 0)
		close(task->stream_fd);
	if (task->event_fd >= 0)
		close(task->event_fd);
	free(task);
}

int xen_task_start(struct xen_task *task, struct err *err)
{
	task->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (task->event_fd < 0)
		err_errno(err, ERR_IO, errno, "eventfd");
	else if (xen_ctx_open(task->hv, &task->ctx, err) != 0)
		task->ctx = NULL;
	else if (pthread_create(&task->thread, NULL, task_main, task) == 0)
		return 0;
	else
		err_set(err, ERR_NO_MEMORY, "no thread for libxl");
	task_free(task);
	return -1;
}

void xen_task_join(struct xen_task *task)
{
	if (task == NULL)
		return;
	pthread_join(task->thread, NULL);
	task_free(task);
}

bool xen_task_join_for(struct xen_task *task, unsigned timeout_ms)
{
	if (task == NULL)
		return true;
	int64_t until_ms = disk_now_ms() + timeout_ms;
	short events = 0;
	if (!atomic_load(&task->over))
		(void)disk_wait(NULL, task->event_fd, POLLIN, until_ms, &events, NULL);
	if (!atomic_load(&task->over))
		return false;
	xen_task_join(task);
	return true;
}

int xen_socket_pair(int type, int ret_fds[2], struct err *err)
{
	static const int bytes = SOCKET_BYTES;
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret_fds) != 0)
		return err_errno(err, ERR_IO, errno, "socket pair");
	/* As much as the system allows: libxc writes 4 MiB at a time. */
	for (unsigned i = 0; i < 2; i++)
		if (setsockopt(ret_fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0)
			(void)setsockopt(ret_fds[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	return 0;
}
