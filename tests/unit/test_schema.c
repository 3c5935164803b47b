/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Databases of older versions are brought up with their rows. tests/faults/schema/NAME-VERSION.sql holds one of each
 * version that ever was, with the rows of a real migration: a new version needs one of the version before it. Run from
 * the top.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sqlite3.h>
#include <unistd.h>

#include "agent/journal.h"
#include "agent/journal_impl.h"
#include "coordinator/store.h"
#include "coordinator/store_room.h"

#define FIXTURES "tests/faults/schema"

static char folder[64];
static struct paths paths;

static int begin(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/test_schema_XXXXXX");
	return mkdtemp(folder) && paths_init(&paths, folder, NULL) == 0 && paths_make(&paths, NULL) == 0 ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	char command[128];
	(void)snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static void path_of(const char *name, char ret_path[PATHS_MAX + 32])
{
	(void)snprintf(ret_path, PATHS_MAX + 32, "%s/%s.db", paths.lib, name);
}

/* Makes the database of a fixture. */
static void make_old(const char *name, unsigned version)
{
	char path[PATHS_MAX + 32], fixture[128];
	path_of(name, path);
	(void)snprintf(fixture, sizeof(fixture), FIXTURES "/%s-%u.sql", name, version);
	FILE *file = fopen(fixture, "r");
	if (!file)
		fail_msg("%s is missing: the version before the newest has to be kept there", fixture);
	char *sql = NULL;
	size_t bytes = 0;
	ssize_t got = getdelim(&sql, &bytes, '\0', file);
	assert_true(got > 0);
	(void)fclose(file);
	sqlite3 *db = NULL;
	char *words = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &words) != SQLITE_OK)
		fail_msg("%s: %s", fixture, words);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	free(sql);
}

/* Every table and trigger, as SQL without white space; heap. */
static char *schema_of(sqlite3 *db)
{
	sqlite3_stmt *stmt = NULL;
	sqlite3_str *text = sqlite3_str_new(db);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name", -1,
	                                    &stmt, NULL),
	                 SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW)
		for (const unsigned char *at = sqlite3_column_text(stmt, 0); *at; at++)
			if (*at > ' ')
				sqlite3_str_appendchar(text, 1, (char)*at);
	(void)sqlite3_finalize(stmt);
	return sqlite3_str_finish(text);
}

static void open_store(struct store **ret_store)
{
	char path[PATHS_MAX + 32];
	struct err err;
	path_of("coordinator", path);
	if (store_open(ret_store, path, &clock_real, &err) != 0)
		fail_msg("%s", err.text);
}

static void open_journal(struct journal **ret_journal)
{
	struct err err;
	if (journal_open(ret_journal, &paths, &err) != 0)
		fail_msg("%s", err.text);
}

static void forget(const char *name)
{
	char command[PATHS_MAX + 64];
	(void)snprintf(command, sizeof(command), "rm -f %s/%s*", paths.lib, name);
	assert_int_equal(system(command), 0);
}

static int64_t version_of(sqlite3 *db)
{
	sqlite3_stmt *stmt = NULL;
	assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	int64_t version = sqlite3_column_int64(stmt, 0);
	(void)sqlite3_finalize(stmt);
	return version;
}

static void journal__of_each_older_version__is_as_a_new_one_with_its_rows(void **state)
{
	(void)state;
	struct journal *journal = NULL;
	open_journal(&journal);
	char *wanted = schema_of(journal->db->handle);
	unsigned newest = (unsigned)version_of(journal->db->handle);
	journal_close(journal);
	forget("journal");
	for (unsigned version = 1; version < newest; version++) {
		struct journal_session row;
		struct msg_plan plan;
		struct journal_resource *list = NULL;
		size_t count = 0;
		struct err err;
		make_old("journal", version);
		open_journal(&journal);
		char *schema = schema_of(journal->db->handle);
		assert_string_equal(schema, wanted);
		sqlite3_free(schema);
		if (journal_session_get(journal, 2, 1, &row, &plan, &err) != 0)
			fail_msg("%s", err.text);
		assert_int_equal(row.core.state, SESSION_COPYING);
		assert_int_equal(row.side, SIDE_DESTINATION);
		assert_string_equal(plan.vm.name, "web1");
		assert_int_equal(journal_epoch(journal), 1);
		assert_false(journal_was_lost(journal));
		assert_int_equal(journal_resource_list(journal, 0, 0, &list, &count, &err), 0);
		assert_int_equal(count, 5);
		assert_int_equal(list[4].state, RESOURCE_KEPT);
		free(list);
		journal_close(journal);
		forget("journal");
	}
	sqlite3_free(wanted);
}

static void records__of_each_older_version__are_as_new_ones_with_their_rows(void **state)
{
	(void)state;
	struct store *store = NULL;
	open_store(&store);
	char *wanted = schema_of(store->db->handle);
	unsigned newest = (unsigned)version_of(store->db->handle);
	store_close(store);
	forget("coordinator");
	for (unsigned version = 1; version <= newest; version++) {
		struct store_migration rec;
		struct err err;
		char fixture[128];
		(void)snprintf(fixture, sizeof(fixture), FIXTURES "/coordinator-%u.sql", version);
		if (version == newest && access(fixture, F_OK) != 0)
			break; /* the newest needs none yet */
		make_old("coordinator", version);
		open_store(&store);
		char *schema = schema_of(store->db->handle);
		assert_string_equal(schema, wanted);
		sqlite3_free(schema);
		assert_int_equal(store_epoch(store), 2);
		if (store_migration_get(store, 1, &rec, &err) != 1)
			fail_msg("%s", err.text);
		assert_int_equal(rec.core.state, MIGRATION_DONE);
		assert_int_equal(rec.core.facts.vote[PARTY_DESTINATION], VOTE_COMMIT);
		assert_string_equal(rec.vm_name, "web1");
		store_migration_free(&rec);
		store_close(store);
		forget("coordinator");
	}
	sqlite3_free(wanted);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(journal__of_each_older_version__is_as_a_new_one_with_its_rows),
		TEST(records__of_each_older_version__are_as_new_ones_with_their_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
