/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What only operators may ask: resolve, host forget; and the evidence that explain shows them. */
#include "tests/unit/api_rig.h"

/* Up to a verdict of COMMIT that the source told of; then nothing more of the destination. */
static uint64_t committed(void)
{
	struct msg_request request = a_migrate("web", "b2");
	uint64_t id = id_of(ask(&operator, & request));
	struct msg msg = { .kind = MSG_REPORT, .migration = id, .generation = 1 };
	for (int step = STEP_CHECK; step <= STEP_COPY; step++)
		both_answer(id, (enum step)step);
	msg.u.report =
		(struct msg_session) { .migration = id, .generation = 1, .side = SIDE_SOURCE, .phase = PHASE_READY };
	from_agent("a1", &msg);
	both_answer(id, STEP_SWITCH);
	msg.u.report.phase = PHASE_COMMITTED;
	msg.u.report.facts = (struct verdict_facts) { .suspended = true, .stream_ended = true };
	msg.u.report.facts.vote[PARTY_SOURCE] = msg.u.report.facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	from_agent("a1", &msg);
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_COMMITTED);
	return id;
}

/* Only a1 is heard of for long. */
static void b2_is_silent(void)
{
	for (int i = 0; i < 200; i++) {
		test_now_ms += 1000;
		host_heartbeat("a1");
		hosts_tick(c, test_now_ms);
	}
	assert_int_equal(host_find(c, "b2")->reach, REACH_SUSPECTED);
}

static struct msg_request a_resolve(uint64_t id, enum side owner, const char *fenced)
{
	struct msg_request request = a_request(VERB_RESOLVE);
	snprintf(request.id, sizeof(request.id), "%llu", (unsigned long long)id);
	request.owner = owner;
	snprintf(request.fenced, sizeof(request.fenced), "%s", fenced);
	snprintf(request.reason, sizeof(request.reason), "its power supply burnt");
	return request;
}

static struct msg_request a_forget(const char *host)
{
	struct msg_request request = a_request(VERB_HOST_FORGET);
	snprintf(request.host, sizeof(request.host), "%s", host);
	snprintf(request.reason, sizeof(request.reason), "sold");
	return request;
}

static bool event_says(uint64_t id, const char *kind, const char *part)
{
	struct msg_request events = a_request(VERB_EVENTS);
	if (id)
		snprintf(events.id, sizeof(events.id), "%llu", (unsigned long long)id);
	json_t *list = json_object_get(ask(&viewer, &events), "events"), *event;
	size_t at;
	json_array_foreach(list, at, event)
	{
		if (strcmp(text_of(event, "kind"), kind) == 0 && strstr(text_of(event, "text"), part))
			return true;
	}
	return false;
}

static void resolve__incomplete_or_contradicted__refused_and_says_what_to_do(void **state)
{
	(void)state;
	uint64_t id = committed();
	struct msg_request request = a_resolve(id, SIDE_SOURCE, "b2");
	refused(&request, ERR_CONFLICT, 8); /* b2 is there */
	b2_is_silent();
	request.owner = 0;
	refused(&request, ERR_USAGE, 2);
	request = a_resolve(id, SIDE_SOURCE, "");
	refused(&request, ERR_USAGE, 2);
	request = a_resolve(id, SIDE_SOURCE, "a1"); /* the owner itself */
	refused(&request, ERR_USAGE, 2);
	request = a_resolve(id, SIDE_SOURCE, "b2");
	request.reason[0] = '\0';
	refused(&request, ERR_USAGE, 2);
	request = a_resolve(id, SIDE_DESTINATION, "a1");
	refused(&request, ERR_CONFLICT, 8);
	request = a_resolve(777, SIDE_SOURCE, "b2");
	refused(&request, ERR_UNKNOWN_ID, 2);
	request = a_resolve(id, SIDE_SOURCE, "b2");
	ask(&alice, &request); /* its own migration, and not for it to decide */
	assert_int_equal(reply.exit_code, 7);
	assert_int_equal(run_find(c, id)->rec.core.facts.ruling, VOTE_NONE);
}

