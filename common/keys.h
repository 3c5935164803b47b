/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CURVE keys in files (czmq's certificate format) and who is authorised.
 *
 *  etc/keys/NAME.cert          public part: name, role, host; may be given away
 *  etc/keys/NAME.cert_secret   with the secret; 0600
 *  etc/authorized/NAME.cert    public parts that this daemon lets in, each with its role; the file name is the name
 *
 * A key of role agent carries the one host it may speak for.
 */
#ifndef DROVER_KEYS_H
#define DROVER_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/paths.h"
#include "proto/msg.h"

struct key_info {
	char name[LIMIT_NAME];
	enum role role;
	char host[LIMIT_NAME]; /* agents only, else "" */
	char public_text[48];  /* Z85 */
	char path[PATHS_MAX];
	bool has_secret; /* a key of our own */
	bool authorized;
};

/* Makes etc/keys/NAME.cert and NAME.cert_secret. Refuses to overwrite (ERR_BUSY) and bad names (ERR_USAGE; letters,
 * digits and . _ - are good). host: agents must have one, others must not (NULL or ""). */
int keys_generate(const struct paths *paths, const char *name, enum role role, const char *host, struct err *err);
/* Copies the public part in FILE to etc/authorized/; refuses a file without a valid name, role (and host for agents),
 * one that holds a secret, and a name, host or public key that another authorised file has already (ERR_CONFLICT).
 * To authorise the same key again is fine and changes nothing. */
int keys_authorize(const struct paths *paths, const char *file, struct err *err);
/* Removes etc/authorized/NAME.cert; ERR_UNKNOWN_ID if it is not there. */
int keys_revoke(const struct paths *paths, const char *name, struct err *err);
/* All own and authorised keys by name; one that is both has both flags and the path of its own file. A file that is no
 * good is left out, with a warning in the log. *ret_keys is malloc'ed, the caller's. */
int keys_list(const struct paths *paths, struct key_info **ret_keys, size_t *ret_count, struct err *err);
/* Only what is in etc/authorized/; of two files with the same public key the first counts. */
int keys_list_authorized(const struct paths *paths, struct key_info **ret_keys, size_t *ret_count, struct err *err);

enum { KEYS_Z85_BYTES = 41 }; /* a key as text, with the NUL */

/* The key pair in a ….cert_secret; refuses (ERR_CONFIG) a file that others may read. Wipe the secret after use. */
int keys_load_secret(const char *file, char ret_public[KEYS_Z85_BYTES], char ret_secret[KEYS_Z85_BYTES],
                     struct err *err);
/* What a public certificate says. name and host may be "" and role ROLE_NONE. */
int keys_load_public(const char *file, struct key_info *ret_info, struct err *err);

#endif
