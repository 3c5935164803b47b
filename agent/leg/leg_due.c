/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is known and what is due by it. Main thread, but for the leg_post_… functions. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/leg/leg.h"
#include "common/clock.h"
#include "common/log.h"

#define RETRY_MS 1000

int64_t leg_now_ms(void)
{
	return clock_ms(&clock_real);
}

struct leg_view leg_view(const struct leg *leg)
{
	return (struct leg_view) {
		.side = leg->options.side,
		.recover = leg->options.recover,
		.planned = leg->plan != NULL,
		.busy = leg->busy != 0,
		.prepared = leg->prepared,
		.copying = leg->copying,
		.ready = atomic_load(&leg->ready),
		.recovering = leg->recovering,
		.settled = leg->settled,
		.released = leg->released,
		.facts = leg->facts,
		.local = leg->local,
	};
}

enum vote leg_own_vote(const struct leg *leg)
{
	return leg->facts.vote[leg->side->party];
}

/* ---- jobs ---- */
static bool job_done(struct leg *leg, enum job_kind kind, const char *what, int rc, const struct err *err)
{
	leg->busy &= ~(unsigned)kind;
	if (rc)
		log_error("event=%s-failed migration=%" PRIu64 " side=%s code=%s error=\"%s\"", what,
		          leg->options.migration, side_name(leg->options.side), err_name(err->code), err->text);
	else
		log_info("event=%s migration=%" PRIu64 " side=%s", what, leg->options.migration,
		         side_name(leg->options.side));
	return rc == 0;
}

static void again(struct leg *leg)
{
	leg->retry_at_ms = leg_now_ms() + RETRY_MS;
}

static void recover_done(struct leg *leg, int rc, const struct err *err)
{
	if (!job_done(leg, JOB_RECOVER, "looked-round", rc, err))
		again(leg);
	else
		leg->recovering = false;
	leg_due(leg);
}

static void prepare_done(struct leg *leg, int rc, const struct err *err)
{
	leg->prepared = job_done(leg, JOB_PREPARE, "prepared", rc, err);
	if (!leg->prepared)
		leg_fail(leg, err);
	else if (leg->commands[STEP_PREPARE].state == COMMAND_PENDING && !leg->local.failed)
		leg_answer(leg, STEP_PREPARE, NULL);
	leg_due(leg);
}

static void copy_done(struct leg *leg, int rc, const struct err *err)
{
	if (!job_done(leg, JOB_COPY, "copied", rc, err))
		leg_fail(leg, err);
	leg_due(leg);
}

static void vm_done(struct leg *leg, int rc, const struct err *err)
{
	bool source = leg->options.side == SIDE_SOURCE;
	struct verdict_facts flag = { .resumed = source, .running = !source };
	struct err why = { 0 };
	const char *what = !source ? "running" : leg->local.image_gone ? "not-resumed" : "resumed";
	if (!job_done(leg, JOB_VM, what, rc, err)) {
		again(leg);
	} else if (leg->local.image_gone || leg->local.unpause_failed) {
		; /* nothing runs, and that is a fact of its own */
	} else if (journal_flag(leg->journal, leg->options.migration, leg->options.generation, &flag, &leg->local,
	                        &leg->facts, &why)) {
		log_error("event=not-journaled flag=%s error=\"%s\"", source ? "resumed" : "running", why.text);
		again(leg);
	}
	leg->side->facts(leg);
	leg_due(leg);
}

static void clean_done(struct leg *leg, int rc, const struct err *err)
{
	leg->settled = job_done(leg, JOB_CLEAN, "rolled-back", rc, err);
	if (!leg->settled)
		again(leg);
	leg_due(leg);
}

static void release_done(struct leg *leg, int rc, const struct err *err)
{
	leg->released = job_done(leg, JOB_RELEASE, "released", rc, err);
	if (!leg->released)
		again(leg);
	leg_due(leg);
}

void leg_job(struct leg *leg, enum job_kind kind)
{
	if (leg->busy & kind)
		return;
	leg->busy |= kind;
	switch (kind) {
	case JOB_RECOVER:
		conductor_job(leg->conductor, leg->side->recover, recover_done);
		break;
	case JOB_PREPARE:
		conductor_job(leg->conductor, leg->side->prepare, prepare_done);
		break;
	case JOB_COPY:
		conductor_job(leg->conductor, leg->side->copy, copy_done);
		break;
	case JOB_VM:
		conductor_job(leg->conductor, leg->side->vm, vm_done);
		break;
	case JOB_CLEAN:
		conductor_job(leg->conductor, leg->side->clean, clean_done);
		break;
	case JOB_RELEASE:
		conductor_job(leg->conductor, leg->side->release, release_done);
		break;
	}
}

