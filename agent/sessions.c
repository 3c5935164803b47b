/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sessions: event in, core, journal, actions out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_impl.h"
#include "agent/check.h"
#include "common/clock.h"
#include "common/log.h"

/* ---- the list ---- */

struct session *session_find(struct agent *agent, uint64_t migration, uint32_t generation)
{
	for (struct session *s = agent->sessions; s; s = s->next)
		if (!s->doomed && s->row.migration == migration && s->row.generation == generation)
			return s;
	return NULL;
}

unsigned sessions_count(const struct agent *agent)
{
	unsigned count = 0;
	for (const struct session *s = agent->sessions; s; s = s->next)
		count += !s->doomed;
	return count;
}

static void session_free(struct session *session)
{
	leg_disconnect(session);
	free(session->plan);
	free(session);
}

struct session *session_add(struct agent *agent, uint64_t migration, uint32_t generation, enum side side)
{
	struct session *session = calloc(1, sizeof(*session));
	struct msg_plan *plan = calloc(1, sizeof(*plan));
	if (!session || !plan)
		abort(); /* a daemon without a few KiB ends, and starts again */
	session->agent = agent;
	session->plan = plan;
	session->leg_fd = -1;
	session->row.migration = migration;
	session->row.generation = generation;
	session->row.side = session->row.core.side = side;
	session->row.created_wall_ms = clock_real.wall_ms(&clock_real);
	memcpy(session->row.boot_id, agent->boot_id, sizeof(session->row.boot_id));
	struct session **end = &agent->sessions;
	while (*end)
		end = &(*end)->next;
	*end = session;
	return session;
}

static void sweep_doomed(struct agent *agent)
{
	for (struct session **at = &agent->sessions; *at;) {
		struct session *session = *at;
		if (session->doomed) {
			*at = session->next;
			session_free(session);
		} else {
			at = &session->next;
		}
	}
}

void sessions_walk(struct agent *agent, void (*fn)(struct session *session))
{
	agent->walking++;
	for (struct session *s = agent->sessions; s; s = s->next)
		if (!s->doomed)
			fn(s);
	if (--agent->walking == 0)
		sweep_doomed(agent);
}

void sessions_free(struct agent *agent)
{
	while (agent->sessions) {
		struct session *session = agent->sessions;
		agent->sessions = session->next;
		session_free(session);
	}
}

/* ---- journal ---- */

int session_save(struct session *session)
{
	struct err err;
	bool plan = session->plan->source[0] != '\0';
	if (journal_session_put(session->agent->journal, &session->row,
	                        plan && !session->journaled ? session->plan : NULL, &err) < 0) {
		log_error("event=journal migration=%" PRIu64 " error=\"%s\"", session->row.migration, err.text);
		session->unsaved = true;
		return -1;
	}
	session->journaled = true;
	session->dirty = session->unsaved = false;
	return 0;
}

bool session_refresh_facts(struct session *session)
{
	struct journal_session row;
	struct err err;
	if (!session->journaled)
		return false;
	if (journal_session_get(session->agent->journal, session->row.migration, session->row.generation, &row, NULL,
	                        &err) < 0) {
		log_error("event=journal migration=%" PRIu64 " error=\"%s\"", session->row.migration, err.text);
		return false;
	}
	bool conflict = false;
	return verdict_learn(&session->row.facts, &row.facts, &conflict);
}

void session_learn(struct session *session, const struct verdict_facts *heard, bool tell)
{
	struct err err;
	bool conflict = false, fresh = session_refresh_facts(session);
	struct verdict_facts merged = session->row.facts;
	bool more = verdict_learn(&merged, heard, &conflict);
	if (conflict)
		log_error("event=conflict migration=%" PRIu64
		          " error=\"a vote that was heard contradicts the journal's\"",
		          session->row.migration);
	else if (more && session->journaled) {
		if (journal_facts_add(session->agent->journal, session->row.migration, session->row.generation, heard,
		                      &session->row.facts, &err) < 0)
			log_error("event=journal migration=%" PRIu64 " error=\"%s\"", session->row.migration, err.text);
		else
			fresh = true;
	}
	if (fresh && tell)
		session_handle(session, &(struct session_event) { .kind = EVENT_FACTS });
}

