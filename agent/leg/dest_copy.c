/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/leg/dest.h"
#include "agent/leg/voteline.h"
#include "common/log.h"

#define LINK_WAIT_MS 60000 /* for the source to connect; it gives up before */
#define HELLO_MS 5000
#define RING_BYTES (1024u * 1024)
#define SHRINK_BYTES (16u << 20) /* data that came in before the reserve is shrunk again */

/* ---- digests ---- */
static void batch_free(struct dest_batch *batch)
{
	if (!batch)
		return;
	free(batch->digests.granules);
	free(batch->digests.digests);
	free(batch->stored);
	free(batch->marks.marks);
	free(batch);
}

static struct dest_batch *batch_new(void)
{
	struct dest_batch *batch = calloc(1, sizeof(*batch));
	if (!batch)
		return NULL;
	batch->digests.granules = malloc(FRAME_DIGESTS_MAX * sizeof(*batch->digests.granules));
	batch->digests.digests = malloc(FRAME_DIGESTS_MAX * sizeof(*batch->digests.digests));
	batch->stored = malloc(FRAME_DIGESTS_MAX * sizeof(*batch->stored));
	if (batch->digests.granules && batch->digests.digests && batch->stored)
		return batch;
	batch_free(batch);
	return NULL;
}

/* Takes the batch over. Blocks while there are too many. */
static int queue_batch(struct dest *dest, struct dest_batch *batch, struct err *err)
{
	int rc = 0;
	pthread_mutex_lock(&dest->lock);
	if (dest->ended)
		rc = err_set(err, ERR_PROTOCOL, "digests after the end of stream");
	while (!rc && dest->batch_count == DEST_BATCHES_MAX && !cancel_fired(dest->leg->work))
		pthread_cond_wait(&dest->changed, &dest->lock);
	if (!rc && dest->batch_count == DEST_BATCHES_MAX)
		rc = err_set(err, ERR_CANCELLED, "cancelled");
	if (!rc) {
		dest->batches[(dest->batch_first + dest->batch_count++) % DEST_BATCHES_MAX] = batch;
		pthread_cond_broadcast(&dest->changed);
	}
	pthread_mutex_unlock(&dest->lock);
	if (rc)
		batch_free(batch);
	return rc;
}

static int on_digests(struct dest *dest, const unsigned char *payload, uint32_t bytes, struct err *err)
{
	struct dest_batch *batch = batch_new();
	if (!batch)
		return err_set(err, ERR_NO_MEMORY, "digests");
	int rc = frame_digests_get(payload, bytes, &batch->digests, err);
	if (!rc && batch->digests.disk >= dest->disk_count)
		rc = err_set(err, ERR_PROTOCOL, "digests of disk %u, which there is not", batch->digests.disk);
	if (!rc)
		return queue_batch(dest, batch, err);
	batch_free(batch);
	return -1;
}

static int on_ask_marks(struct dest *dest, const unsigned char *payload, uint32_t bytes, struct err *err)
{
	struct frame_marks question = { .marks = NULL };
	if (frame_marks_get(payload, bytes, &question, err))
		return -1;
	if (question.disk >= dest->disk_count || !dest->disks[question.disk].earlier)
		return err_set(err, ERR_PROTOCOL, "marks of disk %u, which holds no earlier copy", question.disk);
	struct dest_batch *batch = calloc(1, sizeof(*batch));
	if (!batch)
		return err_set(err, ERR_NO_MEMORY, "marks");
	batch->marks = question;
	batch->marks.marks = malloc(question.count * sizeof(*question.marks));
	if (!batch->marks.marks) {
		batch_free(batch);
		return err_set(err, ERR_NO_MEMORY, "marks");
	}
	return queue_batch(dest, batch, err);
}

/* In the verifier's thread. */
static int answer_marks(struct dest *dest, struct dest_batch *batch, struct err *err)
{
	struct frame_marks *marks = &batch->marks;
	unsigned char *payload = malloc(FRAME_PAYLOAD_MAX);
	int rc = -1;
	/* The question may have been read before the link was known here. */
	pthread_mutex_lock(&dest->lock);
	while (!dest->link_up && !cancel_fired(dest->leg->work))
		pthread_cond_wait(&dest->changed, &dest->lock);
	struct link *link = dest->link;
	pthread_mutex_unlock(&dest->lock);
	if (!payload)
		err_set(err, ERR_NO_MEMORY, "marks");
	else if (!link)
		err_set(err, ERR_CANCELLED, "cancelled");
	else if (exporter_marks(dest->disks[marks->disk].exporter, dest->seed, marks->first, marks->count, marks->marks,
	                        err))
		err_wrap(err, "read the earlier copy of disk %u", marks->disk);
	else
		rc = link_send(link, FRAME_MARKS, payload, frame_marks_put(payload, marks), dest->leg->work, err);
	free(payload);
	return rc;
}

