/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The coordinator's documents for people. How a value is shown follows from its name, as docs/CLI.md names things:
 * _bytes, _bps, _ms and _s are rounded with a unit, _at and kept_until are times. What we do not know is shown all the
 * same, under its own name.
 */
#ifndef DROVER_CLI_PRINT_H
#define DROVER_CLI_PRINT_H

#include <jansson.h>

#include "coordinator/cli/screen.h"

#define PRINT_VALUE 512

/* `value` under the name `key`, as it is shown; "-" for null. Times relative, or absolute with the distance. */
void print_value(char ret_text[PRINT_VALUE], const char *key, const json_t *value, const struct screen *screen,
                 bool absolute);

/* Tables; a line of words if there is nothing. The documents are replies as docs/CLI.md describes them. */
void print_migrations(const struct screen *screen, const json_t *doc, bool all);
void print_hosts(const struct screen *screen, const json_t *doc);
void print_vms(const struct screen *screen, const json_t *doc);
void print_leftovers(const struct screen *screen, const json_t *doc);
/* One line an event, aligned enough for a stream of them. */
void print_events(const struct screen *screen, const json_t *doc);
/* Returns how many checks failed. */
unsigned print_checks(const struct screen *screen, const json_t *doc);
/* The table of migrations as text, for the live view; malloc'ed, the caller's; NULL if there are none. */
char *print_migrations_text(const struct screen *screen, const json_t *doc);

/* Anything: fields as "name  value", objects indented, lists of objects as tables. */
void print_outline(const struct screen *screen, const json_t *doc, unsigned indent);

/* One migration, whole. */
void print_migration(const struct screen *screen, const json_t *doc);
/* What it means, who is waited for, what is safe to do by hand. */
void print_explanation(const struct screen *screen, const json_t *doc);
/* What became of one that has ended: downtime and its parts, time, bytes, passes, rate. */
void print_summary(const struct screen *screen, const json_t *doc);

#endif
