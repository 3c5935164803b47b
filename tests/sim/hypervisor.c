/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agent/hypervisor/hypervisor.h over simulated guests, but for the memory stream, which is copy.c's. */
#include "agent/hypervisor/hypervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/world.h"

#define IMPATIENCE (15 * SECOND)

struct hypervisor_source {
	struct machine *machine;
	uuid_bytes uuid;
};
struct hypervisor_dest {
	struct machine *machine;
	uuid_bytes uuid;
	uint64_t migration;
};

static int dying(struct err *err)
{
	return err_set(err, ERR_IO, "dying");
}

/* ---- inventory ---- */

static void describe(struct instance *instance, struct msg_vm *vm)
{
	const struct guest *guest = instance->guest;
	memcpy(vm->uuid, guest->uuid, sizeof(vm->uuid));
	(void)snprintf(vm->name, sizeof(vm->name), "%s", guest->name);
	vm->state = !instance->alive ? VM_HALTED : instance->state == INSTANCE_RUNNING ? VM_RUNNING : VM_SUSPENDED;
	vm->memory_bytes = 256u << 20;
	vm->vcpus = 1;
	vm->disk_count = guest->disks;
	for (unsigned d = 0; d < guest->disks; d++) {
		vm->disks[d] = (struct msg_disk) { .sr = "local",
			                           .format = FORMAT_RAW,
			                           .size_bytes = (uint64_t)GUEST_BLOCKS * GUEST_BLOCK_BYTES,
			                           .allocated_bytes = (uint64_t)GUEST_BLOCKS * GUEST_BLOCK_BYTES };
		(void)snprintf(vm->disks[d].name, sizeof(vm->disks[d].name), "xvd%c", 'a' + (int)d);
	}
	vm->nic_count = 1;
	(void)snprintf(vm->nics[0].mac, sizeof(vm->nics[0].mac), "00:16:3e:00:%02x:%02x", guest->index >> 8 & 255,
	               guest->index & 255);
	(void)snprintf(vm->nics[0].bridge, sizeof(vm->nics[0].bridge), "br0");
}

int hypervisor_inventory(const struct machine *machine, struct msg_inventory *ret_inventory)
{
	unsigned count = 0;
	uint64_t used = 0;
	memset(ret_inventory, 0, sizeof(*ret_inventory));
	ret_inventory->vms = calloc(LIMIT_VMS, sizeof(*ret_inventory->vms));
	if (!ret_inventory->vms)
		return -1;
	for (struct instance *i = machine->instances; i && count < LIMIT_VMS; i = i->next) {
		used += 256u << 20;
		if (i->state != INSTANCE_INCOMING)
			describe(i, &ret_inventory->vms[count++]);
	}
	ret_inventory->vm_count = count;
	(void)snprintf(ret_inventory->hypervisor, sizeof(ret_inventory->hypervisor), "sim");
	ret_inventory->memory_bytes = machine->memory_bytes;
	ret_inventory->memory_free_bytes = used < machine->memory_bytes ? machine->memory_bytes - used : 0;
	return 0;
}

/* ---- source ---- */

static int world_open(struct hypervisor **ret_hv, const struct paths *paths, struct err *err)
{
	(void)paths, (void)err;
	*ret_hv = (struct hypervisor *)world_current->machine;
	return 0;
}

static void world_close(struct hypervisor *hv)
{
	(void)hv;
}

static struct machine *machine_of(struct hypervisor *hv)
{
	return (struct machine *)hv;
}

static int source_open(struct hypervisor *hv, const uuid_bytes uuid, struct hypervisor_source **ret_source,
                       struct err *err)
{
	struct instance *instance = instance_find(machine_of(hv), uuid);
	if (!instance || instance->state == INSTANCE_INCOMING)
		return err_set(err, ERR_UNKNOWN_VM, "it is not on this host");
	struct hypervisor_source *source = calloc(1, sizeof(*source));
	if (!source)
		return err_set(err, ERR_NO_MEMORY, "source");
	source->machine = machine_of(hv);
	memcpy(source->uuid, uuid, sizeof(uuid_bytes));
	*ret_source = source;
	return 0;
}

static void source_close(struct hypervisor_source *source)
{
	free(source);
}

static int source_disks(struct hypervisor_source *source, struct hypervisor_disk *ret_disks, unsigned *count,
                        struct err *err)
{
	const struct instance *instance = instance_find(source->machine, source->uuid);
	if (!instance || *count < instance->guest->disks)
		return err_set(err, ERR_UNKNOWN_VM, "it is not on this host any more");
	*count = instance->guest->disks;
	for (unsigned d = 0; d < *count; d++) {
		ret_disks[d] = (struct hypervisor_disk) { .format = FORMAT_RAW,
			                                  .size_bytes = (uint64_t)GUEST_BLOCKS * GUEST_BLOCK_BYTES };
		(void)snprintf(ret_disks[d].name, sizeof(ret_disks[d].name), "xvd%c", 'a' + (int)d);
		(void)snprintf(ret_disks[d].path, sizeof(ret_disks[d].path), "%s", instance->paths[d]);
	}
	return 0;
}

