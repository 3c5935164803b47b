/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

#define LISTEN_FD 3 /* sd_listen_fds(3) */
#define LISTEN_PID "LISTEN_PID="

extern char **environ;

/* What the child needs, made before the fork: after it, only async-signal-safe calls are allowed. */
struct launch {
	char path[PATH_MAX];
	const char *const *argv;
	char **env;
	int fds[3];          /* become 0, 1, 2; each above 2 or -1 for inherited */
	int listen_fd;       /* -1: none */
	char listen_pid[32]; /* "LISTEN_PID=" and, in the child, its pid: in env */
	unsigned flags;
	pid_t parent;
	int report_fd; /* errno, if the exec fails */
};

static int64_t now_ms(void)
{
	return clock_ms(&clock_real);
}

static int find_program(const char *name, char ret_path[PATH_MAX], struct err *err)
{
	if (strchr(name, '/')) {
		if (snprintf(ret_path, PATH_MAX, "%s", name) >= PATH_MAX)
			return err_set(err, ERR_IO, "start %.100s…: path too long", name);
		return 0;
	}
	const char *path = getenv("PATH");
	if (!path || !*path)
		path = "/usr/sbin:/usr/bin:/sbin:/bin";
	while (*path) {
		size_t length = strcspn(path, ":");
		struct stat st;
		int n = snprintf(ret_path, PATH_MAX, "%.*s/%s", (int)length, path, name);
		if (length > 0 && n < PATH_MAX && access(ret_path, X_OK) == 0 && stat(ret_path, &st) == 0 &&
		    S_ISREG(st.st_mode))
			return 0;
		path += length + (path[length] == ':');
	}
	return err_set(err, ERR_IO, "start %s: not found in PATH", name);
}

static bool same_variable(const char *a, const char *b)
{
	size_t length = strcspn(a, "=");
	return strncmp(a, b, length) == 0 && b[length] == '=';
}

/* Our environment with `additions` put over it, and what says that a socket is passed on (NULL: none); the array is
 * malloc'ed, the texts are not copied. */
static char **make_environment(const char *const additions[], char *listen_pid)
{
	size_t count = 0, extra = 0, n = 0;
	while (environ && environ[count])
		count++;
	while (additions && additions[extra])
		extra++;
	char **env = calloc(count + extra + 3, sizeof(*env));
	if (!env)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		bool replaced = false;
		for (size_t j = 0; j < extra; j++)
			replaced |= same_variable(additions[j], environ[i]);
		if (!replaced && strncmp(environ[i], "LISTEN_", 7) != 0) /* those are for us alone */
			env[n++] = environ[i];
	}
	for (size_t j = 0; j < extra; j++)
		env[n++] = (char *)(uintptr_t)additions[j]; /* execve wants char *, and does not write */
	if (listen_pid) {
		env[n++] = listen_pid;
		env[n++] = (char *)(uintptr_t) "LISTEN_FDS=1";
	}
	return env;
}

_Noreturn static void child_fail(const struct launch *launch)
{
	int saved = errno;
	ssize_t wrote = write(launch->report_fd, &saved, sizeof(saved));
	(void)wrote;
	_exit(127);
}

/* snprintf is not async-signal-safe. */
static void say_pid(char *text, pid_t pid)
{
	char digits[16];
	size_t count = 0;
	for (; pid > 0 && count < sizeof(digits); pid /= 10)
		digits[count++] = (char)('0' + pid % 10);
	while (count > 0)
		*text++ = digits[--count];
	*text = '\0';
}

_Noreturn static void child_run(struct launch *launch)
{
	sigset_t none;
	sigemptyset(&none);
	struct sigaction action = { .sa_handler = SIG_DFL };
	for (int signo = 1; signo < NSIG; signo++)
		sigaction(signo, &action, NULL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (launch->flags & PROC_SETSID)
		setsid();
	if (launch->flags & PROC_DIE_WITH_US) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != launch->parent) /* it died before we asked */
			_exit(127);
	}
	for (int fd = 0; fd < 3; fd++)
		if (launch->fds[fd] >= 0 && dup2(launch->fds[fd], fd) < 0)
			child_fail(launch);
	if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		child_fail(launch);
	if (launch->listen_fd >= 0) {
		say_pid(launch->listen_pid + sizeof(LISTEN_PID) - 1, getpid());
		if ((launch->listen_fd != LISTEN_FD && dup2(launch->listen_fd, LISTEN_FD) < 0) ||
		    fcntl(LISTEN_FD, F_SETFD, 0) < 0)
			child_fail(launch);
	}
	execve(launch->path, (char *const *)(uintptr_t)launch->argv, launch->env);
	child_fail(launch);
}

