/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <unistd.h>
#include <zmq.h>

#include "common/bus.h"
#include "common/clock.h"
#include "common/keys.h"
#include "common/log.h"
#include "common/loop_zmq.h"

enum { PATIENCE_MS = 20000, LOOK_MS = 3 };

/* Everything open, so that a test that fails halfway leaves no socket for the context to wait for. */
enum { OPEN_MAX_COUNT = 4 };
static struct bus_client *open_clients[OPEN_MAX_COUNT];
static void *open_sockets[OPEN_MAX_COUNT];

static char folder[64];
static struct paths paths;
static struct loop *loop;

/* What the server saw. */
static struct {
	struct bus_server *server;
	struct bus_peer peer;
	int messages, bad;
	uint64_t sequence;
	enum err_code bad_code;
	bool answer;
} at_server;

/* What one client saw. */
struct guest {
	struct bus_client *client;
	int ups, downs, messages;
	uint64_t sequence;
};

/* ---- the stage ---- */

static void note_open(void **list, void *thing)
{
	for (int i = 0; i < OPEN_MAX_COUNT; i++) {
		if (!list[i]) {
			list[i] = thing;
			return;
		}
	}
	fail_msg("too many things open");
}

static void leave(struct bus_client *client)
{
	for (int i = 0; i < OPEN_MAX_COUNT; i++)
		if (open_clients[i] == client)
			open_clients[i] = NULL;
	bus_client_free(client);
}

static void close_socket(void *socket)
{
	for (int i = 0; i < OPEN_MAX_COUNT; i++)
		if (open_sockets[i] == socket)
			open_sockets[i] = NULL;
	zmq_close(socket);
}

static const char *under_etc(const char *part, char path[700])
{
	snprintf(path, 700, "%s/%s", paths.etc, part);
	return path;
}

static void make_key(const char *name, enum role role, const char *host, bool authorized)
{
	char path[700], part[100];
	struct err err;
	snprintf(part, sizeof(part), "keys/%s.cert", name);
	if (keys_generate(&paths, name, role, host, &err) < 0 ||
	    (authorized && keys_authorize(&paths, under_etc(part, path), &err) < 0))
		fail_msg("%s", err.text);
}

static void on_message(void *ctx, const struct bus_peer *peer, const struct msg *msg)
{
	(void)ctx;
	at_server.peer = *peer;
	at_server.sequence = msg->sequence;
	at_server.messages++;
	if (at_server.answer)
		assert_int_equal(bus_send(at_server.server, peer, msg, NULL), 0);
}

static void on_bad(void *ctx, const struct bus_peer *peer, const struct err *err)
{
	(void)ctx;
	at_server.peer = *peer;
	at_server.bad_code = err->code;
	at_server.bad++;
}

static int listen_on(const char *endpoint, struct err *err)
{
	char path[700];
	return bus_listen(&at_server.server, loop, endpoint, under_etc("keys/coordinator.cert_secret", path), &paths,
	                  on_message, on_bad, NULL, err);
}

static int begin(void **state)
{
	(void)state;
	struct err err;
	snprintf(folder, sizeof(folder), "/tmp/test_bus_XXXXXX");
	if (!mkdtemp(folder) || paths_init(&paths, folder, NULL) < 0 || paths_make(&paths, NULL) < 0)
		return -1;
	memset(&at_server, 0, sizeof(at_server));
	log_level_set((enum log_level)0); /* refusals are expected */
	make_key("coordinator", ROLE_COORDINATOR, NULL, false);
	make_key("a1", ROLE_AGENT, "host-a1", true);
	loop = loop_new(&err);
	at_server.answer = true;
	if (!loop || listen_on("tcp://127.0.0.1:*", &err) < 0)
		fail_msg("%s", err.text);
	return 0;
}

