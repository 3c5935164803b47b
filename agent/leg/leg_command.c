/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands in, answers and reports out. Main thread. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/leg/leg.h"
#include "common/log.h"

void leg_send(struct leg *leg, struct msg *msg, bool matters)
{
	msg->version = PROTOCOL_VERSION;
	msg->epoch = leg->epoch;
	msg->migration = leg->options.migration;
	msg->generation = leg->options.generation;
	control_send(leg->control, msg, matters);
}

static struct msg_session session_of(const struct leg *leg)
{
	struct msg_session session;
	struct leg_view view = leg_view(leg);
	memset(&session, 0, sizeof(session)); /* compared as bytes, padding too */
	session.migration = leg->options.migration;
	session.generation = leg->options.generation;
	session.side = leg->options.side;
	session.phase = leg_phase(&view);
	session.facts = leg->facts;
	session.cause = leg->cause;
	session.kept_until_wall_ms = leg->kept_until_wall_ms;
	session.budget = leg->budget;
	return session;
}

void leg_report(struct leg *leg, bool always)
{
	struct msg msg = { .kind = MSG_REPORT };
	struct msg_session session = session_of(leg);
	/* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): padding that differs costs one report more */
	if (!always && memcmp(&session, &leg->reported, sizeof(session)) == 0)
		return;
	if (session.phase != leg->reported.phase)
		log_notice("event=phase migration=%" PRIu64 " side=%s phase=%s", leg->options.migration,
		           side_name(leg->options.side), session_phase_name(session.phase));
	memcpy(&leg->reported, &session, sizeof(session));
	msg.u.report = session;
	leg_send(leg, &msg, true);
}

static void send_answer(struct leg *leg, enum step step)
{
	struct command *command = &leg->commands[step];
	struct msg msg = { .kind = MSG_ANSWER, .sequence = command->sequence };
	command->answer.session = session_of(leg);
	msg.u.answer = command->answer;
	leg_send(leg, &msg, true);
}

void leg_answer(struct leg *leg, enum step step, const struct err *cause)
{
	struct command *command = &leg->commands[step];
	if (command->state != COMMAND_PENDING)
		return;
	struct msg_answer *answer = &command->answer;
	memset(answer, 0, sizeof(*answer));
	answer->step = step;
	answer->side = leg->options.side;
	answer->outcome = cause ? OUTCOME_REFUSED : OUTCOME_DONE;
	if (cause)
		answer->cause = *cause;
	if (!cause && step == STEP_PREPARE) {
		memcpy(answer->fingerprint, tls_fingerprint(leg->identity), sizeof(answer->fingerprint));
		if (leg->options.side == SIDE_DESTINATION)
			memcpy(answer->endpoint, leg->endpoint, sizeof(answer->endpoint));
	}
	command->state = COMMAND_ANSWERED;
	log_info("event=answer migration=%" PRIu64 " side=%s step=%s outcome=%s", leg->options.migration,
	         side_name(leg->options.side), step_name(step), outcome_name(answer->outcome));
	send_answer(leg, step);
}

static void refuse(struct leg *leg, enum step step, enum err_code code, const char *text)
{
	struct err err;
	err_set(&err, code, "%s", text);
	leg_answer(leg, step, &err);
}

void leg_greet(struct leg *leg)
{
	log_info("event=agent-connected migration=%" PRIu64 " side=%s", leg->options.migration,
	         side_name(leg->options.side));
	leg_report(leg, true);
	if (leg->last != STEP_NONE && leg->commands[leg->last].state == COMMAND_ANSWERED)
		send_answer(leg, leg->last);
}

static void settle(struct leg *leg, enum step step)
{
	struct leg_view view = leg_view(leg);
	if (leg->commands[step].state != COMMAND_PENDING)
		return;
	switch (leg_reply(&view, step)) {
	case LEG_WAIT:
		return;
	case LEG_DO:
		if (leg_now_ms() >= leg->retry_at_ms)
			leg_job(leg, JOB_RELEASE);
		return;
	case LEG_DONE:
		leg_answer(leg, step, NULL);
		leg->stop = leg->stop || step == STEP_FORGET;
		return;
	case LEG_TOO_LATE:
		refuse(leg, step, ERR_TOO_LATE, step == STEP_ABORT ? "the verdict is commit" : "the verdict is abort");
		return;
	case LEG_BUSY:
		refuse(leg, step, ERR_BUSY, "the session is not over");
		leg->commands[step].state = COMMAND_NONE; /* it may come again */
		return;
	}
}

void leg_settle(struct leg *leg)
{
	settle(leg, STEP_ABORT);
	settle(leg, STEP_RELEASE);
	settle(leg, STEP_FORGET);
	struct leg_view view = leg_view(leg);
	if (leg->ending && !leg->busy && leg_holds_nothing(&view))
		leg->stop = true;
}

