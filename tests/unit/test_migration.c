/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every state with every event, rows, the table. */
#include "tests/unit/migration_rig.h"

/* ---- every cell ---- */

static const struct verdict_facts patterns[] = {
	{ .suspended = false },
	{ .vote = { [PARTY_SOURCE] = VOTE_ABORT } },
	{ .vote = { [PARTY_SOURCE] = VOTE_ABORT }, .resumed = true },
	{ .vote = { [PARTY_DESTINATION] = VOTE_ABORT }, .renounced = true },
	{ .vote = { [PARTY_SOURCE] = VOTE_ABORT, [PARTY_DESTINATION] = VOTE_ABORT } },
	{ .suspended = true, .stream_ended = true },
	{ .suspended = true, .stream_ended = true, .vote = { [PARTY_DESTINATION] = VOTE_COMMIT } },
	{ .suspended = true,
	  .stream_ended = true,
	  .vote = { [PARTY_SOURCE] = VOTE_COMMIT, [PARTY_DESTINATION] = VOTE_COMMIT } },
	{ .suspended = true,
	  .stream_ended = true,
	  .activating = true,
	  .vote = { [PARTY_SOURCE] = VOTE_COMMIT, [PARTY_DESTINATION] = VOTE_COMMIT } },
	{ .suspended = true,
	  .stream_ended = true,
	  .activating = true,
	  .running = true,
	  .vote = { [PARTY_COORDINATOR] = VOTE_COMMIT, [PARTY_DESTINATION] = VOTE_COMMIT } },
	{ .suspended = true,
	  .stream_ended = true,
	  .renounced = true,
	  .vote = { [PARTY_SOURCE] = VOTE_COMMIT, [PARTY_DESTINATION] = VOTE_COMMIT } },
};
enum { PATTERNS = sizeof(patterns) / sizeof(patterns[0]) };

static unsigned long cells;

static bool equal(const struct migration_core *a, const struct migration_core *b)
{
	struct migration_packed x, y;
	migration_pack(a, &x);
	migration_pack(b, &y);
	return x.state == y.state && x.facts == y.facts && x.source == y.source && x.destination == y.destination &&
	       x.cause == y.cause && a->side[0].reach == b->side[0].reach && a->side[1].reach == b->side[1].reach;
}

static void check_cell(const struct migration_core *before, const struct migration_event *event)
{
	struct migration_core next, again, retried, unpacked;
	struct migration_actions list, list_again;
	struct migration_packed packed;
	migration_step(before, event, &next, &list);
	migration_step(before, event, &again, &list_again);
	cells++;
	/* total and deterministic */
	assert_true(next.state >= MIGRATION_QUEUED && next.state < MIGRATION_STATES);
	assert_true(equal(&next, &again));
	assert_int_equal(list.count, list_again.count);
	assert_true(list.count <= MIGRATION_ACTIONS_MAX);
	for (unsigned i = 0; i < list.count; i++) {
		assert_int_equal(list.list[i].kind, list_again.list[i].kind);
		if (list.list[i].kind == MIGRATION_ACTION_SEND)
			assert_int_equal(list.list[i].step, migration_command(&next, list.list[i].side));
	}
	/* what must never be */
	bool ruled = event->kind == MIGRATION_EVENT_RESOLVE;
	if (migration_is_final(before->state) && !(ruled && before->state == MIGRATION_LOST))
		assert_int_equal(next.state, before->state);
	if (before->state == MIGRATION_COMMITTED && next.state != MIGRATION_COMMITTED) {
		if (!next.facts.renounced && !(ruled && event->side == SIDE_SOURCE))
			assert_true(next.state == MIGRATION_DONE || next.state == MIGRATION_LOST);
	}
	if (before->state == MIGRATION_ROLLING_BACK)
		assert_true(next.state != MIGRATION_COMMITTED && next.state != MIGRATION_DONE);
	if (before->facts.ruling != VOTE_NONE)
		assert_int_equal(next.facts.ruling, before->facts.ruling);
	else
		assert_true(next.facts.ruling == VOTE_NONE || ruled);
	if (before->cause != ERR_NONE)
		assert_true(next.cause == before->cause && next.cause_side == before->cause_side);
	for (int party = 0; party < PARTIES; party++)
		if (before->facts.vote[party] != VOTE_NONE)
			assert_int_equal(next.facts.vote[party], before->facts.vote[party]);
	if (next.state == MIGRATION_COMMITTED && before->state != MIGRATION_COMMITTED)
		assert_int_equal(verdict_of(&next.facts), VOTE_COMMIT);
	if ((next.state == MIGRATION_CANCELLED || next.state == MIGRATION_FAILED) && before->state != next.state)
		assert_true(next.cause != ERR_NONE);
	/* no verdict, and in the switchover: never out of it but by one */
	if (before->state == MIGRATION_SWITCHING && next.state == MIGRATION_ROLLING_BACK)
		assert_true(verdict_of(&next.facts) == VOTE_ABORT || next.facts.renounced || next.facts.resumed);
	/* settled: nothing more follows by itself */
	migration_step(&next, &(struct migration_event) { .kind = MIGRATION_EVENT_RETRY, .side = SIDE_SOURCE },
	               &retried, &list);
	assert_true(equal(&next, &retried));
	/* a row is a snapshot */
	migration_pack(&next, &packed);
	assert_int_equal(migration_unpack(&packed, &unpacked), 0);
	unpacked.side[0].reach = next.side[0].reach;
	unpacked.side[1].reach = next.side[1].reach;
	assert_true(equal(&next, &unpacked));
}

