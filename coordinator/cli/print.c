/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/units.h"
#include "coordinator/cli/doc.h"
#include "coordinator/cli/exits.h"
#include "coordinator/cli/table.h"
#include "coordinator/cli/text.h"

#define COLUMNS_MAX 16

/* A column of a list: where its value is; alternatives are tried in order. */
struct column {
	const char *title;
	const char *paths[3];
	unsigned flags;
};

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), tail = strlen(end);

	return length >= tail && strcmp(text + length - tail, end) == 0;
}

static bool is_time(const char *key)
{
	return ends_with(key, "_at") || strcmp(key, "kept_until") == 0 || ends_with(key, "_seen") ||
	       strcmp(key, "at") == 0 || strcmp(key, "time") == 0;
}

static void integer_text(char ret_text[PRINT_VALUE], const char *key, int64_t number)
{
	char figure[TEXT_FIGURE];
	uint64_t amount = number < 0 ? 0 : (uint64_t)number;

	if (number < 0)
		snprintf(figure, sizeof(figure), "%" PRId64, number);
	else if (ends_with(key, "_bytes") || strncmp(key, "bytes_", 6) == 0)
		units_format_size(amount, figure);
	else if (ends_with(key, "_bps"))
		units_format_rate(amount, figure);
	else if (ends_with(key, "_ms"))
		units_format_duration(amount, figure);
	else if (ends_with(key, "_s"))
		units_format_duration(amount > UINT64_MAX / 1000 ? UINT64_MAX : amount * 1000, figure);
	else
		snprintf(figure, sizeof(figure), "%" PRIu64, amount);
	snprintf(ret_text, PRINT_VALUE, "%s", figure);
}

static void time_text(char ret_text[PRINT_VALUE], const char *text, const struct screen *screen, bool absolute)
{
	char away[TEXT_FIGURE];
	int64_t wall_ms;

	if (text_time(text, &wall_ms) != 0) {
		snprintf(ret_text, PRINT_VALUE, "%s", text);
		return;
	}
	text_relative(away, wall_ms, screen->now_wall_ms);
	if (absolute)
		snprintf(ret_text, PRINT_VALUE, "%.64s (%s)", text, away);
	else
		snprintf(ret_text, PRINT_VALUE, "%s", away);
}

/* Scalars joined by commas; objects by their name. */
static void list_text(char ret_text[PRINT_VALUE], const char *key, const json_t *list, const struct screen *screen)
{
	size_t index, used = 0;
	const json_t *value;

	snprintf(ret_text, PRINT_VALUE, "-");
	json_array_foreach(list, index, value)
	{
		char item[PRINT_VALUE];

		print_value(item, key, value, screen, false);
		int more = snprintf(ret_text + used, PRINT_VALUE - used, "%s%s", used ? ", " : "", item);
		if (more < 0 || (size_t)more >= PRINT_VALUE - used)
			break;
		used += (size_t)more;
	}
}

void print_value(char ret_text[PRINT_VALUE], const char *key, const json_t *value, const struct screen *screen,
                 bool absolute)
{
	switch (value ? json_typeof(value) : JSON_NULL) {
	case JSON_NULL:
		snprintf(ret_text, PRINT_VALUE, "-");
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		snprintf(ret_text, PRINT_VALUE, json_is_true(value) ? "yes" : "no");
		break;
	case JSON_INTEGER:
		integer_text(ret_text, key, json_integer_value(value));
		break;
	case JSON_REAL:
		snprintf(ret_text, PRINT_VALUE, "%.3g", json_real_value(value));
		break;
	case JSON_STRING:
		if (is_time(key))
			time_text(ret_text, json_string_value(value), screen, absolute);
		else
			snprintf(ret_text, PRINT_VALUE, "%s",
			         *json_string_value(value) ? json_string_value(value) : "-");
		break;
	case JSON_ARRAY:
		list_text(ret_text, key, value, screen);
		break;
	case JSON_OBJECT:
		if (*doc_text(value, "name"))
			snprintf(ret_text, PRINT_VALUE, "%s", doc_text(value, "name"));
		else
			snprintf(ret_text, PRINT_VALUE, "(%zu fields)", json_object_size(value));
		break;
	}
}

static const json_t *column_value(const struct column *column, const json_t *item, const char **ret_key)
{
	*ret_key = column->paths[0];
	for (unsigned i = 0; i < 3 && column->paths[i]; i++) {
		const json_t *value = doc_get(item, column->paths[i]);
		const char *dot = strrchr(column->paths[i], '.');

		*ret_key = dot ? dot + 1 : column->paths[i];
		if (value)
			return value;
	}
	return NULL;
}

/* Percent of a migration's bytes; "" while there are none. */
static void progress_text(char ret_text[PRINT_VALUE], const json_t *item)
{
	uint64_t total = doc_number(item, "progress.bytes_total", 0);

	ret_text[0] = '\0';
	if (strcmp(doc_text(item, "authority"), "destination") == 0)
		snprintf(ret_text, PRINT_VALUE, "100%%"); /* it has it all, whatever was reported last */
	else if (total)
		snprintf(ret_text, PRINT_VALUE, "%u%%",
		         text_percent(doc_number(item, "progress.bytes_done", 0), total));
}

