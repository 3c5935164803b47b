/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/keys.h"

#include <czmq.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

enum {
	FILE_MAX_BYTES = 8192, /* a certificate has a few hundred */
	KEY_PATH = PATHS_MAX + LIMIT_NAME + 32,
};

#define NAME_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
#define Z85_CHARS "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

struct cert {
	struct key_info info;
	char secret[KEYS_Z85_BYTES]; /* "" if there is none */
};

static bool good_name(const char *name)
{
	size_t length = strlen(name);
	return length > 0 && length < LIMIT_NAME && name[0] != '.' && name[0] != '-' &&
	       strspn(name, NAME_CHARS) == length;
}

static bool good_z85(const char *text)
{
	return strlen(text) == KEYS_Z85_BYTES - 1 && strspn(text, Z85_CHARS) == KEYS_Z85_BYTES - 1;
}

static void key_path(const struct paths *paths, const char *folder, const char *name, const char *suffix,
                     char path[KEY_PATH])
{
	snprintf(path, KEY_PATH, "%s/%s/%.64s%s", paths->etc, folder, name, suffix);
}

/* ---- reading ---- */

static int get_text(zconfig_t *root, const char *key, char *ret_text, size_t bytes)
{
	const char *value = zconfig_get(root, key, "");
	return snprintf(ret_text, bytes, "%s", value) < (int)bytes ? 0 : -1;
}

static int parse_cert(zconfig_t *root, const char *path, struct cert *cert, struct err *err)
{
	char role[LIMIT_NAME];
	struct key_info *info = &cert->info;
	if (get_text(root, "curve/public-key", info->public_text, sizeof(info->public_text)) < 0 ||
	    !good_z85(info->public_text))
		return err_set(err, ERR_CONFIG, "%s: has no public key", path);
	if (get_text(root, "curve/secret-key", cert->secret, sizeof(cert->secret)) < 0 ||
	    (cert->secret[0] && !good_z85(cert->secret)))
		return err_set(err, ERR_CONFIG, "%s: has a broken secret key", path);
	if (get_text(root, "metadata/name", info->name, sizeof(info->name)) < 0 ||
	    get_text(root, "metadata/role", role, sizeof(role)) < 0 ||
	    get_text(root, "metadata/host", info->host, sizeof(info->host)) < 0)
		return err_set(err, ERR_CONFIG, "%s: name, role or host is too long", path);
	info->role = role_from_name(role);
	snprintf(info->path, sizeof(info->path), "%s", path);
	return 0;
}

/* The file as text. czmq's own reader leaks on a bad file, and prints it. */
static int read_text(const char *path, char ret_text[FILE_MAX_BYTES + 1], struct err *err)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_errno(err, errno == ENOENT ? ERR_CONFIG : ERR_IO, errno, "key %s", path);
	size_t length = 0;
	ssize_t got = -1;
	errno = EINVAL;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= FILE_MAX_BYTES)
		while ((got = read(fd, ret_text + length, FILE_MAX_BYTES - length)) > 0)
			length += (size_t)got;
	int saved = errno;
	close(fd);
	if (got < 0)
		return saved == EINVAL ? err_set(err, ERR_CONFIG, "%s: is not a key file", path)
		                       : err_errno(err, ERR_IO, saved, "key %s", path);
	for (size_t i = 0; i < length; i++) {
		char c = ret_text[i];
		if (c != '\n' && c != '\t' && c != '\r' && (c < ' ' || c > '~'))
			return err_set(err, ERR_CONFIG, "%s: is not a key file", path);
	}
	ret_text[length] = '\0';
	return 0;
}

static int read_cert(const char *path, struct cert *ret_cert, struct err *err)
{
	struct cert cert = { .secret = "" };
	char text[FILE_MAX_BYTES + 1];
	int result = read_text(path, text, err);
	zconfig_t *root = result == 0 ? zconfig_str_load(text) : NULL;
	if (result == 0)
		result = root ? parse_cert(root, path, &cert, err)
		              : err_set(err, ERR_CONFIG, "%s: is not a key file", path);
	zconfig_destroy(&root);
	if (result == 0)
		*ret_cert = cert;
	explicit_bzero(&cert, sizeof(cert));
	explicit_bzero(text, sizeof(text));
	return result;
}

