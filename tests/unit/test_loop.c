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
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/loop.h"
#include "common/proc.h"

enum { PATIENCE_MS = 10000 };

struct scene {
	struct loop *loop;
	int calls, late, fd, timer, other;
	pthread_t thread; /* the loop's */
	int signals[4], signal_count;
	pid_t child;
	int status;
	char order[16];
};

static void give_up(void *ctx)
{
	(void)ctx;
	fail_msg("nothing happened within %d ms", PATIENCE_MS);
}

static struct scene *begin(void)
{
	static struct scene scene;
	struct err err;
	memset(&scene, 0, sizeof(scene));
	scene.thread = pthread_self();
	scene.loop = loop_new(&err);
	assert_non_null(scene.loop);
	assert_true(loop_timer(scene.loop, PATIENCE_MS, false, give_up, NULL, &err) > 0);
	return &scene;
}

static void run(struct scene *scene)
{
	struct err err;
	if (loop_run(scene->loop, &err) < 0)
		fail_msg("%s", err.text);
}

static void stop(void *ctx)
{
	loop_stop(((struct scene *)ctx)->loop);
}

static void note_a(void *ctx)
{
	strcat(((struct scene *)ctx)->order, "a");
}

static void note_b(void *ctx)
{
	strcat(((struct scene *)ctx)->order, "b");
}

static void timers__several__in_order_of_deadline(void **state)
{
	(void)state;
	struct scene *s = begin();
	loop_timer(s->loop, 30, false, stop, s, NULL);
	loop_timer(s->loop, 10, false, note_b, s, NULL);
	loop_timer(s->loop, 0, false, note_a, s, NULL);
	loop_timer(s->loop, 10, false, note_a, s, NULL); /* same deadline or later: after the b */
	int64_t before = clock_ms(&clock_real);
	run(s);
	assert_true(clock_ms(&clock_real) - before >= 29);
	assert_string_equal(s->order, "aba");
	loop_free(s->loop);
}

static void count_to_five(void *ctx)
{
	struct scene *s = ctx;
	if (++s->calls == 5) {
		loop_timer_end(s->loop, s->timer); /* itself */
		loop_timer(s->loop, 20, false, stop, s, NULL);
	}
}

static void timer__repeats_and_ends_itself__no_more_calls(void **state)
{
	(void)state;
	struct scene *s = begin();
	s->timer = loop_timer(s->loop, 1, true, count_to_five, s, NULL);
	run(s);
	assert_int_equal(s->calls, 5);
	loop_free(s->loop);
}

static void end_other(void *ctx)
{
	struct scene *s = ctx;
	loop_timer_end(s->loop, s->other);
	loop_timer(s->loop, 10, false, stop, s, NULL);
}

static void timer__ended_by_one_due_at_the_same_time__not_called(void **state)
{
	(void)state;
	struct scene *s = begin();
	loop_timer(s->loop, 5, false, end_other, s, NULL);
	s->other = loop_timer(s->loop, 5, false, note_b, s, NULL);
	loop_timer_end(s->loop, 0);
	loop_timer_end(s->loop, -1);
	loop_timer_end(s->loop, 999999);
	run(s);
	assert_string_equal(s->order, "");
	loop_free(s->loop);
}

static void block_then_count(void *ctx)
{
	struct scene *s = ctx;
	if (++s->calls == 1) { /* twenty periods pass here */
		int64_t until = clock_ms(&clock_real) + 40;
		while (clock_ms(&clock_real) < until)
			;
		loop_timer(s->loop, 0, false, stop, s, NULL);
	}
}

static void timer__periods_missed__not_made_up_for(void **state)
{
	(void)state;
	struct scene *s = begin();
	loop_timer(s->loop, 2, true, block_then_count, s, NULL);
	run(s);
	assert_in_range(s->calls, 1, 2);
	loop_free(s->loop);
}

static void count(void *ctx)
{
	((struct scene *)ctx)->calls++;
}

