/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A simulated VM from its start to its end. */
#include "agent/sim/guest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "agent/hypervisor/sim_control.h"

const char *guest_state_name(enum guest_state state)
{
	switch (state) {
	case GUEST_INCOMING:
		return "incoming";
	case GUEST_LOADED:
		return "loaded";
	case GUEST_ATTACHED:
		return "attached";
	case GUEST_RUNNING:
		return "running";
	case GUEST_SUSPENDED:
		return "suspended";
	case GUEST_FAILED:
		return "failed";
	case GUEST_ENDING:
		return "ending";
	}
	return "?";
}

/* What the content function needs, out of the record. */
static void set_pattern(struct guest *guest)
{
	const struct sim_record *record = &guest->record;
	struct pattern *pattern = &guest->pattern;
	*pattern = (struct pattern) { .seed = record->seed,
		                      .pages = record->memory_bytes / PATTERN_PAGE_BYTES,
		                      .tick_ms = record->tick_ms,
		                      .dirty_bps = record->dirty_bps,
		                      .write_bps = record->write_bps,
		                      .fill_percent = record->fill_percent };
	for (unsigned i = 0; i < record->disk_count; i++)
		if (!record->disks[i].read_only)
			pattern->blocks[pattern->disks++] = record->disks[i].size_bytes / PATTERN_PAGE_BYTES;
}

static void *share(size_t bytes, const char *name, int *ret_fd, struct err *err)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) {
		err_errno(err, ERR_NO_MEMORY, errno, "make %zu bytes of %s", bytes, name);
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		err_errno(err, ERR_NO_MEMORY, errno, "map %zu bytes of %s", bytes, name);
		close(fd);
		return NULL;
	}
	*ret_fd = fd;
	return map;
}

static int open_memory(struct guest *guest, struct err *err)
{
	uint64_t words = (guest->pattern.pages + 63) / 64;
	guest->memory = share(guest->record.memory_bytes, "guest-memory", &guest->memory_fd, err);
	if (guest->memory == NULL)
		return -1;
	guest->bitmap_bytes = words * sizeof(uint64_t);
	guest->bitmap = share(guest->bitmap_bytes, "guest-dirty", &guest->bitmap_fd, err);
	return guest->bitmap != NULL ? 0 : -1;
}

int guest_open(struct guest *guest, const struct paths *paths, const char *name, struct err *err)
{
	pthread_condattr_t monotonic;
	memset(guest, 0, sizeof(*guest));
	guest->paths = *paths;
	guest->memory_fd = guest->bitmap_fd = guest->ledger_fd = guest->end_fd = guest->listen_fd = guest->record_fd =
		-1;
	if (sim_record_load(paths, name, &guest->record, err) != 0)
		return -1;
	switch (guest->record.state) {
	case SIM_RUNNING:
		break;
	case SIM_INCOMING:
		guest->state = GUEST_INCOMING;
		break;
	case SIM_DESTROYING:
		return err_set(err, ERR_CONFLICT, "VM %s is being destroyed", name);
	}
	if (guest->record.memory_bytes % PATTERN_PAGE_BYTES != 0)
		return err_set(err, ERR_UNSUPPORTED, "VM %s: its memory is not a whole number of pages", name);
	set_pattern(guest);
	guest->tick = guest->record.tick;
	pthread_mutex_init(&guest->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&guest->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	guest->end_fd = eventfd(0, EFD_CLOEXEC);
	if (guest->end_fd < 0)
		return err_errno(err, ERR_IO, errno, "eventfd");
	if (open_memory(guest, err) != 0)
		return -1;
	return guest->record.disk_count > 0 ? guest_backend_start(guest, err) : 0;
}

/* The disks may lack what was answered since the last flush (a power cut): those ticks' blocks are written again, which
 * changes nothing where they are there. */
static int redo_disks(struct guest *guest, uint64_t tick, struct err *err)
{
	if (tick == 0)
		return guest_disks_fill(guest, err) == 0 ? guest_disks_flush(guest, err) : -1;
	for (uint64_t t = tick > PATTERN_REDO_TICKS ? tick - PATTERN_REDO_TICKS : 1; t <= tick; t++)
		if (guest_disks_write(guest, t, err) != 0)
			return -1;
	return guest_disks_flush(guest, err);
}

int guest_boot(struct guest *guest, struct err *err)
{
	uint64_t last = 0;
	if (guest_ledger_last(guest, &last, err) != 0 || guest_ledger_open(guest, err) != 0)
		return -1;
	uint64_t tick = last > guest->record.tick ? last : guest->record.tick;
	if (guest_rebuild(guest, tick, err) != 0)
		return -1;
	if (guest_disks_attach(guest, err) != 0 || redo_disks(guest, tick, err) != 0)
		return -1;
	guest->tick = tick;
	guest->state = GUEST_RUNNING;
	return 0;
}

json_t *guest_save(const struct guest *guest)
{
	const struct sim_record *record = &guest->record;
	char uuid[37];
	json_t *disks = json_array();
	uuid_unparse_lower(record->uuid, uuid);
	for (unsigned i = 0; i < record->disk_count; i++)
		json_array_append_new(disks, json_pack("{s:s,s:I,s:b}", "name", record->disks[i].name, "size",
		                                       (json_int_t)record->disks[i].size_bytes, "read_only",
		                                       record->disks[i].read_only ? 1 : 0));
	return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "uuid", uuid, "guest", record->guest, "seed",
	                 (json_int_t)record->seed, "tick_ms", (json_int_t)record->tick_ms, "dirty",
	                 (json_int_t)record->dirty_bps, "disk_write", (json_int_t)record->write_bps, "fill",
	                 (json_int_t)record->fill_percent, "tick", (json_int_t)atomic_load(&guest->tick), "disks",
	                 disks);
}

