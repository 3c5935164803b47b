/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What only an operator may say: who owns a VM when nobody can be asked any more, and that a host is gone for good. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "coordinator/api_room.h"

static enum side other_side(enum side side)
{
	return side == SIDE_SOURCE ? SIDE_DESTINATION : SIDE_SOURCE;
}

static int need_reason(const struct msg_request *request, const char *what, struct err *err)
{
	if (request->reason[0])
		return 0;
	return err_set(err, ERR_USAGE, "%s: --reason is missing: it is kept on record", what);
}

/* A lost migration that is opened again must not meet another one of the same VM. */
static const struct run *other_run_of_vm(const struct coordinator *c, const struct store_migration *rec)
{
	for (size_t i = 0; i < c->run_count; i++) {
		const struct store_migration *other = &c->runs[i]->rec;
		if (other->id != rec->id && !migration_is_final(other->core.state) &&
		    memcmp(other->vm, rec->vm, sizeof(rec->vm)) == 0)
			return c->runs[i];
	}
	return NULL;
}

/* A reboot is as good as being off, as far as the memory goes; the VM may have been booted there since. NULL: it was
 * not.
 */
static const char *booted_there(const struct coordinator *c, const struct store_migration *rec)
{
	const struct host *host = host_find(c, run_host(rec, SIDE_DESTINATION));
	if (!host || host->reach == REACH_SUSPECTED)
		return NULL;
	if (!host_is_up(host) || !host->has_inventory || host->want_inventory)
		return "it is not known yet whether the VM runs on the destination again: ask in a moment";
	for (uint32_t i = 0; i < host->inventory.vm_count; i++) {
		const struct msg_vm *vm = &host->inventory.vms[i];
		if (memcmp(vm->uuid, rec->vm, sizeof(rec->vm)) == 0 && vm->state == VM_RUNNING)
			return "the VM runs on the destination: shut it down there first, or rule for the destination";
	}
	return NULL;
}

const char *api_resolve_refusal(const struct coordinator *c, const struct store_migration *rec, enum side owner)
{
	const char *refusal = migration_resolve_refusal(&rec->core, owner);
	return refusal || owner == SIDE_DESTINATION ? refusal : booted_there(c, rec);
}

static int check_resolve(struct coordinator *c, const struct msg_request *request, const struct store_migration *rec,
                         struct err *err)
{
	unsigned long long id = rec->id;
	if (request->owner != SIDE_SOURCE && request->owner != SIDE_DESTINATION)
		return err_set(err, ERR_USAGE, "resolve %llu: --owner is missing: source or destination", id);
	const char *fenced = run_host(rec, other_side(request->owner));
	if (!request->fenced[0])
		return err_set(err, ERR_USAGE,
		               "resolve %llu: --fenced is missing: power off %s, then name it: nothing else makes sure "
		               "that the VM does not run there",
		               id, fenced);
	if (strcmp(request->fenced, fenced) != 0)
		return err_set(
			err, ERR_USAGE,
			"resolve %llu: --fenced %s: with the %s as the owner it is %s that has to be powered off", id,
			request->fenced, side_name(request->owner), fenced);
	if (need_reason(request, "resolve", err) != 0)
		return -1;
	const char *refusal = api_resolve_refusal(c, rec, request->owner);
	if (refusal)
		return err_set(err,
		               rec->core.state != MIGRATION_LOST && migration_is_final(rec->core.state) ? ERR_TOO_LATE
		                                                                                        : ERR_CONFLICT,
		               "resolve %llu, state %s: %s; see 'drover explain %llu'", id,
		               migration_state_name(rec->core.state), refusal, id);
	const struct run *other = other_run_of_vm(c, rec);
	if (other)
		return err_set(err, ERR_BUSY, "resolve %llu: migration %llu of the same VM is under way", id,
		               (unsigned long long)other->rec.id);
	return 0;
}

