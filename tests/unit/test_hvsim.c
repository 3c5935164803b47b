/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_sim: real guests on two simulated hosts, memory from one to the other over a socket. */
#include "tests/unit/sim_rig.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "agent/hypervisor/hypervisor.h"

#define MIGRATION 7u

static const struct hypervisor_ops *const ops = &hypervisor_sim;

struct move {
	struct rig rig;
	struct paths a, b;
	struct hypervisor *hv_a, *hv_b;
	struct sim_record record;
	struct msg_plan plan;
	int fds[2];
	struct hypervisor_source *source;
	struct hypervisor_dest *dest;
	unsigned passes;           /* rounds before the suspension */
	enum hypervisor_next last; /* what is answered after them */
	bool suspending, suspended, sent;
	uint64_t corrupt_at; /* flips a bit of the stream's byte; 0: none */
	uint64_t count;
	int send_result, receive_result;
	struct err send_err, receive_err;
};

static int write_socket(void *ctx, const void *bytes, size_t count, struct err *err)
{
	struct move *move = ctx;
	const unsigned char *next = bytes;
	while (count > 0) {
		ssize_t done;
		if (move->corrupt_at > move->count && move->corrupt_at < move->count + count) {
			unsigned char bad = (unsigned char)(*next ^ (move->corrupt_at == move->count + 1 ? 1 : 0));
			done = send(move->fds[0], &bad, 1, MSG_NOSIGNAL);
		} else {
			done = send(move->fds[0], next, count, MSG_NOSIGNAL);
		}
		if (done <= 0)
			return err_set(err, ERR_PEER_LOST, "gone");
		next += done;
		count -= (size_t)done;
		move->count += (uint64_t)done;
	}
	return 0;
}

static int read_socket(void *ctx, void *bytes, size_t count, struct err *err)
{
	struct move *move = ctx;
	ssize_t got = recv(move->fds[1], bytes, count, MSG_WAITALL);
	return got == (ssize_t)count ? 0 : err_set(err, ERR_PEER_LOST, "gone");
}

static enum hypervisor_next after_pass(void *ctx, const struct hypervisor_pass *pass)
{
	struct move *move = ctx;
	assert_int_equal(pass->total_bytes, move->record.memory_bytes);
	if (pass->pass < move->passes)
		rig_wait_tick(&move->a, move->record.name, rig_ask(&move->a, move->record.name, "tick", NULL) + 3);
	return pass->pass < move->passes ? HYPERVISOR_GO_ON : move->last;
}

static int on_suspending(void *ctx, struct err *err)
{
	(void)err;
	((struct move *)ctx)->suspending = true;
	return 0;
}

static int on_suspended(void *ctx, struct err *err)
{
	struct move *move = ctx;
	assert_true(move->suspending);
	assert_int_equal(ops->source_is_suspended(move->source, err), 1);
	move->suspended = true;
	return 0;
}

static void on_sent(void *ctx, uint64_t bytes, uint64_t took_ms)
{
	(void)bytes;
	(void)took_ms;
	((struct move *)ctx)->sent = true;
}

static void *send_it(void *ctx)
{
	struct move *move = ctx;
	struct hypervisor_send send = { .ctx = move,
		                        .write = write_socket,
		                        .pass = after_pass,
		                        .suspending = on_suspending,
		                        .suspended = on_suspended,
		                        .sent = on_sent };
	move->send_result = ops->source_send(move->source, &send, &move->send_err);
	shutdown(move->fds[0], SHUT_WR);
	return NULL;
}

static void *receive_it(void *ctx)
{
	struct move *move = ctx;
	struct hypervisor_receive receive = { .ctx = move, .read = read_socket };
	move->receive_result = ops->dest_receive(move->dest, &receive, &move->receive_err);
	if (move->receive_result != 0)
		shutdown(move->fds[1], SHUT_RDWR);
	return NULL;
}

