/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inside the live source. */
#ifndef DROVER_SOURCE_INT_H
#define DROVER_SOURCE_INT_H

#include "agent/disk/disk.h"
#include "agent/disk/qmp.h"
#include "agent/disk/wait.h"

#define SOURCE_NODE_NAME 32         /* QEMU's own limit for node names, with the NUL */
#define SOURCE_EXPORT_GONE_MS 10000 /* the deletion of an export is asynchronous */

/* How our things in the block backend are called: all begin with drover-MIGRATION-. */
struct source_names {
	char prefix[SOURCE_NODE_NAME];
	char shadow[SOURCE_NODE_NAME]; /* the shadow node, and the export of it */
	char socket[LIMIT_PATH];       /* of an NBD server that we start */
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

/* Takes away what is called drover-MIGRATION-… on this node. */
int source_clean_with(struct qmp *qmp, const struct hypervisor_disk *disk, const struct source_names *names,
                      struct err *err);
/* Deletes an export and waits until it is gone; done if there is none. */
int source_export_remove(struct qmp *qmp, const char *id, struct err *err);
/* The entry of `node` in query-named-block-nodes: a new reference. */
int source_node_query(struct qmp *qmp, const char *node, json_t **ret_node, struct err *err);

#endif
