/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/bus.h"
#include "common/bus_impl.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/loop_zmq.h"

enum {
	BATCH = 64,
	RECONNECT_MS =
		250, /* doubles up to the most, with random additions, so that a fleet does not come back in step */
	RECONNECT_MOST_MS = 8000,
	GIVEN_UP_MS = 1000, /* ZeroMQ gives up for ever after some failures; so long it may stay silent before we start
	                       over */
};

struct bus_client {
	struct loop *loop;
	void *socket, *monitor;
	char endpoint[LIMIT_PATH];
	char public_text[KEYS_Z85_BYTES], secret[KEYS_Z85_BYTES], server_key[KEYS_Z85_BYTES];
	bus_client_fn on_message;
	void *ctx;
	void (*on_connection)(void *ctx, bool up);
	void *connection_ctx;
	bool up;
	struct err why_down;
	int again_timer; /* starts over with fresh sockets; 0: not set */
	unsigned again_ms;
};

static int open_sockets(struct bus_client *client, struct err *err);
static void close_sockets(struct bus_client *client);
static void start_over_later(struct bus_client *client);

/* ---- the connection ---- */

static void set_up(struct bus_client *client, bool up)
{
	bool changed = client->up != up;
	client->up = up;
	if (up) {
		err_clear(&client->why_down);
		client->again_ms = GIVEN_UP_MS;
	}
	if (changed && client->on_connection)
		client->on_connection(client->connection_ctx, up);
}

static void end_timer(struct bus_client *client)
{
	loop_timer_end(client->loop, client->again_timer);
	client->again_timer = 0;
}

static void on_event(struct bus_client *client, unsigned event, unsigned value)
{
	switch (event) {
	case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
		end_timer(client);
		set_up(client, true);
		return;
	case ZMQ_EVENT_CONNECTED:
	case ZMQ_EVENT_CONNECT_DELAYED:
	case ZMQ_EVENT_CONNECT_RETRIED:
		end_timer(client); /* it is still trying by itself */
		return;
	case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
		err_set(&client->why_down, ERR_DENIED,
		        "%s does not know our key %s (status %u); have it authorised there with: drover key authorize",
		        client->endpoint, client->public_text, value);
		break;
	case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
	case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
		if (client->why_down.code != ERR_DENIED)
			err_set(&client->why_down, ERR_UNREACHABLE,
			        "%s answers, but not as our coordinator would: wrong server certificate, or something "
			        "else listens there",
			        client->endpoint);
		break;
	case ZMQ_EVENT_DISCONNECTED:
		if (client->up)
			err_set(&client->why_down, ERR_UNREACHABLE, "%s: the connection broke", client->endpoint);
		break;
	default:
		return;
	}
	start_over_later(client);
	set_up(client, false);
}

static void on_monitor(void *ctx)
{
	struct bus_client *client = ctx;
	void *monitor = client->monitor;
	for (int i = 0; i < BATCH && client->monitor == monitor; i++) {
		unsigned char event[6];
		zmq_msg_t address;
		int size = zmq_recv(monitor, event, sizeof(event), ZMQ_DONTWAIT);
		if (size < 0)
			return;
		zmq_msg_init(&address);
		zmq_msg_recv(&address, monitor, 0); /* the second half is there when the first is */
		zmq_msg_close(&address);
		uint16_t number;
		uint32_t value;
		memcpy(&number, event, sizeof(number));
		memcpy(&value, event + sizeof(number), sizeof(value));
		if (size == (int)sizeof(event))
			on_event(client, number, value);
	}
}

static void start_over(void *ctx)
{
	struct bus_client *client = ctx;
	struct err err;
	client->again_timer = 0;
	close_sockets(client);
	if (open_sockets(client, &err) < 0) {
		log_error("bus: %s", err.text);
		close_sockets(client);
	}
	start_over_later(client); /* unless the fresh one says that it is trying */
}

