/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/disk/sink_int.h"

int sink_open(struct sink **ret_sink, const struct exporter_access *access,
              int (*connect_fd)(void *ctx, struct err *err), void *ctx, struct err *err)
{
	int fd, result;
	struct sink *sink = calloc(1, sizeof(*sink));
	if (!sink)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	sink->size_bytes = access->size_bytes;
	sink->window = SINK_WINDOW_MIN_BYTES;
	sink->growing = true;
	sink->cancel.event_fd = -1;
	result = disk_cancel_open(&sink->cancel, err);
	fd = result == 0 ? connect_fd(ctx, err) : -1;
	if (fd < 0) {
		result = -1;
	} else if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
		result = err_errno(err, ERR_IO, errno, "socket to the exporter");
		close(fd);
	} else if (access->kind == EXPORTER_ISCSI) {
		result = sink_iscsi_open(sink, access, fd, err);
	} else {
		result = sink_nbd_open(sink, access, fd, err);
	}
	if (result < 0) {
		disk_cancel_close(&sink->cancel);
		free(sink);
		return err_wrap(err, "connect to the exporter over %s", exporter_name(access->kind));
	}
	sink->round_ms = sink->moved_ms = disk_now_ms();
	*ret_sink = sink;
	return 0;
}

/* Hill climbing: a step in the direction that made it faster, else back. */
static void adapt_window(struct sink *sink, size_t bytes)
{
	sink->round_bytes += bytes;
	if (sink->round_bytes < 4 * (uint64_t)sink->window)
		return;
	int64_t now_ms = disk_now_ms(), took_ms = now_ms - sink->round_ms;
	uint64_t rate = sink->round_bytes * 1000 / (uint64_t)(took_ms > 0 ? took_ms : 1);
	if (rate < sink->round_rate + sink->round_rate / 20)
		sink->growing = !sink->growing;
	if (sink->growing && sink->window < SINK_WINDOW_MAX_BYTES)
		sink->window += SINK_WINDOW_STEP_BYTES;
	else if (!sink->growing && sink->window > SINK_WINDOW_MIN_BYTES)
		sink->window -= SINK_WINDOW_STEP_BYTES;
	sink->round_rate = rate;
	sink->round_bytes = 0;
	sink->round_ms = now_ms;
}

void sink_done(struct sink_request *request, const struct err *why)
{
	struct sink *sink = request->sink;
	if (!request->busy)
		return;
	if (why && sink->failed.code == ERR_NONE)
		sink->failed = *why;
	request->busy = false;
	sink->in_flight--;
	sink->weight -= request->weight;
	sink->moved_ms = disk_now_ms();
	if (!why && request->what == SINK_WRITE)
		adapt_window(sink, request->weight);
	if (request->on_done)
		request->on_done(request->ctx, request->slot);
}

static int fail(struct sink *sink, const struct err *why, struct err *err)
{
	if (sink->failed.code == ERR_NONE)
		sink->failed = *why;
	return err_set(err, sink->failed.code, "%s", sink->failed.text);
}

/* The first error, if there was one. */
static int check(struct sink *sink, struct err *err)
{
	if (sink->failed.code == ERR_NONE && disk_cancelled(&sink->cancel))
		err_set(&sink->failed, ERR_CANCELLED, "cancelled");
	return sink->failed.code == ERR_NONE ? 0 : err_set(err, sink->failed.code, "%s", sink->failed.text);
}

/* One turn of waiting for something to complete. */
static int wait_some(struct sink *sink, unsigned limit_ms, struct err *err)
{
	struct err why = { 0 };
	int64_t deadline_ms = sink->moved_ms + limit_ms;
	if (sink->ops->turn(sink, deadline_ms, &why) < 0)
		return fail(sink, &why, err);
	if (check(sink, err) < 0)
		return -1;
	if (disk_now_ms() < deadline_ms || sink->in_flight == 0)
		return 0;
	err_set(&why, ERR_EXPORTER, "the exporter has not answered for %u s", limit_ms / 1000);
	return fail(sink, &why, err);
}

