/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agent/disk/disk.h, as far as the agent and the legs need it, over simulated images, logs and exporters. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/disk/disk.h"
#include "tests/sim/world.h"

/* ---- storage repository ---- */

struct image *image_find(const struct machine *machine, const char *path)
{
	for (struct image *i = machine->images; i; i = i->next)
		if (strcmp(i->path, path) == 0)
			return i;
	return NULL;
}

static struct machine *here(void)
{
	return world_current->machine;
}

static int dying(struct err *err)
{
	return err_set(err, ERR_IO, "dying");
}

uint64_t storage_used(const struct machine *machine)
{
	uint64_t used = 0;
	for (const struct image *i = machine->images; i; i = i->next)
		used += i->reserve_bytes + (i->made ? (uint64_t)GUEST_BLOCKS * GUEST_BLOCK_BYTES : 0);
	return used;
}

/* What was not flushed is not there any more. */
void storage_power_off(struct machine *machine)
{
	for (struct image *i = machine->images; i; i = i->next)
		for (unsigned b = 0; b < GUEST_BLOCKS; b++)
			if (i->now[b] != i->durable[b] && chance_below(2))
				i->now[b] = i->durable[b];
			else
				i->durable[b] = i->now[b];
}

int sr_space(const struct sr_config *sr, uint64_t *ret_size_bytes, uint64_t *ret_free_bytes, struct err *err)
{
	uint64_t used = storage_used(here());
	(void)sr, (void)err;
	*ret_size_bytes = here()->disk_bytes;
	*ret_free_bytes = here()->disk_full || used > here()->disk_bytes ? 0 : here()->disk_bytes - used;
	return 0;
}

int sr_disk_path(const struct sr_config *sr, const uuid_bytes uuid, const char *disk, uint64_t migration,
                 char ret_path[LIMIT_PATH], struct err *err)
{
	const struct guest *guest = guest_by_uuid(uuid);
	if (!guest)
		return err_set(err, ERR_UNKNOWN_VM, "no such guest");
	(void)snprintf(ret_path, LIMIT_PATH, "%.16s/%.16s.%.16s.%" PRIu64 ".raw", sr->path, guest->name, disk,
	               migration);
	return 0;
}

static struct image *make_entry(const char *path)
{
	struct image *image = image_find(here(), path);
	if (image)
		return image;
	image = calloc(1, sizeof(*image));
	if (!image)
		abort();
	(void)snprintf(image->path, sizeof(image->path), "%s", path);
	image->next = here()->images;
	here()->images = image;
	return image;
}

static void drop_entry(struct image *image)
{
	struct image **at = &here()->images;
	if (image->made || image->reserve_bytes)
		return;
	while (*at != image)
		at = &(*at)->next;
	*at = image->next;
	free(image);
}

int sr_disk_make(const struct sr_config *sr, const char *path, enum disk_format format, uint64_t size_bytes,
                 struct err *err)
{
	(void)sr, (void)format, (void)size_bytes;
	if (proc_is_dying())
		return dying(err);
	if (here()->disk_full)
		return err_set(err, ERR_NO_SPACE, "%s: no space left", path);
	make_entry(path)->made = true;
	return 0;
}

int sr_disk_remove(const char *path, struct err *err)
{
	struct image *image = image_find(here(), path);
	if (proc_is_dying())
		return dying(err);
	if (!image || (world.scenario.plant == PLANT_LEAK && chance_below(3) == 0))
		return 0;
	trace("%s: %s is removed", here()->name, path);
	image->made = false;
	drop_entry(image);
	return 0;
}

bool sr_disk_fits(const char *path, enum disk_format format, uint64_t size_bytes, struct err *err)
{
	const struct image *image = image_find(here(), path);
	(void)format, (void)size_bytes;
	if (image && image->made)
		return true;
	err_set(err, ERR_IO, "%s is not there", path);
	return false;
}

uint64_t sr_disk_allocated(const char *path)
{
	const struct image *image = image_find(here(), path);
	return image && image->made ? (uint64_t)GUEST_BLOCKS * GUEST_BLOCK_BYTES : 0;
}

int sr_reserve(const char *disk_path, uint64_t bytes, struct err *err)
{
	if (proc_is_dying())
		return dying(err);
	if (here()->disk_full || storage_used(here()) + bytes > here()->disk_bytes)
		return err_set(err, ERR_NO_SPACE, "%s: no space to reserve", disk_path);
	make_entry(disk_path)->reserve_bytes = bytes ? bytes : 1;
	return 0;
}

int sr_reserve_remove(const char *disk_path, struct err *err)
{
	struct image *image = image_find(here(), disk_path);
	if (proc_is_dying())
		return dying(err);
	if (image) {
		image->reserve_bytes = 0;
		drop_entry(image);
	}
	return 0;
}

/* ---- exporters: they die with their leg ---- */

struct exporter {
	struct exporter *next;
	struct proc *proc;
	unsigned leg_pid, disk;
	struct machine *machine;
	char path[LIMIT_PATH], dir[LIMIT_PATH];
	bool revoked; /* planted: it is said to be gone, and is not */
};
static struct exporter *exporters;

