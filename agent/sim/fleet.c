/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A fleet's directory: hosts, keys, configurations. */
#include "agent/sim/fleet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/keys.h"

#define TEXT_ROOM 4096
#define COORDINATOR "coordinator"
#define OPERATOR "operator"

static int write_text(const char *dir, const char *name, const char *text, struct err *err)
{
	char path[PATHS_MAX + LIMIT_NAME], fresh[sizeof(path) + 8];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	FILE *file = fopen(fresh, "we");
	if (file == NULL)
		return err_errno(err, ERR_IO, errno, "make %s", fresh);
	bool bad = fputs(text, file) < 0;
	bad = fclose(file) != 0 || bad;
	if (bad || rename(fresh, path) != 0)
		return err_errno(err, ERR_IO, errno, "write %s", path);
	return 0;
}

int fleet_new_boot(const struct paths *paths, struct err *err)
{
	char text[40];
	random_hex(text, 16);
	strcat(text, "\n");
	return write_text(paths->run, "boot-id", text, err);
}

static int add_host(struct fleet *fleet, const char *name, const char *pool, struct err *err)
{
	char home[PATHS_MAX + LIMIT_NAME];
	if (fleet->host_count == FLEET_HOSTS)
		return err_set(err, ERR_USAGE, "more than %d hosts", FLEET_HOSTS);
	if (!sim_name_ok(name) || !sim_name_ok(pool) || strcmp(name, COORDINATOR) == 0 || strcmp(name, "guests") == 0)
		return err_set(err, ERR_USAGE, "host '%s@%s': use letters, digits, '.', '_' and '-'", name, pool);
	if (fleet_host(fleet, name, NULL) != NULL)
		return err_set(err, ERR_USAGE, "host '%s' is named twice", name);
	struct fleet_host *host = &fleet->hosts[fleet->host_count];
	snprintf(host->name, sizeof(host->name), "%s", name);
	snprintf(host->pool, sizeof(host->pool), "%s", pool);
	snprintf(home, sizeof(home), "%s/%s", fleet->dir, name);
	if (paths_init(&host->paths, home, err) != 0)
		return -1;
	fleet->host_count++;
	return 0;
}

struct fleet_host *fleet_host(struct fleet *fleet, const char *name, struct err *err)
{
	for (unsigned i = 0; i < fleet->host_count; i++)
		if (strcmp(fleet->hosts[i].name, name) == 0)
			return &fleet->hosts[i];
	err_set(err, ERR_UNKNOWN_HOST, "no host '%s' in %s; `drover-sim list` shows what there is", name, fleet->dir);
	return NULL;
}

static int set_dir(struct fleet *fleet, const char *dir, struct err *err)
{
	char home[PATHS_MAX];
	struct paths paths;
	if (paths_init(&paths, dir, err) != 0)
		return -1;
	memset(fleet, 0, sizeof(*fleet));
	snprintf(fleet->dir, sizeof(fleet->dir), "%s", paths.home);
	if (snprintf(home, sizeof(home), "%.400s/" COORDINATOR, paths.home) >= (int)sizeof(home))
		return err_set(err, ERR_CONFIG, "%s: path too long", dir);
	return paths_init(&fleet->coordinator, home, err);
}

int fleet_load(struct fleet *ret_fleet, const char *dir, struct err *err)
{
	char path[PATHS_MAX + 16];
	json_error_t why;
	size_t index;
	json_t *hosts, *item;
	const char *endpoint, *exporter;
	if (set_dir(ret_fleet, dir, err) != 0)
		return -1;
	snprintf(path, sizeof(path), "%s/fleet.json", ret_fleet->dir);
	if (access(path, F_OK) != 0)
		return err_set(err, ERR_CONFIG, "no fleet in %s; make one with `drover-sim up --home %s`",
		               ret_fleet->dir, ret_fleet->dir);
	json_t *root = json_load_file(path, 0, &why);
	if (root == NULL ||
	    json_unpack(root, "{s:s,s:s,s:o}", "endpoint", &endpoint, "exporter", &exporter, "hosts", &hosts) != 0) {
		json_decref(root);
		return err_set(err, ERR_CORRUPT, "%s is damaged", path);
	}
	snprintf(ret_fleet->endpoint, sizeof(ret_fleet->endpoint), "%s", endpoint);
	snprintf(ret_fleet->exporter, sizeof(ret_fleet->exporter), "%s", exporter);
	int result = 0;
	json_array_foreach(hosts, index, item)
	{
		const char *name, *pool;
		if (result == 0 && json_unpack(item, "{s:s,s:s}", "name", &name, "pool", &pool) != 0)
			result = err_set(err, ERR_CORRUPT, "%s is damaged", path);
		if (result == 0)
			result = add_host(ret_fleet, name, pool, err);
	}
	json_decref(root);
	return result;
}

