/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/hypervisor/sim_record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "common/proc.h"

#define DIR_ROOM (PATHS_MAX + 16)
#define FILE_ROOM (DIR_ROOM + LIMIT_NAME + 16)
#define SUFFIX ".json"
#define INCOMING "\"incoming\""
#define RUNNING "\"running\" " /* as long as INCOMING; JSON does not mind the blank */

const char *sim_state_name(enum sim_state state)
{
	switch (state) {
	case SIM_RUNNING:
		return "running";
	case SIM_INCOMING:
		return "incoming";
	case SIM_DESTROYING:
		return "destroying";
	}
	return "?";
}

static enum sim_state state_from_name(const char *name)
{
	for (enum sim_state state = SIM_RUNNING; state <= SIM_DESTROYING; state++)
		if (strcmp(name, sim_state_name(state)) == 0)
			return state;
	return 0;
}

static const char *format_name(enum disk_format format)
{
	return format == FORMAT_QCOW2 ? "qcow2" : "raw";
}

bool sim_name_ok(const char *name)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t bytes = strlen(name);
	return bytes > 0 && bytes < LIMIT_NAME && name[0] != '.' && name[0] != '-' && strspn(name, good) == bytes;
}

static int directory(const struct paths *paths, char ret_dir[DIR_ROOM], struct err *err)
{
	snprintf(ret_dir, DIR_ROOM, "%s/vms", paths->lib);
	if (mkdir(ret_dir, 0700) != 0 && errno != EEXIST)
		return err_errno(err, ERR_IO, errno, "make %s", ret_dir);
	return 0;
}

static int file_of(const struct paths *paths, const char *name, char ret_file[FILE_ROOM], struct err *err)
{
	char dir[DIR_ROOM];
	if (!sim_name_ok(name))
		return err_set(err, ERR_USAGE, "VM name '%s': use letters, digits, '.', '_' and '-', at most %d", name,
		               LIMIT_NAME - 1);
	if (directory(paths, dir, err) != 0)
		return -1;
	snprintf(ret_file, FILE_ROOM, "%s/%s" SUFFIX, dir, name);
	return 0;
}

static bool copy_text(char *to, size_t room, const char *from)
{
	if (from == NULL || strlen(from) >= room)
		return false;
	memcpy(to, from, strlen(from) + 1);
	return true;
}

