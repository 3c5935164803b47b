/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The migrations under way: what comes in for which of them, deadlines, retries, admission. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "coordinator/coordinator_room.h"
#include "coordinator/core/admission.h"

#define LOAD_PAGE 256

struct run *run_find(const struct coordinator *c, uint64_t id)
{
	for (size_t i = 0; i < c->run_count; i++)
		if (c->runs[i]->rec.id == id)
			return c->runs[i];
	return NULL;
}

struct run *run_add(struct coordinator *c, const struct store_migration *rec, const struct msg_plan *plan)
{
	if (c->run_count == c->run_room) {
		size_t room = c->run_room ? 2 * c->run_room : 16;
		struct run **bigger = realloc(c->runs, room * sizeof(*bigger));
		if (!bigger)
			return NULL;
		c->runs = bigger;
		c->run_room = room;
	}
	struct run *run = calloc(1, sizeof(*run));
	if (!run)
		return NULL;
	run->rec = *rec;
	run->plan = *plan;
	run->state_ms = coordinator_now_ms(c);
	c->runs[c->run_count++] = run;
	c->admit = true;
	return run;
}

static void run_free(struct run *run)
{
	store_migration_free(&run->rec);
	free(run);
}

void runs_free(struct coordinator *c)
{
	for (size_t i = 0; i < c->run_count; i++)
		run_free(c->runs[i]);
	free(c->runs);
}

/* Takes over *rec. NULL: failed. */
static struct run *load_one(struct coordinator *c, struct store_migration *rec, struct err *err)
{
	struct msg_plan *plan = calloc(1, sizeof(*plan));
	struct run *run = NULL;
	if (!plan)
		err_set(err, ERR_NO_MEMORY, "load migrations: no memory");
	else if (store_plan_get(c->store, rec->id, plan, err) < 0)
		err_wrap(err, "load migration %llu", (unsigned long long)rec->id);
	else if (!(run = run_add(c, rec, plan)))
		err_set(err, ERR_NO_MEMORY, "load migrations: no memory");
	free(plan);
	if (!run)
		store_migration_free(rec);
	return run;
}

/* All of one filter, page by page. */
static int load_all(struct coordinator *c, bool owed, struct err *err)
{
	struct store_filter filter = { .limit = LOAD_PAGE, .owed_only = owed };
	size_t count = LOAD_PAGE;
	while (count == LOAD_PAGE) {
		struct store_migration *list = NULL;
		if (store_migration_list(c->store, &filter, &list, &count, err) != 0)
			return -1;
		int result = 0;
		for (size_t i = 0; i < count; i++) {
			filter.after = list[i].id;
			if (result != 0)
				store_migration_free(&list[i]);
			else if (!load_one(c, &list[i], err))
				result = -1;
		}
		free(list);
		if (result != 0)
			return -1;
	}
	return 0;
}

int runs_load(struct coordinator *c, struct err *err)
{
	if (load_all(c, false, err) != 0 || load_all(c, true, err) != 0)
		return -1;
	const struct migration_event event = { .kind = MIGRATION_EVENT_RESTART };
	for (size_t i = 0; i < c->run_count; i++)
		run_event(c, c->runs[i], &event, NULL);
	return c->failed ? err_set(err, ERR_IO, "load migrations: the records cannot be written") : 0;
}

static void sweep(struct coordinator *c)
{
	size_t kept = 0;
	for (size_t i = 0; i < c->run_count; i++) {
		if (c->runs[i]->over)
			run_free(c->runs[i]);
		else
			c->runs[kept++] = c->runs[i];
	}
	c->run_count = kept;
}

/* ---- what comes from hosts ---- */

static bool has_side(const struct run *run, const char *host, enum side side)
{
	return strcmp(run_host(&run->rec, side), host) == 0;
}

void runs_host_event(struct coordinator *c, const struct host *host, enum migration_event_kind kind, const char *words)
{
	for (size_t i = 0; i < c->run_count && !c->failed; i++)
		for (int side = SIDE_SOURCE; side <= SIDE_DESTINATION; side++)
			if (has_side(c->runs[i], host->rec.name, (enum side)side))
				run_event(c, c->runs[i],
				          &(struct migration_event) { .kind = kind, .side = (enum side)side }, words);
}

