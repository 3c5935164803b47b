/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a peer may send on stream 0. First byte: which decoder (0: a header and what follows it).
 */
#include "agent/leg/frame.h"
#include "tests/fuzz/fuzz_main.h"

static void whole_frame(const uint8_t *data, size_t size)
{
	struct frame_header header;
	struct err err;
	if (size < FRAME_HEADER_BYTES || frame_header_get(data, 0, &header, &err))
		return;
	if (size - FRAME_HEADER_BYTES >= header.bytes)
		(void)frame_payload_check(&header, data + FRAME_HEADER_BYTES, &err);
}

/* What was taken can be sent again, and is taken again. */
static void hello(const uint8_t *data, uint32_t size)
{
	static unsigned char again[FRAME_PAYLOAD_MAX];
	struct frame_hello one, two;
	struct err err;
	if (frame_hello_get(data, size, &one, &err))
		return;
	uint32_t bytes = frame_hello_put(again, &one);
	fuzz_must(bytes == size && memcmp(again, data, size) == 0, "hello: other bytes the second time", NULL);
	fuzz_must(frame_hello_get(again, bytes, &two, &err) == 0, "hello: not taken again", &err);
}

static void digests(const uint8_t *data, uint32_t size)
{
	static uint32_t granules[FRAME_DIGESTS_MAX];
	static uint64_t values[FRAME_DIGESTS_MAX];
	static unsigned char again[FRAME_PAYLOAD_MAX];
	struct frame_digests read = { .granules = granules, .digests = values };
	struct err err;
	if (frame_digests_get(data, size, &read, &err))
		return;
	fuzz_must(frame_digests_put(again, &read) == size && memcmp(again, data, size) == 0,
	          "digests: other bytes the second time", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_pass_end pass_end;
	struct frame_digest_result result;
	struct frame_end end;
	struct verdict_facts facts;
	struct err cause, err;
	if (size == 0 || size > FRAME_PAYLOAD_MAX)
		return 0;
	uint32_t bytes = (uint32_t)size - 1;
	switch (data[0] % 8) {
	case 0:
		whole_frame(data + 1, bytes);
		break;
	case 1:
		hello(data + 1, bytes);
		break;
	case 2:
		digests(data + 1, bytes);
		break;
	case 3:
		(void)frame_pass_end_get(data + 1, bytes, &pass_end, &err);
		break;
	case 4:
		(void)frame_digest_result_get(data + 1, bytes, &result, &err);
		break;
	case 5:
		(void)frame_end_get(data + 1, bytes, &end, &err);
		break;
	case 6:
		(void)frame_facts_get(data + 1, bytes, &facts, &err);
		break;
	case 7:
		fuzz_must(frame_error_get(data + 1, bytes, &cause, &err) != 0 || strlen(cause.text) < LIMIT_TEXT,
		          "words without an end", NULL);
		break;
	}
	return 0;
}
