/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leg processes. What decides is production's (leg_due.c, leg_command.c, leg_session.c, source.c, dest.c, clean.c); the
 * threads, queues and sockets round it are events here.
 */
#include "tests/sim/legs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/leg/net.h"
#include "common/log.h"

#define JOBS_MAX 16

struct item;
struct queue {
	struct sim_leg *leg;
	struct item *first, **last;
};

struct job {
	conductor_fn run;
	conductor_done_fn done;
};

struct conductor {
	struct sim_leg *leg;
	unsigned first, count;
	struct job jobs[JOBS_MAX];
};

struct control {
	struct sim_leg *leg;
};

struct tls_identity {
	struct sim_leg *leg;
};

/* Whose queue, conductor, control or identity is being made. */
static struct sim_leg *making;
static struct {
	struct sim_leg **list;
	size_t count, room;
	unsigned ports;
} all;

struct sim_leg *sim_leg_find(unsigned pid)
{
	struct proc *proc = proc_find(pid);
	return proc && proc->kind == PROC_LEG && !proc->dying ? proc->object : NULL;
}

struct sim_leg *sim_leg_at(const char *endpoint)
{
	unsigned port = 0;
	if (sscanf(endpoint, "%*[^:]:%u", &port) != 1)
		return NULL;
	for (size_t i = 0; i < all.count; i++)
		if (all.list[i]->port == port && all.list[i]->listening)
			return all.list[i];
	return NULL;
}

/* After each thing that it did: has it come to its end? */
static void settle(struct sim_leg *self)
{
	if (self->leg.stop && !self->leg.busy)
		proc_end(self->proc, 0);
}

/* ---- queue and conductor ---- */

struct item {
	struct item *next;
	void (*fn)(struct leg *leg, void *arg);
	void *arg;
};

struct queue *queue_new(struct err *err)
{
	struct queue *queue = calloc(1, sizeof(*queue));
	if (!queue) {
		err_set(err, ERR_NO_MEMORY, "queue");
		return NULL;
	}
	queue->leg = making;
	queue->last = &queue->first;
	return queue;
}

static struct item *queue_take(struct queue *queue)
{
	struct item *item = queue->first;
	queue->first = item->next;
	if (!queue->first)
		queue->last = &queue->first;
	return item;
}

void queue_free(struct queue *queue)
{
	while (queue && queue->first) {
		struct item *item = queue_take(queue);
		free(item->arg);
		free(item);
	}
	free(queue);
}

static void run_next(void *ctx, uint64_t unused)
{
	struct queue *queue = ctx;
	struct item *item = queue_take(queue);
	(void)unused;
	item->fn(&queue->leg->leg, item->arg);
	free(item->arg);
	free(item);
	settle(queue->leg);
}

void queue_post(struct queue *queue, void (*fn)(struct leg *leg, void *arg), void *arg)
{
	struct item *item = calloc(1, sizeof(*item));
	if (!item)
		abort();
	item->fn = fn;
	item->arg = arg;
	*queue->last = item;
	queue->last = &item->next;
	event_add(chance_us(10, 200), queue->leg->proc->pid, run_next, queue, 0, false);
}

/* The thread that calls is the one that would run it. */
int queue_call(struct queue *queue, int (*fn)(struct leg *leg, void *arg, struct err *err), void *arg, struct err *err)
{
	return fn(&queue->leg->leg, arg, err);
}

struct conductor *conductor_new(struct leg *leg, struct queue *queue, struct err *err)
{
	struct conductor *conductor = calloc(1, sizeof(*conductor));
	(void)queue;
	if (!conductor)
		err_set(err, ERR_NO_MEMORY, "conductor");
	else
		conductor->leg = sim_leg_of(leg);
	return conductor;
}

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

static void run_job(void *ctx, uint64_t unused)
{
	struct conductor *conductor = ctx;
	struct sim_leg *leg = conductor->leg;
	struct job job = conductor->jobs[conductor->first];
	struct outcome_of_job *outcome = calloc(1, sizeof(*outcome));
	(void)unused;
	if (!outcome)
		abort();
	leg->wait_us = 10 * MS;
	outcome->done = job.done;
	outcome->rc = job.run(&leg->leg, &outcome->err);
	if (outcome->rc == JOB_AGAIN) {
		free(outcome);
		event_add(leg->wait_us, leg->proc->pid, run_job, conductor, 0, false);
		return;
	}
	queue_post(leg->leg.queue, tell_done, outcome);
	conductor->first = (conductor->first + 1) % JOBS_MAX;
	if (--conductor->count)
		event_add(0, leg->proc->pid, run_job, conductor, 0, false);
}

