/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is known of a migration, what is waited for and from whom, and what is safe to do by hand. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/api_room.h"

/* What the state means, in words. */
static const char *meaning(const struct migration_core *core)
{
	switch (core->state) {
	case MIGRATION_QUEUED:
		return "recorded; no host was asked for anything; the VM runs on the source";
	case MIGRATION_CHECKING:
		return "both hosts run their checks; nothing is changed; the VM runs on the source";
	case MIGRATION_PREPARING:
		return "the destination makes room; the VM runs on the source";
	case MIGRATION_COPYING:
		return "disks and memory are copied; the VM runs on the source";
	case MIGRATION_SWITCHING:
		return "the switchover is granted: the source may have suspended the VM; votes are being cast";
	case MIGRATION_COMMITTED:
		return "only the destination may run the VM; the source is letting go";
	case MIGRATION_DONE:
		return "the destination owns the VM; the source holds nothing but what is kept on purpose";
	case MIGRATION_ROLLING_BACK:
		return "only the source may run the VM; the destination is cleaning up";
	case MIGRATION_CANCELLED:
		return "it was cancelled; the source owns the VM";
	case MIGRATION_FAILED:
		return "it failed; the source owns the VM";
	case MIGRATION_IN_DOUBT:
		return "the verdict needs a vote of a host that nobody can reach";
	case MIGRATION_LOST:
		return "the host that owned the VM died with the VM in it";
	case MIGRATION_STATES:
		break;
	}
	return "";
}

static const char *reach_name(const struct host *host)
{
	if (!host || host->reach == REACH_SUSPECTED)
		return "unreachable";
	return host_is_up(host) ? "connected" : "not heard yet";
}

static void wait_for(json_t *list, const char *host, const char *side, const char *what, int64_t since_wall_ms,
                     uint32_t tries, const char *reach)
{
	json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:o,s:I,s:s}", "host", host, "side", side, "for", what,
	                                      "since_at", api_time(since_wall_ms), "tries", (json_int_t)tries, "reach",
	                                      reach));
}

/* What one side has not said yet. */
static void waits_of(const struct coordinator *c, const struct store_migration *rec, const struct run *run, int i,
                     json_t *list)
{
	enum side side = i == 0 ? SIDE_SOURCE : SIDE_DESTINATION;
	const struct migration_core *core = &rec->core;
	const char *name = run_host(rec, side), *reach = reach_name(host_find(c, name));
	enum step step = migration_command(core, side);
	char text[LIMIT_NAME * 2];
	if (core->state == MIGRATION_QUEUED && strcmp(reach, "connected") != 0)
		wait_for(list, name, side_name(side), "the host to connect", rec->state_wall_ms, 0, reach);
	if (step != STEP_NONE) {
		const struct pending *pending = run ? &run->pending[i] : NULL;
		int64_t since = pending ? coordinator_wall_ms(c) - (coordinator_now_ms(c) - pending->since_ms)
		                        : rec->state_wall_ms;
		(void)snprintf(text, sizeof(text), "its answer to %s", step_name(step));
		wait_for(list, name, side_name(side), text, since, pending ? pending->tries : 0, reach);
	}
	bool votes = core->state == MIGRATION_SWITCHING || core->state == MIGRATION_IN_DOUBT;
	if (votes && core->facts.vote[party_of(side)] == VOTE_NONE && verdict_of(&core->facts) == VOTE_NONE)
		wait_for(list, name, side_name(side), "its vote", rec->state_wall_ms, 0, reach);
	if (core->state == MIGRATION_COMMITTED && side == SIDE_DESTINATION && !core->facts.running)
		wait_for(list, name, side_name(side), "word that the VM runs there", rec->state_wall_ms, 0, reach);
	if (core->state == MIGRATION_COPYING && side == SIDE_SOURCE && step == STEP_NONE)
		wait_for(list, name, side_name(side), "the copy to be so near that the rest fits the downtime",
		         rec->state_wall_ms, 0, reach);
}

static void say(json_t *list, const char *text)
{
	json_array_append_new(list, json_string(text));
}

