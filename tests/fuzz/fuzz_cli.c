/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as the coordinator's answer, shown in every way that there is. The first byte says what the screen is like.
 */
#include <locale.h>

#include "coordinator/cli/doc.h"
#include "coordinator/cli/frame.h"
#include "coordinator/cli/print.h"
#include "coordinator/cli/text.h"
#include "tests/fuzz/fuzz_main.h"

#define NOW_MS INT64_C(1795388763000)

static void show(const struct screen *screen, const json_t *doc)
{
	static struct frame frame;
	static struct frame_drawn drawn;
	print_migrations(screen, doc, true);
	print_hosts(screen, doc);
	print_vms(screen, doc);
	print_leftovers(screen, doc);
	print_events(screen, doc);
	print_checks(screen, doc);
	free(print_migrations_text(screen, doc));
	print_outline(screen, doc, 0);
	print_migration(screen, doc);
	print_explanation(screen, doc);
	print_summary(screen, doc);
	frame_fill(&frame, screen, doc);
	fuzz_must(frame.count <= FRAME_LINES, "too many lines", NULL);
	for (unsigned i = 0; i < frame.count; i++)
		fuzz_must(memchr(frame.lines[i], '\0', FRAME_BYTES) != NULL, "a line without an end", NULL);
	frame_draw(screen, &drawn, &frame);
}

/* What a terminal gets is clean, however dirty it came. */
static void try_clean(const char *text)
{
	size_t bytes = strlen(text) + 1;
	char *clean = malloc(bytes);
	fuzz_must(clean != NULL, "no memory", NULL);
	for (size_t room = bytes; room > 0; room /= 2) {
		text_clean(clean, room, text);
		fuzz_must(text_is_clean(clean), "cleaned, but not clean", NULL);
		text_cut(clean, room / 2);
		fuzz_must(text_columns(clean) <= room / 2, "cut, but too wide", NULL);
	}
	free(clean);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct screen screen;
	struct err err = { 0 };
	json_t *doc = NULL;
	if (bytes == 0)
		return 0;
	if (screen.out == NULL) {
		setlocale(LC_ALL, "C.UTF-8");
		screen.out = fopen("/dev/null", "w");
	}
	screen.terminal = data[0] & 1;
	screen.colour = data[0] & 2;
	screen.utf8 = data[0] & 4;
	screen.columns = 10 + data[0];
	screen.now_wall_ms = NOW_MS;
	char *text = fuzz_text(&(struct fuzz_input) { data + 1, bytes - 1 });
	try_clean(text);
	if (doc_parse(&doc, text, &err) == 0) {
		doc_clean(doc);
		show(&screen, doc);
		json_decref(doc);
	} else {
		fuzz_must_be_worded(&err);
	}
	free(text);
	return 0;
}
