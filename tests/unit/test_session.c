/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every (state, event) with every combination of facts, and the stories that must come out right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/core/session.h"

/* ---- helpers ---- */

static bool committed(const struct verdict_facts *facts)
{
	return verdict_of(facts) == VOTE_COMMIT && !facts->renounced;
}

static const struct session_action *find(const struct session_actions *actions, enum session_action_kind kind,
                                         enum step step)
{
	for (unsigned i = 0; i < actions->count; i++)
		if (actions->list[i].kind == kind && (step == STEP_NONE || actions->list[i].step == step))
			return &actions->list[i];
	return NULL;
}

static struct session_core core_in(enum session_state state, enum side side)
{
	static const enum step highest[SESSION_STATES] = {
		[SESSION_CHECKED] = STEP_CHECK,     [SESSION_PREPARING] = STEP_PREPARE,
		[SESSION_PREPARED] = STEP_PREPARE,  [SESSION_COPYING] = STEP_COPY,
		[SESSION_SWITCHING] = STEP_SWITCH,  [SESSION_COMMITTED] = STEP_SWITCH,
		[SESSION_RELEASING] = STEP_SWITCH,  [SESSION_RELEASED] = STEP_SWITCH,
		[SESSION_ROLLING_BACK] = STEP_COPY, [SESSION_ROLLED_BACK] = STEP_COPY,
	};
	bool leg = state != SESSION_NONE && state != SESSION_CHECKED;
	struct session_core core = {
		.state = state, .side = side, .leg_wanted = leg, .leg_up = leg, .highest = highest[state], .sequence = 7
	};
	if (state == SESSION_PREPARING)
		core.asked = STEP_PREPARE;
	if (state == SESSION_RELEASING)
		core.asked = STEP_RELEASE;
	return core;
}

struct world {
	struct session_core core;
	struct verdict_facts facts;
	struct session_actions actions;
};

static struct world world_in(enum session_state state, enum side side)
{
	return (struct world) { .core = core_in(state, side) };
}

static void feed(struct world *w, struct session_event event)
{
	session_step(&w->core, &w->facts, &event, &w->core, &w->actions);
}

static void command(struct world *w, enum step step, uint64_t sequence)
{
	feed(w, (struct session_event) { .kind = EVENT_COMMAND, .step = step, .sequence = sequence });
}

static void leg_done(struct world *w, enum step step)
{
	feed(w, (struct session_event) { .kind = EVENT_LEG_DONE, .step = step });
}

static void expect_answer(const struct world *w, enum step step, enum outcome outcome)
{
	const struct session_action *answer = find(&w->actions, ACTION_ANSWER, step);
	assert_non_null(answer);
	assert_int_equal(answer->outcome, outcome);
}

static void expect_no_answer(const struct world *w)
{
	assert_null(find(&w->actions, ACTION_ANSWER, STEP_NONE));
}

static void expect_sent(const struct world *w, enum step step)
{
	assert_non_null(find(&w->actions, ACTION_SEND_LEG, step));
}

static void expect_start(const struct world *w, bool recover)
{
	const struct session_action *start = find(&w->actions, ACTION_START_LEG, STEP_NONE);
	assert_non_null(start);
	assert_int_equal(start->recover, recover);
}

/* ---- the table ---- */

#define FACT_FLAGS 7
#define FACT_SETS (27u << FACT_FLAGS)

static struct verdict_facts facts_of(unsigned n)
{
	struct verdict_facts facts = {
		.suspended = n & 1,
		.stream_ended = n & 2,
		.resumed = n & 4,
		.released = n & 8,
		.activating = n & 16,
		.running = n & 32,
		.renounced = n & 64,
	};
	n >>= FACT_FLAGS;
	for (int party = 0; party < PARTIES; party++, n /= 3)
		facts.vote[party] = (enum vote)(n % 3);
	return facts;
}

/* Every event there is: commands with each step, leg answers with each step, checks good and bad, the rest. */
static unsigned all_events(struct session_event list[64])
{
	unsigned count = 0;
	for (int kind = EVENT_COMMAND; kind < EVENT_KINDS; kind++) {
		bool steps = kind == EVENT_COMMAND || kind == EVENT_LEG_DONE || kind == EVENT_LEG_REFUSED;
		for (int step = STEP_NONE; step < (steps ? STEPS : 1); step++)
			list[count++] = (struct session_event) { .kind = (enum session_event_kind)kind,
				                                 .step = (enum step)step,
				                                 .sequence = 9,
				                                 .ok = true };
	}
	list[count++] = (struct session_event) { .kind = EVENT_CHECKS_DONE, .ok = false };
	return count;
}

