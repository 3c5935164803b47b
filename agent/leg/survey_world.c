/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is there: storage repositories, the run directory, processes, block backends, VMs. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "agent/leg/survey.h"
#include "common/proc.h"

#define WORDS_BYTES 65536      /* of a command line or an environment; what is beyond is not looked at */
#define BACKEND_MIGRATIONS 16  /* of which things are found in one disk's backend */
#define NUMBER_DIGITS_MAX 19   /* of a migration */
#define EXPORT_HEAD "/export-" /* after the run directory, in what an exporter is told */

/* ---- names ---- */

/* The number after `head` in `name`, NULL if that is not how it begins; else what follows the number. */
static const char *number_after(const char *name, const char *head, uint64_t *ret_number)
{
	size_t bytes = strlen(head);
	char *end;
	if (strncmp(name, head, bytes) != 0 || name[bytes] < '1' || name[bytes] > '9')
		return NULL;
	unsigned long long number = strtoull(name + bytes, &end, 10);
	if (end - (name + bytes) > NUMBER_DIGITS_MAX || number > INT64_MAX)
		return NULL;
	*ret_number = number;
	return end;
}

static bool is_one_of(const char *text, const char *const list[])
{
	for (; *list; list++)
		if (strcmp(text, *list) == 0)
			return true;
	return false;
}

static bool ends_with(const char *text, const char *tail)
{
	size_t bytes = strlen(text), tail_bytes = strlen(tail);
	return bytes >= tail_bytes && strcmp(text + bytes - tail_bytes, tail) == 0;
}

/* Path and row path; false if they do not fit: then nobody of ours has made it. */
static bool set_path(struct survey_thing *thing, const char *dir, const char *name, const char *row_name)
{
	int n = snprintf(thing->path, sizeof(thing->path), "%s/%s", dir, name);
	int row = snprintf(thing->row.path, sizeof(thing->row.path), "%s/%s", dir, row_name);
	return n > 0 && n < LIMIT_PATH && row > 0 && row < LIMIT_PATH;
}

static void set_name(struct survey_thing *thing, const char *name, size_t bytes)
{
	snprintf(thing->name, sizeof(thing->name), "%.*s", (int)bytes, name);
	memcpy(thing->row.name, thing->name, sizeof(thing->row.name));
}

/* ---- files ---- */

/* The next one in a directory, and what it is, links not followed; false at its end. What cannot be read is no proof
 * that nothing is there. */
