/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Aligned columns; the only file that knows libsmartcols. Nothing here fails: without memory a table is left out. */
#ifndef DROVER_CLI_TABLE_H
#define DROVER_CLI_TABLE_H

#include "coordinator/cli/screen.h"

enum table_flags {
	TABLE_RIGHT = 1 << 0, /* figures */
	TABLE_CUT = 1 << 1,   /* the first to lose width on a narrow terminal */
	TABLE_WRAP = 1 << 2,  /* long texts go on in the next line */
};

struct table;

struct table *table_new(const struct screen *screen);
void table_free(struct table *table);
void table_column(struct table *table, const char *title, unsigned flags);
/* The cells of one line, as many as there are columns; `hues` may be NULL. */
void table_line(struct table *table, const char *const cells[], const enum hue hues[]);
/* To the screen's stream. */
void table_print(struct table *table);
/* malloc'ed text, the caller's; NULL without memory. */
char *table_text(struct table *table);

#endif
