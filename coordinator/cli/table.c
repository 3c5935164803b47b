/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/table.h"

#include <libsmartcols/libsmartcols.h>
#include <stdlib.h>

#define HINT_CUT 0.1 /* of the width: what a column that may be cut asks for at least */

struct table {
	const struct screen *screen;
	struct libscols_table *cols;
};

struct table *table_new(const struct screen *screen)
{
	struct table *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->screen = screen;
	table->cols = scols_new_table();
	if (!table->cols) {
		free(table);
		return NULL;
	}
	scols_table_set_stream(table->cols, screen->out);
	scols_table_enable_colors(table->cols, screen->colour);
	scols_table_set_column_separator(table->cols, "  ");
	if (!screen->utf8)
		scols_table_enable_ascii(table->cols, 1);
	scols_table_set_termforce(table->cols, screen->terminal ? SCOLS_TERMFORCE_ALWAYS : SCOLS_TERMFORCE_NEVER);
	if (screen->terminal)
		scols_table_set_termwidth(table->cols, screen->columns);
	return table;
}

void table_free(struct table *table)
{
	if (!table)
		return;
	scols_unref_table(table->cols);
	free(table);
}

void table_column(struct table *table, const char *title, unsigned flags)
{
	int scols_flags = 0;

	if (!table)
		return;
	if (flags & TABLE_RIGHT)
		scols_flags |= SCOLS_FL_RIGHT;
	if (flags & TABLE_CUT)
		scols_flags |= SCOLS_FL_TRUNC;
	if ((flags & TABLE_WRAP) && table->screen->terminal)
		scols_flags |= SCOLS_FL_WRAP;
	scols_table_new_column(table->cols, title, flags & (TABLE_CUT | TABLE_WRAP) ? HINT_CUT : 0, scols_flags);
}

void table_line(struct table *table, const char *const cells[], const enum hue hues[])
{
	if (!table)
		return;
	struct libscols_line *line = scols_table_new_line(table->cols, NULL);

	for (size_t i = 0; line && i < scols_table_get_ncols(table->cols); i++) {
		scols_line_set_data(line, i, cells[i]);
		if (hues && hues[i] != HUE_NONE && table->screen->colour)
			scols_cell_set_color(scols_line_get_cell(line, i), screen_hue(table->screen, hues[i]));
	}
}

void table_print(struct table *table)
{
	if (table)
		scols_print_table(table->cols);
}

char *table_text(struct table *table)
{
	char *text = NULL;

	if (table && scols_print_table_to_string(table->cols, &text) == 0)
		return text;
	free(text); /* what was printed until it failed */
	return NULL;
}
