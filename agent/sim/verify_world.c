/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verify: reads fleet.json, the guests' registry, VM records, ledgers and journals. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/sim/verify_world.h"
#include "common/proc.h"

#define BUSY_MS 3000
#define WORDS_BYTES 16384
#define TAIL_BYTES 65536
#define LINE_MAX_BYTES 256

static bool text_of(const json_t *object, const char *key, char *ret_text, size_t room)
{
	const char *text = json_string_value(json_object_get(object, key));
	if (text == NULL || strlen(text) >= room)
		return false;
	memcpy(ret_text, text, strlen(text) + 1);
	return true;
}

static uint64_t number_of(const json_t *object, const char *key)
{
	json_int_t number = json_integer_value(json_object_get(object, key));
	return number > 0 ? (uint64_t)number : 0;
}

static void *grow(void *list, size_t count, size_t size)
{
	void *grown = realloc(list, (count + 1) * size);
	if (grown == NULL)
		abort(); /* a checker without memory has no answer */
	memset((char *)grown + count * size, 0, size);
	return grown;
}

/* A zombie has no command line. */
bool verify_proc_alive(pid_t pid)
{
	char text[16];
	return pid > 0 && proc_read(pid, "cmdline", text, sizeof(text)) > 0;
}

bool verify_words_have(const char *text, size_t bytes, const char *part)
{
	size_t part_bytes = strlen(part);
	return part_bytes > 0 && memmem(text, bytes, part, part_bytes) != NULL;
}

static pid_t read_pid(const char *home, const char *kind, const char *name)
{
	char path[VERIFY_PATH * 2];
	long pid = 0;
	snprintf(path, sizeof(path), "%s/run/%s%s.pid", home, kind, name);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return 0;
	if (fscanf(file, "%ld", &pid) != 1)
		pid = 0;
	fclose(file);
	return (pid_t)pid;
}

/* Whether that pid is the process that we think: its command line names the host's home. */
static bool is_alive(pid_t pid, const char *home)
{
	char *text = malloc(WORDS_BYTES);
	size_t bytes = text != NULL && pid > 0 ? proc_read(pid, "cmdline", text, WORDS_BYTES) : 0;
	bool alive = bytes > 0 && verify_words_have(text, bytes, home);
	free(text);
	return alive;
}

static void read_record(struct verify *verify, struct verify_host *host, const char *path)
{
	json_error_t why;
	json_t *root = json_load_file(path, 0, &why), *disk;
	struct verify_record record = { 0 };
	size_t index;
	if (root == NULL && access(path, F_OK) != 0)
		return; /* gone since readdir */
	bool good = text_of(root, "name", record.name, sizeof(record.name)) &&
	            text_of(root, "guest", record.guest, sizeof(record.guest)) &&
	            text_of(root, "uuid", record.uuid, sizeof(record.uuid)) &&
	            text_of(root, "state", record.state, sizeof(record.state));
	json_array_foreach(json_object_get(root, "disks"), index, disk)
	{
		struct verify_disk *to = &record.disks[record.disk_count];
		const char *format = json_string_value(json_object_get(disk, "format"));
		if (!good || record.disk_count == VERIFY_DISKS)
			break;
		good = text_of(disk, "name", to->name, sizeof(to->name)) &&
		       text_of(disk, "path", to->path, sizeof(to->path)) && format != NULL;
		to->qcow2 = format != NULL && strcmp(format, "qcow2") == 0;
		to->read_only = json_is_true(json_object_get(disk, "read_only"));
		to->size_bytes = number_of(disk, "size");
		record.disk_count++;
	}
	json_decref(root);
	if (!good) {
		verify_fault(verify, "host %s: VM record %s is damaged", host->name, path);
		return;
	}
	record.guest_pid = read_pid(host->home, "guest-", record.name);
	record.backend_pid = read_pid(host->home, "backend-", record.name);
	record.guest_alive = is_alive(record.guest_pid, host->home);
	record.backend_alive = is_alive(record.backend_pid, host->home);
	host->records = grow(host->records, host->record_count, sizeof(*host->records));
	host->records[host->record_count++] = record;
}

