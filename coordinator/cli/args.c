/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/args.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/units.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/text.h"

/* argp gives a parser one pointer. */
struct parse {
	struct cli_args *args;
	const struct command *command; /* NULL while it is looked for */
	const struct argp_option *options, *everywhere;
	unsigned words; /* positional arguments so far */
	int next;       /* index of the command in argv; 0: none */
	struct err *err;
};

static int take_text(char *field, size_t bytes, const char *what, const char *text, struct err *err)
{
	if (!*text)
		return err_set(err, ERR_USAGE, "%s is empty: give a value", what);
	if (strlen(text) >= bytes)
		return err_set(err, ERR_USAGE, "%s is too long: at most %zu bytes", what, bytes - 1);
	if (!text_is_clean(text))
		return err_set(err, ERR_USAGE, "%s holds control characters: use printable ones", what);
	memcpy(field, text, strlen(text) + 1);
	return 0;
}

/* "A=B" onto the end of a list of maps. */
static int take_map(struct msg_map *maps, uint32_t *count, const char *what, const char *text, struct err *err)
{
	const char *equals = strchr(text, '=');
	char from[LIMIT_NAME];

	if (!equals || equals == text || !equals[1])
		return err_set(err, ERR_USAGE, "%s '%.100s': not of the form FROM=TO", what, text);
	if (*count == LIMIT_MAPS)
		return err_set(err, ERR_USAGE, "%s: more than %d of them", what, LIMIT_MAPS);
	if ((size_t)(equals - text) >= sizeof(from))
		return err_set(err, ERR_USAGE, "%s: the part before '=' is too long: at most %zu bytes", what,
		               sizeof(from) - 1);
	memcpy(from, text, (size_t)(equals - text));
	from[equals - text] = '\0';
	for (uint32_t i = 0; i < *count; i++)
		if (strcmp(maps[i].from, from) == 0)
			return err_set(err, ERR_USAGE, "%s: '%.64s' is mapped twice: give it once", what, from);
	if (take_text(maps[*count].from, LIMIT_NAME, what, from, err) != 0 ||
	    take_text(maps[*count].to, LIMIT_NAME, what, equals + 1, err) != 0)
		return -1;
	(*count)++;
	return 0;
}

static int take_ms(uint32_t *field, const char *what, const char *text, uint64_t min, uint64_t max, struct err *err)
{
	uint64_t ms;

	if (units_parse_duration(text, &ms, err) != 0)
		return err_wrap(err, "%s", what);
	if (ms < min || ms > max) {
		char low[TEXT_FIGURE], high[TEXT_FIGURE];

		units_format_duration(min, low);
		units_format_duration(max, high);
		return err_set(err, ERR_USAGE, "%s %.40s: out of range: from %s to %s", what, text, low, high);
	}
	*field = (uint32_t)ms;
	return 0;
}

static int take_seconds(uint64_t *field, const char *what, const char *text, uint64_t min, struct err *err)
{
	uint64_t ms;

	if (units_parse_duration(text, &ms, err) != 0)
		return err_wrap(err, "%s", what);
	uint64_t seconds = (ms + 999) / 1000; /* never less than was asked */
	if (seconds < min || seconds > UINT32_MAX)
		return err_set(err, ERR_USAGE, "%s %.40s: out of range: from %s to 136 years", what, text,
		               min ? "1s" : "0s");
	*field = seconds;
	return 0;
}

static int take_priority(int32_t *field, const char *text, struct err *err)
{
	char *end;

	errno = 0;
	long value = strtol(text, &end, 10);
	if (!strchr("-0123456789", text[0]) || end == text || *end || errno || value < -CLI_PRIORITY_MAX ||
	    value > CLI_PRIORITY_MAX)
		return err_set(err, ERR_USAGE, "--priority '%.40s': not a whole number from %d to %d", text,
		               -CLI_PRIORITY_MAX, CLI_PRIORITY_MAX);
	*field = (int32_t)value;
	return 0;
}

