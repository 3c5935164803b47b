/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows of a journal that make no sense: a damaged file, or another program's hand. They are refused, each with words.
 */
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

static char folder[64];
static struct journal *journal;

static int setup(void **state)
{
	struct paths paths;
	struct err err = { 0 };
	struct journal_session row = { .migration = 7, .generation = 1, .side = SIDE_DESTINATION };
	struct journal_resource resource = {
		.migration = 7, .generation = 1, .kind = RESOURCE_DISK, .name = "xvda", .path = "/srv/x"
	};
	struct msg_answer *answer = calloc(1, sizeof(*answer));
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/drover-rows-XXXXXX");
	if (!mkdtemp(folder) || paths_init(&paths, folder, &err) || paths_make(&paths, &err) ||
	    journal_open(&journal, &paths, &err) || journal_session_put(journal, &row, NULL, &err) ||
	    journal_resource_add(journal, &resource, &resource.id, &err))
		fail_msg("%s", err.text);
	answer->step = STEP_CHECK;
	answer->side = SIDE_DESTINATION;
	answer->outcome = OUTCOME_DONE;
	assert_int_equal(journal_answer_put(journal, 7, 1, answer, NULL), 0);
	free(answer);
	return 0;
}

static int teardown(void **state)
{
	char command[128];
	(void)state;
	journal_close(journal);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

/* Runs one statement that the schema's checks would forbid. */
static void spoil(const char *sql)
{
	struct err err = { 0 };
	if (db_exec(journal->db, &err, "PRAGMA ignore_check_constraints=ON", "") || db_exec(journal->db, &err, sql, ""))
		fail_msg("%s", err.text);
}

static void assert_sessions(bool good)
{
	struct journal_session *list = NULL, row;
	size_t count;
	struct err err = { 0 };
	assert_int_equal(journal_session_list(journal, &list, &count, &err), good ? 0 : -1);
	assert_int_equal(err.code, good ? ERR_NONE : ERR_CORRUPT);
	free(list);
	assert_int_equal(journal_session_get(journal, 7, 1, &row, NULL, &err), good ? 0 : -1);
}

static void session__side_or_state_of_no_kind__is_refused(void **state)
{
	(void)state;
	assert_sessions(true);
	spoil("UPDATE session SET side = 3");
	assert_sessions(false);
	spoil("UPDATE session SET side = 2, state = 4294967296 + 3"); /* 3, if bits were lost */
	assert_sessions(false);
	spoil("UPDATE session SET state = 'copying'");
	assert_sessions(false);
	spoil("UPDATE session SET state = 1, cause_code = 4294967296");
	assert_sessions(false);
}

/* A vote that cannot be read is not one that was not cast. */
static void facts__damaged__are_refused(void **state)
{
	struct verdict_facts facts;
	struct err err = { 0 };
	(void)state;
	spoil("UPDATE facts SET vote_source = 'commit'");
	assert_sessions(false);
	assert_int_equal(journal_facts_read(journal, 7, 1, &facts, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
	spoil("DROP TRIGGER facts_grow");
	spoil("UPDATE facts SET vote_source = 0, activating = 2");
	assert_sessions(false);
	spoil("UPDATE facts SET activating = 1");
	assert_sessions(true);
}

static void assert_resources(bool good)
{
	struct journal_resource *list = NULL;
	size_t count;
	struct err err = { 0 };
	assert_int_equal(journal_resource_list(journal, 0, 0, &list, &count, &err), good ? 0 : -1);
	assert_int_equal(err.code, good ? ERR_NONE : ERR_CORRUPT);
	free(list);
}

/* What is struck off because of a path that is not its own stays for ever, or takes another's file away. */
static void resource__without_its_path__is_refused(void **state)
{
	(void)state;
	assert_resources(true);
	spoil("UPDATE resource SET path = ''");
	assert_resources(false);
	spoil("UPDATE resource SET path = x'2f61'");
	assert_resources(false);
	spoil("UPDATE resource SET path = '/' || printf('%0300d', 1)");
	assert_resources(false);
	spoil("UPDATE resource SET path = '/srv/x', kind = 99");
	assert_resources(false);
	spoil("UPDATE resource SET kind = 1, state = 9");
	assert_resources(false);
	spoil("UPDATE resource SET state = 1");
	assert_resources(true);
}

static void answer__empty__is_refused_with_words(void **state)
{
	struct msg_answer *answer = calloc(1, sizeof(*answer));
	struct err err = { 0 };
	(void)state;
	assert_int_equal(journal_answer_get(journal, 7, 1, STEP_CHECK, answer, &err), 1);
	spoil("UPDATE answer SET frame = x''");
	assert_int_equal(journal_answer_get(journal, 7, 1, STEP_CHECK, answer, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
	free(answer);
}

static void generation__damaged__is_not_taken_for_none(void **state)
{
	uint32_t generation = 0;
	struct err err = { 0 };
	(void)state;
	assert_int_equal(journal_generation(journal, 7, &generation, &err), 0);
	assert_int_equal(generation, 1);
	spoil("UPDATE generation SET generation = 'two'");
	assert_int_equal(journal_generation(journal, 7, &generation, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(session__side_or_state_of_no_kind__is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(facts__damaged__are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(resource__without_its_path__is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(generation__damaged__is_not_taken_for_none, setup, teardown),
		cmocka_unit_test_setup_teardown(answer__empty__is_refused_with_words, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
