/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guests: what they do while they run, and what must be true whenever one begins to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/world.h"

#define FLUSH_TICKS 8

static void initial_path(const struct guest *guest, unsigned disk, char path[LIMIT_PATH])
{
	(void)snprintf(path, LIMIT_PATH, "/sr/%s.xvd%c.raw", guest->name, 'a' + (int)disk);
}

static void make_image(struct machine *machine, const char *path)
{
	struct image *image = calloc(1, sizeof(*image));
	if (!image)
		abort();
	(void)snprintf(image->path, sizeof(image->path), "%s", path);
	image->made = true;
	image->next = machine->images;
	machine->images = image;
}

static struct guest *make_guest(unsigned index)
{
	struct guest *guest = calloc(1, sizeof(*guest));
	if (!guest)
		abort();
	guest->index = index;
	guest->disks = 1 + (unsigned)chance_below(GUEST_DISKS);
	(void)snprintf(guest->name, sizeof(guest->name), "vm%u", index);
	memcpy(guest->uuid, &index, sizeof(index));
	guest->uuid[15] = 1;
	struct machine *machine = world.machines[index % world.machine_count];
	struct instance *instance = instance_add(machine, guest, INSTANCE_PAUSED);
	for (unsigned d = 0; d < guest->disks; d++) {
		initial_path(guest, d, instance->paths[d]);
		make_image(machine, instance->paths[d]);
	}
	instance->complete = instance->attached = true;
	instance_run(instance);
	return guest;
}

void guests_make(void)
{
	unsigned count = world.machine_count * 3;
	world.guests = calloc(count, sizeof(*world.guests));
	if (!world.guests)
		abort();
	for (unsigned i = 0; i < count; i++)
		world.guests[i] = make_guest(i);
	world.guest_count = count;
}

void guests_free(void)
{
	for (unsigned i = 0; i < world.guest_count; i++)
		free(world.guests[i]);
	free(world.guests);
}

struct guest *guest_by_uuid(const uuid_bytes uuid)
{
	unsigned index;
	memcpy(&index, uuid, sizeof(index));
	return index < world.guest_count && uuid[15] == 1 ? world.guests[index] : NULL;
}

/* ---- instances ---- */

struct instance *instance_find(const struct machine *machine, const uuid_bytes uuid)
{
	for (struct instance *i = machine->instances; i; i = i->next)
		if (memcmp(i->guest->uuid, uuid, sizeof(uuid_bytes)) == 0)
			return i;
	return NULL;
}

struct instance *instance_add(struct machine *machine, struct guest *guest, enum instance_state state)
{
	struct instance *instance = calloc(1, sizeof(*instance));
	if (!instance)
		abort();
	*instance = (struct instance) {
		.next = machine->instances, .guest = guest, .machine = machine, .state = state, .alive = true
	};
	machine->instances = instance;
	return instance;
}

void instance_remove(struct instance *instance)
{
	struct instance **at = &instance->machine->instances;
	while (*at != instance)
		at = &(*at)->next;
	*at = instance->next;
	while (instance->bitmaps) {
		struct bitmap *bitmap = instance->bitmaps;
		instance->bitmaps = bitmap->next;
		free(bitmap);
	}
	free(instance);
}

struct bitmap *bitmap_find(const struct instance *instance, uint64_t migration, unsigned disk)
{
	struct bitmap *b = instance->bitmaps;
	while (b && (b->migration != migration || b->disk != disk))
		b = b->next;
	return b;
}

/* ---- running ---- */

static void write_block(struct instance *instance, unsigned disk, unsigned block)
{
	struct guest *guest = instance->guest;
	struct image *image = image_find(instance->machine, instance->paths[disk]);
	if (!image || !image->made) {
		promise_broken("a running VM has its disks", "%s on %s has no %s", guest->name, instance->machine->name,
		               instance->paths[disk]);
		return;
	}
	image->now[block] = guest->written[disk][block] = instance->tick;
	for (struct bitmap *b = instance->bitmaps; b; b = b->next)
		if (b->disk == disk && !(world.scenario.plant == PLANT_DIRTY_LOG && instance->tick % 16 == 0))
			b->dirty[block] = true;
}

static void flush(struct instance *instance)
{
	struct guest *guest = instance->guest;
	for (unsigned d = 0; d < guest->disks; d++) {
		struct image *image = image_find(instance->machine, instance->paths[d]);
		if (image)
			memcpy(image->durable, image->now, sizeof(image->durable));
	}
	memcpy(guest->flushed, guest->written, sizeof(guest->flushed));
}

