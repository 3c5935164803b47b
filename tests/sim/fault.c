/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What goes wrong, and how often: rates by level, one thing after another on a schedule, everything counted. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/world.h"

#define LEVELS 5

static const char *const names[FAULTS] = {
	[FAULT_LOSE] = "message-lost",
	[FAULT_DOUBLE] = "message-doubled",
	[FAULT_DELAY] = "message-late",
	[FAULT_REORDER] = "message-overtaking",
	[FAULT_CUT] = "link-cut",
	[FAULT_CUT_LEGS] = "data-link-cut",
	[FAULT_BREAK] = "data-connection-broken",
	[FAULT_KILL_COORDINATOR] = "coordinator-killed",
	[FAULT_KILL_AGENT] = "agent-killed",
	[FAULT_KILL_LEG] = "leg-killed",
	[FAULT_KILL_AT_WRITE] = "killed-at-commit",
	[FAULT_POWER] = "host-off",
	[FAULT_GONE] = "host-gone",
	[FAULT_JOURNAL] = "journal-lost",
	[FAULT_STALL] = "process-stalled",
	[FAULT_CLOCK] = "clock-jump",
	[FAULT_DISK_FULL] = "disk-full",
	[FAULT_DISK_SLOW] = "disk-slow",
	[FAULT_UNPAUSE] = "unpause-failed",
	[FAULT_SUSPEND] = "suspend-failed",
	[FAULT_INVENTORY] = "inventory-failed",
	[FAULT_GUEST] = "guest-ended",
};

const char *fault_name(enum fault fault)
{
	return names[fault];
}

static const char *const plants[PLANTS] = { "none",      "impatient",  "liar", "rumour",
	                                    "dirty-log", "late-write", "leak", "amnesia" };

const char *plant_name(enum plant plant)
{
	return plants[plant];
}

enum plant plant_from_name(const char *name)
{
	int plant = PLANT_NONE;
	while (plant < PLANTS && strcmp(plants[plant], name) != 0)
		plant++;
	return (enum plant)plant;
}

/* Per million of what could go wrong: of messages, of commits, of calls. */
static const unsigned rate[FAULTS][LEVELS] = {
	[FAULT_LOSE] = { 0, 1000, 10000, 50000, 250000 },      [FAULT_DOUBLE] = { 0, 1000, 10000, 50000, 200000 },
	[FAULT_DELAY] = { 0, 300, 3000, 15000, 60000 },        [FAULT_REORDER] = { 0, 1000, 10000, 100000, 300000 },
	[FAULT_KILL_AT_WRITE] = { 0, 300, 2000, 6000, 20000 }, [FAULT_UNPAUSE] = { 0, 10000, 50000, 200000, 400000 },
	[FAULT_SUSPEND] = { 0, 10000, 50000, 100000, 200000 }, [FAULT_INVENTORY] = { 0, 100, 1000, 5000, 20000 },
};

/* What happens on the schedule, as weights. */
static const unsigned weight[FAULTS] = {
	[FAULT_CUT] = 14,        [FAULT_CUT_LEGS] = 14, [FAULT_BREAK] = 10, [FAULT_KILL_COORDINATOR] = 4,
	[FAULT_KILL_AGENT] = 14, [FAULT_KILL_LEG] = 16, [FAULT_POWER] = 5,  [FAULT_GONE] = 1,
	[FAULT_JOURNAL] = 1,     [FAULT_STALL] = 10,    [FAULT_CLOCK] = 4,  [FAULT_DISK_FULL] = 4,
	[FAULT_DISK_SLOW] = 4,   [FAULT_GUEST] = 1,
};

/* Between two of them, on a world of ten hosts. */
static const int64_t pause_us[LEVELS] = { 0, 20 * SECOND, 5 * SECOND, 2 * SECOND, 800 * MS };

static void count(enum fault fault)
{
	world.injected[fault]++;
}

bool fault_happens(enum fault fault)
{
	if (world.calm || !chance_ppm(rate[fault][world.scenario.level]))
		return false;
	count(fault);
	return true;
}

int fault_at_commit(void)
{
	if (!world_current || world_current->kind == PROC_OPERATOR || !fault_happens(FAULT_KILL_AT_WRITE))
		return 0;
	return 1 + (int)chance_below(2);
}

/* ---- the schedule ---- */

