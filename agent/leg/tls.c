/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/leg/net.h"
#include "common/clock.h"
#include "common/log.h"

#define DIGEST_BYTES 32
#define CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
#define READ_BUFFER_BYTES (128 * 1024)   /* several records a system call */
#define VALID_SECONDS (366L * 24 * 3600) /* of no meaning: the fingerprint decides, a clock does not */

struct tls_identity {
	SSL_CTX *ctx;
	char fingerprint[LIMIT_ID];
	unsigned char expected[DIGEST_BYTES];
	bool has_expected;
};

struct tls_conn {
	SSL *ssl;
	int fd;
	pthread_mutex_t lock; /* every call into OpenSSL */
	bool broken;          /* the writer's: a write was left half done */
	_Atomic uint64_t *wire;
	uint64_t counted; /* under `lock`: what `wire` was told already */
};

static int tls_fail(struct err *err, enum err_code code, const char *what)
{
	char text[160] = "unknown";
	unsigned long e = ERR_peek_last_error();
	if (e)
		ERR_error_string_n(e, text, sizeof(text));
	ERR_clear_error();
	return err_set(err, code, "%s: %s", what, text);
}

static bool cert_digest(X509 *cert, unsigned char digest[DIGEST_BYTES])
{
	unsigned bytes = DIGEST_BYTES;
	return cert && X509_digest(cert, EVP_sha256(), digest, &bytes) == 1 && bytes == DIGEST_BYTES;
}

/* Instead of a chain: is it that one certificate? That the peer owns its key is shown by the handshake. */
static int verify_peer(X509_STORE_CTX *store, void *arg)
{
	const struct tls_identity *identity = arg;
	unsigned char digest[DIGEST_BYTES];
	if (identity->has_expected && cert_digest(X509_STORE_CTX_get0_cert(store), digest) &&
	    CRYPTO_memcmp(digest, identity->expected, DIGEST_BYTES) == 0)
		return 1;
	X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
	return 0;
}

static X509 *make_cert(EVP_PKEY *key)
{
	X509 *cert = X509_new();
	uint64_t serial;
	random_bytes(&serial, sizeof(serial));
	bool ok = cert && X509_set_version(cert, X509_VERSION_3) &&
	          ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1) &&
	          X509_gmtime_adj(X509_getm_notBefore(cert), -VALID_SECONDS) &&
	          X509_gmtime_adj(X509_getm_notAfter(cert), VALID_SECONDS) && X509_set_pubkey(cert, key);
	if (ok) {
		X509_NAME *name = X509_get_subject_name(cert);
		ok = X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"drover leg", -1, -1,
		                                0) &&
		     X509_set_issuer_name(cert, name) && X509_sign(cert, key, EVP_sha256()) > 0;
	}
	if (!ok) {
		X509_free(cert);
		return NULL;
	}
	return cert;
}

static int configure(SSL_CTX *ctx, struct tls_identity *identity)
{
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_BUFFER_BYTES);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, verify_peer, identity);
	return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
	                       SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) &&
	                       SSL_CTX_set_ciphersuites(ctx, CIPHERS) && SSL_CTX_set_num_tickets(ctx, 0)
	               ? 0
	               : -1;
}

/* Takes key and cert, which may be NULL. */
static int identity_of(struct tls_identity **ret_identity, EVP_PKEY *key, X509 *cert, struct err *err)
{
	struct tls_identity *identity = calloc(1, sizeof(*identity));
	unsigned char digest[DIGEST_BYTES];
	int rc = -1;
	if (!identity || !cert || !cert_digest(cert, digest)) {
		tls_fail(err, ERR_INTERNAL, "make a certificate");
		goto out;
	}
	identity->ctx = SSL_CTX_new(TLS_method());
	if (!identity->ctx || configure(identity->ctx, identity) || SSL_CTX_use_certificate(identity->ctx, cert) != 1 ||
	    SSL_CTX_use_PrivateKey(identity->ctx, key) != 1) {
		tls_fail(err, ERR_INTERNAL, "set TLS up");
		goto out;
	}
	for (unsigned i = 0; i < DIGEST_BYTES; i++)
		snprintf(identity->fingerprint + 2 * i, 3, "%02x", digest[i]);
	*ret_identity = identity;
	rc = 0;
out:
	X509_free(cert);
	EVP_PKEY_free(key);
	if (rc)
		tls_identity_free(identity);
	return rc;
}

int tls_identity_new(struct tls_identity **ret_identity, struct err *err)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	return identity_of(ret_identity, key, key ? make_cert(key) : NULL, err);
}

static int identity_load(struct tls_identity **ret_identity, const char *path, struct err *err)
{
	FILE *file = fopen(path, "re");
	if (!file)
		return err_errno(err, ERR_IO, errno, "read %s", path);
	EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	X509 *cert = key ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
	fclose(file);
	ERR_clear_error();
	return identity_of(ret_identity, key, cert, err);
}

