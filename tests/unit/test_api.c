/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The client API on a coordinator in this process; hosts are made of messages, time is the test's. */
#include "tests/unit/api_rig.h"

/* ---- migrate ---- */

static void migrate__good__is_shown_with_its_defaults(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	ask(&alice, &request);
	assert_int_equal(reply.code, ERR_NONE);
	assert_int_equal(reply.exit_code, 0);
	assert_true(id_of(doc) > 0);
	assert_string_equal(text_of(doc, "state"), "checking"); /* both hosts are there */
	assert_string_equal(text_of(doc, "authority"), "source");
	assert_string_equal(text_of(doc, "submitted_by"), "alice");
	assert_true(json_is_null(json_object_get(doc, "key")) && json_is_null(json_object_get(doc, "cause")));
	assert_true(json_is_null(json_object_get(json_object_get(doc, "votes"), "source")));
	json_t *options = json_object_get(doc, "options");
	assert_int_equal(json_integer_value(json_object_get(options, "max_downtime_ms")), 300);
	assert_string_equal(text_of(options, "on_slow"), "wait");
	assert_string_equal(text_of(json_array_get(json_object_get(options, "storage"), 0), "to"), "local");
	struct run *run = run_find(c, id_of(doc));
	assert_non_null(run);
	assert_int_equal(run->plan.to[0].format, FORMAT_QCOW2);
	assert_int_equal(run->plan.keep_source_s, 24 * 3600);
	assert_string_equal(run->plan.bridges[0], "br0");
}

static void migrate__by_uuid__is_found(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("03010000-0000-0000-0000-000000000000", "b2");
	snprintf(request.new_name, sizeof(request.new_name), "third");
	ask(&operator, & request);
	assert_int_equal(reply.code, ERR_NONE);
	assert_string_equal(text_of(json_object_get(doc, "vm"), "name"), "twin");
}

static void migrate__bad_names__exit_2(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("nobody", "b2");
	refused(&request, ERR_UNKNOWN_VM, 2);
	request = a_migrate("web", "nowhere");
	refused(&request, ERR_UNKNOWN_HOST, 2);
	request = a_migrate("web", "b2");
	snprintf(request.host, sizeof(request.host), "b2"); /* --from: not there */
	refused(&request, ERR_UNKNOWN_VM, 2);
	request = a_migrate("twin", "b2");
	ask(&operator, & request);
	assert_int_equal(reply.code, ERR_AMBIGUOUS);
	assert_int_equal(reply.exit_code, 2);
	assert_int_equal(json_array_size(json_object_get(doc, "candidates")), 2);
	refused(&request, ERR_AMBIGUOUS, 2);
}

static void migrate__prechecks__exit_8(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "a1");
	refused(&request, ERR_SAME_HOST, 8);
	request = a_migrate("off", "b2");
	refused(&request, ERR_UNSUPPORTED, 8);
	request = a_migrate("web", "b2");
	snprintf(request.new_name, sizeof(request.new_name), "twin");
	refused(&request, ERR_NAME_TAKEN, 8);
	request = a_migrate("odd", "b2"); /* its disk goes to the only SR; no bridge of that name */
	refused(&request, ERR_NO_MAP, 8);
	request.network_map_count = 1;
	request.network_map[0] = (struct msg_map) { "dmz", "br0" };
	request.sr_map_count = 1;
	request.sr_map[0] = (struct msg_map) { "special", "nothere" };
	refused(&request, ERR_NO_MAP, 8);
	request.sr_map_count = 0;
	request.disk_map_count = 1;
	request.disk_map[0] = (struct msg_map) { "xvdz", "local" };
	refused(&request, ERR_NO_MAP, 8);
	request.disk_map_count = 0;
	ask(&operator, & request);
	assert_int_equal(reply.code, ERR_NONE);
}

static void migrate__pool__must_fit(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	snprintf(request.pool, sizeof(request.pool), "east");
	refused(&request, ERR_UNKNOWN_HOST, 2);
	snprintf(request.pool, sizeof(request.pool), "west");
	ask(&operator, & request);
	assert_int_equal(reply.code, ERR_NONE);
}

