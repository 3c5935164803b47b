/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Configuration files by table: a daemon lists its keys, conf_load() fills its struct.
 *
 *	struct agent_conf { char host[LIMIT_NAME]; uint64_t orphan_grace_ms; unsigned sr_count; struct sr_conf srs[8];
 *}; static const struct conf_key keys[] = {
 *		{.name = "host", .type = CONF_TEXT, CONF_FIELD(struct agent_conf, host), .help = "name of this host"},
 *		{.name = "orphan_grace", .type = CONF_DURATION, CONF_FIELD(struct agent_conf, orphan_grace_ms),
 *		 .fallback = "15m", .min = 1000, .max = 86400000, .help = "..."},
 *	};
 *
 * Laws
 *  1. Every value in the struct was checked: type, range, length. An unknown key, a key set twice (of a list, the last
 *     counts), a value out of range, a title given twice: ERR_CONFIG with file, line, key and what is allowed.
 *  2. Nothing in the table is checked at run time but by conf_load(); tables are static const.
 *
 * The files: `key = value` and `section title { key = value ... }`, # comments, lists as {a, b}; values need quotes if
 * they hold blanks or any of "'#={}(),+*, or // . ${NAME} outside of '' is replaced by that environment variable.
 */
#ifndef DROVER_CONF_H
#define DROVER_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

enum conf_type {
	CONF_TEXT,     /* char[]; min: least length (1: not empty) */
	CONF_SIZE,     /* "256M" -> bytes; uint64_t or uint32_t, as are the next three */
	CONF_RATE,     /* "50M/s" -> bytes a second */
	CONF_DURATION, /* "30s" -> ms */
	CONF_NUMBER,   /* "7" */
	CONF_BOOL,     /* true|false, yes|no, on|off -> bool */
	CONF_CHOICE,   /* one of `choices` -> int (or an enum) */
	CONF_LIST,     /* texts -> char[][element_bytes], and how many -> unsigned at count_offset */
};

struct conf_choice {
	const char *name; /* NULL ends the table */
	int value;
};

struct conf_key {
	const char *name;
	enum conf_type type;
	size_t offset, bytes; /* of the field: CONF_FIELD() */
	const char *fallback; /* default, as it would be in the file; NULL: the file must set it. Lists: "a, b" or "" */
	uint64_t min, max;    /* numbers, in the field's unit; max 0: no limit but the field's */
	const struct conf_choice *choices;
	size_t element_bytes; /* lists: of one text; with CONF_COUNT() */
	size_t count_offset;
	const char *help; /* one line for people */
};

/* Initialisers: where a field is and how big; a list's element size and the place of its counter. */
#define CONF_FIELD(type, member) .offset = offsetof(type, member), .bytes = sizeof(((type *)0)->member)
#define CONF_COUNT(type, member, counter) \
	.element_bytes = sizeof(((type *)0)->member[0]), .count_offset = offsetof(type, counter)

/* A section with a title that may be given several times: sr fast { type = dir path = /srv/fast } */
struct conf_section {
	const char *name;
	const struct conf_key *keys; /* offsets within one element */
	size_t key_count;
	size_t offset; /* of the array in the daemon's struct */
	size_t element_bytes;
	unsigned max_count;
	size_t count_offset; /* of an unsigned in the daemon's struct: how many there are */
	size_t title_offset; /* of a char[title_bytes] in the element; letters, digits and . _ - */
	size_t title_bytes;
	const char *help;
};

/* What one kind of file may hold. */
struct conf_table {
	const struct conf_key *keys;
	size_t key_count;
	const struct conf_section *section; /* NULL: none */
};

/* Fills *config, a zeroed struct of the daemon, from the defaults and the file. `missing_ok`: a file that does not
 * exist counts as empty. Reads the disk. Not for several threads at once. On failure (ERR_CONFIG; ERR_IO) *config is
 * undefined. */
int conf_load(const char *path, bool missing_ok, const struct conf_table *table, void *config, struct err *err);

/* The same from text in memory; `name` stands for the file name in errors. */
int conf_load_text(const char *name, const char *text, const struct conf_table *table, void *config, struct err *err);

/* Prints the table for people, one key a paragraph: name, type, default, range, help. */
void conf_reference(const struct conf_table *table, FILE *out);

#endif
