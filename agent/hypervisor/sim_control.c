/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/hypervisor/sim_control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS 2

int sim_path(const struct paths *paths, const char *name, enum sim_path which, char ret_path[LIMIT_PATH],
             struct err *err)
{
	static const char *const heads[SIM_PATHS] = { [SIM_PATH_CONTROL] = "guest-",
		                                      [SIM_PATH_QMP] = "qmp-",
		                                      [SIM_PATH_QMP_LEG] = "qmpleg-",
		                                      [SIM_PATH_NBD] = "nbd-",
		                                      [SIM_PATH_LOG] = "guest-" };
	const char *tail = which == SIM_PATH_LOG ? "log" : "sock";
	int bytes = snprintf(ret_path, LIMIT_PATH, "%s/%s%s.%s", paths->run, heads[which], name, tail);
	size_t room = which == SIM_PATH_LOG ? LIMIT_PATH : sizeof(((struct sockaddr_un *)0)->sun_path);
	if (bytes < 0 || (size_t)bytes >= room)
		return err_set(err, ERR_UNSUPPORTED, "VM name '%s' is too long for the sockets under %s", name,
		               paths->run);
	return 0;
}

struct exchange {
	int fd;
	int64_t deadline_ms;
	const struct disk_cancel *cancel;
	char line[SIM_LINE_BYTES];
	size_t have;
	int fds[FDS];
	unsigned fd_count;
};

static int send_line(struct exchange *exchange, json_t *request, struct err *err)
{
	int result = -1;
	size_t sent = 0;
	char *text = json_dumps(request, JSON_COMPACT);
	size_t bytes = text != NULL ? strlen(text) : 0;
	if (text == NULL || bytes + 1 >= SIM_LINE_BYTES) {
		err_set(err, ERR_INTERNAL, "request too long");
		goto out;
	}
	text[bytes++] = '\n'; /* over the NUL: from here on it is counted bytes */
	while (sent < bytes) {
		short events;
		ssize_t done = send(exchange->fd, text + sent, bytes - sent, MSG_NOSIGNAL);
		if (done > 0) {
			sent += (size_t)done;
			continue;
		}
		if (done < 0 && errno != EAGAIN && errno != EINTR) {
			err_errno(err, ERR_HYPERVISOR, errno, "send");
			goto out;
		}
		if (disk_wait(exchange->cancel, exchange->fd, POLLOUT, exchange->deadline_ms, &events, err) != 0)
			goto out;
		if (events == 0) {
			err_set(err, ERR_TIMEOUT, "it takes no request");
			goto out;
		}
	}
	result = 0;
out:
	free(text);
	return result;
}

static void take_fds(struct exchange *exchange, struct msghdr *header)
{
	for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item != NULL; item = CMSG_NXTHDR(header, item)) {
		if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof(int));
			if (exchange->fd_count < FDS)
				exchange->fds[exchange->fd_count++] = fd;
			else
				close(fd);
		}
	}
}

/* 1: a whole line is there, 0: not yet. */
static int receive_some(struct exchange *exchange, struct err *err)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(FDS * sizeof(int))];
	} control;
	struct iovec place = { exchange->line + exchange->have, SIM_LINE_BYTES - exchange->have };
	struct msghdr header = { .msg_iov = &place,
		                 .msg_iovlen = 1,
		                 .msg_control = control.bytes,
		                 .msg_controllen = sizeof(control.bytes) };
	ssize_t got = recvmsg(exchange->fd, &header, MSG_CMSG_CLOEXEC);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got < 0)
		return err_errno(err, ERR_HYPERVISOR, errno, "receive");
	take_fds(exchange, &header);
	if (got == 0)
		return err_set(err, ERR_HYPERVISOR, "it hung up");
	char *end = memchr(exchange->line + exchange->have, '\n', (size_t)got);
	exchange->have += (size_t)got;
	if (end != NULL) {
		*end = '\0';
		return 1;
	}
	if (exchange->have == SIM_LINE_BYTES)
		return err_set(err, ERR_PROTOCOL, "answer too long");
	return 0;
}

