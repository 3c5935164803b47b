/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The messages of drover as plain C structs: what coordinator, agents, legs and clients say to each other.
 *
 * Laws
 *  1. proto/codec*.c are the only files that know protobuf-c. Whoever holds a `struct msg` holds checked values:
 *     every length, range and enum was verified by msg_decode(), strings are NUL-terminated UTF-8 without control
 *     characters, counts are within common/limits.h.
 *  2. Unknown fields are ignored (they are how the format grows); a missing required field is an error.
 *  3. A received frame over LIMIT_FRAME_BYTES is refused before anything is allocated for it.
 *  4. A `struct msg` from msg_decode() may own heap memory (lists that are too long for an array): msg_free() it.
 *     A struct that a sender fills may point to the sender's own lists; msg_encode() only reads.
 *
 * Every request that leaves a process ends as done, refused or unknown; nobody but the one who was asked may turn
 * "unknown" into either of the others, so the wire only knows how to say done and refused with certainty.
 */
#ifndef DROVER_MSG_H
#define DROVER_MSG_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/verdict.h"

#define PROTOCOL_VERSION 1u     /* what we speak */
#define PROTOCOL_VERSION_MIN 1u /* the oldest that we still speak */

enum role { ROLE_NONE = 0, ROLE_COORDINATOR, ROLE_AGENT, ROLE_OPERATOR, ROLE_SUBMITTER, ROLE_VIEWER, ROLES };
const char *role_name(enum role role);      /* "agent", ...; "none" */
enum role role_from_name(const char *name); /* ROLE_NONE if unknown */

/* The side of a migration that a host is on. */
enum side { SIDE_SOURCE = 1, SIDE_DESTINATION = 2 };
const char *side_name(enum side side);      /* "source", "destination" */
enum side side_from_name(const char *name); /* 0 if there is no such name */
enum party party_of(enum side side);

enum outcome { OUTCOME_UNKNOWN = 0, OUTCOME_DONE = 1, OUTCOME_REFUSED = 2 };
const char *outcome_name(enum outcome outcome);

/* What the coordinator has a host do for a migration, in the order of a migration that goes well. The order is
 * the order of the numbers: an agent refuses a step older than the highest it has journaled for the generation,
 * except that ABORT, RELEASE and FORGET may follow any. */
enum step {
	STEP_NONE = 0,
	STEP_CHECK = 1,   /* run the pre-checks; unless dry_run, journal the claim (memory, space, name) */
	STEP_PREPARE = 2, /* D: claim memory, make and export disks, listen; both: leg up, certificate made */
	STEP_COPY = 3,    /* connect the legs and copy until the rest fits the downtime; answered when it has begun */
	STEP_SWITCH = 4,  /* the switchover is granted; answered when journaled */
	STEP_ABORT = 5,   /* S, D: vote or roll back if the rules allow; done: nothing is held any more */
	STEP_RELEASE =
		6, /* S: destroy the suspended VM, keep or drop its disks; D: let go of what only copying needed */
	STEP_FORGET = 7, /* the record is final: the journal may drop the session (what is kept stays on record) */
	STEPS
};
const char *step_name(enum step step);

enum vm_state { VM_RUNNING = 1, VM_PAUSED = 2, VM_SUSPENDED = 3, VM_HALTED = 4 };
const char *vm_state_name(enum vm_state state);

enum disk_format { FORMAT_RAW = 1, FORMAT_QCOW2 = 2 };
const char *disk_format_name(enum disk_format format);
/* 0 if there is no such format. */
enum disk_format disk_format_from_name(const char *name);

enum on_slow { ON_SLOW_WAIT = 1, ON_SLOW_THROTTLE = 2, ON_SLOW_FORCE = 3, ON_SLOW_ABORT = 4 };
const char *on_slow_name(enum on_slow policy);
enum on_slow on_slow_from_name(const char *name); /* 0 if unknown */

enum exporter_kind { EXPORTER_NBD = 1, EXPORTER_ISCSI = 2 };
const char *exporter_name(enum exporter_kind kind);
enum exporter_kind exporter_from_name(const char *name); /* 0 if unknown */

typedef unsigned char uuid_bytes[16];

