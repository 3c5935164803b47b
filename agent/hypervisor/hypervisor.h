/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hypervisor, as a leg uses it. Calls may block (a leg is there for that). The driver moves memory in its own format
 * over a byte stream that the leg gives it; the leg moves disks. Decide by the hypervisor's state, never by a return
 * code: each call says what is certain after a failure.
 *
 * Thread rule: source_send and dest_receive run on one thread of the leg; source_cancel and dest_cancel may be called
 * from any other and make them return within 200 ms; all other calls come from one thread at a time.
 */
#ifndef DROVER_HYPERVISOR_H
#define DROVER_HYPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/paths.h"
#include "proto/msg.h"

struct hypervisor;        /* a connection */
struct hypervisor_source; /* a VM that runs here and is to leave */
struct hypervisor_dest;   /* a VM that is coming in */

/* How to reach a disk of a VM that runs here. */
struct hypervisor_disk {
	char name[LIMIT_NAME];
	char qmp_path[LIMIT_PATH]; /* control socket of its block backend */
	char node[LIMIT_NAME];     /* the node that the guest writes through (in an iothread) */
	char nbd_path[LIMIT_PATH]; /* unix socket of the NBD server that the backend runs already; "": none */
	char path[LIMIT_PATH];     /* image file */
	enum disk_format format;
	uint64_t size_bytes;
	bool read_only;
};

/* A disk that a VM is to run on here. */
struct hypervisor_image {
	char name[LIMIT_NAME];
	char sr[LIMIT_NAME];
	char path[LIMIT_PATH];
	enum disk_format format;
	uint64_t size_bytes;
};

/* A VM as it is here, for whoever looks for what was left behind. */
enum hypervisor_vm_state {
	HYPERVISOR_VM_OWN = 1,  /* this host's VM, running or not */
	HYPERVISOR_VM_INCOMING, /* made by dest_create, never ran */
	HYPERVISOR_VM_LEAVING,  /* its destruction was begun and is not at its end */
};
struct hypervisor_vm {
	uuid_bytes uuid;
	char name[LIMIT_NAME];
	enum hypervisor_vm_state state;
	uint64_t migration; /* that it was made for; 0: for none */
	unsigned disk_count;
	struct hypervisor_disk disks[LIMIT_DISKS]; /* path "": not attached yet; qmp_path "": no backend runs */
};

struct hypervisor_pass { /* one round over memory, measured */
	uint32_t pass;
	uint64_t total_bytes, sent_bytes /* in this pass */, sent_total_bytes;
	uint64_t dirty_bytes; /* written since, still to send */
	uint64_t took_ms;
};

enum hypervisor_next { HYPERVISOR_GO_ON = 1, HYPERVISOR_SUSPEND = 2, HYPERVISOR_ABORT = 3 };

/* What the leg gives source_send. */
struct hypervisor_send {
	void *ctx;
	/* Sends; blocks; -1: the stream is dead. */
	int (*write)(void *ctx, const void *bytes, size_t count, struct err *err);
	/* After each round: what next? Blocks while the leg copies disks in between. */
	enum hypervisor_next (*pass)(void *ctx, const struct hypervisor_pass *pass);
	/* Before the VM is suspended (the leg journals it); -1: do not. */
	int (*suspending)(void *ctx, struct err *err);
	/* The VM is suspended, for certain; the leg sends the last of the disks meanwhile or now. -1: abort. */
	int (*suspended)(void *ctx, struct err *err);
	/* The final round went over in full. took_ms is its time. */
	void (*sent)(void *ctx, uint64_t bytes, uint64_t took_ms);
};

/* What the leg gives dest_receive. */
struct hypervisor_receive {
	void *ctx;
	/* Receives exactly count bytes; blocks; -1: the stream is dead. */
	int (*read)(void *ctx, void *bytes, size_t count, struct err *err);
};

struct hypervisor_ops {
	const char *name; /* sim, xen */

	int (*open)(struct hypervisor **ret_hv, const struct paths *paths, struct err *err);
	void (*close)(struct hypervisor *hv);

	/* VMs with their disks and NICs, memory of the host. SRs and networks are the agent's configuration, not
	 * filled; a disk's SR is "" where the driver does not know of SRs. */
	int (*inventory)(struct hypervisor *hv, struct msg_inventory *ret_inv, struct err *err);

