/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What source_copy.c and dest_copy.c do, in virtual time: the passes over disks and memory, the suspension, the end of
 * stream; receiving, fencing, attaching. Each function is called again until it is over.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/legs.h"

#define CONNECT_LIMIT (20 * SECOND)
#define LINK_LIMIT (60 * SECOND)
#define CONNECT_PAUSE (100 * MS)
#define WAIT_PAUSE (40 * MS)
#define PASSES_MAX 6
#define SMALL_BLOCKS 6
#define BLOCK_TIME (20 * MS)
#define MEMORY_TIME (400 * MS)

/* ---- a pass: shipments under way ---- */

struct delivery {
	unsigned source_pid, dest_pid, disk, pass;
	struct machine *from, *to;
	struct shipment shipment;
};

static void deliver(void *ctx, uint64_t unused)
{
	struct delivery *delivery = ctx;
	struct sim_leg *source = sim_leg_find(delivery->source_pid);
	struct err err = { 0 };
	int64_t since_us;
	(void)unused;
	bool cut = machines_legs_cut(delivery->from, delivery->to, &since_us);
	if (cut && world_now_us - since_us < CUT_SILENCE) { /* TCP holds on */
		struct delivery *again = malloc(sizeof(*again));
		if (!again)
			abort();
		*again = *delivery;
		event_add(300 * MS, 0, deliver, again, 0, true);
		return;
	}
	int rc = cut ? err_set(&err, ERR_PEER_LOST, "the connection of disk %u is gone", delivery->disk)
	             : storage_deliver(delivery->dest_pid, delivery->disk, &delivery->shipment, &err);
	if (!source || source->copy.passes != delivery->pass)
		return;
	if (rc && source->copy.failure.code == ERR_NONE)
		source->copy.failure = err;
	source->copy.arrived++;
}

/* Sends what is to be sent of all disks. */
static int begin_pass(struct sim_leg *self, struct err *err)
{
	struct copy *copy = &self->copy;
	struct machine *machine = self->proc->machine;
	copy->arrived = 0;
	copy->passes++;
	for (unsigned d = 0; d < self->leg.source->disk_count; d++) {
		struct delivery *delivery = calloc(1, sizeof(*delivery));
		if (!delivery)
			abort();
		if (storage_collect(machine, self->leg.plan->vm.uuid, self->leg.options.migration, d, copy->first,
		                    &copy->shipments[d], err)) {
			free(delivery);
			return -1;
		}
		*delivery = (struct delivery) { .source_pid = self->proc->pid,
			                        .dest_pid = copy->peer_pid,
			                        .disk = d,
			                        .pass = copy->passes,
			                        .from = machine,
			                        .to = copy->peer_machine,
			                        .shipment = copy->shipments[d] };
		int64_t takes_us = chance_us(2 * MS, 10 * MS) + copy->shipments[d].count * BLOCK_TIME * machine->slow;
		event_add(takes_us, 0, deliver, delivery, 0, true);
		if (world.scenario.plant == PLANT_LATE_WRITE) { /* something on the way holds it, and sends it again */
			struct delivery *late = calloc(1, sizeof(*late));
			if (!late)
				abort();
			*late = *delivery;
			event_add(takes_us + chance_us(50 * MS, 3 * SECOND), 0, deliver, late, 0, true);
		}
	}
	copy->first = false;
	return 0;
}

/* 1: it is over and verified. */
static int end_pass(struct sim_leg *self, struct err *err)
{
	struct copy *copy = &self->copy;
	if (copy->failure.code != ERR_NONE) {
		*err = copy->failure;
		return -1;
	}
	if (!wire_is_up(&self->leg))
		return err_set(err, ERR_PEER_LOST, "the other leg is gone");
	if (copy->arrived < self->leg.source->disk_count)
		return 0;
	for (unsigned d = 0; d < self->leg.source->disk_count; d++)
		if (!storage_holds(copy->peer_pid, d, &copy->shipments[d]))
			return err_set(err, ERR_CORRUPT, "disk %u at the destination is not what was sent", d);
	return 1;
}

static unsigned dirty(const struct sim_leg *self)
{
	unsigned count = 0;
	for (unsigned d = 0; d < self->leg.source->disk_count; d++)
		count += storage_dirty(self->proc->machine, self->leg.plan->vm.uuid, self->leg.options.migration, d);
	return count;
}

