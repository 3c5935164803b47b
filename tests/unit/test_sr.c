/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/disk_fixture.h"

static void make_sr(struct sr_config *sr, struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	fixture_dir(f);
	memset(sr, 0, sizeof(*sr));
	snprintf(sr->name, sizeof(sr->name), "fast");
	snprintf(sr->type, sizeof(sr->type), "dir");
	snprintf(sr->path, sizeof(sr->path), "%s", f->dir);
	sr->format = FORMAT_RAW;
}

static void disk_path__same_vm_and_migration__is_the_same(void **state)
{
	struct fixture f;
	struct sr_config sr;
	char a[LIMIT_PATH], b[LIMIT_PATH];
	uuid_bytes uuid = { 0x11, 0x22, 0x33 };
	struct err err = { 0 };
	(void)state;
	make_sr(&sr, &f);
	fixture_ok(sr_disk_path(&sr, uuid, "xvda", 7, a, &err), &err);
	fixture_ok(sr_disk_path(&sr, uuid, "xvda", 7, b, &err), &err);
	assert_string_equal(a, b);
	assert_non_null(strstr(a, "/11223300-0000-0000-0000-000000000000.xvda.7.raw"));
	sr.format = FORMAT_QCOW2;
	fixture_ok(sr_disk_path(&sr, uuid, "xvda", 8, b, &err), &err);
	assert_non_null(strstr(b, ".xvda.8.qcow2"));
	assert_int_equal(sr_disk_path(&sr, uuid, "../xvda", 7, a, &err), -1);
	assert_int_equal(err.code, ERR_USAGE);
	assert_int_equal(sr_disk_path(&sr, uuid, "", 7, a, &err), -1);
	memset(sr.path, 'x', sizeof(sr.path) - 1);
	assert_int_equal(sr_disk_path(&sr, uuid, "xvda", 7, a, &err), -1);
	fixture_dir_remove(&f);
}

static void file_parse__what_we_name__is_read_back(void **state)
{
	(void)state;
	static const char *const disks[] = { "xvda", "a.b", "a-1_.z", "x" };
	static const char *const tails[] = { "", ".reserve", ".new" };
	const uint64_t migrations[] = { 1, 17, INT64_MAX };
	struct sr_config sr = { .path = "/sr" };
	uuid_bytes uuid = { 0x11, 0x22, 0x33 };
	struct err err = { 0 };
	for (unsigned i = 0; i < 4 * 3 * 3 * 2; i++) {
		const char *disk = disks[i % 4], *tail = tails[i / 4 % 3];
		uint64_t migration = migrations[i / 12 % 3];
		char path[LIMIT_PATH], name[LIMIT_PATH + 16];
		struct sr_file file;
		sr.format = i / 36 ? FORMAT_QCOW2 : FORMAT_RAW;
		fixture_ok(sr_disk_path(&sr, uuid, disk, migration, path, &err), &err);
		snprintf(name, sizeof(name), "%s%s", path + 4, tail);
		assert_true(sr_file_parse(name, &file));
		assert_memory_equal(file.uuid, uuid, sizeof(uuid));
		assert_string_equal(file.disk, disk);
		assert_int_equal(file.migration, migration);
		assert_int_equal(file.reserve, i / 4 % 3 == 1);
		assert_string_equal(file.image, path + 4);
	}
}

static void file_parse__anything_else__is_not_ours(void **state)
{
	(void)state;
#define HEAD "11223300-0000-0000-0000-000000000000"
	static const char *const others[] = { "",
		                              ".",
		                              HEAD,
		                              HEAD ".",
		                              HEAD ".raw",
		                              HEAD ".7.raw",
		                              HEAD ".xvda.raw",
		                              HEAD ".xvda.7",
		                              HEAD ".xvda.7.vhd",
		                              HEAD ".xvda.0.raw",
		                              HEAD ".xvda.07.raw",
		                              HEAD ".xvda.-7.raw",
		                              HEAD ".xvda.7x.raw",
		                              HEAD ".xvda.9223372036854775808.raw",
		                              HEAD ".xvda.18446744073709551617.raw",
		                              HEAD "..7.raw",
		                              HEAD "...7.raw",
		                              HEAD ".xv da.7.raw",
		                              HEAD ".xvda.7.raw.reserve.new",
		                              HEAD ".xvda.7.raw.bak",
		                              "1122330A-0000-0000-0000-000000000000.xvda.7.raw",
		                              "x" HEAD ".xvda.7.raw",
		                              ".reserve",
		                              "web.raw.reserve",
		                              "0123456789012345678901234567890123456.xvda.7.raw" };
	struct sr_file file;
	char longest[3 * LIMIT_PATH] = HEAD ".";
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (sr_file_parse(others[i], &file))
			fail_msg("'%s' was taken for ours", others[i]);
	memset(longest + strlen(longest), 'x', 2 * LIMIT_PATH);
	strcat(longest, ".7.raw");
	assert_false(sr_file_parse(longest, &file));
#undef HEAD
}

