/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/core/converge.h"

#define MIB (1024ull * 1024)

static struct converge_policy policy_of(enum on_slow on_slow)
{
	return (struct converge_policy) { .max_downtime_ms = 300, .on_slow = on_slow, .fixed_ms = 60 };
}

/* ---- a guest and a link ---- */

struct guest {
	uint64_t total_bytes, writes_bps, link_bps; /* the guest writes all over its total_bytes */
	uint64_t left_bytes, elapsed_ms;
};

static enum converge_decision one_pass(struct guest *guest, const struct converge_policy *policy,
                                       struct converge_state *state)
{
	uint64_t writes = guest->writes_bps * (100 - state->throttle_percent) / 100;
	struct converge_pass pass = { .sent_bytes = guest->left_bytes };
	pass.took_ms = guest->left_bytes * 1000 / guest->link_bps;
	pass.dirtied_bytes = writes * pass.took_ms / 1000;
	if (pass.dirtied_bytes > guest->total_bytes)
		pass.dirtied_bytes = guest->total_bytes;
	pass.left_bytes = guest->left_bytes = pass.dirtied_bytes;
	guest->elapsed_ms += pass.took_ms;
	pass.elapsed_ms = guest->elapsed_ms;
	return converge_after_pass(policy, state, &pass);
}

static enum converge_decision run(struct guest guest, const struct converge_policy *policy, unsigned passes,
                                  struct converge_state *state)
{
	enum converge_decision decision = CONVERGE_GO_ON;
	guest.left_bytes = guest.total_bytes;
	*state = (struct converge_state) { 0 };
	for (unsigned i = 0; i < passes && (decision == CONVERGE_GO_ON || decision == CONVERGE_THROTTLE); i++)
		decision = one_pass(&guest, policy, state);
	return decision;
}

static void slower_guest__any_policy_that_waits__always_switches(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_WAIT);
	for (uint64_t link = 10; link <= 1000; link *= 3) {
		for (uint64_t percent = 0; percent <= 98; percent += 2) {
			struct guest guest = { .total_bytes = 4096 * MIB,
				               .link_bps = link * MIB,
				               .writes_bps = link * MIB * percent / 100 };
			struct converge_state s;
			assert_int_equal(run(guest, &policy, 2000, &s), CONVERGE_SWITCH);
			assert_true(converge_expected_ms(&policy, &s, s.left_bytes_before) <= policy.max_downtime_ms);
		}
	}
}

static void faster_guest__wait__never_switches(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_WAIT);
	for (uint64_t percent = 101; percent <= 500; percent += 21) {
		struct guest guest = { .total_bytes = 4096 * MIB, .link_bps = 100 * MIB, .writes_bps = MIB * percent };
		struct converge_state s;
		assert_int_equal(run(guest, &policy, 2000, &s), CONVERGE_GO_ON);
		assert_int_equal(s.throttle_percent, 0);
	}
}

static void faster_guest__timeout__gives_up(void **state)
{
	(void)state;
	static const enum on_slow policies[] = { ON_SLOW_WAIT, ON_SLOW_THROTTLE };
	for (int i = 0; i < 2; i++) {
		struct converge_policy policy = policy_of(policies[i]);
		policy.timeout_ms = 60000;
		struct guest guest = { .total_bytes = 4096 * MIB, .link_bps = 100 * MIB, .writes_bps = 2000 * MIB };
		struct converge_state s;
		assert_int_equal(run(guest, &policy, 100, &s), CONVERGE_GIVE_UP);
	}
}

