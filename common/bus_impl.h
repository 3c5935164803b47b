/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the bus share: socket settings, and who is let in. For common/bus*.c alone. */
#ifndef DROVER_BUS_IMPL_H
#define DROVER_BUS_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/keys.h"

/* One integer option of a ZeroMQ socket. */
int bus_option(void *socket, int option, int value, const char *name, struct err *err);
/* What servers and clients have in common: limits, heartbeats, IPv6, linger. */
int bus_common_options(void *socket, struct err *err);

/*
 * The ZAP handler: asked by ZeroMQ in each handshake whether to let a key in. It has a thread of its own, so that
 * handshakes go on while the loop is busy, and looks only into a table in memory. The user id of an accepted
 * connection is its public key as text.
 */
struct bus_zap;

/* Binds and starts. wake_fd: an eventfd that is written when somebody was refused. ERR_BUSY: the context has one. */
int bus_zap_start(struct bus_zap **ret_zap, void *zmq, int wake_fd, struct err *err);
void bus_zap_stop(struct bus_zap *zap);
/* Replaces the table; takes over `keys` (malloc'ed, may be NULL if count is 0). */
void bus_zap_set_keys(struct bus_zap *zap, struct key_info *keys, size_t count);
/* Whether the key is authorised now, and what it is. */
bool bus_zap_find(struct bus_zap *zap, const char *public_text, struct key_info *ret_info);

struct bus_refusals {
	uint64_t count;
	char last_key[KEYS_Z85_BYTES]; /* "" if it sent none */
	char last_address[64];
};
void bus_zap_refusals(struct bus_zap *zap, struct bus_refusals *ret);

#endif
