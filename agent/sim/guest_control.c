/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The control socket of a simulated VM; requests are described in agent/hypervisor/sim_control.h. A thread each. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/sim/guest.h"
#include "common/log.h"

#define BACKLOG 64
#define IDLE_S 30    /* a caller that says nothing for so long is sent away */
#define SUSPEND_S 28 /* less than the caller's patience */
#define THROTTLE_MAX 95

struct caller {
	struct guest *guest;
	int fd;
};

/* In each: *ret_reply is an object to be answered with "ok" added; -1: refused, err says why. */
typedef int (*handler)(struct guest *guest, const json_t *request, json_t *reply, struct err *err);

static int refuse(struct guest *guest, const char *what, struct err *err)
{
	return err_set(err, guest->state == GUEST_FAILED ? ERR_BACKEND : ERR_CONFLICT, "cannot %s: it is %s", what,
	               guest_state_name(guest->state));
}

static int do_status(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)request;
	(void)err;
	pthread_mutex_lock(&guest->lock);
	json_object_set_new(reply, "state", json_string(guest_state_name(guest->state)));
	json_object_set_new(reply, "tick", json_integer((json_int_t)atomic_load(&guest->tick)));
	json_object_set_new(reply, "throttle", json_integer(guest->throttle_percent));
	json_object_set_new(reply, "log", json_boolean(atomic_load(&guest->log_on) != 0));
	json_object_set_new(reply, "guest", json_string(guest->record.guest));
	pthread_mutex_unlock(&guest->lock);
	return 0;
}

static int do_fds(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)request;
	(void)err;
	json_object_set_new(reply, "memory", json_integer((json_int_t)guest->record.memory_bytes));
	return 0;
}

static void set_log(struct guest *guest, bool on)
{
	atomic_exchange(&guest->log_on, 0);
	for (size_t i = 0; i < guest->bitmap_bytes / sizeof(uint64_t); i++)
		atomic_store_explicit(&guest->bitmap[i], 0, memory_order_relaxed);
	atomic_exchange(&guest->log_on, on ? 1u : 0u);
}

static int do_dirty_log(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)reply;
	const json_t *on = json_object_get(request, "on");
	if (!json_is_boolean(on))
		return err_set(err, ERR_USAGE, "'on' must be true or false");
	pthread_mutex_lock(&guest->lock);
	set_log(guest, json_is_true(on));
	pthread_mutex_unlock(&guest->lock);
	return 0;
}

static int do_throttle(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)reply;
	json_int_t percent = json_integer_value(json_object_get(request, "percent"));
	if (percent < 0 || percent > 100)
		return err_set(err, ERR_USAGE, "'percent' must be 0 to 100");
	pthread_mutex_lock(&guest->lock);
	guest->throttle_percent = percent > THROTTLE_MAX ? THROTTLE_MAX : (unsigned)percent;
	pthread_cond_broadcast(&guest->changed);
	pthread_mutex_unlock(&guest->lock);
	return 0;
}

static int do_suspend(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)request;
	struct timespec until;
	int result = 0;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += SUSPEND_S;
	pthread_mutex_lock(&guest->lock);
	if (guest->state == GUEST_RUNNING) {
		guest->want_suspend = true;
		pthread_cond_broadcast(&guest->changed);
		while (guest->want_suspend && guest->state == GUEST_RUNNING && !guest->want_end)
			if (pthread_cond_timedwait(&guest->changed, &guest->lock, &until) == ETIMEDOUT)
				break;
	}
	if (guest->state == GUEST_SUSPENDED) {
		json_object_set_new(reply, "state", guest_save(guest));
	} else {
		result = refuse(guest, "suspend", err);
		guest->want_suspend = false;
	}
	pthread_mutex_unlock(&guest->lock);
	return result;
}

