/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whole copies of a live disk: {nbd, iscsi} x {raw, qcow2 receiver}. */
#include "tests/unit/disk_fixture.h"

#define COPY_SIZE_BYTES (48u * 1024 * 1024 - 4096 * 3) /* the last granule is short */
#define COPY_PASSES_MAX 8
#define COPY_SMALL_BYTES (1024u * 1024)

struct combination {
	enum exporter_kind kind;
	enum disk_format format; /* of the receiver */
	enum disk_format source; /* of the VM's disk */
};

/* A source with its guest, and a receiver. */
struct rig {
	struct fixture f;
	char export_dir[160];
	char target[160];
	struct exporter *exporter;
	struct exporter_access access;
	struct disk_source *source;
	struct sink *sink;
	struct disk_copy *copy;
	struct disk_copy_stats stats;
};

static int connect_exporter(void *ctx, struct err *err)
{
	return exporter_connect(ctx, err);
}

static bool can_run(const struct combination *c)
{
	return c->kind != EXPORTER_ISCSI || c->format != FORMAT_QCOW2 || access("/dev/fuse", R_OK | W_OK) == 0;
}

static void rig_receiver(struct rig *rig, const struct combination *c)
{
	struct sr_config sr = { .name = "target" };
	struct err err = { 0 };
	snprintf(rig->export_dir, sizeof(rig->export_dir), "%s/export", rig->f.dir);
	snprintf(rig->target, sizeof(rig->target), "%s/target.img", rig->f.dir);
	assert_int_equal(mkdir(rig->export_dir, 0700), 0);
	fixture_ok(sr_disk_make(&sr, rig->target, c->format, rig->f.disk.size_bytes, &err), &err);
	fixture_ok(exporter_start(&rig->exporter, c->kind, rig->export_dir, rig->target, c->format,
	                          rig->f.disk.size_bytes, "xvda", FIXTURE_MIGRATION, &rig->access, &err),
	           &err);
}

static void rig_make(struct rig *rig, const struct combination *c, struct disk_limit *limit)
{
	struct err err = { 0 };
	memset(rig, 0, sizeof(*rig));
	const struct disk_flush flush = { fixture_flush, &rig->f };
	fixture_make(&rig->f, c->source, COPY_SIZE_BYTES);
	rig_receiver(rig, c);
	fixture_ok(disk_source_open(&rig->source, &rig->f.disk, FIXTURE_MIGRATION, &flush, &err), &err);
	fixture_ok(sink_open(&rig->sink, &rig->access, connect_exporter, rig->exporter, &err), &err);
	fixture_ok(disk_copy_new(&rig->copy, rig->source, rig->sink, rig->f.disk.size_bytes, limit, &rig->stats, &err),
	           &err);
}

static void rig_free(struct rig *rig)
{
	struct err err = { 0 };
	sink_close(rig->sink);
	disk_copy_free(rig->copy);
	exporter_kill(rig->exporter);
	if (rig->source)
		fixture_ok(disk_source_close(rig->source, &err), &err);
	fixture_free(&rig->f);
}

static void check_digests(struct rig *rig)
{
	const struct disk_digests *digests = disk_copy_digests(rig->copy);
	struct err err = { 0 };
	uint32_t *granules = calloc(digests->granules, sizeof(*granules));
	uint64_t *stored = calloc(digests->granules, sizeof(*stored));
	assert_non_null(granules);
	assert_non_null(stored);
	for (size_t i = 0; i < digests->granules; i++)
		granules[i] = (uint32_t)i;
	fixture_ok(exporter_digests(rig->exporter, granules, digests->granules, stored, &err), &err);
	for (size_t i = 0; i < digests->granules; i++)
		if (stored[i] != digests->digest[i])
			fail_msg("granule %zu differs", i);
	free(granules);
	free(stored);
}

