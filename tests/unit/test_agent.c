/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent as a process of its own, with a coordinator that this test plays over real CURVE connections, and with legs
 * that it plays too: this program is also the agent (`agent HOME`) and the leg program (`run …`, `inventory …`).
 */
#include "tests/unit/agent_fixture.h"

#include "agent/agent_impl.h"

/* ---- the agent ---- */

static int run_agent(const char *home)
{
	struct err err = { 0 };
	struct paths paths;
	struct agent *agent = NULL;
	struct agent_conf *conf = calloc(1, sizeof(*conf));
	log_init("agent");
	loop = loop_new(&err);
	if (!loop || !conf || paths_init(&paths, home, &err) < 0 || agent_conf_load(conf, &paths, NULL, &err) < 0 ||
	    agent_new(&agent, loop, &paths, conf, &err) < 0) {
		log_error("%s", err.text);
		loop_free(loop);
		free(conf);
		return 3;
	}
	(void)loop_run(loop, &err);
	agent_free(agent);
	loop_free(loop);
	free(conf);
	return 0;
}

/* ---- tests ---- */

static uint32_t generation_of(struct journal *journal, uint64_t migration)
{
	uint32_t generation = 0;
	assert_int_equal(journal_generation(journal, migration, &generation, NULL), 0);
	return generation;
}

static void hello__fresh_host__says_who_it_is_and_what_it_has(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	assert_string_equal(f->hello.host, "a1");
	assert_string_equal(f->hello.pool, "A");
	assert_true(strlen(f->hello.boot_id) > 8);
	struct journal *journal = open_journal(f);
	assert_string_equal(f->hello.journal_id, journal_id(journal));
	journal_close(journal);
	wait_for(f, has_vms, 4);
	assert_string_equal(f->inventory.hypervisor, "sim");
	assert_int_equal(f->inventory.sr_count, 1);
	assert_string_equal(f->inventory.srs[0].name, "local");
	assert_true(f->inventory.srs[0].free_bytes > 0);
	assert_int_equal(f->inventory.network_count, 1);
	assert_int_equal(f->inventory.memory_free_bytes, 1ull << 30);
}

static void happy_path__source__ends_forgotten(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &source_order);
	wait_for(f, in_phase, PHASE_READY);
	assert_true(f->progress > 0);
	ordered(f, &source_order, STEP_SWITCH, OUTCOME_DONE);
	send_facts(f, &source_order, (struct verdict_facts) { .vote = { 0, 0, VOTE_COMMIT } });
	wait_for(f, in_phase, PHASE_COMMITTED);
	assert_int_equal(f->session.facts.vote[PARTY_SOURCE], VOTE_COMMIT);
	send_facts(f, &source_order,
	           (struct verdict_facts) { .vote = { 0, 0, VOTE_COMMIT }, .activating = true, .running = true });
	ordered(f, &source_order, STEP_RELEASE, OUTCOME_DONE);
	assert_true(f->answer[STEP_RELEASE].session.facts.released);
	ordered(f, &source_order, STEP_FORGET, OUTCOME_DONE);
	struct journal *journal = open_journal(f);
	struct journal_session row;
	assert_int_equal(journal_session_get(journal, 1, 1, &row, NULL, NULL), -1);
	assert_int_equal(generation_of(journal, 1), 1);
	journal_close(journal);
	ordered(f, &source_order, STEP_FORGET, OUTCOME_DONE);     /* and again */
	ordered(f, &source_order, STEP_RELEASE, OUTCOME_REFUSED); /* asked by one who heard of it late */
	assert_int_equal(f->answer[STEP_RELEASE].cause.code, ERR_UNKNOWN_ID);
	ordered(f, &source_order, STEP_ABORT, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_ABORT].cause.code, ERR_UNKNOWN_ID);
	ordered(f, &source_order, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_STALE);
}

static const struct order dest_order = { .migration = 2, .generation = 1, .side = SIDE_DESTINATION, .vm = 9 };

