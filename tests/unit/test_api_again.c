/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs retry and undo, asked of a coordinator in this process; hosts are made of messages. */
#include "tests/unit/api_rig.h"

#define KEPT_MS 600000

struct way {
	const char *from, *to;
};
static const struct way there = { "a1", "b2" }, back = { "b2", "a1" };

static uint64_t until(void)
{
	return (uint64_t)test_wall(NULL) + KEPT_MS;
}

/* The only VM that matters, where it is now. */
static void web_is_on(const char *host, bool anywhere)
{
	struct msg_inventory with = an_inventory(), without = an_inventory();
	struct msg_vm web = a_vm(1, "web"), other = a_vm(7, "other");
	with.vm_count = without.vm_count = 1;
	with.vms = anywhere ? &web : &other;
	without.vms = &other;
	host_inventory("a1", strcmp(host, "a1") == 0 ? with : without);
	host_inventory("b2", strcmp(host, "b2") == 0 ? with : without);
}

static void both(const struct way *way, uint64_t id, enum step step)
{
	answer(way->from, id, SIDE_SOURCE, step);
	answer(way->to, id, SIDE_DESTINATION, step);
}

static void report(const char *host, uint64_t id, enum side side, enum session_phase phase,
                   const struct verdict_facts *facts, uint64_t kept_until_wall_ms)
{
	struct msg msg = { .kind = MSG_REPORT, .migration = id, .generation = 1 };
	msg.u.report = (struct msg_session) { .migration = id,
		                              .generation = 1,
		                              .side = side,
		                              .phase = phase,
		                              .facts = *facts,
		                              .kept_until_wall_ms = kept_until_wall_ms };
	from_agent(host, &msg);
}

static void until_copying(const struct way *way, uint64_t id)
{
	for (int step = STEP_CHECK; step <= STEP_COPY; step++)
		both(way, id, (enum step)step);
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_COPYING);
}

static void finish(const struct way *way, uint64_t id, uint64_t kept_until_wall_ms)
{
	struct verdict_facts facts = { .suspended = true, .stream_ended = true, .activating = true, .running = true };
	until_copying(way, id);
	report(way->from, id, SIDE_SOURCE, PHASE_READY, &(struct verdict_facts) { 0 }, 0);
	both(way, id, STEP_SWITCH);
	facts.vote[PARTY_SOURCE] = facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	report(way->from, id, SIDE_SOURCE, PHASE_COMMITTED, &facts, kept_until_wall_ms);
	both(way, id, STEP_RELEASE);
	both(way, id, STEP_FORGET);
	runs_tick(c, test_now_ms);
	assert_null(run_find(c, id));
	web_is_on(way->to, true);
}

/* It is cancelled, and the destination keeps what was copied; 0: nothing. */
static void cancel(const struct way *way, uint64_t id, uint64_t kept_until_wall_ms)
{
	struct msg_request request = a_request(VERB_CANCEL);
	snprintf(request.id, sizeof(request.id), "%llu", (unsigned long long)id);
	ask(&operator, & request);
	assert_int_equal(reply.code, ERR_NONE);
	if (kept_until_wall_ms)
		report(way->to, id, SIDE_DESTINATION, PHASE_ROLLED_BACK, &(struct verdict_facts) { .renounced = true },
		       kept_until_wall_ms);
	both(way, id, STEP_ABORT);
	both(way, id, STEP_FORGET);
	runs_tick(c, test_now_ms);
	assert_null(run_find(c, id));
}

static uint64_t migrate(const char *vm)
{
	struct msg_request request = a_migrate(vm, "b2");
	request.keep_copy_s = 1800;
	request.bandwidth_bps = 1 << 20;
	request.max_downtime_ms = 77;
	request.priority = 5;
	snprintf(request.new_name, sizeof(request.new_name), "web-new");
	uint64_t id = id_of(ask(&alice, &request));
	assert_int_equal(reply.code, ERR_NONE);
	return id;
}

static struct msg_request again(enum verb verb, uint64_t id, const char *key)
{
	struct msg_request request = a_request(verb);
	snprintf(request.id, sizeof(request.id), "%llu", (unsigned long long)id);
	snprintf(request.key, sizeof(request.key), "%s", key);
	return request;
}

static uint64_t must(const struct msg_request *request)
{
	ask(&alice, request);
	if (reply.code != ERR_NONE)
		fail_msg("%s: %s", err_name(reply.code), reply.text);
	return id_of(doc);
}

static json_t *show(uint64_t id)
{
	struct msg_request request = again(VERB_SHOW, id, "");
	ask(&viewer, &request);
	assert_int_equal(reply.code, ERR_NONE);
	return doc;
}

static json_t *leftovers(void)
{
	struct msg_request request = a_request(VERB_LEFTOVERS);
	return json_object_get(ask_later(&viewer, &request), "leftovers");
}

static void assert_kept(uint64_t id, bool kept)
{
	assert_int_equal(json_is_string(json_object_get(show(id), "kept_until")), kept);
}

