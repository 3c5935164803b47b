/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/dest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "agent/leg/net.h"
#include "common/clock.h"
#include "common/log.h"

#define CLOSE_MS 5000         /* for QEMU to close images that may be kept, all of them */
#define UNPAUSE_TRIES 3       /* before the VM is given back to the source */
#define NEVER_RAN "never-ran" /* note of the VM's resource: see struct dest, giving_back */
#define KEEP_RAN_S 86400u     /* what a VM wrote here that an operator ruled against is kept at least that long */

static int dest_make(struct leg *leg, struct err *err)
{
	struct dest *dest = calloc(1, sizeof(*dest));
	pthread_condattr_t attr;
	if (!dest)
		return err_set(err, ERR_NO_MEMORY, "destination");
	dest->leg = leg;
	dest->listen_fd = -1;
	random_bytes(&dest->seed, sizeof(dest->seed));
	pthread_mutex_init(&dest->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&dest->changed, &attr);
	pthread_condattr_destroy(&attr);
	leg->dest = dest;
	return cancel_add(leg->work, dest_wake, dest, err);
}

static void cancel_vm(void *ctx)
{
	struct dest *dest = ctx;
	dest->leg->ops->dest_cancel(dest->vm);
}

/* ---- prepare: everything is journaled before it is made ---- */
static int reserve(struct dest *dest, unsigned i, struct err *err)
{
	const struct msg_disk *from = &dest->leg->plan->vm.disks[i];
	struct dest_disk *disk = &dest->disks[i];
	uint64_t there = disk->earlier ? sr_disk_allocated(disk->path) : 0;
	uint64_t bytes = from->allocated_bytes > there ? from->allocated_bytes - there : 0;
	struct journal_resource resource = { .kind = RESOURCE_RESERVE, .state = RESOURCE_INTENT, .bytes = bytes };
	memcpy(resource.name, from->name, sizeof(resource.name));
	memcpy(resource.path, disk->path, sizeof(resource.path));
	if (leg_resource_add(dest->leg, &resource, err) || sr_reserve(disk->path, bytes, err))
		return -1;
	disk->reserve_bytes = bytes;
	resource.state = RESOURCE_MADE;
	return leg_resource_update(dest->leg, &resource, err);
}

static int make_image(struct dest *dest, unsigned i, const struct sr_config *sr, struct err *err)
{
	const struct msg_plan *plan = dest->leg->plan;
	struct dest_disk *disk = &dest->disks[i];
	struct journal_resource resource = { .kind = RESOURCE_DISK,
		                             .state = RESOURCE_INTENT,
		                             .bytes = plan->vm.disks[i].size_bytes,
		                             .format = plan->to[i].format };
	memcpy(resource.name, plan->vm.disks[i].name, sizeof(resource.name));
	memcpy(resource.path, disk->path, sizeof(resource.path));
	memcpy(resource.vm, plan->vm.uuid, sizeof(resource.vm));
	memcpy(resource.sr, sr->name, sizeof(resource.sr));
	if (leg_resource_add(dest->leg, &resource, err) ||
	    sr_disk_make(sr, disk->path, plan->to[i].format, plan->vm.disks[i].size_bytes, err))
		return -1;
	resource.state = RESOURCE_MADE;
	return leg_resource_update(dest->leg, &resource, err);
}

/* Whoever reads the disk back, or waits until it is closed, is not held up by an exporter that hangs. It is not wanted
 * any more; that it is gone is made certain where it is let go of. One that has an image to close gets its time there,
 * before anybody waits for a reader. */
static void kill_exporter(void *ctx)
{
	struct dest_disk *disk = ctx;
	for (unsigned i = 0; i < disk->process_count; i++)
		if (!disk->closes || atomic_load(&disk->fencing) || i + 1 < disk->process_count)
			proc_kill(&disk->processes[i], 0, NULL);
}

/* Journals who the exporter's processes are, and writes a pid file for each. */
static int list_processes(struct dest *dest, struct dest_disk *disk, struct journal_resource *resource, struct err *err)
{
	struct leg *leg = dest->leg;
	const struct proc_id *ids = disk->processes;
	char name[LIMIT_NAME + 48];
	size_t at = 0;
	unsigned count = disk->process_count =
		exporter_processes(disk->exporter, disk->processes, DEST_EXPORTER_PROCESSES);
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), i ? "export-%" PRIu64 "-%s-%u" : "export-%" PRIu64 "-%s",
		         leg->options.migration, resource->name, i + 1);
		if (paths_write_pid(&leg->paths, name, ids[i].pid, err))
			return -1;
		int n = snprintf(resource->note + at, sizeof(resource->note) - at, "%d:%" PRIu64 " ", (int)ids[i].pid,
		                 ids[i].start_ticks);
		if (n < 0 || (size_t)n >= sizeof(resource->note) - at)
			return err_set(err, ERR_INTERNAL, "too many exporter processes");
		at += (size_t)n;
	}
	disk->closes = leg->plan->keep_copy_s && leg->plan->to[disk - dest->disks].format == FORMAT_QCOW2;
	if (count)
		resource->process = ids[0];
	resource->state = RESOURCE_MADE;
	return leg_resource_update(leg, resource, err) || cancel_add(leg->work, kill_exporter, disk, err) ? -1 : 0;
}

