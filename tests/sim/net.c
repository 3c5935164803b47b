/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * common/bus.h over a simulated network: messages go as the bytes that the codec makes, and may be lost, doubled, late
 * or in another order; connections go down when a link is cut or an end dies, and are tried again.
 */
#include "common/bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/world.h"

#define LATENCY_LEAST (200)
#define LATENCY_MOST (3 * MS)
#define CONNECT_PAUSE_MOST (2 * SECOND)
#define NOTICE_MOST (8 * SECOND) /* until a silent cut is noticed */

struct bus_server {
	struct proc *proc;
	bus_server_fn on_message;
	bus_bad_fn on_bad;
	void *ctx;
};

struct bus_client {
	struct bus_client *next;
	struct proc *proc;
	struct machine *machine; /* NULL: the operator's */
	bus_client_fn on_message;
	void (*on_connection)(void *ctx, bool up);
	void *ctx, *connection_ctx;
	uint64_t connection; /* 0: none */
	int64_t last_us[2];  /* when the newest message of each direction arrives */
};

static struct {
	struct bus_server *server;
	struct bus_client *clients;
	uint64_t connections;
} net;

static void try_connect(void *ctx, uint64_t unused);

static bool is_cut(const struct bus_client *client)
{
	return client->machine && client->machine->cut;
}

static const char *name_of(const struct bus_client *client)
{
	return client->machine ? client->machine->name : "operator";
}

static struct bus_client *client_of(uint64_t connection)
{
	for (struct bus_client *c = net.clients; c; c = c->next)
		if (c->connection == connection)
			return c;
	return NULL;
}

/* ---- connections ---- */

static void again(struct bus_client *client)
{
	event_add(chance_us(50 * MS, CONNECT_PAUSE_MOST), client->proc->pid, try_connect, client, 0, false);
}

static void go_down(void *ctx, uint64_t connection)
{
	struct bus_client *client = ctx;
	if (client->connection != connection)
		return;
	client->connection = 0;
	trace("connection %llu of %s is down", (unsigned long long)connection, name_of(client));
	if (client->on_connection)
		client->on_connection(client->connection_ctx, false);
	again(client);
}

static void try_connect(void *ctx, uint64_t unused)
{
	struct bus_client *client = ctx;
	(void)unused;
	if (client->connection)
		return;
	if (!net.server || is_cut(client)) {
		again(client);
		return;
	}
	client->connection = ++net.connections;
	trace("connection %llu of %s is up", (unsigned long long)client->connection, name_of(client));
	if (client->on_connection)
		client->on_connection(client->connection_ctx, true);
}

void net_client_links(struct machine *machine)
{
	if (!machine->cut)
		return;
	for (struct bus_client *c = net.clients; c; c = c->next)
		if (c->machine == machine && c->connection)
			event_add(chance_us(0, NOTICE_MOST), c->proc->pid, go_down, c, c->connection, false);
}

/* ---- messages ---- */

struct packet {
	uint64_t connection;
	bool to_server;
	size_t bytes;
	unsigned char frame[];
};

static void to_server(struct bus_client *client, const struct packet *packet)
{
	struct bus_server *server = net.server;
	struct bus_peer peer = { .role = client->machine ? ROLE_AGENT : ROLE_OPERATOR };
	struct msg *msg = calloc(1, sizeof(*msg));
	struct err err = { 0 };
	if (!msg)
		abort();
	memcpy(peer.route, &packet->connection, sizeof(packet->connection));
	peer.route_bytes = sizeof(packet->connection);
	(void)snprintf(peer.name, sizeof(peer.name), "%s", name_of(client));
	(void)snprintf(peer.key, sizeof(peer.key), "key of %.30s", name_of(client));
	if (client->machine)
		(void)snprintf(peer.host, sizeof(peer.host), "%s", client->machine->name);
	if (msg_decode(packet->frame, packet->bytes, msg, &err) == 0) {
		server->on_message(server->ctx, &peer, msg);
		msg_free(msg);
	} else {
		server->on_bad(server->ctx, &peer, &err);
	}
	free(msg);
}

static void to_client(struct bus_client *client, const struct packet *packet)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	struct err err = { 0 };
	if (!msg)
		abort();
	if (msg_decode(packet->frame, packet->bytes, msg, &err) == 0) {
		client->on_message(client->ctx, msg);
		msg_free(msg);
	} else {
		promise_broken("what is sent can be read", "%s: %s", name_of(client), err.text);
	}
	free(msg);
}

static void arrive(void *ctx, uint64_t unused)
{
	struct packet *packet = ctx;
	struct bus_client *client = client_of(packet->connection);
	(void)unused;
	if (!client || !net.server || is_cut(client))
		return; /* lost with its connection */
	if (packet->to_server)
		to_server(client, packet);
	else
		to_client(client, packet);
}

