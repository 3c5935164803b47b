/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Talking to a simulated guest, and having one: its control socket, its processes, its files under run/.
 *
 * The socket run/guest-NAME.sock takes one JSON object a line and answers each with one: {"ok":true,...} or
 * {"ok":false,"code":"...","error":"..."}. Requests ("op"):
 *
 *  status          "state", "tick", "throttle", "log" and, once there is one, the record's "guest"
 *  fds             memory and dirty bitmap, two descriptors with SCM_RIGHTS; "memory" bytes
 *  dirty-log       "on": a bit for each page is set after the page was written; set on: bits cleared
 *  throttle        "percent" of its speed that the guest loses
 *  flush           answered when everything that was answered before is flushed; also while it is suspended
 *  suspend         answered when the tick is over and its disk writes are answered and flushed; "state": the state blob
 *  resume          goes on; done if it runs
 *  incoming        "state": the state blob of a guest whose memory was just filled in
 *  attach          "disks": opened in the backend, connected
 *  unpause         from here on it has run here, durably
 *  shutdown        flushes, closes, ends; the record stays
 *  destroy         ends; the record is the caller's to remove
 *  discard         the same for one that never ran here; refused (too-late) once it was unpaused
 */
#ifndef DROVER_SIM_CONTROL_H
#define DROVER_SIM_CONTROL_H

#include <jansson.h>
#include <stdbool.h>

#include "agent/disk/wait.h"
#include "common/err.h"
#include "common/paths.h"
#include "common/proc.h"
#include "proto/msg.h"

#define SIM_CALL_MS 5000u       /* an answer that needs no I/O */
#define SIM_SUSPEND_MS 30000u   /* a slow flush is in it */
#define SIM_START_MS 30000u     /* a guest with a big fill */
#define SIM_END_MS 10000u       /* after which it is killed */
#define SIM_LINE_BYTES 65536u   /* one request or answer */
#define SIM_NODE_PREFIX "disk-" /* of the node that a guest writes through: disk-xvda */

/* Paths of a guest's things. */
enum sim_path { SIM_PATH_CONTROL, SIM_PATH_QMP, SIM_PATH_QMP_LEG, SIM_PATH_NBD, SIM_PATH_LOG, SIM_PATHS };
/* Fails (ERR_UNSUPPORTED) if it is too long for a socket. */
int sim_path(const struct paths *paths, const char *name, enum sim_path which, char ret_path[LIMIT_PATH],
             struct err *err);

/* Sends `request` (taken over) and waits for the answer. *ret_reply (NULL: not wanted) is a new reference.
 * ERR_HYPERVISOR: nobody listens (the guest is not running). ERR_TIMEOUT: no answer, the outcome is unknown.
 * ERR_CANCELLED. A refusal has the guest's own code and words. */
int sim_call(const struct paths *paths, const char *name, json_t *request, unsigned timeout_ms,
             const struct disk_cancel *cancel, json_t **ret_reply, struct err *err);
/* Request `fds`. The caller closes both. */
int sim_call_fds(const struct paths *paths, const char *name, const struct disk_cancel *cancel, int *ret_memory_fd,
                 int *ret_bitmap_fd, struct err *err);

/* Whether the process in run/guest-NAME.pid (run/backend-NAME.pid) lives and is that one. */
bool sim_guest_alive(const struct paths *paths, const char *name, struct proc_id *ret_id);
bool sim_backend_alive(const struct paths *paths, const char *name, struct proc_id *ret_id);

/* Starts drover-guest (beside the running program) for the record NAME and returns when it answers. What a dead one
 * left under run/ is taken away first. The caller holds sim_record_lock(). */
int sim_guest_start(const struct paths *paths, const char *name, struct err *err);
/* Ends guest and backend and takes their files under run/ away. Asks first with `op` ("shutdown", "destroy" or
 * "discard"), kills what has not ended in SIM_END_MS. Done if they are gone. ERR_TOO_LATE: refused, nothing was done.
 */
int sim_guest_end(const struct paths *paths, const char *name, const char *op, struct err *err);

#endif