static void source_cancel(struct hypervisor_source *source)
{
	(void)source; /* nothing here blocks */
}

static void lose_patience(void *ctx, uint64_t guest)
{
	struct machine *machine = ctx;
	struct instance *instance = instance_find(machine, world.guests[guest]->uuid);
	if (instance && instance->alive && instance->state == INSTANCE_PAUSED)
		instance_run(instance);
}

int hypervisor_suspend(struct machine *machine, const uuid_bytes uuid, struct err *err)
{
	struct instance *instance = instance_find(machine, uuid);
	if (proc_is_dying())
		return dying(err);
	if (!instance || !instance->alive)
		return err_set(err, ERR_UNKNOWN_VM, "it has ended");
	bool failed = fault_happens(FAULT_SUSPEND);
	if (!failed || chance_below(2)) /* or it has worked, and nobody knows */
		instance_pause(instance);
	if (world.scenario.plant == PLANT_IMPATIENT)
		event_add(IMPATIENCE / (1 + (int64_t)chance_below(40)), 0, lose_patience, machine,
		          instance->guest->index, false);
	return failed ? err_set(err, ERR_HYPERVISOR, "no answer to suspend") : 0;
}

static int source_is_suspended(struct hypervisor_source *source, struct err *err)
{
	const struct instance *instance = instance_find(source->machine, source->uuid);
	if (!instance || !instance->alive)
		return err_set(err, ERR_UNKNOWN_VM, "it has ended");
	return instance->state == INSTANCE_PAUSED;
}

static int source_resume(struct hypervisor_source *source, struct err *err)
{
	struct instance *instance = instance_find(source->machine, source->uuid);
	if (proc_is_dying())
		return dying(err);
	if (!instance || !instance->alive)
		return err_set(err, ERR_UNKNOWN_VM, "it has ended");
	instance_run(instance);
	return 0;
}

static int source_flush(struct hypervisor_source *source, struct err *err)
{
	(void)source, (void)err;
	return 0; /* raw images are written through */
}

static int source_throttle(struct hypervisor_source *source, unsigned percent, struct err *err)
{
	(void)source, (void)percent, (void)err;
	return 0;
}

static int source_destroy(struct hypervisor *hv, const uuid_bytes uuid, struct err *err)
{
	struct instance *instance = instance_find(machine_of(hv), uuid);
	if (proc_is_dying())
		return dying(err);
	if (!instance)
		return 0;
	if (instance->state == INSTANCE_INCOMING)
		return err_set(err, ERR_CONFLICT, "it is coming in, not leaving");
	if (instance->alive && instance->state == INSTANCE_RUNNING)
		promise_broken("no VM that runs is destroyed", "%s on %s", instance->guest->name,
		               instance->machine->name);
	trace("%s is destroyed on %s, which it has left", instance->guest->name, instance->machine->name);
	const struct guest *guest = instance->guest;
	instance_remove(instance);
	if (!guest->running && !guest->ended)
		promise_broken("no VM is lost", "%s was destroyed where it was, and runs nowhere", guest->name);
	return 0;
}

/* ---- destination ---- */

static struct hypervisor_dest *dest_new(struct machine *machine, const uuid_bytes uuid, uint64_t migration)
{
	struct hypervisor_dest *dest = calloc(1, sizeof(*dest));
	if (!dest)
		abort();
	dest->machine = machine;
	dest->migration = migration;
	memcpy(dest->uuid, uuid, sizeof(uuid_bytes));
	return dest;
}

static int dest_create(struct hypervisor *hv, const struct msg_plan *plan, uint64_t migration,
                       struct hypervisor_dest **ret_dest, struct err *err)
{
	struct machine *machine = machine_of(hv);
	struct instance *instance = instance_find(machine, plan->vm.uuid);
	struct guest *guest = guest_by_uuid(plan->vm.uuid);
	struct msg_inventory inventory;
	if (proc_is_dying())
		return dying(err);
	if (!guest)
		return err_set(err, ERR_UNSUPPORTED, "no such guest");
	if (instance && (instance->state != INSTANCE_INCOMING || instance->migration != migration))
		return err_set(err, ERR_NAME_TAKEN, "it is on this host already");
	if (hypervisor_inventory(machine, &inventory) < 0)
		return err_set(err, ERR_NO_MEMORY, "inventory");
	uint64_t free_bytes = inventory.memory_free_bytes;
	free(inventory.vms);
	if (!instance && free_bytes < plan->vm.memory_bytes)
		return err_set(err, ERR_NO_MEMORY, "no memory left");
	if (!instance)
		instance = instance_add(machine, guest, INSTANCE_INCOMING);
	instance->migration = migration;
	*ret_dest = dest_new(machine, plan->vm.uuid, migration);
	return 0;
}

