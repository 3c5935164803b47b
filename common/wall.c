/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Of common/clock.h, what asks no clock. */
#include <stdio.h>
#include <time.h>

#include "common/clock.h"

void wall_format(int64_t wall_ms, char text[32])
{
	int64_t ms = wall_ms % 1000;
	if (ms < 0)
		ms += 1000;
	time_t seconds = (time_t)((wall_ms - ms) / 1000);
	struct tm tm;
	char day[24];
	if (!gmtime_r(&seconds, &tm) || strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
		snprintf(text, 32, "(no such time)");
	else
		snprintf(text, 32, "%.23s.%03dZ", day, (int)ms);
}
