/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The QMP client against a scripted peer, good and hostile. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/disk/qmp.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n"
#define SHORT_MS 150u

/* One peer: accepts a client, says the greeting, then answers command n with script[n] ("%I": the id). "" answers
 * nothing, NULL hangs up. */
struct peer {
	char dir[64], path[96];
	int listener;
	const char *greeting;
	const char *const *script;
	size_t steps;
	bool mute_first;    /* the first client is overlooked */
	unsigned clients;   /* to serve, one after the other */
	size_t flood_bytes; /* after the script: a message without an end */
	int hold_fd;        /* the second client is served only when this says so; -1: none */
	pthread_t thread;
};

static int say(int fd, const char *text, size_t count)
{
	while (count > 0) {
		ssize_t n = send(fd, text, count, MSG_NOSIGNAL);
		if (n <= 0)
			return -1;
		text += n;
		count -= (size_t)n;
	}
	return 0;
}

static int read_id(int fd, long *ret_id)
{
	char line[4096];
	size_t n = 0;
	while (n + 1 < sizeof(line)) {
		if (recv(fd, line + n, 1, 0) != 1)
			return -1;
		if (line[n++] == '\n')
			break;
	}
	line[n] = '\0';
	const char *at = strstr(line, "\"id\":");
	*ret_id = at ? strtol(at + 5, NULL, 10) : -1;
	return 0;
}

static void flood(int fd, size_t bytes)
{
	static char junk[65536];
	memset(junk, 'x', sizeof(junk));
	say(fd, "{\"a\": \"", 7);
	while (bytes > 0) {
		if (say(fd, junk, sizeof(junk)) < 0)
			return;
		bytes = bytes > sizeof(junk) ? bytes - sizeof(junk) : 0;
	}
}

static void serve(const struct peer *peer, int fd, bool mute)
{
	long id;
	if (mute) {
		while (read_id(fd, &id) == 0)
			;
		return;
	}
	if (say(fd, peer->greeting, strlen(peer->greeting)) < 0)
		return;
	for (size_t i = 0; i < peer->steps; i++) {
		char text[1024];
		if (read_id(fd, &id) < 0 || !peer->script[i])
			return;
		const char *mark = strstr(peer->script[i], "%I");
		if (mark)
			snprintf(text, sizeof(text), "%.*s%ld%s", (int)(mark - peer->script[i]), peer->script[i], id,
			         mark + 2);
		else
			snprintf(text, sizeof(text), "%s", peer->script[i]);
		if (say(fd, text, strlen(text)) < 0)
			return;
	}
	if (peer->flood_bytes > 0)
		flood(fd, peer->flood_bytes);
	while (read_id(fd, &id) == 0) /* until the client leaves */
		;
}

static void *peer_run(void *ctx)
{
	struct peer *peer = ctx;
	for (unsigned i = 0; i < peer->clients; i++) {
		char byte;
		if (i == 1 && peer->hold_fd >= 0 && read(peer->hold_fd, &byte, 1) != 1)
			return NULL;
		int fd = accept(peer->listener, NULL, NULL);
		if (fd < 0)
			return NULL;
		serve(peer, fd, i == 0 && peer->mute_first);
		close(fd);
	}
	return NULL;
}

static void peer_start(struct peer *peer, const char *const *script, size_t steps)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	peer->script = script;
	peer->steps = steps;
	if (!peer->greeting)
		peer->greeting = GREETING;
	if (peer->clients == 0)
		peer->clients = 1;
	snprintf(peer->dir, sizeof(peer->dir), "/tmp/drover-qmp-XXXXXX");
	assert_non_null(mkdtemp(peer->dir));
	snprintf(peer->path, sizeof(peer->path), "%s/qmp", peer->dir);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", peer->path);
	peer->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(peer->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(peer->listener, 1), 0);
	assert_int_equal(pthread_create(&peer->thread, NULL, peer_run, peer), 0);
}

static void peer_end(struct peer *peer)
{
	shutdown(peer->listener, SHUT_RDWR);
	pthread_join(peer->thread, NULL);
	close(peer->listener);
	unlink(peer->path);
	rmdir(peer->dir);
}

#define OK "{\"return\": {}, \"id\": %I}\r\n"

static void run__events_and_other_answers_between__finds_its_own(void **state)
{
	static const char *const script[] = { "{\"event\": \"STOP\"}\n" OK,
		                              "{\"event\": \"X\", \"id\": 2}\n{\"return\": {\"a\": 1}, \"id\": "
		                              "77}\n{\"return\": {\"a\": 5}, \"id\": %I}\n" };
	struct peer peer = { .hold_fd = -1 };
	struct qmp *qmp = NULL;
	json_t *result = NULL;
	struct err err = { 0 };
	(void)state;
	peer_start(&peer, script, 2);
	assert_int_equal(qmp_open(&qmp, peer.path, NULL, QMP_OPEN_MS, &err), 0);
	assert_int_equal(qmp_run(qmp, "query-x", json_pack("{s:i}", "n", 1), QMP_COMMAND_MS, &result, &err), 0);
	assert_int_equal(json_integer_value(json_object_get(result, "a")), 5);
	json_decref(result);
	qmp_close(qmp);
	peer_end(&peer);
}

