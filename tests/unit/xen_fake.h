/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Xen hosts that are not there: the calls of libxl, libxc and xenstore that hypervisor_xen makes, over domains that are
 * rows of a table. Linked into a test, they come before the real ones. libxl_domain_suspend() starts the real save
 * helper (linked with xen_fake_libxc.c) and serves it as libxl does; libxl_domain_create_restore() has the fault of the
 * real one that matters: an end of file where a record may begin is the end of the stream, and the VM complete.
 */
#ifndef DROVER_TEST_XEN_FAKE_H
#define DROVER_TEST_XEN_FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/hypervisor/hypervisor.h"

#define FAKE_DOMAINS 4
#define FAKE_PAGES 32784u
#define FAKE_RUNNING (-1) /* of shut */

struct fake_domain {
	bool there, dying;
	uint32_t domid;
	uuid_bytes uuid;
	char name[LIMIT_NAME * 2];
	int shut; /* why it is shut down: SHUTDOWN_...; FAKE_RUNNING */
	unsigned pauses;
	uint64_t cpu_ns;
	bool ran;       /* whatever its counters say */
	bool log;       /* what it writes is logged */
	char asked[16]; /* control/shutdown */
	int cap;
	char disk[LIMIT_PATH];
};

struct fake_host {
	pthread_mutex_t lock;
	struct fake_domain domains[FAKE_DOMAINS];
	uint32_t next_domid;
	uint64_t free_pages;
	uint32_t features;   /* what the CPU can do: word 5 */
	bool can_suspend;    /* guests have said so */
	unsigned suspend_ms; /* that a guest takes */
	bool deaf;           /* guests that are asked to suspend do not */
	unsigned script_ms;  /* that a restore takes after the stream */
	bool finished;       /* a restore came to its end */
	bool unpause_fails;
	unsigned resumes;
};

/* A new one, without domains. */
void fake_host_init(struct fake_host *host);
/* The one that the next driver->open() connects to. */
void fake_host_opens(struct fake_host *host);
/* A running domain; `disk` "": none. */
struct fake_domain *fake_domain_add(struct fake_host *host, const char *name, unsigned char id, const char *disk);
/* NULL: there is none (with this UUID's first byte). */
struct fake_domain *fake_domain_of(struct fake_host *host, unsigned char id);
/* Whether it can run now; remembers that it did. */
bool fake_domain_runs(struct fake_host *host, struct fake_domain *domain);

#endif