static void migrate__hypervisors_differ__refused(void **state)
{
	(void)state;
	struct msg_inventory inventory = an_inventory();
	snprintf(inventory.hypervisor, LIMIT_NAME, "xen");
	host_inventory("b2", inventory);
	struct msg_request request = a_migrate("web", "b2");
	refused(&request, ERR_UNSUPPORTED, 8);
}

static void migrate__room__counts_what_is_on_its_way(void **state)
{
	(void)state;
	struct msg_inventory inventory = an_inventory();
	inventory.memory_free_bytes = 3ull << 29; /* one and a half */
	host_inventory("b2", inventory);
	struct msg_request first = a_migrate("web", "b2"), second = a_migrate("db", "b2");
	ask(&operator, & first);
	assert_int_equal(reply.code, ERR_NONE);
	uint64_t id = id_of(doc);
	refused(&second, ERR_NO_MEMORY, 8);
	/* claimed there, and in the inventory: it is not counted twice */
	answer("b2", id, SIDE_DESTINATION, STEP_CHECK);
	test_now_ms += 10;
	host_inventory("b2", inventory);
	ask(&operator, & second);
	assert_int_equal(reply.code, ERR_NONE);
	inventory = an_inventory();
	inventory.srs[0].free_bytes = 1 << 20;
	test_now_ms += 10;
	host_inventory("b2", inventory);
	struct msg_request third = a_migrate("03010000-0000-0000-0000-000000000000", "b2");
	snprintf(third.new_name, sizeof(third.new_name), "other");
	refused(&third, ERR_NO_SPACE, 8);
}

static void migrate__vm_busy__refused(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	ask(&operator, & request);
	refused(&request, ERR_BUSY, 8);
}

static void migrate__host_silent__refused(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	test_now_ms += 20000;
	struct msg beat = { .kind = MSG_HEARTBEAT };
	from_agent("a1", &beat);
	hosts_tick(c, test_now_ms);
	refused(&request, ERR_HOST_DOWN, 8);
	from_agent("b2", &beat);
	ask(&operator, & request);
	assert_int_equal(reply.code, ERR_NONE);
}

static void key__same_request__same_migration(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2"), other;
	snprintf(request.key, sizeof(request.key), "tonight-web");
	uint64_t id = id_of(ask(&operator, & request));
	assert_int_equal(reply.code, ERR_NONE);
	assert_int_equal(id_of(ask(&operator, & request)), id);
	assert_int_equal(reply.code, ERR_NONE);
	other = request;
	other.max_downtime_ms = 1;
	refused(&other, ERR_CONFLICT, 8);
	struct msg_request show = a_request(VERB_SHOW);
	snprintf(show.id, sizeof(show.id), "tonight");
	assert_int_equal(id_of(ask(&operator, & show)), id);
	snprintf(show.id, sizeof(show.id), "yesterday");
	ask(&operator, & show);
	assert_int_equal(reply.code, ERR_UNKNOWN_ID);
	assert_int_equal(reply.exit_code, 2);
}

static void queue__limit_reached__starts_when_one_ends(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	uint64_t first = id_of(ask(&operator, & request));
	request = a_migrate("db", "b2");
	ask(&operator, & request);
	request = a_migrate("odd", "b2");
	request.network_map_count = 1;
	request.network_map[0] = (struct msg_map) { "dmz", "br0" };
	uint64_t third = id_of(ask(&operator, & request));
	assert_string_equal(text_of(doc, "state"), "queued"); /* max-per-source = 2 */
	struct msg_request cancel = a_request(VERB_CANCEL);
	snprintf(cancel.id, sizeof(cancel.id), "%llu", (unsigned long long)first);
	ask(&operator, & cancel);
	both_answer(first, STEP_ABORT);
	assert_int_equal(run_find(c, third)->rec.core.state, MIGRATION_CHECKING);
}

/* ---- cancel, roles ---- */

