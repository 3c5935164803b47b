/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A migration as the coordinator sees it. Pure: (core, event) -> core, actions; no I/O, clock, heap.
 *
 * Laws
 *  1. Total and deterministic: every event is defined in every state. A copy of the struct is a snapshot.
 *  2. The shell journals the new core first, then does the actions, any of which may be lost, late or done twice. What
 * is still due is not remembered but computed: migration_due() gives the same on entry, on retry and after a restart.
 *  3. Who owns the VM is decided by common/verdict.h alone. The coordinator's own vote is part of the core, so it is
 *     journaled before it is told.
 *  4. A final state never changes, but for an operator's ruling over a lost VM that the source still holds suspended;
 *     what is still owed to a host (cleaning up, forgetting) is settled later.
 *  5. `committed` leads to `rolling-back` only by the destination's renouncing (V8) or an operator's ruling;
 *     `rolling-back` never to `committed`.
 *  6. The first error is the cause; a later one never replaces it (V13).
 */
#ifndef DROVER_MIGRATION_H
#define DROVER_MIGRATION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/verdict.h"
#include "proto/msg.h"

/* What is true in each state. The numbers are in the database: only ever added. */
enum migration_state {
	MIGRATION_QUEUED = 1,   /* recorded; no host was asked for anything; the VM runs on the source */
	MIGRATION_CHECKING,     /* pre-checks run on both hosts; nothing is changed */
	MIGRATION_PREPARING,    /* D holds a claim, disk targets, an endpoint, all of it journaled before it is made */
	MIGRATION_COPYING,      /* disks, then disks and memory flow; the VM runs on the source */
	MIGRATION_SWITCHING,    /* the switchover is granted: S may have suspended the VM; votes are being cast */
	MIGRATION_COMMITTED,    /* only D may run the VM; S is letting go */
	MIGRATION_DONE,         /* final: D owns the VM, S holds nothing but what the policy says to keep */
	MIGRATION_ROLLING_BACK, /* only S may run the VM; D is cleaning up */
	MIGRATION_CANCELLED,    /* final: somebody asked for it; S owns the VM */
	MIGRATION_FAILED,       /* final: an error; S owns the VM */
	MIGRATION_IN_DOUBT,     /* switching, and the verdict needs a party that nobody can reach */
	MIGRATION_LOST,         /* final: the owner's host died with the VM in it */
	MIGRATION_STATES
};
const char *migration_state_name(enum migration_state state);
/* MIGRATION_STATES if there is no such name. */
enum migration_state migration_state_from_name(const char *name);
bool migration_is_final(enum migration_state state);

/* What the coordinator hears of a host. A suspicion is never proof. */
enum reach {
	REACH_UNKNOWN = 0, /* nothing was heard since the coordinator started */
	REACH_UP,          /* it is connected and its heartbeats come */
	REACH_SUSPECTED,   /* heartbeats are missing */
};

/* One host's part. */
struct migration_side {
	enum reach reach;         /* not journaled: unknown after a restart */
	enum session_phase phase; /* the newest that it reported */
	bool done[STEPS];         /* steps it has answered as done */
	bool rebooted;            /* its host was booted again since this migration began: images are gone */
	bool journal_lost;        /* V11: it does not know this migration any more; counts as unreachable for votes */
	bool cleanup_owed;        /* final, and the host was not there to clean up: done when it returns */
	bool forget_owed;         /* final, and it was not yet told to forget the session */
	bool written_off; /* an operator declared the host gone for good: nothing is asked of it or owed to it */
};

struct migration_core {
	enum migration_state state;
	struct verdict_facts facts;    /* all that is known; vote[PARTY_COORDINATOR] is ours */
	struct migration_side side[2]; /* source, destination: migration_side_of() */
	bool abort_asked;              /* an abort was asked for while votes may be out */
	enum err_code cause;           /* first error; ERR_NONE: none */
	enum side cause_side;          /* where; 0: the coordinator or a client */
	enum step cause_step;          /* during what; STEP_NONE: no step in particular */
};

