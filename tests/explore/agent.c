/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The agent's shell: sessions.c, control.c and legs.c in the model. */
#include "tests/explore/world.h"

static const struct session_core nothing;
static const struct verdict_facts no_facts;

void agent_cause(struct host *h, enum cause cause)
{
	if (h->cause == CAUSE_NONE)
		h->cause = cause;
}

/* ---- actions ---- */

static void answer(struct world *w, int i, const struct session_action *action)
{
	struct host *h = &w->h[i];
	bool done = action->outcome == OUTCOME_DONE;
	if (h->row && session_is_last_word(action->step, action->outcome, action->code))
		*(done ? &h->kept_done : &h->kept_refused) |= 1U << action->step;
	c_answered(w, i, action->step, action->outcome, action->code);
}

static void answer_plain(struct world *w, int i, enum step step, enum outcome outcome, enum err_code code)
{
	const struct session_action action = { .kind = ACTION_ANSWER, .step = step, .outcome = outcome, .code = code };
	bool row = w->h[i].row;
	w->h[i].row = false; /* it is not a session's */
	answer(w, i, &action);
	w->h[i].row = row;
}

/* The journal keeps a session for which something is held. */
static void forget(struct host *h)
{
	if (h->row && h->holds)
		return;
	h->forgotten = h->forgotten || h->row;
	h->row = h->pid = h->old_boot = h->connected = h->start_wanted = h->start_recover = h->checks = false;
	h->core = nothing;
	h->facts = no_facts;
	h->cause = CAUSE_NONE;
	h->kept_done = h->kept_refused = 0;
	h->leg.out = 0;
}

static void act(struct world *w, int i, const struct session_action *action)
{
	struct host *h = &w->h[i];
	switch (action->kind) {
	case ACTION_RUN_CHECKS:
		h->checks = true;
		return;
	case ACTION_START_LEG:
		h->start_wanted = true;
		h->start_recover = action->recover;
		return;
	case ACTION_SEND_LEG:
		if (h->connected && h->leg.lives)
			leg_command(w, i, action->step);
		return;
	case ACTION_ANSWER:
		answer(w, i, action);
		return;
	case ACTION_TELL_FACTS:
		if (h->connected && h->leg.lives)
			leg_learn(w, i, &h->facts);
		return;
	case ACTION_FORGET:
		forget(h);
		return;
	case ACTION_REPORT: /* what is true is told at any time: "C hears the report" */
		return;
	}
}

void agent_event(struct world *w, int i, struct session_event event)
{
	struct host *h = &w->h[i];
	struct session_actions actions;
	session_step(&h->core, &h->facts, &event, &h->core, &actions);
	h->core.sequence = 0; /* no decision goes by it */
	h->row = h->row || h->core.state != SESSION_NONE;
	for (unsigned n = 0; n < actions.count; n++)
		act(w, i, &actions.list[n]);
}

/* ---- commands ---- */

static void on_unknown(struct world *w, int i, enum step step)
{
	struct host *h = &w->h[i];
	if (h->forgotten) {
		if (step == STEP_FORGET)
			answer_plain(w, i, step, OUTCOME_DONE, ERR_NONE);
		else if (step == STEP_ABORT || step == STEP_RELEASE)
			answer_plain(w, i, step, OUTCOME_REFUSED, ERR_UNKNOWN_ID);
		else
			answer_plain(w, i, step, OUTCOME_REFUSED, ERR_STALE);
		return;
	}
	if (h->lost && step != STEP_CHECK) {
		answer_plain(w, i, step, OUTCOME_REFUSED, ERR_HOST_LOST);
		return;
	}
	h->core = (struct session_core) { .side = side_of(i) };
	agent_event(w, i, (struct session_event) { .kind = EVENT_COMMAND, .step = step });
	if (h->core.state == SESSION_NONE && h->core.asked == STEP_NONE)
		h->core = nothing;
}

static bool replay(struct world *w, int i, enum step step)
{
	struct host *h = &w->h[i];
	bool forward = step >= STEP_CHECK && step <= STEP_SWITCH, done = (h->kept_done & 1U << step) != 0;
	if (!h->row || (forward && step < h->core.highest) || step == STEP_FORGET)
		return false;
	if (!done && (h->kept_refused & 1U << step) == 0)
		return false;
	c_answered(w, i, step, done ? OUTCOME_DONE : OUTCOME_REFUSED, ERR_INTERNAL);
	return true;
}

