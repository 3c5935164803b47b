/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The content function, and drover-guest as a process: ticks, control socket, dirty log, ends of all kinds. */
#include "tests/unit/sim_rig.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>

#include "agent/sim/pattern.h"

static const struct pattern sample = { .seed = 7,
	                               .pages = 1024,
	                               .tick_ms = 10,
	                               .dirty_bps = 1000000,
	                               .write_bps = 777777,
	                               .fill_percent = 25,
	                               .disks = 2,
	                               .blocks = { 512, 2048 } };

static void pattern__rates__no_page_is_lost_to_rounding(void **state)
{
	(void)state;
	uint64_t pages = 0, blocks = 0;
	for (uint64_t tick = 1; tick <= 1000; tick++) { /* ten seconds */
		pages += pattern_page_count(&sample, tick) - 1;
		blocks += pattern_block_count(&sample, tick);
	}
	assert_int_equal(pages, 10 * sample.dirty_bps / 4096);
	assert_int_equal(blocks, 10 * sample.write_bps / 4096);
}

static void pattern__places__are_inside_and_mostly_hot(void **state)
{
	(void)state;
	uint64_t all = 0, hot = 0, on[2] = { 0 };
	for (uint64_t tick = 1; tick <= 2000; tick++) {
		assert_int_equal(pattern_page_at(&sample, tick, 0), 0);
		for (uint64_t k = 1; k < pattern_page_count(&sample, tick); k++) {
			uint64_t page = pattern_page_at(&sample, tick, k);
			assert_true(page < sample.pages);
			all++;
			hot += page < sample.pages / 8;
		}
		for (uint64_t k = 0; k < pattern_block_count(&sample, tick); k++) {
			unsigned disk;
			uint64_t block;
			pattern_block_at(&sample, tick, k, &disk, &block);
			assert_true(disk < 2 && block < sample.blocks[disk]);
			on[disk]++;
		}
	}
	assert_true(hot > all * 85 / 100 && hot < all);
	assert_true(on[0] > 1000 && on[1] > 1000);
}

static void pattern__contents__differ_in_tick_address_kind_and_seed(void **state)
{
	(void)state;
	uint64_t a[PATTERN_WORDS], b[PATTERN_WORDS], tick;
	struct pattern other = sample;
	other.seed++;
	pattern_page(&sample, 5, 9, a);
	assert_true(pattern_page_tick(&sample, a, 9, &tick));
	assert_int_equal(tick, 5);
	assert_false(pattern_page_tick(&sample, a, 8, &tick));
	assert_false(pattern_page_tick(&other, a, 9, &tick));
	pattern_page(&sample, 6, 9, b);
	assert_memory_not_equal(a + 4, b + 4, 64);
	pattern_page(&sample, 5, 10, b);
	assert_memory_not_equal(a + 4, b + 4, 64);
	pattern_page(&other, 5, 9, b);
	assert_memory_not_equal(a + 4, b + 4, 64);
	pattern_block(&sample, 5, 0, 9, b);
	assert_memory_not_equal(a + 4, b + 4, 64);
	assert_false(pattern_page_tick(&sample, b, 9, &tick));
	pattern_block(&sample, 5, 1, 9, a);
	assert_memory_not_equal(a + 4, b + 4, 64);
}

static void pattern__hash__zero_page_adds_nothing_and_place_counts(void **state)
{
	(void)state;
	uint64_t words[PATTERN_WORDS] = { 0 };
	assert_int_equal(pattern_page_hash(words, 3), 0);
	words[PATTERN_WORDS - 1] = 1;
	assert_int_not_equal(pattern_page_hash(words, 3), 0);
	assert_int_not_equal(pattern_page_hash(words, 3), pattern_page_hash(words, 4));
}

struct host {
	struct rig rig;
	struct paths paths;
	struct sim_record record;
};

static int set_up(void **state)
{
	struct host *host = calloc(1, sizeof(*host));
	rig_open(&host->rig);
	rig_host(&host->rig, "h", &host->paths);
	rig_record(&host->paths, "web", true, &host->record);
	host->record.tick_ms = 2;
	rig_start(&host->paths, &host->record);
	*state = host;
	return 0;
}

static int tear_down(void **state)
{
	struct host *host = *state;
	sim_guest_end(&host->paths, "web", "destroy", NULL);
	rig_close(&host->rig);
	free(host);
	return 0;
}