int api_resolve(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request, json_t **ret_doc,
                struct err *err)
{
	struct store_migration rec;
	char words[LIMIT_TEXT];
	if (api_find(c, request->id, &rec, err) != 0)
		return -1;
	struct run *run = run_find(c, rec.id);
	int result = check_resolve(c, request, run ? &run->rec : &rec, err);
	if (result == 0 && run) {
		(void)snprintf(words, sizeof(words),
		               "resolved by %s: the %s owns the VM, %s was declared powered off: %s", peer->name,
		               side_name(request->owner), request->fenced, request->reason);
		log_notice("event=resolve migration=%llu key=%s owner=%s fenced=%s reason=\"%s\"",
		           (unsigned long long)rec.id, peer->name, side_name(request->owner), request->fenced,
		           request->reason);
		run_event(c, run, &(struct migration_event) { .kind = MIGRATION_EVENT_RESOLVE, .side = request->owner },
		          words);
	}
	if (result == 0)
		*ret_doc = api_migration(c, run ? &run->rec : &rec);
	store_migration_free(&rec);
	return result;
}

/* ---- host forget ---- */

static int check_forget(const struct coordinator *c, const struct host *host, struct err *err)
{
	const char *name = host->rec.name;
	if (host->reach != REACH_SUSPECTED)
		return err_set(
			err, ERR_CONFLICT,
			"host forget %s: it is heard of, or was until a moment ago: stop its agent, or power it off",
			name);
	for (size_t i = 0; i < c->run_count; i++) {
		const struct store_migration *rec = &c->runs[i]->rec;
		for (int side = SIDE_SOURCE; side <= SIDE_DESTINATION; side++) {
			if (strcmp(run_host(rec, (enum side)side), name) != 0)
				continue;
			const char *refusal = migration_write_off_refusal(&rec->core, (enum side)side);
			if (refusal)
				return err_set(err, ERR_CONFLICT,
				               "host forget %s: migration %llu: %s; see 'drover explain %llu'", name,
				               (unsigned long long)rec->id, refusal, (unsigned long long)rec->id);
		}
	}
	return 0;
}

/* What is not waited for any more from now on, for the record. */
static json_t *write_off(struct coordinator *c, const char *name, const char *words)
{
	json_t *list = json_array();
	for (size_t i = 0; i < c->run_count && !c->failed; i++) {
		struct run *run = c->runs[i];
		for (int side = SIDE_SOURCE; side <= SIDE_DESTINATION; side++) {
			if (strcmp(run_host(&run->rec, (enum side)side), name) != 0)
				continue;
			json_t *leftovers = api_leftovers_of(c, &run->rec, name);
			const char *before = migration_state_name(run->rec.core.state);
			run_event(c, run,
			          &(struct migration_event) { .kind = MIGRATION_EVENT_WRITTEN_OFF,
			                                      .side = (enum side)side },
			          words);
			json_array_append_new(list, json_pack("{s:I,s:s,s:s,s:s,s:s,s:o}", "migration",
			                                      (json_int_t)run->rec.id, "vm", run->rec.vm_name, "side",
			                                      side_name((enum side)side), "state_before", before,
			                                      "state", migration_state_name(run->rec.core.state),
			                                      "leftovers", leftovers));
		}
	}
	return list;
}

int api_host_forget(struct coordinator *c, const struct bus_peer *peer, const struct msg_request *request,
                    json_t **ret_doc, struct err *err)
{
	struct store_event event = { .migration = 0 };
	char words[LIMIT_TEXT];
	struct host *host = host_find(c, request->host);
	if (!host)
		return err_set(err, ERR_UNKNOWN_HOST, "there is no host %s; 'drover host list' has them all",
		               request->host);
	if (need_reason(request, "host forget", err) != 0 || check_forget(c, host, err) != 0)
		return -1;
	(void)snprintf(event.host, sizeof(event.host), "%s", host->rec.name);
	(void)snprintf(event.kind, sizeof(event.kind), "host-forgotten");
	(void)snprintf(words, sizeof(words), "%s was written off by %s: %s", event.host, peer->name, request->reason);
	memcpy(event.text, words, sizeof(event.text));
	log_notice("event=host-forget host=%s key=%s reason=\"%s\"", event.host, peer->name, request->reason);
	json_t *doc = json_pack("{s:s,s:s,s:s,s:o}", "host", event.host, "by", peer->name, "reason", request->reason,
	                        "written_off", write_off(c, event.host, words));
	event.details = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	int result = c->failed ? err_set(err, ERR_IO, "host forget %s: the records cannot be written", event.host)
	                       : store_host_forget(c->store, &event, err);
	free(event.details);
	if (result != 0) {
		json_decref(doc);
		coordinator_fail(c, err);
		return -1;
	}
	host_remove(c, host);
	*ret_doc = doc;
	return 0;
}
