/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From our structs to protobuf-c's and back, by the tables. */
#include <stdlib.h>
#include <string.h>

#include <protobuf-c/protobuf-c.h>

#include "proto/codec_arena.h"
#include "proto/codec_shape.h"

static int out_of_memory(struct err *err)
{
	return err_set(err, ERR_NO_MEMORY, "message: out of memory");
}

static void *place_of(void *object, size_t offset)
{
	return (char *)object + offset;
}

static const void *const_place_of(const void *object, size_t offset)
{
	return (const char *)object + offset;
}

static void *pointer_at(const void *place)
{
	void *pointer;
	memcpy(&pointer, place, sizeof(pointer));
	return pointer;
}

static void pointer_put(void *place, const void *pointer)
{
	memcpy(place, &pointer, sizeof(pointer));
}

/* ---- out ---- */

/* Bytes that stay where they are: protobuf-c's struct only looks at them. */
static void lend(ProtobufCBinaryData *wire, const void *data, size_t bytes)
{
	wire->len = bytes;
	pointer_put(&wire->data, bytes == 0 ? NULL : data);
}

static int words_to_wire(const char *text, ProtobufCBinaryData *wire, struct arena *arena, struct err *err)
{
	size_t bytes = strlen(text);
	lend(wire, text, bytes);
	if (text_fault(text, bytes, false) == NULL)
		return 0;
	char *copy = arena_alloc(arena, bytes);
	if (copy == NULL)
		return out_of_memory(err);
	memcpy(copy, text, bytes);
	text_repair(copy, bytes);
	lend(wire, copy, bytes);
	return 0;
}

static int texts_to_wire(const struct field *field, const void *object, void *wire, struct arena *arena,
                         struct err *err)
{
	size_t count = *(const uint32_t *)const_place_of(object, field->count);
	ProtobufCBinaryData *list = count == 0 ? NULL : arena_alloc(arena, count * sizeof(*list));
	if (count > 0 && list == NULL)
		return out_of_memory(err);
	for (size_t i = 0; i < count; i++) {
		const char *text = const_place_of(object, field->offset + i * field->size);
		lend(&list[i], text, strlen(text));
	}
	memcpy(place_of(wire, field->wire_count), &count, sizeof(count));
	pointer_put(place_of(wire, field->wire), list);
	return 0;
}

static int list_to_wire(const struct field *field, const void *object, const char *entries, void *wire,
                        struct arena *arena, struct err *err)
{
	size_t count = *(const uint32_t *)const_place_of(object, field->count);
	ProtobufCMessage **list = count == 0 ? NULL : arena_alloc(arena, count * sizeof(ProtobufCMessage *));
	if (count > 0 && list == NULL)
		return out_of_memory(err);
	for (size_t i = 0; i < count; i++)
		if (shape_to_wire(field->shape, entries + i * field->shape->bytes, arena, &list[i], err) != 0)
			return -1;
	memcpy(place_of(wire, field->wire_count), &count, sizeof(count));
	pointer_put(place_of(wire, field->wire), list);
	return 0;
}

static int struct_to_wire(const struct field *field, const void *object, void *wire, struct arena *arena,
                          struct err *err)
{
	ProtobufCMessage *message = NULL;
	if (object != NULL && shape_to_wire(field->shape, object, arena, &message, err) != 0)
		return -1;
	pointer_put(wire, message);
	return 0;
}

