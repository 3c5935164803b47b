/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* drover-xen-save-helper, linked with a libxc that is not one, between a libxl and a leg that we play. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/hypervisor/xen_wire.h"

#define ANSWER_MS 10000
#define TYPES 16

struct play {
	pid_t pid;
	int to, from;       /* libxl's ends of its standard input and output */
	int stream, policy; /* the leg's ends */
	unsigned seen[TYPES];
	int suspend_answer; /* what libxl says when it is to suspend */
	bool ask_dead;      /* the leg does not answer */
	unsigned rounds;    /* after which the leg says that the VM is to be suspended; then `last` */
	enum xen_policy_next last;
	int result; /* what the helper said at its end */
	char got[256];
	size_t count;
};

static void helper_path(char *ret_path, size_t room)
{
	ssize_t bytes = readlink("/proc/self/exe", ret_path, room - 32);
	assert_true(bytes > 0);
	ret_path[bytes] = '\0';
	strcpy(strrchr(ret_path, '/') + 1, "drover-xen-save-helper");
}

static void become(int in, int out, int stream, int policy, const char *callbacks)
{
	char path[512], stream_text[16], policy_text[16];
	helper_path(path, sizeof(path));
	snprintf(stream_text, sizeof(stream_text), "%d", stream);
	snprintf(policy_text, sizeof(policy_text), "%d", policy);
	setenv(XEN_POLICY_ENV, policy_text, 1);
	dup2(in, 0);
	dup2(out, 1);
	signal(SIGPIPE, SIG_DFL); /* as libxl leaves it */
	execl(path, path, "--save-domain", stream_text, "-1", "7", "1", callbacks, "0", (char *)NULL);
	_exit(99);
}

static void start(struct play *play, const char *callbacks)
{
	int in[2], out[2], stream[2], policy[2];
	*play = (struct play) { .suspend_answer = 1, .last = XEN_POLICY_SUSPEND, .result = 12345 };
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, stream), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, policy), 0);
	play->pid = fork();
	assert_true(play->pid >= 0);
	if (play->pid == 0) {
		close(in[1]);
		close(out[0]);
		close(stream[0]);
		close(policy[0]);
		become(in[0], out[1], stream[1], policy[1], callbacks);
	}
	close(in[0]);
	close(out[1]);
	close(stream[1]);
	close(policy[1]);
	play->to = in[1];
	play->from = out[0];
	play->stream = stream[0];
	play->policy = policy[0];
}

