/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "common/keys.h"
#include "common/log.h"

static char folder[64];
static struct paths here, there; /* whose keys they are; who lets them in */

static int make_homes(void **state)
{
	(void)state;
	char home[128];
	snprintf(folder, sizeof(folder), "/tmp/test_keys_XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(home, sizeof(home), "%s/here", folder);
	if (paths_init(&here, home, NULL) < 0 || paths_make(&here, NULL) < 0)
		return -1;
	snprintf(home, sizeof(home), "%s/there", folder);
	return paths_init(&there, home, NULL) < 0 || paths_make(&there, NULL) < 0 ? -1 : 0;
}

static int remove_homes(void **state)
{
	(void)state;
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static const char *key_file(const struct paths *paths, const char *part, char path[700])
{
	snprintf(path, 700, "%s/%s", paths->etc, part);
	return path;
}

static void make(const char *name, enum role role, const char *host)
{
	struct err err;
	if (keys_generate(&here, name, role, host, &err) < 0)
		fail_msg("%s", err.text);
}

static void authorize(const char *file, enum err_code expected)
{
	char path[700];
	struct err err = { 0 };
	int rc = keys_authorize(&there, key_file(&here, file, path), &err);
	if (rc < 0 && err.code != expected)
		fail_msg("%s", err.text);
	assert_int_equal(rc < 0 ? err.code : ERR_NONE, expected);
}

static size_t authorized_count(void)
{
	struct key_info *keys = NULL;
	size_t count = 0;
	assert_int_equal(keys_list_authorized(&there, &keys, &count, NULL), 0);
	free(keys);
	return count;
}

/* A public certificate made by hand. */
static void write_cert(const struct paths *paths, const char *file, const char *metadata, const char *key)
{
	char path[700];
	FILE *out = fopen(key_file(paths, file, path), "w");
	assert_non_null(out);
	fprintf(out, "metadata\n%scurve\n    public-key = \"%s\"\n", metadata, key);
	fclose(out);
}

static const char some_key[] = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";

static void generate__agent__both_parts_private_secret(void **state)
{
	(void)state;
	char path[700], public_text[KEYS_Z85_BYTES], secret[KEYS_Z85_BYTES];
	struct stat st;
	struct key_info info;
	struct err err;
	make("a1", ROLE_AGENT, "a1");
	assert_int_equal(keys_load_public(key_file(&here, "keys/a1.cert", path), &info, &err), 0);
	assert_string_equal(info.name, "a1");
	assert_string_equal(info.host, "a1");
	assert_int_equal(info.role, ROLE_AGENT);
	assert_false(info.has_secret);
	assert_int_equal(keys_load_secret(path, public_text, secret, &err), -1); /* the public part has none */
	assert_int_equal(err.code, ERR_CONFIG);
	assert_int_equal(stat(key_file(&here, "keys/a1.cert_secret", path), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(keys_load_secret(path, public_text, secret, &err), 0);
	assert_string_equal(public_text, info.public_text);
	assert_string_not_equal(public_text, secret);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(keys_load_secret(path, public_text, secret, &err), -1);
	assert_non_null(strstr(err.text, "0600"));
}

static void generate__exists_or_bad_name__refused(void **state)
{
	(void)state;
	struct err err;
	char name[LIMIT_NAME + 1];
	make("op", ROLE_OPERATOR, NULL);
	assert_int_equal(keys_generate(&here, "op", ROLE_OPERATOR, NULL, &err), -1);
	assert_int_equal(err.code, ERR_BUSY);
	memset(name, 'n', sizeof(name) - 1);
	name[LIMIT_NAME] = '\0';
	const char *const bad[] = { "", "../x", "a/b", ".hidden", "a b", "-x", "\xc3\xa9", name };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(keys_generate(&here, bad[i], ROLE_VIEWER, NULL, &err), -1);
		assert_int_equal(err.code, ERR_USAGE);
	}
	assert_int_equal(keys_generate(&here, "x", ROLE_NONE, NULL, &err), -1);
	assert_int_equal(keys_generate(&here, "x", ROLE_AGENT, NULL, &err), -1);
	assert_int_equal(keys_generate(&here, "x", ROLE_AGENT, "../h", &err), -1);
	assert_int_equal(keys_generate(&here, "x", ROLE_VIEWER, "h", &err), -1);
}

static void authorize__good_key__listed_and_revoked(void **state)
{
	(void)state;
	struct key_info *keys = NULL;
	size_t count = 0;
	struct err err;
	make("op", ROLE_OPERATOR, NULL);
	make("a1", ROLE_AGENT, "h1");
	authorize("keys/op.cert", ERR_NONE);
	authorize("keys/a1.cert", ERR_NONE);
	authorize("keys/a1.cert", ERR_NONE); /* again: fine */
	assert_int_equal(keys_list(&there, &keys, &count, &err), 0);
	assert_int_equal(count, 2);
	assert_string_equal(keys[0].name, "a1");
	assert_string_equal(keys[0].host, "h1");
	assert_int_equal(keys[0].role, ROLE_AGENT);
	assert_true(keys[0].authorized);
	assert_false(keys[0].has_secret);
	assert_string_equal(keys[1].name, "op");
	assert_int_equal(keys[1].role, ROLE_OPERATOR);
	free(keys);
	assert_int_equal(keys_revoke(&there, "a1", &err), 0);
	assert_int_equal(keys_revoke(&there, "a1", &err), -1);
	assert_int_equal(err.code, ERR_UNKNOWN_ID);
	assert_int_equal(keys_revoke(&there, "../keys/op", &err), -1);
	assert_int_equal(err.code, ERR_USAGE);
	assert_int_equal(authorized_count(), 1);
}

static void authorize__secret_part__refused(void **state)
{
	(void)state;
	make("op", ROLE_OPERATOR, NULL);
	authorize("keys/op.cert_secret", ERR_USAGE);
	assert_int_equal(authorized_count(), 0);
}

static void authorize__taken_name_host_or_key__refused(void **state)
{
	(void)state;
	make("a1", ROLE_AGENT, "h1");
	make("a2", ROLE_AGENT, "h1");
	authorize("keys/a1.cert", ERR_NONE);
	authorize("keys/a2.cert", ERR_CONFLICT); /* the host has a key */
	struct key_info info;
	char path[700];
	assert_int_equal(keys_load_public(key_file(&here, "keys/a1.cert", path), &info, NULL), 0);
	write_cert(&here, "x.cert", "    name = \"other\"\n    role = \"viewer\"\n", info.public_text);
	authorize("x.cert", ERR_CONFLICT); /* the key is there */
	write_cert(&here, "x.cert", "    name = \"a1\"\n    role = \"viewer\"\n", some_key);
	authorize("x.cert", ERR_CONFLICT); /* the name is */
	write_cert(&here, "x.cert", "    name = \"a1\"\n    role = \"operator\"\n", info.public_text);
	authorize("x.cert", ERR_CONFLICT); /* not a way to another role */
	assert_int_equal(authorized_count(), 1);
}

static void authorize__bad_files__refused(void **state)
{
	(void)state;
	static const char *const bad[] = { "",
		                           "    name = \"x\"\n",
		                           "    role = \"viewer\"\n",
		                           "    name = \"x\"\n    role = \"king\"\n",
		                           "    name = \"../x\"\n    role = \"viewer\"\n",
		                           "    name = \"x\"\n    role = \"agent\"\n",
		                           "    name = \"x\"\n    role = \"agent\"\n    host = \"a/b\"\n",
		                           "    name = \"x\"\n    role = \"viewer\"\n    host = \"h\"\n" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		write_cert(&here, "x.cert", bad[i], some_key);
		authorize("x.cert", ERR_CONFIG);
	}
	static const char *const bad_keys[] = { "", "short", "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hI ",
		                                "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hIDx" };
	for (size_t i = 0; i < sizeof(bad_keys) / sizeof(bad_keys[0]); i++) {
		write_cert(&here, "x.cert", "    name = \"x\"\n    role = \"viewer\"\n", bad_keys[i]);
		authorize("x.cert", ERR_CONFIG);
	}
	authorize("none.cert", ERR_CONFIG);
	authorize("", ERR_CONFIG); /* a folder */
	assert_int_equal(authorized_count(), 0);
}

static void list__bad_files_among_good__left_out(void **state)
{
	(void)state;
	char path[700];
	make("op", ROLE_OPERATOR, NULL);
	authorize("keys/op.cert", ERR_NONE);
	write_cert(&there, "authorized/x.cert", "    name = \"y\"\n    role = \"viewer\"\n",
	           some_key); /* not its name */
	write_cert(&there, "authorized/z.cert", "    name = \"z\"\n    role = \"king\"\n", some_key);
	write_cert(&there, "authorized/other.txt", "    name = \"other\"\n    role = \"viewer\"\n", some_key);
	write_cert(&there, "authorized/.w.cert", "    name = \".w\"\n    role = \"viewer\"\n", some_key);
	FILE *noise = fopen(key_file(&there, "authorized/noise.cert", path), "w");
	for (int i = 0; i < 300; i++)
		fputc(i % 256, noise);
	fclose(noise);
	log_level_set((enum log_level)0); /* the warnings are expected */
	assert_int_equal(authorized_count(), 1);
	log_level_set(LOG_LEVEL_INFO);
	write_cert(&there, "authorized/v.cert", "    name = \"v\"\n    role = \"viewer\"\n", some_key);
	log_level_set((enum log_level)0);
	assert_int_equal(authorized_count(), 2);
	log_level_set(LOG_LEVEL_INFO);
}

static void list__own_and_authorized__one_entry_with_both_flags(void **state)
{
	(void)state;
	struct key_info *keys = NULL;
	size_t count = 9;
	char path[700];
	assert_int_equal(keys_list(&here, &keys, &count, NULL), 0); /* no folders at all */
	assert_int_equal(count, 0);
	free(keys);
	make("op", ROLE_OPERATOR, NULL);
	assert_int_equal(keys_authorize(&here, key_file(&here, "keys/op.cert", path), NULL), 0);
	assert_int_equal(keys_list(&here, &keys, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_true(keys[0].authorized);
	assert_true(keys[0].has_secret);
	free(keys);
}

#define KEYS_TEST(name) cmocka_unit_test_setup_teardown(name, make_homes, remove_homes)

int main(void)
{
	const struct CMUnitTest tests[] = {
		KEYS_TEST(generate__agent__both_parts_private_secret),
		KEYS_TEST(generate__exists_or_bad_name__refused),
		KEYS_TEST(authorize__good_key__listed_and_revoked),
		KEYS_TEST(authorize__secret_part__refused),
		KEYS_TEST(authorize__taken_name_host_or_key__refused),
		KEYS_TEST(authorize__bad_files__refused),
		KEYS_TEST(list__bad_files_among_good__left_out),
		KEYS_TEST(list__own_and_authorized__one_entry_with_both_flags),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