void instance_advance(struct instance *instance)
{
	struct guest *guest = instance->guest;
	if (!instance->alive || instance->state != INSTANCE_RUNNING)
		return;
	for (; world_now_us - instance->since_us >= GUEST_TICK; instance->since_us += GUEST_TICK) {
		uint64_t at = ++instance->tick * 0x9e3779b97f4a7c15u + guest->index;
		write_block(instance, (unsigned)(at >> 32) % guest->disks, (unsigned)(at >> 40) % GUEST_BLOCKS);
		if (instance->tick % FLUSH_TICKS == 0)
			flush(instance);
	}
	guest->last_tick = instance->tick;
}

void instance_check_disks(const struct instance *instance)
{
	const struct guest *guest = instance->guest;
	for (unsigned d = 0; d < guest->disks; d++) {
		const struct image *image = image_find(instance->machine, instance->paths[d]);
		for (unsigned b = 0; b < GUEST_BLOCKS; b++)
			if (!image || image->now[b] != guest->written[d][b]) {
				promise_broken("every acknowledged write is on the owner's copy",
				               "%s on %s, disk %u, block %u: written in tick %llu, holds that of %llu",
				               guest->name, instance->machine->name, d, b,
				               (unsigned long long)guest->written[d][b],
				               (unsigned long long)(image ? image->now[b] : 0));
				return;
			}
	}
}

/* An operator has ruled that it goes on from here, whatever came after. */
static void take_back(struct guest *guest, const struct instance *instance)
{
	for (unsigned d = 0; d < guest->disks; d++) {
		const struct image *image = image_find(instance->machine, instance->paths[d]);
		if (image)
			memcpy(guest->written[d], image->now, sizeof(guest->written[d]));
	}
	memcpy(guest->flushed, guest->written, sizeof(guest->flushed));
	guest->last_tick = instance->tick;
	guest->ended = false;
}

void instance_run(struct instance *instance)
{
	struct guest *guest = instance->guest;
	if (instance->state == INSTANCE_RUNNING && instance->alive)
		return;
	if (guest->ruled && guest->ended && instance->state == INSTANCE_PAUSED)
		take_back(guest, instance);
	if (guest->running && guest->running != instance)
		promise_broken("never two hosts run one VM", "%s runs on %s and begins to on %s", guest->name,
		               guest->running->machine->name, instance->machine->name);
	else if (guest->ended)
		promise_broken("a VM that died does not run", "%s on %s", guest->name, instance->machine->name);
	else if (instance->tick != guest->last_tick)
		promise_broken("no tick is run twice or skipped",
		               "%s on %s goes on after tick %llu, it had come to %llu", guest->name,
		               instance->machine->name, (unsigned long long)instance->tick,
		               (unsigned long long)guest->last_tick);
	else
		instance_check_disks(instance);
	instance->state = INSTANCE_RUNNING;
	instance->since_us = world_now_us;
	guest->running = instance;
	guest->paused_us = 0;
	trace("%s runs on %s from tick %llu", guest->name, instance->machine->name, (unsigned long long)instance->tick);
}

void instance_pause(struct instance *instance)
{
	instance_advance(instance);
	instance->state = INSTANCE_PAUSED;
	instance->guest->running = NULL;
	instance->guest->paused_us = world_now_us;
	trace("%s is paused on %s at tick %llu", instance->guest->name, instance->machine->name,
	      (unsigned long long)instance->tick);
}

bool guest_has_copy(const struct guest *guest, bool whole)
{
	for (unsigned i = 0; i < world.machine_count; i++) {
		const struct instance *instance = instance_find(world.machines[i], guest->uuid);
		if (instance && instance->alive && (instance->complete ? instance->tick == guest->last_tick : !whole))
			return true;
	}
	return false;
}

void guest_copy_gone(struct guest *guest)
{
	if (!guest->running && !guest_has_copy(guest, false))
		guest->ended = true;
}

void instance_die(struct instance *instance)
{
	struct guest *guest = instance->guest;
	instance_advance(instance);
	if (!instance->alive)
		return;
	instance->alive = false;
	trace("%s has died on %s at tick %llu", guest->name, instance->machine->name,
	      (unsigned long long)instance->tick);
	if (guest->running == instance) {
		guest->running = NULL;
		guest->ended = true; /* whatever its source still has: it ran on */
	}
	guest_copy_gone(guest);
}
