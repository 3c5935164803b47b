/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any bytes as a frame, a plan, an inventory and holdings: they are refused with words, or what comes out can be
 * encoded, decoded and encoded again to the same bytes. Anything else aborts, for the fuzzer to see.
 */
#include "proto/msg.h"
#include "tests/fuzz/fuzz_main.h"

static void try_frame(const uint8_t *data, size_t bytes)
{
	struct msg msg, again;
	struct err err = { 0 };
	void *one, *two;
	size_t one_bytes, two_bytes;
	if (msg_decode(data, bytes, &msg, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	fuzz_must(msg_encode(&msg, &one, &one_bytes, &err) == 0, "decoded, but cannot be encoded", &err);
	fuzz_must(msg_decode(one, one_bytes, &again, &err) == 0, "encoded, but cannot be decoded", &err);
	fuzz_must(msg.kind == again.kind, "another kind", &err);
	fuzz_must(msg_encode(&again, &two, &two_bytes, &err) == 0, "decoded again, but cannot be encoded", &err);
	fuzz_must(one_bytes == two_bytes && memcmp(one, two, one_bytes) == 0, "other bytes the second time", &err);
	free(one);
	free(two);
	msg_free(&msg);
	msg_free(&again);
}

static void try_plan(const uint8_t *data, size_t bytes)
{
	struct msg_plan plan, again;
	struct err err = { 0 };
	void *one;
	size_t one_bytes;
	if (msg_plan_decode(data, bytes, &plan, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	fuzz_must(msg_plan_encode(&plan, &one, &one_bytes, &err) == 0, "plan cannot be encoded", &err);
	fuzz_must(msg_plan_decode(one, one_bytes, &again, &err) == 0, "plan cannot be decoded", &err);
	fuzz_must(memcmp(&plan, &again, sizeof(plan)) == 0, "another plan", &err);
	free(one);
}

static void try_inventory(const uint8_t *data, size_t bytes)
{
	struct msg_inventory inv, again;
	struct err err = { 0 };
	void *one;
	size_t one_bytes;
	if (msg_inventory_decode(data, bytes, &inv, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	fuzz_must(msg_inventory_encode(&inv, &one, &one_bytes, &err) == 0, "inventory cannot be encoded", &err);
	fuzz_must(msg_inventory_decode(one, one_bytes, &again, &err) == 0, "inventory cannot be decoded", &err);
	fuzz_must(msg_inventory_digest(&inv) == msg_inventory_digest(&again), "another digest", &err);
	fuzz_must(inv.digest == again.digest && inv.vm_count == again.vm_count, "another inventory", &err);
	free(one);
	msg_inventory_free(&inv);
	msg_inventory_free(&again);
}

static void try_holdings(const uint8_t *data, size_t bytes)
{
	struct msg_holdings holdings, again;
	struct err err = { 0 };
	void *one;
	size_t one_bytes;
	if (msg_holdings_decode(data, bytes, &holdings, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	fuzz_must(msg_holdings_encode(&holdings, &one, &one_bytes, &err) == 0, "holdings cannot be encoded", &err);
	fuzz_must(msg_holdings_decode(one, one_bytes, &again, &err) == 0, "holdings cannot be decoded", &err);
	fuzz_must(holdings.count == again.count && holdings.cut == again.cut, "other holdings", &err);
	free(one);
	msg_holdings_free(&holdings);
	msg_holdings_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	try_frame(data, bytes);
	try_plan(data, bytes);
	try_inventory(data, bytes);
	try_holdings(data, bytes);
	return 0;
}