static void make_plan(struct move *move)
{
	struct msg_inventory inv = { 0 };
	struct err err = { 0 };
	rig_ok(ops->inventory(move->hv_a, &inv, &err), &err);
	assert_int_equal(inv.vm_count, 1);
	assert_int_equal(inv.vms[0].state, VM_RUNNING);
	move->plan.vm = inv.vms[0];
	for (unsigned i = 0; i < inv.vms[0].disk_count; i++) {
		move->plan.to[i] = inv.vms[0].disks[i];
		move->plan.to[i].format = inv.vms[0].disks[i].format == FORMAT_RAW ? FORMAT_QCOW2 : FORMAT_RAW;
	}
	snprintf(move->plan.new_name, sizeof(move->plan.new_name), "renamed");
	free(inv.vms);
}

static int set_up(void **state)
{
	struct move *move = calloc(1, sizeof(*move));
	struct err err = { 0 };
	signal(SIGPIPE, SIG_IGN);
	rig_open(&move->rig);
	rig_host(&move->rig, "a", &move->a);
	rig_host(&move->rig, "b", &move->b);
	rig_ok(ops->open(&move->hv_a, &move->a, &err), &err);
	rig_ok(ops->open(&move->hv_b, &move->b, &err), &err);
	rig_record(&move->a, "web", true, &move->record);
	rig_start(&move->a, &move->record);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, move->fds), 0);
	make_plan(move);
	move->passes = 2;
	move->last = HYPERVISOR_SUSPEND;
	rig_ok(ops->source_open(move->hv_a, move->record.uuid, &move->source, &err), &err);
	*state = move;
	return 0;
}

static int tear_down(void **state)
{
	struct move *move = *state;
	ops->source_close(move->source);
	ops->dest_close(move->dest);
	sim_guest_end(&move->a, "web", "destroy", NULL);
	sim_guest_end(&move->b, "renamed", "destroy", NULL);
	ops->close(move->hv_a);
	ops->close(move->hv_b);
	close(move->fds[0]);
	close(move->fds[1]);
	rig_close(&move->rig);
	free(move);
	return 0;
}

static void create(struct move *move)
{
	struct err err = { 0 };
	rig_ok(ops->dest_create(move->hv_b, &move->plan, MIGRATION, &move->dest, &err), &err);
}

static void transfer(struct move *move)
{
	pthread_t sender, receiver;
	assert_int_equal(pthread_create(&sender, NULL, send_it, move), 0);
	assert_int_equal(pthread_create(&receiver, NULL, receive_it, move), 0);
	pthread_join(sender, NULL);
	pthread_join(receiver, NULL);
}

/* The leg's part: the last of the disks, here as a plain copy of the suspended guest's images. */
static void copy_disks(struct move *move, struct hypervisor_image *images)
{
	for (unsigned i = 0; i < move->record.disk_count; i++) {
		struct err err = { 0 };
		struct hypervisor_image *image = &images[i];
		memset(image, 0, sizeof(*image));
		snprintf(image->name, sizeof(image->name), "%s", move->record.disks[i].name);
		snprintf(image->sr, sizeof(image->sr), "other");
		snprintf(image->path, sizeof(image->path), "%.100s/sr/disk%u", move->b.home, i);
		image->format = move->plan.to[i].format;
		image->size_bytes = move->record.disks[i].size_bytes;
		const char *argv[] = { "qemu-img",
			               "convert",
			               "-U",
			               "-f",
			               i == 0 ? "raw" : "qcow2",
			               "-O",
			               i == 0 ? "qcow2" : "raw",
			               move->record.disks[i].path,
			               image->path,
			               NULL };
		rig_ok(proc_run(argv, NULL, NULL, NULL, RIG_WAIT_MS, &err), &err);
	}
}

static void arrive(struct move *move)
{
	struct hypervisor_image images[2];
	struct err err = { 0 };
	create(move);
	transfer(move);
	rig_ok(move->send_result, &move->send_err);
	rig_ok(move->receive_result, &move->receive_err);
	assert_true(move->suspended && move->sent);
	copy_disks(move, images);
	rig_ok(ops->dest_attach(move->dest, images, 2, &err), &err);
}

