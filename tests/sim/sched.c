/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Virtual time: events, chance, processes, the trace. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "tests/sim/world.h"

#define TAIL_LINES 4000
#define LINE_BYTES 400

struct event {
	int64_t at_us;
	uint64_t order;
	unsigned pid;
	bool owned;
	event_fn fn;
	void *ctx;
	uint64_t arg;
};

int64_t world_now_us;
struct proc *world_current;
struct world world;

static struct {
	struct event *heap;
	size_t count, room;
	uint64_t order;
	struct proc **procs; /* by pid */
	unsigned proc_count, proc_room;
	uint64_t chance;
	XXH3_state_t *digest;
	char (*tail)[LINE_BYTES];
	uint64_t lines;
} sched;

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

/* ---- chance: splitmix64 ---- */

uint64_t chance_next(void)
{
	if (sched.chance == 0)
		sched.chance = world.scenario.seed * 0x9e3779b97f4a7c15u + 0x1234567u;
	uint64_t z = (sched.chance += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t chance_below(uint64_t below)
{
	return below ? chance_next() % below : 0;
}

bool chance_ppm(unsigned per_million)
{
	return per_million && chance_below(1000000) < per_million;
}

int64_t chance_us(int64_t least_us, int64_t most_us)
{
	return least_us + (int64_t)chance_below((uint64_t)(most_us - least_us) + 1);
}

/* ---- the trace ---- */

void trace(const char *format, ...)
{
	char line[LINE_BYTES];
	va_list args;
	int head = snprintf(line, sizeof(line), "%lld.%06lld ", (long long)(world_now_us / SECOND),
	                    (long long)(world_now_us % SECOND));
	if (world_current)
		head += snprintf(line + head, sizeof(line) - (size_t)head, "%u: ", world_current->pid);
	va_start(args, format);
	(void)vsnprintf(line + head, sizeof(line) - (size_t)head, format, args);
	va_end(args);
	if (!sched.digest) {
		sched.digest = must(XXH3_createState());
		XXH3_64bits_reset(sched.digest);
		sched.tail = must(calloc(TAIL_LINES, LINE_BYTES));
	}
	(void)XXH3_64bits_update(sched.digest, line, strlen(line) + 1);
	memcpy(sched.tail[sched.lines++ % TAIL_LINES], line, LINE_BYTES);
	if (world.show_trace)
		(void)puts(line);
}

uint64_t trace_digest(void)
{
	return sched.digest ? XXH3_64bits_digest(sched.digest) : 0;
}

void trace_tail(void (*line)(void *ctx, const char *text), void *ctx)
{
	uint64_t first = sched.lines > TAIL_LINES ? sched.lines - TAIL_LINES : 0;
	for (uint64_t i = first; i < sched.lines; i++)
		line(ctx, sched.tail[i % TAIL_LINES]);
}

/* ---- events: a heap by (time, order) ---- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void push(struct event event)
{
	if (sched.count == sched.room) {
		sched.room = sched.room ? 2 * sched.room : 1024;
		sched.heap = must(reallocarray(sched.heap, sched.room, sizeof(*sched.heap)));
	}
	event.order = ++sched.order;
	size_t at = sched.count++;
	for (; at > 0 && before(&event, &sched.heap[(at - 1) / 2]); at = (at - 1) / 2)
		sched.heap[at] = sched.heap[(at - 1) / 2];
	sched.heap[at] = event;
}

static struct event pop(void)
{
	struct event top = sched.heap[0], last = sched.heap[--sched.count];
	size_t at = 0;
	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= sched.count)
			break;
		if (child + 1 < sched.count && before(&sched.heap[child + 1], &sched.heap[child]))
			child++;
		if (!before(&sched.heap[child], &last))
			break;
		sched.heap[at] = sched.heap[child];
		at = child;
	}
	sched.heap[at] = last;
	return top;
}

void event_add(int64_t after_us, unsigned pid, event_fn fn, void *ctx, uint64_t arg, bool owned)
{
	push((struct event) { .at_us = world_now_us + (after_us > 0 ? after_us : 0),
	                      .pid = pid,
	                      .fn = fn,
	                      .ctx = ctx,
	                      .arg = arg,
	                      .owned = owned });
}

bool event_step(void)
{
	if (!sched.count)
		return false;
	struct event event = pop();
	struct proc *proc = proc_find(event.pid);
	world_now_us = event.at_us;
	if (proc && proc->stalled_until_us > world_now_us) {
		event.at_us = proc->stalled_until_us;
		push(event);
		return true;
	}
	if (event.pid == 0)
		event.fn(event.ctx, event.arg);
	else if (proc)
		proc_run_in(proc, event.fn, event.ctx, event.arg);
	if (event.owned)
		free(event.ctx);
	return true;
}

/* ---- processes ---- */

struct proc *proc_new(enum proc_kind kind, struct machine *machine, void (*end)(struct proc *proc))
{
	if (sched.proc_count == sched.proc_room) {
		sched.proc_room = sched.proc_room ? 2 * sched.proc_room : 256;
		sched.procs = must(reallocarray(sched.procs, sched.proc_room, sizeof(struct proc *)));
	}
	if (sched.proc_count == 0)
		sched.procs[sched.proc_count++] = NULL; /* 0 is nobody */
	struct proc *proc = must(calloc(1, sizeof(*proc)));
	proc->pid = sched.proc_count;
	proc->kind = kind;
	proc->machine = machine;
	proc->alive = true;
	proc->end = end;
	proc->parent = world_current ? world_current->pid : 0;
	sched.procs[sched.proc_count++] = proc;
	return proc;
}

struct proc *proc_find(unsigned pid)
{
	struct proc *proc = pid < sched.proc_count ? sched.procs[pid] : NULL;
	return proc && proc->alive ? proc : NULL;
}

unsigned proc_newest(void)
{
	return sched.proc_count ? sched.proc_count - 1 : 0;
}

bool proc_is_dying(void)
{
	return world_current && world_current->dying;
}

static void reap(struct proc *proc)
{
	struct proc *outer = world_current;
	proc->dying = true;
	proc->alive = false;
	world_current = proc;
	if (proc->end)
		proc->end(proc);
	world_current = outer;
	trace("process %u has ended, status %d", proc->pid, proc->status);
	machine_proc_ended(proc);
}

void proc_end(struct proc *proc, int status)
{
	if (!proc->alive || proc->dying)
		return;
	proc->dying = true;
	proc->status = status;
	if (proc != world_current)
		reap(proc);
}

void proc_run_in(struct proc *proc, event_fn fn, void *ctx, uint64_t arg)
{
	struct proc *outer = world_current;
	if (proc->dying)
		return;
	world_current = proc;
	fn(ctx, arg);
	world_current = outer;
	if (proc->dying && proc->alive)
		reap(proc);
}

void world_quiet_end(void)
{
	world.calm = true;
	for (unsigned pid = 1; pid < sched.proc_count; pid++) {
		struct proc *proc = sched.procs[pid];
		if (!proc->alive || !proc->end)
			continue;
		proc->dying = true;
		proc->alive = false;
		world_current = proc;
		proc->end(proc);
		world_current = NULL;
	}
}

void world_events_free(void)
{
	while (sched.count) {
		struct event event = pop();
		if (event.owned)
			free(event.ctx);
	}
	for (unsigned i = 1; i < sched.proc_count; i++)
		free(sched.procs[i]);
	free(sched.procs);
	free(sched.heap);
	free(sched.tail);
	(void)XXH3_freeState(sched.digest);
}
