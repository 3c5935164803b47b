/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/hypervisor/xen_record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid/uuid.h>

#define STATE_BYTES 8 /* in the file; blanks follow the word */
#define SUFFIX ".vm"
#define DIR_ROOM (PATHS_MAX + 8)
#define FILE_ROOM (DIR_ROOM + UUID_STR_LEN + 16)
#define FILE_BYTES_MAX (64u * 1024)

const char *xen_state_name(enum xen_state state)
{
	switch (state) {
	case XEN_INCOMING:
		return "incoming";
	case XEN_BUILT:
		return "built";
	case XEN_RUNNING:
		return "running";
	case XEN_LEAVING:
		return "leaving";
	}
	return "?";
}

/* ---- places ---- */
static int directory(const struct paths *paths, char ret_dir[DIR_ROOM], struct err *err)
{
	snprintf(ret_dir, DIR_ROOM, "%s/xen", paths->lib);
	if (mkdir(ret_dir, 0700) != 0 && errno != EEXIST)
		return err_errno(err, ERR_IO, errno, "make %s", ret_dir);
	return 0;
}

static int file_of(const struct paths *paths, const uuid_bytes uuid, char ret_file[FILE_ROOM], struct err *err)
{
	char dir[DIR_ROOM], text[UUID_STR_LEN];
	if (directory(paths, dir, err) != 0)
		return -1;
	uuid_unparse_lower(uuid, text);
	snprintf(ret_file, FILE_ROOM, "%s/%s" SUFFIX, dir, text);
	return 0;
}

static int sync_directory(const struct paths *paths, struct err *err)
{
	char dir[DIR_ROOM];
	if (directory(paths, dir, err) != 0)
		return -1;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int result = fd < 0 || fsync(fd) != 0 ? err_errno(err, ERR_IO, errno, "sync %s", dir) : 0;
	if (fd >= 0)
		close(fd);
	return result;
}

int xen_record_lock(const struct paths *paths, struct err *err)
{
	char dir[DIR_ROOM], file[DIR_ROOM + 8];
	if (directory(paths, dir, err) != 0)
		return -1;
	snprintf(file, sizeof(file), "%s/lock", dir);
	int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int locked = -1;
	while (fd >= 0 && (locked = flock(fd, LOCK_EX)) != 0 && errno == EINTR)
		;
	if (locked == 0)
		return fd;
	err_errno(err, ERR_IO, errno, "lock %s", file);
	if (fd >= 0)
		close(fd);
	return -1;
}

/* ---- reading ---- */
static bool copy_text(char *to, size_t room, const char *from)
{
	if (from == NULL || strlen(from) >= room)
		return false;
	memcpy(to, from, strlen(from) + 1);
	return true;
}

static bool parse_disk(json_t *item, struct hypervisor_image *disk)
{
	const char *name, *sr, *path, *format;
	json_int_t size;
	if (json_unpack(item, "{s:s,s:s,s:s,s:s,s:I}", "name", &name, "sr", &sr, "path", &path, "format", &format,
	                "size", &size) != 0)
		return false;
	disk->format = disk_format_from_name(format);
	disk->size_bytes = size > 0 ? (uint64_t)size : 0;
	return disk->format != 0 && size > 0 && copy_text(disk->name, sizeof(disk->name), name) &&
	       copy_text(disk->sr, sizeof(disk->sr), sr) && copy_text(disk->path, sizeof(disk->path), path);
}

static bool parse(json_t *root, struct xen_record *record)
{
	const char *uuid, *name;
	json_int_t migration, memory;
	json_t *disks, *item;
	size_t i;
	if (json_unpack(root, "{s:s,s:s,s:I,s:I,s:o}", "uuid", &uuid, "name", &name, "migration", &migration, "memory",
	                &memory, "disks", &disks) != 0 ||
	    uuid_parse(uuid, record->uuid) != 0 || !copy_text(record->name, sizeof(record->name), name) ||
	    migration < 0 || memory < 0 || json_array_size(disks) > LIMIT_DISKS)
		return false;
	record->migration = (uint64_t)migration;
	record->memory_bytes = (uint64_t)memory;
	json_array_foreach(disks, i, item)
	{
		if (!parse_disk(item, &record->disks[i]))
			return false;
		record->disk_count++;
	}
	return true;
}

static bool parse_state(const char *word, enum xen_state *ret_state)
{
	char text[STATE_BYTES + 1];
	for (enum xen_state state = XEN_INCOMING; state <= XEN_LEAVING; state++) {
		snprintf(text, sizeof(text), "%-*s", STATE_BYTES, xen_state_name(state));
		if (memcmp(word, text, STATE_BYTES) == 0) {
			*ret_state = state;
			return true;
		}
	}
	return false;
}

