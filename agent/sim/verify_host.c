/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verify: who owns each guest and whether it runs there; processes and files that nobody claims. */
#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/sim/verify_world.h"
#include "common/proc.h"

#define WORDS_BYTES 65536
#define LEG_PREFIX "drover-leg-"

static bool claimed_uuid(const struct verify_host *host, const char *uuid)
{
	for (size_t i = 0; i < host->claim_count; i++)
		if (host->claims[i].kind == VERIFY_KIND_VM && strcmp(host->claims[i].name, uuid) == 0)
			return true;
	return false;
}

/* The path itself, what lies beside it with a suffix (PATH.reserve), or what lies below it. */
static bool claimed_path(const struct verify_host *host, const char *path)
{
	for (size_t i = 0; i < host->claim_count; i++) {
		const char *claim = host->claims[i].path;
		size_t bytes = strlen(claim);
		if (bytes == 0 || strncmp(path, claim, bytes) != 0)
			continue;
		if (path[bytes] == '\0' || path[bytes] == '/' || strcmp(path + bytes, ".reserve") == 0)
			return true;
	}
	return false;
}

static bool suspended_by_session(const struct verify_host *host)
{
	for (size_t i = 0; i < host->session_count; i++)
		if (host->sessions[i].suspended_here)
			return true;
	return false;
}

static void judge_running(struct verify *verify, const struct verify_guest *guest)
{
	const struct verify_host *host = guest->owner;
	const struct verify_record *record = guest->record;
	if (!record->guest_alive) {
		if (host->agent_alive && !suspended_by_session(host))
			verify_fault(verify, "guest %s: should run on %s, and does not", guest->guest, host->name);
		return;
	}
	if (record->disk_count > 0 && !record->backend_alive)
		verify_fault(verify, "guest %s: its block backend on %s is gone", guest->guest, host->name);
}

static void find_owner(struct verify *verify, struct verify_guest *guest)
{
	unsigned found = 0;
	bool migrating = false;
	char names[VERIFY_PATH] = "";
	const struct verify_line *last = guest->line_count > 0 ? &guest->lines[guest->line_count - 1] : NULL;
	for (unsigned i = 0; i < verify->host_count; i++) {
		struct verify_host *host = &verify->hosts[i];
		for (size_t k = 0; k < host->record_count; k++) {
			struct verify_record *record = &host->records[k];
			if (strcmp(record->uuid, guest->uuid) != 0 || strcmp(record->state, "running") != 0)
				continue;
			if (strcmp(record->guest, guest->guest) != 0)
				verify_fault(verify, "guest %s: its record on %s says %s", guest->guest, host->name,
				             record->guest);
			size_t used = strlen(names);
			snprintf(names + used, sizeof(names) - used, "%s%s", found > 0 ? " and " : "", host->name);
			migrating = migrating || host->session_count > 0;
			if (found++ == 0 || (last != NULL && last->host == i)) {
				guest->owner = host;
				guest->record = record;
			}
		}
	}
	if (guest->destroyed && found > 0)
		verify_fault(verify, "guest %s: was destroyed, and is on %s", guest->guest, names);
	if (!guest->destroyed && found == 0)
		verify_fault(verify, "guest %s: is on no host", guest->guest);
	if (found > 1 && !migrating)
		verify_fault(verify, "guest %s: is on %s at once, and no journal knows of a migration", guest->guest,
		             names);
}

void verify_owners(struct verify *verify)
{
	for (size_t i = 0; i < verify->guest_count; i++) {
		struct verify_guest *guest = &verify->guests[i];
		find_owner(verify, guest);
		if (!guest->destroyed && guest->record != NULL)
			judge_running(verify, guest);
	}
	for (unsigned i = 0; i < verify->host_count; i++) {
		struct verify_host *host = &verify->hosts[i];
		for (size_t k = 0; k < host->record_count; k++) {
			const struct verify_record *record = &host->records[k];
			if (strcmp(record->state, "incoming") == 0 && !claimed_uuid(host, record->uuid))
				verify_fault(verify, "host %s: incoming VM %s was left behind", host->name,
				             record->name);
			if (strcmp(record->state, "destroying") == 0 && host->session_count == 0)
				verify_fault(verify, "host %s: VM %s was not destroyed to the end", host->name,
				             record->name);
			bool known = strcmp(record->state, "running") != 0;
			for (size_t g = 0; g < verify->guest_count; g++)
				known = known || strcmp(verify->guests[g].uuid, record->uuid) == 0;
			if (!known)
				verify_fault(verify, "host %s: VM %s was never created", host->name, record->name);
		}
	}
}

