/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kills the process that it is preloaded into at a write of its journal: DROVER_CRASH="PROGRAM WHEN N MARK".
 *   PROGRAM  only a program of this name counts and dies
 *   WHEN     before: at the N-th commit, when nothing of it is written yet (what was done before it is not on record);
 *            after: when it is on disk, and the program does not know it yet (what it permits is not done)
 *            stop-before, stop-after: the same, but it is stopped (SIGSTOP) until somebody has it go on
 *   MARK     a file that is made before the process dies, with its pid in it, so that a test can tell that it came to
 * this; while it is there, nobody dies (again): a leg that is started in place of a dead one inherits the environment
 * A commit is what SQLite writes to its write-ahead log between two flushes of it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

static struct {
	bool armed, before, stop;
	unsigned n;
	char mark[4096];
	atomic_uint commits; /* that are on disk */
} plan;

__attribute__((constructor)) static void arm(void)
{
	char program[64], when[16];
	const char *text = getenv("DROVER_CRASH");
	if (text == NULL || sscanf(text, "%63s %15s %u %4095s", program, when, &plan.n, plan.mark) != 4)
		return;
	plan.stop = strncmp(when, "stop-", 5) == 0;
	plan.before = strcmp(when + (plan.stop ? 5 : 0), "before") == 0;
	plan.armed = strcmp(program, program_invocation_short_name) == 0 && access(plan.mark, F_OK) != 0;
}

static bool is_log(int fd)
{
	char link[32], path[4096];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t bytes = readlink(link, path, sizeof(path) - 1);
	return bytes > 4 && memcmp(path + bytes - 4, "-wal", 4) == 0;
}

static void die(void)
{
	char fresh[sizeof(plan.mark) + 8];
	plan.armed = false;
	snprintf(fresh, sizeof(fresh), "%s.new", plan.mark); /* whoever sees it sees the pid in it */
	int fd = open(fresh, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0) {
		dprintf(fd, "%d\n", (int)getpid());
		close(fd);
		rename(fresh, plan.mark);
	}
	kill(getpid(), plan.stop ? SIGSTOP : SIGKILL);
}

static void before_write(int fd)
{
	if (plan.armed && plan.before && atomic_load(&plan.commits) + 1 == plan.n && is_log(fd))
		die();
}

static int flush(const char *name, int fd)
{
	int (*real)(int) = NULL;
	*(void **)&real = dlsym(RTLD_NEXT, name);
	int result = real(fd);
	if (plan.armed && is_log(fd) && atomic_fetch_add(&plan.commits, 1) + 1 == plan.n && !plan.before)
		die();
	return result;
}

EXPORTED int fdatasync(int fd)
{
	return flush("fdatasync", fd);
}

EXPORTED int fsync(int fd)
{
	return flush("fsync", fd);
}

EXPORTED ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	ssize_t (*real)(int, const void *, size_t, off64_t) = NULL;
	*(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
	before_write(fd);
	return real(fd, bytes, count, offset);
}
