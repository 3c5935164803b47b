/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The notes of what was not flushed, read backwards: see power.h. */
#include "agent/sim/power.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/paths.h"

int power_name(int fd, char ret_name[POWER_NAME_BYTES], uint64_t *ret_size)
{
	struct statx st;
	if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO | STATX_SIZE | STATX_BTIME, &st) != 0 ||
	    !S_ISREG(st.stx_mode))
		return -1;
	snprintf(ret_name, POWER_NAME_BYTES, "%x-%x-%llx-%llx.%x", st.stx_dev_major, st.stx_dev_minor,
	         (unsigned long long)st.stx_ino, (unsigned long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
	*ret_size = st.stx_size;
	return 0;
}

uint64_t power_hash(const struct power_note *note, const void *data)
{
	uint64_t seed = data != NULL ? XXH64(data, note->bytes, 0) : 0;
	return XXH64(note, offsetof(struct power_note, hash), seed);
}

struct notes {
	const unsigned char *bytes;
	size_t size;
};

/* The note at or after `at`, past what a killed process left half written. false: there is none. */
static bool find_note(const struct notes *notes, size_t at, struct power_note *ret_note, size_t *ret_at)
{
	for (; at + sizeof(*ret_note) <= notes->size; at++) {
		memcpy(ret_note, notes->bytes + at, sizeof(*ret_note));
		if (ret_note->magic != POWER_MAGIC)
			continue;
		const unsigned char *data = ret_note->kind == POWER_DATA ? notes->bytes + at + sizeof(*ret_note) : NULL;
		if (data != NULL && ret_note->bytes > notes->size - at - sizeof(*ret_note))
			continue;
		if (power_hash(ret_note, data) == ret_note->hash) {
			*ret_at = at;
			return true;
		}
	}
	return false;
}

static int put_back(int fd, const struct power_note *note, const unsigned char *data)
{
	errno = EIO; /* of a write that is short */
	if (note->kind == POWER_ZERO && note->bytes > 0 &&
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)note->offset, (off_t)note->bytes) != 0)
		return -1;
	if (note->kind == POWER_DATA && pwrite(fd, data, note->bytes, (off_t)note->offset) != (ssize_t)note->bytes)
		return -1;
	return ftruncate(fd, (off_t)note->size);
}

/* All notes since the last flush, the newest first. */
static int take_back(int fd, const struct notes *notes, uint64_t *bytes, struct err *err)
{
	struct power_note note;
	size_t at = 0, *starts = NULL, count = 0, room = 0;
	uint64_t flushed = 0;
	int result = 0;
	while (result == 0 && find_note(notes, at, &note, &at)) {
		if (note.kind == POWER_MARK && note.offset > flushed)
			flushed = note.offset;
		if (count == room) {
			room = room > 0 ? room * 2 : 1024;
			size_t *grown = realloc(starts, room * sizeof(*starts));
			if (grown == NULL) {
				result = err_set(err, ERR_NO_MEMORY, "no memory for %zu notes", room);
				break;
			}
			starts = grown;
		}
		starts[count++] = at;
		at += sizeof(note) + (note.kind == POWER_DATA ? note.bytes : 0);
	}
	for (size_t i = count; result == 0 && i-- > 0 && starts[i] >= flushed;) {
		memcpy(&note, notes->bytes + starts[i], sizeof(note));
		if (note.kind == POWER_MARK)
			continue;
		if (put_back(fd, &note, notes->bytes + starts[i] + sizeof(note)) != 0)
			result = err_errno(err, ERR_IO, errno, "put back what was not flushed");
		*bytes += note.bytes;
	}
	free(starts);
	return result;
}

/* A file below the host's home: if there are notes of it, they are taken back. */
static int visit(const char *path, const char *dir, uint64_t *bytes, struct err *err)
{
	char name[POWER_NAME_BYTES], of[PATHS_MAX * 2];
	uint64_t size;
	struct stat st;
	struct notes notes = { 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW), from = -1, result = 0;
	if (fd < 0 || power_name(fd, name, &size) != 0)
		goto out;
	snprintf(of, sizeof(of), "%s/%s", dir, name);
	from = open(of, O_RDONLY | O_CLOEXEC);
	if (from < 0 || fstat(from, &st) != 0 || st.st_size == 0)
		goto out;
	close(fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	notes.size = (size_t)st.st_size;
	void *map = mmap(NULL, notes.size, PROT_READ, MAP_PRIVATE, from, 0);
	if (fd < 0 || map == MAP_FAILED) {
		result = err_errno(err, ERR_IO, errno, "read the notes of %s", path);
		goto out;
	}
	notes.bytes = map;
	result = take_back(fd, &notes, bytes, err);
	munmap(map, notes.size);
	if (result != 0)
		err_wrap(err, "%s", path);
out:
	if (fd >= 0)
		close(fd);
	if (from >= 0)
		close(from);
	return result;
}

/* Removes what is in a directory of notes. */
static int clear(const char *dir, struct err *err)
{
	struct dirent *entry;
	DIR *list = opendir(dir);
	if (list == NULL)
		return err_errno(err, ERR_IO, errno, "open %s", dir);
	while ((entry = readdir(list)) != NULL)
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(list), entry->d_name, 0);
	closedir(list);
	return 0;
}

/* The notes get another name, so that none are taken of what we do ourselves. */
static int set_aside(const char *home, char ret_dir[PATHS_MAX + 16], struct err *err)
{
	char dir[PATHS_MAX + 16];
	snprintf(dir, sizeof(dir), "%s/" POWER_DIR, home);
	snprintf(ret_dir, PATHS_MAX + 16, "%s/" POWER_DIR ".cut", home);
	if (access(ret_dir, F_OK) != 0 && rename(dir, ret_dir) != 0 && errno != ENOENT)
		return err_errno(err, ERR_IO, errno, "rename %s", dir);
	return 0;
}

int power_cut(const char *home, uint64_t *ret_bytes, struct err *err)
{
	char dir[PATHS_MAX + 16], root[PATHS_MAX];
	uint64_t bytes = 0;
	char *const roots[] = { root, NULL };
	FTSENT *entry;
	int result = 0;
	if (set_aside(home, dir, err) != 0)
		return -1;
	snprintf(root, sizeof(root), "%s", home);
	/* Storage repositories may be file systems of their own. run/ is left alone; exporters mount things there. */
	FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	if (walk == NULL)
		return err_errno(err, ERR_IO, errno, "walk %s", home);
	while (result == 0 && (entry = fts_read(walk)) != NULL) {
		if (entry->fts_info == FTS_D && entry->fts_level == 1 &&
		    (strncmp(entry->fts_name, POWER_DIR, strlen(POWER_DIR)) == 0 ||
		     strcmp(entry->fts_name, "run") == 0))
			(void)fts_set(walk, entry, FTS_SKIP);
		if (entry->fts_info == FTS_F)
			result = visit(entry->fts_path, dir, &bytes, err);
	}
	fts_close(walk);
	if (ret_bytes != NULL)
		*ret_bytes = bytes;
	if (result == 0 && access(dir, F_OK) == 0) {
		result = clear(dir, err);
		rmdir(dir);
	}
	return result == 0 ? power_forget(home, err) : -1;
}

int power_forget(const char *home, struct err *err)
{
	char dir[PATHS_MAX + 16];
	snprintf(dir, sizeof(dir), "%s/" POWER_DIR, home);
	if (mkdir(dir, 0700) == 0)
		return 0;
	return errno == EEXIST ? clear(dir, err) : err_errno(err, ERR_IO, errno, "make %s", dir);
}
