/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/agent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_impl.h"
#include "common/clock.h"
#include "common/lock.h"
#include "common/log.h"

int64_t agent_now_ms(void)
{
	return clock_ms(&clock_real);
}

/* ---- one agent a home ---- */

static int take_lock(struct agent *agent, struct err *err)
{
	char path[PATHS_MAX + 16];
	(void)snprintf(path, sizeof(path), "%s/agent.lock", agent->paths.run);
	return lock_take(path, &agent->lock_fd, err) ? err_wrap(err, "another agent runs here") : 0;
}

/* ---- timers ---- */

static void orphan(struct session *session)
{
	if (session->row.core.state != SESSION_NONE && session->row.core.state <= SESSION_COPYING) {
		session_cause(session, &(struct err) { .code = ERR_UNREACHABLE,
		                                       .text = "no coordinator for longer than orphan-grace" });
		session_handle(session, &(struct session_event) { .kind = EVENT_ORPHANED });
	}
}

/* What was lost with a failed write: the leg is asked again what it said, and a leg is started that should be there. */
static void mend(struct session *session)
{
	const struct session_core *core = &session->row.core;
	if (session->unsaved && session->journaled && session_save(session) == 0) {
		if (session->leg_fd >= 0)
			leg_reconnect(session);
		else
			session_handle(session, &(struct session_event) { .kind = EVENT_FACTS });
	}
	if (core->leg_wanted && session->leg_fd < 0 && session->row.leg.pid == 0 && !session->start_wanted)
		session_handle(session, &(struct session_event) { .kind = EVENT_LEG_LOST });
}

/* Whoever cannot write down what he promises must be seen not to be there: control_heartbeat() tells. */
static void watch_journal(struct agent *agent, int64_t now_ms)
{
	struct err err;
	struct err trouble = journal_trouble(agent->journal);
	if ((agent->sessions || trouble.code != ERR_NONE) && now_ms - agent->probed_ms >= AGENT_PROBE_MS) {
		agent->probed_ms = now_ms;
		(void)journal_probe(agent->journal, &err);
		trouble = journal_trouble(agent->journal);
	}
	if (trouble.code == ERR_CORRUPT) {
		log_error("event=stop code=%s error=\"%s\"", err_name(trouble.code), trouble.text);
		agent->failed = true;
		loop_stop(agent->loop);
	} else if (trouble.code != ERR_NONE && agent->trouble.code == ERR_NONE) {
		log_error("event=journal-trouble error=\"%s\"", trouble.text);
	} else if (trouble.code == ERR_NONE && agent->trouble.code != ERR_NONE) {
		log_notice("event=journal-well");
	}
	agent->trouble = trouble;
}

void agent_reserve(struct agent *agent)
{
	struct err err = { 0 };
	if (agent->conf.journal_reserve_bytes > 0)
		(void)journal_reserve(agent->journal, agent->conf.journal_reserve_bytes, &err);
	if (err.code != ERR_NONE && agent->reserve_err.code == ERR_NONE)
		log_warning("event=no-reserve error=\"%s\"", err.text);
	agent->reserve_err = err;
}

bool agent_failed(const struct agent *agent)
{
	return agent->failed;
}

static void housekeeping(void *ctx)
{
	struct agent *agent = ctx;
	int64_t now_ms = agent_now_ms(), slept_ms = now_ms - agent->kept_house_ms;
	agent->kept_house_ms = now_ms;
	if (slept_ms >= AGENT_STALL_MS) {
		log_warning("event=slept slept_ms=%" PRId64, slept_ms);
		agent->heard_ms += slept_ms; /* it could not be heard */
	}
	watch_journal(agent, now_ms);
	agent_reserve(agent);
	if (now_ms - agent->heard_ms > (int64_t)agent->conf.orphan_grace_ms)
		sessions_walk(agent, orphan);
	sessions_walk(agent, mend);
	if (now_ms - agent->swept_ms >= AGENT_SWEEP_MS) {
		agent->swept_ms = now_ms;
		keep_sweep(agent);
	}
}