static int receive_line(struct exchange *exchange, struct err *err)
{
	for (;;) {
		short events;
		if (disk_wait(exchange->cancel, exchange->fd, POLLIN, exchange->deadline_ms, &events, err) != 0)
			return -1;
		if (events == 0)
			return err_set(err, ERR_TIMEOUT, "no answer in time");
		int got = receive_some(exchange, err);
		if (got != 0)
			return got > 0 ? 0 : -1;
	}
}

static int judge(const char *line, json_t **ret_reply, struct err *err)
{
	json_error_t why;
	json_t *reply = json_loads(line, 0, &why);
	if (!json_is_object(reply)) {
		json_decref(reply);
		return err_set(err, ERR_PROTOCOL, "answer is not JSON: %s", why.text);
	}
	if (!json_is_true(json_object_get(reply, "ok"))) {
		const char *code = json_string_value(json_object_get(reply, "code"));
		const char *words = json_string_value(json_object_get(reply, "error"));
		enum err_code number = code != NULL ? err_from_name(code) : ERR_CODES;
		err_set(err, number == ERR_CODES ? ERR_HYPERVISOR : number, "%s", words != NULL ? words : "refused");
		json_decref(reply);
		return -1;
	}
	*ret_reply = reply;
	return 0;
}

static int exchange_run(struct exchange *exchange, const char *path, json_t *request, json_t **ret_reply,
                        struct err *err)
{
	struct err why = { 0 };
	if (disk_connect_unix(exchange->cancel, path, exchange->deadline_ms, &exchange->fd, &why) != 0)
		return err_set(err, why.code == ERR_UNREACHABLE ? ERR_HYPERVISOR : why.code, "it is not running (%s)",
		               why.text);
	int result = send_line(exchange, request, err);
	if (result == 0)
		result = receive_line(exchange, err);
	if (result == 0)
		result = judge(exchange->line, ret_reply, err);
	close(exchange->fd);
	return result;
}

static int call(const struct paths *paths, const char *name, json_t *request, unsigned timeout_ms,
                const struct disk_cancel *cancel, json_t **ret_reply, int *ret_fds, unsigned want_fds, struct err *err)
{
	char path[LIMIT_PATH], op[32] = "";
	const char *word = json_string_value(json_object_get(request, "op"));
	struct exchange *exchange = calloc(1, sizeof(*exchange));
	json_t *reply = NULL;
	int result = -1;
	snprintf(op, sizeof(op), "%s", word != NULL ? word : "?");
	if (exchange == NULL) {
		err_set(err, ERR_NO_MEMORY, "no memory");
		goto out;
	}
	exchange->cancel = cancel;
	exchange->deadline_ms = disk_now_ms() + timeout_ms;
	if (sim_path(paths, name, SIM_PATH_CONTROL, path, err) == 0)
		result = exchange_run(exchange, path, request, &reply, err);
	if (result == 0 && exchange->fd_count != want_fds)
		result = err_set(err, ERR_PROTOCOL, "it sent %u descriptors, not %u", exchange->fd_count, want_fds);
	for (unsigned i = 0; i < exchange->fd_count; i++) {
		if (result == 0)
			ret_fds[i] = exchange->fds[i];
		else
			close(exchange->fds[i]);
	}
	if (result == 0 && ret_reply != NULL)
		*ret_reply = json_incref(reply);
out:
	json_decref(reply);
	json_decref(request);
	free(exchange);
	return result == 0 ? 0 : err_wrap(err, "guest %s: %s", name, op);
}

int sim_call(const struct paths *paths, const char *name, json_t *request, unsigned timeout_ms,
             const struct disk_cancel *cancel, json_t **ret_reply, struct err *err)
{
	return call(paths, name, request, timeout_ms, cancel, ret_reply, NULL, 0, err);
}

int sim_call_fds(const struct paths *paths, const char *name, const struct disk_cancel *cancel, int *ret_memory_fd,
                 int *ret_bitmap_fd, struct err *err)
{
	int fds[FDS];
	if (call(paths, name, json_pack("{s:s}", "op", "fds"), SIM_CALL_MS, cancel, NULL, fds, FDS, err) != 0)
		return -1;
	*ret_memory_fd = fds[0];
	*ret_bitmap_fd = fds[1];
	return 0;
}
