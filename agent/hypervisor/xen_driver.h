/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside of hypervisor_xen: its objects. Included by xen*.c only.
 *
 * Threads. libxl's two long calls, libxl_domain_suspend() and libxl_domain_create_restore(), each run on a thread of
 * their own with a context of their own (struct xen_task), and are ended by breaking their stream, never by libxl's own
 * abort: that one forgets a guest which has been asked to suspend. Everything else uses hv->ctx and hv->xch, by
 * whichever thread of the leg calls.
 *
 * What is certain is what Xen says of a domain (xen_domain.c), never what a call returned.
 */
#ifndef DROVER_XEN_DRIVER_H
#define DROVER_XEN_DRIVER_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include <libxl.h>
#include <libxl_event.h>
#include <libxl_utils.h>
#include <xenctrl.h>
#include <xenguest.h>
#include <xentoollog.h>

#include "agent/disk/wait.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/xen_cpu.h"
#include "agent/hypervisor/xen_record.h"
#include "agent/hypervisor/xen_stream.h"

#define XEN_PAGE_BYTES 4096u
#define XEN_INCOMING_SUFFIX "--incoming" /* after the name of a domain that is not whole yet; the convention of xl */

/* What libxl and libxc say; the last complaint is kept for error texts. */
struct xen_log {
	xentoollog_logger logger; /* first: it is handed back to us */
	pthread_mutex_t lock;
	char last[LIMIT_TEXT / 2];
	int64_t last_ms;
};

struct hypervisor {
	struct paths paths;
	struct xen_log log;
	libxl_ctx *ctx;
	xc_interface *xch;
};

/* One long call of libxl, on its own thread. */
struct xen_task {
	struct hypervisor *hv;
	libxl_ctx *ctx;
	pthread_t thread;
	int stream_fd; /* libxl's end; closed when the call is over */
	int event_fd;  /* readable then */
	atomic_bool over;
	int rc; /* what libxl said, once it is over */
	/* what it is to do */
	int (*run)(struct xen_task *task);
	uint32_t domid;             /* suspend: of the VM; restore: of the new one, by what libxl said */
	libxl_domain_config config; /* restore */
};

struct hypervisor_source {
	struct hypervisor *hv;
	uuid_bytes uuid;
	char name[LIMIT_NAME];
	uint32_t domid;
	bool has_screen; /* QEMU logs what is written to the VM's screen by the same means as we its memory */
	uint64_t memory_bytes;
	unsigned disk_count;
	struct hypervisor_disk disks[LIMIT_DISKS];
	struct disk_cancel cancel;
	struct xen_task *task; /* libxl_domain_suspend(); NULL: none, or joined */
};

struct hypervisor_dest {
	struct hypervisor *hv;
	struct xen_record record; /* as it was when it was opened, with the images' places */
	uint64_t memory_bytes;    /* as the VM has it */
	unsigned nic_count;
	char bridges[LIMIT_NICS][LIMIT_NAME];
	struct disk_cancel cancel;
	struct xen_task *task; /* libxl_domain_create_restore() */
	int stream_fd;         /* our end; -1: none */
	struct xen_tail tail;  /* what dest_attach lets go */
	char *config;          /* of the VM as it came, adapted to this host: JSON of libxl; heap */
	char *userdata;        /* of xl; heap, may be NULL */
	bool caught;           /* it is paused once more than by libxl */
};

/* ---- xen.c ---- */
/* A context for one thread, with the rules for children that all of ours have. */
int xen_ctx_open(struct hypervisor *hv, libxl_ctx **ret_ctx, struct err *err);
/* Sets ERR_HYPERVISOR: the words, and libxl's last complaint. */
int xen_fail(struct hypervisor *hv, struct err *err, const char *format, ...) __attribute__((format(printf, 3, 4)));
#ifdef __clang_analyzer__ /* as in err.h */
#define xen_fail(...) ((void)(xen_fail)(__VA_ARGS__), -1)
#endif

/* ---- xen_task.c ---- */
/* Starts task->run; takes the task over in any case, and its stream_fd (libxl's end of the stream). */
int xen_task_start(struct xen_task *task, struct err *err);
/* Waits for its end and frees it; NULL is fine. */
void xen_task_join(struct xen_task *task);
/* The same, but at most that long. False: it is not over, and was not freed. */
bool xen_task_join_for(struct xen_task *task, unsigned timeout_ms);
/* A pair of connected sockets, closed on exec, with big buffers. */
int xen_socket_pair(int type, int ret_fds[2], struct err *err);

/* ---- xen_domain.c ---- */
/* 1 and the domain with this UUID, one that is dying only if there is no other; 0: there is none; -1: not known. */
int xen_domain_find(struct hypervisor *hv, const uuid_bytes uuid, xc_domaininfo_t *ret_info, struct err *err);
/* The same by number and UUID: 0 if that number is another's by now. */
int xen_domain_get(struct hypervisor *hv, uint32_t domid, const uuid_bytes uuid, xc_domaininfo_t *ret_info,
                   struct err *err);
