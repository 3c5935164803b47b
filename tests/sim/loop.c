/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* common/loop.h, common/log.h and the clock and randomness of common/clock.h, for simulated processes. */
#include "common/loop.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/sim/world.h"

#define WALL_BEGIN_MS 1790000000000ll /* some day in 2026 */

struct timer {
	int id;
	unsigned delay_ms;
	bool repeat;
	loop_fn fn;
	void *ctx;
};

struct watch {
	int fd;
	loop_fd_fn fn;
	void *ctx;
};

struct loop {
	struct proc *proc;
	int last_timer;
	size_t timer_count, timer_room, watch_count, watch_room;
	struct timer *timers;
	struct watch *watches;
	loop_child_fn on_child;
	void *child_ctx;
};

struct loop *loop_new(struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	if (!loop) {
		err_set(err, ERR_NO_MEMORY, "loop");
		return NULL;
	}
	loop->proc = world_current;
	world_current->loop = loop;
	return loop;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	free(loop->timers);
	free(loop->watches);
	free(loop);
}

/* Whoever stops his loop ends. */
void loop_stop(struct loop *loop)
{
	proc_end(loop->proc, 1 << 8);
}

/* ---- timers ---- */

static struct timer *find_timer(struct loop *loop, int id)
{
	for (size_t i = 0; i < loop->timer_count; i++)
		if (loop->timers[i].id == id)
			return &loop->timers[i];
	return NULL;
}

static void on_time(void *ctx, uint64_t id)
{
	struct loop *loop = ctx;
	struct timer *timer = find_timer(loop, (int)id);
	if (!timer)
		return;
	const struct timer due = *timer;
	if (due.repeat)
		event_add(due.delay_ms * MS, loop->proc->pid, on_time, loop, id, false);
	else
		*timer = loop->timers[--loop->timer_count];
	due.fn(due.ctx);
}

int loop_timer(struct loop *loop, unsigned delay_ms, bool repeat, loop_fn fn, void *ctx, struct err *err)
{
	if (loop->timer_count == loop->timer_room) {
		size_t room = loop->timer_room ? loop->timer_room * 2 : 16;
		struct timer *timers = reallocarray(loop->timers, room, sizeof(*timers));
		if (!timers)
			return err_set(err, ERR_NO_MEMORY, "timer");
		loop->timers = timers;
		loop->timer_room = room;
	}
	if (repeat && delay_ms == 0)
		delay_ms = 1;
	int id = ++loop->last_timer;
	loop->timers[loop->timer_count++] =
		(struct timer) { .id = id, .delay_ms = delay_ms, .repeat = repeat, .fn = fn, .ctx = ctx };
	event_add(delay_ms * MS, loop->proc->pid, on_time, loop, (uint64_t)id, false);
	return id;
}

void loop_timer_end(struct loop *loop, int id)
{
	struct timer *timer = id > 0 ? find_timer(loop, id) : NULL;
	if (timer)
		*timer = loop->timers[--loop->timer_count];
}

/* ---- descriptors, children ---- */

int loop_fd(struct loop *loop, int fd, loop_fd_fn fn, void *ctx, struct err *err)
{
	if (loop->watch_count == loop->watch_room) {
		size_t room = loop->watch_room ? loop->watch_room * 2 : 16;
		struct watch *watches = reallocarray(loop->watches, room, sizeof(*watches));
		if (!watches)
			return err_set(err, ERR_NO_MEMORY, "descriptor");
		loop->watches = watches;
		loop->watch_room = room;
	}
	loop->watches[loop->watch_count++] = (struct watch) { fd, fn, ctx };
	return 0;
}

void loop_fd_end(struct loop *loop, int fd)
{
	for (size_t i = 0; i < loop->watch_count; i++)
		if (loop->watches[i].fd == fd)
			loop->watches[i--] = loop->watches[--loop->watch_count];
}

static void on_ready(void *ctx, uint64_t fd)
{
	struct loop *loop = ctx;
	for (size_t i = 0; i < loop->watch_count; i++)
		if (loop->watches[i].fd == (int)fd) {
			const struct watch watch = loop->watches[i];
			watch.fn(watch.ctx, watch.fd);
			return;
		}
}

void loop_fd_ready(unsigned pid, int fd)
{
	struct proc *proc = proc_find(pid);
	if (proc && proc->loop)
		event_add(0, pid, on_ready, proc->loop, (uint64_t)fd, false);
}

void loop_on_child(struct loop *loop, loop_child_fn fn, void *ctx)
{
	loop->on_child = fn;
	loop->child_ctx = ctx;
}

static void on_child_end(void *ctx, uint64_t both)
{
	struct loop *loop = ctx;
	if (loop->on_child)
		loop->on_child(loop->child_ctx, (pid_t)(both >> 32), (int)(both & 0xffffffff));
}

void loop_child_ended(unsigned pid, pid_t child, int status)
{
	struct proc *proc = proc_find(pid);
	if (proc && proc->loop)
		event_add(1 * MS, pid, on_child_end, proc->loop, (uint64_t)child << 32 | (uint32_t)status, false);
}

/* ---- clock, randomness ---- */

static int64_t sim_now_ns(const struct clock *self)
{
	(void)self;
	return world_now_us * 1000 + 1000000000; /* 0 means never, here and there */
}

static int64_t sim_wall_ms(const struct clock *self)
{
	(void)self;
	const struct machine *machine = world_current ? world_current->machine : NULL;
	return WALL_BEGIN_MS + world_now_us / MS + (machine ? machine->wall_offset_ms : 0);
}

const struct clock clock_real = { .now_ns = sim_now_ns, .wall_ms = sim_wall_ms };

void random_bytes(void *buffer, size_t bytes)
{
	unsigned char *at = buffer;
	while (bytes-- > 0)
		*at++ = (unsigned char)chance_next();
}

void random_hex(char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		(void)snprintf(text + 2 * i, 3, "%02x", (unsigned)(chance_next() & 0xff));
}

int boot_id_read(const struct paths *paths, char *ret_text, size_t bytes, struct err *err)
{
	(void)paths;
	if (!world_current || !world_current->machine)
		return err_set(err, ERR_INTERNAL, "no boot id here");
	(void)snprintf(ret_text, bytes, "%s", world_current->machine->boot_id);
	return 0;
}

/* ---- log: into the trace ---- */

static void log_line(char level, const char *format, va_list args)
{
	char text[400];
	(void)vsnprintf(text, sizeof(text), format, args);
	if (!proc_is_dying()) /* nobody hears the last words */
		trace("%c %s", level, text);
}

#define LOG_FUNCTION(name, level)              \
	void name(const char *format, ...)     \
	{                                      \
		va_list args;                  \
		va_start(args, format);        \
		log_line(level, format, args); \
		va_end(args);                  \
	}
LOG_FUNCTION(log_error, 'E')
LOG_FUNCTION(log_warning, 'W')
LOG_FUNCTION(log_notice, 'N')
LOG_FUNCTION(log_info, 'I')

void log_debug(const char *format, ...)
{
	(void)format;
}
