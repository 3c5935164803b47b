/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where things are. DROVER_HOME (or --home) puts etc, lib and run under one directory; else they are
 * /etc/drover, /var/lib/drover and /run/drover.
 */
#ifndef DROVER_PATHS_H
#define DROVER_PATHS_H

#include "common/err.h"

#define PATHS_MAX 512

struct paths {
	char home[PATHS_MAX]; /* "" when the system's directories are used */
	char etc[PATHS_MAX];  /* configuration, keys/ and authorized/ */
	char lib[PATHS_MAX];  /* databases */
	char run[PATHS_MAX];  /* sockets and pid files */
};

/* Fills from `home`, or from DROVER_HOME if home is NULL, or the system's directories. Makes the path absolute.
 * Fails (ERR_CONFIG) if a path would be too long for what is put under it (unix sockets: 100 bytes). */
int paths_init(struct paths *ret_paths, const char *home, struct err *err);

/* Makes etc, lib and run (0755, 0700, 0755) where missing. */
int paths_make(const struct paths *paths, struct err *err);

/* Writes `pid` and a newline to run/NAME.pid (atomically: temporary file and rename). */
int paths_write_pid(const struct paths *paths, const char *name, long pid, struct err *err);
void paths_remove_pid(const struct paths *paths, const char *name);
/* 0 and the pid; -1 if there is none or it is not a number. Does not look whether it lives. */
int paths_read_pid(const struct paths *paths, const char *name, long *ret_pid);

#endif
