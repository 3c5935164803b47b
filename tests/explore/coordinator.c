/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coordinator's shell: what it journals, sends and hears. coordinator_run.c, _runs.c and _hosts.c in the model. */
#include <string.h>

#include "tests/explore/world.h"

static const struct migration_side *side_get(const struct world *w, int i)
{
	return migration_side_get(&w->c.core, side_of(i));
}

bool c_hears(const struct world *w, int i)
{
	return !w->c.dead && !w->h[i].dead && !w->o.cut[i];
}

/* What no decision goes by is made equal (see README.md). */
static void forget_details(struct migration_core *core)
{
	if (core->cause != ERR_NONE && core->cause != ERR_CANCELLED)
		core->cause = ERR_INTERNAL;
	core->cause_side = (enum side)0;
	core->cause_step = core->cause_step >= STEP_CHECK && core->cause_step <= STEP_COPY ? STEP_COPY : STEP_NONE;
	if (core->side[S].phase != PHASE_READY || core->state > MIGRATION_COPYING)
		core->side[S].phase = PHASE_NONE;
	if (!core->side[D].rebooted || core->state != MIGRATION_COMMITTED)
		core->side[D].phase = PHASE_NONE;
	else if (core->side[D].phase != PHASE_NONE)
		core->side[D].phase = PHASE_COMMITTED; /* that it was heard since */
	for (int i = 0; i < 2; i++) {
		bool *done = core->side[i].done;
		done[STEP_CHECK] = done[STEP_CHECK] && core->state <= MIGRATION_CHECKING;
		done[STEP_PREPARE] = done[STEP_PREPARE] && core->state <= MIGRATION_PREPARING;
		done[STEP_COPY] = done[STEP_COPY] && core->state <= MIGRATION_COPYING;
		if (core->state != MIGRATION_SWITCHING && core->state != MIGRATION_IN_DOUBT)
			done[STEP_SWITCH] = done[STEP_SWITCH] && core->state <= MIGRATION_COPYING;
	}
}

static void send(struct world *w, const struct migration_actions *actions)
{
	for (unsigned n = 0; n < actions->count; n++) {
		const struct migration_action *action = &actions->list[n];
		if (action->kind == MIGRATION_ACTION_SEND)
			w->c.sent[action->side == SIDE_DESTINATION] |= 1U << action->step;
		if (action->kind == MIGRATION_ACTION_CONFLICT)
			broken(w, "a vote that is told contradicts the one that is known");
	}
}

static bool owes(const struct migration_core *core)
{
	bool owed = false;
	for (int i = 0; i < 2; i++)
		owed |= core->side[i].cleanup_owed || core->side[i].forget_owed;
	return owed;
}

static bool same(const struct migration_core *a, const struct migration_core *b)
{
	struct migration_packed x, y;
	migration_pack(a, &x);
	migration_pack(b, &y);
	return x.state == y.state && x.facts == y.facts && x.source == y.source && x.destination == y.destination &&
	       x.cause == y.cause && a->side[S].reach == b->side[S].reach && a->side[D].reach == b->side[D].reach;
}

/* How a step was answered; the code matters only where it says that the session is unknown. */
enum how { DONE, REFUSED, UNKNOWN, HOWS };

static unsigned *answers(struct world *w, int i, enum how how)
{
	return how == DONE ? &w->c.done[i] : how == REFUSED ? &w->c.refused[i] : &w->c.unknown[i];
}

static struct migration_event answer_event(int i, enum step step, enum how how)
{
	return (struct migration_event) {
		.kind = MIGRATION_EVENT_ANSWER,
		.side = side_of(i),
		.step = step,
		.outcome = how == DONE ? OUTCOME_DONE : OUTCOME_REFUSED,
		.code = how == DONE      ? ERR_NONE
		        : how == REFUSED ? ERR_INTERNAL
		                         : ERR_UNKNOWN_ID,
	};
}

static void forget_details(struct migration_core *core);

/* Answers that change nothing are not worth a state of their own. The migration's step never goes back, so what changes
 * nothing now never will. */
static void drop_idle_answers(struct world *w)
{
	struct migration_actions actions;
	struct migration_core next;
	for (int i = 0; i < 2; i++)
		for (int n = 0; n < STEPS * HOWS; n++) {
			enum step step = (enum step)(n / HOWS);
			enum how how = (enum how)(n % HOWS);
			const struct migration_event event = answer_event(i, step, how);
			if ((*answers(w, i, how) & 1U << step) == 0)
				continue;
			migration_step(&w->c.core, &event, &next, &actions);
			forget_details(&next);
			if (same(&w->c.core, &next) || w->c.over)
				*answers(w, i, how) &= ~(1U << step);
		}
}

