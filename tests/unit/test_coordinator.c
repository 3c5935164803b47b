/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coordinator as a process of its own, with agents of cardboard over real CURVE connections. */
#include "tests/unit/coordinator_rig.h"

/* ---- tests ---- */

static const char *text_at(json_t *doc, const char *object, const char *key)
{
	const char *text = json_string_value(json_object_get(json_object_get(doc, object), key));
	return text ? text : "";
}

static void migration__all_goes_well__is_done_and_forgotten(void **state)
{
	(void)state;
	uint64_t id = migrate(false);
	assert_int_equal(cli.code, ERR_NONE);
	assert_true(id > 0);
	wait_state(id, "done");
	json_t *doc = ask_id(VERB_SHOW, id);
	assert_string_equal(json_string_value(json_object_get(doc, "authority")), "destination");
	assert_string_equal(text_at(doc, "votes", "source"), "commit");
	assert_string_equal(text_at(doc, "votes", "destination"), "commit");
	assert_true(json_is_null(json_object_get(doc, "cause")));
	assert_int_equal(json_integer_value(json_object_get(doc, "downtime_ms")), 120);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(doc, "progress"), "bytes_done")), 900);
	assert_int_equal(json_array_size(json_object_get(doc, "leftovers")), 0);
	assert_true(run_until(both_have_forgotten));
	for (int i = 0; i < 2; i++) {
		for (int step = STEP_CHECK; step <= STEP_SWITCH; step++)
			assert_true(agents[i].seen[step] > 0);
		assert_int_equal(agents[i].seen[STEP_ABORT], 0);
		assert_true(agents[i].seen[STEP_RELEASE] > 0);
	}
	json_t *events = json_object_get(ask_id(VERB_EVENTS, id), "events"), *event;
	size_t at;
	bool committed = false;
	json_array_foreach(events, at, event) committed |=
		json_object_get(event, "state") &&
		strcmp(json_string_value(json_object_get(event, "state")), "committed") == 0;
	assert_true(committed);
}

static void preparing__destination_refuses__fails_with_its_reason(void **state)
{
	(void)state;
	destination->refuse = STEP_PREPARE;
	uint64_t id = migrate(false);
	wait_state(id, "failed");
	json_t *doc = ask_id(VERB_SHOW, id);
	assert_string_equal(text_at(doc, "cause", "code"), "no-space");
	assert_string_equal(text_at(doc, "cause", "host"), "b2");
	assert_string_equal(text_at(doc, "cause", "step"), "prepare");
	assert_string_equal(text_at(doc, "cause", "message"), "no space in SR local");
	assert_string_equal(json_string_value(json_object_get(doc, "authority")), "source");
	assert_int_equal(source->seen[STEP_COPY], 0);
	assert_true(run_until(both_have_forgotten));
	/* and the VM can be migrated again */
	destination->refuse = STEP_NONE;
	id = migrate(false);
	wait_state(id, "done");
}

static void copying__cancelled__both_are_told_and_it_ends_cancelled(void **state)
{
	(void)state;
	source->not_ready = true;
	uint64_t id = migrate(false);
	wait_state(id, "copying");
	json_t *doc = ask_id(VERB_CANCEL, id);
	assert_int_equal(cli.code, ERR_NONE);
	assert_int_equal(cli.exit_code, 0);
	assert_string_equal(json_string_value(json_object_get(doc, "cancel")), "cancelled");
	wait_state(id, "cancelled");
	assert_int_equal(source->abort_reason, ERR_CANCELLED);
	assert_int_equal(destination->abort_reason, ERR_CANCELLED);
	(void)ask_id(VERB_CANCEL, id); /* twice is the same as once */
	assert_int_equal(cli.code, ERR_NONE);
	assert_int_equal(agents[0].seen[STEP_SWITCH], 0);
}

static bool source_was_told_again(void)
{
	return source->seen[STEP_COPY] > 2;
}

static void copying__answer_lost__is_asked_again(void **state)
{
	(void)state;
	source->mute = STEP_COPY;
	uint64_t id = migrate(false);
	assert_true(run_until(source_was_told_again));
	source->mute = STEP_NONE;
	wait_state(id, "done");
}

static bool source_has_session(void)
{
	return source->has_session && source->session.phase == PHASE_COPYING;
}

static void copying__coordinator_killed__goes_on_with_a_higher_epoch(void **state)
{
	(void)state;
	source->not_ready = true;
	uint64_t id = migrate(false);
	wait_state(id, "copying");
	assert_true(run_until(source_has_session));
	uint64_t before = source->epoch;
	order('K');
	for (int i = 0; i < 2; i++) {
		agents[i].welcome = false;
		agents[i].beats = 0;
	}
	cli.up = false;
	order('S');
	assert_true(run_until(cli_is_up));
	assert_true(run_until(both_are_welcome));
	assert_true(source->epoch > before);
	assert_string_equal(state_of(id), "copying");
	source->session.phase = PHASE_READY;
	agent_report(source);
	wait_state(id, "done");
	assert_int_equal(source->seen[STEP_ABORT], 0);
}

