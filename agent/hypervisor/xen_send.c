/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hypervisor_xen: memory out. libxl_domain_suspend() runs on a thread of its own and has our helper write to a socket;
 * the leg's thread takes it from there, frame by frame, and answers the helper, which asks between two rounds. So all
 * of the leg's callbacks are called by the thread that called us.
 *
 * When the helper asks it writes nothing: what is in the socket then is the rest of the round. Bytes are counted here;
 * libxc counts pages that hold nothing, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/hypervisor/xen_driver.h"
#include "agent/hypervisor/xen_wire.h"
#include "common/log.h"

#define HELPER "drover-xen-save-helper" /* beside the running program */
#define HELPER_ENV "LIBXL_SAVE_HELPER"
#define SUSPEND_POLL_MS 2 /* while the guest suspends */
#define LATER_PAGES 256u  /* the last round is that much bigger than the log says: pages that backends write */
#define READ_BYTES XEN_STREAM_DATA_MAX

enum phase {
	PHASE_ROUNDS,     /* the VM runs; the helper asks after each round */
	PHASE_SUSPENDING, /* the helper was told to have it suspended */
	PHASE_SUSPENDED,  /* it is; the last round is on its way */
};

struct sender {
	struct hypervisor_source *source;
	const struct hypervisor_send *send;
	enum phase phase;
	int stream_fd, policy_fd; /* our ends */
	int helper_fd;            /* the helper's end of the policy; ours to close once it is up */
	bool ended;               /* the stream */
	uint32_t round;
	int64_t round_at_ms, suspended_at_ms;
	uint64_t sent_bytes, sent_total_bytes; /* of libxl's stream */
	struct xen_tail tail;
	XXH3_state_t *digest;
	unsigned char *in, *out; /* out: room for a frame's head, then READ_BYTES */
};

/* ---- out ---- */
static int put(struct sender *sender, enum xen_stream_kind kind, uint64_t value, unsigned char *bytes, size_t count,
               struct err *err)
{
	const struct xen_stream_frame frame = { kind, (uint32_t)count, value };
	xen_stream_put(bytes, &frame);
	if (disk_cancelled(&sender->source->cancel))
		return err_set(err, ERR_CANCELLED, "memory of %s: cancelled", sender->source->name);
	return sender->send->write(sender->send->ctx, bytes, XEN_STREAM_FRAME_BYTES + count, err);
}

/* 1: there was something, 0: nothing now, -1. */
static int relay(struct sender *sender, struct err *err)
{
	ssize_t got = recv(sender->stream_fd, sender->in, READ_BYTES, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got < 0)
		return err_errno(err, ERR_HYPERVISOR, errno, "memory of %s", sender->source->name);
	sender->ended = got == 0;
	XXH3_64bits_update(sender->digest, sender->in, (size_t)got);
	size_t go = xen_tail_push(&sender->tail, sender->in, (size_t)got, sender->out + XEN_STREAM_FRAME_BYTES);
	sender->sent_bytes += go;
	sender->sent_total_bytes += go;
	if (go > 0 && put(sender, XEN_STREAM_DATA, 0, sender->out, go, err) != 0)
		return -1;
	return 1;
}

/* Everything that libxl has written so far. */
static int drain(struct sender *sender, struct err *err)
{
	int more = 1;
	while (more == 1 && !sender->ended)
		more = relay(sender, err);
	return more < 0 ? -1 : 0;
}

/* ---- rounds ---- */
static uint64_t dirty_bytes(struct sender *sender)
{
	xc_shadow_op_stats_t stats = { 0 };
	struct hypervisor_source *source = sender->source;
	/* EBUSY: somebody else looks; the round's own bytes are a fair guess then. */
	if (xc_logdirty_control(source->hv->xch, source->domid, XEN_DOMCTL_SHADOW_OP_PEEK, NULL, 0, 0, &stats) < 0)
		return sender->sent_bytes;
	return ((uint64_t)stats.dirty_count + LATER_PAGES) * XEN_PAGE_BYTES;
}

