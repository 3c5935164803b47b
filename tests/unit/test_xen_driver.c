/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen with the real save helper, over Xen hosts that are not there (xen_fake.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/xen_fake.h"

#define MIGRATION 17u
#define VM 0x41
#define CANCEL_MS 200

static const struct hypervisor_ops *ops;

struct move {
	char dir[64];
	struct fake_host hosts[2];
	struct paths paths[2];
	struct hypervisor *hv[2];
	struct hypervisor_source *source;
	struct hypervisor_dest *dest;
	struct msg_plan plan;
	struct hypervisor_image image;
	int fds[2]; /* the legs' stream */
	/* the leg of the source */
	pthread_t thread, caller;
	unsigned rounds; /* before `last` is answered */
	enum hypervisor_next last;
	bool refuse_suspending, refuse_suspended;
	_Atomic unsigned passes;
	_Atomic bool suspending, suspended, sent;
	int send_rc;
	struct err send_err;
	/* the leg of the destination */
	size_t limit; /* bytes of the stream that arrive; 0: all */
	size_t arrived;
	int receive_rc;
	struct err receive_err;
};

static int64_t now_ms(void)
{
	return clock_ms(&clock_real);
}

static void pause_ms(unsigned ms)
{
	struct timespec time = { 0, (long)ms * 1000000 };
	nanosleep(&time, NULL);
}

/* ---- two hosts ---- */
static void make_disk(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
}

static void fill_plan(struct move *move)
{
	struct msg_plan *plan = &move->plan;
	memset(plan->vm.uuid, VM, sizeof(plan->vm.uuid));
	strcpy(plan->vm.name, "web1");
	plan->vm.memory_bytes = UINT64_C(128) << 20;
	plan->vm.vcpus = 2;
	plan->vm.disk_count = 1;
	strcpy(plan->vm.disks[0].name, "xvda");
	plan->vm.disks[0].size_bytes = 1 << 20;
	strcpy(plan->to[0].sr, "local");
	plan->to[0].format = FORMAT_RAW;
	strcpy(move->image.name, "xvda");
	strcpy(move->image.sr, "local");
	snprintf(move->image.path, sizeof(move->image.path), "%s/b.raw", move->dir);
	move->image.format = FORMAT_RAW;
	move->image.size_bytes = 1 << 20;
}

static int setup(void **state)
{
	struct move *move = calloc(1, sizeof(*move));
	struct err err = { 0 };
	char disk[128];
	strcpy(move->dir, "/tmp/drover-xen-XXXXXX");
	if (mkdtemp(move->dir) == NULL)
		return -1;
	for (unsigned i = 0; i < 2; i++) {
		char home[128];
		snprintf(home, sizeof(home), "%s/%u", move->dir, i);
		mkdir(home, 0700);
		fake_host_init(&move->hosts[i]);
		fake_host_opens(&move->hosts[i]);
		if (paths_init(&move->paths[i], home, &err) != 0 || paths_make(&move->paths[i], &err) != 0 ||
		    ops->open(&move->hv[i], &move->paths[i], &err) != 0)
			return -1;
	}
	move->hosts[1].next_domid = 30;
	snprintf(disk, sizeof(disk), "%s/a.raw", move->dir);
	make_disk(disk);
	fake_domain_add(&move->hosts[0], "web1", VM, disk);
	fill_plan(move);
	make_disk(move->image.path);
	move->last = HYPERVISOR_SUSPEND;
	*state = move;
	return ops->source_open(move->hv[0], move->plan.vm.uuid, &move->source, &err);
}

static int teardown(void **state)
{
	struct move *move = *state;
	char command[128];
	ops->source_close(move->source);
	ops->dest_close(move->dest);
	for (unsigned i = 0; i < 2; i++)
		ops->close(move->hv[i]);
	snprintf(command, sizeof(command), "rm -rf %s", move->dir);
	int rc = system(command);
	free(move);
	return rc;
}

static struct fake_domain *there(struct move *move)
{
	return fake_domain_of(&move->hosts[0], VM);
}

static struct fake_domain *here(struct move *move)
{
	return fake_domain_of(&move->hosts[1], VM);
}

static bool runs_there(struct move *move)
{
	return there(move) != NULL && fake_domain_runs(&move->hosts[0], there(move));
}

static bool runs_here(struct move *move)
{
	return here(move) != NULL && fake_domain_runs(&move->hosts[1], here(move));
}

/* ---- the source's leg ---- */
static int on_write(void *ctx, const void *bytes, size_t count, struct err *err)
{
	struct move *move = ctx;
	assert_true(pthread_equal(pthread_self(), move->caller));
	ssize_t done = send(move->fds[0], bytes, count, MSG_NOSIGNAL);
	return done == (ssize_t)count ? 0 : err_set(err, ERR_PEER_LOST, "gone");
}

static enum hypervisor_next on_pass(void *ctx, const struct hypervisor_pass *pass)
{
	struct move *move = ctx;
	assert_true(pthread_equal(pthread_self(), move->caller));
	assert_int_equal(pass->pass, move->passes);
	/* 16 bytes came before the first round, and 16 are always held back. */
	char words[32];
	assert_int_equal(pass->sent_bytes, snprintf(words, sizeof(words), "round%u ", pass->pass));
	assert_int_equal(pass->dirty_bytes, (500 + 256) * 4096);
	assert_true(runs_there(move));
	move->passes++;
	return pass->pass < move->rounds ? HYPERVISOR_GO_ON : move->last;
}

static int on_suspending(void *ctx, struct err *err)
{
	struct move *move = ctx;
	assert_true(runs_there(move));
	move->suspending = true;
	return move->refuse_suspending ? err_set(err, ERR_TOO_LATE, "no") : 0;
}

static int on_suspended(void *ctx, struct err *err)
{
	struct move *move = ctx;
	assert_true(move->suspending && pthread_equal(pthread_self(), move->caller));
	assert_int_equal(ops->source_is_suspended(move->source, err), 1);
	assert_int_equal(there(move)->pauses, 1);
	move->suspended = true;
	return move->refuse_suspended ? err_set(err, ERR_BACKEND, "no") : 0;
}

static void on_sent(void *ctx, uint64_t bytes, uint64_t took_ms)
{
	struct move *move = ctx;
	(void)took_ms;
	assert_true(bytes > 0 && move->suspended);
	move->sent = true;
}

static void *send_main(void *arg)
{
	struct move *move = arg;
	const struct hypervisor_send send = { move, on_write, on_pass, on_suspending, on_suspended, on_sent };
	move->caller = pthread_self();
	move->send_rc = ops->source_send(move->source, &send, &move->send_err);
	shutdown(move->fds[0], SHUT_WR);
	return NULL;
}

/* ---- the destination's leg ---- */
static int on_read(void *ctx, void *bytes, size_t count, struct err *err)
{
	struct move *move = ctx;
	if (move->limit > 0 && move->arrived + count > move->limit)
		return err_set(err, ERR_PEER_LOST, "cut");
	ssize_t got = recv(move->fds[1], bytes, count, MSG_WAITALL);
	move->arrived += count;
	return got == (ssize_t)count ? 0 : err_set(err, ERR_PEER_LOST, "gone");
}

static void begin(struct move *move)
{
	struct err err = { 0 };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, move->fds), 0);
	if (ops->dest_create(move->hv[1], &move->plan, MIGRATION, &move->dest, &err) != 0 ||
	    ops->dest_images(move->dest, &move->image, 1, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(pthread_create(&move->thread, NULL, send_main, move), 0);
}

static void receive(struct move *move)
{
	const struct hypervisor_receive receive = { move, on_read };
	move->receive_rc = ops->dest_receive(move->dest, &receive, &move->receive_err);
}

static void *receive_main(void *arg)
{
	receive(arg);
	return NULL;
}

static void finish(struct move *move)
{
	pthread_join(move->thread, NULL);
	close(move->fds[0]);
	close(move->fds[1]);
}

/* The memory is over, the source is suspended, the destination waits to attach. */
static void copy(struct move *move)
{
	begin(move);
	receive(move);
	finish(move);
	if (move->send_rc != 0 || move->receive_rc != 0)
		fail_msg("%s / %s", move->send_err.text, move->receive_err.text);
}

static void attach(struct move *move)
{
	struct err err = { 0 };
	if (ops->dest_attach(move->dest, &move->image, 1, &err) != 0)
		fail_msg("%s", err.text);
}

static void resume(struct move *move)
{
	struct err err = { 0 };
	int64_t until_ms = now_ms() + 10000;
	while (ops->source_resume(move->source, &err) != 0)
		if (now_ms() > until_ms)
			fail_msg("%s", err.text);
	assert_true(runs_there(move));
	assert_int_equal(there(move)->pauses, 0);
	assert_false(there(move)->log);
	assert_string_equal(there(move)->asked, "");
}

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

static void send__told_to_stop__vm_was_never_asked(void **state)
{
	struct move *move = *state;
	move->last = HYPERVISOR_ABORT;
	begin(move);
	receive(move);
	expect_undisturbed(move, ERR_CANCELLED);
	assert_false(move->suspending);
	assert_int_equal(move->hosts[0].resumes, 0);
}

static void send__suspension_not_journaled__vm_was_never_asked(void **state)
{
	struct move *move = *state;
	move->refuse_suspending = true;
	begin(move);
	receive(move);
	expect_undisturbed(move, ERR_TOO_LATE);
	assert_int_equal(move->hosts[0].resumes, 0);
}

static void send__refused_when_suspended__runs_again(void **state)
{
	struct move *move = *state;
	move->refuse_suspended = true;
	begin(move);
	receive(move);
	expect_undisturbed(move, ERR_BACKEND);
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
	begin(move);
	receive(move);
	expect_undisturbed(move, ERR_HYPERVISOR);
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
	begin(move);
	receive(move);
	expect_undisturbed(move, ERR_UNSUPPORTED);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
