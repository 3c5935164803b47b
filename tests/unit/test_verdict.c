/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verdict: one test per rule, and every reachable state of three parties that learn, fail and forget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/verdict.h"

static const struct verdict_local none;

static struct verdict_facts after_end_of_stream(void)
{
	return (struct verdict_facts) { .suspended = true, .stream_ended = true };
}

static void v1__source_commits_only_after_suspend_end_of_stream_and_destinations_commit(void **state)
{
	(void)state;
	struct verdict_local granted = { .granted = true };
	struct verdict_facts facts = { 0 };
	assert_false(verdict_may_cast(PARTY_SOURCE, VOTE_COMMIT, &facts, &granted));
	facts.suspended = true;
	facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	assert_false(verdict_may_cast(PARTY_SOURCE, VOTE_COMMIT, &facts, &granted));
	facts.stream_ended = true;
	assert_true(verdict_may_cast(PARTY_SOURCE, VOTE_COMMIT, &facts, &granted));
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &granted), DUTY_CAST_COMMIT);
	facts.vote[PARTY_DESTINATION] = VOTE_NONE;
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &granted), 0);
}

static void v2__before_end_of_stream_source_aborts_alone_and_resumes_at_once(void **state)
{
	(void)state;
	struct verdict_local failed = { .failed = true };
	struct verdict_facts facts = { .suspended = true };
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &failed), DUTY_CAST_ABORT);
	facts.vote[PARTY_SOURCE] = VOTE_ABORT;
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &failed), DUTY_RESUME);
	facts.resumed = true;
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &failed), 0);
}

static void v3__after_end_of_stream_source_waits_unless_asked_or_told(void **state)
{
	(void)state;
	struct verdict_local failed = { .failed = true };
	struct verdict_local asked = { .abort_asked = true };
	struct verdict_facts facts = after_end_of_stream();
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &failed), 0);
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &asked), DUTY_CAST_ABORT);
	facts.vote[PARTY_DESTINATION] = VOTE_COMMIT; /* heard: it may only second it now */
	assert_false(verdict_may_cast(PARTY_SOURCE, VOTE_ABORT, &facts, &asked));
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &asked), DUTY_CAST_COMMIT);
	facts.vote[PARTY_DESTINATION] = VOTE_ABORT;
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &none) & (DUTY_CAST_ABORT | DUTY_CAST_COMMIT),
	                 DUTY_CAST_ABORT);
}

static void v3__rebooted_source_votes_only_as_the_destination_did(void **state)
{
	(void)state;
	struct verdict_local rebooted = { .image_gone = true, .abort_asked = true, .failed = true };
	struct verdict_facts facts = after_end_of_stream();
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &rebooted), 0);
	facts.vote[PARTY_COORDINATOR] = VOTE_ABORT;
	assert_false(verdict_may_cast(PARTY_SOURCE, VOTE_ABORT, &facts, &rebooted));
	facts.vote[PARTY_COORDINATOR] = VOTE_NONE;
	facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &rebooted), DUTY_CAST_COMMIT);
	facts.vote[PARTY_DESTINATION] = VOTE_ABORT;
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &rebooted), DUTY_CAST_ABORT); /* and no RESUME: image gone */
}

static void v4__destination_commits_only_a_complete_copy_that_was_granted(void **state)
{
	(void)state;
	struct verdict_facts facts = after_end_of_stream();
	struct verdict_local local = { .granted = true };
	assert_int_equal(verdict_due(PARTY_DESTINATION, &facts, &local), 0);
	local.complete = true;
	assert_int_equal(verdict_due(PARTY_DESTINATION, &facts, &local), DUTY_CAST_COMMIT);
	local.granted = false;
	assert_int_equal(verdict_due(PARTY_DESTINATION, &facts, &local), 0);
	local.granted = true;
	local.abort_asked = true;
	assert_int_equal(verdict_due(PARTY_DESTINATION, &facts, &local), DUTY_CAST_ABORT);
	facts.vote[PARTY_SOURCE] = VOTE_ABORT;
	local.abort_asked = false;
	assert_true(verdict_due(PARTY_DESTINATION, &facts, &local) & DUTY_CAST_ABORT);
	assert_false(verdict_may_cast(PARTY_DESTINATION, VOTE_COMMIT, &facts, &local));
}

