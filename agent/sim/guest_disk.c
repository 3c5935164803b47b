/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Disks of a simulated VM: a qemu-storage-daemon with every disk in an iothread, and libnbd connections to it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/disk/qmp.h"
#include "agent/hypervisor/sim_control.h"
#include "agent/sim/guest.h"
#include "common/log.h"

#define START_MS 15000 /* until its monitor answers */
#define START_TRIES 3  /* QEMU 7.2 may die of a client that connects while it moves its monitors into their thread */
#define STEP_MS 2      /* between two looks */
#define POLL_MS 1000
#define END_MS 8000     /* after `quit`, for the last flush of qcow2 images */
#define FILL_BATCH 256u /* blocks in flight while an image is filled */
#define ADDRESS_BYTES (LIMIT_PATH + 64)
#define MALLOC_TUNING /* big buffers are kept: giving them back costs a page fault each time */ \
	"GLIBC_TUNABLES=glibc.malloc.mmap_threshold=67108864:glibc.malloc.trim_threshold=268435456"

static const char iothread[] = "io0";

static int open_monitor(struct guest *guest, unsigned wait_ms, struct qmp **ret_qmp, struct err *err)
{
	char path[LIMIT_PATH];
	int64_t deadline_ms = disk_now_ms() + wait_ms;
	struct err why = { 0 };
	if (sim_path(&guest->paths, guest->record.name, SIM_PATH_QMP, path, err) != 0)
		return -1;
	while (qmp_open(ret_qmp, path, NULL, QMP_OPEN_MS, &why) != 0) {
		short none;
		if (why.code != ERR_UNREACHABLE || disk_now_ms() >= deadline_ms || !proc_alive(&guest->backend))
			return err_set(err, ERR_BACKEND, "block backend: %s", why.text);
		disk_wait(NULL, -1, 0, disk_now_ms() + STEP_MS, &none, NULL);
	}
	return 0;
}

static int start_backend(struct guest *guest, struct err *err)
{
	const char *name = guest->record.name;
	char path[LIMIT_PATH], log[LIMIT_PATH], file[LIMIT_NAME + 16];
	char first[ADDRESS_BYTES], second[ADDRESS_BYTES], nbd[ADDRESS_BYTES];
	struct qmp *qmp;
	if (sim_path(&guest->paths, name, SIM_PATH_QMP, path, err) != 0)
		return -1;
	snprintf(first, sizeof(first), "socket,id=sim,path=%s,server=on,wait=off", path);
	if (sim_path(&guest->paths, name, SIM_PATH_QMP_LEG, path, err) != 0)
		return -1;
	snprintf(second, sizeof(second), "socket,id=leg,path=%s,server=on,wait=off", path);
	if (sim_path(&guest->paths, name, SIM_PATH_NBD, path, err) != 0 ||
	    sim_path(&guest->paths, name, SIM_PATH_LOG, log, err) != 0)
		return -1;
	snprintf(nbd, sizeof(nbd), "addr.type=unix,addr.path=%s,max-connections=0", path);
	const char *argv[] = { "qemu-storage-daemon",
		               "--object",
		               "iothread,id=io0",
		               "--chardev",
		               first,
		               "--monitor",
		               "chardev=sim",
		               "--chardev",
		               second,
		               "--monitor",
		               "chardev=leg",
		               "--nbd-server",
		               nbd,
		               NULL };
	const char *env[] = { MALLOC_TUNING, NULL };
	if (proc_start(&guest->backend, argv, env, log, -1, PROC_SETSID, err) != 0)
		return err_wrap(err, "block backend");
	snprintf(file, sizeof(file), "backend-%s", name);
	if (paths_write_pid(&guest->paths, file, guest->backend.pid, err) != 0 ||
	    open_monitor(guest, START_MS, &qmp, err) != 0)
		return -1;
	qmp_close(qmp);
	return 0;
}

/* One whose monitor has not answered yet has no disk: it can be started again. */
int guest_backend_start(struct guest *guest, struct err *err)
{
	int64_t deadline_ms = disk_now_ms() + START_MS;
	for (int tries = 1;; tries++) {
		struct err why = { 0 };
		guest->backend = (struct proc_id) { 0 };
		if (start_backend(guest, &why) == 0)
			return 0;
		bool started = guest->backend.pid > 0 && proc_kill(&guest->backend, QMP_OPEN_MS, NULL) == 0;
		if (!started || tries == START_TRIES || disk_now_ms() >= deadline_ms)
			return err_set(err, why.code, "%s", why.text);
		log_warning("guest=%s the block backend is started again, %d of %d: %s", guest->record.name, tries + 1,
		            START_TRIES, why.text);
	}
}