static bool parse_disks(json_t *list, struct sim_record *record)
{
	size_t index;
	json_t *item;
	if (json_array_size(list) > LIMIT_DISKS)
		return false;
	json_array_foreach(list, index, item)
	{
		struct sim_disk *disk = &record->disks[index];
		const char *name, *sr, *path, *format;
		json_int_t size;
		int read_only = 0;
		if (json_unpack(item, "{s:s,s:s,s:s,s:s,s:I,s?b}", "name", &name, "sr", &sr, "path", &path, "format",
		                &format, "size", &size, "read_only", &read_only) != 0)
			return false;
		if (!copy_text(disk->name, sizeof(disk->name), name) || !copy_text(disk->sr, sizeof(disk->sr), sr) ||
		    !copy_text(disk->path, sizeof(disk->path), path) || size <= 0)
			return false;
		if (strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
			return false;
		disk->format = strcmp(format, "raw") == 0 ? FORMAT_RAW : FORMAT_QCOW2;
		disk->size_bytes = (uint64_t)size;
		disk->read_only = read_only != 0;
		record->disk_count = (unsigned)index + 1;
	}
	return true;
}

static bool parse_nics(json_t *list, struct sim_record *record)
{
	size_t index;
	json_t *item;
	if (json_array_size(list) > LIMIT_NICS)
		return false;
	json_array_foreach(list, index, item)
	{
		struct msg_nic *nic = &record->nics[index];
		if (!copy_text(nic->mac, sizeof(nic->mac), json_string_value(json_object_get(item, "mac"))) ||
		    !copy_text(nic->bridge, sizeof(nic->bridge), json_string_value(json_object_get(item, "bridge"))))
			return false;
		record->nic_count = (unsigned)index + 1;
	}
	return true;
}

static bool parse(json_t *root, struct sim_record *record)
{
	const char *uuid, *name, *guest, *state;
	json_int_t migration, memory, vcpus, seed, tick_ms, dirty, write, fill, tick;
	json_t *disks, *nics;
	if (json_unpack(root, "{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o}", "uuid", &uuid, "name",
	                &name, "guest", &guest, "state", &state, "migration", &migration, "memory", &memory, "vcpus",
	                &vcpus, "seed", &seed, "tick_ms", &tick_ms, "dirty", &dirty, "disk_write", &write, "fill",
	                &fill, "tick", &tick, "disks", &disks, "nics", &nics) != 0)
		return false;
	if (uuid_parse(uuid, record->uuid) != 0 || !sim_name_ok(name) ||
	    !copy_text(record->name, sizeof(record->name), name) ||
	    !copy_text(record->guest, sizeof(record->guest), guest))
		return false;
	if (migration < 0 || memory < (json_int_t)SIM_MEMORY_MIN || memory > (json_int_t)SIM_MEMORY_MAX || vcpus < 1 ||
	    vcpus > 4096 || tick_ms < 1 || tick_ms > (json_int_t)SIM_TICK_MS_MAX || dirty < 0 || write < 0 ||
	    fill < 0 || fill > 100 || tick < 0)
		return false;
	record->state = state_from_name(state);
	record->migration = (uint64_t)migration;
	record->memory_bytes = (uint64_t)memory;
	record->vcpus = (uint32_t)vcpus;
	record->seed = (uint64_t)seed;
	record->tick_ms = (uint32_t)tick_ms;
	record->dirty_bps = (uint64_t)dirty;
	record->write_bps = (uint64_t)write;
	record->fill_percent = (uint32_t)fill;
	record->tick = (uint64_t)tick;
	return record->state != 0 && parse_disks(disks, record) && parse_nics(nics, record);
}

static int load_file(const char *file, struct sim_record *ret_record, struct err *err)
{
	json_error_t why;
	struct sim_record record = { 0 };
	FILE *stream = fopen(file, "re");
	if (stream == NULL)
		return err_errno(err, errno == ENOENT ? ERR_UNKNOWN_VM : ERR_IO, errno, "open %s", file);
	json_t *root = json_loadf(stream, JSON_REJECT_DUPLICATES, &why);
	fclose(stream);
	bool good = root != NULL && parse(root, &record);
	json_decref(root);
	if (!good)
		return err_set(err, ERR_CORRUPT, "VM record %s is damaged%s%s", file, root == NULL ? ": " : "",
		               root == NULL ? why.text : "");
	*ret_record = record;
	return 0;
}

int sim_record_load(const struct paths *paths, const char *name, struct sim_record *ret_record, struct err *err)
{
	char file[FILE_ROOM];
	if (file_of(paths, name, file, err) != 0)
		return -1;
	return load_file(file, ret_record, err);
}

int sim_record_list(const struct paths *paths, struct sim_record **ret_list, size_t *ret_count, struct err *err)
{
	char dir[DIR_ROOM], file[DIR_ROOM + 260];
	struct sim_record *list = NULL;
	size_t count = 0;
	int result = -1;
	struct dirent *entry;
	if (directory(paths, dir, err) != 0)
		return -1;
	DIR *stream = opendir(dir);
	if (stream == NULL)
		return err_errno(err, ERR_IO, errno, "open %s", dir);
	for (errno = 0; (entry = readdir(stream)) != NULL; errno = 0) {
		const char *dot = strrchr(entry->d_name, '.');
		if (entry->d_name[0] == '.' || dot == NULL || strcmp(dot, SUFFIX) != 0)
			continue;
		struct sim_record *grown = realloc(list, (count + 1) * sizeof(*list));
		if (grown == NULL) {
			err_set(err, ERR_NO_MEMORY, "no memory for VM records");
			goto out;
		}
		list = grown;
		snprintf(file, sizeof(file), "%s/%s", dir, entry->d_name);
		struct err why = { 0 };
		if (load_file(file, &list[count], &why) == 0) {
			count++;
		} else if (why.code != ERR_UNKNOWN_VM) { /* gone since readdir: fine */
			err_set(err, why.code, "%s", why.text);
			goto out;
		}
	}
	if (errno != 0) { /* what cannot be read is no proof that nothing is there */
		err_errno(err, ERR_IO, errno, "read %s", dir);
		goto out;
	}
	result = 0;
	*ret_list = list;
	*ret_count = count;
	list = NULL;
out:
	free(list);
	closedir(stream);
	return result;
}

int sim_record_seek(const struct paths *paths, const uuid_bytes uuid, struct sim_record *ret_record, struct err *err)
{
	struct sim_record *list;
	size_t count;
	if (sim_record_list(paths, &list, &count, err) != 0)
		return -1;
	int found = 0;
	for (size_t i = 0; i < count && !found; i++) {
		if (memcmp(list[i].uuid, uuid, sizeof(uuid_bytes)) == 0) {
			*ret_record = list[i];
			found = 1;
		}
	}
	free(list);
	return found;
}

int sim_record_find(const struct paths *paths, const uuid_bytes uuid, struct sim_record *ret_record, struct err *err)
{
	char text[37];
	int found = sim_record_seek(paths, uuid, ret_record, err);
	if (found != 0)
		return found < 0 ? -1 : 0;
	uuid_unparse_lower(uuid, text);
	return err_set(err, ERR_UNKNOWN_VM, "no VM %s on this host", text);
}

static json_t *build(const struct sim_record *record)
{
	char uuid[37];
	json_t *disks = json_array(), *nics = json_array();
	uuid_unparse_lower(record->uuid, uuid);
	for (unsigned i = 0; i < record->disk_count; i++) {
		const struct sim_disk *disk = &record->disks[i];
		json_array_append_new(disks,
		                      json_pack("{s:s,s:s,s:s,s:s,s:I,s:b}", "name", disk->name, "sr", disk->sr, "path",
		                                disk->path, "format", format_name(disk->format), "size",
		                                (json_int_t)disk->size_bytes, "read_only", disk->read_only ? 1 : 0));
	}
	for (unsigned i = 0; i < record->nic_count; i++)
		json_array_append_new(
			nics, json_pack("{s:s,s:s}", "mac", record->nics[i].mac, "bridge", record->nics[i].bridge));
	return json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o}", "state",
	                 sim_state_name(record->state), "uuid", uuid, "name", record->name, "guest", record->guest,
	                 "migration", (json_int_t)record->migration, "memory", (json_int_t)record->memory_bytes,
	                 "vcpus", (json_int_t)record->vcpus, "seed", (json_int_t)record->seed, "tick_ms",
	                 (json_int_t)record->tick_ms, "dirty", (json_int_t)record->dirty_bps, "disk_write",
	                 (json_int_t)record->write_bps, "fill", (json_int_t)record->fill_percent, "tick",
	                 (json_int_t)record->tick, "disks", disks, "nics", nics);
}

