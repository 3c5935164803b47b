/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What becomes of a migration when this or that happens, by name. */
#include "tests/unit/migration_rig.h"

/* ---- a migration that goes well ---- */

static void happy_path__each_state_in_turn(void **state)
{
	(void)state;
	simple(MIGRATION_EVENT_HOST_UP, SIDE_SOURCE);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_DESTINATION);
	assert_int_equal(actions.count, 0);
	simple(MIGRATION_EVENT_ADMITTED, 0);
	assert_state(MIGRATION_CHECKING);
	assert_true(has(MIGRATION_ACTION_DEADLINE, 0, 0));
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_CHECK));
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_CHECK));
	done(SIDE_SOURCE, STEP_CHECK);
	assert_state(MIGRATION_CHECKING);
	done(SIDE_DESTINATION, STEP_CHECK);
	assert_state(MIGRATION_PREPARING);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_PREPARE));
	both_done(STEP_PREPARE);
	assert_state(MIGRATION_COPYING);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_COPY));
	both_done(STEP_COPY);
	assert_state(MIGRATION_COPYING);
	report(SIDE_SOURCE, PHASE_READY, no_facts);
	assert_state(MIGRATION_SWITCHING);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_SWITCH));
	both_done(STEP_SWITCH);
	report(SIDE_DESTINATION, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_COMMIT));
	assert_state(MIGRATION_SWITCHING);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_SOURCE, 0)); /* V9 */
	report(SIDE_SOURCE, PHASE_SWITCHING, votes(VOTE_COMMIT, VOTE_COMMIT));
	assert_state(MIGRATION_COMMITTED);
	assert_int_equal(core.facts.vote[PARTY_COORDINATOR], VOTE_NONE);
	assert_false(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_RELEASE)); /* V10: D does not run yet */
	struct verdict_facts facts = votes(VOTE_COMMIT, VOTE_COMMIT);
	facts.activating = facts.running = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_RELEASE));
	both_done(STEP_RELEASE);
	assert_state(MIGRATION_DONE);
	assert_true(has(MIGRATION_ACTION_FINISH, 0, 0));
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_FORGET));
	both_done(STEP_FORGET);
	assert_state(MIGRATION_DONE);
	assert_int_equal(migration_command(&core, SIDE_SOURCE), STEP_NONE);
	assert_false(core.side[0].cleanup_owed || core.side[1].cleanup_owed || core.side[0].forget_owed);
	assert_int_equal(core.cause, ERR_NONE);
}

/* ---- cancel ---- */

static void queued__cancelled__at_once_and_nobody_is_told(void **state)
{
	(void)state;
	simple(MIGRATION_EVENT_CANCEL, 0);
	assert_state(MIGRATION_CANCELLED);
	assert_true(has(MIGRATION_ACTION_FINISH, 0, 0));
	assert_int_equal(migration_command(&core, SIDE_SOURCE), STEP_NONE);
	assert_int_equal(migration_cancel_answer(&core), CANCEL_CANCELLED);
}

static void before_the_switchover__cancelled__rolls_back(void **state)
{
	(void)state;
	const enum migration_state states[] = { MIGRATION_CHECKING, MIGRATION_PREPARING, MIGRATION_COPYING };
	for (int i = 0; i < 3; i++) {
		reach_state(states[i]);
		simple(MIGRATION_EVENT_CANCEL, 0);
		assert_state(MIGRATION_ROLLING_BACK);
		assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_ABORT));
		assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_ABORT));
		assert_int_equal(migration_cancel_answer(&core), CANCEL_CANCELLED);
		simple(MIGRATION_EVENT_CANCEL, 0);
		assert_int_equal(actions.count, 0);
		both_done(STEP_ABORT);
		assert_state(MIGRATION_CANCELLED);
		assert_int_equal(core.cause, ERR_CANCELLED);
	}
}