static bool has_suffix(const char *text, const char *suffix)
{
	size_t bytes = strlen(text), tail = strlen(suffix);
	return bytes > tail && strcmp(text + bytes - tail, suffix) == 0;
}

static void read_records(struct verify *verify, struct verify_host *host)
{
	char dir[VERIFY_PATH + 16], path[VERIFY_PATH * 2];
	struct dirent *entry;
	snprintf(dir, sizeof(dir), "%s/lib/vms", host->home);
	DIR *stream = opendir(dir);
	while (stream != NULL && (entry = readdir(stream)) != NULL) {
		if (entry->d_name[0] == '.' || !has_suffix(entry->d_name, ".json"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		read_record(verify, host, path);
	}
	if (stream != NULL)
		closedir(stream);
}

struct verify_record *verify_record_of(struct verify_host *host, const char *name)
{
	for (size_t i = 0; i < host->record_count; i++)
		if (strcmp(host->records[i].name, name) == 0)
			return &host->records[i];
	return NULL;
}

bool verify_session_open(const struct verify_host *host, int64_t migration)
{
	for (size_t i = 0; i < host->session_count; i++)
		if (host->sessions[i].migration == migration)
			return true;
	return false;
}

static void column(sqlite3_stmt *stmt, int index, char *ret_text, size_t room)
{
	const unsigned char *text = sqlite3_column_text(stmt, index);
	snprintf(ret_text, room, "%s", text != NULL ? (const char *)text : "");
}

static int read_rows(sqlite3 *db, struct verify_host *host)
{
	static const char sessions[] =
		"SELECT s.migration, s.side = 1 AND coalesce(f.suspended, 0) AND NOT coalesce(f.resumed, 0)"
		" FROM session s LEFT JOIN facts f USING (migration, generation)";
	static const char resources[] = "SELECT migration, kind, name, path, pid FROM resource";
	sqlite3_stmt *stmt;
	int got;
	if (sqlite3_prepare_v2(db, sessions, -1, &stmt, NULL) != SQLITE_OK)
		return -1;
	while ((got = sqlite3_step(stmt)) == SQLITE_ROW) {
		host->sessions = grow(host->sessions, host->session_count, sizeof(*host->sessions));
		struct verify_session *session = &host->sessions[host->session_count++];
		session->migration = sqlite3_column_int64(stmt, 0);
		session->suspended_here = sqlite3_column_int(stmt, 1) != 0;
	}
	sqlite3_finalize(stmt);
	if (got != SQLITE_DONE || sqlite3_prepare_v2(db, resources, -1, &stmt, NULL) != SQLITE_OK)
		return -1;
	while ((got = sqlite3_step(stmt)) == SQLITE_ROW) {
		host->claims = grow(host->claims, host->claim_count, sizeof(*host->claims));
		struct verify_claim *claim = &host->claims[host->claim_count++];
		claim->migration = sqlite3_column_int64(stmt, 0);
		claim->kind = sqlite3_column_int(stmt, 1);
		column(stmt, 2, claim->name, sizeof(claim->name));
		column(stmt, 3, claim->path, sizeof(claim->path));
		claim->pid = (pid_t)sqlite3_column_int64(stmt, 4);
	}
	sqlite3_finalize(stmt);
	return got == SQLITE_DONE ? 0 : -1;
}

static void read_journal(struct verify *verify, struct verify_host *host)
{
	char path[VERIFY_PATH + 32];
	sqlite3 *db = NULL;
	snprintf(path, sizeof(path), "%s/lib/journal.db", host->home);
	if (access(path, F_OK) != 0)
		return;
	int bad = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK;
	if (!bad) {
		sqlite3_busy_timeout(db, BUSY_MS);
		bad = sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK || read_rows(db, host) != 0;
	}
	if (bad)
		verify_fault(verify, "host %s: journal %s cannot be read: %s", host->name, path,
		             db != NULL ? sqlite3_errmsg(db) : "");
	sqlite3_close_v2(db);
}

static int read_guest(struct verify *verify, const char *path, struct verify_guest *guest)
{
	json_error_t why;
	json_t *root = json_load_file(path, 0, &why), *disk;
	size_t index;
	bool good = text_of(root, "guest", guest->guest, sizeof(guest->guest)) &&
	            text_of(root, "uuid", guest->uuid, sizeof(guest->uuid));
	struct pattern *pattern = &guest->pattern;
	pattern->seed = number_of(root, "seed");
	pattern->pages = number_of(root, "memory") / PATTERN_PAGE_BYTES;
	pattern->tick_ms = (uint32_t)number_of(root, "tick_ms");
	pattern->dirty_bps = number_of(root, "dirty");
	pattern->write_bps = number_of(root, "disk_write");
	pattern->fill_percent = (uint32_t)number_of(root, "fill");
	guest->destroyed = json_is_true(json_object_get(root, "destroyed"));
	json_array_foreach(json_object_get(root, "disks"), index, disk)
	{
		if (!good || index == VERIFY_DISKS)
			break;
		good = text_of(disk, "name", guest->disks[index], VERIFY_NAME);
		pattern->blocks[index] = number_of(disk, "size") / PATTERN_PAGE_BYTES;
		pattern->disks = guest->disk_count = (unsigned)index + 1;
	}
	json_decref(root);
	if (!good || pattern->pages == 0 || pattern->tick_ms == 0) {
		verify_fault(verify, "%s is damaged", path);
		return -1;
	}
	return 0;
}

static void read_guests(struct verify *verify)
{
	char dir[VERIFY_PATH + 16], path[VERIFY_PATH * 2];
	struct dirent *entry;
	snprintf(dir, sizeof(dir), "%s/guests", verify->dir);
	DIR *stream = opendir(dir);
	while (stream != NULL && (entry = readdir(stream)) != NULL) {
		if (!has_suffix(entry->d_name, ".json"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		verify->guests = grow(verify->guests, verify->guest_count, sizeof(*verify->guests));
		if (read_guest(verify, path, &verify->guests[verify->guest_count]) == 0)
			verify->guest_count++;
	}
	if (stream != NULL)
		closedir(stream);
}

static struct verify_guest *guest_of(struct verify *verify, const char *name)
{
	for (size_t i = 0; i < verify->guest_count; i++)
		if (strcmp(verify->guests[i].guest, name) == 0)
			return &verify->guests[i];
	return NULL;
}

/* "web3 17 123456789 -": false if it is anything else. */
static bool parse_line(const char *text, char name[VERIFY_NAME], struct verify_line *line)
{
	char sum[32], extra;
	if (sscanf(text, "%63s %" SCNu64 " %" SCNd64 " %31s %c", name, &line->tick, &line->at_ns, sum, &extra) != 4)
		return false;
	line->has_sum = strcmp(sum, "-") != 0;
	if (line->has_sum) {
		char *end;
		line->sum = strtoull(sum, &end, 16);
		return *end == '\0' && strlen(sum) == 16;
	}
	return true;
}

static void take_line(struct verify *verify, unsigned host, const char *text, unsigned long number)
{
	char name[VERIFY_NAME];
	struct verify_line line = { .host = (unsigned char)host };
	struct verify_guest *guest = NULL;
	if (!parse_line(text, name, &line)) {
		verify_fault(verify, "host %s: ledger line %lu cannot be read", verify->hosts[host].name, number);
		return;
	}
	guest = guest_of(verify, name);
	if (guest == NULL) {
		verify_fault(verify, "host %s: ledger line %lu is of guest %s, which nobody made",
		             verify->hosts[host].name, number, name);
		return;
	}
	if (guest->line_count == guest->line_room) {
		guest->line_room = guest->line_room * 2 + 1024;
		guest->lines = realloc(guest->lines, guest->line_room * sizeof(*guest->lines));
		if (guest->lines == NULL)
			abort();
	}
	guest->lines[guest->line_count++] = line;
	if (line.tick > guest->last_tick)
		guest->last_tick = line.tick;
}

/* All ledgers as of one moment: their sizes are taken first, within microseconds. */
static void read_ledgers(struct verify *verify)
{
	FILE *files[VERIFY_HOSTS];
	off_t sizes[VERIFY_HOSTS];
	char path[VERIFY_PATH + 16], text[LINE_MAX_BYTES];
	for (unsigned i = 0; i < verify->host_count; i++) {
		struct stat st = { 0 };
		snprintf(path, sizeof(path), "%s/ledger", verify->hosts[i].home);
		files[i] = fopen(path, "re");
		if (files[i] != NULL && fstat(fileno(files[i]), &st) != 0)
			st.st_size = 0;
		sizes[i] = st.st_size;
	}
	for (unsigned i = 0; i < verify->host_count; i++) {
		off_t done = 0;
		for (unsigned long number = 1; files[i] != NULL && done < sizes[i]; number++) {
			if (fgets(text, sizeof(text), files[i]) == NULL)
				break;
			done += (off_t)strlen(text);
			take_line(verify, i, text, number);
			if (text[strlen(text) - 1] != '\n')
				verify_fault(verify, "host %s: ledger line %lu is cut", verify->hosts[i].name, number);
		}
		if (files[i] != NULL)
			fclose(files[i]);
	}
}

/* Only the ends of the ledgers: guests write a line each hundredth of a second or so. */
uint64_t verify_tick_now(const struct verify *verify, const struct verify_guest *guest)
{
	uint64_t highest = guest->last_tick;
	char *text = malloc(TAIL_BYTES);
	for (unsigned i = 0; text != NULL && i < verify->host_count; i++) {
		char path[VERIFY_PATH + 16], *rest = NULL;
		snprintf(path, sizeof(path), "%s/ledger", verify->hosts[i].home);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
		ssize_t got =
			fd >= 0 ? pread(fd, text, TAIL_BYTES - 1, size >= TAIL_BYTES ? size - TAIL_BYTES + 1 : 0) : -1;
		if (fd >= 0)
			close(fd);
		text[got > 0 ? got : 0] = '\0';
		for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
			char name[VERIFY_NAME];
			struct verify_line parsed;
			if (parse_line(line, name, &parsed) && strcmp(name, guest->guest) == 0 && parsed.tick > highest)
				highest = parsed.tick;
		}
	}
	free(text);
	return highest;
}

int verify_read(struct verify *verify, const char *dir, struct err *err)
{
	char path[VERIFY_PATH + 16];
	json_error_t why;
	json_t *host;
	size_t index;
	char *real = realpath(dir, NULL);
	if (real == NULL || strlen(real) >= VERIFY_PATH - VERIFY_NAME) {
		free(real);
		return err_set(err, ERR_CONFIG, "no fleet in %s", dir);
	}
	snprintf(verify->dir, sizeof(verify->dir), "%s", real);
	free(real);
	snprintf(path, sizeof(path), "%s/fleet.json", verify->dir);
	json_t *root = json_load_file(path, 0, &why);
	if (root == NULL)
		return err_set(err, ERR_CONFIG, "no fleet in %s: %s", verify->dir, why.text);
	json_array_foreach(json_object_get(root, "hosts"), index, host)
	{
		struct verify_host *to = &verify->hosts[verify->host_count];
		if (verify->host_count == VERIFY_HOSTS || !text_of(host, "name", to->name, sizeof(to->name)))
			break;
		snprintf(path, sizeof(path), "%.500s/%.63s", verify->dir, to->name);
		memcpy(to->home, path, strlen(path) + 1);
		strcat(path, "/lib/power-cut");
		to->power_cut = access(path, F_OK) == 0;
		to->agent_alive = is_alive(read_pid(to->home, "agent", ""), to->home);
		verify->host_count++;
	}
	json_decref(root);
	read_guests(verify);
	for (unsigned i = 0; i < verify->host_count; i++)
		read_records(verify, &verify->hosts[i]);
	/* after the records: what a migration made since then is claimed all the same */
	for (unsigned i = 0; i < verify->host_count; i++)
		read_journal(verify, &verify->hosts[i]);
	read_ledgers(verify);
	return 0;
}

void verify_free(struct verify *verify)
{
	for (unsigned i = 0; i < verify->host_count; i++) {
		free(verify->hosts[i].records);
		free(verify->hosts[i].claims);
		free(verify->hosts[i].sessions);
	}
	for (size_t i = 0; i < verify->guest_count; i++)
		free(verify->guests[i].lines);
	free(verify->guests);
	json_decref(verify->list);
}