static int save(const struct fleet *fleet, struct err *err)
{
	json_t *hosts = json_array();
	for (unsigned i = 0; i < fleet->host_count; i++)
		json_array_append_new(
			hosts, json_pack("{s:s,s:s}", "name", fleet->hosts[i].name, "pool", fleet->hosts[i].pool));
	json_t *root =
		json_pack("{s:s,s:s,s:o}", "endpoint", fleet->endpoint, "exporter", fleet->exporter, "hosts", hosts);
	char *text = json_dumps(root, JSON_INDENT(1));
	json_decref(root);
	if (text == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	int result = write_text(fleet->dir, "fleet.json", text, err);
	free(text);
	return result;
}

/* A port of loopback that is free now. Somebody may take it before the coordinator does: then `up` says so. */
static int choose_endpoint(struct fleet *fleet, struct err *err)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t bytes = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int result = 0;
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
		result = err_errno(err, ERR_IO, errno, "look for a free port");
	if (fd >= 0)
		close(fd);
	snprintf(fleet->endpoint, sizeof(fleet->endpoint), "tcp://127.0.0.1:%u", ntohs(address.sin_port));
	return result;
}

static int generate(const struct paths *paths, const char *name, enum role role, const char *host, struct err *err)
{
	struct err why = { 0 };
	if (keys_generate(paths, name, role, host, &why) != 0 && why.code != ERR_BUSY) /* busy: it is there */
		return err_set(err, why.code, "%s", why.text);
	return 0;
}

/* Lets the coordinator know a key, unless it does. */
static int authorize(const struct fleet *fleet, const struct paths *from, const char *name, const char *as,
                     struct err *err)
{
	char there[PATHS_MAX * 2], file[PATHS_MAX * 2];
	snprintf(there, sizeof(there), "%s/authorized/%s.cert", fleet->coordinator.etc, as);
	if (access(there, F_OK) == 0)
		return 0;
	snprintf(file, sizeof(file), "%s/keys/%s.cert", from->etc, name);
	return keys_authorize(&fleet->coordinator, file, err);
}

static int make_coordinator(const struct fleet *fleet, struct err *err)
{
	const struct paths *paths = &fleet->coordinator;
	char text[TEXT_ROOM];
	if (paths_make(paths, err) != 0 || generate(paths, COORDINATOR, ROLE_COORDINATOR, "", err) != 0 ||
	    generate(paths, OPERATOR, ROLE_OPERATOR, "", err) != 0 ||
	    authorize(fleet, paths, OPERATOR, OPERATOR, err) != 0)
		return -1;
	snprintf(text, sizeof(text),
	         "# Coordinator of a simulated fleet, written by drover-sim.\nlisten = \"%s\"\nkey = "
	         "\"%s/keys/" COORDINATOR ".cert_secret\"\n",
	         fleet->endpoint, paths->etc);
	if (write_text(paths->etc, "coordinator.conf", text, err) != 0)
		return -1;
	snprintf(text, sizeof(text),
	         "# Written by drover-sim.\ncoordinator = \"%s\"\nserver-key = \"%s/keys/" COORDINATOR
	         ".cert\"\nkey = \"%s/keys/" OPERATOR ".cert_secret\"\n",
	         fleet->endpoint, paths->etc, paths->etc);
	return write_text(paths->etc, "client.conf", text, err);
}

