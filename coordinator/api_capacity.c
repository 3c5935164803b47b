/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Room on the destination: what its inventory has free, minus what is on its way there and not in the inventory yet. */
#include <string.h>
#include <uuid/uuid.h>

#include "common/units.h"
#include "coordinator/api_room.h"

static uint64_t add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* Whether the claim of `run` on this host is not in its inventory's free amounts. */
static bool is_reserved(const struct run *run, const struct host *to)
{
	if (migration_is_final(run->rec.core.state) || strcmp(run->rec.destination, to->rec.name) != 0)
		return false;
	return run->claimed_ms == 0 || to->inventory_ms == INT64_MIN || run->claimed_ms > to->inventory_ms;
}

static uint64_t plan_space(const struct msg_plan *plan, const char *sr)
{
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < plan->vm.disk_count; i++)
		if (strcmp(plan->to[i].sr, sr) == 0)
			bytes = add(bytes, plan->to[i].size_bytes);
	return bytes;
}

static int check_memory(const struct coordinator *c, const struct host *to, const struct msg_plan *plan,
                        struct err *err)
{
	uint64_t reserved = 0, free_bytes = to->inventory.memory_free_bytes;
	char need[UNITS_TEXT], left[UNITS_TEXT];
	for (size_t i = 0; i < c->run_count; i++)
		if (is_reserved(c->runs[i], to))
			reserved = add(reserved, c->runs[i]->plan.vm.memory_bytes);
	free_bytes = free_bytes > reserved ? free_bytes - reserved : 0;
	if (plan->vm.memory_bytes <= free_bytes)
		return 0;
	units_format_size(plan->vm.memory_bytes, need);
	units_format_size(free_bytes, left);
	return err_set(err, ERR_NO_MEMORY, "%s: not enough memory (need %s, free %s)", to->rec.name, need, left);
}

static int check_sr(const struct coordinator *c, const struct host *to, const struct msg_sr *sr,
                    const struct msg_plan *plan, struct err *err)
{
	uint64_t wanted = plan_space(plan, sr->name), reserved = 0;
	char need[UNITS_TEXT], left[UNITS_TEXT];
	for (size_t i = 0; i < c->run_count; i++)
		if (is_reserved(c->runs[i], to))
			reserved = add(reserved, plan_space(&c->runs[i]->plan, sr->name));
	uint64_t free_bytes = sr->free_bytes > reserved ? sr->free_bytes - reserved : 0;
	if (wanted <= free_bytes)
		return 0;
	units_format_size(wanted, need);
	units_format_size(free_bytes, left);
	return err_set(err, ERR_NO_SPACE, "%s: no space in SR %s (need %s, free %s)", to->rec.name, sr->name, need,
	               left);
}

/* Whether the destination keeps an earlier copy of this VM's disks, which it will use: then only it knows what is
 * needed. */
static bool has_copy(const struct coordinator *c, const struct host *to, const struct msg_plan *plan)
{
	char uuid[37];
	struct store_filter filter = { .kept_only = true, .vm = uuid, .host = to->rec.name, .limit = API_PAGE_ITEMS };
	struct store_migration *list = NULL;
	size_t count = 0;
	bool found = false;
	uuid_unparse_lower(plan->vm.uuid, uuid);
	if (store_migration_list(c->store, &filter, &list, &count, NULL) != 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		bool done = list[i].core.state == MIGRATION_DONE;
		const char *where = done ? list[i].source : list[i].destination;
		found |= strcmp(where, to->rec.name) == 0 && (!done || plan->take_source);
	}
	store_migration_list_free(list, count);
	return found;
}

static int check_names(const struct coordinator *c, const struct host *to, const struct msg_plan *plan, struct err *err)
{
	for (uint32_t i = 0; i < to->inventory.vm_count; i++) {
		const struct msg_vm *vm = &to->inventory.vms[i];
		if (memcmp(vm->uuid, plan->vm.uuid, sizeof(uuid_bytes)) == 0)
			return err_set(err, ERR_NAME_TAKEN, "%s: a VM with this UUID is there already: %s",
			               to->rec.name, vm->name);
		if (strcmp(vm->name, plan->new_name) == 0)
			return err_set(err, ERR_NAME_TAKEN,
			               "%s: a VM named %s is there already; give another one with --name", to->rec.name,
			               vm->name);
	}
	for (size_t i = 0; i < c->run_count; i++) {
		const struct run *run = c->runs[i];
		if (!migration_is_final(run->rec.core.state) && strcmp(run->rec.destination, to->rec.name) == 0 &&
		    strcmp(run->plan.new_name, plan->new_name) == 0)
			return err_set(err, ERR_NAME_TAKEN,
			               "%s: migration %llu brings a VM named %s there; give another one with --name",
			               to->rec.name, (unsigned long long)run->rec.id, plan->new_name);
	}
	return 0;
}

int api_capacity(const struct coordinator *c, const struct host *to, const struct msg_plan *plan, struct err *err)
{
	if (check_names(c, to, plan, err) != 0 || check_memory(c, to, plan, err) != 0)
		return -1;
	if (has_copy(c, to, plan))
		return 0;
	for (uint32_t i = 0; i < to->inventory.sr_count; i++)
		if (check_sr(c, to, &to->inventory.srs[i], plan, err) != 0)
			return -1;
	return 0;
}
