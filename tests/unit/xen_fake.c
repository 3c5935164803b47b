/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/xen_fake.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>
#include <libxl_event.h>
#include <libxl_utils.h>
#include <xenctrl.h>
#include <xenguest.h>
#include <xenstore.h>

#include "agent/hypervisor/xen_wire.h"

#define HOSTS 4
#define ENDS 8 /* zero bytes: libxc's end, and libxl's */

struct handle { /* libxl_ctx and xc_interface alike */
	struct fake_host *host;
};

static struct fake_host *opening;
static struct {
	const void *logger;
	struct fake_host *host;
} known[HOSTS];

static void pause_ms(unsigned ms)
{
	struct timespec time = { ms / 1000, (long)(ms % 1000) * 1000000 };
	nanosleep(&time, NULL);
}

static struct fake_host *host_of(const void *handle)
{
	return ((const struct handle *)handle)->host;
}

/* ---- for tests ---- */
void fake_host_init(struct fake_host *host)
{
	memset(host, 0, sizeof(*host));
	pthread_mutex_init(&host->lock, NULL);
	host->next_domid = 7;
	host->free_pages = 1u << 18;
	host->features = 0xff;
	host->can_suspend = true;
}

void fake_host_opens(struct fake_host *host)
{
	opening = host;
}

static struct fake_domain *domain_by_id(struct fake_host *host, uint32_t domid)
{
	for (unsigned i = 0; i < FAKE_DOMAINS; i++)
		if (host->domains[i].there && host->domains[i].domid == domid)
			return &host->domains[i];
	return NULL;
}

static struct fake_domain *domain_new(struct fake_host *host, const char *name, const void *uuid, const char *disk)
{
	for (unsigned i = 0; i < FAKE_DOMAINS; i++) {
		struct fake_domain *domain = &host->domains[i];
		if (domain->there)
			continue;
		*domain = (struct fake_domain) { .there = true, .domid = host->next_domid++, .shut = FAKE_RUNNING };
		memcpy(domain->uuid, uuid, sizeof(domain->uuid));
		snprintf(domain->name, sizeof(domain->name), "%s", name);
		snprintf(domain->disk, sizeof(domain->disk), "%s", disk);
		return domain;
	}
	return NULL;
}

struct fake_domain *fake_domain_add(struct fake_host *host, const char *name, unsigned char id, const char *disk)
{
	uuid_bytes uuid;
	memset(uuid, id, sizeof(uuid));
	struct fake_domain *domain = domain_new(host, name, uuid, disk);
	domain->cpu_ns = 1000;
	return domain;
}

struct fake_domain *fake_domain_of(struct fake_host *host, unsigned char id)
{
	for (unsigned i = 0; i < FAKE_DOMAINS; i++)
		if (host->domains[i].there && host->domains[i].uuid[0] == id)
			return &host->domains[i];
	return NULL;
}

bool fake_domain_runs(struct fake_host *host, struct fake_domain *domain)
{
	pthread_mutex_lock(&host->lock);
	bool runs = domain->there && !domain->dying && domain->shut == FAKE_RUNNING && domain->pauses == 0;
	domain->ran |= runs;
	domain->cpu_ns += runs;
	pthread_mutex_unlock(&host->lock);
	return runs;
}

/* ---- libxc ---- */
xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *builder, unsigned flags)
{
	struct handle *handle = calloc(1, sizeof(*handle));
	(void)builder;
	(void)flags;
	handle->host = opening;
	for (unsigned i = 0; i < HOSTS; i++)
		if (known[i].host == NULL) {
			known[i].logger = logger;
			known[i].host = opening;
			break;
		}
	return (xc_interface *)handle;
}

int xc_interface_close(xc_interface *xch)
{
	for (unsigned i = 0; i < HOSTS; i++)
		if (known[i].host == host_of(xch))
			known[i].host = NULL;
	free(xch);
	return 0;
}

static void describe(const struct fake_domain *domain, xc_domaininfo_t *info)
{
	memset(info, 0, sizeof(*info));
	info->domain = (domid_t)domain->domid;
	memcpy(info->handle, domain->uuid, sizeof(domain->uuid));
	info->flags = (domain->dying ? XEN_DOMINF_dying : 0) | (domain->pauses > 0 ? XEN_DOMINF_paused : 0);
	if (domain->shut != FAKE_RUNNING)
		info->flags |= XEN_DOMINF_shutdown | (uint32_t)domain->shut << XEN_DOMINF_shutdownshift;
	info->tot_pages = FAKE_PAGES;
	info->cpu_time = domain->cpu_ns;
	info->nr_online_vcpus = 2;
	info->max_vcpu_id = 1;
}

