/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Convergence: after each pass, go on, switch, slow the guest down, or give up? Pure. One budget for memory and all
 * disks over one link: what is left of all of them must go over within the downtime, beside what the switchover costs
 * anyway.
 */
#ifndef DROVER_CONVERGE_H
#define DROVER_CONVERGE_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/msg.h"

#define CONVERGE_SLOW_PASSES 3    /* passes in a row that gained too little: the guest writes faster than the link */
#define CONVERGE_GAIN_PERCENT 10  /* "too little": what is left shrank by less than this */
#define CONVERGE_THROTTLE_STEP 20 /* percent of its speed that a guest loses a step */
#define CONVERGE_THROTTLE_MAX 90
#define CONVERGE_RATE_SHIFT 2 /* weight 1/4 for the newest rate in the moving averages */

struct converge_policy {
	uint32_t max_downtime_ms;
	enum on_slow on_slow;
	uint64_t bandwidth_bps; /* 0: none */
	uint64_t timeout_ms;    /* 0: none */
	uint32_t fixed_ms;      /* what the switchover costs beside the data: suspend, verify, attach, votes */
};

struct converge_state {     /* zero it at the start */
	uint64_t rate_bps;  /* moving average of what went over */
	uint64_t dirty_bps; /* moving average of what the guest wrote */
	uint64_t left_bytes_before;
	uint32_t passes;
	uint32_t slow_passes;
	uint32_t throttle_percent;
};

struct converge_pass { /* one pass over everything, measured */
	uint64_t sent_bytes;
	uint64_t dirtied_bytes; /* written by the guest meanwhile */
	uint64_t left_bytes;    /* to send now, all disks and memory */
	uint64_t took_ms;
	uint64_t elapsed_ms; /* since the copy began */
};

enum converge_decision {
	CONVERGE_GO_ON = 1, /* another pass */
	CONVERGE_SWITCH,    /* the rest fits the downtime */
	CONVERGE_FORCE,     /* it does not fit, policy says switch all the same */
	CONVERGE_THROTTLE,  /* another pass, with throttle_percent taken from the guest's speed */
	CONVERGE_GIVE_UP,   /* policy abort, or the time-out passed */
};

/* Updates *state and decides. Never divides by zero; all sums saturate. */
enum converge_decision converge_after_pass(const struct converge_policy *policy, struct converge_state *state,
                                           const struct converge_pass *pass);

/* What the downtime would be if the VM were suspended now, ms; UINT32_MAX if no rate is known (and something is left).
 */
uint32_t converge_expected_ms(const struct converge_policy *policy, const struct converge_state *state,
                              uint64_t left_bytes);
/* Words with the figures, for events and errors: "writes 60 MiB/s, link 20 MiB/s, 210 MiB left after 9 passes". */
void converge_explain(const struct converge_state *state, uint64_t left_bytes, char *ret_text, unsigned bytes);

#endif
