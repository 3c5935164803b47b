/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iSCSI by libiscsi. The library connects by itself and knows TCP addresses only, while what leads to the exporter is a
 * socket that we have. So it is let connect to a listener of ours on loopback, from which nothing is ever accepted, and
 * our socket is put in the place of the descriptor that it made (dup2): no byte goes through a second connection, and
 * no port is open longer than a moment.
 *
 * NOPs and automatic reconnecting stay off: with NOPs libiscsi 1.19 loses sessions under load, and a reconnected
 * session must not write again what was cancelled.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/disk/exporter_int.h"
#include "agent/disk/sink_int.h"

#define ISCSI_BLOCK_BYTES 512
#define ISCSI_UNIT_ATTENTIONS 3   /* a request is begun again at most so often */
#define ISCSI_SPACE_FAILED 0x2707 /* SPACE ALLOCATION FAILED WRITE PROTECT */

struct sink_iscsi {
	struct iscsi_context *iscsi;
	int lun;
	bool login_ended;
	int login_status;
	bool closing;               /* callbacks only free */
	struct sink_request *again; /* met a unit attention: to be begun again, outside of the callback */
	unsigned char zero_block[ISCSI_BLOCK_BYTES];
};

/* libiscsi writes to its socket without MSG_NOSIGNAL. Blocks SIGPIPE for the calling thread while it runs. */
struct pipe_guard {
	sigset_t before;
};

static void guard_begin(struct pipe_guard *guard)
{
	sigset_t pipe;
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &guard->before);
}

static void guard_end(const struct pipe_guard *guard)
{
	sigset_t pipe;
	struct timespec none = { 0 };
	if (sigismember(&guard->before, SIGPIPE) == 1)
		return;
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	while (sigtimedwait(&pipe, NULL, &none) == SIGPIPE)
		;
	pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
}

static void explain(int status, const struct scsi_task *task, struct err *why)
{
	switch (status) {
	case SCSI_STATUS_CANCELLED:
	case SCSI_STATUS_ERROR:
		err_set(why, ERR_PEER_LOST, "the connection to the exporter broke");
		return;
	case SCSI_STATUS_CHECK_CONDITION:
		break;
	default:
		err_set(why, ERR_EXPORTER, "iSCSI: SCSI status 0x%x", (unsigned)status);
		return;
	}
	if (task->sense.ascq == ISCSI_SPACE_FAILED)
		err_set(why, ERR_NO_SPACE, "no space left at the exporter");
	else if (task->sense.key == SCSI_SENSE_MEDIUM_ERROR) /* tgtd says it of a full file system too */
		err_set(why, ERR_EXPORTER, "iSCSI: the exporter cannot write (its storage is full or broken)");
	else
		err_set(why, ERR_EXPORTER, "iSCSI: sense %d/%04x", (int)task->sense.key, (unsigned)task->sense.ascq);
}

static void on_task(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct sink_request *request = private_data;
	struct sink_iscsi *driver = request->sink->driver;
	struct scsi_task *task = command_data;
	struct err why = { 0 };
	(void)iscsi;
	if (driver->closing) {
		/* sink_close gives the buffers back */
	} else if (status == SCSI_STATUS_GOOD) {
		sink_done(request, NULL);
	} else if (status == SCSI_STATUS_CHECK_CONDITION && task && task->sense.key == SCSI_SENSE_UNIT_ATTENTION &&
	           request->tries < ISCSI_UNIT_ATTENTIONS && !driver->again) {
		request->tries++;
		driver->again = request;
	} else {
		explain(task || status != SCSI_STATUS_CHECK_CONDITION ? status : SCSI_STATUS_ERROR, task, &why);
		sink_done(request, &why);
	}
	if (task)
		scsi_free_scsi_task(task);
}

static int iscsi_start(struct sink *sink, struct sink_request *request, struct err *err)
{
	struct sink_iscsi *driver = sink->driver;
	uint64_t block = request->offset / ISCSI_BLOCK_BYTES;
	struct scsi_task *task = NULL;
	if (request->offset % ISCSI_BLOCK_BYTES != 0 || request->bytes % ISCSI_BLOCK_BYTES != 0)
		return err_set(err, ERR_INTERNAL, "iSCSI: write of half a block");
	switch (request->what) {
	case SINK_WRITE:
		task = iscsi_write16_task(driver->iscsi, driver->lun, block,
		                          (unsigned char *)(uintptr_t)request->buffer, (uint32_t)request->bytes,
		                          ISCSI_BLOCK_BYTES, 0, 0, 0, 0, 0, on_task, request);
		break;
	case SINK_ZERO: /* with the unmap bit: holes, where the storage has such, and zeroes in any case */
		task = iscsi_writesame16_task(driver->iscsi, driver->lun, block, driver->zero_block, ISCSI_BLOCK_BYTES,
		                              (uint32_t)(request->bytes / ISCSI_BLOCK_BYTES), 0, 1, 0, 0, on_task,
		                              request);
		break;
	case SINK_FLUSH:
		task = iscsi_synchronizecache16_task(driver->iscsi, driver->lun, 0, 0, 0, 0, on_task, request);
		break;
	}
	if (!task)
		return err_set(err, ERR_PEER_LOST, "iSCSI: %.300s", iscsi_get_error(driver->iscsi));
	return 0;
}