static void retry__cancelled__the_same_again_and_linked(void **state)
{
	(void)state;
	uint64_t first = migrate("web");
	until_copying(&there, first);
	cancel(&there, first, until());
	assert_kept(first, true);
	json_t *list = leftovers();
	assert_int_equal(json_array_size(list), 1);
	assert_string_equal(text_of(json_array_get(list, 0), "kind"), "copy");
	assert_string_equal(text_of(json_array_get(list, 0), "host"), "b2");
	struct msg_request retry = again(VERB_RETRY, first, "");
	uint64_t second = must(&retry);
	assert_int_not_equal(first, second);
	const struct run *run = run_find(c, second);
	assert_non_null(run);
	assert_string_equal(run->plan.new_name, "web-new");
	assert_int_equal(run->plan.keep_copy_s, 1800);
	assert_int_equal(run->plan.bandwidth_bps, 1 << 20);
	assert_int_equal(run->plan.max_downtime_ms, 77);
	assert_int_equal(run->plan.take_source, 0);
	assert_int_equal(run->rec.priority, 5);
	show(second);
	assert_int_equal(json_integer_value(json_object_get(doc, "retry_of")), first);
	assert_true(json_is_null(json_object_get(doc, "undo_of")));
	assert_int_equal(json_integer_value(json_object_get(json_object_get(doc, "options"), "keep_copy_s")), 1800);
	finish(&there, second, 0);
	/* the copy has become the VM's disks */
	assert_kept(first, false);
	assert_int_equal(json_array_size(leftovers()), 0);
}

static void retry__fails_again__the_copy_is_the_newest_ones(void **state)
{
	(void)state;
	uint64_t first = migrate("web");
	until_copying(&there, first);
	cancel(&there, first, until());
	struct msg_request retry = again(VERB_RETRY, first, "");
	uint64_t second = must(&retry);
	cancel(&there, second, 0); /* it never came so far as to take the copy */
	assert_kept(first, true);
	retry = again(VERB_RETRY, second, "");
	uint64_t third = must(&retry);
	until_copying(&there, third);
	cancel(&there, third, until());
	assert_kept(first, false);
	assert_kept(third, true);
	retry = again(VERB_RETRY, first, "");
	uint64_t fourth = must(&retry);
	finish(&there, fourth, 0);
	assert_kept(third, false);
}

static void retry__not_now_or_not_any_more__refused_with_the_reason(void **state)
{
	(void)state;
	uint64_t id = migrate("web");
	struct msg_request retry = again(VERB_RETRY, id, "");
	refused(&retry, ERR_BUSY, 8);
	cancel(&there, id, 0);
	web_is_on("b2", true);
	refused(&retry, ERR_CONFLICT, 8);
	web_is_on("a1", false);
	refused(&retry, ERR_CONFLICT, 8);
	web_is_on("a1", true);
	uint64_t second = must(&retry);
	refused(&retry, ERR_BUSY, 8); /* the VM has one already */
	finish(&there, second, until());
	retry = again(VERB_RETRY, second, "");
	refused(&retry, ERR_TOO_LATE, 4);
	retry = again(VERB_RETRY, 99, "");
	refused(&retry, ERR_UNKNOWN_ID, 2);
}

static void retry__key__same_migration_and_nothing_else(void **state)
{
	(void)state;
	uint64_t first = migrate("web"), second;
	cancel(&there, first, 0);
	struct msg_request retry = again(VERB_RETRY, first, "once");
	second = must(&retry);
	assert_int_equal(must(&retry), second);
	cancel(&there, second, 0);
	assert_int_equal(must(&retry), second); /* still that one */
	struct msg_request other = again(VERB_RETRY, second, "once");
	refused(&other, ERR_CONFLICT, 8);
	other = again(VERB_UNDO, first, "once");
	refused(&other, ERR_CONFLICT, 8);
}

static void retry__by_whom(void **state)
{
	(void)state;
	uint64_t id = migrate("web");
	cancel(&there, id, 0);
	struct msg_request retry = again(VERB_RETRY, id, ""), undo = again(VERB_UNDO, id, "");
	ask(&bob, &retry);
	assert_int_equal(reply.exit_code, 7);
	ask(&bob, &undo);
	assert_int_equal(reply.exit_code, 7);
	ask(&viewer, &retry);
	assert_int_equal(reply.exit_code, 7);
	ask(&operator, & retry);
	assert_int_equal(reply.code, ERR_NONE);
	assert_string_equal(text_of(doc, "submitted_by"), "root");
}

/* The kept copy takes the space that it needs: the host knows, the coordinator does not. */
static void retry__storage_is_full_of_the_copy__the_host_decides(void **state)
{
	(void)state;
	uint64_t id = migrate("web");
	until_copying(&there, id);
	cancel(&there, id, until());
	struct msg_inventory inventory = an_inventory();
	inventory.srs[0].free_bytes = 1 << 20;
	test_now_ms += 10;
	host_inventory("b2", inventory);
	struct msg_request other = a_migrate("db", "b2"), retry = again(VERB_RETRY, id, "");
	refused(&other, ERR_NO_SPACE, 8);
	must(&retry);
}