static int parse_everywhere(struct cli_args *args, int key, const char *arg, struct err *err)
{
	switch (key) {
	case OPT_HOME:
		if (!*arg)
			return err_set(err, ERR_USAGE, "--home is empty: give a directory");
		args->home = arg;
		return 0;
	case OPT_JSON:
		args->json = true;
		return 0;
	case OPT_COLOR:
		if (strcmp(arg, "auto") == 0)
			args->color = CLI_COLOR_AUTO;
		else if (strcmp(arg, "always") == 0)
			args->color = CLI_COLOR_ALWAYS;
		else if (strcmp(arg, "never") == 0)
			args->color = CLI_COLOR_NEVER;
		else
			return err_set(err, ERR_USAGE, "--color '%.40s': use never, auto or always", arg);
		return 0;
	case OPT_CONNECT_TIMEOUT:
		return take_ms(&args->connect_timeout_ms, "--connect-timeout", arg, 1, CLI_CONNECT_TIMEOUT_MAX_MS, err);
	case OPT_HELP:
		args->ask = CLI_HELP;
		return 0;
	case OPT_USAGE:
		args->ask = CLI_USAGE;
		return 0;
	case OPT_VERSION:
		args->ask = CLI_VERSION;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int parse_limits(struct msg_request *request, int key, const char *arg, struct err *err)
{
	uint64_t seconds;

	switch (key) {
	case OPT_MAX_DOWNTIME:
		return take_ms(&request->max_downtime_ms, "--max-downtime", arg, 1, UINT32_MAX, err);
	case OPT_BANDWIDTH:
		if (units_parse_rate(arg, &request->bandwidth_bps, err) != 0)
			return err_wrap(err, "--bandwidth");
		return 0;
	case OPT_TIMEOUT:
		if (take_seconds(&seconds, "--timeout", arg, 1, err) != 0)
			return -1;
		request->timeout_s = (uint32_t)seconds;
		return 0;
	case OPT_KEEP_SOURCE:
	case OPT_KEEP_COPY:
		if (take_seconds(&seconds, key == OPT_KEEP_SOURCE ? "--keep-source" : "--keep-copy", arg, 0, err) != 0)
			return -1;
		*(key == OPT_KEEP_SOURCE ? &request->keep_source_s : &request->keep_copy_s) = (int64_t)seconds;
		return 0;
	case OPT_ON_SLOW:
		request->on_slow = on_slow_from_name(arg);
		if (!request->on_slow)
			return err_set(err, ERR_USAGE, "--on-slow '%.40s': use wait, throttle, force or abort", arg);
		return 0;
	case OPT_PRIORITY:
		return take_priority(&request->priority, arg, err);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int parse_migrate(struct cli_args *args, int key, const char *arg, struct err *err)
{
	struct msg_request *request = &args->request;

	switch (key) {
	case OPT_TO:
		args->has_to = true;
		return take_text(request->to, sizeof(request->to), "--to", arg, err);
	case OPT_FROM:
		return take_text(request->host, sizeof(request->host), "--from", arg, err);
	case OPT_POOL:
		return take_text(request->pool, sizeof(request->pool), "--pool", arg, err);
	case OPT_NAME:
		return take_text(request->new_name, sizeof(request->new_name), "--name", arg, err);
	case OPT_KEY:
		return take_text(request->key, sizeof(request->key), "--key", arg, err);
	case OPT_STORAGE:
		return take_map(request->disk_map, &request->disk_map_count, "--storage", arg, err);
	case OPT_STORAGE_MAP:
		return take_map(request->sr_map, &request->sr_map_count, "--storage-map", arg, err);
	case OPT_NETWORK:
		return take_map(request->network_map, &request->network_map_count, "--network", arg, err);
	case OPT_DRY_RUN:
		request->dry_run = 1;
		return 0;
	case OPT_WATCH:
		args->watch = true;
		return 0;
	default:
		return parse_limits(request, key, arg, err);
	}
}

static int parse_operator(struct msg_request *request, int key, const char *arg, struct err *err)
{
	switch (key) {
	case OPT_OWNER:
		request->owner = side_from_name(arg);
		if (!request->owner)
			return err_set(err, ERR_USAGE, "--owner '%.40s': use source or destination", arg);
		return 0;
	case OPT_FENCED:
		return take_text(request->fenced, sizeof(request->fenced), "--fenced", arg, err);
	case OPT_REASON:
		return take_text(request->reason, sizeof(request->reason), "--reason", arg, err);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int parse_filter(struct cli_args *args, int key, const char *arg, struct err *err)
{
	struct msg_request *request = &args->request;

	switch (key) {
	case OPT_STATE:
		return take_text(request->state, sizeof(request->state), "--state", arg, err);
	case OPT_HOST:
		return take_text(request->host, sizeof(request->host), "--host", arg, err);
	case OPT_VM:
		return take_text(request->vm, sizeof(request->vm), "--vm", arg, err);
	case OPT_SWEEP:
		request->sweep = 1;
		return 0;
	case OPT_ALL:
		request->all = 1;
		return 0;
	case OPT_FOLLOW:
		args->follow = true;
		return 0;
	case OPT_WAIT:
		args->wait = true;
		return 0;
	case OPT_ROLE:
		args->role = role_from_name(arg);
		if (args->role == ROLE_NONE)
			return err_set(err, ERR_USAGE,
			               "--role '%.40s': use operator, submitter, viewer, agent or coordinator", arg);
		return 0;
	default:
		return parse_operator(request, key, arg, err);
	}
}

static int parse_word(struct parse *parse, const char *word, struct err *err)
{
	struct cli_args *args = parse->args;

	if (parse->words++ || parse->command->word == WORD_NONE)
		return err_set(err, ERR_USAGE, "%s: '%.100s' is one argument too many; see 'drover %s --help'",
		               parse->command->name, word, parse->command->name);
	switch (parse->command->word) {
	case WORD_NONE:
		break;
	case WORD_VM:
		return take_text(args->request.vm, sizeof(args->request.vm), "VM", word, err);
	case WORD_HOST:
		return take_text(args->request.host, sizeof(args->request.host), "HOST", word, err);
	case WORD_ID:
		return take_text(args->request.id, sizeof(args->request.id), "ID", word, err);
	case WORD_NAME:
		return take_text(args->name, sizeof(args->name), "NAME", word, err);
	case WORD_FILE:
		args->file = word;
		break;
	}
	return 0;
}

/* Says what is wrong with an option that getopt did not take: argp itself would print two lines and exit. */
static void bad_option(const struct parse *parse, const char *text, struct err *err)
{
	const char *help = parse->command ? parse->command->name : "";
	const char *gap = parse->command ? " " : "";
	const struct argp_option *tables[] = { parse->options, parse->everywhere }, *found = NULL;
	size_t length = strncmp(text, "--", 2) == 0 ? strcspn(text + 2, "=") : 0;
	unsigned hits = 0;

	for (unsigned t = 0; length && t < 2; t++)
		for (const struct argp_option *o = tables[t]; o && (o->name || o->key); o++) {
			if (!o->name || strncmp(o->name, text + 2, length) != 0)
				continue;
			found = o;
			if (strlen(o->name) == length) {
				hits = 1;
				t = 2;
				break;
			}
			hits++;
		}
	if (hits > 1)
		err_set(err, ERR_USAGE, "option '%.60s' is ambiguous: write it in full; see 'drover%s%s --help'", text,
		        gap, help);
	else if (hits && found->arg)
		err_set(err, ERR_USAGE, "option '--%s' needs a value: --%s=%s", found->name, found->name, found->arg);
	else if (hits)
		err_set(err, ERR_USAGE, "option '--%s' takes no value: leave out '='", found->name);
	else
		err_set(err, ERR_USAGE, "unknown option '%.60s': see 'drover%s%s --help'", text, gap, help);
}

static error_t on_argp(int key, char *arg, struct argp_state *state)
{
	struct parse *parse = state->input;
	int result;

	switch (key) {
	case ARGP_KEY_INIT:
		if (parse->command)
			state->child_inputs[0] = parse;
		return 0;
	case ARGP_KEY_ARG:
		if (!parse->command) {
			parse->next = state->next - 1;
			state->next = state->argc; /* the rest is for the command's own parser */
			return 0;
		}
		return parse_word(parse, arg, parse->err) == 0 ? 0 : EINVAL;
	case ARGP_KEY_ERROR:
		if (parse->err->code == ERR_NONE)
			bad_option(parse, state->next > 0 ? state->argv[state->next - 1] : "", parse->err);
		return 0;
	default:
		break;
	}
	result = parse_everywhere(parse->args, key, arg, parse->err);
	if (result == ARGP_ERR_UNKNOWN)
		result = parse_migrate(parse->args, key, arg, parse->err);
	if (result == ARGP_ERR_UNKNOWN)
		result = parse_filter(parse->args, key, arg, parse->err);
	return result == -1 ? EINVAL : result;
}

/* The options of all commands, beside those of one. */
static error_t on_argp_everywhere(int key, char *arg, struct argp_state *state)
{
	struct parse *parse = state->input;

	int result = parse_everywhere(parse->args, key, arg, parse->err);
	return result == -1 ? EINVAL : result;
}

static int run_argp(struct parse *parse, int argc, char **argv)
{
	const struct argp alone = { commands_everywhere, on_argp, NULL, NULL, NULL, NULL, NULL };
	const struct argp everywhere = { commands_everywhere, on_argp_everywhere, NULL, NULL, NULL, NULL, NULL };
	const struct argp_child children[] = { { &everywhere, 0, NULL, 0 }, { 0 } };
	const struct argp whole = { parse->options, on_argp, NULL, NULL, children, NULL, NULL };
	unsigned flags = ARGP_NO_HELP | ARGP_NO_EXIT | ARGP_NO_ERRS | (parse->command ? 0 : ARGP_IN_ORDER);
	int end;

	error_t failed = argp_parse(parse->command ? &whole : &alone, argc, argv, flags, &end, parse);
	if (!failed)
		return 0;
	if (parse->err->code == ERR_NONE)
		err_set(parse->err, failed == ENOMEM ? ERR_NO_MEMORY : ERR_USAGE, "cannot read the command line: %s",
		        strerror(failed));
	return -1;
}

static int unknown_command(const char *what, const char *word, struct err *err)
{
	char list[LIMIT_TEXT / 2] = "";
	char clean[LIMIT_NAME];
	size_t used = 0;

	text_clean(clean, sizeof(clean), word);
	for (const struct command *c = commands_all; c->name; c++) {
		const char *gap = used ? ", " : "";
		int more = snprintf(list + used, sizeof(list) - used, "%s%s", gap, c->name);

		if (more < 0 || (size_t)more >= sizeof(list) - used)
			break;
		used += (size_t)more;
	}
	return err_set(err, ERR_USAGE, "%s%s%s%s: use one of: %s", what, *clean ? " '" : "", clean, *clean ? "'" : "",
	               list);
}

/* Finds the command at argv[0]; *ret_words is how many of argv it takes. A group alone with --help is no error. */
static int find_command(struct cli_args *args, int argc, char **argv, const struct command **ret_command,
                        int *ret_words, struct err *err)
{
	char name[LIMIT_NAME];

	*ret_command = commands_find(argv[0]);
	*ret_words = 1;
	if (*ret_command)
		return 0;
	if (!commands_is_group(argv[0]))
		return unknown_command("unknown command", argv[0], err);
	if (argc < 2)
		return unknown_command("incomplete command", argv[0], err);
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "--usage") == 0) {
		snprintf(args->group, sizeof(args->group), "%s", argv[0]);
		args->ask = CLI_HELP;
		return 0;
	}
	snprintf(name, sizeof(name), "%.20s %.30s", argv[0], argv[1]);
	*ret_command = commands_find(name);
	*ret_words = 2;
	return *ret_command ? 0 : unknown_command("unknown command", name, err);
}

/* The rules of what may travel are the wire's, and what breaks them is said before anybody is called. */
static int check_sendable(const struct cli_args *args, struct err *err)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	struct err why = { 0 };
	void *frame = NULL;
	size_t bytes;

	if (!msg)
		return err_set(err, ERR_NO_MEMORY, "no memory for a request");
	*msg = (struct msg) { .version = PROTOCOL_VERSION, .sequence = 1, .kind = MSG_REQUEST };
	msg->u.request = args->request;
	int failed = msg_encode(msg, &frame, &bytes, &why);
	free(frame);
	free(msg);
	return failed ? err_set(err, ERR_USAGE, "%.400s: give something else", why.text) : 0;
}

/* What no single option can know. */
static int check_whole(const struct cli_args *args, const struct parse *parse, struct err *err)
{
	const char *name = parse->command->name;

	if (parse->command->word_needed && !parse->words)
		return err_set(err, ERR_USAGE, "%s: %s is missing; see 'drover %s --help'", name,
		               parse->command->word_name, name);
	if (args->command == CLI_MIGRATE && !args->has_to)
		return err_set(err, ERR_USAGE,
		               "migrate: --to is missing: say which host to migrate to; see 'drover host list'");
	if (args->watch && args->wait)
		return err_set(err, ERR_USAGE, "%s: --watch and --wait exclude each other: use one", name);
	if (args->request.dry_run && (args->watch || args->wait))
		return err_set(err, ERR_USAGE, "migrate: nothing is migrated with --dry-run: leave out --%s",
		               args->watch ? "watch" : "wait");
	if (args->command == CLI_RESOLVE && !args->request.owner)
		return err_set(err, ERR_USAGE, "resolve: --owner is missing: use source or destination");
	if (args->command == CLI_RESOLVE && !*args->request.fenced)
		return err_set(err, ERR_USAGE,
		               "resolve: --fenced is missing: power off the other host, then name it here");
	if ((args->command == CLI_RESOLVE || args->command == CLI_HOST_FORGET) && !*args->request.reason)
		return err_set(err, ERR_USAGE, "%s: --reason is missing: say why, it is kept on record", name);
	if (args->request.verb)
		return check_sendable(args, err);
	if (args->command != CLI_KEY_GENERATE)
		return 0;
	if (args->role == ROLE_NONE)
		return err_set(err, ERR_USAGE,
		               "key generate: --role is missing: use operator, submitter, viewer, agent or "
		               "coordinator");
	if (args->role == ROLE_AGENT && !*args->request.host)
		return err_set(err, ERR_USAGE, "key generate: --host is missing: an agent's key speaks for one host");
	if (args->role != ROLE_AGENT && *args->request.host)
		return err_set(err, ERR_USAGE, "key generate: --host is for --role agent only: leave it out");
	return 0;
}

int args_parse(struct cli_args *ret_args, int argc, char **argv, struct err *err)
{
	struct err own = { 0 };
	struct parse parse = { .args = ret_args, .everywhere = commands_everywhere, .err = err ? err : &own };
	int words;

	memset(ret_args, 0, sizeof(*ret_args));
	ret_args->connect_timeout_ms = CLI_CONNECT_TIMEOUT_MS;
	ret_args->request.keep_source_s = -1;
	ret_args->request.keep_copy_s = -1;
	err_clear(parse.err);
	if (run_argp(&parse, argc, argv) != 0)
		return -1;
	if (ret_args->ask != CLI_RUN)
		return 0;
	if (!parse.next)
		return unknown_command("no command", "", parse.err);
	if (find_command(ret_args, argc - parse.next, argv + parse.next, &parse.command, &words, parse.err) != 0)
		return -1;
	if (!parse.command)
		return 0;
	ret_args->command = parse.command->command;
	ret_args->request.verb = parse.command->verb;
	parse.options = parse.command->options;
	if (run_argp(&parse, argc - parse.next - words + 1, argv + parse.next + words - 1) != 0)
		return -1;
	return ret_args->ask == CLI_RUN ? check_whole(ret_args, &parse, parse.err) : 0;
}

const char *args_command_name(unsigned i)
{
	return commands_all[i].name;
}
