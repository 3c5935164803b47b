/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exporters: credentials, where they listen, what a fence leaves, a full receiver. */
#include "tests/unit/disk_fixture.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <xxhash.h>

#define EXPORT_SIZE_BYTES (16u * 1024 * 1024 + 4096)

struct combination {
	enum exporter_kind kind;
	enum disk_format format;
};

struct export
{
	struct fixture f; /* only its directory */
	char dir[160], path[160];
	struct exporter *exporter;
	struct exporter_access access;
};

static bool can_run(const struct combination *c)
{
	return c->kind != EXPORTER_ISCSI || c->format != FORMAT_QCOW2 || access("/dev/fuse", R_OK | W_OK) == 0;
}

static void export_start(struct export *e, const struct combination *c)
{
	struct sr_config sr = { .name = "target" };
	struct err err = { 0 };
	fixture_ok(sr_disk_make(&sr, e->path, c->format, EXPORT_SIZE_BYTES, &err), &err);
	fixture_ok(exporter_start(&e->exporter, c->kind, e->dir, e->path, c->format, EXPORT_SIZE_BYTES, "xvda",
	                          FIXTURE_MIGRATION, &e->access, &err),
	           &err);
}

static void export_make(struct export *e, const struct combination *c)
{
	memset(e, 0, sizeof(*e));
	fixture_dir(&e->f);
	snprintf(e->dir, sizeof(e->dir), "%s/export", e->f.dir);
	snprintf(e->path, sizeof(e->path), "%s/target.img", e->f.dir);
	assert_int_equal(mkdir(e->dir, 0700), 0);
	export_start(e, c);
}

static void export_free(struct export *e)
{
	exporter_kill(e->exporter);
	fixture_dir_remove(&e->f);
}

static int connect_exporter(void *ctx, struct err *err)
{
	return exporter_connect(ctx, err);
}

static struct sink *open_sink(struct export *e)
{
	struct sink *sink = NULL;
	struct err err = { 0 };
	fixture_ok(sink_open(&sink, &e->access, connect_exporter, e->exporter, &err), &err);
	return sink;
}

static void exporter__written_and_read_back__digests_agree(void **state)
{
	const struct combination *c = *state;
	struct export e;
	struct err err = { 0 };
	static unsigned char block[DISK_GRANULE_BYTES], zero[DISK_GRANULE_BYTES];
	uint32_t granules[] = { 0, 3, 5, EXPORT_SIZE_BYTES / DISK_GRANULE_BYTES };
	uint64_t digests[4], seed = 5;
	if (!can_run(c))
		skip();
	export_make(&e, c);
	struct sink *sink = open_sink(&e);
	fixture_fill(block, sizeof(block), &seed);
	fixture_ok(sink_write(sink, 3 * DISK_GRANULE_BYTES, block, sizeof(block), NULL, NULL, NULL, &err), &err);
	fixture_ok(sink_write(sink, 5 * DISK_GRANULE_BYTES, block, sizeof(block), NULL, NULL, NULL, &err), &err);
	fixture_ok(sink_write(sink, granules[3] * (uint64_t)DISK_GRANULE_BYTES, block, 4096, NULL, NULL, NULL, &err),
	           &err);
	fixture_ok(sink_flush(sink, &err), &err);
	fixture_ok(sink_zero(sink, 5 * DISK_GRANULE_BYTES, DISK_GRANULE_BYTES, &err), &err);
	fixture_ok(sink_flush(sink, &err), &err);
	fixture_ok(exporter_digests(e.exporter, granules, 4, digests, &err), &err);
	assert_true(digests[0] == XXH3_64bits(zero, sizeof(zero)));
	assert_true(digests[1] == XXH3_64bits(block, sizeof(block)));
	assert_true(digests[2] == XXH3_64bits(zero, sizeof(zero)));
	assert_true(digests[3] == XXH3_64bits(block, 4096));
	granules[0] = granules[3] + 1;
	assert_int_equal(exporter_digests(e.exporter, granules, 1, digests, &err), -1);
	assert_int_equal(err.code, ERR_PROTOCOL);
	sink_close(sink);
	export_free(&e);
}

