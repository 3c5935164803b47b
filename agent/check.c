/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/units.h"

struct checking {
	const struct check_world *world;
	const struct msg_plan *plan;
	struct msg_check *checks;
	uint32_t count;
	struct err *refusal;
};

/* ERR_NONE: it is well. */
static void found(struct checking *c, enum err_code code, const char *name, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void found(struct checking *c, enum err_code code, const char *name, const char *format, ...)
{
	char text[LIMIT_TEXT];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (code != ERR_NONE && c->refusal->code == ERR_NONE)
		err_set(c->refusal, code, "%s: %s", name, text);
	if (c->count == LIMIT_CHECKS)
		return;
	struct msg_check *check = &c->checks[c->count++];
	*check = (struct msg_check) { .ok = code == ERR_NONE };
	(void)snprintf(check->name, sizeof(check->name), "%s", name);
	(void)snprintf(check->text, sizeof(check->text), "%s", text);
}

static void named(char name[LIMIT_NAME], const char *what, const char *which)
{
	(void)snprintf(name, LIMIT_NAME, "%s %.48s", what, which);
}

/* ---- both sides ---- */

static void check_leg(struct checking *c)
{
	const struct err *err = c->world->leg_err;
	if (err)
		found(c, err->code, "leg program", "%s", err->text);
	else
		found(c, ERR_NONE, "leg program", "drover-leg-%s is installed", c->world->conf->hypervisor);
}

static bool check_inventory(struct checking *c)
{
	const struct msg_inventory *inventory = c->world->inventory;
	if (!inventory) {
		const struct err *err = c->world->inventory_err;
		found(c, err && err->code ? err->code : ERR_HYPERVISOR, "hypervisor",
		      "its inventory cannot be read: %s", err && err->code ? err->text : "not yet");
		return false;
	}
	if (strcmp(inventory->hypervisor, c->world->conf->hypervisor) != 0) {
		found(c, ERR_UNSUPPORTED, "hypervisor", "the host runs %s, the configuration says %s",
		      inventory->hypervisor, c->world->conf->hypervisor);
		return false;
	}
	found(c, ERR_NONE, "hypervisor", "%s answers", inventory->hypervisor);
	return true;
}

/* A full file system must not keep a VM suspended: what is promised in the switchover has to be written. */
static void check_journal(struct checking *c)
{
	const struct err *err = c->world->reserve_err;
	found(c, err->code, "journal", "%s", err->code ? err->text : "has room for what has to be written");
}

static void check_busy(struct checking *c)
{
	if (c->world->busy)
		found(c, ERR_BUSY, "no other migration", "%s", c->world->busy);
	else
		found(c, ERR_NONE, "no other migration", "none has this VM");
}

static bool has_sr(const struct agent_conf *conf, const char *name)
{
	return agent_conf_sr(conf, name) != NULL;
}

static const struct msg_sr *inventory_sr(const struct msg_inventory *inventory, const char *name)
{
	for (uint32_t i = 0; i < inventory->sr_count; i++)
		if (strcmp(inventory->srs[i].name, name) == 0)
			return &inventory->srs[i];
	return NULL;
}

static bool format_known(enum disk_format format)
{
	return format == FORMAT_RAW || format == FORMAT_QCOW2;
}

/* ---- programs ---- */

static bool in_path(const char *path, const char *program)
{
	while (path && *path) {
		char full[PATHS_MAX];
		size_t length = strcspn(path, ":");
		int bytes = snprintf(full, sizeof(full), "%.*s/%s", (int)length, path, program);
		if (bytes > 0 && (size_t)bytes < sizeof(full) && access(full, X_OK) == 0)
			return true;
		path += length;
		path += *path == ':';
	}
	return false;
}

static bool has_format(const struct msg_disk *disks, uint32_t count, enum disk_format format)
{
	for (uint32_t i = 0; i < count; i++)
		if (disks[i].format == format)
			return true;
	return false;
}

static void check_programs(struct checking *c, enum side side)
{
	uint32_t count = c->plan->vm.disk_count;
	bool dest = side == SIDE_DESTINATION, iscsi = c->world->conf->exporter == EXPORTER_ISCSI;
	bool raw = dest && has_format(c->plan->to, count, FORMAT_RAW);
	bool qcow2 = dest && has_format(c->plan->to, count, FORMAT_QCOW2);
	bool read_qcow2 = !dest && has_format(c->plan->vm.disks, count, FORMAT_QCOW2);
	const struct {
		const char *name, *package;
		bool needed;
	} programs[] = {
		{ "nbdkit", "nbdkit", raw && !iscsi },
		{ "qemu-nbd", "qemu-utils", read_qcow2 || (qcow2 && !iscsi) },
		{ "tgtd", "tgt", iscsi && (raw || qcow2) },
		{ "tgtadm", "tgt", iscsi && (raw || qcow2) },
		{ "qemu-storage-daemon", "qemu-system-common", iscsi && qcow2 },
		{ "qemu-img", "qemu-utils", qcow2 },
	};
	char missing[LIMIT_NAME * 2] = "", packages[LIMIT_NAME * 2] = "", what[LIMIT_NAME] = "reading qcow2";
	if (dest)
		(void)snprintf(what, sizeof(what), "exporter %s", exporter_name(c->world->conf->exporter));
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		if (!programs[i].needed || in_path(c->world->path, programs[i].name))
			continue;
		size_t at = strlen(missing);
		(void)snprintf(missing + at, sizeof(missing) - at, "%s%s", at ? ", " : "", programs[i].name);
		if (!strstr(packages, programs[i].package)) {
			at = strlen(packages);
			(void)snprintf(packages + at, sizeof(packages) - at, "%s%s", at ? " " : "",
			               programs[i].package);
		}
	}
	if (missing[0])
		found(c, ERR_CONFIG, "programs", "%s is missing for %s; install %s", missing, what, packages);
	else if (dest || read_qcow2)
		found(c, ERR_NONE, "programs", "all that %s needs are there", what);
}

