/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exit codes, as docs/CLI.md promises them to scripts. Pure. */
#ifndef DROVER_CLI_EXITS_H
#define DROVER_CLI_EXITS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum cli_exit {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_CANCELLED = 3,
	EXIT_TOO_LATE = 4,
	EXIT_IN_DOUBT = 5,
	EXIT_UNREACHABLE = 6,
	EXIT_DENIED = 7,
	EXIT_REFUSED = 8,
	EXIT_SIGNAL = 128 /* + the signal that ended the waiting */
};

enum cli_exit exit_of_code(enum err_code code);
/* What the coordinator said, unless it contradicts itself or is not one that we know. */
enum cli_exit exit_of_reply(enum err_code code, uint32_t exit_code);
/* Of a migration that has ended, by its state. */
enum cli_exit exit_of_state(const char *state);
/* Whether nothing more will happen by itself: ended, or in doubt, which waits for an operator. */
bool state_is_final(const char *state);
/* Whether data flows, so that rate and time left mean something. */
bool state_is_moving(const char *state);

#endif
