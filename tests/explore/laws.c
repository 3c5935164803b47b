/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What must hold in every state and over every step. */
#include "tests/explore/world.h"

/* ---- what is so, by what was journaled by its author ---- */

static bool committed(const struct verdict_facts *facts)
{
	return verdict_of(facts) == VOTE_COMMIT && !facts->renounced;
}

static bool grown(const struct verdict_facts *old, const struct verdict_facts *now)
{
	for (int party = 0; party < PARTIES; party++)
		if (old->vote[party] != VOTE_NONE && old->vote[party] != now->vote[party])
			return false;
	if (old->ruling != VOTE_NONE && old->ruling != now->ruling)
		return false;
	return old->suspended <= now->suspended && old->stream_ended <= now->stream_ended &&
	       old->resumed <= now->resumed && old->released <= now->released && old->activating <= now->activating &&
	       old->running <= now->running && old->renounced <= now->renounced;
}

/* C journals its vote with its core. */
static struct verdict_facts truth_of(const struct world *w)
{
	struct verdict_facts truth = w->o.truth;
	truth.vote[PARTY_COORDINATOR] = w->c.core.facts.vote[PARTY_COORDINATOR];
	truth.ruling = w->c.core.facts.ruling;
	return truth;
}

static const char *knowledge(const struct world *w, const struct verdict_facts *truth)
{
	if (!grown(&w->c.core.facts, truth))
		return "C knows what its author has not journaled";
	for (int i = 0; i < 2; i++)
		if (!grown(&w->h[i].facts, truth) || !grown(&w->h[i].leg.view.facts, truth))
			return "a host knows what its author has not journaled";
	return NULL;
}

static const char *the_vm(const struct world *w, const struct verdict_facts *truth)
{
	bool runs_here = w->h[S].vm == IMAGE_RUNNING, runs_there = w->h[D].vm == IMAGE_RUNNING;
	if (runs_here && runs_there)
		return "the VM runs on both hosts";
	bool had = w->o.ran || (truth->activating && !truth->renounced);
	if ((runs_here || truth->resumed) && had && truth->ruling != VOTE_ABORT)
		return "the VM runs on S, and D has it run or may";
	if (truth->renounced && runs_there)
		return "D runs what it has renounced";
	if (truth->activating && truth->ruling == VOTE_NONE &&
	    (verdict_of(truth) != VOTE_COMMIT || truth->vote[PARTY_DESTINATION] != VOTE_COMMIT))
		return "D activates without two COMMITs, its own included (V6)";
	if (verdict_of(truth) == VOTE_COMMIT && truth->vote[PARTY_DESTINATION] != VOTE_COMMIT)
		return "the verdict is COMMIT, and D has not voted for it (V1, V5)";
	if (truth->released && !w->o.ran && truth->ruling == VOTE_NONE)
		return "S has let go of a VM that D never ran (V10)";
	if (truth->released && truth->resumed)
		return "S has let go of the VM and has it run";
	if (truth->running && !w->o.ran)
		return "D says that it runs what never ran";
	if (runs_here && committed(truth))
		return "the VM runs on S, and the verdict is COMMIT (V13)";
	return NULL;
}

static const char *sessions(const struct world *w, const struct verdict_facts *truth)
{
	for (int i = 0; i < 2; i++) {
		enum session_state state = w->h[i].core.state;
		bool forth = state == SESSION_COMMITTED || state == SESSION_RELEASING || state == SESSION_RELEASED;
		bool back = state == SESSION_ROLLED_BACK && w->h[i].core.highest >= STEP_SWITCH;
		if (w->h[i].row && forth && verdict_of(truth) != VOTE_COMMIT && truth->ruling == VOTE_NONE)
			return "a session has gone forth, and the verdict is not COMMIT";
		if (w->h[i].row && back && committed(truth))
			return "a session has gone back, and the verdict is COMMIT";
		if (w->h[i].holds && (!w->h[i].row || session_is_final(state)))
			return "a session is over or forgotten, and its host holds something";
	}
	return NULL;
}