/* Ticks in both ledgers: each once, in order. Returns the last. */
static unsigned long long check_ledgers(struct move *move)
{
	unsigned long long last = 0, tick;
	const struct paths *both[2] = { &move->a, &move->b };
	for (unsigned i = 0; i < 2; i++) {
		char path[PATHS_MAX + 8], name[64];
		snprintf(path, sizeof(path), "%s/ledger", both[i]->home);
		FILE *file = fopen(path, "r");
		while (file != NULL && fscanf(file, "%63s %llu %*s %*s", name, &tick) == 2) {
			assert_string_equal(name, "web");
			assert_int_equal(tick, last + 1);
			last = tick;
		}
		if (file != NULL)
			fclose(file);
	}
	return last;
}

static void migration__all_goes_well__goes_on_with_the_next_tick(void **state)
{
	struct move *move = *state;
	struct msg_inventory inv = { 0 };
	struct err err = { 0 };
	struct proc_id id;
	arrive(move);
	assert_int_equal(ops->dest_state(move->dest, &err), 0);
	rig_ok(ops->inventory(move->hv_b, &inv, &err), &err);
	assert_int_equal(inv.vm_count, 0); /* not a VM of this host until it was unpaused */
	free(inv.vms);
	rig_ok(ops->dest_unpause(move->dest, &err), &err);
	rig_ok(ops->dest_unpause(move->dest, &err), &err); /* idempotent */
	assert_int_equal(ops->dest_state(move->dest, &err), 1);
	rig_ok(ops->source_destroy(move->hv_a, move->record.uuid, &err), &err);
	rig_ok(ops->source_destroy(move->hv_a, move->record.uuid, &err), &err);
	assert_false(sim_guest_alive(&move->a, "web", &id));
	assert_false(sim_backend_alive(&move->a, "web", &id));
	/* over the next checksum tick, so that the memory was read as a whole once */
	long long tick = rig_ask(&move->b, "renamed", "tick", NULL);
	rig_wait_tick(&move->b, "renamed", tick + 110);
	assert_true(check_ledgers(move) >= (unsigned long long)tick + 110);
	rig_ok(ops->inventory(move->hv_b, &inv, &err), &err);
	assert_int_equal(inv.vm_count, 1);
	assert_string_equal(inv.vms[0].name, "renamed");
	assert_string_equal(inv.vms[0].disks[0].sr, "other");
	free(inv.vms);
	/* one that ran is not an incoming one any more */
	assert_int_equal(ops->dest_destroy(move->hv_b, move->record.uuid, MIGRATION, &err), -1);
	assert_int_equal(err.code, ERR_TOO_LATE);
	assert_true(sim_guest_alive(&move->b, "renamed", &id));
}

static void migration__aborted_after_the_copy__source_runs_again_and_destination_holds_nothing(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	struct sim_record record;
	struct proc_id id;
	char text[32];
	arrive(move);
	rig_ok(ops->dest_destroy(move->hv_b, move->record.uuid, MIGRATION, &err), &err);
	rig_ok(ops->dest_destroy(move->hv_b, move->record.uuid, MIGRATION, &err), &err);
	assert_int_equal(ops->dest_state(move->dest, &err), 0);
	assert_int_equal(sim_record_find(&move->b, move->record.uuid, &record, &err), -1);
	assert_false(sim_guest_alive(&move->b, "renamed", &id));
	assert_false(sim_backend_alive(&move->b, "renamed", &id));
	assert_int_equal(ops->source_is_suspended(move->source, &err), 1);
	rig_ok(ops->source_flush(move->source, &err), &err);
	long long tick = rig_ask(&move->a, "web", "tick", NULL);
	rig_ok(ops->source_resume(move->source, &err), &err);
	rig_ok(ops->source_resume(move->source, &err), &err);
	assert_int_equal(ops->source_is_suspended(move->source, &err), 0);
	rig_wait_tick(&move->a, "web", tick + 5);
	rig_ok(ops->source_flush(move->source, &err), &err);
	rig_ask(&move->a, "web", "state", text);
	assert_string_equal(text, "running");
	check_ledgers(move);
}

