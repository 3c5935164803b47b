/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

/* ---- cancel ---- */
static void cancel_vm(void *ctx)
{
	struct source *source = ctx;
	source->leg->ops->source_cancel(source->vm);
}

static void cancel_live(void *ctx)
{
	disk_source_cancel(ctx);
}

static void cancel_wake(void *ctx)
{
	struct source *source = ctx;
	pthread_mutex_lock(&source->lock);
	pthread_cond_broadcast(&source->changed);
	pthread_mutex_unlock(&source->lock);
}

/* ---- prepare ---- */
static int source_make(struct leg *leg, struct err *err)
{
	struct source *source = calloc(1, sizeof(*source));
	pthread_condattr_t attr;
	if (!source)
		return err_set(err, ERR_NO_MEMORY, "source");
	source->leg = leg;
	pthread_mutex_init(&source->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&source->changed, &attr);
	pthread_condattr_destroy(&attr);
	for (unsigned i = 0; i < LIMIT_DISKS; i++) {
		source->disks[i].source = source;
		source->disks[i].index = i;
	}
	leg->source = source;
	return cancel_add(leg->work, cancel_wake, source, err);
}

/* The VM and how its disks are reached. */
static int find_vm(struct source *source, struct err *err)
{
	struct leg *leg = source->leg;
	struct hypervisor_disk *list = calloc(LIMIT_DISKS, sizeof(*list));
	unsigned count = LIMIT_DISKS;
	int rc = -1;
	if (!list)
		return err_set(err, ERR_NO_MEMORY, "disks");
	if (leg->ops->source_open(leg->hv, leg->plan->vm.uuid, &source->vm, err))
		source->vm = NULL;
	else
		rc = leg->ops->source_disks(source->vm, list, &count, err);
	if (rc && source->vm) {
		leg->ops->source_close(source->vm);
		source->vm = NULL;
	}
	source->disk_count = rc ? 0 : count;
	for (unsigned i = 0; i < source->disk_count; i++)
		source->disks[i].hv = list[i];
	free(list);
	return rc;
}

/* The plan's disks, in the plan's order: numbers of streams are places in it. */
static int match_disks(struct source *source, struct err *err)
{
	const struct msg_vm *vm = &source->leg->plan->vm;
	if (source->disk_count != vm->disk_count)
		return err_set(err, ERR_CONFLICT, "the VM has %u disks, the plan %u", source->disk_count,
		               vm->disk_count);
	for (unsigned i = 0; i < vm->disk_count; i++) {
		unsigned found = i;
		while (found < vm->disk_count && strcmp(source->disks[found].hv.name, vm->disks[i].name) != 0)
			found++;
		if (found == vm->disk_count)
			return err_set(err, ERR_CONFLICT, "the VM has no disk %s any more", vm->disks[i].name);
		struct hypervisor_disk other = source->disks[i].hv;
		source->disks[i].hv = source->disks[found].hv;
		source->disks[found].hv = other;
		if (source->disks[i].hv.size_bytes != vm->disks[i].size_bytes)
			return err_set(err, ERR_CONFLICT, "disk %s has another size than in the plan",
			               vm->disks[i].name);
	}
	return 0;
}

static int flush_vm(void *ctx, struct err *err)
{
	struct source *source = ctx;
	return source->leg->ops->source_flush(source->vm, err);
}

static int open_live(struct source_disk *disk, struct err *err)
{
	struct leg *leg = disk->source->leg;
	const struct disk_flush flush = { flush_vm, disk->source };
	struct journal_resource bitmap = { .kind = RESOURCE_BITMAP, .state = RESOURCE_INTENT };
	memcpy(bitmap.name, disk->hv.name, sizeof(bitmap.name));
	memcpy(bitmap.path, disk->hv.qmp_path, sizeof(bitmap.path));
	if (leg_resource_add(leg, &bitmap, err))
		return -1;
	disk->bitmap_id = bitmap.id;
	if (disk_source_open(&disk->live, &disk->hv, leg->options.migration, leg->ops->source_flush ? &flush : NULL,
	                     err))
		return -1;
	if (cancel_add(leg->work, cancel_live, disk->live, err))
		return -1;
	bitmap.state = RESOURCE_MADE;
	return leg_resource_update(leg, &bitmap, err);
}

static int prepare(struct leg *leg, struct err *err)
{
	if (find_vm(leg->source, err) || match_disks(leg->source, err) ||
	    cancel_add(leg->work, cancel_vm, leg->source, err))
		return -1;
	for (unsigned i = 0; i < leg->source->disk_count; i++)
		if (open_live(&leg->source->disks[i], err))
			return -1;
	return 0;
}

/* ---- recovery ---- */
/* A VM that is gone is a fact, and not an error. */
static int take_gone(struct leg *leg, const struct err *why, struct err *err)
{
	if (why->code != ERR_UNKNOWN_VM) {
		*err = *why;
		return -1;
	}
	log_warning("event=vm-gone migration=%" PRIu64 " error=\"%s\"", leg->options.migration, why->text);
	leg_post_image_gone(leg);
	return 0;
}