/* Rate and time left of what does not move. */
static bool is_moot(const char *key, const json_t *value, const json_t *item)
{
	if (strcmp(key, "eta_ms") != 0 && strcmp(key, "rate_bps") != 0)
		return false;
	return !state_is_moving(doc_text(item, "state")) || !json_is_integer(value) || json_integer_value(value) == 0;
}

/* Columns of which no item knows anything are left out. */
static unsigned columns_used(const struct column *columns, const json_t *list,
                             const struct column *ret_used[COLUMNS_MAX])
{
	unsigned count = 0;

	for (const struct column *c = columns; c->title && count < COLUMNS_MAX; c++) {
		const json_t *item;
		const char *key;
		size_t index;

		json_array_foreach(list, index, item)
		{
			if (column_value(c, item, &key)) {
				ret_used[count++] = c;
				break;
			}
		}
	}
	return count;
}

static struct table *list_table(const struct screen *screen, const struct column *columns, const json_t *list)
{
	const struct column *used[COLUMNS_MAX];
	unsigned count = columns_used(columns, list, used);
	struct table *table = table_new(screen);
	const json_t *item;
	size_t index;

	for (unsigned i = 0; i < count; i++)
		table_column(table, used[i]->title, used[i]->flags);
	json_array_foreach(list, index, item)
	{
		char texts[COLUMNS_MAX][PRINT_VALUE];
		const char *cells[COLUMNS_MAX];
		enum hue hues[COLUMNS_MAX];

		for (unsigned i = 0; i < count; i++) {
			const char *key;
			const json_t *value = column_value(used[i], item, &key);

			if (is_moot(key, value, item))
				texts[i][0] = '\0';
			else if (strcmp(key, "progress") == 0)
				progress_text(texts[i], item);
			else if (json_is_boolean(value) && strcmp(key, "connected") == 0)
				snprintf(texts[i], PRINT_VALUE, json_is_true(value) ? "connected" : "down");
			else if (json_is_boolean(value) && strcmp(key, "ok") == 0)
				snprintf(texts[i], PRINT_VALUE, json_is_true(value) ? "ok" : "FAILED");
			else if (json_is_array(value) && json_is_object(json_array_get(value, 0)))
				snprintf(texts[i], PRINT_VALUE, "%zu", json_array_size(value));
			else
				print_value(texts[i], key, value, screen, false);
			cells[i] = texts[i];
			hues[i] = hue_of_word(texts[i]);
		}
		table_line(table, cells, hues);
	}
	return table;
}

static void print_list(const struct screen *screen, const struct column *columns, const json_t *doc, const char *name,
                       const char *if_none)
{
	const json_t *list = doc_list(doc, name);

	if (!json_array_size(list)) {
		fprintf(screen->out, "%s\n", if_none);
		return;
	}
	struct table *table = list_table(screen, columns, list);
	table_print(table);
	table_free(table);
}

static const struct column migration_columns[] = {
	{ "ID", { "id" }, TABLE_RIGHT },
	{ "VM", { "vm.name", "vm.uuid" }, TABLE_CUT },
	{ "FROM", { "source" }, TABLE_CUT },
	{ "TO", { "destination" }, TABLE_CUT },
	{ "STATE", { "state" }, 0 },
	{ "DONE", { "progress" }, TABLE_RIGHT },
	{ "RATE", { "progress.rate_bps" }, TABLE_RIGHT },
	{ "LEFT", { "progress.eta_ms" }, TABLE_RIGHT },
	{ "DOWNTIME", { "downtime_ms" }, TABLE_RIGHT },
	{ "SUBMITTED", { "submitted_at" }, 0 },
	{ "CAUSE", { "cause.code" }, 0 },
	{ 0 },
};

void print_migrations(const struct screen *screen, const json_t *doc, bool all)
{
	print_list(screen, migration_columns, doc, "migrations",
	           all ? "no migrations" : "no migrations under way ('--all' lists those that have ended, too)");
}

char *print_migrations_text(const struct screen *screen, const json_t *doc)
{
	const json_t *list = doc_list(doc, "migrations");
	char *text;

	if (!json_array_size(list))
		return NULL;
	struct table *table = list_table(screen, migration_columns, list);
	text = table_text(table);
	table_free(table);
	return text;
}