static void resolve__destination_off__source_owns_it_and_it_is_on_record(void **state)
{
	(void)state;
	uint64_t id = committed();
	b2_is_silent();
	struct msg_request explain = a_request(VERB_EXPLAIN), request = a_resolve(id, SIDE_SOURCE, "b2");
	snprintf(explain.id, sizeof(explain.id), "%llu", (unsigned long long)id);
	json_t *rulings = json_object_get(ask(&viewer, &explain), "rulings");
	assert_int_equal(json_array_size(rulings), 2);
	assert_true(json_is_true(json_object_get(json_array_get(rulings, 0), "possible")));
	assert_false(json_is_true(json_object_get(json_array_get(rulings, 1), "possible")));
	assert_int_equal(json_array_size(json_object_get(doc, "evidence")), 4); /* suspended, ended, two votes */
	assert_int_equal(json_array_size(json_object_get(doc, "rights")), 3);
	ask(&operator, & request);
	assert_int_equal(reply.exit_code, 0);
	assert_string_equal(text_of(doc, "state"), "rolling-back");
	assert_string_equal(text_of(doc, "authority"), "source");
	assert_string_equal(text_of(json_object_get(doc, "facts"), "ruling"), "source");
	ask(&operator, & request); /* twice is the same as once */
	assert_int_equal(reply.exit_code, 0);
	assert_true(event_says(id, "state", "resolved by root"));
	assert_true(event_says(id, "state", "its power supply burnt"));
	answer("a1", id, SIDE_SOURCE, STEP_ABORT);
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_FAILED);
	/* Kept by a restart: the row has it. */
	struct store_migration rec;
	assert_int_equal(store_migration_get(c->store, id, &rec, NULL), 1);
	assert_int_equal(rec.core.facts.ruling, VOTE_ABORT);
	store_migration_free(&rec);
}

/* b2 was booted again after it had begun to run the VM. */
static uint64_t lost(void)
{
	uint64_t id = committed();
	struct msg msg = { .kind = MSG_REPORT, .migration = id, .generation = 1 };
	msg.u.report = (struct msg_session) {
		.migration = id, .generation = 1, .side = SIDE_DESTINATION, .phase = PHASE_COMMITTED
	};
	msg.u.report.facts = run_find(c, id)->rec.core.facts;
	msg.u.report.facts.activating = true;
	from_agent("b2", &msg);
	host_hello("b2", "west", "boot2");
	from_agent("b2", &msg); /* it has not renounced */
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_LOST);
	return id;
}

static void resolve__lost_and_the_vm_was_booted_there__not_for_the_source(void **state)
{
	(void)state;
	uint64_t id = lost();
	struct msg_request request = a_resolve(id, SIDE_SOURCE, "b2"), explain = a_request(VERB_EXPLAIN);
	struct msg_inventory inventory = an_inventory();
	struct msg_vm vm = a_vm(1, "web");
	inventory.vm_count = 1;
	inventory.vms = &vm;
	memcpy(vm.uuid, run_find(c, id)->rec.vm, sizeof(vm.uuid));
	refused(&request, ERR_CONFLICT, 8); /* it has not said yet what it runs */
	host_inventory("b2", inventory);
	refused(&request, ERR_CONFLICT, 8);
	snprintf(explain.id, sizeof(explain.id), "%llu", (unsigned long long)id);
	json_t *rulings = json_object_get(ask(&viewer, &explain), "rulings");
	assert_int_equal(json_array_size(rulings), 2);
	assert_false(json_is_true(json_object_get(json_array_get(rulings, 0), "possible")));
	assert_true(json_is_true(json_object_get(json_array_get(rulings, 1), "possible")));
	vm.state = VM_HALTED; /* shut down by hand */
	host_inventory("b2", inventory);
	ask(&operator, & request);
	assert_int_equal(reply.exit_code, 0);
	assert_string_equal(text_of(doc, "state"), "rolling-back");
}

