/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For test_agent.c alone: the leg program that the test plays. It keeps the rules of verdict.h, and moves nothing. */
#ifndef DROVER_TEST_AGENT_FAKE_LEG_H
#define DROVER_TEST_AGENT_FAKE_LEG_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/agent.h"
#include "agent/agent_conf.h"
#include "agent/journal.h"
#include "common/bus.h"
#include "common/clock.h"
#include "common/keys.h"
#include "common/lock.h"
#include "common/log.h"

#define FINGERPRINT "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define DEADLINE_MS 10000

/* ---- the leg ---- */

static void set_uuid(uuid_bytes uuid, int n)
{
	memset(uuid, 0, sizeof(uuid_bytes));
	uuid[0] = 0x10;
	uuid[15] = (unsigned char)n;
}

static void fill_vm(struct msg_vm *vm, int n)
{
	memset(vm, 0, sizeof(*vm));
	set_uuid(vm->uuid, n);
	(void)snprintf(vm->name, sizeof(vm->name), "web%d", n);
	vm->state = VM_RUNNING;
	vm->memory_bytes = 256u << 20;
	vm->vcpus = 1;
	vm->disk_count = 1;
	vm->disks[0] = (struct msg_disk) {
		.name = "xvda", .sr = "local", .format = FORMAT_RAW, .size_bytes = 1 << 20, .allocated_bytes = 4096
	};
	vm->nic_count = 1;
	(void)snprintf(vm->nics[0].mac, sizeof(vm->nics[0].mac), "00:16:3e:00:00:%02x", n);
	(void)snprintf(vm->nics[0].bridge, sizeof(vm->nics[0].bridge), "xenbr0");
}

static int leg_inventory(void)
{
	struct msg_vm vms[4];
	struct msg_inventory inventory = {
		.memory_bytes = 4ull << 30, .memory_free_bytes = 1ull << 30, .vm_count = 4, .vms = vms
	};
	void *blob;
	size_t bytes;
	(void)snprintf(inventory.hypervisor, sizeof(inventory.hypervisor), "sim");
	for (int i = 0; i < 4; i++)
		fill_vm(&vms[i], i + 1);
	if (msg_inventory_encode(&inventory, &blob, &bytes, NULL) < 0 || fwrite(blob, 1, bytes, stdout) != bytes)
		return 1;
	free(blob);
	return 0;
}

struct fake_leg {
	struct journal *journal;
	struct paths paths;
	uint64_t migration;
	uint32_t generation;
	enum side side;
	bool recover, granted, ready, gone_back, stop;
	struct verdict_facts facts;
	int fd;
};

static void leg_out(struct fake_leg *leg, struct msg *msg)
{
	void *frame;
	size_t bytes;
	struct err err;
	msg->version = PROTOCOL_VERSION;
	msg->epoch = 1;
	msg->migration = leg->migration;
	msg->generation = leg->generation;
	if (leg->fd >= 0 && msg_encode(msg, &frame, &bytes, &err) == 0) {
		(void)!send(leg->fd, frame, bytes, MSG_NOSIGNAL);
		free(frame);
	}
	free(msg);
}

static void leg_describe(const struct fake_leg *leg, struct msg_session *ret)
{
	*ret = (struct msg_session) { .migration = leg->migration,
		                      .generation = leg->generation,
		                      .side = leg->side,
		                      .facts = leg->facts,
		                      .phase = PHASE_COPYING };
	if (leg->gone_back)
		ret->phase = PHASE_ROLLED_BACK;
	else if (verdict_of(&leg->facts) == VOTE_COMMIT)
		ret->phase = PHASE_COMMITTED;
	else if (leg->granted)
		ret->phase = PHASE_SWITCHING;
	else if (leg->ready)
		ret->phase = PHASE_READY;
	if (leg->facts.running)
		ret->budget = (struct msg_budget) { .total_ms = 42, .suspend_ms = 2 };
}

static void leg_report(struct fake_leg *leg)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	msg->kind = MSG_REPORT;
	leg_describe(leg, &msg->u.report);
	leg_out(leg, msg);
}

static void leg_flag(struct fake_leg *leg, struct verdict_facts flag)
{
	struct verdict_local local = { .failed = leg->recover };
	struct err err = { 0 };
	if (journal_flag(leg->journal, leg->migration, leg->generation, &flag, &local, &leg->facts, &err) < 0)
		log_error("leg: %s", err.text);
}

