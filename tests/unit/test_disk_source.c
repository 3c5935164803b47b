/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The live source against a real block backend with its node in an iothread. */
#include "tests/unit/disk_fixture.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "agent/disk/nbdio.h"
#include "agent/disk/qmp.h"

#define SOURCE_SIZE_BYTES (32u * 1024 * 1024)
#define SWAPS_UNDER_LOAD 300
#define LEG_KILLS 12

static void guest_write(struct fixture *f, struct nbd_handle *nbd, uint64_t offset, size_t bytes, int value)
{
	unsigned char *block = malloc(bytes);
	(void)f;
	assert_non_null(block);
	memset(block, value, bytes);
	if (nbd_pwrite(nbd, block, bytes, offset, 0) < 0)
		fail_msg("guest: %s", nbd_get_error());
	free(block);
}

static struct nbd_handle *guest_connect(struct fixture *f)
{
	struct nbd_handle *nbd = nbd_create();
	assert_non_null(nbd);
	assert_int_equal(nbd_set_export_name(nbd, "guest"), 0);
	assert_int_equal(nbd_connect_unix(nbd, f->disk.nbd_path), 0);
	return nbd;
}

static json_t *backend_ask(struct fixture *f, const char *command)
{
	struct qmp *qmp = NULL;
	struct err err = { 0 };
	json_t *result = NULL;
	fixture_ok(qmp_open(&qmp, f->disk.qmp_path, NULL, QMP_OPEN_MS, &err), &err);
	fixture_ok(qmp_run(qmp, command, NULL, QMP_COMMAND_MS, &result, &err), &err);
	qmp_close(qmp);
	return result;
}

/* Whether anything in the backend is called drover-17-… */
static bool backend_is_clean(struct fixture *f)
{
	bool clean = true;
	const char *const questions[] = { "query-named-block-nodes", "query-block-exports" };
	for (size_t i = 0; i < 2; i++) {
		json_t *answer = backend_ask(f, questions[i]);
		char *text = json_dumps(answer, 0);
		clean = clean && !strstr(text, "drover-17-");
		free(text);
		json_decref(answer);
	}
	return clean;
}

static void swap__guest_wrote_two_places__exactly_those_are_given(void **state)
{
	struct fixture f;
	struct disk_source *source = NULL;
	struct disk_range *ranges = NULL;
	size_t count = 0;
	uint64_t dirty = 0;
	unsigned char byte;
	struct err err = { 0 };
	(void)state;
	fixture_make(&f, FORMAT_RAW, SOURCE_SIZE_BYTES);
	f.guest.nbd = guest_connect(&f);
	fixture_ok(disk_source_open(&source, &f.disk, FIXTURE_MIGRATION, NULL, &err), &err);
	guest_write(&f, f.guest.nbd, 5 * DISK_GRANULE_BYTES + 100 * 512, 4096, 0x11);
	guest_write(&f, f.guest.nbd, 100 * DISK_GRANULE_BYTES, 2 * DISK_GRANULE_BYTES, 0x22);
	fixture_ok(disk_source_dirty(source, &dirty, &err), &err);
	assert_int_equal(dirty, 3 * DISK_GRANULE_BYTES);
	fixture_ok(disk_source_swap(source, &ranges, &count, &err), &err);
	assert_int_equal(count, 2);
	assert_int_equal(ranges[0].offset, 5 * DISK_GRANULE_BYTES);
	assert_int_equal(ranges[0].bytes, DISK_GRANULE_BYTES);
	assert_int_equal(ranges[1].offset, 100 * DISK_GRANULE_BYTES);
	assert_int_equal(ranges[1].bytes, 2 * DISK_GRANULE_BYTES);
	fixture_ok(disk_source_read(source, 100 * DISK_GRANULE_BYTES + 70000, &byte, 1, &err), &err);
	assert_int_equal(byte, 0x22);
	free(ranges);
	fixture_ok(disk_source_swap(source, &ranges, &count, &err), &err);
	assert_int_equal(count, 0);
	free(ranges);
	assert_int_equal(disk_source_read(source, SOURCE_SIZE_BYTES - 10, &byte, 11, &err), -1);
	fixture_ok(disk_source_drain(source, &err), &err); /* qemu-storage-daemon knows no stop: fine */
	fixture_ok(disk_source_undrain(source, &err), &err);
	fixture_ok(disk_source_close(source, &err), &err);
	assert_true(backend_is_clean(&f));
	fixture_free(&f);
}