static void happy_path__destination__claims_and_runs(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	ordered(f, &dest_order, STEP_CHECK, OUTCOME_DONE);
	assert_true(f->answer[STEP_CHECK].check_count >= 6);
	struct journal *journal = open_journal(f);
	uint64_t memory, disk;
	assert_int_equal(journal_claims(journal, "local", &memory, &disk, NULL), 0);
	assert_int_equal(memory, 256u << 20);
	assert_int_equal(disk, 1 << 20);
	journal_close(journal);
	ordered(f, &dest_order, STEP_PREPARE, OUTCOME_DONE);
	assert_string_equal(f->answer[STEP_PREPARE].endpoint, "127.0.0.1:4711");
	ordered(f, &dest_order, STEP_COPY, OUTCOME_DONE);
	ordered(f, &dest_order, STEP_SWITCH, OUTCOME_DONE);
	send_facts(f, &dest_order,
	           (struct verdict_facts) { .vote = { 0, VOTE_COMMIT, 0 }, .suspended = true, .stream_ended = true });
	wait_for(f, in_phase, PHASE_COMMITTED);
	ordered(f, &dest_order, STEP_RELEASE, OUTCOME_DONE);
	assert_true(f->answer[STEP_RELEASE].session.facts.running);
	assert_int_equal(f->answer[STEP_RELEASE].session.budget.total_ms, 42);
	ordered(f, &dest_order, STEP_FORGET, OUTCOME_DONE);
}

static void check__dry_run__changes_nothing(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	struct order dry = dest_order;
	dry.dry_run = true;
	ordered(f, &dry, STEP_CHECK, OUTCOME_DONE);
	struct journal *journal = open_journal(f);
	struct journal_session *list;
	size_t count;
	assert_int_equal(journal_session_list(journal, &list, &count, NULL), 0);
	assert_int_equal(count, 0);
	assert_int_equal(generation_of(journal, 2), 0);
	free(list);
	journal_close(journal);
	dry.vm = 1; /* is here already */
	ordered(f, &dry, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_NAME_TAKEN);
}

static void check__vm_not_here__is_refused_and_stays_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	struct order o = source_order;
	o.vm = 9;
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_UNKNOWN_VM);
	o.vm = 1;
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_UNKNOWN_VM);
	ordered(f, &o, STEP_FORGET, OUTCOME_DONE);
	o.generation = 2;
	ordered(f, &o, STEP_CHECK, OUTCOME_DONE);
}

static void check__vm_has_a_migration__is_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	ordered(f, &source_order, STEP_CHECK, OUTCOME_DONE);
	struct order o = source_order;
	o.migration = 3;
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_BUSY);
}

static void check__no_leg_program__is_refused_with_the_remedy(void **state)
{
	struct fake *f = *state;
	char keep[PATHS_MAX];
	memcpy(keep, self, sizeof(keep));
	(void)snprintf(self, sizeof(self), "%s/no-such-leg", root);
	write_conf(f, "");
	memcpy(self, keep, sizeof(self));
	connect_agent(f);
	ordered(f, &source_order, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_CONFIG);
	assert_non_null(strstr(f->answer[STEP_CHECK].cause.text, "no-such-leg"));
}

static void abort__copying__is_done_when_the_leg_has_gone_back(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &source_order);
	ordered(f, &source_order, STEP_ABORT, OUTCOME_DONE);
	assert_int_equal(f->answer[STEP_ABORT].session.phase, PHASE_ROLLED_BACK);
	assert_int_equal(f->answer[STEP_ABORT].session.cause.code, ERR_CANCELLED);
	assert_true(f->answer[STEP_ABORT].session.facts.resumed);
	ordered(f, &source_order, STEP_ABORT, OUTCOME_DONE);
	ordered(f, &source_order, STEP_SWITCH, OUTCOME_REFUSED);
	ordered(f, &source_order, STEP_FORGET, OUTCOME_DONE);
}

static void leg_killed__copying__is_followed_by_one_that_goes_back(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &dest_order);
	kill_leg(f, 2);
	wait_for(f, in_phase, PHASE_ROLLED_BACK);
	assert_true(f->session.facts.renounced);
	assert_int_equal(f->session.cause.code, ERR_LEG_LOST);
	assert_true(has_starts(f, 2));
	ordered(f, &dest_order, STEP_ABORT, OUTCOME_DONE);
	ordered(f, &dest_order, STEP_FORGET, OUTCOME_DONE);
	assert_false(has_starts(f, 3));
}