static void run__refused__has_the_words_of_the_backend(void **state)
{
	static const char *const script[] = {
		OK, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such node\"}, \"id\": %I}\n",
		"{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"what?\"}, \"id\": %I}\n",
		"{\"error\": {\"class\": 5, \"desc\": [1]}, \"id\": %I}\n", "{\"error\": {\"desc\": \"unreadable\"}}\n"
	};
	struct peer peer = { .hold_fd = -1 };
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	(void)state;
	peer_start(&peer, script, 5);
	assert_int_equal(qmp_open(&qmp, peer.path, NULL, QMP_OPEN_MS, &err), 0);
	assert_int_equal(qmp_run(qmp, "a", NULL, QMP_COMMAND_MS, NULL, &err), -1);
	assert_int_equal(err.code, ERR_BACKEND);
	assert_non_null(strstr(err.text, "no such node"));
	assert_int_equal(qmp_run(qmp, "stop", NULL, QMP_COMMAND_MS, NULL, &err), -1);
	assert_int_equal(err.code, ERR_UNSUPPORTED);
	assert_int_equal(qmp_run(qmp, "b", NULL, QMP_COMMAND_MS, NULL, &err), -1);
	assert_int_equal(err.code, ERR_BACKEND);
	assert_int_equal(qmp_run(qmp, "c", NULL, QMP_COMMAND_MS, NULL, &err), -1);
	assert_non_null(strstr(err.text, "unreadable"));
	qmp_close(qmp);
	peer_end(&peer);
}

/* Bytes that no QEMU would send. */
static void run__hostile_answers__are_errors(void **state)
{
	static const char *const hostile[] = { "\n",
		                               "[]\n",
		                               "5\n",
		                               "null\n",
		                               "{\n",
		                               "{\"return\": \n",
		                               "\x00\xff\xfe\n",
		                               "{\"id\": %I}\n",
		                               "\"return\"\n",
		                               "{\"return\": {}, \"id\": %I, \"x\": \"\\ud800\"}\n",
		                               "{\"error\": 7, \"id\": %I}\n" };
	(void)state;
	for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
		const char *const script[] = { OK, hostile[i] };
		struct peer peer = { .hold_fd = -1 };
		struct qmp *qmp = NULL;
		struct err err = { 0 };
		peer_start(&peer, script, 2);
		assert_int_equal(qmp_open(&qmp, peer.path, NULL, QMP_OPEN_MS, &err), 0);
		assert_int_equal(qmp_run(qmp, "a", NULL, SHORT_MS, NULL, &err), -1);
		assert_true(err.code == ERR_PROTOCOL || err.code == ERR_BACKEND || err.code == ERR_TIMEOUT);
		qmp_close(qmp);
		peer_end(&peer);
	}
}

static void run__endless_message__is_cut_off(void **state)
{
	static const char *const script[] = { OK, "" };
	struct peer peer = { .hold_fd = -1, .flood_bytes = 4 * QMP_MESSAGE_BYTES };
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	(void)state;
	peer_start(&peer, script, 2);
	assert_int_equal(qmp_open(&qmp, peer.path, NULL, QMP_OPEN_MS, &err), 0);
	assert_int_equal(qmp_run(qmp, "a", NULL, QMP_COMMAND_MS, NULL, &err), -1);
	assert_int_equal(err.code, ERR_PROTOCOL);
	qmp_close(qmp);
	peer_end(&peer);
}

static void run__no_answer__times_out(void **state)
{
	static const char *const script[] = { OK, "{\"event\": \"TICK\"}\n" };
	struct peer peer = { .hold_fd = -1 };
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	(void)state;
	peer_start(&peer, script, 2);
	assert_int_equal(qmp_open(&qmp, peer.path, NULL, QMP_OPEN_MS, &err), 0);
	int64_t begun_ms = disk_now_ms();
	assert_int_equal(qmp_run(qmp, "a", NULL, SHORT_MS, NULL, &err), -1);
	assert_int_equal(err.code, ERR_TIMEOUT);
	assert_true(disk_now_ms() - begun_ms >= SHORT_MS);
	qmp_close(qmp);
	peer_end(&peer);
}

static void run__peer_hangs_up__is_unreachable(void **state)
{
	static const char *const script[] = { OK, NULL };
	struct peer peer = { .hold_fd = -1 };
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	(void)state;
	peer_start(&peer, script, 2);
	assert_int_equal(qmp_open(&qmp, peer.path, NULL, QMP_OPEN_MS, &err), 0);
	assert_int_equal(qmp_run(qmp, "a", NULL, QMP_COMMAND_MS, NULL, &err), -1);
	assert_int_equal(err.code, ERR_UNREACHABLE);
	qmp_close(qmp);
	peer_end(&peer);
}

