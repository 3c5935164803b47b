/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any words as the command line of `drover`, and any text as a quantity (if there is one word only). A request that was
 * taken can be sent; a quantity that was taken can be shown. */
#include "common/units.h"
#include "coordinator/cli/args.h"
#include "coordinator/cli/text.h"
#include "tests/fuzz/fuzz_main.h"

#define WORDS_MAX 32

static void try_units(const char *text)
{
	char shown[UNITS_TEXT];
	uint64_t value = 0;
	int64_t wall_ms;
	struct err err = { 0 };
	static const struct {
		int (*parse)(const char *text, uint64_t *ret, struct err *err);
		void (*format)(uint64_t value, char ret_text[UNITS_TEXT]);
	} kinds[] = { { units_parse_size, units_format_size },
		      { units_parse_rate, units_format_rate },
		      { units_parse_duration, units_format_duration },
		      { units_parse_number, units_format_size } };
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i].parse(text, &value, &err) != 0) {
			fuzz_must_be_worded(&err);
			continue;
		}
		fuzz_must(text[0] >= '0' && text[0] <= '9', "a quantity that begins with something else", NULL);
		kinds[i].format(value, shown);
		fuzz_must(memchr(shown, '\0', sizeof(shown)) != NULL, "a figure without an end", NULL);
	}
	if (text_time(text, &wall_ms) == 0)
		text_relative(shown, wall_ms, 0);
}

static void try_send(const struct cli_args *args)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	struct err err = { 0 };
	void *frame;
	size_t bytes;
	fuzz_must(msg != NULL, "no memory", NULL);
	msg->version = PROTOCOL_VERSION;
	msg->sequence = 1;
	msg->kind = MSG_REQUEST;
	msg->u.request = args->request;
	if (msg_encode(msg, &frame, &bytes, &err) == 0)
		free(frame);
	else
		fuzz_must(false, "taken, but cannot be sent", &err);
	free(msg);
}

static void try_words(int count, char **words)
{
	static struct cli_args args;
	static FILE *nowhere;
	struct err err = { 0 };
	if (nowhere == NULL)
		nowhere = fopen("/dev/null", "w");
	if (args_parse(&args, count, words, &err) != 0)
		fuzz_must_be_worded(&err);
	else if (args.ask == CLI_HELP || args.ask == CLI_USAGE)
		args_help(&args, nowhere);
	else if (args.ask == CLI_RUN && args.command != CLI_NONE && args.command < CLI_KEY_GENERATE)
		try_send(&args);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct fuzz_input input = { data, bytes };
	char *words[WORDS_MAX + 2] = { fuzz_text(&(struct fuzz_input) { (const uint8_t *)"drover", 6 }) };
	int count = 1;
	while (input.left > 0 && count < WORDS_MAX) {
		struct fuzz_input word = fuzz_part(&input, '\n');
		words[count++] = fuzz_text(&word);
	}
	if (count == 2)
		try_units(words[1]);
	char *given[WORDS_MAX + 2];
	memcpy(given, words, sizeof(given)); /* it may be put in another order */
	try_words(count, given);
	for (int i = 0; i < count; i++)
		free(words[i]);
	return 0;
}
