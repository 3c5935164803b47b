/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/core/migration.h"

#include <string.h>

/* No chain of states that follow from one event is longer than this. */
#define SETTLE_ROUNDS_MAX 8

bool migration_is_final(enum migration_state state)
{
	return state == MIGRATION_DONE || state == MIGRATION_CANCELLED || state == MIGRATION_FAILED ||
	       state == MIGRATION_LOST;
}

void migration_init(struct migration_core *ret_core)
{
	memset(ret_core, 0, sizeof(*ret_core));
	ret_core->state = MIGRATION_QUEUED;
}

static bool is_copy_state(enum migration_state state)
{
	return state == MIGRATION_CHECKING || state == MIGRATION_PREPARING || state == MIGRATION_COPYING;
}

static bool is_vote_state(enum migration_state state)
{
	return state == MIGRATION_SWITCHING || state == MIGRATION_IN_DOUBT;
}

static bool both_done(const struct migration_core *core, enum step step)
{
	return core->side[0].done[step] && core->side[1].done[step];
}

/* D owns the VM, whatever else comes: two COMMITs, and D has not renounced. */
static bool commit_decided(const struct verdict_facts *facts)
{
	return verdict_of(facts) == VOTE_COMMIT && !facts->renounced;
}

/* S owns the VM: two ABORTs, or D will never run it (V8), or the VM runs on S again already (V2). */
static bool abort_decided(const struct verdict_facts *facts)
{
	return verdict_of(facts) == VOTE_ABORT || facts->renounced || facts->resumed;
}

static bool unreachable(const struct migration_side *side)
{
	return side->reach == REACH_SUSPECTED || side->journal_lost; /* V11 */
}

static void local_of(const struct migration_core *core, struct verdict_local *ret_local)
{
	memset(ret_local, 0, sizeof(*ret_local));
	ret_local->unreachable[PARTY_SOURCE] = unreachable(&core->side[0]);
	ret_local->unreachable[PARTY_DESTINATION] = unreachable(&core->side[1]);
}

static void note_cause(struct migration_core *core, enum err_code code, enum side side, enum step step)
{
	if (core->cause != ERR_NONE || code == ERR_NONE)
		return;
	core->cause = code;
	core->cause_side = side;
	core->cause_step = step;
}

/* ---- what each state has a side do ---- */

static enum step command_when_final(const struct migration_core *core, enum side side)
{
	const struct migration_side *part = migration_side_get(core, side);
	if (part->cleanup_owed) {
		if (!commit_decided(&core->facts))
			return STEP_ABORT;
		/* V10 holds for a lost VM too: what S has is the operator's to decide about until D is known to have
		 * run. */
		return verdict_may_release(&core->facts) ? STEP_RELEASE : STEP_NONE;
	}
	return part->forget_owed ? STEP_FORGET : STEP_NONE;
}

enum step migration_command(const struct migration_core *core, enum side side)
{
	const struct migration_side *part = migration_side_get(core, side);
	enum step step = STEP_NONE;
	switch (core->state) {
	case MIGRATION_CHECKING:
		step = STEP_CHECK;
		break;
	case MIGRATION_PREPARING:
		step = STEP_PREPARE;
		break;
	case MIGRATION_COPYING:
		step = STEP_COPY;
		break;
	case MIGRATION_SWITCHING:
	case MIGRATION_IN_DOUBT:
		step = core->abort_asked ? STEP_ABORT : STEP_SWITCH;
		break;
	case MIGRATION_COMMITTED:
		step = verdict_may_release(&core->facts) ? STEP_RELEASE : STEP_NONE; /* V10 */
		break;
	case MIGRATION_ROLLING_BACK:
		step = STEP_ABORT;
		break;
	case MIGRATION_DONE:
	case MIGRATION_CANCELLED:
	case MIGRATION_FAILED:
	case MIGRATION_LOST:
		return command_when_final(core, side);
	case MIGRATION_QUEUED:
	case MIGRATION_STATES:
		break;
	}
	return part->done[step] || part->written_off ? STEP_NONE : step;
}

