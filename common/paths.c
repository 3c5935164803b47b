/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	SOCKET_PATH_MAX = 100, /* of the 107 that a unix socket's address can hold */
	SOCKET_NAME_MAX = 30,  /* what is put under run/: "/leg-1234567890.sock", "/exp-…/nbd.sock" */
};

/* `home` as an absolute path without trailing slashes; it need not exist. */
static int make_absolute(const char *home, char *ret_path, struct err *err)
{
	char here[PATHS_MAX] = "";
	if (home[0] != '/' && !getcwd(here, sizeof(here)))
		return err_errno(err, ERR_CONFIG, errno, "home %s: working directory", home);
	char path[PATHS_MAX];
	int length = home[0] == '/' ? snprintf(path, sizeof(path), "%s", home)
	                            : snprintf(path, sizeof(path), "%s/%s", here, home);
	if (length < 0 || (size_t)length >= sizeof(path))
		return err_set(err, ERR_CONFIG, "home %s: path too long", home);
	while (length > 1 && path[length - 1] == '/')
		path[--length] = '\0';
	char *real = realpath(path, NULL);
	bool fits = !real || strlen(real) < sizeof(path);
	if (real && fits)
		strcpy(path, real);
	free(real);
	if (!fits)
		return err_set(err, ERR_CONFIG, "home %s: path too long", home);
	memcpy(ret_path, path, sizeof(path));
	return 0;
}

int paths_init(struct paths *ret_paths, const char *home, struct err *err)
{
	struct paths paths = { .etc = "/etc/drover", .lib = "/var/lib/drover", .run = "/run/drover" };
	if (!home)
		home = getenv("DROVER_HOME");
	if (home && home[0]) {
		if (make_absolute(home, paths.home, err) < 0)
			return -1;
		const int most = SOCKET_PATH_MAX - SOCKET_NAME_MAX - (int)strlen("/run");
		if ((int)strlen(paths.home) > most)
			return err_set(
				err, ERR_CONFIG,
				"home %s: too long for the unix sockets under it: %zu bytes, at most %d are allowed",
				paths.home, strlen(paths.home), most);
		/* the length is checked; the precision tells the compiler */
		snprintf(paths.etc, sizeof(paths.etc), "%.100s/etc", paths.home);
		snprintf(paths.lib, sizeof(paths.lib), "%.100s/lib", paths.home);
		snprintf(paths.run, sizeof(paths.run), "%.100s/run", paths.home);
	}
	*ret_paths = paths;
	return 0;
}

/* mkdir -p; what exists keeps its mode. */
static int make_directory(const char *path, mode_t mode, struct err *err)
{
	char part[PATHS_MAX];
	for (size_t i = 1; path[i]; i++) {
		if (path[i] != '/')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return err_errno(err, ERR_IO, errno, "make directory %s", part);
	}
	if (mkdir(path, mode) == 0)
		return 0;
	if (errno != EEXIST)
		return err_errno(err, ERR_IO, errno, "make directory %s", path);
	struct stat st;
	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return err_set(err, ERR_IO, "%s: is not a directory", path);
	return 0;
}

int paths_make(const struct paths *paths, struct err *err)
{
	if (make_directory(paths->etc, 0755, err) < 0 || make_directory(paths->lib, 0700, err) < 0)
		return -1;
	return make_directory(paths->run, 0755, err);
}

static void pid_path(const struct paths *paths, const char *name, const char *suffix, char path[PATHS_MAX + 128])
{
	snprintf(path, PATHS_MAX + 128, "%s/%.100s.pid%s", paths->run, name, suffix);
}

int paths_write_pid(const struct paths *paths, const char *name, long pid, struct err *err)
{
	char path[PATHS_MAX + 128], fresh[PATHS_MAX + 128];
	pid_path(paths, name, "", path);
	pid_path(paths, name, ".new", fresh);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "write %s", fresh);
	int wrote = dprintf(fd, "%ld\n", pid);
	int saved = errno;
	if (close(fd) < 0 || wrote < 0) {
		saved = wrote < 0 ? saved : errno;
		unlink(fresh);
		return err_errno(err, ERR_IO, saved, "write %s", fresh);
	}
	if (rename(fresh, path) < 0) {
		long there;
		saved = errno;
		/* Who starts a daemon writes the same file as the daemon itself, and may have been quicker. */
		if (saved == ENOENT && paths_read_pid(paths, name, &there) == 0 && there == pid)
			return 0;
		unlink(fresh);
		return err_errno(err, ERR_IO, saved, "write %s", path);
	}
	return 0;
}

void paths_remove_pid(const struct paths *paths, const char *name)
{
	char path[PATHS_MAX + 128];
	pid_path(paths, name, "", path);
	unlink(path);
}

int paths_read_pid(const struct paths *paths, const char *name, long *ret_pid)
{
	char path[PATHS_MAX + 128], text[32] = "";
	pid_path(paths, name, "", path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t got = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (got <= 0 || text[0] < '1' || text[0] > '9')
		return -1;
	char *end = NULL;
	errno = 0;
	long pid = strtol(text, &end, 10);
	if (errno != 0 || (*end != '\n' && *end != '\0'))
		return -1;
	*ret_pid = pid;
	return 0;
}
