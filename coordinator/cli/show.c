/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One migration: whole, and in short once it has ended. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "common/units.h"
#include "coordinator/cli/doc.h"
#include "coordinator/cli/exits.h"
#include "coordinator/cli/print.h"
#include "coordinator/cli/table.h"
#include "coordinator/cli/text.h"

static void line(const struct screen *screen, const char *label, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void line(const struct screen *screen, const char *label, const char *format, ...)
{
	va_list args;

	fprintf(screen->out, "  %-12s ", label);
	va_start(args, format);
	vfprintf(screen->out, format, args);
	va_end(args);
	fputc('\n', screen->out);
}

/* A field by its name, left out if there is none. */
static void field(const struct screen *screen, const char *label, const json_t *doc, const char *path)
{
	const json_t *value = doc_get(doc, path);
	const char *dot = strrchr(path, '.');
	char text[PRINT_VALUE];

	if (!value)
		return;
	print_value(text, dot ? dot + 1 : path, value, screen, true);
	line(screen, label, "%s", text);
}

/* Who may run the VM, in words; NULL for what we do not know. */
static void authority_line(const struct screen *screen, const json_t *doc)
{
	const char *authority = doc_text(doc, "authority");
	const char *source = doc_text(doc, "source"), *destination = doc_text(doc, "destination");

	if (strcmp(authority, "source") == 0)
		line(screen, "authority", "source: only %s may run the VM", source);
	else if (strcmp(authority, "destination") == 0)
		line(screen, "authority", "destination: only %s may run the VM", destination);
	else if (strcmp(authority, "undecided") == 0)
		line(screen, "authority", "%sundecided%s: votes are out; start the VM nowhere by hand",
		     screen_hue(screen, HUE_WARN), screen_plain(screen, HUE_WARN));
	else if (strcmp(authority, "none") == 0)
		line(screen, "authority", "%snone%s: the VM died with its host; boot it from its disks",
		     screen_hue(screen, HUE_LOUD), screen_plain(screen, HUE_LOUD));
	else if (*authority)
		line(screen, "authority", "%s", authority);
}

static const char *vote(const json_t *doc, const char *path)
{
	return *doc_text(doc, path) ? doc_text(doc, path) : "none yet";
}

static void votes_line(const struct screen *screen, const json_t *doc)
{
	if (doc_get(doc, "votes"))
		line(screen, "votes", "coordinator %s, source %s, destination %s", vote(doc, "votes.coordinator"),
		     vote(doc, "votes.source"), vote(doc, "votes.destination"));
}

/* What is known beside the votes: the flags that are set. */
static void facts_line(const struct screen *screen, const json_t *doc)
{
	json_t *facts = (json_t *)(uintptr_t)doc_get(doc, "facts"), *value;
	char text[PRINT_VALUE] = "", label[64];
	size_t used = 0;
	const char *key;

	json_object_foreach(facts, key, value)
	{
		if (!json_is_true(value))
			continue;
		text_clean(label, sizeof(label), key);
		int more = snprintf(text + used, sizeof(text) - used, "%s%s", used ? ", " : "", label);
		if (more < 0 || (size_t)more >= sizeof(text) - used)
			break;
		used += (size_t)more;
	}
	if (used)
		line(screen, "facts", "%s", text);
}

static void cause_lines(const struct screen *screen, const json_t *doc)
{
	const json_t *cause = doc_get(doc, "cause");
	const char *host = doc_text(cause, "host"), *step = doc_text(cause, "step");

	if (!json_is_object(cause))
		return;
	line(screen, "cause", "%s%s%s: %s", screen_hue(screen, HUE_BAD),
	     *doc_text(cause, "code") ? doc_text(cause, "code") : "?", screen_plain(screen, HUE_BAD),
	     doc_text(cause, "message"));
	if (*host || *step)
		line(screen, "", "%s%s%s%s%s", *host ? "on " : "", host, *host && *step ? ", " : "",
		     *step ? "step " : "", step);
}

static void disk_table(const struct screen *screen, const json_t *doc)
{
	static const char *const keys[] = { "size_bytes", "copied_bytes", "reused_bytes", "zero_bytes", "left_bytes" };
	const json_t *disks = doc_list(doc, "progress.disks"), *disk;
	const json_t *memory = doc_get(doc, "progress.memory");
	struct table *table = table_new(screen);
	size_t index;

	table_column(table, "  ", 0);
	table_column(table, "WHAT", TABLE_CUT);
	table_column(table, "SIZE", TABLE_RIGHT);
	table_column(table, "COPIED", TABLE_RIGHT);
	table_column(table, "REUSED", TABLE_RIGHT);
	table_column(table, "ZERO", TABLE_RIGHT);
	table_column(table, "LEFT", TABLE_RIGHT);
	table_column(table, "PASS", TABLE_RIGHT);
	json_array_foreach(disks, index, disk)
	{
		char figures[6][PRINT_VALUE];

		for (unsigned i = 0; i < 5; i++)
			print_value(figures[i], keys[i], doc_get(disk, keys[i]), screen, false);
		print_value(figures[5], "pass", doc_get(disk, "pass"), screen, false);
		const char *cells[] = { " ",        doc_text(disk, "name"),
			                figures[0], figures[1],
			                figures[2], figures[3],
			                figures[4], figures[5] };
		table_line(table, cells, NULL);
	}
	if (json_is_object(memory)) {
		char total[PRINT_VALUE], sent[PRINT_VALUE], dirty[PRINT_VALUE], pass[PRINT_VALUE];

		print_value(total, "total_bytes", doc_get(memory, "total_bytes"), screen, false);
		print_value(sent, "sent_bytes", doc_get(memory, "sent_bytes"), screen, false);
		print_value(dirty, "dirty_bytes", doc_get(memory, "dirty_bytes"), screen, false);
		print_value(pass, "pass", doc_get(memory, "pass"), screen, false);
		const char *cells[] = { " ", "memory", total, sent, "", "", dirty, pass };
		table_line(table, cells, NULL);
	}
	table_print(table);
	table_free(table);
}

static void progress_lines(const struct screen *screen, const json_t *doc)
{
	const json_t *progress = doc_get(doc, "progress");
	uint64_t total = doc_number(progress, "bytes_total", 0), done = doc_number(progress, "bytes_done", 0);
	bool moving = state_is_moving(doc_text(doc, "state"));
	char a[TEXT_FIGURE], b[TEXT_FIGURE];

	if (!json_is_object(progress))
		return;
	field(screen, "phase", progress, "phase");
	if (total) {
		units_format_size(done, a);
		units_format_size(total, b);
		line(screen, "progress", "%u%%: %s of %s, pass %" PRIu64, text_percent(done, total), a, b,
		     doc_number(progress, "pass", 0));
	}
	field(screen, "left", progress, "bytes_left");
	if (moving)
		field(screen, "rate", progress, "rate_bps");
	field(screen, "guest writes", progress, "dirty_bps");
	if (doc_number(progress, "throttle_percent", 0))
		line(screen, "throttled", "by %" PRIu64 "%%", doc_number(progress, "throttle_percent", 0));
	if (moving && doc_number(progress, "eta_ms", 0))
		field(screen, "time left", progress, "eta_ms");
	if (json_array_size(doc_list(progress, "disks")) || doc_get(progress, "memory"))
		disk_table(screen, doc);
}

/* "312 ms: suspend 10 ms, memory 120 ms, ..." */
static void downtime_line(const struct screen *screen, const json_t *doc)
{
	static const struct {
		const char *path, *name;
	} parts[] = {
		{ "downtime_budget.suspend_ms", "suspend" },  { "downtime_budget.final_memory_ms", "memory" },
		{ "downtime_budget.final_disk_ms", "disks" }, { "downtime_budget.verify_ms", "verify" },
		{ "downtime_budget.votes_ms", "votes" },      { "downtime_budget.activate_ms", "activate" },
	};
	char figure[TEXT_FIGURE], text[PRINT_VALUE] = "";
	size_t used = 0;

	if (!doc_get(doc, "downtime_ms") && !doc_get(doc, "downtime_budget"))
		return;
	if (doc_get(doc, "downtime_ms"))
		units_format_duration(doc_number(doc, "downtime_ms", 0), figure);
	else
		snprintf(figure, sizeof(figure), "not yet known");
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		char part[TEXT_FIGURE];

		if (!doc_get(doc, parts[i].path))
			continue;
		units_format_duration(doc_number(doc, parts[i].path, 0), part);
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s %s", used ? ", " : ": ", parts[i].name,
		                         part);
	}
	line(screen, "downtime", "%s%s", figure, text);
}