static void v5__coordinator_never_votes_first_and_seconds_only_for_the_unreachable(void **state)
{
	(void)state;
	struct verdict_facts facts = after_end_of_stream();
	struct verdict_local local = { .unreachable = { [PARTY_SOURCE] = true, [PARTY_DESTINATION] = true } };
	assert_int_equal(verdict_due(PARTY_COORDINATOR, &facts, &local), 0);
	facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	assert_int_equal(verdict_due(PARTY_COORDINATOR, &facts, &local), DUTY_CAST_COMMIT);
	local.unreachable[PARTY_SOURCE] = false;
	assert_int_equal(verdict_due(PARTY_COORDINATOR, &facts, &local), 0);
	facts.vote[PARTY_DESTINATION] = VOTE_NONE;
	facts.vote[PARTY_SOURCE] = VOTE_ABORT;
	assert_int_equal(verdict_due(PARTY_COORDINATOR, &facts, &local), DUTY_CAST_ABORT);
}

static void v6__destination_activates_only_with_two_commits_its_own_included(void **state)
{
	(void)state;
	struct verdict_facts facts = after_end_of_stream();
	facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	assert_false(verdict_may_activate(&facts));
	facts.vote[PARTY_COORDINATOR] = VOTE_COMMIT;
	assert_int_equal(verdict_due(PARTY_DESTINATION, &facts, &none), DUTY_ACTIVATE);
	facts.vote[PARTY_DESTINATION] = VOTE_NONE;
	facts.vote[PARTY_SOURCE] = VOTE_COMMIT;
	assert_false(verdict_may_activate(&facts));
}

static void v7__destination_renounces_before_activating_and_after_it_only_with_proof(void **state)
{
	(void)state;
	struct verdict_facts facts = after_end_of_stream();
	facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	assert_false(verdict_may_renounce(&facts, &none));
	facts.vote[PARTY_SOURCE] = VOTE_ABORT; /* an ABORT heard, no two COMMITs */
	assert_true(verdict_due(PARTY_DESTINATION, &facts, &none) & DUTY_RENOUNCE);
	facts.vote[PARTY_COORDINATOR] = VOTE_COMMIT; /* verdict COMMIT: barred */
	assert_false(verdict_may_renounce(&facts, &none));
	facts.activating = true;
	struct verdict_local gone = { .image_gone = true };
	assert_false(verdict_may_renounce(&facts, &gone));
	struct verdict_local proof = { .unpause_failed = true };
	assert_int_equal(verdict_due(PARTY_DESTINATION, &facts, &proof), DUTY_RENOUNCE);
	facts.running = true;
	assert_false(verdict_may_renounce(&facts, &proof));
}

static void v8__source_resumes_on_two_aborts_or_renouncing_and_on_nothing_else(void **state)
{
	(void)state;
	struct verdict_facts facts = after_end_of_stream();
	facts.vote[PARTY_SOURCE] = VOTE_ABORT;
	assert_false(verdict_may_resume(&facts));
	facts.vote[PARTY_COORDINATOR] = VOTE_ABORT;
	assert_true(verdict_may_resume(&facts));
	facts = after_end_of_stream();
	facts.vote[PARTY_SOURCE] = VOTE_COMMIT;
	facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	assert_false(verdict_may_resume(&facts));
	facts.renounced = true; /* the unpause was impossible */
	assert_true(verdict_may_resume(&facts));
	facts.released = true;
	assert_false(verdict_may_resume(&facts));
}

