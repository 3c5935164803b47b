/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The destination side of a leg: dest.c (making, activating, taking away, letting go), dest_keep.c (what an earlier
 * attempt left, what this one leaves), dest_copy.c (from the first connection to a complete copy).
 *
 * Threads: the conductor owns everything and receives the memory; stream 0's reader fills the ring and the queue of
 * digests; the verifier reads back; the relays' threads ask for connections to exporters; the main thread looks whether
 * they live.
 */
#ifndef DROVER_LEG_DEST_H
#define DROVER_LEG_DEST_H

#include "agent/leg/leg.h"
#include "agent/leg/relay.h"
#include "agent/leg/ring.h"

#define DEST_EXPORTER_PROCESSES 8 /* of one disk, as far as the journal's note can tell */
#define DEST_BATCHES_MAX 8        /* digests that wait; stream 0 is not read meanwhile */

struct dest_disk {
	struct exporter *exporter; /* under dest->lock while others may use it; NULL: fenced */
	struct exporter_access access;
	char path[LIMIT_PATH];
	bool earlier;           /* it holds an earlier copy */
	uint64_t reserve_bytes; /* under dest->lock, as are the next two */
	uint64_t arrived_bytes, shrunk_at_bytes;
	struct err fence_error;
	struct exporter *to_fence;
	struct proc_id processes[DEST_EXPORTER_PROCESSES]; /* of the exporter; not changed once it is started */
	unsigned process_count;
	bool closes;         /* its image is to be closed by the last of these, as the copy may be kept */
	atomic_bool fencing; /* that is waited for, without a limit that an abort could wait for */
};

/* Digests to be compared, or a question for marks. */
struct dest_batch {
	struct frame_digests digests;
	uint64_t *stored;         /* what is there */
	struct frame_marks marks; /* count 0: digests */
};

struct dest {
	struct leg *leg;
	struct hypervisor_dest *vm;
	unsigned disk_count;
	struct dest_disk disks[LIMIT_DISKS];
	uint64_t seed; /* of marks */
	int listen_fd;
	struct relays *relays;
	struct link *link; /* under lock; the verifier's reference */
	struct ring *ring;
	unsigned unpause_tries;
	bool giving_back; /* it is journaled that the VM never ran and is being destroyed: it is not unpaused any more
	                   */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool link_taken, link_up;
	bool ended; /* the end of stream came */
	uint64_t memory_received, memory_announced;
	bool verifying, verifier_runs, verifier_stop;
	unsigned batch_first, batch_count;
	struct dest_batch *batches[DEST_BATCHES_MAX];
	pthread_t verifier;
};

int dest_copy(struct leg *leg, struct err *err);

/* ---- dest_keep.c: conductor ---- */
/* Takes over what an earlier attempt kept of this disk, if there is something that fits: disk->path is it then, and
 * disk->earlier is set. What it holds is compared before it counts. */
int dest_keep_find(struct dest *dest, unsigned i, struct err *err);
/* Before the first write: what was taken over is not a whole disk of its own any more. */
int dest_keep_spoil(struct dest *dest, struct err *err);
/* Until when (Unix time) a disk of this session is kept after an abort, so that the next attempt can go on with it;
 * 0: it is taken away. Any thread. */
uint64_t dest_keep_until(const struct leg *leg, const struct journal_resource *disk);

/* Ends all threads and connections of the copy; leg->work has been fired. */
void dest_copy_end(struct dest *dest);
/* For cancel_add: whoever waits looks again. */
void dest_wake(void *dest);

#endif
