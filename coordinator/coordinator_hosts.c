/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hosts: hello, heartbeats, inventories, suspicion. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "coordinator/coordinator_room.h"

struct host *host_find(const struct coordinator *c, const char *name)
{
	size_t low = 0, high = c->host_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(c->hosts[middle]->rec.name, name);
		if (order == 0)
			return c->hosts[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

bool host_is_up(const struct host *host)
{
	return host && host->has_peer && host->reach == REACH_UP;
}

bool host_is_ready(const struct host *host)
{
	return host_is_up(host) && host->reconciled;
}

uint32_t hosts_heartbeat_ms(const struct coordinator *c)
{
	uint64_t ms = (uint64_t)c->host_count * 1000 / c->settings.heartbeat_rate;
	if (ms < c->settings.heartbeat_ms)
		return c->settings.heartbeat_ms;
	return ms > HEARTBEAT_MAX_MS ? HEARTBEAT_MAX_MS : (uint32_t)ms;
}

/* The host is told this period. What it was told before may still be in force: the answer may be lost. */
static uint32_t tell_heartbeat(const struct coordinator *c, struct host *host)
{
	uint32_t ms = hosts_heartbeat_ms(c);
	if (ms > host->heartbeat_ms)
		host->heartbeat_ms = ms;
	return ms;
}

static struct host *host_insert(struct coordinator *c, const struct store_host *rec)
{
	if (c->host_count >= LIMIT_HOSTS)
		return NULL;
	struct host **bigger = realloc(c->hosts, (c->host_count + 1) * sizeof(*bigger));
	if (!bigger)
		return NULL;
	c->hosts = bigger;
	struct host *host = calloc(1, sizeof(*host));
	if (!host)
		return NULL;
	host->rec = *rec;
	host->heard_ms = coordinator_now_ms(c) + START_GRACE_MS;
	host->inventory_ms = INT64_MIN;
	size_t at = c->host_count++;
	while (at > 0 && strcmp(c->hosts[at - 1]->rec.name, rec->name) > 0) {
		c->hosts[at] = c->hosts[at - 1];
		at--;
	}
	c->hosts[at] = host;
	return host;
}

int hosts_load(struct coordinator *c, struct err *err)
{
	struct store_host *list = NULL;
	size_t count = 0;
	if (store_host_list(c->store, &list, &count, err) != 0)
		return -1;
	int result = 0;
	for (size_t i = 0; i < count && result == 0; i++) {
		struct host *host = host_insert(c, &list[i]);
		if (!host) {
			result = err_set(err, ERR_NO_MEMORY, "load hosts: no memory, or more than %d", LIMIT_HOSTS);
			break;
		}
		int found = store_inventory_get(c->store, host->rec.name, &host->inventory, err);
		host->has_inventory = found == 1;
		host->want_inventory = true;
		if (found < 0) { /* a newer one comes with the agent */
			log_warning("event=inventory host=%s code=%s text=\"%s\"", host->rec.name, err_name(err->code),
			            err->text);
			err_clear(err);
		}
	}
	free(list);
	return result;
}

static void host_free(struct host *host)
{
	if (host->has_inventory)
		msg_inventory_free(&host->inventory);
	free(host);
}

void hosts_free(struct coordinator *c)
{
	for (size_t i = 0; i < c->host_count; i++)
		host_free(c->hosts[i]);
	free(c->hosts);
}

void host_remove(struct coordinator *c, struct host *host)
{
	size_t kept = 0;
	for (size_t i = 0; i < c->host_count; i++)
		if (c->hosts[i] != host)
			c->hosts[kept++] = c->hosts[i];
	c->host_count = kept;
	host_free(host);
}

int host_send(struct coordinator *c, struct host *host, const struct msg *msg)
{
	struct err err;
	err_clear(&err);
	if (!host || !host->has_peer)
		return -1;
	if (bus_send(c->bus, &host->peer, msg, &err) == 0)
		return 0;
	log_debug("event=unsent kind=%s host=%s code=%s text=\"%s\"", msg_kind_name(msg->kind), host->rec.name,
	          err_name(err.code), err.text);
	return -1;
}

void host_ask_inventory(struct coordinator *c, struct host *host)
{
	if (!host)
		return;
	host->want_inventory = true;
	struct msg msg = coordinator_msg(c, MSG_HEARTBEAT_ACK);
	msg.u.heartbeat_ack.want_inventory = 1;
	(void)host_send(c, host, &msg);
}

/* It is there: whoever waits for it is told. */
static void heard(struct coordinator *c, struct host *host)
{
	int64_t now_ms = coordinator_now_ms(c);
	struct err err;
	err_clear(&err);
	host->heard_ms = now_ms;
	host->rec.last_seen_wall_ms = coordinator_wall_ms(c);
	if (now_ms - host->seen_saved_ms >= HOST_SEEN_SAVE_MS) {
		host->seen_saved_ms = now_ms;
		if (store_host_seen(c->store, host->rec.name, host->rec.last_seen_wall_ms, &err) != 0)
			coordinator_fail(c, &err);
	}
	if (host->reach == REACH_UP)
		return;
	if (host->reach == REACH_SUSPECTED) {
		log_notice("event=host-back host=%s", host->rec.name);
		coordinator_note(c, host->rec.name, "host-back", "its heartbeats come again");
	}
	host->reach = REACH_UP;
	host->given_up = false;
	c->admit = true;
	runs_host_event(c, host, MIGRATION_EVENT_HOST_UP, NULL);
}

/* ---- hello ---- */

static void refuse(struct coordinator *c, const struct bus_peer *peer, enum err_code code, const char *text)
{
	struct msg msg = coordinator_msg(c, MSG_ERROR);
	(void)err_set(&msg.u.error, code, "%s", text);
	log_warning("event=hello-refused key=%s code=%s text=\"%s\"", peer->name, err_name(code), text);
	(void)bus_send(c->bus, peer, &msg, NULL);
}

bool hosts_speak(struct coordinator *c, const struct bus_peer *peer, const struct msg_hello *hello)
{
	char text[LIMIT_TEXT];
	if (hello->version_max >= PROTOCOL_VERSION_MIN && hello->version_min <= PROTOCOL_VERSION)
		return true;
	(void)snprintf(text, sizeof(text), "protocol versions %u to %u are spoken here, %u to %u there",
	               PROTOCOL_VERSION_MIN, PROTOCOL_VERSION, hello->version_min, hello->version_max);
	refuse(c, peer, ERR_VERSION, text);
	return false;
}

static bool hello_is_good(struct coordinator *c, const struct bus_peer *peer, const struct msg_hello *hello)
{
	char text[LIMIT_TEXT];
	if (!hosts_speak(c, peer, hello)) {
		return false;
	} else if (strcmp(hello->host, peer->host) != 0) {
		(void)snprintf(text, sizeof(text), "the key %s is for host %s and may not speak for %s", peer->name,
		               peer->host, hello->host);
		refuse(c, peer, ERR_DENIED, text);
	} else if (hello->boot_id[0] == '\0' || hello->journal_id[0] == '\0') {
		refuse(c, peer, ERR_PROTOCOL, "an agent's hello must have a boot id and a journal id");
	} else {
		return true;
	}
	return false;
}

/* Remembers who speaks for the host from now on. NULL: refused or failed. */
static struct host *host_enter(struct coordinator *c, const struct bus_peer *peer, const struct msg_hello *hello)
{
	struct err err;
	struct store_host rec = { .last_seen_wall_ms = coordinator_wall_ms(c) };
	err_clear(&err);
	struct host *host = host_find(c, hello->host);
	if (host)
		rec = host->rec;
	else
		rec.first_seen_wall_ms = rec.last_seen_wall_ms;
	(void)snprintf(rec.name, sizeof(rec.name), "%s", hello->host);
	(void)snprintf(rec.pool, sizeof(rec.pool), "%s", hello->pool);
	(void)snprintf(rec.key, sizeof(rec.key), "%s", peer->name);
	(void)snprintf(rec.boot_id, sizeof(rec.boot_id), "%s", hello->boot_id);
	(void)snprintf(rec.journal_id, sizeof(rec.journal_id), "%s", hello->journal_id);
	(void)snprintf(rec.software, sizeof(rec.software), "%s", hello->software);
	if (!host)
		host = host_insert(c, &rec);
	if (!host) {
		refuse(c, peer, ERR_NO_MEMORY, "too many hosts");
		return NULL;
	}
	if (host->rec.boot_id[0] && strcmp(host->rec.boot_id, rec.boot_id) != 0)
		coordinator_note(c, rec.name, "host-rebooted", "another boot than before");
	if (host->rec.journal_id[0] && strcmp(host->rec.journal_id, rec.journal_id) != 0) {
		log_warning("event=journal-lost host=%s", rec.name);
		coordinator_note(c, rec.name, "journal-lost", "its journal is another one than before");
	}
	if (store_host_put(c->store, &rec, &err) != 0) {
		coordinator_fail(c, &err);
		return NULL;
	}
	host->rec = rec;
	host->peer = *peer;
	host->has_peer = true;
	err_clear(&host->trouble); /* its heartbeats say if there is any */
	return host;
}

void hosts_hello(struct coordinator *c, const struct bus_peer *peer, const struct msg *msg)
{
	const struct msg_hello *hello = &msg->u.hello;
	if (!hello_is_good(c, peer, hello))
		return;
	uint64_t seen = hello->max_epoch > msg->epoch ? hello->max_epoch : msg->epoch;
	if (!coordinator_raise_epoch(c, seen > store_epoch(c->store) ? seen : 0, hello->host))
		return;
	struct host *host = host_enter(c, peer, hello);
	if (!host)
		return;
	struct msg reply = coordinator_msg(c, MSG_WELCOME);
	struct msg_welcome *welcome = &reply.u.welcome;
	welcome->version = hello->version_max < PROTOCOL_VERSION ? hello->version_max : PROTOCOL_VERSION;
	welcome->heartbeat_ms = tell_heartbeat(c, host);
	(void)snprintf(welcome->cluster_id, sizeof(welcome->cluster_id), "%s", store_cluster_id(c->store));
	(void)snprintf(welcome->software, sizeof(welcome->software), "%s", DROVER_VERSION);
	(void)host_send(c, host, &reply);
	log_notice("event=hello host=%s pool=%s key=%s software=%s boot=%.8s journal=%.8s", host->rec.name,
	           host->rec.pool, peer->name, host->rec.software, host->rec.boot_id, host->rec.journal_id);
	host->want_inventory = true;
	host->reconciled = false;
	runs_host_identity(c, host);
	/* A new connection has lost what was under way on the old one: everything due is sent again. */
	host->reach = host->reach == REACH_UP ? REACH_UNKNOWN : host->reach;
	if (!c->failed)
		heard(c, host);
}

/* ---- heartbeats and inventories ---- */

static void note_trouble(struct coordinator *c, struct host *host, const struct err *trouble)
{
	bool began = trouble->code != ERR_NONE && host->trouble.code == ERR_NONE;
	bool ended = trouble->code == ERR_NONE && host->trouble.code != ERR_NONE;
	host->trouble = *trouble;
	if (began) {
		log_warning("event=host-trouble host=%s code=%s text=\"%s\"", host->rec.name, err_name(trouble->code),
		            trouble->text);
		coordinator_note(c, host->rec.name, "host-trouble", "%s", trouble->text);
	} else if (ended) {
		log_notice("event=host-well host=%s", host->rec.name);
		coordinator_note(c, host->rec.name, "host-well", "its journal can be written again");
	}
}

void hosts_heartbeat(struct coordinator *c, struct host *host, const struct msg *msg)
{
	const struct msg_heartbeat *beat = &msg->u.heartbeat;
	int64_t now_ms = coordinator_now_ms(c);
	bool stale = !host->has_inventory || host->inventory.digest != beat->inventory_digest || host->want_inventory ||
	             host->inventory_ms == INT64_MIN || now_ms - host->inventory_ms >= INVENTORY_REFRESH_MS;
	struct msg ack = coordinator_msg(c, MSG_HEARTBEAT_ACK);
	ack.u.heartbeat_ack.want_inventory = stale;
	ack.u.heartbeat_ack.heartbeat_ms = tell_heartbeat(c, host);
	(void)host_send(c, host, &ack);
	host->session_count = beat->session_count;
	if (beat->leftovers > host->leftovers)
		coordinator_note(c, host->rec.name, "leftovers",
		                 "%u leftovers in its journal; 'drover leftovers' lists them", beat->leftovers);
	host->leftovers = beat->leftovers;
	note_trouble(c, host, &beat->trouble);
	/* Whoever cannot journal counts as unreachable: nobody may wait for what it would have to promise. */
	if (host->trouble.code == ERR_NONE)
		heard(c, host);
	for (uint32_t i = 0; i < beat->session_count && !c->failed; i++)
		runs_session(c, host, &beat->sessions[i]);
	if (host->reconciled || host->trouble.code != ERR_NONE)
		return;
	host->reconciled = true; /* its sessions and votes are known: now it may get new work */
	c->admit = true;
}

/* What was decoded belongs to the bus: a copy through the codec, which checks it again. */
static int copy_inventory(const struct msg_inventory *from, struct msg_inventory *ret_copy, struct err *err)
{
	void *blob = NULL;
	size_t bytes = 0;
	if (msg_inventory_encode(from, &blob, &bytes, err) != 0)
		return -1;
	int result = msg_inventory_decode(blob, bytes, ret_copy, err);
	free(blob);
	return result;
}

void hosts_inventory(struct coordinator *c, struct host *host, const struct msg *msg)
{
	struct msg_inventory copy;
	struct err err;
	err_clear(&err);
	if (copy_inventory(&msg->u.inventory, &copy, &err) != 0) {
		log_warning("event=inventory host=%s code=%s text=\"%s\"", host->rec.name, err_name(err.code),
		            err.text);
		return;
	}
	bool same = host->has_inventory && host->inventory.digest == copy.digest && host->inventory_ms != INT64_MIN;
	if (host->has_inventory)
		msg_inventory_free(&host->inventory);
	host->inventory = copy;
	host->has_inventory = true;
	host->want_inventory = false;
	host->inventory_ms = coordinator_now_ms(c);
	/* Only the free amounts differ: nothing worth a write. */
	if (!same && store_inventory_put(c->store, host->rec.name, &host->inventory, &err) != 0) {
		if (err.code == ERR_CONFLICT) /* one UUID twice on a host */
			log_warning("event=inventory host=%s code=%s text=\"%s\"", host->rec.name, err_name(err.code),
			            err.text);
		else
			coordinator_fail(c, &err);
	}
	log_debug("event=inventory host=%s vms=%u srs=%u", host->rec.name, host->inventory.vm_count,
	          host->inventory.sr_count);
	if (host->trouble.code == ERR_NONE)
		heard(c, host);
}

void hosts_slept(struct coordinator *c, int64_t slept_ms)
{
	for (size_t i = 0; i < c->host_count; i++)
		c->hosts[i]->heard_ms += slept_ms;
}

void hosts_tick(struct coordinator *c, int64_t now_ms)
{
	for (size_t i = 0; i < c->host_count && !c->failed; i++) {
		struct host *host = c->hosts[i];
		int64_t silent_ms = now_ms - host->heard_ms;
		uint32_t period_ms = host->heartbeat_ms ? host->heartbeat_ms : hosts_heartbeat_ms(c);
		int64_t suspect_ms = (int64_t)period_ms * c->settings.suspect_after;
		char text[LIMIT_TEXT];
		if (host->reach != REACH_SUSPECTED && silent_ms >= suspect_ms) {
			host->reach = REACH_SUSPECTED;
			(void)snprintf(text, sizeof(text), "nothing was heard from it for %" PRId64 " ms", silent_ms);
			log_warning("event=host-suspected host=%s silent_ms=%" PRId64, host->rec.name, silent_ms);
			coordinator_note(c, host->rec.name, "host-suspected", "%s", text);
			runs_host_event(c, host, MIGRATION_EVENT_SUSPECTED, text);
		}
		if (host->reach == REACH_SUSPECTED && !host->given_up && silent_ms >= suspect_ms &&
		    silent_ms >= (int64_t)c->settings.lost_after_ms) {
			host->given_up = true;
			(void)snprintf(text, sizeof(text), "%s: not heard of for %" PRId64 " s", host->rec.name,
			               silent_ms / 1000);
			log_warning("event=host-given-up host=%s silent_ms=%" PRId64, host->rec.name, silent_ms);
			runs_host_event(c, host, MIGRATION_EVENT_GIVEN_UP, text);
		}
	}
}
