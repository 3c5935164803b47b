/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Parts of the world as bits, and back: one list of the fields for both ways. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/explore/world.h"

#define WORDS (PART_BYTES / sizeof(uint64_t))
#define WORD_BITS 64U

struct coder {
	uint64_t words[WORDS];
	unsigned word, bit; /* where the next field stands */
	bool reads;
};

/* Reads or writes `bits` bits; returns what stands there. No field spans two words. */
static unsigned code(struct coder *c, unsigned value, unsigned bits)
{
	if (c->bit + bits > WORD_BITS) {
		c->word++;
		c->bit = 0;
	}
	if (c->word == WORDS)
		abort();
	if (c->reads)
		value = (unsigned)(c->words[c->word] >> c->bit) & ((1U << bits) - 1);
	else
		c->words[c->word] |= (uint64_t)value << c->bit;
	c->bit += bits;
	return value;
}

static void code_bool(struct coder *c, bool *value)
{
	*value = code(c, *value, 1) != 0;
}

static void code_facts(struct coder *c, struct verdict_facts *facts)
{
	for (int party = 0; party < PARTIES; party++)
		facts->vote[party] = (enum vote)code(c, facts->vote[party], 2);
	code_bool(c, &facts->suspended);
	code_bool(c, &facts->stream_ended);
	code_bool(c, &facts->resumed);
	code_bool(c, &facts->released);
	code_bool(c, &facts->activating);
	code_bool(c, &facts->running);
	code_bool(c, &facts->renounced);
	facts->ruling = (enum vote)code(c, facts->ruling, 2);
}

static void code_side(struct coder *c, struct migration_side *side)
{
	side->reach = (enum reach)code(c, side->reach, 2);
	side->phase = (enum session_phase)code(c, side->phase, 4);
	for (int step = STEP_CHECK; step < STEPS; step++)
		code_bool(c, &side->done[step]);
	code_bool(c, &side->rebooted);
	code_bool(c, &side->journal_lost);
	code_bool(c, &side->cleanup_owed);
	code_bool(c, &side->forget_owed);
	code_bool(c, &side->written_off);
}

static void code_coordinator(struct coder *c, struct coordinator *p)
{
	p->core.state = (enum migration_state)code(c, p->core.state, 4);
	code_facts(c, &p->core.facts);
	code_side(c, &p->core.side[S]);
	code_side(c, &p->core.side[D]);
	code_bool(c, &p->core.abort_asked);
	p->core.cause = (enum err_code)code(c, p->core.cause, 6);
	p->core.cause_step = (enum step)code(c, p->core.cause_step, 3);
	code_bool(c, &p->dead);
	code_bool(c, &p->over);
	code_bool(c, &p->cancelled);
	code_bool(c, &p->too_late);
	for (int i = 0; i < 2; i++) {
		code_bool(c, &p->hello[i]);
		code_bool(c, &p->new_boot[i]);
		code_bool(c, &p->new_journal[i]);
		p->sent[i] = code(c, p->sent[i], STEPS);
		p->done[i] = code(c, p->done[i], STEPS);
		p->refused[i] = code(c, p->refused[i], STEPS);
		p->unknown[i] = code(c, p->unknown[i], STEPS);
	}
}

static void code_local(struct coder *c, struct verdict_local *local)
{
	code_bool(c, &local->granted);
	code_bool(c, &local->complete);
	code_bool(c, &local->failed);
	code_bool(c, &local->abort_asked);
	code_bool(c, &local->image_gone);
	code_bool(c, &local->unpause_failed);
}

