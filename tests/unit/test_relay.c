/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Data connections: who gets in, and whether the bytes that go through are whole. */
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "agent/leg/link.h"
#include "agent/leg/net.h"
#include "agent/leg/relay.h"
#include "common/clock.h"

#define MIGRATION 9u
#define GENERATION 2u
#define WAIT_MS 10000
#define BYTES (24u << 20)

struct party_end {
	struct tls_identity *identity;
	struct cancel *cancel;
	struct relays *relays;
	_Atomic uint64_t wire;
};

struct world {
	struct party_end s, d;
	int listen_fd;
	char endpoint[LIMIT_ID];
	/* the destination's callbacks */
	pthread_mutex_t lock;
	unsigned links, backends;
	uint64_t arrived[2];
	int far[2][2]; /* the exporters: socketpairs; [disk][1] is the test's end */
	bool refuse;
};

static int on_link(void *ctx, struct tls_conn *conn)
{
	struct world *world = ctx;
	pthread_mutex_lock(&world->lock);
	world->links++;
	pthread_mutex_unlock(&world->lock);
	struct frame_hello hello = { .migration = MIGRATION, .generation = GENERATION, .side = SIDE_DESTINATION };
	link_hello_send(conn, &hello, world->d.cancel, WAIT_MS, NULL);
	tls_close(conn);
	return 0;
}

static int on_backend(void *ctx, uint32_t disk, struct err *err)
{
	struct world *world = ctx;
	int fd = -1;
	pthread_mutex_lock(&world->lock);
	world->backends++;
	if (disk < 2 && !world->refuse) {
		fd = world->far[disk][0];
		world->far[disk][0] = -1;
	}
	pthread_mutex_unlock(&world->lock);
	return fd >= 0 ? fd : err_set(err, ERR_EXPORTER, "no such disk");
}

static void on_arrived(void *ctx, uint32_t disk, uint64_t bytes)
{
	struct world *world = ctx;
	pthread_mutex_lock(&world->lock);
	world->arrived[disk] += bytes;
	pthread_mutex_unlock(&world->lock);
}

static void open_end(struct world *world, struct party_end *side, struct disk_limit *limit)
{
	const struct relay_setup setup = { .identity = side->identity,
		                           .cancel = side->cancel,
		                           .limit = limit,
		                           .wire = &side->wire,
		                           .migration = MIGRATION,
		                           .generation = GENERATION,
		                           .ctx = world,
		                           .link = on_link,
		                           .backend = on_backend,
		                           .arrived = on_arrived };
	assert_int_equal(relays_new(&side->relays, &setup, NULL), 0);
}

static int set_up(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	struct party_end *sides[2] = { &world->s, &world->d };
	*state = world;
	pthread_mutex_init(&world->lock, NULL);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(tls_identity_new(&sides[i]->identity, NULL), 0);
		sides[i]->cancel = cancel_new(NULL);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, world->far[i]), 0);
	}
	assert_int_equal(tls_expect(world->s.identity, tls_fingerprint(world->d.identity), NULL), 0);
	assert_int_equal(tls_expect(world->d.identity, tls_fingerprint(world->s.identity), NULL), 0);
	assert_int_equal(net_listen("127.0.0.1", &world->listen_fd, world->endpoint, NULL), 0);
	open_end(world, &world->s, NULL);
	open_end(world, &world->d, NULL);
	assert_int_equal(relays_serve(world->d.relays, world->listen_fd, NULL), 0);
	return 0;
}

static int tear_down(void **state)
{
	struct world *world = *state;
	struct party_end *sides[2] = { &world->s, &world->d };
	for (unsigned i = 0; i < 2; i++) {
		cancel_fire(sides[i]->cancel);
		relays_free(sides[i]->relays);
		cancel_free(sides[i]->cancel);
		tls_identity_free(sides[i]->identity);
		for (unsigned j = 0; j < 2; j++)
			if (world->far[i][j] >= 0)
				close(world->far[i][j]);
	}
	close(world->listen_fd);
	pthread_mutex_destroy(&world->lock);
	free(world);
	return 0;
}

struct flow {
	int fd;
	uint64_t seed;
	size_t bytes;
	uint64_t digest;
	bool ok;
};

