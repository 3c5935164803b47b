/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen: a leg that was killed may have asked a VM to suspend, and have throttled it; who comes after knows.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "agent/hypervisor/xen_driver.h"

#define NOTE_ROOM (PATHS_MAX + UUID_STR_LEN + 32)

static void file_of(const struct hypervisor *hv, const uuid_bytes uuid, const char *tail, char ret_file[NOTE_ROOM])
{
	char text[UUID_STR_LEN];
	uuid_unparse_lower(uuid, text);
	snprintf(ret_file, NOTE_ROOM, "%s/xen-%s.note%s", hv->paths.run, text, tail);
}

struct xen_note xen_note_read(const struct hypervisor *hv, const uuid_bytes uuid)
{
	struct xen_note note = { .cap = -1 };
	char file[NOTE_ROOM];
	file_of(hv, uuid, "", file);
	FILE *stream = fopen(file, "re");
	if (stream == NULL)
		return note;
	if (fscanf(stream, "%" SCNd64 " %" SCNd32, &note.asked_ms, &note.cap) != 2)
		note = (struct xen_note) { .cap = -1 };
	fclose(stream);
	return note;
}

int xen_note_write(const struct hypervisor *hv, const uuid_bytes uuid, const struct xen_note *note, struct err *err)
{
	char file[NOTE_ROOM], fresh[NOTE_ROOM];
	file_of(hv, uuid, "", file);
	file_of(hv, uuid, ".new", fresh);
	FILE *stream = fopen(fresh, "we");
	if (stream == NULL)
		return err_errno(err, ERR_IO, errno, "write %s", fresh);
	bool good = fprintf(stream, "%" PRId64 " %" PRId32 "\n", note->asked_ms, note->cap) > 0;
	good = fclose(stream) == 0 && good;
	return good && rename(fresh, file) == 0 ? 0 : err_errno(err, ERR_IO, errno, "write %s", file);
}

void xen_note_remove(const struct hypervisor *hv, const uuid_bytes uuid)
{
	char file[NOTE_ROOM];
	file_of(hv, uuid, "", file);
	unlink(file);
}
