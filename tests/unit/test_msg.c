/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Messages there and back: every kind, full and minimal; plans and inventories on their own; digests; names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <xxhash.h>

#include "proto/codec_shape.h"
#include "tests/unit/msg_samples.h"

struct frame {
	void *bytes;
	size_t count;
};

static struct frame encode(const struct msg *msg)
{
	struct frame frame = { 0 };
	struct err err = { 0 };
	if (msg_encode(msg, &frame.bytes, &frame.count, &err) != 0)
		fail_msg("%s: %s", msg_kind_name(msg->kind), err.text);
	return frame;
}

static void decode(struct frame frame, struct msg *ret_msg)
{
	struct err err = { 0 };
	if (msg_decode(frame.bytes, frame.count, ret_msg, &err) != 0)
		fail_msg("%s", err.text);
}

/* Bytes of lists are compared and the pointers then forgotten, so that the rest can be compared as bytes. */
static void compare_and_cut(void *a, void *b, size_t pointer_offset, size_t bytes)
{
	void *one, *two, *none = NULL;
	memcpy(&one, (char *)a + pointer_offset, sizeof(one));
	memcpy(&two, (char *)b + pointer_offset, sizeof(two));
	if (bytes == 0) {
		assert_true((one == NULL) == (two == NULL));
	} else {
		assert_non_null(two);
		assert_true(one != two);
		assert_memory_equal(one, two, bytes);
	}
	memcpy((char *)a + pointer_offset, &none, sizeof(none));
	memcpy((char *)b + pointer_offset, &none, sizeof(none));
}

static void assert_same(struct msg sent, struct msg got)
{
	assert_int_equal(sent.kind, got.kind);
	if (sent.kind == MSG_HEARTBEAT)
		compare_and_cut(&sent, &got, offsetof(struct msg, u.heartbeat.sessions),
		                sent.u.heartbeat.session_count * sizeof(struct msg_session));
	if (sent.kind == MSG_INVENTORY)
		compare_and_cut(&sent, &got, offsetof(struct msg, u.inventory.vms),
		                sent.u.inventory.vm_count * sizeof(struct msg_vm));
	if (sent.kind == MSG_COMMAND)
		compare_and_cut(&sent, &got, offsetof(struct msg, u.command.plan),
		                sent.u.command.plan == NULL ? 0 : sizeof(struct msg_plan));
	if (sent.kind == MSG_REPLY)
		compare_and_cut(&sent, &got, offsetof(struct msg, u.reply.json),
		                sent.u.reply.json == NULL ? 0 : strlen(sent.u.reply.json) + 1);
	if (sent.kind == MSG_HOLDINGS)
		compare_and_cut(&sent, &got, offsetof(struct msg, u.holdings.list),
		                sent.u.holdings.count * sizeof(struct msg_holding));
	assert_memory_equal(&sent, &got, sizeof(sent));
}

static void there_and_back(const struct msg *msg)
{
	struct msg got;
	struct frame first = encode(msg);
	memset(&got, 0xee, sizeof(got));
	decode(first, &got);
	assert_same(*msg, got);
	struct frame second = encode(&got);
	assert_int_equal(first.count, second.count);
	assert_memory_equal(first.bytes, second.bytes, first.count);
	msg_free(&got);
	free(first.bytes);
	free(second.bytes);
}

static void round_trip__every_kind_full__same_struct_and_same_bytes(void **state)
{
	(void)state;
	struct msg msg;
	struct sample_lists lists;
	for (enum msg_kind kind = MSG_HELLO; kind < MSG_KINDS; kind++) {
		sample_full(&msg, kind, &lists);
		there_and_back(&msg);
	}
}

static void round_trip__every_kind_minimal__same_struct_and_same_bytes(void **state)
{
	(void)state;
	struct msg msg;
	for (enum msg_kind kind = MSG_HELLO; kind < MSG_KINDS; kind++) {
		sample_minimal(&msg, kind);
		there_and_back(&msg);
	}
}

static bool is_zero(const void *place, size_t bytes)
{
	const unsigned char *s = place;
	for (size_t i = 0; i < bytes; i++)
		if (s[i] != 0)
			return false;
	return true;
}

