/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks: where they are kept (storage repository), how an empty one is offered to the source (exporter), how a live one
 * is read pass by pass (source), how it is written over there (sink), and the engine that copies from one to the other.
 *
 * Laws
 *  1. The guest's disk never depends on us: a leg that dies or hangs while it copies costs the guest nothing.
 *  2. What was written while it was read is in the next pass. Never two writes in flight to one place.
 *  3. The bitmap is swapped before the data is read (a bit is never lost, at worst a block is sent twice).
 *  4. Exporters listen on unix sockets or loopback only, one set of processes per migration, credentials per migration.
 *  5. Everything here can be interrupted within 200 ms: cancel functions may be called from any thread.
 */
#ifndef DROVER_DISK_H
#define DROVER_DISK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/hypervisor/hypervisor.h"
#include "common/err.h"
#include "common/proc.h"
#include "proto/msg.h"

#define DISK_GRANULE_BYTES 65536u /* bitmap granularity and digest extent */

/* What a granule of an earlier copy holds, told in 128 bits of XXH3 with a seed drawn for the comparison: here equal
 * means that nothing is sent, so it must mean equal (docs/STORAGE.md says why this is enough). */
struct disk_mark {
	uint64_t low, high;
};
struct disk_mark disk_mark_of(const void *bytes, size_t count, uint64_t seed);
#define DISK_MARKS_MAX 512u /* asked for at a time: 32 MiB of disk, 8 KiB of marks */

/* ---- storage repository: type dir ---- */
struct sr_config {
	char name[LIMIT_NAME];
	char type[LIMIT_NAME]; /* dir */
	char path[LIMIT_PATH];
	enum disk_format format; /* what new disks are made as */
};
/* Size and free bytes of the file system under the SR. */
int sr_space(const struct sr_config *sr, uint64_t *ret_size_bytes, uint64_t *ret_free_bytes, struct err *err);
/* The path a disk of this VM gets: PATH/UUID.DISK.MIGRATION.raw (or .qcow2); deterministic. */
int sr_disk_path(const struct sr_config *sr, const uuid_bytes uuid, const char *disk, uint64_t migration,
                 char ret_path[LIMIT_PATH], struct err *err);
/* A file of an SR that sr_disk_path(), sr_disk_make() or sr_reserve() named for a migration. */
struct sr_file {
	uuid_bytes uuid;
	char disk[LIMIT_NAME];
	uint64_t migration;   /* never 0: those are disks that no migration brought */
	bool reserve;         /* it only holds space */
	char image[LIMIT_ID]; /* name of the disk's own file, for which this one is or stands */
};
/* Whether `name`, without its directory, is one of those. Anything else is none of our business. */
bool sr_file_parse(const char *name, struct sr_file *ret_file);
/* Makes an empty disk (sparse raw, or qcow2 made by qemu-img). Idempotent. ERR_NO_SPACE, ERR_IO. */
int sr_disk_make(const struct sr_config *sr, const char *path, enum disk_format format, uint64_t size_bytes,
                 struct err *err);
/* Whether the file is there and such a disk, fit to be copied over: for qcow2 without backing file, data file,
 * snapshots and faults (leaked clusters are given back: qemu-img check, SR_IMAGE_TOOL_MS at most). What it holds is not
 * looked at. False: *err says why not. Blocks. */
bool sr_disk_fits(const char *path, enum disk_format format, uint64_t size_bytes, struct err *err);
/* Bytes that it takes of its file system; 0 if it is not there. */
uint64_t sr_disk_allocated(const char *path);
/* Removes it; done if it is gone. Syncs the directory. */
int sr_disk_remove(const char *path, struct err *err);
/* Really reserves `bytes` in the SR's file system with a file PATH.reserve (fallocate; statvfs check where the file
 * system cannot), to be shrunk as data comes in. */
int sr_reserve(const char *disk_path, uint64_t bytes, struct err *err);
int sr_reserve_shrink(const char *disk_path, uint64_t left_bytes, struct err *err);
int sr_reserve_remove(const char *disk_path, struct err *err);

/* ---- exporter (destination) ---- */
struct exporter_access { /* what the source's sink needs; travels over the legs' TLS connection only */
	enum exporter_kind kind;
	char export_name[LIMIT_ID]; /* NBD export name or iSCSI target name (IQN), made for this migration */
	char user[LIMIT_NAME], secret[LIMIT_NAME]; /* CHAP; empty for NBD */
	uint32_t lun;
	uint64_t size_bytes;
};
struct exporter;
/* Starts what is needed to offer the disk at `path` for writing, under the directory `dir` (exists, 0700): nbdkit (raw)
 * or qemu-nbd (qcow2) on a unix socket; or a tgtd of its own on 127.0.0.1 (for qcow2 over a FUSE export of a
 * qemu-storage-daemon). All processes die with the caller (PROC_DIE_WITH_US, which means the calling THREAD: it must
 * live as long as the exporter). Blocks until it accepts connections. */
