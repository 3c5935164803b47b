/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inside the live source. */
#ifndef DROVER_SOURCE_INT_H
#define DROVER_SOURCE_INT_H

#include "agent/disk/disk.h"
#include "agent/disk/nbdio.h"
#include "agent/disk/qmp.h"
#include "agent/disk/wait.h"

#define SOURCE_NODE_NAME 32         /* QEMU's own limit for node names, with the NUL */
#define SOURCE_EXPORT_GONE_MS 10000 /* the deletion of an export is asynchronous */

/* How our things in the block backend are called: all begin with drover-MIGRATION-. */
struct source_names {
	char prefix[SOURCE_NODE_NAME];
	char shadow[SOURCE_NODE_NAME]; /* the shadow node, and the export of it */
	char socket[LIMIT_PATH];       /* of an NBD server that we start */
	char reader[LIMIT_PATH];       /* of a second reader of this disk's image */
};
int source_names_make(struct source_names *ret_names, const struct hypervisor_disk *disk, uint64_t migration,
                      struct err *err);

/* A growing list of ranges; neighbours become one. */
struct source_ranges {
	struct disk_range *list;
	size_t count, room;
};
/* Appends; `gap`: a hole of at most that many bytes is closed. -1: no memory. */
int source_ranges_add(struct source_ranges *ranges, uint64_t offset, uint64_t bytes, uint64_t gap, struct err *err);

/* What SEEK_DATA says about the first size_bytes of fd; all of it where the file system cannot say. */
int source_map_file(int fd, uint64_t size_bytes, struct source_ranges *ranges, struct err *err);
/* The dirty parts of a bitmap that is exported over NBD at `socket`. */
int source_map_bitmap(const char *socket, const char *export_name, const char *bitmap, uint64_t size_bytes,
                      const struct disk_cancel *cancel, struct source_ranges *ranges, struct err *err);

/* A second reader of an image whose format QEMU must decode: a qemu-nbd of our own, read only, on the file as it is
 * now. It ends with its one connection, so with the leg. */
struct source_reader {
	struct nbd_handle *nbd; /* NULL: not open */
	struct proc_id process;
};
/* `direct`: past the page cache, as the backend has it. `socket`: a path that is used for a moment. */
int source_reader_open(struct source_reader *reader, const struct hypervisor_disk *disk, bool direct,
                       const char *socket, const struct disk_cancel *cancel, struct err *err);
void source_reader_close(struct source_reader *reader);
int source_reader_read(struct source_reader *reader, uint64_t offset, void *buffer, size_t bytes,
                       const struct disk_cancel *cancel, struct err *err);
/* What is not zero. */
int source_reader_map(struct source_reader *reader, uint64_t size_bytes, const struct disk_cancel *cancel,
                      struct source_ranges *ranges, struct err *err);

/* Asks for the extents of a meta context that was negotiated; those with (flags & mask) == value are appended. */
int source_map_query(struct nbd_handle *nbd, const char *context, uint32_t mask, uint32_t value, uint64_t size_bytes,
                     uint64_t gap, const struct disk_cancel *cancel, struct source_ranges *ranges, struct err *err);

/* Takes away what is called drover-MIGRATION-… on this node. */
int source_clean_with(struct qmp *qmp, const struct hypervisor_disk *disk, const struct source_names *names,
                      struct err *err);
/* Deletes an export and waits until it is gone; done if there is none. */
int source_export_remove(struct qmp *qmp, const char *id, struct err *err);
/* The entry of `node` in query-named-block-nodes: a new reference. */
int source_node_query(struct qmp *qmp, const char *node, json_t **ret_node, struct err *err);

#endif