static void copying__guest_writes_all_the_time__images_equal(void **state)
{
	const struct combination *c = *state;
	struct rig rig;
	struct err err = { 0 };
	uint64_t sent = 0, after = 0;
	unsigned passes = 0;
	if (!can_run(c))
		skip();
	rig_make(&rig, c, NULL);
	fixture_guest_start(&rig.f, 1000);
	fixture_guest_wait(&rig.f, 20);
	fixture_ok(disk_copy_pass(rig.copy, true, &sent, &err), &err);
	assert_true(sent > 0 && sent < COPY_SIZE_BYTES); /* holes were not read */
	do {
		fixture_guest_wait(&rig.f, 5);
		fixture_ok(disk_copy_pass(rig.copy, false, &sent, &err), &err);
		assert_true(sent > 0);
	} while (sent > COPY_SMALL_BYTES && ++passes < COPY_PASSES_MAX);
	fixture_guest_wait(&rig.f, 20);
	fixture_ok(disk_source_dirty(rig.source, &after, &err), &err);
	assert_true(after > 0);
	fixture_guest_stop(&rig.f);
	fixture_ok(disk_source_drain(rig.source, &err), &err);
	fixture_ok(disk_copy_pass(rig.copy, false, &sent, &err), &err);
	assert_true(sent > 0);
	fixture_ok(disk_source_dirty(rig.source, &after, &err), &err);
	assert_int_equal(after, 0);
	assert_int_equal(rig.stats.left_bytes, 0);
	assert_true(rig.stats.zero_bytes > 0);
	check_digests(&rig);
	struct exporter *exporter = rig.exporter;
	rig.exporter = NULL;
	fixture_ok(exporter_revoke(exporter, &err), &err);
	fixture_same(rig.f.disk.path, c->source, rig.target, c->format);
	assert_true(proc_alive(&rig.f.backend));
	rig_free(&rig);
}

static int ask_exporter(void *ctx, uint32_t first, uint32_t count, struct disk_mark *ret_marks, struct err *err)
{
	return exporter_marks(ctx, 4711, first, count, ret_marks, err);
}

/* A second attempt, on a disk that holds what the first one left, and garbage. */
static void begin_again(struct rig *rig)
{
	static unsigned char garbage[DISK_GRANULE_BYTES];
	const struct disk_earlier what = { 4711, ask_exporter, rig->exporter };
	uint64_t last = COPY_SIZE_BYTES / DISK_GRANULE_BYTES * DISK_GRANULE_BYTES;
	struct err err = { 0 };
	memset(garbage, 0x5C, sizeof(garbage));
	const uint64_t at[] = { 0, COPY_SIZE_BYTES / 2 / DISK_GRANULE_BYTES * DISK_GRANULE_BYTES, last };
	for (size_t i = 0; i < 3; i++)
		fixture_ok(sink_write(rig->sink, at[i], garbage,
		                      at[i] == last ? (size_t)(COPY_SIZE_BYTES - last) : sizeof(garbage), NULL, NULL,
		                      NULL, &err),
		           &err);
	fixture_ok(sink_flush(rig->sink, &err), &err);
	disk_copy_free(rig->copy);
	memset(&rig->stats, 0, sizeof(rig->stats));
	fixture_ok(disk_copy_new(&rig->copy, rig->source, rig->sink, rig->f.disk.size_bytes, NULL, &rig->stats, &err),
	           &err);
	fixture_ok(disk_copy_earlier(rig->copy, &what, &err), &err);
}

static void copying__over_an_earlier_copy__sends_what_differs(void **state)
{
	const struct combination *c = *state;
	struct rig rig;
	struct err err = { 0 };
	uint64_t first = 0, again = 0, sent = 0;
	if (!can_run(c))
		skip();
	rig_make(&rig, c, NULL);
	fixture_guest_start(&rig.f, 20000);
	fixture_guest_wait(&rig.f, 20);
	fixture_ok(disk_copy_pass(rig.copy, true, &first, &err), &err);
	begin_again(&rig);
	fixture_guest_wait(&rig.f, 20);
	fixture_ok(disk_copy_pass(rig.copy, true, &again, &err), &err);
	assert_true(again < first);
	assert_true(atomic_load(&rig.stats.reused_bytes) > first / 8);
	assert_int_equal(rig.stats.left_bytes, 0);
	fixture_guest_stop(&rig.f);
	fixture_ok(disk_source_drain(rig.source, &err), &err);
	fixture_ok(disk_copy_pass(rig.copy, false, &sent, &err), &err);
	check_digests(&rig);
	struct exporter *exporter = rig.exporter;
	rig.exporter = NULL;
	fixture_ok(exporter_revoke(exporter, &err), &err);
	fixture_same(rig.f.disk.path, c->source, rig.target, c->format);
	rig_free(&rig);
}

