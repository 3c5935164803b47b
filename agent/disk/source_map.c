/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is to be read: holes of a file, bits of a bitmap. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/disk/source_int.h"

#define MAP_QUERY_BYTES (1u << 30) /* asked for at a time: block status lengths have 32 bits on the wire */
#define MAP_QUERY_MS 30000
#define MAP_RANGES_START 64u

int source_ranges_add(struct source_ranges *ranges, uint64_t offset, uint64_t bytes, uint64_t gap, struct err *err)
{
	if (bytes == 0)
		return 0;
	if (ranges->count > 0) {
		struct disk_range *last = &ranges->list[ranges->count - 1];
		if (offset >= last->offset && offset <= last->offset + last->bytes + gap) {
			uint64_t end = offset + bytes, last_end = last->offset + last->bytes;
			last->bytes = (end > last_end ? end : last_end) - last->offset;
			return 0;
		}
	}
	if (ranges->count == ranges->room) {
		size_t room = ranges->room ? ranges->room * 2 : MAP_RANGES_START;
		struct disk_range *bigger = reallocarray(ranges->list, room, sizeof(*bigger));
		if (!bigger)
			return err_set(err, ERR_NO_MEMORY, "no memory for %zu ranges", room);
		ranges->list = bigger;
		ranges->room = room;
	}
	ranges->list[ranges->count++] = (struct disk_range) { offset, bytes };
	return 0;
}

int source_map_file(int fd, uint64_t size_bytes, struct source_ranges *ranges, struct err *err)
{
	off_t at = 0;
	while ((uint64_t)at < size_bytes) {
		off_t data = lseek(fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			return 0;
		if (data < 0 && at == 0 && (errno == EINVAL || errno == EOPNOTSUPP)) /* a block device */
			return source_ranges_add(ranges, 0, size_bytes, 0, err);
		off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return err_errno(err, ERR_IO, errno, "look for holes");
		if ((uint64_t)data >= size_bytes)
			return 0;
		uint64_t end = (uint64_t)hole > size_bytes ? size_bytes : (uint64_t)hole;
		if (source_ranges_add(ranges, (uint64_t)data, end - (uint64_t)data, DISK_GRANULE_BYTES, err) < 0)
			return -1;
		at = hole;
	}
	return 0;
}

/* What the extent callback collects. */
struct map_query {
	struct source_ranges *ranges;
	const char *context;
	uint32_t mask, value;
	uint64_t gap;
	uint64_t at, size_bytes; /* `at`: all before it is known */
	bool failed;
	struct err err;
};

static int on_extents(void *ctx, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
	struct map_query *query = ctx;
	(void)error;
	if (strcmp(context, query->context) != 0 || offset != query->at)
		return 0;
	for (size_t i = 0; i + 1 < count && !query->failed; i += 2) {
		uint64_t bytes = entries[i];
		if (bytes > query->size_bytes - query->at)
			bytes = query->size_bytes - query->at;
		if ((entries[i + 1] & query->mask) == query->value &&
		    source_ranges_add(query->ranges, query->at, bytes, query->gap, &query->err) < 0)
			query->failed = true;
		query->at += bytes;
	}
	return 0;
}

int source_map_query(struct nbd_handle *nbd, const char *context, uint32_t mask, uint32_t value, uint64_t size_bytes,
                     uint64_t gap, const struct disk_cancel *cancel, struct source_ranges *ranges, struct err *err)
{
	struct map_query query = {
		.ranges = ranges, .context = context, .mask = mask, .value = value, .gap = gap, .size_bytes = size_bytes
	};
	int can = nbd_can_meta_context(nbd, context);
	int64_t size = nbd_get_size(nbd);
	if (can <= 0)
		return err_set(err, ERR_BACKEND, "%s is not offered", context);
	if (size < 0 || (uint64_t)size < size_bytes)
		return err_set(err, ERR_BACKEND, "it is shorter than the disk");
	while (query.at < size_bytes) {
		uint64_t before = query.at, left = size_bytes - before;
		uint64_t ask = left > MAP_QUERY_BYTES ? MAP_QUERY_BYTES : left;
		nbd_extent_callback callback = { .callback = on_extents, .user_data = &query };
		int64_t cookie = nbd_aio_block_status(nbd, ask, before, callback, NBD_NULL_COMPLETION, 0);
		if (nbdio_finish(nbd, cookie, cancel, disk_now_ms() + MAP_QUERY_MS, err) < 0)
			return -1;
		if (query.failed)
			return err_set(err, query.err.code, "%s", query.err.text);
		if (query.at == before)
			return err_set(err, ERR_BACKEND, "nothing is said about offset %" PRIu64, before);
	}
	return 0;
}

int source_map_bitmap(const char *socket, const char *export_name, const char *bitmap, uint64_t size_bytes,
                      const struct disk_cancel *cancel, struct source_ranges *ranges, struct err *err)
{
	char context[128];
	struct nbd_handle *nbd = NULL;
	struct err why = { 0 };
	snprintf(context, sizeof(context), "qemu:dirty-bitmap:%s", bitmap);
	int result = nbdio_open_unix(&nbd, socket, export_name, context, cancel, &why);
	if (result == 0)
		result = source_map_query(nbd, context, 1, 1, size_bytes, 0, cancel, ranges, &why);
	nbdio_close(nbd);
	if (result < 0) {
		bool keep = why.code == ERR_CANCELLED || why.code == ERR_NO_MEMORY;
		return err_set(err, keep ? why.code : ERR_BACKEND, "read bitmap: %.400s", why.text);
	}
	return 0;
}
