/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/core/session.h"

#include <stddef.h>

/* One step under way. */
struct stepping {
	struct session_core core;
	const struct verdict_facts *facts;
	struct session_actions *actions;
};

const char *session_state_name(enum session_state state)
{
	switch (state) {
	case SESSION_NONE:
		return "none";
	case SESSION_CHECKED:
		return "checked";
	case SESSION_PREPARING:
		return "preparing";
	case SESSION_PREPARED:
		return "prepared";
	case SESSION_COPYING:
		return "copying";
	case SESSION_SWITCHING:
		return "switching";
	case SESSION_COMMITTED:
		return "committed";
	case SESSION_RELEASING:
		return "releasing";
	case SESSION_RELEASED:
		return "released";
	case SESSION_ROLLING_BACK:
		return "rolling-back";
	case SESSION_ROLLED_BACK:
		return "rolled-back";
	case SESSION_STATES:
		break;
	}
	return "invalid";
}

enum session_phase session_phase_of(enum session_state state, bool ready)
{
	switch (state) {
	case SESSION_NONE:
	case SESSION_STATES:
		break;
	case SESSION_CHECKED:
	case SESSION_PREPARING: /* not prepared before it is */
		return PHASE_CHECKED;
	case SESSION_PREPARED:
		return PHASE_PREPARED;
	case SESSION_COPYING:
		return ready ? PHASE_READY : PHASE_COPYING;
	case SESSION_SWITCHING:
		return PHASE_SWITCHING;
	case SESSION_COMMITTED:
	case SESSION_RELEASING:
		return PHASE_COMMITTED;
	case SESSION_RELEASED:
		return PHASE_RELEASED;
	case SESSION_ROLLING_BACK:
		return PHASE_ROLLING_BACK;
	case SESSION_ROLLED_BACK:
		return PHASE_ROLLED_BACK;
	}
	return PHASE_NONE;
}

bool session_is_final(enum session_state state)
{
	return state == SESSION_RELEASED || state == SESSION_ROLLED_BACK;
}

bool session_is_last_word(enum step step, enum outcome outcome, enum err_code code)
{
	if (step == STEP_FORGET)
		return false;
	if (outcome == OUTCOME_DONE)
		return true;
	if (step == STEP_ABORT || step == STEP_RELEASE)
		return false;
	return code != ERR_STALE && code != ERR_PROTOCOL && code != ERR_HOST_LOST;
}

/* The VM runs, or is about to run, on the destination, and nothing can change that any more. */
static bool is_committed(const struct verdict_facts *facts)
{
	return verdict_of(facts) == VOTE_COMMIT && !facts->renounced;
}

/* The VM stays on the source, and nothing can change that any more. */
static bool is_aborted(const struct session_core *core, const struct verdict_facts *facts)
{
	if (is_committed(facts))
		return false;
	if (verdict_of(facts) == VOTE_ABORT || facts->renounced || facts->resumed)
		return true;
	/* V2; only the source itself knows for certain that its stream has not ended. */
	return core->side == SIDE_SOURCE && facts->vote[PARTY_SOURCE] == VOTE_ABORT && !facts->stream_ended;
}

/* Before the grant: the source is the authority, any failure ends in a rollback. */
static bool before_grant(enum session_state state)
{
	return state == SESSION_PREPARING || state == SESSION_PREPARED || state == SESSION_COPYING;
}

/* ---- actions ---- */

static void add(struct session_actions *actions, struct session_action action)
{
	for (unsigned i = 0; i < actions->count; i++) {
		const struct session_action *have = &actions->list[i];
		if (have->kind == action.kind && have->step == action.step)
			return; /* the same twice is once */
	}
	if (actions->count < SESSION_ACTIONS_MAX)
		actions->list[actions->count++] = action;
}

static void add_kind(struct session_actions *actions, enum session_action_kind kind)
{
	add(actions, (struct session_action) { .kind = kind });
}

static void add_send(struct session_actions *actions, enum step step)
{
	add(actions, (struct session_action) { .kind = ACTION_SEND_LEG, .step = step });
}

static void add_start(struct session_actions *actions, bool recover)
{
	add(actions, (struct session_action) { .kind = ACTION_START_LEG, .recover = recover });
}

static void answer_done(struct stepping *s, enum step step)
{
	add(s->actions, (struct session_action) { .kind = ACTION_ANSWER, .step = step, .outcome = OUTCOME_DONE });
	if (s->core.asked == step)
		s->core.asked = STEP_NONE;
}

