/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Schema, epoch, events. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/paths.h"
#include "coordinator/store_room.h"

#define CLUSTER_ID_BYTES 16

static const struct db_migration schema[] = {
	{ "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), cluster_id TEXT NOT NULL, epoch INTEGER NOT NULL);"
	  "CREATE TABLE host (name TEXT PRIMARY KEY, pool TEXT NOT NULL, key_name TEXT NOT NULL, boot_id TEXT NOT NULL,"
	  " journal_id TEXT NOT NULL, software TEXT NOT NULL, first_seen_wall_ms INTEGER NOT NULL,"
	  " last_seen_wall_ms INTEGER NOT NULL, inventory BLOB, inventory_digest INTEGER);"
	  "CREATE TABLE vm (host TEXT NOT NULL REFERENCES host(name), uuid TEXT NOT NULL, name TEXT NOT NULL,"
	  " state INTEGER NOT NULL, memory_bytes INTEGER NOT NULL, PRIMARY KEY (host, uuid));"
	  "CREATE INDEX vm_by_name ON vm (name);"
	  "CREATE INDEX vm_by_uuid ON vm (uuid);"
	  "CREATE TABLE migration (id INTEGER PRIMARY KEY AUTOINCREMENT, idem_key TEXT UNIQUE,"
	  " request_digest INTEGER NOT NULL, vm_uuid TEXT NOT NULL, vm_name TEXT NOT NULL, source TEXT NOT NULL,"
	  " destination TEXT NOT NULL, state INTEGER NOT NULL, state_bits INTEGER NOT NULL, facts INTEGER NOT NULL,"
	  " side_source INTEGER NOT NULL, side_destination INTEGER NOT NULL, cause INTEGER NOT NULL,"
	  " cause_text TEXT NOT NULL, owed INTEGER NOT NULL, generation INTEGER NOT NULL, row_version INTEGER NOT NULL,"
	  " priority INTEGER NOT NULL, submitted_by TEXT NOT NULL, submitted_wall_ms INTEGER NOT NULL,"
	  " started_wall_ms INTEGER NOT NULL, ended_wall_ms INTEGER NOT NULL, state_wall_ms INTEGER NOT NULL,"
	  " kept_until_wall_ms INTEGER NOT NULL, downtime_ms INTEGER NOT NULL, suspend_ms INTEGER NOT NULL,"
	  " final_memory_ms INTEGER NOT NULL, final_disk_ms INTEGER NOT NULL, verify_ms INTEGER NOT NULL,"
	  " votes_ms INTEGER NOT NULL, activate_ms INTEGER NOT NULL,"
	  " source_boot_id TEXT NOT NULL, source_journal_id TEXT NOT NULL, source_fingerprint TEXT NOT NULL,"
	  " source_endpoint TEXT NOT NULL, destination_boot_id TEXT NOT NULL, destination_journal_id TEXT NOT NULL,"
	  " destination_fingerprint TEXT NOT NULL, destination_endpoint TEXT NOT NULL,"
	  " options TEXT NOT NULL, progress TEXT, plan BLOB NOT NULL);"
	  /* 7 done, 9 cancelled, 10 failed, 12 lost: enum migration_state never changes its numbers */
	  "CREATE UNIQUE INDEX migration_one_a_vm ON migration (vm_uuid) WHERE state NOT IN (7, 9, 10, 12);"
	  "CREATE INDEX migration_open ON migration (id) WHERE state NOT IN (7, 9, 10, 12);"
	  "CREATE INDEX migration_owed ON migration (id) WHERE owed <> 0;"
	  "CREATE TABLE step (migration INTEGER NOT NULL REFERENCES migration(id), generation INTEGER NOT NULL,"
	  " side INTEGER NOT NULL, step INTEGER NOT NULL, sequence INTEGER NOT NULL, epoch INTEGER NOT NULL,"
	  " outcome INTEGER NOT NULL, tries INTEGER NOT NULL, changed_wall_ms INTEGER NOT NULL,"
	  " PRIMARY KEY (migration, generation, side, step));"
	  "CREATE TABLE event (number INTEGER PRIMARY KEY AUTOINCREMENT, wall_ms INTEGER NOT NULL, migration INTEGER,"
	  " host TEXT, kind TEXT NOT NULL, state TEXT, text TEXT NOT NULL, details TEXT);"
	  "CREATE INDEX event_by_migration ON event (migration, number);" },
	{ "ALTER TABLE migration ADD COLUMN retry_of INTEGER NOT NULL DEFAULT 0;"
	  "ALTER TABLE migration ADD COLUMN undo_of INTEGER NOT NULL DEFAULT 0;"
	  "CREATE INDEX migration_by_vm ON migration (vm_uuid, id);" },
};

