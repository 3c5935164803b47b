/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/verdict.h"

#include <stddef.h>

static int votes_for(const struct verdict_facts *facts, enum vote vote)
{
	int n = 0;
	for (int party = 0; party < PARTIES; party++)
		if (facts->vote[party] == vote)
			n++;
	return n;
}

enum vote verdict_of(const struct verdict_facts *facts)
{
	if (facts->ruling != VOTE_NONE)
		return facts->ruling;
	if (votes_for(facts, VOTE_COMMIT) >= 2)
		return VOTE_COMMIT;
	if (votes_for(facts, VOTE_ABORT) >= 2)
		return VOTE_ABORT;
	return VOTE_NONE;
}

/* An ABORT of somebody other than `self`. */
static bool heard_abort(enum party self, const struct verdict_facts *facts)
{
	for (int party = 0; party < PARTIES; party++)
		if (party != (int)self && facts->vote[party] == VOTE_ABORT)
			return true;
	return false;
}

static bool source_may_commit(const struct verdict_facts *facts)
{
	/* V1; a rebooted source votes only as D did, and this is as D did (V3). */
	return facts->suspended && facts->stream_ended && facts->vote[PARTY_DESTINATION] == VOTE_COMMIT &&
	       !facts->resumed;
}

static bool source_may_abort(const struct verdict_facts *facts, const struct verdict_local *local)
{
	if (facts->released)
		return false;
	if (local->image_gone && facts->stream_ended) /* V3: as D did; a renouncing D will not run it either */
		return facts->vote[PARTY_DESTINATION] == VOTE_ABORT || facts->renounced;
	if (!facts->stream_ended) /* V2 */
		return true;
	if (heard_abort(PARTY_SOURCE, facts) || facts->renounced) /* V3 */
		return true;
	return local->abort_asked && facts->vote[PARTY_DESTINATION] != VOTE_COMMIT; /* V3 */
}

static bool destination_may_commit(const struct verdict_facts *facts, const struct verdict_local *local)
{
	return local->granted && local->complete && !local->failed && !local->image_gone && !local->abort_asked &&
	       !facts->renounced && !heard_abort(PARTY_DESTINATION, facts); /* V4 */
}

static bool destination_may_abort(const struct verdict_facts *facts, const struct verdict_local *local)
{
	if (facts->activating)
		return false;
	return local->failed || local->abort_asked || local->image_gone || facts->renounced ||
	       heard_abort(PARTY_DESTINATION, facts); /* V4 */
}

/* V5: C seconds a vote it has heard when the other one is unreachable. */
static bool coordinator_may(enum vote vote, const struct verdict_facts *facts, const struct verdict_local *local)
{
	return (facts->vote[PARTY_SOURCE] == vote && local->unreachable[PARTY_DESTINATION]) ||
	       (facts->vote[PARTY_DESTINATION] == vote && local->unreachable[PARTY_SOURCE]);
}

bool verdict_may_cast(enum party self, enum vote vote, const struct verdict_facts *facts,
                      const struct verdict_local *local)
{
	if (vote == VOTE_NONE || local->journal_lost) /* V11 */
		return false;
	if (facts->vote[self] != VOTE_NONE) /* cast once, never changed */
		return facts->vote[self] == vote;
	if (facts->ruling != VOTE_NONE) /* nobody's vote is needed any more */
		return false;
	switch (self) {
	case PARTY_COORDINATOR:
		return coordinator_may(vote, facts, local);
	case PARTY_SOURCE:
		return vote == VOTE_COMMIT ? source_may_commit(facts) : source_may_abort(facts, local);
	case PARTY_DESTINATION:
		return vote == VOTE_COMMIT ? destination_may_commit(facts, local) : destination_may_abort(facts, local);
	case PARTIES:
		break;
	}
	return false;
}

bool verdict_may_resume(const struct verdict_facts *facts)
{
	if (facts->released)
		return false;
	if (facts->renounced) /* V8: whatever was voted, and even after `activating` (V7), D will not run it */
		return true;
	if (facts->ruling != VOTE_NONE) /* D's host is off: what may have run there does not any more */
		return facts->ruling == VOTE_ABORT;
	if (facts->running || facts->activating)
		return false;
	if (verdict_of(facts) == VOTE_COMMIT) /* V13 */
		return false;
	if (facts->vote[PARTY_SOURCE] != VOTE_ABORT)
		return false;
	return !facts->stream_ended || verdict_of(facts) == VOTE_ABORT; /* V2, V8 */
}

bool verdict_may_let_go(const struct verdict_facts *facts)
{
	return facts->suspended && !facts->stream_ended && !facts->resumed &&
	       facts->vote[PARTY_SOURCE] == VOTE_NONE; /* V12 */
}

bool verdict_may_take_back(const struct verdict_facts *facts, bool destination_fenced)
{
	bool fenced = destination_fenced || facts->ruling == VOTE_ABORT;
	return verdict_may_resume(facts) && (!facts->stream_ended || facts->renounced || fenced); /* V12 */
}

bool verdict_may_release(const struct verdict_facts *facts)
{
	if (verdict_of(facts) != VOTE_COMMIT || facts->renounced)
		return false;
	return facts->running || (facts->activating && facts->ruling == VOTE_COMMIT); /* V10 */
}

bool verdict_may_activate(const struct verdict_facts *facts)
{
	return verdict_of(facts) == VOTE_COMMIT && facts->vote[PARTY_DESTINATION] == VOTE_COMMIT && !facts->renounced;
}