static void heading(const struct screen *screen, const json_t *doc)
{
	const char *state = doc_text(doc, "state"), *name = doc_text(doc, "vm.name");

	fprintf(screen->out, "%smigration %" PRIu64 "%s: %s, %s -> %s: %s%s%s\n", screen_hue(screen, HUE_BOLD),
	        doc_number(doc, "id", 0), screen_plain(screen, HUE_BOLD), *name ? name : doc_text(doc, "vm.uuid"),
	        doc_text(doc, "source"), doc_text(doc, "destination"), screen_hue(screen, hue_of_word(state)),
	        *state ? state : "?", screen_plain(screen, hue_of_word(state)));
}

void print_migration(const struct screen *screen, const json_t *doc)
{
	heading(screen, doc);
	field(screen, "VM", doc, "vm.uuid");
	authority_line(screen, doc);
	votes_line(screen, doc);
	facts_line(screen, doc);
	cause_lines(screen, doc);
	progress_lines(screen, doc);
	downtime_line(screen, doc);
	field(screen, "kept until", doc, "kept_until");
	field(screen, "retry of", doc, "retry_of");
	field(screen, "undo of", doc, "undo_of");
	field(screen, "state since", doc, "state_since_at");
	field(screen, "submitted", doc, "submitted_at");
	field(screen, "by", doc, "submitted_by");
	field(screen, "key", doc, "key");
	field(screen, "started", doc, "started_at");
	field(screen, "ended", doc, "ended_at");
	if (doc_get(doc, "priority") && json_integer_value(doc_get(doc, "priority")) != 0)
		field(screen, "priority", doc, "priority");
	if (doc_number(doc, "generation", 1) != 1)
		field(screen, "attempt", doc, "generation");
	if (json_array_size(doc_list(doc, "leftovers"))) {
		json_t *part = json_pack("{sO}", "leftovers", (json_t *)(uintptr_t)doc_get(doc, "leftovers"));

		print_outline(screen, part, 2);
		json_decref(part);
	}
	if (json_object_size(doc_get(doc, "options"))) {
		fprintf(screen->out, "  options\n");
		print_outline(screen, doc_get(doc, "options"), 4);
	}
}

