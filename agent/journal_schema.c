/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/journal_impl.h"

/* Steps are never changed once they were released: a new version is a new step. */
static const char step_tables[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;"
	"INSERT INTO meta (key, value) VALUES ('epoch', 0), ('lost', 0);"
	"CREATE TABLE generation (migration INTEGER PRIMARY KEY, generation INTEGER NOT NULL);"
	"CREATE TABLE session ("
	"  migration INTEGER NOT NULL, generation INTEGER NOT NULL, side INTEGER NOT NULL CHECK (side IN (1, 2)),"
	"  state INTEGER NOT NULL, ready INTEGER NOT NULL, leg_wanted INTEGER NOT NULL, leg_up INTEGER NOT NULL,"
	"  abort_asked INTEGER NOT NULL, failed INTEGER NOT NULL, asked INTEGER NOT NULL, sequence INTEGER NOT NULL,"
	"  highest INTEGER NOT NULL, cause_code INTEGER NOT NULL, cause_text TEXT NOT NULL, boot_id TEXT NOT NULL,"
	"  leg_pid INTEGER NOT NULL, leg_ticks INTEGER NOT NULL, fingerprint TEXT NOT NULL, endpoint TEXT NOT NULL,"
	"  peer_fingerprint TEXT NOT NULL, peer_endpoint TEXT NOT NULL, claim_memory INTEGER NOT NULL,"
	"  kept_until INTEGER NOT NULL, total_ms INTEGER NOT NULL, suspend_ms INTEGER NOT NULL,"
	"  final_memory_ms INTEGER NOT NULL, final_disk_ms INTEGER NOT NULL, verify_ms INTEGER NOT NULL,"
	"  votes_ms INTEGER NOT NULL, activate_ms INTEGER NOT NULL, created INTEGER NOT NULL, plan BLOB,"
	"  PRIMARY KEY (migration, generation)) WITHOUT ROWID;"
	"CREATE TABLE facts ("
	"  migration INTEGER NOT NULL, generation INTEGER NOT NULL,"
	"  vote_coordinator INTEGER NOT NULL DEFAULT 0 CHECK (vote_coordinator IN (0, 1, 2)),"
	"  vote_source INTEGER NOT NULL DEFAULT 0 CHECK (vote_source IN (0, 1, 2)),"
	"  vote_destination INTEGER NOT NULL DEFAULT 0 CHECK (vote_destination IN (0, 1, 2)),"
	"  suspended INTEGER NOT NULL DEFAULT 0, stream_ended INTEGER NOT NULL DEFAULT 0,"
	"  resumed INTEGER NOT NULL DEFAULT 0, released INTEGER NOT NULL DEFAULT 0,"
	"  activating INTEGER NOT NULL DEFAULT 0, running INTEGER NOT NULL DEFAULT 0,"
	"  renounced INTEGER NOT NULL DEFAULT 0,"
	"  PRIMARY KEY (migration, generation),"
	"  FOREIGN KEY (migration, generation) REFERENCES session ON DELETE CASCADE) WITHOUT ROWID;"
	"CREATE TABLE answer ("
	"  migration INTEGER NOT NULL, generation INTEGER NOT NULL, step INTEGER NOT NULL, frame BLOB NOT NULL,"
	"  PRIMARY KEY (migration, generation, step),"
	"  FOREIGN KEY (migration, generation) REFERENCES session ON DELETE CASCADE) WITHOUT ROWID;"
	/* No foreign key: what is kept outlives its session. */
	"CREATE TABLE resource ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT, migration INTEGER NOT NULL, generation INTEGER NOT NULL,"
	"  kind INTEGER NOT NULL, state INTEGER NOT NULL CHECK (state IN (1, 2, 3)), name TEXT NOT NULL,"
	"  path TEXT NOT NULL, note TEXT NOT NULL, pid INTEGER NOT NULL, ticks INTEGER NOT NULL,"
	"  bytes INTEGER NOT NULL, kept_until INTEGER NOT NULL);"
	"CREATE INDEX resource_session ON resource (migration, generation);";

/* Law 2, by the database itself: whatever program writes here, facts only grow. */
static const char step_guards[] =
	"CREATE TRIGGER facts_grow BEFORE UPDATE ON facts WHEN"
	"  (OLD.vote_coordinator <> 0 AND NEW.vote_coordinator <> OLD.vote_coordinator) OR"
	"  (OLD.vote_source <> 0 AND NEW.vote_source <> OLD.vote_source) OR"
	"  (OLD.vote_destination <> 0 AND NEW.vote_destination <> OLD.vote_destination) OR"
	"  NEW.suspended < OLD.suspended OR NEW.stream_ended < OLD.stream_ended OR NEW.resumed < OLD.resumed OR"
	"  NEW.released < OLD.released OR NEW.activating < OLD.activating OR NEW.running < OLD.running OR"
	"  NEW.renounced < OLD.renounced"
	"  BEGIN SELECT RAISE(ABORT, 'facts only grow: a vote is cast once, a flag is never unset'); END;"
	"CREATE TRIGGER epoch_grows BEFORE UPDATE ON meta WHEN OLD.key = 'epoch' AND NEW.value < OLD.value"
	"  BEGIN SELECT RAISE(ABORT, 'the epoch only grows'); END;"
	"CREATE TRIGGER generation_grows BEFORE UPDATE ON generation WHEN NEW.generation < OLD.generation"
	"  BEGIN SELECT RAISE(ABORT, 'the generation only grows'); END;";

/* An operator's ruling, a fact like the others. */
static const char step_ruling[] =
	"ALTER TABLE facts ADD COLUMN ruling INTEGER NOT NULL DEFAULT 0 CHECK (ruling IN (0, 1, 2));"
	"CREATE TRIGGER ruling_stands BEFORE UPDATE ON facts WHEN OLD.ruling <> 0 AND NEW.ruling <> OLD.ruling"
	"  BEGIN SELECT RAISE(ABORT, 'facts only grow: a ruling is never changed'); END;";
/* Whose a disk is and what it is: without this an earlier copy cannot be told from another VM's. A row of before has
 * vm '' and fits nobody. */
static const char step_disks[] = "ALTER TABLE resource ADD COLUMN vm TEXT NOT NULL DEFAULT '';"
				 "ALTER TABLE resource ADD COLUMN sr TEXT NOT NULL DEFAULT '';"
				 "ALTER TABLE resource ADD COLUMN format INTEGER NOT NULL DEFAULT 0;"
				 "CREATE INDEX resource_kept ON resource (vm, name) WHERE state = 3;";

const struct db_migration journal_migrations[] = {
	{ .sql = step_tables },
	{ .sql = step_guards },
	{ .sql = step_ruling },
	{ .sql = step_disks },
};
const unsigned journal_migration_count = sizeof(journal_migrations) / sizeof(journal_migrations[0]);