static void v9__facts_only_grow_and_contradictions_are_noticed(void **state)
{
	(void)state;
	struct verdict_facts facts = { .vote = { [PARTY_SOURCE] = VOTE_ABORT } };
	struct verdict_facts heard = { .vote = { [PARTY_DESTINATION] = VOTE_COMMIT }, .suspended = true };
	bool conflict = false;
	assert_true(verdict_learn(&facts, &heard, &conflict));
	assert_false(verdict_learn(&facts, &heard, &conflict));
	assert_false(conflict);
	assert_int_equal(facts.vote[PARTY_SOURCE], VOTE_ABORT);
	heard.vote[PARTY_SOURCE] = VOTE_COMMIT;
	assert_false(verdict_learn(&facts, &heard, &conflict));
	assert_true(conflict);
	assert_int_equal(facts.vote[PARTY_SOURCE], VOTE_ABORT);
	for (int party = 0; party < PARTIES; party++) { /* a vote is cast once */
		facts.vote[party] = VOTE_ABORT;
		assert_false(verdict_may_cast((enum party)party, VOTE_COMMIT, &facts, &none));
		assert_true(verdict_may_cast((enum party)party, VOTE_ABORT, &facts, &none));
	}
}

static void v10__source_releases_only_with_two_commits_and_the_destination_running(void **state)
{
	(void)state;
	struct verdict_facts facts = after_end_of_stream();
	facts.vote[PARTY_SOURCE] = facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	facts.activating = true;
	assert_false(verdict_may_release(&facts));
	facts.running = true;
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &none), DUTY_RELEASE);
	facts.released = true;
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &none), 0);
}

static void v11__a_party_without_its_journal_does_not_vote(void **state)
{
	(void)state;
	struct verdict_local lost = { .journal_lost = true, .granted = true, .complete = true, .failed = true };
	struct verdict_facts facts = after_end_of_stream();
	facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &lost), 0);
	facts.vote[PARTY_DESTINATION] = VOTE_NONE;
	facts.vote[PARTY_SOURCE] = VOTE_ABORT;
	assert_false(verdict_may_cast(PARTY_DESTINATION, VOTE_ABORT, &facts, &lost));
}

static void
v12__exclusive_disk_is_let_go_before_the_end_of_stream_and_taken_back_only_from_a_destination_that_is_out(void **state)
{
	(void)state;
	struct verdict_facts facts = { 0 };
	assert_false(verdict_may_let_go(&facts)); /* the VM runs and writes */
	facts.suspended = true;
	assert_true(verdict_may_let_go(&facts));
	facts.vote[PARTY_SOURCE] = VOTE_ABORT;
	assert_false(verdict_may_let_go(&facts));
	assert_true(verdict_may_take_back(&facts, false)); /* no end of stream: the destination never opened it */
	facts = after_end_of_stream();
	assert_false(verdict_may_let_go(&facts)); /* too late: the destination may open it */
	facts.vote[PARTY_SOURCE] = facts.vote[PARTY_COORDINATOR] = VOTE_ABORT;
	assert_true(verdict_may_resume(&facts)); /* as for copied disks */
	assert_false(verdict_may_take_back(&facts, false));
	assert_true(verdict_may_take_back(&facts, true));
	facts.renounced = true;
	assert_true(verdict_may_take_back(&facts, false));
	facts = after_end_of_stream();
	facts.vote[PARTY_SOURCE] = facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	assert_false(verdict_may_take_back(&facts, true)); /* a fence is no verdict */
}

static void v13__abort_compensations_and_commit_ones_exclude_each_other(void **state)
{
	(void)state;
	for (unsigned votes = 0; votes < 27; votes++) {
		struct verdict_facts facts = after_end_of_stream();
		facts.vote[0] = (enum vote)(votes % 3);
		facts.vote[1] = (enum vote)(votes / 3 % 3);
		facts.vote[2] = (enum vote)(votes / 9);
		facts.running = facts.activating = true;
		assert_false(verdict_may_release(&facts) && verdict_may_resume(&facts));
		facts.running = facts.activating = false;
		assert_false(verdict_may_activate(&facts) && verdict_may_resume(&facts));
		assert_false(verdict_may_activate(&facts) && verdict_may_renounce(&facts, &none));
	}
}

