/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal of a host: what its agent and its legs have promised and made. One SQLite database (lib/journal.db),
 * opened by the agent and by each leg at once.
 *
 * Laws
 *  1. Nothing is said or done that is not journaled first; what is here survives a crash of process and host.
 *  2. Facts only grow; a vote is cast once (the database itself refuses a second, different one).
 *  3. A resource is journaled (intent) before it is made, and struck off after it is gone.
 *  4. A handle may be used by several threads.
 *  5. The journal has a random identity; each session carries the boot id it was made under (V11).
 */
#ifndef DROVER_JOURNAL_H
#define DROVER_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/session.h"
#include "common/paths.h"
#include "common/proc.h"
#include "proto/msg.h"

struct journal;

/* Looks for lib/journal.db. 1: it is there; 0: none yet; -1: it is empty where one was. For the agent before it makes
 * one, and for legs, which never do. */
int journal_find(const struct paths *paths, struct err *err);
/* Opens lib/journal.db (makes it). */
int journal_open(struct journal **ret_journal, const struct paths *paths, struct err *err);
void journal_close(struct journal *journal);

/* Random hex, made with the database. Lives as long as the journal. */
const char *journal_id(const struct journal *journal);
/* Whether another journal was in its place before: what that one knew is lost (V11). Told by lib/journal.id. */
bool journal_was_lost(const struct journal *journal);

/* What is wrong with the journal: the newest failure of what is under it, until journal_probe() succeeds; code
 * ERR_NONE: nothing. */
struct err journal_trouble(struct journal *journal);
/* Writes something that means nothing, to find out whether it can be written. Durable on return. */
int journal_probe(struct journal *journal, struct err *err);

/* db_reserve() of the journal: room for what has to be written while its file system is full. */
int journal_reserve(struct journal *journal, uint64_t bytes, struct err *err);

/* Highest coordinator epoch seen; raising it is durable on return; a lower one is refused with ERR_STALE. */
uint64_t journal_epoch(const struct journal *journal);
int journal_epoch_raise(struct journal *journal, uint64_t epoch, struct err *err);

/* One session: (migration, generation) on this host. */
struct journal_session {
	uint64_t migration;
	uint32_t generation;
	enum side side;
	struct session_core core; /* agent/core/session.h: plain data */
	struct verdict_facts facts;
	struct err cause; /* first error */
	char boot_id[LIMIT_ID];
	struct proc_id leg; /* pid 0: none was started */
	char fingerprint[LIMIT_ID], endpoint[LIMIT_ID];
	char peer_fingerprint[LIMIT_ID], peer_endpoint[LIMIT_ID];
	uint64_t claim_memory_bytes; /* D: claimed from CHECK on */
	uint64_t kept_until_wall_ms;
	struct msg_budget budget;
	int64_t created_wall_ms;
};

/* Inserts or replaces core, cause, leg, fingerprints and so on; facts are NOT written by this (journal_facts_add is the
 * only way, because legs write them too). `plan` may be NULL to leave the stored one alone. */
int journal_session_put(struct journal *journal, const struct journal_session *session, const struct msg_plan *plan,
                        struct err *err);
/* Fails with ERR_UNKNOWN_ID if there is none. plan may be NULL. */
int journal_session_get(struct journal *journal, uint64_t migration, uint32_t generation,
                        struct journal_session *ret_session, struct msg_plan *ret_plan, struct err *err);
/* All sessions, oldest first. *ret_list is malloc'ed, the caller's. */
int journal_session_list(struct journal *journal, struct journal_session **ret_list, size_t *ret_count,
                         struct err *err);
/* Removes a session, its facts and its answers; its resources must be gone or kept (ERR_BUSY else). */
int journal_session_forget(struct journal *journal, uint64_t migration, uint32_t generation, struct err *err);
/* Highest generation of this migration that was ever journaled, 0 if none; survives forgetting. */
int journal_generation(struct journal *journal, uint64_t migration, uint32_t *ret_generation, struct err *err);

/* Adds what `news` knows in one transaction (verdict_learn; V9). *ret_facts: all that is known after it. A cast vote
 * goes this way too. ERR_CONFLICT if a vote contradicts the journal. Durable on return. Also usable by a leg while the
 * agent is dead. */
int journal_facts_add(struct journal *journal, uint64_t migration, uint32_t generation,
                      const struct verdict_facts *news, struct verdict_facts *ret_facts, struct err *err);

/* Casts this side's vote if and only if verdict_may_cast() allows it on the facts as they are in the journal at that
 * moment (one transaction, so that two processes of a host cannot cast two). ERR_TOO_LATE if it does not. */
int journal_vote(struct journal *journal, uint64_t migration, uint32_t generation, enum side side, enum vote vote,
                 const struct verdict_local *local, struct verdict_facts *ret_facts, struct err *err);
