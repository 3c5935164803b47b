/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hypervisor_xen: what must be known of a VM when neither its domain nor the leg that dealt with it is there any more.
 * Xen itself knows only domains. lib/xen/UUID.vm is made for a VM before it comes in, and stays as long as it is this
 * host's, so that its disks are claimed while it is shut down; and for one whose destruction has begun. Knows no libxl.
 *
 * A file is a word of fixed width, the state, and then JSON. A new one is written as a whole (temporary file, fsync,
 * rename, fsync of the directory); the state alone is changed in place, for the downtime has no room for more.
 * Whoever adds, removes or judges records by each other holds xen_record_lock().
 */
#ifndef DROVER_XEN_RECORD_H
#define DROVER_XEN_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/hypervisor/hypervisor.h"

enum xen_state {
	XEN_INCOMING = 1, /* made for a migration; its domain, if there is one, is not whole and never ran */
	XEN_BUILT,        /* its domain is whole, paused and never ran */
	XEN_RUNNING,      /* this host's: it was unpaused here, or is about to be this very moment */
	XEN_LEAVING,      /* being destroyed, never to be run here again */
};
const char *xen_state_name(enum xen_state state);

struct xen_record {
	enum xen_state state;
	uuid_bytes uuid;
	char name[LIMIT_NAME]; /* as it is to be called here */
	uint64_t migration;    /* that brought it; 0: none */
	uint64_t memory_bytes; /* that it needs of the host */
	unsigned disk_count;
	struct hypervisor_image disks[LIMIT_DISKS]; /* path "": not known yet */
};

/* 1 if there is one, 0 if there is none, -1 if that cannot be told. */
int xen_record_seek(const struct paths *paths, const uuid_bytes uuid, struct xen_record *ret_record, struct err *err);
/* All of them, in no order; *ret_list is malloc'ed, the caller's. A damaged one fails the call. */
int xen_record_list(const struct paths *paths, struct xen_record **ret_list, size_t *ret_count, struct err *err);
/* Durable on return. */
int xen_record_save(const struct paths *paths, const struct xen_record *record, struct err *err);
/* Durable on return. Done if it is gone. */
int xen_record_remove(const struct paths *paths, const uuid_bytes uuid, struct err *err);
/* Changes the state of a saved record in place; `sync`: durable on return. */
int xen_record_mark(const struct paths *paths, const uuid_bytes uuid, enum xen_state state, bool sync, struct err *err);

/* Waits for the lock over all records; returns a descriptor: close it to let go. -1 on error. */
int xen_record_lock(const struct paths *paths, struct err *err);

#endif