static void ruling__for_the_source__it_resumes_and_the_destination_gives_up_once_it_was_off(void **state)
{
	(void)state;
	struct verdict_local off = { .granted = true, .image_gone = true };
	struct verdict_local local = { .granted = true };
	struct verdict_facts facts = after_end_of_stream();
	facts.vote[PARTY_SOURCE] = facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	facts.activating = facts.running = true;
	assert_false(verdict_may_resume(&facts));
	facts.ruling = VOTE_ABORT;
	assert_int_equal(verdict_of(&facts), VOTE_ABORT);
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &local), DUTY_RESUME);
	assert_true(verdict_may_take_back(&facts, false)); /* V12: the ruling says that it is fenced */
	assert_false(verdict_may_release(&facts));
	assert_false(verdict_may_activate(&facts));
	assert_false(verdict_may_renounce(&facts, &none)); /* it was not off, whatever was declared */
	assert_int_equal(verdict_due(PARTY_DESTINATION, &facts, &off), DUTY_RENOUNCE);
	assert_string_equal(verdict_authority(&facts), "source");
	facts.released = true;
	assert_false(verdict_may_resume(&facts));
}

static void ruling__for_the_destination__it_runs_what_it_has_and_nobody_votes_any_more(void **state)
{
	(void)state;
	struct verdict_local local = { .granted = true };
	struct verdict_facts facts = after_end_of_stream();
	facts.ruling = VOTE_COMMIT;
	assert_int_equal(verdict_due(PARTY_DESTINATION, &facts, &local), 0); /* no whole copy: nothing to run */
	facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	assert_int_equal(verdict_due(PARTY_DESTINATION, &facts, &local), DUTY_ACTIVATE);
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &local), 0);
	assert_false(verdict_may_cast(PARTY_SOURCE, VOTE_COMMIT, &facts, &local));
	assert_false(verdict_may_resume(&facts));
	assert_string_equal(verdict_authority(&facts), "destination");
	facts.vote[PARTY_SOURCE] = facts.vote[PARTY_COORDINATOR] = VOTE_ABORT; /* it stands above the votes */
	assert_int_equal(verdict_of(&facts), VOTE_COMMIT);
	facts.activating = true; /* and if the host dies then: the source may let go */
	assert_int_equal(verdict_due(PARTY_SOURCE, &facts, &local), DUTY_RELEASE);
}

static void ruling__the_other_way__is_a_conflict(void **state)
{
	(void)state;
	bool conflict = false;
	struct verdict_facts facts = { .ruling = VOTE_ABORT }, heard = { .ruling = VOTE_COMMIT };
	assert_false(verdict_learn(&facts, &heard, &conflict));
	assert_true(conflict);
	assert_int_equal(facts.ruling, VOTE_ABORT);
	facts.ruling = VOTE_NONE;
	conflict = false;
	assert_true(verdict_learn(&facts, &heard, &conflict));
	assert_false(conflict);
}

/* ---- every reachable state of the three parties ---- */

struct world {
	struct verdict_facts knows[PARTIES]; /* what each has in its journal, hearsay included */
	struct verdict_local local[PARTIES];
	uint8_t faults; /* how many happened */
};

/* A world in 64 bits, for the set of those seen. */
static uint64_t world_pack(const struct world *w)
{
	uint64_t key = 0;
	for (int p = 0; p < PARTIES; p++) {
		const struct verdict_facts *f = &w->knows[p];
		const bool flags[] = { f->suspended,  f->stream_ended, f->resumed,  f->released,
			               f->activating, f->running,      f->renounced };
		for (int v = 0; v < PARTIES; v++)
			key = key * 3 + f->vote[v];
		for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
			key = key * 2 + flags[i];
		key = key * 3 + f->ruling;
	}
	const struct verdict_local *s = &w->local[PARTY_SOURCE], *d = &w->local[PARTY_DESTINATION],
				   *c = &w->local[PARTY_COORDINATOR];
	const bool bits[] = { s->granted,
		              s->failed,
		              s->abort_asked,
		              s->image_gone,
		              d->granted,
		              d->complete,
		              d->failed,
		              d->abort_asked,
		              d->image_gone,
		              d->unpause_failed,
		              c->unreachable[PARTY_SOURCE],
		              c->unreachable[PARTY_DESTINATION] };
	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		key = key * 2 + bits[i];
	return key * 4 + w->faults + 1; /* never 0: that is an empty slot */
}

struct search {
	uint64_t *slots;
	size_t mask, count;
	struct world *queue;
	size_t head, tail, room;
};

