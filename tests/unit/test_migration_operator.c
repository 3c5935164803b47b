/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an operator rules when hosts do not come back: who owns the VM, and that a host is gone for good. */
#include "tests/unit/migration_rig.h"

static bool refuses(enum side owner)
{
	return migration_resolve_refusal(&core, owner) != NULL;
}

static void in_doubt(void)
{
	reach_state(MIGRATION_SWITCHING);
	report(SIDE_SOURCE, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_NONE));
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	simple(MIGRATION_EVENT_REBOOTED, SIDE_SOURCE);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_SOURCE);
	assert_state(MIGRATION_IN_DOUBT);
}

static void resolve__nothing_in_doubt__refused(void **state)
{
	(void)state;
	static const enum migration_state sure[] = { MIGRATION_QUEUED, MIGRATION_CHECKING, MIGRATION_PREPARING,
		                                     MIGRATION_COPYING, MIGRATION_DONE };
	for (size_t i = 0; i < sizeof(sure) / sizeof(sure[0]); i++) {
		reach_state(sure[i]);
		simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
		assert_true(refuses(SIDE_SOURCE) && refuses(SIDE_DESTINATION));
		enum migration_state before = core.state;
		simple(MIGRATION_EVENT_RESOLVE, SIDE_SOURCE);
		assert_state(before);
		assert_int_equal(core.facts.ruling, VOTE_NONE);
	}
}

static void resolve__other_host_is_heard__refused(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	assert_true(refuses(SIDE_SOURCE));
	simple(MIGRATION_EVENT_RESTART, 0); /* not heard of yet: it may be there in a moment */
	assert_true(refuses(SIDE_SOURCE));
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	assert_false(refuses(SIDE_SOURCE));
}

static void resolve__for_the_source__rolls_back_and_tells_the_facts(void **state)
{
	(void)state;
	in_doubt();
	assert_true(refuses(SIDE_DESTINATION)); /* not known to hold a whole copy */
	simple(MIGRATION_EVENT_HOST_UP, SIDE_SOURCE);
	core.side[0].rebooted = false;
	simple(MIGRATION_EVENT_RESOLVE, SIDE_SOURCE);
	assert_state(MIGRATION_ROLLING_BACK);
	assert_int_equal(core.facts.ruling, VOTE_ABORT);
	assert_string_equal(migration_authority(&core), "source");
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_SOURCE, 0));
	simple(MIGRATION_EVENT_RESOLVE, SIDE_DESTINATION); /* it stands */
	assert_int_equal(core.facts.ruling, VOTE_ABORT);
	assert_true(refuses(SIDE_DESTINATION));
	assert_false(refuses(SIDE_SOURCE)); /* again is the same as once */
	done(SIDE_SOURCE, STEP_ABORT);
	assert_state(MIGRATION_FAILED);
	assert_true(core.side[1].cleanup_owed);
	/* The destination returns one day: it needs to hear of the ruling to give up what it had begun. */
	simple(MIGRATION_EVENT_HOST_UP, SIDE_DESTINATION);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_DESTINATION, 0));
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_ABORT));
}

static void resolve__for_the_destination__committed(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	simple(MIGRATION_EVENT_CANCEL, 0);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_SOURCE);
	core.facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	core.facts.vote[PARTY_SOURCE] = VOTE_ABORT; /* and the coordinator can second neither */
	assert_false(refuses(SIDE_DESTINATION));
	simple(MIGRATION_EVENT_RESOLVE, SIDE_DESTINATION);
	assert_state(MIGRATION_COMMITTED);
	assert_string_equal(migration_authority(&core), "destination");
	assert_int_equal(migration_command(&core, SIDE_SOURCE), STEP_NONE); /* V10: not before it runs there */
	struct verdict_facts facts = core.facts;
	facts.activating = facts.running = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	assert_int_equal(migration_command(&core, SIDE_SOURCE), STEP_RELEASE);
}

