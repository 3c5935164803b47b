/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether a simulated fleet is as it must be, found out independently: from ledgers, VM records, images, /proc and the
 * journals' tables. Shares with what it checks the content function (pattern.h) and nothing else.
 */
#ifndef DROVER_VERIFY_H
#define DROVER_VERIFY_H

#include <stdbool.h>
#include <stdio.h>

#include "common/err.h"

/* Prints one line per fault to `out`, or an "ok:" line with figures (`json`: one document). 0: all is well, 1: faults,
 * -1: it could not be found out. Reads only. May wait some seconds for a running guest's next flush. */
int verify_fleet(const char *dir, bool json, FILE *out, struct err *err);

#endif
