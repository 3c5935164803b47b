/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A host's journal with anything in its rows: what is read of them makes sense, or is refused with words. */
#include "agent/journal.h"
#include "agent/journal_impl.h"
#include "tests/fuzz/fuzz_rows.h"
#include "tests/unit/msg_samples.h"

#define MIGRATION 7u
#define GENERATION 1u

static struct journal *journal;
static struct fuzz_table tables[5];

/* One of each that is well. */
static void fill(void)
{
	static struct msg sample;
	static struct sample_lists lists;
	struct err err = { 0 };
	struct journal_session row = { .migration = MIGRATION,
		                       .generation = GENERATION,
		                       .side = SIDE_DESTINATION,
		                       .core = { .state = SESSION_CHECKED, .side = SIDE_DESTINATION },
		                       .claim_memory_bytes = 4096 };
	struct journal_resource resource = { .migration = MIGRATION,
		                             .generation = GENERATION,
		                             .kind = RESOURCE_DISK,
		                             .name = "xvda",
		                             .path = "/srv/x" };
	sample_full(&sample, MSG_COMMAND, &lists);
	fuzz_must(journal_session_put(journal, &row, &lists.plan, &err) == 0, "session", &err);
	fuzz_must(journal_resource_add(journal, &resource, &resource.id, &err) == 0, "resource", &err);
	sample_full(&sample, MSG_ANSWER, &lists);
	sample.u.answer.step = STEP_CHECK;
	fuzz_must(journal_answer_put(journal, MIGRATION, GENERATION, &sample.u.answer, &err) == 0, "answer", &err);
}

static void begin(void)
{
	static struct paths paths;
	struct err err = { 0 };
	fuzz_folder_make();
	fuzz_must(paths_init(&paths, fuzz_folder, &err) == 0 && paths_make(&paths, &err) == 0, "paths", &err);
	fuzz_must(journal_open(&journal, &paths, &err) == 0, "open", &err);
	fill();
	fuzz_db_loosen(journal->db);
	fuzz_sql(journal->db, "DROP TRIGGER facts_grow; DROP TRIGGER epoch_grows; DROP TRIGGER generation_grows");
	tables[0] = fuzz_table(journal->db, "session", "migration generation");
	tables[1] = fuzz_table(journal->db, "facts", "migration generation");
	tables[2] = fuzz_table(journal->db, "answer", "migration generation step");
	tables[3] = fuzz_table(journal->db, "resource", "id");
	tables[4] = fuzz_table(journal->db, "generation", "migration");
}

static void check_session(const struct journal_session *row)
{
	const struct session_core *core = &row->core;
	struct session_core next;
	struct session_actions actions;
	fuzz_must(row->side == SIDE_SOURCE || row->side == SIDE_DESTINATION, "side", NULL);
	fuzz_must(core->side == row->side && (unsigned)core->state < SESSION_STATES, "state", NULL);
	fuzz_must((unsigned)core->asked < STEPS && (unsigned)core->highest < STEPS, "step", NULL);
	fuzz_must((unsigned)row->cause.code < ERR_CODES, "cause", NULL);
	for (int party = 0; party < PARTIES; party++)
		fuzz_must((unsigned)row->facts.vote[party] <= VOTE_ABORT, "vote", NULL);
	for (int kind = EVENT_COMMAND; kind < EVENT_KINDS; kind++) {
		const struct session_event event = { .kind = (enum session_event_kind)kind,
			                             .step = STEP_ABORT,
			                             .ok = true };
		session_step(core, &row->facts, &event, &next, &actions);
		fuzz_must(actions.count <= SESSION_ACTIONS_MAX, "too much to do", NULL);
	}
	session_due(core, &row->facts, &actions);
}

static void try_sessions(void)
{
	static struct msg_plan got;
	struct journal_session *list = NULL, row;
	size_t count = 0;
	struct err err = { 0 };
	if (journal_session_list(journal, &list, &count, &err) == 0) {
		for (size_t i = 0; i < count; i++)
			check_session(&list[i]);
		free(list);
	} else {
		fuzz_must_be_worded(&err);
	}
	if (journal_session_get(journal, MIGRATION, GENERATION, &row, &got, &err) == 0)
		check_session(&row);
	else
		fuzz_must_be_worded(&err);
}

static void try_resources(void)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	struct err err = { 0 };
	if (journal_resource_list(journal, 0, 0, &list, &count, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		fuzz_must(list[i].kind >= RESOURCE_DISK && list[i].kind < RESOURCE_KINDS, "kind", NULL);
		fuzz_must(list[i].state >= RESOURCE_INTENT && list[i].state <= RESOURCE_KEPT, "state", NULL);
		fuzz_must(list[i].kind == RESOURCE_VM || list[i].kind == RESOURCE_BITMAP || list[i].path[0] != '\0',
		          "nothing to take away", NULL);
	}
	free(list);
}

static void try_rest(void)
{
	static struct msg_answer answer;
	struct err err = { 0 };
	uint64_t memory, disk;
	uint32_t generation;
	if (journal_answer_get(journal, MIGRATION, GENERATION, STEP_CHECK, &answer, &err) < 0)
		fuzz_must_be_worded(&err);
	if (journal_claims(journal, "fast", &memory, &disk, &err) != 0)
		fuzz_must_be_worded(&err);
	if (journal_generation(journal, MIGRATION, &generation, &err) != 0)
		fuzz_must_be_worded(&err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct fuzz_input input = { data, bytes };
	if (journal == NULL)
		begin();
	struct err err = { 0 };
	fuzz_must(db_begin(journal->db, &err) == 0, "begin", &err);
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		fuzz_rows(&tables[i], &input);
	try_sessions();
	try_resources();
	try_rest();
	db_rollback(journal->db);
	return 0;
}