/* Not by bytes: there is padding. */
static bool same_core(const struct session_core *a, const struct session_core *b)
{
	return a->state == b->state && a->side == b->side && a->ready == b->ready && a->leg_wanted == b->leg_wanted &&
	       a->leg_up == b->leg_up && a->abort_asked == b->abort_asked && a->failed == b->failed &&
	       a->asked == b->asked && a->sequence == b->sequence && a->highest == b->highest;
}

static void check_cell(const struct session_core *core, const struct verdict_facts *facts,
                       const struct session_event *event)
{
	struct session_core next, again;
	struct session_actions actions, repeat;
	session_step(core, facts, event, &next, &actions);
	session_step(core, facts, event, &again, &repeat);
	assert_true(same_core(&next, &again)); /* deterministic */
	assert_int_equal(actions.count, repeat.count);

	assert_true(next.state < SESSION_STATES);
	assert_int_equal(next.side, core->side);
	assert_true(actions.count <= SESSION_ACTIONS_MAX);
	if (session_is_final(core->state))
		assert_int_equal(next.state, core->state);
	if (core->state != SESSION_NONE)
		assert_int_not_equal(next.state, SESSION_NONE);
	bool release = next.state == SESSION_RELEASING || next.state == SESSION_RELEASED;
	if (verdict_of(facts) == VOTE_ABORT && core->state != SESSION_RELEASED)
		assert_false(release);
	if (release && core->state != SESSION_RELEASED && core->state != SESSION_RELEASING)
		assert_true(verdict_may_release(facts));
	if (committed(facts) && core->state != SESSION_NONE && core->state != SESSION_ROLLED_BACK)
		assert_true(next.state != SESSION_ROLLING_BACK && next.state != SESSION_ROLLED_BACK);
	if (event->kind == EVENT_COMMAND && event->step < core->highest && event->step != STEP_NONE) {
		const struct session_action *answer = find(&actions, ACTION_ANSWER, event->step);
		assert_non_null(answer);
		if (core->asked != event->step) { /* else it is the answer of the first, which the facts have settled */
			assert_int_equal(answer->outcome, OUTCOME_REFUSED);
			assert_int_equal(answer->code, ERR_STALE);
		}
	}
	for (unsigned i = 0; i < actions.count; i++) {
		const struct session_action *action = &actions.list[i];
		if (action->kind == ACTION_SEND_LEG || action->kind == ACTION_TELL_FACTS)
			assert_true(core->leg_up || event->kind == EVENT_LEG_UP);
		if (action->kind == ACTION_SEND_LEG && action->step == STEP_RELEASE)
			assert_int_not_equal(verdict_of(facts), VOTE_ABORT);
		if (action->kind == ACTION_ANSWER)
			assert_true(action->outcome == OUTCOME_DONE || action->outcome == OUTCOME_REFUSED);
		if (action->kind == ACTION_START_LEG && session_is_final(next.state))
			fail_msg("a leg is started in a final state");
		if (action->kind == ACTION_FORGET) {
			assert_true(session_is_final(next.state));
			assert_int_equal(i, actions.count - 1); /* nothing after it */
		}
	}
	if (event->kind != EVENT_COMMAND || event->step == STEP_FORGET || event->step == STEP_NONE)
		return;
	/* The same command twice gives the same answer. */
	struct session_core third;
	struct session_actions second;
	session_step(&next, facts, event, &third, &second);
	const struct session_action *a = find(&actions, ACTION_ANSWER, event->step);
	const struct session_action *b = find(&second, ACTION_ANSWER, event->step);
	if (a && !(core->asked == event->step && a->code == ERR_NONE)) {
		if (!b)
			fail_msg("%s in %s, asked %s, up %d: no second answer (first %d %d, then in %s)",
			         step_name(event->step), session_state_name(core->state), step_name(core->asked),
			         core->leg_up, a->outcome, a->code, session_state_name(next.state));
		assert_int_equal(a->outcome, b->outcome);
		assert_int_equal(a->code, b->code);
	}
	assert_int_equal(third.state, next.state);
}

