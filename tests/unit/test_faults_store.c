/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coordinator's records on a disk, a file system and a heap that fail: tests/faults/fault_rig.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/store.h"
#include "coordinator/store_room.h"
#include "tests/faults/fault_rig.h"
#include "tests/faults/fault_vfs.h"

static struct store *store;

/* ---- a clock that stands ---- */

static int64_t no_time(const struct clock *self)
{
	(void)self;
	return 1000;
}

static const struct clock standing = { .now_ns = no_time, .wall_ms = no_time };

/* ---- the rig ---- */

static int open_store(const char *folder, struct err *err)
{
	char path[160];
	(void)snprintf(path, sizeof(path), "%s/lib/coordinator.db", folder);
	store = NULL;
	return store_open(&store, path, &standing, err);
}

static void close_store(void)
{
	store_close(store);
	store = NULL;
}

static sqlite3 *handle(void)
{
	return store->db->handle;
}

static struct msg_plan a_plan(unsigned char vm)
{
	struct msg_plan plan = { .max_downtime_ms = 300, .on_slow = ON_SLOW_WAIT, .timeout_s = 60 };
	plan.vm.uuid[0] = vm;
	(void)snprintf(plan.vm.name, sizeof(plan.vm.name), "web%u", vm);
	(void)snprintf(plan.new_name, sizeof(plan.new_name), "web%u", vm);
	(void)snprintf(plan.source, sizeof(plan.source), "a1");
	(void)snprintf(plan.destination, sizeof(plan.destination), "b1");
	plan.vm.state = VM_RUNNING;
	plan.vm.memory_bytes = 1 << 20;
	plan.vm.vcpus = 1;
	return plan;
}

static struct store_host a_host(const char *name)
{
	struct store_host host = { .pool = "A", .key = "key-a1", .boot_id = "boot", .journal_id = "journal" };
	(void)snprintf(host.name, sizeof(host.name), "%s", name);
	(void)snprintf(host.software, sizeof(host.software), "0.1.0");
	return host;
}

static int add(unsigned char vm, const char *key, struct err *err)
{
	struct msg_plan plan = a_plan(vm);
	struct store_migration rec = { .generation = 1, .request_digest = 7, .submitted_wall_ms = 1000 };
	migration_init(&rec.core);
	rec.vm[0] = vm;
	(void)snprintf(rec.vm_name, sizeof(rec.vm_name), "web%u", vm);
	(void)snprintf(rec.source, sizeof(rec.source), "a1");
	(void)snprintf(rec.destination, sizeof(rec.destination), "b1");
	(void)snprintf(rec.key, sizeof(rec.key), "%s", key);
	(void)snprintf(rec.submitted_by, sizeof(rec.submitted_by), "alice");
	return store_migration_add(store, &rec, &plan, err);
}

static struct msg_vm inventory_vms[2];
static struct msg_inventory an_inventory(unsigned count)
{
	struct msg_inventory inventory = { .digest = 40 + count, .vms = inventory_vms, .vm_count = count };
	(void)snprintf(inventory.hypervisor, sizeof(inventory.hypervisor), "sim");
	(void)snprintf(inventory.software, sizeof(inventory.software), "0.1.0");
	for (unsigned i = 0; i < count; i++) {
		inventory_vms[i] = (struct msg_vm) { .uuid = { 1, (unsigned char)i }, .state = VM_RUNNING, .vcpus = 1 };
		inventory_vms[i].memory_bytes = 1 << 20;
		(void)snprintf(inventory_vms[i].name, sizeof(inventory_vms[i].name), "vm%u", i);
	}
	return inventory;
}

static void fill(void)
{
	struct err err;
	struct store_host host = a_host("a1");
	struct msg_inventory inventory = an_inventory(1);
	struct store_event event = { .migration = 1, .kind = "note", .text = "words" };
	event.details = strdup("{\"more\":1}");
	if (store_host_put(store, &host, &err) != 0 || store_inventory_put(store, "a1", &inventory, &err) != 0 ||
	    add(1, "first", &err) != 0 || add(2, "", &err) != 0 || store_event_add(store, &event, &err) != 0)
		fail_msg("%s", err.text);
	free(event.details);
}