/* ---- source ---- */

enum source_step {
	S_BEGIN = 0,
	S_CONNECT,
	S_PASS,
	S_PASSING,
	S_MEMORY,
	S_READY,
	S_SUSPEND,
	S_FINAL,
	S_FINISHING,
	S_END
};

static int connect_peer(struct sim_leg *self, struct err *err)
{
	struct sim_leg *peer = sim_leg_at(self->leg.endpoint);
	int64_t since_us;
	if (peer && peer->copy.serving && !machines_legs_cut(self->proc->machine, peer->proc->machine, &since_us)) {
		if (strcmp(peer->fingerprint, self->expected) != 0)
			return err_set(err, ERR_DENIED, "that peer has another certificate");
		if (strcmp(self->fingerprint, peer->expected) == 0 && !peer->leg.link) {
			wire_connect(self, peer, false);
			leg_post_begun(&self->leg);
			return 1;
		}
	}
	if (world_now_us >= self->copy.deadline_us)
		return err_set(err, ERR_PEER_LOST, "stream 0 to %s", self->leg.endpoint);
	return 0;
}

static int suspend(struct sim_leg *self, struct err *err)
{
	struct leg *leg = &self->leg;
	if (leg_flag(leg, &(struct verdict_facts) { .suspended = true }, err))
		return -1;
	atomic_store(&leg->suspending, true);
	source_moment(leg->source, MOMENT_SUSPENDING);
	fault_at_switchover(self->proc->machine, self->copy.peer_machine, self->proc->pid, self->copy.peer_pid);
	if (hypervisor_suspend(self->proc->machine, leg->plan->vm.uuid, err))
		return -1;
	source_moment(leg->source, MOMENT_SUSPENDED);
	return 0;
}

static int end_stream(struct sim_leg *self, struct err *err)
{
	struct leg *leg = &self->leg;
	const struct instance *instance = instance_find(self->proc->machine, leg->plan->vm.uuid);
	unsigned char payload[64];
	if (!instance || !instance->alive)
		return err_set(err, ERR_UNKNOWN_VM, "the VM has ended");
	if (leg_flag(leg, &(struct verdict_facts) { .stream_ended = true }, err))
		return -1;
	struct frame_end end = { .memory_bytes = instance->tick,
		                 .disk_count = leg->source->disk_count,
		                 .facts = { .suspended = true, .stream_ended = true } };
	source_moment(leg->source, MOMENT_ENDED);
	if (!wire_is_up(leg))
		return err_set(err, ERR_PEER_LOST, "end of stream");
	leg_link_post(leg, FRAME_END, payload, frame_end_put(payload, &end));
	return 0;
}

static int wait_for(struct sim_leg *self, int64_t us)
{
	self->wait_us = us;
	return JOB_AGAIN;
}

static int go_to(struct sim_leg *self, enum source_step step, int64_t us)
{
	self->copy.step = (int)step;
	return wait_for(self, us);
}

static int passing(struct sim_leg *self, enum source_step next, struct err *err)
{
	int over = end_pass(self, err);
	if (over < 0)
		return -1;
	return over ? go_to(self, next, 0) : wait_for(self, WAIT_PAUSE);
}

static int source_going(struct sim_leg *self, struct err *err)
{
	struct copy *copy = &self->copy;
	struct leg *leg = &self->leg;
	int connected;
	switch ((enum source_step)copy->step) {
	case S_BEGIN:
		copy->deadline_us = world_now_us + CONNECT_LIMIT;
		copy->first = true;
		leg->source->copy_began_ms = leg_now_ms();
		atomic_store(&leg->source->began_ms, leg_now_ms());
		return go_to(self, S_CONNECT, 0);
	case S_CONNECT:
		connected = connect_peer(self, err);
		if (connected < 0)
			return -1;
		return connected ? go_to(self, S_PASS, 1 * MS) : wait_for(self, CONNECT_PAUSE);
	case S_PASS:
		return begin_pass(self, err) ? -1 : go_to(self, S_PASSING, WAIT_PAUSE);
	case S_PASSING:
		return passing(self, copy->passes < PASSES_MAX && dirty(self) > SMALL_BLOCKS ? S_PASS : S_MEMORY, err);
	case S_MEMORY:
		return go_to(self, S_READY, chance_us(MEMORY_TIME / 4, MEMORY_TIME));
	case S_READY:
		if (!wire_is_up(leg))
			return err_set(err, ERR_PEER_LOST, "the other leg is gone");
		if (!atomic_load(&leg->ready))
			leg_post_ready(leg);
		return atomic_load(&leg->granted) ? go_to(self, S_SUSPEND, 0) : wait_for(self, CONNECT_PAUSE);
	case S_SUSPEND:
		return suspend(self, err) ? -1 : go_to(self, S_FINAL, chance_us(1 * MS, 20 * MS));
	case S_FINAL:
		for (unsigned d = 0; d < leg->source->disk_count; d++)
			leg->source->disks[d].drained = true;
		return begin_pass(self, err) ? -1 : go_to(self, S_FINISHING, WAIT_PAUSE);
	case S_FINISHING:
		return passing(self, S_END, err);
	case S_END:
		break;
	}
	return end_stream(self, err);
}

