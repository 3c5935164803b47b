/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A folder for targets that need files. */
#ifndef DROVER_FUZZ_FOLDER_H
#define DROVER_FUZZ_FOLDER_H

#include <unistd.h>

#include "tests/fuzz/fuzz_main.h"

/* A folder on a file system in memory where there is one. Stays for the life of the process, and is then taken away. */
static char fuzz_folder[64];

static void fuzz_folder_remove(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", fuzz_folder);
	if (system(command) != 0)
		fprintf(stderr, "cannot remove %s\n", fuzz_folder);
}

static inline void fuzz_folder_make(void)
{
	const char *top = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(fuzz_folder, sizeof(fuzz_folder), "%s/drover-fuzz.XXXXXX", top);
	fuzz_must(mkdtemp(fuzz_folder) != NULL, "no folder for a database", NULL);
	fuzz_must(atexit(fuzz_folder_remove) == 0, "atexit", NULL);
}

#endif
