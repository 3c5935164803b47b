/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/db.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/lock.h"
#include "common/paths.h"

enum {
	BUSY_TIMEOUT_MS = 5000,    /* how long a writer waits for another process's transaction */
	BUSY_PAUSE_MS = 10,        /* between tries, where SQLite does not wait by itself */
	CHECKPOINT_PAGES = 4000,   /* 16 MiB of log: fewer checkpoints, shorter stalls */
	LOG_KEEP_BYTES = 32 << 20, /* the log file is cut back to this after a burst */
	RESERVE_ROOM = 4,          /* reserves that have to be free before one is made */
};

#define DB_RESERVE_PATH_MAX (sizeof(((struct db *)0)->path) + 16)

static enum err_code code_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
		return ERR_NO_SPACE;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL: /* the log's locks: somebody was always faster */
		return ERR_BUSY;
	case SQLITE_IOERR:
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
		return ERR_IO;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return ERR_CORRUPT;
	case SQLITE_NOMEM:
		return ERR_NO_MEMORY;
	case SQLITE_CONSTRAINT:
		return ERR_CONFLICT;
	default:
		return ERR_INTERNAL;
	}
}

static int damaged(const char *path, const char *what, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "%s: damaged (%s); stop what uses it and move it away, with its -wal and -shm",
	               path, what);
}

/* What whoever reads the message can do about it. */
static const char *remedy_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
		return "make room on its file system";
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
		return "another process holds it: look for one that hangs";
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return "it and its folder have to be writable";
	case SQLITE_CANTOPEN:
		return "look at its folder, who may write there, and at the limit of open files";
	case SQLITE_NOMEM:
		return "look for what takes the memory";
	default:
		return "look at the disk and its file system";
	}
}

/* Fills err from what the handle says about `rc`. */
static int explain(const struct db *db, int rc, const char *doing, struct err *err)
{
	const char *words = sqlite3_errmsg(db->handle);
	enum err_code code = code_of(rc);
	int errnum = (rc & 0xff) == SQLITE_IOERR || code == ERR_NO_SPACE ? sqlite3_system_errno(db->handle) : 0;
	if (code == ERR_CORRUPT)
		return damaged(db->path, words, err);
	if (code == ERR_CONFLICT || code == ERR_INTERNAL)
		return err_set(err, code, "%s: %s: %s", db->path, words, doing);
	return err_set(err, code, "%s: %.40s: %s%s%s; %s", db->path, doing, words, errnum ? ": " : "",
	               errnum ? strerror(errnum) : "", remedy_of(rc));
}

static void reserve_path(const struct db *db, char ret_path[DB_RESERVE_PATH_MAX])
{
	(void)snprintf(ret_path, DB_RESERVE_PATH_MAX, "%s.reserve", db->path);
}

static int fail(struct db *db, int rc, const char *doing, struct err *err)
{
	enum err_code code = code_of(rc);
	struct err why;
	explain(db, rc, doing, &why);
	if (code == ERR_NO_SPACE) {
		char reserve[DB_RESERVE_PATH_MAX];
		reserve_path(db, reserve);
		(void)unlink(reserve);
	}
	if (code != ERR_CONFLICT && code != ERR_INTERNAL && db->trouble.code != ERR_CORRUPT)
		db->trouble = why;
	if (err)
		*err = why;
	return -1;
}

/* Runs one of those that are prepared. */
static int again(struct db *db, struct sqlite3_stmt *stmt, struct err *err)
{
	int rc = sqlite3_step(stmt);
	int result = rc == SQLITE_DONE ? 0 : fail(db, rc, sqlite3_sql(stmt), err);
	sqlite3_reset(stmt);
	return result;
}

static int simple(struct db *db, const char *sql, struct err *err)
{
	int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? 0 : fail(db, rc, sql, err);
}

/* ---- opening ---- */

static int take_lock(const char *path, int *ret_fd, struct err *err)
{
	char name[sizeof(((struct db *)0)->path) + 8];
	snprintf(name, sizeof(name), "%s.lock", path);
	return lock_take(name, ret_fd, err);
}

