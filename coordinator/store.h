/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The coordinator's records: one SQLite database, lib/coordinator.db. The only code of the coordinator that knows SQL
 * is store*.c.
 *
 * Laws
 *  1. A migration changes only by compare-and-set on (state, generation, row version), within a transaction that also
 *     checks that the epoch is still ours. Each transition has one event row in the same transaction, and the step that
 *     became due: the row is the outbox. What was committed survives a crash.
 *  2. The epoch grows with each start. Numbers of migrations and events are never reused.
 *  3. A failed write leaves the database as it was. ERR_CONFLICT and ERR_STALE mean that somebody else writes: the
 *     coordinator has to stop.
 * Everything blocks for as long as the disk does.
 */
#ifndef DROVER_STORE_H
#define DROVER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/err.h"
#include "coordinator/core/migration.h"
#include "proto/msg.h"

struct store;

/* Opens (makes) the database, exclusively (ERR_BUSY: another coordinator has it), and bumps the epoch. */
int store_open(struct store **ret_store, const char *path, const struct clock *clock, struct err *err);
void store_close(struct store *store);

/* What is wrong with what is under it: db_trouble(). */
const struct err *store_trouble(const struct store *store);
/* Random hex, made with the database. Lives as long as the store. */
const char *store_cluster_id(const struct store *store);
uint64_t store_epoch(const struct store *store);
/* Makes our epoch higher than `above`, which somebody has seen (a database from a backup). */
int store_epoch_raise(struct store *store, uint64_t above, struct err *err);

/* ---- hosts ---- */

struct store_host {
	char name[LIMIT_NAME], pool[LIMIT_NAME], key[LIMIT_NAME];
	char boot_id[LIMIT_ID], journal_id[LIMIT_ID], software[LIMIT_NAME];
	int64_t first_seen_wall_ms, last_seen_wall_ms;
};

struct store_event;
int store_host_put(struct store *store, const struct store_host *host, struct err *err);
int store_host_seen(struct store *store, const char *name, int64_t wall_ms, struct err *err);
/* Removes the host that event->host names, its VMs and inventory, and records the event, together. */
int store_host_forget(struct store *store, const struct store_event *event, struct err *err);
/* malloc'ed, the caller's; by name. */
int store_host_list(struct store *store, struct store_host **ret_list, size_t *ret_count, struct err *err);
/* Replaces the host's inventory and its VMs. */
int store_inventory_put(struct store *store, const char *host, const struct msg_inventory *inventory, struct err *err);
/* 1: found (msg_inventory_free() it), 0: there is none. */
int store_inventory_get(struct store *store, const char *host, struct msg_inventory *ret_inventory, struct err *err);

/* ---- migrations ---- */

struct store_migration {
	uint64_t id;
	char key[LIMIT_ID]; /* idempotency key; "": none */
	uint64_t request_digest;
	uuid_bytes vm;
	char vm_name[LIMIT_NAME];
	char source[LIMIT_NAME], destination[LIMIT_NAME];
	struct migration_core core;
	uint32_t generation;
	uint64_t row_version;
	int32_t priority;
	char cause_text[LIMIT_TEXT];
	char submitted_by[LIMIT_NAME];
	int64_t submitted_wall_ms, started_wall_ms, ended_wall_ms; /* 0: not yet */
	int64_t state_wall_ms;                                     /* since when it is in this state */
	uint64_t kept_until_wall_ms; /* done: the source's disks, rolled back: the copy at the destination; 0: nothing
	                                is */
	uint64_t retry_of, undo_of;  /* the migration that this one tries again or takes back; 0: of none */
	struct msg_budget budget;
	struct store_party {                                  /* what is needed of each side, source first */
		char boot_id[LIMIT_ID], journal_id[LIMIT_ID]; /* as of the start */
		char fingerprint[LIMIT_ID], endpoint[LIMIT_ID];
	} party[2];
	char *options;  /* JSON; heap */
	char *progress; /* JSON of the last figures; heap; NULL: none */
};
void store_migration_free(struct store_migration *migration); /* what it owns, not the struct */

/* A step that became due or was answered. */
struct store_step {
	enum side side;
	enum step step;
	uint64_t sequence;
	enum outcome outcome; /* UNKNOWN: due, not answered */
	uint32_t tries;
};

/* What goes into the same transaction as a change. */
struct store_change {
	enum migration_state from; /* state before */
	const char *kind, *text;   /* of the event row; kind NULL: no event */
	const char *host;          /* NULL: none */
	const char *details;       /* JSON or NULL */
	const struct store_step *steps;
	size_t step_count;
};

/* Inserts a new one with its plan, and its event; sets id, row_version. ERR_BUSY: the VM has one that is not final.
 * ERR_CONFLICT: the key is taken. */
int store_migration_add(struct store *store, struct store_migration *migration, const struct msg_plan *plan,
                        struct err *err);
/* Compare-and-set; raises row_version in *migration. Does not write options and plan, which never change. What it has
 * taken over of what earlier ones kept is not theirs any more: their kept_until ends with it. */
int store_migration_save(struct store *store, struct store_migration *migration, const struct store_change *change,
                         struct err *err);
/* 1: found, 0: not. store_migration_free() it. */
int store_migration_get(struct store *store, uint64_t id, struct store_migration *ret_migration, struct err *err);
int store_migration_by_key(struct store *store, const char *key, struct store_migration *ret_migration,
                           struct err *err);
/* Ids of migrations whose key begins with this; at most `max`. Returns how many, or -1. */
int store_migration_by_prefix(struct store *store, const char *prefix, uint64_t *ret_ids, int max, struct err *err);
/* ERR_UNKNOWN_ID if there is no such migration. */
int store_plan_get(struct store *store, uint64_t id, struct msg_plan *ret_plan, struct err *err);

struct store_filter {
	enum migration_state state; /* 0: any */
	bool final_too;             /* with state 0: final ones as well */
	bool owed_only;             /* only final ones that still owe something to a host */
	bool kept_only;             /* only those that keep something on the source */
	const char *host, *vm;      /* NULL: any; vm is a UUID as text or a name */
	uint64_t after;             /* ids above it */
	unsigned limit;
};
/* By id, upwards. malloc'ed; free with store_migration_list_free(). */
int store_migration_list(struct store *store, const struct store_filter *filter, struct store_migration **ret_list,
                         size_t *ret_count, struct err *err);
void store_migration_list_free(struct store_migration *list, size_t count);
/* How many there are in each state. */
int store_migration_counts(struct store *store, uint64_t ret_counts[MIGRATION_STATES], struct err *err);

/* ---- events ---- */

struct store_event {
	uint64_t number, migration; /* migration 0: none */
	int64_t wall_ms;
	char host[LIMIT_NAME], kind[LIMIT_NAME], state[LIMIT_NAME], text[LIMIT_TEXT];
	char *details; /* JSON, heap, or NULL */
};
/* number and wall_ms are set here; details may be NULL. */
int store_event_add(struct store *store, const struct store_event *event, struct err *err);
/* Upwards from `after`; migration 0: of all. malloc'ed; free with store_event_list_free(). */
int store_event_list(struct store *store, uint64_t migration, uint64_t after, unsigned limit,
                     struct store_event **ret_list, size_t *ret_count, struct err *err);
void store_event_list_free(struct store_event *list, size_t count);

#endif
