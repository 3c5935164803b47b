/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "common/bus_impl.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/loop_zmq.h"

enum {
	BATCH = 64,               /* messages handled before others in the loop have their turn */
	QUEUE_FRAMES = 64,        /* per connection; more means the peer is stuck, and it will be told again */
	BACKLOG = 4096,           /* a whole fleet comes back at once after a restart */
	LINGER_MS = 1000,         /* how long a last message may take after close */
	HEARTBEAT_MS = 10 * 1000, /* transport only: to notice dead connections; death is decided elsewhere */
	HEARTBEAT_TIMEOUT_MS = 30 * 1000,
	HANDSHAKE_MS = 120 * 1000, /* thousands of handshakes at once are slow; to start over makes it worse */
	KEEPALIVE_IDLE_S = 60,
	KEEPALIVE_INTERVAL_S = 10,
	KEEPALIVE_COUNT = 3,
	CURVE_OVERHEAD_BYTES = 64,     /* an encrypted frame is 33 bytes longer */
	ROUTE_BYTES = 5,               /* of the connection ids that ZeroMQ makes: 0 and four bytes */
	REFUSAL_LOG_MS = 1000,         /* at most one line that often */
	OPTION_ZAP_ENFORCE_DOMAIN = 93 /* in the library, but in the header only with draft interfaces on */
};

struct bus_server {
	struct loop *loop;
	const struct paths *paths;
	void *socket;
	struct bus_zap *zap;
	int wake_fd;
	char endpoint[LIMIT_PATH];
	bus_server_fn on_message;
	bus_bad_fn on_bad;
	void *ctx;
	uint64_t refused_messages, logged_refusals;
	int64_t logged_ms;
};

/* ---- settings ---- */

int bus_option(void *socket, int option, int value, const char *name, struct err *err)
{
	if (zmq_setsockopt(socket, option, &value, sizeof(value)) == 0)
		return 0;
	return err_errno(err, ERR_INTERNAL, errno, "ZeroMQ option %s", name);
}

int bus_common_options(void *socket, struct err *err)
{
	static const struct {
		int option, value;
		const char *name;
	} options[] = {
		{ ZMQ_LINGER, LINGER_MS, "LINGER" },
		{ ZMQ_IPV6, 1, "IPV6" },
		{ ZMQ_MAXMSGSIZE, 0, "MAXMSGSIZE" }, /* 64 bits, below */
		{ ZMQ_SNDHWM, QUEUE_FRAMES, "SNDHWM" },
		{ ZMQ_RCVHWM, QUEUE_FRAMES, "RCVHWM" },
		{ ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS, "HEARTBEAT_IVL" },
		{ ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS, "HEARTBEAT_TIMEOUT" },
		{ ZMQ_HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS, "HEARTBEAT_TTL" },
		{ ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS, "HANDSHAKE_IVL" },
		{ ZMQ_TCP_KEEPALIVE, 1, "TCP_KEEPALIVE" },
		{ ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S, "TCP_KEEPALIVE_IDLE" },
		{ ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S, "TCP_KEEPALIVE_INTVL" },
		{ ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT, "TCP_KEEPALIVE_CNT" },
	};
	int64_t most = LIMIT_FRAME_BYTES + CURVE_OVERHEAD_BYTES;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (options[i].option != ZMQ_MAXMSGSIZE &&
		    bus_option(socket, options[i].option, options[i].value, options[i].name, err) < 0)
			return -1;
	if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof(most)) < 0)
		return err_errno(err, ERR_INTERNAL, errno, "ZeroMQ option MAXMSGSIZE");
	return 0;
}

static int server_options(void *socket, const char *key_file, struct err *err)
{
	static const char domain[] = "drover";
	char public_text[KEYS_Z85_BYTES], secret[KEYS_Z85_BYTES];
	if (keys_load_secret(key_file, public_text, secret, err) < 0)
		return -1;
	int rc = zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret, sizeof(secret));
	int saved = errno;
	explicit_bzero(secret, sizeof(secret));
	if (rc < 0)
		return err_errno(err, ERR_CONFIG, saved, "%s: secret key", key_file);
	if (zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, domain, sizeof(domain) - 1) < 0)
		return err_errno(err, ERR_INTERNAL, errno, "ZeroMQ option ZAP_DOMAIN");
	/* without ENFORCE, everybody is let in while there is no handler */
	if (bus_option(socket, ZMQ_CURVE_SERVER, 1, "CURVE_SERVER", err) < 0 ||
	    bus_option(socket, OPTION_ZAP_ENFORCE_DOMAIN, 1, "ZAP_ENFORCE_DOMAIN", err) < 0 ||
	    bus_option(socket, ZMQ_ROUTER_MANDATORY, 1, "ROUTER_MANDATORY", err) < 0 ||
	    bus_option(socket, ZMQ_BACKLOG, BACKLOG, "BACKLOG", err) < 0)
		return -1;
	return bus_common_options(socket, err);
}