static void switching__cancelled__pending_until_the_verdict(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	simple(MIGRATION_EVENT_CANCEL, 0);
	assert_state(MIGRATION_SWITCHING);
	assert_int_equal(migration_cancel_answer(&core), CANCEL_PENDING);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_ABORT));
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_ABORT));
	struct verdict_facts facts = { .vote = { [PARTY_SOURCE] = VOTE_ABORT, [PARTY_DESTINATION] = VOTE_ABORT } };
	report(SIDE_DESTINATION, PHASE_ROLLING_BACK, facts);
	assert_state(MIGRATION_ROLLING_BACK);
	both_done(STEP_ABORT);
	assert_state(MIGRATION_CANCELLED);
}

static void switching__cancelled_after_the_votes__is_done(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	simple(MIGRATION_EVENT_CANCEL, 0);
	report(SIDE_SOURCE, PHASE_SWITCHING, votes(VOTE_COMMIT, VOTE_COMMIT));
	assert_state(MIGRATION_COMMITTED);
	assert_int_equal(migration_cancel_answer(&core), CANCEL_TOO_LATE);
}

static void committed_done__cancelled__too_late(void **state)
{
	(void)state;
	const enum migration_state states[] = { MIGRATION_COMMITTED, MIGRATION_DONE };
	for (int i = 0; i < 2; i++) {
		reach_state(states[i]);
		simple(MIGRATION_EVENT_CANCEL, 0);
		assert_state(states[i]);
		assert_int_equal(actions.count, 0);
		assert_int_equal(migration_cancel_answer(&core), CANCEL_TOO_LATE);
	}
}

/* ---- refusals, deadlines ---- */

static void each_step__refused__fails_with_that_reason(void **state)
{
	(void)state;
	const enum migration_state states[] = { MIGRATION_CHECKING, MIGRATION_PREPARING, MIGRATION_COPYING };
	for (int i = 0; i < 3; i++) {
		for (int side = SIDE_SOURCE; side <= SIDE_DESTINATION; side++) {
			reach_state(states[i]);
			enum step step = migration_command(&core, (enum side)side);
			refused((enum side)side, step, ERR_NO_SPACE);
			assert_state(MIGRATION_ROLLING_BACK);
			assert_true(has(MIGRATION_ACTION_CAUSE, (enum side)side, step));
			refused((enum side)(3 - side), step, ERR_IO); /* what follows is not the cause */
			both_done(STEP_ABORT);
			assert_state(MIGRATION_FAILED);
			assert_int_equal(core.cause, ERR_NO_SPACE);
			assert_int_equal(core.cause_side, side);
			assert_int_equal(core.cause_step, step);
		}
	}
}

static void switching__refused__asks_for_an_abort(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	refused(SIDE_SOURCE, STEP_SWITCH, ERR_STALE);
	assert_state(MIGRATION_SWITCHING);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_ABORT));
}

/* It voted COMMIT, nobody heard it, and the others decided without it: only with their votes may it let go. */
static void failed__destination_returns_with_its_vote__is_told_the_verdict(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	simple(MIGRATION_EVENT_GIVEN_UP, SIDE_DESTINATION);
	report(SIDE_SOURCE, PHASE_ROLLING_BACK, votes(VOTE_ABORT, VOTE_NONE));
	done(SIDE_SOURCE, STEP_ABORT);
	assert_state(MIGRATION_FAILED);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_DESTINATION);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_DESTINATION, STEP_NONE));
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_ABORT));
	migration_due(&core, SIDE_DESTINATION, &actions);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_DESTINATION, STEP_NONE));
	done(SIDE_DESTINATION, STEP_ABORT);
	migration_due(&core, SIDE_DESTINATION, &actions);
	assert_false(has(MIGRATION_ACTION_TELL, 0, STEP_NONE));
}

static void release__forgotten_there_already__is_done(void **state)
{
	(void)state;
	struct verdict_facts facts = votes(VOTE_COMMIT, VOTE_COMMIT);
	facts.activating = facts.running = true;
	reach_state(MIGRATION_COMMITTED);
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	refused(SIDE_SOURCE, STEP_RELEASE, ERR_STALE); /* says nothing */
	done(SIDE_DESTINATION, STEP_RELEASE);
	assert_state(MIGRATION_COMMITTED);
	refused(SIDE_SOURCE, STEP_RELEASE, ERR_UNKNOWN_ID);
	assert_state(MIGRATION_DONE);
}

