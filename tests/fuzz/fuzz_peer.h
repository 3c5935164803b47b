/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The input plays whoever is on the other end of a connection. For targets linked with --wrap=disk_connect_unix, each
 * connection gets the next part of the input, up to a byte 0xff, and then hears that the peer has hung up; when the
 * input has ended nobody listens any more, and the time is over, so that nothing is waited for.
 */
#ifndef DROVER_FUZZ_PEER_H
#define DROVER_FUZZ_PEER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/disk/wait.h"
#include "tests/fuzz/fuzz_main.h"

#define FUZZ_PEERS_MAX 32
#define FUZZ_PEER_END 0xff
#define FUZZ_PEER_LATER_MS INT64_C(3600000)

static struct {
	struct fuzz_input input;
	bool over;
	const int *give; /* two descriptors that go with the first byte; NULL: none */
	int ends[FUZZ_PEERS_MAX];
	unsigned count;
} fuzz_peer;

/* A socket that leads to who says `part` and hangs up. */
static inline int fuzz_peer_make(const struct fuzz_input *part, const int *give)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct iovec place = { (void *)(uintptr_t)part->at, part->left };
	struct msghdr header = { .msg_iov = &place, .msg_iovlen = 1 };
	int pair[2];
	if (fuzz_peer.count == FUZZ_PEERS_MAX)
		return -1;
	fuzz_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0, "socketpair", NULL);
	if (give != NULL) {
		header.msg_control = control.bytes;
		header.msg_controllen = sizeof(control.bytes);
		struct cmsghdr *item = CMSG_FIRSTHDR(&header);
		item->cmsg_level = SOL_SOCKET;
		item->cmsg_type = SCM_RIGHTS;
		item->cmsg_len = CMSG_LEN(2 * sizeof(int));
		memcpy(CMSG_DATA(item), give, 2 * sizeof(int));
	}
	if (part->left > 0)
		fuzz_must(sendmsg(pair[1], &header, MSG_NOSIGNAL) > 0, "send", NULL);
	shutdown(pair[1], SHUT_WR);
	fuzz_peer.ends[fuzz_peer.count++] = pair[1];
	return pair[0];
}

static inline void fuzz_peer_begin(const uint8_t *data, size_t bytes)
{
	fuzz_peer.input = (struct fuzz_input) { data, bytes };
	fuzz_peer.over = bytes == 0;
	fuzz_peer.give = NULL;
}

static inline void fuzz_peer_end(void)
{
	while (fuzz_peer.count > 0)
		close(fuzz_peer.ends[--fuzz_peer.count]);
}

/* Nothing is waited for that only time can bring. */
int __real_disk_wait(const struct disk_cancel *cancel, int fd, short events, int64_t deadline_ms, short *ret_events,
                     struct err *err);
int __wrap_disk_wait(const struct disk_cancel *cancel, int fd, short events, int64_t deadline_ms, short *ret_events,
                     struct err *err);
int __wrap_disk_wait(const struct disk_cancel *cancel, int fd, short events, int64_t deadline_ms, short *ret_events,
                     struct err *err)
{
	return __real_disk_wait(cancel, fd, events, fd < 0 ? 0 : deadline_ms, ret_events, err);
}

int64_t __real_disk_now_ms(void);
int64_t __wrap_disk_now_ms(void);
int64_t __wrap_disk_now_ms(void)
{
	return __real_disk_now_ms() + (fuzz_peer.over ? FUZZ_PEER_LATER_MS : 0);
}

int __wrap_disk_connect_unix(const struct disk_cancel *cancel, const char *path, int64_t deadline_ms, int *ret_fd,
                             struct err *err);
int __wrap_disk_connect_unix(const struct disk_cancel *cancel, const char *path, int64_t deadline_ms, int *ret_fd,
                             struct err *err)
{
	(void)cancel;
	(void)deadline_ms;
	int fd = -1;
	if (!fuzz_peer.over) {
		struct fuzz_input part = fuzz_part(&fuzz_peer.input, FUZZ_PEER_END);
		fuzz_peer.over = fuzz_peer.input.left == 0;
		fd = fuzz_peer_make(&part, fuzz_peer.give);
	}
	fuzz_peer.over |= fd < 0;
	if (fd < 0)
		return err_set(err, ERR_UNREACHABLE, "connect %s: nobody is there", path);
	*ret_fd = fd;
	return 0;
}

#endif