static void compare_identity(struct coordinator *c, struct run *run, const struct host *host, enum side side)
{
	const struct store_party *party = &run->rec.party[side == SIDE_DESTINATION];
	struct migration_event event = { .side = side };
	if (party->boot_id[0] && strcmp(party->boot_id, host->rec.boot_id) != 0 &&
	    !migration_side_get(&run->rec.core, side)->rebooted) {
		event.kind = MIGRATION_EVENT_REBOOTED;
		run_event(c, run, &event, "the host was booted again since the migration began");
	}
	if (party->journal_id[0] && strcmp(party->journal_id, host->rec.journal_id) != 0 &&
	    !migration_side_get(&run->rec.core, side)->journal_lost) {
		event.kind = MIGRATION_EVENT_JOURNAL_LOST;
		run_event(c, run, &event, "the host's journal is not the one with which the migration began");
	}
}

void runs_host_identity(struct coordinator *c, const struct host *host)
{
	for (size_t i = 0; i < c->run_count && !c->failed; i++)
		for (int side = SIDE_SOURCE; side <= SIDE_DESTINATION; side++)
			if (has_side(c->runs[i], host->rec.name, (enum side)side))
				compare_identity(c, c->runs[i], host, (enum side)side);
}

/* A host still has a session of a migration that is over: it is told to forget it again. */
static struct run *revive(struct coordinator *c, const struct host *host, const struct msg_session *session)
{
	struct store_migration rec;
	struct err err;
	err_clear(&err);
	int found = store_migration_get(c->store, session->migration, &rec, &err);
	if (found != 1 || rec.generation != session->generation || !migration_is_final(rec.core.state) ||
	    strcmp(run_host(&rec, session->side), host->rec.name) != 0) {
		log_warning("event=unknown-session host=%s migration=%llu generation=%u phase=%s", host->rec.name,
		            (unsigned long long)session->migration, session->generation,
		            session_phase_name(session->phase));
		if (found == 1)
			store_migration_free(&rec);
		return NULL;
	}
	struct migration_side *side = migration_side_of(&rec.core, session->side);
	side->written_off = false; /* not gone after all */
	side->forget_owed = true;
	side->cleanup_owed = session->phase != PHASE_RELEASED && session->phase != PHASE_ROLLED_BACK;
	struct run *run = load_one(c, &rec, &err);
	if (!run) {
		log_error("event=revive code=%s text=\"%s\"", err_name(err.code), err.text);
		return NULL;
	}
	run->dirty = true;
	log_notice("event=revive migration=%llu host=%s phase=%s", (unsigned long long)run->rec.id, host->rec.name,
	           session_phase_name(session->phase));
	run_event(c, run, &(struct migration_event) { .kind = MIGRATION_EVENT_HOST_UP, .side = session->side }, NULL);
	return run;
}

static void keep_larger(uint32_t *known, uint32_t heard, bool *ret_dirty)
{
	if (heard <= *known)
		return;
	*known = heard;
	*ret_dirty = true;
}

/* Each side measures its parts of the downtime; what is larger is the whole of it. */
static void merge_budget(struct run *run, const struct msg_budget *heard)
{
	struct msg_budget *known = &run->rec.budget;
	keep_larger(&known->total_ms, heard->total_ms, &run->dirty);
	keep_larger(&known->suspend_ms, heard->suspend_ms, &run->dirty);
	keep_larger(&known->final_memory_ms, heard->final_memory_ms, &run->dirty);
	keep_larger(&known->final_disk_ms, heard->final_disk_ms, &run->dirty);
	keep_larger(&known->verify_ms, heard->verify_ms, &run->dirty);
	keep_larger(&known->votes_ms, heard->votes_ms, &run->dirty);
	keep_larger(&known->activate_ms, heard->activate_ms, &run->dirty);
}

static void merge_session(struct run *run, const struct msg_session *session)
{
	merge_budget(run, &session->budget);
	/* The source keeps its disks after a commit, the destination what was copied after an abort: never both. */
	if (session->kept_until_wall_ms != 0 && session->kept_until_wall_ms != run->rec.kept_until_wall_ms) {
		run->rec.kept_until_wall_ms = session->kept_until_wall_ms;
		run->dirty = true;
	}
}