static int verify(struct dest *dest, struct dest_batch *batch, struct err *err)
{
	const struct frame_digests *digests = &batch->digests;
	if (batch->marks.count)
		return answer_marks(dest, batch, err);
	struct frame_digest_result result = { .disk = digests->disk, .batch = digests->batch };
	unsigned char payload[32];
	/* Nobody fences before the verifier is idle. */
	if (exporter_digests(dest->disks[digests->disk].exporter, digests->granules, digests->count, batch->stored,
	                     err))
		return err_wrap(err, "read disk %u back", digests->disk);
	for (uint32_t i = 0; i < digests->count; i++)
		if (batch->stored[i] != digests->digests[i] && result.bad++ == 0)
			result.first_bad = digests->granules[i];
	leg_link_post(dest->leg, FRAME_DIGEST_RESULT, payload, frame_digest_result_put(payload, &result));
	if (result.bad)
		return err_set(err, ERR_CORRUPT, "disk %u: %u granules are not what was sent (first: %u)",
		               digests->disk, result.bad, result.first_bad);
	return 0;
}

static void *verifier_main(void *arg)
{
	struct dest *dest = arg;
	pthread_mutex_lock(&dest->lock);
	for (;;) {
		while (!dest->batch_count && !dest->verifier_stop)
			pthread_cond_wait(&dest->changed, &dest->lock);
		if (dest->verifier_stop)
			break;
		struct dest_batch *batch = dest->batches[dest->batch_first];
		dest->batch_first = (dest->batch_first + 1) % DEST_BATCHES_MAX;
		dest->batch_count--;
		dest->verifying = true;
		pthread_mutex_unlock(&dest->lock);
		struct err err = { 0 };
		if (!cancel_fired(dest->leg->work) && verify(dest, batch, &err))
			leg_post_fail(dest->leg, &err);
		batch_free(batch);
		pthread_mutex_lock(&dest->lock);
		dest->verifying = false;
		pthread_cond_broadcast(&dest->changed);
	}
	pthread_mutex_unlock(&dest->lock);
	return NULL;
}

/* ---- space that was set aside ---- */
/* Under dest->lock. */
static void shrink(struct dest_disk *disk, uint64_t left_bytes)
{
	struct err err = { 0 };
	disk->shrunk_at_bytes = disk->arrived_bytes;
	if (sr_reserve_shrink(disk->path, left_bytes, &err))
		log_warning("event=reserve-not-shrunk error=\"%s\"", err.text);
}

static void on_arrived(void *ctx, uint32_t number, uint64_t bytes)
{
	struct dest *dest = ctx;
	struct dest_disk *disk = &dest->disks[number];
	pthread_mutex_lock(&dest->lock);
	disk->arrived_bytes += bytes;
	if (disk->reserve_bytes && disk->arrived_bytes - disk->shrunk_at_bytes >= SHRINK_BYTES) {
		if (disk->arrived_bytes >= disk->reserve_bytes)
			disk->reserve_bytes = 0;
		shrink(disk, disk->reserve_bytes ? disk->reserve_bytes - disk->arrived_bytes : 0);
	}
	pthread_mutex_unlock(&dest->lock);
}

static int on_pass_end(struct dest *dest, const unsigned char *payload, uint32_t bytes, struct err *err)
{
	struct frame_pass_end pass_end;
	if (frame_pass_end_get(payload, bytes, &pass_end, err))
		return -1;
	if (pass_end.disk >= dest->disk_count)
		return err_set(err, ERR_PROTOCOL, "a pass over disk %u, which there is not", pass_end.disk);
	/* After the first pass what was set aside is on the disk itself. */
	struct dest_disk *disk = &dest->disks[pass_end.disk];
	pthread_mutex_lock(&dest->lock);
	if (disk->reserve_bytes)
		shrink(disk, 0);
	disk->reserve_bytes = 0;
	pthread_mutex_unlock(&dest->lock);
	log_debug("event=pass-end disk=%u pass=%u bytes=%" PRIu64, pass_end.disk, pass_end.pass,
	          pass_end.covered_bytes);
	return 0;
}

