/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen: what Xen and xenstore say of a domain, and the few things done to one directly. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenstore.h>

#include "agent/hypervisor/xen_driver.h"
#include "common/proc.h"

#define LIST_STEP 64u
#define PAUSES_MAX 256u /* that Xen counts */
#define GONE_MS 20000u
#define GONE_POLL_MS 50
#define SAVER_WORDS 256u /* of a command line */

/* ---- looking ---- */
int xen_domain_list(struct hypervisor *hv, xc_domaininfo_t **ret_list, size_t *ret_count, struct err *err)
{
	xc_domaininfo_t *list = NULL;
	size_t count = 0;
	uint32_t first = 1;
	for (;;) {
		xc_domaininfo_t *more = reallocarray(list, count + LIST_STEP, sizeof(*list));
		if (more == NULL) {
			free(list);
			return err_set(err, ERR_NO_MEMORY, "no memory for a list of domains");
		}
		list = more;
		int got = xc_domain_getinfolist(hv->xch, first, LIST_STEP, list + count);
		if (got < 0) {
			free(list);
			return xen_fail(hv, err, "cannot list the domains");
		}
		count += (size_t)got;
		if ((unsigned)got < LIST_STEP)
			break;
		first = list[count - 1].domain + 1u;
	}
	*ret_list = list;
	*ret_count = count;
	return 0;
}

int xen_domain_find(struct hypervisor *hv, const uuid_bytes uuid, xc_domaininfo_t *ret_info, struct err *err)
{
	xc_domaininfo_t *list;
	size_t count;
	int found = 0;
	if (xen_domain_list(hv, &list, &count, err) != 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		if (memcmp(list[i].handle, uuid, sizeof(uuid_bytes)) != 0)
			continue;
		if (found == 0 || (list[i].flags & XEN_DOMINF_dying) == 0)
			*ret_info = list[i];
		found = 1;
	}
	free(list);
	return found;
}

int xen_domain_get(struct hypervisor *hv, uint32_t domid, const uuid_bytes uuid, xc_domaininfo_t *ret_info,
                   struct err *err)
{
	xc_domaininfo_t info;
	int got = xc_domain_getinfolist(hv->xch, domid, 1, &info);
	if (got < 0)
		return xen_fail(hv, err, "cannot look at domain %u", domid);
	if (got == 0 || info.domain != domid || memcmp(info.handle, uuid, sizeof(uuid_bytes)) != 0)
		return 0;
	*ret_info = info;
	return 1;
}

static unsigned reason_of(const xc_domaininfo_t *info)
{
	return info->flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask;
}

bool xen_domain_is_suspended(const xc_domaininfo_t *info)
{
	return (info->flags & XEN_DOMINF_shutdown) != 0 && reason_of(info) == SHUTDOWN_suspend;
}

bool xen_domain_has_ended(const xc_domaininfo_t *info)
{
	return (info->flags & XEN_DOMINF_dying) != 0 ||
	       ((info->flags & XEN_DOMINF_shutdown) != 0 && reason_of(info) != SHUTDOWN_suspend);
}

void xen_domain_name(struct hypervisor *hv, uint32_t domid, char ret_name[LIMIT_NAME])
{
	char *name = libxl_domid_to_name(hv->ctx, domid);
	snprintf(ret_name, LIMIT_NAME, "%s", name != NULL ? name : "");
	free(name);
}

/* ---- xenstore ---- */
static bool read_node(struct xs_handle *xs, xs_transaction_t transaction, uint32_t domid, const char *path,
                      char *ret_text, size_t room)
{
	char full[128];
	unsigned bytes = 0;
	snprintf(full, sizeof(full), "/local/domain/%u/%s", domid, path);
	char *text = xs_read(xs, transaction, full, &bytes);
	if (text == NULL)
		return false;
	snprintf(ret_text, room, "%.*s", (int)bytes, text);
	free(text);
	return true;
}

bool xen_domain_node(struct hypervisor *hv, uint32_t domid, const char *path, char *ret_text, size_t room)
{
	struct xs_handle *xs = xs_open(0);
	(void)hv;
	bool there = xs != NULL && read_node(xs, XBT_NULL, domid, path, ret_text, room);
	if (xs != NULL)
		xs_close(xs);
	return there;
}

