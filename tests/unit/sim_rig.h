/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Simulated hosts for tests: homes under a temporary directory, VMs with disks in them. */
#ifndef DROVER_TEST_SIM_RIG_H
#define DROVER_TEST_SIM_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/disk/wait.h"
#include "agent/hypervisor/sim_control.h"
#include "agent/hypervisor/sim_record.h"
#include "common/paths.h"

#define RIG_WAIT_MS 20000 /* for a condition to come true on a loaded machine */

struct rig {
	char dir[64];
};

static inline void rig_ok(int result, const struct err *err)
{
	if (result != 0)
		fail_msg("%s: %s", err_name(err->code), err->text);
}

static inline void rig_open(struct rig *rig)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(rig->dir, sizeof(rig->dir), "%s/sim-XXXXXX", tmp != NULL && strlen(tmp) < 32 ? tmp : "/tmp");
	assert_non_null(mkdtemp(rig->dir));
}

static inline void rig_close(struct rig *rig)
{
	const char *argv[] = { "rm", "-rf", rig->dir, NULL };
	proc_run(argv, NULL, NULL, NULL, RIG_WAIT_MS, NULL);
}

static inline void rig_host(const struct rig *rig, const char *host, struct paths *paths)
{
	char path[PATHS_MAX];
	struct err err = { 0 };
	snprintf(path, sizeof(path), "%s/%s", rig->dir, host);
	rig_ok(paths_init(paths, path, &err), &err);
	rig_ok(paths_make(paths, &err), &err);
	snprintf(path, sizeof(path), "%s/%s/sr", rig->dir, host);
	assert_int_equal(mkdir(path, 0755), 0);
}

/* A sparse raw image of this size, or a qcow2 one. */
static inline void rig_image(const char *path, enum disk_format format, uint64_t bytes)
{
	char size[32];
	struct err err = { 0 };
	snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
	const char *argv[] = { "qemu-img", "create", "-q", "-f", format == FORMAT_QCOW2 ? "qcow2" : "raw",
		               path,       size,     NULL };
	rig_ok(proc_run(argv, NULL, NULL, NULL, RIG_WAIT_MS, &err), &err);
}

/* A record of a VM with a raw and a qcow2 disk, if `disks`; not saved, not started. */
static inline void rig_record(const struct paths *paths, const char *name, bool disks, struct sim_record *record)
{
	*record = (struct sim_record) { .state = SIM_RUNNING,
		                        .memory_bytes = (uint64_t)16 << 20,
		                        .vcpus = 1,
		                        .seed = 4711,
		                        .tick_ms = 10,
		                        .dirty_bps = 4u << 20,
		                        .write_bps = disks ? 2u << 20 : 0,
		                        .fill_percent = 20 };
	snprintf(record->name, sizeof(record->name), "%s", name);
	snprintf(record->guest, sizeof(record->guest), "%s", name);
	memset(record->uuid, 0x5a, sizeof(record->uuid));
	record->uuid[0] = (unsigned char)name[0];
	for (unsigned i = 0; disks && i < 2; i++) {
		struct sim_disk *disk = &record->disks[record->disk_count++];
		snprintf(disk->name, sizeof(disk->name), "xvd%c", 'a' + i);
		snprintf(disk->sr, sizeof(disk->sr), "local");
		snprintf(disk->path, sizeof(disk->path), "%.100s/sr/%.60s-%u", paths->home, name, i);
		disk->format = i == 0 ? FORMAT_RAW : FORMAT_QCOW2;
		disk->size_bytes = (uint64_t)8 << 20;
		rig_image(disk->path, disk->format, disk->size_bytes);
	}
}

static inline void rig_start(const struct paths *paths, const struct sim_record *record)
{
	struct err err = { 0 };
	rig_ok(sim_record_save(paths, record, &err), &err);
	rig_ok(sim_guest_start(paths, record->name, &err), &err);
}

/* Asks the guest; the reply's member as a number, or its text in ret_text. */
static inline long long rig_ask(const struct paths *paths, const char *name, const char *member, char ret_text[32])
{
	json_t *reply = NULL;
	struct err err = { 0 };
	rig_ok(sim_call(paths, name, json_pack("{s:s}", "op", "status"), SIM_CALL_MS, NULL, &reply, &err), &err);
	const json_t *value = json_object_get(reply, member);
	long long number = json_integer_value(value);
	if (ret_text != NULL)
		snprintf(ret_text, 32, "%s", json_is_string(value) ? json_string_value(value) : "");
	json_decref(reply);
	return number;
}

static inline void rig_pause(void)
{
	short none;
	disk_wait(NULL, -1, 0, disk_now_ms() + 2, &none, NULL);
}

static inline void rig_wait_tick(const struct paths *paths, const char *name, long long tick)
{
	int64_t deadline_ms = disk_now_ms() + RIG_WAIT_MS;
	while (rig_ask(paths, name, "tick", NULL) < tick) {
		assert_true(disk_now_ms() < deadline_ms);
		rig_pause();
	}
}

#endif