static int start_exporter(struct dest *dest, unsigned i, struct err *err)
{
	struct leg *leg = dest->leg;
	const struct msg_plan *plan = leg->plan;
	struct dest_disk *disk = &dest->disks[i];
	struct journal_resource resource = { .kind = RESOURCE_EXPORT, .state = RESOURCE_INTENT };
	struct exporter *exporter = NULL;
	memcpy(resource.name, plan->vm.disks[i].name, sizeof(resource.name));
	int n = snprintf(resource.path, sizeof(resource.path), "%s/export-%" PRIu64 "-%s", leg->paths.run,
	                 leg->options.migration, resource.name);
	if (n < 0 || (size_t)n >= sizeof(resource.path))
		return err_set(err, ERR_CONFIG, "the run directory's path is too long");
	if (leg_resource_add(leg, &resource, err))
		return -1;
	if (mkdir(resource.path, 0700) && errno != EEXIST)
		return err_errno(err, ERR_IO, errno, "make %s", resource.path);
	if (exporter_start(&exporter, leg->conf->exporter, resource.path, disk->path, plan->to[i].format,
	                   plan->vm.disks[i].size_bytes, resource.name, leg->options.migration, &disk->access, err))
		return -1;
	pthread_mutex_lock(&dest->lock);
	disk->exporter = exporter;
	pthread_mutex_unlock(&dest->lock);
	return list_processes(dest, disk, &resource, err);
}

static int make_disk(struct dest *dest, unsigned i, struct err *err)
{
	const struct msg_plan *plan = dest->leg->plan;
	const struct sr_config *sr = agent_conf_sr(dest->leg->conf, plan->to[i].sr);
	if (!sr)
		return err_set(err, ERR_NO_MAP, "this host has no storage repository %s", plan->to[i].sr);
	struct dest_disk *disk = &dest->disks[i];
	if (dest_keep_find(dest, i, err) ||
	    (!disk->earlier &&
	     sr_disk_path(sr, plan->vm.uuid, plan->vm.disks[i].name, dest->leg->options.migration, disk->path, err)) ||
	    reserve(dest, i, err) || (!disk->earlier && make_image(dest, i, sr, err)) || start_exporter(dest, i, err))
		return err_wrap(err, "disk %s", plan->vm.disks[i].name);
	return 0;
}

static int make_vm(struct dest *dest, struct err *err)
{
	struct leg *leg = dest->leg;
	struct journal_resource resource = { .kind = RESOURCE_VM, .state = RESOURCE_INTENT };
	char text[UUID_STR_LEN];
	uuid_unparse_lower(leg->plan->vm.uuid, text);
	memcpy(resource.name, text, sizeof(text));
	if (leg_resource_add(leg, &resource, err) ||
	    leg->ops->dest_create(leg->hv, leg->plan, leg->options.migration, &dest->vm, err) ||
	    cancel_add(leg->work, cancel_vm, dest, err))
		return -1;
	resource.state = RESOURCE_MADE;
	return leg_resource_update(leg, &resource, err);
}

static int prepare(struct leg *leg, struct err *err)
{
	struct dest *dest = leg->dest;
	dest->disk_count = leg->plan->vm.disk_count;
	for (unsigned i = 0; i < dest->disk_count; i++)
		if (cancel_fired(leg->work))
			return err_set(err, ERR_CANCELLED, "cancelled");
		else if (make_disk(dest, i, err))
			return -1;
	return make_vm(dest, err) || net_listen(leg->conf->data_address, &dest->listen_fd, leg->endpoint, err) ? -1 : 0;
}

/* ---- what the journal says of a VM that cannot be unpaused ---- */
/* The journal's line of the VM: 1, 0 if there is none, -1. */
static int vm_resource(struct leg *leg, struct journal_resource *ret_resource, struct err *err)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	int rc = leg_resource_list(leg, &list, &count, err);
	for (size_t i = 0; i < count && rc == 0; i++)
		if (list[i].kind == RESOURCE_VM) {
			*ret_resource = list[i];
			rc = 1;
		}
	free(list);
	return rc;
}

