/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into a daemon or a leg: an environment that fails. DROVER_FAULT="PROGRAM KIND N SWITCH":
 *   PROGRAM  only a program of this name is hit
 *   KIND     full, io: from the N-th commit on, writes to a database fail with ENOSPC, EIO
 *            sync: from the N-th commit on, its flushes fail with EIO
 *            readonly: from the N-th opening of a database for writing on, it fails with EROFS
 *            memory: the N-th allocation fails, and the next ones as many as a failing machine would let fail: 8
 *            list: from the N-th entry of a directory on, none can be read: EIO
 *   SWITCH   while this file is there, the fault stands. SWITCH.hit is made when it comes first
 * A commit is what SQLite writes to its write-ahead log between two flushes of it.
 * DROVER_CLOCK=FILE: two numbers of seconds in a file, added to the wall clock, and to the clock that goes on in
 * suspend.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define MEMORY_HITS 8u

enum kind { KIND_NONE, KIND_FULL, KIND_IO, KIND_SYNC, KIND_READONLY, KIND_MEMORY, KIND_LIST };

static struct {
	enum kind kind;
	unsigned n;
	char off[4096];
	atomic_uint count;
	atomic_bool hit, wrote; /* wrote: to the log since its last flush */
} plan;

static const char *clock_file;

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *at, size_t bytes);

static void *real_of(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void arm(void)
{
	static const char *const names[] = { "", "full", "io", "sync", "readonly", "memory", "list" };
	char program[64], kind[16];
	const char *text = getenv("DROVER_FAULT");
	clock_file = getenv("DROVER_CLOCK");
	if (text == NULL || sscanf(text, "%63s %15s %u %4000s", program, kind, &plan.n, plan.off) != 4 ||
	    strcmp(program, program_invocation_short_name) != 0)
		return;
	for (int i = KIND_FULL; i <= KIND_LIST; i++)
		if (strcmp(kind, names[i]) == 0)
			plan.kind = (enum kind)i;
}

static bool stands(void)
{
	struct stat st;
	return stat(plan.off, &st) == 0;
}

static void hit(void)
{
	char path[4200];
	if (atomic_exchange(&plan.hit, true))
		return;
	snprintf(path, sizeof(path), "%s.hit", plan.off);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), bytes = strlen(end);
	return length >= bytes && strcmp(text + length - bytes, end) == 0;
}

/* A database or its log. *ret_log: its log. */
static bool is_database(int fd, bool *ret_log)
{
	char link[32], path[4096];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t bytes = readlink(link, path, sizeof(path) - 1);
	if (bytes <= 0)
		return false;
	path[bytes] = '\0';
	*ret_log = ends_with(path, ".db-wal");
	return *ret_log || ends_with(path, ".db");
}

/* Whether this write or flush is of the N-th commit or later, and fails. */
static bool fails(int fd, bool flush)
{
	bool log = false;
	if (!(plan.kind == KIND_FULL || plan.kind == KIND_IO || plan.kind == KIND_SYNC) || !is_database(fd, &log))
		return false;
	if (log && !flush && !atomic_exchange(&plan.wrote, true))
		atomic_fetch_add(&plan.count, 1);
	bool due = atomic_load(&plan.count) >= plan.n && flush == (plan.kind == KIND_SYNC) && stands();
	if (log && flush)
		atomic_store(&plan.wrote, false);
	if (!due)
		return false;
	hit();
	atomic_store(&plan.wrote, false);
	errno = plan.kind == KIND_FULL ? ENOSPC : EIO;
	return true;
}

EXPORTED ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	ssize_t (*real)(int, const void *, size_t, off64_t) = NULL;
	*(void **)&real = real_of("pwrite64");
	return fails(fd, false) ? -1 : real(fd, bytes, count, offset);
}

static int flush(const char *name, int fd)
{
	int (*real)(int) = NULL;
	*(void **)&real = real_of(name);
	return fails(fd, true) ? -1 : real(fd);
}

