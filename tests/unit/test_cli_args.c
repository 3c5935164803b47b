/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of `drover`: what is accepted, and the words for what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/cli/args.h"

#define ARGS_MAX 64

/* Splits at blanks and parses. */
static int parse(struct cli_args *args, const char *line, struct err *err)
{
	static char copy[2048]; /* args keep pointers into it */
	char *argv[ARGS_MAX + 1] = { NULL }, *rest = copy;
	int argc = 0;

	snprintf(copy, sizeof(copy), "drover %s", line);
	for (char *word = strsep(&rest, " "); word && argc < ARGS_MAX; word = strsep(&rest, " "))
		if (*word)
			argv[argc++] = word;
	return args_parse(args, argc, argv, err);
}

static void assert_refused(const char *line, const char *words)
{
	struct cli_args args;
	struct err err = { 0 };

	if (parse(&args, line, &err) == 0)
		fail_msg("'%s' was accepted", line);
	assert_int_equal(err.code, ERR_USAGE);
	if (!strstr(err.text, words))
		fail_msg("'%s': '%s' does not say '%s'", line, err.text, words);
}

static void args__migrate_with_everything__fills_the_request(void **state)
{
	struct cli_args args;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(parse(&args,
	                       "--json migrate web3 --to b2 --from a1 --pool B --name web4 --storage xvda=fast "
	                       "--storage xvdb=slow --storage-map local=fast --network br0=br1 --max-downtime 250ms "
	                       "--bandwidth 50M/s --timeout=15m --on-slow throttle --keep-source 24h --keep-copy 0 "
	                       "--priority -3 --key k1 --watch",
	                       &err),
	                 0);
	assert_int_equal(args.command, CLI_MIGRATE);
	assert_true(args.json && args.watch && !args.wait);
	const struct msg_request *r = &args.request;
	assert_int_equal(r->verb, VERB_MIGRATE);
	assert_string_equal(r->vm, "web3");
	assert_string_equal(r->to, "b2");
	assert_string_equal(r->host, "a1");
	assert_string_equal(r->pool, "B");
	assert_string_equal(r->new_name, "web4");
	assert_int_equal(r->disk_map_count, 2);
	assert_string_equal(r->disk_map[1].from, "xvdb");
	assert_string_equal(r->disk_map[1].to, "slow");
	assert_int_equal(r->sr_map_count, 1);
	assert_string_equal(r->network_map[0].to, "br1");
	assert_int_equal(r->max_downtime_ms, 250);
	assert_int_equal(r->bandwidth_bps, 50 * 1024 * 1024);
	assert_int_equal(r->timeout_s, 900);
	assert_int_equal(r->on_slow, ON_SLOW_THROTTLE);
	assert_int_equal(r->keep_source_s, 86400);
	assert_int_equal(r->keep_copy_s, 0);
	assert_int_equal(r->priority, -3);
	assert_string_equal(r->key, "k1");
	assert_int_equal(r->dry_run, 0);
}

static void args__migrate_with_little__leaves_defaults(void **state)
{
	struct cli_args args;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(parse(&args, "migrate --to b2 web3", &err), 0);
	assert_int_equal(args.request.keep_source_s, -1);
	assert_int_equal(args.request.keep_copy_s, -1);
	assert_int_equal(args.request.max_downtime_ms, 0);
	assert_int_equal(args.request.on_slow, 0);
	assert_int_equal(args.connect_timeout_ms, 5000);
}

