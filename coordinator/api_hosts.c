/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coordinator itself, hosts and VMs as documents. */
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

#include "coordinator/api_room.h"

#define BIG(number) ((json_int_t)(number))

static const char *host_state(const struct host *host)
{
	if (host_is_up(host))
		return "connected";
	return host->reach == REACH_SUSPECTED ? "suspected" : "unknown";
}

int api_status(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
               struct err *err)
{
	uint64_t counts[MIGRATION_STATES], up = 0, rate_bps = 0;
	(void)peer;
	(void)request;
	if (store_migration_counts(c->store, counts, err) != 0)
		return -1;
	for (size_t i = 0; i < c->host_count; i++)
		up += host_is_up(c->hosts[i]);
	for (size_t i = 0; i < c->run_count; i++)
		if (c->runs[i]->has_progress && c->runs[i]->rec.core.state == MIGRATION_COPYING)
			rate_bps += c->runs[i]->progress.rate_bps;
	json_t *states = json_object();
	uint64_t active = 0;
	for (int state = MIGRATION_QUEUED; state < MIGRATION_STATES; state++) {
		json_object_set_new(states, migration_state_name((enum migration_state)state),
		                    json_integer(BIG(counts[state])));
		active += migration_is_active((enum migration_state)state) ? counts[state] : 0;
	}
	bool well = counts[MIGRATION_IN_DOUBT] == 0 && up == c->host_count;
	json_t *troubles = json_array();
	for (size_t i = 0; i < c->host_count; i++)
		if (c->hosts[i]->trouble.code != ERR_NONE) {
			well = false;
			json_array_append_new(troubles, json_pack("{s:s,s:s}", "host", c->hosts[i]->rec.name, "message",
			                                          c->hosts[i]->trouble.text));
		}
	*ret_doc = json_pack(
		"{s:s,s:I,s:s,s:s,s:o,s:s,s:{s:I,s:I},s:I,s:I,s:o,s:I,s:{s:I,s:I,s:I},s:o}", "version", DROVER_VERSION,
		"epoch", BIG(store_epoch(c->store)), "cluster_id", store_cluster_id(c->store), "endpoint",
		bus_endpoint(c->bus), "started_at", api_time(c->started_wall_ms), "health", well ? "ok" : "degraded",
		"hosts", "known", BIG(c->host_count), "connected", BIG(up), "queued", BIG(counts[MIGRATION_QUEUED]),
		"active", BIG(active), "migrations", states, "rate_bps", BIG(rate_bps), "limits", "max_migrations",
		BIG(c->settings.limits.total), "max_per_source", BIG(c->settings.limits.per_source),
		"max_per_destination", BIG(c->settings.limits.per_destination), "troubles", troubles);
	return 0;
}

/* ---- hosts ---- */

static json_t *sr_list(const struct msg_inventory *inventory)
{
	json_t *list = json_array();
	for (uint32_t i = 0; i < inventory->sr_count; i++) {
		const struct msg_sr *sr = &inventory->srs[i];
		json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:I,s:I}", "name", sr->name, "type", sr->type,
		                                      "format", disk_format_name(sr->format), "size_bytes",
		                                      BIG(sr->size_bytes), "free_bytes", BIG(sr->free_bytes)));
	}
	return list;
}

static json_t *host_doc(const struct coordinator *c, const struct host *host)
{
	json_t *doc = json_pack("{s:s,s:s,s:s,s:b,s:s,s:s,s:o,s:I,s:I,s:I}", "name", host->rec.name, "pool",
	                        host->rec.pool, "state", host_state(host), "connected", host_is_up(host), "software",
	                        host->rec.software, "key", host->rec.key, "last_seen_at",
	                        api_time(host->rec.last_seen_wall_ms), "session_count", BIG(host->session_count),
	                        "leftovers", BIG(host->leftovers), "heartbeat_ms", BIG(host->heartbeat_ms));
	json_t *runs = json_array();
	for (size_t i = 0; i < c->run_count; i++) {
		const struct store_migration *rec = &c->runs[i]->rec;
		if (strcmp(rec->source, host->rec.name) == 0 || strcmp(rec->destination, host->rec.name) == 0)
			json_array_append_new(runs, json_integer(BIG(rec->id)));
	}
	json_object_set_new(doc, "migrations", runs);
	json_object_set_new(doc, "trouble", api_text(host->trouble.text));
	if (!host->has_inventory)
		return doc;
	const struct msg_inventory *inventory = &host->inventory;
	json_t *networks = json_array();
	for (uint32_t i = 0; i < inventory->network_count; i++)
		json_array_append_new(networks, json_string(inventory->networks[i]));
	json_object_set_new(doc, "hypervisor", json_string(inventory->hypervisor));
	json_object_set_new(doc, "memory_bytes", json_integer(BIG(inventory->memory_bytes)));
	json_object_set_new(doc, "memory_free_bytes", json_integer(BIG(inventory->memory_free_bytes)));
	json_object_set_new(doc, "vm_count", json_integer(BIG(inventory->vm_count)));
	json_object_set_new(doc, "srs", sr_list(inventory));
	json_object_set_new(doc, "networks", networks);
	return doc;
}

