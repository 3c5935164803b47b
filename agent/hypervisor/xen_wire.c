/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/hypervisor/xen_wire.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- libxl ---- */
static bool number(const char *text, long min, long max, long *ret_value)
{
	char *end;
	errno = 0;
	long value = strtol(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0 || value < min || value > max)
		return false;
	*ret_value = value;
	return true;
}

bool xen_wire_parse(int argc, char *const argv[], struct xen_wire_args *ret_args, const char **ret_why)
{
	long io, receive, domid, flags, callbacks, type;
	*ret_why = "it is started by libxl, which LIBXL_SAVE_HELPER tells of it";
	if (argc != 8 || strcmp(argv[1], "--save-domain") != 0)
		return false;
	if (!number(argv[2], 3, INT_MAX, &io) || !number(argv[3], -1, INT_MAX, &receive) ||
	    !number(argv[4], 1, INT_MAX, &domid) || !number(argv[5], 0, INT_MAX, &flags) ||
	    !number(argv[6], 0, INT_MAX, &callbacks) || !number(argv[7], 0, INT_MAX, &type))
		return false;
	if (((unsigned long)callbacks & ~(unsigned long)XEN_WIRE_CALLBACKS) != 0 ||
	    ((unsigned long)callbacks & (1ul << XEN_WIRE_SUSPEND)) == 0) {
		*ret_why = "libxl offers other callbacks than those that this helper knows";
		return false;
	}
	if (type != 0) {
		*ret_why = "only plain streams are known";
		return false;
	}
	*ret_args = (struct xen_wire_args) { .io_fd = (int)io,
		                             .receive_fd = (int)receive,
		                             .domid = (uint32_t)domid,
		                             .flags = (uint32_t)flags,
		                             .callbacks = (uint32_t)callbacks };
	return true;
}

struct message {
	unsigned char bytes[XEN_WIRE_MESSAGE_BYTES];
	size_t count;
};

static void append(struct message *message, const void *bytes, size_t count)
{
	memcpy(message->bytes + message->count, bytes, count);
	message->count += count;
}

static void append_u16(struct message *message, uint16_t value)
{
	append(message, &value, sizeof(value));
}

static void append_u32(struct message *message, uint32_t value)
{
	append(message, &value, sizeof(value));
}

static void append_text(struct message *message, const char *text, size_t room)
{
	static const char end = '\0';
	size_t bytes = strlen(text);
	if (bytes > room)
		bytes = room;
	append_u32(message, (uint32_t)bytes + 1);
	append(message, text, bytes);
	append(message, &end, 1);
}

/* Room for the length, which is known last. */
static void begin(struct message *message, enum xen_wire_type type)
{
	message->count = 0;
	append_u16(message, 0);
	append_u16(message, (uint16_t)type);
}

static int transmit(struct xen_wire *wire, struct message *message)
{
	uint16_t bytes = (uint16_t)(message->count - sizeof(bytes));
	memcpy(message->bytes, &bytes, sizeof(bytes));
	for (size_t at = 0; at < message->count && !wire->lost;) {
		ssize_t done = write(wire->out_fd, message->bytes + at, message->count - at);
		if (done > 0)
			at += (size_t)done;
		else if (done == 0 || errno != EINTR)
			wire->lost = true;
	}
	return wire->lost ? -1 : 0;
}

void xen_wire_log(struct xen_wire *wire, uint32_t level, int errnum, const char *context, const char *words)
{
	struct message message;
	begin(&message, XEN_WIRE_LOG);
	append_u32(&message, level);
	append_u32(&message, (uint32_t)errnum);
	append_text(&message, context != NULL ? context : "", 128);
	append_text(&message, words, XEN_WIRE_MESSAGE_BYTES - message.count - 5);
	(void)transmit(wire, &message);
}

int xen_wire_call(struct xen_wire *wire, enum xen_wire_type type, const uint32_t *numbers, unsigned count,
                  int *ret_answer)
{
	struct message message;
	int answer;
	unsigned char *to = (unsigned char *)&answer;
	begin(&message, type);
	for (unsigned i = 0; i < count; i++)
		append_u32(&message, numbers[i]);
	if (transmit(wire, &message) != 0)
		return -1;
	for (size_t at = 0; at < sizeof(answer) && !wire->lost;) {
		ssize_t got = read(wire->in_fd, to + at, sizeof(answer) - at);
		if (got > 0)
			at += (size_t)got;
		else if (got == 0 || errno != EINTR)
			wire->lost = true;
	}
	if (wire->lost)
		return -1;
	*ret_answer = answer;
	return 0;
}

/* ---- leg ---- */
int xen_policy_send(int fd, const struct xen_policy_packet *packet)
{
	ssize_t done;
	do
		done = send(fd, packet, sizeof(*packet), MSG_NOSIGNAL);
	while (done < 0 && errno == EINTR);
	return done == (ssize_t)sizeof(*packet) ? 0 : -1;
}

int xen_policy_receive(int fd, struct xen_policy_packet *ret_packet)
{
	struct xen_policy_packet packet;
	ssize_t got;
	do
		got = recv(fd, &packet, sizeof(packet), 0);
	while (got < 0 && errno == EINTR);
	if (got != (ssize_t)sizeof(packet) || packet.version != XEN_POLICY_VERSION)
		return -1;
	*ret_packet = packet;
	return 0;
}

bool xen_policy_asks_leg(unsigned iteration, long dirty)
{
	return iteration > 0 && dirty < 0;
}
