/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* drover-guest: one simulated VM. Started by drover-sim and by hypervisor_sim, not by people. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/hypervisor/sim_control.h"
#include "agent/sim/guest.h"
#include "common/log.h"

const char *argp_program_version = "drover-guest " DROVER_VERSION;

struct options {
	const char *home, *name;
	bool foreground;
};

static error_t take_option(int key, char *value, struct argp_state *state)
{
	struct options *options = state->input;
	switch (key) {
	case 'd':
		options->home = value;
		return 0;
	case 'n':
		options->name = value;
		return 0;
	case 'f':
		options->foreground = true;
		return 0;
	case ARGP_KEY_END:
		if (options->home == NULL || options->name == NULL)
			argp_error(state, "--home and --name are needed");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option option_list[] = {
	{ "home", 'd', "DIR", 0, "Home of the simulated host", 0 },
	{ "name", 'n', "VM", 0, "The VM: DIR/lib/vms/VM.json", 0 },
	{ "foreground", 'f', NULL, 0, "Do not go to the background", 0 },
	{ 0 },
};

static const struct argp parser = {
	.options = option_list,
	.parser = take_option,
	.doc = "One simulated VM of drover-sim: it boots, or waits for its memory if its record says that it is coming "
	       "in, and "
	       "answers on DIR/run/guest-VM.sock.",
};

static int start(struct guest *guest, const struct options *options, struct err *err)
{
	struct paths paths;
	char file[LIMIT_NAME + 16];
	if (paths_init(&paths, options->home, err) != 0 || paths_make(&paths, err) != 0 ||
	    guest_open(guest, &paths, options->name, err) != 0)
		return -1;
	snprintf(file, sizeof(file), "guest-%s", options->name);
	if (paths_write_pid(&paths, file, (long)getpid(), err) != 0)
		return -1;
	if (guest->state != GUEST_INCOMING && (guest_boot(guest, err) != 0 || guest_worker_start(guest, err) != 0))
		return -1;
	return guest_control_open(guest, err);
}

/* In the child: the log instead of what the parent has; in the parent: waits for the child's word. Returns the
 * descriptor to say it on. */
static int go_to_background(const struct options *options)
{
	int report[2];
	struct paths paths;
	char log[LIMIT_PATH], word = 0;
	struct err err = { 0 };
	if (paths_init(&paths, options->home, &err) != 0 || paths_make(&paths, &err) != 0 ||
	    sim_path(&paths, options->name, SIM_PATH_LOG, log, &err) != 0) {
		fprintf(stderr, "drover-guest: %s\n", err.text);
		exit(1);
	}
	if (pipe2(report, O_CLOEXEC) != 0)
		exit(1);
	pid_t child = fork();
	if (child < 0)
		exit(1);
	if (child > 0) {
		close(report[1]);
		bool good = read(report[0], &word, 1) == 1 && word == 'k';
		if (!good)
			waitpid(child, NULL, 0); /* it has said why on standard error */
		_exit(good ? 0 : 1);
	}
	close(report[0]);
	setsid();
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (fd >= 0)
		dup2(fd, STDOUT_FILENO);
	return report[1];
}

int main(int argc, char **argv)
{
	struct options options = { 0 };
	static struct guest guest; /* one a process; too big for a stack */
	struct err err = { 0 };
	int report = -1;
	argp_parse(&parser, argc, argv, 0, NULL, &options);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (!options.foreground)
		report = go_to_background(&options);
	log_init("drover-guest");
	if (start(&guest, &options, &err) != 0) {
		fprintf(stderr, "drover-guest: %s: %s\n", options.name, err.text);
		guest.want_end = true;
		if (guest.worker_started) {
			pthread_mutex_lock(&guest.lock);
			pthread_cond_broadcast(&guest.changed);
			pthread_mutex_unlock(&guest.lock);
		}
		if (guest.paths.run[0] != '\0')
			guest_end(&guest);
		return 1;
	}
	if (report >= 0) {
		dup2(STDOUT_FILENO, STDERR_FILENO); /* the log from here on */
		ssize_t said = write(report, "k", 1);
		(void)said;
		close(report);
	}
	guest_control_run(&guest);
	guest_end(&guest);
	return 0;
}