static void faster_guest__abort__gives_up_with_figures(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_ABORT);
	struct guest guest = { .total_bytes = 4096 * MIB, .link_bps = 20 * MIB, .writes_bps = 60 * MIB };
	struct converge_state s;
	assert_int_equal(run(guest, &policy, 100, &s), CONVERGE_GIVE_UP);
	assert_int_equal(s.slow_passes, CONVERGE_SLOW_PASSES);
	char text[128];
	s = (struct converge_state) { .dirty_bps = 60 * MIB, .rate_bps = 20 * MIB, .passes = 9 };
	converge_explain(&s, 210 * MIB, text, sizeof(text));
	assert_string_equal(text, "writes 60 MiB/s, link 20 MiB/s, 210 MiB left after 9 passes");
	s.passes = 1;
	s.throttle_percent = 40;
	s.rate_bps = 3 * MIB + MIB / 2;
	s.dirty_bps = 0;
	converge_explain(&s, 17, text, sizeof(text));
	assert_string_equal(text, "writes 0 B/s, link 3.5 MiB/s, 17 B left after 1 pass, guest slowed by 40 %");
	char small[10];
	converge_explain(&s, 17, small, sizeof(small));
	assert_string_equal(small, "writes 0 ");
	converge_explain(&s, UINT64_MAX, small, 0);
}

static void faster_guest__force__forces(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_FORCE);
	struct guest guest = { .total_bytes = 4096 * MIB, .link_bps = 20 * MIB, .writes_bps = 60 * MIB };
	struct converge_state s;
	assert_int_equal(run(guest, &policy, 100, &s), CONVERGE_FORCE);
}

static void faster_guest__throttle__slows_it_down_until_it_fits(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_THROTTLE);
	struct guest guest = { .total_bytes = 4096 * MIB, .link_bps = 100 * MIB, .writes_bps = 200 * MIB };
	struct converge_state s;
	assert_int_equal(run(guest, &policy, 200, &s), CONVERGE_SWITCH);
	assert_true(s.throttle_percent > 50 && s.throttle_percent <= CONVERGE_THROTTLE_MAX);
}

static void faster_guest__throttled_to_the_limit__forces(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_THROTTLE);
	struct guest guest = { .total_bytes = 4096 * MIB, .link_bps = 10 * MIB, .writes_bps = 2000 * MIB };
	struct converge_state s;
	assert_int_equal(run(guest, &policy, 200, &s), CONVERGE_FORCE);
	assert_int_equal(s.throttle_percent, CONVERGE_THROTTLE_MAX);
}

static void slow__fewer_passes_than_needed__is_not_slow(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_ABORT);
	struct converge_state s = { 0 };
	struct converge_pass pass = { .sent_bytes = 100 * MIB, .took_ms = 1000, .left_bytes = 1000 * MIB };
	assert_int_equal(converge_after_pass(&policy, &s, &pass), CONVERGE_GO_ON); /* nothing to compare with */
	for (int i = 1; i < CONVERGE_SLOW_PASSES; i++)
		assert_int_equal(converge_after_pass(&policy, &s, &pass), CONVERGE_GO_ON);
	pass.left_bytes = 890 * MIB; /* gained enough: counted from the start again */
	assert_int_equal(converge_after_pass(&policy, &s, &pass), CONVERGE_GO_ON);
	assert_int_equal(s.slow_passes, 0);
	for (int i = 1; i < CONVERGE_SLOW_PASSES; i++)
		assert_int_equal(converge_after_pass(&policy, &s, &pass), CONVERGE_GO_ON);
	assert_int_equal(converge_after_pass(&policy, &s, &pass), CONVERGE_GIVE_UP);
}

static void timeout__even_if_it_fits__gives_up(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_WAIT);
	policy.timeout_ms = 1000;
	struct converge_state s = { 0 };
	struct converge_pass pass = { .sent_bytes = MIB, .took_ms = 1, .left_bytes = 0, .elapsed_ms = 1000 };
	assert_int_equal(converge_after_pass(&policy, &s, &pass), CONVERGE_GIVE_UP);
	pass.elapsed_ms = 999;
	assert_int_equal(converge_after_pass(&policy, &s, &pass), CONVERGE_SWITCH);
}

