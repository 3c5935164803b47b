/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coordinator where its disk, its clocks or a host's journal fail: what it says, and what it does not do. */
#include "tests/unit/api_rig.h"

#include <sqlite3.h>

#include "tests/faults/fault_vfs.h"

static const struct fault_plan full = { .ops = FAULT_WRITE, .manner = FAULT_FROM, .code = SQLITE_FULL, .n = 1 };

static uint64_t submitted(void)
{
	struct msg_request request = a_migrate("web", "b2");
	return id_of(ask(&operator, & request));
}

static void outcome_is_unknown(void)
{
	assert_int_equal(reply.code, ERR_UNREACHABLE);
	assert_int_equal(reply.exit_code, 6);
	assert_non_null(strstr(reply.text, "outcome is unknown"));
	assert_non_null(strstr(reply.text, "coordinator.db"));
	assert_non_null(strstr(reply.text, "make room"));
	assert_null(json_object_get(doc, "state"));
	assert_true(coordinator_failed(c));
}

static enum migration_state state_on_record(uint64_t id)
{
	struct store_migration rec;
	assert_int_equal(store_migration_get(c->store, id, &rec, NULL), 1);
	enum migration_state state = rec.core.state;
	store_migration_free(&rec);
	return state;
}

static void cancel__cannot_be_recorded__nobody_is_told_that_it_is(void **state)
{
	(void)state;
	struct msg_request cancel = a_request(VERB_CANCEL);
	uint64_t id = submitted();
	snprintf(cancel.id, sizeof(cancel.id), "%llu", (unsigned long long)id);
	fault_arm(&full);
	ask(&operator, & cancel);
	assert_true(fault_disarm());
	outcome_is_unknown();
	assert_int_equal(state_on_record(id), MIGRATION_CHECKING);
}

static void submit__cannot_be_recorded__nobody_is_told_that_it_is(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	fault_arm(&full);
	refused(&request, ERR_NO_SPACE, 8);
	assert_true(fault_disarm());
	assert_false(coordinator_failed(c)); /* nothing is half done: it goes on */
	assert_int_equal(submitted(), 1);
}

static void answer__cannot_be_recorded__next_step_is_not_asked_for(void **state)
{
	(void)state;
	uint64_t id = submitted();
	fault_arm(&full);
	both_answer(id, STEP_CHECK);
	assert_true(fault_disarm());
	assert_true(coordinator_failed(c));
	assert_int_equal(c->failure.code, ERR_NO_SPACE);
	assert_int_equal(state_on_record(id), MIGRATION_CHECKING);
}

static void records__damaged_under_a_read__coordinator_ends(void **state)
{
	(void)state;
	const struct fault_plan damaged = { .ops = FAULT_READ, .manner = FAULT_FROM, .code = SQLITE_CORRUPT, .n = 1 };
	struct msg_request request = a_request(VERB_EVENTS);
	sqlite3 *other = NULL;
	char path[700];
	submitted();
	/* Somebody else has written: what is in the cache counts no more. */
	snprintf(path, sizeof(path), "%s/coordinator.db", paths.lib);
	assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "CREATE TABLE other (x)", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(other), SQLITE_OK);
	fault_arm(&damaged);
	ask(&operator, & request);
	assert_true(fault_disarm());
	assert_int_equal(reply.code, ERR_CORRUPT);
	coordinator_tick(c);
	assert_true(coordinator_failed(c));
	assert_int_equal(c->failure.code, ERR_CORRUPT);
}

/* ---- a host's journal ---- */

static void beat(const char *host, const struct err *trouble)
{
	struct msg msg = { .kind = MSG_HEARTBEAT };
	if (trouble)
		msg.u.heartbeat.trouble = *trouble;
	from_agent(host, &msg);
}

