/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <string.h>

#include "tests/explore/world.h"

struct line {
	char *text;
	unsigned bytes, at;
};

static void put(struct line *line, const char *word)
{
	int n = snprintf(line->text + line->at, line->bytes - line->at, "%s", word);
	if (n > 0 && line->at + (unsigned)n < line->bytes)
		line->at += (unsigned)n;
}

static void put_facts(struct line *line, const struct verdict_facts *facts)
{
	static const char letter[] = "-CA";
	char votes[] = { letter[facts->vote[PARTY_COORDINATOR]], letter[facts->vote[PARTY_SOURCE]],
		         letter[facts->vote[PARTY_DESTINATION]], '\0' };
	put(line, " ");
	put(line, votes);
	put(line, facts->suspended ? " susp" : "");
	put(line, facts->stream_ended ? " end" : "");
	put(line, facts->resumed ? " resumed" : "");
	put(line, facts->released ? " released" : "");
	put(line, facts->activating ? " activating" : "");
	put(line, facts->running ? " running" : "");
	put(line, facts->renounced ? " renounced" : "");
}

static void put_coordinator(struct line *line, const struct coordinator *c)
{
	static const char *const reach[] = { "?", "up", "suspected" };
	put(line, "C ");
	put(line, c->dead ? "dead " : "");
	put(line, migration_state_name(c->core.state));
	put(line, c->over ? " over" : "");
	put_facts(line, &c->core.facts);
	put(line, c->core.abort_asked ? " abort-asked" : "");
	for (int i = 0; i < 2; i++) {
		const struct migration_side *side = &c->core.side[i];
		put(line, i == S ? " S:" : " D:");
		put(line, reach[side->reach]);
		put(line, side->rebooted ? ",rebooted" : "");
		put(line, side->journal_lost ? ",lost" : "");
		put(line, side->cleanup_owed ? ",cleanup-owed" : "");
		put(line, side->forget_owed ? ",forget-owed" : "");
	}
}

static void put_leg(struct line *line, const struct host *h)
{
	static const char *const copy[] = { "", " begun", " live", " suspending", " suspended", " ended", " copied" };
	const struct leg *leg = &h->leg;
	put(line, !leg->lives ? " no-leg" : leg->view.recover ? " recovering-leg" : " leg");
	put(line, h->connected ? "" : " unconnected");
	if (!leg->lives)
		return;
	put(line, copy[leg->copy]);
	put(line, leg->view.recovering ? " looking" : "");
	put(line, leg->view.local.granted ? " granted" : "");
	put(line, leg->view.local.complete ? " complete" : "");
	put(line, leg->view.local.failed ? " failed" : "");
	put(line, leg->view.local.abort_asked ? " abort-asked" : "");
	put(line, leg->view.local.image_gone ? " image-gone" : "");
	put(line, leg->view.local.unpause_failed ? " unpause-failed" : "");
	put(line, leg->view.settled ? " settled" : "");
	put(line, leg->view.released ? " let-go" : "");
	put(line, " knows");
	put_facts(line, &leg->view.facts);
}

static void put_host(struct line *line, const struct host *h, const char *name)
{
	static const char *const vm[] = { "no VM", "partial VM", "VM paused", "VM runs" };
	put(line, " | ");
	put(line, name);
	put(line, h->dead ? " dead " : " ");
	put(line, h->row ? session_state_name(h->core.state) : h->forgotten ? "forgotten" : "-");
	put(line, h->lost ? " journal-lost" : "");
	put(line, h->old_boot ? " rebooted" : "");
	put(line, h->core.abort_asked ? " abort-asked" : "");
	put(line, h->core.failed ? " failed" : "");
	put(line, h->holds ? " holds" : "");
	put_facts(line, &h->facts);
	put(line, ", ");
	put(line, vm[h->vm]);
	put(line, ",");
	put_leg(line, h);
}

void describe(const struct world *w, char *text, unsigned bytes)
{
	struct line line = { text, bytes, 0 };
	put_coordinator(&line, &w->c);
	put_host(&line, &w->h[S], "S");
	put_host(&line, &w->h[D], "D");
	put(&line, w->o.link == LINK_UP ? " | link up" : w->o.link == LINK_DOWN ? " | link down" : "");
}