int xc_domain_getinfolist(xc_interface *xch, uint32_t first, unsigned max, xc_domaininfo_t *info)
{
	struct fake_host *host = host_of(xch);
	int count = 0;
	pthread_mutex_lock(&host->lock);
	/* by number, as Xen does */
	for (uint32_t domid = first; domid < host->next_domid && (unsigned)count < max; domid++) {
		struct fake_domain *domain = domain_by_id(host, domid);
		if (domain != NULL)
			describe(domain, &info[count++]);
	}
	pthread_mutex_unlock(&host->lock);
	return count;
}

static int change_pauses(xc_interface *xch, uint32_t domid, int by)
{
	struct fake_host *host = host_of(xch);
	int result = -1;
	pthread_mutex_lock(&host->lock);
	struct fake_domain *domain = domain_by_id(host, domid);
	if (domain != NULL && (by > 0 || domain->pauses > 0)) {
		domain->pauses += (unsigned)by;
		result = 0;
	}
	pthread_mutex_unlock(&host->lock);
	return result;
}

int xc_domain_pause(xc_interface *xch, uint32_t domid)
{
	return change_pauses(xch, domid, 1);
}

int xc_domain_unpause(xc_interface *xch, uint32_t domid)
{
	return host_of(xch)->unpause_fails ? -1 : change_pauses(xch, domid, -1);
}

long long xc_logdirty_control(xc_interface *xch, uint32_t domid, unsigned op, xc_hypercall_buffer_t *bitmap,
                              unsigned long pages, unsigned mode, xc_shadow_op_stats_t *stats)
{
	(void)xch;
	(void)domid;
	(void)op;
	(void)bitmap;
	(void)pages;
	(void)mode;
	stats->dirty_count = 500;
	return 0;
}

int xc_shadow_control(xc_interface *xch, uint32_t domid, unsigned sop, unsigned *mb, unsigned mode)
{
	struct fake_domain *domain = domain_by_id(host_of(xch), domid);
	(void)mb;
	(void)mode;
	if (domain != NULL && sop == XEN_DOMCTL_SHADOW_OP_OFF)
		domain->log = false;
	return 0;
}

xc_cpu_policy_t *xc_cpu_policy_init(void)
{
	return malloc(1);
}

void xc_cpu_policy_destroy(xc_cpu_policy_t *policy)
{
	free(policy);
}

int xc_cpu_policy_get_size(xc_interface *xch, uint32_t *leaves, uint32_t *msrs)
{
	(void)xch;
	*leaves = *msrs = 2;
	return 0;
}

int xc_cpu_policy_get_domain(xc_interface *xch, uint32_t domid, xc_cpu_policy_t *policy)
{
	(void)policy;
	return domain_by_id(host_of(xch), domid) != NULL ? 0 : -1;
}

int xc_cpu_policy_serialise(xc_interface *xch, const xc_cpu_policy_t *policy, xen_cpuid_leaf_t *leaves,
                            uint32_t *leaf_count, xen_msr_entry_t *msrs, uint32_t *msr_count)
{
	(void)policy;
	(void)msrs;
	leaves[0] = (xen_cpuid_leaf_t) { .leaf = 7, .subleaf = 0, .b = host_of(xch)->features };
	*leaf_count = 1;
	*msr_count = 0;
	return 0;
}

int xc_get_cpu_featureset(xc_interface *xch, uint32_t index, uint32_t *count, uint32_t *words)
{
	(void)index;
	*count = 19;
	words[5] = host_of(xch)->features;
	return 0;
}

/* ---- xenstore: the two nodes that are looked at; of the host whose domain it is ---- */
static struct fake_host *owner_of(const char *path, uint32_t *ret_domid)
{
	if (sscanf(path, "/local/domain/%u/", ret_domid) != 1)
		return NULL;
	for (unsigned i = 0; i < HOSTS; i++)
		if (known[i].host != NULL && domain_by_id(known[i].host, *ret_domid) != NULL)
			return known[i].host;
	return NULL;
}

struct xs_handle *xs_open(unsigned long flags)
{
	(void)flags;
	return malloc(1);
}

void xs_close(struct xs_handle *xs)
{
	free(xs);
}

