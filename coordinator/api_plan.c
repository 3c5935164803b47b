/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a request to a plan: which VM, from where, to where, which disk to which SR, which network to which. */
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

#include "coordinator/api_room.h"

#define CANDIDATES_MAX 32

/* ---- the VM ---- */

struct candidate {
	const struct host *host;
	const struct msg_vm *vm;
};

static bool vm_fits(const struct msg_vm *vm, const char *text, bool by_uuid, const uuid_t uuid)
{
	return by_uuid ? memcmp(vm->uuid, uuid, sizeof(uuid_bytes)) == 0 : strcmp(vm->name, text) == 0;
}

static unsigned find_candidates(const struct coordinator *c, const char *text, const char *on,
                                struct candidate found[CANDIDATES_MAX])
{
	unsigned count = 0;
	uuid_t uuid;
	bool by_uuid = uuid_parse(text, uuid) == 0;
	for (size_t i = 0; i < c->host_count; i++) {
		const struct host *host = c->hosts[i];
		if (!host->has_inventory || (on[0] && strcmp(on, host->rec.name) != 0))
			continue;
		for (uint32_t n = 0; n < host->inventory.vm_count && count < CANDIDATES_MAX; n++)
			if (vm_fits(&host->inventory.vms[n], text, by_uuid, uuid))
				found[count++] = (struct candidate) { host, &host->inventory.vms[n] };
	}
	return count;
}

static void tell_candidates(const struct candidate *found, unsigned count, const char *text, json_t **ret_doc,
                            struct err *err)
{
	char words[256] = "", uuid[37];
	size_t used = 0;
	json_t *list = json_array();
	for (unsigned i = 0; i < count; i++) {
		uuid_unparse_lower(found[i].vm->uuid, uuid);
		json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "uuid", uuid, "name", found[i].vm->name, "host",
		                                      found[i].host->rec.name));
		int length = snprintf(words + used, sizeof(words) - used, "%s%s on %s", i ? ", " : "", uuid,
		                      found[i].host->rec.name);
		if (length > 0 && used + (size_t)length < sizeof(words))
			used += (size_t)length;
		else
			words[used] = '\0';
	}
	*ret_doc = json_pack("{s:o}", "candidates", list);
	err_set(err, ERR_AMBIGUOUS, "%s fits %u VMs: %s; give the UUID or --from", text, count, words);
}

const struct msg_vm *api_find_vm(const struct coordinator *c, const char *text, const char *on,
                                 const struct host **ret_host, json_t **ret_doc, struct err *err)
{
	struct candidate found[CANDIDATES_MAX];
	if (text[0] == '\0') {
		err_set(err, ERR_USAGE, "which VM? its UUID, or a name that is unique");
		return NULL;
	}
	if (on[0] && !host_find(c, on)) {
		err_set(err, ERR_UNKNOWN_HOST, "there is no host %s; 'drover host list' has them all", on);
		return NULL;
	}
	unsigned count = find_candidates(c, text, on, found);
	if (count == 0) {
		err_set(err, ERR_UNKNOWN_VM, "there is no VM %s%s%s; 'drover vm list' has them all", text,
		        on[0] ? " on " : "", on);
		return NULL;
	}
	if (count > 1) {
		tell_candidates(found, count, text, ret_doc, err);
		return NULL;
	}
	*ret_host = found[0].host;
	return found[0].vm;
}

/* ---- disks and networks ---- */

static const char *mapped(const struct msg_map *map, uint32_t count, const char *from)
{
	for (uint32_t i = 0; i < count; i++)
		if (strcmp(map[i].from, from) == 0)
			return map[i].to;
	return NULL;
}

static const struct msg_sr *find_sr(const struct msg_inventory *inventory, const char *name)
{
	for (uint32_t i = 0; i < inventory->sr_count; i++)
		if (strcmp(inventory->srs[i].name, name) == 0)
			return &inventory->srs[i];
	return NULL;
}