/* Reads a file of /proc; its bytes, NULs and all. */
static size_t slurp(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t got = read(fd, text, room);
	close(fd);
	return got > 0 ? (size_t)got : 0;
}

static void exporter__secrets__are_in_nobodys_arguments(void **state)
{
	const struct combination *c = *state;
	struct export e;
	struct proc_id processes[4];
	if (!can_run(c))
		skip();
	export_make(&e, c);
	unsigned count = exporter_processes(e.exporter, processes, 4);
	assert_true(count >= 1 && exporter_alive(e.exporter));
	for (unsigned i = 0; i < count; i++) {
		char path[64], text[8192];
		snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)processes[i].pid);
		size_t bytes = slurp(path, text, sizeof(text));
		assert_true(bytes > 0);
		if (e.access.secret[0])
			assert_null(memmem(text, bytes, e.access.secret, strlen(e.access.secret)));
	}
	if (c->kind == EXPORTER_ISCSI) {
		assert_true(strlen(e.access.secret) >= 16);
		assert_non_null(strstr(e.access.export_name, "iqn.2026-11.org.drover:m17-xvda-"));
	}
	export_free(&e);
}

/* Tries a changed access; it must not be let in. */
static void expect_refused(struct export *e, const struct exporter_access *access)
{
	struct sink *sink = NULL;
	struct err err = { 0 };
	assert_int_equal(sink_open(&sink, access, connect_exporter, e->exporter, &err), -1);
	assert_true(err.code == ERR_DENIED || err.code == ERR_PEER_LOST || err.code == ERR_EXPORTER);
}

static void exporter__wrong_name_or_secret__is_refused(void **state)
{
	const struct combination *c = *state;
	struct export e;
	if (!can_run(c))
		skip();
	export_make(&e, c);
	struct exporter_access wrong = e.access;
	wrong.export_name[strlen(wrong.export_name) - 1] ^= 1;
	expect_refused(&e, &wrong);
	if (c->kind == EXPORTER_ISCSI) {
		wrong = e.access;
		wrong.secret[3] = wrong.secret[3] == 'a' ? 'b' : 'a';
		expect_refused(&e, &wrong);
		wrong = e.access;
		wrong.user[0] = 'x';
		expect_refused(&e, &wrong);
	}
	sink_close(open_sink(&e)); /* the right one still gets in */
	export_free(&e);
}

static void expect_empty(const char *path)
{
	DIR *directory = opendir(path);
	assert_non_null(directory);
	struct dirent *entry;
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			fail_msg("%s is left", entry->d_name);
	closedir(directory);
}

static void exporter__started_where_a_dead_one_was__works(void **state)
{
	const struct combination *c = *state;
	struct export e;
	struct proc_id processes[4];
	struct err err = { 0 };
	if (!can_run(c))
		skip();
	export_make(&e, c);
	unsigned count = exporter_processes(e.exporter, processes, 4);
	for (unsigned i = 0; i < count; i++)
		fixture_ok(proc_kill(&processes[i], FIXTURE_DEADLINE_MS, &err), &err);
	assert_false(exporter_alive(e.exporter));
	struct exporter *dead = e.exporter;
	fixture_ok(exporter_clean(e.dir, &err), &err);
	expect_empty(e.dir);
	fixture_ok(exporter_clean(e.dir, &err), &err);
	export_start(&e, c);
	for (unsigned i = exporter_processes(e.exporter, processes, 4); i > 0; i--)
		fixture_ok(proc_kill(&processes[i - 1], FIXTURE_DEADLINE_MS, &err), &err);
	struct exporter *dead_too = e.exporter;
	export_start(&e, c); /* same directory, not cleaned: stale sockets, a stale mount */
	sink_close(open_sink(&e));
	struct exporter *living = e.exporter;
	e.exporter = NULL;
	fixture_ok(exporter_revoke(living, &err), &err);
	/* a fence that finds a dead exporter cannot vouch for anything */
	assert_int_equal(exporter_revoke(dead, &err), -1);
	assert_int_equal(err.code, ERR_EXPORTER);
	exporter_kill(dead_too);
	export_free(&e);
}

