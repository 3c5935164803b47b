/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/frame.h"

#include <string.h>
#include <xxhash.h>

#define FACT_FLAGS 7u

const char *frame_type_name(enum frame_type type)
{
	static const char *const names[FRAME_TYPES] = {
		[FRAME_HELLO] = "hello",
		[FRAME_MEMORY] = "memory",
		[FRAME_PASS_END] = "pass-end",
		[FRAME_DIGESTS] = "digests",
		[FRAME_DIGEST_RESULT] = "digest-result",
		[FRAME_END] = "end-of-stream",
		[FRAME_FACTS] = "facts",
		[FRAME_ERROR] = "error",
		[FRAME_PING] = "ping",
		[FRAME_ASK_MARKS] = "ask-marks",
		[FRAME_MARKS] = "marks",
	};
	return (unsigned)type < FRAME_TYPES && names[type] ? names[type] : "unknown";
}

/* ---- plain values ---- */
static unsigned char *put(unsigned char *at, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		*at++ = (unsigned char)(value >> (8 * i));
	return at;
}

static unsigned char *put_text(unsigned char *at, const char *text, size_t room)
{
	size_t bytes = strnlen(text, room - 1);
	at = put(at, bytes, 2);
	memcpy(at, text, bytes);
	return at + bytes;
}

/* Reads on; past the end it reads zeroes and remembers. */
struct reader {
	const unsigned char *at, *end;
	bool bad;
};

static uint64_t get(struct reader *in, unsigned bytes)
{
	uint64_t value = 0;
	if ((size_t)(in->end - in->at) < bytes) {
		in->bad = true;
		in->at = in->end;
		return 0;
	}
	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)*in->at++ << (8 * i);
	return value;
}

static uint32_t get32(struct reader *in)
{
	return (uint32_t)get(in, 4);
}

/* Names and secrets that go to other programs: printable ASCII without blanks. */
static void get_word(struct reader *in, char *ret_text, size_t room)
{
	size_t bytes = (size_t)get(in, 2);
	if (bytes >= room || (size_t)(in->end - in->at) < bytes) {
		in->bad = true;
		bytes = 0;
	}
	for (size_t i = 0; i < bytes; i++) {
		if (in->at[i] <= ' ' || in->at[i] > '~')
			in->bad = true;
		ret_text[i] = (char)in->at[i];
	}
	ret_text[bytes] = '\0';
	in->at += bytes;
}

static struct reader reader_of(const void *payload, uint32_t bytes)
{
	const unsigned char *at = payload;
	return (struct reader) { at, at + bytes, false };
}

static int finish(const struct reader *in, enum frame_type type, struct err *err)
{
	if (in->bad || in->at != in->end)
		return err_set(err, ERR_PROTOCOL, "malformed %s frame", frame_type_name(type));
	return 0;
}

/* ---- header ---- */
void frame_header_put(unsigned char header[FRAME_HEADER_BYTES], enum frame_type type, uint64_t number,
                      const void *payload, uint32_t bytes)
{
	unsigned char *at = put(header, FRAME_MAGIC, 4);
	at = put(at, FRAME_VERSION, 2);
	at = put(at, type, 2);
	at = put(at, bytes, 4);
	at = put(at, 0, 4);
	at = put(at, number, 8);
	put(at, XXH3_64bits(payload, bytes), 8);
}

int frame_header_get(const unsigned char header[FRAME_HEADER_BYTES], uint64_t expected_number,
                     struct frame_header *ret_header, struct err *err)
{
	struct reader in = reader_of(header, FRAME_HEADER_BYTES);
	uint32_t magic = get32(&in);
	unsigned version = (unsigned)get(&in, 2), type = (unsigned)get(&in, 2);
	uint32_t bytes = get32(&in), reserved = get32(&in);
	uint64_t number = get(&in, 8), checksum = get(&in, 8);
	if (magic != FRAME_MAGIC)
		return err_set(err, ERR_PROTOCOL, "not a frame");
	if (version != FRAME_VERSION)
		return err_set(err, ERR_VERSION, "frame of version %u, not %u", version, FRAME_VERSION);
	if (type == 0 || type >= FRAME_TYPES || reserved != 0)
		return err_set(err, ERR_PROTOCOL, "frame of unknown type %u", type);
	if (bytes > FRAME_PAYLOAD_MAX)
		return err_set(err, ERR_PROTOCOL, "frame of %u bytes is over the limit", bytes);
	if (number != expected_number)
		return err_set(err, ERR_PROTOCOL, "frame %llu where %llu is due", (unsigned long long)number,
		               (unsigned long long)expected_number);
	*ret_header = (struct frame_header) { (enum frame_type)type, bytes, number, checksum };
	return 0;
}

int frame_payload_check(const struct frame_header *header, const void *payload, struct err *err)
{
	if (XXH3_64bits(payload, header->bytes) != header->checksum)
		return err_set(err, ERR_CORRUPT, "checksum of %s frame %llu is wrong", frame_type_name(header->type),
		               (unsigned long long)header->number);
	return 0;
}