static void timer__hundreds__all_once(void **state)
{
	(void)state;
	struct scene *s = begin();
	for (int i = 0; i < 300; i++)
		assert_true(loop_timer(s->loop, (unsigned)(i % 7), false, count, s, NULL) > 0);
	loop_timer(s->loop, 100, false, stop, s, NULL);
	run(s);
	assert_int_equal(s->calls, 300);
	loop_free(s->loop);
}

static void read_byte(void *ctx, int fd)
{
	struct scene *s = ctx;
	char byte;
	ssize_t got = read(fd, &byte, 1);
	s->calls++;
	if (got == 0) { /* closed at the other end */
		loop_fd_end(s->loop, fd);
		loop_stop(s->loop);
	}
}

static void fd__readable_then_closed__called_then_ended(void **state)
{
	(void)state;
	struct scene *s = begin();
	struct err err;
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(loop_fd(s->loop, fds[0], read_byte, s, &err), 0);
	assert_int_equal(loop_fd(s->loop, fds[0], read_byte, s, &err), -1); /* twice */
	assert_int_equal(loop_fd(s->loop, -1, read_byte, s, &err), -1);
	assert_int_equal(write(fds[1], "xyz", 3), 3);
	close(fds[1]);
	run(s);
	assert_int_equal(s->calls, 4);
	loop_fd_end(s->loop, fds[0]); /* again: nothing */
	close(fds[0]);
	loop_free(s->loop);
}

static void end_both(void *ctx, int fd)
{
	struct scene *s = ctx;
	(void)fd;
	s->calls++;
	loop_fd_end(s->loop, s->fd);
	loop_fd_end(s->loop, s->other);
	loop_timer(s->loop, 10, false, stop, s, NULL);
}

static void fd__ended_by_another_ready_one__not_called(void **state)
{
	(void)state;
	struct scene *s = begin();
	int a[2], b[2];
	assert_int_equal(pipe(a), 0);
	assert_int_equal(pipe(b), 0);
	s->fd = a[0];
	s->other = b[0];
	assert_int_equal(write(a[1], "x", 1) + write(b[1], "x", 1), 2);
	assert_int_equal(loop_fd(s->loop, a[0], end_both, s, NULL), 0);
	assert_int_equal(loop_fd(s->loop, b[0], end_both, s, NULL), 0);
	run(s);
	assert_int_equal(s->calls, 1);
	for (int i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
	}
	loop_free(s->loop);
}

static void note_signal(void *ctx, int signo)
{
	struct scene *s = ctx;
	s->signals[s->signal_count++] = signo;
	if (signo == SIGTERM)
		loop_stop(s->loop);
}

static void signals__callback_set__all_three_told(void **state)
{
	(void)state;
	struct scene *s = begin();
	loop_on_signal(s->loop, note_signal, s);
	kill(getpid(), SIGHUP);
	kill(getpid(), SIGINT);
	kill(getpid(), SIGTERM);
	run(s);
	int seen = 0;
	for (int i = 0; i < s->signal_count; i++)
		seen |= 1 << s->signals[i];
	assert_int_equal(seen, 1 << SIGHUP | 1 << SIGINT | 1 << SIGTERM);
	loop_free(s->loop);
}

static void signals__no_callback__term_stops_and_run_again_works(void **state)
{
	(void)state;
	struct scene *s = begin();
	kill(getpid(), SIGTERM);
	run(s);
	loop_timer(s->loop, 1, false, note_a, s, NULL);
	loop_timer(s->loop, 5, false, stop, s, NULL);
	run(s);
	assert_string_equal(s->order, "a");
	loop_stop(s->loop); /* remembered */
	run(s);
	loop_free(s->loop);
	sigset_t mask;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	assert_int_equal(sigismember(&mask, SIGTERM), 0); /* as it was before */
}

static void note_child(void *ctx, pid_t pid, int status)
{
	struct scene *s = ctx;
	s->calls++;
	s->child = pid;
	s->status = status;
	loop_stop(s->loop);
}

