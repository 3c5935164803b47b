/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The switchover: two of three votes (V1 to V13 of the protocol), for SPIN. See README.md of this folder.
 *
 *   -DFAULTS=n     so many faults at most in a run (default 3)
 *   -DSTUCK        faults end some day; then nobody may be left waiting with the VM paused
 *   -DEXCLUSIVE    the disk is one that only one host may hold open (V12)
 *   -DMUTANT_x     one rule is dropped; the search must find a violation
 *   -DWITNESS=n    the search must reach a good end, which it reports as a violation
 */
#ifndef FAULTS
#define FAULTS 3
#endif

/* Parties and votes. */
#define C 0
#define S 1
#define D 2
#define NONE 0
#define COMMIT 1
#define ABORT 2
/* The VM on S and on D. */
#define RUN 0
#define PAUSED 1
#define GONE 2
#define PARTIAL 3 /* D only: not all of it has come */

/* ---- what is in the journals; survives everything but the loss of the journal ---- */
byte know[9];     /* know[p*3+q]: the vote of q as p knows it; of p itself: its journal. The rest is hearsay */
bit suspended;    /* S: journaled before the VM is suspended */
bit eos;          /* S: journaled before the end of stream is sent */
bit resumed;      /* S: the VM runs there again */
bit released;     /* S: the suspended VM is destroyed */
bit activating;   /* D: journaled before the unpause (V6) */
bit knows_run[3]; /* D runs the VM; of D: journal, of others: hearsay */
bit knows_ren[3]; /* D renounced; of D: journal, of others: hearsay */

/* ---- what is so, whoever knows it ---- */
byte vote[3]; /* as first cast: ghost, to see that votes never change and what the verdict is */
byte vm_s = RUN;
byte vm_d = PARTIAL;
bit complete;  /* D had the whole verified copy once: ghost */
bit ran;       /* the VM ran on D, if only for an instant: ghost */
bit broken;    /* the stream failed before D had it all */
bit cancelled; /* an operator's cancel, in C's journal */
#ifdef EXCLUSIVE
bit open_s = 1; /* S holds the disk */
bit open_d;     /* D holds the disk */
#endif

/* ---- faults ---- */
byte left = FAULTS;
bit dead[3];     /* for ever; the VM may live on unseen, so it keeps its state */
bit lost[3];     /* its journal was lost: it no longer knows of this migration (V11) */
bit cut[3];      /* for ever: 0 C-S, 1 C-D, 2 S-D */
bit rebooted_s;  /* its image of the VM is gone */
bit rebooted_d;
bit no_unpause;  /* the unpause fails for certain */
bit calm;        /* STUCK: no fault, no wrong belief and no free choice from here on */
#ifdef STUCK
byte must;       /* who has to end up with the VM after this one fault: ghost, S or D */
#endif

/* V11: whose journal was lost neither votes nor tells: for this migration it is as good as dead. */
#define alive(p) (!dead[p] && !lost[p])
#define up(p, q) (alive(p) && alive(q) && !cut[(p) + (q) - 1])

/* C's belief that a party is unreachable may be wrong at any time, and comes true some day when it is right. */
#define suspects(p) (!calm || !up(C, p))
/* C asks for an ABORT: cancel, or the peer unreachable. */
#define asked_s (up(C, S) && (cancelled || suspects(D)))
#define asked_d (up(C, D) && (cancelled || suspects(S)))

#define count(p, v) ((know[(p) * 3] == v) + (know[(p) * 3 + 1] == v) + (know[(p) * 3 + 2] == v))
#define verdict(v) ((vote[C] == v) + (vote[S] == v) + (vote[D] == v) >= 2)
#define vote_of(p) know[(p) * 4]
#define heard(p, q) know[(p) * 3 + (q)]
#define heard_abort_s (heard(S, C) == ABORT || heard(S, D) == ABORT)
#define heard_abort_d (heard(D, C) == ABORT || heard(D, S) == ABORT)