static void leg_killed__after_its_vote__recovers_and_activates(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &dest_order);
	ordered(f, &dest_order, STEP_SWITCH, OUTCOME_DONE);
	wait_for(f, has_voted, PARTY_DESTINATION);
	kill_leg(f, 2);
	wait_for(f, has_starts, 2);
	assert_int_equal(f->session.facts.vote[PARTY_DESTINATION], VOTE_COMMIT);
	send_facts(f, &dest_order,
	           (struct verdict_facts) { .vote = { 0, VOTE_COMMIT, 0 }, .suspended = true, .stream_ended = true });
	wait_for(f, in_phase, PHASE_COMMITTED);
	ordered(f, &dest_order, STEP_RELEASE, OUTCOME_DONE);
	assert_true(f->answer[STEP_RELEASE].session.facts.running);
}

static void agent_killed__leg_lives__is_reached_again_not_started(void **state)
{
	struct fake *f = *state;
	long before, after;
	connect_agent(f);
	to_copying(f, &source_order);
	assert_int_equal(paths_read_pid(&f->paths, "leg-1", &before), 0);
	agent_kill(f);
	connect_agent(f);
	assert_int_equal(f->hello.max_epoch, 3);
	ordered(f, &source_order, STEP_SWITCH, OUTCOME_DONE);
	send_facts(f, &source_order, (struct verdict_facts) { .vote = { 0, 0, VOTE_COMMIT } });
	wait_for(f, in_phase, PHASE_COMMITTED);
	assert_int_equal(paths_read_pid(&f->paths, "leg-1", &after), 0);
	assert_int_equal(before, after);
	assert_false(has_starts(f, 2));
}

static void agent_killed__leg_dies_meanwhile__is_recovered(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &source_order);
	agent_kill(f);
	kill_leg(f, 1);
	connect_agent(f);
	wait_for(f, in_phase, PHASE_ROLLED_BACK);
	assert_int_equal(f->session.cause.code, ERR_LEG_LOST);
	assert_true(has_starts(f, 2));
}

static void agent_killed__prepare_again__is_answered_the_same(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	ordered(f, &dest_order, STEP_CHECK, OUTCOME_DONE);
	ordered(f, &dest_order, STEP_PREPARE, OUTCOME_DONE);
	agent_kill(f);
	memset(&f->answer[STEP_PREPARE], 0, sizeof(f->answer[STEP_PREPARE]));
	connect_agent(f);
	ordered(f, &dest_order, STEP_PREPARE, OUTCOME_DONE);
	assert_string_equal(f->answer[STEP_PREPARE].fingerprint, FINGERPRINT);
	assert_string_equal(f->answer[STEP_PREPARE].endpoint, "127.0.0.1:4711");
	assert_false(has_starts(f, 2));
}

static void host_rebooted__copying__goes_back_by_the_journal(void **state)
{
	struct fake *f = *state;
	char path[PATHS_MAX + 64];
	(void)snprintf(path, sizeof(path), "%s/boot-id", f->paths.run);
	write_file(path, "boot-1\n");
	connect_agent(f);
	assert_string_equal(f->hello.boot_id, "boot-1");
	to_copying(f, &source_order);
	agent_kill(f);
	kill_leg(f, 1);
	write_file(path, "boot-2\n");
	connect_agent(f);
	assert_string_equal(f->hello.boot_id, "boot-2");
	wait_for(f, in_phase, PHASE_ROLLED_BACK);
	assert_int_equal(f->session.cause.code, ERR_HOST_LOST);
}

static void stale__older_epoch_or_generation__is_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	struct order o = source_order;
	o.generation = 2;
	ordered(f, &o, STEP_CHECK, OUTCOME_DONE);
	ordered(f, &source_order, STEP_PREPARE, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_PREPARE].cause.code, ERR_STALE);
	f->epoch = 2;
	ordered(f, &o, STEP_PREPARE, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_PREPARE].cause.code, ERR_STALE);
	assert_false(has_starts(f, 1));
	f->epoch = 4;
	ordered(f, &o, STEP_PREPARE, OUTCOME_DONE);
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED); /* an older step */
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_STALE);
	o.side = SIDE_DESTINATION;
	ordered(f, &o, STEP_COPY, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_COPY].cause.code, ERR_PROTOCOL);
}

