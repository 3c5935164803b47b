/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/frame.h"

#include <inttypes.h>
#include <string.h>

#include "common/units.h"
#include "coordinator/cli/doc.h"
#include "coordinator/cli/exits.h"
#include "coordinator/cli/text.h"

#define BAR_MIN 6u
#define BAR_MAX 40u
#define NAME_MAX_COLUMNS 12u

/* Columns that show: escape sequences of ours take none. */
static size_t visible_columns(const char *text)
{
	size_t columns = 0;

	while (*text) {
		size_t plain = strcspn(text, "\033");
		char part[FRAME_BYTES];

		if (plain >= sizeof(part))
			plain = sizeof(part) - 1;
		memcpy(part, text, plain);
		part[plain] = '\0';
		columns += text_columns(part);
		text += plain;
		if (*text == '\033')
			text += strcspn(text, "m") + (strchr(text, 'm') != NULL);
	}
	return columns;
}

void frame_add(struct frame *frame, const struct screen *screen, enum hue hue, const char *text)
{
	char plain[FRAME_BYTES];

	if (frame->count == FRAME_LINES)
		return;
	snprintf(plain, sizeof(plain), "%s", text);
	text_cut(plain, screen->columns);
	snprintf(frame->lines[frame->count], FRAME_BYTES, "%s%.*s%s", screen_hue(screen, hue), FRAME_BYTES - 32, plain,
	         screen_plain(screen, hue));
	frame->count++;
}

/* Adds to a line while its plain text fits the width; nothing more once something did not. */
struct builder {
	const struct screen *screen;
	char *text;
	size_t used, columns;
	bool full;
};

static void put(struct builder *b, enum hue hue, const char *text)
{
	size_t columns = text_columns(text);

	if (b->full || b->columns + columns > b->screen->columns) {
		b->full = true;
		return;
	}
	int more = snprintf(b->text + b->used, FRAME_BYTES - b->used, "%s%s%s", screen_hue(b->screen, hue), text,
	                    screen_plain(b->screen, hue));
	if (more < 0 || (size_t)more >= FRAME_BYTES - b->used) {
		b->text[b->used] = '\0';
		b->full = true;
		return;
	}
	b->used += (size_t)more;
	b->columns += columns;
}

static void put_rate(struct builder *b, const json_t *doc)
{
	uint64_t rate = doc_number(doc, "progress.rate_bps", 0), eta_ms = doc_number(doc, "progress.eta_ms", 0);
	char figure[TEXT_FIGURE], text[TEXT_FIGURE + 16];

	if (!state_is_moving(doc_text(doc, "state")))
		return;
	if (rate) {
		units_format_rate(rate, figure);
		snprintf(text, sizeof(text), "  %s", figure);
		put(b, HUE_NONE, text);
	}
	if (eta_ms) {
		units_format_duration(eta_ms, figure);
		snprintf(text, sizeof(text), "  %s left", figure);
		put(b, HUE_NONE, text);
	}
}

void frame_headline(char ret_text[FRAME_BYTES], const struct screen *screen, const json_t *doc)
{
	const char *name = *doc_text(doc, "vm.name") ? doc_text(doc, "vm.name") : doc_text(doc, "vm.uuid");
	const char *state = *doc_text(doc, "state") ? doc_text(doc, "state") : "?",
		   *authority = doc_text(doc, "authority");
	struct builder b = { .screen = screen, .text = ret_text };
	char text[FRAME_BYTES], figure[TEXT_FIGURE];
	int64_t started = doc_time(doc, "submitted_at"), ended = doc_time(doc, "ended_at");
	int64_t until = ended >= 0 ? ended : screen->now_wall_ms;

	ret_text[0] = '\0';
	snprintf(text, sizeof(text), "%" PRIu64 " %.128s", doc_number(doc, "id", 0), name);
	put(&b, HUE_BOLD, text);
	snprintf(text, sizeof(text), "  %.64s", state);
	put(&b, hue_of_word(state), text);
	snprintf(text, sizeof(text), "  %.64s -> %.64s", doc_text(doc, "source"), doc_text(doc, "destination"));
	put(&b, HUE_NONE, text);
	if (*authority) {
		snprintf(text, sizeof(text), "  authority %.32s", authority);
		put(&b, HUE_NONE, text);
	}
	if (started >= 0 && until >= started) {
		units_format_duration((uint64_t)(until - started) / 1000 * 1000, figure);
		snprintf(text, sizeof(text), "  %s", strcmp(figure, "0 ms") == 0 ? "0s" : figure);
		put(&b, HUE_NONE, text);
	}
	put_rate(&b, doc);
}

