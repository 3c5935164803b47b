/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Kept copies: an attempt that ends early, and one after it that goes on with what is there. Real legs, as in test_leg;
 * the guest does not write its disks, so that what arrives can be compared byte by byte. */
#include "tests/unit/leg_rig.h"

#define KEEP_S 3600u
#define NOISE_BYTES (6u << 20) /* of the 8 MiB of each disk; before it is a hole */
#define COPIED_BYTES (2 * NOISE_BYTES)

/* The plan as it is now is what a leg finds that is started to recover. */
static void journal_plan(struct move *move)
{
	host_session(move, &move->s);
	host_session(move, &move->d);
}

static int set_up_quiet(void **state)
{
	int rc = set_up_with(state, 0, NOISE_BYTES);
	struct move *move = *state;
	move->plan.keep_copy_s = KEEP_S;
	journal_plan(move);
	return rc;
}

static uint64_t disks_sum(const struct move *move, bool reused)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < move->s.progress.disk_count; i++)
		sum += reused ? move->s.progress.disks[i].reused_bytes : move->s.progress.disks[i].copied_bytes;
	return sum;
}

/* The newest resource of this kind and state, of any session. */
static bool find_resource(const struct host *host, enum resource_kind kind, enum resource_state state, const char *name,
                          struct journal_resource *ret)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	bool found = false;
	struct err err = { 0 };
	rig_ok(journal_resource_list(host->journal, 0, 0, &list, &count, &err), &err);
	for (size_t i = 0; i < count && !found; i++) {
		found = list[i].kind == kind && list[i].state == state && strcmp(list[i].name, name) == 0;
		if (found)
			*ret = list[i];
	}
	free(list);
	return found;
}

static struct journal_resource kept_copy(const struct host *host, const char *name)
{
	struct journal_resource kept;
	assert_true(find_resource(host, RESOURCE_DISK, RESOURCE_KEPT, name, &kept));
	assert_int_equal(access(kept.path, F_OK), 0);
	return kept;
}

static void abort_both(struct move *move)
{
	both(move, STEP_ABORT);
	assert_int_equal(move->s.report.phase, PHASE_ROLLED_BACK);
	assert_int_equal(move->d.report.phase, PHASE_ROLLED_BACK);
	guest_ticks(move, &move->s);
	forget_both(move);
}

static void reset(struct host *host)
{
	memset(host->answered, 0, sizeof(host->answered));
	memset(&host->report, 0, sizeof(host->report));
	memset(&host->progress, 0, sizeof(host->progress));
	host->progresses = 0;
}

/* Both legs have ended; the next attempt is another session. */
static void next_attempt(struct move *move)
{
	move->migration++;
	reset(&move->s);
	reset(&move->d);
	journal_plan(move);
}

/* All of the disks is over there when it ends. */
static void first_attempt(struct move *move)
{
	move->plan.bandwidth_bps = 8u << 20; /* the memory takes a while yet */
	until_copying(move);
	AWAIT(move, disks_sum(move, false) >= COPIED_BYTES && strcmp(move->s.progress.phase, "memory") == 0);
	abort_both(move);
	move->plan.bandwidth_bps = 0;
}

static void second_attempt(struct move *move)
{
	next_attempt(move);
	until_ready(move);
	both(move, STEP_SWITCH);
	AWAIT(move, move->s.report.facts.running && move->d.report.facts.running && move->s.progress.bytes_left == 0);
}

/* The image of disk `i` where the VM runs now holds what the source's does, which is still there. */
static void assert_same_content(struct move *move, unsigned i)
{
	struct sim_record record;
	struct err err = { 0 };
	rig_ok(sim_record_load(&move->d.paths, VM, &record, &err), &err);
	const char *argv[] = { "qemu-img",
		               "compare",
		               "-U",
		               "-f",
		               "raw",
		               "-F",
		               disk_format_name(record.disks[i].format),
		               move->record.disks[i].path,
		               record.disks[i].path,
		               NULL };
	rig_ok(proc_run(argv, NULL, NULL, NULL, RIG_WAIT_MS, &err), &err);
}

