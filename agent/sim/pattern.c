/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/sim/pattern.h"

#include <string.h>
#include <xxhash.h>

#define MAGIC_PAGE UINT64_C(0x64726f7665726d31)  /* "droverm1" */
#define MAGIC_BLOCK UINT64_C(0x64726f7665726431) /* "droverd1" */
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)
#define HOT_PART 8   /* the hot region is one eighth */
#define HOT_IN_TEN 9 /* of ten page writes so many are hot */
#define HOT_BLOCKS_IN_TEN 7
#define DISK_SHIFT 48 /* disk number in a block's address word */

/* Kinds of streams, so that none is the shift of another. */
enum stream {
	STREAM_PAGE_PLACE = 1,
	STREAM_BLOCK_PLACE,
	STREAM_PAGE,
	STREAM_BLOCK,
	STREAM_FILL_PAGE,
	STREAM_FILL_BLOCK
};

/* The finisher of splitmix64. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static uint64_t draw(const struct pattern *pattern, enum stream stream, uint64_t tick, uint64_t address)
{
	uint64_t x = mix(pattern->seed + GOLDEN * (uint64_t)stream);
	x = mix(x + GOLDEN * tick);
	return mix(x + GOLDEN * address);
}

/* 0 <= result < range, from the high bits of a draw. */
static uint64_t scale(uint64_t drawn, uint64_t range)
{
	return (uint64_t)(((unsigned __int128)drawn * range) >> 64);
}

/* Whole pages due by the end of a tick at this rate: no rounding is ever lost. */
static uint64_t due(uint64_t bps, uint32_t tick_ms, uint64_t tick)
{
	return (uint64_t)((unsigned __int128)bps * tick_ms * tick / (1000u * (uint64_t)PATTERN_PAGE_BYTES));
}

static uint64_t hot(uint64_t count)
{
	return count / HOT_PART > 0 ? count / HOT_PART : 1;
}

uint64_t pattern_page_count(const struct pattern *pattern, uint64_t tick)
{
	if (tick == 0)
		return 0;
	return 1 + due(pattern->dirty_bps, pattern->tick_ms, tick) -
	       due(pattern->dirty_bps, pattern->tick_ms, tick - 1);
}

uint64_t pattern_page_at(const struct pattern *pattern, uint64_t tick, uint64_t k)
{
	if (k == 0)
		return 0;
	uint64_t drawn = draw(pattern, STREAM_PAGE_PLACE, tick, k);
	uint64_t range = drawn % 10 < HOT_IN_TEN ? hot(pattern->pages) : pattern->pages;
	return scale(mix(drawn), range);
}

uint64_t pattern_block_count(const struct pattern *pattern, uint64_t tick)
{
	if (tick == 0 || pattern->disks == 0)
		return 0;
	return due(pattern->write_bps, pattern->tick_ms, tick) - due(pattern->write_bps, pattern->tick_ms, tick - 1);
}

void pattern_block_at(const struct pattern *pattern, uint64_t tick, uint64_t k, unsigned *ret_disk, uint64_t *ret_block)
{
	uint64_t drawn = draw(pattern, STREAM_BLOCK_PLACE, tick, k);
	unsigned disk = (unsigned)scale(drawn, pattern->disks);
	uint64_t blocks = pattern->blocks[disk];
	uint64_t range = drawn % 10 < HOT_BLOCKS_IN_TEN ? hot(blocks) : blocks;
	*ret_disk = disk;
	*ret_block = scale(mix(drawn), range);
}

bool pattern_page_filled(const struct pattern *pattern, uint64_t page)
{
	return pattern->fill_percent != 0 && draw(pattern, STREAM_FILL_PAGE, 0, page) % 100 < pattern->fill_percent;
}

bool pattern_block_filled(const struct pattern *pattern, unsigned disk, uint64_t block)
{
	uint64_t address = (uint64_t)disk << DISK_SHIFT | block;
	return pattern->fill_percent != 0 && draw(pattern, STREAM_FILL_BLOCK, 0, address) % 100 < pattern->fill_percent;
}

static void content(const struct pattern *pattern, enum stream stream, uint64_t magic, uint64_t tick, uint64_t address,
                    uint64_t *ret_words)
{
	uint64_t base = draw(pattern, stream, tick, address);
	ret_words[0] = magic;
	ret_words[1] = pattern->seed;
	ret_words[2] = tick;
	ret_words[3] = address;
	for (unsigned i = 4; i < PATTERN_WORDS; i++)
		ret_words[i] = mix(base + GOLDEN * i);
}

void pattern_page(const struct pattern *pattern, uint64_t tick, uint64_t page, uint64_t *ret_words)
{
	content(pattern, STREAM_PAGE, MAGIC_PAGE, tick, page, ret_words);
}

void pattern_block(const struct pattern *pattern, uint64_t tick, unsigned disk, uint64_t block, uint64_t *ret_words)
{
	content(pattern, STREAM_BLOCK, MAGIC_BLOCK, tick, (uint64_t)disk << DISK_SHIFT | block, ret_words);
}

bool pattern_page_tick(const struct pattern *pattern, const uint64_t *words, uint64_t page, uint64_t *ret_tick)
{
	if (words[0] != MAGIC_PAGE || words[1] != pattern->seed || words[3] != page)
		return false;
	*ret_tick = words[2];
	return true;
}

bool pattern_block_tick(const struct pattern *pattern, const uint64_t *words, unsigned disk, uint64_t block,
                        uint64_t *ret_tick)
{
	if (words[0] != MAGIC_BLOCK || words[1] != pattern->seed || words[3] != ((uint64_t)disk << DISK_SHIFT | block))
		return false;
	*ret_tick = words[2];
	return true;
}

bool pattern_is_zero(const uint64_t *words)
{
	return words[0] == 0 && memcmp(words, words + 1, PATTERN_PAGE_BYTES - sizeof(words[0])) == 0;
}

uint64_t pattern_page_hash(const uint64_t *words, uint64_t page)
{
	return pattern_is_zero(words) ? 0 : XXH3_64bits_withSeed(words, PATTERN_PAGE_BYTES, page);
}
