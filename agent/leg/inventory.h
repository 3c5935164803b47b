/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mode `inventory` of the leg program: what the driver finds on this host, on which SR each disk is. */
#ifndef DROVER_LEG_INVENTORY_H
#define DROVER_LEG_INVENTORY_H

#include <stdio.h>

#include "agent/hypervisor/hypervisor.h"

/* Prints one encoded struct msg_inventory to `out`. `home` as in struct leg_options. Blocks. Exit status of the
 * process. */
int inventory_print(const char *home, const struct hypervisor_ops *ops, FILE *out);

#endif
