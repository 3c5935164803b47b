/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "coordinator/cli/doc.h"
#include "coordinator/cli/print.h"
#include "coordinator/cli/text.h"

void cli_print_json(const struct cli *cli, const json_t *doc)
{
	/* A terminal gets ASCII: escapes instead of whatever a name may hold. */
	json_dumpf(doc, cli->screen.out, JSON_COMPACT | (cli->screen.terminal ? JSON_ENSURE_ASCII : 0));
	fputc('\n', cli->screen.out);
	fflush(cli->screen.out);
}

int cli_fail(struct cli *cli, const struct err *err, int code)
{
	char clean[LIMIT_TEXT];

	text_clean(clean, sizeof(clean), err->text);
	fflush(cli->screen.out);
	fprintf(cli->complaints, "drover: %s\n", clean);
	if (cli->args.json) {
		json_t *doc = json_pack("{s{ssss}}", "error", "code", err_name(err->code), "message", clean);

		if (doc)
			cli_print_json(cli, doc);
		json_decref(doc);
	}
	return code;
}

int cli_fail_err(struct cli *cli, const struct err *err)
{
	/* Nothing was cancelled: somebody did not want to wait for the answer. */
	if (err->code == ERR_CANCELLED)
		return EXIT_SIGNAL + (cli->api && api_signal(cli->api) ? api_signal(cli->api) : SIGINT);
	return cli_fail(cli, err, (int)exit_of_code(err->code));
}

int cli_fail_reply(struct cli *cli, const struct api_reply *reply)
{
	struct err err = { .code = reply->code == ERR_NONE ? ERR_INTERNAL : reply->code };

	snprintf(err.text, sizeof(err.text), "%s", *reply->text ? reply->text : err_name(err.code));
	/* A refusal that brings its own document with the error in it is shown as it came. */
	if (cli->args.json && doc_get(reply->doc, "error")) {
		cli->args.json = false;
		cli_print_json(cli, reply->doc);
	}
	return cli_fail(cli, &err, (int)reply->exit_code);
}

int cli_ask(struct cli *cli, const struct msg_request *request, struct api_reply *ret_reply, int *ret_exit)
{
	struct err err = { 0 };
	unsigned limit_ms = request->dry_run                  ? API_DRY_RUN_MS
	                    : request->verb == VERB_LEFTOVERS ? API_LEFTOVERS_MS
	                                                      : API_REPLY_MS;

	if (api_call(cli->api, request, limit_ms, ret_reply, &err) != 0) {
		*ret_exit = cli_fail_err(cli, &err);
		return -1;
	}
	if (!cli->args.json)
		doc_clean(ret_reply->doc);
	/* Failed checks come as a document, and are an answer as much as good ones. */
	if (ret_reply->code == ERR_NONE || (request->dry_run && doc_list(ret_reply->doc, "checks")))
		return 0;
	*ret_exit = cli_fail_reply(cli, ret_reply);
	api_reply_free(ret_reply);
	return -1;
}

/* Pages of a list, joined: the coordinator says "more" (or "next") when an answer would be too long. */
static int ask_all_pages(struct cli *cli, struct msg_request *request, const char *name, struct api_reply *ret_reply,
                         int *ret_exit)
{
	struct api_reply page;

	if (cli_ask(cli, request, ret_reply, ret_exit) != 0)
		return -1;
	while (name) {
		json_t *list = json_object_get(ret_reply->doc, name);
		const json_t *last = json_array_get(list, json_array_size(list) - 1);
		uint64_t next = doc_number(ret_reply->doc, "next",
		                           doc_true(ret_reply->doc, "more") ? doc_number(last, "id", 0) : 0);

		if (!json_array_size(list) || next <= request->after)
			return 0;
		request->after = next;
		if (cli_ask(cli, request, &page, ret_exit) != 0) {
			api_reply_free(ret_reply);
			return -1;
		}
		json_array_extend(list, json_object_get(page.doc, name));
		json_object_del(ret_reply->doc, "next");
		json_object_del(ret_reply->doc, "more");
		if (doc_get(page.doc, "next"))
			json_object_set(ret_reply->doc, "next", json_object_get(page.doc, "next"));
		if (doc_get(page.doc, "more"))
			json_object_set(ret_reply->doc, "more", json_object_get(page.doc, "more"));
		api_reply_free(&page);
	}
	return 0;
}

