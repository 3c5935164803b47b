/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a simulated guest writes: where and with which content, as a pure function of (guest, tick, address). The only
 * file that the guest and `verify` share. No I/O, no clock, no heap, no globals.
 *
 * Laws
 *  1. Tick 0 is the fill that a guest starts with; ticks that run count from 1.
 *  2. Every tick writes page 0. Every page and block starts with four words: magic, guest seed, tick, address.
 *  3. Most writes go to a hot eighth at the front, some anywhere, so that copying pass by pass means something.
 */
#ifndef DROVER_PATTERN_H
#define DROVER_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#define PATTERN_PAGE_BYTES 4096u /* a memory page and a disk block */
#define PATTERN_WORDS (PATTERN_PAGE_BYTES / 8)
#define PATTERN_DISKS 16         /* writable disks of one guest */
#define PATTERN_CHECK_TICKS 100u /* memory is checksummed and a flush of the disks is begun that often */
#define PATTERN_REDO_TICKS \
	(3 * PATTERN_CHECK_TICKS) /* after a power cut a boot writes the blocks of so many ticks again */

struct pattern {
	uint64_t seed;
	uint64_t pages;
	uint32_t tick_ms;
	uint64_t dirty_bps, write_bps; /* memory, all disks together */
	uint32_t fill_percent;         /* of pages and blocks that are not zero at tick 0 */
	unsigned disks;                /* writable ones, in the order of the record */
	uint64_t blocks[PATTERN_DISKS];
};

/* How many pages tick writes (page 0 included; one page may come twice), and the k-th of them. */
uint64_t pattern_page_count(const struct pattern *pattern, uint64_t tick);
uint64_t pattern_page_at(const struct pattern *pattern, uint64_t tick, uint64_t k);
/* The same for disk blocks. */
uint64_t pattern_block_count(const struct pattern *pattern, uint64_t tick);
void pattern_block_at(const struct pattern *pattern, uint64_t tick, uint64_t k, unsigned *ret_disk,
                      uint64_t *ret_block);
/* Whether it is filled at tick 0. */
bool pattern_page_filled(const struct pattern *pattern, uint64_t page);
bool pattern_block_filled(const struct pattern *pattern, unsigned disk, uint64_t block);

/* The content: PATTERN_PAGE_BYTES into ret_words (aligned to 8). */
void pattern_page(const struct pattern *pattern, uint64_t tick, uint64_t page, uint64_t *ret_words);
void pattern_block(const struct pattern *pattern, uint64_t tick, unsigned disk, uint64_t block, uint64_t *ret_words);
/* Reads the tick out of such a content; false if the words at its front are not ours. */
bool pattern_page_tick(const struct pattern *pattern, const uint64_t *words, uint64_t page, uint64_t *ret_tick);
bool pattern_block_tick(const struct pattern *pattern, const uint64_t *words, unsigned disk, uint64_t block,
                        uint64_t *ret_tick);

/* What a page adds to the checksum of a memory: 0 if it is all zero, else its XXH3-64 with the page number as seed. The
 * checksum is the sum over all pages, modulo 2^64. */
uint64_t pattern_page_hash(const uint64_t *words, uint64_t page);
bool pattern_is_zero(const uint64_t *words);

#endif
