/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/leg/net.h"
#include "agent/leg/tls.h"
#include "common/clock.h"

#define SHAKE_MS 5000
#define CANCEL_MS 200

struct server {
	struct tls_identity *identity;
	struct cancel *cancel;
	int fd, timeout_ms;
	struct tls_conn *conn;
	int rc;
	struct err err;
	pthread_t thread;
};

static void *serve(void *arg)
{
	struct server *server = arg;
	server->rc = tls_open(&server->conn, server->identity, TLS_SERVER, server->fd, server->cancel,
	                      server->timeout_ms, NULL, &server->err);
	return NULL;
}

static void pair(int ret_fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds), 0);
}

static struct tls_identity *identity_new(void)
{
	struct tls_identity *identity = NULL;
	struct err err = { 0 };
	if (tls_identity_new(&identity, &err))
		fail_msg("%s", err.text);
	return identity;
}

struct both {
	struct tls_identity *client_identity, *server_identity;
	struct tls_conn *client;
	struct server server;
	struct err client_err;
	int client_rc;
};

/* Client and server expect what is given (NULL: each other). */
static void shake(struct both *both, const char *client_expects, const char *server_expects)
{
	int fds[2];
	memset(both, 0, sizeof(*both));
	pair(fds);
	both->client_identity = identity_new();
	both->server_identity = identity_new();
	assert_int_equal(tls_expect(both->client_identity,
	                            client_expects ? client_expects : tls_fingerprint(both->server_identity), NULL),
	                 0);
	assert_int_equal(tls_expect(both->server_identity,
	                            server_expects ? server_expects : tls_fingerprint(both->client_identity), NULL),
	                 0);
	both->server = (struct server) { .identity = both->server_identity, .fd = fds[1], .timeout_ms = SHAKE_MS };
	assert_int_equal(pthread_create(&both->server.thread, NULL, serve, &both->server), 0);
	both->client_rc = tls_open(&both->client, both->client_identity, TLS_CLIENT, fds[0], NULL, SHAKE_MS, NULL,
	                           &both->client_err);
	pthread_join(both->server.thread, NULL);
}

static void done(struct both *both)
{
	tls_close(both->client);
	tls_close(both->server.conn);
	tls_identity_free(both->client_identity);
	tls_identity_free(both->server_identity);
}

static void tls__the_announced_certificates__data_goes_both_ways(void **state)
{
	struct both both;
	char text[6] = "";
	(void)state;
	shake(&both, NULL, NULL);
	assert_int_equal(both.client_rc, 0);
	assert_int_equal(both.server.rc, 0);
	assert_int_equal(tls_write(both.client, "hello", 6, NULL, 1000, NULL), 0);
	assert_int_equal(tls_read(both.server.conn, text, 6, NULL, 1000, NULL), 0);
	assert_string_equal(text, "hello");
	assert_int_equal(tls_write(both.server.conn, "world", 6, NULL, 1000, NULL), 0);
	assert_int_equal(tls_read(both.client, text, 6, NULL, 1000, NULL), 0);
	assert_string_equal(text, "world");
	done(&both);
}

static void tls__identities__differ_and_are_hex(void **state)
{
	(void)state;
	struct tls_identity *one = identity_new(), *two = identity_new();
	assert_int_equal(strlen(tls_fingerprint(one)), 64);
	assert_int_equal(strspn(tls_fingerprint(one), "0123456789abcdef"), 64);
	assert_string_not_equal(tls_fingerprint(one), tls_fingerprint(two));
	struct err err = { 0 };
	assert_int_equal(tls_expect(one, "abc", &err), -1);
	assert_int_equal(err.code, ERR_USAGE);
	char upper[65];
	memset(upper, 'A', 64);
	upper[64] = '\0';
	assert_int_equal(tls_expect(one, upper, NULL), -1);
	tls_identity_free(one);
	tls_identity_free(two);
}

static void tls__identity_that_was_kept__is_the_same_again(void **state)
{
	(void)state;
	char folder[] = "/tmp/test_tls_XXXXXX", path[64], kept[LIMIT_ID];
	struct tls_identity *identity = NULL;
	struct stat st;
	struct err err = { 0 };
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/identity", folder);
	assert_int_equal(tls_identity_open(&identity, path, false, &err), 0);
	snprintf(kept, sizeof(kept), "%s", tls_fingerprint(identity));
	tls_identity_free(identity);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600); /* a secret */
	assert_int_equal(tls_identity_open(&identity, path, true, &err), 0);
	assert_string_equal(tls_fingerprint(identity), kept);
	tls_identity_free(identity);
	/* A leg that is not started again makes its own, and one that cannot read it, too. */
	assert_int_equal(tls_identity_open(&identity, path, false, &err), 0);
	assert_string_not_equal(tls_fingerprint(identity), kept);
	snprintf(kept, sizeof(kept), "%s", tls_fingerprint(identity));
	tls_identity_free(identity);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(tls_identity_open(&identity, path, true, &err), 0);
	assert_string_not_equal(tls_fingerprint(identity), kept);
	tls_identity_free(identity);
	/* Where it cannot be kept, the copy goes on without. */
	snprintf(path, sizeof(path), "%s/no/such/folder", folder);
	assert_int_equal(tls_identity_open(&identity, path, false, &err), 0);
	tls_identity_free(identity);
	snprintf(path, sizeof(path), "%s/identity", folder);
	assert_int_equal(unlink(path) | rmdir(folder), 0);
}