static int show_dry_run(struct cli *cli, const struct api_reply *reply)
{
	unsigned failed = 0;

	if (cli->args.json) {
		const json_t *check;
		size_t index;

		cli_print_json(cli, reply->doc);
		json_array_foreach(doc_list(reply->doc, "checks"), index, check)
		{
			failed += !doc_true(check, "ok");
		}
	} else {
		failed = print_checks(&cli->screen, reply->doc);
	}
	if (reply->code != ERR_NONE && *reply->text) {
		fflush(cli->screen.out);
		fprintf(cli->complaints, "drover: %s\n", reply->text);
	}
	if (reply->exit_code)
		return (int)reply->exit_code;
	return failed ? EXIT_REFUSED : EXIT_DONE;
}

static int run_migrate(struct cli *cli)
{
	struct api_reply reply;
	int code = EXIT_DONE;

	if (cli_ask(cli, &cli->args.request, &reply, &code) != 0)
		return code;
	uint64_t id = doc_number(reply.doc, "id", 0);
	if (cli->args.request.dry_run) {
		code = show_dry_run(cli, &reply);
	} else if (cli->args.watch || cli->args.wait) {
		code = watch_one(cli, id, "", cli->args.wait);
	} else if (cli->args.json) {
		cli_print_json(cli, reply.doc);
	} else {
		fprintf(cli->screen.out,
		        "migration %" PRIu64 ": %s, %s -> %s: %s; 'drover watch %" PRIu64 "' follows it\n", id,
		        doc_text(reply.doc, "vm.name"), doc_text(reply.doc, "source"),
		        doc_text(reply.doc, "destination"),
		        *doc_text(reply.doc, "state") ? doc_text(reply.doc, "state") : "submitted", id);
	}
	api_reply_free(&reply);
	return code;
}

static int run_cancel(struct cli *cli)
{
	const char *id_text = cli->args.request.id;
	struct api_reply reply;
	int code = EXIT_DONE;

	if (cli_ask(cli, &cli->args.request, &reply, &code) != 0)
		return code;
	code = (int)reply.exit_code;
	if (cli->args.wait) {
		code = watch_one(cli, doc_number(reply.doc, "id", 0), id_text, true);
		/* Cancelled is what was asked for here; done means that it came too late. */
		code = code == EXIT_CANCELLED ? EXIT_DONE : code == EXIT_DONE ? EXIT_TOO_LATE : code;
	} else if (cli->args.json) {
		cli_print_json(cli, reply.doc);
	} else {
		const char *said = *doc_text(reply.doc, "outcome") ? doc_text(reply.doc, "outcome")
		                                                   : doc_text(reply.doc, "cancel");
		const char *words = *reply.text ? reply.text : doc_text(reply.doc, "message");

		fprintf(cli->screen.out, "migration %s: %s%s%s%s%s\n", id_text, *said ? said : "cancel requested",
		        *doc_text(reply.doc, "state") ? ", state " : "", doc_text(reply.doc, "state"),
		        *words ? ": " : "", words);
	}
	api_reply_free(&reply);
	return code;
}

