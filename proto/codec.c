/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Encoding and decoding, whole messages and the parts that are kept on their own. */
#include <stdlib.h>
#include <string.h>

#include "drover.pb-c.h"

#include "proto/codec_arena.h"
#include "proto/codec_shape.h"

/* What protobuf-c may cost, beside the longest list that a decoded message can own. */
#define ARENA_LIMIT_BYTES (LIMIT_DECODE_BYTES - LIMIT_VMS * sizeof(struct msg_vm) - sizeof(struct msg_plan))
_Static_assert(LIMIT_SESSIONS * sizeof(struct msg_session) <= LIMIT_VMS * sizeof(struct msg_vm) &&
                       LIMIT_HOLDINGS * sizeof(struct msg_holding) <= LIMIT_VMS * sizeof(struct msg_vm) &&
                       LIMIT_JSON_BYTES < LIMIT_VMS * sizeof(struct msg_vm) &&
                       LIMIT_VMS * sizeof(struct msg_vm) < LIMIT_DECODE_BYTES / 2,
               "LIMIT_DECODE_BYTES leaves too little");

static void *allocate(void *arena, size_t bytes)
{
	return arena_alloc(arena, bytes);
}

static void free_nothing(void *arena, void *pointer)
{
	(void)arena;
	(void)pointer;
}

static int frame_too_big(size_t bytes, struct err *err)
{
	return err_set(err, ERR_PROTOCOL, "frame: %zu bytes, at most %d", bytes, LIMIT_FRAME_BYTES);
}

/* protobuf-c's structs of a frame; they live in the arena. */
static int unpack(const ProtobufCMessageDescriptor *descriptor, const void *frame, size_t bytes, struct arena *arena,
                  ProtobufCMessage **ret_wire, struct err *err)
{
	if (bytes > LIMIT_FRAME_BYTES)
		return frame_too_big(bytes, err);
	ProtobufCAllocator allocator = { .alloc = allocate, .free = free_nothing, .allocator_data = arena };
	*ret_wire = protobuf_c_message_unpack(descriptor, &allocator, bytes, frame);
	if (*ret_wire != NULL)
		return 0;
	if (arena->refused)
		return err_set(err, ERR_PROTOCOL, "message costs too much memory");
	if (arena->out_of_memory)
		return err_set(err, ERR_NO_MEMORY, "message: out of memory");
	return err_set(err, ERR_PROTOCOL, "frame: %zu bytes that are no message", bytes);
}

static int pack(const ProtobufCMessage *wire, void **ret_frame, size_t *ret_bytes, struct err *err)
{
	size_t bytes = protobuf_c_message_get_packed_size(wire);
	if (bytes > LIMIT_FRAME_BYTES)
		return frame_too_big(bytes, err);
	unsigned char *frame = malloc(bytes == 0 ? 1 : bytes);
	if (frame == NULL)
		return err_set(err, ERR_NO_MEMORY, "message: out of memory");
	*ret_bytes = protobuf_c_message_pack(wire, frame);
	*ret_frame = frame;
	return 0;
}

static int encode_one(const struct shape *shape, const char *name, const void *object, void **ret_blob,
                      size_t *ret_bytes, struct err *err)
{
	struct at at = { .name = name, .index = -1 };
	if (shape_check(shape, object, true, &at, err) != 0)
		return -1;
	struct arena arena = { .limit_bytes = ARENA_LIMIT_BYTES };
	ProtobufCMessage *wire;
	int rc = shape_to_wire(shape, object, &arena, &wire, err);
	if (rc == 0)
		rc = pack(wire, ret_blob, ret_bytes, err);
	arena_free(&arena);
	return rc;
}

static int decode_one(const struct shape *shape, const char *name, const void *blob, size_t bytes, void *ret_object,
                      struct err *err)
{
	struct at at = { .name = name, .index = -1 };
	struct arena arena = { .limit_bytes = ARENA_LIMIT_BYTES };
	ProtobufCMessage *wire;
	memset(ret_object, 0, shape->bytes);
	int rc = unpack(shape->wire, blob, bytes, &arena, &wire, err);
	if (rc == 0)
		rc = shape_from_wire(shape, wire, ret_object, &at, err);
	if (rc == 0)
		rc = shape_check(shape, ret_object, false, &at, err);
	arena_free(&arena);
	if (rc != 0) {
		shape_free(shape, ret_object);
		memset(ret_object, 0, shape->bytes);
	}
	return rc;
}

static int check(const struct msg *msg, bool sending, struct err *err)
{
	const struct shape *body = shape_of_body(msg->kind);
	if (body == NULL)
		return err_set(err, ERR_PROTOCOL, "kind: %d is none that is known here", (int)msg->kind);
	struct at at = { .name = msg_kind_name(msg->kind), .index = -1 };
	if (rule_version(msg, err) != 0 || shape_check(&shape_envelope, msg, sending, NULL, err) != 0 ||
	    shape_check(body, &msg->u, sending, &at, err) != 0)
		return -1;
	return rule_envelope(msg, err);
}