static void swap__backend_without_nbd_server__starts_and_stops_its_own(void **state)
{
	struct fixture f;
	struct disk_source *source = NULL;
	struct disk_range *ranges = NULL;
	size_t count = 0;
	struct err err = { 0 };
	json_t *none;
	struct qmp *qmp = NULL;
	(void)state;
	fixture_make(&f, FORMAT_RAW, SOURCE_SIZE_BYTES);
	/* as in Xen's QEMU: no server runs. The guest is not needed here. */
	fixture_ok(qmp_open(&qmp, f.disk.qmp_path, NULL, QMP_OPEN_MS, &err), &err);
	fixture_ok(qmp_run(qmp, "nbd-server-stop", NULL, QMP_COMMAND_MS, NULL, &err), &err);
	qmp_close(qmp);
	f.disk.nbd_path[0] = '\0';
	fixture_ok(disk_source_open(&source, &f.disk, FIXTURE_MIGRATION, NULL, &err), &err);
	for (int i = 0; i < 3; i++) {
		fixture_ok(disk_source_swap(source, &ranges, &count, &err), &err);
		assert_int_equal(count, 0);
		free(ranges);
	}
	fixture_ok(disk_source_close(source, &err), &err);
	assert_true(backend_is_clean(&f));
	none = backend_ask(&f, "query-block-exports");
	assert_int_equal(json_array_size(none), 0);
	json_decref(none);
	fixture_free(&f);
}

static void allocated__sparse_image__holes_are_left_out(void **state)
{
	struct fixture f;
	struct disk_source *source = NULL;
	struct disk_range *ranges = NULL;
	size_t count = 0;
	uint64_t sum = 0;
	struct stat st;
	struct err err = { 0 };
	(void)state;
	fixture_make(&f, FORMAT_RAW, SOURCE_SIZE_BYTES);
	fixture_ok(disk_source_open(&source, &f.disk, FIXTURE_MIGRATION, NULL, &err), &err);
	fixture_ok(disk_source_allocated(source, &ranges, &count, &err), &err);
	for (size_t i = 0; i < count; i++)
		sum += ranges[i].bytes;
	assert_int_equal(stat(f.disk.path, &st), 0);
	assert_true(count > 1 && sum > 0 && sum < SOURCE_SIZE_BYTES);
	assert_true(sum + 1024 * 1024 >= (uint64_t)st.st_blocks * 512);
	free(ranges);
	fixture_ok(disk_source_close(source, &err), &err);
	fixture_free(&f);
}

/* A drained node with a busy NBD client in an iothread aborts QEMU 7.2; our swap must not drain. */
static void swap__hundreds_under_load__backend_and_guest_live(void **state)
{
	struct fixture f;
	struct disk_source *source = NULL;
	struct err err = { 0 };
	uint64_t dirty = 0;
	(void)state;
	fixture_make(&f, FORMAT_RAW, SOURCE_SIZE_BYTES);
	fixture_guest_start(&f, 0);
	fixture_ok(disk_source_open(&source, &f.disk, FIXTURE_MIGRATION, NULL, &err), &err);
	for (unsigned i = 0; i < SWAPS_UNDER_LOAD; i++) {
		struct disk_range *ranges = NULL;
		size_t count = 0;
		fixture_ok(disk_source_swap(source, &ranges, &count, &err), &err);
		dirty += count;
		free(ranges);
	}
	assert_true(dirty > SWAPS_UNDER_LOAD / 2);
	fixture_guest_wait(&f, 50);
	fixture_ok(disk_source_close(source, &err), &err);
	fixture_guest_stop(&f);
	assert_true(backend_is_clean(&f));
	fixture_free(&f);
}