static void check_events(const struct migration_core *before)
{
	for (int kind = MIGRATION_EVENT_ADMITTED; kind < MIGRATION_EVENT_KINDS; kind++) {
		bool talks = kind == MIGRATION_EVENT_ANSWER || kind == MIGRATION_EVENT_REPORT;
		for (int side = SIDE_SOURCE; side <= SIDE_DESTINATION; side++) {
			for (int step = STEP_NONE; step < (kind == MIGRATION_EVENT_ANSWER ? STEPS : STEP_CHECK);
			     step++) {
				for (int variant = 0; variant < (talks ? 4 * PATTERNS : 1); variant++) {
					struct migration_event event = { .kind = (enum migration_event_kind)kind,
						                         .side = (enum side)side,
						                         .step = (enum step)step };
					event.outcome = variant & 1 ? OUTCOME_REFUSED : OUTCOME_DONE;
					event.code = variant & 1 ? ERR_IO : ERR_NONE;
					event.phase = variant & 2 ? PHASE_READY : PHASE_SWITCHING;
					event.facts = patterns[variant / 4];
					check_cell(before, &event);
				}
			}
		}
	}
}

static void every_cell__total_deterministic_and_lawful(void **state)
{
	(void)state;
	cells = 0;
	for (int from = MIGRATION_QUEUED; from < MIGRATION_STATES; from++) {
		for (int pattern = 0; pattern < PATTERNS; pattern++) {
			for (unsigned bits = 0; bits < 128; bits++) {
				struct migration_core before, settled;
				migration_init(&before);
				before.state = (enum migration_state)from;
				before.facts = patterns[pattern];
				before.cause = bits & 64                        ? ERR_CANCELLED
				               : from == MIGRATION_ROLLING_BACK ? ERR_IO
				                                                : ERR_NONE;
				before.abort_asked = (bits & 32) != 0;
				for (int i = 0; i < 2; i++) {
					before.side[i].reach = (bits >> i & 1) ? REACH_SUSPECTED : REACH_UP;
					before.side[i].rebooted = (bits >> i & 4) != 0;
					before.side[i].journal_lost = (bits & 16) != 0 && i == 1;
				}
				migration_step(&before,
				               &(struct migration_event) { .kind = MIGRATION_EVENT_RETRY,
				                                           .side = SIDE_SOURCE },
				               &settled, &actions);
				if (settled.state == before.state)
					check_events(&settled);
			}
		}
	}
	assert_true(cells > 200000);
}

