/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Quantities as text: what options and configuration say, and what people are shown.
 * Sizes are binary units of bytes. Parsers are strict: no sign, no blanks, no fraction, no overflow, nothing after the
 * unit; they fail with ERR_USAGE, and the words name the value and what is allowed.
 */
#ifndef DROVER_UNITS_H
#define DROVER_UNITS_H

#include <stdint.h>

#include "common/err.h"

enum { UNITS_TEXT = 32 }; /* what the formatters need at most, with the NUL */

/* "123". */
int units_parse_number(const char *text, uint64_t *ret_number, struct err *err);
/* "256M", "10G"; units K, M, G, T; a number alone is bytes. */
int units_parse_size(const char *text, uint64_t *ret_bytes, struct err *err);
/* "50M/s": a size and "/s". */
int units_parse_rate(const char *text, uint64_t *ret_bps, struct err *err);
/* "300ms", "30s", "15m", "24h"; "0" alone is allowed. */
int units_parse_duration(const char *text, uint64_t *ret_ms, struct err *err);

/* For people: "512 B", "1.5 GiB"; "50.0 MiB/s"; "240 ms", "4.2s", "30s", "1m05s", "2h05m", "3d04h". */
void units_format_size(uint64_t bytes, char ret_text[UNITS_TEXT]);
void units_format_rate(uint64_t bps, char ret_text[UNITS_TEXT]);
void units_format_duration(uint64_t ms, char ret_text[UNITS_TEXT]);

#endif