/* ---- facts ---- */
static void tell_peer(struct leg *leg)
{
	/* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): padding that differs costs one frame more */
	if (memcmp(&leg->told_peer, &leg->facts, sizeof(leg->facts)) == 0)
		return;
	unsigned char payload[64];
	leg->told_peer = leg->facts;
	leg_link_post(leg, FRAME_FACTS, payload, frame_facts_put(payload, &leg->facts));
}

void leg_learn(struct leg *leg, const struct verdict_facts *news)
{
	struct verdict_facts known = leg->facts;
	struct err err = { 0 };
	bool conflict = false;
	if (!verdict_learn(&known, news, &conflict) && !conflict)
		return;
	if (journal_facts_add(leg->journal, leg->options.migration, leg->options.generation, news, &leg->facts, &err)) {
		log_error("event=facts-not-taken migration=%" PRIu64 " error=\"%s\"", leg->options.migration, err.text);
		return;
	}
	leg->side->facts(leg);
	leg_due(leg);
}

static const char *vote_text(enum vote vote)
{
	const char *name = vote_name(vote);
	return name ? name : "none";
}

static bool cast(struct leg *leg, enum vote vote)
{
	struct err err = { 0 };
	if (journal_vote(leg->journal, leg->options.migration, leg->options.generation, leg->options.side, vote,
	                 &leg->local, &leg->facts, &err)) {
		log_error("event=vote-not-cast migration=%" PRIu64 " vote=%s error=\"%s\"", leg->options.migration,
		          vote_text(vote), err.text);
		return false;
	}
	log_notice("event=vote migration=%" PRIu64 " side=%s vote=%s", leg->options.migration,
	           side_name(leg->options.side), vote_text(vote));
	return true;
}

static bool set_flag(struct leg *leg, const struct verdict_facts *flag, const char *name)
{
	struct err err = { 0 };
	if (journal_flag(leg->journal, leg->options.migration, leg->options.generation, flag, &leg->local, &leg->facts,
	                 &err)) {
		log_error("event=not-journaled migration=%" PRIu64 " flag=%s error=\"%s\"", leg->options.migration,
		          name, err.text);
		return false;
	}
	log_notice("event=fact migration=%" PRIu64 " side=%s fact=%s", leg->options.migration,
	           side_name(leg->options.side), name);
	return true;
}

static bool write_fact(struct leg *leg, enum leg_write write)
{
	switch (write) {
	case LEG_WRITE_COMMIT:
		return cast(leg, VOTE_COMMIT);
	case LEG_WRITE_ABORT:
		return cast(leg, VOTE_ABORT);
	case LEG_WRITE_RENOUNCED:
		return set_flag(leg, &(struct verdict_facts) { .renounced = true }, "renounced");
	case LEG_WRITE_ACTIVATING:
		return set_flag(leg, &(struct verdict_facts) { .activating = true }, "activating");
	case LEG_WRITE_NONE:
		break;
	}
	return true;
}

/* Journals what is due until nothing more is, or the journal says no (then it is tried again, and false returned). */
static bool journal_due(struct leg *leg)
{
	for (;;) {
		struct leg_view view = leg_view(leg);
		enum leg_write write = leg_write_due(&view);
		if (write == LEG_WRITE_NONE)
			return true;
		if (!write_fact(leg, write)) {
			again(leg);
			return false;
		}
		leg->side->facts(leg);
	}
}

void leg_rollback_began(struct leg *leg)
{
	if (atomic_load(&leg->rollback_at_ms) == 0)
		atomic_store(&leg->rollback_at_ms, leg_now_ms());
}

void leg_due(struct leg *leg)
{
	if (leg->recovering) {
		if (leg_now_ms() >= leg->retry_at_ms)
			leg_job(leg, JOB_RECOVER);
		leg_report(leg, false);
		return;
	}
	bool journaled = journal_due(leg);
	struct leg_view view = leg_view(leg);
	tell_peer(leg);
	if (leg_rolls_back(&view)) {
		leg_rollback_began(leg);
		cancel_fire(leg->work);
	}
	if (leg_now_ms() >= leg->retry_at_ms) {
		if (journaled && leg_vm_due(&view))
			leg_job(leg, JOB_VM);
		if (leg_clean_due(&view))
			leg_job(leg, JOB_CLEAN);
	}
	leg_report(leg, false);
	leg_settle(leg);
}

