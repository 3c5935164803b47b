/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Layout: block 0 holds the newest record, blocks 1 to RING the newest of each beat modulo RING, what follows is data.
 * Every block says what it is, who wrote it and how often, and has a checksum: this boot knows from memory what must be
 * there, a later one can still tell whole blocks from torn ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "pattern.h"
#include "work.h"

#define RING 63u
#define DATA_FIRST (RING + 1)
#define CHUNK_BLOCKS 16u /* written with one request */
#define CHUNK_BYTES ((size_t)CHUNK_BLOCKS * WORK_PAGE)
#define SURVEY_BLOCKS 128u
#define STEP_NS 50000000l
#define MAGIC 0x62616c2d72766f72u

enum block_kind { BLOCK_RECORD = 1, BLOCK_DATA };

struct block {
	uint64_t magic, kind, boot, where;
	uint64_t number; /* records: the beat; data: the generation */
	uint64_t checksum;
	uint64_t body[WORK_PAGE / sizeof(uint64_t) - 6];
};
_Static_assert(sizeof(struct block) == WORK_PAGE, "a block is a page");

static uint64_t checksum_of(const struct block *block)
{
	return pattern_seed(block->boot ^ block->kind, block->where, block->number);
}

static void block_make(struct block *block, enum block_kind kind, uint64_t boot, uint64_t where, uint64_t number)
{
	*block = (struct block) { .magic = MAGIC, .kind = kind, .boot = boot, .where = where, .number = number };
	block->checksum = checksum_of(block);
	pattern_fill(block->body, sizeof(block->body) / sizeof(block->body[0]), block->checksum);
}

/* Whole, and meant for this place; whoever wrote it. */
static int block_sound(const struct block *block, uint64_t where)
{
	return block->magic == MAGIC && block->where == where && block->checksum == checksum_of(block) &&
	       pattern_is(block->body, sizeof(block->body) / sizeof(block->body[0]), block->checksum);
}

static int block_is(const struct block *block, enum block_kind kind, uint64_t boot, uint64_t where, uint64_t number)
{
	return block_sound(block, where) && block->kind == kind && block->boot == boot && block->number == number;
}

static int transfer(struct disk *disk, int fd, void *buffer, size_t bytes, uint64_t where, int write)
{
	off_t at = (off_t)(where * WORK_PAGE);
	ssize_t moved = write ? pwrite(fd, buffer, bytes, at) : pread(fd, buffer, bytes, at);
	if (moved == (ssize_t)bytes)
		return 0;
	atomic_fetch_add(&disk->failed, 1);
	return -1;
}

/* Reads all blocks that are used: what an earlier boot has left. */
static int survey(struct disk *disk)
{
	static const struct block nothing;
	struct block *chunk = aligned_alloc(WORK_PAGE, (size_t)SURVEY_BLOCKS * WORK_PAGE);
	if (chunk == NULL)
		return -1;
	uint64_t end = DATA_FIRST + disk->blocks;
	for (uint64_t where = 0; where < end; where += SURVEY_BLOCKS) {
		uint64_t count = end - where < SURVEY_BLOCKS ? end - where : SURVEY_BLOCKS;
		if (transfer(disk, disk->data_fd, chunk, count * WORK_PAGE, where, 0) != 0)
			continue;
		for (uint64_t i = 0; i < count; i++) {
			if (memcmp(&chunk[i], &nothing, sizeof(nothing)) == 0)
				continue;
			disk->found_blocks++;
			if (!block_sound(&chunk[i], where + i))
				disk->found_torn++;
			else if (chunk[i].kind == BLOCK_RECORD && where + i == 0)
				disk->found_record = chunk[i].number;
		}
	}
	free(chunk);
	return 0;
}

