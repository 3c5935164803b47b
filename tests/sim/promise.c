/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The first promise that was broken. */
#include <stdarg.h>
#include <stdio.h>

#include "tests/sim/world.h"

static struct {
	bool broken;
	char name[LIMIT_NAME], text[LIMIT_TEXT];
} first;

void promise_broken(const char *promise, const char *format, ...)
{
	char text[LIMIT_TEXT];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	trace("PROMISE BROKEN: %s: %s", promise, text);
	if (first.broken)
		return;
	first.broken = true;
	(void)snprintf(first.name, sizeof(first.name), "%s", promise);
	(void)snprintf(first.text, sizeof(first.text), "%s", text);
}

bool promise_is_broken(void)
{
	return first.broken;
}

const char *promise_name(void)
{
	return first.name;
}

const char *promise_text(void)
{
	return first.text;
}
