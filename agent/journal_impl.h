/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the journal share; for nobody else but its tests. */
#ifndef DROVER_JOURNAL_IMPL_H
#define DROVER_JOURNAL_IMPL_H

#include <pthread.h>

#include "agent/journal.h"
#include "common/db.h"

struct journal {
	struct db *db;
	pthread_mutex_t lock; /* a leg has threads; one statement or transaction at a time */
	char id[LIMIT_ID];
	uint64_t epoch; /* as journaled; only the agent raises it */
	bool lost;
};

/* The schema, one step a version. */
extern const struct db_migration journal_migrations[];
extern const unsigned journal_migration_count;

/* Facts of one session, within the caller's transaction and lock. ERR_UNKNOWN_ID if there is no such session. */
int journal_facts_read(struct journal *journal, uint64_t migration, uint32_t generation,
                       struct verdict_facts *ret_facts, struct err *err);

/* Whether it is an integer, at least `least` and below `end`. */
bool journal_column_is(sqlite3_stmt *stmt, int column, int64_t least, int64_t end);
/* What journal_session_list() and journal_resource_list() do, within the caller's lock; what was read is the caller's
 * to free, also on failure. */
int journal_sessions_read(struct journal *journal, struct journal_session **list, size_t *count, struct err *err);
int journal_resources_read(struct journal *journal, uint64_t migration, uint32_t generation,
                           struct journal_resource **list, size_t *count, struct err *err);

/* The seven flags of the facts, in the order in which columns are listed everywhere. */
#define JOURNAL_FACT_COLUMNS                                                                                        \
	"vote_coordinator, vote_source, vote_destination, suspended, stream_ended, resumed, released, activating, " \
	"running, renounced, ruling"
#define JOURNAL_FACT_COUNT 11
/* Reads them from `column` on. False: one of them is nothing that a fact can be. */
bool journal_facts_columns(sqlite3_stmt *stmt, int column, struct verdict_facts *ret_facts);

#endif