/* All but the first (dom0); *ret_list is malloc'ed. */
int xen_domain_list(struct hypervisor *hv, xc_domaininfo_t **ret_list, size_t *ret_count, struct err *err);
bool xen_domain_is_suspended(const xc_domaininfo_t *info);
/* It has shut down, for another reason than to be suspended. */
bool xen_domain_has_ended(const xc_domaininfo_t *info);
/* "" if it has none. */
void xen_domain_name(struct hypervisor *hv, uint32_t domid, char ret_name[LIMIT_NAME]);
/* What xenstore has at /local/domain/DOMID/PATH; false if there is nothing. */
bool xen_domain_node(struct hypervisor *hv, uint32_t domid, const char *path, char *ret_text, size_t room);
/* What the kernel of a VM said where it came from, and does not say again: that it can be suspended. */
#define XEN_CAN_SUSPEND "control/feature-suspend"
int xen_domain_can_suspend(struct hypervisor *hv, uint32_t domid, struct err *err);
/* Takes a request to suspend back that the guest has not seen. 1: there was one, 0: none, -1. */
int xen_domain_unask(struct hypervisor *hv, uint32_t domid, struct err *err);
/* Drops every pause that a controller has put on it, until it is not paused. */
int xen_domain_unpause_all(struct hypervisor *hv, uint32_t domid, const uuid_bytes uuid, struct err *err);
/* Destroys it and waits until it is gone, or dying with nothing left of it but pages. Done if it is gone. */
int xen_domain_destroy(struct hypervisor *hv, uint32_t domid, const uuid_bytes uuid, struct err *err);
/* Whether a process saves this domain; *ret_pid says which. */
bool xen_domain_saver(uint32_t domid, pid_t *ret_pid);

/* ---- xen_note.c: what was done to a VM that is to leave, until it is undone; gone with the host's boot ---- */
struct xen_note {
	int64_t asked_ms; /* disk_now_ms() when it was asked to suspend; 0: it was not */
	int32_t cap;      /* of its CPU time, as it was before it was throttled; -1: it was not */
};
/* What is noted; nothing, if there is no note. */
struct xen_note xen_note_read(const struct hypervisor *hv, const uuid_bytes uuid);
int xen_note_write(const struct hypervisor *hv, const uuid_bytes uuid, const struct xen_note *note, struct err *err);
void xen_note_remove(const struct hypervisor *hv, const uuid_bytes uuid);

/* ---- xen_config.c ---- */
/* What libxl knows of a domain that is here; dispose of it. */
int xen_config_read(struct hypervisor *hv, uint32_t domid, libxl_domain_config *ret_config, struct err *err);
/* Disks with what is needed to copy them; `backend`: with the monitor of their QEMU, if there is one. ERR_UNSUPPORTED
 * if one is not a file that QEMU serves. */
int xen_config_disks(struct hypervisor *hv, uint32_t domid, const libxl_domain_config *config, bool backend,
                     struct hypervisor_disk *ret_disks, unsigned *count, struct err *err);
/* Whether this VM can be migrated; ERR_UNSUPPORTED says why not. */
int xen_config_check(struct hypervisor *hv, const xc_domaininfo_t *info, const libxl_domain_config *config,
                     struct err *err);

/* ---- xen_describe.c ---- */
/* What the destination must know before the first byte of memory: JSON. *ret_text is malloc'ed. */
int xen_describe(struct hypervisor *hv, uint32_t domid, char **ret_text, struct err *err);
struct xen_description {
	char *config;   /* JSON of libxl; heap */
	char *userdata; /* heap; NULL: none */
	bool is_pv;
	unsigned major, minor; /* of the source's Xen */
	uint32_t features[XEN_CPU_WORDS];
};
int xen_description_parse(const char *text, size_t bytes, struct xen_description *ret_description, struct err *err);
void xen_description_free(struct xen_description *description);
/* Whether this host can run it: Xen's version, CPU. */
int xen_description_check(struct hypervisor *hv, const struct xen_description *description, struct err *err);

/* ---- the operations, as hypervisor.h describes them ---- */
int xen_vms(struct hypervisor *hv, struct hypervisor_vm **ret_vms, size_t *ret_count, struct err *err);
int xen_destroy_end(struct hypervisor *hv, const uuid_bytes uuid, struct err *err);
int xen_inventory(struct hypervisor *hv, struct msg_inventory *ret_inv, struct err *err);
int xen_source_open(struct hypervisor *hv, const uuid_bytes uuid, struct hypervisor_source **ret_source,
                    struct err *err);
void xen_source_close(struct hypervisor_source *source);
int xen_source_disks(struct hypervisor_source *source, struct hypervisor_disk *ret_disks, unsigned *count,
                     struct err *err);
int xen_source_send(struct hypervisor_source *source, const struct hypervisor_send *send, struct err *err);
void xen_source_cancel(struct hypervisor_source *source);
int xen_source_is_suspended(struct hypervisor_source *source, struct err *err);
int xen_source_resume(struct hypervisor_source *source, struct err *err);
int xen_source_throttle(struct hypervisor_source *source, unsigned percent, struct err *err);
int xen_source_destroy(struct hypervisor *hv, const uuid_bytes uuid, struct err *err);
int xen_dest_create(struct hypervisor *hv, const struct msg_plan *plan, uint64_t migration,
                    struct hypervisor_dest **ret_dest, struct err *err);
int xen_dest_find(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct hypervisor_dest **ret_dest,
                  struct err *err);
void xen_dest_close(struct hypervisor_dest *dest);
int xen_dest_images(struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count,
                    struct err *err);
int xen_dest_receive(struct hypervisor_dest *dest, const struct hypervisor_receive *receive, struct err *err);
void xen_dest_cancel(struct hypervisor_dest *dest);
int xen_dest_attach(struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count,
                    struct err *err);
int xen_dest_unpause(struct hypervisor_dest *dest, struct err *err);
int xen_dest_state(struct hypervisor_dest *dest, struct err *err);
int xen_dest_adopt(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err);
int xen_dest_destroy(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err);

#endif
