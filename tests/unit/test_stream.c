/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stream 0: frames as bytes, the link as threads; and the ring, the queue and the cancel switch that a leg is made of.
 */
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
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/sockios.h>

#include "agent/leg/cancel.h"
#include "agent/leg/frame.h"
#include "agent/leg/link.h"
#include "agent/leg/queue.h"
#include "agent/leg/ring.h"
#include "common/clock.h"

#define WAIT_MS 10000

/* ---- frames ---- */
static void frame__as_it_was_sent__is_taken(void **state)
{
	unsigned char header[FRAME_HEADER_BYTES];
	struct frame_header read;
	(void)state;
	frame_header_put(header, FRAME_DIGESTS, 41, "abc", 3);
	assert_int_equal(frame_header_get(header, 41, &read, NULL), 0);
	assert_int_equal(read.type, FRAME_DIGESTS);
	assert_int_equal(read.bytes, 3);
	assert_int_equal(frame_payload_check(&read, "abc", NULL), 0);
}

/* Changes one thing in a good header; says what became of it. */
static enum err_code spoilt(size_t offset, unsigned char value, uint64_t expected)
{
	unsigned char header[FRAME_HEADER_BYTES];
	struct frame_header read;
	struct err err = { 0 };
	frame_header_put(header, FRAME_FACTS, 5, "abc", 3);
	header[offset] = value;
	if (frame_header_get(header, expected, &read, &err) == 0)
		frame_payload_check(&read, "abc", &err);
	return err.code;
}

static void frame__header_spoilt__refused(void **state)
{
	(void)state;
	assert_int_equal(spoilt(0, 'D', 5), ERR_NONE);
	assert_int_equal(spoilt(0, 'X', 5), ERR_PROTOCOL); /* magic */
	assert_int_equal(spoilt(4, 2, 5), ERR_VERSION);
	assert_int_equal(spoilt(6, 0, 5), ERR_PROTOCOL); /* type 0 */
	assert_int_equal(spoilt(6, FRAME_TYPES, 5), ERR_PROTOCOL);
	assert_int_equal(spoilt(7, 1, 5), ERR_PROTOCOL);  /* type 256 and more */
	assert_int_equal(spoilt(11, 1, 5), ERR_PROTOCOL); /* 16 MiB long */
	assert_int_equal(spoilt(12, 1, 5), ERR_PROTOCOL); /* reserved */
	assert_int_equal(spoilt(16, 6, 5), ERR_PROTOCOL); /* number */
	assert_int_equal(spoilt(16, 5, 4), ERR_PROTOCOL); /* one was left out */
	assert_int_equal(spoilt(16, 5, 6), ERR_PROTOCOL); /* one came twice */
}

