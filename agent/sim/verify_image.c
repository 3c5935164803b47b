/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verify: every write that a disk acknowledged is on the image of the host that owns the guest; nothing else is. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/sim/verify_world.h"
#include "common/proc.h"

#define CHUNK_BLOCKS 256u
#define CONVERT_MS 600000u
#define STILL_MS 1500 /* a guest that does not tick for so long does not run */
#define LOOK_MS 20
#define TORN_TRIES 20 /* a block is read while the backend writes it */

struct scan {
	struct verify *verify;
	const struct verify_guest *guest;
	const struct verify_disk *disk;
	unsigned index; /* of the disk in the pattern */
	int fd;
	uint64_t *last; /* tick that wrote each block last, up to `tick` */
	uint64_t blocks;
	uint64_t tick;     /* acknowledged */
	uint64_t forgiven; /* ticks after this one may be lost: a power cut */
	uint64_t lost, lost_block, foreign, foreign_block, early, early_block;
	uint64_t lost_tick, found_tick;
};

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void note_lost(struct scan *scan, uint64_t block, uint64_t found)
{
	if (scan->last[block] > scan->forgiven)
		return;
	if (scan->lost++ == 0) {
		scan->lost_block = block;
		scan->lost_tick = scan->last[block];
		scan->found_tick = found;
	}
}

/* Something must be there: written, or filled at tick 0. */
static bool is_due(const struct scan *scan, uint64_t block)
{
	return scan->last[block] > 0 || pattern_block_filled(&scan->guest->pattern, scan->index, block);
}

static bool tick_writes(const struct scan *scan, uint64_t tick, uint64_t block)
{
	uint64_t count = pattern_block_count(&scan->guest->pattern, tick);
	for (uint64_t k = 0; k < count; k++) {
		unsigned disk;
		uint64_t at;
		pattern_block_at(&scan->guest->pattern, tick, k, &disk, &at);
		if (disk == scan->index && at == block)
			return true;
	}
	return false;
}

/* Whole and ours: the content of the tick that it says. */
static bool is_whole(const struct scan *scan, const uint64_t *words, uint64_t block, uint64_t *ret_tick)
{
	uint64_t expected[PATTERN_WORDS];
	if (!pattern_block_tick(&scan->guest->pattern, words, scan->index, block, ret_tick))
		return false;
	pattern_block(&scan->guest->pattern, *ret_tick, scan->index, block, expected);
	return memcmp(words, expected, PATTERN_PAGE_BYTES) == 0;
}

static void judge_block(struct scan *scan, uint64_t block, uint64_t *words)
{
	uint64_t tick = 0;
	if (pattern_is_zero(words)) {
		if (is_due(scan, block))
			note_lost(scan, block, 0);
		return;
	}
	/* one that is being written right now is read again */
	for (unsigned tries = 0; !is_whole(scan, words, block, &tick); tries++) {
		struct timespec pause = { .tv_nsec = 1000000 };
		if (tries == TORN_TRIES) {
			scan->foreign_block = scan->foreign++ == 0 ? block : scan->foreign_block;
			return;
		}
		nanosleep(&pause, NULL);
		if (pread(scan->fd, words, PATTERN_PAGE_BYTES, (off_t)(block * PATTERN_PAGE_BYTES)) !=
		    PATTERN_PAGE_BYTES)
			return;
	}
	if (tick < scan->last[block]) {
		note_lost(scan, block, tick);
	} else if (tick > scan->last[block]) {
		/* newer than what was acknowledged when we looked: then that tick must be one that writes here, and
		 * have come */
		if (tick <= scan->tick || !tick_writes(scan, tick, block) ||
		    tick > verify_tick_now(scan->verify, scan->guest) + 1)
			scan->early_block = scan->early++ == 0 ? block : scan->early_block;
	} else if (tick == 0 && !is_due(scan, block)) {
		scan->foreign_block = scan->foreign++ == 0 ? block : scan->foreign_block;
	}
}

static void judge_hole(struct scan *scan, uint64_t from, uint64_t to)
{
	for (uint64_t block = from; block < to && block < scan->blocks; block++) {
		uint64_t words[PATTERN_WORDS] = { 0 };
		if (!is_due(scan, block))
			continue;
		/* it may have been filled since the hole was seen */
		if (pread(scan->fd, words, sizeof(words), (off_t)(block * PATTERN_PAGE_BYTES)) == sizeof(words))
			judge_block(scan, block, words);
	}
}

