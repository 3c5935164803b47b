/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Storage repositories of type dir. The agent links this file: no NBD, no iSCSI in here. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "agent/disk/disk.h"

#define SR_SECTOR_BYTES 512u    /* disks are made of these; qemu and SCSI know no smaller ones */
#define SR_IMAGE_TOOL_MS 60000u /* qemu-img create or info on a loaded host */
#define SR_DISK_BYTES_MAX ((uint64_t)1 << 56)

int sr_space(const struct sr_config *sr, uint64_t *ret_size_bytes, uint64_t *ret_free_bytes, struct err *err)
{
	struct statvfs st;
	if (statvfs(sr->path, &st) < 0)
		return err_errno(err, ERR_IO, errno, "SR %s: %s", sr->name, sr->path);
	*ret_size_bytes = (uint64_t)st.f_blocks * st.f_frsize;
	*ret_free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}

/* Names of disks become parts of file names. */
static bool name_is_plain(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");
	return length > 0 && name[length] == '\0' && name[0] != '.';
}

int sr_disk_path(const struct sr_config *sr, const uuid_bytes uuid, const char *disk, uint64_t migration,
                 char ret_path[LIMIT_PATH], struct err *err)
{
	char text[UUID_STR_LEN], path[2 * LIMIT_PATH];
	if (!name_is_plain(disk))
		return err_set(err, ERR_USAGE, "disk name '%s': only letters, digits, _ - . are allowed", disk);
	uuid_unparse_lower(uuid, text);
	int n = snprintf(path, sizeof(path), "%s/%s.%s.%" PRIu64 ".%s", sr->path, text, disk, migration,
	                 disk_format_name(sr->format));
	/* room for .reserve */
	if (n < 0 || n >= LIMIT_PATH - 16)
		return err_set(err, ERR_CONFIG, "SR %s: path %s is too long", sr->name, sr->path);
	memcpy(ret_path, path, (size_t)n + 1);
	return 0;
}

/* The digits before `end`, a number of a migration as it is written; 0 if they are none. */
static uint64_t migration_before(const char *begin, const char *end)
{
	uint64_t number = 0;
	if (end == begin || end - begin > 19 || *begin == '0')
		return 0;
	for (const char *at = begin; at < end; at++) {
		if (*at < '0' || *at > '9')
			return 0;
		number = number * 10 + (uint64_t)(*at - '0');
	}
	return number > INT64_MAX ? 0 : number;
}

bool sr_file_parse(const char *name, struct sr_file *ret_file)
{
	static const char *const tails[] = { ".reserve", ".new" };
	struct sr_file file = { .reserve = false };
	char uuid[UUID_STR_LEN], again[LIMIT_PATH];
	size_t bytes = strlen(name), head = UUID_STR_LEN - 1;
	for (unsigned i = 0; i < 2; i++) {
		size_t tail = strlen(tails[i]);
		if (bytes > tail && strcmp(name + bytes - tail, tails[i]) == 0) {
			file.reserve = i == 0;
			bytes -= tail;
			break;
		}
	}
	if (bytes <= head + 1 || bytes >= sizeof(file.image))
		return false;
	memcpy(file.image, name, bytes);
	memcpy(uuid, name, head);
	uuid[head] = '\0';
	char *format = strrchr(file.image, '.');
	if (uuid_parse(uuid, file.uuid) < 0 || file.image[head] != '.' || !disk_format_from_name(format + 1))
		return false;
	char *dot = format;
	while (dot > file.image + head && *--dot != '.')
		;
	size_t disk = (size_t)(dot - file.image) - head;
	file.migration = migration_before(dot + 1, format);
	if (dot <= file.image + head || disk < 2 || disk > sizeof(file.disk) || file.migration == 0)
		return false;
	memcpy(file.disk, file.image + head + 1, disk - 1);
	/* what is not exactly as we would write it is not ours */
	const struct sr_config here = { .path = ".", .format = disk_format_from_name(format + 1) };
	if (sr_disk_path(&here, file.uuid, file.disk, file.migration, again, NULL) < 0 ||
	    strcmp(again + 2, file.image) != 0)
		return false;
	*ret_file = file;
	return true;
}

static int sync_directory_of(const char *path, struct err *err)
{
	char directory[LIMIT_PATH] = ".";
	const char *slash = strrchr(path, '/');
	if (slash)
		snprintf(directory, sizeof(directory), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "open %s", directory);
	int result = fsync(fd);
	int saved = errno;
	close(fd);
	return result < 0 ? err_errno(err, ERR_IO, saved, "fsync %s", directory) : 0;
}

