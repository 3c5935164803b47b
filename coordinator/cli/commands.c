/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/commands.h"

#include <string.h>

const struct argp_option commands_everywhere[] = {
	{ NULL, 0, NULL, 0, "Everywhere:", 90 },
	{ "home", OPT_HOME, "DIR", 0, "Directory of a coordinator, a client or a simulated fleet", 90 },
	{ "json", OPT_JSON, NULL, 0, "One JSON document instead of text (one a line where more come)", 90 },
	{ "color", OPT_COLOR, "WHEN", 0, "never, auto (on a terminal, unless NO_COLOR is set) or always", 90 },
	{ "connect-timeout", OPT_CONNECT_TIMEOUT, "DUR", 0, "Give up reaching the coordinator after that long (5s)",
	  90 },
	{ "help", OPT_HELP, NULL, 0, "Show this text", 91 },
	{ "usage", OPT_USAGE, NULL, 0, "Show the options in short", 91 },
	{ "version", OPT_VERSION, NULL, 0, "Show the version", 91 },
	{ 0 },
};

static const struct argp_option migrate_options[] = {
	{ "to", OPT_TO, "HOST", 0, "Destination", 1 },
	{ "from", OPT_FROM, "HOST", 0, "Source, where a name is not unique", 1 },
	{ "pool", OPT_POOL, "POOL", 0, "Pool that the destination is in", 1 },
	{ "name", OPT_NAME, "NEWNAME", 0, "Name on the destination", 1 },
	{ "storage", OPT_STORAGE, "DISK=SR", 0, "Put this disk there; may be repeated", 2 },
	{ "storage-map", OPT_STORAGE_MAP, "SR=SR", 0, "Put all disks of the first SR on the second; may be repeated",
	  2 },
	{ "network", OPT_NETWORK, "BRIDGE=BRIDGE", 0, "Connect what is on the first to the second; may be repeated",
	  2 },
	{ "max-downtime", OPT_MAX_DOWNTIME, "DUR", 0, "Switch only when the pause will be at most that long", 3 },
	{ "bandwidth", OPT_BANDWIDTH, "RATE", 0, "At most that much over the network; 0: no limit", 3 },
	{ "timeout", OPT_TIMEOUT, "DUR", 0, "Give up and stay on the source after that long", 3 },
	{ "on-slow", OPT_ON_SLOW, "POLICY", 0,
	  "If the guest writes faster than the link: wait, throttle, force or abort", 3 },
	{ "keep-source", OPT_KEEP_SOURCE, "DUR", 0,
	  "Keep the source's disks that long after it is done, for 'undo'; 0: do not", 4 },
	{ "keep-copy", OPT_KEEP_COPY, "DUR", 0,
	  "After a failure keep what was copied that long, for 'retry'; 0: do not", 4 },
	{ "priority", OPT_PRIORITY, "N", 0, "Higher goes first in the queue (-1000 to 1000)", 4 },
	{ "key", OPT_KEY, "KEY", 0, "Submit once: the same key and request give the same migration", 4 },
	{ "dry-run", OPT_DRY_RUN, NULL, 0, "Run every pre-check on both hosts, change nothing", 5 },
	{ "watch", OPT_WATCH, NULL, 0, "Show progress until it has ended", 5 },
	{ "wait", OPT_WAIT, NULL, 0, "Wait until it has ended", 5 },
	{ 0 },
};
static const struct argp_option list_options[] = {
	{ "state", OPT_STATE, "STATE", 0, "Only those in this state", 1 },
	{ "host", OPT_HOST, "HOST", 0, "Only those from or to this host", 1 },
	{ "vm", OPT_VM, "VM", 0, "Only those of this VM", 1 },
	{ "all", OPT_ALL, NULL, 0, "Those that have ended, too", 1 },
	{ 0 },
};
static const struct argp_option follow_options[] = {
	{ "follow", OPT_FOLLOW, NULL, 0, "Go on with events as they come", 1 },
	{ 0 },
};
static const struct argp_option cancel_options[] = {
	{ "wait", OPT_WAIT, NULL, 0, "Wait until it has ended", 1 },
	{ 0 },
};
static const struct argp_option again_options[] = {
	{ "key", OPT_KEY, "KEY", 0, "Submit once: the same key and request give the same migration", 1 },
	{ "watch", OPT_WATCH, NULL, 0, "Show progress until it has ended", 1 },
	{ "wait", OPT_WAIT, NULL, 0, "Wait until it has ended", 1 },
	{ 0 },
};
static const struct argp_option resolve_options[] = {
	{ "owner", OPT_OWNER, "SIDE", 0, "Who owns the VM from now on: source or destination", 1 },
	{ "fenced", OPT_FENCED, "HOST", 0, "The other host, which you have powered off", 1 },
	{ "reason", OPT_REASON, "TEXT", 0, "Why; kept on record", 1 },
	{ 0 },
};
static const struct argp_option forget_options[] = {
	{ "reason", OPT_REASON, "TEXT", 0, "Why; kept on record", 1 },
	{ 0 },
};
static const struct argp_option host_filter[] = {
	{ "host", OPT_HOST, "HOST", 0, "Only those on this host", 1 },
	{ 0 },
};
static const struct argp_option leftovers_options[] = {
	{ "host", OPT_HOST, "HOST", 0, "Only those on this host", 1 },
	{ "sweep", OPT_SWEEP, NULL, 0, "Take away what nobody claims (operators only)", 1 },
	{ 0 },
};
static const struct argp_option generate_options[] = {
	{ "role", OPT_ROLE, "ROLE", 0, "operator, submitter, viewer, agent or coordinator", 1 },
	{ "host", OPT_HOST, "HOST", 0, "For agents: the host that the key speaks for", 1 },
	{ 0 },
};

