/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A leg's main thread: leg.c, leg_due.c and leg_command.c in the model. What it decides is agent/core/leg_rules. */
#include "tests/explore/world.h"

static const struct leg no_leg;

static enum party party(int i)
{
	return i == S ? PARTY_SOURCE : PARTY_DESTINATION;
}

/* Both ends of stream 0 are only ever the legs that began the copy. */
static void hang_up(struct world *w)
{
	if (w->o.link == LINK_UP)
		w->o.link = LINK_DOWN;
}

/* ---- life ---- */

void leg_spawn(struct world *w, int i, bool recover)
{
	struct host *h = &w->h[i];
	h->leg = no_leg;
	h->leg.lives = true;
	h->leg.view = (struct leg_view) { .side = side_of(i),
		                          .recover = recover,
		                          .planned = recover,
		                          .recovering = recover,
		                          .facts = h->facts,
		                          .local = leg_local_at_start(&h->core, recover, h->old_boot) };
	h->leg.caused = h->cause != CAUSE_NONE || (recover && !h->core.abort_asked && !h->facts.stream_ended);
}

void leg_end(struct world *w, int i)
{
	unsigned out = w->h[i].leg.out, refused = w->h[i].leg.refused;
	if (!w->h[i].leg.lives)
		return;
	w->h[i].leg = no_leg;
	w->h[i].leg.out = out; /* what was said can still be read */
	w->h[i].leg.refused = refused & out;
	hang_up(w);
}

bool leg_idle(const struct host *h)
{
	return !h->leg.view.busy && !h->leg.view.recovering && (h->leg.copy == COPY_NONE || h->leg.copy == COPY_OVER);
}

static bool acts(const struct host *h)
{
	return h->leg.lives && !h->dead && !h->leg.view.recovering;
}

/* ---- answers ---- */

static void say(struct host *h, enum step step)
{
	if (h->connected)
		h->leg.out |= 1U << step;
}

void leg_answer(struct host *h, enum step step, bool done)
{
	struct leg *leg = &h->leg;
	if ((leg->pending & 1U << step) == 0)
		return;
	leg->pending &= ~(1U << step);
	*(done ? &leg->done : &leg->refused) |= 1U << step;
	say(h, step);
}

void leg_greet(struct host *h)
{
	h->leg.out = 0;
	if (h->leg.last != STEP_NONE && ((h->leg.done | h->leg.refused) & 1U << h->leg.last))
		say(h, h->leg.last);
}

/* ---- facts ---- */

void leg_learn(struct world *w, int i, const struct verdict_facts *news)
{
	struct host *h = &w->h[i];
	struct verdict_facts known = h->leg.view.facts;
	bool conflict = false;
	if (!h->row || !verdict_learn(&known, news, &conflict))
		return;
	(void)verdict_learn(&h->facts, news, &conflict);
	if (conflict)
		broken(w, "a leg is told of a vote that contradicts its journal");
	h->leg.view.facts = h->facts;
}

/* What is ever journaled by its author is the truth. */
static void tell_truth(struct world *w, const struct verdict_facts *fact)
{
	bool conflict = false;
	(void)verdict_learn(&w->o.truth, fact, &conflict);
	if (conflict)
		broken(w, "a vote was cast twice");
}

bool leg_flag(struct world *w, int i, struct verdict_facts flag)
{
	struct host *h = &w->h[i];
	struct verdict_facts known = h->facts;
	bool conflict = false;
	if (!h->row)
		return false;
	if (verdict_learn(&known, &flag, &conflict)) {
		if (!leg_may_flag(&flag, &h->facts, &h->leg.view.local))
			return false;
		h->facts = known;
		tell_truth(w, &flag);
	}
	h->leg.view.facts = h->facts;
	return true;
}

static bool cast(struct world *w, int i, enum vote vote)
{
	struct host *h = &w->h[i];
	struct verdict_facts own = { .suspended = false };
	if (!h->row || !verdict_may_cast(party(i), vote, &h->facts, &h->leg.view.local))
		return false;
	if (i == D && vote == VOTE_COMMIT && h->vm != IMAGE_PAUSED)
		broken(w, "D votes COMMIT for a copy that is not whole (V4)");
	if (i == S && vote == VOTE_ABORT && h->facts.stream_ended && h->vm == IMAGE_NONE &&
	    w->o.truth.vote[PARTY_DESTINATION] != VOTE_ABORT && !w->o.truth.renounced)
		broken(w, "S, whose image is gone, votes ABORT and D has not (V3)");
	h->facts.vote[party(i)] = own.vote[party(i)] = vote;
	tell_truth(w, &own);
	h->leg.view.facts = h->facts;
	return true;
}

