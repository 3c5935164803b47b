/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/db.h"

static const struct db_migration steps[] = {
	{ "CREATE TABLE vm(id INTEGER PRIMARY KEY, name TEXT UNIQUE, blob BLOB) STRICT;" },
	{ "ALTER TABLE vm ADD COLUMN size INTEGER; CREATE TABLE disk(vm INTEGER NOT NULL REFERENCES vm(id)) STRICT;" },
};

static char folder[64], path[128];

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/test_db_XXXXXX");
	snprintf(path, sizeof(path), "%s/x.db", mkdtemp(folder));
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static struct db *open_at(unsigned version, bool exclusive)
{
	struct db *db = NULL;
	struct err err;
	if (db_open(&db, path, steps, version, exclusive, &err) < 0)
		fail_msg("%s", err.text);
	return db;
}

static int64_t number(struct db *db, const char *sql)
{
	struct err err;
	struct sqlite3_stmt *stmt = db_query(db, &err, sql, "");
	assert_non_null(stmt);
	assert_int_equal(db_step(db, stmt, &err), 1);
	int64_t value = db_int(stmt, 0);
	db_end(stmt);
	return value;
}

static void open__fresh__private_and_durable(void **state)
{
	(void)state;
	struct db *db = open_at(2, false);
	struct stat st;
	char mode[16];
	struct err err;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	struct sqlite3_stmt *stmt = db_query(db, &err, "PRAGMA journal_mode", "");
	assert_int_equal(db_step(db, stmt, &err), 1);
	db_text(stmt, 0, mode, sizeof(mode));
	db_end(stmt);
	assert_string_equal(mode, "wal");
	assert_int_equal(number(db, "PRAGMA synchronous"), 2);
	assert_int_equal(number(db, "PRAGMA foreign_keys"), 1);
	assert_int_equal(number(db, "PRAGMA busy_timeout"), 5000);
	assert_int_equal(number(db, "PRAGMA user_version"), 2);
	db_close(db);
	db_close(NULL);
}

static void open__older__migrated_with_its_data(void **state)
{
	(void)state;
	struct err err;
	struct db *db = open_at(1, false);
	assert_int_equal(db_exec(db, &err, "INSERT INTO vm(name) VALUES(?)", "s", "web3"), 0);
	db_close(db);
	db = open_at(2, false);
	assert_int_equal(number(db, "SELECT count(*) FROM vm WHERE name='web3' AND size IS NULL"), 1);
	db_close(db);
}

static void open__newer__refused(void **state)
{
	(void)state;
	struct db *db = open_at(2, false);
	struct err err;
	db_close(db);
	assert_int_equal(db_open(&db, path, steps, 1, false, &err), -1);
	assert_int_equal(err.code, ERR_VERSION);
	assert_non_null(strstr(err.text, path));
	assert_non_null(strstr(err.text, "version 2"));
}

