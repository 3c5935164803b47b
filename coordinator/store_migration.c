/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Migrations, their steps and plans. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "coordinator/store_room.h"

#define COLUMNS                                                                                                     \
	"id, idem_key, request_digest, vm_uuid, vm_name, source, destination, state_bits, facts, side_source,"      \
	" side_destination, cause, cause_text, generation, row_version, priority, submitted_by, submitted_wall_ms," \
	" started_wall_ms, ended_wall_ms, state_wall_ms, kept_until_wall_ms, downtime_ms, suspend_ms, "             \
	"final_memory_ms,"                                                                                          \
	" final_disk_ms, verify_ms, votes_ms, activate_ms, source_boot_id, source_journal_id, source_fingerprint,"  \
	" source_endpoint, destination_boot_id, destination_journal_id, destination_fingerprint, "                  \
	"destination_endpoint,"                                                                                     \
	" options, progress, retry_of, undo_of"

void store_migration_free(struct store_migration *migration)
{
	free(migration->options);
	free(migration->progress);
	migration->options = migration->progress = NULL;
}

void store_migration_list_free(struct store_migration *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		store_migration_free(&list[i]);
	free(list);
}

static char *column_copy(sqlite3_stmt *stmt, int column)
{
	const unsigned char *text = sqlite3_column_text(stmt, column);
	return text ? strdup((const char *)text) : NULL;
}

static void read_budget(sqlite3_stmt *stmt, int column, struct msg_budget *budget)
{
	uint32_t *fields[] = { &budget->total_ms,      &budget->suspend_ms, &budget->final_memory_ms,
		               &budget->final_disk_ms, &budget->verify_ms,  &budget->votes_ms,
		               &budget->activate_ms };
	for (int i = 0; i < 7; i++)
		*fields[i] = (uint32_t)db_int(stmt, column + i);
}

static int read_migration(sqlite3_stmt *stmt, struct store_migration *m, struct err *err)
{
	char uuid[37];
	memset(m, 0, sizeof(*m));
	m->id = (uint64_t)db_int(stmt, 0);
	db_text(stmt, 1, m->key, sizeof(m->key));
	m->request_digest = (uint64_t)db_int(stmt, 2);
	db_text(stmt, 3, uuid, sizeof(uuid));
	db_text(stmt, 4, m->vm_name, sizeof(m->vm_name));
	db_text(stmt, 5, m->source, sizeof(m->source));
	db_text(stmt, 6, m->destination, sizeof(m->destination));
	struct migration_packed packed = { .state = db_int(stmt, 7),
		                           .facts = db_int(stmt, 8),
		                           .source = db_int(stmt, 9),
		                           .destination = db_int(stmt, 10),
		                           .cause = db_int(stmt, 11) };
	if (uuid_parse(uuid, m->vm) != 0 || migration_unpack(&packed, &m->core) != 0)
		return err_set(err, ERR_CORRUPT, "migration %llu in the database has impossible values",
		               (unsigned long long)m->id);
	db_text(stmt, 12, m->cause_text, sizeof(m->cause_text));
	m->generation = (uint32_t)db_int(stmt, 13);
	m->row_version = (uint64_t)db_int(stmt, 14);
	m->priority = (int32_t)db_int(stmt, 15);
	db_text(stmt, 16, m->submitted_by, sizeof(m->submitted_by));
	m->submitted_wall_ms = db_int(stmt, 17);
	m->started_wall_ms = db_int(stmt, 18);
	m->ended_wall_ms = db_int(stmt, 19);
	m->state_wall_ms = db_int(stmt, 20);
	m->kept_until_wall_ms = (uint64_t)db_int(stmt, 21);
	read_budget(stmt, 22, &m->budget);
	for (int side = 0; side < 2; side++) {
		int column = 29 + 4 * side;
		db_text(stmt, column, m->party[side].boot_id, sizeof(m->party[side].boot_id));
		db_text(stmt, column + 1, m->party[side].journal_id, sizeof(m->party[side].journal_id));
		db_text(stmt, column + 2, m->party[side].fingerprint, sizeof(m->party[side].fingerprint));
		db_text(stmt, column + 3, m->party[side].endpoint, sizeof(m->party[side].endpoint));
	}
	m->options = column_copy(stmt, 37);
	m->progress = column_copy(stmt, 38);
	m->retry_of = (uint64_t)db_int(stmt, 39);
	m->undo_of = (uint64_t)db_int(stmt, 40);
	return 0;
}

