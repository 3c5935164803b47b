/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sample messages of every kind for the tests of proto/ and for the fuzzer's corpus: with everything that can be said
 * in them, and with no more than must be. Made in zeroed memory, so that equal messages are equal bytes.
 */
#ifndef DROVER_MSG_SAMPLES_H
#define DROVER_MSG_SAMPLES_H

#include <stdio.h>
#include <string.h>

#include "proto/msg.h"

#define SAMPLE_FINGERPRINT "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* What a full sample points to. */
struct sample_lists {
	struct msg_vm vms[2];
	struct msg_session sessions[2];
	struct msg_plan plan;
	struct msg_holding holdings[2];
	char json[64];
};

static inline void sample_text(char *place, const char *text)
{
	memcpy(place, text, strlen(text) + 1);
}

static inline void sample_disk(struct msg_disk *disk, unsigned number)
{
	snprintf(disk->name, sizeof(disk->name), "xvd%c", 'a' + number % 26);
	sample_text(disk->sr, "fast");
	disk->format = number % 2 == 0 ? FORMAT_QCOW2 : FORMAT_RAW;
	disk->size_bytes = UINT64_C(10) << 30;
	disk->allocated_bytes = UINT64_C(3) << 30;
	disk->read_only = 1;
}

static inline void sample_vm(struct msg_vm *vm, unsigned number)
{
	for (size_t i = 0; i < sizeof(vm->uuid); i++)
		vm->uuid[i] = (unsigned char)(number * 16 + i + 1);
	snprintf(vm->name, sizeof(vm->name), "web%u – größer", number);
	vm->state = VM_HALTED;
	vm->memory_bytes = UINT64_C(256) << 20;
	vm->vcpus = 4;
	vm->disk_count = 2;
	sample_disk(&vm->disks[0], 0);
	sample_disk(&vm->disks[1], 1);
	vm->nic_count = 1;
	sample_text(vm->nics[0].mac, "00:16:3e:aa:bb:cc");
	sample_text(vm->nics[0].bridge, "xenbr0");
	snprintf(vm->refusal, sizeof(vm->refusal), "it has a device of this host");
}

static inline void sample_inventory(struct msg_inventory *inv, struct sample_lists *lists)
{
	inv->digest = UINT64_MAX;
	inv->memory_bytes = UINT64_C(64) << 30;
	inv->memory_free_bytes = UINT64_C(32) << 30;
	sample_text(inv->hypervisor, "sim");
	sample_text(inv->software, "0.1.0");
	inv->sr_count = 1;
	sample_text(inv->srs[0].name, "fast");
	sample_text(inv->srs[0].type, "dir");
	inv->srs[0].format = FORMAT_QCOW2;
	inv->srs[0].size_bytes = UINT64_C(1) << 40;
	inv->srs[0].free_bytes = UINT64_C(1) << 39;
	inv->network_count = 2;
	sample_text(inv->networks[0], "xenbr0");
	sample_text(inv->networks[1], "xenbr1");
	inv->vm_count = 2;
	inv->vms = lists->vms;
	sample_vm(&lists->vms[0], 0);
	sample_vm(&lists->vms[1], 1);
}

static inline void sample_plan(struct msg_plan *plan)
{
	sample_vm(&plan->vm, 3);
	sample_text(plan->new_name, "web3");
	sample_text(plan->source, "a1");
	sample_text(plan->destination, "b2");
	sample_disk(&plan->to[0], 0);
	sample_disk(&plan->to[1], 1);
	sample_text(plan->to[0].sr, "slow");
	sample_text(plan->bridges[0], "xenbr7");
	plan->max_downtime_ms = 300;
	plan->bandwidth_bps = UINT64_C(50) << 20;
	plan->on_slow = ON_SLOW_ABORT;
	plan->timeout_s = 3600;
	plan->keep_source_s = 86400;
	plan->dry_run = 1;
	plan->keep_copy_s = 3600;
	plan->take_source = 1;
}

static inline void sample_facts(struct verdict_facts *facts)
{
	facts->vote[PARTY_COORDINATOR] = VOTE_ABORT;
	facts->vote[PARTY_SOURCE] = VOTE_COMMIT;
	facts->vote[PARTY_DESTINATION] = VOTE_COMMIT;
	facts->suspended = facts->stream_ended = facts->resumed = facts->released = true;
	facts->activating = facts->running = facts->renounced = true;
	facts->ruling = VOTE_ABORT;
}

static inline void sample_cause(struct err *cause)
{
	cause->code = ERR_NO_SPACE;
	sample_text(cause->text, "prepare on b2: no space in SR fast (need 20 GiB, free 4 GiB)");
}

static inline void sample_session(struct msg_session *session, uint64_t migration)
{
	session->migration = migration;
	session->generation = 2;
	session->side = SIDE_DESTINATION;
	session->phase = PHASE_ROLLED_BACK;
	sample_facts(&session->facts);
	sample_cause(&session->cause);
	session->kept_until_wall_ms = UINT64_C(1800000000000);
	session->budget = (struct msg_budget) { 100, 1, 2, 3, 4, 5, 6 };
}

