/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The worker: tick by tick. And the ledger. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "agent/sim/guest.h"
#include "common/clock.h"
#include "common/log.h"

#define NS_PER_MS 1000000
#define NS_PER_S 1000000000
#define LINE_BYTES (LIMIT_NAME + 80)

static uint64_t *page_of(struct guest *guest, uint64_t page)
{
	return (uint64_t *)(void *)(guest->memory + page * PATTERN_PAGE_BYTES);
}

static void write_memory(struct guest *guest, uint64_t tick)
{
	uint64_t count = pattern_page_count(&guest->pattern, tick);
	for (uint64_t k = count; k-- > 0;) { /* page 0, with the tick counter, last */
		uint64_t page = pattern_page_at(&guest->pattern, tick, k);
		pattern_page(&guest->pattern, tick, page, page_of(guest, page));
		/* Page, then flag, then bit. Reading the flag is a read-modify-write, as is setting it: when this one
		 * comes first, whoever sets the flag sees the page. Whoever takes the bit sees it as well. */
		if (atomic_fetch_or(&guest->log_on, 0) != 0)
			atomic_fetch_or(&guest->bitmap[page / 64], UINT64_C(1) << (page % 64));
	}
}

/* Sum over what is really in the memory. Holes are zero pages, which add nothing. */
static uint64_t checksum(struct guest *guest)
{
	off_t end = (off_t)guest->record.memory_bytes, at = 0;
	uint64_t sum = 0;
	while (at < end) {
		off_t data = lseek(guest->memory_fd, at, SEEK_DATA);
		if (data < 0)
			break;
		off_t hole = lseek(guest->memory_fd, data, SEEK_HOLE);
		uint64_t last = ((uint64_t)(hole > data ? hole : end) + PATTERN_PAGE_BYTES - 1) / PATTERN_PAGE_BYTES;
		for (uint64_t page = (uint64_t)data / PATTERN_PAGE_BYTES; page < last; page++)
			sum += pattern_page_hash(page_of(guest, page), page);
		at = (off_t)(last * PATTERN_PAGE_BYTES);
	}
	return sum;
}

int guest_rebuild(struct guest *guest, uint64_t tick, struct err *err)
{
	uint64_t *last = calloc(guest->pattern.pages, sizeof(*last));
	if (last == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory to boot %s", guest->record.name);
	for (uint64_t t = 1; t <= tick; t++) {
		uint64_t count = pattern_page_count(&guest->pattern, t);
		for (uint64_t k = 0; k < count; k++)
			last[pattern_page_at(&guest->pattern, t, k)] = t;
	}
	for (uint64_t page = 0; page < guest->pattern.pages; page++)
		if (last[page] > 0 || pattern_page_filled(&guest->pattern, page))
			pattern_page(&guest->pattern, last[page], page, page_of(guest, page));
	free(last);
	return 0;
}

static void ledger_path(const struct guest *guest, char *ret_path, size_t room)
{
	/* beside etc, lib and run; without a home, with the other things that last */
	snprintf(ret_path, room, "%s/ledger", guest->paths.home[0] != '\0' ? guest->paths.home : guest->paths.lib);
}

int guest_ledger_last(const struct guest *guest, uint64_t *ret_tick, struct err *err)
{
	char path[PATHS_MAX + 8], line[LINE_BYTES], name[LIMIT_NAME];
	uint64_t last = 0, tick;
	ledger_path(guest, path, sizeof(path));
	FILE *file = fopen(path, "re");
	if (file == NULL && errno != ENOENT)
		return err_errno(err, ERR_IO, errno, "open %s", path);
	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "%63s %" SCNu64, name, &tick) == 2 && strcmp(name, guest->record.guest) == 0 &&
		    tick > last)
			last = tick;
	if (file != NULL)
		fclose(file);
	*ret_tick = last;
	return 0;
}

int guest_ledger_open(struct guest *guest, struct err *err)
{
	char path[PATHS_MAX + 8];
	ledger_path(guest, path, sizeof(path));
	guest->ledger_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	return guest->ledger_fd >= 0 ? 0 : err_errno(err, ERR_IO, errno, "open %s", path);
}