/* Journals `activating`, `renounced`, `stream_ended`, `suspended`, `resumed`, `released`, `running`: exactly one flag
 * of `flag` is set; refused (ERR_TOO_LATE) where verdict.h forbids it on the facts as journaled: activating needs V6,
 * renounced V7, resumed V8, released V10, stream_ended no ABORT of this side's. */
int journal_flag(struct journal *journal, uint64_t migration, uint32_t generation, const struct verdict_facts *flag,
                 const struct verdict_local *local, struct verdict_facts *ret_facts, struct err *err);

/* Answers given, so that a command that comes twice is answered the same and done once. */
int journal_answer_put(struct journal *journal, uint64_t migration, uint32_t generation,
                       const struct msg_answer *answer, struct err *err);
/* 1 and the answer, 0 if there is none, -1 on error. */
int journal_answer_get(struct journal *journal, uint64_t migration, uint32_t generation, enum step step,
                       struct msg_answer *ret_answer, struct err *err);

/* What a session made on this host. Kinds are for people and for the code that takes them away again. */
enum resource_kind {
	RESOURCE_DISK = 1,        /* a disk image of an SR: name = disk, path = file */
	RESOURCE_RESERVE = 2,     /* a file that holds space: path */
	RESOURCE_EXPORT = 3,      /* an exporter process: path = its directory (socket, control files); pid */
	RESOURCE_VM = 4,          /* an incoming VM, name = uuid text */
	RESOURCE_BITMAP = 5,      /* dirty bitmaps and shadow nodes in a VM's block backend, name = disk */
	RESOURCE_SOURCE_DISK = 6, /* a disk of the source that is to be dropped or kept at release; whole: once
	                             something else may have been written to it it is a RESOURCE_DISK */
	RESOURCE_FILE = 7,        /* any other file: path; a disk that a VM ran on here and was ruled against */
	RESOURCE_KINDS
};
const char *resource_kind_name(enum resource_kind kind);

enum resource_state { RESOURCE_INTENT = 1, RESOURCE_MADE = 2, RESOURCE_KEPT = 3 /* on purpose, until kept_until */ };

struct journal_resource {
	int64_t id; /* order of making */
	uint64_t migration;
	uint32_t generation;
	enum resource_kind kind;
	enum resource_state state;
	char name[LIMIT_NAME];
	char path[LIMIT_PATH];
	char note[LIMIT_PATH];
	struct proc_id process;      /* pid 0: none */
	uint64_t bytes;              /* space it claims, for disks and reserves; a disk's virtual size */
	uint64_t kept_until_wall_ms; /* kept: until then; in use: it was kept before, and until when. 0: never */
	/* disks: whose it is and what */
	uuid_bytes vm; /* all zero: not known */
	char sr[LIMIT_NAME];
	enum disk_format format; /* 0: not known */
};

/* Journals the intent; *ret_id is the number. */
int journal_resource_add(struct journal *journal, const struct journal_resource *resource, int64_t *ret_id,
                         struct err *err);
/* It is made (or kept); process, path and note are updated too. */
int journal_resource_update(struct journal *journal, const struct journal_resource *resource, struct err *err);
int journal_resource_gone(struct journal *journal, int64_t id, struct err *err);
/* Resources of one session (migration 0: of all), newest first: the order in which they are taken away. malloc'ed. */
int journal_resource_list(struct journal *journal, uint64_t migration, uint32_t generation,
                          struct journal_resource **ret_list, size_t *ret_count, struct err *err);

/* All sessions and all resources as they are at one and the same moment. Both lists are malloc'ed. */
struct journal_view {
	struct journal_session *sessions;   /* oldest first */
	struct journal_resource *resources; /* newest first */
	size_t session_count, resource_count;
};
int journal_view_read(struct journal *journal, struct journal_view *ret_view, struct err *err);
void journal_view_free(struct journal_view *view);

/* The newest kept disk that `plan`'s disk number `disk` may be copied over on its destination: the same VM, name, size,
 * format and SR. Copies of attempts that failed always; a source's whole disks only if the plan says so. 1: *ret_kept
 * is it, 0: there is none, -1: error. Whether its file is what the journal says is for the caller to look at. */
int journal_kept_find(struct journal *journal, const struct msg_plan *plan, unsigned disk,
                      struct journal_resource *ret_kept, struct err *err);
/* Takes something kept into use, for this session, in one step: of two who try one gets it. state: RESOURCE_MADE, or
 * RESOURCE_INTENT for who is about to remove it. ERR_UNKNOWN_ID: it is not kept any more. */
int journal_kept_take(struct journal *journal, int64_t id, uint64_t migration, uint32_t generation,
                      enum resource_state state, struct err *err);

/* What claims of live sessions add up to on this host: memory, and bytes of disks to come in SR `sr` (NULL: skip). A
 * claim ends where the host's own figures show it: memory when the session's RESOURCE_VM is made, a disk's space when
 * its RESOURCE_RESERVE (its name: the disk's) is made. */
int journal_claims(struct journal *journal, const char *sr, uint64_t *ret_memory_bytes, uint64_t *ret_disk_bytes,
                   struct err *err);

#endif
