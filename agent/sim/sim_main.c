/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* drover-sim: options and output. */
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/sim/fleet.h"
#include "agent/sim/verify.h"
#include "common/log.h"
#include "common/units.h"

#define DEFAULT_HOSTS "a1@A,b1@B"
#define DEFAULT_DIRTY ((uint64_t)1 << 20)
#define DEFAULT_WRITE ((uint64_t)256 << 10)
#define DEFAULT_TICK_MS 10u
#define RATE_MAX ((uint64_t)1 << 40)

enum command {
	COMMAND_NONE,
	COMMAND_UP,
	COMMAND_DOWN,
	COMMAND_CREATE,
	COMMAND_LIST,
	COMMAND_DESTROY,
	COMMAND_OFF,
	COMMAND_ON,
	COMMAND_VERIFY
};
static const char *const command_names[] = { "",        "up",        "down",     "create", "list",
	                                     "destroy", "power-off", "power-on", "verify" };

enum option_key {
	OPTION_HOME = 256,
	OPTION_HOSTS,
	OPTION_EXPORTER,
	OPTION_ON,
	OPTION_MEMORY,
	OPTION_DIRTY,
	OPTION_DISK,
	OPTION_DISK_WRITE,
	OPTION_TICK,
	OPTION_FILL,
	OPTION_VCPUS,
	OPTION_SEED,
	OPTION_JSON
};

struct options {
	enum command command;
	const char *home, *hosts, *exporter, *on, *argument;
	bool json, write_given;
	struct sim_record record;
};

const char *argp_program_version = "drover-sim " DROVER_VERSION;

static const struct argp_option option_list[] = {
	{ "home", OPTION_HOME, "DIR", 0, "Directory of the fleet (default: $DROVER_HOME)", 0 },
	{ "json", OPTION_JSON, NULL, 0, "One JSON document on standard output", 0 },
	{ NULL, 0, NULL, 0, "For `up` on a new directory:", 1 },
	{ "hosts", OPTION_HOSTS, "HOST@POOL,...", 0, "Hosts to make (default " DEFAULT_HOSTS ")", 1 },
	{ "exporter", OPTION_EXPORTER, "nbd|iscsi", 0, "How agents offer incoming disks (default nbd)", 1 },
	{ NULL, 0, NULL, 0, "For `create`:", 2 },
	{ "on", OPTION_ON, "HOST", 0, "Host that the VM starts on", 2 },
	{ "memory", OPTION_MEMORY, "SIZE", 0, "Its memory", 2 },
	{ "dirty", OPTION_DIRTY, "RATE", 0, "How fast it writes memory (default 1M/s; 0: a counter only)", 2 },
	{ "disk", OPTION_DISK, "NAME=SIZE@SR", 0, "A disk on SR local (raw) or qcow (qcow2); may be repeated", 2 },
	{ "disk-write", OPTION_DISK_WRITE, "RATE", 0, "How fast it writes its disks (default 256K/s)", 2 },
	{ "tick", OPTION_TICK, "DUR", 0, "Time of a tick (default 10ms)", 2 },
	{ "fill", OPTION_FILL, "PERCENT", 0, "How much of memory and disks is not zero from the start (default 0)", 2 },
	{ "vcpus", OPTION_VCPUS, "N", 0, "Virtual processors (default 1)", 2 },
	{ "seed", OPTION_SEED, "N", 0, "What its content is made from (default: random)", 2 },
	{ 0 },
};

static uint64_t number(struct argp_state *state, const char *what, const char *value, uint64_t min, uint64_t max)
{
	struct err err = { 0 };
	uint64_t result = 0;
	if (units_parse_number(value, &result, &err) != 0 || result < min || result > max)
		argp_error(state, "%s '%s': a number from %llu to %llu is needed", what, value, (unsigned long long)min,
		           (unsigned long long)max);
	return result;
}

/* "10M/s", also without the "/s". */
static uint64_t rate(struct argp_state *state, const char *what, const char *value)
{
	struct err err = { 0 };
	uint64_t result = 0;
	if ((units_parse_rate(value, &result, &err) != 0 && units_parse_size(value, &result, NULL) != 0) ||
	    result > RATE_MAX)
		argp_error(state, "%s: %s", what, err.code != ERR_NONE ? err.text : "too much");
	return result;
}

static void take_disk(struct argp_state *state, struct sim_record *record, char *value)
{
	struct err err = { 0 };
	char *equals = strchr(value, '='), *at = equals != NULL ? strchr(equals, '@') : NULL;
	if (at == NULL || record->disk_count == LIMIT_DISKS) {
		argp_error(state, at == NULL ? "disk '%s': use NAME=SIZE@SR" : "disk '%s' is one too many", value);
		return;
	}
	struct sim_disk *disk = &record->disks[record->disk_count++];
	*equals = *at = '\0';
	snprintf(disk->name, sizeof(disk->name), "%s", value);
	snprintf(disk->sr, sizeof(disk->sr), "%s", at + 1);
	if (!sim_name_ok(value) || strlen(value) > 16)
		argp_error(state, "disk name '%s': use letters and digits, at most 16", value);
	for (unsigned i = 0; i + 1 < record->disk_count; i++)
		if (strcmp(record->disks[i].name, disk->name) == 0)
			argp_error(state, "disk '%s' is named twice", disk->name);
	if (units_parse_size(equals + 1, &disk->size_bytes, &err) != 0)
		argp_error(state, "disk %s: %s", value, err.text);
}

