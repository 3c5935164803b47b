/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/leg/net.h"
#include "agent/leg/source.h"
#include "common/log.h"

#define CONNECT_MS 20000 /* D may hear of COPY later than we do */
#define CONNECT_PAUSE_MS 100
#define DISK_PASSES_MAX 8        /* before memory begins; more are made beside it */
#define DISK_SMALL_MS 1000       /* what is left of the disks goes over in this time: begin with memory */
#define DISK_GAIN_PERCENT 30     /* a pass that leaves more than this much less is worth another */
#define READY_PAUSE_MS 100       /* between passes while only the grant is missing */
#define FIXED_MS 60              /* of a switchover beside the data: suspend, verify, attach, votes */
#define TELLING_BYTES (4u << 20) /* a pass with less says nothing about the link */

/* ---- stream 0, as seen by its reader ---- */
static int on_frame(void *ctx, enum frame_type type, const unsigned char *payload, uint32_t bytes, struct err *err)
{
	struct source *source = ctx;
	struct frame_digest_result result;
	struct verdict_facts facts;
	struct err cause;
	switch (type) {
	case FRAME_DIGEST_RESULT:
		return frame_digest_result_get(payload, bytes, &result, err)
		               ? -1
		               : source_digest_result(source, &result, err);
	case FRAME_MARKS:
		return source_marks(source, payload, bytes, err);
	case FRAME_FACTS:
		if (frame_facts_get(payload, bytes, &facts, err))
			return -1;
		leg_post_learn(source->leg, &facts);
		return 0;
	case FRAME_ERROR:
		if (frame_error_get(payload, bytes, &cause, err))
			return -1;
		err_wrap(&cause, "destination");
		leg_post_fail(source->leg, &cause);
		return 0;
	case FRAME_HELLO:
	case FRAME_MEMORY:
	case FRAME_PASS_END:
	case FRAME_DIGESTS:
	case FRAME_END:
	case FRAME_PING:
	case FRAME_ASK_MARKS:
	case FRAME_TYPES:
		break;
	}
	return err_set(err, ERR_PROTOCOL, "%s frame from the destination", frame_type_name(type));
}

static void on_down(void *ctx, const struct err *cause)
{
	struct source *source = ctx;
	atomic_store(&source->leg->link_lost, true);
	leg_post_fail(source->leg, cause);
}

/* ---- connect ---- */
static int greet(struct source *source, int timeout_ms, struct tls_conn **ret_conn, struct frame_hello *ret_hello,
                 struct err *err)
{
	struct leg *leg = source->leg;
	if (relays_dial_link(source->relays, leg->endpoint, timeout_ms, ret_conn, err))
		return -1;
	if (link_hello_read(*ret_conn, ret_hello, leg->work, timeout_ms, err) == 0)
		return 0;
	tls_close(*ret_conn);
	return -1;
}

static int connect_link(struct source *source, struct frame_hello *ret_hello, struct err *err)
{
	struct leg *leg = source->leg;
	const struct link_handlers handlers = { source, on_frame, on_down };
	struct tls_conn *conn = NULL;
	int64_t deadline_ms = leg_now_ms() + CONNECT_MS;
	/* A refused or broken connection may only mean that D is not that far yet; another certificate means no. */
	while (greet(source, net_left_ms(deadline_ms), &conn, ret_hello, err)) {
		if ((err->code != ERR_PEER_LOST && err->code != ERR_PROTOCOL) || net_left_ms(deadline_ms) == 0)
			return err_wrap(err, "stream 0 to %s", leg->endpoint);
		if (cancel_poll(leg->work, -1, 0, CONNECT_PAUSE_MS, err) < 0)
			return -1;
	}
	if (ret_hello->migration != leg->options.migration || ret_hello->generation != leg->options.generation ||
	    ret_hello->side != SIDE_DESTINATION || ret_hello->stream || ret_hello->disk_count != source->disk_count) {
		tls_close(conn);
		return err_set(err, ERR_PROTOCOL, "the destination's hello is for something else");
	}
	if (link_start(&source->link, conn, &handlers, err))
		return -1;
	leg_link_set(leg, source->link);
	return 0;
}

static void cancel_sink(void *ctx)
{
	sink_cancel(ctx);
}

static void cancel_copy(void *ctx)
{
	disk_copy_cancel(ctx);
}

static void cancel_limit(void *ctx)
{
	disk_limit_cancel(ctx);
}

static int connect_disk(void *ctx, struct err *err)
{
	struct source_disk *disk = ctx;
	struct leg *leg = disk->source->leg;
	int fd = -1;
	if (relays_dial_disk(disk->source->relays, leg->endpoint, disk->index, CONNECT_MS, &fd, err))
		return err_wrap(err, "stream of disk %s", disk->hv.name);
	return fd;
}