static int write_epoch(struct store *store, uint64_t from, uint64_t to, struct err *err)
{
	if (db_exec(store->db, err, "UPDATE meta SET epoch = ? WHERE id = 1 AND epoch = ?", "uu", to, from) != 0)
		return -1;
	if (db_changes(store->db) != 1)
		return err_set(err, ERR_STALE, "the epoch is not %llu any more: another coordinator writes here",
		               (unsigned long long)from);
	return 0;
}

static int read_meta(struct store *store, bool *ret_found, struct err *err)
{
	sqlite3_stmt *stmt = db_query(store->db, err, "SELECT cluster_id, epoch FROM meta WHERE id = 1", "");
	if (!stmt)
		return -1;
	int more = db_step(store->db, stmt, err);
	*ret_found = more == 1;
	if (more == 1) {
		db_text(stmt, 0, store->cluster_id, sizeof(store->cluster_id));
		store->epoch = (uint64_t)db_int(stmt, 1);
	}
	db_end(stmt);
	return more < 0 ? -1 : 0;
}

static int start_epoch(struct store *store, struct err *err)
{
	bool found = false;
	if (read_meta(store, &found, err) != 0)
		return -1;
	if (!found) {
		random_hex(store->cluster_id, CLUSTER_ID_BYTES);
		store->epoch = 0;
		if (db_exec(store->db, err, "INSERT INTO meta (id, cluster_id, epoch) VALUES (1, ?, 0)", "s",
		            store->cluster_id) != 0)
			return -1;
	}
	if (write_epoch(store, store->epoch, store->epoch + 1, err) != 0)
		return -1;
	store->epoch++;
	return 0;
}

/* Other records than those that were kept here are not begun in silence: numbers of migrations would come again.
 * 1: there is a marker, and it is theirs; 0: there is none yet. */
static int check_marker(const struct store *store, const char *marker, struct err *err)
{
	char known[LIMIT_ID];
	int found = db_marker_read(marker, known, err);
	if (found <= 0 || strcmp(known, store->cluster_id) == 0)
		return found;
	return err_set(
		err, ERR_CORRUPT,
		"%s: not the records that were kept here, which are gone; put them back from a backup, or remove "
		"%s to begin with none",
		store->db->path, marker);
}

int store_open(struct store **ret_store, const char *path, const struct clock *clock, struct err *err)
{
	char marker[PATHS_MAX + 32];
	struct store *store = calloc(1, sizeof(*store));
	if (!store)
		return err_set(err, ERR_NO_MEMORY, "open %s: no memory", path);
	(void)snprintf(marker, sizeof(marker), "%.*s.id", (int)sizeof(marker) - 4, path);
	store->clock = clock;
	if (db_open(&store->db, path, schema, sizeof(schema) / sizeof(schema[0]), true, err) != 0)
		goto out;
	if (db_begin(store->db, err) != 0)
		goto out;
	int marked = start_epoch(store, err) == 0 ? check_marker(store, marker, err) : -1;
	if (store_end(store, marked >= 0, err) != 0)
		goto out;
	if (marked == 0 && db_marker_write(marker, store->cluster_id, err) != 0)
		goto out;
	*ret_store = store;
	return 0;
out:
	store_close(store);
	if (err && err->code == ERR_CORRUPT)
		return err_wrap(err, "the coordinator does not start until a backup of its records is put back");
	return err_wrap(err, "open the coordinator's records");
}

void store_close(struct store *store)
{
	if (!store)
		return;
	db_close(store->db);
	free(store);
}

const struct err *store_trouble(const struct store *store)
{
	return db_trouble(store->db);
}

