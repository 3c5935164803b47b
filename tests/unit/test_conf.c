/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/conf.h"

enum colour { RED = 7, BLUE = 9 };

struct sr {
	char name[16];
	char path[64];
	enum colour colour;
};

struct config {
	char host[16];
	uint64_t memory_bytes, grace_ms;
	uint32_t rate_bps, slots;
	bool eager;
	enum colour colour;
	unsigned peer_count;
	char peers[3][16];
	unsigned sr_count;
	struct sr srs[2];
};

static const struct conf_choice colours[] = { { "red", RED }, { "blue", BLUE }, { NULL, 0 } };

static const struct conf_key sr_keys[] = {
	{ .name = "path", .type = CONF_TEXT, CONF_FIELD(struct sr, path), .min = 1, .help = "directory" },
	{ .name = "colour",
	  .type = CONF_CHOICE,
	  CONF_FIELD(struct sr, colour),
	  .fallback = "red",
	  .choices = colours,
	  .help = "paint" },
};

static const struct conf_section section = {
	.name = "sr",
	.keys = sr_keys,
	.key_count = 2,
	.offset = offsetof(struct config, srs),
	.element_bytes = sizeof(struct sr),
	.max_count = 2,
	.count_offset = offsetof(struct config, sr_count),
	.title_offset = offsetof(struct sr, name),
	.title_bytes = sizeof(((struct sr *)0)->name),
	.help = "a storage repository",
};

static const struct conf_key keys[] = {
	{ .name = "host", .type = CONF_TEXT, CONF_FIELD(struct config, host), .min = 1, .help = "name of this host" },
	{ .name = "memory",
	  .type = CONF_SIZE,
	  CONF_FIELD(struct config, memory_bytes),
	  .fallback = "256M",
	  .min = 1 << 20,
	  .max = 1ull << 40,
	  .help = "how much" },
	{ .name = "grace",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct config, grace_ms),
	  .fallback = "15m",
	  .min = 1000,
	  .max = 86400000,
	  .help = "patience" },
	{ .name = "rate",
	  .type = CONF_RATE,
	  CONF_FIELD(struct config, rate_bps),
	  .fallback = "50M/s",
	  .help = "speed" },
	{ .name = "slots",
	  .type = CONF_NUMBER,
	  CONF_FIELD(struct config, slots),
	  .fallback = "4",
	  .min = 1,
	  .max = 64,
	  .help = "at a time" },
	{ .name = "eager", .type = CONF_BOOL, CONF_FIELD(struct config, eager), .fallback = "no", .help = "at once" },
	{ .name = "colour",
	  .type = CONF_CHOICE,
	  CONF_FIELD(struct config, colour),
	  .fallback = "blue",
	  .choices = colours,
	  .help = "paint" },
	{ .name = "peers",
	  .type = CONF_LIST,
	  CONF_FIELD(struct config, peers),
	  CONF_COUNT(struct config, peers, peer_count),
	  .fallback = "x, y",
	  .help = "others" },
};

static const struct conf_table table = { .keys = keys,
	                                 .key_count = sizeof(keys) / sizeof(keys[0]),
	                                 .section = &section };

static struct config good(const char *text)
{
	struct config config = { 0 };
	struct err err = { 0 };
	if (conf_load_text("x.conf", text, &table, &config, &err) < 0)
		fail_msg("%s", err.text);
	return config;
}

/* The text is refused, and the words hold each of the two. */
static void bad(const char *text, const char *words, const char *allowed)
{
	struct config config = { 0 };
	struct err err = { 0 };
	assert_int_equal(conf_load_text("x.conf", text, &table, &config, &err), -1);
	assert_int_equal(err.code, ERR_CONFIG);
	if (!strstr(err.text, words) || !strstr(err.text, allowed))
		fail_msg("'%s' has not both '%s' and '%s'", err.text, words, allowed);
	good("host = after"); /* the parser is not left in a bad state */
}

