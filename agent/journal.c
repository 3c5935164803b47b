/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/journal_impl.h"
#include "common/clock.h"

enum { JOURNAL_ID_BYTES = 16 };

/* ---- identity ---- */

static int meta_text(struct journal *journal, const char *key, char *ret_text, size_t bytes, int64_t *ret_number,
                     struct err *err)
{
	sqlite3_stmt *stmt = db_query(journal->db, err, "SELECT value FROM meta WHERE key = ?", "s", key);
	if (!stmt)
		return -1;
	int row = db_step(journal->db, stmt, err);
	if (row == 1) {
		if (ret_text)
			db_text(stmt, 0, ret_text, bytes);
		if (ret_number)
			*ret_number = db_int(stmt, 0);
	}
	db_end(stmt);
	return row;
}

/* The marker beside the database tells a new journal from one that took the place of another (V11). */
static int identify(struct journal *journal, const char *marker, struct err *err)
{
	char fresh[2 * JOURNAL_ID_BYTES + 1], known[LIMIT_ID];
	random_hex(fresh, JOURNAL_ID_BYTES);
	int64_t epoch = 0, lost = 0;
	if (db_exec(journal->db, err, "INSERT OR IGNORE INTO meta (key, value) VALUES ('id', ?)", "s", fresh) < 0 ||
	    meta_text(journal, "id", journal->id, sizeof(journal->id), NULL, err) < 0 ||
	    meta_text(journal, "epoch", NULL, 0, &epoch, err) < 0 ||
	    meta_text(journal, "lost", NULL, 0, &lost, err) < 0)
		return -1;
	journal->epoch = (uint64_t)epoch;
	journal->lost = lost != 0;
	int found = db_marker_read(marker, known, err);
	if (found < 0)
		return -1;
	if (found == 1 && strcmp(known, journal->id) == 0)
		return 0;
	if (found == 1) { /* another journal was here before this one */
		if (db_exec(journal->db, err, "UPDATE meta SET value = 1 WHERE key = 'lost'", "") < 0)
			return -1;
		journal->lost = true;
	}
	return db_marker_write(marker, journal->id, err);
}

static int unusable(struct err *err)
{
	if (err && err->code == ERR_CORRUPT)
		return err_wrap(err,
		                "journal: this host keeps out of migrations until its journal is moved away: then it "
		                "begins a new one, and does not vote in what it no longer knows");
	return err_wrap(err, "journal");
}

int journal_find(const struct paths *paths, struct err *err)
{
	char path[PATHS_MAX + 16], marker[PATHS_MAX + 16], known[LIMIT_ID];
	struct stat st;
	(void)snprintf(path, sizeof(path), "%s/journal.db", paths->lib);
	(void)snprintf(marker, sizeof(marker), "%s/journal.id", paths->lib);
	if (stat(path, &st) < 0)
		return 0;
	if (st.st_size > 0)
		return 1;
	int marked = db_marker_read(marker, known, err);
	if (marked <= 0)
		return marked;
	err_set(err, ERR_CORRUPT, "%s: damaged (empty, and there was a journal here)", path);
	return unusable(err);
}

int journal_open(struct journal **ret_journal, const struct paths *paths, struct err *err)
{
	char path[PATHS_MAX + 16], marker[PATHS_MAX + 16];
	struct journal *journal = calloc(1, sizeof(*journal));
	if (!journal)
		return err_set(err, ERR_NO_MEMORY, "no memory for the journal");
	(void)pthread_mutex_init(&journal->lock, NULL);
	(void)snprintf(path, sizeof(path), "%s/journal.db", paths->lib);
	(void)snprintf(marker, sizeof(marker), "%s/journal.id", paths->lib);
	if (db_open(&journal->db, path, journal_migrations, journal_migration_count, false, err) < 0 ||
	    identify(journal, marker, err) < 0) {
		journal_close(journal);
		return unusable(err);
	}
	*ret_journal = journal;
	return 0;
}

