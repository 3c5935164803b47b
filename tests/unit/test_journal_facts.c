/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a journal takes down of the facts of a verdict, and what it refuses: protocol.md rule by rule. */
#include "tests/unit/journal_fixture.h"

#include "agent/journal_impl.h"

static void facts__added__only_grow(void **state)
{
	struct fixture *f = *state;
	struct err err;
	struct verdict_facts facts, none = { 0 };
	put(f, row_of(1, 1, SIDE_SOURCE));
	assert_int_equal(journal_facts_add(f->journal, 1, 1,
	                                   &(struct verdict_facts) { .vote = { 0, 0, VOTE_COMMIT }, .suspended = true },
	                                   &facts, NULL),
	                 0);
	assert_int_equal(facts.vote[PARTY_DESTINATION], VOTE_COMMIT);
	assert_int_equal(journal_facts_add(f->journal, 1, 1, &none, &facts, NULL), 0);
	assert_true(facts.suspended);
	assert_int_equal(journal_facts_add(f->journal, 1, 1,
	                                   &(struct verdict_facts) { .vote = { 0, 0, VOTE_ABORT }, .running = true },
	                                   NULL, &err),
	                 -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	assert_int_equal(journal_facts_add(f->journal, 1, 1, &none, &facts, NULL), 0);
	assert_false(facts.running);       /* nothing of a liar's news was taken */
	put(f, row_of(1, 1, SIDE_SOURCE)); /* and a row says nothing about facts */
	(void)reopen(f);
	assert_int_equal(journal_facts_add(f->journal, 1, 1, &none, &facts, NULL), 0);
	assert_true(facts.suspended && facts.vote[PARTY_DESTINATION] == VOTE_COMMIT);
}

static void database__whoever_writes__refuses_to_unsay_a_fact(void **state)
{
	struct fixture *f = *state;
	struct err err;
	put(f, row_of(1, 1, SIDE_SOURCE));
	assert_int_equal(db_exec(f->journal->db, &err,
	                         "UPDATE facts SET vote_source = 1, vote_destination = 2,"
	                         " vote_coordinator = 2, suspended = 1, stream_ended = 1, resumed = 1, released = 1,"
	                         " activating = 1, running = 1, renounced = 1",
	                         ""),
	                 0);
	static const char *const unsaid[] = { "vote_source = 2",      "vote_source = 0", "vote_destination = 1",
		                              "vote_coordinator = 0", "suspended = 0",   "stream_ended = 0",
		                              "resumed = 0",          "released = 0",    "activating = 0",
		                              "running = 0",          "renounced = 0" };
	for (size_t i = 0; i < sizeof(unsaid) / sizeof(unsaid[0]); i++) {
		char sql[128];
		(void)snprintf(sql, sizeof(sql), "UPDATE facts SET %s", unsaid[i]);
		assert_int_equal(db_exec(f->journal->db, &err, sql, ""), -1);
	}
	put(f, row_of(2, 1, SIDE_SOURCE));
	assert_int_equal(db_exec(f->journal->db, &err, "UPDATE facts SET vote_source = 3 WHERE migration = 2", ""), -1);
}

/* One cell: on these facts, as seen locally, may this be journaled? */
struct rule {
	const char *what;
	struct verdict_facts facts;
	struct verdict_local local;
	enum side side;
	enum vote vote; /* NONE: the flag */
	struct verdict_facts flag;
	bool allowed;
};

#define C VOTE_COMMIT
#define A VOTE_ABORT
static const struct rule rules[] = {
	{ "V1 suspended, ended, D's commit",
	  { .vote = { 0, 0, C }, .suspended = true, .stream_ended = true },
	  { 0 },
	  SIDE_SOURCE,
	  C,
	  { .vote = { 0 } },
	  true },
	{ "V1 D's commit not heard",
	  { .suspended = true, .stream_ended = true },
	  { 0 },
	  SIDE_SOURCE,
	  C,
	  { .vote = { 0 } },
	  false },
	{ "V1 stream not ended",
	  { .vote = { 0, 0, C }, .suspended = true },
	  { 0 },
	  SIDE_SOURCE,
	  C,
	  { .vote = { 0 } },
	  false },
	{ "V2 before the end", { .suspended = true }, { .failed = true }, SIDE_SOURCE, A, { .vote = { 0 } }, true },
	{ "V3 after the end, nobody asks",
	  { .suspended = true, .stream_ended = true },
	  { .failed = true },
	  SIDE_SOURCE,
	  A,
	  { .vote = { 0 } },
	  false },
	{ "V3 C asks, D not heard",
	  { .suspended = true, .stream_ended = true },
	  { .abort_asked = true },
	  SIDE_SOURCE,
	  A,
	  { .vote = { 0 } },
	  true },
	{ "V3 C asks, D committed",
	  { .vote = { 0, 0, C }, .suspended = true, .stream_ended = true },
	  { .abort_asked = true },
	  SIDE_SOURCE,
	  A,
	  { .vote = { 0 } },
	  false },
	{ "V4 whole copy",
	  { .stream_ended = true },
	  { .granted = true, .complete = true },
	  SIDE_DESTINATION,
	  C,
	  { .vote = { 0 } },
	  true },
	{ "V4 not whole",
	  { .stream_ended = true },
	  { .granted = true },
	  SIDE_DESTINATION,
	  C,
	  { .vote = { 0 } },
	  false },
	{ "V4 not granted",
	  { .stream_ended = true },
	  { .complete = true },
	  SIDE_DESTINATION,
	  C,
	  { .vote = { 0 } },
	  false },
	{ "V4 failed", { .vote = { 0 } }, { .failed = true }, SIDE_DESTINATION, A, { .vote = { 0 } }, true },
	{ "V4 abort after activating",
	  { .vote = { C, 0, C }, .activating = true },
	  { .abort_asked = true },
	  SIDE_DESTINATION,
	  A,
	  { .vote = { 0 } },
	  false },
	{ "a second vote",
	  { .vote = { 0, A, 0 }, .suspended = true, .stream_ended = true },
	  { 0 },
	  SIDE_SOURCE,
	  C,
	  { .vote = { 0 } },
	  false },
	{ "the same vote", { .vote = { 0, A, 0 } }, { 0 }, SIDE_SOURCE, A, { .vote = { 0 } }, true },
	{ "V11 journal lost",
	  { .vote = { 0 } },
	  { .failed = true, .journal_lost = true },
	  SIDE_SOURCE,
	  A,
	  { .vote = { 0 } },
	  false },
	{ "no vote is no vote",
	  { .vote = { 0 } },
	  { .failed = true },
	  SIDE_SOURCE,
	  VOTE_NONE,
	  { .vote = { 0 } },
	  false },
	{ "V6 two commits", { .vote = { 0, C, C } }, { 0 }, SIDE_DESTINATION, 0, { .activating = true }, true },
	{ "V6 one commit", { .vote = { 0, 0, C } }, { 0 }, SIDE_DESTINATION, 0, { .activating = true }, false },
	{ "V6 not D's own", { .vote = { C, C, 0 } }, { 0 }, SIDE_DESTINATION, 0, { .activating = true }, false },
	{ "V6 renounced",
	  { .vote = { 0, C, C }, .renounced = true },
	  { 0 },
	  SIDE_DESTINATION,
	  0,
	  { .activating = true },
	  false },
	{ "V6 runs without activating",
	  { .vote = { 0, C, C } },
	  { 0 },
	  SIDE_DESTINATION,
	  0,
	  { .running = true },
	  false },
	{ "V6 runs",
	  { .vote = { 0, C, C }, .activating = true },
	  { 0 },
	  SIDE_DESTINATION,
	  0,
	  { .running = true },
	  true },
	{ "V7 an abort is heard", { .vote = { 0, A, 0 } }, { 0 }, SIDE_DESTINATION, 0, { .renounced = true }, true },
	{ "V7 no reason", { .vote = { 0 } }, { 0 }, SIDE_DESTINATION, 0, { .renounced = true }, false },
	{ "V7 two commits", { .vote = { 0, C, C } }, { 0 }, SIDE_DESTINATION, 0, { .renounced = true }, false },
	{ "V7 activating",
	  { .vote = { 0, C, C }, .activating = true },
	  { .image_gone = true },
	  SIDE_DESTINATION,
	  0,
	  { .renounced = true },
	  false },
	{ "V7 unpause failed",
	  { .vote = { 0, C, C }, .activating = true },
	  { .unpause_failed = true },
	  SIDE_DESTINATION,
	  0,
	  { .renounced = true },
	  true },
	{ "V8 two aborts",
	  { .vote = { A, A, 0 }, .stream_ended = true },
	  { 0 },
	  SIDE_SOURCE,
	  0,
	  { .resumed = true },
	  true },
	{ "V8 one abort",
	  { .vote = { 0, A, 0 }, .stream_ended = true },
	  { 0 },
	  SIDE_SOURCE,
	  0,
	  { .resumed = true },
	  false },
	{ "V8 V2", { .vote = { 0, A, 0 } }, { 0 }, SIDE_SOURCE, 0, { .resumed = true }, true },
	{ "V8 D renounced",
	  { .vote = { 0, C, C }, .renounced = true },
	  { 0 },
	  SIDE_SOURCE,
	  0,
	  { .resumed = true },
	  true },
	{ "V8 two commits", { .vote = { 0, C, C } }, { 0 }, SIDE_SOURCE, 0, { .resumed = true }, false },
	{ "V10 D runs",
	  { .vote = { 0, C, C }, .activating = true, .running = true },
	  { 0 },
	  SIDE_SOURCE,
	  0,
	  { .released = true },
	  true },
	{ "V10 D does not run yet",
	  { .vote = { 0, C, C }, .activating = true },
	  { 0 },
	  SIDE_SOURCE,
	  0,
	  { .released = true },
	  false },
	{ "end of stream", { .suspended = true }, { 0 }, SIDE_SOURCE, 0, { .stream_ended = true }, true },
	{ "end of stream after S's abort",
	  { .vote = { 0, A, 0 }, .suspended = true },
	  { 0 },
	  SIDE_SOURCE,
	  0,
	  { .stream_ended = true },
	  false },
	{ "suspend", { .vote = { 0 } }, { 0 }, SIDE_SOURCE, 0, { .suspended = true }, true },
	{ "suspend after S's abort", { .vote = { 0, A, 0 } }, { 0 }, SIDE_SOURCE, 0, { .suspended = true }, false },
	{ "set already",
	  { .vote = { 0, A, 0 }, .suspended = true },
	  { 0 },
	  SIDE_SOURCE,
	  0,
	  { .suspended = true },
	  true },
	{ "two flags", { .vote = { 0 } }, { 0 }, SIDE_SOURCE, 0, { .suspended = true, .stream_ended = true }, false },
	{ "no flag", { .vote = { 0 } }, { 0 }, SIDE_SOURCE, 0, { .vote = { 0 } }, false },
};
#undef C
#undef A

static void rules__each__is_kept_by_the_journal(void **state)
{
	struct fixture *f = *state;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		const struct rule *rule = &rules[i];
		struct verdict_facts after = { 0 }, none = { 0 };
		struct err err = { 0 };
		uint64_t migration = i + 1;
		put(f, row_of(migration, 1, rule->side));
		assert_int_equal(journal_facts_add(f->journal, migration, 1, &rule->facts, NULL, NULL), 0);
		bool flag = rule->vote == VOTE_NONE && strcmp(rule->what, "no vote is no vote") != 0;
		int rc = flag ? journal_flag(f->journal, migration, 1, &rule->flag, &rule->local, &after, &err)
		              : journal_vote(f->journal, migration, 1, rule->side, rule->vote, &rule->local, &after,
		                             &err);
		if ((rc == 0) != rule->allowed)
			fail_msg("%s: %s", rule->what, rc == 0 ? "was allowed" : err.text);
		struct verdict_facts stored;
		assert_int_equal(journal_facts_add(f->journal, migration, 1, &none, &stored, NULL), 0);
		bool conflict = false;
		struct verdict_facts expected = rule->facts, news = rule->flag;
		if (!flag)
			news.vote[party_of(rule->side)] = rule->vote;
		if (rule->allowed)
			(void)verdict_learn(&expected, &news, &conflict);
		assert_false(verdict_learn(&stored, &expected, &conflict)); /* the same, both ways */
		assert_false(verdict_learn(&expected, &stored, &conflict));
		assert_false(conflict);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		journal_test(facts__added__only_grow),
		journal_test(database__whoever_writes__refuses_to_unsay_a_fact),
		journal_test(rules__each__is_kept_by_the_journal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
