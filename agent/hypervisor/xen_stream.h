/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hypervisor_xen: what goes over the leg's stream. libxl's own stream is cut into frames, so that its end is something
 * that is said, and never the mere end of a connection: libxl 4.17 takes an end of file where a record may begin for a
 * complete VM. Pure: no I/O, no heap, no libxl.
 *
 * HEAD first, DATA as it comes, END once. A frame is a head of 16 bytes, little-endian, and its payload.
 */
#ifndef DROVER_XEN_STREAM_H
#define DROVER_XEN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define XEN_STREAM_VERSION 1u
#define XEN_STREAM_FRAME_BYTES 16u
#define XEN_STREAM_TEXT_MAX (1u << 20) /* the description of a VM */
#define XEN_STREAM_DATA_MAX (1u << 18) /* libxl's bytes in one frame */
/* libxl's stream ends with two records of 8 bytes: libxc's end, and its own. Without the inner one the destination's
 * restore fails, without the outer one alone it does not. */
#define XEN_STREAM_TAIL_BYTES 16u

enum xen_stream_kind {
	XEN_STREAM_HEAD = 1, /* value: version; payload: JSON, see xen_describe.h */
	XEN_STREAM_DATA,     /* value: 0 */
	XEN_STREAM_END, /* value: XXH3-64 of all of libxl's bytes; payload: the last XEN_STREAM_TAIL_BYTES of them */
};

struct xen_stream_frame {
	enum xen_stream_kind kind;
	uint32_t bytes; /* of payload */
	uint64_t value;
};

void xen_stream_put(unsigned char ret_bytes[XEN_STREAM_FRAME_BYTES], const struct xen_stream_frame *frame);
/* `first`: the frame must be HEAD; else it must not be. ERR_PROTOCOL, ERR_VERSION. */
int xen_stream_get(const unsigned char bytes[XEN_STREAM_FRAME_BYTES], bool first, struct xen_stream_frame *ret_frame,
                   struct err *err);

/* Holds back the last bytes of a stream whose length is not known. Zeroed: nothing is held. */
struct xen_tail {
	unsigned char held[XEN_STREAM_TAIL_BYTES];
	size_t count;
};
/* Takes `count` more bytes; copies what may go on to ret_bytes (room: count) and returns how many these are. */
size_t xen_tail_push(struct xen_tail *tail, const void *bytes, size_t count, void *ret_bytes);

/* What is fed to a restore that is not to succeed: no record begins like this. */
void xen_stream_poison(unsigned char *ret_bytes, size_t count);

#endif
