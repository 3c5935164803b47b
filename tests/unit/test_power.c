/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a power cut takes from a simulated host's files, and what it must not take. The program is linked with the shim:
 * its own writes are noted. */
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/sim/power.h"

#define BLOCK 4096u

struct fixture {
	char root[64];
	char home[80];
	char disk[128];
	int fd;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *set = getenv(POWER_ENV);
	if (set == NULL) { /* once: the shim reads it once */
		char root[] = "/tmp/drover.XXXXXX";
		assert_non_null(mkdtemp(root));
		set = root;
		setenv(POWER_ENV, root, 1);
	}
	snprintf(f->root, sizeof(f->root), "%s", getenv(POWER_ENV));
	snprintf(f->home, sizeof(f->home), "%s/a1", f->root);
	snprintf(f->disk, sizeof(f->disk), "%s/disk.raw", f->home);
	assert_int_equal(mkdir(f->home, 0700), 0);
	assert_int_equal(power_forget(f->home, NULL), 0);
	f->fd = open(f->disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(f->fd >= 0);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	if (f->fd >= 0)
		close(f->fd);
	nftw(f->home, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static int remove_root(void **state)
{
	(void)state;
	return getenv(POWER_ENV) == NULL ? 0 : rmdir(getenv(POWER_ENV));
}

static void put(struct fixture *f, unsigned block, char letter)
{
	char bytes[BLOCK];
	memset(bytes, letter, sizeof(bytes));
	assert_int_equal(pwrite(f->fd, bytes, BLOCK, (off_t)block * BLOCK), BLOCK);
}

/* The first byte of a block if all are the same, '?' if they are not, '-' if there is none. */
static char get(struct fixture *f, unsigned block)
{
	char bytes[BLOCK];
	ssize_t got = pread(f->fd, bytes, BLOCK, (off_t)block * BLOCK);
	if (got <= 0)
		return '-';
	for (ssize_t i = 1; i < got; i++)
		if (bytes[i] != bytes[0])
			return '?';
	return bytes[0];
}

static uint64_t cut(struct fixture *f)
{
	uint64_t bytes = 0;
	struct err err = { 0 };
	if (power_cut(f->home, &bytes, &err) != 0)
		fail_msg("%s", err.text);
	return bytes;
}

static off_t size_of(struct fixture *f)
{
	struct stat st;
	assert_int_equal(fstat(f->fd, &st), 0);
	return st.st_size;
}

static void flushed__stays__and_the_rest_goes(void **state)
{
	struct fixture *f = *state;
	put(f, 0, 'a');
	put(f, 1, 'b');
	assert_int_equal(fdatasync(f->fd), 0);
	put(f, 1, 'c');
	put(f, 1, 'd'); /* twice: the oldest comes back last */
	put(f, 5, 'e'); /* beyond the end */
	assert_true(cut(f) > 0);
	assert_int_equal(get(f, 0), 'a');
	assert_int_equal(get(f, 1), 'b');
	assert_int_equal(size_of(f), 2 * BLOCK);
	assert_int_equal(cut(f), 0); /* nothing is taken twice */
}

static void every_way_of_writing__is_noted(void **state)
{
	struct fixture *f = *state;
	char bytes[2 * BLOCK];
	for (unsigned i = 0; i < 8; i++)
		put(f, i, (char)('a' + i));
	assert_int_equal(fsync(f->fd), 0);
	memset(bytes, 'X', sizeof(bytes));
	struct iovec parts[2] = { { bytes, BLOCK }, { bytes + BLOCK, BLOCK } };
	assert_int_equal(lseek(f->fd, 0, SEEK_SET), 0);
	assert_int_equal(write(f->fd, bytes, BLOCK), BLOCK);
	assert_int_equal(writev(f->fd, parts, 1), BLOCK);
	assert_int_equal(pwritev(f->fd, parts, 2, 2 * BLOCK), 2 * BLOCK);
	assert_int_equal(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * BLOCK, BLOCK), 0);
	assert_int_equal(ftruncate(f->fd, 6 * BLOCK), 0);
	assert_int_equal(truncate(f->disk, 5 * BLOCK), 0);
	int blind = open(f->disk, O_WRONLY | O_APPEND | O_CLOEXEC); /* what was there cannot be read through it */
	assert_int_equal(write(blind, bytes, BLOCK), BLOCK);
	assert_int_equal(pwrite(blind, bytes, 10, 0), 10);
	close(blind);
	cut(f);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(get(f, i), 'a' + (int)i);
	assert_int_equal(size_of(f), 8 * BLOCK);
}

static void hole__written__is_a_hole_again(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	assert_int_equal(ftruncate(f->fd, 64 << 20), 0);
	assert_int_equal(fsync(f->fd), 0);
	put(f, 1000, 'x');
	cut(f);
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(st.st_size, 64 << 20);
}

static void flush__of_another_descriptor__counts(void **state)
{
	struct fixture *f = *state;
	put(f, 0, 'a');
	int other = open(f->disk, O_RDONLY | O_CLOEXEC);
	assert_int_equal(fsync(other), 0);
	close(other);
	assert_int_equal(cut(f), 0);
	assert_int_equal(get(f, 0), 'a');
}

static void left_alone__are_logs_and_the_ledger(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = { "ledger", "x.log" };
	for (size_t i = 0; i < 2; i++) {
		char path[160];
		snprintf(path, sizeof(path), "%s/%s", f->home, names[i]);
		int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		assert_int_equal(write(fd, "line", 4), 4);
		close(fd);
		cut(f);
		struct stat st;
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, 4);
	}
}

/* The notes of a file that is gone do nothing to a new one, whatever inode it got. */
static void new_file__of_the_same_name__is_not_touched(void **state)
{
	struct fixture *f = *state;
	put(f, 0, 'a');
	close(f->fd);
	assert_int_equal(unlink(f->disk), 0);
	usleep(20000); /* birth times of files are as coarse as the kernel's tick */
	f->fd = open(f->disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	put(f, 0, 'b');
	assert_int_equal(fsync(f->fd), 0);
	cut(f);
	assert_int_equal(get(f, 0), 'b');
}

/* A process killed while it took a note leaves half of one; those after it count. */
static void half_a_note__is_skipped(void **state)
{
	struct fixture *f = *state;
	char name[POWER_NAME_BYTES], notes[256];
	uint64_t size;
	put(f, 0, 'a');
	assert_int_equal(fsync(f->fd), 0);
	put(f, 0, 'b');
	assert_int_equal(power_name(f->fd, name, &size), 0);
	snprintf(notes, sizeof(notes), "%s/%s/%s", f->home, POWER_DIR, name);
	int fd = open(notes, O_WRONLY | O_APPEND | O_CLOEXEC);
	struct power_note note = { .magic = POWER_MAGIC, .kind = POWER_DATA, .bytes = BLOCK };
	assert_int_equal(write(fd, &note, sizeof(note) - 3), sizeof(note) - 3);
	close(fd);
	put(f, 0, 'c');
	cut(f);
	assert_int_equal(get(f, 0), 'a');
}

/* In a process of its own: a file system mounted below the host. Exit status: 77 without the right to mount. */
static int cut_in_a_mount(struct fixture *f)
{
	char dir[96], path[128];
	snprintf(dir, sizeof(dir), "%s/sr", f->home);
	snprintf(path, sizeof(path), "%s/disk.raw", dir);
	if (mkdir(dir, 0700) != 0)
		return 1;
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tmpfs", dir, "tmpfs", 0, "size=1m") != 0)
		return 77;
	close(f->fd);
	f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	put(f, 0, 'a');
	if (fdatasync(f->fd) != 0)
		return 1;
	put(f, 0, 'b');
	return cut(f) > 0 && get(f, 0) == 'a' ? 0 : 1;
}

static void file_system_of_its_own__is_cut_too(void **state)
{
	struct fixture *f = *state;
	int status = 0;
	pid_t child = fork();
	if (child == 0)
		_exit(cut_in_a_mount(f));
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(flushed__stays__and_the_rest_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(every_way_of_writing__is_noted, setup, teardown),
		cmocka_unit_test_setup_teardown(hole__written__is_a_hole_again, setup, teardown),
		cmocka_unit_test_setup_teardown(flush__of_another_descriptor__counts, setup, teardown),
		cmocka_unit_test_setup_teardown(left_alone__are_logs_and_the_ledger, setup, teardown),
		cmocka_unit_test_setup_teardown(new_file__of_the_same_name__is_not_touched, setup, teardown),
		cmocka_unit_test_setup_teardown(half_a_note__is_skipped, setup, teardown),
		cmocka_unit_test_setup_teardown(file_system_of_its_own__is_cut_too, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, remove_root);
}
