/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Following: one migration to its end, all of them, events. The coordinator is asked again and again over one
 * connection; while it does not answer, the migration goes on without it, and so does the watching for a while.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/doc.h"
#include "coordinator/cli/frame.h"
#include "coordinator/cli/print.h"
#include "coordinator/cli/text.h"

#define WATCH_POLL_MS 250u      /* how often one migration is asked for */
#define WATCH_LIST_MS 1000u     /* ... all of them */
#define WATCH_EVENTS_MS 500u    /* ... events */
#define WATCH_ANSWER_MS 2000u   /* after that long without an answer people are told */
#define WATCH_SILENCE_MS 60000u /* after that long the coordinator counts as unreachable */
#define WATCH_LINE_MS 5000u     /* a line that often when nothing can be redrawn */
#define WATCH_DOUBT_MS 10000u   /* in doubt for that long: an operator is needed, so we end */
#define WATCH_LINE_COLUMNS 200u

struct watch {
	struct cli *cli;
	bool quiet;             /* show nothing before the end */
	bool shown;             /* something is drawn */
	int64_t heard_ms;       /* when the last answer came */
	int64_t line_ms;        /* when the last line was printed */
	int64_t doubt_ms;       /* since when it is in doubt; 0: it is not */
	char state[LIMIT_NAME]; /* of the last line */
	json_t *last;           /* the document shown last */
	struct frame frame;
	struct frame_drawn drawn;
};

/* Asks once. 0: answered. 1: no answer yet, go on. -1: to be ended with *ret_code, all said. */
static int ask(struct watch *watch, const struct msg_request *request, struct api_reply *ret_reply, int *ret_code)
{
	struct cli *cli = watch->cli;
	struct err err = { 0 };

	screen_refresh(&cli->screen);
	if (api_call(cli->api, request, WATCH_ANSWER_MS, ret_reply, &err) != 0) {
		if (err.code == ERR_UNREACHABLE && clock_ms(&clock_real) - watch->heard_ms < WATCH_SILENCE_MS)
			return 1;
		*ret_code = cli_fail_err(cli, &err);
		return -1;
	}
	watch->heard_ms = clock_ms(&clock_real);
	if (ret_reply->code == ERR_NONE) {
		if (!cli->args.json)
			doc_clean(ret_reply->doc);
		return 0;
	}
	*ret_code = cli_fail_reply(cli, ret_reply);
	api_reply_free(ret_reply);
	return -1;
}

/* "no answer" under what is shown. */
static void draw_silence(struct watch *watch)
{
	const struct screen *screen = &watch->cli->screen;
	char text[128];

	if (watch->quiet || watch->cli->args.json || !screen->terminal)
		return;
	struct frame with = watch->frame;
	snprintf(text, sizeof(text), "no answer from the coordinator for %" PRId64 " s; migrations go on without it",
	         (clock_ms(&clock_real) - watch->heard_ms) / 1000);
	frame_add(&with, screen, HUE_WARN, text);
	frame_draw(screen, &watch->drawn, &with);
}

static void show_line(struct watch *watch, const json_t *doc)
{
	struct screen wide = watch->cli->screen;
	int64_t now_ms = clock_ms(&clock_real);
	char line[FRAME_BYTES];

	if (strcmp(watch->state, doc_text(doc, "state")) == 0 && now_ms - watch->line_ms < WATCH_LINE_MS)
		return;
	snprintf(watch->state, sizeof(watch->state), "%s", doc_text(doc, "state"));
	watch->line_ms = now_ms;
	wide.columns = WATCH_LINE_COLUMNS;
	frame_headline(line, &wide, doc);
	fprintf(wide.out, "%s\n", line);
	fflush(wide.out);
}

static void show_one(struct watch *watch, const json_t *doc)
{
	const struct screen *screen = &watch->cli->screen;

	if (watch->quiet)
		return;
	if (watch->cli->args.json) {
		if (!watch->last || !json_equal(watch->last, doc))
			cli_print_json(watch->cli, doc);
	} else if (screen->terminal) {
		frame_fill(&watch->frame, screen, doc);
		frame_draw(screen, &watch->drawn, &watch->frame);
	} else {
		show_line(watch, doc);
	}
}