struct msg_disk {
	char name[LIMIT_NAME]; /* xvda */
	char sr[LIMIT_NAME];   /* SR it is on; in a plan for the destination: the SR it goes to */
	enum disk_format format;
	uint64_t size_bytes;      /* virtual size */
	uint64_t allocated_bytes; /* what is not a hole; an estimate */
	uint32_t read_only;       /* 0 or 1 */
};

struct msg_nic {
	char mac[24]; /* aa:bb:cc:dd:ee:ff */
	char bridge[LIMIT_NAME];
};

struct msg_vm {
	uuid_bytes uuid;
	char name[LIMIT_NAME];
	enum vm_state state;
	uint64_t memory_bytes;
	uint32_t vcpus;
	uint32_t disk_count;
	struct msg_disk disks[LIMIT_DISKS];
	uint32_t nic_count;
	struct msg_nic nics[LIMIT_NICS];
	char refusal[LIMIT_REASON]; /* why it cannot be migrated; "": nothing is known against it */
};

struct msg_sr {
	char name[LIMIT_NAME];
	char type[LIMIT_NAME];           /* dir */
	enum disk_format format;         /* what new disks are made as */
	uint64_t size_bytes, free_bytes; /* free: after what is claimed by sessions */
};

struct msg_inventory {
	uint64_t digest;                          /* XXH3 of the rest, as encoded; the same as heartbeats carry */
	uint64_t memory_bytes, memory_free_bytes; /* free: after claims */
	char hypervisor[LIMIT_NAME];              /* sim, xen */
	char software[LIMIT_NAME];                /* drover version */
	uint32_t sr_count;
	struct msg_sr srs[LIMIT_SRS];
	uint32_t network_count;
	char networks[LIMIT_NETWORKS][LIMIT_NAME];
	uint32_t vm_count;  /* <= LIMIT_VMS */
	struct msg_vm *vms; /* heap when decoded */
};

/* Said first on every connection, and again after each reconnect. Clients leave the host fields empty. */
struct msg_hello {
	uint32_t version_min, version_max; /* protocol versions spoken */
	char software[LIMIT_NAME];
	char host[LIMIT_NAME]; /* agents: must be the host that the key is authorised for */
	char pool[LIMIT_NAME];
	char boot_id[LIMIT_ID];
	char journal_id[LIMIT_ID]; /* V11 */
	uint64_t max_epoch;        /* highest coordinator epoch this journal has seen */
};

struct msg_welcome {
	uint32_t version; /* the protocol version to use from here on */
	char cluster_id[LIMIT_ID];
	char software[LIMIT_NAME];
	uint32_t heartbeat_ms; /* send a heartbeat that often */
};

/* One session as its agent sees it; in heartbeats and reports. Facts are re-sent until all know them (V9). */
enum session_phase { /* coarse, for people and for the coordinator's core; finer states stay in the agent */
	             PHASE_NONE = 0,
	             PHASE_CHECKED,
	             PHASE_PREPARED,
	             PHASE_COPYING,
	             PHASE_READY /* the rest fits the downtime */,
	             PHASE_SWITCHING,
	             PHASE_COMMITTED,
	             PHASE_RELEASED,
	             PHASE_ROLLING_BACK,
	             PHASE_ROLLED_BACK,
	             PHASES
};
const char *session_phase_name(enum session_phase phase);

struct msg_session {
	uint64_t migration;
	uint32_t generation;
	enum side side;
	enum session_phase phase;
	struct verdict_facts facts;
	struct err cause;            /* the first error of this session; code ERR_NONE if none */
	uint64_t kept_until_wall_ms; /* Unix time; source: its disks are kept until then, destination: what was copied;
	                                0: nothing is */
	struct msg_budget {          /* measured downtime, by part; meaningful once running/resumed */
		uint32_t total_ms, suspend_ms, final_memory_ms, final_disk_ms, verify_ms, votes_ms, activate_ms;
	} budget;
};

struct msg_heartbeat {
	uint64_t inventory_digest;
	uint32_t session_count;       /* <= LIMIT_SESSIONS */
	struct msg_session *sessions; /* heap when decoded */
	uint32_t leftovers; /* resources in its journal that nobody works on and that are not kept on purpose */
	struct err trouble; /* why the agent can do nothing now (its journal cannot be written); ERR_NONE: none */
};

struct msg_heartbeat_ack {
	uint32_t heartbeat_ms;   /* from now on send one that often; 0: as before */
	uint32_t want_inventory; /* 1: digest differs from what the coordinator has: send an inventory */
};

