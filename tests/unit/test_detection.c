/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Failure detection: how often hosts say that they are there, suspicion, and what a host found again must tell first.
 */
#include "tests/unit/api_rig.h"

static enum migration_state state_of(uint64_t id)
{
	return run_find(c, id)->rec.core.state;
}

static struct msg_heartbeat a_beat(struct msg_session *session)
{
	return (struct msg_heartbeat) { .session_count = session ? 1 : 0, .sessions = session };
}

static void hear(const char *host, struct msg_heartbeat beat)
{
	struct msg msg = { .kind = MSG_HEARTBEAT, .u.heartbeat = beat };
	from_agent(host, &msg);
}

static void found_again__before_it_told_its_sessions__gets_no_new_work(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	host_hello("b2", "west", "boot1");
	uint64_t id = id_of(ask(&operator, & request));
	assert_int_equal(state_of(id), MIGRATION_QUEUED);
	runs_admit(c);
	assert_int_equal(state_of(id), MIGRATION_QUEUED);
	host_heartbeat("b2");
	runs_admit(c);
	assert_int_equal(state_of(id), MIGRATION_CHECKING);
}

static void found_again__with_leftovers__is_on_record(void **state)
{
	(void)state;
	struct msg_request show = a_request(VERB_HOST_SHOW), events = a_request(VERB_EVENTS);
	struct msg_heartbeat beat = a_beat(NULL);
	beat.leftovers = 3;
	hear("b2", beat);
	hear("b2", beat); /* said once */
	snprintf(show.host, sizeof(show.host), "b2");
	assert_int_equal(json_integer_value(json_object_get(ask(&viewer, &show), "leftovers")), 3);
	json_t *list = json_object_get(ask(&viewer, &events), "events"), *event;
	size_t at, said = 0;
	json_array_foreach(list, at, event) said += strcmp(text_of(event, "kind"), "leftovers") == 0;
	assert_int_equal(said, 1);
}

static void found_again__its_votes_are_taken_from_the_first_heartbeat(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	uint64_t id = id_of(ask(&operator, & request));
	for (int step = STEP_CHECK; step <= STEP_COPY; step++)
		both_answer(id, (enum step)step);
	struct msg_session session = { .migration = id, .generation = 1, .side = SIDE_SOURCE, .phase = PHASE_READY };
	hear("a1", a_beat(&session));
	assert_int_equal(state_of(id), MIGRATION_SWITCHING);
	host_hello("a1", "east", "boot1");
	session.phase = PHASE_COMMITTED;
	session.facts = (struct verdict_facts) { .suspended = true, .stream_ended = true };
	session.facts.vote[PARTY_SOURCE] = session.facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	hear("a1", a_beat(&session));
	assert_int_equal(state_of(id), MIGRATION_COMMITTED);
}

static void wrong_suspicion__in_a_switchover__costs_a_rollback_at_most(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	uint64_t id = id_of(ask(&operator, & request));
	for (int step = STEP_CHECK; step <= STEP_COPY; step++)
		both_answer(id, (enum step)step);
	struct msg_session source = { .migration = id, .generation = 1, .side = SIDE_SOURCE, .phase = PHASE_READY };
	hear("a1", a_beat(&source));
	for (int i = 0; i < 8; i++) { /* b2 is alive and well, and nothing of it comes through */
		test_now_ms += 1000;
		hear("a1", a_beat(NULL));
		hosts_tick(c, test_now_ms);
	}
	assert_int_equal(host_find(c, "b2")->reach, REACH_SUSPECTED);
	assert_int_equal(migration_command(&run_find(c, id)->rec.core, SIDE_SOURCE), STEP_ABORT);
	/* Meanwhile both hosts have finished by themselves: the votes are the truth, not the suspicion. */
	source.phase = PHASE_COMMITTED;
	source.facts = (struct verdict_facts) { .suspended = true, .stream_ended = true };
	source.facts.vote[PARTY_SOURCE] = source.facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	source.facts.activating = source.facts.running = true;
	hear("a1", a_beat(&source));
	assert_int_equal(state_of(id), MIGRATION_COMMITTED);
	assert_int_equal(run_find(c, id)->rec.core.facts.vote[PARTY_COORDINATOR], VOTE_NONE);
}

static void period__few_hosts__as_configured_and_suspected_after_so_many(void **state)
{
	(void)state;
	assert_int_equal(hosts_heartbeat_ms(c), 1000);
	int64_t from_ms = test_now_ms;
	while (host_find(c, "b2")->reach != REACH_SUSPECTED) {
		test_now_ms += 100;
		host_heartbeat("a1");
		hosts_tick(c, test_now_ms);
		assert_true(test_now_ms - from_ms <= 5000);
	}
	assert_int_equal(test_now_ms - from_ms, 5000);
	assert_int_equal(host_find(c, "a1")->reach, REACH_UP);
}

static void period__many_hosts__grows_and_so_does_patience(void **state)
{
	(void)state;
	char name[16];
	for (int i = 0; i < 1498; i++) {
		snprintf(name, sizeof(name), "h%d", i);
		host_hello(name, "east", "boot1");
	}
	assert_int_equal(c->host_count, 1500);
	assert_int_equal(hosts_heartbeat_ms(c), 3000);
	assert_int_equal(host_find(c, "b2")->heartbeat_ms, 1000); /* told when there were two */
	host_heartbeat("b2");
	assert_int_equal(host_find(c, "b2")->heartbeat_ms, 3000);
	c->settings.heartbeat_rate = 1;
	assert_int_equal(hosts_heartbeat_ms(c), HEARTBEAT_MAX_MS);
	c->settings.heartbeat_rate = 500;
	test_now_ms += 14000;
	hosts_tick(c, test_now_ms);
	assert_int_equal(host_find(c, "b2")->reach, REACH_UP);
	test_now_ms += 1000;
	hosts_tick(c, test_now_ms);
	assert_int_equal(host_find(c, "b2")->reach, REACH_SUSPECTED);
	/* Fewer hosts again: whether b2 has heard of it nobody knows. */
	host_heartbeat("b2");
	c->settings.heartbeat_rate = 5000;
	host_heartbeat("b2");
	assert_int_equal(hosts_heartbeat_ms(c), 1000);
	assert_int_equal(host_find(c, "b2")->heartbeat_ms, 3000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(found_again__before_it_told_its_sessions__gets_no_new_work),
		TEST(found_again__with_leftovers__is_on_record),
		TEST(found_again__its_votes_are_taken_from_the_first_heartbeat),
		TEST(wrong_suspicion__in_a_switchover__costs_a_rollback_at_most),
		TEST(period__few_hosts__as_configured_and_suspected_after_so_many),
		TEST(period__many_hosts__grows_and_so_does_patience),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	json_decref(doc);
	return failed;
}