/* Whether a host still has to be told something: the row is loaded again after a restart. */
static int64_t owed_of(const struct migration_core *core)
{
	int64_t owed = 0;
	for (int i = 0; i < 2; i++)
		owed |= (int64_t)(core->side[i].cleanup_owed || core->side[i].forget_owed) << i;
	return owed;
}

static int insert_migration(struct store *store, struct store_migration *m, const void *plan, size_t plan_bytes,
                            struct err *err)
{
	struct migration_packed packed;
	char uuid[37];
	migration_pack(&m->core, &packed);
	uuid_unparse_lower(m->vm, uuid);
	m->row_version = 1;
	if (db_exec(store->db, err,
	            "INSERT INTO migration (idem_key, request_digest, vm_uuid, vm_name, source, destination, state,"
	            " state_bits, facts, side_source, side_destination, cause, cause_text, owed, generation, "
	            "row_version,"
	            " priority, submitted_by, submitted_wall_ms, started_wall_ms, ended_wall_ms, state_wall_ms,"
	            " kept_until_wall_ms, downtime_ms, suspend_ms, final_memory_ms, final_disk_ms, verify_ms, votes_ms,"
	            " activate_ms, source_boot_id, source_journal_id, source_fingerprint, source_endpoint,"
	            " destination_boot_id, destination_journal_id, destination_fingerprint, destination_endpoint, "
	            "options,"
	            " plan, retry_of, undo_of) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', 0, ?, ?, ?, ?, ?, 0, 0, ?, 0, 0, 0, 0, 0, "
	            "0, 0, 0,"
	            " '', '', '', '', '', '', '', '', ?, ?, ?, ?)",
	            "sussss"
	            "iiiiii"
	            "iuisii"
	            "sbuu",
	            m->key[0] ? m->key : NULL, m->request_digest, uuid, m->vm_name, m->source, m->destination,
	            (int64_t)m->core.state, packed.state, packed.facts, packed.source, packed.destination, packed.cause,
	            (int64_t)m->generation, m->row_version, (int64_t)m->priority, m->submitted_by, m->submitted_wall_ms,
	            m->state_wall_ms, m->options ? m->options : "{}", plan, plan_bytes, m->retry_of, m->undo_of) != 0)
		return -1;
	m->id = (uint64_t)db_last_id(store->db);
	struct store_event event = { .migration = m->id, .kind = "submitted" };
	snprintf(event.state, sizeof(event.state), "%s", migration_state_name(m->core.state));
	snprintf(event.text, sizeof(event.text), "%s from %s to %s, by %s", m->vm_name, m->source, m->destination,
	         m->submitted_by);
	return store_event_insert(store, &event, err);
}

/* 1: the VM has a migration that is not final; 0: not; -1: error. */
static int vm_is_taken(struct store *store, const struct store_migration *m, struct err *err)
{
	char uuid[37];
	uuid_unparse_lower(m->vm, uuid);
	sqlite3_stmt *stmt =
		db_query(store->db, err, "SELECT id FROM migration WHERE vm_uuid = ? AND state NOT IN (7, 9, 10, 12)",
	                 "s", uuid);
	if (!stmt)
		return -1;
	int more = db_step(store->db, stmt, err);
	if (more == 1)
		err_set(err, ERR_BUSY, "%s has migration %lld already", m->vm_name, (long long)db_int(stmt, 0));
	db_end(stmt);
	return more;
}

