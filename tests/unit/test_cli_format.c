/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What `drover` shows: figures, bars, tables, the live view, for fixed documents and widths. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/cli/doc.h"
#include "coordinator/cli/exits.h"
#include "coordinator/cli/frame.h"
#include "coordinator/cli/print.h"
#include "coordinator/cli/text.h"

#define NOW_MS INT64_C(1795388763000) /* 2026-11-22T23:06:03Z */

static const char copying[] =
	"{\"id\":17,\"key\":null,\"vm\":{\"uuid\":\"0b5ae1a2-0000-4000-8000-000000000001\",\"name\":\"web3\"},"
	"\"source\":\"a1\",\"destination\":\"b2\",\"state\":\"copying\",\"authority\":\"source\",\"generation\":1,"
	"\"votes\":{\"coordinator\":null,\"source\":null,\"destination\":null},"
	"\"progress\":{\"phase\":\"disk\",\"pass\":2,\"bytes_total\":4294967296,\"bytes_done\":2147483648,"
	"\"bytes_left\":2147483648,\"rate_bps\":52428800,\"dirty_bps\":1048576,\"eta_ms\":41000,"
	"\"disks\":[{\"name\":\"xvda\",\"size_bytes\":3221225472,\"copied_bytes\":1610612736,\"zero_bytes\":0,\"pass\":"
	"2,"
	"\"left_bytes\":805306368}],"
	"\"memory\":{\"total_bytes\":1073741824,\"sent_bytes\":536870912,\"pass\":0,\"dirty_bytes\":0}},"
	"\"downtime_ms\":null,\"cause\":null,\"leftovers\":[],\"kept_until\":null,"
	"\"submitted_at\":\"2026-11-22T23:05:03.000Z\",\"started_at\":\"2026-11-22T23:05:04.500Z\",\"ended_at\":null,"
	"\"submitted_by\":\"ops\",\"options\":{\"max_downtime_ms\":300}}";

static json_t *parse(const char *text)
{
	json_t *doc = NULL;

	assert_int_equal(doc_parse(&doc, text, NULL), 0);
	doc_clean(doc);
	return doc;
}

/* A screen that writes to memory. */
struct paper {
	struct screen screen;
	char *text;
	size_t bytes;
};

static void paper_open(struct paper *paper, unsigned columns, bool utf8)
{
	memset(paper, 0, sizeof(*paper));
	paper->screen.out = open_memstream(&paper->text, &paper->bytes);
	assert_non_null(paper->screen.out);
	paper->screen.terminal = columns != 0;
	paper->screen.columns = columns;
	paper->screen.utf8 = utf8;
	paper->screen.now_wall_ms = NOW_MS;
}

static const char *paper_text(struct paper *paper)
{
	fflush(paper->screen.out);
	return paper->text;
}

static void paper_close(struct paper *paper)
{
	fclose(paper->screen.out);
	free(paper->text);
}

static void text_clean__control_characters__are_gone(void **state)
{
	char text[64];

	(void)state;
	text_clean(text, sizeof(text),
	           "a\033[2Jb\tc\nd\x7f\xc2\x9b"
	           "e\xe2\x80\xae"
	           "f");
	assert_string_equal(text, "a?[2Jb c d??e?f");
	assert_false(text_is_clean("\033"));
	assert_true(text_is_clean("Grün \xe4\xb8\xad"));
	text_clean(text, 4, "Grün"); /* the two bytes of the third character do not fit */
	assert_string_equal(text, "Gr");
}

static void text_percent__not_quite_all__is_99(void **state)
{
	(void)state;
	assert_int_equal(text_percent(0, 0), 100);
	assert_int_equal(text_percent(0, 10), 0);
	assert_int_equal(text_percent(UINT64_MAX - 1, UINT64_MAX), 99);
	assert_int_equal(text_percent(10, 10), 100);
}

static void text_time__forms__are_read_or_refused(void **state)
{
	int64_t ms = 0;
	char text[TEXT_FIGURE];

	(void)state;
	assert_int_equal(text_time("2026-11-22T23:06:03.250Z", &ms), 0);
	assert_int_equal(ms, NOW_MS + 250);
	assert_int_equal(text_time("2026-11-22T23:06:03Z", &ms), 0);
	assert_int_equal(ms, NOW_MS);
	assert_int_equal(text_time("2026-11-22", &ms), -1);
	assert_int_equal(text_time("", &ms), -1);
	text_relative(text, NOW_MS - 42500, NOW_MS);
	assert_string_equal(text, "42s ago");
	text_relative(text, NOW_MS + 3 * 60000 + 5000, NOW_MS);
	assert_string_equal(text, "in 3m05s");
	text_relative(text, NOW_MS - 400, NOW_MS);
	assert_string_equal(text, "now");
}