static void cancel__by_whom(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	uint64_t id = id_of(ask(&alice, &request));
	struct msg_request cancel = a_request(VERB_CANCEL);
	snprintf(cancel.id, sizeof(cancel.id), "%llu", (unsigned long long)id);
	ask(&bob, &cancel);
	assert_int_equal(reply.code, ERR_DENIED);
	assert_int_equal(reply.exit_code, 7);
	ask(&viewer, &cancel);
	assert_int_equal(reply.exit_code, 7);
	ask(&alice, &cancel);
	assert_int_equal(reply.code, ERR_NONE);
	assert_string_equal(text_of(doc, "cancel"), "cancelled");
	assert_string_equal(text_of(doc, "state"), "rolling-back");
	assert_string_equal(text_of(json_object_get(doc, "cause"), "code"), "cancelled");
	both_answer(id, STEP_ABORT);
	ask(&operator, & cancel);
	assert_int_equal(reply.code, ERR_NONE); /* twice is the same as once */
}

static void commit_all(uint64_t id)
{
	struct msg msg = { .kind = MSG_REPORT, .migration = id, .generation = 1 };
	for (int step = STEP_CHECK; step <= STEP_COPY; step++)
		both_answer(id, (enum step)step);
	msg.u.report =
		(struct msg_session) { .migration = id, .generation = 1, .side = SIDE_SOURCE, .phase = PHASE_READY };
	from_agent("a1", &msg);
	both_answer(id, STEP_SWITCH);
	msg.u.report.phase = PHASE_COMMITTED;
	msg.u.report.facts =
		(struct verdict_facts) { .suspended = true, .stream_ended = true, .activating = true, .running = true };
	msg.u.report.facts.vote[PARTY_SOURCE] = msg.u.report.facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	msg.u.report.kept_until_wall_ms = (uint64_t)test_wall(NULL) + 1000;
	from_agent("a1", &msg);
}

static void cancel__committed__too_late(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	uint64_t id = id_of(ask(&operator, & request));
	commit_all(id);
	struct msg_request cancel = a_request(VERB_CANCEL), left = a_request(VERB_LEFTOVERS);
	snprintf(cancel.id, sizeof(cancel.id), "%llu", (unsigned long long)id);
	ask(&operator, & cancel);
	assert_int_equal(reply.code, ERR_TOO_LATE);
	assert_int_equal(reply.exit_code, 4);
	assert_string_equal(text_of(doc, "state"), "committed");
	both_answer(id, STEP_RELEASE);
	both_answer(id, STEP_FORGET);
	runs_tick(c, test_now_ms);
	assert_null(run_find(c, id));
	json_t *list = json_object_get(ask_later(&operator, & left), "leftovers"); /* kept on purpose */
	assert_int_equal(json_array_size(list), 1);
	assert_string_equal(text_of(json_array_get(list, 0), "kind"), "source-disks");
	test_now_ms += 5000;
	assert_int_equal(json_array_size(json_object_get(ask_later(&operator, & left), "leftovers")), 0);
}

static void roles__each_verb__as_permitted(void **state)
{
	(void)state;
	for (int role = ROLE_NONE; role < ROLES; role++) {
		for (int verb = VERB_STATUS; verb < VERBS; verb++) {
			struct bus_peer peer = { .name = "x", .role = (enum role)role };
			struct msg_request request = a_request((enum verb)verb);
			bool changes =
				verb == VERB_MIGRATE || verb == VERB_CANCEL || verb == VERB_RETRY || verb == VERB_UNDO;
			bool operators = verb == VERB_RESOLVE || verb == VERB_HOST_FORGET;
			bool allowed = role == ROLE_OPERATOR || (role == ROLE_SUBMITTER && !operators) ||
			               (role == ROLE_VIEWER && !changes && !operators);
			if (allowed && verb == VERB_LEFTOVERS)
				ask_later(&peer, &request);
			else
				ask(&peer, &request);
			if (allowed == (reply.exit_code == 7))
				fail_msg("%s %s: exit %u", role_name((enum role)role), verb_name((enum verb)verb),
				         reply.exit_code);
		}
	}
}

