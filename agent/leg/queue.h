/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a leg's threads talk: workers hand closures to the main thread (post, or call and wait), the main thread hands
 * jobs to the conductor, one thread that does what blocks, job after job, and that lives as long as the leg (exporters
 * die with the thread that started them).
 */
#ifndef DROVER_LEG_QUEUE_H
#define DROVER_LEG_QUEUE_H

#include "common/err.h"

struct leg;
struct queue;

struct queue *queue_new(struct err *err);
void queue_free(struct queue *queue); /* what is left in it is dropped, with its args */

/* Readable while there is something in it. */
int queue_fd(const struct queue *queue);
/* Has fn(leg, arg) run by whoever runs the queue, who frees arg (malloc'ed or NULL) afterwards. Any thread. */
void queue_post(struct queue *queue, void (*fn)(struct leg *leg, void *arg), void *arg);
/* The same, and waits for the result; arg stays the caller's. Not from the thread that runs the queue. */
int queue_call(struct queue *queue, int (*fn)(struct leg *leg, void *arg, struct err *err), void *arg, struct err *err);
/* Runs what is in it now. Does not block. */
void queue_run(struct queue *queue, struct leg *leg);

struct conductor;

typedef int (*conductor_fn)(struct leg *leg, struct err *err);
typedef void (*conductor_done_fn)(struct leg *leg, int rc, const struct err *err);

/* Jobs run in order; each one's `done` is posted to `queue` with its result. */
struct conductor *conductor_new(struct leg *leg, struct queue *queue, struct err *err);
void conductor_job(struct conductor *conductor, conductor_fn run, conductor_done_fn done);
/* Ends the thread after the jobs it has, and frees. The queue must be run meanwhile if a job may call it. */
void conductor_free(struct conductor *conductor);

#endif