static int note_vm(struct leg *leg, const char *note, struct err *err)
{
	struct journal_resource vm;
	int found = vm_resource(leg, &vm, err);
	if (found <= 0)
		return found < 0 ? -1 : err_set(err, ERR_INTERNAL, "the VM is not in the journal");
	snprintf(vm.note, sizeof(vm.note), "%s", note);
	return leg_resource_update(leg, &vm, err);
}

/* ---- recovery ---- */
static int end_exporters(struct leg *leg, struct err *err)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	int rc = leg_resource_list(leg, &list, &count, err);
	for (size_t i = 0; i < count && !rc; i++)
		if (list[i].kind == RESOURCE_EXPORT)
			rc = clean_exporter(&leg->paths, &list[i], err) || leg_resource_gone(leg, list[i].id, err) ? -1
			                                                                                           : 0;
	free(list);
	return rc;
}

static int recover(struct leg *leg, struct err *err)
{
	struct dest *dest = leg->dest;
	struct journal_resource vm;
	struct err why = { 0 };
	/* They died with the leg; certainty is cheap. */
	if (end_exporters(leg, err))
		return -1;
	int noted = vm_resource(leg, &vm, err);
	if (noted < 0)
		return -1;
	/* Under another boot it is the reboot that took the VM, and what was activated counts as having run (V6). */
	dest->giving_back = noted && !leg->local.image_gone && strcmp(vm.note, NEVER_RAN) == 0;
	if (dest->vm || leg->ops->dest_find(leg->hv, leg->plan->vm.uuid, leg->options.migration, &dest->vm, &why) == 0)
		return 0;
	dest->vm = NULL;
	if (why.code != ERR_UNKNOWN_VM) {
		*err = why;
		return -1;
	}
	if (dest->giving_back)
		leg_post_unpause_failed(leg);
	else
		leg_post_image_gone(leg);
	return 0;
}

/* ---- the VM runs here ---- */
/* After several tries: destroying it is what makes "it never ran" certain; a VM that did run is not destroyed. That it
 * is being destroyed is journaled first: a leg that comes after this one could not tell why it is gone, and would have
 * to take it for one that ran. */
static int give_back(struct leg *leg, struct err *err)
{
	struct dest *dest = leg->dest;
	if (!dest->giving_back && note_vm(leg, NEVER_RAN, err))
		return -1;
	dest->giving_back = true;
	if (leg->ops->dest_destroy(leg->hv, leg->plan->vm.uuid, leg->options.migration, err)) {
		if (err->code == ERR_TOO_LATE && note_vm(leg, "", NULL) == 0)
			dest->giving_back = false; /* it has run after all */
		return -1;
	}
	log_error("event=unpause-impossible migration=%" PRIu64, leg->options.migration);
	dest->unpause_tries = 0;
	leg_post_unpause_failed(leg);
	return 0;
}

static int activate(struct leg *leg, struct err *err)
{
	struct dest *dest = leg->dest;
	struct err why = { 0 };
	if (!dest->vm)
		return err_set(err, ERR_INTERNAL, "no VM to activate");
	if (dest->giving_back)
		return give_back(leg, err);
	if (leg->ops->dest_unpause(dest->vm, err) == 0)
		return 0;
	int state = leg->ops->dest_state(dest->vm, &why);
	if (state == 1)
		return 0;
	if (state == 0 && ++dest->unpause_tries >= UNPAUSE_TRIES)
		return give_back(leg, err);
	return err_wrap(err, "unpause");
}

/* ---- taking away, letting go ---- */
static void stop_all(struct leg *leg)
{
	struct dest *dest = leg->dest;
	int64_t began_ms = leg_now_ms();
	for (unsigned i = 0; i < LIMIT_DISKS;
	     i++) { /* only we let go of them; readers fail, and are waited for below */
		int64_t spent_ms = leg_now_ms() - began_ms;
		if (dest->disks[i].exporter && dest->disks[i].closes)
			exporter_end(dest->disks[i].exporter,
			             spent_ms < CLOSE_MS ? (unsigned)(CLOSE_MS - spent_ms) : 0);
	}
	dest_copy_end(dest);
	if (dest->listen_fd >= 0)
		close(dest->listen_fd);
	dest->listen_fd = -1;
	for (unsigned i = 0; i < LIMIT_DISKS; i++) {
		struct dest_disk *disk = &dest->disks[i];
		pthread_mutex_lock(&dest->lock);
		struct exporter *exporter = disk->exporter;
		disk->exporter = NULL;
		pthread_mutex_unlock(&dest->lock);
		exporter_kill(exporter);
	}
	if (dest->vm)
		leg->ops->dest_close(dest->vm);
	dest->vm = NULL;
}

/* An operator ruled for the source, and the VM ran here until this host was powered off: its record goes, so that
 * nobody starts it, and what it wrote meanwhile stays for a while. */
