/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One migration as a world that can be copied: coordinator, two hosts, what is under way between them. What decides in
 * it is the daemons' own object files (migration, session, leg_rules, verdict); what is here is what they run in: the
 * journals, the shells, the hypervisors, the network and what fails.
 */
#ifndef DROVER_EXPLORE_WORLD_H
#define DROVER_EXPLORE_WORLD_H

#include <stdbool.h>

#include "agent/core/leg_rules.h"
#include "agent/core/session.h"
#include "common/verdict.h"
#include "coordinator/core/migration.h"

enum { S = 0, D = 1 }; /* hosts */

/* Causes as far as anything goes by them. */
enum cause { CAUSE_NONE = 0, CAUSE_CANCELLED, CAUSE_OTHER };

struct coordinator {
	struct migration_core core;
	bool dead;           /* for ever */
	bool over;           /* nothing is owed any more: the record is only in the database */
	bool cancelled;      /* somebody was answered "cancelled" */
	bool too_late;       /* somebody was answered "too late" */
	bool hello[2];       /* that host has to say hello before it is heard */
	bool new_boot[2];    /* which the hello will tell */
	bool new_journal[2]; /* which the hello will tell */
	unsigned sent[2];    /* commands that were sent, a bit a step: each may come at any time, any number of times */
	unsigned done[2];    /* answers on their way, a bit a step */
	unsigned refused[2];
	unsigned unknown[2]; /* refused, since that session is over and forgotten */
};

/* The VM as a host's hypervisor has it. */
enum image { IMAGE_NONE = 0, IMAGE_PARTIAL /* D: made, not all of it has come */, IMAGE_PAUSED, IMAGE_RUNNING };

/* How far the conductor is with COPY. */
enum copy {
	COPY_NONE = 0,
	COPY_BEGUN,      /* told to; not connected */
	COPY_LIVE,       /* copying */
	COPY_SUSPENDING, /* S: `suspended` is journaled */
	COPY_SUSPENDED,  /* S: the VM is suspended, all but the end of stream is sent */
	COPY_ENDED,      /* S: `stream_ended` is journaled; D: the end of stream came */
	COPY_OVER,       /* the job has ended, well or badly */
};

/* A leg process. */
struct leg {
	bool lives;
	struct leg_view view;
	bool caused;  /* it has a first error to tell */
	bool ending;  /* an orphan: leaves when nothing is held */
	bool vm_done; /* JOB_VM is done and not journaled yet */
	enum copy copy;
	enum step last;                  /* newest command */
	unsigned pending, done, refused; /* commands, a bit a step */
	unsigned out;                    /* answers that the agent has not read yet */
};

struct host {
	/* the journal */
	bool row;                 /* it has the session */
	bool forgotten;           /* it had it */
	bool lost;                /* it is another journal than the one that the migration began with */
	struct session_core core; /* leg_up is not journaled; without `row` all of it is only in memory */
	struct verdict_facts facts;
	enum cause cause;
	unsigned kept_done, kept_refused; /* answers that are given again */
	bool pid;                         /* a leg was started */
	bool old_boot;                    /* the session was made under another boot */
	bool holds;                       /* things made for the migration are listed in it */
	bool giving_back;                 /* D: the VM cannot be unpaused, never ran and is being destroyed */
	/* the agent, while it lives */
	bool connected; /* to the leg */
	bool away;      /* it was restarted, and has not reached its leg yet */
	bool start_wanted, start_recover;
	bool checks; /* pre-checks run */
	struct leg leg;
	enum image vm;
	bool dead;   /* for ever */
	bool failed; /* it was rebooted, or lost its journal: what it had may be gone with that */
};

enum link { LINK_NONE = 0, LINK_UP, LINK_DOWN };

/* What is so, whoever knows it, and what may still go wrong. */
struct outside {
	enum link link; /* stream 0 */
	bool cut[2];    /* for ever: C from that host */
	bool cut_legs;  /* for ever: S from D */
	bool cannot_unpause;
	unsigned faults, nuisances; /* left */
	struct verdict_facts truth; /* what was ever journaled by its author */
	bool ran;                   /* the VM ran on D, if only for an instant */
};

struct world {
	struct coordinator c;
	struct host h[2];
	struct outside o;
	const char *broken; /* the law that the step just made has broken */
};

enum { PARTS = 4 }; /* coordinator, S, D, outside: kept each by itself */

enum when {
	CALM,     /* a step of the protocol, at any time */
	EAGER,    /* the same, but done as soon as it is possible (README.md says why that is enough) */
	NUISANCE, /* costs one: nothing fails, but somebody is late, impatient, wrong or restarted */
	FAULT,    /* costs one */
};

/* A step that may be possible. */
struct step_rule {
	const char *name;
	bool (*take)(struct world *w, int i, unsigned arg); /* false: not possible now, nothing was changed */
	int i;                                              /* host, where there is one */
	unsigned arg;                                       /* what the rule's own code says */
	enum when when;
};
/* All of them, NULL-terminated list of lists. */
extern const struct step_rule *const step_rules[];

static inline enum side side_of(int i)
{
	return i == S ? SIDE_SOURCE : SIDE_DESTINATION;
}

static inline void broken(struct world *w, const char *law)
{
	if (!w->broken)
		w->broken = law;
}

void world_init(struct world *w, unsigned faults, unsigned nuisances);

/* ---- coordinator.c ---- */
extern const struct step_rule coordinator_rules[];
/* Whether host i and the coordinator can hear each other. */
bool c_hears(const struct world *w, int i);
/* Host i has answered: the answer is on its way. */
void c_answered(struct world *w, int i, enum step step, enum outcome outcome, enum err_code code);

/* ---- agent.c ---- */
extern const struct step_rule agent_rules[];
void agent_event(struct world *w, int i, struct session_event event); /* session_handle() */
/* The process ends and another starts. */
void agent_restart(struct world *w, int i);
/* A command of the coordinator comes. */
void agent_command(struct world *w, int i, enum step step);
void agent_cause(struct host *h, enum cause cause);

/* ---- leg.c, copy.c ---- */
extern const struct step_rule leg_rules[];
extern const struct step_rule copy_rules[];
void leg_spawn(struct world *w, int i, bool recover);
void leg_end(struct world *w, int i); /* the process is gone, however */
void leg_command(struct world *w, int i, enum step step);
void leg_learn(struct world *w, int i, const struct verdict_facts *news);
void leg_greet(struct host *h);
void leg_fail(struct world *w, int i);
void leg_answer(struct host *h, enum step step, bool done);
/* The conductor is free. */
bool leg_idle(const struct host *h);
/* Journals one flag as journal_flag() does; false: the rules forbid it. */
bool leg_flag(struct world *w, int i, struct verdict_facts flag);

/* ---- faults.c ---- */
extern const struct step_rule fault_rules[];

/* ---- laws.c ---- */
/* NULL, or the law that is broken in w. `before` is the state that it came from, NULL for the first. */
const char *law_broken(const struct world *before, const struct world *w);
/* The migration has come to its end, or to where only a party that is gone for ever could bring it on. */
bool law_at_rest(const struct world *w);

/* ---- pack.c ---- */
#define PART_BYTES 40
/* A part of the world as bytes, the same for the same; and back. */
void pack(const struct world *w, int part, unsigned char ret_bytes[PART_BYTES]);
void unpack(struct world *w, int part, const unsigned char bytes[PART_BYTES]);

/* ---- describe.c ---- */
/* One line of the world. */
void describe(const struct world *w, char *text, unsigned bytes);

#endif
