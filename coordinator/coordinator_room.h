/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What coordinator*.c and api*.c share. */
#ifndef DROVER_COORDINATOR_ROOM_H
#define DROVER_COORDINATOR_ROOM_H

#include "common/bus.h"
#include "coordinator/coordinator.h"
#include "coordinator/core/migration.h"
#include "coordinator/store.h"

#define TICK_MS 50                 /* how exact deadlines and retries are */
#define HEARTBEAT_MAX_MS 60000u    /* of any number of hosts */
#define STALL_MS 2000              /* no tick for so long: we slept (suspended, stopped), not the hosts */
#define START_GRACE_MS 5000        /* after a start, agents get that much longer to be heard */
#define INVENTORY_REFRESH_MS 60000 /* free amounts move without a new digest: ask again that often */
#define HOST_SEEN_SAVE_MS 60000    /* how often a host's last sign of life is written down */
#define LEFTOVERS_MAX 8            /* questions about leftovers at a time */
#define LEFTOVERS_LOOK_MS 45000    /* for all hosts to look */
#define LEFTOVERS_SWEEP_MS 100000  /* and then to take away; longer than a host gives itself */
#define DRY_RUNS_MAX 64
#define DRY_RUN_FIRST_ID (1ull << 60) /* numbers of dry runs: never those of migrations */

struct host {
	struct store_host rec;
	enum reach reach;
	bool given_up;
	uint32_t heartbeat_ms; /* the longest period that it was told */
	bool reconciled;       /* has told its sessions since its hello: only then it gets new work */
	uint32_t leftovers;    /* in its newest heartbeat */
	bool has_peer;         /* said hello on the connection `peer` */
	struct bus_peer peer;
	int64_t heard_ms, seen_saved_ms;
	bool has_inventory, want_inventory;
	int64_t inventory_ms; /* when it came; INT64_MIN: from the database */
	struct msg_inventory inventory;
	uint32_t session_count; /* in its newest heartbeat */
	struct err trouble;     /* there too: it is connected, but counts as not heard of */
};

/* What one side was asked and has not answered yet. */
struct pending {
	enum step step; /* STEP_NONE: nothing */
	uint64_t sequence;
	int64_t since_ms;
	uint32_t tries;  /* of this, or of telling it the facts */
	int64_t next_ms; /* when it is told again */
};

/* A migration that is not over, or owes something to a host. */
struct run {
	struct store_migration rec;
	struct msg_plan plan;
	struct pending pending[2];
	int64_t deadline_ms; /* 0: none */
	int64_t claimed_ms;  /* when the destination's claim was heard of; 0: not yet */
	int64_t state_ms;    /* since when it is in this state */
	bool has_progress;
	struct msg_progress progress;
	bool dirty; /* what the core does not know has changed in `rec` */
	bool over;  /* nothing is owed any more: swept at the next tick */
};

struct dry_run {
	uint64_t id; /* 0: free */
	struct bus_peer peer;
	uint64_t sequence; /* of the request */
	struct msg_plan plan;
	uint64_t asked[2]; /* sequences of the two commands */
	bool answered[2];
	struct msg_answer answer[2];
	int64_t deadline_ms, next_ms;
};

/* One host's part in a question about leftovers. */
struct leftovers_host {
	char name[LIMIT_NAME];
	bool waiting;                 /* its answer may come */
	bool told;                    /* it has answered, once at least */
	uint64_t sequence;            /* of what it was asked last */
	int64_t next_ms;              /* when it is asked again */
	struct msg_survey *sweep;     /* the second question, NULL: the first; heap */
	struct msg_holdings holdings; /* its newest answer; heap */
};

struct leftovers {
	struct bus_peer peer;
	uint64_t sequence;     /* of the request */
	char host[LIMIT_NAME]; /* "": all */
	bool sweep;
	int64_t deadline_ms;
	size_t count;
	struct leftovers_host *hosts;
};

struct coordinator {
	struct loop *loop;
	const struct paths *paths;
	const struct clock *clock;
	struct settings settings;
	struct store *store;
	struct bus_server *bus;
	int tick;
	uint64_t sequence;   /* of the last command */
	struct host **hosts; /* by name */
	size_t host_count;
	struct run **runs; /* by id */
	size_t run_count, run_room;
	struct dry_run *dry[DRY_RUNS_MAX];
	uint64_t dry_count; /* ever */
	struct leftovers *leftovers[LEFTOVERS_MAX];
	bool admit; /* the queue is to be looked at */
	bool failed;
	struct err failure; /* why */
	int64_t started_wall_ms;
	int64_t ticked_ms;    /* the newest tick; 0: none yet */
	uint64_t watchdog_ms; /* systemd's; 0: none */
	int64_t watchdog_next_ms;
};

