/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two simulated hosts with a guest and a real leg process each; the test plays both agents and the coordinator. */
#ifndef DROVER_TEST_LEG_RIG_H
#define DROVER_TEST_LEG_RIG_H

#include "tests/unit/sim_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agent/agent_conf.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/journal.h"
#include "common/clock.h"
#include "proto/msg.h"

#define MIGRATION 7u /* the first */
#define GENERATION 1u
#define VM "web"

struct host {
	struct paths paths;
	uint64_t migration; /* of its session */
	enum side side;
	struct journal *journal;
	struct proc_id leg;
	int fd;
	uint64_t sequence;
	struct msg_session report; /* newest */
	unsigned progresses;
	struct msg_progress progress; /* newest */
	bool answered[STEPS];
	struct msg_answer answers[STEPS];
	bool ended;
	int status;
};

struct move {
	struct rig rig;
	uint64_t migration; /* of the next session */
	struct host s, d;
	struct sim_record record;
	struct msg_plan plan;
	char log[PATHS_MAX + 16];
};

static inline void host_conf(const struct host *host, enum exporter_kind exporter)
{
	char path[PATHS_MAX + 16];
	snprintf(path, sizeof(path), "%s/agent.conf", host->paths.etc);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file,
	        "host = x\nhypervisor = sim\ncoordinator = \"tcp://127.0.0.1:1\"\nexporter = %s\n"
	        "sr local { type = dir path = \"%s/sr\" }\n",
	        exporter_name(exporter), host->paths.home);
	assert_int_equal(fclose(file), 0);
}

static inline void host_session(const struct move *move, struct host *host)
{
	struct journal_session *session = calloc(1, sizeof(*session));
	struct err err = { 0 };
	if (!host->journal)
		rig_ok(journal_open(&host->journal, &host->paths, &err), &err);
	host->migration = move->migration;
	session->migration = host->migration;
	session->generation = GENERATION;
	session->side = host->side;
	session->core.state = SESSION_PREPARING;
	session->core.side = host->side;
	session->core.highest = STEP_PREPARE;
	session->created_wall_ms = 1;
	rig_ok(boot_id_read(&host->paths, session->boot_id, sizeof(session->boot_id), &err), &err);
	rig_ok(journal_session_put(host->journal, session, &move->plan, &err), &err);
	free(session);
}

static inline void leg_start(struct move *move, struct host *host, bool recover)
{
	char self[PATHS_MAX], program[PATHS_MAX + 32], migration[32];
	struct err err = { 0 };
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	assert_true(n > 0);
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(program, sizeof(program), "%s/../bin/drover-leg-sim", self);
	snprintf(migration, sizeof(migration), "%" PRIu64, host->migration);
	const char *argv[] = { program,
		               "run",
		               "--home",
		               host->paths.home,
		               "--migration",
		               migration,
		               "--generation",
		               "1",
		               "--side",
		               side_name(host->side),
		               recover ? "--recover" : NULL,
		               NULL };
	const char *env[] = { "DROVER_LOG=debug", NULL };
	host->ended = false;
	rig_ok(proc_start(&host->leg, argv, env, move->log, -1, PROC_DIE_WITH_US, &err), &err);
}

static inline void leg_connect(struct host *host)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int64_t deadline_ms = disk_now_ms() + RIG_WAIT_MS;
	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/leg-%" PRIu64 ".sock", host->paths.run,
	         host->migration);
	host->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	while (connect(host->fd, (struct sockaddr *)&address, sizeof(address))) {
		if (disk_now_ms() > deadline_ms)
			fail_msg("the leg does not listen on %s", address.sun_path);
		rig_pause();
	}
}

static inline void leg_send(struct host *host, struct msg *msg)
{
	void *frame = NULL;
	size_t bytes = 0;
	struct err err = { 0 };
	msg->version = PROTOCOL_VERSION;
	msg->epoch = 1;
	msg->migration = host->migration;
	msg->generation = GENERATION;
	rig_ok(msg_encode(msg, &frame, &bytes, &err), &err);
	assert_int_equal(send(host->fd, frame, bytes, MSG_NOSIGNAL), bytes);
	free(frame);
}

static inline void leg_step(struct move *move, struct host *host, enum step step)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	msg->kind = MSG_COMMAND;
	msg->sequence = ++host->sequence;
	msg->u.command.step = step;
	msg->u.command.side = host->side;
	struct host *peer = host == &move->s ? &move->d : &move->s;
	if (step == STEP_PREPARE)
		msg->u.command.plan = &move->plan;
	if (step == STEP_COPY)
		snprintf(msg->u.command.peer_fingerprint, LIMIT_ID, "%s", peer->answers[STEP_PREPARE].fingerprint);
	if (step == STEP_COPY && host->side == SIDE_SOURCE)
		snprintf(msg->u.command.peer_endpoint, LIMIT_ID, "%s", peer->answers[STEP_PREPARE].endpoint);
	if (step == STEP_ABORT) {
		msg->u.command.reason = ERR_CANCELLED;
		snprintf(msg->u.command.reason_text, LIMIT_TEXT, "somebody asked for it");
	}
	host->answered[step] = false;
	leg_send(host, msg);
	free(msg);
}