/* Not memcmp(): there may be padding. */
static bool facts_equal(const struct verdict_facts *a, const struct verdict_facts *b)
{
	for (int party = 0; party < PARTIES; party++)
		if (a->vote[party] != b->vote[party])
			return false;
	return a->suspended == b->suspended && a->stream_ended == b->stream_ended && a->resumed == b->resumed &&
	       a->released == b->released && a->activating == b->activating && a->running == b->running &&
	       a->renounced == b->renounced && a->ruling == b->ruling;
}

/* Facts are worth telling from the switchover on, until the side owes no part of it any more: a host that was away for
 * the end may need them to clean up. */
static bool facts_matter(const struct migration_core *core, enum side side)
{
	static const struct verdict_facts nothing;
	if (facts_equal(&core->facts, &nothing))
		return false;
	if (migration_is_final(core->state))
		return migration_side_get(core, side)->cleanup_owed;
	return is_vote_state(core->state) || core->state == MIGRATION_COMMITTED ||
	       core->state == MIGRATION_ROLLING_BACK;
}

static void add_action(struct migration_actions *actions, enum migration_action_kind kind, enum side side,
                       enum step step)
{
	if (actions->count < MIGRATION_ACTIONS_MAX)
		actions->list[actions->count++] =
			(struct migration_action) { .kind = kind, .side = side, .step = step };
}

static void due_side(const struct migration_core *core, enum side side, struct migration_actions *actions)
{
	/* Facts first: they may be what the command needs to be done. */
	if (facts_matter(core, side))
		add_action(actions, MIGRATION_ACTION_TELL, side, STEP_NONE);
	enum step step = migration_command(core, side);
	if (step != STEP_NONE)
		add_action(actions, MIGRATION_ACTION_SEND, side, step);
}

void migration_due(const struct migration_core *core, enum side side, struct migration_actions *ret_actions)
{
	ret_actions->count = 0;
	due_side(core, side, ret_actions);
}

/* ---- what follows from what is known ---- */

static void finish(struct migration_core *core, enum migration_state state)
{
	core->state = state;
	for (int i = 0; i < 2; i++) {
		struct migration_side *part = &core->side[i];
		enum step last = commit_decided(&core->facts) ? STEP_RELEASE : STEP_ABORT;
		part->forget_owed = !part->written_off;
		part->cleanup_owed = !part->written_off && !part->done[last];
	}
}

/* Neither host can bring the verdict nearer: it needs one that nobody can reach. */
static bool verdict_is_stuck(const struct migration_core *core)
{
	const struct migration_side *source = &core->side[0];
	const struct verdict_facts *facts = &core->facts;
	/* V3: a source that was rebooted after its end of stream can only vote as D did. */
	bool source_cannot = unreachable(source) ||
	                     (source->rebooted && facts->stream_ended && facts->vote[PARTY_SOURCE] == VOTE_NONE &&
	                      facts->vote[PARTY_DESTINATION] == VOTE_NONE);
	return source_cannot && unreachable(&core->side[1]);
}

static bool verdict_is_hopeful(const struct migration_core *core)
{
	bool heard = false;
	for (int i = 0; i < 2; i++)
		heard |= core->side[i].reach == REACH_UP && !core->side[i].journal_lost;
	return heard && !verdict_is_stuck(core);
}