static void host__cannot_journal__counts_as_not_there_and_is_named(void **state)
{
	(void)state;
	const struct err trouble = { .code = ERR_NO_SPACE, .text = "/lib/journal.db: full; make room" };
	struct msg_request status = a_request(VERB_STATUS), show = a_request(VERB_HOST_SHOW);
	snprintf(show.host, sizeof(show.host), "b2");
	int64_t suspect_ms = (int64_t)c->settings.heartbeat_ms * c->settings.suspect_after;
	for (int64_t ms = 0; ms <= suspect_ms; ms += 1000) {
		test_now_ms += 1000;
		beat("a1", NULL);
		beat("b2", &trouble);
		coordinator_tick(c);
	}
	assert_true(host_is_up(host_find(c, "a1")));
	assert_false(host_is_up(host_find(c, "b2")));
	ask(&operator, & status);
	assert_string_equal(text_of(doc, "health"), "degraded");
	json_t *first = json_array_get(json_object_get(doc, "troubles"), 0);
	assert_string_equal(text_of(first, "host"), "b2");
	assert_string_equal(text_of(first, "message"), trouble.text);
	assert_string_equal(text_of(ask(&operator, & show), "trouble"), trouble.text);
	beat("b2", NULL);
	assert_true(host_is_up(host_find(c, "b2")));
	assert_string_equal(text_of(ask(&operator, & status), "health"), "ok");
	assert_true(json_is_null(json_object_get(ask(&operator, & show), "trouble")));
}

/* ---- clocks ---- */

static void copying(uint64_t id)
{
	both_answer(id, STEP_CHECK);
	both_answer(id, STEP_PREPARE);
	both_answer(id, STEP_COPY);
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_COPYING);
}

static void slept__for_an_hour__nobody_is_suspected_for_it(void **state)
{
	(void)state;
	uint64_t id = submitted();
	coordinator_tick(c);
	test_now_ms += 3600 * 1000;
	coordinator_tick(c);
	assert_true(host_is_up(host_find(c, "a1")) && host_is_up(host_find(c, "b2")));
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_CHECKING); /* its deadline passed in our sleep */
	/* Who is not heard of from now on is suspected, and who is late is late. */
	for (int64_t ms = 0; ms <= (int64_t)c->settings.heartbeat_ms * c->settings.suspect_after + START_GRACE_MS;
	     ms += 1000) {
		test_now_ms += 1000;
		coordinator_tick(c);
	}
	assert_false(host_is_up(host_find(c, "a1")));
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_ROLLING_BACK);
}

static void wall_clock__set_forth_and_back__nothing_ends_by_it(void **state)
{
	(void)state;
	static const int64_t jumps_ms[] = { 10ll * 365 * 86400 * 1000, -10ll * 365 * 86400 * 1000 };
	uint64_t id = submitted();
	copying(id);
	for (size_t i = 0; i < 2; i++) {
		test_wall_jump_ms = jumps_ms[i];
		for (int tick = 0; tick < 10; tick++) {
			test_now_ms += 1000;
			beat("a1", NULL);
			beat("b2", NULL);
			coordinator_tick(c);
		}
		assert_true(host_is_up(host_find(c, "a1")) && host_is_up(host_find(c, "b2")));
		assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_COPYING);
	}
}

static void wall_clock__set_forth_before_a_restart__takes_no_more_than_half_of_a_deadline(void **state)
{
	(void)state;
	struct err err;
	struct msg_request request = a_migrate("web", "b2");
	request.timeout_s = 3600;
	uint64_t id = id_of(ask(&operator, & request));
	copying(id);
	struct settings settings = c->settings;
	coordinator_free(c);
	test_wall_jump_ms = 365ll * 86400 * 1000;
	if (coordinator_new(&c, loop, &paths, &settings, &test_clock, &err) != 0)
		fail_msg("%s", err.text);
	struct run *run = run_find(c, id);
	assert_non_null(run);
	assert_int_equal(run->rec.core.state, MIGRATION_COPYING);
	assert_int_equal(run->deadline_ms, test_now_ms + 1800 * 1000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(cancel__cannot_be_recorded__nobody_is_told_that_it_is),
		TEST(submit__cannot_be_recorded__nobody_is_told_that_it_is),
		TEST(answer__cannot_be_recorded__next_step_is_not_asked_for),
		TEST(records__damaged_under_a_read__coordinator_ends),
		TEST(host__cannot_journal__counts_as_not_there_and_is_named),
		TEST(slept__for_an_hour__nobody_is_suspected_for_it),
		TEST(wall_clock__set_forth_and_back__nothing_ends_by_it),
		TEST(wall_clock__set_forth_before_a_restart__takes_no_more_than_half_of_a_deadline),
	};
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