static void frame__payload_changed__corrupt(void **state)
{
	unsigned char header[FRAME_HEADER_BYTES];
	struct frame_header read;
	struct err err = { 0 };
	(void)state;
	frame_header_put(header, FRAME_MEMORY, 0, "abc", 3);
	assert_int_equal(frame_header_get(header, 0, &read, NULL), 0);
	assert_int_equal(frame_payload_check(&read, "abd", &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
}

static struct frame_hello sample_hello(void)
{
	struct frame_hello hello = {
		.migration = 1ull << 40, .generation = 3, .side = SIDE_DESTINATION, .disk_count = 2
	};
	hello.disks[0] = (struct exporter_access) { .kind = EXPORTER_NBD, .size_bytes = 1 << 20, .export_name = "x-1" };
	hello.disks[1] = (struct exporter_access) { .kind = EXPORTER_ISCSI,
		                                    .size_bytes = 1ull << 41,
		                                    .lun = 1,
		                                    .export_name = "iqn.2026-11.org.example:7.xvdb",
		                                    .user = "u",
		                                    .secret = "secret12secret" };
	return hello;
}

static void hello__there_and_back__is_the_same(void **state)
{
	unsigned char payload[8192];
	struct frame_hello hello = sample_hello(), read;
	(void)state;
	uint32_t bytes = frame_hello_put(payload, &hello);
	assert_int_equal(frame_hello_get(payload, bytes, &read, NULL), 0);
	assert_int_equal(read.migration, hello.migration);
	assert_int_equal(read.generation, 3);
	assert_int_equal(read.side, SIDE_DESTINATION);
	assert_int_equal(read.disk_count, 2);
	assert_int_equal(read.disks[1].lun, 1);
	assert_int_equal(read.disks[1].size_bytes, 1ull << 41);
	assert_string_equal(read.disks[0].export_name, "x-1");
	assert_string_equal(read.disks[1].secret, "secret12secret");
}

static void hello__cut_or_too_long__refused(void **state)
{
	unsigned char payload[8192] = { 0 };
	struct frame_hello hello = sample_hello(), read;
	struct err err = { 0 };
	(void)state;
	uint32_t bytes = frame_hello_put(payload, &hello);
	for (uint32_t cut = 0; cut < bytes; cut++)
		assert_int_equal(frame_hello_get(payload, cut, &read, &err), -1);
	assert_int_equal(frame_hello_get(payload, bytes + 1, &read, &err), -1);
	assert_int_equal(err.code, ERR_PROTOCOL);
}

static void hello__values_out_of_range__refused(void **state)
{
	unsigned char payload[8192];
	struct frame_hello hello = sample_hello(), read;
	(void)state;
	uint32_t bytes = frame_hello_put(payload, &hello);
	static const struct {
		size_t offset;
		unsigned char value;
	} bad[] = {
		{ 12, 0 }, /* side */
		{ 12, 3 },
		{ 13, LIMIT_DISKS + 1 }, /* stream */
		{ 17, LIMIT_DISKS + 1 }, /* disks */
		{ 17, 1 },               /* fewer than there are: bytes left over */
		{ 21, 0 },               /* kind of exporter */
		{ 21, 9 },
		{ 35, 0xff }, /* longer than a name may be */
		{ 36, '\n' }, /* no control characters, no blanks */
		{ 36, ' ' },
		{ 36, 0 },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		unsigned char copy[8192];
		memcpy(copy, payload, bytes);
		copy[bad[i].offset] = bad[i].value;
		assert_int_equal(frame_hello_get(copy, bytes, &read, NULL), -1);
	}
}

static void digests__there_and_back__and_bounded(void **state)
{
	static unsigned char payload[FRAME_PAYLOAD_MAX];
	static uint32_t granules[FRAME_DIGESTS_MAX], read_granules[FRAME_DIGESTS_MAX];
	static uint64_t values[FRAME_DIGESTS_MAX], read_values[FRAME_DIGESTS_MAX];
	(void)state;
	for (uint32_t i = 0; i < FRAME_DIGESTS_MAX; i++) {
		granules[i] = i * 3;
		values[i] = i * 0x9e3779b97f4a7c15ull;
	}
	struct frame_digests out = { 1, 2, FRAME_DIGESTS_MAX, granules, values };
	struct frame_digests in = { .granules = read_granules, .digests = read_values };
	uint32_t bytes = frame_digests_put(payload, &out);
	assert_true(bytes <= FRAME_PAYLOAD_MAX);
	assert_int_equal(frame_digests_get(payload, bytes, &in, NULL), 0);
	assert_int_equal(in.count, FRAME_DIGESTS_MAX);
	assert_memory_equal(granules, read_granules, sizeof(granules));
	assert_memory_equal(values, read_values, sizeof(values));
	assert_int_equal(frame_digests_get(payload, bytes - 1, &in, NULL), -1);
	payload[10] = 1; /* count + 65536 */
	assert_int_equal(frame_digests_get(payload, bytes, &in, NULL), -1);
}

static void facts_and_end__there_and_back__and_checked(void **state)
{
	unsigned char payload[64];
	struct verdict_facts facts = { .vote = { VOTE_NONE, VOTE_COMMIT, VOTE_ABORT },
		                       .suspended = true,
		                       .running = true };
	struct verdict_facts read;
	(void)state;
	uint32_t bytes = frame_facts_put(payload, &facts);
	assert_int_equal(frame_facts_get(payload, bytes, &read, NULL), 0);
	assert_int_equal(read.vote[PARTY_SOURCE], VOTE_COMMIT);
	assert_int_equal(read.vote[PARTY_DESTINATION], VOTE_ABORT);
	assert_true(read.suspended && read.running);
	assert_false(read.stream_ended || read.resumed || read.released || read.activating || read.renounced);
	assert_int_equal(frame_facts_get(payload, bytes - 1, &read, NULL), -1);
	payload[0] = 3; /* no such vote */
	assert_int_equal(frame_facts_get(payload, bytes, &read, NULL), -1);
	payload[0] = 0;
	payload[3] = 2; /* neither true nor false */
	assert_int_equal(frame_facts_get(payload, bytes, &read, NULL), -1);
	struct frame_end end = { .memory_bytes = 1ull << 33, .disk_count = 2, .facts = { .stream_ended = true } },
			 end_read;
	bytes = frame_end_put(payload, &end);
	assert_int_equal(frame_end_get(payload, bytes, &end_read, NULL), 0);
	assert_int_equal(end_read.memory_bytes, 1ull << 33);
	assert_true(end_read.facts.stream_ended);
	assert_int_equal(frame_end_get(payload, bytes + 1, &end_read, NULL), -1);
}

static void error__of_a_peer__is_made_printable_and_bounded(void **state)
{
	unsigned char payload[LIMIT_TEXT + 64];
	struct err cause = { .code = ERR_NO_SPACE, .text = "disk\x1b[31m full\n" }, read;
	(void)state;
	uint32_t bytes = frame_error_put(payload, &cause);
	assert_int_equal(frame_error_get(payload, bytes, &read, NULL), 0);
	assert_int_equal(read.code, ERR_NO_SPACE);
	assert_string_equal(read.text, "disk?[31m full?");
	payload[0] = ERR_CODES;
	assert_int_equal(frame_error_get(payload, bytes, &read, NULL), -1);
	payload[0] = ERR_NONE;
	assert_int_equal(frame_error_get(payload, bytes, &read, NULL), -1);
	payload[0] = ERR_IO;
	payload[5] = 0xff; /* longer than it is, and than is allowed */
	assert_int_equal(frame_error_get(payload, bytes, &read, NULL), -1);
}

/* ---- link ---- */
struct end {
	struct tls_identity *identity;
	int fd;
	struct tls_conn *conn;
	struct link *link;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned frames[FRAME_TYPES];
	uint64_t memory_bytes;
	bool order_ok, down;
	unsigned char next_byte;
	struct err cause;
};

struct link_pair {
	struct end a, b;
};

static int on_frame(void *ctx, enum frame_type type, const unsigned char *payload, uint32_t bytes, struct err *err)
{
	struct end *end = ctx;
	pthread_mutex_lock(&end->lock);
	end->frames[type]++;
	if (type == FRAME_MEMORY) {
		end->memory_bytes += bytes;
		end->order_ok &= bytes == 0 || payload[0] == end->next_byte;
		end->next_byte++;
	}
	pthread_cond_broadcast(&end->changed);
	pthread_mutex_unlock(&end->lock);
	return type == FRAME_PASS_END ? err_set(err, ERR_PROTOCOL, "not that one") : 0;
}

static void on_down(void *ctx, const struct err *cause)
{
	struct end *end = ctx;
	pthread_mutex_lock(&end->lock);
	end->down = true;
	end->cause = *cause;
	pthread_cond_broadcast(&end->changed);
	pthread_mutex_unlock(&end->lock);
}

static void *serve(void *arg)
{
	struct end *end = arg;
	tls_open(&end->conn, end->identity, TLS_SERVER, end->fd, NULL, WAIT_MS, NULL, NULL);
	return NULL;
}

static void end_init(struct end *end)
{
	memset(end, 0, sizeof(*end));
	pthread_mutex_init(&end->lock, NULL);
	pthread_cond_init(&end->changed, NULL);
	end->order_ok = true;
	assert_int_equal(tls_identity_new(&end->identity, NULL), 0);
}

static void connect_pair(struct link_pair *pair)
{
	int fds[2];
	pthread_t thread;
	end_init(&pair->a);
	end_init(&pair->b);
	assert_int_equal(tls_expect(pair->a.identity, tls_fingerprint(pair->b.identity), NULL), 0);
	assert_int_equal(tls_expect(pair->b.identity, tls_fingerprint(pair->a.identity), NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	pair->b.fd = fds[1];
	assert_int_equal(pthread_create(&thread, NULL, serve, &pair->b), 0);
	assert_int_equal(tls_open(&pair->a.conn, pair->a.identity, TLS_CLIENT, fds[0], NULL, WAIT_MS, NULL, NULL), 0);
	pthread_join(thread, NULL);
	assert_non_null(pair->b.conn);
}

static void start_end(struct end *end)
{
	const struct link_handlers handlers = { end, on_frame, on_down };
	assert_int_equal(link_start(&end->link, end->conn, &handlers, NULL), 0);
}

static void link_both(struct link_pair *pair)
{
	connect_pair(pair);
	start_end(&pair->a);
	start_end(&pair->b);
}

static void unlink_both(struct link_pair *pair)
{
	struct end *ends[2] = { &pair->a, &pair->b };
	for (unsigned i = 0; i < 2; i++) {
		link_stop(ends[i]->link);
		tls_identity_free(ends[i]->identity);
		pthread_mutex_destroy(&ends[i]->lock);
		pthread_cond_destroy(&ends[i]->changed);
	}
}

static void await_frames(struct end *end, enum frame_type type, unsigned count)
{
	pthread_mutex_lock(&end->lock);
	while (end->frames[type] < count && !end->down)
		pthread_cond_wait(&end->changed, &end->lock);
	unsigned have = end->frames[type];
	pthread_mutex_unlock(&end->lock);
	assert_true(have >= count);
}

static void await_down(struct end *end)
{
	pthread_mutex_lock(&end->lock);
	while (!end->down)
		pthread_cond_wait(&end->changed, &end->lock);
	pthread_mutex_unlock(&end->lock);
}

static void link__posted_beside_a_busy_sender__all_come_in_order(void **state)
{
	struct link_pair pair;
	(void)state;
	link_both(&pair);
	unsigned char *memory = calloc(1, FRAME_MEMORY_BYTES);
	for (unsigned i = 0; i < 64; i++) {
		memory[0] = (unsigned char)i;
		assert_int_equal(link_send(pair.a.link, FRAME_MEMORY, memory, FRAME_MEMORY_BYTES, NULL, NULL), 0);
		if (i % 8 == 0)
			link_post(pair.a.link, FRAME_FACTS, "x", 1);
	}
	link_post(pair.b.link, FRAME_FACTS, "y", 1);
	await_frames(&pair.b, FRAME_MEMORY, 64);
	await_frames(&pair.b, FRAME_FACTS, 8);
	await_frames(&pair.a, FRAME_FACTS, 1);
	assert_true(pair.b.order_ok);
	assert_int_equal(pair.b.memory_bytes, 64 * FRAME_MEMORY_BYTES);
	free(memory);
	unlink_both(&pair);
}

static void link__stopped__posted_frames_still_go_and_the_peer_hears_of_the_end(void **state)
{
	struct link_pair pair;
	(void)state;
	link_both(&pair);
	for (unsigned i = 0; i < 5; i++)
		link_post(pair.a.link, FRAME_ERROR, "x", 1);
	link_stop(pair.a.link);
	pair.a.link = NULL;
	assert_true(pair.a.down);
	await_down(&pair.b);
	assert_int_equal(pair.b.frames[FRAME_ERROR], 5);
	assert_int_equal(pair.b.cause.code, ERR_PEER_LOST);
	unlink_both(&pair);
}

static void link__a_frame_the_handler_refuses__goes_down_with_that_cause(void **state)
{
	struct link_pair pair;
	(void)state;
	link_both(&pair);
	link_post(pair.a.link, FRAME_PASS_END, "x", 1);
	await_down(&pair.b);
	assert_int_equal(pair.b.cause.code, ERR_PROTOCOL);
	assert_string_equal(pair.b.cause.text, "not that one");
	unlink_both(&pair);
}

static void link__bytes_that_are_no_frame__go_down(void **state)
{
	struct link_pair pair;
	char garbage[FRAME_HEADER_BYTES];
	(void)state;
	connect_pair(&pair);
	start_end(&pair.b);
	memset(garbage, 'g', sizeof(garbage));
	assert_int_equal(tls_write(pair.a.conn, garbage, sizeof(garbage), NULL, WAIT_MS, NULL), 0);
	await_down(&pair.b);
	assert_int_equal(pair.b.cause.code, ERR_PROTOCOL);
	tls_close(pair.a.conn);
	unlink_both(&pair);
}

static void link__sender_blocked_and_cancelled__returns_at_once(void **state)
{
	struct link_pair pair;
	struct err err = { 0 };
	(void)state;
	connect_pair(&pair); /* b reads nothing */
	start_end(&pair.a);
	struct cancel *cancel = cancel_new(NULL);
	cancel_fire(cancel);
	assert_int_equal(link_send(pair.a.link, FRAME_MEMORY, "x", 1, cancel, &err), -1);
	assert_int_equal(err.code, ERR_CANCELLED);
	cancel_free(cancel);
	int64_t began_ms = clock_ms(&clock_real);
	link_stop(pair.a.link);
	pair.a.link = NULL;
	assert_true(clock_ms(&clock_real) - began_ms < 1000);
	tls_close(pair.b.conn);
	unlink_both(&pair);
}

struct sending {
	struct link *link;
	struct cancel *cancel;
	atomic_bool over;
};

static void *send_memory(void *arg)
{
	static unsigned char memory[FRAME_MEMORY_BYTES];
	struct sending *sending = arg;
	link_send(sending->link, FRAME_MEMORY, memory, sizeof(memory), sending->cancel, NULL);
	atomic_store(&sending->over, true);
	return NULL;
}

/* Each sender has a switch of its own: who waits behind one that the peer holds up is not held up by it. */
static void link__cancelled_behind_a_blocked_sender__returns_before_that_one(void **state)
{
	struct link_pair pair;
	struct cancel *fired = cancel_new(NULL);
	struct err err = { 0 };
	pthread_t thread;
	int on_its_way = 0;
	(void)state;
	connect_pair(&pair); /* b reads nothing */
	start_end(&pair.a);
	struct sending first = { .link = pair.a.link, .cancel = cancel_new(NULL) };
	assert_int_equal(pthread_create(&thread, NULL, send_memory, &first), 0);
	while (on_its_way == 0) { /* more than a ping: the frame that does not fit has begun */
		assert_int_equal(ioctl(tls_fd(pair.a.conn), SIOCOUTQ, &on_its_way), 0);
		on_its_way = on_its_way > 16384 ? on_its_way : 0;
		sched_yield();
	}
	cancel_fire(fired);
	assert_int_equal(link_send(pair.a.link, FRAME_MEMORY, "x", 1, fired, &err), -1);
	assert_int_equal(err.code, ERR_CANCELLED);
	assert_false(atomic_load(&first.over));
	cancel_fire(first.cancel);
	pthread_join(thread, NULL);
	cancel_free(first.cancel);
	cancel_free(fired);
	link_stop(pair.a.link);
	pair.a.link = NULL;
	tls_close(pair.b.conn);
	unlink_both(&pair);
}

static void link__hello_of_another_kind__refused(void **state)
{
	struct link_pair pair;
	struct frame_hello hello = sample_hello(), read;
	unsigned char header[FRAME_HEADER_BYTES];
	struct err err = { 0 };
	(void)state;
	connect_pair(&pair);
	assert_int_equal(link_hello_send(pair.a.conn, &hello, NULL, WAIT_MS, NULL), 0);
	assert_int_equal(link_hello_read(pair.b.conn, &read, NULL, WAIT_MS, NULL), 0);
	assert_int_equal(read.migration, hello.migration);
	frame_header_put(header, FRAME_PING, 0, NULL, 0);
	assert_int_equal(tls_write(pair.a.conn, header, sizeof(header), NULL, WAIT_MS, NULL), 0);
	assert_int_equal(link_hello_read(pair.b.conn, &read, NULL, WAIT_MS, &err), -1);
	assert_int_equal(err.code, ERR_PROTOCOL);
	tls_close(pair.a.conn);
	tls_close(pair.b.conn);
	unlink_both(&pair);
}

/* ---- ring ---- */
struct pump {
	struct ring *ring;
	int rc;
	struct err err;
};

#define RING_TOTAL 300000u

static void *pump_in(void *arg)
{
	struct pump *pump = arg;
	unsigned char part[777];
	for (unsigned at = 0; at < RING_TOTAL && !pump->rc; at += sizeof(part)) {
		for (unsigned i = 0; i < sizeof(part); i++)
			part[i] = (unsigned char)((at + i) % 251);
		unsigned n = RING_TOTAL - at < sizeof(part) ? RING_TOTAL - at : (unsigned)sizeof(part);
		pump->rc = ring_write(pump->ring, part, n, &pump->err);
	}
	if (!pump->rc)
		ring_end(pump->ring);
	return NULL;
}

static void ring__smaller_than_what_goes_through__bytes_are_whole_then_it_ends(void **state)
{
	pthread_t thread;
	struct pump pump = { .ring = ring_new(1000, NULL) };
	struct err err = { 0 };
	unsigned char part[1000];
	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, pump_in, &pump), 0);
	for (unsigned at = 0; at < RING_TOTAL; at += sizeof(part)) {
		assert_int_equal(ring_read(pump.ring, part, sizeof(part), NULL), 0);
		for (unsigned i = 0; i < sizeof(part); i++)
			assert_int_equal(part[i], (at + i) % 251);
	}
	assert_int_equal(ring_read(pump.ring, part, 1, &err), -1);
	assert_int_equal(err.code, ERR_PEER_LOST);
	pthread_join(thread, NULL);
	assert_int_equal(pump.rc, 0);
	ring_free(pump.ring);
}

static void ring__broken_while_full__the_writer_is_freed(void **state)
{
	pthread_t thread;
	struct pump pump = { .ring = ring_new(1000, NULL) };
	char byte;
	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, pump_in, &pump), 0);
	assert_int_equal(ring_read(pump.ring, &byte, 1, NULL), 0);
	ring_break(pump.ring);
	pthread_join(thread, NULL);
	assert_int_equal(pump.rc, -1);
	assert_int_equal(pump.err.code, ERR_CANCELLED);
	assert_int_equal(ring_read(pump.ring, &byte, 1, NULL), -1);
	ring_free(pump.ring);
}

