/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What all exporters have in common: connecting, reading back, the fence. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/disk/exporter_int.h"
#include "agent/disk/nbdio.h"

#define EXPORTER_SECTOR_BYTES 512u
#define EXPORTER_READ_MS 60000
#define EXPORTER_UNMOUNT_MS 5000

int exporter_file(const struct exporter *exporter, const char *name, char ret_path[LIMIT_PATH], struct err *err)
{
	int n = snprintf(ret_path, LIMIT_PATH, "%s/%s", exporter->dir, name);
	if (n < 0 || n >= 100) /* sun_path, with room for what tgtd appends */
		return err_set(err, ERR_CONFIG, "%s: path too long for a socket in it", exporter->dir);
	return 0;
}

void exporter_last_words(const struct exporter *exporter, const char *log_name, char *ret_text, size_t bytes)
{
	char path[LIMIT_PATH], text[512];
	ret_text[0] = '\0';
	if (exporter_file(exporter, log_name, path, NULL) < 0)
		return;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	off_t end = lseek(fd, 0, SEEK_END);
	off_t from = end > (off_t)sizeof(text) - 1 ? end - (off_t)sizeof(text) + 1 : 0;
	ssize_t got = pread(fd, text, sizeof(text) - 1, from);
	close(fd);
	while (got > 0 && text[got - 1] == '\n')
		got--;
	text[got > 0 ? got : 0] = '\0';
	const char *line = strrchr(text, '\n');
	snprintf(ret_text, bytes, "%s", line ? line + 1 : text);
}

int exporter_quit(const struct proc_id *process, unsigned timeout_ms, struct err *err)
{
	int fd = pidfd_open(process->pid, 0);
	if (fd < 0 && errno == ESRCH)
		return 0;
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "quit %d", (int)process->pid);
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	int64_t deadline_ms = disk_now_ms() + timeout_ms;
	int n = 0;
	if (proc_alive(process) && pidfd_send_signal(fd, SIGTERM, NULL, 0) == 0) {
		do {
			int64_t left = deadline_ms - disk_now_ms();
			n = poll(&wait, 1, left < 0 ? 0 : (int)left);
		} while (n < 0 && errno == EINTR);
	}
	close(fd);
	if (n <= 0 && proc_alive(process))
		return err_set(err, ERR_TIMEOUT, "process %d does not end within %u ms", (int)process->pid, timeout_ms);
	int status = 0;
	if (waitpid(process->pid, &status, WNOHANG) == process->pid && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		return err_set(err, ERR_EXPORTER, "process %d did not end well (status %d)", (int)process->pid, status);
	return 0;
}

/* What a dead leg may have left at this place: a FUSE mount of a process that is gone. */
static void unmount(const struct exporter *exporter)
{
	const char *argv[] = { "fusermount3", "-u", "-z", exporter->fuse_path, NULL };
	if (exporter->fuse_path[0] == '\0')
		return;
	if (umount2(exporter->fuse_path, MNT_DETACH) < 0 && errno == EPERM && access(exporter->fuse_path, F_OK) < 0 &&
	    errno == ENOTCONN) /* not root, and really a dead mount */
		proc_run(argv, NULL, NULL, NULL, EXPORTER_UNMOUNT_MS, NULL);
}

static void remove_files(const struct exporter *exporter)
{
	static const char *const names[] = { "nbd.sock",   "tgt.0",    "tgt.0.lock", EXPORTER_FUSE_NAME,
		                             "nbdkit.log", "qemu.log", "tgtd.log" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[LIMIT_PATH];
		if (exporter_file(exporter, names[i], path, NULL) == 0)
			unlink(path);
	}
}

int exporter_clean(const char *dir, struct err *err)
{
	struct exporter left = { 0 };
	if (strlen(dir) >= LIMIT_PATH)
		return err_set(err, ERR_USAGE, "%s: path too long", dir);
	if (access(dir, F_OK) < 0 && errno == ENOENT)
		return 0;
	strcpy(left.dir, dir);
	if (exporter_file(&left, EXPORTER_FUSE_NAME, left.fuse_path, err) < 0)
		return -1;
	unmount(&left);
	remove_files(&left);
	/* a mount that is still there keeps its mount point: lstat finds it, or fails with ENOTCONN */
	struct stat st;
	if (lstat(left.fuse_path, &st) == 0 || errno != ENOENT)
		return err_set(err, ERR_IO, "%s: cannot be unmounted and removed", left.fuse_path);
	return 0;
}

static void exporter_free(struct exporter *exporter)
{
	remove_files(exporter);
	free(exporter);
}