void session_cause(struct session *session, const struct err *cause)
{
	if (session->row.cause.code != ERR_NONE || cause->code == ERR_NONE)
		return;
	session->row.cause = *cause;
	session->dirty = true;
}

/* ---- what others are told ---- */

void session_describe(const struct session *session, struct msg_session *ret)
{
	const struct journal_session *row = &session->row;
	*ret = (struct msg_session) {
		.migration = row->migration,
		.generation = row->generation,
		.side = row->side,
		.phase = session_phase_of(row->core.state, row->core.ready),
		.facts = row->facts,
		.cause = row->cause,
		.kept_until_wall_ms = row->kept_until_wall_ms,
		.budget = row->budget,
	};
}

void session_report(struct session *session)
{
	struct msg *msg = control_msg(MSG_REPORT);
	msg->migration = session->row.migration;
	msg->generation = session->row.generation;
	session_describe(session, &msg->u.report);
	control_send(session->agent, msg);
	free(msg);
}

static void fill_refusal(struct session *session, const struct session_action *action, struct err *cause)
{
	const char *step = step_name(action->step), *state = session_state_name(session->row.core.state);
	if (action->code != ERR_NONE)
		err_set(cause, action->code, "%s is refused on %s: the session is %s", step, session->agent->conf.host,
		        state);
	else if (session->refusal.code != ERR_NONE)
		*cause = session->refusal;
	else if (session->row.cause.code != ERR_NONE)
		*cause = session->row.cause;
	else
		err_set(cause, ERR_INTERNAL, "%s failed on %s", step, session->agent->conf.host);
}

static void do_answer(struct session *session, const struct session_action *action)
{
	struct agent *agent = session->agent;
	struct msg *msg = control_msg(MSG_ANSWER);
	struct msg_answer *answer = &msg->u.answer;
	struct err err;
	msg->migration = session->row.migration;
	msg->generation = session->row.generation;
	msg->sequence = action->step == session->event_step ? session->event_sequence : session->row.core.sequence;
	answer->step = action->step;
	answer->side = session->row.side;
	answer->outcome = action->outcome;
	if (action->outcome == OUTCOME_REFUSED)
		fill_refusal(session, action, &answer->cause);
	if (action->step == STEP_PREPARE && action->outcome == OUTCOME_DONE) {
		memcpy(answer->fingerprint, session->row.fingerprint, sizeof(answer->fingerprint));
		memcpy(answer->endpoint, session->row.endpoint, sizeof(answer->endpoint));
	}
	if (action->step == STEP_CHECK) {
		answer->check_count = session->check_count;
		memcpy(answer->checks, session->checks, session->check_count * sizeof(answer->checks[0]));
	}
	session_describe(session, &answer->session);
	if ((answer->step == STEP_ABORT || answer->step == STEP_RELEASE) && answer->outcome == OUTCOME_DONE)
		keep_note(agent);
	bool journaled = true;
	if (session->journaled && session_is_last_word(answer->step, answer->outcome, answer->cause.code) &&
	    journal_answer_put(agent->journal, msg->migration, msg->generation, answer, &err) < 0) {
		log_error("event=journal migration=%" PRIu64 " error=\"%s\"", msg->migration, err.text);
		journaled = false; /* nothing is said that is not journaled; it will be asked again */
	}
	if (journaled)
		control_send(agent, msg);
	free(msg);
}

/* ---- actions ---- */

/* Answered only when it is done: what is left over here may forbid it, and then it is asked again. */
static void do_forget(struct session *session)
{
	struct agent *agent = session->agent;
	struct err err;
	if (session->journaled &&
	    journal_session_forget(agent->journal, session->row.migration, session->row.generation, &err) < 0) {
		log_warning("event=forget migration=%" PRIu64 " error=\"%s\"", session->row.migration, err.text);
		return;
	}
	session->journaled = false;
	session->doomed = true;
	leg_disconnect(session);
	keep_leg_files_remove(agent, session->row.migration);
	do_answer(session,
	          &(struct session_action) { .kind = ACTION_ANSWER, .step = STEP_FORGET, .outcome = OUTCOME_DONE });
	(void)inventory_request(agent);
}