/* "xvda    [####----]  42%  1.2 GiB of 3.0 GiB  pass 2", from the left as much as fits. */
static void add_bar(struct frame *frame, const struct screen *screen, const char *name, uint64_t done, uint64_t total,
                    const char *detail)
{
	char label[FRAME_BYTES / 4], text[FRAME_BYTES], bar[3 * BAR_MAX + 8];
	struct builder b = { .screen = screen, .text = text };
	size_t width, fixed = NAME_MAX_COLUMNS + 1 + 6;

	if (frame->count == FRAME_LINES)
		return;
	snprintf(label, sizeof(label), "%.128s", name);
	text_cut(label, NAME_MAX_COLUMNS);
	snprintf(label + strlen(label), sizeof(label) - strlen(label), "%*s",
	         (int)(NAME_MAX_COLUMNS + 1 - text_columns(label)), "");
	width = screen->columns > fixed + BAR_MIN ? (screen->columns - fixed) / 2 : BAR_MIN;
	width = width < BAR_MIN ? BAR_MIN : width > BAR_MAX ? BAR_MAX : width;
	text_bar(bar, sizeof(bar), width, done, total, screen->utf8);
	text[0] = '\0';
	put(&b, HUE_NONE, label);
	put(&b, done >= total ? HUE_GOOD : HUE_BUSY, bar);
	snprintf(label, sizeof(label), " %3u%%", text_percent(done, total));
	put(&b, HUE_NONE, label);
	put(&b, HUE_NONE, detail);
	memcpy(frame->lines[frame->count++], text, strlen(text) + 1);
}

/* "  1.2 GiB of 3.0 GiB  pass 2" */
static void detail_text(char *ret_text, size_t bytes, uint64_t done, uint64_t total, uint64_t pass)
{
	char a[TEXT_FIGURE], b[TEXT_FIGURE];

	units_format_size(done, a);
	units_format_size(total, b);
	snprintf(ret_text, bytes, "  %s of %s  pass %" PRIu64, a, b, pass);
}

/* The destination has it all, whatever was reported last. */
static bool arrived(const json_t *doc)
{
	return strcmp(doc_text(doc, "authority"), "destination") == 0;
}

static void add_memory(struct frame *frame, const struct screen *screen, const json_t *doc)
{
	uint64_t total = doc_number(doc, "progress.memory.total_bytes", 0),
		 sent = doc_number(doc, "progress.memory.sent_bytes", 0);
	uint64_t dirty = doc_number(doc, "progress.memory.dirty_bytes", 0),
		 pass = doc_number(doc, "progress.memory.pass", 0);
	/* What is dirty has to be sent again: the bar goes back, and should. */
	uint64_t done = sent > total ? total : sent;
	char detail[128];

	if (!total)
		return;
	if (pass > 0)
		done = dirty < total ? total - dirty : 0;
	if (arrived(doc))
		done = total;
	detail_text(detail, sizeof(detail), done, total, pass);
	add_bar(frame, screen, "memory", done, total, detail);
}

void frame_fill(struct frame *ret_frame, const struct screen *screen, const json_t *doc)
{
	const json_t *disk;
	char text[FRAME_BYTES];
	size_t index;

	ret_frame->count = 1;
	frame_headline(ret_frame->lines[0], screen, doc);
	json_array_foreach(doc_list(doc, "progress.disks"), index, disk)
	{
		uint64_t size = doc_number(disk, "size_bytes", 0), left = doc_number(disk, "left_bytes", size);
		uint64_t done = arrived(doc) ? size : left < size ? size - left : 0;

		detail_text(text, 128, done, size, doc_number(disk, "pass", 0));
		add_bar(ret_frame, screen, doc_text(disk, "name"), done, size, text);
	}
	add_memory(ret_frame, screen, doc);
	if (doc_number(doc, "progress.throttle_percent", 0)) {
		snprintf(text, sizeof(text), "the guest is slowed down by %" PRIu64 "%%",
		         doc_number(doc, "progress.throttle_percent", 0));
		frame_add(ret_frame, screen, HUE_WARN, text);
	}
	if (*doc_text(doc, "cause.message")) {
		snprintf(text, sizeof(text), "%.64s: %.600s", doc_text(doc, "cause.code"),
		         doc_text(doc, "cause.message"));
		frame_add(ret_frame, screen, HUE_BAD, text);
	}
}

void frame_draw(const struct screen *screen, struct frame_drawn *drawn, const struct frame *frame)
{
	unsigned up = 0, count = frame->count;

	/* What has scrolled off the top cannot be drawn over. */
	if (screen->rows > 1 && count > screen->rows - 1)
		count = screen->rows - 1;
	for (unsigned i = 0; i < drawn->count; i++) {
		unsigned width = drawn->widths[i] ? drawn->widths[i] : 1;

		up += (width + screen->columns - 1) / screen->columns;
	}
	if (up)
		fprintf(screen->out, "\033[%uA", up);
	fputc('\r', screen->out);
	for (unsigned i = 0; i < count; i++) {
		fprintf(screen->out, "%s\033[K\n", frame->lines[i]);
		drawn->widths[i] = (unsigned)visible_columns(frame->lines[i]);
	}
	fputs("\033[J", screen->out);
	drawn->count = count;
	fflush(screen->out);
}