static void request(struct host *host, json_t *what)
{
	struct err err = { 0 };
	rig_ok(sim_call(&host->paths, "web", what, SIM_SUSPEND_MS, NULL, NULL, &err), &err);
}

static bool refused(struct host *host, json_t *what, enum err_code code)
{
	struct err err = { 0 };
	return sim_call(&host->paths, "web", what, SIM_CALL_MS, NULL, NULL, &err) == -1 && err.code == code;
}

/* The last tick in the ledger; every tick must be there once, in order. */
static uint64_t ledger_last(const struct host *host)
{
	char path[PATHS_MAX + 8], name[64];
	uint64_t tick, last = 0;
	snprintf(path, sizeof(path), "%s/ledger", host->paths.home);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	while (fscanf(file, "%63s %" SCNu64 " %*s %*s", name, &tick) == 2) {
		assert_string_equal(name, "web");
		assert_int_equal(tick, last + 1);
		last = tick;
	}
	fclose(file);
	return last;
}

static void suspend__then_resume__stands_still_between(void **state)
{
	struct host *host = *state;
	rig_wait_tick(&host->paths, "web", 20);
	request(host, json_pack("{s:s}", "op", "suspend"));
	long long tick = rig_ask(&host->paths, "web", "tick", NULL);
	assert_int_equal(ledger_last(host), tick);
	request(host, json_pack("{s:s}", "op", "suspend")); /* idempotent */
	int64_t until_ms = disk_now_ms() + 50;              /* many ticks' time */
	while (disk_now_ms() < until_ms)
		rig_pause();
	assert_int_equal(rig_ask(&host->paths, "web", "tick", NULL), tick);
	request(host, json_pack("{s:s}", "op", "resume"));
	rig_wait_tick(&host->paths, "web", tick + 10);
	ledger_last(host);
}

static void throttle__90_percent__ticks_ten_times_slower(void **state)
{
	struct host *host = *state;
	request(host, json_pack("{s:s,s:i}", "op", "throttle", "percent", 90));
	long long tick = rig_ask(&host->paths, "web", "tick", NULL);
	int64_t began_ms = disk_now_ms();
	rig_wait_tick(&host->paths, "web", tick + 12);
	assert_true(disk_now_ms() - began_ms >= 200); /* 10 whole ticks of 20 ms at least */
	request(host, json_pack("{s:s}", "op", "resume"));
	assert_int_equal(rig_ask(&host->paths, "web", "throttle", NULL), 0);
	assert_true(refused(host, json_pack("{s:s,s:i}", "op", "throttle", "percent", 101), ERR_USAGE));
}

/* Every page that a tick wrote since the log was switched on has its bit. */
static void dirty_log__ticks_run__has_their_pages(void **state)
{
	struct host *host = *state;
	struct err err = { 0 };
	int memory_fd, bitmap_fd;
	uint64_t pages = host->record.memory_bytes / 4096, expected[64] = { 0 };
	struct pattern pattern = {
		.seed = host->record.seed, .pages = pages, .tick_ms = 2, .dirty_bps = host->record.dirty_bps
	};
	assert_int_equal(pages, sizeof(expected) * 8);
	rig_ok(sim_call_fds(&host->paths, "web", NULL, &memory_fd, &bitmap_fd, &err), &err);
	uint64_t *bitmap = mmap(NULL, sizeof(expected), PROT_READ, MAP_SHARED, bitmap_fd, 0);
	const uint64_t *memory = mmap(NULL, host->record.memory_bytes, PROT_READ, MAP_SHARED, memory_fd, 0);
	assert_true(bitmap != MAP_FAILED && memory != MAP_FAILED);
	request(host, json_pack("{s:s,s:b}", "op", "dirty-log", "on", 1));
	long long on = rig_ask(&host->paths, "web", "tick", NULL);
	rig_wait_tick(&host->paths, "web", on + 30);
	request(host, json_pack("{s:s}", "op", "suspend"));
	long long to = rig_ask(&host->paths, "web", "tick", NULL);
	/* the tick after `on` may have begun before the log was switched on */
	for (uint64_t tick = (uint64_t)on + 2; tick <= (uint64_t)to; tick++)
		for (uint64_t k = 0; k < pattern_page_count(&pattern, tick); k++) {
			uint64_t page = pattern_page_at(&pattern, tick, k);
			expected[page / 64] |= UINT64_C(1) << (page % 64);
		}
	for (size_t i = 0; i < 64; i++)
		assert_int_equal(bitmap[i] & expected[i], expected[i]);
	/* and the memory is what the last tick left */
	uint64_t words[PATTERN_WORDS];
	pattern_page(&pattern, (uint64_t)to, 0, words);
	assert_memory_equal(memory, words, sizeof(words));
	munmap(bitmap, sizeof(expected));
	munmap((void *)(uintptr_t)memory, host->record.memory_bytes);
	close(memory_fd);
	close(bitmap_fd);
}