static void text_bar__widths_and_parts__fill_exactly(void **state)
{
	char bar[128];

	(void)state;
	text_bar(bar, sizeof(bar), 10, 1, 2, false);
	assert_string_equal(bar, "[####----]");
	text_bar(bar, sizeof(bar), 10, 999, 1000, false);
	assert_string_equal(bar, "[#######-]");
	text_bar(bar, sizeof(bar), 10, 0, 0, false);
	assert_string_equal(bar, "[########]");
	text_bar(bar, sizeof(bar), 6, 3, 8, true);
	assert_string_equal(bar, "▕█▌  ▏");
	assert_int_equal(text_columns(bar), 6);
	text_bar(bar, 5, 10, 1, 2, false); /* too little room: shorter, never over */
	assert_int_equal(strlen(bar), 4);
}

static void doc__wrong_types_and_missing_fields__read_as_absent(void **state)
{
	struct err err = { 0 };
	json_t *doc = parse("{\"vm\":\"text\",\"n\":-3,\"r\":2.5,\"s\":7,\"l\":{}}");

	(void)state;
	assert_string_equal(doc_text(doc, "vm.name"), "");
	assert_string_equal(doc_text(doc, "s"), "");
	assert_int_equal(doc_number(doc, "n", 9), 9);
	assert_int_equal(doc_number(doc, "r", 9), 2);
	assert_int_equal(doc_number(doc, "vm", 9), 9);
	assert_null(doc_list(doc, "l"));
	assert_null(doc_get(NULL, "a.b"));
	json_decref(doc);
	assert_int_equal(doc_parse(&doc, "[1]", &err), -1);
	assert_int_equal(err.code, ERR_PROTOCOL);
	assert_int_equal(doc_parse(&doc, "{\"a\":", &err), -1);
	assert_int_equal(doc_parse(&doc, NULL, &err), 0);
	json_decref(doc);
}

static void list__two_migrations__is_aligned(void **state)
{
	struct paper paper;
	json_t *doc =
		parse("{\"migrations\":[{\"id\":9,\"vm\":{\"name\":\"db\"},\"source\":\"a1\",\"destination\":\"b2\","
	              "\"state\":\"queued\"},{\"id\":17,\"vm\":{\"name\":\"web\\u001b[2J\"},\"source\":\"a1\","
	              "\"destination\":\"b2\",\"state\":\"copying\",\"progress\":{\"bytes_total\":4,\"bytes_done\":1},"
	              "\"submitted_at\":\"2026-11-22T23:05:21Z\"}]}");

	(void)state;
	paper_open(&paper, 0, false);
	print_migrations(&paper.screen, doc, false);
	assert_string_equal(paper_text(&paper), "ID  VM       FROM  TO  STATE    DONE  SUBMITTED\n"
	                                        " 9  db       a1    b2  queued         -\n"
	                                        "17  web?[2J  a1    b2  copying   25%  42s ago\n");
	paper_close(&paper);
	json_decref(doc);
}

static void list__narrow_terminal__fits_its_width(void **state)
{
	struct paper paper;
	json_t *doc = parse("{\"migrations\":[{\"id\":1,\"vm\":{\"name\":\"a-very-long-name-of-a-virtual-machine\"},"
	                    "\"source\":\"host-with-long-name-1\",\"destination\":\"host-with-long-name-2\","
	                    "\"state\":\"copying\"}]}");

	(void)state;
	paper_open(&paper, 40, false);
	print_migrations(&paper.screen, doc, false);
	for (const char *line = paper_text(&paper); *line; line += strcspn(line, "\n") + 1)
		assert_true(strcspn(line, "\n") <= 40);
	assert_non_null(strstr(paper.text, "copying"));
	paper_close(&paper);
	json_decref(doc);
}

static void list__nothing__says_so(void **state)
{
	struct paper paper;
	json_t *doc = parse("{}");

	(void)state;
	paper_open(&paper, 0, false);
	print_migrations(&paper.screen, doc, true);
	assert_string_equal(paper_text(&paper), "no migrations\n");
	assert_int_equal(print_checks(&paper.screen, doc), 0);
	paper_close(&paper);
	json_decref(doc);
}

