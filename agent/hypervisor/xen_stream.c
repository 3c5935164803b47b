/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/hypervisor/xen_stream.h"

#include <string.h>

static void put(unsigned char *to, unsigned bytes, uint64_t value)
{
	for (unsigned i = 0; i < bytes; i++)
		to[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t get(const unsigned char *from, unsigned bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)from[i] << (8 * i);
	return value;
}

void xen_stream_put(unsigned char ret_bytes[XEN_STREAM_FRAME_BYTES], const struct xen_stream_frame *frame)
{
	put(ret_bytes, 4, (uint64_t)frame->kind);
	put(ret_bytes + 4, 4, frame->bytes);
	put(ret_bytes + 8, 8, frame->value);
}

static int broken(const char *what, struct err *err)
{
	return err_set(err, ERR_PROTOCOL, "memory stream: %s", what);
}

int xen_stream_get(const unsigned char bytes[XEN_STREAM_FRAME_BYTES], bool first, struct xen_stream_frame *ret_frame,
                   struct err *err)
{
	uint64_t kind = get(bytes, 4);
	struct xen_stream_frame frame = { .bytes = (uint32_t)get(bytes + 4, 4), .value = get(bytes + 8, 8) };
	if (first != (kind == XEN_STREAM_HEAD))
		return broken("it does not begin as it must", err);
	switch (kind) {
	case XEN_STREAM_HEAD:
		if (frame.value != XEN_STREAM_VERSION)
			return err_set(err, ERR_VERSION, "memory stream has version %llu, we speak %u",
			               (unsigned long long)frame.value, XEN_STREAM_VERSION);
		if (frame.bytes == 0 || frame.bytes > XEN_STREAM_TEXT_MAX)
			return broken("bad description", err);
		break;
	case XEN_STREAM_DATA:
		if (frame.bytes == 0 || frame.bytes > XEN_STREAM_DATA_MAX || frame.value != 0)
			return broken("bad data frame", err);
		break;
	case XEN_STREAM_END:
		if (frame.bytes != XEN_STREAM_TAIL_BYTES)
			return broken("bad end", err);
		break;
	default:
		return broken("unknown frame", err);
	}
	frame.kind = (enum xen_stream_kind)kind;
	*ret_frame = frame;
	return 0;
}

size_t xen_tail_push(struct xen_tail *tail, const void *bytes, size_t count, void *ret_bytes)
{
	const unsigned char *from = bytes;
	unsigned char *to = ret_bytes;
	size_t all = tail->count + count;
	size_t go = all > XEN_STREAM_TAIL_BYTES ? all - XEN_STREAM_TAIL_BYTES : 0;
	size_t of_held = go < tail->count ? go : tail->count;
	size_t of_new = go - of_held;
	memcpy(to, tail->held, of_held);
	memcpy(to + of_held, from, of_new);
	memmove(tail->held, tail->held + of_held, tail->count - of_held);
	tail->count -= of_held;
	memcpy(tail->held + tail->count, from + of_new, count - of_new);
	tail->count += count - of_new;
	return go;
}

void xen_stream_poison(unsigned char *ret_bytes, size_t count)
{
	memset(ret_bytes, 0xff, count);
}
