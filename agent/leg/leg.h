/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A leg: one migration as one host does it. What both sides have in common: the main thread with its loop, the
 * commands, the facts and what is due by them; source*.c and dest*.c are the two sides.
 *
 * Laws
 *  1. Votes, facts and resources are journaled by the main thread, before anything is done or said.
 *  2. verdict_due() decides, here as in recovery; a leg that was killed at any instruction is followed by one that does
 *     what is due by the journal.
 *  3. The main thread never blocks in anything but the journal. What blocks is a job of the conductor or has a thread
 * of its own, and ends within 200 ms of cancel_fire(work).
 *  4. The first error is the one that is reported.
 */
#ifndef DROVER_LEG_H
#define DROVER_LEG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/agent_conf.h"
#include "agent/core/leg_rules.h"
#include "agent/disk/disk.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/journal.h"
#include "agent/leg/cancel.h"
#include "agent/leg/control.h"
#include "agent/leg/link.h"
#include "agent/leg/queue.h"
#include "agent/leg/tls.h"
#include "common/err.h"
#include "common/verdict.h"
#include "proto/msg.h"

#define LEG_STALL_MS 5000   /* a tick that is so late: we were suspended or stopped */
#define LEG_PROGRESS_MS 500 /* progress, retries and watches go by this tick */

struct leg_options {
	const char *home; /* NULL: DROVER_HOME or the system's */
	uint64_t migration;
	uint32_t generation;
	enum side side;
	bool recover;
};

/* How far a command has come. */
enum command_state {
	COMMAND_NONE = 0,
	COMMAND_PENDING,  /* came, is to be answered */
	COMMAND_ANSWERED, /* the answer is kept and given again */
};

struct command {
	enum command_state state;
	uint64_t epoch, sequence; /* of the newest copy that came */
	struct msg_answer answer;
};

/* Jobs that wait or run. */
enum job_kind {
	JOB_RECOVER = 1 << 0,
	JOB_PREPARE = 1 << 1,
	JOB_COPY = 1 << 2,
	JOB_VM = 1 << 3, /* S: resume, D: activate */
	JOB_CLEAN = 1 << 4,
	JOB_RELEASE = 1 << 5,
};

struct leg;

/* One side. Jobs run on the conductor; the rest on the main thread. */
struct leg_side {
	enum party party;
	int (*make)(struct leg *leg, struct err *err);    /* main thread, at the start: leg->source or leg->dest */
	int (*recover)(struct leg *leg, struct err *err); /* what of a dead leg's is there; sets nothing due */
	int (*prepare)(struct leg *leg, struct err *err);
	int (*copy)(struct leg *leg, struct err *err);    /* to the end of stream, or to a complete copy */
	int (*vm)(struct leg *leg, struct err *err);      /* 0: the VM runs here, for certain */
	int (*clean)(struct leg *leg, struct err *err);   /* after an abort: takes everything away */
	int (*release)(struct leg *leg, struct err *err); /* after a commit */
	void (*granted)(struct leg *leg);
	void (*tick)(struct leg *leg);
	void (*facts)(struct leg *leg); /* something new is known */
	void (*free)(struct leg *leg);
};
extern const struct leg_side leg_source, leg_dest;

struct source;
struct dest;
struct voteline;

struct leg {
	/* fixed once started */
	struct leg_options options;
	const struct leg_side *side;
	struct paths paths;
	struct agent_conf *conf;
	const struct hypervisor_ops *ops;
	struct hypervisor *hv;
	struct queue *queue;
	struct conductor *conductor;
	struct cancel *work; /* ends the copying; everything but what the verdict needs */

	/* by PREPARE or the journal; not changed while jobs run that use it */
	struct msg_plan *plan;
	struct tls_identity *identity;
	struct disk_limit *limit; /* what goes over the network */
	char endpoint[LIMIT_ID];  /* D: ours, S: the peer's */
	char peer_fingerprint[LIMIT_ID];
	struct source *source;
	struct dest *dest;

	/* any thread */
	_Atomic uint64_t wire_bytes;
	atomic_bool granted, ready, suspending;
	atomic_bool link_lost;           /* S: stream 0 of the copy broke */
	_Atomic(struct voteline *) line; /* set once, by main */
	_Atomic int64_t rollback_at_ms;  /* when an ABORT came, or what else ends it here; 0: nothing did */
	pthread_mutex_t link_lock;       /* link: set and taken by side threads, posted to by main */
	struct link *link;

	/* main thread only */
	struct journal *journal;
	struct control *control;
	char lock_path[PATHS_MAX + 64];
	int lock_fd; /* one leg a migration */
	int signal_fd;
	struct verdict_facts facts; /* as journaled */
	struct verdict_local local;
	struct err cause; /* first error */
	bool prepared, copying;
	bool recovering; /* JOB_RECOVER has not told yet what there is: nothing is done, or a disk that was not found
	                    yet would be let go of with nobody knowing */
	bool settled;    /* after an abort: nothing is held any more */
	bool released;
	bool ending;                 /* told to by a signal, or an orphan: leaves when nothing is held */
	bool stop;                   /* leave the loop */
	unsigned busy;               /* enum job_kind */
	int64_t retry_at_ms;         /* what failed is not tried before */
	struct msg_session reported; /* last */
	struct verdict_facts told_peer;
	struct command commands[STEPS];
	enum step last; /* whose answer is sent again to a new agent */
	int64_t agent_seen_ms, tick_at_ms, line_at_ms;
	char identity_path[PATHS_MAX + 64];
	uint64_t kept_until_wall_ms;
	struct msg_budget budget;
	uint64_t epoch;
};