static void answer_refused(struct stepping *s, enum step step, enum err_code code)
{
	add(s->actions,
	    (struct session_action) { .kind = ACTION_ANSWER, .step = step, .outcome = OUTCOME_REFUSED, .code = code });
	if (s->core.asked == step)
		s->core.asked = STEP_NONE;
}

static void ask(struct stepping *s, const struct session_event *event)
{
	s->core.asked = event->step;
	s->core.sequence = event->sequence;
}

/* ---- due ---- */

static void due_with_leg(const struct session_core *core, struct session_actions *actions)
{
	switch (core->state) {
	case SESSION_PREPARING:
		add_send(actions, STEP_PREPARE);
		break;
	case SESSION_COPYING:
		if (core->asked == STEP_COPY)
			add_send(actions, STEP_COPY);
		break;
	case SESSION_SWITCHING:
		add_kind(actions, ACTION_TELL_FACTS);
		add_send(actions, STEP_SWITCH);
		if (core->abort_asked)
			add_send(actions, STEP_ABORT);
		break;
	case SESSION_COMMITTED:
		add_kind(actions, ACTION_TELL_FACTS);
		break;
	case SESSION_RELEASING:
		add_kind(actions, ACTION_TELL_FACTS);
		add_send(actions, STEP_RELEASE);
		break;
	case SESSION_ROLLING_BACK:
		add_kind(actions, ACTION_TELL_FACTS);
		add_send(actions, STEP_ABORT);
		break;
	case SESSION_RELEASED:
	case SESSION_ROLLED_BACK:
		if (core->asked == STEP_FORGET)
			add_send(actions, STEP_FORGET);
		break;
	case SESSION_NONE:
	case SESSION_CHECKED:
	case SESSION_PREPARED:
	case SESSION_STATES:
		break;
	}
}

void session_due(const struct session_core *core, const struct verdict_facts *facts,
                 struct session_actions *ret_actions)
{
	(void)facts; /* what facts make due is a change of state, which session_step() does first */
	struct session_actions *actions = ret_actions;
	*actions = (struct session_actions) { 0 };
	if (core->leg_up) {
		due_with_leg(core, actions);
		return;
	}
	switch (core->state) {
	case SESSION_NONE:
		if (core->asked == STEP_CHECK)
			add_kind(actions, ACTION_RUN_CHECKS);
		break;
	case SESSION_PREPARING:
	case SESSION_PREPARED:
	case SESSION_COPYING:
		add_start(actions, false);
		break;
	case SESSION_SWITCHING:
	case SESSION_COMMITTED:
	case SESSION_RELEASING:
	case SESSION_ROLLING_BACK:
		add_start(actions, true);
		break;
	case SESSION_RELEASED:
	case SESSION_ROLLED_BACK:
		if (core->asked == STEP_FORGET && !core->leg_wanted) {
			add(actions, (struct session_action) {
					     .kind = ACTION_ANSWER, .step = STEP_FORGET, .outcome = OUTCOME_DONE });
			add_kind(actions, ACTION_FORGET);
		}
		break;
	case SESSION_CHECKED:
	case SESSION_STATES:
		break;
	}
}

static void do_due(struct stepping *s)
{
	struct session_actions due;
	session_due(&s->core, s->facts, &due);
	for (unsigned i = 0; i < due.count; i++)
		add(s->actions, due.list[i]);
}

/* ---- what facts and pending questions make of the state ---- */

static void enter(struct stepping *s, enum session_state state)
{
	s->core.state = state;
	if (state != SESSION_COPYING)
		s->core.ready = false;
	if (state == SESSION_COMMITTED || state == SESSION_RELEASING || state == SESSION_ROLLING_BACK)
		s->core.leg_wanted = true;
}

/* Goes where the verdict has gone. One function decides (V13). */
static void absorb(struct stepping *s)
{
	enum session_state state = s->core.state;
	if (state == SESSION_NONE || state == SESSION_STATES || session_is_final(state))
		return;
	if (is_committed(s->facts)) {
		if (state != SESSION_COMMITTED && state != SESSION_RELEASING)
			enter(s, SESSION_COMMITTED);
	} else if (is_aborted(&s->core, s->facts)) {
		if (state == SESSION_CHECKED)
			enter(s, SESSION_ROLLED_BACK);
		else if (state != SESSION_ROLLING_BACK)
			enter(s, SESSION_ROLLING_BACK);
	}
	if (s->core.state == SESSION_COMMITTED && s->core.asked == STEP_RELEASE && verdict_may_release(s->facts))
		enter(s, SESSION_RELEASING);
}

