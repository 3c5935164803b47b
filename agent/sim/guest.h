/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside of drover-guest: one simulated VM.
 *
 * Laws
 *  1. What moves (tick counter, memory) is in the memory and the state blob, nothing else: a guest that was migrated
 * goes on with the next tick.
 *  2. A tick: memory is written, disks are written, the disks' answers come, the ledger gets its line. In that order.
 *  3. A page's bit in the dirty log is set after the page was written.
 *  4. The guest never leaves its block backend while that matters: QEMU 7.2 aborts when the client of an export in an
 *     iothread goes. So: flush, then `quit` over QMP, and only then are the connections closed.
 *  5. One worker thread writes memory and talks to the disks; before it is started and after it has ended the main
 * thread may. All other fields are under `lock` unless they are atomic.
 */
#ifndef DROVER_GUEST_H
#define DROVER_GUEST_H

#include <jansson.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/hypervisor/sim_record.h"
#include "agent/sim/pattern.h"
#include "common/paths.h"
#include "common/proc.h"

/* What is true. */
enum guest_state {
	GUEST_INCOMING = 1, /* memory is being filled in by a leg */
	GUEST_LOADED,       /* memory and state are complete */
	GUEST_ATTACHED,     /* the disks are open and connected; nothing is left but to run */
	GUEST_RUNNING,
	GUEST_SUSPENDED, /* between two ticks, all disk writes answered and flushed */
	GUEST_FAILED,    /* a disk failed: it hangs, as a VM does */
	GUEST_ENDING,    /* it will never run again in this process */
};
const char *guest_state_name(enum guest_state state);

struct guest_disk {
	struct nbd_handle *nbd; /* NULL: read-only, the guest does not open it */
	unsigned writes;        /* in flight */
	bool flushing;
	int failed; /* errno of a request */
};

struct guest {
	struct paths paths;
	struct sim_record record;
	struct pattern pattern;
	int memory_fd, bitmap_fd, ledger_fd, end_fd, listen_fd;
	unsigned char *memory;
	_Atomic uint64_t *bitmap;
	size_t bitmap_bytes;
	_Atomic unsigned log_on; /* 0 or 1; read and written with read-modify-write only, see guest_tick.c */
	_Atomic uint64_t tick;   /* the last one that ran */
	struct proc_id backend;  /* pid 0: none */
	unsigned disk_count;     /* writable ones */
	struct guest_disk disks[PATTERN_DISKS];
	unsigned char *blocks; /* buffer of a tick's disk writes */
	uint64_t block_room;
	int record_fd; /* incoming and attached: the record, open for the last change */
	int64_t record_offset;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* state or a wish; CLOCK_MONOTONIC */
	enum guest_state state;
	bool want_suspend, want_end;
	uint64_t flushes_wanted, flushes_done; /* by others, who wait; equal: nobody does */
	unsigned throttle_percent;
	pthread_t worker;
	bool worker_started;
};

/* guest.c: life. */
int guest_open(struct guest *guest, const struct paths *paths, const char *name, struct err *err);
/* For a VM of this host: memory as after its last tick, disks attached; ready to run. */
int guest_boot(struct guest *guest, struct err *err);
/* Waits for the worker to end, ends the backend, takes the files under run/ away. */
void guest_end(struct guest *guest);
/* Takes over what a state blob says. */
int guest_load(struct guest *guest, const json_t *state, struct err *err);
json_t *guest_save(const struct guest *guest);

/* guest_tick.c: the worker. */
int guest_worker_start(struct guest *guest, struct err *err);
/* Memory as it is after `tick`, from nothing. */
int guest_rebuild(struct guest *guest, uint64_t tick, struct err *err);
/* The last tick of this guest in this host's ledger; 0 if there is none. */
int guest_ledger_last(const struct guest *guest, uint64_t *ret_tick, struct err *err);
int guest_ledger_open(struct guest *guest, struct err *err);

/* guest_disk.c: block backend. */
int guest_backend_start(struct guest *guest, struct err *err);
/* Opens the disks of the record in the backend and connects. */
int guest_disks_attach(struct guest *guest, struct err *err);
/* Writes the blocks of `tick` and waits for the answers. Worker (or before it). */
int guest_disks_write(struct guest *guest, uint64_t tick, struct err *err);
int guest_disks_fill(struct guest *guest, struct err *err);
/* Starts a flush after the last one has ended: called each PATTERN_CHECK_TICKS. */
int guest_disks_flush_begin(struct guest *guest, struct err *err);
/* All that was answered is on stable storage when it returns. */
int guest_disks_flush(struct guest *guest, struct err *err);
/* Whether the connections are up, as far as one can tell without I/O. */
bool guest_disks_alive(struct guest *guest);
void guest_backend_end(struct guest *guest);

/* guest_control.c: the socket. */
int guest_control_open(struct guest *guest, struct err *err);
/* Serves until somebody has it end. */
void guest_control_run(struct guest *guest);

#endif
