/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors: a code for code, words for people.
 *
 * Laws: a function that can fail takes `struct err *` last (NULL is allowed: nobody wants the words),
 * returns -1 and fills it. Whoever adds context wraps outward, so that the text reads from the outermost
 * intention to the cause: "migrate web3: prepare on b2: no space in SR fast (need 20 GiB, free 4 GiB)".
 * The codes are on the wire, in JSON and in the database: they are only ever added, at the end.
 */
#ifndef DROVER_ERR_H
#define DROVER_ERR_H

#include <stdbool.h>

#include "common/limits.h"

enum err_code {
	ERR_NONE = 0,
	ERR_INTERNAL,     /* a bug or an impossible state */
	ERR_USAGE,        /* bad option, argument or request */
	ERR_CONFIG,       /* bad configuration or environment */
	ERR_IO,           /* the operating system said no */
	ERR_NO_SPACE,     /* storage is full or would be */
	ERR_NO_MEMORY,    /* memory is not there (host memory for a VM, or heap) */
	ERR_UNKNOWN_VM,   /* no such VM, or not on that host */
	ERR_UNKNOWN_HOST, /* no such host */
	ERR_UNKNOWN_ID,   /* no such migration */
	ERR_AMBIGUOUS,    /* a name or prefix fits several */
	ERR_HOST_DOWN,    /* the host is known and not connected */
	ERR_SAME_HOST,    /* source and destination are one host */
	ERR_BUSY,         /* the VM has a migration already, or the thing is in use */
	ERR_NO_MAP,       /* a disk or network has no counterpart on the destination */
	ERR_NAME_TAKEN,   /* name or UUID exists on the destination */
	ERR_UNSUPPORTED,  /* this VM, disk or host cannot do that */
	ERR_VERSION,      /* protocol or schema versions do not meet */
	ERR_DENIED,       /* key unknown, or its role may not do that */
	ERR_UNREACHABLE,  /* nobody answers there; the outcome is unknown */
	ERR_TIMEOUT,      /* a deadline passed; the outcome is unknown */
	ERR_CANCELLED,    /* somebody asked for it */
	ERR_TOO_LATE,     /* the verdict is already the other one, or the record is final */
	ERR_CONFLICT,     /* same key, other request; or a compare-and-set lost */
	ERR_STALE,        /* older epoch, generation or step than the journal's */
	ERR_PROTOCOL,     /* a peer sent what it must not */
	ERR_CORRUPT,      /* checksum, digest, database or file contents are wrong */
	ERR_SLOW,         /* the copy does not converge and policy says to give up */
	ERR_LEG_LOST,     /* the leg process died */
	ERR_PEER_LOST,    /* the data connection to the other leg broke */
	ERR_HYPERVISOR,   /* the hypervisor or its tools failed */
	ERR_BACKEND,      /* the VM's block backend failed */
	ERR_EXPORTER,     /* the exporter of a destination disk failed */
	ERR_HOST_LOST,    /* the host rebooted or its journal is gone */
	ERR_CODES         /* how many there are */
};

struct err {
	enum err_code code;
	char text[LIMIT_TEXT];
};

/* Name of a code as scripts see it ("no-space"); "internal" for what is out of range. Static string. */
const char *err_name(enum err_code code);

/* The code with this name, ERR_CODES if there is none. */
enum err_code err_from_name(const char *name);

/* Sets code and words; always returns -1, so that `return err_set(...)` reads well. err may be NULL. */
int err_set(struct err *err, enum err_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same, with ": " and the text of errno value `errnum` appended; ENOSPC and EDQUOT become ERR_NO_SPACE. */
int err_errno(struct err *err, enum err_code code, int errnum, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Puts "context: " before the words that are there and keeps the code; always returns -1. */
int err_wrap(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Forgets. */
void err_clear(struct err *err);

/* The analyzer sees one file at a time and would follow paths on which these return 0. */
#ifdef __clang_analyzer__
#define err_set(...) ((void)(err_set)(__VA_ARGS__), -1)
#define err_errno(...) ((void)(err_errno)(__VA_ARGS__), -1)
#define err_wrap(...) ((void)(err_wrap)(__VA_ARGS__), -1)
#endif

#endif
