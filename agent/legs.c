/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Legs: started, reached through their sockets, found again, followed by another when they die. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "agent/agent_impl.h"
#include "agent/core/leg_rules.h"
#include "common/log.h"

static void on_packet_ready(void *ctx, int fd);

/* ---- out ---- */

static void send_msg(struct session *session, struct msg *msg)
{
	void *frame = NULL;
	size_t bytes = 0;
	struct err err;
	msg->version = PROTOCOL_VERSION;
	msg->epoch = journal_epoch(session->agent->journal);
	msg->migration = session->row.migration;
	msg->generation = session->row.generation;
	if (session->leg_fd < 0)
		return; /* what is due is sent when the leg is reached again */
	if (msg_encode(msg, &frame, &bytes, &err) < 0) {
		log_error("event=leg-message migration=%" PRIu64 " error=\"%s\"", session->row.migration, err.text);
		return;
	}
	if (process_send(session->leg_fd, frame, bytes) < 0) {
		log_warning("event=leg-does-not-read migration=%" PRIu64 " error=\"%s\"", session->row.migration,
		            strerror(errno));
		/* the reading side sees the end, and reaches for the leg again */
		process_hang_up(session->leg_fd);
	}
	free(frame);
}

void leg_tell_facts(struct session *session)
{
	struct msg *msg = control_msg(MSG_FACTS);
	msg->u.facts = session->row.facts;
	send_msg(session, msg);
	free(msg);
}

void leg_send_step(struct session *session, enum step step)
{
	const struct journal_session *row = &session->row;
	struct msg *msg = control_msg(MSG_COMMAND);
	struct msg_command *command = &msg->u.command;
	/* The sequence as it came; what the agent asks by itself has the last one. */
	msg->sequence = step == session->event_step ? session->event_sequence : row->core.sequence;
	command->step = step;
	command->side = row->side;
	if (step == STEP_PREPARE)
		command->plan = session->plan;
	if (step == STEP_COPY) {
		memcpy(command->peer_fingerprint, row->peer_fingerprint, sizeof(command->peer_fingerprint));
		memcpy(command->peer_endpoint, row->peer_endpoint, sizeof(command->peer_endpoint));
	}
	if (step == STEP_ABORT) {
		command->reason = row->cause.code != ERR_NONE ? row->cause.code : ERR_CANCELLED;
		memcpy(command->reason_text, row->cause.text, sizeof(command->reason_text));
	}
	send_msg(session, msg);
	free(msg);
}

/* ---- in ---- */

static void take_session(struct session *session, const struct msg_session *said)
{
	struct journal_session *row = &session->row;
	session_cause(session, &said->cause);
	if (said->kept_until_wall_ms != 0 && said->kept_until_wall_ms != row->kept_until_wall_ms) {
		row->kept_until_wall_ms = said->kept_until_wall_ms;
		session->dirty = true;
	}
	if (said->budget.total_ms != 0 && memcmp(&said->budget, &row->budget, sizeof(row->budget)) != 0) {
		row->budget = said->budget;
		session->dirty = true;
	}
}

static void on_answer(struct session *session, const struct msg_answer *answer)
{
	struct journal_session *row = &session->row;
	take_session(session, &answer->session);
	session_learn(session, &answer->session.facts, false);
	if (answer->outcome == OUTCOME_DONE) {
		if (answer->step == STEP_PREPARE) {
			memcpy(row->fingerprint, answer->fingerprint, sizeof(row->fingerprint));
			memcpy(row->endpoint, answer->endpoint, sizeof(row->endpoint));
			session->dirty = true;
		}
		session_handle(session, &(struct session_event) { .kind = EVENT_LEG_DONE, .step = answer->step });
		return;
	}
	session->refusal = answer->cause;
	if (answer->step == STEP_PREPARE || answer->step == STEP_COPY)
		session_cause(session, &answer->cause);
	session_handle(session, &(struct session_event) { .kind = EVENT_LEG_REFUSED, .step = answer->step });
}

static void on_report(struct session *session, const struct msg_session *report)
{
	struct verdict_facts before = session->row.facts;
	bool conflict = false;
	take_session(session, report);
	session_learn(session, &report->facts, false);
	struct session_event event = leg_report_event(&session->row.core, report->phase);
	if (event.kind == EVENT_FACTS && !session->dirty && !verdict_learn(&before, &session->row.facts, &conflict))
		return; /* nothing new */
	session_handle(session, &event);
}