/* The worker does it: the connections to the disks are its own. */
static int do_flush(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)request;
	(void)reply;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += SUSPEND_S;
	pthread_mutex_lock(&guest->lock);
	uint64_t mine = ++guest->flushes_wanted;
	pthread_cond_broadcast(&guest->changed);
	while (guest->flushes_done < mine && !guest->want_end &&
	       (guest->state == GUEST_RUNNING || guest->state == GUEST_SUSPENDED))
		if (pthread_cond_timedwait(&guest->changed, &guest->lock, &until) == ETIMEDOUT)
			break;
	int result = guest->flushes_done >= mine ? 0 : refuse(guest, "flush", err);
	pthread_mutex_unlock(&guest->lock);
	return result;
}

static int do_resume(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)request;
	(void)reply;
	int result = 0;
	pthread_mutex_lock(&guest->lock);
	if (guest->state == GUEST_SUSPENDED || guest->state == GUEST_RUNNING) {
		guest->state = GUEST_RUNNING;
		guest->want_suspend = false;
		guest->throttle_percent = 0;
		set_log(guest, false);
		pthread_cond_broadcast(&guest->changed);
	} else {
		result = refuse(guest, "resume", err);
	}
	pthread_mutex_unlock(&guest->lock);
	return result;
}

static int do_incoming(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)reply;
	pthread_mutex_lock(&guest->lock);
	int result = guest->state == GUEST_INCOMING || guest->state == GUEST_LOADED
	                     ? guest_load(guest, json_object_get(request, "state"), err)
	                     : refuse(guest, "take a state", err);
	if (result == 0)
		guest->state = GUEST_LOADED;
	pthread_mutex_unlock(&guest->lock);
	return result;
}

/* Which images the disks are on here: the same disks as in the record, in the same order. */
static int take_images(struct guest *guest, const json_t *disks, struct err *err)
{
	struct sim_record *record = &guest->record;
	if (json_array_size(disks) != record->disk_count)
		return err_set(err, ERR_CONFLICT, "the VM has %u disks, not %zu", record->disk_count,
		               json_array_size(disks));
	for (unsigned i = 0; i < record->disk_count; i++) {
		struct sim_disk *disk = &record->disks[i];
		const char *name, *sr, *path, *format;
		if (json_unpack(json_array_get(disks, i), "{s:s,s:s,s:s,s:s}", "name", &name, "sr", &sr, "path", &path,
		                "format", &format) != 0)
			return err_set(err, ERR_USAGE, "disk %u is not described", i);
		if (strcmp(name, disk->name) != 0 || strlen(sr) >= sizeof(disk->sr) ||
		    strlen(path) >= sizeof(disk->path))
			return err_set(err, ERR_CONFLICT, "disk %u is %s, not %s", i, disk->name, name);
		snprintf(disk->sr, sizeof(disk->sr), "%s", sr);
		snprintf(disk->path, sizeof(disk->path), "%s", path);
		disk->format = strcmp(format, "qcow2") == 0 ? FORMAT_QCOW2 : FORMAT_RAW;
	}
	return 0;
}

struct saving {
	struct guest *guest;
	struct err err;
	int result;
};

static void *save_record(void *ctx)
{
	struct saving *saving = ctx;
	saving->result = sim_record_save(&saving->guest->paths, &saving->guest->record, &saving->err);
	return NULL;
}

/* The VM stands still meanwhile: the record goes to the disk while the images are opened. */
static int attach(struct guest *guest, const json_t *disks, struct err *err)
{
	struct saving saving = { .guest = guest };
	pthread_t thread;
	if (take_images(guest, disks, err) != 0)
		return -1;
	bool apart = pthread_create(&thread, NULL, save_record, &saving) == 0;
	int result = guest_disks_attach(guest, err);
	if (apart)
		pthread_join(thread, NULL);
	else
		save_record(&saving);
	if (result != 0)
		return -1;
	if (saving.result != 0)
		return err_set(err, saving.err.code, "%s", saving.err.text);
	if (guest_ledger_open(guest, err) != 0 ||
	    sim_record_open(&guest->paths, guest->record.name, &guest->record_fd, &guest->record_offset, err) != 0)
		return -1;
	if (guest_worker_start(guest, err) != 0) /* it waits until the state says that it may run */
		return -1;
	guest->state = GUEST_ATTACHED;
	return 0;
}

