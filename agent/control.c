/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coordinator: hello, heartbeats, commands in, answers out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_impl.h"
#include "common/log.h"

struct msg *control_msg(enum msg_kind kind)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	if (!msg)
		abort(); /* a daemon without a few KiB ends, and starts again */
	msg->kind = kind;
	return msg;
}

void control_send(struct agent *agent, struct msg *msg)
{
	struct err err;
	if (!agent->connected || (!agent->welcomed && msg->kind != MSG_HELLO))
		return;
	msg->version = PROTOCOL_VERSION;
	msg->epoch = journal_epoch(agent->journal);
	if (bus_client_send(agent->bus, msg, &err) < 0)
		log_warning("event=not-sent kind=%s migration=%" PRIu64 " error=\"%s\"", msg_kind_name(msg->kind),
		            msg->migration, err.text);
}

/* ---- hello ---- */

static void say_hello(void *ctx)
{
	struct agent *agent = ctx;
	struct msg *msg = control_msg(MSG_HELLO);
	struct msg_hello *hello = &msg->u.hello;
	agent->hello_timer = -1;
	if (agent->connected && !agent->welcomed) {
		hello->version_min = PROTOCOL_VERSION_MIN;
		hello->version_max = PROTOCOL_VERSION;
		(void)snprintf(hello->software, sizeof(hello->software), "%s", DROVER_VERSION);
		memcpy(hello->host, agent->conf.host, sizeof(hello->host));
		memcpy(hello->pool, agent->conf.pool, sizeof(hello->pool));
		memcpy(hello->boot_id, agent->boot_id, sizeof(hello->boot_id));
		(void)snprintf(hello->journal_id, sizeof(hello->journal_id), "%s", journal_id(agent->journal));
		hello->max_epoch = journal_epoch(agent->journal);
		control_send(agent, msg);
		agent->hello_timer = loop_timer(agent->loop, AGENT_HELLO_RETRY_MS, false, say_hello, agent, NULL);
	}
	free(msg);
}

static void on_connection(void *ctx, bool up)
{
	struct agent *agent = ctx;
	log_notice("event=coordinator connection=%s endpoint=%s", up ? "up" : "down", agent->conf.coordinator);
	agent->connected = up;
	agent->welcomed = false;
	loop_timer_end(agent->loop, agent->heartbeat_timer);
	loop_timer_end(agent->loop, agent->hello_timer);
	agent->heartbeat_timer = agent->hello_timer = -1;
	if (up)
		say_hello(agent);
}

static void refresh(struct session *session)
{
	if (session_refresh_facts(session)) /* a leg that is not connected writes facts too */
		session_handle(session, &(struct session_event) { .kind = EVENT_FACTS });
}

void control_heartbeat(struct agent *agent)
{
	if (!agent->welcomed)
		return;
	struct msg *msg = control_msg(MSG_HEARTBEAT);
	struct msg_heartbeat *heartbeat = &msg->u.heartbeat;
	heartbeat->trouble = agent->trouble;
	heartbeat->inventory_digest = agent->inventory.valid ? agent->inventory.now.digest : 0;
	heartbeat->leftovers = agent->leftovers;
	heartbeat->sessions = calloc(LIMIT_SESSIONS, sizeof(*heartbeat->sessions));
	if (!heartbeat->sessions)
		abort();
	for (const struct session *s = agent->sessions; s && heartbeat->session_count < LIMIT_SESSIONS; s = s->next)
		if (!s->doomed && s->row.core.state != SESSION_NONE)
			session_describe(s, &heartbeat->sessions[heartbeat->session_count++]);
	control_send(agent, msg);
	free(heartbeat->sessions);
	free(msg);
}

static void on_heartbeat(void *ctx)
{
	struct agent *agent = ctx;
	sessions_walk(agent, refresh);
	control_heartbeat(agent);
}