static void visit(struct search *search, const struct world *w)
{
	uint64_t key = world_pack(w);
	size_t i = (key * 0x9E3779B97F4A7C15u >> 20) & search->mask;
	while (search->slots[i] != 0) {
		if (search->slots[i] == key)
			return;
		i = (i + 1) & search->mask;
	}
	search->slots[i] = key;
	search->count++;
	assert_true(search->count < search->mask / 4 * 3);
	if (search->tail == search->room) {
		search->room *= 2;
		search->queue = realloc(search->queue, search->room * sizeof(*search->queue));
		assert_non_null(search->queue);
	}
	search->queue[search->tail++] = *w;
}

static void check_world(const struct world *w)
{
	const struct verdict_facts *s = &w->knows[PARTY_SOURCE], *d = &w->knows[PARTY_DESTINATION];
	const struct verdict_facts *c = &w->knows[PARTY_COORDINATOR];
	const struct verdict_facts votes = { .vote = { c->vote[PARTY_COORDINATOR], s->vote[PARTY_SOURCE],
		                                       d->vote[PARTY_DESTINATION] } };
	/* A host that was powered off runs nothing, whatever it had begun. */
	bool runs_s = s->resumed && !w->local[PARTY_SOURCE].image_gone;
	bool runs_d = d->activating && !d->renounced && !w->local[PARTY_DESTINATION].image_gone;
	assert_false(runs_s && runs_d); /* never two that may run */
	assert_false(runs_d && s->resumed && c->ruling == VOTE_NONE);
	if (c->ruling != VOTE_NONE) {
		assert_false(s->released && !d->activating);
		return;
	}
	assert_false(s->resumed && d->activating && !d->renounced);
	assert_false(d->renounced && d->running);
	assert_false(s->released && s->resumed);
	assert_false(s->released && !d->running);
	if (d->activating)
		assert_int_equal(verdict_of(&votes), VOTE_COMMIT);
	assert_false(s->resumed && !d->renounced && verdict_of(&votes) == VOTE_COMMIT);
}

/* Does the one duty; the caller has journaled nothing before. */
static void do_duty(struct world *w, enum party p, unsigned duty)
{
	struct verdict_facts *f = &w->knows[p];
	switch (duty) {
	case DUTY_CAST_COMMIT:
		f->vote[p] = VOTE_COMMIT;
		break;
	case DUTY_CAST_ABORT:
		f->vote[p] = VOTE_ABORT;
		break;
	case DUTY_RESUME:
		f->resumed = true;
		break;
	case DUTY_RELEASE:
		f->released = true;
		break;
	case DUTY_ACTIVATE:
		if (f->activating)
			f->running = true;
		else
			f->activating = true;
		break;
	case DUTY_RENOUNCE:
		f->renounced = true;
		break;
	default:
		fail();
	}
}

static unsigned duties(struct search *search, const struct world *w)
{
	unsigned moves = 0;
	for (int p = 0; p < PARTIES; p++) {
		unsigned due = verdict_due((enum party)p, &w->knows[p], &w->local[p]);
		assert_true((due & (DUTY_CAST_COMMIT | DUTY_CAST_ABORT)) != (DUTY_CAST_COMMIT | DUTY_CAST_ABORT));
		for (unsigned duty = 1; duty <= DUTY_RENOUNCE; duty <<= 1) {
			if (!(due & duty))
				continue;
			struct world next = *w;
			do_duty(&next, (enum party)p, duty);
			visit(search, &next);
			moves++;
		}
	}
	return moves;
}

/* What the copy does when all is well: grant, suspend, end of stream, complete. */
static unsigned progress(struct search *search, const struct world *w)
{
	unsigned moves = 0;
	const struct verdict_facts *s = &w->knows[PARTY_SOURCE];
	for (int p = PARTY_SOURCE; p <= PARTY_DESTINATION; p++)
		if (!w->local[p].granted) {
			struct world next = *w;
			next.local[p].granted = true;
			visit(search, &next);
			moves++;
		}
	bool sending = w->local[PARTY_SOURCE].granted && s->vote[PARTY_SOURCE] == VOTE_NONE &&
	               !w->local[PARTY_SOURCE].image_gone && !w->local[PARTY_SOURCE].failed;
	if (sending && (!s->suspended || !s->stream_ended)) {
		struct world next = *w;
		if (s->suspended)
			next.knows[PARTY_SOURCE].stream_ended = true;
		else
			next.knows[PARTY_SOURCE].suspended = true;
		visit(search, &next);
		moves++;
	}
	if (s->stream_ended && !w->local[PARTY_DESTINATION].complete && !w->local[PARTY_DESTINATION].failed &&
	    !w->local[PARTY_DESTINATION].image_gone && !w->knows[PARTY_DESTINATION].renounced) {
		struct world next = *w;
		next.local[PARTY_DESTINATION].complete = true;
		visit(search, &next);
		moves++;
	}
	return moves;
}

