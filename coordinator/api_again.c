/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs that follow another migration: retry, undo. Each makes a migration of its own, which says which it follows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "coordinator/api_room.h"

#define LATER_PAGE 64 /* migrations of one VM, read at a time */

static void map_add(struct msg_map *map, uint32_t *count, const char *from, const char *to)
{
	for (uint32_t i = 0; i < *count; i++)
		if (strcmp(map[i].from, from) == 0)
			return;
	if (*count == LIMIT_MAPS)
		return;
	(void)snprintf(map[*count].from, sizeof(map[*count].from), "%s", from);
	(void)snprintf(map[*count].to, sizeof(map[*count].to), "%s", to);
	(*count)++;
}

/* What one would ask for by hand to have the same again, or the way back. */
static void fill_request(const struct store_migration *rec, const struct api_again *again, struct msg_request *request)
{
	const struct msg_plan *before = again->before;
	*request = (struct msg_request) { .verb = VERB_MIGRATE, .keep_source_s = -1, .keep_copy_s = -1 };
	uuid_unparse_lower(rec->vm, request->vm);
	(void)snprintf(request->host, sizeof(request->host), "%s", again->undo ? rec->destination : rec->source);
	(void)snprintf(request->to, sizeof(request->to), "%s", again->undo ? rec->source : rec->destination);
	(void)snprintf(request->new_name, sizeof(request->new_name), "%s",
	               again->undo ? before->vm.name : before->new_name);
	for (uint32_t i = 0; i < before->vm.disk_count; i++)
		map_add(request->disk_map, &request->disk_map_count, before->vm.disks[i].name,
		        again->undo ? before->vm.disks[i].sr : before->to[i].sr);
	for (uint32_t i = 0; i < before->vm.nic_count; i++) {
		const char *there = before->vm.nics[i].bridge, *here = before->bridges[i];
		map_add(request->network_map, &request->network_map_count, again->undo ? here : there,
		        again->undo ? there : here);
	}
}

static int submit(struct coordinator *c, const struct bus_peer *peer, const struct store_migration *rec, bool undo,
                  struct api_submission *what, json_t **ret_doc, struct err *err)
{
	struct msg_plan *before = calloc(1, sizeof(*before)), *plan = calloc(1, sizeof(*plan));
	struct msg_request *request = calloc(1, sizeof(*request));
	const struct api_again again = { before, undo };
	int result = -1;
	if (!before || !plan || !request) {
		err_set(err, ERR_NO_MEMORY, "%s: no memory", what->what);
	} else if (store_plan_get(c->store, rec->id, before, err) == 0) {
		fill_request(rec, &again, request);
		result = api_plan(c, request, &again, plan, ret_doc, err);
		if (result != 0 && err->code == ERR_UNKNOWN_VM)
			err_set(err, ERR_CONFLICT, "%s is not on %s any more", rec->vm_name, request->host);
		if (result != 0)
			err_wrap(err, "%s", what->what);
		else
			result = api_submit(c, peer, what, plan, ret_doc, err);
	}
	free(request);
	free(plan);
	free(before);
	return result;
}

/* ---- may it be? ---- */

static int check_over(const struct store_migration *rec, const char *verb, struct err *err)
{
	if (!migration_is_final(rec->core.state))
		return err_set(err, ERR_BUSY, "%s %llu: it is under way: %s; cancel it or wait for its end", verb,
		               (unsigned long long)rec->id, migration_state_name(rec->core.state));
	if (rec->core.state == MIGRATION_LOST)
		return err_set(err, ERR_CONFLICT, "%s %llu: the VM was lost with its host: boot it from its disks",
		               verb, (unsigned long long)rec->id);
	return 0;
}

static int check_retry(const struct store_migration *rec, struct err *err)
{
	if (check_over(rec, "retry", err) != 0)
		return -1;
	if (rec->core.state == MIGRATION_DONE)
		return err_set(
			err, ERR_TOO_LATE, "retry %llu: it is done: %s is on %s; 'drover undo %llu' is the way back",
			(unsigned long long)rec->id, rec->vm_name, rec->destination, (unsigned long long)rec->id);
	return 0;
}

