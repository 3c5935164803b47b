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
	return !machine || machine->amnesic || (machine->gone && !world.closed);
}

bool record_is_orphaned(const struct record *record)
{
	return is_away(record->source) || is_away(record->destination);
}

/* Some host that takes part is away; or it is lost, and what is left is the operator's to decide about. */
static bool waits(const struct run *run)
{
	return is_away(machine_find(run->rec.source)) || is_away(machine_find(run->rec.destination)) ||
	       (run->rec.core.state == MIGRATION_LOST && !verdict_may_release(&run->rec.core.facts));
}

bool records_are_quiet(void)
{
	const struct coordinator *c = coordinator_running();
	if (!c)
		return false;
	for (size_t i = 0; i < c->run_count; i++)
		if (!waits(c->runs[i]))
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
		if (!waits(run))
			promise_broken(
				"everything comes to its end",
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

/* What the records say of one VM, one after another. */
struct story {
	const struct record *last;
	struct machine *owner; /* NULL: it is lost */
};

static void tell(struct story *story, const struct record *record)
{
	story->last = record;
	if (strcmp(record->state, "done") == 0)
		story->owner = record->destination;
	else if (strcmp(record->state, "lost") == 0)
		story->owner = NULL;
	/* Else it stays where it is, which is not its source if that was a mistake. */
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

/* It was said why it is not over; but unless the votes are out nothing holds the VM. */
static void check_open(const struct guest *guest, const struct record *last)
{
	bool out = strcmp(last->state, "switching") == 0 || strcmp(last->state, "in-doubt") == 0 ||
	           strcmp(last->state, "committed") == 0;
	if (!out && !guest->running && !guest->ended && !is_away(last->source))
		promise_broken("no VM stays paused", "%s; its last migration (%llu) is %s", guest->name,
		               (unsigned long long)last->id, last->state);
}

static void check_guest(const struct guest *guest, const struct story *story)
{
	unsigned long long id = story->last ? story->last->id : 0;
	const char *state = story->last ? story->last->state : "none";
	if (story->last && !story->last->final)
		check_open(guest, story->last);
	else if (guest->running && guest->running->machine != story->owner)
		promise_broken("the record agrees with the hosts", "%s runs on %s, its last migration (%llu) is %s",
		               guest->name, guest->running->machine->name, id, state);
	else if (guest->running || !story->owner)
		return; /* what is left of one that is lost is the operator's to decide about */
	else if (!guest->ended && guest_has_copy(guest, true))
		promise_broken("no VM stays paused", "%s, since %lld s; its last migration (%llu) is %s", guest->name,
		               (long long)(guest->paused_us / SECOND), id, state);
	else
		check_dead_disks(guest, story->owner);
}

void records_check(void)
{
	size_t count = 0;
	struct record *list = records_list(&count);
	struct story *stories = calloc(world.guest_count + 1, sizeof(*stories));
	if (!stories)
		abort();
	for (unsigned i = 0; i < world.guest_count; i++)
		stories[i].owner = world.machines[i % world.machine_count];
	for (size_t i = 0; i < count; i++) {
		const struct guest *guest = guest_by_uuid(list[i].vm);
		if (guest)
			tell(&stories[guest->index], &list[i]);
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
		check_guest(world.guests[i], &stories[i]);
	}
	free(stories);
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
