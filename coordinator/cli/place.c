/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/place.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/conf.h"

#define FILE_NAME "client.conf"

struct client_conf {
	char coordinator[LIMIT_ID];
	char server_key[LIMIT_PATH];
	char key[LIMIT_PATH];
};

static const struct conf_key client_keys[] = {
	{ .name = "coordinator",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct client_conf, coordinator),
	  .min = 1,
	  .help = "endpoint of the coordinator: tcp://HOST:PORT" },
	{ .name = "server-key",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct client_conf, server_key),
	  .min = 1,
	  .fallback = "coordinator.cert",
	  .help = "file with the coordinator's public key" },
	{ .name = "key",
	  .type = CONF_TEXT,
	  CONF_FIELD(struct client_conf, key),
	  .min = 1,
	  .fallback = "keys/operator.cert_secret",
	  .help = "file with the key of who asks" },
};
static const struct conf_table client_table = { .keys = client_keys,
	                                        .key_count = sizeof(client_keys) / sizeof(client_keys[0]) };

int place_find(struct place *ret_place, const char *home, struct err *err)
{
	struct place *place = ret_place;
	char inner[PATHS_MAX + 16], conf[sizeof(inner) + 32];
	struct stat found;

	memset(place, 0, sizeof(*place));
	if (paths_init(&place->paths, home, err) != 0)
		return err_wrap(err, "find the configuration");
	if (place->paths.home[0] && stat(place->paths.etc, &found) != 0) {
		snprintf(inner, sizeof(inner), "%s/coordinator", place->paths.home);
		snprintf(conf, sizeof(conf), "%s/etc/" FILE_NAME, inner);
		if (access(conf, F_OK) == 0 && paths_init(&place->paths, inner, err) != 0)
			return err_wrap(err, "find the configuration");
	}
	snprintf(place->file, sizeof(place->file), "%s/" FILE_NAME, place->paths.etc);
	return 0;
}

/* `name` under etc, unless it is absolute. */
static int key_path(char *path, size_t bytes, const struct place *place, const char *what, const char *name,
                    struct err *err)
{
	if (name[0] == '/')
		snprintf(path, bytes, "%s", name);
	else
		snprintf(path, bytes, "%s/%s", place->paths.etc, name);
	if (access(path, R_OK) == 0)
		return 0;
	if (errno == EACCES)
		return err_set(err, ERR_DENIED, "read %.120s: %.200s: not allowed for this user; use a key of your own",
		               what, path);
	return err_set(err, ERR_CONFIG,
	               "read %.120s: %.200s: %s; 'drover key generate' makes keys, %.120s says which are used", what,
	               path, strerror(errno), place->file);
}

int place_load(struct place *place, struct err *err)
{
	struct client_conf conf = { 0 };

	if (access(place->file, F_OK) != 0)
		return err_set(
			err, ERR_UNREACHABLE,
			"find the coordinator: no %.300s; write it (see drover(1)), or use --home or DROVER_HOME",
			place->file);
	if (conf_load(place->file, false, &client_table, &conf, err) != 0)
		return err_wrap(err, "find the coordinator");
	snprintf(place->endpoint, sizeof(place->endpoint), "%s", conf.coordinator);
	if (key_path(place->server_cert, sizeof(place->server_cert), place, "the coordinator's public key",
	             conf.server_key, err) != 0)
		return -1;
	return key_path(place->key_file, sizeof(place->key_file), place, "our key", conf.key, err);
}