struct asker {
	struct disk_source *source;
	_Atomic bool stop;
	struct err err;
	unsigned answers;
	int result;
};

static void *ask_dirty(void *ctx)
{
	struct asker *asker = ctx;
	while (!atomic_load(&asker->stop) && asker->result == 0) {
		uint64_t bytes;
		asker->result = disk_source_dirty(asker->source, &bytes, &asker->err);
		asker->answers++;
	}
	return NULL;
}

static void dirty__asked_while_another_thread_swaps__answers(void **state)
{
	struct fixture f;
	struct asker asker = { .result = 0 };
	struct err err = { 0 };
	pthread_t thread;
	(void)state;
	fixture_make(&f, FORMAT_RAW, SOURCE_SIZE_BYTES);
	fixture_guest_start(&f, 500);
	fixture_ok(disk_source_open(&asker.source, &f.disk, FIXTURE_MIGRATION, NULL, &err), &err);
	assert_int_equal(pthread_create(&thread, NULL, ask_dirty, &asker), 0);
	for (unsigned i = 0; i < 50; i++) {
		struct disk_range *ranges = NULL;
		size_t count = 0;
		fixture_ok(disk_source_swap(asker.source, &ranges, &count, &err), &err);
		free(ranges);
	}
	atomic_store(&asker.stop, true);
	pthread_join(thread, NULL);
	fixture_ok(asker.result, &asker.err);
	assert_true(asker.answers > 1);
	fixture_guest_stop(&f);
	fixture_ok(disk_source_close(asker.source, &err), &err);
	fixture_free(&f);
}

/* Exports `node` by hand, connects, and dies like a leg that is killed. Runs in a child. */
static void leg_that_dies(const struct hypervisor_disk *disk, const char *node, int go)
{
	struct qmp *qmp = NULL;
	struct nbd_handle *nbd = NULL;
	char byte;
	if (read(go, &byte, 1) != 1 || qmp_open(&qmp, disk->qmp_path, NULL, QMP_OPEN_MS, NULL) < 0)
		_exit(1);
	if (strcmp(node, disk->node) != 0) {
		qmp_run(qmp, "blockdev-add",
		        json_pack("{s:s, s:s, s:I, s:b}", "driver", "null-co", "node-name", node, "size",
		                  (json_int_t)disk->size_bytes, "read-zeroes", 1),
		        QMP_COMMAND_MS, NULL, NULL);
	}
	if (qmp_run(qmp, "block-export-add",
	            json_pack("{s:s, s:s, s:s, s:s}", "type", "nbd", "id", "drover-17-xvda", "node-name", node, "name",
	                      "drover-17-xvda"),
	            QMP_COMMAND_MS, NULL, NULL) < 0 ||
	    nbdio_open_unix(&nbd, disk->nbd_path, "drover-17-xvda", NULL, NULL, NULL) < 0)
		_exit(2);
	raise(SIGKILL);
}