static int recover(struct leg *leg, struct err *err)
{
	struct err why = { 0 };
	return leg->source->vm || find_vm(leg->source, &why) == 0 ? 0 : take_gone(leg, &why, err);
}

/* ---- the VM runs here again ---- */
static void undrain(struct source_disk *disk)
{
	struct leg *leg = disk->source->leg;
	struct err err = { 0 };
	if (leg->options.recover ? disk_source_clean(&disk->hv, leg->options.migration, &err)
	    : disk->drained      ? disk_source_undrain(disk->live, &err)
	                         : 0)
		log_warning("event=undrain-failed migration=%" PRIu64 " disk=%s error=\"%s\"", leg->options.migration,
		            disk->hv.name, err.text);
	else
		disk->drained = false;
}

/* The VM first: a block backend that hangs holds up nobody but its own disk. What is not undone here, clean() undoes.
 */
static int resume(struct leg *leg, struct err *err)
{
	struct source *source = leg->source;
	struct err why = { 0 };
	if (source->vm && leg->ops->source_resume(source->vm, &why))
		return take_gone(leg, &why, err);
	int64_t began_ms = atomic_load(&leg->rollback_at_ms);
	if (began_ms)
		log_notice("event=vm-undisturbed migration=%" PRIu64 " after_ms=%" PRId64, leg->options.migration,
		           leg_now_ms() - began_ms);
	for (unsigned i = 0; i < source->disk_count; i++)
		undrain(&source->disks[i]);
	return 0;
}

/* ---- letting go ---- */
static void close_disk(struct source_disk *disk)
{
	struct leg *leg = disk->source->leg;
	struct err err = { 0 };
	/* The sink gives the copy's buffers back when it is closed. */
	sink_close(disk->sink);
	disk_copy_free(disk->copy);
	if (disk->live && disk_source_close(disk->live, &err))
		log_warning("event=bitmap-left migration=%" PRIu64 " disk=%s error=\"%s\"", leg->options.migration,
		            disk->hv.name, err.text);
	disk->copy = NULL;
	disk->sink = NULL;
	disk->live = NULL;
	free(disk->granules);
	free(disk->digests);
	free(disk->payload);
	disk->granules = NULL;
	disk->digests = NULL;
	disk->payload = NULL;
	for (unsigned i = 0; i < 2; i++) {
		free(disk->marks[i]);
		disk->marks[i] = NULL;
	}
}

/* Everything of the copy. The VM stays as it is. leg->work has been fired: it will not call into what is freed here. */
static void let_go(struct leg *leg)
{
	struct source *source = leg->source;
	link_stop(leg_link_take(leg));
	source->link = NULL;
	for (unsigned i = 0; i < LIMIT_DISKS; i++)
		close_disk(&source->disks[i]);
	relays_free(source->relays);
	source->relays = NULL;
}

static int clean(struct leg *leg, struct err *err)
{
	struct source *source = leg->source;
	struct hypervisor_disk *disks = NULL;
	let_go(leg);
	disks = calloc(LIMIT_DISKS, sizeof(*disks));
	if (!disks)
		return err_set(err, ERR_NO_MEMORY, "disks");
	for (unsigned i = 0; i < source->disk_count; i++)
		disks[i] = source->disks[i].hv;
	int rc = clean_resources(leg, disks, source->disk_count, err);
	free(disks);
	return rc;
}

/* ---- release ---- */
/* One by one: a leg that was killed in between has listed some of them. */
static bool has_disk(const struct journal_resource *list, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].kind == RESOURCE_SOURCE_DISK && strcmp(list[i].name, name) == 0)
			return true;
	return false;
}

static int list_disk(struct leg *leg, const struct hypervisor_disk *disk, struct err *err)
{
	struct journal_resource resource = { .kind = RESOURCE_SOURCE_DISK,
		                             .state = RESOURCE_INTENT,
		                             .migration = leg->options.migration,
		                             .generation = leg->options.generation,
		                             .bytes = disk->size_bytes,
		                             .format = disk->format };
	memcpy(resource.name, disk->name, sizeof(resource.name));
	memcpy(resource.path, disk->path, sizeof(resource.path));
	memcpy(resource.vm, leg->plan->vm.uuid, sizeof(resource.vm));
	for (unsigned i = 0; i < leg->plan->vm.disk_count; i++)
		if (strcmp(leg->plan->vm.disks[i].name, disk->name) == 0)
			memcpy(resource.sr, leg->plan->vm.disks[i].sr, sizeof(resource.sr));
	return journal_resource_add(leg->journal, &resource, &resource.id, err);
}

