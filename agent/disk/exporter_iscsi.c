/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iSCSI on loopback: a tgtd for this one disk, with a control socket, a target name and a CHAP secret of its own. The
 * initiator is bound by its name and by CHAP, never by address as well: tgtd takes those as "or". A qcow2 image is
 * shown to it as a raw file by a qemu-storage-daemon over FUSE.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/disk/exporter_int.h"
#include "common/clock.h"

#define EXPORTER_SECRET_BYTES 16 /* of randomness; twice that in hex digits */
#define EXPORTER_NAME_BYTES 8
#define EXPORTER_PORT_TRIES 8 /* a port that was free may be taken before tgtd has it */
#define EXPORTER_TARGET 1

static int pick_port(uint16_t *ret_port, struct err *err)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "socket");
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
		int saved = errno;
		close(fd);
		return err_errno(err, ERR_IO, saved, "no free port on loopback");
	}
	close(fd);
	*ret_port = ntohs(address.sin_port);
	return 0;
}

/* Waits until `ready` says so; 0 if the process has ended or is late. */
static bool wait_for(const struct proc_id *process, bool (*ready)(const struct exporter *),
                     const struct exporter *exporter)
{
	int64_t deadline_ms = disk_now_ms() + EXPORTER_START_MS;
	short events;
	while (!ready(exporter)) {
		if (!proc_alive(process) || disk_now_ms() > deadline_ms)
			return false;
		if (disk_wait(NULL, -1, 0, disk_now_ms() + EXPORTER_POLL_MS, &events, NULL) < 0)
			return false;
	}
	return true;
}

static bool fuse_ready(const struct exporter *exporter)
{
	struct stat file, directory;
	return stat(exporter->fuse_path, &file) == 0 && stat(exporter->dir, &directory) == 0 &&
	       file.st_dev != directory.st_dev && (uint64_t)file.st_size == exporter->size_bytes;
}

/* Quotes for QEMU's option lists: a comma is doubled. */
static int append_quoted(char *text, size_t room, const char *value)
{
	size_t n = strlen(text);
	for (; *value; value++) {
		if (n + 3 > room)
			return -1;
		text[n++] = *value;
		if (*value == ',')
			text[n++] = ',';
	}
	text[n] = '\0';
	return 0;
}

static int start_fuse(struct exporter *exporter, struct proc_id *ret_process, struct err *err)
{
	char file[2 * LIMIT_PATH] = "driver=file,node-name=file,discard=unmap,filename=";
	char export[2 * LIMIT_PATH] = "type=fuse,id=disk,node-name=disk,writable=on,growable=off,mountpoint=";
	char log_path[LIMIT_PATH], words[200];
	const char *env[] = { EXPORTER_MALLOC_TUNING, NULL };
	if (access("/dev/fuse", R_OK | W_OK) < 0)
		return err_set(
			err, ERR_UNSUPPORTED,
			"a qcow2 disk over iSCSI needs FUSE, and /dev/fuse cannot be used here; use NBD or raw disks");
	int fd = open(exporter->fuse_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* the mount point */
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "make %s", exporter->fuse_path);
	close(fd);
	if (append_quoted(file, sizeof(file), exporter->path) < 0 ||
	    append_quoted(export, sizeof(export), exporter->fuse_path) < 0 ||
	    exporter_file(exporter, "qemu.log", log_path, err) < 0)
		return err_set(err, ERR_CONFIG, "%s: path too long", exporter->path);
	const char *argv[] = { "qemu-storage-daemon",
		               "--blockdev",
		               file,
		               "--blockdev",
		               "driver=qcow2,node-name=disk,file=file,discard=unmap",
		               "--export",
		               export,
		               NULL };
	if (proc_start(ret_process, argv, env, log_path, -1, PROC_DIE_WITH_US, err) < 0)
		return -1;
	if (!wait_for(ret_process, fuse_ready, exporter)) {
		exporter_last_words(exporter, "qemu.log", words, sizeof(words));
		proc_kill(ret_process, EXPORTER_KILL_MS, NULL);
		return err_set(err, ERR_EXPORTER, "FUSE export did not start: %s", words);
	}
	return 0;
}

static bool tgtd_ready(const struct exporter *exporter)
{
	struct tgt_request show = { TGT_SYSTEM, TGT_SHOW, -1, UINT64_MAX, NULL };
	char path[LIMIT_PATH];
	return exporter_file(exporter, "tgt.0", path, NULL) == 0 && access(path, F_OK) == 0 &&
	       tgt_run(path, &show, "start", NULL) == 0 && tgt_listens(exporter->processes[0].pid, exporter->port);
}