static void exporter__revoked__leaves_no_process_and_no_file(void **state)
{
	const struct combination *c = *state;
	struct export e;
	struct err err = { 0 };
	if (!can_run(c))
		skip();
	export_make(&e, c);
	sink_close(open_sink(&e));
	struct exporter *exporter = e.exporter;
	e.exporter = NULL;
	fixture_ok(exporter_revoke(exporter, &err), &err);
	expect_empty(e.dir);
	if (c->format == FORMAT_QCOW2) {
		const char *argv[] = { "qemu-img", "check", "-q", e.path, NULL };
		fixture_ok(proc_run(argv, NULL, NULL, NULL, 20000, &err), &err);
	}
	export_free(&e);
}

static void exporter__image_is_missing__fails_with_words(void **state)
{
	const struct combination *c = *state;
	struct export e;
	struct err err = { 0 };
	if (!can_run(c))
		skip();
	export_make(&e, c);
	exporter_kill(e.exporter);
	e.exporter = NULL;
	assert_int_equal(unlink(e.path), 0);
	assert_int_equal(exporter_start(&e.exporter, c->kind, e.dir, e.path, c->format, EXPORT_SIZE_BYTES, "xvda",
	                                FIXTURE_MIGRATION, &e.access, &err),
	                 -1);
	assert_int_equal(err.code, ERR_EXPORTER);
	export_free(&e);
}

/* A small file system of our own. It changes the test's namespace, so this is the last test. */
static bool mount_small(const char *path)
{
	char text[64];
	uid_t uid = getuid();
	gid_t gid = getgid();
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 && (uid != 0 || unshare(CLONE_NEWNS) < 0))
		return false;
	const char *const files[] = { "/proc/self/setgroups", "/proc/self/uid_map", "/proc/self/gid_map" };
	for (int i = 0; i < 3; i++) {
		if (i == 0)
			snprintf(text, sizeof(text), "deny");
		else
			snprintf(text, sizeof(text), "0 %u 1", i == 1 ? uid : gid);
		int fd = open(files[i], O_WRONLY | O_CLOEXEC);
		ssize_t wrote = fd >= 0 ? write(fd, text, strlen(text)) : -1;
		(void)wrote; /* without a user namespace of our own there is nothing to map */
		if (fd >= 0)
			close(fd);
	}
	return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", path, "tmpfs", 0, "size=8m") == 0;
}

static void receiver__storage_full__is_an_error_that_says_so(void **state)
{
	struct export e;
	struct err err = { 0 };
	static unsigned char block[1024 * 1024];
	uint64_t seed = 3;
	(void)state;
	memset(&e, 0, sizeof(e));
	fixture_dir(&e.f);
	snprintf(e.dir, sizeof(e.dir), "%s/export", e.f.dir);
	snprintf(e.path, sizeof(e.path), "%s/small/target.img", e.f.dir);
	assert_int_equal(mkdir(e.dir, 0700), 0);
	char small[160];
	snprintf(small, sizeof(small), "%s/small", e.f.dir);
	assert_int_equal(mkdir(small, 0700), 0);
	if (!mount_small(small)) {
		fixture_dir_remove(&e.f);
		skip();
	}
	static const struct combination all[] = { { EXPORTER_NBD, FORMAT_RAW },
		                                  { EXPORTER_NBD, FORMAT_QCOW2 },
		                                  { EXPORTER_ISCSI, FORMAT_RAW } };
	fixture_fill(block, sizeof(block), &seed);
	for (size_t i = 0; i < 3; i++) {
		export_start(&e, &all[i]);
		struct sink *sink = open_sink(&e);
		int result = 0;
		for (uint64_t at = 0; at + sizeof(block) <= EXPORT_SIZE_BYTES && result == 0; at += sizeof(block))
			result = sink_write(sink, at, block, sizeof(block), NULL, NULL, NULL, &err);
		if (result == 0)
			result = sink_flush(sink, &err);
		assert_int_equal(result, -1);
		/* tgtd says "medium error" for it */
		if (all[i].kind == EXPORTER_NBD)
			assert_int_equal(err.code, ERR_NO_SPACE);
		else
			assert_int_equal(err.code, ERR_EXPORTER);
		assert_non_null(strstr(err.text, all[i].kind == EXPORTER_NBD ? "space" : "full"));
		sink_close(sink);
		exporter_kill(e.exporter);
		e.exporter = NULL;
		assert_int_equal(unlink(e.path), 0);
	}
	umount2(small, MNT_DETACH);
	export_free(&e);
}

