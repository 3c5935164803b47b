/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen, the side that a VM comes to: everything but the memory stream (xen_receive.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/hypervisor/xen_driver.h"
#include "common/log.h"

#define POISON_BYTES 4096u
#define POISON_POLL_MS 20

/* ---- room for it ---- */
/* What Xen and the toolstack use for a domain beside its memory. Xen's own estimate for HAP and shadow tables. */
static uint64_t need_of(const struct msg_vm *vm)
{
	uint64_t vcpus = vm->vcpus > 0 ? vm->vcpus : 1, mib = vm->memory_bytes >> 20;
	return vm->memory_bytes + 4096 * (256 * vcpus + 2 * mib) + (2u << 20);
}

static void fill_record(const struct msg_plan *plan, uint64_t migration, struct xen_record *record)
{
	memset(record, 0, sizeof(*record));
	record->state = XEN_INCOMING;
	memcpy(record->uuid, plan->vm.uuid, sizeof(record->uuid));
	snprintf(record->name, sizeof(record->name), "%s", plan->new_name[0] != '\0' ? plan->new_name : plan->vm.name);
	record->migration = migration;
	record->memory_bytes = need_of(&plan->vm);
	record->disk_count = plan->vm.disk_count;
	for (unsigned i = 0; i < record->disk_count; i++) {
		memcpy(record->disks[i].name, plan->vm.disks[i].name, LIMIT_NAME);
		memcpy(record->disks[i].sr, plan->to[i].sr, LIMIT_NAME);
		record->disks[i].format = plan->to[i].format;
		record->disks[i].size_bytes = plan->vm.disks[i].size_bytes;
	}
}

static int check_domain(struct hypervisor *hv, const xc_domaininfo_t *info, const struct xen_record *record,
                        struct err *err)
{
	char name[LIMIT_NAME], incoming[LIMIT_NAME + sizeof(XEN_INCOMING_SUFFIX)];
	xen_domain_name(hv, info->domain, name);
	snprintf(incoming, sizeof(incoming), "%s" XEN_INCOMING_SUFFIX, record->name);
	bool same = memcmp(info->handle, record->uuid, sizeof(record->uuid)) == 0;
	/* What is dying has no name any more that anybody could want. */
	if (!same && (info->flags & XEN_DOMINF_dying) != 0)
		return 0;
	if (same || strcmp(name, record->name) == 0 || strcmp(name, incoming) == 0)
		return err_set(err, ERR_NAME_TAKEN, "this host has a VM %s already (domain %u)", name, info->domain);
	return 0;
}

/* What is promised to others that come in, and not taken yet. */
static uint64_t promised(const struct xen_record *records, size_t count, const xc_domaininfo_t *domains,
                         size_t domain_count)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < count; i++) {
		uint64_t wanted = records[i].state == XEN_INCOMING ? records[i].memory_bytes : 0;
		for (size_t k = 0; k < domain_count; k++)
			if (memcmp(domains[k].handle, records[i].uuid, sizeof(uuid_bytes)) == 0) {
				uint64_t has = domains[k].tot_pages * XEN_PAGE_BYTES;
				wanted = wanted > has ? wanted - has : 0;
			}
		bytes += wanted;
	}
	return bytes;
}

static int check_memory(struct hypervisor *hv, const struct xen_record *record, uint64_t others, struct err *err)
{
	libxl_physinfo info;
	libxl_physinfo_init(&info);
	if (libxl_get_physinfo(hv->ctx, &info) != 0)
		return xen_fail(hv, err, "cannot ask Xen about this host's memory");
	uint64_t pages = info.free_pages + info.scrub_pages, taken = info.outstanding_pages;
	libxl_physinfo_dispose(&info);
	uint64_t bytes = pages > taken ? (pages - taken) * XEN_PAGE_BYTES : 0;
	bytes = bytes > others ? bytes - others : 0;
	if (bytes >= record->memory_bytes)
		return 0;
	return err_set(err, ERR_NO_MEMORY, "VM %s needs %llu MiB of memory, %llu MiB are free", record->name,
	               (unsigned long long)(record->memory_bytes >> 20), (unsigned long long)(bytes >> 20));
}

/* 1: it is here already, made for the same migration. */
static int check_records(const struct xen_record *records, size_t count, struct xen_record *record, struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		const struct xen_record *other = &records[i];
		bool same = memcmp(other->uuid, record->uuid, sizeof(uuid_bytes)) == 0;
		if (same && other->state == XEN_INCOMING && other->migration == record->migration) {
			*record = *other;
			return 1;
		}
		if (same)
			return err_set(err, ERR_NAME_TAKEN,
			               "this host has a record of the VM already (%s, of migration %llu); where it is "
			               "not wanted any more, its file in lib/xen can be removed",
			               xen_state_name(other->state), (unsigned long long)other->migration);
		if (strcmp(other->name, record->name) == 0 && other->state != XEN_RUNNING)
			return err_set(err, ERR_NAME_TAKEN, "a VM %s is %s here", other->name,
			               xen_state_name(other->state));
	}
	return 0;
}