static void check(bool filled)
{
	struct store_migration *list = NULL;
	struct store_event *events = NULL;
	struct store_host *hosts = NULL;
	size_t count = 0;
	struct err err;
	struct store_filter filter = { .limit = 10 };
	assert_true(store_epoch(store) > (filled ? 1 : 0));
	assert_int_equal(strlen(store_cluster_id(store)), 32);
	assert_int_equal(store_migration_list(store, &filter, &list, &count, &err), 0);
	assert_int_equal(count, filled ? 2 : 0);
	store_migration_list_free(list, count);
	assert_int_equal(store_event_list(store, 0, 0, 10, &events, &count, &err), 0);
	assert_int_equal(count, filled ? 3 : 0);
	store_event_list_free(events, count);
	assert_int_equal(store_host_list(store, &hosts, &count, &err), 0);
	assert_int_equal(count, filled ? 1 : 0);
	free(hosts);
}

static const struct fault_rig rig = { .file = "lib/coordinator.db",
	                              .beside = "lib/coordinator.db.id",
	                              .open = open_store,
	                              .close = close_store,
	                              .handle = handle,
	                              .fill = fill,
	                              .check = check };

/* ---- the calls ---- */

static int call_epoch_raise(struct err *err)
{
	uint64_t before = store_epoch(store);
	int rc = store_epoch_raise(store, 500, err);
	assert_int_equal(store_epoch(store), rc == 0 ? 501 : before);
	return rc;
}

static int call_host_put(struct err *err)
{
	struct store_host host = a_host("b1");
	return store_host_put(store, &host, err);
}

static int call_host_seen(struct err *err)
{
	return store_host_seen(store, "a1", 4711, err);
}

static int call_host_list(struct err *err)
{
	struct store_host *list = NULL;
	size_t count = 0;
	int rc = store_host_list(store, &list, &count, err);
	if (rc == 0) {
		assert_int_equal(count, 1);
		assert_string_equal(list[0].name, "a1");
		assert_string_equal(list[0].journal_id, "journal");
		assert_string_equal(list[0].software, "0.1.0");
	}
	free(list);
	return rc;
}

static int call_inventory_put(struct err *err)
{
	struct msg_inventory inventory = an_inventory(2);
	return store_inventory_put(store, "a1", &inventory, err);
}

static int call_inventory_get(struct err *err)
{
	struct msg_inventory inventory;
	int rc = store_inventory_get(store, "a1", &inventory, err);
	assert_int_not_equal(rc, 0);
	if (rc != 1)
		return -1;
	assert_int_equal(inventory.vm_count, 1);
	assert_string_equal(inventory.vms[0].name, "vm0");
	msg_inventory_free(&inventory);
	return 0;
}

static int call_add(struct err *err)
{
	return add(3, "third", err);
}

static int check_first(struct store_migration *rec)
{
	assert_int_equal(rec->id, 1);
	assert_string_equal(rec->vm_name, "web1");
	assert_string_equal(rec->key, "first");
	assert_string_equal(rec->destination, "b1");
	assert_string_equal(rec->submitted_by, "alice");
	assert_non_null(rec->options);
	assert_int_equal(rec->vm[0], 1);
	store_migration_free(rec);
	return 0;
}

static int call_get(struct err *err)
{
	struct store_migration rec;
	int rc = store_migration_get(store, 1, &rec, err);
	assert_int_not_equal(rc, 0);
	return rc == 1 ? check_first(&rec) : -1;
}

static int call_by_key(struct err *err)
{
	struct store_migration rec;
	int rc = store_migration_by_key(store, "first", &rec, err);
	assert_int_not_equal(rc, 0);
	return rc == 1 ? check_first(&rec) : -1;
}