enum migration_event_kind {
	MIGRATION_EVENT_ADMITTED = 1, /* limits allow it to start */
	MIGRATION_EVENT_ANSWER,       /* side, step, outcome, code; phase and facts if it told its session */
	MIGRATION_EVENT_REPORT,       /* side, phase, facts; code: the session's first error */
	MIGRATION_EVENT_HOST_UP,      /* side: connected, or heartbeats came again */
	MIGRATION_EVENT_SUSPECTED,    /* side: heartbeats are missing */
	MIGRATION_EVENT_GIVEN_UP,     /* side: missing for so long that before a switchover nobody waits any more */
	MIGRATION_EVENT_REBOOTED,     /* side: another boot than the one in which this migration began */
	MIGRATION_EVENT_JOURNAL_LOST, /* side: another journal than the one that this migration began with */
	MIGRATION_EVENT_CANCEL,       /* somebody asks for it */
	MIGRATION_EVENT_DEADLINE,     /* the state's deadline has passed */
	MIGRATION_EVENT_RETRY,        /* side: its command was not answered in time */
	MIGRATION_EVENT_RESTART,      /* the coordinator has started again with this record */
	MIGRATION_EVENT_RESOLVE,      /* side: an operator ruled that it owns the VM; the other host is powered off */
	MIGRATION_EVENT_WRITTEN_OFF,  /* side: an operator declared the host gone for good */
	MIGRATION_EVENT_KINDS
};
const char *migration_event_name(enum migration_event_kind kind);

struct migration_event {
	enum migration_event_kind kind;
	enum side side; /* 0 where it makes no sense */
	enum step step;
	enum outcome outcome;
	enum err_code code;
	enum session_phase phase; /* PHASE_NONE: not told */
	struct verdict_facts facts;
};

enum migration_action_kind {
	MIGRATION_ACTION_SEND = 1, /* send command `step` to `side` and repeat it until it is answered */
	MIGRATION_ACTION_TELL,     /* tell `side` the facts (V9) */
	MIGRATION_ACTION_DEADLINE, /* the state was entered: its deadline counts from now; the old one is void */
	MIGRATION_ACTION_CAUSE,    /* this event's error is the first: keep its words */
	MIGRATION_ACTION_FINISH,   /* the state is final from now on */
	MIGRATION_ACTION_CONFLICT, /* a vote contradicts what is known: the peer is broken or lies; it was not believed
	                            */
};

struct migration_action {
	enum migration_action_kind kind;
	enum side side;
	enum step step;
};

#define MIGRATION_ACTIONS_MAX 8
struct migration_actions {
	unsigned count;
	struct migration_action list[MIGRATION_ACTIONS_MAX];
};

/* A new record: queued, nothing known. */
void migration_init(struct migration_core *ret_core);

/* *ret_next may be the same object as core. */
void migration_step(const struct migration_core *core, const struct migration_event *event,
                    struct migration_core *ret_next, struct migration_actions *ret_actions);

/* What is to be done in this state for `side`: at most a command and the facts. */
void migration_due(const struct migration_core *core, enum side side, struct migration_actions *ret_actions);

/* The command that `side` has to answer now; STEP_NONE: none. There is never more than one. */
enum step migration_command(const struct migration_core *core, enum side side);

/* What a cancel asked now is answered: by then it is decided, or it is too late, or a vote is out. */
enum migration_cancel { CANCEL_CANCELLED = 1, CANCEL_TOO_LATE, CANCEL_PENDING };
enum migration_cancel migration_cancel_answer(const struct migration_core *core);
const char *migration_cancel_name(enum migration_cancel answer);

/* Why an operator's ruling that `owner` owns the VM cannot be taken now, as words for people; NULL: it can. The ruling
 * needs the other host to be powered off: that it is, the operator declares; what is known here must not contradict it.
 * The same ruling again can be taken. Static string. */
const char *migration_resolve_refusal(const struct migration_core *core, enum side owner);
/* The same for writing off the host of `side`. */
const char *migration_write_off_refusal(const struct migration_core *core, enum side side);

/* Who owns the VM, as operators are shown it: "source", "destination", "undecided" or "none". Static string. */
const char *migration_authority(const struct migration_core *core);

/* Whether both hosts still have a part in it: counts for limits, and no other migration of the VM may start. */
static inline bool migration_is_active(enum migration_state state)
{
	return state != MIGRATION_QUEUED && !migration_is_final(state);
}

static inline struct migration_side *migration_side_of(struct migration_core *core, enum side side)
{
	return &core->side[side == SIDE_DESTINATION];
}
static inline const struct migration_side *migration_side_get(const struct migration_core *core, enum side side)
{
	return &core->side[side == SIDE_DESTINATION];
}

/* A core in five integers for a database row, and back. Reach is not kept. Unpacking checks every value: -1 if one is
 * not possible. */
struct migration_packed {
	int64_t state, facts, source, destination, cause;
};
void migration_pack(const struct migration_core *core, struct migration_packed *ret_packed);
int migration_unpack(const struct migration_packed *packed, struct migration_core *ret_core);

/* Tells, as lines of text in pieces, which states can follow each state and by which events, as found by trying every
 * event on every state; for the manual page. */
void migration_table(void (*emit)(void *ctx, const char *text), void *ctx);

#endif