static void checks__one_fails__is_counted_and_shown(void **state)
{
	struct paper paper;
	json_t *doc = parse("{\"checks\":[{\"host\":\"a1\",\"name\":\"vm running\",\"ok\":true,\"text\":\"yes\"},"
	                    "{\"host\":\"b2\",\"name\":\"memory\",\"ok\":false,\"text\":\"need 2 GiB, free 1 GiB\"}]}");

	(void)state;
	paper_open(&paper, 0, false);
	assert_int_equal(print_checks(&paper.screen, doc), 1);
	assert_string_equal(paper_text(&paper), "HOST  CHECK       RESULT  FOUND\n"
	                                        "a1    vm running  ok      yes\n"
	                                        "b2    memory      FAILED  need 2 GiB, free 1 GiB\n");
	paper_close(&paper);
	json_decref(doc);
}

static void leftovers__some_hosts_silent__said_below_the_list(void **state)
{
	struct paper paper;
	json_t *doc = parse(
		       "{\"leftovers\":[{\"host\":\"a1\",\"migration\":17,\"kind\":\"disk\",\"name\":\"xvda\",\"vm\":null,"
		       "\"state\":null,\"kept_until\":null,\"path\":\"/srv/x.raw\",\"text\":\"taken away\","
		       "\"error\":null}],\"hosts_silent\":[\"b2\",7],\"faults\":[{\"host\":\"c3\",\"message\":\"no SR\"}],"
		       "\"cut\":true}"),
	       *nothing = parse("{\"leftovers\":[],\"hosts_silent\":[],\"faults\":[],\"cut\":false}");

	(void)state;
	paper_open(&paper, 0, false);
	print_leftovers(&paper.screen, doc);
	const char *text = paper_text(&paper);
	assert_non_null(strstr(text, "/srv/x.raw"));
	assert_non_null(strstr(text, "taken away"));
	assert_non_null(strstr(text, "\nb2: no answer; what it holds is not known\n"));
	assert_non_null(strstr(text, "\nc3: could not be looked at in full: no SR\n"));
	assert_non_null(strstr(text, "\nthere is more than fits the list\n"));
	paper_close(&paper);
	paper_open(&paper, 0, false);
	print_leftovers(&paper.screen, nothing);
	assert_string_equal(paper_text(&paper), "no leftovers\n");
	paper_close(&paper);
	json_decref(doc);
	json_decref(nothing);
}

static void show__copying__tells_all(void **state)
{
	struct paper paper;
	json_t *doc = parse(copying);

	(void)state;
	paper_open(&paper, 0, false);
	print_migration(&paper.screen, doc);
	const char *text = paper_text(&paper);
	assert_non_null(strstr(text, "migration 17: web3, a1 -> b2: copying\n"));
	assert_non_null(strstr(text, "authority    source: only a1 may run the VM\n"));
	assert_non_null(strstr(text, "votes        coordinator none yet, source none yet, destination none yet\n"));
	assert_non_null(strstr(text, "progress     50%: 2.0 GiB of 4.0 GiB, pass 2\n"));
	assert_non_null(strstr(text, "rate         50.0 MiB/s\n"));
	assert_non_null(strstr(text, "submitted    2026-11-22T23:05:03.000Z (1m00s ago)\n"));
	assert_non_null(strstr(text, "max downtime  300 ms\n"));
	assert_non_null(strstr(text, "xvda"));
	paper_close(&paper);
	json_decref(doc);
}

static void show__empty_document__does_not_fail(void **state)
{
	struct paper paper;
	json_t *doc =
		parse("{\"vm\":[],\"votes\":7,\"progress\":\"x\",\"cause\":{},\"options\":[1],\"leftovers\":[{}]}");

	(void)state;
	paper_open(&paper, 30, true);
	print_migration(&paper.screen, doc);
	print_summary(&paper.screen, doc);
	assert_non_null(strstr(paper_text(&paper), "migration 0"));
	paper_close(&paper);
	json_decref(doc);
}