/* ---- what a mutant drops: the weaker form, then the rule ---- */
#ifdef MUTANT_V1 /* S votes COMMIT without having heard D's */
#define V1_HEARD true
#else
#define V1_HEARD (heard(S, D) == COMMIT)
#endif
#ifdef MUTANT_V2 /* S votes ABORT by itself and resumes at once, also after the end of stream */
#define V2_BEFORE_END true
#else
#define V2_BEFORE_END (!eos)
#endif
#ifdef MUTANT_V3B /* asked by C, S votes ABORT though it has heard D's COMMIT */
#define V3_NOT_HEARD true
#else
#define V3_NOT_HEARD (heard(S, D) != COMMIT)
#endif
#ifdef MUTANT_V3C /* asked by C, a rebooted S votes ABORT as if its image were there */
#define V3_IMAGE true
#else
#define V3_IMAGE (!rebooted_s)
#endif
#ifdef MUTANT_V4 /* D votes COMMIT for a part of a copy */
#define V4_WHOLE (vm_d == PAUSED || vm_d == PARTIAL)
#else
#define V4_WHOLE (vm_d == PAUSED)
#endif
#ifdef MUTANT_V6 /* its own COMMIT is enough for D */
#define V6_TWO true
#else
#define V6_TWO (count(D, COMMIT) >= 2)
#endif
#ifdef MUTANT_V6B /* D unpauses first and journals later */
#define V6_JOURNAL vm_d = RUN; ran = 1
#else
#define V6_JOURNAL activating = 1
#endif
#ifdef MUTANT_V7B /* D discards and says nothing */
#define V7_SAY skip
#define V7_TODO (vm_d != GONE)
#else
#define V7_SAY knows_ren[D] = 1
#define V7_TODO true
#endif
#ifdef MUTANT_V7C /* D renounces for others, but keeps the VM and its way */
#define V7_DISCARD skip
#define V7_NEVER true
#else
#define V7_DISCARD vm_d = GONE
#define V7_NEVER (!knows_ren[D])
#endif
#ifdef MUTANT_V8 /* S resumes on a time-out */
#define V8_ELSE (eos && !calm)
#else
#define V8_ELSE false
#endif
#ifdef MUTANT_V9B /* a restarted process asks nobody again */
bit deaf[3];
#define hears(p) (!deaf[p])
#else
#define hears(p) true
#endif
#ifdef MUTANT_V10 /* S releases on the verdict alone */
#define V10_RUNNING true
#else
#define V10_RUNNING knows_run[S]
#endif
#if defined(EXCLUSIVE) && !defined(MUTANT_V12) /* the mutant takes the disk back on two ABORTs */
#define V12_BACK (!eos)
#else
#define V12_BACK true
#endif

/* -DWITNESS=n: a good end that the model must be able to reach, so that it does not hold by doing nothing. */
#ifndef WITNESS
#define REACHED false
#elif WITNESS == 1 /* moved */
#define REACHED (released && vm_d == RUN && knows_run[C] && left == FAULTS)
#elif WITNESS == 2 /* an ABORT after the end of stream, S resumes on two votes */
#define REACHED (vm_s == RUN && eos && verdict(ABORT) && !knows_ren[D])
#elif WITNESS == 3 /* D runs on C's vote beside its own, S having died */
#define REACHED (vm_d == RUN && vote[S] == NONE && dead[S])
#elif WITNESS == 4 /* two COMMITs, D could not unpause, S resumes */
#define REACHED (vm_s == RUN && verdict(COMMIT) && no_unpause && activating)
#elif WITNESS == 5 /* C is dead, S and D finish by themselves */
#define REACHED (released && dead[C] && vote[C] == NONE && vm_d == RUN)
#elif WITNESS == 6 /* no S-D link: the votes go through C */
#define REACHED (released && vm_d == RUN && cut[2] && vote[C] == NONE)
#endif

/* After every step. */
inline check()
{
	assert(!REACHED);
	/* One VM. What is `activating` counts as having run (V6), also when its host is long dead. */
	assert(!(vm_s == RUN && vm_d == RUN));
	assert(!((vm_s == RUN || resumed) && (ran || (activating && !knows_ren[D]))));
	/* Renounced: never ran, never will (V7). */
	assert(!(knows_ren[D] && (ran || vm_d == RUN)));
	/* The verdict: one, for a whole copy, and S holds still unless D gave up. */
	assert(!(verdict(COMMIT) && verdict(ABORT)));
	assert(!verdict(COMMIT) || complete);
	assert(!verdict(COMMIT) || vm_s != RUN || knows_ren[D]);
	/* S's VM is not destroyed before D runs it (V10). */
	assert(!released || ran);
#ifdef EXCLUSIVE
	assert(!(open_s && open_d));
	assert(vm_s != RUN || open_s);
#endif
}

/* A vote is cast once and never changes. */
inline cast(p, v)
{
	assert(vote[p] == NONE || vote[p] == v);
	assert(vote_of(p) == NONE);
	vote[p] = v;
	vote_of(p) = v
}

