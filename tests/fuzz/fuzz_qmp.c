/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a block backend answers over QMP, and the NBD server that it starts for a bitmap; and what tgtd answers. */
#include <sys/mman.h>

#include "agent/disk/exporter_int.h"
#include "agent/disk/source_int.h"
#include "tests/fuzz/fuzz_peer.h"

#define DISK_BYTES (1u << 20)
#define MIGRATION 7u

static struct hypervisor_disk disk = { .name = "xvda",
	                               .node = "disk-xvda",
	                               .qmp_path = "/fuzz/qmp",
	                               .nbd_path = "/fuzz/nbd",
	                               .format = FORMAT_RAW,
	                               .size_bytes = DISK_BYTES };

static void make_image(void)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	fuzz_must(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0, "memfd", NULL);
	snprintf(disk.path, sizeof(disk.path), "/proc/self/fd/%d", fd);
}

/* The ranges are within the disk, and go upwards. */
static void check_ranges(struct disk_range *ranges, size_t count)
{
	uint64_t end = 0;
	for (size_t i = 0; i < count; i++) {
		fuzz_must(ranges[i].bytes > 0 && ranges[i].offset >= end, "a range before its time", NULL);
		end = ranges[i].offset + ranges[i].bytes;
		fuzz_must(end > ranges[i].offset && end <= DISK_BYTES, "a range beyond the disk", NULL);
	}
	free(ranges);
}

static void try_source(void)
{
	struct disk_source *source;
	struct disk_range *ranges;
	struct err err = { 0 };
	uint64_t dirty;
	size_t count;
	if (disk_source_open(&source, &disk, MIGRATION, NULL, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	if (disk_source_dirty(source, &dirty, &err) != 0)
		fuzz_must_be_worded(&err);
	if (disk_source_swap(source, &ranges, &count, &err) == 0)
		check_ranges(ranges, count);
	else
		fuzz_must_be_worded(&err);
	if (disk_source_drain(source, &err) != 0)
		fuzz_must_be_worded(&err);
	if (disk_source_close(source, &err) != 0)
		fuzz_must_be_worded(&err);
}

static void try_command(void)
{
	struct qmp *qmp;
	json_t *result = NULL;
	struct err err = { 0 };
	if (qmp_open(&qmp, disk.qmp_path, NULL, QMP_OPEN_MS, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	if (qmp_run(qmp, "query-status", NULL, QMP_COMMAND_MS, &result, &err) == 0)
		fuzz_must(result != NULL, "done without a result", NULL);
	else
		fuzz_must_be_worded(&err);
	json_decref(result);
	qmp_close(qmp);
}

static void try_tgt(void)
{
	const struct tgt_request request = { .mode = TGT_TARGET, .op = TGT_NEW, .target = 1, .params = "targetname=x" };
	struct err err = { 0 };
	if (tgt_run("/fuzz/tgt", &request, "new target", &err) != 0)
		fuzz_must_be_worded(&err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct err err = { 0 };
	if (bytes == 0)
		return 0;
	if (disk.path[0] == '\0')
		make_image();
	fuzz_peer_begin(data + 1, bytes - 1);
	switch (data[0] % 4) {
	case 0:
		try_command();
		break;
	case 1:
		try_source();
		break;
	case 2:
		if (disk_source_clean(&disk, MIGRATION, &err) != 0)
			fuzz_must_be_worded(&err);
		break;
	case 3:
		try_tgt();
		break;
	}
	fuzz_peer_end();
	return 0;
}