static inline void leg_facts(struct host *host, const struct verdict_facts *facts)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	msg->kind = MSG_FACTS;
	msg->u.facts = *facts;
	leg_send(host, msg);
	free(msg);
}

/* Takes what there is within timeout_ms. */
static inline void leg_pump(struct host *host, int timeout_ms)
{
	static unsigned char packet[LIMIT_FRAME_BYTES];
	struct pollfd fd = { .fd = host->fd, .events = POLLIN };
	struct err err = { 0 };
	if (host->fd < 0 || poll(&fd, 1, timeout_ms) != 1)
		return;
	ssize_t n = recv(host->fd, packet, sizeof(packet), 0);
	if (n <= 0) {
		close(host->fd);
		host->fd = -1;
		return;
	}
	struct msg *msg = calloc(1, sizeof(*msg));
	rig_ok(msg_decode(packet, (size_t)n, msg, &err), &err);
	if (msg->kind == MSG_REPORT)
		host->report = msg->u.report;
	if (msg->kind == MSG_ANSWER) {
		host->answers[msg->u.answer.step] = msg->u.answer;
		host->answered[msg->u.answer.step] = true;
		host->report = msg->u.answer.session;
	}
	if (msg->kind == MSG_PROGRESS) {
		host->progress = msg->u.progress;
		host->progresses++;
	}
	msg_free(msg);
	free(msg);
}

static inline void show_log(const struct move *move)
{
	char line[1024];
	FILE *file = fopen(move->log, "r");
	while (file && fgets(line, sizeof(line), file))
		fputs(line, stderr);
	if (file)
		fclose(file);
}

#define AWAIT(move, condition)                                                \
	for (int64_t until_ms = disk_now_ms() + RIG_WAIT_MS; !(condition);) { \
		leg_pump(&(move)->s, 2);                                      \
		leg_pump(&(move)->d, 2);                                      \
		if (disk_now_ms() > until_ms) {                               \
			show_log(move);                                       \
			fail_msg("in vain: %s", #condition);                  \
		}                                                             \
	}

static inline void await_done(struct move *move, struct host *host, enum step step)
{
	AWAIT(move, host->answered[step]);
	if (host->answers[step].outcome != OUTCOME_DONE) {
		show_log(move);
		fail_msg("%s %s: %s", side_name(host->side), step_name(step), host->answers[step].cause.text);
	}
}

static inline void both(struct move *move, enum step step)
{
	leg_step(move, &move->s, step);
	leg_step(move, &move->d, step);
	await_done(move, &move->s, step);
	await_done(move, &move->d, step);
}

static inline void leg_kill(struct host *host)
{
	struct err err = { 0 };
	rig_ok(proc_kill(&host->leg, RIG_WAIT_MS, &err), &err);
	host->leg = (struct proc_id) { 0 };
	close(host->fd);
	host->fd = -1;
}

/* It ended by itself, and well (a sanitizer's complaint is a bad end). */
static inline void leg_await_end(struct move *move, struct host *host)
{
	int status = -1;
	int64_t until_ms = disk_now_ms() + RIG_WAIT_MS;
	while (waitpid(host->leg.pid, &status, WNOHANG) == 0) {
		if (disk_now_ms() > until_ms) {
			show_log(move);
			fail_msg("the leg of the %s does not end", side_name(host->side));
		}
		rig_pause();
	}
	host->leg = (struct proc_id) { 0 };
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		show_log(move);
		fail_msg("the leg of the %s ended with status %x", side_name(host->side), (unsigned)status);
	}
}

static inline size_t resources(const struct host *host)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	struct err err = { 0 };
	rig_ok(journal_resource_list(host->journal, host->migration, GENERATION, &list, &count, &err), &err);
	free(list);
	return count;
}

static inline size_t files_in(const char *path, const char *part)
{
	size_t count = 0;
	DIR *dir = opendir(path);
	assert_non_null(dir);
	for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
		count += entry->d_name[0] != '.' && (!part || strstr(entry->d_name, part));
	closedir(dir);
	return count;
}

static inline size_t images(const struct host *host)
{
	char path[PATHS_MAX + 8];
	snprintf(path, sizeof(path), "%s/sr", host->paths.home);
	return files_in(path, NULL);
}

/* Every tick once and in order over both hosts' ledgers; the last. */
static inline unsigned long long ledger_last(const struct move *move)
{
	unsigned long long last = 0, tick;
	const struct host *hosts[2] = { &move->s, &move->d };
	for (unsigned i = 0; i < 2; i++) {
		char path[PATHS_MAX + 16], name[64];
		snprintf(path, sizeof(path), "%s/ledger", hosts[i]->paths.home);
		FILE *file = fopen(path, "r");
		while (file && fscanf(file, "%63s %llu %*s %*s", name, &tick) == 2) {
			assert_int_equal(tick, last + 1);
			last = tick;
		}
		if (file)
			fclose(file);
	}
	return last;
}

#define BANDWIDTH_SLOW (2u << 20) /* a copy that is still under way when the test gets round to it */

