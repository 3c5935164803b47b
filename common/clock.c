/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "common/paths.h"

static int64_t real_now_ns(const struct clock *self)
{
	(void)self;
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t real_wall_ms(const struct clock *self)
{
	(void)self;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

const struct clock clock_real = { .now_ns = real_now_ns, .wall_ms = real_wall_ms };

void random_bytes(void *buffer, size_t bytes)
{
	unsigned char *at = buffer;
	while (bytes > 0) {
		ssize_t got = getrandom(at, bytes, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			abort();
		at += got;
		bytes -= (size_t)got;
	}
}

void random_hex(char *text, size_t bytes)
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < bytes; i++) {
		unsigned char byte;
		random_bytes(&byte, 1);
		text[2 * i] = digits[byte >> 4];
		text[2 * i + 1] = digits[byte & 15];
	}
	text[2 * bytes] = '\0';
}

/* The first line of a small file. 0, or -1 with errno; EMSGSIZE if it is empty or does not fit. */
static int read_line(const char *path, char *ret_text, size_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	char text[LIMIT_ID + 2];
	ssize_t got = read(fd, text, sizeof(text) - 1);
	int saved = errno;
	close(fd);
	if (got < 0) {
		errno = saved;
		return -1;
	}
	text[got] = '\0';
	text[strcspn(text, "\n")] = '\0';
	size_t length = strlen(text);
	if (length == 0 || length >= bytes || length >= LIMIT_ID) {
		errno = EMSGSIZE;
		return -1;
	}
	memcpy(ret_text, text, length + 1);
	return 0;
}

int boot_id_read(const struct paths *paths, char *ret_text, size_t bytes, struct err *err)
{
	char path[PATHS_MAX + 16];
	if (paths && paths->home[0]) {
		snprintf(path, sizeof(path), "%s/boot-id", paths->run);
		if (read_line(path, ret_text, bytes) == 0)
			return 0;
		if (errno != ENOENT)
			return err_errno(err, ERR_IO, errno, "read %s", path);
	}
	snprintf(path, sizeof(path), "/proc/sys/kernel/random/boot_id");
	if (read_line(path, ret_text, bytes) < 0)
		return err_errno(err, ERR_IO, errno, "read %s", path);
	return 0;
}
