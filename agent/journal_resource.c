/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Answers, resources and claims. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "agent/journal_impl.h"

/* ---- answers ---- */

int journal_answer_put(struct journal *journal, uint64_t migration, uint32_t generation,
                       const struct msg_answer *answer, struct err *err)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	void *frame = NULL;
	size_t bytes = 0;
	int rc = -1;
	if (!msg)
		return err_set(err, ERR_NO_MEMORY, "no memory for an answer");
	msg->version = PROTOCOL_VERSION;
	msg->kind = MSG_ANSWER;
	msg->migration = migration;
	msg->generation = generation;
	msg->epoch = 1;
	msg->sequence = 1; /* the asker's is put in when it is sent */
	msg->u.answer = *answer;
	if (msg_encode(msg, &frame, &bytes, err) == 0) {
		(void)pthread_mutex_lock(&journal->lock);
		rc = db_exec(journal->db, err,
		             "INSERT INTO answer (migration, generation, step, frame) VALUES (?, ?, ?, ?)"
		             " ON CONFLICT DO UPDATE SET frame = excluded.frame",
		             "uuib", migration, (uint64_t)generation, (int64_t)answer->step, frame, bytes);
		(void)pthread_mutex_unlock(&journal->lock);
	}
	free(frame);
	free(msg);
	return rc;
}

static int answer_column(sqlite3_stmt *stmt, struct msg_answer *ret_answer, struct err *err)
{
	const void *frame = sqlite3_column_blob(stmt, 0);
	int bytes = sqlite3_column_bytes(stmt, 0);
	struct msg *msg = calloc(1, sizeof(*msg));
	int rc = -1;
	if (!msg)
		return err_set(err, ERR_NO_MEMORY, "no memory for an answer");
	if (!frame || bytes <= 0) {
		err_set(err, ERR_CORRUPT, "an answer in the journal is empty");
	} else if (msg_decode(frame, (size_t)bytes, msg, err) == 0) {
		if (msg->kind == MSG_ANSWER) {
			*ret_answer = msg->u.answer;
			rc = 1;
		} else {
			err_set(err, ERR_CORRUPT, "an answer in the journal is none");
		}
		msg_free(msg);
	}
	free(msg);
	return rc;
}

