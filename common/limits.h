/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every bound that drover puts on what it is given, in one place, each with its reason. */
#ifndef DROVER_LIMITS_H
#define DROVER_LIMITS_H

#define LIMIT_FRAME_BYTES (256 * 1024)       /* one control frame on the wire; refused before it is allocated */
#define LIMIT_DECODE_BYTES (4 * 1024 * 1024) /* heap one frame may cost while it is decoded */
#define LIMIT_NAME 64                        /* VM, host, pool, key, SR and bridge names, with the NUL */
#define LIMIT_ID 128                         /* fingerprints, endpoints, boot ids, idempotency keys, with the NUL */
#define LIMIT_PATH 256                       /* paths on the wire, with the NUL */
#define LIMIT_TEXT 512                       /* a message for people, with the NUL */
#define LIMIT_REASON 200                     /* why an operator did something, with the NUL */
#define LIMIT_DISKS 16                       /* disks of one VM (xvda..xvdp) */
#define LIMIT_NICS 8                         /* network interfaces of one VM */
#define LIMIT_SRS 32                         /* storage repositories of one host */
#define LIMIT_NETWORKS 64                    /* bridges of one host */
#define LIMIT_MAPS 32                        /* entries of one storage or network map */
#define LIMIT_VMS 256                        /* VMs of one host */
#define LIMIT_CHECKS 32                      /* pre-checks in one answer */
#define LIMIT_SESSIONS 64                    /* migrations one agent takes part in at a time */
#define LIMIT_HOLDINGS 256                   /* leftovers in one answer of a host; more are said to be there */
#define LIMIT_HOSTS 16384                    /* hosts one coordinator knows */
#define LIMIT_JSON_BYTES (192 * 1024)        /* JSON document in one API answer; lists are paged */

#endif
