/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What we call our things in a block backend, and how they are taken away. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/disk/source_int.h"

#define CLEAN_POLL_MS 5
#define SOURCE_PREFIX "drover-"

int source_names_make(struct source_names *ret_names, const struct hypervisor_disk *disk, uint64_t migration,
                      struct err *err)
{
	const char *slash = strrchr(disk->qmp_path, '/');
	int directory = slash ? (int)(slash - disk->qmp_path) + 1 : 0;
	bool plain =
		disk->name[strspn(disk->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")] ==
		0;
	snprintf(ret_names->prefix, sizeof(ret_names->prefix), SOURCE_PREFIX "%" PRIu64 "-", migration);
	int n = snprintf(ret_names->shadow, sizeof(ret_names->shadow), "%s%s", ret_names->prefix, disk->name);
	if (n >= SOURCE_NODE_NAME || !plain || disk->name[0] == 0) {
		uint32_t hash = (uint32_t)XXH3_64bits(disk->name, strlen(disk->name));
		n = snprintf(ret_names->shadow, sizeof(ret_names->shadow), "%s%08" PRIx32, ret_names->prefix, hash);
	}
	if (n >= SOURCE_NODE_NAME)
		return err_set(err, ERR_UNSUPPORTED, "migration %" PRIu64 ": number too long for a node name",
		               migration);
	/* one monitor has one client at a time, so its NBD server is never needed twice at once */
	n = snprintf(ret_names->socket, sizeof(ret_names->socket), "%.*sdrover-%" PRIu64 ".nbd", directory,
	             disk->qmp_path, migration);
	if (n >= 108) /* sun_path */
		return err_set(err, ERR_CONFIG, "%s: path too long for a socket beside it", disk->qmp_path);
	snprintf(ret_names->reader, sizeof(ret_names->reader), "%.*s%s.nbd", directory, disk->qmp_path,
	         ret_names->shadow);
	return 0;
}

int source_node_query(struct qmp *qmp, const char *node, json_t **ret_node, struct err *err)
{
	json_t *nodes = NULL, *entry;
	size_t i;
	if (qmp_run(qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), QMP_COMMAND_MS, &nodes, err) < 0)
		return -1;
	json_array_foreach(nodes, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "node-name"));
		if (name && strcmp(name, node) == 0) {
			*ret_node = json_incref(entry);
			json_decref(nodes);
			return 0;
		}
	}
	json_decref(nodes);
	return err_set(err, ERR_BACKEND, "the block backend has no node %s", node);
}

/* 1: there is an export with this id, 0: none, -1: no answer. */
static int export_there(struct qmp *qmp, const char *id, struct err *err)
{
	json_t *exports = NULL, *entry;
	size_t i;
	int there = 0;
	if (qmp_run(qmp, "query-block-exports", NULL, QMP_COMMAND_MS, &exports, err) < 0)
		return -1;
	json_array_foreach(exports, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "id"));
		there |= name && strcmp(name, id) == 0;
	}
	json_decref(exports);
	return there;
}

int source_export_remove(struct qmp *qmp, const char *id, struct err *err)
{
	int64_t deadline_ms = disk_now_ms() + SOURCE_EXPORT_GONE_MS;
	bool asked = false;
	for (;;) {
		int there = export_there(qmp, id, err);
		if (there <= 0)
			return there;
		/* "hard": a client that hangs does not hold it. An error here (just shutting down) shows in the list.
		 */
		if (!asked)
			qmp_run(qmp, "block-export-del", json_pack("{s:s, s:s}", "id", id, "mode", "hard"),
			        QMP_COMMAND_MS, NULL, NULL);
		asked = true;
		if (disk_now_ms() > deadline_ms)
			return err_set(err, ERR_BACKEND, "export %s does not go away", id);
		short events;
		(void)disk_wait(NULL, -1, 0, disk_now_ms() + CLEAN_POLL_MS, &events, NULL);
	}
}

static int remove_bitmaps(struct qmp *qmp, const char *node, const char *prefix, const json_t *entry, struct err *err)
{
	const json_t *bitmap;
	size_t i;
	json_array_foreach(json_object_get(entry, "dirty-bitmaps"), i, bitmap)
	{
		const char *name = json_string_value(json_object_get(bitmap, "name"));
		if (!name || strncmp(name, prefix, strlen(prefix)) != 0)
			continue;
		if (qmp_run(qmp, "block-dirty-bitmap-remove", json_pack("{s:s, s:s}", "node", node, "name", name),
		            QMP_COMMAND_MS, NULL, err) < 0)
			return -1;
	}
	return 0;
}