static void table__every_state_event_and_fact__holds_the_invariants(void **state)
{
	(void)state;
	struct session_event events[64];
	unsigned count = all_events(events), cells = 0;
	static const enum step asked[] = { STEP_NONE,  STEP_CHECK,   STEP_PREPARE, STEP_COPY,
		                           STEP_ABORT, STEP_RELEASE, STEP_FORGET };
	for (int in = 0; in < SESSION_STATES; in++) {
		for (unsigned n = 0; n < FACT_SETS; n++) {
			struct verdict_facts facts = facts_of(n);
			for (unsigned e = 0; e < count; e++) {
				/* a different corner of the flags with each cell; all of them where facts are few */
				for (unsigned flags = 0; flags < (n % 128 == 0 ? 28u : 1u); flags++) {
					unsigned corner = n % 128 == 0 ? flags : (n + e) % 28;
					struct session_core core = core_in((enum session_state)in,
					                                   corner & 1 ? SIDE_SOURCE : SIDE_DESTINATION);
					if (corner & 2)
						core.leg_up = false;
					core.asked = asked[corner / 4];
					check_cell(&core, &facts, &events[e]);
					cells++;
				}
			}
		}
	}
	assert_true(cells > 1000000);
}

static void table__state_out_of_range__does_nothing_bad(void **state)
{
	(void)state;
	struct world w = { .core = { .state = SESSION_STATES, .side = SIDE_SOURCE } };
	struct session_event events[64];
	unsigned count = all_events(events);
	for (unsigned e = 0; e < count; e++) {
		feed(&w, events[e]);
		assert_null(find(&w.actions, ACTION_START_LEG, STEP_NONE));
		assert_null(find(&w.actions, ACTION_SEND_LEG, STEP_NONE));
	}
}

static void due__every_state__is_what_a_restart_does(void **state)
{
	(void)state;
	for (int in = 0; in < SESSION_STATES; in++) {
		struct world w = world_in((enum session_state)in, SIDE_SOURCE);
		feed(&w, (struct session_event) { .kind = EVENT_RESTARTED });
		struct session_actions due;
		session_due(&w.core, &w.facts, &due);
		assert_int_equal(due.count, w.actions.count);
		for (unsigned i = 0; i < due.count; i++)
			assert_int_equal(due.list[i].kind, w.actions.list[i].kind);
	}
}

/* ---- stories ---- */

static void to_copying(struct world *w)
{
	command(w, STEP_CHECK, 1);
	assert_non_null(find(&w->actions, ACTION_RUN_CHECKS, STEP_NONE));
	expect_no_answer(w);
	feed(w, (struct session_event) { .kind = EVENT_CHECKS_DONE, .ok = true });
	expect_answer(w, STEP_CHECK, OUTCOME_DONE);
	assert_int_equal(w->core.state, SESSION_CHECKED);
	command(w, STEP_PREPARE, 2);
	expect_start(w, false);
	expect_no_answer(w);
	feed(w, (struct session_event) { .kind = EVENT_LEG_UP });
	expect_sent(w, STEP_PREPARE);
	leg_done(w, STEP_PREPARE);
	expect_answer(w, STEP_PREPARE, OUTCOME_DONE);
	assert_int_equal(session_phase_of(w->core.state, w->core.ready), PHASE_PREPARED);
	command(w, STEP_COPY, 3);
	expect_sent(w, STEP_COPY);
	expect_no_answer(w);
	assert_int_equal(w->core.sequence, 3);
	leg_done(w, STEP_COPY);
	expect_answer(w, STEP_COPY, OUTCOME_DONE);
}

static void votes(struct world *w, enum vote c, enum vote s, enum vote d)
{
	w->facts.vote[PARTY_COORDINATOR] = c;
	w->facts.vote[PARTY_SOURCE] = s;
	w->facts.vote[PARTY_DESTINATION] = d;
	feed(w, (struct session_event) { .kind = EVENT_FACTS });
}