static bool fits(const char *path, enum disk_format format, uint64_t bytes)
{
	struct err err = { 0 };
	bool it_does = sr_disk_fits(path, format, bytes, &err);
	assert_int_equal(it_does, err.code == ERR_NONE);
	return it_does;
}

static void put_byte(const char *path, off_t at, unsigned char byte)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static void disk__to_be_copied_over__only_what_it_should_be(void **state)
{
	struct fixture f;
	struct sr_config sr;
	char raw[LIMIT_PATH], qcow2[LIMIT_PATH], link[LIMIT_PATH];
	struct err err = { 0 };
	(void)state;
	make_sr(&sr, &f);
	snprintf(raw, sizeof(raw), "%s/disk.raw", f.dir);
	snprintf(qcow2, sizeof(qcow2), "%s/disk.qcow2", f.dir);
	snprintf(link, sizeof(link), "%s/link.raw", f.dir);
	assert_false(fits(raw, FORMAT_RAW, 1u << 20));
	fixture_ok(sr_disk_make(&sr, raw, FORMAT_RAW, 1u << 20, &err), &err);
	fixture_ok(sr_disk_make(&sr, qcow2, FORMAT_QCOW2, 1u << 20, &err), &err);
	assert_true(fits(raw, FORMAT_RAW, 1u << 20));
	assert_false(fits(raw, FORMAT_RAW, 1u << 21));
	assert_false(fits(raw, FORMAT_QCOW2, 1u << 20));
	assert_true(fits(qcow2, FORMAT_QCOW2, 1u << 20));
	assert_false(fits(qcow2, FORMAT_QCOW2, 1u << 21));
	assert_false(fits(qcow2, FORMAT_RAW, 1u << 20));
	assert_int_equal(symlink(raw, link), 0);
	assert_false(fits(link, FORMAT_RAW, 1u << 20));
	assert_false(fits(f.dir, FORMAT_RAW, 1u << 20));
	/* a backing file, snapshots, a data file elsewhere, a table that is none */
	static const struct {
		off_t at;
		unsigned char bad, good;
	} header[] = { { 15, 200, 0 }, { 63, 1, 0 }, { 79, 4, 0 }, { 0, 'q', 'Q' } };
	for (size_t i = 0; i < sizeof(header) / sizeof(header[0]); i++) {
		put_byte(qcow2, header[i].at, header[i].bad);
		assert_false(fits(qcow2, FORMAT_QCOW2, 1u << 20));
		put_byte(qcow2, header[i].at, header[i].good);
		assert_true(fits(qcow2, FORMAT_QCOW2, 1u << 20));
	}
	put_byte(qcow2, 65536 * 3 + 7, 0x11);
	put_byte(qcow2, 65536 + 7, 0x11);
	assert_false(fits(qcow2, FORMAT_QCOW2, 1u << 20));
	assert_int_equal(truncate(qcow2, 50), 0);
	assert_false(fits(qcow2, FORMAT_QCOW2, 1u << 20));
	fixture_dir_remove(&f);
}