static void settle_votes(struct migration_core *core)
{
	struct verdict_local local;
	local_of(core, &local);
	unsigned duty = verdict_due(PARTY_COORDINATOR, &core->facts, &local);
	if (duty & DUTY_CAST_COMMIT)
		core->facts.vote[PARTY_COORDINATOR] = VOTE_COMMIT;
	else if (duty & DUTY_CAST_ABORT)
		core->facts.vote[PARTY_COORDINATOR] = VOTE_ABORT;

	if (commit_decided(&core->facts))
		core->state = MIGRATION_COMMITTED;
	else if (abort_decided(&core->facts)) {
		note_cause(core, ERR_PEER_LOST, 0, STEP_SWITCH); /* nobody said why */
		core->state = MIGRATION_ROLLING_BACK;
	} else if (core->state == MIGRATION_SWITCHING && verdict_is_stuck(core))
		core->state = MIGRATION_IN_DOUBT;
	else if (core->state == MIGRATION_IN_DOUBT && verdict_is_hopeful(core))
		core->state = MIGRATION_SWITCHING;
}

/* Somebody has to be asked for an ABORT: one host is not heard, or its copy has failed, and nothing is decided. */
static void settle_abort(struct migration_core *core)
{
	if (!is_vote_state(core->state) || core->abort_asked)
		return;
	for (int i = 0; i < 2; i++) {
		if (!unreachable(&core->side[i]))
			continue;
		core->abort_asked = true;
		enum side side = i == 0 ? SIDE_SOURCE : SIDE_DESTINATION;
		note_cause(core, core->side[i].journal_lost ? ERR_HOST_LOST : ERR_HOST_DOWN, side, STEP_SWITCH);
	}
}

static void settle_committed(struct migration_core *core)
{
	const struct verdict_facts *facts = &core->facts;
	const struct migration_side *source = &core->side[0], *destination = &core->side[1];
	if (!commit_decided(facts)) { /* V8: two COMMITs, but D could not run it and says so; or an operator ruled */
		note_cause(core, facts->renounced ? ERR_HYPERVISOR : ERR_HOST_LOST, SIDE_DESTINATION, STEP_SWITCH);
		core->state = MIGRATION_ROLLING_BACK;
		return;
	}
	/* Whether what was activated ever ran is in D's journal (V7): it is heard after the reboot first, if ever it
	 * can be. */
	bool heard = facts->running || destination->phase != PHASE_NONE || destination->journal_lost;
	if ((destination->rebooted && heard && (facts->activating || facts->running)) || destination->written_off) {
		note_cause(core, ERR_HOST_LOST, SIDE_DESTINATION, STEP_RELEASE);
		finish(core, MIGRATION_LOST);
		return;
	}
	bool source_over =
		source->done[STEP_RELEASE] || (facts->running && source->journal_lost) || source->written_off;
	bool destination_over = destination->done[STEP_RELEASE] || (facts->running && destination->journal_lost);
	if (source_over && destination_over)
		finish(core, MIGRATION_DONE);
}

/* V11: a source whose journal was lost cannot say that its VM runs. But what ended before the switchover was granted
 * has not suspended it. */
static bool never_suspended(const struct migration_core *core)
{
	const struct verdict_facts *facts = &core->facts;
	bool ended_before = core->cause_step >= STEP_CHECK && core->cause_step <= STEP_COPY && !facts->suspended;
	return core->side[0].journal_lost && (ended_before || facts->resumed);
}

static void settle_rolling_back(struct migration_core *core)
{
	const struct migration_side *source = &core->side[0], *destination = &core->side[1];
	/* The VM runs there for certain, or its host says that it does not. */
	if (!source->done[STEP_ABORT] && !never_suspended(core) && !source->written_off)
		return;
	if (!destination->done[STEP_ABORT] && !unreachable(destination) && !destination->written_off)
		return;
	/* With the VM in it: in the middle of a switchover, or for good. */
	if (source->written_off || (source->rebooted && core->facts.suspended))
		finish(core, MIGRATION_LOST);
	else
		finish(core, core->cause == ERR_CANCELLED ? MIGRATION_CANCELLED : MIGRATION_FAILED);
}

