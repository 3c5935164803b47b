/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/loop.h"

#include <czmq.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop_zmq.h"

/*
 * zloop waits for descriptors and sockets. Timers are here, on one timerfd: zloop's stand still while the machine is
 * suspended, run once for every period that was missed, and can be called after they were cancelled.
 */
struct timer {
	int id;
	int64_t due_ns; /* CLOCK_BOOTTIME */
	int64_t delay_ns;
	bool repeat;
	loop_fn fn;
	void *ctx;
};

struct watch {
	struct watch *next;
	struct loop *loop;
	int fd; /* -1: a ZeroMQ socket */
	void *socket;
	loop_fd_fn fd_fn;
	loop_fn socket_fn;
	void *ctx;
};

struct loop {
	zloop_t *zloop;
	void *zmq;
	bool stopping;
	int signal_fd, timer_fd;
	sigset_t mask_before;
	bool masked;
	int last_timer;
	size_t timer_count, timer_room;
	struct timer *timers; /* in no order */
	struct watch *watches;
	loop_signal_fn on_signal;
	void *signal_ctx;
	loop_child_fn on_child;
	void *child_ctx;
};

/* ---- descriptors and sockets ---- */

static int on_ready(zloop_t *zloop, zmq_pollitem_t *item, void *arg)
{
	(void)zloop;
	(void)item;
	struct watch *watch = arg;
	struct loop *loop = watch->loop;
	if (watch->socket_fn) /* watch may be gone when it returns */
		watch->socket_fn(watch->ctx);
	else
		watch->fd_fn(watch->ctx, watch->fd);
	return loop->stopping ? -1 : 0;
}

static zmq_pollitem_t item_of(const struct watch *watch)
{
	return (zmq_pollitem_t) { .socket = watch->socket, .fd = watch->fd, .events = ZMQ_POLLIN | ZMQ_POLLERR };
}

static struct watch **find_watch(struct loop *loop, int fd, const void *socket)
{
	struct watch **at = &loop->watches;
	while (*at && ((*at)->fd != fd || (*at)->socket != socket))
		at = &(*at)->next;
	return at;
}

static int add_watch(struct loop *loop, const struct watch *like, struct err *err)
{
	if (*find_watch(loop, like->fd, like->socket))
		return err_set(err, ERR_INTERNAL, "loop: descriptor %d is watched already", like->fd);
	struct watch *watch = malloc(sizeof(*watch));
	if (!watch)
		return err_set(err, ERR_NO_MEMORY, "loop: no memory");
	*watch = *like;
	watch->loop = loop;
	zmq_pollitem_t item = item_of(watch);
	if (zloop_poller(loop->zloop, &item, on_ready, watch) != 0) {
		free(watch);
		return err_set(err, ERR_NO_MEMORY, "loop: cannot watch descriptor %d", like->fd);
	}
	zloop_poller_set_tolerant(loop->zloop, &item); /* else it is thrown out at its second error */
	watch->next = loop->watches;
	loop->watches = watch;
	return 0;
}

static void end_watch(struct loop *loop, int fd, const void *socket)
{
	struct watch **at = find_watch(loop, fd, socket);
	struct watch *watch = *at;
	if (!watch)
		return;
	zmq_pollitem_t item = item_of(watch);
	zloop_poller_end(loop->zloop, &item); /* from here on zloop does not call it, not even in this round */
	*at = watch->next;
	free(watch);
}

int loop_fd(struct loop *loop, int fd, loop_fd_fn fn, void *ctx, struct err *err)
{
	if (fd < 0)
		return err_set(err, ERR_INTERNAL, "loop: no descriptor to watch");
	return add_watch(loop, &(struct watch) { .fd = fd, .fd_fn = fn, .ctx = ctx }, err);
}

void loop_fd_end(struct loop *loop, int fd)
{
	if (fd >= 0)
		end_watch(loop, fd, NULL);
}

int loop_zmq_socket(struct loop *loop, void *socket, loop_fn fn, void *ctx, struct err *err)
{
	return add_watch(loop, &(struct watch) { .fd = -1, .socket = socket, .socket_fn = fn, .ctx = ctx }, err);
}

void loop_zmq_socket_end(struct loop *loop, void *socket)
{
	if (socket)
		end_watch(loop, -1, socket);
}

void *loop_zmq(struct loop *loop, struct err *err)
{
	if (!loop->zmq)
		loop->zmq = zmq_ctx_new();
	if (!loop->zmq)
		err_errno(err, ERR_NO_MEMORY, errno, "ZeroMQ context");
	return loop->zmq;
}

/* ---- timers ---- */

static struct timer *find_timer(struct loop *loop, int id)
{
	for (size_t i = 0; i < loop->timer_count; i++)
		if (loop->timers[i].id == id)
			return &loop->timers[i];
	return NULL;
}

static void drop_timer(struct loop *loop, struct timer *timer)
{
	*timer = loop->timers[--loop->timer_count];
}

static struct timer *next_timer(struct loop *loop)
{
	struct timer *next = NULL;
	for (size_t i = 0; i < loop->timer_count; i++) {
		struct timer *timer = &loop->timers[i];
		if (!next || timer->due_ns < next->due_ns || (timer->due_ns == next->due_ns && timer->id < next->id))
			next = timer;
	}
	return next;
}

