/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SQLite as drover uses it: WAL, synchronous=FULL, foreign keys, a busy timeout, a schema version that is migrated
 * upwards and never refused for being old. What was committed survives a crash of process and host.
 */
#ifndef DROVER_DB_H
#define DROVER_DB_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* One step of a schema: from version N to N+1; step 0 makes an empty database version 1. */
struct db_migration {
	const char *sql;
};

struct db {
	sqlite3 *handle;
	struct sqlite3_stmt *begin, *commit, *rollback; /* made at the start: taking back should not need memory */
	bool open;                                      /* within db_begin() and its end */
	int lock_fd;                                    /* of PATH.lock, -1 if not exclusive */
	struct err trouble;                             /* db_trouble() */
	char path[512];
};

/* Opens (makes, 0600) the database and brings its schema to `count` in one transaction. Refuses one that is newer than
 * we know (ERR_VERSION), is damaged (ERR_CORRUPT: the file and the remedy are named) or cannot be written.
 * `exclusive`: takes an advisory lock on PATH.lock for the life of the handle; ERR_BUSY with the holder's pid. */
int db_open(struct db **ret_db, const char *path, const struct db_migration *migrations, unsigned count, bool exclusive,
            struct err *err);
void db_close(struct db *db);

/* BEGIN IMMEDIATE, COMMIT, ROLLBACK. After a failed commit the transaction is over, and it is unknown whether it was
 * done: what it wrote may have reached the disk, and be found there after a restart. A retry has to bear that. */
int db_begin(struct db *db, struct err *err);
int db_commit(struct db *db, struct err *err);
void db_rollback(struct db *db);
/* BEGIN of a transaction that only reads: all that is read until db_rollback() is one state of the database, and nobody
 * who writes is held up. */
int db_begin_read(struct db *db, struct err *err);

/* Errors of everything that runs SQL: ERR_NO_SPACE, ERR_BUSY (another process writes for longer than the busy timeout),
 * ERR_IO, ERR_CORRUPT, ERR_CONFLICT (a constraint of the schema), else ERR_INTERNAL. The words name the file. */

/* Prepares, binds and runs one statement that gives no rows. Parameters after `types`, one per letter:
 * i int64_t, u uint64_t (as int64), s const char * (NULL: SQL NULL), b const void * + size_t. */
int db_exec(struct db *db, struct err *err, const char *sql, const char *types, ...);
/* The same for one that gives rows: the caller steps with db_step and ends with db_end. */
struct sqlite3_stmt *db_query(struct db *db, struct err *err, const char *sql, const char *types, ...);
/* 1: a row, 0: no more, -1: error. */
int db_step(struct db *db, struct sqlite3_stmt *stmt, struct err *err);
void db_end(struct sqlite3_stmt *stmt); /* NULL is fine */

/* Column readers that never fail: NULL and wrong types read as 0 and "". Text is cut to fit. */
int64_t db_int(struct sqlite3_stmt *stmt, int column);
void db_text(struct sqlite3_stmt *stmt, int column, char *ret_text, size_t bytes);
/* A blob as SQLite holds it: valid until the next step or end. NULL and 0 bytes for anything else. */
const void *db_blob(struct sqlite3_stmt *stmt, int column, size_t *ret_bytes);
/* The rowid of the last INSERT. */
int64_t db_last_id(const struct db *db);
/* The newest failure of the machine under it (I/O, space, memory, damage) since db_well(); code ERR_NONE: none. */
const struct err *db_trouble(const struct db *db);
/* Forgets it, damage excepted: for whoever knows that something could be written. That a statement succeeded says
 * little: SQLite writes nothing where nothing changes. */
void db_well(struct db *db);
/* Rows changed by the last db_exec. */
int db_changes(const struct db *db);

/* Space that is set aside beside the database, in PATH.reserve: whoever is told ERR_NO_SPACE, by whatever handle, has
 * given it up before, and may try again. Makes it if it is not there and its file system has four times as much free:
 * what was given up is for whoever could not write. ERR_NO_SPACE: there is none, make room; the words name the file
 * system. Blocks. */
int db_reserve(const struct db *db, uint64_t bytes, struct err *err);

/* A marker is a file beside a database that holds the identity that is in it: it tells a new one from one that took the
 * place of another. 1: read, 0: there is none. */
int db_marker_read(const char *path, char ret_id[LIMIT_ID], struct err *err);
/* Replaces it; durable on return. */
int db_marker_write(const char *path, const char *id, struct err *err);

#endif
