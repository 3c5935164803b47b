/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_sim: the table of operations, and the inventory of a simulated host. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/hypervisor/sim_driver.h"

#define STATUS_MS 300u /* a guest that is stopped must not hold up the inventory */

uint64_t sim_page_digest(const void *page)
{
	const unsigned char *bytes = page;
	if (bytes[0] == 0 && memcmp(bytes, bytes + 1, SIM_PAGE_BYTES - 1) == 0)
		return 0;
	return XXH3_64bits(page, SIM_PAGE_BYTES);
}

static int sim_open(struct hypervisor **ret_hv, const struct paths *paths, struct err *err)
{
	struct hypervisor *hv = calloc(1, sizeof(*hv));
	if (hv == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	hv->paths = *paths;
	*ret_hv = hv;
	return 0;
}

static void sim_close(struct hypervisor *hv)
{
	free(hv);
}

static enum vm_state state_of(struct hypervisor *hv, const struct sim_record *record)
{
	struct proc_id id;
	json_t *reply = NULL;
	if (!sim_guest_alive(&hv->paths, record->name, &id))
		return VM_HALTED;
	enum vm_state state = VM_RUNNING; /* one that does not answer now is there all the same */
	if (sim_call(&hv->paths, record->name, json_pack("{s:s}", "op", "status"), STATUS_MS, NULL, &reply, NULL) ==
	    0) {
		const char *word = json_string_value(json_object_get(reply, "state"));
		if (word != NULL && strcmp(word, "suspended") == 0)
			state = VM_SUSPENDED;
	}
	json_decref(reply);
	return state;
}

static void describe(struct hypervisor *hv, const struct sim_record *record, struct msg_vm *vm)
{
	memset(vm, 0, sizeof(*vm));
	memcpy(vm->uuid, record->uuid, sizeof(vm->uuid));
	memcpy(vm->name, record->name, sizeof(vm->name));
	vm->state = state_of(hv, record);
	vm->memory_bytes = record->memory_bytes;
	vm->vcpus = record->vcpus;
	vm->disk_count = record->disk_count;
	for (unsigned i = 0; i < record->disk_count; i++) {
		const struct sim_disk *from = &record->disks[i];
		struct msg_disk *to = &vm->disks[i];
		struct stat file;
		memcpy(to->name, from->name, sizeof(to->name));
		memcpy(to->sr, from->sr, sizeof(to->sr));
		to->format = from->format;
		to->size_bytes = from->size_bytes;
		to->read_only = from->read_only;
		if (stat(from->path, &file) == 0)
			to->allocated_bytes = (uint64_t)file.st_blocks * 512;
		if (to->allocated_bytes > to->size_bytes)
			to->allocated_bytes = to->size_bytes;
	}
	vm->nic_count = record->nic_count;
	memcpy(vm->nics, record->nics, sizeof(vm->nics));
}

/* Those that come in and those that go are no VMs of this host; the claims of the agent's journal count them. */
static int sim_inventory(struct hypervisor *hv, struct msg_inventory *ret_inv, struct err *err)
{
	struct sim_record *list = NULL;
	size_t count;
	uint64_t memory, used = 0;
	if (sim_host_memory(&hv->paths, &memory, err) != 0 || sim_record_list(&hv->paths, &list, &count, err) != 0)
		return -1;
	struct msg_vm *vms = calloc(count > 0 ? count : 1, sizeof(*vms));
	if (vms == NULL) {
		free(list);
		return err_set(err, ERR_NO_MEMORY, "no memory for an inventory");
	}
	memset(ret_inv, 0, sizeof(*ret_inv));
	for (size_t i = 0; i < count && ret_inv->vm_count < LIMIT_VMS; i++) {
		if (list[i].state != SIM_RUNNING)
			continue;
		describe(hv, &list[i], &vms[ret_inv->vm_count++]);
		used += list[i].memory_bytes;
	}
	free(list);
	snprintf(ret_inv->hypervisor, sizeof(ret_inv->hypervisor), "sim");
	snprintf(ret_inv->software, sizeof(ret_inv->software), "%s", DROVER_VERSION);
	ret_inv->memory_bytes = memory;
	ret_inv->memory_free_bytes = used < memory ? memory - used : 0;
	ret_inv->vms = vms;
	return 0;
}

const struct hypervisor_ops hypervisor_sim = {
	.name = "sim",
	.open = sim_open,
	.close = sim_close,
	.inventory = sim_inventory,
	.vms = sim_vms,
	.destroy_end = sim_destroy_end,
	.source_open = sim_source_open,
	.source_close = sim_source_close,
	.source_disks = sim_source_disks,
	.source_send = sim_source_send,
	.source_cancel = sim_source_cancel,
	.source_is_suspended = sim_source_is_suspended,
	.source_resume = sim_source_resume,
	.source_flush = sim_source_flush,
	.source_throttle = sim_source_throttle,
	.source_destroy = sim_source_destroy,
	.dest_create = sim_dest_create,
	.dest_find = sim_dest_find,
	.dest_close = sim_dest_close,
	.dest_receive = sim_dest_receive,
	.dest_cancel = sim_dest_cancel,
	.dest_attach = sim_dest_attach,
	.dest_unpause = sim_dest_unpause,
	.dest_state = sim_dest_state,
	.dest_adopt = sim_dest_adopt,
	.dest_destroy = sim_dest_destroy,
};

const struct hypervisor_ops *const hypervisor_driver = &hypervisor_sim;