static int end(void **state)
{
	(void)state;
	char command[128];
	for (int i = 0; i < OPEN_MAX_COUNT; i++) {
		if (open_clients[i])
			leave(open_clients[i]);
		if (open_sockets[i])
			close_socket(open_sockets[i]);
	}
	bus_server_free(at_server.server);
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

struct wait {
	bool (*met)(void *ctx);
	void *ctx;
	int64_t deadline_ms;
	bool done;
};

static void look(void *ctx)
{
	struct wait *wait = ctx;
	wait->done = wait->met(wait->ctx);
	if (wait->done || clock_ms(&clock_real) > wait->deadline_ms)
		loop_stop(loop);
}

/* Runs the loop until the condition is met; false if it is not in time. */
static bool run_until(bool (*met)(void *ctx), void *ctx, int patience_ms)
{
	struct wait wait = { .met = met, .ctx = ctx, .deadline_ms = clock_ms(&clock_real) + patience_ms };
	int timer = loop_timer(loop, LOOK_MS, true, look, &wait, NULL);
	assert_int_equal(loop_run(loop, NULL), 0);
	loop_timer_end(loop, timer);
	return wait.done;
}

static void on_answer(void *ctx, const struct msg *msg)
{
	struct guest *guest = ctx;
	guest->messages++;
	guest->sequence = msg->sequence;
}

static void on_connection(void *ctx, bool up)
{
	struct guest *guest = ctx;
	if (up)
		guest->ups++;
	else
		guest->downs++;
}

static void join(struct guest *guest, const char *key, const char *server_cert)
{
	char part[100], key_path[700], cert_path[700];
	struct err err;
	memset(guest, 0, sizeof(*guest));
	snprintf(part, sizeof(part), "keys/%s.cert_secret", key);
	if (bus_connect(&guest->client, loop, bus_endpoint(at_server.server), under_etc(part, key_path),
	                under_etc(server_cert, cert_path), on_answer, guest, &err) < 0)
		fail_msg("%s", err.text);
	note_open((void **)open_clients, guest->client);
	bus_on_connection(guest->client, on_connection, guest);
}

static bool is_up(void *ctx)
{
	return ((struct guest *)ctx)->ups > 0 && bus_client_status(((struct guest *)ctx)->client, NULL) == 0;
}

static bool is_down(void *ctx)
{
	return bus_client_status(((struct guest *)ctx)->client, NULL) < 0;
}

static bool is_refused(void *ctx)
{
	struct err err = { 0 };
	return bus_client_status(((struct guest *)ctx)->client, &err) < 0 && err.code == ERR_DENIED;
}

static bool got_answer(void *ctx)
{
	return ((struct guest *)ctx)->messages > 0;
}

static bool heard(void *ctx)
{
	return at_server.messages >= *(int *)ctx;
}

static bool heard_bad(void *ctx)
{
	return at_server.bad >= *(int *)ctx;
}

static bool refused_more_than(void *ctx)
{
	return bus_refused_count(at_server.server) > *(uint64_t *)ctx;
}

static bool never(void *ctx)
{
	(void)ctx;
	return false;
}

static struct msg message(uint64_t sequence)
{
	return (struct msg) { .version = PROTOCOL_VERSION, .kind = MSG_HEARTBEAT_ACK, .sequence = sequence };
}

static void say(struct guest *guest, uint64_t sequence)
{
	struct msg msg = message(sequence);
	struct err err;
	if (bus_client_send(guest->client, &msg, &err) < 0)
		fail_msg("%s", err.text);
}

/* A whole round trip of an honest client: the server lives. */
static void assert_server_serves(void)
{
	struct guest guest;
	join(&guest, "a1", "keys/coordinator.cert");
	assert_true(run_until(is_up, &guest, PATIENCE_MS));
	say(&guest, 4711);
	assert_true(run_until(got_answer, &guest, PATIENCE_MS));
	assert_int_equal(guest.sequence, 4711);
	leave(guest.client);
}

/* A peer that does not play by the rules: a raw socket. key NULL: no encryption. */
static void *raw_peer(const char *key, const char *claimed_id)
{
	void *socket = zmq_socket(loop_zmq(loop, NULL), ZMQ_DEALER);
	int linger = 0;
	note_open(open_sockets, socket);
	zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
	if (key) {
		char part[100], path[700], public_text[KEYS_Z85_BYTES], secret[KEYS_Z85_BYTES];
		struct key_info server;
		snprintf(part, sizeof(part), "keys/%s.cert_secret", key);
		assert_int_equal(keys_load_secret(under_etc(part, path), public_text, secret, NULL), 0);
		assert_int_equal(keys_load_public(under_etc("keys/coordinator.cert", path), &server, NULL), 0);
		zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public_text, KEYS_Z85_BYTES);
		zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret, KEYS_Z85_BYTES);
		zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server.public_text, KEYS_Z85_BYTES);
	}
	if (claimed_id)
		zmq_setsockopt(socket, ZMQ_ROUTING_ID, claimed_id, strlen(claimed_id));
	assert_int_equal(zmq_connect(socket, bus_endpoint(at_server.server)), 0);
	return socket;
}