static void settle_copying(struct migration_core *core)
{
	/* A record older than the hosts' journals (a database from a backup): the votes are the truth. */
	if (commit_decided(&core->facts)) {
		core->state = MIGRATION_COMMITTED;
		return;
	}
	if (abort_decided(&core->facts) || core->facts.vote[PARTY_SOURCE] == VOTE_ABORT ||
	    core->facts.vote[PARTY_DESTINATION] == VOTE_ABORT) {
		note_cause(core, ERR_PEER_LOST, 0, STEP_COPY);
		core->state = MIGRATION_ROLLING_BACK;
		return;
	}
	if (core->state == MIGRATION_CHECKING && both_done(core, STEP_CHECK))
		core->state = MIGRATION_PREPARING;
	else if (core->state == MIGRATION_PREPARING && both_done(core, STEP_PREPARE))
		core->state = MIGRATION_COPYING;
	else if (core->state == MIGRATION_COPYING && core->side[0].phase == PHASE_READY &&
	         core->side[0].reach == REACH_UP && core->side[1].reach == REACH_UP)
		core->state = MIGRATION_SWITCHING; /* never into a host that is not heard */
}

static void settle(struct migration_core *core)
{
	for (int round = 0; round < SETTLE_ROUNDS_MAX; round++) {
		enum migration_state before = core->state;
		switch (core->state) {
		case MIGRATION_CHECKING:
		case MIGRATION_PREPARING:
		case MIGRATION_COPYING:
			settle_copying(core);
			break;
		case MIGRATION_SWITCHING:
		case MIGRATION_IN_DOUBT:
			settle_votes(core);
			settle_abort(core);
			break;
		case MIGRATION_COMMITTED:
			settle_committed(core);
			break;
		case MIGRATION_ROLLING_BACK:
			settle_rolling_back(core);
			break;
		case MIGRATION_QUEUED:
		case MIGRATION_DONE:
		case MIGRATION_CANCELLED:
		case MIGRATION_FAILED:
		case MIGRATION_LOST:
		case MIGRATION_STATES:
			return;
		}
		if (core->state == before)
			return;
	}
}

/* ---- events ---- */

/* The attempt is over, for this reason. Up to `copying` the source is the authority and nothing needs to be agreed;
 * in a switchover it is only asked for; after the verdict nothing of it matters. */
static void give_up(struct migration_core *core, enum err_code code, enum side side, enum step step)
{
	if (is_copy_state(core->state)) {
		note_cause(core, code, side, step);
		core->state = MIGRATION_ROLLING_BACK;
	} else if (is_vote_state(core->state)) {
		note_cause(core, code, side, step);
		core->abort_asked = true;
	}
}

static enum step step_of_state(enum migration_state state)
{
	switch (state) {
	case MIGRATION_CHECKING:
		return STEP_CHECK;
	case MIGRATION_PREPARING:
		return STEP_PREPARE;
	case MIGRATION_COPYING:
		return STEP_COPY;
	case MIGRATION_SWITCHING:
	case MIGRATION_IN_DOUBT:
		return STEP_SWITCH;
	case MIGRATION_COMMITTED:
		return STEP_RELEASE;
	case MIGRATION_ROLLING_BACK:
		return STEP_ABORT;
	case MIGRATION_QUEUED:
	case MIGRATION_DONE:
	case MIGRATION_CANCELLED:
	case MIGRATION_FAILED:
	case MIGRATION_LOST:
	case MIGRATION_STATES:
		break;
	}
	return STEP_NONE;
}

static void hear(struct migration_core *core, const struct migration_event *event, bool *ret_conflict)
{
	if (event->phase == PHASE_NONE)
		return;
	if (core->state == MIGRATION_QUEUED) /* nobody was asked for anything yet */
		return;
	migration_side_of(core, event->side)->phase = event->phase;
	verdict_learn(&core->facts, &event->facts, ret_conflict);
}

static void on_report(struct migration_core *core, const struct migration_event *event)
{
	if (event->code != ERR_NONE)
		give_up(core, event->code, event->side, step_of_state(core->state));
	else if (event->phase == PHASE_ROLLING_BACK || event->phase == PHASE_ROLLED_BACK)
		give_up(core, ERR_PEER_LOST, event->side, step_of_state(core->state));
}

