/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Words and figures for people. Pure: no I/O, no clock; only the locale's character set matters.
 *
 * Laws: every function writes a NUL-terminated text that fits; a text that came from
 * elsewhere is cleaned (text_clean) before it gets here.
 */
#ifndef DROVER_CLI_TEXT_H
#define DROVER_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/units.h"

#define TEXT_FIGURE UNITS_TEXT /* room for any figure below */

/* Copies `text` without what could move a cursor or turn the writing direction: control characters (C0, DEL, C1 in
 * UTF-8) and bidirectional overrides become "?", newlines and tabs a space. Cut to fit, never inside a character. */
void text_clean(char *ret_text, size_t bytes, const char *text);
/* Whether text_clean would change it. */
bool text_is_clean(const char *text);

/* How many columns of a terminal it takes, in the current locale. */
size_t text_columns(const char *text);
/* Cuts in place so that it takes at most `columns`. */
void text_cut(char *text, size_t columns);

/* Whole percent; 100 only when all is done, 0 of 0 is 100. */
unsigned text_percent(uint64_t done, uint64_t total);

/* Unix milliseconds of "2026-11-22T23:06:03.123Z"; -1 if it is not one. */
int text_time(const char *rfc3339, int64_t *ret_wall_ms);
/* "now", "42s ago", "in 3m05s". */
void text_relative(char ret_text[TEXT_FIGURE], int64_t wall_ms, int64_t now_wall_ms);

/* A bar that takes exactly `columns` (at least 3): blocks in UTF-8, "[###---]" in ASCII. `bytes` should be
 * 3 * columns + 1 or more; the bar is narrower if it is not. */
void text_bar(char *ret_text, size_t bytes, size_t columns, uint64_t done, uint64_t total, bool utf8);

#endif