static error_t take_argument(char *value, struct argp_state *state)
{
	struct options *options = state->input;
	if (options->command == COMMAND_NONE) {
		for (enum command command = COMMAND_UP; command <= COMMAND_VERIFY; command++)
			if (strcmp(value, command_names[command]) == 0)
				options->command = command;
		if (options->command == COMMAND_NONE)
			argp_error(state, "unknown command '%s'", value);
	} else if (options->argument == NULL) {
		options->argument = value;
	} else {
		argp_error(state, "one word too many: '%s'", value);
	}
	return 0;
}

static void check(struct argp_state *state)
{
	struct options *options = state->input;
	bool wants = options->command == COMMAND_CREATE || options->command == COMMAND_DESTROY ||
	             options->command == COMMAND_OFF || options->command == COMMAND_ON;
	if (options->command == COMMAND_NONE)
		argp_error(state, "which command? up, down, create, list, destroy, power-off, power-on or verify");
	if (wants && options->argument == NULL)
		argp_error(state, "%s needs a name", command_names[options->command]);
	if (!wants && options->argument != NULL)
		argp_error(state, "%s takes no name", command_names[options->command]);
	if (options->command == COMMAND_CREATE && (options->on == NULL || options->record.memory_bytes == 0))
		argp_error(state, "create needs --on and --memory");
	if (options->home == NULL)
		options->home = getenv("DROVER_HOME");
	if (options->home == NULL || options->home[0] == '\0')
		argp_error(state, "--home is needed");
}