void runs_session(struct coordinator *c, struct host *host, const struct msg_session *session)
{
	struct run *run = run_find(c, session->migration);
	if (!run)
		run = revive(c, host, session);
	if (!run || c->failed)
		return;
	if (session->generation != run->rec.generation || !has_side(run, host->rec.name, session->side)) {
		log_warning("event=ignored kind=report host=%s migration=%llu generation=%u side=%s", host->rec.name,
		            (unsigned long long)session->migration, session->generation, side_name(session->side));
		return;
	}
	merge_session(run, session);
	const struct migration_event event = { .kind = MIGRATION_EVENT_REPORT,
		                               .side = session->side,
		                               .phase = session->phase,
		                               .facts = session->facts,
		                               .code = session->cause.code };
	run_event(c, run, &event, session->cause.code != ERR_NONE ? session->cause.text : NULL);
}

/* A PREPARE without what COPY needs is none. */
static void take_prepared(struct run *run, const struct msg_answer *answer, struct migration_event *event,
                          const char **words)
{
	struct store_party *party = &run->rec.party[answer->side == SIDE_DESTINATION];
	if (answer->fingerprint[0] == '\0' || (answer->side == SIDE_DESTINATION && answer->endpoint[0] == '\0')) {
		event->outcome = OUTCOME_REFUSED;
		event->code = ERR_PROTOCOL;
		*words = "the answer to prepare has no fingerprint or endpoint";
		return;
	}
	if (strcmp(party->fingerprint, answer->fingerprint) == 0 && strcmp(party->endpoint, answer->endpoint) == 0)
		return;
	(void)snprintf(party->fingerprint, sizeof(party->fingerprint), "%s", answer->fingerprint);
	(void)snprintf(party->endpoint, sizeof(party->endpoint), "%s", answer->endpoint);
	run->dirty = true;
}

void runs_answer(struct coordinator *c, struct host *host, const struct msg *msg)
{
	const struct msg_answer *answer = &msg->u.answer;
	if (dry_answer(c, host, msg))
		return;
	struct run *run = run_find(c, msg->migration);
	if (!run || msg->generation != run->rec.generation || msg->epoch < store_epoch(c->store) ||
	    !has_side(run, host->rec.name, answer->side)) {
		log_notice("event=ignored kind=answer host=%s migration=%llu generation=%u epoch=%llu step=%s",
		           host->rec.name, (unsigned long long)msg->migration, msg->generation,
		           (unsigned long long)msg->epoch, step_name(answer->step));
		return;
	}
	const char *words = answer->outcome == OUTCOME_REFUSED ? answer->cause.text : NULL;
	struct migration_event event = { .kind = MIGRATION_EVENT_ANSWER,
		                         .side = answer->side,
		                         .step = answer->step,
		                         .outcome = answer->outcome,
		                         .code = answer->cause.code };
	if (answer->session.phase != PHASE_NONE) {
		event.phase = answer->session.phase;
		event.facts = answer->session.facts;
		merge_session(run, &answer->session);
	}
	if (answer->step == STEP_PREPARE && answer->outcome == OUTCOME_DONE)
		take_prepared(run, answer, &event, &words);
	log_info("event=answer migration=%llu host=%s step=%s outcome=%s%s%s", (unsigned long long)run->rec.id,
	         host->rec.name, step_name(answer->step), outcome_name(event.outcome), words ? " text=" : "",
	         words ? words : "");
	run_event(c, run, &event, words);
}

void runs_progress(struct coordinator *c, struct host *host, const struct msg *msg)
{
	struct run *run = run_find(c, msg->migration);
	if (!run || msg->generation != run->rec.generation)
		return;
	/* Both sides tell; what is sent is known at the source. */
	if (!has_side(run, host->rec.name, SIDE_SOURCE))
		return;
	run->progress = msg->u.progress;
	run->has_progress = true;
}

/* ---- time ---- */

