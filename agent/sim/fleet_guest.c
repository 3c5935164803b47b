/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VMs of a simulated fleet: made, listed, destroyed, started again. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "agent/disk/disk.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/sim_control.h"
#include "agent/journal.h"
#include "agent/sim/fleet.h"
#include "common/clock.h"

#define STATUS_MS 500u
#define LIVES 10000  /* of VMs of one name */
#define SEED_BITS 62 /* fits a JSON integer */

static int guest_path(const struct fleet *fleet, const char *guest, char *ret_path, size_t room, struct err *err)
{
	int bytes = snprintf(ret_path, room, "%s/guests/%s.json", fleet->dir, guest);
	return bytes > 0 && (size_t)bytes < room ? 0 : err_set(err, ERR_CONFIG, "%s: path too long", fleet->dir);
}

/* The name in the ledgers: that of the VM, with a number when there was one of that name before. */
static int choose_guest(const struct fleet *fleet, struct sim_record *record, struct err *err)
{
	char path[PATHS_MAX * 2];
	for (unsigned life = 1; life < LIVES; life++) {
		int bytes = life == 1 ? snprintf(record->guest, LIMIT_NAME, "%s", record->name)
		                      : snprintf(record->guest, LIMIT_NAME, "%.50s.%u", record->name, life);
		if (bytes >= LIMIT_NAME || guest_path(fleet, record->guest, path, sizeof(path), err) != 0)
			break;
		if (access(path, F_OK) != 0)
			return 0;
	}
	return err_set(err, ERR_NAME_TAKEN, "there were too many VMs named '%s' here", record->name);
}

static int register_guest(const struct fleet *fleet, const struct fleet_host *host, const struct sim_record *record,
                          bool destroyed, struct err *err)
{
	char path[PATHS_MAX * 2], fresh[PATHS_MAX * 2 + 8], uuid[37];
	json_t *disks = json_array();
	uuid_unparse_lower(record->uuid, uuid);
	for (unsigned i = 0; i < record->disk_count; i++)
		json_array_append_new(disks, json_pack("{s:s,s:I}", "name", record->disks[i].name, "size",
		                                       (json_int_t)record->disks[i].size_bytes));
	json_t *root = json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:o}", "guest", record->guest, "uuid", uuid,
	                         "host", host->name, "seed", (json_int_t)record->seed, "memory",
	                         (json_int_t)record->memory_bytes, "tick_ms", (json_int_t)record->tick_ms, "dirty",
	                         (json_int_t)record->dirty_bps, "disk_write", (json_int_t)record->write_bps, "fill",
	                         (json_int_t)record->fill_percent, "destroyed", destroyed ? 1 : 0, "disks", disks);
	int result = guest_path(fleet, record->guest, path, sizeof(path), err);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	if (result == 0 &&
	    (root == NULL || json_dump_file(root, fresh, JSON_INDENT(1)) != 0 || rename(fresh, path) != 0))
		result = err_errno(err, ERR_IO, errno, "write %s", path);
	json_decref(root);
	return result;
}

/* One VM with this name in the whole fleet. 0: found. */
static int find(struct fleet *fleet, const char *name, struct fleet_host **ret_host, struct sim_record *ret_record,
                struct err *err)
{
	for (unsigned i = 0; i < fleet->host_count; i++) {
		struct err why = { 0 };
		if (sim_record_load(&fleet->hosts[i].paths, name, ret_record, &why) == 0) {
			if (ret_record->state == SIM_INCOMING)
				continue;
			*ret_host = &fleet->hosts[i];
			return 0;
		}
		if (why.code != ERR_UNKNOWN_VM)
			return err_set(err, why.code, "%s", why.text);
	}
	return err_set(err, ERR_UNKNOWN_VM, "no VM '%s' in %s; `drover-sim list` shows what there is", name,
	               fleet->dir);
}

static int make_disks(const struct fleet_host *host, struct sim_record *record, struct err *err)
{
	for (unsigned i = 0; i < record->disk_count; i++) {
		struct sim_disk *disk = &record->disks[i];
		struct sr_config sr = { .type = "dir",
			                .format = strcmp(disk->sr, "qcow") == 0 ? FORMAT_QCOW2 : FORMAT_RAW };
		if (strcmp(disk->sr, "local") != 0 && strcmp(disk->sr, "qcow") != 0)
			return err_set(err, ERR_USAGE, "disk %s: no SR '%s' on %s: use local or qcow", disk->name,
			               disk->sr, host->name);
		if (disk->size_bytes < SIM_MEMORY_MIN || disk->size_bytes % DISK_GRANULE_BYTES != 0)
			return err_set(err, ERR_USAGE, "disk %s: size must be at least 1M and a multiple of 64K",
			               disk->name);
		memcpy(sr.name, disk->sr, sizeof(sr.name));
		if (snprintf(sr.path, sizeof(sr.path), "%s/sr/%s", host->paths.home, disk->sr) >= (int)sizeof(sr.path))
			return err_set(err, ERR_CONFIG, "%s: path too long", host->paths.home);
		disk->format = sr.format;
		if (sr_disk_path(&sr, record->uuid, disk->name, 0, disk->path, err) != 0 ||
		    sr_disk_make(&sr, disk->path, disk->format, disk->size_bytes, err) != 0)
			return err_wrap(err, "disk %s", disk->name);
	}
	return 0;
}