/* ---- stream 0 ---- */
static int on_memory(struct dest *dest, const unsigned char *payload, uint32_t bytes, struct err *err)
{
	if (ring_write(dest->ring, payload, bytes, err))
		return -1;
	pthread_mutex_lock(&dest->lock);
	dest->memory_received += bytes;
	bool ended = dest->ended;
	pthread_mutex_unlock(&dest->lock);
	return ended ? err_set(err, ERR_PROTOCOL, "memory after the end of stream") : 0;
}

static int on_end(struct dest *dest, const unsigned char *payload, uint32_t bytes, struct err *err)
{
	struct frame_end end;
	if (frame_end_get(payload, bytes, &end, err))
		return -1;
	if (end.disk_count != dest->disk_count || !end.facts.stream_ended)
		return err_set(err, ERR_PROTOCOL, "malformed end of stream");
	pthread_mutex_lock(&dest->lock);
	dest->ended = true;
	dest->memory_announced = end.memory_bytes;
	pthread_cond_broadcast(&dest->changed);
	pthread_mutex_unlock(&dest->lock);
	ring_end(dest->ring);
	leg_post_learn(dest->leg, &end.facts);
	return 0;
}

static int on_frame(void *ctx, enum frame_type type, const unsigned char *payload, uint32_t bytes, struct err *err)
{
	struct dest *dest = ctx;
	struct verdict_facts facts;
	struct err cause;
	switch (type) {
	case FRAME_MEMORY:
		return on_memory(dest, payload, bytes, err);
	case FRAME_PASS_END:
		return on_pass_end(dest, payload, bytes, err);
	case FRAME_DIGESTS:
		return on_digests(dest, payload, bytes, err);
	case FRAME_ASK_MARKS:
		return on_ask_marks(dest, payload, bytes, err);
	case FRAME_END:
		return on_end(dest, payload, bytes, err);
	case FRAME_FACTS:
		if (frame_facts_get(payload, bytes, &facts, err))
			return -1;
		leg_post_learn(dest->leg, &facts);
		return 0;
	case FRAME_ERROR:
		if (frame_error_get(payload, bytes, &cause, err))
			return -1;
		err_wrap(&cause, "source");
		leg_post_fail(dest->leg, &cause);
		return 0;
	case FRAME_HELLO:
	case FRAME_DIGEST_RESULT:
	case FRAME_PING:
	case FRAME_MARKS:
	case FRAME_TYPES:
		break;
	}
	return err_set(err, ERR_PROTOCOL, "%s frame from the source", frame_type_name(type));
}

static void on_down(void *ctx, const struct err *cause)
{
	struct dest *dest = ctx;
	pthread_mutex_lock(&dest->lock);
	bool ended = dest->ended;
	pthread_mutex_unlock(&dest->lock);
	/* With the end of stream everything is here: the votes go other ways too. */
	if (!ended)
		leg_post_fail(dest->leg, cause);
}

static int on_link(void *ctx, struct tls_conn *conn)
{
	struct dest *dest = ctx;
	struct leg *leg = dest->leg;
	const struct link_handlers handlers = { dest, on_frame, on_down };
	struct err err = { 0 };
	struct link *link = NULL;
	pthread_mutex_lock(&dest->lock);
	bool taken = dest->link_taken;
	dest->link_taken = true;
	pthread_mutex_unlock(&dest->lock);
	if (taken) /* the source's leg was started again, or its link broke: only votes are left to be told */
		return voteline_adopt(leg, conn);
	struct frame_hello *hello = calloc(1, sizeof(*hello));
	if (!hello)
		return -1;
	hello->migration = leg->options.migration;
	hello->generation = leg->options.generation;
	hello->side = SIDE_DESTINATION;
	hello->disk_count = dest->disk_count;
	for (unsigned i = 0; i < dest->disk_count; i++)
		hello->disks[i] = dest->disks[i].access;
	for (unsigned i = 0; i < dest->disk_count; i++)
		hello->earlier |= (uint32_t)dest->disks[i].earlier << i;
	hello->seed = dest->seed;
	int rc = link_hello_send(conn, hello, leg->work, HELLO_MS, &err);
	free(hello);
	if (rc) {
		leg_post_fail(leg, &err);
		return -1;
	}
	if (link_start(&link, conn, &handlers, &err)) {
		leg_post_fail(leg, &err);
		return 0; /* it has closed conn */
	}
	leg_link_set(leg, link);
	pthread_mutex_lock(&dest->lock);
	dest->link = link;
	dest->link_up = true;
	pthread_cond_broadcast(&dest->changed);
	pthread_mutex_unlock(&dest->lock);
	return 0;
}

