/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verify can say no: a fleet with real guests in it passes; then one thing is spoilt at a time, and must be named. */
#include "tests/unit/sim_rig.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>

#include "agent/disk/qmp.h"
#include "agent/journal.h"
#include "agent/sim/fleet.h"
#include "agent/sim/pattern.h"
#include "agent/sim/verify.h"

#define TICKS 230

struct world {
	struct rig rig;
	struct fleet *fleet;
	struct fleet_host *a, *b;
	struct sim_record record;
	struct pattern pattern;
	char report[16384];
};

/* A file as it was, to be put back after it was spoilt. */
struct copy {
	char path[PATHS_MAX];
	char *bytes;
	size_t size;
};

static void copy_take(struct copy *copy, const char *path)
{
	struct stat st;
	snprintf(copy->path, sizeof(copy->path), "%s", path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	copy->size = (size_t)st.st_size;
	copy->bytes = malloc(copy->size + 1);
	assert_non_null(copy->bytes);
	assert_int_equal(read(fd, copy->bytes, copy->size), copy->size);
	copy->bytes[copy->size] = '\0';
	close(fd);
}

static void copy_put(struct copy *copy)
{
	int fd = open(copy->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, copy->bytes, copy->size), copy->size);
	close(fd);
	free(copy->bytes);
}

static int verify(struct world *world)
{
	struct err err = { 0 };
	FILE *out = fmemopen(world->report, sizeof(world->report) - 1, "w");
	assert_non_null(out);
	memset(world->report, 0, sizeof(world->report));
	int result = verify_fleet(world->fleet->dir, false, out, &err);
	fclose(out);
	if (result < 0)
		fail_msg("verify: %s", err.text);
	return result;
}

static void assert_clean(struct world *world)
{
	if (verify(world) != 0)
		fail_msg("not clean: %s", world->report);
	assert_memory_equal(world->report, "ok: ", 4);
}

/* A fault that says all of this, and nothing but faults. */
static void assert_fault(struct world *world, const char *words)
{
	assert_int_equal(verify(world), 1);
	if (strstr(world->report, words) == NULL)
		fail_msg("expected '%s', got: %s", words, world->report);
	assert_null(strstr(world->report, "ok: "));
}

static int make(void **state, bool down)
{
	struct world *world = calloc(1, sizeof(*world));
	struct err err = { 0 };
	world->fleet = calloc(1, sizeof(*world->fleet));
	rig_open(&world->rig);
	rig_ok(fleet_make(world->fleet, world->rig.dir, "a1@A,b1@B", "nbd", &err), &err);
	world->a = fleet_host(world->fleet, "a1", &err);
	world->b = fleet_host(world->fleet, "b1", &err);
	struct sim_record *record = &world->record;
	*record = (struct sim_record) { .name = "web",
		                        .memory_bytes = (uint64_t)4 << 20,
		                        .vcpus = 1,
		                        .seed = 99,
		                        .tick_ms = 2,
		                        .dirty_bps = 8u << 20,
		                        .write_bps = 8u << 20,
		                        .fill_percent = 10,
		                        .disk_count = 2 };
	for (unsigned i = 0; i < 2; i++) {
		snprintf(record->disks[i].name, LIMIT_NAME, "xvd%c", 'a' + i);
		snprintf(record->disks[i].sr, LIMIT_NAME, "%s", i == 0 ? "local" : "qcow");
		record->disks[i].size_bytes = (uint64_t)4 << 20;
	}
	rig_ok(fleet_create(world->fleet, world->a, record, &err), &err);
	world->pattern = (struct pattern) { .seed = record->seed,
		                            .pages = record->memory_bytes / 4096,
		                            .tick_ms = 2,
		                            .dirty_bps = record->dirty_bps,
		                            .write_bps = record->write_bps,
		                            .fill_percent = 10,
		                            .disks = 2,
		                            .blocks = { 1024, 1024 } };
	rig_wait_tick(&world->a->paths, "web", TICKS);
	if (down)
		rig_ok(fleet_down(world->fleet, &err), &err);
	*state = world;
	return 0;
}

static int make_down(void **state)
{
	return make(state, true);
}

static int make_up(void **state)
{
	return make(state, false);
}

static int unmake(void **state)
{
	struct world *world = *state;
	fleet_down(world->fleet, NULL);
	rig_close(&world->rig);
	free(world->fleet);
	free(world);
	return 0;
}

static void ledger_path(const struct fleet_host *host, char ret_path[PATHS_MAX])
{
	snprintf(ret_path, PATHS_MAX, "%.200s/ledger", host->paths.home);
}

