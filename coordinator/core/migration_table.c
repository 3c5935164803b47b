/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names, the row form of a core, and the table for the manual page. */
#include "coordinator/core/migration.h"

#include <string.h>

static const char *const state_names[MIGRATION_STATES] = {
	[MIGRATION_QUEUED] = "queued",   [MIGRATION_CHECKING] = "checking",         [MIGRATION_PREPARING] = "preparing",
	[MIGRATION_COPYING] = "copying", [MIGRATION_SWITCHING] = "switching",       [MIGRATION_COMMITTED] = "committed",
	[MIGRATION_DONE] = "done",       [MIGRATION_ROLLING_BACK] = "rolling-back", [MIGRATION_CANCELLED] = "cancelled",
	[MIGRATION_FAILED] = "failed",   [MIGRATION_IN_DOUBT] = "in-doubt",         [MIGRATION_LOST] = "lost",
};

static const char *const event_names[MIGRATION_EVENT_KINDS] = {
	[MIGRATION_EVENT_ADMITTED] = "admitted",   [MIGRATION_EVENT_ANSWER] = "answer",
	[MIGRATION_EVENT_REPORT] = "report",       [MIGRATION_EVENT_HOST_UP] = "host-up",
	[MIGRATION_EVENT_SUSPECTED] = "suspected", [MIGRATION_EVENT_GIVEN_UP] = "given-up",
	[MIGRATION_EVENT_REBOOTED] = "rebooted",   [MIGRATION_EVENT_JOURNAL_LOST] = "journal-lost",
	[MIGRATION_EVENT_CANCEL] = "cancel",       [MIGRATION_EVENT_DEADLINE] = "deadline",
	[MIGRATION_EVENT_RETRY] = "retry",         [MIGRATION_EVENT_RESTART] = "restart",
	[MIGRATION_EVENT_RESOLVE] = "resolve",     [MIGRATION_EVENT_WRITTEN_OFF] = "written-off",
};

const char *migration_state_name(enum migration_state state)
{
	if (state < MIGRATION_QUEUED || state >= MIGRATION_STATES)
		return "unknown";
	return state_names[state];
}

enum migration_state migration_state_from_name(const char *name)
{
	for (int state = MIGRATION_QUEUED; state < MIGRATION_STATES; state++)
		if (strcmp(name, state_names[state]) == 0)
			return (enum migration_state)state;
	return MIGRATION_STATES;
}

const char *migration_event_name(enum migration_event_kind kind)
{
	if (kind < MIGRATION_EVENT_ADMITTED || kind >= MIGRATION_EVENT_KINDS)
		return "unknown";
	return event_names[kind];
}

const char *migration_cancel_name(enum migration_cancel answer)
{
	switch (answer) {
	case CANCEL_CANCELLED:
		return "cancelled";
	case CANCEL_TOO_LATE:
		return "too-late";
	case CANCEL_PENDING:
		break;
	}
	return "pending";
}

/* ---- rows ---- */

static int64_t pack_side(const struct migration_side *side)
{
	int64_t bits = 0;
	for (int step = 0; step < STEPS; step++)
		bits |= (int64_t)side->done[step] << step;
	bits |= (int64_t)side->rebooted << 16 | (int64_t)side->journal_lost << 17;
	bits |= (int64_t)side->cleanup_owed << 18 | (int64_t)side->forget_owed << 19 | (int64_t)side->written_off << 20;
	return bits | (int64_t)side->phase << 24;
}

void migration_pack(const struct migration_core *core, struct migration_packed *ret_packed)
{
	const struct verdict_facts *facts = &core->facts;
	int64_t bits = 0;
	for (int party = 0; party < PARTIES; party++)
		bits |= (int64_t)facts->vote[party] << (2 * party);
	bits |= (int64_t)facts->suspended << 8 | (int64_t)facts->stream_ended << 9 | (int64_t)facts->resumed << 10;
	bits |= (int64_t)facts->released << 11 | (int64_t)facts->activating << 12 | (int64_t)facts->running << 13;
	bits |= (int64_t)facts->renounced << 14 | (int64_t)facts->ruling << 15;
	ret_packed->facts = bits;
	ret_packed->state = (int64_t)core->state | (int64_t)core->abort_asked << 8;
	ret_packed->source = pack_side(&core->side[0]);
	ret_packed->destination = pack_side(&core->side[1]);
	ret_packed->cause = (int64_t)core->cause | (int64_t)core->cause_side << 16 | (int64_t)core->cause_step << 24;
}

