/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* `drover key`: key pairs and who is let in; files under etc of the home, no coordinator is asked. */
#include <stdlib.h>
#include <string.h>

#include "common/keys.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/table.h"

static int key_generate(struct cli *cli, struct err *err)
{
	const struct cli_args *args = &cli->args;
	const char *etc = cli->place.paths.etc;

	if (paths_make(&cli->place.paths, err) != 0 ||
	    keys_generate(&cli->place.paths, args->name, args->role, args->request.host, err) != 0)
		return err_wrap(err, "make key %s", args->name);
	if (args->json) {
		char public[PATHS_MAX + LIMIT_NAME + 32], secret[sizeof(public) + 8];

		snprintf(public, sizeof(public), "%s/keys/%s.cert", etc, args->name);
		snprintf(secret, sizeof(secret), "%s_secret", public);
		json_t *doc = json_pack("{ssssssss}", "name", args->name, "role", role_name(args->role), "public",
		                        public, "secret", secret);
		cli_print_json(cli, doc);
		json_decref(doc);
		return 0;
	}
	fprintf(cli->screen.out,
	        "%s/keys/%s.cert         public: give it to whoever is to let this key in (drover key authorize FILE)\n"
	        "%s/keys/%s.cert_secret  secret: stays here\n",
	        etc, args->name, etc, args->name);
	return 0;
}

static void list_json(const struct cli *cli, const struct key_info *keys, size_t count)
{
	json_t *doc = json_object(), *list = json_array();

	json_object_set_new(doc, "keys", list);
	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, json_pack("{sssssssbsbssss}", "name", keys[i].name, "role",
		                                      role_name(keys[i].role), "host", keys[i].host, "own",
		                                      keys[i].has_secret, "authorized", keys[i].authorized,
		                                      "public_key", keys[i].public_text, "path", keys[i].path));
	cli_print_json(cli, doc);
	json_decref(doc);
}

static int key_list(struct cli *cli, struct err *err)
{
	struct key_info *keys = NULL;
	size_t count = 0;

	if (keys_list(&cli->place.paths, &keys, &count, err) != 0)
		return err_wrap(err, "list keys");
	if (cli->args.json) {
		list_json(cli, keys, count);
	} else if (!count) {
		fprintf(cli->screen.out, "no keys in %s ('drover key generate NAME --role ROLE' makes one)\n",
		        cli->place.paths.etc);
	} else {
		struct table *table = table_new(&cli->screen);

		table_column(table, "NAME", 0);
		table_column(table, "ROLE", 0);
		table_column(table, "HOST", 0);
		table_column(table, "KIND", 0);
		table_column(table, "PUBLIC KEY", 0);
		for (size_t i = 0; i < count; i++) {
			const char *kind = keys[i].has_secret && keys[i].authorized ? "own, authorised"
			                   : keys[i].has_secret                     ? "own"
			                   : keys[i].authorized                     ? "authorised"
			                                                            : "known";
			const char *cells[] = { keys[i].name, role_name(keys[i].role),
				                *keys[i].host ? keys[i].host : "-", kind, keys[i].public_text };
			table_line(table, cells, NULL);
		}
		table_print(table);
		table_free(table);
	}
	free(keys);
	return 0;
}

/* Says so, as JSON or in words. */
static void said(const struct cli *cli, const char *what, const char *which, const char *hint)
{
	if (cli->args.json) {
		json_t *doc = json_pack("{ss}", what, which);

		cli_print_json(cli, doc);
		json_decref(doc);
	} else {
		fprintf(cli->screen.out, "%s %s; %s\n", what, which, hint);
	}
}

static int key_authorize(struct cli *cli, struct err *err)
{
	if (paths_make(&cli->place.paths, err) != 0 || keys_authorize(&cli->place.paths, cli->args.file, err) != 0)
		return err_wrap(err, "authorise %.200s", cli->args.file);
	said(cli, "authorized", cli->args.file, "the daemon here takes it up on SIGHUP or when it starts");
	return 0;
}

static int key_revoke(struct cli *cli, struct err *err)
{
	if (keys_revoke(&cli->place.paths, cli->args.name, err) != 0)
		return err_wrap(err, "revoke %s", cli->args.name);
	said(cli, "revoked", cli->args.name, "the daemon here refuses it from SIGHUP on, or when it starts");
	return 0;
}

int keycmd_run(struct cli *cli)
{
	struct err err = { 0 };
	int failed = 0;

	if (cli->args.command == CLI_KEY_GENERATE)
		failed = key_generate(cli, &err);
	else if (cli->args.command == CLI_KEY_LIST)
		failed = key_list(cli, &err);
	else if (cli->args.command == CLI_KEY_AUTHORIZE)
		failed = key_authorize(cli, &err);
	else
		failed = key_revoke(cli, &err);
	return failed ? cli_fail_err(cli, &err) : EXIT_DONE;
}
