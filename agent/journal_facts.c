/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>

#include "agent/core/leg_rules.h"
#include "agent/journal_impl.h"

bool journal_facts_columns(sqlite3_stmt *stmt, int column, struct verdict_facts *ret_facts)
{
	for (int i = 0; i < JOURNAL_FACT_COUNT; i++) {
		bool votes = i < PARTIES || i == JOURNAL_FACT_COUNT - 1; /* the ruling comes last */
		if (!journal_column_is(stmt, column + i, 0, votes ? VOTE_ABORT + 1 : 2))
			return false;
	}
	*ret_facts = (struct verdict_facts) {
		.vote = { (enum vote)db_int(stmt, column), (enum vote)db_int(stmt, column + 1),
		          (enum vote)db_int(stmt, column + 2) },
		.suspended = db_int(stmt, column + 3) != 0,
		.stream_ended = db_int(stmt, column + 4) != 0,
		.resumed = db_int(stmt, column + 5) != 0,
		.released = db_int(stmt, column + 6) != 0,
		.activating = db_int(stmt, column + 7) != 0,
		.running = db_int(stmt, column + 8) != 0,
		.renounced = db_int(stmt, column + 9) != 0,
		.ruling = (enum vote)db_int(stmt, column + 10),
	};
	return true;
}

int journal_facts_read(struct journal *journal, uint64_t migration, uint32_t generation,
                       struct verdict_facts *ret_facts, struct err *err)
{
	sqlite3_stmt *stmt = db_query(
		journal->db, err, "SELECT " JOURNAL_FACT_COLUMNS " FROM facts WHERE migration = ? AND generation = ?",
		"uu", migration, (uint64_t)generation);
	if (!stmt)
		return -1;
	int row = db_step(journal->db, stmt, err);
	if (row == 1 && !journal_facts_columns(stmt, 0, ret_facts))
		row = err_set(err, ERR_CORRUPT, "%s: the facts of migration %" PRIu64 " make no sense",
		              journal->db->path, migration);
	else if (row == 0)
		err_set(err, ERR_UNKNOWN_ID, "migration %" PRIu64 ", generation %u is not in this host's journal",
		        migration, generation);
	db_end(stmt);
	return row == 1 ? 0 : -1;
}

static int facts_write(struct journal *journal, uint64_t migration, uint32_t generation,
                       const struct verdict_facts *facts, struct err *err)
{
	return db_exec(journal->db, err,
	               "UPDATE facts SET vote_coordinator = ?, vote_source = ?, vote_destination = ?, suspended = ?,"
	               " stream_ended = ?, resumed = ?, released = ?, activating = ?, running = ?, renounced = ?,"
	               " ruling = ? WHERE migration = ? AND generation = ?",
	               "iiiiiiiiiiiuu", (int64_t)facts->vote[PARTY_COORDINATOR], (int64_t)facts->vote[PARTY_SOURCE],
	               (int64_t)facts->vote[PARTY_DESTINATION], (int64_t)facts->suspended, (int64_t)facts->stream_ended,
	               (int64_t)facts->resumed, (int64_t)facts->released, (int64_t)facts->activating,
	               (int64_t)facts->running, (int64_t)facts->renounced, (int64_t)facts->ruling, migration,
	               (uint64_t)generation);
}

/* What a change may see and say. Returns 0: the facts are as they shall be; -1: refused. */
typedef int (*change_fn)(const void *arg, struct verdict_facts *facts, struct err *err);

