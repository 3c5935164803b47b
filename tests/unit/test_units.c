/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/units.h"

typedef int (*parse_fn)(const char *text, uint64_t *ret, struct err *err);

static void good(parse_fn parse, const char *text, uint64_t expected)
{
	uint64_t value = 77;
	struct err err = { 0 };
	if (parse(text, &value, &err) < 0)
		fail_msg("'%s': %s", text, err.text);
	assert_true(value == expected);
}

/* Refused, the value untouched, and the words name what was given and what is allowed. */
static void bad(parse_fn parse, const char *text)
{
	uint64_t value = 77;
	struct err err = { 0 };
	if (parse(text, &value, &err) == 0)
		fail_msg("'%s' was taken", text);
	assert_int_equal(err.code, ERR_USAGE);
	assert_true(value == 77);
	assert_non_null(strstr(err.text, text));
	assert_non_null(strstr(err.text, "allowed"));
	assert_int_equal(parse(text, &value, NULL), -1);
}

static void size__good_values__bytes(void **state)
{
	(void)state;
	good(units_parse_size, "0", 0);
	good(units_parse_size, "512", 512);
	good(units_parse_size, "4K", 4096);
	good(units_parse_size, "256M", 256ull << 20);
	good(units_parse_size, "10G", 10ull << 30);
	good(units_parse_size, "2T", 2ull << 40);
	good(units_parse_size, "9223372036854775807", INT64_MAX);
}

static void size__bad_values__refused(void **state)
{
	(void)state;
	static const char *const texts[] = { "",
		                             "-1",
		                             "+1",
		                             " 1",
		                             "1 ",
		                             "1m",
		                             "1MB",
		                             "1.5G",
		                             "G",
		                             "0x1",
		                             "1K1",
		                             "1M/s",
		                             "inf",
		                             "9223372036854775808",
		                             "18446744073709551616",
		                             "8388608T",
		                             "99999999999999999999G" };
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		bad(units_parse_size, texts[i]);
}

static void rate__values__bytes_a_second(void **state)
{
	(void)state;
	good(units_parse_rate, "50M/s", 50ull << 20);
	good(units_parse_rate, "100/s", 100);
	good(units_parse_rate, "0", 0);
	static const char *const texts[] = { "", "50M", "50M/m", "50M/", "/s", "-1M/s", "50M/sec", "50Mbit/s" };
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		bad(units_parse_rate, texts[i]);
}

static void duration__values__milliseconds(void **state)
{
	(void)state;
	good(units_parse_duration, "300ms", 300);
	good(units_parse_duration, "30s", 30000);
	good(units_parse_duration, "15m", 900000);
	good(units_parse_duration, "24h", 86400000);
	good(units_parse_duration, "0", 0);
	static const char *const texts[] = { "",      "30",   "-30s",
		                             "1m30s", "1.5s", "30 s",
		                             "s",     "2d",   "9223372036854775807s" };
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		bad(units_parse_duration, texts[i]);
}

static void number__values__digits_only(void **state)
{
	(void)state;
	good(units_parse_number, "42", 42);
	bad(units_parse_number, "");
	bad(units_parse_number, "42K");
	bad(units_parse_number, "-1");
}

static void format__sizes_and_rates__rounded(void **state)
{
	(void)state;
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = { { 0, "0 B" },
		      { 1023, "1023 B" },
		      { 1024, "1.0 KiB" },
		      { 1536, "1.5 KiB" },
		      { (1 << 20) - 1, "1.0 MiB" },
		      { 50 << 20, "50.0 MiB" },
		      { 3ull << 29, "1.5 GiB" },
		      { 5ull << 40, "5.0 TiB" },
		      { UINT64_MAX, "16.0 EiB" } };
	char text[UNITS_TEXT], rate[UNITS_TEXT];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		units_format_size(cases[i].bytes, text);
		assert_string_equal(text, cases[i].text);
		units_format_rate(cases[i].bytes, rate);
		assert_int_equal(strncmp(rate, text, strlen(text)), 0);
		assert_string_equal(rate + strlen(text), "/s");
	}
}

static void format__durations__two_units_at_most(void **state)
{
	(void)state;
	static const struct {
		uint64_t ms;
		const char *text;
	} cases[] = { { 0, "0 ms" },        { 240, "240 ms" },     { 999, "999 ms" },
		      { 1000, "1.0s" },     { 4299, "4.2s" },      { 10000, "10s" },
		      { 59999, "59s" },     { 65000, "1m05s" },    { 3599999, "59m59s" },
		      { 7500000, "2h05m" }, { 86400000, "1d00h" }, { UINT64_MAX, "213503982334d14h" } };
	char text[UNITS_TEXT];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		units_format_duration(cases[i].ms, text);
		assert_string_equal(text, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(size__good_values__bytes),
		cmocka_unit_test(size__bad_values__refused),
		cmocka_unit_test(rate__values__bytes_a_second),
		cmocka_unit_test(duration__values__milliseconds),
		cmocka_unit_test(number__values__digits_only),
		cmocka_unit_test(format__sizes_and_rates__rounded),
		cmocka_unit_test(format__durations__two_units_at_most),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