/* ---- who is let in ---- */

static void authorized_key__message__arrives_with_the_files_identity(void **state)
{
	(void)state;
	struct guest guest;
	join(&guest, "a1", "keys/coordinator.cert");
	struct err err;
	assert_int_equal(bus_client_status(guest.client, &err), -1);
	assert_int_equal(err.code, ERR_UNREACHABLE);
	assert_true(run_until(is_up, &guest, PATIENCE_MS));
	assert_int_equal(bus_client_status(guest.client, &err), 0);
	say(&guest, 7);
	assert_true(run_until(got_answer, &guest, PATIENCE_MS));
	assert_int_equal(guest.sequence, 7);
	assert_int_equal(at_server.sequence, 7);
	assert_int_equal(at_server.peer.role, ROLE_AGENT);
	assert_string_equal(at_server.peer.name, "a1");
	assert_string_equal(at_server.peer.host, "host-a1");
	assert_int_equal(bus_refused_count(at_server.server), 0);
	leave(guest.client);
}

static void unknown_key__refused_until_authorized(void **state)
{
	(void)state;
	char path[700];
	struct msg msg = message(1);
	struct err err;
	make_key("op", ROLE_OPERATOR, NULL, false);
	struct guest guest;
	join(&guest, "op", "keys/coordinator.cert");
	assert_true(run_until(is_refused, &guest, PATIENCE_MS));
	assert_int_equal(bus_client_send(guest.client, &msg, &err), -1);
	assert_int_equal(err.code, ERR_UNREACHABLE);
	assert_true(bus_refused_count(at_server.server) > 0);
	assert_int_equal(at_server.messages, 0);
	assert_int_equal(guest.ups, 0);
	/* the same client gets in without a restart once its key is known */
	assert_int_equal(keys_authorize(&paths, under_etc("keys/op.cert", path), &err), 0);
	assert_int_equal(bus_reload_keys(at_server.server, &err), 0);
	assert_true(run_until(is_up, &guest, PATIENCE_MS));
	say(&guest, 2);
	assert_true(run_until(got_answer, &guest, PATIENCE_MS));
	assert_int_equal(at_server.peer.role, ROLE_OPERATOR);
	leave(guest.client);
}

static void wrong_server_key__never_connected(void **state)
{
	(void)state;
	make_key("other", ROLE_COORDINATOR, NULL, false);
	struct guest guest;
	join(&guest, "a1", "keys/other.cert");
	assert_false(run_until(never, NULL, 700)); /* several attempts */
	assert_true(is_down(&guest));
	assert_int_equal(at_server.messages, 0);
	leave(guest.client);
	assert_server_serves();
}

