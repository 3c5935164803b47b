/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated world: one process, one thread, virtual time. A production coordinator and production agents with their
 * databases run in it, and the production code of the legs but for the streams; time, network, processes, disks, guests
 * and the hypervisor are simulated. Everything that happens follows from the seed.
 *
 * Laws
 *  1. Whatever has an effect outside a process goes through a function here, and has none once that process is dying:
 *     killed in the middle of what it does, at a write of its journal. What is left of it is then thrown away.
 *  2. Events happen in the order of (time, order of making). Nothing asks the real clock or real randomness.
 *  3. The first broken promise ends the run.
 */
#ifndef DROVER_SIM_WORLD_H
#define DROVER_SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/agent_conf.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/paths.h"
#include "common/proc.h"
#include "proto/msg.h"

#define MS 1000ll /* of virtual time, which is counted in microseconds */
#define SECOND (1000 * MS)

/* ---- time, chance, events: sched.c ---- */
extern int64_t world_now_us;
uint64_t chance_next(void);
/* 0 to below-1; 0 if below is 0. */
uint64_t chance_below(uint64_t below);
bool chance_ppm(unsigned per_million);
int64_t chance_us(int64_t least_us, int64_t most_us);

struct machine;
enum proc_kind { PROC_WORLD = 0, PROC_COORDINATOR, PROC_AGENT, PROC_LEG, PROC_EXPORTER, PROC_OPERATOR };

/* A process. Numbers are never used again; the struct stays until the end of the world. */
struct proc {
	unsigned pid, parent;
	enum proc_kind kind;
	struct machine *machine; /* NULL: the coordinator's and the operator's */
	bool alive, dying;
	int status; /* as waitpid() gives it */
	int64_t stalled_until_us;
	void *object;
	void (*end)(struct proc *proc); /* throws the object away; what it does has no effect on others */
	struct loop *loop;              /* NULL: none */
};
extern struct proc *world_current; /* whose code runs; NULL: the world's own */

struct proc *proc_new(enum proc_kind kind, struct machine *machine, void (*end)(struct proc *proc));
struct proc *proc_find(unsigned pid); /* NULL: there is none that lives */
unsigned proc_newest(void);
/* Ends it: at once, or after the event that it is in. */
void proc_end(struct proc *proc, int status);
/* The running process has been killed in the middle of something: nothing it does has an effect. */
bool proc_is_dying(void);

typedef void (*event_fn)(void *ctx, uint64_t arg);
/* Has fn run `after_us` from now, in the process `pid` if that lives (0: in none). `owned`: ctx is freed afterwards. */
void event_add(int64_t after_us, unsigned pid, event_fn fn, void *ctx, uint64_t arg, bool owned);
bool event_step(void); /* false: there is none left */
/* Runs fn in `proc` now. */
void proc_run_in(struct proc *proc, event_fn fn, void *ctx, uint64_t arg);
void world_events_free(void);
/* The end of the world: every process is thrown away, nobody is told. */
void world_quiet_end(void);

/* A line of the trace; all lines make the digest. */
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t trace_digest(void);
void trace_tail(void (*line)(void *ctx, const char *text), void *ctx);

/* The loop's side of simulated descriptors and children. */
void loop_fd_ready(unsigned pid, int fd);
void loop_child_ended(unsigned pid, pid_t child, int status);