static void committed__destination_gone_for_good__source_goes_on(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	assert_true(refuses(SIDE_SOURCE));
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	assert_true(refuses(SIDE_DESTINATION)); /* it is the owner already */
	simple(MIGRATION_EVENT_RESOLVE, SIDE_SOURCE);
	assert_state(MIGRATION_ROLLING_BACK);
	assert_int_equal(core.cause, ERR_HOST_LOST);
	done(SIDE_SOURCE, STEP_ABORT);
	assert_state(MIGRATION_FAILED);
}

static void committed__destination_ran_it__source_is_refused(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	struct verdict_facts facts = core.facts;
	facts.activating = facts.running = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	assert_true(refuses(SIDE_SOURCE)); /* the source is letting go */
}

/* The destination began to run the VM and was booted again: lost, with the VM suspended on the source. */
static void lost(void)
{
	reach_state(MIGRATION_COMMITTED);
	struct verdict_facts facts = core.facts;
	facts.activating = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	simple(MIGRATION_EVENT_REBOOTED, SIDE_DESTINATION);
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts); /* it has not renounced */
	assert_state(MIGRATION_LOST);
	assert_int_equal(migration_command(&core, SIDE_SOURCE), STEP_NONE);
}

static void lost__resolved_for_the_source__it_runs_again(void **state)
{
	(void)state;
	lost();
	simple(MIGRATION_EVENT_RESOLVE, SIDE_SOURCE); /* the reboot was the fence */
	assert_state(MIGRATION_ROLLING_BACK);
	assert_int_equal(migration_command(&core, SIDE_SOURCE), STEP_ABORT);
	both_done(STEP_ABORT);
	assert_state(MIGRATION_FAILED);
	assert_string_equal(migration_authority(&core), "source");
	assert_true(core.side[0].forget_owed && core.side[1].forget_owed);
}

static void lost__resolved_for_the_destination__source_lets_go(void **state)
{
	(void)state;
	lost();
	simple(MIGRATION_EVENT_RESOLVE, SIDE_DESTINATION);
	assert_state(MIGRATION_LOST); /* to be booted from the destination's disks */
	assert_int_equal(migration_command(&core, SIDE_SOURCE), STEP_RELEASE);
	done(SIDE_SOURCE, STEP_RELEASE);
	assert_int_equal(migration_command(&core, SIDE_SOURCE), STEP_FORGET);
}

static void final__host_was_away__is_told_the_facts_with_the_command(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	report(SIDE_DESTINATION, PHASE_SWITCHING, votes(VOTE_NONE, VOTE_COMMIT));
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	report(SIDE_SOURCE, PHASE_ROLLING_BACK, votes(VOTE_ABORT, VOTE_NONE));
	done(SIDE_SOURCE, STEP_ABORT);
	assert_state(MIGRATION_FAILED);
	/* With its own COMMIT it may not renounce before it hears of an ABORT (V7). */
	simple(MIGRATION_EVENT_HOST_UP, SIDE_DESTINATION);
	assert_true(has(MIGRATION_ACTION_TELL, SIDE_DESTINATION, 0));
	assert_true(has(MIGRATION_ACTION_SEND, SIDE_DESTINATION, STEP_ABORT));
	done(SIDE_DESTINATION, STEP_ABORT);
	simple(MIGRATION_EVENT_RETRY, SIDE_DESTINATION);
	assert_false(has(MIGRATION_ACTION_TELL, SIDE_DESTINATION, 0)); /* nothing is owed any more */
}

/* ---- a host that is written off ---- */

static void written_off__destination_of_a_copy__rollback_does_not_wait(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	assert_non_null(migration_write_off_refusal(&core, SIDE_DESTINATION)); /* it is heard of */
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	simple(MIGRATION_EVENT_WRITTEN_OFF, SIDE_DESTINATION);
	assert_state(MIGRATION_ROLLING_BACK);
	assert_int_equal(migration_command(&core, SIDE_DESTINATION), STEP_NONE);
	done(SIDE_SOURCE, STEP_ABORT);
	assert_state(MIGRATION_FAILED);
	assert_false(core.side[1].cleanup_owed || core.side[1].forget_owed);
	assert_true(core.side[0].forget_owed);
}