struct reading {
	struct exporter *exporter;
	int result;
	struct err err;
};

static void *read_back_all(void *arg)
{
	struct reading *reading = arg;
	uint32_t granule = 0;
	uint64_t digest;
	reading->result = exporter_digests(reading->exporter, &granule, 1, &digest, &reading->err);
	return NULL;
}

/* How a rollback frees whoever reads through an exporter that hangs: over NBD, and in a FUSE file system. */
static void exporter__hangs_and_is_killed__its_reader_is_freed(void **state)
{
	const struct combination *c = *state;
	struct export e;
	struct proc_id processes[4];
	pthread_t thread;
	if (!can_run(c))
		skip();
	export_make(&e, c);
	struct reading reading = { .exporter = e.exporter };
	unsigned count = exporter_processes(e.exporter, processes, 4);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(kill(processes[i].pid, SIGSTOP), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_back_all, &reading), 0);
	for (unsigned i = 0; i < count; i++)
		proc_kill(&processes[i], 0, NULL); /* does not wait */
	pthread_join(thread, NULL);
	assert_int_equal(reading.result, -1);
	assert_true(reading.err.code != ERR_TIMEOUT && reading.err.code != ERR_NONE);
	export_free(&e);
}

static struct combination nbd_raw = { EXPORTER_NBD, FORMAT_RAW }, nbd_qcow2 = { EXPORTER_NBD, FORMAT_QCOW2 },
			  iscsi_raw = { EXPORTER_ISCSI, FORMAT_RAW }, iscsi_qcow2 = { EXPORTER_ISCSI, FORMAT_QCOW2 };

#define FOR_ALL(test)                                                                                           \
	{ #test " nbd raw", test, NULL, NULL, &nbd_raw }, { #test " nbd qcow2", test, NULL, NULL, &nbd_qcow2 }, \
		{ #test " iscsi raw", test, NULL, NULL, &iscsi_raw },                                           \
	{                                                                                                       \
#test " iscsi qcow2", test, NULL, NULL, &iscsi_qcow2                                            \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FOR_ALL(exporter__written_and_read_back__digests_agree),
		FOR_ALL(exporter__secrets__are_in_nobodys_arguments),
		FOR_ALL(exporter__wrong_name_or_secret__is_refused),
		FOR_ALL(exporter__started_where_a_dead_one_was__works),
		FOR_ALL(exporter__revoked__leaves_no_process_and_no_file),
		FOR_ALL(exporter__image_is_missing__fails_with_words),
		{ "exporter__hangs_and_is_killed__its_reader_is_freed nbd qcow2",
		  exporter__hangs_and_is_killed__its_reader_is_freed, NULL, NULL, &nbd_qcow2 },
		{ "exporter__hangs_and_is_killed__its_reader_is_freed iscsi qcow2",
		  exporter__hangs_and_is_killed__its_reader_is_freed, NULL, NULL, &iscsi_qcow2 },
		cmocka_unit_test(receiver__storage_full__is_an_error_that_says_so),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