void agent_command(struct world *w, int i, enum step step)
{
	struct host *h = &w->h[i];
	bool known = h->row || h->core.asked != STEP_NONE;
	if (!known) {
		on_unknown(w, i, step);
		return;
	}
	if (replay(w, i, step))
		return;
	if (step == STEP_ABORT && h->core.state < SESSION_COMMITTED && verdict_of(&h->facts) != VOTE_COMMIT)
		agent_cause(h, w->c.core.cause == ERR_CANCELLED ? CAUSE_CANCELLED : CAUSE_OTHER);
	agent_event(w, i, (struct session_event) { .kind = EVENT_COMMAND, .step = step });
}

/* ---- the leg ---- */

/* pursue(): an agent that was restarted takes its time. */
enum { REACH_LATE, REACH_AT_ONCE, START_AND_DIE };

static bool reach_leg(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	if (h->dead || h->connected || !h->row || (!h->pid && !h->start_wanted))
		return false;
	if (arg == START_AND_DIE) {
		if (h->pid || h->leg.lives)
			return false;
		leg_spawn(w, i, h->start_recover);
		agent_restart(w, i); /* before it had journaled whom it started */
		return true;
	}
	if (h->away != (arg == REACH_LATE))
		return false;
	h->away = false;
	if (h->leg.lives) {
		h->start_wanted = false;
		h->pid = h->connected = true;
		leg_greet(h);
		agent_event(w, i, (struct session_event) { .kind = EVENT_LEG_UP });
	} else if (h->pid) {
		if (!session_is_final(h->core.state) && h->core.state != SESSION_ROLLING_BACK)
			agent_cause(h, CAUSE_OTHER);
		h->pid = false;
		agent_event(w, i, (struct session_event) { .kind = EVENT_LEG_LOST });
	} else {
		leg_spawn(w, i, h->start_recover);
		h->pid = true;
	}
	return true;
}

/* The connection has ended, after all that was said on it was read. */
static bool see_end(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (h->dead || !h->connected || h->leg.lives || h->leg.out)
		return false;
	h->connected = false;
	agent_event(w, i, (struct session_event) { .kind = EVENT_RESTARTED });
	return true;
}

static bool read_answer(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	enum step step = STEP_CHECK;
	(void)arg;
	if (h->dead || !h->connected || !h->leg.out)
		return false;
	while ((h->leg.out & 1U << step) == 0)
		step++;
	h->leg.out &= ~(1U << step);
	if (h->leg.caused)
		agent_cause(h, CAUSE_OTHER);
	if (h->leg.refused & 1U << step) {
		if (step == STEP_PREPARE || step == STEP_COPY)
			agent_cause(h, CAUSE_OTHER);
		agent_event(w, i, (struct session_event) { .kind = EVENT_LEG_REFUSED, .step = step });
	} else {
		agent_event(w, i, (struct session_event) { .kind = EVENT_LEG_DONE, .step = step });
	}
	return true;
}

static bool same(const struct session_core *a, const struct session_core *b)
{
	return a->state == b->state && a->ready == b->ready && a->leg_wanted == b->leg_wanted &&
	       a->leg_up == b->leg_up && a->abort_asked == b->abort_asked && a->failed == b->failed &&
	       a->asked == b->asked && a->highest == b->highest;
}

/* False: it would be no news. */
static bool news(struct world *w, int i, struct session_event event, bool caused)
{
	struct host *h = &w->h[i];
	struct session_core next;
	struct session_actions actions;
	session_step(&h->core, &h->facts, &event, &next, &actions);
	if (same(&h->core, &next) && !(caused && h->cause == CAUSE_NONE))
		return false;
	if (caused)
		agent_cause(h, CAUSE_OTHER);
	agent_event(w, i, event);
	return true;
}

static bool read_report(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	return !h->dead && h->connected && h->leg.lives && h->row && !h->leg.out &&
	       news(w, i, leg_report_event(&h->core, leg_phase(&h->leg.view)), h->leg.caused);
}

/* What a leg wrote that is not connected. */
static bool look(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	return !h->dead && h->row && !h->connected && news(w, i, (struct session_event) { .kind = EVENT_FACTS }, false);
}

