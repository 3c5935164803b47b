/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen, the parts that need no Xen: its stream, its records, the CPU's features, what its helper says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/hypervisor/xen_cpu.h"
#include "agent/hypervisor/xen_record.h"
#include "agent/hypervisor/xen_stream.h"
#include "agent/hypervisor/xen_wire.h"

/* ---- stream ---- */
static void frame__every_kind__comes_back_as_it_went(void **state)
{
	(void)state;
	const struct xen_stream_frame frames[] = {
		{ XEN_STREAM_HEAD, 77, XEN_STREAM_VERSION },
		{ XEN_STREAM_DATA, XEN_STREAM_DATA_MAX, 0 },
		{ XEN_STREAM_END, XEN_STREAM_TAIL_BYTES, UINT64_C(0x1122334455667788) },
	};
	for (size_t i = 0; i < 3; i++) {
		unsigned char bytes[XEN_STREAM_FRAME_BYTES];
		struct xen_stream_frame got;
		struct err err = { 0 };
		xen_stream_put(bytes, &frames[i]);
		assert_int_equal(xen_stream_get(bytes, i == 0, &got, &err), 0);
		assert_int_equal(got.kind, frames[i].kind);
		assert_int_equal(got.bytes, frames[i].bytes);
		assert_true(got.value == frames[i].value);
	}
}

static void refused(enum xen_stream_kind kind, uint32_t bytes, uint64_t value, bool first, enum err_code code)
{
	const struct xen_stream_frame frame = { kind, bytes, value };
	unsigned char raw[XEN_STREAM_FRAME_BYTES];
	struct xen_stream_frame got;
	struct err err = { 0 };
	xen_stream_put(raw, &frame);
	assert_int_equal(xen_stream_get(raw, first, &got, &err), -1);
	assert_int_equal(err.code, code);
}

static void frame__bad_kind_place_or_length__refused(void **state)
{
	(void)state;
	refused(XEN_STREAM_DATA, 8, 0, true, ERR_PROTOCOL);
	refused(XEN_STREAM_HEAD, 8, XEN_STREAM_VERSION, false, ERR_PROTOCOL);
	refused(XEN_STREAM_HEAD, 8, XEN_STREAM_VERSION + 1, true, ERR_VERSION);
	refused(XEN_STREAM_HEAD, 0, XEN_STREAM_VERSION, true, ERR_PROTOCOL);
	refused(XEN_STREAM_HEAD, XEN_STREAM_TEXT_MAX + 1, XEN_STREAM_VERSION, true, ERR_PROTOCOL);
	refused(XEN_STREAM_DATA, 0, 0, false, ERR_PROTOCOL);
	refused(XEN_STREAM_DATA, XEN_STREAM_DATA_MAX + 1, 0, false, ERR_PROTOCOL);
	refused(XEN_STREAM_DATA, 8, 1, false, ERR_PROTOCOL);
	refused(XEN_STREAM_END, XEN_STREAM_TAIL_BYTES - 1, 0, false, ERR_PROTOCOL);
	refused((enum xen_stream_kind)0, 8, 0, false, ERR_PROTOCOL);
	refused((enum xen_stream_kind)4, 8, 0, false, ERR_PROTOCOL);
}

/* Whatever the pieces: what went and what is held are the stream, and never more than the tail is held. */
static void tail__any_pieces__last_bytes_are_held(void **state)
{
	(void)state;
	unsigned char all[200], got[200], out[200];
	for (unsigned i = 0; i < sizeof(all); i++)
		all[i] = (unsigned char)(i * 7 + 1);
	for (size_t step = 1; step <= 40; step++)
		for (size_t length = 0; length <= sizeof(all); length++) {
			struct xen_tail tail = { 0 };
			size_t gone = 0;
			for (size_t at = 0; at < length; at += step) {
				size_t count = step < length - at ? step : length - at;
				size_t go = xen_tail_push(&tail, all + at, count, out);
				assert_true(go <= count);
				memcpy(got + gone, out, go);
				gone += go;
			}
			size_t held = length < XEN_STREAM_TAIL_BYTES ? length : XEN_STREAM_TAIL_BYTES;
			assert_int_equal(tail.count, held);
			assert_int_equal(gone, length - held);
			assert_memory_equal(got, all, gone);
			assert_memory_equal(tail.held, all + gone, held);
		}
}

