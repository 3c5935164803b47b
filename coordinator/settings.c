/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/settings.h"

#include <stdio.h>
#include <string.h>

#define HOUR_MS (3600u * 1000u)
#define DAY_MS (24u * HOUR_MS)

static const struct conf_choice on_slow_choices[] = {
	{ "wait", ON_SLOW_WAIT },
	{ "throttle", ON_SLOW_THROTTLE },
	{ "force", ON_SLOW_FORCE },
	{ "abort", ON_SLOW_ABORT },
	{ NULL, 0 },
};

static const struct conf_key keys[] = {
	{ .name = "listen",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct settings, listen),
	  .fallback = "tcp://127.0.0.1:6770",
	  .min = 1,
	  .help = "endpoint for agents and clients: tcp://ADDRESS:PORT; port * takes any free one" },
	{ .name = "key",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct settings, key),
	  .fallback = "keys/coordinator.cert_secret",
	  .min = 1,
	  .help = "file with the coordinator's own key, relative to the configuration's directory" },
	{ .name = "heartbeat",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, heartbeat_ms),
	  .fallback = "1s",
	  .min = 50,
	  .max = 60000,
	  .help = "how often agents say that they are there" },
	{ .name = "heartbeat-rate",
	  .type = CONF_NUMBER,
	  CONF_FIELD(struct settings, heartbeat_rate),
	  .fallback = "500",
	  .min = 1,
	  .max = 100000,
	  .help = "heartbeats a second of all hosts together; with more hosts the period grows, to 60s at most" },
	{ .name = "suspect-after",
	  .type = CONF_NUMBER,
	  CONF_FIELD(struct settings, suspect_after),
	  .fallback = "5",
	  .min = 2,
	  .max = 1000,
	  .help = "missed heartbeats after which a host is suspected to be down" },
	{ .name = "lost-after",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, lost_after_ms),
	  .fallback = "30s",
	  .min = 100,
	  .max = DAY_MS,
	  .help = "silence of a host after which copies to and from it are rolled back" },
	{ .name = "retry",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, retry_ms),
	  .fallback = "1s",
	  .min = 50,
	  .max = 60000,
	  .help = "first pause before a command without an answer is repeated; it doubles each time" },
	{ .name = "retry-max",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, retry_max_ms),
	  .fallback = "15s",
	  .min = 50,
	  .max = HOUR_MS,
	  .help = "longest pause between repetitions" },
	{ .name = "checking-deadline",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, checking_ms),
	  .fallback = "30s",
	  .min = 100,
	  .max = DAY_MS,
	  .help = "how long the hosts' checks may take" },
	{ .name = "preparing-deadline",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, preparing_ms),
	  .fallback = "60s",
	  .min = 100,
	  .max = DAY_MS,
	  .help = "how long claiming memory and making disks may take" },
	{ .name = "switching-deadline",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, switching_ms),
	  .fallback = "30s",
	  .min = 100,
	  .max = DAY_MS,
	  .help = "how long a switchover may go without a verdict before an abort is asked for" },
	{ .name = "max-downtime",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, max_downtime_ms),
	  .fallback = "300ms",
	  .min = 1,
	  .max = HOUR_MS,
	  .help = "default of 'migrate --max-downtime'" },
	{ .name = "timeout",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, timeout_ms),
	  .fallback = "24h",
	  .min = 0,
	  .max = 40 * DAY_MS,
	  .help = "default of 'migrate --timeout': how long copying may take; 0: for ever" },
	{ .name = "on-slow",
	  .type = CONF_CHOICE,
	  CONF_FIELD(struct settings, on_slow),
	  .fallback = "wait",
	  .choices = on_slow_choices,
	  .help = "default of 'migrate --on-slow'" },
	{ .name = "keep-source",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct settings, keep_source_ms),
	  .fallback = "24h",
	  .min = 0,
	  .max = 3650ull * DAY_MS,
	  .help = "default of 'migrate --keep-source'" },
	{ .name = "max-migrations",
	  .type = CONF_NUMBER,
	  CONF_FIELD(struct settings, limits.total),
	  .fallback = "64",
	  .min = 0,
	  .max = 2048,
	  .help = "migrations under way at a time; 0: no limit" },
	{ .name = "max-per-source",
	  .type = CONF_NUMBER,
	  CONF_FIELD(struct settings, limits.per_source),
	  .fallback = "4",
	  .min = 0,
	  .max = LIMIT_SESSIONS,
	  .help = "of these from one host; 0: no limit" },
	{ .name = "max-per-destination",
	  .type = CONF_NUMBER,
	  CONF_FIELD(struct settings, limits.per_destination),
	  .fallback = "4",
	  .min = 0,
	  .max = LIMIT_SESSIONS,
	  .help = "of these to one host; 0: no limit" },
};

const struct conf_table settings_table = { .keys = keys, .key_count = sizeof(keys) / sizeof(keys[0]) };

int settings_load(const struct paths *paths, const char *path, struct settings *ret_settings, struct err *err)
{
	char standard[PATHS_MAX + 32];
	struct settings settings;
	memset(&settings, 0, sizeof(settings));
	(void)snprintf(standard, sizeof(standard), "%s/coordinator.conf", paths->etc);
	if (conf_load(path ? path : standard, path == NULL, &settings_table, &settings, err) != 0)
		return -1;
	if ((uint64_t)settings.heartbeat_ms * settings.suspect_after > settings.lost_after_ms)
		return err_set(err, ERR_CONFIG, "%s: lost-after: must be at least heartbeat times suspect-after",
		               path ? path : standard);
	if (settings.retry_ms > settings.retry_max_ms)
		return err_set(err, ERR_CONFIG, "%s: retry-max: must be at least retry", path ? path : standard);
	*ret_settings = settings;
	return 0;
}
