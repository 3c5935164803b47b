/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/ring.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct ring {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	size_t room, first, count;
	bool ended, broken;
	unsigned char *bytes;
};

struct ring *ring_new(size_t bytes, struct err *err)
{
	struct ring *ring = calloc(1, sizeof(*ring));
	unsigned char *room = malloc(bytes);
	if (!ring || !room) {
		free(ring);
		free(room);
		err_set(err, ERR_NO_MEMORY, "buffer");
		return NULL;
	}
	ring->bytes = room;
	ring->room = bytes;
	pthread_mutex_init(&ring->lock, NULL);
	pthread_cond_init(&ring->moved, NULL);
	return ring;
}

void ring_free(struct ring *ring)
{
	if (!ring)
		return;
	pthread_mutex_destroy(&ring->lock);
	pthread_cond_destroy(&ring->moved);
	free(ring->bytes);
	free(ring);
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

int ring_write(struct ring *ring, const void *bytes, size_t count, struct err *err)
{
	const unsigned char *from = bytes;
	int rc = 0;
	pthread_mutex_lock(&ring->lock);
	while (count && !ring->broken) {
		size_t at = (ring->first + ring->count) % ring->room;
		size_t n = least(count, least(ring->room - ring->count, ring->room - at));
		if (!n) {
			pthread_cond_wait(&ring->moved, &ring->lock);
			continue;
		}
		memcpy(ring->bytes + at, from, n);
		from += n;
		count -= n;
		ring->count += n;
		pthread_cond_broadcast(&ring->moved);
	}
	if (ring->broken)
		rc = err_set(err, ERR_CANCELLED, "cancelled");
	pthread_mutex_unlock(&ring->lock);
	return rc;
}

int ring_read(struct ring *ring, void *bytes, size_t count, struct err *err)
{
	unsigned char *to = bytes;
	int rc = 0;
	pthread_mutex_lock(&ring->lock);
	while (count && !ring->broken) {
		size_t n = least(count, least(ring->count, ring->room - ring->first));
		if (!n && ring->ended)
			break;
		if (!n) {
			pthread_cond_wait(&ring->moved, &ring->lock);
			continue;
		}
		memcpy(to, ring->bytes + ring->first, n);
		to += n;
		count -= n;
		ring->first = (ring->first + n) % ring->room;
		ring->count -= n;
		pthread_cond_broadcast(&ring->moved);
	}
	if (ring->broken)
		rc = err_set(err, ERR_CANCELLED, "cancelled");
	else if (count)
		rc = err_set(err, ERR_PEER_LOST, "the memory stream ended too early");
	pthread_mutex_unlock(&ring->lock);
	return rc;
}

void ring_end(struct ring *ring)
{
	pthread_mutex_lock(&ring->lock);
	ring->ended = true;
	pthread_cond_broadcast(&ring->moved);
	pthread_mutex_unlock(&ring->lock);
}

void ring_break(void *arg)
{
	struct ring *ring = arg;
	pthread_mutex_lock(&ring->lock);
	ring->broken = true;
	pthread_cond_broadcast(&ring->moved);
	pthread_mutex_unlock(&ring->lock);
}
