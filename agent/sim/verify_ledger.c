/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verify: ticks in order, each once, on one host at a time; memory as the content function says. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/sim/verify_world.h"

#define NS_PER_MS 1e6

static int by_tick(const void *a, const void *b)
{
	const struct verify_line *x = a, *y = b;
	if (x->tick != y->tick)
		return x->tick < y->tick ? -1 : 1;
	return x->at_ns < y->at_ns ? -1 : x->at_ns > y->at_ns;
}

static int by_time(const void *a, const void *b)
{
	const struct verify_line *x = a, *y = b;
	if (x->at_ns != y->at_ns)
		return x->at_ns < y->at_ns ? -1 : 1;
	return x->tick < y->tick ? -1 : x->tick > y->tick;
}

static const char *host_of(const struct verify *verify, const struct verify_line *line)
{
	return verify->hosts[line->host].name;
}

/* In the order of time ticks must grow. Two hosts that run a guest at once make them jump back and forth. */
static void judge_time(struct verify *verify, struct verify_guest *guest)
{
	qsort(guest->lines, guest->line_count, sizeof(*guest->lines), by_time);
	uint64_t faults = 0;
	const struct verify_line *first = NULL;
	for (size_t i = 1; i < guest->line_count; i++) {
		const struct verify_line *before = &guest->lines[i - 1], *line = &guest->lines[i];
		if (line->tick <= before->tick) {
			first = faults++ == 0 ? line : first;
			continue;
		}
		double gap_ms = (double)(line->at_ns - before->at_ns) / NS_PER_MS;
		if (gap_ms > guest->gap_ms)
			guest->gap_ms = gap_ms;
		if (line->host != before->host && gap_ms > guest->move_gap_ms)
			guest->move_gap_ms = gap_ms;
	}
	if (faults > 0)
		verify_fault(verify,
		             "guest %s: ran in two places at once or went back: tick %" PRIu64
		             " on %s came after tick %" PRIu64 " on %s (%" PRIu64 " times)",
		             guest->guest, first->tick, host_of(verify, first), (first - 1)->tick,
		             host_of(verify, first - 1), faults);
}

/* Runs of faults in one line. */
static void judge_ticks(struct verify *verify, struct verify_guest *guest)
{
	uint64_t expected = 1, twice_from = 0, twice = 0;
	const struct verify_line *other = NULL, *before = NULL;
	qsort(guest->lines, guest->line_count, sizeof(*guest->lines), by_tick);
	for (size_t i = 0; i < guest->line_count; i++) {
		const struct verify_line *line = &guest->lines[i];
		if (before != NULL && line->tick == before->tick) {
			if (twice++ == 0) {
				twice_from = line->tick;
				other = line;
			}
			continue;
		}
		if (line->tick > expected)
			verify_fault(verify,
			             "guest %s: ticks %" PRIu64 " to %" PRIu64 " were left out (before tick %" PRIu64
			             " on %s)",
			             guest->guest, expected, line->tick - 1, line->tick, host_of(verify, line));
		expected = line->tick + 1;
		before = line;
	}
	if (twice > 0)
		verify_fault(verify,
		             "guest %s: %" PRIu64 " ticks were run twice, the first is tick %" PRIu64 " (%s and %s)",
		             guest->guest, twice, twice_from, host_of(verify, other - 1), host_of(verify, other));
}

void verify_ledgers(struct verify *verify)
{
	for (size_t i = 0; i < verify->guest_count; i++) {
		if (verify->guests[i].line_count == 0)
			continue;
		judge_time(verify, &verify->guests[i]);
		judge_ticks(verify, &verify->guests[i]);
	}
}

/* The memory of a guest, as hashes, tick by tick. */
struct replay {
	const struct pattern *pattern;
	uint64_t *hashes;  /* of each page as it is */
	uint64_t *pending; /* tick that wrote it last and is not hashed yet; 0: none */
	uint64_t *pages;   /* those that are pending */
	uint64_t page_count, page_room;
	uint64_t sum;
};

static void set_page(struct replay *replay, uint64_t tick, uint64_t page)
{
	uint64_t words[PATTERN_WORDS];
	pattern_page(replay->pattern, tick, page, words);
	uint64_t hash = pattern_page_hash(words, page);
	replay->sum += hash - replay->hashes[page];
	replay->hashes[page] = hash;
}

static int replay_tick(struct replay *replay, uint64_t tick)
{
	uint64_t count = pattern_page_count(replay->pattern, tick);
	for (uint64_t k = 0; k < count; k++) {
		uint64_t page = pattern_page_at(replay->pattern, tick, k);
		if (replay->pending[page] == 0) {
			if (replay->page_count == replay->page_room) {
				replay->page_room = replay->page_room * 2 + 1024;
				uint64_t *grown = realloc(replay->pages, replay->page_room * sizeof(*grown));
				if (grown == NULL)
					return -1;
				replay->pages = grown;
			}
			replay->pages[replay->page_count++] = page;
		}
		replay->pending[page] = tick;
	}
	return 0;
}

static void settle(struct replay *replay)
{
	for (uint64_t i = 0; i < replay->page_count; i++) {
		uint64_t page = replay->pages[i];
		set_page(replay, replay->pending[page], page);
		replay->pending[page] = 0;
	}
	replay->page_count = 0;
}

static int judge_memory(struct verify *verify, struct verify_guest *guest, struct replay *replay)
{
	uint64_t tick = 0, wrong = 0, first = 0, missing = 0;
	const struct verify_line *where = NULL;
	for (uint64_t page = 0; page < guest->pattern.pages; page++)
		if (pattern_page_filled(&guest->pattern, page))
			set_page(replay, 0, page);
	for (size_t i = 0; i < guest->line_count; i++) {
		const struct verify_line *line = &guest->lines[i];
		bool due = line->tick % PATTERN_CHECK_TICKS == 0;
		if (due != line->has_sum)
			missing++;
		if (!line->has_sum)
			continue;
		for (; tick < line->tick; tick++)
			if (replay_tick(replay, tick + 1) != 0)
				return -1;
		settle(replay);
		guest->checksums++;
		if (line->sum != replay->sum && wrong++ == 0) {
			first = line->tick;
			where = line;
		}
	}
	if (missing > 0)
		verify_fault(verify,
		             "guest %s: %" PRIu64 " ticks have no checksum where one is due, or one where none is",
		             guest->guest, missing);
	if (wrong > 0)
		verify_fault(verify,
		             "guest %s: memory was not what the ticks wrote: checksum of tick %" PRIu64
		             " on %s is wrong (%" PRIu64 " of %" PRIu64 " are)",
		             guest->guest, first, host_of(verify, where), wrong, guest->checksums);
	return 0;
}

/* After verify_ledgers(), which sorts the lines. */
int verify_checksums(struct verify *verify, struct err *err)
{
	int result = 0;
	for (size_t i = 0; i < verify->guest_count && result == 0; i++) {
		struct verify_guest *guest = &verify->guests[i];
		struct replay replay = { .pattern = &guest->pattern };
		if (guest->line_count == 0)
			continue;
		replay.hashes = calloc(guest->pattern.pages, sizeof(*replay.hashes));
		replay.pending = calloc(guest->pattern.pages, sizeof(*replay.pending));
		if (replay.hashes == NULL || replay.pending == NULL || judge_memory(verify, guest, &replay) != 0)
			result = err_set(err, ERR_NO_MEMORY, "no memory to replay guest %s", guest->guest);
		free(replay.hashes);
		free(replay.pending);
		free(replay.pages);
	}
	return result;
}
