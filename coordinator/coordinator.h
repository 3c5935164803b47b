/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The coordinator: a shell over loop and bus. Event in -> core -> store -> actions out. It never touches guest data and
 * is not needed in the downtime.
 */
#ifndef DROVER_COORDINATOR_H
#define DROVER_COORDINATOR_H

#include "common/clock.h"
#include "common/loop.h"
#include "common/paths.h"
#include "coordinator/settings.h"

struct coordinator;

/* Opens the records (exclusively), loads what is not over, listens, and writes run/coordinator.endpoint and
 * run/coordinator.pid. Everything else happens in the loop. `settings` is copied; paths, loop and clock outlive it. */
int coordinator_new(struct coordinator **ret_coordinator, struct loop *loop, const struct paths *paths,
                    const struct settings *settings, const struct clock *clock, struct err *err);
/* Takes away the pid and endpoint files. */
void coordinator_free(struct coordinator *coordinator);

/* The endpoint as bound. */
const char *coordinator_endpoint(const struct coordinator *coordinator);
/* Whether it has stopped the loop because it must not go on: why was logged. */
bool coordinator_failed(const struct coordinator *coordinator);
/* Reads the authorised keys again. */
void coordinator_reload(struct coordinator *coordinator);

#endif
