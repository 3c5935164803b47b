/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The frames of stream 0, and the hello that opens every stream: encoding and decoding, no I/O.
 *
 *  header, FRAME_HEADER_BYTES, little-endian: magic u32, version u16, type u16, length u32, reserved u32 (0),
 *  number u64 (from 0, by one, in each direction), XXH3-64 of the payload u64
 *
 * Laws
 *  1. Whatever does not fit exactly is ERR_PROTOCOL (ERR_CORRUPT: checksum): unknown type, length over the limit,
 *     another number, bytes left over, a string with control characters. Nothing is guessed.
 *  2. Decoders copy; they never point into the payload, with the exception that is documented (digests).
 */
#ifndef DROVER_LEG_FRAME_H
#define DROVER_LEG_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "agent/disk/disk.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/verdict.h"
#include "proto/msg.h"

#define FRAME_MAGIC 0x31565244u /* "DRV1" */
#define FRAME_VERSION 1u
#define FRAME_HEADER_BYTES 32u
#define FRAME_PAYLOAD_MAX (512u * 1024)
#define FRAME_DIGESTS_MAX 16384u         /* entries of one digests frame */
#define FRAME_MEMORY_BYTES (256u * 1024) /* what a memory frame carries at most */

enum frame_type {
	FRAME_HELLO = 1,
	FRAME_MEMORY,        /* bytes of the hypervisor's stream */
	FRAME_PASS_END,      /* S: a pass over a disk is over, and flushed */
	FRAME_DIGESTS,       /* S: what these granules must hold now */
	FRAME_DIGEST_RESULT, /* D: whether they do */
	FRAME_END,           /* S: end of stream: D has it all */
	FRAME_FACTS,
	FRAME_ERROR, /* the sender has failed, and why */
	FRAME_PING,
	FRAME_ASK_MARKS, /* S: what do these granules of an earlier copy hold? */
	FRAME_MARKS,     /* D: that */
	FRAME_TYPES
};
const char *frame_type_name(enum frame_type type);

struct frame_header {
	enum frame_type type;
	uint32_t bytes; /* of the payload */
	uint64_t number;
	uint64_t checksum;
};

void frame_header_put(unsigned char header[FRAME_HEADER_BYTES], enum frame_type type, uint64_t number,
                      const void *payload, uint32_t bytes);
/* Checks all but the payload. */
int frame_header_get(const unsigned char header[FRAME_HEADER_BYTES], uint64_t expected_number,
                     struct frame_header *ret_header, struct err *err);
int frame_payload_check(const struct frame_header *header, const void *payload, struct err *err);

/* Opens a stream, in both directions on stream 0, from the source only on the others. */
struct frame_hello {
	uint64_t migration;
	uint32_t generation;
	enum side side;      /* of the sender */
	uint32_t stream;     /* 0, or 1 + the disk's number in the plan */
	uint32_t disk_count; /* D on stream 0: how to reach the disks; else 0 */
	struct exporter_access disks[LIMIT_DISKS];
	/* D on stream 0: disks that hold an earlier copy, a bit each, and the seed of their marks. Not sent if there is
	 * none: then it is the hello that older versions know. */
	uint32_t earlier;
	uint64_t seed;
};
struct frame_pass_end {
	uint32_t disk, pass;
	uint64_t covered_bytes; /* by this pass */
};
struct frame_digests {
	uint32_t disk;
	uint32_t batch; /* named in the result */
	uint32_t count;
	uint32_t *granules; /* room for FRAME_DIGESTS_MAX, the caller's */
	uint64_t *digests;
};
struct frame_digest_result {
	uint32_t disk, batch;
	uint32_t bad;       /* granules that hold something else */
	uint32_t first_bad; /* one of them */
};
/* A question if marks is NULL. */
struct frame_marks {
	uint32_t disk, first, count; /* granules; count: 1 to DISK_MARKS_MAX */
	struct disk_mark *marks;     /* room for DISK_MARKS_MAX, the caller's */
};
struct frame_end {
	uint64_t memory_bytes;      /* of all memory frames */
	uint32_t disk_count;        /* disks that were copied */
	struct verdict_facts facts; /* the source's, with stream_ended */
};

/* Encoders: bytes written to `payload` (FRAME_PAYLOAD_MAX bytes of room). What we send is valid by construction. */
uint32_t frame_hello_put(unsigned char *payload, const struct frame_hello *hello);
uint32_t frame_pass_end_put(unsigned char *payload, const struct frame_pass_end *pass_end);
uint32_t frame_digests_put(unsigned char *payload, const struct frame_digests *digests);
uint32_t frame_digest_result_put(unsigned char *payload, const struct frame_digest_result *result);
uint32_t frame_marks_put(unsigned char *payload, const struct frame_marks *marks);
uint32_t frame_end_put(unsigned char *payload, const struct frame_end *end);
uint32_t frame_facts_put(unsigned char *payload, const struct verdict_facts *facts);
uint32_t frame_error_put(unsigned char *payload, const struct err *cause);

/* Decoders. */
int frame_hello_get(const void *payload, uint32_t bytes, struct frame_hello *ret_hello, struct err *err);
int frame_pass_end_get(const void *payload, uint32_t bytes, struct frame_pass_end *ret_pass_end, struct err *err);
/* Fills what ret_digests->granules and ->digests point to. */
int frame_digests_get(const void *payload, uint32_t bytes, struct frame_digests *ret_digests, struct err *err);
int frame_digest_result_get(const void *payload, uint32_t bytes, struct frame_digest_result *ret_result,
                            struct err *err);
/* Fills what ret_marks->marks points to, unless it is NULL: then the frame is a question. */
int frame_marks_get(const void *payload, uint32_t bytes, struct frame_marks *ret_marks, struct err *err);
int frame_end_get(const void *payload, uint32_t bytes, struct frame_end *ret_end, struct err *err);
int frame_facts_get(const void *payload, uint32_t bytes, struct verdict_facts *ret_facts, struct err *err);
/* The peer's words: made printable, since they end in logs and on terminals. */
int frame_error_get(const void *payload, uint32_t bytes, struct err *ret_cause, struct err *err);

#endif
