/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen, the side that a VM leaves: everything but the memory stream (xen_send.c). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/xen_driver.h"
#include "common/proc.h"

#define LET_GO_MS 3000u /* for libxl, or a dead leg's helper, to notice that the stream is broken */
#define LATE_MS 10000   /* after it was asked: a guest that a dead leg asked is down by then, or never */
#define LATE_POLL_MS 20
#define HELPER_NAME "drover-xen-save" /* as far as the kernel keeps it */

/* ---- open, close ---- */
static int fill(struct hypervisor_source *source, const xc_domaininfo_t *info, struct err *err)
{
	struct hypervisor *hv = source->hv;
	libxl_domain_config config;
	source->domid = info->domain;
	source->memory_bytes = info->tot_pages * XEN_PAGE_BYTES;
	xen_domain_name(hv, source->domid, source->name);
	if (xen_config_read(hv, source->domid, &config, err) != 0)
		return -1;
	source->has_screen = config.c_info.type == LIBXL_DOMAIN_TYPE_HVM;
	source->disk_count = LIMIT_DISKS;
	int result = xen_config_disks(hv, source->domid, &config, true, source->disks, &source->disk_count, err);
	libxl_domain_config_dispose(&config);
	return result;
}

int xen_source_open(struct hypervisor *hv, const uuid_bytes uuid, struct hypervisor_source **ret_source,
                    struct err *err)
{
	struct xen_record record;
	xc_domaininfo_t info;
	int known = xen_record_seek(&hv->paths, uuid, &record, err);
	int there = known < 0 ? -1 : xen_domain_find(hv, uuid, &info, err);
	if (there < 0)
		return -1;
	if (known == 1 && record.state != XEN_RUNNING)
		return err_set(err, ERR_UNKNOWN_VM, "VM %s is not of this host: it is %s", record.name,
		               xen_state_name(record.state));
	if (there == 0 || xen_domain_has_ended(&info))
		return err_set(err, ERR_UNKNOWN_VM,
		               there == 0 ? "there is no domain with this UUID here"
		                          : "the VM has shut down by itself");
	struct hypervisor_source *source = calloc(1, sizeof(*source));
	if (source == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	source->hv = hv;
	memcpy(source->uuid, uuid, sizeof(source->uuid));
	if (fill(source, &info, err) != 0 || disk_cancel_open(&source->cancel, err) != 0) {
		free(source);
		return -1;
	}
	*ret_source = source;
	return 0;
}

void xen_source_close(struct hypervisor_source *source)
{
	if (source == NULL)
		return;
	xen_task_join(source->task);
	disk_cancel_close(&source->cancel);
	free(source);
}

int xen_source_disks(struct hypervisor_source *source, struct hypervisor_disk *ret_disks, unsigned *count,
                     struct err *err)
{
	if (*count < source->disk_count)
		return err_set(err, ERR_UNSUPPORTED, "VM %s has %u disks, more than the %u that there is room for",
		               source->name, source->disk_count, *count);
	memcpy(ret_disks, source->disks, source->disk_count * sizeof(*ret_disks));
	*count = source->disk_count;
	return 0;
}

void xen_source_cancel(struct hypervisor_source *source)
{
	disk_cancel_set(&source->cancel);
}

/* ---- state ---- */
/* The domain as it is now: one that restarted itself has another number. */
static int look(struct hypervisor_source *source, xc_domaininfo_t *ret_info, struct err *err)
{
	int there = xen_domain_find(source->hv, source->uuid, ret_info, err);
	if (there < 0)
		return -1;
	if (there == 0 || xen_domain_has_ended(ret_info))
		return err_set(err, ERR_UNKNOWN_VM, "VM %s has ended by itself", source->name);
	source->domid = ret_info->domain;
	return 0;
}

int xen_source_is_suspended(struct hypervisor_source *source, struct err *err)
{
	xc_domaininfo_t info;
	return look(source, &info, err) != 0 ? -1 : xen_domain_is_suspended(&info);
}

/* ---- running again ---- */
/* A helper that a dead leg had started notices by itself, as its stream is gone; only one that hangs is told. */
static int end_helper(struct hypervisor_source *source, struct err *err)
{
	int64_t until_ms = disk_now_ms() + LET_GO_MS;
	char name[32];
	short events;
	pid_t pid;
	while (xen_domain_saver(source->domid, &pid)) {
		proc_read(pid, "comm", name, sizeof(name));
		bool ours = strncmp(name, HELPER_NAME, sizeof(HELPER_NAME) - 1) == 0;
		if (disk_now_ms() > until_ms)
			return err_set(err, ERR_BUSY, "process %d (%.20s) still saves domain %u", (int)pid,
			               ours ? name : "another's", source->domid);
		if (ours)
			kill(pid, SIGTERM);
		(void)disk_wait(NULL, -1, 0, disk_now_ms() + LATE_POLL_MS, &events, NULL);
	}
	return 0;
}

/* libxl has given up, or died with its leg; what of it may be under way still? */
static int await_late(struct hypervisor_source *source, xc_domaininfo_t *info, struct err *err)
{
	struct xen_note note = xen_note_read(source->hv, source->uuid);
	short events;
	int taken_back = xen_domain_unask(source->hv, source->domid, err);
	if (taken_back < 0)
		return -1;
	/* Not asked; or it was, and had not seen it yet. */
	if (note.asked_ms == 0 || taken_back == 1)
		return look(source, info, err);
	while (disk_now_ms() < note.asked_ms + LATE_MS) {
		if (look(source, info, err) != 0)
			return -1;
		if (xen_domain_is_suspended(info))
			return 0;
		(void)disk_wait(NULL, -1, 0, disk_now_ms() + LATE_POLL_MS, &events, NULL);
	}
	return look(source, info, err);
}

/* Nobody logs what it writes any more. Not where QEMU may do so for itself. */
static void end_log(struct hypervisor_source *source)
{
	if (!source->has_screen)
		(void)xc_shadow_control(source->hv->xch, source->domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0);
}

int xen_source_resume(struct hypervisor_source *source, struct err *err)
{
	struct hypervisor *hv = source->hv;
	xc_domaininfo_t info;
	if (!xen_task_join_for(source->task, LET_GO_MS))
		return err_set(err, ERR_TIMEOUT, "libxl has not let go of VM %s yet", source->name);
	source->task = NULL;
	if (look(source, &info, err) != 0 || end_helper(source, err) != 0)
		return -1;
	if (!xen_domain_is_suspended(&info) && await_late(source, &info, err) != 0)
		return -1;
	/* "Cooperative": the devices stay connected, and the guest finds that it was not moved. */
	int rc = xen_domain_is_suspended(&info) ? libxl_domain_resume(hv->ctx, source->domid, 1, NULL) : 0;
	if (look(source, &info, err) != 0)
		return -1;
	if (xen_domain_is_suspended(&info))
		return xen_fail(hv, err, "VM %s does not resume (libxl says %d)", source->name, rc);
	if (xen_domain_unpause_all(hv, source->domid, source->uuid, err) != 0 || look(source, &info, err) != 0)
		return -1;
	end_log(source);
	/* It runs; that it runs slowly is no reason to say that it does not. */
	if (xen_source_throttle(source, 0, NULL) == 0)
		xen_note_remove(hv, source->uuid);
	return 0;
}

/* ---- throttle ---- */
static int set_cap(struct hypervisor_source *source, int cap, struct err *err)
{
	libxl_domain_sched_params params;
	libxl_domain_sched_params_init(&params);
	params.cap = cap;
	int rc = libxl_domain_sched_params_set(source->hv->ctx, source->domid, &params);
	libxl_domain_sched_params_dispose(&params);
	return rc == 0 ? 0 : xen_fail(source->hv, err, "cannot limit the CPU time of VM %s", source->name);
}

static int get_cap(struct hypervisor_source *source, int *ret_cap, struct err *err)
{
	libxl_domain_sched_params params;
	libxl_domain_sched_params_init(&params);
	int rc = libxl_domain_sched_params_get(source->hv->ctx, source->domid, &params);
	libxl_scheduler scheduler = params.sched;
	*ret_cap = params.cap;
	libxl_domain_sched_params_dispose(&params);
	if (rc != 0)
		return xen_fail(source->hv, err, "cannot read the CPU time of VM %s", source->name);
	if (scheduler != LIBXL_SCHEDULER_CREDIT && scheduler != LIBXL_SCHEDULER_CREDIT2)
		return err_set(err, ERR_UNSUPPORTED, "Xen's scheduler here cannot limit the CPU time of a VM");
	return 0;
}

int xen_source_throttle(struct hypervisor_source *source, unsigned percent, struct err *err)
{
	struct xen_note note = xen_note_read(source->hv, source->uuid);
	xc_domaininfo_t info;
	int cap;
	if (percent == 0 && note.cap < 0)
		return 0;
	if (look(source, &info, err) != 0 || get_cap(source, &cap, err) != 0)
		return -1;
	if (note.cap < 0) {
		note.cap = cap;
		if (xen_note_write(source->hv, source->uuid, &note, err) != 0)
			return -1;
	}
	if (percent == 0) {
		if (set_cap(source, note.cap, err) != 0)
			return -1;
		note.cap = -1;
		return xen_note_write(source->hv, source->uuid, &note, err);
	}
	/* In percent of one CPU; 0 would mean no limit. */
	unsigned all = note.cap > 0 ? (unsigned)note.cap : info.nr_online_vcpus * 100;
	unsigned left = percent < 100 ? all * (100 - percent) / 100 : 0;
	return set_cap(source, left > 0 ? (int)left : 1, err);
}

/* ---- away ---- */
/* Marked first: who finds half of it must not take it for a VM that may run here. */
static int mark_leaving(struct hypervisor *hv, const uuid_bytes uuid, int known, struct xen_record *record,
                        struct err *err)
{
	if (known == 1)
		return xen_record_mark(&hv->paths, uuid, XEN_LEAVING, true, err);
	xc_domaininfo_t info;
	int there = xen_domain_find(hv, uuid, &info, err);
	if (there <= 0)
		return there;
	*record = (struct xen_record) { .state = XEN_LEAVING };
	memcpy(record->uuid, uuid, sizeof(record->uuid));
	xen_domain_name(hv, info.domain, record->name);
	return xen_record_save(&hv->paths, record, err);
}

static int destroy_all(struct hypervisor *hv, const uuid_bytes uuid, struct err *err)
{
	xc_domaininfo_t info;
	int there = xen_domain_find(hv, uuid, &info, err);
	if (there < 0 || (there == 1 && xen_domain_destroy(hv, info.domain, uuid, err) != 0))
		return -1;
	xen_note_remove(hv, uuid);
	return xen_record_remove(&hv->paths, uuid, err);
}

int xen_source_destroy(struct hypervisor *hv, const uuid_bytes uuid, struct err *err)
{
	struct xen_record record;
	int lock = xen_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int known = xen_record_seek(&hv->paths, uuid, &record, err);
	int result = known < 0 ? -1 : 0;
	if (known == 1 && (record.state == XEN_INCOMING || record.state == XEN_BUILT))
		result = err_set(err, ERR_CONFLICT, "VM %s is coming in, not leaving", record.name);
	if (result == 0)
		result = mark_leaving(hv, uuid, known, &record, err);
	if (result == 0)
		result = destroy_all(hv, uuid, err);
	close(lock);
	return result;
}

int xen_destroy_end(struct hypervisor *hv, const uuid_bytes uuid, struct err *err)
{
	struct xen_record record;
	xc_domaininfo_t info;
	int lock = xen_record_lock(&hv->paths, err);
	if (lock < 0)
		return -1;
	int known = xen_record_seek(&hv->paths, uuid, &record, err);
	int there = known < 0 ? -1 : xen_domain_find(hv, uuid, &info, err);
	int result = there < 0 ? -1 : 0;
	if (result == 0 && known == 1 && record.state == XEN_LEAVING)
		result = destroy_all(hv, uuid, err);
	else if (result == 0 && there == 1 && (info.flags & XEN_DOMINF_dying) == 0)
		result = err_set(err, ERR_CONFLICT, "VM is not being destroyed");
	else if (result == 0 && there == 1)
		result = xen_domain_destroy(hv, info.domain, uuid, err);
	close(lock);
	return result;
}