/* ---- hello ---- */
uint32_t frame_hello_put(unsigned char *payload, const struct frame_hello *hello)
{
	unsigned char *at = put(payload, hello->migration, 8);
	at = put(at, hello->generation, 4);
	at = put(at, hello->side, 1);
	at = put(at, hello->stream, 4);
	at = put(at, hello->disk_count, 4);
	for (uint32_t i = 0; i < hello->disk_count; i++) {
		const struct exporter_access *disk = &hello->disks[i];
		at = put(at, disk->kind, 1);
		at = put(at, disk->lun, 4);
		at = put(at, disk->size_bytes, 8);
		at = put_text(at, disk->export_name, sizeof(disk->export_name));
		at = put_text(at, disk->user, sizeof(disk->user));
		at = put_text(at, disk->secret, sizeof(disk->secret));
	}
	if (hello->earlier) {
		at = put(at, hello->earlier, 4);
		at = put(at, hello->seed, 8);
	}
	return (uint32_t)(at - payload);
}

int frame_hello_get(const void *payload, uint32_t bytes, struct frame_hello *ret_hello, struct err *err)
{
	struct reader in = reader_of(payload, bytes);
	struct frame_hello hello = { .migration = get(&in, 8) };
	hello.generation = get32(&in);
	uint64_t side = get(&in, 1);
	hello.stream = get32(&in);
	hello.disk_count = get32(&in);
	if ((side != SIDE_SOURCE && side != SIDE_DESTINATION) || hello.stream > LIMIT_DISKS ||
	    hello.disk_count > LIMIT_DISKS)
		return err_set(err, ERR_PROTOCOL, "malformed hello frame");
	hello.side = (enum side)side;
	for (uint32_t i = 0; i < hello.disk_count; i++) {
		struct exporter_access *disk = &hello.disks[i];
		uint64_t kind = get(&in, 1);
		if (kind != EXPORTER_NBD && kind != EXPORTER_ISCSI)
			in.bad = true;
		else
			disk->kind = (enum exporter_kind)kind;
		disk->lun = get32(&in);
		disk->size_bytes = get(&in, 8);
		get_word(&in, disk->export_name, sizeof(disk->export_name));
		get_word(&in, disk->user, sizeof(disk->user));
		get_word(&in, disk->secret, sizeof(disk->secret));
	}
	if (in.at != in.end) {
		hello.earlier = get32(&in);
		hello.seed = get(&in, 8);
		if (hello.earlier == 0 || hello.earlier >> hello.disk_count != 0)
			in.bad = true;
	}
	if (finish(&in, FRAME_HELLO, err))
		return -1;
	*ret_hello = hello;
	return 0;
}

/* ---- passes and digests ---- */
uint32_t frame_pass_end_put(unsigned char *payload, const struct frame_pass_end *pass_end)
{
	unsigned char *at = put(payload, pass_end->disk, 4);
	at = put(at, pass_end->pass, 4);
	at = put(at, pass_end->covered_bytes, 8);
	return (uint32_t)(at - payload);
}

int frame_pass_end_get(const void *payload, uint32_t bytes, struct frame_pass_end *ret_pass_end, struct err *err)
{
	struct reader in = reader_of(payload, bytes);
	struct frame_pass_end pass_end = { .disk = get32(&in) };
	pass_end.pass = get32(&in);
	pass_end.covered_bytes = get(&in, 8);
	if (finish(&in, FRAME_PASS_END, err))
		return -1;
	*ret_pass_end = pass_end;
	return 0;
}

uint32_t frame_digests_put(unsigned char *payload, const struct frame_digests *digests)
{
	unsigned char *at = put(payload, digests->disk, 4);
	at = put(at, digests->batch, 4);
	at = put(at, digests->count, 4);
	for (uint32_t i = 0; i < digests->count; i++) {
		at = put(at, digests->granules[i], 4);
		at = put(at, digests->digests[i], 8);
	}
	return (uint32_t)(at - payload);
}

int frame_digests_get(const void *payload, uint32_t bytes, struct frame_digests *ret_digests, struct err *err)
{
	struct reader in = reader_of(payload, bytes);
	uint32_t disk = get32(&in), batch = get32(&in), count = get32(&in);
	if (count > FRAME_DIGESTS_MAX)
		return err_set(err, ERR_PROTOCOL, "malformed digests frame");
	for (uint32_t i = 0; i < count && !in.bad; i++) {
		ret_digests->granules[i] = get32(&in);
		ret_digests->digests[i] = get(&in, 8);
	}
	if (finish(&in, FRAME_DIGESTS, err))
		return -1;
	ret_digests->disk = disk;
	ret_digests->batch = batch;
	ret_digests->count = count;
	return 0;
}

uint32_t frame_digest_result_put(unsigned char *payload, const struct frame_digest_result *result)
{
	unsigned char *at = put(payload, result->disk, 4);
	at = put(at, result->batch, 4);
	at = put(at, result->bad, 4);
	at = put(at, result->first_bad, 4);
	return (uint32_t)(at - payload);
}

