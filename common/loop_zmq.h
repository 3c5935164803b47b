/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What common/loop.c offers to common/bus.c alone: ZeroMQ sockets in the loop. */
#ifndef DROVER_LOOP_ZMQ_H
#define DROVER_LOOP_ZMQ_H

#include "common/err.h"
#include "common/loop.h"

/* The ZeroMQ context of this loop, made on first use and ended by loop_free(): one a process, for its life (libsodium's
 * state is shared by all contexts). NULL and err on failure. Sockets must be closed before loop_free(). */
void *loop_zmq(struct loop *loop, struct err *err);

/* Calls fn while the raw ZeroMQ socket has something to read. Remove it here before it is closed. */
int loop_zmq_socket(struct loop *loop, void *socket, loop_fn fn, void *ctx, struct err *err);
void loop_zmq_socket_end(struct loop *loop, void *socket);

#endif
