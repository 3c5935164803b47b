/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes the seeds of fuzz_msg into the directory given: a full and a minimal message of each kind, and bare bodies. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/msg_samples.h"

static int write_file(const char *directory, const char *name, const char *suffix, const void *data, size_t bytes)
{
	char path[LIMIT_PATH * 2];
	snprintf(path, sizeof(path), "%s/%s-%s", directory, name, suffix);
	FILE *file = fopen(path, "wb");
	if (file == NULL) {
		perror(path);
		return -1;
	}
	size_t written = fwrite(data, 1, bytes, file);
	return fclose(file) == 0 && written == bytes ? 0 : -1;
}

static int write_message(const char *directory, const struct msg *msg, const char *suffix)
{
	void *frame;
	size_t bytes;
	struct err err = { 0 };
	if (msg_encode(msg, &frame, &bytes, &err) != 0) {
		fprintf(stderr, "gen_msg: %s\n", err.text);
		return -1;
	}
	int rc = write_file(directory, msg_kind_name(msg->kind), suffix, frame, bytes);
	free(frame);
	return rc;
}

static int write_bodies(const char *directory)
{
	struct msg msg;
	struct sample_lists lists;
	void *blob;
	size_t bytes;
	sample_full(&msg, MSG_COMMAND, &lists);
	if (msg_plan_encode(msg.u.command.plan, &blob, &bytes, NULL) != 0)
		return -1;
	int rc = write_file(directory, "plan", "alone", blob, bytes);
	free(blob);
	sample_full(&msg, MSG_INVENTORY, &lists);
	if (rc != 0 || msg_inventory_encode(&msg.u.inventory, &blob, &bytes, NULL) != 0)
		return -1;
	rc = write_file(directory, "inventory", "alone", blob, bytes);
	free(blob);
	sample_full(&msg, MSG_HOLDINGS, &lists);
	if (rc != 0 || msg_holdings_encode(&msg.u.holdings, &blob, &bytes, NULL) != 0)
		return -1;
	rc = write_file(directory, "holdings", "alone", blob, bytes);
	free(blob);
	return rc;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: gen_msg DIRECTORY\n");
		return 2;
	}
	for (enum msg_kind kind = MSG_HELLO; kind < MSG_KINDS; kind++) {
		struct msg msg;
		struct sample_lists lists;
		sample_full(&msg, kind, &lists);
		if (write_message(argv[1], &msg, "full") != 0)
			return 1;
		sample_minimal(&msg, kind);
		if (write_message(argv[1], &msg, "minimal") != 0)
			return 1;
	}
	return write_bodies(argv[1]) == 0 ? 0 : 1;
}
