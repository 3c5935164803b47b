/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal's rows, its schema, several writers at once, and being killed while it writes. */
#include "tests/unit/journal_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/journal_impl.h"
#include "common/clock.h"

static struct msg_plan *plan_of(uint64_t disk_bytes)
{
	struct msg_plan *plan = calloc(1, sizeof(*plan));
	plan->vm.uuid[3] = 7;
	(void)snprintf(plan->vm.name, sizeof(plan->vm.name), "web3");
	plan->vm.state = VM_RUNNING;
	plan->vm.memory_bytes = 512u << 20;
	plan->vm.vcpus = 2;
	plan->vm.disk_count = 2;
	for (int i = 0; i < 2; i++) {
		struct msg_disk *disk = &plan->vm.disks[i];
		(void)snprintf(disk->name, sizeof(disk->name), "xvd%c", 'a' + i);
		(void)snprintf(disk->sr, sizeof(disk->sr), "old");
		disk->format = FORMAT_RAW;
		disk->size_bytes = disk_bytes;
		plan->to[i] = *disk;
		(void)snprintf(plan->to[i].sr, sizeof(plan->to[i].sr), i ? "slow" : "fast");
	}
	(void)snprintf(plan->source, sizeof(plan->source), "a1");
	(void)snprintf(plan->destination, sizeof(plan->destination), "b2");
	plan->on_slow = ON_SLOW_WAIT;
	return plan;
}

/* ---- rows ---- */

static void session__put_and_reopened__comes_back_whole(void **state)
{
	struct fixture *f = *state;
	struct journal_session row = row_of(17, 2, SIDE_SOURCE), got;
	row.core = (struct session_core) { .state = SESSION_RELEASING,
		                           .side = SIDE_SOURCE,
		                           .ready = true,
		                           .leg_wanted = true,
		                           .leg_up = true,
		                           .abort_asked = true,
		                           .failed = true,
		                           .asked = STEP_RELEASE,
		                           .sequence = 1ull << 40,
		                           .highest = STEP_SWITCH };
	err_set(&row.cause, ERR_NO_SPACE, "SR fast is 'full' (\xc3\xa4)");
	row.leg = (struct proc_id) { .pid = 4711, .start_ticks = 123456789012ull };
	(void)snprintf(row.fingerprint, sizeof(row.fingerprint), "aa");
	(void)snprintf(row.endpoint, sizeof(row.endpoint), "bb:1");
	(void)snprintf(row.peer_fingerprint, sizeof(row.peer_fingerprint), "cc");
	(void)snprintf(row.peer_endpoint, sizeof(row.peer_endpoint), "dd:2");
	row.claim_memory_bytes = 1ull << 33;
	row.kept_until_wall_ms = 1795000000000ull;
	row.budget = (struct msg_budget) { 1, 2, 3, 4, 5, 6, 7 };
	struct msg_plan *plan = plan_of(1 << 20), *back = calloc(1, sizeof(*back));
	assert_int_equal(journal_session_put(f->journal, &row, plan, NULL), 0);
	row.core.state = SESSION_RELEASED;
	put(f, row); /* without a plan: the stored one stays */
	(void)reopen(f);
	assert_int_equal(journal_session_get(f->journal, 17, 2, &got, back, NULL), 0);
	assert_int_equal(got.core.state, SESSION_RELEASED);
	assert_true(got.core.ready && got.core.leg_wanted && got.core.leg_up && got.core.abort_asked &&
	            got.core.failed);
	assert_int_equal(got.core.asked, STEP_RELEASE);
	assert_int_equal(got.core.sequence, 1ull << 40);
	assert_int_equal(got.core.highest, STEP_SWITCH);
	assert_int_equal(got.side, SIDE_SOURCE);
	assert_int_equal(got.cause.code, ERR_NO_SPACE);
	assert_string_equal(got.cause.text, row.cause.text);
	assert_string_equal(got.boot_id, "boot-1");
	assert_int_equal(got.leg.pid, 4711);
	assert_int_equal(got.leg.start_ticks, 123456789012ull);
	assert_string_equal(got.fingerprint, "aa");
	assert_string_equal(got.endpoint, "bb:1");
	assert_string_equal(got.peer_fingerprint, "cc");
	assert_string_equal(got.peer_endpoint, "dd:2");
	assert_int_equal(got.claim_memory_bytes, 1ull << 33);
	assert_int_equal(got.kept_until_wall_ms, 1795000000000ull);
	assert_memory_equal(&got.budget, &row.budget, sizeof(row.budget));
	assert_int_equal(got.created_wall_ms, 1017);
	assert_string_equal(back->vm.name, "web3");
	assert_string_equal(back->to[1].sr, "slow");
	free(plan);
	free(back);
}

