/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the agent share; for nobody else. */
#ifndef DROVER_AGENT_IMPL_H
#define DROVER_AGENT_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/agent.h"
#include "agent/journal.h"
#include "common/bus.h"

#define AGENT_HEARTBEAT_MIN_MS 50u /* whatever the coordinator asks for */
#define AGENT_HEARTBEAT_MAX_MS 60000u
#define AGENT_HELLO_RETRY_MS 5000u /* refused or not answered: say hello again */
#define AGENT_HOUSEKEEPING_MS 1000u
#define AGENT_SWEEP_MS 10000        /* kept disks whose time is over, leftovers */
#define AGENT_STALL_MS 5000         /* no housekeeping for so long: we slept, not the coordinator */
#define AGENT_PROBE_MS 3000         /* while there are sessions, or trouble: can the journal be written? */
#define INVENTORY_INTERVAL_MS 3000u /* between runs of the leg program's inventory */
#define INVENTORY_LIMIT_MS 20000u   /* a leg program that takes longer is killed */
#define SURVEY_LIMIT_MS 90000u      /* the same, for one that looks for leftovers and may take them away */
#define QUERY_OPTIONS_MAX 4         /* beside the home directory */
#define LEG_POLL_MS 50u             /* between tries to reach a leg that does not listen yet */
#define LEG_ADOPT_MS 1000           /* after a start of the agent, before a leg is started that was not journaled */
#define LEG_STARTS_PER_MINUTE 5     /* of one session; after that */
#define LEG_SLOW_START_MS 15000     /* it is tried this often, for ever */
#define LEG_LOGS_KEPT 100           /* run/leg-N.log; the oldest beyond that go when a leg starts */
#define LEG_LOGS_SEEN 400

/* One migration on this host, as in the journal, and what only this process knows. */
struct session {
	struct agent *agent;
	struct session *next;
	struct journal_session row;
	struct msg_plan *plan; /* of the row; zeroed if there is none */
	bool journaled;        /* the row is in the journal */
	bool dirty;            /* the row differs from the journal in more than the core */
	bool unsaved;          /* a write failed, and what became of the event with it is lost */
	bool doomed;           /* dropped; freed when nobody walks the list */
	/* the leg */
	int leg_fd; /* -1: not connected */
	bool start_wanted, start_recover;
	unsigned starts; /* since starts_since_ms */
	int64_t starts_since_ms, start_after_ms;
	/* the event that is being handled */
	enum step event_step;
	uint64_t event_sequence;
	struct err refusal;  /* of the checks or of the leg: why a step is refused */
	unsigned checks_run; /* the inventory run whose result the checks wait for; 0: none */
	uint32_t check_count;
	struct msg_check checks[LIMIT_CHECKS];
};

/* A dry run: checks without a session. */
struct dry_run {
	struct dry_run *next;
	unsigned checks_run;
	uint64_t migration, sequence;
	uint32_t generation;
	enum side side;
	struct msg_plan plan;
};

/* A run of the leg program that prints something: one at a time of each kind. */
struct query {
	struct agent *agent;
	const char *mode;  /* its first argument */
	unsigned limit_ms; /* it is killed after that */
	/* It has ended: `bytes` has what it printed, unless `failure` has a code. It may be started again from there.
	 */
	void (*done)(struct agent *agent, const struct err *failure);
	pid_t pid;          /* 0: none running */
	int fd;             /* its output; -1: none */
	bool exited, ended; /* the process, its output */
	int status;
	int limit_timer;
	unsigned char *bytes; /* LIMIT_FRAME_BYTES */
	size_t count;
};

struct inventory {
	struct msg_inventory now;   /* what is announced; SRs and amounts after claims */
	uint64_t memory_free_bytes; /* as the hypervisor says, before claims */
	bool valid;
	struct err err; /* of the newest run */
	unsigned run;   /* number of the newest run that was started */
	bool again;     /* asked for while one was running */
	struct query query;
};

/* What the coordinator asks about leftovers. */
struct survey {
	struct query query;
	bool known; /* the newest that was asked: its number */
	uint64_t epoch, sequence;
	bool sweep;
	bool answered; /* with this, which is given again when it is asked again */
	struct msg_holdings holdings;
};

struct agent {
	struct loop *loop;
	struct paths paths;
	struct agent_conf conf;
	struct journal *journal;
	struct bus_client *bus;
	int lock_fd;
	char boot_id[LIMIT_ID];
	char leg_path[PATHS_MAX]; /* "": leg_err says why */
	struct err leg_err;
	/* coordinator */
	bool connected, welcomed;
	bool refused_logged;
	int64_t heard_ms; /* when the coordinator was heard last */
	unsigned heartbeat_ms;
	int heartbeat_timer, hello_timer, housekeeping_timer, inventory_timer, leg_timer;
	int64_t swept_ms, probed_ms, kept_house_ms;
	struct kept {
		int64_t id;             /* of the resource */
		uint64_t until_wall_ms; /* as journaled */
		int64_t due_ms;
	} * kept; /* disks that are kept for a time */
	size_t kept_count;
	struct err trouble;       /* of the journal, as logged last */
	struct err reserve_err;   /* why the journal has no reserve; ERR_NONE: it has, or wants none */
	bool failed;              /* the journal is damaged: the agent ends */
	unsigned leftovers;       /* as logged last */
	struct session *sessions; /* oldest first */
	unsigned walking;         /* somebody walks the list */
	struct dry_run *dry_runs;
	struct inventory inventory;
	struct survey survey;
	unsigned char *packet; /* LIMIT_FRAME_BYTES */
};

