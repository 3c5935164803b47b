/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a peer may send on stream 0, and an agent to its leg (one packet). First byte: which decoder (0: a header and
 * what follows it; 8: a packet).
 */
#include <sys/socket.h>
#include <sys/un.h>

#include "agent/leg/control.h"
#include "agent/leg/frame.h"
#include "common/log.h"
#include "tests/fuzz/fuzz_folder.h"

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

static void marks(const uint8_t *data, uint32_t size, bool question)
{
	static struct disk_mark values[DISK_MARKS_MAX];
	static unsigned char again[FRAME_PAYLOAD_MAX];
	struct frame_marks read = { .marks = question ? NULL : values };
	struct err err;
	if (frame_marks_get(data, size, &read, &err))
		return;
	fuzz_must(frame_marks_put(again, &read) == size && memcmp(again, data, size) == 0,
	          "marks: not as they were sent", NULL);
}

/* The small ones: taken is as it was sent. */
static void must_be_same(const uint8_t *data, uint32_t size, const unsigned char *again, uint32_t bytes,
                         const char *what)
{
	fuzz_must(bytes == size && memcmp(again, data, size) == 0, what, NULL);
}

static void small(unsigned which, const uint8_t *data, uint32_t size)
{
	static unsigned char again[FRAME_PAYLOAD_MAX];
	struct frame_pass_end pass_end;
	struct frame_digest_result result;
	struct frame_end end;
	struct verdict_facts facts;
	struct err err = { 0 };
	if (which == 3 && frame_pass_end_get(data, size, &pass_end, &err) == 0)
		must_be_same(data, size, again, frame_pass_end_put(again, &pass_end), "pass end: other bytes");
	if (which == 4 && frame_digest_result_get(data, size, &result, &err) == 0)
		must_be_same(data, size, again, frame_digest_result_put(again, &result), "digest result: other bytes");
	if (which == 5 && frame_end_get(data, size, &end, &err) == 0)
		must_be_same(data, size, again, frame_end_put(again, &end), "end: other bytes");
	if (which == 6 && frame_facts_get(data, size, &facts, &err) == 0)
		must_be_same(data, size, again, frame_facts_put(again, &facts), "facts: other bytes");
}

static struct control *control_begin(struct sockaddr_un *ret_address)
{
	static struct paths paths;
	struct control *control = NULL;
	struct err err = { 0 };
	log_level_set((enum log_level)(LOG_LEVEL_ERROR - 1)); /* of garbage it would tell each time */
	fuzz_folder_make();
	fuzz_must(paths_init(&paths, fuzz_folder, &err) == 0 && paths_make(&paths, &err) == 0, "paths", &err);
	fuzz_must(control_open(&control, &paths, 7, &err) == 0, "control socket", &err);
	ret_address->sun_family = AF_UNIX;
	snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%.80s/run/leg-7.sock", fuzz_folder);
	return control;
}

/* Garbage costs its sender the connection; what is no garbage does not. */
static void packet(const uint8_t *data, uint32_t size)
{
	static struct control *control;
	static struct sockaddr_un address;
	static struct msg msg;
	if (control == NULL)
		control = control_begin(&address);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	fuzz_must(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "connect", NULL);
	fuzz_must(control_accept(control) && send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size, "send", NULL);
	int got = control_read(control, &msg);
	fuzz_must(got == 1 ? control_fd(control) >= 0 : control_fd(control) < 0, "the connection after a packet", NULL);
	if (got == 1)
		msg_free(&msg);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err cause, err;
	if (size == 0 || size > FRAME_PAYLOAD_MAX)
		return 0;
	uint32_t bytes = (uint32_t)size - 1;
	switch (data[0] % 11) {
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
	case 4:
	case 5:
	case 6:
		small(data[0] % 11, data + 1, bytes);
		break;
	case 9:
	case 10:
		marks(data + 1, bytes, data[0] % 11 == 9);
		break;
	case 7:
		fuzz_must(frame_error_get(data + 1, bytes, &cause, &err) != 0 || strlen(cause.text) < LIMIT_TEXT,
		          "words without an end", NULL);
		break;
	case 8:
		packet(data + 1, bytes);
		break;
	}
	return 0;
}
