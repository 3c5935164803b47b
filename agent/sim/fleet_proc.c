/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes of a simulated host: found however they were started, killed all at once; daemons started and ended. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "agent/disk/wait.h"
#include "agent/sim/fleet.h"
#include "agent/sim/power.h"
#include "common/clock.h"

#define FILE_BYTES 65536 /* of a command line or an environment */
#define KILL_MS 10000u
#define END_MS 8000 /* a daemon's time to end by itself */
#define STEP_MS 5
#define ROUNDS 50 /* of looking for processes that were started meanwhile */
#define LOG_TAIL 4096
#define LAUNCHER_BYTES 1024
#define LAUNCHER_WORDS 32

/* Programs that are a host's when its home is in their command line. */
static const char *const programs[] = { "drover-agent",    "drover-coordina", "drover-leg-sim", "drover-guest",
	                                "qemu-storage-da", "qemu-nbd",        "nbdkit",         "tgtd" };

/* Whether `home` as a whole path is somewhere in the text. */
static bool names_home(const char *text, const char *home)
{
	size_t bytes = strlen(home);
	for (const char *at = strstr(text, home); at != NULL; at = strstr(at + 1, home))
		if (at[bytes] == '\0' || at[bytes] == '/' || at[bytes] == ',')
			return true;
	return false;
}

static bool known_program(pid_t pid)
{
	char comm[64];
	if (proc_read(pid, "comm", comm, sizeof(comm)) == 0)
		return false;
	comm[strcspn(comm, "\n")] = '\0';
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
		if (strcmp(comm, programs[i]) == 0)
			return true;
	return false;
}

static bool belongs(pid_t pid, const char *home, char *text)
{
	char mark[PATHS_MAX + 32];
	snprintf(mark, sizeof(mark), FLEET_MARK "=%s", home);
	size_t bytes = proc_read(pid, "environ", text, FILE_BYTES);
	for (const char *word = text; bytes > 0 && word < text + bytes; word += strlen(word) + 1)
		if (strcmp(word, mark) == 0)
			return true;
	if (!known_program(pid))
		return false;
	bytes = proc_read(pid, "cmdline", text, FILE_BYTES);
	for (const char *word = text; bytes > 0 && word < text + bytes; word += strlen(word) + 1)
		if (names_home(word, home))
			return true;
	/* Servers that know their directory from the environment only. */
	bytes = proc_read(pid, "environ", text, FILE_BYTES);
	for (const char *word = text; bytes > 0 && word < text + bytes; word += strlen(word) + 1)
		if (strncmp(word, "TGT_IPC_SOCKET=", 15) == 0 && names_home(word, home))
			return true;
	return false;
}

bool fleet_has_environment(const struct proc_id *id, const char *beginning)
{
	bool has = false;
	char *text = malloc(FILE_BYTES);
	size_t bytes = text != NULL ? proc_read(id->pid, "environ", text, FILE_BYTES) : 0;
	for (const char *word = text; bytes > 0 && word < text + bytes && !has; word += strlen(word) + 1)
		has = strncmp(word, beginning, strlen(beginning)) == 0;
	free(text);
	return has;
}

int fleet_processes(const char *home, struct proc_id **ret_list, size_t *ret_count, struct err *err)
{
	struct proc_id *list = NULL;
	size_t count = 0;
	int result = 0;
	struct dirent *entry;
	char *text = malloc(FILE_BYTES);
	DIR *proc = opendir("/proc");
	if (text == NULL || proc == NULL) {
		result = err_errno(err, ERR_IO, errno, "read /proc");
		goto out;
	}
	while ((entry = readdir(proc)) != NULL) {
		struct proc_id id;
		pid_t pid = (pid_t)atol(entry->d_name);
		if (!isdigit((unsigned char)entry->d_name[0]) || pid == getpid() || pid == getppid() ||
		    proc_identify(pid, &id) != 0 || !proc_alive(&id) || !belongs(pid, home, text))
			continue;
		struct proc_id *grown = realloc(list, (count + 1) * sizeof(*list));
		if (grown == NULL) {
			result = err_set(err, ERR_NO_MEMORY, "no memory");
			goto out;
		}
		list = grown;
		list[count++] = id;
	}
	*ret_list = list;
	*ret_count = count;
	list = NULL;
out:
	if (proc != NULL)
		closedir(proc);
	free(text);
	free(list);
	return result;
}

bool fleet_all_known(const struct proc_id *list, size_t count, const struct proc_id *known, size_t known_count)
{
	for (size_t i = 0; i < count; i++) {
		size_t k = 0;
		while (k < known_count && (known[k].pid != list[i].pid || known[k].start_ticks != list[i].start_ticks))
			k++;
		if (k == known_count)
			return false;
	}
	return true;
}

