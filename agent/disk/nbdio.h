/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libnbd with deadlines and cancellation: its own blocking calls wait for ever on a peer that hangs.
 */
#ifndef DROVER_NBDIO_H
#define DROVER_NBDIO_H

#include <libnbd.h>

#include "agent/disk/wait.h"

#define NBDIO_CONNECT_MS 10000

/* A handle that is connected over `fd` (taken over, also on failure) and has negotiated `export_name`. `context`: a
 * meta context to ask for, NULL for none. */
int nbdio_open(struct nbd_handle **ret_nbd, int fd, const char *export_name, const char *context,
               const struct disk_cancel *cancel, struct err *err);
/* The same over a unix socket. */
int nbdio_open_unix(struct nbd_handle **ret_nbd, const char *path, const char *export_name, const char *context,
                    const struct disk_cancel *cancel, struct err *err);
/* Lets the handle do what is due, or waits for that until deadline_ms (0: ret false, nothing happened in time). -1: the
 * connection is dead (ERR_PEER_LOST) or cancelled. */
int nbdio_turn(struct nbd_handle *nbd, const struct disk_cancel *cancel, int64_t deadline_ms, bool *ret_moved,
               struct err *err);
/* Waits for one asynchronous command; its failure is ERR_EXPORTER, or ERR_NO_SPACE. */
int nbdio_finish(struct nbd_handle *nbd, int64_t cookie, const struct disk_cancel *cancel, int64_t deadline_ms,
                 struct err *err);
/* Says goodbye if that takes no time, and frees. NULL is fine. */
void nbdio_close(struct nbd_handle *nbd);

#endif