static int make_srs(const struct fleet_host *host, struct err *err)
{
	static const char *const below[] = { "sr", "sr/local", "sr/qcow" };
	char path[PATHS_MAX + 16];
	for (size_t i = 0; i < sizeof(below) / sizeof(below[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", host->paths.home, below[i]);
		if (mkdir(path, 0755) != 0 && errno != EEXIST)
			return err_errno(err, ERR_IO, errno, "make %s", path);
	}
	return 0;
}

static int make_host(const struct fleet *fleet, const struct fleet_host *host, struct err *err)
{
	const struct paths *paths = &host->paths;
	char text[TEXT_ROOM];
	if (paths_make(paths, err) != 0 || make_srs(host, err) != 0 ||
	    generate(paths, host->name, ROLE_AGENT, host->name, err) != 0 ||
	    authorize(fleet, paths, host->name, host->name, err) != 0)
		return -1;
	int bytes = snprintf(text, sizeof(text),
	                     "# Simulated host, written by drover-sim.\n"
	                     "host = \"%s\"\npool = \"%s\"\nhypervisor = \"sim\"\ncoordinator = \"%s\"\n"
	                     "key = \"%s/keys/%s.cert_secret\"\nserver-key = \"%s/keys/" COORDINATOR ".cert\"\n"
	                     "data-address = \"127.0.0.1\"\nexporter = %s\nnetworks = {\"" FLEET_BRIDGE "\"}\n"
	                     "sr local {\n\ttype = dir\n\tpath = \"%s/sr/local\"\n\tformat = raw\n}\n"
	                     "sr qcow {\n\ttype = dir\n\tpath = \"%s/sr/qcow\"\n\tformat = qcow2\n}\n",
	                     host->name, host->pool, fleet->endpoint, paths->etc, host->name, fleet->coordinator.etc,
	                     fleet->exporter, paths->home, paths->home);
	if (bytes >= (int)sizeof(text))
		return err_set(err, ERR_CONFIG, "%s: path too long", paths->home);
	return write_text(paths->etc, "agent.conf", text, err) == 0 ? fleet_new_boot(paths, err) : -1;
}

static int parse_hosts(struct fleet *fleet, const char *hosts, struct err *err)
{
	char *copy = strdup(hosts), *rest = NULL;
	int result = copy != NULL ? 0 : err_set(err, ERR_NO_MEMORY, "no memory");
	for (char *word = copy != NULL ? strtok_r(copy, ",", &rest) : NULL; word != NULL && result == 0;
	     word = strtok_r(NULL, ",", &rest)) {
		char *at = strchr(word, '@');
		if (at == NULL) {
			result = err_set(err, ERR_USAGE, "host '%s' names no pool: use HOST@POOL,HOST@POOL", word);
			break;
		}
		*at = '\0';
		result = add_host(fleet, word, at + 1, err);
	}
	free(copy);
	if (result == 0 && fleet->host_count == 0)
		result = err_set(err, ERR_USAGE, "no hosts: use HOST@POOL,HOST@POOL");
	return result;
}

int fleet_make(struct fleet *ret_fleet, const char *dir, const char *hosts, const char *exporter, struct err *err)
{
	char path[PATHS_MAX + 16];
	if (strcmp(exporter, "nbd") != 0 && strcmp(exporter, "iscsi") != 0)
		return err_set(err, ERR_USAGE, "exporter '%s': use nbd or iscsi", exporter);
	if (set_dir(ret_fleet, dir, err) != 0)
		return -1;
	snprintf(ret_fleet->exporter, sizeof(ret_fleet->exporter), "%s", exporter);
	if (parse_hosts(ret_fleet, hosts, err) != 0 || choose_endpoint(ret_fleet, err) != 0 ||
	    make_coordinator(ret_fleet, err) != 0)
		return -1;
	for (unsigned i = 0; i < ret_fleet->host_count; i++)
		if (make_host(ret_fleet, &ret_fleet->hosts[i], err) != 0)
			return err_wrap(err, "host %s", ret_fleet->hosts[i].name);
	snprintf(path, sizeof(path), "%s/guests", ret_fleet->dir);
	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		return err_errno(err, ERR_IO, errno, "make %s", path);
	return save(ret_fleet, err); /* last: with it the fleet exists */
}