/* V9: facts spread over every live link, relayed too. A copy at a moment of its own choice is loss, delay, reordering
 * and repetition in one. */
#define HEAR_VOTE(me, from, whose) \
	:: d_step { up(me, from) && hears(me) && heard(me, whose) == NONE && heard(from, whose) != NONE -> \
		heard(me, whose) = heard(from, whose); check() }
#define HEAR_FLAG(me, from, flag) \
	:: d_step { up(me, from) && hears(me) && !flag[me] && flag[from] -> flag[me] = 1; check() }
#ifdef MUTANT_V9
#define RELAY_VOTE(me, from, whose)
#define RELAY_FLAG(me, from, flag)
#else
#define RELAY_VOTE(me, from, whose) HEAR_VOTE(me, from, whose)
#define RELAY_FLAG(me, from, flag) HEAR_FLAG(me, from, flag)
#endif

active proctype Coordinator()
{
end:	do
	HEAR_VOTE(C, S, S)
	HEAR_VOTE(C, D, D)
	RELAY_VOTE(C, S, D)
	RELAY_VOTE(C, D, S)
	HEAR_FLAG(C, D, knows_run)
	HEAR_FLAG(C, D, knows_ren)
	RELAY_FLAG(C, S, knows_run)
	RELAY_FLAG(C, S, knows_ren)

	/* V5: C never votes first, it seconds whom it can hear. */
	:: d_step { alive(C) && vote_of(C) == NONE &&
		((heard(C, S) == COMMIT && suspects(D)) || (heard(C, D) == COMMIT && suspects(S))) ->
		cast(C, COMMIT); check() }
	:: d_step { alive(C) && vote_of(C) == NONE &&
		((heard(C, S) == ABORT && suspects(D)) || (heard(C, D) == ABORT && suspects(S))) ->
		cast(C, ABORT); check() }
#ifdef MUTANT_V5
	:: d_step { alive(C) && vote_of(C) == NONE && !calm -> cast(C, COMMIT); check() }
	:: d_step { alive(C) && vote_of(C) == NONE && !calm -> cast(C, ABORT); check() }
#endif
	od
}

active proctype Source()
{
end:	do
	HEAR_VOTE(S, C, C)
	HEAR_VOTE(S, D, D)
	RELAY_VOTE(S, C, D)
	RELAY_VOTE(S, D, C)
	HEAR_FLAG(S, D, knows_run)
	HEAR_FLAG(S, D, knows_ren)
	RELAY_FLAG(S, C, knows_run)
	RELAY_FLAG(S, C, knows_ren)

	:: d_step { alive(S) && vm_s == RUN && !suspended && vote_of(S) == NONE && !broken ->
		suspended = 1; vm_s = PAUSED; check() }

	/* V2 needs that no end of stream is sent after an ABORT; V12: the disk is let go before it. */
	:: d_step { alive(S) && vm_s == PAUSED && !eos && vote_of(S) == NONE && !broken ->
		eos = 1;
#ifdef EXCLUSIVE
		open_s = 0;
#endif
		check() }

	/* V1: suspended, end of stream sent, D's COMMIT heard. */
	:: d_step { alive(S) && vote_of(S) == NONE && suspended && eos && V1_HEARD -> cast(S, COMMIT); check() }

	/* V2: before the end of stream S is free to; it must when the stream or its own image is gone. */
	:: d_step { alive(S) && vote_of(S) == NONE && V2_BEFORE_END &&
		(!calm || broken || rebooted_s || asked_s || heard_abort_s || knows_ren[S]) ->
		cast(S, ABORT); check() }

	/* V3: after it, on an ABORT that it heard; or asked, if it has not heard D's COMMIT. Rebooted: only as D did. */
	:: d_step { alive(S) && vote_of(S) == NONE && eos && !rebooted_s && heard_abort_s -> cast(S, ABORT); check() }
	:: d_step { alive(S) && vote_of(S) == NONE && eos && V3_IMAGE && asked_s && V3_NOT_HEARD ->
		cast(S, ABORT); check() }
	:: d_step { alive(S) && vote_of(S) == NONE && eos && rebooted_s && heard(S, D) == ABORT -> cast(S, ABORT); check() }
#ifdef MUTANT_V3
	:: d_step { alive(S) && vote_of(S) == NONE && eos && !calm -> cast(S, ABORT); check() }
#endif

	/* V8: two ABORTs known, or V2, or D renounced. With the image gone this is a boot from the disks. */
	:: d_step { alive(S) && (vm_s == PAUSED || (vm_s == GONE && rebooted_s && !released)) &&
		(knows_ren[S] || (count(S, ABORT) >= 2 && V12_BACK) || (vote_of(S) == ABORT && V2_BEFORE_END) || V8_ELSE) ->
		/* V13: not once the verdict is COMMIT, unless D gave it back. */
		assert(!verdict(COMMIT) || knows_ren[D]);
		resumed = 1; vm_s = RUN;
#ifdef EXCLUSIVE
		open_s = 1;
#endif
		check() }

	/* V10: two COMMITs and D running, both known. */
	:: d_step { alive(S) && !released && !resumed && count(S, COMMIT) >= 2 && V10_RUNNING ->
		assert(verdict(COMMIT) && vm_s != RUN); /* V13 */
		released = 1; vm_s = GONE; check() }
	od
}

