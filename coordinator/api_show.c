/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Migrations, events, and the leftovers that the records know of, as documents. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "coordinator/api_room.h"

#define BIG(number) ((json_int_t)(number))

static json_t *progress_doc(const struct msg_progress *p)
{
	json_t *disks = json_array();
	uint64_t reused = 0;
	for (uint32_t i = 0; i < p->disk_count; i++) {
		const struct msg_disk_progress *disk = &p->disks[i];
		reused += disk->reused_bytes;
		json_array_append_new(disks, json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I}", "name", disk->name,
		                                       "size_bytes", BIG(disk->size_bytes), "copied_bytes",
		                                       BIG(disk->copied_bytes), "zero_bytes", BIG(disk->zero_bytes),
		                                       "reused_bytes", BIG(disk->reused_bytes), "pass", BIG(disk->pass),
		                                       "left_bytes", BIG(disk->left_bytes)));
	}
	json_t *memory = json_pack("{s:I,s:I,s:I,s:I}", "total_bytes", BIG(p->memory_total_bytes), "sent_bytes",
	                           BIG(p->memory_sent_bytes), "pass", BIG(p->memory_pass), "dirty_bytes",
	                           BIG(p->memory_dirty_bytes));
	return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o}", "phase", p->phase, "pass",
	                 BIG(p->pass), "bytes_total", BIG(p->bytes_total), "bytes_done", BIG(p->bytes_done),
	                 "bytes_left", BIG(p->bytes_left), "rate_bps", BIG(p->rate_bps), "dirty_bps", BIG(p->dirty_bps),
	                 "eta_ms", BIG(p->eta_ms), "wire_bytes", BIG(p->wire_bytes), "throttle_percent",
	                 BIG(p->throttle_percent), "reused_bytes", BIG(reused), "disks", disks, "memory", memory);
}

char *api_progress_text(const struct msg_progress *progress)
{
	json_t *doc = progress_doc(progress);
	char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	json_decref(doc);
	return text;
}

json_t *api_votes(const struct verdict_facts *facts)
{
	return json_pack("{s:s?,s:s?,s:s?}", "coordinator", vote_name(facts->vote[PARTY_COORDINATOR]), "source",
	                 vote_name(facts->vote[PARTY_SOURCE]), "destination",
	                 vote_name(facts->vote[PARTY_DESTINATION]));
}

json_t *api_facts(const struct verdict_facts *facts)
{
	const char *ruling = facts->ruling == VOTE_NONE     ? NULL
	                     : facts->ruling == VOTE_COMMIT ? "destination"
	                                                    : "source";
	return json_pack("{s:b,s:b,s:b,s:b,s:b,s:b,s:b,s:s?}", "suspended", facts->suspended, "stream_ended",
	                 facts->stream_ended, "resumed", facts->resumed, "released", facts->released, "activating",
	                 facts->activating, "running", facts->running, "renounced", facts->renounced, "ruling", ruling);
}

json_t *api_vm(const struct store_migration *rec)
{
	char uuid[37];
	uuid_unparse_lower(rec->vm, uuid);
	return json_pack("{s:s,s:s}", "uuid", uuid, "name", rec->vm_name);
}

/* The first error, as long as it is one that counts: a migration that is committed or done has none. */
static json_t *cause_doc(const struct store_migration *rec)
{
	const struct migration_core *core = &rec->core;
	if (core->cause == ERR_NONE || core->state == MIGRATION_COMMITTED || core->state == MIGRATION_DONE)
		return json_null();
	return json_pack("{s:s,s:s?,s:s?,s:s}", "code", err_name(core->cause), "host",
	                 core->cause_side ? run_host(rec, core->cause_side) : NULL, "step",
	                 core->cause_step != STEP_NONE ? step_name(core->cause_step) : NULL, "message",
	                 rec->cause_text);
}

static json_t *budget_doc(const struct msg_budget *b)
{
	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "suspend_ms", BIG(b->suspend_ms), "final_memory_ms",
	                 BIG(b->final_memory_ms), "final_disk_ms", BIG(b->final_disk_ms), "verify_ms",
	                 BIG(b->verify_ms), "votes_ms", BIG(b->votes_ms), "activate_ms", BIG(b->activate_ms));
}