static int open_disk(struct source_disk *disk, const struct exporter_access *access, struct err *err)
{
	struct source *source = disk->source;
	struct leg *leg = source->leg;
	if (access->size_bytes < disk->hv.size_bytes)
		return err_set(err, ERR_EXPORTER, "disk %s: %" PRIu64 " bytes at the destination, %" PRIu64 " here",
		               disk->hv.name, access->size_bytes, disk->hv.size_bytes);
	disk->granules = malloc(FRAME_DIGESTS_MAX * sizeof(*disk->granules));
	disk->digests = malloc(FRAME_DIGESTS_MAX * sizeof(*disk->digests));
	disk->payload = malloc(FRAME_PAYLOAD_MAX);
	if (!disk->granules || !disk->digests || !disk->payload)
		return err_set(err, ERR_NO_MEMORY, "disk %s", disk->hv.name);
	if (sink_open(&disk->sink, access, connect_disk, disk, err) ||
	    cancel_add(leg->work, cancel_sink, disk->sink, err) ||
	    disk_copy_new(&disk->copy, disk->live, disk->sink, disk->hv.size_bytes, source->no_limit, &disk->stats,
	                  err) ||
	    cancel_add(leg->work, cancel_copy, disk->copy, err))
		return err_wrap(err, "disk %s", disk->hv.name);
	return 0;
}

static int connect_all(struct source *source, struct err *err)
{
	struct leg *leg = source->leg;
	leg->limit = disk_limit_new(leg->plan->bandwidth_bps);
	source->no_limit = disk_limit_new(0);
	struct frame_hello *hello = malloc(sizeof(*hello));
	source->memory = malloc(FRAME_MEMORY_BYTES);
	struct relay_setup setup = { .identity = leg->identity,
		                     .cancel = leg->work,
		                     .limit = leg->limit,
		                     .wire = &leg->wire_bytes,
		                     .migration = leg->options.migration,
		                     .generation = leg->options.generation };
	int rc = -1;
	if (!leg->limit || !source->no_limit || !hello || !source->memory)
		err_set(err, ERR_NO_MEMORY, "copy");
	else if (!cancel_add(leg->work, cancel_limit, leg->limit, err) && !relays_new(&source->relays, &setup, err) &&
	         !connect_link(source, hello, err))
		rc = 0;
	for (unsigned i = 0; !rc && i < source->disk_count; i++)
		if (!(rc = open_disk(&source->disks[i], &hello->disks[i], err)) && (hello->earlier >> i & 1))
			rc = source_earlier(&source->disks[i], hello->seed, err);
	free(hello);
	return rc;
}

/* ---- phase 1: disks alone ---- */
static int copy_disks(struct source *source, struct err *err)
{
	uint64_t sent = 0, dirty = 0, before = UINT64_MAX;
	atomic_store(&source->phase, SOURCE_DISK);
	for (unsigned pass = 0; pass < DISK_PASSES_MAX; pass++) {
		int64_t began_ms = leg_now_ms();
		if (source_pass(source, pass == 0, false, &sent, err) || source_dirty(source, &dirty, err))
			return -1;
		uint64_t took_ms = (uint64_t)(leg_now_ms() - began_ms) + 1;
		uint64_t rate = sent / took_ms; /* bytes a millisecond */
		log_info("event=pass migration=%" PRIu64 " of=disks pass=%u sent_bytes=%" PRIu64 " took_ms=%" PRIu64
		         " dirty_bytes=%" PRIu64,
		         source->leg->options.migration, pass, sent, took_ms, dirty);
		if (dirty <= rate * DISK_SMALL_MS || dirty <= DISK_GRANULE_BYTES ||
		    dirty > before / 100 * (100 - DISK_GAIN_PERCENT))
			break;
		before = dirty;
	}
	return 0;
}

/* ---- phase 2: memory and disks ---- */
static int flush_memory(struct source *source, struct err *err)
{
	size_t fill = source->memory_fill;
	if (!fill)
		return 0;
	source->memory_fill = 0;
	if (disk_limit_take(source->leg->limit, fill))
		return err_set(err, ERR_CANCELLED, "cancelled");
	if (link_send(source->link, FRAME_MEMORY, source->memory, (uint32_t)fill, source->leg->work, err))
		return err_wrap(err, "memory");
	source->memory_bytes += fill;
	atomic_fetch_add(&source->memory_sent, fill);
	atomic_fetch_add(&source->memory_pass_sent, fill);
	return 0;
}

