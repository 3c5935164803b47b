/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A running VM's disk for tests: an image in a temporary directory, served by a real qemu-storage-daemon whose node
 * lives in an iothread, as in Xen's QEMU; and a guest, a thread that writes through it all the time.
 */
#ifndef DROVER_TEST_DISK_FIXTURE_H
#define DROVER_TEST_DISK_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/disk/disk.h"
#include "agent/disk/wait.h"
#include "common/proc.h"

#define FIXTURE_DEADLINE_MS 20000
#define FIXTURE_MIGRATION 17

struct fixture_guest {
	pthread_t thread;
	struct nbd_handle *nbd;
	_Atomic bool stop, failed;
	_Atomic uint64_t writes;
	uint64_t size_bytes;
	uint64_t seed;
	unsigned pause_us; /* between writes */
};

struct fixture {
	char dir[128];
	char error_text[LIMIT_TEXT];
	struct hypervisor_disk disk;
	struct proc_id backend;
	struct fixture_guest guest;
};

static inline uint64_t fixture_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static inline void fixture_fill(unsigned char *bytes, size_t count, uint64_t *seed)
{
	for (size_t i = 0; i + 8 <= count; i += 8) {
		uint64_t word = fixture_random(seed);
		memcpy(bytes + i, &word, 8);
	}
}

/* Fails the test with the words of the error. */
static inline void fixture_ok(int result, const struct err *err)
{
	if (result < 0)
		fail_msg("%s: %s", err_name(err->code), err->text);
}

static inline void fixture_dir(struct fixture *f)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(f->dir, sizeof(f->dir), "%s/drover-disk-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
}

static inline void fixture_dir_remove(struct fixture *f)
{
	const char *argv[] = { "rm", "-rf", f->dir, NULL };
	proc_run(argv, NULL, NULL, NULL, 10000, NULL);
}

/* A sparse raw image: about a third random, some of it zeroes that were written, the rest holes. */
static inline void fixture_image(const char *path, uint64_t size_bytes, uint64_t seed)
{
	static unsigned char block[256 * 1024];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
	for (uint64_t at = 0; at < size_bytes; at += sizeof(block)) {
		uint64_t kind = fixture_random(&seed) % 6;
		size_t bytes = size_bytes - at < sizeof(block) ? (size_t)(size_bytes - at) : sizeof(block);
		if (kind > 2)
			continue;
		memset(block, 0, sizeof(block));
		if (kind > 0)
			fixture_fill(block, kind == 1 ? sizeof(block) : 70000, &seed);
		assert_int_equal(pwrite(fd, block, bytes, (off_t)at), (ssize_t)bytes);
	}
	close(fd);
}

/* Starts the block backend for f->disk.path. with_server: the NBD server, through which the guest comes. */
static inline void fixture_backend(struct fixture *f)
{
	char file[LIMIT_PATH + 64], format[128], server[LIMIT_PATH + 64], chardev[LIMIT_PATH + 64], log[LIMIT_PATH],
		pid_path[LIMIT_PATH];
	struct err err = { 0 };
	snprintf(f->disk.qmp_path, LIMIT_PATH, "%s/qmp.sock", f->dir);
	snprintf(f->disk.nbd_path, LIMIT_PATH, "%s/guest.sock", f->dir);
	snprintf(f->disk.node, LIMIT_NAME, "xvda-format");
	snprintf(f->disk.name, LIMIT_NAME, "xvda");
	snprintf(file, sizeof(file), "driver=file,node-name=xvda-file,discard=unmap,filename=%s", f->disk.path);
	snprintf(format, sizeof(format), "driver=%s,node-name=xvda-format,file=xvda-file,discard=unmap",
	         disk_format_name(f->disk.format));
	snprintf(server, sizeof(server), "addr.type=unix,addr.path=%s", f->disk.nbd_path);
	snprintf(chardev, sizeof(chardev), "socket,id=qmp,server=on,wait=off,path=%s", f->disk.qmp_path);
	snprintf(log, sizeof(log), "%s/backend.log", f->dir);
	snprintf(pid_path, sizeof(pid_path), "%s/backend.pid", f->dir);
	const char *argv[] = { "qemu-storage-daemon",
		               "--object",
		               "iothread,id=io0",
		               "--blockdev",
		               file,
		               "--blockdev",
		               format,
		               "--nbd-server",
		               server,
		               "--export",
		               "type=nbd,id=guest,node-name=xvda-format,name=guest,writable=on,iothread=io0",
		               "--chardev",
		               chardev,
		               "--monitor",
		               "chardev=qmp",
		               "--pidfile",
		               pid_path,
		               NULL };
	unlink(pid_path); /* of an earlier one that was killed */
	fixture_ok(proc_start(&f->backend, argv, NULL, log, -1, PROC_DIE_WITH_US, &err), &err);
	int64_t deadline_ms = disk_now_ms() + FIXTURE_DEADLINE_MS;
	/* It is not up before that: a QMP client that comes earlier may never be greeted, or crash it by leaving. */
	while (access(pid_path, F_OK) < 0) {
		assert_true(proc_alive(&f->backend));
		assert_true(disk_now_ms() < deadline_ms);
		usleep(1000);
	}
}

