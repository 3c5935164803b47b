/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The conductors' PREPARE and COPY: source.c, source_copy.c, dest.c and dest_copy.c in the model. */
#include "tests/explore/world.h"

static bool acts(const struct host *h)
{
	return h->leg.lives && !h->dead && !h->leg.view.recovering;
}

static bool prepare(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	bool ok = arg != 0;
	if (!acts(h) || !h->leg.view.busy)
		return false;
	h->leg.view.busy = false;
	h->leg.view.prepared = ok;
	if (!ok) {
		leg_fail(w, i);
		return true;
	}
	if (i == D)
		h->vm = IMAGE_PARTIAL;
	if (!h->leg.view.local.failed)
		leg_answer(h, STEP_PREPARE, true);
	return true;
}

/* Whoever is asked for it ends the copy at once, but not in the middle of the switchover. arg: there */
static bool stop(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	if (!acts(h) || h->leg.copy == COPY_NONE || h->leg.copy == COPY_OVER || !leg_rolls_back(&h->leg.view) ||
	    (h->leg.copy >= COPY_SUSPENDING) != (arg != 0))
		return false;
	h->leg.copy = COPY_OVER;
	return true;
}

static bool listen(struct world *w, int i, unsigned arg)
{
	struct leg *leg = &w->h[i].leg;
	(void)arg;
	if (!acts(&w->h[i]) || leg->copy != COPY_BEGUN || leg_rolls_back(&leg->view))
		return false;
	leg->copy = COPY_LIVE;
	leg->view.copying = true;
	leg_answer(&w->h[i], STEP_COPY, true);
	return true;
}

static bool is_listening(const struct world *w)
{
	const struct host *d = &w->h[D];
	return acts(d) && !w->o.cut_legs && w->o.link == LINK_NONE && d->leg.copy == COPY_LIVE;
}

static bool connect(struct world *w, int i, unsigned arg)
{
	struct leg *leg = &w->h[i].leg;
	(void)arg;
	if (!acts(&w->h[i]) || leg->copy != COPY_BEGUN || leg_rolls_back(&leg->view) || !is_listening(w))
		return false;
	w->o.link = LINK_UP;
	leg->copy = COPY_LIVE;
	leg->view.copying = true;
	leg_answer(&w->h[i], STEP_COPY, true);
	return true;
}

/* Nobody connects, nobody is there to connect to. arg: and nobody will any more */
static bool wait_out(struct world *w, int i, unsigned arg)
{
	struct leg *leg = &w->h[i].leg, *peer = &w->h[1 - i].leg;
	if (!acts(&w->h[i]) || w->o.link != LINK_NONE || leg->copy != (i == S ? COPY_BEGUN : COPY_LIVE))
		return false;
	bool hopeless = !peer->lives || peer->view.recover || w->h[1 - i].dead || w->o.cut_legs ||
	                peer->copy == COPY_OVER || leg_rolls_back(&peer->view);
	if (arg && !hopeless)
		return false;
	leg->copy = COPY_OVER;
	leg_fail(w, i);
	return true;
}

/* Stream 0 is down; after its end of stream neither needs it. */
static bool see_down(struct world *w, int i, unsigned arg)
{
	struct leg *leg = &w->h[i].leg;
	(void)arg;
	if (!acts(&w->h[i]) || w->o.link != LINK_DOWN || leg->copy < COPY_LIVE || leg->copy == COPY_OVER ||
	    (i == D && leg->copy == COPY_ENDED))
		return false;
	leg->copy = COPY_OVER;
	leg_fail(w, i);
	return true;
}

/* A frame does not come, a disk cannot be read or written, digests differ, the disks cannot be attached. */
static bool fail(struct world *w, int i, unsigned arg)
{
	struct leg *leg = &w->h[i].leg;
	(void)arg;
	if (!acts(&w->h[i]) || leg->copy == COPY_NONE || leg->copy == COPY_OVER)
		return false;
	if (i == S && leg->copy == COPY_ENDED && w->o.link == LINK_UP)
		w->o.link = LINK_DOWN; /* nothing is left to fail but the sending of the end of stream */
	leg->copy = COPY_OVER;
	leg_fail(w, i);
	return true;
}

