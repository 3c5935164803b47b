/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who claims what: the journal, the VMs, the journal again; see survey.h for why that is enough. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/leg/survey.h"

/* ---- reading ---- */

static int add_moving(struct survey *survey, struct survey_claims *claims, const struct journal_session *session,
                      struct msg_plan *plan, struct err *err)
{
	struct journal_session again;
	struct err why = { 0 };
	if (session_is_over(&session->core))
		return 0;
	if (journal_session_get(survey->journal, session->migration, session->generation, &again, plan, &why)) {
		if (why.code == ERR_UNKNOWN_ID)
			return 0; /* forgotten since */
		return err_set(err, why.code, "%s", why.text);
	}
	memcpy(claims->moving[claims->moving_count++], plan->vm.uuid, sizeof(uuid_bytes));
	return 0;
}

static int read_moving(struct survey *survey, struct survey_claims *claims, struct err *err)
{
	size_t room = claims->views[0].session_count + claims->views[1].session_count;
	struct msg_plan *plan = calloc(1, sizeof(*plan));
	claims->moving = calloc(room ? room : 1, sizeof(uuid_bytes));
	int rc = plan && claims->moving ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for plans");
	for (unsigned v = 0; v < 2; v++)
		for (size_t i = 0; i < claims->views[v].session_count && rc == 0; i++)
			rc = add_moving(survey, claims, &claims->views[v].sessions[i], plan, err);
	free(plan);
	return rc;
}

int survey_claims_read(struct survey *survey, struct survey_claims *ret_claims, struct err *err)
{
	struct survey_claims claims = { 0 };
	if (journal_view_read(survey->journal, &claims.views[0], err) ||
	    survey->ops->vms(survey->hv, &claims.vms, &claims.vm_count, err) ||
	    journal_view_read(survey->journal, &claims.views[1], err) || read_moving(survey, &claims, err)) {
		survey_claims_free(&claims);
		return -1;
	}
	*ret_claims = claims;
	return 0;
}

void survey_claims_free(struct survey_claims *claims)
{
	journal_view_free(&claims->views[0]);
	journal_view_free(&claims->views[1]);
	free(claims->vms);
	free(claims->moving);
	*claims = (struct survey_claims) { 0 };
}

/* ---- judging ---- */

bool survey_is_moving(const struct survey_claims *claims, const uuid_bytes vm)
{
	for (size_t i = 0; i < claims->moving_count; i++)
		if (memcmp(claims->moving[i], vm, sizeof(uuid_bytes)) == 0)
			return true;
	return false;
}

/* By its name, or by another name of the same file. */
static bool is_file_of(const struct survey_thing *thing, const struct stat *st, const char *path)
{
	struct stat other;
	if (path[0] == '\0')
		return false;
	if (strcmp(path, thing->row.path) == 0 || strcmp(path, thing->path) == 0)
		return true;
	return st && stat(path, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

static bool is_image(const struct survey_thing *thing)
{
	return thing->kind == HOLDING_DISK || thing->kind == HOLDING_RESERVE || thing->kind == HOLDING_SOURCE_DISK;
}

static bool has_disk(const struct hypervisor_vm *vm, const struct survey_thing *thing, const struct stat *st)
{
	for (unsigned i = 0; i < vm->disk_count; i++)
		if (is_file_of(thing, st, vm->disks[i].path))
			return true;
	return false;
}

const struct hypervisor_vm *survey_owner(const struct survey_claims *claims, const struct survey_thing *thing)
{
	struct stat st;
	const struct stat *known = is_image(thing) && stat(thing->path, &st) == 0 ? &st : NULL;
	for (size_t i = 0; i < claims->vm_count; i++) {
		const struct hypervisor_vm *vm = &claims->vms[i];
		if (is_image(thing) && has_disk(vm, thing, known))
			return vm;
		if (thing->kind == HOLDING_VM && vm->state == HYPERVISOR_VM_OWN &&
		    memcmp(vm->uuid, thing->vm, sizeof(vm->uuid)) == 0)
			return vm;
	}
	return NULL;
}

static bool row_claims(const struct journal_resource *row, const struct survey_thing *thing, const struct stat *st)
{
	switch (thing->kind) {
	case HOLDING_DISK:
	case HOLDING_RESERVE:
	case HOLDING_SOURCE_DISK:
		return is_file_of(thing, st, row->path);
	case HOLDING_EXPORT:
		return strcmp(row->path, thing->row.path) == 0;
	case HOLDING_VM:
		return row->kind == RESOURCE_VM && strcmp(row->name, thing->row.name) == 0;
	case HOLDING_BITMAP:
	case HOLDING_FILE:
		return row->migration == thing->row.migration && row->state != RESOURCE_KEPT;
	case HOLDING_LEG:
	case HOLDING_KINDS:
		break;
	}
	return false;
}

static bool view_claims(const struct journal_view *view, const struct survey_thing *thing, const struct stat *st)
{
	for (size_t i = 0; i < view->session_count; i++)
		if (view->sessions[i].migration == thing->row.migration)
			return true;
	for (size_t i = 0; i < view->resource_count; i++)
		if (row_claims(&view->resources[i], thing, st))
			return true;
	return false;
}

bool survey_claimed(const struct survey_claims *claims, const struct survey_thing *thing)
{
	struct stat st;
	const struct stat *known = is_image(thing) && stat(thing->path, &st) == 0 ? &st : NULL;
	if (survey_owner(claims, thing) || view_claims(&claims->views[0], thing, known) ||
	    view_claims(&claims->views[1], thing, known))
		return true;
	/* Its own leg destroys it, whatever number the VM bears that brought it here; and has its monitor. */
	return (thing->kind == HOLDING_VM || thing->kind == HOLDING_BITMAP) && survey_is_moving(claims, thing->vm);
}

bool survey_row_stands(const struct survey_claims *claims, const struct journal_resource *row)
{
	const struct journal_view *view = &claims->views[1]; /* the row's own moment */
	if (row->state == RESOURCE_KEPT)
		return true;
	for (size_t i = 0; i < view->session_count; i++)
		if (view->sessions[i].migration == row->migration && view->sessions[i].generation == row->generation)
			return !session_is_over(&view->sessions[i].core);
	return false;
}