/* ---- refusals ---- */

uint64_t bus_refused_count(const struct bus_server *server)
{
	struct bus_refusals refusals;
	bus_zap_refusals(server->zap, &refusals);
	return refusals.count + server->refused_messages;
}

static void log_refusals(struct bus_server *server, const char *what, const char *key, const char *address)
{
	int64_t now_ms = clock_ms(&clock_real);
	uint64_t total = bus_refused_count(server);
	if (server->logged_ms && now_ms - server->logged_ms < REFUSAL_LOG_MS)
		return;
	log_warning("refused what=\"%s\" key=%s address=%s more_since_last=%llu total=%llu", what,
	            key[0] ? key : "none", address, (unsigned long long)(total - server->logged_refusals - 1),
	            (unsigned long long)total);
	server->logged_ms = now_ms;
	server->logged_refusals = total;
}

static void on_refusal(void *ctx, int fd)
{
	struct bus_server *server = ctx;
	struct bus_refusals refusals;
	uint64_t times;
	if (read(fd, &times, sizeof(times)) < 0)
		return;
	bus_zap_refusals(server->zap, &refusals);
	log_refusals(server, "key is not authorised", refusals.last_key, refusals.last_address);
}

static void refuse_message(struct bus_server *server, const char *why, const char *key, zmq_msg_t *body)
{
	const char *address = zmq_msg_gets(body, "Peer-Address");
	server->refused_messages++;
	log_refusals(server, why, key, address ? address : "unknown");
}

/* ---- receiving ---- */

/* Who sent it, by the current table. The user id is that of the body: the frame with the route has none after a poll.
 */
static bool identify(struct bus_server *server, zmq_msg_t *route, zmq_msg_t *body, struct bus_peer *ret_peer)
{
	const char *key = zmq_msg_gets(body, "User-Id");
	const char *claimed = zmq_msg_gets(body, "Identity");
	const unsigned char *id = zmq_msg_data(route);
	struct key_info info;
	struct bus_peer peer = { .route_bytes = ROUTE_BYTES };
	if (!key || !bus_zap_find(server->zap, key, &info)) {
		refuse_message(server, "key was revoked", key ? key : "", body);
		return false;
	}
	/* a peer that chooses its own connection id could choose another's */
	if (zmq_msg_size(route) != ROUTE_BYTES || id[0] != 0 || (claimed && claimed[0])) {
		refuse_message(server, "claims a connection id", key, body);
		return false;
	}
	memcpy(peer.route, id, ROUTE_BYTES);
	memcpy(peer.name, info.name, sizeof(peer.name));
	memcpy(peer.host, info.host, sizeof(peer.host));
	memcpy(peer.key, info.public_text, sizeof(peer.key) - 1);
	peer.role = info.role;
	*ret_peer = peer;
	return true;
}

static void take(struct bus_server *server, zmq_msg_t *route, zmq_msg_t *body, bool whole)
{
	struct bus_peer peer;
	struct err err = { .code = ERR_NONE };
	if (!identify(server, route, body, &peer))
		return;
	struct msg *msg = calloc(1, sizeof(*msg)); /* large; not for the stack */
	if (!msg) {
		log_error("bus: no memory for a message of %s", peer.name);
		return;
	}
	int rc = whole ? msg_decode(zmq_msg_data(body), zmq_msg_size(body), msg, &err)
	               : err_set(&err, ERR_PROTOCOL, "a message is one frame");
	if (rc == 0) {
		server->on_message(server->ctx, &peer, msg);
		msg_free(msg);
	} else if (server->on_bad) {
		server->on_bad(server->ctx, &peer, &err);
	} else {
		log_warning("bad message peer=%s: %s", peer.name, err.text);
	}
	free(msg);
}

/* 1 if there was one. Frames after the second are dropped, and the message with them. */
static int receive_one(struct bus_server *server)
{
	zmq_msg_t route, body, spare;
	zmq_msg_init(&route);
	zmq_msg_init(&body);
	int got = zmq_msg_recv(&route, server->socket, ZMQ_DONTWAIT) >= 0;
	bool whole = got && zmq_msg_more(&route) && zmq_msg_recv(&body, server->socket, ZMQ_DONTWAIT) >= 0;
	bool has_body = whole;
	bool more = whole && zmq_msg_more(&body);
	while (more) {
		whole = false;
		zmq_msg_init(&spare);
		more = zmq_msg_recv(&spare, server->socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&spare);
		zmq_msg_close(&spare);
	}
	if (has_body)
		take(server, &route, &body, whole);
	zmq_msg_close(&route);
	zmq_msg_close(&body);
	return got;
}

