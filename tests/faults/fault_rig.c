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
#include <unistd.h>

#include "tests/faults/fault_rig.h"
#include "tests/faults/fault_vfs.h"

#define PLACES_MAX 9999 /* no call does so much */
/* Memory is taken hundreds of times by a call, thousands of times by opening: not each of them is tried. What is done
 * to files is. */
#define OPEN_STRIDE 23
#define ONCE_STRIDE 3
#define FROM_STRIDE 19

static unsigned stride_of(const struct fault_plan *plan, bool opening)
{
	if (plan->ops != FAULT_ALLOC)
		return 1;
	return opening ? OPEN_STRIDE : plan->manner == FAULT_FROM ? FROM_STRIDE : ONCE_STRIDE;
}

static const struct fault_plan plans[] = {
	{ .name = "write: I/O error", .ops = FAULT_WRITE, .code = SQLITE_IOERR_WRITE },
	{ .name = "write: full", .ops = FAULT_WRITE, .code = SQLITE_FULL },
	{ .name = "write: full from here on", .ops = FAULT_WRITE, .code = SQLITE_FULL, .manner = FAULT_FROM },
	{ .name = "write: torn", .ops = FAULT_WRITE, .code = SQLITE_IOERR_WRITE, .manner = FAULT_TEAR },
	{ .name = "sync: I/O error", .ops = FAULT_SYNC, .code = SQLITE_IOERR_FSYNC },
	{ .name = "sync: I/O error from here on", .ops = FAULT_SYNC, .code = SQLITE_IOERR_FSYNC, .manner = FAULT_FROM },
	{ .name = "truncate: I/O error", .ops = FAULT_TRUNCATE, .code = SQLITE_IOERR_TRUNCATE },
	{ .name = "size: I/O error", .ops = FAULT_SIZE, .code = SQLITE_IOERR_FSTAT },
	{ .name = "open: impossible", .ops = FAULT_OPEN, .code = SQLITE_CANTOPEN },
	{ .name = "open: impossible from here on", .ops = FAULT_OPEN, .code = SQLITE_CANTOPEN, .manner = FAULT_FROM },
	{ .name = "delete: I/O error", .ops = FAULT_DELETE, .code = SQLITE_IOERR_DELETE },
	{ .name = "read: I/O error", .ops = FAULT_READ, .code = SQLITE_IOERR_READ },
	{ .name = "read: damaged", .ops = FAULT_READ, .code = SQLITE_CORRUPT },
	{ .name = "read: cut off", .ops = FAULT_READ, .manner = FAULT_SHORT },
	{ .name = "lock: busy", .ops = FAULT_LOCK, .code = SQLITE_BUSY },
	{ .name = "lock: I/O error", .ops = FAULT_LOCK, .code = SQLITE_IOERR_LOCK },
	{ .name = "shared memory: I/O error", .ops = FAULT_SHM_MAP, .code = SQLITE_IOERR_SHMMAP },
	{ .name = "shared memory: none", .ops = FAULT_SHM_MAP, .code = SQLITE_NOMEM },
	{ .name = "shared lock: busy", .ops = FAULT_SHM_LOCK, .code = SQLITE_BUSY },
	{ .name = "shared lock: busy from here on", .ops = FAULT_SHM_LOCK, .code = SQLITE_BUSY, .manner = FAULT_FROM },
	{ .name = "shared lock: I/O error", .ops = FAULT_SHM_LOCK, .code = SQLITE_IOERR_SHMLOCK },
	{ .name = "write: read-only from here on",
	  .ops = FAULT_WRITE | FAULT_TRUNCATE | FAULT_DELETE,
	  .code = SQLITE_READONLY,
	  .manner = FAULT_FROM },
	{ .name = "memory: none", .ops = FAULT_ALLOC },
	{ .name = "memory: none from here on", .ops = FAULT_ALLOC, .manner = FAULT_FROM },
};
enum { PLANS = sizeof(plans) / sizeof(plans[0]) };

/* ---- folders ---- */

static char root[64], work[80], model[80], left[80];

static void copy_file(const char *from, const char *to, const char *name, const char *ending)
{
	char path[256], bytes[65536];
	(void)snprintf(path, sizeof(path), "%s/%s%s", to, name, ending);
	(void)unlink(path);
	int out = -1;
	char source[256];
	(void)snprintf(source, sizeof(source), "%s/%s%s", from, name, ending);
	int in = open(source, O_RDONLY | O_CLOEXEC);
	if (in < 0)
		return;
	out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(out >= 0);
	ssize_t got;
	while ((got = read(in, bytes, sizeof(bytes))) > 0)
		assert_int_equal(write(out, bytes, (size_t)got), got);
	assert_int_equal(got, 0);
	(void)close(in);
	(void)close(out);
}