/* 1, 0: there is none, -1. */
static int load(const char *file, struct xen_record *ret_record, struct err *err)
{
	struct xen_record record = { 0 };
	char *text = malloc(FILE_BYTES_MAX);
	if (text == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	FILE *stream = fopen(file, "re");
	if (stream == NULL) {
		free(text);
		return errno == ENOENT ? 0 : err_errno(err, ERR_IO, errno, "open %s", file);
	}
	size_t bytes = fread(text, 1, FILE_BYTES_MAX, stream);
	bool read_all = ferror(stream) == 0 && bytes < FILE_BYTES_MAX;
	fclose(stream);
	json_t *root = read_all && bytes > STATE_BYTES
	                       ? json_loadb(text + STATE_BYTES, bytes - STATE_BYTES, JSON_REJECT_DUPLICATES, NULL)
	                       : NULL;
	bool good = root != NULL && parse_state(text, &record.state) && parse(root, &record);
	json_decref(root);
	free(text);
	if (!good)
		return err_set(err, ERR_CORRUPT, "VM record %s is damaged", file);
	*ret_record = record;
	return 1;
}

int xen_record_seek(const struct paths *paths, const uuid_bytes uuid, struct xen_record *ret_record, struct err *err)
{
	char file[FILE_ROOM];
	return file_of(paths, uuid, file, err) != 0 ? -1 : load(file, ret_record, err);
}

static bool is_record(const char *name)
{
	size_t bytes = strlen(name);
	return bytes == UUID_STR_LEN - 1 + sizeof(SUFFIX) - 1 && strcmp(name + UUID_STR_LEN - 1, SUFFIX) == 0;
}

static int add_file(const char *file, struct xen_record **list, size_t *count, struct err *err)
{
	struct xen_record record;
	int found = load(file, &record, err);
	if (found <= 0)
		return found;
	struct xen_record *more = reallocarray(*list, *count + 1, sizeof(**list));
	if (more == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory for the VM records");
	*list = more;
	more[(*count)++] = record;
	return 0;
}

int xen_record_list(const struct paths *paths, struct xen_record **ret_list, size_t *ret_count, struct err *err)
{
	char dir[DIR_ROOM], file[DIR_ROOM + 260];
	struct xen_record *list = NULL;
	size_t count = 0;
	struct dirent *entry;
	int result = 0;
	if (directory(paths, dir, err) != 0)
		return -1;
	DIR *stream = opendir(dir);
	if (stream == NULL)
		return err_errno(err, ERR_IO, errno, "open %s", dir);
	for (errno = 0; result == 0 && (entry = readdir(stream)) != NULL; errno = 0) {
		if (!is_record(entry->d_name))
			continue;
		snprintf(file, sizeof(file), "%s/%s", dir, entry->d_name);
		result = add_file(file, &list, &count, err);
	}
	if (result == 0 && errno != 0)
		result = err_errno(err, ERR_IO, errno, "read %s", dir);
	closedir(stream);
	if (result != 0) {
		free(list);
		return -1;
	}
	*ret_list = list;
	*ret_count = count;
	return 0;
}

/* ---- writing ---- */
static json_t *describe(const struct xen_record *record)
{
	char uuid[UUID_STR_LEN];
	json_t *disks = json_array();
	uuid_unparse_lower(record->uuid, uuid);
	for (unsigned i = 0; i < record->disk_count; i++) {
		const struct hypervisor_image *disk = &record->disks[i];
		json_array_append_new(disks, json_pack("{s:s,s:s,s:s,s:s,s:I}", "name", disk->name, "sr", disk->sr,
		                                       "path", disk->path, "format", disk_format_name(disk->format),
		                                       "size", (json_int_t)disk->size_bytes));
	}
	return json_pack("{s:s,s:s,s:I,s:I,s:o}", "uuid", uuid, "name", record->name, "migration",
	                 (json_int_t)record->migration, "memory", (json_int_t)record->memory_bytes, "disks", disks);
}

static int write_file(const char *file, const struct xen_record *record, const char *text, struct err *err)
{
	FILE *stream = fopen(file, "we");
	if (stream == NULL)
		return err_errno(err, ERR_IO, errno, "write %s", file);
	bool good = fprintf(stream, "%-*s\n%s\n", STATE_BYTES, xen_state_name(record->state), text) > 0 &&
	            fflush(stream) == 0 && fsync(fileno(stream)) == 0;
	int errnum = errno;
	good = fclose(stream) == 0 && good;
	return good ? 0 : err_errno(err, ERR_IO, errnum, "write %s", file);
}

int xen_record_save(const struct paths *paths, const struct xen_record *record, struct err *err)
{
	char file[FILE_ROOM], fresh[FILE_ROOM + 8];
	if (file_of(paths, record->uuid, file, err) != 0)
		return -1;
	json_t *root = describe(record);
	char *text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (text == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory for a VM record");
	snprintf(fresh, sizeof(fresh), "%s.new", file);
	int result = write_file(fresh, record, text, err);
	free(text);
	if (result == 0 && rename(fresh, file) != 0)
		result = err_errno(err, ERR_IO, errno, "rename %s", fresh);
	if (result != 0) {
		unlink(fresh);
		return -1;
	}
	return sync_directory(paths, err);
}

int xen_record_remove(const struct paths *paths, const uuid_bytes uuid, struct err *err)
{
	char file[FILE_ROOM];
	if (file_of(paths, uuid, file, err) != 0)
		return -1;
	if (unlink(file) != 0 && errno != ENOENT)
		return err_errno(err, ERR_IO, errno, "remove %s", file);
	return sync_directory(paths, err);
}

int xen_record_mark(const struct paths *paths, const uuid_bytes uuid, enum xen_state state, bool sync, struct err *err)
{
	char file[FILE_ROOM], word[STATE_BYTES + 1];
	if (file_of(paths, uuid, file, err) != 0)
		return -1;
	snprintf(word, sizeof(word), "%-*s", STATE_BYTES, xen_state_name(state));
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	int result = fd < 0 || pwrite(fd, word, STATE_BYTES, 0) != STATE_BYTES || (sync && fdatasync(fd) != 0)
	                     ? err_errno(err, ERR_IO, errno, "write %s", file)
	                     : 0;
	if (fd >= 0)
		close(fd);
	return result;
}