static void fence__late_write__fails_and_changes_nothing(void **state)
{
	const struct combination *c = *state;
	static unsigned char block[DISK_GRANULE_BYTES];
	struct rig rig;
	struct err err = { 0 };
	struct proc_id processes[4];
	uint64_t sent;
	if (!can_run(c))
		skip();
	rig_make(&rig, c, NULL);
	fixture_ok(disk_copy_pass(rig.copy, true, &sent, &err), &err);
	unsigned count = exporter_processes(rig.exporter, processes, 4);
	assert_true(count > 0 && exporter_alive(rig.exporter));
	struct exporter *exporter = rig.exporter;
	rig.exporter = NULL;
	fixture_ok(exporter_revoke(exporter, &err), &err);
	for (unsigned i = 0; i < count; i++)
		assert_false(proc_alive(&processes[i]));
	memset(block, 0xAB, sizeof(block));
	int result = sink_write(rig.sink, 0, block, sizeof(block), NULL, NULL, NULL, &err);
	if (result == 0)
		result = sink_flush(rig.sink, &err);
	assert_int_equal(result, -1);
	assert_true(err.code == ERR_PEER_LOST || err.code == ERR_EXPORTER);
	fixture_same(rig.f.disk.path, FORMAT_RAW, rig.target, c->format);
	rig_free(&rig);
}

struct pass_thread {
	struct disk_copy *copy;
	struct err err;
	uint64_t sent;
	int result;
	_Atomic bool ended;
};

static void *run_pass(void *ctx)
{
	struct pass_thread *pass = ctx;
	pass->result = disk_copy_pass(pass->copy, true, &pass->sent, &pass->err);
	atomic_store(&pass->ended, true);
	return NULL;
}

static void wait_copied(struct rig *rig, uint64_t bytes)
{
	int64_t deadline_ms = disk_now_ms() + FIXTURE_DEADLINE_MS;
	while (atomic_load(&rig->stats.copied_bytes) < bytes) {
		assert_true(disk_now_ms() < deadline_ms);
		usleep(1000);
	}
}

/* What happens in the middle of pass 0, and how the pass ends. */
enum mishap { MISHAP_CANCEL, MISHAP_KILL, MISHAP_HANG_AND_CANCEL };

static void disturb(struct rig *rig, enum mishap mishap, struct pass_thread *pass)
{
	struct proc_id processes[4];
	pthread_t thread;
	*pass = (struct pass_thread) { .copy = rig->copy };
	assert_int_equal(pthread_create(&thread, NULL, run_pass, pass), 0);
	wait_copied(rig, 1024 * 1024);
	unsigned count = exporter_processes(rig->exporter, processes, 4);
	if (mishap == MISHAP_KILL)
		for (unsigned i = 0; i < count; i++)
			kill(processes[i].pid, SIGKILL);
	if (mishap == MISHAP_HANG_AND_CANCEL) {
		for (unsigned i = 0; i < count; i++)
			kill(processes[i].pid, SIGSTOP);
		/* until nothing moves any more */
		uint64_t before;
		do {
			before = atomic_load(&rig->stats.copied_bytes);
			usleep(100000);
		} while (atomic_load(&rig->stats.copied_bytes) != before);
		assert_false(atomic_load(&pass->ended));
	}
	int64_t begun_ms = disk_now_ms();
	if (mishap != MISHAP_KILL)
		disk_copy_cancel(rig->copy);
	assert_int_equal(pthread_join(thread, NULL), 0);
	int64_t took_ms = disk_now_ms() - begun_ms;
	assert_true(took_ms < (mishap == MISHAP_KILL ? 1000 : 200));
}