static void happy(enum side side)
{
	struct world w = { .core = { .side = side } };
	to_copying(&w);
	feed(&w, (struct session_event) { .kind = EVENT_LEG_READY });
	assert_int_equal(session_phase_of(w.core.state, w.core.ready), PHASE_READY);
	assert_non_null(find(&w.actions, ACTION_REPORT, STEP_NONE));
	command(&w, STEP_SWITCH, 4);
	expect_answer(&w, STEP_SWITCH, OUTCOME_DONE);
	expect_sent(&w, STEP_SWITCH);
	votes(&w, VOTE_NONE, VOTE_NONE, VOTE_COMMIT);
	assert_int_equal(w.core.state, SESSION_SWITCHING);
	votes(&w, VOTE_NONE, VOTE_COMMIT, VOTE_COMMIT);
	assert_int_equal(w.core.state, SESSION_COMMITTED);
	assert_non_null(find(&w.actions, ACTION_REPORT, STEP_NONE));
	command(&w, STEP_RELEASE, 5); /* D does not run yet, as far as is known here */
	expect_no_answer(&w);
	assert_int_equal(w.core.state, SESSION_COMMITTED);
	w.facts.activating = w.facts.running = true;
	feed(&w, (struct session_event) { .kind = EVENT_FACTS });
	assert_int_equal(w.core.state, SESSION_RELEASING);
	expect_sent(&w, STEP_RELEASE);
	leg_done(&w, STEP_RELEASE);
	expect_answer(&w, STEP_RELEASE, OUTCOME_DONE);
	assert_int_equal(w.core.state, SESSION_RELEASED);
	command(&w, STEP_FORGET, 6);
	expect_sent(&w, STEP_FORGET);
	expect_no_answer(&w);
	leg_done(&w, STEP_FORGET);
	expect_answer(&w, STEP_FORGET, OUTCOME_DONE);
	assert_non_null(find(&w.actions, ACTION_FORGET, STEP_NONE));
}

static void happy_path__source__ends_released(void **state)
{
	(void)state;
	happy(SIDE_SOURCE);
}

static void happy_path__destination__ends_released(void **state)
{
	(void)state;
	happy(SIDE_DESTINATION);
}

static void abort__nothing_was_asked_before__is_done_and_remembered(void **state)
{
	(void)state;
	struct world w = { .core = { .side = SIDE_SOURCE } };
	command(&w, STEP_ABORT, 1);
	expect_answer(&w, STEP_ABORT, OUTCOME_DONE);
	assert_int_equal(w.core.state, SESSION_ROLLED_BACK);
	command(&w, STEP_CHECK, 2); /* was on its way for long */
	expect_answer(&w, STEP_CHECK, OUTCOME_REFUSED);
	assert_null(find(&w.actions, ACTION_RUN_CHECKS, STEP_NONE));
}

static void abort__checked__is_done_at_once(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_CHECKED, SIDE_DESTINATION);
	command(&w, STEP_ABORT, 8);
	expect_answer(&w, STEP_ABORT, OUTCOME_DONE);
	assert_int_equal(w.core.state, SESSION_ROLLED_BACK);
	assert_null(find(&w.actions, ACTION_START_LEG, STEP_NONE));
}

static void abort__before_the_grant__is_done_when_the_leg_is(void **state)
{
	(void)state;
	static const enum session_state states[] = { SESSION_PREPARING, SESSION_PREPARED, SESSION_COPYING };
	for (int i = 0; i < 3; i++) {
		struct world w = world_in(states[i], SIDE_SOURCE);
		command(&w, STEP_ABORT, 8);
		assert_int_equal(w.core.state, SESSION_ROLLING_BACK);
		expect_sent(&w, STEP_ABORT);
		expect_no_answer(&w);
		leg_done(&w, STEP_ABORT);
		expect_answer(&w, STEP_ABORT, OUTCOME_DONE);
		assert_int_equal(w.core.sequence, 8);
		assert_int_equal(w.core.state, SESSION_ROLLED_BACK);
		command(&w, STEP_ABORT, 9);
		expect_answer(&w, STEP_ABORT, OUTCOME_DONE);
	}
}

static void abort__switching__is_answered_by_the_verdict(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_SWITCHING, SIDE_SOURCE);
	command(&w, STEP_ABORT, 8);
	expect_sent(&w, STEP_ABORT);
	expect_no_answer(&w);
	assert_int_equal(w.core.state, SESSION_SWITCHING);
	struct world other = w;
	w.facts.stream_ended = true;
	votes(&w, VOTE_ABORT, VOTE_ABORT, VOTE_NONE);
	assert_int_equal(w.core.state, SESSION_ROLLING_BACK);
	leg_done(&w, STEP_ABORT);
	expect_answer(&w, STEP_ABORT, OUTCOME_DONE);
	votes(&other, VOTE_NONE, VOTE_COMMIT, VOTE_COMMIT);
	expect_answer(&other, STEP_ABORT, OUTCOME_REFUSED);
	assert_int_equal(find(&other.actions, ACTION_ANSWER, STEP_ABORT)->code, ERR_TOO_LATE);
	assert_int_equal(other.core.state, SESSION_COMMITTED);
}