static bool bit(int64_t bits, int number)
{
	return (bits >> number & 1) != 0;
}

static int unpack_side(int64_t bits, struct migration_side *ret_side)
{
	for (int step = 0; step < STEPS; step++)
		ret_side->done[step] = bit(bits, step);
	ret_side->rebooted = bit(bits, 16);
	ret_side->journal_lost = bit(bits, 17);
	ret_side->cleanup_owed = bit(bits, 18);
	ret_side->forget_owed = bit(bits, 19);
	ret_side->written_off = bit(bits, 20);
	if (bits < 0 || bits >> 24 >= PHASES)
		return -1;
	ret_side->phase = (enum session_phase)(bits >> 24);
	return 0;
}

int migration_unpack(const struct migration_packed *packed, struct migration_core *ret_core)
{
	struct migration_core core;
	migration_init(&core);
	int64_t state = packed->state & 0xff, code = packed->cause & 0xffff;
	int64_t side = packed->cause >> 16 & 0xff, step = packed->cause >> 24;
	if (state < MIGRATION_QUEUED || state >= MIGRATION_STATES || packed->state >> 9 != 0)
		return -1;
	if (packed->cause < 0 || code >= ERR_CODES || side > SIDE_DESTINATION || step >= STEPS)
		return -1;
	if (packed->facts < 0 || packed->facts >> 17 != 0 || (packed->facts >> 15 & 3) > VOTE_ABORT)
		return -1;
	for (int party = 0; party < PARTIES; party++) {
		int64_t vote = packed->facts >> (2 * party) & 3;
		if (vote > VOTE_ABORT)
			return -1;
		core.facts.vote[party] = (enum vote)vote;
	}
	core.facts.suspended = bit(packed->facts, 8);
	core.facts.stream_ended = bit(packed->facts, 9);
	core.facts.resumed = bit(packed->facts, 10);
	core.facts.released = bit(packed->facts, 11);
	core.facts.activating = bit(packed->facts, 12);
	core.facts.running = bit(packed->facts, 13);
	core.facts.renounced = bit(packed->facts, 14);
	core.facts.ruling = (enum vote)(packed->facts >> 15 & 3);
	core.state = (enum migration_state)state;
	core.abort_asked = bit(packed->state, 8);
	core.cause = (enum err_code)code;
	core.cause_side = (enum side)side;
	core.cause_step = (enum step)step;
	if (unpack_side(packed->source, &core.side[0]) != 0 || unpack_side(packed->destination, &core.side[1]) != 0)
		return -1;
	struct migration_packed again; /* bits that mean nothing are none of ours */
	migration_pack(&core, &again);
	if (again.state != packed->state || again.facts != packed->facts || again.source != packed->source ||
	    again.destination != packed->destination || again.cause != packed->cause)
		return -1;
	*ret_core = core;
	return 0;
}

/* ---- the table ---- */

/* What the votes can look like when an event comes, or what it can tell. */
static const struct verdict_facts patterns[] = {
	{ .suspended = false },
	{ .vote = { [PARTY_SOURCE] = VOTE_ABORT } },
	{ .vote = { [PARTY_SOURCE] = VOTE_ABORT, [PARTY_DESTINATION] = VOTE_ABORT } },
	{ .suspended = true, .stream_ended = true },
	{ .suspended = true, .stream_ended = true, .vote = { [PARTY_DESTINATION] = VOTE_COMMIT } },
	{ .suspended = true,
	  .stream_ended = true,
	  .vote = { [PARTY_SOURCE] = VOTE_COMMIT, [PARTY_DESTINATION] = VOTE_COMMIT } },
	{ .suspended = true,
	  .stream_ended = true,
	  .activating = true,
	  .running = true,
	  .vote = { [PARTY_SOURCE] = VOTE_COMMIT, [PARTY_DESTINATION] = VOTE_COMMIT } },
	{ .suspended = true,
	  .stream_ended = true,
	  .renounced = true,
	  .vote = { [PARTY_SOURCE] = VOTE_COMMIT, [PARTY_DESTINATION] = VOTE_COMMIT } },
};
#define PATTERNS (sizeof(patterns) / sizeof(patterns[0]))
#define PATTERNS_EARLY 3 /* the first ones need no switchover */

