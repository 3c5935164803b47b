/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An earlier copy at the destination: its marks are asked for window by window, one ahead of what is compared. */
#include <stdlib.h>
#include <string.h>

#include "agent/leg/source.h"

static uint32_t window_count(const struct source_disk *disk, uint32_t window)
{
	uint64_t granules = (disk->hv.size_bytes + DISK_GRANULE_BYTES - 1) / DISK_GRANULE_BYTES;
	uint64_t first = (uint64_t)window * DISK_MARKS_MAX;
	if (first >= granules)
		return 0;
	return granules - first < DISK_MARKS_MAX ? (uint32_t)(granules - first) : DISK_MARKS_MAX;
}

/* In the disk's thread. Past the end, or asked for already: nothing. */
static int ask(struct source_disk *disk, uint32_t window, struct err *err)
{
	struct source *source = disk->source;
	unsigned char payload[32];
	struct frame_marks question = { .disk = disk->index,
		                        .first = window * DISK_MARKS_MAX,
		                        .count = window_count(disk, window) };
	if (question.count == 0 || window < disk->windows_out)
		return 0;
	pthread_mutex_lock(&source->lock);
	disk->windows_out++;
	pthread_mutex_unlock(&source->lock);
	return link_send(source->link, FRAME_ASK_MARKS, payload, frame_marks_put(payload, &question), source->leg->work,
	                 err);
}

static int get_marks(void *ctx, uint32_t first, uint32_t count, struct disk_mark *ret_marks, struct err *err)
{
	struct source_disk *disk = ctx;
	struct source *source = disk->source;
	uint32_t window = first / DISK_MARKS_MAX;
	int rc = 0;
	if (ask(disk, window, err) || ask(disk, window + 1, err))
		return -1;
	pthread_mutex_lock(&source->lock);
	while (disk->windows_back <= window && !cancel_fired(source->leg->work))
		pthread_cond_wait(&source->changed, &source->lock);
	if (disk->windows_back <= window)
		rc = err_set(err, ERR_CANCELLED, "cancelled");
	else
		memcpy(ret_marks, disk->marks[window % 2], count * sizeof(*ret_marks));
	pthread_mutex_unlock(&source->lock);
	return rc;
}

int source_earlier(struct source_disk *disk, uint64_t seed, struct err *err)
{
	const struct disk_earlier earlier = { seed, get_marks, disk };
	for (unsigned i = 0; i < 2; i++) {
		disk->marks[i] = calloc(DISK_MARKS_MAX, sizeof(*disk->marks[i]));
		if (!disk->marks[i])
			return err_set(err, ERR_NO_MEMORY, "disk %s: marks", disk->hv.name);
	}
	return disk_copy_earlier(disk->copy, &earlier, err);
}

static int take_marks(struct source *source, const struct frame_marks *marks, struct err *err)
{
	struct source_disk *disk = marks->disk < source->disk_count ? &source->disks[marks->disk] : NULL;
	int rc = 0;
	pthread_mutex_lock(&source->lock);
	if (!disk || disk->windows_back >= disk->windows_out)
		rc = err_set(err, ERR_PROTOCOL, "marks of disk %u that were not asked for", marks->disk);
	else if (marks->first != disk->windows_back * DISK_MARKS_MAX ||
	         marks->count != window_count(disk, disk->windows_back))
		rc = err_set(err, ERR_PROTOCOL, "marks of other granules than were asked for");
	if (!rc) {
		memcpy(disk->marks[disk->windows_back++ % 2], marks->marks, marks->count * sizeof(*marks->marks));
		pthread_cond_broadcast(&source->changed);
	}
	pthread_mutex_unlock(&source->lock);
	return rc;
}

int source_marks(struct source *source, const void *payload, uint32_t bytes, struct err *err)
{
	struct frame_marks marks = { .marks = malloc(DISK_MARKS_MAX * sizeof(*marks.marks)) };
	int rc = -1;
	if (!marks.marks)
		return err_set(err, ERR_NO_MEMORY, "marks");
	if (frame_marks_get(payload, bytes, &marks, err) == 0)
		rc = take_marks(source, &marks, err);
	free(marks.marks);
	return rc;
}