/* Stops all processes of the host, so that none of them sees another die and acts on it, and looks again until there is
 * none that was not stopped before: one that ends and one that it has started just now look like one. */
static int stop_all(const char *home, struct proc_id **ret_list, size_t *ret_count, bool *ret_settled, struct err *err)
{
	struct proc_id *stopped = NULL;
	size_t stopped_count = 0;
	*ret_settled = false;
	for (unsigned round = 0; round < ROUNDS && !*ret_settled; round++) {
		struct proc_id *list;
		size_t count;
		if (fleet_processes(home, &list, &count, err) != 0) {
			free(stopped);
			return -1;
		}
		for (size_t i = 0; i < count; i++)
			kill(list[i].pid, SIGSTOP);
		*ret_settled = fleet_all_known(list, count, stopped, stopped_count);
		free(stopped);
		stopped = list;
		stopped_count = count;
	}
	*ret_list = stopped;
	*ret_count = stopped_count;
	return 0;
}

int fleet_kill(const char *home, struct err *err)
{
	struct proc_id *list = NULL;
	size_t count = 0;
	bool settled;
	if (stop_all(home, &list, &count, &settled, err) != 0)
		return -1;
	int result = settled ? 0 : err_set(err, ERR_BUSY, "%s: new processes are started again and again", home);
	for (size_t i = 0; i < count; i++)
		kill(list[i].pid, SIGKILL);
	for (size_t i = 0; i < count; i++)
		if (proc_kill(&list[i], KILL_MS, result == 0 ? err : NULL) != 0)
			result = -1;
	free(list);
	return result;
}

bool fleet_daemon_alive(const struct paths *paths, const char *name, const char *program, struct proc_id *ret_id)
{
	long pid;
	char text[FILE_BYTES];
	struct proc_id id;
	if (paths_read_pid(paths, name, &pid) != 0 || proc_identify((pid_t)pid, &id) != 0 || !proc_alive(&id))
		return false;
	size_t bytes = proc_read((pid_t)pid, "cmdline", text, sizeof(text));
	if (bytes == 0 || strstr(text, program) == NULL)
		return false;
	for (const char *word = text; word < text + bytes; word += strlen(word) + 1) {
		if (names_home(word, paths->home)) {
			*ret_id = id;
			return true;
		}
	}
	return false;
}

static int beside(const char *program, char *ret_path, size_t room, struct err *err)
{
	char self[PATHS_MAX];
	ssize_t bytes = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (bytes <= 0)
		return err_errno(err, ERR_IO, errno, "read /proc/self/exe");
	self[bytes] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(ret_path, room, "%s/%s", self, program);
	return access(ret_path, X_OK) == 0
	               ? 0
	               : err_set(err, ERR_CONFIG, "%s is not in %s; build or install it there", program, self);
}

/* Words of etc/launcher, if there is one, as the beginning of a command line; they point into `text`. */
static int read_launcher(const struct paths *paths, char text[LAUNCHER_BYTES], const char **argv, unsigned *ret_count,
                         struct err *err)
{
	char path[PATHS_MAX + 16], *rest = NULL;
	unsigned count = 0;
	snprintf(path, sizeof(path), "%s/launcher", paths->etc);
	*ret_count = 0;
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return errno == ENOENT ? 0 : err_errno(err, ERR_IO, errno, "open %s", path);
	size_t bytes = fread(text, 1, LAUNCHER_BYTES, file);
	bool bad = ferror(file) != 0;
	fclose(file);
	if (bad)
		return err_set(err, ERR_IO, "cannot read %s", path);
	if (bytes == LAUNCHER_BYTES)
		return err_set(err, ERR_CONFIG, "%s: longer than %d bytes", path, LAUNCHER_BYTES - 1);
	text[bytes] = '\0';
	for (char *word = strtok_r(text, " \t\n", &rest); word != NULL; word = strtok_r(NULL, " \t\n", &rest)) {
		if (count == LAUNCHER_WORDS)
			return err_set(err, ERR_CONFIG, "%s: more than %d words", path, LAUNCHER_WORDS);
		argv[count++] = word;
	}
	*ret_count = count;
	return 0;
}