static void abort__source_has_not_ended_the_stream__goes_back_on_its_own_vote(void **state)
{
	(void)state;
	struct world s = world_in(SESSION_SWITCHING, SIDE_SOURCE), d = world_in(SESSION_SWITCHING, SIDE_DESTINATION);
	votes(&s, VOTE_NONE, VOTE_ABORT, VOTE_NONE);
	assert_int_equal(s.core.state, SESSION_ROLLING_BACK);
	votes(&d, VOTE_NONE, VOTE_ABORT, VOTE_NONE); /* which cannot know that, and waits for a second vote */
	assert_int_equal(d.core.state, SESSION_SWITCHING);
}

static void abort__committed_or_later__is_too_late(void **state)
{
	(void)state;
	static const enum session_state states[] = { SESSION_COMMITTED, SESSION_RELEASING, SESSION_RELEASED };
	for (int i = 0; i < 3; i++) {
		struct world w = world_in(states[i], SIDE_SOURCE);
		w.facts = (struct verdict_facts) { .vote = { VOTE_NONE, VOTE_COMMIT, VOTE_COMMIT },
			                           .activating = true,
			                           .running = true };
		command(&w, STEP_ABORT, 8);
		expect_answer(&w, STEP_ABORT, OUTCOME_REFUSED);
		assert_int_equal(w.core.state, states[i]);
	}
}

static void committed__destination_renounces__rolls_back(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_COMMITTED, SIDE_SOURCE);
	w.facts = (struct verdict_facts) { .vote = { VOTE_NONE, VOTE_COMMIT, VOTE_COMMIT }, .renounced = true };
	feed(&w, (struct session_event) { .kind = EVENT_FACTS });
	assert_int_equal(w.core.state, SESSION_ROLLING_BACK);
	leg_done(&w, STEP_ABORT);
	assert_int_equal(w.core.state, SESSION_ROLLED_BACK);
}

static void leg_lost__before_the_grant__rolls_back_with_a_recovering_leg(void **state)
{
	(void)state;
	static const enum session_state states[] = { SESSION_PREPARING, SESSION_PREPARED, SESSION_COPYING };
	for (int i = 0; i < 3; i++) {
		struct world w = world_in(states[i], SIDE_DESTINATION);
		feed(&w, (struct session_event) { .kind = EVENT_LEG_LOST });
		assert_int_equal(w.core.state, SESSION_ROLLING_BACK);
		assert_true(w.core.failed);
		expect_start(&w, true);
		if (states[i] == SESSION_PREPARING)
			expect_answer(&w, STEP_PREPARE, OUTCOME_REFUSED);
		feed(&w, (struct session_event) { .kind = EVENT_LEG_UP });
		expect_sent(&w, STEP_ABORT);
	}
}

static void leg_lost__after_the_grant__recovers_and_does_what_the_verdict_makes_due(void **state)
{
	(void)state;
	static const struct {
		enum session_state in;
		enum step sent;
	} cells[] = { { SESSION_SWITCHING, STEP_SWITCH },
		      { SESSION_COMMITTED, STEP_NONE },
		      { SESSION_RELEASING, STEP_RELEASE },
		      { SESSION_ROLLING_BACK, STEP_ABORT } };
	for (unsigned i = 0; i < 4; i++) {
		struct world w = world_in(cells[i].in, SIDE_SOURCE);
		feed(&w, (struct session_event) { .kind = EVENT_LEG_LOST });
		assert_int_equal(w.core.state, cells[i].in);
		expect_start(&w, true);
		feed(&w, (struct session_event) { .kind = EVENT_LEG_UP });
		assert_non_null(find(&w.actions, ACTION_TELL_FACTS, STEP_NONE));
		if (cells[i].sent != STEP_NONE)
			expect_sent(&w, cells[i].sent);
	}
}

static void leg_lost__final__starts_nothing(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_RELEASED, SIDE_SOURCE);
	command(&w, STEP_FORGET, 8);
	expect_no_answer(&w);
	feed(&w, (struct session_event) { .kind = EVENT_LEG_LOST }); /* it died instead of answering */
	expect_answer(&w, STEP_FORGET, OUTCOME_DONE);
	assert_non_null(find(&w.actions, ACTION_FORGET, STEP_NONE));
	assert_null(find(&w.actions, ACTION_START_LEG, STEP_NONE));
}

