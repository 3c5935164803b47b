/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The client API: who may ask what, and how it is answered. */
#include "coordinator/api_room.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_TOO_LATE = 4,
	EXIT_UNREACHABLE = 6,
	EXIT_DENIED = 7,
	EXIT_REFUSED = 8
};

static const struct verb_entry {
	api_verb_fn fn;
	bool changes;   /* needs at least a submitter */
	bool operators; /* needs an operator */
	/* instead of fn, for what may be answered later: 0: it will be, 1: *ret_reply is the answer, -1 */
	int (*start)(struct coordinator *c, const struct bus_peer *peer, uint64_t sequence,
	             const struct msg_request *request, struct msg_reply *ret_reply, struct err *err);
} verbs[VERBS] = {
	[VERB_STATUS] = { .fn = api_status },
	[VERB_MIGRATE] = { .fn = api_migrate, .changes = true },
	[VERB_LIST] = { .fn = api_list },
	[VERB_SHOW] = { .fn = api_show },
	[VERB_EXPLAIN] = { .fn = api_explain },
	[VERB_EVENTS] = { .fn = api_events },
	[VERB_CANCEL] = { .fn = api_cancel, .changes = true },
	[VERB_HOST_LIST] = { .fn = api_host_list },
	[VERB_HOST_SHOW] = { .fn = api_host_show },
	[VERB_VM_LIST] = { .fn = api_vm_list },
	[VERB_VM_SHOW] = { .fn = api_vm_show },
	[VERB_LEFTOVERS] = { .start = leftovers_start },
	[VERB_RETRY] = { .fn = api_retry, .changes = true },
	[VERB_UNDO] = { .fn = api_undo, .changes = true },
	[VERB_RESOLVE] = { .fn = api_resolve, .operators = true },
	[VERB_HOST_FORGET] = { .fn = api_host_forget, .operators = true },
};

/* ---- pieces ---- */

bool api_page_add(struct api_page *page, uint64_t key, json_t *item)
{
	if (!item)
		return true;
	if (!page->list)
		page->list = json_array();
	size_t bytes = json_dumpb(item, NULL, 0, JSON_COMPACT) + 1;
	if (page->full || page->bytes + bytes > API_PAGE_BYTES) {
		json_decref(item);
		page->full = true;
		return false;
	}
	page->bytes += bytes;
	page->count++;
	page->last = key;
	json_array_append_new(page->list, item);
	return true;
}

json_t *api_page_end(struct api_page *page, const char *name)
{
	json_t *doc = json_object();
	json_object_set_new(doc, name, page->list ? page->list : json_array());
	if (page->full) {
		json_object_set_new(doc, "more", json_true());
		json_object_set_new(doc, "next", json_integer((json_int_t)page->last));
	}
	page->list = NULL;
	return doc;
}

json_t *api_time(int64_t wall_ms)
{
	char text[32];
	if (wall_ms == 0)
		return json_null();
	wall_format(wall_ms, text);
	return json_string(text);
}

json_t *api_text(const char *text)
{
	return text[0] ? json_string(text) : json_null();
}

static bool is_number(const char *text, uint64_t *ret_number)
{
	char *end;
	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	unsigned long long number = strtoull(text, &end, 10);
	if (*end != '\0' || errno != 0 || number > INT64_MAX)
		return false;
	*ret_number = number;
	return true;
}

int api_find(struct coordinator *c, const char *id, struct store_migration *ret_rec, struct err *err)
{
	uint64_t number = 0, ids[2];
	if (id[0] == '\0')
		return err_set(err, ERR_USAGE, "which migration? its number, or a unique prefix of its key");
	if (is_number(id, &number)) {
		int found = store_migration_get(c->store, number, ret_rec, err);
		if (found != 0)
			return found == 1 ? 0 : -1;
	}
	int exact = store_migration_by_key(c->store, id, ret_rec, err);
	if (exact != 0)
		return exact == 1 ? 0 : -1;
	int count = store_migration_by_prefix(c->store, id, ids, 2, err);
	if (count < 0)
		return -1;
	if (count == 2)
		return err_set(err, ERR_AMBIGUOUS,
		               "%.100s: the prefix fits the keys of migrations %llu, %llu and maybe more", id,
		               (unsigned long long)ids[0], (unsigned long long)ids[1]);
	if (count == 1 && store_migration_get(c->store, ids[0], ret_rec, err) == 1)
		return 0;
	return err_set(err, ERR_UNKNOWN_ID, "there is no migration %.100s; 'drover list --all' has them all", id);
}

/* ---- requests ---- */