static void session__not_there__is_unknown(void **state)
{
	struct fixture *f = *state;
	struct journal_session got;
	struct err err;
	struct verdict_facts facts = { 0 };
	assert_int_equal(journal_session_get(f->journal, 9, 1, &got, NULL, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_ID);
	assert_int_equal(journal_facts_add(f->journal, 9, 1, &facts, NULL, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_ID);
	assert_int_equal(journal_session_forget(f->journal, 9, 1, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_ID);
}

static void session_list__several__is_oldest_first(void **state)
{
	struct fixture *f = *state;
	struct journal_session *list;
	size_t count;
	put(f, row_of(30, 1, SIDE_SOURCE));
	put(f, row_of(10, 1, SIDE_DESTINATION));
	put(f, row_of(20, 1, SIDE_SOURCE));
	assert_int_equal(journal_session_list(f->journal, &list, &count, NULL), 0);
	assert_int_equal(count, 3);
	assert_int_equal(list[0].migration, 10);
	assert_int_equal(list[2].migration, 30);
	free(list);
}

static uint32_t generation_of(struct journal *journal, uint64_t migration)
{
	uint32_t generation = 0;
	assert_int_equal(journal_generation(journal, migration, &generation, NULL), 0);
	return generation;
}

static void generation__forgotten_session__is_remembered(void **state)
{
	struct fixture *f = *state;
	put(f, row_of(4, 3, SIDE_SOURCE));
	put(f, row_of(4, 2, SIDE_SOURCE)); /* an older one does not lower it */
	assert_int_equal(journal_session_forget(f->journal, 4, 3, NULL), 0);
	assert_int_equal(journal_session_forget(f->journal, 4, 2, NULL), 0);
	(void)reopen(f);
	assert_int_equal(generation_of(f->journal, 4), 3);
	assert_int_equal(generation_of(f->journal, 5), 0);
}

static void epoch__raised__survives_and_never_falls(void **state)
{
	struct fixture *f = *state;
	struct err err;
	assert_int_equal(journal_epoch(f->journal), 0);
	assert_int_equal(journal_epoch_raise(f->journal, 8, NULL), 0);
	assert_int_equal(journal_epoch_raise(f->journal, 8, NULL), 0);
	assert_int_equal(journal_epoch_raise(f->journal, 7, &err), -1);
	assert_int_equal(err.code, ERR_STALE);
	(void)reopen(f);
	assert_int_equal(journal_epoch(f->journal), 8);
	assert_int_equal(db_exec(f->journal->db, &err, "UPDATE meta SET value = 3 WHERE key = 'epoch'", ""), -1);
}

static void identity__database_replaced__is_told(void **state)
{
	struct fixture *f = *state;
	char first[LIMIT_ID], path[PATHS_MAX + 32];
	(void)snprintf(first, sizeof(first), "%s", journal_id(f->journal));
	assert_int_equal(strlen(first), 32);
	assert_false(journal_was_lost(reopen(f)));
	assert_string_equal(journal_id(f->journal), first);
	journal_close(f->journal);
	f->journal = NULL;
	static const char *const names[] = { "journal.db", "journal.db-wal", "journal.db-shm" };
	for (int i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", f->paths.lib, names[i]);
		(void)unlink(path);
	}
	assert_true(journal_was_lost(reopen(f)));
	assert_string_not_equal(journal_id(f->journal), first);
	assert_true(journal_was_lost(reopen(f))); /* and stays so */
}

/* ---- resources, answers, claims ---- */

static void forget__resources_left__is_refused(void **state)
{
	struct fixture *f = *state;
	struct err err;
	struct journal_resource r = {
		.migration = 5, .generation = 1, .kind = RESOURCE_DISK, .name = "xvda", .path = "/x"
	};
	put(f, row_of(5, 1, SIDE_DESTINATION));
	assert_int_equal(journal_resource_add(f->journal, &r, &r.id, NULL), 0);
	assert_int_equal(journal_session_forget(f->journal, 5, 1, &err), -1);
	assert_int_equal(err.code, ERR_BUSY);
	r.state = RESOURCE_KEPT;
	r.kept_until_wall_ms = 99;
	assert_int_equal(journal_resource_update(f->journal, &r, NULL), 0);
	assert_int_equal(journal_session_forget(f->journal, 5, 1, NULL), 0);
	struct journal_resource *list;
	size_t count;
	assert_int_equal(journal_resource_list(f->journal, 0, 0, &list, &count, NULL), 0); /* it outlives its session */
	assert_int_equal(count, 1);
	assert_int_equal(list[0].kept_until_wall_ms, 99);
	free(list);
	assert_int_equal(journal_resource_gone(f->journal, r.id, NULL), 0);
	assert_int_equal(journal_resource_update(f->journal, &r, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_ID);
}

static void resources__several__are_newest_first_and_whole(void **state)
{
	struct fixture *f = *state;
	struct journal_resource *list;
	size_t count;
	int64_t id;
	for (int i = 0; i < 20; i++) {
		struct journal_resource r = { .migration = 5 + (uint64_t)i % 2,
			                      .generation = 1,
			                      .kind = RESOURCE_EXPORT,
			                      .process = { .pid = 100 + i, .start_ticks = 7 },
			                      .bytes = 1ull << 40,
			                      .path = "/e",
			                      .note = "n" };
		assert_int_equal(journal_resource_add(f->journal, &r, &id, NULL), 0);
	}
	assert_int_equal(journal_resource_list(f->journal, 6, 1, &list, &count, NULL), 0);
	assert_int_equal(count, 10);
	assert_int_equal(list[0].process.pid, 119);
	assert_int_equal(list[9].process.pid, 101);
	assert_int_equal(list[0].state, RESOURCE_INTENT);
	assert_int_equal(list[0].bytes, 1ull << 40);
	assert_string_equal(list[0].note, "n");
	free(list);
}

/* Somebody writes between the two lists, and is not seen. */
static void view__while_another_writes__is_of_one_moment(void **state)
{
	struct fixture *f = *state;
	struct journal_view view;
	struct journal_resource r = { .migration = 5, .generation = 1, .kind = RESOURCE_DISK, .path = "/d" };
	put(f, row_of(5, 1, SIDE_DESTINATION));
	assert_int_equal(journal_resource_add(f->journal, &r, &r.id, NULL), 0);
	for (int i = 0; i < 50; i++) {
		pid_t pid = fork();
		if (pid == 0) { /* takes the resource away, then the session; and the other way round */
			struct journal *own;
			if (journal_open(&own, &f->paths, NULL) < 0 || journal_resource_gone(own, r.id, NULL) < 0 ||
			    journal_session_forget(own, 5, 1, NULL) < 0)
				_exit(1);
			_exit(0);
		}
		assert_true(pid > 0);
		int status = -1;
		do {
			assert_int_equal(journal_view_read(f->journal, &view, NULL), 0);
			assert_false(view.resource_count > 0 && view.session_count == 0);
			journal_view_free(&view);
		} while (waitpid(pid, &status, WNOHANG) == 0);
		assert_int_equal(status, 0);
		put(f, row_of(5, 1, SIDE_DESTINATION));
		assert_int_equal(journal_resource_add(f->journal, &r, &r.id, NULL), 0);
	}
	assert_int_equal(journal_view_read(f->journal, &view, NULL), 0);
	assert_int_equal(view.session_count, 1);
	assert_int_equal(view.resource_count, 1);
	assert_int_equal(view.resources[0].id, r.id);
	journal_view_free(&view);
	journal_view_free(&view); /* harmless */
}

static void answer__kept__is_given_again(void **state)
{
	struct fixture *f = *state;
	struct msg_answer *answer = calloc(1, sizeof(*answer)), *got = calloc(1, sizeof(*got));
	put(f, row_of(5, 1, SIDE_DESTINATION));
	assert_int_equal(journal_answer_get(f->journal, 5, 1, STEP_CHECK, got, NULL), 0);
	answer->step = STEP_CHECK;
	answer->side = SIDE_DESTINATION;
	answer->outcome = OUTCOME_REFUSED;
	err_set(&answer->cause, ERR_NO_SPACE, "full");
	answer->check_count = 1;
	(void)snprintf(answer->checks[0].name, sizeof(answer->checks[0].name), "space fast");
	assert_int_equal(journal_answer_put(f->journal, 5, 1, answer, NULL), 0);
	(void)reopen(f);
	assert_int_equal(journal_answer_get(f->journal, 5, 1, STEP_CHECK, got, NULL), 1);
	assert_int_equal(got->outcome, OUTCOME_REFUSED);
	assert_int_equal(got->cause.code, ERR_NO_SPACE);
	assert_string_equal(got->checks[0].name, "space fast");
	assert_int_equal(journal_answer_get(f->journal, 5, 1, STEP_PREPARE, got, NULL), 0);
	assert_int_equal(journal_session_forget(f->journal, 5, 1, NULL), 0);
	assert_int_equal(journal_answer_get(f->journal, 5, 1, STEP_CHECK, got, NULL), 0);
	free(answer);
	free(got);
}

static void expect_claims(struct fixture *f, uint64_t memory, uint64_t fast)
{
	uint64_t got_memory, got_disk;
	assert_int_equal(journal_claims(f->journal, "fast", &got_memory, &got_disk, NULL), 0);
	assert_int_equal(got_memory, memory);
	assert_int_equal(got_disk, fast);
}

static void claims__live_destinations__count_until_the_host_shows_them(void **state)
{
	struct fixture *f = *state;
	struct msg_plan *plan = plan_of(10 << 20);
	struct journal_session row = row_of(1, 1, SIDE_DESTINATION), source = row_of(2, 1, SIDE_SOURCE);
	row.claim_memory_bytes = source.claim_memory_bytes = 100;
	expect_claims(f, 0, 0);
	assert_int_equal(journal_session_put(f->journal, &row, plan, NULL), 0);
	assert_int_equal(journal_session_put(f->journal, &source, plan, NULL), 0); /* claims nothing */
	expect_claims(f, 100, 10 << 20);
	struct journal_resource reserve = {
		.migration = 1, .generation = 1, .kind = RESOURCE_RESERVE, .name = "xvda", .path = "/r"
	};
	assert_int_equal(journal_resource_add(f->journal, &reserve, &reserve.id, NULL), 0);
	expect_claims(f, 100, 10 << 20); /* an intent holds nothing yet */
	reserve.state = RESOURCE_MADE;
	assert_int_equal(journal_resource_update(f->journal, &reserve, NULL), 0);
	expect_claims(f, 100, 0);
	struct journal_resource vm = { .migration = 1, .generation = 1, .kind = RESOURCE_VM, .state = RESOURCE_MADE };
	assert_int_equal(journal_resource_add(f->journal, &vm, &vm.id, NULL), 0);
	expect_claims(f, 0, 0);
	assert_int_equal(journal_resource_gone(f->journal, vm.id, NULL), 0);
	expect_claims(f, 100, 0);
	row.core.state = SESSION_ROLLED_BACK;
	put(f, row);
	expect_claims(f, 0, 0);
	free(plan);
}

/* ---- several at once ---- */

/* Casts as one of two processes that disagree; exit status 1: cast, 0: refused, 2: something else. */
static int cast_one(const struct paths *paths, enum vote vote, uint64_t migration)
{
	struct journal *journal;
	struct verdict_local local = { .granted = true, .complete = vote == VOTE_COMMIT, .failed = vote == VOTE_ABORT };
	struct err err;
	if (journal_open(&journal, paths, &err) < 0)
		return 2;
	int rc = journal_vote(journal, migration, 1, SIDE_DESTINATION, vote, &local, NULL, &err);
	journal_close(journal);
	return rc == 0 ? 1 : err.code == ERR_TOO_LATE ? 0 : 2;
}

static void vote__two_processes_at_once__is_cast_once(void **state)
{
	struct fixture *f = *state;
	enum { ROUNDS = 12 };
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		int gate[2], status[2];
		pid_t pids[2];
		put(f, row_of(round, 1, SIDE_DESTINATION));
		assert_int_equal(pipe(gate), 0);
		journal_close(f->journal); /* SQLite handles do not cross a fork */
		f->journal = NULL;
		for (int i = 0; i < 2; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				char go;
				(void)close(gate[1]);
				(void)!read(gate[0], &go, 1); /* both wait for the end of the pipe */
				_exit(cast_one(&f->paths, i ? VOTE_ABORT : VOTE_COMMIT, round));
			}
		}
		(void)close(gate[0]);
		(void)close(gate[1]);
		for (int i = 0; i < 2; i++) {
			assert_int_equal(waitpid(pids[i], &status[i], 0), pids[i]);
			assert_true(WIFEXITED(status[i]) && WEXITSTATUS(status[i]) != 2);
		}
		assert_int_equal(WEXITSTATUS(status[0]) + WEXITSTATUS(status[1]), 1);
		struct journal_session row;
		(void)reopen(f);
		assert_int_equal(journal_session_get(f->journal, round, 1, &row, NULL, NULL), 0);
		assert_int_equal(row.facts.vote[PARTY_DESTINATION], WEXITSTATUS(status[0]) ? VOTE_COMMIT : VOTE_ABORT);
	}
}

struct adder {
	struct journal *journal;
	int kind;
};

static void *add_resources(void *arg)
{
	struct adder *adder = arg;
	int64_t id;
	for (int i = 0; i < 30; i++) {
		struct journal_resource r = {
			.migration = 1, .generation = 1, .kind = (enum resource_kind)adder->kind, .path = "/x"
		};
		struct verdict_facts facts = { .suspended = true };
		if (journal_resource_add(adder->journal, &r, &id, NULL) < 0 ||
		    journal_facts_add(adder->journal, 1, 1, &facts, NULL, NULL) < 0)
			return arg;
	}
	return NULL;
}

static void handle__several_threads__share_it(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[3];
	struct adder adders[3];
	put(f, row_of(1, 1, SIDE_SOURCE));
	for (int i = 0; i < 3; i++) {
		adders[i] = (struct adder) { .journal = f->journal, .kind = i + 1 };
		assert_int_equal(pthread_create(&threads[i], NULL, add_resources, &adders[i]), 0);
	}
	for (int i = 0; i < 3; i++) {
		void *failed;
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	struct journal_resource *list;
	size_t count;
	assert_int_equal(journal_resource_list(f->journal, 1, 1, &list, &count, NULL), 0);
	assert_int_equal(count, 90);
	free(list);
}

/* Writes and says through the pipe what is durable, until it is killed. */
static void write_for_ever(const struct paths *paths, int out)
{
	struct journal *journal;
	if (journal_open(&journal, paths, NULL) < 0)
		_exit(2);
	for (uint64_t n = 1;; n++) {
		struct journal_session row = row_of(n, 1, SIDE_SOURCE);
		if (journal_session_put(journal, &row, NULL, NULL) < 0 || journal_epoch_raise(journal, n, NULL) < 0 ||
		    journal_vote(journal, n, 1, SIDE_SOURCE, VOTE_ABORT, &(struct verdict_local) { .failed = true },
		                 NULL, NULL) < 0 ||
		    write(out, &n, sizeof(n)) != sizeof(n))
			_exit(2);
	}
}

static void crash__killed_while_it_writes__loses_nothing_acknowledged(void **state)
{
	struct fixture *f = *state;
	journal_close(f->journal);
	f->journal = NULL;
	for (unsigned round = 0; round < 4; round++) {
		int ends[2];
		uint64_t n = 0, last = 0;
		char path[PATHS_MAX + 32];
		(void)snprintf(path, sizeof(path), "%s/journal.db", f->paths.lib);
		assert_int_equal(pipe(ends), 0);
		pid_t pid = fork();
		if (pid == 0) {
			(void)close(ends[0]);
			write_for_ever(&f->paths, ends[1]);
		}
		(void)close(ends[1]);
		while (read(ends[0], &n, sizeof(n)) == sizeof(n)) {
			last = n;
			if (n == 20 + 7 * round)
				(void)kill(pid,
				           SIGKILL); /* in the middle of something; what is in the pipe counts too */
		}
		(void)close(ends[0]);
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		(void)reopen(f);
		assert_true(journal_epoch(f->journal) >= last);
		for (uint64_t m = 1; m <= last; m++) {
			struct journal_session row;
			assert_int_equal(journal_session_get(f->journal, m, 1, &row, NULL, NULL), 0);
			assert_int_equal(row.facts.vote[PARTY_SOURCE], VOTE_ABORT);
		}
		journal_close(f->journal);
		f->journal = NULL;
		(void)unlink(path);
		(void)snprintf(path, sizeof(path), "%s/journal.db-wal", f->paths.lib);
		(void)unlink(path);
		(void)snprintf(path, sizeof(path), "%s/journal.db-shm", f->paths.lib);
		(void)unlink(path);
	}
}

/* ---- schema ---- */

static void schema__older_version__is_brought_up_with_its_rows(void **state)
{
	struct fixture *f = *state;
	char path[PATHS_MAX + 32];
	struct db *db;
	struct err err;
	struct verdict_facts facts, none = { 0 };
	journal_close(f->journal);
	f->journal = NULL;
	(void)snprintf(path, sizeof(path), "%s/old", f->root);
	assert_int_equal(paths_init(&f->paths, f->root, NULL), 0);
	(void)snprintf(f->paths.lib, sizeof(f->paths.lib), "%s/old", f->root);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/old/journal.db", f->root);
	for (unsigned version = 1; version < journal_migration_count; version++) {
		(void)unlink(path);
		if (db_open(&db, path, journal_migrations, version, false, &err) < 0)
			fail_msg("%s", err.text);
		assert_int_equal(db_exec(db, &err, "UPDATE meta SET value = 41 WHERE key = 'epoch'", ""), 0);
		assert_int_equal(db_exec(db, &err,
		                         "INSERT INTO session VALUES (7, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, '', 'b', "
		                         "0, 0, '', '',"
		                         " '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, NULL)",
		                         ""),
		                 0);
		assert_int_equal(db_exec(db, &err,
		                         "INSERT INTO facts (migration, generation, vote_source) VALUES (7, 1, 1)", ""),
		                 0);
		db_close(db);
		(void)reopen(f);
		assert_int_equal(journal_epoch(f->journal), 41);
		assert_int_equal(journal_facts_add(f->journal, 7, 1, &none, &facts, NULL), 0);
		assert_int_equal(facts.vote[PARTY_SOURCE], VOTE_COMMIT);
		assert_int_equal(db_exec(f->journal->db, &err, "UPDATE facts SET vote_source = 2", ""), -1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		journal_test(session__put_and_reopened__comes_back_whole),
		journal_test(session__not_there__is_unknown),
		journal_test(session_list__several__is_oldest_first),
		journal_test(generation__forgotten_session__is_remembered),
		journal_test(epoch__raised__survives_and_never_falls),
		journal_test(identity__database_replaced__is_told),
		journal_test(forget__resources_left__is_refused),
		journal_test(resources__several__are_newest_first_and_whole),
		journal_test(view__while_another_writes__is_of_one_moment),
		journal_test(answer__kept__is_given_again),
		journal_test(claims__live_destinations__count_until_the_host_shows_them),
		journal_test(vote__two_processes_at_once__is_cast_once),
		journal_test(handle__several_threads__share_it),
		journal_test(crash__killed_while_it_writes__loses_nothing_acknowledged),
		journal_test(schema__older_version__is_brought_up_with_its_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
