/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The agent's process.c over simulated processes: connections with legs, and runs of the inventory. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_impl.h"
#include "tests/sim/world.h"

#define FIRST_FD 1000000

struct packet {
	struct packet *next;
	size_t bytes, taken;
	unsigned char frame[];
};

/* What an agent has as a descriptor: a connection to a leg, or what an inventory prints. */
struct channel {
	unsigned agent_pid, leg_pid; /* leg 0: an inventory */
	unsigned inventory_pid;
	struct packet *first, **last;
	bool ended;
};

static struct {
	struct channel **list; /* by number; NULL: closed */
	size_t count, room;
} channels;

static int channel_new(unsigned leg_pid)
{
	if (channels.count == channels.room) {
		channels.room = channels.room ? 2 * channels.room : 256;
		channels.list = reallocarray(channels.list, channels.room, sizeof(struct channel *));
		if (!channels.list)
			abort();
	}
	struct channel *channel = calloc(1, sizeof(*channel));
	if (!channel)
		abort();
	channel->agent_pid = world_current->pid;
	channel->leg_pid = leg_pid;
	channel->last = &channel->first;
	channels.list[channels.count] = channel;
	return FIRST_FD + (int)channels.count++;
}

static struct channel *channel_of(int fd)
{
	size_t number = (size_t)(fd - FIRST_FD);
	return fd >= FIRST_FD && number < channels.count ? channels.list[number] : NULL;
}

static void channel_free(struct channel *channel)
{
	while (channel && channel->first) {
		struct packet *packet = channel->first;
		channel->first = packet->next;
		free(packet);
	}
	free(channel);
}

void agents_free(void)
{
	for (size_t i = 0; i < channels.count; i++)
		channel_free(channels.list[i]);
	free(channels.list);
}

static void put(struct channel *channel, const void *bytes, size_t count)
{
	struct packet *packet = malloc(sizeof(*packet) + count);
	if (!packet)
		abort();
	packet->next = NULL;
	packet->bytes = count;
	packet->taken = 0;
	memcpy(packet->frame, bytes, count);
	*channel->last = packet;
	channel->last = &packet->next;
}

bool agents_packet(int fd, const void *bytes, size_t count)
{
	struct channel *channel = channel_of(fd);
	if (!channel)
		return false;
	put(channel, bytes, count);
	loop_fd_ready(channel->agent_pid, fd);
	return true;
}

void agents_leg_ended(unsigned leg_pid)
{
	for (size_t i = 0; i < channels.count; i++) {
		struct channel *channel = channels.list[i];
		if (!channel || channel->leg_pid != leg_pid)
			continue;
		channel->ended = true;
		loop_fd_ready(channel->agent_pid, FIRST_FD + (int)i);
	}
}

/* ---- legs ---- */

int process_leg_start(struct session *session, struct err *err)
{
	if (proc_is_dying())
		return err_set(err, ERR_IO, "dying");
	const struct journal_session *row = &session->row;
	struct proc *leg = legs_start(row->migration, row->generation, row->side, session->start_recover);
	session->row.leg = (struct proc_id) { (pid_t)leg->pid, leg->pid };
	return 0;
}

int process_leg_connect(struct agent *agent, uint64_t migration, struct proc_id *ret_leg)
{
	(void)agent;
	struct proc *leg = proc_is_dying() ? NULL : legs_find(world_current->machine, migration);
	if (!leg)
		return -1;
	for (size_t i = 0; i < channels.count; i++) /* a new connection replaces the old */
		if (channels.list[i] && channels.list[i]->leg_pid == leg->pid) {
			channels.list[i]->ended = true;
			loop_fd_ready(channels.list[i]->agent_pid, FIRST_FD + (int)i);
		}
	int fd = channel_new(leg->pid);
	legs_connected(leg->pid, fd);
	*ret_leg = (struct proc_id) { (pid_t)leg->pid, leg->pid };
	return fd;
}

