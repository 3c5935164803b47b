/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every limit at the bound and one past: by the tables for what is sent, and by hand-made frames for what comes in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/codec_shape.h"
#include "tests/unit/msg_samples.h"
#include "tests/unit/wire_writer.h"

/* ---- sending: each field of each table ---- */

struct probe {
	struct msg msg;
	struct sample_lists lists;
	unsigned accepted, refused;
};

static bool encodes(const struct msg *msg, struct err *err)
{
	void *frame;
	size_t bytes;
	err_clear(err);
	if (msg_encode(msg, &frame, &bytes, err) != 0)
		return false;
	struct msg got;
	if (msg_decode(frame, bytes, &got, err) != 0)
		fail_msg("was sent, but cannot be read: %s", err->text);
	msg_free(&got);
	free(frame);
	return true;
}

static void expect_refused(struct probe *probe, const char *path)
{
	struct err err;
	if (encodes(&probe->msg, &err))
		fail_msg("%s: one past its bound was sent", path);
	assert_int_equal(err.code, ERR_PROTOCOL);
	if (strncmp(err.text, path, strlen(path)) != 0 || err.text[strlen(path)] != ':')
		fail_msg("'%s' does not name %s", err.text, path);
	probe->refused++;
}

/* Other fields may forbid this field's highest value; then the words say why, and these are known. */
static void expect_accepted(struct probe *probe, const char *path)
{
	static const char *const tied[] = {
		"hello.version_min",       "welcome.version", "report.migration",
		"report.generation",       "command.step",    "command.plan.vm.disks[0].name",
		"command.plan.to[0].name", "version"
	};
	struct err err;
	if (encodes(&probe->msg, &err)) {
		probe->accepted++;
		return;
	}
	for (size_t i = 0; i < sizeof(tied) / sizeof(tied[0]); i++)
		if (strcmp(path, tied[i]) == 0)
			return;
	if (strcmp(path, "migration") == 0 || strcmp(path, "generation") == 0) {
		assert_int_equal(probe->msg.kind, MSG_REPORT);
		return;
	}
	fail_msg("%s at its bound: %s", path, err.text);
}

static void probe_number(struct probe *probe, const struct field *field, char *place, size_t bytes, const char *path)
{
	unsigned char before[8];
	uint64_t highest = field->max, past = highest + 1;
	memcpy(before, place, bytes);
	memcpy(place, &highest, bytes); /* little-endian, as every host of ours */
	expect_accepted(probe, path);
	if (highest != (bytes == 8 ? UINT64_MAX : field->kind == FIELD_S32 ? INT32_MAX : UINT32_MAX)) {
		memcpy(place, &past, bytes);
		expect_refused(probe, path);
	}
	if (field->min == 1) {
		memset(place, 0, bytes);
		expect_refused(probe, path);
	}
	if (field->kind == FIELD_S64) {
		int64_t lowest = field->min, below = lowest - 1;
		memcpy(place, &lowest, bytes);
		expect_accepted(probe, path);
		memcpy(place, &below, bytes);
		expect_refused(probe, path);
	}
	memcpy(place, before, bytes);
}

static void probe_text(struct probe *probe, const struct field *field, char *text, const char *path)
{
	static char before[LIMIT_TEXT];
	memcpy(before, text, field->size);
	memset(text, 'a', field->size);
	expect_refused(probe, path);
	if (field->form == FORM_ANY) {
		text[field->size - 1] = '\0';
		expect_accepted(probe, path);
	} else {
		sample_text(text, "nonsense");
		expect_refused(probe, path);
	}
	if (field->kind == FIELD_TEXT) {
		static const char *const bad[] = { "a\nb", "a\tb",    "\x7f",        "a\xc2\x80",
			                           "\xff", "caf\xc3", "\xed\xa0\x80" };
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			sample_text(text, bad[i]);
			expect_refused(probe, path);
		}
	}
	if (field->min == 1) {
		text[0] = '\0';
		expect_refused(probe, path);
	}
	memcpy(text, before, field->size);
}

static void probe_shape(struct probe *probe, const struct shape *shape, char *object, const char *path);