int store_migration_add(struct store *store, struct store_migration *migration, const struct msg_plan *plan,
                        struct err *err)
{
	void *blob = NULL;
	size_t bytes = 0;
	if (msg_plan_encode(plan, &blob, &bytes, err) != 0)
		return -1;
	int result = store_begin(store, err);
	if (result == 0) {
		bool ok = vm_is_taken(store, migration, err) == 0 &&
		          insert_migration(store, migration, blob, bytes, err) == 0;
		result = store_end(store, ok, err);
	}
	free(blob);
	return result;
}

static int save_step(struct store *store, const struct store_migration *m, const struct store_step *step,
                     struct err *err)
{
	int64_t now = store->clock->wall_ms(store->clock);
	if (db_exec(store->db, err,
	            "UPDATE step SET sequence = ?, epoch = ?, outcome = ?, tries = ?, changed_wall_ms = ?"
	            " WHERE migration = ? AND generation = ? AND side = ? AND step = ?",
	            "uuiiiuiii", step->sequence, store->epoch, (int64_t)step->outcome, (int64_t)step->tries, now, m->id,
	            (int64_t)m->generation, (int64_t)step->side, (int64_t)step->step) != 0)
		return -1;
	if (db_changes(store->db) != 0)
		return 0;
	return db_exec(store->db, err,
	               "INSERT INTO step (migration, generation, side, step, sequence, epoch, outcome, tries,"
	               " changed_wall_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
	               "uiiiuuiii", m->id, (int64_t)m->generation, (int64_t)step->side, (int64_t)step->step,
	               step->sequence, store->epoch, (int64_t)step->outcome, (int64_t)step->tries, now);
}

static int update_row(struct store *store, const struct store_migration *m, enum migration_state from, struct err *err)
{
	struct migration_packed packed;
	migration_pack(&m->core, &packed);
	const struct store_party *s = &m->party[0], *d = &m->party[1];
	if (db_exec(store->db, err,
	            "UPDATE migration SET state = ?, state_bits = ?, facts = ?, side_source = ?, side_destination = ?,"
	            " cause = ?, cause_text = ?, owed = ?, row_version = row_version + 1, started_wall_ms = ?,"
	            " ended_wall_ms = ?, state_wall_ms = ?, kept_until_wall_ms = ?, downtime_ms = ?, suspend_ms = ?,"
	            " final_memory_ms = ?, final_disk_ms = ?, verify_ms = ?, votes_ms = ?, activate_ms = ?,"
	            " source_boot_id = ?, source_journal_id = ?, source_fingerprint = ?, source_endpoint = ?,"
	            " destination_boot_id = ?, destination_journal_id = ?, destination_fingerprint = ?,"
	            " destination_endpoint = ?, progress = ?"
	            " WHERE id = ? AND state = ? AND generation = ? AND row_version = ?",
	            "iiiii"
	            "isiii"
	            "iuiiiiiii"
	            "ssss"
	            "ssss"
	            "s"
	            "uiiu",
	            (int64_t)m->core.state, packed.state, packed.facts, packed.source, packed.destination, packed.cause,
	            m->cause_text, owed_of(&m->core), m->started_wall_ms, m->ended_wall_ms, m->state_wall_ms,
	            m->kept_until_wall_ms, (int64_t)m->budget.total_ms, (int64_t)m->budget.suspend_ms,
	            (int64_t)m->budget.final_memory_ms, (int64_t)m->budget.final_disk_ms, (int64_t)m->budget.verify_ms,
	            (int64_t)m->budget.votes_ms, (int64_t)m->budget.activate_ms, s->boot_id, s->journal_id,
	            s->fingerprint, s->endpoint, d->boot_id, d->journal_id, d->fingerprint, d->endpoint, m->progress,
	            m->id, (int64_t)from, (int64_t)m->generation, m->row_version) != 0)
		return -1;
	if (db_changes(store->db) != 1)
		return err_set(err, ERR_CONFLICT,
		               "migration %llu was changed by somebody else (expected %s, row version %llu)",
		               (unsigned long long)m->id, migration_state_name(from),
		               (unsigned long long)m->row_version);
	return 0;
}

