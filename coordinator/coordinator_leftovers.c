/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What hosts really hold: they are asked, and the client is answered when all have told, or the time is up. To have
 * things taken away takes two questions a host: what is there, and then what of it is over by our records. A host takes
 * away only what is of a migration that was named as over, and that nobody there claims.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "coordinator/coordinator_room.h"

/* ---- asking ---- */

static void ask(struct coordinator *c, struct leftovers_host *asked, int64_t now_ms)
{
	struct msg msg = coordinator_msg(c, MSG_SURVEY);
	msg.sequence = asked->sequence;
	if (asked->sweep)
		msg.u.survey = *asked->sweep;
	asked->next_ms = now_ms + c->settings.retry_ms;
	(void)host_send(c, host_find(c, asked->name), &msg);
}

static void free_one(struct leftovers *leftovers)
{
	for (size_t i = 0; i < leftovers->count; i++) {
		free(leftovers->hosts[i].sweep);
		msg_holdings_free(&leftovers->hosts[i].holdings);
	}
	free(leftovers->hosts);
	free(leftovers);
}

/* Whom the question is about; those that are not there now are not waited for. */
static struct leftovers *list_hosts(struct coordinator *c, const struct msg_request *request)
{
	struct leftovers *leftovers = calloc(1, sizeof(*leftovers));
	if (leftovers)
		leftovers->hosts = calloc(c->host_count ? c->host_count : 1, sizeof(*leftovers->hosts));
	if (!leftovers || !leftovers->hosts) {
		free(leftovers);
		return NULL;
	}
	for (size_t i = 0; i < c->host_count; i++) {
		const struct host *host = c->hosts[i];
		if (request->host[0] && strcmp(request->host, host->rec.name) != 0)
			continue;
		struct leftovers_host *asked = &leftovers->hosts[leftovers->count++];
		(void)snprintf(asked->name, sizeof(asked->name), "%s", host->rec.name);
		asked->waiting = host_is_up(host);
		asked->sequence = ++c->sequence;
	}
	return leftovers;
}

static bool is_waiting(const struct leftovers *leftovers)
{
	for (size_t i = 0; i < leftovers->count; i++)
		if (leftovers->hosts[i].waiting)
			return true;
	return false;
}

int leftovers_start(struct coordinator *c, const struct bus_peer *peer, uint64_t sequence,
                    const struct msg_request *request, struct msg_reply *ret_reply, struct err *err)
{
	size_t slot = 0;
	while (slot < LEFTOVERS_MAX && c->leftovers[slot])
		slot++;
	if (slot == LEFTOVERS_MAX)
		return err_set(err, ERR_BUSY, "%d questions about leftovers are under way already; try again",
		               LEFTOVERS_MAX);
	if (request->host[0] && !host_find(c, request->host))
		return err_set(err, ERR_UNKNOWN_HOST, "there is no host %s; 'drover host list' has them all",
		               request->host);
	struct leftovers *leftovers = list_hosts(c, request);
	if (!leftovers)
		return err_set(err, ERR_NO_MEMORY, "leftovers: no memory");
	leftovers->peer = *peer;
	leftovers->sequence = sequence;
	(void)snprintf(leftovers->host, sizeof(leftovers->host), "%s", request->host);
	leftovers->sweep = request->sweep != 0;
	leftovers->deadline_ms = coordinator_now_ms(c) + LEFTOVERS_LOOK_MS;
	if (!is_waiting(leftovers)) {
		api_leftovers_reply(c, leftovers, ret_reply);
		free_one(leftovers);
		return 1;
	}
	c->leftovers[slot] = leftovers;
	return 0;
}

/* ---- the second question ---- */

/* What our records say of this migration; 0: it is not over, and nothing of it may go. */
static enum over over_of(struct coordinator *c, const char *host, uint64_t migration)
{
	struct store_migration rec;
	struct err err;
	err_clear(&err);
	int found = store_migration_get(c->store, migration, &rec, &err);
	if (found == 0)
		return OVER_UNKNOWN;
	if (found < 0) {
		log_warning("event=leftovers migration=%" PRIu64 " error=\"%s\"", migration, err.text);
		return (enum over)0;
	}
	enum migration_state state = rec.core.state;
	bool aborted = state == MIGRATION_CANCELLED || state == MIGRATION_FAILED;
	enum over over = !migration_is_final(state)                      ? (enum over)0
	                 : aborted && strcmp(rec.destination, host) == 0 ? OVER_ABORTED
	                                                                 : OVER_OTHER;
	store_migration_free(&rec);
	return over;
}

static void add_over(struct coordinator *c, const char *host, uint64_t migration, struct msg_survey *survey)
{
	for (uint32_t i = 0; i < survey->over_count; i++)
		if (survey->over[i].migration == migration)
			return;
	enum over over = migration ? over_of(c, host, migration) : (enum over)0;
	if (over && survey->over_count < LIMIT_HOLDINGS)
		survey->over[survey->over_count++] = (struct msg_over) { migration, over };
}

/* Has the host take away what it told of. False: there is nothing that may go. */
static bool ask_to_sweep(struct coordinator *c, struct leftovers *leftovers, struct leftovers_host *asked)
{
	bool wanted = false;
	asked->sweep = calloc(1, sizeof(*asked->sweep));
	if (!asked->sweep)
		return false;
	asked->sweep->sweep = 1;
	for (uint32_t i = 0; i < asked->holdings.count; i++) {
		const struct msg_holding *holding = &asked->holdings.list[i];
		if (holding->state == HOLDING_KEPT)
			continue;
		wanted = true; /* what may not go is told why by the host */
		add_over(c, asked->name, holding->migration, asked->sweep);
	}
	if (!wanted)
		return false;
	int64_t now_ms = coordinator_now_ms(c);
	asked->sequence = ++c->sequence;
	leftovers->deadline_ms = now_ms + LEFTOVERS_SWEEP_MS;
	ask(c, asked, now_ms);
	return true;
}

