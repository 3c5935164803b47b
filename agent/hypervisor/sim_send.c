/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_sim: memory out, round by round over the guest's dirty log. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/hypervisor/sim_driver.h"

#define HEAD_BYTES sizeof(struct sim_frame)
#define LOG_OFF_MS 50u /* courtesy on the way out: must not hold up a cancel */
#define WORD_PAGES 64u

struct sender {
	struct hypervisor_source *source;
	const struct hypervisor_send *send;
	int memory_fd, bitmap_fd;
	_Atomic uint64_t *bitmap;
	uint64_t *table; /* digest of each page as it was sent last */
	uint64_t pages;
	size_t words;
	unsigned char *buffer; /* room for a head, then SIM_RUN_PAGES pages */
	uint64_t sent_bytes, sent_total_bytes;
	uint32_t round;
	json_t *state;
	bool logging; /* the guest may log what it writes */
};

static int put(struct sender *sender, const void *bytes, size_t count, struct err *err)
{
	if (disk_cancelled(&sender->source->cancel))
		return err_set(err, ERR_CANCELLED, "memory of %s: cancelled", sender->source->record.name);
	if (sender->send->write(sender->send->ctx, bytes, count, err) != 0)
		return -1;
	sender->sent_bytes += count;
	return 0;
}

static int put_head(struct sender *sender, enum sim_frame_kind kind, uint32_t count, uint64_t value, struct err *err)
{
	struct sim_frame head = { .kind = kind, .count = count, .value = value };
	return put(sender, &head, sizeof(head), err);
}

/* Pages i..end-1 of the run in the buffer; the head goes over the end of the page before, which was dealt with. */
static int put_run(struct sender *sender, enum sim_frame_kind kind, uint64_t first, uint32_t i, uint32_t end,
                   struct err *err)
{
	struct sim_frame head = { .kind = kind, .count = end - i, .value = first + i };
	if (kind == SIM_FRAME_ZEROES)
		return put(sender, &head, sizeof(head), err);
	unsigned char *place = sender->buffer + (size_t)i * SIM_PAGE_BYTES;
	memcpy(place, &head, sizeof(head));
	return put(sender, place, HEAD_BYTES + (size_t)(end - i) * SIM_PAGE_BYTES, err);
}

/* Sends pages first..first+count-1, count <= SIM_RUN_PAGES, read now. Zero pages are sent as a mark, in round 0 not at
 * all. */
static int send_pages(struct sender *sender, uint64_t first, uint32_t count, struct err *err)
{
	unsigned char *pages = sender->buffer + HEAD_BYTES;
	size_t wanted = (size_t)count * SIM_PAGE_BYTES, have = 0;
	while (have < wanted) {
		ssize_t got =
			pread(sender->memory_fd, pages + have, wanted - have, (off_t)(first * SIM_PAGE_BYTES + have));
		if (got <= 0)
			return err_errno(err, ERR_IO, got < 0 ? errno : EIO, "read memory of %s",
			                 sender->source->record.name);
		have += (size_t)got;
	}
	for (uint32_t i = 0; i < count; i++)
		sender->table[first + i] = sim_page_digest(pages + (size_t)i * SIM_PAGE_BYTES);
	for (uint32_t i = 0; i < count;) {
		uint32_t end = i + 1;
		bool zero = sender->table[first + i] == 0;
		while (end < count && (sender->table[first + end] == 0) == zero)
			end++;
		if ((!zero || sender->round > 0) &&
		    put_run(sender, zero ? SIM_FRAME_ZEROES : SIM_FRAME_PAGES, first, i, end, err) != 0)
			return -1;
		i = end;
	}
	return 0;
}

