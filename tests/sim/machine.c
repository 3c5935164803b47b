/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hosts, their agents, the coordinator, and who starts them again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "common/clock.h"
#include "common/loop.h"
#include "tests/sim/world.h"

/* ---- agents ---- */

static void agent_end(struct proc *proc)
{
	agent_free(proc->object);
	loop_free(proc->loop);
	proc->object = NULL;
	proc->loop = NULL;
}

static void main_of_agent(void *ctx, uint64_t unused)
{
	struct machine *machine = ctx;
	struct agent *agent = NULL;
	struct err err = { 0 };
	(void)unused;
	struct loop *loop = loop_new(&err);
	if (!loop || agent_new(&agent, loop, &machine->paths, machine->conf, &err) < 0) {
		trace("%s: the agent does not start: %s", machine->name, err.text);
		proc_end(world_current, 1 << 8);
	}
	world_current->object = agent;
}

static void agent_begin(void *ctx, uint64_t boots)
{
	struct machine *machine = ctx;
	if (!machine->on || machine->agent || machine->boots != boots)
		return;
	machine->agent = proc_new(PROC_AGENT, machine, agent_end);
	trace("%s: agent is process %u", machine->name, machine->agent->pid);
	proc_run_in(machine->agent, main_of_agent, machine, 0);
}

struct agent *machine_agent(const struct machine *machine)
{
	return machine->agent ? machine->agent->object : NULL;
}

void machine_proc_ended(struct proc *proc)
{
	struct machine *machine = proc->machine;
	switch (proc->kind) {
	case PROC_COORDINATOR:
		world.coordinator = NULL;
		event_add(chance_us(100 * MS, world.calm ? 2 * SECOND : 20 * SECOND), 0, coordinator_begin, NULL, 0,
		          false);
		break;
	case PROC_AGENT:
		machine->agent = NULL;
		event_add(chance_us(100 * MS, world.calm ? 2 * SECOND : 20 * SECOND), 0, agent_begin, machine,
		          machine->boots, false);
		break;
	case PROC_LEG:
		if (machine->agent)
			loop_child_ended(proc->parent, (pid_t)proc->pid, proc->status);
		break;
	case PROC_WORLD:
	case PROC_EXPORTER:
	case PROC_OPERATOR:
		break;
	}
}

/* ---- power ---- */

void machine_power_off(struct machine *machine)
{
	trace("%s is switched off%s", machine->name, machine->gone ? ", for ever" : "");
	machine->on = false;
	machine->hurt = true;
	for (struct instance *i = machine->instances; i; i = i->next)
		instance_die(i);
	for (unsigned pid = 1; pid <= proc_newest(); pid++) {
		struct proc *proc = proc_find(pid);
		if (proc && proc->machine == machine && proc->kind != PROC_EXPORTER)
			proc_end(proc, 9);
	}
	storage_power_off(machine);
	if (world.scenario.plant == PLANT_AMNESIA)
		vfs_forget(machine);
}

static void boot(struct machine *machine)
{
	machine->on = true;
	machine->boots++;
	(void)snprintf(machine->boot_id, sizeof(machine->boot_id), "boot-%s-%u", machine->name, machine->boots);
	event_add(chance_us(10 * MS, 3 * SECOND), 0, agent_begin, machine, machine->boots, false);
}

void machine_power_on(struct machine *machine)
{
	trace("%s is switched on", machine->name);
	boot(machine);
}