static void on_final_answer(struct migration_core *core, const struct migration_event *event)
{
	struct migration_side *part = migration_side_of(core, event->side);
	bool done = event->outcome == OUTCOME_DONE;
	/* Who does not know the session (any more) has nothing to clean up or forget. */
	bool unknown = event->outcome == OUTCOME_REFUSED && event->code == ERR_UNKNOWN_ID;
	if (!done && !unknown)
		return;
	if (event->step == STEP_FORGET)
		part->forget_owed = false;
	else if (event->step == migration_command(core, event->side))
		part->cleanup_owed = false;
}

static void on_answer(struct migration_core *core, const struct migration_event *event)
{
	if (event->step <= STEP_NONE || event->step >= STEPS)
		return;
	struct migration_side *part = migration_side_of(core, event->side);
	if (migration_is_final(core->state)) {
		on_final_answer(core, event);
		return;
	}
	if (core->state == MIGRATION_QUEUED)
		return;
	enum step due = migration_command(core, event->side);
	if (event->outcome == OUTCOME_DONE) {
		part->done[event->step] = true;
	} else if (event->outcome == OUTCOME_REFUSED && event->step == due) {
		/* A refused SWITCH, ABORT or RELEASE decides nothing: the votes do. A refused ABORT is asked again. */
		if ((due == STEP_ABORT || due == STEP_RELEASE) && event->code == ERR_UNKNOWN_ID)
			part->done[due] = true; /* its part was over and is forgotten: nothing is held there */
		else if (due != STEP_ABORT && due != STEP_RELEASE)
			give_up(core, event->code == ERR_NONE ? ERR_INTERNAL : event->code, event->side, event->step);
	}
	if (event->step < STEP_ABORT)
		on_report(core, &(struct migration_event) { .side = event->side, .phase = event->phase });
}

static void on_rebooted(struct migration_core *core, enum side side)
{
	struct migration_side *part = migration_side_of(core, side);
	if (core->state == MIGRATION_QUEUED || migration_is_final(core->state))
		return;
	if (part->done[STEP_ABORT] || part->done[STEP_RELEASE]) /* its part was over before: this is another story */
		return;
	part->rebooted = true;
	part->phase = PHASE_NONE;
	give_up(core, ERR_HOST_LOST, side, step_of_state(core->state));
}

static void on_cancel(struct migration_core *core)
{
	if (core->state == MIGRATION_QUEUED) {
		note_cause(core, ERR_CANCELLED, 0, STEP_NONE);
		core->state = MIGRATION_CANCELLED; /* nobody was asked for anything: nothing is owed */
		return;
	}
	give_up(core, ERR_CANCELLED, 0, step_of_state(core->state));
}

const char *migration_resolve_refusal(const struct migration_core *core, enum side owner)
{
	const struct verdict_facts *facts = &core->facts;
	const struct migration_side *other = &core->side[owner == SIDE_SOURCE];
	enum vote ruling = owner == SIDE_SOURCE ? VOTE_ABORT : VOTE_COMMIT;
	bool lost = core->state == MIGRATION_LOST && core->side[0].cleanup_owed;
	if (facts->ruling == ruling)
		return NULL;
	if (facts->ruling != VOTE_NONE)
		return "it was resolved the other way before";
	if (!is_vote_state(core->state) && core->state != MIGRATION_COMMITTED && !lost)
		return "nothing is in doubt";
	if (core->side[owner == SIDE_DESTINATION].written_off)
		return "that host was written off: it is gone for good, and the VM with it";
	if (owner == SIDE_SOURCE && (facts->running || facts->released))
		return "the destination has run the VM, and the source has let go of it or is about to";
	if (owner == SIDE_DESTINATION && (facts->renounced || facts->vote[PARTY_DESTINATION] != VOTE_COMMIT))
		return "the destination is not known to hold a whole copy";
	if (owner == SIDE_DESTINATION && core->state == MIGRATION_COMMITTED)
		return "the verdict is commit already: the destination owns the VM";
	if (owner == SIDE_DESTINATION && lost && !facts->activating) /* V10 */
		return "the destination is not known to have begun to run the VM: its source is all that is left";
	/* A lost VM is not on the source for certain: it is suspended there. */
	if (other->reach != REACH_SUSPECTED && !other->rebooted && !(lost && owner == SIDE_DESTINATION))
		return "the other host is heard of, or was until a moment ago: power it off first";
	return NULL;
}

