/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One migration: event in, core, store, actions out. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "coordinator/api_room.h"

#define STEPS_A_CHANGE 4 /* one answered and two due at most */

static enum side side_at(int index)
{
	return index == 0 ? SIDE_SOURCE : SIDE_DESTINATION;
}

static bool same_core(const struct migration_core *a, const struct migration_core *b)
{
	struct migration_packed x, y;
	migration_pack(a, &x);
	migration_pack(b, &y);
	return x.state == y.state && x.facts == y.facts && x.source == y.source && x.destination == y.destination &&
	       x.cause == y.cause;
}

static bool same_facts(const struct migration_core *a, const struct migration_core *b)
{
	struct migration_packed x, y;
	migration_pack(a, &x);
	migration_pack(b, &y);
	return x.facts == y.facts;
}

/* Milliseconds that a state may take; 0: for ever. */
static uint64_t state_limit_ms(const struct coordinator *c, const struct run *run)
{
	switch (run->rec.core.state) {
	case MIGRATION_CHECKING:
		return c->settings.checking_ms;
	case MIGRATION_PREPARING:
		return c->settings.preparing_ms;
	case MIGRATION_COPYING:
		return (uint64_t)run->plan.timeout_s * 1000;
	case MIGRATION_SWITCHING:
		return c->settings.switching_ms;
	case MIGRATION_QUEUED:
	case MIGRATION_COMMITTED:
	case MIGRATION_DONE:
	case MIGRATION_ROLLING_BACK:
	case MIGRATION_CANCELLED:
	case MIGRATION_FAILED:
	case MIGRATION_IN_DOUBT:
	case MIGRATION_LOST:
	case MIGRATION_STATES:
		break;
	}
	return 0;
}

static void set_deadline(struct coordinator *c, struct run *run, int64_t spent_ms)
{
	int64_t limit_ms = (int64_t)state_limit_ms(c, run);
	run->deadline_ms = 0;
	if (limit_ms == 0)
		return;
	/* After a restart nobody is late before he had a chance to be heard; and what was spent is the wall clock's
	 * word, which may have been set meanwhile: it takes no more than half. */
	int64_t left_ms = limit_ms - (spent_ms < limit_ms / 2 ? spent_ms : limit_ms / 2);
	if (spent_ms > 0 && left_ms < 2 * START_GRACE_MS)
		left_ms = 2 * START_GRACE_MS;
	run->deadline_ms = coordinator_now_ms(c) + left_ms;
}

/* ---- words ---- */

static const char *words_of(const struct run *run, const struct migration_event *event, const char *words,
                            char text[LIMIT_TEXT])
{
	const char *host = event->side ? run_host(&run->rec, event->side) : "";
	const char *step = event->kind == MIGRATION_EVENT_ANSWER ? step_name(event->step) : "";
	const char *how = event->kind == MIGRATION_EVENT_ANSWER ? outcome_name(event->outcome) : "";
	(void)snprintf(text, LIMIT_TEXT, "%s%s%s%s%s%s%.400s", host, host[0] ? ": " : "", step, step[0] ? " " : "", how,
	               how[0] && words ? ": " : "",
	               words    ? words
	               : how[0] ? ""
	                        : migration_event_name(event->kind));
	return text;
}

static void note_cause(struct run *run, const struct migration_event *event, const char *words)
{
	const char *code = err_name(run->rec.core.cause);
	if (words && words[0])
		(void)snprintf(run->rec.cause_text, sizeof(run->rec.cause_text), "%s", words);
	else
		(void)snprintf(run->rec.cause_text, sizeof(run->rec.cause_text), "%s (%s)", code,
		               migration_event_name(event->kind));
}

/* JSON for the event row: what is known of the votes after it. malloc'ed. */
static char *details_of(const struct run *run)
{
	const struct verdict_facts *facts = &run->rec.core.facts;
	json_t *doc = api_facts(facts);
	json_object_set_new(doc, "votes", api_votes(facts));
	char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	json_decref(doc);
	return text;
}