/* ---- cancel ---- */
static void count_up(void *ctx)
{
	(*(unsigned *)ctx)++;
}

static void cancel__fired__calls_each_once_and_latecomers_at_once(void **state)
{
	unsigned early = 0, removed = 0, late = 0;
	struct err err = { 0 };
	(void)state;
	struct cancel *cancel = cancel_new(NULL);
	assert_int_equal(cancel_poll(cancel, -1, 0, 0, NULL), 0);
	assert_int_equal(cancel_add(cancel, count_up, &early, NULL), 0);
	assert_int_equal(cancel_add(cancel, count_up, &removed, NULL), 0);
	cancel_remove(cancel, count_up, &removed);
	cancel_fire(cancel);
	cancel_fire(cancel);
	assert_int_equal(cancel_add(cancel, count_up, &late, NULL), 0);
	assert_int_equal(early, 1);
	assert_int_equal(removed, 0);
	assert_int_equal(late, 1);
	assert_int_equal(cancel_poll(cancel, -1, 0, -1, &err), -1);
	assert_int_equal(err.code, ERR_CANCELLED);
	cancel_free(cancel);
}

/* ---- queue ---- */
struct work {
	struct queue *queue;
	int result;
	struct err err;
	unsigned *order;
};

static void append(struct leg *leg, void *arg)
{
	(void)leg;
	unsigned *order = *(unsigned **)arg;
	*order = *order * 10 + 1;
}

