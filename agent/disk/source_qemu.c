/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A live disk whose block backend is QEMU (or qemu-storage-daemon) 7.2.
 *
 * Data of a raw image are read with pread from a second open of the file, through the same page cache. The write log is
 * a dirty bitmap on the guest's node. That node lives in an iothread, which forbids two things that work elsewhere:
 *  - an NBD export of it: QEMU aborts when a client leaves. So the bitmap is merged into one on a null-co node in the
 * main thread, the shadow, and that one is exported;
 *  - draining it while the guest's own connection is an NBD one (the simulation's): QEMU aborts sooner or later. A QMP
 *    `transaction` drains every node, so the log is swapped by two plain commands: first the new bitmap begins, then
 * the old one ends. A write between the two is in both, and is sent twice; none is lost. QEMU sets the bits when a
 * write completes, so what the old bitmap holds is in the file by then.
 *
 * Data of a qcow2 image: its mapping lives in QEMU until it is flushed, and a second reader sees the file only. What
 * would flush it from outside drains the live node (blockdev-reopen, any job) or takes a parent of it away again (a
 * FUSE export, which moves the node out of its iothread): each of them aborted qemu-storage-daemon 7.2 under a writing
 * guest. So the VM's own front-end flushes, after each swap, and the image is read by a reader that is opened after
 * that: see source_reader.c for why that is enough.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/disk/source_int.h"

#define SOURCE_DIRECT_ALIGN 4096u /* O_DIRECT */
#define SOURCE_BOUNCE_BYTES (1024u * 1024)

struct disk_source {
	struct hypervisor_disk disk;
	struct source_names names;
	struct disk_cancel cancel;
	struct disk_flush flush;     /* qcow2 */
	struct source_reader reader; /* qcow2 */
	bool direct;                 /* the backend bypasses the page cache, so we must too */
	int fd;                      /* raw: the image file, read only */
	void *bounce;                /* raw with O_DIRECT only */
	/* The bitmap that records now is PREFIXsequence. Changed only while the monitor is held, so that who holds it
	 * sees the name that is true, in another thread too. */
	_Atomic unsigned sequence;
	bool broken; /* a swap failed half-way: the log is not known to be whole */
};

static void bitmap_name(const struct disk_source *source, unsigned sequence, char ret_name[64])
{
	snprintf(ret_name, 64, "%s%u", source->names.prefix, sequence);
}

static int bitmap_add(struct qmp *qmp, const char *node, const char *name, bool disabled, struct err *err)
{
	return qmp_run(qmp, "block-dirty-bitmap-add",
	               json_pack("{s:s, s:s, s:i, s:b}", "node", node, "name", name, "granularity",
	                         (int)DISK_GRANULE_BYTES, "disabled", (int)disabled),
	               QMP_COMMAND_MS, NULL, err);
}

static int bitmap_run(struct qmp *qmp, const char *command, const char *node, const char *name, struct err *err)
{
	return qmp_run(qmp, command, json_pack("{s:s, s:s}", "node", node, "name", name), QMP_COMMAND_MS, NULL, err);
}

/* The reader sees the image as it is after a flush, so everything that was written before. */
static int open_anew(struct disk_source *source, struct err *err)
{
	if (source->disk.format == FORMAT_RAW)
		return 0;
	source_reader_close(&source->reader);
	if (source->flush.run(source->flush.ctx, err) != 0)
		return err_wrap(err, "disk %s: flush", source->disk.name);
	return source_reader_open(&source->reader, &source->disk, source->direct, source->names.reader, &source->cancel,
	                          err);
}

/* The image must be all in this one file. */
static int check_image(const struct disk_source *source, const json_t *node, struct err *err)
{
	const json_t *image = json_object_get(node, "image");
	const char *format = json_string_value(json_object_get(image, "format"));
	if (source->flush.run == NULL)
		return err_set(err, ERR_UNSUPPORTED, "%s: nobody can flush it while the VM runs", source->disk.path);
	if (format == NULL || strcmp(format, disk_format_name(source->disk.format)) != 0)
		return err_set(err, ERR_CONFLICT, "%s is %s for the block backend, not %s", source->disk.path,
		               format != NULL ? format : "of no known format", disk_format_name(source->disk.format));
	if (json_object_get(image, "backing-filename") != NULL)
		return err_set(err, ERR_UNSUPPORTED, "%s has a backing file; flatten it first (qemu-img rebase -b '')",
		               source->disk.path);
	return 0;
}