active proctype Destination()
{
end:	do
	HEAR_VOTE(D, C, C)
	HEAR_VOTE(D, S, S)
	RELAY_VOTE(D, C, S)
	RELAY_VOTE(D, S, C)

	/* The end of stream arrives; the copy is whole, verified, its devices attached. */
	:: d_step { up(S, D) && eos && !broken && vm_d == PARTIAL && vote_of(D) == NONE && !knows_ren[D] ->
		vm_d = PAUSED; complete = 1;
#ifdef EXCLUSIVE
		open_d = 1;
#endif
		check() }

	/* V4: COMMIT for a whole copy only, and not against an ABORT that it heard. */
	:: d_step { alive(D) && vote_of(D) == NONE && !knows_ren[D] && !heard_abort_d && V4_WHOLE ->
		cast(D, COMMIT); check() }

	/* V4: ABORT if the stream or the copy fails, on an ABORT that it heard, or asked; never after its vote. */
	:: d_step { alive(D) && vote_of(D) == NONE &&
		(!calm || (broken && !complete) || rebooted_d || heard_abort_d || asked_d) ->
		cast(D, ABORT); check() }
#ifdef MUTANT_V4B
	:: d_step { alive(D) && vote_of(D) == COMMIT && !activating && asked_d ->
		vote_of(D) = NONE; cast(D, ABORT); check() }
#endif

	/* V6: two COMMITs known, D's own included; journaled before the unpause. V7: never once renounced. */
	:: d_step { alive(D) && !activating && vm_d == PAUSED && V7_NEVER && vote_of(D) == COMMIT && V6_TWO -> V6_JOURNAL; check() }
	:: d_step { alive(D) && activating && V7_NEVER && vm_d == PAUSED && !no_unpause ->
		assert(verdict(COMMIT) && vote[D] == COMMIT); /* V6, V13 */
		vm_d = RUN; ran = 1; check() }
	:: d_step { alive(D) && vm_d == RUN && !knows_run[D] ->
		activating = 1; knows_run[D] = 1; check() }

	/* V7: before `activating`: it cannot unpause, its image is gone, or an ABORT and not two COMMITs known. */
	:: d_step { alive(D) && V7_TODO && !activating && !knows_ren[D] && (vm_d == GONE || (vm_d == PAUSED && no_unpause) ||
		vote_of(D) == ABORT || (heard_abort_d && count(D, COMMIT) < 2)) ->
		V7_SAY;
#ifdef EXCLUSIVE
		open_d = 0;
#endif
		V7_DISCARD; check() }
	/* V7: after it, only if the unpause failed for certain and the VM is destroyed. */
	:: d_step { alive(D) && activating && !knows_ren[D] && vm_d == PAUSED && no_unpause ->
		knows_ren[D] = 1; vm_d = GONE;
#ifdef EXCLUSIVE
		open_d = 0;
#endif
		check() }
#ifdef MUTANT_V7
	:: d_step { alive(D) && activating && !knows_ren[D] && vm_d == GONE -> knows_ren[D] = 1; check() }
#endif
#ifdef MUTANT_V13
	/* The clean-up of an ABORT, reached by a cancel that came too late. */
	:: d_step { alive(D) && !knows_ren[D] && asked_d && vm_d != PARTIAL -> knows_ren[D] = 1; vm_d = GONE; check() }
#endif
	od
}

