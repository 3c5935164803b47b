/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leftovers on real simulated hosts: everything that nobody claims is found and goes, everything else stays. */
#include "tests/unit/leg_rig.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/prctl.h>

#include "agent/disk/qmp.h"
#include "common/lock.h"

#define STRAY 999u /* a migration that nobody knows */
#define STRAY_OVER "999:unknown"
#define UUID "11111111-2222-3333-4444-555555555555"

/* What the host's leg program says; `over` NULL: it only looks. */
static struct msg_holdings look(const struct host *host, const char *over)
{
	static unsigned char bytes[LIMIT_FRAME_BYTES];
	char self[PATHS_MAX], command[3 * PATHS_MAX];
	struct msg_holdings holdings = { 0 };
	struct err err = { 0 };
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	assert_true(n > 0);
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(command, sizeof(command), "DROVER_LOG=error '%s/../bin/drover-leg-sim' survey --home '%s'%s%s", self,
	         host->paths.home, over ? " --sweep --over " : "", over ? over : "");
	FILE *pipe = popen(command, "re");
	assert_non_null(pipe);
	size_t count = fread(bytes, 1, sizeof(bytes), pipe);
	assert_int_equal(pclose(pipe), 0);
	rig_ok(msg_holdings_decode(bytes, count, &holdings, &err), &err);
	assert_int_equal(holdings.sweep, over != NULL);
	return holdings;
}

static const struct msg_holding *find(const struct msg_holdings *holdings, enum holding_kind kind, const char *name)
{
	for (uint32_t i = 0; i < holdings->count; i++)
		if (holdings->list[i].kind == kind && strcmp(holdings->list[i].name, name) == 0)
			return &holdings->list[i];
	return NULL;
}

static void print_all(const struct msg_holdings *holdings)
{
	for (uint32_t i = 0; i < holdings->count; i++)
		print_message("%s %" PRIu64 " %s %s state %d: %s\n", holding_kind_name(holdings->list[i].kind),
		              holdings->list[i].migration, holdings->list[i].name, holdings->list[i].path,
		              (int)holdings->list[i].state, holdings->list[i].error);
	if (holdings->cause.code)
		print_message("cause: %s\n", holdings->cause.text);
}

static void assert_count(struct msg_holdings holdings, uint32_t count)
{
	if (holdings.count != count)
		print_all(&holdings);
	assert_int_equal(holdings.count, count);
	assert_int_equal(holdings.cause.code, ERR_NONE);
	assert_int_equal(holdings.cut, 0);
	msg_holdings_free(&holdings);
}

/* It is found as unclaimed, goes, and is not found again. */
static void assert_sweeps(const struct host *host, enum holding_kind kind, const char *name)
{
	struct msg_holdings holdings = look(host, NULL);
	const struct msg_holding *found = find(&holdings, kind, name);
	if (!found || holdings.count != 1)
		print_all(&holdings);
	assert_int_equal(holdings.count, 1);
	assert_non_null(found);
	assert_int_equal(found->state, HOLDING_UNCLAIMED);
	assert_int_equal(found->migration, STRAY);
	assert_int_equal(found->swept, 0);
	msg_holdings_free(&holdings);
	holdings = look(host, "7:other");
	assert_int_equal(holdings.count, 1);
	assert_non_null(strstr(holdings.list[0].error, "999 is not over")); /* as long as nobody says that it is */
	assert_int_equal(holdings.list[0].swept, 0);
	msg_holdings_free(&holdings);
	holdings = look(host, "7:other," STRAY_OVER);
	if (holdings.count != 1 || !holdings.list[0].swept)
		print_all(&holdings);
	assert_int_equal(holdings.count, 1);
	assert_int_equal(holdings.list[0].swept, 1);
	assert_string_equal(holdings.list[0].error, "");
	msg_holdings_free(&holdings);
	assert_count(look(host, NULL), 0);
}