int exporter_start(struct exporter **ret_exporter, enum exporter_kind kind, const char *dir, const char *path,
                   enum disk_format format, uint64_t size_bytes, const char *disk_name, uint64_t migration,
                   struct exporter_access *ret_access, struct err *err);
/* A new connected stream socket to the exporter (unix or loopback TCP), for the relay. The caller closes it. */
int exporter_connect(struct exporter *exporter, struct err *err);
/* Processes it runs, for pid files and the journal. Returns how many were put into ret_ids. */
unsigned exporter_processes(const struct exporter *exporter, struct proc_id *ret_ids, unsigned room);
/* Whether all its processes live. */
bool exporter_alive(const struct exporter *exporter);
/* XXH3-64 digests of granules as they are stored now, read back independently of the write path; granules[i] is an
 * index of DISK_GRANULE_BYTES, the last one of a disk may be short. */
int exporter_digests(struct exporter *exporter, const uint32_t *granules, size_t count, uint64_t *ret_digests,
                     struct err *err);
/* The same for `count` granules from `first` on, as marks (below). */
int exporter_marks(struct exporter *exporter, uint64_t seed, uint32_t first, uint32_t count,
                   struct disk_mark *ret_marks, struct err *err);
/* Fence (V4): the write path is closed for certain, everything written is on stable storage, no process of it is left.
 * The exporter is freed in any case; on failure the disk must not be used. */
int exporter_revoke(struct exporter *exporter, struct err *err);
/* Kills and frees, the disk is not wanted. */
void exporter_kill(struct exporter *exporter);
/* Before exporter_kill(), for a disk of which every byte is welcome that is there: ends the processes within
 * timeout_ms, a qcow2 image's QEMU by asking it to close the image, which would lack the mappings since the last flush.
 * Promises nothing. Others may still read through it, and fail. */
void exporter_end(struct exporter *exporter, unsigned timeout_ms);
/* Takes away what the exporter of a dead leg left in `dir`: sockets, logs, a FUSE mount. Its processes have died with
 * the leg. The directory itself stays. Idempotent; done if it is gone. */
int exporter_clean(const char *dir, struct err *err);

/* ---- sink (source): libnbd or libiscsi over a connected stream ---- */
struct sink;
/* `connect_fd` gives a fresh connected socket that leads to the exporter (through the legs' relay); the sink owns it.
 * For iSCSI the library wants to connect by itself: its socket is replaced by this one (see sink_iscsi.c). Blocks until
 * the exporter has let us in, SINK_CONNECT_MS at most; whoever breaks the connection that was given ends it earlier.
 * ERR_DENIED: the credentials are wrong. A sink is used by one thread at a time, but for sink_cancel. */
int sink_open(struct sink **ret_sink, const struct exporter_access *access,
              int (*connect_fd)(void *ctx, struct err *err), void *ctx, struct err *err);
/* Queues a write; `buffer` must stay valid until sink_flush or the returned slot comes back by on_done. Blocks while
 * the window is full. An error of an earlier write is reported by any later call. */
int sink_write(struct sink *sink, uint64_t offset, const void *buffer, size_t bytes,
               void (*on_done)(void *ctx, void *slot), void *ctx, void *slot, struct err *err);
/* Zeroes a range (unmapped where the receiver can). */
int sink_zero(struct sink *sink, uint64_t offset, uint64_t bytes, struct err *err);
/* All writes are done and on stable storage over there. */
int sink_flush(struct sink *sink, struct err *err);
void sink_cancel(struct sink *sink); /* any thread */
void sink_close(struct sink *sink);

/* ---- live source ---- */
struct disk_source;
struct disk_range {
	uint64_t offset, bytes;
};
/* Has the VM's own front-end flush: what the VM was told is written is then in the image file, where it is included.
 * Nobody else can flush a live image without draining it, which aborts QEMU 7.2 (docs/STORAGE.md). */
struct disk_flush {
	int (*run)(void *ctx, struct err *err); /* blocks; any thread */
	void *ctx;
};
/* Attaches to the disk's block backend over QMP and starts logging writes (bitmap named drover-MIGRATION-…). A raw
 * image is read through a second read-only open of the file, a qcow2 image by a qemu-nbd that is started anew for each
 * pass after a flush; the bitmap through a shadow node in the main thread: never an NBD export of the live node (it
 * aborts QEMU 7.2 when a client leaves). Leftovers of an earlier leg of the same migration are taken away first.
 * `flush` is needed for qcow2, NULL will do for raw. ERR_UNSUPPORTED: qcow2 with a backing file, or without `flush`. */
