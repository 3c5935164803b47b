/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/explore/search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define RULES_MAX 255
#define ROUNDS_MAX 100 /* steps done at once, one after the other */

/* A set of byte strings of one length, each with a number. */
struct set {
	size_t bytes;
	unsigned char *items;
	uint32_t count, room;
	uint32_t *slots;
	uint32_t slot_count; /* a power of two */
};

struct search {
	struct set parts[PARTS], states;
	uint32_t states_max;
	const struct step_rule *rules[RULES_MAX];
	unsigned rule_count;
	const struct step_rule *eager[RULES_MAX];
	unsigned eager_count;
	uint64_t used[RULES_MAX];
	uint32_t *parent;
	unsigned char *by; /* rule */
	uint32_t room;
	bool rest;
	/* calm steps: of state n those from begin[n] to begin[n + 1] */
	uint32_t *calm;
	uint64_t *begin;
	uint64_t calm_count, calm_room;
};

static void *grow(void *old, size_t count, size_t bytes)
{
	void *bigger = reallocarray(old, count, bytes);
	if (!bigger) {
		fprintf(stderr, "explore: no memory\n");
		exit(2);
	}
	return bigger;
}

/* ---- sets ---- */

static uint64_t hash(const unsigned char *bytes, size_t count)
{
	uint64_t h = 0x9e3779b97f4a7c15U, word;
	for (size_t at = 0; at < count; at += sizeof(word)) {
		size_t n = count - at < sizeof(word) ? count - at : sizeof(word);
		word = 0;
		memcpy(&word, bytes + at, n);
		h = (h ^ word) * 0xff51afd7ed558ccdU;
		h ^= h >> 32;
	}
	return h ^ h >> 29;
}

static void set_init(struct set *set, size_t bytes)
{
	*set = (struct set) { .bytes = bytes, .slot_count = 1U << 12 };
	set->slots = grow(NULL, set->slot_count, sizeof(*set->slots));
	memset(set->slots, 0xff, set->slot_count * sizeof(*set->slots));
}

static void set_free(struct set *set)
{
	free(set->items);
	free(set->slots);
}

static const unsigned char *set_get(const struct set *set, uint32_t number)
{
	return set->items + (size_t)number * set->bytes;
}

static uint32_t *set_slot(const struct set *set, const unsigned char *item)
{
	uint32_t at = (uint32_t)hash(item, set->bytes) & (set->slot_count - 1);
	while (set->slots[at] != NONE && memcmp(set_get(set, set->slots[at]), item, set->bytes) != 0)
		at = (at + 1) & (set->slot_count - 1);
	return &set->slots[at];
}

static void set_widen(struct set *set)
{
	set->slot_count *= 2;
	set->slots = grow(set->slots, set->slot_count, sizeof(*set->slots));
	memset(set->slots, 0xff, set->slot_count * sizeof(*set->slots));
	for (uint32_t n = 0; n < set->count; n++)
		*set_slot(set, set_get(set, n)) = n;
}

/* Its number; *ret_fresh: it was not there before. */
static uint32_t set_add(struct set *set, const unsigned char *item, bool *ret_fresh)
{
	uint32_t *slot = set_slot(set, item);
	*ret_fresh = *slot == NONE;
	if (*slot != NONE)
		return *slot;
	if (set->count == set->room) {
		set->room = set->room ? set->room + set->room / 2 : 1024;
		set->items = grow(set->items, set->room, set->bytes);
	}
	memcpy(set->items + (size_t)set->count * set->bytes, item, set->bytes);
	*slot = set->count++;
	uint32_t number = *slot;
	if (set->count > set->slot_count / 4 * 3)
		set_widen(set);
	return number;
}

/* ---- states ---- */

static void load(const struct search *search, uint32_t state, struct world *ret_world)
{
	uint32_t numbers[PARTS];
	memcpy(numbers, set_get(&search->states, state), sizeof(numbers));
	memset(ret_world, 0, sizeof(*ret_world));
	for (int part = 0; part < PARTS; part++)
		unpack(ret_world, part, set_get(&search->parts[part], numbers[part]));
}