static int make_raw(const char *path, uint64_t size_bytes, struct err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "make %s", path);
	struct stat st;
	int result = fstat(fd, &st);
	if (result == 0 && (uint64_t)st.st_size != size_bytes)
		result = ftruncate(fd, (off_t)size_bytes);
	if (result == 0)
		result = fsync(fd);
	int saved = errno;
	close(fd);
	return result < 0 ? err_errno(err, ERR_IO, saved, "make %s", path) : 0;
}

/* qemu-img writes a whole new image over what is there, so it works on another name until it is done. */
static int make_qcow2(const char *path, uint64_t size_bytes, struct err *err)
{
	char fresh[LIMIT_PATH + 8], size[32];
	struct stat st;
	if (stat(path, &st) == 0)
		return 0;
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	snprintf(size, sizeof(size), "%" PRIu64, size_bytes);
	const char *argv[] = { "qemu-img", "create", "-q", "-f", "qcow2", fresh, size, NULL };
	if (proc_run(argv, NULL, NULL, NULL, SR_IMAGE_TOOL_MS, err) < 0)
		goto fail;
	int fd = open(fresh, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fchmod(fd, 0600) < 0 || fsync(fd) < 0 || rename(fresh, path) < 0) {
		err_errno(err, ERR_IO, errno, "make %s", path);
		if (fd >= 0)
			close(fd);
		goto fail;
	}
	close(fd);
	return 0;
fail:
	unlink(fresh);
	return err_wrap(err, "make qcow2 image");
}

int sr_disk_make(const struct sr_config *sr, const char *path, enum disk_format format, uint64_t size_bytes,
                 struct err *err)
{
	int result;
	if (size_bytes == 0 || size_bytes % SR_SECTOR_BYTES != 0 || size_bytes > SR_DISK_BYTES_MAX)
		return err_set(err, ERR_USAGE, "SR %s: %" PRIu64 " bytes is no size for a disk", sr->name, size_bytes);
	if (strlen(path) >= LIMIT_PATH - 16)
		return err_set(err, ERR_USAGE, "SR %s: path too long", sr->name);
	if (format == FORMAT_QCOW2)
		result = make_qcow2(path, size_bytes, err);
	else
		result = make_raw(path, size_bytes, err);
	if (result == 0)
		result = sync_directory_of(path, err);
	return result < 0 ? err_wrap(err, "SR %s", sr->name) : 0;
}

/* Offsets in a qcow2 header; its numbers are big-endian. */
enum { QCOW2_BACKING = 8, QCOW2_SIZE = 24, QCOW2_SNAPSHOTS = 60, QCOW2_INCOMPATIBLE = 72, QCOW2_HEADER_BYTES = 104 };

static bool qcow2_is_plain(int fd, uint64_t size_bytes)
{
	unsigned char header[QCOW2_HEADER_BYTES];
	uint64_t backing, size, incompatible;
	uint32_t snapshots;
	if (pread(fd, header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
	    memcmp(header, "QFI\xfb\0\0\0\3", 8) != 0)
		return false;
	memcpy(&backing, header + QCOW2_BACKING, sizeof(backing));
	memcpy(&size, header + QCOW2_SIZE, sizeof(size));
	memcpy(&snapshots, header + QCOW2_SNAPSHOTS, sizeof(snapshots));
	memcpy(&incompatible, header + QCOW2_INCOMPATIBLE, sizeof(incompatible));
	return backing == 0 && be64toh(size) == size_bytes && snapshots == 0 && incompatible == 0;
}

bool sr_disk_fits(const char *path, enum disk_format format, uint64_t size_bytes, struct err *err)
{
	struct stat st;
	const char *argv[] = { "qemu-img", "check", "-q", "-f", "qcow2", "-r", "leaks", path, NULL };
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		err_errno(err, ERR_IO, errno, "open %s", path);
		return false;
	}
	bool fits = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	            (format == FORMAT_QCOW2 ? qcow2_is_plain(fd, size_bytes) : (uint64_t)st.st_size == size_bytes);
	close(fd);
	if (!fits) {
		err_set(err, ERR_CONFLICT, "%s is no %s image of %" PRIu64 " bytes that stands alone", path,
		        disk_format_name(format), size_bytes);
		return false;
	}
	return format != FORMAT_QCOW2 || proc_run(argv, NULL, NULL, NULL, SR_IMAGE_TOOL_MS, err) == 0;
}