static void summary__done__has_downtime_and_parts(void **state)
{
	struct paper paper;
	json_t *doc = parse(
		"{\"id\":3,\"vm\":{\"name\":\"w\"},\"source\":\"a\",\"destination\":\"b\",\"state\":\"done\","
		"\"authority\":\"destination\",\"downtime_ms\":212,\"downtime_budget\":{\"suspend_ms\":12,"
		"\"final_memory_ms\":100,\"final_disk_ms\":60,\"verify_ms\":10,\"votes_ms\":10,\"activate_ms\":20},"
		"\"progress\":{\"wire_bytes\":104857600,\"pass\":4,\"memory\":{\"pass\":3}},"
		"\"started_at\":\"2026-11-22T23:06:00Z\",\"ended_at\":\"2026-11-22T23:06:10Z\"}");

	(void)state;
	paper_open(&paper, 0, false);
	print_summary(&paper.screen, doc);
	assert_string_equal(
		paper_text(&paper),
		"migration 3: w, a -> b: done\n"
		"  authority    destination: only b may run the VM\n"
		"  downtime     212 ms: suspend 12 ms, memory 100 ms, disks 60 ms, verify 10 ms, votes 10 ms, "
		"activate 20 ms\n"
		"  took         10s\n"
		"  sent         100.0 MiB\n"
		"  average      10.0 MiB/s\n"
		"  passes       4 (memory 3)\n");
	paper_close(&paper);
	json_decref(doc);
}

static void explanation__in_doubt__says_who_and_what_is_unsafe(void **state)
{
	struct paper paper;
	json_t *doc =
		parse("{\"id\":4,\"vm\":{\"name\":\"w\"},\"source\":\"a\",\"destination\":\"b\",\"state\":\"in-doubt\","
	              "\"meaning\":\"a vote is missing\",\"facts\":{\"suspended\":true,\"resumed\":false},"
	              "\"waiting_for\":[{\"host\":\"b\",\"for\":\"its vote\",\"since_at\":\"2026-11-22T23:06:00Z\","
	              "\"tries\":3,\"reach\":\"unreachable\"}],\"safe\":[\"bring back b\"],\"unsafe\":[\"boot it\"]}");

	(void)state;
	paper_open(&paper, 0, false);
	print_explanation(&paper.screen, doc);
	assert_string_equal(paper_text(&paper), "migration 4: w, a -> b: in-doubt\n"
	                                        "  meaning      a vote is missing\n"
	                                        "  facts        suspended\n"
	                                        "waiting for:\n"
	                                        "  - b (unreachable): its vote, since 3s ago, asked 3 times\n"
	                                        "safe to do by hand:\n"
	                                        "  - bring back b\n"
	                                        "NOT safe:\n"
	                                        "  - boot it\n");
	paper_close(&paper);
	json_decref(doc);
}

static void outline__unknown_document__is_shown_by_names(void **state)
{
	struct paper paper;
	json_t *doc = parse("{\"version\":\"0.1\",\"memory_free_bytes\":2147483648,\"connected\":true,"
	                    "\"queue\":{\"length\":2,\"oldest_ms\":1500},\"safe\":[\"wait\",\"cancel\"],"
	                    "\"srs\":[{\"name\":\"fast\",\"free_bytes\":1024}]}");

	(void)state;
	paper_open(&paper, 0, false);
	print_outline(&paper.screen, doc, 0);
	assert_string_equal(paper_text(&paper), "version      0.1\n"
	                                        "memory free  2.0 GiB\n"
	                                        "connected    yes\n"
	                                        "queue:\n"
	                                        "  length  2\n"
	                                        "  oldest  1.5s\n"
	                                        "safe:\n"
	                                        "  - wait\n"
	                                        "  - cancel\n"
	                                        "srs:\n"
	                                        "   NAME     FREE\n"
	                                        "   fast  1.0 KiB\n");
	paper_close(&paper);
	json_decref(doc);
}

static void frame__wide_ascii__has_header_disk_and_memory(void **state)
{
	struct frame frame;
	struct paper paper;
	json_t *doc = parse(copying);

	(void)state;
	paper_open(&paper, 100, false);
	frame_fill(&frame, &paper.screen, doc);
	assert_int_equal(frame.count, 3);
	assert_string_equal(frame.lines[0],
	                    "17 web3  copying  a1 -> b2  authority source  1m00s  50.0 MiB/s  41s left");
	assert_string_equal(frame.lines[1],
	                    "xvda         [############################----------]  75%  2.2 GiB of 3.0 GiB  pass 2");
	assert_string_equal(frame.lines[2],
	                    "memory       [###################-------------------]  50%  512.0 MiB of 1.0 GiB  pass 0");
	paper_close(&paper);
	json_decref(doc);
}

static void frame__any_width__fits(void **state)
{
	struct frame frame;
	struct paper paper;
	json_t *doc = parse(copying);

	(void)state;
	for (unsigned columns = 20; columns < 130; columns++) {
		paper_open(&paper, columns, columns % 2);
		frame_fill(&frame, &paper.screen, doc);
		for (unsigned i = 0; i < frame.count; i++)
			assert_true(text_columns(frame.lines[i]) <= columns);
		paper_close(&paper);
	}
	json_decref(doc);
}