static void finish(struct move *move)
{
	struct journal_resource kept;
	assert_same_content(move, 0);
	assert_same_content(move, 1);
	both(move, STEP_RELEASE);
	assert_false(find_resource(&move->d, RESOURCE_DISK, RESOURCE_KEPT, "xvda", &kept));
	assert_int_equal(resources(&move->d), 0);
	assert_int_equal(images(&move->d), 2);
	guest_ticks(move, &move->d);
	ledger_last(move);
	forget_both(move);
}

/* Writes over a part of a kept file, behind everybody's back. */
static void spoil(const char *path, off_t offset, size_t bytes)
{
	unsigned char *junk = malloc(bytes);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_non_null(junk);
	assert_true(fd >= 0);
	random_bytes(junk, bytes);
	assert_int_equal(pwrite(fd, junk, bytes, offset), bytes);
	close(fd);
	free(junk);
}

static void abort__copy_to_be_kept__kept_and_journaled(void **state)
{
	struct move *move = *state;
	uint64_t now_ms = (uint64_t)clock_real.wall_ms(&clock_real);
	first_attempt(move);
	assert_int_equal(move->s.report.kept_until_wall_ms, 0);
	assert_true(move->d.report.kept_until_wall_ms >= now_ms + KEEP_S * 1000);
	assert_int_equal(images(&move->d), 2);
	assert_int_equal(resources(&move->d), 2);
	struct journal_resource kept = kept_copy(&move->d, "xvdb");
	assert_int_equal(kept.migration, MIGRATION);
	assert_int_equal(kept.generation, GENERATION);
	assert_memory_equal(kept.vm, move->plan.vm.uuid, sizeof(kept.vm));
	assert_int_equal(kept.bytes, move->plan.vm.disks[1].size_bytes);
	assert_int_equal(kept.format, FORMAT_RAW);
	assert_string_equal(kept.sr, "local");
	assert_true(kept.kept_until_wall_ms >= now_ms + KEEP_S * 1000);
	assert_int_equal(files_in(move->d.paths.run, "export-"), 0);
}

static void abort__nothing_was_copied_yet__nothing_is_kept(void **state)
{
	struct move *move = *state;
	start_both(move);
	both(move, STEP_PREPARE);
	abort_both(move);
	assert_int_equal(images(&move->d), 0);
	assert_int_equal(resources(&move->d), 0);
	assert_int_equal(move->d.report.kept_until_wall_ms, 0);
}

static void abort__keeping_is_off__nothing_is_kept(void **state)
{
	struct move *move = *state;
	move->plan.keep_copy_s = 0;
	first_attempt(move);
	assert_int_equal(images(&move->d), 0);
	assert_int_equal(resources(&move->d), 0);
}

static void retry_over(struct move *move, enum disk_format format, enum exporter_kind exporter)
{
	if (format == FORMAT_QCOW2 && exporter == EXPORTER_ISCSI && access("/dev/fuse", R_OK | W_OK) != 0)
		skip();
	if (exporter == EXPORTER_ISCSI && access("/usr/sbin/tgtd", X_OK) != 0)
		skip();
	host_conf(&move->d, exporter);
	move->plan.to[0].format = move->plan.to[1].format = format;
	first_attempt(move);
	/* garbage in the data and in what is a hole at the source */
	struct journal_resource kept = kept_copy(&move->d, "xvda");
	if (format == FORMAT_RAW) {
		spoil(kept.path, (4 << 20) + 1000, 100);
		spoil(kept.path, (1 << 20) + 70000, 200000);
	} else {
		spoil(kept.path, (2 << 20) + 70000, 100);
	}
	second_attempt(move);
	assert_true(disks_sum(move, true) >= COPIED_BYTES - (1u << 20));
	assert_true(disks_sum(move, false) < COPIED_BYTES / 4);
	finish(move);
}

