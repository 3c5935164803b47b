/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a leg decides: pure functions of what its main thread knows. What is to be journaled, done and answered is
 * decided here, by common/verdict.h; agent/leg acts by it.
 */
#ifndef DROVER_LEG_RULES_H
#define DROVER_LEG_RULES_H

#include <stdbool.h>

#include "agent/core/session.h"
#include "common/verdict.h"
#include "proto/msg.h"

/* What a leg's main thread knows when it decides. */
struct leg_view {
	enum side side;
	bool recover;               /* it ends what another leg began */
	bool planned;               /* it has a plan: something may have been made */
	bool busy;                  /* a job waits or runs */
	bool prepared;              /* PREPARE is done */
	bool copying;               /* the copy has begun */
	bool ready;                 /* S: what is left fits the downtime */
	bool recovering;            /* it has not yet looked what of its predecessor's is there */
	bool settled;               /* after an abort: nothing is held any more */
	bool released;              /* after a commit: nothing is held but what is kept on purpose */
	struct verdict_facts facts; /* as journaled */
	struct verdict_local local;
};

/* What a new leg knows of itself by the session that the journal has. */
struct verdict_local leg_local_at_start(const struct session_core *session, bool recover, bool image_gone);

/* What is to be journaled next; each write makes the next one known. */
enum leg_write {
	LEG_WRITE_NONE = 0,
	LEG_WRITE_COMMIT,
	LEG_WRITE_ABORT,
	LEG_WRITE_RENOUNCED,
	LEG_WRITE_ACTIVATING,
};
enum leg_write leg_write_due(const struct leg_view *view);
/* The VM is to run here (S: resume, D: unpause), and all that has to be journaled before is. */
bool leg_vm_due(const struct leg_view *view);
/* After an abort, once the VM's fate here is certain: what is held is to be taken away. */
bool leg_clean_due(const struct leg_view *view);
/* This host's part ends in a rollback: all copying is to end at once. */
bool leg_rolls_back(const struct leg_view *view);
/* A failure of the copy still means something; later only the votes decide. */
bool leg_failure_counts(const struct leg_view *view);
enum session_phase leg_phase(const struct leg_view *view);

/* Whether a command that came is taken up. */
bool leg_may_prepare(const struct leg_view *view);
bool leg_may_copy(const struct leg_view *view);
bool leg_may_switch(const struct leg_view *view);

/* How a pending ABORT, RELEASE or FORGET stands. LEG_DO: its job is due. */
enum leg_reply { LEG_WAIT = 0, LEG_DO, LEG_DONE, LEG_TOO_LATE, LEG_BUSY };
enum leg_reply leg_reply(const struct leg_view *view, enum step step);
/* Nothing that this leg made is left to be dealt with. */
bool leg_holds_nothing(const struct leg_view *view);

/* Whether the journal may take the one flag that is set in `flag` (V2, V6, V7, V8, V10); `local` is of the one who
 * asks. */
bool leg_may_flag(const struct verdict_facts *flag, const struct verdict_facts *facts,
                  const struct verdict_local *local);

/* What a leg that reports `phase` tells its session; EVENT_FACTS: no more than facts. */
struct session_event leg_report_event(const struct session_core *session, enum session_phase phase);

#endif