static void unknown__never_heard_of__abort_is_done_and_the_rest_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	struct order o = { .migration = 11, .generation = 1, .side = SIDE_SOURCE, .vm = 1 };
	ordered(f, &o, STEP_PREPARE, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_PREPARE].cause.code, ERR_HOST_LOST);
	ordered(f, &o, STEP_ABORT, OUTCOME_DONE);
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED); /* it came too late */
	ordered(f, &o, STEP_FORGET, OUTCOME_DONE);
	o.migration = 12;
	ordered(f, &o, STEP_FORGET, OUTCOME_DONE);
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED);
}

static void unknown__journal_was_lost__is_said(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	ordered(f, &source_order, STEP_CHECK, OUTCOME_DONE);
	char first[LIMIT_ID], path[PATHS_MAX + 64];
	memcpy(first, f->hello.journal_id, sizeof(first));
	agent_kill(f);
	static const char *const names[] = { "journal.db", "journal.db-wal", "journal.db-shm" };
	for (int i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", f->paths.lib, names[i]);
		(void)unlink(path);
	}
	connect_agent(f);
	assert_string_not_equal(first, f->hello.journal_id);
	ordered(f, &source_order, STEP_ABORT, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_ABORT].cause.code, ERR_HOST_LOST);
	ordered(f, &source_order, STEP_FORGET, OUTCOME_REFUSED);
	struct order o = source_order;
	o.migration = 5; /* new work is taken */
	ordered(f, &o, STEP_CHECK, OUTCOME_DONE);
}

static void leg_not_journaled__at_work__is_found_by_its_twin(void **state)
{
	struct fake *f = *state;
	char path[PATHS_MAX + 16];
	(void)snprintf(path, sizeof(path), "%s/twin", f->paths.run);
	write_file(path, "1");
	connect_agent(f);
	to_copying(f, &source_order);
	(void)snprintf(path, sizeof(path), "%s/starts", f->paths.run);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 1); /* the one at work, and no third one */
}

/* The number of the oldest of the legs' logs 1000 and up, which are `count`. */
static int first_log(const struct fake *f, int count)
{
	char path[PATHS_MAX + 64];
	for (int i = 0; i < count; i++) {
		(void)snprintf(path, sizeof(path), "%.400s/leg-%d.log", f->paths.run, 1000 + i);
		if (access(path, F_OK) == 0)
			return 1000 + i;
	}
	return -1;
}

static void leg_logs__too_many__the_oldest_go(void **state)
{
	struct fake *f = *state;
	char path[PATHS_MAX + 64];
	connect_agent(f);
	for (int i = 0; i < LEG_LOGS_KEPT + 3; i++) {
		(void)snprintf(path, sizeof(path), "%.400s/leg-%d.log", f->paths.run, 1000 + i);
		write_file(path, "words");
		assert_int_equal(
			utimensat(AT_FDCWD, path, (struct timespec[2]) { { .tv_sec = i }, { .tv_sec = 1000 + i } }, 0),
			0);
	}
	(void)snprintf(path, sizeof(path), "%.400s/leg-1.log.txt", f->paths.run);
	write_file(path, "not one of ours");
	to_copying(f, &source_order); /* its own log is the newest one */
	assert_int_equal(first_log(f, LEG_LOGS_KEPT + 3), 1000 + 4);
	assert_int_equal(access(path, F_OK), 0);
	(void)snprintf(path, sizeof(path), "%.400s/leg-1.log", f->paths.run);
	assert_int_equal(access(path, F_OK), 0);
}

static void orphaned__copying__gives_up_by_itself(void **state)
{
	struct fake *f = *state;
	write_conf(f, "orphan-grace = 1s");
	connect_agent(f);
	to_copying(f, &source_order);
	bus_server_free(f->server);
	f->server = NULL;
	struct journal *journal = open_journal(f);
	int64_t until_ms = clock_ms(&clock_real) + DEADLINE_MS;
	struct journal_session row = { 0 };
	while (row.core.state != SESSION_ROLLED_BACK && clock_ms(&clock_real) < until_ms) {
		assert_int_equal(journal_session_get(journal, 1, 1, &row, NULL, NULL), 0);
		(void)poll(NULL, 0, 20);
	}
	journal_close(journal);
	assert_int_equal(row.core.state, SESSION_ROLLED_BACK);
	assert_int_equal(row.cause.code, ERR_UNREACHABLE);
	assert_true(row.facts.resumed);
}