static void plant(const struct host *host, const char *below, char ret_path[PATHS_MAX + 128])
{
	snprintf(ret_path, PATHS_MAX + 128, "%.300s/%.150s", host->paths.home, below);
	int fd = open(ret_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
}

static bool exists(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0;
}

/* The session that the rig has made is of no use here. */
static void forget(struct host *host)
{
	struct err err = { 0 };
	rig_ok(journal_session_forget(host->journal, MIGRATION, GENERATION, &err), &err);
}

/* ---- each kind ---- */

static void nothing_left__nothing_found(void **state)
{
	struct move *move = *state;
	assert_count(look(&move->s, NULL), 0);
	assert_count(look(&move->d, "7:aborted"), 0);
}

static void files__of_no_migration_we_know__go_and_others_stay(void **state)
{
	struct move *move = *state;
	static const char *const foreign[] = { "sr/precious.raw",          "sr/" UUID ".raw",
		                               "sr/" UUID ".xvda.0.raw",   "sr/" UUID ".xvda.999.raw.bak",
		                               "sr/" UUID ".xvda.099.raw", "sr/" UUID "..999.raw",
		                               "sr/x" UUID ".xvda.9.raw",  "sr/" UUID ".xvda.999.vhd",
		                               "run/leg-999.log",          "run/leg-999.sock.bak",
		                               "run/guest-999.sock",       "run/leg-0.sock",
		                               "run/export-999-xvda",      "run/drover-999.txt" };
	static const struct {
		const char *below, *name;
		enum holding_kind kind;
	} ours[] = { { "sr/" UUID ".xvda.999.raw", "xvda", HOLDING_DISK },
		     { "sr/" UUID ".xv.d-a.999.qcow2", "xv.d-a", HOLDING_DISK },
		     { "sr/" UUID ".xvda.999.qcow2.new", "xvda", HOLDING_DISK },
		     { "sr/" UUID ".xvda.999.raw.reserve", "xvda", HOLDING_RESERVE },
		     { "run/leg-999.sock", "leg-999.sock", HOLDING_FILE },
		     { "run/leg-999.lock", "leg-999.lock", HOLDING_FILE },
		     { "run/export-999-xvda.pid", "export-999-xvda.pid", HOLDING_FILE },
		     { "run/drover-999-xvda.nbd", "drover-999-xvda.nbd", HOLDING_FILE } };
	char path[PATHS_MAX + 128];
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
		plant(&move->d, foreign[i], path);
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		plant(&move->d, ours[i].below, path);
		assert_sweeps(&move->d, ours[i].kind, ours[i].name);
		assert_false(exists(path));
	}
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
		snprintf(path, sizeof(path), "%.300s/%.150s", move->d.paths.home, foreign[i]);
		if (!exists(path))
			fail_msg("%s was taken away", path);
	}
}

