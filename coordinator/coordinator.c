/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Start, stop, and who gets which message. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/log.h"
#include "coordinator/coordinator_room.h"

#define ENDPOINT_FILE "coordinator.endpoint"

int64_t coordinator_now_ms(const struct coordinator *c)
{
	return clock_ms(c->clock);
}

int64_t coordinator_wall_ms(const struct coordinator *c)
{
	return c->clock->wall_ms(c->clock);
}

void coordinator_fail(struct coordinator *c, const struct err *err)
{
	if (!c->failed)
		log_error("event=stop code=%s text=\"%s\"", err_name(err->code), err->text);
	if (!c->failed)
		c->failure = *err;
	c->failed = true;
	loop_stop(c->loop);
}

bool coordinator_failed(const struct coordinator *coordinator)
{
	return coordinator->failed;
}

struct msg coordinator_msg(const struct coordinator *c, enum msg_kind kind)
{
	return (struct msg) { .version = PROTOCOL_VERSION, .epoch = store_epoch(c->store), .kind = kind };
}

bool coordinator_raise_epoch(struct coordinator *c, uint64_t seen, const char *by)
{
	struct err err;
	err_clear(&err);
	if (seen < store_epoch(c->store) || c->failed)
		return !c->failed;
	if (store_epoch_raise(c->store, seen, &err) != 0) {
		err_wrap(&err, "host %s has seen epoch %llu, ours cannot be raised above it", by,
		         (unsigned long long)seen);
		coordinator_fail(c, &err);
		return false;
	}
	log_warning("event=epoch-raised epoch=%llu host=%s seen=%llu: were the records put back from a backup?",
	            (unsigned long long)store_epoch(c->store), by, (unsigned long long)seen);
	coordinator_note(c, by, "epoch-raised", "epoch is now %llu: the host had seen %llu",
	                 (unsigned long long)store_epoch(c->store), (unsigned long long)seen);
	return !c->failed;
}

void coordinator_note(struct coordinator *c, const char *host, const char *kind, const char *format, ...)
{
	struct store_event event = { .migration = 0, .details = NULL };
	struct err err;
	va_list args;
	err_clear(&err);
	(void)snprintf(event.host, sizeof(event.host), "%s", host ? host : "");
	(void)snprintf(event.kind, sizeof(event.kind), "%s", kind);
	va_start(args, format);
	(void)vsnprintf(event.text, sizeof(event.text), format, args);
	va_end(args);
	if (!c->failed && store_event_add(c->store, &event, &err) != 0)
		coordinator_fail(c, &err);
}

int coordinator_reply(struct coordinator *c, const struct bus_peer *peer, uint64_t sequence,
                      const struct msg_reply *reply)
{
	struct err err;
	struct msg msg = coordinator_msg(c, MSG_REPLY);
	err_clear(&err);
	msg.sequence = sequence;
	msg.u.reply = *reply;
	if (bus_send(c->bus, peer, &msg, &err) == 0)
		return 0;
	log_warning("event=reply-lost key=%s code=%s text=\"%s\"", peer->name, err_name(err.code), err.text);
	if (err.code == ERR_UNREACHABLE)
		return -1;
	/* Not sendable as it is: the client is told at least that. */
	msg.u.reply = (struct msg_reply) { .code = ERR_INTERNAL, .exit_code = 1 };
	(void)snprintf(msg.u.reply.text, sizeof(msg.u.reply.text), "%.300s", err.text);
	return bus_send(c->bus, peer, &msg, NULL);
}

static void send_error(struct coordinator *c, const struct bus_peer *peer, enum err_code code, const char *text)
{
	struct msg msg = coordinator_msg(c, MSG_ERROR);
	(void)err_set(&msg.u.error, code, "%s", text);
	(void)bus_send(c->bus, peer, &msg, NULL);
}

static void on_bad(void *ctx, const struct bus_peer *peer, const struct err *err)
{
	struct coordinator *c = ctx;
	log_warning("event=bad-frame key=%s code=%s text=\"%s\"", peer->name, err_name(err->code), err->text);
	send_error(c, peer, err->code, err->text);
}

