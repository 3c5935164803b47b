/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

#define MS_SECOND 1000u
#define MS_MINUTE (60u * MS_SECOND)

/* Bytes of the UTF-8 character at `text`; 1 for what is none. */
static size_t char_bytes(const unsigned char *text)
{
	size_t want = text[0] < 0x80         ? 1
	              : (text[0] >> 5) == 6  ? 2
	              : (text[0] >> 4) == 14 ? 3
	              : (text[0] >> 3) == 30 ? 4
	                                     : 1;

	for (size_t i = 1; i < want; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 1;
	return want;
}

/* What a character becomes: NULL if it may stay. */
static const char *replacement(const unsigned char *text, size_t bytes)
{
	if (bytes == 1 && (text[0] == '\n' || text[0] == '\t'))
		return " ";
	if (bytes == 1)
		return text[0] < 0x20 || text[0] >= 0x7f ? "?" : NULL;
	if (bytes == 2 && text[0] == 0xc2 && text[1] < 0xa0) /* C1: U+0080 to U+009F */
		return "?";
	if (bytes == 3 && text[0] == 0xe2 && text[1] == 0x80 &&
	    ((text[2] >= 0xaa && text[2] <= 0xae) || text[2] == 0xa8 || text[2] == 0xa9)) /* U+202A-E, line ends */
		return "?";
	if (bytes == 3 && text[0] == 0xe2 && text[1] == 0x81 && text[2] >= 0xa6 && text[2] <= 0xa9) /* U+2066-9 */
		return "?";
	return NULL;
}

void text_clean(char *ret_text, size_t bytes, const char *text)
{
	const unsigned char *from = (const unsigned char *)text;
	size_t used = 0;

	while (*from) {
		size_t have = char_bytes(from);
		const char *instead = replacement(from, have);
		size_t need = instead ? 1 : have;

		if (used + need + 1 > bytes)
			break;
		memcpy(ret_text + used, instead ? instead : (const char *)from, need);
		used += need;
		from += have;
	}
	if (bytes)
		ret_text[used] = '\0';
}

bool text_is_clean(const char *text)
{
	const unsigned char *from = (const unsigned char *)text;

	while (*from) {
		size_t have = char_bytes(from);

		if (replacement(from, have))
			return false;
		from += have;
	}
	return true;
}

/* Columns of the character at `text`, and its bytes; what the locale cannot read counts one each. */
static size_t char_columns(const char *text, size_t *ret_bytes)
{
	mbstate_t state = { 0 };
	wchar_t wide;
	size_t bytes = mbrtowc(&wide, text, MB_CUR_MAX, &state);

	if (bytes == (size_t)-1 || bytes == (size_t)-2 || bytes == 0) {
		*ret_bytes = 1;
		return 1;
	}
	*ret_bytes = bytes;
	int width = wcwidth(wide);
	return width < 0 ? 1 : (size_t)width;
}

size_t text_columns(const char *text)
{
	size_t columns = 0;

	while (*text) {
		size_t bytes;

		columns += char_columns(text, &bytes);
		text += bytes;
	}
	return columns;
}

void text_cut(char *text, size_t columns)
{
	while (*text) {
		size_t bytes, width = char_columns(text, &bytes);

		if (width > columns)
			break;
		columns -= width;
		text += bytes;
	}
	*text = '\0';
}

unsigned text_percent(uint64_t done, uint64_t total)
{
	if (done >= total)
		return 100;
	unsigned percent = (unsigned)((double)done * 100.0 / (double)total);
	return percent > 99 ? 99 : percent;
}

int text_time(const char *rfc3339, int64_t *ret_wall_ms)
{
	struct tm parts = { 0 };
	const char *rest = strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &parts);
	int64_t ms = 0;

	if (!rest)
		return -1;
	if (*rest == '.') {
		int64_t scale = 100;

		for (rest++; *rest >= '0' && *rest <= '9'; rest++) {
			ms += (*rest - '0') * scale;
			scale /= 10;
		}
	}
	if (strcmp(rest, "Z") != 0)
		return -1;
	*ret_wall_ms = (int64_t)timegm(&parts) * 1000 + ms;
	return 0;
}

void text_relative(char ret_text[TEXT_FIGURE], int64_t wall_ms, int64_t now_wall_ms)
{
	bool ahead = wall_ms > now_wall_ms;
	uint64_t away_ms =
		ahead ? (uint64_t)wall_ms - (uint64_t)now_wall_ms : (uint64_t)now_wall_ms - (uint64_t)wall_ms;
	char length[TEXT_FIGURE];

	if (away_ms < MS_SECOND) {
		snprintf(ret_text, TEXT_FIGURE, "now");
		return;
	}
	/* Tenths of a second are noise here. */
	if (away_ms < MS_MINUTE)
		snprintf(length, sizeof(length), "%" PRIu64 "s", away_ms / MS_SECOND);
	else
		units_format_duration(away_ms, length);
	snprintf(ret_text, TEXT_FIGURE, ahead ? "in %.24s" : "%.24s ago", length);
}

static size_t append(char *text, size_t bytes, size_t used, const char *more)
{
	size_t length = strlen(more);

	if (used + length + 1 > bytes)
		return used;
	memcpy(text + used, more, length + 1);
	return used + length;
}

void text_bar(char *ret_text, size_t bytes, size_t columns, uint64_t done, uint64_t total, bool utf8)
{
	static const char *const eighths[] = { " ", "▏", "▎", "▍", "▌", "▋", "▊", "▉" };
	size_t room = columns < 3 ? 1 : columns - 2;
	double part = total && done < total ? (double)done / (double)total : 1.0;
	size_t steps = (size_t)(part * (double)room * 8.0);
	size_t used = 0;

	/* A full bar means all of it. */
	if (done < total && steps >= room * 8)
		steps = room * 8 - 1;
	if (bytes)
		ret_text[0] = '\0';
	used = append(ret_text, bytes, used, utf8 ? "▕" : "[");
	for (size_t cell = 0; cell < room; cell++) {
		size_t filled = steps / 8;

		if (cell < filled)
			used = append(ret_text, bytes, used, utf8 ? "█" : "#");
		else if (utf8)
			used = append(ret_text, bytes, used, cell == filled ? eighths[steps % 8] : " ");
		else
			used = append(ret_text, bytes, used, "-");
	}
	append(ret_text, bytes, used, utf8 ? "▏" : "]");
}
