/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t factor;
};

/* The digits at the start of text times the unit that the rest names; -1 if it is not that. */
static int parse(const char *text, const struct unit *units, size_t count, uint64_t *ret_value)
{
	uint64_t value = 0;
	const char *p = text;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -1;
	if (p == text)
		return -1;
	for (size_t i = 0; i < count; i++) {
		if (strcmp(units[i].name, p) != 0)
			continue;
		if (__builtin_mul_overflow(value, units[i].factor, &value) || value > INT64_MAX)
			return -1; /* databases and JSON hold signed numbers */
		*ret_value = value;
		return 0;
	}
	return -1;
}

int units_parse_number(const char *text, uint64_t *ret_number, struct err *err)
{
	static const struct unit units[] = { { "", 1 } };
	if (parse(text, units, 1, ret_number) < 0)
		return err_set(err, ERR_USAGE, "'%s' is not a number (allowed: digits only)", text);
	return 0;
}

int units_parse_size(const char *text, uint64_t *ret_bytes, struct err *err)
{
	static const struct unit units[] = {
		{ "", 1 }, { "K", 1ULL << 10 }, { "M", 1ULL << 20 }, { "G", 1ULL << 30 }, { "T", 1ULL << 40 }
	};
	if (parse(text, units, sizeof(units) / sizeof(units[0]), ret_bytes) < 0)
		return err_set(err, ERR_USAGE,
		               "'%s' is not a size (allowed: a number of bytes, or with K, M, G or T, like 256M)",
		               text);
	return 0;
}

int units_parse_rate(const char *text, uint64_t *ret_bps, struct err *err)
{
	static const struct unit units[] = {
		{ "/s", 1 }, { "K/s", 1ULL << 10 }, { "M/s", 1ULL << 20 }, { "G/s", 1ULL << 30 }, { "T/s", 1ULL << 40 }
	};
	if (strcmp(text, "0") == 0) {
		*ret_bps = 0;
		return 0;
	}
	if (parse(text, units, sizeof(units) / sizeof(units[0]), ret_bps) < 0)
		return err_set(err, ERR_USAGE,
		               "'%s' is not a rate (allowed: bytes a second with K/s, M/s or G/s, like 50M/s)", text);
	return 0;
}

int units_parse_duration(const char *text, uint64_t *ret_ms, struct err *err)
{
	static const struct unit units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60 * 1000 }, { "h", 60 * 60 * 1000 } };
	if (strcmp(text, "0") == 0) {
		*ret_ms = 0;
		return 0;
	}
	if (parse(text, units, sizeof(units) / sizeof(units[0]), ret_ms) < 0)
		return err_set(err, ERR_USAGE,
		               "'%s' is not a duration (allowed: a number with ms, s, m or h, like 300ms or 15m)",
		               text);
	return 0;
}

static void format_bytes(uint64_t bytes, const char *tail, char ret_text[UNITS_TEXT])
{
	static const char *const names[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	if (bytes < 1024) {
		snprintf(ret_text, UNITS_TEXT, "%" PRIu64 " B%s", bytes, tail);
		return;
	}
	double value = (double)bytes / 1024;
	size_t unit = 0;
	for (; value >= 1023.95 && unit + 1 < sizeof(names) / sizeof(names[0]); unit++) /* would be shown as 1024.0 */
		value /= 1024;
	snprintf(ret_text, UNITS_TEXT, "%.1f %s%s", value, names[unit], tail);
}

void units_format_size(uint64_t bytes, char ret_text[UNITS_TEXT])
{
	format_bytes(bytes, "", ret_text);
}

void units_format_rate(uint64_t bps, char ret_text[UNITS_TEXT])
{
	format_bytes(bps, "/s", ret_text);
}

void units_format_duration(uint64_t ms, char ret_text[UNITS_TEXT])
{
	uint64_t s = ms / 1000, m = s / 60, h = m / 60;
	if (ms < 1000)
		snprintf(ret_text, UNITS_TEXT, "%" PRIu64 " ms", ms);
	else if (s < 10)
		snprintf(ret_text, UNITS_TEXT, "%" PRIu64 ".%" PRIu64 "s", s, ms % 1000 / 100);
	else if (s < 60)
		snprintf(ret_text, UNITS_TEXT, "%" PRIu64 "s", s);
	else if (m < 60)
		snprintf(ret_text, UNITS_TEXT, "%" PRIu64 "m%02" PRIu64 "s", m, s % 60);
	else if (h < 24)
		snprintf(ret_text, UNITS_TEXT, "%" PRIu64 "h%02" PRIu64 "m", h, m % 60);
	else
		snprintf(ret_text, UNITS_TEXT, "%" PRIu64 "d%02" PRIu64 "h", h / 24, h % 24);
}
