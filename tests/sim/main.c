/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One world from one seed: options, the run, what came of it. */
#include <argp.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/sim/world.h"

#define HEAL_AFTER (20 * SECOND)     /* after the last submission */
#define SETTLE_LIMIT (1800 * SECOND) /* until then everything must have come to its end */
#define LOOK_EACH (5 * SECOND)
#define QUIET_LOOKS 8 /* as often in a row */
#define LEVEL_MAX 4u

enum { EXIT_BROKEN = 1, EXIT_USAGE = 2 };
enum { OPT_SEED = 256, OPT_HOSTS, OPT_POOLS, OPT_MIGRATIONS, OPT_FAULTS, OPT_PLANT, OPT_TRACE, OPT_REPLAY, OPT_FAILED };

struct options {
	struct scenario scenario;
	bool level_given, trace;
	const char *replay, *failed;
};

static const struct argp_option option_table[] = {
	{ "seed", OPT_SEED, "N", 0, "What everything follows from (1)", 0 },
	{ "hosts", OPT_HOSTS, "N", 0, "Hosts, 2 to 1000 (by the seed: 3 to 8)", 0 },
	{ "pools", OPT_POOLS, "N", 0, "Pools (2)", 0 },
	{ "migrations", OPT_MIGRATIONS, "N", 0, "Migrations that are asked for (by the seed)", 0 },
	{ "faults", OPT_FAULTS, "LEVEL", 0, "0 (none) to 4 (absurd) (by the seed)", 0 },
	{ "plant", OPT_PLANT, "NAME", 0, "A fault of the environment that must be found out", 0 },
	{ "trace", OPT_TRACE, NULL, 0, "Print all that happens", 0 },
	{ "replay", OPT_REPLAY, "FILE", 0, "Take all of this from a scenario file", 0 },
	{ "failed", OPT_FAILED, "FILE", 0, "Where the scenario is written if a promise is broken", 0 },
	{ 0 },
};

static unsigned number(struct argp_state *state, const char *text, unsigned least, unsigned most)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);
	if (!*text || *end || value < least || value > most)
		argp_error(state, "%s: a number from %u to %u is wanted", text, least, most);
	return (unsigned)value;
}

static int read_scenario(const char *path, struct scenario *scenario)
{
	FILE *file = fopen(path, "r");
	char plant[32] = "";
	unsigned long long seed = 0;
	if (!file)
		return -1;
	int got = fscanf(file, "seed %llu hosts %u pools %u migrations %u faults %u plant %31s", &seed,
	                 &scenario->hosts, &scenario->pools, &scenario->migrations, &scenario->level, plant);
	(void)fclose(file);
	scenario->seed = seed;
	scenario->plant = plant_from_name(plant);
	return got == 6 && scenario->plant < PLANTS && scenario->hosts >= 2 && scenario->level <= LEVEL_MAX ? 0 : -1;
}

