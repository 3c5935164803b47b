/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sinks against exporters that fail in their own ways. */
#include "tests/unit/disk_fixture.h"

#include <sys/socket.h>

#define SINK_SIZE_BYTES (64u * 1024 * 1024)

/* An nbdkit of our own choosing. */
struct server {
	struct fixture f; /* only its directory */
	char socket[160];
	struct proc_id process;
	struct exporter_access access;
};

static void server_make(struct server *s, const char *const extra[])
{
	const char *argv[16] = { "nbdkit", "--foreground", "--exit-with-parent", "--unix" };
	unsigned n = 4;
	struct err err = { 0 };
	memset(s, 0, sizeof(*s));
	fixture_dir(&s->f);
	snprintf(s->socket, sizeof(s->socket), "%s/nbd", s->f.dir);
	s->access.kind = EXPORTER_NBD;
	s->access.size_bytes = SINK_SIZE_BYTES;
	argv[n++] = s->socket;
	for (unsigned i = 0; extra[i]; i++)
		argv[n++] = extra[i];
	argv[n] = NULL;
	fixture_ok(proc_start(&s->process, argv, NULL, NULL, -1, PROC_DIE_WITH_US, &err), &err);
	int64_t deadline_ms = disk_now_ms() + FIXTURE_DEADLINE_MS;
	int fd = -1;
	while (disk_connect_unix(NULL, s->socket, deadline_ms, &fd, NULL) < 0) {
		assert_true(proc_alive(&s->process));
		assert_true(disk_now_ms() < deadline_ms);
		usleep(1000);
	}
	close(fd);
}

static void server_free(struct server *s)
{
	proc_kill(&s->process, FIXTURE_DEADLINE_MS, NULL);
	fixture_dir_remove(&s->f);
}

static int connect_server(void *ctx, struct err *err)
{
	struct server *s = ctx;
	int fd = -1;
	return disk_connect_unix(NULL, s->socket, disk_now_ms() + FIXTURE_DEADLINE_MS, &fd, err) < 0 ? -1 : fd;
}

static unsigned returned;

static void on_done(void *ctx, void *slot)
{
	(void)ctx;
	(void)slot;
	returned++;
}

static void write__no_space_over_there__says_so(void **state)
{
	static const char *const extra[] = { "--filter=error",         "memory", "64M", "error-pwrite=ENOSPC",
		                             "error-pwrite-rate=100%", NULL };
	static unsigned char block[65536];
	struct server s;
	struct sink *sink = NULL;
	struct err err = { 0 };
	(void)state;
	server_make(&s, extra);
	fixture_ok(sink_open(&sink, &s.access, connect_server, &s, &err), &err);
	returned = 0;
	int result = sink_write(sink, 0, block, sizeof(block), on_done, NULL, NULL, &err);
	assert_int_equal(result, 0);
	assert_int_equal(sink_flush(sink, &err), -1);
	assert_int_equal(err.code, ERR_NO_SPACE);
	/* and every later call fails with the first error */
	err_clear(&err);
	assert_int_equal(sink_write(sink, 0, block, sizeof(block), on_done, NULL, NULL, &err), -1);
	assert_int_equal(err.code, ERR_NO_SPACE);
	assert_int_equal(sink_zero(sink, 0, 65536, &err), -1);
	sink_close(sink);
	assert_int_equal(returned, 1);
	server_free(&s);
}

static void write__slow_exporter__window_bounds_what_is_in_flight(void **state)
{
	static const char *const extra[] = { "--filter=delay", "memory", "64M", "wdelay=20ms", NULL };
	struct server s;
	struct sink *sink = NULL;
	struct err err = { 0 };
	(void)state;
	server_make(&s, extra);
	unsigned char *block = calloc(1, 1024 * 1024);
	assert_non_null(block);
	fixture_ok(sink_open(&sink, &s.access, connect_server, &s, &err), &err);
	returned = 0;
	for (unsigned i = 0; i < 32; i++) {
		fixture_ok(sink_write(sink, (uint64_t)i << 20, block, 1 << 20, on_done, NULL, NULL, &err), &err);
		assert_true(i + 1 - returned <= 8); /* the greatest window */
		if (i == 2)
			assert_true(returned >= 1); /* it begins with 2 MiB */
	}
	fixture_ok(sink_flush(sink, &err), &err);
	assert_int_equal(returned, 32);
	sink_close(sink);
	free(block);
	server_free(&s);
}