void *xs_read(struct xs_handle *xs, xs_transaction_t transaction, const char *path, unsigned *bytes)
{
	uint32_t domid;
	struct fake_host *host = owner_of(path, &domid);
	char *text = NULL;
	(void)xs;
	(void)transaction;
	if (host != NULL && strstr(path, "feature-suspend"))
		text = strdup(host->can_suspend ? "1" : "");
	else if (host != NULL && strstr(path, "control/shutdown"))
		text = strdup(domain_by_id(host, domid)->asked);
	*bytes = text != NULL ? (unsigned)strlen(text) : 0;
	return text;
}

bool xs_write(struct xs_handle *xs, xs_transaction_t transaction, const char *path, const void *data, unsigned bytes)
{
	uint32_t domid;
	struct fake_host *host = owner_of(path, &domid);
	(void)xs;
	(void)transaction;
	if (host != NULL && strstr(path, "feature-suspend"))
		host->can_suspend = true;
	else if (host != NULL)
		snprintf(domain_by_id(host, domid)->asked, 16, "%.*s", (int)bytes, (const char *)data);
	return host != NULL;
}

xs_transaction_t xs_transaction_start(struct xs_handle *xs)
{
	(void)xs;
	return 1;
}

bool xs_transaction_end(struct xs_handle *xs, xs_transaction_t transaction, bool abort)
{
	(void)xs;
	(void)transaction;
	(void)abort;
	return true;
}

/* ---- libxl: what is quick ---- */
int libxl_ctx_alloc(libxl_ctx **ret_ctx, int version, unsigned flags, xentoollog_logger *logger)
{
	struct handle *handle = calloc(1, sizeof(*handle));
	(void)version;
	(void)flags;
	for (unsigned i = 0; i < HOSTS; i++)
		if (known[i].host != NULL && known[i].logger == logger)
			handle->host = known[i].host;
	*ret_ctx = (libxl_ctx *)handle;
	return 0;
}

int libxl_ctx_free(libxl_ctx *ctx)
{
	free(ctx);
	return 0;
}

void libxl_childproc_setmode(libxl_ctx *ctx, const libxl_childproc_hooks *hooks, void *user)
{
	(void)ctx;
	(void)hooks;
	(void)user;
}

int libxl_get_physinfo(libxl_ctx *ctx, libxl_physinfo *info)
{
	info->total_pages = 1u << 19;
	info->free_pages = host_of(ctx)->free_pages;
	return 0;
}

const libxl_version_info *libxl_get_version_info(libxl_ctx *ctx)
{
	static const libxl_version_info version = { .xen_version_major = 4, .xen_version_minor = 17 };
	(void)ctx;
	return &version;
}

char *libxl_domid_to_name(libxl_ctx *ctx, uint32_t domid)
{
	struct fake_domain *domain = domain_by_id(host_of(ctx), domid);
	return domain != NULL ? strdup(domain->name) : NULL;
}

static void fill(libxl_domain_config *config, const char *name, const void *uuid, const char *disk)
{
	config->c_info.type = LIBXL_DOMAIN_TYPE_PVH;
	config->c_info.name = strdup(name);
	memcpy(config->c_info.uuid.uuid, uuid, sizeof(uuid_bytes));
	if (disk[0] == '\0')
		return;
	config->num_disks = 1;
	config->disks = calloc(1, sizeof(*config->disks));
	libxl_device_disk_init(config->disks);
	config->disks[0].vdev = strdup("xvda");
	config->disks[0].pdev_path = strdup(disk);
	config->disks[0].backend = LIBXL_DISK_BACKEND_QDISK;
	config->disks[0].format = LIBXL_DISK_FORMAT_RAW;
	config->disks[0].readwrite = 1;
}

int libxl_retrieve_domain_configuration(libxl_ctx *ctx, uint32_t domid, libxl_domain_config *config,
                                        const libxl_asyncop_how *how)
{
	struct fake_domain *domain = domain_by_id(host_of(ctx), domid);
	(void)how;
	if (domain == NULL)
		return -3;
	fill(config, domain->name, domain->uuid, domain->disk);
	return 0;
}

char *libxl_domain_config_to_json(libxl_ctx *ctx, libxl_domain_config *config)
{
	char *text;
	(void)ctx;
	return asprintf(&text, "%s %02x %s", config->c_info.name, config->c_info.uuid.uuid[0],
	                config->num_disks > 0 ? config->disks[0].pdev_path : "-") < 0
	               ? NULL
	               : text;
}

