/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/bus_impl.h"
#include "common/clock.h"

#define ZAP_ENDPOINT "inproc://zeromq.zap.01" /* ZeroMQ asks here */

enum {
	ZAP_FRAMES = 7, /* version, request id, domain, address, routing id, mechanism, key */
	CURVE_KEY_BYTES = 32,
};

struct bus_zap {
	void *socket;      /* the thread's, once that runs */
	void *stop_theirs; /* the thread's: anything received ends it */
	void *stop_ours;
	int wake_fd;
	bool running;
	pthread_t thread;
	pthread_mutex_t lock;  /* of what follows */
	struct key_info *keys; /* by public_text */
	size_t key_count;
	struct bus_refusals refusals;
};

static int by_key(const void *a, const void *b)
{
	const struct key_info *x = a, *y = b;
	return strcmp(x->public_text, y->public_text);
}

bool bus_zap_find(struct bus_zap *zap, const char *public_text, struct key_info *ret_info)
{
	struct key_info wanted = { .has_secret = false };
	snprintf(wanted.public_text, sizeof(wanted.public_text), "%s", public_text);
	pthread_mutex_lock(&zap->lock);
	const struct key_info *found =
		zap->key_count ? bsearch(&wanted, zap->keys, zap->key_count, sizeof(*zap->keys), by_key) : NULL;
	if (found)
		*ret_info = *found;
	pthread_mutex_unlock(&zap->lock);
	return found != NULL;
}

void bus_zap_set_keys(struct bus_zap *zap, struct key_info *keys, size_t count)
{
	if (count > 0)
		qsort(keys, count, sizeof(*keys), by_key);
	pthread_mutex_lock(&zap->lock);
	struct key_info *old = zap->keys;
	zap->keys = keys;
	zap->key_count = count;
	pthread_mutex_unlock(&zap->lock);
	free(old);
}

void bus_zap_refusals(struct bus_zap *zap, struct bus_refusals *ret)
{
	pthread_mutex_lock(&zap->lock);
	*ret = zap->refusals;
	pthread_mutex_unlock(&zap->lock);
}

/* ---- the thread ---- */

static void note_refusal(struct bus_zap *zap, const char *key, const char *address)
{
	pthread_mutex_lock(&zap->lock);
	zap->refusals.count++;
	snprintf(zap->refusals.last_key, sizeof(zap->refusals.last_key), "%s", key);
	snprintf(zap->refusals.last_address, sizeof(zap->refusals.last_address), "%s", address);
	pthread_mutex_unlock(&zap->lock);
	uint64_t one = 1;
	ssize_t wrote = write(zap->wake_fd, &one, sizeof(one)); /* full: it is awake already */
	(void)wrote;
}

static void frame_text(zmq_msg_t *frame, char *text, size_t bytes)
{
	size_t length = zmq_msg_size(frame);
	if (length >= bytes)
		length = bytes - 1;
	memcpy(text, zmq_msg_data(frame), length);
	text[length] = '\0';
}

static bool frame_is(zmq_msg_t *frame, const char *text)
{
	return zmq_msg_size(frame) == strlen(text) && memcmp(zmq_msg_data(frame), text, strlen(text)) == 0;
}

static void reply(struct bus_zap *zap, zmq_msg_t *request_id, const char *key)
{
	const char *rest[] = { key ? "200" : "400", key ? "" : "key is not authorised", key ? key : "", "" };
	int rc = zmq_send(zap->socket, "1.0", 3, ZMQ_SNDMORE);
	if (rc >= 0)
		rc = zmq_send(zap->socket, zmq_msg_data(request_id), zmq_msg_size(request_id), ZMQ_SNDMORE);
	for (int i = 0; i < 4 && rc >= 0; i++)
		rc = zmq_send(zap->socket, rest[i], strlen(rest[i]), i < 3 ? ZMQ_SNDMORE : 0);
}

static void answer(struct bus_zap *zap, zmq_msg_t *frames, int count)
{
	char address[64] = "", key[KEYS_Z85_BYTES] = "";
	struct key_info info;
	bool sound = count >= ZAP_FRAMES && frame_is(&frames[0], "1.0");
	if (sound)
		frame_text(&frames[3], address, sizeof(address));
	if (sound && frame_is(&frames[5], "CURVE") && zmq_msg_size(&frames[6]) == CURVE_KEY_BYTES)
		zmq_z85_encode(key, zmq_msg_data(&frames[6]), CURVE_KEY_BYTES);
	bool known = key[0] && bus_zap_find(zap, key, &info);
	if (!known)
		note_refusal(zap, key, address);
	reply(zap, &frames[count > 1 ? 1 : 0], known ? key : NULL);
}