void print_hosts(const struct screen *screen, const json_t *doc)
{
	static const struct column columns[] = {
		{ "HOST", { "name", "host" }, 0 },
		{ "POOL", { "pool" }, 0 },
		{ "STATE", { "state", "connected", "status" }, 0 },
		{ "HYPERVISOR", { "hypervisor" }, 0 },
		{ "VMS", { "vm_count", "vms" }, TABLE_RIGHT },
		{ "MEMORY", { "memory_bytes" }, TABLE_RIGHT },
		{ "FREE", { "memory_free_bytes" }, TABLE_RIGHT },
		{ "SRS", { "srs" }, TABLE_RIGHT },
		{ "SESSIONS", { "session_count", "sessions", "migrations" }, TABLE_RIGHT },
		{ "SEEN", { "last_seen_at", "seen_at", "last_seen" }, 0 },
		{ "VERSION", { "software", "version" }, 0 },
		{ 0 },
	};

	print_list(screen, columns, doc, "hosts", "no hosts: no agent has connected yet");
}

void print_vms(const struct screen *screen, const json_t *doc)
{
	static const struct column columns[] = {
		{ "VM", { "name" }, TABLE_CUT },
		{ "HOST", { "host" }, 0 },
		{ "STATE", { "state" }, 0 },
		{ "MEMORY", { "memory_bytes" }, TABLE_RIGHT },
		{ "VCPUS", { "vcpus" }, TABLE_RIGHT },
		{ "DISKS", { "disk_count", "disks" }, TABLE_RIGHT },
		{ "DISK SIZE", { "disk_bytes" }, TABLE_RIGHT },
		{ "MIGRATION", { "migration" }, TABLE_RIGHT },
		{ "UUID", { "uuid" }, 0 },
		{ 0 },
	};

	print_list(screen, columns, doc, "vms", "no VMs");
}

/* Who could not be asked, or not be looked at in full: what is there is not known, which is not "nothing". */
static void print_gaps(const struct screen *screen, const json_t *doc)
{
	const json_t *item;
	size_t index;

	json_array_foreach(doc_list(doc, "hosts_silent"), index, item)
	{
		if (json_is_string(item))
			fprintf(screen->out, "%s: no answer; what it holds is not known\n", json_string_value(item));
	}
	json_array_foreach(doc_list(doc, "faults"), index, item)
	{
		fprintf(screen->out, "%s: could not be looked at in full: %s\n",
		        *doc_text(item, "host") ? doc_text(item, "host") : "the records", doc_text(item, "message"));
	}
	if (doc_true(doc, "cut"))
		fprintf(screen->out, "there is more than fits the list\n");
}

void print_leftovers(const struct screen *screen, const json_t *doc)
{
	static const struct column columns[] = {
		{ "HOST", { "host" }, 0 },
		{ "MIGRATION", { "migration", "id" }, TABLE_RIGHT },
		{ "VM", { "vm.name" }, TABLE_CUT },
		{ "KIND", { "kind" }, 0 },
		{ "NAME", { "name" }, TABLE_CUT },
		{ "STATE", { "state" }, 0 },
		{ "UNTIL", { "kept_until" }, 0 },
		{ "PATH", { "path" }, TABLE_WRAP },
		{ "WHAT", { "error", "text", "message" }, TABLE_WRAP },
		{ 0 },
	};

	print_list(screen, columns, doc, "leftovers", "no leftovers");
	print_gaps(screen, doc);
}

unsigned print_checks(const struct screen *screen, const json_t *doc)
{
	static const struct column columns[] = {
		{ "HOST", { "host", "side" }, 0 },
		{ "CHECK", { "name", "check" }, 0 },
		{ "RESULT", { "ok" }, 0 },
		{ "FOUND", { "text", "message" }, TABLE_WRAP },
		{ 0 },
	};
	const json_t *item;
	unsigned failed = 0;
	size_t index;

	print_list(screen, columns, doc, "checks", "no checks were run");
	json_array_foreach(doc_list(doc, "checks"), index, item)
	{
		failed += !doc_true(item, "ok");
	}
	return failed;
}

void print_events(const struct screen *screen, const json_t *doc)
{
	const json_t *event;
	size_t index;

	json_array_foreach(doc_list(doc, "events"), index, event)
	{
		const char *at = doc_text(event, "at"), *state = doc_text(event, "state"),
			   *host = doc_text(event, "host");
		const char *kind = *doc_text(event, "kind") ? doc_text(event, "kind") : doc_text(event, "event");
		const char *words = *doc_text(event, "text") ? doc_text(event, "text") : doc_text(event, "message");
		uint64_t migration = doc_number(event, "migration", 0);

		if (!*at)
			at = *doc_text(event, "time") ? doc_text(event, "time") : doc_text(event, "wall_at");
		fprintf(screen->out, "%s%s%s", screen_hue(screen, HUE_DIM), *at ? at : "-",
		        screen_plain(screen, HUE_DIM));
		if (migration)
			fprintf(screen->out, "  %" PRIu64, migration);
		if (*kind)
			fprintf(screen->out, "  %s", kind);
		if (*state)
			fprintf(screen->out, "  %s%s%s", screen_hue(screen, hue_of_word(state)), state,
			        screen_plain(screen, hue_of_word(state)));
		if (*host)
			fprintf(screen->out, "  %s", host);
		fprintf(screen->out, "%s%s\n", *words ? "  " : "", words);
	}
}