static void do_action(struct session *session, const struct session_action *action)
{
	switch (action->kind) {
	case ACTION_RUN_CHECKS:
		session->checks_run = inventory_request(session->agent);
		return;
	case ACTION_START_LEG:
		session->start_wanted = true;
		session->start_recover = action->recover;
		legs_kick(session->agent);
		return;
	case ACTION_SEND_LEG:
		leg_send_step(session, action->step);
		return;
	case ACTION_ANSWER:
		if (action->step != STEP_FORGET || action->outcome != OUTCOME_DONE) /* else do_forget() does */
			do_answer(session, action);
		return;
	case ACTION_REPORT:
		session_report(session);
		return;
	case ACTION_TELL_FACTS:
		leg_tell_facts(session);
		return;
	case ACTION_FORGET:
		do_forget(session);
		return;
	}
}

static bool core_same(const struct session_core *a, const struct session_core *b)
{
	/* leg_up is no news for the journal: after a restart it is false anyway */
	return a->state == b->state && a->side == b->side && a->ready == b->ready && a->leg_wanted == b->leg_wanted &&
	       a->abort_asked == b->abort_asked && a->failed == b->failed && a->asked == b->asked &&
	       a->sequence == b->sequence && a->highest == b->highest;
}

static bool wants_leftover_check(enum session_state before, enum session_state after)
{
	return before != after && session_is_final(after);
}

void session_handle(struct session *session, const struct session_event *event)
{
	struct agent *agent = session->agent;
	struct session_core before = session->row.core, next;
	struct session_actions actions;
	(void)session_refresh_facts(session);
	session_step(&before, &session->row.facts, event, &next, &actions);
	session->event_step = event->kind == EVENT_COMMAND ? event->step : STEP_NONE;
	session->event_sequence = event->sequence;
	bool changed = session->dirty || !core_same(&before, &next);
	session->row.core = next;
	if (changed && next.state != SESSION_NONE && session_save(session) < 0) {
		session->row.core = before; /* not journaled, not done; the next try is the sender's, or mend()'s */
		session->row.core.leg_up = next.leg_up;
		return;
	}
	if (before.state != next.state)
		log_info("event=session migration=%" PRIu64 " generation=%u side=%s from=%s to=%s",
		         session->row.migration, session->row.generation, side_name(session->row.side),
		         session_state_name(before.state), session_state_name(next.state));
	agent->walking++; /* an action may drop the session */
	for (unsigned i = 0; i < actions.count; i++)
		do_action(session, &actions.list[i]);
	err_clear(&session->refusal);
	if (wants_leftover_check(before.state, next.state))
		(void)inventory_request(agent);
	agent->walking--; /* the list is swept by whoever walks it, or by the housekeeping */
}

/* ---- checks ---- */

static const char *busy_with(struct agent *agent, const struct session *self, const struct msg_plan *plan,
                             enum side side, char text[LIMIT_TEXT])
{
	const char *name = plan->new_name[0] ? plan->new_name : plan->vm.name;
	for (struct session *s = agent->sessions; s; s = s->next) {
		if (s == self || s->doomed || s->row.core.state == SESSION_NONE || session_is_final(s->row.core.state))
			continue;
		const char *theirs = s->plan->new_name[0] ? s->plan->new_name : s->plan->vm.name;
		bool same_vm = memcmp(s->plan->vm.uuid, plan->vm.uuid, sizeof(uuid_bytes)) == 0;
		bool same_name = side == SIDE_DESTINATION && s->row.side == side && strcmp(theirs, name) == 0;
		if (!same_vm && !same_name)
			continue;
		(void)snprintf(text, LIMIT_TEXT, "migration %" PRIu64 " has %s already", s->row.migration, theirs);
		return text;
	}
	return NULL;
}

/* What earlier copies take of the space that the plan's disks need. An unreadable journal knows of none. */
static void find_reusable(struct agent *agent, const struct msg_plan *plan, uint64_t ret_bytes[LIMIT_DISKS])
{
	struct journal_resource kept;
	struct err err;
	for (uint32_t i = 0; i < plan->vm.disk_count; i++)
		if (journal_kept_find(agent->journal, plan, i, &kept, &err) == 1)
			ret_bytes[i] = sr_disk_allocated(kept.path);
}