static void late_refusal_of_an_old_step__changes_nothing(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	refused(SIDE_SOURCE, STEP_PREPARE, ERR_IO);
	assert_state(MIGRATION_COPYING);
}

static void each_state__deadline__rolls_back_or_asks(void **state)
{
	(void)state;
	const enum migration_state states[] = { MIGRATION_CHECKING, MIGRATION_PREPARING, MIGRATION_COPYING,
		                                MIGRATION_SWITCHING };
	for (int i = 0; i < 4; i++) {
		reach_state(states[i]);
		simple(MIGRATION_EVENT_DEADLINE, 0);
		assert_state(i == 3 ? MIGRATION_SWITCHING : MIGRATION_ROLLING_BACK);
		assert_int_equal(core.cause, ERR_TIMEOUT);
		assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_ABORT));
	}
	reach_state(MIGRATION_COMMITTED);
	simple(MIGRATION_EVENT_DEADLINE, 0);
	assert_state(MIGRATION_COMMITTED);
}

/* ---- which single failures end how ---- */

static void copying__session_failed__fails(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	feed(&(struct migration_event) { .kind = MIGRATION_EVENT_REPORT,
	                                 .side = SIDE_SOURCE,
	                                 .phase = PHASE_ROLLING_BACK,
	                                 .code = ERR_PEER_LOST });
	assert_state(MIGRATION_ROLLING_BACK);
	both_done(STEP_ABORT);
	assert_state(MIGRATION_FAILED);
	assert_int_equal(core.cause, ERR_PEER_LOST);
}

static void copying__host_suspected__waits_until_given_up(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	assert_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_GIVEN_UP, SIDE_DESTINATION);
	assert_state(MIGRATION_ROLLING_BACK);
	/* the destination is not waited for; what it holds is owed */
	done(SIDE_SOURCE, STEP_ABORT);
	assert_state(MIGRATION_FAILED);
	assert_true(core.side[1].cleanup_owed);
	assert_false(core.side[0].cleanup_owed);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_DESTINATION);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_ABORT));
	done(SIDE_DESTINATION, STEP_ABORT);
	assert_false(core.side[1].cleanup_owed);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_FORGET));
	done(SIDE_DESTINATION, STEP_FORGET);
	assert_state(MIGRATION_FAILED);
	assert_int_equal(migration_command(&core, SIDE_DESTINATION), STEP_NONE);
}

static void copying__ready_while_a_host_is_not_heard__does_not_switch(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	report(SIDE_SOURCE, PHASE_READY, no_facts);
	assert_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_DESTINATION);
	assert_state(MIGRATION_SWITCHING);
}

static void rolling_back__source_away__waits_for_it(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_GIVEN_UP, SIDE_SOURCE);
	done(SIDE_DESTINATION, STEP_ABORT);
	assert_state(MIGRATION_ROLLING_BACK);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_SOURCE);
	done(SIDE_SOURCE, STEP_ABORT);
	assert_state(MIGRATION_FAILED);
}

static void copying__source_rebooted__fails_and_stays_the_sources(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_REBOOTED, SIDE_SOURCE);
	assert_state(MIGRATION_ROLLING_BACK);
	both_done(STEP_ABORT);
	assert_state(MIGRATION_FAILED); /* what becomes of the VM is its host's own affair, as without a migration */
	assert_string_equal(migration_authority(&core), "source");
	assert_int_equal(core.cause, ERR_HOST_LOST);
}

static void copying__destination_rebooted__fails(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_REBOOTED, SIDE_DESTINATION);
	both_done(STEP_ABORT);
	assert_state(MIGRATION_FAILED);
}

