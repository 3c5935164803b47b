/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* drover-leg-HYPERVISOR: which driver is linked is what makes the difference. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/leg/inventory.h"
#include "agent/leg/survey.h"
#include "common/log.h"

enum mode { MODE_NONE, MODE_INVENTORY, MODE_RUN, MODE_SURVEY };

struct arguments {
	enum mode mode;
	struct leg_options leg;
	struct survey_options survey;
};

static uint64_t number(struct argp_state *state, const char *text, uint64_t max)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value == 0 || value > max)
		argp_error(state, "'%s' is not a number from 1 to %llu", text, (unsigned long long)max);
	return value;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct arguments *arguments = state->input;
	switch (key) {
	case 'h':
		arguments->leg.home = arguments->survey.home = text;
		return 0;
	case 'm':
		arguments->leg.migration = number(state, text, INT64_MAX);
		return 0;
	case 'g':
		arguments->leg.generation = (uint32_t)number(state, text, UINT32_MAX);
		return 0;
	case 's':
		if (strcmp(text, "source") == 0)
			arguments->leg.side = SIDE_SOURCE;
		else if (strcmp(text, "destination") == 0)
			arguments->leg.side = SIDE_DESTINATION;
		else
			argp_error(state, "side is source or destination, not '%s'", text);
		return 0;
	case 'r':
		arguments->leg.recover = true;
		return 0;
	case 'w':
		arguments->survey.sweep = true;
		return 0;
	case 'o':
		arguments->survey.over = text;
		return 0;
	case ARGP_KEY_ARG:
		if (arguments->mode != MODE_NONE)
			argp_usage(state);
		if (strcmp(text, "inventory") == 0)
			arguments->mode = MODE_INVENTORY;
		else if (strcmp(text, "run") == 0)
			arguments->mode = MODE_RUN;
		else if (strcmp(text, "survey") == 0)
			arguments->mode = MODE_SURVEY;
		else
			argp_error(state, "'%s' is neither inventory, survey nor run", text);
		return 0;
	case ARGP_KEY_END:
		if (arguments->mode == MODE_NONE)
			argp_usage(state);
		if (arguments->mode == MODE_RUN &&
		    (!arguments->leg.migration || !arguments->leg.generation || !arguments->leg.side))
			argp_error(state, "run needs --migration, --generation and --side");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option options[] = {
	{ "home", 'h', "DIR", 0, "Where etc, lib and run are (default: DROVER_HOME, or the system's)", 0 },
	{ "migration", 'm', "N", 0, "Number of the migration", 0 },
	{ "generation", 'g', "G", 0, "Its generation", 0 },
	{ "side", 's', "SIDE", 0, "source or destination", 0 },
	{ "recover", 'r', NULL, 0, "Only end what a leg before began, by the journal", 0 },
	{ "sweep", 'w', NULL, 0, "survey: take away what nobody claims, of the migrations that --over names", 0 },
	{ "over", 'o', "N:WORD,...", 0, "survey: migrations that are over: unknown, aborted or other", 0 },
	{ 0 },
};

int main(int argc, char **argv)
{
	static const struct argp argp = {
		options,
		parse,
		"inventory\nsurvey [--sweep --over N:WORD,...]\nrun --migration N --generation G --side source|destination [--recover]",
		"Does what blocks for one migration on one host; started by drover-agent.",
		NULL,
		NULL,
		NULL
	};
	static char name[LIMIT_NAME], version[2 * LIMIT_NAME];
	struct arguments arguments = { .mode = MODE_NONE };
	snprintf(name, sizeof(name), "drover-leg-%s", hypervisor_driver->name);
	snprintf(version, sizeof(version), "%s " DROVER_VERSION, name);
	argp_program_version = version;
	argp_parse(&argp, argc, argv, 0, NULL, &arguments);
	log_init(name);
	if (arguments.mode == MODE_INVENTORY)
		return inventory_print(arguments.leg.home, hypervisor_driver, stdout);
	if (arguments.mode == MODE_SURVEY)
		return survey_run(&arguments.survey, hypervisor_driver, stdout);
	return leg_run(&arguments.leg, hypervisor_driver);
}