int fleet_daemon_start(const struct paths *paths, const char *name, const char *program, struct err *err)
{
	char path[PATHS_MAX + LIMIT_NAME], log[PATHS_MAX + LIMIT_NAME], mark[PATHS_MAX + 32], launcher[LAUNCHER_BYTES];
	const char *argv[LAUNCHER_WORDS + 4] = { NULL };
	struct proc_id id;
	unsigned words;
	if (beside(program, path, sizeof(path), err) != 0 || read_launcher(paths, launcher, argv, &words, err) != 0)
		return -1;
	snprintf(log, sizeof(log), "%s/%s.log", paths->run, name);
	snprintf(mark, sizeof(mark), FLEET_MARK "=%s", paths->home);
	argv[words] = path;
	argv[words + 1] = "--home";
	argv[words + 2] = paths->home;
	const char *env[] = { mark, NULL };
	if (proc_start(&id, argv, env, log, -1, PROC_SETSID, err) != 0)
		return -1;
	return paths_write_pid(paths, name, id.pid, err); /* as it does itself; for the time until then */
}

int fleet_daemon_end(const struct paths *paths, const char *name, const char *program, struct err *err)
{
	struct proc_id id;
	short none;
	if (fleet_daemon_alive(paths, name, program, &id)) {
		kill(id.pid, SIGTERM);
		kill(id.pid, SIGCONT); /* one that was stopped is to see it */
		for (int64_t deadline_ms = disk_now_ms() + END_MS; proc_alive(&id) && disk_now_ms() < deadline_ms;)
			disk_wait(NULL, -1, 0, disk_now_ms() + STEP_MS, &none, NULL);
		if (proc_kill(&id, KILL_MS, err) != 0)
			return -1;
	}
	paths_remove_pid(paths, name);
	return 0;
}

void fleet_last_words(const struct paths *paths, const char *name, char *ret_text, size_t bytes)
{
	char path[PATHS_MAX + LIMIT_NAME], text[LOG_TAIL];
	snprintf(path, sizeof(path), "%s/%s.log", paths->run, name);
	ret_text[0] = '\0';
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	off_t size = lseek(fd, 0, SEEK_END);
	off_t from = size > LOG_TAIL - 1 ? size - (LOG_TAIL - 1) : 0;
	ssize_t got = pread(fd, text, sizeof(text) - 1, from);
	close(fd);
	while (got > 0 && isspace((unsigned char)text[got - 1]))
		got--;
	if (got <= 0)
		return;
	text[got] = '\0';
	const char *line = strrchr(text, '\n');
	snprintf(ret_text, bytes, "%s", line != NULL ? line + 1 : text);
}

int fleet_watch_power(const struct fleet *fleet, struct err *err)
{
	char library[PATHS_MAX + LIMIT_NAME], *preload = NULL;
	const char *before = getenv("LD_PRELOAD");
	if (beside(POWER_LIBRARY, library, sizeof(library), err) != 0)
		return -1;
	char *root = realpath(fleet->dir, NULL);
	int result = root == NULL ? err_errno(err, ERR_IO, errno, "find %s", fleet->dir) : 0;
	if (result == 0 && before != NULL && strstr(before, library) == NULL &&
	    asprintf(&preload, "%s:%s", before, library) < 0)
		result = err_set(err, ERR_NO_MEMORY, "no memory");
	if (result == 0 && (setenv(POWER_ENV, root, 1) != 0 || setenv("LD_PRELOAD",
	                                                              preload != NULL  ? preload
	                                                              : before != NULL ? before
	                                                                               : library,
	                                                              1) != 0))
		result = err_set(err, ERR_NO_MEMORY, "no memory for the environment");
	free(preload);
	free(root);
	return result;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
	size_t bytes = strlen(path);
	(void)st;
	if (where->level == 0 || (type == FTW_F && bytes > 4 && strcmp(path + bytes - 4, ".log") == 0))
		return 0;
	if (remove(path) != 0 && errno != ENOENT && errno != ENOTEMPTY)
		return -1;
	return 0;
}

/* A FUSE mount of an exporter that is gone: nothing else can be done to it, not even be looked at. */
static int clean_exporters(const struct paths *paths, struct err *err)
{
	char pattern[PATHS_MAX + 16];
	glob_t found = { 0 };
	int result = 0;
	snprintf(pattern, sizeof(pattern), "%s/export-*/", paths->run);
	if (glob(pattern, 0, NULL, &found) != 0)
		return 0;
	for (size_t i = 0; i < found.gl_pathc && result == 0; i++)
		result = exporter_clean(found.gl_pathv[i], err);
	globfree(&found);
	return result;
}

int fleet_clear_run(const struct paths *paths, struct err *err)
{
	if (clean_exporters(paths, err) != 0)
		return -1;
	if (nftw(paths->run, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0 && errno != ENOENT)
		return err_errno(err, ERR_IO, errno, "clear %s", paths->run);
	return 0;
}