int exporter_start(struct exporter **ret_exporter, enum exporter_kind kind, const char *dir, const char *path,
                   enum disk_format format, uint64_t size_bytes, const char *disk_name, uint64_t migration,
                   struct exporter_access *ret_access, struct err *err)
{
	struct exporter_access access = { .kind = kind, .size_bytes = size_bytes };
	int result;
	if (size_bytes == 0 || size_bytes % EXPORTER_SECTOR_BYTES != 0)
		return err_set(err, ERR_USAGE, "disk %s: its size is not a multiple of 512", disk_name);
	if (strlen(dir) >= LIMIT_PATH || strlen(path) >= LIMIT_PATH || path[0] != '/')
		return err_set(err, ERR_USAGE, "disk %s: bad path", disk_name);
	struct exporter *exporter = calloc(1, sizeof(*exporter));
	if (!exporter)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	exporter->kind = kind;
	exporter->format = format;
	exporter->size_bytes = size_bytes;
	strcpy(exporter->dir, dir);
	strcpy(exporter->path, path);
	if (kind == EXPORTER_ISCSI && format == FORMAT_QCOW2 &&
	    exporter_file(exporter, EXPORTER_FUSE_NAME, exporter->fuse_path, err) < 0) {
		free(exporter);
		return -1;
	}
	unmount(exporter);
	remove_files(exporter);
	if (kind == EXPORTER_ISCSI)
		result = exporter_iscsi_start(exporter, disk_name, migration, &access, err);
	else
		result = exporter_nbd_start(exporter, &access, err);
	if (result < 0) {
		exporter_kill(exporter);
		return err_wrap(err, "export of disk %s over %s", disk_name, exporter_name(kind));
	}
	*ret_exporter = exporter;
	*ret_access = access;
	return 0;
}

static int connect_port(uint16_t port, struct err *err)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		                       .sin_port = htons(port),
		                       .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int errnum = 0;
	socklen_t length = sizeof(errnum);
	short events = 0;
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "socket");
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 && errno != EINPROGRESS)
		errnum = errno;
	else if (disk_wait(NULL, fd, POLLOUT, disk_now_ms() + EXPORTER_CONNECT_MS, &events, err) < 0)
		errnum = EIO;
	else if (!events)
		errnum = ETIMEDOUT;
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &length) < 0)
		errnum = errno;
	if (errnum != 0) {
		close(fd);
		return err_errno(err, ERR_EXPORTER, errnum, "connect to the exporter");
	}
	return fd;
}

