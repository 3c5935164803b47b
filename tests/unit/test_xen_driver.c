/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen with the real save helper: a VM that leaves. */
#include "tests/unit/xen_rig.h"

/* ---- all goes well ---- */
static void move__all_well__vm_runs_over_there_only(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	move->rounds = 2;
	copy(move);
	assert_int_equal(move->passes, 3);
	assert_true(move->suspended && move->sent);
	assert_false(runs_there(move));
	assert_false(move->hosts[1].finished); /* it has not opened the disks */
	assert_string_equal(here(move)->name, "web1--incoming");
	assert_int_equal(here(move)->pauses, 2);
	move->hosts[1].can_suspend = false; /* as its kernel says it once, when it boots */
	attach(move);
	assert_true(move->hosts[1].can_suspend);
	assert_true(move->hosts[1].finished);
	assert_string_equal(here(move)->name, "web1");
	assert_string_equal(here(move)->disk, move->image.path);
	assert_int_equal(here(move)->pauses, 2);
	assert_int_equal(ops->dest_state(move->dest, &err), 0);
	assert_int_equal(ops->dest_unpause(move->dest, &err), 0);
	assert_true(runs_here(move));
	assert_int_equal(ops->dest_unpause(move->dest, &err), 0);
	assert_int_equal(ops->dest_state(move->dest, &err), 1);
	assert_int_equal(ops->source_destroy(move->hv[0], move->plan.vm.uuid, &err), 0);
	assert_null(there(move));
	assert_int_equal(ops->source_destroy(move->hv[0], move->plan.vm.uuid, &err), 0);
	assert_int_equal(ops->dest_destroy(move->hv[1], move->plan.vm.uuid, MIGRATION, &err), -1);
	assert_int_equal(err.code, ERR_TOO_LATE);
	assert_false(here(move)->ran && move->hosts[0].resumes > 0);
}

static void move__given_back_after_attach__runs_here_again(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	copy(move);
	attach(move);
	ops->dest_close(move->dest);
	move->dest = NULL;
	assert_int_equal(ops->dest_destroy(move->hv[1], move->plan.vm.uuid, MIGRATION, &err), 0);
	assert_null(here(move));
	resume(move);
}

/* ---- the source gives up ---- */
static void expect_undisturbed(struct move *move, enum err_code code)
{
	struct err err = { 0 };
	finish(move);
	assert_int_equal(move->send_rc, -1);
	assert_int_equal(move->send_err.code, code);
	assert_int_equal(move->receive_rc, -1);
	ops->dest_close(move->dest);
	move->dest = NULL;
	assert_null(here(move));
	assert_false(move->hosts[1].finished);
	assert_int_equal(ops->dest_destroy(move->hv[1], move->plan.vm.uuid, MIGRATION, &err), 0);
	resume(move);
}

/* All of it arrives that is sent. */
static void gives_up(struct move *move, enum err_code code)
{
	begin(move);
	receive(move);
	expect_undisturbed(move, code);
}

static void send__told_to_stop__vm_was_never_asked(void **state)
{
	struct move *move = *state;
	move->last = HYPERVISOR_ABORT;
	gives_up(move, ERR_CANCELLED);
	assert_false(move->suspending);
	assert_int_equal(move->hosts[0].resumes, 0);
}

static void send__suspension_not_journaled__vm_was_never_asked(void **state)
{
	struct move *move = *state;
	move->refuse_suspending = true;
	gives_up(move, ERR_TOO_LATE);
	assert_int_equal(move->hosts[0].resumes, 0);
}

static void send__refused_when_suspended__runs_again(void **state)
{
	struct move *move = *state;
	move->refuse_suspended = true;
	gives_up(move, ERR_BACKEND);
	assert_int_equal(move->hosts[0].resumes, 1);
}

static void send__cancelled_in_a_round__returns_at_once(void **state)
{
	struct move *move = *state;
	move->rounds = 1u << 30;
	begin(move);
	pthread_t receiver;
	assert_int_equal(pthread_create(&receiver, NULL, receive_main, move), 0);
	while (move->passes < 3)
		pause_ms(1);
	int64_t began_ms = now_ms();
	ops->source_cancel(move->source);
	pthread_join(move->thread, NULL);
	assert_true(now_ms() - began_ms < CANCEL_MS);
	pthread_join(receiver, NULL);
	close(move->fds[0]);
	close(move->fds[1]);
	assert_int_equal(move->send_err.code, ERR_CANCELLED);
	resume(move);
	assert_int_equal(move->hosts[0].resumes, 0);
}

