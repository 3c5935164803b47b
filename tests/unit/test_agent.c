/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent as a process of its own, with a coordinator that this test plays over real CURVE connections, and with legs
 * that it plays too: this program is also the agent (`agent HOME`) and the leg program (`run …`, `inventory …`).
 */
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
#include "agent/journal.h"
#include "common/bus.h"
#include "common/clock.h"
#include "common/keys.h"
#include "common/log.h"

#define FINGERPRINT "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define DEADLINE_MS 15000

/* ---- the agent ---- */

static int run_agent(const char *home)
{
	struct err err = {0};
	struct paths paths;
	struct agent *agent = NULL;
	struct agent_conf *conf = calloc(1, sizeof(*conf));
	log_init("agent");
	struct loop *loop = loop_new(&err);
	if (!loop || !conf || paths_init(&paths, home, &err) < 0 || agent_conf_load(conf, &paths, NULL, &err) < 0 ||
	    agent_new(&agent, loop, &paths, conf, &err) < 0) {
		log_error("%s", err.text);
		loop_free(loop);
		free(conf);
		return 3;
	}
	(void)loop_run(loop, &err);
	agent_free(agent);
	loop_free(loop);
	free(conf);
	return 0;
}

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
	vm->disks[0] = (struct msg_disk){
		.name = "xvda", .sr = "local", .format = FORMAT_RAW, .size_bytes = 1 << 20, .allocated_bytes = 4096};
	vm->nic_count = 1;
	(void)snprintf(vm->nics[0].mac, sizeof(vm->nics[0].mac), "00:16:3e:00:00:%02x", n);
	(void)snprintf(vm->nics[0].bridge, sizeof(vm->nics[0].bridge), "xenbr0");
}

static int leg_inventory(void)
{
	struct msg_vm vms[4];
	struct msg_inventory inventory = {.memory_bytes = 4ull << 30, .memory_free_bytes = 1ull << 30, .vm_count = 4, .vms = vms};
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
	*ret = (struct msg_session){.migration = leg->migration, .generation = leg->generation, .side = leg->side,
	                            .facts = leg->facts, .phase = PHASE_COPYING};
	if (leg->gone_back)
		ret->phase = PHASE_ROLLED_BACK;
	else if (verdict_of(&leg->facts) == VOTE_COMMIT)
		ret->phase = PHASE_COMMITTED;
	else if (leg->granted)
		ret->phase = PHASE_SWITCHING;
	else if (leg->ready)
		ret->phase = PHASE_READY;
	if (leg->facts.running)
		ret->budget = (struct msg_budget){.total_ms = 42, .suspend_ms = 2};
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
	struct verdict_local local = {.failed = leg->recover};
	struct err err = {0};
	if (journal_flag(leg->journal, leg->migration, leg->generation, &flag, &local, &leg->facts, &err) < 0)
		log_error("leg: %s", err.text);
}

/* What is due, in the order of the rules. */
static void leg_due(struct fake_leg *leg, bool abort_asked)
{
	struct verdict_local local = {.granted = leg->granted, .complete = leg->granted && !leg->recover,
	                              .failed = leg->recover, .abort_asked = abort_asked};
	enum party self = party_of(leg->side);
	for (;;) {
		unsigned due = verdict_due(self, &leg->facts, &local);
		if (due & (DUTY_CAST_COMMIT | DUTY_CAST_ABORT)) {
			enum vote vote = due & DUTY_CAST_COMMIT ? VOTE_COMMIT : VOTE_ABORT;
			if (journal_vote(leg->journal, leg->migration, leg->generation, leg->side, vote, &local, &leg->facts, NULL) < 0)
				abort();
		} else if (due & DUTY_RESUME) {
			leg_flag(leg, (struct verdict_facts){.resumed = true});
			leg->gone_back = true;
		} else if (due & DUTY_RENOUNCE) {
			if (journal_flag(leg->journal, leg->migration, leg->generation, &(struct verdict_facts){.renounced = true},
			                 &local, &leg->facts, NULL) < 0)
				abort();
			leg->gone_back = true;
		} else if (due & DUTY_ACTIVATE) {
			leg_flag(leg, (struct verdict_facts){.activating = true});
			leg_flag(leg, (struct verdict_facts){.running = true});
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
			leg_flag(leg, (struct verdict_facts){.suspended = true});
			leg_flag(leg, (struct verdict_facts){.stream_ended = true});
		}
		leg_due(leg, false);
	} else if (command->step == STEP_ABORT) {
		leg_due(leg, true);
		if (!leg->gone_back) { /* the verdict will tell */
			free(out);
			return;
		}
	} else if (command->step == STEP_RELEASE && leg->side == SIDE_SOURCE) {
		leg_flag(leg, (struct verdict_facts){.released = true});
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
		else if (msg->kind == MSG_FACTS &&
		         journal_facts_add(leg->journal, leg->migration, leg->generation, &msg->u.facts, &leg->facts, NULL) == 0)
			leg_due(leg, false);
		msg_free(msg);
	}
	free(msg);
}