bool process_leg_listens(const struct agent *agent, uint64_t migration)
{
	(void)agent;
	return legs_find(world_current->machine, migration) != NULL;
}

bool process_alive(const struct proc_id *leg)
{
	return proc_find((unsigned)leg->pid) != NULL;
}

/* ---- descriptors ---- */

int process_send(int fd, const void *packet, size_t bytes)
{
	struct channel *channel = channel_of(fd);
	if (!channel || channel->ended || proc_is_dying()) {
		errno = EPIPE;
		return -1;
	}
	legs_packet(channel->leg_pid, packet, bytes);
	return 0;
}

ssize_t process_read(int fd, void *buffer, size_t room)
{
	struct channel *channel = channel_of(fd);
	struct packet *packet = channel ? channel->first : NULL;
	if (!packet) {
		errno = EAGAIN;
		return !channel || channel->ended ? 0 : -1;
	}
	size_t bytes = packet->bytes - packet->taken;
	bytes = bytes < room ? bytes : room;
	memcpy(buffer, packet->frame + packet->taken, bytes);
	packet->taken += bytes;
	if (channel->leg_pid || packet->taken == packet->bytes) { /* a packet is read whole, or its rest is lost */
		channel->first = packet->next;
		if (!channel->first)
			channel->last = &channel->first;
		free(packet);
	}
	return (ssize_t)bytes;
}

void process_hang_up(int fd)
{
	struct channel *channel = channel_of(fd);
	if (!channel)
		return;
	channel->ended = true;
	legs_hung_up(channel->leg_pid, fd);
	loop_fd_ready(channel->agent_pid, fd);
}

void process_close(int fd)
{
	struct channel *channel = channel_of(fd);
	if (!channel)
		return;
	if (channel->leg_pid)
		legs_hung_up(channel->leg_pid, fd);
	channels.list[fd - FIRST_FD] = NULL;
	channel_free(channel);
}

/* ---- inventory ---- */

static void inventory_ends(void *ctx, uint64_t fd)
{
	struct channel *channel = channel_of((int)fd);
	struct machine *machine = world_current->machine;
	struct msg_inventory inventory = { 0 };
	void *blob = NULL;
	size_t bytes = 0;
	struct err err;
	(void)ctx;
	if (!channel || channel->ended)
		return;
	bool failed = fault_happens(FAULT_INVENTORY) || hypervisor_inventory(machine, &inventory) < 0;
	if (!failed && msg_inventory_encode(&inventory, &blob, &bytes, &err) == 0)
		put(channel, blob, bytes);
	free(blob);
	free(inventory.vms);
	channel->ended = true;
	loop_fd_ready(channel->agent_pid, (int)fd);
	loop_child_ended(channel->agent_pid, (pid_t)channel->inventory_pid, failed ? 1 << 8 : 0);
}

int process_query_start(struct agent *agent, const char *mode, const char *const options[], int *ret_fd, pid_t *ret_pid,
                        struct err *err)
{
	(void)agent;
	(void)options;
	if (strcmp(mode, "inventory") != 0)
		return err_set(err, ERR_UNSUPPORTED, "simulated hosts are asked for inventories only");
	if (proc_is_dying())
		return err_set(err, ERR_IO, "dying");
	struct proc *proc = proc_new(PROC_EXPORTER, world_current->machine, NULL); /* a number, no more */
	proc->alive = false;
	*ret_fd = channel_new(0);
	channel_of(*ret_fd)->inventory_pid = proc->pid;
	*ret_pid = (pid_t)proc->pid;
	event_add(chance_us(2 * MS, 30 * MS), world_current->pid, inventory_ends, NULL, (uint64_t)*ret_fd, false);
	return 0;
}

void process_kill(pid_t pid)
{
	for (size_t i = channels.count; i-- > 0;) {
		struct channel *channel = channels.list[i];
		if (!channel || channel->inventory_pid != (unsigned)pid || channel->ended)
			continue;
		channel->ended = true;
		loop_child_ended(channel->agent_pid, pid, 9);
		return;
	}
}