int frame_digest_result_get(const void *payload, uint32_t bytes, struct frame_digest_result *ret_result,
                            struct err *err)
{
	struct reader in = reader_of(payload, bytes);
	struct frame_digest_result result = { .disk = get32(&in) };
	result.batch = get32(&in);
	result.bad = get32(&in);
	result.first_bad = get32(&in);
	if (finish(&in, FRAME_DIGEST_RESULT, err))
		return -1;
	*ret_result = result;
	return 0;
}

uint32_t frame_marks_put(unsigned char *payload, const struct frame_marks *marks)
{
	unsigned char *at = put(payload, marks->disk, 4);
	at = put(at, marks->first, 4);
	at = put(at, marks->count, 4);
	for (uint32_t i = 0; marks->marks && i < marks->count; i++) {
		at = put(at, marks->marks[i].low, 8);
		at = put(at, marks->marks[i].high, 8);
	}
	return (uint32_t)(at - payload);
}

int frame_marks_get(const void *payload, uint32_t bytes, struct frame_marks *ret_marks, struct err *err)
{
	struct reader in = reader_of(payload, bytes);
	uint32_t disk = get32(&in), first = get32(&in), count = get32(&in);
	if (count == 0 || count > DISK_MARKS_MAX || first > UINT32_MAX - count)
		in.bad = true;
	for (uint32_t i = 0; ret_marks->marks && i < count && !in.bad; i++) {
		ret_marks->marks[i].low = get(&in, 8);
		ret_marks->marks[i].high = get(&in, 8);
	}
	if (finish(&in, ret_marks->marks ? FRAME_MARKS : FRAME_ASK_MARKS, err))
		return -1;
	ret_marks->disk = disk;
	ret_marks->first = first;
	ret_marks->count = count;
	return 0;
}

/* ---- facts, end of stream, errors ---- */
uint32_t frame_facts_put(unsigned char *payload, const struct verdict_facts *facts)
{
	const bool flags[FACT_FLAGS] = { facts->suspended,  facts->stream_ended, facts->resumed,  facts->released,
		                         facts->activating, facts->running,      facts->renounced };
	unsigned char *at = payload;
	for (unsigned party = 0; party < PARTIES; party++)
		at = put(at, facts->vote[party], 1);
	for (unsigned i = 0; i < FACT_FLAGS; i++)
		at = put(at, flags[i], 1);
	return (uint32_t)(at - payload);
}

static void get_facts(struct reader *in, struct verdict_facts *ret_facts)
{
	struct verdict_facts facts = { 0 };
	bool *const flags[FACT_FLAGS] = { &facts.suspended,  &facts.stream_ended, &facts.resumed,  &facts.released,
		                          &facts.activating, &facts.running,      &facts.renounced };
	for (unsigned party = 0; party < PARTIES; party++) {
		uint64_t vote = get(in, 1);
		if (vote > VOTE_ABORT)
			in->bad = true;
		else
			facts.vote[party] = (enum vote)vote;
	}
	for (unsigned i = 0; i < FACT_FLAGS; i++) {
		uint64_t flag = get(in, 1);
		in->bad |= flag > 1;
		*flags[i] = flag == 1;
	}
	*ret_facts = facts;
}

int frame_facts_get(const void *payload, uint32_t bytes, struct verdict_facts *ret_facts, struct err *err)
{
	struct reader in = reader_of(payload, bytes);
	struct verdict_facts facts;
	get_facts(&in, &facts);
	if (finish(&in, FRAME_FACTS, err))
		return -1;
	*ret_facts = facts;
	return 0;
}

uint32_t frame_end_put(unsigned char *payload, const struct frame_end *end)
{
	unsigned char *at = put(payload, end->memory_bytes, 8);
	at = put(at, end->disk_count, 4);
	return (uint32_t)(at - payload) + frame_facts_put(at, &end->facts);
}

int frame_end_get(const void *payload, uint32_t bytes, struct frame_end *ret_end, struct err *err)
{
	struct reader in = reader_of(payload, bytes);
	struct frame_end end = { .memory_bytes = get(&in, 8) };
	end.disk_count = get32(&in);
	get_facts(&in, &end.facts);
	if (finish(&in, FRAME_END, err))
		return -1;
	*ret_end = end;
	return 0;
}

uint32_t frame_error_put(unsigned char *payload, const struct err *cause)
{
	unsigned char *at = put(payload, cause->code, 4);
	at = put_text(at, cause->text, sizeof(cause->text));
	return (uint32_t)(at - payload);
}

int frame_error_get(const void *payload, uint32_t bytes, struct err *ret_cause, struct err *err)
{
	struct reader in = reader_of(payload, bytes);
	uint32_t code = get32(&in);
	size_t length = (size_t)get(&in, 2);
	if (in.bad || code == ERR_NONE || code >= ERR_CODES || length >= LIMIT_TEXT ||
	    (size_t)(in.end - in.at) != length)
		return err_set(err, ERR_PROTOCOL, "malformed error frame");
	ret_cause->code = (enum err_code)code;
	for (size_t i = 0; i < length; i++)
		ret_cause->text[i] = (char)(in.at[i] < ' ' || in.at[i] > '~' ? '?' : in.at[i]);
	ret_cause->text[length] = '\0';
	return 0;
}
