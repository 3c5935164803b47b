/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Documents that nobody here knows by heart: shown as they are, indented. */
#include <string.h>

#include "coordinator/cli/doc.h"
#include "coordinator/cli/print.h"
#include "coordinator/cli/table.h"
#include "coordinator/cli/text.h"

#define OUTLINE_COLUMNS 16
#define OUTLINE_DEPTH 6 /* deeper ones are shown as "(n fields)" */
#define LABEL 64

/* "memory_free_bytes" -> "memory free": the unit is in the value. */
static void label_text(char ret_text[LABEL], const char *key)
{
	static const char *const units[] = { "_bytes", "_bps", "_ms", "_s", "_at" };

	text_clean(ret_text, LABEL, key);
	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t length = strlen(ret_text), unit = strlen(units[i]);

		if (length > unit && strcmp(ret_text + length - unit, units[i]) == 0) {
			ret_text[length - unit] = '\0';
			break;
		}
	}
	for (char *c = ret_text; *c; c++)
		if (*c == '_')
			*c = ' ';
}

static void print_rows(const struct screen *screen, const json_t *list, unsigned indent)
{
	const char *keys[OUTLINE_COLUMNS], *key;
	struct table *table = table_new(screen);
	const json_t *item, *value;
	unsigned count = 0;
	size_t index;

	table_column(table, "", 0); /* indentation */
	json_object_foreach((json_t *)(uintptr_t)json_array_get(list, 0), key, value)
	{
		char title[LABEL];

		if (count == OUTLINE_COLUMNS - 1)
			break;
		label_text(title, key);
		for (char *c = title; *c; c++)
			if (*c >= 'a' && *c <= 'z')
				*c = (char)(*c - 'a' + 'A');
		table_column(table, title,
		             json_is_number(value)   ? TABLE_RIGHT
		             : json_is_string(value) ? TABLE_WRAP
		                                     : 0);
		keys[count++] = key;
	}
	json_array_foreach(list, index, item)
	{
		char texts[OUTLINE_COLUMNS][PRINT_VALUE];
		const char *cells[OUTLINE_COLUMNS];
		enum hue hues[OUTLINE_COLUMNS] = { HUE_NONE };

		snprintf(texts[0], PRINT_VALUE, "%*s", (int)indent, "");
		cells[0] = texts[0];
		for (unsigned i = 0; i < count; i++) {
			print_value(texts[i + 1], keys[i], json_object_get(item, keys[i]), screen, false);
			cells[i + 1] = texts[i + 1];
			hues[i + 1] = hue_of_word(texts[i + 1]);
		}
		table_line(table, cells, hues);
	}
	table_print(table);
	table_free(table);
}

/* A list of texts, one a line: explanations. */
static void print_items(const struct screen *screen, const json_t *list, unsigned indent)
{
	const json_t *item;
	size_t index;

	json_array_foreach(list, index, item)
	{
		fprintf(screen->out, "%*s- %s\n", (int)indent, "",
		        json_string_value(item) ? json_string_value(item) : "-");
	}
}

static bool is_block(const json_t *value)
{
	return (json_is_object(value) && json_object_size(value)) ||
	       (json_is_array(value) &&
	        (json_is_object(json_array_get(value, 0)) || json_is_string(json_array_get(value, 0))));
}

void print_outline(const struct screen *screen, const json_t *doc, unsigned indent)
{
	const json_t *value;
	size_t width = 0;
	const char *key;
	char label[LABEL];

	json_object_foreach((json_t *)(uintptr_t)doc, key, value)
	{
		label_text(label, key);
		if (!is_block(value) && text_columns(label) > width)
			width = text_columns(label);
	}
	json_object_foreach((json_t *)(uintptr_t)doc, key, value)
	{
		char text[PRINT_VALUE];

		label_text(label, key);
		if (!is_block(value) || indent >= 2 * OUTLINE_DEPTH) {
			print_value(text, key, value, screen, true);
			fprintf(screen->out, "%*s%s%*s  %s%s%s\n", (int)indent, "", label,
			        (int)(width > text_columns(label) ? width - text_columns(label) : 0), "",
			        screen_hue(screen, hue_of_word(text)), text, screen_plain(screen, hue_of_word(text)));
			continue;
		}
		fprintf(screen->out, "%*s%s%s%s:\n", (int)indent, "", screen_hue(screen, HUE_BOLD), label,
		        screen_plain(screen, HUE_BOLD));
		if (json_is_object(value))
			print_outline(screen, value, indent + 2);
		else if (json_is_string(json_array_get(value, 0)))
			print_items(screen, value, indent + 2);
		else
			print_rows(screen, value, indent);
	}
}
