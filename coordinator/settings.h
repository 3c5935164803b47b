/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* coordinator.conf. */
#ifndef DROVER_SETTINGS_H
#define DROVER_SETTINGS_H

#include "common/conf.h"
#include "common/paths.h"
#include "coordinator/core/admission.h"
#include "proto/msg.h"

struct settings {
	char listen[LIMIT_ID];
	char key[LIMIT_PATH]; /* file; relative to etc */
	uint32_t heartbeat_ms;
	uint32_t suspect_after;  /* missed heartbeats */
	uint32_t heartbeat_rate; /* of all hosts together, a second; above it the period grows with their number */
	uint32_t lost_after_ms;
	uint32_t retry_ms, retry_max_ms;
	uint32_t checking_ms, preparing_ms, switching_ms; /* deadlines of states */
	uint32_t max_downtime_ms;
	uint32_t timeout_ms;
	enum on_slow on_slow;
	uint64_t keep_source_ms, keep_copy_ms;
	struct admission_limits limits;
};

extern const struct conf_table settings_table;

/* Reads `path`, or etc/coordinator.conf if it is NULL (which may be missing). */
int settings_load(const struct paths *paths, const char *path, struct settings *ret_settings, struct err *err);

#endif