int exporter_connect(struct exporter *exporter, struct err *err)
{
	struct err why = { 0 };
	int fd = -1;
	if (exporter->kind == EXPORTER_ISCSI)
		fd = connect_port(exporter->port, &why);
	else if (disk_connect_unix(NULL, exporter->socket, disk_now_ms() + EXPORTER_CONNECT_MS, &fd, &why) < 0)
		fd = -1;
	/* the relay expects a plain blocking socket, and sets what it needs */
	if (fd >= 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return err_set(err, ERR_EXPORTER, "exporter: %.400s", why.text);
}

unsigned exporter_processes(const struct exporter *exporter, struct proc_id *ret_ids, unsigned room)
{
	unsigned count = exporter->process_count < room ? exporter->process_count : room;
	for (unsigned i = 0; i < count; i++)
		ret_ids[i] = exporter->processes[i];
	return count;
}

bool exporter_alive(const struct exporter *exporter)
{
	for (unsigned i = 0; i < exporter->process_count; i++)
		if (!proc_alive(&exporter->processes[i]))
			return false;
	return exporter->process_count > 0;
}

/* One granule as it is stored: through `nbd` if there is one, else from `fd`. */
static int read_back(struct nbd_handle *nbd, int fd, uint64_t offset, unsigned char *buffer, size_t bytes,
                     struct err *err)
{
	if (nbd) {
		int64_t cookie = nbd_aio_pread(nbd, buffer, bytes, offset, NBD_NULL_COMPLETION, 0);
		return nbdio_finish(nbd, cookie, NULL, disk_now_ms() + EXPORTER_READ_MS, err);
	}
	for (size_t done = 0; done < bytes;) {
		ssize_t got = pread(fd, buffer + done, bytes - done, (off_t)(offset + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return err_errno(err, ERR_IO, got < 0 ? errno : ENODATA, "read back");
		done += (size_t)got;
	}
	return 0;
}

/* A way to read what is stored, beside the write path. */
struct back {
	struct nbd_handle *nbd;
	int fd;
	unsigned char *granule; /* DISK_GRANULE_BYTES */
};

static int back_open(struct exporter *exporter, struct back *back, struct err *err)
{
	*back = (struct back) { .fd = -1, .granule = malloc(DISK_GRANULE_BYTES) };
	if (!back->granule)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	if (exporter->format == FORMAT_QCOW2 && exporter->kind == EXPORTER_NBD)
		return nbdio_open_unix(&back->nbd, exporter->socket, exporter->name, NULL, NULL, err);
	const char *path = exporter->fuse_path[0] ? exporter->fuse_path : exporter->path;
	back->fd = open(path, O_RDONLY | O_CLOEXEC);
	return back->fd < 0 ? err_errno(err, ERR_IO, errno, "open %s", path) : 0;
}

static void back_close(struct back *back)
{
	nbdio_close(back->nbd);
	if (back->fd >= 0)
		close(back->fd);
	free(back->granule);
}

/* Fills back->granule. */
static int back_read(const struct exporter *exporter, struct back *back, uint32_t granule, size_t *ret_bytes,
                     struct err *err)
{
	uint64_t offset = (uint64_t)granule * DISK_GRANULE_BYTES;
	if (offset >= exporter->size_bytes)
		return err_set(err, ERR_PROTOCOL, "read back: granule %u is beyond the disk", granule);
	uint64_t left = exporter->size_bytes - offset;
	*ret_bytes = left < DISK_GRANULE_BYTES ? (size_t)left : DISK_GRANULE_BYTES;
	return read_back(back->nbd, back->fd, offset, back->granule, *ret_bytes, err);
}

int exporter_digests(struct exporter *exporter, const uint32_t *granules, size_t count, uint64_t *ret_digests,
                     struct err *err)
{
	struct back back;
	size_t bytes = 0;
	int result = back_open(exporter, &back, err);
	for (size_t i = 0; i < count && result == 0; i++) {
		result = back_read(exporter, &back, granules[i], &bytes, err);
		if (result == 0)
			ret_digests[i] = XXH3_64bits(back.granule, bytes);
	}
	back_close(&back);
	return result;
}

struct disk_mark disk_mark_of(const void *bytes, size_t count, uint64_t seed)
{
	XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, count, seed);
	return (struct disk_mark) { hash.low64, hash.high64 };
}

int exporter_marks(struct exporter *exporter, uint64_t seed, uint32_t first, uint32_t count,
                   struct disk_mark *ret_marks, struct err *err)
{
	struct back back;
	size_t bytes = 0;
	int result = back_open(exporter, &back, err);
	for (uint32_t i = 0; i < count && result == 0; i++) {
		result = back_read(exporter, &back, first + i, &bytes, err);
		if (result == 0)
			ret_marks[i] = disk_mark_of(back.granule, bytes, seed);
	}
	back_close(&back);
	return result;
}

static int sync_image(const char *path, struct err *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "open %s", path);
	int result = fsync(fd);
	int saved = errno;
	close(fd);
	return result < 0 ? err_errno(err, ERR_IO, saved, "fsync %s", path) : 0;
}

/* A qcow2 image has metadata in its QEMU, which must close it itself. What clients talk to goes first, with SIGKILL:
 * what was flushed is in the file or in QEMU, and what was not was never acknowledged as flushed. */
int exporter_revoke(struct exporter *exporter, struct err *err)
{
	int result = 0;
	for (unsigned i = 0; i < exporter->process_count; i++) {
		const struct proc_id *process = &exporter->processes[i];
		bool last = i + 1 == exporter->process_count;
		if (!proc_alive(process))
			result = err_set(err, ERR_EXPORTER, "an exporter process ended before the fence");
		else if (exporter->format == FORMAT_QCOW2 && last)
			result = exporter_quit(process, EXPORTER_QUIT_MS, err);
		else
			result = proc_kill(process, EXPORTER_KILL_MS, err);
		if (result < 0)
			break;
	}
	if (result == 0)
		result = sync_image(exporter->path, err);
	if (result < 0) {
		exporter_kill(exporter);
		return err_wrap(err, "fence");
	}
	exporter_free(exporter);
	return 0;
}

void exporter_kill(struct exporter *exporter)
{
	if (!exporter)
		return;
	for (unsigned i = 0; i < exporter->process_count; i++)
		proc_kill(&exporter->processes[i], EXPORTER_KILL_MS, NULL);
	unmount(exporter);
	exporter_free(exporter);
}

void exporter_end(struct exporter *exporter, unsigned timeout_ms)
{
	for (unsigned i = 0; i < exporter->process_count; i++) {
		bool last = i + 1 == exporter->process_count;
		if (!last || exporter->format != FORMAT_QCOW2 ||
		    exporter_quit(&exporter->processes[i], timeout_ms, NULL) < 0)
			proc_kill(&exporter->processes[i], EXPORTER_KILL_MS, NULL);
	}
}