static void facts_text(const struct verdict_facts *facts, char text[LIMIT_TEXT])
{
	const char *votes[PARTIES];
	for (int party = 0; party < PARTIES; party++)
		votes[party] = facts->vote[party] == VOTE_NONE ? "-" : vote_name(facts->vote[party]);
	(void)snprintf(text, LIMIT_TEXT, "votes coordinator=%s source=%s destination=%s%s%s%s%s%s%s%s%s",
	               votes[PARTY_COORDINATOR], votes[PARTY_SOURCE], votes[PARTY_DESTINATION],
	               facts->suspended ? " suspended" : "", facts->stream_ended ? " stream-ended" : "",
	               facts->resumed ? " resumed" : "", facts->released ? " released" : "",
	               facts->activating ? " activating" : "", facts->running ? " running" : "",
	               facts->renounced ? " renounced" : "",
	               facts->ruling == VOTE_NONE     ? ""
	               : facts->ruling == VOTE_COMMIT ? " ruled-for-destination"
	                                              : " ruled-for-source");
}

/* ---- steps ---- */

/* What is due now is put into `pending`, and what is new of it into the change. */
static void update_pending(struct coordinator *c, struct run *run, const struct migration_event *event,
                           struct store_step steps[STEPS_A_CHANGE], size_t *ret_count)
{
	size_t count = 0;
	if (event->kind == MIGRATION_EVENT_ANSWER) {
		const struct pending *was = &run->pending[event->side == SIDE_DESTINATION];
		if (was->step == event->step)
			steps[count++] = (struct store_step) { .side = event->side,
				                               .step = event->step,
				                               .sequence = was->sequence,
				                               .outcome = event->outcome,
				                               .tries = was->tries };
	}
	for (int i = 0; i < 2; i++) {
		struct pending *pending = &run->pending[i];
		enum step due = migration_command(&run->rec.core, side_at(i));
		if (due == pending->step)
			continue;
		*pending = (struct pending) { .step = due };
		if (due == STEP_NONE)
			continue;
		pending->sequence = ++c->sequence;
		pending->since_ms = coordinator_now_ms(c);
		steps[count++] = (struct store_step) {
			.side = side_at(i), .step = due, .sequence = pending->sequence, .outcome = OUTCOME_UNKNOWN
		};
	}
	*ret_count = count;
}

static void schedule(struct coordinator *c, struct pending *pending)
{
	uint64_t pause_ms = c->settings.retry_ms;
	for (uint32_t i = 0; i < pending->tries && pause_ms < c->settings.retry_max_ms; i++)
		pause_ms *= 2;
	if (pause_ms > c->settings.retry_max_ms)
		pause_ms = c->settings.retry_max_ms;
	pending->tries++;
	pending->next_ms = coordinator_now_ms(c) + (int64_t)pause_ms;
}

/* ---- the journal ---- */

static void stamp(struct coordinator *c, struct run *run, enum migration_state before)
{
	int64_t wall_ms = coordinator_wall_ms(c);
	struct store_migration *rec = &run->rec;
	if (rec->core.state == before)
		return;
	rec->state_wall_ms = wall_ms;
	run->state_ms = coordinator_now_ms(c);
	if (before == MIGRATION_QUEUED && !migration_is_final(rec->core.state))
		rec->started_wall_ms = wall_ms;
	rec->ended_wall_ms = migration_is_final(rec->core.state) ? wall_ms : 0;
	if (run->has_progress) {
		char *text = api_progress_text(&run->progress);
		if (text) {
			free(rec->progress);
			rec->progress = text;
		}
	}
}

static bool journal(struct coordinator *c, struct run *run, const struct migration_core *before,
                    const struct migration_event *event, const char *words, const struct store_step *steps,
                    size_t count)
{
	char text[LIMIT_TEXT], facts[LIMIT_TEXT];
	struct err err;
	struct store_change change = { .from = before->state, .steps = steps, .step_count = count };
	err_clear(&err);
	if (event->side)
		change.host = run_host(&run->rec, event->side);
	if (run->rec.core.state != before->state) {
		change.kind = "state";
		change.text = words_of(run, event, words, text);
	} else if (!same_facts(&run->rec.core, before)) {
		facts_text(&run->rec.core.facts, facts);
		change.kind = "facts";
		change.text = facts;
	} else if (event->kind == MIGRATION_EVENT_ANSWER || event->kind == MIGRATION_EVENT_REBOOTED ||
	           event->kind == MIGRATION_EVENT_JOURNAL_LOST || event->kind == MIGRATION_EVENT_CANCEL ||
	           event->kind == MIGRATION_EVENT_RESOLVE || event->kind == MIGRATION_EVENT_WRITTEN_OFF) {
		change.kind = migration_event_name(event->kind);
		change.text = words_of(run, event, words, text);
	}
	char *details = change.kind ? details_of(run) : NULL;
	change.details = details;
	int result = store_migration_save(c->store, &run->rec, &change, &err);
	free(details);
	if (result == 0)
		return true;
	err_wrap(&err, "journal migration %llu", (unsigned long long)run->rec.id);
	coordinator_fail(c, &err);
	return false;
}

