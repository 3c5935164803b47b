/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Logging, for shells only: one line, key=value, on standard error with the "<N>" priority prefix that journald
 * reads when standard error is the journal (JOURNAL_STREAM), with a time stamp otherwise. No secrets, no guest data.
 */
#ifndef DROVER_LOG_H
#define DROVER_LOG_H

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7
};

/* Lines above this level are dropped; default INFO, DROVER_LOG=debug|info|notice|warning|error overrides. */
void log_init(const char *program);
void log_level_set(enum log_level level);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_notice(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
