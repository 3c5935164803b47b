/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/disk/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QMP_BUFFER_START 16384u
#define QMP_RETRY_MS 10
#define QMP_GREETING_MS 1000 /* then a new connection is tried: this one may have been overlooked */

struct qmp {
	int fd;
	const struct disk_cancel *cancel;
	char *buffer; /* bytes received and not yet taken */
	size_t have, room;
	uint64_t id; /* of the last command */
	char path[LIMIT_PATH];
};

static int send_all(struct qmp *qmp, const char *bytes, size_t count, int64_t deadline_ms, struct err *err)
{
	while (count > 0) {
		short events;
		ssize_t sent = send(qmp->fd, bytes, count, MSG_NOSIGNAL);
		if (sent > 0) {
			bytes += sent;
			count -= (size_t)sent;
			continue;
		}
		if (sent < 0 && errno != EAGAIN && errno != EINTR)
			return err_errno(err, ERR_UNREACHABLE, errno, "QMP %s", qmp->path);
		if (disk_wait(qmp->cancel, qmp->fd, POLLOUT, deadline_ms, &events, err) < 0)
			return -1;
		if (!events)
			return err_set(err, ERR_TIMEOUT, "QMP %s: takes no command", qmp->path);
	}
	return 0;
}

static int make_room(struct qmp *qmp, struct err *err)
{
	if (qmp->have < qmp->room)
		return 0;
	if (qmp->room >= QMP_MESSAGE_BYTES)
		return err_set(err, ERR_PROTOCOL, "QMP %s: message over %u bytes", qmp->path, QMP_MESSAGE_BYTES);
	size_t room = qmp->room ? qmp->room * 2 : QMP_BUFFER_START;
	char *bigger = realloc(qmp->buffer, room);
	if (!bigger)
		return err_set(err, ERR_NO_MEMORY, "QMP %s: no memory", qmp->path);
	qmp->buffer = bigger;
	qmp->room = room;
	return 0;
}

/* Takes the first line out of the buffer, as JSON. */
static int take_line(struct qmp *qmp, size_t length, json_t **ret_message, struct err *err)
{
	json_error_t error;
	json_t *message = json_loadb(qmp->buffer, length, 0, &error);
	qmp->have -= length + 1;
	memmove(qmp->buffer, qmp->buffer + length + 1, qmp->have);
	if (!json_is_object(message)) {
		json_decref(message);
		return err_set(err, ERR_PROTOCOL, "QMP %s: not a JSON object", qmp->path);
	}
	*ret_message = message;
	return 0;
}

/* The next message; one line each. */
static int receive(struct qmp *qmp, int64_t deadline_ms, json_t **ret_message, struct err *err)
{
	size_t searched = 0;
	for (;;) {
		short events;
		char *end = qmp->have > searched ? memchr(qmp->buffer + searched, '\n', qmp->have - searched) : NULL;
		if (end)
			return take_line(qmp, (size_t)(end - qmp->buffer), ret_message, err);
		searched = qmp->have;
		if (make_room(qmp, err) < 0)
			return -1;
		if (disk_wait(qmp->cancel, qmp->fd, POLLIN, deadline_ms, &events, err) < 0)
			return -1;
		if (!events)
			return err_set(err, ERR_TIMEOUT, "QMP %s: no answer in time", qmp->path);
		ssize_t got = recv(qmp->fd, qmp->buffer + qmp->have, qmp->room - qmp->have, 0);
		if (got > 0)
			qmp->have += (size_t)got;
		else if (got == 0)
			return err_set(err, ERR_UNREACHABLE, "QMP %s: the block backend has hung up", qmp->path);
		else if (errno != EAGAIN && errno != EINTR)
			return err_errno(err, ERR_UNREACHABLE, errno, "QMP %s", qmp->path);
	}
}

/* Connects and takes the greeting. QEMU may drop a connection that came while the client before was leaving, and never
 * greets one that came while it was still starting: so it is tried again as long as there is somebody who listens. */
static int greet(struct qmp *qmp, int64_t deadline_ms, json_t **ret_greeting, struct err *err)
{
	for (;;) {
		struct err why = { 0 };
		short events;
		if (disk_connect_unix(qmp->cancel, qmp->path, deadline_ms, &qmp->fd, err) < 0)
			return -1;
		int64_t patience_ms = disk_now_ms() + QMP_GREETING_MS;
		if (receive(qmp, patience_ms < deadline_ms ? patience_ms : deadline_ms, ret_greeting, &why) == 0)
			return 0;
		if ((why.code != ERR_UNREACHABLE && why.code != ERR_TIMEOUT) || disk_now_ms() >= deadline_ms)
			return err_set(err, why.code, "%s", why.text);
		close(qmp->fd);
		qmp->fd = -1;
		qmp->have = 0;
		if (disk_wait(qmp->cancel, -1, 0, disk_now_ms() + QMP_RETRY_MS, &events, err) < 0)
			return -1;
	}
}