static void log_change(const struct run *run, const struct migration_core *before, const struct migration_event *event,
                       const char *words)
{
	const struct store_migration *rec = &run->rec;
	char facts[LIMIT_TEXT];
	if (rec->core.state != before->state) {
		log_notice("event=transition migration=%llu generation=%u vm=%s from=%s to=%s by=%s%s%s%s%s%s",
		           (unsigned long long)rec->id, rec->generation, rec->vm_name,
		           migration_state_name(before->state), migration_state_name(rec->core.state),
		           migration_event_name(event->kind), event->side ? " host=" : "",
		           event->side ? run_host(rec, event->side) : "", words ? " text=\"" : "", words ? words : "",
		           words ? "\"" : "");
	} else if (!same_facts(&rec->core, before)) {
		facts_text(&rec->core.facts, facts);
		log_info("event=facts migration=%llu %s", (unsigned long long)rec->id, facts);
	}
}

/* ---- actions ---- */

static void act(struct coordinator *c, struct run *run, const struct migration_event *event,
                const struct migration_actions *actions)
{
	bool told[2] = { false, false };
	for (unsigned i = 0; i < actions->count && !c->failed; i++) {
		const struct migration_action *action = &actions->list[i];
		switch (action->kind) {
		case MIGRATION_ACTION_SEND:
			told[action->side == SIDE_DESTINATION] = true;
			run_send_command(c, run, action->side);
			break;
		case MIGRATION_ACTION_TELL:
			told[action->side == SIDE_DESTINATION] = true;
			run_tell_facts(c, run, action->side);
			break;
		case MIGRATION_ACTION_DEADLINE:
			set_deadline(c, run, 0);
			break;
		case MIGRATION_ACTION_FINISH:
			c->admit = true;
			host_ask_inventory(c, host_find(c, run->rec.source));
			host_ask_inventory(c, host_find(c, run->rec.destination));
			break;
		case MIGRATION_ACTION_CONFLICT:
			log_error("event=vote-conflict migration=%llu host=%s: it tells of a vote that contradicts the "
			          "one known",
			          (unsigned long long)run->rec.id, run_host(&run->rec, action->side));
			break;
		case MIGRATION_ACTION_CAUSE: /* its words were journaled with it */
			break;
		}
	}
	for (int i = 0; i < 2; i++) {
		if (event->kind == MIGRATION_EVENT_HOST_UP && event->side == side_at(i))
			run->pending[i].tries = 0;
		if (told[i])
			schedule(c, &run->pending[i]);
	}
}

static bool is_over(const struct migration_core *core)
{
	bool owed = false;
	for (int i = 0; i < 2; i++)
		owed |= core->side[i].cleanup_owed || core->side[i].forget_owed;
	return migration_is_final(core->state) && !owed;
}

void run_event(struct coordinator *c, struct run *run, const struct migration_event *event, const char *words)
{
	struct migration_core before = run->rec.core;
	struct migration_actions actions;
	struct store_step steps[STEPS_A_CHANGE];
	size_t count = 0;
	if (c->failed)
		return;
	migration_step(&before, event, &run->rec.core, &actions);
	for (unsigned i = 0; i < actions.count; i++)
		if (actions.list[i].kind == MIGRATION_ACTION_CAUSE)
			note_cause(run, event, words);
	if (event->kind == MIGRATION_EVENT_ANSWER && event->side == SIDE_DESTINATION && event->step == STEP_CHECK &&
	    run->claimed_ms == 0)
		run->claimed_ms = coordinator_now_ms(c);
	update_pending(c, run, event, steps, &count);
	stamp(c, run, before.state);
	if (run->dirty || !same_core(&before, &run->rec.core)) {
		if (!journal(c, run, &before, event, words, steps, count))
			return;
		run->dirty = false;
		log_change(run, &before, event, words);
	}
	if (event->kind == MIGRATION_EVENT_RESTART) {
		int64_t spent_ms = coordinator_wall_ms(c) - run->rec.state_wall_ms;
		set_deadline(c, run, spent_ms > 0 ? spent_ms : 1);
	}
	act(c, run, event, &actions);
	run->over = is_over(&run->rec.core);
}