/* _Fork: no atfork handlers, which libraries use to touch threads that the child does not have. */
static int launch_child(struct launch *launch, pid_t *ret_pid, struct err *err)
{
	int report[2];
	if (pipe2(report, O_CLOEXEC) < 0)
		return err_errno(err, ERR_IO, errno, "start %s: pipe", launch->path);
	if (report[1] == LISTEN_FD) { /* which is needed in the child */
		int moved = fcntl(report[1], F_DUPFD_CLOEXEC, LISTEN_FD + 1);
		close(report[1]);
		report[1] = moved;
	}
	if (report[1] < 0) {
		close(report[0]);
		return err_errno(err, ERR_IO, errno, "start %s: pipe", launch->path);
	}
	launch->report_fd = report[1];
	launch->parent = getpid();
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* no handler of ours may run in the child */
	pid_t pid = _Fork();
	if (pid == 0)
		child_run(launch);
	int saved = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	close(report[1]);
	if (pid < 0) {
		close(report[0]);
		return err_errno(err, ERR_IO, saved, "start %s: fork", launch->path);
	}
	int errnum = 0;
	ssize_t got;
	while ((got = read(report[0], &errnum, sizeof(errnum))) < 0 && errno == EINTR)
		;
	close(report[0]);
	if (got == (ssize_t)sizeof(errnum)) {
		waitpid(pid, NULL, 0);
		return err_errno(err, ERR_IO, errnum, "start %s", launch->path);
	}
	*ret_pid = pid;
	return 0;
}

/* The descriptor moved above 2, so that it survives the child's dup2 calls in any order. */
static int above_standard(int fd)
{
	if (fd < 0 || fd > 2)
		return fd;
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	close(fd);
	return moved;
}

static int open_null(struct err *err)
{
	int fd = above_standard(open("/dev/null", O_RDWR | O_CLOEXEC));
	return fd >= 0 ? fd : err_errno(err, ERR_IO, errno, "open /dev/null");
}

int proc_start(struct proc_id *ret_id, const char *const argv[], const char *const env[], const char *log_path,
               int listen_fd, unsigned flags, struct err *err)
{
	struct launch launch = { .argv = argv, .fds = { -1, -1, -1 }, .listen_fd = listen_fd, .flags = flags };
	int log_fd = -1, result = -1;
	pid_t pid = -1;
	if (find_program(argv[0], launch.path, err) < 0)
		return -1;
	snprintf(launch.listen_pid, sizeof(launch.listen_pid), LISTEN_PID);
	launch.env = make_environment(env, listen_fd >= 0 ? launch.listen_pid : NULL);
	if (!launch.env)
		return err_set(err, ERR_NO_MEMORY, "start %s: no memory", argv[0]);
	launch.fds[0] = open_null(err);
	if (launch.fds[0] < 0)
		goto out;
	if (log_path) {
		log_fd = above_standard(open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640));
		if (log_fd < 0) {
			err_errno(err, ERR_IO, errno, "start %s: log %s", argv[0], log_path);
			goto out;
		}
		launch.fds[1] = launch.fds[2] = log_fd;
	}
	if (launch_child(&launch, &pid, err) < 0)
		goto out;
	/* it is our child: even if it has ended already, it is there until it is reaped */
	if (proc_identify(pid, ret_id) < 0)
		*ret_id = (struct proc_id) { .pid = pid };
	result = 0;
out:
	free(launch.env);
	if (launch.fds[0] >= 0)
		close(launch.fds[0]);
	if (log_fd >= 0)
		close(log_fd);
	return result;
}

/* What a child has said on one pipe: the first bytes of it, or (tail) the last. */
struct collect {
	int fd;
	char *text;
	size_t size, length;
	bool tail;
};

static void collect_add(struct collect *c, const char *bytes, size_t count)
{
	if (!c->text || c->size == 0)
		return;
	size_t most = c->size - 1;
	if (c->tail && count > most) {
		bytes += count - most;
		count = most;
	}
	if (c->tail && c->length + count > most) {
		size_t drop = c->length + count - most;
		memmove(c->text, c->text + drop, c->length - drop);
		c->length -= drop;
	}
	if (count > most - c->length)
		count = most - c->length;
	memcpy(c->text + c->length, bytes, count);
	c->length += count;
	c->text[c->length] = '\0';
}