void c_answered(struct world *w, int i, enum step step, enum outcome outcome, enum err_code code)
{
	enum how how = outcome == OUTCOME_DONE ? DONE : code == ERR_UNKNOWN_ID ? UNKNOWN : REFUSED;
	if (!c_hears(w, i))
		return;
	*answers(w, i, how) |= 1U << step;
	drop_idle_answers(w);
}

/* run_event(): the new core is journaled, then its actions are done. */
static void event(struct world *w, struct migration_event event)
{
	struct migration_actions actions;
	struct migration_core before;
	migration_step(&w->c.core, &event, &w->c.core, &actions);
	send(w, &actions);
	/* RETRY is always possible and sends what is due: done at once, since what was sent may come at any time. */
	for (int i = 0; i < 2; i++) {
		before = w->c.core;
		migration_step(&w->c.core,
		               &(struct migration_event) { .kind = MIGRATION_EVENT_RETRY, .side = side_of(i) },
		               &w->c.core, &actions);
		if (!same(&before, &w->c.core))
			broken(w, "a command that was not answered in time has changed the record");
		send(w, &actions);
	}
	forget_details(&w->c.core);
	w->c.over = migration_is_final(w->c.core.state) && !owes(&w->c.core);
	drop_idle_answers(w);
}

static void simple(struct world *w, enum migration_event_kind kind, int i)
{
	event(w, (struct migration_event) { .kind = kind, .side = side_of(i) });
}

/* ---- what comes from hosts ---- */

static enum err_code code_of(enum cause cause)
{
	return cause == CAUSE_NONE ? ERR_NONE : cause == CAUSE_CANCELLED ? ERR_CANCELLED : ERR_INTERNAL;
}

/* What the agent says of its session; it looks into the journal first. False: it has none. */
static bool session_now(struct world *w, int i, struct migration_event *event)
{
	struct host *h = &w->h[i];
	if (!h->row)
		return false;
	agent_event(w, i, (struct session_event) { .kind = EVENT_FACTS });
	event->phase = session_phase_of(h->core.state, h->core.ready);
	event->facts = h->facts;
	return true;
}

/* A host still has a session of a record that is over. */
static void revive(struct world *w, int i, enum session_phase phase)
{
	struct migration_side *side = migration_side_of(&w->c.core, side_of(i));
	side->forget_owed = true;
	side->cleanup_owed = phase != PHASE_RELEASED && phase != PHASE_ROLLED_BACK;
	w->c.core.side[S].reach = w->c.core.side[D].reach = REACH_UNKNOWN;
	simple(w, MIGRATION_EVENT_HOST_UP, i);
}

static bool hear_report(struct world *w, int i, unsigned arg)
{
	struct migration_event report = { .kind = MIGRATION_EVENT_REPORT, .side = side_of(i) };
	(void)arg;
	if (!c_hears(w, i) || w->c.hello[i] || !session_now(w, i, &report))
		return false;
	report.code = code_of(w->h[i].cause);
	if (w->c.over)
		revive(w, i, report.phase);
	event(w, report);
	return true;
}

/* arg: step and how */
static bool hear_answer(struct world *w, int i, unsigned arg)
{
	enum step step = (enum step)(arg / HOWS);
	enum how how = (enum how)(arg % HOWS);
	struct migration_event answer = answer_event(i, step, how);
	if (w->c.over || w->c.dead || (*answers(w, i, how) & 1U << step) == 0)
		return false;
	if (!w->h[i].dead)
		(void)session_now(w, i, &answer);
	*answers(w, i, how) &= ~(1U << step);
	event(w, answer);
	return true;
}

static bool hear_hello(struct world *w, int i, unsigned arg)
{
	(void)arg;
	if (!c_hears(w, i) || (!w->c.hello[i] && side_get(w, i)->reach == REACH_UP))
		return false;
	if (w->c.new_boot[i] && !side_get(w, i)->rebooted && !w->c.over)
		simple(w, MIGRATION_EVENT_REBOOTED, i);
	if (w->c.new_journal[i] && !side_get(w, i)->journal_lost && !w->c.over)
		simple(w, MIGRATION_EVENT_JOURNAL_LOST, i);
	w->c.hello[i] = w->c.new_boot[i] = w->c.new_journal[i] = false;
	if (!w->c.over)
		simple(w, MIGRATION_EVENT_HOST_UP, i);
	return true;
}