static void poison__is_no_record_of_libxl(void **state)
{
	(void)state;
	unsigned char bytes[64];
	uint32_t type;
	xen_stream_poison(bytes, sizeof(bytes));
	for (unsigned at = 0; at + 4 <= sizeof(bytes); at++) {
		memcpy(&type, bytes + at, sizeof(type));
		assert_true(type != 0 && (type & 0x80000000u) != 0); /* mandatory, and none that exists */
	}
}

/* ---- records ---- */
struct home {
	struct paths paths;
	struct xen_record record;
};

static int make_home(void **state)
{
	struct home *home = calloc(1, sizeof(*home));
	snprintf(home->paths.lib, sizeof(home->paths.lib), "/tmp/drover-xen-XXXXXX");
	if (home == NULL || mkdtemp(home->paths.lib) == NULL)
		return -1;
	home->record = (struct xen_record) { .state = XEN_INCOMING,
		                             .name = "web \"1\"",
		                             .migration = 17,
		                             .memory_bytes = UINT64_C(5) << 30,
		                             .disk_count = 2 };
	memset(home->record.uuid, 0xa5, sizeof(home->record.uuid));
	home->record.disks[0] = (struct hypervisor_image) { "xvda", "local", "/srv/a.raw", FORMAT_RAW, 4096 };
	home->record.disks[1] = (struct hypervisor_image) { "xvdb", "local", "", FORMAT_QCOW2, 8192 };
	*state = home;
	return 0;
}

static int drop_home(void **state)
{
	struct home *home = *state;
	char command[PATHS_MAX + 16];
	snprintf(command, sizeof(command), "rm -rf %s", home->paths.lib);
	int rc = system(command);
	free(home);
	return rc;
}

static void record__saved__is_found_whole(void **state)
{
	struct home *home = *state;
	struct xen_record got, *list;
	struct err err = { 0 };
	size_t count;
	assert_int_equal(xen_record_seek(&home->paths, home->record.uuid, &got, &err), 0);
	assert_int_equal(xen_record_save(&home->paths, &home->record, &err), 0);
	assert_int_equal(xen_record_seek(&home->paths, home->record.uuid, &got, &err), 1);
	assert_memory_equal(&got, &home->record, sizeof(got));
	assert_int_equal(xen_record_list(&home->paths, &list, &count, &err), 0);
	assert_int_equal(count, 1);
	assert_memory_equal(list, &home->record, sizeof(*list));
	free(list);
	assert_int_equal(xen_record_remove(&home->paths, home->record.uuid, &err), 0);
	assert_int_equal(xen_record_remove(&home->paths, home->record.uuid, &err), 0);
	assert_int_equal(xen_record_seek(&home->paths, home->record.uuid, &got, &err), 0);
}

static void record__marked__changes_its_state_and_nothing_else(void **state)
{
	struct home *home = *state;
	struct xen_record got;
	struct err err = { 0 };
	assert_int_equal(xen_record_mark(&home->paths, home->record.uuid, XEN_BUILT, false, &err), -1);
	assert_int_equal(xen_record_save(&home->paths, &home->record, &err), 0);
	for (enum xen_state to = XEN_INCOMING; to <= XEN_LEAVING; to++) {
		assert_int_equal(xen_record_mark(&home->paths, home->record.uuid, to, to == XEN_RUNNING, &err), 0);
		assert_int_equal(xen_record_seek(&home->paths, home->record.uuid, &got, &err), 1);
		assert_int_equal(got.state, to);
		got.state = home->record.state;
		assert_memory_equal(&got, &home->record, sizeof(got));
	}
}