/* What an authorised key must say about itself. */
static int check_identity(const struct key_info *info, struct err *err)
{
	if (!good_name(info->name))
		return err_set(err, ERR_CONFIG, "%s: has no valid name", info->path);
	if (info->role == ROLE_NONE || info->role >= ROLES)
		return err_set(err, ERR_CONFIG, "%s: has no valid role", info->path);
	if (info->role == ROLE_AGENT && !good_name(info->host))
		return err_set(err, ERR_CONFIG, "%s: is for an agent and names no valid host", info->path);
	if (info->role != ROLE_AGENT && info->host[0])
		return err_set(err, ERR_CONFIG, "%s: names a host and is not for an agent", info->path);
	return 0;
}

int keys_load_secret(const char *file, char ret_public[KEYS_Z85_BYTES], char ret_secret[KEYS_Z85_BYTES],
                     struct err *err)
{
	struct cert cert = { 0 };
	struct stat st;
	if (read_cert(file, &cert, err) < 0)
		return -1;
	int result = 0;
	if (!cert.secret[0])
		result =
			err_set(err, ERR_CONFIG, "%s: has no secret key (the file with it ends in .cert_secret)", file);
	else if (stat(file, &st) < 0 || (st.st_mode & 077) != 0)
		result = err_set(err, ERR_CONFIG, "%s: others may read it; make it mode 0600", file);
	if (result == 0) {
		snprintf(ret_public, KEYS_Z85_BYTES, "%.40s", cert.info.public_text);
		snprintf(ret_secret, KEYS_Z85_BYTES, "%.40s", cert.secret);
	}
	explicit_bzero(&cert, sizeof(cert));
	return result;
}

int keys_load_public(const char *file, struct key_info *ret_info, struct err *err)
{
	struct cert cert = { 0 };
	if (read_cert(file, &cert, err) < 0)
		return -1;
	*ret_info = cert.info;
	ret_info->has_secret = cert.secret[0] != '\0';
	explicit_bzero(&cert, sizeof(cert));
	return 0;
}

/* ---- writing ---- */

static int make_folder(const struct paths *paths, const char *folder, mode_t mode, struct err *err)
{
	char path[KEY_PATH];
	if (mkdir(paths->etc, 0755) < 0 && errno != EEXIST)
		return err_errno(err, ERR_IO, errno, "make directory %s", paths->etc);
	snprintf(path, sizeof(path), "%s/%s", paths->etc, folder);
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return err_errno(err, ERR_IO, errno, "make directory %s", path);
	return 0;
}

static int sync_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	int rc = fsync(fd);
	close(fd);
	return rc;
}

/* Saves one part under its final name, whole or not at all, never over another file. */
static int save_cert(zcert_t *cert, const char *path, bool secret, struct err *err)
{
	char fresh[KEY_PATH + 32];
	snprintf(fresh, sizeof(fresh), "%s.%ld.new", path, (long)getpid());
	mode_t before = umask(secret ? 077 : 022); /* czmq changes it as well */
	int rc = secret ? zcert_save_secret(cert, fresh) : zcert_save_public(cert, fresh);
	umask(before);
	if (rc == 0)
		rc = chmod(fresh, secret ? 0600 : 0644);
	int result = -1;
	if (rc < 0 || sync_file(fresh) < 0)
		err_errno(err, ERR_IO, errno, "write %s", path);
	else if (link(fresh, path) == 0)
		result = 0;
	else if (errno == EEXIST)
		err_set(err, ERR_BUSY, "%s exists already", path);
	else
		err_errno(err, ERR_IO, errno, "write %s", path);
	unlink(fresh);
	return result;
}

static void set_identity(zcert_t *cert, const char *name, enum role role, const char *host)
{
	zcert_set_meta(cert, "name", "%s", name);
	zcert_set_meta(cert, "role", "%s", role_name(role));
	if (host && host[0])
		zcert_set_meta(cert, "host", "%s", host);
}

