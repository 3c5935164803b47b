/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stream 0 between two legs: in order, whole or not at all, until either end or the network ends it. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/legs.h"

#define LATENCY_LEAST (200)
#define LATENCY_MOST (2 * MS)

struct link {
	struct wire *wire;
	unsigned end; /* 0: the source's */
};

struct wire {
	struct wire *next;
	bool up, line;
	unsigned pid[2];
	struct machine *machine[2];
	struct link *link[2]; /* NULL: let go of */
	int64_t last_us[2];
};
static struct wire *wires;

static unsigned wire_ends(const struct wire *wire)
{
	return (wire->link[0] ? 1u : 0u) + (wire->link[1] ? 1u : 0u);
}

/* Of wires that nobody holds, but for those still in events: they are freed at the end of the world. */
void wires_free(void)
{
	while (wires) {
		struct wire *wire = wires;
		wires = wire->next;
		free(wire->link[0]);
		free(wire->link[1]);
		free(wire);
	}
}

static void on_down(void *ctx, uint64_t end)
{
	struct wire *wire = ctx;
	struct sim_leg *leg = sim_leg_find(wire->pid[end]);
	struct err err;
	if (!leg || !wire->link[end] || leg->leg.link != wire->link[end])
		return;
	if (wire->line || (end == 1 && leg->copy.ended))
		return; /* nothing hangs on it; or everything is here */
	if (end == 0)
		atomic_store(&leg->leg.link_lost, true);
	err_set(&err, ERR_PEER_LOST, "the other leg is gone");
	leg_post_fail(&leg->leg, &err);
}

static void go_down(struct wire *wire, int64_t after_us)
{
	if (!wire->up)
		return;
	wire->up = false;
	for (unsigned end = 0; end < 2; end++)
		event_add(after_us, wire->pid[end], on_down, wire, end, false);
}

/* ---- frames ---- */

struct frame {
	struct wire *wire;
	unsigned to; /* end */
	enum frame_type type;
	uint32_t bytes;
	unsigned char payload[];
};

static int take_end(struct sim_leg *leg, const struct frame *frame, struct err *err)
{
	struct frame_end end;
	if (frame_end_get(frame->payload, frame->bytes, &end, err))
		return -1;
	leg->copy.ended = true;
	leg->copy.memory_tick = end.memory_bytes;
	leg_post_learn(&leg->leg, &end.facts);
	return 0;
}

static int take(struct sim_leg *leg, const struct frame *frame, struct err *err)
{
	struct verdict_facts facts;
	struct err cause;
	if (frame->wire->line && frame->type != FRAME_FACTS)
		return err_set(err, ERR_PROTOCOL, "%s frame on the line for votes", frame_type_name(frame->type));
	switch ((int)frame->type) {
	case FRAME_FACTS:
		if (frame_facts_get(frame->payload, frame->bytes, &facts, err))
			return -1;
		if (world.scenario.plant == PLANT_RUMOUR && frame->to == 0 &&
		    facts.vote[PARTY_DESTINATION] != VOTE_NONE)
			facts.vote[PARTY_DESTINATION] = VOTE_COMMIT, facts.activating = facts.running = true;
		leg_post_learn(&leg->leg, &facts);
		return 0;
	case FRAME_ERROR:
		if (frame_error_get(frame->payload, frame->bytes, &cause, err))
			return -1;
		leg_post_fail(&leg->leg, &cause);
		return 0;
	case FRAME_END:
		return take_end(leg, frame, err);
	}
	return err_set(err, ERR_PROTOCOL, "%s frame", frame_type_name(frame->type));
}

static void arrive(void *ctx, uint64_t unused)
{
	struct frame *frame = ctx;
	struct wire *wire = frame->wire;
	struct err err;
	int64_t since_us = 0;
	(void)unused;
	struct sim_leg *leg = sim_leg_find(wire->pid[frame->to]);
	if (!wire->up || !leg || leg->leg.link != wire->link[frame->to])
		return;
	if (machines_legs_cut(wire->machine[0], wire->machine[1], &since_us)) {
		go_down(wire, since_us + CUT_SILENCE - world_now_us);
		return;
	}
	if (take(leg, frame, &err))
		promise_broken("what is sent can be read", "leg to leg: %s", err.text);
}

