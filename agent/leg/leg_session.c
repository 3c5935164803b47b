/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a leg begins with, what its agent says, and what passes with time. Main thread; nothing of the process itself.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/leg/leg.h"
#include "common/clock.h"
#include "common/log.h"

int leg_load(struct leg *leg, struct err *err)
{
	struct journal_session *session = malloc(sizeof(*session));
	struct msg_plan *plan = malloc(sizeof(*plan));
	char boot_id[LIMIT_ID];
	int rc = -1;
	if (!session || !plan) {
		err_set(err, ERR_NO_MEMORY, "session");
		goto out;
	}
	if (journal_session_get(leg->journal, leg->options.migration, leg->options.generation, session, plan, err) ||
	    boot_id_read(&leg->paths, boot_id, sizeof(boot_id), err))
		goto out;
	leg->facts = leg->told_peer = session->facts;
	leg->local = leg_local_at_start(&session->core, leg->options.recover, strcmp(session->boot_id, boot_id) != 0);
	leg->kept_until_wall_ms = session->kept_until_wall_ms;
	leg->cause = session->cause;
	if (leg->options.recover) {
		bool source = leg->options.side == SIDE_SOURCE;
		memcpy(leg->peer_fingerprint, session->peer_fingerprint, sizeof(leg->peer_fingerprint));
		memcpy(leg->endpoint, source ? session->peer_endpoint : session->endpoint, sizeof(leg->endpoint));
		leg->recovering = true;
		leg->plan = plan;
		plan = NULL;
		if (leg->cause.code == ERR_NONE && !leg->local.abort_asked && !session->facts.stream_ended)
			err_set(&leg->cause, ERR_LEG_LOST, "the leg process died");
	}
	rc = 0;
out:
	free(session);
	free(plan);
	return rc;
}

void leg_message(struct leg *leg, const struct msg *msg)
{
	if (msg->kind == MSG_COMMAND)
		leg_command(leg, msg);
	else if (msg->kind == MSG_FACTS && msg->generation == leg->options.generation)
		leg_learn(leg, &msg->u.facts);
}

/* Without an agent nobody grants and nobody cancels: a copy gives up, a leg that holds nothing leaves. What was granted
 * is brought to its end. */
static void check_orphan(struct leg *leg)
{
	if (control_fd(leg->control) >= 0) {
		leg->agent_seen_ms = leg_now_ms();
		return;
	}
	if (leg_now_ms() - leg->agent_seen_ms < (int64_t)leg->conf->orphan_grace_ms || leg->ending)
		return;
	if (!leg->local.granted) {
		struct err err;
		err_set(&err, ERR_UNREACHABLE, "no agent for %" PRIu64 " s", leg->conf->orphan_grace_ms / 1000);
		leg->ending = true;
		leg_fail(leg, &err);
	} else if (leg->settled || leg->released) {
		leg->ending = true;
	}
}

void leg_tick(struct leg *leg)
{
	int64_t late_ms = leg_now_ms() - leg->tick_at_ms;
	if (late_ms >= LEG_STALL_MS) { /* we slept: the agent could not be seen */
		log_warning("event=slept migration=%" PRIu64 " slept_ms=%" PRId64, leg->options.migration, late_ms);
		leg->agent_seen_ms += late_ms;
	}
	leg->tick_at_ms = leg_now_ms() + LEG_PROGRESS_MS;
	check_orphan(leg);
	if (!leg->recovering)
		leg->side->tick(leg);
	leg_due(leg);
}