static void switching__destination_lost_before_its_vote__source_and_coordinator_abort(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	both_done(STEP_SWITCH);
	report(SIDE_SOURCE, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_NONE));
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	assert_state(MIGRATION_SWITCHING);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_ABORT));
	assert_int_equal(core.facts.vote[PARTY_COORDINATOR], VOTE_NONE); /* V5: never first */
	report(SIDE_SOURCE, PHASE_SWITCHING, votes(VOTE_ABORT, VOTE_NONE));
	assert_int_equal(core.facts.vote[PARTY_COORDINATOR], VOTE_ABORT);
	assert_state(MIGRATION_ROLLING_BACK);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_SOURCE, 0));
	done(SIDE_SOURCE, STEP_ABORT);
	assert_state(MIGRATION_FAILED);
	assert_int_equal(core.cause, ERR_HOST_DOWN);
}

static void switching__destination_lost_after_its_vote_unheard_by_source__aborts(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	/* nobody heard of it: as before its vote */
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	report(SIDE_SOURCE, PHASE_SWITCHING, votes(VOTE_ABORT, VOTE_NONE));
	assert_state(MIGRATION_ROLLING_BACK);
	/* a late COMMIT of D finds two ABORTs */
	report(SIDE_DESTINATION, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_COMMIT));
	assert_state(MIGRATION_ROLLING_BACK);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_DESTINATION, 0));
}

static void switching__source_lost_before_the_vote__destination_and_coordinator_abort(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_SOURCE);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_ABORT));
	struct verdict_facts facts = votes(VOTE_NONE, VOTE_ABORT);
	report(SIDE_DESTINATION, PHASE_ROLLING_BACK, facts);
	assert_int_equal(core.facts.vote[PARTY_COORDINATOR], VOTE_ABORT);
	assert_state(MIGRATION_ROLLING_BACK);
	done(SIDE_DESTINATION, STEP_ABORT);
	assert_state(MIGRATION_ROLLING_BACK); /* whether the VM runs is known when the source is back */
	simple(MIGRATION_EVENT_REBOOTED, SIDE_SOURCE);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_SOURCE);
	done(SIDE_SOURCE, STEP_ABORT);
	assert_state(MIGRATION_LOST);
}

static void switching__source_lost_after_destination_voted__coordinator_seconds(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	report(SIDE_DESTINATION, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_COMMIT));
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_SOURCE);
	assert_int_equal(core.facts.vote[PARTY_COORDINATOR], VOTE_COMMIT);
	assert_state(MIGRATION_COMMITTED);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_DESTINATION, 0));
}

static void switching__link_between_hosts_cut__votes_go_through_here(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	report(SIDE_DESTINATION, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_COMMIT));
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_SOURCE, 0));
	struct verdict_facts facts = votes(VOTE_COMMIT, VOTE_NONE);
	report(SIDE_SOURCE, PHASE_SWITCHING, facts);
	assert_state(MIGRATION_COMMITTED);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_DESTINATION, 0));
}

static void switching__coordinator_restarted__asks_again_and_suspects_nobody(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	simple(MIGRATION_EVENT_RESTART, 0);
	assert_state(MIGRATION_SWITCHING);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_SWITCH));
	report(SIDE_SOURCE, PHASE_COMMITTED, votes(VOTE_COMMIT, VOTE_COMMIT)); /* they finished by themselves */
	assert_state(MIGRATION_COMMITTED);
}

static void switching__nobody_reachable__in_doubt_until_one_is_heard(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_SOURCE);
	assert_state(MIGRATION_SWITCHING);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	assert_state(MIGRATION_IN_DOUBT);
	assert_string_equal(migration_authority(&core), "undecided");
	simple(MIGRATION_EVENT_RESTART, 0);
	assert_state(MIGRATION_IN_DOUBT);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_DESTINATION);
	assert_state(MIGRATION_SWITCHING);
}

static void switching__source_rebooted_and_destination_gone__in_doubt(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	report(SIDE_SOURCE, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_NONE));
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	simple(MIGRATION_EVENT_REBOOTED, SIDE_SOURCE);
	assert_state(MIGRATION_IN_DOUBT); /* V3: it votes only as D did */
}