/* The switch to WAL needs the file to itself for a moment, and SQLite does not always wait for it. */
static int set_wal(struct db *db, struct err *err)
{
	for (int tries = 0;; tries++) {
		struct sqlite3_stmt *stmt = NULL;
		int rc = sqlite3_prepare_v2(db->handle, "PRAGMA journal_mode=WAL", -1, &stmt, NULL);
		if (rc == SQLITE_OK)
			rc = sqlite3_step(stmt);
		bool wal = rc == SQLITE_ROW && sqlite3_stricmp((const char *)sqlite3_column_text(stmt, 0), "wal") == 0;
		if (rc == SQLITE_ROW && !wal) {
			sqlite3_finalize(stmt);
			return err_set(err, ERR_IO,
			               "%s: cannot use write-ahead logging here; put it on a local file system",
			               db->path);
		}
		int result = wal ? 0 : fail(db, rc, "open", err);
		sqlite3_finalize(stmt);
		if (wal || code_of(rc) != ERR_BUSY || tries >= BUSY_TIMEOUT_MS / BUSY_PAUSE_MS)
			return result;
		sqlite3_sleep(BUSY_PAUSE_MS);
	}
}

static int set_pragmas(struct db *db, struct err *err)
{
	char sql[256];
	sqlite3_extended_result_codes(db->handle, 1);
	sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *)NULL);
	snprintf(sql, sizeof(sql),
	         "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA cell_size_check=ON; "
	         "PRAGMA wal_autocheckpoint=%d; PRAGMA journal_size_limit=%d",
	         CHECKPOINT_PAGES, LOG_KEEP_BYTES);
	return simple(db, sql, err);
}

static int check_health(struct db *db, struct err *err)
{
	struct err inner;
	struct sqlite3_stmt *stmt = db_query(db, err, "PRAGMA quick_check(1)", "");
	if (!stmt)
		return -1;
	char words[128] = "";
	int more = db_step(db, stmt, &inner);
	db_text(stmt, 0, words, sizeof(words));
	db_end(stmt);
	if (more < 0) {
		if (err)
			*err = inner;
		return -1;
	}
	return strcmp(words, "ok") == 0 ? 0 : damaged(db->path, words, err);
}

static int read_version(struct db *db, int64_t *ret_version, struct err *err)
{
	struct sqlite3_stmt *stmt = db_query(db, err, "PRAGMA user_version", "");
	if (!stmt)
		return -1;
	int more = db_step(db, stmt, err);
	*ret_version = more == 1 ? db_int(stmt, 0) : 0;
	db_end(stmt);
	return more < 0 ? -1 : 0;
}

static int check_version(const struct db *db, int64_t version, unsigned count, struct err *err)
{
	if (version >= 0 && version <= (int64_t)count)
		return 0;
	return err_set(err, ERR_VERSION, "%s: has schema version %lld, this program knows up to %u; use a newer drover",
	               db->path, (long long)version, count);
}

static int run_steps(struct db *db, const struct db_migration *migrations, unsigned count, struct err *err)
{
	char sql[64];
	int64_t version = 0;
	/* again, now that no other process can change it */
	if (read_version(db, &version, err) < 0 || check_version(db, version, count, err) < 0)
		return -1;
	for (unsigned i = (unsigned)version; i < count; i++) {
		int rc = sqlite3_exec(db->handle, migrations[i].sql, NULL, NULL, NULL);
		if (rc != SQLITE_OK) {
			fail(db, rc, "schema", err);
			return err_wrap(err, "bring to version %u", i + 1);
		}
	}
	snprintf(sql, sizeof(sql), "PRAGMA user_version=%u", count);
	return simple(db, sql, err);
}

/* Before anything is changed: is it ours, and not too new? One without a version that has tables is another program's.
 */
