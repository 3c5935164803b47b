/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hypervisor_xen: may a VM that was told of these CPU features run on a host that can offer those? Xen 4.17 to 4.20
 * check next to nothing of it, and a VM that uses an instruction which is not there dies. Pure: words of Xen's
 * featuresets in, a verdict out.
 */
#ifndef DROVER_XEN_CPU_H
#define DROVER_XEN_CPU_H

#include <stdbool.h>
#include <stdint.h>

#define XEN_CPU_WORDS 32u /* more than any Xen has */

/* One row of CPUID as the VM sees it. */
struct xen_cpu_leaf {
	uint32_t leaf, subleaf; /* subleaf UINT32_MAX: it has none */
	uint32_t a, b, c, d;
};
/* Puts the features of a leaf into Xen's words; other leaves change nothing. */
void xen_cpu_add(uint32_t words[XEN_CPU_WORDS], const struct xen_cpu_leaf *leaf);

/* Whether all that the VM was told of is in what the host can offer. False: *ret_word and *ret_bits say what is not. A
 * host's words beyond `host_count` are 0. */
bool xen_cpu_fits(const uint32_t vm[XEN_CPU_WORDS], const uint32_t *host, unsigned host_count, unsigned *ret_word,
                  uint32_t *ret_bits);

#endif