/* The line of a tick in a ledger held in memory. */
static char *line_of(char *text, unsigned tick)
{
	char words[32];
	snprintf(words, sizeof(words), "web %u ", tick);
	char *at = strstr(text, words);
	assert_non_null(at);
	return at;
}

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

/* Ledger of a1 with the text put in place of it. */
static void with_ledger(struct world *world, const char *text, const char *words)
{
	char path[PATHS_MAX];
	struct copy copy;
	ledger_path(world->a, path);
	copy_take(&copy, path);
	write_file(path, text);
	assert_fault(world, words);
	copy_put(&copy);
}

static char *ledger_text(struct world *world)
{
	char path[PATHS_MAX];
	struct copy copy;
	ledger_path(world->a, path);
	copy_take(&copy, path);
	return copy.bytes;
}

static void fleet_down__clean(void **state)
{
	assert_clean(*state);
}

static void ledger__tick_twice__is_a_fault(void **state)
{
	char *text = ledger_text(*state), *more = malloc(2 * strlen(text));
	char *line = line_of(text, 50), *next = strchr(line, '\n') + 1;
	sprintf(more, "%.*s%.*s%s", (int)(next - text), text, (int)(next - line), line, next);
	with_ledger(*state, more, "run twice, the first is tick 50");
	free(more);
	free(text);
}

static void ledger__tick_missing__is_a_fault(void **state)
{
	char *text = ledger_text(*state), *line = line_of(text, 51), *next = strchr(line, '\n') + 1;
	memmove(line, next, strlen(next) + 1);
	with_ledger(*state, text, "ticks 51 to 51 were left out");
	free(text);
}

static void ledger__first_tick_missing__is_a_fault(void **state)
{
	char *text = ledger_text(*state);
	with_ledger(*state, strchr(text, '\n') + 1, "ticks 1 to 1 were left out");
	free(text);
}

static void ledger__line_is_damaged__is_a_fault(void **state)
{
	char *text = ledger_text(*state), *line = line_of(text, 60);
	line[4] = 'x';
	with_ledger(*state, text, "cannot be read");
	free(text);
}

static void ledger__checksum_is_wrong__is_a_fault(void **state)
{
	char *text = ledger_text(*state), *line = line_of(text, 100), *end = strchr(line, '\n');
	end[-1] = end[-1] == '0' ? '1' : '0';
	with_ledger(*state, text, "checksum of tick 100 on a1 is wrong (1 of 2");
	free(text);
}

static void ledger__checksum_is_missing__is_a_fault(void **state)
{
	char *text = ledger_text(*state), *line = line_of(text, 200), *end = strchr(line, '\n');
	end[-16] = '-';
	memmove(end - 15, end, strlen(end) + 1);
	with_ledger(*state, text, "1 ticks have no checksum where one is due");
	free(text);
}

static void ledger__two_hosts_at_once__is_a_fault(void **state)
{
	struct world *world = *state;
	char path[PATHS_MAX];
	char *text = ledger_text(world), *line = line_of(text, 120), *end = strchr(line_of(text, 125), '\n') + 1;
	ledger_path(world->b, path);
	*end = '\0';
	write_file(path, line);
	assert_fault(world, "ran in two places at once");
	assert_non_null(strstr(world->report, "run twice, the first is tick 120 (a1 and b1)"));
	unlink(path);
	free(text);
}

static void ledger__other_host_ran_ahead__is_a_fault(void **state)
{
	/* no tick twice: b1 ran the last one before a1 was through with the others */
	struct world *world = *state;
	char path[PATHS_MAX], moved[128];
	struct copy copy;
	char *text = ledger_text(world), *line = line_of(text, 225);
	unsigned long long at_ns = strtoull(strchr(strchr(line_of(text, 150), ' ') + 1, ' '), NULL, 10);
	snprintf(moved, sizeof(moved), "web 225 %llu -\n", at_ns + 1);
	char *next = strchr(line, '\n') + 1;
	memmove(line, next, strlen(next) + 1);
	ledger_path(world->a, path);
	copy_take(&copy, path);
	write_file(path, text);
	ledger_path(world->b, path);
	write_file(path, moved);
	assert_fault(world, "ran in two places at once");
	unlink(path);
	copy_put(&copy);
	free(text);
}

static void ledger__guest_that_nobody_made__is_a_fault(void **state)
{
	struct world *world = *state;
	char path[PATHS_MAX];
	ledger_path(world->b, path);
	write_file(path, "ghost 1 1 -\n");
	assert_fault(world, "of guest ghost, which nobody made");
	unlink(path);
}

