/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_sim, the side that a VM comes to: everything but the memory stream (sim_receive.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/hypervisor/sim_driver.h"

#define ATTACH_MS 10000u

static int dest_new(struct hypervisor *hv, const struct sim_record *record, struct hypervisor_dest **ret_dest,
                    struct err *err)
{
	struct hypervisor_dest *dest = calloc(1, sizeof(*dest));
	if (dest == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	dest->hv = hv;
	dest->record = *record;
	if (disk_cancel_open(&dest->cancel, err) != 0) {
		free(dest);
		return -1;
	}
	*ret_dest = dest;
	return 0;
}

static void fill_record(const struct msg_plan *plan, uint64_t migration, struct sim_record *record)
{
	memset(record, 0, sizeof(*record));
	record->state = SIM_INCOMING;
	memcpy(record->uuid, plan->vm.uuid, sizeof(record->uuid));
	snprintf(record->name, sizeof(record->name), "%s", plan->new_name[0] != '\0' ? plan->new_name : plan->vm.name);
	record->migration = migration;
	record->memory_bytes = plan->vm.memory_bytes;
	record->vcpus = plan->vm.vcpus > 0 ? plan->vm.vcpus : 1;
	record->tick_ms = 10; /* until the state blob says */
	record->disk_count = plan->vm.disk_count;
	for (unsigned i = 0; i < record->disk_count; i++) {
		memcpy(record->disks[i].name, plan->vm.disks[i].name, LIMIT_NAME);
		memcpy(record->disks[i].sr, plan->to[i].sr, LIMIT_NAME);
		record->disks[i].format = plan->to[i].format;
		record->disks[i].size_bytes = plan->vm.disks[i].size_bytes;
		record->disks[i].read_only = plan->vm.disks[i].read_only != 0;
	}
	record->nic_count = plan->vm.nic_count;
	for (unsigned i = 0; i < record->nic_count; i++) {
		record->nics[i] = plan->vm.nics[i];
		memcpy(record->nics[i].bridge, plan->bridges[i], LIMIT_NAME);
	}
}

/* Room and name for a new one. 1: it is here already, made for the same migration. */
static int admit(struct hypervisor *hv, struct sim_record *record, struct err *err)
{
	struct sim_record *list;
	size_t count;
	uint64_t memory, used = 0;
	int result = 0;
	if (sim_host_memory(&hv->paths, &memory, err) != 0 || sim_record_list(&hv->paths, &list, &count, err) != 0)
		return -1;
	for (size_t i = 0; i < count && result == 0; i++) {
		const struct sim_record *other = &list[i];
		used += other->memory_bytes;
		bool same = memcmp(other->uuid, record->uuid, sizeof(record->uuid)) == 0;
		if (same && other->state == SIM_INCOMING && other->migration == record->migration) {
			*record = *other;
			result = 1;
		} else if (same || strcmp(other->name, record->name) == 0) {
			result = err_set(err, ERR_NAME_TAKEN, "this host has a VM %s already (%s)", other->name,
			                 sim_state_name(other->state));
		}
	}
	free(list);
	if (result == 0 && (used > memory || memory - used < record->memory_bytes))
		result = err_set(err, ERR_NO_MEMORY, "VM %s needs %llu MiB of memory, %llu MiB are free", record->name,
		                 (unsigned long long)(record->memory_bytes >> 20),
		                 (unsigned long long)(used > memory ? 0 : (memory - used) >> 20));
	return result;
}

static int create_locked(struct hypervisor *hv, struct sim_record *record, struct err *err)
{
	struct proc_id id;
	char path[LIMIT_PATH];
	int here = admit(hv, record, err);
	if (here < 0 || sim_path(&hv->paths, record->name, SIM_PATH_QMP_LEG, path, err) != 0)
		return -1;
	if (here == 1 && sim_guest_alive(&hv->paths, record->name, &id))
		return 0;
	if (here == 0 && sim_record_save(&hv->paths, record, err) != 0)
		return -1;
	if (sim_guest_start(&hv->paths, record->name, err) == 0)
		return 0;
	/* Nothing is to be left of it: a caller that is told "failed" has nothing to take away. */
	sim_guest_end(&hv->paths, record->name, "destroy", NULL);
	sim_record_remove(&hv->paths, record->name, NULL);
	return -1;
}

int sim_dest_create(struct hypervisor *hv, const struct msg_plan *plan, uint64_t migration,
                    struct hypervisor_dest **ret_dest, struct err *err)
{
	struct sim_record record;
	fill_record(plan, migration, &record);
	if (!sim_name_ok(record.name))
		return err_set(err, ERR_UNSUPPORTED,
		               "VM name '%s': simulated hosts take letters, digits, '.', '_' and '-'", record.name);
	if (record.memory_bytes < SIM_MEMORY_MIN || record.memory_bytes > SIM_MEMORY_MAX ||
	    record.memory_bytes % SIM_PAGE_BYTES != 0)
		return err_set(err, ERR_UNSUPPORTED, "VM %s: memory of %llu bytes", record.name,
		               (unsigned long long)record.memory_bytes);
	int lock = sim_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int result = create_locked(hv, &record, err);
	close(lock);
	return result == 0 ? dest_new(hv, &record, ret_dest, err) : -1;
}

int sim_dest_find(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct hypervisor_dest **ret_dest,
                  struct err *err)
{
	struct sim_record record;
	if (sim_record_find(&hv->paths, uuid, &record, err) != 0)
		return -1;
	if (record.migration != migration)
		return err_set(err, ERR_UNKNOWN_VM, "VM %s is here, but not of migration %llu", record.name,
		               (unsigned long long)migration);
	return dest_new(hv, &record, ret_dest, err);
}

void sim_dest_close(struct hypervisor_dest *dest)
{
	if (dest == NULL)
		return;
	disk_cancel_close(&dest->cancel);
	free(dest);
}

void sim_dest_cancel(struct hypervisor_dest *dest)
{
	disk_cancel_set(&dest->cancel);
}

int sim_dest_attach(struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count,
                    struct err *err)
{
	json_t *disks = json_array();
	for (unsigned i = 0; i < count; i++)
		json_array_append_new(disks, json_pack("{s:s,s:s,s:s,s:s,s:I}", "name", images[i].name, "sr",
		                                       images[i].sr, "path", images[i].path, "format",
		                                       images[i].format == FORMAT_QCOW2 ? "qcow2" : "raw", "size",
		                                       (json_int_t)images[i].size_bytes));
	return sim_call(&dest->hv->paths, dest->record.name, json_pack("{s:s,s:o}", "op", "attach", "disks", disks),
	                ATTACH_MS, &dest->cancel, NULL, err);
}

int sim_dest_unpause(struct hypervisor_dest *dest, struct err *err)
{
	return sim_call(&dest->hv->paths, dest->record.name, json_pack("{s:s}", "op", "unpause"), SIM_CALL_MS, NULL,
	                NULL, err);
}

/* The record knows: the guest turns it to "running", durably, before its first tick here. */
int sim_dest_state(struct hypervisor_dest *dest, struct err *err)
{
	struct sim_record record;
	int found = sim_record_seek(&dest->hv->paths, dest->record.uuid, &record, err);
	if (found <= 0)
		return found; /* none: destroyed; one that ran is not destroyed by dest_destroy */
	switch (record.state) {
	case SIM_RUNNING:
		return 1;
	case SIM_INCOMING:
		return 0;
	case SIM_DESTROYING:
		return 1; /* it left again */
	}
	return -1;
}

int sim_dest_adopt(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err)
{
	struct sim_record record;
	struct proc_id id;
	int lock = sim_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int result = sim_record_find(&hv->paths, uuid, &record, err);
	if (result == 0 && record.state == SIM_INCOMING) {
		if (record.migration != migration)
			result = err_set(err, ERR_UNKNOWN_VM, "VM %s is here, but of migration %llu", record.name,
			                 (unsigned long long)record.migration);
		else if (sim_guest_alive(&hv->paths, record.name, &id))
			result = err_set(err, ERR_CONFLICT, "VM %s has its memory still: it is to be unpaused",
			                 record.name);
		record.state = SIM_RUNNING;
		if (result == 0)
			result = sim_record_save(&hv->paths, &record, err);
	}
	close(lock);
	return result;
}

int sim_dest_destroy(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err)
{
	struct sim_record record;
	int lock = sim_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int found = sim_record_seek(&hv->paths, uuid, &record, err);
	int result = found < 0 ? -1 : 0;
	if (found <= 0)
		goto out;
	if (record.migration != migration)
		goto out; /* not ours: ours is gone */
	if (record.state == SIM_RUNNING) {
		result = err_set(err, ERR_TOO_LATE, "VM %s has run here: it is not an incoming one any more",
		                 record.name);
		goto out;
	}
	/* An unpause may be under way: the guest itself says which came first. */
	result = sim_guest_end(&hv->paths, record.name, "discard", err);
	if (result == 0)
		result = sim_record_remove(&hv->paths, record.name, err);
out:
	if (result == 0)
		result = sim_record_sweep(&hv->paths, err);
	close(lock);
	return result;
}
