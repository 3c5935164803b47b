/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The line for votes: stream 0 once more, for facts only, after it broke or the leg was started again in the middle of
 * a switchover. With it both hosts come to the verdict even if nobody hears of the coordinator (V9).
 *
 * Laws
 *  1. The same certificates as for the copy: what was announced for this migration, kept in run/ (0600) until the leg
 *     ends. A host that was booted again has lost its own, and with it this line: then the votes go by the coordinator.
 *  2. The source calls, the destination answers, at the endpoint of the copy. Nothing but facts is taken.
 */
#ifndef DROVER_LEG_VOTELINE_H
#define DROVER_LEG_VOTELINE_H

#include "agent/leg/leg.h"

/* Main thread: starts the line when it is due, ends it when it is not needed any more. Does not block. */
void voteline_tick(struct leg *leg);
/* Destination, in the thread of a connection that has proven who it is: it becomes the line, whatever was there before.
 * Takes `conn` if it returns 0. */
int voteline_adopt(struct leg *leg, struct tls_conn *conn);
/* Ends and frees it. NULL is fine. Before the sides are freed. */
void voteline_free(struct voteline *line);

#endif
