/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes of a simulated guest: found by pid file and command line, started, ended. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/hypervisor/sim_record.h"

#define CMDLINE_BYTES 8192
#define KILL_MS 5000u

/* Whether `wanted` is one of the words of the process's command line. */
static bool has_word(long pid, const char *wanted)
{
	char path[64], text[CMDLINE_BYTES + 1];
	snprintf(path, sizeof(path), "/proc/%ld/cmdline", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t got = read(fd, text, CMDLINE_BYTES);
	close(fd);
	if (got <= 0)
		return false;
	text[got] = '\0';
	for (const char *word = text; word < text + got; word += strlen(word) + 1)
		if (strcmp(word, wanted) == 0)
			return true;
	return false;
}

static bool alive(const struct paths *paths, const char *kind, const char *name, const char *word,
                  struct proc_id *ret_id)
{
	char file[LIMIT_NAME + 16];
	long pid;
	struct proc_id id;
	snprintf(file, sizeof(file), "%s-%s", kind, name);
	if (paths_read_pid(paths, file, &pid) != 0 || !has_word(pid, word))
		return false;
	if (proc_identify((pid_t)pid, &id) != 0 || !proc_alive(&id))
		return false;
	*ret_id = id;
	return true;
}

/* The word by which a process of this guest is known: the socket that it serves. */
bool sim_guest_alive(const struct paths *paths, const char *name, struct proc_id *ret_id)
{
	char word[PATHS_MAX + LIMIT_NAME + 16];
	snprintf(word, sizeof(word), "--home=%s", paths->home);
	if (!alive(paths, "guest", name, word, ret_id))
		return false;
	snprintf(word, sizeof(word), "--name=%s", name);
	return has_word(ret_id->pid, word);
}

bool sim_backend_alive(const struct paths *paths, const char *name, struct proc_id *ret_id)
{
	char path[LIMIT_PATH], word[LIMIT_PATH + 64];
	if (sim_path(paths, name, SIM_PATH_NBD, path, NULL) != 0)
		return false;
	snprintf(word, sizeof(word), "addr.type=unix,addr.path=%s,max-connections=0", path);
	return alive(paths, "backend", name, word, ret_id);
}

static void remove_files(const struct paths *paths, const char *name, bool log_too)
{
	char file[LIMIT_NAME + 16], path[LIMIT_PATH];
	snprintf(file, sizeof(file), "guest-%s", name);
	paths_remove_pid(paths, file);
	snprintf(file, sizeof(file), "backend-%s", name);
	paths_remove_pid(paths, file);
	for (enum sim_path which = 0; which < SIM_PATHS; which++)
		if ((which != SIM_PATH_LOG || log_too) && sim_path(paths, name, which, path, NULL) == 0)
			unlink(path);
}

static int kill_both(const struct paths *paths, const char *name, struct err *err)
{
	struct proc_id id;
	if (sim_guest_alive(paths, name, &id) && proc_kill(&id, KILL_MS, err) != 0)
		return err_wrap(err, "guest %s", name);
	if (sim_backend_alive(paths, name, &id) && proc_kill(&id, KILL_MS, err) != 0)
		return err_wrap(err, "block backend of %s", name);
	return 0;
}

static int find_program(char ret_path[PATHS_MAX], struct err *err)
{
	static const char *const places[] = { "drover-guest", "../bin/drover-guest" };
	char self[PATHS_MAX];
	ssize_t bytes = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (bytes <= 0)
		return err_errno(err, ERR_IO, errno, "read /proc/self/exe");
	self[bytes] = '\0';
	char *slash = strrchr(self, '/');
	if (slash != NULL)
		*slash = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		int length = snprintf(ret_path, PATHS_MAX, "%s/%s", self, places[i]);
		if (length > 0 && length < PATHS_MAX && access(ret_path, X_OK) == 0)
			return 0;
	}
	return err_set(err, ERR_CONFIG, "drover-guest is not in %s: install it beside this program", self);
}

int sim_guest_start(const struct paths *paths, const char *name, struct err *err)
{
	char program[PATHS_MAX], home[PATHS_MAX + 16], word[LIMIT_NAME + 16];
	if (find_program(program, err) != 0)
		return -1;
	if (kill_both(paths, name, err) != 0)
		return -1;
	remove_files(paths, name, false);
	snprintf(home, sizeof(home), "--home=%s", paths->home);
	snprintf(word, sizeof(word), "--name=%s", name);
	const char *argv[] = { program, home, word, NULL };
	/* It goes to the background by itself once it answers. */
	return proc_run(argv, NULL, NULL, NULL, SIM_START_MS, err) == 0 ? 0 : err_wrap(err, "start guest %s", name);
}

int sim_guest_end(const struct paths *paths, const char *name, const char *op, struct err *err)
{
	struct proc_id id;
	struct err why = { 0 };
	bool asked = sim_guest_alive(paths, name, &id) &&
	             sim_call(paths, name, json_pack("{s:s}", "op", op), SIM_END_MS, NULL, NULL, &why) == 0;
	if (why.code == ERR_TOO_LATE)
		return err_set(err, why.code, "%s", why.text);
	if (asked) {
		int64_t deadline_ms = disk_now_ms() + SIM_END_MS;
		short none;
		while (proc_alive(&id) && disk_now_ms() < deadline_ms)
			disk_wait(NULL, -1, 0, disk_now_ms() + 2, &none, NULL);
	}
	if (kill_both(paths, name, err) != 0)
		return -1;
	remove_files(paths, name, strcmp(op, "shutdown") != 0);
	return 0;
}
