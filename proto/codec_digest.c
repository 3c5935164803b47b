/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The digest of an inventory: XXH3 over its fields in the order of the tables, numbers as 64 bits little-endian, texts
 * and lists with their lengths before them. Neither heap nor failure, and the same on every machine. Only ever compared
 * with another digest of the same host, so that a table may grow.
 */
#include <string.h>

#define XXH_INLINE_ALL /* the state of a hash in progress is on the stack */
#include <xxhash.h>

#include "proto/codec_shape.h"

static void hash_number(XXH3_state_t *hash, uint64_t value)
{
	unsigned char bytes[8];
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(value >> (8 * i));
	XXH3_64bits_update(hash, bytes, sizeof(bytes));
}

static void hash_text(XXH3_state_t *hash, const char *text, size_t size)
{
	size_t bytes = strnlen(text, size);
	hash_number(hash, bytes);
	XXH3_64bits_update(hash, text, bytes);
}

static void hash_shape(XXH3_state_t *hash, const struct shape *shape, const char *object);

static void hash_list(XXH3_state_t *hash, const struct field *field, const char *object, const char *entries)
{
	uint32_t count;
	memcpy(&count, object + field->count, sizeof(count));
	if (count > field->max || entries == NULL) /* no such inventory can be sent; but do not run into the void */
		count = 0;
	hash_number(hash, count);
	for (uint32_t i = 0; i < count; i++) {
		if (field->shape != NULL)
			hash_shape(hash, field->shape, entries + i * field->shape->bytes);
		else
			hash_text(hash, entries + i * field->size, field->size);
	}
}

static void hash_field(XXH3_state_t *hash, const struct field *field, const char *object)
{
	const char *place = object + field->offset;
	uint32_t small;
	uint64_t big;
	const char *pointer;
	switch (field->kind) {
	case FIELD_TEXT:
	case FIELD_WORDS:
		hash_text(hash, place, field->size);
		return;
	case FIELD_UUID:
		XXH3_64bits_update(hash, place, sizeof(uuid_bytes));
		return;
	case FIELD_U32:
	case FIELD_S32:
	case FIELD_FLAG:
	case FIELD_ENUM:
		memcpy(&small, place, sizeof(small));
		hash_number(hash, small);
		return;
	case FIELD_U64:
	case FIELD_S64:
		memcpy(&big, place, sizeof(big));
		hash_number(hash, big);
		return;
	case FIELD_BOOL:
		hash_number(hash, (unsigned char)*place);
		return;
	case FIELD_STRUCT:
		hash_shape(hash, field->shape, place);
		return;
	case FIELD_LIST:
	case FIELD_TEXT_LIST:
		hash_list(hash, field, object, place);
		return;
	case FIELD_HEAP_LIST:
		memcpy(&pointer, place, sizeof(pointer));
		hash_list(hash, field, object, pointer);
		return;
	case FIELD_HEAP_TEXT:
	case FIELD_POINTER: /* an inventory has none */
		return;
	}
}

static void hash_shape(XXH3_state_t *hash, const struct shape *shape, const char *object)
{
	for (size_t i = 0; i < shape->field_count; i++)
		if (!shape->fields[i].moves)
			hash_field(hash, &shape->fields[i], object);
}

uint64_t msg_inventory_digest(const struct msg_inventory *inv)
{
	XXH3_state_t hash;
	XXH3_INITSTATE(&hash);
	XXH3_64bits_reset(&hash);
	hash_shape(&hash, &shape_inventory, (const char *)inv);
	return XXH3_64bits_digest(&hash);
}
