/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Taking away what nobody claims. Everything is judged again first, and what is not certain stays. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/leg/survey.h"
#include "common/lock.h"
#include "common/log.h"

#define KILL_MS 5000

/* ---- may it go? ---- */

static enum over over_of(const struct survey *survey, uint64_t migration)
{
	for (unsigned i = 0; i < survey->over_count; i++)
		if (survey->over[i].migration == migration)
			return survey->over[i].over;
	return (enum over)0;
}

/* What was copied, and may be a VM: it goes only with proof that it is none. A VM that is halted may be unknown to the
 * hypervisor, and other hosts' VMs may be in a repository that is shared. */
static int copy_may_go(const struct survey_thing *thing, enum over over, uint32_t known, struct err *err)
{
	if (over == OVER_ABORTED)
		return 0; /* the source owns the VM, and its disks are other files */
	if (over == OVER_OTHER)
		return err_set(err, ERR_CONFLICT,
		               "migration %" PRIu64 " did not end with a copy of nobody's here: it may be a VM's disk",
		               thing->row.migration);
	if (known)
		return err_set(err, ERR_CONFLICT,
		               "this host had part in migration %" PRIu64 ", and does not know how it "
		               "ended: it may be a VM's disk",
		               thing->row.migration);
	return 0;
}

static bool is_copy(const struct survey_thing *thing)
{
	return thing->kind == HOLDING_DISK || thing->kind == HOLDING_RESERVE || thing->kind == HOLDING_SOURCE_DISK ||
	       (thing->kind == HOLDING_VM && thing->vm_state != HYPERVISOR_VM_LEAVING);
}

static bool has_our_name(const struct survey *survey, const struct survey_thing *thing)
{
	const char *slash = strrchr(thing->path, '/');
	struct sr_file file;
	switch (thing->kind) {
	case HOLDING_DISK:
	case HOLDING_RESERVE:
		return slash && sr_file_parse(slash + 1, &file);
	case HOLDING_EXPORT:
	case HOLDING_FILE:
		return slash && strncmp(thing->path, survey->paths.run, strlen(survey->paths.run)) == 0;
	case HOLDING_VM:
	case HOLDING_BITMAP:
	case HOLDING_SOURCE_DISK:
	case HOLDING_LEG:
		return true;
	case HOLDING_KINDS:
		break;
	}
	return false;
}

static int may_go(struct survey *survey, const struct survey_thing *thing, struct err *err)
{
	enum over over = over_of(survey, thing->row.migration);
	uint32_t known = 0; /* the highest generation that this journal ever had of it */
	if (thing->kind == HOLDING_VM && thing->vm_state == HYPERVISOR_VM_LEAVING)
		return 0; /* it was destroyed; this is its end */
	if (!over)
		return err_set(err, ERR_BUSY, "migration %" PRIu64 " is not over", thing->row.migration);
	if (journal_generation(survey->journal, thing->row.migration, &known, err))
		return -1;
	if (over == OVER_UNKNOWN && journal_was_lost(survey->journal) && !known)
		return err_set(err, ERR_HOST_LOST, "this host has lost a journal, which may have known it");
	if (!has_our_name(survey, thing))
		return err_set(err, ERR_CONFLICT, "it is not called what this program calls its own");
	return is_copy(thing) ? copy_may_go(thing, over, known, err) : 0;
}

/* ---- does nobody claim it still? ---- */

static const struct journal_resource *row_of(const struct survey_claims *claims, int64_t id)
{
	for (size_t i = 0; i < claims->views[1].resource_count; i++)
		if (claims->views[1].resources[i].id == id)
			return &claims->views[1].resources[i];
	return NULL;
}