/* The plan: what both hosts are told about a migration; sent with CHECK and PREPARE. */
struct msg_plan {
	struct msg_vm vm;          /* disks with the SOURCE's SR and format; bridges of the source */
	char new_name[LIMIT_NAME]; /* name on the destination */
	char source[LIMIT_NAME], destination[LIMIT_NAME]; /* hosts */
	struct msg_disk to[LIMIT_DISKS];                  /* same order as vm.disks: SR and format on the destination */
	char bridges[LIMIT_NICS][LIMIT_NAME];             /* same order as vm.nics: bridge on the destination */
	uint32_t max_downtime_ms;
	uint64_t bandwidth_bps; /* bytes a second over all streams; 0: no limit */
	enum on_slow on_slow;
	uint32_t timeout_s; /* for the copy; 0: none */
	uint64_t keep_source_s;
	uint32_t dry_run;     /* CHECK only: claim nothing */
	uint64_t keep_copy_s; /* after a failure the destination keeps what was copied that long; 0: not at all */
	uint32_t take_source; /* 1: the destination may copy over whole disks that it kept as a source (undo) */
};

/* coordinator -> agent -> leg. The envelope carries migration, generation, epoch and sequence. */
struct msg_command {
	enum step step;
	enum side side;
	struct msg_plan *plan;           /* CHECK, PREPARE: required; else NULL. Heap when decoded */
	char peer_fingerprint[LIMIT_ID]; /* COPY: SHA-256 of the other leg's certificate, lower-case hex */
	char peer_endpoint[LIMIT_ID];    /* COPY to the source: host:port or [v6]:port of the destination leg */
	enum err_code reason;            /* ABORT: why (cancelled, timeout, peer-lost, ...) */
	char reason_text[LIMIT_TEXT];
};

struct msg_check {
	char name[LIMIT_NAME]; /* "memory", "space local", "name free" */
	uint32_t ok;           /* 0 or 1 */
	char text[LIMIT_TEXT]; /* what was found; what to do if not ok */
};

/* agent -> coordinator (and leg -> agent): how a command ended. Repeats the command's sequence in the envelope. */
struct msg_answer {
	enum step step;
	enum side side;
	enum outcome outcome;       /* DONE or REFUSED; UNKNOWN never travels */
	struct err cause;           /* REFUSED: why */
	char fingerprint[LIMIT_ID]; /* PREPARE done: of this side's leg */
	char endpoint[LIMIT_ID];    /* PREPARE done by the destination */
	uint32_t check_count;
	struct msg_check checks[LIMIT_CHECKS]; /* CHECK */
	struct msg_session session;            /* the session after the command; phase NONE if there is none */
};

/* What migrations have left on a host. The numbers are also those of enum resource_kind of the journal. */
enum holding_kind {
	HOLDING_DISK = 1,    /* a disk image of a storage repository */
	HOLDING_RESERVE,     /* a file that holds space for one */
	HOLDING_EXPORT,      /* an exporter: its processes, its directory */
	HOLDING_VM,          /* a VM that was coming in, or being destroyed */
	HOLDING_BITMAP,      /* bitmaps and nodes in a VM's block backend */
	HOLDING_SOURCE_DISK, /* a disk of a VM that has left */
	HOLDING_FILE,        /* a socket, pid or lock file in the run directory */
	HOLDING_LEG,         /* a leg's process */
	HOLDING_KINDS
};
const char *holding_kind_name(enum holding_kind kind);

enum holding_state {
	HOLDING_UNCLAIMED = 1, /* no journal and no VM knows it */
	HOLDING_LEFTOVER,      /* journaled, but nobody works on it any more */
	HOLDING_KEPT,          /* there on purpose */
	HOLDING_STATES
};

struct msg_holding {
	enum holding_kind kind;
	enum holding_state state;
	uint64_t migration;  /* by its name or the journal; 0: cannot be told */
	uint32_t generation; /* 0: not known */
	char name[LIMIT_NAME];
	char path[LIMIT_PATH];
	uint64_t kept_until_wall_ms; /* 0: not kept, or without end */
	uint32_t swept;              /* 1: taken away in this run */
	char error[LIMIT_PATH];      /* it was to be taken away, and was not: why */
};

