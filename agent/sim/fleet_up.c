/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A fleet is started, ended, loses the power of a host; and whether its agents are connected. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/disk/wait.h"
#include "agent/hypervisor/sim_control.h"
#include "agent/sim/fleet.h"
#include "agent/sim/power.h"
#include "common/bus.h"
#include "common/loop.h"

#define HELD_MS 3000u /* for which guests wait whose migration is not decided yet */
#define HELD_STEP_MS 100u
#define ASK_MS 200u    /* between two questions to the coordinator */
#define KNOWN_MS 5000u /* for a new VM to get around */
#define NOTE_LOOKS 20u /* at a process that seems to take no notes of what it writes */
#define NOTE_STEP_MS 5
#define AGENT "drover-agent"
#define COORDINATOR "drover-coordinator"

struct question {
	struct fleet *fleet;
	const struct fleet_host *only; /* NULL: all */
	const char *vm;                /* UUID of a VM that must be known too; NULL: none */
	struct loop *loop;
	struct bus_client *client;
	uint32_t version; /* 0: no welcome yet */
	bool done, late;
	char missing[LIMIT_NAME]; /* a host that is not connected; "": the coordinator has not answered */
	struct err refused;
};

static void on_connection(void *ctx, bool up)
{
	struct question *question = ctx;
	struct msg hello = { .version = PROTOCOL_VERSION, .kind = MSG_HELLO };
	question->version = 0;
	if (!up)
		return;
	hello.u.hello.version_min = PROTOCOL_VERSION_MIN;
	hello.u.hello.version_max = PROTOCOL_VERSION;
	snprintf(hello.u.hello.software, sizeof(hello.u.hello.software), "%s", DROVER_VERSION);
	bus_client_send(question->client, &hello, NULL);
}

static void on_late(void *ctx)
{
	struct question *question = ctx;
	question->late = true;
	loop_stop(question->loop);
}

static void ask(void *ctx)
{
	struct question *question = ctx;
	struct msg request = { .version = question->version, .sequence = 1, .kind = MSG_REQUEST };
	struct proc_id id;
	/* One that has ended will not connect. */
	if (!fleet_daemon_alive(&question->fleet->coordinator, "coordinator", COORDINATOR, &id)) {
		question->missing[0] = '\0';
		on_late(question);
		return;
	}
	for (unsigned i = 0; i < question->fleet->host_count; i++) {
		const struct fleet_host *host = &question->fleet->hosts[i];
		if ((question->only == NULL || question->only == host) &&
		    !fleet_daemon_alive(&host->paths, "agent", AGENT, &id)) {
			snprintf(question->missing, sizeof(question->missing), "%s", host->name);
			on_late(question);
			return;
		}
	}
	request.u.request.verb = question->vm != NULL ? VERB_VM_LIST : VERB_HOST_LIST;
	if (question->version != 0)
		bus_client_send(question->client, &request, NULL);
}

static bool connected(json_t *hosts, const char *name)
{
	size_t index;
	json_t *host;
	json_array_foreach(hosts, index, host)
	{
		const char *its = json_string_value(json_object_get(host, "name"));
		const char *state = json_string_value(json_object_get(host, "state"));
		if (its != NULL && strcmp(its, name) == 0)
			return json_is_true(json_object_get(host, "connected")) ||
			       (state != NULL && strcmp(state, "connected") == 0);
	}
	return false;
}

static bool knows(json_t *vms, const char *uuid)
{
	size_t index;
	json_t *vm;
	json_array_foreach(vms, index, vm)
	{
		const char *its = json_string_value(json_object_get(vm, "uuid"));
		if (its == NULL) /* as a migration has it */
			its = json_string_value(json_object_get(json_object_get(vm, "vm"), "uuid"));
		if (its != NULL && strcmp(its, uuid) == 0)
			return true;
	}
	return false;
}

static void on_message(void *ctx, const struct msg *msg)
{
	struct question *question = ctx;
	json_error_t why;
	if (msg->kind == MSG_WELCOME) {
		question->version = msg->u.welcome.version;
		ask(question);
	}
	if (msg->kind == MSG_ERROR)
		question->refused = msg->u.error;
	if (msg->kind != MSG_REPLY || msg->u.reply.json == NULL)
		return;
	json_t *doc = json_loads(msg->u.reply.json, 0, &why);
	if (question->vm != NULL) {
		question->done = knows(json_object_get(doc, "vms"), question->vm);
		json_decref(doc);
		if (question->done)
			loop_stop(question->loop);
		return;
	}
	json_t *hosts = json_object_get(doc, "hosts");
	question->missing[0] = '\0';
	for (unsigned i = 0; i < question->fleet->host_count; i++) {
		const struct fleet_host *host = &question->fleet->hosts[i];
		if ((question->only == NULL || question->only == host) && !connected(hosts, host->name))
			snprintf(question->missing, sizeof(question->missing), "%s", host->name);
	}
	json_decref(doc);
	if (question->missing[0] == '\0') {
		question->done = true;
		loop_stop(question->loop);
	}
}

