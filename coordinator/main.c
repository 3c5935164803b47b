/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options, configuration, signals. */
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "common/log.h"
#include "coordinator/coordinator.h"
#include "coordinator/core/migration.h"

enum { OPT_HOME = 256, OPT_CONFIG, OPT_CHECK, OPT_REFERENCE, OPT_STATES };
enum { EXIT_BAD_CONFIG = 2 };

struct options {
	const char *home, *config;
	bool check, reference, states;
};

static const struct argp_option argp_table[] = {
	{ "home", OPT_HOME, "DIR", 0,
	  "Keep etc, lib and run under DIR (default: DROVER_HOME, else the system's directories)", 0 },
	{ "config", OPT_CONFIG, "FILE", 0, "Read FILE instead of etc/coordinator.conf", 0 },
	{ "check-config", OPT_CHECK, NULL, 0, "Say whether the configuration is good, and end", 0 },
	{ "config-reference", OPT_REFERENCE, NULL, 0, "Print every key of the configuration, and end", 0 },
	{ "states", OPT_STATES, NULL, 0, "Print the states of a migration and what follows them, and end", 0 },
	{ NULL, 0, NULL, 0, NULL, 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	switch (key) {
	case OPT_HOME:
		options->home = arg;
		return 0;
	case OPT_CONFIG:
		options->config = arg;
		return 0;
	case OPT_CHECK:
		options->check = true;
		return 0;
	case OPT_REFERENCE:
		options->reference = true;
		return 0;
	case OPT_STATES:
		options->states = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_usage(state);
		return EINVAL;
	}
	return ARGP_ERR_UNKNOWN;
}

const char *argp_program_version = "drover-coordinator " DROVER_VERSION;
error_t argp_err_exit_status = EXIT_BAD_CONFIG;

struct signal_ctx {
	struct coordinator *coordinator;
	struct loop *loop;
};

static void on_signal(void *ctx, int signo)
{
	struct signal_ctx *signals = ctx;
	if (signo == SIGHUP) {
		coordinator_reload(signals->coordinator);
		return;
	}
	(void)sd_notify(0, "STOPPING=1");
	log_notice("event=stopping signal=%s", signo == SIGTERM ? "TERM" : "INT");
	loop_stop(signals->loop);
}

static void print_text(void *ctx, const char *text)
{
	(void)fputs(text, ctx);
}

static int complain(const char *what, const struct err *err)
{
	(void)fprintf(stderr, "drover-coordinator: %s: %s\n", what, err->text);
	return err->code == ERR_CONFIG || err->code == ERR_USAGE ? EXIT_BAD_CONFIG : EXIT_FAILURE;
}

static int run(const struct paths *paths, const struct settings *settings)
{
	struct err err;
	struct coordinator *coordinator = NULL;
	err_clear(&err);
	struct loop *loop = loop_new(&err);
	if (!loop)
		return complain("start", &err);
	if (coordinator_new(&coordinator, loop, paths, settings, &clock_real, &err) != 0) {
		loop_free(loop);
		return complain("start", &err);
	}
	struct signal_ctx signals = { .coordinator = coordinator, .loop = loop };
	loop_on_signal(loop, on_signal, &signals);
	(void)sd_notifyf(0, "READY=1\nSTATUS=Listening on %s", coordinator_endpoint(coordinator));
	int result = loop_run(loop, &err);
	bool failed = result != 0 || coordinator_failed(coordinator);
	coordinator_free(coordinator);
	loop_free(loop);
	if (result != 0)
		return complain("run", &err);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = argp_table,
		.parser = parse,
		.doc = "Records, dispatches and watches over migrations of virtual machines between hosts.",
	};
	struct options options = { .home = NULL };
	struct paths paths;
	struct settings settings;
	struct err err;
	err_clear(&err);
	if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
		return EXIT_BAD_CONFIG;
	if (options.reference || options.states) {
		if (options.reference)
			conf_reference(&settings_table, stdout);
		if (options.states)
			migration_table(print_text, stdout);
		return EXIT_SUCCESS;
	}
	log_init("drover-coordinator");
	if (paths_init(&paths, options.home, &err) != 0)
		return complain("start", &err);
	if (settings_load(&paths, options.config, &settings, &err) != 0)
		return complain("configuration", &err);
	if (options.check) {
		(void)puts("the configuration is good");
		return EXIT_SUCCESS;
	}
	if (paths_make(&paths, &err) != 0)
		return complain("start", &err);
	return run(&paths, &settings);
}