static void undo__done_and_kept__the_way_back_over_the_kept_disks(void **state)
{
	(void)state;
	uint64_t first = migrate("web");
	finish(&there, first, until());
	assert_kept(first, true);
	struct msg_request undo = again(VERB_UNDO, first, "");
	uint64_t second = must(&undo);
	const struct run *run = run_find(c, second);
	assert_string_equal(run->plan.source, "b2");
	assert_string_equal(run->plan.destination, "a1");
	assert_string_equal(run->plan.new_name, "web");
	assert_string_equal(run->plan.to[0].sr, "local");
	assert_int_equal(run->plan.to[0].format, FORMAT_RAW); /* as it was there, whatever the SR makes now */
	assert_int_equal(run->plan.take_source, 1);
	show(second);
	assert_int_equal(json_integer_value(json_object_get(doc, "undo_of")), first);
	finish(&back, second, until());
	assert_kept(first, false); /* it is the VM's disk again */
	assert_kept(second, true);
	json_t *list = leftovers();
	assert_int_equal(json_array_size(list), 1);
	assert_string_equal(text_of(json_array_get(list, 0), "host"), "b2");
	refused(&undo, ERR_CONFLICT, 8); /* moved since */
	/* and once more the other way */
	undo = again(VERB_UNDO, second, "");
	finish(&there, must(&undo), 0);
}

static void undo__nothing_to_go_back_over__refused_with_the_reason(void **state)
{
	(void)state;
	uint64_t id = migrate("web");
	struct msg_request undo = again(VERB_UNDO, id, "");
	refused(&undo, ERR_BUSY, 8);
	cancel(&there, id, until());
	refused(&undo, ERR_CONFLICT, 8);
	id = migrate("web");
	finish(&there, id, until());
	undo = again(VERB_UNDO, id, "");
	test_now_ms += KEPT_MS + 1;
	struct msg beat = { .kind = MSG_HEARTBEAT };
	from_agent("a1", &beat);
	from_agent("b2", &beat);
	refused(&undo, ERR_CONFLICT, 8);
	ask(&operator, & undo);
	assert_non_null(strstr(reply.text, "drover migrate web --to a1"));
}

static void undo__vm_is_gone__refused(void **state)
{
	(void)state;
	uint64_t id = migrate("web");
	finish(&there, id, until());
	web_is_on("b2", false);
	struct msg_request undo = again(VERB_UNDO, id, "");
	refused(&undo, ERR_CONFLICT, 8);
}

/* It had not begun to copy: the disks are whole, and the first one's still. It had: they are a copy, and the undo's. */
static void undo__fails__kept_by_whom_it_is_now(void **state)
{
	(void)state;
	uint64_t first = migrate("web");
	finish(&there, first, until());
	struct msg_request undo = again(VERB_UNDO, first, "");
	uint64_t second = must(&undo);
	both(&back, second, STEP_CHECK);
	both(&back, second, STEP_PREPARE);
	cancel(&back, second, 0);
	assert_kept(first, true);
	uint64_t third = must(&undo);
	until_copying(&back, third);
	cancel(&back, third, until());
	assert_kept(first, false);
	assert_kept(third, true);
	refused(&undo, ERR_CONFLICT, 8);
	ask(&operator, & undo);
	assert_non_null(strstr(reply.text, "drover retry"));
	struct msg_request retry = again(VERB_RETRY, third, "");
	uint64_t fourth = must(&retry);
	assert_int_equal(run_find(c, fourth)->plan.take_source, 1);
	show(fourth);
	assert_int_equal(json_integer_value(json_object_get(doc, "undo_of")), first);
	assert_int_equal(json_integer_value(json_object_get(doc, "retry_of")), third);
	finish(&back, fourth, 0);
	assert_kept(third, false);
}

/* What follows what is in the database, and so is what has ended. */
static void restart__in_between__links_and_dates_are_there(void **state)
{
	(void)state;
	struct err err;
	struct settings settings = c->settings;
	uint64_t first = migrate("web");
	until_copying(&there, first);
	cancel(&there, first, until());
	struct msg_request retry = again(VERB_RETRY, first, "k");
	uint64_t second = must(&retry);
	coordinator_free(c);
	if (coordinator_new(&c, loop, &paths, &settings, &test_clock, &err) != 0)
		fail_msg("%s", err.text);
	assert_kept(first, true);
	show(second);
	assert_int_equal(json_integer_value(json_object_get(doc, "retry_of")), first);
	assert_int_equal(must(&retry), second);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		T(retry__cancelled__the_same_again_and_linked),
		T(retry__fails_again__the_copy_is_the_newest_ones),
		T(retry__not_now_or_not_any_more__refused_with_the_reason),
		T(retry__key__same_migration_and_nothing_else),
		T(retry__by_whom),
		T(retry__storage_is_full_of_the_copy__the_host_decides),
		T(undo__done_and_kept__the_way_back_over_the_kept_disks),
		T(undo__nothing_to_go_back_over__refused_with_the_reason),
		T(undo__vm_is_gone__refused),
		T(undo__fails__kept_by_whom_it_is_now),
		T(restart__in_between__links_and_dates_are_there),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
