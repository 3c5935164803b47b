/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen with the real save helper: a VM that comes in, and what is here. */
#include "tests/unit/xen_rig.h"

/* ---- the destination ---- */
/* Wherever the connection breaks, nothing passes for a complete VM. */
static void receive__cut_anywhere__nothing_is_left(void **state)
{
	struct move *move = *state;
	copy(move);
	size_t all = move->arrived;
	unsigned cuts = 0;
	struct err err = { 0 };
	ops->dest_close(move->dest);
	move->dest = NULL;
	assert_null(here(move));
	for (size_t limit = all - 80; limit < all; limit += 3) {
		resume(move);
		assert_int_equal(ops->dest_destroy(move->hv[1], move->plan.vm.uuid, MIGRATION, &err), 0);
		move->limit = limit;
		move->arrived = 0;
		move->passes = 0;
		begin(move);
		receive(move);
		shutdown(move->fds[1], SHUT_RDWR);
		finish(move);
		cuts += move->receive_rc != 0; /* in fewer frames it may be shorter, and come whole */
		ops->dest_close(move->dest);
		move->dest = NULL;
		assert_null(here(move));
		assert_false(move->hosts[1].finished);
	}
	assert_true(cuts > 0);
	resume(move);
}

static void *cancel_soon(void *arg)
{
	pause_ms(100);
	ops->dest_cancel(arg);
	return NULL;
}

static void receive__cancelled__returns_at_once(void **state)
{
	struct move *move = *state;
	move->hosts[1].script_ms = 1000;
	copy(move);
	pthread_t canceller;
	assert_int_equal(pthread_create(&canceller, NULL, cancel_soon, move->dest), 0);
	struct err err = { 0 };
	int64_t began_ms = now_ms();
	assert_int_equal(ops->dest_attach(move->dest, &move->image, 1, &err), -1);
	assert_int_equal(err.code, ERR_CANCELLED);
	assert_true(now_ms() - began_ms < 100 + CANCEL_MS);
	pthread_join(canceller, NULL);
	/* libxl goes on to its end; that is waited for, and the VM is not whole for anybody. */
	ops->dest_close(move->dest);
	move->dest = NULL;
	assert_non_null(here(move));
	assert_false(runs_here(move));
	assert_int_equal(ops->dest_find(move->hv[1], move->plan.vm.uuid, MIGRATION, &move->dest, &err), 0);
	assert_int_equal(ops->dest_unpause(move->dest, &err), -1);
	assert_false(runs_here(move));
	assert_int_equal(ops->dest_state(move->dest, &err), 0);
	assert_int_equal(ops->dest_destroy(move->hv[1], move->plan.vm.uuid, MIGRATION, &err), 0);
	assert_null(here(move));
	resume(move);
}

static void receive__cpu_lacks_a_feature__refused_before_a_domain_is_made(void **state)
{
	struct move *move = *state;
	move->hosts[1].features = 0x7f;
	begin(move);
	receive(move);
	shutdown(move->fds[1], SHUT_RDWR);
	finish(move);
	assert_int_equal(move->receive_err.code, ERR_UNSUPPORTED);
	assert_null(here(move));
	resume(move);
}

static void unpause__fails__never_ran_and_can_be_given_back(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	copy(move);
	attach(move);
	move->hosts[1].unpause_fails = true;
	assert_int_equal(ops->dest_unpause(move->dest, &err), -1);
	assert_int_equal(ops->dest_state(move->dest, &err), 0);
	assert_int_equal(ops->dest_destroy(move->hv[1], move->plan.vm.uuid, MIGRATION, &err), 0);
	assert_int_equal(ops->dest_state(move->dest, &err), 0);
}

static void dest_state__ran_and_destroyed_by_hand__ran(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	copy(move);
	attach(move);
	assert_int_equal(ops->dest_unpause(move->dest, &err), 0);
	assert_true(runs_here(move));
	here(move)->there = false;
	assert_int_equal(ops->dest_state(move->dest, &err), 1);
	assert_int_equal(ops->dest_destroy(move->hv[1], move->plan.vm.uuid, MIGRATION, &err), -1);
	assert_int_equal(err.code, ERR_TOO_LATE);
}