static void sweep__operators_only(void **state)
{
	(void)state;
	struct msg_request request = a_request(VERB_LEFTOVERS);
	request.sweep = 1;
	ask(&viewer, &request);
	assert_int_equal(reply.exit_code, 7);
	ask(&alice, &request);
	assert_int_equal(reply.exit_code, 7);
	assert_null(c->leftovers[0]);
	ask_later(&operator, & request);
	assert_int_equal(reply.code, ERR_NONE);
	request.sweep = 0;
	snprintf(request.host, sizeof(request.host), "nowhere");
	ask(&operator, & request);
	assert_int_equal(reply.code, ERR_UNKNOWN_HOST);
	assert_int_equal(reply.exit_code, 2);
}

static void leftovers__too_many_questions_at_a_time__refused(void **state)
{
	(void)state;
	struct msg_request request = a_request(VERB_LEFTOVERS);
	for (int i = 0; i < LEFTOVERS_MAX; i++)
		assert_false(api_answer(c, &operator, 1, &request, &reply));
	ask(&operator, & request);
	assert_int_equal(reply.code, ERR_BUSY);
	assert_int_equal(reply.exit_code, 8);
	leftovers_free(c);
}

/* ---- what is shown ---- */

static void lists__hosts_vms_status(void **state)
{
	(void)state;
	struct msg_request request = a_request(VERB_HOST_LIST);
	json_t *hosts = json_object_get(ask(&viewer, &request), "hosts");
	assert_int_equal(json_array_size(hosts), 2);
	assert_string_equal(text_of(json_array_get(hosts, 0), "name"), "a1");
	assert_string_equal(text_of(json_array_get(hosts, 0), "state"), "connected");
	request = a_request(VERB_VM_LIST);
	assert_int_equal(json_array_size(json_object_get(ask(&viewer, &request), "vms")), 6);
	snprintf(request.host, sizeof(request.host), "b2");
	assert_int_equal(json_array_size(json_object_get(ask(&viewer, &request), "vms")), 1);
	request = a_request(VERB_VM_SHOW);
	snprintf(request.vm, sizeof(request.vm), "db");
	ask(&viewer, &request);
	assert_string_equal(text_of(doc, "host"), "a1");
	assert_string_equal(text_of(doc, "uuid"), "02010000-0000-0000-0000-000000000000");
	request = a_request(VERB_STATUS);
	ask(&viewer, &request);
	assert_string_equal(text_of(doc, "version"), DROVER_VERSION);
	assert_int_equal(json_integer_value(json_object_get(doc, "epoch")), 1);
	assert_string_equal(text_of(doc, "health"), "ok");
	request = a_request(VERB_HOST_SHOW);
	snprintf(request.host, sizeof(request.host), "zz");
	ask(&viewer, &request);
	assert_int_equal(reply.exit_code, 2);
}

static void list__filters_and_unknown_state(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2"), list = a_request(VERB_LIST);
	ask(&operator, & request);
	assert_int_equal(json_array_size(json_object_get(ask(&viewer, &list), "migrations")), 1);
	snprintf(list.host, sizeof(list.host), "c9");
	assert_int_equal(json_array_size(json_object_get(ask(&viewer, &list), "migrations")), 0);
	list = a_request(VERB_LIST);
	snprintf(list.state, sizeof(list.state), "checking");
	assert_int_equal(json_array_size(json_object_get(ask(&viewer, &list), "migrations")), 1);
	snprintf(list.state, sizeof(list.state), "confused");
	ask(&viewer, &list);
	assert_int_equal(reply.exit_code, 2);
}