static void safe_by_hand(const struct store_migration *rec, json_t *safe, json_t *unsafe)
{
	const char *authority = migration_authority(&rec->core);
	char text[LIMIT_TEXT];
	if (migration_is_final(rec->core.state) || rec->core.state == MIGRATION_QUEUED) {
		if (rec->core.state == MIGRATION_LOST) {
			say(safe,
			    "boot the VM from its disks, on the host that the votes name as owner and nowhere else");
			say(unsafe, "to resume a suspended image of it anywhere: its disks may be newer");
		} else {
			(void)snprintf(text, sizeof(text), "everything on %s, which owns the VM",
			               strcmp(authority, "destination") == 0 ? rec->destination : rec->source);
			say(safe, text);
		}
		return;
	}
	if (strcmp(authority, "source") == 0) {
		(void)snprintf(text, sizeof(text), "use the VM on %s", rec->source);
		say(safe, rec->core.state == MIGRATION_ROLLING_BACK ? text : "cancel it: the VM stays on the source");
		(void)snprintf(text, sizeof(text), "to start or unpause the VM on %s", rec->destination);
		say(unsafe, text);
	} else if (strcmp(authority, "destination") == 0) {
		(void)snprintf(text, sizeof(text), "use the VM on %s", rec->destination);
		say(safe, text);
		(void)snprintf(text, sizeof(text), "to resume, unpause or boot the VM on %s", rec->source);
		say(unsafe, text);
	} else {
		say(safe, "bring back the hosts that are unreachable: it ends by itself when one is heard of");
		say(unsafe, "to resume, unpause or boot the VM on either host: the other one may run it");
	}
}

/* The same as text, a line each. */
static json_t *in_words(const struct store_migration *rec, const json_t *waiting)
{
	char text[4096], line[LIMIT_TEXT];
	const json_t *item;
	size_t at, used;
	const struct verdict_facts *facts = &rec->core.facts;
	const char *votes[PARTIES];
	for (int party = 0; party < PARTIES; party++)
		votes[party] = facts->vote[party] == VOTE_NONE ? "none" : vote_name(facts->vote[party]);
	used = (size_t)snprintf(text, sizeof(text),
	                        "Migration %" PRIu64 " of %s is %s: %s.\n"
	                        "Known votes: coordinator %s, source %s, destination %s.\n",
	                        rec->id, rec->vm_name, migration_state_name(rec->core.state), meaning(&rec->core),
	                        votes[PARTY_COORDINATOR], votes[PARTY_SOURCE], votes[PARTY_DESTINATION]);
	json_array_foreach(waiting, at, item)
	{
		const char *host = json_string_value(json_object_get(item, "host"));
		const char *what = json_string_value(json_object_get(item, "for"));
		const char *since = json_string_value(json_object_get(item, "since_at"));
		const char *reach = json_string_value(json_object_get(item, "reach"));
		int length = snprintf(line, sizeof(line), "Waiting for %s: %s, since %s; the host is %s.\n",
		                      host ? host : "?", what ? what : "?", since ? since : "?", reach ? reach : "?");
		if (length > 0 && used + (size_t)length < sizeof(text)) {
			memcpy(text + used, line, (size_t)length + 1);
			used += (size_t)length;
		}
	}
	if (rec->core.cause != ERR_NONE && rec->core.state != MIGRATION_DONE &&
	    rec->core.state != MIGRATION_COMMITTED && used < sizeof(text))
		(void)snprintf(text + used, sizeof(text) - used, "First error: %s.\n", rec->cause_text);
	return json_string(text);
}

int api_explain(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err)
{
	struct store_migration rec;
	(void)peer;
	if (api_find(c, request->id, &rec, err) != 0)
		return -1;
	const struct run *run = run_find(c, rec.id);
	if (run) /* reach is not in the database */
		rec.core = run->rec.core;
	json_t *doc = api_migration(c, &rec);
	json_t *waiting = json_array(), *safe = json_array(), *unsafe = json_array();
	for (int i = 0; i < 2; i++)
		waits_of(c, &rec, run, i, waiting);
	safe_by_hand(&rec, safe, unsafe);
	json_object_set_new(doc, "meaning", json_string(meaning(&rec.core)));
	json_object_set_new(doc, "text", in_words(&rec, waiting));
	json_object_set_new(doc, "evidence", api_evidence(&rec));
	json_object_set_new(doc, "rights", api_rights(&rec));
	json_object_set_new(doc, "waiting_for", waiting);
	json_object_set_new(doc, "rulings", api_rulings(c, &rec));
	json_object_set_new(doc, "safe", safe);
	json_object_set_new(doc, "unsafe", unsafe);
	store_migration_free(&rec);
	*ret_doc = doc;
	return 0;
}
