/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/leg/link.h"
#include "agent/leg/net.h"
#include "common/clock.h"
#include "common/log.h"

#define ACCEPT_PAUSE_MS 100

/* ---- one relay ---- */
struct flow {
	unsigned char *buffer;
	size_t at, end; /* what is in it */
};

struct relay {
	struct tls_conn *conn;
	int fd;
	struct flow up, down; /* fd to peer, peer to fd */
	bool fd_ended, peer_ended;
	short fd_events, tls_events; /* what we wait for */
};

/* 1: something moved, 0: nothing could, -1: failed. */
static int relay_up(struct relay *relay, struct disk_limit *limit, struct err *err)
{
	int moved = 0;
	if (relay->up.at == relay->up.end && !relay->fd_ended) {
		ssize_t n = recv(relay->fd, relay->up.buffer, RELAY_BUFFER_BYTES, MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNRESET)
			return err_errno(err, ERR_IO, errno, "read from the local end of a disk stream");
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			relay->fd_ended = true;
		else if (n < 0)
			relay->fd_events |= POLLIN;
		else {
			relay->up.at = 0;
			relay->up.end = (size_t)n;
			if (limit && disk_limit_take(limit, (uint64_t)n))
				return err_set(err, ERR_CANCELLED, "cancelled");
		}
		moved |= n >= 0;
	}
	while (relay->up.at < relay->up.end) {
		ssize_t n = tls_try_write(relay->conn, relay->up.buffer + relay->up.at, relay->up.end - relay->up.at,
		                          &relay->tls_events, err);
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		relay->up.at += (size_t)n;
		moved = 1;
	}
	return moved;
}

static int relay_down(struct relay *relay, void (*arrived)(void *ctx, uint64_t bytes), void *ctx, struct err *err)
{
	int moved = 0;
	if (relay->down.at == relay->down.end)
		relay->down.at = relay->down.end = 0;
	while (relay->down.end < RELAY_BUFFER_BYTES && !relay->peer_ended) {
		short events = 0;
		struct err why = { 0 };
		ssize_t n = tls_try_read(relay->conn, relay->down.buffer + relay->down.end,
		                         RELAY_BUFFER_BYTES - relay->down.end, &events, &why);
		relay->tls_events |= events;
		if (n < 0 && why.code != ERR_PEER_LOST) {
			if (err)
				*err = why;
			return -1;
		}
		relay->peer_ended = n < 0;
		if (n <= 0)
			break;
		relay->down.end += (size_t)n;
		moved = 1;
	}
	while (relay->down.at < relay->down.end) {
		ssize_t n = send(relay->fd, relay->down.buffer + relay->down.at, relay->down.end - relay->down.at,
		                 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			relay->fd_events |= POLLOUT;
			break;
		}
		if (n < 0)
			return err_errno(err, ERR_IO, errno, "write to the local end of a disk stream");
		relay->down.at += (size_t)n;
		if (arrived)
			arrived(ctx, (uint64_t)n);
		moved = 1;
	}
	return moved;
}

static int relay_wait(const struct relay *relay, const struct cancel *cancel, struct err *err)
{
	/* An event nobody asked for (hang-up of a side that still has to take bytes) must not make us spin. */
	struct pollfd fds[3] = { { .fd = cancel ? cancel_fd(cancel) : -1, .events = POLLIN },
		                 { .fd = relay->fd_events ? relay->fd : -1, .events = relay->fd_events },
		                 { .fd = relay->tls_events ? tls_fd(relay->conn) : -1, .events = relay->tls_events } };
	if (poll(fds, 3, -1) < 0 && errno != EINTR)
		return err_errno(err, ERR_IO, errno, "poll");
	return 0;
}

static int relay_loop(struct relay *relay, const struct cancel *cancel, struct disk_limit *limit,
                      void (*arrived)(void *ctx, uint64_t bytes), void *ctx, struct err *err)
{
	for (;;) {
		relay->fd_events = relay->tls_events = 0;
		if (cancel && cancel_fired(cancel))
			return err_set(err, ERR_CANCELLED, "cancelled");
		int up = relay_up(relay, limit, err);
		int down = up < 0 ? -1 : relay_down(relay, arrived, ctx, err);
		if (down < 0)
			return -1;
		if ((relay->fd_ended && relay->up.at == relay->up.end) ||
		    (relay->peer_ended && relay->down.at == relay->down.end))
			return 0;
		if (!up && !down && relay_wait(relay, cancel, err))
			return -1;
	}
}

int relay_run(struct tls_conn *conn, int fd, const struct cancel *cancel, struct disk_limit *limit,
              void (*arrived)(void *ctx, uint64_t bytes), void *ctx, struct err *err)
{
	struct relay relay = { .conn = conn, .fd = fd };
	int rc = -1;
	relay.up.buffer = malloc(RELAY_BUFFER_BYTES);
	relay.down.buffer = malloc(RELAY_BUFFER_BYTES);
	if (relay.up.buffer && relay.down.buffer)
		rc = relay_loop(&relay, cancel, limit, arrived, ctx, err);
	else
		err_set(err, ERR_NO_MEMORY, "relay buffers");
	free(relay.up.buffer);
	free(relay.down.buffer);
	return rc;
}

