/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a simulated guest answers on its control socket, its record in a file, and the memory stream that comes from the
 * other host. The first byte says which. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/hypervisor/sim_driver.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/fuzz/fuzz_peer.h"

#define PAGES 16u

static struct hypervisor hv;
static int memory_fd, bitmap_fd, record_fd;

static void begin(void)
{
	struct err err = { 0 };
	char file[PATHS_MAX + 32];
	fuzz_folder_make();
	fuzz_must(paths_init(&hv.paths, fuzz_folder, &err) == 0, "paths", &err);
	memory_fd = memfd_create("memory", MFD_CLOEXEC);
	bitmap_fd = memfd_create("bitmap", MFD_CLOEXEC);
	record_fd = memfd_create("record", MFD_CLOEXEC);
	fuzz_must(ftruncate(memory_fd, PAGES * SIM_PAGE_BYTES) == 0 && ftruncate(bitmap_fd, SIM_PAGE_BYTES) == 0,
	          "memfd", NULL);
	/* The record is a link to a file in memory. */
	snprintf(file, sizeof(file), "/proc/self/fd/%d", record_fd);
	char link[PATHS_MAX + 32];
	snprintf(link, sizeof(link), "%s/vms/web1.json", hv.paths.lib);
	fuzz_must(paths_make(&hv.paths, &err) == 0, "paths", &err);
	char dir[PATHS_MAX + 16];
	snprintf(dir, sizeof(dir), "%s/vms", hv.paths.lib);
	fuzz_must(mkdir(dir, 0700) == 0 && symlink(file, link) == 0, "link", NULL);
}

static void try_control(void)
{
	struct hypervisor_source source = { .hv = &hv, .record = { .name = "web1" }, .cancel = { .event_fd = -1 } };
	struct err err = { 0 };
	json_t *reply = NULL;
	if (sim_call(&hv.paths, "web1", json_pack("{s:s}", "op", "status"), SIM_CALL_MS, NULL, &reply, &err) == 0)
		fuzz_must(json_is_object(reply), "done without an answer", NULL);
	else
		fuzz_must_be_worded(&err);
	json_decref(reply);
	if (sim_source_is_suspended(&source, &err) < 0)
		fuzz_must_be_worded(&err);
	if (sim_source_resume(&source, &err) < 0)
		fuzz_must_be_worded(&err);
}

static int read_stream(void *ctx, void *bytes, size_t count, struct err *err)
{
	struct fuzz_input *stream = ctx;
	if (count > stream->left)
		return err_set(err, ERR_PEER_LOST, "the stream has ended");
	fuzz_take(stream, bytes, count);
	return 0;
}

/* The guest's own answers are good ones. */
static void try_stream(const uint8_t *data, size_t bytes)
{
	static const char answers[] = "{\"ok\":true,\"memory\":65536}\n";
	const int fds[2] = { memory_fd, bitmap_fd };
	struct fuzz_input stream = { data, bytes };
	const struct hypervisor_receive receive = { &stream, read_stream };
	struct hypervisor_dest dest = { .hv = &hv, .record = { .name = "web1" }, .cancel = { .event_fd = -1 } };
	struct err err = { 0 };
	fuzz_peer_begin((const uint8_t *)answers, sizeof(answers) - 1);
	fuzz_peer.give = fds;
	if (sim_dest_receive(&dest, &receive, &err) != 0)
		fuzz_must_be_worded(&err);
	struct stat st;
	fuzz_must(fstat(memory_fd, &st) == 0 && st.st_size == PAGES * SIM_PAGE_BYTES, "memory of another size", NULL);
}

static void try_record(const uint8_t *data, size_t bytes)
{
	struct sim_record record;
	struct err err = { 0 };
	fuzz_must(ftruncate(record_fd, 0) == 0 && pwrite(record_fd, data, bytes, 0) == (ssize_t)bytes, "record", NULL);
	if (sim_record_load(&hv.paths, "web1", &record, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	fuzz_must(record.state >= SIM_RUNNING && record.state <= SIM_DESTROYING && record.disk_count <= LIMIT_DISKS &&
	                  record.nic_count <= LIMIT_NICS && sim_name_ok(record.name),
	          "a record that makes no sense", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes == 0)
		return 0;
	if (record_fd == 0)
		begin();
	fuzz_peer_begin(data + 1, bytes - 1);
	switch (data[0] % 3) {
	case 0:
		try_control();
		break;
	case 1:
		try_record(data + 1, bytes - 1);
		break;
	case 2:
		try_stream(data + 1, bytes - 1);
		break;
	}
	fuzz_peer_end();
	return 0;
}