int sink_wait(struct sink *sink, struct err *err)
{
	unsigned before = sink->in_flight;
	while (sink->in_flight > 0 && sink->in_flight == before)
		if (wait_some(sink, SINK_STALL_MS, err) < 0)
			return -1;
	return check(sink, err);
}

static struct sink_request *free_request(struct sink *sink)
{
	if (sink->in_flight == SINK_REQUESTS)
		return NULL;
	for (size_t i = 0; i < SINK_REQUESTS; i++)
		if (!sink->requests[i].busy)
			return &sink->requests[i];
	return NULL;
}

/* Waits for room in the window and begins. A request that is bigger than the window goes alone. */
static int submit(struct sink *sink, const struct sink_request *wanted, struct err *err)
{
	struct err why = { 0 };
	struct sink_request *request;
	if (check(sink, err) < 0)
		return -1;
	if (sink->in_flight == 0)
		sink->moved_ms = disk_now_ms();
	while (sink->in_flight > 0 && (sink->weight + wanted->weight > sink->window || !free_request(sink)))
		if (wait_some(sink, SINK_STALL_MS, err) < 0)
			return -1;
	request = free_request(sink);
	*request = *wanted;
	request->sink = sink;
	request->busy = true;
	sink->in_flight++;
	sink->weight += request->weight;
	if (sink->ops->start(sink, request, &why) == 0)
		return 0;
	request->on_done = NULL; /* the caller learns it from this return */
	fail(sink, &why, err);
	sink_done(request, &why);
	return -1;
}

static int check_range(const struct sink *sink, uint64_t offset, uint64_t bytes, struct err *err)
{
	if (offset > sink->size_bytes || bytes > sink->size_bytes - offset)
		return err_set(err, ERR_INTERNAL, "write beyond the disk: %" PRIu64 " bytes at %" PRIu64, bytes,
		               offset);
	return 0;
}

int sink_write(struct sink *sink, uint64_t offset, const void *buffer, size_t bytes,
               void (*on_done)(void *ctx, void *slot), void *ctx, void *slot, struct err *err)
{
	struct sink_request request = { .what = SINK_WRITE,
		                        .offset = offset,
		                        .bytes = bytes,
		                        .buffer = buffer,
		                        .weight = bytes,
		                        .on_done = on_done,
		                        .ctx = ctx,
		                        .slot = slot };
	if (check_range(sink, offset, bytes, err) < 0)
		return -1;
	return submit(sink, &request, err);
}

int sink_zero(struct sink *sink, uint64_t offset, uint64_t bytes, struct err *err)
{
	if (check_range(sink, offset, bytes, err) < 0)
		return -1;
	while (bytes > 0) {
		uint64_t now = bytes < SINK_ZERO_BYTES ? bytes : SINK_ZERO_BYTES;
		struct sink_request request = {
			.what = SINK_ZERO, .offset = offset, .bytes = now, .weight = SINK_ZERO_WEIGHT_BYTES
		};
		if (submit(sink, &request, err) < 0)
			return -1;
		offset += now;
		bytes -= now;
	}
	return 0;
}

int sink_flush(struct sink *sink, struct err *err)
{
	struct sink_request request = { .what = SINK_FLUSH };
	while (sink->in_flight > 0)
		if (wait_some(sink, SINK_STALL_MS, err) < 0)
			return -1;
	if (submit(sink, &request, err) < 0)
		return -1;
	while (sink->in_flight > 0)
		if (wait_some(sink, SINK_FLUSH_MS, err) < 0)
			return -1;
	return check(sink, err);
}

void sink_cancel(struct sink *sink)
{
	disk_cancel_set(&sink->cancel);
}

void sink_close(struct sink *sink)
{
	if (!sink)
		return;
	struct err gone = { .code = ERR_CANCELLED, .text = "closed" };
	sink->ops->close(sink);
	for (size_t i = 0; i < SINK_REQUESTS; i++) /* gives the buffers back */
		sink_done(&sink->requests[i], &gone);
	disk_cancel_close(&sink->cancel);
	free(sink);
}
