/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QMP, QEMU's control protocol: a client on a unix socket.
 *
 * A monitor serves one client at a time and others wait in its backlog, so a connection is held only for a batch of
 * commands: open, run, close. Whatever the other end sends is checked; it costs at most QMP_MESSAGE_BYTES of heap.
 */
#ifndef DROVER_QMP_H
#define DROVER_QMP_H

#include <jansson.h>

#include "agent/disk/wait.h"
#include "common/err.h"

#define QMP_MESSAGE_BYTES (8u * 1024 * 1024) /* one message; query-named-block-nodes of a big VM has some 100 KiB */
#define QMP_OPEN_MS 5000                     /* until a monitor that somebody else holds must be free */
#define QMP_COMMAND_MS 10000                 /* a command that only touches metadata */
#define QMP_DRAIN_MS 120000                  /* one that waits for the storage */

struct qmp;

/* Connects, takes the greeting, negotiates. Waits open_ms while somebody else holds the monitor (ERR_BUSY then).
 * ERR_UNREACHABLE: nobody listens there (the backend is gone). `cancel` (NULL: none) interrupts this and all later
 * calls and must outlive the connection. */
int qmp_open(struct qmp **ret_qmp, const char *path, const struct disk_cancel *cancel, unsigned open_ms,
             struct err *err);
void qmp_close(struct qmp *qmp); /* NULL is fine */

/* Runs one command. `arguments` is taken over (NULL: none; as json_pack gives it). *ret_result (NULL: not wanted) is a
 * new reference. QEMU's refusal is ERR_BACKEND with its description; ERR_UNSUPPORTED if it does not know the command;
 * ERR_TIMEOUT if it does not answer in time, after which the connection is of no use. Events are skipped. */
int qmp_run(struct qmp *qmp, const char *command, json_t *arguments, unsigned timeout_ms, json_t **ret_result,
            struct err *err);

#endif