static void set_heartbeat(struct agent *agent, unsigned ms)
{
	ms = ms < AGENT_HEARTBEAT_MIN_MS ? AGENT_HEARTBEAT_MIN_MS : ms;
	ms = ms > AGENT_HEARTBEAT_MAX_MS ? AGENT_HEARTBEAT_MAX_MS : ms;
	if (agent->heartbeat_timer >= 0 && agent->heartbeat_ms == ms)
		return;
	agent->heartbeat_ms = ms;
	loop_timer_end(agent->loop, agent->heartbeat_timer);
	agent->heartbeat_timer = loop_timer(agent->loop, ms, true, on_heartbeat, agent, NULL);
}

static void on_welcome(struct agent *agent, const struct msg_welcome *welcome)
{
	agent->welcomed = true;
	agent->refused_logged = false;
	loop_timer_end(agent->loop, agent->hello_timer);
	agent->hello_timer = -1;
	set_heartbeat(agent, welcome->heartbeat_ms);
	log_notice("event=welcome cluster=%s coordinator=%s heartbeat_ms=%u", welcome->cluster_id, welcome->software,
	           agent->heartbeat_ms);
	on_heartbeat(agent);
}

static void send_inventory(struct agent *agent)
{
	if (!agent->inventory.valid)
		return; /* the digest in a later heartbeat makes it ask again */
	struct msg *msg = control_msg(MSG_INVENTORY);
	inventory_amounts(agent);
	msg->u.inventory = agent->inventory.now;
	control_send(agent, msg);
	free(msg); /* the list of VMs stays the inventory's */
}

/* ---- commands ---- */

static void answer_plain(struct agent *agent, const struct msg *command, enum outcome outcome, enum err_code code,
                         const char *text)
{
	struct msg *msg = control_msg(MSG_ANSWER);
	struct msg_answer *answer = &msg->u.answer;
	msg->migration = answer->session.migration = command->migration;
	msg->generation = answer->session.generation = command->generation;
	msg->sequence = command->sequence;
	answer->step = command->u.command.step;
	answer->side = answer->session.side = command->u.command.side;
	answer->outcome = outcome;
	if (outcome == OUTCOME_REFUSED)
		err_set(&answer->cause, code, "%s on %s: %s", step_name(answer->step), agent->conf.host, text);
	control_send(agent, msg);
	free(msg);
}

void control_answer_dry(struct agent *agent, const struct dry_run *dry, const struct msg_check *checks, uint32_t count,
                        const struct err *refusal)
{
	struct msg *msg = control_msg(MSG_ANSWER);
	struct msg_answer *answer = &msg->u.answer;
	msg->migration = answer->session.migration = dry->migration;
	msg->generation = answer->session.generation = dry->generation;
	msg->sequence = dry->sequence;
	answer->step = STEP_CHECK;
	answer->side = answer->session.side = dry->side;
	answer->outcome = refusal->code == ERR_NONE ? OUTCOME_DONE : OUTCOME_REFUSED;
	answer->cause = *refusal;
	answer->check_count = count;
	memcpy(answer->checks, checks, count * sizeof(*checks));
	control_send(agent, msg);
	free(msg);
}

static void on_dry_run(struct agent *agent, const struct msg *msg)
{
	struct dry_run *dry = calloc(1, sizeof(*dry));
	if (!dry)
		abort();
	dry->migration = msg->migration;
	dry->generation = msg->generation;
	dry->sequence = msg->sequence;
	dry->side = msg->u.command.side;
	dry->plan = *msg->u.command.plan;
	dry->next = agent->dry_runs;
	agent->dry_runs = dry;
	dry->checks_run = inventory_request(agent);
}