/* V9: what is not in the journal is forgotten; the peers are asked again. */
inline forget(p)
{
	heard(p, (p + 1) % 3) = NONE;
	heard(p, (p + 2) % 3) = NONE;
	if
	:: p != D -> knows_run[p] = 0; knows_ren[p] = 0
	:: else
	fi
#ifdef MUTANT_V9B
	deaf[p] = 1
#endif
}
#define remembers(p) (heard(p, ((p) + 1) % 3) != NONE || heard(p, ((p) + 2) % 3) != NONE || \
	((p) != D && (knows_run[p] || knows_ren[p])))

/* The stream is lost with either end of it, unless D had it all. */
inline tear()
{
	if
	:: !complete -> broken = 1
	:: else
	fi
}

/* The table of single failures. D gone: S has the VM if nobody can know of a COMMIT of D's, or if D's host says after a
 * reboot that it never ran. S gone before its vote: a COMMIT of D's still wins. */
#ifdef STUCK
#define MUST_DIE(p) \
	if \
	:: p == D && (vote[D] != COMMIT || (heard(S, D) == NONE && heard(C, D) == NONE && \
		vote[S] != COMMIT && vote[C] != COMMIT)) -> must = S \
	:: p == S && vote[S] == NONE && vote[D] != ABORT -> must = D \
	:: else \
	fi
#define MUST_REBOOT_D \
	if \
	:: !activating -> must = S \
	:: else \
	fi
#else
#define MUST_DIE(p) skip
#define MUST_REBOOT_D skip
#endif

#define DIE(p) :: d_step { left > 0 && alive(p) -> left--; MUST_DIE(p); dead[p] = 1; \
	if :: p != C -> tear() :: else fi; check() }
#ifdef MUTANT_V11
/* It starts with an empty journal, and votes anew. */
#define LOSE(p) :: d_step { left > 0 && alive(p) -> left--; forget(p); vote_of(p) = NONE; check() }
#else
#define LOSE(p) :: d_step { left > 0 && alive(p) -> left--; MUST_DIE(p); lost[p] = 1; \
	if :: p != C -> tear() :: else fi; check() }
#endif
#define CUT(link) :: d_step { left > 0 && !cut[link] -> left--; cut[link] = 1; \
	if :: link == 2 -> tear() :: else fi; check() }
#define RESTART(p) :: d_step { !calm && alive(p) && remembers(p) -> forget(p); check() }

active proctype Faults()
{
end:	do
	/* These are free: as many as there may be. */
	RESTART(C)
	RESTART(S)
	RESTART(D)
	:: d_step { !broken && !complete -> broken = 1; check() }
	:: d_step { !cancelled && alive(C) -> cancelled = 1; check() }

	/* These are counted. */
	DIE(C)
	DIE(S)
	DIE(D)
	LOSE(C)
	LOSE(S)
	LOSE(D)
	CUT(0)
	CUT(1)
	CUT(2)
	:: d_step { left > 0 && alive(S) && !rebooted_s -> left--;
		MUST_DIE(S);
		rebooted_s = 1; vm_s = GONE; tear(); forget(S); check() }
	:: d_step { left > 0 && alive(D) && !rebooted_d -> left--;
		MUST_REBOOT_D;
		rebooted_d = 1; vm_d = GONE;
#ifdef EXCLUSIVE
		open_d = 0;
#endif
		tear(); forget(D); check() }
	:: d_step { left > 0 && !no_unpause && !ran -> left--; no_unpause = 1; check() }
#ifdef STUCK
	:: d_step { calm = 1 } -> break
#endif
	od
}

#ifdef STUCK
#define failed_s (!alive(S) || rebooted_s)
#define failed_d (!alive(D) || rebooted_d)
#define runs ((vm_s == RUN && alive(S)) || (vm_d == RUN && alive(D)))
/* A D that renounces against the verdict and dies before it has told anybody looks like one that died running. */
#define owner_d verdict(COMMIT)
#define owner_s (knows_ren[D] || verdict(ABORT))

/* Nobody has anything left to do. */
active proctype Quiet()
{
	atomic { timeout ->
		/* The VM runs, or its owner's host failed; undecided is never where it ends. */
		assert(runs || (owner_d && failed_d) || (owner_s && failed_s));
		/* The table of single failures. */
		assert(FAULTS > 1 || must != S || vm_s == RUN);
		assert(FAULTS > 1 || must != D || vote[D] != COMMIT || vm_d == RUN);
		/* Without a fault one side holds the VM and the other nothing. */
		assert(left < FAULTS || (vm_d == RUN && released) || (vm_s == RUN && (vm_d == GONE || vm_d == PARTIAL)))
	}
}
#endif