/* Reads what is there; closes at the end. */
static void collect_read(struct collect *c)
{
	char buffer[4096];
	while (c->fd >= 0) {
		ssize_t got = read(c->fd, buffer, sizeof(buffer));
		if (got > 0) {
			collect_add(c, buffer, (size_t)got);
		} else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
			close(c->fd);
			c->fd = -1;
		} else if (errno == EAGAIN) {
			return;
		}
	}
}

/* Until the process has ended (1) or the deadline has passed (0). A grandchild that holds the pipes is not waited for.
 */
static int collect_until_end(int pidfd, struct collect *out, struct collect *errors, int64_t deadline_ms)
{
	for (;;) {
		struct pollfd fds[3] = { { .fd = pidfd, .events = POLLIN },
			                 { .fd = out->fd, .events = POLLIN },
			                 { .fd = errors->fd, .events = POLLIN } };
		int64_t left = deadline_ms - now_ms();
		if (left < 0)
			left = 0;
		int n = poll(fds, 3, left > INT_MAX ? INT_MAX : (int)left);
		if (n < 0 && errno != EINTR)
			return 0;
		bool ended = n > 0 && fds[0].revents != 0;
		collect_read(out);
		collect_read(errors);
		if (ended)
			return 1;
		if (now_ms() >= deadline_ms)
			return 0;
	}
}

static const char *last_line(char *text)
{
	size_t length = strlen(text);
	while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == ' ' || text[length - 1] == '\r'))
		text[--length] = '\0';
	const char *line = strrchr(text, '\n');
	return line ? line + 1 : text;
}

static int judge(const char *name, int status, char *errors, struct err *err)
{
	const char *line = last_line(errors);
	const char *colon = *line ? ": " : "";
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status))
		return err_set(err, ERR_IO, "%s ended with %d%s%s", name, WEXITSTATUS(status), colon, line);
	return err_set(err, ERR_IO, "%s was killed by signal %d%s%s", name, WTERMSIG(status), colon, line);
}

