/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether the locked file is still the one that the path means: its last holder may have removed it since we opened it.
 */
static bool is_current(int fd, const char *path)
{
	struct stat held, named;
	return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
	       held.st_dev == named.st_dev;
}

static int refuse_busy(int fd, const char *path, struct err *err)
{
	char holder[24] = "";
	ssize_t got = pread(fd, holder, sizeof(holder) - 1, 0);
	holder[got > 0 ? strcspn(holder, "\n") : 0] = '\0';
	return err_set(err, ERR_BUSY, "%s is in use by process %s", path, holder[0] ? holder : "(unknown)");
}

int lock_take(const char *path, int *ret_fd, struct err *err)
{
	for (;;) {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return err_errno(err, ERR_IO, errno, "open %s", path);
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			int rc = errno == EWOULDBLOCK ? refuse_busy(fd, path, err)
			                              : err_errno(err, ERR_IO, errno, "lock %s", path);
			close(fd);
			return rc;
		}
		if (!is_current(fd, path)) {
			close(fd);
			continue;
		}
		if (ftruncate(fd, 0) || dprintf(fd, "%ld\n", (long)getpid()) < 0) {
			err_errno(err, ERR_IO, errno, "write %s", path);
			close(fd);
			return -1;
		}
		*ret_fd = fd;
		return 0;
	}
}

void lock_drop(const char *path, int fd)
{
	if (fd < 0)
		return;
	if (path)
		unlink(path); /* while it is held: whoever opened it meanwhile sees that it is not current */
	close(fd);
}
