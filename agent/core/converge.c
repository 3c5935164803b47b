/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/core/converge.h"

#include <stddef.h>

static uint64_t add_saturating(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* value * by / over without overflow on the way; `over` is not 0. */
static uint64_t scale(uint64_t value, uint64_t by, uint64_t over)
{
	uint64_t whole = value / over, rest = value % over;
	uint64_t high = by != 0 && whole > UINT64_MAX / by ? UINT64_MAX : whole * by;
	/* rest < over; where rest * by would overflow, precision is given up */
	uint64_t low = by != 0 && rest > UINT64_MAX / by ? rest / (over / by ? over / by : 1) : rest * by / over;
	return add_saturating(high, low);
}

static uint64_t per_second(uint64_t bytes, uint64_t took_ms)
{
	return scale(bytes, 1000, took_ms ? took_ms : 1);
}

static uint64_t moved(uint64_t average, uint64_t sample)
{
	if (sample >= average)
		return average + ((sample - average) >> CONVERGE_RATE_SHIFT);
	return average - ((average - sample) >> CONVERGE_RATE_SHIFT);
}

uint32_t converge_expected_ms(const struct converge_policy *policy, const struct converge_state *state,
                              uint64_t left_bytes)
{
	uint64_t data_ms = 0;
	if (left_bytes > 0) {
		if (state->rate_bps == 0)
			return UINT32_MAX;
		data_ms = add_saturating(scale(left_bytes, 1000, state->rate_bps), 1); /* rounded up */
	}
	uint64_t all_ms = add_saturating(data_ms, policy->fixed_ms);
	return all_ms < UINT32_MAX ? (uint32_t)all_ms : UINT32_MAX;
}

static void measure(struct converge_state *state, const struct converge_pass *pass)
{
	bool first = state->passes == 0;
	if (pass->sent_bytes > 0) { /* a pass with nothing to send says nothing about the link */
		uint64_t rate = per_second(pass->sent_bytes, pass->took_ms);
		state->rate_bps = state->rate_bps == 0 ? rate : moved(state->rate_bps, rate);
	}
	uint64_t dirty = per_second(pass->dirtied_bytes, pass->took_ms);
	state->dirty_bps = first ? dirty : moved(state->dirty_bps, dirty);
	if (state->passes < UINT32_MAX)
		state->passes++;
}

/* Whether too many passes in a row gained too little. */
static bool is_slow(struct converge_state *state, uint64_t left_bytes)
{
	uint64_t before = state->left_bytes_before;
	uint64_t gain = before / 100 * CONVERGE_GAIN_PERCENT + before % 100 * CONVERGE_GAIN_PERCENT / 100;
	if (state->passes > 1 && left_bytes > before - gain) {
		if (state->slow_passes < UINT32_MAX)
			state->slow_passes++;
	} else {
		state->slow_passes = 0;
	}
	return state->slow_passes >= CONVERGE_SLOW_PASSES;
}

static enum converge_decision slow_decision(const struct converge_policy *policy, struct converge_state *state)
{
	switch (policy->on_slow) {
	case ON_SLOW_THROTTLE:
		if (state->throttle_percent >= CONVERGE_THROTTLE_MAX)
			return CONVERGE_FORCE;
		state->throttle_percent += CONVERGE_THROTTLE_STEP;
		if (state->throttle_percent > CONVERGE_THROTTLE_MAX)
			state->throttle_percent = CONVERGE_THROTTLE_MAX;
		state->slow_passes = 0; /* the slower guest gets its own chance */
		return CONVERGE_THROTTLE;
	case ON_SLOW_FORCE:
		return CONVERGE_FORCE;
	case ON_SLOW_ABORT:
		return CONVERGE_GIVE_UP;
	case ON_SLOW_WAIT:
		break;
	}
	return CONVERGE_GO_ON;
}

enum converge_decision converge_after_pass(const struct converge_policy *policy, struct converge_state *state,
                                           const struct converge_pass *pass)
{
	measure(state, pass);
	bool fits = converge_expected_ms(policy, state, pass->left_bytes) <= policy->max_downtime_ms;
	bool slow = is_slow(state, pass->left_bytes);
	state->left_bytes_before = pass->left_bytes;
	if (fits)
		state->slow_passes = 0;
	if (policy->timeout_ms != 0 && pass->elapsed_ms >= policy->timeout_ms)
		return CONVERGE_GIVE_UP;
	if (fits)
		return CONVERGE_SWITCH;
	return slow ? slow_decision(policy, state) : CONVERGE_GO_ON;
}

/* ---- words; no stdio in a core ---- */

struct words {
	char *text;
	unsigned at, bytes;
};

static void put(struct words *words, const char *text)
{
	while (*text && words->at + 1 < words->bytes)
		words->text[words->at++] = *text++;
	if (words->bytes > 0)
		words->text[words->at] = '\0';
}

static void put_number(struct words *words, uint64_t number)
{
	char digits[24];
	unsigned at = sizeof(digits) - 1;
	digits[at] = '\0';
	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	put(words, digits + at);
}

/* At least two significant digits, rounded down: "3.4 MiB", "210 MiB". */
static void put_size(struct words *words, uint64_t bytes)
{
	static const char *const units[] = { " B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB" };
	unsigned unit = 0;
	uint64_t rest = 0;
	while (bytes >= 1024) {
		rest = bytes % 1024;
		bytes /= 1024;
		unit++;
	}
	put_number(words, bytes);
	if (unit > 0 && bytes < 10) {
		put(words, ".");
		put_number(words, rest * 10 / 1024);
	}
	put(words, units[unit]);
}

void converge_explain(const struct converge_state *state, uint64_t left_bytes, char *ret_text, unsigned bytes)
{
	struct words words = { .text = ret_text, .bytes = bytes };
	put(&words, "writes ");
	put_size(&words, state->dirty_bps);
	put(&words, "/s, link ");
	put_size(&words, state->rate_bps);
	put(&words, "/s, ");
	put_size(&words, left_bytes);
	put(&words, " left after ");
	put_number(&words, state->passes);
	put(&words, state->passes == 1 ? " pass" : " passes");
	if (state->throttle_percent > 0) {
		put(&words, ", guest slowed by ");
		put_number(&words, state->throttle_percent);
		put(&words, " %");
	}
}
