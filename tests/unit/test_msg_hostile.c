/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Frames that no sender of ours would send: cut, flipped, inflated, of another version, with what must not be in them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/codec_arena.h"
#include "proto/codec_shape.h"
#include "tests/unit/msg_samples.h"
#include "tests/unit/wire_writer.h"

static struct wire body, inner, frame;

static void refused(const char *words)
{
	struct msg msg;
	struct err err = { 0 };
	if (msg_decode(frame.bytes, frame.count, &msg, &err) == 0)
		fail_msg("accepted, should say: %s", words);
	assert_string_equal(err.text, words);
}

static void accepted(struct msg *ret_msg)
{
	struct err err = { 0 };
	if (msg_decode(frame.bytes, frame.count, ret_msg, &err) != 0)
		fail_msg("%s", err.text);
}

static void start_hello(void)
{
	body.count = 0;
	wire_number(&body, 1, 1);
	wire_number(&body, 2, 1);
}

/* Decodes from a copy of exactly that size, so that a sanitizer sees every byte read beyond it. What is accepted must
 * be fit to be sent again. */
static bool digest_exactly(const unsigned char *bytes, size_t count)
{
	unsigned char *copy = malloc(count == 0 ? 1 : count);
	assert_non_null(copy);
	memcpy(copy, bytes, count);
	struct msg msg;
	struct err err = { 0 };
	int rc = msg_decode(copy, count, &msg, &err);
	free(copy);
	if (rc != 0) {
		assert_true(err.code == ERR_PROTOCOL || err.code == ERR_VERSION);
		assert_true(err.text[0] != '\0');
		return false;
	}
	void *again;
	size_t again_bytes;
	if (msg_encode(&msg, &again, &again_bytes, &err) != 0)
		fail_msg("was read, but cannot be sent: %s", err.text);
	free(again);
	msg_free(&msg);
	return true;
}

static void cut__at_every_byte__never_more_than_refused(void **state)
{
	(void)state;
	struct msg msg;
	struct sample_lists lists;
	unsigned refusals = 0;
	for (enum msg_kind kind = MSG_HELLO; kind < MSG_KINDS; kind++) {
		void *bytes;
		size_t count;
		sample_full(&msg, kind, &lists);
		assert_int_equal(msg_encode(&msg, &bytes, &count, NULL), 0);
		assert_true(digest_exactly(bytes, count));
		for (size_t n = 0; n < count; n++)
			refusals += digest_exactly(bytes, n) ? 0 : 1;
		assert_false(digest_exactly(bytes, count - 1)); /* the body comes last: it is cut */
		free(bytes);
	}
	assert_true(refusals > 1000);
}

static void flipped__every_single_bit__valid_or_refused(void **state)
{
	(void)state;
	struct msg msg;
	struct sample_lists lists;
	unsigned refusals = 0;
	for (enum msg_kind kind = MSG_HELLO; kind < MSG_KINDS; kind++) {
		void *bytes;
		size_t count;
		sample_full(&msg, kind, &lists);
		assert_int_equal(msg_encode(&msg, &bytes, &count, NULL), 0);
		for (size_t bit = 0; bit < count * 8; bit++) {
			unsigned char *byte = (unsigned char *)bytes + bit / 8;
			*byte ^= (unsigned char)(1u << bit % 8);
			refusals += digest_exactly(bytes, count) ? 0 : 1;
			*byte ^= (unsigned char)(1u << bit % 8);
		}
		free(bytes);
	}
	assert_true(refusals > 1000);
}

static void inflated__empty_submessages__refused(void **state)
{
	(void)state;
	/* 64 KiB and a whole frame of them, at each list of the format, one level down and two. */
	static const struct {
		enum msg_kind kind;
		unsigned outer, list; /* outer 0: the list is the body's own */
	} lists[] = { { MSG_INVENTORY, 0, 6 }, { MSG_INVENTORY, 0, 7 }, { MSG_INVENTORY, 0, 8 },
		      { MSG_INVENTORY, 8, 6 }, { MSG_INVENTORY, 8, 7 }, { MSG_HEARTBEAT, 0, 2 },
		      { MSG_ANSWER, 0, 7 },    { MSG_PROGRESS, 0, 15 }, { MSG_REQUEST, 0, 12 },
		      { MSG_COMMAND, 3, 5 },   { MSG_COMMAND, 3, 6 } };
	static const size_t sizes[] = { 64 * 1024, LIMIT_FRAME_BYTES - 64 };
	for (size_t s = 0; s < 2; s++)
		for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
			inner.count = body.count = 0;
			while (inner.count < sizes[s])
				wire_bytes(&inner, lists[i].list, "", 0);
			if (lists[i].outer == 0)
				body = inner;
			else
				wire_message(&body, lists[i].outer, &inner);
			wire_envelope(&frame, 1, lists[i].kind, &body);
			assert_true(frame.count <= LIMIT_FRAME_BYTES);
			assert_false(digest_exactly(frame.bytes, frame.count));
		}
}

