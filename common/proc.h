/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes: starting helpers without a shell, knowing them again by pid and start time (a pid alone is reused).
 */
#ifndef DROVER_PROC_H
#define DROVER_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

struct proc_id {
	pid_t pid;
	uint64_t start_ticks; /* field 22 of /proc/PID/stat */
};

enum proc_flags {
	PROC_SETSID = 1 << 0,      /* new session: outlives the caller's terminal and group */
	PROC_DIE_WITH_US = 1 << 1, /* PR_SET_PDEATHSIG SIGKILL: dies when the caller dies, however that happens */
};

/* Starts argv[0] (searched in PATH) with the given environment additions ("NAME=VALUE", NULL-ended, may be NULL);
 * standard input is /dev/null, output and error go to log_path (appended; NULL: inherited). All other descriptors are
 * closed but `listen_fd` (-1: none), a listening socket that it gets as systemd would pass it: as descriptor 3, with
 * LISTEN_FDS and LISTEN_PID, see sd_listen_fds(3). Signals are unblocked and default. */
int proc_start(struct proc_id *ret_id, const char *const argv[], const char *const env[], const char *log_path,
               int listen_fd, unsigned flags, struct err *err);

/* Starts, waits at most timeout_ms, collects at most *bytes - 1 bytes of standard output (NUL-terminated; NULL: none).
 * Fails if it cannot be started, does not end with 0, or is late (it is killed then); the text has its last error line.
 */
int proc_run(const char *const argv[], const char *const env[], char *ret_output, size_t *bytes, unsigned timeout_ms,
             struct err *err);

/* At most room - 1 bytes of /proc/PID/WHAT ("comm", "cmdline", "environ", ...: words end in NUL), and a NUL. Returns
 * how many; 0 and "" if there is no such process, it may not be read, or has none (a zombie's cmdline). room >= 1. */
size_t proc_read(pid_t pid, const char *what, char *ret_text, size_t room);
/* Fills start_ticks from pid; -1 if there is no such process. */
int proc_identify(pid_t pid, struct proc_id *ret_id);
/* Whether that very process lives (a zombie does not). */
bool proc_alive(const struct proc_id *id);
/* Kills that very process with SIGKILL (through a pidfd) and waits at most timeout_ms until it is gone, reaping it if
 * it is a child. 0 if it is gone, also if it was before. */
int proc_kill(const struct proc_id *id, unsigned timeout_ms, struct err *err);

#endif