void leg_fail(struct leg *leg, const struct err *cause)
{
	struct leg_view view = leg_view(leg);
	if (!leg_failure_counts(&view)) {
		/* From here on a failure is no reason for anything: the votes decide. */
		log_info("event=failure-after-the-stream migration=%" PRIu64 " error=\"%s\"", leg->options.migration,
		         cause->text);
		return;
	}
	bool first = !leg->local.failed;
	leg->local.failed = true;
	/* What fails because it was cancelled is no cause, nor is anything after the first. */
	if (first && leg->cause.code == ERR_NONE && !leg->local.abort_asked && leg_own_vote(leg) == VOTE_NONE) {
		unsigned char payload[LINK_POST_BYTES];
		leg->cause = *cause;
		log_error("event=failed migration=%" PRIu64 " side=%s code=%s error=\"%s\"", leg->options.migration,
		          side_name(leg->options.side), err_name(cause->code), cause->text);
		leg_link_post(leg, FRAME_ERROR, payload, frame_error_put(payload, cause));
	}
	const enum step steps[] = { STEP_PREPARE, STEP_COPY };
	for (unsigned i = 0; i < 2; i++)
		if (leg->commands[steps[i]].state == COMMAND_PENDING)
			leg_answer(leg, steps[i], leg->cause.code ? &leg->cause : cause);
	leg_due(leg);
}

/* ---- from other threads ---- */
static void post_copy(struct leg *leg, void (*fn)(struct leg *leg, void *arg), const void *arg, size_t bytes)
{
	void *copy = malloc(bytes);
	if (!copy)
		abort(); /* as in queue_post */
	memcpy(copy, arg, bytes);
	queue_post(leg->queue, fn, copy);
}

static void on_fail(struct leg *leg, void *arg)
{
	leg_fail(leg, arg);
}

void leg_post_fail(struct leg *leg, const struct err *cause)
{
	post_copy(leg, on_fail, cause, sizeof(*cause));
}

static void on_learn(struct leg *leg, void *arg)
{
	leg_learn(leg, arg);
}

void leg_post_learn(struct leg *leg, const struct verdict_facts *news)
{
	post_copy(leg, on_learn, news, sizeof(*news));
}

static void on_link_up(struct leg *leg, void *arg)
{
	(void)arg;
	leg->told_peer = (struct verdict_facts) { 0 };
	leg_due(leg);
}

void leg_post_link_up(struct leg *leg)
{
	queue_post(leg->queue, on_link_up, NULL);
}

static void on_begun(struct leg *leg, void *arg)
{
	(void)arg;
	leg->copying = true;
	leg_answer(leg, STEP_COPY, NULL);
	leg_due(leg);
}

void leg_post_begun(struct leg *leg)
{
	queue_post(leg->queue, on_begun, NULL);
}

static void on_image_gone(struct leg *leg, void *arg)
{
	(void)arg;
	leg->local.image_gone = true;
	leg_due(leg);
}

void leg_post_image_gone(struct leg *leg)
{
	queue_post(leg->queue, on_image_gone, NULL);
}

static void on_complete(struct leg *leg, void *arg)
{
	(void)arg;
	leg->local.complete = true;
	leg_due(leg);
}

void leg_post_complete(struct leg *leg)
{
	queue_post(leg->queue, on_complete, NULL);
}

static void on_unpause_failed(struct leg *leg, void *arg)
{
	(void)arg;
	leg->local.unpause_failed = true;
	leg_due(leg);
}

void leg_post_unpause_failed(struct leg *leg)
{
	queue_post(leg->queue, on_unpause_failed, NULL);
}

static void on_ready(struct leg *leg, void *arg)
{
	(void)arg;
	leg_due(leg);
}

void leg_post_ready(struct leg *leg)
{
	atomic_store(&leg->ready, true);
	queue_post(leg->queue, on_ready, NULL);
}

struct flag_call {
	struct verdict_facts flag;
};

static int do_flag(struct leg *leg, void *arg, struct err *err)
{
	struct flag_call *call = arg;
	int rc = journal_flag(leg->journal, leg->options.migration, leg->options.generation, &call->flag, &leg->local,
	                      &leg->facts, err);
	if (!rc) {
		leg->side->facts(leg);
		leg_due(leg);
	}
	return rc;
}

