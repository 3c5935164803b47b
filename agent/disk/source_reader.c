/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A second reader of a qcow2 image that a block backend has open for writing: a qemu-nbd without locks, read only, on a
 * unix socket that has a name for a moment only.
 *
 * Why that is sound. The caller has swapped the write log, then had the VM flush, and opens us after that. What was
 * written before the swap has been flushed, so the file says where it is. What is written after the swap, or moved, or
 * discarded, is in the new log: whatever we read there, old, new, half, or another cluster's, is read again in the next
 * pass. Everything else stays where it is while we read: the entry of a granule in a table changes only when the
 * granule is written or discarded, and a table that is written again has the same bytes for the others. The last pass
 * is read while nobody writes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/disk/source_int.h"

#define READER_MS 30000 /* one answer: a disk that is busy */
#define READER_KILL_MS 5000
#define READER_CONTEXT "base:allocation"
#define READER_ZERO 2u /* NBD_STATE_ZERO */

/* A socket that listens under `path`, and a connection to it; then the name is not needed any more. */
static int make_pair(const char *path, int *ret_listen_fd, int *ret_fd, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool fits = snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) < (int)sizeof(address.sun_path);
	unlink(path);
	errno = ENAMETOOLONG;
	int result = !fits || listen_fd < 0 || fd < 0 ||
	                             bind(listen_fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	                             listen(listen_fd, 1) != 0 ||
	                             connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0
	                     ? err_errno(err, ERR_IO, errno, "socket %s", path)
	                     : 0;
	unlink(path);
	if (result == 0) {
		*ret_listen_fd = listen_fd;
		*ret_fd = fd;
		return 0;
	}
	if (listen_fd >= 0)
		close(listen_fd);
	if (fd >= 0)
		close(fd);
	return -1;
}

/* qemu-nbd takes the listening socket as a service does that systemd starts. */
static int start(struct source_reader *reader, const struct hypervisor_disk *disk, bool direct, int listen_fd,
                 struct err *err)
{
	json_t *image = json_pack("{s:s, s:b, s:{s:s, s:s, s:s, s:{s:b}}}", "driver", disk_format_name(disk->format),
	                          "read-only", 1, "file", "driver", "file", "filename", disk->path, "locking", "off",
	                          "cache", "direct", (int)direct);
	char *text = image != NULL ? json_dumps(image, JSON_COMPACT) : NULL, *name = NULL;
	json_decref(image);
	if (text == NULL || asprintf(&name, "json:%s", text) < 0) {
		free(text);
		return err_set(err, ERR_NO_MEMORY, "no memory");
	}
	free(text);
	const char *argv[] = { "qemu-nbd", "--read-only", name, NULL };
	int result = proc_start(&reader->process, argv, NULL, NULL, listen_fd, 0, err);
	free(name);
	return result;
}

int source_reader_open(struct source_reader *reader, const struct hypervisor_disk *disk, bool direct,
                       const char *socket, const struct disk_cancel *cancel, struct err *err)
{
	int listen_fd, fd;
	source_reader_close(reader);
	if (make_pair(socket, &listen_fd, &fd, err) != 0)
		return -1;
	int result = start(reader, disk, direct, listen_fd, err);
	close(listen_fd); /* from here on only the process can answer: if it ends, we see it */
	if (result != 0) {
		close(fd);
		return -1;
	}
	if (nbdio_open(&reader->nbd, fd, "", READER_CONTEXT, cancel, err) != 0) {
		reader->nbd = NULL;
		proc_kill(&reader->process, READER_KILL_MS, NULL);
		return err_wrap(err, "a second reader of %s (qemu-nbd)", disk->path);
	}
	return 0;
}

void source_reader_close(struct source_reader *reader)
{
	if (reader->nbd == NULL)
		return;
	nbdio_close(reader->nbd);
	reader->nbd = NULL;
	proc_kill(&reader->process, READER_KILL_MS, NULL);
}

int source_reader_read(struct source_reader *reader, uint64_t offset, void *buffer, size_t bytes,
                       const struct disk_cancel *cancel, struct err *err)
{
	int64_t cookie = nbd_aio_pread(reader->nbd, buffer, bytes, offset, NBD_NULL_COMPLETION, 0);
	return nbdio_finish(reader->nbd, cookie, cancel, disk_now_ms() + READER_MS, err);
}

int source_reader_map(struct source_reader *reader, uint64_t size_bytes, const struct disk_cancel *cancel,
                      struct source_ranges *ranges, struct err *err)
{
	return source_map_query(reader->nbd, READER_CONTEXT, READER_ZERO, 0, size_bytes, DISK_GRANULE_BYTES, cancel,
	                        ranges, err);
}
