/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/codec_arena.h"

#include <stdlib.h>

#define ARENA_CHUNK_BYTES 8192 /* a usual message fits one */
#define ARENA_ALIGN 16

struct arena_chunk {
	struct arena_chunk *next;
	size_t bytes;
	_Alignas(ARENA_ALIGN) unsigned char data[];
};

void *arena_alloc(struct arena *arena, size_t bytes)
{
	if (bytes > arena->limit_bytes) {
		arena->refused = true;
		return NULL;
	}
	size_t need = bytes == 0 ? ARENA_ALIGN : (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
	if (need > arena->left_bytes) {
		size_t room = need > ARENA_CHUNK_BYTES ? need : ARENA_CHUNK_BYTES;
		size_t cost = room + sizeof(struct arena_chunk);
		if (cost > arena->limit_bytes - arena->cost_bytes) {
			arena->refused = true;
			return NULL;
		}
		struct arena_chunk *chunk = malloc(cost);
		if (chunk == NULL) {
			arena->out_of_memory = true;
			return NULL;
		}
		chunk->next = arena->chunks;
		chunk->bytes = room;
		arena->chunks = chunk;
		arena->left_bytes = room;
		arena->cost_bytes += cost;
	}
	void *place = arena->chunks->data + (arena->chunks->bytes - arena->left_bytes);
	arena->left_bytes -= need;
	return place;
}

void arena_free(struct arena *arena)
{
	while (arena->chunks != NULL) {
		struct arena_chunk *chunk = arena->chunks;
		arena->chunks = chunk->next;
		free(chunk);
	}
	arena->left_bytes = 0;
	arena->cost_bytes = 0;
}