static void inflated__a_frame_full_of_empty_vms__hits_the_cap(void **state)
{
	(void)state;
	body.count = 0;
	while (body.count < LIMIT_FRAME_BYTES - 64)
		wire_bytes(&body, 8, "", 0);
	wire_envelope(&frame, 1, MSG_INVENTORY, &body);
	refused("message costs too much memory");
}

static void inflated__unknown_fields__refused_by_the_cap_or_ignored(void **state)
{
	(void)state;
	struct msg msg;
	start_hello();
	while (body.count < 64 * 1024)
		wire_number(&body, 100, 0);
	wire_envelope(&frame, 1, MSG_HELLO, &body);
	accepted(&msg); /* within the cap: unknown fields are how the format grows */
	msg_free(&msg);
	while (body.count < LIMIT_FRAME_BYTES - 64)
		wire_number(&body, 15, 0);
	wire_envelope(&frame, 1, MSG_HELLO, &body);
	refused("message costs too much memory");
}

/* The same body again and again: protobuf merges them, at a price. */
static void inflated__one_body_many_times__refused(void **state)
{
	(void)state;
	frame.count = inner.count = 0;
	wire_number(&frame, 1, 1);
	for (unsigned i = 0; i < 40; i++)
		wire_bytes(&inner, 8, "", 0);
	while (frame.count < LIMIT_FRAME_BYTES - 128)
		wire_message(&frame, 16 + MSG_INVENTORY, &inner);
	assert_false(digest_exactly(frame.bytes, frame.count));
	frame.count = inner.count = body.count = 0; /* and a plan in a plan's place, many times */
	while (body.count < LIMIT_FRAME_BYTES - 128) {
		wire_bytes(&inner, 5, "", 0);
		wire_message(&body, 3, &inner);
	}
	wire_number(&frame, 1, 1);
	wire_message(&frame, 16 + MSG_COMMAND, &body);
	assert_false(digest_exactly(frame.bytes, frame.count));
}

static void arena__never_costs_more_than_its_limit(void **state)
{
	(void)state;
	struct arena arena = { .limit_bytes = 100000 };
	assert_null(arena_alloc(&arena, SIZE_MAX));
	assert_true(arena.refused);
	unsigned count = 0;
	for (size_t bytes = 0; count < 10000; bytes = (bytes * 7 + 13) % 9000, count++) {
		unsigned char *place = arena_alloc(&arena, bytes);
		if (place == NULL)
			break;
		assert_int_equal((uintptr_t)place % 16, 0);
		memset(place, 0xaa, bytes);
		assert_true(arena.cost_bytes <= arena.limit_bytes);
	}
	assert_in_range(count, 10, 1000);
	arena_free(&arena);
	arena_free(&arena);
	assert_int_equal(arena.cost_bytes, 0);
}

/* Wherever protobuf-c is when memory ends, it comes back with a refusal. */
static void arena__ends_anywhere_in_a_big_message__refused(void **state)
{
	(void)state;
	struct msg msg, got;
	struct sample_lists lists;
	struct err err = { 0 };
	void *bytes;
	size_t count, limit = 0;
	unsigned refusals = 0;
	struct msg_vm *vms = calloc(LIMIT_VMS, sizeof(*vms));
	assert_non_null(vms);
	sample_full(&msg, MSG_INVENTORY, &lists);
	for (size_t i = 0; i < LIMIT_VMS; i++)
		vms[i] = lists.vms[0];
	msg.u.inventory.vms = vms;
	msg.u.inventory.vm_count = LIMIT_VMS;
	assert_int_equal(msg_encode(&msg, &bytes, &count, &err), 0);
	for (; limit < LIMIT_DECODE_BYTES / 2; limit += 4000) {
		if (codec_decode(bytes, count, limit, &got, &err) == 0)
			break;
		assert_string_equal(err.text, "message costs too much memory");
		refusals++;
	}
	assert_true(limit < LIMIT_DECODE_BYTES / 2); /* a whole host fits with room to spare */
	assert_in_range(refusals, 20, 500);
	assert_int_equal(got.u.inventory.vm_count, LIMIT_VMS);
	msg_free(&got);
	free(bytes);
	free(vms);
}