static void load__only_what_is_required__defaults(void **state)
{
	(void)state;
	struct config c = good("host = a1\n");
	assert_string_equal(c.host, "a1");
	assert_int_equal(c.memory_bytes, 256 << 20);
	assert_int_equal(c.grace_ms, 900000);
	assert_int_equal(c.rate_bps, 50 << 20);
	assert_int_equal(c.slots, 4);
	assert_false(c.eager);
	assert_int_equal(c.colour, BLUE);
	assert_int_equal(c.peer_count, 2);
	assert_string_equal(c.peers[1], "y");
	assert_int_equal(c.sr_count, 0);
}

static void load__everything_set__as_set(void **state)
{
	(void)state;
	struct config c = good(
		"# a comment\nhost = \"b 2\"\nmemory = 10G\ngrace=300s // more\nrate = 1K/s\nslots = 64\neager = on\n"
		"colour = red\npeers = {tcp://[::1]:7, 'n n'}\n"
		"sr fast { path = /srv/fast-1/x.y  colour = blue }\nsr slow {\n path = '/a b'\n}\n");
	assert_string_equal(c.host, "b 2");
	assert_true(c.memory_bytes == 10ull << 30);
	assert_int_equal(c.grace_ms, 300000);
	assert_int_equal(c.rate_bps, 1024);
	assert_int_equal(c.slots, 64);
	assert_true(c.eager);
	assert_int_equal(c.colour, RED);
	assert_int_equal(c.peer_count, 2);
	assert_string_equal(c.peers[1], "n n");
	assert_int_equal(c.sr_count, 2);
	assert_string_equal(c.srs[0].name, "fast");
	assert_string_equal(c.srs[0].path, "/srv/fast-1/x.y");
	assert_int_equal(c.srs[0].colour, BLUE);
	assert_string_equal(c.srs[1].path, "/a b");
	assert_int_equal(c.srs[1].colour, RED);
}

static void load__unquoted_address__whole(void **state)
{
	(void)state;
	assert_string_equal(good("host = tcp:/x:7\n").host, "tcp:/x:7");
	assert_string_equal(good("host = \"tcp://x:7\"\n").host, "tcp://x:7");
}

static void load__unknown_key__file_line_and_allowed(void **state)
{
	(void)state;
	bad("host = a\n\nhots = b\n", "x.conf:3: unknown key 'hots'", "allowed: host, memory");
	bad("host = a\nsr x { path = p\n size = 3 }\n", "x.conf:3: unknown key 'size'", "in section sr: path, colour");
}

static void load__wrong_value__file_line_key_and_allowed(void **state)
{
	(void)state;
	bad("host = a\nslots = 65\n", "x.conf:2: 'slots': '65'", "1 to 64");
	bad("host = a\nslots = -1\n", "x.conf:2: 'slots': '-1'", "digits only");
	bad("host = a\ngrace = 30\n", "x.conf:2: 'grace': '30'", "300ms or 15m");
	bad("host = a\ngrace = 25h\n", "x.conf:2: 'grace': '25h'", "1s to 24h");
	bad("host = a\nmemory = 1K\n", "x.conf:2: 'memory': '1K'", "1M to 1T");
	bad("host = a\nrate = 5G/s\n", "x.conf:2: 'rate': '5G/s'", "at least 0/s");
	bad("host = a\neager = maybe\n", "x.conf:2: 'eager': 'maybe'", "yes, no");
	bad("host = a\ncolour = green\n", "x.conf:2: 'colour': 'green'", "red, blue");
	bad("host = 1234567890123456\n", "x.conf:1: 'host'", "at most 15 bytes");
	bad("host = ''\n", "x.conf:1: 'host'", "1 to 15");
	bad("host = \"a\\nb\"\n", "x.conf:1: 'host'", "control");
	bad("host = a\npeers = {1, 2, 3, 4}\n", "x.conf: 'peers'", "at most 3");
}

static void load__required_key_missing__says_which(void **state)
{
	(void)state;
	bad("", "x.conf: 'host' must be set", "name of this host");
	bad("host = a\nsr x { colour = red }\n", "section sr x", "'path' must be set");
}