static void no_encryption_or_unknown_raw_key__nothing_arrives(void **state)
{
	(void)state;
	make_key("stranger", ROLE_OPERATOR, NULL, false);
	void *plain = raw_peer(NULL, NULL), *stranger = raw_peer("stranger", NULL);
	struct msg msg = message(1);
	void *frame = NULL;
	size_t bytes = 0;
	uint64_t none = 0;
	assert_int_equal(msg_encode(&msg, &frame, &bytes, NULL), 0);
	zmq_send(plain, frame, bytes, ZMQ_DONTWAIT);
	zmq_send(stranger, frame, bytes, ZMQ_DONTWAIT);
	assert_true(run_until(refused_more_than, &none, PATIENCE_MS));
	assert_server_serves();
	assert_int_equal(at_server.messages, 1);
	free(frame);
	close_socket(plain);
	close_socket(stranger);
}

static void role__claimed_by_the_clients_own_file__ignored(void **state)
{
	(void)state;
	char path[700], command[900];
	make_key("guest", ROLE_VIEWER, NULL, true);
	assert_int_equal(bus_reload_keys(at_server.server, NULL), 0);
	snprintf(command, sizeof(command), "sed -i 's/\"viewer\"/\"operator\"/; s/\"guest\"/\"root\"/' %s",
	         under_etc("keys/guest.cert_secret", path));
	assert_int_equal(system(command), 0);
	struct guest guest;
	join(&guest, "guest", "keys/coordinator.cert");
	assert_true(run_until(is_up, &guest, PATIENCE_MS));
	say(&guest, 1);
	assert_true(run_until(got_answer, &guest, PATIENCE_MS));
	assert_int_equal(at_server.peer.role, ROLE_VIEWER);
	assert_string_equal(at_server.peer.name, "guest");
	leave(guest.client);
}

static void claimed_connection_id__message_dropped(void **state)
{
	(void)state;
	void *peer = raw_peer("a1", "victim");
	struct msg msg = message(1);
	void *frame = NULL;
	size_t bytes = 0;
	uint64_t none = 0;
	assert_int_equal(msg_encode(&msg, &frame, &bytes, NULL), 0);
	zmq_send(peer, frame, bytes, ZMQ_DONTWAIT);
	free(frame);
	assert_true(run_until(refused_more_than, &none, PATIENCE_MS));
	assert_int_equal(at_server.messages, 0);
	close_socket(peer);
	assert_server_serves();
}

static void revoked__live_connection__cut_off(void **state)
{
	(void)state;
	struct err err;
	uint64_t none = 0;
	int one = 1;
	at_server.answer = false;
	struct guest guest;
	join(&guest, "a1", "keys/coordinator.cert");
	assert_true(run_until(is_up, &guest, PATIENCE_MS));
	say(&guest, 1);
	assert_true(run_until(heard, &one, PATIENCE_MS));
	struct bus_peer peer = at_server.peer;
	struct msg msg = message(2);
	assert_int_equal(bus_send(at_server.server, &peer, &msg, &err), 0);
	assert_int_equal(keys_revoke(&paths, "a1", &err), 0);
	assert_int_equal(bus_reload_keys(at_server.server, &err), 0);
	say(&guest, 3);
	assert_true(run_until(refused_more_than, &none, PATIENCE_MS));
	assert_int_equal(at_server.messages, 1);
	assert_int_equal(bus_send(at_server.server, &peer, &msg, &err), -1);
	assert_int_equal(err.code, ERR_DENIED);
	leave(guest.client);
}

/* ---- hostile frames ---- */

static void oversized_frame__connection_closed_server_lives(void **state)
{
	(void)state;
	void *peer = raw_peer("a1", NULL), *monitor = zmq_socket(loop_zmq(loop, NULL), ZMQ_PAIR);
	note_open(open_sockets, monitor);
	size_t bytes = LIMIT_FRAME_BYTES + 4096;
	char *frame = calloc(1, bytes);
	int patience = PATIENCE_MS, one = 1;
	zmq_socket_monitor(peer, "inproc://oversized", ZMQ_EVENT_DISCONNECTED);
	zmq_connect(monitor, "inproc://oversized");
	zmq_setsockopt(monitor, ZMQ_RCVTIMEO, &patience, sizeof(patience));
	/* as large as allowed: it arrives (and is garbage) */
	assert_true(zmq_send(peer, frame, LIMIT_FRAME_BYTES, 0) >= 0);
	assert_true(run_until(heard_bad, &one, PATIENCE_MS));
	assert_true(zmq_send(peer, frame, bytes, 0) >= 0);
	assert_int_equal(zmq_recv(monitor, frame, bytes, 0), 6); /* the event: it is disconnected */
	assert_int_equal(at_server.bad, 1);
	free(frame);
	zmq_socket_monitor(peer, NULL, 0);
	close_socket(monitor);
	close_socket(peer);
	assert_server_serves();
}