static int do_attach(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)reply;
	int result = 0;
	pthread_mutex_lock(&guest->lock);
	if (guest->state == GUEST_LOADED) {
		result = attach(guest, json_object_get(request, "disks"), err);
		if (result != 0)
			guest->state = GUEST_FAILED; /* half attached: only good for being destroyed */
	} else if (guest->state != GUEST_ATTACHED) {
		result = refuse(guest, "attach disks", err);
	}
	pthread_mutex_unlock(&guest->lock);
	return result;
}

static int do_unpause(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)request;
	(void)reply;
	int result = 0;
	pthread_mutex_lock(&guest->lock);
	if (guest->state == GUEST_ATTACHED) {
		if (!guest_disks_alive(guest))
			result = err_set(err, ERR_BACKEND, "cannot unpause: its block backend is gone");
		else
			result = sim_record_activate(guest->record_fd, guest->record_offset, err);
		if (result == 0) {
			guest->record.state = SIM_RUNNING;
			guest->state = GUEST_RUNNING;
			pthread_cond_broadcast(&guest->changed);
		}
	} else if (guest->state != GUEST_RUNNING) {
		result = refuse(guest, "unpause", err);
	}
	pthread_mutex_unlock(&guest->lock);
	return result;
}

static int end(struct guest *guest, bool only_if_never_ran, struct err *err)
{
	int result = 0;
	pthread_mutex_lock(&guest->lock);
	if (only_if_never_ran && guest->record.state != SIM_INCOMING) {
		result = err_set(err, ERR_TOO_LATE, "cannot discard: it has run here");
	} else {
		guest->want_end = true;
		guest->state = GUEST_ENDING;
		pthread_cond_broadcast(&guest->changed);
	}
	pthread_mutex_unlock(&guest->lock);
	return result;
}

static int do_end(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)request;
	(void)reply;
	return end(guest, false, err);
}

static int do_discard(struct guest *guest, const json_t *request, json_t *reply, struct err *err)
{
	(void)request;
	(void)reply;
	return end(guest, true, err);
}

static const struct {
	const char *op;
	handler run;
	bool fds, ends;
} handlers[] = {
	{ "status", do_status, false, false },       { "fds", do_fds, true, false },
	{ "dirty-log", do_dirty_log, false, false }, { "throttle", do_throttle, false, false },
	{ "suspend", do_suspend, false, false },     { "resume", do_resume, false, false },
	{ "incoming", do_incoming, false, false },   { "attach", do_attach, false, false },
	{ "flush", do_flush, false, false },         { "unpause", do_unpause, false, false },
	{ "shutdown", do_end, false, true },         { "destroy", do_end, false, true },
	{ "discard", do_discard, false, true },
};

static void send_reply(struct caller *caller, json_t *reply, bool fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	char *text = json_dumps(reply, JSON_COMPACT);
	if (text == NULL)
		return;
	size_t bytes = strlen(text);
	text[bytes++] = '\n';
	struct iovec place = { text, bytes };
	struct msghdr header = { .msg_iov = &place, .msg_iovlen = 1 };
	if (fds) {
		const int both[2] = { caller->guest->memory_fd, caller->guest->bitmap_fd };
		header.msg_control = control.bytes;
		header.msg_controllen = sizeof(control.bytes);
		struct cmsghdr *item = CMSG_FIRSTHDR(&header);
		item->cmsg_level = SOL_SOCKET;
		item->cmsg_type = SCM_RIGHTS;
		item->cmsg_len = CMSG_LEN(sizeof(both));
		memcpy(CMSG_DATA(item), both, sizeof(both));
	}
	/* A blocking socket: it takes it all or the caller is gone. */
	if (sendmsg(caller->fd, &header, MSG_NOSIGNAL) < 0)
		log_debug("guest=%s caller is gone", caller->guest->record.name);
	free(text);
}