/* Whole or not at all: what is read back is what was announced. */
static int identity_save(const char *path, EVP_PKEY *key, X509 *cert, struct err *err)
{
	char fresh[PATH_MAX];
	if ((size_t)snprintf(fresh, sizeof(fresh), "%s.new", path) >= sizeof(fresh))
		return err_set(err, ERR_IO, "%s: the path is too long", path);
	(void)unlink(fresh);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (!file && fd >= 0)
		close(fd);
	bool ok = file && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1 &&
	          PEM_write_X509(file, cert) == 1;
	if (file && fclose(file) != 0)
		ok = false;
	if (ok && rename(fresh, path) == 0)
		return 0;
	err_errno(err, ERR_IO, errno, "write %s", fresh);
	(void)unlink(fresh);
	return -1;
}

int tls_identity_open(struct tls_identity **ret_identity, const char *path, bool again, struct err *err)
{
	if (again && identity_load(ret_identity, path, NULL) == 0)
		return 0;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = key ? make_cert(key) : NULL;
	struct err why = { 0 };
	if (cert && identity_save(path, key, cert, &why)) /* only a leg that is started again needs it */
		log_warning("event=identity-not-kept error=\"%s\"", why.text);
	return identity_of(ret_identity, key, cert, err);
}

void tls_identity_free(struct tls_identity *identity)
{
	if (!identity)
		return;
	SSL_CTX_free(identity->ctx);
	free(identity);
}