void conductor_job(struct conductor *conductor, conductor_fn run, conductor_done_fn done)
{
	if (conductor->count == JOBS_MAX)
		abort();
	conductor->jobs[(conductor->first + conductor->count++) % JOBS_MAX] = (struct job) { run, done };
	if (conductor->count == 1)
		event_add(chance_us(1 * MS, 30 * MS) * conductor->leg->proc->machine->slow, conductor->leg->proc->pid,
		          run_job, conductor, 0, false);
}

void conductor_free(struct conductor *conductor)
{
	free(conductor);
}

/* ---- the agent's connection ---- */

int control_fd(const struct control *control)
{
	return control->leg->agent_fd;
}

bool control_send(struct control *control, const struct msg *msg, bool matters)
{
	void *frame = NULL;
	size_t bytes = 0;
	struct err err = { 0 };
	struct sim_leg *leg = control->leg;
	(void)matters;
	if (leg->agent_fd < 0 || proc_is_dying())
		return false;
	if (msg_encode(msg, &frame, &bytes, &err) < 0) {
		promise_broken("what is sent can be read", "leg to agent: %s", err.text);
		return false;
	}
	bool sent = agents_packet(leg->agent_fd, frame, bytes);
	free(frame);
	return sent;
}

static void greet(void *ctx, uint64_t fd)
{
	struct sim_leg *leg = ctx;
	if (leg->agent_fd != (int)fd)
		return;
	leg_greet(&leg->leg);
	settle(leg);
}

void legs_connected(unsigned leg_pid, int fd)
{
	struct sim_leg *leg = sim_leg_find(leg_pid);
	leg->agent_fd = fd;
	event_add(chance_us(50, 500), leg_pid, greet, leg, (uint64_t)fd, false);
}

void legs_hung_up(unsigned leg_pid, int fd)
{
	struct sim_leg *leg = sim_leg_find(leg_pid);
	if (leg && leg->agent_fd == fd)
		leg->agent_fd = -1;
}

struct packet {
	size_t bytes;
	unsigned char frame[];
};

static void take_packet(struct leg *leg, void *arg)
{
	const struct packet *packet = arg;
	struct msg *msg = calloc(1, sizeof(*msg));
	struct err err = { 0 };
	if (!msg)
		abort();
	if (msg_decode(packet->frame, packet->bytes, msg, &err) == 0) {
		leg_message(leg, msg);
		msg_free(msg);
	} else {
		promise_broken("what is sent can be read", "agent to leg: %s", err.text);
	}
	free(msg);
}

void legs_packet(unsigned leg_pid, const void *bytes, size_t count)
{
	struct sim_leg *leg = sim_leg_find(leg_pid);
	struct packet *packet = leg ? malloc(sizeof(*packet) + count) : NULL;
	if (!packet)
		return;
	packet->bytes = count;
	memcpy(packet->frame, bytes, count);
	queue_post(leg->leg.queue, take_packet, packet);
}

/* ---- identity, listening ---- */

/* What is kept in run/ for the next leg is gone with a boot of the host. */
int tls_identity_open(struct tls_identity **ret_identity, const char *path, bool again, struct err *err)
{
	(void)path, (void)again;
	const struct leg_options *options = &making->leg.options;
	(void)snprintf(making->fingerprint, sizeof(making->fingerprint), "%016x%016" PRIx64 "%016x%016x",
	               making->proc->machine->index, options->migration, options->generation,
	               making->proc->machine->boots);
	*ret_identity = calloc(1, sizeof(**ret_identity));
	if (!*ret_identity)
		return err_set(err, ERR_NO_MEMORY, "identity");
	(*ret_identity)->leg = making;
	return 0;
}

void tls_identity_free(struct tls_identity *identity)
{
	free(identity);
}

const char *tls_fingerprint(const struct tls_identity *identity)
{
	return identity->leg->fingerprint;
}

int tls_expect(struct tls_identity *identity, const char *fingerprint, struct err *err)
{
	if (strlen(fingerprint) != 64)
		return err_set(err, ERR_USAGE, "that is no fingerprint");
	(void)snprintf(identity->leg->expected, LIMIT_ID, "%s", fingerprint);
	return 0;
}

int net_listen(const char *address, int *ret_fd, char ret_endpoint[LIMIT_ID], struct err *err)
{
	struct sim_leg *leg = world_current->object;
	(void)address;
	if (proc_is_dying())
		return err_set(err, ERR_IO, "dying");
	leg->port = ++all.ports;
	*ret_fd = -1; /* nothing that would have to be closed */
	(void)snprintf(ret_endpoint, LIMIT_ID, "%s:%u", leg->proc->machine->name, leg->port);
	return 0;
}

/* ---- life ---- */

static void forget_leg(struct sim_leg *leg)
{
	for (size_t i = 0; i < all.count; i++)
		if (all.list[i] == leg)
			all.list[i--] = all.list[--all.count];
}