bool verdict_may_renounce(const struct verdict_facts *facts, const struct verdict_local *local)
{
	if (facts->ruling == VOTE_ABORT) /* what ran here ended when the host was powered off */
		return local->image_gone || !facts->activating;
	if (facts->running)
		return false;
	if (local->unpause_failed) /* V7: the only way after `activating` */
		return true;
	if (facts->activating)
		return false;
	if (local->image_gone || verdict_of(facts) == VOTE_ABORT)
		return true;
	if (facts->vote[PARTY_DESTINATION] == VOTE_ABORT) /* to discard is to renounce */
		return true;
	return heard_abort(PARTY_DESTINATION, facts) && verdict_of(facts) != VOTE_COMMIT;
}

static unsigned source_due(const struct verdict_facts *facts, const struct verdict_local *local)
{
	unsigned due = 0;
	if (facts->vote[PARTY_SOURCE] == VOTE_NONE && facts->ruling == VOTE_NONE && !local->journal_lost) {
		bool want_abort = local->failed || local->abort_asked || local->image_gone || facts->renounced ||
		                  heard_abort(PARTY_SOURCE, facts);
		if (source_may_commit(facts) && !heard_abort(PARTY_SOURCE, facts) && !facts->renounced)
			due |= DUTY_CAST_COMMIT;
		else if (want_abort && source_may_abort(facts, local))
			due |= DUTY_CAST_ABORT;
	}
	if (verdict_may_resume(facts) && !facts->resumed && !local->image_gone)
		due |= DUTY_RESUME;
	if (verdict_may_release(facts) && !facts->released)
		due |= DUTY_RELEASE;
	return due;
}

static unsigned destination_due(const struct verdict_facts *facts, const struct verdict_local *local)
{
	unsigned due = 0;
	if (facts->vote[PARTY_DESTINATION] == VOTE_NONE) {
		if (verdict_may_cast(PARTY_DESTINATION, VOTE_COMMIT, facts, local))
			due |= DUTY_CAST_COMMIT;
		else if (verdict_may_cast(PARTY_DESTINATION, VOTE_ABORT, facts, local))
			due |= DUTY_CAST_ABORT;
	}
	if (!facts->renounced && verdict_may_renounce(facts, local))
		due |= DUTY_RENOUNCE;
	else if (!facts->running && !local->image_gone && verdict_may_activate(facts))
		due |= DUTY_ACTIVATE;
	return due;
}

static unsigned coordinator_due(const struct verdict_facts *facts, const struct verdict_local *local)
{
	if (facts->vote[PARTY_COORDINATOR] != VOTE_NONE || verdict_of(facts) != VOTE_NONE)
		return 0;
	if (verdict_may_cast(PARTY_COORDINATOR, VOTE_COMMIT, facts, local) && !facts->renounced &&
	    !heard_abort(PARTY_COORDINATOR, facts))
		return DUTY_CAST_COMMIT;
	if (verdict_may_cast(PARTY_COORDINATOR, VOTE_ABORT, facts, local))
		return DUTY_CAST_ABORT;
	return 0;
}

unsigned verdict_due(enum party self, const struct verdict_facts *facts, const struct verdict_local *local)
{
	switch (self) {
	case PARTY_COORDINATOR:
		return coordinator_due(facts, local);
	case PARTY_SOURCE:
		return source_due(facts, local);
	case PARTY_DESTINATION:
		return destination_due(facts, local);
	case PARTIES:
		break;
	}
	return 0;
}

static bool learn_flag(bool *known, bool heard)
{
	bool fresh = heard && !*known;
	*known = *known || heard;
	return fresh;
}

static bool learn_vote(enum vote *known, enum vote heard, bool *ret_conflict)
{
	if (heard == VOTE_NONE || heard == *known)
		return false;
	if (*known != VOTE_NONE) {
		*ret_conflict = true;
		return false;
	}
	*known = heard;
	return true;
}

bool verdict_learn(struct verdict_facts *facts, const struct verdict_facts *heard, bool *ret_conflict)
{
	bool fresh = false;
	for (int party = 0; party < PARTIES; party++)
		fresh |= learn_vote(&facts->vote[party], heard->vote[party], ret_conflict);
	fresh |= learn_vote(&facts->ruling, heard->ruling, ret_conflict);
	fresh |= learn_flag(&facts->suspended, heard->suspended);
	fresh |= learn_flag(&facts->stream_ended, heard->stream_ended);
	fresh |= learn_flag(&facts->resumed, heard->resumed);
	fresh |= learn_flag(&facts->released, heard->released);
	fresh |= learn_flag(&facts->activating, heard->activating);
	fresh |= learn_flag(&facts->running, heard->running);
	fresh |= learn_flag(&facts->renounced, heard->renounced);
	return fresh;
}

const char *verdict_authority(const struct verdict_facts *facts)
{
	if (facts->renounced)
		return "source";
	if (facts->ruling != VOTE_NONE)
		return facts->ruling == VOTE_COMMIT ? "destination" : "source";
	if (facts->resumed)
		return "source";
	if (facts->activating || facts->running)
		return "destination";
	switch (verdict_of(facts)) {
	case VOTE_COMMIT:
		return "destination";
	case VOTE_ABORT:
		return "source";
	case VOTE_NONE:
		break;
	}
	for (int party = 0; party < PARTIES; party++)
		if (facts->vote[party] != VOTE_NONE && facts->stream_ended)
			return "undecided";
	return "source";
}

const char *vote_name(enum vote vote)
{
	switch (vote) {
	case VOTE_COMMIT:
		return "commit";
	case VOTE_ABORT:
		return "abort";
	case VOTE_NONE:
		break;
	}
	return NULL;
}

const char *party_name(enum party party)
{
	switch (party) {
	case PARTY_COORDINATOR:
		return "coordinator";
	case PARTY_SOURCE:
		return "source";
	case PARTY_DESTINATION:
		return "destination";
	case PARTIES:
		break;
	}
	return "nobody";
}