static void text__embedded_nul__refused(void **state)
{
	(void)state;
	start_hello();
	wire_bytes(&body, 4, "a1\0b2", 5);
	wire_envelope(&frame, 1, MSG_HELLO, &body);
	refused("hello.host: a NUL inside");
	start_hello();
	wire_bytes(&body, 4, "a1\0", 3); /* at the end too */
	wire_envelope(&frame, 1, MSG_HELLO, &body);
	refused("hello.host: a NUL inside");
	body.count = 0;
	wire_bytes(&body, 4, "{}\0", 3);
	wire_envelope(&frame, 1, MSG_REPLY, &body);
	refused("reply.json: a NUL inside");
	body.count = 0;
	wire_bytes(&body, 7, "xen\0br", 6);
	wire_envelope(&frame, 1, MSG_INVENTORY, &body);
	refused("inventory.networks[0]: a NUL inside");
}

static void text__not_utf8_or_control__refused(void **state)
{
	(void)state;
	static const char *const not_utf8[] = { "\x80",
		                                "a\xff",
		                                "\xc0\x80",
		                                "\xc1\xbf",
		                                "\xe0\x9f\xbf",
		                                "\xed\xa0\x80",
		                                "\xf0\x8f\xbf\xbf",
		                                "\xf4\x90\x80\x80",
		                                "\xf5\x80\x80\x80",
		                                "\xe2\x82",
		                                "\xc3(",
		                                "\xf0\x9f\x98" };
	static const char *const controls[] = { "a\nb", "\r", "\t", "\x1b[2J", "\x7f", "\xc2\x85", "\x01" };
	static const char *const fine[] = {
		"größer", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xc2\xa0", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf", " ", "~"
	};
	for (size_t i = 0; i < sizeof(not_utf8) / sizeof(not_utf8[0]); i++) {
		start_hello();
		wire_text(&body, 5, not_utf8[i]);
		wire_envelope(&frame, 1, MSG_HELLO, &body);
		refused("hello.pool: not UTF-8");
	}
	for (size_t i = 0; i < sizeof(controls) / sizeof(controls[0]); i++) {
		start_hello();
		wire_text(&body, 5, controls[i]);
		wire_envelope(&frame, 1, MSG_HELLO, &body);
		refused("hello.pool: a control character inside");
	}
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
		struct msg msg;
		start_hello();
		wire_text(&body, 5, fine[i]);
		wire_envelope(&frame, 1, MSG_HELLO, &body);
		accepted(&msg);
		assert_string_equal(msg.u.hello.pool, fine[i]);
	}
}

/* Repaired when sent, but a peer that does not is refused: the words end up on somebody's terminal. */
static void text__words_for_people_with_line_ends__refused_when_received(void **state)
{
	(void)state;
	body.count = 0;
	wire_number(&body, 1, ERR_DENIED);
	wire_text(&body, 2, "no\nway");
	wire_envelope(&frame, 1, MSG_ERROR, &body);
	refused("error.text: a control character inside");
}

static void with_form(unsigned kind, unsigned field, const char *text)
{
	body.count = 0;
	wire_number(&body, 1, STEP_COPY);
	wire_number(&body, 2, SIDE_SOURCE);
	if (kind == MSG_ANSWER)
		wire_number(&body, 3, OUTCOME_DONE);
	wire_text(&body, field, text);
	wire_envelope(&frame, 1, kind, &body);
}