int msg_encode(const struct msg *msg, void **ret_frame, size_t *ret_bytes, struct err *err)
{
	if (check(msg, true, err) != 0)
		return -1;
	struct arena arena = { .limit_bytes = ARENA_LIMIT_BYTES };
	ProtobufCMessage *wire, *body;
	int rc = shape_to_wire(&shape_envelope, msg, &arena, &wire, err);
	if (rc == 0)
		rc = shape_to_wire(shape_of_body(msg->kind), &msg->u, &arena, &body, err);
	if (rc == 0) {
		Drover__Envelope *envelope = (Drover__Envelope *)wire;
		envelope->body_case = (Drover__Envelope__BodyCase)(CODEC_BODY_FIRST + (int)msg->kind);
		memcpy(&envelope->hello, &body, sizeof(body)); /* a union of pointers */
		rc = pack(wire, ret_frame, ret_bytes, err);
	}
	arena_free(&arena);
	return rc;
}

static int fill(const Drover__Envelope *envelope, struct msg *msg, struct err *err)
{
	const ProtobufCMessage *body;
	if (shape_from_wire(&shape_envelope, &envelope->base, msg, NULL, err) != 0)
		return -1;
	if (envelope->body_case == DROVER__ENVELOPE__BODY__NOT_SET) {
		/* A peer of a later version may speak of what we have not heard of; its version says so first. */
		return rule_version(msg, err) != 0
		               ? -1
		               : err_set(err, ERR_PROTOCOL, "body: missing, or none that is known here");
	}
	msg->kind = (enum msg_kind)((int)envelope->body_case - CODEC_BODY_FIRST);
	if (rule_version(msg, err) != 0)
		return -1;
	memcpy(&body, &envelope->hello, sizeof(body)); /* a union of pointers */
	struct at at = { .name = msg_kind_name(msg->kind), .index = -1 };
	if (shape_from_wire(shape_of_body(msg->kind), body, &msg->u, &at, err) != 0)
		return -1;
	return check(msg, false, err);
}

int codec_decode(const void *frame, size_t bytes, size_t limit_bytes, struct msg *ret_msg, struct err *err)
{
	struct arena arena = { .limit_bytes = limit_bytes };
	ProtobufCMessage *wire;
	memset(ret_msg, 0, sizeof(*ret_msg));
	int rc = unpack(&drover__envelope__descriptor, frame, bytes, &arena, &wire, err);
	if (rc == 0)
		rc = fill((const Drover__Envelope *)wire, ret_msg, err);
	arena_free(&arena);
	if (rc != 0) {
		msg_free(ret_msg);
		memset(ret_msg, 0, sizeof(*ret_msg));
	}
	return rc;
}

int msg_decode(const void *frame, size_t bytes, struct msg *ret_msg, struct err *err)
{
	return codec_decode(frame, bytes, ARENA_LIMIT_BYTES, ret_msg, err);
}

void msg_free(struct msg *msg)
{
	const struct shape *body = shape_of_body(msg->kind);
	if (body != NULL)
		shape_free(body, &msg->u);
}

int msg_plan_encode(const struct msg_plan *plan, void **ret_blob, size_t *ret_bytes, struct err *err)
{
	return encode_one(&shape_plan, "plan", plan, ret_blob, ret_bytes, err);
}

int msg_plan_decode(const void *blob, size_t bytes, struct msg_plan *ret_plan, struct err *err)
{
	return decode_one(&shape_plan, "plan", blob, bytes, ret_plan, err);
}

int msg_inventory_encode(const struct msg_inventory *inv, void **ret_blob, size_t *ret_bytes, struct err *err)
{
	return encode_one(&shape_inventory, "inventory", inv, ret_blob, ret_bytes, err);
}

int msg_inventory_decode(const void *blob, size_t bytes, struct msg_inventory *ret_inv, struct err *err)
{
	return decode_one(&shape_inventory, "inventory", blob, bytes, ret_inv, err);
}

void msg_inventory_free(struct msg_inventory *inv)
{
	shape_free(&shape_inventory, inv);
}

int msg_holdings_encode(const struct msg_holdings *holdings, void **ret_blob, size_t *ret_bytes, struct err *err)
{
	return encode_one(&shape_holdings, "holdings", holdings, ret_blob, ret_bytes, err);
}

int msg_holdings_decode(const void *blob, size_t bytes, struct msg_holdings *ret_holdings, struct err *err)
{
	return decode_one(&shape_holdings, "holdings", blob, bytes, ret_holdings, err);
}

void msg_holdings_free(struct msg_holdings *holdings)
{
	shape_free(&shape_holdings, holdings);
}