static void start_over_later(struct bus_client *client)
{
	uint16_t random;
	struct err err;
	if (client->again_timer)
		return;
	random_bytes(&random, sizeof(random));
	unsigned delay_ms = client->again_ms + random % (client->again_ms / 2);
	client->again_ms = client->again_ms * 2 > RECONNECT_MOST_MS ? RECONNECT_MOST_MS : client->again_ms * 2;
	client->again_timer = loop_timer(client->loop, delay_ms, false, start_over, client, &err);
	if (client->again_timer < 0) {
		client->again_timer = 0;
		log_error("bus: %s", err.text);
	}
}

void bus_on_connection(struct bus_client *client, void (*fn)(void *ctx, bool up), void *ctx)
{
	client->on_connection = fn;
	client->connection_ctx = ctx;
}

int bus_client_status(const struct bus_client *client, struct err *err)
{
	if (client->up)
		return 0;
	return err_set(err, client->why_down.code, "%s", client->why_down.text);
}

/* ---- messages ---- */

static void take(struct bus_client *client, const void *frame, size_t bytes)
{
	struct err err;
	struct msg *msg = calloc(1, sizeof(*msg));
	if (!msg) {
		log_error("bus: no memory for a message");
		return;
	}
	if (msg_decode(frame, bytes, msg, &err) == 0) {
		client->on_message(client->ctx, msg);
		msg_free(msg);
	} else {
		log_warning("bad message peer=%s: %s", client->endpoint, err.text);
	}
	free(msg);
}

static void on_readable(void *ctx)
{
	struct bus_client *client = ctx;
	bool within = false; /* a message of several frames: no such thing */
	for (int i = 0; i < BATCH && client->socket; i++) {
		zmq_msg_t frame;
		zmq_msg_init(&frame);
		if (zmq_msg_recv(&frame, client->socket, ZMQ_DONTWAIT) < 0) {
			zmq_msg_close(&frame);
			return;
		}
		bool more = zmq_msg_more(&frame);
		if (!more && !within)
			take(client, zmq_msg_data(&frame), zmq_msg_size(&frame));
		within = more;
		zmq_msg_close(&frame);
	}
}

int bus_client_send(struct bus_client *client, const struct msg *msg, struct err *err)
{
	void *frame = NULL;
	size_t bytes = 0;
	if (!client->up || !client->socket)
		return err_set(err, ERR_UNREACHABLE, "not connected to %s: %s", client->endpoint,
		               client->why_down.text);
	if (msg_encode(msg, &frame, &bytes, err) < 0)
		return err_wrap(err, "send to %s", client->endpoint);
	int events = 0;
	size_t size = sizeof(events);
	zmq_getsockopt(client->socket, ZMQ_EVENTS, &events, &size); /* has it take notice of a connection just made */
	int rc = zmq_send(client->socket, frame, bytes, ZMQ_DONTWAIT);
	free(frame);
	if (rc >= 0)
		return 0;
	return err_set(err, ERR_UNREACHABLE, "send to %s: the connection is gone or does not take messages",
	               client->endpoint);
}

/* ---- making and ending ---- */

static int set_key(void *socket, int option, const char *key, const char *name, struct err *err)
{
	if (zmq_setsockopt(socket, option, key, KEYS_Z85_BYTES) == 0)
		return 0;
	return err_errno(err, ERR_CONFIG, errno, "ZeroMQ option %s", name);
}

static int client_options(struct bus_client *client, struct err *err)
{
	void *socket = client->socket;
	/* IMMEDIATE: nothing is queued for a connection that is not there, to be delivered late */
	if (set_key(socket, ZMQ_CURVE_PUBLICKEY, client->public_text, "CURVE_PUBLICKEY", err) < 0 ||
	    set_key(socket, ZMQ_CURVE_SECRETKEY, client->secret, "CURVE_SECRETKEY", err) < 0 ||
	    set_key(socket, ZMQ_CURVE_SERVERKEY, client->server_key, "CURVE_SERVERKEY", err) < 0 ||
	    bus_option(socket, ZMQ_IMMEDIATE, 1, "IMMEDIATE", err) < 0 ||
	    bus_option(socket, ZMQ_RECONNECT_IVL, RECONNECT_MS, "RECONNECT_IVL", err) < 0 ||
	    bus_option(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MOST_MS, "RECONNECT_IVL_MAX", err) < 0)
		return -1;
	return bus_common_options(socket, err);
}

