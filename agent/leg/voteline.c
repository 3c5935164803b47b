/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/voteline.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/leg/net.h"
#include "agent/leg/relay.h"
#include "common/log.h"

#define CALL_MS 5000  /* to connect and to say hello */
#define PAUSE_MS 1000 /* between two calls */

struct voteline {
	struct leg *leg;
	struct cancel *cancel;
	struct relays *relays;
	int listen_fd; /* destination */
	pthread_t caller;
	bool calls;                  /* source: the thread runs */
	pthread_mutex_t attach_lock; /* one link at a time takes the other's place */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool up; /* under lock */
};

/* ---- the link, on either side ---- */
static int on_frame(void *ctx, enum frame_type type, const unsigned char *payload, uint32_t bytes, struct err *err)
{
	struct voteline *line = ctx;
	struct verdict_facts facts;
	if (type != FRAME_FACTS)
		return err_set(err, ERR_PROTOCOL, "%s frame on the line for votes", frame_type_name(type));
	if (frame_facts_get(payload, bytes, &facts, err))
		return -1;
	leg_post_learn(line->leg, &facts);
	return 0;
}

static void on_down(void *ctx, const struct err *cause)
{
	struct voteline *line = ctx;
	log_info("event=vote-line-down migration=%" PRIu64 " error=\"%s\"", line->leg->options.migration, cause->text);
	pthread_mutex_lock(&line->lock);
	line->up = false;
	pthread_cond_broadcast(&line->changed);
	pthread_mutex_unlock(&line->lock);
}

static void wake(void *ctx)
{
	struct voteline *line = ctx;
	pthread_mutex_lock(&line->lock);
	pthread_cond_broadcast(&line->changed);
	pthread_mutex_unlock(&line->lock);
}

/* Takes conn, also on failure. */
static int attach_locked(struct voteline *line, struct tls_conn *conn)
{
	struct leg *leg = line->leg;
	const struct link_handlers handlers = { line, on_frame, on_down };
	struct link *link = NULL;
	struct err err = { 0 };
	link_stop(leg_link_take(leg)); /* the one that broke */
	pthread_mutex_lock(&line->lock);
	line->up = true;
	pthread_mutex_unlock(&line->lock);
	if (link_start(&link, conn, &handlers, &err)) {
		on_down(line, &err);
		return -1;
	}
	leg_link_set(leg, link);
	log_notice("event=vote-line migration=%" PRIu64 " side=%s", leg->options.migration,
	           side_name(leg->options.side));
	leg_post_link_up(leg);
	return 0;
}

static int attach(struct voteline *line, struct tls_conn *conn)
{
	pthread_mutex_lock(&line->attach_lock);
	int rc = attach_locked(line, conn);
	pthread_mutex_unlock(&line->attach_lock);
	return rc;
}

static bool is_for_us(const struct leg *leg, const struct frame_hello *hello)
{
	return hello->migration == leg->options.migration && hello->generation == leg->options.generation &&
	       hello->side == SIDE_DESTINATION && hello->stream == 0;
}

/* ---- source ---- */
static int call(struct voteline *line, struct err *err)
{
	struct leg *leg = line->leg;
	struct tls_conn *conn = NULL;
	struct frame_hello *hello = calloc(1, sizeof(*hello));
	if (!hello)
		return err_set(err, ERR_NO_MEMORY, "hello");
	int rc = relays_dial_link(line->relays, leg->endpoint, CALL_MS, &conn, err);
	if (!rc && (link_hello_read(conn, hello, line->cancel, CALL_MS, err) ||
	            (!is_for_us(leg, hello) && err_set(err, ERR_PROTOCOL, "a hello for something else")))) {
		tls_close(conn);
		rc = -1;
	}
	free(hello);
	return rc ? -1 : attach(line, conn);
}

static void *caller_main(void *arg)
{
	struct voteline *line = arg;
	struct err err = { 0 };
	while (!cancel_fired(line->cancel)) {
		if (call(line, &err))
			log_debug("event=vote-line-call migration=%" PRIu64 " error=\"%s\"",
			          line->leg->options.migration, err.text);
		pthread_mutex_lock(&line->lock);
		while (line->up && !cancel_fired(line->cancel))
			pthread_cond_wait(&line->changed, &line->lock);
		pthread_mutex_unlock(&line->lock);
		cancel_poll(line->cancel, -1, 0, PAUSE_MS, NULL);
	}
	return NULL;
}

