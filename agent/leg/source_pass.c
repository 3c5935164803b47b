/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "agent/leg/source.h"
#include "common/log.h"

/* ---- digests ---- */
int source_digest_result(struct source *source, const struct frame_digest_result *result, struct err *err)
{
	if (result->disk >= source->disk_count)
		return err_set(err, ERR_PROTOCOL, "digests of disk %u, which there is not", result->disk);
	struct source_disk *disk = &source->disks[result->disk];
	int rc = 0;
	pthread_mutex_lock(&source->lock);
	if (disk->batches_back >= disk->batches_out) {
		rc = err_set(err, ERR_PROTOCOL, "result of digests that were not sent");
	} else {
		disk->batches_back++;
		if (result->bad && !disk->bad)
			disk->first_bad = result->first_bad;
		disk->bad += result->bad;
		pthread_cond_broadcast(&source->changed);
	}
	pthread_mutex_unlock(&source->lock);
	return rc;
}

static int send_batch(struct source_disk *disk, uint32_t count, struct err *err)
{
	struct source *source = disk->source;
	struct frame_digests batch = { .disk = disk->index,
		                       .batch = disk->batch++,
		                       .count = count,
		                       .granules = disk->granules,
		                       .digests = disk->digests };
	uint32_t bytes = frame_digests_put(disk->payload, &batch);
	pthread_mutex_lock(&source->lock);
	disk->batches_out++;
	pthread_mutex_unlock(&source->lock);
	return link_send(source->link, FRAME_DIGESTS, disk->payload, bytes, source->leg->work, err);
}

static int await_results(struct source_disk *disk, struct err *err)
{
	struct source *source = disk->source;
	int rc = 0;
	pthread_mutex_lock(&source->lock);
	while (disk->batches_back < disk->batches_out && !cancel_fired(source->leg->work))
		pthread_cond_wait(&source->changed, &source->lock);
	if (disk->bad)
		rc = err_set(err, ERR_CORRUPT,
		             "disk %s: %u granules at the destination are not what was sent (first: %u)", disk->hv.name,
		             disk->bad, disk->first_bad);
	else if (disk->batches_back < disk->batches_out)
		rc = err_set(err, ERR_CANCELLED, "cancelled");
	pthread_mutex_unlock(&source->lock);
	return rc;
}

/* What the pass touched is read back over there and compared, before the next pass may write it again. */
static int verify(struct source_disk *disk, struct err *err)
{
	const struct disk_digests *digests = disk_copy_digests(disk->copy);
	uint32_t count = 0;
	for (size_t i = 0; i < digests->granules; i++) {
		if (!digests->touched[i])
			continue;
		disk->granules[count] = (uint32_t)i;
		disk->digests[count++] = digests->digest[i];
		if (count == FRAME_DIGESTS_MAX) {
			if (send_batch(disk, count, err))
				return -1;
			count = 0;
		}
	}
	if (count && send_batch(disk, count, err))
		return -1;
	return await_results(disk, err);
}

/* ---- passes ---- */
static int one_pass(struct source_disk *disk, struct err *err)
{
	if (disk->final) {
		disk->drained = true; /* even if it fails: undone in any case */
		if (disk_source_drain(disk->live, err))
			return err_wrap(err, "disk %s: drain", disk->hv.name);
	}
	if (disk_copy_pass(disk->copy, disk->first, &disk->sent_bytes, err))
		return err_wrap(err, "disk %s: pass %u", disk->hv.name, disk->pass);
	unsigned char payload[32];
	struct frame_pass_end pass_end = { disk->index, disk->pass, disk->sent_bytes };
	if (link_send(disk->source->link, FRAME_PASS_END, payload, frame_pass_end_put(payload, &pass_end),
	              disk->source->leg->work, err) ||
	    verify(disk, err))
		return -1;
	log_debug("event=disk-pass disk=%s pass=%u bytes=%llu", disk->hv.name, disk->pass,
	          (unsigned long long)disk->sent_bytes);
	disk->pass++;
	return 0;
}

static void *pass_main(void *arg)
{
	struct source_disk *disk = arg;
	struct err err = { 0 };
	disk->rc = one_pass(disk, &err);
	if (disk->rc) /* at once, so that the others end too */
		leg_post_fail(disk->source->leg, &err);
	return NULL;
}

void source_pass_begin(struct source *source, bool first, bool final)
{
	for (unsigned i = 0; i < source->disk_count; i++) {
		struct source_disk *disk = &source->disks[i];
		disk->started = false;
		disk->rc = 0;
		disk->sent_bytes = 0;
		if (disk->hv.read_only && !first)
			continue;
		disk->first = first;
		disk->final = final;
		if (pthread_create(&disk->thread, NULL, pass_main, disk) == 0)
			disk->started = true;
		else
			pass_main(disk); /* slower, not wrong */
	}
}

int source_pass_end(struct source *source, uint64_t *ret_sent_bytes, struct err *err)
{
	int rc = 0;
	uint64_t sent_bytes = 0;
	for (unsigned i = 0; i < source->disk_count; i++) {
		struct source_disk *disk = &source->disks[i];
		if (disk->started)
			pthread_join(disk->thread, NULL);
		disk->started = false;
		sent_bytes += disk->sent_bytes;
		if (disk->rc)
			rc = -1;
	}
	*ret_sent_bytes = sent_bytes;
	/* Whose error was first is known to the main thread, to whom each was posted. */
	return rc ? err_set(err, ERR_CANCELLED, "a disk could not be copied") : 0;
}

int source_pass(struct source *source, bool first, bool final, uint64_t *ret_sent_bytes, struct err *err)
{
	source_pass_begin(source, first, final);
	return source_pass_end(source, ret_sent_bytes, err);
}

int source_dirty(struct source *source, uint64_t *ret_bytes, struct err *err)
{
	uint64_t all = 0;
	for (unsigned i = 0; i < source->disk_count; i++) {
		struct source_disk *disk = &source->disks[i];
		uint64_t bytes = 0;
		if (disk->hv.read_only)
			continue;
		if (disk_source_dirty(disk->live, &bytes, err))
			return -1;
		atomic_store(&disk->dirty_bytes, bytes);
		all += bytes;
	}
	*ret_bytes = all;
	return 0;
}