static void fill(unsigned char *part, size_t bytes, uint64_t at, uint64_t seed)
{
	for (size_t i = 0; i < bytes; i++)
		part[i] = (unsigned char)((at + i) * 2654435761u >> 7 ^ seed);
}

static void *write_all(void *arg)
{
	struct flow *flow = arg;
	unsigned char part[50000];
	XXH3_state_t *hash = XXH3_createState();
	XXH3_64bits_reset(hash);
	flow->ok = true;
	for (size_t at = 0; at < flow->bytes && flow->ok;) {
		size_t n = flow->bytes - at < sizeof(part) ? flow->bytes - at : sizeof(part);
		fill(part, n, at, flow->seed);
		XXH3_64bits_update(hash, part, n);
		for (size_t done = 0; done < n && flow->ok;) {
			ssize_t sent = send(flow->fd, part + done, n - done, MSG_NOSIGNAL);
			flow->ok = sent > 0;
			done += sent > 0 ? (size_t)sent : 0;
		}
		at += n;
	}
	flow->digest = XXH3_64bits_digest(hash);
	XXH3_freeState(hash);
	return NULL;
}

static void *read_all(void *arg)
{
	struct flow *flow = arg;
	unsigned char part[60000];
	XXH3_state_t *hash = XXH3_createState();
	XXH3_64bits_reset(hash);
	flow->ok = true;
	for (size_t at = 0; at < flow->bytes && flow->ok;) {
		size_t room = flow->bytes - at < sizeof(part) ? flow->bytes - at : sizeof(part);
		ssize_t n = recv(flow->fd, part, room, 0);
		flow->ok = n > 0;
		if (n > 0)
			XXH3_64bits_update(hash, part, (size_t)n);
		at += n > 0 ? (size_t)n : 0;
	}
	flow->digest = XXH3_64bits_digest(hash);
	XXH3_freeState(hash);
	return NULL;
}

static uint64_t arrived_of(struct world *world, unsigned disk)
{
	pthread_mutex_lock(&world->lock);
	uint64_t bytes = world->arrived[disk];
	pthread_mutex_unlock(&world->lock);
	return bytes;
}

static void relay__both_ways_at_once__bytes_are_whole_and_counted(void **state)
{
	struct world *world = *state;
	int near = -1;
	pthread_t threads[4];
	assert_int_equal(relays_dial_disk(world->s.relays, world->endpoint, 1, WAIT_MS, &near, NULL), 0);
	struct flow flows[4] = { { .fd = near, .seed = 1, .bytes = BYTES },
		                 { .fd = world->far[1][1], .seed = 1, .bytes = BYTES },
		                 { .fd = world->far[1][1], .seed = 2, .bytes = BYTES / 4 },
		                 { .fd = near, .seed = 2, .bytes = BYTES / 4 } };
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, i % 2 ? read_all : write_all, &flows[i]), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < 4; i++)
		assert_true(flows[i].ok);
	assert_int_equal(flows[0].digest, flows[1].digest);
	assert_int_equal(flows[2].digest, flows[3].digest);
	/* It is told after the write, so maybe after our read. Never assert under the lock: the threads need it to end.
	 */
	int64_t deadline_ms = clock_ms(&clock_real) + WAIT_MS;
	while (arrived_of(world, 1) < BYTES && clock_ms(&clock_real) < deadline_ms)
		sched_yield();
	assert_int_equal(arrived_of(world, 1), BYTES);
	assert_int_equal(arrived_of(world, 0), 0);
	assert_true(atomic_load(&world->s.wire) > BYTES + BYTES / 4);
	close(near);
}

static void relay__near_end_closed__what_was_written_arrives_then_the_end(void **state)
{
	struct world *world = *state;
	int near = -1;
	char text[6], byte;
	assert_int_equal(relays_dial_disk(world->s.relays, world->endpoint, 0, WAIT_MS, &near, NULL), 0);
	assert_int_equal(write(near, "last\n", 5), 5);
	close(near);
	assert_int_equal(recv(world->far[0][1], text, 5, MSG_WAITALL), 5);
	assert_memory_equal(text, "last\n", 5);
	assert_int_equal(recv(world->far[0][1], &byte, 1, 0), 0);
}

