/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The copy engine: from a live source to a sink, pass by pass.
 *
 * Within a pass the pieces do not overlap, and a pass ends with everything written and flushed: so there are never two
 * writes in flight to one place. A pass that failed has taken its log with it; there is none after it.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/disk/limit.h"
#include "agent/disk/sink_int.h"

#define COPY_PIECE_BYTES (1024u * 1024)
#define COPY_PIECE_GRANULES (COPY_PIECE_BYTES / DISK_GRANULE_BYTES)
#define COPY_BUFFERS 16       /* a window of full ones, and some that hang on a few granules */
#define COPY_ALIGN_BYTES 4096 /* a source may read with O_DIRECT */

struct copy_buffer {
	unsigned char *bytes; /* COPY_PIECE_BYTES */
	unsigned writes;      /* that still read from it */
};

struct disk_copy {
	struct disk_source *source;
	struct sink *sink;
	uint64_t size_bytes;
	struct disk_limit *limit;
	struct disk_copy_stats *stats;
	struct disk_digests digests;
	uint64_t zero_digest; /* of a whole granule of zeroes */
	_Atomic bool cancelled;
	bool broken;
	uint32_t pass;
	struct copy_buffer buffers[COPY_BUFFERS];
};

int disk_copy_new(struct disk_copy **ret_copy, struct disk_source *source, struct sink *sink, uint64_t size_bytes,
                  struct disk_limit *limit, struct disk_copy_stats *stats, struct err *err)
{
	struct disk_copy *copy = calloc(1, sizeof(*copy));
	unsigned char *zero = calloc(1, DISK_GRANULE_BYTES);
	if (!copy || !zero)
		goto no_memory;
	copy->source = source;
	copy->sink = sink;
	copy->size_bytes = size_bytes;
	copy->limit = limit;
	copy->stats = stats;
	size_t granules = (size_t)((size_bytes + DISK_GRANULE_BYTES - 1) / DISK_GRANULE_BYTES);
	copy->digests.granules = granules;
	copy->digests.digest = calloc(granules ? granules : 1, sizeof(uint64_t));
	copy->digests.touched = calloc(granules ? granules : 1, 1);
	if (!copy->digests.digest || !copy->digests.touched)
		goto no_memory;
	for (size_t i = 0; i < COPY_BUFFERS; i++) {
		void *bytes;
		if (posix_memalign(&bytes, COPY_ALIGN_BYTES, COPY_PIECE_BYTES) != 0)
			goto no_memory;
		copy->buffers[i].bytes = bytes;
	}
	copy->zero_digest = XXH3_64bits(zero, DISK_GRANULE_BYTES);
	/* what is never sent is a hole here, and an empty disk over there */
	for (size_t i = 0; i < granules; i++)
		copy->digests.digest[i] = copy->zero_digest;
	if (size_bytes % DISK_GRANULE_BYTES != 0)
		copy->digests.digest[granules - 1] = XXH3_64bits(zero, size_bytes % DISK_GRANULE_BYTES);
	free(zero);
	*ret_copy = copy;
	return 0;
no_memory:
	free(zero);
	disk_copy_free(copy);
	return err_set(err, ERR_NO_MEMORY, "no memory to copy a disk");
}

void disk_copy_free(struct disk_copy *copy)
{
	if (!copy)
		return;
	for (size_t i = 0; i < COPY_BUFFERS; i++)
		free(copy->buffers[i].bytes);
	free(copy->digests.digest);
	free(copy->digests.touched);
	free(copy);
}

const struct disk_digests *disk_copy_digests(const struct disk_copy *copy)
{
	return &copy->digests;
}

void disk_copy_cancel(struct disk_copy *copy)
{
	atomic_store(&copy->cancelled, true);
	sink_cancel(copy->sink);
	disk_source_cancel(copy->source);
}

static int check_cancelled(const struct disk_copy *copy, struct err *err)
{
	return atomic_load(&copy->cancelled) ? err_set(err, ERR_CANCELLED, "cancelled") : 0;
}

/* Widens the ranges to granules, sorts out overlaps, in place. The list comes in ascending order. */
static size_t merge(struct disk_range *ranges, size_t count, uint64_t size_bytes, uint64_t *ret_bytes)
{
	size_t n = 0;
	*ret_bytes = 0;
	for (size_t i = 0; i < count; i++) {
		uint64_t from = ranges[i].offset / DISK_GRANULE_BYTES * DISK_GRANULE_BYTES;
		uint64_t to = (ranges[i].offset + ranges[i].bytes + DISK_GRANULE_BYTES - 1) / DISK_GRANULE_BYTES *
		              DISK_GRANULE_BYTES;
		to = to > size_bytes ? size_bytes : to;
		if (from >= to)
			continue;
		if (n > 0 && from <= ranges[n - 1].offset + ranges[n - 1].bytes) {
			uint64_t end = ranges[n - 1].offset + ranges[n - 1].bytes;
			if (to > end)
				ranges[n - 1].bytes = to - ranges[n - 1].offset;
		} else {
			ranges[n++] = (struct disk_range) { from, to - from };
		}
	}
	for (size_t i = 0; i < n; i++)
		*ret_bytes += ranges[i].bytes;
	return n;
}