static void adopt__memory_is_gone__it_is_the_hosts_own_and_boots_from_its_disks(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	struct sim_record record;
	arrive(move);
	assert_int_equal(ops->dest_adopt(move->hv_b, move->record.uuid, MIGRATION, &err), -1); /* it can be unpaused */
	assert_int_equal(err.code, ERR_CONFLICT);
	rig_ok(sim_guest_end(&move->b, "renamed", "shutdown", &err), &err);
	assert_int_equal(ops->dest_adopt(move->hv_b, move->record.uuid, MIGRATION + 1, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_VM);
	rig_ok(ops->dest_adopt(move->hv_b, move->record.uuid, MIGRATION, &err), &err);
	rig_ok(ops->dest_adopt(move->hv_b, move->record.uuid, MIGRATION, &err), &err);
	rig_ok(sim_record_find(&move->b, move->record.uuid, &record, &err), &err);
	assert_int_equal(record.state, SIM_RUNNING);
	assert_true(record.disks[0].path[0] == '/');
	rig_ok(ops->source_destroy(move->hv_a, move->record.uuid, &err), &err);
	rig_ok(sim_guest_start(&move->b, "renamed", &err), &err);
	rig_wait_tick(&move->b, "renamed", rig_ask(&move->b, "renamed", "tick", NULL) + 5);
}

static void resume__pid_file_missing_and_guest_hangs__is_unknown_and_not_gone(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	struct proc_id id;
	char path[PATHS_MAX + 32], away[PATHS_MAX + 40];
	create(move);
	assert_true(sim_guest_alive(&move->a, "web", &id));
	snprintf(path, sizeof(path), "%s/guest-web.pid", move->a.run);
	snprintf(away, sizeof(away), "%s.away", path);
	assert_int_equal(rename(path, away), 0);
	assert_int_equal(kill(id.pid, SIGSTOP), 0);
	assert_int_equal(ops->source_resume(move->source, &err), -1);
	assert_int_equal(err.code, ERR_TIMEOUT);
	assert_int_equal(kill(id.pid, SIGCONT), 0);
	assert_int_equal(rename(away, path), 0);
	rig_ok(ops->source_resume(move->source, &err), &err);
}

static void resume__guest_has_died__is_gone_for_certain(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	struct proc_id id;
	create(move);
	assert_true(sim_guest_alive(&move->a, "web", &id));
	rig_ok(proc_kill(&id, RIG_WAIT_MS, &err), &err);
	assert_int_equal(ops->source_resume(move->source, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_VM);
}

static void migration__bit_flips_on_the_way__is_found(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	create(move);
	move->corrupt_at = 300000; /* in the middle of a page of round 0, which may or may not be sent again */
	move->passes = 0;
	rig_ok(sim_call(&move->a, "web", json_pack("{s:s}", "op", "suspend"), SIM_SUSPEND_MS, NULL, NULL, &err), &err);
	transfer(move);
	assert_int_equal(move->receive_result, -1);
	assert_int_equal(move->receive_err.code, ERR_CORRUPT);
}

static void send__told_to_stop_between_rounds__guest_was_never_suspended(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	create(move);
	move->last = HYPERVISOR_ABORT;
	transfer(move);
	assert_int_equal(move->send_result, -1);
	assert_int_equal(move->send_err.code, ERR_CANCELLED);
	assert_false(move->suspending);
	assert_int_equal(ops->source_is_suspended(move->source, &err), 0);
	assert_int_equal(move->receive_result, -1);
}

static void send__cancelled_while_the_guest_hangs__returns_within_200_ms(void **state)
{
	struct move *move = *state;
	struct proc_id id;
	pthread_t sender, receiver;
	create(move);
	move->passes = 0;
	assert_true(sim_guest_alive(&move->a, "web", &id));
	assert_int_equal(kill(id.pid, SIGSTOP), 0);
	assert_int_equal(pthread_create(&sender, NULL, send_it, move), 0);
	assert_int_equal(pthread_create(&receiver, NULL, receive_it, move), 0);
	int64_t began_ms = disk_now_ms();
	ops->source_cancel(move->source);
	pthread_join(sender, NULL);
	int64_t took_ms = disk_now_ms() - began_ms;
	kill(id.pid, SIGCONT);
	pthread_join(receiver, NULL);
	assert_int_equal(move->send_err.code, ERR_CANCELLED);
	assert_in_range(took_ms, 0, 200);
}

static void create__twice_for_one_migration__is_one_guest(void **state)
{
	struct move *move = *state;
	struct hypervisor_dest *again;
	struct err err = { 0 };
	struct proc_id first, second;
	create(move);
	assert_true(sim_guest_alive(&move->b, "renamed", &first));
	rig_ok(ops->dest_create(move->hv_b, &move->plan, MIGRATION, &again, &err), &err);
	ops->dest_close(again);
	assert_true(sim_guest_alive(&move->b, "renamed", &second));
	assert_int_equal(first.pid, second.pid);
	rig_ok(ops->dest_find(move->hv_b, move->record.uuid, MIGRATION, &again, &err), &err);
	ops->dest_close(again);
	assert_int_equal(ops->dest_find(move->hv_b, move->record.uuid, MIGRATION + 1, &again, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_VM);
	assert_int_equal(ops->dest_create(move->hv_b, &move->plan, MIGRATION + 1, &again, &err), -1);
	assert_int_equal(err.code, ERR_NAME_TAKEN);
}

static struct hypervisor_vm vm_of(struct hypervisor *hv)
{
	struct hypervisor_vm *vms = NULL, vm = { 0 };
	size_t count = 0;
	struct err err = { 0 };
	rig_ok(ops->vms(hv, &vms, &count, &err), &err);
	assert_in_range(count, 0, 1);
	if (count == 1)
		vm = vms[0];
	free(vms);
	return vm;
}

static void vms__in_each_state__are_told_and_only_one_that_leaves_is_ended(void **state)
{
	struct move *move = *state;
	struct sim_record record;
	struct err err = { 0 };
	struct hypervisor_vm vm = vm_of(move->hv_a);
	assert_int_equal(vm.state, HYPERVISOR_VM_OWN);
	assert_int_equal(vm.migration, 0);
	assert_memory_equal(vm.uuid, move->record.uuid, sizeof(vm.uuid));
	assert_int_equal(vm.disk_count, move->record.disk_count);
	for (unsigned i = 0; i < vm.disk_count; i++) {
		assert_string_equal(vm.disks[i].path, move->record.disks[i].path);
		assert_string_not_equal(vm.disks[i].qmp_path, "");
	}
	assert_int_equal(ops->destroy_end(move->hv_a, move->record.uuid, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	create(move);
	vm = vm_of(move->hv_b);
	assert_int_equal(vm.state, HYPERVISOR_VM_INCOMING);
	assert_int_equal(vm.migration, MIGRATION);
	assert_string_equal(vm.name, "renamed");
	assert_int_equal(ops->destroy_end(move->hv_b, move->record.uuid, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	/* one that does not run is this host's VM all the same, and has its disks */
	rig_ok(sim_guest_end(&move->a, move->record.name, "shutdown", &err), &err);
	vm = vm_of(move->hv_a);
	assert_int_equal(vm.state, HYPERVISOR_VM_OWN);
	assert_string_equal(vm.disks[0].path, move->record.disks[0].path);
	assert_string_equal(vm.disks[0].qmp_path, "");
	record = move->record;
	record.state = SIM_DESTROYING;
	rig_ok(sim_record_save(&move->a, &record, &err), &err);
	assert_int_equal(vm_of(move->hv_a).state, HYPERVISOR_VM_LEAVING);
	rig_ok(ops->destroy_end(move->hv_a, move->record.uuid, &err), &err);
	assert_int_equal(vm_of(move->hv_a).state, 0); /* none */
	rig_ok(ops->destroy_end(move->hv_a, move->record.uuid, &err), &err);
}

static void create__host_has_too_little_memory__is_refused_and_leaves_nothing(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	struct sim_record record;
	char path[PATHS_MAX + 16];
	snprintf(path, sizeof(path), "%s/sim.json", move->b.etc);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs("{\"memory\": 1048576}\n", file);
	fclose(file);
	assert_int_equal(ops->dest_create(move->hv_b, &move->plan, MIGRATION, &move->dest, &err), -1);
	assert_int_equal(err.code, ERR_NO_MEMORY);
	assert_int_equal(sim_record_find(&move->b, move->record.uuid, &record, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_VM);
}

static void unfinished_record(const struct move *move, pid_t writer, char path[PATHS_MAX * 2])
{
	snprintf(path, PATHS_MAX * 2, "%s/vms/.web.%ld", move->b.lib, (long)writer);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fclose(file), 0);
}

static void destroy__a_writer_was_killed__its_unfinished_record_goes(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	char dead[PATHS_MAX * 2], living[PATHS_MAX * 2];
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	int lock = sim_record_lock(&move->b, &err); /* makes the directory */
	assert_true(lock >= 0);
	close(lock);
	unfinished_record(move, child, dead);
	unfinished_record(move, getpid(), living);
	rig_ok(ops->dest_destroy(move->hv_b, move->record.uuid, MIGRATION, &err), &err);
	assert_int_not_equal(access(dead, F_OK), 0);
	assert_int_equal(access(living, F_OK), 0);
}

static void create__name_with_a_slash__is_refused(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	snprintf(move->plan.new_name, sizeof(move->plan.new_name), "../../evil");
	assert_int_equal(ops->dest_create(move->hv_b, &move->plan, MIGRATION, &move->dest, &err), -1);
	assert_int_equal(err.code, ERR_UNSUPPORTED);
}

static void receive__garbage__is_a_protocol_error(void **state)
{
	struct move *move = *state;
	unsigned char garbage[4096];
	create(move);
	memset(garbage, 0xa5, sizeof(garbage));
	assert_int_equal(send(move->fds[0], garbage, sizeof(garbage), 0), sizeof(garbage));
	receive_it(move);
	assert_int_equal(move->receive_err.code, ERR_PROTOCOL);
}

static void source__guest_is_dead__is_suspended_says_unknown(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	struct proc_id id;
	assert_true(sim_guest_alive(&move->a, "web", &id));
	rig_ok(proc_kill(&id, RIG_WAIT_MS, &err), &err);
	assert_int_equal(ops->source_is_suspended(move->source, &err), -1);
	assert_int_equal(ops->source_resume(move->source, &err), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(migration__all_goes_well__goes_on_with_the_next_tick, set_up,
		                                tear_down),
		cmocka_unit_test_setup_teardown(
			migration__aborted_after_the_copy__source_runs_again_and_destination_holds_nothing, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(migration__bit_flips_on_the_way__is_found, set_up, tear_down),
		cmocka_unit_test_setup_teardown(send__told_to_stop_between_rounds__guest_was_never_suspended, set_up,
		                                tear_down),
		cmocka_unit_test_setup_teardown(send__cancelled_while_the_guest_hangs__returns_within_200_ms, set_up,
		                                tear_down),
		cmocka_unit_test_setup_teardown(create__twice_for_one_migration__is_one_guest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(create__host_has_too_little_memory__is_refused_and_leaves_nothing,
		                                set_up, tear_down),
		cmocka_unit_test_setup_teardown(destroy__a_writer_was_killed__its_unfinished_record_goes, set_up,
		                                tear_down),
		cmocka_unit_test_setup_teardown(create__name_with_a_slash__is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(vms__in_each_state__are_told_and_only_one_that_leaves_is_ended, set_up,
		                                tear_down),
		cmocka_unit_test_setup_teardown(receive__garbage__is_a_protocol_error, set_up, tear_down),
		cmocka_unit_test_setup_teardown(source__guest_is_dead__is_suspended_says_unknown, set_up, tear_down),
		cmocka_unit_test_setup_teardown(adopt__memory_is_gone__it_is_the_hosts_own_and_boots_from_its_disks,
		                                set_up, tear_down),
		cmocka_unit_test_setup_teardown(resume__pid_file_missing_and_guest_hangs__is_unknown_and_not_gone,
		                                set_up, tear_down),
		cmocka_unit_test_setup_teardown(resume__guest_has_died__is_gone_for_certain, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
