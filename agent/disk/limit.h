/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rate limit as the copy engine uses it. */
#ifndef DROVER_DISK_LIMIT_H
#define DROVER_DISK_LIMIT_H

#include <stdatomic.h>

#include "agent/disk/disk.h"

/* disk_limit_take that also ends when *stop becomes true, within LIMIT_SLICE_MS. limit may be NULL: no limit. */
int disk_limit_take_until(struct disk_limit *limit, uint64_t bytes, const _Atomic bool *stop);

#endif
