/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a server of NBD or iSCSI says: the second reader of an image and the bitmap's export on the source, the exporter
 * of the destination that a sink writes to. */
#include "agent/disk/sink_int.h"
#include "agent/disk/source_int.h"
#include "tests/fuzz/fuzz_peer.h"

#define DISK_BYTES (1u << 20)
#define READ_BYTES 4096u
#define CONTEXT "qemu:dirty-bitmap:drover-7-0"

/* The library's own: 24 bytes for each login that a server breaks in the middle. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libiscsi.so\n";
}

/* libiscsi numbers its requests from here on: what was said to one is said to all. */
int rand(void)
{
	return 1000;
}

static void check_ranges(const struct source_ranges *ranges)
{
	uint64_t end = 0;
	for (size_t i = 0; i < ranges->count; i++) {
		const struct disk_range *range = &ranges->list[i];
		fuzz_must(range->bytes > 0 && range->offset >= end, "a range before its time", NULL);
		end = range->offset + range->bytes;
		fuzz_must(end <= DISK_BYTES, "a range beyond the disk", NULL);
	}
}

static void try_reader(int fd)
{
	static unsigned char buffer[READ_BYTES];
	struct source_ranges ranges = { 0 };
	struct nbd_handle *nbd;
	struct err err = { 0 };
	if (nbdio_open(&nbd, fd, "disk", CONTEXT, NULL, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	if (source_map_query(nbd, CONTEXT, 1, 1, DISK_BYTES, 0, NULL, &ranges, &err) == 0)
		check_ranges(&ranges);
	else
		fuzz_must_be_worded(&err);
	free(ranges.list);
	int64_t cookie = nbd_aio_pread(nbd, buffer, READ_BYTES, 0, NBD_NULL_COMPLETION, 0);
	if (nbdio_finish(nbd, cookie, NULL, disk_now_ms(), &err) != 0)
		fuzz_must_be_worded(&err);
	nbdio_close(nbd);
}

static int give_fd(void *ctx, struct err *err)
{
	(void)err;
	return *(int *)ctx;
}

static void on_done(void *ctx, void *slot)
{
	(void)slot;
	++*(unsigned *)ctx;
}

static void try_sink(int fd, enum exporter_kind kind)
{
	static const unsigned char block[READ_BYTES] = { 1 };
	const struct exporter_access access = { .kind = kind,
		                                .export_name = "iqn.2020-01.org.drover:x",
		                                .user = "u",
		                                .secret = "0123456789abcdef",
		                                .lun = 1,
		                                .size_bytes = DISK_BYTES };
	struct sink *sink;
	struct err err = { 0 };
	unsigned begun = 0, done = 0;
	if (sink_open(&sink, &access, give_fd, &fd, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	while (begun < 4 && sink_write(sink, begun * READ_BYTES, block, READ_BYTES, on_done, &done, NULL, &err) == 0)
		begun++;
	if (begun == 4 && sink_zero(sink, DISK_BYTES / 2, DISK_BYTES / 4, &err) == 0)
		(void)sink_flush(sink, &err);
	sink_close(sink);
	fuzz_must(begun == done, "a buffer that was not given back, or twice", NULL);
}

/* libiscsi 1.19 takes Data-In that answers a login for one that answers a command, and reads through NULL: found here,
 * and the library's to mend. The source's leg would die of it, and its successor has the guest go on. Such an input is
 * left out: Data-In before the login has ended. */
static bool breaks_the_library(const struct fuzz_input *said)
{
	enum { HEADER = 48, LOGIN_RESPONSE = 0x23, DATA_IN = 0x25, TO_FULL_FEATURES = 0x83 };
	for (size_t at = 0; at + HEADER <= said->left;) {
		const uint8_t *pdu = said->at + at;
		size_t data = (size_t)pdu[5] << 16 | (size_t)pdu[6] << 8 | pdu[7];
		if ((pdu[0] & 0x3f) == DATA_IN)
			return true;
		if ((pdu[0] & 0x3f) == LOGIN_RESPONSE && (pdu[1] & TO_FULL_FEATURES) == TO_FULL_FEATURES)
			return false;
		at += HEADER + 4u * pdu[4] + (data + 3) / 4 * 4;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes == 0)
		return 0;
	const struct fuzz_input said = { data + 1, bytes - 1 };
	if (data[0] % 3 == 2 && breaks_the_library(&said))
		return 0;
	int fd = fuzz_peer_make(&said, NULL);
	switch (data[0] % 3) {
	case 0:
		try_reader(fd);
		break;
	case 1:
		try_sink(fd, EXPORTER_NBD);
		break;
	case 2:
		try_sink(fd, EXPORTER_ISCSI);
		break;
	}
	fuzz_peer_end();
	return 0;
}
