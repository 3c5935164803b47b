/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A core, and words to tell it what happens; for test_migration*.c. */
#ifndef DROVER_MIGRATION_RIG_H
#define DROVER_MIGRATION_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/core/migration.h"

static struct migration_core core;
static struct migration_actions actions;

static inline int begin(void **state)
{
	(void)state;
	migration_init(&core);
	return 0;
}

/* ---- events ---- */

static inline void feed(const struct migration_event *event)
{
	migration_step(&core, event, &core, &actions);
}

static inline void simple(enum migration_event_kind kind, enum side side)
{
	feed(&(struct migration_event) { .kind = kind, .side = side });
}

static inline void done(enum side side, enum step step)
{
	feed(&(struct migration_event) {
		.kind = MIGRATION_EVENT_ANSWER, .side = side, .step = step, .outcome = OUTCOME_DONE });
}

static inline void refused(enum side side, enum step step, enum err_code code)
{
	feed(&(struct migration_event) {
		.kind = MIGRATION_EVENT_ANSWER, .side = side, .step = step, .outcome = OUTCOME_REFUSED, .code = code });
}

static inline void both_done(enum step step)
{
	done(SIDE_SOURCE, step);
	done(SIDE_DESTINATION, step);
}

static inline void report(enum side side, enum session_phase phase, struct verdict_facts facts)
{
	feed(&(struct migration_event) {
		.kind = MIGRATION_EVENT_REPORT, .side = side, .phase = phase, .facts = facts });
}

static inline struct verdict_facts votes(enum vote source, enum vote destination)
{
	struct verdict_facts facts = { .suspended = true, .stream_ended = true };
	facts.vote[PARTY_SOURCE] = source;
	facts.vote[PARTY_DESTINATION] = destination;
	return facts;
}

static const struct verdict_facts no_facts;

/* Brings a new core that far, all going well. */
static inline void reach_state(enum migration_state state)
{
	migration_init(&core);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_SOURCE);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_DESTINATION);
	if (state == MIGRATION_QUEUED)
		return;
	simple(MIGRATION_EVENT_ADMITTED, 0);
	if (state == MIGRATION_CHECKING)
		return;
	both_done(STEP_CHECK);
	if (state == MIGRATION_PREPARING)
		return;
	both_done(STEP_PREPARE);
	if (state == MIGRATION_COPYING)
		return;
	both_done(STEP_COPY);
	report(SIDE_SOURCE, PHASE_READY, no_facts);
	if (state == MIGRATION_SWITCHING)
		return;
	both_done(STEP_SWITCH);
	report(SIDE_DESTINATION, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_COMMIT));
	report(SIDE_SOURCE, PHASE_SWITCHING, votes(VOTE_COMMIT, VOTE_COMMIT));
	if (state == MIGRATION_COMMITTED)
		return;
	struct verdict_facts facts = votes(VOTE_COMMIT, VOTE_COMMIT);
	facts.activating = facts.running = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	both_done(STEP_RELEASE);
}

static inline bool has(enum migration_action_kind kind, enum side side, enum step step)
{
	for (unsigned i = 0; i < actions.count; i++)
		if (actions.list[i].kind == kind && (side == 0 || actions.list[i].side == side) &&
		    (step == STEP_NONE || actions.list[i].step == step))
			return true;
	return false;
}

#define assert_state(wanted) assert_string_equal(migration_state_name(core.state), migration_state_name(wanted))

#define TEST(name) cmocka_unit_test_setup(name, begin)

#endif