/* What the coordinator's records say of a migration that has nothing more to do on a host. */
enum over {
	OVER_UNKNOWN = 1, /* there is no such record */
	OVER_ABORTED,     /* this host was its destination, and the source owns the VM: the copy is nobody's */
	OVER_OTHER,       /* over in another way: what it copied here, if anything, may be the VM's own */
	OVERS
};
const char *over_name(enum over over);
enum over over_from_name(const char *name); /* 0 if unknown */

/* coordinator -> agent: look at what the host really holds. Repeated with the same sequence until it is answered. */
struct msg_survey {
	uint32_t sweep; /* 1: take away what nobody claims, if it is of one of these */
	uint32_t over_count;
	struct msg_over {
		uint64_t migration;
		enum over over;
	} over[LIMIT_HOLDINGS];
};

/* agent -> coordinator: the answer, with the survey's sequence. */
struct msg_holdings {
	uint32_t sweep;   /* as it was asked */
	uint32_t cut;     /* 1: there is more than fits the list */
	struct err cause; /* the host could not be looked at, or not at all of it; ERR_NONE: the list is whole */
	uint32_t count;   /* <= LIMIT_HOLDINGS */
	struct msg_holding *list; /* heap when decoded */
};

struct msg_disk_progress {
	char name[LIMIT_NAME];
	uint64_t size_bytes, copied_bytes, zero_bytes, left_bytes;
	uint32_t pass;
	uint64_t reused_bytes; /* found at the destination already, from an earlier copy, and not sent */
};

/* Lossy: only the newest counts. */
struct msg_progress {
	char phase[16]; /* connect, disk, memory, ready, switch, verify */
	uint32_t pass;
	uint64_t bytes_total, bytes_done, bytes_left, rate_bps, dirty_bps, eta_ms;
	uint64_t wire_bytes;       /* sent over the network so far, all streams */
	uint32_t throttle_percent; /* how much of its speed the guest is denied now */
	uint64_t memory_total_bytes, memory_sent_bytes, memory_dirty_bytes;
	uint32_t memory_pass;
	uint32_t disk_count;
	struct msg_disk_progress disks[LIMIT_DISKS];
};

/* Client API. The answer's body is a JSON document as docs/CLI.md describes it. */
enum verb {
	VERB_STATUS = 1,
	VERB_MIGRATE,
	VERB_LIST,
	VERB_SHOW,
	VERB_EXPLAIN,
	VERB_EVENTS,
	VERB_CANCEL,
	VERB_HOST_LIST,
	VERB_HOST_SHOW,
	VERB_VM_LIST,
	VERB_VM_SHOW,
	VERB_LEFTOVERS,
	VERB_RETRY, /* id, key: another attempt of one that failed or was cancelled */
	VERB_UNDO,  /* id, key: one that is done the other way */
	VERB_RESOLVE,
	VERB_HOST_FORGET,
	VERBS
};
const char *verb_name(enum verb verb);

struct msg_map {
	char from[LIMIT_NAME], to[LIMIT_NAME];
};

struct msg_request {
	enum verb verb;
	char vm[LIMIT_NAME];    /* UUID or name */
	char host[LIMIT_NAME];  /* filter; MIGRATE: --from */
	char id[LIMIT_ID];      /* migration number or key prefix */
	char state[LIMIT_NAME]; /* LIST filter */
	uint32_t all;           /* LIST: final ones too */
	uint64_t after;         /* LIST: ids above it; EVENTS: event numbers above it */
	/* MIGRATE */
	char to[LIMIT_NAME], pool[LIMIT_NAME], new_name[LIMIT_NAME], key[LIMIT_ID];
	uint32_t disk_map_count, sr_map_count, network_map_count;
	struct msg_map disk_map[LIMIT_MAPS], sr_map[LIMIT_MAPS], network_map[LIMIT_MAPS];
	uint32_t max_downtime_ms; /* 0: the coordinator's default */
	uint64_t bandwidth_bps;   /* 0: no limit */
	uint32_t timeout_s;       /* 0: default */
	enum on_slow on_slow;     /* 0: default */
	int64_t keep_source_s;    /* -1: default */
	int64_t keep_copy_s;      /* -1: default */
	int32_t priority;
	uint32_t dry_run;
	/* RESOLVE, HOST_FORGET */
	enum side owner;         /* 0: not told */
	char fenced[LIMIT_NAME]; /* the other host, which is powered off */
	char reason[LIMIT_REASON];
	uint32_t sweep; /* LEFTOVERS: take away what nobody claims */
};

