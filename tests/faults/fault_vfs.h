/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VFS for SQLite between it and the real one, and an allocator, that fail when they are told to. fault_install()
 * makes both SQLite's defaults, so that whatever opens a database by its usual way goes through them. One thread only.
 */
#ifndef DROVER_FAULT_VFS_H
#define DROVER_FAULT_VFS_H

#include <stdbool.h>

/* What can fail; a set. */
enum fault_op {
	FAULT_OPEN = 1 << 0,
	FAULT_READ = 1 << 1,
	FAULT_WRITE = 1 << 2,
	FAULT_SYNC = 1 << 3,
	FAULT_TRUNCATE = 1 << 4,
	FAULT_SIZE = 1 << 5,
	FAULT_LOCK = 1 << 6, /* of the database file */
	FAULT_SHM_MAP = 1 << 7,
	FAULT_SHM_LOCK = 1 << 8,
	FAULT_DELETE = 1 << 9,
	FAULT_ALLOC = 1 << 10, /* SQLite's memory: the code is ignored, there is none */
};

enum fault_manner {
	FAULT_ONCE,  /* the N-th, no other */
	FAULT_FROM,  /* the N-th and all that follow */
	FAULT_TEAR,  /* the N-th write is half done, and nothing after it reaches a file: the process dies there */
	FAULT_SHORT, /* the N-th read finds the end of the file: zeros */
};

struct fault_plan {
	const char *name; /* for messages */
	unsigned ops;
	enum fault_manner manner;
	int code;   /* what SQLite is told: SQLITE_... */
	unsigned n; /* from 1 */
};

/* Before anything else is done with SQLite. Syncs succeed and do nothing: a test does not lose its power. */
void fault_install(void);
/* Counts from now on. */
void fault_arm(const struct fault_plan *plan);
/* All is well again; returns whether the fault came. */
bool fault_disarm(void);

#endif
