/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

struct control {
	int listen_fd, fd;
	struct sockaddr_un address;
	unsigned char *packet; /* LIMIT_FRAME_BYTES + 1: one byte more shows what is too long */
};

int control_open(struct control **ret_control, const struct paths *paths, uint64_t migration, struct err *err)
{
	struct control *control = calloc(1, sizeof(*control));
	if (control)
		control->packet = malloc(LIMIT_FRAME_BYTES + 1);
	if (!control || !control->packet) {
		free(control);
		return err_set(err, ERR_NO_MEMORY, "control socket");
	}
	control->fd = -1;
	control->address.sun_family = AF_UNIX;
	int length = snprintf(control->address.sun_path, sizeof(control->address.sun_path), "%s/leg-%" PRIu64 ".sock",
	                      paths->run, migration);
	control->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(control->address.sun_path);
	/* The mode is set before listen(): nobody can connect before. */
	if (length < 0 || (size_t)length >= sizeof(control->address.sun_path) || control->listen_fd < 0 ||
	    bind(control->listen_fd, (struct sockaddr *)&control->address, sizeof(control->address)) ||
	    chmod(control->address.sun_path, 0600) || listen(control->listen_fd, 4)) {
		err_errno(err, ERR_IO, errno, "control socket %s/leg-%" PRIu64 ".sock", paths->run, migration);
		control_close(control);
		return -1;
	}
	*ret_control = control;
	return 0;
}

static void drop(struct control *control)
{
	if (control->fd >= 0)
		close(control->fd);
	control->fd = -1;
}

void control_close(struct control *control)
{
	if (!control)
		return;
	drop(control);
	if (control->listen_fd >= 0) {
		unlink(control->address.sun_path);
		close(control->listen_fd);
	}
	free(control->packet);
	free(control);
}

int control_listen_fd(const struct control *control)
{
	return control->listen_fd;
}

int control_fd(const struct control *control)
{
	return control->fd;
}

bool control_accept(struct control *control)
{
	int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred who;
	socklen_t bytes = sizeof(who);
	if (fd < 0)
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes) || who.uid != geteuid()) {
		log_warning("event=control-refused uid=%ld", (long)who.uid);
		close(fd);
		return false;
	}
	drop(control);
	control->fd = fd;
	return true;
}

int control_read(struct control *control, struct msg *ret_msg)
{
	struct err err = { 0 };
	if (control->fd < 0)
		return -1;
	ssize_t n = recv(control->fd, control->packet, LIMIT_FRAME_BYTES + 1, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		drop(control);
		return -1;
	}
	if (n > LIMIT_FRAME_BYTES || msg_decode(control->packet, (size_t)n, ret_msg, &err)) {
		log_error("event=control-garbage bytes=%zd error=\"%s\"", n, err.text);
		drop(control);
		return -1;
	}
	return 1;
}

bool control_send(struct control *control, const struct msg *msg, bool matters)
{
	void *frame = NULL;
	size_t bytes = 0;
	struct err err = { 0 };
	if (control->fd < 0)
		return false;
	if (msg_encode(msg, &frame, &bytes, &err)) {
		log_error("event=message-not-sent kind=%s error=\"%s\"", msg_kind_name(msg->kind), err.text);
		return false;
	}
	ssize_t n = send(control->fd, frame, bytes, MSG_NOSIGNAL);
	free(frame);
	if (n >= 0)
		return true;
	/* The read side notices a connection that is gone. */
	if (errno == EAGAIN && matters) {
		log_warning("event=agent-does-not-read");
		drop(control);
	}
	return false;
}