static void record__damaged__fails_and_is_not_taken_for_none(void **state)
{
	struct home *home = *state;
	struct xen_record got, *list;
	struct err err = { 0 };
	size_t count;
	char file[PATHS_MAX + 64];
	assert_int_equal(xen_record_save(&home->paths, &home->record, &err), 0);
	snprintf(file, sizeof(file), "%s/xen/a5a5a5a5-a5a5-a5a5-a5a5-a5a5a5a5a5a5.vm", home->paths.lib);
	assert_int_equal(truncate(file, 40), 0);
	assert_int_equal(xen_record_seek(&home->paths, home->record.uuid, &got, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
	assert_int_equal(xen_record_list(&home->paths, &list, &count, &err), -1);
}

/* ---- CPU ---- */
static void cpu__features_that_the_host_lacks__do_not_fit(void **state)
{
	(void)state;
	uint32_t vm[XEN_CPU_WORDS] = { 0 }, host[20] = { 0 }, bits = 0;
	unsigned word = 99;
	const struct xen_cpu_leaf avx512 = { .leaf = 7, .subleaf = 0, .b = 1u << 16 };
	xen_cpu_add(vm, &avx512);
	assert_int_equal(vm[5], 1u << 16);
	assert_false(xen_cpu_fits(vm, host, 20, &word, &bits));
	assert_int_equal(word, 5);
	assert_int_equal(bits, 1u << 16);
	host[5] = UINT32_MAX;
	assert_true(xen_cpu_fits(vm, host, 20, &word, &bits));
	assert_false(xen_cpu_fits(vm, host, 5, &word, &bits)); /* a host that does not know the word */
}

/* An AMD guest is told its common features twice, and what its kernel has switched on. */
static void cpu__bits_that_are_no_features__do_not_count(void **state)
{
	(void)state;
	uint32_t vm[XEN_CPU_WORDS] = { 0 }, host[20] = { 0 }, bits = 0;
	unsigned word = 99;
	const struct xen_cpu_leaf leaves[] = {
		{ .leaf = 1, .subleaf = UINT32_MAX, .c = 1u << 31 | 1u << 27, .d = 1u << 28 },
		{ .leaf = 0x80000001, .subleaf = UINT32_MAX, .d = 0x0183f3fd },
	};
	xen_cpu_add(vm, &leaves[0]);
	xen_cpu_add(vm, &leaves[1]);
	assert_true(xen_cpu_fits(vm, host, 20, &word, &bits));
	vm[2] |= 1u << 29; /* long mode is one */
	assert_false(xen_cpu_fits(vm, host, 20, &word, &bits));
	assert_int_equal(word, 2);
}

/* ---- the helper's words ---- */
static bool parses(const char *receive, const char *domid, const char *callbacks, const char *type)
{
	char *argv[] = { "helper",          "--save-domain", "25", (char *)receive, (char *)domid, "1",
		         (char *)callbacks, (char *)type,    NULL };
	struct xen_wire_args args;
	const char *why = NULL;
	bool good = xen_wire_parse(8, argv, &args, &why);
	assert_true(!good || (args.io_fd == 25 && args.flags == 1));
	return good;
}

static void helper__call_of_libxl__understood(void **state)
{
	(void)state;
	assert_true(parses("14", "1", "136", "0"));
	assert_true(parses("-1", "1", "8", "0")); /* no screen to be told of */
}

static void helper__call_that_it_does_not_know__refused(void **state)
{
	(void)state;
	char *restore[] = { "helper", "--restore-domain", "1", "2", "3", "4", "5", "6", NULL };
	struct xen_wire_args args;
	const char *why;
	assert_false(parses("14", "1", "392", "0")); /* one callback more */
	assert_false(parses("14", "1", "128", "0")); /* none to suspend */
	assert_false(parses("14", "1", "136", "1")); /* a checkpointed stream */
	assert_false(parses("14", "0", "136", "0")); /* dom0 */
	assert_false(parses("14", "x", "136", "0"));
	assert_false(xen_wire_parse(8, restore, &args, &why));
	assert_false(xen_wire_parse(1, restore, &args, &why));
}

static void wire__log__is_packed_as_libxl_reads_it(void **state)
{
	(void)state;
	int fds[2];
	unsigned char got[64];
	static const unsigned char wanted[] = { 24, 0, 1, 0,   9,   0, 0, 0, 2, 0, 0,   0, 3,
		                                0,  0, 0, 'x', 'c', 0, 2, 0, 0, 0, 'a', 0 };
	assert_int_equal(pipe(fds), 0);
	struct xen_wire wire = { -1, fds[1], false };
	xen_wire_log(&wire, 9, 2, "xc", "a");
	assert_int_equal(read(fds[0], got, sizeof(got)), sizeof(wanted));
	assert_int_equal(got[0], sizeof(wanted) - 2);
	assert_memory_equal(got + 2, wanted + 2, sizeof(wanted) - 2);
	close(fds[0]);
	close(fds[1]);
}

static void wire__words_without_end__are_cut(void **state)
{
	(void)state;
	int fds[2];
	uint16_t bytes;
	char *words = malloc(100000);
	memset(words, 'w', 99999);
	words[99999] = '\0';
	assert_int_equal(pipe(fds), 0);
	struct xen_wire wire = { -1, fds[1], false };
	xen_wire_log(&wire, 9, 0, NULL, words);
	assert_int_equal(read(fds[0], &bytes, sizeof(bytes)), sizeof(bytes));
	assert_true(bytes <= XEN_WIRE_MESSAGE_BYTES);
	free(words);
	close(fds[0]);
	close(fds[1]);
}

static void wire__libxl_gone__is_said(void **state)
{
	(void)state;
	int in[2], out[2], answer;
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	close(in[1]);
	struct xen_wire wire = { in[0], out[1], false };
	assert_int_equal(xen_wire_call(&wire, XEN_WIRE_SUSPEND, NULL, 0, &answer), -1);
	assert_true(wire.lost);
	close(in[0]);
	close(out[0]);
	close(out[1]);
}

static void policy__leg_is_asked_between_rounds_only(void **state)
{
	(void)state;
	assert_false(xen_policy_asks_leg(0, 1044480)); /* before anything is sent */
	assert_true(xen_policy_asks_leg(1, -1));
	assert_false(xen_policy_asks_leg(1, 515)); /* a stop here would send these first, live */
	assert_true(xen_policy_asks_leg(2, -1));
}

static void policy__packet_of_another_version__refused(void **state)
{
	(void)state;
	int fds[2];
	struct xen_policy_packet packet = { .version = XEN_POLICY_VERSION, .kind = XEN_POLICY_HELLO, .pid = 7 }, got;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	assert_int_equal(xen_policy_send(fds[0], &packet), 0);
	assert_int_equal(xen_policy_receive(fds[1], &got), 0);
	assert_int_equal(got.pid, 7);
	packet.version++;
	assert_int_equal(xen_policy_send(fds[0], &packet), 0);
	assert_int_equal(xen_policy_receive(fds[1], &got), -1);
	close(fds[0]);
	assert_int_equal(xen_policy_receive(fds[1], &got), -1);
	assert_int_equal(xen_policy_send(fds[1], &packet), -1);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frame__every_kind__comes_back_as_it_went),
		cmocka_unit_test(frame__bad_kind_place_or_length__refused),
		cmocka_unit_test(tail__any_pieces__last_bytes_are_held),
		cmocka_unit_test(poison__is_no_record_of_libxl),
		cmocka_unit_test_setup_teardown(record__saved__is_found_whole, make_home, drop_home),
		cmocka_unit_test_setup_teardown(record__marked__changes_its_state_and_nothing_else, make_home,
		                                drop_home),
		cmocka_unit_test_setup_teardown(record__damaged__fails_and_is_not_taken_for_none, make_home, drop_home),
		cmocka_unit_test(cpu__features_that_the_host_lacks__do_not_fit),
		cmocka_unit_test(cpu__bits_that_are_no_features__do_not_count),
		cmocka_unit_test(helper__call_of_libxl__understood),
		cmocka_unit_test(helper__call_that_it_does_not_know__refused),
		cmocka_unit_test(wire__log__is_packed_as_libxl_reads_it),
		cmocka_unit_test(wire__words_without_end__are_cut),
		cmocka_unit_test(wire__libxl_gone__is_said),
		cmocka_unit_test(policy__leg_is_asked_between_rounds_only),
		cmocka_unit_test(policy__packet_of_another_version__refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