static struct exporter *exporter_of(unsigned leg_pid, unsigned disk)
{
	for (struct exporter *e = exporters; e; e = e->next)
		if (e->leg_pid == leg_pid && e->disk == disk && e->proc->alive)
			return e;
	return NULL;
}

int exporter_start(struct exporter **ret_exporter, enum exporter_kind kind, const char *dir, const char *path,
                   enum disk_format format, uint64_t size_bytes, const char *disk_name, uint64_t migration,
                   struct exporter_access *ret_access, struct err *err)
{
	(void)format, (void)migration;
	if (proc_is_dying())
		return dying(err);
	struct exporter *exporter = calloc(1, sizeof(*exporter));
	if (!exporter)
		return err_set(err, ERR_NO_MEMORY, "exporter");
	exporter->proc = proc_new(PROC_EXPORTER, here(), NULL);
	exporter->leg_pid = world_current->pid;
	exporter->disk = (unsigned)(disk_name[3] - 'a');
	exporter->machine = here();
	(void)snprintf(exporter->path, sizeof(exporter->path), "%s", path);
	(void)snprintf(exporter->dir, sizeof(exporter->dir), "%s", dir);
	*ret_access = (struct exporter_access) { .kind = kind, .size_bytes = size_bytes };
	exporter->next = exporters;
	*ret_exporter = exporters = exporter;
	return 0;
}

static void exporter_drop(struct exporter *exporter)
{
	struct exporter **at = &exporters;
	while (*at != exporter)
		at = &(*at)->next;
	*at = exporter->next;
	exporter->proc->alive = false;
	free(exporter);
}

unsigned exporter_processes(const struct exporter *exporter, struct proc_id *ret_ids, unsigned room)
{
	if (room)
		ret_ids[0] = (struct proc_id) { (pid_t)exporter->proc->pid, exporter->proc->pid };
	return 1;
}

bool exporter_alive(const struct exporter *exporter)
{
	return exporter->proc->alive;
}

int exporter_revoke(struct exporter *exporter, struct err *err)
{
	if (proc_is_dying())
		return dying(err);
	struct image *image = image_find(exporter->machine, exporter->path);
	if (!image)
		return err_set(err, ERR_EXPORTER, "%s is not there any more", exporter->path);
	memcpy(image->durable, image->now, sizeof(image->durable));
	if (world.scenario.plant == PLANT_LATE_WRITE)
		exporter->revoked = true;
	else
		exporter_drop(exporter);
	return 0;
}

void exporter_end(struct exporter *exporter, unsigned timeout_ms)
{
	(void)exporter, (void)timeout_ms; /* there is no metadata to lose */
}

void exporter_kill(struct exporter *exporter)
{
	if (exporter)
		exporter_drop(exporter);
}

void storage_leg_ended(unsigned leg_pid)
{
	for (struct exporter *e = exporters, *next; e; e = next) {
		next = e->next;
		if (e->leg_pid == leg_pid)
			exporter_drop(e);
	}
}

int proc_kill(const struct proc_id *id, unsigned timeout_ms, struct err *err)
{
	(void)timeout_ms;
	if (proc_is_dying())
		return dying(err);
	for (struct exporter *e = exporters; e; e = e->next)
		if (e->proc->pid == (unsigned)id->pid)
			e->proc->alive = false;
	return 0;
}

int proc_run(const char *const argv[], const char *const env[], char *ret_output, size_t *bytes, unsigned timeout_ms,
             struct err *err)
{
	(void)env, (void)ret_output, (void)bytes, (void)timeout_ms;
	return err_set(err, ERR_UNSUPPORTED, "%s: no programs are run here", argv[0]);
}

/* ---- what goes over ---- */

static bool log_write(unsigned leg_pid, unsigned disk, const struct shipment *shipment, struct image **ret_image)
{
	struct exporter *exporter = exporter_of(leg_pid, disk);
	*ret_image = exporter ? image_find(exporter->machine, exporter->path) : NULL;
	return *ret_image && shipment->count <= GUEST_BLOCKS;
}

int storage_deliver(unsigned leg_pid, unsigned disk, const struct shipment *shipment, struct err *err)
{
	struct image *image;
	if (!log_write(leg_pid, disk, shipment, &image))
		return err_set(err, ERR_EXPORTER, "disk %u: the exporter is gone", disk);
	if (exporter_of(leg_pid, disk)->machine->disk_full && shipment->count)
		return err_set(err, ERR_NO_SPACE, "%s: no space left", image->path);
	for (unsigned i = 0; i < shipment->count; i++)
		image->now[shipment->block[i]] = shipment->tick[i];
	return 0;
}

bool storage_holds(unsigned leg_pid, unsigned disk, const struct shipment *shipment)
{
	struct image *image;
	if (!log_write(leg_pid, disk, shipment, &image))
		return false;
	for (unsigned i = 0; i < shipment->count; i++)
		if (image->now[shipment->block[i]] != shipment->tick[i])
			return false;
	memcpy(image->durable, image->now, sizeof(image->durable));
	return true;
}