static void on_msg(struct session *session, struct msg *msg)
{
	if (msg->migration != session->row.migration || msg->generation != session->row.generation) {
		log_warning("event=leg-message migration=%" PRIu64 " error=\"it is about another one\"",
		            session->row.migration);
		return;
	}
	switch (msg->kind) {
	case MSG_ANSWER:
		on_answer(session, &msg->u.answer);
		return;
	case MSG_REPORT:
		on_report(session, &msg->u.report);
		return;
	case MSG_PROGRESS:
		control_send(session->agent, msg);
		return;
	case MSG_HELLO:
	case MSG_WELCOME:
	case MSG_HEARTBEAT:
	case MSG_HEARTBEAT_ACK:
	case MSG_INVENTORY:
	case MSG_COMMAND:
	case MSG_FACTS:
	case MSG_REQUEST:
	case MSG_REPLY:
	case MSG_ERROR:
	case MSG_SURVEY:
	case MSG_HOLDINGS:
	case MSG_KINDS:
		log_warning("event=leg-message migration=%" PRIu64 " error=\"unexpected %s\"", session->row.migration,
		            msg_kind_name(msg->kind));
		return;
	}
}

void leg_disconnect(struct session *session)
{
	if (session->leg_fd < 0)
		return;
	loop_fd_end(session->agent->loop, session->leg_fd);
	process_close(session->leg_fd);
	session->leg_fd = -1;
}

void leg_reconnect(struct session *session)
{
	leg_disconnect(session);
	if (session->doomed)
		return;
	session_handle(session, &(struct session_event) { .kind = EVENT_RESTARTED });
	legs_kick(session->agent);
}

/* Reads all that is there. */
static void drain(struct session *session)
{
	struct agent *agent = session->agent;
	while (session->leg_fd >= 0 && !session->doomed) {
		struct err err;
		ssize_t got = process_read(session->leg_fd, agent->packet, LIMIT_FRAME_BYTES);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got <= 0) { /* the connection ended; whether the leg did is found out by legs_pursue() */
			leg_reconnect(session);
			return;
		}
		struct msg *msg = control_msg(MSG_REPORT);
		if (msg_decode(agent->packet, (size_t)got, msg, &err) == 0) {
			on_msg(session, msg);
			msg_free(msg);
		} else {
			log_warning("event=leg-message migration=%" PRIu64 " error=\"%s\"", session->row.migration,
			            err.text);
		}
		free(msg);
	}
}

static void on_packet_ready(void *ctx, int fd)
{
	(void)fd;
	drain(ctx);
}

/* ---- reach ---- */

static int leg_connect(struct session *session, struct proc_id *ret_leg)
{
	struct agent *agent = session->agent;
	struct err err;
	int fd = process_leg_connect(agent, session->row.migration, ret_leg);
	if (fd < 0)
		return -1;
	if (loop_fd(agent->loop, fd, on_packet_ready, session, &err) < 0) {
		process_close(fd);
		return -1;
	}
	session->leg_fd = fd;
	return 0;
}

static void reached(struct session *session, const struct proc_id *leg)
{
	session->start_wanted = false;
	if (session->row.leg.pid != leg->pid || session->row.leg.start_ticks != leg->start_ticks) {
		session->row.leg = *leg; /* one that was started just before the agent ended */
		(void)session_save(session);
	}
	log_info("event=leg-reached migration=%" PRIu64 " pid=%ld", session->row.migration, (long)leg->pid);
	session_handle(session, &(struct session_event) { .kind = EVENT_LEG_UP });
}

static void lost(struct session *session)
{
	struct journal_session *row = &session->row;
	log_warning("event=leg-lost migration=%" PRIu64 " pid=%ld", row->migration, (long)row->leg.pid);
	if (!session_is_final(row->core.state) && row->core.state != SESSION_ROLLING_BACK)
		session_cause(session,
		              &(struct err) { .code = ERR_LEG_LOST, .text = "the leg process ended before its work" });
	row->leg = (struct proc_id) { 0 };
	session->dirty = true;
	session_handle(session, &(struct session_event) { .kind = EVENT_LEG_LOST });
}

/* ---- start ---- */