/* 1: it may go, 0: it is gone or not what it was, -1: it stays. *ret_owned: a VM has it, only the row may go. */
static int judge_again(struct survey *survey, struct survey_thing *thing, bool *ret_owned, struct err *err)
{
	struct survey_claims claims;
	if (survey_claims_read(survey, &claims, err))
		return -1;
	int rc = 1;
	*ret_owned = survey_owner(&claims, thing) != NULL;
	if (thing->state == HOLDING_LEFTOVER) {
		const struct journal_resource *row = row_of(&claims, thing->row.id);
		rc = row && !survey_row_stands(&claims, row) ? 1 : 0;
		if (row)
			thing->row = *row;
	} else if (survey_claimed(&claims, thing)) {
		rc = err_set(err, ERR_BUSY, "it is claimed since");
	} else if (!survey_is_there(survey, thing)) {
		rc = 0;
	}
	survey_claims_free(&claims);
	return rc;
}

/* ---- taking away ---- */

static int take_away(struct survey *survey, const struct survey_thing *thing, struct err *err)
{
	const struct clean_tools tools = { &survey->paths, survey->ops, survey->hv };
	if (thing->kind == HOLDING_LEG)
		return proc_kill(&thing->row.process, KILL_MS, err);
	if (thing->kind == HOLDING_VM && thing->vm_state == HYPERVISOR_VM_LEAVING)
		return survey->ops->destroy_end(survey->hv, thing->vm, err);
	return clean_one(&tools, &thing->row, thing->disk, thing->disk ? 1 : 0, err);
}

static int sweep_locked(struct survey *survey, struct survey_thing *thing, struct err *err)
{
	bool owned = false;
	int rc = judge_again(survey, thing, &owned, err);
	if (rc < 0)
		return -1;
	if (rc == 0) { /* somebody else was faster */
		thing->dropped = true;
		return 0;
	}
	/* A VM has it by now: only the journal's row is left over. */
	if (!owned && take_away(survey, thing, err))
		return -1;
	if (thing->state == HOLDING_LEFTOVER && journal_resource_gone(survey->journal, thing->row.id, err))
		return -1;
	thing->swept = true;
	return 0;
}

static int sweep_one(struct survey *survey, struct survey_thing *thing, struct err *err)
{
	char path[PATHS_MAX + 64];
	int lock = -1;
	if (may_go(survey, thing, err))
		return -1;
	/* A leg has the lock itself; it is known by pid and start time. */
	if (thing->kind != HOLDING_LEG && thing->row.migration) {
		snprintf(path, sizeof(path), "%s/leg-%" PRIu64 ".lock", survey->paths.run, thing->row.migration);
		if (lock_take(path, &lock, err)) /* busy: a leg of it is at work */
			return -1;
	}
	int rc = sweep_locked(survey, thing, err);
	lock_drop(path, lock);
	return rc;
}

static void sweep(struct survey *survey, struct survey_thing *thing)
{
	struct err err = { 0 };
	if (thing->dropped || thing->state == HOLDING_KEPT)
		return;
	if (sweep_one(survey, thing, &err)) {
		snprintf(thing->error, sizeof(thing->error), "%.*s", (int)sizeof(thing->error) - 1, err.text);
		log_warning("event=not-swept kind=%s migration=%" PRIu64 " name=%s path=%s error=\"%s\"",
		            holding_kind_name(thing->kind), thing->row.migration, thing->name, thing->path, err.text);
	} else if (thing->swept) {
		log_notice("event=swept kind=%s migration=%" PRIu64 " name=%s path=%s", holding_kind_name(thing->kind),
		           thing->row.migration, thing->name, thing->path);
	}
}

void survey_sweep(struct survey *survey)
{
	/* Legs first, they hold the locks; then in the order of making, backwards: exporters before their disks. */
	static const enum holding_kind order[] = { HOLDING_LEG,     HOLDING_BITMAP, HOLDING_VM,          HOLDING_EXPORT,
		                                   HOLDING_RESERVE, HOLDING_DISK,   HOLDING_SOURCE_DISK, HOLDING_FILE };
	for (size_t k = 0; k < sizeof(order) / sizeof(order[0]); k++)
		for (size_t i = 0; i < survey->thing_count; i++)
			if (survey->things[i].kind == order[k])
				sweep(survey, &survey->things[i]);
}
