/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who owns the VM: the two-of-three verdict, rules V1-V13 of docs/PROTOCOL.md, as pure functions.
 *
 * Laws
 *  1. Facts only grow: a vote that was cast never changes, a flag that was set is never unset.
 *  2. This is the only place that decides whether a party may vote, resume, activate, renounce or release.
 *     Coordinator, agents and legs, the tests, the explorer and the simulator run this object file.
 *  3. No I/O, no clock, no heap, no globals.
 *  4. Whoever does what verdict_due() says journals it first.
 */
#ifndef DROVER_VERDICT_H
#define DROVER_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

enum party { PARTY_COORDINATOR = 0, PARTY_SOURCE = 1, PARTY_DESTINATION = 2, PARTIES = 3 };

enum vote { VOTE_NONE = 0, VOTE_COMMIT = 1, VOTE_ABORT = 2 };

/* What is known of one generation of one migration. Each field is a fact with one author, and spreads. */
struct verdict_facts {
	enum vote vote[PARTIES]; /* author: that party */
	bool suspended;          /* S: journaled before it asked the hypervisor to suspend the VM */
	bool stream_ended; /* S: journaled before the end of stream is sent: D may hold a whole copy from here on */
	bool resumed;      /* S: the VM runs here again, for certain */
	bool released;     /* S: the suspended VM is gone from here */
	bool activating;   /* D: journaled before the unpause: counts as having run */
	bool running;      /* D: the VM runs here, for certain */
	bool renounced;    /* D: never ran this VM and never will */
	enum vote ruling; /* C, for an operator who declared the other host powered off: COMMIT: D owns the VM; ABORT: S
	                   * does. It stands above the votes */
};

/* What one party sees about itself; not a fact for others. */
struct verdict_local {
	bool granted;              /* S, D: the coordinator granted the switchover */
	bool complete;             /* D: whole copy, verified, devices attached, flushed, write path closed (V4) */
	bool failed;               /* S, D: the stream or the copy failed, or the leg that did it died */
	bool abort_asked;          /* S, D: the coordinator asked for an abort (cancel, deadline, peer unreachable) */
	bool image_gone;           /* S, D: the host rebooted, or the VM's image is otherwise gone */
	bool unpause_failed;       /* D: the unpause failed for certain, the VM never ran and is destroyed (V7) */
	bool unreachable[PARTIES]; /* C: nobody hears from that party (a suspicion, never proof) */
	bool journal_lost; /* this party's journal was lost: it does not vote in what it no longer knows (V11) */
};

/* What a party has to do now; a set. At most one of CAST_COMMIT and CAST_ABORT is ever in it. */
enum verdict_duty {
	DUTY_CAST_COMMIT = 1 << 0,
	DUTY_CAST_ABORT = 1 << 1,
	DUTY_RESUME = 1 << 2,   /* S: let the VM run here again (V8) */
	DUTY_RELEASE = 1 << 3,  /* S: destroy the suspended VM, let go of its disks (V10) */
	DUTY_ACTIVATE = 1 << 4, /* D: journal `activating`, then unpause (V6) */
	DUTY_RENOUNCE = 1 << 5, /* D: journal `renounced`, then discard (V7) */
};

/* What the votes that are known decide, or an operator's ruling. VOTE_NONE: nothing yet. */
enum vote verdict_of(const struct verdict_facts *facts);

/* May `self` cast `vote` now? Rules V1-V5, V11. False for VOTE_NONE and for a second vote that differs; casting
 * the same vote again is allowed and changes nothing. */
bool verdict_may_cast(enum party self, enum vote vote, const struct verdict_facts *facts,
                      const struct verdict_local *local);

/* V8: may the source let the VM run again? */
bool verdict_may_resume(const struct verdict_facts *facts);
/* V12, for a disk that only one host may hold open at a time (exclusive volume activation); copied disks need neither.
 * May the source let go of it now? It must have, before it sends the end of stream. */
bool verdict_may_let_go(const struct verdict_facts *facts);
/* V12: may the source take such a disk back, to resume? Beyond what V8 asks: the destination opens it only after the
 * end of stream, so once that may have been sent, it must have renounced, or be fenced (`destination_fenced`: known to
 * be powered off, by a fence agent or an operator). */
bool verdict_may_take_back(const struct verdict_facts *facts, bool destination_fenced);
/* V10: may the source let go of the VM? Or the destination was about to run it and an operator ruled that it owns it.
 */
bool verdict_may_release(const struct verdict_facts *facts);
/* V6: may the destination journal `activating` and unpause? */
bool verdict_may_activate(const struct verdict_facts *facts);
/* V7: may the destination renounce? */
bool verdict_may_renounce(const struct verdict_facts *facts, const struct verdict_local *local);

/* What `self` has to do now, as a set of enum verdict_duty; 0: wait. Deterministic, total. Doing it and recording
 * the fact it makes true removes it from the set. */
unsigned verdict_due(enum party self, const struct verdict_facts *facts, const struct verdict_local *local);

/* Adds what `heard` knows to `facts` (V9). Returns true if anything was new. A vote that contradicts the one
 * known is not taken over, and *ret_conflict is set to true (the peer is broken or lies); otherwise it is left alone.
 */
bool verdict_learn(struct verdict_facts *facts, const struct verdict_facts *heard, bool *ret_conflict);

/* Who owns the VM, as operators are shown it: "source", "destination", "undecided". Static string. */
const char *verdict_authority(const struct verdict_facts *facts);

/* "commit", "abort", or NULL for VOTE_NONE (JSON null). Static string. */
const char *vote_name(enum vote vote);
/* "coordinator", "source", "destination". Static string. */
const char *party_name(enum party party);

#endif