static json_t *parsed(const char *text)
{
	json_t *doc = text ? json_loads(text, 0, NULL) : NULL;
	return doc ? doc : json_null();
}

/* ---- leftovers ---- */

static json_t *leftover(const struct store_migration *rec, enum side side, const char *kind, int64_t until_wall_ms,
                        const char *text)
{
	return json_pack("{s:s,s:I,s:s,s:s,s:s,s:o,s:s,s:o,s:s,s:n,s:b,s:n,s:n}", "host", run_host(rec, side),
	                 "migration", BIG(rec->id), "kind", kind, "name", rec->vm_name, "side", side_name(side), "vm",
	                 api_vm(rec), "state", migration_state_name(rec->core.state), "kept_until",
	                 api_time(until_wall_ms), "text", text, "path", "claimed", 1, "swept", "error");
}

json_t *api_leftovers_of(const struct coordinator *c, const struct store_migration *rec, const char *host)
{
	json_t *list = json_array();
	for (int i = 0; i < 2; i++) {
		enum side side = i == 0 ? SIDE_SOURCE : SIDE_DESTINATION;
		const struct migration_side *part = &rec->core.side[i];
		if (host[0] && strcmp(host, run_host(rec, side)) != 0)
			continue;
		if (!migration_is_final(rec->core.state) || !part->cleanup_owed)
			continue;
		const char *text = "what the migration made there: taken away when the host is heard of again";
		if (part->journal_lost)
			text = "the host has lost its journal: look there by hand";
		else if (migration_command(&rec->core, side) == STEP_NONE)
			text = "the VM, suspended on the source: the destination counts as having run it, and was booted "
			       "since; 'drover explain' says what can be ruled";
		json_array_append_new(list, leftover(rec, side, "cleanup", 0, text));
	}
	bool done = rec->core.state == MIGRATION_DONE;
	enum side side = done ? SIDE_SOURCE : SIDE_DESTINATION;
	if (rec->kept_until_wall_ms > (uint64_t)coordinator_wall_ms(c) && migration_is_final(rec->core.state) &&
	    (!host[0] || strcmp(host, run_host(rec, side)) == 0))
		json_array_append_new(list, leftover(rec, side, done ? "source-disks" : "copy",
		                                     (int64_t)rec->kept_until_wall_ms,
		                                     done ? "the source's disks, kept on purpose: for 'undo'"
		                                          : "what was copied, kept on purpose: for 'retry'"));
	return list;
}

/* ---- a migration ---- */

json_t *api_migration(const struct coordinator *c, const struct store_migration *rec)
{
	const struct migration_core *core = &rec->core;
	const struct run *run = run_find(c, rec->id);
	json_t *doc = json_object();
	json_object_set_new(doc, "id", json_integer(BIG(rec->id)));
	json_object_set_new(doc, "key", api_text(rec->key));
	json_object_set_new(doc, "vm", api_vm(rec));
	json_object_set_new(doc, "source", json_string(rec->source));
	json_object_set_new(doc, "destination", json_string(rec->destination));
	json_object_set_new(doc, "state", json_string(migration_state_name(core->state)));
	json_object_set_new(doc, "authority", json_string(migration_authority(core)));
	json_object_set_new(doc, "generation", json_integer(BIG(rec->generation)));
	json_object_set_new(doc, "votes", api_votes(&core->facts));
	json_object_set_new(doc, "facts", api_facts(&core->facts));
	json_object_set_new(doc, "progress",
	                    run && run->has_progress ? progress_doc(&run->progress) : parsed(rec->progress));
	bool measured = rec->budget.total_ms != 0;
	json_object_set_new(doc, "downtime_ms", measured ? json_integer(BIG(rec->budget.total_ms)) : json_null());
	json_object_set_new(doc, "downtime_budget", measured ? budget_doc(&rec->budget) : json_null());
	json_object_set_new(doc, "cause", cause_doc(rec));
	json_object_set_new(doc, "leftovers", api_leftovers_of(c, rec, ""));
	json_object_set_new(doc, "kept_until", api_time((int64_t)rec->kept_until_wall_ms));
	json_object_set_new(doc, "retry_of", rec->retry_of ? json_integer(BIG(rec->retry_of)) : json_null());
	json_object_set_new(doc, "undo_of", rec->undo_of ? json_integer(BIG(rec->undo_of)) : json_null());
	json_object_set_new(doc, "priority", json_integer(rec->priority));
	json_object_set_new(doc, "submitted_at", api_time(rec->submitted_wall_ms));
	json_object_set_new(doc, "started_at", api_time(rec->started_wall_ms));
	json_object_set_new(doc, "ended_at", api_time(rec->ended_wall_ms));
	json_object_set_new(doc, "state_since_at", api_time(rec->state_wall_ms));
	json_object_set_new(doc, "submitted_by", json_string(rec->submitted_by));
	json_object_set_new(doc, "options", parsed(rec->options));
	return doc;
}