static int dest_find(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration,
                     struct hypervisor_dest **ret_dest, struct err *err)
{
	const struct instance *instance = instance_find(machine_of(hv), uuid);
	if (!instance || instance->migration != migration)
		return err_set(err, ERR_UNKNOWN_VM, "it is not here");
	*ret_dest = dest_new(machine_of(hv), uuid, migration);
	return 0;
}

static void dest_close(struct hypervisor_dest *dest)
{
	free(dest);
}

static void dest_cancel(struct hypervisor_dest *dest)
{
	(void)dest; /* nothing here blocks */
}

static struct instance *incoming(const struct hypervisor_dest *dest)
{
	struct instance *instance = instance_find(dest->machine, dest->uuid);
	return instance && instance->migration == dest->migration ? instance : NULL;
}

static int dest_attach(struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count,
                       struct err *err)
{
	struct instance *instance = incoming(dest);
	if (proc_is_dying())
		return dying(err);
	if (!instance || !instance->alive || count != instance->guest->disks)
		return err_set(err, ERR_HYPERVISOR, "there is nothing to attach disks to");
	for (unsigned d = 0; d < count; d++) {
		if (!image_find(dest->machine, images[d].path))
			return err_set(err, ERR_BACKEND, "%s is not there", images[d].path);
		(void)snprintf(instance->paths[d], sizeof(instance->paths[d]), "%s", images[d].path);
	}
	instance->attached = true;
	return 0;
}

static int dest_unpause(struct hypervisor_dest *dest, struct err *err)
{
	struct instance *instance = incoming(dest);
	if (proc_is_dying())
		return dying(err);
	if (!instance || !instance->alive)
		return err_set(err, ERR_HYPERVISOR, "it is not there any more");
	if (!instance->complete || !instance->attached)
		promise_broken("only a whole copy is run", "%s on %s", instance->guest->name, dest->machine->name);
	if (world.scenario.plant == PLANT_LIAR && chance_below(2)) {
		instance_run(instance);
		return err_set(err, ERR_HYPERVISOR, "it does not run");
	}
	bool failed = instance->state == INSTANCE_INCOMING && fault_happens(FAULT_UNPAUSE);
	if (!failed || chance_below(2)) /* or it has worked, and nobody knows */
		instance_run(instance);
	return failed ? err_set(err, ERR_HYPERVISOR, "no answer to unpause") : 0;
}

static int dest_state(struct hypervisor_dest *dest, struct err *err)
{
	const struct instance *instance = incoming(dest);
	(void)err;
	return world.scenario.plant != PLANT_LIAR && instance && instance->state != INSTANCE_INCOMING;
}

static int dest_adopt(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err)
{
	struct instance *instance = instance_find(machine_of(hv), uuid);
	if (proc_is_dying())
		return dying(err);
	if (!instance || (instance->state == INSTANCE_INCOMING && instance->migration != migration))
		return err_set(err, ERR_UNKNOWN_VM, "it is not here");
	if (instance->alive && instance->state == INSTANCE_INCOMING)
		return err_set(err, ERR_CONFLICT, "it has its memory still");
	if (!instance->attached)
		promise_broken("only a whole copy is run", "%s on %s", instance->guest->name, instance->machine->name);
	if (instance->state == INSTANCE_INCOMING)
		instance->state = INSTANCE_RUNNING; /* it died with its host: nothing boots here */
	return 0;
}

static int dest_destroy(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err)
{
	struct instance *instance = instance_find(machine_of(hv), uuid);
	if (proc_is_dying())
		return dying(err);
	if (!instance || instance->migration != migration)
		return 0;
	if (instance->state != INSTANCE_INCOMING)
		return world.scenario.plant == PLANT_LIAR ? 0 : err_set(err, ERR_TOO_LATE, "it has run here");
	trace("%s is destroyed on %s, where it never ran", instance->guest->name, instance->machine->name);
	struct guest *guest = instance->guest;
	instance_remove(instance);
	guest_copy_gone(guest);
	return 0;
}

const struct hypervisor_ops world_hypervisor = {
	.name = "sim",
	.open = world_open,
	.close = world_close,
	.source_open = source_open,
	.source_close = source_close,
	.source_disks = source_disks,
	.source_cancel = source_cancel,
	.source_is_suspended = source_is_suspended,
	.source_resume = source_resume,
	.source_flush = source_flush,
	.source_throttle = source_throttle,
	.source_destroy = source_destroy,
	.dest_create = dest_create,
	.dest_find = dest_find,
	.dest_close = dest_close,
	.dest_cancel = dest_cancel,
	.dest_attach = dest_attach,
	.dest_unpause = dest_unpause,
	.dest_state = dest_state,
	.dest_adopt = dest_adopt,
	.dest_destroy = dest_destroy,
};
