/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies that outlive the attempt that made them. An abort keeps them (the journal says for how long); the next attempt
 * takes them over, compares every granule with the source (disk_copy_earlier) and sends what differs. From then on such
 * a disk is like a fresh one: written, read back, flushed, fenced and attached by the same code.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/leg/dest.h"
#include "common/clock.h"
#include "common/log.h"

#define KEEP_WORTH_BYTES (1u << 20) /* less than this is copied sooner than it is compared */

int dest_keep_find(struct dest *dest, unsigned i, struct err *err)
{
	struct leg *leg = dest->leg;
	struct dest_disk *disk = &dest->disks[i];
	struct journal_resource kept;
	struct err why = { 0 };
	int found = leg_kept_take(leg, i, &kept, err);
	if (found <= 0)
		return found;
	if (!sr_disk_fits(kept.path, leg->plan->to[i].format, leg->plan->vm.disks[i].size_bytes, &why)) {
		log_warning("event=kept-disk-unfit migration=%" PRIu64 " disk=%s path=%s error=\"%s\"",
		            leg->options.migration, kept.name, kept.path, why.text);
		kept.state = RESOURCE_KEPT;
		return leg_resource_update(leg, &kept, err);
	}
	log_notice("event=kept-disk-taken migration=%" PRIu64 " disk=%s kind=%s path=%s", leg->options.migration,
	           kept.name, resource_kind_name(kept.kind), kept.path);
	memcpy(disk->path, kept.path, sizeof(disk->path));
	disk->earlier = true;
	return 0;
}

int dest_keep_spoil(struct dest *dest, struct err *err)
{
	struct leg *leg = dest->leg;
	struct journal_resource *list = NULL;
	size_t count = 0;
	int rc = leg_resource_list(leg, &list, &count, err);
	for (size_t i = 0; i < count && !rc; i++) {
		if (list[i].kind != RESOURCE_SOURCE_DISK)
			continue;
		list[i].kind = RESOURCE_DISK;
		rc = leg_resource_update(leg, &list[i], err);
	}
	free(list);
	return rc;
}

uint64_t dest_keep_until(const struct leg *leg, const struct journal_resource *disk)
{
	bool is_disk = disk->kind == RESOURCE_DISK || disk->kind == RESOURCE_SOURCE_DISK;
	/* Half made is not worth looking at. What was kept before is not kept for less. */
	if (leg->options.side != SIDE_DESTINATION || !is_disk || disk->state == RESOURCE_INTENT)
		return 0;
	uint64_t until_ms = disk->kept_until_wall_ms;
	/* Where the space was what failed, keeping it would make others fail. */
	if (disk->kind == RESOURCE_SOURCE_DISK || !leg->plan || !leg->plan->keep_copy_s ||
	    leg->cause.code == ERR_NO_SPACE || sr_disk_allocated(disk->path) < KEEP_WORTH_BYTES)
		return until_ms;
	uint64_t fresh_ms = (uint64_t)clock_real.wall_ms(&clock_real) + leg->plan->keep_copy_s * 1000;
	return fresh_ms > until_ms ? fresh_ms : until_ms;
}