/* ---- live source ---- */

struct disk_source {
	struct machine *machine;
	uuid_bytes uuid;
	uint64_t migration;
	unsigned disk;
};

static struct instance *instance_of_image(const struct machine *machine, const char *path, unsigned *ret_disk)
{
	for (struct instance *i = machine->instances; i; i = i->next)
		for (unsigned d = 0; d < i->guest->disks; d++)
			if (i->state != INSTANCE_INCOMING && strcmp(i->paths[d], path) == 0) {
				*ret_disk = d;
				return i;
			}
	return NULL;
}

static void bitmap_drop(struct instance *instance, uint64_t migration, unsigned disk)
{
	for (struct bitmap **at = &instance->bitmaps; *at;) {
		struct bitmap *b = *at;
		if (b->migration == migration && b->disk == disk) {
			*at = b->next;
			free(b);
		} else {
			at = &b->next;
		}
	}
}

int disk_source_open(struct disk_source **ret_source, const struct hypervisor_disk *disk, uint64_t migration,
                     const struct disk_flush *flush, struct err *err)
{
	unsigned number = 0;
	struct instance *instance = instance_of_image(here(), disk->path, &number);
	(void)flush;
	if (proc_is_dying())
		return dying(err);
	if (!instance || !instance->alive)
		return err_set(err, ERR_BACKEND, "%s has no backend", disk->path);
	struct disk_source *source = calloc(1, sizeof(*source));
	struct bitmap *bitmap = calloc(1, sizeof(*bitmap));
	if (!source || !bitmap)
		abort();
	instance_advance(instance);
	bitmap_drop(instance, migration, number);
	*bitmap = (struct bitmap) { .next = instance->bitmaps, .migration = migration, .disk = number };
	instance->bitmaps = bitmap;
	*source = (struct disk_source) { .machine = here(), .migration = migration, .disk = number };
	memcpy(source->uuid, instance->guest->uuid, sizeof(uuid_bytes));
	*ret_source = source;
	return 0;
}

int storage_collect(struct machine *machine, const uuid_bytes uuid, uint64_t migration, unsigned disk, bool first,
                    struct shipment *ret_shipment, struct err *err)
{
	struct instance *instance = instance_find(machine, uuid);
	struct bitmap *bitmap = instance ? bitmap_find(instance, migration, disk) : NULL;
	struct image *image = instance ? image_find(machine, instance->paths[disk]) : NULL;
	if (!instance || !instance->alive || !bitmap || !image)
		return err_set(err, ERR_BACKEND, "disk %u: its backend is gone", disk);
	instance_advance(instance);
	ret_shipment->count = 0;
	for (unsigned b = 0; b < GUEST_BLOCKS; b++)
		if (first ? image->now[b] != 0 : bitmap->dirty[b]) {
			ret_shipment->block[ret_shipment->count] = (unsigned char)b;
			ret_shipment->tick[ret_shipment->count++] = image->now[b];
		}
	memset(bitmap->dirty, 0, sizeof(bitmap->dirty));
	return 0;
}

unsigned storage_dirty(struct machine *machine, const uuid_bytes uuid, uint64_t migration, unsigned disk)
{
	struct instance *instance = instance_find(machine, uuid);
	struct bitmap *bitmap = instance ? bitmap_find(instance, migration, disk) : NULL;
	unsigned count = 0;
	if (!bitmap)
		return 0;
	instance_advance(instance);
	for (unsigned b = 0; b < GUEST_BLOCKS; b++)
		count += bitmap->dirty[b];
	return count;
}

int disk_source_undrain(struct disk_source *source, struct err *err)
{
	(void)source;
	return proc_is_dying() ? dying(err) : 0;
}

void disk_source_cancel(struct disk_source *source)
{
	(void)source; /* nothing here blocks */
}

int disk_source_close(struct disk_source *source, struct err *err)
{
	bool dead = proc_is_dying();
	struct instance *instance = instance_find(source->machine, source->uuid);
	if (!dead && instance) {
		instance_advance(instance);
		bitmap_drop(instance, source->migration, source->disk);
	}
	free(source);
	return dead ? dying(err) : 0;
}

int disk_source_clean(const struct hypervisor_disk *disk, uint64_t migration, struct err *err)
{
	unsigned number = 0;
	struct instance *instance = instance_of_image(here(), disk->path, &number);
	if (proc_is_dying())
		return dying(err);
	if (instance) {
		instance_advance(instance);
		bitmap_drop(instance, migration, number);
	}
	return 0;
}

/* ---- what the sources of production let go of, and what no simulated leg has ---- */

void sink_close(struct sink *sink)
{
	(void)sink;
}
void disk_copy_free(struct disk_copy *copy)
{
	(void)copy;
}
void disk_limit_free(struct disk_limit *limit)
{
	(void)limit;
}