/* The value of --NAME=VALUE or --NAME VALUE among a command line's words. */
static const char *option_of(const char *text, size_t bytes, const char *name)
{
	size_t name_bytes = strlen(name);
	for (const char *word = text; word < text + bytes; word += strlen(word) + 1) {
		if (strncmp(word, name, name_bytes) != 0)
			continue;
		if (word[name_bytes] == '=')
			return word + name_bytes + 1;
		const char *next = word + strlen(word) + 1;
		if (word[name_bytes] == '\0' && next < text + bytes)
			return next;
	}
	return NULL;
}

static bool has_word(const char *text, size_t bytes, const char *wanted)
{
	for (const char *word = text; word < text + bytes; word += strlen(word) + 1)
		if (strcmp(word, wanted) == 0)
			return true;
	return false;
}

static bool exporter_claimed(const struct verify_host *host, pid_t pid, const char *text, size_t bytes)
{
	for (size_t i = 0; i < host->claim_count; i++)
		if (host->claims[i].pid == pid || verify_words_have(text, bytes, host->claims[i].path))
			return true;
	return false;
}

static bool backend_of_record(struct verify_host *host, pid_t pid)
{
	for (size_t i = 0; i < host->record_count; i++)
		if (host->records[i].backend_pid == pid && host->records[i].guest_alive)
			return true;
	return false;
}

static void judge_process(struct verify *verify, struct verify_host *host, pid_t pid, const char *comm,
                          const char *text, size_t bytes)
{
	char path[VERIFY_PATH + 32];
	if (strcmp(comm, "drover-guest") == 0) {
		const char *name = option_of(text, bytes, "--name");
		const struct verify_record *record = name != NULL ? verify_record_of(host, name) : NULL;
		if (record == NULL || record->guest_pid != pid)
			verify_fault(verify, "host %s: stray guest process %d (%s)", host->name, (int)pid,
			             name != NULL ? name : "?");
	} else if (strncmp(comm, LEG_PREFIX, strlen(LEG_PREFIX)) == 0) {
		const char *migration = option_of(text, bytes, "--migration");
		if (migration == NULL && (has_word(text, bytes, "inventory") || has_word(text, bytes, "survey")))
			return; /* asked by the agent just now; no leg of any migration */
		if (migration == NULL || !verify_session_open(host, strtoll(migration, NULL, 10)))
			verify_fault(verify, "host %s: leg %d of migration %s was left behind", host->name, (int)pid,
			             migration != NULL ? migration : "?");
	} else if (strcmp(comm, "drover-agent") == 0) {
		snprintf(path, sizeof(path), "%s/run/agent.pid", host->home);
		FILE *file = fopen(path, "re");
		long main_pid = 0;
		if (file == NULL || fscanf(file, "%ld", &main_pid) != 1 || main_pid != pid)
			verify_fault(verify, "host %s: second agent, process %d", host->name, (int)pid);
		if (file != NULL)
			fclose(file);
	} else if (!backend_of_record(host, pid) && !exporter_claimed(host, pid, text, bytes)) {
		verify_fault(verify, "host %s: stray process %d (%s)", host->name, (int)pid, comm);
	}
}

/* The host whose home is among the words. */
static struct verify_host *host_in(struct verify *verify, const char *text, size_t bytes)
{
	for (unsigned i = 0; i < verify->host_count; i++) {
		size_t home_bytes = strlen(verify->hosts[i].home);
		const char *at = memmem(text, bytes, verify->hosts[i].home, home_bytes);
		if (at != NULL && strchr("/,", at[home_bytes]) != NULL) /* the end, too */
			return &verify->hosts[i];
	}
	return NULL;
}

void verify_processes(struct verify *verify)
{
	static const char *const known[] = { "drover-guest", "drover-agent", "qemu-storage-da",
		                             "qemu-nbd",     "nbdkit",       "tgtd" };
	char comm[64];
	char *text = malloc(WORDS_BYTES);
	struct dirent *entry;
	DIR *proc = opendir("/proc");
	while (proc != NULL && text != NULL && (entry = readdir(proc)) != NULL) {
		pid_t pid = (pid_t)atol(entry->d_name);
		if (!isdigit((unsigned char)entry->d_name[0]) || proc_read(pid, "comm", comm, sizeof(comm)) == 0)
			continue;
		comm[strcspn(comm, "\n")] = '\0';
		bool ours = strncmp(comm, LEG_PREFIX, strlen(LEG_PREFIX)) == 0;
		for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
			ours = ours || strcmp(comm, known[i]) == 0;
		if (!ours)
			continue;
		size_t bytes = proc_read(pid, "cmdline", text, WORDS_BYTES);
		if (bytes == 0)
			continue; /* a zombie */
		struct verify_host *host = host_in(verify, text, bytes);
		if (host == NULL) { /* servers that know their directory from the environment */
			bytes = proc_read(pid, "environ", text, WORDS_BYTES);
			host = strcmp(comm, "tgtd") == 0 ? host_in(verify, text, bytes) : NULL;
		}
		if (host != NULL)
			judge_process(verify, host, pid, comm, text, bytes);
	}
	if (proc != NULL)
		closedir(proc);
	free(text);
}

