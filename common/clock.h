/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clocks and random numbers as objects, so that tests and the simulator bring their own.
 * Monotonic time is CLOCK_BOOTTIME: a suspended laptop's deadlines do not stand still.
 */
#ifndef DROVER_CLOCK_H
#define DROVER_CLOCK_H

#include <stddef.h>
#include <stdint.h>

struct clock {
	int64_t (*now_ns)(const struct clock *self);  /* monotonic */
	int64_t (*wall_ms)(const struct clock *self); /* Unix time, for people */
};

/* The real ones. */
extern const struct clock clock_real;

static inline int64_t clock_ms(const struct clock *clock)
{
	return clock->now_ns(clock) / 1000000;
}

/* Fills with random bytes of the operating system (getrandom). Never fails: aborts if the kernel has none. */
void random_bytes(void *buffer, size_t bytes);
/* 2*bytes lower-case hex digits and a NUL of fresh randomness into text. */
void random_hex(char *text, size_t bytes);

/* "2026-11-22T23:06:03.123Z" from Unix milliseconds; text must hold 32 bytes. */
void wall_format(int64_t wall_ms, char text[32]);

/* This boot of this host: /proc/sys/kernel/random/boot_id, or the contents of HOME/run/boot-id when that file exists
 * (simulated hosts boot on their own). Static rules: at most LIMIT_ID - 1 bytes, no newline. */
struct paths;
struct err;
int boot_id_read(const struct paths *paths, char *ret_text, size_t bytes, struct err *err);

#endif