int disk_source_open(struct disk_source **ret_source, const struct hypervisor_disk *disk, uint64_t migration,
                     const struct disk_flush *flush, struct err *err);
/* Ranges to copy in pass 0: allocated and not known zero. malloc'ed list. */
int disk_source_allocated(struct disk_source *source, struct disk_range **ret_ranges, size_t *ret_count,
                          struct err *err);
/* Swaps the log (the new one begins before the old one ends; no QMP transaction, which would drain the guest's node);
 * gives what was written since the last swap. malloc'ed list. ERR_BUSY or ERR_UNREACHABLE from the monitor: nothing was
 * swapped, may be tried again; after any other failure the log is lost and every later swap fails. */
int disk_source_swap(struct disk_source *source, struct disk_range **ret_ranges, size_t *ret_count, struct err *err);
/* Bytes written since the last swap, without swapping. Any thread; waits while another one swaps. */
int disk_source_dirty(struct disk_source *source, uint64_t *ret_bytes, struct err *err);
int disk_source_read(struct disk_source *source, uint64_t offset, void *buffer, size_t bytes, struct err *err);
/* After the VM is suspended, before the last swap: every write that the guest was told is done is visible to reads. */
int disk_source_drain(struct disk_source *source, struct err *err);
/* Undoes the drain (QMP cont) for a VM that resumes. */
int disk_source_undrain(struct disk_source *source, struct err *err);
void disk_source_cancel(struct disk_source *source); /* any thread */
/* Takes away bitmaps, nodes and exports, and closes. */
int disk_source_close(struct disk_source *source, struct err *err);
/* Takes away what a dead leg of this migration left in the backend of this disk, drain included. Idempotent; done if
 * the backend is gone. */
int disk_source_clean(const struct hypervisor_disk *disk, uint64_t migration, struct err *err);
/* Migrations of which something is in the backend of this disk: bitmaps, nodes, exports called drover-MIGRATION-…; each
 * once, at most *count (in: room). Changes nothing. None if the backend is gone. */
int disk_source_find(const struct hypervisor_disk *disk, uint64_t *ret_migrations, unsigned *count, struct err *err);

/* ---- copy engine ---- */
struct disk_copy_stats {               /* read by other threads while a pass runs */
	_Atomic uint64_t copied_bytes; /* data sent, all passes */
	_Atomic uint64_t zero_bytes;   /* found zero and not sent as data, all passes */
	_Atomic uint64_t reused_bytes; /* the receiver had them already */
	_Atomic uint64_t left_bytes;   /* of the running pass */
	_Atomic uint32_t pass;
};
struct disk_limit; /* token bucket shared by all streams of a migration */
struct disk_limit *disk_limit_new(uint64_t bytes_per_second /* 0: none */);
void disk_limit_free(struct disk_limit *limit);
/* Waits until `bytes` may be sent; returns -1 at once when cancelled. Thread-safe. */
int disk_limit_take(struct disk_limit *limit, uint64_t bytes);
void disk_limit_cancel(struct disk_limit *limit);
/* After the switchover began nothing waits any more. */
void disk_limit_lift(struct disk_limit *limit);

struct disk_digests {           /* what was sent last, for each granule: XXH3-64 */
	uint64_t *digest;       /* one per granule */
	unsigned char *touched; /* sent in the pass that just ended: to be verified */
	size_t granules;
};
struct disk_copy;
int disk_copy_new(struct disk_copy **ret_copy, struct disk_source *source, struct sink *sink, uint64_t size_bytes,
                  struct disk_limit *limit, struct disk_copy_stats *stats, struct err *err);
/* What the receiver's disk holds before pass 0, where it is no empty one. */
struct disk_earlier {
	uint64_t seed;
	/* Marks of `count` granules (DISK_MARKS_MAX at most) from `first` on; asked for in ascending order, without
	 * gaps, by the thread that runs the pass. Blocks. */
	int (*marks)(void *ctx, uint32_t first, uint32_t count, struct disk_mark *ret_marks, struct err *err);
	void *ctx;
};
/* Before pass 0: only what differs is sent then, holes included. */
int disk_copy_earlier(struct disk_copy *copy, const struct disk_earlier *earlier, struct err *err);
/* Pass 0 (first: allocated ranges) or a later one (swap, then what was written), merged to at most 1 MiB, zeroes found;
 * ends with a flush at the receiver. *ret_sent: bytes of data and zeroes that the pass covered, less what was there. */
int disk_copy_pass(struct disk_copy *copy, bool first, uint64_t *ret_sent, struct err *err);
/* Digests of what went over; valid until the next pass. */
const struct disk_digests *disk_copy_digests(const struct disk_copy *copy);
void disk_copy_cancel(struct disk_copy *copy); /* any thread: the pass returns -1 with ERR_CANCELLED within 200 ms */
void disk_copy_free(struct disk_copy *copy);

#endif