static int leg_serve(struct fake_leg *leg)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/leg-%u.sock", leg->paths.run,
	               (unsigned)leg->migration);
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	(void)unlink(address.sun_path);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 4) < 0)
		return 1;
	while (!leg->stop) {
		struct pollfd fds[2] = {{.fd = listener, .events = POLLIN}, {.fd = leg->fd, .events = POLLIN}};
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

static int run_leg(int argc, char **argv)
{
	struct fake_leg leg = {.fd = -1};
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

/* ---- the coordinator ---- */

struct fake {
	char home[PATHS_MAX]; /* of the agent */
	struct paths paths, coordinator;
	struct bus_server *server;
	struct proc_id agent;
	uint64_t epoch, sequence;
	/* heard */
	struct bus_peer peer;
	unsigned hellos, heartbeats, answers[STEPS], progress;
	struct msg_hello hello;
	struct msg_answer answer[STEPS];
	uint64_t answer_sequence[STEPS];
	struct msg_session session;       /* newest report or heartbeat entry */
	unsigned session_count;
	uint64_t digest;
	struct msg_inventory inventory;   /* without VMs */
	uint32_t vms;
};

static struct loop *loop;
static char root[64], self[PATHS_MAX];

static void reply(struct fake *f, struct msg *msg)
{
	struct err err = {0};
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
		welcome->u.welcome = (struct msg_welcome){.version = PROTOCOL_VERSION, .cluster_id = "test", .heartbeat_ms = 100};
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
	struct wait w = {.holds = holds, .f = f, .arg = arg, .until_ms = clock_ms(&clock_real) + DEADLINE_MS};
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
	write_file(path,
	           "host = a1\npool = A\nhypervisor = sim\ncoordinator = \"%s\"\nnetworks = {xenbr0}\nleg = \"%s\"\n%s\n"
	           "sr local {\n type = dir\n path = \"sr\"\n}\n",
	           bus_endpoint(f->server), self, extra);
}

static void agent_start(struct fake *f)
{
	const char *const argv[] = {self, "agent", f->home, NULL};
	char log_path[PATHS_MAX + 64];
	struct err err = {0};
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

static int setup(void **state)
{
	static int serial;
	struct fake *f = calloc(1, sizeof(*f));
	char path[2 * PATHS_MAX], to[2 * PATHS_MAX];
	struct err err = {0};
	f->epoch = 3;
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

static const struct order source_order = {.migration = 1, .generation = 1, .side = SIDE_SOURCE, .vm = 1};

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
	wait_for(f, has_answer, step);
	if (f->answer[step].outcome != outcome)
		fail_msg("%s: %s: %s", step_name(step), outcome_name(f->answer[step].outcome), f->answer[step].cause.text);
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

static struct journal *open_journal(struct fake *f)
{
	struct journal *journal;
	struct err err;
	if (journal_open(&journal, &f->paths, &err) < 0)
		fail_msg("%s", err.text);
	return journal;
}

/* ---- tests ---- */

static void hello__fresh_host__says_who_it_is_and_what_it_has(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	assert_string_equal(f->hello.host, "a1");
	assert_string_equal(f->hello.pool, "A");
	assert_true(strlen(f->hello.boot_id) > 8);
	struct journal *journal = open_journal(f);
	assert_string_equal(f->hello.journal_id, journal_id(journal));
	journal_close(journal);
	wait_for(f, has_vms, 4);
	assert_string_equal(f->inventory.hypervisor, "sim");
	assert_int_equal(f->inventory.sr_count, 1);
	assert_string_equal(f->inventory.srs[0].name, "local");
	assert_true(f->inventory.srs[0].free_bytes > 0);
	assert_int_equal(f->inventory.network_count, 1);
	assert_int_equal(f->inventory.memory_free_bytes, 1ull << 30);
}

static void happy_path__source__ends_forgotten(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &source_order);
	wait_for(f, in_phase, PHASE_READY);
	assert_true(f->progress > 0);
	ordered(f, &source_order, STEP_SWITCH, OUTCOME_DONE);
	send_facts(f, &source_order, (struct verdict_facts){.vote = {0, 0, VOTE_COMMIT}});
	wait_for(f, in_phase, PHASE_COMMITTED);
	assert_int_equal(f->session.facts.vote[PARTY_SOURCE], VOTE_COMMIT);
	send_facts(f, &source_order, (struct verdict_facts){.vote = {0, 0, VOTE_COMMIT}, .activating = true, .running = true});
	ordered(f, &source_order, STEP_RELEASE, OUTCOME_DONE);
	assert_true(f->answer[STEP_RELEASE].session.facts.released);
	ordered(f, &source_order, STEP_FORGET, OUTCOME_DONE);
	struct journal *journal = open_journal(f);
	struct journal_session row;
	assert_int_equal(journal_session_get(journal, 1, 1, &row, NULL, NULL), -1);
	assert_int_equal(journal_generation(journal, 1), 1);
	journal_close(journal);
	ordered(f, &source_order, STEP_FORGET, OUTCOME_DONE); /* and again */
	ordered(f, &source_order, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_STALE);
}

static const struct order dest_order = {.migration = 2, .generation = 1, .side = SIDE_DESTINATION, .vm = 9};

static void happy_path__destination__claims_and_runs(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	ordered(f, &dest_order, STEP_CHECK, OUTCOME_DONE);
	assert_true(f->answer[STEP_CHECK].check_count >= 6);
	struct journal *journal = open_journal(f);
	uint64_t memory, disk;
	assert_int_equal(journal_claims(journal, "local", &memory, &disk, NULL), 0);
	assert_int_equal(memory, 256u << 20);
	assert_int_equal(disk, 1 << 20);
	journal_close(journal);
	ordered(f, &dest_order, STEP_PREPARE, OUTCOME_DONE);
	assert_string_equal(f->answer[STEP_PREPARE].endpoint, "127.0.0.1:4711");
	ordered(f, &dest_order, STEP_COPY, OUTCOME_DONE);
	ordered(f, &dest_order, STEP_SWITCH, OUTCOME_DONE);
	send_facts(f, &dest_order, (struct verdict_facts){.vote = {0, VOTE_COMMIT, 0}, .suspended = true, .stream_ended = true});
	wait_for(f, in_phase, PHASE_COMMITTED);
	ordered(f, &dest_order, STEP_RELEASE, OUTCOME_DONE);
	assert_true(f->answer[STEP_RELEASE].session.facts.running);
	assert_int_equal(f->answer[STEP_RELEASE].session.budget.total_ms, 42);
	ordered(f, &dest_order, STEP_FORGET, OUTCOME_DONE);
}

static void check__dry_run__changes_nothing(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	struct order dry = dest_order;
	dry.dry_run = true;
	ordered(f, &dry, STEP_CHECK, OUTCOME_DONE);
	struct journal *journal = open_journal(f);
	struct journal_session *list;
	size_t count;
	assert_int_equal(journal_session_list(journal, &list, &count, NULL), 0);
	assert_int_equal(count, 0);
	assert_int_equal(journal_generation(journal, 2), 0);
	free(list);
	journal_close(journal);
	dry.vm = 1; /* is here already */
	ordered(f, &dry, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_NAME_TAKEN);
}

static void check__vm_not_here__is_refused_and_stays_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	struct order o = source_order;
	o.vm = 9;
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_UNKNOWN_VM);
	o.vm = 1;
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_UNKNOWN_VM);
	ordered(f, &o, STEP_FORGET, OUTCOME_DONE);
	o.generation = 2;
	ordered(f, &o, STEP_CHECK, OUTCOME_DONE);
}

