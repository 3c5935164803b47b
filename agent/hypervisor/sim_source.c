/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_sim, the side that a VM leaves: everything but the memory stream (sim_send.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/hypervisor/sim_driver.h"

int sim_source_open(struct hypervisor *hv, const uuid_bytes uuid, struct hypervisor_source **ret_source,
                    struct err *err)
{
	struct hypervisor_source *source = calloc(1, sizeof(*source));
	if (source == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	source->hv = hv;
	if (sim_record_find(&hv->paths, uuid, &source->record, err) != 0)
		goto out;
	if (source->record.state != SIM_RUNNING) {
		err_set(err, ERR_UNKNOWN_VM, "VM %s is not of this host: it is %s", source->record.name,
		        sim_state_name(source->record.state));
		goto out;
	}
	if (disk_cancel_open(&source->cancel, err) != 0)
		goto out;
	*ret_source = source;
	return 0;
out:
	free(source);
	return -1;
}

void sim_source_close(struct hypervisor_source *source)
{
	if (source == NULL)
		return;
	disk_cancel_close(&source->cancel);
	free(source);
}

int sim_disks_of(struct hypervisor *hv, const struct sim_record *record, bool backend,
                 struct hypervisor_disk *ret_disks, struct err *err)
{
	for (unsigned i = 0; i < record->disk_count; i++) {
		const struct sim_disk *from = &record->disks[i];
		struct hypervisor_disk *to = &ret_disks[i];
		memset(to, 0, sizeof(*to));
		memcpy(to->name, from->name, sizeof(to->name));
		memcpy(to->path, from->path, sizeof(to->path));
		to->format = from->format;
		to->size_bytes = from->size_bytes;
		to->read_only = from->read_only;
		if (!backend)
			continue;
		int bytes = snprintf(to->node, sizeof(to->node), "%s%s", SIM_NODE_PREFIX, from->name);
		if (bytes < 0 || (size_t)bytes >= sizeof(to->node))
			return err_set(err, ERR_UNSUPPORTED, "disk name '%s' is too long", from->name);
		if (sim_path(&hv->paths, record->name, SIM_PATH_QMP_LEG, to->qmp_path, err) != 0 ||
		    sim_path(&hv->paths, record->name, SIM_PATH_NBD, to->nbd_path, err) != 0)
			return -1;
	}
	return 0;
}

int sim_source_disks(struct hypervisor_source *source, struct hypervisor_disk *ret_disks, unsigned *count,
                     struct err *err)
{
	const struct sim_record *record = &source->record;
	if (*count < record->disk_count)
		return err_set(err, ERR_UNSUPPORTED, "VM %s has %u disks, more than the %u that there is room for",
		               record->name, record->disk_count, *count);
	if (sim_disks_of(source->hv, record, true, ret_disks, err) != 0)
		return -1;
	*count = record->disk_count;
	return 0;
}

void sim_source_cancel(struct hypervisor_source *source)
{
	disk_cancel_set(&source->cancel);
}

int sim_source_is_suspended(struct hypervisor_source *source, struct err *err)
{
	json_t *reply;
	if (sim_call(&source->hv->paths, source->record.name, json_pack("{s:s}", "op", "status"), SIM_CALL_MS, NULL,
	             &reply, err) != 0)
		return -1;
	const char *state = json_string_value(json_object_get(reply, "state"));
	int result = -1;
	if (state != NULL && strcmp(state, "suspended") == 0)
		result = 1;
	else if (state != NULL && strcmp(state, "running") == 0)
		result = 0;
	else
		err_set(err, ERR_HYPERVISOR, "guest %s is %s", source->record.name,
		        state != NULL ? state : "in no known state");
	json_decref(reply);
	return result;
}

int sim_source_resume(struct hypervisor_source *source, struct err *err)
{
	struct proc_id id;
	struct err why = { 0 };
	/* Not the source's cancel: an abort that was asked for ends here, and this must get through. */
	if (sim_call(&source->hv->paths, source->record.name, json_pack("{s:s}", "op", "resume"), SIM_CALL_MS, NULL,
	             NULL, &why) == 0)
		return 0;
	/* A pid file alone proves nothing, and no answer in time even less: nobody must listen, too. */
	if (why.code == ERR_HYPERVISOR && !sim_guest_alive(&source->hv->paths, source->record.name, &id))
		why.code = ERR_UNKNOWN_VM;
	return err_set(err, why.code, "%s", why.text);
}

int sim_source_flush(struct hypervisor_source *source, struct err *err)
{
	return sim_call(&source->hv->paths, source->record.name, json_pack("{s:s}", "op", "flush"), SIM_SUSPEND_MS,
	                &source->cancel, NULL, err);
}

int sim_source_throttle(struct hypervisor_source *source, unsigned percent, struct err *err)
{
	return sim_call(&source->hv->paths, source->record.name,
	                json_pack("{s:s,s:i}", "op", "throttle", "percent", (int)percent), SIM_CALL_MS, NULL, NULL,
	                err);
}

int sim_source_destroy(struct hypervisor *hv, const uuid_bytes uuid, struct err *err)
{
	struct sim_record record;
	int lock = sim_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int found = sim_record_seek(&hv->paths, uuid, &record, err);
	int result = found < 0 ? -1 : 0;
	if (found <= 0)
		goto out;
	if (record.state == SIM_INCOMING) {
		result = err_set(err, ERR_CONFLICT, "VM %s is coming in, not leaving", record.name);
		goto out;
	}
	/* Marked first: a crash in between must not leave a record that says it is to be started. */
	record.state = SIM_DESTROYING;
	result = sim_record_save(&hv->paths, &record, err);
	if (result == 0)
		result = sim_guest_end(&hv->paths, record.name, "destroy", err);
	if (result == 0)
		result = sim_record_remove(&hv->paths, record.name, err);
out:
	if (result == 0)
		result = sim_record_sweep(&hv->paths, err);
	close(lock);
	return result;
}
