/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"

enum { LINE_MAX_BYTES = 2048 }; /* longer lines are cut */

static const struct {
	const char *name;
	enum log_level level;
} levels[] = {
	{ "error", LOG_LEVEL_ERROR }, { "warning", LOG_LEVEL_WARNING }, { "notice", LOG_LEVEL_NOTICE },
	{ "info", LOG_LEVEL_INFO },   { "debug", LOG_LEVEL_DEBUG },
};

/* The log level, and how a line is written. Set once, before there are threads. */
static struct {
	enum log_level level;
	bool journal;
	char program[32];
} state = { .level = LOG_LEVEL_INFO, .program = "drover" };

static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;
	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
	       st.st_dev == device && st.st_ino == inode;
}

void log_init(const char *program)
{
	snprintf(state.program, sizeof(state.program), "%s", program);
	state.journal = stderr_is_journal();
	const char *wanted = getenv("DROVER_LOG");
	for (size_t i = 0; wanted && i < sizeof(levels) / sizeof(levels[0]); i++)
		if (strcmp(levels[i].name, wanted) == 0)
			state.level = levels[i].level;
}

void log_level_set(enum log_level level)
{
	state.level = level;
}

static const char *level_name(enum log_level level)
{
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (levels[i].level == level)
			return levels[i].name;
	return "log";
}

/* One write(2) a line, so that lines of several processes into one file do not mix. */
__attribute__((format(printf, 2, 0))) static void log_line(enum log_level level, const char *format, va_list args)
{
	if (level > state.level)
		return;
	int saved = errno;
	char line[LINE_MAX_BYTES], now[32];
	wall_format(clock_real.wall_ms(&clock_real), now);
	int head = state.journal ? snprintf(line, sizeof(line), "<%d>", (int)level)
	                         : snprintf(line, sizeof(line), "%s %s[%d] %s: ", now, state.program, (int)getpid(),
	                                    level_name(level));
	size_t room = sizeof(line) - (size_t)head - 1;
	int body = vsnprintf(line + head, room, format, args);
	size_t length = (size_t)head + (body < 0 ? 0 : (size_t)body >= room ? room - 1 : (size_t)body);
	for (size_t i = (size_t)head; i < length; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) /* one line, and no terminal escapes */
			line[i] = ' ';
	line[length++] = '\n';
	ssize_t wrote = write(STDERR_FILENO, line, length);
	(void)wrote; /* nobody is left to tell */
	errno = saved;
}

void log_error(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	log_line(LOG_LEVEL_ERROR, format, args);
	va_end(args);
}

void log_warning(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	log_line(LOG_LEVEL_WARNING, format, args);
	va_end(args);
}

void log_notice(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	log_line(LOG_LEVEL_NOTICE, format, args);
	va_end(args);
}

void log_info(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	log_line(LOG_LEVEL_INFO, format, args);
	va_end(args);
}

void log_debug(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	log_line(LOG_LEVEL_DEBUG, format, args);
	va_end(args);
}