int api_host_list(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request,
                  json_t **ret_doc, struct err *err)
{
	struct api_page page = { .list = NULL, .last = request->after };
	(void)peer;
	(void)err;
	for (size_t i = (size_t)request->after; i < c->host_count && !page.full; i++)
		(void)api_page_add(&page, i + 1, host_doc(c, c->hosts[i]));
	*ret_doc = api_page_end(&page, "hosts");
	return 0;
}

static json_t *vm_doc(const struct coordinator *c, const struct host *host, const struct msg_vm *vm);

int api_host_show(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request,
                  json_t **ret_doc, struct err *err)
{
	const struct host *host = host_find(c, request->host);
	(void)peer;
	if (!host)
		return err_set(err, ERR_UNKNOWN_HOST, "there is no host %s; 'drover host list' has them all",
		               request->host);
	json_t *doc = host_doc(c, host);
	struct api_page page = { .list = NULL };
	for (uint32_t i = 0; host->has_inventory && i < host->inventory.vm_count && !page.full; i++)
		(void)api_page_add(&page, i, vm_doc(c, host, &host->inventory.vms[i]));
	json_object_set_new(doc, "vms", page.list ? page.list : json_array());
	json_object_set_new(doc, "boot_id", json_string(host->rec.boot_id));
	json_object_set_new(doc, "journal_id", json_string(host->rec.journal_id));
	json_object_set_new(doc, "first_seen_at", api_time(host->rec.first_seen_wall_ms));
	*ret_doc = doc;
	return 0;
}

/* ---- VMs ---- */

static json_t *disk_list(const struct msg_vm *vm, uint64_t *ret_bytes)
{
	json_t *list = json_array();
	*ret_bytes = 0;
	for (uint32_t i = 0; i < vm->disk_count; i++) {
		const struct msg_disk *disk = &vm->disks[i];
		*ret_bytes += disk->size_bytes;
		json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:I,s:I,s:b}", "name", disk->name, "sr", disk->sr,
		                                      "format", disk_format_name(disk->format), "size_bytes",
		                                      BIG(disk->size_bytes), "allocated_bytes",
		                                      BIG(disk->allocated_bytes), "read_only", disk->read_only != 0));
	}
	return list;
}

static json_t *vm_doc(const struct coordinator *c, const struct host *host, const struct msg_vm *vm)
{
	char uuid[37];
	uint64_t disk_bytes = 0, migration = 0;
	uuid_unparse_lower(vm->uuid, uuid);
	for (size_t i = 0; i < c->run_count; i++)
		if (!migration_is_final(c->runs[i]->rec.core.state) &&
		    memcmp(c->runs[i]->rec.vm, vm->uuid, sizeof(uuid_bytes)) == 0)
			migration = c->runs[i]->rec.id;
	json_t *disks = disk_list(vm, &disk_bytes), *nics = json_array();
	for (uint32_t i = 0; i < vm->nic_count; i++)
		json_array_append_new(nics,
		                      json_pack("{s:s,s:s}", "mac", vm->nics[i].mac, "bridge", vm->nics[i].bridge));
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:o,s:o,s:o}", "uuid", uuid, "name", vm->name, "host",
	                 host->rec.name, "state", vm_state_name(vm->state), "pool", host->rec.pool, "memory_bytes",
	                 BIG(vm->memory_bytes), "vcpus", BIG(vm->vcpus), "disk_bytes", BIG(disk_bytes), "disks", disks,
	                 "nics", nics, "migration", migration ? json_integer(BIG(migration)) : json_null());
}

int api_vm_list(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err)
{
	struct api_page page = { .list = NULL, .last = request->after };
	uint64_t number = 0;
	(void)peer;
	if (request->host[0] && !host_find(c, request->host))
		return err_set(err, ERR_UNKNOWN_HOST, "there is no host %s; 'drover host list' has them all",
		               request->host);
	for (size_t i = 0; i < c->host_count && !page.full; i++) {
		const struct host *host = c->hosts[i];
		if (!host->has_inventory || (request->host[0] && strcmp(request->host, host->rec.name) != 0))
			continue;
		for (uint32_t n = 0; n < host->inventory.vm_count && !page.full; n++)
			if (++number > request->after)
				(void)api_page_add(&page, number, vm_doc(c, host, &host->inventory.vms[n]));
	}
	*ret_doc = api_page_end(&page, "vms");
	return 0;
}

int api_vm_show(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err)
{
	const struct host *host = NULL;
	(void)peer;
	const struct msg_vm *vm = api_find_vm(c, request->vm, request->host, &host, ret_doc, err);
	if (!vm)
		return -1;
	*ret_doc = vm_doc(c, host, vm);
	return 0;
}
