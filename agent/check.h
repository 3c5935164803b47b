/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pre-checks: what must be true on a host before a migration may begin. They change nothing. */
#ifndef DROVER_AGENT_CHECK_H
#define DROVER_AGENT_CHECK_H

#include "agent/agent_conf.h"
#include "proto/msg.h"

/* What the checks look at. */
struct check_world {
	const struct agent_conf *conf;
	const struct msg_inventory *inventory; /* fresh, amounts after claims; NULL: there is none */
	const struct err *inventory_err;       /* why not */
	const struct err *leg_err;             /* NULL: the leg program is there */
	const char *busy;                      /* another session has this VM or its name: which; NULL: none */
	const struct err *reserve_err;         /* why the journal has no reserve; ERR_NONE: it has */
	const char *path;                      /* where programs are looked for, as in $PATH */
	uint64_t reusable_bytes[LIMIT_DISKS];  /* D: what an earlier copy of each disk of the plan takes already */
};

/* Fills ret_checks (room for LIMIT_CHECKS) with every check, good and bad. Returns how many. *ret_refusal gets code and
 * words of the first one that failed, ERR_NONE if all is well. Looks at the file system for programs, else pure. */
uint32_t check_run(const struct check_world *world, enum side side, const struct msg_plan *plan,
                   struct msg_check *ret_checks, struct err *ret_refusal);

#endif
