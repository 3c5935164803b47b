/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* err, clock, paths and log: the small things of common/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/paths.h"

/* ---- err ---- */

static void names__every_code__there_and_back(void **state)
{
	(void)state;
	for (unsigned code = 0; code < ERR_CODES; code++) {
		const char *name = err_name((enum err_code)code);
		assert_non_null(name);
		assert_int_equal(err_from_name(name), code);
	}
	assert_string_equal(err_name(ERR_NO_SPACE), "no-space");
	assert_string_equal(err_name(ERR_HOST_LOST), "host-lost");
	assert_string_equal(err_name(ERR_CODES), "internal");
	assert_string_equal(err_name((enum err_code) - 1), "internal");
	assert_int_equal(err_from_name("nonsense"), ERR_CODES);
	assert_int_equal(err_from_name(NULL), ERR_CODES);
}

static void wrap__twice__reads_outward(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(err_set(&err, ERR_NO_SPACE, "no space (need %d)", 20), -1);
	assert_int_equal(err_wrap(&err, "prepare on %s", "b2"), -1);
	err_wrap(&err, "migrate web3");
	assert_string_equal(err.text, "migrate web3: prepare on b2: no space (need 20)");
	assert_int_equal(err.code, ERR_NO_SPACE);
	err_clear(&err);
	assert_int_equal(err.code, ERR_NONE);
	assert_string_equal(err.text, "");
}

static void set__null_and_own_text__fine(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(err_set(NULL, ERR_IO, "x"), -1);
	assert_int_equal(err_errno(NULL, ERR_IO, 5, "x"), -1);
	assert_int_equal(err_wrap(NULL, "x"), -1);
	err_clear(NULL);
	err_set(&err, ERR_IO, "inner");
	err_set(&err, ERR_BUSY, "outer: %s", err.text);
	assert_string_equal(err.text, "outer: inner");
}

static void errno__full_disk__no_space(void **state)
{
	(void)state;
	struct err err;
	err_errno(&err, ERR_IO, ENOENT, "open %s", "f");
	assert_int_equal(err.code, ERR_IO);
	assert_string_equal(err.text, "open f: No such file or directory");
	err_errno(&err, ERR_IO, ENOSPC, "write");
	assert_int_equal(err.code, ERR_NO_SPACE);
	err_errno(&err, ERR_IO, EDQUOT, "write");
	assert_int_equal(err.code, ERR_NO_SPACE);
}

static void set__bad_bytes_and_long_text__clean_utf8(void **state)
{
	(void)state;
	struct err err;
	err_set(&err, ERR_IO, "%s",
	        "a\nb\tc\x1b[31m \xff \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xc3( \xc0\xaf \xed\xa0\x80 \xc2\x85");
	assert_string_equal(err.text, "a b c [31m ? \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 ?( ?? ??? ??");
	/* a character of two bytes across the end of the buffer goes as a whole */
	for (int pad = 0; pad < 2; pad++) {
		char text[2 * LIMIT_TEXT + 4] = "x";
		for (size_t i = (size_t)pad; i + 2 < sizeof(text); i += 2)
			memcpy(text + i, "\xc3\xa9", 3);
		err_set(&err, ERR_IO, "%s", text);
		size_t length = strlen(err.text);
		assert_in_range(length, LIMIT_TEXT - 3, LIMIT_TEXT - 1);
		assert_int_equal((unsigned char)err.text[length - 1], 0xa9);
		assert_null(strchr(err.text, '?'));
	}
}

/* ---- clock ---- */

static void clock__real__moves_and_is_now(void **state)
{
	(void)state;
	int64_t before = clock_real.now_ns(&clock_real);
	assert_true(before > 0);
	assert_true(clock_real.now_ns(&clock_real) >= before);
	int64_t off = clock_real.wall_ms(&clock_real) / 1000 - (int64_t)time(NULL);
	assert_in_range(off + 2, 0, 4);
}