static void relay__exporter_gone__near_end_sees_the_end(void **state)
{
	struct world *world = *state;
	int near = -1;
	char byte;
	assert_int_equal(relays_dial_disk(world->s.relays, world->endpoint, 0, WAIT_MS, &near, NULL), 0);
	close(world->far[0][1]);
	world->far[0][1] = -1;
	assert_true(recv(near, &byte, 1, 0) <= 0);
	close(near);
}

static void relay__backend_refuses__near_end_sees_the_end(void **state)
{
	struct world *world = *state;
	int near = -1;
	char byte;
	pthread_mutex_lock(&world->lock);
	world->refuse = true;
	pthread_mutex_unlock(&world->lock);
	assert_int_equal(relays_dial_disk(world->s.relays, world->endpoint, 1, WAIT_MS, &near, NULL), 0);
	assert_true(recv(near, &byte, 1, 0) <= 0);
	close(near);
}

/* A disk number that there is not is out of what a hello may hold, or is refused by the backend. */
static void relay__disk_that_there_is_not__near_end_sees_the_end(void **state)
{
	struct world *world = *state;
	char byte;
	static const uint32_t disks[] = { 2, LIMIT_DISKS, 1000 };
	for (unsigned i = 0; i < 3; i++) {
		int near = -1;
		if (relays_dial_disk(world->s.relays, world->endpoint, disks[i], WAIT_MS, &near, NULL))
			continue;
		assert_true(recv(near, &byte, 1, 0) <= 0);
		close(near);
	}
}

static void relay__hung_far_end_and_cancel__all_threads_end_in_time(void **state)
{
	struct world *world = *state;
	int near = -1;
	assert_int_equal(relays_dial_disk(world->s.relays, world->endpoint, 0, WAIT_MS, &near, NULL), 0);
	/* Nobody reads at the far end: all buffers on the way fill. */
	char *much = calloc(1, 1u << 20);
	size_t stuck = 0;
	struct pollfd out = { .fd = near, .events = POLLOUT };
	while (poll(&out, 1, 300) == 1) {
		ssize_t n = send(near, much, 1u << 20, MSG_DONTWAIT | MSG_NOSIGNAL);
		stuck += n > 0 ? (size_t)n : 0;
		assert_true(stuck < 512u << 20);
	}
	free(much);
	int64_t began_ms = clock_ms(&clock_real);
	cancel_fire(world->s.cancel);
	cancel_fire(world->d.cancel);
	relays_free(world->s.relays);
	relays_free(world->d.relays);
	world->s.relays = world->d.relays = NULL;
	assert_true(clock_ms(&clock_real) - began_ms < 1000);
	close(near);
}

static void relay__limited__takes_as_long_as_it_must(void **state)
{
	struct world *world = *state;
	int near = -1;
	pthread_t threads[2];
	struct disk_limit *limit = disk_limit_new(8u << 20);
	struct party_end limited = { .identity = world->s.identity, .cancel = world->s.cancel };
	open_end(world, &limited, limit);
	int64_t began_ms = clock_ms(&clock_real);
	assert_int_equal(relays_dial_disk(limited.relays, world->endpoint, 0, WAIT_MS, &near, NULL), 0);
	struct flow flows[2] = { { .fd = near, .bytes = 4u << 20 }, { .fd = world->far[0][1], .bytes = 4u << 20 } };
	assert_int_equal(pthread_create(&threads[0], NULL, write_all, &flows[0]), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, read_all, &flows[1]), 0);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	assert_int_equal(flows[0].digest, flows[1].digest);
	assert_true(clock_ms(&clock_real) - began_ms >= 250); /* half a second, less what may burst */
	close(near);
	cancel_fire(world->s.cancel);
	relays_free(limited.relays);
	disk_limit_free(limit);
}

/* ---- who gets in ---- */
static void assert_closed_by_peer(int fd)
{
	char bytes[512];
	struct pollfd in = { .fd = fd, .events = POLLIN };
	for (;;) {
		assert_int_equal(poll(&in, 1, WAIT_MS), 1);
		ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
		if (n <= 0)
			return;
	}
}