static bool is_gone(struct fake *f, int n)
{
	char path[PATHS_MAX + 64];
	(void)snprintf(path, sizeof(path), "%s/sr/disk%d", f->home, n);
	return access(path, F_OK) != 0;
}

static void kept_disk__its_time_is_over__is_removed(void **state)
{
	struct fake *f = *state;
	struct journal *journal = open_journal(f);
	int64_t id;
	uint64_t now_ms = (uint64_t)clock_real.wall_ms(&clock_real);
	for (int i = 1; i <= 2; i++) {
		struct journal_resource kept = { .migration = 7,
			                         .generation = 1,
			                         .kind = RESOURCE_SOURCE_DISK,
			                         .state = RESOURCE_KEPT,
			                         .name = "xvda",
			                         .kept_until_wall_ms = i == 1 ? now_ms - 1 : now_ms + 3600000 };
		(void)snprintf(kept.path, sizeof(kept.path), "%.200s/sr/disk%d", f->home, i);
		write_file(kept.path, "data");
		assert_int_equal(journal_resource_add(journal, &kept, &id, NULL), 0);
	}
	connect_agent(f);
	wait_for(f, is_gone, 1);
	assert_false(is_gone(f, 2));
	journal_close(journal);
}

static void leg_path(const struct fake *f, int migration, const char *suffix, char path[PATHS_MAX + 64])
{
	(void)snprintf(path, PATHS_MAX + 64, "%.400s/leg-%d.%s", f->paths.run, migration, suffix);
}

static bool has_no_leg_files(struct fake *f, int migration)
{
	static const char *const suffixes[] = { "sock", "pid", "lock", "identity" };
	char path[PATHS_MAX + 64];
	for (int i = 0; i < 4; i++) {
		leg_path(f, migration, suffixes[i], path);
		if (access(path, F_OK) == 0)
			return false;
	}
	return true;
}

static void leg_killed__after_its_work__its_files_go(void **state)
{
	struct fake *f = *state;
	struct order living = source_order;
	char path[PATHS_MAX + 64];
	int lock;
	living.migration = 3;
	living.vm = 2;
	connect_agent(f);
	to_copying(f, &source_order);
	ordered(f, &source_order, STEP_ABORT, OUTCOME_DONE);
	kill_leg(f, 1);
	ordered(f, &source_order, STEP_FORGET, OUTCOME_DONE);
	ordered(f, &living, STEP_CHECK, OUTCOME_DONE);
	ordered(f, &living, STEP_ABORT, OUTCOME_DONE);
	ordered(f, &living, STEP_FORGET, OUTCOME_DONE);
	agent_kill(f);
	leg_path(f, 1, "lock", path);
	write_file(path, "1\n");
	leg_path(f, 1, "pid", path);
	write_file(path, "1\n");
	leg_path(f, 3, "lock", path); /* one that has not ended yet */
	assert_int_equal(lock_take(path, &lock, NULL), 0);
	leg_path(f, 77, "sock", path); /* what another journal may have known */
	write_file(path, "%s", "");
	connect_agent(f);
	wait_for(f, has_no_leg_files, 1);
	assert_int_equal(access(path, F_OK), 0);
	assert_false(has_no_leg_files(f, 3));
	lock_drop(NULL, lock);
}

static void survey__asked_twice__looks_once_and_answers_alike(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	for (int i = 1; i <= 2; i++) {
		ask_survey(f, 4711, true);
		wait_for(f, has_holdings, i);
		assert_int_equal(f->holdings_sequence, 4711);
		assert_int_equal(f->holdings.sweep, 1);
		assert_int_equal(f->holdings.cause.code, ERR_NONE);
		assert_int_equal(f->holdings.count, 1);
		assert_int_equal(f->holding.migration, 1);
		assert_string_equal(f->holding.path, "--over 17:aborted,18:unknown --sweep ");
		assert_string_equal(f->holding.name, "configured");
	}
	ask_survey(f, 4712, false); /* another question is looked at anew */
	wait_for(f, has_holdings, 3);
	assert_int_equal(f->holding.migration, 2);
	assert_int_equal(f->holdings.sweep, 0);
	assert_string_equal(f->holding.path, "--over  ");
}