static void shutdown__then_start__goes_on_and_qcow2_is_sound(void **state)
{
	struct host *host = *state;
	struct err err = { 0 };
	struct proc_id id;
	rig_wait_tick(&host->paths, "web", 120);
	rig_ok(sim_guest_end(&host->paths, "web", "shutdown", &err), &err);
	uint64_t last = ledger_last(host);
	assert_false(sim_guest_alive(&host->paths, "web", &id));
	assert_false(sim_backend_alive(&host->paths, "web", &id));
	const char *argv[] = { "qemu-img", "check", "-q", host->record.disks[1].path, NULL };
	rig_ok(proc_run(argv, NULL, NULL, NULL, RIG_WAIT_MS, &err), &err);
	rig_ok(sim_guest_start(&host->paths, "web", &err), &err);
	rig_wait_tick(&host->paths, "web", (long long)last + 10);
	ledger_last(host);
}

static void killed__then_started__goes_on_with_the_next_tick(void **state)
{
	struct host *host = *state;
	struct err err = { 0 };
	struct proc_id id;
	rig_wait_tick(&host->paths, "web", 30);
	assert_true(sim_guest_alive(&host->paths, "web", &id));
	rig_ok(proc_kill(&id, RIG_WAIT_MS, &err), &err);
	uint64_t last = ledger_last(host);
	assert_true(refused(host, json_pack("{s:s}", "op", "status"), ERR_HYPERVISOR));
	rig_ok(sim_guest_start(&host->paths, "web", &err), &err);
	rig_wait_tick(&host->paths, "web", (long long)last + 10);
	ledger_last(host);
}

/* Stands before the real one in PATH, and dies as often as there are letters in the file. */
static void fake_backend(const struct host *host, const char *letters, char ret_path[4096])
{
	char name[128];
	const char *path = getenv("PATH");
	snprintf(ret_path, 4096, "%s", path);
	snprintf(name, sizeof(name), "%s/deaths", host->rig.dir);
	FILE *file = fopen(name, "w");
	assert_non_null(file);
	fputs(letters, file);
	fclose(file);
	snprintf(name, sizeof(name), "%s/qemu-storage-daemon", host->rig.dir);
	file = fopen(name, "w");
	assert_non_null(file);
	fprintf(file,
	        "#!/bin/sh\nread -r left <%s/deaths\n[ -z \"$left\" ] || { echo \"${left#?}\" >%s/deaths; kill -KILL $$; }\n"
	        "PATH='%s'\nexec qemu-storage-daemon \"$@\"\n",
	        host->rig.dir, host->rig.dir, path);
	fclose(file);
	assert_int_equal(chmod(name, 0700), 0);
	char longer[4200];
	snprintf(longer, sizeof(longer), "%s:%s", host->rig.dir, ret_path);
	assert_int_equal(setenv("PATH", longer, 1), 0);
}

static void backend_dies_at_its_start__is_started_again_and_not_for_ever(void **state)
{
	struct host *host = *state;
	struct err err = { 0 };
	struct proc_id id;
	char path[4096];
	uint64_t last = ledger_last(host);
	rig_ok(sim_guest_end(&host->paths, "web", "shutdown", &err), &err);
	fake_backend(host, "xx", path);
	int result = sim_guest_start(&host->paths, "web", &err);
	setenv("PATH", path, 1);
	rig_ok(result, &err);
	rig_wait_tick(&host->paths, "web", (long long)last + 10);
	rig_ok(sim_guest_end(&host->paths, "web", "shutdown", &err), &err);
	fake_backend(host, "xxx", path);
	result = sim_guest_start(&host->paths, "web", &err);
	setenv("PATH", path, 1);
	assert_int_equal(result, -1);
	assert_non_null(strstr(err.text, "block backend"));
	assert_false(sim_backend_alive(&host->paths, "web", &id));
	rig_ok(sim_guest_start(&host->paths, "web", &err), &err);
}