static bool write_fact(struct world *w, int i, unsigned arg)
{
	(void)arg;
	if (!acts(&w->h[i]))
		return false;
	switch (leg_write_due(&w->h[i].leg.view)) {
	case LEG_WRITE_COMMIT:
		return cast(w, i, VOTE_COMMIT);
	case LEG_WRITE_ABORT:
		return cast(w, i, VOTE_ABORT);
	case LEG_WRITE_RENOUNCED:
		return leg_flag(w, i, (struct verdict_facts) { .renounced = true });
	case LEG_WRITE_ACTIVATING:
		return leg_flag(w, i, (struct verdict_facts) { .activating = true });
	case LEG_WRITE_NONE:
		break;
	}
	return false;
}

/* voteline.c: facts travel between the legs again after the link broke or a leg was started again. A host that was
 * booted again has lost its certificate. */
static bool on_vote_line(const struct world *w)
{
	const struct host *s = &w->h[S], *d = &w->h[D];
	const struct leg_view *source = &s->leg.view, *destination = &d->leg.view;
	bool calls = source->local.granted && source->facts.stream_ended && !source->settled && !source->released;
	bool listens = destination->local.granted && !destination->released &&
	               (destination->local.complete || destination->recover || leg_rolls_back(destination));
	return calls && listens && !w->o.cut_legs && w->o.link == LINK_DOWN && acts(s) && acts(d) && !s->old_boot &&
	       !d->old_boot;
}

/* tell_peer(): what the other leg knows, after it has journaled it. */
static bool hear_peer(struct world *w, int i, unsigned arg)
{
	const struct leg *peer = &w->h[1 - i].leg;
	struct verdict_facts known = w->h[i].leg.view.facts;
	bool conflict = false;
	(void)arg;
	if (!acts(&w->h[i]) || !peer->lives || (w->o.link != LINK_UP && !on_vote_line(w)))
		return false;
	if (!verdict_learn(&known, &peer->view.facts, &conflict) && !conflict)
		return false;
	leg_learn(w, i, &peer->view.facts);
	return true;
}

/* link_stop(): what was posted before still goes out. */
static void part(struct world *w, int i)
{
	if (w->o.link == LINK_UP && w->h[1 - i].leg.lives)
		leg_learn(w, 1 - i, &w->h[i].leg.view.facts);
	hang_up(w);
}

/* ---- failure ---- */

void leg_fail(struct world *w, int i)
{
	struct host *h = &w->h[i];
	struct leg *leg = &h->leg;
	if (!leg_failure_counts(&leg->view))
		return;
	if (!leg->view.local.failed && !leg->view.local.abort_asked && leg->view.facts.vote[party(i)] == VOTE_NONE)
		leg->caused = true;
	leg->view.local.failed = true;
	leg_answer(h, STEP_PREPARE, false);
	leg_answer(h, STEP_COPY, false);
}

/* ---- commands ---- */

static void on_first(struct host *h, enum step step)
{
	struct leg *leg = &h->leg;
	switch (step) {
	case STEP_PREPARE:
		if (!leg_may_prepare(&leg->view)) {
			leg_answer(h, step, false);
			return;
		}
		leg->view.planned = leg->view.busy = true;
		h->holds = true; /* everything is journaled before it is made */
		return;
	case STEP_COPY:
		if (leg_may_copy(&leg->view))
			leg->copy = COPY_BEGUN;
		else
			leg_answer(h, step, false);
		return;
	case STEP_SWITCH:
		if (leg_may_switch(&leg->view))
			leg->view.local.granted = true;
		leg_answer(h, step, leg->view.local.granted);
		return;
	case STEP_ABORT:
		leg->view.local.abort_asked = true;
		leg_answer(h, STEP_PREPARE, false);
		leg_answer(h, STEP_COPY, false);
		return;
	case STEP_RELEASE:
	case STEP_FORGET:
	case STEP_NONE:
	case STEP_CHECK:
	case STEPS:
		return;
	}
}

void leg_command(struct world *w, int i, enum step step)
{
	struct host *h = &w->h[i];
	struct leg *leg = &h->leg;
	unsigned bit = 1U << step;
	leg->last = step;
	if ((leg->refused & bit) && (step == STEP_ABORT || step == STEP_RELEASE || step == STEP_FORGET))
		leg->refused &= ~bit; /* it may be asked again when more is known */
	if ((leg->done | leg->refused) & bit)
		say(h, step);
	if ((leg->done | leg->refused | leg->pending) & bit)
		return;
	leg->pending |= bit;
	on_first(h, step);
}

/* leg_settle(): ABORT, RELEASE and FORGET are answered when the rules say how. */
static bool settle(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	enum step step = (enum step)arg;
	if (!acts(h) || (h->leg.pending & 1U << step) == 0)
		return false;
	switch (leg_reply(&h->leg.view, step)) {
	case LEG_DONE:
		leg_answer(h, step, true);
		if (step == STEP_FORGET)
			leg_end(w, i);
		return true;
	case LEG_TOO_LATE:
	case LEG_BUSY:
		leg_answer(h, step, false);
		return true;
	case LEG_WAIT:
	case LEG_DO: /* "lets go" */
		break;
	}
	return false;
}

