/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The leg program as the agent deals with it: processes, and what leads to them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/agent_impl.h"
#include "common/log.h"

extern char **environ;

/* ---- legs ---- */

struct leg_log {
	struct timespec written;
	char name[40]; /* cut only if its number is none of ours */
};

static bool is_leg_log(const char *name)
{
	uint64_t migration;
	int end = 0;
	return sscanf(name, "leg-%" SCNu64 ".log%n", &migration, &end) == 1 && end > 0 && name[end] == '\0';
}

static int oldest_first(const void *left, const void *right)
{
	const struct leg_log *a = left, *b = right;
	if (a->written.tv_sec != b->written.tv_sec)
		return a->written.tv_sec < b->written.tv_sec ? -1 : 1;
	return (a->written.tv_nsec > b->written.tv_nsec) - (a->written.tv_nsec < b->written.tv_nsec);
}

/* All there are of legs, at most LEG_LOGS_SEEN. */
static unsigned list_logs(DIR *dir, struct leg_log *ret_logs)
{
	struct dirent *entry;
	struct stat st;
	unsigned count = 0;
	while (count < LEG_LOGS_SEEN && (entry = readdir(dir))) {
		struct leg_log *log = &ret_logs[count];
		if (!is_leg_log(entry->d_name) || fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		(void)snprintf(log->name, sizeof(log->name), "%.39s", entry->d_name);
		log->written = st.st_mtim;
		count++;
	}
	return count;
}

/* They are for reading after a fault, and nobody else takes them away. */
static void prune_logs(const struct agent *agent)
{
	struct leg_log *logs = calloc(LEG_LOGS_SEEN, sizeof(*logs));
	DIR *dir = opendir(agent->paths.run);
	if (logs && dir) {
		unsigned count = list_logs(dir, logs);
		qsort(logs, count, sizeof(*logs), oldest_first);
		for (unsigned i = 0; i + LEG_LOGS_KEPT < count; i++)
			(void)unlinkat(dirfd(dir), logs[i].name, 0);
	}
	if (dir)
		(void)closedir(dir);
	free(logs);
}

int process_leg_start(struct session *session, struct err *err)
{
	struct agent *agent = session->agent;
	char migration[24], generation[16], log_path[PATHS_MAX + 32], conf[PATHS_MAX + 32];
	const char *argv[14];
	unsigned n = 0;
	(void)snprintf(migration, sizeof(migration), "%" PRIu64, session->row.migration);
	(void)snprintf(generation, sizeof(generation), "%u", session->row.generation);
	(void)snprintf(log_path, sizeof(log_path), "%s/leg-%" PRIu64 ".log", agent->paths.run, session->row.migration);
	(void)snprintf(conf, sizeof(conf), AGENT_CONF_ENV "=%s", agent->conf.file);
	argv[n++] = agent->leg_path;
	argv[n++] = "run";
	if (agent->paths.home[0]) {
		argv[n++] = "--home";
		argv[n++] = agent->paths.home;
	}
	argv[n++] = "--migration";
	argv[n++] = migration;
	argv[n++] = "--generation";
	argv[n++] = generation;
	argv[n++] = "--side";
	argv[n++] = side_name(session->row.side);
	if (session->start_recover)
		argv[n++] = "--recover";
	argv[n] = NULL;
	const char *const env[] = { conf, NULL };
	if (proc_start(&session->row.leg, argv, env, log_path, -1, PROC_SETSID, err) < 0)
		return -1;
	prune_logs(agent);
	return 0;
}

int process_leg_connect(struct agent *agent, uint64_t migration, struct proc_id *ret_leg)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred who;
	socklen_t bytes = sizeof(who);
	int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s/leg-%" PRIu64 ".sock", agent->paths.run,
	                      migration);
	if (length < 0 || (size_t)length >= sizeof(address.sun_path))
		return -1;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes) < 0)
		goto out;
	if (who.uid != geteuid()) {
		log_error("event=leg-refused migration=%" PRIu64 " uid=%u", migration, (unsigned)who.uid);
		goto out;
	}
	if (proc_identify(who.pid, ret_leg) < 0)
		goto out;
	return fd;
