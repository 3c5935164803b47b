/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/net.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

#define BACKLOG 16

int net_left_ms(int64_t deadline_ms)
{
	int64_t left = deadline_ms - clock_ms(&clock_real);
	return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

void net_tune(int fd)
{
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

static int resolve(const char *host, const char *port, int flags, struct addrinfo **ret_list, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV };
	int rc = getaddrinfo(host, port, &hints, ret_list);
	if (rc)
		return err_set(err, ERR_CONFIG, "address '%s': %s", host, gai_strerror(rc));
	return 0;
}

static int endpoint_text(int fd, char ret_endpoint[LIMIT_ID], struct err *err)
{
	struct sockaddr_storage address = { 0 };
	socklen_t bytes = sizeof(address);
	char host[64], port[8];
	if (getsockname(fd, (struct sockaddr *)&address, &bytes))
		return err_errno(err, ERR_IO, errno, "getsockname");
	if (getnameinfo((struct sockaddr *)&address, bytes, host, sizeof(host), port, sizeof(port),
	                NI_NUMERICHOST | NI_NUMERICSERV))
		return err_set(err, ERR_IO, "own address has no text");
	snprintf(ret_endpoint, LIMIT_ID, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	return 0;
}

/* Frees `list`. The port may be bound again after us while connections to it still end: what they inherit from this
 * socket decides, so the first one has to allow it as well as the second. */
static int listen_on(struct addrinfo *list, const char *what, int *ret_fd, struct err *err)
{
	int one = 1, rc = 0;
	int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, BACKLOG))
		rc = err_errno(err, ERR_IO, errno, "listen on %s", what);
	freeaddrinfo(list);
	if (rc && fd >= 0)
		close(fd);
	if (!rc)
		*ret_fd = fd;
	return rc;
}

int net_listen(const char *address, int *ret_fd, char ret_endpoint[LIMIT_ID], struct err *err)
{
	struct addrinfo *list = NULL;
	int fd = -1;
	if (!*address)
		address = "127.0.0.1";
	if (resolve(address, "0", AI_PASSIVE, &list, err) || listen_on(list, address, &fd, err))
		return err_wrap(err, "data-address");
	if (endpoint_text(fd, ret_endpoint, err)) {
		close(fd);
		return -1;
	}
	*ret_fd = fd;
	return 0;
}

int net_listen_at(const char *endpoint, int *ret_fd, struct err *err)
{
	char host[LIMIT_ID], port[8];
	struct addrinfo *list = NULL;
	if (net_split(endpoint, host, port, err) || resolve(host, port, AI_PASSIVE, &list, err))
		return -1;
	return listen_on(list, endpoint, ret_fd, err);
}

int net_split(const char *endpoint, char ret_host[LIMIT_ID], char ret_port[8], struct err *err)
{
	const char *colon = strrchr(endpoint, ':');
	const char *host = endpoint, *end = colon;
	if (colon && *endpoint == '[') {
		host++;
		end--;
		if (*end != ']')
			colon = NULL;
	}
	if (!colon || end <= host || (size_t)(end - host) >= LIMIT_ID || strlen(colon + 1) >= 8 || !colon[1] ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return err_set(err, ERR_USAGE, "endpoint '%s' is not host:port", endpoint);
	memcpy(ret_host, host, (size_t)(end - host));
	ret_host[end - host] = '\0';
	memcpy(ret_port, colon + 1, strlen(colon + 1) + 1);
	return 0;
}

static int finish_connect(int fd, const char *endpoint, const struct cancel *cancel, int timeout_ms, struct err *err)
{
	int64_t deadline_ms = clock_ms(&clock_real) + timeout_ms;
	for (;;) {
		int n = cancel_poll(cancel, fd, POLLOUT, net_left_ms(deadline_ms), err);
		if (n < 0)
			return err_wrap(err, "connect to %s", endpoint);
		int problem = 0;
		socklen_t bytes = sizeof(problem);
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &bytes))
			problem = errno;
		if (problem)
			return err_errno(err, ERR_PEER_LOST, problem, "connect to %s", endpoint);
		struct pollfd now = { .fd = fd, .events = POLLOUT };
		if (poll(&now, 1, 0) == 1)
			return 0;
		if (net_left_ms(deadline_ms) == 0)
			return err_set(err, ERR_TIMEOUT, "connect to %s: no answer in %d ms", endpoint, timeout_ms);
	}
}

int net_connect(const char *endpoint, int *ret_fd, const struct cancel *cancel, int timeout_ms, struct err *err)
{
	char host[LIMIT_ID], port[8];
	struct addrinfo *list = NULL;
	if (net_split(endpoint, host, port, err) || resolve(host, port, 0, &list, err))
		return -1;
	int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc = 0;
	if (fd < 0)
		rc = err_errno(err, ERR_IO, errno, "socket");
	else if (connect(fd, list->ai_addr, list->ai_addrlen) && errno != EINPROGRESS)
		rc = err_errno(err, ERR_PEER_LOST, errno, "connect to %s", endpoint);
	freeaddrinfo(list);
	if (!rc)
		rc = finish_connect(fd, endpoint, cancel, timeout_ms, err);
	if (rc) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	net_tune(fd);
	*ret_fd = fd;
	return 0;
}