static int judge_data(struct scan *scan, uint64_t from, uint64_t to, unsigned char *buffer)
{
	while (from < to) {
		uint64_t count = to - from < CHUNK_BLOCKS ? to - from : CHUNK_BLOCKS;
		ssize_t got = pread(scan->fd, buffer, count * PATTERN_PAGE_BYTES, (off_t)(from * PATTERN_PAGE_BYTES));
		if (got < (ssize_t)(count * PATTERN_PAGE_BYTES))
			return -1;
		for (uint64_t i = 0; i < count; i++)
			judge_block(scan, from + i, (uint64_t *)(void *)(buffer + i * PATTERN_PAGE_BYTES));
		scan->verify->bytes += (uint64_t)got;
		from += count;
	}
	return 0;
}

static int scan_file(struct scan *scan)
{
	unsigned char *buffer = malloc((size_t)CHUNK_BLOCKS * PATTERN_PAGE_BYTES);
	off_t end = (off_t)(scan->blocks * PATTERN_PAGE_BYTES), at = 0;
	int result = buffer != NULL ? 0 : -1;
	while (result == 0 && at < end) {
		off_t data = lseek(scan->fd, at, SEEK_DATA);
		if (data < 0 || data > end)
			data = end;
		off_t hole = data < end ? lseek(scan->fd, data, SEEK_HOLE) : end;
		if (hole <= data || hole > end)
			hole = end;
		uint64_t first = (uint64_t)data / PATTERN_PAGE_BYTES;
		uint64_t last = ((uint64_t)hole + PATTERN_PAGE_BYTES - 1) / PATTERN_PAGE_BYTES;
		judge_hole(scan, (uint64_t)at / PATTERN_PAGE_BYTES, first);
		if (data < end)
			result = judge_data(scan, first, last, buffer);
		at = (off_t)(last * PATTERN_PAGE_BYTES);
		if (data >= end)
			at = end;
	}
	free(buffer);
	return result;
}

static void report(struct scan *scan)
{
	const char *guest = scan->guest->guest, *disk = scan->disk->name;
	if (scan->lost > 0)
		verify_fault(scan->verify,
		             "guest %s disk %s: %" PRIu64 " acknowledged writes are lost, the first is block %" PRIu64
		             " of tick %" PRIu64 " (there is tick %" PRIu64 ") in %s",
		             guest, disk, scan->lost, scan->lost_block, scan->lost_tick, scan->found_tick,
		             scan->disk->path);
	if (scan->foreign > 0)
		verify_fault(scan->verify,
		             "guest %s disk %s: %" PRIu64
		             " blocks hold what the guest never wrote, the first is block %" PRIu64 " in %s",
		             guest, disk, scan->foreign, scan->foreign_block, scan->disk->path);
	if (scan->early > 0)
		verify_fault(scan->verify,
		             "guest %s disk %s: %" PRIu64
		             " blocks hold a tick that did not write there, the first is block %" PRIu64 " in %s",
		             guest, disk, scan->early, scan->early_block, scan->disk->path);
}

/* Raw images are read as they are, through the same page cache as the backend's writes; qcow2 is converted to a sparse
 * copy under `copy`. Returns a descriptor. */
static int open_image(const struct verify_disk *disk, char *copy, struct err *err)
{
	if (!disk->qcow2)
		return open(disk->path, O_RDONLY | O_CLOEXEC);
	const char *tmp = getenv("TMPDIR");
	snprintf(copy, VERIFY_PATH, "%s/drover-verify-XXXXXX", tmp != NULL ? tmp : "/tmp");
	int fd = mkstemp(copy);
	if (fd < 0)
		return -1;
	const char *argv[] = { "qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", disk->path, copy, NULL };
	if (proc_run(argv, NULL, NULL, NULL, CONVERT_MS, err) != 0) {
		unlink(copy);
		close(fd);
		return -1;
	}
	return fd;
}

/* All disks' last ticks in one walk. */
static void walk(const struct verify_guest *guest, uint64_t tick, uint64_t **last)
{
	for (uint64_t t = 1; t <= tick; t++) {
		uint64_t count = pattern_block_count(&guest->pattern, t);
		for (uint64_t k = 0; k < count; k++) {
			unsigned disk;
			uint64_t block;
			pattern_block_at(&guest->pattern, t, k, &disk, &block);
			last[disk][block] = t;
		}
	}
}