static void retry__raw_over_nbd__sends_what_differs(void **state)
{
	retry_over(*state, FORMAT_RAW, EXPORTER_NBD);
}

static void retry__qcow2_over_nbd__sends_what_differs(void **state)
{
	retry_over(*state, FORMAT_QCOW2, EXPORTER_NBD);
}

static void retry__raw_over_iscsi__sends_what_differs(void **state)
{
	retry_over(*state, FORMAT_RAW, EXPORTER_ISCSI);
}

static void retry__qcow2_over_iscsi__sends_what_differs(void **state)
{
	retry_over(*state, FORMAT_QCOW2, EXPORTER_ISCSI);
}

/* QEMU keeps mappings of a qcow2 image in memory until a flush, which comes at the end of a pass. */
static void retry__qcow2_aborted_within_a_pass__has_what_came_till_then(void **state)
{
	struct move *move = *state;
	move->plan.to[0].format = move->plan.to[1].format = FORMAT_QCOW2;
	move->plan.bandwidth_bps = 8u << 20;
	until_copying(move);
	struct journal_resource image;
	assert_true(find_resource(&move->d, RESOURCE_DISK, RESOURCE_MADE, "xvda", &image));
	AWAIT(move, sr_disk_allocated(image.path) >= NOISE_BYTES / 2); /* what was sent may still be under way */
	assert_int_equal(move->s.progress.disks[0].pass, 0);
	abort_both(move);
	move->plan.bandwidth_bps = 0;
	second_attempt(move);
	assert_true(move->s.progress.disks[0].reused_bytes >= NOISE_BYTES / 3);
	finish(move);
}

static void retry__kept_file_is_another__copied_anew_beside_it(void **state)
{
	struct move *move = *state;
	first_attempt(move);
	struct journal_resource kept = kept_copy(&move->d, "xvda");
	assert_int_equal(truncate(kept.path, (7 << 20)), 0);
	second_attempt(move);
	assert_int_equal(move->s.progress.disks[0].reused_bytes, 0);
	assert_true(move->s.progress.disks[0].copied_bytes >= NOISE_BYTES);
	assert_true(move->s.progress.disks[1].reused_bytes >= NOISE_BYTES - (1u << 20));
	assert_same_content(move, 0);
	assert_same_content(move, 1);
	/* it is still kept, and goes when its time is over */
	assert_int_equal(kept_copy(&move->d, "xvda").id, kept.id);
	both(move, STEP_RELEASE);
	assert_int_equal(images(&move->d), 3);
	forget_both(move);
}

static void retry__plan_fits_another_disk__not_taken(void **state)
{
	struct move *move = *state;
	struct journal_resource kept;
	struct err err = { 0 };
	first_attempt(move);
	const struct msg_plan plan = move->plan;
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, &err), 1);
	move->plan.vm.uuid[3] ^= 1;
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, &err), 0);
	move->plan = plan;
	move->plan.vm.disks[0].size_bytes += 512;
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, &err), 0);
	move->plan = plan;
	move->plan.to[0].format = FORMAT_QCOW2;
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, &err), 0);
	move->plan = plan;
	snprintf(move->plan.to[0].sr, LIMIT_NAME, "other");
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, &err), 0);
	move->plan = plan;
	/* what a VM wrote that ran here is nobody's to write over */
	struct journal_resource ran;
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &ran, &err), 1);
	const int64_t copy = ran.id;
	ran.kind = RESOURCE_FILE;
	rig_ok(journal_resource_add(move->d.journal, &ran, &ran.id, &err), &err);
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, &err), 1);
	assert_int_equal(kept.id, copy);
	/* of two who want it one gets it */
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, &err), 1);
	rig_ok(journal_kept_take(move->d.journal, kept.id, 8, 1, RESOURCE_MADE, &err), &err);
	assert_int_equal(journal_kept_take(move->d.journal, kept.id, 9, 1, RESOURCE_MADE, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_ID);
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, &err), 0);
}

