/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lock files: one process at a time, however it ends. */
#ifndef DROVER_LOCK_H
#define DROVER_LOCK_H

#include "common/err.h"

/* Locks the file at `path` (made if missing, 0600) for this process and writes its pid into it. The lock is on the open
 * file (flock) and ends with the process. Does not wait: ERR_BUSY if another process has it; the text names both. */
int lock_take(const char *path, int *ret_fd, struct err *err);
/* Gives it back; `path` not NULL: the file goes too. Nothing if fd is -1. */
void lock_drop(const char *path, int fd);

#endif
