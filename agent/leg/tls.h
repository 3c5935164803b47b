/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS between the two legs of one migration. The only file that knows OpenSSL is tls.c.
 *
 * Laws
 *  1. Key and certificate are made in memory for this migration alone and never leave it.
 *  2. A connection comes into being only with a peer that owns the one certificate whose fingerprint we were given. No
 *     CA, no names, no tickets, no resumption, TLS 1.3 with AES-GCM only.
 *  3. Every call that blocks has a time limit or can be cancelled, mostly both.
 *  4. One thread may read while another one writes: each call into OpenSSL is made under the connection's lock, waiting
 *     is not. Several writers take turns by themselves (link.c).
 */
#ifndef DROVER_LEG_TLS_H
#define DROVER_LEG_TLS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/leg/cancel.h"
#include "common/err.h"
#include "common/limits.h"

struct tls_identity;
struct tls_conn;

int tls_identity_new(struct tls_identity **ret_identity, struct err *err);
/* The same, kept in the file `path` (0600) for a leg that is started again: `again` takes what is there, if it can be
 * read; else a new one is made and takes its place (as well as can be: a full disk is logged, and no error). */
int tls_identity_open(struct tls_identity **ret_identity, const char *path, bool again, struct err *err);
void tls_identity_free(struct tls_identity *identity);
/* SHA-256 of the certificate, 64 lower-case hex digits. Lives as long as the identity. */
const char *tls_fingerprint(const struct tls_identity *identity);
/* Whom to accept from here on; before it nobody is. ERR_USAGE if it is no SHA-256 in lower-case hex. Not while
 * connections are being made. */
int tls_expect(struct tls_identity *identity, const char *fingerprint, struct err *err);

enum tls_role { TLS_CLIENT = 1, TLS_SERVER = 2 };
/* Shakes hands over a connected non-blocking socket, which becomes the connection's (and is closed on failure too).
 * `wire` (may be NULL) is added the bytes that go over the network, both ways. ERR_DENIED: that peer has another
 * certificate; ERR_PEER_LOST; ERR_TIMEOUT; ERR_CANCELLED. */
int tls_open(struct tls_conn **ret_conn, struct tls_identity *identity, enum tls_role role, int fd,
             const struct cancel *cancel, int timeout_ms, _Atomic uint64_t *wire, struct err *err);
/* Says goodbye if that does not block, and frees. No other thread may use it any more. */
void tls_close(struct tls_conn *conn);
/* Any thread: whoever reads or writes is told that the connection is gone. */
void tls_shut(struct tls_conn *conn);

/* Writes all. timeout_ms is how long nothing may move. After any failure the connection can only be closed. */
int tls_write(struct tls_conn *conn, const void *bytes, size_t count, const struct cancel *cancel, int timeout_ms,
              struct err *err);
/* Reads exactly count bytes; timeout_ms is how long nothing may come (-1: for ever). ERR_PEER_LOST at the end. */
int tls_read(struct tls_conn *conn, void *bytes, size_t count, const struct cancel *cancel, int timeout_ms,
             struct err *err);

/* For a thread that serves a connection alone: what goes without waiting. Number of bytes; 0: would block, *ret_events
 * says what to poll the descriptor for; -1: ERR_PEER_LOST (ended or broken) or ERR_PROTOCOL. */
ssize_t tls_try_read(struct tls_conn *conn, void *bytes, size_t room, short *ret_events, struct err *err);
ssize_t tls_try_write(struct tls_conn *conn, const void *bytes, size_t count, short *ret_events, struct err *err);
int tls_fd(const struct tls_conn *conn);

#endif