/* Whether there is nothing more to wait for. */
static bool ended(struct watch *watch, const json_t *doc)
{
	const char *state = doc_text(doc, "state");

	if (strcmp(state, "in-doubt") != 0) {
		watch->doubt_ms = 0;
		return state_is_final(state);
	}
	if (!watch->doubt_ms)
		watch->doubt_ms = clock_ms(&clock_real);
	return clock_ms(&clock_real) - watch->doubt_ms >= WATCH_DOUBT_MS;
}

static int finish_one(struct watch *watch, const json_t *doc)
{
	struct cli *cli = watch->cli;

	if (cli->args.json) {
		if (watch->quiet)
			cli_print_json(cli, doc);
	} else {
		/* The summary takes the place of the view. */
		watch->frame.count = 0;
		if (watch->drawn.count)
			frame_draw(&cli->screen, &watch->drawn, &watch->frame);
		print_summary(&cli->screen, doc);
	}
	return (int)exit_of_state(doc_text(doc, "state"));
}

static void remember(struct watch *watch, const json_t *doc)
{
	json_decref(watch->last);
	watch->last = json_incref((json_t *)(uintptr_t)doc);
}

int watch_one(struct cli *cli, uint64_t id, const char *id_text, bool quiet)
{
	struct msg_request request = { .verb = VERB_SHOW, .keep_source_s = -1, .keep_copy_s = -1 };
	struct watch *watch = calloc(1, sizeof(*watch));
	int code = EXIT_FAILED;

	if (!watch)
		return cli_fail(cli, &(struct err) { ERR_NO_MEMORY, "watch: no memory" }, EXIT_FAILED);
	watch->cli = cli;
	watch->quiet = quiet;
	watch->heard_ms = clock_ms(&clock_real);
	if (id)
		snprintf(request.id, sizeof(request.id), "%" PRIu64, id);
	else
		snprintf(request.id, sizeof(request.id), "%s", id_text);
	for (bool over = false; !over;) {
		struct api_reply reply;
		int heard = ask(watch, &request, &reply, &code);

		if (heard < 0)
			break;
		if (heard > 0) {
			draw_silence(watch);
		} else {
			show_one(watch, reply.doc);
			over = ended(watch, reply.doc);
			if (over)
				code = finish_one(watch, reply.doc);
			remember(watch, reply.doc);
			api_reply_free(&reply);
		}
		if (!over && api_sleep(cli->api, WATCH_POLL_MS) != 0) {
			code = EXIT_SIGNAL + api_signal(cli->api);
			break;
		}
	}
	if (code > EXIT_SIGNAL && cli->screen.terminal)
		fputc('\n', cli->screen.out); /* after the ^C */
	fflush(cli->screen.out);
	if (code > EXIT_SIGNAL)
		fprintf(cli->complaints, "drover: no longer watching; migration %s goes on (drover watch %s)\n",
		        request.id, request.id);
	json_decref(watch->last);
	free(watch);
	return code;
}

/* A line for each migration whose state is another than in the document before. */
static void show_changes(struct watch *watch, const json_t *doc)
{
	struct screen wide = watch->cli->screen;
	const json_t *now, *before;
	size_t i, j;

	wide.columns = WATCH_LINE_COLUMNS;
	json_array_foreach(doc_list(doc, "migrations"), i, now)
	{
		char line[FRAME_BYTES];
		bool same = false;

		json_array_foreach(doc_list(watch->last, "migrations"), j, before)
		{
			if (doc_number(before, "id", 0) == doc_number(now, "id", 0))
				same = strcmp(doc_text(before, "state"), doc_text(now, "state")) == 0;
		}
		if (same)
			continue;
		frame_headline(line, &wide, now);
		fprintf(wide.out, "%s\n", line);
	}
	fflush(wide.out);
}