static void backend_killed__guest_hangs_and_says_so(void **state)
{
	struct host *host = *state;
	struct err err = { 0 };
	struct proc_id id;
	char text[32] = "";
	assert_true(sim_backend_alive(&host->paths, "web", &id));
	rig_ok(proc_kill(&id, RIG_WAIT_MS, &err), &err);
	int64_t deadline_ms = disk_now_ms() + RIG_WAIT_MS;
	while (strcmp(text, "failed") != 0) {
		rig_ask(&host->paths, "web", "state", text);
		assert_true(disk_now_ms() < deadline_ms);
		rig_pause();
	}
	assert_true(refused(host, json_pack("{s:s}", "op", "suspend"), ERR_BACKEND));
}

static void control__nonsense__is_refused_and_harms_nothing(void **state)
{
	struct host *host = *state;
	assert_true(refused(host, json_pack("{s:s}", "op", "dance"), ERR_USAGE));
	assert_true(refused(host, json_pack("{s:i}", "op", 7), ERR_USAGE));
	assert_true(refused(host, json_array(), ERR_USAGE));
	assert_true(refused(host, json_pack("{s:s}", "op", "dirty-log"), ERR_USAGE));
	assert_true(refused(host, json_pack("{s:s}", "op", "incoming"), ERR_CONFLICT));
	assert_true(refused(host, json_pack("{s:s}", "op", "attach"), ERR_CONFLICT));
	assert_true(refused(host, json_pack("{s:s}", "op", "discard"), ERR_TOO_LATE));
	rig_wait_tick(&host->paths, "web", rig_ask(&host->paths, "web", "tick", NULL) + 5);
}

static void start__record_is_being_destroyed__is_refused(void **state)
{
	struct host *host = *state;
	struct err err = { 0 };
	rig_ok(sim_guest_end(&host->paths, "web", "shutdown", &err), &err);
	host->record.state = SIM_DESTROYING;
	rig_ok(sim_record_save(&host->paths, &host->record, &err), &err);
	assert_int_equal(sim_guest_start(&host->paths, "web", &err), -1);
	assert_non_null(strstr(err.text, "being destroyed"));
}

static void record__damaged__is_refused_by_name(void **state)
{
	struct host *host = *state;
	struct err err = { 0 };
	struct sim_record record;
	char path[PATHS_MAX + 32];
	snprintf(path, sizeof(path), "%s/vms/bad.json", host->paths.lib);
	FILE *file = fopen(path, "w");
	fputs("{\"state\":\"running\"}", file);
	fclose(file);
	assert_int_equal(sim_record_load(&host->paths, "bad", &record, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
	assert_non_null(strstr(err.text, "bad.json"));
	assert_int_equal(sim_record_load(&host->paths, "../etc", &record, &err), -1);
	assert_int_equal(err.code, ERR_USAGE);
	assert_int_equal(sim_record_load(&host->paths, "none", &record, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_VM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pattern__rates__no_page_is_lost_to_rounding),
		cmocka_unit_test(pattern__places__are_inside_and_mostly_hot),
		cmocka_unit_test(pattern__contents__differ_in_tick_address_kind_and_seed),
		cmocka_unit_test(pattern__hash__zero_page_adds_nothing_and_place_counts),
		cmocka_unit_test_setup_teardown(suspend__then_resume__stands_still_between, set_up, tear_down),
		cmocka_unit_test_setup_teardown(throttle__90_percent__ticks_ten_times_slower, set_up, tear_down),
		cmocka_unit_test_setup_teardown(dirty_log__ticks_run__has_their_pages, set_up, tear_down),
		cmocka_unit_test_setup_teardown(shutdown__then_start__goes_on_and_qcow2_is_sound, set_up, tear_down),
		cmocka_unit_test_setup_teardown(killed__then_started__goes_on_with_the_next_tick, set_up, tear_down),
		cmocka_unit_test_setup_teardown(backend_dies_at_its_start__is_started_again_and_not_for_ever, set_up,
		                                tear_down),
		cmocka_unit_test_setup_teardown(backend_killed__guest_hangs_and_says_so, set_up, tear_down),
		cmocka_unit_test_setup_teardown(control__nonsense__is_refused_and_harms_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(start__record_is_being_destroyed__is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(record__damaged__is_refused_by_name, set_up, tear_down),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
