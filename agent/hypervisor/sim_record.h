/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The records of simulated VMs on one host: lib/vms/NAME.json, one for each VM that is here, is coming in, or is being
 * taken away. Written as a whole (temporary file, fsync, rename, fsync of the directory), so that a crash leaves the
 * old one or the new one. Whoever adds or removes one holds sim_record_lock().
 */
#ifndef DROVER_SIM_RECORD_H
#define DROVER_SIM_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/paths.h"
#include "proto/msg.h"

#define SIM_MEMORY_MIN ((uint64_t)1 << 20)
#define SIM_MEMORY_MAX ((uint64_t)1 << 40)
#define SIM_TICK_MS_MAX 60000u
#define SIM_MEMORY_HOST ((uint64_t)16 << 30) /* of a simulated host, unless etc/sim.json says otherwise */

enum sim_state {
	SIM_RUNNING = 1, /* this host's VM: it runs, or is to be started when it does not */
	SIM_INCOMING,    /* being received; never ran here; nobody may start it */
	SIM_DESTROYING,  /* being taken away; never to be started again */
};
const char *sim_state_name(enum sim_state state);

struct sim_disk {
	char name[LIMIT_NAME];
	char sr[LIMIT_NAME];
	char path[LIMIT_PATH]; /* "" while incoming and not attached */
	enum disk_format format;
	uint64_t size_bytes;
	bool read_only;
};

struct sim_record {
	enum sim_state state;
	uuid_bytes uuid;
	char name[LIMIT_NAME];  /* of the VM on this host; names files and sockets */
	char guest[LIMIT_NAME]; /* in the ledger: stays when the VM is renamed; "" while incoming */
	uint64_t migration;     /* that brought it here; 0: made here */
	uint64_t memory_bytes;
	uint32_t vcpus;
	uint64_t seed;
	uint32_t tick_ms;
	uint64_t dirty_bps, write_bps;
	uint32_t fill_percent;
	uint64_t tick; /* run already when it came to be here; the ledger may know of later ones */
	unsigned disk_count;
	struct sim_disk disks[LIMIT_DISKS];
	unsigned nic_count;
	struct msg_nic nics[LIMIT_NICS];
};

/* Letters, digits, '.', '_', '-', not '.' first: fit to be a file's name. */
bool sim_name_ok(const char *name);

/* ERR_UNKNOWN_VM if there is none, ERR_CORRUPT if it cannot be understood (the text names the file). */
int sim_record_load(const struct paths *paths, const char *name, struct sim_record *ret_record, struct err *err);
/* 1 if there is one, 0 if there is none, -1 if that cannot be told. */
int sim_record_seek(const struct paths *paths, const uuid_bytes uuid, struct sim_record *ret_record, struct err *err);
/* As sim_record_load, by uuid. */
int sim_record_find(const struct paths *paths, const uuid_bytes uuid, struct sim_record *ret_record, struct err *err);
/* All of them, in no order; *ret_list is malloc'ed, the caller's. A damaged one fails the call. */
int sim_record_list(const struct paths *paths, struct sim_record **ret_list, size_t *ret_count, struct err *err);
/* Durable on return. */
int sim_record_save(const struct paths *paths, const struct sim_record *record, struct err *err);
/* Done if it is gone. Durable on return. */
int sim_record_remove(const struct paths *paths, const char *name, struct err *err);

/* Takes away what writers that were killed have left unfinished. The caller holds sim_record_lock(). */
int sim_record_sweep(const struct paths *paths, struct err *err);

/* Turns a saved record from "incoming" into "running" in place: one write and an fdatasync on a file that is open
 * already, for the downtime has no room for more. open: the record as saved must be incoming. */
int sim_record_open(const struct paths *paths, const char *name, int *ret_fd, int64_t *ret_offset, struct err *err);
int sim_record_activate(int fd, int64_t offset, struct err *err);

/* A lock over all records of a host, waited for; returns a descriptor: close it to let go. -1 on error. */
int sim_record_lock(const struct paths *paths, struct err *err);

/* Memory of the simulated host. */
int sim_host_memory(const struct paths *paths, uint64_t *ret_bytes, struct err *err);

#endif
