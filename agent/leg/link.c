/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/link.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#define TURN_LOOK_MS 50 /* how long a waiting sender may take to see that it is cancelled */

/* A sender that waits; on its own stack. */
struct turn {
	TAILQ_ENTRY(turn) all;
};

struct posted {
	enum frame_type type;
	uint32_t bytes;
	unsigned char payload[LINK_POST_BYTES];
};

struct link {
	struct tls_conn *conn;
	struct link_handlers handlers;
	struct cancel *stop;
	pthread_t reader, poster;

	/* Senders in order of arrival (a mutex alone lets one busy sender starve the others); whose turn it is owns
	 * next_out, the send buffer and the writing side of the connection. */
	pthread_mutex_t turn_lock;
	pthread_cond_t turned;
	bool turn_taken;
	TAILQ_HEAD(turns, turn) turns;
	uint64_t next_out;
	unsigned char *out;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t wake;
	bool stopping;
	unsigned first, count;
	struct posted posted[LINK_POSTED_MAX];

	unsigned char *in;
	uint64_t next_in;
};

/* Header and payload in one buffer, so that a small frame is one TLS record. */
static int write_frame(struct tls_conn *conn, unsigned char *buffer, enum frame_type type, uint64_t number,
                       const void *payload, uint32_t bytes, const struct cancel *cancel, int timeout_ms,
                       struct err *err)
{
	if (bytes)
		memcpy(buffer + FRAME_HEADER_BYTES, payload, bytes);
	frame_header_put(buffer, type, number, buffer + FRAME_HEADER_BYTES, bytes);
	return tls_write(conn, buffer, FRAME_HEADER_BYTES + bytes, cancel, timeout_ms, err);
}

static int read_frame(struct tls_conn *conn, unsigned char *payload, uint64_t number, struct frame_header *ret_header,
                      const struct cancel *cancel, int timeout_ms, struct err *err)
{
	unsigned char header[FRAME_HEADER_BYTES];
	if (tls_read(conn, header, sizeof(header), cancel, timeout_ms, err) ||
	    frame_header_get(header, number, ret_header, err))
		return -1;
	if (ret_header->bytes && tls_read(conn, payload, ret_header->bytes, cancel, timeout_ms, err))
		return -1;
	return frame_payload_check(ret_header, payload, err);
}

int link_hello_send(struct tls_conn *conn, const struct frame_hello *hello, const struct cancel *cancel, int timeout_ms,
                    struct err *err)
{
	unsigned char *buffer = malloc(2 * (FRAME_HEADER_BYTES + sizeof(*hello)));
	if (!buffer)
		return err_set(err, ERR_NO_MEMORY, "hello");
	unsigned char *payload = buffer + FRAME_HEADER_BYTES + sizeof(*hello);
	uint32_t bytes = frame_hello_put(payload, hello);
	int rc = write_frame(conn, buffer, FRAME_HELLO, 0, payload, bytes, cancel, timeout_ms, err);
	free(buffer);
	return rc;
}

int link_hello_read(struct tls_conn *conn, struct frame_hello *ret_hello, const struct cancel *cancel, int timeout_ms,
                    struct err *err)
{
	struct frame_header header;
	unsigned char *payload = malloc(FRAME_PAYLOAD_MAX);
	if (!payload)
		return err_set(err, ERR_NO_MEMORY, "hello");
	int rc = read_frame(conn, payload, 0, &header, cancel, timeout_ms, err);
	if (!rc && header.type != FRAME_HELLO)
		rc = err_set(err, ERR_PROTOCOL, "%s frame where a hello is due", frame_type_name(header.type));
	if (!rc)
		rc = frame_hello_get(payload, header.bytes, ret_hello, err);
	free(payload);
	return rc;
}

static void *reader_main(void *arg)
{
	struct link *link = arg;
	struct err err = { 0 };
	struct frame_header header;
	for (;;) {
		if (read_frame(link->conn, link->in, link->next_in, &header, link->stop, LINK_SILENCE_MS, &err))
			break;
		link->next_in++;
		if (header.type == FRAME_PING)
			continue;
		if (link->handlers.frame(link->handlers.ctx, header.type, link->in, header.bytes, &err))
			break;
	}
	link->handlers.down(link->handlers.ctx, &err);
	return NULL;
}

/* The next posted frame, or a ping when nothing was posted for LINK_PING_MS. False: the link stops. */
static bool next_posted(struct link *link, struct posted *ret_posted)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += LINK_PING_MS / 1000;
	ret_posted->type = FRAME_PING;
	ret_posted->bytes = 0;
	pthread_mutex_lock(&link->lock);
	while (!link->count && !link->stopping)
		if (pthread_cond_timedwait(&link->wake, &link->lock, &until) == ETIMEDOUT)
			break;
	if (link->count) {
		*ret_posted = link->posted[link->first];
		link->first = (link->first + 1) % LINK_POSTED_MAX;
		link->count--;
	}
	/* What was posted before the stop still goes out. */
	bool go_on = ret_posted->type != FRAME_PING || !link->stopping;
	pthread_mutex_unlock(&link->lock);
	return go_on;
}

