/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands and facts on their way to a host. */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "coordinator/coordinator_room.h"

static void fill_copy(const struct run *run, enum side side, struct msg_command *command)
{
	const struct store_party *peer = &run->rec.party[side == SIDE_SOURCE];
	(void)snprintf(command->peer_fingerprint, sizeof(command->peer_fingerprint), "%s", peer->fingerprint);
	if (side == SIDE_SOURCE)
		(void)snprintf(command->peer_endpoint, sizeof(command->peer_endpoint), "%s", peer->endpoint);
}

static void fill_abort(const struct run *run, struct msg_command *command)
{
	command->reason = run->rec.core.cause != ERR_NONE ? run->rec.core.cause : ERR_PEER_LOST;
	(void)snprintf(command->reason_text, sizeof(command->reason_text), "%s", run->rec.cause_text);
}

void run_send_command(struct coordinator *c, struct run *run, enum side side)
{
	struct pending *pending = &run->pending[side == SIDE_DESTINATION];
	struct host *host = host_find(c, run_host(&run->rec, side));
	struct msg msg = coordinator_msg(c, MSG_COMMAND);
	struct msg_command *command = &msg.u.command;
	msg.migration = run->rec.id;
	msg.generation = run->rec.generation;
	msg.sequence = pending->sequence;
	command->step = pending->step;
	command->side = side;
	if (pending->step == STEP_CHECK || pending->step == STEP_PREPARE)
		command->plan = &run->plan;
	else if (pending->step == STEP_COPY)
		fill_copy(run, side, command);
	else if (pending->step == STEP_ABORT)
		fill_abort(run, command);
	/* Not sent is the same as lost: it is sent again. */
	int sent = host_send(c, host, &msg);
	log_info("event=command migration=%llu host=%s side=%s step=%s sequence=%llu try=%u sent=%s",
	         (unsigned long long)run->rec.id, run_host(&run->rec, side), side_name(side), step_name(pending->step),
	         (unsigned long long)pending->sequence, pending->tries + 1, sent == 0 ? "yes" : "no");
}

void run_tell_facts(struct coordinator *c, struct run *run, enum side side)
{
	struct msg msg = coordinator_msg(c, MSG_FACTS);
	msg.migration = run->rec.id;
	msg.generation = run->rec.generation;
	msg.u.facts = run->rec.core.facts;
	(void)host_send(c, host_find(c, run_host(&run->rec, side)), &msg);
}