static int room_for(const struct fleet_host *host, const struct sim_record *record, struct err *err)
{
	struct sim_record *list;
	size_t count;
	uint64_t memory, used = 0;
	if (sim_host_memory(&host->paths, &memory, err) != 0 || sim_record_list(&host->paths, &list, &count, err) != 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		used += list[i].memory_bytes;
	free(list);
	if (used > memory || memory - used < record->memory_bytes)
		return err_set(err, ERR_NO_MEMORY,
		               "host %s has %" PRIu64 " MiB of memory left, the VM needs %" PRIu64 " MiB", host->name,
		               used > memory ? 0 : (memory - used) >> 20, record->memory_bytes >> 20);
	return 0;
}

/* Takes away what a failed create has made. */
static void undo(const struct fleet_host *host, const struct sim_record *record)
{
	sim_guest_end(&host->paths, record->name, "destroy", NULL);
	sim_record_remove(&host->paths, record->name, NULL);
	for (unsigned i = 0; i < record->disk_count; i++)
		if (record->disks[i].path[0] != '\0')
			sr_disk_remove(record->disks[i].path, NULL);
}

int fleet_create(struct fleet *fleet, struct fleet_host *host, struct sim_record *record, struct err *err)
{
	struct fleet_host *other;
	struct sim_record there;
	unsigned char mac[3];
	if (!sim_name_ok(record->name))
		return err_set(err, ERR_USAGE, "name '%s': use letters, digits, '.', '_' and '-'", record->name);
	if (find(fleet, record->name, &other, &there, NULL) == 0)
		return err_set(err, ERR_NAME_TAKEN, "there is a VM '%s' on %s already", record->name, other->name);
	record->state = SIM_RUNNING;
	uuid_generate_random(record->uuid);
	if (record->seed == 0) {
		random_bytes(&record->seed, sizeof(record->seed));
		record->seed >>= 64 - SEED_BITS;
	}
	random_bytes(mac, sizeof(mac));
	record->nic_count = 1;
	snprintf(record->nics[0].mac, sizeof(record->nics[0].mac), "00:16:3e:%02x:%02x:%02x", mac[0] & 0x7f, mac[1],
	         mac[2]);
	snprintf(record->nics[0].bridge, sizeof(record->nics[0].bridge), FLEET_BRIDGE);
	int lock = sim_record_lock(&host->paths, err);
	if (lock < 0)
		return -1;
	int result = choose_guest(fleet, record, err);
	if (result == 0)
		result = room_for(host, record, err);
	if (result == 0) {
		if (make_disks(host, record, err) != 0 || register_guest(fleet, host, record, false, err) != 0 ||
		    sim_record_save(&host->paths, record, err) != 0 ||
		    sim_guest_start(&host->paths, record->name, err) != 0) {
			char path[PATHS_MAX * 2];
			undo(host, record);
			if (guest_path(fleet, record->guest, path, sizeof(path), NULL) == 0)
				unlink(path);
			result = -1;
		}
	}
	close(lock);
	if (result == 0) {
		char uuid[37];
		uuid_unparse_lower(record->uuid, uuid);
		fleet_wait_known(fleet, host, uuid);
	}
	return result;
}

int fleet_destroy(struct fleet *fleet, const char *name, struct err *err)
{
	struct fleet_host *host;
	struct sim_record record;
	struct hypervisor *hv;
	if (find(fleet, name, &host, &record, err) != 0 || hypervisor_sim.open(&hv, &host->paths, err) != 0)
		return -1;
	int result = hypervisor_sim.source_destroy(hv, record.uuid, err);
	hypervisor_sim.close(hv);
	for (unsigned i = 0; i < record.disk_count && result == 0; i++)
		result = sr_disk_remove(record.disks[i].path, err);
	return result == 0 ? register_guest(fleet, host, &record, true, err) : -1;
}

/* Whether a VM of this session that runs on one of the two hosts may yet run on the other: a source's that was
 * suspended for a switchover, a destination's for which an operator may still rule otherwise, as long as the source has
 * not let go. */
static bool undecided(const struct journal_session *session)
{
	const struct verdict_facts *facts = &session->facts;
	if (session->side == SIDE_DESTINATION)
		return !session_is_final(session->core.state) && facts->ruling != VOTE_COMMIT && !facts->released;
	return facts->suspended && !facts->resumed && !verdict_may_resume(facts);
}

/* Whether the journal says that the VM is in a migration whose end this host may not decide. */
static int held_back(struct journal *journal, const struct sim_record *record, bool *ret_held, struct err *err)
{
	struct journal_session *list = NULL;
	struct msg_plan *plan = malloc(sizeof(*plan));
	size_t count = 0;
	int result = plan != NULL ? journal_session_list(journal, &list, &count, err)
	                          : err_set(err, ERR_NO_MEMORY, "no memory");
	*ret_held = false;
	for (size_t i = 0; i < count && result == 0; i++) {
		const struct journal_session *session = &list[i];
		if (!undecided(session))
			continue;
		result = journal_session_get(journal, session->migration, session->generation, &list[i], plan, err);
		if (result == 0 && memcmp(plan->vm.uuid, record->uuid, sizeof(record->uuid)) == 0)
			*ret_held = true;
	}
	free(list);
	free(plan);
	return result;
}

/* One that hangs since its backend died is as good as not running. */
static bool runs(const struct fleet_host *host, const struct sim_record *record)
{
	struct proc_id id;
	json_t *reply = NULL;
	if (!sim_guest_alive(&host->paths, record->name, &id))
		return false;
	if (record->disk_count > 0 && !sim_backend_alive(&host->paths, record->name, &id))
		return false;
	sim_call(&host->paths, record->name, json_pack("{s:s}", "op", "status"), STATUS_MS, NULL, &reply, NULL);
	const char *state = json_string_value(json_object_get(reply, "state"));
	bool failed = state != NULL && strcmp(state, "failed") == 0;
	json_decref(reply);
	return !failed;
}

static int start_one(struct fleet_host *host, struct journal *journal, const struct sim_record *record, unsigned *held,
                     struct err *err)
{
	bool hold = false;
	if (record->state == SIM_DESTROYING) { /* a crash came in between: gone is what it is to be */
		if (sim_guest_end(&host->paths, record->name, "destroy", err) != 0)
			return -1;
		return sim_record_remove(&host->paths, record->name, err);
	}
	if (record->state != SIM_RUNNING || runs(host, record))
		return 0;
	if (journal != NULL && held_back(journal, record, &hold, err) != 0)
		return -1;
	if (!hold)
		return sim_guest_start(&host->paths, record->name, err);
	*held += 1;
	return 0;
}

int fleet_start_guests(struct fleet_host *host, unsigned *ret_held, struct err *err)
{
	struct sim_record *list = NULL;
	struct journal *journal = NULL;
	size_t count = 0;
	char path[PATHS_MAX + 16];
	int result = 0;
	*ret_held = 0;
	snprintf(path, sizeof(path), "%s/journal.db", host->paths.lib);
	if (access(path, F_OK) == 0 && journal_open(&journal, &host->paths, err) != 0)
		return -1;
	int lock = sim_record_lock(&host->paths, err);
	if (lock < 0 || sim_record_list(&host->paths, &list, &count, err) != 0)
		result = -1;
	for (size_t i = 0; i < count && result == 0; i++)
		result = start_one(host, journal, &list[i], ret_held, err);
	free(list);
	if (lock >= 0)
		close(lock);
	if (journal != NULL)
		journal_close(journal);
	return result;
}

static json_t *describe(const struct fleet_host *host, const struct sim_record *record)
{
	char uuid[37], state[32] = "halted";
	json_t *reply = NULL;
	struct proc_id id = { 0 };
	json_int_t tick = (json_int_t)record->tick;
	uuid_unparse_lower(record->uuid, uuid);
	if (sim_guest_alive(&host->paths, record->name, &id)) {
		snprintf(state, sizeof(state), "not answering");
		if (sim_call(&host->paths, record->name, json_pack("{s:s}", "op", "status"), STATUS_MS, NULL, &reply,
		             NULL) == 0) {
			const char *word = json_string_value(json_object_get(reply, "state"));
			snprintf(state, sizeof(state), "%s", word != NULL ? word : "?");
			tick = json_integer_value(json_object_get(reply, "tick"));
		}
		json_decref(reply);
	} else if (record->state != SIM_RUNNING) {
		snprintf(state, sizeof(state), "%s", sim_state_name(record->state));
	}
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I}", "uuid", uuid, "name", record->name, "guest",
	                 record->guest, "host", host->name, "state", state, "memory_bytes",
	                 (json_int_t)record->memory_bytes, "disks", (json_int_t)record->disk_count, "tick", tick, "pid",
	                 (json_int_t)id.pid);
}

int fleet_list(struct fleet *fleet, json_t **ret_list, struct err *err)
{
	json_t *vms = json_array();
	for (unsigned i = 0; i < fleet->host_count; i++) {
		struct sim_record *list;
		size_t count;
		if (sim_record_list(&fleet->hosts[i].paths, &list, &count, err) != 0) {
			json_decref(vms);
			return -1;
		}
		for (size_t k = 0; k < count; k++)
			json_array_append_new(vms, describe(&fleet->hosts[i], &list[k]));
		free(list);
	}
	*ret_list = json_pack("{s:o}", "vms", vms);
	return 0;
}
