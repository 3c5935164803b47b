/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/screen.h"

#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"

#define COLUMNS_MIN 20u
#define COLUMNS_MAX 400u

void screen_refresh(struct screen *screen)
{
	struct winsize size;

	screen->now_wall_ms = clock_real.wall_ms(&clock_real);
	if (!screen->terminal)
		return;
	screen->columns = SCREEN_COLUMNS;
	if (ioctl(fileno(screen->out), TIOCGWINSZ, &size) == 0 && size.ws_col) {
		screen->columns = size.ws_col;
		screen->rows = size.ws_row;
	}
	if (screen->columns < COLUMNS_MIN)
		screen->columns = COLUMNS_MIN;
	if (screen->columns > COLUMNS_MAX)
		screen->columns = COLUMNS_MAX;
}

void screen_init(struct screen *ret_screen, FILE *out, enum cli_color color)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
	bool dumb = !term || !*term || strcmp(term, "dumb") == 0;

	memset(ret_screen, 0, sizeof(*ret_screen));
	ret_screen->out = out;
	ret_screen->terminal = isatty(fileno(out)) == 1 && !dumb;
	ret_screen->colour = color == CLI_COLOR_ALWAYS ||
	                     (color == CLI_COLOR_AUTO && ret_screen->terminal && !(no_color && *no_color));
	ret_screen->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	ret_screen->columns = SCREEN_COLUMNS;
	screen_refresh(ret_screen);
}

const char *screen_hue(const struct screen *screen, enum hue hue)
{
	if (!screen->colour)
		return "";
	switch (hue) {
	case HUE_NONE:
		return "";
	case HUE_GOOD:
		return "\033[32m";
	case HUE_BUSY:
		return "\033[36m";
	case HUE_WARN:
		return "\033[33m";
	case HUE_BAD:
		return "\033[31m";
	case HUE_LOUD:
		return "\033[1;31m";
	case HUE_DIM:
		return "\033[2m";
	case HUE_BOLD:
		return "\033[1m";
	}
	return "";
}

const char *screen_plain(const struct screen *screen, enum hue hue)
{
	return screen->colour && hue != HUE_NONE ? "\033[0m" : "";
}

enum hue hue_of_word(const char *word)
{
	static const struct {
		const char *word;
		enum hue hue;
	} hues[] = {
		{ "done", HUE_GOOD },        { "ok", HUE_GOOD },           { "connected", HUE_GOOD },
		{ "running", HUE_GOOD },     { "copying", HUE_BUSY },      { "preparing", HUE_BUSY },
		{ "checking", HUE_BUSY },    { "switching", HUE_BUSY },    { "committed", HUE_BUSY },
		{ "cancelled", HUE_WARN },   { "rolling-back", HUE_WARN }, { "suspected", HUE_WARN },
		{ "failed", HUE_BAD },       { "FAILED", HUE_BAD },        { "down", HUE_BAD },
		{ "disconnected", HUE_BAD }, { "in-doubt", HUE_LOUD },     { "lost", HUE_LOUD },
		{ "undecided", HUE_WARN },   { "none", HUE_NONE },
	};

	for (size_t i = 0; i < sizeof(hues) / sizeof(hues[0]); i++)
		if (strcmp(word, hues[i].word) == 0)
			return hues[i].hue;
	return HUE_NONE;
}
