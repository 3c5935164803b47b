/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coordinator's process. */
#include "coordinator/coordinator.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/sim/world.h"

static struct paths paths;

static void coordinator_end(struct proc *proc)
{
	coordinator_free(proc->object);
	loop_free(proc->loop);
	proc->object = NULL;
	proc->loop = NULL;
}

static int make_home(struct err *err)
{
	(void)snprintf(paths.home, sizeof(paths.home), "c");
	(void)snprintf(paths.etc, sizeof(paths.etc), "c/etc");
	(void)snprintf(paths.lib, sizeof(paths.lib), "c/lib");
	(void)snprintf(paths.run, sizeof(paths.run), "c/run");
	if (mkdir("c", 0700) && errno != EEXIST)
		return err_errno(err, ERR_IO, errno, "c");
	return paths_make(&paths, err);
}

static void main_of_coordinator(void *ctx, uint64_t unused)
{
	struct coordinator *coordinator = NULL;
	struct settings settings;
	struct err err = { 0 };
	(void)ctx, (void)unused;
	struct loop *loop = loop_new(&err);
	if (!loop || make_home(&err) < 0 || settings_load(&paths, NULL, &settings, &err) < 0 ||
	    coordinator_new(&coordinator, loop, &paths, &settings, &clock_real, &err) < 0) {
		trace("the coordinator does not start: %s", err.text);
		proc_end(world_current, 1 << 8);
	}
	world_current->object = coordinator;
}

void coordinator_begin(void *unused, uint64_t arg)
{
	(void)unused, (void)arg;
	if (world.coordinator)
		return;
	world.coordinator = proc_new(PROC_COORDINATOR, NULL, coordinator_end);
	trace("coordinator is process %u", world.coordinator->pid);
	proc_run_in(world.coordinator, main_of_coordinator, NULL, 0);
}

struct coordinator *coordinator_running(void)
{
	return world.coordinator ? world.coordinator->object : NULL;
}