static int field_to_wire(const struct field *field, const void *object, void *message, struct arena *arena,
                         struct err *err)
{
	const void *ours = const_place_of(object, field->offset);
	void *wire = place_of(message, field->wire);
	const char *text;
	switch (field->kind) {
	case FIELD_TEXT:
		lend(wire, ours, strlen(ours));
		return 0;
	case FIELD_WORDS:
		return words_to_wire(ours, wire, arena, err);
	case FIELD_HEAP_TEXT:
		text = pointer_at(ours);
		lend(wire, text, text == NULL ? 0 : strlen(text));
		return 0;
	case FIELD_UUID:
		lend(wire, ours, sizeof(uuid_bytes));
		return 0;
	case FIELD_U32:
	case FIELD_S32:
	case FIELD_ENUM:
		memcpy(wire, ours, sizeof(uint32_t));
		return 0;
	case FIELD_U64:
	case FIELD_S64:
		memcpy(wire, ours, sizeof(uint64_t));
		return 0;
	case FIELD_FLAG:
		*(protobuf_c_boolean *)wire = *(const uint32_t *)ours != 0;
		return 0;
	case FIELD_BOOL:
		*(protobuf_c_boolean *)wire = *(const bool *)ours;
		return 0;
	case FIELD_STRUCT:
		return struct_to_wire(field, ours, wire, arena, err);
	case FIELD_POINTER:
		return struct_to_wire(field, pointer_at(ours), wire, arena, err);
	case FIELD_LIST:
		return list_to_wire(field, object, ours, message, arena, err);
	case FIELD_HEAP_LIST:
		return list_to_wire(field, object, pointer_at(ours), message, arena, err);
	case FIELD_TEXT_LIST:
		return texts_to_wire(field, object, message, arena, err);
	}
	return err_set(err, ERR_INTERNAL, "%s: of an unknown kind", field->name);
}

int shape_to_wire(const struct shape *shape, const void *object, struct arena *arena, ProtobufCMessage **ret_wire,
                  struct err *err)
{
	ProtobufCMessage *message = arena_alloc(arena, shape->wire->sizeof_message);
	if (message == NULL)
		return out_of_memory(err);
	protobuf_c_message_init(shape->wire, message);
	for (size_t i = 0; i < shape->field_count; i++)
		if (field_to_wire(&shape->fields[i], object, message, arena, err) != 0)
			return -1;
	*ret_wire = message;
	return 0;
}

/* ---- in ---- */

static int text_from_wire(const struct field *field, const ProtobufCBinaryData *wire, char *text, const struct at *at,
                          struct err *err)
{
	if (wire->len >= field->size)
		return at_fail(at, err, "%zu bytes, at most %zu", wire->len, field->size - 1);
	if (wire->len == 0)
		return 0;
	if (memchr(wire->data, '\0', wire->len) != NULL)
		return at_fail(at, err, "a NUL inside");
	memcpy(text, wire->data, wire->len);
	text[wire->len] = '\0';
	return 0;
}

static int heap_text_from_wire(const struct field *field, const ProtobufCBinaryData *wire, void *place,
                               const struct at *at, struct err *err)
{
	if (wire->len == 0)
		return 0;
	if (wire->len > field->max)
		return at_fail(at, err, "%zu bytes, at most %llu", wire->len, (unsigned long long)field->max);
	if (memchr(wire->data, '\0', wire->len) != NULL)
		return at_fail(at, err, "a NUL inside");
	char *text = malloc(wire->len + 1);
	if (text == NULL)
		return out_of_memory(err);
	memcpy(text, wire->data, wire->len);
	text[wire->len] = '\0';
	pointer_put(place, text);
	return 0;
}

static int uuid_from_wire(const ProtobufCBinaryData *wire, void *place, const struct at *at, struct err *err)
{
	if (wire->len != sizeof(uuid_bytes))
		return wire->len == 0 ? at_fail(at, err, "missing")
		                      : at_fail(at, err, "%zu bytes, not %zu", wire->len, sizeof(uuid_bytes));
	memcpy(place, wire->data, sizeof(uuid_bytes));
	return 0;
}

/* Checks a list's length and writes its count. */
static int count_from_wire(const struct field *field, size_t n, void *object, const struct at *at, struct err *err)
{
	if (n > field->max)
		return at_fail(at, err, "%zu entries, at most %llu", n, (unsigned long long)field->max);
	uint32_t *count = place_of(object, field->count);
	if (field->as_many_as != NULL && n != *count)
		return at_fail(at, err, "%zu entries, but %u in %s", n, *count, field->as_many_as);
	*count = (uint32_t)n;
	return 0;
}

static int texts_from_wire(const struct field *field, const void *message, void *object, struct at *at, struct err *err)
{
	size_t n = *(const size_t *)const_place_of(message, field->wire_count);
	const ProtobufCBinaryData *list = pointer_at(const_place_of(message, field->wire));
	if (count_from_wire(field, n, object, at, err) != 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		at->index = (int)i;
		if (text_from_wire(field, &list[i], place_of(object, field->offset + i * field->size), at, err) != 0)
			return -1;
	}
	return 0;
}

