/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Cancelling: one switch that ends every blocking call of a piece of work, whatever it blocks in.
 *
 * Laws
 *  1. Fired once, never unfired; whoever registers later is called at once.
 *  2. What blocks in poll() has cancel_fd() in its set; what blocks elsewhere registers a function that interrupts it.
 *  3. Registered functions do not block and do not call back into this module.
 */
#ifndef DROVER_LEG_CANCEL_H
#define DROVER_LEG_CANCEL_H

#include <stdbool.h>

#include "common/err.h"

#define CANCEL_ENTRIES_MAX 128 /* sources, sinks and copies of LIMIT_DISKS disks, and some */

struct cancel;

struct cancel *cancel_new(struct err *err);
void cancel_free(struct cancel *cancel); /* NULL is fine; nobody may wait on it any more */

/* Any thread. */
void cancel_fire(struct cancel *cancel);
bool cancel_fired(const struct cancel *cancel);
/* Readable once fired. Never read it. */
int cancel_fd(const struct cancel *cancel);

/* Has `fn(ctx)` called when fired. ERR_INTERNAL if there are too many. */
int cancel_add(struct cancel *cancel, void (*fn)(void *ctx), void *ctx, struct err *err);
/* When it returns, fn is not running and will not be called. Not registered: nothing happens. */
void cancel_remove(struct cancel *cancel, void (*fn)(void *ctx), const void *ctx);

/* Waits until one of `events` is on fd. 1: it is, 0: the time is over, -1: ERR_CANCELLED or ERR_IO.
 * fd -1: only waits. timeout_ms -1: for ever. `cancel` may be NULL. */
int cancel_poll(const struct cancel *cancel, int fd, short events, int timeout_ms, struct err *err);

#endif