static void garbage__told_as_bad_with_the_peer(void **state)
{
	(void)state;
	int one = 1, two = 2, three = 3;
	void *peer = raw_peer("a1", NULL);
	assert_true(zmq_send(peer, "\xff\xff\xff garbage", 11, 0) >= 0);
	assert_true(run_until(heard_bad, &one, PATIENCE_MS));
	assert_int_equal(at_server.bad_code, ERR_PROTOCOL);
	assert_string_equal(at_server.peer.name, "a1");
	assert_true(zmq_send(peer, "", 0, 0) >= 0);
	assert_true(run_until(heard_bad, &two, PATIENCE_MS));
	for (int i = 0; i < 5; i++)
		assert_true(zmq_send(peer, "part", 4, i < 4 ? ZMQ_SNDMORE : 0) >= 0);
	assert_true(run_until(heard_bad, &three, PATIENCE_MS));
	assert_int_equal(at_server.messages, 0);
	assert_int_equal(at_server.bad, 3);
	close_socket(peer);
	assert_server_serves();
}

/* ---- coming and going ---- */

/* The port of a server that was just closed is free a moment later. */
static bool listens_again(void *ctx)
{
	struct err err;
	if (listen_on(ctx, &err) == 0)
		return true;
	if (err.code != ERR_BUSY)
		fail_msg("%s", err.text);
	return false;
}

static bool is_up_twice(void *ctx)
{
	return ((struct guest *)ctx)->ups == 2;
}

static void server_restarts__client_comes_back_and_is_told(void **state)
{
	(void)state;
	char endpoint[LIMIT_PATH];
	struct msg msg = message(1);
	struct err err;
	struct guest guest;
	join(&guest, "a1", "keys/coordinator.cert");
	assert_true(run_until(is_up, &guest, PATIENCE_MS));
	snprintf(endpoint, sizeof(endpoint), "%s", bus_endpoint(at_server.server));
	bus_server_free(at_server.server);
	at_server.server = NULL;
	assert_true(run_until(is_down, &guest, PATIENCE_MS));
	assert_int_equal(guest.downs, 1);
	assert_int_equal(bus_client_send(guest.client, &msg, &err), -1);
	assert_int_equal(err.code, ERR_UNREACHABLE);
	assert_true(run_until(listens_again, endpoint, PATIENCE_MS));
	assert_true(run_until(is_up_twice, &guest, PATIENCE_MS));
	say(&guest, 9);
	assert_true(run_until(got_answer, &guest, PATIENCE_MS));
	assert_int_equal(guest.sequence, 9); /* and not what was said while nobody listened */
	leave(guest.client);
}

static bool send_fails(void *ctx)
{
	struct msg msg = message(1);
	struct err *err = ctx;
	return bus_send(at_server.server, &at_server.peer, &msg, err) < 0;
}

static void peer_gone__send__unreachable(void **state)
{
	(void)state;
	struct err err;
	int one = 1;
	struct guest guest;
	join(&guest, "a1", "keys/coordinator.cert");
	assert_true(run_until(is_up, &guest, PATIENCE_MS));
	say(&guest, 1);
	assert_true(run_until(heard, &one, PATIENCE_MS));
	leave(guest.client);
	assert_true(run_until(send_fails, &err, PATIENCE_MS));
	assert_int_equal(err.code, ERR_UNREACHABLE);
	at_server.peer.route[1] ^= 0xff; /* nobody's */
	assert_true(send_fails(&err));
	assert_int_equal(err.code, ERR_UNREACHABLE);
}