/* Of switchovers, in which something more goes wrong. */
static const unsigned switchover_rate[LEVELS] = { 0, 50000, 200000, 500000, 800000 };

static struct machine *some_machine(void)
{
	return world.machines[chance_below(world.machine_count)];
}

static void heal_cut(void *ctx, uint64_t unused)
{
	struct machine *machine = ctx;
	(void)unused;
	machine->cut = false;
	trace("%s reaches the coordinator again", machine->name);
}

static void heal_legs(void *ctx, uint64_t other)
{
	machines_cut_legs(ctx, world.machines[other], false);
}

static void heal_disk(void *ctx, uint64_t unused)
{
	struct machine *machine = ctx;
	(void)unused;
	machine->disk_full = false;
	machine->slow = 1;
}

static void power_on(void *ctx, uint64_t unused)
{
	struct machine *machine = ctx;
	(void)unused;
	if (!machine->gone && !machine->on)
		machine_power_on(machine);
}

/* Short or long, from a blink to well over every deadline. */
static int64_t some_while(void)
{
	static const int64_t most_us[] = { 500 * MS, 5 * SECOND, 15 * SECOND, 60 * SECOND, 120 * SECOND };
	return chance_us(50 * MS, most_us[chance_below(sizeof(most_us) / sizeof(most_us[0]))]);
}

static void cut(struct machine *machine)
{
	machine->cut = true;
	trace("%s is cut from the coordinator", machine->name);
	net_client_links(machine);
	event_add(some_while(), 0, heal_cut, machine, 0, false);
}

static void cut_legs(struct machine *a, struct machine *b)
{
	if (a == b)
		return;
	machines_cut_legs(a, b, true);
	event_add(some_while(), 0, heal_legs, a, b->index, false);
}

static struct proc *some_leg(const struct machine *machine)
{
	struct proc *found = NULL;
	unsigned seen = 0;
	for (unsigned pid = 1; pid <= proc_newest(); pid++) {
		struct proc *proc = proc_find(pid);
		if (proc && proc->kind == PROC_LEG && proc->machine == machine && chance_below(++seen) == 0)
			found = proc;
	}
	return found;
}

static struct proc *some_proc(struct machine *machine)
{
	struct proc *leg = some_leg(machine);
	switch (chance_below(4)) {
	case 0:
		return world.coordinator;
	case 1:
		return machine->agent;
	}
	return leg ? leg : machine->agent;
}

static void off(struct machine *machine, enum fault fault)
{
	if (!machine->on)
		return;
	machine->gone = fault == FAULT_GONE;
	machine_power_off(machine);
	if (fault == FAULT_JOURNAL)
		machine_lose_journal(machine);
	event_add(chance_us(2 * SECOND, 90 * SECOND), 0, power_on, machine, 0, false);
}

static void stall(struct proc *proc)
{
	if (!proc)
		return;
	proc->stalled_until_us = world_now_us + some_while() / 2;
	trace("process %u stands still until %lld ms", proc->pid, (long long)(proc->stalled_until_us / MS));
}

static void guest_ends(struct machine *machine)
{
	unsigned seen = 0;
	struct instance *found = NULL;
	for (struct instance *i = machine->instances; i; i = i->next)
		if (i->alive && i->state == INSTANCE_RUNNING && chance_below(++seen) == 0)
			found = i;
	if (found)
		instance_die(found);
}

static void happen(enum fault fault)
{
	struct machine *machine = some_machine(), *other = some_machine();
	switch ((int)fault) {
	case FAULT_CUT:
		cut(machine);
		break;
	case FAULT_CUT_LEGS:
		cut_legs(machine, other);
		break;
	case FAULT_BREAK:
		if (!wires_break_one())
			return;
		break;
	case FAULT_KILL_COORDINATOR:
		if (world.coordinator)
			proc_end(world.coordinator, 9);
		break;
	case FAULT_KILL_AGENT:
		if (machine->agent)
			proc_end(machine->agent, 9);
		break;
	case FAULT_KILL_LEG: {
		struct proc *leg = some_leg(machine);
		if (!leg)
			return;
		proc_end(leg, 9);
		break;
	}
	case FAULT_POWER:
	case FAULT_GONE:
	case FAULT_JOURNAL:
		off(machine, fault);
		break;
	case FAULT_STALL:
		stall(some_proc(machine));
		break;
	case FAULT_CLOCK:
		machine->wall_offset_ms += (int64_t)chance_below(7200000) - 3600000;
		break;
	case FAULT_DISK_FULL:
		machine->disk_full = true;
		event_add(some_while(), 0, heal_disk, machine, 0, false);
		break;
	case FAULT_DISK_SLOW:
		machine->slow = 2 + (unsigned)chance_below(20);
		event_add(some_while(), 0, heal_disk, machine, 0, false);
		break;
	case FAULT_GUEST:
		guest_ends(machine);
		break;
	}
	count(fault);
}