static void look_round(void *ctx)
{
	struct agent *agent = ctx;
	if (agent->inventory.query.pid == 0) /* a slow one is not asked twice */
		(void)inventory_request(agent);
}

static void on_child(void *ctx, pid_t pid, int status)
{
	struct agent *agent = ctx;
	if (!query_child(&agent->inventory.query, pid, status) && !query_child(&agent->survey.query, pid, status))
		(void)legs_child(agent, pid, status);
}

/* ---- life ---- */

static int start(struct agent *agent, struct err *err)
{
	agent->packet = malloc(LIMIT_FRAME_BYTES);
	if (!agent->packet)
		return err_set(err, ERR_NO_MEMORY, "no memory for buffers");
	if (take_lock(agent, err) < 0 || boot_id_read(&agent->paths, agent->boot_id, sizeof(agent->boot_id), err) < 0)
		return -1;
	if (agent_conf_leg(&agent->conf, agent->leg_path, &agent->leg_err) < 0)
		log_error("event=no-leg-program error=\"%s\"", agent->leg_err.text);
	if (journal_find(&agent->paths, err) < 0 || journal_open(&agent->journal, &agent->paths, err) < 0)
		return -1;
	if (journal_was_lost(agent->journal))
		log_warning("event=journal-lost journal=%s", journal_id(agent->journal));
	agent_reserve(agent);
	agent->heard_ms = agent->kept_house_ms = agent_now_ms();
	loop_on_child(agent->loop, on_child, agent);
	agent->housekeeping_timer = loop_timer(agent->loop, AGENT_HOUSEKEEPING_MS, true, housekeeping, agent, err);
	agent->inventory_timer = loop_timer(agent->loop, INVENTORY_INTERVAL_MS, true, look_round, agent, err);
	if (agent->housekeeping_timer < 0 || agent->inventory_timer < 0)
		return -1;
	if (sessions_load(agent, err) < 0 || control_start(agent, err) < 0)
		return -1;
	(void)inventory_request(agent);
	log_notice("event=started host=%s pool=%s hypervisor=%s boot=%s journal=%s sessions=%u", agent->conf.host,
	           agent->conf.pool, agent->conf.hypervisor, agent->boot_id, journal_id(agent->journal),
	           sessions_count(agent));
	return 0;
}

int agent_new(struct agent **ret_agent, struct loop *loop, const struct paths *paths, const struct agent_conf *conf,
              struct err *err)
{
	struct agent *agent = calloc(1, sizeof(*agent));
	if (!agent)
		return err_set(err, ERR_NO_MEMORY, "no memory for the agent");
	agent->loop = loop;
	agent->paths = *paths;
	agent->conf = *conf;
	agent->lock_fd = -1;
	agent->heartbeat_timer = agent->hello_timer = agent->housekeeping_timer = agent->inventory_timer = -1;
	agent->leg_timer = -1;
	inventory_init(agent);
	survey_init(agent);
	if (start(agent, err) < 0) {
		agent_free(agent);
		return -1;
	}
	*ret_agent = agent;
	return 0;
}

void agent_free(struct agent *agent)
{
	if (!agent)
		return;
	control_stop(agent);
	sessions_free(agent);
	while (agent->dry_runs) {
		struct dry_run *dry = agent->dry_runs;
		agent->dry_runs = dry->next;
		free(dry);
	}
	const int timers[] = { agent->heartbeat_timer, agent->hello_timer, agent->housekeeping_timer,
		               agent->inventory_timer, agent->leg_timer };
	for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++)
		loop_timer_end(agent->loop, timers[i] > 0 ? timers[i] : 0);
	loop_on_child(agent->loop, NULL, NULL);
	inventory_free(agent);
	survey_free(agent);
	journal_close(agent->journal);
	lock_drop(NULL, agent->lock_fd);
	free(agent->packet);
	free(agent->kept);
	free(agent);
}
