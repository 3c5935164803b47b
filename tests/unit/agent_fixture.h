/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For test_agent.c alone: the coordinator that the test plays, the home of an agent, and waiting. */
#ifndef DROVER_TEST_AGENT_FIXTURE_H
#define DROVER_TEST_AGENT_FIXTURE_H

#include "tests/unit/agent_fake_leg.h"

/* ---- the coordinator ---- */

struct fake {
	char home[PATHS_MAX]; /* of the agent */
	struct paths paths, coordinator;
	struct bus_server *server;
	struct proc_id agent;
	int agent_status; /* as waitpid() gives it, once the loop has seen its end */
	uint64_t epoch, sequence;
	/* heard */
	struct bus_peer peer;
	unsigned hellos, heartbeats, answers[STEPS], progress;
	struct msg_hello hello;
	struct msg_answer answer[STEPS];
	uint64_t answer_sequence[STEPS];
	struct msg_session session; /* newest report or heartbeat entry */
	unsigned session_count;
	uint64_t digest;
	struct msg_inventory inventory; /* without VMs */
	unsigned holdings_count;
	struct msg_holdings holdings; /* newest, its list in the next */
	struct msg_holding holding;
	uint64_t holdings_sequence;
	uint32_t vms;
};

static struct loop *loop;
static char root[64], self[PATHS_MAX];

static void reply(struct fake *f, struct msg *msg)
{
	struct err err = { 0 };
	msg->version = PROTOCOL_VERSION;
	msg->epoch = f->epoch;
	if (bus_send(f->server, &f->peer, msg, &err) < 0)
		print_message("not sent: %s\n", err.text);
	free(msg);
}

static struct msg *new_msg(enum msg_kind kind)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	msg->kind = kind;
	return msg;
}

static void on_message(void *ctx, const struct bus_peer *peer, const struct msg *msg)
{
	struct fake *f = ctx;
	f->peer = *peer;
	if (msg->kind == MSG_HELLO) {
		f->hello = msg->u.hello;
		f->hellos++;
		struct msg *welcome = new_msg(MSG_WELCOME);
		welcome->u.welcome =
			(struct msg_welcome) { .version = PROTOCOL_VERSION, .cluster_id = "test", .heartbeat_ms = 100 };
		reply(f, welcome);
	} else if (msg->kind == MSG_HEARTBEAT) {
		f->heartbeats++;
		f->session_count = msg->u.heartbeat.session_count;
		if (f->session_count > 0)
			f->session = msg->u.heartbeat.sessions[0];
		struct msg *ack = new_msg(MSG_HEARTBEAT_ACK);
		ack->u.heartbeat_ack.want_inventory = msg->u.heartbeat.inventory_digest != f->digest;
		reply(f, ack);
	} else if (msg->kind == MSG_INVENTORY) {
		f->inventory = msg->u.inventory;
		f->vms = msg->u.inventory.vm_count;
		f->digest = msg->u.inventory.digest;
	} else if (msg->kind == MSG_ANSWER) {
		f->answer[msg->u.answer.step] = msg->u.answer;
		f->answer_sequence[msg->u.answer.step] = msg->sequence;
		f->answers[msg->u.answer.step]++;
	} else if (msg->kind == MSG_REPORT) {
		f->session = msg->u.report;
	} else if (msg->kind == MSG_PROGRESS) {
		f->progress++;
	} else if (msg->kind == MSG_HOLDINGS) {
		f->holdings_count++;
		f->holdings = msg->u.holdings;
		f->holdings_sequence = msg->sequence;
		if (f->holdings.count > 0)
			f->holding = msg->u.holdings.list[0];
	}
}

static void on_bad(void *ctx, const struct bus_peer *peer, const struct err *err)
{
	(void)ctx;
	(void)peer;
	fail_msg("the agent sent a bad frame: %s", err->text);
}

/* ---- waiting ---- */

struct wait {
	bool (*holds)(struct fake *f, int arg);
	struct fake *f;
	int arg;
	int64_t until_ms;
	bool held;
};

static void on_poll(void *ctx)
{
	struct wait *w = ctx;
	w->held = w->held || w->holds(w->f, w->arg);
	if (w->held || clock_ms(&clock_real) > w->until_ms)
		loop_stop(loop);
}

#define wait_for(f, fn, arg) wait_at(f, fn, arg, #fn, __LINE__)
static void wait_at(struct fake *f, bool (*holds)(struct fake *f, int arg), int arg, const char *what, int line)
{
	struct wait w = { .holds = holds, .f = f, .arg = arg, .until_ms = clock_ms(&clock_real) + DEADLINE_MS };
	int timer = loop_timer(loop, 5, true, on_poll, &w, NULL);
	(void)loop_run(loop, NULL);
	loop_timer_end(loop, timer);
	if (!w.held)
		fail_msg("line %d: %s(%d) did not come true", line, what, arg);
}

static bool has_answer(struct fake *f, int step)
{
	return f->answers[step] > 0;
}