/* An operator powers one host off, for good as far as the VM goes, and says that the other one owns it; the coordinator
 * takes it under the conditions of migration_resolve_refusal(). */
static void rulings(struct search *search, const struct world *w)
{
	const struct verdict_facts *c = &w->knows[PARTY_COORDINATOR];
	if (c->ruling != VOTE_NONE)
		return;
	/* The source releases when it is told to, by a coordinator that has the running in its journal. */
	if (!c->running && !w->knows[PARTY_SOURCE].released) {
		struct world next = *w;
		next.knows[PARTY_COORDINATOR].ruling = VOTE_ABORT;
		next.local[PARTY_DESTINATION].image_gone = true;
		next.faults++;
		visit(search, &next);
	}
	if (c->vote[PARTY_DESTINATION] == VOTE_COMMIT && !c->renounced && verdict_of(c) != VOTE_COMMIT) {
		struct world next = *w;
		next.knows[PARTY_COORDINATOR].ruling = VOTE_COMMIT;
		next.local[PARTY_SOURCE].image_gone = true;
		next.faults++;
		visit(search, &next);
	}
}

/* Faults: each is possible at any time, at most `limit` of them in one run. */
static void faults(struct search *search, const struct world *w, unsigned limit)
{
	struct world next;
	if (w->faults >= limit)
		return;
	for (int p = PARTY_SOURCE; p <= PARTY_DESTINATION; p++) {
		bool *const marks[] = { &next.local[p].failed, &next.local[p].abort_asked, &next.local[p].image_gone,
			                &next.local[PARTY_COORDINATOR].unreachable[p] };
		for (unsigned i = 0; i < 4; i++) {
			next = *w;
			if (*marks[i] || (p == PARTY_DESTINATION && i == 2 && w->knows[p].running))
				continue;
			*marks[i] = true;
			next.faults++;
			visit(search, &next);
		}
	}
	rulings(search, w);
	if (w->knows[PARTY_DESTINATION].activating && !w->knows[PARTY_DESTINATION].running) {
		next = *w;
		next.local[PARTY_DESTINATION].unpause_failed = true;
		next.faults++;
		visit(search, &next);
	}
	for (int p = 0; p < PARTIES; p++) { /* restart that forgets hearsay: only what it authored is left */
		struct verdict_facts own = w->knows[p];
		for (int v = 0; v < PARTIES; v++)
			if (v != p)
				own.vote[v] = VOTE_NONE;
		if (p != PARTY_SOURCE)
			own.suspended = own.stream_ended = own.resumed = own.released = false;
		if (p != PARTY_DESTINATION)
			own.activating = own.running = own.renounced = false;
		if (p != PARTY_COORDINATOR)
			own.ruling = VOTE_NONE;
		next = *w;
		next.knows[p] = own;
		next.faults++;
		visit(search, &next);
	}
}

static unsigned hearsay(struct search *search, const struct world *w)
{
	unsigned moves = 0;
	for (int p = 0; p < PARTIES; p++)
		for (int q = 0; q < PARTIES; q++) {
			struct world next = *w;
			bool conflict = false;
			if (p == q || !verdict_learn(&next.knows[p], &w->knows[q], &conflict))
				continue;
			assert_false(conflict);
			visit(search, &next);
			moves++;
		}
	return moves;
}

