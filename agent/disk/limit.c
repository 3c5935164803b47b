/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Token bucket. Whoever comes while there is credit goes, and may bring the account below zero; the next one waits
 * until it is paid off. So a request may be bigger than the bucket, and the long-term rate holds.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "agent/disk/limit.h"

#define LIMIT_BURST_MS 100 /* credit that idle time can bring */
#define LIMIT_BURST_BYTES 65536
#define LIMIT_SLICE_MS 50 /* how soon a stopped stream notices; others are woken */
#define LIMIT_RATE_MAX ((uint64_t)1 << 40)

struct disk_limit {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int64_t rate;    /* bytes a second, 0: none */
	int64_t credit;  /* bytes; may be below zero */
	int64_t paid_us; /* credit is counted up to here */
	bool cancelled, lifted;
};

static int64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

struct disk_limit *disk_limit_new(uint64_t bytes_per_second)
{
	struct disk_limit *limit = calloc(1, sizeof(*limit));
	pthread_condattr_t attributes;
	if (!limit)
		return NULL;
	limit->rate = (int64_t)(bytes_per_second > LIMIT_RATE_MAX ? LIMIT_RATE_MAX : bytes_per_second);
	limit->credit = limit->rate * LIMIT_BURST_MS / 1000;
	limit->paid_us = now_us();
	pthread_mutex_init(&limit->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&limit->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	return limit;
}

void disk_limit_free(struct disk_limit *limit)
{
	if (!limit)
		return;
	pthread_cond_destroy(&limit->changed);
	pthread_mutex_destroy(&limit->lock);
	free(limit);
}

static void pay(struct disk_limit *limit)
{
	int64_t now = now_us(), elapsed = now - limit->paid_us, most = limit->rate * LIMIT_BURST_MS / 1000;
	int64_t earned = (elapsed > 1000000 ? 1000000 : elapsed) * limit->rate / 1000000;
	if (earned <= 0)
		return; /* less than a byte: wait on, and do not lose the time */
	limit->paid_us = now;
	limit->credit += earned;
	if (most < LIMIT_BURST_BYTES)
		most = LIMIT_BURST_BYTES;
	if (limit->credit > most)
		limit->credit = most;
}

static void wait_slice(struct disk_limit *limit)
{
	struct timespec until;
	int64_t wait_us = -limit->credit * 1000000 / limit->rate + 1;
	if (limit->credit < -limit->rate || wait_us > LIMIT_SLICE_MS * 1000)
		wait_us = LIMIT_SLICE_MS * 1000;
	int64_t at = now_us() + wait_us;
	until.tv_sec = at / 1000000;
	until.tv_nsec = at % 1000000 * 1000;
	pthread_cond_timedwait(&limit->changed, &limit->lock, &until);
}

int disk_limit_take_until(struct disk_limit *limit, uint64_t bytes, const _Atomic bool *stop)
{
	int result;
	if (!limit)
		return 0;
	pthread_mutex_lock(&limit->lock);
	for (;;) {
		if (limit->cancelled || (stop && atomic_load(stop))) {
			result = -1;
			break;
		}
		result = 0;
		if (limit->lifted || limit->rate == 0)
			break;
		pay(limit);
		if (limit->credit > 0) {
			limit->credit -= (int64_t)(bytes > LIMIT_RATE_MAX ? LIMIT_RATE_MAX : bytes);
			break;
		}
		wait_slice(limit);
	}
	pthread_mutex_unlock(&limit->lock);
	return result;
}

int disk_limit_take(struct disk_limit *limit, uint64_t bytes)
{
	return disk_limit_take_until(limit, bytes, NULL);
}

static void set_and_wake(struct disk_limit *limit, bool *flag)
{
	pthread_mutex_lock(&limit->lock);
	*flag = true;
	pthread_cond_broadcast(&limit->changed);
	pthread_mutex_unlock(&limit->lock);
}

void disk_limit_cancel(struct disk_limit *limit)
{
	set_and_wake(limit, &limit->cancelled);
}

void disk_limit_lift(struct disk_limit *limit)
{
	set_and_wake(limit, &limit->lifted);
}