/* ---- each command, when it comes first ---- */
static void on_prepare(struct leg *leg, const struct msg_command *command)
{
	struct leg_view view = leg_view(leg);
	if (!leg_may_prepare(&view) || !command->plan) {
		refuse(leg, STEP_PREPARE, leg->cause.code ? leg->cause.code : ERR_LEG_LOST,
		       leg->cause.code ? leg->cause.text : "this leg only ends what another one began");
		return;
	}
	if (!leg->plan)
		leg->plan = malloc(sizeof(*leg->plan));
	if (!leg->plan) {
		refuse(leg, STEP_PREPARE, ERR_NO_MEMORY, "plan");
		return;
	}
	*leg->plan = *command->plan;
	leg_job(leg, JOB_PREPARE);
}

static void on_copy(struct leg *leg, const struct msg_command *command)
{
	struct err err = { 0 };
	struct leg_view view = leg_view(leg);
	if (!leg_may_copy(&view)) {
		refuse(leg, STEP_COPY, leg->cause.code ? leg->cause.code : ERR_CONFLICT,
		       leg->cause.code ? leg->cause.text : "not prepared");
		return;
	}
	if (tls_expect(leg->identity, command->peer_fingerprint, &err)) {
		leg_fail(leg, &err);
		return;
	}
	if (leg->options.side == SIDE_SOURCE)
		memcpy(leg->endpoint, command->peer_endpoint, sizeof(leg->endpoint));
	leg_job(leg, JOB_COPY);
}

static void on_switch(struct leg *leg)
{
	struct leg_view view = leg_view(leg);
	if (!leg_may_switch(&view)) {
		refuse(leg, STEP_SWITCH, leg->cause.code ? leg->cause.code : ERR_TOO_LATE,
		       leg->cause.code ? leg->cause.text : "rolled back already");
		return;
	}
	leg->local.granted = true;
	atomic_store(&leg->granted, true);
	leg_answer(leg, STEP_SWITCH, NULL);
	leg->side->granted(leg);
	leg_due(leg);
}

static void on_abort(struct leg *leg, const struct msg_command *command)
{
	log_notice("event=abort-asked migration=%" PRIu64 " side=%s reason=%s", leg->options.migration,
	           side_name(leg->options.side), err_name(command->reason));
	leg->local.abort_asked = true;
	leg_rollback_began(leg);
	struct err why;
	err_set(&why, command->reason ? command->reason : ERR_CANCELLED, "%s",
	        command->reason_text[0] ? command->reason_text : "the coordinator asked for an abort");
	const enum step steps[] = { STEP_PREPARE, STEP_COPY };
	for (unsigned i = 0; i < 2; i++)
		leg_answer(leg, steps[i], &why);
	leg_due(leg);
}

void leg_command(struct leg *leg, const struct msg *msg)
{
	const struct msg_command *in = &msg->u.command;
	enum step step = in->step;
	if (msg->epoch > leg->epoch)
		leg->epoch = msg->epoch;
	if (msg->migration != leg->options.migration || step >= STEPS) {
		log_warning("event=command-for-another migration=%" PRIu64, msg->migration);
		return;
	}
	struct command *command = &leg->commands[step];
	if (msg->generation != leg->options.generation || in->side != leg->options.side) {
		struct command kept = *command;
		*command = (struct command) { .state = COMMAND_PENDING, .sequence = msg->sequence };
		refuse(leg, step, ERR_STALE, "this leg serves another generation or side");
		*command = kept;
		return;
	}
	log_info("event=command migration=%" PRIu64 " side=%s step=%s sequence=%" PRIu64, leg->options.migration,
	         side_name(leg->options.side), step_name(step), msg->sequence);
	command->epoch = msg->epoch;
	command->sequence = msg->sequence;
	leg->last = step;
	/* "Too late" may be asked again when more is known. */
	if (command->state == COMMAND_ANSWERED && command->answer.outcome == OUTCOME_REFUSED &&
	    (step == STEP_ABORT || step == STEP_RELEASE))
		command->state = COMMAND_NONE;
	if (command->state == COMMAND_ANSWERED)
		send_answer(leg, step);
	if (command->state != COMMAND_NONE)
		return;
	command->state = COMMAND_PENDING;
	switch (step) {
	case STEP_PREPARE:
		on_prepare(leg, in);
		break;
	case STEP_COPY:
		on_copy(leg, in);
		break;
	case STEP_SWITCH:
		on_switch(leg);
		break;
	case STEP_ABORT:
		on_abort(leg, in);
		break;
	case STEP_RELEASE:
	case STEP_FORGET:
		leg_settle(leg);
		break;
	case STEP_NONE:
	case STEP_CHECK:
	case STEPS:
		refuse(leg, step, ERR_UNSUPPORTED, "not a leg's business");
		break;
	}
}
