/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside the sinks: what the two kinds have in common is in sink.c (requests, window, cancelling, first error), what
 * differs is behind sink_ops. One thread uses a sink; only cancelling comes from others.
 */
#ifndef DROVER_SINK_INT_H
#define DROVER_SINK_INT_H

#include "agent/disk/disk.h"
#include "agent/disk/wait.h"

#define SINK_WINDOW_MIN_BYTES \
	(2u * 1024 * 1024) /* in flight; deep queues cost latency and locality where the link is short */
#define SINK_WINDOW_MAX_BYTES (8u * 1024 * 1024)
#define SINK_WINDOW_STEP_BYTES (1024u * 1024)
#define SINK_REQUESTS 128                  /* in flight */
#define SINK_ZERO_BYTES (8u * 1024 * 1024) /* one request to zero */
#define SINK_ZERO_WEIGHT_BYTES 65536u      /* what such a request counts in the window */
#define SINK_CONNECT_MS 15000
#define SINK_STALL_MS 60000  /* nothing at all completes: the exporter hangs */
#define SINK_FLUSH_MS 600000 /* a flush of a whole disk's page cache */

enum sink_what { SINK_WRITE = 1, SINK_ZERO, SINK_FLUSH };

struct sink_request {
	struct sink *sink;
	bool busy;
	enum sink_what what;
	uint64_t offset, bytes;
	const void *buffer;
	size_t weight;
	void (*on_done)(void *ctx, void *slot);
	void *ctx, *slot;
	unsigned tries; /* iSCSI: unit attentions */
};

struct sink_ops {
	/* Begins a request; its end is told with sink_done(). -1: the connection is of no use any more. */
	int (*start)(struct sink *sink, struct sink_request *request, struct err *err);
	/* Does what is due, waiting for it until deadline_ms. */
	int (*turn)(struct sink *sink, int64_t deadline_ms, struct err *err);
	/* Closes; must not block. May or may not tell the ends of what is under way. */
	void (*close)(struct sink *sink);
};

struct sink {
	const struct sink_ops *ops;
	void *driver; /* nbd_handle, or sink_iscsi's own */
	struct disk_cancel cancel;
	uint64_t size_bytes;
	struct err failed; /* the first error; all that comes later fails with it */
	unsigned in_flight;
	size_t weight; /* bytes in flight */
	size_t window;
	bool growing;         /* the window was last changed upwards */
	uint64_t round_bytes; /* completed since round_ms */
	int64_t round_ms;
	uint64_t round_rate; /* of the round before */
	int64_t moved_ms;    /* when something completed last */
	struct sink_request requests[SINK_REQUESTS];
};

/* A request has ended, well or (why != NULL) not. */
void sink_done(struct sink_request *request, const struct err *why);

/* Waits until something completes, for a caller who needs a buffer back; at once if nothing is in flight. */
int sink_wait(struct sink *sink, struct err *err);

/* `fd` is a connected socket, taken over. Each fills sink->ops and sink->driver. */
int sink_nbd_open(struct sink *sink, const struct exporter_access *access, int fd, struct err *err);
int sink_iscsi_open(struct sink *sink, const struct exporter_access *access, int fd, struct err *err);

#endif