const char *tls_fingerprint(const struct tls_identity *identity)
{
	return identity->fingerprint;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int tls_expect(struct tls_identity *identity, const char *fingerprint, struct err *err)
{
	unsigned char digest[DIGEST_BYTES];
	if (strlen(fingerprint) != 2 * DIGEST_BYTES)
		return err_set(err, ERR_USAGE, "the peer's fingerprint is not %d hex digits", 2 * DIGEST_BYTES);
	for (unsigned i = 0; i < DIGEST_BYTES; i++) {
		int high = hex_digit(fingerprint[2 * i]), low = hex_digit(fingerprint[2 * i + 1]);
		if (high < 0 || low < 0)
			return err_set(err, ERR_USAGE, "the peer's fingerprint is not lower-case hex");
		digest[i] = (unsigned char)(high << 4 | low);
	}
	memcpy(identity->expected, digest, DIGEST_BYTES);
	identity->has_expected = true;
	return 0;
}

/* Under `lock`. */
static void count_wire(struct tls_conn *conn)
{
	uint64_t now = BIO_number_read(SSL_get_rbio(conn->ssl)) + BIO_number_written(SSL_get_wbio(conn->ssl));
	if (conn->wire && now > conn->counted)
		atomic_fetch_add_explicit(conn->wire, now - conn->counted, memory_order_relaxed);
	conn->counted = now;
}

/* What a call's result means: 0 would block (*ret_events), -1 with err. Under `lock`. */
static int judge(struct tls_conn *conn, int result, short *ret_events, struct err *err)
{
	switch (SSL_get_error(conn->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		*ret_events = POLLIN;
		return 0;
	case SSL_ERROR_WANT_WRITE:
		*ret_events = POLLOUT;
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		return err_set(err, ERR_PEER_LOST, "the peer has closed the data connection");
	case SSL_ERROR_SYSCALL:
		ERR_clear_error();
		return err_set(err, ERR_PEER_LOST, "the data connection broke");
	default:
		break;
	}
	if (SSL_get_verify_result(conn->ssl) != X509_V_OK)
		return tls_fail(err, ERR_DENIED, "the peer's certificate is not the one that was announced");
	if (ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return tls_fail(err, ERR_PEER_LOST, "the data connection broke");
	return tls_fail(err, ERR_PROTOCOL, "TLS");
}

enum step { STEP_SHAKE, STEP_READ, STEP_WRITE_SOME };

static ssize_t tls_step(struct tls_conn *conn, enum step step, void *bytes, size_t count, short *ret_events,
                        struct err *err)
{
	int n = -1;
	int size = count > INT_MAX ? INT_MAX : (int)count;
	pthread_mutex_lock(&conn->lock);
	ERR_clear_error();
	switch (step) {
	case STEP_SHAKE:
		n = SSL_do_handshake(conn->ssl);
		break;
	case STEP_READ:
		n = SSL_read(conn->ssl, bytes, size);
		break;
	case STEP_WRITE_SOME:
		n = SSL_write(conn->ssl, bytes, size);
		break;
	}
	count_wire(conn);
	ssize_t rc = n > 0 ? n : judge(conn, n, ret_events, err);
	pthread_mutex_unlock(&conn->lock);
	return rc;
}

static int shake(struct tls_conn *conn, const struct cancel *cancel, int timeout_ms, struct err *err)
{
	int64_t deadline_ms = clock_ms(&clock_real) + timeout_ms;
	for (;;) {
		short events = 0;
		ssize_t n = tls_step(conn, STEP_SHAKE, NULL, 0, &events, err);
		if (n)
			return n > 0 ? 0 : -1;
		int left_ms = net_left_ms(deadline_ms);
		if (left_ms == 0)
			return err_set(err, ERR_TIMEOUT, "no TLS handshake in %d ms", timeout_ms);
		if (cancel_poll(cancel, conn->fd, events, left_ms, err) < 0)
			return -1;
	}
}

static bool is_expected(struct tls_conn *conn, const struct tls_identity *identity)
{
	unsigned char digest[DIGEST_BYTES];
	return cert_digest(SSL_get0_peer_certificate(conn->ssl), digest) &&
	       CRYPTO_memcmp(digest, identity->expected, DIGEST_BYTES) == 0 && !SSL_session_reused(conn->ssl);
}

int tls_open(struct tls_conn **ret_conn, struct tls_identity *identity, enum tls_role role, int fd,
             const struct cancel *cancel, int timeout_ms, _Atomic uint64_t *wire, struct err *err)
{
	struct tls_conn *conn = calloc(1, sizeof(*conn));
	if (!conn) {
		close(fd);
		return err_set(err, ERR_NO_MEMORY, "TLS connection");
	}
	conn->fd = fd;
	conn->wire = wire;
	pthread_mutex_init(&conn->lock, NULL);
	conn->ssl = SSL_new(identity->ctx);
	int rc = -1;
	if (!conn->ssl || SSL_set_fd(conn->ssl, fd) != 1) {
		tls_fail(err, ERR_INTERNAL, "TLS connection");
		goto out;
	}
	if (role == TLS_CLIENT)
		SSL_set_connect_state(conn->ssl);
	else
		SSL_set_accept_state(conn->ssl);
	if (shake(conn, cancel, timeout_ms, err))
		goto out;
	if (!is_expected(conn, identity)) {
		err_set(err, ERR_DENIED, "the peer's certificate is not the one that was announced");
		goto out;
	}
	*ret_conn = conn;
	rc = 0;
out:
	if (rc)
		tls_close(conn);
	return rc;
}

void tls_close(struct tls_conn *conn)
{
	if (!conn)
		return;
	if (conn->ssl) {
		if (SSL_is_init_finished(conn->ssl) && !conn->broken)
			SSL_shutdown(conn->ssl);
		ERR_clear_error();
		SSL_free(conn->ssl);
	}
	close(conn->fd);
	pthread_mutex_destroy(&conn->lock);
	free(conn);
}

void tls_shut(struct tls_conn *conn)
{
	shutdown(conn->fd, SHUT_RDWR);
}

int tls_fd(const struct tls_conn *conn)
{
	return conn->fd;
}

ssize_t tls_try_read(struct tls_conn *conn, void *bytes, size_t room, short *ret_events, struct err *err)
{
	return tls_step(conn, STEP_READ, bytes, room, ret_events, err);
}

ssize_t tls_try_write(struct tls_conn *conn, const void *bytes, size_t count, short *ret_events, struct err *err)
{
	/* SSL_write only reads; the step is shared with SSL_read. */
	return tls_step(conn, STEP_WRITE_SOME, (void *)(uintptr_t)bytes, count, ret_events, err);
}

static int write_all(struct tls_conn *conn, const unsigned char *bytes, size_t count, const struct cancel *cancel,
                     int timeout_ms, struct err *err)
{
	while (count) {
		short events = 0;
		ssize_t n = tls_try_write(conn, bytes, count, &events, err);
		if (n < 0)
			return -1;
		if (n > 0) {
			bytes += n;
			count -= (size_t)n;
			continue;
		}
		int ready = cancel_poll(cancel, conn->fd, events, timeout_ms, err);
		if (ready < 0)
			return -1;
		if (ready == 0)
			return err_set(err, ERR_PEER_LOST, "the peer took nothing for %d ms", timeout_ms);
	}
	return 0;
}

int tls_write(struct tls_conn *conn, const void *bytes, size_t count, const struct cancel *cancel, int timeout_ms,
              struct err *err)
{
	if (conn->broken)
		return err_set(err, ERR_PEER_LOST, "the data connection is not usable any more");
	conn->broken = write_all(conn, bytes, count, cancel, timeout_ms, err) != 0;
	return conn->broken ? -1 : 0;
}

int tls_read(struct tls_conn *conn, void *bytes, size_t count, const struct cancel *cancel, int timeout_ms,
             struct err *err)
{
	unsigned char *at = bytes;
	while (count) {
		short events = 0;
		ssize_t n = tls_try_read(conn, at, count, &events, err);
		if (n < 0)
			return -1;
		if (n > 0) {
			at += n;
			count -= (size_t)n;
			continue;
		}
		int ready = cancel_poll(cancel, conn->fd, events, timeout_ms, err);
		if (ready < 0)
			return -1;
		if (ready == 0)
			return err_set(err, ERR_PEER_LOST, "nothing was heard from the peer for %d ms", timeout_ms);
	}
	return 0;
}