static void long_list__is_paged_and_fits(void **state)
{
	(void)state;
	struct msg_inventory inventory = an_inventory();
	struct msg_vm *vms = calloc(LIMIT_VMS, sizeof(*vms));
	char name[32];
	for (int i = 0; i < LIMIT_VMS; i++) {
		snprintf(name, sizeof(name), "vm-with-a-long-name-%d", i);
		vms[i] = a_vm((unsigned char)i, name);
		vms[i].uuid[2] = 7;
		vms[i].disk_count = 8;
		for (int n = 1; n < 8; n++) {
			vms[i].disks[n] = vms[i].disks[0];
			snprintf(vms[i].disks[n].name, LIMIT_NAME, "xvd%c", 'a' + n);
		}
	}
	/* too much for a frame from one agent, but not for the records: what matters is what clients get */
	struct host *host = host_find(c, "a1");
	msg_inventory_free(&host->inventory);
	host->inventory = inventory;
	host->inventory.vm_count = LIMIT_VMS;
	host->inventory.vms = vms;
	struct msg_request request = a_request(VERB_VM_LIST);
	size_t seen = 0, pages = 0;
	bool more = true;
	while (more) {
		ask(&viewer, &request);
		assert_true(json_dumpb(doc, NULL, 0, JSON_COMPACT) <= LIMIT_JSON_BYTES);
		seen += json_array_size(json_object_get(doc, "vms"));
		pages++;
		more = json_is_true(json_object_get(doc, "more"));
		request.after = (uint64_t)json_integer_value(json_object_get(doc, "next"));
		assert_true(pages < 20);
	}
	assert_true(pages > 1);
	assert_int_equal(seen, LIMIT_VMS + 1);
}

static void explain__says_who_is_waited_for(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2"), explain = a_request(VERB_EXPLAIN);
	uint64_t id = id_of(ask(&operator, & request));
	answer("a1", id, SIDE_SOURCE, STEP_CHECK);
	snprintf(explain.id, sizeof(explain.id), "%llu", (unsigned long long)id);
	ask(&viewer, &explain);
	json_t *waiting = json_object_get(doc, "waiting_for");
	assert_int_equal(json_array_size(waiting), 1);
	assert_string_equal(text_of(json_array_get(waiting, 0), "host"), "b2");
	assert_non_null(strstr(text_of(doc, "text"), "its answer to check"));
	assert_true(json_array_size(json_object_get(doc, "safe")) > 0);
	assert_true(json_array_size(json_object_get(doc, "unsafe")) > 0);
}

static void events__of_one_migration__in_order(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2"), events = a_request(VERB_EVENTS);
	uint64_t id = id_of(ask(&operator, & request));
	commit_all(id);
	snprintf(events.id, sizeof(events.id), "%llu", (unsigned long long)id);
	json_t *list = json_object_get(ask(&viewer, &events), "events"), *event;
	size_t at;
	const char *const wanted[] = { "queued", "checking", "preparing", "copying", "switching", "committed" };
	size_t next = 0;
	int64_t last = 0;
	json_array_foreach(list, at, event)
	{
		int64_t number = json_integer_value(json_object_get(event, "number"));
		assert_true(number > last);
		last = number;
		if (next < 6 && strcmp(text_of(event, "state"), wanted[next]) == 0)
			next++;
	}
	assert_int_equal(next, 6);
}

/* ---- agents ---- */

static void reboot_of_destination__copying__rolls_back(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	uint64_t id = id_of(ask(&operator, & request));
	both_answer(id, STEP_CHECK);
	both_answer(id, STEP_PREPARE);
	host_hello("b2", "west", "boot1"); /* the same boot: nothing happens */
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_COPYING);
	host_hello("b2", "west", "boot2");
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_ROLLING_BACK);
	assert_int_equal(run_find(c, id)->rec.core.cause, ERR_HOST_LOST);
}

static void agent__higher_epoch__is_raised_above(void **state)
{
	(void)state;
	struct bus_peer peer = agent_peer("a1");
	struct msg msg = { .kind = MSG_HEARTBEAT, .version = PROTOCOL_VERSION, .epoch = 41 };
	coordinator_on_message(c, &peer, &msg);
	assert_int_equal(store_epoch(c->store), 42);
}