static void switching__source_aborts_alone_and_resumes__rolls_back(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	struct verdict_facts facts = { .vote = { [PARTY_SOURCE] = VOTE_ABORT }, .suspended = true, .resumed = true };
	feed(&(struct migration_event) { .kind = MIGRATION_EVENT_REPORT,
	                                 .side = SIDE_SOURCE,
	                                 .phase = PHASE_ROLLED_BACK,
	                                 .facts = facts,
	                                 .code = ERR_PEER_LOST });
	assert_state(MIGRATION_ROLLING_BACK);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_DESTINATION, 0));
	both_done(STEP_ABORT);
	assert_state(MIGRATION_FAILED);
}

static void committed__destination_renounces__source_has_it_again(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	struct verdict_facts facts = votes(VOTE_COMMIT, VOTE_COMMIT);
	facts.renounced = true;
	report(SIDE_DESTINATION, PHASE_ROLLING_BACK, facts);
	assert_state(MIGRATION_ROLLING_BACK); /* V8 */
	assert_string_equal(migration_authority(&core), "source");
	both_done(STEP_ABORT);
	assert_state(MIGRATION_FAILED);
}

static void committed__destination_rebooted_with_the_vm__is_lost(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	simple(MIGRATION_EVENT_REBOOTED, SIDE_DESTINATION);
	assert_state(MIGRATION_COMMITTED); /* it may never have run: then D renounces */
	struct verdict_facts facts = votes(VOTE_COMMIT, VOTE_COMMIT);
	facts.activating = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	assert_state(MIGRATION_LOST);
	assert_string_equal(migration_authority(&core), "none");
	assert_int_equal(migration_command(&core, SIDE_SOURCE), STEP_NONE); /* V10: not known to have run */
	assert_true(core.side[0].cleanup_owed);
}

static void committed__rebooted_destination_had_renounced__source_has_it_again(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	struct verdict_facts facts = votes(VOTE_COMMIT, VOTE_COMMIT);
	facts.activating = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	simple(MIGRATION_EVENT_REBOOTED, SIDE_DESTINATION);
	assert_state(MIGRATION_COMMITTED); /* its journal knows whether the VM ever ran */
	facts.renounced = true;
	report(SIDE_DESTINATION, PHASE_ROLLING_BACK, facts);
	assert_state(MIGRATION_ROLLING_BACK);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_SOURCE, STEP_NONE));
}

static void committed__destination_rebooted_and_its_journal_lost__is_lost(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	struct verdict_facts facts = votes(VOTE_COMMIT, VOTE_COMMIT);
	facts.activating = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	simple(MIGRATION_EVENT_REBOOTED, SIDE_DESTINATION);
	simple(MIGRATION_EVENT_JOURNAL_LOST, SIDE_DESTINATION);
	assert_state(MIGRATION_LOST); /* nobody can say that it never ran */
}

static void committed__source_away__waits_and_then_releases(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	struct verdict_facts facts = votes(VOTE_COMMIT, VOTE_COMMIT);
	facts.activating = facts.running = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	simple(MIGRATION_EVENT_GIVEN_UP, SIDE_SOURCE);
	done(SIDE_DESTINATION, STEP_RELEASE);
	assert_state(MIGRATION_COMMITTED);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_SOURCE);
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_SOURCE, STEP_RELEASE));
	done(SIDE_SOURCE, STEP_RELEASE);
	assert_state(MIGRATION_DONE);
}

static void journal_lost__counts_as_unreachable(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	report(SIDE_DESTINATION, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_COMMIT));
	simple(MIGRATION_EVENT_JOURNAL_LOST, SIDE_SOURCE);
	assert_state(MIGRATION_COMMITTED); /* V5, V11 */
	reach_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_JOURNAL_LOST, SIDE_DESTINATION);
	assert_state(MIGRATION_ROLLING_BACK);
}

/* It cannot say that the VM runs, and never will; but it was never granted the switchover. After a grant it may have
 * suspended the VM, and nobody but an operator can tell. */