static void check__vm_has_a_migration__is_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	ordered(f, &source_order, STEP_CHECK, OUTCOME_DONE);
	struct order o = source_order;
	o.migration = 3;
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_BUSY);
}

static void check__no_leg_program__is_refused_with_the_remedy(void **state)
{
	struct fake *f = *state;
	char keep[PATHS_MAX];
	memcpy(keep, self, sizeof(keep));
	(void)snprintf(self, sizeof(self), "%s/no-such-leg", root);
	write_conf(f, "");
	memcpy(self, keep, sizeof(self));
	connect_agent(f);
	ordered(f, &source_order, STEP_CHECK, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_CONFIG);
	assert_non_null(strstr(f->answer[STEP_CHECK].cause.text, "no-such-leg"));
}

static void abort__copying__is_done_when_the_leg_has_gone_back(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &source_order);
	ordered(f, &source_order, STEP_ABORT, OUTCOME_DONE);
	assert_int_equal(f->answer[STEP_ABORT].session.phase, PHASE_ROLLED_BACK);
	assert_int_equal(f->answer[STEP_ABORT].session.cause.code, ERR_CANCELLED);
	assert_true(f->answer[STEP_ABORT].session.facts.resumed);
	ordered(f, &source_order, STEP_ABORT, OUTCOME_DONE);
	ordered(f, &source_order, STEP_SWITCH, OUTCOME_REFUSED);
	ordered(f, &source_order, STEP_FORGET, OUTCOME_DONE);
}