static void show_all(struct watch *watch, const json_t *doc)
{
	const struct screen *screen = &watch->cli->screen;

	if (watch->cli->args.json) {
		if (!watch->last || !json_equal(watch->last, doc))
			cli_print_json(watch->cli, doc);
		return;
	}
	if (!screen->terminal) {
		show_changes(watch, doc);
		return;
	}
	char *table = print_migrations_text(screen, doc), *rest = table;
	watch->frame.count = 0;
	for (char *line = strsep(&rest, "\n"); line && *line && watch->frame.count < FRAME_LINES;
	     line = strsep(&rest, "\n"))
		snprintf(watch->frame.lines[watch->frame.count++], FRAME_BYTES, "%s", line);
	if (!table)
		frame_add(&watch->frame, screen, HUE_DIM, "no migrations under way");
	frame_draw(screen, &watch->drawn, &watch->frame);
	free(table);
}

int watch_all(struct cli *cli)
{
	struct msg_request request = { .verb = VERB_LIST, .keep_source_s = -1, .keep_copy_s = -1 };
	struct watch *watch = calloc(1, sizeof(*watch));
	int code = EXIT_DONE;

	if (!watch)
		return cli_fail(cli, &(struct err) { ERR_NO_MEMORY, "watch: no memory" }, EXIT_FAILED);
	watch->cli = cli;
	watch->heard_ms = clock_ms(&clock_real);
	do {
		struct api_reply reply;
		int heard = ask(watch, &request, &reply, &code);

		if (heard < 0)
			break;
		if (heard > 0) {
			draw_silence(watch);
			continue;
		}
		show_all(watch, reply.doc);
		remember(watch, reply.doc);
		api_reply_free(&reply);
	} while (api_sleep(cli->api, WATCH_LIST_MS) == 0);
	json_decref(watch->last);
	free(watch);
	return code > EXIT_SIGNAL ? EXIT_DONE : code; /* interrupting is how this ends */
}

/* Prints what came, and moves `after` behind it. Returns how many there were. */
static size_t take_events(struct cli *cli, struct msg_request *request, const json_t *doc)
{
	const json_t *list = doc_list(doc, "events"), *event;
	uint64_t last = doc_number(doc, "next", request->after);
	size_t index;

	json_array_foreach(list, index, event)
	{
		uint64_t number = doc_number(event, "number", doc_number(event, "id", 0));

		last = number > last ? number : last;
		if (cli->args.json && cli->args.follow)
			cli_print_json(cli, event);
	}
	if (!cli->args.json)
		print_events(&cli->screen, doc);
	fflush(cli->screen.out);
	if (last <= request->after)
		return 0; /* without numbers to go on from, this was all */
	request->after = last;
	return json_array_size(list);
}

int watch_events(struct cli *cli)
{
	struct msg_request request = cli->args.request;
	struct watch watch = { .cli = cli, .heard_ms = clock_ms(&clock_real) };
	bool follow = cli->args.follow;
	json_t *all = NULL;
	int code = EXIT_DONE;

	for (;;) {
		struct api_reply reply;
		int heard = ask(&watch, &request, &reply, &code);
		size_t came = 0;

		if (heard < 0)
			break;
		if (heard == 0) {
			came = take_events(cli, &request, reply.doc);
			if (all)
				json_array_extend(json_object_get(all, "events"), json_object_get(reply.doc, "events"));
			else
				all = json_incref(reply.doc);
			if (follow) {
				json_decref(all);
				all = NULL;
			}
			api_reply_free(&reply);
		}
		if (!follow && heard == 0 && !came)
			break;
		/* A full page may be followed by another at once. */
		if (!came && api_sleep(cli->api, WATCH_EVENTS_MS) != 0)
			break;
	}
	if (all && cli->args.json && code == EXIT_DONE)
		cli_print_json(cli, all);
	json_decref(all);
	return follow && code > EXIT_SIGNAL ? EXIT_DONE : code;
}
