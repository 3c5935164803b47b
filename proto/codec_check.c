/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Is a struct as its tables want it? Knows nothing of protobuf-c. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "proto/codec_shape.h"

#define AT_DEPTH 8 /* command.plan.vm.disks[2].name is 5 */

/* Prints the way down to here; returns the bytes used. */
static size_t at_print(const struct at *at, unsigned depth, char *path, size_t bytes)
{
	if (at == NULL || depth == 0)
		return 0;
	size_t used = at_print(at->up, depth - 1, path, bytes);
	if (used >= bytes)
		return used;
	int n = snprintf(path + used, bytes - used, "%s%s", used == 0 ? "" : ".", at->name);
	used += n > 0 ? (size_t)n : 0;
	if (at->index >= 0 && used < bytes) {
		n = snprintf(path + used, bytes - used, "[%d]", at->index);
		used += n > 0 ? (size_t)n : 0;
	}
	return used;
}

int at_fail(const struct at *at, struct err *err, const char *format, ...)
{
	char path[LIMIT_TEXT / 2] = "", words[LIMIT_TEXT / 2];
	at_print(at, AT_DEPTH, path, sizeof(path));
	va_list list;
	va_start(list, format);
	vsnprintf(words, sizeof(words), format, list);
	va_end(list);
	return err_set(err, ERR_PROTOCOL, "%s: %s", path, words);
}

static int check_text(const struct field *field, const char *text, bool sending, const struct at *at, struct err *err)
{
	size_t bytes = strnlen(text, field->size);
	if (bytes == field->size)
		return at_fail(at, err, "not terminated within %zu bytes", field->size);
	if (bytes == 0)
		return field->min > 0 ? at_fail(at, err, "missing") : 0;
	const char *fault = sending && field->kind == FIELD_WORDS ? NULL : text_fault(text, bytes, false);
	if (fault == NULL)
		fault = text_form_fault(field->form, text);
	return fault != NULL ? at_fail(at, err, "%s", fault) : 0;
}

static int check_heap_text(const struct field *field, const char *text, const struct at *at, struct err *err)
{
	if (text == NULL)
		return 0;
	size_t bytes = strnlen(text, field->max + 1);
	if (bytes > field->max)
		return at_fail(at, err, "more than %llu bytes", (unsigned long long)field->max);
	const char *fault = text_fault(text, bytes, true);
	return fault != NULL ? at_fail(at, err, "%s", fault) : 0;
}

static int check_unsigned(const struct field *field, uint64_t value, const struct at *at, struct err *err)
{
	if (value == 0 && field->min == 1)
		return at_fail(at, err, "missing");
	if (value > field->max)
		return at_fail(at, err, "%llu, at most %llu", (unsigned long long)value,
		               (unsigned long long)field->max);
	return 0;
}

static int check_signed(const struct field *field, int64_t value, const struct at *at, struct err *err)
{
	if (value < field->min)
		return at_fail(at, err, "%lld, at least %lld", (long long)value, (long long)field->min);
	if (value > (int64_t)field->max)
		return at_fail(at, err, "%lld, at most %lld", (long long)value, (long long)field->max);
	return 0;
}

static int check_enum(const struct field *field, int value, const struct at *at, struct err *err)
{
	if (value == 0 && field->min == 1)
		return at_fail(at, err, "missing");
	if (value < field->min || value > (int)field->max)
		return at_fail(at, err, "%d is no value that is known here", value);
	return 0;
}

static int check_uuid(const unsigned char *uuid, const struct at *at, struct err *err)
{
	static const uuid_bytes none;
	return memcmp(uuid, none, sizeof(none)) == 0 ? at_fail(at, err, "missing") : 0;
}

static uint32_t count_of(const struct field *field, const void *object)
{
	uint32_t count;
	memcpy(&count, (const char *)object + field->count, sizeof(count));
	return count;
}

static int check_list(const struct field *field, const void *object, const void *entries, bool sending, struct at *at,
                      struct err *err)
{
	uint32_t count = count_of(field, object);
	if (count > field->max)
		return at_fail(at, err, "%u entries, at most %llu", count, (unsigned long long)field->max);
	if (count > 0 && entries == NULL)
		return at_fail(at, err, "%u entries, but no list", count);
	for (uint32_t i = 0; i < count; i++) {
		at->index = (int)i;
		const char *entry = (const char *)entries;
		if (field->shape != NULL
		            ? shape_check(field->shape, entry + i * field->shape->bytes, sending, at, err) != 0
		            : check_text(field, entry + i * field->size, sending, at, err) != 0)
			return -1;
	}
	return 0;
}

/* A pointer that is stored in a struct as a pointer to something else. */
static const void *pointer_at(const void *place)
{
	const void *pointer;
	memcpy(&pointer, place, sizeof(pointer));
	return pointer;
}

static int check_field(const struct field *field, const void *object, bool sending, struct at *at, struct err *err)
{
	const void *place = (const char *)object + field->offset;
	switch (field->kind) {
	case FIELD_TEXT:
	case FIELD_WORDS:
		return check_text(field, place, sending, at, err);
	case FIELD_HEAP_TEXT:
		return check_heap_text(field, pointer_at(place), at, err);
	case FIELD_UUID:
		return check_uuid(place, at, err);
	case FIELD_U32:
	case FIELD_FLAG:
		return check_unsigned(field, *(const uint32_t *)place, at, err);
	case FIELD_U64:
		return check_unsigned(field, *(const uint64_t *)place, at, err);
	case FIELD_S32:
		return check_signed(field, *(const int32_t *)place, at, err);
	case FIELD_S64:
		return check_signed(field, *(const int64_t *)place, at, err);
	case FIELD_BOOL:
		return check_unsigned(field, *(const unsigned char *)place, at, err);
	case FIELD_ENUM:
		return check_enum(field, *(const int *)place, at, err);
	case FIELD_STRUCT:
		return shape_check(field->shape, place, sending, at, err);
	case FIELD_POINTER:
		return pointer_at(place) == NULL ? 0 : shape_check(field->shape, pointer_at(place), sending, at, err);
	case FIELD_LIST:
	case FIELD_TEXT_LIST:
		return check_list(field, object, place, sending, at, err);
	case FIELD_HEAP_LIST:
		return check_list(field, object, pointer_at(place), sending, at, err);
	}
	return at_fail(at, err, "of an unknown kind");
}

int shape_check(const struct shape *shape, const void *object, bool sending, const struct at *at, struct err *err)
{
	for (size_t i = 0; i < shape->field_count; i++) {
		struct at here = { .up = at, .name = shape->fields[i].name, .index = -1 };
		if (check_field(&shape->fields[i], object, sending, &here, err) != 0)
			return -1;
	}
	return shape->rule != NULL ? shape->rule(object, at, err) : 0;
}