static error_t on_option(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;
	switch (key) {
	case OPT_SEED:
		o->scenario.seed = number(state, arg, 1, UINT32_MAX);
		return 0;
	case OPT_HOSTS:
		o->scenario.hosts = number(state, arg, 2, 1000);
		return 0;
	case OPT_POOLS:
		o->scenario.pools = number(state, arg, 1, 1000);
		return 0;
	case OPT_MIGRATIONS:
		o->scenario.migrations = number(state, arg, 0, 100000);
		return 0;
	case OPT_FAULTS:
		o->scenario.level = number(state, arg, 0, LEVEL_MAX);
		o->level_given = true;
		return 0;
	case OPT_PLANT:
		o->scenario.plant = plant_from_name(arg);
		if (o->scenario.plant == PLANTS)
			argp_error(state, "%s: there is no such plant", arg);
		return 0;
	case OPT_TRACE:
		o->trace = true;
		return 0;
	case OPT_REPLAY:
		o->replay = arg;
		if (read_scenario(arg, &o->scenario) < 0)
			argp_failure(state, EXIT_USAGE, 0, "%s: no scenario", arg);
		o->level_given = true;
		return 0;
	case OPT_FAILED:
		o->failed = arg;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "there is nothing to say beside options: %s", arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* What was not said follows from the seed: small worlds, all levels. */
static void complete(struct options *o)
{
	struct scenario *s = &o->scenario;
	uint64_t seed = s->seed;
	if (!o->level_given)
		s->level = (unsigned)(seed % (LEVEL_MAX + 1));
	if (!s->hosts)
		s->hosts = 3 + (unsigned)(seed / 5 % 6);
	if (!s->pools)
		s->pools = 2;
	if (!s->migrations)
		s->migrations = 8 + (unsigned)(seed / 7 % 40);
}

/* ---- the world's place ---- */

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st, (void)kind, (void)ftw;
	return remove(path);
}

static void home_end(void)
{
	if (world.home[0] && chdir("/") == 0)
		(void)nftw(world.home, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* The programs that agents look for; none is run. */
static int make_programs(void)
{
	static const char *const names[] = {
		"nbdkit", "qemu-nbd", "tgtd", "tgtadm", "qemu-img", "qemu-storage-daemon"
	};
	char path[64];
	if (mkdir("bin", 0700))
		return -1;
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(path, sizeof(path), "bin/%s", names[i]);
		FILE *file = fopen(path, "w");
		if (!file || fclose(file) || chmod(path, 0700))
			return -1;
	}
	return setenv("PATH", "bin", 1);
}

/* Everything is named from here, so that no name differs from run to run. */
static int home_begin(void)
{
	const char *tmp = getenv("TMPDIR");
	struct stat st;
	if (!tmp)
		tmp = stat("/dev/shm", &st) == 0 ? "/dev/shm" : "/tmp";
	(void)snprintf(world.home, sizeof(world.home), "%.400s/drover-sim.XXXXXX", tmp);
	if (!mkdtemp(world.home) || chdir(world.home) || make_programs()) {
		perror(world.home);
		return -1;
	}
	return 0;
}

/* ---- the run ---- */

static int make_world(void)
{
	struct err err = { 0 };
	if (vfs_begin(&err) < 0 || machines_make(&err) < 0 || (guests_make(), operator_begin(&err)) < 0) {
		(void)fprintf(stderr, "sim: %s\n", err.text);
		return -1;
	}
	coordinator_begin(NULL, 0);
	faults_begin();
	return 0;
}

static void run_until(int64_t until_us)
{
	while (world_now_us < until_us && !promise_is_broken() && event_step())
		;
}

/* Until everything has come to its end, or should have. */
static void settle(void)
{
	int64_t limit_us = world_now_us + SETTLE_LIMIT;
	unsigned quiet = 0;
	while (quiet < QUIET_LOOKS && world_now_us < limit_us && !promise_is_broken()) {
		run_until(world_now_us + LOOK_EACH);
		quiet = operator_is_done() && records_are_quiet() ? quiet + 1 : 0;
	}
	if (promise_is_broken())
		return;
	records_check_rest();
	if (!operator_is_done())
		promise_broken("everybody who asks is answered", "somebody still waits");
	records_check();
	operator_check();
	leavings_check();
}

static void run(void)
{
	run_until(operator_work_us() + HEAL_AFTER);
	faults_heal();
	settle();
	if (promise_is_broken())
		return;
	operator_close();
	settle();
}

static void free_world(void)
{
	world_quiet_end();
	operator_free();
	wires_free();
	agents_free();
	legs_free();
	machines_free();
	guests_free();
	world_events_free();
}

/* ---- what came of it ---- */

static void print_scenario(FILE *file)
{
	const struct scenario *s = &world.scenario;
	(void)fprintf(file, "seed %llu hosts %u pools %u migrations %u faults %u plant %s\n",
	              (unsigned long long)s->seed, s->hosts, s->pools, s->migrations, s->level, plant_name(s->plant));
}

static void print_line(void *file, const char *text)
{
	(void)fprintf(file, "%s\n", text);
}

static void write_failed(const char *path)
{
	FILE *file = fopen(path, "w");
	if (!file) {
		perror(path);
		return;
	}
	print_scenario(file);
	(void)fprintf(file, "broken %s: %s\n", promise_name(), promise_text());
	trace_tail(print_line, file);
	(void)fclose(file);
}

static void print_result(void)
{
	(void)printf("world ");
	print_scenario(stdout);
	operator_print();
	records_print();
	(void)printf("faults");
	for (int fault = 0; fault < FAULTS; fault++)
		if (world.injected[fault])
			(void)printf(" %s %llu", fault_name((enum fault)fault),
			             (unsigned long long)world.injected[fault]);
	(void)printf("\ntime virtual-s %lld messages %llu commits %llu\n", (long long)(world_now_us / SECOND),
	             (unsigned long long)world.messages, (unsigned long long)world.commits);
	(void)printf("digest %016llx\n", (unsigned long long)trace_digest());
	if (promise_is_broken())
		(void)printf("BROKEN seed %llu: %s: %s\n", (unsigned long long)world.scenario.seed, promise_name(),
		             promise_text());
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_table,
		.parser = on_option,
		.doc = "Runs coordinator, agents and legs in a simulated world, and checks what was promised.",
	};
	struct options options = { .scenario = { .seed = 1 } };
	char failed[PATHS_MAX * 2] = "", here[PATHS_MAX];
	argp_err_exit_status = EXIT_USAGE;
	if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
		return EXIT_USAGE;
	complete(&options);
	world.scenario = options.scenario;
	world.show_trace = options.trace;
	if (options.failed && getcwd(here, sizeof(here)))
		(void)snprintf(failed, sizeof(failed), "%s/%s", options.failed[0] == '/' ? "" : here, options.failed);
	if (home_begin() < 0 || make_world() < 0)
		return EXIT_USAGE;
	run();
	print_result();
	if (promise_is_broken() && failed[0])
		write_failed(failed);
	free_world();
	home_end();
	return promise_is_broken() ? EXIT_BROKEN : 0;
}