/* Reads, changes and writes in one transaction, so that two processes of a host cannot both find room for a vote. */
static int facts_change(struct journal *journal, uint64_t migration, uint32_t generation, change_fn change,
                        const void *arg, struct verdict_facts *ret_facts, struct err *err)
{
	struct verdict_facts facts;
	(void)pthread_mutex_lock(&journal->lock);
	int rc = db_begin(journal->db, err);
	if (rc == 0) {
		rc = journal_facts_read(journal, migration, generation, &facts, err);
		if (rc == 0) {
			struct verdict_facts before = facts;
			bool conflict = false;
			rc = change(arg, &facts, err);
			if (rc == 0 && verdict_learn(&before, &facts, &conflict)) /* nothing new: nothing to sync */
				rc = facts_write(journal, migration, generation, &facts, err);
		}
		if (rc == 0)
			rc = db_commit(journal->db, err);
		else
			db_rollback(journal->db);
	}
	(void)pthread_mutex_unlock(&journal->lock);
	if (rc == 0 && ret_facts)
		*ret_facts = facts;
	return rc;
}

static int change_learn(const void *arg, struct verdict_facts *facts, struct err *err)
{
	const struct verdict_facts *news = arg;
	bool conflict = false;
	struct verdict_facts merged = *facts;
	(void)verdict_learn(&merged, news, &conflict);
	if (conflict)
		return err_set(err, ERR_CONFLICT, "a vote that was heard contradicts the one in the journal");
	*facts = merged;
	return 0;
}

int journal_facts_add(struct journal *journal, uint64_t migration, uint32_t generation,
                      const struct verdict_facts *news, struct verdict_facts *ret_facts, struct err *err)
{
	return facts_change(journal, migration, generation, change_learn, news, ret_facts, err);
}

struct vote_change {
	enum party self;
	enum vote vote;
	const struct verdict_local *local;
};

static int change_vote(const void *arg, struct verdict_facts *facts, struct err *err)
{
	const struct vote_change *change = arg;
	if (!verdict_may_cast(change->self, change->vote, facts, change->local)) {
		const char *wanted = vote_name(change->vote), *cast = vote_name(facts->vote[change->self]);
		return err_set(err, ERR_TOO_LATE, "the %s may not vote %s now (its vote is %s)",
		               party_name(change->self), wanted ? wanted : "none", cast ? cast : "not cast");
	}
	facts->vote[change->self] = change->vote;
	return 0;
}

int journal_vote(struct journal *journal, uint64_t migration, uint32_t generation, enum side side, enum vote vote,
                 const struct verdict_local *local, struct verdict_facts *ret_facts, struct err *err)
{
	struct vote_change change = { .self = party_of(side), .vote = vote, .local = local };
	return facts_change(journal, migration, generation, change_vote, &change, ret_facts, err);
}

struct flag_change {
	const struct verdict_facts *flag;
	const struct verdict_local *local;
};

static const char *flag_name(const struct verdict_facts *flag)
{
	return flag->suspended      ? "suspended"
	       : flag->stream_ended ? "at the end of the stream"
	       : flag->resumed      ? "resumed (V8)"
	       : flag->released     ? "released (V10)"
	       : flag->activating   ? "activating (V6)"
	       : flag->running      ? "running"
	                            : "renounced (V7)";
}

/* What is set already is done; else the rule decides. */
static int change_flag(const void *arg, struct verdict_facts *facts, struct err *err)
{
	const struct flag_change *change = arg;
	bool conflict = false;
	struct verdict_facts next = *facts;
	if (!verdict_learn(&next, change->flag, &conflict))
		return 0;
	if (!leg_may_flag(change->flag, facts, change->local))
		return err_set(err, ERR_TOO_LATE, "to be %s is not allowed by what the journal knows",
		               flag_name(change->flag));
	*facts = next;
	return 0;
}

int journal_flag(struct journal *journal, uint64_t migration, uint32_t generation, const struct verdict_facts *flag,
                 const struct verdict_local *local, struct verdict_facts *ret_facts, struct err *err)
{
	unsigned flags = (unsigned)flag->suspended + flag->stream_ended + flag->resumed + flag->released +
	                 flag->activating + flag->running + flag->renounced;
	if (flags != 1)
		return err_set(err, ERR_INTERNAL, "one flag at a time, not %u", flags);
	struct flag_change change = { .flag = flag, .local = local };
	return facts_change(journal, migration, generation, change_flag, &change, ret_facts, err);
}