static void on_readable(void *ctx)
{
	struct bus_server *server = ctx;
	for (int i = 0; i < BATCH && receive_one(server); i++)
		;
}

/* ---- sending ---- */

int bus_send(struct bus_server *server, const struct bus_peer *peer, const struct msg *msg, struct err *err)
{
	struct key_info info;
	void *frame = NULL;
	size_t bytes = 0;
	if (!bus_zap_find(server->zap, peer->key, &info))
		return err_set(err, ERR_DENIED, "send to %s: its key was revoked", peer->name);
	if (msg_encode(msg, &frame, &bytes, err) < 0)
		return err_wrap(err, "send to %s", peer->name);
	int events;
	size_t size = sizeof(events);
	zmq_getsockopt(server->socket, ZMQ_EVENTS, &events, &size); /* has it notice now who is gone */
	int rc = zmq_send(server->socket, peer->route, peer->route_bytes, ZMQ_SNDMORE | ZMQ_DONTWAIT);
	if (rc >= 0)
		rc = zmq_send(server->socket, frame, bytes, ZMQ_DONTWAIT);
	int saved = errno;
	free(frame);
	if (rc >= 0)
		return 0;
	if (saved == EAGAIN)
		return err_set(err, ERR_UNREACHABLE, "send to %s: it does not take its messages", peer->name);
	return err_set(err, ERR_UNREACHABLE, "send to %s: its connection is gone", peer->name);
}

/* ---- the server ---- */

int bus_reload_keys(struct bus_server *server, struct err *err)
{
	struct key_info *keys = NULL;
	size_t count = 0;
	if (keys_list_authorized(server->paths, &keys, &count, err) < 0)
		return -1;
	bus_zap_set_keys(server->zap, keys, count);
	return 0;
}

const char *bus_endpoint(const struct bus_server *server)
{
	return server->endpoint;
}

static int open_server(struct bus_server *server, const char *endpoint, const char *key_file, struct err *err)
{
	size_t size = sizeof(server->endpoint);
	void *zmq = loop_zmq(server->loop, err);
	if (!zmq)
		return -1;
	server->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (server->wake_fd < 0)
		return err_errno(err, ERR_IO, errno, "eventfd");
	/* who is let in is known before anybody can connect */
	if (bus_zap_start(&server->zap, zmq, server->wake_fd, err) < 0 || bus_reload_keys(server, err) < 0 ||
	    loop_fd(server->loop, server->wake_fd, on_refusal, server, err) < 0)
		return -1;
	server->socket = zmq_socket(zmq, ZMQ_ROUTER);
	if (!server->socket)
		return err_errno(err, ERR_INTERNAL, errno, "ZeroMQ socket");
	if (server_options(server->socket, key_file, err) < 0)
		return -1;
	if (zmq_bind(server->socket, endpoint) < 0)
		return err_errno(err, errno == EADDRINUSE ? ERR_BUSY : ERR_CONFIG, errno, "bind");
	if (zmq_getsockopt(server->socket, ZMQ_LAST_ENDPOINT, server->endpoint, &size) < 0)
		return err_errno(err, ERR_INTERNAL, errno, "ZeroMQ option LAST_ENDPOINT");
	return loop_zmq_socket(server->loop, server->socket, on_readable, server, err);
}

int bus_listen(struct bus_server **ret_server, struct loop *loop, const char *endpoint, const char *key_file,
               const struct paths *paths, bus_server_fn on_message, bus_bad_fn on_bad, void *ctx, struct err *err)
{
	struct bus_server *server = calloc(1, sizeof(*server));
	if (!server)
		return err_set(err, ERR_NO_MEMORY, "listen on %s: no memory", endpoint);
	server->loop = loop;
	server->paths = paths;
	server->wake_fd = -1;
	server->on_message = on_message;
	server->on_bad = on_bad;
	server->ctx = ctx;
	if (open_server(server, endpoint, key_file, err) < 0) {
		bus_server_free(server);
		return err_wrap(err, "listen on %s", endpoint);
	}
	*ret_server = server;
	return 0;
}

void bus_server_free(struct bus_server *server)
{
	if (!server)
		return;
	if (server->socket) {
		loop_zmq_socket_end(server->loop, server->socket);
		if (server->endpoint[0])
			zmq_unbind(server->socket, server->endpoint);
		zmq_close(server->socket);
	}
	loop_fd_end(server->loop, server->wake_fd);
	bus_zap_stop(server->zap);
	if (server->wake_fd >= 0)
		close(server->wake_fd);
	free(server);
}
