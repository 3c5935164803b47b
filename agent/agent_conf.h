/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * etc/agent.conf, as the agent and its legs read it (room: journal). Plain data; every key is described in
 * docs/man/agent.conf.5.scd. `key` and `server-key` are relative to etc, other paths to the home directory.
 */
#ifndef DROVER_AGENT_CONF_H
#define DROVER_AGENT_CONF_H

#include <stdint.h>
#include <stdio.h>

#include "agent/disk/disk.h" /* struct sr_config, plain data: nothing of that room is linked for it */
#include "common/limits.h"
#include "common/paths.h"
#include "proto/msg.h"

struct agent_conf {
	char file[PATHS_MAX];        /* where it was read from */
	char host[LIMIT_NAME];       /* this host's name; required */
	char pool[LIMIT_NAME];       /* default "default" */
	char hypervisor[LIMIT_NAME]; /* "sim" or "xen"; required */
	char coordinator[LIMIT_ID];  /* endpoint, "tcp://host:port"; required */
	char key[PATHS_MAX];         /* default etc/keys/agent.cert_secret */
	char server_key[PATHS_MAX];  /* default etc/coordinator.cert */
	char data_address[LIMIT_ID]; /* legs listen on it and announce it; default 127.0.0.1 */
	enum exporter_kind exporter; /* default nbd */
	uint32_t network_count;
	char networks[LIMIT_NETWORKS][LIMIT_NAME]; /* bridges of this host */
	char leg[PATHS_MAX];                       /* path of the leg program; "": the default, see agent_conf_leg() */
	uint64_t orphan_grace_ms;                  /* default 15 minutes */
	uint64_t journal_reserve_bytes;            /* default 4 MiB; 0: none */
	uint32_t sr_count;
	struct sr_config srs[LIMIT_SRS];
};

/* The agent's --config is handed to its legs in this environment variable. */
#define AGENT_CONF_ENV "DROVER_AGENT_CONF"
/* Exit status of a leg that found another leg of its migration at work, and did nothing (EX_TEMPFAIL of sysexits.h). */
#define LEG_EXIT_TWIN 75

/* Reads and checks `file`; NULL: $DROVER_AGENT_CONF, else agent.conf in paths->etc. ERR_CONFIG: the text names file,
 * line, key and what is allowed. Touches nothing but the file. The struct is big (some 20 KiB): allocate it. */
int agent_conf_load(struct agent_conf *ret_conf, const struct paths *paths, const char *file, struct err *err);

/* The SR of this name, NULL if there is none. */
const struct sr_config *agent_conf_sr(const struct agent_conf *conf, const char *name);

/* The leg program: conf->leg, or drover-leg-HYPERVISOR beside the running program. ERR_CONFIG if it is not there or
 * cannot be run; the text says which package or key helps. */
int agent_conf_leg(const struct agent_conf *conf, char ret_path[PATHS_MAX], struct err *err);

/* Prints every key with its type, default and range. */
void agent_conf_reference(FILE *out);

#endif