/* Answers what the coordinator waits for as soon as the state says how it ended. */
static void settle(struct stepping *s)
{
	enum session_state state = s->core.state;
	bool back = state == SESSION_ROLLING_BACK || state == SESSION_ROLLED_BACK;
	bool forth = state == SESSION_COMMITTED || state == SESSION_RELEASING || state == SESSION_RELEASED;
	switch (s->core.asked) {
	case STEP_PREPARE:
	case STEP_COPY:
		if (back)
			answer_refused(s, s->core.asked, ERR_NONE);
		else if (forth || state == SESSION_SWITCHING)
			answer_done(s, s->core.asked);
		break;
	case STEP_ABORT:
		if (forth)
			answer_refused(s, STEP_ABORT, ERR_TOO_LATE);
		else if (state == SESSION_ROLLED_BACK)
			answer_done(s, STEP_ABORT);
		break;
	case STEP_RELEASE:
		if (back)
			answer_refused(s, STEP_RELEASE, ERR_TOO_LATE);
		else if (state == SESSION_RELEASED)
			answer_done(s, STEP_RELEASE);
		break;
	case STEP_NONE:
	case STEP_CHECK:
	case STEP_SWITCH:
	case STEP_FORGET:
	case STEPS:
		break;
	}
}

/* ---- commands ---- */

static void take(struct stepping *s, const struct session_event *event, enum session_state state)
{
	ask(s, event);
	s->core.highest = event->step;
	enter(s, state);
}

static void again_or_done(struct stepping *s, const struct session_event *event)
{
	if (s->core.asked == event->step) {
		ask(s, event);
		do_due(s);
	} else {
		answer_done(s, event->step);
	}
}

/* In the states in which the way forward is open. */
static void on_forward(struct stepping *s, const struct session_event *event)
{
	enum step step = event->step;
	switch (s->core.state) {
	case SESSION_NONE:
		if (step == STEP_CHECK) {
			ask(s, event);
			add_kind(s->actions, ACTION_RUN_CHECKS);
		} else {
			answer_refused(s, step,
			               ERR_HOST_LOST); /* nobody asks for this who was not told "checked" (V11) */
		}
		return;
	case SESSION_CHECKED:
		if (step == STEP_CHECK) {
			answer_done(s, step);
		} else if (step == STEP_PREPARE) {
			s->core.leg_wanted = true;
			take(s, event, SESSION_PREPARING);
		} else {
			answer_refused(s, step, ERR_PROTOCOL);
		}
		return;
	case SESSION_PREPARING:
	case SESSION_PREPARED:
		if (step == STEP_PREPARE)
			again_or_done(s, event);
		else if (step == STEP_COPY && s->core.state == SESSION_PREPARED)
			take(s, event, SESSION_COPYING);
		else
			answer_refused(s, step, ERR_PROTOCOL);
		return;
	case SESSION_COPYING:
		if (step == STEP_COPY) {
			again_or_done(s, event);
		} else if (step == STEP_SWITCH) {
			take(s, event, SESSION_SWITCHING);
			answer_done(s, step);
		} else {
			answer_refused(s, step, ERR_STALE);
		}
		return;
	case SESSION_SWITCHING:
	case SESSION_COMMITTED:
	case SESSION_RELEASING:
	case SESSION_RELEASED:
		if (step == STEP_SWITCH)
			answer_done(s, step);
		else
			answer_refused(s, step, ERR_STALE);
		return;
	case SESSION_ROLLING_BACK:
	case SESSION_ROLLED_BACK:
	case SESSION_STATES:
		answer_refused(s, step, ERR_TOO_LATE);
		return;
	}
}