int xen_domain_can_suspend(struct hypervisor *hv, uint32_t domid, struct err *err)
{
	char path[128], text[16];
	struct xs_handle *xs = xs_open(0);
	snprintf(path, sizeof(path), "/local/domain/%u/" XEN_CAN_SUSPEND, domid);
	/* HVM has no such node, and needs none */
	bool done = xs != NULL && (!read_node(xs, XBT_NULL, domid, XEN_CAN_SUSPEND, text, sizeof(text)) ||
	                           xs_write(xs, XBT_NULL, path, "1", 1));
	if (xs != NULL)
		xs_close(xs);
	return done ? 0 : xen_fail(hv, err, "xenstore does not answer");
}

/* 1: taken back, 0: there was none, -1: somebody else wrote, or xenstored fails. */
static int unask_once(struct xs_handle *xs, uint32_t domid)
{
	char path[64], text[16];
	snprintf(path, sizeof(path), "/local/domain/%u/control/shutdown", domid);
	xs_transaction_t transaction = xs_transaction_start(xs);
	if (transaction == XBT_NULL)
		return -1;
	bool asked = read_node(xs, transaction, domid, "control/shutdown", text, sizeof(text)) &&
	             strcmp(text, "suspend") == 0;
	bool written = !asked || xs_write(xs, transaction, path, "", 0);
	bool ended = xs_transaction_end(xs, transaction, !written || !asked);
	return !written || !ended ? -1 : asked ? 1 : 0;
}

int xen_domain_unask(struct hypervisor *hv, uint32_t domid, struct err *err)
{
	struct xs_handle *xs = xs_open(0);
	int result = -1;
	for (unsigned tries = 0; xs != NULL && result < 0 && tries < 10; tries++)
		result = unask_once(xs, domid);
	if (xs != NULL)
		xs_close(xs);
	return result < 0 ? xen_fail(hv, err, "xenstore does not answer") : result;
}

/* ---- doing ---- */
int xen_domain_unpause_all(struct hypervisor *hv, uint32_t domid, const uuid_bytes uuid, struct err *err)
{
	for (unsigned i = 0; i <= PAUSES_MAX; i++) {
		xc_domaininfo_t info;
		int there = xen_domain_get(hv, domid, uuid, &info, err);
		if (there < 0)
			return -1;
		if (there == 0 || (info.flags & XEN_DOMINF_paused) == 0)
			return 0;
		if (xc_domain_unpause(hv->xch, domid) != 0)
			break;
	}
	return xen_fail(hv, err, "domain %u cannot be unpaused", domid);
}

int xen_domain_destroy(struct hypervisor *hv, uint32_t domid, const uuid_bytes uuid, struct err *err)
{
	int64_t until_ms = disk_now_ms() + GONE_MS;
	xc_domaininfo_t info;
	short events;
	int there = xen_domain_get(hv, domid, uuid, &info, err);
	if (there <= 0)
		return there;
	int rc = libxl_domain_destroy(hv->ctx, domid, NULL);
	while ((there = xen_domain_get(hv, domid, uuid, &info, err)) > 0) {
		/* Pages that somebody maps keep a shell of it; it never runs again. */
		if (rc == 0 && (info.flags & XEN_DOMINF_dying) != 0)
			return 0;
		if (rc != 0 || disk_now_ms() > until_ms)
			return xen_fail(hv, err, "domain %u cannot be destroyed (libxl says %d)", domid, rc);
		(void)disk_wait(NULL, -1, 0, disk_now_ms() + GONE_POLL_MS, &events, NULL);
	}
	return there;
}

/* ---- other savers ---- */
/* HELPER --save-domain IO-FD RECV-FD DOMID ... */
static bool saves(pid_t pid, uint32_t domid)
{
	char words[SAVER_WORDS], number[16];
	size_t bytes = proc_read(pid, "cmdline", words, sizeof(words));
	const char *at = words;
	snprintf(number, sizeof(number), "%u", domid);
	for (unsigned i = 0; i < 5 && at < words + bytes; i++, at += strlen(at) + 1) {
		if (i == 1 && strcmp(at, "--save-domain") != 0)
			return false;
		if (i == 4)
			return strcmp(at, number) == 0;
	}
	return false;
}

bool xen_domain_saver(uint32_t domid, pid_t *ret_pid)
{
	struct dirent *entry;
	bool found = false;
	DIR *dir = opendir("/proc");
	while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		*ret_pid = (pid_t)atol(entry->d_name);
		found = saves(*ret_pid, domid);
	}
	if (dir != NULL)
		closedir(dir);
	return found;
}
