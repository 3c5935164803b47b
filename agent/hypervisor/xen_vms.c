/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen: what is on this host: the inventory, and all VMs for whoever looks for what was left behind. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/hypervisor/xen_driver.h"

struct world {
	xc_domaininfo_t *domains;
	size_t domain_count;
	struct xen_record *records;
	size_t record_count;
};

static void world_free(struct world *world)
{
	free(world->domains);
	free(world->records);
}

/* Records first: a VM that comes in has one before it has a domain. One that leaves has none before its domain goes. */
static int world_read(struct hypervisor *hv, struct world *ret_world, struct err *err)
{
	struct world world = { 0 };
	if (xen_record_list(&hv->paths, &world.records, &world.record_count, err) != 0 ||
	    xen_domain_list(hv, &world.domains, &world.domain_count, err) != 0) {
		world_free(&world);
		return -1;
	}
	*ret_world = world;
	return 0;
}

static const struct xen_record *record_of(const struct world *world, const uuid_bytes uuid)
{
	for (size_t i = 0; i < world->record_count; i++)
		if (memcmp(world->records[i].uuid, uuid, sizeof(uuid_bytes)) == 0)
			return &world->records[i];
	return NULL;
}

static bool has_domain(const struct world *world, const uuid_bytes uuid)
{
	for (size_t i = 0; i < world->domain_count; i++)
		if (memcmp(world->domains[i].handle, uuid, sizeof(uuid_bytes)) == 0)
			return true;
	return false;
}

static enum hypervisor_vm_state state_of(bool dying, const struct xen_record *record)
{
	if (record != NULL && (record->state == XEN_INCOMING || record->state == XEN_BUILT))
		return HYPERVISOR_VM_INCOMING;
	if (dying || (record != NULL && record->state == XEN_LEAVING))
		return HYPERVISOR_VM_LEAVING;
	return HYPERVISOR_VM_OWN;
}

/* ---- all VMs ---- */
/* What the record knows; the domain's own configuration is better where it can be read. */
static void disks_of_record(const struct xen_record *record, struct hypervisor_vm *vm)
{
	vm->disk_count = record->disk_count;
	for (unsigned i = 0; i < record->disk_count; i++) {
		const struct hypervisor_image *from = &record->disks[i];
		struct hypervisor_disk *to = &vm->disks[i];
		memset(to, 0, sizeof(*to));
		memcpy(to->name, from->name, sizeof(to->name));
		memcpy(to->path, from->path, sizeof(to->path));
		to->format = from->format;
		to->size_bytes = from->size_bytes;
	}
}

static void disks_of_domain(struct hypervisor *hv, uint32_t domid, const struct xen_record *record,
                            struct hypervisor_vm *vm)
{
	libxl_domain_config config;
	unsigned count = LIMIT_DISKS;
	if (xen_config_read(hv, domid, &config, NULL) != 0)
		return;
	if (xen_config_disks(hv, domid, &config, true, vm->disks, &count, NULL) == 0)
		vm->disk_count = count;
	else if (record != NULL)
		disks_of_record(record, vm);
	libxl_domain_config_dispose(&config);
}

static void describe_record(const struct xen_record *record, struct hypervisor_vm *vm)
{
	memcpy(vm->uuid, record->uuid, sizeof(vm->uuid));
	vm->state = state_of(false, record);
	vm->migration = record->migration;
	memcpy(vm->name, record->name, sizeof(vm->name));
	disks_of_record(record, vm);
}

static void describe(struct hypervisor *hv, const xc_domaininfo_t *info, const struct xen_record *record,
                     struct hypervisor_vm *vm)
{
	if (record != NULL) {
		describe_record(record, vm);
	} else {
		memcpy(vm->uuid, info->handle, sizeof(vm->uuid));
		xen_domain_name(hv, info->domain, vm->name);
	}
	vm->state = state_of((info->flags & XEN_DOMINF_dying) != 0, record);
	if (vm->state == HYPERVISOR_VM_OWN)
		disks_of_domain(hv, info->domain, record, vm);
}