/* What others had kept at its destination, and this one has taken over: copies once it was prepared there, the source's
 * disks once it is done or has begun to copy over them. */
static int end_kept(struct store *store, const struct store_migration *m, struct err *err)
{
	char uuid[37];
	if (!migration_is_final(m->core.state))
		return 0;
	bool overwritten = m->core.state == MIGRATION_DONE || m->kept_until_wall_ms != 0;
	if (!overwritten && !migration_side_get(&m->core, SIDE_DESTINATION)->done[STEP_PREPARE])
		return 0;
	uuid_unparse_lower(m->vm, uuid);
	if (db_exec(store->db, err,
	            "UPDATE migration SET kept_until_wall_ms = 0 WHERE vm_uuid = ? AND id < ? AND destination = ?"
	            " AND state IN (9, 10) AND kept_until_wall_ms <> 0",
	            "sus", uuid, m->id, m->destination) != 0)
		return -1;
	if (!overwritten || m->undo_of == 0)
		return 0;
	return db_exec(store->db, err, "UPDATE migration SET kept_until_wall_ms = 0 WHERE id = ?", "u", m->undo_of);
}

static int save(struct store *store, const struct store_migration *m, const struct store_change *change,
                struct err *err)
{
	if (update_row(store, m, change->from, err) != 0 || end_kept(store, m, err) != 0)
		return -1;
	for (size_t i = 0; i < change->step_count; i++)
		if (save_step(store, m, &change->steps[i], err) != 0)
			return -1;
	if (!change->kind)
		return 0;
	struct store_event event = { .migration = m->id, .details = NULL };
	snprintf(event.kind, sizeof(event.kind), "%s", change->kind);
	snprintf(event.state, sizeof(event.state), "%s", migration_state_name(m->core.state));
	snprintf(event.text, sizeof(event.text), "%s", change->text ? change->text : "");
	snprintf(event.host, sizeof(event.host), "%s", change->host ? change->host : "");
	event.details = change->details ? strdup(change->details) : NULL;
	int result = store_event_insert(store, &event, err);
	free(event.details);
	return result;
}

int store_migration_save(struct store *store, struct store_migration *migration, const struct store_change *change,
                         struct err *err)
{
	if (store_begin(store, err) != 0)
		return -1;
	if (store_end(store, save(store, migration, change, err) == 0, err) != 0)
		return -1;
	migration->row_version++;
	return 0;
}

static int one(struct store *store, sqlite3_stmt *stmt, struct store_migration *ret_migration, struct err *err)
{
	if (!stmt)
		return -1;
	int result = db_step(store->db, stmt, err);
	if (result == 1 && read_migration(stmt, ret_migration, err) != 0)
		result = -1;
	db_end(stmt);
	return result;
}

int store_migration_get(struct store *store, uint64_t id, struct store_migration *ret_migration, struct err *err)
{
	sqlite3_stmt *stmt = db_query(store->db, err, "SELECT " COLUMNS " FROM migration WHERE id = ?", "u", id);
	return one(store, stmt, ret_migration, err);
}

int store_migration_by_key(struct store *store, const char *key, struct store_migration *ret_migration, struct err *err)
{
	sqlite3_stmt *stmt = db_query(store->db, err, "SELECT " COLUMNS " FROM migration WHERE idem_key = ?", "s", key);
	return one(store, stmt, ret_migration, err);
}