static void tick_deadline(struct coordinator *c, struct run *run, int64_t now_ms)
{
	char text[LIMIT_TEXT];
	if (run->deadline_ms == 0 || now_ms < run->deadline_ms)
		return;
	run->deadline_ms = 0;
	(void)snprintf(text, sizeof(text), "%s: no end after %lld s", migration_state_name(run->rec.core.state),
	               (long long)(now_ms - run->state_ms) / 1000);
	run_event(c, run, &(struct migration_event) { .kind = MIGRATION_EVENT_DEADLINE }, text);
}

static void tick_retry(struct coordinator *c, struct run *run, enum side side, int64_t now_ms)
{
	struct migration_actions due;
	if (now_ms < run->pending[side == SIDE_DESTINATION].next_ms)
		return;
	migration_due(&run->rec.core, side, &due);
	if (due.count != 0)
		run_event(c, run, &(struct migration_event) { .kind = MIGRATION_EVENT_RETRY, .side = side }, NULL);
}

void runs_slept(struct coordinator *c, int64_t now_ms)
{
	for (size_t i = 0; i < c->run_count; i++)
		if (c->runs[i]->deadline_ms != 0 && c->runs[i]->deadline_ms < now_ms + START_GRACE_MS)
			c->runs[i]->deadline_ms = now_ms + START_GRACE_MS;
}

void runs_tick(struct coordinator *c, int64_t now_ms)
{
	for (size_t i = 0; i < c->run_count && !c->failed; i++) {
		tick_deadline(c, c->runs[i], now_ms);
		tick_retry(c, c->runs[i], SIDE_SOURCE, now_ms);
		tick_retry(c, c->runs[i], SIDE_DESTINATION, now_ms);
	}
	sweep(c);
}

/* ---- admission ---- */

static uint32_t host_number(const struct coordinator *c, const char *name)
{
	for (size_t i = 0; i < c->host_count; i++)
		if (strcmp(c->hosts[i]->rec.name, name) == 0)
			return (uint32_t)i;
	return UINT32_MAX;
}

static size_t fill_entries(struct coordinator *c, struct admission_entry *entries)
{
	size_t count = 0;
	for (size_t i = 0; i < c->run_count && count < ADMISSION_ENTRIES_MAX; i++) {
		const struct store_migration *rec = &c->runs[i]->rec;
		if (migration_is_final(rec->core.state))
			continue;
		entries[count++] = (struct admission_entry) {
			.id = rec->id,
			.vm = (uint32_t)i, /* the store allows one open migration a VM */
			.source = host_number(c, rec->source),
			.destination = host_number(c, rec->destination),
			.priority = rec->priority,
			.active = migration_is_active(rec->core.state),
			.startable = rec->core.state == MIGRATION_QUEUED && host_is_ready(host_find(c, rec->source)) &&
			             host_is_ready(host_find(c, rec->destination)),
		};
	}
	return count;
}

static void start_run(struct coordinator *c, struct run *run)
{
	for (int side = SIDE_SOURCE; side <= SIDE_DESTINATION; side++) {
		const struct host *host = host_find(c, run_host(&run->rec, (enum side)side));
		struct store_party *party = &run->rec.party[side == SIDE_DESTINATION];
		(void)snprintf(party->boot_id, sizeof(party->boot_id), "%s", host->rec.boot_id);
		(void)snprintf(party->journal_id, sizeof(party->journal_id), "%s", host->rec.journal_id);
		run_event(c, run,
		          &(struct migration_event) { .kind = MIGRATION_EVENT_HOST_UP, .side = (enum side)side }, NULL);
	}
	run_event(c, run, &(struct migration_event) { .kind = MIGRATION_EVENT_ADMITTED }, NULL);
}

void runs_admit(struct coordinator *c)
{
	c->admit = false;
	if (c->run_count == 0 || c->failed)
		return;
	struct admission_entry *entries = calloc(ADMISSION_ENTRIES_MAX, sizeof(*entries));
	if (!entries) {
		c->admit = true; /* again at the next tick */
		return;
	}
	size_t count = fill_entries(c, entries);
	admission_decide(&c->settings.limits, entries, count);
	for (size_t i = 0; i < count && !c->failed; i++) {
		struct run *run = entries[i].start ? run_find(c, entries[i].id) : NULL;
		if (run)
			start_run(c, run);
	}
	free(entries);
}