/* What is due, in the order of the rules. */
static void leg_due(struct fake_leg *leg, bool abort_asked)
{
	struct verdict_local local = { .granted = leg->granted,
		                       .complete = leg->granted && !leg->recover,
		                       .failed = leg->recover,
		                       .abort_asked = abort_asked };
	enum party self = party_of(leg->side);
	for (;;) {
		unsigned due = verdict_due(self, &leg->facts, &local);
		if (due & (DUTY_CAST_COMMIT | DUTY_CAST_ABORT)) {
			enum vote vote = due & DUTY_CAST_COMMIT ? VOTE_COMMIT : VOTE_ABORT;
			if (journal_vote(leg->journal, leg->migration, leg->generation, leg->side, vote, &local,
			                 &leg->facts, NULL) < 0)
				abort();
		} else if (due & DUTY_RESUME) {
			leg_flag(leg, (struct verdict_facts) { .resumed = true });
			leg->gone_back = true;
		} else if (due & DUTY_RENOUNCE) {
			if (journal_flag(leg->journal, leg->migration, leg->generation,
			                 &(struct verdict_facts) { .renounced = true }, &local, &leg->facts, NULL) < 0)
				abort();
			leg->gone_back = true;
		} else if (due & DUTY_ACTIVATE) {
			leg_flag(leg, (struct verdict_facts) { .activating = true });
			leg_flag(leg, (struct verdict_facts) { .running = true });
		} else {
			break;
		}
	}
	leg_report(leg);
}

static void leg_command(struct fake_leg *leg, const struct msg *in)
{
	const struct msg_command *command = &in->u.command;
	struct msg *out = calloc(1, sizeof(*out));
	struct msg_answer *answer = &out->u.answer;
	out->kind = MSG_ANSWER;
	out->sequence = in->sequence;
	answer->step = command->step;
	answer->side = leg->side;
	answer->outcome = OUTCOME_DONE;
	if (command->step == STEP_PREPARE) {
		(void)snprintf(answer->fingerprint, sizeof(answer->fingerprint), FINGERPRINT);
		if (leg->side == SIDE_DESTINATION)
			(void)snprintf(answer->endpoint, sizeof(answer->endpoint), "127.0.0.1:4711");
	} else if (command->step == STEP_COPY) {
		leg->ready = leg->side == SIDE_SOURCE;
	} else if (command->step == STEP_SWITCH) {
		leg->granted = true;
		if (leg->side == SIDE_SOURCE && !leg->recover) {
			leg_flag(leg, (struct verdict_facts) { .suspended = true });
			leg_flag(leg, (struct verdict_facts) { .stream_ended = true });
		}
		leg_due(leg, false);
	} else if (command->step == STEP_ABORT) {
		leg_due(leg, true);
		if (!leg->gone_back) { /* the verdict will tell */
			free(out);
			return;
		}
	} else if (command->step == STEP_RELEASE && leg->side == SIDE_SOURCE) {
		leg_flag(leg, (struct verdict_facts) { .released = true });
	} else if (command->step == STEP_FORGET) {
		leg->stop = true;
	}
	leg_describe(leg, &answer->session);
	leg_out(leg, out);
	if (command->step == STEP_COPY) {
		out = calloc(1, sizeof(*out));
		out->kind = MSG_PROGRESS;
		(void)snprintf(out->u.progress.phase, sizeof(out->u.progress.phase), "disk");
		out->u.progress.bytes_done = 123;
		leg_out(leg, out);
		leg_report(leg);
	}
}

static void leg_message(struct fake_leg *leg)
{
	static unsigned char packet[LIMIT_FRAME_BYTES];
	struct msg *msg = calloc(1, sizeof(*msg));
	ssize_t got = recv(leg->fd, packet, sizeof(packet), 0);
	if (got <= 0) {
		(void)close(leg->fd);
		leg->fd = -1;
	} else if (msg_decode(packet, (size_t)got, msg, NULL) == 0) {
		if (msg->kind == MSG_COMMAND)
			leg_command(leg, msg);
		else if (msg->kind == MSG_FACTS && journal_facts_add(leg->journal, leg->migration, leg->generation,
		                                                     &msg->u.facts, &leg->facts, NULL) == 0)
			leg_due(leg, false);
		msg_free(msg);
	}
	free(msg);
}