static void retry__fails_again__kept_again(void **state)
{
	struct move *move = *state;
	first_attempt(move);
	struct journal_resource before = kept_copy(&move->d, "xvda");
	move->plan.keep_copy_s = 2 * KEEP_S;
	next_attempt(move);
	move->plan.bandwidth_bps = BANDWIDTH_SLOW;
	until_copying(move);
	AWAIT(move, disks_sum(move, true) > 0);
	abort_both(move);
	struct journal_resource after = kept_copy(&move->d, "xvda");
	assert_int_equal(after.id, before.id);
	assert_int_equal(after.migration, MIGRATION + 1);
	assert_true(after.kept_until_wall_ms > before.kept_until_wall_ms);
	assert_int_equal(images(&move->d), 2);
	move->plan.bandwidth_bps = 0;
	second_attempt(move);
	assert_true(disks_sum(move, false) < COPIED_BYTES / 4);
	finish(move);
}

/* The destination's leg is gone in the middle; the one that follows it keeps what there is. */
static void retry__after_the_destination_leg_died__goes_on_with_its_copy(void **state)
{
	struct move *move = *state;
	move->plan.bandwidth_bps = 8u << 20;
	until_copying(move);
	AWAIT(move, disks_sum(move, false) >= COPIED_BYTES / 2);
	leg_kill(&move->d);
	leg_start(move, &move->d, true);
	leg_connect(&move->d);
	AWAIT(move, move->d.report.phase == PHASE_ROLLED_BACK && move->s.report.phase == PHASE_ROLLED_BACK);
	abort_both(move);
	kept_copy(&move->d, "xvda");
	move->plan.bandwidth_bps = 0;
	second_attempt(move);
	assert_true(disks_sum(move, true) > 0);
	finish(move);
}

/* The other way: who was the source is the destination now. */
static void turn_round(struct move *move)
{
	const struct host was = move->s;
	move->s = move->d;
	move->d = was;
	move->s.side = SIDE_SOURCE;
	move->d.side = SIDE_DESTINATION;
	struct err err = { 0 };
	rig_ok(sim_record_load(&move->s.paths, VM, &move->record, &err), &err);
}

/* Moved, and the source is kept. */
static void until_moved(struct move *move)
{
	move->plan.keep_source_s = KEEP_S;
	until_ready(move);
	both(move, STEP_SWITCH);
	AWAIT(move, move->s.report.facts.running);
	both(move, STEP_RELEASE);
	forget_both(move);
	turn_round(move);
	next_attempt(move);
}

static void undo__source_is_kept__its_disks_are_gone_over_and_used(void **state)
{
	struct move *move = *state;
	struct journal_resource kept;
	until_moved(move);
	assert_true(find_resource(&move->d, RESOURCE_SOURCE_DISK, RESOURCE_KEPT, "xvda", &kept));
	move->plan.take_source = 1;
	until_ready(move);
	both(move, STEP_SWITCH);
	AWAIT(move, move->s.report.facts.running && move->d.report.facts.running && move->s.progress.bytes_left == 0);
	assert_true(disks_sum(move, true) >= COPIED_BYTES);
	assert_int_equal(disks_sum(move, false), 0);
	assert_same_content(move, 0);
	struct sim_record record;
	struct err err = { 0 };
	rig_ok(sim_record_load(&move->d.paths, VM, &record, &err), &err);
	assert_string_equal(record.disks[0].path, kept.path);
	both(move, STEP_RELEASE);
	/* it is the VM's now, and what was the destination is kept in turn */
	assert_false(find_resource(&move->d, RESOURCE_SOURCE_DISK, RESOURCE_KEPT, "xvda", &kept));
	assert_int_equal(resources(&move->d), 0);
	assert_true(find_resource(&move->s, RESOURCE_SOURCE_DISK, RESOURCE_KEPT, "xvda", &kept));
	guest_ticks(move, &move->d);
	forget_both(move);
}