static void probe_list(struct probe *probe, const struct field *field, char *object, char *entries, const char *path)
{
	uint32_t before, past = (uint32_t)field->max + 1;
	char entry[256], fixed[256];
	memcpy(&before, object + field->count, sizeof(before));
	memcpy(object + field->count, &past, sizeof(past));
	/* a list that is as long as another: the other one's fault */
	size_t parent = strlen(path) - strlen(field->name);
	snprintf(fixed, sizeof(fixed), "%.*s%s", (int)parent, path,
	         field->as_many_as != NULL ? field->as_many_as : field->name);
	expect_refused(probe, fixed);
	memcpy(object + field->count, &before, sizeof(before));
	assert_true(before > 0);
	snprintf(entry, sizeof(entry), "%s[0]", path);
	if (field->shape != NULL)
		probe_shape(probe, field->shape, entries, entry);
	else
		probe_text(probe, field, entries, entry);
}

static void probe_field(struct probe *probe, const struct field *field, char *object, const char *path)
{
	char *place = object + field->offset, *pointer;
	memcpy(&pointer, place, field->kind == FIELD_BOOL || field->shape == NULL ? 0 : sizeof(pointer));
	switch (field->kind) {
	case FIELD_TEXT:
	case FIELD_WORDS:
		probe_text(probe, field, place, path);
		return;
	case FIELD_U32:
	case FIELD_S32:
	case FIELD_FLAG:
	case FIELD_ENUM:
		probe_number(probe, field, place, 4, path);
		return;
	case FIELD_U64:
	case FIELD_S64:
		probe_number(probe, field, place, 8, path);
		return;
	case FIELD_STRUCT:
		probe_shape(probe, field->shape, place, path);
		return;
	case FIELD_POINTER:
		probe_shape(probe, field->shape, pointer, path);
		return;
	case FIELD_LIST:
	case FIELD_TEXT_LIST:
		probe_list(probe, field, object, place, path);
		return;
	case FIELD_HEAP_LIST:
		probe_list(probe, field, object, pointer, path);
		return;
	case FIELD_BOOL:
	case FIELD_UUID:
	case FIELD_HEAP_TEXT:
		return; /* tests of their own */
	}
}

static void probe_shape(struct probe *probe, const struct shape *shape, char *object, const char *path)
{
	for (size_t i = 0; i < shape->field_count; i++) {
		char here[256];
		snprintf(here, sizeof(here), "%s%s%s", path, path[0] == '\0' ? "" : ".", shape->fields[i].name);
		probe_field(probe, &shape->fields[i], object, here);
	}
}

static void sending__every_field_one_past_its_bound__refused_by_name(void **state)
{
	(void)state;
	static struct probe probe;
	for (enum msg_kind kind = MSG_HELLO; kind < MSG_KINDS; kind++) {
		sample_full(&probe.msg, kind, &probe.lists);
		probe_shape(&probe, shape_of_body(kind), (char *)&probe.msg.u, msg_kind_name(kind));
		for (size_t i = 1; i < shape_envelope.field_count; i++) /* 0: the version, below */
			probe_field(&probe, &shape_envelope.fields[i], (char *)&probe.msg,
			            shape_envelope.fields[i].name);
	}
	assert_true(probe.refused > 500); /* the walk did walk */
	assert_true(probe.accepted > 200);
}

static void sending__uuid_missing__refused(void **state)
{
	(void)state;
	struct msg msg;
	struct sample_lists lists;
	struct err err;
	sample_full(&msg, MSG_INVENTORY, &lists);
	memset(lists.vms[1].uuid, 0, sizeof(uuid_bytes));
	assert_false(encodes(&msg, &err));
	assert_string_equal(err.text, "inventory.vms[1].uuid: missing");
}

static void sending__json_at_limit_fits_one_past_is_refused(void **state)
{
	(void)state;
	struct msg msg;
	struct err err;
	char *json = calloc(1, LIMIT_JSON_BYTES + 2);
	assert_non_null(json);
	memset(json, 'x', LIMIT_JSON_BYTES);
	sample_minimal(&msg, MSG_REPLY);
	memset(msg.u.reply.text, 'x', sizeof(msg.u.reply.text) - 1);
	msg.u.reply.json = json;
	assert_true(encodes(&msg, &err));
	json[LIMIT_JSON_BYTES] = 'x';
	assert_false(encodes(&msg, &err));
	assert_string_equal(err.text, "reply.json: more than 196608 bytes");
	sample_text(json, "{\x01}");
	assert_false(encodes(&msg, &err));
	assert_string_equal(err.text, "reply.json: a control character inside");
	free(json);
}