static void forms__fingerprints_and_endpoints__as_they_must_be(void **state)
{
	(void)state;
	struct msg msg;
	static const char *const good[] = { "a1:1",     "10.0.0.1:65535",      "b2.example.org:49152",
		                            "[::1]:80", "[fd00::10.0.0.1]:80", "rack_4-b:7" };
	static const char *const bad[] = { "a1",
		                           "a1:",
		                           ":80",
		                           "a1:0",
		                           "a1:65536",
		                           "a1:080",
		                           "a1:99999999999",
		                           "a1:8o",
		                           "::1:80",
		                           "[::1]",
		                           "[::1:80",
		                           "[]:80",
		                           "[g::1]:80",
		                           "[fe80::1%eth0]:80",
		                           "a b:80",
		                           "-a:80",
		                           "a1:80 ",
		                           "a/b:80",
		                           "[10.0.0.1]:80",
		                           "[1:2:3:4:5:6:7:8:9:a:b:c:d:e:f:0:1:2:3:4:5:6:7:8:9:a:b]:80" };
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		with_form(MSG_COMMAND, 5, good[i]);
		accepted(&msg);
		with_form(MSG_ANSWER, 6, good[i]);
		accepted(&msg);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		with_form(MSG_COMMAND, 5, bad[i]);
		refused("command.peer_endpoint: not an endpoint (host:port or [v6]:port)");
	}
	with_form(MSG_COMMAND, 4, SAMPLE_FINGERPRINT);
	accepted(&msg);
	with_form(MSG_COMMAND, 4, SAMPLE_FINGERPRINT "0");
	refused("command.peer_fingerprint: not a fingerprint (64 lower-case hex digits)");
	with_form(MSG_ANSWER, 5, &SAMPLE_FINGERPRINT[1]);
	refused("answer.fingerprint: not a fingerprint (64 lower-case hex digits)");
	with_form(MSG_ANSWER, 5, "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff");
	refused("answer.fingerprint: not a fingerprint (64 lower-case hex digits)");
}

static void start_vm(void)
{
	inner.count = 0;
	wire_bytes(&inner, 1, "0123456789abcdef", 16);
	wire_text(&inner, 2, "web3");
	wire_number(&inner, 3, VM_RUNNING);
}

static void finish_vm(void)
{
	body.count = 0;
	wire_message(&body, 8, &inner);
	wire_envelope(&frame, 1, MSG_INVENTORY, &body);
}

static void forms__mac__as_it_must_be(void **state)
{
	(void)state;
	static const char *const bad[] = { "00:16:3e:aa:bb", "00:16:3e:aa:bb:cg", "00-16-3e-aa-bb-cc",
		                           "0:16:3e:aa:bb:ccc", "00:16:3e:aa:bb:cc:" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		start_vm();
		body.count = 0;
		wire_text(&body, 1, bad[i]);
		wire_message(&inner, 7, &body);
		finish_vm();
		refused("inventory.vms[0].nics[0].mac: not a MAC address (aa:bb:cc:dd:ee:ff)");
	}
}

static void rules__duplicate_disk_names__refused(void **state)
{
	(void)state;
	start_vm();
	for (unsigned i = 0; i < 3; i++) {
		body.count = 0;
		wire_text(&body, 1, i == 1 ? "xvdb" : "xvda");
		wire_number(&body, 3, FORMAT_RAW);
		wire_message(&inner, 6, &body);
	}
	finish_vm();
	refused("inventory.vms[0].disks[2].name: 'xvda' is disks[0] already");
	struct msg msg;
	struct sample_lists lists;
	struct err err = { 0 };
	void *bytes;
	size_t count;
	sample_full(&msg, MSG_PROGRESS, &lists);
	msg.u.progress.disks[1] = msg.u.progress.disks[0];
	msg.u.progress.disk_count = 2;
	assert_int_equal(msg_encode(&msg, &bytes, &count, &err), -1);
	assert_string_equal(err.text, "progress.disks[1].name: 'xvda' is disks[0] already");
}

static void enums__unknown_value__refused(void **state)
{
	(void)state;
	body.count = 0;
	wire_number(&body, 1, VERBS);
	wire_envelope(&frame, 1, MSG_REQUEST, &body);
	refused("request.verb: 17 is no value that is known here");
	body.count = 0;
	wire_number(&body, 1, UINT64_MAX); /* -1 */
	wire_envelope(&frame, 1, MSG_REQUEST, &body);
	refused("request.verb: -1 is no value that is known here");
	body.count = 0;
	wire_number(&body, 2, 3);
	wire_envelope(&frame, 1, MSG_FACTS, &body);
	refused("facts.vote_source: 3 is no value that is known here");
	with_form(MSG_ANSWER, 5, "");
	body.bytes[5] = 0; /* outcome: unknown */
	wire_envelope(&frame, 1, MSG_ANSWER, &body);
	refused("answer.outcome: missing");
}

