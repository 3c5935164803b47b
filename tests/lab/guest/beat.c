/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The work of a lab guest, its only process. A line a beat on the console:
 *
 *   beat NAME 17 boot=1b9d6bcd gap=1003 max=1204 memory=0 disk=0 failed=0 wrote=8192
 *
 * The beat's number, the kernel's boot id, milliseconds since the last beat and the longest ones so far by the guest's
 * own clock that counts suspension, pages and disk blocks that were not what was written, requests that failed, KiB
 * written. The record of a beat is on every disk before its line is said. At the start a line a disk:
 *
 *   disk NAME xvda blocks=… found=16 torn=0        newest record of an earlier boot, blocks of one, and how many are
 * not whole
 *
 * On the kernel's command line: beat.name= beat.period=MS beat.memory=MIB beat.dirty=KIB/S beat.write=KIB/S
 * beat.span=MIB
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

#define STEP_MS 50u    /* memory is written that often, for an even rate */
#define CHECK_PAGES 4u /* looked at in each step */

struct settings {
	char name[64];
	uint64_t period_ms, memory_mib, dirty_kib, write_kib, span_mib;
};

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int read_file(const char *path, char *ret_text, size_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, ret_text, bytes - 1);
	if (fd >= 0)
		close(fd);
	ret_text[got > 0 ? got : 0] = '\0';
	return got > 0 ? 0 : -1;
}

static void read_settings(struct settings *ret_settings)
{
	struct {
		const char *key;
		uint64_t *value;
	} numbers[] = {
		{ "beat.period=", &ret_settings->period_ms }, { "beat.memory=", &ret_settings->memory_mib },
		{ "beat.dirty=", &ret_settings->dirty_kib },  { "beat.write=", &ret_settings->write_kib },
		{ "beat.span=", &ret_settings->span_mib },
	};
	char line[2048], *rest = NULL;
	*ret_settings = (struct settings) { .name = "guest", .period_ms = 1000, .memory_mib = 16, .write_kib = 64 };
	if (read_file("/proc/cmdline", line, sizeof(line)) != 0)
		return;
	for (char *word = strtok_r(line, " \n", &rest); word != NULL; word = strtok_r(NULL, " \n", &rest)) {
		if (strncmp(word, "beat.name=", 10) == 0)
			snprintf(ret_settings->name, sizeof(ret_settings->name), "%s", word + 10);
		for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
			if (strncmp(word, numbers[i].key, strlen(numbers[i].key)) == 0)
				*numbers[i].value = strtoull(word + strlen(numbers[i].key), NULL, 10);
	}
	if (ret_settings->period_ms < STEP_MS)
		ret_settings->period_ms = STEP_MS;
}

/* All disks there are, xvda first; how many. */
static unsigned open_disks(struct disk disks[WORK_DISKS], const struct settings *settings, uint64_t boot)
{
	unsigned count = 0;
	for (char letter = 'a'; letter < 'a' + WORK_DISKS; letter++) {
		struct disk *disk = &disks[count];
		char name[] = { 'x', 'v', 'd', letter, '\0' };
		if (disk_open(disk, name, boot ^ (uint64_t)letter, settings->span_mib << 20,
		              settings->write_kib << 10) != 0) {
			if (errno != ENOENT)
				printf("trouble %s: %s: %s\n", settings->name, name, strerror(errno));
			continue;
		}
		printf("disk %s %s blocks=%" PRIu64 " found=%" PRIu64 " torn=%" PRIu64 "\n", settings->name, name,
		       disk->found_blocks, disk->found_record, disk->found_torn);
		if (disk_start(disk) != 0)
			printf("trouble %s: %s: %s\n", settings->name, name, strerror(errno));
		count++;
	}
	return count;
}

/* Until the next beat is due, in steps. */
static void work_until(uint64_t due_ms, struct memory *memory, const struct settings *settings)
{
	static uint64_t budget; /* pages times 1000 */
	uint64_t last_ms = now_ms();
	for (uint64_t now = last_ms; now < due_ms; now = now_ms()) {
		uint64_t left_ms = due_ms - now, step_ms = left_ms < STEP_MS ? left_ms : STEP_MS;
		const struct timespec step = { .tv_nsec = (long)step_ms * 1000000l };
		clock_nanosleep(CLOCK_MONOTONIC, 0, &step, NULL);
		now = now_ms();
		/* A suspension is no time to be made up for. */
		uint64_t spent_ms = now - last_ms < 10 * STEP_MS ? now - last_ms : STEP_MS;
		budget += spent_ms * settings->dirty_kib * 1024 / WORK_PAGE;
		memory_dirty(memory, budget / 1000);
		budget %= 1000;
		memory_check(memory, CHECK_PAGES);
		last_ms = now;
	}
}

static void say(const struct settings *settings, const char *boot, uint64_t beat, uint64_t gap_ms, uint64_t max_ms,
                const struct memory *memory, struct disk *disks, unsigned count)
{
	unsigned long long wrong = 0, failed = 0, wrote = 0;
	for (unsigned i = 0; i < count; i++) {
		wrong += atomic_load(&disks[i].wrong);
		failed += atomic_load(&disks[i].failed);
		wrote += atomic_load(&disks[i].wrote_bytes);
	}
	printf("beat %s %" PRIu64 " boot=%.8s gap=%" PRIu64 " max=%" PRIu64 " memory=%" PRIu64
	       " disk=%llu failed=%llu wrote=%llu\n",
	       settings->name, beat, boot, gap_ms, max_ms, memory->wrong, wrong, failed, wrote >> 10);
}

int main(void)
{
	static struct disk disks[WORK_DISKS];
	struct settings settings;
	struct memory memory;
	char boot[64];
	setvbuf(stdout, NULL, _IOLBF, 0);
	read_settings(&settings);
	if (read_file("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)) != 0)
		return 1;
	uint64_t seed = strtoull(boot, NULL, 16) << 32 | strtoull(boot + 24, NULL, 16);
	printf("start %s boot=%.8s period=%" PRIu64 " memory=%" PRIu64 " dirty=%" PRIu64 " write=%" PRIu64 "\n",
	       settings.name, boot, settings.period_ms, settings.memory_mib, settings.dirty_kib, settings.write_kib);
	if (memory_open(&memory, seed, settings.memory_mib << 20) != 0) {
		printf("trouble %s: no memory\n", settings.name);
		return 1;
	}
	unsigned count = open_disks(disks, &settings, seed);
	uint64_t last_ms = now_ms(), max_ms = 0;
	for (uint64_t beat = 1;; beat++) {
		work_until(last_ms + settings.period_ms, &memory, &settings);
		for (unsigned i = 0; i < count; i++)
			disk_record(&disks[i], beat);
		uint64_t now = now_ms(), gap_ms = now - last_ms;
		max_ms = gap_ms > max_ms ? gap_ms : max_ms;
		last_ms = now;
		say(&settings, boot, beat, gap_ms, max_ms, &memory, disks, count);
	}
}