static void tls__server_with_another_certificate__client_refuses(void **state)
{
	struct both both;
	(void)state;
	struct tls_identity *other = identity_new();
	shake(&both, tls_fingerprint(other), NULL);
	assert_int_equal(both.client_rc, -1);
	assert_int_equal(both.client_err.code, ERR_DENIED);
	assert_int_equal(both.server.rc, -1);
	done(&both);
	tls_identity_free(other);
}

static void tls__client_with_another_certificate__server_refuses(void **state)
{
	struct both both;
	char byte;
	struct err err = { 0 };
	(void)state;
	struct tls_identity *other = identity_new();
	shake(&both, NULL, tls_fingerprint(other));
	assert_int_equal(both.server.rc, -1);
	assert_int_equal(both.server.err.code, ERR_DENIED);
	/* In TLS 1.3 the client may think that all is well until it reads. */
	if (both.client_rc == 0)
		assert_int_equal(tls_read(both.client, &byte, 1, NULL, 1000, &err), -1);
	done(&both);
	tls_identity_free(other);
}

static void tls__nobody_is_expected_yet__refused(void **state)
{
	int fds[2];
	struct tls_conn *conn = NULL;
	(void)state;
	struct tls_identity *client = identity_new(), *server = identity_new();
	struct server thread = { .identity = server, .timeout_ms = SHAKE_MS };
	pair(fds);
	thread.fd = fds[1];
	assert_int_equal(tls_expect(client, tls_fingerprint(server), NULL), 0);
	assert_int_equal(pthread_create(&thread.thread, NULL, serve, &thread), 0);
	int rc = tls_open(&conn, client, TLS_CLIENT, fds[0], NULL, SHAKE_MS, NULL, NULL);
	pthread_join(thread.thread, NULL);
	assert_int_equal(thread.rc, -1);
	if (rc == 0)
		tls_close(conn);
	tls_identity_free(client);
	tls_identity_free(server);
}

/* A client of another make: no certificate, or an old protocol. */
static void stranger(int max_version)
{
	int fds[2];
	struct tls_identity *identity = identity_new(), *other = identity_new();
	assert_int_equal(tls_expect(identity, tls_fingerprint(other), NULL), 0);
	struct server server = { .identity = identity, .timeout_ms = SHAKE_MS };
	pair(fds);
	server.fd = fds[1];
	assert_int_equal(pthread_create(&server.thread, NULL, serve, &server), 0);
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_max_proto_version(ctx, max_version);
	SSL *ssl = SSL_new(ctx);
	int flags = fcntl(fds[0], F_GETFL);
	fcntl(fds[0], F_SETFL, flags & ~O_NONBLOCK);
	SSL_set_fd(ssl, fds[0]);
	char byte;
	if (SSL_connect(ssl) == 1)
		assert_int_not_equal(SSL_read(ssl, &byte, 1), 1);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fds[0]);
	pthread_join(server.thread, NULL);
	assert_int_equal(server.rc, -1);
	assert_int_not_equal(server.err.code, ERR_NONE);
	tls_identity_free(identity);
	tls_identity_free(other);
}

static void tls__client_without_certificate__refused(void **state)
{
	(void)state;
	stranger(TLS1_3_VERSION);
}

static void tls__client_that_speaks_tls_1_2_only__refused(void **state)
{
	(void)state;
	stranger(TLS1_2_VERSION);
}

static void tls__garbage_instead_of_a_handshake__refused(void **state)
{
	int fds[2];
	(void)state;
	struct tls_identity *identity = identity_new();
	struct server server = { .identity = identity, .timeout_ms = SHAKE_MS };
	pair(fds);
	server.fd = fds[1];
	assert_int_equal(pthread_create(&server.thread, NULL, serve, &server), 0);
	static const char garbage[] = "GET / HTTP/1.0\r\n\r\n";
	assert_int_equal(write(fds[0], garbage, sizeof(garbage)), sizeof(garbage));
	pthread_join(server.thread, NULL);
	assert_int_equal(server.rc, -1);
	assert_int_equal(server.err.code, ERR_PROTOCOL);
	close(fds[0]);
	tls_identity_free(identity);
}