/* ---- all of them ---- */
enum slot_state {
	SLOT_FREE = 0,
	SLOT_PENDING, /* accepted, has proven nothing */
	SLOT_RUNNING,
	SLOT_ENDED, /* the thread is to be joined */
};

struct slot {
	struct relays *relays;
	enum slot_state state; /* under relays->lock */
	bool evicted;          /* under relays->lock */
	pthread_t thread;
	int fd; /* pending: the accepted socket; source: the far end of the pair */
	struct tls_conn *conn;
	int64_t since_ms;
	uint32_t disk;
};

struct relays {
	struct relay_setup setup;
	pthread_mutex_t lock;
	struct slot slots[RELAY_STREAMS_MAX + RELAY_PENDING_MAX];
	bool serving;
	int listen_fd;
	pthread_t acceptor;
};

#define SLOTS (RELAY_STREAMS_MAX + RELAY_PENDING_MAX)

int relays_new(struct relays **ret_relays, const struct relay_setup *setup, struct err *err)
{
	struct relays *relays = calloc(1, sizeof(*relays));
	if (!relays)
		return err_set(err, ERR_NO_MEMORY, "data connections");
	relays->setup = *setup;
	pthread_mutex_init(&relays->lock, NULL);
	for (unsigned i = 0; i < SLOTS; i++)
		relays->slots[i].relays = relays;
	*ret_relays = relays;
	return 0;
}

static void slot_set(struct slot *slot, enum slot_state state)
{
	pthread_mutex_lock(&slot->relays->lock);
	slot->state = state;
	pthread_mutex_unlock(&slot->relays->lock);
}

/* A free slot in `state`; joins threads that have ended. NULL: all are taken. */
static struct slot *slot_take(struct relays *relays, enum slot_state state, int fd)
{
	struct slot *found = NULL;
	pthread_mutex_lock(&relays->lock);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = &relays->slots[i];
		if (slot->state == SLOT_ENDED) {
			pthread_join(slot->thread, NULL); /* its last act was to say so */
			slot->state = SLOT_FREE;
		}
		if (!found && slot->state == SLOT_FREE)
			found = slot;
	}
	if (found) {
		found->state = state;
		found->evicted = false;
		found->conn = NULL;
		found->fd = fd;
		found->since_ms = clock_ms(&clock_real);
	}
	pthread_mutex_unlock(&relays->lock);
	return found;
}

void relays_free(struct relays *relays)
{
	if (!relays)
		return;
	if (relays->serving)
		pthread_join(relays->acceptor, NULL);
	for (unsigned i = 0; i < SLOTS; i++) {
		pthread_mutex_lock(&relays->lock);
		bool joinable = relays->slots[i].state != SLOT_FREE;
		pthread_mutex_unlock(&relays->lock);
		if (joinable)
			pthread_join(relays->slots[i].thread, NULL);
	}
	pthread_mutex_destroy(&relays->lock);
	free(relays);
}

static struct frame_hello hello_of(const struct relays *relays, enum side side, uint32_t stream)
{
	return (struct frame_hello) { .migration = relays->setup.migration,
		                      .generation = relays->setup.generation,
		                      .side = side,
		                      .stream = stream };
}

/* ---- source ---- */
static int dial(struct relays *relays, const char *endpoint, uint32_t stream, int timeout_ms,
                struct tls_conn **ret_conn, struct err *err)
{
	const struct relay_setup *setup = &relays->setup;
	struct tls_conn *conn = NULL;
	struct frame_hello hello = hello_of(relays, SIDE_SOURCE, stream);
	int fd = -1;
	if (net_connect(endpoint, &fd, setup->cancel, timeout_ms, err) ||
	    tls_open(&conn, setup->identity, TLS_CLIENT, fd, setup->cancel, timeout_ms, setup->wire, err))
		return -1;
	if (link_hello_send(conn, &hello, setup->cancel, timeout_ms, err)) {
		tls_close(conn);
		return -1;
	}
	*ret_conn = conn;
	return 0;
}

int relays_dial_link(struct relays *relays, const char *endpoint, int timeout_ms, struct tls_conn **ret_conn,
                     struct err *err)
{
	return dial(relays, endpoint, 0, timeout_ms, ret_conn, err);
}

static void *dialled_main(void *arg)
{
	struct slot *slot = arg;
	const struct relay_setup *setup = &slot->relays->setup;
	relay_run(slot->conn, slot->fd, setup->cancel, setup->limit, NULL, NULL, NULL);
	tls_close(slot->conn);
	close(slot->fd);
	slot_set(slot, SLOT_ENDED);
	return NULL;
}