/* The record is final: what it says is so, and what is held is owed. */
static const char *final_record(const struct world *w, const struct verdict_facts *truth)
{
	enum migration_state state = w->c.core.state;
	bool failed = w->h[S].failed || w->h[S].dead;
	if (state == MIGRATION_DONE && (!w->o.ran || w->h[S].vm == IMAGE_RUNNING))
		return "done, and D has not run the VM or S does";
	if (state == MIGRATION_CANCELLED || state == MIGRATION_FAILED) {
		if (committed(truth) || (w->o.ran && truth->ruling != VOTE_ABORT))
			return "over with S as the owner, and D owns the VM";
		if (w->h[S].vm != IMAGE_RUNNING && !failed)
			return "over with S as the owner, and the VM does not run there";
	}
	if (state == MIGRATION_LOST && !failed && !w->h[D].failed && !w->h[D].dead)
		return "lost, and no host has failed";
	if (w->c.cancelled && state == MIGRATION_DONE)
		return "an operator was answered \"cancelled\", and it is done";
	if (w->c.too_late && state == MIGRATION_CANCELLED && !truth->renounced && truth->ruling == VOTE_NONE)
		return "an operator was answered \"too late\", and it is cancelled";
	return NULL;
}

/* Laws 4 and 5 of migration.h, and law 1 of verdict.h. */
static const char *over_a_step(const struct world *before, const struct world *w)
{
	enum migration_state was = before->c.core.state, is = w->c.core.state;
	bool ruled = before->c.core.facts.ruling != w->c.core.facts.ruling;
	if (was != is && migration_is_final(was) && !(was == MIGRATION_LOST && ruled))
		return "a final state has changed";
	if (was == MIGRATION_ROLLING_BACK && is == MIGRATION_COMMITTED)
		return "from rolling-back to committed";
	if (was == MIGRATION_COMMITTED && is == MIGRATION_ROLLING_BACK && !w->c.core.facts.renounced && !ruled)
		return "from committed to rolling-back, and D has not renounced";
	enum vote vote = w->c.core.facts.vote[PARTY_COORDINATOR];
	if (before->c.core.facts.vote[PARTY_COORDINATOR] != vote && w->o.truth.vote[PARTY_SOURCE] != vote &&
	    w->o.truth.vote[PARTY_DESTINATION] != vote)
		return "C votes what neither host has voted (V5)";
	if (!grown(&before->c.core.facts, &w->c.core.facts))
		return "C has forgotten a fact";
	for (int i = 0; i < 2; i++)
		if (before->h[i].row && w->h[i].row && !grown(&before->h[i].facts, &w->h[i].facts))
			return "a journal has forgotten a fact";
	return NULL;
}

const char *law_broken(const struct world *before, const struct world *w)
{
	const struct verdict_facts truth = truth_of(w);
	const char *law = w->broken;
	if (!law)
		law = the_vm(w, &truth);
	if (!law)
		law = knowledge(w, &truth);
	if (!law)
		law = sessions(w, &truth);
	if (!law)
		law = final_record(w, &truth);
	if (!law && before)
		law = over_a_step(before, w);
	return law;
}

/* ---- where it may end ---- */

/* The VM runs, or its owner's host has failed. */
static bool vm_settled(const struct world *w, const struct verdict_facts *truth)
{
	const struct host *s = &w->h[S], *d = &w->h[D];
	if ((s->vm == IMAGE_RUNNING && !s->dead) || (d->vm == IMAGE_RUNNING && !d->dead))
		return true;
	if (committed(truth))
		return d->dead || d->failed;
	bool mine = truth->renounced || verdict_of(truth) == VOTE_ABORT || !truth->stream_ended;
	return mine && (s->dead || s->failed);
}

static bool record_settled(const struct world *w)
{
	const struct migration_core *core = &w->c.core;
	if (w->c.dead)
		return true;
	bool waits = core->state == MIGRATION_COMMITTED || core->state == MIGRATION_ROLLING_BACK ||
	             core->state == MIGRATION_IN_DOUBT;
	if (!migration_is_final(
		    core->state)) /* an honest wait is for a host that is not heard or knows nothing any more */
		return waits && !(c_hears(w, S) && c_hears(w, D) && !w->h[S].lost && !w->h[D].lost);
	if (core->state == MIGRATION_LOST && core->side[S].cleanup_owed && core->facts.ruling == VOTE_NONE)
		return true; /* what S has is the operator's to decide about */
	for (int i = 0; i < 2; i++)
		if (c_hears(w, i) && !w->h[i].lost &&
		    (core->side[i].cleanup_owed || core->side[i].forget_owed || w->h[i].row || w->h[i].holds))
			return false;
	return true;
}

bool law_at_rest(const struct world *w)
{
	const struct verdict_facts truth = truth_of(w);
	return vm_settled(w, &truth) && record_settled(w);
}