static bool ends_with(const char *text, const char *tail)
{
	size_t bytes = strlen(text), tail_bytes = strlen(tail);
	return bytes >= tail_bytes && strcmp(text + bytes - tail_bytes, tail) == 0;
}

/* guest-NAME.pid, qmp-NAME.sock and so on, of a VM whose process lives. */
static bool of_living_guest(const struct verify_host *host, const char *file)
{
	static const struct {
		const char *head, *tail;
	} kinds[] = { { "guest-", ".pid" }, { "guest-", ".sock" },  { "backend-", ".pid" },
		      { "qmp-", ".sock" },  { "qmpleg-", ".sock" }, { "nbd-", ".sock" } };
	char name[VERIFY_NAME + 32];
	for (size_t i = 0; i < host->record_count; i++) {
		if (!host->records[i].guest_alive)
			continue;
		for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
			snprintf(name, sizeof(name), "%s%s%s", kinds[k].head, host->records[i].name, kinds[k].tail);
			if (strcmp(name, file) == 0)
				return true;
		}
	}
	return false;
}

/* KIND-MIGRATION… of a session that the journal still has. */
static bool of_session(const struct verify_host *host, const char *file)
{
	const char *number = strchr(file, '-');
	return number != NULL && isdigit((unsigned char)number[1]) &&
	       verify_session_open(host, strtoll(number + 1, NULL, 10));
}

static bool belongs_in_run(const struct verify_host *host, const char *file)
{
	static const char *const always[] = { "boot-id", "agent.pid", "agent.sock", "agent.lock" };
	for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
		if (strcmp(file, always[i]) == 0)
			return true;
	return ends_with(file, ".log") || of_living_guest(host, file) || of_session(host, file);
}

static bool belongs_in_sr(const struct verify_host *host, const char *path)
{
	for (size_t i = 0; i < host->record_count; i++)
		for (unsigned k = 0; k < host->records[i].disk_count; k++)
			if (strcmp(host->records[i].disks[k].path, path) == 0)
				return true;
	return false;
}

static bool belongs_in_vms(const struct verify_host *host, const char *file)
{
	(void)host;
	return strcmp(file, ".lock") == 0 || (file[0] != '.' && ends_with(file, ".json"));
}

enum place { PLACE_RUN, PLACE_SR, PLACE_VMS };

static void judge_folder(struct verify *verify, struct verify_host *host, const char *folder, enum place place)
{
	char dir[VERIFY_PATH + 64], path[VERIFY_PATH * 2];
	struct dirent *entry;
	snprintf(dir, sizeof(dir), "%s/%s", host->home, folder);
	DIR *stream = opendir(dir);
	while (stream != NULL && (entry = readdir(stream)) != NULL) {
		const char *file = entry->d_name;
		struct stat st;
		if (strcmp(file, ".") == 0 || strcmp(file, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, file);
		bool good = claimed_path(host, path) || lstat(path, &st) != 0; /* gone since */
		switch (place) {
		case PLACE_RUN:
			good = good || belongs_in_run(host, file);
			break;
		case PLACE_SR:
			good = good || belongs_in_sr(host, path);
			break;
		case PLACE_VMS:
			good = good || belongs_in_vms(host, file);
			break;
		}
		if (!good)
			verify_fault(verify, "host %s: %s was left behind", host->name, path);
	}
	if (stream != NULL)
		closedir(stream);
}

void verify_files(struct verify *verify)
{
	for (unsigned i = 0; i < verify->host_count; i++) {
		struct verify_host *host = &verify->hosts[i];
		char dir[VERIFY_PATH + 16], folder[VERIFY_NAME * 6];
		struct dirent *entry;
		judge_folder(verify, host, "run", PLACE_RUN);
		judge_folder(verify, host, "lib/vms", PLACE_VMS);
		snprintf(dir, sizeof(dir), "%s/sr", host->home);
		DIR *stream = opendir(dir);
		while (stream != NULL && (entry = readdir(stream)) != NULL) {
			if (entry->d_name[0] == '.')
				continue;
			snprintf(folder, sizeof(folder), "sr/%s", entry->d_name);
			judge_folder(verify, host, folder, PLACE_SR);
		}
		if (stream != NULL)
			closedir(stream);
	}
}
