/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The evidence of explain: which record of whom is known, what it permits by which rule of docs/PROTOCOL.md, and what
 * an operator could rule. */
#include <stdio.h>
#include <string.h>

#include "coordinator/api_room.h"

/* A fact that is known, in words. */
struct words {
	const char *says, *rule, *means;
};

static const struct words vote_words[PARTIES][3] = {
	[PARTY_COORDINATOR] = {
		[VOTE_COMMIT] = { "seconded COMMIT", "V5", "with the vote that it seconds the destination owns the VM" },
		[VOTE_ABORT] = { "seconded ABORT", "V5", "with the vote that it seconds the source owns the VM" },
	},
	[PARTY_SOURCE] = {
		[VOTE_COMMIT] = { "voted COMMIT", "V1", "it had heard the destination's COMMIT: the destination may run the VM" },
		[VOTE_ABORT] = { "voted ABORT", "V2, V3", "before its end of stream it is enough; later a second ABORT is needed" },
	},
	[PARTY_DESTINATION] = {
		[VOTE_COMMIT] = { "voted COMMIT", "V4", "it holds a whole, verified copy; a second COMMIT lets it run" },
		[VOTE_ABORT] = { "voted ABORT", "V4", "it will not run the VM; the source may vote ABORT too" },
	},
};

static void add(json_t *list, const char *who, const char *host, const struct words *words)
{
	json_array_append_new(list, json_pack("{s:s,s:s?,s:s,s:s,s:s}", "who", who, "host", host, "says", words->says,
	                                      "rule", words->rule, "means", words->means));
}

json_t *api_evidence(const struct store_migration *rec)
{
	const struct verdict_facts *f = &rec->core.facts;
	const char *hosts[PARTIES] = { NULL, rec->source, rec->destination };
	const struct {
		bool known;
		enum party by;
		struct words words;
	} flags[] = {
		{ f->suspended,
		  PARTY_SOURCE,
		  { "journaled that it suspends the VM", "V2",
		    f->stream_ended ? "the VM stands still there from then on" : "it may still abort by itself" } },
		{ f->stream_ended,
		  PARTY_SOURCE,
		  { "journaled its end of stream", "V3",
		    "the destination may hold it all: the source may not resume alone" } },
		{ f->activating,
		  PARTY_DESTINATION,
		  { "journaled that it lets the VM run", "V6", "the VM counts as having run there" } },
		{ f->running, PARTY_DESTINATION, { "says that the VM runs", "V10", "the source may let go of it" } },
		{ f->renounced,
		  PARTY_DESTINATION,
		  { "renounced: it will never run this VM", "V7, V8", "the source may run it again" } },
		{ f->resumed,
		  PARTY_SOURCE,
		  { "says that the VM runs again", "V8", "the destination must not run it" } },
		{ f->released, PARTY_SOURCE, { "has let go of the VM", "V10", "only the destination has it" } },
	};
	json_t *list = json_array();
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (flags[i].known)
			add(list, party_name(flags[i].by), hosts[flags[i].by], &flags[i].words);
	for (int party = 0; party < PARTIES; party++)
		if (f->vote[party] != VOTE_NONE)
			add(list, party_name((enum party)party), hosts[party], &vote_words[party][f->vote[party]]);
	if (f->ruling != VOTE_NONE)
		add(list, "operator", NULL,
		    f->ruling == VOTE_COMMIT ? &(struct words) { "ruled that the destination owns the VM", "resolve",
		                                                 "the source is off" }
		                             : &(struct words) { "ruled that the source owns the VM", "resolve",
		                                                 "the destination is off" });
	return list;
}

json_t *api_rights(const struct store_migration *rec)
{
	const struct verdict_facts *f = &rec->core.facts;
	const struct {
		const char *host, *act, *rule;
		bool allowed;
	} rights[] = {
		{ rec->source, "let the VM run again", "V8", !f->suspended || verdict_may_resume(f) },
		{ rec->source, "destroy the suspended VM", "V10", verdict_may_release(f) },
		{ rec->destination, "let the VM run", "V6", verdict_may_activate(f) },
	};
	json_t *list = json_array();
	if (migration_is_final(rec->core.state) && rec->core.state != MIGRATION_LOST)
		return list; /* nothing is left to be permitted */
	for (size_t i = 0; i < sizeof(rights) / sizeof(rights[0]); i++)
		json_array_append_new(list, json_pack("{s:s,s:s,s:b,s:s}", "host", rights[i].host, "act", rights[i].act,
		                                      "allowed", rights[i].allowed, "rule", rights[i].rule));
	return list;
}

static const char *ruling_effect(const struct store_migration *rec, enum side owner)
{
	const struct verdict_facts *f = &rec->core.facts;
	if (owner == SIDE_DESTINATION)
		return "the destination runs its copy, or boots it from its disks if it was running already";
	if (rec->core.side[0].rebooted)
		return "the VM's memory is gone with the source's reboot: it is booted from the source's disks";
	if (f->activating)
		return "the VM goes on where the source suspended it: what it did on the destination since then is undone";
	return "the VM goes on where the source suspended it; should it have run on the destination, that is undone";
}

json_t *api_rulings(const struct coordinator *c, const struct store_migration *rec)
{
	json_t *list = json_array();
	char command[LIMIT_TEXT];
	if (rec->core.state != MIGRATION_SWITCHING && rec->core.state != MIGRATION_IN_DOUBT &&
	    rec->core.state != MIGRATION_COMMITTED && rec->core.state != MIGRATION_LOST)
		return list;
	for (int owner = SIDE_SOURCE; owner <= SIDE_DESTINATION; owner++) {
		const char *refusal = api_resolve_refusal(c, rec, (enum side)owner);
		(void)snprintf(command, sizeof(command), "drover resolve %llu --owner %s --fenced %s --reason TEXT",
		               (unsigned long long)rec->id, side_name((enum side)owner),
		               owner == SIDE_SOURCE ? rec->destination : rec->source);
		json_array_append_new(list,
		                      json_pack("{s:s,s:b,s:s?,s:s}", "command", command, "possible", !refusal,
		                                "why_not", refusal, "effect", ruling_effect(rec, (enum side)owner)));
	}
	return list;
}