/* As a kill -9 leaves it: the shared memory is made anew from the log. */
static void copy_folder(const struct fault_rig *rig, const char *from, const char *to)
{
	char path[256];
	(void)snprintf(path, sizeof(path), "%s/%s-shm", to, rig->file);
	(void)unlink(path);
	copy_file(from, to, rig->file, "");
	copy_file(from, to, rig->file, "-wal");
	copy_file(from, to, rig->file, "-journal");
	if (rig->beside)
		copy_file(from, to, rig->beside, "");
}

static void make_folders(void)
{
	/* Nothing of this needs to survive a power cut. */
	(void)snprintf(root, sizeof(root), "%s/drover-faults-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	assert_non_null(mkdtemp(root));
	char *const folders[] = { work, model, left };
	const char *const names[] = { "work", "model", "left" };
	for (size_t i = 0; i < 3; i++) {
		(void)snprintf(folders[i], sizeof(work), "%s/%s", root, names[i]);
		char command[128];
		(void)snprintf(command, sizeof(command), "mkdir -p %s/lib", folders[i]);
		assert_int_equal(system(command), 0);
	}
}

static void remove_folders(void)
{
	char command[128];
	(void)snprintf(command, sizeof(command), "rm -rf %s", root);
	assert_int_equal(system(command), 0);
}

/* ---- what is in a database ---- */

static void dump_value(sqlite3_str *text, sqlite3_stmt *stmt, int column)
{
	int bytes = sqlite3_column_bytes(stmt, column);
	const unsigned char *blob = sqlite3_column_blob(stmt, column);
	sqlite3_str_appendf(text, " %d:", sqlite3_column_type(stmt, column));
	for (int i = 0; i < bytes; i++)
		sqlite3_str_appendf(text, blob[i] > ' ' && blob[i] < 127 ? "%c" : "\\%02x", blob[i]);
}

static void dump_query(sqlite3 *db, const char *sql, sqlite3_str *text)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
	while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(stmt); i++)
			dump_value(text, stmt, i);
		sqlite3_str_appendf(text, "\n");
		rc = SQLITE_OK;
	}
	if (rc != SQLITE_DONE)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	(void)sqlite3_finalize(stmt);
}

char *fault_dump(const char *folder, const char *file)
{
	char path[256];
	sqlite3 *db = NULL;
	sqlite3_stmt *stmt = NULL;
	(void)snprintf(path, sizeof(path), "%s/%s", folder, file);
	if (access(path, F_OK) != 0)
		return strdup("");
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_str *text = sqlite3_str_new(db);
	dump_query(db, "PRAGMA integrity_check", text);
	dump_query(db, "PRAGMA user_version", text);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name", -1,
	                                    &stmt, NULL),
	                 SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		char *sql = sqlite3_mprintf("SELECT * FROM \"%w\" ORDER BY 1, 2", sqlite3_column_text(stmt, 0));
		sqlite3_str_appendf(text, "%s\n", sqlite3_column_text(stmt, 0));
		dump_query(db, sql, text);
		sqlite3_free(sql);
	}
	(void)sqlite3_finalize(stmt);
	char *inner = sqlite3_str_finish(text), *copy = strdup(inner ? inner : "");
	sqlite3_free(inner);
	(void)sqlite3_close(db);
	return copy;
}

/* What a process that is killed now leaves. */
static char *dump_left(const struct fault_rig *rig)
{
	copy_folder(rig, work, left);
	char folder[96];
	(void)snprintf(folder, sizeof(folder), "%s", left);
	return fault_dump(folder, rig->file);
}

/* ---- one call, one fault ---- */

struct trial {
	const struct fault_rig *rig;
	const struct fault_call *call;
	struct fault_plan plan;
	const char *before, *after; /* what may be in the database */
};

#define trial_fail(trial, format, ...) \
	fail_msg("%s, %s, place %u: " format, (trial)->call->name, (trial)->plan.name, (trial)->plan.n, __VA_ARGS__)

static void open_work(const struct fault_rig *rig)
{
	struct err err;
	err_clear(&err);
	if (rig->open(work, &err) != 0)
		fail_msg("open: %s", err.text);
}

/* The words name the file, what failed, and what to do. */
static void check_err(const struct trial *trial, const struct err *err)
{
	if (err->code == ERR_NO_MEMORY)
		return; /* of which there is none for words either */
	if (!strstr(err->text, trial->rig->file) || !strstr(err->text, "; "))
		trial_fail(trial, "the words say too little: %s", err->text);
	if (err->code != ERR_IO && err->code != ERR_NO_SPACE && err->code != ERR_BUSY && err->code != ERR_CORRUPT)
		trial_fail(trial, "not the fault's code: %s: %s", err_name(err->code), err->text);
}

/* True: it is as after the call. */
static bool check_content(const struct trial *trial, bool done, const char *where)
{
	char *now = dump_left(trial->rig);
	bool after = strcmp(now, trial->after) == 0, before = strcmp(now, trial->before) == 0;
	if (!(after || (before && !done)))
		trial_fail(trial, "%s: %s, and the database is %s:\n%s\nafter:\n%s", where, done ? "done" : "failed",
		           before ? "as before" : "neither as before nor as after", now, trial->after);
	free(now);
	return after;
}

