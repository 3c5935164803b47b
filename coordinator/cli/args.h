/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line of `drover`: what was asked, checked as far as it can be without a coordinator.
 *
 * Laws: parsing prints nothing and never exits; options of a command and those of all commands may come in any order
 * after the command; what is asked of the coordinator is in `request`, ready to be sent.
 */
#ifndef DROVER_CLI_ARGS_H
#define DROVER_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common/err.h"
#include "proto/msg.h"

#define CLI_CONNECT_TIMEOUT_MS 5000u
#define CLI_CONNECT_TIMEOUT_MAX_MS 600000u

enum cli_color { CLI_COLOR_AUTO = 0, CLI_COLOR_ALWAYS, CLI_COLOR_NEVER };

enum cli_command {
	CLI_NONE = 0,
	CLI_MIGRATE,
	CLI_LIST,
	CLI_SHOW,
	CLI_EXPLAIN,
	CLI_EVENTS,
	CLI_WATCH,
	CLI_CANCEL,
	CLI_RETRY,
	CLI_UNDO,
	CLI_RESOLVE,
	CLI_HOST_LIST,
	CLI_HOST_SHOW,
	CLI_HOST_FORGET,
	CLI_VM_LIST,
	CLI_VM_SHOW,
	CLI_LEFTOVERS,
	CLI_STATUS,
	CLI_KEY_GENERATE,
	CLI_KEY_LIST,
	CLI_KEY_AUTHORIZE,
	CLI_KEY_REVOKE,
};

enum cli_ask { CLI_RUN = 0, CLI_HELP, CLI_USAGE, CLI_VERSION };

struct cli_args {
	enum cli_command command;
	enum cli_ask ask;
	const char *home; /* NULL: DROVER_HOME or the system's directories */
	bool json;
	enum cli_color color;
	unsigned connect_timeout_ms;
	bool watch, wait, follow;
	bool has_to;            /* --to was given */
	enum role role;         /* key generate */
	const char *file;       /* key authorize */
	char name[LIMIT_NAME];  /* key generate, key revoke */
	char group[LIMIT_NAME]; /* --help of "host", "vm", "key" */
	struct msg_request request;
};

/* Strings in *ret_args may point into argv. -1: ERR_USAGE, with what is wrong and what to do; `json` is set even then
 * if --json was seen before the error. */
int args_parse(struct cli_args *ret_args, int argc, char **argv, struct err *err);

/* Prints what --help or --usage shows for the command (or group, or drover as a whole). */
void args_help(const struct cli_args *args, FILE *out);

/* "migrate", "host list"; NULL after the last, for i from 0. */
const char *args_command_name(unsigned i);

#endif