int keys_generate(const struct paths *paths, const char *name, enum role role, const char *host, struct err *err)
{
	char public_path[KEY_PATH], secret_path[KEY_PATH];
	if (!good_name(name))
		return err_set(err, ERR_USAGE, "'%s' is not a key name (allowed: at most %d letters, digits and . _ -)",
		               name, LIMIT_NAME - 1);
	if (role <= ROLE_NONE || role >= ROLES)
		return err_set(err, ERR_USAGE, "key %s: no such role", name);
	if (role == ROLE_AGENT && (!host || !good_name(host)))
		return err_set(err, ERR_USAGE, "key %s: a key for an agent needs the name of its host", name);
	if (role != ROLE_AGENT && host && host[0])
		return err_set(err, ERR_USAGE, "key %s: only a key for an agent has a host", name);
	if (make_folder(paths, "keys", 0700, err) < 0)
		return -1;
	key_path(paths, "keys", name, ".cert", public_path);
	key_path(paths, "keys", name, ".cert_secret", secret_path);
	if (access(public_path, F_OK) == 0)
		return err_set(err, ERR_BUSY, "%s exists already", public_path);
	zcert_t *cert = zcert_new();
	if (!cert)
		return err_set(err, ERR_NO_MEMORY, "key %s: cannot be made", name);
	set_identity(cert, name, role, host);
	int result = save_cert(cert, secret_path, true, err);
	if (result == 0 && save_cert(cert, public_path, false, err) < 0) {
		unlink(secret_path);
		result = -1;
	}
	zcert_destroy(&cert);
	return result;
}

/* Whether one of the authorised keys stands in the way (-1), is this very key (1), or neither (0). */
static int check_others(const struct paths *paths, const struct key_info *info, struct err *err)
{
	struct key_info *keys = NULL;
	size_t count = 0;
	int result = 0;
	if (keys_list_authorized(paths, &keys, &count, err) < 0)
		return -1;
	for (size_t i = 0; i < count && result == 0; i++) {
		const struct key_info *other = &keys[i];
		bool same_name = strcmp(other->name, info->name) == 0;
		bool same_key = strcmp(other->public_text, info->public_text) == 0;
		bool same_host = info->host[0] && strcmp(other->host, info->host) == 0;
		if (same_name && same_key && other->role == info->role && strcmp(other->host, info->host) == 0)
			result = 1;
		else if (same_name)
			result =
				err_set(err, ERR_CONFLICT,
			                "key %s is authorised already, with another key, role or host; revoke it first",
			                info->name);
		else if (same_key)
			result = err_set(err, ERR_CONFLICT, "this key is authorised already, as %s", other->name);
		else if (same_host)
			result = err_set(err, ERR_CONFLICT, "host %s has a key already: %s; revoke it first",
			                 info->host, other->name);
	}
	free(keys);
	return result;
}

int keys_authorize(const struct paths *paths, const char *file, struct err *err)
{
	char path[KEY_PATH];
	struct key_info info;
	if (keys_load_public(file, &info, err) < 0)
		return -1;
	if (info.has_secret)
		return err_set(err, ERR_USAGE, "%s: holds a secret key; give the public part (.cert) away, never this",
		               file);
	if (check_identity(&info, err) < 0)
		return -1;
	int others = check_others(paths, &info, err);
	if (others != 0)
		return others < 0 ? -1 : 0;
	if (make_folder(paths, "authorized", 0755, err) < 0)
		return -1;
	byte public_key[32], no_secret[32] = { 0 };
	zcert_t *cert = zmq_z85_decode(public_key, info.public_text) ? zcert_new_from(public_key, no_secret) : NULL;
	if (!cert)
		return err_set(err, ERR_CONFIG, "%s: has no public key", file);
	set_identity(cert, info.name, info.role, info.host);
	key_path(paths, "authorized", info.name, ".cert", path);
	int result = save_cert(cert, path, false, err);
	zcert_destroy(&cert);
	return result;
}

int keys_revoke(const struct paths *paths, const char *name, struct err *err)
{
	char path[KEY_PATH];
	if (!good_name(name))
		return err_set(err, ERR_USAGE, "'%s' is not a key name", name);
	key_path(paths, "authorized", name, ".cert", path);
	if (unlink(path) == 0)
		return 0;
	if (errno == ENOENT)
		return err_set(err, ERR_UNKNOWN_ID, "no key %s is authorised here (looked for %s)", name, path);
	return err_errno(err, ERR_IO, errno, "remove %s", path);
}