static void leg_killed__copying__is_followed_by_one_that_goes_back(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &dest_order);
	kill_leg(f, 2);
	wait_for(f, in_phase, PHASE_ROLLED_BACK);
	assert_true(f->session.facts.renounced);
	assert_int_equal(f->session.cause.code, ERR_LEG_LOST);
	assert_true(has_starts(f, 2));
	ordered(f, &dest_order, STEP_ABORT, OUTCOME_DONE);
	ordered(f, &dest_order, STEP_FORGET, OUTCOME_DONE);
	assert_false(has_starts(f, 3));
}

static void leg_killed__after_its_vote__recovers_and_activates(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &dest_order);
	ordered(f, &dest_order, STEP_SWITCH, OUTCOME_DONE);
	kill_leg(f, 2);
	wait_for(f, has_starts, 2);
	assert_int_equal(f->session.facts.vote[PARTY_DESTINATION], VOTE_COMMIT);
	send_facts(f, &dest_order, (struct verdict_facts){.vote = {0, VOTE_COMMIT, 0}, .suspended = true, .stream_ended = true});
	wait_for(f, in_phase, PHASE_COMMITTED);
	ordered(f, &dest_order, STEP_RELEASE, OUTCOME_DONE);
	assert_true(f->answer[STEP_RELEASE].session.facts.running);
}

static void agent_killed__leg_lives__is_reached_again_not_started(void **state)
{
	struct fake *f = *state;
	long before, after;
	connect_agent(f);
	to_copying(f, &source_order);
	assert_int_equal(paths_read_pid(&f->paths, "leg-1", &before), 0);
	agent_kill(f);
	connect_agent(f);
	assert_int_equal(f->hello.max_epoch, 3);
	ordered(f, &source_order, STEP_SWITCH, OUTCOME_DONE);
	send_facts(f, &source_order, (struct verdict_facts){.vote = {0, 0, VOTE_COMMIT}});
	wait_for(f, in_phase, PHASE_COMMITTED);
	assert_int_equal(paths_read_pid(&f->paths, "leg-1", &after), 0);
	assert_int_equal(before, after);
	assert_false(has_starts(f, 2));
}

static void agent_killed__leg_dies_meanwhile__is_recovered(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	to_copying(f, &source_order);
	agent_kill(f);
	kill_leg(f, 1);
	connect_agent(f);
	wait_for(f, in_phase, PHASE_ROLLED_BACK);
	assert_int_equal(f->session.cause.code, ERR_LEG_LOST);
	assert_true(has_starts(f, 2));
}

static void agent_killed__prepare_again__is_answered_the_same(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	ordered(f, &dest_order, STEP_CHECK, OUTCOME_DONE);
	ordered(f, &dest_order, STEP_PREPARE, OUTCOME_DONE);
	agent_kill(f);
	memset(&f->answer[STEP_PREPARE], 0, sizeof(f->answer[STEP_PREPARE]));
	connect_agent(f);
	ordered(f, &dest_order, STEP_PREPARE, OUTCOME_DONE);
	assert_string_equal(f->answer[STEP_PREPARE].fingerprint, FINGERPRINT);
	assert_string_equal(f->answer[STEP_PREPARE].endpoint, "127.0.0.1:4711");
	assert_false(has_starts(f, 2));
}

