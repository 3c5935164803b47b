/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/exits.h"

#include <string.h>

enum cli_exit exit_of_code(enum err_code code)
{
	switch (code) {
	case ERR_NONE:
		return EXIT_DONE;
	case ERR_USAGE:
	case ERR_CONFIG:
	case ERR_UNKNOWN_VM:
	case ERR_UNKNOWN_HOST:
	case ERR_UNKNOWN_ID:
	case ERR_AMBIGUOUS:
		return EXIT_USAGE;
	case ERR_CANCELLED:
		return EXIT_CANCELLED;
	case ERR_TOO_LATE:
		return EXIT_TOO_LATE;
	case ERR_UNREACHABLE:
		return EXIT_UNREACHABLE;
	case ERR_DENIED:
		return EXIT_DENIED;
	case ERR_NO_SPACE:
	case ERR_NO_MEMORY:
	case ERR_HOST_DOWN:
	case ERR_SAME_HOST:
	case ERR_BUSY:
	case ERR_NO_MAP:
	case ERR_NAME_TAKEN:
	case ERR_UNSUPPORTED:
	case ERR_CONFLICT:
		return EXIT_REFUSED;
	case ERR_INTERNAL:
	case ERR_IO:
	case ERR_VERSION:
	case ERR_TIMEOUT:
	case ERR_STALE:
	case ERR_PROTOCOL:
	case ERR_CORRUPT:
	case ERR_SLOW:
	case ERR_LEG_LOST:
	case ERR_PEER_LOST:
	case ERR_HYPERVISOR:
	case ERR_BACKEND:
	case ERR_EXPORTER:
	case ERR_HOST_LOST:
	case ERR_CODES:
		return EXIT_FAILED;
	}
	return EXIT_FAILED; /* a code that is newer than we are */
}

enum cli_exit exit_of_reply(enum err_code code, uint32_t exit_code)
{
	if (exit_code > EXIT_REFUSED || (code != ERR_NONE && exit_code == EXIT_DONE))
		return exit_of_code(code);
	return (enum cli_exit)exit_code;
}

enum cli_exit exit_of_state(const char *state)
{
	if (strcmp(state, "done") == 0)
		return EXIT_DONE;
	if (strcmp(state, "cancelled") == 0)
		return EXIT_CANCELLED;
	if (strcmp(state, "in-doubt") == 0 || strcmp(state, "lost") == 0)
		return EXIT_IN_DOUBT;
	return EXIT_FAILED;
}

bool state_is_final(const char *state)
{
	static const char *const finals[] = { "done", "cancelled", "failed", "lost" };

	for (unsigned i = 0; i < sizeof(finals) / sizeof(finals[0]); i++)
		if (strcmp(state, finals[i]) == 0)
			return true;
	return false;
}

bool state_is_moving(const char *state)
{
	return strcmp(state, "copying") == 0 || strcmp(state, "switching") == 0;
}
