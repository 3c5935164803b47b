/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/proc.h"

enum { PATIENCE_MS = 10000 };

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/test_proc_XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static int run_shell(const char *script, char *output, size_t bytes, unsigned timeout_ms, struct err *err)
{
	const char *const argv[] = { "sh", "-c", script, NULL };
	size_t length = bytes;
	int rc = proc_run(argv, NULL, output, &length, timeout_ms, err);
	if (output)
		assert_int_equal(length, strlen(output));
	return rc;
}

static void run__ends_well__output_collected(void **state)
{
	(void)state;
	char output[64];
	struct err err;
	assert_int_equal(run_shell("echo one; echo two; echo no >&2", output, sizeof(output), PATIENCE_MS, &err), 0);
	assert_string_equal(output, "one\ntwo\n");
	assert_int_equal(run_shell("exit 0", NULL, 0, PATIENCE_MS, &err), 0);
}

static void run__more_output_than_room__cut_and_still_ends(void **state)
{
	(void)state;
	char output[9];
	struct err err;
	assert_int_equal(run_shell("head -c 1000000 /dev/zero | tr '\\0' x", output, sizeof(output), PATIENCE_MS, &err),
	                 0);
	assert_string_equal(output, "xxxxxxxx");
}

static void run__fails__code_and_last_line(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(run_shell("echo first >&2; echo 'the cause' >&2; exit 3", NULL, 0, PATIENCE_MS, &err), -1);
	assert_int_equal(err.code, ERR_IO);
	assert_string_equal(err.text, "sh ended with 3: the cause");
	assert_int_equal(run_shell("kill -9 $$", NULL, 0, PATIENCE_MS, &err), -1);
	assert_non_null(strstr(err.text, "signal 9"));
	assert_int_equal(run_shell("head -c 100000 /dev/zero | tr '\\0' y >&2; echo >&2; echo end >&2; exit 1", NULL, 0,
	                           PATIENCE_MS, &err),
	                 -1);
	assert_string_equal(err.text, "sh ended with 1: end");
}