/* Bytes that belong to fields, in a struct; fails if one of the fields is zero. */
static void mark_filled(const struct shape *shape, const char *object, const char *name)
{
	for (size_t i = 0; i < shape->field_count; i++) {
		const struct field *field = &shape->fields[i];
		const char *place = object + field->offset;
		if (is_zero(place, 1) && is_zero(place, field->kind == FIELD_U64    ? 8
		                                        : field->kind == FIELD_BOOL ? 1
		                                                                    : 4))
			fail_msg("%s.%s is empty in the full sample", name, field->name);
		if (field->kind == FIELD_HEAP_LIST || field->kind == FIELD_POINTER)
			memcpy(&place, object + field->offset, sizeof(place));
		if (field->shape != NULL)
			mark_filled(field->shape, place, field->name);
	}
}

/* Without this the round trips would say nothing about a field that the samples forgot. */
static void samples__full__leave_no_field_of_any_table_empty(void **state)
{
	(void)state;
	struct msg msg;
	struct sample_lists lists;
	for (enum msg_kind kind = MSG_HELLO; kind < MSG_KINDS; kind++) {
		sample_full(&msg, kind, &lists);
		assert_non_null(shape_of_body(kind));
		mark_filled(&shape_envelope, (const char *)&msg, "envelope");
		mark_filled(shape_of_body(kind), (const char *)&msg.u, msg_kind_name(kind));
	}
}

static size_t field_bytes(const struct field *field)
{
	switch (field->kind) {
	case FIELD_TEXT:
	case FIELD_WORDS:
		return field->size;
	case FIELD_HEAP_TEXT:
	case FIELD_HEAP_LIST:
	case FIELD_POINTER:
		return sizeof(void *);
	case FIELD_UUID:
		return sizeof(uuid_bytes);
	case FIELD_U32:
	case FIELD_S32:
	case FIELD_FLAG:
	case FIELD_ENUM:
		return 4;
	case FIELD_U64:
	case FIELD_S64:
		return 8;
	case FIELD_BOOL:
		return 1;
	case FIELD_STRUCT:
		return field->shape->bytes;
	case FIELD_LIST:
		return field->max * field->shape->bytes;
	case FIELD_TEXT_LIST:
		return field->max * field->size;
	}
	return 0;
}

/* A struct's bytes are all in fields and counts, but for what alignment leaves between them. */
static void check_coverage(const struct shape *shape)
{
	static unsigned char used[sizeof(struct msg)];
	assert_true(shape->bytes <= sizeof(used));
	memset(used, 0, sizeof(used));
	for (size_t i = 0; i < shape->field_count; i++) {
		const struct field *field = &shape->fields[i];
		memset(used + field->offset, 1, field_bytes(field));
		if (field->kind == FIELD_LIST || field->kind == FIELD_HEAP_LIST || field->kind == FIELD_TEXT_LIST)
			memset(used + field->count, 1, sizeof(uint32_t));
	}
	size_t gap = 0;
	for (size_t i = 0; i < shape->bytes; i++) {
		gap = used[i] != 0 ? 0 : gap + 1;
		if (gap >= 8 || (gap >= 4 && i % 8 == 3))
			fail_msg("%zu bytes at %zu of a struct with '%s' are in no table", gap, i,
			         shape->fields[0].name);
	}
	for (size_t i = 0; i < shape->field_count; i++)
		if (shape->fields[i].shape != NULL)
			check_coverage(shape->fields[i].shape);
}

static void tables__every_member_of_every_struct_has_a_row(void **state)
{
	(void)state;
	for (enum msg_kind kind = MSG_HELLO; kind < MSG_KINDS; kind++)
		check_coverage(shape_of_body(kind));
}

/* The bytes of each full sample. They change when a field's number, type or order does, which must not be, and when a
 * field is added to the sample: only then put the new digest here. */
