/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inside of verify: what was read, before anything is judged. Included by verify*.c only. */
#ifndef DROVER_VERIFY_WORLD_H
#define DROVER_VERIFY_WORLD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "agent/sim/pattern.h"
#include "common/err.h"

#define VERIFY_NAME 64
#define VERIFY_PATH 600
#define VERIFY_HOSTS 64
#define VERIFY_DISKS 16

/* A disk as a VM record has it. */
struct verify_disk {
	char name[VERIFY_NAME], path[VERIFY_PATH];
	bool qcow2, read_only;
	uint64_t size_bytes;
};

/* HOST/lib/vms/NAME.json. */
struct verify_record {
	char name[VERIFY_NAME], guest[VERIFY_NAME], uuid[40], state[VERIFY_NAME];
	unsigned disk_count;
	struct verify_disk disks[VERIFY_DISKS];
	pid_t guest_pid, backend_pid; /* in the pid files; 0: none */
	bool guest_alive, backend_alive;
};

/* A row of the journal's table `resource`. */
struct verify_claim {
	int64_t migration;
	int kind; /* of agent/journal.h: VERIFY_KIND_... */
	char name[VERIFY_NAME], path[VERIFY_PATH];
	pid_t pid;
};
#define VERIFY_KIND_VM 4
#define VERIFY_KIND_BITMAP 5

/* A row of the journal's table `session`. */
struct verify_session {
	int64_t migration;
	bool suspended_here; /* as the source: suspended, and not resumed */
};

struct verify_host {
	char name[VERIFY_NAME], home[VERIFY_PATH];
	bool agent_alive;
	bool power_cut; /* power-off came last: what was not flushed may be lost */
	struct verify_record *records;
	size_t record_count;
	struct verify_claim *claims;
	size_t claim_count;
	struct verify_session *sessions;
	size_t session_count;
};

/* A line of a ledger. */
struct verify_line {
	uint64_t tick;
	int64_t at_ns;
	uint64_t sum;
	bool has_sum;
	unsigned char host; /* index */
};

/* DIR/guests/GUEST.json. */
struct verify_guest {
	char guest[VERIFY_NAME], uuid[40];
	bool destroyed;
	struct pattern pattern;
	unsigned disk_count;
	char disks[VERIFY_DISKS][VERIFY_NAME];
	struct verify_line *lines; /* all hosts'; sorted by tick, then time, once judged */
	size_t line_count, line_room;
	uint64_t last_tick;
	const struct verify_host *owner;
	const struct verify_record *record;
	/* figures */
	double gap_ms, move_gap_ms; /* largest; largest between two hosts */
	uint64_t checksums;
};

struct verify {
	char dir[VERIFY_PATH];
	FILE *out;    /* NULL: faults go to the list only */
	json_t *list; /* of faults */
	unsigned faults;
	uint64_t bytes; /* of images, checked */
	unsigned host_count;
	struct verify_host hosts[VERIFY_HOSTS];
	struct verify_guest *guests;
	size_t guest_count;
};

/* One fault, one line. */
void verify_fault(struct verify *verify, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* verify_world.c: reads it all. What cannot be understood is a fault; -1 only if there is no fleet or no memory. */
int verify_read(struct verify *verify, const char *dir, struct err *err);
void verify_free(struct verify *verify);
struct verify_record *verify_record_of(struct verify_host *host, const char *name);
bool verify_session_open(const struct verify_host *host, int64_t migration);
/* The ledgers as they are now: the highest tick of this guest. */
uint64_t verify_tick_now(const struct verify *verify, const struct verify_guest *guest);

/* The judges. */
void verify_ledgers(struct verify *verify);
void verify_owners(struct verify *verify);
int verify_checksums(struct verify *verify, struct err *err);
int verify_images(struct verify *verify, struct err *err);
void verify_processes(struct verify *verify);
void verify_files(struct verify *verify);
void verify_backends(struct verify *verify);

/* Whether the process lives (a zombie does not). */
bool verify_proc_alive(pid_t pid);
/* Whether one of NUL-separated words contains `part`. */
bool verify_words_have(const char *text, size_t bytes, const char *part);

#endif