/* arg: whether it has to be right */
static bool suspect(struct world *w, int i, unsigned arg)
{
	if (w->c.dead || w->c.over || side_get(w, i)->reach == REACH_SUSPECTED || (arg && c_hears(w, i)))
		return false;
	simple(w, MIGRATION_EVENT_SUSPECTED, i);
	return true;
}

static bool give_up(struct world *w, int i, unsigned arg)
{
	if (w->c.dead || w->c.over || side_get(w, i)->reach != REACH_SUSPECTED || (arg && c_hears(w, i)))
		return false;
	simple(w, MIGRATION_EVENT_GIVEN_UP, i);
	return true;
}

/* ---- what comes to hosts ---- */

/* arg: the step; STALE: one that C does not wait for any more, late or doubled */
#define STALE 16U

static bool command(struct world *w, int i, unsigned arg)
{
	enum step step = (enum step)(arg & ~STALE);
	bool due = migration_command(&w->c.core, side_of(i)) == step && !w->c.over;
	if (w->h[i].dead || w->o.cut[i] || (w->c.sent[i] & 1U << step) == 0 || due == ((arg & STALE) != 0))
		return false;
	agent_command(w, i, step);
	return true;
}

/* V9: what C knows is told wherever migration_due() says so. */
static bool tell(struct world *w, int i, unsigned arg)
{
	struct migration_actions due;
	struct host *h = &w->h[i];
	struct verdict_facts known = h->facts;
	bool told = false, conflict = false;
	(void)arg;
	if (!c_hears(w, i) || w->c.over || !h->row)
		return false;
	migration_due(&w->c.core, side_of(i), &due);
	for (unsigned n = 0; n < due.count; n++)
		told |= due.list[n].kind == MIGRATION_ACTION_TELL;
	if (!told)
		return false;
	bool more = verdict_learn(&known, &w->c.core.facts, &conflict);
	if (conflict)
		broken(w, "a host is told of a vote that contradicts its journal");
	if (!more)
		return false;
	h->facts = known;
	agent_event(w, i, (struct session_event) { .kind = EVENT_FACTS });
	return true;
}

/* ---- by itself ---- */

static bool admit(struct world *w, int i, unsigned arg)
{
	(void)i;
	(void)arg;
	if (w->c.dead || w->c.core.state != MIGRATION_QUEUED)
		return false;
	simple(w, MIGRATION_EVENT_HOST_UP, S);
	simple(w, MIGRATION_EVENT_HOST_UP, D);
	simple(w, MIGRATION_EVENT_ADMITTED, S);
	return true;
}

static bool cancel(struct world *w, int i, unsigned arg)
{
	(void)i;
	(void)arg;
	if (w->c.dead)
		return false;
	simple(w, MIGRATION_EVENT_CANCEL, S);
	switch (migration_cancel_answer(&w->c.core)) {
	case CANCEL_CANCELLED:
		w->c.cancelled = true;
		break;
	case CANCEL_TOO_LATE:
		w->c.too_late = true;
		break;
	case CANCEL_PENDING:
		break;
	}
	return true;
}

static bool deadline(struct world *w, int i, unsigned arg)
{
	enum migration_state state = w->c.core.state;
	(void)i;
	(void)arg;
	if (w->c.dead || state < MIGRATION_CHECKING || state > MIGRATION_SWITCHING)
		return false;
	simple(w, MIGRATION_EVENT_DEADLINE, S);
	return true;
}

/* An operator rules that host i owns the VM: who has seen that the other host is powered off, or who is to say what
 * becomes of one that is lost while the source has it suspended still. */
static bool rule(struct world *w, int i, unsigned arg)
{
	bool lost = w->c.core.state == MIGRATION_LOST;
	(void)arg;
	if (w->c.dead || w->c.over || (!w->h[1 - i].dead && !lost) || migration_resolve_refusal(&w->c.core, side_of(i)))
		return false;
	if (w->h[1 - i].dead)
		w->h[1 - i].vm = IMAGE_NONE;
	simple(w, MIGRATION_EVENT_RESOLVE, i);
	return true;
}

/* An operator declares a host that is powered off gone for good. */
static bool write_off(struct world *w, int i, unsigned arg)
{
	(void)arg;
	if (w->c.dead || w->c.over || !w->h[i].dead || side_get(w, i)->reach != REACH_SUSPECTED ||
	    side_get(w, i)->written_off || migration_write_off_refusal(&w->c.core, side_of(i)))
		return false;
	w->h[i].vm = IMAGE_NONE;
	simple(w, MIGRATION_EVENT_WRITTEN_OFF, i);
	return true;
}