/* Two nodes and, unless it is read-only, an export in the iothread: with it the nodes move there. */
static int add_disk(struct qmp *qmp, const struct sim_disk *disk, struct err *err)
{
	char node[LIMIT_NAME + 8], file[LIMIT_NAME + 8], id[LIMIT_NAME + 8];
	snprintf(node, sizeof(node), "%s%s", SIM_NODE_PREFIX, disk->name);
	snprintf(file, sizeof(file), "file-%s", disk->name);
	snprintf(id, sizeof(id), "guest-%s", disk->name);
	json_t *below = json_pack("{s:s,s:s,s:s,s:b,s:s}", "driver", "file", "node-name", file, "filename", disk->path,
	                          "read-only", disk->read_only ? 1 : 0, "discard", "unmap");
	json_t *above =
		json_pack("{s:s,s:s,s:b,s:s,s:o}", "driver", disk->format == FORMAT_QCOW2 ? "qcow2" : "raw",
	                  "node-name", node, "read-only", disk->read_only ? 1 : 0, "discard", "unmap", "file", below);
	if (qmp_run(qmp, "blockdev-add", above, QMP_COMMAND_MS, NULL, err) != 0)
		return -1;
	if (disk->read_only)
		return 0;
	json_t *export = json_pack("{s:s,s:s,s:s,s:s,s:b,s:s,s:b}", "type", "nbd", "id", id, "node-name", node, "name",
	                           disk->name, "writable", 1, "iothread", iothread, "fixed-iothread", 1);
	return qmp_run(qmp, "block-export-add", export, QMP_COMMAND_MS, NULL, err);
}

static int connect_disk(struct guest *guest, struct guest_disk *disk, const struct sim_disk *what, struct err *err)
{
	char path[LIMIT_PATH];
	if (sim_path(&guest->paths, guest->record.name, SIM_PATH_NBD, path, err) != 0)
		return -1;
	disk->nbd = nbd_create();
	if (disk->nbd == NULL || nbd_set_export_name(disk->nbd, what->name) != 0 ||
	    nbd_connect_unix(disk->nbd, path) != 0)
		return err_set(err, ERR_BACKEND, "disk %s: %s", what->name, nbd_get_error());
	int64_t bytes = nbd_get_size(disk->nbd);
	if (bytes != (int64_t)what->size_bytes)
		return err_set(err, ERR_CONFLICT, "disk %s: %s has %lld bytes, not %lld", what->name, what->path,
		               (long long)bytes, (long long)what->size_bytes);
	return 0;
}

int guest_disks_attach(struct guest *guest, struct err *err)
{
	struct qmp *qmp;
	guest->disk_count = 0;
	if (guest->record.disk_count == 0)
		return 0;
	if (open_monitor(guest, START_MS, &qmp, err) != 0)
		return -1;
	int result = 0;
	for (unsigned i = 0; i < guest->record.disk_count && result == 0; i++) {
		const struct sim_disk *what = &guest->record.disks[i];
		result = add_disk(qmp, what, err);
		if (result == 0 && !what->read_only) {
			struct guest_disk *disk = &guest->disks[guest->disk_count++];
			memset(disk, 0, sizeof(*disk));
			result = connect_disk(guest, disk, what, err);
		}
		if (result != 0)
			err_wrap(err, "attach %s (%s)", what->name, what->path);
	}
	qmp_close(qmp);
	return result;
}

/* Called by libnbd from within our own calls to it. 1: the command is retired. */
static int write_done(void *ctx, int *error)
{
	struct guest_disk *disk = ctx;
	disk->writes--;
	if (*error != 0)
		disk->failed = *error;
	return 1;
}

static int flush_done(void *ctx, int *error)
{
	struct guest_disk *disk = ctx;
	disk->flushing = false;
	if (*error != 0)
		disk->failed = *error;
	return 1;
}

/* Until all writes (and flushes) of all disks are answered. */
static int wait_for_answers(struct guest *guest, bool flushes_too, struct err *err)
{
	for (unsigned i = 0; i < guest->disk_count; i++) {
		struct guest_disk *disk = &guest->disks[i];
		while (disk->writes > 0 || (flushes_too && disk->flushing))
			if (nbd_poll(disk->nbd, POLL_MS) < 0)
				return err_set(err, ERR_BACKEND, "disk %u: %s", i, nbd_get_error());
		if (disk->failed != 0)
			return err_errno(err, ERR_BACKEND, disk->failed, "disk %u", i);
	}
	return 0;
}