/* Whether a part was not touched on the way from a to b. */
static bool untouched(const struct world *a, const struct world *b, int part)
{
	switch (part) {
	case 0:
		return memcmp(&a->c, &b->c, sizeof(a->c)) == 0;
	case 1:
		return memcmp(&a->h[S], &b->h[S], sizeof(a->h[S])) == 0;
	case 2:
		return memcmp(&a->h[D], &b->h[D], sizeof(a->h[D])) == 0;
	default:
		return memcmp(&a->o, &b->o, sizeof(a->o)) == 0;
	}
}

/* The number of w. `from`, with its numbers, is where it came from; NULL: nowhere. */
static uint32_t save(struct search *search, const struct world *w, const struct world *from,
                     const uint32_t from_numbers[PARTS], bool *ret_fresh)
{
	uint32_t numbers[PARTS];
	unsigned char bytes[PART_BYTES];
	bool fresh;
	memcpy(numbers, from_numbers, sizeof(numbers));
	for (int part = 0; part < PARTS; part++) {
		if (from && untouched(from, w, part))
			continue;
		pack(w, part, bytes);
		numbers[part] = set_add(&search->parts[part], bytes, &fresh);
	}
	return set_add(&search->states, (const unsigned char *)numbers, ret_fresh);
}

static void note(struct search *search, uint32_t state, uint32_t parent, unsigned rule)
{
	if (state >= search->room) {
		search->room = search->room ? search->room + search->room / 2 : 1024;
		search->parent = grow(search->parent, search->room, sizeof(*search->parent));
		search->by = grow(search->by, search->room, sizeof(*search->by));
		if (search->rest)
			search->begin = grow(search->begin, search->room + 1U, sizeof(*search->begin));
	}
	search->parent[state] = parent;
	search->by[state] = (unsigned char)rule;
}

static void note_calm(struct search *search, uint32_t to)
{
	if (search->calm_count == search->calm_room) {
		search->calm_room = search->calm_room ? search->calm_room + search->calm_room / 2 : 4096;
		search->calm = grow(search->calm, search->calm_room, sizeof(*search->calm));
	}
	search->calm[search->calm_count++] = to;
}

/* ---- the search ---- */

static bool affordable(const struct world *w, enum when when)
{
	return when == CALM || (when == NUISANCE && w->o.nuisances > 0) || (when == FAULT && w->o.faults > 0);
}

/* What is done as soon as it is possible. */
static void settle(struct search *search, struct world *w)
{
	bool moved = true;
	for (unsigned round = 0; moved; round++) {
		moved = false;
		for (unsigned n = 0; n < search->eager_count && !moved; n++) {
			const struct step_rule *rule = search->eager[n];
			moved = rule->take(w, rule->i, rule->arg);
		}
		if (round == ROUNDS_MAX) {
			fprintf(stderr, "explore: %s has no end\n", "what is done at once");
			abort();
		}
	}
}

/* False: a law is broken. */
static bool expand(struct search *search, uint32_t state, struct search_result *result)
{
	struct world here, next;
	uint32_t numbers[PARTS];
	bool taken = true;
	load(search, state, &here);
	memcpy(numbers, set_get(&search->states, state), sizeof(numbers));
	for (unsigned n = 0; n < search->rule_count; n++) {
		const struct step_rule *rule = search->rules[n];
		bool fresh;
		if (taken)
			next = here;
		taken = affordable(&here, rule->when) && rule->take(&next, rule->i, rule->arg);
		if (!taken)
			continue;
		next.o.faults -= rule->when == FAULT;
		next.o.nuisances -= rule->when == NUISANCE;
		settle(search, &next);
		uint32_t to = save(search, &next, &here, numbers, &fresh);
		if (to == state && !next.broken)
			continue;
		result->steps++;
		search->used[n]++;
		if (search->rest && rule->when == CALM)
			note_calm(search, to);
		if (fresh)
			note(search, to, state, n);
		const char *law = law_broken(&here, &next);
		if (!law)
			continue;
		result->law = law;
		result->at = state;
		result->by = rule->name;
		result->broken = next;
		return false;
	}
	return true;
}