static int run_wait(const char *name, pid_t pid, struct collect *out, struct collect *errors, unsigned timeout_ms,
                    struct err *err)
{
	int pidfd = pidfd_open(pid, 0);
	int saved = errno;
	bool ended = pidfd >= 0 && collect_until_end(pidfd, out, errors, now_ms() + timeout_ms) == 1;
	if (!ended)
		kill(pid, SIGKILL); /* our own child, not reaped: the pid is still its */
	int status = 0;
	pid_t reaped;
	while ((reaped = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	if (pidfd < 0)
		return err_errno(err, ERR_IO, saved, "%s: pidfd_open", name);
	close(pidfd);
	if (!ended) {
		const char *line = last_line(errors->text);
		return err_set(err, ERR_TIMEOUT, "%s did not end within %u ms and was killed%s%s", name, timeout_ms,
		               *line ? ": " : "", line);
	}
	if (reaped != pid)
		return err_set(err, ERR_INTERNAL, "%s: somebody else has reaped it", name);
	return judge(name, status, errors->text, err);
}

/* A pipe whose read end does not block; *ret_write is above 2. */
static int make_pipe(int *ret_read, int *ret_write, struct err *err)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(err, ERR_IO, errno, "pipe");
	*ret_read = fds[0];
	*ret_write = above_standard(fds[1]);
	if (*ret_write < 0 || fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0)
		return err_errno(err, ERR_IO, errno, "pipe");
	return 0;
}

static void close_all(const int fds[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

int proc_run(const char *const argv[], const char *const env[], char *ret_output, size_t *bytes, unsigned timeout_ms,
             struct err *err)
{
	struct launch launch = { .argv = argv, .fds = { -1, -1, -1 }, .listen_fd = -1, .flags = PROC_DIE_WITH_US };
	char words[256] = "";
	struct collect out = { .fd = -1, .text = ret_output, .size = ret_output ? *bytes : 0 };
	struct collect errors = { .fd = -1, .text = words, .size = sizeof(words), .tail = true };
	pid_t pid = -1;
	int result = -1;
	if (out.size > 0)
		ret_output[0] = '\0';
	if (find_program(argv[0], launch.path, err) < 0)
		return -1;
	launch.env = make_environment(env, NULL);
	if (!launch.env)
		return err_set(err, ERR_NO_MEMORY, "start %s: no memory", argv[0]);
	launch.fds[0] = open_null(err);
	if (launch.fds[0] >= 0 && make_pipe(&out.fd, &launch.fds[1], err) == 0 &&
	    make_pipe(&errors.fd, &launch.fds[2], err) == 0)
		result = launch_child(&launch, &pid, err);
	close_all(launch.fds, 3);
	free(launch.env);
	if (result == 0)
		result = run_wait(argv[0], pid, &out, &errors, timeout_ms, err);
	const int mine[] = { out.fd, errors.fd };
	close_all(mine, 2);
	if (ret_output)
		*bytes = out.length;
	return result;
}

size_t proc_read(pid_t pid, const char *what, char *ret_text, size_t room)
{
	char path[64];
	size_t have = 0;
	ssize_t got;
	ret_text[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	while (have < room - 1 && (got = read(fd, ret_text + have, room - 1 - have)) > 0)
		have += (size_t)got;
	close(fd);
	ret_text[have] = '\0';
	return have;
}

/* State letter and start time from /proc/PID/stat. The name in it may hold anything, so from the last ')' on. */
static int read_stat(pid_t pid, char *ret_state, uint64_t *ret_ticks)
{
	char text[1024];
	if (proc_read(pid, "stat", text, sizeof(text)) == 0)
		return -1;
	const char *at = strrchr(text, ')');
	if (!at || at[1] != ' ')
		return -1;
	at += 2;
	char state = *at;
	for (int field = 3; field < 22; field++) {
		at = strchr(at, ' ');
		if (!at)
			return -1;
		at++;
	}
	char *end = NULL;
	errno = 0;
	uint64_t ticks = strtoull(at, &end, 10);
	if (errno != 0 || end == at)
		return -1;
	*ret_state = state;
	*ret_ticks = ticks;
	return 0;
}

int proc_identify(pid_t pid, struct proc_id *ret_id)
{
	char state;
	uint64_t ticks;
	if (pid <= 0 || read_stat(pid, &state, &ticks) < 0)
		return -1;
	*ret_id = (struct proc_id) { .pid = pid, .start_ticks = ticks };
	return 0;
}

bool proc_alive(const struct proc_id *id)
{
	char state;
	uint64_t ticks;
	return id->pid > 0 && read_stat(id->pid, &state, &ticks) == 0 && ticks == id->start_ticks && state != 'Z' &&
	       state != 'X';
}

/* Whether the pid is still that of the same process, be it a zombie. */
static bool is_there(const struct proc_id *id)
{
	struct proc_id now;
	return proc_identify(id->pid, &now) == 0 && now.start_ticks == id->start_ticks;
}

/* Takes the zombie away if it is a child of ours; of another's child that pid is nothing to us. */
static void reap(const struct proc_id *id)
{
	if (is_there(id))
		waitpid(id->pid, NULL, WNOHANG);
}

int proc_kill(const struct proc_id *id, unsigned timeout_ms, struct err *err)
{
	if (id->pid <= 0)
		return 0;
	int64_t deadline = now_ms() + timeout_ms;
	int pidfd = pidfd_open(id->pid, 0);
	if (pidfd < 0 && errno == ESRCH)
		return 0;
	if (pidfd < 0)
		return err_errno(err, ERR_IO, errno, "kill %d: pidfd_open", (int)id->pid);
	/* the descriptor holds on to whoever has the pid now; only then is the start time looked at */
	bool there = is_there(id);
	if (there && pidfd_send_signal(pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH) {
		int saved = errno;
		close(pidfd);
		return err_errno(err, ERR_IO, saved, "kill %d", (int)id->pid);
	}
	/* Its first thread may be a zombie while others are still ending: only the descriptor tells when all are. */
	bool gone = !there;
	while (!gone) {
		struct pollfd fd = { .fd = pidfd, .events = POLLIN };
		int64_t left = deadline - now_ms();
		int n = poll(&fd, 1, left < 0 ? 0 : (int)left);
		gone = n > 0;
		if (n == 0 || (n < 0 && errno != EINTR))
			break;
	}
	close(pidfd);
	if (!gone)
		return err_set(err, ERR_TIMEOUT, "kill %d: still there after %u ms", (int)id->pid, timeout_ms);
	reap(id);
	return 0;
}