static void serve_line(struct caller *caller, const char *line)
{
	struct err err = { 0 };
	json_error_t why;
	json_t *request = json_loads(line, JSON_REJECT_DUPLICATES, &why);
	json_t *reply = json_object();
	const char *op = json_string_value(json_object_get(request, "op"));
	bool fds = false, ends = false;
	int result = err_set(&err, ERR_USAGE, "unknown request '%.32s'", op != NULL ? op : "");
	for (size_t i = 0; op != NULL && i < sizeof(handlers) / sizeof(handlers[0]); i++) {
		if (strcmp(handlers[i].op, op) != 0)
			continue;
		result = handlers[i].run(caller->guest, request, reply, &err);
		fds = handlers[i].fds && result == 0;
		ends = handlers[i].ends && result == 0;
	}
	if (result != 0)
		json_object_clear(reply);
	json_object_set_new(reply, "ok", json_boolean(result == 0));
	if (result != 0) {
		json_object_set_new(reply, "code", json_string(err_name(err.code)));
		json_object_set_new(reply, "error", json_string(err.text));
	}
	send_reply(caller, reply, fds);
	json_decref(reply);
	json_decref(request);
	if (ends) {
		const uint64_t one = 1;
		if (write(caller->guest->end_fd, &one, sizeof(one)) != sizeof(one))
			log_error("guest=%s eventfd: %s", caller->guest->record.name, strerror(errno));
	}
}

static void *serve(void *ctx)
{
	struct caller *caller = ctx;
	char *line = malloc(SIM_LINE_BYTES);
	size_t have = 0;
	while (line != NULL && have < SIM_LINE_BYTES - 1) {
		ssize_t got = recv(caller->fd, line + have, SIM_LINE_BYTES - 1 - have, 0);
		if (got <= 0)
			break;
		have += (size_t)got;
		char *newline;
		while ((newline = memchr(line, '\n', have)) != NULL) {
			*newline = '\0';
			serve_line(caller, line);
			have -= (size_t)(newline + 1 - line);
			memmove(line, newline + 1, have);
		}
	}
	free(line);
	close(caller->fd);
	free(caller);
	return NULL;
}

static void accept_one(struct guest *guest)
{
	struct ucred peer;
	socklen_t bytes = sizeof(peer);
	pthread_t thread;
	int fd = accept4(guest->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	const struct timeval idle = { .tv_sec = IDLE_S };
	struct caller *caller = malloc(sizeof(*caller));
	if (caller == NULL || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0 || peer.uid != getuid())
		goto out;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof(idle));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &idle, sizeof(idle));
	*caller = (struct caller) { .guest = guest, .fd = fd };
	if (pthread_create(&thread, NULL, serve, caller) != 0)
		goto out;
	pthread_detach(thread);
	return;
out:
	free(caller);
	close(fd);
}

int guest_control_open(struct guest *guest, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char path[LIMIT_PATH];
	if (sim_path(&guest->paths, guest->record.name, SIM_PATH_CONTROL, path, err) != 0)
		return -1;
	snprintf(address.sun_path, sizeof(address.sun_path), "%.107s", path);
	guest->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(path);
	if (guest->listen_fd < 0 || bind(guest->listen_fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    chmod(path, 0600) != 0 || listen(guest->listen_fd, BACKLOG) != 0)
		return err_errno(err, ERR_IO, errno, "listen on %s", path);
	return 0;
}

void guest_control_run(struct guest *guest)
{
	struct pollfd what[2] = { { .fd = guest->listen_fd, .events = POLLIN },
		                  { .fd = guest->end_fd, .events = POLLIN } };
	while (poll(what, 2, -1) >= 0 || errno == EINTR) {
		if (what[1].revents != 0)
			return;
		if (what[0].revents != 0)
			accept_one(guest);
		what[0].revents = 0;
	}
}