static void sending__lists_at_their_limits__accepted(void **state)
{
	(void)state;
	struct msg msg;
	struct err err;
	struct sample_lists lists;
	sample_full(&msg, MSG_ANSWER, &lists);
	for (msg.u.answer.check_count = 2; msg.u.answer.check_count < LIMIT_CHECKS; msg.u.answer.check_count++)
		msg.u.answer.checks[msg.u.answer.check_count] = msg.u.answer.checks[0];
	assert_true(encodes(&msg, &err));
	sample_full(&msg, MSG_PROGRESS, &lists);
	for (uint32_t i = 1; i < LIMIT_DISKS; i++) {
		msg.u.progress.disks[i] = msg.u.progress.disks[0];
		snprintf(msg.u.progress.disks[i].name, LIMIT_NAME, "disk%u", i);
	}
	msg.u.progress.disk_count = LIMIT_DISKS;
	assert_true(encodes(&msg, &err));
	sample_full(&msg, MSG_REQUEST, &lists);
	for (uint32_t i = 1; i < LIMIT_MAPS; i++)
		msg.u.request.disk_map[i] = msg.u.request.sr_map[i] = msg.u.request.network_map[i] =
			msg.u.request.sr_map[0];
	msg.u.request.disk_map_count = msg.u.request.sr_map_count = msg.u.request.network_map_count = LIMIT_MAPS;
	assert_true(encodes(&msg, &err));
	struct msg_session *sessions = calloc(LIMIT_SESSIONS, sizeof(*sessions));
	assert_non_null(sessions);
	sample_full(&msg, MSG_HEARTBEAT, &lists);
	msg.u.heartbeat.sessions = sessions;
	msg.u.heartbeat.session_count = LIMIT_SESSIONS;
	for (size_t i = 0; i < LIMIT_SESSIONS; i++) {
		sessions[i] = lists.sessions[0];
		memset(sessions[i].cause.text, 'x', sizeof(sessions[i].cause.text) - 1);
	}
	assert_true(encodes(&msg, &err));
	free(sessions);
	sample_full(&msg, MSG_SURVEY, &lists);
	for (uint32_t i = 0; i < LIMIT_HOLDINGS; i++)
		msg.u.survey.over[i] = (struct msg_over) { INT64_MAX - i, OVER_OTHER };
	msg.u.survey.over_count = LIMIT_HOLDINGS;
	assert_true(encodes(&msg, &err));
	struct msg_holding *holdings = calloc(LIMIT_HOLDINGS, sizeof(*holdings));
	assert_non_null(holdings);
	sample_full(&msg, MSG_HOLDINGS, &lists);
	msg.u.holdings.list = holdings;
	msg.u.holdings.count = LIMIT_HOLDINGS;
	for (size_t i = 0; i < LIMIT_HOLDINGS; i++) {
		holdings[i] = lists.holdings[0];
		memset(holdings[i].name, 'x', sizeof(holdings[i].name) - 1);
		memset(holdings[i].path, 'x', sizeof(holdings[i].path) - 1);
		memset(holdings[i].error, 'x', sizeof(holdings[i].error) - 1);
	}
	assert_true(encodes(&msg, &err)); /* all of them at their longest fit one frame */
	free(holdings);
}

static void fill_vm(struct msg_vm *vm)
{
	for (uint32_t i = 0; i < LIMIT_DISKS; i++) {
		vm->disks[i] = vm->disks[0];
		snprintf(vm->disks[i].name, LIMIT_NAME, "xvd%c", 'a' + (char)i);
	}
	for (uint32_t i = 1; i < LIMIT_NICS; i++)
		vm->nics[i] = vm->nics[0];
	vm->disk_count = LIMIT_DISKS;
	vm->nic_count = LIMIT_NICS;
}

