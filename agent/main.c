/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "agent/agent.h"
#include "common/log.h"

struct options {
	const char *home, *config;
	bool check_config;
};

enum { OPTION_HOME = 256, OPTION_CONFIG, OPTION_CHECK };

static const struct argp_option option_table[] = {
	{ "home", OPTION_HOME, "DIR", 0, "Keep etc, lib and run under DIR (default: $DROVER_HOME, else the system's)",
	  0 },
	{ "config", OPTION_CONFIG, "FILE", 0, "Read FILE instead of agent.conf in etc", 0 },
	{ "check-config", OPTION_CHECK, NULL, 0, "Say whether the configuration is good, and exit", 0 },
	{ 0 },
};

static error_t on_option(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	switch (key) {
	case OPTION_HOME:
		options->home = arg;
		return 0;
	case OPTION_CONFIG:
		options->config = arg;
		return 0;
	case OPTION_CHECK:
		options->check_config = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "there is nothing to say beside options: %s", arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static void print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	(void)fprintf(stream, "drover-agent %s\n", DROVER_VERSION);
}

static void on_watchdog(void *ctx)
{
	(void)ctx;
	(void)sd_notify(0, "WATCHDOG=1");
}

static int fail(const struct err *err, int status)
{
	(void)fprintf(stderr, "drover-agent: %s\n", err->text);
	return status;
}

static int run(struct loop *loop, const struct paths *paths, const struct agent_conf *conf)
{
	struct err err = { 0 };
	struct agent *agent = NULL;
	uint64_t watchdog_us = 0;
	if (agent_new(&agent, loop, paths, conf, &err) < 0)
		return fail(&err, err.code == ERR_CONFIG ? EX_CONFIG : EXIT_FAILURE);
	if (paths_write_pid(paths, "agent", (long)getpid(), &err) < 0)
		log_warning("event=pid-file error=\"%s\"", err.text);
	if (sd_watchdog_enabled(0, &watchdog_us) > 0)
		(void)loop_timer(loop, (unsigned)(watchdog_us / 2000), true, on_watchdog, NULL, NULL);
	(void)sd_notify(0, "READY=1");
	int rc = loop_run(loop, &err);
	(void)sd_notify(0, "STOPPING=1");
	bool failed = agent_failed(agent);
	paths_remove_pid(paths, "agent");
	agent_free(agent);
	log_notice("event=stopped");
	if (rc < 0)
		return fail(&err, EXIT_FAILURE);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_table,
		.parser = on_option,
		.doc = "The agent of a host: takes part in migrations that the coordinator asks for.",
	};
	struct options options = { 0 };
	struct paths paths;
	struct err err = { 0 };
	char leg[PATHS_MAX];
	argp_program_version_hook = print_version;
	argp_err_exit_status = EX_USAGE;
	if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
		return EX_USAGE;
	log_init("drover-agent");
	struct agent_conf *conf = calloc(1, sizeof(*conf));
	if (!conf)
		return EXIT_FAILURE;
	int status;
	if (paths_init(&paths, options.home, &err) < 0 || agent_conf_load(conf, &paths, options.config, &err) < 0 ||
	    agent_conf_leg(conf, leg, &err) < 0) {
		status = fail(&err, EX_CONFIG);
	} else if (options.check_config) {
		(void)printf("%s: good\n", conf->file);
		status = EXIT_SUCCESS;
	} else if (paths_make(&paths, &err) < 0) {
		status = fail(&err, EXIT_FAILURE);
	} else {
		struct loop *loop = loop_new(&err); /* before any thread: it blocks the signals */
		status = loop ? run(loop, &paths, conf) : fail(&err, EXIT_FAILURE);
		loop_free(loop);
	}
	free(conf);
	return status;
}