/* False: the call did not come to this place. */
static bool try_place(struct trial *trial)
{
	const struct fault_rig *rig = trial->rig;
	struct err err;
	copy_folder(rig, model, work);
	open_work(rig);
	(void)sqlite3_db_release_memory(rig->handle()); /* so that it reads */
	err_clear(&err);
	fault_arm(&trial->plan);
	int rc = trial->call->fn(&err);
	bool done = rc == 0;
	if (trial->plan.manner == FAULT_TEAR) { /* it is dead: what it would do now reaches no file either */
		rig->close();
		bool fired = fault_disarm();
		(void)check_content(trial, done && !fired, "killed");
		open_work(rig);
		rig->close();
		return fired;
	}
	bool fired = fault_disarm();
	if (!done && !fired)
		trial_fail(trial, "fails by itself: %s", err.text);
	if (!done)
		check_err(trial, &err);
	if (!trial->call->reads_only)
		(void)check_content(trial, done, "killed");
	bool damaged = err.code == ERR_CORRUPT; /* what it read stays in its cache: whoever is told so, ends */
	if (damaged) {
		rig->close();
		open_work(rig);
	}
	if (!done) {
		err_clear(&err);
		/* A failed commit is no proof that nothing was written: then it may be too late for it. */
		if (trial->call->fn(&err) != 0 && (trial->call->reads_only || !check_content(trial, false, "again")))
			trial_fail(trial, "not even when the fault is over: %s", err.text);
		if (!damaged && !trial->call->reads_only)
			(void)check_content(trial, true, "done again");
	}
	rig->close();
	if (!damaged)
		(void)check_content(trial, true, "closed");
	return fired;
}

static void try_call(const struct fault_rig *rig, const struct fault_call *call, const char *before)
{
	struct err err;
	unsigned places = 0;
	err_clear(&err);
	copy_folder(rig, model, work);
	open_work(rig);
	if (call->fn(&err) != 0)
		fail_msg("%s without a fault: %s", call->name, err.text);
	rig->close();
	char *after = dump_left(rig);
	if (call->reads_only != (strcmp(before, after) == 0))
		fail_msg("%s: reads only or does not, but the database says otherwise:\n%s\n%s", call->name, before,
		         after);
	for (int i = 0; i < PLANS; i++) {
		struct trial trial = { .rig = rig, .call = call, .plan = plans[i], .before = before, .after = after };
		unsigned stride = stride_of(&plans[i], false);
		for (trial.plan.n = 1; try_place(&trial); trial.plan.n += stride) {
			places++;
			assert_true(trial.plan.n < PLACES_MAX);
		}
	}
	free(after);
	print_message("# %s: %u places\n", call->name, places);
	if (places == 0)
		fail_msg("%s: no fault came to it", call->name);
}

void fault_try_calls(const struct fault_rig *rig, const struct fault_call *calls, size_t count)
{
	make_folders();
	open_work(rig);
	rig->fill();
	rig->close();
	copy_folder(rig, work, model);
	/* Opening may change something itself (an epoch): that is before the call. */
	open_work(rig);
	char *before = dump_left(rig);
	rig->close();
	for (size_t i = 0; i < count; i++)
		try_call(rig, &calls[i], before);
	free(before);
	remove_folders();
}

/* ---- opening ---- */

/* Whatever fails, the next one finds all that is there, or makes it new. */
static bool open_place(struct trial *trial, bool filled)
{
	const struct fault_rig *rig = trial->rig;
	struct err err;
	err_clear(&err);
	copy_folder(rig, filled ? model : left, work);
	fault_arm(&trial->plan);
	int rc = rig->open(work, &err);
	if (rc == 0)
		rig->close();
	bool fired = fault_disarm();
	if (rc != 0 && !fired)
		trial_fail(trial, "fails by itself: %s", err.text);
	if (rc != 0)
		check_err(trial, &err);
	open_work(rig);
	rig->check(filled);
	rig->close();
	return fired;
}

void fault_try_open(const struct fault_rig *rig)
{
	make_folders();
	open_work(rig);
	rig->fill();
	rig->close();
	copy_folder(rig, work, model);
	for (int filled = 0; filled < 2; filled++) {
		const struct fault_call call = { .name = filled ? "open one with rows" : "open a new one" };
		unsigned places = 0;
		for (int i = 0; i < PLANS; i++) {
			struct trial trial = { .rig = rig, .call = &call, .plan = plans[i] };
			unsigned stride = stride_of(&plans[i], true);
			for (trial.plan.n = 1; open_place(&trial, filled); trial.plan.n += stride) {
				places++;
				assert_true(trial.plan.n < PLACES_MAX);
			}
		}
		print_message("# %s: %u places\n", call.name, places);
	}
	remove_folders();
}
