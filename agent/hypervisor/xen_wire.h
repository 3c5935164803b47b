/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hypervisor_xen: what a save helper says, to libxl that started it and to the leg that had it started.
 *
 * libxl runs the program that LIBXL_SAVE_HELPER names as
 *     HELPER --save-domain IO-FD RECV-FD DOMID XC-FLAGS CALLBACK-FLAGS STREAM-TYPE
 * and serves its callbacks over standard output (messages) and standard input (answers). A message is a length of 16
 * bits, a type of 16 bits and packed arguments, all in the machine's own order; a text is a length of 32 bits, which
 * counts its NUL, and the text. These messages are the same in Xen 4.14 to 4.22; a bit in CALLBACK-FLAGS that we do not
 * know tells that they are not any more, and then the helper does nothing at all.
 *
 * The leg is asked over a socket that it made (SEQPACKET; its number is in XEN_POLICY_ENV), one packet each way.
 */
#ifndef DROVER_XEN_WIRE_H
#define DROVER_XEN_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- libxl ---- */
enum xen_wire_type {
	XEN_WIRE_LOG = 1,       /* u32 level, u32 errno, text context, text words; no answer */
	XEN_WIRE_SUSPEND = 3,   /* answer: 1 suspended, 0 not */
	XEN_WIRE_LOG_DIRTY = 7, /* u32 domid, u32 on; answer: 0 done */
	XEN_WIRE_COMPLETE = 10, /* int result, int errno; answer: any */
};
#define XEN_WIRE_CALLBACKS (1u << XEN_WIRE_SUSPEND | 1u << XEN_WIRE_LOG_DIRTY)
#define XEN_WIRE_MESSAGE_BYTES 2048u /* longer words are cut */

struct xen_wire_args {
	int io_fd, receive_fd; /* receive_fd -1: none */
	uint32_t domid, flags; /* of xc_domain_save */
	uint32_t callbacks;
};
/* False: not the call that we know; nothing may be done. *ret_why is a static string. */
bool xen_wire_parse(int argc, char *const argv[], struct xen_wire_args *ret_args, const char **ret_why);

struct xen_wire {
	int in_fd, out_fd;
	bool lost; /* libxl is gone; nothing more is said */
};
void xen_wire_log(struct xen_wire *wire, uint32_t level, int errnum, const char *context, const char *words);
/* Sends two numbers (`count` of them: 0 or 2) and waits for the answer. -1: libxl is gone. */
int xen_wire_call(struct xen_wire *wire, enum xen_wire_type type, const uint32_t *numbers, unsigned count,
                  int *ret_answer);

/* ---- leg ---- */
#define XEN_POLICY_ENV "DROVER_XEN_POLICY_FD"
#define XEN_POLICY_VERSION 1u

enum xen_policy_kind {
	XEN_POLICY_HELLO = 1, /* helper: it is up; no answer */
	XEN_POLICY_ROUND,     /* helper: a round over memory is on its way in full; what next? */
	XEN_POLICY_NEXT,      /* leg */
};
enum xen_policy_next { XEN_POLICY_GO_ON = 1, XEN_POLICY_SUSPEND, XEN_POLICY_ABORT };

struct xen_policy_packet {
	uint32_t version, kind;
	uint32_t round; /* ROUND: number of the one that is over, from 0 */
	uint32_t next;  /* NEXT: enum xen_policy_next */
	int32_t pid;    /* HELLO */
	uint32_t unused;
};
/* Whole packets; -1: the other one is gone, or it is no packet of ours. Blocks. */
int xen_policy_send(int fd, const struct xen_policy_packet *packet);
int xen_policy_receive(int fd, struct xen_policy_packet *ret_packet);

/* What libxc asks its policy, and whether the leg is to be asked. libxc asks twice a round: before it has looked at the
 * log (`dirty` -1), which is when the round before is over, and with what was in it. Only at the first may the VM be
 * suspended without another round in between. */
bool xen_policy_asks_leg(unsigned iteration, long dirty);

#endif