int journal_answer_get(struct journal *journal, uint64_t migration, uint32_t generation, enum step step,
                       struct msg_answer *ret_answer, struct err *err)
{
	(void)pthread_mutex_lock(&journal->lock);
	sqlite3_stmt *stmt = db_query(journal->db, err,
	                              "SELECT frame FROM answer WHERE migration = ? AND generation = ? AND step = ?",
	                              "uui", migration, (uint64_t)generation, (int64_t)step);
	int rc = stmt ? db_step(journal->db, stmt, err) : -1;
	if (rc == 1)
		rc = answer_column(stmt, ret_answer, err);
	db_end(stmt);
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

/* ---- resources ---- */

/* One list of numbers and of names, here and on the wire. */
_Static_assert((int)RESOURCE_DISK == HOLDING_DISK && (int)RESOURCE_RESERVE == HOLDING_RESERVE &&
                       (int)RESOURCE_EXPORT == HOLDING_EXPORT && (int)RESOURCE_VM == HOLDING_VM &&
                       (int)RESOURCE_BITMAP == HOLDING_BITMAP && (int)RESOURCE_SOURCE_DISK == HOLDING_SOURCE_DISK &&
                       (int)RESOURCE_FILE == HOLDING_FILE && (int)RESOURCE_KINDS == HOLDING_LEG,
               "a kind of resource that is none of enum holding_kind");

const char *resource_kind_name(enum resource_kind kind)
{
	return kind < RESOURCE_KINDS ? holding_kind_name((enum holding_kind)kind) : "unknown";
}

/* "" for none. */
static void vm_text(const uuid_bytes vm, char ret_text[UUID_STR_LEN])
{
	ret_text[0] = '\0';
	if (!uuid_is_null(vm))
		uuid_unparse_lower(vm, ret_text);
}

int journal_resource_add(struct journal *journal, const struct journal_resource *r, int64_t *ret_id, struct err *err)
{
	char vm[UUID_STR_LEN];
	vm_text(r->vm, vm);
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_exec(
		journal->db, err,
		"INSERT INTO resource (migration, generation, kind, state, name, path, note, pid, ticks, bytes,"
		" kept_until, vm, sr, format) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		"uuiisssiuuussi", r->migration, (uint64_t)r->generation, (int64_t)r->kind,
		(int64_t)(r->state ? r->state : RESOURCE_INTENT), r->name, r->path, r->note, (int64_t)r->process.pid,
		r->process.start_ticks, r->bytes, r->kept_until_wall_ms, vm, r->sr, (int64_t)r->format);
	if (rc == 0)
		*ret_id = sqlite3_last_insert_rowid(journal->db->handle);
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

int journal_resource_update(struct journal *journal, const struct journal_resource *r, struct err *err)
{
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_exec(journal->db, err,
	                 "UPDATE resource SET kind = ?, state = ?, name = ?, path = ?, note = ?, pid = ?, ticks = ?,"
	                 " bytes = ?, kept_until = ? WHERE id = ?",
	                 "iisssiuuui", (int64_t)r->kind, (int64_t)r->state, r->name, r->path, r->note,
	                 (int64_t)r->process.pid, r->process.start_ticks, r->bytes, r->kept_until_wall_ms, r->id);
	if (rc == 0 && db_changes(journal->db) == 0)
		rc = err_set(err, ERR_UNKNOWN_ID, "resource %" PRId64 " is not in the journal", r->id);
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

int journal_resource_gone(struct journal *journal, int64_t id, struct err *err)
{
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_exec(journal->db, err, "DELETE FROM resource WHERE id = ?", "i", id);
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

#define RESOURCE_COLUMNS \
	"id, migration, generation, kind, state, name, path, note, pid, ticks, bytes, kept_until, vm, sr, format"

/* What is taken away by its path must have one, and whole: cut, it may be another's. */
static bool resource_makes_sense(sqlite3_stmt *stmt)
{
	int64_t kind = db_int(stmt, 3);
	bool by_path = kind != RESOURCE_VM && kind != RESOURCE_BITMAP;
	const char *path =
		sqlite3_column_type(stmt, 6) == SQLITE_TEXT ? (const char *)sqlite3_column_text(stmt, 6) : "";
	size_t bytes = path ? strlen(path) : 0;
	return journal_column_is(stmt, 3, RESOURCE_DISK, RESOURCE_KINDS) &&
	       journal_column_is(stmt, 4, RESOURCE_INTENT, RESOURCE_KEPT + 1) && bytes < LIMIT_PATH &&
	       (bytes > 0 || !by_path);
}

static int resource_columns(struct journal *journal, sqlite3_stmt *stmt, struct journal_resource *ret, struct err *err)
{
	*ret = (struct journal_resource) {
		.id = db_int(stmt, 0),
		.migration = (uint64_t)db_int(stmt, 1),
		.generation = (uint32_t)db_int(stmt, 2),
		.kind = (enum resource_kind)db_int(stmt, 3),
		.state = (enum resource_state)db_int(stmt, 4),
		.process = { .pid = (pid_t)db_int(stmt, 8), .start_ticks = (uint64_t)db_int(stmt, 9) },
		.bytes = (uint64_t)db_int(stmt, 10),
		.kept_until_wall_ms = (uint64_t)db_int(stmt, 11),
	};
	if (!resource_makes_sense(stmt))
		return err_set(err, ERR_CORRUPT, "%s: resource %" PRId64 " makes no sense", journal->db->path, ret->id);
	char vm[UUID_STR_LEN];
	db_text(stmt, 5, ret->name, sizeof(ret->name));
	db_text(stmt, 6, ret->path, sizeof(ret->path));
	db_text(stmt, 7, ret->note, sizeof(ret->note));
	db_text(stmt, 12, vm, sizeof(vm));
	db_text(stmt, 13, ret->sr, sizeof(ret->sr));
	ret->format = (enum disk_format)db_int(stmt, 14);
	if (uuid_parse(vm, ret->vm) != 0)
		uuid_clear(ret->vm);
	return 0;
}

static int resource_rows(struct journal *journal, sqlite3_stmt *stmt, struct journal_resource **list, size_t *count,
                         struct err *err)
{
	size_t room = 0;
	int row;
	while ((row = db_step(journal->db, stmt, err)) == 1) {
		if (*count == room) {
			room = room ? 2 * room : 8;
			struct journal_resource *more = realloc(*list, room * sizeof(**list));
			if (!more)
				return err_set(err, ERR_NO_MEMORY, "no memory for %zu resources", room);
			*list = more;
		}
		if (resource_columns(journal, stmt, &(*list)[*count], err) < 0)
			return -1;
		(*count)++;
	}
	return row;
}

int journal_resources_read(struct journal *journal, uint64_t migration, uint32_t generation,
                           struct journal_resource **list, size_t *count, struct err *err)
{
	sqlite3_stmt *stmt = db_query(journal->db, err,
	                              "SELECT " RESOURCE_COLUMNS
	                              " FROM resource WHERE ?1 = 0 OR (migration = ?1 AND generation = ?2)"
	                              " ORDER BY id DESC",
	                              "uu", migration, (uint64_t)generation);
	int rc = stmt ? resource_rows(journal, stmt, list, count, err) : -1;
	db_end(stmt);
	return rc;
}

int journal_resource_list(struct journal *journal, uint64_t migration, uint32_t generation,
                          struct journal_resource **ret_list, size_t *ret_count, struct err *err)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	(void)pthread_mutex_lock(&journal->lock);
	int rc = journal_resources_read(journal, migration, generation, &list, &count, err);
	(void)pthread_mutex_unlock(&journal->lock);
	if (rc < 0) {
		free(list);
		return -1;
	}
	*ret_list = list;
	*ret_count = count;
	return 0;
}

/* ---- both at once ---- */

int journal_view_read(struct journal *journal, struct journal_view *ret_view, struct err *err)
{
	struct journal_view view = { NULL, NULL, 0, 0 };
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_begin_read(journal->db, err);
	if (rc == 0) {
		rc = journal_sessions_read(journal, &view.sessions, &view.session_count, err);
		if (rc == 0)
			rc = journal_resources_read(journal, 0, 0, &view.resources, &view.resource_count, err);
		db_rollback(journal->db); /* nothing was written */
	}
	(void)pthread_mutex_unlock(&journal->lock);
	if (rc < 0) {
		journal_view_free(&view);
		return -1;
	}
	*ret_view = view;
	return 0;
}

void journal_view_free(struct journal_view *view)
{
	free(view->sessions);
	free(view->resources);
	*view = (struct journal_view) { NULL, NULL, 0, 0 };
}

/* ---- what is kept ---- */

int journal_kept_find(struct journal *journal, const struct msg_plan *plan, unsigned disk,
                      struct journal_resource *ret_kept, struct err *err)
{
	const struct msg_disk *from = &plan->vm.disks[disk], *to = &plan->to[disk];
	char vm[UUID_STR_LEN];
	vm_text(plan->vm.uuid, vm);
	if (vm[0] == '\0')
		return 0;
	(void)pthread_mutex_lock(&journal->lock);
	sqlite3_stmt *stmt =
		db_query(journal->db, err,
	                 "SELECT " RESOURCE_COLUMNS " FROM resource WHERE vm = ? AND name = ? AND bytes = ?"
	                 " AND format = ? AND sr = ? AND state = 3 AND (kind = ? OR (kind = ? AND ? <> 0))"
	                 " ORDER BY id DESC LIMIT 1",
	                 "ssuisiii", vm, from->name, from->size_bytes, (int64_t)to->format, to->sr,
	                 (int64_t)RESOURCE_DISK, (int64_t)RESOURCE_SOURCE_DISK, (int64_t)plan->take_source);
	int rc = stmt ? db_step(journal->db, stmt, err) : -1;
	if (rc == 1 && resource_columns(journal, stmt, ret_kept, err) < 0)
		rc = -1;
	db_end(stmt);
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

int journal_kept_take(struct journal *journal, int64_t id, uint64_t migration, uint32_t generation,
                      enum resource_state state, struct err *err)
{
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_exec(journal->db, err,
	                 "UPDATE resource SET migration = ?, generation = ?, state = ? WHERE id = ? AND state = 3",
	                 "uuii", migration, (uint64_t)generation, (int64_t)state, id);
	if (rc == 0 && db_changes(journal->db) == 0)
		rc = err_set(err, ERR_UNKNOWN_ID, "resource %" PRId64 " is not kept any more", id);
	(void)pthread_mutex_unlock(&journal->lock);
	return rc;
}

/* ---- claims ---- */

static bool has_made(const struct journal_resource *list, size_t count, const struct journal_session *session,
                     enum resource_kind kind, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].migration == session->migration && list[i].generation == session->generation &&
		    list[i].kind == kind && list[i].state != RESOURCE_INTENT &&
		    (!name || strcmp(list[i].name, name) == 0))
			return true;
	return false;
}

/* A claim is what the host's own figures do not show yet: a VM that is made has its memory, a reserve its space. */
static int session_claims(struct journal *journal, const struct journal_session *session,
                          const struct journal_resource *made, size_t made_count, const char *sr, uint64_t *memory,
                          uint64_t *disk, struct err *err)
{
	if (session->side != SIDE_DESTINATION || session_is_final(session->core.state) || session->facts.running)
		return 0;
	if (!has_made(made, made_count, session, RESOURCE_VM, NULL))
		*memory += session->claim_memory_bytes;
	if (!sr || session->core.state > SESSION_COPYING)
		return 0;
	struct msg_plan *plan = calloc(1, sizeof(*plan));
	if (!plan)
		return err_set(err, ERR_NO_MEMORY, "no memory for a plan");
	struct journal_session again;
	int rc = journal_session_get(journal, session->migration, session->generation, &again, plan, err);
	for (uint32_t i = 0; rc == 0 && i < plan->vm.disk_count; i++)
		if (strcmp(plan->to[i].sr, sr) == 0 &&
		    !has_made(made, made_count, session, RESOURCE_RESERVE, plan->vm.disks[i].name))
			*disk += plan->vm.disks[i].size_bytes;
	free(plan);
	return rc;
}

int journal_claims(struct journal *journal, const char *sr, uint64_t *ret_memory_bytes, uint64_t *ret_disk_bytes,
                   struct err *err)
{
	struct journal_session *sessions = NULL;
	struct journal_resource *made = NULL;
	size_t count = 0, made_count = 0;
	uint64_t memory = 0, disk = 0;
	int rc = journal_session_list(journal, &sessions, &count, err);
	if (rc == 0)
		rc = journal_resource_list(journal, 0, 0, &made, &made_count, err);
	for (size_t i = 0; rc == 0 && i < count; i++)
		rc = session_claims(journal, &sessions[i], made, made_count, sr, &memory, &disk, err);
	free(sessions);
	free(made);
	if (rc < 0)
		return -1;
	if (ret_memory_bytes)
		*ret_memory_bytes = memory;
	if (ret_disk_bytes)
		*ret_disk_bytes = disk;
	return 0;
}