static int begin_suspend(struct sender *sender, struct err *err)
{
	struct hypervisor_source *source = sender->source;
	struct xen_note note = xen_note_read(source->hv, source->uuid);
	if (sender->send->suspending(sender->send->ctx, err) != 0)
		return -1;
	note.asked_ms = disk_now_ms();
	if (xen_note_write(source->hv, source->uuid, &note, err) != 0)
		return -1;
	sender->phase = PHASE_SUSPENDING;
	return 0;
}

static int after_round(struct sender *sender, struct err *err)
{
	struct hypervisor_source *source = sender->source;
	struct xen_policy_packet answer = { .version = XEN_POLICY_VERSION,
		                            .kind = XEN_POLICY_NEXT,
		                            .next = XEN_POLICY_GO_ON };
	if (drain(sender, err) != 0)
		return -1;
	const struct hypervisor_pass pass = { .pass = sender->round++,
		                              .total_bytes = source->memory_bytes,
		                              .sent_bytes = sender->sent_bytes,
		                              .sent_total_bytes = sender->sent_total_bytes,
		                              .dirty_bytes = dirty_bytes(sender),
		                              .took_ms = (uint64_t)(disk_now_ms() - sender->round_at_ms) };
	enum hypervisor_next next = sender->send->pass(sender->send->ctx, &pass);
	if (disk_cancelled(&source->cancel) || next == HYPERVISOR_ABORT)
		return err_set(err, ERR_CANCELLED, "memory of %s: told to stop", source->name);
	if (next == HYPERVISOR_SUSPEND) {
		if (begin_suspend(sender, err) != 0)
			return -1;
		answer.next = XEN_POLICY_SUSPEND;
	}
	sender->sent_bytes = 0;
	sender->round_at_ms = disk_now_ms();
	return xen_policy_send(sender->policy_fd, &answer) == 0
	               ? 0
	               : xen_fail(source->hv, err, "memory of %s: the save helper is gone", source->name);
}

static int on_policy(struct sender *sender, struct err *err)
{
	struct xen_policy_packet packet;
	if (xen_policy_receive(sender->policy_fd, &packet) != 0) {
		close(sender->policy_fd); /* it ends: its stream will tell */
		sender->policy_fd = -1;
		return 0;
	}
	switch (packet.kind) {
	case XEN_POLICY_HELLO:
		close(sender->helper_fd); /* only it has this end now: if it dies, we see it */
		sender->helper_fd = -1;
		return 0;
	case XEN_POLICY_ROUND:
		if (sender->phase == PHASE_ROUNDS)
			return after_round(sender, err);
		break;
	default:
		break;
	}
	return err_set(err, ERR_HYPERVISOR, "memory of %s: the save helper does not keep to the protocol",
	               sender->source->name);
}

/* ---- suspending ---- */
/* By what Xen says, and not by libxl, which says so only after the last round. A second catch goes on it: should
 * anybody resume it, it still does not run. */
static int watch_suspend(struct sender *sender, struct err *err)
{
	struct hypervisor_source *source = sender->source;
	xc_domaininfo_t info;
	if (sender->phase != PHASE_SUSPENDING)
		return 0;
	int there = xen_domain_get(source->hv, source->domid, source->uuid, &info, err);
	if (there < 0)
		return -1;
	if (there == 0 || xen_domain_has_ended(&info))
		return err_set(err, ERR_UNKNOWN_VM, "VM %s has ended by itself", source->name);
	if (!xen_domain_is_suspended(&info))
		return 0;
	if (xc_domain_pause(source->hv->xch, source->domid) != 0)
		return xen_fail(source->hv, err, "cannot hold VM %s", source->name);
	sender->phase = PHASE_SUSPENDED;
	sender->suspended_at_ms = disk_now_ms();
	return sender->send->suspended(sender->send->ctx, err);
}