static int on_write(void *ctx, const void *bytes, size_t count, struct err *err)
{
	struct source *source = ctx;
	const unsigned char *from = bytes;
	while (count) {
		size_t room = FRAME_MEMORY_BYTES - source->memory_fill;
		size_t n = count < room ? count : room;
		memcpy(source->memory + source->memory_fill, from, n);
		source->memory_fill += n;
		from += n;
		count -= n;
		if (source->memory_fill == FRAME_MEMORY_BYTES && flush_memory(source, err))
			return -1;
	}
	return 0;
}

/* What a pass says about the link: little data in little time says nothing, and would only make it look slow. */
static void tell_rate(struct source *source, struct converge_pass *pass)
{
	uint64_t rate = pass->sent_bytes * 1000 / (pass->took_ms + 1);
	if (pass->sent_bytes >= TELLING_BYTES || !source->link_bps)
		source->link_bps = rate;
	else if (source->link_bps) {
		uint64_t likely_ms = pass->sent_bytes * 1000 / source->link_bps;
		if (likely_ms < pass->took_ms)
			pass->took_ms = likely_ms;
	}
}

/* Disks beside memory: a pass if what is left of them would cost a noticeable part of the downtime. */
static int disks_beside(struct source *source, uint64_t *ret_sent, uint64_t *ret_dirty, struct err *err)
{
	uint64_t dirty = 0;
	*ret_sent = 0;
	if (source_dirty(source, &dirty, err))
		return -1;
	if (dirty && dirty * 1000 / (source->link_bps + 1) >= source->policy.max_downtime_ms / 10)
		if (source_pass(source, false, false, ret_sent, err) || source_dirty(source, &dirty, err))
			return -1;
	*ret_dirty = dirty;
	return 0;
}

static void await_grant(struct source *source)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += READY_PAUSE_MS * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	pthread_mutex_lock(&source->lock);
	while (!atomic_load(&source->leg->granted) && !cancel_fired(source->leg->work))
		if (pthread_cond_timedwait(&source->changed, &source->lock, &until) == ETIMEDOUT)
			break;
	pthread_mutex_unlock(&source->lock);
}

static enum hypervisor_next when_fits(struct source *source)
{
	struct leg *leg = source->leg;
	if (!atomic_load(&leg->ready)) {
		atomic_store(&source->phase, SOURCE_READY);
		leg_post_ready(leg);
	}
	if (atomic_load(&leg->granted))
		return HYPERVISOR_SUSPEND;
	await_grant(source);
	return HYPERVISOR_GO_ON;
}

static enum hypervisor_next decide(struct source *source, const struct converge_pass *pass)
{
	struct err err = { 0 };
	char words[256];
	enum converge_decision decision = converge_after_pass(&source->policy, &source->converge, pass);
	atomic_store(&source->dirty_bps, source->converge.dirty_bps);
	converge_explain(&source->converge, pass->left_bytes, words, sizeof(words));
	log_info("event=pass migration=%" PRIu64 " of=memory+disks pass=%u sent_bytes=%" PRIu64 " took_ms=%" PRIu64
	         " left_bytes=%" PRIu64 " expected_ms=%u decision=%d",
	         source->leg->options.migration, source->converge.passes, pass->sent_bytes, pass->took_ms,
	         pass->left_bytes, converge_expected_ms(&source->policy, &source->converge, pass->left_bytes),
	         (int)decision);
	switch (decision) {
	case CONVERGE_FORCE:
		source->forced = true;
		return when_fits(source);
	case CONVERGE_SWITCH:
		return when_fits(source);
	case CONVERGE_THROTTLE:
		if (source->leg->ops->source_throttle(source->vm, source->converge.throttle_percent, &err))
			log_warning("event=throttle-failed error=\"%s\"", err.text);
		else
			atomic_store(&source->throttle, source->converge.throttle_percent);
		break;
	case CONVERGE_GIVE_UP:
		if (source->policy.timeout_ms && pass->elapsed_ms >= source->policy.timeout_ms)
			err_set(&source->gave_up, ERR_TIMEOUT, "the copy took longer than allowed: %s", words);
		else
			err_set(&source->gave_up, ERR_SLOW, "the copy does not converge: %s", words);
		return HYPERVISOR_ABORT;
	case CONVERGE_GO_ON:
		break;
	}
	/* What was forced, or fitted once and was granted, waits for no better moment. */
	return source->forced ? when_fits(source) : HYPERVISOR_GO_ON;
}