static void welcome_client(struct coordinator *c, const struct bus_peer *peer, const struct msg *msg)
{
	const struct msg_hello *hello = &msg->u.hello;
	if (!hosts_speak(c, peer, hello))
		return;
	struct msg reply = coordinator_msg(c, MSG_WELCOME);
	struct msg_welcome *welcome = &reply.u.welcome;
	welcome->version = hello->version_max < PROTOCOL_VERSION ? hello->version_max : PROTOCOL_VERSION;
	welcome->heartbeat_ms = hosts_heartbeat_ms(c);
	(void)snprintf(welcome->cluster_id, sizeof(welcome->cluster_id), "%s", store_cluster_id(c->store));
	(void)snprintf(welcome->software, sizeof(welcome->software), "%s", DROVER_VERSION);
	(void)bus_send(c->bus, peer, &reply, NULL);
}

/* The host that this connection speaks for, NULL if it has not said hello or was replaced by a newer one. */
static struct host *host_of(struct coordinator *c, const struct bus_peer *peer)
{
	struct host *host = host_find(c, peer->host);
	if (!host || !host->has_peer || host->peer.route_bytes != peer->route_bytes ||
	    memcmp(host->peer.route, peer->route, peer->route_bytes) != 0)
		return NULL;
	return host;
}

static void from_agent(struct coordinator *c, const struct bus_peer *peer, const struct msg *msg)
{
	if (msg->kind == MSG_HELLO) {
		hosts_hello(c, peer, msg);
		return;
	}
	struct host *host = host_of(c, peer);
	if (!host) {
		log_notice("event=ignored kind=%s key=%s why=no-hello", msg_kind_name(msg->kind), peer->name);
		send_error(c, peer, ERR_PROTOCOL, "say hello first");
		return;
	}
	if (!coordinator_raise_epoch(c, msg->epoch > store_epoch(c->store) ? msg->epoch : 0, host->rec.name))
		return;
	switch (msg->kind) {
	case MSG_HEARTBEAT:
		hosts_heartbeat(c, host, msg);
		break;
	case MSG_INVENTORY:
		hosts_inventory(c, host, msg);
		break;
	case MSG_ANSWER:
		runs_answer(c, host, msg);
		break;
	case MSG_REPORT:
		runs_session(c, host, &msg->u.report);
		break;
	case MSG_PROGRESS:
		runs_progress(c, host, msg);
		break;
	case MSG_HOLDINGS:
		leftovers_answer(c, host, msg);
		break;
	case MSG_ERROR:
		log_warning("event=agent-error host=%s code=%s text=\"%s\"", host->rec.name,
		            err_name(msg->u.error.code), msg->u.error.text);
		break;
	case MSG_HELLO:
	case MSG_WELCOME:
	case MSG_HEARTBEAT_ACK:
	case MSG_COMMAND:
	case MSG_FACTS:
	case MSG_REQUEST:
	case MSG_REPLY:
	case MSG_SURVEY:
	case MSG_KINDS:
		log_warning("event=refused kind=%s host=%s", msg_kind_name(msg->kind), host->rec.name);
		send_error(c, peer, ERR_DENIED, "an agent's key may not do that");
		break;
	}
}

void coordinator_on_message(void *ctx, const struct bus_peer *peer, const struct msg *msg)
{
	struct coordinator *c = ctx;
	if (c->failed)
		return;
	/* Requests are refused by role in the API, with an exit code for whoever asked. */
	if (msg->kind == MSG_REQUEST)
		api_request(c, peer, msg);
	else if (peer->role == ROLE_AGENT)
		from_agent(c, peer, msg);
	else if (msg->kind == MSG_HELLO)
		welcome_client(c, peer, msg);
	else
		send_error(c, peer, ERR_DENIED, "only requests are taken from this key");
	if (c->admit)
		runs_admit(c);
}

void coordinator_tick(struct coordinator *c)
{
	int64_t now_ms = coordinator_now_ms(c), slept_ms = c->ticked_ms != 0 ? now_ms - c->ticked_ms : 0;
	c->ticked_ms = now_ms;
	if (slept_ms >= STALL_MS) {
		log_warning("event=slept slept_ms=%lld", (long long)slept_ms);
		hosts_slept(c, slept_ms);
		runs_slept(c, now_ms);
	}
	if (store_trouble(c->store)->code == ERR_CORRUPT) /* found by a read: nothing it says counts any more */
		coordinator_fail(c, store_trouble(c->store));
	if (c->failed)
		return;
	hosts_tick(c, now_ms);
	runs_tick(c, now_ms);
	dry_tick(c, now_ms);
	leftovers_tick(c, now_ms);
	if (c->admit)
		runs_admit(c);
	if (c->watchdog_ms != 0 && now_ms >= c->watchdog_next_ms) {
		(void)sd_notify(0, "WATCHDOG=1");
		c->watchdog_next_ms = now_ms + (int64_t)c->watchdog_ms / 2;
	}
}