void link_post(struct link *link, enum frame_type type, const void *payload, uint32_t bytes)
{
	struct wire *wire = link->wire;
	unsigned to = !link->end;
	if (proc_is_dying() || !wire->up)
		return;
	struct frame *frame = malloc(sizeof(*frame) + bytes);
	if (!frame)
		abort();
	*frame = (struct frame) { .wire = wire, .to = to, .type = type, .bytes = bytes };
	memcpy(frame->payload, payload, bytes);
	int64_t at_us = world_now_us + chance_us(LATENCY_LEAST, LATENCY_MOST);
	if (at_us < wire->last_us[to])
		at_us = wire->last_us[to];
	wire->last_us[to] = at_us;
	event_add(at_us - world_now_us, wire->pid[to], arrive, frame, 0, true);
}

void link_stop(struct link *link)
{
	if (!link)
		return;
	go_down(link->wire, chance_us(LATENCY_LEAST, LATENCY_MOST));
	link->wire->link[link->end] = NULL;
	free(link);
}

/* ---- wires ---- */

void wire_connect(struct sim_leg *source, struct sim_leg *dest, bool line)
{
	struct wire *wire = calloc(1, sizeof(*wire));
	struct sim_leg *ends[] = { source, dest };
	if (!wire)
		abort();
	wire->up = true;
	wire->line = line;
	wire->next = wires;
	wires = wire;
	for (unsigned end = 0; end < 2; end++) {
		wire->pid[end] = ends[end]->proc->pid;
		wire->machine[end] = ends[end]->proc->machine;
		wire->link[end] = calloc(1, sizeof(struct link));
		if (!wire->link[end])
			abort();
		*wire->link[end] = (struct link) { wire, end };
		leg_link_set(&ends[end]->leg, wire->link[end]);
		ends[end]->copy.peer_pid = ends[!end]->proc->pid;
		ends[end]->copy.peer_machine = ends[!end]->proc->machine;
	}
}

bool wire_is_up(struct leg *leg)
{
	int64_t since_us = 0;
	if (!leg->link || !leg->link->wire->up)
		return false;
	struct wire *wire = leg->link->wire;
	if (machines_legs_cut(wire->machine[0], wire->machine[1], &since_us) && world_now_us - since_us >= CUT_SILENCE)
		go_down(wire, 0);
	return wire->up;
}

static void check_cut(void *ctx, uint64_t unused)
{
	struct wire *wire = ctx;
	int64_t since_us = 0;
	(void)unused;
	if (wire->up && machines_legs_cut(wire->machine[0], wire->machine[1], &since_us) &&
	    world_now_us - since_us >= CUT_SILENCE)
		go_down(wire, 0);
}

void wires_cut(struct machine *a, struct machine *b)
{
	for (struct wire *w = wires; w; w = w->next)
		if (w->up && ((w->machine[0] == a && w->machine[1] == b) || (w->machine[0] == b && w->machine[1] == a)))
			event_add(CUT_SILENCE, 0, check_cut, w, 0, false);
}

bool wires_break_one(void)
{
	struct wire *found = NULL;
	unsigned seen = 0;
	for (struct wire *w = wires; w; w = w->next)
		if (w->up && wire_ends(w) == 2 && chance_below(++seen) == 0)
			found = w;
	if (found)
		go_down(found, 0);
	return found != NULL;
}

/* ---- the line for votes: as voteline.c decides ---- */

static bool wants_line(const struct leg *leg)
{
	if (!leg->local.granted || !*leg->endpoint || leg->released || leg->recovering)
		return false;
	if (leg->options.side == SIDE_DESTINATION)
		return leg->local.complete || leg->options.recover || cancel_fired(leg->work);
	return (leg->options.recover || atomic_load(&leg->link_lost)) && leg->facts.stream_ended && !leg->settled &&
	       !(leg->busy & JOB_COPY);
}

void wire_tend_line(struct sim_leg *self)
{
	struct leg *leg = &self->leg;
	int64_t since_us;
	if (world_now_us < self->line_at_us)
		return;
	self->line_at_us = world_now_us + SECOND;
	if (leg->options.side != SIDE_SOURCE || !wants_line(leg) || wire_is_up(leg))
		return;
	struct sim_leg *peer = sim_leg_at(leg->endpoint);
	if (!peer || !wants_line(&peer->leg) ||
	    machines_legs_cut(self->proc->machine, peer->proc->machine, &since_us) ||
	    strcmp(peer->fingerprint, self->expected) != 0 || strcmp(self->fingerprint, peer->expected) != 0)
		return;
	link_stop(leg_link_take(leg));
	link_stop(leg_link_take(&peer->leg));
	wire_connect(self, peer, true);
	trace("a line for votes to process %u", peer->proc->pid);
	leg_post_link_up(leg);
	leg_post_link_up(&peer->leg);
}