static int leg_serve(struct fake_leg *leg)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/leg-%u.sock", leg->paths.run,
	               (unsigned)leg->migration);
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	(void)unlink(address.sun_path);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 4) < 0)
		return 1;
	while (!leg->stop) {
		struct pollfd fds[2] = { { .fd = listener, .events = POLLIN }, { .fd = leg->fd, .events = POLLIN } };
		if (poll(fds, 2, 60000) <= 0)
			return 2; /* the test is long over */
		if (fds[1].revents)
			leg_message(leg);
		if (fds[0].revents) {
			if (leg->fd >= 0)
				(void)close(leg->fd);
			leg->fd = accept(listener, NULL, NULL);
			leg_report(leg);
		}
	}
	(void)unlink(address.sun_path);
	return 0;
}

/* Tells what it was told: its options as a path, and how often it has been asked as a migration's number. */
static int leg_survey(int argc, char **argv)
{
	struct msg_holding holding = { .kind = HOLDING_FILE, .state = HOLDING_UNCLAIMED };
	struct msg_holdings holdings = { .count = 1, .list = &holding };
	struct paths paths;
	char path[PATHS_MAX + 64];
	struct stat st;
	void *blob;
	size_t bytes, used = 0;
	if (argc < 4 || strcmp(argv[2], "--home") != 0 || paths_init(&paths, argv[3], NULL) < 0)
		return 1;
	(void)snprintf(path, sizeof(path), "%s/surveys-fail", paths.run);
	if (access(path, F_OK) == 0)
		return 3;
	(void)snprintf(path, sizeof(path), "%s/surveys", paths.run);
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (write(fd, "x", 1) != 1 || fstat(fd, &st) < 0)
		return 1;
	holding.migration = (uint64_t)st.st_size;
	for (int i = 4; i < argc; i++)
		used += (size_t)snprintf(holding.path + used, sizeof(holding.path) - used, "%s ", argv[i]);
	(void)snprintf(holding.name, sizeof(holding.name), "%s", getenv(AGENT_CONF_ENV) ? "configured" : "");
	if (msg_holdings_encode(&holdings, &blob, &bytes, NULL) < 0 || fwrite(blob, 1, bytes, stdout) != bytes)
		return 1;
	free(blob);
	return 0;
}

static int run_leg(int argc, char **argv)
{
	struct fake_leg leg = { .fd = -1 };
	const char *home = NULL;
	char path[PATHS_MAX + 64];
	struct journal_session row;
	for (int i = 2; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		if (strcmp(argv[i], "--home") == 0)
			home = value;
		else if (strcmp(argv[i], "--migration") == 0)
			leg.migration = strtoull(value, NULL, 10);
		else if (strcmp(argv[i], "--generation") == 0)
			leg.generation = (uint32_t)strtoul(value, NULL, 10);
		else if (strcmp(argv[i], "--side") == 0)
			leg.side = strcmp(value, "source") == 0 ? SIDE_SOURCE : SIDE_DESTINATION;
		else if (strcmp(argv[i], "--recover") == 0)
			leg.recover = true;
	}
	log_init("leg");
	if (paths_init(&leg.paths, home, NULL) < 0 || journal_open(&leg.journal, &leg.paths, NULL) < 0 ||
	    journal_session_get(leg.journal, leg.migration, leg.generation, &row, NULL, NULL) < 0)
		return 1;
	leg.facts = row.facts;
	(void)snprintf(path, sizeof(path), "%s/twin", leg.paths.run);
	if (unlink(path) == 0 && fork() != 0)
		return LEG_EXIT_TWIN; /* who was started finds another one at work: the child */
	(void)snprintf(path, sizeof(path), "%s/starts", leg.paths.run);
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	(void)dprintf(fd, "%c", leg.recover ? 'r' : 'n');
	(void)close(fd);
	(void)snprintf(path, sizeof(path), "leg-%" PRIu64, leg.migration);
	(void)paths_write_pid(&leg.paths, path, (long)getpid(), NULL);
	if (leg.recover)
		leg_due(&leg, false);
	int rc = leg_serve(&leg);
	paths_remove_pid(&leg.paths, path);
	journal_close(leg.journal);
	return rc;
}

#endif