static void expected__no_rate__is_unknown_unless_nothing_is_left(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_WAIT);
	struct converge_state s = { 0 };
	assert_int_equal(converge_expected_ms(&policy, &s, 1), UINT32_MAX);
	assert_int_equal(converge_expected_ms(&policy, &s, 0), policy.fixed_ms);
	s.rate_bps = 100 * MIB;
	assert_in_range(converge_expected_ms(&policy, &s, 10 * MIB), 160, 161);
	s.rate_bps = 1;
	assert_int_equal(converge_expected_ms(&policy, &s, UINT64_MAX), UINT32_MAX);
}

static void extremes__any_figures__never_divide_by_zero_and_saturate(void **state)
{
	(void)state;
	static const uint64_t values[] = { 0, 1, 999, 1000, MIB, UINT64_MAX / 1000, UINT64_MAX - 1, UINT64_MAX };
	enum { N = sizeof(values) / sizeof(values[0]) };
	for (unsigned n = 0; n < N * N * N * N * N; n++) {
		struct converge_policy policy = { .max_downtime_ms = (uint32_t)values[n % N],
			                          .fixed_ms = UINT32_MAX,
			                          .on_slow = (enum on_slow)(n % 6),
			                          .timeout_ms = values[n / N % N] };
		struct converge_state s = { .rate_bps = values[n / N % N],
			                    .dirty_bps = values[n % N],
			                    .passes = UINT32_MAX,
			                    .slow_passes = UINT32_MAX,
			                    .left_bytes_before = values[n / N / N % N],
			                    .throttle_percent = (uint32_t)(n % 101) };
		struct converge_pass pass = { .sent_bytes = values[n / N / N % N],
			                      .took_ms = values[n / N / N / N % N],
			                      .dirtied_bytes = values[n / N / N / N / N % N],
			                      .left_bytes = values[n % N],
			                      .elapsed_ms = values[(n + 3) % N] };
		enum converge_decision decision = converge_after_pass(&policy, &s, &pass);
		assert_true(decision >= CONVERGE_GO_ON && decision <= CONVERGE_GIVE_UP);
		assert_true(s.throttle_percent <= 100);
		assert_int_equal(s.passes, UINT32_MAX);
	}
	struct converge_state s = { 0 };
	struct converge_policy policy = policy_of(ON_SLOW_WAIT);
	struct converge_pass pass = { .sent_bytes = UINT64_MAX, .took_ms = 1, .dirtied_bytes = UINT64_MAX };
	(void)converge_after_pass(&policy, &s, &pass);
	assert_true(s.rate_bps == UINT64_MAX && s.dirty_bps == UINT64_MAX);
}

static void average__steady_rate__comes_to_it(void **state)
{
	(void)state;
	struct converge_policy policy = policy_of(ON_SLOW_WAIT);
	struct converge_state s = { .rate_bps = 10 * MIB, .passes = 1 };
	struct converge_pass pass = { .sent_bytes = 100 * MIB, .took_ms = 1000, .left_bytes = 4096 * MIB };
	uint64_t before = s.rate_bps;
	for (int i = 0; i < 40; i++) {
		(void)converge_after_pass(&policy, &s, &pass);
		assert_true(s.rate_bps >= before && s.rate_bps <= 100 * MIB);
		before = s.rate_bps;
	}
	assert_true(s.rate_bps > 99 * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slower_guest__any_policy_that_waits__always_switches),
		cmocka_unit_test(faster_guest__wait__never_switches),
		cmocka_unit_test(faster_guest__timeout__gives_up),
		cmocka_unit_test(faster_guest__abort__gives_up_with_figures),
		cmocka_unit_test(faster_guest__force__forces),
		cmocka_unit_test(faster_guest__throttle__slows_it_down_until_it_fits),
		cmocka_unit_test(faster_guest__throttled_to_the_limit__forces),
		cmocka_unit_test(slow__fewer_passes_than_needed__is_not_slow),
		cmocka_unit_test(timeout__even_if_it_fits__gives_up),
		cmocka_unit_test(expected__no_rate__is_unknown_unless_nothing_is_left),
		cmocka_unit_test(extremes__any_figures__never_divide_by_zero_and_saturate),
		cmocka_unit_test(average__steady_rate__comes_to_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