/* Starts such a leg while the guest writes; what is left of it is there on return. */
static void kill_leg_on(struct fixture *f, const char *node)
{
	int go[2], status = 0;
	fixture_make(f, FORMAT_RAW, SOURCE_SIZE_BYTES);
	assert_int_equal(pipe(go), 0);
	pid_t child = fork(); /* before there are threads */
	assert_true(child >= 0);
	if (child == 0)
		leg_that_dies(&f->disk, node, go[0]);
	fixture_guest_start(f, 100);
	assert_int_equal(write(go[1], "!", 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(go[0]);
	close(go[1]);
}

static void leg_killed__connected_to_shadow__backend_and_guest_live(void **state)
{
	struct fixture f;
	struct err err = { 0 };
	(void)state;
	kill_leg_on(&f, "drover-17-xvda");
	fixture_guest_wait(&f, 200);
	assert_true(proc_alive(&f.backend));
	assert_false(backend_is_clean(&f));
	fixture_ok(disk_source_clean(&f.disk, FIXTURE_MIGRATION, &err), &err);
	assert_true(backend_is_clean(&f));
	fixture_ok(disk_source_clean(&f.disk, FIXTURE_MIGRATION, &err), &err); /* idempotent */
	fixture_guest_wait(&f, 50);
	fixture_guest_stop(&f);
	fixture_free(&f);
}

/* Why there is a shadow at all, and that the fixture is a place where its absence would show. */
static void leg_killed__connected_to_live_node__backend_aborts(void **state)
{
	struct fixture f;
	(void)state;
	kill_leg_on(&f, "xvda-format");
	int64_t deadline_ms = disk_now_ms() + FIXTURE_DEADLINE_MS;
	while (proc_alive(&f.backend) && disk_now_ms() < deadline_ms)
		usleep(1000);
	bool alive = proc_alive(&f.backend);
	atomic_store(&f.guest.stop, true);
	pthread_join(f.guest.thread, NULL);
	fixture_free(&f);
	assert_false(alive);
}

/* A leg that swaps all the time, killed at any moment, again and again. */
static void leg_killed__anywhere_in_a_swap__next_one_takes_over(void **state)
{
	struct fixture f;
	struct err err = { 0 };
	struct disk_source *source = NULL;
	uint64_t seed = 7;
	(void)state;
	fixture_make(&f, FORMAT_RAW, SOURCE_SIZE_BYTES);
	struct nbd_handle *guest = guest_connect(&f);
	f.guest.nbd = guest;
	for (unsigned i = 0; i < LEG_KILLS; i++) {
		int ready[2], status;
		char byte;
		assert_int_equal(pipe(ready), 0);
		pid_t child = fork();
		if (child == 0) {
			struct disk_range *ranges;
			size_t count;
			if (disk_source_open(&source, &f.disk, FIXTURE_MIGRATION, NULL, &err) < 0 ||
			    write(ready[1], "!", 1) != 1) {
				(void)dprintf(STDERR_FILENO, "leg: %s\n", err.text);
				_exit(1);
			}
			while (disk_source_swap(source, &ranges, &count, NULL) == 0)
				free(ranges);
			_exit(2);
		}
		close(ready[1]);
		assert_int_equal(read(ready[0], &byte, 1), 1); /* -1: the leg could not open */
		close(ready[0]);
		uint64_t writes = fixture_random(&seed) % 40;
		for (uint64_t w = 0; w < writes; w++)
			guest_write(&f, guest, fixture_random(&seed) % 500 * DISK_GRANULE_BYTES, 4096, (int)w);
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		assert_true(proc_alive(&f.backend));
	}
	fixture_ok(disk_source_clean(&f.disk, FIXTURE_MIGRATION, &err), &err);
	assert_true(backend_is_clean(&f));
	fixture_free(&f);
}

static void open__qcow2_that_nobody_flushes__is_refused(void **state)
{
	struct fixture f;
	struct disk_source *source = NULL;
	struct err err = { 0 };
	(void)state;
	fixture_make(&f, FORMAT_QCOW2, SOURCE_SIZE_BYTES);
	assert_int_equal(disk_source_open(&source, &f.disk, FIXTURE_MIGRATION, NULL, &err), -1);
	assert_int_equal(err.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, "flush"));
	assert_true(backend_is_clean(&f));
	fixture_free(&f);
}

static void open__qcow2_with_a_backing_file__is_refused(void **state)
{
	struct fixture f;
	struct disk_source *source = NULL;
	struct err err = { 0 };
	char base[LIMIT_PATH + 8];
	(void)state;
	fixture_make(&f, FORMAT_QCOW2, SOURCE_SIZE_BYTES);
	fixture_backend_end(&f);
	snprintf(base, sizeof(base), "%s.base", f.disk.path);
	assert_int_equal(rename(f.disk.path, base), 0);
	const char *argv[] = {
		"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, f.disk.path, NULL
	};
	fixture_ok(proc_run(argv, NULL, NULL, NULL, FIXTURE_DEADLINE_MS, &err), &err);
	fixture_backend(&f);
	const struct disk_flush flush = { fixture_flush, &f };
	assert_int_equal(disk_source_open(&source, &f.disk, FIXTURE_MIGRATION, &flush, &err), -1);
	assert_int_equal(err.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, "backing file"));
	assert_true(backend_is_clean(&f));
	fixture_free(&f);
}

