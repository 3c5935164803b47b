/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Control connections: ZeroMQ ROUTER (coordinator) and DEALER (agents, clients) with CURVE, one protobuf envelope a
 * message. A peer is who its key says it is: the User-Id of the message, never the routing id. Unknown keys are refused
 * in the handshake (and logged), frames over LIMIT_FRAME_BYTES close the connection. Everything runs in the loop's
 * thread but the ZAP handler, which has its own and never touches the disk.
 */
#ifndef DROVER_BUS_H
#define DROVER_BUS_H

#include "common/err.h"
#include "common/loop.h"
#include "common/paths.h"
#include "proto/msg.h"

struct bus_server;
struct bus_client;

/* Who sent a message: valid during the callback; copy it. */
struct bus_peer {
	unsigned char route[16]; /* this connection */
	unsigned route_bytes;
	char name[LIMIT_NAME]; /* of its key */
	enum role role;
	char host[LIMIT_NAME]; /* agents: the host the key is for */
	char key[41];          /* its public key as text */
};

/* A decoded message; msg_free() is done by the bus after the callback. */
typedef void (*bus_server_fn)(void *ctx, const struct bus_peer *peer, const struct msg *msg);
/* A frame that did not decode (err says why), so that the server can answer MSG_ERROR. */
typedef void (*bus_bad_fn)(void *ctx, const struct bus_peer *peer, const struct err *err);

/* Binds `endpoint` ("tcp://127.0.0.1:*": any free port; "ipc://PATH") with the key in `key_file` (….cert_secret); lets
 * in who is in etc/authorized/ of `paths` (which must live as long). One server a loop. Callbacks must not free the
 * server. */
int bus_listen(struct bus_server **ret_server, struct loop *loop, const char *endpoint, const char *key_file,
               const struct paths *paths, bus_server_fn on_message, bus_bad_fn on_bad, void *ctx, struct err *err);
void bus_server_free(struct bus_server *server);
/* The endpoint as bound, with the real port. Lives as long as the server. */
const char *bus_endpoint(const struct bus_server *server);
/* Reads etc/authorized/ again; who is no longer in it is refused from the next message on. */
int bus_reload_keys(struct bus_server *server, struct err *err);
/* How many connections and messages were refused so far: unknown and revoked keys, claimed identities. */
uint64_t bus_refused_count(const struct bus_server *server);
/* 0: queued, which is not delivery. ERR_UNREACHABLE: the connection is gone or its queue is full. ERR_DENIED: the
 * peer's key was revoked. Never blocks. */
int bus_send(struct bus_server *server, const struct bus_peer *peer, const struct msg *msg, struct err *err);

typedef void (*bus_client_fn)(void *ctx, const struct msg *msg);

/* Connects (in the background, again and again, with back-off and jitter) with the key in key_file to the server whose
 * public key is in server_cert. */
int bus_connect(struct bus_client **ret_client, struct loop *loop, const char *endpoint, const char *key_file,
                const char *server_cert, bus_client_fn on_message, void *ctx, struct err *err);
void bus_client_free(struct bus_client *client);
/* Called when a connection comes up (after the handshake: say hello now) or goes down. */
void bus_on_connection(struct bus_client *client, void (*fn)(void *ctx, bool up), void *ctx);
/* 0: queued. ERR_UNREACHABLE: not connected now (nothing is kept for later), or the queue is full. Never blocks. */
int bus_client_send(struct bus_client *client, const struct msg *msg, struct err *err);
/* 0 if connected; else -1 and why not: ERR_DENIED (the server does not know our key), ERR_UNREACHABLE. */
int bus_client_status(const struct bus_client *client, struct err *err);

#endif
