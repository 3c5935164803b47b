/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verify: asks running guests how they are, and their block backends for bitmaps, nodes and exports left behind. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "agent/sim/verify_world.h"

#define ASK_MS 5000
#define LINE_BYTES (4u << 20)

struct wire {
	int fd;
	char *line;
	size_t have;
	int64_t deadline_ms;
};

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int wire_open(struct wire *wire, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	*wire = (struct wire) { .fd = -1, .deadline_ms = now_ms() + ASK_MS };
	if (strlen(path) >= sizeof(address.sun_path))
		return -1;
	memcpy(address.sun_path, path, strlen(path) + 1);
	wire->line = malloc(LINE_BYTES);
	wire->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return wire->line != NULL && wire->fd >= 0 &&
	                       connect(wire->fd, (struct sockaddr *)&address, sizeof(address)) == 0
	               ? 0
	               : -1;
}

static void wire_close(struct wire *wire)
{
	if (wire->fd >= 0)
		close(wire->fd);
	free(wire->line);
}

/* The next line as JSON; NULL if none comes. */
static json_t *wire_next(struct wire *wire)
{
	json_error_t why;
	for (;;) {
		char *end = wire->have > 0 ? memchr(wire->line, '\n', wire->have) : NULL;
		if (end != NULL) {
			size_t bytes = (size_t)(end - wire->line) + 1;
			json_t *doc = json_loadb(wire->line, bytes, 0, &why);
			wire->have -= bytes;
			memmove(wire->line, end + 1, wire->have);
			return doc;
		}
		struct pollfd what = { .fd = wire->fd, .events = POLLIN };
		int64_t left_ms = wire->deadline_ms - now_ms();
		if (wire->have == LINE_BYTES || left_ms <= 0 || poll(&what, 1, (int)left_ms) <= 0)
			return NULL;
		ssize_t got = recv(wire->fd, wire->line + wire->have, LINE_BYTES - wire->have, 0);
		if (got <= 0)
			return NULL;
		wire->have += (size_t)got;
	}
}

static bool wire_say(struct wire *wire, const char *text)
{
	return send(wire->fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

/* One QMP command; events are skipped. A new reference to the result, or NULL. */
static json_t *qmp_ask(struct wire *wire, const char *text)
{
	if (!wire_say(wire, text))
		return NULL;
	for (;;) {
		json_t *doc = wire_next(wire);
		if (doc == NULL)
			return NULL;
		json_t *result = json_incref(json_object_get(doc, "return"));
		bool refused = json_object_get(doc, "error") != NULL;
		json_decref(doc);
		if (result != NULL || refused)
			return result;
	}
}

static bool claimed_bitmap(const struct verify_host *host)
{
	for (size_t i = 0; i < host->claim_count; i++)
		if (host->claims[i].kind == VERIFY_KIND_BITMAP)
			return true;
	return host->session_count > 0;
}

/* HEAD and the name of one of the VM's disks. */
static bool of_disk(const struct verify_record *record, const char *head, const char *text)
{
	size_t bytes = strlen(head);
	for (unsigned i = 0; text != NULL && i < record->disk_count; i++)
		if (strncmp(text, head, bytes) == 0 && strcmp(text + bytes, record->disks[i].name) == 0)
			return true;
	return false;
}

static void judge_nodes(struct verify *verify, const struct verify_host *host, const struct verify_record *record,
                        json_t *nodes)
{
	size_t index, k;
	json_t *node, *bitmap;
	json_array_foreach(nodes, index, node)
	{
		const char *name = json_string_value(json_object_get(node, "node-name"));
		if (!of_disk(record, "disk-", name) && !of_disk(record, "file-", name))
			verify_fault(verify, "host %s: node %s was left behind in the block backend of %s", host->name,
			             name != NULL ? name : "?", record->name);
		json_array_foreach(json_object_get(node, "dirty-bitmaps"), k, bitmap)
		{
			const char *what = json_string_value(json_object_get(bitmap, "name"));
			verify_fault(verify, "host %s: bitmap %s was left behind in the block backend of %s",
			             host->name, what != NULL ? what : "?", record->name);
		}
	}
}

static void judge_backend(struct verify *verify, const struct verify_host *host, const struct verify_record *record)
{
	char path[VERIFY_PATH + VERIFY_NAME + 16];
	struct wire wire;
	size_t index;
	json_t *export, *greeting = NULL, *ready = NULL, *nodes = NULL, *exports = NULL;
	snprintf(path, sizeof(path), "%s/run/qmp-%s.sock", host->home, record->name);
	if (wire_open(&wire, path) == 0) {
		greeting = wire_next(&wire);
		ready = qmp_ask(&wire, "{\"execute\":\"qmp_capabilities\"}\n");
		nodes = qmp_ask(&wire, "{\"execute\":\"query-named-block-nodes\",\"arguments\":{\"flat\":true}}\n");
		exports = qmp_ask(&wire, "{\"execute\":\"query-block-exports\"}\n");
	}
	wire_close(&wire);
	if (nodes == NULL || exports == NULL)
		verify_fault(verify, "host %s: the block backend of %s does not answer", host->name, record->name);
	judge_nodes(verify, host, record, nodes);
	json_array_foreach(exports, index, export)
	{
		const char *id = json_string_value(json_object_get(export, "id"));
		if (!of_disk(record, "guest-", id))
			verify_fault(verify, "host %s: export %s was left behind in the block backend of %s",
			             host->name, id != NULL ? id : "?", record->name);
	}
	json_decref(greeting);
	json_decref(ready);
	json_decref(nodes);
	json_decref(exports);
}

static void judge_guest(struct verify *verify, const struct verify_host *host, const struct verify_record *record)
{
	char path[VERIFY_PATH + VERIFY_NAME + 16];
	struct wire wire;
	json_t *doc = NULL;
	snprintf(path, sizeof(path), "%s/run/guest-%s.sock", host->home, record->name);
	if (wire_open(&wire, path) == 0 && wire_say(&wire, "{\"op\":\"status\"}\n"))
		doc = wire_next(&wire);
	wire_close(&wire);
	const char *state = json_string_value(json_object_get(doc, "state"));
	if (state == NULL)
		verify_fault(verify, "host %s: VM %s does not answer", host->name, record->name);
	else if (strcmp(state, "running") != 0 && (strcmp(state, "suspended") != 0 || host->session_count == 0))
		verify_fault(verify, "host %s: VM %s is %s, and no journal knows why", host->name, record->name, state);
	else if (host->session_count == 0 && (json_is_true(json_object_get(doc, "log")) ||
	                                      json_integer_value(json_object_get(doc, "throttle")) != 0))
		verify_fault(verify, "host %s: VM %s is still %s", host->name, record->name,
		             json_is_true(json_object_get(doc, "log")) ? "logged" : "slowed down");
	json_decref(doc);
}

void verify_backends(struct verify *verify)
{
	for (unsigned i = 0; i < verify->host_count; i++) {
		const struct verify_host *host = &verify->hosts[i];
		for (size_t k = 0; k < host->record_count; k++) {
			const struct verify_record *record = &host->records[k];
			if (!record->guest_alive || strcmp(record->state, "running") != 0)
				continue;
			judge_guest(verify, host, record);
			if (record->disk_count > 0 && record->backend_alive && !claimed_bitmap(host))
				judge_backend(verify, host, record);
		}
	}
}