static int check_ours(struct db *db, unsigned count, struct err *err)
{
	int64_t version = 0;
	struct sqlite3_stmt *stmt = db_query(db, err, "SELECT count(*) FROM sqlite_master", "");
	int row = stmt ? db_step(db, stmt, err) : -1;
	bool tables = row == 1 && db_int(stmt, 0) > 0;
	db_end(stmt);
	/* Its version after its tables: another process may be making both. */
	if (row < 0 || read_version(db, &version, err) < 0)
		return -1;
	if (version == 0 && tables)
		return err_set(err, ERR_CORRUPT, "%s: damaged (it is another program's database); move it away",
		               db->path);
	return check_version(db, version, count, err);
}

static int migrate(struct db *db, const struct db_migration *migrations, unsigned count, struct err *err)
{
	int64_t version = 0;
	if (read_version(db, &version, err) < 0 || check_version(db, version, count, err) < 0)
		return -1;
	if (version == (int64_t)count)
		return 0;
	if (db_begin(db, err) < 0)
		return -1;
	if (run_steps(db, migrations, count, err) < 0) {
		db_rollback(db);
		return -1;
	}
	return db_commit(db, err);
}

static int open_failed(const char *path, int errnum, struct err *err)
{
	enum err_code code = errnum == ENOSPC || errnum == EDQUOT ? ERR_NO_SPACE : ERR_IO;
	int rc = code == ERR_NO_SPACE ? SQLITE_FULL : errnum == EROFS ? SQLITE_READONLY : SQLITE_CANTOPEN;
	return err_set(err, code, "open %s: %s; %s", path, strerror(errnum), remedy_of(rc));
}