/* Runs until FORGET, SIGTERM with nothing held, or as an orphan. Exit status of the process. */
int leg_run(const struct leg_options *options, const struct hypervisor_ops *ops);

/* ---- for the sides: main thread ---- */
/* Remembers the first error, fails the copy and does what is due. Harmless twice. */
void leg_fail(struct leg *leg, const struct err *cause);
/* Does what is due by facts and local, reports what changed. */
void leg_due(struct leg *leg);
/* From now on it is measured how long the VM is not left alone yet. Harmless twice. */
void leg_rollback_began(struct leg *leg);
/* Adds facts to the journal, tells everybody who does not know, does what is due. */
void leg_learn(struct leg *leg, const struct verdict_facts *news);
/* Answers `step` if its answer is waited for. cause NULL: done. */
void leg_answer(struct leg *leg, enum step step, const struct err *cause);
enum vote leg_own_vote(const struct leg *leg);
/* What the rules (agent/core/leg_rules.h) go by, as it is now. */
struct leg_view leg_view(const struct leg *leg);

/* Starts a job if none of its kind waits or runs. */
void leg_job(struct leg *leg, enum job_kind kind);
void leg_send(struct leg *leg, struct msg *msg, bool matters); /* fills the envelope */

/* ---- leg_session.c: main thread ---- */
/* What the journal knows of this session. */
int leg_load(struct leg *leg, struct err *err);
/* The agent says something. */
void leg_message(struct leg *leg, const struct msg *msg);
/* Each LEG_PROGRESS_MS. */
void leg_tick(struct leg *leg);

/* ---- leg_command.c ---- */
void leg_command(struct leg *leg, const struct msg *msg);
void leg_settle(struct leg *leg); /* answers what can be answered now */
void leg_report(struct leg *leg, bool always);
void leg_greet(struct leg *leg); /* a new agent: report, and the last answer again */

/* ---- for the sides: any thread but main ---- */
void leg_post_fail(struct leg *leg, const struct err *cause);
void leg_post_learn(struct leg *leg, const struct verdict_facts *news);
/* There is a new link to the peer: it is told everything again. */
void leg_post_link_up(struct leg *leg);
/* COPY has begun: it is answered. */
void leg_post_begun(struct leg *leg);
/* The VM's image is not here any more. */
void leg_post_image_gone(struct leg *leg);
/* D: the copy is whole, verified, attached, fenced (V4). */
void leg_post_complete(struct leg *leg);
/* D: the unpause failed for certain, the VM never ran and is destroyed. */
void leg_post_unpause_failed(struct leg *leg);
/* S: what is left fits the downtime. */
void leg_post_ready(struct leg *leg);
/* Journals one flag, on the main thread; -1 where the rules forbid it. */
int leg_flag(struct leg *leg, const struct verdict_facts *flag, struct err *err);
/* What is journaled now, as the main thread has it. */
int leg_facts_now(struct leg *leg, struct verdict_facts *ret_facts, struct err *err);
int leg_resource_add(struct leg *leg, struct journal_resource *resource, struct err *err); /* fills id and session */
int leg_resource_update(struct leg *leg, const struct journal_resource *resource, struct err *err);
int leg_resource_gone(struct leg *leg, int64_t id, struct err *err);
int leg_resource_list(struct leg *leg, struct journal_resource **ret_list, size_t *ret_count, struct err *err);
/* The journal's journal_kept_find() and journal_kept_take() for this session. 1: *ret_kept is this session's from here
 * on. */
int leg_kept_take(struct leg *leg, unsigned disk, struct journal_resource *ret_kept, struct err *err);
/* Something is kept until then: it is told. */
int leg_kept_until(struct leg *leg, uint64_t until_wall_ms, struct err *err);

/* ---- any thread ---- */
void leg_link_set(struct leg *leg, struct link *link);
/* The link is the caller's to stop; NULL if there is none. */
struct link *leg_link_take(struct leg *leg);
/* Posts a frame on stream 0 if it lives. */
void leg_link_post(struct leg *leg, enum frame_type type, const void *payload, uint32_t bytes);
int64_t leg_now_ms(void);

/* ---- clean.c: conductor ---- */
/* Takes away what is journaled for this session, newest first, and strikes it off; what is to be kept is kept once
 * nothing is left that uses it. The first failure is returned, the
 * rest is tried all the same. `hv_disks` (may be NULL) are the VM's disks, for bitmaps. */
int clean_resources(struct leg *leg, const struct hypervisor_disk *hv_disks, unsigned hv_disk_count, struct err *err);
/* What is needed to take one thing away, for whatever migration it was made. */
struct clean_tools {
	const struct paths *paths;
	const struct hypervisor_ops *ops;
	struct hypervisor *hv;
};
/* Takes away what `resource` names; done if it is gone. The journal is not touched. `disks` as above. */
int clean_one(const struct clean_tools *tools, const struct journal_resource *resource,
              const struct hypervisor_disk *disks, unsigned count, struct err *err);
/* Kills the exporter's processes that the resource's note names, and takes its files away. */
int clean_exporter(const struct paths *paths, const struct journal_resource *resource, struct err *err);

#endif