/* The guest has been asked and takes its time: it goes down after we have given up, and must not stay down. */
static void send__cancelled_while_the_guest_suspends__runs_in_the_end(void **state)
{
	struct move *move = *state;
	move->hosts[0].suspend_ms = 600;
	begin(move);
	pthread_t receiver;
	assert_int_equal(pthread_create(&receiver, NULL, receive_main, move), 0);
	while (!move->suspending)
		pause_ms(1);
	pause_ms(20);
	int64_t began_ms = now_ms();
	ops->source_cancel(move->source);
	pthread_join(move->thread, NULL);
	assert_true(now_ms() - began_ms < CANCEL_MS);
	pthread_join(receiver, NULL);
	close(move->fds[0]);
	close(move->fds[1]);
	assert_int_equal(move->send_rc, -1);
	resume(move);
	pause_ms(700);
	assert_true(runs_there(move));
}

static void send__guest_does_not_suspend__fails_and_runs(void **state)
{
	struct move *move = *state;
	move->hosts[0].deaf = true;
	gives_up(move, ERR_HYPERVISOR);
	assert_false(move->suspended);
}

static void send__network_breaks__fails_and_runs(void **state)
{
	struct move *move = *state;
	move->rounds = 1u << 30;
	begin(move);
	close(move->fds[1]);
	pthread_join(move->thread, NULL);
	close(move->fds[0]);
	assert_int_equal(move->send_rc, -1);
	assert_int_equal(move->send_err.code, ERR_PEER_LOST);
	resume(move);
}

static void send__vm_cannot_be_suspended__refused_before_a_byte(void **state)
{
	struct move *move = *state;
	move->hosts[0].can_suspend = false;
	gives_up(move, ERR_UNSUPPORTED);
	assert_int_equal(move->passes, 0);
	assert_int_equal(move->arrived, 16); /* what it tried to read */
}

/* ---- after a leg that was killed ---- */
static void *suspend_late(void *arg)
{
	struct fake_domain *domain = arg;
	pause_ms(300);
	domain->pauses = 1;
	domain->shut = 2;
	return NULL;
}

/* It had asked the guest, which goes down a little later, with nobody there. */
static void resume__guest_asked_by_a_dead_leg__is_waited_for(void **state)
{
	struct move *move = *state;
	char file[PATHS_MAX + 64];
	struct fake_domain *domain = there(move);
	snprintf(file, sizeof(file), "%s/xen-41414141-4141-4141-4141-414141414141.note", move->paths[0].run);
	FILE *note = fopen(file, "w");
	fprintf(note, "%lld 150\n", (long long)now_ms());
	fclose(note);
	domain->cap = 20;
	pthread_t late;
	assert_int_equal(pthread_create(&late, NULL, suspend_late, domain), 0);
	resume(move);
	pthread_join(late, NULL);
	assert_int_equal(move->hosts[0].resumes, 1);
	assert_true(runs_there(move));
	assert_int_equal(domain->cap, 150);
	assert_int_not_equal(access(file, F_OK), 0);
}

static void resume__request_that_nobody_saw__is_taken_back(void **state)
{
	struct move *move = *state;
	strcpy(there(move)->asked, "suspend");
	resume(move);
	assert_int_equal(move->hosts[0].resumes, 0);
}

static void resume__vm_ended_by_itself__unknown(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	there(move)->shut = 0; /* powered off */
	assert_int_equal(ops->source_resume(move->source, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_VM);
	there(move)->there = false;
	assert_int_equal(ops->source_resume(move->source, &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_VM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(move__all_well__vm_runs_over_there_only),
		TEST(move__given_back_after_attach__runs_here_again),
		TEST(send__told_to_stop__vm_was_never_asked),
		TEST(send__suspension_not_journaled__vm_was_never_asked),
		TEST(send__refused_when_suspended__runs_again),
		TEST(send__cancelled_in_a_round__returns_at_once),
		TEST(send__cancelled_while_the_guest_suspends__runs_in_the_end),
		TEST(send__guest_does_not_suspend__fails_and_runs),
		TEST(send__network_breaks__fails_and_runs),
		TEST(send__vm_cannot_be_suspended__refused_before_a_byte),
		TEST(resume__guest_asked_by_a_dead_leg__is_waited_for),
		TEST(resume__request_that_nobody_saw__is_taken_back),
		TEST(resume__vm_ended_by_itself__unknown),
	};
	ops = hypervisor_driver;
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