static bool mend(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (h->dead || !h->row || !h->core.leg_wanted || h->connected || h->pid || h->start_wanted)
		return false;
	agent_event(w, i, (struct session_event) { .kind = EVENT_LEG_LOST });
	return true;
}

/* ---- by itself ---- */

/* arg: 1 if they pass, 2 if they have to fail */
static bool check(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	bool ok = arg == 1, gone = i == S && h->vm != IMAGE_RUNNING;
	if (h->dead || !h->checks || (ok && gone) || (arg == 2 && !gone))
		return false;
	h->checks = false;
	if (!ok)
		agent_cause(h, CAUSE_OTHER);
	agent_event(w, i, (struct session_event) { .kind = EVENT_CHECKS_DONE, .ok = ok });
	return true;
}

/* arg: whether the coordinator is really away */
static bool orphan(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	if (h->dead || !h->row || h->core.state > SESSION_COPYING || (arg && c_hears(w, i)))
		return false;
	agent_cause(h, CAUSE_OTHER);
	agent_event(w, i, (struct session_event) { .kind = EVENT_ORPHANED });
	return true;
}

/* pick_up(): what a new process makes of the journal. */
void agent_restart(struct world *w, int i)
{
	struct host *h = &w->h[i];
	enum session_event_kind kind = EVENT_RESTARTED;
	h->connected = h->start_wanted = h->start_recover = h->checks = false;
	h->away = true;
	h->leg.out = 0;
	h->core.leg_up = false;
	if (!h->row) {
		h->core = nothing;
		return;
	}
	if (!(h->pid && h->leg.lives)) {
		if (h->old_boot)
			kind = EVENT_HOST_REBOOTED;
		else if (h->pid)
			kind = EVENT_LEG_LOST;
		h->pid = false;
	}
	if (kind == EVENT_HOST_REBOOTED || (kind == EVENT_LEG_LOST && !session_is_final(h->core.state)))
		agent_cause(h, CAUSE_OTHER);
	agent_event(w, i, (struct session_event) { .kind = kind });
}

static bool restart(struct world *w, int i, unsigned arg)
{
	(void)arg;
	if (w->h[i].dead)
		return false;
	agent_restart(w, i);
	return true;
}

const struct step_rule agent_rules[] = {
	{ "S: the checks pass", check, S, 1, CALM },
	{ "D: the checks pass", check, D, 1, CALM },
	{ "S: the VM is not there any more", check, S, 2, CALM },
	{ "S: a check fails", check, S, 0, NUISANCE },
	{ "D: a check fails", check, D, 0, NUISANCE },
	{ "S's agent reaches for its leg", reach_leg, S, REACH_AT_ONCE, EAGER },
	{ "D's agent reaches for its leg", reach_leg, D, REACH_AT_ONCE, EAGER },
	{ "S's agent reaches for its leg again", reach_leg, S, REACH_LATE, CALM },
	{ "D's agent reaches for its leg again", reach_leg, D, REACH_LATE, CALM },
	{ "S's agent starts a leg and dies", reach_leg, S, START_AND_DIE, NUISANCE },
	{ "D's agent starts a leg and dies", reach_leg, D, START_AND_DIE, NUISANCE },
	{ "S's agent sees its leg gone", see_end, S, 0, EAGER },
	{ "D's agent sees its leg gone", see_end, D, 0, EAGER },
	{ "S's agent reads its leg's answer", read_answer, S, 0, EAGER },
	{ "D's agent reads its leg's answer", read_answer, D, 0, EAGER },
	{ "S's agent reads its leg's report", read_report, S, 0, EAGER },
	{ "D's agent reads its leg's report", read_report, D, 0, EAGER },
	{ "S's agent looks into the journal", look, S, 0, CALM },
	{ "D's agent looks into the journal", look, D, 0, CALM },
	{ "S's agent mends", mend, S, 0, EAGER },
	{ "D's agent mends", mend, D, 0, EAGER },
	{ "S is an orphan", orphan, S, 1, CALM },
	{ "D is an orphan", orphan, D, 1, CALM },
	{ "S takes itself for an orphan", orphan, S, 0, NUISANCE },
	{ "D takes itself for an orphan", orphan, D, 0, NUISANCE },
	{ "S's agent is restarted", restart, S, 0, NUISANCE },
	{ "D's agent is restarted", restart, D, 0, NUISANCE },
	{ 0 },
};
