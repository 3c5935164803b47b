/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* NBD on a unix socket: nbdkit for raw images, qemu-nbd for qcow2. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/disk/exporter_int.h"
#include "agent/disk/nbdio.h"
#include "common/clock.h"

#define EXPORTER_NAME_BYTES 16 /* of randomness in an export's name */

static int start_nbdkit(struct exporter *exporter, const char *log_path, struct err *err)
{
	char file[LIMIT_PATH + 8], name[LIMIT_ID + 16];
	const char *env[] = { EXPORTER_MALLOC_TUNING, NULL };
	snprintf(file, sizeof(file), "file=%s", exporter->path);
	snprintf(name, sizeof(name), "exportname=%s", exporter->name);
	const char *argv[] = { "nbdkit",
		               "--foreground",
		               "--exit-with-parent",
		               "--newstyle",
		               "--unix",
		               exporter->socket,
		               "--filter=exportname",
		               "file",
		               file,
		               "exportname-strict=true",
		               name,
		               NULL };
	return proc_start(&exporter->processes[0], argv, env, log_path, -1, PROC_DIE_WITH_US, err);
}

static int start_qemu_nbd(struct exporter *exporter, const char *log_path, struct err *err)
{
	const char *env[] = { EXPORTER_MALLOC_TUNING, NULL };
	/* shared: the sink, and whoever reads back */
	const char *argv[] = { "qemu-nbd",          "--persistent",    "--shared=4",    "--format=qcow2",
		               "--cache=writeback", "--discard=unmap", "--export-name", exporter->name,
		               "--socket",          exporter->socket,  exporter->path,  NULL };
	return proc_start(&exporter->processes[0], argv, env, log_path, -1, PROC_DIE_WITH_US, err);
}

/* Until it speaks NBD with us and has a disk of the right size. */
static int wait_ready(const struct exporter *exporter, const char *log_name, struct err *err)
{
	int64_t deadline_ms = disk_now_ms() + EXPORTER_START_MS;
	for (;;) {
		struct nbd_handle *nbd = NULL;
		struct err why = { 0 };
		char words[200];
		short events;
		if (nbdio_open_unix(&nbd, exporter->socket, exporter->name, NULL, NULL, &why) == 0) {
			int64_t size = nbd_get_size(nbd);
			nbdio_close(nbd);
			if (size != (int64_t)exporter->size_bytes)
				return err_set(err, ERR_EXPORTER, "%s has not the size that was asked for",
				               exporter->path);
			return 0;
		}
		if (!proc_alive(&exporter->processes[0]) || disk_now_ms() > deadline_ms) {
			exporter_last_words(exporter, log_name, words, sizeof(words));
			return err_set(err, ERR_EXPORTER, "the NBD server did not start: %s",
			               words[0] ? words : why.text);
		}
		if (disk_wait(NULL, -1, 0, disk_now_ms() + EXPORTER_POLL_MS, &events, err) < 0)
			return -1;
	}
}

int exporter_nbd_start(struct exporter *exporter, struct exporter_access *ret_access, struct err *err)
{
	const char *log_name = exporter->format == FORMAT_QCOW2 ? "qemu.log" : "nbdkit.log";
	char log_path[LIMIT_PATH];
	int result;
	if (exporter_file(exporter, "nbd.sock", exporter->socket, err) < 0 ||
	    exporter_file(exporter, log_name, log_path, err) < 0)
		return -1;
	random_hex(exporter->name, EXPORTER_NAME_BYTES);
	if (exporter->format == FORMAT_QCOW2)
		result = start_qemu_nbd(exporter, log_path, err);
	else
		result = start_nbdkit(exporter, log_path, err);
	if (result < 0)
		return -1;
	exporter->process_count = 1;
	if (wait_ready(exporter, log_name, err) < 0)
		return -1;
	strcpy(ret_access->export_name, exporter->name);
	return 0;
}