int disk_open(struct disk *disk, const char *name, uint64_t boot, uint64_t span_bytes, uint64_t rate_bytes)
{
	char path[32];
	uint64_t bytes = 0;
	memset(disk, 0, sizeof(*disk));
	disk->boot = boot;
	disk->rate_bytes = rate_bytes;
	snprintf(disk->name, sizeof(disk->name), "%s", name);
	snprintf(path, sizeof(path), "/dev/%s", name);
	/* Past the page cache: what is read comes from the disk, not from what this guest remembers of it. */
	disk->data_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	disk->record_fd = open(path, O_RDWR | O_DIRECT | O_SYNC | O_CLOEXEC);
	if (disk->data_fd < 0 || disk->record_fd < 0 || ioctl(disk->data_fd, BLKGETSIZE64, &bytes) != 0)
		return -1;
	if (span_bytes > 0 && span_bytes < bytes)
		bytes = span_bytes;
	if (bytes < (DATA_FIRST + CHUNK_BLOCKS) * WORK_PAGE) {
		errno = ENOSPC;
		return -1;
	}
	disk->blocks = (bytes / WORK_PAGE - DATA_FIRST) / CHUNK_BLOCKS * CHUNK_BLOCKS;
	disk->generation = calloc(disk->blocks, sizeof(disk->generation[0]));
	return disk->generation == NULL ? -1 : survey(disk);
}

/* Whether a chunk is as this boot has left it; false too if it cannot be read. */
static int chunk_check(struct disk *disk, struct block *chunk, uint64_t first)
{
	int all = 1;
	if (transfer(disk, disk->data_fd, chunk, CHUNK_BYTES, DATA_FIRST + first, 0) != 0)
		return 0;
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
		if (disk->generation[first + i] != 0 &&
		    !block_is(&chunk[i], BLOCK_DATA, disk->boot, DATA_FIRST + first + i, disk->generation[first + i])) {
			atomic_fetch_add(&disk->wrong, 1);
			all = 0;
		}
	return all;
}

static void chunk_write(struct disk *disk, struct block *chunk, uint64_t first)
{
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
		block_make(&chunk[i], BLOCK_DATA, disk->boot, DATA_FIRST + first + i, disk->generation[first + i] + 1u);
	int failed = transfer(disk, disk->data_fd, chunk, CHUNK_BYTES, DATA_FIRST + first, 1);
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
		disk->generation[first + i] = failed ? 0 : disk->generation[first + i] + 1u;
	if (!failed)
		atomic_fetch_add(&disk->wrote_bytes, CHUNK_BYTES);
}

static void *worker(void *ctx)
{
	struct disk *disk = ctx;
	struct block *chunk = aligned_alloc(WORK_PAGE, CHUNK_BYTES);
	const struct timespec step = { .tv_nsec = STEP_NS };
	uint64_t chunks = disk->blocks / CHUNK_BLOCKS, draw = disk->boot, budget_bytes = 0;
	if (chunk == NULL)
		return NULL;
	for (;;) {
		for (budget_bytes += disk->rate_bytes * STEP_NS / 1000000000u; budget_bytes >= CHUNK_BYTES;
		     budget_bytes -= CHUNK_BYTES) {
			draw = pattern_mix(draw);
			uint64_t first = draw % chunks * CHUNK_BLOCKS;
			chunk_check(disk, chunk, first);
			chunk_write(disk, chunk, first);
		}
		chunk_check(disk, chunk, disk->check_next * CHUNK_BLOCKS);
		disk->check_next = (disk->check_next + 1) % chunks;
		clock_nanosleep(CLOCK_MONOTONIC, 0, &step, NULL);
	}
}

int disk_start(struct disk *disk)
{
	pthread_t thread;
	errno = pthread_create(&thread, NULL, worker, disk);
	return errno == 0 ? 0 : -1;
}

void disk_record(struct disk *disk, uint64_t beat)
{
	static _Alignas(WORK_PAGE) struct block block;
	uint64_t places[] = { 1 + disk->last_record % RING, 0 };
	for (unsigned i = 0; i < 2 && disk->last_record > 0; i++)
		if (transfer(disk, disk->record_fd, &block, WORK_PAGE, places[i], 0) == 0 &&
		    !block_is(&block, BLOCK_RECORD, disk->boot, places[i], disk->last_record))
			atomic_fetch_add(&disk->wrong, 1);
	uint64_t failed = atomic_load(&disk->failed);
	places[0] = 1 + beat % RING;
	for (unsigned i = 0; i < 2; i++) {
		block_make(&block, BLOCK_RECORD, disk->boot, places[i], beat);
		(void)transfer(disk, disk->record_fd, &block, WORK_PAGE, places[i], 1);
	}
	/* After a write that was refused nobody knows what is there. The worker's failures are taken for ours: that
	 * only leaves one check out. */
	disk->last_record = atomic_load(&disk->failed) == failed ? beat : 0;
}