int store_migration_by_prefix(struct store *store, const char *prefix, uint64_t *ret_ids, int max, struct err *err)
{
	int count = 0;
	sqlite3_stmt *stmt = db_query(
		store->db, err, "SELECT id FROM migration WHERE substr(idem_key, 1, length(?)) = ? ORDER BY id LIMIT ?",
		"ssi", prefix, prefix, (int64_t)max);
	if (!stmt)
		return -1;
	int more;
	while ((more = db_step(store->db, stmt, err)) == 1 && count < max)
		ret_ids[count++] = (uint64_t)db_int(stmt, 0);
	db_end(stmt);
	return more < 0 ? -1 : count;
}

int store_plan_get(struct store *store, uint64_t id, struct msg_plan *ret_plan, struct err *err)
{
	sqlite3_stmt *stmt = db_query(store->db, err, "SELECT plan FROM migration WHERE id = ?", "u", id);
	if (!stmt)
		return -1;
	int result = db_step(store->db, stmt, err);
	if (result == 1) {
		size_t bytes = 0;
		const void *blob = db_blob(stmt, 0, &bytes);
		result = msg_plan_decode(blob, bytes, ret_plan, err);
	} else if (result == 0) {
		result = err_set(err, ERR_UNKNOWN_ID, "no migration %llu", (unsigned long long)id);
	}
	db_end(stmt);
	return result;
}

int store_migration_list(struct store *store, const struct store_filter *filter, struct store_migration **ret_list,
                         size_t *ret_count, struct err *err)
{
	size_t count = 0, room = 0;
	struct store_migration *list = NULL;
	const char *host = filter->host ? filter->host : "", *vm = filter->vm ? filter->vm : "";
	sqlite3_stmt *stmt = db_query(
		store->db, err,
		"SELECT " COLUMNS " FROM migration WHERE id > ? AND (? = 0 OR state = ?)"
		" AND (? <> 0 OR state NOT IN (7, 9, 10, 12)) AND (? = 0 OR (owed <> 0 AND state IN (7, 9, 10, 12)))"
		" AND (? = 0 OR kept_until_wall_ms > ?) AND (? = '' OR source = ? OR destination = ?)"
		" AND (? = '' OR vm_uuid = ? OR vm_name = ?) ORDER BY id LIMIT ?",
		"uiiiiiissssssi", filter->after, (int64_t)filter->state, (int64_t)filter->state,
		(int64_t)(filter->final_too || filter->state != 0 || filter->owed_only || filter->kept_only),
		(int64_t)filter->owed_only, (int64_t)filter->kept_only, store->clock->wall_ms(store->clock), host, host,
		host, vm, vm, vm, (int64_t)filter->limit);
	int more = stmt ? 1 : -1;
	while (more == 1 && count < filter->limit && (more = db_step(store->db, stmt, err)) == 1) {
		if (count == room) {
			room = room ? 2 * room : 16;
			struct store_migration *bigger = realloc(list, room * sizeof(*list));
			if (!bigger) {
				more = err_set(err, ERR_NO_MEMORY, "list migrations: no memory");
				break;
			}
			list = bigger;
		}
		if (read_migration(stmt, &list[count], err) != 0)
			more = -1;
		else
			count++;
	}
	db_end(stmt);
	if (more < 0) {
		store_migration_list_free(list, count);
		return -1;
	}
	*ret_list = list;
	*ret_count = count;
	return 0;
}

int store_migration_counts(struct store *store, uint64_t ret_counts[MIGRATION_STATES], struct err *err)
{
	memset(ret_counts, 0, MIGRATION_STATES * sizeof(*ret_counts));
	sqlite3_stmt *stmt = db_query(store->db, err, "SELECT state, count(*) FROM migration GROUP BY state", "");
	if (!stmt)
		return -1;
	int more;
	while ((more = db_step(store->db, stmt, err)) == 1) {
		int64_t state = db_int(stmt, 0);
		if (state > 0 && state < MIGRATION_STATES)
			ret_counts[state] = (uint64_t)db_int(stmt, 1);
	}
	db_end(stmt);
	return more;
}