/* What has become of the VM since. */
struct later {
	uint64_t moved; /* the newest migration that moved it again; 0: none */
	uint64_t undo;  /* an undo of this one that failed, and keeps what it has copied; 0: none */
};

static int find_later(const struct coordinator *c, const struct store_migration *rec, struct later *ret,
                      struct err *err)
{
	char uuid[37];
	struct store_filter filter = { .final_too = true, .vm = uuid, .after = rec->id, .limit = LATER_PAGE };
	size_t count = LATER_PAGE;
	*ret = (struct later) { 0 };
	uuid_unparse_lower(rec->vm, uuid);
	while (count == LATER_PAGE) {
		struct store_migration *list = NULL;
		if (store_migration_list(c->store, &filter, &list, &count, err) != 0)
			return -1;
		for (size_t i = 0; i < count; i++) {
			filter.after = list[i].id;
			if (list[i].core.state == MIGRATION_DONE)
				ret->moved = list[i].id;
			else if (list[i].undo_of == rec->id &&
			         list[i].kept_until_wall_ms > (uint64_t)coordinator_wall_ms(c))
				ret->undo = list[i].id;
		}
		store_migration_list_free(list, count);
	}
	return 0;
}

static int check_undo(const struct coordinator *c, const struct store_migration *rec, struct err *err)
{
	unsigned long long id = rec->id;
	struct later later;
	if (check_over(rec, "undo", err) != 0 || find_later(c, rec, &later, err) != 0)
		return -1;
	if (rec->core.state != MIGRATION_DONE)
		return err_set(err, ERR_CONFLICT, "undo %llu: it is %s: %s has not left %s", id,
		               migration_state_name(rec->core.state), rec->vm_name, rec->source);
	if (later.moved)
		return err_set(err, ERR_CONFLICT, "undo %llu: migration %llu has moved %s since", id,
		               (unsigned long long)later.moved, rec->vm_name);
	if (later.undo)
		return err_set(err, ERR_CONFLICT,
		               "undo %llu: migration %llu has begun with it; 'drover retry %llu' goes on", id,
		               (unsigned long long)later.undo, (unsigned long long)later.undo);
	if (rec->kept_until_wall_ms <= (uint64_t)coordinator_wall_ms(c))
		return err_set(
			err, ERR_CONFLICT,
			"undo %llu: the disks on %s are not kept any more; 'drover migrate %s --to %s' copies all back",
			id, rec->source, rec->vm_name, rec->source);
	return 0;
}

/* ---- the verbs ---- */

static int again(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, bool undo,
                 json_t **ret_doc, struct err *err)
{
	struct store_migration rec;
	char words[48];
	const char *verb = undo ? "undo" : "retry";
	if (api_find(c, request->id, &rec, err) != 0)
		return -1;
	(void)snprintf(words, sizeof(words), "%s %llu", verb, (unsigned long long)rec.id);
	json_t *doc = json_pack("{s:s,s:I}", "verb", verb, "id", (json_int_t)rec.id);
	struct api_submission what = { .what = words,
		                       .key = request->key,
		                       .digest = api_digest(doc),
		                       .priority = rec.priority,
		                       .retry_of = undo ? 0 : rec.id,
		                       .undo_of = undo ? rec.id : rec.undo_of };
	json_decref(doc);
	int result = api_may_change(peer, &rec, verb, err);
	int known = result == 0 ? api_by_key(c, &what, ret_doc, err) : -1;
	if (known == 0)
		result = undo ? check_undo(c, &rec, err) : check_retry(&rec, err);
	if (known == 0 && result == 0)
		result = submit(c, peer, &rec, undo, &what, ret_doc, err);
	store_migration_free(&rec);
	return known < 0 ? -1 : result;
}

int api_retry(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
              struct err *err)
{
	return again(c, peer, request, false, ret_doc, err);
}

int api_undo(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
             struct err *err)
{
	return again(c, peer, request, true, ret_doc, err);
}