static int load_disks(struct sim_record *record, json_t *disks, struct err *err)
{
	if (json_array_size(disks) != record->disk_count)
		return err_set(err, ERR_CONFLICT, "the VM has %zu disks, the plan says %u", json_array_size(disks),
		               record->disk_count);
	for (unsigned i = 0; i < record->disk_count; i++) {
		const char *name;
		json_int_t size;
		int read_only;
		if (json_unpack(json_array_get(disks, i), "{s:s,s:I,s:b}", "name", &name, "size", &size, "read_only",
		                &read_only) != 0)
			return err_set(err, ERR_PROTOCOL, "state of disk %u", i);
		if (strcmp(name, record->disks[i].name) != 0 || (uint64_t)size != record->disks[i].size_bytes)
			return err_set(err, ERR_CONFLICT, "disk %u is %s in the VM, %s in the plan, or of another size",
			               i, name, record->disks[i].name);
		record->disks[i].read_only = read_only != 0;
	}
	return 0;
}

int guest_load(struct guest *guest, const json_t *state, struct err *err)
{
	struct sim_record record = guest->record;
	const char *uuid_text, *name;
	uuid_bytes uuid;
	json_int_t seed, tick_ms, dirty, write, fill, tick;
	json_t *disks;
	if (json_unpack((json_t *)(uintptr_t)state, "{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "uuid", &uuid_text,
	                "guest", &name, "seed", &seed, "tick_ms", &tick_ms, "dirty", &dirty, "disk_write", &write,
	                "fill", &fill, "tick", &tick, "disks", &disks) != 0 ||
	    !sim_name_ok(name) || uuid_parse(uuid_text, uuid) != 0 || tick_ms < 1 ||
	    tick_ms > (json_int_t)SIM_TICK_MS_MAX || dirty < 0 || write < 0 || fill < 0 || fill > 100 || tick < 0)
		return err_set(err, ERR_PROTOCOL, "the state blob is not one of ours");
	if (memcmp(uuid, record.uuid, sizeof(uuid)) != 0)
		return err_set(err, ERR_CONFLICT, "the state is of another VM, %s", uuid_text);
	if (load_disks(&record, disks, err) != 0)
		return -1;
	snprintf(record.guest, sizeof(record.guest), "%s", name);
	record.seed = (uint64_t)seed;
	record.tick_ms = (uint32_t)tick_ms;
	record.dirty_bps = (uint64_t)dirty;
	record.write_bps = (uint64_t)write;
	record.fill_percent = (uint32_t)fill;
	record.tick = (uint64_t)tick;
	guest->record = record;
	set_pattern(guest);
	/* Memory and state must be of one moment. */
	uint64_t in_memory = 0;
	if (tick > 0 &&
	    (!pattern_page_tick(&guest->pattern, (const uint64_t *)(const void *)guest->memory, 0, &in_memory) ||
	     in_memory != (uint64_t)tick))
		return err_set(err, ERR_CORRUPT, "the memory is of tick %" PRIu64 ", the state of tick %" PRIu64,
		               in_memory, (uint64_t)tick);
	atomic_store(&guest->tick, (uint64_t)tick);
	return 0;
}

void guest_end(struct guest *guest)
{
	char path[LIMIT_PATH], file[LIMIT_NAME + 16];
	if (guest->worker_started)
		pthread_join(guest->worker, NULL);
	guest_backend_end(guest);
	if (sim_path(&guest->paths, guest->record.name, SIM_PATH_CONTROL, path, NULL) == 0)
		unlink(path);
	snprintf(file, sizeof(file), "guest-%s", guest->record.name);
	paths_remove_pid(&guest->paths, file);
}