const struct command commands_all[] = {
	{ "migrate", CLI_MIGRATE, VERB_MIGRATE, WORD_VM, true, "VM", migrate_options,
	  "move a running VM to another host" },
	{ "list", CLI_LIST, VERB_LIST, WORD_NONE, false, "", list_options, "migrations that have not ended" },
	{ "show", CLI_SHOW, VERB_SHOW, WORD_ID, true, "ID", NULL, "one migration, whole" },
	{ "explain", CLI_EXPLAIN, VERB_EXPLAIN, WORD_ID, true, "ID", NULL,
	  "what is known, what is waited for, and what is safe to do by hand" },
	{ "events", CLI_EVENTS, VERB_EVENTS, WORD_ID, false, "[ID]", follow_options, "what happened, in order" },
	{ "watch", CLI_WATCH, VERB_SHOW, WORD_ID, false, "[ID]", NULL, "live view; Ctrl-C leaves the migration alone" },
	{ "cancel", CLI_CANCEL, VERB_CANCEL, WORD_ID, true, "ID", cancel_options,
	  "stop it; the VM stays on the source" },
	{ "retry", CLI_RETRY, VERB_RETRY, WORD_ID, true, "ID", again_options,
	  "again, after a failure or a cancel; what was copied and kept is used" },
	{ "undo", CLI_UNDO, VERB_UNDO, WORD_ID, true, "ID", again_options,
	  "the other way, while the source's disks are kept" },
	{ "resolve", CLI_RESOLVE, VERB_RESOLVE, WORD_ID, true, "ID", resolve_options,
	  "say who owns the VM, the other host being powered off" },
	{ "host list", CLI_HOST_LIST, VERB_HOST_LIST, WORD_NONE, false, "", NULL, "hosts that are known" },
	{ "host show", CLI_HOST_SHOW, VERB_HOST_SHOW, WORD_HOST, true, "HOST", NULL, "one host, whole" },
	{ "host forget", CLI_HOST_FORGET, VERB_HOST_FORGET, WORD_HOST, true, "HOST", forget_options,
	  "write off a host that is gone for good" },
	{ "vm list", CLI_VM_LIST, VERB_VM_LIST, WORD_NONE, false, "", host_filter, "VMs on the hosts that are known" },
	{ "vm show", CLI_VM_SHOW, VERB_VM_SHOW, WORD_VM, true, "VM", NULL, "one VM, whole" },
	{ "leftovers", CLI_LEFTOVERS, VERB_LEFTOVERS, WORD_NONE, false, "", leftovers_options,
	  "what migrations have left behind on hosts; they are asked" },
	{ "status", CLI_STATUS, VERB_STATUS, WORD_NONE, false, "", NULL, "the coordinator itself" },
	{ "key generate", CLI_KEY_GENERATE, 0, WORD_NAME, true, "NAME", generate_options, "make a key pair" },
	{ "key list", CLI_KEY_LIST, 0, WORD_NONE, false, "", NULL, "own and authorised keys" },
	{ "key authorize", CLI_KEY_AUTHORIZE, 0, WORD_FILE, true, "FILE", NULL, "let in who has this key" },
	{ "key revoke", CLI_KEY_REVOKE, 0, WORD_NAME, true, "NAME", NULL, "let this key in no longer" },
	{ 0 },
};