uint64_t sr_disk_allocated(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

int sr_disk_remove(const char *path, struct err *err)
{
	char fresh[LIMIT_PATH + 8];
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	unlink(fresh); /* of a make that was interrupted */
	if (unlink(path) < 0 && errno != ENOENT)
		return err_errno(err, ERR_IO, errno, "remove %s", path);
	struct err why = { 0 };
	if (sync_directory_of(path, &why) < 0) {
		char directory[LIMIT_PATH];
		snprintf(directory, sizeof(directory), "%s", path);
		char *slash = strrchr(directory, '/');
		if (slash)
			*slash = '\0';
		if (access(directory, F_OK) < 0 && errno == ENOENT)
			return 0; /* the whole SR is gone, and the disk with it */
		return err_set(err, why.code, "%s", why.text);
	}
	return 0;
}

static int reserve_path(const char *disk_path, char ret_path[LIMIT_PATH], struct err *err)
{
	int n = snprintf(ret_path, LIMIT_PATH, "%s.reserve", disk_path);
	return n < LIMIT_PATH ? 0 : err_set(err, ERR_USAGE, "reserve for %s: path too long", disk_path);
}

/* All that can be done where a file system cannot reserve; where it can, it keeps a hopeless fallocate from taking the
 * last block from everybody else for a moment. */
static int check_space(int fd, const char *path, uint64_t bytes, struct err *err)
{
	struct statvfs st;
	struct stat file;
	if (fstatvfs(fd, &st) < 0 || fstat(fd, &file) < 0)
		return err_errno(err, ERR_IO, errno, "reserve %s", path);
	uint64_t there = (uint64_t)st.f_bavail * st.f_frsize + (uint64_t)file.st_blocks * 512;
	if (there < bytes)
		return err_set(err, ERR_NO_SPACE, "no space: need %" PRIu64 " MiB, free %" PRIu64 " MiB (%s)",
		               bytes >> 20, there >> 20, path);
	return 0;
}

static int reserve_open_file(int fd, const char *path, uint64_t bytes, struct err *err)
{
	if (bytes == 0)
		return 0;
	if (check_space(fd, path, bytes, err) < 0)
		return -1;
	for (;;) {
		if (fallocate(fd, 0, 0, (off_t)bytes) == 0)
			return fsync(fd) == 0 ? 0 : err_errno(err, ERR_IO, errno, "reserve %s", path);
		if (errno == EINTR)
			continue;
		if (errno == EOPNOTSUPP || errno == ENOSYS)
			return 0;
		if (errno == EFBIG)
			return err_set(err, ERR_NO_SPACE,
			               "reserve %s: the file system holds no file of %" PRIu64 " MiB", path,
			               bytes >> 20);
		return err_errno(err, ERR_IO, errno, "reserve %" PRIu64 " MiB (%s)", bytes >> 20, path);
	}
}

int sr_reserve(const char *disk_path, uint64_t bytes, struct err *err)
{
	char path[LIMIT_PATH];
	if (reserve_path(disk_path, path, err) < 0)
		return -1;
	if (bytes > SR_DISK_BYTES_MAX)
		return err_set(err, ERR_NO_SPACE, "reserve %" PRIu64 " MiB: more than any disk", bytes >> 20);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "reserve %s", path);
	int result = reserve_open_file(fd, path, bytes, err);
	close(fd);
	if (result < 0) {
		unlink(path); /* a failed fallocate keeps what it got */
		return -1;
	}
	return sync_directory_of(path, err);
}

int sr_reserve_shrink(const char *disk_path, uint64_t left_bytes, struct err *err)
{
	char path[LIMIT_PATH];
	struct stat st;
	if (reserve_path(disk_path, path, err) < 0)
		return -1;
	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_errno(err, ERR_IO, errno, "reserve %s", path);
	if ((uint64_t)st.st_size > left_bytes && truncate(path, (off_t)left_bytes) < 0)
		return err_errno(err, ERR_IO, errno, "reserve %s", path);
	return 0;
}

int sr_reserve_remove(const char *disk_path, struct err *err)
{
	char path[LIMIT_PATH];
	if (reserve_path(disk_path, path, err) < 0)
		return -1;
	return sr_disk_remove(path, err);
}
