/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What this host has: the leg program tells of VMs and memory, the agent adds SRs, networks and claims. */
#include <string.h>

#include "agent/agent_impl.h"
#include "common/log.h"

static void run_start(struct agent *agent);

/* ---- amounts ---- */

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

void inventory_amounts(struct agent *agent)
{
	struct msg_inventory *now = &agent->inventory.now;
	struct err err;
	uint64_t memory = 0;
	if (journal_claims(agent->journal, NULL, &memory, NULL, &err) < 0) {
		log_error("event=journal error=\"%s\"", err.text);
		memory = UINT64_MAX; /* nothing is promised while the claims are not known */
	}
	now->memory_free_bytes = minus(agent->inventory.memory_free_bytes, memory);
	for (uint32_t i = 0; i < now->sr_count; i++) {
		uint64_t claimed = 0;
		const struct sr_config *sr = &agent->conf.srs[i];
		struct msg_sr *out = &now->srs[i];
		if (sr_space(sr, &out->size_bytes, &out->free_bytes, &err) < 0) {
			log_warning("event=sr name=%s error=\"%s\"", sr->name, err.text);
			out->size_bytes = out->free_bytes = 0;
		}
		if (journal_claims(agent->journal, sr->name, NULL, &claimed, NULL) < 0)
			claimed = UINT64_MAX;
		out->free_bytes = minus(out->free_bytes, claimed);
	}
}

/* Takes over what the leg program said. */
static void adopt(struct agent *agent, struct msg_inventory *fresh)
{
	struct inventory *inventory = &agent->inventory;
	const struct agent_conf *conf = &agent->conf;
	uint64_t before = inventory->valid ? inventory->now.digest : 0;
	msg_inventory_free(&inventory->now);
	inventory->now = *fresh;
	inventory->memory_free_bytes = fresh->memory_free_bytes;
	struct msg_inventory *now = &inventory->now;
	memset(now->software, 0, sizeof(now->software));
	(void)strncpy(now->software, DROVER_VERSION, sizeof(now->software) - 1);
	if (!now->hypervisor[0])
		memcpy(now->hypervisor, conf->hypervisor, sizeof(now->hypervisor));
	now->sr_count = conf->sr_count;
	memset(now->srs, 0, sizeof(now->srs));
	for (uint32_t i = 0; i < conf->sr_count; i++) {
		memcpy(now->srs[i].name, conf->srs[i].name, sizeof(now->srs[i].name));
		memcpy(now->srs[i].type, conf->srs[i].type, sizeof(now->srs[i].type));
		now->srs[i].format = conf->srs[i].format;
	}
	now->network_count = conf->network_count;
	memcpy(now->networks, conf->networks, sizeof(now->networks));
	inventory_amounts(agent);
	now->digest = msg_inventory_digest(now);
	inventory->valid = true;
	if (now->digest != before)
		control_heartbeat(agent); /* it will be asked for */
}

/* ---- one run ---- */

static void on_done(struct agent *agent, const struct err *failure)
{
	struct inventory *inventory = &agent->inventory;
	struct err before = inventory->err;
	struct msg_inventory fresh = { 0 };
	inventory->err = *failure;
	if (failure->code == ERR_NONE &&
	    msg_inventory_decode(inventory->query.bytes, inventory->query.count, &fresh, &inventory->err) == 0)
		adopt(agent, &fresh);
	if (inventory->err.code != ERR_NONE && strcmp(before.text, inventory->err.text) != 0)
		log_warning("event=inventory error=\"%s\"", inventory->err.text);
	agent_run_checks(agent);
	if (inventory->again) {
		inventory->again = false;
		if (inventory->query.pid == 0)
			run_start(agent);
	}
}

static void run_failed(void *ctx)
{
	agent_run_checks(ctx);
}

static void run_start(struct agent *agent)
{
	struct inventory *inventory = &agent->inventory;
	struct err err = { 0 };
	inventory->run++;
	if (query_start(&inventory->query, NULL, &err) == 0)
		return;
	if (strcmp(err.text, inventory->err.text) != 0)
		log_warning("event=inventory error=\"%s\"", err.text);
	inventory->err = err;
	/* later: whoever asked is still in the middle of something */
	(void)loop_timer(agent->loop, 1, false, run_failed, agent, NULL);
}

unsigned inventory_request(struct agent *agent)
{
	struct inventory *inventory = &agent->inventory;
	if (inventory->query.pid > 0) {
		inventory->again = true;
		return inventory->run + 1;
	}
	run_start(agent);
	return inventory->run;
}

void inventory_init(struct agent *agent)
{
	query_init(&agent->inventory.query, agent, "inventory", INVENTORY_LIMIT_MS, on_done);
}

void inventory_free(struct agent *agent)
{
	query_end(&agent->inventory.query);
	msg_inventory_free(&agent->inventory.now);
}