int relays_dial_disk(struct relays *relays, const char *endpoint, uint32_t disk, int timeout_ms, int *ret_fd,
                     struct err *err)
{
	int pair[2];
	struct tls_conn *conn = NULL;
	if (dial(relays, endpoint, disk + 1, timeout_ms, &conn, err))
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		tls_close(conn);
		return err_errno(err, ERR_IO, errno, "socketpair");
	}
	struct slot *slot = slot_take(relays, SLOT_RUNNING, pair[1]);
	if (slot) {
		slot->conn = conn;
		if (pthread_create(&slot->thread, NULL, dialled_main, slot) == 0) {
			*ret_fd = pair[0];
			return 0;
		}
		slot_set(slot, SLOT_FREE);
	}
	tls_close(conn);
	close(pair[0]);
	close(pair[1]);
	return err_set(err, ERR_NO_MEMORY, "too many data connections");
}

/* ---- destination ---- */
/* TLS gets a second descriptor, so that an eviction can shut the socket down whoever owns the first. */
static bool prove(struct slot *slot, struct frame_hello *ret_hello)
{
	const struct relay_setup *setup = &slot->relays->setup;
	struct tls_conn *conn = NULL;
	int64_t deadline_ms = slot->since_ms + RELAY_HELLO_MS;
	int fd = fcntl(slot->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || tls_open(&conn, setup->identity, TLS_SERVER, fd, setup->cancel, net_left_ms(deadline_ms),
	                       setup->wire, NULL))
		return false;
	if (link_hello_read(conn, ret_hello, setup->cancel, net_left_ms(deadline_ms), NULL) ||
	    ret_hello->migration != setup->migration || ret_hello->generation != setup->generation ||
	    ret_hello->side != SIDE_SOURCE || ret_hello->disk_count) {
		tls_close(conn);
		return false;
	}
	slot->conn = conn;
	return true;
}

static void on_arrived(void *ctx, uint64_t bytes)
{
	const struct slot *slot = ctx;
	slot->relays->setup.arrived(slot->relays->setup.ctx, slot->disk, bytes);
}

static void serve_disk(struct slot *slot)
{
	const struct relay_setup *setup = &slot->relays->setup;
	struct err err = { 0 };
	int fd = setup->backend(setup->ctx, slot->disk, &err);
	if (fd < 0) {
		log_warning("event=stream-refused migration=%llu disk=%u error=\"%s\"",
		            (unsigned long long)setup->migration, slot->disk, err.text);
	} else {
		relay_run(slot->conn, fd, setup->cancel, NULL, setup->arrived ? on_arrived : NULL, slot, NULL);
		close(fd);
	}
	tls_close(slot->conn);
}

static void *accepted_main(void *arg)
{
	struct slot *slot = arg;
	struct relays *relays = slot->relays;
	struct frame_hello hello;
	bool proven = prove(slot, &hello);
	pthread_mutex_lock(&relays->lock);
	slot->state = SLOT_RUNNING; /* not to be evicted any more */
	pthread_mutex_unlock(&relays->lock);
	if (!proven) {
		log_debug("event=connection-dropped migration=%llu", (unsigned long long)relays->setup.migration);
	} else if (hello.stream == 0) {
		if (relays->setup.link(relays->setup.ctx, slot->conn))
			tls_close(slot->conn);
	} else {
		slot->disk = hello.stream - 1;
		serve_disk(slot);
	}
	close(slot->fd);
	slot_set(slot, SLOT_ENDED);
	return NULL;
}

/* Makes room for a newcomer among the unproven: a stranger who only holds connections open keeps nobody out. */
static void evict_oldest(struct relays *relays)
{
	struct slot *oldest = NULL;
	unsigned pending = 0;
	pthread_mutex_lock(&relays->lock);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = &relays->slots[i];
		if (slot->state != SLOT_PENDING || slot->evicted)
			continue;
		pending++;
		if (!oldest || slot->since_ms < oldest->since_ms)
			oldest = slot;
	}
	if (pending >= RELAY_PENDING_MAX) {
		oldest->evicted = true;
		shutdown(oldest->fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&relays->lock);
}

static void accept_one(struct relays *relays)
{
	int fd = accept4(relays->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			cancel_poll(relays->setup.cancel, -1, 0, ACCEPT_PAUSE_MS, NULL); /* do not spin */
		return;
	}
	net_tune(fd);
	evict_oldest(relays);
	struct slot *slot = slot_take(relays, SLOT_PENDING, fd);
	if (slot && pthread_create(&slot->thread, NULL, accepted_main, slot) == 0)
		return;
	if (slot)
		slot_set(slot, SLOT_FREE);
	close(fd);
}

static void *acceptor_main(void *arg)
{
	struct relays *relays = arg;
	while (cancel_poll(relays->setup.cancel, relays->listen_fd, POLLIN, -1, NULL) >= 0)
		accept_one(relays);
	return NULL;
}

int relays_serve(struct relays *relays, int listen_fd, struct err *err)
{
	relays->listen_fd = listen_fd;
	if (pthread_create(&relays->acceptor, NULL, acceptor_main, relays))
		return err_set(err, ERR_NO_MEMORY, "accept data connections: thread");
	relays->serving = true;
	return 0;
}