static void *poster_main(void *arg)
{
	struct link *link = arg;
	struct posted posted;
	while (next_posted(link, &posted))
		if (link_send(link, posted.type, posted.payload, posted.bytes, link->stop, NULL))
			break; /* the reader will notice, or has */
	return NULL;
}

static void link_free(struct link *link)
{
	tls_close(link->conn);
	cancel_free(link->stop);
	pthread_mutex_destroy(&link->turn_lock);
	pthread_cond_destroy(&link->turned);
	pthread_mutex_destroy(&link->lock);
	pthread_cond_destroy(&link->wake);
	free(link->in);
	free(link->out);
	free(link);
}

int link_start(struct link **ret_link, struct tls_conn *conn, const struct link_handlers *handlers, struct err *err)
{
	struct link *link = calloc(1, sizeof(*link));
	if (!link) {
		tls_close(conn);
		return err_set(err, ERR_NO_MEMORY, "stream 0");
	}
	link->conn = conn;
	link->handlers = *handlers;
	link->next_in = link->next_out = 1; /* the hellos were 0 */
	TAILQ_INIT(&link->turns);
	pthread_mutex_init(&link->turn_lock, NULL);
	pthread_mutex_init(&link->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&link->turned, &attr);
	pthread_cond_init(&link->wake, &attr);
	pthread_condattr_destroy(&attr);
	link->in = malloc(FRAME_PAYLOAD_MAX);
	link->out = malloc(FRAME_HEADER_BYTES + FRAME_PAYLOAD_MAX);
	link->stop = cancel_new(err);
	if (!link->in || !link->out || !link->stop) {
		link_free(link);
		return err_set(err, ERR_NO_MEMORY, "stream 0");
	}
	if (pthread_create(&link->reader, NULL, reader_main, link)) {
		link_free(link);
		return err_set(err, ERR_NO_MEMORY, "stream 0: thread");
	}
	if (pthread_create(&link->poster, NULL, poster_main, link)) {
		cancel_fire(link->stop);
		pthread_join(link->reader, NULL);
		link_free(link);
		return err_set(err, ERR_NO_MEMORY, "stream 0: thread");
	}
	*ret_link = link;
	return 0;
}

void link_stop(struct link *link)
{
	if (!link)
		return;
	pthread_mutex_lock(&link->lock);
	link->stopping = true;
	pthread_cond_signal(&link->wake);
	pthread_mutex_unlock(&link->lock);
	/* The last posted frames get a moment; a peer that takes nothing does not hold us up. */
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until); /* the join that ThreadSanitizer sees knows no other clock */
	until.tv_nsec += 200 * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	bool joined = pthread_timedjoin_np(link->poster, NULL, &until) == 0;
	cancel_fire(link->stop);
	if (!joined)
		pthread_join(link->poster, NULL);
	pthread_join(link->reader, NULL);
	link_free(link);
}

static void turn_wait(struct link *link)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TURN_LOOK_MS * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&link->turned, &link->turn_lock, &until);
}

/* False: cancelled first. Whoever has the turn may have another switch, and sit before a peer that takes nothing. */
static bool turn_take(struct link *link, const struct cancel *cancel)
{
	struct turn mine;
	bool cancelled = false;
	pthread_mutex_lock(&link->turn_lock);
	TAILQ_INSERT_TAIL(&link->turns, &mine, all);
	while ((link->turn_taken || TAILQ_FIRST(&link->turns) != &mine) && !cancelled) {
		turn_wait(link);
		cancelled = cancel && cancel_fired(cancel);
	}
	TAILQ_REMOVE(&link->turns, &mine, all);
	if (!cancelled)
		link->turn_taken = true;
	pthread_cond_broadcast(&link->turned); /* another one may be the first now */
	pthread_mutex_unlock(&link->turn_lock);
	return !cancelled;
}

static void turn_give(struct link *link)
{
	pthread_mutex_lock(&link->turn_lock);
	link->turn_taken = false;
	pthread_cond_broadcast(&link->turned);
	pthread_mutex_unlock(&link->turn_lock);
}

int link_send(struct link *link, enum frame_type type, const void *payload, uint32_t bytes, const struct cancel *cancel,
              struct err *err)
{
	if (bytes > FRAME_PAYLOAD_MAX)
		return err_set(err, ERR_INTERNAL, "frame of %u bytes", bytes);
	if (!turn_take(link, cancel))
		return err_set(err, ERR_CANCELLED, "cancelled");
	int rc = -1;
	if (cancel && cancel_fired(cancel))
		err_set(err, ERR_CANCELLED, "cancelled");
	else
		rc = write_frame(link->conn, link->out, type, link->next_out++, payload, bytes, cancel, LINK_SILENCE_MS,
		                 err);
	turn_give(link);
	return rc;
}

void link_post(struct link *link, enum frame_type type, const void *payload, uint32_t bytes)
{
	pthread_mutex_lock(&link->lock);
	if (link->count < LINK_POSTED_MAX && bytes <= LINK_POST_BYTES && !link->stopping) {
		struct posted *posted = &link->posted[(link->first + link->count++) % LINK_POSTED_MAX];
		posted->type = type;
		posted->bytes = bytes;
		if (bytes)
			memcpy(posted->payload, payload, bytes);
		pthread_cond_signal(&link->wake);
	}
	pthread_mutex_unlock(&link->lock);
}