/* A block that ticks wrote, and the last of them. */
static uint64_t written_block(const struct world *world, unsigned disk, uint64_t *ret_tick)
{
	for (uint64_t tick = TICKS - 10; tick > 0; tick--)
		for (uint64_t k = 0; k < pattern_block_count(&world->pattern, tick); k++) {
			unsigned on;
			uint64_t block;
			pattern_block_at(&world->pattern, tick, k, &on, &block);
			if (on == disk) {
				*ret_tick = tick;
				return block;
			}
		}
	fail();
	return 0;
}

static void with_block(struct world *world, uint64_t block, const uint64_t *words, const char *fault)
{
	const char *path = world->record.disks[0].path;
	struct copy copy;
	copy_take(&copy, path);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, words, PATTERN_PAGE_BYTES, (off_t)(block * PATTERN_PAGE_BYTES)),
	                 PATTERN_PAGE_BYTES);
	close(fd);
	assert_fault(world, fault);
	copy_put(&copy);
}

static void image__acknowledged_write_is_zero__is_lost(void **state)
{
	uint64_t words[PATTERN_WORDS] = { 0 }, tick;
	with_block(*state, written_block(*state, 0, &tick), words, "1 acknowledged writes are lost");
}

static void image__block_holds_an_older_tick__is_lost(void **state)
{
	struct world *world = *state;
	uint64_t words[PATTERN_WORDS], tick, block = written_block(world, 0, &tick);
	pattern_block(&world->pattern, tick - 1, 0, block, words);
	with_block(world, block, words, "1 acknowledged writes are lost");
}

static void image__byte_is_flipped__is_a_fault(void **state)
{
	struct world *world = *state;
	uint64_t words[PATTERN_WORDS], tick, block = written_block(world, 0, &tick);
	int fd = open(world->record.disks[0].path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, words, sizeof(words), (off_t)(block * PATTERN_PAGE_BYTES)), sizeof(words));
	close(fd);
	words[PATTERN_WORDS - 1] ^= 1;
	with_block(world, block, words, "1 blocks hold what the guest never wrote");
}

static void image__block_of_a_tick_that_never_came__is_a_fault(void **state)
{
	struct world *world = *state;
	uint64_t words[PATTERN_WORDS], tick, block = written_block(world, 0, &tick);
	pattern_block(&world->pattern, tick + 100000, 0, block, words);
	with_block(world, block, words, "hold a tick that did not write there");
}

static void image__byte_is_flipped_in_qcow2__is_a_fault(void **state)
{
	struct world *world = *state;
	struct copy copy;
	uint64_t words[PATTERN_WORDS];
	copy_take(&copy, world->record.disks[1].path);
	pattern_block(&world->pattern, 0, 1, 0, words);
	char *block = memmem(copy.bytes, copy.size, words, sizeof(words[0]));
	assert_non_null(block);
	int fd = open(copy.path, O_WRONLY | O_CLOEXEC);
	char bad = (char)(block[2000] ^ 4);
	assert_int_equal(pwrite(fd, &bad, 1, block - copy.bytes + 2000), 1);
	close(fd);
	assert_fault(world, "disk xvdb: 1 blocks hold what the guest never wrote");
	copy_put(&copy);
}

static void leftovers__file(struct world *world, const char *below)
{
	char path[PATHS_MAX + 64];
	snprintf(path, sizeof(path), "%s/%s", world->b->paths.home, below);
	write_file(path, "x");
	assert_fault(world, path);
	unlink(path);
}

static void leftovers__files_in_run_and_sr__are_faults(void **state)
{
	leftovers__file(*state, "run/leg-7.sock");
	leftovers__file(*state, "run/guest-web.sock");
	leftovers__file(*state, "sr/local/web.img");
	leftovers__file(*state, "sr/qcow/web.img.reserve");
	leftovers__file(*state, "lib/vms/.web.123");
}

static void leftovers__incoming_vm__is_a_fault(void **state)
{
	struct world *world = *state;
	struct err err = { 0 };
	struct sim_record record = world->record;
	record.state = SIM_INCOMING;
	record.disk_count = 0;
	rig_ok(sim_record_save(&world->b->paths, &record, &err), &err);
	assert_fault(world, "host b1: incoming VM web was left behind");
	rig_ok(sim_record_remove(&world->b->paths, "web", &err), &err);
}

static void owners__on_two_hosts__is_a_fault(void **state)
{
	struct world *world = *state;
	struct err err = { 0 };
	rig_ok(sim_record_save(&world->b->paths, &world->record, &err), &err);
	assert_fault(world, "is on a1 and b1 at once");
	rig_ok(sim_record_remove(&world->b->paths, "web", &err), &err);
}

