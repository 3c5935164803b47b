/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The leg's side of run/leg-N.sock: unix, SEQPACKET, one encoded `struct msg` a packet, one agent at a time (a new
 * connection replaces the old), who must have our uid. Nothing here blocks.
 */
#ifndef DROVER_LEG_CONTROL_H
#define DROVER_LEG_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/paths.h"
#include "proto/msg.h"

struct control;

/* Binds (0600) and listens; a socket that a dead leg left is replaced. */
int control_open(struct control **ret_control, const struct paths *paths, uint64_t migration, struct err *err);
void control_close(struct control *control); /* removes the socket */

int control_listen_fd(const struct control *control);
int control_fd(const struct control *control); /* of the agent's connection; -1: none */

/* Takes a new connection if there is one; true: an agent (another one) is connected now. */
bool control_accept(struct control *control);
/* 1: *ret_msg is the caller's (msg_free), 0: nothing there, -1: the agent is gone (or sent garbage and was dropped). */
int control_read(struct control *control, struct msg *ret_msg);
/* False: it did not go (no agent, or it does not read). One that `matters` drops the connection then: the agent
 * connects again and is told everything anew. */
bool control_send(struct control *control, const struct msg *msg, bool matters);

#endif