static void host_rebooted__copying__goes_back_by_the_journal(void **state)
{
	struct fake *f = *state;
	char path[PATHS_MAX + 64];
	(void)snprintf(path, sizeof(path), "%s/boot-id", f->paths.run);
	write_file(path, "boot-1\n");
	connect_agent(f);
	assert_string_equal(f->hello.boot_id, "boot-1");
	to_copying(f, &source_order);
	agent_kill(f);
	kill_leg(f, 1);
	write_file(path, "boot-2\n");
	connect_agent(f);
	assert_string_equal(f->hello.boot_id, "boot-2");
	wait_for(f, in_phase, PHASE_ROLLED_BACK);
	assert_int_equal(f->session.cause.code, ERR_HOST_LOST);
}

static void stale__older_epoch_or_generation__is_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	struct order o = source_order;
	o.generation = 2;
	ordered(f, &o, STEP_CHECK, OUTCOME_DONE);
	ordered(f, &source_order, STEP_PREPARE, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_PREPARE].cause.code, ERR_STALE);
	f->epoch = 2;
	ordered(f, &o, STEP_PREPARE, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_PREPARE].cause.code, ERR_STALE);
	assert_false(has_starts(f, 1));
	f->epoch = 4;
	ordered(f, &o, STEP_PREPARE, OUTCOME_DONE);
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED); /* an older step */
	assert_int_equal(f->answer[STEP_CHECK].cause.code, ERR_STALE);
	o.side = SIDE_DESTINATION;
	ordered(f, &o, STEP_COPY, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_COPY].cause.code, ERR_PROTOCOL);
}

static void unknown__never_heard_of__abort_is_done_and_the_rest_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	struct order o = {.migration = 11, .generation = 1, .side = SIDE_SOURCE, .vm = 1};
	ordered(f, &o, STEP_PREPARE, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_PREPARE].cause.code, ERR_HOST_LOST);
	ordered(f, &o, STEP_ABORT, OUTCOME_DONE);
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED); /* it came too late */
	ordered(f, &o, STEP_FORGET, OUTCOME_DONE);
	o.migration = 12;
	ordered(f, &o, STEP_FORGET, OUTCOME_DONE);
	ordered(f, &o, STEP_CHECK, OUTCOME_REFUSED);
}

static void unknown__journal_was_lost__is_said(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	ordered(f, &source_order, STEP_CHECK, OUTCOME_DONE);
	char first[LIMIT_ID], path[PATHS_MAX + 64];
	memcpy(first, f->hello.journal_id, sizeof(first));
	agent_kill(f);
	static const char *const names[] = {"journal.db", "journal.db-wal", "journal.db-shm"};
	for (int i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", f->paths.lib, names[i]);
		(void)unlink(path);
	}
	connect_agent(f);
	assert_string_not_equal(first, f->hello.journal_id);
	ordered(f, &source_order, STEP_ABORT, OUTCOME_REFUSED);
	assert_int_equal(f->answer[STEP_ABORT].cause.code, ERR_HOST_LOST);
	ordered(f, &source_order, STEP_FORGET, OUTCOME_REFUSED);
	struct order o = source_order;
	o.migration = 5; /* new work is taken */
	ordered(f, &o, STEP_CHECK, OUTCOME_DONE);
}

static void orphaned__copying__gives_up_by_itself(void **state)
{
	struct fake *f = *state;
	write_conf(f, "orphan-grace = 1s");
	connect_agent(f);
	to_copying(f, &source_order);
	bus_server_free(f->server);
	f->server = NULL;
	struct journal *journal = open_journal(f);
	int64_t until_ms = clock_ms(&clock_real) + DEADLINE_MS;
	struct journal_session row = {0};
	while (row.core.state != SESSION_ROLLED_BACK && clock_ms(&clock_real) < until_ms) {
		assert_int_equal(journal_session_get(journal, 1, 1, &row, NULL, NULL), 0);
		(void)poll(NULL, 0, 20);
	}
	journal_close(journal);
	assert_int_equal(row.core.state, SESSION_ROLLED_BACK);
	assert_int_equal(row.cause.code, ERR_UNREACHABLE);
	assert_true(row.facts.resumed);
}