static void peer_does_not_read__send__refused_when_full(void **state)
{
	(void)state;
	struct err err;
	int one = 1, sent = 0;
	at_server.answer = false;
	void *peer = raw_peer("a1", NULL);
	struct msg msg = message(1);
	void *frame = NULL;
	size_t bytes = 0;
	assert_int_equal(msg_encode(&msg, &frame, &bytes, NULL), 0);
	assert_true(zmq_send(peer, frame, bytes, 0) >= 0);
	free(frame);
	assert_true(run_until(heard, &one, PATIENCE_MS));
	char *json = malloc(150000);
	memset(json, ' ', 150000);
	memcpy(json, "{}", 2);
	json[149999] = '\0';
	struct msg large = { .version = PROTOCOL_VERSION, .kind = MSG_REPLY, .sequence = 1 };
	large.u.reply.json = json;
	while (sent < 20000 && bus_send(at_server.server, &at_server.peer, &large, &err) == 0)
		sent++;
	free(json);
	at_server.answer = true;
	assert_in_range(sent, 1, 19999);
	assert_int_equal(err.code, ERR_UNREACHABLE);
	close_socket(peer);
	assert_server_serves();
}

static void ipc_endpoint__works_too(void **state)
{
	(void)state;
	char endpoint[600];
	struct err err;
	bus_server_free(at_server.server);
	at_server.server = NULL;
	snprintf(endpoint, sizeof(endpoint), "ipc://%s/bus.sock", paths.run);
	if (listen_on(endpoint, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(bus_endpoint(at_server.server), endpoint);
	assert_server_serves();
}

static void listen__second_on_the_loop_or_nonsense__refused(void **state)
{
	(void)state;
	struct bus_server *first = at_server.server;
	struct err err;
	assert_int_equal(listen_on("tcp://127.0.0.1:*", &err), -1);
	assert_int_equal(err.code, ERR_BUSY);
	bus_server_free(first);
	at_server.server = NULL;
	assert_int_equal(listen_on("nonsense", &err), -1);
	assert_int_equal(err.code, ERR_CONFIG);
	assert_int_equal(listen_on("tcp://no-such-host.invalid:1", &err), -1);
	struct bus_client *client = NULL;
	char path[700];
	assert_int_equal(bus_connect(&client, loop, "nonsense", under_etc("keys/a1.cert_secret", path), path, on_answer,
	                             NULL, &err),
	                 -1);
	assert_int_equal(err.code, ERR_CONFIG);
	assert_int_equal(bus_connect(&client, loop, "tcp://127.0.0.1:1", under_etc("keys/a1.cert", path), path,
	                             on_answer, NULL, &err),
	                 -1);
	assert_int_equal(err.code, ERR_CONFIG); /* not a secret key */
}

#define BUS_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BUS_TEST(authorized_key__message__arrives_with_the_files_identity),
		BUS_TEST(unknown_key__refused_until_authorized),
		BUS_TEST(wrong_server_key__never_connected),
		BUS_TEST(no_encryption_or_unknown_raw_key__nothing_arrives),
		BUS_TEST(role__claimed_by_the_clients_own_file__ignored),
		BUS_TEST(claimed_connection_id__message_dropped),
		BUS_TEST(revoked__live_connection__cut_off),
		BUS_TEST(oversized_frame__connection_closed_server_lives),
		BUS_TEST(garbage__told_as_bad_with_the_peer),
		BUS_TEST(server_restarts__client_comes_back_and_is_told),
		BUS_TEST(peer_gone__send__unreachable),
		BUS_TEST(peer_does_not_read__send__refused_when_full),
		BUS_TEST(ipc_endpoint__works_too),
		BUS_TEST(listen__second_on_the_loop_or_nonsense__refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
