/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tables: every struct of msg.h, how it looks on the wire and what may be in it. */
#include "drover.pb-c.h"

#include "proto/codec_shape.h"

/* `0`, and refuses to compile unless both have the same size (and so copying one to the other is right). */
#define SAME_SIZE(a, b) (0 * sizeof(char[sizeof(a) == sizeof(b) ? 1 : -1]))
#define MEMBER(type, member) (((type *)0)->member)

/* One row each. `pair` is "our struct, protobuf-c's struct"; more initializers may follow. */
#define PLACE(ours, theirs, member) .name = #member, .offset = offsetof(ours, member), .wire = offsetof(theirs, member)
#define TEXT(pair, member, ...) TEXT_ROW(FIELD_TEXT, pair, member, __VA_ARGS__)
#define WORDS(pair, member, ...) TEXT_ROW(FIELD_WORDS, pair, member, __VA_ARGS__)
#define TEXT_ROW(field_kind, ours, theirs, member, ...)                                                        \
	{                                                                                                      \
		.kind = field_kind, PLACE(ours, theirs, member),                                               \
		.size = sizeof(MEMBER(ours, member)) + SAME_SIZE(MEMBER(theirs, member), ProtobufCBinaryData), \
		__VA_ARGS__                                                                                    \
	}
#define NUMBER(field_kind, pair, member, lowest, highest, ...) \
	NUMBER_(field_kind, pair, member, lowest, highest, __VA_ARGS__)
#define NUMBER_(field_kind, ours, theirs, member, lowest, highest, ...)                                           \
	{                                                                                                         \
		.kind = field_kind, PLACE(ours, theirs, member), .min = lowest,                                   \
		.max = (uint64_t)(highest) + SAME_SIZE(MEMBER(ours, member), MEMBER(theirs, member)), __VA_ARGS__ \
	}
#define FLAG(pair, member) FLAG_(FIELD_FLAG, pair, member)
#define BOOL(pair, member) FLAG_(FIELD_BOOL, pair, member)
#define FLAG_(field_kind, ours, theirs, member)                                  \
	{                                                                        \
		.kind = field_kind, PLACE(ours, theirs, member),                 \
		.max = 1 + SAME_SIZE(MEMBER(theirs, member), protobuf_c_boolean) \
	}
#define STRUCT(field_kind, pair, member, of) STRUCT_(field_kind, pair, member, of)
#define STRUCT_(field_kind, ours, theirs, member, of)                           \
	{                                                                       \
		.kind = field_kind, PLACE(ours, theirs, member), .shape = &(of) \
	}