static bool next_in(struct survey *survey, DIR *dir, const char *where, struct dirent **ret_entry, struct stat *ret_st)
{
	struct err err = { 0 };
	for (errno = 0; (*ret_entry = readdir(dir)); errno = 0) {
		if (fstatat(dirfd(dir), (*ret_entry)->d_name, ret_st, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
		if (errno == ENOENT)
			continue; /* gone meanwhile */
		err_errno(&err, ERR_IO, errno, "look at %s/%s", where, (*ret_entry)->d_name);
		survey_fault(survey, &err);
	}
	if (errno) {
		err_errno(&err, ERR_IO, errno, "read %s", where);
		survey_fault(survey, &err);
	}
	return false;
}

static void look_at_sr(struct survey *survey, const struct sr_config *sr)
{
	struct err err = { 0 };
	struct dirent *entry;
	struct stat st;
	DIR *dir = opendir(sr->path);
	if (!dir) {
		err_errno(&err, ERR_IO, errno, "SR %s: %s", sr->name, sr->path);
		survey_fault(survey, &err);
		return;
	}
	while (next_in(survey, dir, sr->path, &entry, &st)) {
		struct sr_file file;
		if (!sr_file_parse(entry->d_name, &file) || !S_ISREG(st.st_mode))
			continue;
		struct survey_thing *thing =
			survey_add(survey, file.reserve ? HOLDING_RESERVE : HOLDING_DISK, file.migration);
		if (!thing)
			break;
		set_name(thing, file.disk, strlen(file.disk));
		thing->dropped = !set_path(thing, sr->path, entry->d_name, file.image);
	}
	closedir(dir);
}

/* The exporter of this directory, known already or new. */
static struct survey_thing *exporter_at(struct survey *survey, uint64_t migration, const char *path, const char *disk,
                                        size_t disk_bytes)
{
	for (size_t i = 0; i < survey->thing_count; i++)
		if (survey->things[i].kind == HOLDING_EXPORT && strcmp(survey->things[i].path, path) == 0)
			return &survey->things[i];
	struct survey_thing *thing = survey_add(survey, HOLDING_EXPORT, migration);
	if (!thing)
		return NULL;
	set_name(thing, disk, disk_bytes);
	snprintf(thing->path, sizeof(thing->path), "%s", path);
	memcpy(thing->row.path, thing->path, sizeof(thing->row.path));
	return thing;
}

/* What in the run directory bears a migration's number. Logs of legs are for reading, and are pruned by the agent. */
static void look_at_run_file(struct survey *survey, const char *name, bool is_dir)
{
	static const char *const of_leg[] = {
		".sock", ".pid", ".pid.new", ".lock", ".identity", ".identity.new", NULL
	};
	uint64_t migration = 0;
	const char *rest;
	bool ours = false;
	if ((rest = number_after(name, "leg-", &migration)))
		ours = !is_dir && is_one_of(rest, of_leg);
	else if ((rest = number_after(name, "drover-", &migration))) /* sockets beside a block backend's monitor */
		ours = !is_dir && (rest[0] == '.' || rest[0] == '-') && ends_with(rest, ".nbd");
	else if ((rest = number_after(name, "export-", &migration)) && rest[0] == '-' && rest[1])
		ours = is_dir || ends_with(rest, ".pid") || ends_with(rest, ".pid.new");
	if (!ours)
		return;
	if (is_dir) {
		char path[PATHS_MAX + NAME_MAX + 2];
		snprintf(path, sizeof(path), "%s/%s", survey->paths.run, name);
		if (strlen(path) < LIMIT_PATH)
			(void)exporter_at(survey, migration, path, rest + 1, strlen(rest + 1));
		return;
	}
	struct survey_thing *thing = survey_add(survey, HOLDING_FILE, migration);
	if (!thing)
		return;
	set_name(thing, name, strlen(name));
	thing->dropped = !set_path(thing, survey->paths.run, name, name);
}

static void look_at_run(struct survey *survey)
{
	struct err err = { 0 };
	struct dirent *entry;
	struct stat st;
	DIR *dir = opendir(survey->paths.run);
	if (!dir) {
		err_errno(&err, ERR_IO, errno, "%s", survey->paths.run);
		survey_fault(survey, &err);
		return;
	}
	while (next_in(survey, dir, survey->paths.run, &entry, &st)) {
		if (!S_ISLNK(st.st_mode))
			look_at_run_file(survey, entry->d_name, S_ISDIR(st.st_mode));
	}
	closedir(dir);
}

/* ---- processes ---- */

/* The word after `option` among NUL-separated ones; NULL: there is none. */
static const char *value_of(const char *words, size_t bytes, const char *option)
{
	for (const char *word = words; word < words + bytes; word += strlen(word) + 1) {
		const char *next = word + strlen(word) + 1;
		if (strcmp(word, option) == 0 && next < words + bytes)
			return next;
	}
	return NULL;
}

/* `drover-leg-X run --home HOME --migration N …` of this home. */
static void look_at_leg(struct survey *survey, const struct proc_id *id, const char *words, size_t bytes)
{
	uint64_t migration = 0;
	const char *home = value_of(words, bytes, "--home"), *number = value_of(words, bytes, "--migration");
	const char *generation = value_of(words, bytes, "--generation"), *mode = words + strlen(words) + 1;
	if (mode >= words + bytes || strcmp(mode, "run") != 0 || strcmp(home ? home : "", survey->paths.home) != 0)
		return;
	if (!number || !number_after(number, "", &migration))
		return;
	struct survey_thing *thing = survey_add(survey, HOLDING_LEG, migration);
	if (!thing)
		return;
	char name[32];
	snprintf(name, sizeof(name), "leg-%" PRIu64, migration);
	set_name(thing, name, strlen(name));
	thing->row.process = *id;
	thing->row.generation = generation ? (uint32_t)strtoul(generation, NULL, 10) : 0;
}

/* A process that was told of a directory run/export-N-DISK belongs to that exporter. */
static void look_at_exporter(struct survey *survey, const struct proc_id *id, const char *words, size_t bytes)
{
	char head[PATHS_MAX + sizeof(EXPORT_HEAD)], path[LIMIT_PATH];
	uint64_t migration = 0;
	snprintf(head, sizeof(head), "%s%s", survey->paths.run, EXPORT_HEAD);
	const char *at = memmem(words, bytes, head, strlen(head));
	const char *disk = at ? number_after(at + strlen(head), "", &migration) : NULL;
	if (!disk || disk[0] != '-')
		return;
	size_t disk_bytes = strcspn(++disk, "/,;:= \"");
	size_t path_bytes = (size_t)(disk - at) + disk_bytes;
	if (disk_bytes == 0 || path_bytes >= sizeof(path))
		return;
	memcpy(path, at, path_bytes);
	path[path_bytes] = '\0';
	struct survey_thing *thing = exporter_at(survey, migration, path, disk, disk_bytes);
	size_t used = thing ? strlen(thing->row.note) : 0;
	if (thing)
		snprintf(thing->row.note + used, sizeof(thing->row.note) - used, "%d:%" PRIu64 " ", (int)id->pid,
		         id->start_ticks);
}

static void look_at_process(struct survey *survey, pid_t pid, char *words)
{
	static const char *const exporters[] = { "tgtd", "nbdkit", "qemu-nbd", "qemu-storage-da", NULL };
	static const char leg[] = "drover-leg-";
	char comm[64];
	struct proc_id id;
	/* who it is comes first: if the pid is another's by the time that its words are read, the start time tells */
	if (proc_identify(pid, &id) || proc_read(pid, "comm", comm, sizeof(comm)) == 0)
		return;
	comm[strcspn(comm, "\n")] = '\0';
	bool is_leg = strncmp(comm, leg, sizeof(leg) - 1) == 0;
	if (!is_leg && !is_one_of(comm, exporters))
		return;
	size_t bytes = proc_read(pid, "cmdline", words, WORDS_BYTES);
	if (bytes == 0)
		return;                           /* a zombie */
	if (!is_leg && strcmp(comm, "tgtd") == 0) /* knows its directory from the environment */
		bytes += proc_read(pid, "environ", words + bytes, WORDS_BYTES);
	if (!proc_alive(&id))
		return;
	if (is_leg)
		look_at_leg(survey, &id, words, bytes);
	else
		look_at_exporter(survey, &id, words, bytes);
}

static void look_at_processes(struct survey *survey)
{
	struct err err = { 0 };
	struct dirent *entry;
	struct stat st;
	char *words = malloc(2 * WORDS_BYTES);
	DIR *dir = words ? opendir("/proc") : NULL;
	if (!dir) {
		err_errno(&err, ERR_IO, words ? errno : ENOMEM, "/proc");
		survey_fault(survey, &err);
	}
	while (dir && next_in(survey, dir, "/proc", &entry, &st)) {
		if (isdigit((unsigned char)entry->d_name[0]) && st.st_uid == geteuid())
			look_at_process(survey, (pid_t)atol(entry->d_name), words);
	}
	if (dir)
		closedir(dir);
	free(words);
}

/* ---- VMs and their block backends ---- */

/* False: it does not answer, and its other disks would not either. */
static bool look_at_backend(struct survey *survey, const struct hypervisor_vm *vm, const struct hypervisor_disk *disk)
{
	uint64_t found[BACKEND_MIGRATIONS];
	unsigned count = BACKEND_MIGRATIONS;
	struct survey_claims claims;
	struct err err = { 0 };
	if (disk_source_find(disk, found, &count, &err)) {
		/* A migration that has begun meanwhile may have the monitor; what it makes there is its own. */
		bool moving = survey_claims_read(survey, &claims, NULL) == 0;
		if (moving) {
			moving = survey_is_moving(&claims, vm->uuid);
			survey_claims_free(&claims);
		}
		err_wrap(&err, "VM %s, disk %s", vm->name, disk->name);
		if (!moving)
			survey_fault(survey, &err);
		return false;
	}
	for (unsigned i = 0; i < count; i++) {
		struct survey_thing *thing = survey_add(survey, HOLDING_BITMAP, found[i]);
		if (!thing)
			break;
		set_name(thing, disk->name, strlen(disk->name));
		memcpy(thing->path, disk->qmp_path, sizeof(thing->path));
		memcpy(thing->row.path, disk->qmp_path, sizeof(thing->row.path));
		memcpy(thing->vm, vm->uuid, sizeof(thing->vm));
		thing->disk = malloc(sizeof(*disk));
		if (thing->disk)
			*thing->disk = *disk;
		else
			thing->dropped = true;
	}
	return true;
}

static void look_at_vm(struct survey *survey, const struct hypervisor_vm *vm)
{
	char uuid[UUID_STR_LEN];
	if (vm->state == HYPERVISOR_VM_OWN) {
		for (unsigned i = 0; i < vm->disk_count; i++)
			if (vm->disks[i].qmp_path[0] && !look_at_backend(survey, vm, &vm->disks[i]))
				break;
		return;
	}
	struct survey_thing *thing = survey_add(survey, HOLDING_VM, vm->migration);
	if (!thing)
		return;
	uuid_unparse_lower(vm->uuid, uuid);
	memcpy(thing->name, vm->name, sizeof(thing->name));
	memcpy(thing->row.name, uuid, sizeof(uuid));
	memcpy(thing->vm, vm->uuid, sizeof(thing->vm));
	thing->vm_state = vm->state;
}

/* The monitors of VMs that are being migrated are left to their legs. */
static void look_at_vms(struct survey *survey)
{
	struct survey_claims before;
	struct err err = { 0 };
	if (survey_claims_read(survey, &before, &err)) {
		survey_fault(survey, &err);
		return;
	}
	for (size_t i = 0; i < before.vm_count; i++)
		if (before.vms[i].state != HYPERVISOR_VM_OWN || !survey_is_moving(&before, before.vms[i].uuid))
			look_at_vm(survey, &before.vms[i]);
	survey_claims_free(&before);
}

void survey_world(struct survey *survey)
{
	for (uint32_t i = 0; i < survey->conf->sr_count; i++)
		look_at_sr(survey, &survey->conf->srs[i]);
	/* Files before processes: whose leg has ended in between is gone when it is looked for again. */
	look_at_run(survey);
	look_at_processes(survey);
	look_at_vms(survey);
}

/* ---- once more ---- */

static bool exporter_is_there(const struct survey_thing *thing)
{
	struct stat st;
	int pid, used;
	uint64_t ticks;
	if (lstat(thing->path, &st) == 0)
		return true;
	for (const char *at = thing->row.note; sscanf(at, "%d:%" SCNu64 " %n", &pid, &ticks, &used) == 2; at += used)
		if (proc_alive(&(struct proc_id) { pid, ticks }))
			return true;
	return false;
}

static bool vm_is_there(struct survey *survey, const struct survey_thing *thing)
{
	struct hypervisor_vm *vms = NULL;
	size_t count = 0;
	bool there = false;
	if (survey->ops->vms(survey->hv, &vms, &count, NULL))
		return true;
	for (size_t i = 0; i < count; i++)
		there |= memcmp(vms[i].uuid, thing->vm, sizeof(thing->vm)) == 0 && vms[i].state == thing->vm_state &&
		         vms[i].migration == thing->row.migration;
	free(vms);
	return there;
}

static bool bitmap_is_there(const struct survey_thing *thing)
{
	uint64_t found[BACKEND_MIGRATIONS];
	unsigned count = BACKEND_MIGRATIONS;
	bool there = false;
	if (disk_source_find(thing->disk, found, &count, NULL))
		return true;
	for (unsigned i = 0; i < count; i++)
		there |= found[i] == thing->row.migration;
	return there;
}

bool survey_is_there(struct survey *survey, const struct survey_thing *thing)
{
	struct stat st;
	switch (thing->kind) {
	case HOLDING_DISK:
	case HOLDING_RESERVE:
	case HOLDING_SOURCE_DISK:
	case HOLDING_FILE:
		return lstat(thing->path, &st) == 0 || errno != ENOENT;
	case HOLDING_EXPORT:
		return exporter_is_there(thing);
	case HOLDING_VM:
		return vm_is_there(survey, thing);
	case HOLDING_BITMAP:
		return bitmap_is_there(thing);
	case HOLDING_LEG:
		return proc_alive(&thing->row.process);
	case HOLDING_KINDS:
		break;
	}
	return false;
}
