/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The data connections of one migration: dialled by the source, accepted by the destination. Streams 1..n are relays
 * between a local socket (the source's sink, the destination's exporter) and TLS, a thread each; stream 0 is handed on.
 *
 * Laws
 *  1. Only who shows the certificate and says hello for this very migration counts. Everything else is closed without
 *     effect; at most RELAY_PENDING_MAX unproven connections are held, the oldest gives way.
 *  2. Memory is what the two buffers of each relay take, whatever the peer does.
 */
#ifndef DROVER_LEG_RELAY_H
#define DROVER_LEG_RELAY_H

#include <stdatomic.h>
#include <stdint.h>

#include "agent/disk/disk.h"
#include "agent/leg/cancel.h"
#include "agent/leg/frame.h"
#include "agent/leg/tls.h"

#define RELAY_BUFFER_BYTES (256 * 1024)
#define RELAY_PENDING_MAX 8
#define RELAY_STREAMS_MAX (4 * LIMIT_DISKS) /* a sink may use several connections a disk */
#define RELAY_HELLO_MS 5000                 /* handshake and hello together take no longer */

/* Relays between `conn` and the stream socket `fd` until either side ends (0), fails (-1) or `cancel`. Blocks. What
 * goes from fd to the peer waits for `limit` (may be NULL). Closes nothing. `arrived` (may be NULL) hears of bytes that
 * came from the peer and were taken by fd. */
int relay_run(struct tls_conn *conn, int fd, const struct cancel *cancel, struct disk_limit *limit,
              void (*arrived)(void *ctx, uint64_t bytes), void *ctx, struct err *err);

struct relays;

struct relay_setup {
	struct tls_identity *identity; /* with the peer's fingerprint set; outlives the relays */
	struct cancel *cancel;         /* outlives the relays */
	struct disk_limit *limit;      /* may be NULL */
	_Atomic uint64_t *wire;
	uint64_t migration;
	uint32_t generation;
	/* destination only */
	void *ctx;
	/* The peer's stream 0, its hello read: takes conn. -1: there is one already; conn is closed. */
	int (*link)(void *ctx, struct tls_conn *conn);
	/* A connected socket to what stream `disk` + 1 leads to; the caller's. -1: no. */
	int (*backend)(void *ctx, uint32_t disk, struct err *err);
	void (*arrived)(void *ctx, uint32_t disk, uint64_t bytes);
};

int relays_new(struct relays **ret_relays, const struct relay_setup *setup, struct err *err);
/* Waits for all threads and frees. Fire `cancel` first. NULL is fine. */
void relays_free(struct relays *relays);

/* Source: a new stream to the endpoint, its hello sent. For `stream` 0: *ret_conn is the connection. */
int relays_dial_link(struct relays *relays, const char *endpoint, int timeout_ms, struct tls_conn **ret_conn,
                     struct err *err);
/* Source: the near end of a new stream to that disk's exporter, relayed by a thread of ours. The caller closes it. */
int relays_dial_disk(struct relays *relays, const char *endpoint, uint32_t disk, int timeout_ms, int *ret_fd,
                     struct err *err);

/* Destination: accepts on listen_fd (stays the caller's) in a thread of its own until `cancel`. */
int relays_serve(struct relays *relays, int listen_fd, struct err *err);

#endif
