/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/agent_conf.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/conf.h"

#define ORPHAN_GRACE_MIN_MS 1000u
#define ORPHAN_GRACE_MAX_MS (7u * 24 * 3600 * 1000)

#define RESERVE_MAX_BYTES (1ull << 30)

static const struct conf_choice exporter_choices[] = {
	{ "nbd", EXPORTER_NBD },
	{ "iscsi", EXPORTER_ISCSI },
	{ NULL, 0 },
};

static const struct conf_choice format_choices[] = {
	{ "raw", FORMAT_RAW },
	{ "qcow2", FORMAT_QCOW2 },
	{ NULL, 0 },
};

static const struct conf_key agent_keys[] = {
	{ .name = "host",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct agent_conf, host),
	  .min = 1,
	  .help = "name of this host, as its key is authorised for" },
	{ .name = "pool",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct agent_conf, pool),
	  .fallback = "default",
	  .min = 1,
	  .help = "pool that the host belongs to" },
	{ .name = "hypervisor",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct agent_conf, hypervisor),
	  .min = 1,
	  .help = "sim or xen; the leg program drover-leg-HYPERVISOR does the work" },
	{ .name = "coordinator",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct agent_conf, coordinator),
	  .min = 1,
	  .help = "endpoint of the coordinator, tcp://host:port" },
	{ .name = "key",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct agent_conf, key),
	  .fallback = "",
	  .help = "file with this agent's secret key; default keys/agent.cert_secret beside the configuration" },
	{ .name = "server-key",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct agent_conf, server_key),
	  .fallback = "",
	  .help = "file with the coordinator's public key; default coordinator.cert beside the configuration" },
	{ .name = "data-address",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct agent_conf, data_address),
	  .fallback = "127.0.0.1",
	  .min = 1,
	  .help = "address that legs listen on and announce to the other host" },
	{ .name = "exporter",
	  .type = CONF_CHOICE,
	  CONF_FIELD(struct agent_conf, exporter),
	  .fallback = "nbd",
	  .choices = exporter_choices,
	  .help = "how incoming disks are offered to the source" },
	{ .name = "networks",
	  .type = CONF_LIST,
	  CONF_FIELD(struct agent_conf, networks),
	  .fallback = "",
	  CONF_COUNT(struct agent_conf, networks, network_count),
	  .help = "bridges that VMs may be plugged into" },
	{ .name = "leg",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct agent_conf, leg),
	  .fallback = "",
	  .help = "leg program; default drover-leg-HYPERVISOR beside drover-agent" },
	{ .name = "orphan-grace",
	  .type = CONF_DURATION,
	  CONF_FIELD(struct agent_conf, orphan_grace_ms),
	  .fallback = "15m",
	  .min = ORPHAN_GRACE_MIN_MS,
	  .max = ORPHAN_GRACE_MAX_MS,
	  .help = "how long a copy goes on without a coordinator before the host gives up by itself" },
	{ .name = "journal-reserve",
	  .type = CONF_SIZE,
	  CONF_FIELD(struct agent_conf, journal_reserve_bytes),
	  .fallback = "4M",
	  .max = RESERVE_MAX_BYTES,
	  .help = "space set aside beside the journal, to end migrations by when its file system is full; 0: none" },
};

static const struct conf_key sr_keys[] = {
	{ .name = "type",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct sr_config, type),
	  .fallback = "dir",
	  .min = 1,
	  .help = "dir: disks are image files in a directory" },
	{ .name = "path", .type = CONF_TEXT, CONF_FIELD(struct sr_config, path), .min = 1, .help = "the directory" },
	{ .name = "format",
	  .type = CONF_CHOICE,
	  CONF_FIELD(struct sr_config, format),
	  .fallback = "raw",
	  .choices = format_choices,
	  .help = "format of disks that are made there" },
};

static const struct conf_section sr_section = {
	.name = "sr",
	.keys = sr_keys,
	.key_count = sizeof(sr_keys) / sizeof(sr_keys[0]),
	.offset = offsetof(struct agent_conf, srs),
	.element_bytes = sizeof(struct sr_config),
	.max_count = LIMIT_SRS,
	.count_offset = offsetof(struct agent_conf, sr_count),
	.title_offset = offsetof(struct sr_config, name),
	.title_bytes = LIMIT_NAME,
	.help = "a storage repository of this host",
};

static const struct conf_table agent_table = {
	.keys = agent_keys,
	.key_count = sizeof(agent_keys) / sizeof(agent_keys[0]),
	.section = &sr_section,
};

/* Host and pool names are in file names, on the wire and in people's scripts. */
static bool is_name(const char *text)
{
	for (const char *at = text; *at; at++)
		if (!isalnum((unsigned char)*at) && !strchr("._-", *at))
			return false;
	return text[0] != '\0' && text[0] != '-' && text[0] != '.';
}

/* Joins unless `path` is absolute, in place. */
static int make_absolute(char *path, size_t bytes, const char *directory, const char *file, const char *key,
                         struct err *err)
{
	if (path[0] == '/')
		return 0;
	char joined[2 * PATHS_MAX];
	int length = snprintf(joined, sizeof(joined), "%s/%s", directory, path);
	if (length < 0 || (size_t)length >= bytes)
		return err_set(err, ERR_CONFIG, "%s: %s: the path is too long (at most %zu bytes)", file, key,
		               bytes - 1);
	memcpy(path, joined, (size_t)length + 1);
	return 0;
}