struct canceller {
	struct disk_cancel cancel;
	_Atomic bool waiting;
};

static void *cancel_later(void *ctx)
{
	struct canceller *c = ctx;
	while (!atomic_load(&c->waiting))
		usleep(1000);
	usleep(20000); /* so that it most likely waits by now; right either way */
	disk_cancel_set(&c->cancel);
	return NULL;
}

static void run__cancelled_by_another_thread__returns_at_once(void **state)
{
	static const char *const script[] = { OK, "" };
	struct peer peer = { .hold_fd = -1 };
	struct canceller c = { .waiting = false };
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	pthread_t thread;
	(void)state;
	assert_int_equal(disk_cancel_open(&c.cancel, &err), 0);
	peer_start(&peer, script, 2);
	assert_int_equal(qmp_open(&qmp, peer.path, &c.cancel, QMP_OPEN_MS, &err), 0);
	assert_int_equal(pthread_create(&thread, NULL, cancel_later, &c), 0);
	atomic_store(&c.waiting, true);
	int64_t begun_ms = disk_now_ms();
	assert_int_equal(qmp_run(qmp, "a", NULL, QMP_COMMAND_MS, NULL, &err), -1);
	assert_int_equal(err.code, ERR_CANCELLED);
	assert_true(disk_now_ms() - begun_ms < 220);
	pthread_join(thread, NULL);
	qmp_close(qmp);
	peer_end(&peer);
	disk_cancel_close(&c.cancel);
}

static void open__nobody_there__is_unreachable(void **state)
{
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	(void)state;
	assert_int_equal(qmp_open(&qmp, "/nonexistent/qmp", NULL, QMP_OPEN_MS, &err), -1);
	assert_int_equal(err.code, ERR_UNREACHABLE);
	assert_null(qmp);
}

static void open__not_qemu__is_a_protocol_error(void **state)
{
	struct peer peer = { .hold_fd = -1, .greeting = "{\"hello\": 1}\n" };
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	(void)state;
	peer_start(&peer, NULL, 0);
	assert_int_equal(qmp_open(&qmp, peer.path, NULL, QMP_OPEN_MS, &err), -1);
	assert_int_equal(err.code, ERR_PROTOCOL);
	peer_end(&peer);
}

static void open__overlooked_at_first__connects_again(void **state)
{
	static const char *const script[] = { OK };
	struct peer peer = { .hold_fd = -1, .clients = 2, .mute_first = true };
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	(void)state;
	peer_start(&peer, script, 1);
	assert_int_equal(qmp_open(&qmp, peer.path, NULL, QMP_OPEN_MS, &err), 0);
	qmp_close(qmp);
	peer_end(&peer);
}

struct second {
	const char *path;
	struct err err;
	int result;
};

static void *open_second(void *ctx)
{
	struct second *second = ctx;
	struct qmp *qmp = NULL;
	second->result = qmp_open(&qmp, second->path, NULL, QMP_OPEN_MS, &second->err);
	qmp_close(qmp);
	return NULL;
}

static void open__somebody_else_holds_it__waits_and_then_gets_it(void **state)
{
	static const char *const script[] = { OK };
	int hold[2];
	struct qmp *first = NULL, *late = NULL;
	struct err err = { 0 };
	pthread_t thread;
	(void)state;
	assert_int_equal(pipe(hold), 0);
	struct peer peer = { .hold_fd = hold[0], .clients = 3 };
	peer_start(&peer, script, 1);
	assert_int_equal(qmp_open(&first, peer.path, NULL, QMP_OPEN_MS, &err), 0);
	assert_int_equal(qmp_open(&late, peer.path, NULL, SHORT_MS, &err), -1);
	assert_int_equal(err.code, ERR_BUSY);
	struct second second = { .path = peer.path };
	assert_int_equal(pthread_create(&thread, NULL, open_second, &second), 0);
	qmp_close(first);
	assert_int_equal(write(hold[1], "!", 1), 1);
	pthread_join(thread, NULL);
	assert_int_equal(second.result, 0);
	peer_end(&peer);
	close(hold[0]);
	close(hold[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(run__events_and_other_answers_between__finds_its_own),
		cmocka_unit_test(run__refused__has_the_words_of_the_backend),
		cmocka_unit_test(run__hostile_answers__are_errors),
		cmocka_unit_test(run__endless_message__is_cut_off),
		cmocka_unit_test(run__no_answer__times_out),
		cmocka_unit_test(run__peer_hangs_up__is_unreachable),
		cmocka_unit_test(run__cancelled_by_another_thread__returns_at_once),
		cmocka_unit_test(open__nobody_there__is_unreachable),
		cmocka_unit_test(open__not_qemu__is_a_protocol_error),
		cmocka_unit_test(open__overlooked_at_first__connects_again),
		cmocka_unit_test(open__somebody_else_holds_it__waits_and_then_gets_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
