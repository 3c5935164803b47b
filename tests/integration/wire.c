/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A peer that misbehaves, for tests against real daemons: speaks CURVE with a good key, then says what it should not.
 *   wire ENDPOINT KEY.cert_secret SERVER.cert hello VERSION_MIN VERSION_MAX    prints "welcome N" or "error CODE: TEXT"
 *   wire ENDPOINT KEY.cert_secret SERVER.cert frame BYTES                      one frame of zeros, that long
 * and prints "closed" when the connection is broken off, "silence" if nothing comes for so long that it matters.
 * Exit status 0 for each of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/keys.h"
#include "proto/msg.h"

#define PATIENCE_MS 5000

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "wire: %s: %s\n", what, why);
	return 1;
}

/* A connection with a monitor; the sockets live as long as the process. */
static int open_connection(char **argv, void **ret_socket, void **ret_monitor)
{
	char public_text[KEYS_Z85_BYTES], secret[KEYS_Z85_BYTES];
	struct key_info server;
	struct err err = { 0 };
	void *zmq = zmq_ctx_new();
	int none = 0, patience = PATIENCE_MS;
	if (keys_load_secret(argv[2], public_text, secret, &err) != 0 || keys_load_public(argv[3], &server, &err) != 0)
		return fail("key", err.text);
	*ret_socket = zmq_socket(zmq, ZMQ_DEALER);
	*ret_monitor = zmq_socket(zmq, ZMQ_PAIR);
	zmq_setsockopt(*ret_socket, ZMQ_LINGER, &none, sizeof(none));
	zmq_setsockopt(*ret_socket, ZMQ_CURVE_SERVERKEY, server.public_text, strlen(server.public_text) + 1);
	zmq_setsockopt(*ret_socket, ZMQ_CURVE_PUBLICKEY, public_text, strlen(public_text) + 1);
	zmq_setsockopt(*ret_socket, ZMQ_CURVE_SECRETKEY, secret, strlen(secret) + 1);
	zmq_setsockopt(*ret_socket, ZMQ_SNDTIMEO, &patience, sizeof(patience));
	if (zmq_socket_monitor(*ret_socket, "inproc://monitor", ZMQ_EVENT_DISCONNECTED) != 0 ||
	    zmq_connect(*ret_monitor, "inproc://monitor") != 0 || zmq_connect(*ret_socket, argv[1]) != 0)
		return fail(argv[1], zmq_strerror(zmq_errno()));
	return 0;
}

static int send_hello(void *socket, const char *least, const char *most)
{
	struct msg hello = { .version = PROTOCOL_VERSION, .kind = MSG_HELLO };
	struct err err = { 0 };
	void *frame;
	size_t bytes;
	hello.u.hello.version_min = (uint32_t)atol(least);
	hello.u.hello.version_max = (uint32_t)atol(most);
	snprintf(hello.u.hello.software, sizeof(hello.u.hello.software), "wire");
	if (msg_encode(&hello, &frame, &bytes, &err) != 0)
		return fail("hello", err.text);
	int sent = zmq_send(socket, frame, bytes, 0);
	free(frame);
	return sent >= 0 ? 0 : fail("send", zmq_strerror(zmq_errno()));
}

static int send_zeros(void *socket, const char *count)
{
	size_t bytes = (size_t)atol(count);
	void *frame = calloc(1, bytes > 0 ? bytes : 1);
	int sent = frame != NULL ? zmq_send(socket, frame, bytes, 0) : -1;
	free(frame);
	return sent >= 0 ? 0 : fail("send", zmq_strerror(zmq_errno()));
}

static int print_answer(void *socket)
{
	zmq_msg_t frame;
	struct msg msg;
	struct err err = { 0 };
	zmq_msg_init(&frame);
	if (zmq_msg_recv(&frame, socket, 0) < 0)
		return fail("receive", zmq_strerror(zmq_errno()));
	if (msg_decode(zmq_msg_data(&frame), zmq_msg_size(&frame), &msg, &err) != 0)
		return fail("answer", err.text);
	if (msg.kind == MSG_WELCOME)
		printf("welcome %u\n", msg.u.welcome.version);
	else if (msg.kind == MSG_ERROR)
		printf("error %s: %s\n", err_name(msg.u.error.code), msg.u.error.text);
	else
		printf("message %d\n", (int)msg.kind);
	msg_free(&msg);
	zmq_msg_close(&frame);
	return 0;
}

int main(int argc, char **argv)
{
	void *socket, *monitor;
	bool hello = argc == 7 && strcmp(argv[4], "hello") == 0;
	if (!hello && (argc != 6 || strcmp(argv[4], "frame") != 0))
		return fail("usage", "see the top of wire.c");
	if (open_connection(argv, &socket, &monitor) != 0 ||
	    (hello ? send_hello(socket, argv[5], argv[6]) : send_zeros(socket, argv[5])) != 0)
		return 1;
	zmq_pollitem_t items[] = { { socket, 0, ZMQ_POLLIN, 0 }, { monitor, 0, ZMQ_POLLIN, 0 } };
	if (zmq_poll(items, 2, PATIENCE_MS) <= 0)
		puts("silence");
	else if ((items[0].revents & ZMQ_POLLIN) != 0)
		return print_answer(socket);
	else
		puts("closed");
	return 0;
}