static int explain(struct question *question, unsigned timeout_ms, struct err *err)
{
	char words[256];
	const struct fleet_host *host =
		question->missing[0] != '\0' ? fleet_host(question->fleet, question->missing, NULL) : NULL;
	const struct paths *paths = host != NULL ? &host->paths : &question->fleet->coordinator;
	const char *daemon = host != NULL ? "agent" : "coordinator";
	if (question->refused.code != ERR_NONE)
		return err_set(err, question->refused.code, "the coordinator refuses: %s", question->refused.text);
	fleet_last_words(paths, daemon, words, sizeof(words));
	return err_set(err, ERR_TIMEOUT, "%s%s did not connect (waited for up to %u s); see %s/%s.log: %s",
	               host != NULL ? "host " : "", host != NULL ? host->name : "the coordinator", timeout_ms / 1000,
	               paths->run, daemon, words[0] != '\0' ? words : "it has said nothing");
}

static int ask_until(struct fleet *fleet, const struct fleet_host *only, const char *vm, unsigned timeout_ms,
                     struct err *err)
{
	struct question question = { .fleet = fleet, .only = only, .vm = vm };
	char key[PATHS_MAX + 64], cert[PATHS_MAX + 64];
	int result = -1;
	snprintf(key, sizeof(key), "%s/keys/operator.cert_secret", fleet->coordinator.etc);
	snprintf(cert, sizeof(cert), "%s/keys/coordinator.cert", fleet->coordinator.etc);
	question.loop = loop_new(err);
	if (question.loop == NULL)
		return -1;
	if (bus_connect(&question.client, question.loop, fleet->endpoint, key, cert, on_message, &question, err) != 0)
		goto out;
	bus_on_connection(question.client, on_connection, &question);
	if (loop_timer(question.loop, ASK_MS, true, ask, &question, err) < 0 ||
	    loop_timer(question.loop, timeout_ms, false, on_late, &question, err) < 0)
		goto out;
	if (loop_run(question.loop, err) != 0)
		goto out;
	if (question.done)
		result = 0;
	else
		result = question.late ? explain(&question, timeout_ms, err)
		                       : err_set(err, ERR_CANCELLED, "interrupted");
out:
	bus_client_free(question.client);
	loop_free(question.loop);
	return result;
}

int fleet_wait_connected(struct fleet *fleet, const struct fleet_host *only, unsigned timeout_ms, struct err *err)
{
	return ask_until(fleet, only, NULL, timeout_ms, err);
}

void fleet_wait_known(struct fleet *fleet, const struct fleet_host *host, const char *uuid)
{
	struct proc_id id;
	if (fleet_daemon_alive(&fleet->coordinator, "coordinator", COORDINATOR, &id) &&
	    fleet_daemon_alive(&host->paths, "agent", AGENT, &id))
		ask_until(fleet, host, uuid, KNOWN_MS, NULL);
}

static int start_agent(struct fleet_host *host, struct err *err)
{
	struct proc_id id;
	char boot[PATHS_MAX + 16];
	if (paths_make(&host->paths, err) != 0)
		return -1;
	snprintf(boot, sizeof(boot), "%s/boot-id", host->paths.run);
	if (access(boot, F_OK) != 0 && fleet_new_boot(&host->paths, err) != 0)
		return -1;
	char notes[PATHS_MAX + 16];
	snprintf(notes, sizeof(notes), "%s/%s", host->paths.home, POWER_DIR);
	if (access(notes, F_OK) != 0 && power_forget(host->paths.home, err) != 0)
		return -1;
	if (fleet_daemon_alive(&host->paths, "agent", AGENT, &id))
		return 0;
	return fleet_daemon_start(&host->paths, "agent", AGENT, err);
}

/* A mark for `verify`: what guests did not flush before the power went may be lost, until they have booted again. */
static void power_cut_path(const struct fleet_host *host, char ret_path[PATHS_MAX + 16])
{
	snprintf(ret_path, PATHS_MAX + 16, "%s/power-cut", host->paths.lib);
}

static int mark_power_cut(const struct fleet_host *host, struct err *err)
{
	char path[PATHS_MAX + 16];
	power_cut_path(host, path);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "make %s", path);
	close(fd);
	return 0;
}