EXPORTED int fdatasync(int fd)
{
	return flush("fdatasync", fd);
}

EXPORTED int fsync(int fd)
{
	return flush("fsync", fd);
}

EXPORTED int open64(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...) = NULL;
	va_list args;
	va_start(args, flags);
	mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
	va_end(args);
	*(void **)&real = real_of("open64");
	if (plan.kind == KIND_READONLY && (flags & O_ACCMODE) != O_RDONLY &&
	    (ends_with(path, ".db") || ends_with(path, ".db-wal")) && atomic_fetch_add(&plan.count, 1) + 1 >= plan.n &&
	    stands()) {
		hit();
		errno = EROFS;
		return -1;
	}
	return real(path, flags, mode);
}

EXPORTED int open(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
	va_end(args);
	return open64(path, flags, mode);
}

static bool no_list(void)
{
	if (plan.kind != KIND_LIST || atomic_fetch_add(&plan.count, 1) + 1 < plan.n || !stands())
		return false;
	hit();
	errno = EIO;
	return true;
}

EXPORTED struct dirent *readdir(DIR *dir)
{
	struct dirent *(*real)(DIR *) = NULL;
	*(void **)&real = real_of("readdir");
	return no_list() ? NULL : real(dir);
}

EXPORTED struct dirent64 *readdir64(DIR *dir)
{
	struct dirent64 *(*real)(DIR *) = NULL;
	*(void **)&real = real_of("readdir64");
	return no_list() ? NULL : real(dir);
}

/* ---- memory ---- */

static bool no_memory(void)
{
	if (plan.kind != KIND_MEMORY)
		return false;
	unsigned at = atomic_fetch_add(&plan.count, 1) + 1;
	if (at < plan.n || at >= plan.n + MEMORY_HITS || !stands())
		return false;
	hit();
	errno = ENOMEM;
	return true;
}

EXPORTED void *malloc(size_t bytes)
{
	return no_memory() ? NULL : __libc_malloc(bytes);
}

EXPORTED void *calloc(size_t count, size_t bytes)
{
	return no_memory() ? NULL : __libc_calloc(count, bytes);
}

EXPORTED void *realloc(void *at, size_t bytes)
{
	return no_memory() ? NULL : __libc_realloc(at, bytes);
}

/* ---- time ---- */

static time_t offset(bool wall)
{
	char text[64];
	long long wall_s = 0, boot_s = 0;
	if (clock_file == NULL)
		return 0;
	int fd = open(clock_file, O_RDONLY | O_CLOEXEC);
	ssize_t bytes = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (bytes <= 0)
		return 0;
	text[bytes] = '\0';
	sscanf(text, "%lld %lld", &wall_s, &boot_s);
	return (time_t)(wall ? wall_s : boot_s);
}

EXPORTED int clock_gettime(clockid_t id, struct timespec *now)
{
	int (*real)(clockid_t, struct timespec *) = NULL;
	*(void **)&real = real_of("clock_gettime");
	int result = real(id, now);
	if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		now->tv_sec += offset(true);
	if (result == 0 && id == CLOCK_BOOTTIME)
		now->tv_sec += offset(false);
	return result;
}

/* The kernel's clock was not set: what is due by ours is due earlier by its. */
EXPORTED int timerfd_settime(int fd, int flags, const struct itimerspec *due, struct itimerspec *ret_before)
{
	int (*real)(int, int, const struct itimerspec *, struct itimerspec *) = NULL;
	struct itimerspec ours = *due;
	time_t ahead = (flags & TFD_TIMER_ABSTIME) != 0 ? offset(false) : 0;
	*(void **)&real = real_of("timerfd_settime");
	if (ours.it_value.tv_sec > ahead)
		ours.it_value.tv_sec -= ahead;
	return real(fd, flags, &ours, ret_before);
}

EXPORTED int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &precise) != 0)
		return -1;
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

EXPORTED time_t time(time_t *ret_now)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (ret_now != NULL)
		*ret_now = now.tv_sec;
	return now.tv_sec;
}
