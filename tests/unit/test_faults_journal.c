/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal of a host on a disk, a file system and a heap that fail: tests/faults/fault_rig.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/journal.h"
#include "agent/journal_impl.h"
#include "tests/faults/fault_rig.h"
#include "tests/faults/fault_vfs.h"

static struct journal *journal;
static struct paths paths;

/* ---- the rig ---- */

static int open_journal(const char *folder, struct err *err)
{
	journal = NULL;
	assert_int_equal(paths_init(&paths, folder, NULL), 0);
	return journal_open(&journal, &paths, err);
}

static void close_journal(void)
{
	journal_close(journal);
	journal = NULL;
}

static sqlite3 *handle(void)
{
	return journal->db->handle;
}

static struct journal_session row_of(uint64_t migration, enum side side)
{
	struct journal_session row = {
		.migration = migration,
		.generation = 1,
		.side = side,
		.core = { .state = SESSION_SWITCHING, .side = side, .highest = STEP_SWITCH, .sequence = 5 },
		.boot_id = "boot-1",
		.claim_memory_bytes = 1 << 20,
		.created_wall_ms = 1000
	};
	(void)snprintf(row.fingerprint, sizeof(row.fingerprint), "aabb");
	return row;
}

static struct msg_plan a_plan(void)
{
	struct msg_plan plan = { .on_slow = ON_SLOW_WAIT };
	plan.vm.uuid[3] = 7;
	(void)snprintf(plan.vm.name, sizeof(plan.vm.name), "web1");
	plan.vm.state = VM_RUNNING;
	plan.vm.memory_bytes = 1 << 20;
	plan.vm.vcpus = 1;
	(void)snprintf(plan.source, sizeof(plan.source), "a1");
	(void)snprintf(plan.destination, sizeof(plan.destination), "b1");
	return plan;
}

static int put_answer(struct err *err)
{
	struct msg_answer answer = { .step = STEP_CHECK, .side = SIDE_SOURCE, .outcome = OUTCOME_DONE };
	answer.session =
		(struct msg_session) { .migration = 1, .generation = 1, .side = SIDE_SOURCE, .phase = PHASE_CHECKED };
	return journal_answer_put(journal, 1, 1, &answer, err);
}

static int add_resource(const char *name, int64_t *ret_id, struct err *err)
{
	struct journal_resource resource = { .migration = 1, .generation = 1, .kind = RESOURCE_DISK };
	(void)snprintf(resource.name, sizeof(resource.name), "%s", name);
	(void)snprintf(resource.path, sizeof(resource.path), "/sr/%s", name);
	return journal_resource_add(journal, &resource, ret_id, err);
}

/* Migration 1: this host is the source and has ended the stream; 2: the destination. 3: nothing is held. */
static void fill(void)
{
	struct err err;
	struct msg_plan plan = a_plan();
	struct verdict_local local = { .granted = true };
	const struct verdict_facts flags[] = { { .suspended = true }, { .stream_ended = true } };
	int64_t id;
	for (uint64_t migration = 1; migration <= 3; migration++) {
		struct journal_session row = row_of(migration, migration == 2 ? SIDE_DESTINATION : SIDE_SOURCE);
		if (journal_session_put(journal, &row, &plan, &err) != 0)
			fail_msg("%s", err.text);
	}
	for (size_t i = 0; i < 2; i++)
		if (journal_flag(journal, 1, 1, &flags[i], &local, NULL, &err) != 0)
			fail_msg("%s", err.text);
	const struct verdict_facts heard = { .vote = { 0, 0, VOTE_COMMIT } };
	if (journal_facts_add(journal, 1, 1, &heard, NULL, &err) != 0 || put_answer(&err) != 0 ||
	    add_resource("xvda", &id, &err) != 0 || journal_epoch_raise(journal, 7, &err) != 0)
		fail_msg("%s", err.text);
}

