/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Figures: progress twice a second, and what the downtime was made of. Main thread. */
#include <stdio.h>
#include <string.h>

#include "agent/leg/source.h"

void source_moment(struct source *source, enum source_moment moment)
{
	if (!atomic_load(&source->moments[moment]))
		atomic_store(&source->moments[moment], leg_now_ms());
}

static const char *phase_name(int phase)
{
	static const char *const names[] = { "connect", "disk", "memory", "ready", "switch", "verify" };
	return names[phase];
}

/* Moving average over what the network took since the last tick. */
static void measure_rate(struct source *source, uint64_t wire_bytes)
{
	int64_t now_ms = leg_now_ms();
	if (source->wire_at_ms && now_ms > source->wire_at_ms) {
		uint64_t rate = (wire_bytes - source->wire_before) * 1000 / (uint64_t)(now_ms - source->wire_at_ms);
		source->rate_bps = source->rate_bps ? (3 * source->rate_bps + rate) / 4 : rate;
	}
	source->wire_before = wire_bytes;
	source->wire_at_ms = now_ms;
}

static void disk_figures(const struct source_disk *disk, bool ended, struct msg_progress *progress)
{
	struct msg_disk_progress *to = &progress->disks[progress->disk_count++];
	uint64_t running = atomic_load(&disk->stats.left_bytes), dirty = atomic_load(&disk->dirty_bytes);
	memcpy(to->name, disk->hv.name, sizeof(to->name));
	to->size_bytes = disk->hv.size_bytes;
	to->copied_bytes = atomic_load(&disk->stats.copied_bytes);
	to->zero_bytes = atomic_load(&disk->stats.zero_bytes);
	to->reused_bytes = atomic_load(&disk->stats.reused_bytes);
	to->pass = atomic_load(&disk->stats.pass);
	to->left_bytes = ended ? 0 : running ? running : dirty;
	progress->bytes_done += to->copied_bytes + to->zero_bytes + to->reused_bytes;
	progress->bytes_left += to->left_bytes;
	if (to->pass > progress->pass)
		progress->pass = to->pass;
}

void source_send_progress(struct leg *leg)
{
	struct source *source = leg->source;
	struct msg msg = { .kind = MSG_PROGRESS };
	struct msg_progress *progress = &msg.u.progress;
	uint64_t dirty = atomic_load(&source->memory_dirty), sent = atomic_load(&source->memory_pass_sent);
	bool ended = leg->facts.stream_ended; /* all of it is over there */
	snprintf(progress->phase, sizeof(progress->phase), "%s", phase_name(atomic_load(&source->phase)));
	for (unsigned i = 0; i < source->disk_count; i++)
		disk_figures(&source->disks[i], ended, progress);
	progress->memory_total_bytes = atomic_load(&source->memory_total);
	progress->memory_sent_bytes = atomic_load(&source->memory_sent);
	progress->memory_dirty_bytes = !ended && dirty > sent ? dirty - sent : 0;
	progress->memory_pass = atomic_load(&source->memory_pass);
	progress->bytes_done += progress->memory_sent_bytes;
	progress->bytes_left += progress->memory_dirty_bytes;
	progress->bytes_total = progress->bytes_done + progress->bytes_left;
	progress->wire_bytes = atomic_load(&leg->wire_bytes);
	progress->dirty_bps = atomic_load(&source->dirty_bps);
	progress->throttle_percent = atomic_load(&source->throttle);
	measure_rate(source, progress->wire_bytes);
	progress->rate_bps = source->rate_bps;
	progress->eta_ms = source->rate_bps ? progress->bytes_left / (source->rate_bps / 1000 + 1) : 0;
	leg_send(leg, &msg, false);
}

static uint32_t between(struct source *source, enum source_moment from, enum source_moment to)
{
	int64_t a = atomic_load(&source->moments[from]), b = atomic_load(&source->moments[to]);
	return a && b > a ? (uint32_t)(b - a) : 0;
}

void source_budget(struct leg *leg)
{
	struct source *source = leg->source;
	leg->budget = (struct msg_budget) { .total_ms = between(source, MOMENT_SUSPENDING, MOMENT_OVER),
		                            .suspend_ms = between(source, MOMENT_SUSPENDING, MOMENT_SUSPENDED),
		                            .final_memory_ms = between(source, MOMENT_SUSPENDED, MOMENT_MEMORY),
		                            .final_disk_ms = between(source, MOMENT_SUSPENDED, MOMENT_DISKS),
		                            .verify_ms = between(source, MOMENT_ENDED, MOMENT_VERIFIED),
		                            .votes_ms = between(source, MOMENT_VERIFIED, MOMENT_VOTED),
		                            .activate_ms = between(source, MOMENT_VOTED, MOMENT_OVER) };
}