static void resolve__lost_and_the_vm_migrates_again__refused(void **state)
{
	(void)state;
	uint64_t id = lost();
	host_inventory("b2", an_inventory());
	struct msg_request again = a_migrate("web", "b2"), request = a_resolve(id, SIDE_SOURCE, "b2");
	uint64_t other = id_of(ask(&operator, & again));
	assert_true(other > id);
	refused(&request, ERR_BUSY, 8);
	struct msg_request cancel = a_request(VERB_CANCEL);
	snprintf(cancel.id, sizeof(cancel.id), "%llu", (unsigned long long)other);
	ask(&operator, & cancel);
	both_answer(other, STEP_ABORT);
	host_inventory("b2", an_inventory()); /* it was asked what is free now */
	ask(&operator, & request);
	assert_int_equal(reply.exit_code, 0);
	assert_string_equal(text_of(doc, "state"), "rolling-back");
	assert_true(json_is_null(json_object_get(doc, "ended_at")));
}

static void forget__host_is_there_or_in_a_switchover__refused(void **state)
{
	(void)state;
	struct msg_request forget = a_forget("b2"), unknown = a_forget("z9");
	refused(&forget, ERR_CONFLICT, 8);
	refused(&unknown, ERR_UNKNOWN_HOST, 2);
	forget.reason[0] = '\0';
	refused(&forget, ERR_USAGE, 2);
	uint64_t id = committed();
	b2_is_silent();
	run_find(c, id)->rec.core.state = MIGRATION_IN_DOUBT;
	forget = a_forget("b2");
	refused(&forget, ERR_CONFLICT, 8);
	assert_non_null(host_find(c, "b2"));
}

static void forget__silent_host__its_part_is_written_off_on_record(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2"), forget = a_forget("b2"), show = a_request(VERB_SHOW);
	uint64_t id = id_of(ask(&operator, & request));
	both_answer(id, STEP_CHECK);
	both_answer(id, STEP_PREPARE);
	b2_is_silent();
	answer("a1", id, SIDE_SOURCE, STEP_ABORT);
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_FAILED);
	snprintf(show.id, sizeof(show.id), "%llu", (unsigned long long)id);
	assert_int_equal(json_array_size(json_object_get(ask(&viewer, &show), "leftovers")), 1);
	ask(&alice, &forget);
	assert_int_equal(reply.exit_code, 7);
	ask(&operator, & forget);
	assert_int_equal(reply.exit_code, 0);
	json_t *written = json_object_get(doc, "written_off");
	assert_int_equal(json_array_size(written), 1);
	assert_int_equal(json_array_size(json_object_get(json_array_get(written, 0), "leftovers")), 1);
	assert_null(host_find(c, "b2"));
	assert_int_equal(json_array_size(json_object_get(ask(&viewer, &show), "leftovers")), 0);
	assert_true(event_says(0, "host-forgotten", "written off by root: sold"));
	refused(&forget, ERR_UNKNOWN_HOST, 2);
	struct store_host *hosts = NULL;
	size_t count = 0;
	assert_int_equal(store_host_list(c->store, &hosts, &count, NULL), 0);
	assert_int_equal(count, 1);
	free(hosts);
	/* It comes back after all, and still has its session: it is told to clean up. */
	answer("a1", id, SIDE_SOURCE, STEP_FORGET);
	runs_tick(c, test_now_ms);
	assert_null(run_find(c, id));
	host_hello("b2", "west", "boot1");
	struct msg msg = { .kind = MSG_REPORT, .migration = id, .generation = 1 };
	msg.u.report = (struct msg_session) {
		.migration = id, .generation = 1, .side = SIDE_DESTINATION, .phase = PHASE_PREPARED
	};
	from_agent("b2", &msg);
	assert_non_null(run_find(c, id));
	assert_int_equal(migration_command(&run_find(c, id)->rec.core, SIDE_DESTINATION), STEP_ABORT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(resolve__incomplete_or_contradicted__refused_and_says_what_to_do),
		TEST(resolve__destination_off__source_owns_it_and_it_is_on_record),
		TEST(resolve__lost_and_the_vm_was_booted_there__not_for_the_source),
		TEST(resolve__lost_and_the_vm_migrates_again__refused),
		TEST(forget__host_is_there_or_in_a_switchover__refused),
		TEST(forget__silent_host__its_part_is_written_off_on_record),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	json_decref(doc);
	return failed;
}
