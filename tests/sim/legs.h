/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the simulated legs share. */
#ifndef DROVER_SIM_LEGS_H
#define DROVER_SIM_LEGS_H

#define control_send leg_control_send /* the agent has one too; see sim.mk */

#include "agent/leg/dest.h"
#include "agent/leg/leg.h"
#include "agent/leg/source.h"
#include "tests/sim/world.h"

#define JOB_AGAIN 1 /* what a job returns that has to wait: it is called again */

/* Where a copy stands, of either side. */
struct copy {
	int step;
	int64_t deadline_us;
	unsigned passes;
	bool first;
	struct shipment shipments[GUEST_DISKS];
	unsigned arrived; /* shipments of this pass */
	struct err failure;
	unsigned peer_pid; /* the other leg, and where it is */
	struct machine *peer_machine;
	/* destination */
	bool serving, ended;
	uint64_t memory_tick;
};

/* A leg process: production's leg, with this world's process round it. */
struct sim_leg {
	struct leg leg;
	struct proc *proc;
	struct copy copy;
	unsigned port;
	int64_t wait_us; /* of the job that returned JOB_AGAIN */
	int agent_fd;    /* -1: none */
	bool listening;
	int64_t line_at_us; /* when the line for votes is looked after next */
	char fingerprint[LIMIT_ID], expected[LIMIT_ID];
};
static inline struct sim_leg *sim_leg_of(struct leg *leg)
{
	return (struct sim_leg *)leg; /* its first member */
}
struct sim_leg *sim_leg_find(unsigned pid);
struct sim_leg *sim_leg_at(const char *endpoint); /* who listens there; NULL: nobody */

/* ---- wire.c ---- */
/* Connects two legs: each has its end as stream 0, or (`line`) as the line for votes. */
void wire_connect(struct sim_leg *source, struct sim_leg *dest, bool line);
bool wire_is_up(struct leg *leg);
/* What voteline_tick() does, once a second. */
void wire_tend_line(struct sim_leg *self);

#endif
