/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside the codec: memory for one message, given back all at once, with a cap. A hostile frame can make protobuf-c
 * allocate many times its own size; here that ends at the cap, before the machine notices.
 */
#ifndef DROVER_CODEC_ARENA_H
#define DROVER_CODEC_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_chunk;

struct arena {
	struct arena_chunk *chunks; /* newest first */
	size_t left_bytes;          /* in the newest */
	size_t cost_bytes;          /* heap of all chunks */
	size_t limit_bytes;         /* on that */
	bool refused;               /* the cap was reached */
	bool out_of_memory;         /* malloc() failed */
};

/* Zeroes nothing; aligned for any type. NULL, and `refused` or `out_of_memory` set, if there is none. */
void *arena_alloc(struct arena *arena, size_t bytes);
/* Gives back everything. */
void arena_free(struct arena *arena);

#endif