static int on_backend(void *ctx, uint32_t number, struct err *err)
{
	struct dest *dest = ctx;
	int fd = -1;
	pthread_mutex_lock(&dest->lock);
	if (number < dest->disk_count && dest->disks[number].exporter)
		fd = exporter_connect(dest->disks[number].exporter, err);
	else
		err_set(err, ERR_EXPORTER, "there is no disk %u", number);
	pthread_mutex_unlock(&dest->lock);
	return fd;
}

/* ---- the copy ---- */
void dest_wake(void *ctx)
{
	struct dest *dest = ctx;
	pthread_mutex_lock(&dest->lock);
	pthread_cond_broadcast(&dest->changed);
	pthread_mutex_unlock(&dest->lock);
}

static int read_memory(void *ctx, void *bytes, size_t count, struct err *err)
{
	struct dest *dest = ctx;
	return ring_read(dest->ring, bytes, count, err);
}

static void break_ring(void *ctx)
{
	ring_break(ctx);
}

static int begin(struct dest *dest, struct err *err)
{
	struct leg *leg = dest->leg;
	const struct relay_setup setup = { .identity = leg->identity,
		                           .cancel = leg->work,
		                           .wire = &leg->wire_bytes,
		                           .migration = leg->options.migration,
		                           .generation = leg->options.generation,
		                           .ctx = dest,
		                           .link = on_link,
		                           .backend = on_backend,
		                           .arrived = on_arrived };
	dest->ring = ring_new(RING_BYTES, err);
	if (!dest->ring || cancel_add(leg->work, break_ring, dest->ring, err))
		return -1;
	if (pthread_create(&dest->verifier, NULL, verifier_main, dest))
		return err_set(err, ERR_NO_MEMORY, "verify: thread");
	dest->verifier_runs = true;
	return relays_new(&dest->relays, &setup, err) || relays_serve(dest->relays, dest->listen_fd, err) ? -1 : 0;
}

static int await_link(struct dest *dest, struct err *err)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += LINK_WAIT_MS / 1000;
	int rc = 0;
	pthread_mutex_lock(&dest->lock);
	while (!dest->link_up && !cancel_fired(dest->leg->work) && !rc)
		if (pthread_cond_timedwait(&dest->changed, &dest->lock, &until) == ETIMEDOUT)
			rc = err_set(err, ERR_PEER_LOST, "the source has not connected in %d s", LINK_WAIT_MS / 1000);
	if (!rc && !dest->link_up)
		rc = err_set(err, ERR_CANCELLED, "cancelled");
	pthread_mutex_unlock(&dest->lock);
	return rc;
}

/* All frames were taken, all digests compared. What differed has failed the leg, and so cancelled. */
static int await_end(struct dest *dest, struct err *err)
{
	int rc = 0;
	pthread_mutex_lock(&dest->lock);
	while (!cancel_fired(dest->leg->work) && (!dest->ended || dest->batch_count || dest->verifying))
		pthread_cond_wait(&dest->changed, &dest->lock);
	if (cancel_fired(dest->leg->work))
		rc = err_set(err, ERR_CANCELLED, "cancelled");
	else if (dest->memory_received != dest->memory_announced)
		rc = err_set(err, ERR_CORRUPT, "%" PRIu64 " bytes of memory came, %" PRIu64 " were sent",
		             dest->memory_received, dest->memory_announced);
	pthread_mutex_unlock(&dest->lock);
	return rc;
}

static void *fence_main(void *arg)
{
	struct dest_disk *disk = arg;
	exporter_revoke(disk->to_fence, &disk->fence_error);
	return NULL;
}