static int ledger_write(struct guest *guest, uint64_t tick, struct err *err)
{
	char line[LINE_BYTES], sum[24] = "-";
	if (tick % PATTERN_CHECK_TICKS == 0)
		snprintf(sum, sizeof(sum), "%016" PRIx64, checksum(guest));
	int bytes = snprintf(line, sizeof(line), "%s %" PRIu64 " %" PRId64 " %s\n", guest->record.guest, tick,
	                     clock_real.now_ns(&clock_real), sum);
	if (write(guest->ledger_fd, line, (size_t)bytes) != bytes) /* one write: a line is there or is not */
		return err_errno(err, ERR_IO, errno, "write the ledger");
	return 0;
}

static int run_tick(struct guest *guest, uint64_t tick, struct err *err)
{
	write_memory(guest, tick);
	if (guest_disks_write(guest, tick, err) != 0)
		return -1;
	if (tick % PATTERN_CHECK_TICKS == 0 && guest_disks_flush_begin(guest, err) != 0)
		return -1;
	if (ledger_write(guest, tick, err) != 0)
		return -1;
	atomic_store(&guest->tick, tick);
	return 0;
}

static int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* Under the lock, which is let go of for the flush; false: the guest has failed. All that was asked for before is done.
 */
static bool flush_unlocked(struct guest *guest)
{
	struct err err = { 0 };
	uint64_t wanted = guest->flushes_wanted;
	pthread_mutex_unlock(&guest->lock);
	int flushed = guest_disks_flush(guest, &err);
	pthread_mutex_lock(&guest->lock);
	if (flushed != 0) {
		log_error("guest=%s flush: %s", guest->record.name, err.text);
		guest->state = GUEST_FAILED;
	} else {
		guest->flushes_done = wanted;
	}
	pthread_cond_broadcast(&guest->changed);
	return flushed == 0;
}

/* Under the lock. A wish may be taken back during the flush. */
static void stop_at_boundary(struct guest *guest)
{
	if (flush_unlocked(guest) && guest->want_suspend)
		guest->state = GUEST_SUSPENDED;
	guest->want_suspend = false;
	pthread_cond_broadcast(&guest->changed);
}

/* Waits until the next tick is due; false: the worker is to end. Ticks are late when they must be, never skipped, and
 * what is late is not caught up with in a burst. */
static bool wait_for_tick(struct guest *guest, int64_t *due_ns)
{
	bool go = false;
	pthread_mutex_lock(&guest->lock);
	while (!guest->want_end) {
		int64_t now = now_ns();
		if (guest->flushes_done < guest->flushes_wanted &&
		    (guest->state == GUEST_RUNNING || guest->state == GUEST_SUSPENDED)) {
			flush_unlocked(guest); /* for others, who wait for it */
		} else if (guest->state != GUEST_RUNNING) {
			*due_ns = 0;
			pthread_cond_wait(&guest->changed, &guest->lock);
		} else if (guest->want_suspend) {
			stop_at_boundary(guest);
		} else if (now >= *due_ns) {
			int64_t step = (int64_t)guest->record.tick_ms * NS_PER_MS * 100 /
			               (100 - (int64_t)guest->throttle_percent);
			*due_ns = now - *due_ns > step ? now + step : *due_ns + step;
			go = true;
			break;
		} else {
			struct timespec until = { .tv_sec = *due_ns / NS_PER_S, .tv_nsec = *due_ns % NS_PER_S };
			pthread_cond_timedwait(&guest->changed, &guest->lock, &until);
		}
	}
	pthread_mutex_unlock(&guest->lock);
	return go;
}

static void *work(void *ctx)
{
	struct guest *guest = ctx;
	struct err err = { 0 };
	int64_t due_ns = 0;
	while (wait_for_tick(guest, &due_ns)) {
		if (run_tick(guest, atomic_load(&guest->tick) + 1, &err) == 0)
			continue;
		log_error("guest=%s tick=%" PRIu64 " failed: %s", guest->record.name, atomic_load(&guest->tick) + 1,
		          err.text);
		pthread_mutex_lock(&guest->lock);
		guest->state = GUEST_FAILED;
		pthread_cond_broadcast(&guest->changed);
		pthread_mutex_unlock(&guest->lock);
	}
	if (guest_disks_flush(guest, &err) != 0)
		log_error("guest=%s last flush: %s", guest->record.name, err.text);
	return NULL;
}

int guest_worker_start(struct guest *guest, struct err *err)
{
	int failed = pthread_create(&guest->worker, NULL, work, guest);
	if (failed != 0)
		return err_errno(err, ERR_INTERNAL, failed, "start the worker");
	guest->worker_started = true;
	return 0;
}
