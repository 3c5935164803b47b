/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[ERR_CODES] = {
	[ERR_NONE] = "none",
	[ERR_INTERNAL] = "internal",
	[ERR_USAGE] = "usage",
	[ERR_CONFIG] = "config",
	[ERR_IO] = "io",
	[ERR_NO_SPACE] = "no-space",
	[ERR_NO_MEMORY] = "no-memory",
	[ERR_UNKNOWN_VM] = "unknown-vm",
	[ERR_UNKNOWN_HOST] = "unknown-host",
	[ERR_UNKNOWN_ID] = "unknown-id",
	[ERR_AMBIGUOUS] = "ambiguous",
	[ERR_HOST_DOWN] = "host-down",
	[ERR_SAME_HOST] = "same-host",
	[ERR_BUSY] = "busy",
	[ERR_NO_MAP] = "no-map",
	[ERR_NAME_TAKEN] = "name-taken",
	[ERR_UNSUPPORTED] = "unsupported",
	[ERR_VERSION] = "version",
	[ERR_DENIED] = "denied",
	[ERR_UNREACHABLE] = "unreachable",
	[ERR_TIMEOUT] = "timeout",
	[ERR_CANCELLED] = "cancelled",
	[ERR_TOO_LATE] = "too-late",
	[ERR_CONFLICT] = "conflict",
	[ERR_STALE] = "stale",
	[ERR_PROTOCOL] = "protocol",
	[ERR_CORRUPT] = "corrupt",
	[ERR_SLOW] = "slow",
	[ERR_LEG_LOST] = "leg-lost",
	[ERR_PEER_LOST] = "peer-lost",
	[ERR_HYPERVISOR] = "hypervisor",
	[ERR_BACKEND] = "backend",
	[ERR_EXPORTER] = "exporter",
	[ERR_HOST_LOST] = "host-lost",
};

const char *err_name(enum err_code code)
{
	return (unsigned)code < ERR_CODES ? names[code] : names[ERR_INTERNAL];
}

enum err_code err_from_name(const char *name)
{
	for (unsigned i = 0; name && i < ERR_CODES; i++)
		if (strcmp(names[i], name) == 0)
			return (enum err_code)i;
	return ERR_CODES;
}

/* How many bytes the UTF-8 character at p has; 0 if it is none that may travel. */
static size_t utf8_bytes(const unsigned char *p)
{
	static const struct {
		unsigned char mask, lead;
		unsigned least;
	} forms[] = { { 0x80, 0x00, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 } };
	for (unsigned extra = 0; extra < 4; extra++) {
		if ((p[0] & forms[extra].mask) != forms[extra].lead)
			continue;
		unsigned point = p[0] & (unsigned char)~forms[extra].mask;
		for (unsigned i = 1; i <= extra; i++) {
			if ((p[i] & 0xc0) != 0x80)
				return 0;
			point = point << 6 | (p[i] & 0x3fu);
		}
		bool surrogate = point >= 0xd800 && point <= 0xdfff;
		bool control = point < 0x20 || (point >= 0x7f && point < 0xa0);
		return point < forms[extra].least || point > 0x10ffff || surrogate || control ? 0 : extra + 1;
	}
	return 0;
}

/* Error texts quote file names and the output of tools, and travel as UTF-8 without control characters. */
static void make_clean(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p;) {
		size_t bytes = utf8_bytes(p);
		if (bytes == 0) {
			/* a character that the end of the buffer has cut goes, with nothing put in its place */
			bool tail = p[0] >= 0xc0 && memchr(p, 0, 4) && (size_t)((char *)p - text) + 4 >= LIMIT_TEXT;
			*p = tail ? '\0' : *p < 0x80 ? ' ' : '?';
			bytes = tail ? 0 : 1;
		}
		p += bytes;
	}
}

int(err_set)(struct err *err, enum err_code code, const char *format, ...)
{
	if (!err)
		return -1;
	char text[LIMIT_TEXT]; /* an argument may be err->text itself */
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	make_clean(text);
	err->code = code;
	memcpy(err->text, text, sizeof(text));
	return -1;
}

int(err_errno)(struct err *err, enum err_code code, int errnum, const char *format, ...)
{
	if (!err)
		return -1;
	char text[LIMIT_TEXT], words[128];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (errnum == ENOSPC || errnum == EDQUOT)
		code = ERR_NO_SPACE;
	return err_set(err, code, "%s: %s", text, strerror_r(errnum, words, sizeof(words)));
}

int(err_wrap)(struct err *err, const char *format, ...)
{
	if (!err)
		return -1;
	char text[LIMIT_TEXT];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return err_set(err, err->code, "%s: %s", text, err->text);
}

void err_clear(struct err *err)
{
	if (!err)
		return;
	err->code = ERR_NONE;
	err->text[0] = '\0';
}