/* arg: whether it is one for ever, since its session is forgotten */
static bool orphan(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	struct leg *leg = &h->leg;
	if (!leg->lives || h->dead || h->connected || (arg && h->row))
		return false;
	if (!leg->view.local.granted || leg->view.settled || leg->view.released) {
		if (!leg->view.local.granted)
			leg_fail(w, i);
		if (leg_holds_nothing(&leg->view) && !leg->view.busy)
			leg_end(w, i);
		return true;
	}
	return false;
}

/* ---- jobs ---- */

static bool look_round(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (!h->leg.lives || h->dead || !h->leg.view.recovering)
		return false;
	h->leg.view.recovering = false;
	if (h->vm == IMAGE_NONE)
		*(h->giving_back && !h->old_boot ? &h->leg.view.local.unpause_failed : &h->leg.view.local.image_gone) =
			true;
	return true;
}

static void resume(struct world *w)
{
	struct host *h = &w->h[S];
	if (h->vm == IMAGE_NONE) {
		h->leg.view.local.image_gone = true;
		return;
	}
	h->vm = IMAGE_RUNNING;
	h->leg.vm_done = true;
}

static void unpause(struct world *w)
{
	struct host *h = &w->h[D];
	if (w->o.cannot_unpause && h->vm == IMAGE_PAUSED && !h->giving_back) {
		h->giving_back = true; /* journaled first */
		return;
	}
	if (h->giving_back) {
		h->vm = IMAGE_NONE;
		h->leg.view.local.unpause_failed = true;
		return;
	}
	if (h->vm == IMAGE_PARTIAL)
		broken(w, "D runs a copy that is not whole");
	h->vm = IMAGE_RUNNING;
	h->leg.vm_done = w->o.ran = true;
}

static bool run_vm(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (!acts(h) || !leg_idle(h) || h->leg.vm_done || !leg_vm_due(&h->leg.view))
		return false;
	if (i == D && h->vm == IMAGE_NONE)
		return false; /* "no VM to activate", tried again */
	if (i == S)
		resume(w);
	else
		unpause(w);
	return true;
}

static bool note_vm(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (!acts(h) || !h->leg.vm_done)
		return false;
	h->leg.vm_done = false;
	(void)leg_flag(
		w, i, i == S ? (struct verdict_facts) { .resumed = true } : (struct verdict_facts) { .running = true });
	return true;
}

static bool clean(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (!acts(h) || !leg_idle(h) || h->leg.vm_done || !leg_clean_due(&h->leg.view))
		return false;
	if (i == D && h->holds)
		h->vm = IMAGE_NONE;
	h->holds = h->giving_back = false;
	h->leg.view.settled = true;
	part(w, i);
	return true;
}

/* S: the suspended VM first, then what is journaled of it. */
static bool release(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (!acts(h) || !leg_idle(h) || h->leg.vm_done || (h->leg.pending & 1U << STEP_RELEASE) == 0 ||
	    leg_reply(&h->leg.view, STEP_RELEASE) != LEG_DO)
		return false;
	if (i == S && h->vm != IMAGE_NONE) {
		part(w, i);
		h->vm = IMAGE_NONE;
		/* ruled for, a D that is there has the disks to boot it from, if it had begun to run it */
		bool ruled = w->c.core.facts.ruling == VOTE_COMMIT && w->o.truth.activating &&
		             !w->c.core.side[D].written_off;
		if (!w->o.ran && !ruled)
			broken(w, "S destroys the VM before D has run it");
		return true;
	}
	if (i == S && !leg_flag(w, i, (struct verdict_facts) { .released = true }))
		return false;
	part(w, i);
	h->holds = false;
	h->leg.view.released = true;
	return true;
}

#define LEG(text, take, arg, when)                  \
	{ "S's leg " text, take, S, arg, when },    \
	{                                           \
		"D's leg " text, take, D, arg, when \
	}

const struct step_rule leg_rules[] = {
	LEG("looks round", look_round, 0, EAGER),
	LEG("journals what is due", write_fact, 0, CALM),
	LEG("hears the other leg", hear_peer, 0, CALM),
	LEG("has the VM run", run_vm, 0, CALM),
	LEG("journals that it runs", note_vm, 0, CALM),
	LEG("takes everything away", clean, 0, CALM),
	LEG("lets go", release, 0, CALM),
	LEG("answers ABORT", settle, STEP_ABORT, EAGER),
	LEG("answers RELEASE", settle, STEP_RELEASE, EAGER),
	LEG("answers FORGET", settle, STEP_FORGET, EAGER),
	LEG("is an orphan for ever", orphan, 1, EAGER),
	LEG("takes itself for an orphan", orphan, 0, NUISANCE),
	{ 0 },
};