/* ---- in a switchover ---- */

struct moment {
	struct machine *host[2];
	unsigned leg[2];
};

static void kill_pid(unsigned pid)
{
	struct proc *proc = proc_find(pid);
	if (proc)
		proc_end(proc, 9);
}

static void happen_now(void *ctx, uint64_t unused)
{
	static const enum fault some[] = { FAULT_CUT,        FAULT_CUT_LEGS, FAULT_BREAK,
		                           FAULT_KILL_AGENT, FAULT_KILL_LEG, FAULT_KILL_COORDINATOR,
		                           FAULT_STALL,      FAULT_POWER,    FAULT_DISK_FULL };
	const struct moment *moment = ctx;
	unsigned which = (unsigned)chance_below(2);
	struct machine *machine = moment->host[which];
	enum fault fault = some[chance_below(sizeof(some) / sizeof(some[0]))];
	(void)unused;
	if (world.calm || !machine->on)
		return;
	if (fault == FAULT_POWER && chance_below(3)) /* not too many: the VM may die with it */
		fault = FAULT_KILL_LEG;
	count(fault);
	switch ((int)fault) {
	case FAULT_CUT:
		cut(machine);
		break;
	case FAULT_CUT_LEGS:
		cut_legs(machine, moment->host[!which]);
		break;
	case FAULT_BREAK:
		(void)wires_break_one();
		break;
	case FAULT_KILL_AGENT:
		if (machine->agent)
			proc_end(machine->agent, 9);
		break;
	case FAULT_KILL_LEG:
		kill_pid(moment->leg[which]);
		break;
	case FAULT_KILL_COORDINATOR:
		if (world.coordinator)
			proc_end(world.coordinator, 9);
		break;
	case FAULT_STALL:
		stall(proc_find(moment->leg[which]));
		break;
	case FAULT_POWER:
		off(machine, FAULT_POWER);
		break;
	case FAULT_DISK_FULL:
		machine->disk_full = true;
		event_add(some_while(), 0, heal_disk, machine, 0, false);
		break;
	}
}

void fault_at_switchover(struct machine *from, struct machine *to, unsigned from_leg, unsigned to_leg)
{
	if (world.calm)
		return;
	while (chance_ppm(switchover_rate[world.scenario.level])) {
		struct moment *moment = malloc(sizeof(*moment));
		if (!moment)
			abort();
		*moment = (struct moment) { { from, to }, { from_leg, to_leg } };
		event_add(chance_us(0, chance_below(3) ? 400 * MS : 8 * SECOND), 0, happen_now, moment, 0, true);
	}
}

/* ---- all the time ---- */

static enum fault some_fault(void)
{
	unsigned all = 0, fault = 0;
	for (unsigned i = 0; i < FAULTS; i++)
		all += weight[i];
	for (uint64_t at = chance_below(all); at >= weight[fault]; fault++)
		at -= weight[fault];
	return (enum fault)fault;
}

static void next_fault(void *ctx, uint64_t unused)
{
	(void)ctx, (void)unused;
	if (world.calm)
		return;
	happen(some_fault());
	int64_t mean_us = pause_us[world.scenario.level] * 10 / (int64_t)world.machine_count;
	event_add(chance_us(mean_us / 10, 2 * mean_us), 0, next_fault, NULL, 0, false);
}

void faults_begin(void)
{
	if (pause_us[world.scenario.level])
		event_add(5 * SECOND, 0, next_fault, NULL, 0, false);
}

void faults_heal(void)
{
	world.calm = true;
	trace("all faults are healed");
	for (unsigned i = 0; i < world.machine_count; i++) {
		struct machine *machine = world.machines[i];
		machine->cut = false;
		heal_disk(machine, 0);
		for (unsigned j = 0; j < i; j++)
			machines_cut_legs(machine, world.machines[j], false);
		power_on(machine, 0);
	}
}
