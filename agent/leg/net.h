/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* TCP for the data connections: listen on an address, connect to an endpoint. Sockets are non-blocking, close-on-exec,
 * and without Nagle's delay. */
#ifndef DROVER_LEG_NET_H
#define DROVER_LEG_NET_H

#include <stdint.h>

#include "agent/leg/cancel.h"
#include "common/err.h"
#include "common/limits.h"

/* Listens on `address` (a host address; "" is 127.0.0.1) at a free port. ret_endpoint: "host:port" or "[v6]:port". */
int net_listen(const char *address, int *ret_fd, char ret_endpoint[LIMIT_ID], struct err *err);
/* Listens at this very endpoint again, as one did before us. ERR_IO: somebody has the port, maybe only for a moment. */
int net_listen_at(const char *endpoint, int *ret_fd, struct err *err);
/* Connects to an endpoint. Blocks at most timeout_ms. ERR_PEER_LOST, ERR_TIMEOUT, ERR_CANCELLED, ERR_USAGE. */
int net_connect(const char *endpoint, int *ret_fd, const struct cancel *cancel, int timeout_ms, struct err *err);
/* Splits "host:port" or "[v6]:port". */
int net_split(const char *endpoint, char ret_host[LIMIT_ID], char ret_port[8], struct err *err);
/* Milliseconds until `deadline_ms` (of clock_ms()), 0 if it has passed, at most INT_MAX. */
int net_left_ms(int64_t deadline_ms);
/* What data sockets have in common; errors are of no consequence. */
void net_tune(int fd);

#endif