static uint32_t exit_of(enum err_code code)
{
	switch ((int)code) {
	case ERR_NONE:
		return EXIT_DONE;
	case ERR_INTERNAL:
	case ERR_IO:
	case ERR_CORRUPT:
		return EXIT_FAILED;
	case ERR_USAGE:
	case ERR_UNKNOWN_VM:
	case ERR_UNKNOWN_HOST:
	case ERR_UNKNOWN_ID:
	case ERR_AMBIGUOUS:
		return EXIT_USAGE;
	case ERR_TOO_LATE:
		return EXIT_TOO_LATE;
	case ERR_UNREACHABLE:
		return EXIT_UNREACHABLE;
	case ERR_DENIED:
		return EXIT_DENIED;
	}
	return EXIT_REFUSED;
}

static bool may(enum role role, const struct verb_entry *verb, const struct msg_request *request)
{
	if (request->sweep) /* takes things away from hosts */
		return role == ROLE_OPERATOR;
	switch (role) {
	case ROLE_OPERATOR:
		return true;
	case ROLE_SUBMITTER:
		return !verb->operators;
	case ROLE_VIEWER:
		return !verb->changes && !verb->operators;
	case ROLE_NONE:
	case ROLE_COORDINATOR:
	case ROLE_AGENT:
	case ROLES:
		break;
	}
	return false;
}

static void fill_reply(struct msg_reply *reply, json_t *doc, const struct err *err)
{
	reply->code = err->code;
	reply->exit_code = exit_of(err->code);
	(void)snprintf(reply->text, sizeof(reply->text), "%s", err->code == ERR_NONE ? "" : err->text);
	if (err->code != ERR_NONE) {
		if (!doc)
			doc = json_object();
		json_object_set_new(doc, "error",
		                    json_pack("{s:s,s:s}", "code", err_name(err->code), "message", err->text));
	}
	reply->json = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	json_decref(doc);
	if (!reply->json) {
		reply->code = ERR_INTERNAL;
		reply->exit_code = EXIT_FAILED;
		(void)snprintf(reply->text, sizeof(reply->text), "the answer could not be made");
	}
}

bool api_answer(struct coordinator *c, const struct bus_peer *peer, uint64_t sequence,
                const struct msg_request *request, struct msg_reply *ret_reply)
{
	struct err err;
	json_t *doc = NULL;
	err_clear(&err);
	memset(ret_reply, 0, sizeof(*ret_reply));
	const struct verb_entry *verb = request->verb < VERBS ? &verbs[request->verb] : &verbs[0];
	if (!verb->fn && !verb->start) {
		err_set(&err, ERR_USAGE, "unknown request %d", (int)request->verb);
	} else if (!may(peer->role, verb, request)) {
		log_warning("event=denied key=%s role=%s verb=%s", peer->name, role_name(peer->role),
		            verb_name(request->verb));
		err_set(&err, ERR_DENIED, "%s: not permitted for key %s (role %s)", verb_name(request->verb),
		        peer->name, role_name(peer->role));
	} else if (request->verb == VERB_MIGRATE && request->dry_run) {
		struct msg_plan *plan = calloc(1, sizeof(*plan));
		int started =
			plan ? api_plan(c, request, NULL, plan, &doc, &err) : err_set(&err, ERR_NO_MEMORY, "no memory");
		if (started == 0)
			started = dry_start(c, peer, sequence, plan, &err);
		free(plan);
		if (started == 0)
			return false;
	} else if (verb->start) {
		int started = verb->start(c, peer, sequence, request, ret_reply, &err);
		if (started >= 0)
			return started == 1;
	} else if (verb->fn(c, peer, request, &doc, &err) != 0 && err.code == ERR_NONE) {
		err_set(&err, ERR_INTERNAL, "%s failed", verb_name(request->verb));
	}
	if (c->failed) { /* what the document says is not on record */
		json_decref(doc);
		doc = NULL;
		err = c->failure;
		err_wrap(&err, "%s: the outcome is unknown, ask again when the coordinator is back",
		         verb_name(request->verb));
		err.code = ERR_UNREACHABLE;
	}
	fill_reply(ret_reply, doc, &err);
	return true;
}

void api_request(struct coordinator *c, const struct bus_peer *peer, const struct msg *msg)
{
	struct msg_reply reply;
	if (!api_answer(c, peer, msg->sequence, &msg->u.request, &reply))
		return;
	if (reply.code != ERR_NONE)
		log_info("event=request key=%s verb=%s code=%s text=\"%s\"", peer->name, verb_name(msg->u.request.verb),
		         err_name(reply.code), reply.text);
	(void)coordinator_reply(c, peer, msg->sequence, &reply);
	free(reply.json);
}
