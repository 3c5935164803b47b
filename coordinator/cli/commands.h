/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands of `drover`, their options and their help, as tables. */
#ifndef DROVER_CLI_COMMANDS_H
#define DROVER_CLI_COMMANDS_H

#include <argp.h>

#include "coordinator/cli/args.h"

#define CLI_PRIORITY_MAX 1000

enum command_option {
	OPT_HELP = 0x100,
	OPT_USAGE,
	OPT_VERSION,
	OPT_HOME,
	OPT_JSON,
	OPT_COLOR,
	OPT_CONNECT_TIMEOUT,
	OPT_TO,
	OPT_FROM,
	OPT_POOL,
	OPT_NAME,
	OPT_STORAGE,
	OPT_STORAGE_MAP,
	OPT_NETWORK,
	OPT_MAX_DOWNTIME,
	OPT_BANDWIDTH,
	OPT_TIMEOUT,
	OPT_ON_SLOW,
	OPT_KEEP_SOURCE,
	OPT_KEEP_COPY,
	OPT_PRIORITY,
	OPT_KEY,
	OPT_DRY_RUN,
	OPT_WATCH,
	OPT_WAIT,
	OPT_STATE,
	OPT_HOST,
	OPT_VM,
	OPT_ALL,
	OPT_FOLLOW,
	OPT_SWEEP,
	OPT_ROLE,
	OPT_OWNER,
	OPT_FENCED,
	OPT_REASON,
};

/* What the one positional argument is. */
enum command_word { WORD_NONE = 0, WORD_VM, WORD_HOST, WORD_ID, WORD_NAME, WORD_FILE };

struct command {
	const char *name; /* "host list" */
	enum cli_command command;
	enum verb verb; /* 0: no coordinator is asked */
	enum command_word word;
	bool word_needed;
	const char *word_name;             /* "VM", "[ID]" */
	const struct argp_option *options; /* NULL: only those of all commands */
	const char *what;                  /* one line of help */
};

extern const struct argp_option commands_everywhere[]; /* every command takes these */
extern const struct command commands_all[];            /* ends with name NULL */

const struct command *commands_find(const char *name); /* NULL if there is none */
bool commands_is_group(const char *word);              /* "host", "vm", "key" */

#endif
