/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every operation of a database's API, with every fault at every place: what must hold whatever fails.
 *   - An error names the file, what failed and what to do about it; it is the fault's, not one of the caller's.
 *   - The database is as before the call or as after it, never between: in the open handle, in what a process that is
 *     killed there leaves behind, and after it was closed and opened again.
 *   - What was said to be done is there afterwards.
 *   - When the fault is over, the same call on the same handle succeeds.
 */
#ifndef DROVER_FAULT_RIG_H
#define DROVER_FAULT_RIG_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

/* What is tested: something that keeps its things in one database. */
struct fault_rig {
	const char *file;                                 /* of the database, in a folder */
	const char *beside;                               /* a file that belongs to it; NULL: none */
	int (*open)(const char *folder, struct err *err); /* at most one at a time */
	void (*close)(void);
	sqlite3 *(*handle)(void);
	void (*fill)(void);         /* rows that the calls find */
	void (*check)(bool filled); /* fails the test unless it is open and has all of them, or is a new one */
};

struct fault_call {
	const char *name;
	/* Does it, and checks what it gave: 0, or -1 with err. The same again is the same again. */
	int (*fn)(struct err *err);
	bool reads_only;
};

/* Every call, every fault. */
void fault_try_calls(const struct fault_rig *rig, const struct fault_call *calls, size_t count);
/* Opening: one that is new, and one that has rows. */
void fault_try_open(const struct fault_rig *rig);

/* What is in the database of a folder, as text; heap. "" if there is none. */
char *fault_dump(const char *folder, const char *file);

#endif
