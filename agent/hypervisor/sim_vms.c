/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_sim: all VMs of a host, whatever their state, for whoever looks for what was left behind. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/hypervisor/sim_driver.h"

static enum hypervisor_vm_state state_of(const struct sim_record *record)
{
	switch (record->state) {
	case SIM_INCOMING:
		return HYPERVISOR_VM_INCOMING;
	case SIM_DESTROYING:
		return HYPERVISOR_VM_LEAVING;
	case SIM_RUNNING:
		break;
	}
	return HYPERVISOR_VM_OWN;
}

int sim_vms(struct hypervisor *hv, struct hypervisor_vm **ret_vms, size_t *ret_count, struct err *err)
{
	struct sim_record *list = NULL;
	size_t count;
	int result = 0;
	if (sim_record_list(&hv->paths, &list, &count, err) != 0)
		return -1;
	struct hypervisor_vm *vms = calloc(count > 0 ? count : 1, sizeof(*vms));
	if (vms == NULL)
		result = err_set(err, ERR_NO_MEMORY, "no memory for %zu VMs", count);
	for (size_t i = 0; i < count && result == 0; i++) {
		const struct sim_record *record = &list[i];
		struct hypervisor_vm *vm = &vms[i];
		struct proc_id id;
		memcpy(vm->uuid, record->uuid, sizeof(vm->uuid));
		memcpy(vm->name, record->name, sizeof(vm->name));
		vm->state = state_of(record);
		vm->migration = record->migration;
		vm->disk_count = record->disk_count;
		result = sim_disks_of(hv, record, sim_backend_alive(&hv->paths, record->name, &id), vm->disks, err);
	}
	free(list);
	if (result != 0) {
		free(vms);
		return -1;
	}
	*ret_vms = vms;
	*ret_count = count;
	return 0;
}

int sim_destroy_end(struct hypervisor *hv, const uuid_bytes uuid, struct err *err)
{
	struct sim_record record;
	int lock = sim_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int found = sim_record_seek(&hv->paths, uuid, &record, err);
	int result = found < 0 ? -1 : 0;
	if (found <= 0)
		goto out;
	if (record.state != SIM_DESTROYING) {
		result = err_set(err, ERR_CONFLICT, "VM %s is not being destroyed", record.name);
		goto out;
	}
	result = sim_guest_end(&hv->paths, record.name, "destroy", err);
	if (result == 0)
		result = sim_record_remove(&hv->paths, record.name, err);
out:
	close(lock);
	return result;
}
