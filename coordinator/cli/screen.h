/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where output for people goes, and what can be shown there. */
#ifndef DROVER_CLI_SCREEN_H
#define DROVER_CLI_SCREEN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "coordinator/cli/args.h"

#define SCREEN_COLUMNS 80 /* when nobody says how wide the terminal is */

struct screen {
	FILE *out;
	bool terminal; /* out is one: redraw in place, cut lines to its width */
	bool colour;
	bool utf8;
	unsigned columns;    /* width; only meaningful on a terminal */
	unsigned rows;       /* height; 0: as many as there are */
	int64_t now_wall_ms; /* for relative times */
};

enum hue { HUE_NONE = 0, HUE_GOOD, HUE_BUSY, HUE_WARN, HUE_BAD, HUE_LOUD, HUE_DIM, HUE_BOLD };

/* Looks at the descriptor, the locale, NO_COLOR and TERM. */
void screen_init(struct screen *ret_screen, FILE *out, enum cli_color color);
/* Reads width and clock again. */
void screen_refresh(struct screen *screen);

/* The escape sequence of a hue, and the one that ends it; "" without colour and for HUE_NONE. */
const char *screen_hue(const struct screen *screen, enum hue hue);
const char *screen_plain(const struct screen *screen, enum hue hue);

/* How the state of a migration, or another word of the JSON's, is shown. */
enum hue hue_of_word(const char *word);

#endif
