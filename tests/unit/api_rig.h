/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A coordinator in this process, hosts made of messages, and a client that asks; for test_api.c. */
#ifndef DROVER_API_RIG_H
#define DROVER_API_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>
#include <unistd.h>

#include "common/keys.h"
#include "common/log.h"
#include "coordinator/coordinator_room.h"

static char folder[64];
static struct paths paths;
static struct loop *loop;
static struct coordinator *c;

static int64_t test_now_ms, test_wall_jump_ms;
static int64_t test_now(const struct clock *self)
{
	(void)self;
	return test_now_ms * 1000000;
}
static int64_t test_wall(const struct clock *self)
{
	(void)self;
	return 1700000000000 + test_now_ms + test_wall_jump_ms;
}
static const struct clock test_clock = { test_now, test_wall };

static const struct bus_peer operator= { .name = "root", .role = ROLE_OPERATOR };
static const struct bus_peer alice = { .name = "alice", .role = ROLE_SUBMITTER };
static const struct bus_peer bob = { .name = "bob", .role = ROLE_SUBMITTER };
static const struct bus_peer viewer = { .name = "eve", .role = ROLE_VIEWER };

/* ---- hosts ---- */

static struct bus_peer agent_peer(const char *host)
{
	struct bus_peer peer = { .role = ROLE_AGENT, .route_bytes = 5 };
	snprintf(peer.name, sizeof(peer.name), "%.60s", host);
	snprintf(peer.host, sizeof(peer.host), "%.60s", host);
	snprintf((char *)peer.route, sizeof(peer.route), "%.4s", host);
	return peer;
}

static void from_agent(const char *host, struct msg *msg)
{
	struct bus_peer peer = agent_peer(host);
	msg->version = PROTOCOL_VERSION;
	msg->epoch = store_epoch(c->store);
	coordinator_on_message(c, &peer, msg);
}

static void host_hello(const char *host, const char *pool, const char *boot)
{
	struct msg msg = { .kind = MSG_HELLO };
	msg.u.hello.version_min = msg.u.hello.version_max = PROTOCOL_VERSION;
	snprintf(msg.u.hello.host, LIMIT_NAME, "%s", host);
	snprintf(msg.u.hello.pool, LIMIT_NAME, "%s", pool);
	snprintf(msg.u.hello.boot_id, LIMIT_ID, "%s", boot);
	snprintf(msg.u.hello.journal_id, LIMIT_ID, "journal");
	snprintf(msg.u.hello.software, LIMIT_NAME, "test");
	from_agent(host, &msg);
}

/* Its journal holds no session. */
static void host_heartbeat(const char *host)
{
	struct msg msg = { .kind = MSG_HEARTBEAT };
	from_agent(host, &msg);
}

static struct msg_vm a_vm(unsigned char number, const char *name)
{
	struct msg_vm vm = { .uuid = { number, 1 },
		             .state = VM_RUNNING,
		             .memory_bytes = 1 << 30,
		             .vcpus = 2,
		             .disk_count = 1,
		             .nic_count = 1 };
	snprintf(vm.name, sizeof(vm.name), "%s", name);
	vm.disks[0] =
		(struct msg_disk) { .name = "xvda", .sr = "local", .format = FORMAT_RAW, .size_bytes = 10ull << 30 };
	vm.nics[0] = (struct msg_nic) { .mac = "00:16:3e:00:00:01", .bridge = "br0" };
	return vm;
}

static struct msg_sr an_sr(const char *name, uint64_t free_bytes)
{
	struct msg_sr sr = {
		.type = "dir", .format = FORMAT_QCOW2, .size_bytes = 1ull << 40, .free_bytes = free_bytes
	};
	snprintf(sr.name, sizeof(sr.name), "%s", name);
	return sr;
}

static struct msg_inventory an_inventory(void)
{
	struct msg_inventory inventory = { .memory_bytes = 4ull << 30,
		                           .memory_free_bytes = 3ull << 30,
		                           .hypervisor = "sim",
		                           .software = "test",
		                           .sr_count = 1,
		                           .network_count = 1 };
	inventory.srs[0] = an_sr("local", 100ull << 30);
	snprintf(inventory.networks[0], LIMIT_NAME, "br0");
	return inventory;
}

static void host_inventory(const char *host, struct msg_inventory inventory)
{
	struct msg msg = { .kind = MSG_INVENTORY };
	inventory.digest = msg_inventory_digest(&inventory);
	msg.u.inventory = inventory;
	from_agent(host, &msg);
}

static void answer(const char *host, uint64_t id, enum side side, enum step step)
{
	struct msg msg = { .kind = MSG_ANSWER, .migration = id, .generation = 1 };
	msg.u.answer = (struct msg_answer) {
		.step = step, .side = side, .outcome = OUTCOME_DONE, .fingerprint = "aa", .endpoint = "h:1"
	};
	from_agent(host, &msg);
}

