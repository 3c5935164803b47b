/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/hypervisor/xen_cpu.h"

#include <stddef.h>

#define NO_SUBLEAF UINT32_MAX

enum cpu_register { CPU_EAX, CPU_EBX, CPU_ECX, CPU_EDX };

/* Where a word of a featureset comes from; the order is Xen's, and part of its stable interface. */
static const struct {
	uint32_t leaf, subleaf;
	enum cpu_register from;
	unsigned word;
} sources[] = {
	{ 0x00000001, NO_SUBLEAF, CPU_EDX, 0 },  { 0x00000001, NO_SUBLEAF, CPU_ECX, 1 },
	{ 0x80000001, NO_SUBLEAF, CPU_EDX, 2 },  { 0x80000001, NO_SUBLEAF, CPU_ECX, 3 },
	{ 0x0000000d, 1, CPU_EAX, 4 },           { 0x00000007, 0, CPU_EBX, 5 },
	{ 0x00000007, 0, CPU_ECX, 6 },           { 0x80000007, NO_SUBLEAF, CPU_EDX, 7 },
	{ 0x80000008, NO_SUBLEAF, CPU_EBX, 8 },  { 0x00000007, 0, CPU_EDX, 9 },
	{ 0x00000007, 1, CPU_EAX, 10 },          { 0x80000021, NO_SUBLEAF, CPU_EAX, 11 },
	{ 0x00000007, 1, CPU_EBX, 12 },          { 0x00000007, 2, CPU_EDX, 13 },
	{ 0x00000007, 1, CPU_ECX, 14 },          { 0x00000007, 1, CPU_EDX, 15 },
	{ 0x80000021, NO_SUBLEAF, CPU_ECX, 18 },
};

/* Bits that say how the VM is set up or what its kernel has switched on, and not what the CPU can do. */
static const struct {
	unsigned word;
	uint32_t bits;
} no_features[] = {
	{ 0, 1u << 9 | 1u << 28 },             /* APIC, HTT */
	{ 1, 1u << 21 | 1u << 27 | 1u << 31 }, /* X2APIC, OSXSAVE, HYPERVISOR */
	{ 2, 0x0183f3ff },                     /* AMD repeats word 0 here; Xen keeps it once */
	{ 6, 1u << 4 },                        /* OSPKE */
};

static uint32_t value_of(const struct xen_cpu_leaf *leaf, enum cpu_register from)
{
	switch (from) {
	case CPU_EAX:
		return leaf->a;
	case CPU_EBX:
		return leaf->b;
	case CPU_ECX:
		return leaf->c;
	case CPU_EDX:
		return leaf->d;
	}
	return 0;
}

void xen_cpu_add(uint32_t words[XEN_CPU_WORDS], const struct xen_cpu_leaf *leaf)
{
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
		if (sources[i].leaf == leaf->leaf && sources[i].subleaf == leaf->subleaf)
			words[sources[i].word] = value_of(leaf, sources[i].from);
}

bool xen_cpu_fits(const uint32_t vm[XEN_CPU_WORDS], const uint32_t *host, unsigned host_count, unsigned *ret_word,
                  uint32_t *ret_bits)
{
	for (unsigned word = 0; word < XEN_CPU_WORDS; word++) {
		uint32_t missing = vm[word] & ~(word < host_count ? host[word] : 0);
		for (size_t i = 0; i < sizeof(no_features) / sizeof(no_features[0]); i++)
			if (no_features[i].word == word)
				missing &= ~no_features[i].bits;
		if (missing == 0)
			continue;
		*ret_word = word;
		*ret_bits = missing;
		return false;
	}
	return true;
}