static void wall_format__known_times__rfc3339(void **state)
{
	(void)state;
	char text[32];
	wall_format(0, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000Z");
	wall_format(1795388763123, text);
	assert_string_equal(text, "2026-11-22T23:06:03.123Z");
	wall_format(-1, text);
	assert_string_equal(text, "1969-12-31T23:59:59.999Z");
	wall_format(INT64_MAX, text);
	assert_true(strlen(text) < 32);
}

static void random_hex__twice__differs(void **state)
{
	(void)state;
	char a[33], b[33];
	random_hex(a, 16);
	random_hex(b, 16);
	assert_int_equal(strlen(a), 32);
	assert_int_equal(strspn(a, "0123456789abcdef"), 32);
	assert_string_not_equal(a, b);
}

/* ---- paths ---- */

static char home[64];

static int make_home(void **state)
{
	(void)state;
	snprintf(home, sizeof(home), "/tmp/test_err_XXXXXX");
	return mkdtemp(home) ? 0 : -1;
}

static int remove_home(void **state)
{
	(void)state;
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", home);
	return system(command);
}

static void paths__no_home__system_directories(void **state)
{
	(void)state;
	struct paths paths;
	unsetenv("DROVER_HOME");
	assert_int_equal(paths_init(&paths, NULL, NULL), 0);
	assert_string_equal(paths.home, "");
	assert_string_equal(paths.etc, "/etc/drover");
	assert_string_equal(paths.lib, "/var/lib/drover");
	assert_string_equal(paths.run, "/run/drover");
}

static void paths__home_given_or_in_environment__under_it(void **state)
{
	(void)state;
	struct paths paths;
	char here[256], wanted[512];
	assert_int_equal(paths_init(&paths, "/x//", NULL), 0);
	assert_string_equal(paths.home, "/x");
	assert_string_equal(paths.run, "/x/run");
	setenv("DROVER_HOME", "/y", 1);
	assert_int_equal(paths_init(&paths, NULL, NULL), 0);
	assert_string_equal(paths.lib, "/y/lib");
	assert_int_equal(paths_init(&paths, "/x", NULL), 0);
	assert_string_equal(paths.home, "/x");
	unsetenv("DROVER_HOME");
	assert_int_equal(chdir(home), 0);
	assert_non_null(getcwd(here, sizeof(here)));
	snprintf(wanted, sizeof(wanted), "%s/sub/etc", here);
	assert_int_equal(paths_init(&paths, "sub", NULL), 0);
	assert_string_equal(paths.etc, wanted);
}

static void paths__home_too_long_for_sockets__refused(void **state)
{
	(void)state;
	struct paths paths;
	struct err err;
	char path[700];
	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[66] = '\0';
	assert_int_equal(paths_init(&paths, path, &err), 0);
	path[66] = 'a';
	path[67] = '\0';
	assert_int_equal(paths_init(&paths, path, &err), -1);
	assert_int_equal(err.code, ERR_CONFIG);
	path[67] = 'a';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(paths_init(&paths, path, &err), -1);
	assert_int_equal(err.code, ERR_CONFIG);
}

static void paths__make__modes_and_again(void **state)
{
	(void)state;
	struct paths paths;
	struct stat st;
	char deep[128];
	snprintf(deep, sizeof(deep), "%s/p/q", home);
	assert_int_equal(paths_init(&paths, deep, NULL), 0);
	assert_int_equal(paths_make(&paths, NULL), 0);
	assert_int_equal(paths_make(&paths, NULL), 0);
	assert_int_equal(stat(paths.lib, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(rmdir(paths.run), 0);
	int fd = open(paths.run, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(paths_make(&paths, NULL), -1);
	unlink(paths.run);
}

/* As a daemon and who has started it do. */
static void pid_file__written_by_two_at_once__is_there(void **state)
{
	(void)state;
	char dir[] = "/tmp/drover-pid-XXXXXX", run[64], path[64];
	struct paths paths = { 0 };
	int failed = 0, status = 0;
	long pid = 0;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(paths.run, sizeof(paths.run), "%s", dir);
	pid_t child = fork();
	for (int i = 0; i < 3000; i++)
		failed += paths_write_pid(&paths, "agent", 42, NULL) != 0;
	if (child == 0)
		_exit(failed != 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(failed, 0);
	assert_int_equal(paths_read_pid(&paths, "agent", &pid), 0);
	assert_int_equal(pid, 42);
	(void)snprintf(run, sizeof(run), "%s/agent.pid.new", dir);
	(void)snprintf(path, sizeof(path), "%s/agent.pid", dir);
	(void)unlink(run);
	(void)unlink(path);
	(void)rmdir(dir);
}

static void pid_files__written_read_removed(void **state)
{
	(void)state;
	struct paths paths;
	char path[700];
	long pid = 0;
	assert_int_equal(paths_init(&paths, home, NULL), 0);
	assert_int_equal(paths_make(&paths, NULL), 0);
	assert_int_equal(paths_read_pid(&paths, "agent", &pid), -1);
	assert_int_equal(paths_write_pid(&paths, "agent", 1, NULL), 0);
	assert_int_equal(paths_write_pid(&paths, "agent", 12345, NULL), 0);
	assert_int_equal(paths_read_pid(&paths, "agent", &pid), 0);
	assert_int_equal(pid, 12345);
	snprintf(path, sizeof(path), "%s/agent.pid", paths.run);
	static const char *const wrong[] = { "", "-5\n", "12x\n", "abc", "99999999999999999999999\n" };
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		FILE *file = fopen(path, "w");
		fputs(wrong[i], file);
		fclose(file);
		assert_int_equal(paths_read_pid(&paths, "agent", &pid), -1);
	}
	paths_remove_pid(&paths, "agent");
	assert_int_equal(access(path, F_OK), -1);
}

static void boot_id__own_of_a_home_or_the_kernels(void **state)
{
	(void)state;
	struct paths paths;
	char id[LIMIT_ID], real[LIMIT_ID], path[700];
	struct err err;
	assert_int_equal(paths_init(&paths, home, NULL), 0);
	assert_int_equal(paths_make(&paths, NULL), 0);
	assert_int_equal(boot_id_read(&paths, real, sizeof(real), NULL), 0);
	assert_int_equal(strlen(real), 36);
	snprintf(path, sizeof(path), "%s/boot-id", paths.run);
	FILE *file = fopen(path, "w");
	fputs("boot-7\n", file);
	fclose(file);
	assert_int_equal(boot_id_read(&paths, id, sizeof(id), NULL), 0);
	assert_string_equal(id, "boot-7");
	assert_int_equal(boot_id_read(&paths, id, 4, &err), -1);
	file = fopen(path, "w");
	fclose(file);
	assert_int_equal(boot_id_read(&paths, id, sizeof(id), &err), -1);
	assert_int_equal(err.code, ERR_IO);
	unlink(path);
}

/* ---- log ---- */

/* What `say` writes to standard error. */
static void capture(void (*say)(void), char *text, size_t bytes)
{
	int fds[2], saved = dup(2);
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	dup2(fds[1], 2);
	say();
	dup2(saved, 2);
	close(saved);
	ssize_t got = read(fds[0], text, bytes - 1);
	text[got < 0 ? 0 : got] = '\0';
	close(fds[0]);
	close(fds[1]);
}

static void say_levels(void)
{
	log_error("id=%d", 1);
	log_debug("id=%d", 2);
}

static void say_ugly(void)
{
	char text[5000];
	memset(text, 'y', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	log_warning("a\nb\x1b[0m %s", text);
}

static void log__below_the_level__dropped(void **state)
{
	(void)state;
	char text[8192];
	log_init("tester");
	capture(say_levels, text, sizeof(text));
	assert_non_null(strstr(text, " tester["));
	assert_non_null(strstr(text, " error: id=1\n"));
	assert_null(strstr(text, "id=2"));
	setenv("DROVER_LOG", "debug", 1);
	log_init("tester");
	capture(say_levels, text, sizeof(text));
	assert_non_null(strstr(text, " debug: id=2\n"));
	unsetenv("DROVER_LOG");
	log_level_set(LOG_LEVEL_INFO);
}

static void log__ugly_text__one_bounded_line(void **state)
{
	(void)state;
	char text[8192];
	capture(say_ugly, text, sizeof(text));
	assert_in_range(strlen(text), 1000, 2048);
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	assert_null(strchr(text, '\x1b'));
}

static void log__standard_error_is_the_journal__priority(void **state)
{
	(void)state;
	char name[64], path[128], text[256] = "";
	struct stat st;
	snprintf(path, sizeof(path), "%s/journal", home);
	int fd = open(path, O_CREAT | O_RDWR, 0600), saved = dup(2);
	assert_int_equal(fstat(fd, &st), 0);
	snprintf(name, sizeof(name), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", name, 1);
	dup2(fd, 2);
	log_init("tester");
	log_notice("x=1");
	dup2(saved, 2);
	unsetenv("JOURNAL_STREAM");
	log_init("tester");
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, "<5>x=1\n");
	close(saved);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names__every_code__there_and_back),
		cmocka_unit_test(wrap__twice__reads_outward),
		cmocka_unit_test(set__null_and_own_text__fine),
		cmocka_unit_test(errno__full_disk__no_space),
		cmocka_unit_test(set__bad_bytes_and_long_text__clean_utf8),
		cmocka_unit_test(clock__real__moves_and_is_now),
		cmocka_unit_test(wall_format__known_times__rfc3339),
		cmocka_unit_test(random_hex__twice__differs),
		cmocka_unit_test(paths__no_home__system_directories),
		cmocka_unit_test(paths__home_given_or_in_environment__under_it),
		cmocka_unit_test(paths__home_too_long_for_sockets__refused),
		cmocka_unit_test(paths__make__modes_and_again),
		cmocka_unit_test(pid_files__written_read_removed),
		cmocka_unit_test(pid_file__written_by_two_at_once__is_there),
		cmocka_unit_test(boot_id__own_of_a_home_or_the_kernels),
		cmocka_unit_test(log__below_the_level__dropped),
		cmocka_unit_test(log__ugly_text__one_bounded_line),
		cmocka_unit_test(log__standard_error_is_the_journal__priority),
	};
	return cmocka_run_group_tests(tests, make_home, remove_home);
}