static int answer(struct leg *leg, void *arg, struct err *err)
{
	(void)leg;
	unsigned *order = arg;
	*order = *order * 10 + 2;
	err_set(err, ERR_BUSY, "no");
	return -7;
}

static void *caller(void *arg)
{
	struct work *work = arg;
	unsigned **box = malloc(sizeof(struct work *));
	*box = work->order;
	queue_post(work->queue, append, box);
	work->result = queue_call(work->queue, answer, work->order, &work->err);
	return NULL;
}

static void queue__post_then_call__run_in_order_and_the_caller_gets_the_result(void **state)
{
	pthread_t thread;
	unsigned order = 0;
	struct work work = { .queue = queue_new(NULL), .order = &order };
	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, caller, &work), 0);
	while (order != 12) {
		assert_int_equal(cancel_poll(NULL, queue_fd(work.queue), 1 /* POLLIN */, WAIT_MS, NULL), 1);
		queue_run(work.queue, NULL);
	}
	pthread_join(thread, NULL);
	assert_int_equal(work.result, -7);
	assert_int_equal(work.err.code, ERR_BUSY);
	queue_free(work.queue);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frame__as_it_was_sent__is_taken),
		cmocka_unit_test(frame__header_spoilt__refused),
		cmocka_unit_test(frame__payload_changed__corrupt),
		cmocka_unit_test(hello__there_and_back__is_the_same),
		cmocka_unit_test(hello__cut_or_too_long__refused),
		cmocka_unit_test(hello__values_out_of_range__refused),
		cmocka_unit_test(digests__there_and_back__and_bounded),
		cmocka_unit_test(facts_and_end__there_and_back__and_checked),
		cmocka_unit_test(error__of_a_peer__is_made_printable_and_bounded),
		cmocka_unit_test(link__posted_beside_a_busy_sender__all_come_in_order),
		cmocka_unit_test(link__stopped__posted_frames_still_go_and_the_peer_hears_of_the_end),
		cmocka_unit_test(link__a_frame_the_handler_refuses__goes_down_with_that_cause),
		cmocka_unit_test(link__bytes_that_are_no_frame__go_down),
		cmocka_unit_test(link__sender_blocked_and_cancelled__returns_at_once),
		cmocka_unit_test(link__cancelled_behind_a_blocked_sender__returns_before_that_one),
		cmocka_unit_test(link__hello_of_another_kind__refused),
		cmocka_unit_test(ring__smaller_than_what_goes_through__bytes_are_whole_then_it_ends),
		cmocka_unit_test(ring__broken_while_full__the_writer_is_freed),
		cmocka_unit_test(cancel__fired__calls_each_once_and_latecomers_at_once),
		cmocka_unit_test(queue__post_then_call__run_in_order_and_the_caller_gets_the_result),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