/* The commands that ask one question and print the answer. */
static int run_question(struct cli *cli)
{
	struct cli_args *args = &cli->args;
	const char *list = NULL;
	struct api_reply reply;
	int code = EXIT_DONE;

	if (args->command == CLI_LIST)
		list = "migrations";
	else if (args->command == CLI_VM_LIST)
		list = "vms";
	else if (args->command == CLI_HOST_LIST)
		list = "hosts";
	else if (args->command == CLI_LEFTOVERS)
		list = "leftovers";
	if (ask_all_pages(cli, &args->request, list, &reply, &code) != 0)
		return code;
	code = (int)reply.exit_code;
	if (args->json)
		cli_print_json(cli, reply.doc);
	else if (args->command == CLI_LIST)
		print_migrations(&cli->screen, reply.doc, args->request.all || args->request.state[0]);
	else if (args->command == CLI_SHOW || args->command == CLI_RESOLVE)
		print_migration(&cli->screen, reply.doc);
	else if (args->command == CLI_EXPLAIN)
		print_explanation(&cli->screen, reply.doc);
	else if (args->command == CLI_HOST_LIST)
		print_hosts(&cli->screen, reply.doc);
	else if (args->command == CLI_VM_LIST)
		print_vms(&cli->screen, reply.doc);
	else if (args->command == CLI_LEFTOVERS)
		print_leftovers(&cli->screen, reply.doc);
	else
		print_outline(&cli->screen, reply.doc, 0);
	api_reply_free(&reply);
	return code;
}

static int run_connected(struct cli *cli)
{
	switch (cli->args.command) {
	case CLI_MIGRATE:
	case CLI_RETRY:
	case CLI_UNDO:
		return run_migrate(cli);
	case CLI_CANCEL:
		return run_cancel(cli);
	case CLI_WATCH:
		return cli->args.request.id[0] ? watch_one(cli, 0, cli->args.request.id, false) : watch_all(cli);
	case CLI_EVENTS:
		return watch_events(cli);
	case CLI_LIST:
	case CLI_SHOW:
	case CLI_EXPLAIN:
	case CLI_HOST_LIST:
	case CLI_HOST_SHOW:
	case CLI_VM_LIST:
	case CLI_VM_SHOW:
	case CLI_LEFTOVERS:
	case CLI_STATUS:
	case CLI_RESOLVE:
	case CLI_HOST_FORGET:
		return run_question(cli);
	case CLI_KEY_GENERATE:
	case CLI_KEY_LIST:
	case CLI_KEY_AUTHORIZE:
	case CLI_KEY_REVOKE:
	case CLI_NONE:
		break;
	}
	return EXIT_USAGE;
}

static int run_command(struct cli *cli)
{
	struct err err = { 0 };
	int code;

	if (place_find(&cli->place, cli->args.home, &err) != 0)
		return cli_fail_err(cli, &err);
	if (!cli->args.request.verb)
		return keycmd_run(cli);
	if (place_load(&cli->place, &err) != 0 ||
	    api_open(&cli->api, &cli->place, cli->args.connect_timeout_ms, &err) != 0)
		return cli_fail_err(cli, &err);
	code = run_connected(cli);
	api_close(cli->api);
	cli->api = NULL;
	return code;
}

int cli_main(int argc, char **argv, FILE *out, FILE *complaints)
{
	struct cli *cli = calloc(1, sizeof(*cli));
	struct err err = { 0 };
	int code = EXIT_DONE;

	if (!cli) {
		fprintf(complaints, "drover: start: no memory\n");
		return EXIT_FAILED;
	}
	cli->complaints = complaints;
	log_init("drover");
	if (!getenv("DROVER_LOG"))
		log_level_set(LOG_LEVEL_ERROR); /* what fails is said once, in the command's own words */
	int bad = args_parse(&cli->args, argc, argv, &err);
	screen_init(&cli->screen, out, cli->args.color);
	if (bad)
		code = cli_fail(cli, &err, EXIT_USAGE);
	else if (cli->args.ask == CLI_VERSION)
		fprintf(out, "drover %s\n", DROVER_VERSION);
	else if (cli->args.ask != CLI_RUN)
		args_help(&cli->args, out);
	else
		code = run_command(cli);
	if ((fflush(out) != 0 || ferror(out)) && code < EXIT_SIGNAL) {
		fprintf(complaints, "drover: write the output: %s\n", strerror(errno));
		code = code == EXIT_DONE ? EXIT_FAILED : code;
	}
	free(cli);
	return code;
}