/* Journals what is to be dropped or kept, while the VM that says so is still there. Main thread. */
static int list_disks(struct leg *leg, void *arg, struct err *err)
{
	struct source *source = leg->source;
	struct journal_resource *list = NULL;
	size_t count = 0;
	(void)arg;
	if (source->listed)
		return 0;
	if (journal_resource_list(leg->journal, leg->options.migration, leg->options.generation, &list, &count, err))
		return -1;
	int rc = 0;
	for (unsigned i = 0; i < source->disk_count && !rc; i++)
		if (!has_disk(list, count, source->disks[i].hv.name))
			rc = list_disk(leg, &source->disks[i].hv, err);
	free(list);
	source->listed = rc == 0;
	return rc;
}

/* Keeps or drops one disk of the VM that has left. */
static int part_with(struct leg *leg, struct journal_resource *disk, struct err *err)
{
	uint64_t keep_s = leg->plan->keep_source_s;
	if (disk->state != RESOURCE_KEPT && !keep_s)
		return sr_disk_remove(disk->path, err) || leg_resource_gone(leg, disk->id, err) ? -1 : 0;
	if (disk->state != RESOURCE_KEPT) {
		disk->state = RESOURCE_KEPT;
		disk->kept_until_wall_ms = (uint64_t)clock_real.wall_ms(&clock_real) + keep_s * 1000;
		if (leg_resource_update(leg, disk, err))
			return -1;
	}
	return leg_kept_until(leg, disk->kept_until_wall_ms, err);
}

static int release(struct leg *leg, struct err *err)
{
	struct source *source = leg->source;
	struct journal_resource *list = NULL;
	size_t count = 0;
	cancel_fire(leg->work);
	let_go(leg);
	if (queue_call(leg->queue, list_disks, NULL, err))
		return -1;
	if (source->vm)
		leg->ops->source_close(source->vm);
	source->vm = NULL;
	if (leg->ops->source_destroy(leg->hv, leg->plan->vm.uuid, err) ||
	    leg_flag(leg, &(struct verdict_facts) { .released = true }, err) ||
	    leg_resource_list(leg, &list, &count, err))
		return -1;
	int rc = 0;
	for (size_t i = 0; i < count && !rc; i++) {
		if (list[i].kind == RESOURCE_SOURCE_DISK)
			rc = part_with(leg, &list[i], err);
		else if (list[i].kind == RESOURCE_BITMAP) /* gone with the backend */
			rc = leg_resource_gone(leg, list[i].id, err);
	}
	free(list);
	return rc;
}

/* ---- main thread ---- */
static void granted(struct leg *leg)
{
	cancel_wake(leg->source);
}

static void tick(struct leg *leg)
{
	struct source *source = leg->source;
	struct err err = { 0 };
	if (leg_own_vote(leg) == VOTE_COMMIT && list_disks(leg, NULL, &err))
		log_warning("event=not-journaled migration=%" PRIu64 " error=\"%s\"", leg->options.migration, err.text);
	if (!leg->copying || leg->settled || leg->released)
		return;
	int64_t began_ms = atomic_load(&source->began_ms);
	uint32_t timeout_s = leg->plan->timeout_s;
	if (timeout_s && !atomic_load(&leg->suspending) && leg_now_ms() - began_ms > (int64_t)timeout_s * 1000) {
		err_set(&err, ERR_TIMEOUT, "the copy was not ready after %u s", timeout_s);
		leg_fail(leg, &err);
	}
	if (!leg->facts.stream_ended && !leg->local.failed && !leg->local.abort_asked)
		source_send_progress(leg);
}

static void facts(struct leg *leg)
{
	struct source *source = leg->source;
	if (!leg->facts.suspended)
		return;
	if (leg->facts.vote[PARTY_DESTINATION] != VOTE_NONE)
		source_moment(source, MOMENT_VERIFIED);
	if (leg_own_vote(leg) != VOTE_NONE)
		source_moment(source, MOMENT_VOTED);
	if (leg->facts.running && !atomic_load(&source->moments[MOMENT_OVER]) && leg->copying)
		source_send_progress(leg); /* the last, with the figures that stay */
	if (leg->facts.running || leg->facts.resumed)
		source_moment(source, MOMENT_OVER);
	source_budget(leg);
}

static void source_free(struct leg *leg)
{
	struct source *source = leg->source;
	if (!source)
		return;
	let_go(leg);
	if (source->vm)
		leg->ops->source_close(source->vm);
	pthread_mutex_destroy(&source->lock);
	pthread_cond_destroy(&source->changed);
	disk_limit_free(leg->limit);
	disk_limit_free(source->no_limit);
	free(source->memory);
	free(source);
	leg->source = NULL;
}

const struct leg_side leg_source = {
	.party = PARTY_SOURCE,
	.make = source_make,
	.recover = recover,
	.prepare = prepare,
	.copy = source_copy,
	.vm = resume,
	.clean = clean,
	.release = release,
	.granted = granted,
	.tick = tick,
	.facts = facts,
	.free = source_free,
};