static void tls__silent_client__handshake_ends_in_time(void **state)
{
	int fds[2];
	(void)state;
	struct tls_identity *identity = identity_new();
	struct server server = { .identity = identity, .timeout_ms = 50 };
	pair(fds);
	server.fd = fds[1];
	serve(&server);
	assert_int_equal(server.rc, -1);
	assert_int_equal(server.err.code, ERR_TIMEOUT);
	close(fds[0]);
	tls_identity_free(identity);
}

static void tls__peer_says_nothing__read_ends_in_time(void **state)
{
	struct both both;
	char byte;
	struct err err = { 0 };
	(void)state;
	shake(&both, NULL, NULL);
	assert_int_equal(tls_read(both.client, &byte, 1, NULL, 50, &err), -1);
	assert_int_equal(err.code, ERR_PEER_LOST);
	done(&both);
}

static void tls__peer_takes_nothing__write_ends_in_time_and_for_good(void **state)
{
	struct both both;
	struct err err = { 0 };
	(void)state;
	shake(&both, NULL, NULL);
	size_t bytes = 16u << 20;
	void *much = calloc(1, bytes);
	assert_int_equal(tls_write(both.client, much, bytes, NULL, 50, &err), -1);
	assert_int_equal(err.code, ERR_PEER_LOST);
	assert_int_equal(tls_write(both.client, "x", 1, NULL, 50, &err), -1);
	free(much);
	done(&both);
}

static void tls__peer_is_gone__read_says_so(void **state)
{
	struct both both;
	char byte;
	struct err err = { 0 };
	(void)state;
	shake(&both, NULL, NULL);
	tls_close(both.server.conn);
	both.server.conn = NULL;
	assert_int_equal(tls_read(both.client, &byte, 1, NULL, -1, &err), -1);
	assert_int_equal(err.code, ERR_PEER_LOST);
	done(&both);
}

struct blocked {
	struct tls_conn *conn;
	struct cancel *cancel;
	bool writes;
	int rc;
	struct err err;
	int64_t ended_ns;
	atomic_bool began;
};

static void *block(void *arg)
{
	struct blocked *blocked = arg;
	size_t bytes = 16u << 20;
	char *much = calloc(1, bytes);
	atomic_store(&blocked->began, true);
	if (blocked->writes)
		blocked->rc = tls_write(blocked->conn, much, bytes, blocked->cancel, 60000, &blocked->err);
	else
		blocked->rc = tls_read(blocked->conn, much, bytes, blocked->cancel, -1, &blocked->err);
	blocked->ended_ns = clock_real.now_ns(&clock_real);
	free(much);
	return NULL;
}

/* Nothing comes and nothing is taken: both hang for certain once they have begun. */
static void cancelled_while(bool writes)
{
	struct both both;
	pthread_t thread;
	shake(&both, NULL, NULL);
	struct blocked blocked = { .conn = both.client, .cancel = cancel_new(NULL), .writes = writes };
	assert_int_equal(pthread_create(&thread, NULL, block, &blocked), 0);
	while (!atomic_load(&blocked.began))
		sched_yield();
	int64_t fired_ns = clock_real.now_ns(&clock_real);
	cancel_fire(blocked.cancel);
	pthread_join(thread, NULL);
	assert_int_equal(blocked.rc, -1);
	assert_int_equal(blocked.err.code, ERR_CANCELLED);
	assert_true(blocked.ended_ns - fired_ns < CANCEL_MS * 1000000LL);
	cancel_free(blocked.cancel);
	done(&both);
}

static void tls__cancelled_while_reading__returns_within_200_ms(void **state)
{
	(void)state;
	cancelled_while(false);
}

static void tls__cancelled_while_writing__returns_within_200_ms(void **state)
{
	(void)state;
	cancelled_while(true);
}

#define STREAM_BYTES (8u << 20)

struct stream {
	struct tls_conn *conn;
	unsigned char seed;
	int rc;
};

static void *stream_out(void *arg)
{
	struct stream *stream = arg;
	unsigned char part[40000];
	for (size_t at = 0; at < STREAM_BYTES && !stream->rc; at += sizeof(part)) {
		for (size_t i = 0; i < sizeof(part); i++)
			part[i] = (unsigned char)((at + i) * 7 + stream->seed);
		stream->rc = tls_write(stream->conn, part, sizeof(part), NULL, 5000, NULL);
	}
	return NULL;
}