/* From the start, random events: the laws hold on every way. */
static void random_walks__lawful(void **state)
{
	(void)state;
	uint64_t seed = 7;
	for (int walk = 0; walk < 4000; walk++) {
		reach_state((enum migration_state)(MIGRATION_QUEUED + walk % 6));
		for (int i = 0; i < 40; i++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			uint32_t r = (uint32_t)(seed >> 33);
			struct migration_event event = { .kind = (enum migration_event_kind)(
								 1 + r % (MIGRATION_EVENT_KINDS - 1)),
				                         .side = (enum side)(1 + (r >> 4) % 2),
				                         .step = (enum step)(1 + (r >> 6) % (STEPS - 1)),
				                         .outcome = (r >> 10) % 4 == 0 ? OUTCOME_REFUSED : OUTCOME_DONE,
				                         .phase = (enum session_phase)((r >> 12) % PHASES) };
			if (event.outcome == OUTCOME_REFUSED)
				event.code = ERR_IO;
			if (core.state == MIGRATION_SWITCHING || core.state == MIGRATION_COMMITTED)
				event.facts = patterns[(r >> 16) % PATTERNS];
			check_cell(&core, &event);
			feed(&event);
		}
	}
}

/* ---- due, rows, table ---- */

static void due__same_on_entry_and_after_restart(void **state)
{
	(void)state;
	for (int from = MIGRATION_CHECKING; from <= MIGRATION_DONE; from++) {
		struct migration_actions due;
		reach_state((enum migration_state)from);
		enum step step = migration_command(&core, SIDE_SOURCE);
		simple(MIGRATION_EVENT_RESTART, 0);
		assert_true(step == STEP_NONE || has(MIGRATION_ACTION_SEND, SIDE_SOURCE, step));
		migration_due(&core, SIDE_SOURCE, &due);
		bool sends = false;
		for (unsigned i = 0; i < due.count; i++)
			sends |= due.list[i].kind == MIGRATION_ACTION_SEND && due.list[i].step == step;
		assert_int_equal(sends, step != STEP_NONE);
	}
}

static void unpack__impossible_values__are_refused(void **state)
{
	(void)state;
	struct migration_packed good, bad;
	struct migration_core out;
	reach_state(MIGRATION_COMMITTED);
	migration_pack(&core, &good);
	assert_int_equal(migration_unpack(&good, &out), 0);
	bad = good;
	bad.state = MIGRATION_STATES;
	assert_int_equal(migration_unpack(&bad, &out), -1);
	bad = good;
	bad.facts = 3;
	assert_int_equal(migration_unpack(&bad, &out), -1);
	bad = good;
	bad.cause = ERR_CODES;
	assert_int_equal(migration_unpack(&bad, &out), -1);
	bad = good;
	bad.source = (int64_t)PHASES << 24;
	assert_int_equal(migration_unpack(&bad, &out), -1);
	for (int bit = 0; bit < 63; bit++) { /* whatever bit is turned over: refused, or it comes back */
		struct migration_packed again;
		bad = good;
		bad.source ^= INT64_C(1) << bit;
		if (migration_unpack(&bad, &out) != 0)
			continue;
		migration_pack(&out, &again);
		assert_int_equal(again.source, bad.source);
	}
}

static void names__there_and_back(void **state)
{
	(void)state;
	for (int i = MIGRATION_QUEUED; i < MIGRATION_STATES; i++)
		assert_int_equal(migration_state_from_name(migration_state_name((enum migration_state)i)), i);
	assert_int_equal(migration_state_from_name("nonsense"), MIGRATION_STATES);
}

static char table[16384];

static void append(void *ctx, const char *text)
{
	(void)ctx;
	strncat(table, text, sizeof(table) - strlen(table) - 1);
}

static void table__has_every_state_and_no_forbidden_edge(void **state)
{
	(void)state;
	table[0] = '\0';
	migration_table(append, NULL);
	for (int i = MIGRATION_QUEUED; i < MIGRATION_STATES; i++)
		assert_non_null(strstr(table, migration_state_name((enum migration_state)i)));
	const char *row = strstr(table, "\nrolling-back\n");
	assert_non_null(row);
	const char *end = strstr(row, "\ncancelled (final)");
	const char *edge = strstr(row, "-> committed");
	assert_non_null(end);
	assert_true(edge == NULL || edge > end);
	assert_non_null(strstr(table, "done (final)\nrolling-back\n")); /* nothing follows a final state */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_cell__total_deterministic_and_lawful),
		TEST(random_walks__lawful),
		TEST(due__same_on_entry_and_after_restart),
		TEST(unpack__impossible_values__are_refused),
		TEST(names__there_and_back),
		TEST(table__has_every_state_and_no_forbidden_edge),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