static bool is_gone(struct fake *f, int n)
{
	char path[PATHS_MAX + 64];
	(void)snprintf(path, sizeof(path), "%s/sr/disk%d", f->home, n);
	return access(path, F_OK) != 0;
}

static void kept_disk__its_time_is_over__is_removed(void **state)
{
	struct fake *f = *state;
	struct journal *journal = open_journal(f);
	int64_t id;
	uint64_t now_ms = (uint64_t)clock_real.wall_ms(&clock_real);
	for (int i = 1; i <= 2; i++) {
		struct journal_resource kept = {.migration = 7, .generation = 1, .kind = RESOURCE_SOURCE_DISK,
		                                .state = RESOURCE_KEPT, .name = "xvda",
		                                .kept_until_wall_ms = i == 1 ? now_ms - 1 : now_ms + 3600000};
		(void)snprintf(kept.path, sizeof(kept.path), "%.200s/sr/disk%d", f->home, i);
		write_file(kept.path, "data");
		assert_int_equal(journal_resource_add(journal, &kept, &id, NULL), 0);
	}
	connect_agent(f);
	wait_for(f, is_gone, 1);
	assert_false(is_gone(f, 2));
	journal_close(journal);
}

static void second_agent__same_home__is_refused(void **state)
{
	struct fake *f = *state;
	connect_agent(f);
	const char *const argv[] = {self, "agent", f->home, NULL};
	struct proc_id second;
	int status;
	assert_int_equal(proc_start(&second, argv, NULL, "/dev/null", -1, PROC_DIE_WITH_US, NULL), 0);
	struct err err = {0};
	wait_for(f, is_dead, (int)second.pid);
	(void)waitpid(second.pid, &status, WNOHANG); /* the loop may have been faster */
	(void)err;
	assert_true(proc_alive(&f->agent));
}

/* ---- main ---- */

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static int group_setup(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	(void)snprintf(root, sizeof(root), "%.32s/drover-agent-XXXXXX", tmp && strlen(tmp) < 32 ? tmp : "/tmp");
	ssize_t bytes = readlink("/proc/self/exe", self, sizeof(self) - 1);
	loop = loop_new(NULL);
	return bytes > 0 && mkdtemp(root) && loop ? 0 : -1;
}

static int group_teardown(void **state)
{
	(void)state;
	loop_free(loop);
	if (!getenv("DROVER_KEEP"))
		(void)nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	return 0;
}

#define agent_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "agent") == 0)
		return run_agent(argv[2]);
	if (argc > 1 && strcmp(argv[1], "inventory") == 0)
		return leg_inventory();
	if (argc > 1 && strcmp(argv[1], "run") == 0)
		return run_leg(argc, argv);
	const struct CMUnitTest tests[] = {
		agent_test(hello__fresh_host__says_who_it_is_and_what_it_has),
		agent_test(happy_path__source__ends_forgotten),
		agent_test(happy_path__destination__claims_and_runs),
		agent_test(check__dry_run__changes_nothing),
		agent_test(check__vm_not_here__is_refused_and_stays_refused),
		agent_test(check__vm_has_a_migration__is_refused),
		agent_test(check__no_leg_program__is_refused_with_the_remedy),
		agent_test(abort__copying__is_done_when_the_leg_has_gone_back),
		agent_test(leg_killed__copying__is_followed_by_one_that_goes_back),
		agent_test(leg_killed__after_its_vote__recovers_and_activates),
		agent_test(agent_killed__leg_lives__is_reached_again_not_started),
		agent_test(agent_killed__leg_dies_meanwhile__is_recovered),
		agent_test(agent_killed__prepare_again__is_answered_the_same),
		agent_test(host_rebooted__copying__goes_back_by_the_journal),
		agent_test(stale__older_epoch_or_generation__is_refused),
		agent_test(unknown__never_heard_of__abort_is_done_and_the_rest_refused),
		agent_test(unknown__journal_was_lost__is_said),
		agent_test(orphaned__copying__gives_up_by_itself),
		agent_test(kept_disk__its_time_is_over__is_removed),
		agent_test(second_agent__same_home__is_refused),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
