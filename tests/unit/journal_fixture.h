/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A journal in a folder of its own, for the tests of it. */
#ifndef DROVER_TEST_JOURNAL_FIXTURE_H
#define DROVER_TEST_JOURNAL_FIXTURE_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/journal.h"

struct fixture {
	char root[64];
	struct paths paths;
	struct journal *journal;
};

static inline int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static inline struct journal *reopen(struct fixture *f)
{
	struct err err;
	journal_close(f->journal);
	f->journal = NULL;
	if (journal_open(&f->journal, &f->paths, &err) < 0)
		fail_msg("%s", err.text);
	return f->journal;
}

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");
	(void)snprintf(f->root, sizeof(f->root), "%.30s/drover-journal-XXXXXX", tmp && strlen(tmp) < 30 ? tmp : "/tmp");
	if (!mkdtemp(f->root) || paths_init(&f->paths, f->root, NULL) < 0 || paths_make(&f->paths, NULL) < 0)
		return -1;
	(void)reopen(f);
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;
	journal_close(f->journal);
	(void)nftw(f->root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static inline struct journal_session row_of(uint64_t migration, uint32_t generation, enum side side)
{
	struct journal_session row = {
		.migration = migration,
		.generation = generation,
		.side = side,
		.core = { .state = SESSION_CHECKED, .side = side, .highest = STEP_CHECK, .sequence = 5 },
		.boot_id = "boot-1",
		.created_wall_ms = 1000 + (int64_t)migration
	};
	return row;
}

static inline void put(struct fixture *f, struct journal_session row)
{
	struct err err;
	if (journal_session_put(f->journal, &row, NULL, &err) < 0)
		fail_msg("%s", err.text);
}

#define journal_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