static void restart__every_state__looks_for_its_leg_and_loses_nothing(void **state)
{
	(void)state;
	for (int in = 0; in < SESSION_STATES; in++) {
		struct world w = world_in((enum session_state)in, SIDE_DESTINATION);
		feed(&w, (struct session_event) { .kind = EVENT_RESTARTED });
		assert_int_equal(w.core.state, in);
		assert_false(w.core.leg_up);
		bool leg = in >= SESSION_PREPARING && !session_is_final((enum session_state)in);
		assert_int_equal(find(&w.actions, ACTION_START_LEG, STEP_NONE) != NULL, leg);
		expect_no_answer(&w);
	}
}

static void restart__check_was_running__runs_it_again(void **state)
{
	(void)state;
	struct world w = { .core = { .side = SIDE_SOURCE } };
	command(&w, STEP_CHECK, 1);
	feed(&w, (struct session_event) { .kind = EVENT_RESTARTED });
	assert_non_null(find(&w.actions, ACTION_RUN_CHECKS, STEP_NONE));
}

static void rebooted__up_to_copying__goes_back(void **state)
{
	(void)state;
	for (int in = SESSION_CHECKED; in <= SESSION_COPYING; in++) {
		struct world w = world_in((enum session_state)in, SIDE_SOURCE);
		feed(&w, (struct session_event) { .kind = EVENT_HOST_REBOOTED });
		assert_int_equal(w.core.state, in == SESSION_CHECKED ? SESSION_ROLLED_BACK : SESSION_ROLLING_BACK);
		assert_true(w.core.failed);
	}
}

static void rebooted__votes_may_be_out__recovers(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_SWITCHING, SIDE_DESTINATION);
	w.facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	feed(&w, (struct session_event) { .kind = EVENT_HOST_REBOOTED });
	assert_int_equal(w.core.state, SESSION_SWITCHING);
	expect_start(&w, true);
}

static void orphaned__only_up_to_copying__gives_up_by_itself(void **state)
{
	(void)state;
	for (int in = 0; in < SESSION_STATES; in++) {
		struct world w = world_in((enum session_state)in, SIDE_SOURCE);
		feed(&w, (struct session_event) { .kind = EVENT_ORPHANED });
		enum session_state expected = (enum session_state)in;
		if (in == SESSION_CHECKED)
			expected = SESSION_ROLLED_BACK;
		else if (in >= SESSION_PREPARING && in <= SESSION_COPYING)
			expected = SESSION_ROLLING_BACK;
		assert_int_equal(w.core.state, expected);
	}
}

static void prepare__refused_by_the_leg__is_refused_and_rolls_back(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_PREPARING, SIDE_DESTINATION);
	feed(&w, (struct session_event) { .kind = EVENT_LEG_REFUSED, .step = STEP_PREPARE });
	expect_answer(&w, STEP_PREPARE, OUTCOME_REFUSED);
	assert_int_equal(w.core.state, SESSION_ROLLING_BACK);
	expect_sent(&w, STEP_ABORT);
}

static void copying__leg_failed__rolls_back_and_reports(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_COPYING, SIDE_SOURCE);
	feed(&w, (struct session_event) { .kind = EVENT_LEG_FAILED });
	assert_int_equal(w.core.state, SESSION_ROLLING_BACK);
	assert_non_null(find(&w.actions, ACTION_REPORT, STEP_NONE));
	leg_done(&w, STEP_ABORT);
	assert_int_equal(w.core.state, SESSION_ROLLED_BACK);
}

static void switching__leg_failed__waits_for_the_verdict(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_SWITCHING, SIDE_SOURCE);
	feed(&w, (struct session_event) { .kind = EVENT_LEG_FAILED });
	assert_int_equal(w.core.state, SESSION_SWITCHING);
	assert_true(w.core.failed);
	votes(&w, VOTE_NONE, VOTE_COMMIT, VOTE_COMMIT);
	assert_int_equal(w.core.state, SESSION_COMMITTED);
}

static void checks__failed__are_refused_for_good(void **state)
{
	(void)state;
	struct world w = { .core = { .side = SIDE_DESTINATION } };
	command(&w, STEP_CHECK, 1);
	feed(&w, (struct session_event) { .kind = EVENT_CHECKS_DONE, .ok = false });
	expect_answer(&w, STEP_CHECK, OUTCOME_REFUSED);
	command(&w, STEP_CHECK, 2);
	expect_answer(&w, STEP_CHECK, OUTCOME_REFUSED);
	command(&w, STEP_FORGET, 3);
	expect_answer(&w, STEP_FORGET, OUTCOME_DONE);
}