static inline void sample_answer(struct msg_answer *answer)
{
	answer->step = STEP_CHECK;
	answer->side = SIDE_SOURCE;
	answer->outcome = OUTCOME_REFUSED;
	sample_cause(&answer->cause);
	sample_text(answer->fingerprint, SAMPLE_FINGERPRINT);
	sample_text(answer->endpoint, "[fd00::1]:49152");
	answer->check_count = 2;
	sample_text(answer->checks[0].name, "memory");
	answer->checks[0].ok = 1;
	sample_text(answer->checks[0].text, "2 GiB free");
	sample_text(answer->checks[1].name, "space local");
	answer->checks[1].ok = 1;
	sample_text(answer->checks[1].text, "plenty");
	sample_session(&answer->session, 17);
}

static inline void sample_progress(struct msg_progress *progress)
{
	sample_text(progress->phase, "disk");
	progress->pass = 1;
	progress->bytes_total = progress->bytes_done = progress->bytes_left = UINT64_C(5) << 30;
	progress->rate_bps = progress->dirty_bps = progress->eta_ms = progress->wire_bytes = 1000;
	progress->throttle_percent = 60;
	progress->memory_total_bytes = progress->memory_sent_bytes = progress->memory_dirty_bytes = 4096;
	progress->memory_pass = 3;
	progress->disk_count = 1;
	sample_text(progress->disks[0].name, "xvda");
	progress->disks[0].size_bytes = progress->disks[0].copied_bytes = 65536;
	progress->disks[0].zero_bytes = progress->disks[0].left_bytes = 65536;
	progress->disks[0].pass = 2;
	progress->disks[0].reused_bytes = 131072;
}

static inline void sample_map(struct msg_map *map, const char *from, const char *to)
{
	sample_text(map->from, from);
	sample_text(map->to, to);
}

static inline void sample_request(struct msg_request *request)
{
	request->verb = VERB_MIGRATE;
	sample_text(request->vm, "web3");
	sample_text(request->host, "a1");
	sample_text(request->id, "17");
	sample_text(request->state, "copying");
	request->all = 1;
	request->after = 4711;
	sample_text(request->to, "b2");
	sample_text(request->pool, "blue");
	sample_text(request->new_name, "web4");
	sample_text(request->key, "ticket-1");
	request->disk_map_count = request->sr_map_count = request->network_map_count = 1;
	sample_map(&request->disk_map[0], "xvda", "fast");
	sample_map(&request->sr_map[0], "local", "slow");
	sample_map(&request->network_map[0], "xenbr0", "xenbr1");
	request->max_downtime_ms = 300;
	request->bandwidth_bps = 1 << 20;
	request->timeout_s = 60;
	request->on_slow = ON_SLOW_FORCE;
	request->keep_source_s = -1;
	request->keep_copy_s = 3600;
	request->priority = -5;
	request->dry_run = 1;
	request->owner = SIDE_DESTINATION;
	sample_text(request->fenced, "a1");
	sample_text(request->reason, "its power supply burnt");
	request->sweep = 1;
}

static inline void sample_holding(struct msg_holding *holding, uint64_t migration)
{
	holding->kind = HOLDING_LEG;
	holding->state = HOLDING_KEPT;
	holding->migration = migration;
	holding->generation = 2;
	sample_text(holding->name, "xvda");
	sample_text(holding->path, "/srv/vms/0f0f.xvda.17.raw");
	holding->kept_until_wall_ms = UINT64_C(1800000000000);
	holding->swept = 1;
	sample_text(holding->error, "remove: permission denied");
}

static inline void sample_holdings(struct msg_holdings *holdings, struct sample_lists *lists)
{
	holdings->sweep = holdings->cut = 1;
	sample_cause(&holdings->cause);
	holdings->count = 2;
	holdings->list = lists->holdings;
	sample_holding(&lists->holdings[0], 17);
	sample_holding(&lists->holdings[1], 18);
}

static inline void sample_hello(struct msg_hello *hello)
{
	hello->version_min = 1;
	hello->version_max = 3;
	sample_text(hello->software, "0.1.0");
	sample_text(hello->host, "a1");
	sample_text(hello->pool, "blue");
	sample_text(hello->boot_id, "7d2c0f4e-0000-4000-8000-0123456789ab");
	sample_text(hello->journal_id, "deadbeef");
	hello->max_epoch = 9;
}

static inline void sample_command(struct msg_command *command, struct sample_lists *lists)
{
	command->step = STEP_PREPARE;
	command->side = SIDE_DESTINATION;
	command->plan = &lists->plan;
	sample_plan(&lists->plan);
	sample_text(command->peer_fingerprint, SAMPLE_FINGERPRINT);
	sample_text(command->peer_endpoint, "b2.example:49152");
	command->reason = ERR_CANCELLED;
	sample_text(command->reason_text, "the operator asked for it");
}