static void on_tick(void *ctx)
{
	coordinator_tick(ctx);
}

static int write_endpoint(const struct coordinator *c, struct err *err)
{
	char path[PATHS_MAX + 64], temporary[PATHS_MAX + 64];
	(void)snprintf(path, sizeof(path), "%s/" ENDPOINT_FILE, c->paths->run);
	(void)snprintf(temporary, sizeof(temporary), "%s/" ENDPOINT_FILE ".new", c->paths->run);
	FILE *file = fopen(temporary, "we");
	bool ok = file && fprintf(file, "%s\n", bus_endpoint(c->bus)) > 0;
	if (file && fclose(file) != 0)
		ok = false;
	if (!ok || rename(temporary, path) != 0)
		return err_set(err, ERR_IO, "write %s: %m", path);
	return 0;
}

static int start(struct coordinator *c, struct err *err)
{
	char path[PATHS_MAX + 64], key[PATHS_MAX + LIMIT_PATH];
	(void)snprintf(path, sizeof(path), "%s/coordinator.db", c->paths->lib);
	if (store_open(&c->store, path, c->clock, err) != 0)
		return -1;
	if (hosts_load(c, err) != 0 || runs_load(c, err) != 0)
		return -1;
	(void)snprintf(key, sizeof(key), "%s%s%s", c->settings.key[0] == '/' ? "" : c->paths->etc,
	               c->settings.key[0] == '/' ? "" : "/", c->settings.key);
	if (bus_listen(&c->bus, c->loop, c->settings.listen, key, c->paths, coordinator_on_message, on_bad, c, err) !=
	    0)
		return err_wrap(err, "listen on %s", c->settings.listen);
	c->tick = loop_timer(c->loop, TICK_MS, true, on_tick, c, err);
	if (c->tick < 0)
		return -1;
	/* The pid last: who sees it may connect. */
	if (write_endpoint(c, err) != 0 || paths_write_pid(c->paths, "coordinator", (long)getpid(), err) != 0)
		return -1;
	uint64_t watchdog_us = 0;
	if (sd_watchdog_enabled(0, &watchdog_us) > 0)
		c->watchdog_ms = watchdog_us / 1000;
	coordinator_note(c, NULL, "started", "coordinator %s, epoch %llu, %zu migrations under way", DROVER_VERSION,
	                 (unsigned long long)store_epoch(c->store), c->run_count);
	return c->failed ? err_set(err, ERR_IO, "the records cannot be written") : 0;
}

int coordinator_new(struct coordinator **ret_coordinator, struct loop *loop, const struct paths *paths,
                    const struct settings *settings, const struct clock *clock, struct err *err)
{
	struct coordinator *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(err, ERR_NO_MEMORY, "start: no memory");
	c->loop = loop;
	c->paths = paths;
	c->clock = clock;
	c->settings = *settings;
	c->started_wall_ms = clock->wall_ms(clock);
	if (start(c, err) != 0) {
		coordinator_free(c);
		return -1;
	}
	log_notice("event=started version=%s epoch=%llu endpoint=%s hosts=%zu migrations=%zu", DROVER_VERSION,
	           (unsigned long long)store_epoch(c->store), bus_endpoint(c->bus), c->host_count, c->run_count);
	*ret_coordinator = c;
	return 0;
}

void coordinator_free(struct coordinator *coordinator)
{
	struct coordinator *c = coordinator;
	char path[PATHS_MAX + 64];
	if (!c)
		return;
	if (c->tick > 0)
		loop_timer_end(c->loop, c->tick);
	if (c->bus) { /* else the files are another coordinator's */
		paths_remove_pid(c->paths, "coordinator");
		(void)snprintf(path, sizeof(path), "%s/" ENDPOINT_FILE, c->paths->run);
		(void)unlink(path);
	}
	bus_server_free(c->bus);
	dry_free(c);
	leftovers_free(c);
	runs_free(c);
	hosts_free(c);
	store_close(c->store);
	free(c);
}

const char *coordinator_endpoint(const struct coordinator *coordinator)
{
	return bus_endpoint(coordinator->bus);
}

void coordinator_reload(struct coordinator *coordinator)
{
	struct err err;
	err_clear(&err);
	if (bus_reload_keys(coordinator->bus, &err) != 0)
		log_error("event=reload code=%s text=\"%s\"", err_name(err.code), err.text);
	else
		log_notice("event=reload what=keys");
}
