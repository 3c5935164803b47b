/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The live view of one migration as lines of text, and drawing them over the ones before. frame_fill() is pure but for
 * the locale.
 */
#ifndef DROVER_CLI_FRAME_H
#define DROVER_CLI_FRAME_H

#include <jansson.h>

#include "coordinator/cli/screen.h"

#define FRAME_LINES 40   /* a header, a line a disk, memory, notes; or a list of migrations */
#define FRAME_BYTES 1700 /* a line: four bytes a column at the widest, and colours */

struct frame {
	unsigned count;
	char lines[FRAME_LINES][FRAME_BYTES];
};

/* One line: id, VM, hosts, state, authority, rate, time left. */
void frame_headline(char ret_text[FRAME_BYTES], const struct screen *screen, const json_t *doc);
/* The lines for a migration at this moment, none wider than the screen. */
void frame_fill(struct frame *ret_frame, const struct screen *screen, const json_t *doc);
/* One more line, cut to the screen's width; dropped if there is no room. */
void frame_add(struct frame *frame, const struct screen *screen, enum hue hue, const char *text);

/* What is on the terminal now. Zero it at the start. */
struct frame_drawn {
	unsigned count;
	unsigned widths[FRAME_LINES]; /* columns of each line: a narrower terminal has wrapped them since */
};
/* Draws over what was drawn before. */
void frame_draw(const struct screen *screen, struct frame_drawn *drawn, const struct frame *frame);

#endif