static void format__bytes_of_every_kind__as_they_always_were(void **state)
{
	(void)state;
	static const uint64_t digests[MSG_KINDS] = {
		[MSG_HELLO] = UINT64_C(0xc5dcdf276f8d0a9e),     [MSG_WELCOME] = UINT64_C(0xdbe824e3f9f51563),
		[MSG_HEARTBEAT] = UINT64_C(0xd81765d5a3388bef), [MSG_HEARTBEAT_ACK] = UINT64_C(0x2434a6428fcc13db),
		[MSG_INVENTORY] = UINT64_C(0x2e190f3a13f829fd), [MSG_COMMAND] = UINT64_C(0xe0634d519e6dcb4a),
		[MSG_ANSWER] = UINT64_C(0x77374c81873e9fd5),    [MSG_REPORT] = UINT64_C(0x88f493366d29a522),
		[MSG_PROGRESS] = UINT64_C(0x2f135e2fe6a8300e),  [MSG_FACTS] = UINT64_C(0x99ca42ba99d72231),
		[MSG_REQUEST] = UINT64_C(0xdf970e78745dcde4),   [MSG_REPLY] = UINT64_C(0x42433eb4b1db776e),
		[MSG_ERROR] = UINT64_C(0xd9f16045cb3bb595),     [MSG_SURVEY] = UINT64_C(0xd33b0c12fa4c1ef2),
		[MSG_HOLDINGS] = UINT64_C(0x85cac296c7a2f9ec),
	};
	struct msg msg;
	struct sample_lists lists;
	for (enum msg_kind kind = MSG_HELLO; kind < MSG_KINDS; kind++) {
		sample_full(&msg, kind, &lists);
		struct frame frame = encode(&msg);
		uint64_t digest = XXH3_64bits(frame.bytes, frame.count);
		free(frame.bytes);
		if (digest != digests[kind])
			fail_msg("the bytes of %s have changed: 0x%016llx", msg_kind_name(kind),
			         (unsigned long long)digest);
	}
}

static void decode__spot_checks(void **state)
{
	(void)state;
	struct msg msg, got;
	struct sample_lists lists;
	sample_full(&msg, MSG_COMMAND, &lists);
	struct frame frame = encode(&msg);
	decode(frame, &got);
	assert_int_equal(got.version, 1);
	assert_int_equal(got.migration, 17);
	assert_int_equal(got.sequence, 99);
	assert_string_equal(got.u.command.plan->vm.disks[1].name, "xvdb");
	assert_string_equal(got.u.command.plan->to[0].sr, "slow");
	assert_string_equal(got.u.command.plan->bridges[0], "xenbr7");
	assert_int_equal(got.u.command.plan->vm.uuid[15], 64);
	assert_int_equal(got.u.command.reason, ERR_CANCELLED);
	free(frame.bytes);
	msg_free(&got);
	msg_free(&got); /* harmless */
	assert_null(got.u.command.plan);
	sample_full(&msg, MSG_REQUEST, &lists);
	frame = encode(&msg);
	decode(frame, &got);
	assert_int_equal(got.u.request.keep_source_s, -1);
	assert_int_equal(got.u.request.priority, -5);
	free(frame.bytes);
	msg_free(&got);
}

static void free__zeroed_message__harmless(void **state)
{
	(void)state;
	struct msg msg;
	memset(&msg, 0, sizeof(msg));
	msg_free(&msg);
	struct msg_inventory inv;
	memset(&inv, 0, sizeof(inv));
	msg_inventory_free(&inv);
}

static void encode__empty_json__is_none(void **state)
{
	(void)state;
	struct msg msg, got;
	char nothing[1] = "";
	sample_minimal(&msg, MSG_REPLY);
	msg.u.reply.json = nothing;
	struct frame frame = encode(&msg);
	decode(frame, &got);
	assert_null(got.u.reply.json);
	free(frame.bytes);
	msg_free(&got);
}

/* An error must be reportable whatever the tool that failed has printed. */
static void encode__words_for_people_that_may_not_travel__are_repaired(void **state)
{
	(void)state;
	struct msg msg, got;
	sample_minimal(&msg, MSG_REPORT);
	msg.u.report.cause.code = ERR_EXPORTER;
	sample_text(msg.u.report.cause.text, "tgtd:\n\tsaid \x1b[31mno\x7f gr\xc3\xb6\xc3\x9f"
	                                     "er \xc2\x9b caf\xc3");
	struct frame frame = encode(&msg);
	decode(frame, &got);
	assert_string_equal(got.u.report.cause.text, "tgtd:  said ?[31mno? gr\xc3\xb6\xc3\x9f"
	                                             "er ?? caf?");
	free(frame.bytes);
	msg_free(&got);
}

static void plan__on_its_own__there_and_back(void **state)
{
	(void)state;
	struct msg_plan plan, got;
	struct err err = { 0 };
	void *blob;
	size_t bytes;
	memset(&plan, 0, sizeof(plan));
	sample_plan(&plan);
	assert_int_equal(msg_plan_encode(&plan, &blob, &bytes, &err), 0);
	assert_int_equal(msg_plan_decode(blob, bytes, &got, &err), 0);
	assert_memory_equal(&plan, &got, sizeof(plan));
	assert_int_equal(msg_plan_decode(blob, bytes - 1, &got, &err), -1);
	assert_int_equal(err.code, ERR_PROTOCOL);
	free(blob);
	plan.on_slow = 0;
	assert_int_equal(msg_plan_encode(&plan, &blob, &bytes, &err), -1);
	assert_string_equal(err.text, "plan.on_slow: missing");
}