static error_t take_option(int key, char *value, struct argp_state *state)
{
	struct options *options = state->input;
	struct sim_record *record = &options->record;
	struct err err = { 0 };
	uint64_t tick_ms = 0;
	switch (key) {
	case OPTION_HOME:
		options->home = value;
		return 0;
	case OPTION_JSON:
		options->json = true;
		return 0;
	case OPTION_HOSTS:
		options->hosts = value;
		return 0;
	case OPTION_EXPORTER:
		options->exporter = value;
		return 0;
	case OPTION_ON:
		options->on = value;
		return 0;
	case OPTION_MEMORY:
		if (units_parse_size(value, &record->memory_bytes, &err) != 0)
			argp_error(state, "memory: %s", err.text);
		if (record->memory_bytes < SIM_MEMORY_MIN || record->memory_bytes > SIM_MEMORY_MAX ||
		    record->memory_bytes % SIM_MEMORY_MIN != 0)
			argp_error(state, "memory '%s': whole MiB, from 1M to 1T", value);
		return 0;
	case OPTION_DIRTY:
		record->dirty_bps = rate(state, "dirty", value);
		return 0;
	case OPTION_DISK:
		take_disk(state, record, value);
		return 0;
	case OPTION_DISK_WRITE:
		record->write_bps = rate(state, "disk-write", value);
		options->write_given = true;
		return 0;
	case OPTION_TICK:
		if (units_parse_duration(value, &tick_ms, &err) != 0 || tick_ms < 1 || tick_ms > SIM_TICK_MS_MAX)
			argp_error(state, "tick '%s': from 1ms to 60s", value);
		record->tick_ms = (uint32_t)tick_ms;
		return 0;
	case OPTION_FILL:
		record->fill_percent = (uint32_t)number(state, "fill", value, 0, 100);
		return 0;
	case OPTION_VCPUS:
		record->vcpus = (uint32_t)number(state, "vcpus", value, 1, 512);
		return 0;
	case OPTION_SEED:
		record->seed = number(state, "seed", value, 1, INT64_MAX);
		return 0;
	case ARGP_KEY_ARG:
		return take_argument(value, state);
	case ARGP_KEY_END:
		check(state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp parser = {
	.options = option_list,
	.parser = take_option,
	.args_doc = "up|down|list|verify\ncreate|destroy VM\npower-off|power-on HOST",
	.doc = "A fleet of simulated hosts on one machine, with guests that can be checked.\vup makes a fleet in DIR, "
	       "or starts "
	       "again what does not run of the one that is there.",
};

static void print_json(json_t *doc)
{
	json_dumpf(doc, stdout, JSON_INDENT(1));
	putchar('\n');
}

static int up(struct fleet *fleet, const struct options *options, struct err *err)
{
	struct err why = { 0 };
	if (fleet_load(fleet, options->home, &why) != 0) {
		if (why.code != ERR_CONFIG)
			return err_set(err, why.code, "%s", why.text);
		if (fleet_make(fleet, options->home, options->hosts != NULL ? options->hosts : DEFAULT_HOSTS,
		               options->exporter != NULL ? options->exporter : "nbd", err) != 0)
			return -1;
	}
	if (fleet_watch_power(fleet, err) != 0 || fleet_up(fleet, err) != 0)
		return -1;
	if (options->json) {
		json_t *hosts = json_array();
		for (unsigned i = 0; i < fleet->host_count; i++)
			json_array_append_new(hosts,
			                      json_pack("{s:s,s:s,s:s}", "name", fleet->hosts[i].name, "pool",
			                                fleet->hosts[i].pool, "home", fleet->hosts[i].paths.home));
		json_t *doc =
			json_pack("{s:s,s:s,s:o}", "home", fleet->dir, "coordinator", fleet->endpoint, "hosts", hosts);
		print_json(doc);
		json_decref(doc);
	} else {
		printf("up: %u hosts connected to %s; use drover --home %s\n", fleet->host_count, fleet->endpoint,
		       fleet->dir);
	}
	return 0;
}

static int list(struct fleet *fleet, const struct options *options, struct err *err)
{
	json_t *doc, *vm;
	size_t index;
	if (fleet_list(fleet, &doc, err) != 0)
		return -1;
	if (options->json) {
		print_json(doc);
	} else {
		printf("%-20s %-10s %-12s %10s %10s %8s\n", "VM", "HOST", "STATE", "MEMORY", "TICK", "PID");
		json_array_foreach(json_object_get(doc, "vms"), index, vm)
		{
			char memory[UNITS_TEXT];
			units_format_size((uint64_t)json_integer_value(json_object_get(vm, "memory_bytes")), memory);
			printf("%-20s %-10s %-12s %10s %10lld %8lld\n", json_string_value(json_object_get(vm, "name")),
			       json_string_value(json_object_get(vm, "host")),
			       json_string_value(json_object_get(vm, "state")), memory,
			       (long long)json_integer_value(json_object_get(vm, "tick")),
			       (long long)json_integer_value(json_object_get(vm, "pid")));
		}
	}
	json_decref(doc);
	return 0;
}

static int create(struct fleet *fleet, struct options *options, struct err *err)
{
	struct fleet_host *host = fleet_host(fleet, options->on, err);
	struct sim_record *record = &options->record;
	if (host == NULL)
		return -1;
	if (strlen(options->argument) >= sizeof(record->name))
		return err_set(err, ERR_USAGE, "name '%s' is too long", options->argument);
	snprintf(record->name, sizeof(record->name), "%s", options->argument);
	if (!options->write_given && record->disk_count > 0)
		record->write_bps = DEFAULT_WRITE;
	if (fleet_create(fleet, host, record, err) != 0)
		return err_wrap(err, "create %s on %s", options->argument, options->on);
	return 0;
}

static int power(struct fleet *fleet, const struct options *options, struct err *err)
{
	struct fleet_host *host = fleet_host(fleet, options->argument, err);
	if (host == NULL)
		return -1;
	return options->command == COMMAND_OFF ? fleet_power_off(fleet, host, err) : fleet_power_on(fleet, host, err);
}

/* 0: done, 1: verify found faults, -1: failed. */
static int run(struct fleet *fleet, struct options *options, struct err *err)
{
	if (options->command == COMMAND_UP)
		return up(fleet, options, err);
	if (options->command == COMMAND_VERIFY)
		return verify_fleet(options->home, options->json, stdout, err);
	if (fleet_load(fleet, options->home, err) != 0 || fleet_watch_power(fleet, err) != 0)
		return -1;
	switch (options->command) {
	case COMMAND_DOWN:
		return fleet_down(fleet, err);
	case COMMAND_CREATE:
		return create(fleet, options, err);
	case COMMAND_LIST:
		return list(fleet, options, err);
	case COMMAND_DESTROY:
		return fleet_destroy(fleet, options->argument, err);
	case COMMAND_OFF:
	case COMMAND_ON:
		return power(fleet, options, err);
	case COMMAND_NONE:
	case COMMAND_UP:
	case COMMAND_VERIFY:
		break;
	}
	return err_set(err, ERR_INTERNAL, "no such command");
}

int main(int argc, char **argv)
{
	struct options options = { .record = { .vcpus = 1, .dirty_bps = DEFAULT_DIRTY, .tick_ms = DEFAULT_TICK_MS } };
	struct err err = { 0 };
	struct fleet *fleet = calloc(1, sizeof(*fleet));
	argp_err_exit_status = 2;
	argp_parse(&parser, argc, argv, 0, NULL, &options);
	log_init("drover-sim");
	log_level_set(LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	if (fleet == NULL)
		return 1;
	int result = run(fleet, &options, &err);
	if (result < 0) {
		fprintf(stderr, "drover-sim: %s: %s\n", command_names[options.command], err.text);
		if (options.json) {
			json_t *doc =
				json_pack("{s:{s:s,s:s}}", "error", "code", err_name(err.code), "message", err.text);
			print_json(doc);
			json_decref(doc);
		}
	}
	free(fleet);
	if (result >= 0)
		return result;
	return err.code == ERR_USAGE || err.code == ERR_UNKNOWN_HOST || err.code == ERR_UNKNOWN_VM ? 2 : 1;
}