static void on_resolve(struct migration_core *core, enum side owner)
{
	if (core->facts.ruling != VOTE_NONE || migration_resolve_refusal(core, owner))
		return;
	core->facts.ruling = owner == SIDE_SOURCE ? VOTE_ABORT : VOTE_COMMIT;
	if (owner == SIDE_SOURCE)
		note_cause(core, ERR_HOST_LOST, SIDE_DESTINATION, STEP_SWITCH);
	if (core->state != MIGRATION_LOST)
		return;
	for (int i = 0; i < 2; i++)
		core->side[i].cleanup_owed = core->side[i].forget_owed = false; /* finish() says it anew */
	core->state = MIGRATION_SWITCHING;
}

const char *migration_write_off_refusal(const struct migration_core *core, enum side side)
{
	if (migration_side_get(core, side)->reach != REACH_SUSPECTED && core->state != MIGRATION_QUEUED &&
	    !migration_is_final(core->state))
		return "the host is heard of, or was until a moment ago";
	if (is_vote_state(core->state))
		return "who owns the VM is not decided: resolve it first";
	return NULL;
}

static void on_written_off(struct migration_core *core, enum side side)
{
	struct migration_side *part = migration_side_of(core, side);
	if (migration_write_off_refusal(core, side))
		return;
	part->written_off = true;
	part->cleanup_owed = part->forget_owed = false;
	if (core->state == MIGRATION_QUEUED) {
		note_cause(core, ERR_HOST_LOST, side, STEP_NONE);
		core->state = MIGRATION_FAILED; /* nobody was asked for anything: nothing is owed */
	} else {
		give_up(core, ERR_HOST_LOST, side, step_of_state(core->state));
	}
}

static void apply(struct migration_core *core, const struct migration_event *event)
{
	struct migration_side *part = migration_side_of(core, event->side);
	switch (event->kind) {
	case MIGRATION_EVENT_ADMITTED:
		if (core->state == MIGRATION_QUEUED)
			core->state = MIGRATION_CHECKING;
		break;
	case MIGRATION_EVENT_ANSWER:
		on_answer(core, event);
		break;
	case MIGRATION_EVENT_REPORT:
		on_report(core, event);
		break;
	case MIGRATION_EVENT_HOST_UP:
		part->reach = REACH_UP;
		part->written_off = false; /* not gone after all */
		break;
	case MIGRATION_EVENT_SUSPECTED:
		part->reach = REACH_SUSPECTED;
		break;
	case MIGRATION_EVENT_GIVEN_UP:
		part->reach = REACH_SUSPECTED;
		give_up(core, ERR_HOST_DOWN, event->side, step_of_state(core->state));
		break;
	case MIGRATION_EVENT_REBOOTED:
		on_rebooted(core, event->side);
		break;
	case MIGRATION_EVENT_JOURNAL_LOST:
		if (core->state != MIGRATION_QUEUED)
			part->journal_lost = true;
		give_up(core, ERR_HOST_LOST, event->side, step_of_state(core->state));
		break;
	case MIGRATION_EVENT_CANCEL:
		on_cancel(core);
		break;
	case MIGRATION_EVENT_DEADLINE:
		give_up(core, ERR_TIMEOUT, 0, step_of_state(core->state));
		break;
	case MIGRATION_EVENT_RESTART:
		core->side[0].reach = core->side[1].reach = REACH_UNKNOWN;
		break;
	case MIGRATION_EVENT_RESOLVE:
		on_resolve(core, event->side);
		break;
	case MIGRATION_EVENT_WRITTEN_OFF:
		on_written_off(core, event->side);
		break;
	case MIGRATION_EVENT_RETRY:
	case MIGRATION_EVENT_KINDS:
		break;
	}
}