static int start_tgtd(struct exporter *exporter, struct err *err)
{
	char socket_env[LIMIT_PATH + 32], portal[64], log_path[LIMIT_PATH], words[200] = "";
	const char *env[] = { EXPORTER_MALLOC_TUNING, socket_env, NULL };
	/* tgtd is in sbin, which is not in everybody's PATH */
	const char *program = access("/usr/sbin/tgtd", X_OK) == 0 ? "/usr/sbin/tgtd" : "tgtd";
	const char *argv[] = { program, "--foreground", "--control-port", "0", "--nr_iothreads=4", "--iscsi", portal,
		               NULL };
	snprintf(socket_env, sizeof(socket_env), "TGT_IPC_SOCKET=%s/tgt", exporter->dir);
	if (exporter_file(exporter, "tgtd.log", log_path, err) < 0)
		return -1;
	for (unsigned i = 0; i < EXPORTER_PORT_TRIES; i++) {
		if (pick_port(&exporter->port, err) < 0)
			return -1;
		snprintf(portal, sizeof(portal), "portal=127.0.0.1:%u", exporter->port);
		if (proc_start(&exporter->processes[0], argv, env, log_path, -1, PROC_DIE_WITH_US, err) < 0)
			return -1;
		if (wait_for(&exporter->processes[0], tgtd_ready, exporter))
			return 0;
		exporter_last_words(exporter, "tgtd.log", words, sizeof(words));
		if (proc_kill(&exporter->processes[0], EXPORTER_KILL_MS, err) < 0)
			return -1;
	}
	return err_set(err, ERR_EXPORTER, "tgtd did not start: %s", words);
}

static int make_target(const struct exporter *exporter, const struct exporter_access *access, struct err *err)
{
	const char *image = exporter->fuse_path[0] ? exporter->fuse_path : exporter->path;
	char socket[LIMIT_PATH], target[LIMIT_ID + 32], device[LIMIT_PATH + 32], account[3 * LIMIT_NAME],
		user[2 * LIMIT_NAME], initiator[LIMIT_ID + 32];
	struct {
		struct tgt_request request;
		const char *what;
	} const steps[] = {
		{ { TGT_TARGET, TGT_NEW, EXPORTER_TARGET, UINT64_MAX, target }, "new target" },
		{ { TGT_DEVICE, TGT_NEW, EXPORTER_TARGET, EXPORTER_ISCSI_LUN, device }, "new unit" },
		{ { TGT_DEVICE, TGT_UPDATE, EXPORTER_TARGET, EXPORTER_ISCSI_LUN, "targetOps thin_provisioning=1," },
		  "unmapping" },
		{ { TGT_TARGET, TGT_UPDATE, EXPORTER_TARGET, UINT64_MAX, "MaxRecvDataSegmentLength=262144" },
		  "segment length" },
		{ { TGT_TARGET, TGT_UPDATE, EXPORTER_TARGET, UINT64_MAX, "nop_interval=0" }, "no NOPs" },
		{ { TGT_ACCOUNT, TGT_NEW, -1, UINT64_MAX, account }, "new account" },
		{ { TGT_ACCOUNT, TGT_BIND, EXPORTER_TARGET, UINT64_MAX, user }, "bind account" },
		{ { TGT_TARGET, TGT_BIND, EXPORTER_TARGET, UINT64_MAX, initiator }, "bind initiator" },
	};
	if (strchr(image, ',')) /* tgtd splits its parameters there, and knows no quoting */
		return err_set(err, ERR_UNSUPPORTED, "%s: iSCSI cannot export a path with a comma", image);
	if (exporter_file(exporter, "tgt.0", socket, err) < 0)
		return -1;
	snprintf(target, sizeof(target), "targetname=%s", access->export_name);
	snprintf(device, sizeof(device), "path=%s,bstype=rdwr", image);
	snprintf(account, sizeof(account), "user=%s,password=%s", access->user, access->secret);
	snprintf(user, sizeof(user), "user=%s", access->user);
	snprintf(initiator, sizeof(initiator), "initiator-name=%s%s", access->export_name, EXPORTER_INITIATOR_SUFFIX);
	int result = 0;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && result == 0; i++)
		result = tgt_run(socket, &steps[i].request, steps[i].what, err);
	explicit_bzero(account, sizeof(account));
	return result;
}

static void make_access(struct exporter_access *access, const char *disk_name, uint64_t migration)
{
	char name[17] = "", random[2 * EXPORTER_NAME_BYTES + 1];
	size_t n = 0;
	/* an IQN has lower-case letters, digits, '-', '.' and ':' only */
	for (; *disk_name && n < sizeof(name) - 1; disk_name++) {
		int c = tolower((unsigned char)*disk_name);
		name[n++] = (char)((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '-');
	}
	name[n] = '\0';
	random_hex(random, EXPORTER_NAME_BYTES);
	snprintf(access->export_name, sizeof(access->export_name), "iqn.2026-11.org.drover:m%" PRIu64 "-%s-%s",
	         migration, name, random);
	snprintf(access->user, sizeof(access->user), "m%" PRIu64 "-%s", migration, name);
	random_hex(access->secret, EXPORTER_SECRET_BYTES);
	access->lun = EXPORTER_ISCSI_LUN;
}

int exporter_iscsi_start(struct exporter *exporter, const char *disk_name, uint64_t migration,
                         struct exporter_access *ret_access, struct err *err)
{
	struct proc_id qemu = { 0 };
	make_access(ret_access, disk_name, migration);
	if (exporter->fuse_path[0] && start_fuse(exporter, &qemu, err) < 0)
		return -1;
	int result = start_tgtd(exporter, err);
	if (result == 0)
		exporter->process_count = 1;
	if (exporter->fuse_path[0])
		exporter->processes[exporter->process_count++] = qemu;
	return result < 0 ? -1 : make_target(exporter, ret_access, err);
}