static void open__of_another_program__refused_and_untouched(void **state)
{
	(void)state;
	struct db *db = NULL;
	struct err err;
	sqlite3 *other = NULL;
	assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "CREATE TABLE theirs(x)", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(db_open(&db, path, steps, 2, false, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
	assert_non_null(strstr(err.text, "another program"));
	assert_int_equal(sqlite3_exec(other, "SELECT * FROM vm", NULL, NULL, NULL), SQLITE_ERROR);
	assert_int_equal(sqlite3_close(other), SQLITE_OK);
}

static void open__step_fails__nothing_changed(void **state)
{
	(void)state;
	static const struct db_migration bad[] = {
		{ "CREATE TABLE vm(id INTEGER PRIMARY KEY, name TEXT UNIQUE, blob BLOB) STRICT;" },
		{ "CREATE TABLE more(x); CREATE TABLE vm(y);" }
	};
	struct db *db = open_at(1, false);
	struct err err;
	db_close(db);
	assert_int_equal(db_open(&db, path, bad, 2, false, &err), -1);
	assert_int_equal(err.code, ERR_INTERNAL);
	assert_non_null(strstr(err.text, "version 2"));
	db = open_at(1, false);
	assert_int_equal(number(db, "SELECT count(*) FROM sqlite_master WHERE name='more'"), 0);
	db_close(db);
}

static void open__not_a_database_or_damaged__corrupt_with_remedy(void **state)
{
	(void)state;
	struct db *db = NULL;
	struct err err;
	char noise[8192];
	memset(noise, 'x', sizeof(noise));
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, noise, sizeof(noise)), sizeof(noise));
	assert_int_equal(db_open(&db, path, steps, 2, false, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
	assert_non_null(strstr(err.text, path));
	assert_non_null(strstr(err.text, "move it away"));
	assert_int_equal(ftruncate(fd, 0), 0);
	db = open_at(1, false);
	assert_int_equal(db_begin(db, &err), 0);
	for (int i = 0; i < 500; i++)
		assert_int_equal(db_exec(db, &err, "INSERT INTO vm(name, blob) VALUES(?, ?)", "sb", i ? NULL : "x",
		                         noise, (size_t)400),
		                 0);
	assert_int_equal(db_commit(db, &err), 0);
	db_close(db);
	assert_int_equal(pwrite(fd, noise, 4096, 4096), 4096); /* the table's root page */
	close(fd);
	assert_int_equal(db_open(&db, path, steps, 1, false, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
}

static void open__no_folder__io(void **state)
{
	(void)state;
	struct db *db = NULL;
	struct err err;
	assert_int_equal(db_open(&db, "/nonexistent/x.db", steps, 2, true, &err), -1);
	assert_int_equal(err.code, ERR_IO);
	assert_int_equal(db_open(&db, folder, steps, 2, false, &err), -1);
	assert_int_equal(err.code, ERR_IO);
}

static void exclusive__held__busy_names_the_pid(void **state)
{
	(void)state;
	struct db *second = NULL, *db = open_at(2, true);
	struct err err;
	char pid[32];
	snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
	assert_int_equal(db_open(&second, path, steps, 2, true, &err), -1);
	assert_int_equal(err.code, ERR_BUSY);
	assert_non_null(strstr(err.text, pid));
	db_close(open_at(2, false)); /* who does not ask for it is let in */
	db_close(db);
	db_close(open_at(2, true));
}

static void exec__all_types__read_back(void **state)
{
	(void)state;
	struct db *db = open_at(2, false);
	struct err err;
	char text[8];
	size_t bytes = 9;
	assert_int_equal(db_exec(db, &err, "INSERT INTO vm(id, name, blob, size) VALUES(?, ?, ?, ?)", "isbu",
	                         (int64_t)-5,
	                         "w\xc3\xa9"
	                         "b\xc3\xa9\xc3\xa9",
	                         "a\0b", (size_t)3, (uint64_t)1 << 40),
	                 0);
	assert_int_equal(db_last_id(db), -5);
	assert_int_equal(db_changes(db), 1);
	assert_int_equal(db_exec(db, &err, "INSERT INTO vm(name) VALUES(?)", "s", NULL), 0);
	struct sqlite3_stmt *stmt = db_query(db, &err, "SELECT id, name, blob, size FROM vm ORDER BY id", "");
	assert_int_equal(db_step(db, stmt, &err), 1);
	assert_int_equal(db_int(stmt, 0), -5);
	assert_int_equal(db_int(stmt, 1), 0);
	db_text(stmt, 1, text, sizeof(text));
	assert_string_equal(text, "w\xc3\xa9"
	                          "b\xc3\xa9"); /* cut, but not within a character */
	assert_memory_equal(db_blob(stmt, 2, &bytes), "a\0b", 3);
	assert_int_equal(bytes, 3);
	assert_true(db_int(stmt, 3) == 1ll << 40);
	db_text(stmt, 3, text, sizeof(text));
	assert_string_equal(text, "");
	assert_int_equal(db_step(db, stmt, &err), 1);
	db_text(stmt, 1, text, sizeof(text));
	assert_string_equal(text, "");
	assert_null(db_blob(stmt, 2, &bytes));
	assert_int_equal(bytes, 0);
	assert_int_equal(db_step(db, stmt, &err), 0);
	db_end(stmt);
	db_end(NULL);
	db_close(db);
}

static void exec__bad_statements__refused_with_words(void **state)
{
	(void)state;
	struct db *db = open_at(2, false);
	struct err err;
	assert_int_equal(db_exec(db, &err, "INSRT", ""), -1);
	assert_int_equal(err.code, ERR_INTERNAL);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(db_exec(db, &err, "SELECT ?", ""), -1);
	assert_int_equal(err.code, ERR_INTERNAL);
	assert_int_equal(db_exec(db, &err, "SELECT 1; SELECT 2", ""), -1);
	assert_int_equal(db_exec(db, &err, "SELECT 1; ", NULL), 0);
	assert_null(db_query(db, &err, "SELECT * FROM none", ""));
	assert_int_equal(db_exec(db, &err, "INSERT INTO vm(name) VALUES('a')", ""), 0);
	assert_int_equal(db_exec(db, &err, "INSERT INTO vm(name) VALUES('a')", ""), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	assert_int_equal(db_exec(db, &err, "INSERT INTO disk(vm) VALUES(99)", ""), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	db_close(db);
}

static void transaction__rolled_back__nothing_there(void **state)
{
	(void)state;
	struct db *db = open_at(2, false);
	struct err err;
	assert_int_equal(db_begin(db, &err), 0);
	assert_int_equal(db_begin(db, &err), -1); /* no nesting */
	assert_int_equal(db_exec(db, &err, "INSERT INTO vm(name) VALUES('a')", ""), 0);
	db_rollback(db);
	db_rollback(db);
	assert_int_equal(number(db, "SELECT count(*) FROM vm"), 0);
	assert_int_equal(db_begin(db, &err), 0);
	assert_int_equal(db_exec(db, &err, "INSERT INTO vm(name) VALUES('b')", ""), 0);
	assert_int_equal(db_commit(db, &err), 0);
	assert_int_equal(db_commit(db, &err), -1);
	assert_int_equal(number(db, "SELECT count(*) FROM vm"), 1);
	db_close(db);
}

static void write__disk_full__no_space_and_usable_after(void **state)
{
	(void)state;
	struct db *db = open_at(2, false);
	struct err err;
	static char big[300000];
	assert_int_equal(db_exec(db, &err, "PRAGMA max_page_count=20", ""), 0);
	assert_int_equal(db_begin(db, &err), 0);
	assert_int_equal(db_exec(db, &err, "INSERT INTO vm(blob) VALUES(?)", "b", big, sizeof(big)), -1);
	assert_int_equal(err.code, ERR_NO_SPACE);
	db_rollback(db);
	assert_int_equal(db_exec(db, &err, "INSERT INTO vm(name) VALUES('small')", ""), 0);
	db_close(db);
}

static void write__other_holds_the_lock__busy(void **state)
{
	(void)state;
	struct db *a = open_at(2, false), *b = open_at(2, false);
	struct err err;
	assert_int_equal(db_exec(b, &err, "PRAGMA busy_timeout=20", ""), 0);
	assert_int_equal(db_begin(a, &err), 0);
	assert_int_equal(db_begin(b, &err), -1);
	assert_int_equal(err.code, ERR_BUSY);
	assert_int_equal(db_commit(a, &err), 0);
	assert_int_equal(db_begin(b, &err), 0);
	db_rollback(b);
	db_close(a);
	db_close(b);
}

static void read_transaction__others_write__sees_one_state_to_its_end(void **state)
{
	(void)state;
	struct db *reader = open_at(2, false), *other = open_at(2, false);
	struct err err;
	assert_int_equal(db_begin_read(reader, &err), 0);
	assert_int_equal(number(reader, "SELECT count(*) FROM vm"), 0);
	assert_int_equal(db_exec(other, &err, "INSERT INTO vm(name) VALUES('a')", ""), 0); /* nobody is held up */
	assert_int_equal(number(reader, "SELECT count(*) FROM vm"), 0);
	db_rollback(reader);
	assert_int_equal(number(reader, "SELECT count(*) FROM vm"), 1);
	db_close(reader);
	db_close(other);
}

enum { WRITERS = 4, ROWS = 25 };

_Noreturn static void writer(void)
{
	struct db *db = NULL;
	if (db_open(&db, path, steps, 2, false, NULL) < 0)
		_exit(1);
	for (int i = 0; i < ROWS; i++)
		if (db_begin(db, NULL) < 0 ||
		    db_exec(db, NULL, "INSERT INTO vm(size) SELECT count(*) FROM vm", "") < 0 ||
		    db_commit(db, NULL) < 0)
			_exit(2);
	db_close(db);
	_exit(0);
}

static void several_processes__first_open_and_writes__all_there(void **state)
{
	(void)state;
	pid_t pids[WRITERS];
	for (int i = 0; i < WRITERS; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			writer();
	}
	for (int i = 0; i < WRITERS; i++) {
		int status = -1;
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	struct db *db = open_at(2, false);
	assert_int_equal(number(db, "SELECT count(DISTINCT size) FROM vm"), WRITERS * ROWS);
	db_close(db);
}

static void crash__after_commit__row_is_there(void **state)
{
	(void)state;
	pid_t pid = fork();
	if (pid == 0) {
		struct db *db = NULL;
		if (db_open(&db, path, steps, 2, true, NULL) < 0 ||
		    db_exec(db, NULL, "INSERT INTO vm(name) VALUES('kept')", "") < 0 || db_begin(db, NULL) < 0 ||
		    db_exec(db, NULL, "INSERT INTO vm(name) VALUES('lost')", "") < 0)
			_exit(1);
		raise(SIGKILL);
	}
	int status;
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
	struct db *db = open_at(2, true); /* the lock went with the process */
	assert_int_equal(number(db, "SELECT count(*) FROM vm WHERE name='kept'"), 1);
	assert_int_equal(number(db, "SELECT count(*) FROM vm WHERE name='lost'"), 0);
	db_close(db);
}

#define DB_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

/* As when its file system is full: SQLite says the same when it may not grow. */
static void reserve__given_up_when_there_is_no_space_and_made_anew(void **state)
{
	(void)state;
	struct err err = { 0 };
	struct stat file;
	char reserve[160];
	struct db *db = open_at(1, false), *other = open_at(1, false);
	snprintf(reserve, sizeof(reserve), "%s.reserve", path);
	assert_int_equal(db_reserve(db, 65536, &err), 0);
	assert_int_equal(stat(reserve, &file), 0);
	assert_int_equal(file.st_size, 65536);
	assert_true(file.st_blocks * 512 >= 65536);
	assert_int_equal(file.st_mode & 0777, 0600);
	assert_int_equal(db_exec(other, &err, "PRAGMA max_page_count=5", ""), 0); /* a leg's handle, say */
	assert_int_equal(db_exec(other, &err, "INSERT INTO vm (name, blob) VALUES ('a', zeroblob(100000))", ""), -1);
	assert_int_equal(err.code, ERR_NO_SPACE);
	assert_int_equal(stat(reserve, &file), -1);
	assert_int_equal(db_reserve(db, 65536, &err), 0);
	assert_int_equal(stat(reserve, &file), 0);
	db_close(other);
	db_close(db);
}

static void reserve__more_than_there_is_room_for__refused_by_name(void **state)
{
	(void)state;
	struct err err = { 0 };
	struct stat file;
	char reserve[160];
	struct db *db = open_at(1, false);
	snprintf(reserve, sizeof(reserve), "%s.reserve", path);
	assert_int_equal(db_reserve(db, (uint64_t)1 << 60, &err), -1);
	assert_int_equal(err.code, ERR_NO_SPACE);
	assert_non_null(strstr(err.text, path));
	assert_non_null(strstr(err.text, "make room"));
	assert_int_equal(stat(reserve, &file), -1);
	db_close(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DB_TEST(open__fresh__private_and_durable),
		DB_TEST(open__older__migrated_with_its_data),
		DB_TEST(open__newer__refused),
		DB_TEST(open__of_another_program__refused_and_untouched),
		DB_TEST(open__step_fails__nothing_changed),
		DB_TEST(open__not_a_database_or_damaged__corrupt_with_remedy),
		DB_TEST(open__no_folder__io),
		DB_TEST(exclusive__held__busy_names_the_pid),
		DB_TEST(exec__all_types__read_back),
		DB_TEST(exec__bad_statements__refused_with_words),
		DB_TEST(transaction__rolled_back__nothing_there),
		DB_TEST(write__disk_full__no_space_and_usable_after),
		DB_TEST(write__other_holds_the_lock__busy),
		DB_TEST(read_transaction__others_write__sees_one_state_to_its_end),
		DB_TEST(several_processes__first_open_and_writes__all_there),
		DB_TEST(reserve__given_up_when_there_is_no_space_and_made_anew),
		DB_TEST(reserve__more_than_there_is_room_for__refused_by_name),
		DB_TEST(crash__after_commit__row_is_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