static void fields__unknown__ignored(void **state)
{
	(void)state;
	struct msg msg;
	start_hello();
	wire_text(&body, 4, "a1");
	wire_text(&body, 77, "from the future");
	wire_number(&body, 78, 1);
	wire_envelope(&frame, 1, MSG_HELLO, &body);
	wire_number(&frame, 12, 5);
	wire_text(&frame, 500, "more of it");
	accepted(&msg);
	assert_string_equal(msg.u.hello.host, "a1");
	void *bytes;
	size_t count;
	assert_int_equal(msg_encode(&msg, &bytes, &count, NULL), 0);
	assert_true(count < frame.count - 20); /* and not passed on */
	free(bytes);
}

static void body__none_or_unknown__refused(void **state)
{
	(void)state;
	frame.count = 0;
	refused("version: 0, we speak 1 to 1");
	wire_number(&frame, 1, 1);
	refused("body: missing, or none that is known here");
	body.count = 0;
	wire_envelope(&frame, 1, MSG_KINDS, &body);
	refused("body: missing, or none that is known here");
	frame.count = 0;
	wire_text(&frame, 1, "no number");
	assert_false(digest_exactly(frame.bytes, frame.count));
}

static void versions__other_than_ours__only_for_hello_and_error(void **state)
{
	(void)state;
	struct msg msg;
	struct err err = { 0 };
	start_hello();
	wire_envelope(&frame, 2, MSG_HELLO, &body);
	accepted(&msg);
	assert_int_equal(msg.version, 2);
	wire_envelope(&frame, UINT32_MAX, MSG_HELLO, &body);
	accepted(&msg);
	wire_envelope(&frame, 0, MSG_HELLO, &body);
	refused("version: 0, we speak 1 to 1");
	body.count = 0;
	wire_number(&body, 1, ERR_VERSION);
	wire_envelope(&frame, 7, MSG_ERROR, &body);
	accepted(&msg);
	body.count = 0;
	wire_number(&body, 1, 99999); /* whatever a later version means by it */
	wire_envelope(&frame, 2, MSG_REQUEST, &body);
	assert_int_equal(msg_decode(frame.bytes, frame.count, &msg, &err), -1);
	assert_int_equal(err.code, ERR_VERSION);
	assert_string_equal(err.text, "version: 2, we speak 1 to 1");
	wire_envelope(&frame, 0, MSG_FACTS, &body);
	assert_int_equal(msg_decode(frame.bytes, frame.count, &msg, &err), -1);
	assert_int_equal(err.code, ERR_VERSION);
	body.count = 0;
	wire_number(&body, 1, 2); /* welcomed to a version that we do not speak */
	wire_number(&body, 4, 1000);
	wire_envelope(&frame, 1, MSG_WELCOME, &body);
	assert_int_equal(msg_decode(frame.bytes, frame.count, &msg, &err), -1);
	assert_int_equal(err.code, ERR_VERSION);
	body.count = 0;
	wire_number(&body, 1, 3);
	wire_number(&body, 2, 2);
	wire_envelope(&frame, 1, MSG_HELLO, &body);
	refused("hello.version_min: 3, above version_max 2");
}

static void sent_refused(const struct msg *msg, const char *words)
{
	struct err err = { 0 };
	void *bytes;
	size_t count;
	assert_int_equal(msg_encode(msg, &bytes, &count, &err), -1);
	assert_string_equal(err.text, words);
}

static void rules__required_by_kind__refused_if_missing(void **state)
{
	(void)state;
	static const enum msg_kind about[] = { MSG_COMMAND, MSG_ANSWER, MSG_REPORT, MSG_PROGRESS, MSG_FACTS };
	struct msg msg;
	for (size_t i = 0; i < sizeof(about) / sizeof(about[0]); i++) {
		sample_minimal(&msg, about[i]);
		msg.migration = 0;
		sent_refused(&msg, "migration: missing");
		msg.migration = 17;
		msg.generation = 0;
		sent_refused(&msg, "generation: missing");
	}
	sample_minimal(&msg, MSG_REPORT);
	msg.u.report.side = 0;
	sent_refused(&msg, "report.side: missing");
	sample_minimal(&msg, MSG_REPORT);
	msg.generation = 1;
	sent_refused(&msg, "report: about migration 17 generation 2, but the envelope says 17, 1");
	sample_minimal(&msg, MSG_ANSWER);
	msg.u.answer.outcome = OUTCOME_REFUSED;
	sent_refused(&msg, "answer.cause.code: missing in a refusal");
	sample_minimal(&msg, MSG_ANSWER);
	msg.u.answer.session.phase = PHASE_CHECKED;
	sent_refused(&msg, "answer.session.migration: missing");
	sample_minimal(&msg, MSG_ERROR);
	msg.u.error.code = ERR_NONE;
	sent_refused(&msg, "error.code: missing");
	memset(&msg, 0, sizeof(msg));
	sent_refused(&msg, "kind: 0 is none that is known here");
}

