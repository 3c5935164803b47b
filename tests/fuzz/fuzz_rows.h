/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rows of a database made of the input: whatever a damaged or foreign file may hold. Each column of a row of the table
 * is a byte that says of what type it is, and the value; where the input says so (or has ended) it keeps its good
 * value.
 */
#ifndef DROVER_FUZZ_ROWS_H
#define DROVER_FUZZ_ROWS_H

#include "common/db.h"
#include "tests/fuzz/fuzz_folder.h"

#define FUZZ_VALUE_BYTES 1024

static inline void fuzz_sql(struct db *db, const char *sql)
{
	char *words = NULL;
	if (sqlite3_exec(db->handle, sql, NULL, NULL, &words) == SQLITE_OK)
		return;
	fprintf(stderr, "%s: %s\n", sql, words);
	abort();
}

/* What the schema checks is left to the reader, and nothing waits for a disk. */
static inline void fuzz_db_loosen(struct db *db)
{
	fuzz_sql(db, "PRAGMA ignore_check_constraints=ON; PRAGMA foreign_keys=OFF; PRAGMA synchronous=OFF");
}

static inline int fuzz_bind(sqlite3_stmt *stmt, int index, struct fuzz_input *input)
{
	static uint8_t value[FUZZ_VALUE_BYTES];
	int64_t number;
	double real;
	unsigned bytes;
	switch (fuzz_byte(input) % 8) {
	case 1:
		return sqlite3_bind_int64(stmt, index, (int8_t)fuzz_byte(input));
	case 2:
		fuzz_take(input, &number, sizeof(number));
		return sqlite3_bind_int64(stmt, index, number);
	case 3:
		fuzz_take(input, &real, sizeof(real));
		return sqlite3_bind_double(stmt, index, real);
	case 4:
	case 5:
		bytes = fuzz_byte(input) * 4u;
		fuzz_take(input, value, bytes);
		return sqlite3_bind_text(stmt, index, (const char *)value, (int)bytes, SQLITE_TRANSIENT);
	case 6:
		bytes = fuzz_byte(input) * 4u;
		fuzz_take(input, value, bytes);
		return sqlite3_bind_blob(stmt, index, value, (int)bytes, SQLITE_TRANSIENT);
	default:
		return SQLITE_OK; /* NULL: what is there stays */
	}
}

struct fuzz_table {
	sqlite3_stmt *update;
	int columns;
};

/* Prepares to replace values of all rows of `name`, but of the columns in `except` ("": none). */
static inline struct fuzz_table fuzz_table(struct db *db, const char *name, const char *except)
{
	struct fuzz_table table = { 0 };
	char sql[4096];
	sqlite3_stmt *stmt = NULL;
	size_t used = (size_t)snprintf(sql, sizeof(sql), "UPDATE OR IGNORE %s SET ", name);
	fuzz_must(sqlite3_prepare_v2(db->handle, "SELECT name FROM pragma_table_info(?)", -1, &stmt, NULL) ==
	                          SQLITE_OK &&
	                  sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC) == SQLITE_OK,
	          sqlite3_errmsg(db->handle), NULL);
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		const char *column = (const char *)sqlite3_column_text(stmt, 0);
		if (strstr(except, column) == NULL)
			used += (size_t)snprintf(sql + used, sizeof(sql) - used, "%s%s = coalesce(?, %s)",
			                         table.columns++ > 0 ? ", " : "", column, column);
	}
	sqlite3_finalize(stmt);
	fuzz_must(table.columns > 0 && used < sizeof(sql), "no such table", NULL);
	fuzz_must(sqlite3_prepare_v2(db->handle, sql, -1, &table.update, NULL) == SQLITE_OK, sqlite3_errmsg(db->handle),
	          NULL);
	return table;
}

/* A value that even this schema does not take leaves all as it is. */
static inline void fuzz_rows(const struct fuzz_table *table, struct fuzz_input *input)
{
	sqlite3_clear_bindings(table->update);
	for (int i = 0; i < table->columns; i++)
		fuzz_must(fuzz_bind(table->update, i + 1, input) == SQLITE_OK, "bind", NULL);
	while (sqlite3_step(table->update) == SQLITE_ROW)
		;
	sqlite3_reset(table->update);
}

#endif