static void on_abort(struct stepping *s, const struct session_event *event)
{
	switch (s->core.state) {
	case SESSION_NONE: /* remembered, so that a CHECK that comes late finds it */
	case SESSION_CHECKED:
		s->core.abort_asked = true;
		enter(s, SESSION_ROLLED_BACK);
		answer_done(s, STEP_ABORT);
		return;
	case SESSION_PREPARING:
	case SESSION_PREPARED:
	case SESSION_COPYING:
		s->core.abort_asked = true;
		ask(s, event);
		enter(s, SESSION_ROLLING_BACK);
		return;
	case SESSION_SWITCHING:
	case SESSION_ROLLING_BACK:
		s->core.abort_asked = true;
		ask(s, event);
		do_due(s);
		return;
	case SESSION_COMMITTED:
	case SESSION_RELEASING:
	case SESSION_RELEASED:
		answer_refused(s, STEP_ABORT, ERR_TOO_LATE);
		return;
	case SESSION_ROLLED_BACK:
		answer_done(s, STEP_ABORT);
		return;
	case SESSION_STATES:
		return;
	}
}

static void on_release(struct stepping *s, const struct session_event *event)
{
	switch (s->core.state) {
	case SESSION_NONE:
		answer_refused(s, STEP_RELEASE, ERR_HOST_LOST);
		return;
	case SESSION_CHECKED:
	case SESSION_PREPARING:
	case SESSION_PREPARED:
	case SESSION_COPYING:
		answer_refused(s, STEP_RELEASE, ERR_PROTOCOL);
		return;
	case SESSION_SWITCHING: /* the facts that allow it may be on their way */
	case SESSION_COMMITTED:
		ask(s, event);
		return;
	case SESSION_RELEASING:
		ask(s, event);
		do_due(s);
		return;
	case SESSION_RELEASED:
		answer_done(s, STEP_RELEASE);
		return;
	case SESSION_ROLLING_BACK:
	case SESSION_ROLLED_BACK:
		answer_refused(s, STEP_RELEASE, ERR_TOO_LATE);
		return;
	case SESSION_STATES:
		return;
	}
}

static void on_forget(struct stepping *s, const struct session_event *event)
{
	if (s->core.state == SESSION_NONE)
		enter(s, SESSION_ROLLED_BACK);
	if (!session_is_final(s->core.state)) {
		answer_refused(s, STEP_FORGET, ERR_BUSY);
		return;
	}
	ask(s, event);
	do_due(s);
}

static void on_command(struct stepping *s, const struct session_event *event)
{
	switch (event->step) {
	case STEP_CHECK:
	case STEP_PREPARE:
	case STEP_COPY:
	case STEP_SWITCH:
		if (event->step < s->core.highest)
			answer_refused(s, event->step, ERR_STALE);
		else
			on_forward(s, event);
		return;
	case STEP_ABORT:
		on_abort(s, event);
		return;
	case STEP_RELEASE:
		on_release(s, event);
		return;
	case STEP_FORGET:
		on_forget(s, event);
		return;
	case STEP_NONE:
	case STEPS:
		return;
	}
}

/* ---- everything else ---- */

static void on_checks_done(struct stepping *s, bool ok)
{
	if (s->core.state != SESSION_NONE || s->core.asked != STEP_CHECK)
		return;
	s->core.highest = STEP_CHECK;
	if (ok) {
		enter(s, SESSION_CHECKED);
		answer_done(s, STEP_CHECK);
	} else { /* a refusal holds for this generation, so it is remembered */
		s->core.failed = true;
		enter(s, SESSION_ROLLED_BACK);
		answer_refused(s, STEP_CHECK, ERR_NONE);
	}
}

/* The copy is over: before the grant that means to go back, later only the verdict says what it means. */
static void give_up(struct stepping *s)
{
	if (before_grant(s->core.state)) {
		s->core.failed = true;
		enter(s, SESSION_ROLLING_BACK);
	} else if (s->core.state == SESSION_SWITCHING) {
		s->core.failed = true;
	}
}

static void on_leg_done(struct stepping *s, enum step step)
{
	enum session_state state = s->core.state;
	if (step == STEP_PREPARE && state == SESSION_PREPARING) {
		enter(s, SESSION_PREPARED);
		answer_done(s, STEP_PREPARE);
	} else if (step == STEP_COPY && state == SESSION_COPYING && s->core.asked == STEP_COPY) {
		answer_done(s, STEP_COPY);
	} else if (step == STEP_ABORT && (before_grant(state) || state == SESSION_ROLLING_BACK)) {
		s->core.failed = s->core.failed || !s->core.abort_asked;
		enter(s, SESSION_ROLLED_BACK);
	} else if (step == STEP_RELEASE && state == SESSION_RELEASING) {
		enter(s, SESSION_RELEASED);
	} else if (step == STEP_FORGET && session_is_final(state)) {
		s->core.leg_up = false;
		s->core.leg_wanted = false;
		do_due(s);
	}
}