static void write__beyond_the_disk__is_refused_here(void **state)
{
	static const char *const extra[] = { "memory", "64M", NULL };
	static unsigned char block[65536];
	struct server s;
	struct sink *sink = NULL;
	struct err err = { 0 };
	(void)state;
	server_make(&s, extra);
	fixture_ok(sink_open(&sink, &s.access, connect_server, &s, &err), &err);
	assert_int_equal(sink_write(sink, SINK_SIZE_BYTES - 4096, block, 65536, NULL, NULL, NULL, &err), -1);
	assert_int_equal(err.code, ERR_INTERNAL);
	assert_int_equal(sink_zero(sink, UINT64_MAX - 4096, 8192, &err), -1);
	fixture_ok(sink_flush(sink, &err), &err); /* no harm done */
	sink_close(sink);
	server_free(&s);
}

static void open__other_size__is_refused(void **state)
{
	static const char *const extra[] = { "memory", "32M", NULL };
	struct server s;
	struct sink *sink = NULL;
	struct err err = { 0 };
	(void)state;
	server_make(&s, extra);
	assert_int_equal(sink_open(&sink, &s.access, connect_server, &s, &err), -1);
	assert_int_equal(err.code, ERR_EXPORTER);
	server_free(&s);
}

static int connect_never(void *ctx, struct err *err)
{
	(void)ctx;
	return err_set(err, ERR_PEER_LOST, "no relay");
}

static void open__no_connection__has_its_words(void **state)
{
	struct exporter_access access = { .kind = EXPORTER_NBD, .size_bytes = 65536 };
	struct sink *sink = NULL;
	struct err err = { 0 };
	(void)state;
	assert_int_equal(sink_open(&sink, &access, connect_never, NULL, &err), -1);
	assert_int_equal(err.code, ERR_PEER_LOST);
	assert_non_null(strstr(err.text, "no relay"));
}

/* A peer that says nonsense and hangs up. */
static int connect_babble(void *ctx, struct err *err)
{
	static const char junk[] =
		"HTTP/1.1 400 no\r\n\r\n\x00\x01\x02\x03 and more than enough bytes to fill a header or two "
		"of any protocol that may be spoken here";
	int pair[2];
	(void)ctx;
	(void)err;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(send(pair[1], junk, sizeof(junk), MSG_NOSIGNAL), (ssize_t)sizeof(junk));
	close(pair[1]);
	return pair[0];
}

static void open__peer_talks_nonsense__is_an_error(void **state)
{
	struct exporter_access access = { .kind = *(enum exporter_kind *)*state,
		                          .size_bytes = 65536,
		                          .lun = 1,
		                          .user = "u",
		                          .secret = "0123456789abcdef",
		                          .export_name = "iqn.2026-11.org.drover:m1-x-1" };
	struct sink *sink = NULL;
	struct err err = { 0 };
	assert_int_equal(sink_open(&sink, &access, connect_babble, NULL, &err), -1);
	assert_true(err.code == ERR_PEER_LOST || err.code == ERR_DENIED);
}

static enum exporter_kind nbd = EXPORTER_NBD, iscsi = EXPORTER_ISCSI;

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(write__no_space_over_there__says_so),
		cmocka_unit_test(write__slow_exporter__window_bounds_what_is_in_flight),
		cmocka_unit_test(write__beyond_the_disk__is_refused_here),
		cmocka_unit_test(open__other_size__is_refused),
		cmocka_unit_test(open__no_connection__has_its_words),
		{ "open__peer_talks_nonsense__is_an_error nbd", open__peer_talks_nonsense__is_an_error, NULL, NULL,
		  &nbd },
		{ "open__peer_talks_nonsense__is_an_error iscsi", open__peer_talks_nonsense__is_an_error, NULL, NULL,
		  &iscsi },
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