/* ---- source ---- */

static const struct msg_vm *find_vm(const struct msg_inventory *inventory, const uuid_bytes uuid)
{
	for (uint32_t i = 0; i < inventory->vm_count; i++)
		if (memcmp(inventory->vms[i].uuid, uuid, sizeof(uuid_bytes)) == 0)
			return &inventory->vms[i];
	return NULL;
}

static void check_source_disk(struct checking *c, const struct msg_vm *here, const struct msg_disk *disk)
{
	char name[LIMIT_NAME];
	named(name, "disk", disk->name);
	const struct msg_disk *mine = NULL;
	for (uint32_t i = 0; i < here->disk_count; i++)
		if (strcmp(here->disks[i].name, disk->name) == 0)
			mine = &here->disks[i];
	if (!mine)
		found(c, ERR_CONFLICT, name, "the VM has no such disk any more; submit again");
	else if (mine->size_bytes != disk->size_bytes || mine->format != disk->format)
		found(c, ERR_CONFLICT, name, "its size or format is not what was planned with; submit again");
	else if (!has_sr(c->world->conf, mine->sr))
		found(c, ERR_CONFIG, name, "it is on SR %s, which agent.conf does not know", mine->sr);
	else if (!format_known(mine->format))
		found(c, ERR_UNSUPPORTED, name, "its format cannot be copied");
	else
		found(c, ERR_NONE, name, "%s on SR %s", disk_format_name(mine->format), mine->sr);
}

static void check_source(struct checking *c)
{
	const struct msg_vm *here = find_vm(c->world->inventory, c->plan->vm.uuid);
	if (!here) {
		found(c, ERR_UNKNOWN_VM, "vm", "%s is not on this host", c->plan->vm.name);
		return;
	}
	if (here->refusal[0]) {
		found(c, ERR_UNSUPPORTED, "vm", "%s cannot be migrated: %s", here->name, here->refusal);
	} else if (here->state != VM_RUNNING && here->state != VM_PAUSED) {
		found(c, ERR_UNSUPPORTED, "vm", "%s is %s; only a running or paused VM can be migrated", here->name,
		      vm_state_name(here->state));
	} else {
		found(c, ERR_NONE, "vm", "%s is %s", here->name, vm_state_name(here->state));
	}
	if (here->disk_count != c->plan->vm.disk_count)
		found(c, ERR_CONFLICT, "disks", "the VM has %u disks, planned with %u; submit again", here->disk_count,
		      c->plan->vm.disk_count);
	for (uint32_t i = 0; i < c->plan->vm.disk_count; i++)
		check_source_disk(c, here, &c->plan->vm.disks[i]);
	check_programs(c, SIDE_SOURCE);
}

/* ---- destination ---- */