void machine_lose_journal(struct machine *machine)
{
	static const char *const suffix[] = { "", "-wal", "-shm" };
	char path[PATHS_MAX + 32];
	for (unsigned i = 0; i < sizeof(suffix) / sizeof(suffix[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/journal.db%s", machine->paths.lib, suffix[i]);
		(void)unlink(path);
	}
	machine->amnesic = true;
	trace("%s has lost its journal", machine->name);
}

/* ---- data links ---- */

bool machines_legs_cut(const struct machine *a, const struct machine *b, int64_t *ret_since_us)
{
	if (!a->on || !b->on) {
		*ret_since_us = world_now_us - CUT_SILENCE;
		return true;
	}
	*ret_since_us = a->legs_cut_us[b->index];
	return *ret_since_us != 0;
}

void machines_cut_legs(struct machine *a, struct machine *b, bool cut)
{
	if ((a->legs_cut_us[b->index] != 0) == cut)
		return;
	a->legs_cut_us[b->index] = b->legs_cut_us[a->index] = cut ? world_now_us : 0;
	trace("%s and %s are %s each other", a->name, b->name, cut ? "cut from" : "linked again with");
	if (cut)
		wires_cut(a, b);
}

/* ---- making them ---- */

struct machine *machine_find(const char *name)
{
	for (unsigned i = 0; i < world.machine_count; i++)
		if (strcmp(world.machines[i]->name, name) == 0)
			return world.machines[i];
	return NULL;
}

static int make_dirs(struct paths *paths, const char *home, struct err *err)
{
	(void)snprintf(paths->home, sizeof(paths->home), "%s", home);
	(void)snprintf(paths->etc, sizeof(paths->etc), "%.64s/etc", home);
	(void)snprintf(paths->lib, sizeof(paths->lib), "%.64s/lib", home);
	(void)snprintf(paths->run, sizeof(paths->run), "%.64s/run", home);
	if (mkdir(home, 0700) && errno != EEXIST)
		return err_errno(err, ERR_IO, errno, "%s", home);
	return paths_make(paths, err);
}

static struct agent_conf *make_conf(const struct machine *machine)
{
	struct agent_conf *conf = calloc(1, sizeof(*conf));
	if (!conf)
		abort();
	(void)snprintf(conf->host, sizeof(conf->host), "%s", machine->name);
	(void)snprintf(conf->pool, sizeof(conf->pool), "pool%u", machine->index % world.scenario.pools);
	(void)snprintf(conf->hypervisor, sizeof(conf->hypervisor), "sim");
	(void)snprintf(conf->coordinator, sizeof(conf->coordinator), "sim");
	(void)snprintf(conf->leg, sizeof(conf->leg), "/proc/self/exe"); /* something that can be run; it is not */
	(void)snprintf(conf->networks[0], sizeof(conf->networks[0]), "br0");
	(void)snprintf(conf->srs[0].name, sizeof(conf->srs[0].name), "local");
	(void)snprintf(conf->srs[0].type, sizeof(conf->srs[0].type), "dir");
	(void)snprintf(conf->srs[0].path, sizeof(conf->srs[0].path), "/sr");
	conf->srs[0].format = FORMAT_RAW;
	conf->sr_count = conf->network_count = 1;
	conf->exporter = EXPORTER_NBD;
	conf->orphan_grace_ms = 60000;
	return conf;
}

static int make_machine(unsigned index, struct err *err)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	if (!machine)
		return err_set(err, ERR_NO_MEMORY, "host");
	machine->index = index;
	machine->slow = 1;
	(void)snprintf(machine->name, sizeof(machine->name), "h%u", index);
	machine->legs_cut_us = calloc(world.machine_count, sizeof(int64_t));
	machine->conf = make_conf(machine);
	machine->memory_bytes = (6 + chance_below(12)) * (256ull << 20);
	machine->disk_bytes = (8 + chance_below(24)) * (uint64_t)GUEST_BLOCKS * GUEST_BLOCK_BYTES;
	if (!machine->legs_cut_us || make_dirs(&machine->paths, machine->name, err) < 0)
		return -1;
	world.machines[index] = machine;
	boot(machine);
	return 0;
}

int machines_make(struct err *err)
{
	world.machine_count = world.scenario.hosts;
	world.machines = calloc(world.machine_count, sizeof(*world.machines));
	if (!world.machines)
		return err_set(err, ERR_NO_MEMORY, "hosts");
	for (unsigned i = 0; i < world.machine_count; i++)
		if (make_machine(i, err) < 0)
			return -1;
	return 0;
}

void machines_free(void)
{
	for (unsigned i = 0; i < world.machine_count; i++) {
		struct machine *machine = world.machines[i];
		while (machine->instances)
			instance_remove(machine->instances);
		while (machine->images) {
			struct image *image = machine->images;
			machine->images = image->next;
			free(image);
		}
		free(machine->legs_cut_us);
		free(machine->conf);
		free(machine);
	}
	free(world.machines);
}