static void copying__destination_silent_for_good__rolls_back_and_leaves_a_note(void **state)
{
	(void)state;
	source->not_ready = true;
	uint64_t id = migrate(false);
	wait_state(id, "copying");
	destination->deaf = true;
	wait_state(id, "failed");
	json_t *doc = ask_id(VERB_SHOW, id);
	assert_string_equal(text_at(doc, "cause", "code"), "host-down");
	assert_int_equal(json_array_size(json_object_get(doc, "leftovers")), 1);
	/* when it is back, it is told to clean up and to forget */
	destination->deaf = false;
	assert_true(run_until(both_have_forgotten));
	assert_int_equal(json_array_size(json_object_get(ask_id(VERB_SHOW, id), "leftovers")), 0);
}

static void dry_run__each_check_is_told_and_nothing_recorded(void **state)
{
	(void)state;
	(void)migrate(true);
	assert_int_equal(cli.code, ERR_NONE);
	json_t *checks = json_object_get(cli.doc, "checks");
	assert_int_equal(json_array_size(checks), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(checks, 1), "host")), "b2");
	assert_true(json_is_true(json_object_get(json_array_get(checks, 1), "ok")));
	destination->refuse = STEP_CHECK;
	(void)migrate(true);
	assert_int_equal(cli.code, ERR_NO_MEMORY);
	assert_int_equal(cli.exit_code, 8);
	assert_true(json_is_false(json_object_get(json_array_get(json_object_get(cli.doc, "checks"), 1), "ok")));
	struct msg_request request = { .verb = VERB_LIST, .all = 1, .keep_source_s = -1, .keep_copy_s = -1 };
	assert_int_equal(json_array_size(json_object_get(ask(&request), "migrations")), 0);
	assert_int_equal(destination->seen[STEP_CHECK], 0);
}

static void hello__for_another_host__is_refused(void **state)
{
	(void)state;
	/* the key of a1 says that it is b2: from then on nothing that it says counts, and b2 stays b2 */
	snprintf(source->name, sizeof(source->name), "b2");
	agent_hello(source, true);
	snprintf(source->name, sizeof(source->name), "a1");
	struct msg_request request = { .verb = VERB_HOST_SHOW, .host = "b2", .keep_source_s = -1, .keep_copy_s = -1 };
	json_t *doc = ask(&request);
	assert_string_equal(json_string_value(json_object_get(doc, "key")), "b2");
	assert_string_equal(json_string_value(json_object_get(doc, "boot_id")), "boot-b2");
	agent_hello(source, true);
}

/* ---- leftovers ---- */

static void holds(struct agent *agent, enum holding_state state, uint64_t migration)
{
	struct msg_holding *holding = &agent->holdings[agent->holding_count++];
	*holding = (struct msg_holding) { .kind = HOLDING_DISK, .state = state, .migration = migration };
	snprintf(holding->name, sizeof(holding->name), "xvda");
	snprintf(holding->path, sizeof(holding->path), "/srv/x.xvda.%llu.raw", (unsigned long long)migration);
}

static enum over told_over(const struct agent *agent, uint64_t migration)
{
	for (uint32_t i = 0; i < agent->survey.over_count; i++)
		if (agent->survey.over[i].migration == migration)
			return agent->survey.over[i].over;
	return (enum over)0;
}

static const json_t *item_of(const json_t *doc, const char *host, uint64_t migration)
{
	const json_t *item;
	size_t at;
	json_array_foreach(json_object_get(doc, "leftovers"), at, item)
	{
		if ((uint64_t)json_integer_value(json_object_get(item, "migration")) == migration &&
		    strcmp(json_string_value(json_object_get(item, "host")), host) == 0)
			return item;
	}
	fail_msg("nothing of migration %llu on %s", (unsigned long long)migration, host);
	return NULL;
}