static inline void both_answer(uint64_t id, enum step step)
{
	answer("a1", id, SIDE_SOURCE, step);
	answer("b2", id, SIDE_DESTINATION, step);
}

/* ---- the stage ---- */

static int begin(void **state)
{
	(void)state;
	struct err err;
	struct settings settings;
	char path[700];
	snprintf(folder, sizeof(folder), "/tmp/test_api_XXXXXX");
	if (!mkdtemp(folder) || paths_init(&paths, folder, NULL) < 0 || paths_make(&paths, NULL) < 0)
		return -1;
	log_level_set((enum log_level)0);
	test_now_ms = 1000000;
	test_wall_jump_ms = 0;
	if (keys_generate(&paths, "coordinator", ROLE_COORDINATOR, NULL, &err) != 0)
		fail_msg("%s", err.text);
	snprintf(path, sizeof(path), "%s/coordinator.conf", paths.etc);
	FILE *file = fopen(path, "w");
	fprintf(file, "listen = 'ipc://%s/run/c.sock'\nmax-per-source = 2\n", folder);
	fclose(file);
	if (settings_load(&paths, NULL, &settings, &err) != 0 || !(loop = loop_new(&err)) ||
	    coordinator_new(&c, loop, &paths, &settings, &test_clock, &err) != 0)
		fail_msg("%s", err.text);
	host_hello("a1", "east", "boot1");
	host_hello("b2", "west", "boot1");
	host_heartbeat("a1");
	host_heartbeat("b2");
	struct msg_inventory inventory = an_inventory();
	struct msg_vm vms[] = { a_vm(1, "web"), a_vm(2, "db"), a_vm(3, "twin"), a_vm(4, "off"), a_vm(5, "odd") };
	vms[3].state = VM_HALTED;
	snprintf(vms[4].disks[0].sr, LIMIT_NAME, "special");
	snprintf(vms[4].nics[0].bridge, LIMIT_NAME, "dmz");
	inventory.vms = vms;
	inventory.vm_count = 5;
	host_inventory("a1", inventory);
	struct msg_vm twin = a_vm(9, "twin");
	inventory.vms = &twin;
	inventory.vm_count = 1;
	host_inventory("b2", inventory);
	return 0;
}

static int end(void **state)
{
	char command[128];
	(void)state;
	coordinator_free(c);
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static struct msg_reply reply;
static json_t *doc;

static json_t *ask(const struct bus_peer *peer, const struct msg_request *request)
{
	json_decref(doc);
	doc = NULL;
	assert_true(api_answer(c, peer, 1, request, &reply));
	if (reply.json)
		doc = json_loads(reply.json, 0, NULL);
	assert_non_null(doc);
	free(reply.json);
	return doc;
}

/* The answer to a question that is answered later, with what is known now. */
static inline json_t *ask_later(const struct bus_peer *peer, const struct msg_request *request)
{
	json_decref(doc);
	doc = NULL;
	assert_false(api_answer(c, peer, 1, request, &reply));
	assert_non_null(c->leftovers[0]);
	api_leftovers_reply(c, c->leftovers[0], &reply);
	doc = json_loads(reply.json, 0, NULL);
	assert_non_null(doc);
	free(reply.json);
	leftovers_free(c);
	return doc;
}

static struct msg_request a_request(enum verb verb)
{
	return (struct msg_request) { .verb = verb, .keep_source_s = -1, .keep_copy_s = -1 };
}

static struct msg_request a_migrate(const char *vm, const char *to)
{
	struct msg_request request = a_request(VERB_MIGRATE);
	snprintf(request.vm, sizeof(request.vm), "%s", vm);
	snprintf(request.to, sizeof(request.to), "%s", to);
	return request;
}

static uint64_t id_of(json_t *object)
{
	return (uint64_t)json_integer_value(json_object_get(object, "id"));
}

static const char *text_of(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

static inline void refused(const struct msg_request *request, enum err_code code, uint32_t exit_code)
{
	struct msg_request list = a_request(VERB_LIST);
	list.all = 1;
	size_t before = json_array_size(json_object_get(ask(&operator, & list), "migrations"));
	ask(&operator, request);
	if (reply.code != code || reply.exit_code != exit_code)
		fail_msg("%s, exit %u, %s", err_name(reply.code), reply.exit_code, reply.text);
	assert_string_equal(text_of(json_object_get(doc, "error"), "code"), err_name(code));
	assert_true(reply.text[0]);
	assert_int_equal(json_array_size(json_object_get(ask(&operator, & list), "migrations")), before);
}

#endif