static void mishap_test(const struct combination *c, enum mishap mishap)
{
	struct rig rig;
	struct pass_thread pass;
	struct disk_limit *limit = disk_limit_new(12u * 1024 * 1024); /* so that there is a middle */
	if (!can_run(c))
		skip();
	rig_make(&rig, c, limit);
	fixture_guest_start(&rig.f, 500);
	disturb(&rig, mishap, &pass);
	assert_int_equal(pass.result, -1);
	if (mishap == MISHAP_KILL)
		assert_true(pass.err.code == ERR_PEER_LOST || pass.err.code == ERR_EXPORTER);
	else
		assert_int_equal(pass.err.code, ERR_CANCELLED);
	fixture_guest_wait(&rig.f, 20); /* the guest does not care */
	fixture_guest_stop(&rig.f);
	rig_free(&rig);
	disk_limit_free(limit);
}

static void copying__cancelled_in_the_middle__returns_at_once(void **state)
{
	mishap_test(*state, MISHAP_CANCEL);
}

static void copying__exporter_killed__fails_within_a_second(void **state)
{
	mishap_test(*state, MISHAP_KILL);
}

static void copying__exporter_hangs_then_cancel__returns_at_once(void **state)
{
	mishap_test(*state, MISHAP_HANG_AND_CANCEL);
}

static void limit__two_streams__hold_the_rate_together(void **state)
{
	(void)state;
	struct disk_limit *limit = disk_limit_new(4u * 1024 * 1024);
	int64_t begun_ms = disk_now_ms();
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(disk_limit_take(limit, 65536), 0);
	int64_t took_ms = disk_now_ms() - begun_ms;
	assert_true(took_ms >= 300); /* 2 MiB at 4 MiB/s, less the burst */
	disk_limit_lift(limit);
	begun_ms = disk_now_ms();
	assert_int_equal(disk_limit_take(limit, (uint64_t)1 << 40), 0);
	assert_true(disk_now_ms() - begun_ms < 200);
	disk_limit_cancel(limit);
	assert_int_equal(disk_limit_take(limit, 1), -1);
	disk_limit_free(limit);
}

/* clang-format off */
static struct combination nbd_raw = { EXPORTER_NBD, FORMAT_RAW, FORMAT_RAW },
	nbd_qcow2 = { EXPORTER_NBD, FORMAT_QCOW2, FORMAT_RAW },
	iscsi_raw = { EXPORTER_ISCSI, FORMAT_RAW, FORMAT_RAW },
	iscsi_qcow2 = { EXPORTER_ISCSI, FORMAT_QCOW2, FORMAT_RAW },
	qcow2_nbd_raw = { EXPORTER_NBD, FORMAT_RAW, FORMAT_QCOW2 },
	qcow2_nbd_qcow2 = { EXPORTER_NBD, FORMAT_QCOW2, FORMAT_QCOW2 };

#define FOR_ALL(test) \
	{ #test " nbd raw", test, NULL, NULL, &nbd_raw }, \
	{ #test " nbd qcow2", test, NULL, NULL, &nbd_qcow2 }, \
	{ #test " iscsi raw", test, NULL, NULL, &iscsi_raw }, \
	{ #test " iscsi qcow2", test, NULL, NULL, &iscsi_qcow2 }
#define FOR_QCOW2(test) \
	{ #test " qcow2 to raw", test, NULL, NULL, &qcow2_nbd_raw }, \
	{ #test " qcow2 to qcow2", test, NULL, NULL, &qcow2_nbd_qcow2 }
/* clang-format on */

int main(void)
{
	const struct CMUnitTest tests[] = {
		FOR_ALL(copying__guest_writes_all_the_time__images_equal),
		FOR_QCOW2(copying__guest_writes_all_the_time__images_equal),
		FOR_ALL(copying__over_an_earlier_copy__sends_what_differs),
		FOR_ALL(fence__late_write__fails_and_changes_nothing),
		FOR_ALL(copying__cancelled_in_the_middle__returns_at_once),
		FOR_ALL(copying__exporter_killed__fails_within_a_second),
		FOR_ALL(copying__exporter_hangs_then_cancel__returns_at_once),
		cmocka_unit_test(limit__two_streams__hold_the_rate_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
