/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inside of hypervisor_sim: its objects, the format of its memory stream. Included by sim*.c only. */
#ifndef DROVER_SIM_DRIVER_H
#define DROVER_SIM_DRIVER_H

#include "agent/disk/wait.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/sim_record.h"

struct hypervisor {
	struct paths paths;
};

struct hypervisor_source {
	struct hypervisor *hv;
	struct sim_record record; /* as it was when it was opened */
	struct disk_cancel cancel;
};

struct hypervisor_dest {
	struct hypervisor *hv;
	struct sim_record record;
	struct disk_cancel cancel;
};

/*
 * The stream: frames of a head and, for two kinds, what follows it. Little-endian, as all hosts of the simulation are
 * (it is one machine). BEGIN, then rounds of PAGES and ZEROES, each closed by ROUND, then STATE and DIGEST, which is
 * the last.
 */
#define SIM_STREAM_VERSION 1u
#define SIM_PAGE_BYTES 4096u
#define SIM_RUN_PAGES 256u     /* pages in one frame: 1 MiB */
#define SIM_STATE_BYTES 32768u /* a state blob */

enum sim_frame_kind {
	SIM_FRAME_BEGIN = 1, /* count: version, value: memory bytes */
	SIM_FRAME_PAGES,     /* count pages from page `value` on, which follow */
	SIM_FRAME_ZEROES,    /* count pages from page `value` on are zero now; never in round 0: memory starts zero */
	SIM_FRAME_ROUND,     /* round `count` is over */
	SIM_FRAME_STATE,     /* count bytes of JSON follow, value: their XXH3-64 */
	SIM_FRAME_DIGEST,    /* value: XXH3-64 over the table of the hashes of all pages (zero pages: 0) */
};

struct sim_frame {
	uint32_t kind, count;
	uint64_t value;
};

/* XXH3-64 of a page, 0 if it is all zero. */
uint64_t sim_page_digest(const void *page);

/* The operations, as hypervisor.h describes them. */
int sim_source_open(struct hypervisor *hv, const uuid_bytes uuid, struct hypervisor_source **ret_source,
                    struct err *err);
void sim_source_close(struct hypervisor_source *source);
int sim_source_disks(struct hypervisor_source *source, struct hypervisor_disk *ret_disks, unsigned *count,
                     struct err *err);
int sim_source_send(struct hypervisor_source *source, const struct hypervisor_send *send, struct err *err);
void sim_source_cancel(struct hypervisor_source *source);
int sim_source_is_suspended(struct hypervisor_source *source, struct err *err);
int sim_source_resume(struct hypervisor_source *source, struct err *err);
int sim_source_flush(struct hypervisor_source *source, struct err *err);
int sim_source_throttle(struct hypervisor_source *source, unsigned percent, struct err *err);
/* The disks of a record, with their paths where its block backend runs (`backend`: else none). */
int sim_disks_of(struct hypervisor *hv, const struct sim_record *record, bool backend,
                 struct hypervisor_disk *ret_disks, struct err *err);
int sim_vms(struct hypervisor *hv, struct hypervisor_vm **ret_vms, size_t *ret_count, struct err *err);
int sim_destroy_end(struct hypervisor *hv, const uuid_bytes uuid, struct err *err);
int sim_source_destroy(struct hypervisor *hv, const uuid_bytes uuid, struct err *err);
int sim_dest_create(struct hypervisor *hv, const struct msg_plan *plan, uint64_t migration,
                    struct hypervisor_dest **ret_dest, struct err *err);
int sim_dest_find(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct hypervisor_dest **ret_dest,
                  struct err *err);
void sim_dest_close(struct hypervisor_dest *dest);
int sim_dest_receive(struct hypervisor_dest *dest, const struct hypervisor_receive *receive, struct err *err);
void sim_dest_cancel(struct hypervisor_dest *dest);
int sim_dest_attach(struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count,
                    struct err *err);
int sim_dest_unpause(struct hypervisor_dest *dest, struct err *err);
int sim_dest_state(struct hypervisor_dest *dest, struct err *err);
int sim_dest_adopt(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err);
int sim_dest_destroy(struct hypervisor *hv, const uuid_bytes uuid, uint64_t migration, struct err *err);

#endif
