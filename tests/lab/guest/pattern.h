/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a lab guest writes: content that is a function of a few numbers, so that it can be told from memory what is
 * right. */
#ifndef LAB_PATTERN_H
#define LAB_PATTERN_H

#include <stddef.h>
#include <stdint.h>

/* splitmix64: any two inputs give unrelated outputs, and it costs little under emulation. */
static inline uint64_t pattern_mix(uint64_t value)
{
	value += 0x9e3779b97f4a7c15u;
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
	return value ^ (value >> 31);
}

static inline uint64_t pattern_seed(uint64_t boot, uint64_t where, uint64_t generation)
{
	return pattern_mix(pattern_mix(boot ^ where) + generation);
}

static inline void pattern_fill(uint64_t *words, size_t count, uint64_t seed)
{
	for (size_t i = 0; i < count; i++)
		words[i] = pattern_mix(seed + i);
}

/* 1 if it is what pattern_fill() has written, else 0. */
static inline int pattern_is(const uint64_t *words, size_t count, uint64_t seed)
{
	for (size_t i = 0; i < count; i++)
		if (words[i] != pattern_mix(seed + i))
			return 0;
	return 1;
}

#endif
