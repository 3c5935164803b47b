/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs that change something: migrate and cancel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "common/log.h"
#include "coordinator/api_room.h"

static json_t *map_list(const struct msg_map *map, uint32_t count)
{
	json_t *list = json_array();
	for (uint32_t i = 0; i < count; i++)
		json_array_append_new(list, json_pack("{s:s,s:s}", "from", map[i].from, "to", map[i].to));
	return list;
}

/* What was asked, in a form in which the same is the same. */
static json_t *request_doc(const struct msg_request *r)
{
	json_t *doc = json_pack(
		"{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:s,s:I,s:I,s:i}", "vm", r->vm, "from", r->host, "to", r->to, "pool",
		r->pool, "name", r->new_name, "max_downtime_ms", (json_int_t)r->max_downtime_ms, "bandwidth_bps",
		(json_int_t)r->bandwidth_bps, "timeout_s", (json_int_t)r->timeout_s, "on_slow",
		r->on_slow ? on_slow_name(r->on_slow) : "", "keep_source_s", (json_int_t)r->keep_source_s,
		"keep_copy_s", (json_int_t)r->keep_copy_s, "priority", (int)r->priority);
	json_object_set_new(doc, "storage", map_list(r->disk_map, r->disk_map_count));
	json_object_set_new(doc, "storage_map", map_list(r->sr_map, r->sr_map_count));
	json_object_set_new(doc, "network", map_list(r->network_map, r->network_map_count));
	return doc;
}

uint64_t api_digest(const json_t *doc)
{
	static const uuid_t space = { 0 };
	uuid_t digest;
	uint64_t value = 0;
	char *text = json_dumps(doc, JSON_COMPACT | JSON_SORT_KEYS);
	if (text)
		uuid_generate_sha1(digest, space, text, strlen(text));
	else
		memset(digest, 0, sizeof(digest));
	memcpy(&value, digest, sizeof(value));
	free(text);
	return value >> 1; /* a positive number in the database */
}

/* What the migration is run with, defaults filled in. */
static char *options_text(int32_t priority, const struct msg_plan *plan)
{
	json_t *disks = json_array(), *networks = json_array();
	for (uint32_t i = 0; i < plan->vm.disk_count; i++)
		json_array_append_new(disks, json_pack("{s:s,s:s,s:s}", "name", plan->vm.disks[i].name, "from",
		                                       plan->vm.disks[i].sr, "to", plan->to[i].sr));
	for (uint32_t i = 0; i < plan->vm.nic_count; i++)
		json_array_append_new(networks,
		                      json_pack("{s:s,s:s}", "from", plan->vm.nics[i].bridge, "to", plan->bridges[i]));
	json_t *doc = json_pack("{s:s,s:I,s:I,s:I,s:s,s:I,s:I,s:i,s:o,s:o}", "name", plan->new_name, "max_downtime_ms",
	                        (json_int_t)plan->max_downtime_ms, "bandwidth_bps", (json_int_t)plan->bandwidth_bps,
	                        "timeout_s", (json_int_t)plan->timeout_s, "on_slow", on_slow_name(plan->on_slow),
	                        "keep_source_s", (json_int_t)plan->keep_source_s, "keep_copy_s",
	                        (json_int_t)plan->keep_copy_s, "priority", (int)priority, "storage", disks, "network",
	                        networks);
	char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	json_decref(doc);
	return text;
}

int api_by_key(struct coordinator *c, const struct api_submission *what, json_t **ret_doc, struct err *err)
{
	struct store_migration rec;
	if (!what->key[0])
		return 0;
	int found = store_migration_by_key(c->store, what->key, &rec, err);
	if (found != 1)
		return found;
	if (rec.request_digest == what->digest)
		*ret_doc = api_migration(c, &rec);
	else
		found = err_set(err, ERR_CONFLICT, "%s: key %s was used for migration %llu with another request",
		                what->what, what->key, (unsigned long long)rec.id);
	store_migration_free(&rec);
	return found;
}