static int reserve_blocks(struct guest *guest, uint64_t count, struct err *err)
{
	if (count <= guest->block_room)
		return 0;
	unsigned char *grown = realloc(guest->blocks, count * PATTERN_PAGE_BYTES);
	if (grown == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory for disk writes");
	guest->blocks = grown;
	guest->block_room = count;
	return 0;
}

/* Block number `slot` of the buffer, sent to its place. */
static int write_block(struct guest *guest, uint64_t slot, uint64_t tick, unsigned index, uint64_t block,
                       struct err *err)
{
	struct guest_disk *disk = &guest->disks[index];
	unsigned char *bytes = guest->blocks + slot * PATTERN_PAGE_BYTES;
	nbd_completion_callback done = { .callback = write_done, .user_data = disk };
	pattern_block(&guest->pattern, tick, index, block, (uint64_t *)(void *)bytes);
	disk->writes++;
	if (nbd_aio_pwrite(disk->nbd, bytes, PATTERN_PAGE_BYTES, block * PATTERN_PAGE_BYTES, done, 0) < 0) {
		disk->failed = EIO;
		return err_set(err, ERR_BACKEND, "disk %u: %s", index, nbd_get_error());
	}
	return 0;
}

int guest_disks_write(struct guest *guest, uint64_t tick, struct err *err)
{
	uint64_t count = pattern_block_count(&guest->pattern, tick);
	if (reserve_blocks(guest, count, err) != 0)
		return -1;
	for (uint64_t k = 0; k < count; k++) {
		unsigned disk;
		uint64_t block;
		pattern_block_at(&guest->pattern, tick, k, &disk, &block);
		if (write_block(guest, k, tick, disk, block, err) != 0)
			return -1;
	}
	return wait_for_answers(guest, false, err);
}

int guest_disks_fill(struct guest *guest, struct err *err)
{
	uint64_t slot = 0;
	if (guest->pattern.fill_percent == 0)
		return 0;
	if (reserve_blocks(guest, FILL_BATCH, err) != 0)
		return -1;
	for (unsigned disk = 0; disk < guest->pattern.disks; disk++) {
		for (uint64_t block = 0; block < guest->pattern.blocks[disk]; block++) {
			if (!pattern_block_filled(&guest->pattern, disk, block))
				continue;
			if (write_block(guest, slot++, 0, disk, block, err) != 0)
				return -1;
			if (slot == FILL_BATCH && wait_for_answers(guest, false, err) != 0)
				return -1;
			slot %= FILL_BATCH;
		}
	}
	return wait_for_answers(guest, false, err);
}

int guest_disks_flush_begin(struct guest *guest, struct err *err)
{
	if (wait_for_answers(guest, true, err) != 0)
		return -1;
	for (unsigned i = 0; i < guest->disk_count; i++) {
		struct guest_disk *disk = &guest->disks[i];
		nbd_completion_callback done = { .callback = flush_done, .user_data = disk };
		disk->flushing = true;
		if (nbd_aio_flush(disk->nbd, done, 0) < 0) {
			disk->failed = EIO;
			return err_set(err, ERR_BACKEND, "disk %u: %s", i, nbd_get_error());
		}
	}
	return 0;
}

int guest_disks_flush(struct guest *guest, struct err *err)
{
	return guest_disks_flush_begin(guest, err) == 0 ? wait_for_answers(guest, true, err) : -1;
}

bool guest_disks_alive(struct guest *guest)
{
	for (unsigned i = 0; i < guest->disk_count; i++)
		if (guest->disks[i].failed != 0 || nbd_aio_is_ready(guest->disks[i].nbd) != 1)
			return false;
	return guest->backend.pid == 0 || proc_alive(&guest->backend);
}

void guest_backend_end(struct guest *guest)
{
	char file[LIMIT_NAME + 16], path[LIMIT_PATH];
	struct qmp *qmp;
	struct err err = { 0 };
	static const enum sim_path sockets[] = { SIM_PATH_QMP, SIM_PATH_QMP_LEG, SIM_PATH_NBD };
	if (guest->backend.pid == 0)
		return;
	/* While we are connected: it closes the images by itself, in its own thread. */
	if (proc_alive(&guest->backend) && open_monitor(guest, 0, &qmp, &err) == 0) {
		qmp_run(qmp, "quit", NULL, END_MS, NULL, NULL);
		qmp_close(qmp);
		int64_t deadline_ms = disk_now_ms() + END_MS;
		short none;
		while (proc_alive(&guest->backend) && disk_now_ms() < deadline_ms)
			disk_wait(NULL, -1, 0, disk_now_ms() + STEP_MS, &none, NULL);
	}
	if (proc_alive(&guest->backend))
		log_warning("guest=%s the block backend has not ended and is killed", guest->record.name);
	proc_kill(&guest->backend, END_MS, NULL);
	for (unsigned i = 0; i < guest->disk_count; i++)
		nbd_close(guest->disks[i].nbd);
	for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++)
		if (sim_path(&guest->paths, guest->record.name, sockets[i], path, NULL) == 0)
			unlink(path);
	snprintf(file, sizeof(file), "backend-%s", guest->record.name);
	paths_remove_pid(&guest->paths, file);
}
