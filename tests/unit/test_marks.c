/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stream 0's words about earlier copies, and a source that is told what it has not asked for. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/leg/source.h"

static void hello__with_earlier_copies__is_longer_and_checked(void **state)
{
	unsigned char payload[8192];
	struct frame_hello read, hello = { .migration = 7, .generation = 1, .side = SIDE_DESTINATION, .disk_count = 2 };
	for (unsigned i = 0; i < 2; i++)
		hello.disks[i] =
			(struct exporter_access) { .kind = EXPORTER_NBD, .size_bytes = 1 << 20, .export_name = "x" };
	(void)state;
	uint32_t plain = frame_hello_put(payload, &hello);
	hello.earlier = 2;
	hello.seed = 0x0123456789abcdefull;
	uint32_t bytes = frame_hello_put(payload, &hello);
	assert_int_equal(bytes, plain + 12);
	assert_int_equal(frame_hello_get(payload, bytes, &read, NULL), 0);
	assert_int_equal(read.earlier, 2);
	assert_true(read.seed == hello.seed);
	assert_int_equal(frame_hello_get(payload, plain, &read, NULL), 0); /* an older version's */
	assert_int_equal(read.earlier, 0);
	for (uint32_t cut = plain + 1; cut < bytes; cut++)
		assert_int_equal(frame_hello_get(payload, cut, &read, NULL), -1);
	payload[plain] = 4; /* of a disk that there is not */
	assert_int_equal(frame_hello_get(payload, bytes, &read, NULL), -1);
	payload[plain] = 0; /* of none: then it is not said */
	assert_int_equal(frame_hello_get(payload, bytes, &read, NULL), -1);
}

static void marks__there_and_back__and_bounded(void **state)
{
	static unsigned char payload[FRAME_PAYLOAD_MAX];
	static struct disk_mark marks[DISK_MARKS_MAX], read_marks[DISK_MARKS_MAX];
	(void)state;
	for (uint32_t i = 0; i < DISK_MARKS_MAX; i++)
		marks[i] = (struct disk_mark) { i * 0x9e3779b97f4a7c15ull, ~(uint64_t)i };
	struct frame_marks out = { 1, 4096, DISK_MARKS_MAX, marks }, in = { .marks = read_marks };
	uint32_t bytes = frame_marks_put(payload, &out);
	assert_true(bytes <= FRAME_PAYLOAD_MAX);
	assert_int_equal(frame_marks_get(payload, bytes, &in, NULL), 0);
	assert_int_equal(in.first, 4096);
	assert_int_equal(in.count, DISK_MARKS_MAX);
	assert_memory_equal(marks, read_marks, sizeof(marks));
	assert_int_equal(frame_marks_get(payload, bytes - 1, &in, NULL), -1);
	struct frame_marks question = { .marks = NULL };
	assert_int_equal(frame_marks_get(payload, bytes, &question, NULL), -1); /* an answer is no question */
	out.marks = NULL;
	bytes = frame_marks_put(payload, &out);
	assert_int_equal(frame_marks_get(payload, bytes, &question, NULL), 0);
	assert_int_equal(question.count, DISK_MARKS_MAX);
	assert_int_equal(frame_marks_get(payload, bytes, &in, NULL), -1); /* nor the other way round */
	payload[8] = 1;                                                   /* one more than there may be */
	assert_int_equal(frame_marks_get(payload, bytes, &question, NULL), -1);
	payload[8] = payload[9] = 0; /* none */
	assert_int_equal(frame_marks_get(payload, bytes, &question, NULL), -1);
	payload[8] = 1;
	memset(payload + 4, 0xff, 4); /* beyond every disk */
	assert_int_equal(frame_marks_get(payload, bytes, &question, NULL), -1);
}

/* A source that has asked for the marks of one window; the disk has one and a half. */
static void marks__that_were_not_asked_for__refused(void **state)
{
	static unsigned char payload[FRAME_PAYLOAD_MAX];
	static struct disk_mark marks[DISK_MARKS_MAX], room[2][DISK_MARKS_MAX];
	static struct source source;
	struct err err = { 0 };
	(void)state;
	memset(&source, 0, sizeof(source));
	pthread_mutex_init(&source.lock, NULL);
	pthread_cond_init(&source.changed, NULL);
	source.disk_count = 1;
	source.disks[0].hv.size_bytes = (uint64_t)DISK_MARKS_MAX * DISK_GRANULE_BYTES * 3 / 2;
	source.disks[0].marks[0] = room[0];
	source.disks[0].marks[1] = room[1];
	const struct frame_marks wrong[] = {
		{ 1, 0, DISK_MARKS_MAX, marks },              /* no such disk */
		{ 0, DISK_MARKS_MAX, DISK_MARKS_MAX, marks }, /* another window */
		{ 0, 0, DISK_MARKS_MAX - 1, marks },          /* not the whole of it */
	};
	struct frame_marks right = { 0, 0, DISK_MARKS_MAX, marks };
	assert_int_equal(source_marks(&source, payload, frame_marks_put(payload, &right), &err), -1);
	assert_int_equal(err.code, ERR_PROTOCOL);
	source.disks[0].windows_out = 2;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(source_marks(&source, payload, frame_marks_put(payload, &wrong[i]), &err), -1);
	marks[7].low = 99;
	assert_int_equal(source_marks(&source, payload, frame_marks_put(payload, &right), &err), 0);
	assert_int_equal(room[0][7].low, 99);
	assert_int_equal(source_marks(&source, payload, frame_marks_put(payload, &right), &err), -1); /* twice */
	right = (struct frame_marks) { 0, DISK_MARKS_MAX, DISK_MARKS_MAX / 2, marks };
	assert_int_equal(source_marks(&source, payload, frame_marks_put(payload, &right), &err), 0);
	assert_int_equal(room[1][7].low, 99);
	right = (struct frame_marks) { 0, 2 * DISK_MARKS_MAX, 1, marks };
	assert_int_equal(source_marks(&source, payload, frame_marks_put(payload, &right), &err), -1);
	pthread_cond_destroy(&source.changed);
	pthread_mutex_destroy(&source.lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello__with_earlier_copies__is_longer_and_checked),
		cmocka_unit_test(marks__there_and_back__and_bounded),
		cmocka_unit_test(marks__that_were_not_asked_for__refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