static void check_name(struct checking *c)
{
	const struct msg_inventory *inventory = c->world->inventory;
	const char *name = c->plan->new_name[0] ? c->plan->new_name : c->plan->vm.name;
	const struct msg_vm *same = find_vm(inventory, c->plan->vm.uuid);
	if (same) {
		found(c, ERR_NAME_TAKEN, "name free", "a VM with this UUID is here already: %s", same->name);
		return;
	}
	for (uint32_t i = 0; i < inventory->vm_count; i++) {
		if (strcmp(inventory->vms[i].name, name) == 0) {
			found(c, ERR_NAME_TAKEN, "name free", "a VM named %s is here already; use another name", name);
			return;
		}
	}
	found(c, ERR_NONE, "name free", "%s", name);
}

static void check_memory(struct checking *c)
{
	char need[UNITS_TEXT], free_text[UNITS_TEXT];
	uint64_t bytes = c->plan->vm.memory_bytes, free_bytes = c->world->inventory->memory_free_bytes;
	units_format_size(bytes, need);
	units_format_size(free_bytes, free_text);
	found(c, bytes <= free_bytes ? ERR_NONE : ERR_NO_MEMORY, "memory", "need %s, free %s", need, free_text);
}

static void check_space(struct checking *c, const char *sr_name)
{
	char name[LIMIT_NAME], need[UNITS_TEXT], free_text[UNITS_TEXT];
	const struct msg_sr *sr = inventory_sr(c->world->inventory, sr_name);
	named(name, "space", sr_name);
	if (!sr) {
		found(c, ERR_NO_MAP, name, "there is no SR %s on this host", sr_name);
		return;
	}
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < c->plan->vm.disk_count; i++) {
		uint64_t size = strcmp(c->plan->to[i].sr, sr_name) == 0 ? c->plan->vm.disks[i].size_bytes : 0;
		size -= size < c->world->reusable_bytes[i] ? size : c->world->reusable_bytes[i];
		bytes = bytes > UINT64_MAX - size ? UINT64_MAX : bytes + size;
	}
	units_format_size(bytes, need);
	units_format_size(sr->free_bytes, free_text);
	found(c, bytes <= sr->free_bytes ? ERR_NONE : ERR_NO_SPACE, name, "need %s, free %s", need, free_text);
}

static void check_spaces(struct checking *c)
{
	for (uint32_t i = 0; i < c->plan->vm.disk_count; i++) {
		bool seen = false;
		for (uint32_t j = 0; j < i; j++)
			seen = seen || strcmp(c->plan->to[j].sr, c->plan->to[i].sr) == 0;
		if (!seen)
			check_space(c, c->plan->to[i].sr);
	}
}

static void check_networks(struct checking *c)
{
	const struct agent_conf *conf = c->world->conf;
	for (uint32_t i = 0; i < c->plan->vm.nic_count; i++) {
		char name[LIMIT_NAME];
		const char *bridge = c->plan->bridges[i];
		bool here = false;
		for (uint32_t j = 0; j < conf->network_count; j++)
			here = here || strcmp(conf->networks[j], bridge) == 0;
		named(name, "network", bridge);
		found(c, here ? ERR_NONE : ERR_NO_MAP, name, here ? "%s is here" : "there is no bridge %s on this host",
		      bridge);
	}
}

static void check_formats(struct checking *c)
{
	for (uint32_t i = 0; i < c->plan->vm.disk_count; i++) {
		char name[LIMIT_NAME];
		named(name, "format", c->plan->vm.disks[i].name);
		if (!format_known(c->plan->to[i].format))
			found(c, ERR_UNSUPPORTED, name, "it cannot be made here");
	}
}

static void check_destination(struct checking *c)
{
	check_name(c);
	check_memory(c);
	check_spaces(c);
	check_networks(c);
	check_formats(c);
	check_programs(c, SIDE_DESTINATION);
}

uint32_t check_run(const struct check_world *world, enum side side, const struct msg_plan *plan,
                   struct msg_check *ret_checks, struct err *ret_refusal)
{
	struct checking c = { .world = world, .plan = plan, .checks = ret_checks, .refusal = ret_refusal };
	err_clear(ret_refusal);
	check_leg(&c);
	check_busy(&c);
	check_journal(&c);
	if (check_inventory(&c)) {
		if (side == SIDE_SOURCE)
			check_source(&c);
		else
			check_destination(&c);
	}
	return c.count;
}