/* V4: closes the source's write path to all disks, at once, since the guest waits. */
static int fence(struct dest *dest, struct err *err)
{
	pthread_t threads[LIMIT_DISKS];
	bool started[LIMIT_DISKS] = { false };
	int rc = 0;
	for (unsigned i = 0; i < dest->disk_count; i++)
		atomic_store(&dest->disks[i].fencing, true);
	if (cancel_fired(dest->leg->work)) /* after that: from here on an abort kills what is waited for */
		return err_set(err, ERR_CANCELLED, "cancelled");
	for (unsigned i = 0; i < dest->disk_count; i++) {
		struct dest_disk *disk = &dest->disks[i];
		pthread_mutex_lock(&dest->lock);
		disk->to_fence = disk->exporter;
		disk->exporter = NULL;
		pthread_mutex_unlock(&dest->lock);
		/* The last one, often the only one, needs no thread. */
		started[i] = i + 1 < dest->disk_count && pthread_create(&threads[i], NULL, fence_main, disk) == 0;
		if (!started[i])
			fence_main(disk);
	}
	for (unsigned i = 0; i < dest->disk_count; i++) {
		struct dest_disk *disk = &dest->disks[i];
		if (started[i])
			pthread_join(threads[i], NULL);
		disk->to_fence = NULL;
		if (disk->fence_error.code != ERR_NONE && !rc) {
			*err = disk->fence_error;
			rc = err_wrap(err, "disk %u", i);
		}
	}
	return rc;
}

/* Hands the driver the disks as they are here. */
static int with_images(struct dest *dest,
                       int (*call)(struct hypervisor_dest *vm, const struct hypervisor_image *images, unsigned count,
                                   struct err *err),
                       struct err *err)
{
	const struct msg_plan *plan = dest->leg->plan;
	struct hypervisor_image *images = calloc(LIMIT_DISKS, sizeof(*images));
	if (!images)
		return err_set(err, ERR_NO_MEMORY, "images");
	for (unsigned i = 0; i < dest->disk_count; i++) {
		memcpy(images[i].name, plan->vm.disks[i].name, sizeof(images[i].name));
		memcpy(images[i].sr, plan->to[i].sr, sizeof(images[i].sr));
		memcpy(images[i].path, dest->disks[i].path, sizeof(images[i].path));
		images[i].format = plan->to[i].format;
		images[i].size_bytes = plan->vm.disks[i].size_bytes;
	}
	int rc = call(dest->vm, images, dest->disk_count, err);
	free(images);
	return rc;
}

static int attach(struct dest *dest, struct err *err)
{
	return with_images(dest, dest->leg->ops->dest_attach, err);
}

static int announce(struct dest *dest, struct err *err)
{
	const struct hypervisor_ops *ops = dest->leg->ops;
	return ops->dest_images ? with_images(dest, ops->dest_images, err) : 0;
}

int dest_copy(struct leg *leg, struct err *err)
{
	struct dest *dest = leg->dest;
	const struct hypervisor_receive receive = { dest, read_memory };
	if (announce(dest, err) || dest_keep_spoil(dest, err) || begin(dest, err))
		return -1;
	leg_post_begun(leg);
	if (await_link(dest, err) || leg->ops->dest_receive(dest->vm, &receive, err) || await_end(dest, err))
		return -1;
	int64_t ended_ms = leg_now_ms();
	if (fence(dest, err))
		return -1;
	int64_t fenced_ms = leg_now_ms();
	if (attach(dest, err))
		return err_wrap(err, "attach the disks");
	log_info("event=complete migration=%" PRIu64 " fence_ms=%" PRId64 " attach_ms=%" PRId64, leg->options.migration,
	         fenced_ms - ended_ms, leg_now_ms() - fenced_ms);
	leg_post_complete(leg);
	return 0;
}

void dest_copy_end(struct dest *dest)
{
	/* The acceptor first: it could bring a link. */
	relays_free(dest->relays);
	dest->relays = NULL;
	/* Then the verifier, which sends by the link. */
	if (dest->verifier_runs) {
		pthread_mutex_lock(&dest->lock);
		dest->verifier_stop = true;
		pthread_cond_broadcast(&dest->changed);
		pthread_mutex_unlock(&dest->lock);
		pthread_join(dest->verifier, NULL);
	}
	dest->verifier_runs = false;
	link_stop(leg_link_take(dest->leg));
	dest->link = NULL;
	while (dest->batch_count) {
		batch_free(dest->batches[dest->batch_first]);
		dest->batch_first = (dest->batch_first + 1) % DEST_BATCHES_MAX;
		dest->batch_count--;
	}
	ring_free(dest->ring);
	dest->ring = NULL;
}