static int call_by_prefix(struct err *err)
{
	uint64_t ids[2];
	int rc = store_migration_by_prefix(store, "fir", ids, 2, err);
	assert_int_not_equal(rc, 0);
	if (rc == 1)
		assert_int_equal(ids[0], 1);
	return rc == 1 ? 0 : -1;
}

static int call_save(struct err *err)
{
	static const struct store_step step = { .side = SIDE_SOURCE, .step = STEP_CHECK, .sequence = 9 };
	struct store_change change = { .from = MIGRATION_QUEUED, .kind = "state", .text = "because", .host = "a1" };
	struct store_migration rec;
	change.steps = &step;
	change.step_count = 1;
	int found = store_migration_get(store, 1, &rec, err);
	assert_int_not_equal(found, 0);
	if (found != 1)
		return -1;
	uint64_t version = rec.row_version;
	rec.core.state = MIGRATION_CHECKING;
	rec.core.facts.vote[PARTY_COORDINATOR] = VOTE_ABORT;
	int rc = store_migration_save(store, &rec, &change, err);
	assert_int_equal(rec.row_version, rc == 0 ? version + 1 : version);
	store_migration_free(&rec);
	return rc;
}

static int call_plan_get(struct err *err)
{
	struct msg_plan plan;
	int rc = store_plan_get(store, 1, &plan, err);
	if (rc == 0)
		assert_string_equal(plan.vm.name, "web1");
	return rc;
}

static int call_list(struct err *err)
{
	struct store_migration *list = NULL;
	size_t count = 0;
	struct store_filter filter = { .final_too = true, .host = "a1", .limit = 10 };
	if (store_migration_list(store, &filter, &list, &count, err) != 0)
		return -1;
	assert_int_equal(count, 2);
	check_first(&list[0]);
	store_migration_list_free(list, count);
	return 0;
}

static int call_counts(struct err *err)
{
	uint64_t counts[MIGRATION_STATES];
	if (store_migration_counts(store, counts, err) != 0)
		return -1;
	assert_int_equal(counts[MIGRATION_QUEUED], 2);
	return 0;
}

static int call_event_add(struct err *err)
{
	struct store_event event = { .kind = "note", .text = "more words", .host = "a1" };
	return store_event_add(store, &event, err);
}

static int call_event_list(struct err *err)
{
	struct store_event *list = NULL;
	size_t count = 0;
	if (store_event_list(store, 1, 0, 10, &list, &count, err) != 0)
		return -1;
	assert_int_equal(count, 2);
	assert_string_equal(list[1].text, "words");
	assert_string_equal(list[1].kind, "note");
	assert_non_null(list[1].details);
	assert_string_equal(list[1].details, "{\"more\":1}");
	store_event_list_free(list, count);
	return 0;
}

static void every_call__every_fault__before_or_after(void **state)
{
	static const struct fault_call calls[] = {
		{ "epoch_raise", call_epoch_raise, false },
		{ "host_put", call_host_put, false },
		{ "host_seen", call_host_seen, false },
		{ "host_list", call_host_list, true },
		{ "inventory_put", call_inventory_put, false },
		{ "inventory_get", call_inventory_get, true },
		{ "migration_add", call_add, false },
		{ "migration_save", call_save, false },
		{ "migration_get", call_get, true },
		{ "migration_by_key", call_by_key, true },
		{ "migration_by_prefix", call_by_prefix, true },
		{ "plan_get", call_plan_get, true },
		{ "migration_list", call_list, true },
		{ "migration_counts", call_counts, true },
		{ "event_add", call_event_add, false },
		{ "event_list", call_event_list, true },
	};
	(void)state;
	fault_try_calls(&rig, calls, sizeof(calls) / sizeof(calls[0]));
}

static void open__every_fault__nothing_is_lost(void **state)
{
	(void)state;
	fault_try_open(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call__every_fault__before_or_after),
		cmocka_unit_test(open__every_fault__nothing_is_lost),
	};
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