static void judge_disk(struct verify *verify, const struct verify_guest *guest, unsigned index, uint64_t *last,
                       uint64_t tick)
{
	struct err err = { 0 };
	char copy[VERIFY_PATH] = "";
	struct stat st;
	const struct verify_disk *disk = NULL;
	for (unsigned i = 0; i < guest->record->disk_count; i++)
		if (strcmp(guest->record->disks[i].name, guest->disks[index]) == 0)
			disk = &guest->record->disks[i];
	if (disk == NULL) {
		verify_fault(verify, "guest %s: disk %s is missing on %s", guest->guest, guest->disks[index],
		             guest->owner->name);
		return;
	}
	struct scan scan = { .verify = verify,
		             .guest = guest,
		             .disk = disk,
		             .index = index,
		             .last = last,
		             .tick = tick,
		             .blocks = guest->pattern.blocks[index],
		             .forgiven = UINT64_MAX };
	if (guest->owner->power_cut && !guest->record->guest_alive)
		scan.forgiven = tick > PATTERN_REDO_TICKS ? tick - PATTERN_REDO_TICKS : 0;
	scan.fd = open_image(disk, copy, &err);
	if (scan.fd < 0) {
		verify_fault(verify, "guest %s disk %s: %s cannot be read: %s", guest->guest, disk->name, disk->path,
		             err.code != ERR_NONE ? err.text : strerror(errno));
		return;
	}
	if (fstat(scan.fd, &st) != 0 || (uint64_t)st.st_size != scan.blocks * PATTERN_PAGE_BYTES)
		verify_fault(verify, "guest %s disk %s: %s has not the size of the disk", guest->guest, disk->name,
		             disk->path);
	else if (scan_file(&scan) != 0)
		verify_fault(verify, "guest %s disk %s: %s cannot be read", guest->guest, disk->name, disk->path);
	report(&scan);
	close(scan.fd);
	if (copy[0] != '\0')
		unlink(copy);
}

/* A backend keeps metadata of qcow2 to itself until the guest flushes: of what was acknowledged up to now, all is in
 * the file once the guest has run for two more flushes. One that does not tick has flushed already. */
static void wait_for_flush(const struct verify *verify, const struct verify_guest *guest)
{
	bool qcow2 = false;
	for (unsigned i = 0; i < guest->record->disk_count; i++)
		qcow2 = qcow2 || guest->record->disks[i].qcow2;
	if (!qcow2 || !guest->record->guest_alive)
		return;
	uint64_t wanted = guest->last_tick + 2 * PATTERN_CHECK_TICKS + 1, before = 0;
	int64_t moved_ms = now_ms(), still_ms = STILL_MS + 30 * (int64_t)guest->pattern.tick_ms;
	for (;;) {
		uint64_t tick = verify_tick_now(verify, guest);
		if (tick != before)
			moved_ms = now_ms();
		if (tick >= wanted || now_ms() - moved_ms > still_ms)
			return;
		before = tick;
		struct timespec pause = { .tv_nsec = LOOK_MS * 1000000 };
		nanosleep(&pause, NULL);
	}
}

int verify_images(struct verify *verify, struct err *err)
{
	for (size_t i = 0; i < verify->guest_count; i++) {
		const struct verify_guest *guest = &verify->guests[i];
		uint64_t *last[PATTERN_DISKS] = { 0 };
		bool enough = true;
		if (guest->destroyed || guest->record == NULL || guest->pattern.disks == 0)
			continue;
		const unsigned disks = guest->pattern.disks;
		for (unsigned disk = 0; disk < disks; disk++) {
			last[disk] = calloc(guest->pattern.blocks[disk] + 1, sizeof(uint64_t));
			enough = enough && last[disk] != NULL;
		}
		if (enough) {
			walk(guest, guest->last_tick, last);
			wait_for_flush(verify, guest);
			for (unsigned disk = 0; disk < disks; disk++)
				judge_disk(verify, guest, disk, last[disk], guest->last_tick);
		}
		for (unsigned disk = 0; disk < disks; disk++)
			free(last[disk]);
		if (!enough)
			return err_set(err, ERR_NO_MEMORY, "no memory for the blocks of guest %s", guest->guest);
	}
	return 0;
}