static inline void *fixture_guest_run(void *ctx)
{
	struct fixture_guest *guest = ctx;
	static _Thread_local unsigned char block[65536];
	while (!atomic_load(&guest->stop)) {
		size_t bytes = 4096u << (fixture_random(&guest->seed) % 5);
		uint64_t offset = fixture_random(&guest->seed) % (guest->size_bytes / 4096) * 4096;
		if (offset + bytes > guest->size_bytes)
			bytes = 4096;
		if (offset + bytes > guest->size_bytes)
			continue;
		if (fixture_random(&guest->seed) % 4 == 0)
			memset(block, 0, bytes);
		else
			fixture_fill(block, bytes, &guest->seed);
		/* what is trimmed may be given to another place at once, in qcow2 */
		bool trim = fixture_random(&guest->seed) % 8 == 0;
		if (trim ? nbd_trim(guest->nbd, bytes, offset, 0) < 0
		         : nbd_pwrite(guest->nbd, block, bytes, offset, 0) < 0) {
			atomic_store(&guest->failed, true);
			return NULL;
		}
		atomic_fetch_add(&guest->writes, 1);
		if (guest->pause_us)
			usleep(guest->pause_us); /* the guest's own pace */
	}
	if (nbd_flush(guest->nbd, 0) < 0)
		atomic_store(&guest->failed, true);
	return NULL;
}

static inline void fixture_guest_start(struct fixture *f, unsigned pause_us)
{
	struct fixture_guest *guest = &f->guest;
	guest->nbd = nbd_create();
	assert_non_null(guest->nbd);
	assert_int_equal(nbd_set_export_name(guest->nbd, "guest"), 0);
	if (nbd_connect_unix(guest->nbd, f->disk.nbd_path) < 0)
		fail_msg("guest: %s", nbd_get_error());
	guest->size_bytes = f->disk.size_bytes;
	guest->seed = 0x9e3779b97f4a7c15u;
	guest->pause_us = pause_us;
	atomic_store(&guest->stop, false);
	assert_int_equal(pthread_create(&guest->thread, NULL, fixture_guest_run, guest), 0);
}

/* Until the guest has written `count` more blocks. */
static inline void fixture_guest_wait(struct fixture *f, uint64_t count)
{
	uint64_t until = atomic_load(&f->guest.writes) + count;
	int64_t deadline_ms = disk_now_ms() + FIXTURE_DEADLINE_MS;
	while (atomic_load(&f->guest.writes) < until) {
		assert_false(atomic_load(&f->guest.failed));
		assert_true(disk_now_ms() < deadline_ms);
		usleep(1000);
	}
}

/* Stops the thread; the connection stays, since the backend does not survive its end. */
static inline void fixture_guest_stop(struct fixture *f)
{
	atomic_store(&f->guest.stop, true);
	assert_int_equal(pthread_join(f->guest.thread, NULL), 0);
	assert_false(atomic_load(&f->guest.failed));
}

/* A struct disk_flush's `run`: the guest flushes, if it has begun. */
static inline int fixture_flush(void *ctx, struct err *err)
{
	struct fixture *f = ctx;
	if (f->guest.nbd != NULL && nbd_flush(f->guest.nbd, 0) < 0)
		return err_set(err, ERR_BACKEND, "flush: %s", nbd_get_error());
	return 0;
}

static inline void fixture_backend_end(struct fixture *f)
{
	proc_kill(&f->backend, FIXTURE_DEADLINE_MS, NULL);
	nbd_close(f->guest.nbd);
	f->guest.nbd = NULL;
}

static inline void fixture_make(struct fixture *f, enum disk_format format, uint64_t size_bytes)
{
	memset(f, 0, sizeof(*f));
	fixture_dir(f);
	f->disk.format = format;
	f->disk.size_bytes = size_bytes;
	snprintf(f->disk.path, LIMIT_PATH, "%s/source.img", f->dir);
	fixture_image(f->disk.path, size_bytes, 42);
	if (format == FORMAT_QCOW2) {
		char raw[LIMIT_PATH + 8];
		struct err err = { 0 };
		snprintf(raw, sizeof(raw), "%s.raw", f->disk.path);
		assert_int_equal(rename(f->disk.path, raw), 0);
		const char *argv[] = { "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, f->disk.path, NULL };
		fixture_ok(proc_run(argv, NULL, NULL, NULL, FIXTURE_DEADLINE_MS, &err), &err);
	}
	fixture_backend(f);
}

static inline void fixture_free(struct fixture *f)
{
	fixture_backend_end(f);
	fixture_dir_remove(f);
}

/* Whether two images hold the same, each in its format. */
static inline void fixture_same(const char *a, enum disk_format a_format, const char *b, enum disk_format b_format)
{
	struct err err = { 0 };
	const char *argv[] = {
		"qemu-img", "compare", "-U", "-f", disk_format_name(a_format), "-F", disk_format_name(b_format),
		a,          b,         NULL
	};
	fixture_ok(proc_run(argv, NULL, NULL, NULL, 60000, &err), &err);
}

#endif