static size_t patterns_of(enum migration_state state)
{
	if (state == MIGRATION_QUEUED) /* nobody was asked for anything */
		return 1;
	bool early = state == MIGRATION_CHECKING || state == MIGRATION_PREPARING || state == MIGRATION_COPYING;
	return early ? PATTERNS_EARLY : PATTERNS;
}

/* One event on one core, with all that it can tell: marks the states that follow. */
static void try_event(const struct migration_core *core, enum migration_event_kind kind,
                      bool ret_next[MIGRATION_STATES])
{
	struct migration_core next;
	struct migration_actions actions;
	for (int side = SIDE_SOURCE; side <= SIDE_DESTINATION; side++) {
		for (int outcome = OUTCOME_DONE; outcome <= OUTCOME_REFUSED; outcome++) {
			for (size_t i = 0; i < patterns_of(core->state); i++) {
				struct migration_event event = { .kind = kind,
					                         .side = (enum side)side,
					                         .outcome = (enum outcome)outcome };
				event.step = migration_command(core, event.side);
				event.code = outcome == OUTCOME_REFUSED ? ERR_IO : ERR_NONE;
				event.phase = core->state == MIGRATION_COPYING ? PHASE_READY : PHASE_SWITCHING;
				event.facts = patterns[i];
				migration_step(core, &event, &next, &actions);
				ret_next[next.state] = true;
			}
		}
	}
}

/* A core that can be in this state: one from which nothing follows by itself. */
static bool is_settled(const struct migration_core *core)
{
	struct migration_core next;
	struct migration_actions actions;
	const struct migration_event nothing = { .kind = MIGRATION_EVENT_RETRY, .side = SIDE_SOURCE };
	migration_step(core, &nothing, &next, &actions);
	return next.state == core->state;
}

static void fill_side(struct migration_core *core, int i, bool done, bool suspected, bool rebooted)
{
	enum side side = i == 0 ? SIDE_SOURCE : SIDE_DESTINATION;
	core->side[i].reach = suspected ? REACH_SUSPECTED : REACH_UP;
	core->side[i].rebooted = rebooted;
	core->side[i].done[migration_command(core, side)] = done;
	core->side[i].done[STEP_NONE] = false;
}

static void try_state(enum migration_state state, enum migration_event_kind kind, bool ret_next[MIGRATION_STATES])
{
	static const enum err_code causes[] = { ERR_NONE, ERR_CANCELLED };
	for (size_t i = 0; i < patterns_of(state); i++) {
		for (unsigned bits = 0; bits < 128; bits++) {
			struct migration_core core;
			migration_init(&core);
			core.state = state;
			core.facts = patterns[i];
			core.cause = causes[bits >> 6 & 1];
			for (int side = 0; side < 2; side++)
				fill_side(&core, side, (bits >> side & 1) != 0, (bits >> side & 4) != 0,
				          (bits >> side & 16) != 0);
			if (is_settled(&core))
				try_event(&core, kind, ret_next);
		}
	}
}

static void emit_row(enum migration_state state, bool next[MIGRATION_EVENT_KINDS][MIGRATION_STATES],
                     void (*emit)(void *ctx, const char *text), void *ctx)
{
	emit(ctx, state_names[state]);
	emit(ctx, migration_is_final(state) ? " (final)\n" : "\n");
	for (int to = MIGRATION_QUEUED; to < MIGRATION_STATES; to++) {
		bool any = false;
		for (int kind = MIGRATION_EVENT_ADMITTED; kind < MIGRATION_EVENT_KINDS; kind++) {
			if (!next[kind][to] || to == (int)state)
				continue;
			emit(ctx, any ? ", " : "    -> ");
			if (!any) {
				emit(ctx, state_names[to]);
				emit(ctx, " by ");
			}
			emit(ctx, event_names[kind]);
			any = true;
		}
		if (any)
			emit(ctx, "\n");
	}
}

void migration_table(void (*emit)(void *ctx, const char *text), void *ctx)
{
	for (int state = MIGRATION_QUEUED; state < MIGRATION_STATES; state++) {
		bool next[MIGRATION_EVENT_KINDS][MIGRATION_STATES] = { { false } };
		for (int kind = MIGRATION_EVENT_ADMITTED; kind < MIGRATION_EVENT_KINDS; kind++)
			try_state((enum migration_state)state, (enum migration_event_kind)kind, next[kind]);
		emit_row((enum migration_state)state, next, emit, ctx);
	}
}
