/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/cancel.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct entry {
	void (*fn)(void *ctx);
	void *ctx;
};

struct cancel {
	int fd;
	atomic_bool fired;
	pthread_mutex_t lock;
	unsigned count;
	struct entry entries[CANCEL_ENTRIES_MAX];
};

struct cancel *cancel_new(struct err *err)
{
	struct cancel *cancel = calloc(1, sizeof(*cancel));
	if (!cancel) {
		err_set(err, ERR_NO_MEMORY, "cancel switch");
		return NULL;
	}
	cancel->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (cancel->fd < 0) {
		err_errno(err, ERR_IO, errno, "eventfd");
		free(cancel);
		return NULL;
	}
	atomic_init(&cancel->fired, false);
	pthread_mutex_init(&cancel->lock, NULL);
	return cancel;
}

void cancel_free(struct cancel *cancel)
{
	if (!cancel)
		return;
	close(cancel->fd);
	pthread_mutex_destroy(&cancel->lock);
	free(cancel);
}

void cancel_fire(struct cancel *cancel)
{
	pthread_mutex_lock(&cancel->lock);
	if (!atomic_load(&cancel->fired)) {
		atomic_store(&cancel->fired, true);
		uint64_t one = 1;
		ssize_t n = write(cancel->fd, &one, sizeof(one));
		(void)n; /* an eventfd at 0 takes it */
		for (unsigned i = 0; i < cancel->count; i++)
			cancel->entries[i].fn(cancel->entries[i].ctx);
	}
	pthread_mutex_unlock(&cancel->lock);
}

bool cancel_fired(const struct cancel *cancel)
{
	return atomic_load(&cancel->fired);
}

int cancel_fd(const struct cancel *cancel)
{
	return cancel->fd;
}

int cancel_add(struct cancel *cancel, void (*fn)(void *ctx), void *ctx, struct err *err)
{
	int rc = 0;
	pthread_mutex_lock(&cancel->lock);
	if (cancel->count == CANCEL_ENTRIES_MAX) {
		rc = err_set(err, ERR_INTERNAL, "more than %d things to cancel", CANCEL_ENTRIES_MAX);
	} else {
		cancel->entries[cancel->count++] = (struct entry) { fn, ctx };
		if (atomic_load(&cancel->fired))
			fn(ctx);
	}
	pthread_mutex_unlock(&cancel->lock);
	return rc;
}

void cancel_remove(struct cancel *cancel, void (*fn)(void *ctx), const void *ctx)
{
	pthread_mutex_lock(&cancel->lock);
	for (unsigned i = 0; i < cancel->count; i++)
		if (cancel->entries[i].fn == fn && cancel->entries[i].ctx == ctx) {
			cancel->entries[i] = cancel->entries[--cancel->count];
			break;
		}
	pthread_mutex_unlock(&cancel->lock);
}

int cancel_poll(const struct cancel *cancel, int fd, short events, int timeout_ms, struct err *err)
{
	struct pollfd fds[2] = { { .fd = cancel ? cancel->fd : -1, .events = POLLIN }, { .fd = fd, .events = events } };
	int n = poll(fds, 2, timeout_ms);
	if (n < 0 && errno != EINTR)
		return err_errno(err, ERR_IO, errno, "poll");
	if (cancel && cancel_fired(cancel))
		return err_set(err, ERR_CANCELLED, "cancelled");
	/* A signal counts as an event: the caller tries, and waits again with what time is left. */
	return n != 0;
}