static void rules__plan__exactly_for_check_and_prepare(void **state)
{
	(void)state;
	struct msg msg;
	struct sample_lists lists;
	for (enum step step = STEP_CHECK; step < STEPS; step++) {
		bool wants = step == STEP_CHECK || step == STEP_PREPARE;
		char words[128];
		sample_full(&msg, MSG_COMMAND, &lists);
		msg.u.command.step = step;
		snprintf(words, sizeof(words),
		         wants ? "command.plan: missing, %s needs one" : "command.plan: %s takes none",
		         step_name(step));
		if (wants)
			msg.u.command.plan = NULL;
		sent_refused(&msg, words);
	}
}

static void rules__plan__targets_match_the_vm(void **state)
{
	(void)state;
	struct msg msg;
	struct sample_lists lists;
	sample_full(&msg, MSG_COMMAND, &lists);
	sample_text(lists.plan.to[1].name, "sda");
	sent_refused(&msg, "command.plan.to[1].name: 'sda', but vm.disks[1] is 'xvdb'");
	lists.plan.to[1].name[0] = '\0'; /* the order is enough */
	void *bytes;
	size_t count;
	assert_int_equal(msg_encode(&msg, &bytes, &count, NULL), 0);
	free(bytes);
	lists.plan.to[0].sr[0] = '\0';
	sent_refused(&msg, "command.plan.to[0].sr: missing");
	body.count = 0;
	start_vm();
	wire_message(&body, 1, &inner);
	wire_text(&body, 2, "web3");
	wire_text(&body, 3, "a1");
	wire_text(&body, 4, "b2");
	wire_number(&body, 9, ON_SLOW_WAIT);
	struct msg_plan plan;
	struct err err = { 0 };
	assert_int_equal(msg_plan_decode(body.bytes, body.count, &plan, &err), 0);
	wire_text(&body, 6, "xenbr0");
	assert_int_equal(msg_plan_decode(body.bytes, body.count, &plan, &err), -1);
	assert_string_equal(err.text, "plan.bridges: 1 entries, but 0 in vm.nics");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cut__at_every_byte__never_more_than_refused),
		cmocka_unit_test(flipped__every_single_bit__valid_or_refused),
		cmocka_unit_test(inflated__empty_submessages__refused),
		cmocka_unit_test(inflated__a_frame_full_of_empty_vms__hits_the_cap),
		cmocka_unit_test(inflated__unknown_fields__refused_by_the_cap_or_ignored),
		cmocka_unit_test(inflated__one_body_many_times__refused),
		cmocka_unit_test(arena__never_costs_more_than_its_limit),
		cmocka_unit_test(arena__ends_anywhere_in_a_big_message__refused),
		cmocka_unit_test(text__embedded_nul__refused),
		cmocka_unit_test(text__not_utf8_or_control__refused),
		cmocka_unit_test(text__words_for_people_with_line_ends__refused_when_received),
		cmocka_unit_test(forms__fingerprints_and_endpoints__as_they_must_be),
		cmocka_unit_test(forms__mac__as_it_must_be),
		cmocka_unit_test(rules__duplicate_disk_names__refused),
		cmocka_unit_test(enums__unknown_value__refused),
		cmocka_unit_test(fields__unknown__ignored),
		cmocka_unit_test(body__none_or_unknown__refused),
		cmocka_unit_test(versions__other_than_ours__only_for_hello_and_error),
		cmocka_unit_test(rules__required_by_kind__refused_if_missing),
		cmocka_unit_test(rules__plan__exactly_for_check_and_prepare),
		cmocka_unit_test(rules__plan__targets_match_the_vm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
