/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What this host has: the leg program tells of VMs and memory, the agent adds SRs, networks and claims. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

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

static void stop_reading(struct agent *agent)
{
	struct inventory *inventory = &agent->inventory;
	if (inventory->fd >= 0) {
		loop_fd_end(agent->loop, inventory->fd);
		process_close(inventory->fd);
		inventory->fd = -1;
	}
}

static void finish(struct agent *agent)
{
	struct inventory *inventory = &agent->inventory;
	if (!inventory->exited || !inventory->ended)
		return;
	loop_timer_end(agent->loop, inventory->limit_timer);
	inventory->limit_timer = -1;
	inventory->pid = 0;
	struct err before = inventory->err;
	struct msg_inventory fresh = { 0 };
	err_clear(&inventory->err);
	if (!WIFEXITED(inventory->status) || WEXITSTATUS(inventory->status) != 0)
		err_set(&inventory->err, ERR_HYPERVISOR, "%s inventory failed (%s %d)", agent->leg_path,
		        WIFEXITED(inventory->status) ? "status" : "signal",
		        WIFEXITED(inventory->status) ? WEXITSTATUS(inventory->status) : WTERMSIG(inventory->status));
	else if (msg_inventory_decode(inventory->bytes, inventory->count, &fresh, &inventory->err) == 0)
		adopt(agent, &fresh);
	if (inventory->err.code != ERR_NONE && strcmp(before.text, inventory->err.text) != 0)
		log_warning("event=inventory error=\"%s\"", inventory->err.text);
	agent_run_checks(agent);
	if (inventory->again) {
		inventory->again = false;
		if (inventory->pid == 0)
			run_start(agent);
	}
}

static void on_output(void *ctx, int fd)
{
	struct agent *agent = ctx;
	struct inventory *inventory = &agent->inventory;
	for (;;) {
		size_t room = LIMIT_FRAME_BYTES - inventory->count;
		unsigned char rest[1];
		ssize_t got =
			room ? process_read(fd, inventory->bytes + inventory->count, room) : process_read(fd, rest, 1);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got > 0 && room == 0) {
			process_kill(inventory->pid); /* more than an inventory can be */
			got = 0;
		}
		if (got <= 0)
			break;
		inventory->count += (size_t)got;
	}
	stop_reading(agent);
	inventory->ended = true;
	finish(agent);
}

static void on_limit(void *ctx)
{
	struct agent *agent = ctx;
	agent->inventory.limit_timer = -1;
	log_warning("event=inventory error=\"it took more than %u s\"", INVENTORY_LIMIT_MS / 1000);
	if (agent->inventory.pid > 0 && !agent->inventory.exited)
		process_kill(agent->inventory.pid);
	/* somebody else may hold the pipe */
	stop_reading(agent);
	agent->inventory.ended = true;
	finish(agent);
}

static int run_try(struct agent *agent, struct err *err)
{
	struct inventory *inventory = &agent->inventory;
	int fd = -1;
	if (agent->leg_err.code != ERR_NONE && agent_conf_leg(&agent->conf, agent->leg_path, &agent->leg_err) < 0) {
		*err = agent->leg_err; /* it may have been installed since, and was not */
		return -1;
	}
	err_clear(&agent->leg_err);
	inventory->count = 0;
	inventory->exited = inventory->ended = false;
	if (process_inventory_start(agent, &fd, &inventory->pid, err) < 0)
		return -1;
	int rc = loop_fd(agent->loop, fd, on_output, agent, err);
	if (rc == 0) {
		inventory->fd = fd;
	} else {
		process_close(fd);
		process_kill(inventory->pid);
		inventory->pid = 0;
	}
	if (rc == 0)
		inventory->limit_timer = loop_timer(agent->loop, INVENTORY_LIMIT_MS, false, on_limit, agent, NULL);
	return rc;
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
	if (run_try(agent, &err) == 0)
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
	if (inventory->pid > 0) {
		inventory->again = true;
		return inventory->run + 1;
	}
	run_start(agent);
	return inventory->run;
}

bool inventory_child(struct agent *agent, pid_t pid, int status)
{
	struct inventory *inventory = &agent->inventory;
	if (pid <= 0 || pid != inventory->pid)
		return false;
	inventory->exited = true;
	inventory->status = status;
	finish(agent);
	return true;
}

void inventory_free(struct agent *agent)
{
	struct inventory *inventory = &agent->inventory;
	stop_reading(agent);
	if (inventory->pid > 0 && !inventory->exited)
		process_kill(inventory->pid);
	msg_inventory_free(&inventory->now);
	free(inventory->bytes);
}