#define LIST(field_kind, pair, member, counter, most, ...) LIST_(field_kind, pair, member, counter, most, __VA_ARGS__)
#define LIST_(field_kind, ours, theirs, member, counter, most, ...)                                \
	{                                                                                          \
		.kind = field_kind, PLACE(ours, theirs, member), .count = offsetof(ours, counter), \
		.wire_count = offsetof(theirs, n_##member), .max = most, __VA_ARGS__               \
	}

#define U32 FIELD_U32
#define U64 FIELD_U64
#define ROWS(table) .fields = (table), .field_count = sizeof(table) / sizeof((table)[0])
#define REQUIRED .min = 1
#define OPTIONAL .min = 0

#define DISK struct msg_disk, Drover__Disk
static const struct field disk_fields[] = {
	TEXT(DISK, name, OPTIONAL), /* required by rule_disk(); a plan's target may do without */
	TEXT(DISK, sr, OPTIONAL),
	NUMBER(FIELD_ENUM, DISK, format, 1, FORMAT_QCOW2),
	NUMBER(U64, DISK, size_bytes, 0, CODEC_MAX_BYTES),
	NUMBER(U64, DISK, allocated_bytes, 0, CODEC_MAX_BYTES),
	FLAG(DISK, read_only),
};
static const struct shape shape_disk = { sizeof(struct msg_disk), &drover__disk__descriptor, ROWS(disk_fields),
	                                 .rule = rule_disk };
static const struct shape shape_target = { sizeof(struct msg_disk), &drover__disk__descriptor, ROWS(disk_fields) };

#define NIC struct msg_nic, Drover__Nic
static const struct field nic_fields[] = {
	TEXT(NIC, mac, REQUIRED, .form = FORM_MAC),
	TEXT(NIC, bridge, OPTIONAL),
};
static const struct shape shape_nic = { sizeof(struct msg_nic), &drover__nic__descriptor, ROWS(nic_fields) };

#define VM struct msg_vm, Drover__Vm
static const struct field vm_fields[] = {
	{ .kind = FIELD_UUID,
	  .name = "uuid",
	  .offset = offsetof(struct msg_vm, uuid),
	  .wire = offsetof(Drover__Vm, uuid) },
	TEXT(VM, name, REQUIRED),
	NUMBER(FIELD_ENUM, VM, state, 1, VM_HALTED),
	NUMBER(U64, VM, memory_bytes, 0, CODEC_MAX_BYTES),
	NUMBER(U32, VM, vcpus, 0, CODEC_MAX_VCPUS),
	LIST(FIELD_LIST, VM, disks, disk_count, LIMIT_DISKS, .shape = &shape_disk),
	LIST(FIELD_LIST, VM, nics, nic_count, LIMIT_NICS, .shape = &shape_nic),
	WORDS(VM, refusal, OPTIONAL),
};
static const struct shape shape_vm = { sizeof(struct msg_vm), &drover__vm__descriptor, ROWS(vm_fields),
	                               .rule = rule_vm };

#define SR struct msg_sr, Drover__Sr
static const struct field sr_fields[] = {
	TEXT(SR, name, REQUIRED),
	TEXT(SR, type, OPTIONAL),
	NUMBER(FIELD_ENUM, SR, format, 1, FORMAT_QCOW2),
	NUMBER(U64, SR, size_bytes, 0, CODEC_MAX_BYTES),
	NUMBER(U64, SR, free_bytes, 0, CODEC_MAX_BYTES, .moves = true),
};
static const struct shape shape_sr = { sizeof(struct msg_sr), &drover__sr__descriptor, ROWS(sr_fields) };

#define INVENTORY struct msg_inventory, Drover__Inventory
static const struct field inventory_fields[] = {
	NUMBER(U64, INVENTORY, digest, 0, UINT64_MAX, .moves = true),
	NUMBER(U64, INVENTORY, memory_bytes, 0, CODEC_MAX_BYTES),
	NUMBER(U64, INVENTORY, memory_free_bytes, 0, CODEC_MAX_BYTES, .moves = true),
	TEXT(INVENTORY, hypervisor, OPTIONAL),
	TEXT(INVENTORY, software, OPTIONAL),
	LIST(FIELD_LIST, INVENTORY, srs, sr_count, LIMIT_SRS, .shape = &shape_sr),
	LIST(FIELD_TEXT_LIST, INVENTORY, networks, network_count, LIMIT_NETWORKS, .size = LIMIT_NAME, REQUIRED),
	LIST(FIELD_HEAP_LIST, INVENTORY, vms, vm_count, LIMIT_VMS, .shape = &shape_vm),
};
const struct shape shape_inventory = { sizeof(struct msg_inventory), &drover__inventory__descriptor,
	                               ROWS(inventory_fields) };

#define HELLO struct msg_hello, Drover__Hello
static const struct field hello_fields[] = {
	NUMBER(U32, HELLO, version_min, 1, UINT32_MAX),
	NUMBER(U32, HELLO, version_max, 1, UINT32_MAX),
	TEXT(HELLO, software, OPTIONAL),
	TEXT(HELLO, host, OPTIONAL),
	TEXT(HELLO, pool, OPTIONAL),
	TEXT(HELLO, boot_id, OPTIONAL),
	TEXT(HELLO, journal_id, OPTIONAL),
	NUMBER(U64, HELLO, max_epoch, 0, CODEC_MAX_NUMBER),
};
static const struct shape shape_hello = { sizeof(struct msg_hello), &drover__hello__descriptor, ROWS(hello_fields),
	                                  .rule = rule_hello };

#define WELCOME struct msg_welcome, Drover__Welcome
static const struct field welcome_fields[] = {
	NUMBER(U32, WELCOME, version, 1, UINT32_MAX),
	TEXT(WELCOME, cluster_id, OPTIONAL),
	TEXT(WELCOME, software, OPTIONAL),
	NUMBER(U32, WELCOME, heartbeat_ms, 1, CODEC_MAX_HEARTBEAT_MS),
};
static const struct shape shape_welcome = { sizeof(struct msg_welcome), &drover__welcome__descriptor,
	                                    ROWS(welcome_fields), .rule = rule_welcome };

#define ERROR struct err, Drover__Error
static const struct field error_fields[] = {
	NUMBER(FIELD_ENUM, ERROR, code, 0, ERR_CODES - 1),
	WORDS(ERROR, text, OPTIONAL),
};
static const struct shape shape_cause = { sizeof(struct err), &drover__error__descriptor, ROWS(error_fields) };
static const struct shape shape_error = { sizeof(struct err), &drover__error__descriptor, ROWS(error_fields),
	                                  .rule = rule_error };

#define FACTS struct verdict_facts, Drover__Facts
#define VOTE(theirs, party)                                                                                 \
	{                                                                                                   \
		.kind = FIELD_ENUM, .name = #theirs, .offset = offsetof(struct verdict_facts, vote[party]), \
		.wire = offsetof(Drover__Facts, theirs), .max = VOTE_ABORT                                  \
	}
static const struct field facts_fields[] = {
	VOTE(vote_coordinator, PARTY_COORDINATOR),
	VOTE(vote_source, PARTY_SOURCE),
	VOTE(vote_destination, PARTY_DESTINATION),
	BOOL(FACTS, suspended),
	BOOL(FACTS, stream_ended),
	BOOL(FACTS, resumed),
	BOOL(FACTS, released),
	BOOL(FACTS, activating),
	BOOL(FACTS, running),
	BOOL(FACTS, renounced),
	{ .kind = FIELD_ENUM,
	  .name = "ruling",
	  .offset = offsetof(struct verdict_facts, ruling),
	  .wire = offsetof(Drover__Facts, ruling),
	  .max = VOTE_ABORT },
};
static const struct shape shape_facts = { sizeof(struct verdict_facts), &drover__facts__descriptor,
	                                  ROWS(facts_fields) };

#define BUDGET struct msg_budget, Drover__Budget
static const struct field budget_fields[] = {
	NUMBER(U32, BUDGET, total_ms, 0, UINT32_MAX),        NUMBER(U32, BUDGET, suspend_ms, 0, UINT32_MAX),
	NUMBER(U32, BUDGET, final_memory_ms, 0, UINT32_MAX), NUMBER(U32, BUDGET, final_disk_ms, 0, UINT32_MAX),
	NUMBER(U32, BUDGET, verify_ms, 0, UINT32_MAX),       NUMBER(U32, BUDGET, votes_ms, 0, UINT32_MAX),
	NUMBER(U32, BUDGET, activate_ms, 0, UINT32_MAX),
};
static const struct shape shape_budget = { sizeof(struct msg_budget), &drover__budget__descriptor,
	                                   ROWS(budget_fields) };

#define SESSION struct msg_session, Drover__Session
static const struct field session_fields[] = {
	NUMBER(U64, SESSION, migration, 0, CODEC_MAX_NUMBER),
	NUMBER(U32, SESSION, generation, 0, UINT32_MAX),
	NUMBER(FIELD_ENUM, SESSION, side, 0, SIDE_DESTINATION),
	NUMBER(FIELD_ENUM, SESSION, phase, 0, PHASES - 1),
	STRUCT(FIELD_STRUCT, SESSION, facts, shape_facts),
	STRUCT(FIELD_STRUCT, SESSION, cause, shape_cause),
	NUMBER(U64, SESSION, kept_until_wall_ms, 0, CODEC_MAX_NUMBER),
	STRUCT(FIELD_STRUCT, SESSION, budget, shape_budget),
};
static const struct shape shape_session = { sizeof(struct msg_session), &drover__session__descriptor,
	                                    ROWS(session_fields), .rule = rule_session };
static const struct shape shape_session_or_none = { sizeof(struct msg_session), &drover__session__descriptor,
	                                            ROWS(session_fields), .rule = rule_session_or_none };

#define HEARTBEAT struct msg_heartbeat, Drover__Heartbeat
static const struct field heartbeat_fields[] = {
	NUMBER(U64, HEARTBEAT, inventory_digest, 0, UINT64_MAX),
	LIST(FIELD_HEAP_LIST, HEARTBEAT, sessions, session_count, LIMIT_SESSIONS, .shape = &shape_session),
	NUMBER(U32, HEARTBEAT, leftovers, 0, UINT32_MAX),
	STRUCT(FIELD_STRUCT, HEARTBEAT, trouble, shape_cause),
};
static const struct shape shape_heartbeat = { sizeof(struct msg_heartbeat), &drover__heartbeat__descriptor,
	                                      ROWS(heartbeat_fields) };

#define HEARTBEAT_ACK struct msg_heartbeat_ack, Drover__HeartbeatAck
static const struct field heartbeat_ack_fields[] = {
	NUMBER(U32, HEARTBEAT_ACK, heartbeat_ms, 0, CODEC_MAX_HEARTBEAT_MS),
	FLAG(HEARTBEAT_ACK, want_inventory),
};
static const struct shape shape_heartbeat_ack = { sizeof(struct msg_heartbeat_ack), &drover__heartbeat_ack__descriptor,
	                                          ROWS(heartbeat_ack_fields) };

#define PLAN struct msg_plan, Drover__Plan
static const struct field plan_fields[] = {
	STRUCT(FIELD_STRUCT, PLAN, vm, shape_vm), /* before the lists that are as long as the VM's */
	TEXT(PLAN, new_name, OPTIONAL),           /* empty: as it is called now */
	TEXT(PLAN, source, REQUIRED),
	TEXT(PLAN, destination, REQUIRED),
	LIST(FIELD_LIST, PLAN, to, vm.disk_count, LIMIT_DISKS, .shape = &shape_target, .as_many_as = "vm.disks"),
	LIST(FIELD_TEXT_LIST, PLAN, bridges, vm.nic_count, LIMIT_NICS, .size = LIMIT_NAME, .as_many_as = "vm.nics"),
	NUMBER(U32, PLAN, max_downtime_ms, 0, UINT32_MAX),
	NUMBER(U64, PLAN, bandwidth_bps, 0, CODEC_MAX_BYTES),
	NUMBER(FIELD_ENUM, PLAN, on_slow, 1, ON_SLOW_ABORT),
	NUMBER(U32, PLAN, timeout_s, 0, CODEC_MAX_SECONDS),
	NUMBER(U64, PLAN, keep_source_s, 0, CODEC_MAX_SECONDS),
	FLAG(PLAN, dry_run),
	NUMBER(U64, PLAN, keep_copy_s, 0, CODEC_MAX_SECONDS),
	FLAG(PLAN, take_source),
};
const struct shape shape_plan = { sizeof(struct msg_plan), &drover__plan__descriptor, ROWS(plan_fields),
	                          .rule = rule_plan };

#define COMMAND struct msg_command, Drover__Command
static const struct field command_fields[] = {
	NUMBER(FIELD_ENUM, COMMAND, step, 1, STEPS - 1),
	NUMBER(FIELD_ENUM, COMMAND, side, 1, SIDE_DESTINATION),
	STRUCT(FIELD_POINTER, COMMAND, plan, shape_plan),
	TEXT(COMMAND, peer_fingerprint, OPTIONAL, .form = FORM_FINGERPRINT),
	TEXT(COMMAND, peer_endpoint, OPTIONAL, .form = FORM_ENDPOINT),
	NUMBER(FIELD_ENUM, COMMAND, reason, 0, ERR_CODES - 1),
	WORDS(COMMAND, reason_text, OPTIONAL),
};
static const struct shape shape_command = { sizeof(struct msg_command), &drover__command__descriptor,
	                                    ROWS(command_fields), .rule = rule_command };

#define CHECK struct msg_check, Drover__Check
static const struct field check_fields[] = {
	TEXT(CHECK, name, REQUIRED),
	FLAG(CHECK, ok),
	WORDS(CHECK, text, OPTIONAL),
};
static const struct shape shape_one_check = { sizeof(struct msg_check), &drover__check__descriptor,
	                                      ROWS(check_fields) };

#define ANSWER struct msg_answer, Drover__Answer
static const struct field answer_fields[] = {
	NUMBER(FIELD_ENUM, ANSWER, step, 1, STEPS - 1),
	NUMBER(FIELD_ENUM, ANSWER, side, 1, SIDE_DESTINATION),
	NUMBER(FIELD_ENUM, ANSWER, outcome, 1, OUTCOME_REFUSED), /* UNKNOWN never travels */
	STRUCT(FIELD_STRUCT, ANSWER, cause, shape_cause),
	TEXT(ANSWER, fingerprint, OPTIONAL, .form = FORM_FINGERPRINT),
	TEXT(ANSWER, endpoint, OPTIONAL, .form = FORM_ENDPOINT),
	LIST(FIELD_LIST, ANSWER, checks, check_count, LIMIT_CHECKS, .shape = &shape_one_check),
	STRUCT(FIELD_STRUCT, ANSWER, session, shape_session_or_none),
};
static const struct shape shape_answer = { sizeof(struct msg_answer), &drover__answer__descriptor, ROWS(answer_fields),
	                                   .rule = rule_answer };

#define DISK_PROGRESS struct msg_disk_progress, Drover__DiskProgress
static const struct field disk_progress_fields[] = {
	TEXT(DISK_PROGRESS, name, REQUIRED),
	NUMBER(U64, DISK_PROGRESS, size_bytes, 0, CODEC_MAX_BYTES),
	NUMBER(U64, DISK_PROGRESS, copied_bytes, 0, CODEC_MAX_NUMBER),
	NUMBER(U64, DISK_PROGRESS, zero_bytes, 0, CODEC_MAX_NUMBER),
	NUMBER(U64, DISK_PROGRESS, left_bytes, 0, CODEC_MAX_NUMBER),
	NUMBER(U32, DISK_PROGRESS, pass, 0, UINT32_MAX),
	NUMBER(U64, DISK_PROGRESS, reused_bytes, 0, CODEC_MAX_NUMBER),
};
static const struct shape shape_disk_progress = { sizeof(struct msg_disk_progress), &drover__disk_progress__descriptor,
	                                          ROWS(disk_progress_fields) };

#define PROGRESS struct msg_progress, Drover__Progress
static const struct field progress_fields[] = {
	TEXT(PROGRESS, phase, OPTIONAL),
	NUMBER(U32, PROGRESS, pass, 0, UINT32_MAX),
	NUMBER(U64, PROGRESS, bytes_total, 0, CODEC_MAX_NUMBER),
	NUMBER(U64, PROGRESS, bytes_done, 0, CODEC_MAX_NUMBER),
	NUMBER(U64, PROGRESS, bytes_left, 0, CODEC_MAX_NUMBER),
	NUMBER(U64, PROGRESS, rate_bps, 0, CODEC_MAX_NUMBER),
	NUMBER(U64, PROGRESS, dirty_bps, 0, CODEC_MAX_NUMBER),
	NUMBER(U64, PROGRESS, eta_ms, 0, CODEC_MAX_NUMBER),
	NUMBER(U64, PROGRESS, wire_bytes, 0, CODEC_MAX_NUMBER),
	NUMBER(U32, PROGRESS, throttle_percent, 0, 100),
	NUMBER(U64, PROGRESS, memory_total_bytes, 0, CODEC_MAX_BYTES),
	NUMBER(U64, PROGRESS, memory_sent_bytes, 0, CODEC_MAX_NUMBER),
	NUMBER(U64, PROGRESS, memory_dirty_bytes, 0, CODEC_MAX_NUMBER),
	NUMBER(U32, PROGRESS, memory_pass, 0, UINT32_MAX),
	LIST(FIELD_LIST, PROGRESS, disks, disk_count, LIMIT_DISKS, .shape = &shape_disk_progress),
};
static const struct shape shape_progress = { sizeof(struct msg_progress), &drover__progress__descriptor,
	                                     ROWS(progress_fields), .rule = rule_progress };

#define OVER struct msg_over, Drover__Over
static const struct field over_fields[] = {
	NUMBER(U64, OVER, migration, 1, CODEC_MAX_NUMBER),
	NUMBER(FIELD_ENUM, OVER, over, 1, OVERS - 1),
};
static const struct shape shape_over = { sizeof(struct msg_over), &drover__over__descriptor, ROWS(over_fields) };

#define SURVEY struct msg_survey, Drover__Survey
static const struct field survey_fields[] = {
	FLAG(SURVEY, sweep),
	LIST(FIELD_LIST, SURVEY, over, over_count, LIMIT_HOLDINGS, .shape = &shape_over),
};
static const struct shape shape_survey = { sizeof(struct msg_survey), &drover__survey__descriptor,
	                                   ROWS(survey_fields) };

#define HOLDING struct msg_holding, Drover__Holding
static const struct field holding_fields[] = {
	NUMBER(FIELD_ENUM, HOLDING, kind, 1, HOLDING_KINDS - 1),
	NUMBER(FIELD_ENUM, HOLDING, state, 1, HOLDING_STATES - 1),
	NUMBER(U64, HOLDING, migration, 0, CODEC_MAX_NUMBER),
	NUMBER(U32, HOLDING, generation, 0, UINT32_MAX),
	WORDS(HOLDING, name, OPTIONAL), /* names and paths are what is there: what may not travel in them is replaced */
	WORDS(HOLDING, path, OPTIONAL),
	NUMBER(U64, HOLDING, kept_until_wall_ms, 0, CODEC_MAX_NUMBER),
	FLAG(HOLDING, swept),
	WORDS(HOLDING, error, OPTIONAL),
};
static const struct shape shape_holding = { sizeof(struct msg_holding), &drover__holding__descriptor,
	                                    ROWS(holding_fields) };

#define HOLDINGS struct msg_holdings, Drover__Holdings
static const struct field holdings_fields[] = {
	FLAG(HOLDINGS, sweep),
	FLAG(HOLDINGS, cut),
	STRUCT(FIELD_STRUCT, HOLDINGS, cause, shape_cause),
	LIST(FIELD_HEAP_LIST, HOLDINGS, list, count, LIMIT_HOLDINGS, .shape = &shape_holding),
};
const struct shape shape_holdings = { sizeof(struct msg_holdings), &drover__holdings__descriptor,
	                              ROWS(holdings_fields) };

#define MAP struct msg_map, Drover__Map
static const struct field map_fields[] = {
	TEXT(MAP, from, REQUIRED),
	TEXT(MAP, to, REQUIRED),
};
static const struct shape shape_map = { sizeof(struct msg_map), &drover__map__descriptor, ROWS(map_fields) };

#define REQUEST struct msg_request, Drover__Request
static const struct field request_fields[] = {
	NUMBER(FIELD_ENUM, REQUEST, verb, 1, VERBS - 1),
	TEXT(REQUEST, vm, OPTIONAL),
	TEXT(REQUEST, host, OPTIONAL),
	TEXT(REQUEST, id, OPTIONAL),
	TEXT(REQUEST, state, OPTIONAL),
	FLAG(REQUEST, all),
	NUMBER(U64, REQUEST, after, 0, CODEC_MAX_NUMBER),
	TEXT(REQUEST, to, OPTIONAL),
	TEXT(REQUEST, pool, OPTIONAL),
	TEXT(REQUEST, new_name, OPTIONAL),
	TEXT(REQUEST, key, OPTIONAL),
	LIST(FIELD_LIST, REQUEST, disk_map, disk_map_count, LIMIT_MAPS, .shape = &shape_map),
	LIST(FIELD_LIST, REQUEST, sr_map, sr_map_count, LIMIT_MAPS, .shape = &shape_map),
	LIST(FIELD_LIST, REQUEST, network_map, network_map_count, LIMIT_MAPS, .shape = &shape_map),
	NUMBER(U32, REQUEST, max_downtime_ms, 0, UINT32_MAX),
	NUMBER(U64, REQUEST, bandwidth_bps, 0, CODEC_MAX_BYTES),
	NUMBER(U32, REQUEST, timeout_s, 0, CODEC_MAX_SECONDS),
	NUMBER(FIELD_ENUM, REQUEST, on_slow, 0, ON_SLOW_ABORT),
	NUMBER(FIELD_S64, REQUEST, keep_source_s, -1, CODEC_MAX_SECONDS),
	NUMBER(FIELD_S64, REQUEST, keep_copy_s, -1, CODEC_MAX_SECONDS),
	NUMBER(FIELD_S32, REQUEST, priority, INT32_MIN, INT32_MAX),
	FLAG(REQUEST, dry_run),
	NUMBER(FIELD_ENUM, REQUEST, owner, 0, SIDE_DESTINATION),
	TEXT(REQUEST, fenced, OPTIONAL),
	TEXT(REQUEST, reason, OPTIONAL),
	FLAG(REQUEST, sweep),
};
static const struct shape shape_request = { sizeof(struct msg_request), &drover__request__descriptor,
	                                    ROWS(request_fields) };

#define REPLY struct msg_reply, Drover__Reply
static const struct field reply_fields[] = {
	NUMBER(FIELD_ENUM, REPLY, code, 0, ERR_CODES - 1),
	WORDS(REPLY, text, OPTIONAL),
	NUMBER(U32, REPLY, exit_code, 0, CODEC_MAX_EXIT_CODE),
	{ .kind = FIELD_HEAP_TEXT,
	  .name = "json",
	  .offset = offsetof(struct msg_reply, json),
	  .wire = offsetof(Drover__Reply, json),
	  .max = LIMIT_JSON_BYTES },
};
static const struct shape shape_reply = { sizeof(struct msg_reply), &drover__reply__descriptor, ROWS(reply_fields) };

#define ENVELOPE struct msg, Drover__Envelope
static const struct field envelope_fields[] = {
	NUMBER(U32, ENVELOPE, version, 0, UINT32_MAX), /* rule_version() */
	NUMBER(U64, ENVELOPE, epoch, 0, CODEC_MAX_NUMBER), NUMBER(U64, ENVELOPE, migration, 0, CODEC_MAX_NUMBER),
	NUMBER(U32, ENVELOPE, generation, 0, UINT32_MAX),  NUMBER(U64, ENVELOPE, sequence, 0, CODEC_MAX_NUMBER),
};
const struct shape shape_envelope = { sizeof(struct msg), &drover__envelope__descriptor, ROWS(envelope_fields) };

const struct shape *shape_of_body(enum msg_kind kind)
{
	static const struct shape *const bodies[MSG_KINDS] = {
		[MSG_HELLO] = &shape_hello,         [MSG_WELCOME] = &shape_welcome,
		[MSG_HEARTBEAT] = &shape_heartbeat, [MSG_HEARTBEAT_ACK] = &shape_heartbeat_ack,
		[MSG_INVENTORY] = &shape_inventory, [MSG_COMMAND] = &shape_command,
		[MSG_ANSWER] = &shape_answer,       [MSG_REPORT] = &shape_session,
		[MSG_PROGRESS] = &shape_progress,   [MSG_FACTS] = &shape_facts,
		[MSG_REQUEST] = &shape_request,     [MSG_REPLY] = &shape_reply,
		[MSG_ERROR] = &shape_error,         [MSG_SURVEY] = &shape_survey,
		[MSG_HOLDINGS] = &shape_holdings,
	};
	return (unsigned)kind < MSG_KINDS ? bodies[kind] : NULL;
}
