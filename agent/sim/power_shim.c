/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In front of the C library's writes and flushes, in every process of a simulated host: see power.h. Built twice: as a
 * library to be preloaded, and into drover-sim, whose own writes count as well.
 *
 * Nothing is remembered between calls (descriptors are closed, passed on and used again behind our back): each write
 * looks up what it writes to. That is a few microseconds for each call.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent/sim/power.h"

#define HERE ((off_t)-1) /* where the descriptor is */

struct noted {
	int fd; /* of the notes, opened for appending; -1: this file is none of ours */
	uint64_t size;
	bool deaf; /* flushes of it do not count */
};

/* The definition of a call after ours: the C library's, or that of another library that stands in between. */
static void *next(void *_Atomic *slot, const char *name)
{
	void *is = atomic_load(slot);
	if (is == NULL) {
		is = dlsym(RTLD_NEXT, name);
		atomic_store(slot, is);
	}
	return is;
}

/* Where the hosts are, "" for nowhere. Read once: a program may change its environment. */
static const char *root(void)
{
	static char *_Atomic known = NULL;
	char *is = atomic_load(&known), *none = NULL;
	const char *set = is == NULL ? getenv(POWER_ENV) : NULL;
	if (set == NULL)
		return is != NULL ? is : "";
	is = strdup(set);
	if (is != NULL && !atomic_compare_exchange_strong(&known, &none, is)) {
		free(is);
		is = none;
	}
	return is != NULL ? is : "";
}

static bool left_alone(const char *below)
{
	size_t bytes = strlen(below);
	return strncmp(below, "run/", 4) == 0 || strncmp(below, POWER_DIR "/", sizeof(POWER_DIR)) == 0 ||
	       strcmp(below, "ledger") == 0 || (bytes > 4 && strcmp(below + bytes - 4, ".log") == 0);
}