static int64_t next_start(struct session *session, int64_t now_ms)
{
	if (session->starts_since_ms == 0 || now_ms - session->starts_since_ms > 60000) {
		session->starts_since_ms = now_ms;
		session->starts = 0;
	}
	session->starts++;
	return session->starts < LEG_STARTS_PER_MINUTE ? now_ms + LEG_POLL_MS : now_ms + LEG_SLOW_START_MS;
}

static int leg_start(struct session *session, struct err *err)
{
	struct agent *agent = session->agent;
	if (agent->leg_err.code != ERR_NONE && agent_conf_leg(&agent->conf, agent->leg_path, &agent->leg_err) < 0) {
		*err = agent->leg_err;
		return -1;
	}
	err_clear(&agent->leg_err);
	if (process_leg_start(session, err) < 0)
		return -1;
	log_info("event=leg-started migration=%" PRIu64 " pid=%ld recover=%d", session->row.migration,
	         (long)session->row.leg.pid, session->start_recover);
	(void)session_save(session);
	return 0;
}

static void start_failed(struct session *session, const struct err *err)
{
	log_warning("event=leg-not-started migration=%" PRIu64 " error=\"%s\"", session->row.migration, err->text);
	if (session->start_recover)
		return; /* tried again, slowly, for ever */
	session->start_wanted = false;
	session->refusal = *err;
	session_cause(session, err);
	session_handle(session, &(struct session_event) { .kind = EVENT_LEG_REFUSED, .step = STEP_PREPARE });
	/* No leg has ever run, so nothing was made and there is nothing to take away. */
	session->start_wanted = false;
	session_handle(session, &(struct session_event) { .kind = EVENT_LEG_DONE, .step = STEP_ABORT });
}

static void pursue(struct session *session)
{
	struct proc_id leg;
	struct err err;
	int64_t now_ms = agent_now_ms();
	if (session->leg_fd >= 0 || (session->row.leg.pid == 0 && !session->start_wanted))
		return;
	if (leg_connect(session, &leg) == 0) {
		reached(session, &leg);
		return;
	}
	if (session->row.leg.pid != 0) {
		if (!process_alive(&session->row.leg))
			lost(session);
		return;
	}
	if (now_ms < session->start_after_ms)
		return;
	session->start_after_ms = next_start(session, now_ms);
	if (leg_start(session, &err) < 0)
		start_failed(session, &err);
}

static void want_more(struct session *session)
{
	if (session->leg_fd < 0 && (session->row.leg.pid != 0 || session->start_wanted))
		legs_kick(session->agent);
}

static void legs_pursue(void *ctx)
{
	struct agent *agent = ctx;
	agent->leg_timer = -1;
	sessions_walk(agent, pursue);
	if (agent->leg_timer >
	    0) { /* asked for meanwhile: not at once, or one that dies at once would be a busy loop */
		loop_timer_end(agent->loop, agent->leg_timer);
		agent->leg_timer = -1;
	}
	agent->leg_timer = -2; /* the next kick means the slow pace */
	sessions_walk(agent, want_more);
	if (agent->leg_timer == -2)
		agent->leg_timer = -1;
}

void legs_kick(struct agent *agent)
{
	if (agent->leg_timer > 0)
		return;
	unsigned delay_ms = agent->leg_timer == -2 ? LEG_POLL_MS : 1;
	agent->leg_timer = loop_timer(agent->loop, delay_ms, false, legs_pursue, agent, NULL);
}

/* There is a leg that is not journaled: reached as soon as it listens, another one started if it ends before. */
static void find_twin(struct session *session)
{
	session->row.leg = (struct proc_id) { 0 };
	session->start_wanted = true;
	session->start_after_ms = agent_now_ms() + LEG_POLL_MS;
	(void)session_save(session);
}

bool legs_child(struct agent *agent, pid_t pid, int status)
{
	for (struct session *s = agent->sessions; s; s = s->next) {
		if (s->doomed || s->row.leg.pid != pid)
			continue;
		log_info("event=leg-ended migration=%" PRIu64 " pid=%ld %s=%d", s->row.migration, (long)pid,
		         WIFEXITED(status) ? "status" : "signal",
		         WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		drain(s); /* its last words first */
		if (WIFEXITED(status) && WEXITSTATUS(status) == LEG_EXIT_TWIN)
			find_twin(s);
		legs_kick(agent);
		return true;
	}
	return false;
}
