/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two Xen hosts that are not there (xen_fake.h), a VM on one of them, and the two legs that move it. */
#ifndef DROVER_XEN_RIG_H
#define DROVER_XEN_RIG_H

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

static inline int64_t now_ms(void)
{
	return clock_ms(&clock_real);
}

static inline void pause_ms(unsigned ms)
{
	struct timespec time = { 0, (long)ms * 1000000 };
	nanosleep(&time, NULL);
}

/* ---- two hosts ---- */
static inline void make_disk(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
}

static inline void fill_plan(struct move *move)
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

static inline int setup(void **state)
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

static inline int teardown(void **state)
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

static inline struct fake_domain *there(struct move *move)
{
	return fake_domain_of(&move->hosts[0], VM);
}

static inline struct fake_domain *here(struct move *move)
{
	return fake_domain_of(&move->hosts[1], VM);
}

static inline bool runs_there(struct move *move)
{
	return there(move) != NULL && fake_domain_runs(&move->hosts[0], there(move));
}

static inline bool runs_here(struct move *move)
{
	return here(move) != NULL && fake_domain_runs(&move->hosts[1], here(move));
}

/* ---- the source's leg ---- */
static inline int on_write(void *ctx, const void *bytes, size_t count, struct err *err)
{
	struct move *move = ctx;
	assert_true(pthread_equal(pthread_self(), move->caller));
	ssize_t done = send(move->fds[0], bytes, count, MSG_NOSIGNAL);
	return done == (ssize_t)count ? 0 : err_set(err, ERR_PEER_LOST, "gone");
}

static inline enum hypervisor_next on_pass(void *ctx, const struct hypervisor_pass *pass)
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

static inline int on_suspending(void *ctx, struct err *err)
{
	struct move *move = ctx;
	assert_true(runs_there(move));
	move->suspending = true;
	return move->refuse_suspending ? err_set(err, ERR_TOO_LATE, "no") : 0;
}

static inline int on_suspended(void *ctx, struct err *err)
{
	struct move *move = ctx;
	assert_true(move->suspending && pthread_equal(pthread_self(), move->caller));
	assert_int_equal(ops->source_is_suspended(move->source, err), 1);
	assert_int_equal(there(move)->pauses, 1);
	move->suspended = true;
	return move->refuse_suspended ? err_set(err, ERR_BACKEND, "no") : 0;
}

static inline void on_sent(void *ctx, uint64_t bytes, uint64_t took_ms)
{
	struct move *move = ctx;
	(void)took_ms;
	assert_true(bytes > 0 && move->suspended);
	move->sent = true;
}

static inline void *send_main(void *arg)
{
	struct move *move = arg;
	const struct hypervisor_send send = { move, on_write, on_pass, on_suspending, on_suspended, on_sent };
	move->caller = pthread_self();
	move->send_rc = ops->source_send(move->source, &send, &move->send_err);
	shutdown(move->fds[0], SHUT_WR);
	return NULL;
}

/* ---- the destination's leg ---- */
static inline int on_read(void *ctx, void *bytes, size_t count, struct err *err)
{
	struct move *move = ctx;
	if (move->limit > 0 && move->arrived + count > move->limit)
		return err_set(err, ERR_PEER_LOST, "cut");
	ssize_t got = recv(move->fds[1], bytes, count, MSG_WAITALL);
	move->arrived += count;
	return got == (ssize_t)count ? 0 : err_set(err, ERR_PEER_LOST, "gone");
}

static inline void begin(struct move *move)
{
	struct err err = { 0 };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, move->fds), 0);
	if (ops->dest_create(move->hv[1], &move->plan, MIGRATION, &move->dest, &err) != 0 ||
	    ops->dest_images(move->dest, &move->image, 1, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(pthread_create(&move->thread, NULL, send_main, move), 0);
}

static inline void receive(struct move *move)
{
	const struct hypervisor_receive receive = { move, on_read };
	move->receive_rc = ops->dest_receive(move->dest, &receive, &move->receive_err);
}

static inline void *receive_main(void *arg)
{
	receive(arg);
	return NULL;
}

static inline void finish(struct move *move)
{
	pthread_join(move->thread, NULL);
	close(move->fds[0]);
	close(move->fds[1]);
}

/* The memory is over, the source is suspended, the destination waits to attach. */
static inline void copy(struct move *move)
{
	begin(move);
	receive(move);
	finish(move);
	if (move->send_rc != 0 || move->receive_rc != 0)
		fail_msg("%s / %s", move->send_err.text, move->receive_err.text);
}

static inline void attach(struct move *move)
{
	struct err err = { 0 };
	if (ops->dest_attach(move->dest, &move->image, 1, &err) != 0)
		fail_msg("%s", err.text);
}

static inline void resume(struct move *move)
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