/* ---- coordinator.c ---- */
int64_t coordinator_now_ms(const struct coordinator *c);
int64_t coordinator_wall_ms(const struct coordinator *c);
/* A write failed or somebody else writes: the loop is stopped, nothing more is done. */
void coordinator_fail(struct coordinator *c, const struct err *err);
/* Fills version, epoch and kind. */
struct msg coordinator_msg(const struct coordinator *c, enum msg_kind kind);
/* Makes our epoch higher than one that an agent has seen. False: it failed, and so did the coordinator. */
bool coordinator_raise_epoch(struct coordinator *c, uint64_t seen, const char *by);
/* What time brings: suspicions, deadlines, retries. */
void coordinator_tick(struct coordinator *c);
/* Events that concern no migration. */
void coordinator_note(struct coordinator *c, const char *host, const char *kind, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* What came over the bus. */
void coordinator_on_message(void *ctx, const struct bus_peer *peer, const struct msg *msg);
int coordinator_reply(struct coordinator *c, const struct bus_peer *peer, uint64_t sequence,
                      const struct msg_reply *reply);

/* ---- coordinator_hosts.c ---- */
int hosts_load(struct coordinator *c, struct err *err);
void hosts_free(struct coordinator *c);
struct host *host_find(const struct coordinator *c, const char *name); /* NULL: unknown */
/* Out of the list; `host` is freed. */
void host_remove(struct coordinator *c, struct host *host);
/* Connected, and its heartbeats come. */
bool host_is_up(const struct host *host);
/* Whether a version of the protocol is spoken here and there; if not, the peer is told which ones are. */
bool hosts_speak(struct coordinator *c, const struct bus_peer *peer, const struct msg_hello *hello);
void hosts_hello(struct coordinator *c, const struct bus_peer *peer, const struct msg *msg);
void hosts_heartbeat(struct coordinator *c, struct host *host, const struct msg *msg);
void hosts_inventory(struct coordinator *c, struct host *host, const struct msg *msg);
/* Nobody could be heard for so long. */
void hosts_slept(struct coordinator *c, int64_t slept_ms);
void hosts_tick(struct coordinator *c, int64_t now_ms);
/* Connected, and has told what its journal holds since then: it may get new work. */
bool host_is_ready(const struct host *host);
/* How often agents have to say that they are there: as configured, or longer if there are many of them. */
uint32_t hosts_heartbeat_ms(const struct coordinator *c);
/* Asks for an inventory at once: what is free has changed. */
void host_ask_inventory(struct coordinator *c, struct host *host);
/* 0: it is on its way. */
int host_send(struct coordinator *c, struct host *host, const struct msg *msg);

/* ---- coordinator_runs.c, coordinator_run.c ---- */
int runs_load(struct coordinator *c, struct err *err);
void runs_free(struct coordinator *c);
struct run *run_find(const struct coordinator *c, uint64_t id); /* NULL: not under way */
/* Takes over a new record (its heap too). NULL: no memory. */
struct run *run_add(struct coordinator *c, const struct store_migration *rec, const struct msg_plan *plan);
/* Event in: core, store, actions. `words` are for the cause and the event row; NULL: made from the event. */
void run_event(struct coordinator *c, struct run *run, const struct migration_event *event, const char *words);
/* The same event for every run that has this host on one side. */
void runs_host_event(struct coordinator *c, const struct host *host, enum migration_event_kind kind, const char *words);
/* Compares boot and journal with those that the host's migrations began with. */
void runs_host_identity(struct coordinator *c, const struct host *host);
void runs_session(struct coordinator *c, struct host *host, const struct msg_session *session);
void runs_answer(struct coordinator *c, struct host *host, const struct msg *msg);
void runs_progress(struct coordinator *c, struct host *host, const struct msg *msg);
/* Nobody is late who could not be heard. */
void runs_slept(struct coordinator *c, int64_t now_ms);
void runs_tick(struct coordinator *c, int64_t now_ms);
void runs_admit(struct coordinator *c);
static inline const char *run_host(const struct store_migration *rec, enum side side)
{
	return side == SIDE_DESTINATION ? rec->destination : rec->source;
}

/* ---- coordinator_send.c ---- */
void run_send_command(struct coordinator *c, struct run *run, enum side side);
void run_tell_facts(struct coordinator *c, struct run *run, enum side side);

/* ---- coordinator_dry.c ---- */
/* 0: started, the reply comes later. ERR_BUSY: too many at a time. */
int dry_start(struct coordinator *c, const struct bus_peer *peer, uint64_t sequence, const struct msg_plan *plan,
              struct err *err);
bool dry_answer(struct coordinator *c, struct host *host, const struct msg *msg); /* true: it was for a dry run */
void dry_tick(struct coordinator *c, int64_t now_ms);
void dry_free(struct coordinator *c);

/* ---- coordinator_leftovers.c ---- */
/* 0: hosts are asked, the reply comes later. 1: there is nobody to ask, *ret_reply is filled. ERR_BUSY: too many at a
 * time. */
int leftovers_start(struct coordinator *c, const struct bus_peer *peer, uint64_t sequence,
                    const struct msg_request *request, struct msg_reply *ret_reply, struct err *err);
void leftovers_answer(struct coordinator *c, struct host *host, const struct msg *msg);
void leftovers_tick(struct coordinator *c, int64_t now_ms);
void leftovers_free(struct coordinator *c);

/* ---- api_leftovers.c ---- */
/* The answer with what is known by now (json is malloc'ed, the caller's). */
void api_leftovers_reply(struct coordinator *c, const struct leftovers *leftovers, struct msg_reply *ret_reply);

/* ---- api_show.c ---- */
/* The "progress" of a migration as JSON text, malloc'ed; NULL: no memory. */
char *api_progress_text(const struct msg_progress *progress);

/* ---- api.c ---- */
/* Answers a client's request, or starts a dry run that answers later. */
void api_request(struct coordinator *c, const struct bus_peer *peer, const struct msg *msg);
/* Fills *ret_reply (json is malloc'ed, the caller's). False: the reply comes later. */
bool api_answer(struct coordinator *c, const struct bus_peer *peer, uint64_t sequence,
                const struct msg_request *request, struct msg_reply *ret_reply);

#endif