static void *stream_in(void *arg)
{
	struct stream *stream = arg;
	unsigned char part[40000];
	for (size_t at = 0; at < STREAM_BYTES && !stream->rc; at += sizeof(part)) {
		stream->rc = tls_read(stream->conn, part, sizeof(part), NULL, 5000, NULL);
		for (size_t i = 0; i < sizeof(part) && !stream->rc; i++)
			if (part[i] != (unsigned char)((at + i) * 7 + stream->seed))
				stream->rc = -2;
	}
	return NULL;
}

static void tls__both_ways_at_once_by_two_threads_each__bytes_are_whole(void **state)
{
	struct both both;
	pthread_t threads[4];
	(void)state;
	shake(&both, NULL, NULL);
	struct stream streams[4] = { { .conn = both.client, .seed = 1 },
		                     { .conn = both.server.conn, .seed = 1 },
		                     { .conn = both.server.conn, .seed = 2 },
		                     { .conn = both.client, .seed = 2 } };
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, i % 2 ? stream_in : stream_out, &streams[i]), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(streams[i].rc, 0);
	done(&both);
}

static void net__endpoints__are_split_or_refused(void **state)
{
	char host[LIMIT_ID], port[8];
	(void)state;
	assert_int_equal(net_split("127.0.0.1:80", host, port, NULL), 0);
	assert_string_equal(host, "127.0.0.1");
	assert_string_equal(port, "80");
	assert_int_equal(net_split("[::1]:65535", host, port, NULL), 0);
	assert_string_equal(host, "::1");
	static const char *const bad[] = { "",       ":",   ":1",   "a",           "a:",  "[::1]",
		                           "[::1:5", "[:5", "a:1x", "a:123456789", "[]:1" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(net_split(bad[i], host, port, NULL), -1);
}

static void net__nobody_listens__connect_fails(void **state)
{
	char endpoint[LIMIT_ID];
	int fd = -1;
	struct err err = { 0 };
	(void)state;
	assert_int_equal(net_listen("127.0.0.1", &fd, endpoint, NULL), 0);
	int other = -1;
	assert_int_equal(net_connect(endpoint, &other, NULL, 1000, NULL), 0);
	close(other);
	close(fd);
	assert_int_equal(net_connect(endpoint, &other, NULL, 1000, &err), -1);
	assert_int_equal(err.code, ERR_PEER_LOST);
}

/* What a leg that is started again finds: its predecessor's connections to the same port still end. */
static void net__connections_still_end__the_port_is_listened_at_again(void **state)
{
	char endpoint[LIMIT_ID];
	int fd = -1, other = -1, again = -1;
	struct err err = { 0 };
	(void)state;
	assert_int_equal(net_listen("127.0.0.1", &fd, endpoint, NULL), 0);
	assert_int_equal(net_connect(endpoint, &other, NULL, 1000, NULL), 0);
	int accepted = accept(fd, NULL, NULL);
	assert_true(accepted >= 0);
	assert_int_equal(net_listen_at(endpoint, &again, &err), -1); /* while it lives it is alone there */
	assert_int_equal(err.code, ERR_IO);
	close(fd);
	close(accepted); /* first: it waits for the other end */
	if (net_listen_at(endpoint, &again, &err) != 0)
		fail_msg("%s", err.text);
	close(other);
	close(again);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tls__the_announced_certificates__data_goes_both_ways),
		cmocka_unit_test(tls__identities__differ_and_are_hex),
		cmocka_unit_test(tls__identity_that_was_kept__is_the_same_again),
		cmocka_unit_test(tls__server_with_another_certificate__client_refuses),
		cmocka_unit_test(tls__client_with_another_certificate__server_refuses),
		cmocka_unit_test(tls__nobody_is_expected_yet__refused),
		cmocka_unit_test(tls__client_without_certificate__refused),
		cmocka_unit_test(tls__client_that_speaks_tls_1_2_only__refused),
		cmocka_unit_test(tls__garbage_instead_of_a_handshake__refused),
		cmocka_unit_test(tls__silent_client__handshake_ends_in_time),
		cmocka_unit_test(tls__peer_says_nothing__read_ends_in_time),
		cmocka_unit_test(tls__peer_takes_nothing__write_ends_in_time_and_for_good),
		cmocka_unit_test(tls__peer_is_gone__read_says_so),
		cmocka_unit_test(tls__cancelled_while_reading__returns_within_200_ms),
		cmocka_unit_test(tls__cancelled_while_writing__returns_within_200_ms),
		cmocka_unit_test(tls__both_ways_at_once_by_two_threads_each__bytes_are_whole),
		cmocka_unit_test(net__endpoints__are_split_or_refused),
		cmocka_unit_test(net__nobody_listens__connect_fails),
		cmocka_unit_test(net__connections_still_end__the_port_is_listened_at_again),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