int api_show(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
             struct err *err)
{
	struct store_migration rec;
	(void)peer;
	if (api_find(c, request->id, &rec, err) != 0)
		return -1;
	*ret_doc = api_migration(c, &rec);
	store_migration_free(&rec);
	return 0;
}

/* One page of records that pass `filter`, each as what `make` says (a list is added item by item). */
static int list_records(struct coordinator *c, struct store_filter *filter, const char *name,
                        json_t *(*make)(const struct coordinator *, const struct store_migration *, const char *host),
                        const char *host, json_t **ret_doc, struct err *err)
{
	struct api_page page = { .list = NULL, .last = filter->after };
	struct store_migration *list = NULL;
	size_t count = 0;
	filter->limit = API_PAGE_ITEMS;
	if (store_migration_list(c->store, filter, &list, &count, err) != 0)
		return -1;
	for (size_t i = 0; i < count && !page.full; i++)
		(void)api_page_add(&page, list[i].id, make(c, &list[i], host));
	if (count == API_PAGE_ITEMS)
		page.full = true;
	store_migration_list_free(list, count);
	*ret_doc = api_page_end(&page, name);
	return 0;
}

static json_t *make_migration(const struct coordinator *c, const struct store_migration *rec, const char *host)
{
	(void)host;
	return api_migration(c, rec);
}

int api_list(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
             struct err *err)
{
	struct store_filter filter = { .final_too = request->all != 0, .after = request->after };
	(void)peer;
	if (request->state[0]) {
		filter.state = migration_state_from_name(request->state);
		if (filter.state == MIGRATION_STATES)
			return err_set(err, ERR_USAGE, "there is no state %s", request->state);
	}
	filter.host = request->host[0] ? request->host : NULL;
	filter.vm = request->vm[0] ? request->vm : NULL;
	return list_records(c, &filter, "migrations", make_migration, "", ret_doc, err);
}

int api_events(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
               struct err *err)
{
	struct api_page page = { .list = NULL, .last = request->after };
	struct store_migration rec = { .id = 0 };
	struct store_event *list = NULL;
	size_t count = 0;
	(void)peer;
	if (request->id[0] && api_find(c, request->id, &rec, err) != 0)
		return -1;
	uint64_t id = rec.id;
	store_migration_free(&rec);
	if (store_event_list(c->store, id, request->after, API_PAGE_ITEMS, &list, &count, err) != 0)
		return -1;
	for (size_t i = 0; i < count && !page.full; i++) {
		const struct store_event *e = &list[i];
		json_t *item = json_pack("{s:I,s:o,s:o,s:o,s:s,s:o,s:s,s:o}", "number", BIG(e->number), "at",
		                         api_time(e->wall_ms), "migration",
		                         e->migration ? json_integer(BIG(e->migration)) : json_null(), "host",
		                         api_text(e->host), "kind", e->kind, "state", api_text(e->state), "text",
		                         e->text, "details", parsed(e->details));
		(void)api_page_add(&page, e->number, item);
	}
	if (count == API_PAGE_ITEMS)
		page.full = true;
	store_event_list_free(list, count);
	*ret_doc = api_page_end(&page, "events");
	return 0;
}