static inline void make_plan(struct move *move)
{
	struct hypervisor *hv = NULL;
	struct msg_inventory inv = { 0 };
	struct err err = { 0 };
	rig_ok(hypervisor_sim.open(&hv, &move->s.paths, &err), &err);
	rig_ok(hypervisor_sim.inventory(hv, &inv, &err), &err);
	assert_int_equal(inv.vm_count, 1);
	move->plan.vm = inv.vms[0];
	for (unsigned i = 0; i < inv.vms[0].disk_count; i++)
		move->plan.to[i] = inv.vms[0].disks[i];
	snprintf(move->plan.new_name, LIMIT_NAME, "%s", VM);
	snprintf(move->plan.source, LIMIT_NAME, "a");
	snprintf(move->plan.destination, LIMIT_NAME, "b");
	move->plan.max_downtime_ms = 1000;
	move->plan.on_slow = ON_SLOW_WAIT;
	free(inv.vms);
	hypervisor_sim.close(hv);
}

static inline void add_noise(const char *path, uint64_t size_bytes, size_t bytes)
{
	unsigned char *noise = malloc(bytes + 1);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_non_null(noise);
	assert_true(fd >= 0);
	random_bytes(noise, bytes);
	assert_int_equal(pwrite(fd, noise, bytes, (off_t)(size_bytes - bytes)), bytes);
	close(fd);
	free(noise);
}

/* A guest with two raw disks of 8 MiB on a running host, and an empty host. noise_bytes: of data that the guest did not
 * write at the end of each disk. */
static inline int set_up_with(void **state, uint64_t write_bps, size_t noise_bytes)
{
	struct move *move = calloc(1, sizeof(*move));
	struct sim_record *record = &move->record;
	*state = move;
	rig_open(&move->rig);
	snprintf(move->log, sizeof(move->log), "%s/log", move->rig.dir);
	move->s.side = SIDE_SOURCE;
	move->d.side = SIDE_DESTINATION;
	move->s.fd = move->d.fd = -1;
	rig_host(&move->rig, "a", &move->s.paths);
	rig_host(&move->rig, "b", &move->d.paths);
	move->migration = MIGRATION;
	host_conf(&move->s, EXPORTER_NBD);
	host_conf(&move->d, EXPORTER_NBD);
	rig_record(&move->s.paths, VM, false, record);
	record->write_bps = write_bps;
	record->dirty_bps = 1u << 20;
	for (unsigned i = 0; i < 2; i++) {
		struct sim_disk *disk = &record->disks[record->disk_count++];
		snprintf(disk->name, sizeof(disk->name), "xvd%c", 'a' + i);
		snprintf(disk->sr, sizeof(disk->sr), "local");
		snprintf(disk->path, sizeof(disk->path), "%.100s/sr/web-%u", move->s.paths.home, i);
		disk->format = FORMAT_RAW;
		disk->size_bytes = (uint64_t)8 << 20;
		rig_image(disk->path, disk->format, disk->size_bytes);
		add_noise(disk->path, disk->size_bytes, noise_bytes);
	}
	rig_start(&move->s.paths, record);
	rig_wait_tick(&move->s.paths, VM, 20);
	make_plan(move);
	host_session(move, &move->s);
	host_session(move, &move->d);
	return 0;
}

static inline int set_up(void **state)
{
	return set_up_with(state, 1u << 20, 0);
}

static inline int tear_down(void **state)
{
	struct move *move = *state;
	struct host *hosts[2] = { &move->s, &move->d };
	for (unsigned i = 0; i < 2; i++) {
		if (hosts[i]->leg.pid)
			proc_kill(&hosts[i]->leg, RIG_WAIT_MS, NULL);
		if (hosts[i]->fd >= 0)
			close(hosts[i]->fd);
		sim_guest_end(&hosts[i]->paths, VM, "destroy", NULL);
		journal_close(hosts[i]->journal);
	}
	rig_close(&move->rig);
	free(move);
	return 0;
}

static inline void start_both(struct move *move)
{
	leg_start(move, &move->s, false);
	leg_start(move, &move->d, false);
	leg_connect(&move->s);
	leg_connect(&move->d);
}

static inline void until_copying(struct move *move)
{
	start_both(move);
	both(move, STEP_PREPARE);
	both(move, STEP_COPY);
}

static inline void until_ready(struct move *move)
{
	until_copying(move);
	AWAIT(move, move->s.report.phase == PHASE_READY);
}

static inline void forget_both(struct move *move)
{
	leg_step(move, &move->s, STEP_FORGET);
	leg_step(move, &move->d, STEP_FORGET);
	leg_await_end(move, &move->s);
	leg_await_end(move, &move->d);
	char name[32];
	snprintf(name, sizeof(name), "leg-%" PRIu64, move->s.migration);
	assert_int_equal(files_in(move->s.paths.run, name), 0);
	assert_int_equal(files_in(move->d.paths.run, name), 0);
}

static inline void guest_ticks(struct move *move, struct host *host)
{
	(void)move;
	long long tick = rig_ask(&host->paths, VM, "tick", NULL);
	rig_wait_tick(&host->paths, VM, tick + 5);
}

#endif