static void exporter__process_and_directory__go(void **state)
{
	struct move *move = *state;
	char dir[PATHS_MAX + 128], socket[PATHS_MAX + 160], image[PATHS_MAX + 128];
	struct proc_id id;
	struct err err = { 0 };
	plant(&move->d, "image", image);
	snprintf(dir, sizeof(dir), "%.300s/export-999-xvda", move->d.paths.run);
	snprintf(socket, sizeof(socket), "%s/nbd.sock", dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	const char *argv[] = { "nbdkit", "--foreground", "--unix", socket, "file", image, NULL };
	rig_ok(proc_start(&id, argv, NULL, move->log, -1, PROC_DIE_WITH_US, &err), &err);
	for (int64_t until_ms = disk_now_ms() + RIG_WAIT_MS; !exists(socket); rig_pause())
		assert_true(disk_now_ms() < until_ms);
	assert_true(proc_alive(&id));
	assert_sweeps(&move->d, HOLDING_EXPORT, "xvda");
	assert_false(proc_alive(&id));
	assert_false(exists(dir));
}

static pid_t start_false_leg(struct move *move, const struct host *host)
{
	char program[PATHS_MAX], script[PATHS_MAX], fifo[PATHS_MAX];
	snprintf(program, sizeof(program), "%s/drover-leg-x", move->rig.dir);
	snprintf(script, sizeof(script), "%s/run", move->rig.dir);
	snprintf(fifo, sizeof(fifo), "%s/fifo", move->rig.dir);
	assert_int_equal(symlink("/bin/sh", program), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	FILE *file = fopen(script, "w");
	assert_non_null(file);
	fprintf(file, "read x <%s\n", fifo);
	assert_int_equal(fclose(file), 0);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (chdir(move->rig.dir) == 0)
			execl(program, "drover-leg-x", "run", "--home", host->paths.home, "--migration", "999",
			      "--generation", "1", (char *)NULL);
		_exit(9);
	}
	return pid;
}

static void leg__of_no_session__goes(void **state)
{
	struct move *move = *state;
	char path[64], comm[32] = "";
	struct proc_id id;
	pid_t pid = start_false_leg(move, &move->d);
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	for (int64_t until_ms = disk_now_ms() + RIG_WAIT_MS; strcmp(comm, "drover-leg-x\n") != 0; rig_pause()) {
		FILE *file = fopen(path, "r");
		if (!file || !fgets(comm, sizeof(comm), file))
			comm[0] = '\0';
		if (file)
			fclose(file);
		assert_true(disk_now_ms() < until_ms);
	}
	assert_int_equal(proc_identify(pid, &id), 0);
	assert_sweeps(&move->d, HOLDING_LEG, "leg-999");
	assert_false(proc_alive(&id));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void stray_vm(const struct host *host, enum sim_state vm_state, struct sim_record *record)
{
	struct err err = { 0 };
	rig_record(&host->paths, "ghost", false, record);
	record->state = vm_state;
	record->migration = STRAY;
	if (vm_state == SIM_INCOMING)
		record->guest[0] = '\0';
	rig_ok(sim_record_save(&host->paths, record, &err), &err);
}

static void incoming_vm__of_no_session__goes(void **state)
{
	struct move *move = *state;
	struct sim_record record;
	stray_vm(&move->d, SIM_INCOMING, &record);
	assert_sweeps(&move->d, HOLDING_VM, "ghost");
	assert_int_equal(sim_record_load(&move->d.paths, "ghost", &record, NULL), -1);
}

static void half_destroyed_vm__goes_and_one_that_runs_stays(void **state)
{
	struct move *move = *state;
	struct sim_record record;
	stray_vm(&move->d, SIM_DESTROYING, &record);
	struct msg_holdings holdings = look(&move->d, "7:other"); /* to be destroyed it was decided already */
	assert_int_equal(holdings.count, 1);
	assert_int_equal(holdings.list[0].kind, HOLDING_VM);
	assert_int_equal(holdings.list[0].swept, 1);
	msg_holdings_free(&holdings);
	assert_int_equal(sim_record_load(&move->d.paths, "ghost", &record, NULL), -1);
	guest_ticks(move, &move->s);
}

static void bitmap__of_no_session__goes(void **state)
{
	struct move *move = *state;
	char path[LIMIT_PATH];
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	forget(&move->s); /* the backend of a VM that is being migrated is left alone */
	rig_ok(sim_path(&move->s.paths, VM, SIM_PATH_QMP_LEG, path, &err), &err);
	rig_ok(qmp_open(&qmp, path, NULL, QMP_OPEN_MS, &err), &err);
	rig_ok(qmp_run(qmp, "block-dirty-bitmap-add",
	               json_pack("{s:s,s:s}", "node", SIM_NODE_PREFIX "xvda", "name", "drover-999-0"), QMP_COMMAND_MS,
	               NULL, &err),
	       &err);
	rig_ok(qmp_run(qmp, "block-dirty-bitmap-add",
	               json_pack("{s:s,s:s}", "node", SIM_NODE_PREFIX "xvdb", "name", "backup-1"), QMP_COMMAND_MS, NULL,
	               &err),
	       &err);
	qmp_close(qmp);
	assert_sweeps(&move->s, HOLDING_BITMAP, "xvda");
	guest_ticks(move, &move->s);
}

/* ---- whose it is ---- */

static void disks__by_what_the_records_say__go_or_stay(void **state)
{
	struct move *move = *state;
	char path[PATHS_MAX + 128];
	forget(&move->d); /* known, and over: it may have left a VM here */
	plant(&move->d, "sr/" UUID ".xvda.7.raw", path);
	static const char *const stays[] = { "7:unknown", "7:other", "8:aborted" };
	for (size_t i = 0; i < sizeof(stays) / sizeof(stays[0]); i++) {
		struct msg_holdings holdings = look(&move->d, stays[i]);
		assert_int_equal(holdings.count, 1);
		assert_int_equal(holdings.list[0].swept, 0);
		assert_string_not_equal(holdings.list[0].error, "");
		msg_holdings_free(&holdings);
		assert_true(exists(path));
	}
	struct msg_holdings holdings = look(&move->d, "7:aborted"); /* the source owns the VM, for certain */
	assert_int_equal(holdings.count, 1);
	assert_int_equal(holdings.list[0].swept, 1);
	msg_holdings_free(&holdings);
	assert_false(exists(path));
}

static void disks__that_a_vm_has__are_never_told_of(void **state)
{
	struct move *move = *state;
	struct sim_record record;
	struct err err = { 0 };
	char path[PATHS_MAX + 128], other[PATHS_MAX + 128];
	plant(&move->d, "sr/" UUID ".xvda.999.raw", path);
	snprintf(other, sizeof(other), "%.300s/other-name", move->d.paths.home);
	rig_record(&move->d.paths, "halted", false, &record); /* nobody runs it */
	record.disk_count = 1;
	snprintf(record.disks[0].name, LIMIT_NAME, "xvda");
	record.disks[0].format = FORMAT_RAW;
	record.disks[0].size_bytes = (uint64_t)8 << 20;
	snprintf(record.disks[0].path, LIMIT_PATH, "%.255s", path);
	rig_ok(sim_record_save(&move->d.paths, &record, &err), &err);
	assert_count(look(&move->d, STRAY_OVER), 0);
	/* by another name of the same file */
	assert_int_equal(link(path, other), 0);
	snprintf(record.disks[0].path, LIMIT_PATH, "%.255s", other);
	rig_ok(sim_record_save(&move->d.paths, &record, &err), &err);
	assert_count(look(&move->d, STRAY_OVER), 0);
	assert_true(exists(path));
	rig_ok(sim_record_remove(&move->d.paths, record.name, &err), &err);
	assert_sweeps(&move->d, HOLDING_DISK, "xvda");
	assert_true(exists(other)); /* whose name is none of ours */
}

static void add_row(struct host *host, enum resource_state row_state, const char *path, struct journal_resource *row)
{
	struct err err = { 0 };
	*row = (struct journal_resource) { .migration = MIGRATION,
		                           .generation = GENERATION,
		                           .kind = RESOURCE_DISK,
		                           .state = row_state,
		                           .name = "xvda" };
	snprintf(row->path, sizeof(row->path), "%.255s", path);
	if (row_state == RESOURCE_KEPT)
		row->kept_until_wall_ms = 4711;
	rig_ok(journal_resource_add(host->journal, row, &row->id, &err), &err);
}

static void end_session(struct host *host)
{
	struct journal_session *session = calloc(1, sizeof(*session));
	struct err err = { 0 };
	rig_ok(journal_session_get(host->journal, MIGRATION, GENERATION, session, NULL, &err), &err);
	session->core.state = SESSION_ROLLED_BACK;
	session->core.leg_wanted = false;
	rig_ok(journal_session_put(host->journal, session, NULL, &err), &err);
	free(session);
}

static void journaled__claimed_while_somebody_works_left_over_after(void **state)
{
	struct move *move = *state;
	char path[PATHS_MAX + 128];
	struct journal_resource row;
	plant(&move->d, "sr/" UUID ".xvda.7.raw", path);
	add_row(&move->d, RESOURCE_MADE, path, &row);
	assert_count(look(&move->d, "7:aborted"), 0);
	assert_true(exists(path));
	end_session(&move->d);
	struct msg_holdings holdings = look(&move->d, NULL);
	assert_int_equal(holdings.count, 1);
	assert_int_equal(holdings.list[0].state, HOLDING_LEFTOVER);
	assert_int_equal(holdings.list[0].generation, GENERATION);
	msg_holdings_free(&holdings);
	holdings = look(&move->d, "7:aborted");
	assert_int_equal(holdings.count, 1);
	assert_int_equal(holdings.list[0].swept, 1);
	msg_holdings_free(&holdings);
	assert_false(exists(path));
	assert_int_equal(resources(&move->d), 0);
}

static void kept__told_of_and_never_taken(void **state)
{
	struct move *move = *state;
	char path[PATHS_MAX + 128], sock[PATHS_MAX + 128];
	struct journal_resource row;
	plant(&move->d, "sr/" UUID ".xvda.7.raw", path);
	add_row(&move->d, RESOURCE_KEPT, path, &row);
	forget(&move->d);
	plant(&move->d, "run/leg-7.sock", sock); /* what is kept is no claim on that */
	struct msg_holdings holdings = look(&move->d, "7:aborted");
	assert_int_equal(holdings.count, 2);
	assert_int_equal(holdings.list[0].kind, HOLDING_FILE);
	assert_int_equal(holdings.list[0].swept, 1);
	assert_int_equal(holdings.list[1].state, HOLDING_KEPT);
	assert_int_equal(holdings.list[1].kept_until_wall_ms, 4711);
	assert_int_equal(holdings.list[1].swept, 0);
	msg_holdings_free(&holdings);
	assert_true(exists(path));
	assert_false(exists(sock));
	assert_int_equal(resources(&move->d), 1);
}

/* ---- while it moves ---- */

/* Whatever the coordinator says of it. */
static void assert_harmless(struct move *move)
{
	assert_count(look(&move->s, NULL), 0);
	assert_count(look(&move->d, NULL), 0);
	assert_count(look(&move->s, "7:aborted"), 0);
	assert_count(look(&move->d, "7:aborted"), 0);
}

static void migration__at_each_step__nothing_is_found_and_nothing_is_harmed(void **state)
{
	struct move *move = *state;
	move->plan.keep_source_s = 0;
	start_both(move);
	assert_harmless(move);
	both(move, STEP_PREPARE);
	assert_harmless(move);
	both(move, STEP_COPY);
	assert_harmless(move);
	AWAIT(move, move->s.report.phase == PHASE_READY);
	assert_harmless(move);
	both(move, STEP_SWITCH);
	AWAIT(move, move->s.report.facts.running && move->d.report.facts.running);
	assert_harmless(move);
	both(move, STEP_RELEASE);
	assert_harmless(move);
	forget(&move->s); /* as the agent does when the leg has said so: the leg is there still */
	forget(&move->d);
	leg_step(move, &move->s, STEP_FORGET);
	leg_step(move, &move->d, STEP_FORGET);
	assert_harmless(move);
	leg_await_end(move, &move->s);
	leg_await_end(move, &move->d);
	assert_harmless(move);
	guest_ticks(move, &move->d);
	ledger_last(move);
}

static void leg_killed__session_not_over__nothing_is_found(void **state)
{
	struct move *move = *state;
	until_copying(move);
	leg_kill(&move->d);
	leg_kill(&move->s);
	assert_harmless(move);
	assert_true(resources(&move->d) > 0);
}

/* Its claim is gone for a moment between two reads, say: whoever works on it has the lock. */
static void leg_at_work__unknown_to_the_journal__nothing_of_its_migration_goes(void **state)
{
	struct move *move = *state;
	char path[PATHS_MAX + 128], lock_path[PATHS_MAX + 128];
	struct err err = { 0 };
	int lock = -1;
	plant(&move->d, "sr/" UUID ".xvda.999.raw", path);
	snprintf(lock_path, sizeof(lock_path), "%.300s/leg-999.lock", move->d.paths.run);
	rig_ok(lock_take(lock_path, &lock, &err), &err);
	struct msg_holdings holdings = look(&move->d, STRAY_OVER);
	assert_int_equal(holdings.count, 2);
	for (uint32_t i = 0; i < holdings.count; i++) {
		assert_int_equal(holdings.list[i].swept, 0);
		assert_non_null(strstr(holdings.list[i].error, "is in use by process"));
	}
	msg_holdings_free(&holdings);
	assert_true(exists(path));
	lock_drop(NULL, lock);
	holdings = look(&move->d, STRAY_OVER);
	assert_int_equal(holdings.count, 2);
	assert_int_equal(holdings.list[0].swept + holdings.list[1].swept, 2);
	msg_holdings_free(&holdings);
	assert_false(exists(path) || exists(lock_path));
}

/* ---- what cannot be told ---- */

static void journal_lost__nothing_goes(void **state)
{
	struct move *move = *state;
	char path[PATHS_MAX + 128], marker[PATHS_MAX + 128];
	plant(&move->d, "sr/" UUID ".xvda.999.raw", path);
	plant(&move->d, "lib/journal.id", marker); /* of another journal than the one that is there */
	struct msg_holdings holdings = look(&move->d, STRAY_OVER);
	assert_int_equal(holdings.count, 1);
	assert_int_equal(holdings.list[0].swept, 0);
	assert_non_null(strstr(holdings.list[0].error, "lost a journal"));
	msg_holdings_free(&holdings);
	assert_true(exists(path));
}

static void journal_missing__nothing_is_told(void **state)
{
	struct move *move = *state;
	char path[PATHS_MAX + 128], db[PATHS_MAX + 128];
	plant(&move->d, "sr/" UUID ".xvda.999.raw", path);
	snprintf(db, sizeof(db), "%.300s/lib/journal.db", move->d.paths.home);
	assert_int_equal(unlink(db), 0);
	struct msg_holdings holdings = look(&move->d, STRAY_OVER);
	assert_int_equal(holdings.count, 0);
	assert_int_not_equal(holdings.cause.code, ERR_NONE);
	msg_holdings_free(&holdings);
	assert_true(exists(path));
	assert_false(exists(db));
}

static void sr_missing__said_so_and_the_rest_is_told(void **state)
{
	struct move *move = *state;
	char sr[PATHS_MAX + 128], away[PATHS_MAX + 128], sock[PATHS_MAX + 128];
	snprintf(sr, sizeof(sr), "%.300s/sr", move->d.paths.home);
	snprintf(away, sizeof(away), "%.300s/unmounted", move->d.paths.home);
	plant(&move->d, "run/leg-999.sock", sock);
	assert_int_equal(rename(sr, away), 0);
	struct msg_holdings holdings = look(&move->d, NULL);
	assert_int_equal(holdings.count, 1);
	assert_int_equal(holdings.cause.code, ERR_IO);
	assert_non_null(strstr(holdings.cause.text, "SR local"));
	msg_holdings_free(&holdings);
	assert_int_equal(rename(away, sr), 0);
}

static void more_than_fits__the_urgent_first_and_said_so(void **state)
{
	struct move *move = *state;
	char below[64], path[PATHS_MAX + 128];
	struct journal_resource row;
	plant(&move->d, "sr/" UUID ".xvda.7.raw", path);
	add_row(&move->d, RESOURCE_KEPT, path, &row);
	for (unsigned i = 0; i < LIMIT_HOLDINGS; i++) {
		snprintf(below, sizeof(below), "run/leg-%u.sock", 1000 + i);
		plant(&move->d, below, path);
	}
	struct msg_holdings holdings = look(&move->d, NULL);
	assert_int_equal(holdings.count, LIMIT_HOLDINGS);
	assert_int_equal(holdings.cut, 1);
	for (uint32_t i = 0; i < holdings.count; i++)
		assert_int_equal(holdings.list[i].state, HOLDING_UNCLAIMED);
	msg_holdings_free(&holdings);
}

#define WITH_MOVE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_MOVE(nothing_left__nothing_found),
		WITH_MOVE(files__of_no_migration_we_know__go_and_others_stay),
		WITH_MOVE(exporter__process_and_directory__go),
		WITH_MOVE(leg__of_no_session__goes),
		WITH_MOVE(incoming_vm__of_no_session__goes),
		WITH_MOVE(half_destroyed_vm__goes_and_one_that_runs_stays),
		WITH_MOVE(bitmap__of_no_session__goes),
		WITH_MOVE(disks__by_what_the_records_say__go_or_stay),
		WITH_MOVE(disks__that_a_vm_has__are_never_told_of),
		WITH_MOVE(journaled__claimed_while_somebody_works_left_over_after),
		WITH_MOVE(kept__told_of_and_never_taken),
		WITH_MOVE(migration__at_each_step__nothing_is_found_and_nothing_is_harmed),
		WITH_MOVE(leg_killed__session_not_over__nothing_is_found),
		WITH_MOVE(leg_at_work__unknown_to_the_journal__nothing_of_its_migration_goes),
		WITH_MOVE(journal_lost__nothing_goes),
		WITH_MOVE(journal_missing__nothing_is_told),
		WITH_MOVE(sr_missing__said_so_and_the_rest_is_told),
		WITH_MOVE(more_than_fits__the_urgent_first_and_said_so),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
