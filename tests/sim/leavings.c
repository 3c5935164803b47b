/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is on the hosts in the end, and whether somebody answers for it. */
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "agent/agent_impl.h"
#include "tests/sim/world.h"

struct claims {
	struct journal_resource *list;
	size_t count;
};

static bool claimed(const struct claims *claims, enum resource_kind kind, const char *path)
{
	for (size_t i = 0; i < claims->count; i++)
		if (claims->list[i].kind == kind && strcmp(claims->list[i].path, path) == 0)
			return true;
	return false;
}

static bool used_by_vm(const struct machine *machine, const char *path)
{
	for (const struct instance *i = machine->instances; i; i = i->next)
		for (unsigned d = 0; i->state != INSTANCE_INCOMING && d < i->guest->disks; d++)
			if (strcmp(i->paths[d], path) == 0)
				return true;
	return false;
}

static void check_image(const struct machine *machine, const struct claims *claims, const struct image *image)
{
	if (image->reserve_bytes && !claimed(claims, RESOURCE_RESERVE, image->path))
		promise_broken("nothing is left that no journal claims", "reserve of %s on %s", image->path,
		               machine->name);
	if (image->made && !used_by_vm(machine, image->path) && !claimed(claims, RESOURCE_DISK, image->path) &&
	    !claimed(claims, RESOURCE_SOURCE_DISK, image->path))
		promise_broken("nothing is left that no journal claims", "disk %s on %s", image->path, machine->name);
}

static void check_instance(const struct claims *claims, const struct instance *instance)
{
	char name[UUID_STR_LEN];
	bool known = false, bitmaps = true;
	uuid_unparse_lower(instance->guest->uuid, name);
	for (size_t i = 0; i < claims->count; i++)
		known |= claims->list[i].kind == RESOURCE_VM && strcmp(claims->list[i].name, name) == 0;
	if (instance->state == INSTANCE_INCOMING && !known)
		promise_broken("nothing is left that no journal claims", "incoming VM %s on %s", instance->guest->name,
		               instance->machine->name);
	for (const struct bitmap *b = instance->bitmaps; b; b = b->next) {
		bool mine = false;
		for (size_t i = 0; i < claims->count; i++)
			mine |= claims->list[i].kind == RESOURCE_BITMAP && claims->list[i].migration == b->migration;
		bitmaps &= mine;
	}
	if (!bitmaps)
		promise_broken("nothing is left that no journal claims", "bitmap of %s on %s", instance->guest->name,
		               instance->machine->name);
}

static const struct record *record_of(const struct record *list, size_t count, uint64_t id)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].id == id)
			return &list[i];
	return NULL;
}

/* All hosts of it are there, and it is over: nothing of it is to be left but what is kept on purpose. */
static bool is_all_over(const struct record *list, size_t count, uint64_t id)
{
	const struct record *record = record_of(list, count, id);
	return record && record->final && strcmp(record->state, "lost") != 0 && !record_is_orphaned(record);
}

static void check_sessions(const struct machine *machine, const struct agent *agent, const struct record *list,
                           size_t count)
{
	for (const struct session *s = agent->sessions; s; s = s->next)
		if (!s->doomed && is_all_over(list, count, s->row.migration))
			promise_broken("what is over is forgotten", "migration %llu on %s is %s",
			               (unsigned long long)s->row.migration, machine->name,
			               session_state_name(s->row.core.state));
	if (!agent->sessions && legs_running(machine))
		promise_broken("no leg outlives its session", "%u on %s", legs_running(machine), machine->name);
}

static void check_machine(const struct machine *machine, const struct record *list, size_t count)
{
	struct claims claims = { NULL, 0 };
	struct err err;
	const struct agent *agent = machine_agent(machine);
	if (!machine->on || machine->amnesic)
		return;
	if (!agent) {
		promise_broken("an agent that ended is started again", "%s", machine->name);
		return;
	}
	if (journal_resource_list(agent->journal, 0, 0, &claims.list, &claims.count, &err) < 0) {
		promise_broken("the journals can be read", "%s: %s", machine->name, err.text);
		return;
	}
	for (const struct image *i = machine->images; i; i = i->next)
		check_image(machine, &claims, i);
	for (const struct instance *i = machine->instances; i; i = i->next)
		check_instance(&claims, i);
	for (size_t i = 0; i < claims.count; i++)
		if (claims.list[i].state != RESOURCE_KEPT && is_all_over(list, count, claims.list[i].migration))
			promise_broken("what is over is taken away", "%s %s of migration %llu on %s",
			               resource_kind_name(claims.list[i].kind), claims.list[i].name,
			               (unsigned long long)claims.list[i].migration, machine->name);
	check_sessions(machine, agent, list, count);
	free(claims.list);
}

void leavings_check(void)
{
	size_t count = 0;
	struct record *list = records_list(&count);
	for (unsigned i = 0; i < world.machine_count; i++)
		check_machine(world.machines[i], list, count);
	free(list);
}