static void check(bool filled)
{
	struct journal_session *list = NULL;
	size_t count = 0;
	struct err err;
	assert_int_equal(strlen(journal_id(journal)), 32);
	assert_false(journal_was_lost(journal));
	assert_int_equal(journal_epoch(journal), filled ? 7 : 0);
	assert_int_equal(journal_session_list(journal, &list, &count, &err), 0);
	assert_int_equal(count, filled ? 3 : 0);
	if (filled)
		assert_int_equal(list[0].facts.vote[PARTY_DESTINATION], VOTE_COMMIT);
	free(list);
}

static const struct fault_rig rig = { .file = "lib/journal.db",
	                              .beside = "lib/journal.id",
	                              .open = open_journal,
	                              .close = close_journal,
	                              .handle = handle,
	                              .fill = fill,
	                              .check = check };

/* ---- the calls ---- */

static int call_epoch_raise(struct err *err)
{
	uint64_t before = journal_epoch(journal);
	int rc = journal_epoch_raise(journal, 9, err);
	assert_int_equal(journal_epoch(journal), rc == 0 ? 9 : before);
	return rc;
}

static int call_session_put(struct err *err)
{
	struct msg_plan plan = a_plan();
	struct journal_session row = row_of(4, SIDE_SOURCE);
	return journal_session_put(journal, &row, &plan, err);
}

static int call_session_replace(struct err *err)
{
	struct journal_session row = row_of(1, SIDE_SOURCE);
	row.core.state = SESSION_COMMITTED;
	return journal_session_put(journal, &row, NULL, err);
}

static int call_session_get(struct err *err)
{
	struct journal_session row;
	struct msg_plan plan;
	if (journal_session_get(journal, 1, 1, &row, &plan, err) != 0)
		return -1;
	assert_int_equal(row.core.state, SESSION_SWITCHING);
	assert_string_equal(row.fingerprint, "aabb");
	assert_string_equal(row.boot_id, "boot-1");
	assert_true(row.facts.stream_ended && row.facts.vote[PARTY_DESTINATION] == VOTE_COMMIT);
	assert_string_equal(plan.vm.name, "web1");
	return 0;
}

static int call_session_list(struct err *err)
{
	struct journal_session *list = NULL;
	size_t count = 0;
	if (journal_session_list(journal, &list, &count, err) != 0)
		return -1;
	assert_int_equal(count, 3);
	assert_string_equal(list[2].boot_id, "boot-1");
	free(list);
	return 0;
}

static int call_forget(struct err *err)
{
	return journal_session_forget(journal, 3, 1, err);
}

static int call_generation(struct err *err)
{
	uint32_t generation = 77;
	int rc = journal_generation(journal, 3, &generation, err);
	assert_int_equal(generation, rc == 0 ? 1 : 77);
	return rc;
}

static int call_facts_add(struct err *err)
{
	const struct verdict_facts news = { .vote = { VOTE_ABORT, 0, 0 } };
	struct verdict_facts facts = { .resumed = true };
	int rc = journal_facts_add(journal, 2, 1, &news, &facts, err);
	if (rc == 0)
		assert_true(facts.vote[PARTY_COORDINATOR] == VOTE_ABORT && !facts.resumed);
	else
		assert_true(facts.vote[PARTY_COORDINATOR] == VOTE_NONE && facts.resumed);
	return rc;
}

/* No vote is told to be cast that is not: what the caller has of it stays as it was. */
static int vote(uint64_t migration, enum side side, enum vote vote, const struct verdict_local *local, struct err *err)
{
	struct verdict_facts facts = { .resumed = true };
	int rc = journal_vote(journal, migration, 1, side, vote, local, &facts, err);
	assert_int_equal(facts.vote[party_of(side)], rc == 0 ? vote : VOTE_NONE);
	assert_int_equal(facts.resumed, rc != 0);
	return rc;
}

static int call_vote_source(struct err *err)
{
	const struct verdict_local local = { .granted = true };
	return vote(1, SIDE_SOURCE, VOTE_COMMIT, &local, err);
}

