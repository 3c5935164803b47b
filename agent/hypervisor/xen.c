/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen: the table of operations, and the connection to Xen. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/hypervisor/xen_driver.h"
#include "common/log.h"

#define FRESH_MS 60000

/* ---- what libxl says ---- */
static void vmessage(xentoollog_logger *logger, xentoollog_level level, int errnum, const char *context,
                     const char *format, va_list args)
{
	struct xen_log *log = (struct xen_log *)logger;
	char words[LIMIT_TEXT / 2], reason[128] = "", buffer[96];
	int saved = errno;
	(void)vsnprintf(words, sizeof(words), format, args);
	if (errnum > 0)
		(void)snprintf(reason, sizeof(reason), ": %s", strerror_r(errnum, buffer, sizeof(buffer)));
	words[strcspn(words, "\n")] = '\0';
	if (level >= XTL_ERROR) {
		pthread_mutex_lock(&log->lock);
		(void)snprintf(log->last, sizeof(log->last), "%.160s%.60s", words, reason);
		log->last_ms = disk_now_ms();
		pthread_mutex_unlock(&log->lock);
	}
	if (level >= XTL_WARN)
		log_warning("event=libxl from=%s text=\"%s%s\"", context != NULL ? context : "xen", words, reason);
	else
		log_debug("event=libxl from=%s text=\"%s%s\"", context != NULL ? context : "xen", words, reason);
	errno = saved;
}

static void progress(xentoollog_logger *logger, const char *context, const char *doing, int percent, unsigned long done,
                     unsigned long total)
{
	(void)logger;
	(void)context;
	(void)doing;
	(void)percent;
	(void)done;
	(void)total;
}

static void destroy(xentoollog_logger *logger)
{
	(void)logger;
}

int(xen_fail)(struct hypervisor *hv, struct err *err, const char *format, ...)
{
	char words[LIMIT_TEXT / 2], last[LIMIT_TEXT / 2];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(words, sizeof(words), format, args);
	va_end(args);
	pthread_mutex_lock(&hv->log.lock);
	/* What it complained of long ago was about something else. */
	bool fresh = disk_now_ms() - hv->log.last_ms < FRESH_MS;
	(void)snprintf(last, sizeof(last), "%s", fresh ? hv->log.last : "");
	hv->log.last[0] = '\0';
	pthread_mutex_unlock(&hv->log.lock);
	return err_set(err, ERR_HYPERVISOR, "%s%s%s", words, last[0] != '\0' ? ": " : "", last);
}

/* ---- the connection ---- */
int xen_ctx_open(struct hypervisor *hv, libxl_ctx **ret_ctx, struct err *err)
{
	/* The leg has children of its own and waits for each by its pid. */
	static const libxl_childproc_hooks hooks = { .chldowner = libxl_sigchld_owner_libxl_always_selective_reap };
	if (libxl_ctx_alloc(ret_ctx, LIBXL_VERSION, 0, &hv->log.logger) != 0)
		return xen_fail(hv, err, "libxl does not start; is this dom0 of a Xen host, with xenstored running?");
	libxl_childproc_setmode(*ret_ctx, &hooks, NULL);
	return 0;
}

static void xen_close(struct hypervisor *hv)
{
	if (hv->ctx != NULL)
		libxl_ctx_free(hv->ctx);
	if (hv->xch != NULL)
		xc_interface_close(hv->xch);
	pthread_mutex_destroy(&hv->log.lock);
	free(hv);
}

/* In a child of libxl's, before it becomes a helper, a script or a QEMU that stays for years: a leg blocks signals that
 * it reads from a descriptor, and libxl leaves them blocked. */
static void unblock_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	(void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

static int xen_open(struct hypervisor **ret_hv, const struct paths *paths, struct err *err)
{
	struct hypervisor *hv = calloc(1, sizeof(*hv));
	if (hv == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	hv->paths = *paths;
	hv->log.logger = (xentoollog_logger) { vmessage, progress, destroy };
	pthread_mutex_init(&hv->log.lock, NULL);
	(void)pthread_atfork(NULL, NULL, unblock_signals);
	hv->xch = xc_interface_open(&hv->log.logger, &hv->log.logger, 0);
	if (hv->xch == NULL)
		xen_fail(hv, err, "this is not a Xen host, or not its dom0");
	if (hv->xch == NULL || xen_ctx_open(hv, &hv->ctx, err) != 0) {
		xen_close(hv);
		return -1;
	}
	*ret_hv = hv;
	return 0;
}

/* source_flush: none, see docs/XEN.md. */
static const struct hypervisor_ops hypervisor_xen = {
	.name = "xen",
	.open = xen_open,
	.close = xen_close,
	.inventory = xen_inventory,
	.vms = xen_vms,
	.destroy_end = xen_destroy_end,
	.source_open = xen_source_open,
	.source_close = xen_source_close,
	.source_disks = xen_source_disks,
	.source_send = xen_source_send,
	.source_cancel = xen_source_cancel,
	.source_is_suspended = xen_source_is_suspended,
	.source_resume = xen_source_resume,
	.source_throttle = xen_source_throttle,
	.source_destroy = xen_source_destroy,
	.dest_create = xen_dest_create,
	.dest_find = xen_dest_find,
	.dest_close = xen_dest_close,
	.dest_images = xen_dest_images,
	.dest_receive = xen_dest_receive,
	.dest_cancel = xen_dest_cancel,
	.dest_attach = xen_dest_attach,
	.dest_unpause = xen_dest_unpause,
	.dest_state = xen_dest_state,
	.dest_adopt = xen_dest_adopt,
	.dest_destroy = xen_dest_destroy,
};

const struct hypervisor_ops *const hypervisor_driver = &hypervisor_xen;
