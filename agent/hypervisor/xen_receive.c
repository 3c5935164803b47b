/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hypervisor_xen: memory in. libxl_domain_create_restore() runs on a thread of its own and reads from a socket, which
 * the leg's thread feeds frame by frame. The last bytes are kept back until dest_attach: with them libxl goes on to
 * open the VM's disks, which the source may still be writing to until then.
 */
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/hypervisor/xen_driver.h"

#define TELL_MS 3000  /* for libxl to say why it has given up */
#define WRITE_MS 1000 /* a look at whether it lives, meanwhile */

/* ---- the configuration, as it is to be here ---- */
static int replace(char **text, const char *with, struct err *err)
{
	char *copy = strdup(with);
	if (copy == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	free(*text);
	*text = copy;
	return 0;
}

static int adapt_disk(const struct hypervisor_dest *dest, libxl_device_disk *disk, struct err *err)
{
	for (unsigned i = 0; i < dest->record.disk_count; i++) {
		const struct hypervisor_image *image = &dest->record.disks[i];
		if (disk->vdev == NULL || strcmp(disk->vdev, image->name) != 0)
			continue;
		disk->backend = LIBXL_DISK_BACKEND_QDISK;
		disk->format = image->format == FORMAT_QCOW2 ? LIBXL_DISK_FORMAT_QCOW2 : LIBXL_DISK_FORMAT_RAW;
		return replace(&disk->pdev_path, image->path, err);
	}
	return err_set(err, ERR_CONFLICT, "the VM has a disk %s that is not in the plan",
	               disk->vdev != NULL ? disk->vdev : "?");
}

/* vifDOMID.NUMBER is what libxl calls one that was given no name. */
static bool is_default_name(const char *name)
{
	return strncmp(name, "vif", 3) == 0 && isdigit((unsigned char)name[3]);
}

static int adapt(const struct hypervisor_dest *dest, libxl_domain_config *config, struct err *err)
{
	char name[LIMIT_NAME + sizeof(XEN_INCOMING_SUFFIX)];
	snprintf(name, sizeof(name), "%s" XEN_INCOMING_SUFFIX, dest->record.name);
	if (memcmp(config->c_info.uuid.uuid, dest->record.uuid, sizeof(uuid_bytes)) != 0)
		return err_set(err, ERR_PROTOCOL, "memory stream: it is another VM's");
	if ((unsigned)config->num_disks != dest->record.disk_count || (unsigned)config->num_nics != dest->nic_count)
		return err_set(err, ERR_CONFLICT, "the VM has %d disks and %d networks, the plan %u and %u",
		               config->num_disks, config->num_nics, dest->record.disk_count, dest->nic_count);
	config->c_info.domid = (libxl_domid)INVALID_DOMID;
	if (replace(&config->c_info.name, name, err) != 0)
		return -1;
	for (int i = 0; i < config->num_disks; i++)
		if (adapt_disk(dest, &config->disks[i], err) != 0)
			return -1;
	for (int i = 0; i < config->num_nics; i++) {
		libxl_device_nic *nic = &config->nics[i];
		if (dest->bridges[i][0] != '\0' && replace(&nic->bridge, dest->bridges[i], err) != 0)
			return -1;
		if (nic->ifname != NULL && is_default_name(nic->ifname)) {
			free(nic->ifname);
			nic->ifname = NULL;
		}
	}
	return 0;
}

/* ---- libxl ---- */
static int run_restore(struct xen_task *task)
{
	libxl_domain_restore_params params;
	libxl_domain_restore_params_init(&params);
	params.stream_version = 2; /* libxl's default is the format before */
	params.checkpointed_stream = LIBXL_CHECKPOINTED_STREAM_NONE;
	int rc = libxl_domain_create_restore(task->ctx, &task->config, &task->domid, task->stream_fd, -1, &params, NULL,
	                                     NULL);
	libxl_domain_restore_params_dispose(&params);
	return rc;
}

static int begin_restore(struct hypervisor_dest *dest, const struct xen_description *description, struct err *err)
{
	struct hypervisor *hv = dest->hv;
	xc_domaininfo_t info;
	int stream[2];
	int there = xen_domain_find(hv, dest->record.uuid, &info, err);
	if (there != 0)
		return there < 0 ? -1 : err_set(err, ERR_NAME_TAKEN, "VM %s has come to be here", dest->record.name);
	struct xen_task *task = calloc(1, sizeof(*task));
	if (task == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	libxl_domain_config_init(&task->config);
	int result = libxl_domain_config_from_json(hv->ctx, &task->config, description->config) == 0
	                     ? adapt(dest, &task->config, err)
	                     : xen_fail(hv, err, "libxl cannot read the VM's configuration");
	if (result != 0 || xen_socket_pair(SOCK_STREAM, stream, err) != 0) {
		libxl_domain_config_dispose(&task->config);
		free(task);
		return -1;
	}
	task->hv = hv;
	task->stream_fd = stream[1];
	task->run = run_restore;
	task->domid = (uint32_t)INVALID_DOMID;
	dest->stream_fd = stream[0];
	if (xen_task_start(task, err) != 0)
		return -1;
	dest->task = task;
	return 0;
}

/* libxl has ended before it was to: why. */
static int early_end(struct hypervisor_dest *dest, struct err *err)
{
	short events;
	int64_t until_ms = disk_now_ms() + TELL_MS;
	while (!atomic_load(&dest->task->over) && disk_now_ms() < until_ms)
		if (disk_wait(&dest->cancel, dest->task->event_fd, POLLIN, until_ms, &events, err) != 0)
			return -1;
	return xen_fail(dest->hv, err, "VM %s cannot be restored (libxl says %d)", dest->record.name,
	                atomic_load(&dest->task->over) ? dest->task->rc : 0);
}

static int feed(struct hypervisor_dest *dest, const unsigned char *bytes, size_t count, struct err *err)
{
	short events;
	while (count > 0) {
		if (atomic_load(&dest->task->over))
			return early_end(dest, err);
		ssize_t done = send(dest->stream_fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (done > 0) {
			bytes += done;
			count -= (size_t)done;
		} else if (done < 0 && errno != EAGAIN && errno != EINTR) {
			return early_end(dest, err);
		} else if (disk_wait(&dest->cancel, dest->stream_fd, POLLOUT, disk_now_ms() + WRITE_MS, &events, err) !=
		           0) {
			return -1;
		}
	}
	return 0;
}

/* A second catch on the domain as soon as there is one: who unpauses it by mistake finds that it does not run. */
static int hold(struct hypervisor_dest *dest, struct err *err)
{
	xc_domaininfo_t info;
	if (dest->caught)
		return 0;
	int there = xen_domain_find(dest->hv, dest->record.uuid, &info, err);
	if (there <= 0)
		return there;
	if (xc_domain_pause(dest->hv->xch, info.domain) != 0)
		return xen_fail(dest->hv, err, "cannot hold VM %s", dest->record.name);
	dest->caught = true;
	return 0;
}

/* ---- the stream ---- */
struct receiver {
	struct hypervisor_dest *dest;
	const struct hypervisor_receive *receive;
	XXH3_state_t *digest;
	unsigned char *bytes; /* XEN_STREAM_TEXT_MAX */
};

static int get(struct receiver *receiver, void *bytes, size_t count, struct err *err)
{
	if (disk_cancelled(&receiver->dest->cancel))
		return err_set(err, ERR_CANCELLED, "memory of %s: cancelled", receiver->dest->record.name);
	return receiver->receive->read(receiver->receive->ctx, bytes, count, err);
}

static int get_frame(struct receiver *receiver, bool first, struct xen_stream_frame *ret_frame, struct err *err)
{
	unsigned char head[XEN_STREAM_FRAME_BYTES];
	if (get(receiver, head, sizeof(head), err) != 0 || xen_stream_get(head, first, ret_frame, err) != 0)
		return -1;
	return get(receiver, receiver->bytes, ret_frame->bytes, err);
}

static int take_head(struct receiver *receiver, struct err *err)
{
	struct hypervisor_dest *dest = receiver->dest;
	struct xen_stream_frame frame;
	struct xen_description description;
	if (get_frame(receiver, true, &frame, err) != 0 ||
	    xen_description_parse((const char *)receiver->bytes, frame.bytes, &description, err) != 0)
		return -1;
	int result = xen_description_check(dest->hv, &description, err);
	if (result == 0)
		result = begin_restore(dest, &description, err);
	dest->userdata = description.userdata;
	description.userdata = NULL;
	xen_description_free(&description);
	return result;
}

/* 1: that was the end. */
static int take_frame(struct receiver *receiver, struct err *err)
{
	struct hypervisor_dest *dest = receiver->dest;
	struct xen_stream_frame frame;
	if (get_frame(receiver, false, &frame, err) != 0)
		return -1;
	XXH3_64bits_update(receiver->digest, receiver->bytes, frame.bytes);
	if (frame.kind != XEN_STREAM_END)
		return hold(dest, err) != 0 || feed(dest, receiver->bytes, frame.bytes, err) != 0 ? -1 : 0;
	if (XXH3_64bits_digest(receiver->digest) != frame.value)
		return err_set(err, ERR_CORRUPT, "memory of %s: digest is not the source's", dest->record.name);
	memcpy(dest->tail.held, receiver->bytes, XEN_STREAM_TAIL_BYTES);
	dest->tail.count = XEN_STREAM_TAIL_BYTES;
	return atomic_load(&dest->task->over) ? early_end(dest, err) : 1;
}

int xen_dest_receive(struct hypervisor_dest *dest, const struct hypervisor_receive *receive, struct err *err)
{
	struct receiver receiver = {
		.dest = dest, .receive = receive, .digest = XXH3_createState(), .bytes = malloc(XEN_STREAM_TEXT_MAX)
	};
	int result = receiver.digest == NULL || receiver.bytes == NULL ? err_set(err, ERR_NO_MEMORY, "no memory") : 0;
	if (result == 0) {
		XXH3_64bits_reset(receiver.digest);
		result = take_head(&receiver, err);
	}
	while (result == 0)
		result = take_frame(&receiver, err);
	XXH3_freeState(receiver.digest);
	free(receiver.bytes);
	return result < 0 ? -1 : 0;
}

/* ---- the end of it ---- */
static int same_images(const struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count)
{
	bool same = count == dest->record.disk_count;
	for (unsigned i = 0; i < count && same; i++)
		same = strcmp(images[i].name, dest->record.disks[i].name) == 0 &&
		       strcmp(images[i].path, dest->record.disks[i].path) == 0;
	return same;
}

/* libxl goes on to the end: devices, hotplug scripts, QEMU. */
static int let_end(struct hypervisor_dest *dest, struct err *err)
{
	short events;
	if (feed(dest, dest->tail.held, dest->tail.count, err) != 0)
		return -1;
	dest->tail.count = 0;
	while (!atomic_load(&dest->task->over))
		if (disk_wait(&dest->cancel, dest->task->event_fd, POLLIN, disk_now_ms() + WRITE_MS, &events, err) != 0)
			return -1;
	if (dest->task->rc != 0)
		return early_end(dest, err);
	xen_task_join(dest->task);
	dest->task = NULL;
	close(dest->stream_fd);
	dest->stream_fd = -1;
	return 0;
}

/* By what Xen says: whole, paused, never run. */
static int check_built(struct hypervisor_dest *dest, uint32_t *ret_domid, struct err *err)
{
	xc_domaininfo_t info;
	int there = xen_domain_find(dest->hv, dest->record.uuid, &info, err);
	if (there < 0)
		return -1;
	if (there == 0 || (info.flags & (XEN_DOMINF_dying | XEN_DOMINF_shutdown)) != 0 ||
	    (info.flags & XEN_DOMINF_paused) == 0 || info.cpu_time > 0)
		return err_set(err, ERR_HYPERVISOR, "VM %s is not here, whole and paused, though libxl says so",
		               dest->record.name);
	*ret_domid = info.domain;
	return 0;
}

static int name_it(struct hypervisor_dest *dest, uint32_t domid, struct err *err)
{
	struct hypervisor *hv = dest->hv;
	char incoming[LIMIT_NAME + sizeof(XEN_INCOMING_SUFFIX)];
	snprintf(incoming, sizeof(incoming), "%s" XEN_INCOMING_SUFFIX, dest->record.name);
	if (libxl_domain_rename(hv->ctx, domid, incoming, dest->record.name) != 0)
		return xen_fail(hv, err, "domain %u cannot be named %s", domid, dest->record.name);
	if (dest->userdata != NULL && libxl_userdata_store(hv->ctx, domid, "xl", (const uint8_t *)dest->userdata,
	                                                   (int)strlen(dest->userdata)) != 0)
		return xen_fail(hv, err, "cannot keep what xl knows of VM %s", dest->record.name);
	return xen_domain_can_suspend(hv, domid, err);
}

int xen_dest_attach(struct hypervisor_dest *dest, const struct hypervisor_image *images, unsigned count,
                    struct err *err)
{
	uint32_t domid = 0;
	if (dest->task == NULL || dest->tail.count != XEN_STREAM_TAIL_BYTES)
		return err_set(err, ERR_INTERNAL, "VM %s: its memory has not come", dest->record.name);
	if (!same_images(dest, images, count))
		return err_set(err, ERR_INTERNAL, "VM %s: these are not its disks", dest->record.name);
	if (let_end(dest, err) != 0 || check_built(dest, &domid, err) != 0 || hold(dest, err) != 0 ||
	    name_it(dest, domid, err) != 0)
		return -1;
	return xen_record_mark(&dest->hv->paths, dest->record.uuid, XEN_BUILT, false, err);
}
