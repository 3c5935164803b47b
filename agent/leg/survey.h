/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a host really holds of migrations, whoever may have forgotten about it: files, exporters, incoming VMs, bitmaps,
 * legs. A process of its own (mode `survey` of the leg program): it looks, judges, with --sweep takes away, prints one
 * encoded struct msg_holdings, ends. Single-threaded; everything may block, the agent bounds its time.
 *
 * Law: what somebody claims is never told of as unclaimed, and never taken away.
 *
 * It holds by the order of reading, and needs no lock that would hold up a migration. Whoever makes a thing journals it
 * before, and strikes it off only after it is gone or after a VM's record has it; a VM's disks are journaled again
 * before its record goes. So a thing that is there for a reason is at every moment in the journal or in a VM's record,
 * and each of the two takes over before the other lets go. We read
 *
 *     the world, then the journal (J), then the VMs (V), then the journal again (J'),
 *
 * and claims are the union of the three. A thing that was seen in the world was claimed from before that on:
 *  - it is journaled still: J has it;
 *  - it was struck off since, as it is gone: it is looked for once more at the end, and is not there;
 *  - it was struck off since, as a VM has it: V has it, unless that VM has left before V was read; then its disks were
 *    journaled again before, and J' has them, or they are gone.
 * What is made after the world was read is not in it. Sessions are journaled before anything is made for them, and are
 * a claim on everything that bears their number, so a row that is missed by a hair makes no difference.
 *
 * Two things outlive their claim for a moment: a leg that was told to forget answers before it ends (its generation is
 * in the journal for ever: that is how it is told from one that the journal never knew), and a VM that is being
 * destroyed by hand. They get SURVEY_LEAVE_MS to go before they are called unclaimed.
 *
 * Taking away: under run/leg-MIGRATION.lock, which every leg of that migration holds while it lives, so none works on
 * it and none can begin to; with claims that were read anew under it.
 */
#ifndef DROVER_LEG_SURVEY_H
#define DROVER_LEG_SURVEY_H

#include "agent/leg/leg.h"

#define SURVEY_THINGS_MAX 8192  /* seen in one run, claimed or not; what is beyond is said to be there */
#define SURVEY_LEAVE_MS 10000   /* for what is about to go by itself */
#define SURVEY_LEAVE_POLL_MS 20 /* how often it is looked at meanwhile */

struct survey_options {
	const char *home; /* NULL: DROVER_HOME or the system's */
	bool sweep;
	const char *over; /* migrations whose things may go, as "17:aborted,18:unknown"; NULL: none */
};

/* One thing that is there, or a row of the journal. */
struct survey_thing {
	struct journal_resource row; /* as the journal has it, or would: what clean_one() takes */
	enum holding_kind kind;      /* the row's, or HOLDING_LEG */
	enum holding_state state;
	bool dropped;                      /* claimed, or gone: not told of */
	char name[LIMIT_NAME];             /* for people */
	char path[LIMIT_PATH];             /* the file itself, where the row has the disk that it stands for */
	uuid_bytes vm;                     /* HOLDING_VM, HOLDING_BITMAP */
	enum hypervisor_vm_state vm_state; /* HOLDING_VM */
	struct hypervisor_disk *disk;      /* HOLDING_BITMAP: how its backend is reached */
	bool swept;
	char error[LIMIT_PATH];
};

struct survey {
	struct survey_options options;
	const struct hypervisor_ops *ops;
	struct hypervisor *hv;
	struct paths paths;
	struct agent_conf *conf;
	struct journal *journal;
	struct msg_over over[LIMIT_HOLDINGS];
	unsigned over_count;
	struct survey_thing *things;
	size_t thing_count;
	bool cut;         /* there were more */
	struct err cause; /* the first thing that could not be looked at */
};

/* Runs, and prints what it found to `out`. Exit status of the process: 0 if that was printed, be it only what could not
 * be looked at. */
int survey_run(const struct survey_options *options, const struct hypervisor_ops *ops, FILE *out);

/* ---- survey.c ---- */
/* A new thing, zeroed but for these; NULL if there are too many. Pointers to others are void after it. */
struct survey_thing *survey_add(struct survey *survey, enum holding_kind kind, uint64_t migration);
/* Remembers the first. */
void survey_fault(struct survey *survey, const struct err *err);

/* ---- survey_world.c: things are added ---- */
void survey_world(struct survey *survey);
/* Whether it is still there. What cannot be looked at is. */
bool survey_is_there(struct survey *survey, const struct survey_thing *thing);

/* ---- survey_claims.c ---- */
struct survey_claims {
	struct journal_view views[2]; /* J, J' */
	struct hypervisor_vm *vms;    /* V */
	size_t vm_count;
	uuid_bytes *moving; /* VMs of sessions that are not over */
	size_t moving_count;
};
int survey_claims_read(struct survey *survey, struct survey_claims *ret_claims, struct err *err);
void survey_claims_free(struct survey_claims *claims);
/* Whether anybody claims a thing that was found in the world. */
bool survey_claimed(const struct survey_claims *claims, const struct survey_thing *thing);
/* Whether a row of the journal is there on purpose, or somebody works on it. */
bool survey_row_stands(const struct survey_claims *claims, const struct journal_resource *row);
/* The VM that has this disk (`image`, or the file `path` under another name), or that is this VM; NULL: none. */
const struct hypervisor_vm *survey_owner(const struct survey_claims *claims, const struct survey_thing *thing);
bool survey_is_moving(const struct survey_claims *claims, const uuid_bytes vm);

/* ---- survey_sweep.c ---- */
/* Takes away what is unclaimed or left over; `swept` or `error` is set in each. */
void survey_sweep(struct survey *survey);

#endif