struct msg_reply {
	enum err_code code;    /* ERR_NONE: as asked */
	char text[LIMIT_TEXT]; /* what failed: why; what to do */
	uint32_t exit_code;    /* of docs/CLI.md */
	char *json;            /* heap when decoded; NULL if none; <= LIMIT_JSON_BYTES */
};

enum msg_kind {
	MSG_HELLO = 1,
	MSG_WELCOME,
	MSG_HEARTBEAT,
	MSG_HEARTBEAT_ACK,
	MSG_INVENTORY,
	MSG_COMMAND,
	MSG_ANSWER,
	MSG_REPORT /* a session whose facts, phase or cause changed */,
	MSG_PROGRESS,
	MSG_FACTS /* facts for a session, to an agent or a leg: V9 relays */,
	MSG_REQUEST,
	MSG_REPLY,
	MSG_ERROR /* refused on the connection level: version, role, key; text says why */,
	MSG_SURVEY,
	MSG_HOLDINGS,
	MSG_KINDS
};
const char *msg_kind_name(enum msg_kind kind);

struct msg {
	uint32_t version;   /* protocol version of this frame */
	uint64_t epoch;     /* coordinator epoch: the sender's if it is the coordinator, else highest known */
	uint64_t migration; /* 0: not about a migration */
	uint32_t generation;
	uint64_t sequence; /* commands: unique and growing per epoch; answers and replies repeat it */
	enum msg_kind kind;
	union {
		struct msg_hello hello;
		struct msg_welcome welcome;
		struct msg_heartbeat heartbeat;
		struct msg_heartbeat_ack heartbeat_ack;
		struct msg_inventory inventory;
		struct msg_command command;
		struct msg_answer answer;
		struct msg_session report;
		struct msg_progress progress;
		struct verdict_facts facts;
		struct msg_request request;
		struct msg_reply reply;
		struct err error;
		struct msg_survey survey;
		struct msg_holdings holdings;
	} u;
};

/* Packs `msg`. *ret_frame is malloc'ed and the caller's to free. Fails (ERR_PROTOCOL) if the message breaks the rules
 * that msg_decode() checks or the frame would be over LIMIT_FRAME_BYTES: what we send can be read. Words for people
 * (texts of errors, checks and replies) are no reason to fail: what may not travel in them is replaced as it is packed.
 */
int msg_encode(const struct msg *msg, void **ret_frame, size_t *ret_bytes, struct err *err);

/* Unpacks and checks one frame. Fails with ERR_PROTOCOL (the text names the field) or ERR_VERSION; never asserts,
 * costs at most LIMIT_DECODE_BYTES of heap. On success the caller owns what *ret_msg holds: msg_free(). */
int msg_decode(const void *frame, size_t bytes, struct msg *ret_msg, struct err *err);

/* Frees what a decoded message owns, not the struct; harmless on a zeroed one. */
void msg_free(struct msg *msg);

/* A plan on its own, for journals and the database (same format, same checks). */
int msg_plan_encode(const struct msg_plan *plan, void **ret_blob, size_t *ret_bytes, struct err *err);
int msg_plan_decode(const void *blob, size_t bytes, struct msg_plan *ret_plan, struct err *err);

/* An inventory on its own, as a leg's `inventory` mode prints it. Free with msg_inventory_free(). */
int msg_inventory_encode(const struct msg_inventory *inv, void **ret_blob, size_t *ret_bytes, struct err *err);
int msg_inventory_decode(const void *blob, size_t bytes, struct msg_inventory *ret_inv, struct err *err);
void msg_inventory_free(struct msg_inventory *inv);
/* Holdings on their own, as a leg's `survey` mode prints them. Free with msg_holdings_free(). */
int msg_holdings_encode(const struct msg_holdings *holdings, void **ret_blob, size_t *ret_bytes, struct err *err);
int msg_holdings_decode(const void *blob, size_t bytes, struct msg_holdings *ret_holdings, struct err *err);
void msg_holdings_free(struct msg_holdings *holdings);
/* XXH3 over everything but `digest` itself and the free amounts (which move all the time). */
uint64_t msg_inventory_digest(const struct msg_inventory *inv);

#endif