static void sending__host_and_plan_at_their_limits__accepted(void **state)
{
	(void)state;
	struct msg msg;
	struct err err;
	struct sample_lists lists;
	sample_full(&msg, MSG_COMMAND, &lists);
	fill_vm(&lists.plan.vm);
	for (uint32_t i = 0; i < LIMIT_DISKS; i++)
		lists.plan.to[i] = lists.plan.vm.disks[i];
	assert_true(encodes(&msg, &err));
	sample_full(&msg, MSG_INVENTORY, &lists);
	for (uint32_t i = 0; i < LIMIT_SRS; i++)
		msg.u.inventory.srs[i] = msg.u.inventory.srs[0];
	for (uint32_t i = 0; i < LIMIT_NETWORKS; i++)
		memset(msg.u.inventory.networks[i], 'x', LIMIT_NAME - 1);
	msg.u.inventory.sr_count = LIMIT_SRS;
	msg.u.inventory.network_count = LIMIT_NETWORKS;
	struct msg_vm *vms = calloc(LIMIT_VMS, sizeof(*vms));
	assert_non_null(vms);
	fill_vm(&lists.vms[0]);
	for (uint32_t i = 0; i < LIMIT_VMS; i++) {
		vms[i] = lists.vms[i < 100 ? 0 : 1];
		vms[i].name[0] = (char)('a' + i % 26);
	}
	msg.u.inventory.vms = vms;
	msg.u.inventory.vm_count = LIMIT_VMS;
	assert_true(encodes(&msg, &err));
	/* All of them full at once is more than a frame carries: said, not cut off. */
	for (uint32_t i = 0; i < LIMIT_VMS; i++) {
		vms[i] = lists.vms[0];
		for (uint32_t d = 0; d < LIMIT_DISKS; d++)
			memset(vms[i].disks[d].sr, 'x', LIMIT_NAME - 1);
	}
	assert_false(encodes(&msg, &err));
	assert_int_equal(err.code, ERR_PROTOCOL);
	assert_memory_equal(err.text, "frame: ", 7);
	free(vms);
}

/* ---- coming in ---- */

static struct wire body, inner, frame;

static void expect(enum msg_kind kind, const char *words)
{
	struct msg msg;
	struct err err = { 0 };
	wire_envelope(&frame, 1, kind, &body);
	int rc = msg_decode(frame.bytes, frame.count, &msg, &err);
	if (words == NULL) {
		if (rc != 0)
			fail_msg("%s", err.text);
		msg_free(&msg);
		return;
	}
	assert_int_equal(rc, -1);
	assert_string_equal(err.text, words);
	assert_int_equal(err.code, ERR_PROTOCOL);
}

static void hello_with_host(const void *host, size_t bytes)
{
	body.count = 0;
	wire_number(&body, 1, 1);
	wire_number(&body, 2, 1);
	wire_bytes(&body, 4, host, bytes);
}

static void receiving__text_at_bound_and_one_past(void **state)
{
	(void)state;
	char name[LIMIT_NAME + 20];
	memset(name, 'h', sizeof(name));
	hello_with_host(name, 63);
	expect(MSG_HELLO, NULL);
	hello_with_host(name, 64);
	expect(MSG_HELLO, "hello.host: 64 bytes, at most 63");
	hello_with_host(name, 80);
	expect(MSG_HELLO, "hello.host: 80 bytes, at most 63");
}

static void vm_inner(void)
{
	inner.count = 0;
	wire_bytes(&inner, 1, "0123456789abcdef", 16);
	wire_text(&inner, 2, "web3");
	wire_number(&inner, 3, 1);
}

static void receiving__uuid_of_other_length__refused(void **state)
{
	(void)state;
	static const struct {
		size_t bytes;
		const char *words;
	} cases[] = { { 16, NULL },
		      { 15, "inventory.vms[0].uuid: 15 bytes, not 16" },
		      { 17, "inventory.vms[0].uuid: 17 bytes, not 16" },
		      { 0, "inventory.vms[0].uuid: missing" } };
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		inner.count = body.count = 0;
		wire_bytes(&inner, 1, "0123456789abcdefg", cases[i].bytes);
		wire_text(&inner, 2, "web3");
		wire_number(&inner, 3, 1);
		wire_message(&body, 8, &inner);
		expect(MSG_INVENTORY, cases[i].words);
	}
}

/* `count` times the same entry, in field `field` of an otherwise good body. */
static void repeat(const struct wire *start, unsigned field, unsigned count)
{
	body = *start;
	for (unsigned i = 0; i < count; i++)
		wire_message(&body, field, &inner);
}