static void rolling_back__journal_of_the_source_lost__ends_unless_it_was_granted(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_JOURNAL_LOST, SIDE_SOURCE);
	assert_state(MIGRATION_ROLLING_BACK);
	refused(SIDE_SOURCE, STEP_ABORT, ERR_HOST_LOST);
	assert_state(MIGRATION_ROLLING_BACK);
	struct verdict_facts renounced = { .renounced = true };
	report(SIDE_DESTINATION, PHASE_ROLLING_BACK, renounced);
	done(SIDE_DESTINATION, STEP_ABORT);
	assert_state(MIGRATION_FAILED);
	assert_int_equal(core.cause, ERR_HOST_LOST);
	assert_string_equal(migration_authority(&core), "source");
	assert_true(core.side[0].cleanup_owed); /* listed as left over */
	reach_state(MIGRATION_SWITCHING);
	report(SIDE_DESTINATION, PHASE_ROLLING_BACK, votes(VOTE_NONE, VOTE_ABORT));
	simple(MIGRATION_EVENT_JOURNAL_LOST, SIDE_SOURCE);
	assert_state(MIGRATION_ROLLING_BACK);
	done(SIDE_DESTINATION, STEP_ABORT);
	assert_state(MIGRATION_ROLLING_BACK);
}

static void copying__record_older_than_the_journals__the_votes_count(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	report(SIDE_SOURCE, PHASE_COMMITTED, votes(VOTE_COMMIT, VOTE_COMMIT));
	assert_state(MIGRATION_COMMITTED);
}

static void vote_that_contradicts__is_not_believed(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	report(SIDE_DESTINATION, PHASE_ROLLING_BACK, votes(VOTE_ABORT, VOTE_ABORT));
	assert_true(has(MIGRATION_ACTION_CONFLICT, SIDE_DESTINATION, 0));
	assert_state(MIGRATION_COMMITTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(happy_path__each_state_in_turn),
		TEST(queued__cancelled__at_once_and_nobody_is_told),
		TEST(before_the_switchover__cancelled__rolls_back),
		TEST(switching__cancelled__pending_until_the_verdict),
		TEST(switching__cancelled_after_the_votes__is_done),
		TEST(committed_done__cancelled__too_late),
		TEST(each_step__refused__fails_with_that_reason),
		TEST(switching__refused__asks_for_an_abort),
		TEST(failed__destination_returns_with_its_vote__is_told_the_verdict),
		TEST(release__forgotten_there_already__is_done),
		TEST(late_refusal_of_an_old_step__changes_nothing),
		TEST(each_state__deadline__rolls_back_or_asks),
		TEST(copying__session_failed__fails),
		TEST(copying__host_suspected__waits_until_given_up),
		TEST(copying__ready_while_a_host_is_not_heard__does_not_switch),
		TEST(rolling_back__source_away__waits_for_it),
		TEST(copying__source_rebooted__fails_and_stays_the_sources),
		TEST(copying__destination_rebooted__fails),
		TEST(switching__destination_lost_before_its_vote__source_and_coordinator_abort),
		TEST(switching__destination_lost_after_its_vote_unheard_by_source__aborts),
		TEST(switching__source_lost_before_the_vote__destination_and_coordinator_abort),
		TEST(switching__source_lost_after_destination_voted__coordinator_seconds),
		TEST(switching__link_between_hosts_cut__votes_go_through_here),
		TEST(switching__coordinator_restarted__asks_again_and_suspects_nobody),
		TEST(switching__nobody_reachable__in_doubt_until_one_is_heard),
		TEST(switching__source_rebooted_and_destination_gone__in_doubt),
		TEST(switching__source_aborts_alone_and_resumes__rolls_back),
		TEST(committed__destination_renounces__source_has_it_again),
		TEST(committed__destination_rebooted_with_the_vm__is_lost),
		TEST(committed__rebooted_destination_had_renounced__source_has_it_again),
		TEST(committed__destination_rebooted_and_its_journal_lost__is_lost),
		TEST(committed__source_away__waits_and_then_releases),
		TEST(journal_lost__counts_as_unreachable),
		TEST(rolling_back__journal_of_the_source_lost__ends_unless_it_was_granted),
		TEST(copying__record_older_than_the_journals__the_votes_count),
		TEST(vote_that_contradicts__is_not_believed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
