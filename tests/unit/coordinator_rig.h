/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A coordinator as a process of its own, agents of cardboard, and a client; for test_coordinator.c. */
#ifndef DROVER_COORDINATOR_RIG_H
#define DROVER_COORDINATOR_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bus.h"
#include "common/clock.h"
#include "common/keys.h"
#include "common/log.h"
#include "coordinator/coordinator.h"

enum { PATIENCE_MS = 10000, LOOK_MS = 3, BEAT_MS = 100 };

static char folder[64];
static struct paths paths;
static struct loop *loop;

/* ---- the coordinator's process: started by a process that never had a thread ---- */

static int launcher_in = -1, launcher_out = -1;
static pid_t launcher;

static void be_coordinator(void)
{
	struct err err = { ERR_NONE, "" };
	struct settings settings;
	struct coordinator *coordinator = NULL;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	struct loop *own = loop_new(&err);
	if (!own || settings_load(&paths, NULL, &settings, &err) != 0 ||
	    coordinator_new(&coordinator, own, &paths, &settings, &clock_real, &err) != 0) {
		fprintf(stderr, "coordinator: %s\n", err.text);
		_exit(3);
	}
	int result = loop_run(own, &err);
	bool failed = result != 0 || coordinator_failed(coordinator);
	coordinator_free(coordinator);
	loop_free(own);
	_exit(failed ? 4 : 0);
}

