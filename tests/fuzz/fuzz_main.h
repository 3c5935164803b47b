/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What all fuzz targets have in common. Each is one file with an LLVMFuzzerTestOneInput(); it is built for libFuzzer
 * with -DDROVER_LIBFUZZER, and without it as a program that does the same with each file given as an argument.
 */
#ifndef DROVER_FUZZ_MAIN_H
#define DROVER_FUZZ_MAIN_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

#define FUZZ_FILE_BYTES (1024 * 1024) /* the largest input that is replayed */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Ends the process, for the fuzzer to see, unless `good`. `err` may be NULL. */
static inline void fuzz_must(bool good, const char *what, const struct err *err)
{
	if (good)
		return;
	fprintf(stderr, "%s: %s%s%s\n", program_invocation_short_name, what, err ? ": " : "", err ? err->text : "");
	abort();
}

/* A refusal has a code and words, and the words an end. */
static inline void fuzz_must_be_worded(const struct err *err)
{
	fuzz_must(err->code != ERR_NONE && err->code < ERR_CODES && err->text[0] != '\0', "refused without words", err);
	fuzz_must(memchr(err->text, '\0', sizeof(err->text)) != NULL, "words without an end", NULL);
}

/* An input that is taken apart from the front; what is beyond its end is 0. */
struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

static inline void fuzz_take(struct fuzz_input *input, void *ret_bytes, size_t count)
{
	size_t there = count < input->left ? count : input->left;
	memset(ret_bytes, 0, count);
	if (there > 0)
		memcpy(ret_bytes, input->at, there);
	input->at += there;
	input->left -= there;
}

static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
	uint8_t byte;
	fuzz_take(input, &byte, 1);
	return byte;
}

/* What comes before the next `end`, which is taken too; all that is left if there is none. */
static inline struct fuzz_input fuzz_part(struct fuzz_input *input, uint8_t end)
{
	const uint8_t *found = input->left > 0 ? memchr(input->at, end, input->left) : NULL;
	struct fuzz_input part = { input->at, found != NULL ? (size_t)(found - input->at) : input->left };
	size_t taken = part.left + (found != NULL ? 1 : 0);
	input->at += taken;
	input->left -= taken;
	return part;
}

/* As a string of its own, so that a sanitizer sees where it ends. The caller frees it. */
static inline char *fuzz_text(const struct fuzz_input *input)
{
	char *text = malloc(input->left + 1);
	fuzz_must(text != NULL, "no memory", NULL);
	if (input->left > 0)
		memcpy(text, input->at, input->left);
	text[input->left] = '\0';
	return text;
}

#ifndef DROVER_LIBFUZZER

static int fuzz_replay(const char *path)
{
	static uint8_t data[FUZZ_FILE_BYTES];
	FILE *file = fopen(path, "rb");
	if (file == NULL) {
		perror(path);
		return -1;
	}
	size_t bytes = fread(data, 1, sizeof(data), file);
	fclose(file);
	uint8_t *exact = malloc(bytes == 0 ? 1 : bytes); /* so that a sanitizer sees where it ends */
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
		if (fuzz_replay(argv[i]) != 0)
			return 1;
	printf("%s: %d files, none broke it\n", program_invocation_short_name, argc - 1);
	return argc > 1 ? 0 : 1;
}

#endif
#endif
