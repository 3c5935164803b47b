/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event loop of a daemon: timers, file descriptors, signals, child processes. One thread; every callback runs
 * to its end before the next. (czmq's zloop inside; with common/bus.c the only code that includes czmq.)
 * Make it before any thread: SIGINT, SIGTERM, SIGHUP and SIGCHLD are blocked and read from a signalfd.
 */
#ifndef DROVER_LOOP_H
#define DROVER_LOOP_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

struct loop;

typedef void (*loop_fn)(void *ctx);
typedef void (*loop_fd_fn)(void *ctx, int fd);
typedef void (*loop_signal_fn)(void *ctx, int signo);
/* status as waitpid() gives it. */
typedef void (*loop_child_fn)(void *ctx, pid_t pid, int status);

struct loop *loop_new(struct err *err);
void loop_free(struct loop *loop);

/* Runs until loop_stop(). SIGINT and SIGTERM stop it unless a signal callback is set. */
int loop_run(struct loop *loop, struct err *err);
void loop_stop(struct loop *loop);

/* Calls fn every delay_ms (repeat) or once. Returns a timer id > 0, or -1. A one-shot timer's id is dead after it ran.
 */
int loop_timer(struct loop *loop, unsigned delay_ms, bool repeat, loop_fn fn, void *ctx, struct err *err);
void loop_timer_end(struct loop *loop, int timer); /* 0 and -1 are ignored */

/* Calls fn whenever fd is readable or in error. The caller keeps the fd and removes it here before it closes it. */
int loop_fd(struct loop *loop, int fd, loop_fd_fn fn, void *ctx, struct err *err);
void loop_fd_end(struct loop *loop, int fd);

/* SIGHUP, SIGINT and SIGTERM. One callback a loop. */
void loop_on_signal(struct loop *loop, loop_signal_fn fn, void *ctx);
/* Called for each child reaped, whoever started it. One callback a loop. */
void loop_on_child(struct loop *loop, loop_child_fn fn, void *ctx);

#endif