static int service(struct sink_iscsi *driver, int events, struct err *err)
{
	struct pipe_guard guard;
	guard_begin(&guard);
	int result = iscsi_service(driver->iscsi, events);
	guard_end(&guard);
	return result < 0 ? err_set(err, ERR_PEER_LOST, "iSCSI: %.300s", iscsi_get_error(driver->iscsi)) : 0;
}

static int iscsi_turn(struct sink *sink, int64_t deadline_ms, struct err *err)
{
	struct sink_iscsi *driver = sink->driver;
	short events = 0;
	int fd = iscsi_get_fd(driver->iscsi);
	if (fd < 0)
		return err_set(err, ERR_PEER_LOST, "iSCSI: the connection is gone");
	if (disk_wait(&sink->cancel, fd, (short)iscsi_which_events(driver->iscsi), deadline_ms, &events, err) < 0)
		return -1;
	if (events && service(driver, events, err) < 0)
		return -1;
	if (driver->again) {
		struct sink_request *request = driver->again;
		driver->again = NULL;
		return iscsi_start(sink, request, err);
	}
	return 0;
}

static void iscsi_shut(struct sink *sink)
{
	struct sink_iscsi *driver = sink->driver;
	struct pipe_guard guard;
	driver->closing = true;
	guard_begin(&guard);
	iscsi_destroy_context(driver->iscsi); /* closes; no logout, which would wait */
	guard_end(&guard);
	free(driver);
	sink->driver = NULL;
}

static const struct sink_ops sink_iscsi = { .start = iscsi_start, .turn = iscsi_turn, .close = iscsi_shut };

static void on_login(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct sink_iscsi *driver = private_data;
	(void)iscsi;
	(void)command_data;
	driver->login_ended = true;
	driver->login_status = status;
}

/* A listener that only serves to be connected to. */
static int listen_loopback(char ret_portal[32], struct err *err)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(err, ERR_IO, errno, "socket");
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
		int saved = errno;
		close(fd);
		return err_errno(err, ERR_IO, saved, "listen on loopback");
	}
	snprintf(ret_portal, 32, "127.0.0.1:%u", ntohs(address.sin_port));
	return fd;
}

static int configure(struct iscsi_context *iscsi, const struct exporter_access *access)
{
	/* iscsi_create_context reads LIBISCSI_* of the environment; what matters is set here again */
	iscsi_set_noautoreconnect(iscsi, 1);
	iscsi_set_cache_allocations(iscsi, 1);
	if (iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL) != 0 ||
	    iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE) != 0 ||
	    iscsi_set_targetname(iscsi, access->export_name) != 0 ||
	    iscsi_set_initiator_username_pwd(iscsi, access->user, access->secret) != 0)
		return -1;
	return 0;
}

/* Connects the library, puts `fd` in the place of its socket, logs in. */
static int log_in(struct sink *sink, struct sink_iscsi *driver, int fd, struct err *err)
{
	int64_t deadline_ms = disk_now_ms() + SINK_CONNECT_MS;
	char portal[32];
	int listener = listen_loopback(portal, err);
	if (listener < 0)
		return -1;
	int result = iscsi_full_connect_async(driver->iscsi, portal, driver->lun, on_login, driver);
	int own = iscsi_get_fd(driver->iscsi);
	if (result != 0 || own < 0)
		result = err_set(err, ERR_IO, "iSCSI: %.300s", iscsi_get_error(driver->iscsi));
	else if (dup3(fd, own, O_CLOEXEC) < 0)
		result = err_errno(err, ERR_IO, errno, "iSCSI");
	close(listener);
	while (result == 0 && !driver->login_ended) {
		result = iscsi_turn(sink, deadline_ms, err);
		if (result == 0 && !driver->login_ended && disk_now_ms() >= deadline_ms)
			result = err_set(err, ERR_TIMEOUT, "iSCSI: no login within %d ms", SINK_CONNECT_MS);
	}
	if (driver->login_ended && driver->login_status != SCSI_STATUS_GOOD)
		result = err_set(err, ERR_DENIED, "iSCSI: login refused: %.300s", iscsi_get_error(driver->iscsi));
	return result;
}

int sink_iscsi_open(struct sink *sink, const struct exporter_access *access, int fd, struct err *err)
{
	char initiator[LIMIT_ID + 16];
	int result = -1;
	struct sink_iscsi *driver = calloc(1, sizeof(*driver));
	snprintf(initiator, sizeof(initiator), "%s%s", access->export_name, EXPORTER_INITIATOR_SUFFIX);
	if (driver)
		driver->iscsi = iscsi_create_context(initiator);
	if (!driver || !driver->iscsi) {
		free(driver);
		close(fd);
		return err_set(err, ERR_NO_MEMORY, "no memory");
	}
	driver->lun = (int)access->lun;
	sink->driver = driver;
	if (configure(driver->iscsi, access) < 0)
		err_set(err, ERR_PROTOCOL, "iSCSI: %.300s", iscsi_get_error(driver->iscsi));
	else
		result = log_in(sink, driver, fd, err);
	close(fd);
	if (result < 0) {
		iscsi_shut(sink);
		return -1;
	}
	sink->ops = &sink_iscsi;
	return 0;
}
