/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/survey.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "common/log.h"

/* ---- things ---- */

struct survey_thing *survey_add(struct survey *survey, enum holding_kind kind, uint64_t migration)
{
	if (survey->thing_count == SURVEY_THINGS_MAX) {
		survey->cut = true;
		return NULL;
	}
	struct survey_thing *thing = &survey->things[survey->thing_count++];
	thing->kind = kind;
	thing->state = HOLDING_UNCLAIMED;
	thing->row.kind = kind < HOLDING_LEG ? (enum resource_kind)kind : RESOURCE_KINDS;
	thing->row.migration = migration;
	return thing;
}

void survey_fault(struct survey *survey, const struct err *err)
{
	log_warning("event=survey code=%s error=\"%s\"", err_name(err->code), err->text);
	if (survey->cause.code == ERR_NONE)
		survey->cause = *err;
}

/* ---- what is about to go by itself ---- */

/* A leg whose session was forgotten answers before it ends; a VM that is destroyed by hand takes its time. */
static bool is_leaving(struct survey *survey, const struct survey_thing *thing)
{
	uint32_t known = 0;
	struct err err = { 0 };
	if (thing->dropped)
		return false;
	if (journal_generation(survey->journal, thing->row.migration, &known, &err)) {
		survey_fault(survey, &err);
		return false;
	}
	if (thing->kind == HOLDING_LEG)
		return known > 0 && known >= thing->row.generation && survey_is_there(survey, thing);
	return thing->kind == HOLDING_VM && thing->vm_state == HYPERVISOR_VM_LEAVING && survey_is_there(survey, thing);
}

static void let_leave(struct survey *survey)
{
	int64_t until_ms = leg_now_ms() + SURVEY_LEAVE_MS;
	for (bool waiting = true; waiting && leg_now_ms() < until_ms;) {
		waiting = false;
		for (size_t i = 0; i < survey->thing_count && !waiting; i++)
			waiting = is_leaving(survey, &survey->things[i]);
		if (waiting)
			poll(NULL, 0, SURVEY_LEAVE_POLL_MS);
	}
}

/* ---- looking ---- */

static void drop_claimed(struct survey *survey, const struct survey_claims *claims)
{
	for (size_t i = 0; i < survey->thing_count; i++)
		if (survey_claimed(claims, &survey->things[i]))
			survey->things[i].dropped = true;
}

static void drop_gone(struct survey *survey)
{
	for (size_t i = 0; i < survey->thing_count; i++)
		if (!survey->things[i].dropped && !survey_is_there(survey, &survey->things[i]))
			survey->things[i].dropped = true;
}

/* How the backend that a bitmap's row names is reached; NULL: it is gone, and the bitmap with it. */
static struct hypervisor_disk *disk_of(const struct survey_claims *claims, const struct journal_resource *row)
{
	for (size_t i = 0; i < claims->vm_count; i++)
		for (unsigned k = 0; k < claims->vms[i].disk_count; k++) {
			const struct hypervisor_disk *disk = &claims->vms[i].disks[k];
			if (row->path[0] == '\0' || strcmp(disk->qmp_path, row->path) != 0 ||
			    strcmp(disk->name, row->name) != 0)
				continue;
			struct hypervisor_disk *copy = malloc(sizeof(*copy));
			if (copy)
				*copy = *disk;
			return copy;
		}
	return NULL;
}

/* What is journaled and nobody works on, and what is kept. */
static void add_rows(struct survey *survey, const struct survey_claims *claims)
{
	const struct journal_view *view = &claims->views[1];
	for (size_t i = 0; i < view->resource_count; i++) {
		const struct journal_resource *row = &view->resources[i];
		bool kept = row->state == RESOURCE_KEPT;
		if (!kept && survey_row_stands(claims, row))
			continue;
		struct survey_thing *thing = survey_add(survey, (enum holding_kind)row->kind, row->migration);
		if (!thing)
			return;
		thing->row = *row;
		thing->state = kept ? HOLDING_KEPT : HOLDING_LEFTOVER;
		memcpy(thing->name, row->name, sizeof(thing->name));
		memcpy(thing->path, row->path, sizeof(thing->path));
		if (row->kind == RESOURCE_VM)
			(void)uuid_parse(row->name, thing->vm); /* else all zero, which is nobody's */
		if (row->kind == RESOURCE_BITMAP)
			thing->disk = disk_of(claims, row);
	}
}

static int look(struct survey *survey, struct err *err)
{
	struct survey_claims claims;
	survey_world(survey);
	if (survey_claims_read(survey, &claims, err))
		return -1;
	drop_claimed(survey, &claims);
	let_leave(survey);
	drop_gone(survey);
	add_rows(survey, &claims);
	survey_claims_free(&claims);
	return 0;
}

/* ---- telling ---- */

