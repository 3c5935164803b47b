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

static const unsigned char zero_granule[DISK_GRANULE_BYTES];

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
	/* a receiver that is not empty; first pass only */
	struct disk_earlier earlier; /* marks NULL: it is empty */
	struct disk_mark zero_mark;  /* of a whole granule of zeroes */
	struct disk_mark *marks;     /* DISK_MARKS_MAX, from granule marks_first on */
	uint64_t marks_first;
	uint64_t pass_reused_bytes;
	struct copy_buffer buffers[COPY_BUFFERS];
};

int disk_copy_new(struct disk_copy **ret_copy, struct disk_source *source, struct sink *sink, uint64_t size_bytes,
                  struct disk_limit *limit, struct disk_copy_stats *stats, struct err *err)
{
	struct disk_copy *copy = calloc(1, sizeof(*copy));
	if (!copy)
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
	copy->zero_digest = XXH3_64bits(zero_granule, DISK_GRANULE_BYTES);
	/* what is never sent is a hole here, and an empty disk over there */
	for (size_t i = 0; i < granules; i++)
		copy->digests.digest[i] = copy->zero_digest;
	if (size_bytes % DISK_GRANULE_BYTES != 0)
		copy->digests.digest[granules - 1] = XXH3_64bits(zero_granule, size_bytes % DISK_GRANULE_BYTES);
	*ret_copy = copy;
	return 0;
no_memory:
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
	free(copy->marks);
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

/* ---- granules ---- */
enum granule_kind {
	GRANULE_DATA = 0,
	GRANULE_ZERO,   /* to be zeroed over there */
	GRANULE_EMPTY,  /* zero, and it is over there */
	GRANULE_REUSED, /* data, and it is over there */
};

static struct disk_mark zero_mark(const struct disk_copy *copy, size_t bytes)
{
	return bytes == DISK_GRANULE_BYTES ? copy->zero_mark : disk_mark_of(zero_granule, bytes, copy->earlier.seed);
}

static bool same_mark(const struct disk_mark *a, const struct disk_mark *b)
{
	return a->low == b->low && a->high == b->high;
}

/* Looks at one granule that was read, and notes its digest. */
static enum granule_kind look(struct disk_copy *copy, const unsigned char *bytes, size_t count, size_t index,
                              bool first)
{
	bool zero = all_zero(bytes, count), over = first && copy->earlier.marks;
	copy->digests.touched[index] = 1;
	copy->digests.digest[index] =
		zero && count == DISK_GRANULE_BYTES ? copy->zero_digest : XXH3_64bits(bytes, count);
	if (over) {
		struct disk_mark mark = zero ? zero_mark(copy, count) : disk_mark_of(bytes, count, copy->earlier.seed);
		if (same_mark(&mark, &copy->marks[index - copy->marks_first])) {
			copy->digests.touched[index] = 0; /* it has been read back and compared just now */
			return zero ? GRANULE_EMPTY : GRANULE_REUSED;
		}
	}
	if (!zero)
		return GRANULE_DATA;
	return first && !over ? GRANULE_EMPTY : GRANULE_ZERO; /* a fresh disk is empty */
}

/* Sends one run of granules of a kind. */
static int send_run(struct disk_copy *copy, struct copy_buffer *buffer, size_t at, uint64_t offset, size_t bytes,
                    enum granule_kind kind, struct err *err)
{
	switch (kind) {
	case GRANULE_ZERO:
	case GRANULE_EMPTY:
		atomic_fetch_add(&copy->stats->zero_bytes, bytes);
		return kind == GRANULE_ZERO ? sink_zero(copy->sink, offset, bytes, err) : 0;
	case GRANULE_REUSED:
		atomic_fetch_add(&copy->stats->reused_bytes, bytes);
		copy->pass_reused_bytes += bytes;
		return 0;
	case GRANULE_DATA:
		break;
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
	enum granule_kind kind[COPY_PIECE_GRANULES];
	size_t granules = (bytes + DISK_GRANULE_BYTES - 1) / DISK_GRANULE_BYTES;
	struct copy_buffer *buffer = take_buffer(copy, err);
	if (!buffer || check_cancelled(copy, err) < 0 ||
	    disk_source_read(copy->source, offset, buffer->bytes, bytes, err) < 0)
		return -1;
	for (size_t i = 0; i < granules; i++) {
		size_t at = i * DISK_GRANULE_BYTES, index = (size_t)(offset / DISK_GRANULE_BYTES) + i;
		size_t length = bytes - at < DISK_GRANULE_BYTES ? bytes - at : DISK_GRANULE_BYTES;
		kind[i] = look(copy, buffer->bytes + at, length, index, first);
	}
	for (size_t i = 0, end; i < granules; i = end) {
		for (end = i + 1; end < granules && kind[end] == kind[i];)
			end++;
		size_t at = i * DISK_GRANULE_BYTES, to = end * DISK_GRANULE_BYTES;
		to = to > bytes ? bytes : to;
		if (send_run(copy, buffer, at, offset + at, to - at, kind[i], err) < 0)
			return -1;
	}
	atomic_fetch_sub(&copy->stats->left_bytes, bytes);
	return 0;
}

static int copy_range(struct disk_copy *copy, uint64_t from, uint64_t to, bool first, struct err *err)
{
	while (from < to) {
		size_t now = to - from < COPY_PIECE_BYTES ? (size_t)(to - from) : COPY_PIECE_BYTES;
		if (copy_piece(copy, from, now, first, err) < 0)
			return -1;
		from += now;
	}
	return 0;
}

/* Whether the receiver has zeroes in the granule at `offset`; *ret_end is where that ends, at most `to`. */
static bool is_zero_there(const struct disk_copy *copy, uint64_t offset, uint64_t to, uint64_t *ret_end)
{
	size_t index = (size_t)(offset / DISK_GRANULE_BYTES);
	uint64_t end = offset + DISK_GRANULE_BYTES;
	*ret_end = end < to ? end : to;
	struct disk_mark zero = zero_mark(copy, (size_t)(*ret_end - offset));
	return same_mark(&zero, &copy->marks[index - copy->marks_first]);
}

/* A hole here: what an earlier copy has there is zeroed. */
static int copy_hole(struct disk_copy *copy, uint64_t from, uint64_t to, struct err *err)
{
	uint64_t end;
	for (; from < to; from = end) {
		if (check_cancelled(copy, err) < 0)
			return -1;
		if (is_zero_there(copy, from, to, &end))
			continue;
		for (uint64_t more = end; end < to && !is_zero_there(copy, end, to, &more); end = more)
			;
		memset(copy->digests.touched + from / DISK_GRANULE_BYTES, 1,
		       (size_t)((end - from + DISK_GRANULE_BYTES - 1) / DISK_GRANULE_BYTES));
		atomic_fetch_add(&copy->stats->zero_bytes, end - from);
		if (sink_zero(copy->sink, from, end - from, err) < 0)
			return -1;
	}
	return 0;
}

/* Pass 0 onto a disk that is not empty: all of it is looked at, in windows of marks. */
static int copy_over(struct disk_copy *copy, const struct disk_range *ranges, size_t count, struct err *err)
{
	size_t next = 0;
	for (uint64_t first = 0; first < copy->digests.granules; first += DISK_MARKS_MAX) {
		uint64_t left = copy->digests.granules - first, at = first * DISK_GRANULE_BYTES;
		uint32_t window = left < DISK_MARKS_MAX ? (uint32_t)left : DISK_MARKS_MAX;
		uint64_t to = at + (uint64_t)window * DISK_GRANULE_BYTES;
		to = to > copy->size_bytes ? copy->size_bytes : to;
		copy->marks_first = first;
		if (copy->earlier.marks(copy->earlier.ctx, (uint32_t)first, window, copy->marks, err) < 0)
			return -1;
		while (at < to) {
			while (next < count && ranges[next].offset + ranges[next].bytes <= at)
				next++;
			uint64_t data = next < count && ranges[next].offset < to ? ranges[next].offset : to;
			uint64_t end = data;
			if (data <= at && next < count)
				end = ranges[next].offset + ranges[next].bytes;
			end = end > to ? to : end;
			if ((data > at ? copy_hole(copy, at, end, err) : copy_range(copy, at, end, true, err)) < 0)
				return -1;
			at = end;
		}
	}
	return 0;
}

int disk_copy_earlier(struct disk_copy *copy, const struct disk_earlier *earlier, struct err *err)
{
	copy->marks = calloc(DISK_MARKS_MAX, sizeof(*copy->marks));
	if (!copy->marks)
		return err_set(err, ERR_NO_MEMORY, "no memory to compare a disk");
	copy->earlier = *earlier;
	copy->zero_mark = disk_mark_of(zero_granule, DISK_GRANULE_BYTES, earlier->seed);
	return 0;
}

static int copy_ranges(struct disk_copy *copy, const struct disk_range *ranges, size_t count, bool first,
                       struct err *err)
{
	int result = 0;
	if (first && copy->earlier.marks)
		result = copy_over(copy, ranges, count, err);
	else
		for (size_t i = 0; i < count && result == 0; i++)
			result = copy_range(copy, ranges[i].offset, ranges[i].offset + ranges[i].bytes, first, err);
	return result == 0 ? sink_flush(copy->sink, err) : -1;
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
		copy->pass_reused_bytes = 0;
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
	*ret_sent = bytes - copy->pass_reused_bytes;
	return 0;
}