static int open_sockets(struct bus_client *client, struct err *err)
{
	char endpoint[64], serial[17];
	const int events = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CONNECT_DELAYED | ZMQ_EVENT_CONNECT_RETRIED |
	                   ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
	                   ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
	                   ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
	void *zmq = loop_zmq(client->loop, err);
	if (!zmq)
		return -1;
	client->socket = zmq_socket(zmq, ZMQ_DEALER);
	client->monitor = zmq_socket(zmq, ZMQ_PAIR);
	if (!client->socket || !client->monitor)
		return err_errno(err, ERR_INTERNAL, errno, "ZeroMQ socket");
	random_hex(serial, 8); /* the name of the last one may be in use still */
	snprintf(endpoint, sizeof(endpoint), "inproc://drover-monitor-%s", serial);
	if (client_options(client, err) < 0 || bus_option(client->monitor, ZMQ_LINGER, 0, "LINGER", err) < 0)
		return -1;
	if (zmq_socket_monitor(client->socket, endpoint, events) < 0 || zmq_connect(client->monitor, endpoint) < 0)
		return err_errno(err, ERR_INTERNAL, errno, "ZeroMQ monitor");
	if (loop_zmq_socket(client->loop, client->socket, on_readable, client, err) < 0 ||
	    loop_zmq_socket(client->loop, client->monitor, on_monitor, client, err) < 0)
		return -1;
	if (zmq_connect(client->socket, client->endpoint) < 0)
		return err_errno(err, ERR_CONFIG, errno, "connect to %s", client->endpoint);
	return 0;
}

static void close_sockets(struct bus_client *client)
{
	loop_zmq_socket_end(client->loop, client->socket);
	loop_zmq_socket_end(client->loop, client->monitor);
	if (client->socket) {
		zmq_socket_monitor(client->socket, NULL, 0);
		zmq_close(client->socket);
	}
	if (client->monitor)
		zmq_close(client->monitor);
	client->socket = client->monitor = NULL;
}

int bus_connect(struct bus_client **ret_client, struct loop *loop, const char *endpoint, const char *key_file,
                const char *server_cert, bus_client_fn on_message, void *ctx, struct err *err)
{
	struct key_info server;
	struct bus_client *client = calloc(1, sizeof(*client));
	if (!client)
		return err_set(err, ERR_NO_MEMORY, "connect to %s: no memory", endpoint);
	client->loop = loop;
	client->on_message = on_message;
	client->ctx = ctx;
	client->again_ms = GIVEN_UP_MS;
	int length = snprintf(client->endpoint, sizeof(client->endpoint), "%s", endpoint);
	int rc = length < (int)sizeof(client->endpoint) ? 0 : err_set(err, ERR_CONFIG, "endpoint is too long");
	if (rc == 0)
		rc = keys_load_secret(key_file, client->public_text, client->secret, err);
	if (rc == 0)
		rc = keys_load_public(server_cert, &server, err);
	if (rc == 0) {
		snprintf(client->server_key, sizeof(client->server_key), "%.40s", server.public_text);
		err_set(&client->why_down, ERR_UNREACHABLE, "nobody answers at %s", endpoint);
		rc = open_sockets(client, err);
	}
	if (rc < 0) {
		bus_client_free(client);
		return -1;
	}
	*ret_client = client;
	return 0;
}

void bus_client_free(struct bus_client *client)
{
	if (!client)
		return;
	end_timer(client);
	close_sockets(client);
	explicit_bzero(client->secret, sizeof(client->secret));
	free(client);
}