static enum hypervisor_next on_pass(void *ctx, const struct hypervisor_pass *memory)
{
	struct source *source = ctx;
	struct err err = { 0 };
	uint64_t disk_sent = 0, disk_left = 0;
	if (flush_memory(source, &err))
		goto failed;
	atomic_store(&source->memory_total, memory->total_bytes);
	atomic_store(&source->memory_dirty, memory->dirty_bytes);
	atomic_store(&source->memory_pass_sent, 0);
	atomic_store(&source->memory_pass, memory->pass + 1);
	int64_t disks_began_ms = leg_now_ms();
	if (disks_beside(source, &disk_sent, &disk_left, &err))
		goto failed;
	uint64_t disks_ms = (uint64_t)(leg_now_ms() - disks_began_ms);
	/* The guest wrote memory while the disks went over. */
	uint64_t more = memory->took_ms ? memory->dirty_bytes * disks_ms / (memory->took_ms + disks_ms) : 0;
	uint64_t left = memory->dirty_bytes + more + disk_left;
	struct converge_pass pass = { .sent_bytes = memory->sent_bytes + disk_sent,
		                      .dirtied_bytes = left,
		                      .left_bytes = left,
		                      .took_ms = memory->took_ms + disks_ms,
		                      .elapsed_ms = (uint64_t)(leg_now_ms() - source->copy_began_ms) };
	tell_rate(source, &pass);
	return decide(source, &pass);
failed:
	leg_post_fail(source->leg, &err);
	return HYPERVISOR_ABORT;
}

/* ---- the switchover ---- */
static int on_suspending(void *ctx, struct err *err)
{
	struct source *source = ctx;
	if (leg_flag(source->leg, &(struct verdict_facts) { .suspended = true }, err))
		return err_wrap(err, "journal the suspension");
	atomic_store(&source->leg->suspending, true);
	atomic_store(&source->phase, SOURCE_SWITCH);
	disk_limit_lift(source->leg->limit);
	source_moment(source, MOMENT_SUSPENDING);
	return 0;
}

static int on_suspended(void *ctx, struct err *err)
{
	struct source *source = ctx;
	(void)err;
	source_moment(source, MOMENT_SUSPENDED);
	source_pass_begin(source, false, true); /* beside the last of the memory */
	return 0;
}

static void on_sent(void *ctx, uint64_t bytes, uint64_t took_ms)
{
	struct source *source = ctx;
	source_moment(source, MOMENT_MEMORY);
	log_info("event=memory-sent migration=%" PRIu64 " bytes=%" PRIu64 " took_ms=%" PRIu64,
	         source->leg->options.migration, bytes, took_ms);
}

static int end_stream(struct source *source, struct err *err)
{
	struct leg *leg = source->leg;
	unsigned char payload[64];
	if (leg_flag(leg, &(struct verdict_facts) { .stream_ended = true }, err))
		return err_wrap(err, "journal the end of stream");
	/* leg->facts is the main thread's: what D needs of it is what was journaled just now. */
	struct frame_end end = { .memory_bytes = source->memory_bytes,
		                 .disk_count = source->disk_count,
		                 .facts = { .suspended = true, .stream_ended = true } };
	source_moment(source, MOMENT_ENDED);
	atomic_store(&source->phase, SOURCE_VERIFY);
	if (link_send(source->link, FRAME_END, payload, frame_end_put(payload, &end), leg->work, err))
		return err_wrap(err, "end of stream");
	return 0;
}

static int send_vm(struct source *source, struct err *err)
{
	const struct hypervisor_send send = { source, on_write, on_pass, on_suspending, on_suspended, on_sent };
	uint64_t sent = 0;
	struct err why = { 0 };
	atomic_store(&source->phase, SOURCE_MEMORY);
	int rc = source->leg->ops->source_send(source->vm, &send, &why);
	if (!rc)
		rc = flush_memory(source, &why);
	if (rc) {
		if (source->gave_up.code)
			why = source->gave_up;
		leg_post_fail(source->leg, &why); /* ends the final passes, if they run */
	}
	if (source_pass_end(source, &sent, rc ? NULL : &why))
		rc = -1;
	if (rc) {
		*err = why;
		return -1;
	}
	source_moment(source, MOMENT_DISKS);
	return end_stream(source, err);
}

int source_copy(struct leg *leg, struct err *err)
{
	struct source *source = leg->source;
	const struct msg_plan *plan = leg->plan;
	source->policy = (struct converge_policy) { .max_downtime_ms = plan->max_downtime_ms,
		                                    .on_slow = plan->on_slow,
		                                    .bandwidth_bps = plan->bandwidth_bps,
		                                    .timeout_ms = (uint64_t)plan->timeout_s * 1000,
		                                    .fixed_ms = FIXED_MS };
	source->copy_began_ms = leg_now_ms();
	atomic_store(&source->began_ms, source->copy_began_ms);
	atomic_store(&source->memory_total, plan->vm.memory_bytes);
	atomic_store(&source->memory_dirty, plan->vm.memory_bytes);
	if (connect_all(source, err))
		return -1;
	leg_post_begun(leg);
	if (copy_disks(source, err))
		return -1;
	return send_vm(source, err);
}
