/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as a configuration file: of the coordinator if the first byte is even, else of an agent. What is taken is in
 * range; what is not is refused with words. */
#include <sys/mman.h>
#include <unistd.h>

#include "agent/agent_conf.h"
#include "common/conf.h"
#include "coordinator/settings.h"
#include "tests/fuzz/fuzz_main.h"

static uint64_t number_at(const void *config, const struct conf_key *key)
{
	uint64_t wide = 0;
	uint32_t narrow = 0;
	if (key->bytes == sizeof(wide))
		memcpy(&wide, (const char *)config + key->offset, sizeof(wide));
	else
		memcpy(&narrow, (const char *)config + key->offset, sizeof(narrow));
	return key->bytes == sizeof(wide) ? wide : narrow;
}

static void check_key(const void *config, const struct conf_key *key)
{
	const char *field = (const char *)config + key->offset;
	uint64_t number;
	switch (key->type) {
	case CONF_SIZE:
	case CONF_RATE:
	case CONF_DURATION:
	case CONF_NUMBER:
		number = number_at(config, key);
		fuzz_must(number >= key->min && (key->max == 0 || number <= key->max), key->name, NULL);
		break;
	case CONF_TEXT:
		fuzz_must(memchr(field, '\0', key->bytes) != NULL && strlen(field) >= key->min, key->name, NULL);
		break;
	case CONF_BOOL:
	case CONF_CHOICE:
	case CONF_LIST:
		break;
	}
}

static void try_coordinator(const char *text)
{
	struct settings settings = { 0 };
	struct err err = { 0 };
	if (conf_load_text("fuzz.conf", text, &settings_table, &settings, &err) != 0) {
		fuzz_must_be_worded(&err);
		return;
	}
	for (size_t i = 0; i < settings_table.key_count; i++)
		check_key(&settings, &settings_table.keys[i]);
}

static void check_agent(const struct agent_conf *conf)
{
	fuzz_must(conf->host[0] != '\0' && memchr(conf->host, '\0', sizeof(conf->host)) != NULL, "host", NULL);
	fuzz_must(strncmp(conf->coordinator, "tcp://", 6) == 0, "coordinator", NULL);
	fuzz_must(conf->network_count <= LIMIT_NETWORKS && conf->sr_count <= LIMIT_SRS, "counts", NULL);
	fuzz_must(conf->exporter == EXPORTER_NBD || conf->exporter == EXPORTER_ISCSI, "exporter", NULL);
	for (unsigned i = 0; i < conf->sr_count; i++) {
		fuzz_must(agent_conf_sr(conf, conf->srs[i].name) == &conf->srs[i], "two SRs of one name", NULL);
		fuzz_must(conf->srs[i].path[0] == '/', "SR without a path", NULL);
	}
}

/* An agent's table is its own: the text is given as a file, which is in memory. */
static void try_agent(const char *text)
{
	static struct agent_conf conf;
	static struct paths paths;
	static int fd = -1;
	char file[64];
	struct err err = { 0 };
	size_t bytes = strlen(text);
	if (fd < 0) {
		fd = memfd_create("fuzz", MFD_CLOEXEC);
		fuzz_must(fd >= 0 && paths_init(&paths, "/fuzz", &err) == 0, "cannot begin", &err);
	}
	fuzz_must(ftruncate(fd, 0) == 0 && pwrite(fd, text, bytes, 0) == (ssize_t)bytes, "memfd", NULL);
	snprintf(file, sizeof(file), "/proc/self/fd/%d", fd);
	if (agent_conf_load(&conf, &paths, file, &err) != 0)
		fuzz_must_be_worded(&err);
	else
		check_agent(&conf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes == 0)
		return 0;
	char *text = fuzz_text(&(struct fuzz_input) { data + 1, bytes - 1 });
	if (data[0] % 2 == 0)
		try_coordinator(text);
	else
		try_agent(text);
	free(text);
	return 0;
}