static int map_disk(const struct msg_request *request, const struct host *to, const struct msg_disk *from,
                    struct msg_disk *ret_to, struct err *err)
{
	const struct msg_inventory *inventory = &to->inventory;
	const char *wanted = mapped(request->disk_map, request->disk_map_count, from->name);
	if (!wanted)
		wanted = mapped(request->sr_map, request->sr_map_count, from->sr);
	const struct msg_sr *sr = find_sr(inventory, wanted ? wanted : from->sr);
	if (!sr && wanted)
		return err_set(err, ERR_NO_MAP, "disk %s: there is no SR %s on %s", from->name, wanted, to->rec.name);
	if (!sr && inventory->sr_count == 1)
		sr = &inventory->srs[0];
	if (!sr)
		return err_set(err, ERR_NO_MAP, "disk %s: %s has no SR %s; say where it goes with --storage %s=SR",
		               from->name, to->rec.name, from->sr, from->name);
	*ret_to = *from;
	ret_to->format = sr->format;
	(void)snprintf(ret_to->sr, sizeof(ret_to->sr), "%s", sr->name);
	return 0;
}

static int map_disks(const struct msg_request *request, const struct host *to, struct msg_plan *plan, struct err *err)
{
	for (uint32_t i = 0; i < request->disk_map_count; i++) {
		bool known = false;
		for (uint32_t n = 0; n < plan->vm.disk_count; n++)
			known |= strcmp(plan->vm.disks[n].name, request->disk_map[i].from) == 0;
		if (!known)
			return err_set(err, ERR_NO_MAP, "--storage %s=%s: %s has no such disk",
			               request->disk_map[i].from, request->disk_map[i].to, plan->vm.name);
	}
	for (uint32_t i = 0; i < plan->vm.disk_count; i++)
		if (map_disk(request, to, &plan->vm.disks[i], &plan->to[i], err) != 0)
			return -1;
	return 0;
}

static int map_networks(const struct msg_request *request, const struct host *to, struct msg_plan *plan,
                        struct err *err)
{
	for (uint32_t i = 0; i < plan->vm.nic_count; i++) {
		const char *from = plan->vm.nics[i].bridge;
		const char *wanted = mapped(request->network_map, request->network_map_count, from);
		const char *bridge = wanted ? wanted : from;
		bool known = false;
		for (uint32_t n = 0; n < to->inventory.network_count; n++)
			known |= strcmp(to->inventory.networks[n], bridge) == 0;
		if (!known)
			return err_set(err, ERR_NO_MAP, "network %s: there is no bridge %s on %s%s", from, bridge,
			               to->rec.name, wanted ? "" : "; say which with --network");
		(void)snprintf(plan->bridges[i], sizeof(plan->bridges[i]), "%s", bridge);
	}
	return 0;
}

/* ---- the whole ---- */

static int check_vm(const struct coordinator *c, const struct msg_vm *vm, const struct host *from, struct err *err)
{
	if (vm->state != VM_RUNNING && vm->state != VM_PAUSED)
		return err_set(err, ERR_UNSUPPORTED, "it is %s; only a running VM is migrated",
		               vm_state_name(vm->state));
	if (!host_is_up(from))
		return err_set(err, ERR_HOST_DOWN, "its host %s is not connected", from->rec.name);
	for (size_t i = 0; i < c->run_count; i++) {
		const struct store_migration *rec = &c->runs[i]->rec;
		if (!migration_is_final(rec->core.state) && memcmp(rec->vm, vm->uuid, sizeof(uuid_bytes)) == 0)
			return err_set(err, ERR_BUSY, "it has migration %llu already, which is %s",
			               (unsigned long long)rec->id, migration_state_name(rec->core.state));
	}
	return 0;
}