/* ---- destination ---- */
static int answer(struct voteline *line, struct tls_conn *conn)
{
	struct leg *leg = line->leg;
	struct frame_hello *hello = calloc(1, sizeof(*hello));
	if (!hello)
		return -1;
	hello->migration = leg->options.migration;
	hello->generation = leg->options.generation;
	hello->side = SIDE_DESTINATION;
	int rc = link_hello_send(conn, hello, line->cancel, CALL_MS, NULL);
	free(hello);
	if (!rc)
		(void)attach(line, conn);
	return rc;
}

static int on_call(void *ctx, struct tls_conn *conn)
{
	return answer(ctx, conn);
}

static int no_backend(void *ctx, uint32_t disk, struct err *err)
{
	(void)ctx;
	return err_set(err, ERR_EXPORTER, "disk %u: its write path is closed", disk);
}

int voteline_adopt(struct leg *leg, struct tls_conn *conn)
{
	struct voteline *line = atomic_load(&leg->line);
	return line ? answer(line, conn) : -1;
}

/* ---- when ---- */
void voteline_free(struct voteline *line)
{
	if (!line)
		return;
	if (line->cancel)
		cancel_fire(line->cancel);
	if (line->calls)
		pthread_join(line->caller, NULL);
	relays_free(line->relays);
	if (line->listen_fd >= 0)
		close(line->listen_fd);
	link_stop(leg_link_take(line->leg));
	cancel_free(line->cancel);
	pthread_mutex_destroy(&line->attach_lock);
	pthread_mutex_destroy(&line->lock);
	pthread_cond_destroy(&line->changed);
	free(line);
}

static int start(struct voteline *line, struct err *err)
{
	struct leg *leg = line->leg;
	const struct relay_setup setup = { .identity = leg->identity,
		                           .cancel = line->cancel,
		                           .wire = &leg->wire_bytes,
		                           .migration = leg->options.migration,
		                           .generation = leg->options.generation,
		                           .ctx = line,
		                           .link = on_call,
		                           .backend = no_backend };
	if (relays_new(&line->relays, &setup, err) || cancel_add(line->cancel, wake, line, err))
		return -1;
	if (leg->options.side == SIDE_DESTINATION)
		return 0; /* listens as soon as the copy does not any more */
	if (pthread_create(&line->caller, NULL, caller_main, line))
		return err_set(err, ERR_NO_MEMORY, "vote line: thread");
	line->calls = true;
	return 0;
}

/* Destination: the copy's own acceptor has ended, or there never was one. */
static bool takes_no_more(const struct leg *leg)
{
	return leg->options.recover || cancel_fired(leg->work);
}

/* In a switchover whose connections are gone: for the source once it has sent all, for the destination once it takes
 * no more. */
static bool is_due(const struct leg *leg)
{
	if (!leg->local.granted || !*leg->endpoint || leg->released || leg->recovering)
		return false;
	if (leg->options.side == SIDE_DESTINATION)
		return leg->local.complete || takes_no_more(leg);
	bool broken = leg->options.recover || atomic_load(&leg->link_lost);
	return broken && leg->facts.stream_ended && !leg->settled && !(leg->busy & JOB_COPY);
}

static void tend(struct voteline *line)
{
	struct leg *leg = line->leg;
	struct err err = { 0 };
	if (leg->options.side == SIDE_SOURCE) {
		if (leg->settled || leg->released)
			cancel_fire(line->cancel);
		return;
	}
	if (line->listen_fd >= 0 || !takes_no_more(leg) || leg->released)
		return;
	/* The copy's socket may still hold the port for a moment: tried again. */
	if (net_listen_at(leg->endpoint, &line->listen_fd, &err) || relays_serve(line->relays, line->listen_fd, &err))
		log_debug("event=vote-line-not-served migration=%" PRIu64 " error=\"%s\"", leg->options.migration,
		          err.text);
}

void voteline_tick(struct leg *leg)
{
	struct voteline *line = atomic_load(&leg->line);
	struct err err = { 0 };
	if (leg_now_ms() < leg->line_at_ms)
		return;
	leg->line_at_ms = leg_now_ms() + PAUSE_MS;
	if (line) {
		tend(line);
		return;
	}
	if (!is_due(leg))
		return;
	line = calloc(1, sizeof(*line));
	if (!line)
		return; /* tried again */
	line->leg = leg;
	line->listen_fd = -1;
	pthread_mutex_init(&line->attach_lock, NULL);
	pthread_mutex_init(&line->lock, NULL);
	pthread_cond_init(&line->changed, NULL);
	line->cancel = cancel_new(&err);
	if (line->cancel && start(line, &err) == 0) {
		atomic_store(&leg->line, line);
		if (leg->options.side == SIDE_DESTINATION)
			tend(line);
		return;
	}
	log_debug("event=vote-line-not-started migration=%" PRIu64 " error=\"%s\"", leg->options.migration, err.text);
	voteline_free(line);
}
