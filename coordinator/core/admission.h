/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which queued migrations may start now: limits in total and per host, by priority, one active migration a VM.
 * Pure; hosts and VMs are numbers that the caller gives out.
 */
#ifndef DROVER_ADMISSION_H
#define DROVER_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct admission_limits {
	uint32_t total;           /* active migrations at a time; 0: no limit */
	uint32_t per_source;      /* with one host as source */
	uint32_t per_destination; /* with one host as destination */
};

struct admission_entry {
	uint64_t id; /* of the migration: older ones have lower numbers */
	uint32_t vm, source, destination;
	int32_t priority; /* higher first; among equals the older */
	bool active;      /* it runs already */
	bool startable;   /* queued, and both hosts are there */
	bool start;       /* result */
};

/* Sets `start` of each entry: active ones keep their place, queued ones get what is left in order of priority. One that
 * cannot start does not hold up those behind it that use other hosts. The order of the list does not matter. Cost grows
 * with the square of the count: callers pass at most ADMISSION_ENTRIES_MAX. */
#define ADMISSION_ENTRIES_MAX 4096
void admission_decide(const struct admission_limits *limits, struct admission_entry *entries, size_t count);

#endif