static void inventory__on_its_own__there_and_back(void **state)
{
	(void)state;
	struct msg_inventory inv, got;
	struct sample_lists lists;
	struct err err = { 0 };
	void *blob;
	size_t bytes;
	memset(&inv, 0, sizeof(inv));
	memset(&lists, 0, sizeof(lists));
	sample_inventory(&inv, &lists);
	assert_int_equal(msg_inventory_encode(&inv, &blob, &bytes, &err), 0);
	assert_int_equal(msg_inventory_decode(blob, bytes, &got, &err), 0);
	assert_int_equal(got.vm_count, 2);
	assert_memory_equal(got.vms, inv.vms, sizeof(lists.vms));
	assert_int_equal(msg_inventory_digest(&inv), msg_inventory_digest(&got));
	msg_inventory_free(&got);
	assert_null(got.vms);
	assert_int_equal(msg_inventory_decode(blob, bytes - 1, &got, NULL), -1);
	free(blob);
}

static void holdings__on_their_own__there_and_back(void **state)
{
	(void)state;
	struct msg msg;
	struct sample_lists lists;
	struct msg_holdings got;
	struct err err = { 0 };
	void *blob;
	size_t bytes;
	sample_full(&msg, MSG_HOLDINGS, &lists);
	assert_int_equal(msg_holdings_encode(&msg.u.holdings, &blob, &bytes, &err), 0);
	assert_int_equal(msg_holdings_decode(blob, bytes, &got, &err), 0);
	assert_int_equal(got.count, 2);
	assert_memory_equal(got.list, lists.holdings, sizeof(lists.holdings));
	assert_int_equal(got.cause.code, ERR_NO_SPACE);
	msg_holdings_free(&got);
	for (size_t n = 0; n < bytes; n++) /* cut anywhere: refused, or a shorter list; never worse */
		if (msg_holdings_decode(blob, n, &got, &err) == 0)
			msg_holdings_free(&got);
	free(blob);
}

static void digest__free_amounts_and_digest_move__stays(void **state)
{
	(void)state;
	struct msg_inventory inv;
	struct sample_lists lists;
	memset(&inv, 0, sizeof(inv));
	memset(&lists, 0, sizeof(lists));
	sample_inventory(&inv, &lists);
	uint64_t before = msg_inventory_digest(&inv);
	inv.digest = 1;
	inv.memory_free_bytes--;
	inv.srs[0].free_bytes--;
	memset(inv.srs[0].type + 5, 'x', 10); /* behind the NUL */
	assert_true(msg_inventory_digest(&inv) == before);
}

static void digest__anything_else_changes__changes(void **state)
{
	(void)state;
	struct msg_inventory inv;
	struct sample_lists lists;
	memset(&inv, 0, sizeof(inv));
	memset(&lists, 0, sizeof(lists));
	sample_inventory(&inv, &lists);
	uint64_t seen[8];
	size_t n = 0;
	seen[n++] = msg_inventory_digest(&inv);
	inv.memory_bytes++;
	seen[n++] = msg_inventory_digest(&inv);
	lists.vms[1].state = VM_RUNNING;
	seen[n++] = msg_inventory_digest(&inv);
	lists.vms[1].disks[1].name[3] = 'q';
	seen[n++] = msg_inventory_digest(&inv);
	lists.vms[0].uuid[7]++;
	seen[n++] = msg_inventory_digest(&inv);
	inv.network_count--;
	seen[n++] = msg_inventory_digest(&inv);
	inv.vm_count--;
	seen[n++] = msg_inventory_digest(&inv);
	lists.vms[0].nics[0].bridge[0] = 'y';
	seen[n++] = msg_inventory_digest(&inv);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			assert_true(seen[i] != seen[j]);
}

/* A text that moves over a border between two fields must not cancel out. */
static void digest__same_letters_in_other_fields__differs(void **state)
{
	(void)state;
	struct msg_inventory one, two;
	memset(&one, 0, sizeof(one));
	memset(&two, 0, sizeof(two));
	sample_text(one.hypervisor, "simx");
	sample_text(two.hypervisor, "sim");
	sample_text(two.software, "x");
	assert_true(msg_inventory_digest(&one) != msg_inventory_digest(&two));
}