static bool fits(struct world *w, int i, unsigned arg)
{
	struct leg *leg = &w->h[i].leg;
	(void)arg;
	if (!acts(&w->h[i]) || leg->copy != COPY_LIVE || leg->view.ready || w->o.link != LINK_UP)
		return false;
	leg->view.ready = true;
	return true;
}

/* ---- the switchover ---- */

static bool suspending(struct world *w, int i, unsigned arg)
{
	struct leg *leg = &w->h[i].leg;
	(void)arg;
	if (!acts(&w->h[i]) || leg->copy != COPY_LIVE || !leg->view.local.granted || !leg->view.ready ||
	    w->o.link != LINK_UP || leg_rolls_back(&leg->view))
		return false;
	leg->copy = leg_flag(w, i, (struct verdict_facts) { .suspended = true }) ? COPY_SUSPENDING : COPY_OVER;
	return true;
}

static bool suspend(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (!acts(h) || h->leg.copy != COPY_SUSPENDING || h->vm != IMAGE_RUNNING)
		return false;
	h->vm = IMAGE_PAUSED;
	h->leg.copy = COPY_SUSPENDED;
	return true;
}

static bool end_stream(struct world *w, int i, unsigned arg)
{
	struct leg *leg = &w->h[i].leg;
	(void)arg;
	if (!acts(&w->h[i]) || leg->copy != COPY_SUSPENDED || w->o.link != LINK_UP)
		return false;
	leg->copy = leg_flag(w, i, (struct verdict_facts) { .stream_ended = true }) ? COPY_ENDED : COPY_OVER;
	return true;
}

/* The end of stream itself: what was journaled with it goes in the same frame. */
static bool send_end(struct world *w, int i, unsigned arg)
{
	struct leg *leg = &w->h[i].leg, *peer = &w->h[D].leg;
	(void)arg;
	if (!acts(&w->h[i]) || leg->copy != COPY_ENDED || leg_rolls_back(&leg->view))
		return false;
	leg->copy = COPY_OVER;
	if (w->o.link != LINK_UP || !peer->lives || peer->copy != COPY_LIVE)
		return true; /* lost: the votes decide */
	peer->copy = COPY_ENDED;
	leg_learn(w, D, &(struct verdict_facts) { .suspended = true, .stream_ended = true });
	return true;
}

/* V4: verified, exporters revoked, disks attached. */
static bool complete(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (!acts(h) || h->leg.copy != COPY_ENDED)
		return false;
	h->leg.copy = COPY_OVER;
	h->leg.view.local.complete = true;
	h->vm = IMAGE_PAUSED;
	return true;
}

const struct step_rule copy_rules[] = {
	{ "S's leg is prepared", prepare, S, 1, CALM },
	{ "D's leg is prepared", prepare, D, 1, CALM },
	{ "S's leg cannot prepare", prepare, S, 0, NUISANCE },
	{ "D's leg cannot prepare", prepare, D, 0, NUISANCE },
	{ "D's leg listens", listen, D, 0, EAGER },
	{ "S's leg connects", connect, S, 0, CALM },
	{ "S's leg waits for D in vain", wait_out, S, 1, CALM },
	{ "D's leg waits for S in vain", wait_out, D, 1, CALM },
	{ "S's leg waits for D no longer", wait_out, S, 0, NUISANCE },
	{ "D's leg waits for S no longer", wait_out, D, 0, NUISANCE },
	{ "S's leg ends its copy", stop, S, 0, EAGER },
	{ "D's leg ends its copy", stop, D, 0, EAGER },
	{ "S's leg ends its switchover", stop, S, 1, CALM },
	{ "D's leg ends its switchover", stop, D, 1, CALM },
	{ "S's leg sees the stream down", see_down, S, 0, EAGER },
	{ "D's leg sees the stream down", see_down, D, 0, EAGER },
	{ "S's copy fails", fail, S, 0, FAULT },
	{ "D's copy fails", fail, D, 0, FAULT },
	{ "S is ready", fits, S, 0, CALM },
	{ "S journals that it suspends", suspending, S, 0, CALM },
	{ "S suspends the VM", suspend, S, 0, CALM },
	{ "S journals the end of stream", end_stream, S, 0, CALM },
	{ "S sends the end of stream", send_end, S, 0, CALM },
	{ "D has a whole copy", complete, D, 0, CALM },
	{ 0 },
};