static int call_vote_destination(struct err *err)
{
	const struct verdict_local local = { .granted = true, .complete = true };
	return vote(2, SIDE_DESTINATION, VOTE_COMMIT, &local, err);
}

static int call_vote_abort(struct err *err)
{
	const struct verdict_local local = { .granted = true, .failed = true };
	return vote(3, SIDE_SOURCE, VOTE_ABORT, &local, err);
}

static int call_flag(struct err *err)
{
	const struct verdict_local local = { .granted = true };
	const struct verdict_facts flag = { .suspended = true };
	struct verdict_facts facts = { .resumed = true };
	int rc = journal_flag(journal, 3, 1, &flag, &local, &facts, err);
	assert_int_equal(facts.suspended, rc == 0);
	assert_int_equal(facts.resumed, rc != 0);
	return rc;
}

static int call_answer_get(struct err *err)
{
	struct msg_answer answer;
	int rc = journal_answer_get(journal, 1, 1, STEP_CHECK, &answer, err);
	assert_int_not_equal(rc, 0);
	if (rc == 1)
		assert_int_equal(answer.outcome, OUTCOME_DONE);
	return rc == 1 ? 0 : -1;
}

static int call_answer_put(struct err *err)
{
	struct msg_answer answer = { .step = STEP_PREPARE, .side = SIDE_SOURCE, .outcome = OUTCOME_DONE };
	answer.session =
		(struct msg_session) { .migration = 1, .generation = 1, .side = SIDE_SOURCE, .phase = PHASE_PREPARED };
	(void)snprintf(answer.fingerprint, sizeof(answer.fingerprint), "%064d", 0);
	return journal_answer_put(journal, 1, 1, &answer, err);
}

static int call_resource_add(struct err *err)
{
	int64_t id = -1;
	int rc = add_resource("xvdb", &id, err);
	assert_int_equal(id, rc == 0 ? 2 : -1);
	return rc;
}

static int call_resource_update(struct err *err)
{
	struct journal_resource resource = { .id = 1, .state = RESOURCE_MADE, .note = "4711:5" };
	return journal_resource_update(journal, &resource, err);
}

static int call_resource_gone(struct err *err)
{
	return journal_resource_gone(journal, 1, err);
}

static int call_resource_list(struct err *err)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	if (journal_resource_list(journal, 1, 1, &list, &count, err) != 0)
		return -1;
	assert_int_equal(count, 1);
	assert_string_equal(list[0].path, "/sr/xvda");
	free(list);
	return 0;
}

static int call_claims(struct err *err)
{
	uint64_t memory = 0, disk = 0;
	if (journal_claims(journal, "fast", &memory, &disk, err) != 0)
		return -1;
	assert_int_equal(memory, 1 << 20);
	return 0;
}

static void every_call__every_fault__before_or_after(void **state)
{
	static const struct fault_call calls[] = {
		{ "epoch_raise", call_epoch_raise, false },
		{ "session_put", call_session_put, false },
		{ "session_put again", call_session_replace, false },
		{ "session_get", call_session_get, true },
		{ "session_list", call_session_list, true },
		{ "session_forget", call_forget, false },
		{ "generation", call_generation, true },
		{ "facts_add", call_facts_add, false },
		{ "vote of the source", call_vote_source, false },
		{ "vote of the destination", call_vote_destination, false },
		{ "vote to abort", call_vote_abort, false },
		{ "flag", call_flag, false },
		{ "answer_put", call_answer_put, false },
		{ "answer_get", call_answer_get, true },
		{ "resource_add", call_resource_add, false },
		{ "resource_update", call_resource_update, false },
		{ "resource_gone", call_resource_gone, false },
		{ "resource_list", call_resource_list, true },
		{ "claims", call_claims, true },
	};
	(void)state;
	fault_try_calls(&rig, calls, sizeof(calls) / sizeof(calls[0]));
}

static void open__every_fault__nothing_is_lost(void **state)
{
	(void)state;
	fault_try_open(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call__every_fault__before_or_after),
		cmocka_unit_test(open__every_fault__nothing_is_lost),
	};
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
