/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The leg program asked for something that it prints: one process, bounded in time and in bytes. */
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "agent/agent_impl.h"
#include "common/log.h"

static void stop_reading(struct query *query)
{
	if (query->fd >= 0) {
		loop_fd_end(query->agent->loop, query->fd);
		process_close(query->fd);
		query->fd = -1;
	}
}

static void finish(struct query *query)
{
	struct err err = { 0 };
	if (!query->exited || !query->ended)
		return;
	loop_timer_end(query->agent->loop, query->limit_timer);
	query->limit_timer = -1;
	query->pid = 0;
	if (!WIFEXITED(query->status) || WEXITSTATUS(query->status) != 0)
		err_set(&err, ERR_HYPERVISOR, "%s %s failed (%s %d)", query->agent->leg_path, query->mode,
		        WIFEXITED(query->status) ? "status" : "signal",
		        WIFEXITED(query->status) ? WEXITSTATUS(query->status) : WTERMSIG(query->status));
	query->done(query->agent, &err);
}

static void on_output(void *ctx, int fd)
{
	struct query *query = ctx;
	for (;;) {
		size_t room = LIMIT_FRAME_BYTES - query->count;
		unsigned char rest[1];
		ssize_t got = room ? process_read(fd, query->bytes + query->count, room) : process_read(fd, rest, 1);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got > 0 && room == 0) {
			process_kill(query->pid); /* more than an answer can be */
			got = 0;
		}
		if (got <= 0)
			break;
		query->count += (size_t)got;
	}
	stop_reading(query);
	query->ended = true;
	finish(query);
}

static void on_limit(void *ctx)
{
	struct query *query = ctx;
	query->limit_timer = -1;
	log_warning("event=%s error=\"it took more than %u s\"", query->mode, query->limit_ms / 1000);
	if (query->pid > 0 && !query->exited)
		process_kill(query->pid);
	/* somebody else may hold the pipe */
	stop_reading(query);
	query->ended = true;
	finish(query);
}

int query_start(struct query *query, const char *const options[], struct err *err)
{
	struct agent *agent = query->agent;
	if (!query->bytes)
		query->bytes = malloc(LIMIT_FRAME_BYTES);
	if (!query->bytes)
		return err_set(err, ERR_NO_MEMORY, "no memory for an answer of the leg program");
	if (agent->leg_err.code != ERR_NONE && agent_conf_leg(&agent->conf, agent->leg_path, &agent->leg_err) < 0) {
		*err = agent->leg_err; /* it may have been installed since, and was not */
		return -1;
	}
	err_clear(&agent->leg_err);
	query->count = 0;
	query->exited = query->ended = false;
	if (process_query_start(agent, query->mode, options, &query->fd, &query->pid, err) < 0)
		return -1;
	if (loop_fd(agent->loop, query->fd, on_output, query, err) < 0) {
		process_close(query->fd);
		process_kill(query->pid);
		query->fd = -1;
		query->pid = 0;
		return -1;
	}
	query->limit_timer = loop_timer(agent->loop, query->limit_ms, false, on_limit, query, NULL);
	return 0;
}

void query_init(struct query *query, struct agent *agent, const char *mode, unsigned limit_ms,
                void (*done)(struct agent *agent, const struct err *failure))
{
	*query = (struct query) {
		.agent = agent, .mode = mode, .limit_ms = limit_ms, .done = done, .fd = -1, .limit_timer = -1
	};
}

bool query_child(struct query *query, pid_t pid, int status)
{
	if (pid <= 0 || pid != query->pid)
		return false;
	query->exited = true;
	query->status = status;
	finish(query);
	return true;
}

void query_end(struct query *query)
{
	stop_reading(query);
	if (query->pid > 0 && !query->exited)
		process_kill(query->pid);
	if (query->limit_timer > 0)
		loop_timer_end(query->agent->loop, query->limit_timer);
	free(query->bytes);
	query->bytes = NULL;
}