/* A list of texts under a title. */
static void items(const struct screen *screen, const char *title, enum hue hue, const json_t *list)
{
	const json_t *item;
	size_t index;

	if (!json_array_size(list))
		return;
	fprintf(screen->out, "%s%s%s:\n", screen_hue(screen, hue), title, screen_plain(screen, hue));
	json_array_foreach(list, index, item)
	{
		fprintf(screen->out, "  - %s\n", json_string_value(item) ? json_string_value(item) : "?");
	}
}

static void waiting_lines(const struct screen *screen, const json_t *list)
{
	const json_t *item;
	size_t index;

	if (json_array_size(list))
		fprintf(screen->out, "waiting for:\n");
	json_array_foreach(list, index, item)
	{
		char since[PRINT_VALUE];

		print_value(since, "since_at", doc_get(item, "since_at"), screen, false);
		fprintf(screen->out, "  - %s (%s): %s, since %s", doc_text(item, "host"), doc_text(item, "reach"),
		        doc_text(item, "for"), since);
		if (doc_number(item, "tries", 0) > 1)
			fprintf(screen->out, ", asked %" PRIu64 " times", doc_number(item, "tries", 0));
		fputc('\n', screen->out);
	}
}

/* Which record of whom is known, and what each host may do by it. */
static void evidence_lines(const struct screen *screen, const json_t *doc)
{
	const json_t *item;
	size_t index;

	if (json_array_size(doc_list(doc, "evidence")))
		fprintf(screen->out, "evidence:\n");
	json_array_foreach(doc_list(doc, "evidence"), index, item)
	{
		const char *host = doc_text(item, "host");

		fprintf(screen->out, "  - %s%s%s %s (%s): %s\n", doc_text(item, "who"), *host ? " " : "", host,
		        doc_text(item, "says"), doc_text(item, "rule"), doc_text(item, "means"));
	}
	if (json_array_size(doc_list(doc, "rights")))
		fprintf(screen->out, "by what is known:\n");
	json_array_foreach(doc_list(doc, "rights"), index, item)
	{
		fprintf(screen->out, "  - %s %s %s (%s)\n", doc_text(item, "host"),
		        doc_true(item, "allowed") ? "may" : "may not", doc_text(item, "act"), doc_text(item, "rule"));
	}
}