static void disk__raw__is_sparse_and_made_and_removed_twice(void **state)
{
	struct fixture f;
	struct sr_config sr;
	char path[LIMIT_PATH];
	struct stat st;
	struct err err = { 0 };
	(void)state;
	make_sr(&sr, &f);
	snprintf(path, sizeof(path), "%s/disk.raw", f.dir);
	for (int i = 0; i < 2; i++) {
		fixture_ok(sr_disk_make(&sr, path, FORMAT_RAW, 1u << 30, &err), &err);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, 1u << 30);
		assert_true(st.st_blocks < 100);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	assert_int_equal(sr_disk_make(&sr, path, FORMAT_RAW, 1000, &err), -1);
	assert_int_equal(err.code, ERR_USAGE);
	for (int i = 0; i < 2; i++)
		fixture_ok(sr_disk_remove(path, &err), &err);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(sr_disk_make(&sr, "/nonexistent/disk", FORMAT_RAW, 512, &err), -1);
	assert_int_equal(err.code, ERR_IO);
	fixture_dir_remove(&f);
	fixture_ok(sr_disk_remove(path, &err), &err); /* the whole SR is gone */
}

static void disk__qcow2__has_its_size_and_is_not_made_again(void **state)
{
	struct fixture f;
	struct sr_config sr;
	char path[LIMIT_PATH], output[4096];
	size_t bytes = sizeof(output);
	struct stat before, after;
	struct err err = { 0 };
	(void)state;
	make_sr(&sr, &f);
	snprintf(path, sizeof(path), "%s/disk.qcow2", f.dir);
	fixture_ok(sr_disk_make(&sr, path, FORMAT_QCOW2, 64u << 20, &err), &err);
	assert_int_equal(stat(path, &before), 0);
	fixture_ok(sr_disk_make(&sr, path, FORMAT_QCOW2, 64u << 20, &err), &err);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	const char *argv[] = { "qemu-img", "info", "--output=json", path, NULL };
	fixture_ok(proc_run(argv, NULL, output, &bytes, 20000, &err), &err);
	assert_non_null(strstr(output, "\"virtual-size\": 67108864"));
	assert_non_null(strstr(output, "\"format\": \"qcow2\""));
	fixture_ok(sr_disk_remove(path, &err), &err);
	fixture_dir_remove(&f);
}

static void reserve__really_takes_space_and_shrinks(void **state)
{
	struct fixture f;
	struct sr_config sr;
	char path[LIMIT_PATH], reserve[LIMIT_PATH + 16];
	struct stat st;
	uint64_t size = 0, available = 0;
	struct err err = { 0 };
	(void)state;
	make_sr(&sr, &f);
	snprintf(path, sizeof(path), "%s/disk.raw", f.dir);
	snprintf(reserve, sizeof(reserve), "%s.reserve", path);
	fixture_ok(sr_space(&sr, &size, &available, &err), &err);
	assert_true(size > 0 && available <= size);
	fixture_ok(sr_reserve(path, 8u << 20, &err), &err);
	fixture_ok(sr_reserve(path, 8u << 20, &err), &err);
	assert_int_equal(stat(reserve, &st), 0);
	assert_true(st.st_blocks * 512 >= (8 << 20));
	fixture_ok(sr_reserve_shrink(path, 1u << 20, &err), &err);
	assert_int_equal(stat(reserve, &st), 0);
	assert_int_equal(st.st_size, 1 << 20);
	fixture_ok(sr_reserve_shrink(path, 2u << 20, &err), &err); /* never grows */
	assert_int_equal(stat(reserve, &st), 0);
	assert_int_equal(st.st_size, 1 << 20);
	fixture_ok(sr_reserve_remove(path, &err), &err);
	fixture_ok(sr_reserve_remove(path, &err), &err);
	fixture_ok(sr_reserve_shrink(path, 0, &err), &err);
	/* more than there is: refused, and nothing stays */
	assert_int_equal(sr_reserve(path, size + (1u << 30), &err), -1);
	assert_int_equal(err.code, ERR_NO_SPACE);
	assert_int_equal(access(reserve, F_OK), -1);
	snprintf(sr.path, sizeof(sr.path), "/nonexistent");
	assert_int_equal(sr_space(&sr, &size, &available, &err), -1);
	fixture_dir_remove(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(disk_path__same_vm_and_migration__is_the_same),
		cmocka_unit_test(file_parse__what_we_name__is_read_back),
		cmocka_unit_test(file_parse__anything_else__is_not_ours),
		cmocka_unit_test(disk__to_be_copied_over__only_what_it_should_be),
		cmocka_unit_test(disk__raw__is_sparse_and_made_and_removed_twice),
		cmocka_unit_test(disk__qcow2__has_its_size_and_is_not_made_again),
		cmocka_unit_test(reserve__really_takes_space_and_shrinks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