static void frame__colour_on__escapes_and_same_text(void **state)
{
	struct frame frame;
	struct paper paper;
	json_t *doc = parse(copying);

	(void)state;
	paper_open(&paper, 60, true);
	paper.screen.colour = true;
	frame_fill(&frame, &paper.screen, doc);
	assert_non_null(strstr(frame.lines[0], "\033[36m  copying\033[0m"));
	paper_close(&paper);
	json_decref(doc);
}

static void draw__terminal_got_narrower__goes_up_over_wrapped_lines(void **state)
{
	struct frame_drawn drawn = { 0 };
	struct frame frame = { .count = 2, .lines = { "0123456789012345678901234", "short" } };
	struct paper paper;

	(void)state;
	paper_open(&paper, 40, false);
	frame_draw(&paper.screen, &drawn, &frame);
	assert_string_equal(paper_text(&paper), "\r0123456789012345678901234\033[K\nshort\033[K\n\033[J");
	paper.screen.columns = 20;
	frame_draw(&paper.screen, &drawn, &frame);
	assert_non_null(strstr(paper_text(&paper), "\033[3A\r"));
	paper_close(&paper);
}

static void exits__codes_states_and_replies__as_documented(void **state)
{
	(void)state;
	assert_int_equal(exit_of_code(ERR_NONE), 0);
	assert_int_equal(exit_of_code(ERR_SLOW), 1);
	assert_int_equal(exit_of_code(ERR_AMBIGUOUS), 2);
	assert_int_equal(exit_of_code(ERR_CANCELLED), 3);
	assert_int_equal(exit_of_code(ERR_TOO_LATE), 4);
	assert_int_equal(exit_of_code(ERR_UNREACHABLE), 6);
	assert_int_equal(exit_of_code(ERR_DENIED), 7);
	assert_int_equal(exit_of_code(ERR_NO_SPACE), 8);
	assert_int_equal(exit_of_code((enum err_code)4000), 1);
	assert_int_equal(exit_of_state("done"), 0);
	assert_int_equal(exit_of_state("failed"), 1);
	assert_int_equal(exit_of_state("cancelled"), 3);
	assert_int_equal(exit_of_state("in-doubt"), 5);
	assert_int_equal(exit_of_state("lost"), 5);
	assert_int_equal(exit_of_reply(ERR_NONE, 0), 0);
	assert_int_equal(exit_of_reply(ERR_NONE, 4), 4);
	assert_int_equal(exit_of_reply(ERR_DENIED, 0), 7);
	assert_int_equal(exit_of_reply(ERR_DENIED, 99), 7);
	assert_true(state_is_final("lost"));
	assert_false(state_is_final("in-doubt"));
	assert_false(state_is_final(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_clean__control_characters__are_gone),
		cmocka_unit_test(text_percent__not_quite_all__is_99),
		cmocka_unit_test(text_time__forms__are_read_or_refused),
		cmocka_unit_test(text_bar__widths_and_parts__fill_exactly),
		cmocka_unit_test(doc__wrong_types_and_missing_fields__read_as_absent),
		cmocka_unit_test(list__two_migrations__is_aligned),
		cmocka_unit_test(list__narrow_terminal__fits_its_width),
		cmocka_unit_test(list__nothing__says_so),
		cmocka_unit_test(checks__one_fails__is_counted_and_shown),
		cmocka_unit_test(leftovers__some_hosts_silent__said_below_the_list),
		cmocka_unit_test(show__copying__tells_all),
		cmocka_unit_test(show__empty_document__does_not_fail),
		cmocka_unit_test(summary__done__has_downtime_and_parts),
		cmocka_unit_test(explanation__in_doubt__says_who_and_what_is_unsafe),
		cmocka_unit_test(outline__unknown_document__is_shown_by_names),
		cmocka_unit_test(frame__wide_ascii__has_header_disk_and_memory),
		cmocka_unit_test(frame__any_width__fits),
		cmocka_unit_test(frame__colour_on__escapes_and_same_text),
		cmocka_unit_test(draw__terminal_got_narrower__goes_up_over_wrapped_lines),
		cmocka_unit_test(exits__codes_states_and_replies__as_documented),
	};

	/* Columns and UTF-8 need a locale; tests must not depend on the caller's. */
	if (!setlocale(LC_ALL, "C.UTF-8"))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