static void on_written(void *ctx, void *slot)
{
	struct copy_buffer *buffer = slot;
	(void)ctx;
	buffer->writes--;
}

static struct copy_buffer *take_buffer(struct disk_copy *copy, struct err *err)
{
	for (;;) {
		for (size_t i = 0; i < COPY_BUFFERS; i++)
			if (copy->buffers[i].writes == 0)
				return &copy->buffers[i];
		if (sink_wait(copy->sink, err) < 0)
			return NULL;
	}
}

static bool all_zero(const unsigned char *bytes, size_t count)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* Sends one run of granules of a kind. */
static int send_run(struct disk_copy *copy, struct copy_buffer *buffer, size_t at, uint64_t offset, size_t bytes,
                    bool zero, bool first, struct err *err)
{
	if (zero) {
		atomic_fetch_add(&copy->stats->zero_bytes, bytes);
		return first ? 0 : sink_zero(copy->sink, offset, bytes, err); /* a fresh disk is empty */
	}
	if (disk_limit_take_until(copy->limit, bytes, &copy->cancelled) < 0)
		return err_set(err, ERR_CANCELLED, "cancelled");
	buffer->writes++;
	if (sink_write(copy->sink, offset, buffer->bytes + at, bytes, on_written, NULL, buffer, err) < 0) {
		buffer->writes--;
		return -1;
	}
	atomic_fetch_add(&copy->stats->copied_bytes, bytes);
	return 0;
}

/* One piece of at most COPY_PIECE_BYTES that begins at a granule. */
static int copy_piece(struct disk_copy *copy, uint64_t offset, size_t bytes, bool first, struct err *err)
{
	bool zero[COPY_PIECE_GRANULES];
	size_t granules = (bytes + DISK_GRANULE_BYTES - 1) / DISK_GRANULE_BYTES;
	struct copy_buffer *buffer = take_buffer(copy, err);
	if (!buffer || check_cancelled(copy, err) < 0 ||
	    disk_source_read(copy->source, offset, buffer->bytes, bytes, err) < 0)
		return -1;
	for (size_t i = 0; i < granules; i++) {
		size_t at = i * DISK_GRANULE_BYTES, index = (size_t)(offset / DISK_GRANULE_BYTES) + i;
		size_t length = bytes - at < DISK_GRANULE_BYTES ? bytes - at : DISK_GRANULE_BYTES;
		zero[i] = all_zero(buffer->bytes + at, length);
		copy->digests.touched[index] = 1;
		copy->digests.digest[index] = zero[i] && length == DISK_GRANULE_BYTES
		                                      ? copy->zero_digest
		                                      : XXH3_64bits(buffer->bytes + at, length);
	}
	for (size_t i = 0, end; i < granules; i = end) {
		for (end = i + 1; end < granules && zero[end] == zero[i];)
			end++;
		size_t at = i * DISK_GRANULE_BYTES, to = end * DISK_GRANULE_BYTES;
		to = to > bytes ? bytes : to;
		if (send_run(copy, buffer, at, offset + at, to - at, zero[i], first, err) < 0)
			return -1;
	}
	atomic_fetch_sub(&copy->stats->left_bytes, bytes);
	return 0;
}

static int copy_ranges(struct disk_copy *copy, const struct disk_range *ranges, size_t count, bool first,
                       struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t done = 0;
		while (done < ranges[i].bytes) {
			uint64_t left = ranges[i].bytes - done;
			size_t now = left < COPY_PIECE_BYTES ? (size_t)left : COPY_PIECE_BYTES;
			if (copy_piece(copy, ranges[i].offset + done, now, first, err) < 0)
				return -1;
			done += now;
		}
	}
	return sink_flush(copy->sink, err);
}

int disk_copy_pass(struct disk_copy *copy, bool first, uint64_t *ret_sent, struct err *err)
{
	struct disk_range *ranges = NULL;
	size_t count = 0;
	uint64_t bytes = 0;
	int result;
	if (copy->broken)
		return err_set(err, ERR_INTERNAL, "an earlier pass has failed");
	if (check_cancelled(copy, err) < 0)
		return -1;
	if (first)
		result = disk_source_allocated(copy->source, &ranges, &count, err);
	else
		result = disk_source_swap(copy->source, &ranges, &count,
		                          err); /* if that failed, the source knows what is lost */
	if (result == 0) {
		copy->broken = true;
		memset(copy->digests.touched, 0, copy->digests.granules);
		count = merge(ranges, count, copy->size_bytes, &bytes);
		atomic_store(&copy->stats->left_bytes, bytes);
		atomic_store(&copy->stats->pass, first ? 0 : ++copy->pass);
		result = copy_ranges(copy, ranges, count, first, err);
	}
	free(ranges);
	if (result < 0 && atomic_load(&copy->cancelled))
		return err_set(err, ERR_CANCELLED, "cancelled");
	if (result < 0)
		return -1;
	copy->broken = false;
	*ret_sent = bytes;
	return 0;
}