static void child__ends__told_with_status(void **state)
{
	(void)state;
	struct scene *s = begin();
	struct proc_id id;
	struct err err;
	const char *const argv[] = { "sh", "-c", "exit 7", NULL };
	loop_on_child(s->loop, note_child, s);
	assert_int_equal(proc_start(&id, argv, NULL, NULL, -1, 0, &err), 0);
	run(s);
	assert_int_equal(s->child, id.pid);
	assert_int_equal(WEXITSTATUS(s->status), 7);
	assert_int_equal(proc_kill(&id, 0, &err), 0); /* reaped by the loop: gone is gone */
	loop_free(s->loop);
}

static void child__reaped_by_proc__loop_silent(void **state)
{
	(void)state;
	struct scene *s = begin();
	struct proc_id id;
	struct err err;
	size_t none = 0;
	const char *const quick[] = { "true", NULL }, *const lasting[] = { "sleep", "60", NULL };
	loop_on_child(s->loop, note_child, s);
	assert_int_equal(proc_run(quick, NULL, NULL, &none, PATIENCE_MS, &err), 0);
	assert_int_equal(proc_start(&id, lasting, NULL, NULL, -1, 0, &err), 0);
	assert_int_equal(proc_kill(&id, PATIENCE_MS, &err), 0);
	loop_timer(s->loop, 20, false, stop, s, NULL);
	run(s);
	assert_int_equal(s->calls, 0);
	loop_free(s->loop);
}

static void *run_many(void *arg)
{
	const char *const argv[] = { "sh", "-c", "exit 0", NULL };
	struct scene *s = arg;
	for (int i = 0; i < 20; i++) {
		size_t none = 0;
		if (proc_run(argv, NULL, NULL, &none, PATIENCE_MS, NULL) < 0)
			__atomic_add_fetch(&s->late, 1, __ATOMIC_SEQ_CST);
	}
	pthread_kill(s->thread, SIGTERM);
	return NULL;
}

static void children__of_another_thread__left_to_it(void **state)
{
	(void)state;
	struct scene *s = begin();
	pthread_t thread;
	loop_on_child(s->loop, note_child, s);
	assert_int_equal(pthread_create(&thread, NULL, run_many, s), 0);
	run(s);
	pthread_join(thread, NULL);
	assert_int_equal(s->late, 0);
	assert_int_equal(s->calls, 0);
	loop_free(s->loop);
}

static void *stop_and_continue(void *arg)
{
	/* a stop and continue interrupts the wait of the loop's thread */
	struct scene *s = arg;
	for (int i = 0; i < 3; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			kill(getppid(), SIGSTOP);
			kill(getppid(), SIGCONT);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	pthread_kill(s->thread, SIGTERM);
	return NULL;
}

static void loop__process_stopped_and_continued__goes_on(void **state)
{
	(void)state;
	struct scene *s = begin();
	pthread_t thread;
	loop_timer(s->loop, 5, true, count_to_five, s, NULL);
	assert_int_equal(pthread_create(&thread, NULL, stop_and_continue, s), 0);
	run(s);
	pthread_join(thread, NULL);
	loop_free(s->loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timers__several__in_order_of_deadline),
		cmocka_unit_test(timer__repeats_and_ends_itself__no_more_calls),
		cmocka_unit_test(timer__ended_by_one_due_at_the_same_time__not_called),
		cmocka_unit_test(timer__periods_missed__not_made_up_for),
		cmocka_unit_test(timer__hundreds__all_once),
		cmocka_unit_test(fd__readable_then_closed__called_then_ended),
		cmocka_unit_test(fd__ended_by_another_ready_one__not_called),
		cmocka_unit_test(signals__callback_set__all_three_told),
		cmocka_unit_test(signals__no_callback__term_stops_and_run_again_works),
		cmocka_unit_test(child__ends__told_with_status),
		cmocka_unit_test(child__reaped_by_proc__loop_silent),
		cmocka_unit_test(children__of_another_thread__left_to_it),
		cmocka_unit_test(loop__process_stopped_and_continued__goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