/* Backwards from where it may rest, over calm steps. */
static void find_stuck(struct search *search, struct search_result *result)
{
	uint32_t count = search->states.count;
	bool *good = grow(NULL, count, sizeof(*good)), changed = true;
	struct world w;
	for (uint32_t n = 0; n < count; n++) {
		load(search, n, &w);
		good[n] = law_at_rest(&w);
	}
	while (changed) {
		changed = false;
		for (uint32_t n = count; n-- > 0;) {
			bool was = good[n];
			for (uint64_t at = search->begin[n]; !good[n] && at < search->begin[n + 1]; at++)
				good[n] = good[search->calm[at]];
			changed |= good[n] != was;
		}
	}
	for (uint32_t n = count; n-- > 0;)
		if (!good[n]) {
			result->stuck++;
			result->stuck_at = n;
		}
	free(good);
}

unsigned search_unused(const struct search *search, const char *names[], unsigned room)
{
	unsigned count = 0;
	for (unsigned n = 0; n < search->rule_count; n++)
		if (search->used[n] == 0 && count < room)
			names[count++] = search->rules[n]->name;
	return count;
}

void search_run(struct search *search, const struct world *first, bool (*until)(const struct world *w),
                struct search_result *ret_result)
{
	const uint32_t none[PARTS] = { 0 };
	bool fresh;
	uint32_t level_end = 1;
	struct world w;
	*ret_result = (struct search_result) { .whole = true };
	note(search, save(search, first, NULL, none, &fresh), NONE, 0);
	for (uint32_t n = 0; n < search->states.count; n++) {
		if (n == level_end) {
			ret_result->depth++;
			level_end = search->states.count;
		}
		load(search, n, &w);
		if (until && until(&w)) {
			ret_result->found = w;
			ret_result->whole = false;
			break;
		}
		if (search->rest)
			search->begin[n] = search->calm_count;
		if (!expand(search, n, ret_result))
			break;
		if (search->states.count > search->states_max) {
			ret_result->whole = false;
			break;
		}
		if (search->rest)
			search->begin[n + 1] = search->calm_count;
	}
	ret_result->states = search->states.count;
	if (search->rest && ret_result->whole && !ret_result->law)
		find_stuck(search, ret_result);
}

/* Whether one of the words of `only`, with bars between them, is in the name. */
static bool is_one_of(const char *name, const char *only)
{
	char words[256], *rest = NULL;
	if (only[0] == '\0')
		return true;
	snprintf(words, sizeof(words), "%s", only);
	for (char *word = strtok_r(words, "|", &rest); word; word = strtok_r(NULL, "|", &rest))
		if (strstr(name, word))
			return true;
	return false;
}

struct search *search_new(uint32_t states_max, bool rest, const char *only)
{
	struct search *search = grow(NULL, 1, sizeof(*search));
	*search = (struct search) { .states_max = states_max, .rest = rest };
	for (int part = 0; part < PARTS; part++)
		set_init(&search->parts[part], PART_BYTES);
	set_init(&search->states, PARTS * sizeof(uint32_t));
	for (int list = 0; step_rules[list]; list++)
		for (const struct step_rule *rule = step_rules[list]; rule->name; rule++) {
			if (search->rule_count == RULES_MAX || search->eager_count == RULES_MAX)
				abort();
			if (rule->when == EAGER)
				search->eager[search->eager_count++] = rule;
			else if (rule->when == CALM || is_one_of(rule->name, only))
				search->rules[search->rule_count++] = rule;
		}
	return search;
}

void search_free(struct search *search)
{
	for (int part = 0; part < PARTS; part++)
		set_free(&search->parts[part]);
	set_free(&search->states);
	free(search->parent);
	free(search->by);
	free(search->calm);
	free(search->begin);
	free(search);
}

static uint32_t trace(const struct search *search, uint32_t state)
{
	static const uint32_t longest = 1000;
	uint32_t way[1000], count = 0;
	char text[1024];
	struct world w;
	for (uint32_t at = state; at != NONE && count < longest; at = search->parent[at])
		way[count++] = at;
	uint32_t n = 0;
	while (count-- > 0) {
		load(search, way[count], &w);
		describe(&w, text, sizeof(text));
		printf("#  %2u. %s\n#        %s\n", n++,
		       search->parent[way[count]] == NONE ? "at first" : search->rules[search->by[way[count]]]->name,
		       text);
	}
	return n;
}

void search_trace(const struct search *search, const struct search_result *result)
{
	char text[1024];
	uint32_t n = trace(search, result->law ? result->at : result->stuck_at);
	if (!result->law)
		return;
	describe(&result->broken, text, sizeof(text));
	printf("#  %2u. %s\n#        %s\n", n, result->by, text);
}