/* About a session that is not in the journal (V11). */
static void on_unknown(struct agent *agent, const struct msg *msg)
{
	const struct msg_command *command = &msg->u.command;
	uint32_t known = 0;
	struct err err;
	if (journal_generation(agent->journal, msg->migration, &known, &err) < 0) {
		log_error("event=journal migration=%" PRIu64 " error=\"%s\"", msg->migration, err.text);
		return; /* what is not known is not answered: it will be asked again */
	}
	if (msg->generation <= known) { /* it was here, it was final, it was forgotten */
		bool last = msg->generation == known;
		if (command->step == STEP_FORGET)
			answer_plain(agent, msg, OUTCOME_DONE, ERR_NONE, "");
		else if (last && (command->step == STEP_ABORT || command->step == STEP_RELEASE))
			answer_plain(agent, msg, OUTCOME_REFUSED, ERR_UNKNOWN_ID,
			             "its part was over and is forgotten: nothing is held");
		else
			answer_plain(agent, msg, OUTCOME_REFUSED, ERR_STALE, "this generation is over");
		return;
	}
	bool lost = journal_was_lost(agent->journal) || (known == 0 && process_leg_listens(agent, msg->migration));
	if (lost && command->step != STEP_CHECK) {
		answer_plain(agent, msg, OUTCOME_REFUSED, ERR_HOST_LOST,
		             "the journal that may have known this migration is gone");
		return;
	}
	if (command->step == STEP_CHECK && sessions_count(agent) >= LIMIT_SESSIONS) {
		answer_plain(agent, msg, OUTCOME_REFUSED, ERR_BUSY,
		             "the host takes part in too many migrations already");
		return;
	}
	struct session *session = session_add(agent, msg->migration, msg->generation, command->side);
	if (command->plan)
		*session->plan = *command->plan;
	session_handle(session, &(struct session_event) {
					.kind = EVENT_COMMAND, .step = command->step, .sequence = msg->sequence });
	if (session->row.core.state == SESSION_NONE && session->row.core.asked == STEP_NONE)
		session->doomed = true;
}

/* Gives the answer again that was given. True: that was it. */
static bool replay(struct session *session, const struct msg *msg)
{
	struct agent *agent = session->agent;
	enum step step = msg->u.command.step;
	bool forward = step >= STEP_CHECK && step <= STEP_SWITCH;
	if (!session->journaled || (forward && step < session->row.core.highest) || step == STEP_FORGET)
		return false;
	struct msg *out = control_msg(MSG_ANSWER);
	struct err err;
	int found = journal_answer_get(agent->journal, msg->migration, msg->generation, step, &out->u.answer, &err);
	if (found < 0)
		log_error("event=journal migration=%" PRIu64 " error=\"%s\"", msg->migration, err.text);
	if (found == 1) {
		out->migration = msg->migration;
		out->generation = msg->generation;
		out->sequence = msg->sequence;
		(void)session_refresh_facts(session);
		session_describe(session, &out->u.answer.session);
		control_send(agent, out);
	}
	free(out);
	return found != 0; /* an unreadable journal answers nothing */
}

static void take_arguments(struct session *session, const struct msg_command *command)
{
	struct journal_session *row = &session->row;
	if (command->step == STEP_COPY && row->core.state == SESSION_PREPARED) {
		memcpy(row->peer_fingerprint, command->peer_fingerprint, sizeof(row->peer_fingerprint));
		memcpy(row->peer_endpoint, command->peer_endpoint, sizeof(row->peer_endpoint));
		session->dirty = true;
	}
	bool open = row->core.state < SESSION_COMMITTED && verdict_of(&row->facts) != VOTE_COMMIT;
	if (command->step == STEP_ABORT && open && command->reason != ERR_NONE) {
		struct err reason = { .code = command->reason };
		memcpy(reason.text, command->reason_text, sizeof(reason.text));
		session_cause(session, &reason);
	}
}