static void unknown__forward_or_release__says_that_the_journal_is_lost(void **state)
{
	(void)state;
	static const enum step steps[] = { STEP_PREPARE, STEP_COPY, STEP_SWITCH, STEP_RELEASE };
	for (int i = 0; i < 4; i++) {
		struct world w = { .core = { .side = SIDE_SOURCE } };
		command(&w, steps[i], 1);
		assert_int_equal(find(&w.actions, ACTION_ANSWER, steps[i])->code, ERR_HOST_LOST);
		assert_int_equal(w.core.state, SESSION_NONE);
	}
}

static void forget__not_final__is_refused(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_COPYING, SIDE_SOURCE);
	command(&w, STEP_FORGET, 8);
	assert_int_equal(find(&w.actions, ACTION_ANSWER, STEP_FORGET)->code, ERR_BUSY);
}

static void release__refused_by_the_leg__may_be_asked_again(void **state)
{
	(void)state;
	struct world w = world_in(SESSION_RELEASING, SIDE_SOURCE);
	w.facts = (struct verdict_facts) { .vote = { VOTE_NONE, VOTE_COMMIT, VOTE_COMMIT },
		                           .activating = true,
		                           .running = true };
	feed(&w, (struct session_event) { .kind = EVENT_LEG_REFUSED, .step = STEP_RELEASE });
	expect_answer(&w, STEP_RELEASE, OUTCOME_REFUSED);
	command(&w, STEP_RELEASE, 11);
	assert_int_equal(w.core.state, SESSION_RELEASING);
	expect_sent(&w, STEP_RELEASE);
}

static void names__every_state__has_one_of_its_own(void **state)
{
	(void)state;
	for (int a = 0; a < SESSION_STATES; a++)
		for (int b = 0; b < a; b++)
			assert_string_not_equal(session_state_name((enum session_state)a),
			                        session_state_name((enum session_state)b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table__every_state_event_and_fact__holds_the_invariants),
		cmocka_unit_test(table__state_out_of_range__does_nothing_bad),
		cmocka_unit_test(due__every_state__is_what_a_restart_does),
		cmocka_unit_test(happy_path__source__ends_released),
		cmocka_unit_test(happy_path__destination__ends_released),
		cmocka_unit_test(abort__nothing_was_asked_before__is_done_and_remembered),
		cmocka_unit_test(abort__checked__is_done_at_once),
		cmocka_unit_test(abort__before_the_grant__is_done_when_the_leg_is),
		cmocka_unit_test(abort__switching__is_answered_by_the_verdict),
		cmocka_unit_test(abort__source_has_not_ended_the_stream__goes_back_on_its_own_vote),
		cmocka_unit_test(abort__committed_or_later__is_too_late),
		cmocka_unit_test(committed__destination_renounces__rolls_back),
		cmocka_unit_test(leg_lost__before_the_grant__rolls_back_with_a_recovering_leg),
		cmocka_unit_test(leg_lost__after_the_grant__recovers_and_does_what_the_verdict_makes_due),
		cmocka_unit_test(leg_lost__final__starts_nothing),
		cmocka_unit_test(restart__every_state__looks_for_its_leg_and_loses_nothing),
		cmocka_unit_test(restart__check_was_running__runs_it_again),
		cmocka_unit_test(rebooted__up_to_copying__goes_back),
		cmocka_unit_test(rebooted__votes_may_be_out__recovers),
		cmocka_unit_test(orphaned__only_up_to_copying__gives_up_by_itself),
		cmocka_unit_test(prepare__refused_by_the_leg__is_refused_and_rolls_back),
		cmocka_unit_test(copying__leg_failed__rolls_back_and_reports),
		cmocka_unit_test(switching__leg_failed__waits_for_the_verdict),
		cmocka_unit_test(checks__failed__are_refused_for_good),
		cmocka_unit_test(unknown__forward_or_release__says_that_the_journal_is_lost),
		cmocka_unit_test(forget__not_final__is_refused),
		cmocka_unit_test(release__refused_by_the_leg__may_be_asked_again),
		cmocka_unit_test(names__every_state__has_one_of_its_own),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
