/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Taking away what is journaled, whoever made it. */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "agent/leg/dest.h"
#include "common/log.h"

#define KILL_MS 2000
#define UNMOUNT_MS 5000
#define TREE_FDS 8

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path) && errno != ENOENT ? -1 : 0;
}

static int remove_tree(const char *path, struct err *err)
{
	if (nftw(path, remove_entry, TREE_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) && errno != ENOENT)
		return err_errno(err, ERR_IO, errno, "remove %s", path);
	return 0;
}

/* An exporter that was killed may leave a FUSE mount behind, on which everything fails but unmounting. */
static void unmount(const char *dir)
{
	char path[LIMIT_PATH + 8];
	struct stat st;
	snprintf(path, sizeof(path), "%s/disk", dir);
	const char *argv[] = { "fusermount3", "-u", "-z", path, NULL };
	if (stat(path, &st) && errno == ENOTCONN)
		proc_run(argv, NULL, NULL, NULL, UNMOUNT_MS, NULL);
}

/* The note holds all processes of an exporter as "pid:ticks pid:ticks". */
static bool next_process(const char **at, struct proc_id *ret_id)
{
	char *end;
	long pid = strtol(*at, &end, 10);
	if (end == *at || *end != ':' || pid <= 0)
		return false;
	const char *ticks = end + 1;
	*ret_id = (struct proc_id) { (pid_t)pid, strtoull(ticks, &end, 10) };
	*at = end;
	return end != ticks;
}

int clean_exporter(const struct paths *paths, const struct journal_resource *resource, struct err *err)
{
	int rc = 0;
	char name[LIMIT_NAME + 48];
	struct proc_id id;
	for (const char *at = resource->note; next_process(&at, &id);)
		if (proc_kill(&id, KILL_MS, rc ? NULL : err))
			rc = -1;
	if (rc)
		return err_wrap(err, "end the exporter of %s", resource->name);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), i ? "export-%" PRIu64 "-%s-%u" : "export-%" PRIu64 "-%s",
		         resource->migration, resource->name, i + 1);
		paths_remove_pid(paths, name);
	}
	unmount(resource->path);
	return remove_tree(resource->path, err);
}

static int clean_bitmap(const struct journal_resource *resource, const struct hypervisor_disk *disks, unsigned count,
                        struct err *err)
{
	for (unsigned i = 0; i < count; i++)
		if (strcmp(disks[i].name, resource->name) == 0)
			return disk_source_clean(&disks[i], resource->migration, err);
	return 0; /* the VM is gone, and its backend with it */
}

int clean_one(const struct clean_tools *tools, const struct journal_resource *resource,
              const struct hypervisor_disk *disks, unsigned count, struct err *err)
{
	uuid_t uuid;
	switch (resource->kind) {
	case RESOURCE_DISK:
		return sr_disk_remove(resource->path, err);
	case RESOURCE_RESERVE:
		return sr_reserve_remove(resource->path, err);
	case RESOURCE_EXPORT:
		return clean_exporter(tools->paths, resource, err);
	case RESOURCE_VM:
		if (uuid_parse(resource->name, uuid))
			return err_set(err, ERR_CORRUPT, "VM resource '%s' is no UUID", resource->name);
		return tools->ops->dest_destroy(tools->hv, uuid, resource->migration, err);
	case RESOURCE_BITMAP:
		return clean_bitmap(resource, disks, count, err);
	case RESOURCE_SOURCE_DISK:
		return 0; /* the VM's own disk stays with it */
	case RESOURCE_FILE:
		return unlink(resource->path) && errno != ENOENT
		               ? err_errno(err, ERR_IO, errno, "remove %s", resource->path)
		               : 0;
	case RESOURCE_KINDS:
		break;
	}
	return err_set(err, ERR_CORRUPT, "resource of unknown kind %d", (int)resource->kind);
}

/* 1: it is kept, on purpose. 0: it is to be taken away. */
static int keep(struct leg *leg, struct journal_resource *resource, bool all_gone, struct err *err)
{
	bool kept = resource->state == RESOURCE_KEPT;
	uint64_t until_ms = kept ? resource->kept_until_wall_ms : dest_keep_until(leg, resource);
	if (!until_ms)
		return kept;
	/* Not while somebody may still have it open. */
	if (!kept && !all_gone)
		return err_set(err, ERR_BUSY, "disk %s waits for what uses it", resource->name);
	resource->state = RESOURCE_KEPT;
	resource->kept_until_wall_ms = until_ms;
	if (!kept && leg_resource_update(leg, resource, err))
		return -1;
	/* A source's whole disk is told of by the migration that it was kept for. */
	if (resource->kind == RESOURCE_DISK && leg_kept_until(leg, until_ms, err))
		return -1;
	if (!kept)
		log_notice("event=kept migration=%" PRIu64 " kind=%s name=%s path=%s", leg->options.migration,
		           resource_kind_name(resource->kind), resource->name, resource->path);
	return 1;
}

int clean_resources(struct leg *leg, const struct hypervisor_disk *hv_disks, unsigned hv_disk_count, struct err *err)
{
	const struct clean_tools tools = { &leg->paths, leg->ops, leg->hv };
	struct journal_resource *list = NULL;
	size_t count = 0;
	int rc = leg_resource_list(leg, &list, &count, err);
	for (size_t i = 0; i < count; i++) {
		struct err why = { 0 };
		int kept = keep(leg, &list[i], rc == 0, &why);
		if (kept == 1)
			continue;
		if (kept < 0 || clean_one(&tools, &list[i], hv_disks, hv_disk_count, &why) ||
		    leg_resource_gone(leg, list[i].id, &why)) {
			log_warning("event=leftover migration=%" PRIu64 " kind=%s name=%s error=\"%s\"",
			            leg->options.migration, resource_kind_name(list[i].kind), list[i].name, why.text);
			if (!rc && err)
				*err = why;
			rc = -1;
			continue;
		}
		log_info("event=removed migration=%" PRIu64 " kind=%s name=%s", leg->options.migration,
		         resource_kind_name(list[i].kind), list[i].name);
	}
	free(list);
	return rc;
}