static bool has_hellos(struct fake *f, int count)
{
	return f->hellos >= (unsigned)count;
}

static bool in_phase(struct fake *f, int phase)
{
	return f->session.phase == (enum session_phase)phase;
}

static bool has_holdings(struct fake *f, int count)
{
	return f->holdings_count >= (unsigned)count;
}

static bool has_status(struct fake *f, int unused)
{
	(void)unused;
	return f->agent_status != -1;
}

static bool has_voted(struct fake *f, int party)
{
	return f->session.facts.vote[party] != VOTE_NONE;
}

static bool has_vms(struct fake *f, int count)
{
	return f->vms == (unsigned)count;
}

static bool is_dead(struct fake *f, int pid)
{
	(void)f;
	struct proc_id id;
	return proc_identify(pid, &id) < 0 || !proc_alive(&id);
}

static bool has_starts(struct fake *f, int count)
{
	char path[PATHS_MAX + 64];
	struct stat st;
	(void)snprintf(path, sizeof(path), "%s/starts", f->paths.run);
	return stat(path, &st) == 0 && st.st_size >= count;
}

/* ---- fixture ---- */

static void write_file(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void write_file(const char *path, const char *format, ...)
{
	va_list args;
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	va_start(args, format);
	(void)vfprintf(file, format, args);
	va_end(args);
	assert_int_equal(fclose(file), 0);
}

static void copy_file(const char *from, const char *to)
{
	char text[8192];
	FILE *file = fopen(from, "r");
	assert_non_null(file);
	size_t bytes = fread(text, 1, sizeof(text) - 1, file);
	(void)fclose(file);
	text[bytes] = '\0';
	write_file(to, "%s", text);
}

static void write_conf(struct fake *f, const char *extra)
{
	char path[2 * PATHS_MAX];
	(void)snprintf(path, sizeof(path), "%s/agent.conf", f->paths.etc);
	write_file(
		path,
		"host = a1\npool = A\nhypervisor = sim\ncoordinator = \"%s\"\nnetworks = {xenbr0}\nleg = \"%s\"\n%s\n"
		"sr local {\n type = dir\n path = \"sr\"\n}\n",
		bus_endpoint(f->server), self, extra);
}

static void agent_start(struct fake *f)
{
	const char *const argv[] = { self, "agent", f->home, NULL };
	char log_path[PATHS_MAX + 64];
	struct err err = { 0 };
	(void)snprintf(log_path, sizeof(log_path), "%s/agent.log", f->paths.run);
	if (proc_start(&f->agent, argv, NULL, log_path, -1, PROC_DIE_WITH_US, &err) < 0)
		fail_msg("%s", err.text);
}

static void agent_kill(struct fake *f)
{
	assert_int_equal(proc_kill(&f->agent, 5000, NULL), 0);
	f->session.phase = PHASE_NONE;
}

static void connect_agent(struct fake *f)
{
	unsigned hellos = f->hellos;
	agent_start(f);
	wait_for(f, has_hellos, (int)hellos + 1);
}

static void on_child(void *ctx, pid_t pid, int status)
{
	struct fake *f = ctx;
	if (pid == f->agent.pid)
		f->agent_status = status;
}

static int setup(void **state)
{
	static int serial;
	struct fake *f = calloc(1, sizeof(*f));
	char path[2 * PATHS_MAX], to[2 * PATHS_MAX];
	struct err err = { 0 };
	f->epoch = 3;
	loop_on_child(loop, on_child, f);
	(void)snprintf(f->home, sizeof(f->home), "%s/%d", root, ++serial);
	(void)snprintf(path, sizeof(path), "%s/%d-c", root, serial);
	if (mkdir(f->home, 0700) < 0 || mkdir(path, 0700) < 0 || paths_init(&f->paths, f->home, &err) < 0 ||
	    paths_make(&f->paths, &err) < 0 || paths_init(&f->coordinator, path, &err) < 0 ||
	    paths_make(&f->coordinator, &err) < 0 ||
	    keys_generate(&f->coordinator, "coordinator", ROLE_COORDINATOR, "", &err) < 0 ||
	    keys_generate(&f->paths, "agent", ROLE_AGENT, "a1", &err) < 0)
		fail_msg("%s", err.text);
	(void)snprintf(path, sizeof(path), "%s/sr", f->home);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/keys/agent.cert", f->paths.etc);
	if (keys_authorize(&f->coordinator, path, &err) < 0)
		fail_msg("%s", err.text);
	(void)snprintf(path, sizeof(path), "%s/keys/coordinator.cert", f->coordinator.etc);
	(void)snprintf(to, sizeof(to), "%s/coordinator.cert", f->paths.etc);
	copy_file(path, to);
	(void)snprintf(path, sizeof(path), "%s/keys/coordinator.cert_secret", f->coordinator.etc);
	if (bus_listen(&f->server, loop, "tcp://127.0.0.1:*", path, &f->coordinator, on_message, on_bad, f, &err) < 0)
		fail_msg("%s", err.text);
	write_conf(f, "");
	*state = f;
	return 0;
}

static void kill_leg(struct fake *f, uint64_t migration)
{
	char name[64];
	long pid;
	(void)snprintf(name, sizeof(name), "leg-%" PRIu64, migration);
	if (paths_read_pid(&f->paths, name, &pid) < 0 || is_dead(f, (int)pid))
		return;
	(void)kill((pid_t)pid, SIGKILL);
	wait_for(f, is_dead, (int)pid);
	paths_remove_pid(&f->paths, name);
}

static int teardown(void **state)
{
	struct fake *f = *state;
	(void)proc_kill(&f->agent, 5000, NULL);
	for (uint64_t migration = 1; migration < 20; migration++)
		kill_leg(f, migration);
	if (f->server)
		bus_server_free(f->server);
	loop_on_child(loop, NULL, NULL);
	free(f);
	return 0;
}

/* ---- commands ---- */

static void fill_plan(struct msg_plan *plan, int vm)
{
	fill_vm(&plan->vm, vm);
	(void)snprintf(plan->new_name, sizeof(plan->new_name), "web%d", vm);
	(void)snprintf(plan->source, sizeof(plan->source), "a1");
	(void)snprintf(plan->destination, sizeof(plan->destination), "b1");
	plan->to[0] = plan->vm.disks[0];
	(void)snprintf(plan->bridges[0], sizeof(plan->bridges[0]), "xenbr0");
	plan->max_downtime_ms = 300;
	plan->on_slow = ON_SLOW_WAIT;
}

struct order {
	uint64_t migration;
	uint32_t generation;
	enum side side;
	int vm;
	bool dry_run;
};

static const struct order source_order = { .migration = 1, .generation = 1, .side = SIDE_SOURCE, .vm = 1 };

static void order(struct fake *f, const struct order *o, enum step step)
{
	struct msg *msg = new_msg(MSG_COMMAND);
	struct msg_command *command = &msg->u.command;
	struct msg_plan *plan = calloc(1, sizeof(*plan));
	msg->migration = o->migration;
	msg->generation = o->generation;
	msg->sequence = ++f->sequence;
	command->step = step;
	command->side = o->side;
	if (step == STEP_CHECK || step == STEP_PREPARE) {
		fill_plan(plan, o->vm);
		plan->dry_run = o->dry_run;
		command->plan = plan;
	}
	if (step == STEP_COPY) {
		(void)snprintf(command->peer_fingerprint, sizeof(command->peer_fingerprint), FINGERPRINT);
		if (o->side == SIDE_SOURCE)
			(void)snprintf(command->peer_endpoint, sizeof(command->peer_endpoint), "127.0.0.1:4711");
	}
	if (step == STEP_ABORT) {
		command->reason = ERR_CANCELLED;
		(void)snprintf(command->reason_text, sizeof(command->reason_text), "cancelled by a test");
	}
	f->answers[step] = 0;
	reply(f, msg);
	free(plan);
}

static void ordered(struct fake *f, const struct order *o, enum step step, enum outcome outcome)
{
	order(f, o, step);
	wait_for(f, has_answer, (int)step);
	if (f->answer[step].outcome != outcome)
		fail_msg("%s: %s: %s", step_name(step), outcome_name(f->answer[step].outcome),
		         f->answer[step].cause.text);
	assert_int_equal(f->answer_sequence[step], f->sequence);
	assert_int_equal(f->answer[step].side, o->side);
}

static void to_copying(struct fake *f, const struct order *o)
{
	ordered(f, o, STEP_CHECK, OUTCOME_DONE);
	ordered(f, o, STEP_PREPARE, OUTCOME_DONE);
	assert_string_equal(f->answer[STEP_PREPARE].fingerprint, FINGERPRINT);
	ordered(f, o, STEP_COPY, OUTCOME_DONE);
}

static void send_facts(struct fake *f, const struct order *o, struct verdict_facts facts)
{
	struct msg *msg = new_msg(MSG_FACTS);
	msg->migration = o->migration;
	msg->generation = o->generation;
	msg->u.facts = facts;
	reply(f, msg);
}

static void ask_survey(struct fake *f, uint64_t sequence, bool sweep)
{
	struct msg *msg = new_msg(MSG_SURVEY);
	msg->sequence = sequence;
	msg->u.survey.sweep = sweep;
	if (sweep) {
		msg->u.survey.over_count = 2;
		msg->u.survey.over[0] = (struct msg_over) { 17, OVER_ABORTED };
		msg->u.survey.over[1] = (struct msg_over) { 18, OVER_UNKNOWN };
	}
	reply(f, msg);
}

static struct journal *open_journal(struct fake *f)
{
	struct journal *journal;
	struct err err;
	if (journal_open(&journal, &f->paths, &err) < 0)
		fail_msg("%s", err.text);
	return journal;
}

#endif