/* Agent and coordinator have just met again: who is held back is mostly decided in a moment. */
static int start_guests(struct fleet_host *host, struct err *err)
{
	unsigned held;
	short none;
	int64_t deadline_ms = disk_now_ms() + HELD_MS;
	for (;;) {
		if (fleet_start_guests(host, &held, err) != 0)
			return err_wrap(err, "host %s", host->name);
		if (held == 0 || disk_now_ms() >= deadline_ms)
			break;
		disk_wait(NULL, -1, 0, disk_now_ms() + HELD_STEP_MS, &none, NULL);
	}
	if (held > 0) {
		fprintf(stderr, "drover-sim: host %s: %u VMs are held back: their migration is not decided yet\n",
		        host->name, held);
		return 0;
	}
	char cut[PATHS_MAX + 16];
	power_cut_path(host, cut);
	unlink(cut);
	return 0;
}

int fleet_up(struct fleet *fleet, struct err *err)
{
	struct proc_id id;
	if (!fleet_daemon_alive(&fleet->coordinator, "coordinator", COORDINATOR, &id) &&
	    (paths_make(&fleet->coordinator, err) != 0 ||
	     fleet_daemon_start(&fleet->coordinator, "coordinator", COORDINATOR, err) != 0))
		return -1;
	/* The agents first: they know which VMs must not be started. */
	for (unsigned i = 0; i < fleet->host_count; i++)
		if (start_agent(&fleet->hosts[i], err) != 0)
			return err_wrap(err, "host %s", fleet->hosts[i].name);
	if (fleet_wait_connected(fleet, NULL, FLEET_CONNECT_MS, err) != 0)
		return -1;
	for (unsigned i = 0; i < fleet->host_count; i++)
		if (start_guests(&fleet->hosts[i], err) != 0)
			return -1;
	return 0;
}

static int end_guests(struct fleet_host *host, struct err *err)
{
	struct sim_record *list;
	size_t count;
	int lock = sim_record_lock(&host->paths, err);
	if (lock < 0)
		return -1;
	int result = sim_record_list(&host->paths, &list, &count, err);
	for (size_t i = 0; result == 0 && i < count; i++)
		result = sim_guest_end(&host->paths, list[i].name, "shutdown", err);
	if (result == 0)
		free(list);
	close(lock);
	return result;
}

int fleet_down(struct fleet *fleet, struct err *err)
{
	int result = fleet_daemon_end(&fleet->coordinator, "coordinator", COORDINATOR, err);
	for (unsigned i = 0; i < fleet->host_count; i++) {
		struct fleet_host *host = &fleet->hosts[i];
		if (access(host->paths.lib, F_OK) != 0)
			continue;
		/* Whatever fails: go on with the rest, and report the first. */
		struct err *why = result == 0 ? err : NULL;
		if (fleet_daemon_end(&host->paths, "agent", AGENT, why) != 0 || end_guests(host, why) != 0 ||
		    fleet_kill(host->paths.home, why) != 0 || power_forget(host->paths.home, why) != 0 ||
		    fleet_clear_run(&host->paths, why) != 0 || fleet_new_boot(&host->paths, why) != 0)
			result = -1;
	}
	if (fleet_kill(fleet->coordinator.home, result == 0 ? err : NULL) != 0)
		result = -1;
	return result;
}

/* One that is just ending, or just becoming another program, has no environment for a moment. */
static bool takes_notes(const struct proc_id *id)
{
	short none;
	for (unsigned look = 0; look < NOTE_LOOKS; look++) {
		if (fleet_has_environment(id, POWER_ENV "=") || !proc_alive(id))
			return true;
		disk_wait(NULL, -1, 0, disk_now_ms() + NOTE_STEP_MS, &none, NULL);
	}
	return false;
}

/* false: a process of the host did not take notes of what it wrote. */
static bool all_noted(const struct fleet_host *host, struct err *err)
{
	struct proc_id *list;
	size_t count;
	bool all = true;
	if (fleet_processes(host->paths.home, &list, &count, err) != 0)
		return false;
	for (size_t i = 0; i < count && all; i++)
		all = takes_notes(&list[i]);
	free(list);
	return all;
}

int fleet_power_off(struct fleet *fleet, struct fleet_host *host, struct err *err)
{
	(void)fleet;
	bool noted = all_noted(host, err);
	if (mark_power_cut(host, err) != 0 || fleet_kill(host->paths.home, err) != 0 ||
	    (noted ? power_cut(host->paths.home, NULL, err) : power_forget(host->paths.home, err)) != 0 ||
	    fleet_clear_run(&host->paths, err) != 0)
		return -1;
	if (!noted)
		fprintf(stderr,
		        "drover-sim: host %s: a process was not started by drover-sim; what was not flushed stays\n",
		        host->name);
	return fleet_new_boot(&host->paths, err);
}

int fleet_power_on(struct fleet *fleet, struct fleet_host *host, struct err *err)
{
	struct proc_id id;
	if (start_agent(host, err) != 0)
		return -1;
	if (fleet_daemon_alive(&fleet->coordinator, "coordinator", COORDINATOR, &id) &&
	    fleet_wait_connected(fleet, host, FLEET_CONNECT_MS, err) != 0)
		return -1;
	return start_guests(host, err);
}
