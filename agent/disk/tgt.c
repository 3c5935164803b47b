/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tgtd's management socket. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/disk/exporter_int.h"

#define TGT_REQUEST_MS 10000
#define TGT_PARAMS_BYTES 1024u
#define TGT_TCP_LISTEN 0x0A

/* As it is on the socket, in host byte order. `length` counts this and the params with their NUL. */
struct tgt_packet {
	uint32_t mode, op;
	char driver[64];
	uint32_t length;
	int32_t target;
	uint64_t session, lun;
	uint32_t connection, host, device_type, account_direction, pack, force;
};
_Static_assert(sizeof(struct tgt_packet) == 120, "tgtd expects 120 bytes");

struct tgt_reply {
	uint32_t error, length;
};

static int send_all(int fd, const void *bytes, size_t count)
{
	for (size_t done = 0; done < count;) {
		ssize_t sent = send(fd, (const char *)bytes + done, count - done, MSG_NOSIGNAL);
		short events;
		if (sent > 0)
			done += (size_t)sent;
		else if (sent < 0 && errno != EAGAIN && errno != EINTR)
			return -1;
		else if (disk_wait(NULL, fd, POLLOUT, disk_now_ms() + TGT_REQUEST_MS, &events, NULL) < 0 || !events)
			return -1;
	}
	return 0;
}

static int receive_all(int fd, void *bytes, size_t count)
{
	for (size_t done = 0; done < count;) {
		ssize_t got = recv(fd, (char *)bytes + done, count - done, 0);
		short events;
		if (got > 0)
			done += (size_t)got;
		else if (got == 0 || (errno != EAGAIN && errno != EINTR))
			return -1;
		else if (disk_wait(NULL, fd, POLLIN, disk_now_ms() + TGT_REQUEST_MS, &events, NULL) < 0 || !events)
			return -1;
	}
	return 0;
}

int tgt_run(const char *socket_path, const struct tgt_request *request, const char *what, struct err *err)
{
	size_t params = request->params ? strlen(request->params) + 1 : 0;
	unsigned char bytes[sizeof(struct tgt_packet) + TGT_PARAMS_BYTES];
	struct tgt_packet packet = { .mode = (uint32_t)request->mode,
		                     .op = (uint32_t)request->op,
		                     .driver = "iscsi",
		                     .length = (uint32_t)(sizeof(packet) + params),
		                     .target = request->target,
		                     .lun = request->lun };
	struct tgt_reply reply = { 0 };
	int fd;
	if (params > TGT_PARAMS_BYTES)
		return err_set(err, ERR_INTERNAL, "tgtd: %s: too long", what);
	memcpy(bytes, &packet, sizeof(packet));
	if (params > 0)
		memcpy(bytes + sizeof(packet), request->params, params);
	if (disk_connect_unix(NULL, socket_path, disk_now_ms() + TGT_REQUEST_MS, &fd, err) < 0)
		return -1;
	int result = send_all(fd, bytes, packet.length);
	explicit_bzero(bytes, sizeof(bytes)); /* one of them holds the secret */
	if (result == 0)
		result = receive_all(fd, &reply, sizeof(reply));
	close(fd);
	if (result < 0)
		return err_set(err, ERR_EXPORTER, "tgtd: %s: no answer", what);
	if (reply.error != 0)
		return err_set(err, ERR_EXPORTER, "tgtd: %s: refused with error %u", what, reply.error);
	return 0;
}

/* The inode of the socket that listens on 127.0.0.1:port; 0 if there is none. */
static unsigned long listener_inode(uint16_t port)
{
	FILE *file = fopen("/proc/net/tcp", "re");
	char line[512];
	unsigned long found = 0;
	while (file && !found && fgets(line, sizeof(line), file)) {
		unsigned address, local_port, state;
		unsigned long inode;
		if (sscanf(line, "%*d: %x:%x %*x:%*x %x %*x:%*x %*x:%*x %*x %*u %*d %lu", &address, &local_port, &state,
		           &inode) == 4 &&
		    address == 0x0100007F && local_port == port && state == TGT_TCP_LISTEN)
			found = inode;
	}
	if (file)
		fclose(file);
	return found;
}

bool tgt_listens(pid_t pid, uint16_t port)
{
	unsigned long inode = listener_inode(port);
	char path[64], wanted[64];
	bool found = false;
	if (inode == 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
	DIR *directory = opendir(path);
	struct dirent *entry;
	while (directory && !found && (entry = readdir(directory))) {
		char target[64];
		ssize_t n = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		found = strcmp(target, wanted) == 0;
	}
	if (directory)
		closedir(directory);
	return found;
}
