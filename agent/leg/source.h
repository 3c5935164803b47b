/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The source side of a leg, in parts: source.c (jobs but the copy), source_copy.c (the copy from connecting to the end
 * of stream), source_pass.c (passes over disks, digests), source_earlier.c (an earlier copy at the destination),
 * source_progress.c (figures).
 *
 * Threads: the conductor owns everything; a thread per disk while a pass runs; the main thread reads the atomics and
 * fires leg->work; stream 0's reader delivers digest results.
 */
#ifndef DROVER_LEG_SOURCE_H
#define DROVER_LEG_SOURCE_H

#include "agent/core/converge.h"
#include "agent/leg/leg.h"
#include "agent/leg/relay.h"

struct source_disk {
	struct source *source;
	unsigned index; /* in the plan */
	struct hypervisor_disk hv;
	int64_t bitmap_id; /* resource; 0: none */
	struct disk_source *live;
	struct sink *sink;
	struct disk_copy *copy;
	struct disk_copy_stats stats;
	bool drained;
	_Atomic uint64_t dirty_bytes; /* when it was asked last */
	/* one pass, in its thread */
	pthread_t thread;
	bool first, final, started;
	uint32_t pass;
	uint64_t sent_bytes;
	int rc;
	/* digests; counters under source->lock */
	uint32_t batch; /* number of the next one */
	uint32_t batches_out, batches_back;
	uint32_t bad, first_bad;
	uint32_t *granules; /* FRAME_DIGESTS_MAX */
	uint64_t *digests;
	unsigned char *payload; /* FRAME_PAYLOAD_MAX */
	/* an earlier copy; under source->lock */
	struct disk_mark *marks[2]; /* windows of DISK_MARKS_MAX: the one that is used, and the next; NULL: none */
	uint32_t windows_out, windows_back; /* asked for, answered */
};

enum source_phase { SOURCE_CONNECT = 0, SOURCE_DISK, SOURCE_MEMORY, SOURCE_READY, SOURCE_SWITCH, SOURCE_VERIFY };

/* Moments of the downtime, ms of clock_real; 0: not yet. */
enum source_moment {
	MOMENT_SUSPENDING,
	MOMENT_SUSPENDED,
	MOMENT_MEMORY,
	MOMENT_DISKS,
	MOMENT_ENDED,
	MOMENT_VERIFIED,
	MOMENT_VOTED,
	MOMENT_OVER,
	MOMENTS
};

struct source {
	struct leg *leg;
	struct hypervisor_source *vm;
	unsigned disk_count;
	struct source_disk disks[LIMIT_DISKS];
	struct relays *relays;
	struct exporter_access access[LIMIT_DISKS];
	struct disk_limit *no_limit; /* the copy engine's: bytes are counted where they leave, in the relays */
	struct link *link;           /* the conductor's own reference */

	pthread_mutex_t lock; /* digests, grant */
	pthread_cond_t changed;

	unsigned char *memory; /* frame being filled */
	size_t memory_fill;
	uint64_t memory_bytes; /* sent in frames so far */

	struct converge_policy policy;
	struct converge_state converge;
	uint64_t link_bps; /* best rate of a pass that was long enough to tell */
	bool forced;
	int64_t copy_began_ms;
	struct err gave_up; /* policy's end of the copy */

	/* figures for others */
	_Atomic int phase;
	_Atomic uint64_t memory_total, memory_sent, memory_dirty, memory_pass_sent, dirty_bps;
	_Atomic uint32_t memory_pass, throttle;
	_Atomic int64_t moments[MOMENTS];
	_Atomic int64_t began_ms;

	/* main thread */
	bool listed; /* the disks are journaled, to be dropped or kept */
	uint64_t wire_before, rate_bps;
	int64_t wire_at_ms;
};

int source_copy(struct leg *leg, struct err *err);

/* One pass over all disks that need one, in parallel, each with digests verified at the other end. `final`: the VM is
 * suspended; drains first. -1: *err is the first error (it was posted to the main thread already). */
int source_pass(struct source *source, bool first, bool final, uint64_t *ret_sent_bytes, struct err *err);
/* The same in two halves. */
void source_pass_begin(struct source *source, bool first, bool final);
int source_pass_end(struct source *source, uint64_t *ret_sent_bytes, struct err *err);
/* Bytes written to all disks since they were read. */
int source_dirty(struct source *source, uint64_t *ret_bytes, struct err *err);
/* A result came on stream 0. */
int source_digest_result(struct source *source, const struct frame_digest_result *result, struct err *err);

/* ---- source_earlier.c ---- */
/* The destination's disk holds an earlier copy: pass 0 sends only what differs from it. */
int source_earlier(struct source_disk *disk, uint64_t seed, struct err *err);
/* Marks came on stream 0. */
int source_marks(struct source *source, const void *payload, uint32_t bytes, struct err *err);

void source_moment(struct source *source, enum source_moment moment);
void source_send_progress(struct leg *leg);
void source_budget(struct leg *leg);

#endif