static int conf_check(struct agent_conf *conf, const struct paths *paths, struct err *err)
{
	const char *file = conf->file;
	if (!is_name(conf->host))
		return err_set(err, ERR_CONFIG, "%s: host: \"%s\" is not a name (letters, digits and . _ -)", file,
		               conf->host);
	if (!is_name(conf->pool))
		return err_set(err, ERR_CONFIG, "%s: pool: \"%s\" is not a name (letters, digits and . _ -)", file,
		               conf->pool);
	if (strcmp(conf->hypervisor, "sim") != 0 && strcmp(conf->hypervisor, "xen") != 0)
		return err_set(err, ERR_CONFIG, "%s: hypervisor: \"%s\" is not one of sim, xen", file,
		               conf->hypervisor);
	if (strncmp(conf->coordinator, "tcp://", 6) != 0 || !strchr(conf->coordinator + 6, ':'))
		return err_set(err, ERR_CONFIG, "%s: coordinator: \"%s\" is not an endpoint (tcp://host:port)", file,
		               conf->coordinator);
	if (!conf->key[0])
		(void)snprintf(conf->key, sizeof(conf->key), "keys/agent.cert_secret");
	if (!conf->server_key[0])
		(void)snprintf(conf->server_key, sizeof(conf->server_key), "coordinator.cert");
	const char *base = paths->home[0] ? paths->home : "/";
	if (make_absolute(conf->key, sizeof(conf->key), paths->etc, file, "key", err) < 0 ||
	    make_absolute(conf->server_key, sizeof(conf->server_key), paths->etc, file, "server-key", err) < 0)
		return -1;
	if (conf->leg[0] && make_absolute(conf->leg, sizeof(conf->leg), base, file, "leg", err) < 0)
		return -1;
	for (unsigned i = 0; i < conf->sr_count; i++) {
		struct sr_config *sr = &conf->srs[i];
		if (strcmp(sr->type, "dir") != 0)
			return err_set(err, ERR_CONFIG, "%s: sr %s: type: \"%s\" is not one of dir", file, sr->name,
			               sr->type);
		if (make_absolute(sr->path, sizeof(sr->path), base, file, "sr path", err) < 0)
			return -1;
	}
	return 0;
}

int agent_conf_load(struct agent_conf *ret_conf, const struct paths *paths, const char *file, struct err *err)
{
	char path[2 * PATHS_MAX];
	const char *from_env = getenv(AGENT_CONF_ENV);
	int length;
	if (!file && from_env && from_env[0])
		file = from_env;
	if (file)
		length = snprintf(path, sizeof(path), "%s", file);
	else
		length = snprintf(path, sizeof(path), "%s/agent.conf", paths->etc);
	if (length < 0 || (size_t)length >= PATHS_MAX)
		return err_set(err, ERR_CONFIG, "the path of the configuration file is too long");
	struct agent_conf *conf = calloc(1, sizeof(*conf));
	if (!conf)
		return err_set(err, ERR_NO_MEMORY, "no memory for the configuration");
	int rc = conf_load(path, false, &agent_table, conf, err);
	if (rc == 0) {
		memcpy(conf->file, path, (size_t)length + 1);
		rc = conf_check(conf, paths, err);
	}
	if (rc == 0)
		*ret_conf = *conf;
	free(conf);
	return rc;
}

const struct sr_config *agent_conf_sr(const struct agent_conf *conf, const char *name)
{
	for (unsigned i = 0; i < conf->sr_count; i++)
		if (strcmp(conf->srs[i].name, name) == 0)
			return &conf->srs[i];
	return NULL;
}

int agent_conf_leg(const struct agent_conf *conf, char ret_path[PATHS_MAX], struct err *err)
{
	char path[PATHS_MAX + LIMIT_NAME + 32];
	if (conf->leg[0]) {
		(void)snprintf(path, sizeof(path), "%s", conf->leg);
	} else {
		char self[PATHS_MAX];
		ssize_t bytes = readlink("/proc/self/exe", self, sizeof(self) - 1);
		if (bytes <= 0)
			return err_errno(err, ERR_IO, errno, "cannot find the program's own directory");
		self[bytes] = '\0';
		char *slash = strrchr(self, '/');
		if (slash)
			*slash = '\0';
		(void)snprintf(path, sizeof(path), "%s/drover-leg-%s", self, conf->hypervisor);
	}
	size_t bytes = strlen(path) + 1;
	if (bytes > PATHS_MAX)
		return err_set(err, ERR_CONFIG, "the path of the leg program is too long");
	if (access(path, X_OK) != 0)
		return err_errno(
			err, ERR_CONFIG, errno,
			"hypervisor = %s needs the program %s (install drover's %s driver, or set `leg` in %s)",
			conf->hypervisor, path, conf->hypervisor, conf->file);
	memcpy(ret_path, path, bytes);
	return 0;
}

void agent_conf_reference(FILE *out)
{
	conf_reference(&agent_table, out);
}