static int await(struct sender *sender, struct err *err)
{
	struct hypervisor_source *source = sender->source;
	struct pollfd fds[] = {
		{ .fd = source->cancel.event_fd, .events = POLLIN },
		{ .fd = sender->stream_fd, .events = POLLIN },
		{ .fd = sender->policy_fd, .events = POLLIN },
	};
	int wait_ms = sender->phase == PHASE_SUSPENDING ? SUSPEND_POLL_MS : -1;
	if (poll(fds, 3, wait_ms) < 0 && errno != EINTR)
		return err_errno(err, ERR_IO, errno, "poll");
	if (disk_cancelled(&source->cancel))
		return err_set(err, ERR_CANCELLED, "memory of %s: cancelled", source->name);
	if (watch_suspend(sender, err) != 0)
		return -1;
	if (fds[1].revents != 0 && relay(sender, err) < 0)
		return -1;
	return fds[2].revents != 0 && fds[1].revents == 0 ? on_policy(sender, err) : 0;
}

/* ---- begin ---- */
static int run_suspend(struct xen_task *task)
{
	return libxl_domain_suspend(task->ctx, task->domid, task->stream_fd, LIBXL_SUSPEND_LIVE, NULL);
}

/* libxl hands our environment on to the helper. One leg sends one VM: nobody else reads or sets these. */
static int tell_helper(const struct sender *sender, struct err *err)
{
	char path[PATHS_MAX + sizeof(HELPER)], number[16];
	ssize_t bytes = readlink("/proc/self/exe", path, PATHS_MAX - 1);
	char *slash = bytes > 0 ? memrchr(path, '/', (size_t)bytes) : NULL;
	if (slash == NULL)
		return err_errno(err, ERR_IO, errno, "cannot find the program's own directory");
	memcpy(slash + 1, HELPER, sizeof(HELPER));
	if (access(path, X_OK) != 0)
		return err_errno(err, ERR_CONFIG, errno, "the save helper %s", path);
	snprintf(number, sizeof(number), "%d", sender->helper_fd);
	return setenv(HELPER_ENV, path, 1) != 0 || setenv(XEN_POLICY_ENV, number, 1) != 0
	               ? err_set(err, ERR_NO_MEMORY, "no memory")
	               : 0;
}

static int start(struct sender *sender, struct err *err)
{
	struct hypervisor_source *source = sender->source;
	int stream[2], policy[2];
	if (xen_socket_pair(SOCK_STREAM, stream, err) != 0)
		return -1;
	sender->stream_fd = stream[0];
	struct xen_task *task = calloc(1, sizeof(*task));
	if (task == NULL || xen_socket_pair(SOCK_SEQPACKET, policy, err) != 0) {
		free(task);
		close(stream[1]);
		return task == NULL ? err_set(err, ERR_NO_MEMORY, "no memory") : -1;
	}
	sender->policy_fd = policy[0];
	sender->helper_fd = policy[1];
	*task = (struct xen_task) {
		.hv = source->hv, .stream_fd = stream[1], .run = run_suspend, .domid = source->domid
	};
	libxl_domain_config_init(&task->config);
	/* The one descriptor that the helper is to inherit. */
	if (fcntl(sender->helper_fd, F_SETFD, 0) != 0 || tell_helper(sender, err) != 0) {
		close(stream[1]);
		free(task);
		return -1;
	}
	sender->round_at_ms = disk_now_ms();
	if (xen_task_start(task, err) != 0)
		return -1;
	source->task = task;
	return 0;
}

static int check(struct hypervisor_source *source, struct err *err)
{
	libxl_domain_config config;
	xc_domaininfo_t info;
	pid_t pid;
	int there = xen_domain_get(source->hv, source->domid, source->uuid, &info, err);
	if (there <= 0)
		return there < 0 ? -1 : err_set(err, ERR_UNKNOWN_VM, "VM %s is gone", source->name);
	/* Xen lets two save one VM at once, and each takes the other's dirty pages. */
	if (xen_domain_saver(source->domid, &pid))
		return err_set(err, ERR_BUSY, "process %d saves or migrates VM %s already", (int)pid, source->name);
	if (xen_config_read(source->hv, source->domid, &config, err) != 0)
		return -1;
	int result = xen_config_check(source->hv, &info, &config, err);
	libxl_domain_config_dispose(&config);
	return result != 0 ? err_wrap(err, "VM %s", source->name) : 0;
}