int source_copy(struct leg *leg, struct err *err)
{
	if (cancel_fired(leg->work))
		return err_set(err, ERR_CANCELLED, "cancelled");
	return source_going(sim_leg_of(leg), err);
}

/* ---- destination ---- */

enum dest_step { D_BEGIN = 0, D_CONNECT, D_RECEIVE, D_FENCE, D_ATTACH };

static int fence(struct dest *dest, struct err *err)
{
	for (unsigned i = 0; i < dest->disk_count; i++) {
		struct exporter *exporter = dest->disks[i].exporter;
		dest->disks[i].exporter = NULL;
		if (!exporter || exporter_revoke(exporter, err))
			return -1;
	}
	return 0;
}

static int attach(struct leg *leg, struct err *err)
{
	struct hypervisor_image images[GUEST_DISKS] = { 0 };
	for (unsigned i = 0; i < leg->dest->disk_count; i++)
		memcpy(images[i].path, leg->dest->disks[i].path, sizeof(images[i].path));
	return leg->ops->dest_attach(leg->dest->vm, images, leg->dest->disk_count, err);
}

/* The memory is all here, with the end of stream. */
static int receive(struct sim_leg *self, struct err *err)
{
	struct instance *instance = instance_find(self->proc->machine, self->leg.plan->vm.uuid);
	if (proc_is_dying() || !instance || !instance->alive || instance->state != INSTANCE_INCOMING)
		return err_set(err, ERR_HYPERVISOR, "the incoming VM is gone");
	instance->tick = self->copy.memory_tick;
	instance->complete = true;
	return 0;
}

static int dest_going(struct sim_leg *self, struct err *err)
{
	struct leg *leg = &self->leg;
	switch ((enum dest_step)self->copy.step) {
	case D_BEGIN:
		self->copy.serving = true;
		self->copy.deadline_us = world_now_us + LINK_LIMIT;
		leg_post_begun(leg);
		self->copy.step = D_CONNECT;
		return wait_for(self, WAIT_PAUSE);
	case D_CONNECT:
		if (leg->link)
			self->copy.step = D_RECEIVE;
		else if (world_now_us >= self->copy.deadline_us)
			return err_set(err, ERR_PEER_LOST, "the source has not connected");
		return wait_for(self, WAIT_PAUSE);
	case D_RECEIVE:
		if (!self->copy.ended)
			return wait_for(self, WAIT_PAUSE);
		self->copy.step = D_FENCE;
		return receive(self, err) ? -1 : wait_for(self, chance_us(1 * MS, 20 * MS));
	case D_FENCE:
		self->copy.step = D_ATTACH;
		return fence(leg->dest, err) ? -1 : wait_for(self, chance_us(1 * MS, 100 * MS));
	case D_ATTACH:
		break;
	}
	if (attach(leg, err))
		return -1;
	leg_post_complete(leg);
	return 0;
}

int dest_copy(struct leg *leg, struct err *err)
{
	if (cancel_fired(leg->work))
		return err_set(err, ERR_CANCELLED, "cancelled");
	return dest_going(sim_leg_of(leg), err);
}

void dest_copy_end(struct dest *dest)
{
	sim_leg_of(dest->leg)->copy.serving = false;
	link_stop(leg_link_take(dest->leg));
}

void dest_wake(void *dest)
{
	(void)dest; /* whoever waits looks again by himself */
}

void relays_free(struct relays *relays)
{
	(void)relays; /* there are none */
}