static void owners__on_no_host__is_a_fault(void **state)
{
	struct world *world = *state;
	struct err err = { 0 };
	rig_ok(sim_record_remove(&world->a->paths, "web", &err), &err);
	assert_fault(world, "guest web: is on no host");
	rig_ok(sim_record_save(&world->a->paths, &world->record, &err), &err);
}

/* Last of those on the fleet that is down: the journal stays. */
static void leftovers__that_a_journal_claims__are_none(void **state)
{
	struct world *world = *state;
	struct journal *journal;
	struct err err = { 0 };
	int64_t id;
	struct journal_resource resource = {
		.migration = 7, .generation = 1, .kind = RESOURCE_DISK, .state = RESOURCE_MADE
	};
	snprintf(resource.name, sizeof(resource.name), "xvda");
	snprintf(resource.path, sizeof(resource.path), "%.150s/sr/local/kept.raw", world->b->paths.home);
	assert_clean(world); /* all that was spoilt before was put back */
	write_file(resource.path, "x");
	assert_fault(world, resource.path);
	rig_ok(journal_open(&journal, &world->b->paths, &err), &err);
	rig_ok(journal_resource_add(journal, &resource, &id, &err), &err);
	assert_clean(world);
	rig_ok(journal_resource_gone(journal, id, &err), &err);
	journal_close(journal);
	assert_fault(world, resource.path);
	unlink(resource.path);
}

static void fleet_up__clean(void **state)
{
	assert_clean(*state);
}

/* A process under another program's name that waits to be killed. */
static void start_as(struct world *world, const char *program, const char *extra, struct proc_id *ret_id)
{
	char link[PATHS_MAX];
	struct err err = { 0 };
	snprintf(link, sizeof(link), "%.60s/%s", world->rig.dir, program);
	assert_int_equal(symlink("/bin/sh", link), 0);
	const char *argv[] = { link, "-c", "kill -STOP $$", "--home", world->a->paths.home, extra, NULL };
	rig_ok(proc_start(ret_id, argv, NULL, NULL, -1, PROC_DIE_WITH_US, &err), &err);
	unlink(link);
}

static void processes__stray_ones__are_faults(void **state)
{
	struct world *world = *state;
	static const struct {
		const char *program, *extra, *words;
	} strays[] = {
		{ "drover-leg-sim", "--migration=7", "of migration 7 was left behind" },
		{ "drover-guest", "--name=web", "stray guest process" },
		{ "qemu-nbd", "x", "stray process" },
		{ "nbdkit", "x", "stray process" },
		{ "drover-agent", "x", "second agent" },
	};
	for (size_t i = 0; i < sizeof(strays) / sizeof(strays[0]); i++) {
		struct proc_id id;
		start_as(world, strays[i].program, strays[i].extra, &id);
		assert_fault(world, strays[i].words);
		proc_kill(&id, RIG_WAIT_MS, NULL);
	}
	struct proc_id looking; /* the agent's own look round the host */
	start_as(world, "drover-leg-sim", "inventory", &looking);
	assert_clean(world);
	proc_kill(&looking, RIG_WAIT_MS, NULL);
}

static void backend__bitmap_left_behind__is_a_fault(void **state)
{
	struct world *world = *state;
	struct qmp *qmp;
	struct err err = { 0 };
	char path[LIMIT_PATH];
	rig_ok(sim_path(&world->a->paths, "web", SIM_PATH_QMP_LEG, path, &err), &err);
	rig_ok(qmp_open(&qmp, path, NULL, RIG_WAIT_MS, &err), &err);
	rig_ok(qmp_run(qmp, "block-dirty-bitmap-add", json_pack("{s:s,s:s}", "node", "disk-xvda", "name", "drover-7"),
	               QMP_COMMAND_MS, NULL, &err),
	       &err);
	assert_fault(world, "bitmap drover-7 was left behind");
	rig_ok(qmp_run(qmp, "block-dirty-bitmap-remove",
	               json_pack("{s:s,s:s}", "node", "disk-xvda", "name", "drover-7"), QMP_COMMAND_MS, NULL, &err),
	       &err);
	rig_ok(qmp_run(qmp, "blockdev-add",
	               json_pack("{s:s,s:s,s:i}", "driver", "null-co", "node-name", "shadow", "size", 65536),
	               QMP_COMMAND_MS, NULL, &err),
	       &err);
	assert_fault(world, "node shadow was left behind");
	rig_ok(qmp_run(qmp, "blockdev-del", json_pack("{s:s}", "node-name", "shadow"), QMP_COMMAND_MS, NULL, &err),
	       &err);
	qmp_close(qmp);
	assert_clean(world);
}

