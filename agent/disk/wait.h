/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting that can be interrupted: every blocking call of the disk room waits here, on its descriptor and on the
 * descriptor of whoever may cancel it.
 */
#ifndef DROVER_DISK_WAIT_H
#define DROVER_DISK_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct disk_cancel {
	int event_fd; /* readable once set */
	_Atomic bool set;
};

int disk_cancel_open(struct disk_cancel *cancel, struct err *err);
void disk_cancel_close(struct disk_cancel *cancel);
/* Any thread, any number of times. There is no way back. */
void disk_cancel_set(struct disk_cancel *cancel);
bool disk_cancelled(const struct disk_cancel *cancel); /* NULL: never */

/* Monotonic milliseconds, for deadlines. */
int64_t disk_now_ms(void);

/* Waits for poll() events on fd (-1: only for time to pass) until deadline_ms. 0: *ret_events holds what there is, 0 if
 * the deadline passed. -1: cancelled (ERR_CANCELLED), or poll failed. `cancel` may be NULL. */
int disk_wait(const struct disk_cancel *cancel, int fd, short events, int64_t deadline_ms, short *ret_events,
              struct err *err);

/* A connected, non-blocking unix stream socket. ERR_UNREACHABLE if nobody listens there. */
int disk_connect_unix(const struct disk_cancel *cancel, const char *path, int64_t deadline_ms, int *ret_fd,
                      struct err *err);

#endif