/* ---- answers ---- */

/* What was taken away is on record, whoever waits for the answer. */
static void record(struct coordinator *c, const char *host, const char *key, const struct msg_holdings *holdings)
{
	struct store_event event = { .migration = 0 };
	struct err err;
	unsigned swept = 0, left = 0;
	json_t *gone = json_array(), *stays = json_array();
	for (uint32_t i = 0; i < holdings->count; i++) {
		const struct msg_holding *holding = &holdings->list[i];
		if (!holding->swept && !holding->error[0])
			continue;
		json_t *item = json_pack("{s:s,s:I,s:s,s:s}", "kind", holding_kind_name(holding->kind), "migration",
		                         (json_int_t)holding->migration, "name", holding->name, "path", holding->path);
		if (holding->swept)
			swept++;
		else
			left++;
		if (item && !holding->swept)
			json_object_set_new(item, "error", json_string(holding->error));
		json_array_append_new(holding->swept ? gone : stays, item);
	}
	json_t *doc = json_pack("{s:s?,s:o,s:o}", "key", key, "swept", gone, "not_swept", stays);
	err_clear(&err);
	(void)snprintf(event.host, sizeof(event.host), "%s", host);
	(void)snprintf(event.kind, sizeof(event.kind), "swept");
	(void)snprintf(event.text, sizeof(event.text), "%u leftovers taken away%s%s, %u could not be", swept,
	               key ? " at the wish of " : "", key ? key : "", left);
	event.details = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	json_decref(doc);
	log_notice("event=swept host=%s swept=%u left=%u", host, swept, left);
	if (!c->failed && store_event_add(c->store, &event, &err) != 0)
		coordinator_fail(c, &err);
	free(event.details);
}

/* What was decoded belongs to the bus. */
static bool copy_holdings(const struct msg_holdings *from, struct msg_holdings *ret)
{
	struct msg_holding *list = calloc(from->count ? from->count : 1, sizeof(*list));
	if (!list)
		return false;
	if (from->count)
		memcpy(list, from->list, from->count * sizeof(*list));
	*ret = *from;
	ret->list = list;
	return true;
}

static void finish(struct coordinator *c, size_t slot)
{
	struct leftovers *leftovers = c->leftovers[slot];
	struct msg_reply reply = { .code = ERR_NONE };
	api_leftovers_reply(c, leftovers, &reply);
	(void)coordinator_reply(c, &leftovers->peer, leftovers->sequence, &reply);
	free(reply.json);
	free_one(leftovers);
	c->leftovers[slot] = NULL;
}

static struct leftovers_host *find_asked(struct leftovers *leftovers, const char *host, uint64_t sequence)
{
	for (size_t i = 0; leftovers && i < leftovers->count; i++)
		if (leftovers->hosts[i].waiting && leftovers->hosts[i].sequence == sequence &&
		    strcmp(leftovers->hosts[i].name, host) == 0)
			return &leftovers->hosts[i];
	return NULL;
}

void leftovers_answer(struct coordinator *c, struct host *host, const struct msg *msg)
{
	const struct msg_holdings *told = &msg->u.holdings;
	for (size_t slot = 0; slot < LEFTOVERS_MAX; slot++) {
		struct leftovers *leftovers = c->leftovers[slot];
		struct leftovers_host *asked = find_asked(leftovers, host->rec.name, msg->sequence);
		struct msg_holdings copy;
		if (!asked)
			continue;
		if (!copy_holdings(told, &copy)) {
			log_error("event=leftovers host=%s error=\"no memory\"", host->rec.name);
			return; /* it is asked again */
		}
		msg_holdings_free(&asked->holdings);
		asked->holdings = copy;
		asked->told = true;
		if (told->sweep)
			record(c, host->rec.name, leftovers->peer.name, told);
		if (leftovers->sweep && !asked->sweep && !c->failed && ask_to_sweep(c, leftovers, asked))
			return;
		asked->waiting = false;
		if (!is_waiting(leftovers))
			finish(c, slot);
		return;
	}
	if (told->sweep) /* nobody waits for it any more, and it was done all the same */
		record(c, host->rec.name, NULL, told);
}

void leftovers_tick(struct coordinator *c, int64_t now_ms)
{
	for (size_t slot = 0; slot < LEFTOVERS_MAX; slot++) {
		struct leftovers *leftovers = c->leftovers[slot];
		bool waiting = false;
		if (!leftovers)
			continue;
		for (size_t i = 0; i < leftovers->count; i++) {
			struct leftovers_host *asked = &leftovers->hosts[i];
			/* One that is not heard of any more is not waited for. */
			if (!asked->waiting || !host_is_up(host_find(c, asked->name)))
				continue;
			waiting = true;
			if (now_ms >= asked->next_ms)
				ask(c, asked, now_ms);
		}
		if (!waiting || now_ms >= leftovers->deadline_ms)
			finish(c, slot);
	}
}

void leftovers_free(struct coordinator *c)
{
	for (size_t slot = 0; slot < LEFTOVERS_MAX; slot++)
		if (c->leftovers[slot]) {
			free_one(c->leftovers[slot]);
			c->leftovers[slot] = NULL;
		}
}
