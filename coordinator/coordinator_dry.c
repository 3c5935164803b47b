/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dry runs: both hosts are asked for their checks; nothing is recorded and nothing is changed. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "coordinator/coordinator_room.h"

int dry_start(struct coordinator *c, const struct bus_peer *peer, uint64_t sequence, const struct msg_plan *plan,
              struct err *err)
{
	size_t slot = 0;
	while (slot < DRY_RUNS_MAX && c->dry[slot])
		slot++;
	if (slot == DRY_RUNS_MAX)
		return err_set(err, ERR_BUSY, "%d dry runs are under way already; try again", DRY_RUNS_MAX);
	struct dry_run *dry = calloc(1, sizeof(*dry));
	if (!dry)
		return err_set(err, ERR_NO_MEMORY, "dry run: no memory");
	/* The epoch keeps the numbers of two starts apart. */
	dry->id = DRY_RUN_FIRST_ID + (store_epoch(c->store) << 20) + ++c->dry_count;
	dry->peer = *peer;
	dry->sequence = sequence;
	dry->plan = *plan;
	dry->plan.dry_run = 1;
	dry->asked[0] = ++c->sequence;
	dry->asked[1] = ++c->sequence;
	dry->deadline_ms = coordinator_now_ms(c) + c->settings.checking_ms;
	c->dry[slot] = dry;
	return 0;
}

static void ask(struct coordinator *c, struct dry_run *dry, int i)
{
	struct msg msg = coordinator_msg(c, MSG_COMMAND);
	msg.migration = dry->id;
	msg.generation = 1;
	msg.sequence = dry->asked[i];
	msg.u.command.step = STEP_CHECK;
	msg.u.command.side = i == 0 ? SIDE_SOURCE : SIDE_DESTINATION;
	msg.u.command.plan = &dry->plan;
	(void)host_send(c, host_find(c, i == 0 ? dry->plan.source : dry->plan.destination), &msg);
}

/* Adds one host's checks to the list. Returns whether all are well. */
static bool add_checks(json_t *list, const struct dry_run *dry, int i, const char **ret_first)
{
	const char *host = i == 0 ? dry->plan.source : dry->plan.destination;
	const struct msg_answer *answer = &dry->answer[i];
	bool good = dry->answered[i] && answer->outcome == OUTCOME_DONE;
	for (uint32_t n = 0; dry->answered[i] && n < answer->check_count; n++) {
		const struct msg_check *check = &answer->checks[n];
		json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:b,s:s}", "host", host, "side",
		                                      i == 0 ? "source" : "destination", "name", check->name, "ok",
		                                      check->ok != 0, "text", check->text));
		good = good && check->ok != 0;
	}
	if (!dry->answered[i])
		json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:b,s:s}", "host", host, "side",
		                                      i == 0 ? "source" : "destination", "name", "reachable", "ok", 0,
		                                      "text", "no answer in time; is its agent running?"));
	else if (answer->check_count == 0 && !good)
		json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:b,s:s}", "host", host, "side",
		                                      i == 0 ? "source" : "destination", "name", "check", "ok", 0,
		                                      "text", answer->cause.text));
	if (!good && !*ret_first)
		*ret_first = !dry->answered[i] ? "no answer in time" : answer->cause.text;
	return good;
}

static void finish(struct coordinator *c, size_t slot)
{
	struct dry_run *dry = c->dry[slot];
	struct msg_reply reply = { .code = ERR_NONE };
	json_t *list = json_array();
	const char *first = NULL;
	bool good[2];
	for (int i = 0; i < 2; i++)
		good[i] = add_checks(list, dry, i, &first);
	if (!good[0] || !good[1]) {
		int bad = good[0];
		reply.code = dry->answered[bad] ? dry->answer[bad].cause.code : ERR_UNREACHABLE;
		if (reply.code == ERR_NONE)
			reply.code = ERR_UNSUPPORTED;
		reply.exit_code = 8;
		(void)snprintf(reply.text, sizeof(reply.text), "migrate %s: %s: %.300s", dry->plan.vm.name,
		               bad == 0 ? dry->plan.source : dry->plan.destination, first ? first : "a check failed");
	}
	json_t *doc = json_pack("{s:o}", "checks", list);
	reply.json = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	json_decref(doc);
	(void)coordinator_reply(c, &dry->peer, dry->sequence, &reply);
	free(reply.json);
	free(dry);
	c->dry[slot] = NULL;
}

bool dry_answer(struct coordinator *c, struct host *host, const struct msg *msg)
{
	const struct msg_answer *answer = &msg->u.answer;
	if (msg->migration < DRY_RUN_FIRST_ID)
		return false;
	for (size_t slot = 0; slot < DRY_RUNS_MAX; slot++) {
		struct dry_run *dry = c->dry[slot];
		if (!dry || dry->id != msg->migration || answer->step != STEP_CHECK)
			continue;
		int i = answer->side == SIDE_DESTINATION;
		if (strcmp(i == 0 ? dry->plan.source : dry->plan.destination, host->rec.name) != 0)
			break;
		dry->answer[i] = *answer;
		dry->answered[i] = true;
		if (dry->answered[0] && dry->answered[1])
			finish(c, slot);
		return true;
	}
	log_debug("event=ignored kind=answer host=%s why=no-such-dry-run", host->rec.name);
	return true;
}

void dry_tick(struct coordinator *c, int64_t now_ms)
{
	for (size_t slot = 0; slot < DRY_RUNS_MAX; slot++) {
		struct dry_run *dry = c->dry[slot];
		if (!dry)
			continue;
		if (now_ms >= dry->deadline_ms) {
			finish(c, slot);
		} else if (now_ms >= dry->next_ms) {
			dry->next_ms = now_ms + c->settings.retry_ms;
			for (int i = 0; i < 2; i++)
				if (!dry->answered[i])
					ask(c, dry, i);
		}
	}
}

void dry_free(struct coordinator *c)
{
	for (size_t slot = 0; slot < DRY_RUNS_MAX; slot++) {
		free(c->dry[slot]);
		c->dry[slot] = NULL;
	}
}