/* Orders: S start, K kill -9, T terminate and tell how it ended. */
static void be_launcher(int in, int out)
{
	pid_t child = 0;
	char order;
	while (read(in, &order, 1) == 1) {
		int status = 0;
		if (order == 'S') {
			child = fork();
			if (child == 0)
				be_coordinator();
		} else if (child > 0) {
			kill(child, order == 'K' ? SIGKILL : SIGTERM);
			waitpid(child, &status, 0);
			child = 0;
		}
		char answer = (char)(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
		if (write(out, &answer, 1) != 1)
			break;
	}
	if (child > 0)
		kill(child, SIGKILL);
	_exit(0);
}

static void launch(void)
{
	int to[2], from[2];
	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	launcher = fork();
	assert_true(launcher >= 0);
	if (launcher == 0) {
		close(to[1]);
		close(from[0]);
		be_launcher(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	launcher_in = to[1];
	launcher_out = from[0];
}

static int order(char what)
{
	char answer = 0;
	assert_int_equal(write(launcher_in, &what, 1), 1);
	assert_int_equal(read(launcher_out, &answer, 1), 1);
	return answer;
}

/* ---- agents ---- */

struct agent {
	char name[LIMIT_NAME];
	struct bus_client *client;
	bool welcome;
	uint64_t epoch, beats;
	int seen[STEPS]; /* commands by step */
	enum err_code abort_reason;
	enum step refuse, mute; /* this step is refused, or not answered */
	bool not_ready;         /* the copy goes on and on */
	bool deaf;              /* says nothing at all */
	char boot_id[LIMIT_ID];
	bool has_session;
	struct msg_session session;
	struct msg_inventory inventory;
	struct msg_vm vm;
	/* what it holds, and the questions about it */
	struct msg_holding holdings[4];
	uint32_t holding_count;
	int survey_mute; /* so many are not answered */
	unsigned surveys;
	uint64_t survey_sequences[4];
	struct msg_survey survey; /* newest */
};
static struct agent agents[2];
static struct agent *const source = &agents[0], *const destination = &agents[1];

static const char fingerprint[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static struct msg agent_msg(const struct agent *agent, enum msg_kind kind)
{
	return (struct msg) { .version = PROTOCOL_VERSION, .epoch = agent->epoch, .kind = kind };
}

static void agent_send(struct agent *agent, const struct msg *msg)
{
	struct err err;
	if (!agent->deaf && bus_client_send(agent->client, msg, &err) != 0)
		print_message("%s: %s\n", agent->name, err.text);
}

static void agent_inventory(struct agent *agent)
{
	struct msg msg = agent_msg(agent, MSG_INVENTORY);
	msg.u.inventory = agent->inventory;
	msg.u.inventory.digest = msg_inventory_digest(&agent->inventory);
	agent_send(agent, &msg);
}

static void agent_beat(struct agent *agent)
{
	struct msg msg = agent_msg(agent, MSG_HEARTBEAT);
	if (!agent->welcome)
		return;
	msg.u.heartbeat.inventory_digest = msg_inventory_digest(&agent->inventory);
	msg.u.heartbeat.session_count = agent->has_session;
	msg.u.heartbeat.sessions = &agent->session;
	agent_send(agent, &msg);
}

static void agent_report(struct agent *agent)
{
	struct msg msg = agent_msg(agent, MSG_REPORT);
	msg.migration = agent->session.migration;
	msg.generation = agent->session.generation;
	msg.u.report = agent->session;
	agent_send(agent, &msg);
}

static void beat_all(void *ctx)
{
	(void)ctx;
	for (int i = 0; i < 2; i++)
		agent_beat(&agents[i]);
}

static void agent_hello(void *ctx, bool up)
{
	struct agent *agent = ctx;
	agent->welcome = false;
	if (!up)
		return;
	struct msg msg = agent_msg(agent, MSG_HELLO);
	struct msg_hello *hello = &msg.u.hello;
	hello->version_min = PROTOCOL_VERSION_MIN;
	hello->version_max = PROTOCOL_VERSION;
	snprintf(hello->software, sizeof(hello->software), "test");
	snprintf(hello->host, sizeof(hello->host), "%s", agent->name);
	snprintf(hello->pool, sizeof(hello->pool), "pool");
	snprintf(hello->boot_id, sizeof(hello->boot_id), "%s", agent->boot_id);
	snprintf(hello->journal_id, sizeof(hello->journal_id), "journal-%s", agent->name);
	hello->max_epoch = agent->epoch;
	agent_send(agent, &msg);
}

/* The legs do the switchover among themselves, as soon as it was granted to both. */
static void switch_over(void)
{
	struct verdict_facts facts = { .suspended = true, .stream_ended = true, .activating = true, .running = true };
	if (source->session.phase != PHASE_SWITCHING || destination->session.phase != PHASE_SWITCHING)
		return;
	facts.vote[PARTY_SOURCE] = facts.vote[PARTY_DESTINATION] = VOTE_COMMIT;
	for (int i = 0; i < 2; i++) {
		agents[i].session.facts = facts;
		agents[i].session.phase = PHASE_COMMITTED;
		agents[i].session.budget.total_ms = 120;
		agents[i].session.budget.suspend_ms = 7;
	}
	agent_report(source);
	agent_report(destination);
}

static void send_progress(struct agent *agent)
{
	struct msg msg = agent_msg(agent, MSG_PROGRESS);
	msg.migration = agent->session.migration;
	msg.generation = agent->session.generation;
	snprintf(msg.u.progress.phase, sizeof(msg.u.progress.phase), "memory");
	msg.u.progress.bytes_total = 1000;
	msg.u.progress.bytes_done = 900;
	agent_send(agent, &msg);
}

static void do_step(struct agent *agent, enum step step)
{
	struct msg_session *session = &agent->session;
	switch (step) {
	case STEP_CHECK:
		session->phase = PHASE_CHECKED;
		break;
	case STEP_PREPARE:
		session->phase = PHASE_PREPARED;
		break;
	case STEP_COPY:
		session->phase = agent == source && !agent->not_ready ? PHASE_READY : PHASE_COPYING;
		send_progress(agent);
		break;
	case STEP_SWITCH:
		session->phase = PHASE_SWITCHING;
		break;
	case STEP_ABORT:
		session->phase = PHASE_ROLLED_BACK;
		break;
	case STEP_RELEASE:
		session->phase = PHASE_RELEASED;
		session->facts.released = true;
		break;
	case STEP_FORGET:
		agent->has_session = false;
		session->phase = PHASE_NONE;
		break;
	case STEP_NONE:
	case STEPS:
		fail();
	}
}

static void on_command(struct agent *agent, const struct msg *command)
{
	enum step step = command->u.command.step;
	struct msg msg = agent_msg(agent, MSG_ANSWER);
	struct msg_answer *answer = &msg.u.answer;
	bool dry = step == STEP_CHECK && command->u.command.plan->dry_run;
	msg.migration = command->migration;
	msg.generation = command->generation;
	msg.sequence = command->sequence;
	answer->step = step;
	answer->side = command->u.command.side;
	answer->outcome = OUTCOME_DONE;
	assert_int_equal(answer->side, agent == source ? SIDE_SOURCE : SIDE_DESTINATION);
	if (step == STEP_CHECK) {
		answer->check_count = 1;
		answer->checks[0] = (struct msg_check) { .name = "memory", .ok = 1, .text = "there is room" };
	}
	if (dry) {
		if (agent->refuse == STEP_CHECK) {
			answer->checks[0].ok = 0;
			answer->outcome = OUTCOME_REFUSED;
			err_set(&answer->cause, ERR_NO_MEMORY, "memory: too little");
		}
		agent_send(agent, &msg);
		return;
	}
	agent->seen[step]++;
	if (step == STEP_ABORT)
		agent->abort_reason = command->u.command.reason;
	if (step == agent->mute)
		return;
	if (step == agent->refuse) {
		answer->outcome = OUTCOME_REFUSED;
		err_set(&answer->cause, ERR_NO_SPACE, "no space in SR local");
		agent_send(agent, &msg);
		return;
	}
	if (!agent->has_session || agent->session.migration != command->migration) {
		agent->session =
			(struct msg_session) { .migration = command->migration, .generation = command->generation };
		agent->session.side = command->u.command.side;
		agent->has_session = true;
	}
	do_step(agent, step);
	if (step == STEP_PREPARE) {
		snprintf(answer->fingerprint, sizeof(answer->fingerprint), "%s", fingerprint);
		if (agent == destination)
			snprintf(answer->endpoint, sizeof(answer->endpoint), "127.0.0.1:4242");
	}
	if (step == STEP_COPY && agent == source) {
		assert_string_equal(command->u.command.peer_fingerprint, fingerprint);
		assert_string_equal(command->u.command.peer_endpoint, "127.0.0.1:4242");
	}
	answer->session = agent->session;
	agent_send(agent, &msg);
	if (step == STEP_SWITCH)
		switch_over();
}

static void on_survey(struct agent *agent, const struct msg *asked)
{
	struct msg msg = agent_msg(agent, MSG_HOLDINGS);
	struct msg_holding list[4];
	agent->survey = asked->u.survey;
	agent->survey_sequences[agent->surveys++ % 4] = asked->sequence;
	if (agent->survey_mute-- > 0)
		return;
	msg.sequence = asked->sequence;
	msg.u.holdings.sweep = asked->u.survey.sweep;
	msg.u.holdings.count = agent->holding_count;
	msg.u.holdings.list = list;
	memcpy(list, agent->holdings, sizeof(list));
	for (uint32_t i = 0; i < agent->holding_count && asked->u.survey.sweep; i++) {
		for (uint32_t k = 0; k < asked->u.survey.over_count; k++)
			list[i].swept |= asked->u.survey.over[k].migration == list[i].migration;
		if (!list[i].swept && list[i].state != HOLDING_KEPT)
			snprintf(list[i].error, sizeof(list[i].error), "it is not over");
	}
	agent_send(agent, &msg);
}

static void on_agent(void *ctx, const struct msg *msg)
{
	struct agent *agent = ctx;
	if (msg->epoch > agent->epoch)
		agent->epoch = msg->epoch;
	if (msg->kind == MSG_WELCOME) {
		agent->welcome = true;
		agent_beat(agent);
	} else if (msg->kind == MSG_HEARTBEAT_ACK) {
		agent->beats++;
		if (msg->u.heartbeat_ack.want_inventory)
			agent_inventory(agent);
	} else if (msg->kind == MSG_COMMAND) {
		on_command(agent, msg);
	} else if (msg->kind == MSG_SURVEY) {
		on_survey(agent, msg);
	} else if (msg->kind == MSG_ERROR) {
		print_message("%s is told: %s\n", agent->name, msg->u.error.text);
	}
}

static void fill_inventory(struct agent *agent, int number)
{
	struct msg_inventory *inventory = &agent->inventory;
	inventory->memory_bytes = inventory->memory_free_bytes = 8ull << 30;
	snprintf(inventory->hypervisor, sizeof(inventory->hypervisor), "sim");
	snprintf(inventory->software, sizeof(inventory->software), "test");
	inventory->sr_count = 1;
	inventory->srs[0] = (struct msg_sr) {
		.name = "local", .type = "dir", .format = FORMAT_RAW, .size_bytes = 1ull << 40, .free_bytes = 1ull << 39
	};
	inventory->network_count = 1;
	snprintf(inventory->networks[0], LIMIT_NAME, "br0");
	inventory->vm_count = number == 0;
	inventory->vms = &agent->vm;
	struct msg_vm *vm = &agent->vm;
	vm->uuid[0] = 0x42;
	vm->uuid[15] = 1;
	snprintf(vm->name, sizeof(vm->name), "web3");
	vm->state = VM_RUNNING;
	vm->memory_bytes = 1ull << 30;
	vm->vcpus = 1;
	vm->disk_count = 1;
	vm->disks[0] =
		(struct msg_disk) { .name = "xvda", .sr = "local", .format = FORMAT_RAW, .size_bytes = 1ull << 30 };
	vm->nic_count = 1;
	vm->nics[0] = (struct msg_nic) { .mac = "00:16:3e:00:00:01", .bridge = "br0" };
}

/* ---- a client ---- */

static struct {
	struct bus_client *client;
	bool up;
	uint64_t sequence, answered;
	enum err_code code;
	uint32_t exit_code;
	json_t *doc;
} cli;

static void on_cli(void *ctx, const struct msg *msg)
{
	(void)ctx;
	if (msg->kind == MSG_WELCOME)
		cli.up = true;
	if (msg->kind != MSG_REPLY || msg->sequence != cli.sequence)
		return;
	cli.answered = msg->sequence;
	cli.code = msg->u.reply.code;
	cli.exit_code = msg->u.reply.exit_code;
	json_decref(cli.doc);
	cli.doc = json_loads(msg->u.reply.json ? msg->u.reply.json : "{}", 0, NULL);
	assert_non_null(cli.doc);
}

static void cli_hello(void *ctx, bool up)
{
	struct msg msg = { .version = PROTOCOL_VERSION, .kind = MSG_HELLO };
	(void)ctx;
	cli.up = false;
	if (!up)
		return;
	msg.u.hello.version_min = PROTOCOL_VERSION_MIN;
	msg.u.hello.version_max = PROTOCOL_VERSION;
	snprintf(msg.u.hello.software, sizeof(msg.u.hello.software), "test");
	(void)bus_client_send(cli.client, &msg, NULL);
}

/* ---- waiting ---- */

struct wait {
	bool (*met)(void);
	int64_t deadline_ms;
	bool done;
};

static void look(void *ctx)
{
	struct wait *wait = ctx;
	wait->done = wait->met();
	if (wait->done || clock_ms(&clock_real) > wait->deadline_ms)
		loop_stop(loop);
}

static bool run_until(bool (*met)(void))
{
	struct wait wait = { .met = met, .deadline_ms = clock_ms(&clock_real) + PATIENCE_MS };
	int timer = loop_timer(loop, LOOK_MS, true, look, &wait, NULL);
	assert_int_equal(loop_run(loop, NULL), 0);
	loop_timer_end(loop, timer);
	return wait.done;
}

static bool cli_is_up(void)
{
	return cli.up;
}

static bool cli_has_answer(void)
{
	return cli.answered == cli.sequence;
}

static bool both_are_welcome(void)
{
	return agents[0].welcome && agents[1].welcome && agents[0].beats > 1 && agents[1].beats > 1;
}

static json_t *ask(const struct msg_request *request)
{
	struct msg msg = { .version = PROTOCOL_VERSION, .kind = MSG_REQUEST, .sequence = ++cli.sequence };
	struct err err;
	msg.u.request = *request;
	if (bus_client_send(cli.client, &msg, &err) != 0)
		fail_msg("%s", err.text);
	assert_true(run_until(cli_has_answer));
	return cli.doc;
}

static json_t *ask_id(enum verb verb, uint64_t id)
{
	struct msg_request request = { .verb = verb, .keep_source_s = -1, .keep_copy_s = -1 };
	snprintf(request.id, sizeof(request.id), "%llu", (unsigned long long)id);
	return ask(&request);
}

static uint64_t migrate(bool dry)
{
	struct msg_request request = { .verb = VERB_MIGRATE, .keep_source_s = -1, .keep_copy_s = -1, .dry_run = dry };
	snprintf(request.vm, sizeof(request.vm), "web3");
	snprintf(request.to, sizeof(request.to), "b2");
	json_t *doc = ask(&request);
	return (uint64_t)json_integer_value(json_object_get(doc, "id"));
}

static const char *state_of(uint64_t id)
{
	const char *state = json_string_value(json_object_get(ask_id(VERB_SHOW, id), "state"));
	return state ? state : "";
}

static void wait_state(uint64_t id, const char *wanted)
{
	int64_t deadline_ms = clock_ms(&clock_real) + PATIENCE_MS;
	while (strcmp(state_of(id), wanted) != 0)
		if (clock_ms(&clock_real) > deadline_ms)
			fail_msg("is %s, should become %s", state_of(id), wanted);
}

static bool both_have_forgotten(void)
{
	return !agents[0].has_session && !agents[1].has_session && agents[0].seen[STEP_FORGET] &&
	       agents[1].seen[STEP_FORGET];
}

/* ---- the stage ---- */

static void make_key(const char *name, enum role role, const char *host)
{
	char path[700];
	struct err err;
	if (keys_generate(&paths, name, role, host, &err) < 0)
		fail_msg("%s", err.text);
	snprintf(path, sizeof(path), "%s/keys/%s.cert", paths.etc, name);
	if (role != ROLE_COORDINATOR && keys_authorize(&paths, path, &err) < 0)
		fail_msg("%s", err.text);
}

static void write_settings(void)
{
	char path[700];
	snprintf(path, sizeof(path), "%s/coordinator.conf", paths.etc);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file,
	        "listen = 'ipc://%s/run/coordinator.sock'\nheartbeat = 100ms\nsuspect-after = 15\nlost-after = 2s\n",
	        folder);
	fprintf(file, "retry = 100ms\nretry-max = 300ms\n");
	fclose(file);
}

static void connect_all(void)
{
	char endpoint[128], key[800], server[800];
	struct err err;
	snprintf(endpoint, sizeof(endpoint), "ipc://%.60s/run/coordinator.sock", folder);
	snprintf(server, sizeof(server), "%s/keys/coordinator.cert", paths.etc);
	for (int i = 0; i < 2; i++) {
		struct agent *agent = &agents[i];
		const char *name = i == 0 ? "a1" : "b2";
		snprintf(agent->name, sizeof(agent->name), "%s", name);
		snprintf(agent->boot_id, sizeof(agent->boot_id), "boot-%s", name);
		fill_inventory(agent, i);
		snprintf(key, sizeof(key), "%s/keys/%s.cert_secret", paths.etc, name);
		if (bus_connect(&agent->client, loop, endpoint, key, server, on_agent, agent, &err) != 0)
			fail_msg("%s", err.text);
		bus_on_connection(agent->client, agent_hello, agent);
	}
	snprintf(key, sizeof(key), "%s/keys/operator.cert_secret", paths.etc);
	if (bus_connect(&cli.client, loop, endpoint, key, server, on_cli, NULL, &err) != 0)
		fail_msg("%s", err.text);
	bus_on_connection(cli.client, cli_hello, NULL);
	assert_true(loop_timer(loop, BEAT_MS, true, beat_all, NULL, &err) > 0);
}

static int begin_all(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/test_coordinator_XXXXXX");
	if (!mkdtemp(folder) || paths_init(&paths, folder, NULL) < 0 || paths_make(&paths, NULL) < 0)
		return -1;
	if (!getenv("DROVER_LOG"))
		log_level_set((enum log_level)0);
	write_settings();
	launch(); /* before anything here makes a thread */
	return 0;
}

static int end_all(void **state)
{
	char command[128];
	(void)state;
	close(launcher_in);
	close(launcher_out);
	waitpid(launcher, NULL, 0);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static int begin(void **state)
{
	(void)state;
	struct err err;
	char path[700];
	memset(agents, 0, sizeof(agents));
	memset(&cli, 0, sizeof(cli));
	snprintf(path, sizeof(path), "%s/keys/coordinator.cert", paths.etc);
	if (access(path, F_OK) != 0) {
		make_key("coordinator", ROLE_COORDINATOR, NULL);
		make_key("a1", ROLE_AGENT, "a1");
		make_key("b2", ROLE_AGENT, "b2");
		make_key("operator", ROLE_OPERATOR, NULL);
	}
	order('S');
	loop = loop_new(&err);
	assert_non_null(loop);
	connect_all();
	assert_true(run_until(cli_is_up));
	assert_true(run_until(both_are_welcome));
	return 0;
}

static int end(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++)
		bus_client_free(agents[i].client);
	bus_client_free(cli.client);
	loop_free(loop);
	json_decref(cli.doc);
	assert_int_equal(order('T'), 0);
	/* the next test begins without what this one left undone */
	char path[700];
	static const char *const files[] = { "coordinator.db", "coordinator.db-wal", "coordinator.db-shm",
		                             "coordinator.db.id" };
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", paths.lib, files[i]);
		(void)unlink(path);
	}
	return 0;
}

#endif