static void guest__suspended_for_no_reason__is_a_fault(void **state)
{
	struct world *world = *state;
	struct err err = { 0 };
	rig_ok(sim_call(&world->a->paths, "web", json_pack("{s:s}", "op", "suspend"), SIM_SUSPEND_MS, NULL, NULL, &err),
	       &err);
	assert_fault(world, "VM web is suspended, and no journal knows why");
	rig_ok(sim_call(&world->a->paths, "web", json_pack("{s:s}", "op", "resume"), SIM_CALL_MS, NULL, NULL, &err),
	       &err);
	assert_clean(world);
}

static void power_cut__then_boot__nothing_is_lost(void **state)
{
	struct world *world = *state;
	struct err err = { 0 };
	struct proc_id id;
	unsigned held;
	rig_ok(fleet_power_off(world->fleet, world->a, &err), &err);
	assert_false(sim_guest_alive(&world->a->paths, "web", &id));
	assert_false(sim_backend_alive(&world->a->paths, "web", &id));
	assert_clean(world);
	rig_ok(fleet_start_guests(world->a, &held, &err), &err);
	assert_int_equal(held, 0);
	rig_wait_tick(&world->a->paths, "web", rig_ask(&world->a->paths, "web", "tick", NULL) + 110);
	assert_clean(world);
}

/* Last: the guest is dead after it. */
static void guest__dead_on_a_host_that_is_up__is_a_fault(void **state)
{
	struct world *world = *state;
	struct err err = { 0 };
	struct proc_id agent, guest;
	start_as(world, "drover-agent", "x", &agent);
	rig_ok(paths_write_pid(&world->a->paths, "agent", agent.pid, &err), &err);
	assert_clean(world);
	assert_true(sim_guest_alive(&world->a->paths, "web", &guest));
	rig_ok(proc_kill(&guest, RIG_WAIT_MS, &err), &err);
	assert_fault(world, "guest web: should run on a1, and does not");
	proc_kill(&agent, RIG_WAIT_MS, NULL);
}

int main(void)
{
	const struct CMUnitTest down[] = {
		cmocka_unit_test(fleet_down__clean),
		cmocka_unit_test(ledger__tick_twice__is_a_fault),
		cmocka_unit_test(ledger__tick_missing__is_a_fault),
		cmocka_unit_test(ledger__first_tick_missing__is_a_fault),
		cmocka_unit_test(ledger__line_is_damaged__is_a_fault),
		cmocka_unit_test(ledger__checksum_is_wrong__is_a_fault),
		cmocka_unit_test(ledger__checksum_is_missing__is_a_fault),
		cmocka_unit_test(ledger__two_hosts_at_once__is_a_fault),
		cmocka_unit_test(ledger__other_host_ran_ahead__is_a_fault),
		cmocka_unit_test(ledger__guest_that_nobody_made__is_a_fault),
		cmocka_unit_test(image__acknowledged_write_is_zero__is_lost),
		cmocka_unit_test(image__block_holds_an_older_tick__is_lost),
		cmocka_unit_test(image__byte_is_flipped__is_a_fault),
		cmocka_unit_test(image__block_of_a_tick_that_never_came__is_a_fault),
		cmocka_unit_test(image__byte_is_flipped_in_qcow2__is_a_fault),
		cmocka_unit_test(leftovers__files_in_run_and_sr__are_faults),
		cmocka_unit_test(leftovers__incoming_vm__is_a_fault),
		cmocka_unit_test(owners__on_two_hosts__is_a_fault),
		cmocka_unit_test(owners__on_no_host__is_a_fault),
		cmocka_unit_test(leftovers__that_a_journal_claims__are_none),
	};
	const struct CMUnitTest up[] = {
		cmocka_unit_test(fleet_up__clean),
		cmocka_unit_test(processes__stray_ones__are_faults),
		cmocka_unit_test(backend__bitmap_left_behind__is_a_fault),
		cmocka_unit_test(guest__suspended_for_no_reason__is_a_fault),
		cmocka_unit_test(power_cut__then_boot__nothing_is_lost),
		cmocka_unit_test(guest__dead_on_a_host_that_is_up__is_a_fault),
	};
	signal(SIGPIPE, SIG_IGN);
	int failed = cmocka_run_group_tests_name("verify, fleet down", down, make_down, unmake);
	return failed + cmocka_run_group_tests_name("verify, fleet up", up, make_up, unmake);
}
