/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the coordinator has on record, and whether the world is so. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/coordinator_room.h"
#include "tests/sim/world.h"

#define PAGE 500

static bool is_away(const struct machine *machine)
{
	return !machine || machine->gone || machine->amnesic;
}

bool record_is_orphaned(const struct record *record)
{
	return is_away(record->source) || is_away(record->destination);
}

bool records_are_quiet(void)
{
	const struct coordinator *c = coordinator_running();
	if (!c)
		return false;
	for (size_t i = 0; i < c->run_count; i++)
		if (!is_away(machine_find(c->runs[i]->rec.source)) &&
		    !is_away(machine_find(c->runs[i]->rec.destination)))
			return false;
	return true;
}

void records_check_rest(void)
{
	const struct coordinator *c = coordinator_running();
	if (!c) {
		promise_broken("a coordinator that ended is started again", "it does not run");
		return;
	}
	for (size_t i = 0; i < c->run_count; i++) {
		const struct run *run = c->runs[i];
		if (!is_away(machine_find(run->rec.source)) && !is_away(machine_find(run->rec.destination)))
			promise_broken("everything comes to its end",
			               "migration %llu from %s to %s is %s, asks the source for %s and the destination for %s",
			               (unsigned long long)run->rec.id, run->rec.source, run->rec.destination,
			               migration_state_name(run->rec.core.state), step_name(run->pending[0].step),
			               step_name(run->pending[1].step));
	}
}

static void take(struct record *to, const struct store_migration *from)
{
	to->id = from->id;
	(void)snprintf(to->state, sizeof(to->state), "%s", migration_state_name(from->core.state));
	to->final = migration_is_final(from->core.state);
	memcpy(to->vm, from->vm, sizeof(uuid_bytes));
	to->source = machine_find(from->source);
	to->destination = machine_find(from->destination);
}

struct record *records_list(size_t *ret_count)
{
	struct coordinator *c = coordinator_running();
	struct record *list = NULL;
	struct store_filter filter = { .final_too = true, .limit = PAGE };
	struct err err;
	size_t got = c ? PAGE : 0;
	*ret_count = 0;
	while (got == PAGE) {
		struct store_migration *page = NULL;
		if (store_migration_list(c->store, &filter, &page, &got, &err) != 0) {
			promise_broken("the records can be read", "%s", err.text);
			break;
		}
		list = reallocarray(list, *ret_count + got + 1, sizeof(*list));
		if (!list)
			abort();
		for (size_t i = 0; i < got; i++) {
			take(&list[(*ret_count)++], &page[i]);
			filter.after = page[i].id;
		}
		store_migration_list_free(page, got);
	}
	return list;
}

/* ---- VMs ---- */

static struct machine *owner_of(const struct record *record)
{
	if (strcmp(record->state, "done") == 0)
		return record->destination;
	return strcmp(record->state, "lost") == 0 ? NULL : record->source;
}

/* It died with its host: what it had flushed is on the disks that its record says are its. */
static void check_dead_disks(const struct guest *guest, const struct machine *owner)
{
	const struct instance *instance = owner && !owner->gone ? instance_find(owner, guest->uuid) : NULL;
	if (!instance || instance->state == INSTANCE_INCOMING)
		return;
	for (unsigned d = 0; d < guest->disks; d++) {
		const struct image *image = image_find(owner, instance->paths[d]);
		for (unsigned b = 0; b < GUEST_BLOCKS; b++)
			if (!image || image->now[b] < guest->flushed[d][b]) {
				promise_broken("every flushed write is on the owner's copy",
				               "%s on %s, disk %u, block %u", guest->name, owner->name, d, b);
				return;
			}
	}
}

static void check_guest(const struct guest *guest, const struct record *last)
{
	struct machine *home = world.machines[guest->index % world.machine_count];
	struct machine *owner = last ? owner_of(last) : home;
	const char *state = last ? last->state : "never migrated";
	if (last && !last->final) { /* it was said why; but until the votes are out nothing holds the VM */
		bool out = strcmp(state, "switching") == 0 || strcmp(state, "in-doubt") == 0 ||
		           strcmp(state, "committed") == 0;
		if (!out && !guest->running && !guest->ended && !is_away(last->source))
			promise_broken("no VM stays paused", "%s; its last migration (%llu) is %s", guest->name,
			               (unsigned long long)last->id, state);
		return;
	}
	if (guest->running && guest->running->machine != owner)
		promise_broken("the record agrees with the hosts", "%s runs on %s, its last migration (%llu) is %s",
		               guest->name, guest->running->machine->name, (unsigned long long)(last ? last->id : 0),
		               state);
	else if (!guest->running && !guest->ended && guest_has_copy(guest, true))
		promise_broken("no VM stays paused", "%s, since %lld s; its last migration (%llu) is %s", guest->name,
		               (long long)(guest->paused_us / SECOND), (unsigned long long)(last ? last->id : 0),
		               state);
	else if (!guest->running && owner)
		check_dead_disks(guest, owner);
}

void records_check(void)
{
	size_t count = 0;
	struct record *list = records_list(&count);
	const struct record **last = calloc(world.guest_count + 1, sizeof(*last));
	if (!last)
		abort();
	for (size_t i = 0; i < count; i++) {
		const struct guest *guest = guest_by_uuid(list[i].vm);
		if (guest)
			last[guest->index] = &list[i];
		if (!list[i].final && !record_is_orphaned(&list[i]))
			promise_broken("every migration comes to its end", "%llu from %s to %s is %s",
			               (unsigned long long)list[i].id, list[i].source->name, list[i].destination->name,
			               list[i].state);
	}
	for (unsigned i = 0; i < world.guest_count; i++) {
		if (world.guests[i]->running) {
			instance_advance(world.guests[i]->running);
			instance_check_disks(world.guests[i]->running);
		}
		check_guest(world.guests[i], last[i]);
	}
	free(last);
	free(list);
}

void records_print(void)
{
	size_t count = 0;
	struct record *list = records_list(&count);
	(void)printf("outcomes");
	for (int state = MIGRATION_QUEUED; state < MIGRATION_STATES; state++) {
		const char *name = migration_state_name((enum migration_state)state);
		unsigned n = 0;
		for (size_t i = 0; i < count; i++)
			n += strcmp(list[i].state, name) == 0;
		if (n)
			(void)printf(" %s %u", name, n);
	}
	(void)printf("\n");
	free(list);
}
