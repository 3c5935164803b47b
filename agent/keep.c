/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What sessions left on this host: kept disks and copies go when their time is over, and so do the files of legs that
 * were killed; leftovers are told of. */
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent_impl.h"
#include "common/clock.h"
#include "common/lock.h"
#include "common/log.h"

/* A kept disk that somebody began to remove: it is taken from the journal last. */
static bool is_going(const struct journal_resource *resource)
{
	return resource->state == RESOURCE_INTENT && resource->kept_until_wall_ms != 0;
}

static void expire(struct agent *agent, const struct journal_resource *kept)
{
	struct err err = { 0 };
	/* A leg that wants it takes it in the same way: one of the two has it. */
	if (!is_going(kept) &&
	    journal_kept_take(agent->journal, kept->id, kept->migration, kept->generation, RESOURCE_INTENT, &err) < 0) {
		if (err.code != ERR_UNKNOWN_ID)
			log_error("event=journal error=\"%s\"", err.text);
		return;
	}
	if (kept->path[0] && sr_disk_remove(kept->path, &err) < 0) {
		log_warning("event=kept-disk migration=%" PRIu64 " disk=%s path=%s error=\"%s\"", kept->migration,
		            kept->name, kept->path, err.text);
		return; /* tried again with the next sweep */
	}
	if (journal_resource_gone(agent->journal, kept->id, &err) < 0) {
		log_error("event=journal error=\"%s\"", err.text);
		return;
	}
	log_notice("event=kept-disk-removed migration=%" PRIu64 " disk=%s path=%s", kept->migration, kept->name,
	           kept->path);
}

/* Nobody works on it any more, and it is not there on purpose. */
static bool is_leftover(struct agent *agent, const struct journal_resource *resource)
{
	if (resource->state == RESOURCE_KEPT || is_going(resource))
		return false;
	const struct session *session = session_find(agent, resource->migration, resource->generation);
	return !session || session_is_over(&session->row.core);
}

/* What a leg has in run/ while it lives, its log apart. */
static const char *const leg_files[] = { "sock", "pid", "identity", "identity.new", "lock" };
#define LEG_FILES (sizeof(leg_files) / sizeof(leg_files[0]))

/* The migration's number if it is one of these, else 0. */
static uint64_t leg_file_of(const char *name)
{
	uint64_t migration = 0;
	int end = 0;
	if (sscanf(name, "leg-%" SCNu64 ".%n", &migration, &end) != 1 || end == 0)
		return 0;
	for (size_t i = 0; i < LEG_FILES; i++)
		if (strcmp(name + end, leg_files[i]) == 0)
			return migration;
	return 0;
}

static bool has_session(const struct agent *agent, uint64_t migration)
{
	for (const struct session *s = agent->sessions; s; s = s->next)
		if (!s->doomed && s->row.migration == migration)
			return true;
	return false;
}

void keep_leg_files_remove(const struct agent *agent, uint64_t migration)
{
	char path[PATHS_MAX + 64];
	int lock;
	(void)snprintf(path, sizeof(path), "%s/leg-%" PRIu64 ".lock", agent->paths.run, migration);
	if (lock_take(path, &lock, NULL) < 0)
		return;
	for (size_t i = 0; i + 1 < LEG_FILES; i++) {
		(void)snprintf(path, sizeof(path), "%s/leg-%" PRIu64 ".%s", agent->paths.run, migration, leg_files[i]);
		(void)unlink(path);
	}
	(void)snprintf(path, sizeof(path), "%s/leg-%" PRIu64 ".lock", agent->paths.run, migration);
	lock_drop(path, lock);
	log_info("event=leg-files-removed migration=%" PRIu64, migration);
}

/* A leg that is killed after its work and before it was forgotten has no successor. Only those of migrations that the
 * journal knows to be over: a socket of another one says that there was another journal (V11). */
static void sweep_leg_files(struct agent *agent)
{
	struct dirent *entry;
	DIR *dir = opendir(agent->paths.run);
	while (dir && (entry = readdir(dir))) {
		uint64_t migration = leg_file_of(entry->d_name);
		uint32_t known = 0;
		if (migration != 0 && !has_session(agent, migration) &&
		    journal_generation(agent->journal, migration, &known, NULL) == 0 && known > 0)
			keep_leg_files_remove(agent, migration);
	}
	if (dir)
		(void)closedir(dir);
}

/* When a kept disk may go, by the clock that nobody sets: what was left of its time by the wall clock when it was first
 * seen. Whatever the wall clock is set to later makes it go neither sooner nor later. */
static int64_t due_ms(const struct agent *agent, const struct journal_resource *kept, int64_t now_ms)
{
	for (size_t i = 0; i < agent->kept_count; i++)
		if (agent->kept[i].id == kept->id && agent->kept[i].until_wall_ms == kept->kept_until_wall_ms)
			return agent->kept[i].due_ms;
	return now_ms + ((int64_t)kept->kept_until_wall_ms - clock_real.wall_ms(&clock_real));
}

/* Those of the list that go in their time; what is gone is left out. */
static void note_kept(struct agent *agent, const struct journal_resource *list, size_t count)
{
	int64_t now_ms = agent_now_ms();
	struct kept *kept = calloc(count ? count : 1, sizeof(*kept));
	size_t found = 0;
	if (!kept)
		return; /* as it was: noted at the next sweep */
	for (size_t i = 0; i < count; i++)
		if (list[i].state == RESOURCE_KEPT && list[i].kept_until_wall_ms != 0)
			kept[found++] = (struct kept) { list[i].id, list[i].kept_until_wall_ms,
				                        due_ms(agent, &list[i], now_ms) };
	free(agent->kept);
	agent->kept = kept;
	agent->kept_count = found;
}

static bool is_over(const struct agent *agent, const struct journal_resource *resource, int64_t now_ms)
{
	if (resource->state != RESOURCE_KEPT || resource->kept_until_wall_ms == 0)
		return is_going(resource);
	return due_ms(agent, resource, now_ms) <= now_ms;
}

void keep_note(struct agent *agent)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	if (journal_resource_list(agent->journal, 0, 0, &list, &count, NULL) < 0)
		return; /* noted at the next sweep */
	note_kept(agent, list, count);
	free(list);
}

void keep_sweep(struct agent *agent)
{
	sweep_leg_files(agent);
	struct journal_resource *list = NULL;
	size_t count = 0;
	struct err err;
	unsigned leftovers = 0;
	int64_t now_ms = agent_now_ms();
	if (journal_resource_list(agent->journal, 0, 0, &list, &count, &err) < 0) {
		log_error("event=journal error=\"%s\"", err.text);
		return;
	}
	note_kept(agent, list, count);
	for (size_t i = 0; i < count; i++) {
		const struct journal_resource *resource = &list[i];
		if (is_over(agent, resource, now_ms))
			expire(agent, resource);
		leftovers += is_leftover(agent, resource);
	}
	if (leftovers != agent->leftovers) {
		agent->leftovers = leftovers;
		log_warning("event=leftovers count=%u", leftovers);
		for (size_t i = 0; i < count; i++)
			if (is_leftover(agent, &list[i]))
				log_warning("event=leftover migration=%" PRIu64 " kind=%s name=%s path=%s",
				            list[i].migration, resource_kind_name(list[i].kind), list[i].name,
				            list[i].path);
	}
	free(list);
}
