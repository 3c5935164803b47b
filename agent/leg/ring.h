/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A bounded byte pipe between two threads: memory frames in, the hypervisor's reads out. */
#ifndef DROVER_LEG_RING_H
#define DROVER_LEG_RING_H

#include <stddef.h>

#include "common/err.h"

struct ring;

struct ring *ring_new(size_t bytes, struct err *err);
void ring_free(struct ring *ring);
/* Blocks while it is full. -1: ERR_CANCELLED after ring_break(). */
int ring_write(struct ring *ring, const void *bytes, size_t count, struct err *err);
/* Blocks until count bytes are there. -1: ERR_CANCELLED, or ERR_PEER_LOST when it has ended before. */
int ring_read(struct ring *ring, void *bytes, size_t count, struct err *err);
/* No more will be written: readers get what is in it, then the end. */
void ring_end(struct ring *ring);
/* Both sides are woken and get ERR_CANCELLED from here on. Any thread. */
void ring_break(void *ring);

#endif