/* The number in drover-NUMBER-…; 0: it is not called that. */
static uint64_t migration_of(const char *name)
{
	char *end;
	if (!name || strncmp(name, SOURCE_PREFIX, strlen(SOURCE_PREFIX)) != 0)
		return 0;
	name += strlen(SOURCE_PREFIX);
	errno = 0;
	unsigned long long number = *name >= '1' && *name <= '9' ? strtoull(name, &end, 10) : 0;
	return number > 0 && number <= INT64_MAX && errno == 0 && *end == '-' ? number : 0;
}

struct found {
	uint64_t *list;
	unsigned count, room;
};

static void found_add(struct found *found, uint64_t migration)
{
	for (unsigned i = 0; i < found->count; i++)
		if (found->list[i] == migration)
			return;
	if (migration != 0 && found->count < found->room)
		found->list[found->count++] = migration;
}

/* A shadow node, or the export of one, that was made for this disk: others of the same backend are others' finds. */
static void found_shadow(struct found *found, const struct hypervisor_disk *disk, const char *name)
{
	struct source_names names;
	uint64_t migration = migration_of(name);
	if (migration != 0 && source_names_make(&names, disk, migration, NULL) == 0 && strcmp(names.shadow, name) == 0)
		found_add(found, migration);
}

int disk_source_find(const struct hypervisor_disk *disk, uint64_t *ret_migrations, unsigned *count, struct err *err)
{
	struct found found = { ret_migrations, 0, *count };
	json_t *nodes = NULL, *exports = NULL, *entry, *bitmap;
	struct qmp *qmp = NULL;
	struct err why = { 0 };
	size_t i, k;
	*count = 0;
	if (qmp_open(&qmp, disk->qmp_path, NULL, QMP_OPEN_MS, &why) < 0)
		return why.code == ERR_UNREACHABLE ? 0 : err_set(err, why.code, "%s", why.text);
	int result =
		qmp_run(qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), QMP_COMMAND_MS, &nodes, err);
	if (result == 0)
		result = qmp_run(qmp, "query-block-exports", NULL, QMP_COMMAND_MS, &exports, err);
	qmp_close(qmp);
	json_array_foreach(nodes, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "node-name"));
		found_shadow(&found, disk, name);
		if (!name || strcmp(name, disk->node) != 0)
			continue;
		json_array_foreach(json_object_get(entry, "dirty-bitmaps"), k, bitmap)
		{
			found_add(&found, migration_of(json_string_value(json_object_get(bitmap, "name"))));
		}
	}
	json_array_foreach(exports, i, entry)
	{
		found_shadow(&found, disk, json_string_value(json_object_get(entry, "id")));
	}
	json_decref(nodes);
	json_decref(exports);
	*count = found.count;
	return result;
}

int source_clean_with(struct qmp *qmp, const struct hypervisor_disk *disk, const struct source_names *names,
                      struct err *err)
{
	json_t *nodes = NULL, *entry;
	size_t i;
	int result = 0;
	unlink(names->reader);
	if (source_export_remove(qmp, names->shadow, err) < 0)
		return -1;
	if (disk->nbd_path[0] == 0 && access(names->socket, F_OK) == 0) {
		qmp_run(qmp, "nbd-server-stop", NULL, QMP_COMMAND_MS, NULL, NULL); /* it may never have been started */
		unlink(names->socket);
	}
	if (qmp_run(qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), QMP_COMMAND_MS, &nodes, err) < 0)
		return -1;
	json_array_foreach(nodes, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "node-name"));
		if (name && result == 0 && strcmp(name, disk->node) == 0)
			result = remove_bitmaps(qmp, name, names->prefix, entry, err);
		if (name && result == 0 && strcmp(name, names->shadow) == 0)
			result = qmp_run(qmp, "blockdev-del", json_pack("{s:s}", "node-name", name), QMP_COMMAND_MS,
			                 NULL, err);
	}
	json_decref(nodes);
	return result;
}