static void load__set_twice__refused(void **state)
{
	(void)state;
	bad("host = a\nslots = 3\nhost = b\n", "x.conf:3: 'host' is set already", "line 1");
	bad("host = a\nsr x { path = p path = q }\n", "x.conf:2: 'path' is set already", "line 2");
	bad("host = a\nsr x { path = p }\nsr x { path = q }\n", "x.conf:3: ", "duplicate title 'x'");
	bad("host = a\nsr x { path = p }\nsr y { path = q }\nsr z { path = r }\n", "sr z", "at most 2");
	good("host = a\nsr x { path = p }\nsr y { path = p }\n"); /* same key in two sections is fine */
}

static void load__bad_title__refused(void **state)
{
	(void)state;
	bad("host = a\nsr '../x' { path = p }\n", "'../x' is not a name", "letters");
	bad("host = a\nsr '' { path = p }\n", "'' is not a name", "letters");
}

static void load__broken_syntax__file_and_line(void **state)
{
	(void)state;
	bad("host = a\nslots 3\n", "x.conf:2: ", "missing equal sign");
	bad("host = a\nsr x { path = p", "x.conf:2: section sr x is not closed", "'}' is missing");
	bad("host = a /* b\n", "x.conf:", "a comment is not closed");
	bad("host = \"a\n", "x.conf:", "");
	bad("host = 'a\n", "x.conf:", "");
	bad("host = \"\\999\"\n", "x.conf:1: ", "");
	bad("host = a\n}\n", "x.conf:2: ", "brace");
	bad("include(\"/etc/passwd\")\n", "x.conf:1: ", "unknown key");
}

static void load__missing_file__only_if_allowed(void **state)
{
	(void)state;
	static const struct conf_table bare = { .keys = keys + 1, .key_count = sizeof(keys) / sizeof(keys[0]) - 1 };
	struct config config = { 0 };
	struct err err = { 0 };
	assert_int_equal(conf_load("/nonexistent/x.conf", true, &bare, &config, &err), 0);
	assert_int_equal(config.slots, 4);
	assert_int_equal(conf_load("/nonexistent/x.conf", false, &bare, &config, &err), -1);
	assert_int_equal(err.code, ERR_CONFIG);
	assert_int_equal(conf_load("/", true, &bare, &config, &err), -1);
	assert_int_equal(err.code, ERR_CONFIG);
}

static void load__file__read(void **state)
{
	(void)state;
	char path[] = "/tmp/test_conf_XXXXXX";
	struct config config = { 0 };
	struct err err = { 0 };
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "host = f\nslots = 0\n", 9), 9);
	assert_int_equal(conf_load(path, false, &table, &config, &err), 0);
	assert_string_equal(config.host, "f");
	assert_int_equal(pwrite(fd, "host = f\nslots = 0\n", 19, 0), 19);
	assert_int_equal(conf_load(path, false, &table, &config, &err), -1);
	assert_non_null(strstr(err.text, path));
	assert_non_null(strstr(err.text, ":2: 'slots'"));
	close(fd);
	unlink(path);
}

static void reference__all_kinds__names_defaults_ranges(void **state)
{
	(void)state;
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);
	conf_reference(&table, out);
	fclose(out);
	static const char *const wanted[] = { "host: text; must be set\n    name of this host",
		                              "memory: size, 1M to 1T; default: 256M",
		                              "grace: duration, 1s to 24h; default: 15m",
		                              "slots: number, 1 to 64; default: 4",
		                              "colour: one of red, blue; default: blue",
		                              "sr NAME { ... }, at most 2",
		                              "    path: text; must be set" };
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (!strstr(text, wanted[i]))
			fail_msg("no '%s' in:\n%s", wanted[i], text);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(load__only_what_is_required__defaults),
		cmocka_unit_test(load__everything_set__as_set),
		cmocka_unit_test(load__unquoted_address__whole),
		cmocka_unit_test(load__unknown_key__file_line_and_allowed),
		cmocka_unit_test(load__wrong_value__file_line_key_and_allowed),
		cmocka_unit_test(load__required_key_missing__says_which),
		cmocka_unit_test(load__set_twice__refused),
		cmocka_unit_test(load__bad_title__refused),
		cmocka_unit_test(load__broken_syntax__file_and_line),
		cmocka_unit_test(load__missing_file__only_if_allowed),
		cmocka_unit_test(load__file__read),
		cmocka_unit_test(reference__all_kinds__names_defaults_ranges),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