static void on_command(struct agent *agent, const struct msg *msg)
{
	const struct msg_command *command = &msg->u.command;
	if (command->step == STEP_CHECK && command->plan && command->plan->dry_run) {
		on_dry_run(agent, msg);
		return;
	}
	struct session *session = session_find(agent, msg->migration, msg->generation);
	if (!session) {
		on_unknown(agent, msg);
		return;
	}
	if (session->row.side != command->side) {
		answer_plain(agent, msg, OUTCOME_REFUSED, ERR_PROTOCOL,
		             "this host is on the other side of that migration");
		return;
	}
	if (replay(session, msg))
		return;
	(void)session_refresh_facts(session);
	take_arguments(session, command);
	session_handle(session, &(struct session_event) {
					.kind = EVENT_COMMAND, .step = command->step, .sequence = msg->sequence });
}

static void on_facts(struct agent *agent, const struct msg *msg)
{
	struct session *session = session_find(agent, msg->migration, msg->generation);
	if (session)
		session_learn(session, &msg->u.facts, true);
}

static void on_error(struct agent *agent, const struct err *error)
{
	if (!agent->refused_logged)
		log_error("event=refused-by-coordinator code=%s error=\"%s\"", err_name(error->code), error->text);
	agent->refused_logged = true;
	agent->welcomed = false; /* the hello timer tries again */
	loop_timer_end(agent->loop, agent->heartbeat_timer);
	agent->heartbeat_timer = -1;
	if (agent->hello_timer <= 0)
		agent->hello_timer = loop_timer(agent->loop, AGENT_HELLO_RETRY_MS, false, say_hello, agent, NULL);
}

/* An older coordinator is not obeyed, and is told so where it waits for an answer. One whose epoch cannot be journaled
 * is not obeyed yet: a refusal would be for good, so it gets no answer. */
static bool epoch_ok(struct agent *agent, const struct msg *msg)
{
	struct err err;
	if (msg->kind == MSG_ERROR || journal_epoch_raise(agent->journal, msg->epoch, &err) == 0)
		return true;
	if (err.code != ERR_STALE) {
		log_error("event=journal error=\"%s\"", err.text);
		return false;
	}
	log_warning("event=stale kind=%s error=\"%s\"", msg_kind_name(msg->kind), err.text);
	if (msg->kind == MSG_COMMAND)
		answer_plain(agent, msg, OUTCOME_REFUSED, err.code, err.text);
	return false;
}

static void on_message(void *ctx, const struct msg *msg)
{
	struct agent *agent = ctx;
	if (!epoch_ok(agent, msg))
		return;
	agent->heard_ms = agent_now_ms();
	switch (msg->kind) {
	case MSG_WELCOME:
		on_welcome(agent, &msg->u.welcome);
		return;
	case MSG_HEARTBEAT_ACK:
		if (msg->u.heartbeat_ack.heartbeat_ms != 0)
			set_heartbeat(agent, msg->u.heartbeat_ack.heartbeat_ms);
		if (msg->u.heartbeat_ack.want_inventory)
			send_inventory(agent);
		return;
	case MSG_COMMAND:
		on_command(agent, msg);
		return;
	case MSG_FACTS:
		on_facts(agent, msg);
		return;
	case MSG_ERROR:
		on_error(agent, &msg->u.error);
		return;
	case MSG_SURVEY:
		survey_asked(agent, msg);
		return;
	case MSG_HELLO:
	case MSG_HEARTBEAT:
	case MSG_INVENTORY:
	case MSG_ANSWER:
	case MSG_REPORT:
	case MSG_PROGRESS:
	case MSG_REQUEST:
	case MSG_REPLY:
	case MSG_HOLDINGS:
	case MSG_KINDS:
		log_warning("event=unexpected kind=%s", msg_kind_name(msg->kind));
		return;
	}
}

int control_start(struct agent *agent, struct err *err)
{
	if (bus_connect(&agent->bus, agent->loop, agent->conf.coordinator, agent->conf.key, agent->conf.server_key,
	                on_message, agent, err) < 0)
		return -1;
	bus_on_connection(agent->bus, on_connection, agent);
	return 0;
}

void control_stop(struct agent *agent)
{
	agent->connected = agent->welcomed = false;
	if (agent->bus)
		bus_client_free(agent->bus);
	agent->bus = NULL;
}
