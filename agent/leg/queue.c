/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/log.h"

#define JOBS_MAX 16 /* of each kind one at most is waiting */

struct item {
	struct item *next;
	void (*fn)(struct leg *leg, void *arg);
	void *arg;
};

struct queue {
	int fd;
	pthread_mutex_t lock;
	pthread_cond_t called; /* a call has its result */
	struct item *first, **last;
};

struct queue *queue_new(struct err *err)
{
	struct queue *queue = calloc(1, sizeof(*queue));
	if (!queue) {
		err_set(err, ERR_NO_MEMORY, "queue");
		return NULL;
	}
	queue->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->fd < 0) {
		err_errno(err, ERR_IO, errno, "eventfd");
		free(queue);
		return NULL;
	}
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->called, NULL);
	queue->last = &queue->first;
	return queue;
}

void queue_free(struct queue *queue)
{
	if (!queue)
		return;
	while (queue->first) {
		struct item *item = queue->first;
		queue->first = item->next;
		free(item->arg);
		free(item);
	}
	close(queue->fd);
	pthread_mutex_destroy(&queue->lock);
	pthread_cond_destroy(&queue->called);
	free(queue);
}

int queue_fd(const struct queue *queue)
{
	return queue->fd;
}

void queue_post(struct queue *queue, void (*fn)(struct leg *leg, void *arg), void *arg)
{
	struct item *item = malloc(sizeof(*item));
	if (!item) { /* an event that is lost could hang a VM: a leg that is started again finds its way */
		log_error("event=out-of-memory");
		abort();
	}
	*item = (struct item) { NULL, fn, arg };
	pthread_mutex_lock(&queue->lock);
	*queue->last = item;
	queue->last = &item->next;
	uint64_t one = 1;
	ssize_t n = write(queue->fd, &one, sizeof(one));
	(void)n; /* full means readable */
	pthread_mutex_unlock(&queue->lock);
}

void queue_run(struct queue *queue, struct leg *leg)
{
	uint64_t count;
	pthread_mutex_lock(&queue->lock);
	struct item *item = queue->first;
	queue->first = NULL;
	queue->last = &queue->first;
	ssize_t n = read(queue->fd, &count, sizeof(count));
	(void)n;
	pthread_mutex_unlock(&queue->lock);
	while (item) {
		struct item *next = item->next;
		item->fn(leg, item->arg);
		free(item->arg);
		free(item);
		item = next;
	}
}

struct call {
	struct queue *queue;
	int (*fn)(struct leg *leg, void *arg, struct err *err);
	void *arg;
	struct err *err;
	int rc;
	bool done;
};

static void run_call(struct leg *leg, void *arg)
{
	struct call *call = *(struct call **)arg;
	int rc = call->fn(leg, call->arg, call->err);
	struct queue *queue = call->queue;
	pthread_mutex_lock(&queue->lock);
	call->rc = rc;
	call->done = true;
	pthread_cond_broadcast(&queue->called);
	pthread_mutex_unlock(&queue->lock);
}

int queue_call(struct queue *queue, int (*fn)(struct leg *leg, void *arg, struct err *err), void *arg, struct err *err)
{
	struct call call = { queue, fn, arg, err, -1, false };
	struct call **box = malloc(sizeof(struct call *));
	if (!box)
		return err_set(err, ERR_NO_MEMORY, "queue");
	*box = &call;
	queue_post(queue, run_call, box);
	pthread_mutex_lock(&queue->lock);
	while (!call.done)
		pthread_cond_wait(&queue->called, &queue->lock);
	pthread_mutex_unlock(&queue->lock);
	return call.rc;
}

/* ---- conductor ---- */
struct job {
	conductor_fn run;
	conductor_done_fn done;
};

struct conductor {
	struct leg *leg;
	struct queue *queue;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool ending;
	unsigned first, count;
	struct job jobs[JOBS_MAX];
};

struct outcome_of_job {
	conductor_done_fn done;
	int rc;
	struct err err;
};

static void tell_done(struct leg *leg, void *arg)
{
	struct outcome_of_job *outcome = arg;
	outcome->done(leg, outcome->rc, &outcome->err);
}

static bool next_job(struct conductor *conductor, struct job *ret_job)
{
	pthread_mutex_lock(&conductor->lock);
	while (!conductor->count && !conductor->ending)
		pthread_cond_wait(&conductor->wake, &conductor->lock);
	bool any = conductor->count > 0;
	if (any) {
		*ret_job = conductor->jobs[conductor->first];
		conductor->first = (conductor->first + 1) % JOBS_MAX;
		conductor->count--;
	}
	pthread_mutex_unlock(&conductor->lock);
	return any;
}

static void *conductor_main(void *arg)
{
	struct conductor *conductor = arg;
	struct job job;
	while (next_job(conductor, &job)) {
		struct outcome_of_job *outcome = calloc(1, sizeof(*outcome));
		if (!outcome)
			abort(); /* as in queue_post */
		outcome->done = job.done;
		outcome->rc = job.run(conductor->leg, &outcome->err);
		queue_post(conductor->queue, tell_done, outcome);
	}
	return NULL;
}

struct conductor *conductor_new(struct leg *leg, struct queue *queue, struct err *err)
{
	struct conductor *conductor = calloc(1, sizeof(*conductor));
	if (!conductor) {
		err_set(err, ERR_NO_MEMORY, "conductor");
		return NULL;
	}
	conductor->leg = leg;
	conductor->queue = queue;
	pthread_mutex_init(&conductor->lock, NULL);
	pthread_cond_init(&conductor->wake, NULL);
	if (pthread_create(&conductor->thread, NULL, conductor_main, conductor)) {
		err_set(err, ERR_NO_MEMORY, "conductor: thread");
		free(conductor);
		return NULL;
	}
	return conductor;
}

void conductor_job(struct conductor *conductor, conductor_fn run, conductor_done_fn done)
{
	pthread_mutex_lock(&conductor->lock);
	if (conductor->count == JOBS_MAX) {
		log_error("event=too-many-jobs");
		abort();
	}
	conductor->jobs[(conductor->first + conductor->count++) % JOBS_MAX] = (struct job) { run, done };
	pthread_cond_signal(&conductor->wake);
	pthread_mutex_unlock(&conductor->lock);
}

void conductor_free(struct conductor *conductor)
{
	if (!conductor)
		return;
	pthread_mutex_lock(&conductor->lock);
	conductor->ending = true;
	pthread_cond_signal(&conductor->wake);
	pthread_mutex_unlock(&conductor->lock);
	pthread_join(conductor->thread, NULL);
	pthread_mutex_destroy(&conductor->lock);
	pthread_cond_destroy(&conductor->wake);
	free(conductor);
}
