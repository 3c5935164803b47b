/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/core/leg_rules.h"

/* A source that has voted COMMIT, and whose host was booted again with the VM in it. */
static struct leg_view gone_source(void)
{
	struct leg_view view = { .side = SIDE_SOURCE, .recover = true, .planned = true };
	view.facts.suspended = view.facts.stream_ended = true;
	view.facts.vote[PARTY_SOURCE] = view.facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	view.local.granted = view.local.failed = view.local.image_gone = true;
	return view;
}

static void clean__image_gone_and_destination_may_run_it__waits(void **state)
{
	(void)state;
	struct leg_view view = gone_source();
	assert_false(leg_clean_due(&view));
	view.facts.activating = true;
	assert_false(leg_clean_due(&view));
}

/* The unpause failed there for certain, and here nothing is left to resume: the VM is lost, and nobody waits for it. */
static void clean__image_gone_and_destination_renounced__is_due(void **state)
{
	(void)state;
	struct leg_view view = gone_source();
	view.facts.activating = view.facts.renounced = true;
	assert_true(leg_clean_due(&view));
	assert_false(leg_vm_due(&view));
	view.settled = true;
	assert_false(leg_clean_due(&view));
	assert_int_equal(leg_reply(&view, STEP_ABORT), LEG_DONE);
}

static void clean__image_there_and_destination_renounced__only_once_it_runs_again(void **state)
{
	(void)state;
	struct leg_view view = gone_source();
	view.local.image_gone = false;
	view.facts.renounced = true;
	assert_false(leg_clean_due(&view));
	assert_true(leg_vm_due(&view));
	view.facts.resumed = true;
	assert_true(leg_clean_due(&view));
}

/* A destination that had begun to run the VM, and was booted again before it could say so. */
static void release__memory_gone_with_a_reboot_and_ruled_to_be_the_owner__is_due(void **state)
{
	(void)state;
	struct leg_view view = gone_source();
	view.side = SIDE_DESTINATION;
	assert_int_equal(leg_reply(&view, STEP_RELEASE), LEG_WAIT); /* it may have never begun */
	view.facts.activating = true;
	view.facts.ruling = VOTE_COMMIT;
	assert_int_equal(leg_reply(&view, STEP_RELEASE), LEG_DO);
	assert_false(leg_vm_due(&view));
	view.local.image_gone = false; /* it is still to be unpaused */
	assert_int_equal(leg_reply(&view, STEP_RELEASE), LEG_WAIT);
	view.local.image_gone = true;
	view.facts.ruling = VOTE_ABORT;
	assert_int_equal(leg_reply(&view, STEP_RELEASE), LEG_WAIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clean__image_gone_and_destination_may_run_it__waits),
		cmocka_unit_test(clean__image_gone_and_destination_renounced__is_due),
		cmocka_unit_test(clean__image_there_and_destination_renounced__only_once_it_runs_again),
		cmocka_unit_test(release__memory_gone_with_a_reboot_and_ruled_to_be_the_owner__is_due),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