int libxl_domain_config_from_json(libxl_ctx *ctx, libxl_domain_config *config, const char *text)
{
	char name[LIMIT_NAME], disk[LIMIT_PATH];
	uuid_bytes uuid;
	unsigned id;
	(void)ctx;
	if (sscanf(text, "%63s %x %255s", name, &id, disk) != 3)
		return -3;
	memset(uuid, (int)id, sizeof(uuid));
	fill(config, name, uuid, strcmp(disk, "-") == 0 ? "" : disk);
	return 0;
}

int libxl_userdata_retrieve(libxl_ctx *ctx, uint32_t domid, const char *what, uint8_t **data, int *bytes)
{
	(void)ctx;
	(void)domid;
	*data = NULL;
	*bytes = 0;
	if (strcmp(what, "xl") == 0) {
		*data = (uint8_t *)strdup("name=\"x\"");
		*bytes = 8;
	}
	return 0;
}

int libxl_userdata_store(libxl_ctx *ctx, uint32_t domid, const char *what, const uint8_t *data, int bytes)
{
	(void)data;
	return domain_by_id(host_of(ctx), domid) != NULL && strcmp(what, "xl") == 0 && bytes == 8 ? 0 : -3;
}

int libxl_domain_sched_params_get(libxl_ctx *ctx, uint32_t domid, libxl_domain_sched_params *params)
{
	params->sched = LIBXL_SCHEDULER_CREDIT2;
	params->cap = domain_by_id(host_of(ctx), domid)->cap;
	return 0;
}

int libxl_domain_sched_params_set(libxl_ctx *ctx, uint32_t domid, const libxl_domain_sched_params *params)
{
	domain_by_id(host_of(ctx), domid)->cap = params->cap;
	return 0;
}

int libxl_domain_resume(libxl_ctx *ctx, uint32_t domid, int cancel, const libxl_asyncop_how *how)
{
	struct fake_host *host = host_of(ctx);
	(void)cancel;
	(void)how;
	pthread_mutex_lock(&host->lock);
	struct fake_domain *domain = domain_by_id(host, domid);
	int result = domain != NULL && domain->shut == SHUTDOWN_suspend ? 0 : -3;
	if (result == 0)
		domain->shut = FAKE_RUNNING;
	host->resumes++;
	pthread_mutex_unlock(&host->lock);
	return result;
}

int libxl_domain_unpause(libxl_ctx *ctx, uint32_t domid, const libxl_asyncop_how *how)
{
	(void)how;
	return xc_domain_unpause((xc_interface *)ctx, domid);
}

int libxl_domain_rename(libxl_ctx *ctx, uint32_t domid, const char *from, const char *to)
{
	struct fake_domain *domain = domain_by_id(host_of(ctx), domid);
	if (domain == NULL || strcmp(domain->name, from) != 0)
		return -3;
	snprintf(domain->name, sizeof(domain->name), "%s", to);
	return 0;
}

int libxl_domain_destroy(libxl_ctx *ctx, uint32_t domid, const libxl_asyncop_how *how)
{
	struct fake_host *host = host_of(ctx);
	(void)how;
	pthread_mutex_lock(&host->lock);
	struct fake_domain *domain = domain_by_id(host, domid);
	if (domain != NULL)
		domain->there = false;
	pthread_mutex_unlock(&host->lock);
	return domain != NULL ? 0 : -6;
}

/* ---- libxl: suspend ---- */
static pid_t start_helper(uint32_t domid, int fd, int *ret_to, int *ret_from)
{
	int in[2], out[2];
	char io[16], dom[16];
	if (pipe(in) != 0 || pipe(out) != 0)
		return -1;
	snprintf(io, sizeof(io), "%d", fd);
	snprintf(dom, sizeof(dom), "%u", domid);
	pid_t pid = fork();
	if (pid == 0) {
		char *path = getenv("LIBXL_SAVE_HELPER");
		int kept = dup(fd); /* without close-on-exec */
		snprintf(io, sizeof(io), "%d", kept);
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		close(out[0]);
		signal(SIGPIPE, SIG_DFL);
		execl(path, path, "--save-domain", io, "-1", dom, "1", "136", "0", (char *)NULL);
		_exit(99);
	}
	close(in[0]);
	close(out[1]);
	*ret_to = in[1];
	*ret_from = out[0];
	return pid;
}