/* Sets the timerfd to the next timer. */
static void arm(struct loop *loop)
{
	struct itimerspec spec = { 0 };
	const struct timer *next = next_timer(loop);
	if (next) {
		spec.it_value.tv_sec = (time_t)(next->due_ns / 1000000000);
		spec.it_value.tv_nsec = (long)(next->due_ns % 1000000000);
	}
	timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void on_timers(void *ctx, int fd)
{
	struct loop *loop = ctx;
	uint64_t times;
	if (read(fd, &times, sizeof(times)) < 0 && errno != EAGAIN)
		log_error("loop: timerfd: %s", strerror(errno));
	const int64_t now_ns = clock_real.now_ns(&clock_real);
	struct timer *timer;
	while (!loop->stopping && (timer = next_timer(loop)) && timer->due_ns <= now_ns) {
		const struct timer due = *timer;
		if (due.repeat) { /* what was missed is not made up for */
			timer->due_ns += due.delay_ns;
			if (timer->due_ns <= now_ns)
				timer->due_ns = now_ns + due.delay_ns;
		} else {
			drop_timer(loop, timer);
		}
		due.fn(due.ctx);
	}
	arm(loop);
}

int loop_timer(struct loop *loop, unsigned delay_ms, bool repeat, loop_fn fn, void *ctx, struct err *err)
{
	if (loop->timer_count == loop->timer_room) {
		size_t room = loop->timer_room ? loop->timer_room * 2 : 16;
		struct timer *timers = reallocarray(loop->timers, room, sizeof(*timers));
		if (!timers)
			return err_set(err, ERR_NO_MEMORY, "loop: no memory for a timer");
		loop->timers = timers;
		loop->timer_room = room;
	}
	if (repeat && delay_ms == 0)
		delay_ms = 1;
	do
		loop->last_timer = loop->last_timer < INT_MAX ? loop->last_timer + 1 : 1;
	while (find_timer(loop, loop->last_timer));
	struct timer *timer = &loop->timers[loop->timer_count++];
	*timer = (struct timer) {
		.id = loop->last_timer, .delay_ns = (int64_t)delay_ms * 1000000, .repeat = repeat, .fn = fn, .ctx = ctx
	};
	timer->due_ns = clock_real.now_ns(&clock_real) + timer->delay_ns;
	int id = timer->id;
	arm(loop);
	return id;
}

void loop_timer_end(struct loop *loop, int id)
{
	struct timer *timer = id > 0 ? find_timer(loop, id) : NULL;
	if (!timer)
		return;
	drop_timer(loop, timer);
	arm(loop);
}

/* ---- signals and children ---- */

/* Only what this thread has started: a child that proc_run() started in another thread is that thread's to wait for. */
static void reap_children(struct loop *loop)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG | __WNOTHREAD)) > 0)
		if (loop->on_child)
			loop->on_child(loop->child_ctx, pid, status);
}

static void on_signals(void *ctx, int fd)
{
	struct loop *loop = ctx;
	struct signalfd_siginfo info;
	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		int signo = (int)info.ssi_signo;
		if (signo == SIGCHLD)
			reap_children(loop);
		else if (loop->on_signal)
			loop->on_signal(loop->signal_ctx, signo);
		else if (signo != SIGHUP)
			loop_stop(loop);
	}
}

void loop_on_signal(struct loop *loop, loop_signal_fn fn, void *ctx)
{
	loop->on_signal = fn;
	loop->signal_ctx = ctx;
}

void loop_on_child(struct loop *loop, loop_child_fn fn, void *ctx)
{
	loop->on_child = fn;
	loop->child_ctx = ctx;
}

/* ---- the loop ---- */

static int open_signals(struct loop *loop, struct err *err)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	if (pthread_sigmask(SIG_BLOCK, &set, &loop->mask_before) != 0)
		return err_set(err, ERR_INTERNAL, "loop: cannot block signals");
	loop->masked = true;
	signal(SIGPIPE, SIG_IGN); /* a peer that is gone is an error of write() */
	loop->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (loop->signal_fd < 0)
		return err_errno(err, ERR_IO, errno, "loop: signalfd");
	return loop_fd(loop, loop->signal_fd, on_signals, loop, err);
}

static int open_timers(struct loop *loop, struct err *err)
{
	loop->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (loop->timer_fd < 0)
		return err_errno(err, ERR_IO, errno, "loop: timerfd");
	return loop_fd(loop, loop->timer_fd, on_timers, loop, err);
}

struct loop *loop_new(struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	if (!loop) {
		err_set(err, ERR_NO_MEMORY, "loop: no memory");
		return NULL;
	}
	loop->signal_fd = loop->timer_fd = -1;
	zsys_handler_set(NULL); /* else czmq takes SIGINT and SIGTERM */
	loop->zloop = zloop_new();
	if (!loop->zloop) {
		free(loop);
		err_set(err, ERR_NO_MEMORY, "loop: no memory");
		return NULL;
	}
	zloop_set_nonstop(loop->zloop, true);
	if (open_signals(loop, err) < 0 || open_timers(loop, err) < 0) {
		loop_free(loop);
		return NULL;
	}
	return loop;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	while (loop->watches)
		end_watch(loop, loop->watches->fd, loop->watches->socket);
	zloop_destroy(&loop->zloop);
	if (loop->zmq)
		zmq_ctx_term(loop->zmq);
	if (loop->signal_fd >= 0)
		close(loop->signal_fd);
	if (loop->timer_fd >= 0)
		close(loop->timer_fd);
	if (loop->masked)
		pthread_sigmask(SIG_SETMASK, &loop->mask_before, NULL);
	free(loop->timers);
	free(loop);
}

int loop_run(struct loop *loop, struct err *err)
{
	int result = 0;
	while (!loop->stopping && result == 0) {
		errno = 0;
		int rc = zloop_start(loop->zloop); /* also ends when a debugger or SIGCONT interrupts its poll */
		if (!loop->stopping && (rc > 0 || (errno != 0 && errno != EINTR && errno != EAGAIN)))
			result = err_errno(err, ERR_INTERNAL, errno, "loop: poll");
	}
	loop->stopping = false;
	return result;
}

void loop_stop(struct loop *loop)
{
	loop->stopping = true;
}