/* What is new in `next`, and what is due because of the event, as a list. */
static void diff(const struct migration_core *before, const struct migration_core *next,
                 const struct migration_event *event, bool fresh, struct migration_actions *actions)
{
	if (before->cause == ERR_NONE && next->cause != ERR_NONE)
		add_action(actions, MIGRATION_ACTION_CAUSE, next->cause_side, next->cause_step);
	if (next->state != before->state) {
		add_action(actions, MIGRATION_ACTION_DEADLINE, 0, STEP_NONE);
		if (migration_is_final(next->state))
			add_action(actions, MIGRATION_ACTION_FINISH, 0, STEP_NONE);
	}
	for (int i = 0; i < 2; i++) {
		enum side side = i == 0 ? SIDE_SOURCE : SIDE_DESTINATION;
		bool again = event->kind == MIGRATION_EVENT_RESTART ||
		             (event->side == side &&
		              (event->kind == MIGRATION_EVENT_RETRY || event->kind == MIGRATION_EVENT_HOST_UP));
		enum step step = migration_command(next, side);
		if (facts_matter(next, side) && (fresh || again || next->state != before->state))
			add_action(actions, MIGRATION_ACTION_TELL, side, STEP_NONE);
		if (step != STEP_NONE && (again || step != migration_command(before, side)))
			add_action(actions, MIGRATION_ACTION_SEND, side, step);
	}
}

void migration_step(const struct migration_core *core, const struct migration_event *event,
                    struct migration_core *ret_next, struct migration_actions *ret_actions)
{
	struct migration_core before = *core, next = *core;
	bool conflict = false;
	ret_actions->count = 0;
	if (event->kind == MIGRATION_EVENT_ANSWER || event->kind == MIGRATION_EVENT_REPORT)
		hear(&next, event, &conflict);
	apply(&next, event);
	settle(&next);
	if (conflict)
		add_action(ret_actions, MIGRATION_ACTION_CONFLICT, event->side, STEP_NONE);
	bool fresh = !facts_equal(&before.facts, &next.facts);
	diff(&before, &next, event, fresh, ret_actions);
	*ret_next = next;
}

enum migration_cancel migration_cancel_answer(const struct migration_core *core)
{
	switch (core->state) {
	case MIGRATION_QUEUED:
	case MIGRATION_CHECKING:
	case MIGRATION_PREPARING:
	case MIGRATION_COPYING:
	case MIGRATION_ROLLING_BACK:
	case MIGRATION_CANCELLED:
		return CANCEL_CANCELLED;
	case MIGRATION_SWITCHING:
	case MIGRATION_IN_DOUBT:
		return CANCEL_PENDING;
	case MIGRATION_COMMITTED:
	case MIGRATION_DONE:
	case MIGRATION_FAILED:
	case MIGRATION_LOST:
	case MIGRATION_STATES:
		break;
	}
	return CANCEL_TOO_LATE;
}

const char *migration_authority(const struct migration_core *core)
{
	if (core->state == MIGRATION_LOST)
		return "none";
	if (core->state == MIGRATION_SWITCHING || core->state == MIGRATION_IN_DOUBT) {
		bool silent = core->state == MIGRATION_IN_DOUBT && verdict_of(&core->facts) == VOTE_NONE;
		return silent ? "undecided" : verdict_authority(&core->facts);
	}
	if (core->state == MIGRATION_COMMITTED || core->state == MIGRATION_DONE)
		return "destination";
	return "source";
}
