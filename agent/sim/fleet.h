/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * drover-sim: a fleet of simulated hosts under one directory.
 *
 *  DIR/fleet.json         hosts, pools, endpoint: what `up` was asked for the first time
 *  DIR/guests/GUEST.json  every VM that `create` ever made, with what its content is a function of; for `verify`
 *  DIR/coordinator, DIR/HOST   homes of the daemons
 *
 * Laws: nothing here is needed by any other part of drover; what `up` starts outlives it; what exists is never made
 * again.
 */
#ifndef DROVER_FLEET_H
#define DROVER_FLEET_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/hypervisor/sim_record.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/paths.h"
#include "common/proc.h"

#define FLEET_HOSTS 64          /* each is a daemon on this machine */
#define FLEET_CONNECT_MS 20000u /* until all agents must be connected */
#define FLEET_BRIDGE "xenbr0"
#define FLEET_MARK "DROVER_SIM_HOST" /* environment of every process of a host: its home */

struct fleet_host {
	char name[LIMIT_NAME];
	char pool[LIMIT_NAME];
	struct paths paths;
};

struct fleet {
	char dir[PATHS_MAX];
	struct paths coordinator;
	char endpoint[LIMIT_ID];
	char exporter[LIMIT_NAME];
	unsigned host_count;
	struct fleet_host hosts[FLEET_HOSTS];
};

/* Reads DIR/fleet.json; ERR_CONFIG if there is no fleet. */
int fleet_load(struct fleet *ret_fleet, const char *dir, struct err *err);
/* Makes directories, keys, configurations and fleet.json for `hosts` ("a1@A,b1@B"). A half-made one is completed. */
int fleet_make(struct fleet *ret_fleet, const char *dir, const char *hosts, const char *exporter, struct err *err);
struct fleet_host *fleet_host(struct fleet *fleet, const char *name, struct err *err);

/* Starts what does not run of coordinator, agents, guests, in this order; returns when the agents are connected. */
int fleet_up(struct fleet *fleet, struct err *err);
/* Ends everything; guests flush first. Their memory is gone, so every host has a new boot id. */
int fleet_down(struct fleet *fleet, struct err *err);
/* Every process of the host is gone at once, and what they had written and not flushed is lost. If one of them was not
 * started by us, so that nobody knows what it flushed, nothing is taken back, and a line on stderr says so. */
int fleet_power_off(struct fleet *fleet, struct fleet_host *host, struct err *err);
int fleet_power_on(struct fleet *fleet, struct fleet_host *host, struct err *err);

/* Starts every VM of the host that should run and does not, unless the journal says that its fate is not this host's to
 * decide. *ret_held: how many were held back. */
int fleet_start_guests(struct fleet_host *host, unsigned *ret_held, struct err *err);
/* A beginning of a VM: name, memory, rates, disks with name, SR and size. The rest is filled in; images are made. */
int fleet_create(struct fleet *fleet, struct fleet_host *host, struct sim_record *record, struct err *err);
int fleet_destroy(struct fleet *fleet, const char *name, struct err *err);
/* {"vms":[...]}. */
int fleet_list(struct fleet *fleet, json_t **ret_list, struct err *err);

/* Waits until the coordinator says that `hosts` of the fleet (all that are asked for) are connected. */
int fleet_wait_connected(struct fleet *fleet, const struct fleet_host *only, unsigned timeout_ms, struct err *err);

/* Waits some seconds until the coordinator knows a VM that was just made, so that the next command can name it. Not if
 * coordinator or agent do not run. */
void fleet_wait_known(struct fleet *fleet, const struct fleet_host *host, const char *uuid);

/* Processes of one host (or of the coordinator), however they were started. malloc'ed. */
int fleet_processes(const char *home, struct proc_id **ret_list, size_t *ret_count, struct err *err);
/* Whether the environment that the process was started with has a word with this beginning. */
bool fleet_has_environment(const struct proc_id *id, const char *beginning);
/* Stops them all, looks again until there is none that is new, kills them all, waits until they are gone. */
int fleet_kill(const char *home, struct err *err);
/* Whether each process of the list is among the known ones, too. */
bool fleet_all_known(const struct proc_id *list, size_t count, const struct proc_id *known, size_t known_count);
/* The daemon whose pid is in run/NAME.pid, if it lives and is `program`. */
bool fleet_daemon_alive(const struct paths *paths, const char *name, const char *program, struct proc_id *ret_id);
/* Starts a daemon beside this program; its log is run/NAME.log. If there is a file etc/launcher, its words come before
 * the command line, for a network namespace or the like: they must exec the rest. */
int fleet_daemon_start(const struct paths *paths, const char *name, const char *program, struct err *err);
int fleet_daemon_end(const struct paths *paths, const char *name, const char *program, struct err *err);
/* The last line of a log that has any, for errors. */
void fleet_last_words(const struct paths *paths, const char *name, char *ret_text, size_t bytes);
/* Everything started from now on notes what it has not flushed, for fleet_power_off (power.h). The fleet exists. */
int fleet_watch_power(const struct fleet *fleet, struct err *err);
/* A new boot id, as after a reboot. */
int fleet_new_boot(const struct paths *paths, struct err *err);
/* What a reboot does to run/: everything is gone but logs. */
int fleet_clear_run(const struct paths *paths, struct err *err);

#endif