/* One whole request; what is more than we expect is dropped. */
static void serve(struct bus_zap *zap)
{
	zmq_msg_t frames[ZAP_FRAMES], spare;
	int count = 0;
	bool more = true;
	while (more) {
		zmq_msg_t *frame = count < ZAP_FRAMES ? &frames[count] : &spare;
		zmq_msg_init(frame);
		int rc = zmq_msg_recv(frame, zap->socket, count ? 0 : ZMQ_DONTWAIT);
		more = rc >= 0 && zmq_msg_more(frame);
		if (rc < 0 || count == ZAP_FRAMES)
			zmq_msg_close(frame);
		else
			count++;
	}
	if (count > 0)
		answer(zap, frames, count);
	for (int i = 0; i < count; i++)
		zmq_msg_close(&frames[i]);
}

static void *run(void *arg)
{
	struct bus_zap *zap = arg;
	for (;;) {
		zmq_pollitem_t items[] = { { .socket = zap->stop_theirs, .events = ZMQ_POLLIN },
			                   { .socket = zap->socket, .events = ZMQ_POLLIN } };
		int rc = zmq_poll(items, 2, -1);
		if (rc < 0 && errno != EINTR)
			return NULL;
		if (rc > 0 && items[0].revents)
			return NULL;
		if (rc > 0 && items[1].revents)
			serve(zap);
	}
}

/* ---- starting and stopping ---- */

static void *open_socket(void *zmq, int type, struct err *err)
{
	void *socket = zmq_socket(zmq, type);
	if (!socket) {
		err_errno(err, ERR_INTERNAL, errno, "key check: socket");
		return NULL;
	}
	if (bus_option(socket, ZMQ_LINGER, 0, "LINGER", err) < 0) {
		zmq_close(socket);
		return NULL;
	}
	return socket;
}

static int open_sockets(struct bus_zap *zap, void *zmq, struct err *err)
{
	char endpoint[64], serial[17];
	random_hex(serial, 8); /* a closed socket keeps its name for a while */
	snprintf(endpoint, sizeof(endpoint), "inproc://drover-zap-%s", serial);
	zap->socket = open_socket(zmq, ZMQ_REP, err);
	zap->stop_theirs = zap->socket ? open_socket(zmq, ZMQ_PAIR, err) : NULL;
	zap->stop_ours = zap->stop_theirs ? open_socket(zmq, ZMQ_PAIR, err) : NULL;
	if (!zap->stop_ours)
		return -1;
	if (zmq_bind(zap->socket, ZAP_ENDPOINT) < 0)
		return err_errno(err, errno == EADDRINUSE ? ERR_BUSY : ERR_INTERNAL, errno, "key check: bind");
	if (zmq_bind(zap->stop_theirs, endpoint) < 0 || zmq_connect(zap->stop_ours, endpoint) < 0)
		return err_errno(err, ERR_INTERNAL, errno, "key check: %s", endpoint);
	return 0;
}

static int start_thread(struct bus_zap *zap, struct err *err)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
	int rc = pthread_create(&zap->thread, NULL, run, zap);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0)
		return err_errno(err, ERR_INTERNAL, rc, "key check: thread");
	zap->running = true;
	return 0;
}

int bus_zap_start(struct bus_zap **ret_zap, void *zmq, int wake_fd, struct err *err)
{
	struct bus_zap *zap = calloc(1, sizeof(*zap));
	if (!zap)
		return err_set(err, ERR_NO_MEMORY, "key check: no memory");
	zap->wake_fd = wake_fd;
	pthread_mutex_init(&zap->lock, NULL);
	if (open_sockets(zap, zmq, err) < 0 || start_thread(zap, err) < 0) {
		bus_zap_stop(zap);
		return -1;
	}
	*ret_zap = zap;
	return 0;
}

void bus_zap_stop(struct bus_zap *zap)
{
	if (!zap)
		return;
	if (zap->running) {
		zmq_send(zap->stop_ours, "", 0, 0);
		pthread_join(zap->thread, NULL);
	}
	if (zap->socket)
		zmq_unbind(zap->socket,
		           ZAP_ENDPOINT); /* at once, so that the next one can bind; closing is done later */
	void *const sockets[] = { zap->socket, zap->stop_theirs, zap->stop_ours };
	for (int i = 0; i < 3; i++)
		if (sockets[i])
			zmq_close(sockets[i]);
	pthread_mutex_destroy(&zap->lock);
	free(zap->keys);
	free(zap);
}