static inline void sample_envelope(struct msg *msg, enum msg_kind kind)
{
	memset(msg, 0, sizeof(*msg));
	msg->version = PROTOCOL_VERSION;
	msg->epoch = 3;
	msg->migration = 17;
	msg->generation = 2;
	msg->sequence = 99;
	msg->kind = kind;
}

/* Everything that can be said in a message of this kind. */
static inline void sample_full(struct msg *msg, enum msg_kind kind, struct sample_lists *lists)
{
	memset(lists, 0, sizeof(*lists));
	sample_envelope(msg, kind);
	switch (kind) {
	case MSG_HELLO:
		sample_hello(&msg->u.hello);
		break;
	case MSG_WELCOME:
		msg->u.welcome.version = PROTOCOL_VERSION;
		sample_text(msg->u.welcome.cluster_id, "c0ffee");
		sample_text(msg->u.welcome.software, "0.1.0");
		msg->u.welcome.heartbeat_ms = 1000;
		break;
	case MSG_HEARTBEAT:
		msg->u.heartbeat.inventory_digest = UINT64_MAX - 1;
		msg->u.heartbeat.leftovers = 2;
		msg->u.heartbeat.session_count = 2;
		msg->u.heartbeat.sessions = lists->sessions;
		sample_cause(&msg->u.heartbeat.trouble);
		sample_session(&lists->sessions[0], 17);
		sample_session(&lists->sessions[1], 18);
		break;
	case MSG_HEARTBEAT_ACK:
		msg->u.heartbeat_ack.want_inventory = 1;
		msg->u.heartbeat_ack.heartbeat_ms = 1500;
		break;
	case MSG_INVENTORY:
		sample_inventory(&msg->u.inventory, lists);
		break;
	case MSG_COMMAND:
		sample_command(&msg->u.command, lists);
		break;
	case MSG_ANSWER:
		sample_answer(&msg->u.answer);
		break;
	case MSG_REPORT:
		sample_session(&msg->u.report, 17);
		break;
	case MSG_PROGRESS:
		sample_progress(&msg->u.progress);
		break;
	case MSG_FACTS:
		sample_facts(&msg->u.facts);
		break;
	case MSG_REQUEST:
		sample_request(&msg->u.request);
		break;
	case MSG_REPLY:
		msg->u.reply.code = ERR_UNKNOWN_VM;
		sample_text(msg->u.reply.text, "migrate web9: no such VM");
		msg->u.reply.exit_code = 2;
		sample_text(lists->json, "{\n\t\"migrations\": []\r\n}\n");
		msg->u.reply.json = lists->json;
		break;
	case MSG_ERROR:
		sample_cause(&msg->u.error);
		break;
	case MSG_SURVEY:
		msg->u.survey.sweep = 1;
		msg->u.survey.over_count = 2;
		msg->u.survey.over[0] = (struct msg_over) { 17, OVER_ABORTED };
		msg->u.survey.over[1] = (struct msg_over) { 18, OVER_UNKNOWN };
		break;
	case MSG_HOLDINGS:
		sample_holdings(&msg->u.holdings, lists);
		break;
	case MSG_KINDS:
		break;
	}
}

/* No more than must be said. */
static inline void sample_minimal(struct msg *msg, enum msg_kind kind)
{
	sample_envelope(msg, kind);
	msg->epoch = msg->sequence = 0;
	switch (kind) {
	case MSG_HELLO:
		msg->u.hello.version_min = msg->u.hello.version_max = 1;
		break;
	case MSG_WELCOME:
		msg->u.welcome.version = PROTOCOL_VERSION;
		msg->u.welcome.heartbeat_ms = 1;
		break;
	case MSG_COMMAND:
		msg->u.command.step = STEP_SWITCH;
		msg->u.command.side = SIDE_SOURCE;
		break;
	case MSG_ANSWER:
		msg->u.answer.step = STEP_FORGET;
		msg->u.answer.side = SIDE_SOURCE;
		msg->u.answer.outcome = OUTCOME_DONE;
		break;
	case MSG_REPORT:
		msg->u.report.migration = 17;
		msg->u.report.generation = 2;
		msg->u.report.side = SIDE_SOURCE;
		break;
	case MSG_REQUEST:
		msg->u.request.verb = VERB_STATUS;
		break;
	case MSG_ERROR:
		msg->u.error.code = ERR_VERSION;
		break;
	case MSG_PROGRESS:
	case MSG_FACTS:
		break;
	case MSG_HEARTBEAT:
	case MSG_HEARTBEAT_ACK:
	case MSG_INVENTORY:
	case MSG_REPLY:
	case MSG_SURVEY:
	case MSG_HOLDINGS:
	case MSG_KINDS: /* nothing is required of these, not even a migration */
		msg->migration = 0;
		msg->generation = 0;
		break;
	}
}

#endif
