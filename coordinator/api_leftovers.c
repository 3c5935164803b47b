/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leftovers as a document: what the records say is owed or kept, and what hosts have told that they hold. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/api_room.h"

enum { EXIT_DONE = 0, EXIT_INCOMPLETE = 1 };

/* ---- what the records say ---- */

/* The host has told of each disk that it keeps for this migration: one line for all of them says less. */
static bool told_of_kept(const struct leftovers *leftovers, const json_t *item)
{
	const char *host = json_string_value(json_object_get(item, "host"));
	const char *kind = json_string_value(json_object_get(item, "kind"));
	uint64_t migration = (uint64_t)json_integer_value(json_object_get(item, "migration"));
	if (!host || !kind || (strcmp(kind, "source-disks") != 0 && strcmp(kind, "copy") != 0))
		return false;
	for (size_t i = 0; i < leftovers->count; i++) {
		const struct leftovers_host *asked = &leftovers->hosts[i];
		for (uint32_t k = 0; strcmp(asked->name, host) == 0 && k < asked->holdings.count; k++)
			if (asked->holdings.list[k].state == HOLDING_KEPT &&
			    asked->holdings.list[k].migration == migration)
				return true;
	}
	return false;
}

/* All records of one kind, added to a page that all share. */
static int add_records(struct coordinator *c, struct store_filter filter, const struct leftovers *leftovers,
                       struct api_page *page, struct err *err)
{
	struct store_migration *list = NULL;
	size_t count = 0;
	filter.limit = API_PAGE_ITEMS;
	if (store_migration_list(c->store, &filter, &list, &count, err) != 0)
		return -1;
	for (size_t i = 0; i < count && !page->full; i++) {
		/* One that is owed and kept is told of once. */
		bool owed = list[i].core.side[0].cleanup_owed || list[i].core.side[1].cleanup_owed;
		if (filter.kept_only && owed)
			continue;
		json_t *items = api_leftovers_of(c, &list[i], leftovers->host), *item;
		size_t at;
		json_array_foreach(items, at, item)
		{
			if (!told_of_kept(leftovers, item))
				(void)api_page_add(page, list[i].id, json_incref(item));
		}
		json_decref(items);
	}
	page->full = page->full || count == API_PAGE_ITEMS;
	store_migration_list_free(list, count);
	return 0;
}

/* ---- what hosts told ---- */

static const char *words_of(const struct msg_holding *holding)
{
	if (holding->swept)
		return "taken away";
	switch (holding->state) {
	case HOLDING_UNCLAIMED:
		return "no journal and no VM claims it";
	case HOLDING_LEFTOVER:
		return "journaled, and nobody works on it any more";
	case HOLDING_KEPT:
		return "kept on purpose";
	case HOLDING_STATES:
		break;
	}
	return "";
}

static json_t *holding_doc(struct coordinator *c, const struct leftovers_host *asked, const struct msg_holding *holding)
{
	struct store_migration rec;
	const char *side = NULL, *state = NULL;
	json_t *vm = json_null();
	bool known = holding->migration && store_migration_get(c->store, holding->migration, &rec, NULL) == 1;
	if (known) {
		if (strcmp(rec.destination, asked->name) == 0)
			side = side_name(SIDE_DESTINATION);
		else if (strcmp(rec.source, asked->name) == 0)
			side = side_name(SIDE_SOURCE);
		state = migration_state_name(rec.core.state);
		vm = api_vm(&rec);
	}
	bool judged = asked->holdings.sweep && holding->state != HOLDING_KEPT;
	json_t *doc = json_pack(
		"{s:s,s:o,s:s,s:s,s:s?,s:o,s:s?,s:o,s:s,s:o,s:b,s:o,s:o}", "host", asked->name, "migration",
		holding->migration ? json_integer((json_int_t)holding->migration) : json_null(), "kind",
		holding_kind_name(holding->kind), "name", holding->name, "side", side, "vm", vm, "state", state,
		"kept_until", api_time((int64_t)holding->kept_until_wall_ms), "text", words_of(holding), "path",
		api_text(holding->path), "claimed", holding->state != HOLDING_UNCLAIMED, "swept",
		judged ? json_boolean(holding->swept) : json_null(), "error", api_text(holding->error));
	if (known)
		store_migration_free(&rec);
	return doc;
}

/* Adds a host's things; returns whether all that it was to take away is gone. */
static bool add_holdings(struct coordinator *c, const struct leftovers_host *asked, struct api_page *page)
{
	bool good = true;
	for (uint32_t i = 0; i < asked->holdings.count; i++) {
		good = good && !asked->holdings.list[i].error[0];
		(void)api_page_add(page, asked->holdings.list[i].migration,
		                   holding_doc(c, asked, &asked->holdings.list[i]));
	}
	page->full = page->full || asked->holdings.cut;
	return good;
}

static json_t *fault_doc(const struct leftovers_host *asked)
{
	const struct err *cause = &asked->holdings.cause;
	return json_pack("{s:s,s:s,s:s}", "host", asked->name, "code", err_name(cause->code), "message", cause->text);
}

void api_leftovers_reply(struct coordinator *c, const struct leftovers *leftovers, struct msg_reply *ret_reply)
{
	struct api_page page = { .list = NULL };
	const struct store_filter owed = { .owed_only = true }, kept = { .kept_only = true };
	json_t *silent = json_array(), *faults = json_array();
	struct err err = { 0 };
	bool whole = true;
	if (add_records(c, owed, leftovers, &page, &err) != 0 || add_records(c, kept, leftovers, &page, &err) != 0) {
		json_array_append_new(
			faults, json_pack("{s:n,s:s,s:s}", "host", "code", err_name(err.code), "message", err.text));
	}
	for (size_t i = 0; i < leftovers->count; i++) {
		const struct leftovers_host *asked = &leftovers->hosts[i];
		if (!asked->told || asked->waiting)
			json_array_append_new(silent, json_string(asked->name));
		if (asked->told && asked->holdings.cause.code != ERR_NONE)
			json_array_append_new(faults, fault_doc(asked));
		whole = add_holdings(c, asked, &page) && whole;
	}
	bool cut = page.full;
	page.full = false; /* no paging here: what does not fit comes when these are gone */
	json_t *doc = api_page_end(&page, "leftovers");
	whole = whole && !cut && json_array_size(silent) == 0 && json_array_size(faults) == 0;
	json_object_set_new(doc, "hosts_silent", silent);
	json_object_set_new(doc, "faults", faults);
	json_object_set_new(doc, "cut", json_boolean(cut));
	*ret_reply = (struct msg_reply) { .code = ERR_NONE, .exit_code = whole ? EXIT_DONE : EXIT_INCOMPLETE };
	ret_reply->json = json_dumps(doc, JSON_COMPACT);
	json_decref(doc);
	if (!ret_reply->json) {
		ret_reply->code = ERR_INTERNAL;
		(void)snprintf(ret_reply->text, sizeof(ret_reply->text), "the answer could not be made");
	}
}