static void undo__not_asked_for__source_disks_are_left_alone(void **state)
{
	struct move *move = *state;
	struct journal_resource kept;
	until_moved(move);
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, NULL), 0);
	move->plan.take_source = 1;
	assert_int_equal(journal_kept_find(move->d.journal, &move->plan, 0, &kept, NULL), 1);
	leg_start(move, &move->s, false);
	leg_start(move, &move->d, false);
}

static void undo__aborted_before_the_copy__disks_are_kept_as_they_were(void **state)
{
	struct move *move = *state;
	struct journal_resource before, after;
	until_moved(move);
	assert_true(find_resource(&move->d, RESOURCE_SOURCE_DISK, RESOURCE_KEPT, "xvda", &before));
	move->plan.take_source = 1;
	start_both(move);
	both(move, STEP_PREPARE);
	assert_false(find_resource(&move->d, RESOURCE_SOURCE_DISK, RESOURCE_KEPT, "xvda", &after));
	abort_both(move);
	assert_true(find_resource(&move->d, RESOURCE_SOURCE_DISK, RESOURCE_KEPT, "xvda", &after));
	assert_int_equal(after.id, before.id);
	assert_int_equal(after.kept_until_wall_ms, before.kept_until_wall_ms);
	assert_int_equal(move->d.report.kept_until_wall_ms, 0);
	assert_int_equal(images(&move->d), 2);
}

static void undo__destination_leg_killed_in_the_copy__kept_as_a_copy_till_their_date(void **state)
{
	struct move *move = *state;
	struct journal_resource before, after;
	until_moved(move);
	assert_true(find_resource(&move->d, RESOURCE_SOURCE_DISK, RESOURCE_KEPT, "xvda", &before));
	move->plan.take_source = 1;
	move->plan.keep_copy_s = 0;
	move->plan.bandwidth_bps = BANDWIDTH_SLOW;
	journal_plan(move);
	until_copying(move);
	leg_kill(&move->d);
	leg_start(move, &move->d, true);
	leg_connect(&move->d);
	AWAIT(move, move->d.report.phase == PHASE_ROLLED_BACK && move->s.report.phase == PHASE_ROLLED_BACK);
	abort_both(move);
	/* something may have been written: no whole disk any more, and still good for a retry, which needs no leave */
	assert_false(find_resource(&move->d, RESOURCE_SOURCE_DISK, RESOURCE_KEPT, "xvda", &after));
	after = kept_copy(&move->d, "xvda");
	assert_int_equal(after.id, before.id);
	assert_int_equal(after.kept_until_wall_ms, before.kept_until_wall_ms);
	move->plan.take_source = 0;
	move->plan.bandwidth_bps = 0;
	second_attempt(move);
	assert_true(disks_sum(move, true) >= COPIED_BYTES);
	both(move, STEP_RELEASE);
	forget_both(move);
}

int main(int argc, char **argv)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up_quiet, tear_down)
	const struct CMUnitTest tests[] = {
		T(abort__copy_to_be_kept__kept_and_journaled),
		T(abort__nothing_was_copied_yet__nothing_is_kept),
		T(abort__keeping_is_off__nothing_is_kept),
		T(retry__raw_over_nbd__sends_what_differs),
		T(retry__qcow2_over_nbd__sends_what_differs),
		T(retry__raw_over_iscsi__sends_what_differs),
		T(retry__qcow2_over_iscsi__sends_what_differs),
		T(retry__qcow2_aborted_within_a_pass__has_what_came_till_then),
		T(retry__kept_file_is_another__copied_anew_beside_it),
		T(retry__plan_fits_another_disk__not_taken),
		T(retry__fails_again__kept_again),
		T(retry__after_the_destination_leg_died__goes_on_with_its_copy),
		T(undo__source_is_kept__its_disks_are_gone_over_and_used),
		T(undo__not_asked_for__source_disks_are_left_alone),
		T(undo__aborted_before_the_copy__disks_are_kept_as_they_were),
		T(undo__destination_leg_killed_in_the_copy__kept_as_a_copy_till_their_date),
	};
#undef T
	signal(SIGPIPE, SIG_IGN);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