static int end(struct play *play)
{
	int status = 0;
	int fds[] = { play->to, play->from, play->stream, play->policy };
	for (unsigned i = 0; i < 4; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	assert_int_equal(waitpid(play->pid, &status, 0), play->pid);
	return status;
}

/* One message of the helper to libxl, and its answer. False: it has ended. */
static bool serve_libxl(struct play *play)
{
	unsigned char message[XEN_WIRE_MESSAGE_BYTES];
	uint16_t bytes, type;
	int answer = 0;
	if (read(play->from, &bytes, sizeof(bytes)) != sizeof(bytes))
		return false;
	assert_true(bytes >= 2 && bytes <= sizeof(message));
	assert_int_equal(read(play->from, message, bytes), bytes);
	memcpy(&type, message, sizeof(type));
	assert_true(type < TYPES);
	play->seen[type]++;
	if (type == XEN_WIRE_LOG)
		return true;
	if (type == XEN_WIRE_SUSPEND)
		answer = play->suspend_answer;
	if (type == XEN_WIRE_COMPLETE)
		memcpy(&play->result, message + 2, sizeof(play->result));
	assert_int_equal(write(play->to, &answer, sizeof(answer)), sizeof(answer));
	return true;
}

static void serve_policy(struct play *play)
{
	struct xen_policy_packet packet;
	if (xen_policy_receive(play->policy, &packet) != 0) {
		close(play->policy);
		play->policy = -1;
		return;
	}
	if (packet.kind == XEN_POLICY_HELLO) {
		assert_int_equal(packet.pid, play->pid);
		return;
	}
	assert_int_equal(packet.kind, XEN_POLICY_ROUND);
	if (play->ask_dead) {
		close(play->policy);
		play->policy = -1;
		return;
	}
	packet.kind = XEN_POLICY_NEXT;
	packet.next = packet.round < play->rounds ? XEN_POLICY_GO_ON : play->last;
	assert_int_equal(xen_policy_send(play->policy, &packet), 0);
}

static void take_stream(struct play *play)
{
	ssize_t got = read(play->stream, play->got + play->count, sizeof(play->got) - play->count);
	if (got > 0) {
		play->count += (size_t)got;
	} else {
		close(play->stream);
		play->stream = -1;
	}
}

/* All three talk until the helper has ended. */
static void run(struct play *play)
{
	for (bool alive = true; alive;) {
		struct pollfd fds[] = { { play->from, POLLIN, 0 },
			                { play->stream, POLLIN, 0 },
			                { play->policy, POLLIN, 0 } };
		int n = poll(fds, 3, ANSWER_MS);
		assert_true(n > 0 || (n < 0 && errno == EINTR));
		if (fds[1].revents)
			take_stream(play);
		if (fds[2].revents)
			serve_policy(play);
		if (fds[0].revents)
			alive = serve_libxl(play);
	}
}

static void helper__leg_lets_it_end__vm_is_suspended_once_and_all_is_sent(void **state)
{
	struct play play;
	(void)state;
	start(&play, "136");
	play.rounds = 2;
	run(&play);
	assert_int_equal(play.seen[XEN_WIRE_SUSPEND], 1);
	assert_int_equal(play.seen[XEN_WIRE_LOG_DIRTY], 2);
	assert_int_equal(play.seen[XEN_WIRE_COMPLETE], 1);
	assert_int_equal(play.result, 0);
	assert_int_equal(play.count, 3 * 7 + 4 + 8);
	assert_memory_equal(play.got, "round0 round1 round2 last", 25);
	assert_int_equal(end(&play), 0);
}

static void helper__leg_says_abort__vm_is_never_suspended_and_the_log_is_off(void **state)
{
	struct play play;
	(void)state;
	start(&play, "136");
	play.rounds = 1;
	play.last = XEN_POLICY_ABORT;
	run(&play);
	assert_int_equal(play.seen[XEN_WIRE_SUSPEND], 0);
	assert_int_equal(play.seen[XEN_WIRE_LOG_DIRTY], 2);
	assert_int_equal(play.result, -1);
	assert_int_equal(end(&play), 0);
}

static void helper__leg_dies_when_asked__same_as_abort(void **state)
{
	struct play play;
	(void)state;
	start(&play, "136");
	play.ask_dead = true;
	run(&play);
	assert_int_equal(play.seen[XEN_WIRE_SUSPEND], 0);
	assert_int_equal(play.seen[XEN_WIRE_LOG_DIRTY], 2);
	assert_int_equal(play.result, -1);
	assert_int_equal(end(&play), 0);
}

/* The stream broke: an error, after which it tidies up; no signal kills it. */
static void helper__stream_broken__log_is_off_all_the_same(void **state)
{
	struct play play;
	(void)state;
	start(&play, "136");
	play.rounds = 100;
	close(play.stream);
	play.stream = -1;
	run(&play);
	assert_int_equal(play.seen[XEN_WIRE_LOG_DIRTY], 2);
	assert_int_equal(play.result, -1);
	assert_true(WIFEXITED(end(&play)));
}

static void helper__told_to_end__log_is_off_all_the_same(void **state)
{
	struct play play;
	(void)state;
	start(&play, "136");
	play.rounds = 1u << 30;
	while (play.count == 0) { /* it is at work */
		struct pollfd fds[] = { { play.from, POLLIN, 0 }, { play.stream, POLLIN, 0 } };
		assert_true(poll(fds, 2, ANSWER_MS) > 0);
		if (fds[0].revents)
			assert_true(serve_libxl(&play));
		if (fds[1].revents)
			take_stream(&play);
	}
	play.count = 0;
	assert_int_equal(kill(play.pid, SIGTERM), 0);
	for (bool alive = true; alive; play.count = 0) {
		struct pollfd fds[] = { { play.from, POLLIN, 0 },
			                { play.stream, POLLIN, 0 },
			                { play.policy, POLLIN, 0 } };
		assert_true(poll(fds, 3, ANSWER_MS) > 0);
		if (fds[1].revents)
			take_stream(&play);
		if (fds[2].revents)
			serve_policy(&play);
		if (fds[0].revents)
			alive = serve_libxl(&play);
	}
	assert_int_equal(play.seen[XEN_WIRE_LOG_DIRTY], 2);
	assert_int_equal(play.result, -1);
	assert_int_equal(end(&play), 0);
}

static void helper__guest_does_not_suspend__fails(void **state)
{
	struct play play;
	(void)state;
	start(&play, "136");
	play.suspend_answer = 0;
	run(&play);
	assert_int_equal(play.result, -1);
	assert_int_equal(play.seen[XEN_WIRE_LOG_DIRTY], 2);
	assert_int_equal(play.count, 7);
	assert_int_equal(end(&play), 0);
}

static void helper__libxl_dies__ends_by_itself(void **state)
{
	struct play play;
	(void)state;
	start(&play, "136");
	play.rounds = 100;
	close(play.to);
	close(play.from);
	play.to = play.from = -1;
	int status = 0;
	assert_int_equal(waitpid(play.pid, &status, 0), play.pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE);
	close(play.stream);
	close(play.policy);
}

static void helper__protocol_has_changed__vm_is_not_touched(void **state)
{
	struct play play;
	(void)state;
	start(&play, "2184");
	run(&play);
	assert_int_equal(play.count, 0);
	for (unsigned i = 0; i < TYPES; i++)
		assert_int_equal(play.seen[i], 0);
	int status = end(&play);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 8);
}

static void helper__no_xen__says_so(void **state)
{
	struct play play;
	(void)state;
	setenv("FAKE_XC_NONE", "1", 1);
	start(&play, "136");
	unsetenv("FAKE_XC_NONE");
	run(&play);
	assert_int_equal(play.seen[XEN_WIRE_COMPLETE], 1);
	assert_int_equal(play.result, -1);
	assert_int_equal(end(&play), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(helper__leg_lets_it_end__vm_is_suspended_once_and_all_is_sent),
		cmocka_unit_test(helper__leg_says_abort__vm_is_never_suspended_and_the_log_is_off),
		cmocka_unit_test(helper__leg_dies_when_asked__same_as_abort),
		cmocka_unit_test(helper__stream_broken__log_is_off_all_the_same),
		cmocka_unit_test(helper__told_to_end__log_is_off_all_the_same),
		cmocka_unit_test(helper__guest_does_not_suspend__fails),
		cmocka_unit_test(helper__libxl_dies__ends_by_itself),
		cmocka_unit_test(helper__protocol_has_changed__vm_is_not_touched),
		cmocka_unit_test(helper__no_xen__says_so),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