static int put_head(struct sender *sender, struct err *err)
{
	char *text = NULL;
	if (xen_describe(sender->source->hv, sender->source->domid, &text, err) != 0)
		return -1;
	size_t bytes = strlen(text);
	unsigned char *frame = malloc(XEN_STREAM_FRAME_BYTES + bytes);
	int result = -1;
	if (frame == NULL) {
		err_set(err, ERR_NO_MEMORY, "no memory");
	} else {
		memcpy(frame + XEN_STREAM_FRAME_BYTES, text, bytes);
		result = put(sender, XEN_STREAM_HEAD, XEN_STREAM_VERSION, frame, bytes, err);
	}
	free(frame);
	free(text);
	return result;
}

static int begin(struct sender *sender, struct err *err)
{
	sender->digest = XXH3_createState();
	sender->in = malloc(READ_BYTES);
	sender->out = malloc(XEN_STREAM_FRAME_BYTES + READ_BYTES + XEN_STREAM_TAIL_BYTES);
	if (sender->digest == NULL || sender->in == NULL || sender->out == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory to send %s", sender->source->name);
	XXH3_64bits_reset(sender->digest);
	return check(sender->source, err) != 0 || put_head(sender, err) != 0 ? -1 : start(sender, err);
}

/* ---- end ---- */
/* libxl has closed the stream. It says 0 also for a guest that runs: what counts is what Xen says. */
static int finish(struct sender *sender, struct err *err)
{
	struct hypervisor_source *source = sender->source;
	int rc = source->task->rc;
	if (watch_suspend(sender, err) != 0)
		return -1;
	if (rc != 0 || sender->phase != PHASE_SUSPENDED)
		return xen_fail(source->hv, err, "memory of %s: libxl says %d, the VM %s", source->name, rc,
		                sender->phase == PHASE_SUSPENDED ? "is suspended" : "runs");
	if (sender->tail.count != XEN_STREAM_TAIL_BYTES)
		return err_set(err, ERR_HYPERVISOR, "memory of %s: libxl sent nothing", source->name);
	memcpy(sender->out + XEN_STREAM_FRAME_BYTES, sender->tail.held, XEN_STREAM_TAIL_BYTES);
	if (put(sender, XEN_STREAM_END, XXH3_64bits_digest(sender->digest), sender->out, XEN_STREAM_TAIL_BYTES, err) !=
	    0)
		return -1;
	sender->send->sent(sender->send->ctx, sender->sent_bytes, (uint64_t)(disk_now_ms() - sender->suspended_at_ms));
	return 0;
}

/* Whatever libxl and the helper wait for ends by this, but for a guest that was asked to suspend: see source_resume. */
static void let_go(struct sender *sender)
{
	if (sender->stream_fd >= 0)
		close(sender->stream_fd);
	if (sender->policy_fd >= 0)
		close(sender->policy_fd);
	if (sender->helper_fd >= 0)
		close(sender->helper_fd);
	XXH3_freeState(sender->digest);
	free(sender->in);
	free(sender->out);
}

/* The helper closes its end before libxl has heard of its end and given up its own. */
static int await_libxl(struct sender *sender, struct err *err)
{
	struct hypervisor_source *source = sender->source;
	short events;
	while (!atomic_load(&source->task->over)) {
		if (disk_wait(&source->cancel, source->task->event_fd, POLLIN, disk_now_ms() + 1000, &events, err) != 0)
			return -1;
	}
	return 0;
}

int xen_source_send(struct hypervisor_source *source, const struct hypervisor_send *send, struct err *err)
{
	struct sender sender = {
		.source = source, .send = send, .phase = PHASE_ROUNDS, .stream_fd = -1, .policy_fd = -1, .helper_fd = -1
	};
	int result = begin(&sender, err);
	while (result == 0 && !sender.ended)
		result = await(&sender, err);
	if (result == 0)
		result = await_libxl(&sender, err);
	if (result == 0)
		result = finish(&sender, err);
	let_go(&sender);
	if (result == 0) {
		xen_task_join(source->task);
		source->task = NULL;
	}
	return result;
}