static int keep_what_ran(struct leg *leg, struct err *err)
{
	struct hypervisor_dest *vm = NULL;
	struct journal_resource *list = NULL;
	size_t count = 0;
	struct err why = { 0 };
	if (leg->ops->dest_find(leg->hv, leg->plan->vm.uuid, leg->options.migration, &vm, &why)) {
		if (why.code == ERR_UNKNOWN_VM)
			return 0;
		*err = why;
		return -1;
	}
	int state = leg->ops->dest_state(vm, err);
	leg->ops->dest_close(vm);
	if (state <= 0)
		return state;
	uint64_t keep_s = leg->plan->keep_source_s > KEEP_RAN_S ? leg->plan->keep_source_s : KEEP_RAN_S;
	uint64_t until_ms = (uint64_t)clock_real.wall_ms(&clock_real) + keep_s * 1000;
	int rc = leg_resource_list(leg, &list, &count, err);
	for (size_t i = 0; i < count && !rc; i++) {
		if (list[i].kind != RESOURCE_DISK || list[i].state == RESOURCE_KEPT)
			continue;
		list[i].kind = RESOURCE_FILE; /* what a VM wrote is no copy for the next attempt to write over */
		list[i].state = RESOURCE_KEPT;
		list[i].kept_until_wall_ms = until_ms;
		rc = leg_resource_update(leg, &list[i], err);
	}
	free(list);
	return rc ? -1 : leg->ops->source_destroy(leg->hv, leg->plan->vm.uuid, err);
}

static int clean(struct leg *leg, struct err *err)
{
	struct verdict_facts facts;
	stop_all(leg);
	if (leg_facts_now(leg, &facts, err))
		return -1;
	if (facts.ruling == VOTE_ABORT && facts.activating && keep_what_ran(leg, err))
		return -1;
	return clean_resources(leg, NULL, 0, err);
}

/* Nothing is left of one that was destroyed by hand: then there is nothing to be had. */
static int adopt(struct leg *leg, struct err *err)
{
	struct err why = { 0 };
	if (!leg->local.image_gone ||
	    leg->ops->dest_adopt(leg->hv, leg->plan->vm.uuid, leg->options.migration, &why) == 0)
		return 0;
	if (why.code == ERR_UNKNOWN_VM) {
		log_warning("event=nothing-to-adopt migration=%" PRIu64 " error=\"%s\"", leg->options.migration,
		            why.text);
		return 0;
	}
	*err = why;
	return -1;
}

static int release(struct leg *leg, struct err *err)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	cancel_fire(leg->work);
	stop_all(leg);
	int rc = adopt(leg, err) ? -1 : leg_resource_list(leg, &list, &count, err);
	for (size_t i = 0; i < count && !rc; i++) {
		if (list[i].state == RESOURCE_KEPT)
			continue;
		if (list[i].kind == RESOURCE_RESERVE)
			rc = sr_reserve_remove(list[i].path, err);
		else if (list[i].kind == RESOURCE_EXPORT)
			rc = clean_exporter(&leg->paths, &list[i], err);
		/* The disks and the VM are the VM's own from here on. */
		if (!rc)
			rc = leg_resource_gone(leg, list[i].id, err);
	}
	free(list);
	return rc;
}

/* ---- main thread ---- */
static void granted(struct leg *leg)
{
	(void)leg; /* the verdict's rules look at local.granted */
}

static void tick(struct leg *leg)
{
	struct dest *dest = leg->dest;
	if (!leg->prepared || leg->local.failed || leg->local.complete || leg->settled)
		return;
	for (unsigned i = 0; i < dest->disk_count; i++) {
		pthread_mutex_lock(&dest->lock);
		struct exporter *exporter = dest->disks[i].exporter;
		bool dead = exporter && !exporter_alive(exporter);
		pthread_mutex_unlock(&dest->lock);
		if (!dead)
			continue;
		struct err err;
		err_set(&err, ERR_EXPORTER, "the exporter of disk %s died", leg->plan->vm.disks[i].name);
		leg_fail(leg, &err);
		return;
	}
}

static void facts(struct leg *leg)
{
	(void)leg;
}

static void dest_free(struct leg *leg)
{
	struct dest *dest = leg->dest;
	if (!dest)
		return;
	stop_all(leg);
	pthread_mutex_destroy(&dest->lock);
	pthread_cond_destroy(&dest->changed);
	free(dest);
	leg->dest = NULL;
}

const struct leg_side leg_dest = {
	.party = PARTY_DESTINATION,
	.make = dest_make,
	.recover = recover,
	.prepare = prepare,
	.copy = dest_copy,
	.vm = activate,
	.clean = clean,
	.release = release,
	.granted = granted,
	.tick = tick,
	.facts = facts,
	.free = dest_free,
};