int leg_flag(struct leg *leg, const struct verdict_facts *flag, struct err *err)
{
	struct flag_call call = { *flag };
	return queue_call(leg->queue, do_flag, &call, err);
}

static int do_facts(struct leg *leg, void *arg, struct err *err)
{
	(void)err;
	*(struct verdict_facts *)arg = leg->facts;
	return 0;
}

int leg_facts_now(struct leg *leg, struct verdict_facts *ret_facts, struct err *err)
{
	return queue_call(leg->queue, do_facts, ret_facts, err);
}

static int do_add(struct leg *leg, void *arg, struct err *err)
{
	struct journal_resource *resource = arg;
	resource->migration = leg->options.migration;
	resource->generation = leg->options.generation;
	return journal_resource_add(leg->journal, resource, &resource->id, err);
}

int leg_resource_add(struct leg *leg, struct journal_resource *resource, struct err *err)
{
	return queue_call(leg->queue, do_add, resource, err);
}

static int do_update(struct leg *leg, void *arg, struct err *err)
{
	return journal_resource_update(leg->journal, arg, err);
}

int leg_resource_update(struct leg *leg, const struct journal_resource *resource, struct err *err)
{
	struct journal_resource copy = *resource;
	return queue_call(leg->queue, do_update, &copy, err);
}

static int do_gone(struct leg *leg, void *arg, struct err *err)
{
	return journal_resource_gone(leg->journal, *(int64_t *)arg, err);
}

int leg_resource_gone(struct leg *leg, int64_t id, struct err *err)
{
	return queue_call(leg->queue, do_gone, &id, err);
}

struct list_call {
	struct journal_resource *list;
	size_t count;
};

static int do_list(struct leg *leg, void *arg, struct err *err)
{
	struct list_call *call = arg;
	return journal_resource_list(leg->journal, leg->options.migration, leg->options.generation, &call->list,
	                             &call->count, err);
}

int leg_resource_list(struct leg *leg, struct journal_resource **ret_list, size_t *ret_count, struct err *err)
{
	struct list_call call = { NULL, 0 };
	int rc = queue_call(leg->queue, do_list, &call, err);
	*ret_list = call.list;
	*ret_count = call.count;
	return rc;
}

struct kept_call {
	unsigned disk;
	struct journal_resource kept;
};

static int do_take(struct leg *leg, void *arg, struct err *err)
{
	struct kept_call *call = arg;
	struct err why = { 0 };
	int found = journal_kept_find(leg->journal, leg->plan, call->disk, &call->kept, err);
	if (found != 1)
		return found;
	if (journal_kept_take(leg->journal, call->kept.id, leg->options.migration, leg->options.generation,
	                      RESOURCE_MADE, &why) == 0) {
		call->kept.state = RESOURCE_MADE;
		return 1;
	}
	if (why.code == ERR_UNKNOWN_ID) /* its time was over just now */
		return 0;
	*err = why;
	return -1;
}

int leg_kept_take(struct leg *leg, unsigned disk, struct journal_resource *ret_kept, struct err *err)
{
	struct kept_call call = { .disk = disk };
	int found = queue_call(leg->queue, do_take, &call, err);
	*ret_kept = call.kept;
	return found;
}

static int do_kept_until(struct leg *leg, void *arg, struct err *err)
{
	(void)err;
	leg->kept_until_wall_ms = *(uint64_t *)arg;
	return 0;
}

int leg_kept_until(struct leg *leg, uint64_t until_wall_ms, struct err *err)
{
	return queue_call(leg->queue, do_kept_until, &until_wall_ms, err);
}

/* ---- stream 0 ---- */
void leg_link_set(struct leg *leg, struct link *link)
{
	pthread_mutex_lock(&leg->link_lock);
	leg->link = link;
	pthread_mutex_unlock(&leg->link_lock);
}

struct link *leg_link_take(struct leg *leg)
{
	pthread_mutex_lock(&leg->link_lock);
	struct link *link = leg->link;
	leg->link = NULL;
	pthread_mutex_unlock(&leg->link_lock);
	return link;
}

void leg_link_post(struct leg *leg, enum frame_type type, const void *payload, uint32_t bytes)
{
	pthread_mutex_lock(&leg->link_lock);
	if (leg->link)
		link_post(leg->link, type, payload, bytes);
	pthread_mutex_unlock(&leg->link_lock);
}