static int reserve(struct hypervisor *hv, struct xen_record *record, struct err *err)
{
	struct xen_record *records = NULL;
	xc_domaininfo_t *domains = NULL;
	size_t count = 0, domain_count = 0;
	int result = -1;
	if (xen_record_list(&hv->paths, &records, &count, err) != 0 ||
	    xen_domain_list(hv, &domains, &domain_count, err) != 0)
		goto out;
	result = check_records(records, count, record, err);
	for (size_t i = 0; i < domain_count && result == 0; i++)
		result = check_domain(hv, &domains[i], record, err);
	if (result == 0)
		result = check_memory(hv, record, promised(records, count, domains, domain_count), err);
	if (result == 0)
		result = xen_record_save(&hv->paths, record, err);
out:
	free(records);
	free(domains);
	return result < 0 ? -1 : 0;
}

/* ---- open, close ---- */
static int dest_new(struct hypervisor *hv, const struct xen_record *record, struct hypervisor_dest **ret_dest,
                    struct err *err)
{
	struct hypervisor_dest *dest = calloc(1, sizeof(*dest));
	if (dest == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	dest->hv = hv;
	dest->record = *record;
	dest->stream_fd = -1;
	if (disk_cancel_open(&dest->cancel, err) != 0) {
		free(dest);
		return -1;
	}
	*ret_dest = dest;
	return 0;
}

/* The domain itself is made by libxl, when the memory comes; until then there is a claim on its name and memory. */
int xen_dest_create(struct hypervisor *hv, const struct msg_plan *plan, uint64_t migration,
                    struct hypervisor_dest **ret_dest, struct err *err)
{
	struct xen_record record;
	fill_record(plan, migration, &record);
	int lock = xen_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int result = reserve(hv, &record, err);
	close(lock);
	if (result != 0 || dest_new(hv, &record, ret_dest, err) != 0)
		return -1;
	(*ret_dest)->nic_count = plan->vm.nic_count;
	memcpy((*ret_dest)->bridges, plan->bridges, sizeof((*ret_dest)->bridges));
	return 0;
}

int xen_dest_find(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct hypervisor_dest **ret_dest,
                  struct err *err)
{
	struct xen_record record;
	xc_domaininfo_t info;
	int known = xen_record_seek(&hv->paths, uuid, &record, err);
	int there = known < 0 ? -1 : xen_domain_find(hv, uuid, &info, err);
	if (there < 0)
		return -1;
	if (known == 0 || record.migration != migration || there == 0 || (info.flags & XEN_DOMINF_dying) != 0)
		return err_set(err, ERR_UNKNOWN_VM, "there is no VM of migration %llu here",
		               (unsigned long long)migration);
	return dest_new(hv, &record, ret_dest, err);
}

/* A restore that is not to succeed: fed what is no record until it ends. The mere end of the stream could pass for a
 * complete VM. */
static void spoil(struct hypervisor_dest *dest)
{
	unsigned char poison[POISON_BYTES];
	ssize_t done;
	short events;
	xen_stream_poison(poison, sizeof(poison));
	while (dest->task != NULL && !atomic_load(&dest->task->over)) {
		do /* it may be in the middle of something long */
			done = send(dest->stream_fd, poison, sizeof(poison), MSG_DONTWAIT | MSG_NOSIGNAL);
		while (done > 0);
		(void)disk_wait(NULL, -1, 0, disk_now_ms() + POISON_POLL_MS, &events, NULL);
	}
	xen_task_join(dest->task);
	dest->task = NULL;
}

void xen_dest_close(struct hypervisor_dest *dest)
{
	if (dest == NULL)
		return;
	spoil(dest);
	if (dest->stream_fd >= 0)
		close(dest->stream_fd);
	disk_cancel_close(&dest->cancel);
	free(dest->userdata);
	free(dest);
}

void xen_dest_cancel(struct hypervisor_dest *dest)
{
	disk_cancel_set(&dest->cancel);
}

int xen_dest_images(struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count,
                    struct err *err)
{
	if (count > LIMIT_DISKS)
		return err_set(err, ERR_INTERNAL, "%u disks", count);
	memcpy(dest->record.disks, images, count * sizeof(*images));
	dest->record.disk_count = count;
	return xen_record_save(&dest->hv->paths, &dest->record, err);
}

/* ---- running ---- */
/* The domain runs, or has run: it is not paused, has used CPU time, or has ended. */
static bool has_run(const xc_domaininfo_t *info)
{
	return (info->flags & XEN_DOMINF_paused) == 0 || info->cpu_time > 0 || xen_domain_has_ended(info);
}

int xen_dest_state(struct hypervisor_dest *dest, struct err *err)
{
	struct xen_record record;
	xc_domaininfo_t info;
	int known = xen_record_seek(&dest->hv->paths, dest->record.uuid, &record, err);
	int there = known < 0 ? -1 : xen_domain_find(dest->hv, dest->record.uuid, &info, err);
	if (there < 0)
		return -1;
	if (there == 1)
		return has_run(&info);
	/* Gone. It was marked before it was let run; one that never ran is destroyed by dest_destroy, with its record.
	 */
	return known == 1 && record.state == XEN_RUNNING;
}

int xen_dest_unpause(struct hypervisor_dest *dest, struct err *err)
{
	struct hypervisor *hv = dest->hv;
	const unsigned char *uuid = dest->record.uuid;
	struct xen_record record;
	xc_domaininfo_t info;
	int known = xen_record_seek(&hv->paths, uuid, &record, err);
	int there = known < 0 ? -1 : xen_domain_find(hv, uuid, &info, err);
	if (there < 0)
		return -1;
	if (known == 0 || (record.state != XEN_BUILT && record.state != XEN_RUNNING))
		return err_set(err, ERR_HYPERVISOR, "VM %s is not whole", dest->record.name);
	if (there == 0)
		return err_set(err, ERR_HYPERVISOR, "VM %s is gone", dest->record.name);
	if (record.state == XEN_BUILT && xen_record_mark(&hv->paths, uuid, XEN_RUNNING, true, err) != 0)
		return -1;
	if ((info.flags & XEN_DOMINF_paused) == 0)
		return 0;
	/* First the catch, then as libxl does it, which for HVM has its QEMU go on before. */
	(void)xc_domain_unpause(hv->xch, info.domain);
	int rc = libxl_domain_unpause(hv->ctx, info.domain, NULL);
	if (xen_domain_unpause_all(hv, info.domain, uuid, err) != 0 ||
	    (there = xen_domain_get(hv, info.domain, uuid, &info, err)) < 0)
		return -1;
	return there == 1 ? 0 : xen_fail(hv, err, "VM %s is gone (libxl said %d)", dest->record.name, rc);
}

/* What xl is to boot it from is the operator's; its disks are told of in the log. */
static int adopt_locked(struct hypervisor *hv, const struct xen_record *record, struct err *err)
{
	xc_domaininfo_t info;
	int there = xen_domain_find(hv, record->uuid, &info, err);
	if (there < 0)
		return -1;
	if (there == 1 && (info.flags & XEN_DOMINF_dying) == 0)
		return err_set(err, ERR_CONFLICT, "VM %s has its memory still: it is to be unpaused", record->name);
	for (unsigned i = 0; i < record->disk_count; i++)
		log_notice("event=adopted vm=%s disk=%s path=%s", record->name, record->disks[i].name,
		           record->disks[i].path);
	return xen_record_mark(&hv->paths, record->uuid, XEN_RUNNING, true, err);
}

int xen_dest_adopt(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err)
{
	struct xen_record record;
	int lock = xen_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int known = xen_record_seek(&hv->paths, uuid, &record, err);
	int result = known < 0 ? -1 : 0;
	bool unsettled = known == 1 && (record.state == XEN_INCOMING || record.state == XEN_BUILT);
	if (known == 0 || (unsettled && record.migration != migration))
		result = err_set(err, ERR_UNKNOWN_VM, "there is no VM of migration %llu here",
		                 (unsigned long long)migration);
	else if (unsettled)
		result = adopt_locked(hv, &record, err);
	close(lock);
	return result;
}

/* ---- away ---- */
static int destroy_locked(struct hypervisor *hv, const struct xen_record *record, struct err *err)
{
	xc_domaininfo_t info;
	int there = xen_domain_find(hv, record->uuid, &info, err);
	if (there < 0)
		return -1;
	/* The mark alone is no proof: it is made a moment before. */
	bool ran = there == 1 ? has_run(&info) && (info.flags & XEN_DOMINF_dying) == 0 : record->state == XEN_RUNNING;
	if (ran)
		return err_set(err, ERR_TOO_LATE, "VM %s has run here: it is not an incoming one any more",
		               record->name);
	if (there == 1 && xen_domain_destroy(hv, info.domain, record->uuid, err) != 0)
		return -1;
	return xen_record_remove(&hv->paths, record->uuid, err);
}

int xen_dest_destroy(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err)
{
	struct xen_record record;
	int lock = xen_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int known = xen_record_seek(&hv->paths, uuid, &record, err);
	int result = known < 0 ? -1 : 0;
	if (known == 1 && record.migration == migration)
		result = destroy_locked(hv, &record, err);
	close(lock);
	return result;
}