static void assert_still_serves(struct world *world)
{
	struct tls_conn *conn = NULL;
	struct frame_hello hello;
	struct err err = { 0 };
	if (relays_dial_link(world->s.relays, world->endpoint, WAIT_MS, &conn, &err) ||
	    link_hello_read(conn, &hello, NULL, WAIT_MS, &err))
		fail_msg("%s", err.text);
	assert_int_equal(hello.migration, MIGRATION);
	tls_close(conn);
}

static void stranger__sends_garbage__is_dropped_without_effect(void **state)
{
	struct world *world = *state;
	int fd = -1;
	assert_int_equal(net_connect(world->endpoint, &fd, NULL, WAIT_MS, NULL), 0);
	assert_int_equal(send(fd, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL), 18);
	assert_closed_by_peer(fd);
	close(fd);
	assert_still_serves(world);
	assert_int_equal(world->backends, 0);
}

static void stranger__with_another_certificate__is_dropped_without_effect(void **state)
{
	struct world *world = *state;
	struct party_end other = { .cancel = world->s.cancel };
	struct tls_conn *conn = NULL;
	struct frame_hello hello;
	assert_int_equal(tls_identity_new(&other.identity, NULL), 0);
	assert_int_equal(tls_expect(other.identity, tls_fingerprint(world->d.identity), NULL), 0);
	open_end(world, &other, NULL);
	if (relays_dial_link(other.relays, world->endpoint, WAIT_MS, &conn, NULL) == 0) {
		assert_int_equal(link_hello_read(conn, &hello, NULL, WAIT_MS, NULL), -1);
		tls_close(conn);
	}
	assert_still_serves(world);
	pthread_mutex_lock(&world->lock);
	assert_int_equal(world->links, 1);
	pthread_mutex_unlock(&world->lock);
	cancel_fire(world->s.cancel);
	relays_free(other.relays);
	tls_identity_free(other.identity);
}

static void peer__of_another_migration_or_generation__is_dropped(void **state)
{
	struct world *world = *state;
	static const struct {
		uint64_t migration;
		uint32_t generation;
		enum side side;
	} wrong[] = { { MIGRATION + 1, GENERATION, SIDE_SOURCE },
		      { MIGRATION, GENERATION - 1, SIDE_SOURCE },
		      { MIGRATION, GENERATION, SIDE_DESTINATION } };
	for (unsigned i = 0; i < 3; i++) {
		struct tls_conn *conn = NULL;
		int fd = -1;
		char byte;
		struct frame_hello hello = { .migration = wrong[i].migration,
			                     .generation = wrong[i].generation,
			                     .side = wrong[i].side };
		assert_int_equal(net_connect(world->endpoint, &fd, NULL, WAIT_MS, NULL), 0);
		assert_int_equal(tls_open(&conn, world->s.identity, TLS_CLIENT, fd, NULL, WAIT_MS, NULL, NULL), 0);
		assert_int_equal(link_hello_send(conn, &hello, NULL, WAIT_MS, NULL), 0);
		assert_int_equal(tls_read(conn, &byte, 1, NULL, WAIT_MS, NULL), -1);
		tls_close(conn);
	}
	assert_int_equal(world->links, 0);
	assert_still_serves(world);
}

static void strangers__who_only_hold_connections_open__keep_nobody_out(void **state)
{
	struct world *world = *state;
	int fds[3 * RELAY_PENDING_MAX];
	unsigned count = sizeof(fds) / sizeof(fds[0]);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(net_connect(world->endpoint, &fds[i], NULL, WAIT_MS, NULL), 0);
	assert_still_serves(world);
	assert_closed_by_peer(fds[0]); /* the oldest gave way */
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(relay__both_ways_at_once__bytes_are_whole_and_counted),
		T(relay__near_end_closed__what_was_written_arrives_then_the_end),
		T(relay__exporter_gone__near_end_sees_the_end),
		T(relay__backend_refuses__near_end_sees_the_end),
		T(relay__disk_that_there_is_not__near_end_sees_the_end),
		T(relay__hung_far_end_and_cancel__all_threads_end_in_time),
		T(relay__limited__takes_as_long_as_it_must),
		T(stranger__sends_garbage__is_dropped_without_effect),
		T(stranger__with_another_certificate__is_dropped_without_effect),
		T(peer__of_another_migration_or_generation__is_dropped),
		T(strangers__who_only_hold_connections_open__keep_nobody_out),
	};
#undef T
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