int qmp_open(struct qmp **ret_qmp, const char *path, const struct disk_cancel *cancel, unsigned open_ms,
             struct err *err)
{
	int64_t deadline_ms = disk_now_ms() + open_ms;
	struct qmp *qmp = calloc(1, sizeof(*qmp));
	json_t *greeting = NULL;
	struct err why = { 0 };
	if (!qmp)
		return err_set(err, ERR_NO_MEMORY, "QMP %s: no memory", path);
	qmp->fd = -1;
	qmp->cancel = cancel;
	snprintf(qmp->path, sizeof(qmp->path), "%s", path);
	if (greet(qmp, deadline_ms, &greeting, &why) < 0) {
		if (why.code == ERR_TIMEOUT)
			err_set(&why, ERR_BUSY, "QMP %s: somebody else holds the monitor", path);
		goto out;
	}
	if (!json_is_object(json_object_get(greeting, "QMP"))) {
		err_set(&why, ERR_PROTOCOL, "QMP %s: no greeting", path);
		goto out;
	}
	if (qmp_run(qmp, "qmp_capabilities", NULL, QMP_COMMAND_MS, NULL, &why) < 0)
		goto out;
	json_decref(greeting);
	*ret_qmp = qmp;
	return 0;
out:
	json_decref(greeting);
	qmp_close(qmp);
	return err_set(err, why.code, "%s", why.text);
}

void qmp_close(struct qmp *qmp)
{
	if (!qmp)
		return;
	if (qmp->fd >= 0)
		close(qmp->fd);
	free(qmp->buffer);
	free(qmp);
}

/* QEMU's refusal in our words. */
static int refused(const char *command, const json_t *error, struct err *err)
{
	const char *class = json_string_value(json_object_get(error, "class"));
	const char *desc = json_string_value(json_object_get(error, "desc"));
	bool unknown = class && strcmp(class, "CommandNotFound") == 0;
	return err_set(err, unknown ? ERR_UNSUPPORTED : ERR_BACKEND, "%s: %.400s", command,
	               desc ? desc : "refused without words");
}

/* 1: `message` is the answer and *ret_result is set; 0: an event or an answer to somebody else; -1: refused. */
static int judge(const struct qmp *qmp, const char *command, const json_t *message, json_t **ret_result,
                 struct err *err)
{
	const json_t *id = json_object_get(message, "id");
	const json_t *error = json_object_get(message, "error");
	json_t *result = json_object_get(message, "return");
	if (json_object_get(message, "event"))
		return 0;
	/* an error without an id is about a command that QEMU could not read, and only ours is out */
	if (error && (!id || json_integer_value(id) == (json_int_t)qmp->id))
		return refused(command, error, err);
	if (!json_is_integer(id) || json_integer_value(id) != (json_int_t)qmp->id)
		return 0;
	if (!result)
		return err_set(err, ERR_PROTOCOL, "QMP %s: %s: an answer without a result", qmp->path, command);
	if (ret_result)
		*ret_result = json_incref(result);
	return 1;
}

int qmp_run(struct qmp *qmp, const char *command, json_t *arguments, unsigned timeout_ms, json_t **ret_result,
            struct err *err)
{
	int64_t deadline_ms = disk_now_ms() + timeout_ms;
	json_t *request = json_pack("{s:s, s:I}", "execute", command, "id", (json_int_t)++qmp->id);
	char *text = NULL;
	int result = 0;
	if (arguments && request)
		json_object_set(request, "arguments", arguments);
	json_decref(arguments);
	if (request)
		text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (!text)
		return err_set(err, ERR_NO_MEMORY, "QMP %s: no memory", command);
	result = send_all(qmp, text, strlen(text), deadline_ms, err);
	if (result == 0)
		result = send_all(qmp, "\n", 1, deadline_ms, err);
	free(text);
	while (result == 0) {
		json_t *message = NULL;
		/* the time limit holds for all the events together, however fast they come */
		if (disk_now_ms() > deadline_ms)
			return err_set(err, ERR_TIMEOUT, "QMP %s: %s: no answer in time", qmp->path, command);
		if (receive(qmp, deadline_ms, &message, err) < 0)
			return err_wrap(err, "%s", command);
		result = judge(qmp, command, message, ret_result, err);
		json_decref(message);
	}
	return result < 0 ? -1 : 0;
}