static void run__late__killed(void **state)
{
	(void)state;
	struct err err;
	int64_t before = clock_ms(&clock_real);
	assert_int_equal(run_shell("exec sleep 60", NULL, 0, 100, &err), -1);
	assert_int_equal(err.code, ERR_TIMEOUT);
	assert_true(clock_ms(&clock_real) - before < PATIENCE_MS);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

static void run__grandchild_holds_the_pipe__not_waited_for(void **state)
{
	(void)state;
	struct err err;
	char output[64];
	int64_t before = clock_ms(&clock_real);
	assert_int_equal(run_shell("sleep 60 & echo $!", output, sizeof(output), PATIENCE_MS, &err), 0);
	assert_true(clock_ms(&clock_real) - before < PATIENCE_MS);
	assert_true(atoi(output) > 1);
	kill(atoi(output), SIGKILL);
}

static void run__no_such_program__says_so(void **state)
{
	(void)state;
	struct err err;
	const char *const by_name[] = { "drover-no-such-program", NULL }, *const by_path[] = { "/nonexistent/x", NULL };
	const char *const not_executable[] = { "/etc/passwd", NULL };
	size_t none = 0;
	assert_int_equal(proc_run(by_name, NULL, NULL, &none, 1000, &err), -1);
	assert_non_null(strstr(err.text, "not found in PATH"));
	assert_int_equal(proc_run(by_path, NULL, NULL, &none, 1000, &err), -1);
	assert_non_null(strstr(err.text, "No such file"));
	assert_int_equal(proc_run(not_executable, NULL, NULL, &none, 1000, &err), -1);
	assert_non_null(strstr(err.text, "ermission"));
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void run__environment__added_and_replaced(void **state)
{
	(void)state;
	char output[64];
	size_t bytes = sizeof(output);
	const char *const argv[] = { "sh", "-c", "echo $OLD $NEW $KEPT", NULL };
	const char *const env[] = { "OLD=2", "NEW=3", NULL };
	struct err err;
	setenv("OLD", "1", 1);
	setenv("KEPT", "4", 1);
	assert_int_equal(proc_run(argv, env, output, &bytes, PATIENCE_MS, &err), 0);
	assert_string_equal(output, "2 3 4\n");
}

static void run__parent_has_signals_blocked_and_files_open__child_has_not(void **state)
{
	(void)state;
	char output[256];
	struct err err;
	sigset_t set, before;
	int fd = open("/dev/null", O_RDONLY); /* not close-on-exec */
	int high = dup2(fd, 77);
	sigfillset(&set);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, &before);
	int rc = run_shell("grep -E 'SigBlk|SigIgn' /proc/self/status; ls /proc/self/fd", output, sizeof(output),
	                   PATIENCE_MS, &err);
	sigprocmask(SIG_SETMASK, &before, NULL);
	signal(SIGPIPE, SIG_DFL);
	close(fd);
	close(high);
	assert_int_equal(rc, 0);
	assert_non_null(strstr(output, "SigBlk:\t0000000000000000\n"));
	const char *ignored = strstr(output, "SigIgn:");
	assert_non_null(ignored);
	/* 32 and 33 are the C library's own: make(1) may start us with them ignored, and sigaction() refuses to touch
	 * them. */
	assert_int_equal(strtoull(ignored + 7, NULL, 16) & ~0x180000000ull, 0);
	assert_null(strstr(output, "77"));
}

/* Waits for the file to have something in it. */
static void wait_for_text(const char *path, char *text, size_t bytes)
{
	int64_t deadline = clock_ms(&clock_real) + PATIENCE_MS;
	while (clock_ms(&clock_real) < deadline) {
		FILE *file = fopen(path, "r");
		size_t got = file ? fread(text, 1, bytes - 1, file) : 0;
		text[got] = '\0';
		if (file)
			fclose(file);
		if (got > 0 && text[got - 1] == '\n')
			return;
		poll(NULL, 0, 5);
	}
	fail_msg("%s stays empty", path);
}

static void start__with_log__output_there_and_killed(void **state)
{
	(void)state;
	char log_path[128], text[256], session[32];
	struct proc_id id;
	struct err err;
	const char *const argv[] = { "sh", "-c",
		                     "read x; echo \"out $? $(cut -d' ' -f6 /proc/self/stat)\"; exec sleep 60", NULL };
	snprintf(log_path, sizeof(log_path), "%s/log", folder);
	assert_int_equal(proc_start(&id, argv, NULL, log_path, -1, PROC_SETSID, &err), 0);
	wait_for_text(log_path, text, sizeof(text));
	snprintf(session, sizeof(session), "out 1 %d\n", (int)id.pid); /* /dev/null ends at once; session of its own */
	assert_string_equal(text, session);
	assert_true(proc_alive(&id));
	assert_int_equal(proc_kill(&id, PATIENCE_MS, &err), 0);
	assert_false(proc_alive(&id));
	assert_int_equal(waitpid(id.pid, NULL, WNOHANG), -1); /* reaped */
	assert_int_equal(proc_kill(&id, PATIENCE_MS, &err), 0);
	unlink(log_path);
}

static void start__listening_socket__is_passed_as_systemd_does(void **state)
{
	struct proc_id id;
	int pipes[2];
	char read_back[32] = "";
	(void)state;
	assert_int_equal(pipe(pipes), 0); /* any descriptor will do */
	const char *argv[] = { "sh", "-c", "[ $LISTEN_PID = $$ ] && [ $LISTEN_FDS = 1 ] && echo passed >&3", NULL };
	assert_int_equal(proc_start(&id, argv, NULL, NULL, pipes[1], 0, NULL), 0);
	close(pipes[1]);
	assert_int_equal(read(pipes[0], read_back, sizeof(read_back) - 1), 7);
	assert_string_equal(read_back, "passed\n");
	close(pipes[0]);
	assert_int_equal(proc_kill(&id, 5000, NULL), 0);
}

static void start__ended_already__not_alive_though_a_zombie(void **state)
{
	(void)state;
	struct proc_id id;
	struct err err;
	siginfo_t info;
	const char *const argv[] = { "true", NULL };
	assert_int_equal(proc_start(&id, argv, NULL, NULL, -1, 0, &err), 0);
	assert_int_equal(waitid(P_PID, (id_t)id.pid, &info, WEXITED | WNOWAIT), 0);
	assert_false(proc_alive(&id));
	assert_int_equal(proc_kill(&id, 0, &err), 0);
	assert_int_equal(waitpid(id.pid, NULL, WNOHANG), -1);
}

static void kill__pid_used_again__stranger_spared(void **state)
{
	(void)state;
	struct proc_id id;
	struct err err;
	const char *const argv[] = { "sleep", "60", NULL };
	assert_int_equal(proc_start(&id, argv, NULL, NULL, -1, PROC_DIE_WITH_US, &err), 0);
	struct proc_id old = { .pid = id.pid, .start_ticks = id.start_ticks - 1 };
	assert_false(proc_alive(&old));
	assert_int_equal(proc_kill(&old, 100, &err), 0);
	assert_true(proc_alive(&id));
	assert_int_equal(proc_kill(&id, PATIENCE_MS, &err), 0);
}

static void identify__self_and_nobody(void **state)
{
	(void)state;
	struct proc_id id;
	assert_int_equal(proc_identify(getpid(), &id), 0);
	assert_true(proc_alive(&id));
	assert_int_equal(proc_identify(0, &id), -1);
	assert_int_equal(proc_identify(0x7fffffff, &id), -1);
}

static void read__self_nobody_and_little_room__words_or_nothing(void **state)
{
	(void)state;
	char whole[4096], part[3] = "xx";
	size_t bytes = proc_read(getpid(), "cmdline", whole, sizeof(whole));
	assert_true(bytes > sizeof(part) && strlen(whole) < bytes);
	assert_non_null(strstr(whole, "test_proc"));
	assert_int_equal(proc_read(getpid(), "cmdline", part, sizeof(part)), 2);
	assert_true(part[0] == whole[0] && part[1] == whole[1] && part[2] == '\0');
	assert_int_equal(proc_read(0x7fffffff, "cmdline", part, sizeof(part)), 0);
	assert_string_equal(part, "");
	assert_int_equal(proc_read(getpid(), "nothing", part, 1), 0);
}

static void die_with_us__parent_killed__child_gone(void **state)
{
	(void)state;
	int fds[2];
	struct proc_id id = { 0 };
	assert_int_equal(pipe(fds), 0);
	pid_t parent = fork();
	if (parent == 0) {
		const char *const argv[] = { "sleep", "60", NULL };
		struct proc_id child = { 0 };
		if (proc_start(&child, argv, NULL, NULL, -1, PROC_DIE_WITH_US | PROC_SETSID, NULL) < 0 ||
		    write(fds[1], &child, sizeof(child)) != sizeof(child))
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(fds[0], &id, sizeof(id)), sizeof(id));
	assert_true(proc_alive(&id));
	kill(parent, SIGKILL);
	waitpid(parent, NULL, 0);
	int64_t deadline = clock_ms(&clock_real) + PATIENCE_MS;
	while (proc_alive(&id) && clock_ms(&clock_real) < deadline)
		poll(NULL, 0, 5);
	assert_false(proc_alive(&id));
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(run__ends_well__output_collected),
		cmocka_unit_test(run__more_output_than_room__cut_and_still_ends),
		cmocka_unit_test(run__fails__code_and_last_line),
		cmocka_unit_test(run__late__killed),
		cmocka_unit_test(run__grandchild_holds_the_pipe__not_waited_for),
		cmocka_unit_test(run__no_such_program__says_so),
		cmocka_unit_test(run__environment__added_and_replaced),
		cmocka_unit_test(run__parent_has_signals_blocked_and_files_open__child_has_not),
		cmocka_unit_test(start__with_log__output_there_and_killed),
		cmocka_unit_test(start__listening_socket__is_passed_as_systemd_does),
		cmocka_unit_test(start__ended_already__not_alive_though_a_zombie),
		cmocka_unit_test(kill__pid_used_again__stranger_spared),
		cmocka_unit_test(identify__self_and_nobody),
		cmocka_unit_test(read__self_nobody_and_little_room__words_or_nothing),
		cmocka_unit_test(die_with_us__parent_killed__child_gone),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
