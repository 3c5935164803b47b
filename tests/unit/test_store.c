/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/wait.h>
#include <unistd.h>

#include "common/db.h"
#include "coordinator/store.h"

static char folder[64], path[128];
static struct store *store;

static int begin(void **state)
{
	(void)state;
	struct err err;
	snprintf(folder, sizeof(folder), "/tmp/test_store_XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/coordinator.db", folder);
	if (store_open(&store, path, &clock_real, &err) != 0)
		fail_msg("%s", err.text);
	return 0;
}

static int end(void **state)
{
	char command[128];
	(void)state;
	store_close(store);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static void reopen(void)
{
	struct err err;
	store_close(store);
	store = NULL;
	if (store_open(&store, path, &clock_real, &err) != 0)
		fail_msg("%s", err.text);
}

static struct msg_plan a_plan(unsigned char vm)
{
	struct msg_plan plan = { .max_downtime_ms = 300, .on_slow = ON_SLOW_WAIT, .timeout_s = 60 };
	plan.vm.uuid[0] = vm;
	snprintf(plan.vm.name, sizeof(plan.vm.name), "web%u", vm);
	snprintf(plan.new_name, sizeof(plan.new_name), "web%u", vm);
	snprintf(plan.source, sizeof(plan.source), "a1");
	snprintf(plan.destination, sizeof(plan.destination), "b2");
	plan.vm.state = VM_RUNNING;
	plan.vm.memory_bytes = 1 << 20;
	plan.vm.vcpus = 1;
	return plan;
}

static struct store_migration a_migration(unsigned char vm, const char *key)
{
	struct store_migration rec = {
		.generation = 1, .request_digest = 77, .submitted_wall_ms = 1000, .state_wall_ms = 1000
	};
	migration_init(&rec.core);
	rec.vm[0] = vm;
	snprintf(rec.vm_name, sizeof(rec.vm_name), "web%u", vm);
	snprintf(rec.source, sizeof(rec.source), "a1");
	snprintf(rec.destination, sizeof(rec.destination), "b2");
	snprintf(rec.key, sizeof(rec.key), "%s", key);
	snprintf(rec.submitted_by, sizeof(rec.submitted_by), "alice");
	rec.options = strdup("{\"priority\":1}");
	return rec;
}

static int add(struct store_migration *rec, struct err *err)
{
	struct msg_plan plan = a_plan(rec->vm[0]);
	return store_migration_add(store, rec, &plan, err);
}

static int save(struct store_migration *rec, enum migration_state to, struct err *err)
{
	struct store_change change = { .from = rec->core.state, .kind = "state", .text = "because" };
	rec->core.state = to;
	return store_migration_save(store, rec, &change, err);
}

/* ---- epoch ---- */

static void open__again__epoch_grows_and_cluster_stays(void **state)
{
	(void)state;
	char cluster[LIMIT_ID];
	uint64_t epoch = store_epoch(store);
	snprintf(cluster, sizeof(cluster), "%s", store_cluster_id(store));
	assert_true(epoch >= 1 && strlen(cluster) >= 32);
	reopen();
	assert_int_equal(store_epoch(store), epoch + 1);
	assert_string_equal(store_cluster_id(store), cluster);
}

static void open__second_coordinator__is_refused(void **state)
{
	(void)state;
	struct store *second = NULL;
	struct err err;
	err_clear(&err);
	assert_int_equal(store_open(&second, path, &clock_real, &err), -1);
	assert_int_equal(err.code, ERR_BUSY);
}

static void epoch_raise__above_what_was_seen(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(store_epoch_raise(store, 500, &err), 0);
	assert_int_equal(store_epoch(store), 501);
	assert_int_equal(store_epoch_raise(store, 3, &err), 0);
	assert_int_equal(store_epoch(store), 501);
	assert_int_equal(store_epoch_raise(store, INT64_MAX, &err), -1);
	reopen();
	assert_int_equal(store_epoch(store), 502);
}

/* Somebody else takes over behind our back: nothing is written any more. */
static void epoch__changed_by_another__writes_are_refused(void **state)
{
	(void)state;
	struct err err;
	struct store_migration rec = a_migration(1, "");
	assert_int_equal(add(&rec, &err), 0);
	sqlite3 *other = NULL;
	assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "UPDATE meta SET epoch = epoch + 1", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(other);
	assert_int_equal(save(&rec, MIGRATION_CHECKING, &err), -1);
	assert_int_equal(err.code, ERR_STALE);
	struct store_event event = { .kind = "x" };
	assert_int_equal(store_event_add(store, &event, &err), -1);
	store_migration_free(&rec);
}

/* ---- migrations ---- */

static void migration__all_of_it__comes_back(void **state)
{
	(void)state;
	struct err err;
	struct store_migration rec = a_migration(1, "key-1"), back;
	assert_int_equal(add(&rec, &err), 0);
	assert_true(rec.id > 0);
	rec.core.facts.vote[PARTY_SOURCE] = VOTE_COMMIT;
	rec.core.facts.stream_ended = true;
	rec.core.side[1].done[STEP_PREPARE] = true;
	rec.core.side[1].phase = PHASE_PREPARED;
	rec.core.abort_asked = true;
	rec.core.cause = ERR_NO_SPACE;
	rec.core.cause_side = SIDE_DESTINATION;
	rec.core.cause_step = STEP_PREPARE;
	snprintf(rec.cause_text, sizeof(rec.cause_text), "no space");
	rec.kept_until_wall_ms = 99;
	rec.budget = (struct msg_budget) { 120, 1, 2, 3, 4, 5, 6 };
	snprintf(rec.party[1].endpoint, sizeof(rec.party[1].endpoint), "[::1]:7");
	snprintf(rec.party[0].boot_id, sizeof(rec.party[0].boot_id), "boot");
	rec.progress = strdup("{}");
	assert_int_equal(save(&rec, MIGRATION_SWITCHING, &err), 0);
	reopen();
	assert_int_equal(store_migration_get(store, rec.id, &back, &err), 1);
	assert_int_equal(back.core.state, MIGRATION_SWITCHING);
	assert_int_equal(back.core.facts.vote[PARTY_SOURCE], VOTE_COMMIT);
	assert_true(back.core.facts.stream_ended && back.core.side[1].done[STEP_PREPARE] && back.core.abort_asked);
	assert_int_equal(back.core.cause_step, STEP_PREPARE);
	assert_string_equal(back.cause_text, "no space");
	assert_string_equal(back.key, "key-1");
	assert_string_equal(back.party[1].endpoint, "[::1]:7");
	assert_string_equal(back.party[0].boot_id, "boot");
	assert_string_equal(back.options, "{\"priority\":1}");
	assert_int_equal(back.budget.total_ms, 120);
	assert_int_equal(back.budget.activate_ms, 6);
	assert_int_equal(back.row_version, 2);
	assert_memory_equal(back.vm, rec.vm, sizeof(rec.vm));
	struct msg_plan plan;
	assert_int_equal(store_plan_get(store, rec.id, &plan, &err), 0);
	assert_string_equal(plan.destination, "b2");
	store_migration_free(&rec);
	store_migration_free(&back);
}

static void migration__written_by_another__compare_and_set_loses(void **state)
{
	(void)state;
	struct err err;
	struct store_migration rec = a_migration(1, ""), stale;
	assert_int_equal(add(&rec, &err), 0);
	stale = rec;
	assert_int_equal(save(&rec, MIGRATION_CHECKING, &err), 0);
	assert_int_equal(save(&stale, MIGRATION_CANCELLED, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	stale.row_version = rec.row_version; /* the version alone is not enough */
	stale.core.state = MIGRATION_QUEUED;
	assert_int_equal(save(&stale, MIGRATION_CANCELLED, &err), -1);
	struct store_migration back;
	assert_int_equal(store_migration_get(store, rec.id, &back, &err), 1);
	assert_int_equal(back.core.state, MIGRATION_CHECKING);
	store_migration_free(&back);
	store_migration_free(&rec);
}

static void migration__lost_race__leaves_no_event(void **state)
{
	(void)state;
	struct err err;
	struct store_migration rec = a_migration(1, "");
	struct store_event *events = NULL;
	size_t before = 0, after = 0;
	assert_int_equal(add(&rec, &err), 0);
	assert_int_equal(store_event_list(store, rec.id, 0, 100, &events, &before, &err), 0);
	assert_int_equal(before, 1);
	store_event_list_free(events, before);
	rec.row_version = 17;
	assert_int_equal(save(&rec, MIGRATION_CHECKING, &err), -1);
	assert_int_equal(store_event_list(store, rec.id, 0, 100, &events, &after, &err), 0);
	assert_int_equal(after, before);
	store_event_list_free(events, after);
	store_migration_free(&rec);
}

static void migration__second_of_one_vm__only_when_the_first_is_final(void **state)
{
	(void)state;
	struct err err;
	struct store_migration first = a_migration(1, ""), second = a_migration(1, "");
	assert_int_equal(add(&first, &err), 0);
	assert_int_equal(add(&second, &err), -1);
	assert_int_equal(err.code, ERR_BUSY);
	assert_int_equal(save(&first, MIGRATION_FAILED, &err), 0);
	assert_int_equal(add(&second, &err), 0);
	assert_true(second.id > first.id);
	store_migration_free(&first);
	store_migration_free(&second);
}

static void key__taken__conflict_and_found_by_prefix(void **state)
{
	(void)state;
	struct err err;
	uint64_t ids[2];
	struct store_migration first = a_migration(1, "night-1"), second = a_migration(2, "night-1"), third, back;
	assert_int_equal(add(&first, &err), 0);
	assert_int_equal(add(&second, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	third = a_migration(3, "night-2");
	assert_int_equal(add(&third, &err), 0);
	assert_int_equal(store_migration_by_prefix(store, "night-", ids, 2, &err), 2);
	assert_int_equal(store_migration_by_prefix(store, "night-2", ids, 2, &err), 1);
	assert_int_equal(ids[0], third.id);
	assert_int_equal(store_migration_by_prefix(store, "day", ids, 2, &err), 0);
	assert_int_equal(store_migration_by_key(store, "night-1", &back, &err), 1);
	assert_int_equal(back.id, first.id);
	store_migration_free(&back);
	store_migration_free(&first);
	store_migration_free(&second);
	store_migration_free(&third);
}

static void steps__with_the_change__in_one_transaction(void **state)
{
	(void)state;
	struct err err;
	struct store_migration rec = a_migration(1, "");
	const struct store_step due = { .side = SIDE_SOURCE, .step = STEP_CHECK, .sequence = 5 };
	const struct store_step answered = {
		.side = SIDE_SOURCE, .step = STEP_CHECK, .sequence = 5, .outcome = OUTCOME_DONE, .tries = 2
	};
	struct store_change change = { .from = MIGRATION_QUEUED, .steps = &due, .step_count = 1 };
	assert_int_equal(add(&rec, &err), 0);
	rec.core.state = MIGRATION_CHECKING;
	assert_int_equal(store_migration_save(store, &rec, &change, &err), 0);
	change = (struct store_change) { .from = MIGRATION_CHECKING, .steps = &answered, .step_count = 1 };
	assert_int_equal(store_migration_save(store, &rec, &change, &err), 0);
	sqlite3 *other = NULL;
	sqlite3_stmt *stmt = NULL;
	assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
	sqlite3_prepare_v2(other, "SELECT count(*), max(outcome), max(tries) FROM step", -1, &stmt, NULL);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	assert_int_equal(sqlite3_column_int(stmt, 0), 1);
	assert_int_equal(sqlite3_column_int(stmt, 1), OUTCOME_DONE);
	assert_int_equal(sqlite3_column_int(stmt, 2), 2);
	sqlite3_finalize(stmt);
	sqlite3_close(other);
	store_migration_free(&rec);
}

static size_t listed(struct store_filter filter)
{
	struct err err;
	struct store_migration *list = NULL;
	size_t count = 0;
	filter.limit = 100;
	assert_int_equal(store_migration_list(store, &filter, &list, &count, &err), 0);
	store_migration_list_free(list, count);
	return count;
}

static void list__filters(void **state)
{
	(void)state;
	struct err err;
	struct store_migration open = a_migration(1, ""), final = a_migration(2, ""), owed = a_migration(3, "");
	snprintf(open.source, sizeof(open.source), "c3");
	assert_int_equal(add(&open, &err) | add(&final, &err) | add(&owed, &err), 0);
	assert_int_equal(save(&final, MIGRATION_DONE, &err), 0);
	owed.core.side[1].forget_owed = true;
	assert_int_equal(save(&owed, MIGRATION_FAILED, &err), 0);
	assert_int_equal(listed((struct store_filter) { .limit = 1 }), 1);
	assert_int_equal(listed((struct store_filter) { .final_too = true }), 3);
	assert_int_equal(listed((struct store_filter) { .owed_only = true }), 1);
	assert_int_equal(listed((struct store_filter) { .state = MIGRATION_DONE }), 1);
	assert_int_equal(listed((struct store_filter) { .final_too = true, .host = "c3" }), 1);
	assert_int_equal(listed((struct store_filter) { .final_too = true, .vm = "web2" }), 1);
	assert_int_equal(listed((struct store_filter) { .final_too = true, .after = open.id }), 2);
	uint64_t counts[MIGRATION_STATES];
	assert_int_equal(store_migration_counts(store, counts, &err), 0);
	assert_int_equal(counts[MIGRATION_QUEUED], 1);
	assert_int_equal(counts[MIGRATION_DONE], 1);
	store_migration_free(&open);
	store_migration_free(&final);
	store_migration_free(&owed);
}

/* ---- hosts, events ---- */

static void host__inventory__comes_back_and_replaces(void **state)
{
	(void)state;
	struct err err;
	struct store_host host = {
		.name = "a1", .pool = "p", .key = "a1", .boot_id = "b", .journal_id = "j", .software = "1"
	};
	struct msg_vm vm = { .uuid = { 1 }, .name = "web", .state = VM_RUNNING, .memory_bytes = 5, .vcpus = 1 };
	struct msg_inventory inventory = {
		.memory_bytes = 10, .hypervisor = "sim", .software = "1", .vm_count = 1, .vms = &vm
	};
	struct msg_inventory back;
	assert_int_equal(store_host_put(store, &host, &err), 0);
	assert_int_equal(store_inventory_get(store, "a1", &back, &err), 0);
	inventory.digest = msg_inventory_digest(&inventory);
	assert_int_equal(store_inventory_put(store, "a1", &inventory, &err), 0);
	assert_int_equal(store_inventory_put(store, "a1", &inventory, &err), 0);
	snprintf(host.boot_id, sizeof(host.boot_id), "b2");
	assert_int_equal(store_host_put(store, &host, &err), 0);
	reopen();
	struct store_host *list = NULL;
	size_t count = 0;
	assert_int_equal(store_host_list(store, &list, &count, &err), 0);
	assert_int_equal(count, 1);
	assert_string_equal(list[0].boot_id, "b2");
	free(list);
	assert_int_equal(store_inventory_get(store, "a1", &back, &err), 1);
	assert_int_equal(back.vm_count, 1);
	assert_string_equal(back.vms[0].name, "web");
	assert_int_equal(back.digest, inventory.digest);
	msg_inventory_free(&back);
}

static void events__numbers_grow__paged(void **state)
{
	(void)state;
	struct err err;
	struct store_event *list = NULL;
	size_t count = 0;
	for (int i = 0; i < 5; i++) {
		struct store_event event = { .kind = "note", .host = "a1" };
		snprintf(event.text, sizeof(event.text), "%d", i);
		assert_int_equal(store_event_add(store, &event, &err), 0);
	}
	assert_int_equal(store_event_list(store, 0, 0, 2, &list, &count, &err), 0);
	assert_int_equal(count, 2);
	uint64_t after = list[1].number;
	assert_true(list[1].number > list[0].number && list[0].wall_ms > 0);
	store_event_list_free(list, count);
	assert_int_equal(store_event_list(store, 0, after, 100, &list, &count, &err), 0);
	assert_int_equal(count, 3);
	assert_string_equal(list[0].text, "2");
	store_event_list_free(list, count);
}

/* What was committed survives a kill in the middle of writing. */
static void killed__in_the_middle_of_writing__all_or_nothing(void **state)
{
	(void)state;
	int pipes[2];
	struct err err;
	store_close(store);
	store = NULL;
	assert_int_equal(pipe(pipes), 0);
	pid_t child = fork();
	if (child == 0) {
		struct store_migration rec = a_migration(1, "");
		if (store_open(&store, path, &clock_real, &err) != 0 || add(&rec, &err) != 0)
			_exit(1);
		for (uint64_t i = 0;; i++) {
			rec.kept_until_wall_ms = i;
			if (save(&rec, i % 2 ? MIGRATION_CHECKING : MIGRATION_PREPARING, &err) != 0 ||
			    write(pipes[1], &i, sizeof(i)) != sizeof(i))
				_exit(1);
		}
	}
	close(pipes[1]);
	uint64_t told = 0;
	for (int i = 0; i < 40; i++)
		assert_int_equal(read(pipes[0], &told, sizeof(told)), sizeof(told));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	uint64_t last = told;
	while (read(pipes[0], &last, sizeof(last)) == sizeof(last))
		told = last;
	close(pipes[0]);
	reopen();
	struct store_migration *list = NULL;
	size_t count = 0;
	struct store_filter filter = { .limit = 10 };
	assert_int_equal(store_migration_list(store, &filter, &list, &count, &err), 0);
	assert_int_equal(count, 1);
	assert_true(list[0].kept_until_wall_ms >= told);
	struct store_event *events = NULL;
	size_t event_count = 0;
	assert_int_equal(store_event_list(store, list[0].id, 0, 100000, &events, &event_count, &err), 0);
	assert_int_equal(event_count, list[0].row_version); /* one a transition, and the submission */
	store_event_list_free(events, event_count);
	store_migration_list_free(list, count);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(open__again__epoch_grows_and_cluster_stays),
		TEST(open__second_coordinator__is_refused),
		TEST(epoch_raise__above_what_was_seen),
		TEST(epoch__changed_by_another__writes_are_refused),
		TEST(migration__all_of_it__comes_back),
		TEST(migration__written_by_another__compare_and_set_loses),
		TEST(migration__lost_race__leaves_no_event),
		TEST(migration__second_of_one_vm__only_when_the_first_is_final),
		TEST(key__taken__conflict_and_found_by_prefix),
		TEST(steps__with_the_change__in_one_transaction),
		TEST(list__filters),
		TEST(host__inventory__comes_back_and_replaces),
		TEST(events__numbers_grow__paged),
		TEST(killed__in_the_middle_of_writing__all_or_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