	/* Every VM on this host in whatever state, none left out, with its disks. *ret_vms is malloc'ed, the caller's.
	 */
	int (*vms)(struct hypervisor *hv, struct hypervisor_vm **ret_vms, size_t *ret_count, struct err *err);
	/* Brings a destruction that was begun to its end; the disks' files stay. ERR_CONFLICT: the VM is not being
	 * destroyed, and was left alone. Done if it is gone. */
	int (*destroy_end)(struct hypervisor *hv, const uuid_bytes uuid, struct err *err);

	/* ---- source ---- */
	/* ERR_UNKNOWN_VM if it is not here. Changes nothing. */
	int (*source_open)(struct hypervisor *hv, const uuid_bytes uuid, struct hypervisor_source **ret_source,
	                   struct err *err);
	void (*source_close)(struct hypervisor_source *source); /* lets go; the VM stays as it is */
	int (*source_disks)(struct hypervisor_source *source, struct hypervisor_disk *ret_disks,
	                    unsigned *count /* in: room */, struct err *err);
	/* Live rounds, suspend, final round, state. Returns 0 with the VM suspended and all sent; -1 otherwise, and
	 * then source_is_suspended() says how it stands. Never resumes by itself. */
	int (*source_send)(struct hypervisor_source *source, const struct hypervisor_send *send, struct err *err);
	void (*source_cancel)(struct hypervisor_source *source);
	/* 1 suspended, 0 running, -1 unknown. */
	int (*source_is_suspended)(struct hypervisor_source *source, struct err *err);
	/* Running again, for certain, when it returns 0. Idempotent. Ends dirty logging and throttling. ERR_UNKNOWN_VM:
	 * it has ended by itself, for certain (shut down or crashed inside, destroyed by hand). */
	int (*source_resume)(struct hypervisor_source *source, struct err *err);
	/* All that the VM was told is written is in its image files, metadata of the format included. It may run or be
	 * suspended. Blocks until the flush is done. Thread-safe. NULL: this driver cannot, and qcow2 is refused. */
	int (*source_flush)(struct hypervisor_source *source, struct err *err);
	/* Takes `percent` of its speed from the guest (0: none). */
	int (*source_throttle)(struct hypervisor_source *source, unsigned percent, struct err *err);
	/* Destroys the VM and forgets its record; its disks' files stay. Done if it is gone already. Idempotent. */
	int (*source_destroy)(struct hypervisor *hv, const uuid_bytes uuid, struct err *err);

	/* ---- destination ---- */
	/* Room for the VM: claims memory, makes it, empty and paused, under the plan's new name; not startable by
	 * others. Idempotent for the same migration. */
	int (*dest_create)(struct hypervisor *hv, const struct msg_plan *plan, uint64_t migration,
	                   struct hypervisor_dest **ret_dest, struct err *err);
	/* Finds the one that dest_create made (a leg that was started again); ERR_UNKNOWN_VM if it is not there. */
	int (*dest_find)(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration,
	                 struct hypervisor_dest **ret_dest, struct err *err);
	void (*dest_close)(struct hypervisor_dest *dest);
	/* Before dest_receive: where the disks are that dest_attach will be called with. They exist, are not opened,
	 * and are still written by others. NULL: this driver need not know. */
	int (*dest_images)(struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count,
	                   struct err *err);
	/* Takes the whole stream, verifies its digest against what is in the VM's memory. 0: memory and state are
	 * complete. */
	int (*dest_receive)(struct hypervisor_dest *dest, const struct hypervisor_receive *receive, struct err *err);
	void (*dest_cancel)(struct hypervisor_dest *dest);
	/* Opens the images in the VM's block backend, through it in the VM. After this nothing that can fail is left.
	 */
	int (*dest_attach)(struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count,
	                   struct err *err);
	/* Runs, for certain, when it returns 0. On -1: dest_state() says. Idempotent. */
	int (*dest_unpause)(struct hypervisor_dest *dest, struct err *err);
	/* 1: runs or ran, 0: built and never ran, -1: unknown. */
	int (*dest_state)(struct hypervisor_dest *dest, struct err *err);
	/* The VM that was made for `migration` is this host's own from here on, though its memory is gone: it is booted
	 * from its disks as one that was shut down. Done if it has run here. Idempotent. ERR_UNKNOWN_VM if it is not
	 * here. */
	int (*dest_adopt)(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err);
	/* Destroys the VM that is not to run here, and its block backend. Done if it is gone. Idempotent. */
	int (*dest_destroy)(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err);
};

extern const struct hypervisor_ops hypervisor_sim;
/* The driver that this program is linked with. */
extern const struct hypervisor_ops *const hypervisor_driver;

#endif