static const struct host *find_destination(const struct coordinator *c, const struct msg_request *request,
                                           const struct host *from, struct err *err)
{
	const struct host *to = host_find(c, request->to);
	if (!to)
		err_set(err, ERR_UNKNOWN_HOST, "there is no host %s; 'drover host list' has them all", request->to);
	else if (to == from)
		err_set(err, ERR_SAME_HOST, "it is on %s already", request->to);
	else if (request->pool[0] && strcmp(request->pool, to->rec.pool) != 0)
		err_set(err, ERR_UNKNOWN_HOST, "%s is in pool %s, not in %s", to->rec.name, to->rec.pool,
		        request->pool);
	else if (!host_is_up(to))
		err_set(err, ERR_HOST_DOWN, "%s is not connected", to->rec.name);
	else if (!to->has_inventory)
		err_set(err, ERR_HOST_DOWN, "%s has not yet told what it has; try again", to->rec.name);
	else if (strcmp(to->inventory.hypervisor, from->inventory.hypervisor) != 0)
		err_set(err, ERR_UNSUPPORTED, "%s runs %s and %s runs %s", from->rec.name, from->inventory.hypervisor,
		        to->rec.name, to->inventory.hypervisor);
	else
		return to;
	return NULL;
}

static void fill_policy(const struct coordinator *c, const struct msg_request *request, struct msg_plan *plan)
{
	const struct settings *defaults = &c->settings;
	plan->max_downtime_ms = request->max_downtime_ms ? request->max_downtime_ms : defaults->max_downtime_ms;
	plan->bandwidth_bps = request->bandwidth_bps;
	plan->timeout_s = request->timeout_s ? request->timeout_s : defaults->timeout_ms / 1000;
	plan->on_slow = request->on_slow ? request->on_slow : defaults->on_slow;
	plan->keep_source_s =
		request->keep_source_s >= 0 ? (uint64_t)request->keep_source_s : defaults->keep_source_ms / 1000;
	plan->keep_copy_s = request->keep_copy_s >= 0 ? (uint64_t)request->keep_copy_s : defaults->keep_copy_ms / 1000;
}

/* As the migration before it: an earlier copy fits only a disk of the same format. */
static void fill_again(const struct api_again *again, struct msg_plan *plan)
{
	const struct msg_plan *before = again->before;
	plan->max_downtime_ms = before->max_downtime_ms;
	plan->bandwidth_bps = before->bandwidth_bps;
	plan->timeout_s = before->timeout_s;
	plan->on_slow = before->on_slow;
	plan->keep_source_s = before->keep_source_s;
	plan->keep_copy_s = before->keep_copy_s;
	plan->take_source = again->undo || before->take_source;
	for (uint32_t i = 0; i < plan->vm.disk_count; i++)
		for (uint32_t n = 0; n < before->vm.disk_count; n++) {
			const struct msg_disk *was = again->undo ? &before->vm.disks[n] : &before->to[n];
			if (strcmp(before->vm.disks[n].name, plan->vm.disks[i].name) == 0)
				plan->to[i].format = was->format;
		}
}

int api_plan(const struct coordinator *c, const struct msg_request *request, const struct api_again *again,
             struct msg_plan *ret_plan, json_t **ret_doc, struct err *err)
{
	const struct host *from = NULL, *to;
	struct msg_plan *plan = ret_plan;
	memset(plan, 0, sizeof(*plan));
	const struct msg_vm *vm = api_find_vm(c, request->vm, request->host, &from, ret_doc, err);
	if (!vm)
		return err_wrap(err, "migrate %s", request->vm);
	if (check_vm(c, vm, from, err) != 0 || !(to = find_destination(c, request, from, err)))
		return err_wrap(err, "migrate %s", vm->name);
	plan->vm = *vm;
	(void)snprintf(plan->new_name, sizeof(plan->new_name), "%s",
	               request->new_name[0] ? request->new_name : vm->name);
	(void)snprintf(plan->source, sizeof(plan->source), "%s", from->rec.name);
	(void)snprintf(plan->destination, sizeof(plan->destination), "%s", to->rec.name);
	fill_policy(c, request, plan);
	if (map_disks(request, to, plan, err) != 0 || map_networks(request, to, plan, err) != 0)
		return err_wrap(err, "migrate %s", vm->name);
	if (again)
		fill_again(again, plan);
	/* A dry run asks the hosts, which know better, and tells all of it. */
	if (!request->dry_run && api_capacity(c, to, plan, err) != 0)
		return err_wrap(err, "migrate %s", vm->name);
	return 0;
}