static void written_off__source_of_a_copy__the_vm_is_lost(void **state)
{
	(void)state;
	reach_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_SOURCE);
	simple(MIGRATION_EVENT_WRITTEN_OFF, SIDE_SOURCE);
	done(SIDE_DESTINATION, STEP_ABORT);
	assert_state(MIGRATION_LOST);
	assert_false(core.side[0].cleanup_owed || core.side[0].forget_owed);
}

static void written_off__in_a_switchover__to_be_resolved_first(void **state)
{
	(void)state;
	reach_state(MIGRATION_SWITCHING);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	assert_non_null(migration_write_off_refusal(&core, SIDE_DESTINATION));
	simple(MIGRATION_EVENT_WRITTEN_OFF, SIDE_DESTINATION);
	assert_state(MIGRATION_SWITCHING);
	assert_false(core.side[1].written_off);
}

static void written_off__owner_after_the_verdict__lost(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	simple(MIGRATION_EVENT_WRITTEN_OFF, SIDE_DESTINATION);
	assert_state(MIGRATION_LOST);
	assert_true(core.side[0].cleanup_owed); /* the suspended VM */
	core.facts.activating = true;
	assert_non_null(migration_resolve_refusal(&core, SIDE_DESTINATION)); /* there is nothing to own it */
	core.facts.activating = false;
	simple(MIGRATION_EVENT_RESOLVE, SIDE_SOURCE);
	assert_state(MIGRATION_ROLLING_BACK);
}

static void written_off__source_after_the_verdict__done_without_it(void **state)
{
	(void)state;
	reach_state(MIGRATION_COMMITTED);
	struct verdict_facts facts = core.facts;
	facts.activating = facts.running = true;
	report(SIDE_DESTINATION, PHASE_COMMITTED, facts);
	done(SIDE_DESTINATION, STEP_RELEASE);
	assert_state(MIGRATION_COMMITTED);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_SOURCE);
	simple(MIGRATION_EVENT_WRITTEN_OFF, SIDE_SOURCE);
	assert_state(MIGRATION_DONE);
	assert_false(core.side[0].cleanup_owed || core.side[0].forget_owed);
}

static void written_off__queued__failed(void **state)
{
	(void)state;
	reach_state(MIGRATION_QUEUED);
	simple(MIGRATION_EVENT_WRITTEN_OFF, SIDE_SOURCE);
	assert_state(MIGRATION_FAILED);
	assert_int_equal(core.cause, ERR_HOST_LOST);
}

static void written_off__heard_of_again__is_asked_again(void **state)
{
	(void)state;
	struct migration_packed packed;
	struct migration_core unpacked;
	reach_state(MIGRATION_COPYING);
	simple(MIGRATION_EVENT_SUSPECTED, SIDE_DESTINATION);
	simple(MIGRATION_EVENT_WRITTEN_OFF, SIDE_DESTINATION);
	migration_pack(&core, &packed);
	assert_int_equal(migration_unpack(&packed, &unpacked), 0);
	assert_true(unpacked.side[1].written_off && !unpacked.side[0].written_off);
	simple(MIGRATION_EVENT_HOST_UP, SIDE_DESTINATION);
	assert_false(core.side[1].written_off);
	assert_int_equal(migration_command(&core, SIDE_DESTINATION), STEP_ABORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(resolve__nothing_in_doubt__refused),
		TEST(resolve__other_host_is_heard__refused),
		TEST(resolve__for_the_source__rolls_back_and_tells_the_facts),
		TEST(resolve__for_the_destination__committed),
		TEST(committed__destination_gone_for_good__source_goes_on),
		TEST(committed__destination_ran_it__source_is_refused),
		TEST(lost__resolved_for_the_source__it_runs_again),
		TEST(lost__resolved_for_the_destination__source_lets_go),
		TEST(final__host_was_away__is_told_the_facts_with_the_command),
		TEST(written_off__destination_of_a_copy__rollback_does_not_wait),
		TEST(written_off__source_of_a_copy__the_vm_is_lost),
		TEST(written_off__in_a_switchover__to_be_resolved_first),
		TEST(written_off__owner_after_the_verdict__lost),
		TEST(written_off__source_after_the_verdict__done_without_it),
		TEST(written_off__queued__failed),
		TEST(written_off__heard_of_again__is_asked_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