static void carry(const struct packet *like, const void *frame, int64_t after_us, unsigned pid)
{
	struct packet *packet = malloc(sizeof(*packet) + like->bytes);
	if (!packet)
		abort();
	*packet = *like;
	memcpy(packet->frame, frame, like->bytes);
	event_add(after_us, pid, arrive, packet, 0, true);
}

static int transmit(struct bus_client *client, bool towards_server, const struct msg *msg, struct err *err)
{
	void *frame = NULL;
	size_t bytes = 0;
	if (proc_is_dying())
		return err_set(err, ERR_UNREACHABLE, "dying");
	if (msg_encode(msg, &frame, &bytes, err) < 0)
		return -1;
	struct packet packet = { client->connection, towards_server, bytes };
	unsigned pid = towards_server ? net.server->proc->pid : client->proc->pid;
	int64_t after_us = chance_us(LATENCY_LEAST, LATENCY_MOST);
	int64_t *last_us = &client->last_us[towards_server];
	world.messages++;
	if (fault_happens(FAULT_DELAY))
		after_us += chance_us(50 * MS, 12 * SECOND);
	if (!fault_happens(FAULT_REORDER)) {
		if (world_now_us + after_us < *last_us)
			after_us = *last_us - world_now_us;
		*last_us = world_now_us + after_us;
	}
	if (fault_happens(FAULT_LOSE))
		trace("%s of %s, migration %llu, is lost", msg_kind_name(msg->kind), name_of(client),
		      (unsigned long long)msg->migration);
	else
		carry(&packet, frame, after_us, pid);
	if (fault_happens(FAULT_DOUBLE))
		carry(&packet, frame, after_us + chance_us(0, 5 * SECOND), pid);
	free(frame);
	return 0;
}

/* ---- the coordinator's end ---- */

int bus_listen(struct bus_server **ret_server, struct loop *loop, const char *endpoint, const char *key_file,
               const struct paths *paths, bus_server_fn on_message, bus_bad_fn on_bad, void *ctx, struct err *err)
{
	(void)loop, (void)endpoint, (void)key_file, (void)paths;
	if (net.server)
		return err_set(err, ERR_BUSY, "somebody listens already");
	struct bus_server *server = calloc(1, sizeof(*server));
	if (!server)
		return err_set(err, ERR_NO_MEMORY, "listen");
	*server = (struct bus_server) { world_current, on_message, on_bad, ctx };
	*ret_server = net.server = server;
	return 0;
}

void bus_server_free(struct bus_server *server)
{
	if (!server)
		return;
	net.server = NULL;
	for (struct bus_client *c = net.clients; c; c = c->next)
		if (c->connection)
			event_add(chance_us(1 * MS, 20 * MS), c->proc->pid, go_down, c, c->connection, false);
	free(server);
}

const char *bus_endpoint(const struct bus_server *server)
{
	(void)server;
	return "sim";
}

int bus_reload_keys(struct bus_server *server, struct err *err)
{
	(void)server, (void)err;
	return 0;
}

int bus_send(struct bus_server *server, const struct bus_peer *peer, const struct msg *msg, struct err *err)
{
	uint64_t connection = 0;
	(void)server;
	memcpy(&connection, peer->route, sizeof(connection));
	struct bus_client *client = connection ? client_of(connection) : NULL;
	if (!client)
		return err_set(err, ERR_UNREACHABLE, "send to %s: its connection is gone", peer->name);
	return transmit(client, false, msg, err);
}

/* ---- the clients' ends ---- */

int bus_connect(struct bus_client **ret_client, struct loop *loop, const char *endpoint, const char *key_file,
                const char *server_cert, bus_client_fn on_message, void *ctx, struct err *err)
{
	(void)loop, (void)endpoint, (void)key_file, (void)server_cert;
	struct bus_client *client = calloc(1, sizeof(*client));
	if (!client)
		return err_set(err, ERR_NO_MEMORY, "connect");
	client->proc = world_current;
	client->machine = world_current->machine;
	client->on_message = on_message;
	client->ctx = ctx;
	client->next = net.clients;
	net.clients = client;
	event_add(chance_us(1 * MS, 50 * MS), client->proc->pid, try_connect, client, 0, false);
	*ret_client = client;
	return 0;
}

void bus_client_free(struct bus_client *client)
{
	struct bus_client **at = &net.clients;
	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	free(client);
}

void bus_on_connection(struct bus_client *client, void (*fn)(void *ctx, bool up), void *ctx)
{
	client->on_connection = fn;
	client->connection_ctx = ctx;
}

int bus_client_send(struct bus_client *client, const struct msg *msg, struct err *err)
{
	if (!client->connection || !net.server)
		return err_set(err, ERR_UNREACHABLE, "not connected");
	return transmit(client, true, msg, err);
}
