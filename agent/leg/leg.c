/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The main thread: start, loop, end. */
#include "agent/leg/leg.h"
#include "agent/leg/voteline.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/lock.h"
#include "common/log.h"

/* ---- start ---- */
static int open_signals(struct leg *leg, struct err *err)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	/* Threads inherit the mask. A peer or an exporter that is gone is an error code, not a signal. */
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return err_set(err, ERR_INTERNAL, "signal mask");
	leg->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return leg->signal_fd < 0 ? err_errno(err, ERR_IO, errno, "signalfd") : 0;
}

static int start(struct leg *leg, struct err *err)
{
	char name[32];
	if (paths_init(&leg->paths, leg->options.home, err) || paths_make(&leg->paths, err) || open_signals(leg, err))
		return -1;
	/* Before anything: an agent that died before it had journaled our predecessor starts another one. */
	snprintf(leg->lock_path, sizeof(leg->lock_path), "%s/leg-%" PRIu64 ".lock", leg->paths.run,
	         leg->options.migration);
	if (lock_take(leg->lock_path, &leg->lock_fd, err))
		return -1;
	leg->conf = calloc(1, sizeof(*leg->conf));
	if (!leg->conf)
		return err_set(err, ERR_NO_MEMORY, "configuration");
	snprintf(leg->identity_path, sizeof(leg->identity_path), "%s/leg-%" PRIu64 ".identity", leg->paths.run,
	         leg->options.migration);
	int there = journal_find(&leg->paths, err);
	if (there <= 0)
		return there < 0 ? -1 : err_set(err, ERR_HOST_LOST, "the journal is gone");
	if (agent_conf_load(leg->conf, &leg->paths, NULL, err) || journal_open(&leg->journal, &leg->paths, err) ||
	    leg_load(leg, err) || tls_identity_open(&leg->identity, leg->identity_path, leg->options.recover, err) ||
	    (*leg->peer_fingerprint && tls_expect(leg->identity, leg->peer_fingerprint, err)))
		return -1;
	leg->work = cancel_new(err);
	leg->queue = leg->work ? queue_new(err) : NULL;
	leg->conductor = leg->queue ? conductor_new(leg, leg->queue, err) : NULL;
	if (!leg->conductor || leg->side->make(leg, err) || leg->ops->open(&leg->hv, &leg->paths, err))
		return -1;
	snprintf(name, sizeof(name), "leg-%" PRIu64, leg->options.migration);
	/* The pid file first: who can connect can also find us. */
	if (paths_write_pid(&leg->paths, name, getpid(), err) ||
	    control_open(&leg->control, &leg->paths, leg->options.migration, err))
		return -1;
	leg->agent_seen_ms = leg->tick_at_ms = leg_now_ms();
	return 0;
}

static void end(struct leg *leg)
{
	char name[32];
	if (leg->work)
		cancel_fire(leg->work);
	conductor_free(leg->conductor);
	voteline_free(atomic_load(&leg->line));
	leg->side->free(leg);
	control_close(leg->control);
	if (leg->lock_fd >= 0) { /* else they are another leg's */
		snprintf(name, sizeof(name), "leg-%" PRIu64, leg->options.migration);
		paths_remove_pid(&leg->paths, name);
		if (leg->stop)
			(void)unlink(leg->identity_path);
	}
	if (leg->hv)
		leg->ops->close(leg->hv);
	queue_free(leg->queue);
	cancel_free(leg->work);
	tls_identity_free(leg->identity);
	journal_close(leg->journal);
	if (leg->signal_fd >= 0)
		close(leg->signal_fd);
	pthread_mutex_destroy(&leg->link_lock);
	free(leg->plan);
	free(leg->conf);
	lock_drop(leg->lock_path, leg->lock_fd);
}

/* ---- loop ---- */
static void on_signal(struct leg *leg)
{
	struct signalfd_siginfo info;
	struct err err;
	if (read(leg->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	log_notice("event=signal migration=%" PRIu64 " signal=%u", leg->options.migration, info.ssi_signo);
	leg->ending = true;
	err_set(&err, ERR_LEG_LOST, "the leg was told to end by signal %u", info.ssi_signo);
	leg_fail(leg, &err);
}

static void on_agent(struct leg *leg)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	if (!msg)
		return; /* it stays readable */
	if (control_read(leg->control, msg) == 1) {
		leg_message(leg, msg);
		msg_free(msg);
	}
	free(msg);
}

static int run(struct leg *leg, struct err *err)
{
	if (leg->recovering)
		leg_due(leg);
	while (!leg->stop || leg->busy) {
		struct pollfd fds[] = {
			{ .fd = queue_fd(leg->queue), .events = POLLIN },
			{ .fd = control_fd(leg->control), .events = POLLIN },
			{ .fd = control_listen_fd(leg->control), .events = POLLIN },
			{ .fd = leg->signal_fd, .events = POLLIN },
		};
		int64_t left_ms = leg->tick_at_ms - leg_now_ms();
		if (poll(fds, 4, left_ms > 0 ? (int)left_ms : 0) < 0 && errno != EINTR)
			return err_errno(err, ERR_IO, errno, "poll");
		if (fds[0].revents)
			queue_run(leg->queue, leg);
		if (fds[1].revents && control_fd(leg->control) == fds[1].fd)
			on_agent(leg);
		if (fds[2].revents && control_accept(leg->control))
			leg_greet(leg);
		if (fds[3].revents)
			on_signal(leg);
		if (leg_now_ms() >= leg->tick_at_ms) {
			leg_tick(leg);
			voteline_tick(leg);
		}
	}
	return 0;
}

int leg_run(const struct leg_options *options, const struct hypervisor_ops *ops)
{
	struct err err = { 0 };
	struct leg *leg = calloc(1, sizeof(*leg));
	if (!leg)
		return EXIT_FAILURE;
	leg->options = *options;
	leg->ops = ops;
	leg->side = options->side == SIDE_SOURCE ? &leg_source : &leg_dest;
	leg->signal_fd = leg->lock_fd = -1;
	pthread_mutex_init(&leg->link_lock, NULL);
	log_notice("event=start migration=%" PRIu64 " generation=%u side=%s recover=%d", options->migration,
	           options->generation, side_name(options->side), options->recover);
	int rc = start(leg, &err);
	if (!rc)
		rc = run(leg, &err);
	if (rc)
		log_error("event=ended-by-error migration=%" PRIu64 " error=\"%s\"", options->migration, err.text);
	else
		log_notice("event=end migration=%" PRIu64 " side=%s", options->migration, side_name(options->side));
	bool twin = leg->lock_fd < 0 && err.code == ERR_BUSY;
	end(leg);
	free(leg);
	return twin ? LEG_EXIT_TWIN : rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
