/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_sim: memory in. Every length and number in the stream is the peer's and is checked. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/hypervisor/sim_driver.h"

struct receiver {
	struct hypervisor_dest *dest;
	const struct hypervisor_receive *receive;
	int memory_fd, bitmap_fd;
	uint64_t pages;
	uint64_t *table; /* digest of each page as it is in the guest's memory */
	unsigned char *buffer;
	json_t *state;
	bool begun;
};

static int get(struct receiver *receiver, void *bytes, size_t count, struct err *err)
{
	if (disk_cancelled(&receiver->dest->cancel))
		return err_set(err, ERR_CANCELLED, "memory of %s: cancelled", receiver->dest->record.name);
	return receiver->receive->read(receiver->receive->ctx, bytes, count, err);
}

static int broken(struct receiver *receiver, const char *what, struct err *err)
{
	return err_set(err, ERR_PROTOCOL, "memory stream of %s: %s", receiver->dest->record.name, what);
}

static int move(int fd, bool write, unsigned char *bytes, size_t count, off_t offset, struct err *err)
{
	while (count > 0) {
		ssize_t done = write ? pwrite(fd, bytes, count, offset) : pread(fd, bytes, count, offset);
		if (done <= 0)
			return err_errno(err, done < 0 && errno == ENOMEM ? ERR_NO_MEMORY : ERR_IO,
			                 done < 0 ? errno : EIO, "%s the guest's memory",
			                 write ? "write" : "read back");
		bytes += done;
		count -= (size_t)done;
		offset += done;
	}
	return 0;
}

/* Into the guest's memory, and the digest of what is there then. */
static int take_pages(struct receiver *receiver, const struct sim_frame *head, struct err *err)
{
	size_t bytes = (size_t)head->count * SIM_PAGE_BYTES;
	off_t offset = (off_t)(head->value * SIM_PAGE_BYTES);
	if (head->count > SIM_RUN_PAGES)
		return broken(receiver, "run too long", err);
	if (get(receiver, receiver->buffer, bytes, err) != 0 ||
	    move(receiver->memory_fd, true, receiver->buffer, bytes, offset, err) != 0)
		return -1;
	memset(receiver->buffer, 0, bytes);
	if (move(receiver->memory_fd, false, receiver->buffer, bytes, offset, err) != 0)
		return -1;
	for (uint32_t i = 0; i < head->count; i++)
		receiver->table[head->value + i] = sim_page_digest(receiver->buffer + (size_t)i * SIM_PAGE_BYTES);
	return 0;
}

static int take_zeroes(struct receiver *receiver, const struct sim_frame *head, struct err *err)
{
	if (fallocate(receiver->memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	              (off_t)(head->value * SIM_PAGE_BYTES), (off_t)head->count * SIM_PAGE_BYTES) != 0)
		return err_errno(err, ERR_IO, errno, "zero the guest's memory");
	memset(&receiver->table[head->value], 0, head->count * sizeof(*receiver->table));
	return 0;
}

static int take_state(struct receiver *receiver, const struct sim_frame *head, struct err *err)
{
	json_error_t why;
	if (head->count == 0 || head->count > SIM_STATE_BYTES || receiver->state != NULL)
		return broken(receiver, "bad state", err);
	if (get(receiver, receiver->buffer, head->count, err) != 0)
		return -1;
	if (XXH3_64bits(receiver->buffer, head->count) != head->value)
		return err_set(err, ERR_CORRUPT, "state of %s: checksum is wrong", receiver->dest->record.name);
	receiver->state = json_loadb((const char *)receiver->buffer, head->count, JSON_REJECT_DUPLICATES, &why);
	return json_is_object(receiver->state) ? 0 : broken(receiver, "state is not JSON", err);
}

/* 1: the stream is complete, 0: go on. */
static int take_frame(struct receiver *receiver, const struct sim_frame *head, struct err *err)
{
	bool pages = head->kind == SIM_FRAME_PAGES || head->kind == SIM_FRAME_ZEROES;
	if (receiver->begun == (head->kind == SIM_FRAME_BEGIN))
		return broken(receiver, "does not begin as it must", err);
	if (pages &&
	    (head->count == 0 || head->value >= receiver->pages || head->count > receiver->pages - head->value))
		return broken(receiver, "pages beyond the memory", err);
	switch ((enum sim_frame_kind)head->kind) {
	case SIM_FRAME_BEGIN:
		if (head->count != SIM_STREAM_VERSION)
			return err_set(err, ERR_VERSION, "memory stream has version %u, we speak %u", head->count,
			               SIM_STREAM_VERSION);
		if (head->value != receiver->pages * SIM_PAGE_BYTES)
			return broken(receiver, "another size of memory", err);
		receiver->begun = true;
		return 0;
	case SIM_FRAME_PAGES:
		return take_pages(receiver, head, err);
	case SIM_FRAME_ZEROES:
		return take_zeroes(receiver, head, err);
	case SIM_FRAME_ROUND:
		return 0;
	case SIM_FRAME_STATE:
		return take_state(receiver, head, err);
	case SIM_FRAME_DIGEST:
		if (receiver->state == NULL)
			return broken(receiver, "no state", err);
		if (XXH3_64bits(receiver->table, receiver->pages * sizeof(*receiver->table)) != head->value)
			return err_set(err, ERR_CORRUPT, "memory of %s: digest is not the source's",
			               receiver->dest->record.name);
		return 1;
	}
	return broken(receiver, "unknown frame", err);
}

static int begin(struct receiver *receiver, struct err *err)
{
	struct hypervisor_dest *dest = receiver->dest;
	struct stat memory;
	if (sim_call_fds(&dest->hv->paths, dest->record.name, &dest->cancel, &receiver->memory_fd, &receiver->bitmap_fd,
	                 err) != 0)
		return -1;
	if (fstat(receiver->memory_fd, &memory) != 0)
		return err_errno(err, ERR_IO, errno, "guest %s: its memory", dest->record.name);
	receiver->pages = (uint64_t)memory.st_size / SIM_PAGE_BYTES;
	receiver->table = calloc(receiver->pages, sizeof(*receiver->table));
	receiver->buffer = malloc((size_t)SIM_RUN_PAGES * SIM_PAGE_BYTES);
	if (receiver->table == NULL || receiver->buffer == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory to receive %s", dest->record.name);
	return 0;
}

int sim_dest_receive(struct hypervisor_dest *dest, const struct hypervisor_receive *receive, struct err *err)
{
	struct receiver receiver = { .dest = dest, .receive = receive, .memory_fd = -1, .bitmap_fd = -1 };
	int result = begin(&receiver, err);
	while (result == 0) {
		struct sim_frame head;
		result = get(&receiver, &head, sizeof(head), err);
		if (result == 0)
			result = take_frame(&receiver, &head, err);
	}
	if (result == 1)
		result = sim_call(&dest->hv->paths, dest->record.name,
		                  json_pack("{s:s,s:O}", "op", "incoming", "state", receiver.state), SIM_CALL_MS,
		                  &dest->cancel, NULL, err);
	if (receiver.memory_fd >= 0)
		close(receiver.memory_fd);
	if (receiver.bitmap_fd >= 0)
		close(receiver.bitmap_fd);
	free(receiver.table);
	free(receiver.buffer);
	json_decref(receiver.state);
	return result;
}
