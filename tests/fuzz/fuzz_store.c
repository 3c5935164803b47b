/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coordinator's database with anything in its rows: what is read of them is shown to people, or refused with words.
 */
#include "coordinator/api_room.h"
#include "coordinator/store_room.h"
#include "tests/fuzz/fuzz_rows.h"
#include "tests/unit/msg_samples.h"

#define HOST "a1"

static struct store *store;
static struct fuzz_table migrations, hosts, events;
static struct coordinator coordinator;
static uint64_t id;
static struct msg sample;
static struct sample_lists lists;

/* One of each that is well. */
static void fill(void)
{
	struct err err = { 0 };
	struct store_host host = { .name = HOST, .pool = "A", .key = "k", .boot_id = "b", .journal_id = "j" };
	struct store_migration rec = { .generation = 1, .vm_name = "web1", .source = HOST, .destination = "b1" };
	struct msg_plan *plan = &lists.plan;
	sample_full(&sample, MSG_COMMAND, &lists);
	migration_init(&rec.core);
	rec.vm[0] = 1;
	rec.options = strdup("{\"priority\":1}");
	fuzz_must(store_host_put(store, &host, &err) == 0, "host", &err);
	fuzz_must(store_migration_add(store, &rec, plan, &err) == 0, "migration", &err);
	id = rec.id;
	store_migration_free(&rec);
	sample_full(&sample, MSG_INVENTORY, &lists);
	fuzz_must(store_inventory_put(store, HOST, &sample.u.inventory, &err) == 0, "inventory", &err);
}

static void begin(void)
{
	char path[128];
	struct err err = { 0 };
	fuzz_folder_make();
	snprintf(path, sizeof(path), "%s/coordinator.db", fuzz_folder);
	fuzz_must(store_open(&store, path, &clock_real, &err) == 0, "open", &err);
	fill();
	fuzz_db_loosen(store->db);
	migrations = fuzz_table(store->db, "migration", "id");
	hosts = fuzz_table(store->db, "host", "name");
	events = fuzz_table(store->db, "event", "");
	coordinator.store = store;
	coordinator.clock = &clock_real;
}

static void check_core(const struct migration_core *core)
{
	struct migration_packed packed, again;
	struct migration_core core_again;
	migration_pack(core, &packed);
	fuzz_must(migration_unpack(&packed, &core_again) == 0, "a core that cannot be written", NULL);
	migration_pack(&core_again, &again);
	fuzz_must(memcmp(&packed, &again, sizeof(packed)) == 0, "another core", NULL);
	fuzz_must(core->state >= MIGRATION_QUEUED && core->state < MIGRATION_STATES, "state", NULL);
}

/* Every event has its place in every core. */
static void try_events(const struct migration_core *core)
{
	struct migration_actions actions;
	struct migration_core next;
	for (int kind = MIGRATION_EVENT_ADMITTED; kind < MIGRATION_EVENT_KINDS; kind++) {
		const struct migration_event event = { .kind = (enum migration_event_kind)kind,
			                               .side = SIDE_SOURCE,
			                               .step = STEP_ABORT,
			                               .outcome = OUTCOME_DONE,
			                               .phase = PHASE_COPYING };
		migration_step(core, &event, &next, &actions);
		fuzz_must(actions.count <= MIGRATION_ACTIONS_MAX, "too much to do", NULL);
		check_core(&next);
	}
}

static void try_migration(void)
{
	struct store_migration rec = { 0 };
	struct err err = { 0 };
	int found = store_migration_get(store, id, &rec, &err);
	if (found < 0)
		fuzz_must_be_worded(&err);
	if (found != 1)
		return;
	check_core(&rec.core);
	try_events(&rec.core);
	json_t *doc = api_migration(&coordinator, &rec);
	fuzz_must(json_is_object(doc) && json_is_string(json_object_get(doc, "state")), "not shown", NULL);
	json_decref(doc);
	store_migration_free(&rec);
}

static void try_lists(void)
{
	static const struct store_filter filters[] = { { .final_too = true, .limit = 10 },
		                                       { .owed_only = true, .limit = 10 },
		                                       { .kept_only = true, .limit = 10 },
		                                       { .host = HOST, .vm = "web1", .limit = 10 } };
	struct store_migration *list = NULL;
	struct err err = { 0 };
	size_t count = 0;
	for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
		if (store_migration_list(store, &filters[i], &list, &count, &err) == 0)
			store_migration_list_free(list, count);
		else
			fuzz_must_be_worded(&err);
	}
	uint64_t counts[MIGRATION_STATES];
	fuzz_must(store_migration_counts(store, counts, &err) == 0, "counts", &err);
}

static void try_documents(void)
{
	static const struct msg_request all = { .all = 1 };
	static const api_verb_fn verbs[] = { api_events, api_list, api_host_list, api_vm_list };
	struct err err = { 0 };
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		json_t *doc = NULL;
		if (verbs[i](&coordinator, NULL, &all, &doc, &err) != 0)
			fuzz_must_be_worded(&err);
		json_decref(doc);
	}
}

static void try_rest(void)
{
	static struct msg_plan plan;
	struct err err = { 0 };
	if (store_plan_get(store, id, &plan, &err) != 0)
		fuzz_must_be_worded(&err);
	if (hosts_load(&coordinator, &err) != 0)
		fuzz_must_be_worded(&err);
	try_documents();
	hosts_free(&coordinator);
	coordinator.hosts = NULL;
	coordinator.host_count = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct fuzz_input input = { data, bytes };
	if (store == NULL)
		begin();
	struct err err = { 0 };
	fuzz_must(db_begin(store->db, &err) == 0, "begin", &err);
	fuzz_rows(&migrations, &input);
	fuzz_rows(&hosts, &input);
	fuzz_rows(&events, &input);
	try_migration();
	try_lists();
	try_rest();
	db_rollback(store->db); /* a reader that found damage may have done it already */
	return 0;
}