static void on_leg_refused(struct stepping *s, enum step step)
{
	enum session_state state = s->core.state;
	if ((step == STEP_PREPARE && state == SESSION_PREPARING) || (step == STEP_COPY && state == SESSION_COPYING)) {
		give_up(s);
	} else if (step == STEP_RELEASE && state == SESSION_RELEASING) {
		if (s->core.asked == STEP_RELEASE)
			answer_refused(s, STEP_RELEASE, ERR_NONE);
		enter(s, SESSION_COMMITTED);
	}
	/* A refused ABORT stays asked: the verdict will answer it. */
}

static void on_leg_lost(struct stepping *s)
{
	s->core.leg_up = false;
	if (session_is_final(s->core.state))
		s->core.leg_wanted = false;
	give_up(s);
	do_due(s);
	if (s->core.state != SESSION_NONE && !session_is_final(s->core.state))
		add_kind(s->actions, ACTION_REPORT);
}

static void on_rebooted(struct stepping *s)
{
	if (s->core.state == SESSION_CHECKED) {
		s->core.failed = true;
		enter(s, SESSION_ROLLED_BACK);
	}
	on_leg_lost(s);
}

static void on_orphaned(struct stepping *s)
{
	if (s->core.state == SESSION_CHECKED) {
		s->core.failed = true;
		enter(s, SESSION_ROLLED_BACK);
	} else if (before_grant(s->core.state)) {
		give_up(s);
	}
}

static void on_event(struct stepping *s, const struct session_event *event)
{
	switch (event->kind) {
	case EVENT_COMMAND:
		on_command(s, event);
		return;
	case EVENT_CHECKS_DONE:
		on_checks_done(s, event->ok);
		return;
	case EVENT_LEG_UP:
		s->core.leg_up = s->core.leg_wanted;
		do_due(s);
		return;
	case EVENT_LEG_DONE:
		on_leg_done(s, event->step);
		return;
	case EVENT_LEG_REFUSED:
		on_leg_refused(s, event->step);
		return;
	case EVENT_LEG_READY:
		if (s->core.state == SESSION_COPYING) {
			s->core.ready = true;
			add_kind(s->actions, ACTION_REPORT);
		}
		return;
	case EVENT_LEG_FAILED:
		give_up(s);
		if (s->core.state != SESSION_NONE)
			add_kind(s->actions, ACTION_REPORT);
		return;
	case EVENT_LEG_LOST:
		on_leg_lost(s);
		return;
	case EVENT_FACTS:
		if (s->core.leg_up && !session_is_final(s->core.state))
			add_kind(s->actions, ACTION_TELL_FACTS);
		if (s->core.state != SESSION_NONE)
			add_kind(s->actions, ACTION_REPORT);
		return;
	case EVENT_RESTARTED:
		s->core.leg_up = false;
		do_due(s);
		return;
	case EVENT_HOST_REBOOTED:
		on_rebooted(s);
		return;
	case EVENT_ORPHANED:
		on_orphaned(s);
		return;
	case EVENT_KINDS:
		return;
	}
}

static bool has_forget(const struct session_actions *actions)
{
	for (unsigned i = 0; i < actions->count; i++)
		if (actions->list[i].kind == ACTION_FORGET)
			return true;
	return false;
}

void session_step(const struct session_core *core, const struct verdict_facts *facts, const struct session_event *event,
                  struct session_core *ret_next, struct session_actions *ret_actions)
{
	struct session_actions actions = { 0 };
	struct stepping s = { .core = *core, .facts = facts, .actions = &actions };
	enum session_state before = core->state;
	absorb(&s);
	on_event(&s, event);
	absorb(&s);
	settle(&s);
	if (s.core.state != before && !has_forget(&actions)) {
		/* What the state that was left had wanted of its leg is void. */
		struct session_actions kept = { 0 };
		for (unsigned i = 0; i < actions.count; i++)
			if (actions.list[i].kind != ACTION_SEND_LEG && actions.list[i].kind != ACTION_START_LEG)
				add(&kept, actions.list[i]);
		actions = kept;
		add_kind(&actions, ACTION_REPORT);
		do_due(&s); /* last: it may forget the session */
	}
	if (has_forget(&actions))
		s.core.asked = STEP_NONE;
	*ret_actions = actions;
	*ret_next = s.core;
}