static void describe(const struct survey_thing *thing, struct msg_holding *ret)
{
	*ret = (struct msg_holding) {
		.kind = thing->kind,
		.state = thing->state,
		.migration = thing->row.migration,
		.generation = thing->row.generation,
		.kept_until_wall_ms = thing->row.kept_until_wall_ms,
		.swept = thing->swept,
	};
	memcpy(ret->name, thing->name, sizeof(ret->name));
	memcpy(ret->path, thing->path, sizeof(ret->path));
	memcpy(ret->error, thing->error, sizeof(ret->error));
}

/* What nobody claims comes first, what is kept last: should not all fit, the more urgent does. */
static void list(const struct survey *survey, struct msg_holdings *holdings)
{
	for (enum holding_state state = HOLDING_UNCLAIMED; state < HOLDING_STATES; state++)
		for (size_t i = 0; i < survey->thing_count; i++) {
			const struct survey_thing *thing = &survey->things[i];
			if (thing->dropped || thing->state != state)
				continue;
			if (holdings->count == LIMIT_HOLDINGS)
				holdings->cut = 1;
			else
				describe(thing, &holdings->list[holdings->count++]);
		}
}

static int tell(const struct survey *survey, const struct err *failure, FILE *out)
{
	struct msg_holdings holdings = { .sweep = survey->options.sweep,
		                         .cut = survey->cut,
		                         .cause = failure->code ? *failure : survey->cause };
	struct err err = { 0 };
	void *blob = NULL;
	size_t bytes = 0;
	int rc = -1;
	holdings.list = calloc(LIMIT_HOLDINGS, sizeof(*holdings.list));
	if (!holdings.list) {
		err_set(&err, ERR_NO_MEMORY, "no memory for a list");
	} else {
		if (failure->code == ERR_NONE) /* what could not be judged is not told of */
			list(survey, &holdings);
		rc = msg_holdings_encode(&holdings, &blob, &bytes, &err);
	}
	if (!rc && (fwrite(blob, 1, bytes, out) != bytes || fflush(out)))
		rc = err_errno(&err, ERR_IO, errno, "write the list");
	if (rc)
		log_error("event=survey-failed error=\"%s\"", err.text);
	free(holdings.list);
	free(blob);
	return rc;
}

/* ---- start and end ---- */

static int parse_over(struct survey *survey, struct err *err)
{
	const char *at = survey->options.over;
	while (at && *at) {
		struct msg_over *over = &survey->over[survey->over_count];
		char word[16];
		int used = 0;
		if (survey->over_count == LIMIT_HOLDINGS ||
		    sscanf(at, "%" SCNu64 ":%15[a-z]%n", &over->migration, word, &used) != 2 ||
		    !(over->over = over_from_name(word)) || (at[used] != ',' && at[used] != '\0'))
			return err_set(err, ERR_USAGE, "--over: '%.40s' is not NUMBER:WORD,...", at);
		survey->over_count++;
		at += at[used] == ',' ? used + 1 : used;
	}
	return 0;
}

static int start(struct survey *survey, struct err *err)
{
	survey->conf = calloc(1, sizeof(*survey->conf));
	survey->things = calloc(SURVEY_THINGS_MAX, sizeof(*survey->things));
	if (!survey->conf || !survey->things)
		return err_set(err, ERR_NO_MEMORY, "no memory for a survey");
	if (parse_over(survey, err) || paths_init(&survey->paths, survey->options.home, err) ||
	    agent_conf_load(survey->conf, &survey->paths, NULL, err))
		return -1;
	/* Opening would make one, by which everything here is nobody's. */
	int there = journal_find(&survey->paths, err);
	if (there <= 0)
		return there < 0 ? -1 : err_set(err, ERR_HOST_LOST, "without a journal nothing can be told");
	return journal_open(&survey->journal, &survey->paths, err) ||
	                       survey->ops->open(&survey->hv, &survey->paths, err)
	               ? -1
	               : 0;
}

static void end(struct survey *survey)
{
	for (size_t i = 0; i < survey->thing_count; i++)
		free(survey->things[i].disk);
	if (survey->hv)
		survey->ops->close(survey->hv);
	journal_close(survey->journal);
	free(survey->things);
	free(survey->conf);
}

int survey_run(const struct survey_options *options, const struct hypervisor_ops *ops, FILE *out)
{
	struct err err = { 0 };
	struct survey *survey = calloc(1, sizeof(*survey));
	if (!survey)
		return EXIT_FAILURE;
	survey->options = *options;
	survey->ops = ops;
	if (start(survey, &err) == 0 && look(survey, &err) == 0 && options->sweep)
		survey_sweep(survey);
	if (err.code != ERR_NONE)
		log_error("event=survey-failed error=\"%s\"", err.text);
	int rc = tell(survey, &err, out);
	end(survey);
	free(survey);
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