/* ---- listing ---- */

struct key_set {
	struct key_info *keys;
	size_t count, room;
};

static int add_key(struct key_set *set, const struct key_info *info, struct err *err)
{
	for (size_t i = 0; i < set->count; i++) {
		struct key_info *old = &set->keys[i];
		if (strcmp(old->public_text, info->public_text) != 0)
			continue;
		if (old->authorized == info->authorized)
			log_warning("key file=%s ignored: same key as %s", info->path, old->path);
		old->authorized |= info->authorized;
		return 0;
	}
	if (set->count == set->room) {
		size_t room = set->room ? set->room * 2 : 16;
		struct key_info *keys = reallocarray(set->keys, room, sizeof(*keys));
		if (!keys)
			return err_set(err, ERR_NO_MEMORY, "keys: no memory");
		set->keys = keys;
		set->room = room;
	}
	set->keys[set->count++] = *info;
	return 0;
}

/* One file of a folder. One that is no good must not lock everybody else out. */
static int add_file(struct key_set *set, const char *folder, const char *file, bool authorized, struct err *err)
{
	char path[KEY_PATH + 256], secret[KEY_PATH + 272], name[LIMIT_NAME];
	struct key_info info;
	struct err inner;
	size_t length = strlen(file) - strlen(".cert");
	snprintf(path, sizeof(path), "%s/%s", folder, file);
	snprintf(secret, sizeof(secret), "%s_secret", path);
	if (length >= sizeof(name))
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)length, file);
	int rc = keys_load_public(path, &info, &inner);
	if (rc == 0 && authorized)
		rc = check_identity(&info, &inner);
	if (rc == 0 && strcmp(info.name, name) != 0)
		rc = err_set(&inner, ERR_CONFIG, "%s: is for key '%s'; the file name must be the same", path,
		             info.name);
	if (rc < 0) {
		log_warning("key file ignored: %s", inner.text);
		return 0;
	}
	info.authorized = authorized;
	info.has_secret = !authorized && access(secret, F_OK) == 0;
	return add_key(set, &info, err);
}

static int is_cert(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);
	return length > 5 && strcmp(entry->d_name + length - 5, ".cert") == 0 && entry->d_name[0] != '.';
}

static int by_file_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name); /* not alphasort: that depends on the locale */
}

static int add_folder(struct key_set *set, const struct paths *paths, const char *name, bool authorized,
                      struct err *err)
{
	char folder[KEY_PATH];
	struct dirent **entries = NULL;
	snprintf(folder, sizeof(folder), "%s/%s", paths->etc, name);
	int count = scandir(folder, &entries, is_cert, by_file_name);
	if (count < 0)
		return errno == ENOENT ? 0 : err_errno(err, ERR_IO, errno, "read %s", folder);
	int result = 0;
	for (int i = 0; i < count; i++) {
		if (result == 0)
			result = add_file(set, folder, entries[i]->d_name, authorized, err);
		free(entries[i]);
	}
	free(entries);
	return result;
}

static int by_name(const void *a, const void *b)
{
	const struct key_info *x = a, *y = b;
	return strcmp(x->name, y->name);
}

static int list(const struct paths *paths, bool own, struct key_info **ret_keys, size_t *ret_count, struct err *err)
{
	struct key_set set = { 0 };
	if ((own && add_folder(&set, paths, "keys", false, err) < 0) ||
	    add_folder(&set, paths, "authorized", true, err) < 0) {
		free(set.keys);
		return -1;
	}
	if (set.count > 0)
		qsort(set.keys, set.count, sizeof(*set.keys), by_name);
	*ret_keys = set.keys;
	*ret_count = set.count;
	return 0;
}

int keys_list(const struct paths *paths, struct key_info **ret_keys, size_t *ret_count, struct err *err)
{
	return list(paths, true, ret_keys, ret_count, err);
}

int keys_list_authorized(const struct paths *paths, struct key_info **ret_keys, size_t *ret_count, struct err *err)
{
	return list(paths, false, ret_keys, ret_count, err);
}