static void receiving__too_many_entries__refused(void **state)
{
	(void)state;
	static struct wire start, outer;
	start.count = 0;
	vm_inner();
	repeat(&start, 8, LIMIT_VMS);
	expect(MSG_INVENTORY, NULL);
	repeat(&start, 8, LIMIT_VMS + 1);
	expect(MSG_INVENTORY, "inventory.vms: 257 entries, at most 256");
	inner.count = 0;
	wire_text(&inner, 1, "fast");
	wire_number(&inner, 3, 1);
	repeat(&start, 6, LIMIT_SRS + 1);
	expect(MSG_INVENTORY, "inventory.srs: 33 entries, at most 32");
	repeat(&start, 7, LIMIT_NETWORKS + 1);
	expect(MSG_INVENTORY, "inventory.networks: 65 entries, at most 64");
	vm_inner();
	outer = inner;
	inner.count = 0;
	repeat(&outer, 6, LIMIT_DISKS + 1); /* a VM in `body` */
	inner = body;
	repeat(&start, 8, 1);
	expect(MSG_INVENTORY, "inventory.vms[0].disks: 17 entries, at most 16");
	inner.count = 0;
	repeat(&outer, 7, LIMIT_NICS + 1);
	inner = body;
	repeat(&start, 8, 1);
	expect(MSG_INVENTORY, "inventory.vms[0].nics: 9 entries, at most 8");
	inner.count = 0;
	repeat(&start, 2, LIMIT_SESSIONS + 1);
	expect(MSG_HEARTBEAT, "heartbeat.sessions: 65 entries, at most 64");
	repeat(&start, 15, LIMIT_DISKS + 1);
	expect(MSG_PROGRESS, "progress.disks: 17 entries, at most 16");
	repeat(&start, 7, LIMIT_CHECKS + 1);
	expect(MSG_ANSWER, "answer.checks: 33 entries, at most 32");
	repeat(&start, 12, LIMIT_MAPS + 1);
	expect(MSG_REQUEST, "request.disk_map: 33 entries, at most 32");
	repeat(&start, 14, LIMIT_MAPS + 1);
	expect(MSG_REQUEST, "request.network_map: 33 entries, at most 32");
}

static void receiving__numbers_one_past__refused(void **state)
{
	(void)state;
	body.count = 0;
	wire_number(&body, 2, UINT64_C(1) << 50);
	expect(MSG_INVENTORY, NULL);
	body.count = 0;
	wire_number(&body, 2, (UINT64_C(1) << 50) + 1);
	expect(MSG_INVENTORY, "inventory.memory_bytes: 1125899906842625, at most 1125899906842624");
	body.count = 0;
	wire_number(&body, 10, 101);
	expect(MSG_PROGRESS, "progress.throttle_percent: 101, at most 100");
	body.count = 0;
	wire_number(&body, 1, 1);
	wire_number(&body, 19, 3); /* zigzag: -2 */
	expect(MSG_REQUEST, "request.keep_source_s: -2, at least -1");
}

static void receiving__frame_over_its_limit__refused_unread(void **state)
{
	(void)state;
	struct msg msg;
	struct err err = { 0 };
	unsigned char *bytes = calloc(1, 1); /* one byte, so that reading further would be seen */
	assert_non_null(bytes);
	assert_int_equal(msg_decode(bytes, LIMIT_FRAME_BYTES + 1, &msg, &err), -1);
	assert_string_equal(err.text, "frame: 262145 bytes, at most 262144");
	assert_int_equal(msg_decode(bytes, SIZE_MAX, &msg, &err), -1);
	struct msg_plan plan;
	assert_int_equal(msg_plan_decode(bytes, LIMIT_FRAME_BYTES + 1, &plan, &err), -1);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sending__every_field_one_past_its_bound__refused_by_name),
		cmocka_unit_test(sending__uuid_missing__refused),
		cmocka_unit_test(sending__json_at_limit_fits_one_past_is_refused),
		cmocka_unit_test(sending__lists_at_their_limits__accepted),
		cmocka_unit_test(sending__host_and_plan_at_their_limits__accepted),
		cmocka_unit_test(receiving__text_at_bound_and_one_past),
		cmocka_unit_test(receiving__uuid_of_other_length__refused),
		cmocka_unit_test(receiving__too_many_entries__refused),
		cmocka_unit_test(receiving__numbers_one_past__refused),
		cmocka_unit_test(receiving__frame_over_its_limit__refused_unread),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
