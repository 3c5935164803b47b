/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For api*.c only. Documents are as docs/CLI.md describes them; fields are only ever added. */
#ifndef DROVER_API_ROOM_H
#define DROVER_API_ROOM_H

#include <jansson.h>

#include "coordinator/coordinator_room.h"

#define API_PAGE_BYTES (LIMIT_JSON_BYTES - 8192) /* what the items of one page may take */
#define API_PAGE_ITEMS 500

/* One request: 0 and a document (the caller's), or -1; then a document may be there too. */
typedef int (*api_verb_fn)(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request,
                           json_t **ret_doc, struct err *err);

/* ---- api.c ---- */
/* A list that has to fit one answer. */
struct api_page {
	json_t *list;
	size_t bytes, count;
	bool full;     /* an item did not fit: "more" */
	uint64_t last; /* key of the last one that did */
};
/* Takes the item over (NULL is skipped). False: it did not fit. */
bool api_page_add(struct api_page *page, uint64_t key, json_t *item);
/* {"NAME":[...]} with "more" and "next" if there is more. Takes the list over. */
json_t *api_page_end(struct api_page *page, const char *name);
/* "RFC3339" or null; 0 is null. */
json_t *api_time(int64_t wall_ms);
/* Text or null if it is empty. */
json_t *api_text(const char *text);
/* Finds the record by number or unique prefix of its key. ERR_UNKNOWN_ID, ERR_AMBIGUOUS. Free it. */
int api_find(struct coordinator *c, const char *id, struct store_migration *ret_rec, struct err *err);

/* ---- api_show.c ---- */
json_t *api_migration(const struct coordinator *c, const struct store_migration *rec);
/* {"uuid":…,"name":…} */
json_t *api_vm(const struct store_migration *rec);
json_t *api_votes(const struct verdict_facts *facts);
json_t *api_facts(const struct verdict_facts *facts);
/* What is left on hosts because of it; a list. */
json_t *api_leftovers_of(const struct coordinator *c, const struct store_migration *rec, const char *host);
int api_show(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
             struct err *err);
int api_list(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
             struct err *err);
int api_events(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
               struct err *err);

/* ---- api_explain.c ---- */
int api_explain(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err);

/* ---- api_evidence.c ---- */
/* What is known, by whom, and what it means; a list. */
json_t *api_evidence(const struct store_migration *rec);
/* Who may do what with the VM by what is known; a list. */
json_t *api_rights(const struct store_migration *rec);
/* What an operator could rule, and why not; a list, empty where nothing is in doubt. */
json_t *api_rulings(const struct coordinator *c, const struct store_migration *rec);

/* ---- api_hosts.c ---- */
int api_status(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
               struct err *err);
int api_host_list(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request,
                  json_t **ret_doc, struct err *err);
int api_host_show(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request,
                  json_t **ret_doc, struct err *err);
int api_vm_list(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err);
int api_vm_show(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err);

/* ---- api_plan.c ---- */
/* The VM by UUID or unique name, on `on` if that is not empty. ERR_AMBIGUOUS: *ret_doc has the candidates. */
const struct msg_vm *api_find_vm(const struct coordinator *c, const char *text, const char *on,
                                 const struct host **ret_host, json_t **ret_doc, struct err *err);
/* A plan that follows another: the same policy and formats, the same way or back. */
struct api_again {
	const struct msg_plan *before;
	bool undo; /* back: its source's disks may be copied over */
};
/* Every pre-check that the coordinator can make by itself, and the plan. `again`: NULL for a migration of its own. */
int api_plan(const struct coordinator *c, const struct msg_request *request, const struct api_again *again,
             struct msg_plan *ret_plan, json_t **ret_doc, struct err *err);

/* ---- api_capacity.c ---- */
/* Memory, space and name on the destination, minus what active migrations have taken and the inventory does not show.
 */
int api_capacity(const struct coordinator *c, const struct host *to, const struct msg_plan *plan, struct err *err);

/* ---- api_migrate.c ---- */
int api_migrate(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err);
int api_cancel(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
               struct err *err);
/* Operators may all, others only what they have submitted. ERR_DENIED. */
int api_may_change(const struct bus_peer *peer, const struct store_migration *rec, const char *verb, struct err *err);

/* What is submitted, beside its plan. */
struct api_submission {
	const char *what; /* for words: "migrate web3" */
	const char *key;  /* "": none */
	uint64_t digest;  /* of the request: the same key with another one is refused */
	int32_t priority;
	uint64_t retry_of, undo_of; /* 0: of none */
};
/* 1: the key is known and the request the same: *ret_doc is that migration. 0: go on. */
int api_by_key(struct coordinator *c, const struct api_submission *what, json_t **ret_doc, struct err *err);
/* Records it, and lets it start. Takes a copy of the plan. */
int api_submit(struct coordinator *c, const struct bus_peer *peer, const struct api_submission *what,
               const struct msg_plan *plan, json_t **ret_doc, struct err *err);
/* A positive number that is the same for the same document. */
uint64_t api_digest(const json_t *doc);

/* ---- api_again.c ---- */
int api_retry(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
              struct err *err);
int api_undo(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
             struct err *err);

/* ---- api_operator.c ---- */
/* Why `owner` cannot be ruled to have the VM now, NULL if it can. */
const char *api_resolve_refusal(const struct coordinator *c, const struct store_migration *rec, enum side owner);
int api_resolve(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err);
int api_host_forget(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request,
                    json_t **ret_doc, struct err *err);

#endif