int api_submit(struct coordinator *c, const struct bus_peer *peer, const struct api_submission *what,
               const struct msg_plan *plan, json_t **ret_doc, struct err *err)
{
	struct store_migration rec = { .request_digest = what->digest,
		                       .generation = 1,
		                       .priority = what->priority,
		                       .retry_of = what->retry_of,
		                       .undo_of = what->undo_of };
	migration_init(&rec.core);
	memcpy(rec.vm, plan->vm.uuid, sizeof(rec.vm));
	(void)snprintf(rec.key, sizeof(rec.key), "%s", what->key);
	(void)snprintf(rec.vm_name, sizeof(rec.vm_name), "%s", plan->vm.name);
	(void)snprintf(rec.source, sizeof(rec.source), "%s", plan->source);
	(void)snprintf(rec.destination, sizeof(rec.destination), "%s", plan->destination);
	(void)snprintf(rec.submitted_by, sizeof(rec.submitted_by), "%s", peer->name);
	rec.submitted_wall_ms = rec.state_wall_ms = coordinator_wall_ms(c);
	rec.options = options_text(what->priority, plan);
	if (!rec.options)
		return err_set(err, ERR_NO_MEMORY, "%s: no memory", what->what);
	if (store_migration_add(c->store, &rec, plan, err) != 0) {
		store_migration_free(&rec);
		return err_wrap(err, "%s", what->what);
	}
	struct run *run = run_add(c, &rec, plan);
	if (!run) { /* it is recorded, and will be loaded at the next start */
		store_migration_free(&rec);
		err_set(err, ERR_NO_MEMORY, "%s: no memory", what->what);
		coordinator_fail(c, err);
		return -1;
	}
	log_notice("event=submitted migration=%llu vm=%s source=%s destination=%s by=%s retry_of=%llu undo_of=%llu",
	           (unsigned long long)rec.id, rec.vm_name, rec.source, rec.destination, rec.submitted_by,
	           (unsigned long long)rec.retry_of, (unsigned long long)rec.undo_of);
	runs_admit(c);
	*ret_doc = api_migration(c, &run->rec);
	return 0;
}

int api_migrate(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err)
{
	char words[LIMIT_NAME + 16];
	json_t *doc = request_doc(request);
	struct api_submission what = {
		.what = words, .key = request->key, .digest = api_digest(doc), .priority = request->priority
	};
	json_decref(doc);
	(void)snprintf(words, sizeof(words), "migrate %s", request->vm);
	int known = api_by_key(c, &what, ret_doc, err);
	if (known != 0)
		return known == 1 ? 0 : -1;
	struct msg_plan *plan = calloc(1, sizeof(*plan));
	if (!plan)
		return err_set(err, ERR_NO_MEMORY, "%s: no memory", words);
	int result = api_plan(c, request, NULL, plan, ret_doc, err);
	if (result == 0)
		result = api_submit(c, peer, &what, plan, ret_doc, err);
	free(plan);
	return result;
}

/* ---- cancel ---- */

static int cancel_too_late(const struct store_migration *rec, struct err *err)
{
	const char *what = migration_state_name(rec->core.state);
	if (rec->core.state == MIGRATION_COMMITTED || rec->core.state == MIGRATION_DONE)
		return err_set(err, ERR_TOO_LATE,
		               "cancel %llu: it is %s: %s is on %s now; migrate it to %s for the way back",
		               (unsigned long long)rec->id, what, rec->vm_name, rec->destination, rec->source);
	return err_set(err, ERR_TOO_LATE, "cancel %llu: it is %s already", (unsigned long long)rec->id, what);
}

int api_may_change(const struct bus_peer *peer, const struct store_migration *rec, const char *verb, struct err *err)
{
	if (peer->role == ROLE_OPERATOR || strcmp(peer->name, rec->submitted_by) == 0)
		return 0;
	log_warning("event=denied key=%s role=%s verb=%s migration=%llu", peer->name, role_name(peer->role), verb,
	            (unsigned long long)rec->id);
	return err_set(err, ERR_DENIED, "%s %llu: it is %s's; key %s may only %s its own", verb,
	               (unsigned long long)rec->id, rec->submitted_by, peer->name, verb);
}

int api_cancel(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
               struct err *err)
{
	struct store_migration rec;
	char words[LIMIT_TEXT];
	if (api_find(c, request->id, &rec, err) != 0)
		return -1;
	if (api_may_change(peer, &rec, "cancel", err) != 0) {
		store_migration_free(&rec);
		return -1;
	}
	struct run *run = run_find(c, rec.id);
	(void)snprintf(words, sizeof(words), "cancelled by %s", peer->name);
	if (run)
		run_event(c, run, &(struct migration_event) { .kind = MIGRATION_EVENT_CANCEL }, words);
	const struct store_migration *now = run ? &run->rec : &rec;
	enum migration_cancel answer = migration_cancel_answer(&now->core);
	json_t *doc = api_migration(c, now);
	json_object_set_new(doc, "cancel", json_string(migration_cancel_name(answer)));
	*ret_doc = doc;
	int result = answer == CANCEL_TOO_LATE ? cancel_too_late(now, err) : 0;
	store_migration_free(&rec);
	return result;
}