void journal_close(struct journal *journal)
{
	if (!journal)
		return;
	if (journal->db)
		db_close(journal->db);
	(void)pthread_mutex_destroy(&journal->lock);
	free(journal);
}

const char *journal_id(const struct journal *journal)
{
	return journal->id;
}

bool journal_was_lost(const struct journal *journal)
{
	return journal->lost;
}

struct err journal_trouble(struct journal *journal)
{
	(void)pthread_mutex_lock(&journal->lock);
	struct err trouble = *db_trouble(journal->db);
	(void)pthread_mutex_unlock(&journal->lock);
	return trouble;
}

int journal_probe(struct journal *journal, struct err *err)
{
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_exec(journal->db, err,
	                 "INSERT INTO meta (key, value) VALUES ('probe', 1)"
	                 " ON CONFLICT (key) DO UPDATE SET value = value + 1",
	                 "");
	if (rc == 0)
		db_well(journal->db);
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

int journal_reserve(struct journal *journal, uint64_t bytes, struct err *err)
{
	return db_reserve(journal->db, bytes, err);
}

uint64_t journal_epoch(const struct journal *journal)
{
	return journal->epoch;
}

int journal_epoch_raise(struct journal *journal, uint64_t epoch, struct err *err)
{
	if (epoch < journal->epoch)
		return err_set(err, ERR_STALE,
		               "epoch %" PRIu64 " is older than %" PRIu64 ", which this host has heard of", epoch,
		               journal->epoch);
	if (epoch == journal->epoch)
		return 0;
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_exec(journal->db, err, "UPDATE meta SET value = ? WHERE key = 'epoch'", "u", epoch);
	if (rc == 0)
		journal->epoch = epoch;
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

/* ---- sessions ---- */

static const char sql_put[] =
	"INSERT INTO session (migration, generation, side, state, ready, leg_wanted, leg_up, abort_asked, failed,"
	" asked, sequence, highest, cause_code, cause_text, boot_id, leg_pid, leg_ticks, fingerprint, endpoint,"
	" peer_fingerprint, peer_endpoint, claim_memory, kept_until, total_ms, suspend_ms, final_memory_ms,"
	" final_disk_ms, verify_ms, votes_ms, activate_ms, created, plan)"
	" VALUES (?,?,?,?,?,?,?,?,?,?, ?,?,?,?,?,?,?,?,?,?, ?,?,?,?,?,?,?,?,?,?, ?,?)"
	" ON CONFLICT (migration, generation) DO UPDATE SET state = excluded.state, ready = excluded.ready,"
	" leg_wanted = excluded.leg_wanted, leg_up = excluded.leg_up, abort_asked = excluded.abort_asked,"
	" failed = excluded.failed, asked = excluded.asked, sequence = excluded.sequence, highest = excluded.highest,"
	" cause_code = excluded.cause_code, cause_text = excluded.cause_text, boot_id = excluded.boot_id,"
	" leg_pid = excluded.leg_pid, leg_ticks = excluded.leg_ticks, fingerprint = excluded.fingerprint,"
	" endpoint = excluded.endpoint, peer_fingerprint = excluded.peer_fingerprint,"
	" peer_endpoint = excluded.peer_endpoint, claim_memory = excluded.claim_memory,"
	" kept_until = excluded.kept_until, total_ms = excluded.total_ms, suspend_ms = excluded.suspend_ms,"
	" final_memory_ms = excluded.final_memory_ms, final_disk_ms = excluded.final_disk_ms,"
	" verify_ms = excluded.verify_ms, votes_ms = excluded.votes_ms, activate_ms = excluded.activate_ms,"
	" plan = coalesce(excluded.plan, plan)";

static int put_rows(struct journal *journal, const struct journal_session *s, const void *plan, size_t plan_bytes,
                    struct err *err)
{
	const struct session_core *core = &s->core;
	const struct msg_budget *b = &s->budget;
	uint64_t generation = s->generation;
	int rc = db_exec(journal->db, err, sql_put,
	                 plan ? "uuiiiiiiiiuiissiussssuuuuuuuuuib" : "uuiiiiiiiiuiissiussssuuuuuuuuuis", s->migration,
	                 generation, (int64_t)s->side, (int64_t)core->state, (int64_t)core->ready,
	                 (int64_t)core->leg_wanted, (int64_t)core->leg_up, (int64_t)core->abort_asked,
	                 (int64_t)core->failed, (int64_t)core->asked, core->sequence, (int64_t)core->highest,
	                 (int64_t)s->cause.code, s->cause.text, s->boot_id, (int64_t)s->leg.pid, s->leg.start_ticks,
	                 s->fingerprint, s->endpoint, s->peer_fingerprint, s->peer_endpoint, s->claim_memory_bytes,
	                 s->kept_until_wall_ms, (uint64_t)b->total_ms, (uint64_t)b->suspend_ms,
	                 (uint64_t)b->final_memory_ms, (uint64_t)b->final_disk_ms, (uint64_t)b->verify_ms,
	                 (uint64_t)b->votes_ms, (uint64_t)b->activate_ms, s->created_wall_ms, plan, plan_bytes);
	if (rc == 0)
		rc = db_exec(journal->db, err, "INSERT OR IGNORE INTO facts (migration, generation) VALUES (?, ?)",
		             "uu", s->migration, generation);
	if (rc == 0)
		rc = db_exec(journal->db, err,
		             "INSERT INTO generation (migration, generation) VALUES (?, ?) ON CONFLICT (migration)"
		             " DO UPDATE SET generation = excluded.generation WHERE excluded.generation > "
		             "generation.generation",
		             "uu", s->migration, generation);
	return rc;
}

int journal_session_put(struct journal *journal, const struct journal_session *session, const struct msg_plan *plan,
                        struct err *err)
{
	void *blob = NULL;
	size_t bytes = 0;
	if (plan && msg_plan_encode(plan, &blob, &bytes, err) < 0)
		return -1;
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_begin(journal->db, err);
	if (rc == 0) {
		rc = put_rows(journal, session, blob, bytes, err);
		if (rc == 0)
			rc = db_commit(journal->db, err);
		else
			db_rollback(journal->db);
	}
	(void)pthread_mutex_unlock(&journal->lock);
	free(blob);
	return rc;
}

#define SESSION_COLUMNS                                                                                          \
	"migration, generation, side, state, ready, leg_wanted, leg_up, abort_asked, failed, asked, sequence, "  \
	"highest,"                                                                                               \
	" cause_code, cause_text, boot_id, leg_pid, leg_ticks, fingerprint, endpoint, peer_fingerprint, "        \
	"peer_endpoint,"                                                                                         \
	" claim_memory, kept_until, total_ms, suspend_ms, final_memory_ms, final_disk_ms, verify_ms, votes_ms, " \
	"activate_ms,"                                                                                           \
	" created, " JOURNAL_FACT_COLUMNS ", plan"
enum { COLUMN_FACTS = 31, COLUMN_PLAN = COLUMN_FACTS + JOURNAL_FACT_COUNT };

bool journal_column_is(sqlite3_stmt *stmt, int column, int64_t least, int64_t end)
{
	int64_t value = db_int(stmt, column);
	return sqlite3_column_type(stmt, column) == SQLITE_INTEGER && value >= least && value < end;
}

/* Looked at as the database has them: as enums they may have lost bits. */
static bool enums_are_known(sqlite3_stmt *stmt)
{
	return journal_column_is(stmt, 2, SIDE_SOURCE, SIDE_DESTINATION + 1) &&
	       journal_column_is(stmt, 3, 0, SESSION_STATES) && journal_column_is(stmt, 9, 0, STEPS) &&
	       journal_column_is(stmt, 11, 0, STEPS) && journal_column_is(stmt, 12, 0, ERR_CODES);
}

static struct session_core core_columns(sqlite3_stmt *stmt)
{
	return (struct session_core) {
		.state = (enum session_state)db_int(stmt, 3),
		.side = (enum side)db_int(stmt, 2),
		.ready = db_int(stmt, 4) != 0,
		.leg_wanted = db_int(stmt, 5) != 0,
		.leg_up = db_int(stmt, 6) != 0,
		.abort_asked = db_int(stmt, 7) != 0,
		.failed = db_int(stmt, 8) != 0,
		.asked = (enum step)db_int(stmt, 9),
		.sequence = (uint64_t)db_int(stmt, 10),
		.highest = (enum step)db_int(stmt, 11),
	};
}

static int session_columns(struct journal *journal, sqlite3_stmt *stmt, struct journal_session *ret, struct err *err)
{
	*ret = (struct journal_session) {
		.migration = (uint64_t)db_int(stmt, 0),
		.generation = (uint32_t)db_int(stmt, 1),
		.side = (enum side)db_int(stmt, 2),
		.core = core_columns(stmt),
		.leg = { .pid = (pid_t)db_int(stmt, 15), .start_ticks = (uint64_t)db_int(stmt, 16) },
		.claim_memory_bytes = (uint64_t)db_int(stmt, 21),
		.kept_until_wall_ms = (uint64_t)db_int(stmt, 22),
		.budget = { (uint32_t)db_int(stmt, 23), (uint32_t)db_int(stmt, 24), (uint32_t)db_int(stmt, 25),
		            (uint32_t)db_int(stmt, 26), (uint32_t)db_int(stmt, 27), (uint32_t)db_int(stmt, 28),
		            (uint32_t)db_int(stmt, 29) },
		.created_wall_ms = db_int(stmt, 30),
	};
	if (!enums_are_known(stmt) || !journal_facts_columns(stmt, COLUMN_FACTS, &ret->facts))
		return err_set(err, ERR_CORRUPT, "%s: the row of migration %" PRIu64 " makes no sense",
		               journal->db->path, ret->migration);
	ret->cause.code = (enum err_code)db_int(stmt, 12);
	db_text(stmt, 13, ret->cause.text, sizeof(ret->cause.text));
	db_text(stmt, 14, ret->boot_id, sizeof(ret->boot_id));
	db_text(stmt, 17, ret->fingerprint, sizeof(ret->fingerprint));
	db_text(stmt, 18, ret->endpoint, sizeof(ret->endpoint));
	db_text(stmt, 19, ret->peer_fingerprint, sizeof(ret->peer_fingerprint));
	db_text(stmt, 20, ret->peer_endpoint, sizeof(ret->peer_endpoint));
	return 0;
}

int journal_session_get(struct journal *journal, uint64_t migration, uint32_t generation,
                        struct journal_session *ret_session, struct msg_plan *ret_plan, struct err *err)
{
	(void)pthread_mutex_lock(&journal->lock);
	int rc = -1;
	sqlite3_stmt *stmt = db_query(journal->db, err,
	                              "SELECT " SESSION_COLUMNS " FROM session JOIN facts USING (migration, generation)"
	                              " WHERE migration = ? AND generation = ?",
	                              "uu", migration, (uint64_t)generation);
	int row = stmt ? db_step(journal->db, stmt, err) : -1;
	if (row == 1) {
		rc = session_columns(journal, stmt, ret_session, err);
		if (rc == 0 && ret_plan) {
			const void *blob = sqlite3_column_blob(stmt, COLUMN_PLAN);
			int bytes = sqlite3_column_bytes(stmt, COLUMN_PLAN);
			if (blob && bytes > 0)
				rc = msg_plan_decode(blob, (size_t)bytes, ret_plan, err);
			else
				*ret_plan = (struct msg_plan) { 0 };
		}
	} else if (row == 0) {
		err_set(err, ERR_UNKNOWN_ID, "migration %" PRIu64 ", generation %u is not in this host's journal",
		        migration, generation);
	}
	db_end(stmt);
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

static int list_rows(struct journal *journal, sqlite3_stmt *stmt, struct journal_session **list, size_t *count,
                     struct err *err)
{
	size_t room = 0;
	int row;
	while ((row = db_step(journal->db, stmt, err)) == 1) {
		if (*count == room) {
			room = room ? 2 * room : 8;
			struct journal_session *more = realloc(*list, room * sizeof(**list));
			if (!more)
				return err_set(err, ERR_NO_MEMORY, "no memory for %zu sessions", room);
			*list = more;
		}
		if (session_columns(journal, stmt, &(*list)[*count], err) < 0)
			return -1;
		(*count)++;
	}
	return row;
}

int journal_sessions_read(struct journal *journal, struct journal_session **list, size_t *count, struct err *err)
{
	sqlite3_stmt *stmt = db_query(journal->db, err,
	                              "SELECT " SESSION_COLUMNS " FROM session JOIN facts USING (migration, generation)"
	                              " ORDER BY created, migration, generation",
	                              "");
	int rc = stmt ? list_rows(journal, stmt, list, count, err) : -1;
	db_end(stmt);
	return rc;
}

int journal_session_list(struct journal *journal, struct journal_session **ret_list, size_t *ret_count, struct err *err)
{
	struct journal_session *list = NULL;
	size_t count = 0;
	(void)pthread_mutex_lock(&journal->lock);
	int rc = journal_sessions_read(journal, &list, &count, err);
	(void)pthread_mutex_unlock(&journal->lock);
	if (rc < 0) {
		free(list);
		return -1;
	}
	*ret_list = list;
	*ret_count = count;
	return 0;
}

static int forget_rows(struct journal *journal, uint64_t migration, uint32_t generation, struct err *err)
{
	sqlite3_stmt *stmt = db_query(
		journal->db, err, "SELECT count(*) FROM resource WHERE migration = ? AND generation = ? AND state <> ?",
		"uui", migration, (uint64_t)generation, (int64_t)RESOURCE_KEPT);
	int row = stmt ? db_step(journal->db, stmt, err) : -1;
	int64_t left = row == 1 ? db_int(stmt, 0) : 0;
	db_end(stmt);
	if (row < 0)
		return -1;
	if (left > 0)
		return err_set(err, ERR_BUSY, "migration %" PRIu64 " still holds %" PRId64 " things on this host",
		               migration, left);
	if (db_exec(journal->db, err, "DELETE FROM session WHERE migration = ? AND generation = ?", "uu", migration,
	            (uint64_t)generation) < 0)
		return -1;
	if (db_changes(journal->db) == 0)
		return err_set(err, ERR_UNKNOWN_ID,
		               "migration %" PRIu64 ", generation %u is not in this host's journal", migration,
		               generation);
	return 0;
}

int journal_session_forget(struct journal *journal, uint64_t migration, uint32_t generation, struct err *err)
{
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_begin(journal->db, err);
	if (rc == 0) {
		rc = forget_rows(journal, migration, generation, err);
		if (rc == 0)
			rc = db_commit(journal->db, err);
		else
			db_rollback(journal->db);
	}
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

int journal_generation(struct journal *journal, uint64_t migration, uint32_t *ret_generation, struct err *err)
{
	(void)pthread_mutex_lock(&journal->lock);
	sqlite3_stmt *stmt =
		db_query(journal->db, err, "SELECT generation FROM generation WHERE migration = ?", "u", migration);
	int row = stmt ? db_step(journal->db, stmt, err) : -1;
	if (row == 1 &&
	    !journal_column_is(stmt, 0, 0, (int64_t)UINT32_MAX + 1)) /* read as 0, an old one would be new */
		row = err_set(err, ERR_CORRUPT, "%s: the generation of migration %" PRIu64 " makes no sense",
		              journal->db->path, migration);
	if (row >= 0)
		*ret_generation = row == 1 ? (uint32_t)db_int(stmt, 0) : 0;
	db_end(stmt);
	(void)pthread_mutex_unlock(&journal->lock);
	return row < 0 ? -1 : 0;
}