/* As the guest does: it takes the request, then is down. */
static int suspend_guest(struct fake_host *host, struct fake_domain *domain)
{
	snprintf(domain->asked, sizeof(domain->asked), "suspend");
	pause_ms(host->suspend_ms / 2);
	if (host->deaf)
		return 0;
	domain->asked[0] = '\0';
	pause_ms(host->suspend_ms / 2);
	pthread_mutex_lock(&host->lock);
	domain->shut = SHUTDOWN_suspend;
	pthread_mutex_unlock(&host->lock);
	return 1;
}

static int serve(struct fake_host *host, struct fake_domain *domain, int to, int from)
{
	unsigned char message[XEN_WIRE_MESSAGE_BYTES];
	uint16_t bytes, type;
	int result = -1;
	while (read(from, &bytes, sizeof(bytes)) == sizeof(bytes) && bytes <= sizeof(message) &&
	       read(from, message, bytes) == bytes) {
		int answer = 0;
		uint32_t number;
		memcpy(&type, message, sizeof(type));
		if (type == XEN_WIRE_LOG)
			continue;
		if (type == XEN_WIRE_SUSPEND)
			answer = suspend_guest(host, domain);
		memcpy(&number, message + (type == XEN_WIRE_LOG_DIRTY ? 6 : 2), sizeof(number));
		if (type == XEN_WIRE_LOG_DIRTY)
			domain->log = number != 0;
		if (type == XEN_WIRE_COMPLETE)
			result = (int)number;
		if (write(to, &answer, sizeof(answer)) != sizeof(answer))
			break;
	}
	return result;
}

int libxl_domain_suspend(libxl_ctx *ctx, uint32_t domid, int fd, int flags, const libxl_asyncop_how *how)
{
	static const unsigned char end[ENDS] = { 0 };
	struct fake_host *host = host_of(ctx);
	struct fake_domain *domain = domain_by_id(host, domid);
	int to = -1, from = -1, status;
	(void)how;
	if (domain == NULL || flags != LIBXL_SUSPEND_LIVE || write(fd, "LibxlFmt.v2.....", 16) != 16)
		return -3;
	pid_t pid = start_helper(domid, fd, &to, &from);
	int result = serve(host, domain, to, from);
	close(to);
	close(from);
	waitpid(pid, &status, 0);
	if (result != 0)
		return -8; /* "the guest timed out", whatever it was */
	return write(fd, end, sizeof(end)) == sizeof(end) ? 0 : -3;
}

/* ---- libxl: restore ---- */
/* Up to libxc's end. -1: it broke, or is no stream. */
static int read_memory(int fd)
{
	char head[16];
	unsigned zeroes = 0;
	for (size_t at = 0; at < sizeof(head); at++)
		if (read(fd, head + at, 1) != 1)
			return -1;
	while (zeroes < ENDS) {
		unsigned char byte;
		if (read(fd, &byte, 1) != 1 || byte == 0xff)
			return -1;
		zeroes = byte == 0 ? zeroes + 1 : 0;
	}
	return 0;
}

/* As the real one: what could not be read is taken for zeroes, and zeroes for the end. */
static int read_end(int fd)
{
	unsigned char record[ENDS] = { 0 };
	for (size_t at = 0; at < sizeof(record); at++)
		if (read(fd, record + at, 1) != 1)
			return at == 0 ? 0 : -1;
	for (size_t at = 0; at < sizeof(record); at++)
		if (record[at] != 0)
			return -1;
	return 0;
}

int libxl_domain_create_restore(libxl_ctx *ctx, libxl_domain_config *config, uint32_t *ret_domid, int fd, int back,
                                const libxl_domain_restore_params *params, const libxl_asyncop_how *how,
                                const libxl_asyncprogress_how *console)
{
	struct fake_host *host = host_of(ctx);
	(void)back;
	(void)how;
	(void)console;
	if (params->stream_version != 2)
		return -5;
	pthread_mutex_lock(&host->lock);
	struct fake_domain *domain = domain_new(host, config->c_info.name, config->c_info.uuid.uuid,
	                                        config->num_disks > 0 ? config->disks[0].pdev_path : "");
	domain->pauses = 1;
	pthread_mutex_unlock(&host->lock);
	*ret_domid = domain->domid;
	int result = read_memory(fd) == 0 && read_end(fd) == 0 ? 0 : -3;
	if (result == 0) {
		pause_ms(host->script_ms);
		host->finished = true;
		return 0;
	}
	pthread_mutex_lock(&host->lock);
	domain->there = false;
	pthread_mutex_unlock(&host->lock);
	return result;
}
