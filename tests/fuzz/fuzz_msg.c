/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any bytes as a frame, a plan and an inventory: they are refused with words, or what comes out can be encoded, decoded
 * and encoded again to the same bytes. Anything else aborts, for the fuzzer to see.
 *
 * Built for libFuzzer with -DDROVER_LIBFUZZER; otherwise a program that does it with each file given as an argument.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/msg.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

static void must(bool good, const char *what, const struct err *err)
{
	if (good)
		return;
	fprintf(stderr, "fuzz_msg: %s: %s\n", what, err->text);
	abort();
}

static void must_be_worded(const struct err *err)
{
	must(err->code != ERR_NONE && err->code < ERR_CODES && err->text[0] != '\0', "refused without words", err);
	must(memchr(err->text, '\0', sizeof(err->text)) != NULL, "words without an end", err);
}

static void try_frame(const unsigned char *data, size_t bytes)
{
	struct msg msg, again;
	struct err err = { 0 };
	void *one, *two;
	size_t one_bytes, two_bytes;
	if (msg_decode(data, bytes, &msg, &err) != 0) {
		must_be_worded(&err);
		return;
	}
	must(msg_encode(&msg, &one, &one_bytes, &err) == 0, "decoded, but cannot be encoded", &err);
	must(msg_decode(one, one_bytes, &again, &err) == 0, "encoded, but cannot be decoded", &err);
	must(msg.kind == again.kind, "another kind", &err);
	must(msg_encode(&again, &two, &two_bytes, &err) == 0, "decoded again, but cannot be encoded", &err);
	must(one_bytes == two_bytes && memcmp(one, two, one_bytes) == 0, "other bytes the second time", &err);
	free(one);
	free(two);
	msg_free(&msg);
	msg_free(&again);
}

static void try_plan(const unsigned char *data, size_t bytes)
{
	struct msg_plan plan, again;
	struct err err = { 0 };
	void *one;
	size_t one_bytes;
	if (msg_plan_decode(data, bytes, &plan, &err) != 0) {
		must_be_worded(&err);
		return;
	}
	must(msg_plan_encode(&plan, &one, &one_bytes, &err) == 0, "plan cannot be encoded", &err);
	must(msg_plan_decode(one, one_bytes, &again, &err) == 0, "plan cannot be decoded", &err);
	must(memcmp(&plan, &again, sizeof(plan)) == 0, "another plan", &err);
	free(one);
}

static void try_inventory(const unsigned char *data, size_t bytes)
{
	struct msg_inventory inv, again;
	struct err err = { 0 };
	void *one;
	size_t one_bytes;
	if (msg_inventory_decode(data, bytes, &inv, &err) != 0) {
		must_be_worded(&err);
		return;
	}
	must(msg_inventory_encode(&inv, &one, &one_bytes, &err) == 0, "inventory cannot be encoded", &err);
	must(msg_inventory_decode(one, one_bytes, &again, &err) == 0, "inventory cannot be decoded", &err);
	must(msg_inventory_digest(&inv) == msg_inventory_digest(&again), "another digest", &err);
	must(inv.digest == again.digest && inv.vm_count == again.vm_count, "another inventory", &err);
	free(one);
	msg_inventory_free(&inv);
	msg_inventory_free(&again);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes)
{
	try_frame(data, bytes);
	try_plan(data, bytes);
	try_inventory(data, bytes);
	return 0;
}

#ifndef DROVER_LIBFUZZER

#define FILE_MAX_BYTES (1024 * 1024)

static int replay(const char *path)
{
	static unsigned char data[FILE_MAX_BYTES];
	FILE *file = fopen(path, "rb");
	if (file == NULL) {
		perror(path);
		return -1;
	}
	size_t bytes = fread(data, 1, sizeof(data), file);
	fclose(file);
	unsigned char *exact = malloc(bytes == 0 ? 1 : bytes); /* so that a sanitizer sees where it ends */
	if (exact == NULL)
		return -1;
	memcpy(exact, data, bytes);
	LLVMFuzzerTestOneInput(exact, bytes);
	free(exact);
	return 0;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (replay(argv[i]) != 0)
			return 1;
	printf("fuzz_msg: %d files, none broke it\n", argc - 1);
	return argc > 1 ? 0 : 1;
}

#endif