/* Opens the file the way the backend has it: two opens agree only if both or none go through the page cache. */
static int open_image(struct disk_source *source, const json_t *node, struct err *err)
{
	bool direct = json_is_true(json_object_get(json_object_get(node, "cache"), "direct"));
	source->direct = direct;
	if (source->disk.format != FORMAT_RAW)
		return check_image(source, node, err);
	source->fd = open(source->disk.path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
	if (source->fd < 0)
		return err_errno(err, ERR_IO, errno, "open %s", source->disk.path);
	off_t end = lseek(source->fd, 0, SEEK_END);
	if (end < 0 || (uint64_t)end < source->disk.size_bytes)
		return err_set(err, ERR_IO, "%s is shorter than the disk", source->disk.path);
	if (direct && posix_memalign(&source->bounce, SOURCE_DIRECT_ALIGN, SOURCE_BOUNCE_BYTES) != 0) {
		source->bounce = NULL;
		return err_set(err, ERR_NO_MEMORY, "no memory");
	}
	return 0;
}

static int begin_log(struct disk_source *source, struct qmp *qmp, struct err *err)
{
	char name[64];
	json_t *shadow = json_pack("{s:s, s:s, s:I, s:b}", "driver", "null-co", "node-name", source->names.shadow,
	                           "size", (json_int_t)source->disk.size_bytes, "read-zeroes", 1);
	bitmap_name(source, source->sequence, name);
	if (qmp_run(qmp, "blockdev-add", shadow, QMP_COMMAND_MS, NULL, err) < 0)
		return -1;
	return bitmap_add(qmp, source->disk.node, name, false, err);
}

static void source_free(struct disk_source *source)
{
	source_reader_close(&source->reader);
	if (source->fd >= 0)
		close(source->fd);
	free(source->bounce);
	disk_cancel_close(&source->cancel);
	free(source);
}

int disk_source_open(struct disk_source **ret_source, const struct hypervisor_disk *disk, uint64_t migration,
                     const struct disk_flush *flush, struct err *err)
{
	struct qmp *qmp = NULL;
	json_t *node = NULL;
	int result = -1;
	struct disk_source *source = calloc(1, sizeof(*source));
	if (!source)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	source->disk = *disk;
	if (flush != NULL)
		source->flush = *flush;
	source->fd = -1;
	source->cancel.event_fd = -1;
	if (disk_cancel_open(&source->cancel, err) == 0 &&
	    source_names_make(&source->names, disk, migration, err) == 0 &&
	    qmp_open(&qmp, disk->qmp_path, &source->cancel, QMP_OPEN_MS, err) == 0 &&
	    source_clean_with(qmp, disk, &source->names, err) == 0 &&
	    source_node_query(qmp, disk->node, &node, err) == 0 && open_image(source, node, err) == 0) {
		result = begin_log(source, qmp, err);
		if (result < 0)
			source_clean_with(qmp, disk, &source->names, NULL);
	}
	json_decref(node);
	qmp_close(qmp);
	if (result < 0) {
		source_free(source);
		return err_wrap(err, "disk %s", disk->name);
	}
	*ret_source = source;
	return 0;
}

int disk_source_allocated(struct disk_source *source, struct disk_range **ret_ranges, size_t *ret_count,
                          struct err *err)
{
	struct source_ranges ranges = { 0 };
	int result = open_anew(source, err);
	if (result == 0 && source->disk.format == FORMAT_RAW)
		result = source_map_file(source->fd, source->disk.size_bytes, &ranges, err);
	else if (result == 0)
		result = source_reader_map(&source->reader, source->disk.size_bytes, &source->cancel, &ranges, err);
	if (result != 0) {
		free(ranges.list);
		return err_wrap(err, "disk %s", source->disk.name);
	}
	*ret_ranges = ranges.list;
	*ret_count = ranges.count;
	return 0;
}

static int server_start(const struct disk_source *source, struct qmp *qmp, struct err *err)
{
	if (source->disk.nbd_path[0])
		return 0;
	json_t *arguments =
		json_pack("{s:{s:s, s:{s:s}}}", "addr", "type", "unix", "data", "path", source->names.socket);
	unlink(source->names.socket);
	return qmp_run(qmp, "nbd-server-start", arguments, QMP_COMMAND_MS, NULL, err);
}

static void server_stop(const struct disk_source *source, struct qmp *qmp)
{
	if (source->disk.nbd_path[0])
		return;
	qmp_run(qmp, "nbd-server-stop", NULL, QMP_COMMAND_MS, NULL, NULL);
	unlink(source->names.socket);
}

/* Reads the bitmap `name`, disabled by now, by way of the shadow node. */
static int read_bitmap(const struct disk_source *source, struct qmp *qmp, const char *name,
                       struct source_ranges *ranges, struct err *err)
{
	const char *shadow = source->names.shadow;
	const char *socket = source->disk.nbd_path[0] ? source->disk.nbd_path : source->names.socket;
	json_t *merge = json_pack("{s:s, s:s, s:[{s:s, s:s}]}", "node", shadow, "target", name, "bitmaps", "node",
	                          source->disk.node, "name", name);
	json_t *export = json_pack("{s:s, s:s, s:s, s:s, s:[s]}", "type", "nbd", "id", shadow, "node-name", shadow,
	                           "name", shadow, "bitmaps", name);
	int result = -1;
	if (bitmap_add(qmp, shadow, name, true, err) < 0) {
		json_decref(merge);
		json_decref(export);
		return -1;
	}
	if (qmp_run(qmp, "block-dirty-bitmap-merge", merge, QMP_COMMAND_MS, NULL, err) < 0) {
		json_decref(export);
		return -1;
	}
	if (server_start(source, qmp, err) < 0) {
		json_decref(export);
		return -1;
	}
	if (qmp_run(qmp, "block-export-add", export, QMP_COMMAND_MS, NULL, err) == 0) {
		result = source_map_bitmap(socket, shadow, name, source->disk.size_bytes, &source->cancel, ranges, err);
		if (source_export_remove(qmp, shadow, result == 0 ? err : NULL) < 0)
			result = -1;
	}
	server_stop(source, qmp);
	return result < 0 ? -1 : bitmap_run(qmp, "block-dirty-bitmap-remove", shadow, name, err);
}

int disk_source_swap(struct disk_source *source, struct disk_range **ret_ranges, size_t *ret_count, struct err *err)
{
	struct source_ranges ranges = { 0 };
	struct qmp *qmp = NULL;
	char old[64], fresh[64];
	if (source->broken)
		return err_set(err, ERR_BACKEND, "disk %s: the write log was lost", source->disk.name);
	if (qmp_open(&qmp, source->disk.qmp_path, &source->cancel, QMP_OPEN_MS, err) < 0)
		return err_wrap(err, "disk %s", source->disk.name); /* nothing was changed: may be tried again */
	bitmap_name(source, source->sequence, old);
	bitmap_name(source, source->sequence + 1, fresh);
	source->broken = true;
	if (bitmap_add(qmp, source->disk.node, fresh, false, err) == 0 &&
	    bitmap_run(qmp, "block-dirty-bitmap-disable", source->disk.node, old, err) == 0 &&
	    read_bitmap(source, qmp, old, &ranges, err) == 0 &&
	    bitmap_run(qmp, "block-dirty-bitmap-remove", source->disk.node, old, err) == 0) {
		source->sequence++;
		source->broken = false;
	}
	qmp_close(qmp);
	if (source->broken) {
		free(ranges.list);
		return err_wrap(err, "disk %s: write log", source->disk.name);
	}
	if (open_anew(source, err) != 0) {
		source->broken = true; /* what was written is known to nobody but this list */
		free(ranges.list);
		return -1;
	}
	*ret_ranges = ranges.list;
	*ret_count = ranges.count;
	return 0;
}

int disk_source_dirty(struct disk_source *source, uint64_t *ret_bytes, struct err *err)
{
	struct qmp *qmp = NULL;
	json_t *node = NULL;
	const json_t *bitmap;
	char name[64];
	size_t i;
	int result = -1;
	if (qmp_open(&qmp, source->disk.qmp_path, &source->cancel, QMP_OPEN_MS, err) < 0)
		return err_wrap(err, "disk %s", source->disk.name);
	bitmap_name(source, source->sequence, name);
	if (source_node_query(qmp, source->disk.node, &node, err) == 0) {
		err_set(err, ERR_BACKEND, "the write log %s is gone", name);
		json_array_foreach(json_object_get(node, "dirty-bitmaps"), i, bitmap)
		{
			const char *its = json_string_value(json_object_get(bitmap, "name"));
			json_int_t count = json_integer_value(json_object_get(bitmap, "count"));
			if (!its || strcmp(its, name) != 0)
				continue;
			*ret_bytes = count > 0 ? (uint64_t)count : 0;
			result = 0;
			err_clear(err);
		}
	}
	json_decref(node);
	qmp_close(qmp);
	return result < 0 ? err_wrap(err, "disk %s", source->disk.name) : 0;
}

/* Up to `bytes`; with O_DIRECT by way of an aligned buffer, of which the wanted part is copied out. */
static ssize_t read_some(const struct disk_source *source, uint64_t offset, void *buffer, size_t bytes)
{
	if (!source->bounce)
		return pread(source->fd, buffer, bytes, (off_t)offset);
	size_t skip = (size_t)(offset % SOURCE_DIRECT_ALIGN);
	size_t want = bytes < SOURCE_BOUNCE_BYTES - skip ? bytes : SOURCE_BOUNCE_BYTES - skip;
	size_t whole = (skip + want + SOURCE_DIRECT_ALIGN - 1) / SOURCE_DIRECT_ALIGN * SOURCE_DIRECT_ALIGN;
	ssize_t got = pread(source->fd, source->bounce, whole, (off_t)(offset - skip));
	if (got < 0 || (size_t)got <= skip)
		return got < 0 ? got : 0;
	size_t there = (size_t)got - skip;
	if (there > want)
		there = want;
	memcpy(buffer, (char *)source->bounce + skip, there);
	return (ssize_t)there;
}

int disk_source_read(struct disk_source *source, uint64_t offset, void *buffer, size_t bytes, struct err *err)
{
	char *at = buffer;
	if (offset > source->disk.size_bytes || bytes > source->disk.size_bytes - offset)
		return err_set(err, ERR_INTERNAL, "disk %s: read outside the disk", source->disk.name);
	if (source->disk.format != FORMAT_RAW)
		return source_reader_read(&source->reader, offset, buffer, bytes, &source->cancel, err) != 0
		               ? err_wrap(err, "disk %s: read at %" PRIu64, source->disk.name, offset)
		               : 0;
	while (bytes > 0) {
		if (disk_cancelled(&source->cancel))
			return err_set(err, ERR_CANCELLED, "cancelled");
		ssize_t got = read_some(source, offset, at, bytes);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_errno(err, ERR_IO, errno, "disk %s: read at %" PRIu64, source->disk.name, offset);
		if (got == 0)
			return err_set(err, ERR_IO, "disk %s: the image ends at %" PRIu64, source->disk.name, offset);
		at += got;
		offset += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return 0;
}

/* `stop` and `cont`; a qemu-storage-daemon has neither and needs neither: its guest has flushed before it stood still.
 */
static int drain_run(const struct hypervisor_disk *disk, const struct disk_cancel *cancel, const char *command,
                     struct err *err)
{
	struct qmp *qmp = NULL;
	struct err why = { 0 };
	int result = qmp_open(&qmp, disk->qmp_path, cancel, QMP_OPEN_MS, &why);
	if (result == 0)
		result = qmp_run(qmp, command, NULL, QMP_DRAIN_MS, NULL, &why);
	qmp_close(qmp);
	if (result < 0 && why.code != ERR_UNSUPPORTED)
		return err_set(err, why.code, "disk %s: %.400s", disk->name, why.text);
	return 0;
}

int disk_source_drain(struct disk_source *source, struct err *err)
{
	return drain_run(&source->disk, &source->cancel, "stop", err);
}

int disk_source_undrain(struct disk_source *source, struct err *err)
{
	return drain_run(&source->disk, NULL, "cont", err); /* a cancelled migration must get its guest going again */
}

void disk_source_cancel(struct disk_source *source)
{
	disk_cancel_set(&source->cancel);
}

/* Nobody listens: the backend is gone, and all that was ours in it. */
static int clean_backend(const struct hypervisor_disk *disk, const struct source_names *names, bool undrain,
                         struct err *err)
{
	struct qmp *qmp = NULL;
	struct err why = { 0 };
	int result = qmp_open(&qmp, disk->qmp_path, NULL, QMP_OPEN_MS, &why);
	if (result == 0)
		result = source_clean_with(qmp, disk, names, &why);
	if (result == 0 && undrain && qmp_run(qmp, "cont", NULL, QMP_DRAIN_MS, NULL, &why) < 0 &&
	    why.code != ERR_UNSUPPORTED)
		result = -1;
	qmp_close(qmp);
	if (result < 0 && why.code != ERR_UNREACHABLE)
		return err_set(err, why.code, "disk %s: clean up in the block backend: %.300s", disk->name, why.text);
	return 0;
}

int disk_source_close(struct disk_source *source, struct err *err)
{
	if (!source)
		return 0;
	int result = clean_backend(&source->disk, &source->names, false, err);
	source_free(source);
	return result;
}

int disk_source_clean(const struct hypervisor_disk *disk, uint64_t migration, struct err *err)
{
	struct source_names names;
	if (source_names_make(&names, disk, migration, err) < 0)
		return -1;
	return clean_backend(disk, &names, true, err);
}