static void answers__old_epoch_other_generation_other_host__ignored(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	uint64_t id = id_of(ask(&operator, & request));
	struct bus_peer peer = agent_peer("a1");
	struct msg msg = { .kind = MSG_ANSWER, .version = PROTOCOL_VERSION, .migration = id, .generation = 1 };
	msg.u.answer = (struct msg_answer) { .step = STEP_CHECK, .side = SIDE_SOURCE, .outcome = OUTCOME_DONE };
	msg.epoch = 0;
	coordinator_on_message(c, &peer, &msg);
	msg.epoch = store_epoch(c->store);
	msg.generation = 2;
	coordinator_on_message(c, &peer, &msg);
	msg.generation = 1;
	msg.u.answer.side = SIDE_DESTINATION;
	coordinator_on_message(c, &peer, &msg);
	assert_false(run_find(c, id)->rec.core.side[0].done[STEP_CHECK]);
	assert_false(run_find(c, id)->rec.core.side[1].done[STEP_CHECK]);
	peer.route[0] ^= 1; /* an older connection of the same key */
	msg.u.answer.side = SIDE_SOURCE;
	coordinator_on_message(c, &peer, &msg);
	assert_false(run_find(c, id)->rec.core.side[0].done[STEP_CHECK]);
	peer.route[0] ^= 1;
	coordinator_on_message(c, &peer, &msg);
	assert_true(run_find(c, id)->rec.core.side[0].done[STEP_CHECK]);
}

static void session_of_a_final_migration__is_told_to_forget_again(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2"), cancel = a_request(VERB_CANCEL);
	uint64_t id = id_of(ask(&operator, & request));
	snprintf(cancel.id, sizeof(cancel.id), "%llu", (unsigned long long)id);
	ask(&operator, & cancel);
	both_answer(id, STEP_ABORT);
	both_answer(id, STEP_FORGET);
	runs_tick(c, test_now_ms);
	assert_null(run_find(c, id));
	struct msg_session session = {
		.migration = id, .generation = 1, .side = SIDE_DESTINATION, .phase = PHASE_PREPARED
	};
	struct msg beat = { .kind = MSG_HEARTBEAT };
	beat.u.heartbeat = (struct msg_heartbeat) { .session_count = 1, .sessions = &session };
	from_agent("b2", &beat);
	struct run *run = run_find(c, id);
	assert_non_null(run);
	assert_int_equal(run->rec.core.state, MIGRATION_CANCELLED);
	assert_int_equal(run->pending[1].step, STEP_ABORT);
	answer("b2", id, SIDE_DESTINATION, STEP_ABORT);
	assert_int_equal(run->pending[1].step, STEP_FORGET);
	answer("b2", id, SIDE_DESTINATION, STEP_FORGET);
	runs_tick(c, test_now_ms);
	assert_null(run_find(c, id));
}

static void deadline__checking__rolls_back(void **state)
{
	(void)state;
	struct msg_request request = a_migrate("web", "b2");
	uint64_t id = id_of(ask(&operator, & request));
	test_now_ms += 29000;
	runs_tick(c, test_now_ms);
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_CHECKING);
	test_now_ms += 1001;
	runs_tick(c, test_now_ms);
	assert_int_equal(run_find(c, id)->rec.core.state, MIGRATION_ROLLING_BACK);
	assert_int_equal(run_find(c, id)->rec.core.cause, ERR_TIMEOUT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(migrate__good__is_shown_with_its_defaults),
		TEST(migrate__by_uuid__is_found),
		TEST(migrate__bad_names__exit_2),
		TEST(migrate__prechecks__exit_8),
		TEST(migrate__pool__must_fit),
		TEST(migrate__hypervisors_differ__refused),
		TEST(migrate__room__counts_what_is_on_its_way),
		TEST(migrate__vm_busy__refused),
		TEST(migrate__host_silent__refused),
		TEST(key__same_request__same_migration),
		TEST(queue__limit_reached__starts_when_one_ends),
		TEST(cancel__by_whom),
		TEST(cancel__committed__too_late),
		TEST(roles__each_verb__as_permitted),
		TEST(sweep__operators_only),
		TEST(leftovers__too_many_questions_at_a_time__refused),
		TEST(lists__hosts_vms_status),
		TEST(list__filters_and_unknown_state),
		TEST(long_list__is_paged_and_fits),
		TEST(explain__says_who_is_waited_for),
		TEST(events__of_one_migration__in_order),
		TEST(reboot_of_destination__copying__rolls_back),
		TEST(agent__higher_epoch__is_raised_above),
		TEST(answers__old_epoch_other_generation_other_host__ignored),
		TEST(session_of_a_final_migration__is_told_to_forget_again),
		TEST(deadline__checking__rolls_back),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	json_decref(doc);
	return failed;
}
