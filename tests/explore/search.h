/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Breadth first over all worlds, each kept exactly: a state is four numbers, one for each part of the world, which are
 * kept once each.
 */
#ifndef DROVER_EXPLORE_SEARCH_H
#define DROVER_EXPLORE_SEARCH_H

#include <stdint.h>

#include "tests/explore/world.h"

struct search;

struct search_result {
	uint64_t states, steps;
	unsigned depth;
	bool whole;          /* every state was visited: not stopped by `states_max` */
	const char *law;     /* the first that was broken; NULL: none */
	uint32_t at;         /* from which state */
	const char *by;      /* by which step */
	struct world broken; /* with what result */
	struct world found;  /* what `until` liked */
	uint64_t stuck;      /* states from which no rest can be reached without more faults */
	uint32_t stuck_at;   /* the first of them */
};

/* Ends the program if there is no memory. `rest`: also looks for states that are stuck. Faults and nuisances are only
 * those whose name has one of the words of `only` in it ("a|b"; "": all), which lives as long as the search. */
struct search *search_new(uint32_t states_max, bool rest, const char *only);
void search_free(struct search *search);
/* Every state that can be reached from `first`. `until` (may be NULL): stops at the first that it likes. */
void search_run(struct search *search, const struct world *first, bool (*until)(const struct world *w),
                struct search_result *ret_result);
/* Names of the steps that were never possible. Returns how many. */
unsigned search_unused(const struct search *search, const char *names[], unsigned room);
/* Prints how what was found was reached, two lines a step. */
void search_trace(const struct search *search, const struct search_result *result);

#endif