static void names__there_and_back(void **state)
{
	(void)state;
	for (enum role role = ROLE_NONE; role < ROLES; role++)
		assert_int_equal(role_from_name(role_name(role)), role);
	for (enum disk_format format = FORMAT_RAW; format <= FORMAT_QCOW2; format++)
		assert_int_equal(disk_format_from_name(disk_format_name(format)), format);
	for (enum on_slow policy = ON_SLOW_WAIT; policy <= ON_SLOW_ABORT; policy++)
		assert_int_equal(on_slow_from_name(on_slow_name(policy)), policy);
	for (enum exporter_kind kind = EXPORTER_NBD; kind <= EXPORTER_ISCSI; kind++)
		assert_int_equal(exporter_from_name(exporter_name(kind)), kind);
	assert_int_equal(role_from_name("king"), ROLE_NONE);
	assert_int_equal(role_from_name(NULL), ROLE_NONE);
	assert_int_equal((int)disk_format_from_name("vhd"), 0);
	assert_int_equal((int)on_slow_from_name("Wait"), 0);
	assert_int_equal((int)exporter_from_name(""), 0);
}

static void names__as_the_documents_say(void **state)
{
	(void)state;
	assert_string_equal(role_name(ROLE_SUBMITTER), "submitter");
	assert_string_equal(side_name(SIDE_DESTINATION), "destination");
	assert_int_equal(party_of(SIDE_SOURCE), PARTY_SOURCE);
	assert_int_equal(party_of(SIDE_DESTINATION), PARTY_DESTINATION);
	assert_string_equal(outcome_name(OUTCOME_REFUSED), "refused");
	assert_string_equal(step_name(STEP_PREPARE), "prepare");
	assert_string_equal(vm_state_name(VM_SUSPENDED), "suspended");
	assert_string_equal(session_phase_name(PHASE_ROLLING_BACK), "rolling-back");
	assert_string_equal(verb_name(VERB_HOST_LIST), "host-list");
	assert_string_equal(msg_kind_name(MSG_HEARTBEAT_ACK), "heartbeat-ack");
	assert_string_equal(msg_kind_name(MSG_HOLDINGS), "holdings");
	assert_string_equal(holding_kind_name(HOLDING_SOURCE_DISK), "source-disk");
	assert_string_equal(over_name(OVER_ABORTED), "aborted");
	assert_int_equal(over_from_name("other"), OVER_OTHER);
	assert_int_equal(over_from_name("otherwise"), 0);
}

static void names__out_of_range__still_a_name(void **state)
{
	(void)state;
	assert_string_equal(role_name((enum role)99), "none");
	assert_string_equal(side_name((enum side)0), "none");
	assert_int_equal(party_of((enum side)7), PARTIES);
	assert_string_equal(outcome_name((enum outcome) - 1), "unknown");
	assert_string_equal(step_name(STEPS), "unknown");
	assert_string_equal(vm_state_name((enum vm_state)0), "unknown");
	assert_string_equal(session_phase_name(PHASES), "unknown");
	assert_string_equal(verb_name((enum verb)0), "unknown");
	assert_string_equal(msg_kind_name(MSG_KINDS), "unknown");
	assert_string_equal(holding_kind_name(HOLDING_KINDS), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip__every_kind_full__same_struct_and_same_bytes),
		cmocka_unit_test(round_trip__every_kind_minimal__same_struct_and_same_bytes),
		cmocka_unit_test(samples__full__leave_no_field_of_any_table_empty),
		cmocka_unit_test(tables__every_member_of_every_struct_has_a_row),
		cmocka_unit_test(format__bytes_of_every_kind__as_they_always_were),
		cmocka_unit_test(decode__spot_checks),
		cmocka_unit_test(free__zeroed_message__harmless),
		cmocka_unit_test(encode__empty_json__is_none),
		cmocka_unit_test(encode__words_for_people_that_may_not_travel__are_repaired),
		cmocka_unit_test(plan__on_its_own__there_and_back),
		cmocka_unit_test(inventory__on_its_own__there_and_back),
		cmocka_unit_test(holdings__on_their_own__there_and_back),
		cmocka_unit_test(digest__free_amounts_and_digest_move__stays),
		cmocka_unit_test(digest__anything_else_changes__changes),
		cmocka_unit_test(digest__same_letters_in_other_fields__differs),
		cmocka_unit_test(names__there_and_back),
		cmocka_unit_test(names__as_the_documents_say),
		cmocka_unit_test(names__out_of_range__still_a_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
