/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/core/admission.h"

static struct admission_entry queued(uint64_t id, uint32_t vm, uint32_t source, uint32_t destination)
{
	return (struct admission_entry) {
		.id = id, .vm = vm, .source = source, .destination = destination, .startable = true
	};
}

static void no_limits__all_start(void **state)
{
	(void)state;
	struct admission_limits limits = { 0 };
	struct admission_entry list[] = { queued(1, 1, 1, 2), queued(2, 2, 1, 2), queued(3, 3, 1, 2) };
	admission_decide(&limits, list, 3);
	for (int i = 0; i < 3; i++)
		assert_true(list[i].start);
}

static void same_vm__only_one_starts(void **state)
{
	(void)state;
	struct admission_limits limits = { 0 };
	struct admission_entry list[] = { queued(2, 1, 1, 2), queued(1, 1, 1, 3) };
	admission_decide(&limits, list, 2);
	assert_false(list[0].start);
	assert_true(list[1].start);
}

static void per_source__oldest_first(void **state)
{
	(void)state;
	struct admission_limits limits = { .per_source = 1 };
	struct admission_entry list[] = { queued(5, 5, 1, 2), queued(3, 3, 1, 3), queued(4, 4, 2, 3) };
	admission_decide(&limits, list, 3);
	assert_false(list[0].start);
	assert_true(list[1].start);
	assert_true(list[2].start);
}

static void priority__goes_before_age(void **state)
{
	(void)state;
	struct admission_limits limits = { .total = 1 };
	struct admission_entry list[] = { queued(1, 1, 1, 2), queued(2, 2, 3, 4) };
	list[1].priority = 1;
	admission_decide(&limits, list, 2);
	assert_false(list[0].start);
	assert_true(list[1].start);
}

static void active_ones__count_and_are_not_started_again(void **state)
{
	(void)state;
	struct admission_limits limits = { .per_destination = 2 };
	struct admission_entry list[] = { queued(1, 1, 1, 9), queued(2, 2, 2, 9), queued(3, 3, 3, 9) };
	list[0].active = true;
	admission_decide(&limits, list, 3);
	assert_false(list[0].start);
	assert_true(list[1].start);
	assert_false(list[2].start);
}

static void host_missing__waits_without_holding_up_others(void **state)
{
	(void)state;
	struct admission_limits limits = { .total = 1 };
	struct admission_entry list[] = { queued(1, 1, 1, 2), queued(2, 2, 1, 2) };
	list[0].startable = false;
	admission_decide(&limits, list, 2);
	assert_false(list[0].start);
	assert_true(list[1].start);
}

/* Whatever the list: the limits hold, and nothing waits that would fit. */
static void random_lists__limits_hold_and_nothing_idles(void **state)
{
	(void)state;
	uint64_t seed = 42;
	for (int round = 0; round < 500; round++) {
		struct admission_entry list[40];
		struct admission_limits limits = { .total = 12, .per_source = 3, .per_destination = 2 };
		for (size_t i = 0; i < 40; i++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			list[i] = queued(i + 1, (uint32_t)(seed >> 33) % 30, (uint32_t)(seed >> 40) % 6,
			                 (uint32_t)(seed >> 45) % 6);
			list[i].priority = (int32_t)(seed >> 50) % 3;
		}
		admission_decide(&limits, list, 40);
		unsigned total = 0, source[6] = { 0 }, destination[6] = { 0 }, vm[30] = { 0 };
		for (size_t i = 0; i < 40; i++) {
			if (!list[i].start)
				continue;
			total++;
			source[list[i].source]++;
			destination[list[i].destination]++;
			assert_true(++vm[list[i].vm] == 1);
		}
		assert_true(total <= 12);
		for (size_t i = 0; i < 6; i++) {
			assert_true(source[i] <= 3);
			assert_true(destination[i] <= 2);
		}
		for (size_t i = 0; i < 40; i++)
			if (!list[i].start)
				assert_true(total == 12 || source[list[i].source] == 3 ||
				            destination[list[i].destination] == 2 || vm[list[i].vm] == 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_limits__all_start),
		cmocka_unit_test(same_vm__only_one_starts),
		cmocka_unit_test(per_source__oldest_first),
		cmocka_unit_test(priority__goes_before_age),
		cmocka_unit_test(active_ones__count_and_are_not_started_again),
		cmocka_unit_test(host_missing__waits_without_holding_up_others),
		cmocka_unit_test(random_lists__limits_hold_and_nothing_idles),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