static void leftovers__one_host_is_silent__named_and_the_rest_told(void **state)
{
	(void)state;
	struct msg_request request = { .verb = VERB_LEFTOVERS };
	holds(source, HOLDING_UNCLAIMED, 999);
	holds(source, HOLDING_KEPT, 998);
	source->survey_mute = 1; /* the first question is lost on the way */
	destination->deaf = true;
	json_t *doc = ask(&request);
	assert_int_equal(cli.code, ERR_NONE);
	assert_int_equal(cli.exit_code, 1);
	json_t *silent = json_object_get(doc, "hosts_silent");
	assert_int_equal(json_array_size(silent), 1);
	assert_string_equal(json_string_value(json_array_get(silent, 0)), "b2");
	assert_int_equal(json_array_size(json_object_get(doc, "leftovers")), 2);
	const json_t *item = item_of(doc, "a1", 999);
	assert_true(json_is_false(json_object_get(item, "claimed")));
	assert_true(json_is_null(json_object_get(item, "swept")));
	assert_string_equal(json_string_value(json_object_get(item, "path")), "/srv/x.xvda.999.raw");
	assert_true(json_is_true(json_object_get(item_of(doc, "a1", 998), "claimed")));
	assert_true(source->surveys >= 2); /* asked again, and known to be the same question */
	assert_int_equal(source->survey_sequences[0], source->survey_sequences[1]);
	assert_int_equal(source->survey.sweep, 0);
	/* what was not heard of is asked when it is there again */
	destination->deaf = false;
	snprintf(request.host, sizeof(request.host), "b2");
	for (int64_t until_ms = clock_ms(&clock_real) + PATIENCE_MS; ask(&request) && cli.exit_code != 0;)
		assert_true(clock_ms(&clock_real) < until_ms);
	assert_int_equal(json_array_size(json_object_get(cli.doc, "leftovers")), 0);
}

static void leftovers__sweep__hosts_are_told_what_is_over_and_it_is_recorded(void **state)
{
	(void)state;
	struct msg_request request = { .verb = VERB_LEFTOVERS, .sweep = 1 };
	destination->refuse = STEP_PREPARE;
	uint64_t failed = migrate(false);
	wait_state(failed, "failed");
	assert_true(run_until(both_have_forgotten));
	destination->refuse = STEP_NONE;
	source->not_ready = true;
	uint64_t running = migrate(false);
	wait_state(running, "copying");
	holds(destination, HOLDING_UNCLAIMED, failed);
	holds(destination, HOLDING_UNCLAIMED, 999);
	holds(destination, HOLDING_UNCLAIMED, running);
	holds(destination, HOLDING_KEPT, 998);
	holds(source, HOLDING_LEFTOVER, failed);
	json_t *doc = ask(&request);
	assert_int_equal(cli.exit_code, 1); /* one could not be taken away */
	assert_int_equal(destination->survey.sweep, 1);
	assert_int_equal(destination->survey.over_count, 2);
	assert_int_equal(told_over(destination, failed), OVER_ABORTED);
	assert_int_equal(told_over(destination, 999), OVER_UNKNOWN);
	assert_int_equal(told_over(source, failed), OVER_OTHER); /* nothing was copied to there */
	assert_true(destination->surveys >= 2);
	assert_true(json_is_true(json_object_get(item_of(doc, "b2", failed), "swept")));
	assert_true(json_is_true(json_object_get(item_of(doc, "b2", 999), "swept")));
	assert_true(json_is_false(json_object_get(item_of(doc, "b2", running), "swept")));
	assert_true(json_is_null(json_object_get(item_of(doc, "b2", 998), "swept")));
	assert_true(json_is_true(json_object_get(item_of(doc, "a1", failed), "claimed")));
	const struct msg_request all = { .verb = VERB_EVENTS };
	json_t *events = json_object_get(ask(&all), "events"), *event;
	size_t at;
	unsigned swept[2] = { 0, 0 };
	json_array_foreach(events, at, event)
	{
		if (strcmp(json_string_value(json_object_get(event, "kind")), "swept") != 0)
			continue;
		bool there = strcmp(json_string_value(json_object_get(event, "host")), "b2") == 0;
		swept[there] += (unsigned)json_array_size(json_object_get(json_object_get(event, "details"), "swept"));
	}
	assert_int_equal(swept[0], 1);
	assert_int_equal(swept[1], 2);
	assert_string_equal(state_of(running), "copying");
	ask_id(VERB_CANCEL, running);
	wait_state(running, "cancelled");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(migration__all_goes_well__is_done_and_forgotten, begin, end),
		cmocka_unit_test_setup_teardown(preparing__destination_refuses__fails_with_its_reason, begin, end),
		cmocka_unit_test_setup_teardown(copying__cancelled__both_are_told_and_it_ends_cancelled, begin, end),
		cmocka_unit_test_setup_teardown(copying__answer_lost__is_asked_again, begin, end),
		cmocka_unit_test_setup_teardown(copying__coordinator_killed__goes_on_with_a_higher_epoch, begin, end),
		cmocka_unit_test_setup_teardown(copying__destination_silent_for_good__rolls_back_and_leaves_a_note,
		                                begin, end),
		cmocka_unit_test_setup_teardown(dry_run__each_check_is_told_and_nothing_recorded, begin, end),
		cmocka_unit_test_setup_teardown(hello__for_another_host__is_refused, begin, end),
		cmocka_unit_test_setup_teardown(leftovers__one_host_is_silent__named_and_the_rest_told, begin, end),
		cmocka_unit_test_setup_teardown(leftovers__sweep__hosts_are_told_what_is_over_and_it_is_recorded, begin,
		                                end),
	};
	return cmocka_run_group_tests(tests, begin_all, end_all);
}