static void code_leg(struct coder *c, struct leg *leg)
{
	leg->out = code(c, leg->out, STEPS);
	leg->refused = code(c, leg->refused, STEPS);
	code_bool(c, &leg->lives);
	if (!leg->lives)
		return;
	struct leg_view *view = &leg->view;
	view->side = (enum side)code(c, view->side, 2);
	code_bool(c, &view->recover);
	code_bool(c, &view->planned);
	code_bool(c, &view->busy);
	code_bool(c, &view->prepared);
	code_bool(c, &view->copying);
	code_bool(c, &view->ready);
	code_bool(c, &view->recovering);
	code_bool(c, &view->settled);
	code_bool(c, &view->released);
	code_facts(c, &view->facts);
	code_local(c, &view->local);
	code_bool(c, &leg->caused);
	code_bool(c, &leg->vm_done);
	leg->copy = (enum copy)code(c, leg->copy, 3);
	leg->last = (enum step)code(c, leg->last, 3);
	leg->pending = code(c, leg->pending, STEPS);
	leg->done = code(c, leg->done, STEPS);
}

static void code_session(struct coder *c, struct session_core *core)
{
	core->state = (enum session_state)code(c, core->state, 4);
	core->side = (enum side)code(c, core->side, 2);
	code_bool(c, &core->ready);
	code_bool(c, &core->leg_wanted);
	code_bool(c, &core->leg_up);
	code_bool(c, &core->abort_asked);
	code_bool(c, &core->failed);
	core->asked = (enum step)code(c, core->asked, 3);
	core->highest = (enum step)code(c, core->highest, 3);
}

static void code_host(struct coder *c, struct host *h)
{
	code_bool(c, &h->row);
	code_bool(c, &h->forgotten);
	code_bool(c, &h->lost);
	code_session(c, &h->core);
	code_facts(c, &h->facts);
	h->cause = (enum cause)code(c, h->cause, 2);
	h->kept_done = code(c, h->kept_done, STEPS);
	h->kept_refused = code(c, h->kept_refused, STEPS);
	code_bool(c, &h->pid);
	code_bool(c, &h->old_boot);
	code_bool(c, &h->holds);
	code_bool(c, &h->giving_back);
	code_bool(c, &h->connected);
	code_bool(c, &h->away);
	code_bool(c, &h->start_wanted);
	code_bool(c, &h->start_recover);
	code_bool(c, &h->checks);
	code_leg(c, &h->leg);
	h->vm = (enum image)code(c, h->vm, 2);
	code_bool(c, &h->dead);
	code_bool(c, &h->failed);
}

static void code_outside(struct coder *c, struct outside *o)
{
	o->link = (enum link)code(c, o->link, 2);
	code_bool(c, &o->cut[S]);
	code_bool(c, &o->cut[D]);
	code_bool(c, &o->cut_legs);
	code_bool(c, &o->cannot_unpause);
	o->faults = code(c, o->faults, 3);
	o->nuisances = code(c, o->nuisances, 3);
	code_facts(c, &o->truth);
	code_bool(c, &o->ran);
}

/* Fields are listed once for both ways, so what is packed is a copy. */
static void pack_host(struct coder *c, const struct host *h)
{
	struct host copy = *h;
	code_host(c, &copy);
}

void pack(const struct world *w, int part, unsigned char ret_bytes[PART_BYTES])
{
	struct coder c = { .reads = false };
	struct coordinator coordinator;
	struct outside outside;
	switch (part) {
	case 0:
		coordinator = w->c;
		code_coordinator(&c, &coordinator);
		break;
	case 1:
	case 2:
		pack_host(&c, &w->h[part - 1]);
		break;
	default:
		outside = w->o;
		code_outside(&c, &outside);
		break;
	}
	memcpy(ret_bytes, c.words, PART_BYTES);
}

void unpack(struct world *w, int part, const unsigned char bytes[PART_BYTES])
{
	struct coder c = { .reads = true };
	memcpy(c.words, bytes, PART_BYTES);
	switch (part) {
	case 0:
		code_coordinator(&c, &w->c);
		break;
	case 1:
	case 2:
		code_host(&c, &w->h[part - 1]);
		break;
	default:
		code_outside(&c, &w->o);
		break;
	}
}