static int sync_directory(const char *dir, struct err *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "open %s", dir);
	int result = fsync(fd) != 0 ? err_errno(err, ERR_IO, errno, "sync %s", dir) : 0;
	close(fd);
	return result;
}

static int write_file(const char *file, const char *text, struct err *err)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "make %s", file);
	size_t bytes = strlen(text);
	int result = 0;
	if (write(fd, text, bytes) != (ssize_t)bytes || fsync(fd) != 0)
		result = err_errno(err, ERR_IO, errno, "write %s", file);
	close(fd);
	return result;
}

int sim_record_save(const struct paths *paths, const struct sim_record *record, struct err *err)
{
	char dir[DIR_ROOM], file[FILE_ROOM], fresh[FILE_ROOM + 32];
	if (file_of(paths, record->name, file, err) != 0 || directory(paths, dir, err) != 0)
		return -1;
	snprintf(fresh, sizeof(fresh), "%s/.%s.%ld", dir, record->name, (long)getpid());
	json_t *root = build(record);
	char *text = root != NULL ? json_dumps(root, JSON_INDENT(1)) : NULL;
	json_decref(root);
	if (text == NULL)
		return err_set(err, ERR_INTERNAL, "VM record of '%s' cannot be written as JSON", record->name);
	int result = write_file(fresh, text, err);
	if (result == 0 && rename(fresh, file) != 0)
		result = err_errno(err, ERR_IO, errno, "rename %s", fresh);
	if (result == 0)
		result = sync_directory(dir, err);
	else
		unlink(fresh);
	free(text);
	return result;
}