const struct command *commands_find(const char *name)
{
	for (const struct command *c = commands_all; c->name; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

bool commands_is_group(const char *word)
{
	return strcmp(word, "host") == 0 || strcmp(word, "vm") == 0 || strcmp(word, "key") == 0;
}

/* The list of commands (of one group, if not NULL) for the end of a help text. */
static void list_commands(FILE *out, const char *group)
{
	for (const struct command *c = commands_all; c->name; c++) {
		char call[64];

		if (group && (strncmp(c->name, group, strlen(group)) != 0 || c->name[strlen(group)] != ' '))
			continue;
		snprintf(call, sizeof(call), "%s %s", c->name, c->word_name);
		fprintf(out, "  %-20s %s\n", call, c->what);
	}
}

void args_help(const struct cli_args *args, FILE *out)
{
	const unsigned full = ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC;
	const unsigned flags = args->ask == CLI_USAGE ? ARGP_HELP_USAGE : full;
	const struct argp alone = { commands_everywhere, NULL, "COMMAND [ARGUMENT...]", NULL, NULL, NULL, NULL };
	const struct argp everywhere = { commands_everywhere, NULL, NULL, NULL, NULL, NULL, NULL };
	const struct argp_child children[] = { { &everywhere, 0, NULL, 0 }, { 0 } };

	for (const struct command *c = commands_all; c->name; c++) {
		char called[64], doc[256];

		if (c->command != args->command)
			continue;
		snprintf(called, sizeof(called), "drover %s", c->name);
		snprintf(doc, sizeof(doc), "%c%s%s",
		         c->what[0] - ('a' <= c->what[0] && c->what[0] <= 'z' ? 'a' - 'A' : 0), c->what + 1,
		         ".\vSizes and rates are 256M, 10G, 50M/s (binary, bytes); durations 300ms, 30s, 15m, 24h.");
		const struct argp argp = { c->options, NULL, *c->word_name ? c->word_name : NULL, doc, children,
			                   NULL,       NULL };
		argp_help(&argp, out, flags, called);
		return;
	}
	char called[] = "drover";
	if (!args->group[0])
		argp_help(&alone, out, flags, called);
	if (args->ask == CLI_USAGE)
		return;
	if (args->group[0])
		fprintf(out, "Commands of drover %s:\n", args->group);
	else
		fprintf(out, "\nCommands:\n");
	list_commands(out, args->group[0] ? args->group : NULL);
	fprintf(out, "\n'drover COMMAND --help' shows the options of one; see drover(1).\n");
}