/* ---- what is promised: promise.c ---- */
void promise_broken(const char *promise, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool promise_is_broken(void);
const char *promise_name(void);
const char *promise_text(void);

/* ---- faults: fault.c ---- */
enum fault {
	FAULT_LOSE = 0, /* a message */
	FAULT_DOUBLE,
	FAULT_DELAY,
	FAULT_REORDER,
	FAULT_CUT,      /* host and coordinator */
	FAULT_CUT_LEGS, /* two hosts */
	FAULT_BREAK,    /* a connection of two legs */
	FAULT_KILL_COORDINATOR,
	FAULT_KILL_AGENT,
	FAULT_KILL_LEG,
	FAULT_KILL_AT_WRITE, /* whoever writes his journal: before or after it */
	FAULT_POWER,         /* a host off, and on later */
	FAULT_GONE,          /* a host off, for ever */
	FAULT_JOURNAL,       /* lost while the host was off */
	FAULT_STALL,         /* a process stands still */
	FAULT_CLOCK,         /* a host's wall clock jumps */
	FAULT_DISK_FULL,
	FAULT_DISK_SLOW,
	FAULT_UNPAUSE, /* fails, or says so */
	FAULT_SUSPEND,
	FAULT_INVENTORY,
	FAULT_GUEST, /* ends by itself */
	FAULTS
};
const char *fault_name(enum fault fault);

/* Faults of the environment that no correct code can make up for: each must be found. */
enum plant {
	PLANT_NONE = 0,
	PLANT_IMPATIENT,  /* the hypervisor resumes a suspended VM after some seconds */
	PLANT_LIAR,       /* the hypervisor runs a VM and swears that it does not */
	PLANT_RUMOUR,     /* what the other leg says is altered: the VM is said to run there */
	PLANT_DIRTY_LOG,  /* writes are missing in the dirty log */
	PLANT_LATE_WRITE, /* a revoked exporter goes on writing */
	PLANT_LEAK,       /* a disk is said to be removed and stays */
	PLANT_AMNESIA,    /* a power cut takes what the journal has committed last */
	PLANTS
};
const char *plant_name(enum plant plant);
enum plant plant_from_name(const char *name); /* PLANTS: there is none */

struct scenario {
	uint64_t seed;
	unsigned hosts, pools, migrations, level;
	enum plant plant;
};

struct world {
	struct scenario scenario;
	bool show_trace;
	bool calm;   /* faults are over */
	bool closed; /* hosts that are gone are written off */
	char home[PATHS_MAX];
	unsigned machine_count;
	struct machine **machines;
	unsigned guest_count;
	struct guest **guests;
	struct proc *coordinator;
	uint64_t injected[FAULTS];
	uint64_t messages, commits;
};
extern struct world world;

void faults_begin(void);
void faults_heal(void);
/* Whether this fault happens here and now, at the rate of the world's level; counted. */
bool fault_happens(enum fault fault);
/* The VM leaves `from` for `to` at this moment: the worst time for anything to go wrong. */
void fault_at_switchover(struct machine *from, struct machine *to, unsigned from_leg, unsigned to_leg);
/* Whether a commit kills the one who makes it: before (1) or after (2) it; 0: no. */
int fault_at_commit(void);

/* ---- SQLite's files: vfs.c ---- */
int vfs_begin(struct err *err);
/* Planted: what the host has committed last is not there any more. */
void vfs_forget(const struct machine *machine);

/* ---- network: net.c ---- */
void net_client_links(struct machine *machine); /* a link was cut or healed */
void net_free(void);

/* ---- hosts: machine.c ---- */
#define CUT_SILENCE (10 * SECOND) /* after which either end of a connection of legs notices */

struct machine {
	unsigned index;
	char name[LIMIT_NAME];
	char boot_id[LIMIT_ID];
	unsigned boots;
	bool on, gone, hurt, amnesic; /* hurt: was off; amnesic: has lost its journal */
	struct paths paths;
	struct agent_conf *conf;
	struct proc *agent;
	int64_t wall_offset_ms;
	bool cut;             /* from the coordinator */
	int64_t *legs_cut_us; /* by machine: since when it is cut from it; 0: not */
	bool disk_full;
	unsigned slow; /* factor */
	uint64_t memory_bytes, disk_bytes;
	struct image *images;
	struct instance *instances;
};
struct machine *machine_find(const char *name);
int machines_make(struct err *err);
void machines_free(void);
void machine_power_off(struct machine *machine);
void machine_power_on(struct machine *machine);
void machine_lose_journal(struct machine *machine);
bool machines_legs_cut(const struct machine *a, const struct machine *b, int64_t *ret_since_us);
void machines_cut_legs(struct machine *a, struct machine *b, bool cut);
/* A process has ended: its parent hears of it, who watches over it starts it again. */
void machine_proc_ended(struct proc *proc);
struct agent *machine_agent(const struct machine *machine); /* NULL: it does not run */
struct coordinator *coordinator_running(void);              /* NULL: it does not run */
void coordinator_begin(void *unused, uint64_t arg);

/* ---- guests, their disks, the hypervisor: guest.c, hypervisor.c, storage.c ---- */
#define GUEST_DISKS 2
#define GUEST_BLOCKS 24
#define GUEST_BLOCK_BYTES (1u << 20)
#define GUEST_TICK (50 * MS)

/* A disk's file: for each block the tick that wrote it last. */
struct image {
	struct image *next;
	char path[LIMIT_PATH];
	uint64_t reserve_bytes; /* of PATH.reserve; 0: none */
	bool made;              /* else there is only the reserve */
	uint64_t now[GUEST_BLOCKS], durable[GUEST_BLOCKS];
};
struct image *image_find(const struct machine *machine, const char *path);
uint64_t storage_used(const struct machine *machine);
void storage_power_off(struct machine *machine);

enum instance_state { INSTANCE_RUNNING = 1, INSTANCE_PAUSED, INSTANCE_INCOMING };

struct bitmap {
	struct bitmap *next;
	uint64_t migration;
	unsigned disk;
	bool dirty[GUEST_BLOCKS];
};

/* A VM on a host. */
struct instance {
	struct instance *next;
	struct guest *guest;
	struct machine *machine;
	enum instance_state state;
	bool alive; /* false: the host was booted again, or it ended by itself; the record stays */
	bool complete, attached;
	uint64_t migration; /* that brought it */
	uint64_t tick;      /* in its memory */
	int64_t since_us;   /* running since, as of `tick` */
	char paths[GUEST_DISKS][LIMIT_PATH];
	struct bitmap *bitmaps;
};

/* A VM, wherever it is, and what it knows to be true of itself. */
struct guest {
	unsigned index;
	char name[LIMIT_NAME];
	uuid_bytes uuid;
	unsigned disks;
	struct instance *running;
	uint64_t last_tick;
	uint64_t written[GUEST_DISKS][GUEST_BLOCKS]; /* acknowledged */
	uint64_t flushed[GUEST_DISKS][GUEST_BLOCKS]; /* and on stable storage */
	bool ended;                                  /* died with its host, or by itself */
	bool ruled;                                  /* an operator may have it go on from what its source has */
	int64_t paused_us;                           /* since when; 0: it runs, or has ended */
};
void guests_make(void);
void guests_free(void);
struct guest *guest_by_uuid(const uuid_bytes uuid);
/* Lets it have done what it does until now. */
void instance_advance(struct instance *instance);
/* It runs from now on: everything it knows of itself must be true. */
void instance_run(struct instance *instance);
/* Every write that it was told is done is on its disks. */
void instance_check_disks(const struct instance *instance);
void instance_pause(struct instance *instance);
/* It does not run any more, and never will. */
void instance_die(struct instance *instance);
void instance_remove(struct instance *instance);
struct instance *instance_find(const struct machine *machine, const uuid_bytes uuid);
struct instance *instance_add(struct machine *machine, struct guest *guest, enum instance_state state);
struct bitmap *bitmap_find(const struct instance *instance, uint64_t migration, unsigned disk);

extern const struct hypervisor_ops world_hypervisor;
int hypervisor_inventory(const struct machine *machine, struct msg_inventory *ret_inventory);
int hypervisor_suspend(struct machine *machine, const uuid_bytes uuid, struct err *err);
/* One that somebody could still run; `whole`: for certain, not one that is coming in. */
bool guest_has_copy(const struct guest *guest, bool whole);
/* One of them is gone: was it the last? */
void guest_copy_gone(struct guest *guest);

/* What a source sends of one disk in one pass. */
struct shipment {
	unsigned count;
	unsigned char block[GUEST_BLOCKS];
	uint64_t tick[GUEST_BLOCKS];
};
/* Takes what is to be sent, and begins a new log. */
int storage_collect(struct machine *machine, const uuid_bytes uuid, uint64_t migration, unsigned disk, bool first,
                    struct shipment *ret_shipment, struct err *err);
unsigned storage_dirty(struct machine *machine, const uuid_bytes uuid, uint64_t migration, unsigned disk);
/* Arrives at the exporter of that leg and disk. -1: it is gone, or the disk is full. */
int storage_deliver(unsigned leg_pid, unsigned disk, const struct shipment *shipment, struct err *err);
bool storage_holds(unsigned leg_pid, unsigned disk, const struct shipment *shipment);
/* The exporters of a leg that has ended. */
void storage_leg_ended(unsigned leg_pid);

/* ---- legs: legs.c, wire.c, copy.c ---- */
struct wire;
/* Starts a leg process on the machine of the running one. */
struct proc *legs_start(uint64_t migration, uint32_t generation, enum side side, bool recover);
struct proc *legs_find(const struct machine *machine, uint64_t migration); /* one that listens; NULL: none */
unsigned legs_running(const struct machine *machine);
void legs_free(void);
void legs_connected(unsigned leg_pid, int fd);
void legs_hung_up(unsigned leg_pid, int fd);
void legs_packet(unsigned leg_pid, const void *bytes, size_t count);
/* Their ends of the connections with agents: agents.c */
bool agents_packet(int fd, const void *bytes, size_t count);
void agents_leg_ended(unsigned leg_pid);
void agents_free(void);
void wires_cut(struct machine *a, struct machine *b);
bool wires_break_one(void);
void wires_free(void);

/* ---- the operator: operator.c ---- */
int operator_begin(struct err *err);
bool operator_is_done(void);
int64_t operator_work_us(void); /* by then everything was asked for */
/* Whether what it was told was true: of what became of each migration. */
void operator_check(void);
/* Decides what is left to decide, and writes off the hosts that are gone. */
void operator_close(void);
void operator_print(void);
void operator_free(void);

/* ---- the end: records.c, leavings.c ---- */
/* A migration as the coordinator has it. */
struct record {
	uint64_t id;
	char state[LIMIT_NAME];
	bool final;
	uuid_bytes vm;
	struct machine *source, *destination;
};
/* Whether nothing is under way any more but what waits for hosts that are away. */
bool records_are_quiet(void);
/* malloc'ed, the caller's; by number. */
struct record *records_list(size_t *ret_count);
/* Whether somebody who takes part in it is away for good, or does not know it any more. */
bool record_is_orphaned(const struct record *record);
void records_check_rest(void); /* after enough time */
void records_check(void);
void records_print(void);
/* What is left on each host. */
void leavings_check(void);

#endif