static void ruling_lines(const struct screen *screen, const json_t *list)
{
	const json_t *item;
	size_t index;

	if (json_array_size(list))
		fprintf(screen->out, "an operator could rule, with the other host powered off:\n");
	json_array_foreach(list, index, item)
	{
		bool possible = doc_true(item, "possible");

		fprintf(screen->out, "  - %s\n    %s%s\n", doc_text(item, "command"),
		        possible ? "" : "not now: ", doc_text(item, possible ? "effect" : "why_not"));
	}
}

void print_explanation(const struct screen *screen, const json_t *doc)
{
	if (!doc_get(doc, "meaning") && !doc_get(doc, "safe")) {
		print_outline(screen, doc, 0); /* a coordinator that explains in another way */
		return;
	}
	heading(screen, doc);
	if (*doc_text(doc, "meaning"))
		line(screen, "meaning", "%s", doc_text(doc, "meaning"));
	authority_line(screen, doc);
	votes_line(screen, doc);
	facts_line(screen, doc);
	cause_lines(screen, doc);
	evidence_lines(screen, doc);
	waiting_lines(screen, doc_list(doc, "waiting_for"));
	items(screen, "safe to do by hand", HUE_GOOD, doc_list(doc, "safe"));
	items(screen, "NOT safe", HUE_LOUD, doc_list(doc, "unsafe"));
	ruling_lines(screen, doc_list(doc, "rulings"));
}

void print_summary(const struct screen *screen, const json_t *doc)
{
	int64_t started = doc_time(doc, "started_at"), ended = doc_time(doc, "ended_at");
	uint64_t sent = doc_number(doc, "progress.wire_bytes", doc_number(doc, "progress.bytes_done", 0));
	char figure[TEXT_FIGURE], rate[TEXT_FIGURE];

	heading(screen, doc);
	cause_lines(screen, doc);
	authority_line(screen, doc);
	downtime_line(screen, doc);
	if (started >= 0 && ended > started) {
		units_format_duration((uint64_t)(ended - started), figure);
		line(screen, "took", "%s", figure);
	}
	if (sent) {
		units_format_size(sent, figure);
		line(screen, "sent", "%s", figure);
	}
	if (doc_number(doc, "progress.reused_bytes", 0)) {
		units_format_size(doc_number(doc, "progress.reused_bytes", 0), figure);
		line(screen, "reused", "%s", figure);
	}
	if (sent && started >= 0 && ended > started) {
		units_format_rate((uint64_t)((double)sent * 1000.0 / (double)(ended - started)), rate);
		line(screen, "average", "%s", rate);
	}
	if (doc_get(doc, "progress.pass"))
		line(screen, "passes", "%" PRIu64 " (memory %" PRIu64 ")", doc_number(doc, "progress.pass", 0),
		     doc_number(doc, "progress.memory.pass", 0));
	field(screen, "kept until", doc, "kept_until");
}
