/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a service manager sees of a daemon: notify SOCKET PROGRAM [ARGUMENT...]
 * Starts it with a notification socket and a watchdog of WATCHDOG_USEC, and wants to be told, in this order: READY=1,
 * some WATCHDOG=1, and after SIGTERM STOPPING=1; then that it ends with 0. See sd_notify(3).
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/proc.h"

#define WATCHDOG "WATCHDOG_USEC=200000"
#define WATCHDOGS 3
#define PATIENCE_S 20

/* The next message; ends the test when none comes. */
static void hear(int fd, char *text, size_t bytes)
{
	ssize_t got = recv(fd, text, bytes - 1, 0);
	if (got < 0) {
		printf("nothing heard in %d s: %s\n", PATIENCE_S, strerror(errno));
		exit(EXIT_FAILURE);
	}
	text[got] = '\0';
	printf("heard: %s\n", text);
}

static void wait_for(int fd, const char *wanted)
{
	char text[512];
	do
		hear(fd, text, sizeof(text));
	while (strstr(text, wanted) == NULL);
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = PATIENCE_S };
	char notify[sizeof(address.sun_path) + 32], text[512];
	struct proc_id id;
	struct err err = { 0 };
	int status, fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (argc < 3 || strlen(argv[1]) >= sizeof(address.sun_path))
		return 2;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", argv[1]);
	snprintf(notify, sizeof(notify), "NOTIFY_SOCKET=%s", argv[1]);
	const char *env[] = { notify, WATCHDOG, NULL };
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0) {
		perror(argv[1]);
		return EXIT_FAILURE;
	}
	if (proc_start(&id, (const char *const *)(argv + 2), env, NULL, -1, PROC_DIE_WITH_US, &err) != 0) {
		printf("%s\n", err.text);
		return EXIT_FAILURE;
	}
	hear(fd, text, sizeof(text));
	if (strstr(text, "READY=1") == NULL) {
		printf("the first was not READY=1\n");
		return EXIT_FAILURE;
	}
	for (int i = 0; i < WATCHDOGS; i++)
		wait_for(fd, "WATCHDOG=1");
	kill(id.pid, SIGTERM);
	wait_for(fd, "STOPPING=1");
	if (waitpid(id.pid, &status, 0) != id.pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		printf("ended with status %x\n", (unsigned)status);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
