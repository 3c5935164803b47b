/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stream 0, alive: a reader thread that checks every frame and hands it on, a second one that sends what was posted and
 * a ping each second, so that either side notices within LINK_SILENCE_MS that the other is gone or hangs.
 */
#ifndef DROVER_LEG_LINK_H
#define DROVER_LEG_LINK_H

#include <stdint.h>

#include "agent/leg/cancel.h"
#include "agent/leg/frame.h"
#include "agent/leg/tls.h"

#define LINK_PING_MS 1000
#define LINK_SILENCE_MS 10000 /* PEER_SILENCE: a loaded host may be late, a dead one is not waited for */
#define LINK_POSTED_MAX 64    /* frames waiting to be sent; more means that nothing goes out any more */

struct link;

struct link_handlers {
	void *ctx;
	/* In the reader's thread; may block (then nothing is read). -1: the frame is wrong, the link goes down with
	 * err. */
	int (*frame)(void *ctx, enum frame_type type, const unsigned char *payload, uint32_t bytes, struct err *err);
	/* In the reader's thread, once, the last call: the link is down and why. Also after link_stop(). */
	void (*down)(void *ctx, const struct err *cause);
};

/* Sends one frame before there is a link, and reads one: the hellos. Number 0 in each direction. */
int link_hello_send(struct tls_conn *conn, const struct frame_hello *hello, const struct cancel *cancel, int timeout_ms,
                    struct err *err);
int link_hello_read(struct tls_conn *conn, struct frame_hello *ret_hello, const struct cancel *cancel, int timeout_ms,
                    struct err *err);

/* Takes `conn`, over which both hellos went (also on failure). */
int link_start(struct link **ret_link, struct tls_conn *conn, const struct link_handlers *handlers, struct err *err);
/* Ends both threads and frees. NULL is fine. Nobody else may be in a call. Not from a handler. */
void link_stop(struct link *link);
/* Sends a frame; blocks until it is out, the peer has taken nothing for LINK_SILENCE_MS, or `cancel` (which leaves the
 * link unusable if the frame was begun). Any thread. */
int link_send(struct link *link, enum frame_type type, const void *payload, uint32_t bytes, const struct cancel *cancel,
              struct err *err);
/* Has a frame sent soon; never blocks; dropped if the link is down. Payload is copied, at most LINK_POST_BYTES. */
#define LINK_POST_BYTES (LIMIT_TEXT + 64)
void link_post(struct link *link, enum frame_type type, const void *payload, uint32_t bytes);

#endif
