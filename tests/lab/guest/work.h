/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The two halves of a lab guest's work: memory and disks, each of which remembers what it wrote and counts what is
 * wrong. */
#ifndef LAB_WORK_H
#define LAB_WORK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { WORK_PAGE = 4096, WORK_DISKS = 4 };

struct memory {
	uint64_t boot;
	size_t pages;
	uint8_t *base;
	uint32_t *generation; /* of each page: how often it was written */
	size_t dirty_next, check_next;
	uint64_t wrong;
};

/* All pages written once. 0, or -1 if there is not so much memory. */
int memory_open(struct memory *memory, uint64_t boot, size_t bytes);
/* Writes the next pages anew, each looked at before; counts in memory->wrong those that are not what was written. */
void memory_dirty(struct memory *memory, size_t pages);
/* Looks at the next pages. */
void memory_check(struct memory *memory, size_t pages);

struct disk {
	uint64_t boot;
	char name[16]; /* "xvda" */
	int data_fd, record_fd;
	uint64_t blocks;      /* that data go to, behind the records */
	uint32_t *generation; /* of each: how often this boot wrote it; 0: not yet, or nobody knows */
	uint64_t rate_bytes;  /* a second */
	uint64_t last_record; /* beat of the newest record of this boot; 0: none */
	uint64_t check_next;
	atomic_ullong wrong;  /* not what was written: lost, stale or from elsewhere */
	atomic_ullong failed; /* reads and writes that were refused */
	atomic_ullong wrote_bytes;
	/* Found at the start, from an earlier boot. */
	uint64_t found_record, found_blocks, found_torn;
};

/* Opens /dev/NAME past the page cache and reads what an earlier boot has left; uses span_bytes of it at most (0: all).
 * 0, or -1 with errno if there is no such disk or it is too small. */
int disk_open(struct disk *disk, const char *name, uint64_t boot, uint64_t span_bytes, uint64_t rate_bytes);
/* Starts what writes and checks data all the time, in a thread of its own: there shall be I/O in flight whenever a VM
 * is suspended. */
int disk_start(struct disk *disk);
/* Checks the record of the last beat, writes that of this one; it is on the disk when this returns. */
void disk_record(struct disk *disk, uint64_t beat);

#endif