static uint32_t run_checks(struct agent *agent, const struct session *self, const struct msg_plan *plan, enum side side,
                           struct msg_check *ret_checks, struct err *ret_refusal)
{
	char busy[LIMIT_TEXT];
	const struct inventory *inventory = &agent->inventory;
	inventory_amounts(agent); /* another session may have claimed since */
	agent_reserve(agent);
	struct check_world world = {
		.conf = &agent->conf,
		.inventory = inventory->valid && inventory->err.code == ERR_NONE ? &inventory->now : NULL,
		.inventory_err = &inventory->err,
		.leg_err = agent->leg_err.code != ERR_NONE ? &agent->leg_err : NULL,
		.busy = busy_with(agent, self, plan, side, busy),
		.reserve_err = &agent->reserve_err,
		.path = getenv("PATH"),
	};
	if (side == SIDE_DESTINATION)
		find_reusable(agent, plan, world.reusable_bytes);
	return check_run(&world, side, plan, ret_checks, ret_refusal);
}

static void session_checks(struct session *session)
{
	struct agent *agent = session->agent;
	if (session->checks_run == 0 || session->checks_run > agent->inventory.run)
		return;
	session->checks_run = 0;
	session->check_count =
		run_checks(agent, session, session->plan, session->row.side, session->checks, &session->refusal);
	bool ok = session->refusal.code == ERR_NONE;
	if (ok && session->row.side == SIDE_DESTINATION)
		session->row.claim_memory_bytes = session->plan->vm.memory_bytes;
	if (!ok)
		session_cause(session, &session->refusal);
	session_handle(session, &(struct session_event) { .kind = EVENT_CHECKS_DONE, .ok = ok });
}

void agent_run_checks(struct agent *agent)
{
	sessions_walk(agent, session_checks);
	for (struct dry_run **at = &agent->dry_runs; *at;) {
		struct dry_run *dry = *at;
		if (dry->checks_run > agent->inventory.run) {
			at = &dry->next;
			continue;
		}
		struct msg_check *checks = calloc(LIMIT_CHECKS, sizeof(*checks));
		struct err refusal;
		if (!checks)
			abort();
		uint32_t count = run_checks(agent, NULL, &dry->plan, dry->side, checks, &refusal);
		control_answer_dry(agent, dry, checks, count, &refusal);
		free(checks);
		*at = dry->next;
		free(dry);
	}
}

/* ---- after a start ---- */

static void pick_up(struct session *session)
{
	struct journal_session *row = &session->row;
	bool leg_lives = row->leg.pid != 0 && process_alive(&row->leg);
	bool rebooted = strcmp(row->boot_id, session->agent->boot_id) != 0;
	enum session_event_kind kind = EVENT_RESTARTED;
	if (!leg_lives) {
		if (rebooted)
			kind = EVENT_HOST_REBOOTED;
		else if (row->leg.pid != 0)
			kind = EVENT_LEG_LOST;
		if (row->leg.pid != 0)
			session->dirty = true;
		if (row->leg.pid == 0) /* one may have been started a moment before the end: it gets time to listen */
			session->start_after_ms = agent_now_ms() + LEG_ADOPT_MS;
		row->leg = (struct proc_id) { 0 };
	}
	if (kind == EVENT_HOST_REBOOTED)
		session_cause(session, &(struct err) { .code = ERR_HOST_LOST, .text = "the host was rebooted" });
	else if (kind == EVENT_LEG_LOST && !session_is_final(row->core.state))
		session_cause(session,
		              &(struct err) { .code = ERR_LEG_LOST, .text = "the leg ended while the agent was away" });
	session_handle(session, &(struct session_event) { .kind = kind });
	legs_kick(session->agent);
}

int sessions_load(struct agent *agent, struct err *err)
{
	struct journal_session *list = NULL;
	size_t count = 0;
	if (journal_session_list(agent->journal, &list, &count, err) < 0)
		return -1;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < count; i++) {
		struct session *session = session_add(agent, list[i].migration, list[i].generation, list[i].side);
		rc = journal_session_get(agent->journal, list[i].migration, list[i].generation, &session->row,
		                         session->plan, err);
		session->journaled = true;
		session->row.core.leg_up = false;
	}
	free(list);
	if (rc == 0)
		sessions_walk(agent, pick_up);
	return rc;
}