out:
	(void)close(fd);
	return -1;
}

bool process_leg_listens(const struct agent *agent, uint64_t migration)
{
	char path[PATHS_MAX + 40];
	(void)snprintf(path, sizeof(path), "%s/leg-%" PRIu64 ".sock", agent->paths.run, migration);
	return access(path, F_OK) == 0;
}

bool process_alive(const struct proc_id *leg)
{
	return proc_alive(leg);
}

/* ---- what leads to them ---- */

int process_send(int fd, const void *packet, size_t bytes)
{
	return send(fd, packet, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

ssize_t process_read(int fd, void *buffer, size_t room)
{
	return read(fd, buffer, room);
}

void process_hang_up(int fd)
{
	(void)shutdown(fd, SHUT_RDWR);
}

void process_close(int fd)
{
	(void)close(fd);
}

/* ---- the leg program, asked for something that it prints ---- */

/* Our own environment, and which configuration the agent was given. malloc'ed, as is *ret_conf, which it points to. */
static char **make_environment(const struct agent *agent, char **ret_conf)
{
	size_t count = 0, n = 0;
	while (environ[count])
		count++;
	char **list = calloc(count + 2, sizeof(*list));
	if (!list || asprintf(ret_conf, AGENT_CONF_ENV "=%s", agent->conf.file) < 0) {
		free(list);
		return NULL;
	}
	for (size_t i = 0; i < count; i++)
		if (strncmp(environ[i], AGENT_CONF_ENV "=", sizeof(AGENT_CONF_ENV)) != 0)
			list[n++] = environ[i];
	list[n] = *ret_conf;
	return list;
}

/* Like proc_start(), but with a pipe for standard output. */
static int spawn(struct agent *agent, char *const argv[], int out, pid_t *ret_pid, struct err *err)
{
	char *conf = NULL, **env = make_environment(agent, &conf);
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	if (!env)
		return err_set(err, ERR_NO_MEMORY, "no memory for an environment");
	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	(void)posix_spawn_file_actions_init(&files);
	(void)posix_spawnattr_init(&attr);
	int errnum = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	if (errnum == 0)
		errnum = posix_spawn_file_actions_adddup2(&files, out, 1);
	if (errnum == 0)
		errnum = posix_spawn_file_actions_addclosefrom_np(&files, 3);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setsigdefault(&attr, &all);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	pid_t pid = 0;
	if (errnum == 0)
		errnum = posix_spawn(&pid, argv[0], &files, &attr, argv, env);
	(void)posix_spawnattr_destroy(&attr);
	(void)posix_spawn_file_actions_destroy(&files);
	free(env);
	free(conf);
	if (errnum)
		return err_errno(err, ERR_HYPERVISOR, errnum, "cannot start %s", argv[0]);
	*ret_pid = pid;
	return 0;
}

int process_query_start(struct agent *agent, const char *mode, const char *const options[], int *ret_fd, pid_t *ret_pid,
                        struct err *err)
{
	char *argv[QUERY_OPTIONS_MAX + 5] = { agent->leg_path, (char *)(uintptr_t)mode };
	unsigned n = 2;
	int ends[2];
	if (agent->paths.home[0]) {
		argv[n++] = (char *)(uintptr_t) "--home";
		argv[n++] = agent->paths.home;
	}
	for (unsigned i = 0; options && options[i] && i < QUERY_OPTIONS_MAX; i++)
		argv[n++] = (char *)(uintptr_t)options[i];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_errno(err, ERR_IO, errno, "pipe");
	(void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
	int rc = spawn(agent, argv, ends[1], ret_pid, err);
	(void)close(ends[1]);
	if (rc < 0)
		(void)close(ends[0]);
	else
		*ret_fd = ends[0];
	return rc;
}

void process_kill(pid_t pid)
{
	(void)kill(pid, SIGKILL);
}
