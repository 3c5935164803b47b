/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside the codec: tables that say how a struct of msg.h looks on the wire and what may be in it, and the walkers
 * over them. Nobody outside proto/codec*.c includes this.
 *
 * Laws
 *  1. A field stands in one table, once; checking, packing, unpacking and hashing all read that table, so that none
 *     of them can forget it.
 *  2. shape_from_wire() refuses what a struct cannot hold (too long, too many, an embedded NUL); shape_check() all
 *     the rest, the same when sending and when receiving.
 */
#ifndef DROVER_CODEC_SHAPE_H
#define DROVER_CODEC_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "proto/msg.h"

/* Bounds on numbers: wide enough for any host, narrow enough that sums over all disks and VMs of one do not overflow,
 * and that SQLite and JSON, whose integers are signed, hold them. */
#define CODEC_MAX_BYTES (UINT64_C(1) << 50)             /* 1 PiB: memory, a disk, an SR; also bytes a second */
#define CODEC_MAX_NUMBER INT64_MAX                      /* ids, epochs, counters, times in ms */
#define CODEC_MAX_SECONDS (UINT64_C(100) * 366 * 86400) /* a hundred years */
#define CODEC_MAX_VCPUS 4096
#define CODEC_MAX_HEARTBEAT_MS 3600000 /* an hour */
#define CODEC_MAX_EXIT_CODE 255

/* A body has this plus its enum msg_kind as its number in the oneof of drover.proto. */
#define CODEC_BODY_FIRST 16

/* Where in a message we are, for the words of an error: the field, and the way up from it. */
struct at {
	const struct at *up; /* NULL: a message's body, or a field of the envelope */
	const char *name;
	int index; /* -1: not a list's entry */
};

/* ERR_PROTOCOL with "command.plan.vm.disks[2].name: " before the words. Returns -1. */
int at_fail(const struct at *at, struct err *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

enum field_kind {
	FIELD_TEXT = 1,  /* char[size]; bytes */
	FIELD_WORDS,     /* the same, but words for people: what may not travel is replaced when sending */
	FIELD_HEAP_TEXT, /* char *, NULL if empty; bytes. A document: tabs and line ends are allowed */
	FIELD_UUID,      /* uuid_bytes; bytes */
	FIELD_U32,
	FIELD_U64,
	FIELD_S32,
	FIELD_S64,
	FIELD_FLAG, /* uint32_t, 0 or 1; bool */
	FIELD_BOOL, /* bool; bool */
	FIELD_ENUM,
	FIELD_STRUCT,    /* a struct in the struct; all zero if absent */
	FIELD_POINTER,   /* a pointer to a struct, or NULL */
	FIELD_LIST,      /* an array of structs and a count */
	FIELD_HEAP_LIST, /* a pointer to that */
	FIELD_TEXT_LIST, /* char[max][size] and a count */
};

enum text_form {
	FORM_ANY = 0,
	FORM_MAC,         /* aa:bb:cc:dd:ee:ff */
	FORM_FINGERPRINT, /* 64 lower-case hex digits */
	FORM_ENDPOINT,    /* host:port or [v6]:port */
};

struct field {
	const char *name;
	enum field_kind kind;
	enum text_form form;       /* of a text that is not empty */
	size_t offset, wire;       /* in our struct; in protobuf-c's */
	size_t count, wire_count;  /* lists: of the counts */
	size_t size;               /* texts: bytes of the array, with the NUL */
	int64_t min;               /* numbers, enums: lowest; texts: 1 if required */
	uint64_t max;              /* numbers, enums: highest; lists: entries; FIELD_HEAP_TEXT: bytes */
	const struct shape *shape; /* of a struct, or of a list's entries */
	const char *as_many_as;    /* a list whose count is that of this list before it */
	bool moves;                /* changes all the time: not part of a digest */
};

struct ProtobufCMessageDescriptor;
struct ProtobufCMessage;
struct arena;

struct shape {
	size_t bytes; /* of our struct */
	const struct ProtobufCMessageDescriptor *wire;
	const struct field *fields;
	size_t field_count;
	/* What one field alone cannot tell; NULL: nothing. Runs after the fields were checked. */
	int (*rule)(const void *object, const struct at *at, struct err *err);
};

/* The tables, in codec_shapes.c. shape_envelope is the envelope without its body. */
extern const struct shape shape_envelope, shape_plan, shape_inventory, shape_holdings;
/* NULL if there is no such kind. */
const struct shape *shape_of_body(enum msg_kind kind);

/* Rules, in codec_rules.c. */
int rule_hello(const void *object, const struct at *at, struct err *err);
int rule_welcome(const void *object, const struct at *at, struct err *err);
int rule_disk(const void *object, const struct at *at, struct err *err);
int rule_vm(const void *object, const struct at *at, struct err *err);
int rule_session(const void *object, const struct at *at, struct err *err);
int rule_session_or_none(const void *object, const struct at *at, struct err *err);
int rule_plan(const void *object, const struct at *at, struct err *err);
int rule_command(const void *object, const struct at *at, struct err *err);
int rule_answer(const void *object, const struct at *at, struct err *err);
int rule_progress(const void *object, const struct at *at, struct err *err);
int rule_error(const void *object, const struct at *at, struct err *err);
/* The envelope and its body together: version (ERR_VERSION), what must be said for this kind. */
int rule_version(const struct msg *msg, struct err *err);
int rule_envelope(const struct msg *msg, struct err *err);

/* Is everything in `object` as its tables and rules want it? `sending`: words for people are not looked at, as
 * shape_to_wire() repairs them. */
int shape_check(const struct shape *shape, const void *object, bool sending, const struct at *at, struct err *err);

/* Makes protobuf-c's struct of a checked object; it lives in the arena and points into the object. Fails only if
 * memory does. */
int shape_to_wire(const struct shape *shape, const void *object, struct arena *arena,
                  struct ProtobufCMessage **ret_wire, struct err *err);

/* Fills a zeroed object; unchecked as yet. Also after a failure the object may own heap: shape_free(). */
int shape_from_wire(const struct shape *shape, const struct ProtobufCMessage *wire, void *object, const struct at *at,
                    struct err *err);

/* Frees what shape_from_wire() allocated, not the object. */
void shape_free(const struct shape *shape, void *object);

/* msg_decode() with a cap of one's own on what protobuf-c may allocate; for the tests. */
int codec_decode(const void *frame, size_t bytes, size_t limit_bytes, struct msg *ret_msg, struct err *err);

/* What is wrong with these bytes as text, or NULL. `document`: tabs and line ends are allowed. */
const char *text_fault(const char *text, size_t bytes, bool document);
/* What is wrong with a text's form, or NULL. */
const char *text_form_fault(enum text_form form, const char *text);
/* Replaces every byte that text_fault() would complain about: line ends and tabs by a space, others by '?'. */
void text_repair(char *text, size_t bytes);

#endif