static int open_handle(struct db *db, struct err *err)
{
	/* made here, so that it is never readable for others: SQLite gives its own files the same mode */
	int fd = open(db->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return open_failed(db->path, errno, err);
	close(fd);
	int rc = sqlite3_open_v2(db->path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, NULL);
	if (!db->handle)
		return err_set(err, ERR_NO_MEMORY, "open %s: no memory", db->path);
	if (rc != SQLITE_OK)
		return fail(db, rc, "open", err);
	if (sqlite3_db_readonly(db->handle, "main") == 1)
		return err_set(err, ERR_IO, "%s: cannot be written; %s", db->path, remedy_of(SQLITE_READONLY));
	rc = sqlite3_prepare_v2(db->handle, "BEGIN IMMEDIATE", -1, &db->begin, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(db->handle, "COMMIT", -1, &db->commit, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(db->handle, "ROLLBACK", -1, &db->rollback, NULL);
	return rc == SQLITE_OK ? 0 : fail(db, rc, "open", err);
}

int db_open(struct db **ret_db, const char *path, const struct db_migration *migrations, unsigned count, bool exclusive,
            struct err *err)
{
	struct db *db = calloc(1, sizeof(*db));
	if (!db)
		return err_set(err, ERR_NO_MEMORY, "open %s: no memory", path);
	db->lock_fd = -1;
	int length = snprintf(db->path, sizeof(db->path), "%s", path);
	if (length < 0 || (size_t)length >= sizeof(db->path)) {
		free(db);
		return err_set(err, ERR_CONFIG, "open %.100s: path too long", path);
	}
	if ((exclusive && take_lock(path, &db->lock_fd, err) < 0) || open_handle(db, err) < 0 ||
	    set_pragmas(db, err) < 0 || check_health(db, err) < 0 || check_ours(db, count, err) < 0 ||
	    set_wal(db, err) < 0 || migrate(db, migrations, count, err) < 0) {
		db_close(db);
		return -1;
	}
	*ret_db = db;
	return 0;
}

void db_close(struct db *db)
{
	if (!db)
		return;
	sqlite3_finalize(db->begin);
	sqlite3_finalize(db->commit);
	sqlite3_finalize(db->rollback);
	sqlite3_close_v2(db->handle);
	lock_drop(NULL, db->lock_fd);
	free(db);
}

/* ---- transactions ---- */

/* Without memory not even a rollback may succeed: what is left over is taken back before anything else is done. */
static int settle(struct db *db, struct err *err)
{
	if (db->open || sqlite3_get_autocommit(db->handle))
		return 0;
	return again(db, db->rollback, err);
}

int db_begin(struct db *db, struct err *err)
{
	if (settle(db, err) < 0 || again(db, db->begin, err) < 0)
		return -1;
	db->open = true;
	return 0;
}

int db_begin_read(struct db *db, struct err *err)
{
	if (db_exec(db, err, "BEGIN", "") < 0)
		return -1;
	db->open = true; /* else it would be taken for one that was left over */
	return 0;
}

int db_commit(struct db *db, struct err *err)
{
	int result = again(db, db->commit, err);
	db_rollback(db);
	return result;
}

void db_rollback(struct db *db)
{
	db->open = false;
	(void)settle(db, NULL); /* some errors have rolled back already */
}

/* ---- statements ---- */

static int bind_one(struct sqlite3_stmt *stmt, int index, char type, va_list *args)
{
	const void *pointer;
	switch (type) {
	case 'i':
		return sqlite3_bind_int64(stmt, index, va_arg(*args, int64_t));
	case 'u':
		return sqlite3_bind_int64(stmt, index, (int64_t)va_arg(*args, uint64_t));
	case 's':
		return sqlite3_bind_text(stmt, index, va_arg(*args, const char *), -1, SQLITE_TRANSIENT);
	case 'b':
		pointer = va_arg(*args, const void *);
		return sqlite3_bind_blob64(stmt, index, pointer, va_arg(*args, size_t), SQLITE_TRANSIENT);
	default:
		return SQLITE_MISUSE;
	}
}

static struct sqlite3_stmt *prepare(struct db *db, struct err *err, const char *sql, const char *types, va_list *args)
{
	struct sqlite3_stmt *stmt = NULL;
	const char *tail = NULL;
	if (settle(db, err) < 0)
		return NULL;
	int rc = sqlite3_prepare_v2(db->handle, sql, -1, &stmt, &tail);
	if (rc != SQLITE_OK) {
		fail(db, rc, sql, err);
		return NULL;
	}
	int count = types ? (int)strlen(types) : 0;
	if (!stmt || tail[strspn(tail, " \t\n;")] || sqlite3_bind_parameter_count(stmt) != count) {
		err_set(err, ERR_INTERNAL, "%s: not one statement with %d parameters: %s", db->path, count, sql);
		sqlite3_finalize(stmt);
		return NULL;
	}
	for (int i = 0; i < count; i++) {
		rc = bind_one(stmt, i + 1, types[i], args);
		if (rc != SQLITE_OK) {
			err_set(err, code_of(rc), "%s: parameter %d of: %s", db->path, i + 1, sql);
			sqlite3_finalize(stmt);
			return NULL;
		}
	}
	return stmt;
}

int db_exec(struct db *db, struct err *err, const char *sql, const char *types, ...)
{
	va_list args;
	va_start(args, types);
	struct sqlite3_stmt *stmt = prepare(db, err, sql, types, &args);
	va_end(args);
	if (!stmt)
		return -1;
	int rc;
	while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
		;
	int result = rc == SQLITE_DONE ? 0 : fail(db, rc, sql, err);
	sqlite3_finalize(stmt);
	return result;
}

struct sqlite3_stmt *db_query(struct db *db, struct err *err, const char *sql, const char *types, ...)
{
	va_list args;
	va_start(args, types);
	struct sqlite3_stmt *stmt = prepare(db, err, sql, types, &args);
	va_end(args);
	return stmt;
}

int db_step(struct db *db, struct sqlite3_stmt *stmt, struct err *err)
{
	int rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW)
		return 1;
	if (rc == SQLITE_DONE)
		return 0;
	return fail(db, rc, sqlite3_sql(stmt), err);
}

void db_end(struct sqlite3_stmt *stmt)
{
	sqlite3_finalize(stmt);
}

/* ---- columns ---- */

int64_t db_int(struct sqlite3_stmt *stmt, int column)
{
	return sqlite3_column_type(stmt, column) == SQLITE_INTEGER ? sqlite3_column_int64(stmt, column) : 0;
}

void db_text(struct sqlite3_stmt *stmt, int column, char *ret_text, size_t bytes)
{
	bool is_text = sqlite3_column_type(stmt, column) == SQLITE_TEXT;
	const char *text = is_text ? (const char *)sqlite3_column_text(stmt, column) : NULL;
	if (!text)
		text = "";
	size_t length = strlen(text);
	if (length >= bytes) {
		length = bytes - 1;
		while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80) /* not within a character */
			length--;
	}
	memcpy(ret_text, text, length);
	ret_text[length] = '\0';
}

const void *db_blob(struct sqlite3_stmt *stmt, int column, size_t *ret_bytes)
{
	*ret_bytes = 0;
	if (sqlite3_column_type(stmt, column) != SQLITE_BLOB)
		return NULL;
	const void *blob = sqlite3_column_blob(stmt, column);
	*ret_bytes = (size_t)sqlite3_column_bytes(stmt, column);
	return blob;
}

int64_t db_last_id(const struct db *db)
{
	return sqlite3_last_insert_rowid(db->handle);
}

const struct err *db_trouble(const struct db *db)
{
	return &db->trouble;
}

void db_well(struct db *db)
{
	if (db->trouble.code != ERR_CORRUPT)
		err_clear(&db->trouble);
}

int db_changes(const struct db *db)
{
	return sqlite3_changes(db->handle);
}

/* ---- the reserve beside it ---- */

/* Half a reserve is none. */
static int fill_reserve(const char *path, int fd, uint64_t bytes, struct err *err)
{
	int errnum = posix_fallocate(fd, 0, (off_t)bytes);
	if (errnum == 0 && fsync(fd) < 0)
		errnum = errno;
	if (errnum == 0)
		return 0;
	(void)unlink(path);
	return err_errno(err, errnum == ENOSPC || errnum == EDQUOT ? ERR_NO_SPACE : ERR_IO, errnum, "%s", path);
}

int db_reserve(const struct db *db, uint64_t bytes, struct err *err)
{
	char path[DB_RESERVE_PATH_MAX];
	struct stat file;
	struct statvfs room;
	reserve_path(db, path);
	if (stat(path, &file) == 0 && (uint64_t)file.st_size >= bytes)
		return 0;
	if (statvfs(db->path, &room) < 0)
		return err_errno(err, ERR_IO, errno, "%s", db->path);
	uint64_t free_bytes = (uint64_t)room.f_bavail * room.f_frsize;
	if (free_bytes / RESERVE_ROOM < bytes)
		return err_set(err, ERR_NO_SPACE, "%s: its file system has only %llu KiB free; make room there",
		               db->path, (unsigned long long)(free_bytes >> 10));
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return open_failed(path, errno, err);
	int result = fill_reserve(path, fd, bytes, err);
	(void)close(fd);
	return result;
}

/* ---- the marker beside it ---- */

int db_marker_read(const char *path, char ret_id[LIMIT_ID], struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "%s", path);
	ssize_t bytes = read(fd, ret_id, LIMIT_ID - 1);
	int errnum = errno;
	(void)close(fd);
	if (bytes < 0)
		return err_errno(err, ERR_IO, errnum, "%s", path);
	ret_id[bytes] = '\0';
	ret_id[strcspn(ret_id, "\n")] = '\0';
	return ret_id[0] != '\0';
}

/* A new name is durable when its folder is. */
static int sync_folder(const char *path)
{
	char folder[PATHS_MAX + 32];
	(void)snprintf(folder, sizeof(folder), "%s", path);
	int fd = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int result = fd < 0 ? -1 : fsync(fd);
	int errnum = errno;
	if (fd >= 0)
		(void)close(fd);
	errno = errnum;
	return result;
}

int db_marker_write(const char *path, const char *id, struct err *err)
{
	char temporary[PATHS_MAX + 32];
	(void)snprintf(temporary, sizeof(temporary), "%s.%ld", path, (long)getpid());
	int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "%s", temporary);
	bool ok = dprintf(fd, "%s\n", id) > 0 && fsync(fd) == 0;
	int errnum = errno;
	(void)close(fd);
	if (ok && rename(temporary, path) == 0 && sync_folder(path) == 0)
		return 0;
	if (ok)
		errnum = errno;
	(void)unlink(temporary);
	return err_errno(err, ERR_IO, errnum, "%s", path);
}
