/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The `drover` command as a whole, and what its commands share. */
#ifndef DROVER_CLI_CLI_H
#define DROVER_CLI_CLI_H

#include "coordinator/cli/api.h"
#include "coordinator/cli/args.h"
#include "coordinator/cli/exits.h"
#include "coordinator/cli/screen.h"

/* One call of the command. */
struct cli {
	struct cli_args args;
	struct place place;
	struct screen screen;
	struct api *api;  /* NULL for `key` */
	FILE *complaints; /* standard error */
};

/* Everything: options, command, output to out and errors to complaints. Returns the exit code of docs/CLI.md, or
 * EXIT_SIGNAL + n if signal n ended the waiting for a migration (which goes on). */
int cli_main(int argc, char **argv, FILE *out, FILE *complaints);

/* Prints "drover: WORDS" and, with --json, the error as a document; returns `code`. */
int cli_fail(struct cli *cli, const struct err *err, int code);
/* The same, with the exit code that belongs to the error. */
int cli_fail_err(struct cli *cli, const struct err *err);
/* What the coordinator refused. */
int cli_fail_reply(struct cli *cli, const struct api_reply *reply);
/* One document, compact, and a newline. */
void cli_print_json(const struct cli *cli, const json_t *doc);

/* Asks with the time limit that fits the question and cleans what is for people. 0; else *ret_exit, all said. */
int cli_ask(struct cli *cli, const struct msg_request *request, struct api_reply *ret_reply, int *ret_exit);

/* Follows migration `id` to its end, with or without showing it; prints the end. Returns the exit code. */
int watch_one(struct cli *cli, uint64_t id, const char *id_text, bool quiet);
/* All that are under way, until interrupted. */
int watch_all(struct cli *cli);
/* Events as they come, until interrupted. */
int watch_events(struct cli *cli);

/* `drover key`: files only. */
int keycmd_run(struct cli *cli);

#endif