static void args__every_other_command__is_understood(void **state)
{
	static const struct {
		const char *line;
		enum cli_command command;
		enum verb verb;
	} good[] = {
		{ "list --state copying --host a1 --vm web3 --all", CLI_LIST, VERB_LIST },
		{ "show 17", CLI_SHOW, VERB_SHOW },
		{ "explain 17", CLI_EXPLAIN, VERB_EXPLAIN },
		{ "events", CLI_EVENTS, VERB_EVENTS },
		{ "events 17 --follow", CLI_EVENTS, VERB_EVENTS },
		{ "watch", CLI_WATCH, VERB_SHOW },
		{ "watch 17 --color always", CLI_WATCH, VERB_SHOW },
		{ "cancel 17 --wait", CLI_CANCEL, VERB_CANCEL },
		{ "resolve 17 --owner source --fenced b2 --reason burnt", CLI_RESOLVE, VERB_RESOLVE },
		{ "host forget b2 --reason sold", CLI_HOST_FORGET, VERB_HOST_FORGET },
		{ "retry 17 --key again --watch", CLI_RETRY, VERB_RETRY },
		{ "undo 17 --wait", CLI_UNDO, VERB_UNDO },
		{ "host list", CLI_HOST_LIST, VERB_HOST_LIST },
		{ "host show a1 --json", CLI_HOST_SHOW, VERB_HOST_SHOW },
		{ "vm list --host a1", CLI_VM_LIST, VERB_VM_LIST },
		{ "vm show web3", CLI_VM_SHOW, VERB_VM_SHOW },
		{ "leftovers --host a1", CLI_LEFTOVERS, VERB_LEFTOVERS },
		{ "leftovers --sweep", CLI_LEFTOVERS, VERB_LEFTOVERS },
		{ "--home /tmp/x --connect-timeout 10s status", CLI_STATUS, VERB_STATUS },
		{ "key generate ops --role operator", CLI_KEY_GENERATE, 0 },
		{ "key generate a1 --role agent --host a1", CLI_KEY_GENERATE, 0 },
		{ "key list", CLI_KEY_LIST, 0 },
		{ "key authorize /tmp/file", CLI_KEY_AUTHORIZE, 0 },
		{ "key revoke ops", CLI_KEY_REVOKE, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct cli_args args;
		struct err err = { 0 };

		if (parse(&args, good[i].line, &err) != 0)
			fail_msg("'%s' was refused: %s", good[i].line, err.text);
		assert_int_equal(args.command, good[i].command);
		assert_int_equal(args.request.verb, good[i].verb);
	}
}

static void args__bad_values__are_refused_with_the_reason(void **state)
{
	char line[512];

	(void)state;
	assert_refused("", "no command: use one of: migrate, list");
	assert_refused("repeat 3", "unknown command 'repeat': use one of: migrate");
	assert_refused("retry", "ID is missing");
	assert_refused("undo 3 --to b2", "unknown option '--to'");
	assert_refused("undo 3 --watch --wait", "undo: --watch and --wait exclude each other");
	assert_refused("host", "incomplete command 'host'");
	assert_refused("host drain a1", "unknown command 'host drain'");
	assert_refused("list extra", "one argument too many");
	assert_refused("show", "ID is missing");
	assert_refused("show 1 2", "one argument too many");
	assert_refused("migrate web3", "--to is missing");
	assert_refused("migrate --to b2", "VM is missing");
	assert_refused("migrate web3 --to", "'--to' needs a value");
	assert_refused("migrate web3 --to=", "--to is empty");
	assert_refused("migrate web3 --to b2 --frobnicate", "unknown option '--frobnicate'");
	assert_refused("list --sweep", "unknown option '--sweep'");
	assert_refused("list --all=yes", "'--all' takes no value");
	assert_refused("migrate web3 --to b2 --st a=b", "'--st' is ambiguous");
	assert_refused("-x", "unknown option '-x'");
	assert_refused("migrate web3 --to b2 --max-downtime 0", "out of range");
	assert_refused("migrate web3 --to b2 --max-downtime 300", "not a duration");
	assert_refused("migrate web3 --to b2 --max-downtime 3000h", "out of range");
	assert_refused("migrate web3 --to b2 --bandwidth 50M", "not a rate");
	assert_refused("migrate web3 --to b2 --timeout 0", "out of range");
	assert_refused("migrate web3 --to b2 --timeout soon", "--timeout: 'soon'");
	assert_refused("migrate web3 --to b2 --keep-source -1h", "not a duration");
	assert_refused("migrate web3 --to b2 --keep-copy x", "--keep-copy");
	assert_refused("migrate web3 --to b2 --on-slow panic", "use wait, throttle, force or abort");
	assert_refused("migrate web3 --to b2 --priority 1001", "from -1000 to 1000");
	assert_refused("migrate web3 --to b2 --priority 1x", "not a whole number");
	assert_refused("migrate web3 --to b2 --storage xvda", "not of the form FROM=TO");
	assert_refused("migrate web3 --to b2 --storage-map =b", "not of the form");
	assert_refused("migrate web3 --to b2 --network a=", "not of the form");
	assert_refused("migrate web3 --to b2 --network a=b --network a=c", "mapped twice");
	assert_refused("migrate web3 --to b2 --watch --wait", "exclude each other");
	assert_refused("migrate web3 --to b2 --dry-run --wait", "leave out --wait");
	assert_refused("migrate we\033[b3 --to b2", "control characters");
	assert_refused("--color sometimes list", "use never, auto or always");
	assert_refused("--connect-timeout 0 list", "out of range");
	assert_refused("--home= list", "--home is empty");
	assert_refused("resolve 17 --fenced b2 --reason x", "--owner is missing");
	assert_refused("resolve 17 --owner both --fenced b2 --reason x", "use source or destination");
	assert_refused("resolve 17 --owner source --reason x", "--fenced is missing");
	assert_refused("resolve 17 --owner source --fenced b2", "--reason is missing");
	assert_refused("host forget b2", "--reason is missing");
	assert_refused("host forget --reason x", "HOST is missing");
	assert_refused("key generate ops", "--role is missing");
	assert_refused("key generate ops --role king", "use operator");
	assert_refused("key generate a1 --role agent", "--host is missing");
	assert_refused("key generate ops --role viewer --host a1", "for --role agent only");
	assert_refused("key authorize", "FILE is missing");
	snprintf(line, sizeof(line), "migrate %0*d --to b2", LIMIT_NAME, 0);
	assert_refused(line, "too long: at most 63 bytes");
}

/* What cannot be sent is bad usage, and not a failure of the coordinator's. */
static void args__text_that_is_not_utf8__is_refused(void **state)
{
	(void)state;
	assert_refused("cancel 17\xc0\xa9", "not UTF-8");
	assert_refused("vm show web\xed\xa0\x80", "not UTF-8");
	assert_refused("migrate web3 --to b2 --storage xvda=\xc1\xbf", "not UTF-8");
}

static void args__too_many_maps__are_refused(void **state)
{
	char *argv[2 * LIMIT_MAPS + 8] = { "drover", "migrate", "web3", "--to", "b2" };
	char maps[LIMIT_MAPS + 1][32];
	struct cli_args args;
	struct err err = { 0 };
	int argc = 5;

	(void)state;
	for (int i = 0; i <= LIMIT_MAPS; i++) {
		snprintf(maps[i], sizeof(maps[i]), "--network=br%d=x", i);
		argv[argc++] = maps[i];
	}
	assert_int_equal(args_parse(&args, argc - 1, argv, &err), 0);
	assert_int_equal(args.request.network_map_count, LIMIT_MAPS);
	assert_int_equal(args_parse(&args, argc, argv, &err), -1);
}

static void args__help_of_every_command__names_its_options(void **state)
{
	const char *name;

	(void)state;
	for (unsigned i = 0; (name = args_command_name(i)); i++) {
		char line[128], *text = NULL;
		struct cli_args args;
		struct err err = { 0 };
		size_t bytes;
		FILE *out = open_memstream(&text, &bytes);

		snprintf(line, sizeof(line), "%s --help", name);
		assert_int_equal(parse(&args, line, &err), 0);
		assert_int_equal(args.ask, CLI_HELP);
		args_help(&args, out);
		fclose(out);
		assert_non_null(strstr(text, name));
		assert_non_null(strstr(text, "--json"));
		if (strcmp(name, "migrate") == 0)
			assert_non_null(strstr(text, "--storage-map=SR=SR"));
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(args__migrate_with_everything__fills_the_request),
		cmocka_unit_test(args__migrate_with_little__leaves_defaults),
		cmocka_unit_test(args__every_other_command__is_understood),
		cmocka_unit_test(args__bad_values__are_refused_with_the_reason),
		cmocka_unit_test(args__text_that_is_not_utf8__is_refused),
		cmocka_unit_test(args__too_many_maps__are_refused),
		cmocka_unit_test(args__help_of_every_command__names_its_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
