/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a power cut takes: in a simulated host every write to a file notes what was there before, in HOST/power/, until
 * somebody flushes the file; `power_cut()` puts back what was never flushed.
 *
 * The notes are taken by power_shim.c, which stands in front of the C library's calls in every process of the host
 * (LD_PRELOAD; the block backend, exporters and SQLite know nothing of it). One file of notes for each file written:
 * named by device, inode and birth time, so that a new file in an old one's inode is another one.
 *
 * Limits: names (create, rename, unlink) are durable at once, as are writes through mmap and O_TRUNC. Logs, run/ and
 * the ledger, which stands for an observer outside, are left alone.
 */
#ifndef DROVER_POWER_H
#define DROVER_POWER_H

#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

#define POWER_ENV "DROVER_POWER"           /* canonical path of the directory that holds the hosts */
#define POWER_DEAF_ENV "DROVER_POWER_DEAF" /* flushes of files with this in their path do nothing: for tests */
#define POWER_LIBRARY "drover-power.so"    /* beside the programs */
#define POWER_DIR "power"                  /* below a host; without it nothing is noted */
#define POWER_MAGIC UINT64_C(0x70c7a9e35d1b684f)
#define POWER_CHUNK (1u << 20)               /* bytes in one note */
#define POWER_NOTES_MAX (UINT64_C(64) << 20) /* then the file is flushed by us, as a real host does some time */
#define POWER_NAME_BYTES 80

enum power_kind {
	POWER_DATA = 1, /* `bytes` bytes that were at `offset` follow */
	POWER_ZERO = 2, /* there were zeros, or nothing */
	POWER_SIZE = 3, /* only the size is about to change */
	POWER_MARK = 4  /* a flush has ended that began when there were `offset` bytes of notes */
};

struct power_note {
	uint64_t magic;
	uint64_t kind;
	uint64_t offset;
	uint64_t bytes;
	uint64_t size; /* of the file, before */
	uint64_t hash; /* XXH64 of the fields above and what follows: a killed process may leave half a note */
};

/* The name of the notes of an open regular file. -1: not a regular file, or gone. */
int power_name(int fd, char ret_name[POWER_NAME_BYTES], uint64_t *ret_size);

/* XXH64 of a note's fields and its payload (`data` may be NULL). */
uint64_t power_hash(const struct power_note *note, const void *data);

/* Takes back, in every file below `home`, what was not flushed; forgets the notes. No process of the host may live.
 * Again after an interruption is harmless. *ret_bytes (may be NULL): how many bytes were put back. Blocks. */
int power_cut(const char *home, uint64_t *ret_bytes, struct err *err);

/* All is flushed: an orderly shutdown. Makes the directory of notes if there is none. */
int power_forget(const char *home, struct err *err);

#endif