int sim_record_remove(const struct paths *paths, const char *name, struct err *err)
{
	char dir[DIR_ROOM], file[FILE_ROOM];
	if (file_of(paths, name, file, err) != 0 || directory(paths, dir, err) != 0)
		return -1;
	if (unlink(file) != 0 && errno != ENOENT)
		return err_errno(err, ERR_IO, errno, "remove %s", file);
	return sync_directory(dir, err);
}

/* The process whose unfinished record this is, by its name ".VM.PID"; 0 if it is none. */
static pid_t writer_of(const char *file)
{
	const char *last = strrchr(file, '.');
	char *end = NULL;
	if (file[0] != '.' || last == file)
		return 0;
	long pid = strtol(last + 1, &end, 10);
	return end != last + 1 && *end == '\0' && pid > 0 && pid <= INT_MAX ? (pid_t)pid : 0;
}

int sim_record_sweep(const struct paths *paths, struct err *err)
{
	char dir[DIR_ROOM];
	struct dirent *entry;
	struct proc_id id;
	int result = 0;
	if (directory(paths, dir, err) != 0)
		return -1;
	DIR *stream = opendir(dir);
	if (stream == NULL)
		return err_errno(err, ERR_IO, errno, "read %s", dir);
	while (result == 0 && (entry = readdir(stream)) != NULL) {
		pid_t writer = writer_of(entry->d_name);
		if (writer == 0 || (proc_identify(writer, &id) == 0 && proc_alive(&id)))
			continue;
		if (unlinkat(dirfd(stream), entry->d_name, 0) != 0 && errno != ENOENT)
			result = err_errno(err, ERR_IO, errno, "remove %s/%s", dir, entry->d_name);
	}
	closedir(stream);
	return result;
}

int sim_record_open(const struct paths *paths, const char *name, int *ret_fd, int64_t *ret_offset, struct err *err)
{
	char file[FILE_ROOM], head[128] = "";
	if (file_of(paths, name, file, err) != 0)
		return -1;
	int fd = open(file, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "open %s", file);
	ssize_t got = pread(fd, head, sizeof(head) - 1, 0); /* the state is the first thing in it */
	const char *place = got > 0 ? strstr(head, INCOMING) : NULL;
	if (place == NULL) {
		close(fd);
		return err_set(err, ERR_CORRUPT, "VM record %s is not of an incoming VM", file);
	}
	*ret_fd = fd;
	*ret_offset = place - head;
	return 0;
}

int sim_record_activate(int fd, int64_t offset, struct err *err)
{
	_Static_assert(sizeof(INCOMING) == sizeof(RUNNING), "one replaces the other in place");
	ssize_t wanted = (ssize_t)sizeof(RUNNING) - 1;
	if (pwrite(fd, RUNNING, (size_t)wanted, offset) != wanted || fdatasync(fd) != 0)
		return err_errno(err, ERR_IO, errno, "write the VM record");
	return 0;
}

int sim_record_lock(const struct paths *paths, struct err *err)
{
	char dir[DIR_ROOM], file[DIR_ROOM + 8];
	if (directory(paths, dir, err) != 0)
		return -1;
	snprintf(file, sizeof(file), "%s/.lock", dir);
	int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "open %s", file);
	int failed;
	do
		failed = flock(fd, LOCK_EX);
	while (failed != 0 && errno == EINTR);
	if (failed != 0) {
		err_errno(err, ERR_IO, errno, "lock %s", file);
		close(fd);
		return -1;
	}
	return fd;
}

int sim_host_memory(const struct paths *paths, uint64_t *ret_bytes, struct err *err)
{
	char file[DIR_ROOM];
	json_error_t why;
	json_int_t memory = (json_int_t)SIM_MEMORY_HOST;
	snprintf(file, sizeof(file), "%s/sim.json", paths->etc);
	if (access(file, F_OK) == 0) {
		json_t *root = json_load_file(file, 0, &why);
		if (root == NULL)
			return err_set(err, ERR_CONFIG, "%s:%d: %s", file, why.line, why.text);
		int bad = json_unpack(root, "{s?I}", "memory", &memory);
		json_decref(root);
		if (bad != 0 || memory < 0)
			return err_set(err, ERR_CONFIG, "%s: 'memory' must be a number of bytes", file);
	}
	*ret_bytes = (uint64_t)memory;
	return 0;
}