static void print_facts(const char *who, const struct world *w, enum party p)
{
	const struct verdict_facts *f = &w->knows[p];
	const struct verdict_local *l = &w->local[p];
	print_message("%s: votes C%d S%d D%d suspended %d ended %d resumed %d released %d activating %d running %d "
	              "renounced %d; granted %d complete %d failed %d asked %d gone %d unpause-failed %d unreachable "
	              "S%d D%d\n",
	              who, (int)f->vote[0], (int)f->vote[1], (int)f->vote[2], f->suspended, f->stream_ended, f->resumed,
	              f->released, f->activating, f->running, f->renounced, l->granted, l->complete, l->failed,
	              l->abort_asked, l->image_gone, l->unpause_failed, l->unreachable[1], l->unreachable[2]);
}

/* Nothing is left to do: the VM must run somewhere, unless the only host that had it rebooted. */
static void check_rest(const struct world *w)
{
	const struct verdict_facts *s = &w->knows[PARTY_SOURCE], *d = &w->knows[PARTY_DESTINATION];
	bool lost = w->local[PARTY_SOURCE].image_gone || (d->activating && w->local[PARTY_DESTINATION].image_gone);
	bool at_rest = !s->suspended || s->resumed || d->running || lost;
	if (!at_rest) {
		print_facts("S", w, PARTY_SOURCE);
		print_facts("D", w, PARTY_DESTINATION);
		print_facts("C", w, PARTY_COORDINATOR);
	}
	assert_true(at_rest);
}

static size_t explore(unsigned limit)
{
	struct search search = { .mask = ((size_t)1 << 24) - 1, .room = 1 << 16 };
	search.slots = calloc(search.mask + 1, sizeof(*search.slots));
	search.queue = malloc(search.room * sizeof(*search.queue));
	assert_non_null(search.slots);
	assert_non_null(search.queue);
	struct world start;
	memset(&start, 0, sizeof(start));
	visit(&search, &start);
	while (search.head < search.tail) {
		struct world w = search.queue[search.head++];
		check_world(&w);
		unsigned moves = duties(&search, &w) + progress(&search, &w) + hearsay(&search, &w);
		if (moves == 0)
			check_rest(&w);
		faults(&search, &w, limit);
	}
	free(search.slots);
	free(search.queue);
	return search.count;
}

static void any_three_parties_and_two_faults__never_two_copies_never_stuck(void **state)
{
	(void)state;
	size_t states = explore(2);
	print_message("verdict: %zu states with up to 2 faults\n", states);
	assert_true(states > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1__source_commits_only_after_suspend_end_of_stream_and_destinations_commit),
		cmocka_unit_test(v2__before_end_of_stream_source_aborts_alone_and_resumes_at_once),
		cmocka_unit_test(v3__after_end_of_stream_source_waits_unless_asked_or_told),
		cmocka_unit_test(v3__rebooted_source_votes_only_as_the_destination_did),
		cmocka_unit_test(v4__destination_commits_only_a_complete_copy_that_was_granted),
		cmocka_unit_test(v5__coordinator_never_votes_first_and_seconds_only_for_the_unreachable),
		cmocka_unit_test(v6__destination_activates_only_with_two_commits_its_own_included),
		cmocka_unit_test(v7__destination_renounces_before_activating_and_after_it_only_with_proof),
		cmocka_unit_test(v8__source_resumes_on_two_aborts_or_renouncing_and_on_nothing_else),
		cmocka_unit_test(v9__facts_only_grow_and_contradictions_are_noticed),
		cmocka_unit_test(v10__source_releases_only_with_two_commits_and_the_destination_running),
		cmocka_unit_test(v11__a_party_without_its_journal_does_not_vote),
		cmocka_unit_test(
			v12__exclusive_disk_is_let_go_before_the_end_of_stream_and_taken_back_only_from_a_destination_that_is_out),
		cmocka_unit_test(v13__abort_compensations_and_commit_ones_exclude_each_other),
		cmocka_unit_test(ruling__for_the_source__it_resumes_and_the_destination_gives_up_once_it_was_off),
		cmocka_unit_test(ruling__for_the_destination__it_runs_what_it_has_and_nobody_votes_any_more),
		cmocka_unit_test(ruling__the_other_way__is_a_conflict),
		cmocka_unit_test(any_three_parties_and_two_faults__never_two_copies_never_stuck),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
