/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inside the exporters. */
#ifndef DROVER_EXPORTER_INT_H
#define DROVER_EXPORTER_INT_H

#include "agent/disk/disk.h"
#include "agent/disk/wait.h"

#define EXPORTER_START_MS 15000 /* a process of ours answers, on a loaded host */
#define EXPORTER_CONNECT_MS 5000
#define EXPORTER_KILL_MS 10000  /* SIGKILL until gone: the kernel may have to finish writes */
#define EXPORTER_QUIT_MS 120000 /* SIGTERM until a qcow2 image is closed and flushed */
#define EXPORTER_POLL_MS 5
#define EXPORTER_PROCESSES 2
#define EXPORTER_ISCSI_LUN 1u     /* 0 is tgtd's own controller */
#define EXPORTER_FUSE_NAME "disk" /* in the exporter's directory */
/* What the initiator calls itself: the target's name and this. */
#define EXPORTER_INITIATOR_SUFFIX ":source"
/* tgtd and QEMU allocate a buffer for each request; with this the heap keeps them, instead of asking the kernel for
 * fresh pages each time. */
#define EXPORTER_MALLOC_TUNING                                                                        \
	"GLIBC_TUNABLES=glibc.malloc.mmap_threshold=67108864:glibc.malloc.trim_threshold=2147483648:" \
	"glibc.malloc.top_pad=67108864"

struct exporter {
	enum exporter_kind kind;
	enum disk_format format;
	uint64_t size_bytes;
	char dir[LIMIT_PATH];
	char path[LIMIT_PATH];      /* the image */
	char socket[LIMIT_PATH];    /* NBD: unix socket */
	char name[LIMIT_ID];        /* NBD export name */
	char fuse_path[LIMIT_PATH]; /* iSCSI on qcow2: the raw view of the image; "": none */
	uint16_t port;              /* iSCSI, on 127.0.0.1 */
	/* the one that clients talk to comes first: it is to be killed before what it stands on */
	unsigned process_count;
	struct proc_id processes[EXPORTER_PROCESSES];
};

/* Each starts its processes, in `exporter` as far as it came when it fails, and fills ret_access. */
int exporter_nbd_start(struct exporter *exporter, struct exporter_access *ret_access, struct err *err);
int exporter_iscsi_start(struct exporter *exporter, const char *disk_name, uint64_t migration,
                         struct exporter_access *ret_access, struct err *err);

/* dir/NAME; fails if it does not fit a unix socket. */
int exporter_file(const struct exporter *exporter, const char *name, char ret_path[LIMIT_PATH], struct err *err);
/* The last line that a process wrote to its log, for errors. Always terminated. */
void exporter_last_words(const struct exporter *exporter, const char *log_name, char *ret_text, size_t bytes);
/* SIGTERM, waits, reaps. -1 if it does not go in time. */
int exporter_quit(const struct proc_id *process, unsigned timeout_ms, struct err *err);

/* tgtd's management socket, spoken directly: tgtadm would put the CHAP secret on its command line, where every user of
 * the host can read it. The packet is tgtd's struct tgtadm_req, the same since 2012. */
enum tgt_mode { TGT_SYSTEM = 0, TGT_TARGET = 1, TGT_DEVICE = 2, TGT_ACCOUNT = 7 };
enum tgt_op { TGT_NEW = 0, TGT_DELETE = 1, TGT_SHOW = 2, TGT_BIND = 3, TGT_UPDATE = 5 };
struct tgt_request {
	enum tgt_mode mode;
	enum tgt_op op;
	int32_t target;     /* -1: none */
	uint64_t lun;       /* UINT64_MAX: none */
	const char *params; /* NULL: none */
};
int tgt_run(const char *socket_path, const struct tgt_request *request, const char *what, struct err *err);
/* Whether `pid` is who listens on 127.0.0.1:port. */
bool tgt_listens(pid_t pid, uint16_t port);

#endif
