/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * explore FROM FAULTS NUISANCES [ONLY]: every state of one migration, from its beginning (FROM: start) or from where
 * the copy runs (copy), with so many faults and nuisances; only such whose name has one of the words
 * of ONLY in it (reboot|cancel). Exit 0: all laws hold
 * and nothing is stuck. 1: a counterexample is printed. 2: it was not all of them, or bad usage.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/explore/search.h"

#define BUDGET_MAX 7
#define STATES_MAX 40000000U /* some 2 GB */

static bool number(const char *text, unsigned long max, unsigned long *ret)
{
	char *end;
	*ret = strtoul(text, &end, 10);
	return end != text && *end == '\0' && *ret <= max;
}

static bool copies(const struct world *w)
{
	return w->c.core.state == MIGRATION_COPYING && w->o.link == LINK_UP && w->h[S].core.state == SESSION_COPYING &&
	       w->h[S].core.asked == STEP_NONE && w->c.core.side[S].done[STEP_COPY] &&
	       w->c.core.side[D].done[STEP_COPY] && !w->h[S].core.ready;
}

/* The first world in which the copy runs. */
static bool find_copy(struct world *w)
{
	struct search_result result;
	struct search *search = search_new(STATES_MAX, false, "");
	search_run(search, w, copies, &result);
	search_free(search);
	*w = result.found;
	return copies(w);
}

static void print_figures(const struct search_result *r, double seconds)
{
	printf("states=%" PRIu64 " steps=%" PRIu64 " depth=%u cpu_seconds=%.1f%s\n", r->states, r->steps, r->depth,
	       seconds, r->law || r->whole ? "" : " (cut short)");
}

static int explore(const struct world *first, const char *only)
{
	struct search_result result;
	const clock_t begin = clock();
	const char *names[256];
	/* Two faults may leave the VM paused for ever, as docs/PROTOCOL.md says: looked for only where it is asked for.
	 */
	bool rest = first->o.faults <= 1 || only[0] != '\0';
	struct search *search = search_new(STATES_MAX, rest, only);
	search_run(search, first, NULL, &result);
	print_figures(&result, (double)(clock() - begin) / CLOCKS_PER_SEC);
	if (result.law)
		printf("broken: %s\n", result.law);
	else if (result.stuck)
		printf("stuck: %" PRIu64 " states from which no rest can be reached\n", result.stuck);
	if (result.law || result.stuck)
		search_trace(search, &result);
	unsigned unused = search_unused(search, names, 256);
	for (unsigned n = 0; n < unused; n++)
		printf("never: %s\n", names[n]);
	search_free(search);
	return result.law || result.stuck ? 1 : result.whole ? 0 : 2;
}

int main(int argc, char **argv)
{
	unsigned long faults, nuisances;
	struct world first;
	bool copy = argc > 1 && strcmp(argv[1], "copy") == 0;
	if (argc < 4 || argc > 5 || (!copy && strcmp(argv[1], "start") != 0) || !number(argv[2], BUDGET_MAX, &faults) ||
	    !number(argv[3], BUDGET_MAX, &nuisances)) {
		fprintf(stderr, "usage: explore start|copy FAULTS NUISANCES [ONLY]\n");
		return 2;
	}
	world_init(&first, 0, 0);
	if (copy && !find_copy(&first)) {
		fprintf(stderr, "explore: no copy begins\n");
		return 2;
	}
	first.o.faults = (unsigned)faults;
	first.o.nuisances = (unsigned)nuisances;
	return explore(&first, argc > 4 ? argv[4] : "");
}
