/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes the protobuf wire format byte by byte, so that tests can say what no sender of ours would, and so that they
 * notice when a field's number changes: the numbers in the tests are written down there, not taken from the code.
 */
#ifndef DROVER_WIRE_WRITER_H
#define DROVER_WIRE_WRITER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIRE_MAX_BYTES (512 * 1024)

struct wire {
	size_t count;
	unsigned char bytes[WIRE_MAX_BYTES];
};

static inline void wire_byte(struct wire *wire, unsigned value)
{
	if (wire->count < sizeof(wire->bytes))
		wire->bytes[wire->count++] = (unsigned char)value;
}

static inline void wire_varint(struct wire *wire, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		wire_byte(wire, (unsigned)(value & 0x7f) | 0x80);
	wire_byte(wire, (unsigned)value);
}

static inline void wire_number(struct wire *wire, unsigned field, uint64_t value)
{
	wire_varint(wire, (uint64_t)field << 3);
	wire_varint(wire, value);
}

static inline void wire_bytes(struct wire *wire, unsigned field, const void *data, size_t bytes)
{
	wire_varint(wire, (uint64_t)field << 3 | 2);
	wire_varint(wire, bytes);
	for (size_t i = 0; i < bytes; i++)
		wire_byte(wire, ((const unsigned char *)data)[i]);
}

static inline void wire_text(struct wire *wire, unsigned field, const char *text)
{
	wire_bytes(wire, field, text, strlen(text));
}

static inline void wire_message(struct wire *wire, unsigned field, const struct wire *inner)
{
	wire_bytes(wire, field, inner->bytes, inner->count);
}

/* An envelope with this body; the numbers are those of drover.proto. */
static inline void wire_envelope(struct wire *wire, uint64_t version, unsigned kind, const struct wire *body)
{
	wire->count = 0;
	wire_number(wire, 1, version);
	wire_number(wire, 3, 17); /* migration */
	wire_number(wire, 4, 2);  /* generation */
	wire_message(wire, 16 + kind, body);
}

#endif