/* From what the database has; an answer to an older epoch is not heard. */
static bool restart(struct world *w, int i, unsigned arg)
{
	struct migration_packed packed;
	(void)i;
	(void)arg;
	if (w->c.dead)
		return false;
	migration_pack(&w->c.core, &packed);
	if (migration_unpack(&packed, &w->c.core) != 0)
		broken(w, "the record cannot be read back");
	for (int side = 0; side < 2; side++) {
		w->c.hello[side] = true;
		w->c.done[side] = w->c.refused[side] = w->c.unknown[side] = 0;
	}
	if (!w->c.over)
		simple(w, MIGRATION_EVENT_RESTART, S);
	return true;
}

#define COMMAND(step, text)                                                                             \
	{ "S receives " text, command, S, step, CALM }, { "D receives " text, command, D, step, CALM }, \
		{ "S receives an old " text, command, S, step | STALE, NUISANCE },                      \
	{                                                                                               \
		"D receives an old " text, command, D, step | STALE, NUISANCE                           \
	}
#define UNKNOWN_SESSION(step, text)                                                                \
	{ "C hears S: " text " of nothing known", hear_answer, S, step * HOWS + UNKNOWN, CALM },   \
	{                                                                                          \
		"C hears D: " text " of nothing known", hear_answer, D, step *HOWS + UNKNOWN, CALM \
	}
#define ANSWER(step, text)                                                                      \
	{ "C hears S: " text " done", hear_answer, S, step * HOWS + DONE, CALM },               \
		{ "C hears S: " text " refused", hear_answer, S, step * HOWS + REFUSED, CALM }, \
		{ "C hears D: " text " done", hear_answer, D, step * HOWS + DONE, CALM },       \
	{                                                                                       \
		"C hears D: " text " refused", hear_answer, D, step *HOWS + REFUSED, CALM       \
	}

const struct step_rule coordinator_rules[] = {
	{ "C admits it", admit, 0, 0, CALM },
	COMMAND(STEP_CHECK, "CHECK"),
	COMMAND(STEP_PREPARE, "PREPARE"),
	COMMAND(STEP_COPY, "COPY"),
	COMMAND(STEP_SWITCH, "SWITCH"),
	COMMAND(STEP_ABORT, "ABORT"),
	COMMAND(STEP_RELEASE, "RELEASE"),
	COMMAND(STEP_FORGET, "FORGET"),
	ANSWER(STEP_CHECK, "CHECK"),
	ANSWER(STEP_PREPARE, "PREPARE"),
	ANSWER(STEP_COPY, "COPY"),
	ANSWER(STEP_SWITCH, "SWITCH"),
	ANSWER(STEP_ABORT, "ABORT"),
	ANSWER(STEP_RELEASE, "RELEASE"),
	ANSWER(STEP_FORGET, "FORGET"),
	UNKNOWN_SESSION(STEP_ABORT, "ABORT"),
	UNKNOWN_SESSION(STEP_RELEASE, "RELEASE"),
	{ "C hears S's report", hear_report, S, 0, CALM },
	{ "C hears D's report", hear_report, D, 0, CALM },
	{ "S is told the facts by C", tell, S, 0, CALM },
	{ "D is told the facts by C", tell, D, 0, CALM },
	{ "C hears S's hello", hear_hello, S, 0, CALM },
	{ "C hears D's hello", hear_hello, D, 0, CALM },
	{ "C suspects S, rightly", suspect, S, 1, CALM },
	{ "C suspects D, rightly", suspect, D, 1, CALM },
	{ "C gives S up, rightly", give_up, S, 1, CALM },
	{ "C gives D up, rightly", give_up, D, 1, CALM },
	{ "C suspects S", suspect, S, 0, NUISANCE },
	{ "C suspects D", suspect, D, 0, NUISANCE },
	{ "C gives S up", give_up, S, 0, NUISANCE },
	{ "C gives D up", give_up, D, 0, NUISANCE },
	{ "C's deadline passes", deadline, 0, 0, NUISANCE },
	{ "an operator cancels", cancel, 0, 0, NUISANCE },
	{ "an operator rules for S", rule, S, 0, NUISANCE },
	{ "an operator rules for D", rule, D, 0, NUISANCE },
	{ "an operator writes S off", write_off, S, 0, NUISANCE },
	{ "an operator writes D off", write_off, D, 0, NUISANCE },
	{ "C is restarted", restart, 0, 0, NUISANCE },
	{ 0 },
};
