/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/core/leg_rules.h"

static enum party self(const struct leg_view *view)
{
	return view->side == SIDE_SOURCE ? PARTY_SOURCE : PARTY_DESTINATION;
}

static enum vote own_vote(const struct leg_view *view)
{
	return view->facts.vote[self(view)];
}

static bool is_committed(const struct leg_view *view)
{
	return verdict_of(&view->facts) == VOTE_COMMIT && !view->facts.renounced;
}

static bool is_aborted(const struct leg_view *view)
{
	return verdict_of(&view->facts) == VOTE_ABORT || view->facts.renounced;
}

struct verdict_local leg_local_at_start(const struct session_core *session, bool recover, bool image_gone)
{
	return (struct verdict_local) {
		.abort_asked = session->abort_asked,
		.image_gone = image_gone,
		.granted = recover && session->highest >= STEP_SWITCH,
		.failed = recover, /* the copy died with the leg that made it */
	};
}

enum leg_write leg_write_due(const struct leg_view *view)
{
	unsigned due = verdict_due(self(view), &view->facts, &view->local);
	if (due & DUTY_CAST_COMMIT)
		return LEG_WRITE_COMMIT;
	if (due & DUTY_CAST_ABORT)
		return LEG_WRITE_ABORT;
	if (due & DUTY_RENOUNCE)
		return LEG_WRITE_RENOUNCED;
	if ((due & DUTY_ACTIVATE) && !view->facts.activating)
		return LEG_WRITE_ACTIVATING;
	return LEG_WRITE_NONE;
}

bool leg_vm_due(const struct leg_view *view)
{
	return leg_write_due(view) == LEG_WRITE_NONE &&
	       (verdict_due(self(view), &view->facts, &view->local) & (DUTY_RESUME | DUTY_ACTIVATE)) != 0;
}

bool leg_rolls_back(const struct leg_view *view)
{
	if (is_aborted(view))
		return true;
	if (own_vote(view) == VOTE_COMMIT)
		return false;
	return view->local.failed || view->local.abort_asked || own_vote(view) == VOTE_ABORT;
}

bool leg_clean_due(const struct leg_view *view)
{
	if (view->settled)
		return false;
	if (view->side == SIDE_DESTINATION)
		return view->facts.renounced;
	bool aborted = own_vote(view) == VOTE_ABORT || verdict_of(&view->facts) == VOTE_ABORT ||
	               view->facts.renounced; /* whatever was voted: nobody will run it */
	return view->facts.resumed || (view->local.image_gone && aborted);
}

bool leg_failure_counts(const struct leg_view *view)
{
	return view->side == SIDE_SOURCE ? !view->facts.stream_ended
	                                 : view->facts.vote[PARTY_DESTINATION] != VOTE_COMMIT;
}

enum session_phase leg_phase(const struct leg_view *view)
{
	if (view->settled)
		return PHASE_ROLLED_BACK;
	if (view->released)
		return PHASE_RELEASED;
	if (is_committed(view))
		return PHASE_COMMITTED;
	if (own_vote(view) == VOTE_ABORT || is_aborted(view) || view->local.failed || view->local.abort_asked)
		return PHASE_ROLLING_BACK;
	if (view->local.granted)
		return PHASE_SWITCHING;
	if (view->ready)
		return PHASE_READY;
	return view->copying ? PHASE_COPYING : view->prepared ? PHASE_PREPARED : PHASE_CHECKED;
}

bool leg_may_prepare(const struct leg_view *view)
{
	return !view->recover && !view->local.failed && !view->local.abort_asked;
}

bool leg_may_copy(const struct leg_view *view)
{
	return view->prepared && !view->local.failed && !view->local.abort_asked;
}

bool leg_may_switch(const struct leg_view *view)
{
	return own_vote(view) != VOTE_ABORT && !view->facts.renounced;
}

bool leg_holds_nothing(const struct leg_view *view)
{
	return view->settled || view->released || (!view->planned && !view->busy && !view->recover);
}

static enum leg_reply release_reply(const struct leg_view *view)
{
	if (!is_committed(view) && (view->facts.resumed || view->facts.renounced))
		return LEG_TOO_LATE;
	if (view->released)
		return LEG_DONE;
	/* D: it runs, or its memory is gone with a reboot, and it is to be booted from its disks here */
	bool owns = view->facts.running || (view->local.image_gone && view->facts.activating && is_committed(view));
	bool may = view->side == SIDE_SOURCE ? verdict_may_release(&view->facts) : owns;
	return may && !view->recovering ? LEG_DO : LEG_WAIT;
}

enum leg_reply leg_reply(const struct leg_view *view, enum step step)
{
	switch (step) {
	case STEP_ABORT:
		return is_committed(view) ? LEG_TOO_LATE : view->settled ? LEG_DONE : LEG_WAIT;
	case STEP_RELEASE:
		return release_reply(view);
	case STEP_FORGET:
		return view->busy ? LEG_WAIT : leg_holds_nothing(view) ? LEG_DONE : LEG_BUSY;
	case STEP_NONE:
	case STEP_CHECK:
	case STEP_PREPARE:
	case STEP_COPY:
	case STEP_SWITCH:
	case STEPS:
		break;
	}
	return LEG_WAIT;
}

bool leg_may_flag(const struct verdict_facts *flag, const struct verdict_facts *facts,
                  const struct verdict_local *local)
{
	bool source_aborted = facts->vote[PARTY_SOURCE] == VOTE_ABORT || facts->resumed;
	if (flag->suspended || flag->stream_ended)
		return !source_aborted;
	if (flag->resumed)
		return verdict_may_resume(facts);
	if (flag->released)
		return verdict_may_release(facts);
	if (flag->activating)
		return verdict_may_activate(facts);
	if (flag->running)
		return facts->activating && !facts->renounced;
	return flag->renounced && verdict_may_renounce(facts, local);
}

struct session_event leg_report_event(const struct session_core *session, enum session_phase phase)
{
	struct session_event event = { .kind = EVENT_FACTS };
	if (phase == PHASE_READY && !session->ready && session->state == SESSION_COPYING)
		event.kind = EVENT_LEG_READY;
	else if (phase == PHASE_ROLLING_BACK && !session->failed && !session->abort_asked &&
	         session->state < SESSION_COMMITTED)
		event.kind = EVENT_LEG_FAILED;
	else if (phase == PHASE_ROLLED_BACK && session->state != SESSION_ROLLED_BACK)
		event = (struct session_event) { .kind = EVENT_LEG_DONE, .step = STEP_ABORT };
	else if (phase == PHASE_RELEASED && session->state == SESSION_RELEASING)
		event = (struct session_event) { .kind = EVENT_LEG_DONE, .step = STEP_RELEASE };
	return event;
}
