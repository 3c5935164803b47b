/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xc_domain_save() as libxc has it, over a VM that is not there: the same calls in the same order, rounds that get
 * smaller, tidying up at the end whatever happens. What it did is in the stream: a word a round, "last" and 8 zero
 * bytes, which are libxc's end.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenguest.h>

static int handle;

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *builder, unsigned flags)
{
	(void)builder;
	(void)flags;
	va_list none;
	memset(&none, 0, sizeof(none));
	if (getenv("FAKE_XC_NONE") != NULL) {
		errno = ENOENT;
		return NULL;
	}
	logger->vmessage(logger, XTL_DETAIL, -1, "xc", "fake", none);
	return (xc_interface *)&handle;
}

int xc_interface_close(xc_interface *xch)
{
	(void)xch;
	return 0;
}

static int put(int fd, const char *words, size_t bytes)
{
	return write(fd, words, bytes) == (ssize_t)bytes ? 0 : -1;
}

static int rounds(int fd, struct save_callbacks *callbacks)
{
	struct precopy_stats stats = { .iteration = 0, .total_written = 0, .dirty_count = 1044480 };
	for (;;) {
		char words[16];
		int next = callbacks->precopy_policy(stats, callbacks->data);
		if (next == XGS_POLICY_ABORT)
			return -1;
		if (next == XGS_POLICY_STOP_AND_COPY)
			return 0;
		if (stats.dirty_count >= 0) {
			snprintf(words, sizeof(words), "round%u ", stats.iteration);
			if (put(fd, words, strlen(words)) != 0)
				return -1;
			stats.iteration++;
			stats.dirty_count = -1;
		} else {
			stats.dirty_count = 500;
		}
	}
}

int xc_domain_save(xc_interface *xch, int io_fd, uint32_t dom, uint32_t flags, struct save_callbacks *callbacks,
                   xc_stream_type_t stream_type, int recv_fd)
{
	static const char end[8] = { 0 };
	(void)xch;
	(void)recv_fd;
	if (flags != XCFLAGS_LIVE || stream_type != XC_STREAM_PLAIN ||
	    callbacks->switch_qemu_logdirty(dom, 1, callbacks->data) != 0)
		return -1;
	int result = rounds(io_fd, callbacks);
	if (result == 0)
		result = callbacks->suspend(callbacks->data) == 1 ? 0 : -1;
	if (result == 0)
		result = put(io_fd, "last", 4) != 0 || put(io_fd, end, sizeof(end)) != 0 ? -1 : 0;
	(void)callbacks->switch_qemu_logdirty(dom, 0, callbacks->data);
	return result;
}