static int list_from_wire(const struct field *field, const void *message, void *object, struct at *at, struct err *err)
{
	size_t n = *(const size_t *)const_place_of(message, field->wire_count);
	ProtobufCMessage *const *list = pointer_at(const_place_of(message, field->wire));
	if (count_from_wire(field, n, object, at, err) != 0)
		return -1;
	char *entries = place_of(object, field->offset);
	if (field->kind == FIELD_HEAP_LIST && n > 0) {
		entries = calloc(n, field->shape->bytes);
		pointer_put(place_of(object, field->offset), entries);
		if (entries == NULL)
			return out_of_memory(err);
	}
	for (size_t i = 0; i < n; i++) {
		at->index = (int)i;
		if (shape_from_wire(field->shape, list[i], entries + i * field->shape->bytes, at, err) != 0)
			return -1;
	}
	return 0;
}

static int pointer_from_wire(const struct field *field, const ProtobufCMessage *wire, void *place, const struct at *at,
                             struct err *err)
{
	if (wire == NULL)
		return 0;
	void *target = calloc(1, field->shape->bytes);
	if (target == NULL)
		return out_of_memory(err);
	pointer_put(place, target);
	return shape_from_wire(field->shape, wire, target, at, err);
}

static int field_from_wire(const struct field *field, const void *message, void *object, struct at *at, struct err *err)
{
	const void *wire = const_place_of(message, field->wire);
	void *ours = place_of(object, field->offset);
	switch (field->kind) {
	case FIELD_TEXT:
	case FIELD_WORDS:
		return text_from_wire(field, wire, ours, at, err);
	case FIELD_HEAP_TEXT:
		return heap_text_from_wire(field, wire, ours, at, err);
	case FIELD_UUID:
		return uuid_from_wire(wire, ours, at, err);
	case FIELD_U32:
	case FIELD_S32:
	case FIELD_ENUM:
		memcpy(ours, wire, sizeof(uint32_t));
		return 0;
	case FIELD_U64:
	case FIELD_S64:
		memcpy(ours, wire, sizeof(uint64_t));
		return 0;
	case FIELD_FLAG:
		*(uint32_t *)ours = *(const protobuf_c_boolean *)wire != 0;
		return 0;
	case FIELD_BOOL:
		*(bool *)ours = *(const protobuf_c_boolean *)wire != 0;
		return 0;
	case FIELD_STRUCT:
		return pointer_at(wire) == NULL ? 0 : shape_from_wire(field->shape, pointer_at(wire), ours, at, err);
	case FIELD_POINTER:
		return pointer_from_wire(field, pointer_at(wire), ours, at, err);
	case FIELD_LIST:
	case FIELD_HEAP_LIST:
		return list_from_wire(field, message, object, at, err);
	case FIELD_TEXT_LIST:
		return texts_from_wire(field, message, object, at, err);
	}
	return err_set(err, ERR_INTERNAL, "%s: of an unknown kind", field->name);
}

int shape_from_wire(const struct shape *shape, const ProtobufCMessage *wire, void *object, const struct at *at,
                    struct err *err)
{
	for (size_t i = 0; i < shape->field_count; i++) {
		struct at here = { .up = at, .name = shape->fields[i].name, .index = -1 };
		if (field_from_wire(&shape->fields[i], wire, object, &here, err) != 0)
			return -1;
	}
	return 0;
}

/* What is on the heap holds nothing on the heap itself: no need to go further down. */
void shape_free(const struct shape *shape, void *object)
{
	for (size_t i = 0; i < shape->field_count; i++) {
		const struct field *field = &shape->fields[i];
		if (field->kind != FIELD_HEAP_TEXT && field->kind != FIELD_HEAP_LIST && field->kind != FIELD_POINTER)
			continue;
		void *place = place_of(object, field->offset);
		free(pointer_at(place));
		pointer_put(place, NULL);
		if (field->kind == FIELD_HEAP_LIST)
			memset(place_of(object, field->count), 0, sizeof(uint32_t));
	}
}