static void survey__leg_program_fails__is_said(void **state)
{
	struct fake *f = *state;
	char path[2 * PATHS_MAX];
	(void)snprintf(path, sizeof(path), "%s/surveys-fail", f->paths.run);
	connect_agent(f);
	write_file(path, "x");
	ask_survey(f, 1, false);
	wait_for(f, has_holdings, 1);
	assert_int_equal(f->holdings.count, 0);
	assert_int_equal(f->holdings.cause.code, ERR_HYPERVISOR);
	assert_non_null(strstr(f->holdings.cause.text, "survey failed (status 3)"));
}

static void second_agent__same_home__is_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	struct proc_id first = f->agent;
	f->agent_status = -1;
	agent_start(f);
	wait_for(f, is_dead, (int)f->agent.pid);
	wait_for(f, has_status, 0);
	assert_int_equal(WEXITSTATUS(f->agent_status), 3);
	f->agent = first;
	assert_true(proc_alive(&first));
}

static void sigterm__leg_works__stops_well_and_leaves_it(void **state)
{
	struct fake *f = *state;
	long leg;
	connect_agent(f);
	to_copying(f, &source_order);
	assert_int_equal(paths_read_pid(&f->paths, "leg-1", &leg), 0);
	f->agent_status = -1;
	assert_int_equal(kill(f->agent.pid, SIGTERM), 0);
	wait_for(f, has_status, 0);
	assert_true(WIFEXITED(f->agent_status));
	assert_int_equal(WEXITSTATUS(f->agent_status), 0);
	assert_false(is_dead(f, (int)leg));
}

/* ---- main ---- */

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static int group_setup(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	(void)snprintf(root, sizeof(root), "%.32s/drover-agent-XXXXXX", tmp && strlen(tmp) < 32 ? tmp : "/tmp");
	ssize_t bytes = readlink("/proc/self/exe", self, sizeof(self) - 1);
	loop = loop_new(NULL);
	return bytes > 0 && mkdtemp(root) && loop ? 0 : -1;
}

static int group_teardown(void **state)
{
	(void)state;
	loop_free(loop);
	if (!getenv("DROVER_KEEP"))
		(void)nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	return 0;
}

#define agent_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "agent") == 0)
		return run_agent(argv[2]);
	if (argc > 1 && strcmp(argv[1], "inventory") == 0)
		return leg_inventory();
	if (argc > 1 && strcmp(argv[1], "survey") == 0)
		return leg_survey(argc, argv);
	if (argc > 1 && strcmp(argv[1], "run") == 0)
		return run_leg(argc, argv);
	const struct CMUnitTest tests[] = {
		agent_test(hello__fresh_host__says_who_it_is_and_what_it_has),
		agent_test(happy_path__source__ends_forgotten),
		agent_test(happy_path__destination__claims_and_runs),
		agent_test(check__dry_run__changes_nothing),
		agent_test(check__vm_not_here__is_refused_and_stays_refused),
		agent_test(check__vm_has_a_migration__is_refused),
		agent_test(check__no_leg_program__is_refused_with_the_remedy),
		agent_test(abort__copying__is_done_when_the_leg_has_gone_back),
		agent_test(leg_killed__copying__is_followed_by_one_that_goes_back),
		agent_test(leg_killed__after_its_vote__recovers_and_activates),
		agent_test(agent_killed__leg_lives__is_reached_again_not_started),
		agent_test(agent_killed__leg_dies_meanwhile__is_recovered),
		agent_test(agent_killed__prepare_again__is_answered_the_same),
		agent_test(host_rebooted__copying__goes_back_by_the_journal),
		agent_test(stale__older_epoch_or_generation__is_refused),
		agent_test(unknown__never_heard_of__abort_is_done_and_the_rest_refused),
		agent_test(unknown__journal_was_lost__is_said),
		agent_test(leg_not_journaled__at_work__is_found_by_its_twin),
		agent_test(leg_logs__too_many__the_oldest_go),
		agent_test(orphaned__copying__gives_up_by_itself),
		agent_test(kept_disk__its_time_is_over__is_removed),
		agent_test(leg_killed__after_its_work__its_files_go),
		agent_test(survey__asked_twice__looks_once_and_answers_alike),
		agent_test(survey__leg_program_fails__is_said),
		agent_test(second_agent__same_home__is_refused),
		agent_test(sigterm__leg_works__stops_well_and_leaves_it),
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* one of them, by name */
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