static void leg_end(struct proc *proc)
{
	struct sim_leg *self = proc->object;
	struct leg *leg = &self->leg;
	self->listening = false;
	forget_leg(self);
	if (leg->work)
		cancel_fire(leg->work);
	conductor_free(leg->conductor);
	leg->side->free(leg);
	if (leg->hv)
		leg->ops->close(leg->hv);
	free(leg->control);
	queue_free(leg->queue);
	cancel_free(leg->work);
	tls_identity_free(leg->identity);
	journal_close(leg->journal);
	pthread_mutex_destroy(&leg->link_lock);
	free(leg->plan);
	free(self);
	proc->object = NULL;
	storage_leg_ended(proc->pid);
	agents_leg_ended(proc->pid);
}

static void tick(void *ctx, uint64_t unused)
{
	struct sim_leg *self = ctx;
	(void)unused;
	self->leg.tick_at_ms = leg_now_ms() + LEG_PROGRESS_MS;
	event_add(LEG_PROGRESS_MS * MS, self->proc->pid, tick, self, 0, false);
	leg_tick(&self->leg);
	wire_tend_line(self);
	settle(self);
}

/* As leg.c begins. */
static int leg_begin(struct sim_leg *self, struct err *err)
{
	struct leg *leg = &self->leg;
	making = self;
	leg->paths = self->proc->machine->paths;
	leg->conf = self->proc->machine->conf;
	if (journal_open(&leg->journal, &leg->paths, err) || leg_load(leg, err) ||
	    tls_identity_open(&leg->identity, "", leg->options.recover, err) ||
	    (*leg->peer_fingerprint && tls_expect(leg->identity, leg->peer_fingerprint, err)))
		return -1;
	leg->work = cancel_new(err);
	leg->queue = leg->work ? queue_new(err) : NULL;
	leg->conductor = leg->queue ? conductor_new(leg, leg->queue, err) : NULL;
	leg->control = calloc(1, sizeof(*leg->control));
	if (!leg->conductor || !leg->control || leg->side->make(leg, err) || leg->ops->open(&leg->hv, &leg->paths, err))
		return -1;
	leg->control->leg = self;
	if (leg->options.side == SIDE_DESTINATION && *leg->endpoint) /* at the endpoint of the leg that it follows */
		(void)sscanf(leg->endpoint, "%*[^:]:%u", &self->port);
	leg->agent_seen_ms = leg_now_ms();
	return 0;
}

static bool has_twin(const struct sim_leg *self)
{
	for (size_t i = 0; i < all.count; i++)
		if (all.list[i] != self && all.list[i]->proc->machine == self->proc->machine &&
		    all.list[i]->leg.options.migration == self->leg.options.migration)
			return true;
	return false;
}

static void main_of_leg(void *ctx, uint64_t unused)
{
	struct sim_leg *self = ctx;
	struct err err = { 0 };
	(void)unused;
	if (has_twin(self)) {
		proc_end(self->proc, LEG_EXIT_TWIN << 8);
		return;
	}
	if (all.count == all.room) {
		all.room = all.room ? 2 * all.room : 64;
		all.list = reallocarray(all.list, all.room, sizeof(struct sim_leg *));
		if (!all.list)
			abort();
	}
	all.list[all.count++] = self;
	if (leg_begin(self, &err)) {
		log_error("event=ended-by-error migration=%" PRIu64 " error=\"%s\"", self->leg.options.migration,
		          err.text);
		proc_end(self->proc, 1 << 8);
		return;
	}
	self->listening = true;
	tick(self, 0);
}

struct proc *legs_start(uint64_t migration, uint32_t generation, enum side side, bool recover)
{
	struct sim_leg *self = calloc(1, sizeof(*self));
	if (!self)
		abort();
	self->proc = proc_new(PROC_LEG, world_current->machine, leg_end);
	self->proc->object = self;
	self->agent_fd = -1;
	self->leg.options = (struct leg_options) {
		.migration = migration, .generation = generation, .side = side, .recover = recover
	};
	self->leg.ops = &world_hypervisor;
	self->leg.side = side == SIDE_SOURCE ? &leg_source : &leg_dest;
	self->leg.signal_fd = self->leg.lock_fd = -1;
	pthread_mutex_init(&self->leg.link_lock, NULL);
	event_add(chance_us(1 * MS, 40 * MS), self->proc->pid, main_of_leg, self, 0, false);
	return self->proc;
}

struct proc *legs_find(const struct machine *machine, uint64_t migration)
{
	for (size_t i = 0; i < all.count; i++)
		if (all.list[i]->listening && all.list[i]->proc->machine == machine &&
		    all.list[i]->leg.options.migration == migration)
			return all.list[i]->proc;
	return NULL;
}

unsigned legs_running(const struct machine *machine)
{
	unsigned count = 0;
	for (size_t i = 0; i < all.count; i++)
		count += all.list[i]->proc->machine == machine;
	return count;
}

void legs_free(void)
{
	free(all.list);
}