/* Round 0: what is not a hole. A page that is written meanwhile is in the log. */
static int send_all(struct sender *sender, struct err *err)
{
	off_t end = (off_t)(sender->pages * SIM_PAGE_BYTES), at = 0;
	while (at < end) {
		off_t data = lseek(sender->memory_fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		off_t hole = data < 0 ? -1 : lseek(sender->memory_fd, data, SEEK_HOLE);
		if (data < 0 || hole < 0)
			return err_errno(err, ERR_IO, errno, "look for data in the memory of %s",
			                 sender->source->record.name);
		uint64_t first = (uint64_t)data / SIM_PAGE_BYTES,
			 last = ((uint64_t)hole + SIM_PAGE_BYTES - 1) / SIM_PAGE_BYTES;
		for (; first < last; first += SIM_RUN_PAGES) {
			uint32_t count = last - first < SIM_RUN_PAGES ? (uint32_t)(last - first) : SIM_RUN_PAGES;
			if (send_pages(sender, first, count, err) != 0)
				return -1;
		}
		at = hole;
	}
	return 0;
}

/* A later round: takes the log word by word and sends what it says, neighbours in one run. */
static int send_dirty(struct sender *sender, struct err *err)
{
	uint64_t first = 0;
	uint32_t count = 0;
	for (size_t word = 0; word < sender->words; word++) {
		/* Taken before the pages are read: who writes one later sets its bit again. */
		uint64_t bits = atomic_load_explicit(&sender->bitmap[word], memory_order_relaxed) == 0
		                        ? 0
		                        : atomic_exchange(&sender->bitmap[word], 0);
		while (bits != 0) {
			uint64_t page = word * WORD_PAGES + (uint64_t)__builtin_ctzll(bits);
			bits &= bits - 1;
			if (page >= sender->pages)
				continue;
			if (count > 0 && (page != first + count || count == SIM_RUN_PAGES)) {
				if (send_pages(sender, first, count, err) != 0)
					return -1;
				count = 0;
			}
			if (count++ == 0)
				first = page;
		}
	}
	return count > 0 ? send_pages(sender, first, count, err) : 0;
}

static uint64_t dirty_bytes(const struct sender *sender)
{
	uint64_t pages = 0;
	for (size_t word = 0; word < sender->words; word++)
		pages += (uint64_t)__builtin_popcountll(
			atomic_load_explicit(&sender->bitmap[word], memory_order_relaxed));
	return pages * SIM_PAGE_BYTES;
}

static int send_round(struct sender *sender, uint64_t *ret_took_ms, struct err *err)
{
	int64_t began_ms = disk_now_ms();
	sender->sent_bytes = 0;
	if ((sender->round == 0 ? send_all(sender, err) : send_dirty(sender, err)) != 0 ||
	    put_head(sender, SIM_FRAME_ROUND, sender->round, 0, err) != 0)
		return -1;
	sender->sent_total_bytes += sender->sent_bytes;
	*ret_took_ms = (uint64_t)(disk_now_ms() - began_ms);
	return 0;
}

/* Live rounds until the leg says that it is enough. */
static int rounds(struct sender *sender, struct err *err)
{
	for (sender->round = 0;; sender->round++) {
		struct hypervisor_pass pass = { .pass = sender->round, .total_bytes = sender->pages * SIM_PAGE_BYTES };
		if (send_round(sender, &pass.took_ms, err) != 0)
			return -1;
		pass.sent_bytes = sender->sent_bytes;
		pass.sent_total_bytes = sender->sent_total_bytes;
		pass.dirty_bytes = dirty_bytes(sender);
		enum hypervisor_next next = sender->send->pass(sender->send->ctx, &pass);
		if (disk_cancelled(&sender->source->cancel) || next == HYPERVISOR_ABORT)
			return err_set(err, ERR_CANCELLED, "memory of %s: told to stop", sender->source->record.name);
		if (next == HYPERVISOR_SUSPEND)
			return 0;
	}
}

static int suspend(struct sender *sender, struct err *err)
{
	struct hypervisor_source *source = sender->source;
	json_t *reply;
	if (sender->send->suspending(sender->send->ctx, err) != 0)
		return -1;
	if (sim_call(&source->hv->paths, source->record.name, json_pack("{s:s}", "op", "suspend"), SIM_SUSPEND_MS,
	             &source->cancel, &reply, err) != 0)
		return -1;
	sender->state = json_incref(json_object_get(reply, "state"));
	json_decref(reply);
	if (!json_is_object(sender->state))
		return err_set(err, ERR_PROTOCOL, "guest %s: suspended, but gave no state", source->record.name);
	return sender->send->suspended(sender->send->ctx, err);
}

static int send_end(struct sender *sender, struct err *err)
{
	char *text = json_dumps(sender->state, JSON_COMPACT);
	size_t bytes = text != NULL ? strlen(text) : 0;
	uint64_t digest = XXH3_64bits(sender->table, sender->pages * sizeof(*sender->table));
	int result = -1;
	if (text == NULL || bytes > SIM_STATE_BYTES)
		err_set(err, ERR_INTERNAL, "state of %s is too big", sender->source->record.name);
	else if (put_head(sender, SIM_FRAME_STATE, (uint32_t)bytes, XXH3_64bits(text, bytes), err) == 0 &&
	         put(sender, text, bytes, err) == 0)
		result = put_head(sender, SIM_FRAME_DIGEST, 0, digest, err);
	free(text);
	return result;
}

static int begin(struct sender *sender, struct err *err)
{
	struct hypervisor_source *source = sender->source;
	const struct paths *paths = &source->hv->paths;
	struct stat memory, bitmap;
	if (sim_call_fds(paths, source->record.name, &source->cancel, &sender->memory_fd, &sender->bitmap_fd, err) != 0)
		return -1;
	if (fstat(sender->memory_fd, &memory) != 0 || fstat(sender->bitmap_fd, &bitmap) != 0)
		return err_errno(err, ERR_IO, errno, "guest %s: its memory", source->record.name);
	sender->pages = (uint64_t)memory.st_size / SIM_PAGE_BYTES;
	sender->words = (sender->pages + WORD_PAGES - 1) / WORD_PAGES;
	if ((uint64_t)memory.st_size != source->record.memory_bytes || (uint64_t)bitmap.st_size < sender->words * 8)
		return err_set(err, ERR_HYPERVISOR, "guest %s: its memory is not as big as its record says",
		               source->record.name);
	void *map = mmap(NULL, sender->words * 8, PROT_READ | PROT_WRITE, MAP_SHARED, sender->bitmap_fd, 0);
	if (map == MAP_FAILED)
		return err_errno(err, ERR_NO_MEMORY, errno, "map the dirty log of %s", source->record.name);
	sender->bitmap = map;
	sender->table = calloc(sender->pages, sizeof(*sender->table));
	sender->buffer = malloc(HEAD_BYTES + (size_t)SIM_RUN_PAGES * SIM_PAGE_BYTES);
	if (sender->table == NULL || sender->buffer == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory to send %s", source->record.name);
	sender->logging = true;
	if (sim_call(paths, source->record.name, json_pack("{s:s,s:b}", "op", "dirty-log", "on", 1), SIM_CALL_MS,
	             &source->cancel, NULL, err) != 0)
		return -1;
	return put_head(sender, SIM_FRAME_BEGIN, SIM_STREAM_VERSION, sender->pages * SIM_PAGE_BYTES, err);
}

static void let_go(struct sender *sender)
{
	if (sender->bitmap != NULL)
		munmap((void *)(uintptr_t)sender->bitmap, sender->words * 8);
	if (sender->memory_fd >= 0)
		close(sender->memory_fd);
	if (sender->bitmap_fd >= 0)
		close(sender->bitmap_fd);
	free(sender->table);
	free(sender->buffer);
	json_decref(sender->state);
}

int sim_source_send(struct hypervisor_source *source, const struct hypervisor_send *send, struct err *err)
{
	struct sender sender = { .source = source, .send = send, .memory_fd = -1, .bitmap_fd = -1 };
	uint64_t took_ms = 0;
	int result = -1;
	if (begin(&sender, err) != 0 || rounds(&sender, err) != 0 || suspend(&sender, err) != 0)
		goto out;
	sender.round++;
	if (send_round(&sender, &took_ms, err) != 0 || send_end(&sender, err) != 0)
		goto out;
	send->sent(send->ctx, sender.sent_bytes, took_ms);
	result = 0;
out:
	if (result != 0 && sender.logging)
		sim_call(&source->hv->paths, source->record.name, json_pack("{s:s,s:b}", "op", "dirty-log", "on", 0),
		         LOG_OFF_MS, NULL, NULL, NULL);
	let_go(&sender);
	return result;
}
