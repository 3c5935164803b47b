/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/sim/verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "agent/sim/verify_world.h"

#define FAULT_BYTES 1024

void verify_fault(struct verify *verify, const char *format, ...)
{
	char text[FAULT_BYTES];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	verify->faults++;
	json_array_append_new(verify->list, json_string(text));
	if (verify->out != NULL)
		fprintf(verify->out, "%s\n", text);
}

static json_t *figures(const struct verify *verify)
{
	json_t *guests = json_array();
	for (size_t i = 0; i < verify->guest_count; i++) {
		const struct verify_guest *guest = &verify->guests[i];
		json_array_append_new(guests, json_pack("{s:s,s:I,s:I,s:f,s:f,s:s?}", "guest", guest->guest, "ticks",
		                                        (json_int_t)guest->line_count, "checksums",
		                                        (json_int_t)guest->checksums, "largest_gap_ms", guest->gap_ms,
		                                        "largest_move_gap_ms", guest->move_gap_ms, "host",
		                                        guest->owner != NULL ? guest->owner->name : NULL));
	}
	return guests;
}

static void print_ok(const struct verify *verify)
{
	uint64_t ticks = 0, checksums = 0;
	for (size_t i = 0; i < verify->guest_count; i++) {
		ticks += verify->guests[i].line_count;
		checksums += verify->guests[i].checksums;
	}
	fprintf(verify->out,
	        "ok: %zu guests, %" PRIu64 " ticks, %" PRIu64 " memory checksums, %" PRIu64 " bytes of images checked",
	        verify->guest_count, ticks, checksums, verify->bytes);
	for (size_t i = 0; i < verify->guest_count; i++) {
		const struct verify_guest *guest = &verify->guests[i];
		fprintf(verify->out, "%s %s %.1f ms", i == 0 ? "; largest gap:" : ",", guest->guest, guest->gap_ms);
		if (guest->move_gap_ms > 0)
			fprintf(verify->out, " (between hosts %.1f ms)", guest->move_gap_ms);
	}
	fputc('\n', verify->out);
}

int verify_fleet(const char *dir, bool json, FILE *out, struct err *err)
{
	struct verify *verify = calloc(1, sizeof(*verify));
	int result = -1;
	if (verify == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	verify->list = json_array();
	verify->out = json ? NULL : out;
	if (verify_read(verify, dir, err) != 0)
		goto out;
	verify_ledgers(verify);
	verify_owners(verify);
	verify_processes(verify);
	verify_files(verify);
	verify_backends(verify);
	if (verify_checksums(verify, err) != 0 || verify_images(verify, err) != 0)
		goto out;
	result = verify->faults > 0 ? 1 : 0;
	if (json) {
		json_t *doc = json_pack("{s:b,s:O,s:o,s:I}", "ok", result == 0, "faults", verify->list, "guests",
		                        figures(verify), "bytes_checked", (json_int_t)verify->bytes);
		json_dumpf(doc, out, JSON_INDENT(1));
		fputc('\n', out);
		json_decref(doc);
	} else if (result == 0) {
		print_ok(verify);
	}
out:
	verify_free(verify);
	free(verify);
	return result;
}