/* ---- control.c: the coordinator ---- */
int control_start(struct agent *agent, struct err *err);
void control_stop(struct agent *agent);
/* Sends to the coordinator with the envelope filled; being unreachable is no error: what matters is repeated. */
void control_send(struct agent *agent, struct msg *msg);
void control_heartbeat(struct agent *agent);
/* A zeroed message on the heap; never NULL (a daemon without a few KiB ends). */
struct msg *control_msg(enum msg_kind kind);
/* Answers a dry run. */
void control_answer_dry(struct agent *agent, const struct dry_run *dry, const struct msg_check *checks, uint32_t count,
                        const struct err *refusal);

/* ---- sessions.c ---- */
int sessions_load(struct agent *agent, struct err *err);
void sessions_free(struct agent *agent);
struct session *session_find(struct agent *agent, uint64_t migration, uint32_t generation);
struct session *session_add(struct agent *agent, uint64_t migration, uint32_t generation, enum side side);
unsigned sessions_count(const struct agent *agent);
/* Journals what became of it, then acts. */
void session_handle(struct session *session, const struct session_event *event);
/* Writes the row; -1 was logged. */
int session_save(struct session *session);
/* Reads the facts again (legs write them too); true if they are news. */
bool session_refresh_facts(struct session *session);
/* Adds to the facts what was heard, then EVENT_FACTS if it was news. */
void session_learn(struct session *session, const struct verdict_facts *heard, bool tell);
/* The first cause is kept. */
void session_cause(struct session *session, const struct err *cause);
void session_describe(const struct session *session, struct msg_session *ret);
void session_report(struct session *session);
/* Frees what was dropped while the list was walked. */
void sessions_walk(struct agent *agent, void (*fn)(struct session *session));

/* ---- legs.c ---- */
/* Takes care soon of legs that should be started or reached. */
void legs_kick(struct agent *agent);
void leg_send_step(struct session *session, enum step step);
void leg_tell_facts(struct session *session);
void leg_disconnect(struct session *session);
/* Reaches for the leg anew: it then says again what it said last. */
void leg_reconnect(struct session *session);
/* A child of ours ended; true if it was a leg. */
bool legs_child(struct agent *agent, pid_t pid, int status);

/* ---- process.c: the leg program; tests put simulated processes in its place ---- */
/* Starts the leg of this session, fills row.leg. Does not wait for it. */
int process_leg_start(struct session *session, struct err *err);
/* A connection to the leg of this migration that listens, which may be another one than was started: non-blocking, one
 * encoded message a packet; the caller's. -1: there is none, or it is not ours. */
int process_leg_connect(struct agent *agent, uint64_t migration, struct proc_id *ret_leg);
/* Whether some leg of this migration listens, or has not taken its socket away: one that the journal does not know of
 * was started by a journal that is gone. */
bool process_leg_listens(const struct agent *agent, uint64_t migration);
bool process_alive(const struct proc_id *leg);
/* Descriptors from here. None of them blocks: -1 and EAGAIN. */
int process_send(int fd, const void *packet, size_t bytes);
ssize_t process_read(int fd, void *buffer, size_t room);
void process_hang_up(int fd);
void process_close(int fd);
/* Starts the leg program in a mode that prints something, with these options (NULL-ended; NULL: none); *ret_fd gives
 * what it prints. Its end is told by the loop. */
int process_query_start(struct agent *agent, const char *mode, const char *const options[], int *ret_fd, pid_t *ret_pid,
                        struct err *err);
void process_kill(pid_t pid);
/* ---- query.c ---- */
void query_init(struct query *query, struct agent *agent, const char *mode, unsigned limit_ms,
                void (*done)(struct agent *agent, const struct err *failure));
/* Starts the leg program in its mode with these options (NULL-ended; NULL: none). None may be running. */
int query_start(struct query *query, const char *const options[], struct err *err);
/* A child of ours ended; true if it was this one. */
bool query_child(struct query *query, pid_t pid, int status);
void query_end(struct query *query);

/* ---- survey.c ---- */
void survey_init(struct agent *agent);
/* Looks, and answers when it is done; answers again what it has answered; leaves out what comes while it is busy with
 * another: it will be asked again. */
void survey_asked(struct agent *agent, const struct msg *msg);
void survey_free(struct agent *agent);

/* ---- inventory.c ---- */
void inventory_init(struct agent *agent);
/* Starts a run, or another one after the running one. Returns the number of the run whose result is fresh. */
unsigned inventory_request(struct agent *agent);
/* Space and memory after claims, as of now. */
void inventory_amounts(struct agent *agent);
void inventory_free(struct agent *agent);

/* ---- keep.c ---- */
void keep_sweep(struct agent *agent);
/* Notes what is kept from now on: its time is counted from here, whatever the wall clock is set to later. */
void keep_note(struct agent *agent);
/* The files that a leg of this migration has left in run/, its log apart. If it lives it has the lock, and takes them
 * away itself. */
void keep_leg_files_remove(const struct agent *agent, uint64_t migration);

/* The checks of whoever waited for this run. */
void agent_run_checks(struct agent *agent);
/* Makes the journal's reserve if it was given up, and says in agent->reserve_err whether it is there. */
void agent_reserve(struct agent *agent);
int64_t agent_now_ms(void);

#endif