/* Whose notes are to be taken; the descriptor is the caller's. */
static struct noted look_up(int fd)
{
	struct noted noted = { .fd = -1 };
	char name[POWER_NAME_BYTES], link[64], path[PATH_MAX], notes[PATH_MAX + POWER_NAME_BYTES + 16];
	const char *above = root();
	size_t bytes = strlen(above);
	if (bytes == 0 || power_name(fd, name, &noted.size) != 0)
		return noted;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t got = readlink(link, path, sizeof(path) - 1);
	if (got <= (ssize_t)bytes || strncmp(path, above, bytes) != 0 || path[bytes] != '/')
		return noted;
	path[got] = '\0';
	char *below = strchr(path + bytes + 1, '/');
	if (below == NULL || left_alone(below + 1))
		return noted;
	const char *deaf = getenv(POWER_DEAF_ENV);
	noted.deaf = deaf != NULL && strstr(path, deaf) != NULL;
	*below = '\0';
	snprintf(notes, sizeof(notes), "%s/%s/%s", path, POWER_DIR, name);
	noted.fd = (int)syscall(SYS_openat, AT_FDCWD, notes, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	return noted;
}

static void append(const struct noted *noted, struct power_note *note, const void *data)
{
	struct iovec parts[2] = { { .iov_base = note, .iov_len = sizeof(*note) },
		                  { .iov_base = (void *)(uintptr_t)data, .iov_len = data != NULL ? note->bytes : 0 } };
	note->magic = POWER_MAGIC;
	note->size = noted->size;
	note->hash = power_hash(note, data);
	(void)!syscall(SYS_writev, noted->fd, parts, data != NULL ? 2 : 1);
}

static bool all_zero(const unsigned char *bytes, size_t count)
{
	return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

/* Reads through a descriptor of its own where the caller's cannot be read. */
static ssize_t read_old(int fd, unsigned char *bytes, size_t count, uint64_t offset)
{
	ssize_t got = pread(fd, bytes, count, (off_t)offset);
	if (got < 0 && (errno == EBADF || errno == EINVAL)) {
		char link[64];
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		int own = open(link, O_RDONLY | O_CLOEXEC);
		got = own >= 0 ? pread(own, bytes, count, (off_t)offset) : -1;
		if (own >= 0)
			close(own);
	}
	return got;
}

/* What is in [offset, offset + bytes) goes into the notes, and the size. */
static void note_range(int fd, const struct noted *noted, uint64_t offset, uint64_t bytes)
{
	uint64_t end = offset + bytes < noted->size ? offset + bytes : noted->size;
	unsigned char *old = NULL;
	if (offset + bytes > noted->size) {
		struct power_note note = { .kind = POWER_SIZE };
		append(noted, &note, NULL);
	}
	while (offset < end) {
		uint64_t count = end - offset < POWER_CHUNK ? end - offset : POWER_CHUNK;
		struct power_note note = { .kind = POWER_ZERO, .offset = offset, .bytes = count };
		old = old != NULL ? old : malloc(count);
		ssize_t got = old != NULL ? read_old(fd, old, count, offset) : -1;
		if (got <= 0)
			break;
		note.bytes = (uint64_t)got;
		if (!all_zero(old, (size_t)got))
			note.kind = POWER_DATA;
		append(noted, &note, note.kind == POWER_DATA ? old : NULL);
		offset += (uint64_t)got;
	}
	free(old);
}

static uint64_t notes_size(const struct noted *noted)
{
	struct stat st;
	return fstat(noted->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* A flush that began with `before` bytes of notes has ended well. */
static void flushed(const struct noted *noted, uint64_t before)
{
	if (before == 0 || noted->deaf)
		return;
	if (notes_size(noted) == before) {
		(void)!syscall(SYS_ftruncate, noted->fd, 0); /* not our own one */
		return;
	}
	struct power_note note = { .kind = POWER_MARK, .offset = before };
	append(noted, &note, NULL);
}

static void before_write(int fd, off_t offset, uint64_t bytes)
{
	int saved = errno;
	struct noted noted = look_up(fd);
	if (noted.fd >= 0) {
		uint64_t there = notes_size(&noted);
		if (there > POWER_NOTES_MAX && syscall(SYS_fdatasync, fd) == 0)
			flushed(&noted, there);
		if (offset == HERE) {
			int flags = fcntl(fd, F_GETFL);
			offset = flags >= 0 && (flags & O_APPEND) != 0 ? (off_t)noted.size : lseek(fd, 0, SEEK_CUR);
		}
		if (offset >= 0)
			note_range(fd, &noted, (uint64_t)offset, bytes);
		close(noted.fd);
	}
	errno = saved;
}

static uint64_t sum(const struct iovec *parts, int count)
{
	uint64_t bytes = 0;
	for (int i = 0; i < count; i++)
		bytes += parts[i].iov_len;
	return bytes;
}

static int flush(int fd, void *real)
{
	int saved = errno;
	struct noted noted = look_up(fd);
	uint64_t before = noted.fd >= 0 ? notes_size(&noted) : 0;
	errno = saved;
	int result = ((int (*)(int))real)(fd);
	saved = errno;
	if (noted.fd >= 0) {
		if (result == 0)
			flushed(&noted, before);
		close(noted.fd);
	}
	errno = saved;
	return result;
}

static void before_resize(int fd, off_t size)
{
	int saved = errno;
	struct noted noted = look_up(fd);
	if (noted.fd >= 0) {
		struct power_note note = { .kind = POWER_SIZE };
		append(&noted, &note, NULL);
		if (size >= 0 && (uint64_t)size < noted.size)
			note_range(fd, &noted, (uint64_t)size, noted.size - (uint64_t)size);
		close(noted.fd);
	}
	errno = saved;
}

/* ---- the calls; those with 64 in their name are the same ones here ---- */
#pragma GCC visibility push(default)

ssize_t write(int fd, const void *bytes, size_t count)
{
	static void *_Atomic slot;
	before_write(fd, HERE, count);
	return ((ssize_t(*)(int, const void *, size_t))next(&slot, "write"))(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	static void *_Atomic slot;
	before_write(fd, HERE, sum(parts, count));
	return ((ssize_t(*)(int, const struct iovec *, int))next(&slot, "writev"))(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	static void *_Atomic slot;
	before_write(fd, offset, count);
	return ((ssize_t(*)(int, const void *, size_t, off_t))next(&slot, "pwrite"))(fd, bytes, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
	static void *_Atomic slot;
	before_write(fd, offset, sum(parts, count));
	return ((ssize_t(*)(int, const struct iovec *, int, off_t))next(&slot, "pwritev"))(fd, parts, count, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	static void *_Atomic slot;
	if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
		before_write(fd, offset, (uint64_t)bytes);
	else if ((mode & FALLOC_FL_KEEP_SIZE) == 0)
		before_resize(fd, -1);
	return ((int (*)(int, int, off_t, off_t))next(&slot, "fallocate"))(fd, mode, offset, bytes);
}

int ftruncate(int fd, off_t size)
{
	static void *_Atomic slot;
	before_resize(fd, size);
	return ((int (*)(int, off_t))next(&slot, "ftruncate"))(fd, size);
}

int truncate(const char *path, off_t size)
{
	static void *_Atomic slot;
	int saved = errno, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		before_resize(fd, size);
		close(fd);
	}
	errno = saved;
	return ((int (*)(const char *, off_t))next(&slot, "truncate"))(path, size);
}

ssize_t copy_file_range(int from, off64_t *from_at, int fd, off64_t *offset, size_t count, unsigned flags)
{
	static void *_Atomic slot;
	before_write(fd, offset != NULL ? *offset : HERE, count);
	return ((ssize_t(*)(int, off64_t *, int, off64_t *, size_t, unsigned))next(&slot, "copy_file_range"))(
		from, from_at, fd, offset, count, flags);
}

int fsync(int fd)
{
	static void *_Atomic slot;
	return flush(fd, next(&slot, "fsync"));
}

int fdatasync(int fd)
{
	static void *_Atomic slot;
	return flush(fd, next(&slot, "fdatasync"));
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) __attribute__((alias("pwrite")));
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) __attribute__((alias("pwritev")));
int fallocate64(int fd, int mode, off64_t offset, off64_t bytes) __attribute__((alias("fallocate")));
int ftruncate64(int fd, off64_t size) __attribute__((alias("ftruncate")));
int truncate64(const char *path, off64_t size) __attribute__((alias("truncate")));
#pragma GCC visibility pop
