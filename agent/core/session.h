/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A session: one migration as one host takes part in it. Pure: (state, event) -> state, actions; no I/O, clock, heap.
 *
 * The agent is the shell: it journals the new core first, then does the actions, any of which may be lost, late or done
 * twice. After a restart it feeds EVENT_RESTARTED and does what session_due() says, which is the same as on entry.
 */
#ifndef DROVER_SESSION_H
#define DROVER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/verdict.h"
#include "proto/msg.h"

/* What is true in each state. */
enum session_state {
	SESSION_NONE = 0,     /* nothing is known of it here */
	SESSION_CHECKED,      /* the checks passed; the claim is journaled; nothing is made */
	SESSION_PREPARING,    /* a leg was or is being started; resources are being made */
	SESSION_PREPARED,     /* the leg is up and waits for its peer; endpoint and fingerprint are journaled */
	SESSION_COPYING,      /* the leg was told to copy; the VM runs on the source */
	SESSION_SWITCHING,    /* the switchover is granted; votes may be cast; the leg decides by the verdict's rules */
	SESSION_COMMITTED,    /* the verdict is COMMIT: S waits to release, D activates or runs */
	SESSION_RELEASING,    /* told to release: S destroys and keeps or drops, D ends what only copying needed */
	SESSION_RELEASED,     /* final on COMMIT: nothing is held but what is kept on purpose */
	SESSION_ROLLING_BACK, /* an abort is due or under way: compensations are pending */
	SESSION_ROLLED_BACK,  /* final on ABORT: nothing is held */
	SESSION_STATES
};
const char *session_state_name(enum session_state state);
enum session_phase session_phase_of(enum session_state state, bool ready);
/* RELEASED or ROLLED_BACK: only FORGET is left. */
bool session_is_final(enum session_state state);
/* Whether this answer is the last word for this generation, to be kept and given again. A refused ABORT or RELEASE may
 * be asked again when more is known, and what was stale or out of order says nothing about the step itself. */
bool session_is_last_word(enum step step, enum outcome outcome, enum err_code code);

struct session_core {
	enum session_state state;
	enum side side;
	bool ready;        /* the leg says that what is left fits the downtime */
	bool leg_wanted;   /* a leg should live */
	bool leg_up;       /* a leg is connected to this agent (false after a restart, until it is again) */
	bool abort_asked;  /* the coordinator asked for an abort */
	bool failed;       /* the copy failed for good: leg lost, peer lost, policy */
	enum step asked;   /* the step whose answer the coordinator waits for; STEP_NONE if none */
	uint64_t sequence; /* of that command */
	enum step highest; /* highest forward step (CHECK..SWITCH) taken: older ones are stale */
};

enum session_event_kind {
	EVENT_COMMAND = 1,   /* step, sequence: a command for this session (generation and epoch were checked) */
	EVENT_CHECKS_DONE,   /* the pre-checks ended: ok says how */
	EVENT_LEG_UP,        /* the leg's socket is connected */
	EVENT_LEG_DONE,      /* the leg says that it did `step` */
	EVENT_LEG_REFUSED,   /* the leg says that `step` certainly was not done */
	EVENT_LEG_READY,     /* the leg says the rest fits the downtime */
	EVENT_LEG_FAILED,    /* the leg says that the copy has failed (it is rolling back by itself as far as it may) */
	EVENT_LEG_LOST,      /* the leg process is certainly dead */
	EVENT_FACTS,         /* the journal knows more than before */
	EVENT_RESTARTED,     /* the agent was restarted; leg_up is false */
	EVENT_HOST_REBOOTED, /* the session's boot id is not this boot's */
	EVENT_ORPHANED,      /* orphan_grace without a coordinator has passed */
	EVENT_KINDS
};

/* Over, and no leg is to work for it any more: what it still holds is a leftover. */
static inline bool session_is_over(const struct session_core *core)
{
	return session_is_final(core->state) && !core->leg_wanted;
}

struct session_event {
	enum session_event_kind kind;
	enum step step;
	uint64_t sequence;
	bool ok;
};

enum session_action_kind {
	ACTION_RUN_CHECKS = 1, /* run the pre-checks of the plan, then EVENT_CHECKS_DONE */
	ACTION_START_LEG,      /* start a leg if none lives; with recover set it does only what is due by the journal.
	                        * Without recover it is never started twice: one that was and is dead is EVENT_LEG_LOST */
	ACTION_SEND_LEG,       /* pass command `step` to the leg */
	ACTION_ANSWER,     /* answer command `step` with `outcome` (sequence in the core); journal the answer first */
	ACTION_REPORT,     /* send the session's phase, facts and cause to the coordinator */
	ACTION_TELL_FACTS, /* pass the journal's facts to the leg */
	ACTION_FORGET,     /* drop the session from the journal */
};

struct session_action {
	enum session_action_kind kind;
	enum step step;
	enum outcome outcome;
	enum err_code code; /* ANSWER refused: why; ERR_NONE: the session's cause, or what the leg or the checks said */
	bool recover;       /* START_LEG */
};

#define SESSION_ACTIONS_MAX 8
struct session_actions {
	unsigned count;
	struct session_action list[SESSION_ACTIONS_MAX];
};

/* Total and deterministic. `facts` are the journal's. *ret_next may be the same object as core. */
void session_step(const struct session_core *core, const struct verdict_facts *facts, const struct session_event *event,
                  struct session_core *ret_next, struct session_actions *ret_actions);

/* What is to be done in this state, on entry, on retry and after a restart alike. */
void session_due(const struct session_core *core, const struct verdict_facts *facts,
                 struct session_actions *ret_actions);

#endif
