/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which coordinator is talked to, and with which keys: etc/client.conf. */
#ifndef DROVER_CLI_PLACE_H
#define DROVER_CLI_PLACE_H

#include "common/err.h"
#include "common/paths.h"

struct place {
	struct paths paths;
	char file[PATHS_MAX + LIMIT_NAME];         /* client.conf that was read, or looked for */
	char endpoint[LIMIT_ID];                   /* of the coordinator */
	char key_file[PATHS_MAX + LIMIT_PATH + 2]; /* our key, with the secret */
	char server_cert[PATHS_MAX + LIMIT_PATH + 2];
};

/* Finds the directories: `home` (NULL: DROVER_HOME, or the system's). A directory without etc/ but with
 * coordinator/etc/client.conf, as a simulated fleet has it, stands for its coordinator. */
int place_find(struct place *ret_place, const char *home, struct err *err);
/* Reads client.conf. ERR_UNREACHABLE if there is none, ERR_CONFIG if it is bad or names keys that are not there. */
int place_load(struct place *place, struct err *err);

#endif