int xen_vms(struct hypervisor *hv, struct hypervisor_vm **ret_vms, size_t *ret_count, struct err *err)
{
	struct world world;
	size_t count = 0;
	if (world_read(hv, &world, err) != 0)
		return -1;
	struct hypervisor_vm *vms = calloc(world.domain_count + world.record_count + 1, sizeof(*vms));
	for (size_t i = 0; vms != NULL && i < world.domain_count; i++)
		describe(hv, &world.domains[i], record_of(&world, world.domains[i].handle), &vms[count++]);
	for (size_t i = 0; vms != NULL && i < world.record_count; i++)
		if (!has_domain(&world, world.records[i].uuid))
			describe_record(&world.records[i], &vms[count++]);
	world_free(&world);
	if (vms == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory for a list of VMs");
	*ret_vms = vms;
	*ret_count = count;
	return 0;
}

/* ---- inventory ---- */
static enum vm_state vm_state_of(const xc_domaininfo_t *info)
{
	if (xen_domain_has_ended(info))
		return VM_HALTED;
	if (xen_domain_is_suspended(info))
		return VM_SUSPENDED;
	return (info->flags & XEN_DOMINF_paused) != 0 ? VM_PAUSED : VM_RUNNING;
}

static void fill_disk(const struct hypervisor_disk *from, struct msg_disk *to)
{
	struct stat file;
	memset(to, 0, sizeof(*to));
	memcpy(to->name, from->name, sizeof(to->name));
	to->format = from->format;
	to->size_bytes = from->size_bytes;
	to->read_only = from->read_only;
	if (stat(from->path, &file) == 0)
		to->allocated_bytes = (uint64_t)file.st_blocks * 512;
	if (to->allocated_bytes > to->size_bytes)
		to->allocated_bytes = to->size_bytes;
}

static void fill_nics(const libxl_domain_config *config, struct msg_vm *vm)
{
	for (int i = 0; i < config->num_nics && vm->nic_count < LIMIT_NICS; i++) {
		const libxl_device_nic *from = &config->nics[i];
		struct msg_nic *to = &vm->nics[vm->nic_count++];
		snprintf(to->mac, sizeof(to->mac), "%02x:%02x:%02x:%02x:%02x:%02x", from->mac[0], from->mac[1],
		         from->mac[2], from->mac[3], from->mac[4], from->mac[5]);
		snprintf(to->bridge, sizeof(to->bridge), "%s", from->bridge != NULL ? from->bridge : "");
	}
}

static void fill_config(struct hypervisor *hv, const xc_domaininfo_t *info, struct msg_vm *vm,
                        struct hypervisor_disk *disks)
{
	libxl_domain_config config;
	struct err why = { 0 };
	unsigned count = LIMIT_DISKS;
	if (xen_config_read(hv, info->domain, &config, &why) != 0) {
		snprintf(vm->refusal, sizeof(vm->refusal), "%.190s", why.text);
		return;
	}
	if (xen_config_check(hv, info, &config, &why) != 0)
		snprintf(vm->refusal, sizeof(vm->refusal), "%.190s", why.text);
	if (xen_config_disks(hv, info->domain, &config, false, disks, &count, NULL) == 0)
		for (vm->disk_count = 0; vm->disk_count < count; vm->disk_count++)
			fill_disk(&disks[vm->disk_count], &vm->disks[vm->disk_count]);
	fill_nics(&config, vm);
	libxl_domain_config_dispose(&config);
}

static void fill_vm(struct hypervisor *hv, const xc_domaininfo_t *info, struct msg_vm *vm,
                    struct hypervisor_disk *disks)
{
	memset(vm, 0, sizeof(*vm));
	memcpy(vm->uuid, info->handle, sizeof(vm->uuid));
	xen_domain_name(hv, info->domain, vm->name);
	vm->state = vm_state_of(info);
	vm->memory_bytes = info->tot_pages * XEN_PAGE_BYTES;
	vm->vcpus = info->max_vcpu_id != XEN_INVALID_MAX_VCPU_ID ? info->max_vcpu_id + 1 : 1;
	fill_config(hv, info, vm, disks);
}

/* What comes in is counted by claims in the agent's journal, so here what it has taken already counts as free. */
static int fill_memory(struct hypervisor *hv, uint64_t incoming_bytes, struct msg_inventory *inv, struct err *err)
{
	libxl_physinfo info;
	libxl_physinfo_init(&info);
	if (libxl_get_physinfo(hv->ctx, &info) != 0)
		return xen_fail(hv, err, "cannot ask Xen about this host");
	uint64_t pages = info.free_pages + info.scrub_pages;
	pages = pages > info.outstanding_pages ? pages - info.outstanding_pages : 0;
	inv->memory_bytes = info.total_pages * XEN_PAGE_BYTES;
	inv->memory_free_bytes = pages * XEN_PAGE_BYTES + incoming_bytes;
	if (inv->memory_free_bytes > inv->memory_bytes)
		inv->memory_free_bytes = inv->memory_bytes;
	libxl_physinfo_dispose(&info);
	return 0;
}

int xen_inventory(struct hypervisor *hv, struct msg_inventory *ret_inv, struct err *err)
{
	struct world world;
	uint64_t incoming_bytes = 0;
	if (world_read(hv, &world, err) != 0)
		return -1;
	memset(ret_inv, 0, sizeof(*ret_inv));
	struct hypervisor_disk *disks = calloc(LIMIT_DISKS, sizeof(*disks));
	struct msg_vm *vms = calloc(world.domain_count + 1, sizeof(*vms));
	int result = disks == NULL || vms == NULL ? err_set(err, ERR_NO_MEMORY, "no memory for an inventory") : 0;
	for (size_t i = 0; i < world.domain_count && result == 0; i++) {
		const xc_domaininfo_t *info = &world.domains[i];
		bool dying = (info->flags & XEN_DOMINF_dying) != 0;
		enum hypervisor_vm_state state = state_of(dying, record_of(&world, info->handle));
		if (state == HYPERVISOR_VM_INCOMING)
			incoming_bytes += info->tot_pages * XEN_PAGE_BYTES;
		if (state == HYPERVISOR_VM_OWN && ret_inv->vm_count < LIMIT_VMS)
			fill_vm(hv, info, &vms[ret_inv->vm_count++], disks);
	}
	if (result == 0)
		result = fill_memory(hv, incoming_bytes, ret_inv, err);
	world_free(&world);
	free(disks);
	if (result != 0) {
		free(vms);
		return -1;
	}
	snprintf(ret_inv->hypervisor, sizeof(ret_inv->hypervisor), "xen");
	snprintf(ret_inv->software, sizeof(ret_inv->software), "%s", DROVER_VERSION);
	ret_inv->vms = vms;
	return 0;
}