const char *store_cluster_id(const struct store *store)
{
	return store->cluster_id;
}

uint64_t store_epoch(const struct store *store)
{
	return store->epoch;
}

int store_epoch_raise(struct store *store, uint64_t above, struct err *err)
{
	if (above < store->epoch)
		return 0;
	if (above >= INT64_MAX - 1)
		return err_set(err, ERR_PROTOCOL, "epoch %llu cannot be raised any more", (unsigned long long)above);
	if (store_begin(store, err) != 0)
		return -1;
	if (store_end(store, write_epoch(store, store->epoch, above + 1, err) == 0, err) != 0)
		return -1;
	store->epoch = above + 1;
	return 0;
}

int store_begin(struct store *store, struct err *err)
{
	if (db_begin(store->db, err) != 0)
		return -1;
	sqlite3_stmt *stmt = db_query(store->db, err, "SELECT epoch FROM meta WHERE id = 1", "");
	int more = stmt ? db_step(store->db, stmt, err) : -1;
	uint64_t epoch = more == 1 ? (uint64_t)db_int(stmt, 0) : 0;
	db_end(stmt);
	if (more >= 0 && epoch == store->epoch)
		return 0;
	db_rollback(store->db);
	if (more < 0)
		return -1;
	return err_set(err, ERR_STALE, "epoch %llu is over, the database has %llu: another coordinator writes here",
	               (unsigned long long)store->epoch, (unsigned long long)epoch);
}

int store_end(struct store *store, bool ok, struct err *err)
{
	if (ok)
		return db_commit(store->db, err);
	db_rollback(store->db);
	return -1;
}

/* ---- events ---- */

static const char *or_null(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

int store_event_insert(struct store *store, const struct store_event *event, struct err *err)
{
	return db_exec(store->db, err,
	               "INSERT INTO event (wall_ms, migration, host, kind, state, text, details)"
	               " VALUES (?, ?, ?, ?, ?, ?, ?)",
	               "iusssss", store->clock->wall_ms(store->clock), event->migration, or_null(event->host),
	               event->kind, or_null(event->state), event->text, event->details);
}

int store_event_add(struct store *store, const struct store_event *event, struct err *err)
{
	if (store_begin(store, err) != 0)
		return -1;
	return store_end(store, store_event_insert(store, event, err) == 0, err);
}

static char *column_copy(sqlite3_stmt *stmt, int column)
{
	const unsigned char *text = sqlite3_column_text(stmt, column);
	return text ? strdup((const char *)text) : NULL;
}

static void read_event(sqlite3_stmt *stmt, struct store_event *event)
{
	event->number = (uint64_t)db_int(stmt, 0);
	event->wall_ms = db_int(stmt, 1);
	event->migration = (uint64_t)db_int(stmt, 2);
	db_text(stmt, 3, event->host, sizeof(event->host));
	db_text(stmt, 4, event->kind, sizeof(event->kind));
	db_text(stmt, 5, event->state, sizeof(event->state));
	db_text(stmt, 6, event->text, sizeof(event->text));
	event->details = column_copy(stmt, 7);
}

int store_event_list(struct store *store, uint64_t migration, uint64_t after, unsigned limit,
                     struct store_event **ret_list, size_t *ret_count, struct err *err)
{
	struct store_event *list = calloc(limit ? limit : 1, sizeof(*list));
	size_t count = 0;
	if (!list)
		return err_set(err, ERR_NO_MEMORY, "list events: no memory");
	sqlite3_stmt *stmt = db_query(store->db, err,
	                              "SELECT number, wall_ms, migration, host, kind, state, text, details FROM event"
	                              " WHERE number > ? AND (? = 0 OR migration = ?) ORDER BY number LIMIT ?",
	                              "uuui", after, migration, migration, (int64_t)limit);
	int more = stmt ? 1 : -1;
	while (more == 1 && count < limit && (more = db_step(store->db, stmt, err)) == 1)
		read_event(stmt, &list[count++]);
	db_end(stmt);
	if (more < 0) {
		store_event_list_free(list, count);
		return -1;
	}
	*ret_list = list;
	*ret_count = count;
	return 0;
}

void store_event_list_free(struct store_event *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(list[i].details);
	free(list);
}
