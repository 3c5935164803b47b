/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <locale.h>
#include <signal.h>
#include <stdio.h>

#include "coordinator/cli/cli.h"

int main(int argc, char **argv)
{
	setlocale(LC_ALL, "");
	int code = cli_main(argc, argv, stdout, stderr);
	if (code > EXIT_SIGNAL) {
		/* Die of the signal, so that a shell's loop or a script's trap sees what happened. */
		sigset_t all;

		sigfillset(&all);
		signal(code - EXIT_SIGNAL, SIG_DFL);
		sigprocmask(SIG_UNBLOCK, &all, NULL);
		raise(code - EXIT_SIGNAL);
	}
	return code;
}