/* The qemu-nbd among our children; 0: none. */
static pid_t reader_pid(void)
{
	char path[64], text[512] = "";
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) >= 0);
	close(fd);
	char *save = NULL;
	for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		char name[64] = "";
		snprintf(path, sizeof(path), "/proc/%s/comm", word);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		assert_true(read(fd, name, sizeof(name) - 1) >= 0);
		close(fd);
		if (strcmp(name, "qemu-nbd\n") == 0)
			return (pid_t)strtol(word, NULL, 10);
	}
	return 0;
}

static void reader_killed__qcow2__read_fails_and_backend_lives(void **state)
{
	struct fixture f;
	struct disk_source *source;
	struct disk_range *ranges;
	size_t count;
	struct err err = { 0 };
	static char granule[DISK_GRANULE_BYTES];
	(void)state;
	fixture_make(&f, FORMAT_QCOW2, SOURCE_SIZE_BYTES);
	const struct disk_flush flush = { fixture_flush, &f };
	fixture_ok(disk_source_open(&source, &f.disk, FIXTURE_MIGRATION, &flush, &err), &err);
	fixture_ok(disk_source_allocated(source, &ranges, &count, &err), &err);
	free(ranges);
	fixture_ok(disk_source_read(source, 0, granule, sizeof(granule), &err), &err);
	pid_t pid = reader_pid();
	assert_true(pid > 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(disk_source_read(source, 0, granule, sizeof(granule), &err), -1);
	assert_int_equal(err.code, ERR_PEER_LOST);
	assert_true(proc_alive(&f.backend));
	fixture_ok(disk_source_close(source, &err), &err);
	assert_int_equal(reader_pid(), 0);
	assert_true(backend_is_clean(&f));
	fixture_free(&f);
}

static void clean__backend_is_gone__is_done(void **state)
{
	struct fixture f;
	struct disk_source *source = NULL;
	struct err err = { 0 };
	(void)state;
	fixture_make(&f, FORMAT_RAW, SOURCE_SIZE_BYTES);
	fixture_ok(disk_source_open(&source, &f.disk, FIXTURE_MIGRATION, NULL, &err), &err);
	fixture_backend_end(&f);
	struct disk_range *ranges;
	size_t count;
	assert_int_equal(disk_source_swap(source, &ranges, &count, &err), -1);
	assert_int_equal(err.code, ERR_UNREACHABLE);
	fixture_ok(disk_source_clean(&f.disk, FIXTURE_MIGRATION, &err), &err);
	fixture_ok(disk_source_close(source, &err), &err);
	fixture_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(swap__guest_wrote_two_places__exactly_those_are_given),
		cmocka_unit_test(swap__backend_without_nbd_server__starts_and_stops_its_own),
		cmocka_unit_test(allocated__sparse_image__holes_are_left_out),
		cmocka_unit_test(leg_killed__connected_to_shadow__backend_and_guest_live),
		cmocka_unit_test(leg_killed__connected_to_live_node__backend_aborts),
		cmocka_unit_test(leg_killed__anywhere_in_a_swap__next_one_takes_over),
		cmocka_unit_test(swap__hundreds_under_load__backend_and_guest_live),
		cmocka_unit_test(dirty__asked_while_another_thread_swaps__answers),
		cmocka_unit_test(open__qcow2_that_nobody_flushes__is_refused),
		cmocka_unit_test(open__qcow2_with_a_backing_file__is_refused),
		cmocka_unit_test(reader_killed__qcow2__read_fails_and_backend_lives),
		cmocka_unit_test(clean__backend_is_gone__is_done),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