/* Its host was booted again after it had begun to run the VM. */
static void adopt__domain_is_gone__counts_as_the_hosts_own(void **state)
{
	struct move *move = *state;
	const unsigned char *uuid = move->plan.vm.uuid;
	struct err err = { 0 };
	copy(move);
	attach(move);
	assert_int_equal(ops->dest_adopt(move->hv[1], uuid, MIGRATION, &err), -1); /* it can be unpaused */
	assert_int_equal(err.code, ERR_CONFLICT);
	here(move)->there = false;
	assert_int_equal(ops->dest_adopt(move->hv[1], uuid, MIGRATION + 1, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_VM);
	assert_int_equal(ops->dest_state(move->dest, &err), 0);
	assert_int_equal(ops->dest_adopt(move->hv[1], uuid, MIGRATION, &err), 0);
	assert_int_equal(ops->dest_adopt(move->hv[1], uuid, MIGRATION, &err), 0);
	assert_int_equal(ops->dest_destroy(move->hv[1], uuid, MIGRATION, &err), -1); /* its disks stay */
	assert_int_equal(err.code, ERR_TOO_LATE);
}

static void refuse_create(struct move *move, uint64_t migration, enum err_code code)
{
	struct hypervisor_dest *dest = NULL;
	struct err err = { 0 };
	assert_int_equal(ops->dest_create(move->hv[1], &move->plan, migration, &dest, &err), -1);
	assert_int_equal(err.code, code);
}

static void create__name_uuid_or_memory_taken__refused(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	struct fake_domain *other = fake_domain_add(&move->hosts[1], "web1", 0x42, "");
	refuse_create(move, MIGRATION, ERR_NAME_TAKEN);
	strcpy(other->name, "web1--incoming");
	refuse_create(move, MIGRATION, ERR_NAME_TAKEN);
	strcpy(other->name, "db1");
	memset(other->uuid, VM, sizeof(other->uuid));
	refuse_create(move, MIGRATION, ERR_NAME_TAKEN);
	other->there = false;
	move->hosts[1].free_pages = 40000;
	assert_int_equal(ops->dest_create(move->hv[1], &move->plan, MIGRATION, &move->dest, &err), 0);
	refuse_create(move, MIGRATION + 1, ERR_NAME_TAKEN);
	/* Another one finds the first one's memory promised. */
	memset(move->plan.vm.uuid, 0x43, sizeof(move->plan.vm.uuid));
	refuse_create(move, MIGRATION + 1, ERR_NAME_TAKEN);
	strcpy(move->plan.new_name, "web2");
	refuse_create(move, MIGRATION + 1, ERR_NO_MEMORY);
}

static void create__twice_for_one_migration__same(void **state)
{
	struct move *move = *state;
	struct hypervisor_dest *again = NULL;
	struct err err = { 0 };
	assert_int_equal(ops->dest_create(move->hv[1], &move->plan, MIGRATION, &move->dest, &err), 0);
	assert_int_equal(ops->dest_create(move->hv[1], &move->plan, MIGRATION, &again, &err), 0);
	ops->dest_close(again);
	assert_int_equal(ops->dest_find(move->hv[1], move->plan.vm.uuid, MIGRATION, &again, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_VM); /* no domain yet */
}

/* ---- what is here ---- */
static const struct hypervisor_vm *vm_of(struct hypervisor_vm *vms, size_t count, unsigned char id)
{
	for (size_t i = 0; i < count; i++)
		if (vms[i].uuid[0] == id)
			return &vms[i];
	return NULL;
}

static void expect_vm(struct move *move, unsigned host, enum hypervisor_vm_state state, uint64_t migration,
                      const char *path)
{
	struct hypervisor_vm *vms = NULL;
	size_t count = 0;
	struct err err = { 0 };
	assert_int_equal(ops->vms(move->hv[host], &vms, &count, &err), 0);
	const struct hypervisor_vm *vm = vm_of(vms, count, VM);
	assert_non_null(vm);
	assert_int_equal(vm->state, state);
	assert_int_equal(vm->migration, migration);
	assert_int_equal(vm->disk_count, 1);
	assert_string_equal(vm->disks[0].path, path);
	assert_string_equal(vm->name, "web1");
	free(vms);
}

static void vms__through_a_migration__are_told_with_their_disks(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	char disk[128];
	snprintf(disk, sizeof(disk), "%s/a.raw", move->dir);
	expect_vm(move, 0, HYPERVISOR_VM_OWN, 0, disk);
	assert_int_equal(ops->dest_create(move->hv[1], &move->plan, MIGRATION, &move->dest, &err), 0);
	expect_vm(move, 1, HYPERVISOR_VM_INCOMING, MIGRATION, "");
	ops->dest_close(move->dest);
	copy(move);
	expect_vm(move, 1, HYPERVISOR_VM_INCOMING, MIGRATION, move->image.path);
	attach(move);
	expect_vm(move, 1, HYPERVISOR_VM_INCOMING, MIGRATION, move->image.path);
	assert_int_equal(ops->dest_unpause(move->dest, &err), 0);
	expect_vm(move, 1, HYPERVISOR_VM_OWN, MIGRATION, move->image.path);
	here(move)->there = false; /* shut down: its disks are its own all the same */
	expect_vm(move, 1, HYPERVISOR_VM_OWN, MIGRATION, move->image.path);
}

static void inventory__vm_that_cannot_be_migrated__says_why(void **state)
{
	struct move *move = *state;
	struct msg_inventory inventory;
	struct err err = { 0 };
	assert_int_equal(ops->inventory(move->hv[0], &inventory, &err), 0);
	assert_int_equal(inventory.vm_count, 1);
	assert_string_equal(inventory.vms[0].refusal, "");
	assert_string_equal(inventory.vms[0].disks[0].name, "xvda");
	assert_int_equal(inventory.vms[0].disks[0].size_bytes, 1 << 20);
	msg_inventory_free(&inventory);
	there(move)->pauses = 1;
	assert_int_equal(ops->inventory(move->hv[0], &inventory, &err), 0);
	assert_int_equal(inventory.vms[0].state, VM_PAUSED);
	assert_non_null(strstr(inventory.vms[0].refusal, "paused"));
	msg_inventory_free(&inventory);
}

static void throttle__undone__as_it_was(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	there(move)->cap = 0;
	assert_int_equal(ops->source_throttle(move->source, 30, &err), 0);
	assert_int_equal(there(move)->cap, 140);
	assert_int_equal(ops->source_throttle(move->source, 100, &err), 0);
	assert_int_equal(there(move)->cap, 1); /* 0 would be no limit */
	assert_int_equal(ops->source_throttle(move->source, 0, &err), 0);
	assert_int_equal(there(move)->cap, 0);
	there(move)->cap = 50;
	assert_int_equal(ops->source_throttle(move->source, 50, &err), 0);
	assert_int_equal(there(move)->cap, 25);
	resume(move);
	assert_int_equal(there(move)->cap, 50);
}

static void destroy_end__only_what_was_begun(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	assert_int_equal(ops->destroy_end(move->hv[0], move->plan.vm.uuid, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	assert_true(runs_there(move));
	there(move)->there = false;
	assert_int_equal(ops->destroy_end(move->hv[0], move->plan.vm.uuid, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(receive__cut_anywhere__nothing_is_left),
		TEST(receive__cancelled__returns_at_once),
		TEST(receive__cpu_lacks_a_feature__refused_before_a_domain_is_made),
		TEST(unpause__fails__never_ran_and_can_be_given_back),
		TEST(dest_state__ran_and_destroyed_by_hand__ran),
		TEST(adopt__domain_is_gone__counts_as_the_hosts_own),
		TEST(create__name_uuid_or_memory_taken__refused),
		TEST(create__twice_for_one_migration__same),
		TEST(vms__through_a_migration__are_told_with_their_disks),
		TEST(inventory__vm_that_cannot_be_migrated__says_why),
		TEST(throttle__undone__as_it_was),
		TEST(destroy_end__only_what_was_begun),
	};
	ops = hypervisor_driver;
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
