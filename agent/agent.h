/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent of a host: a shell round agent/core and the journal. One event loop; nothing in it blocks. It talks to the
 * coordinator, keeps the inventory, starts legs and finds them again; it can be killed at any instruction.
 */
#ifndef DROVER_AGENT_H
#define DROVER_AGENT_H

#include "agent/agent_conf.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/paths.h"

struct agent;

/* Takes the home's lock (ERR_BUSY: another agent runs there), opens the journal, picks up its sessions and connects.
 * Everything else happens in the loop. `conf` and `paths` are copied. */
int agent_new(struct agent **ret_agent, struct loop *loop, const struct paths *paths, const struct agent_conf *conf,
              struct err *err);
/* It has ended itself, because its journal is damaged; the log says so. */
bool agent_failed(const struct agent *agent);
/* Lets go of everything; legs live on. */
void agent_free(struct agent *agent);

#endif
