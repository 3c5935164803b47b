/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen: a domain's configuration as libxl has it: its disks, and whether it can be migrated at all. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/hypervisor/xen_driver.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_SIZE_AT 24
#define RUN_XEN "/run/xen" /* where libxl has QEMU put its monitors */

int xen_config_read(struct hypervisor *hv, uint32_t domid, libxl_domain_config *ret_config, struct err *err)
{
	libxl_domain_config_init(ret_config);
	if (libxl_retrieve_domain_configuration(hv->ctx, domid, ret_config, NULL) == 0)
		return 0;
	libxl_domain_config_dispose(ret_config);
	return xen_fail(hv, err, "libxl has no configuration of domain %u (another toolstack's?)", domid);
}

/* libxl asserts that it is set. */
static bool is_true(libxl_defbool value)
{
	return !libxl_defbool_is_default(value) && libxl_defbool_val(value);
}

/* ---- disks ---- */
static enum disk_format format_of(const libxl_device_disk *disk)
{
	return disk->format == LIBXL_DISK_FORMAT_RAW     ? FORMAT_RAW
	       : disk->format == LIBXL_DISK_FORMAT_QCOW2 ? FORMAT_QCOW2
	                                                 : 0;
}

/* As the guest sees it; 0: cannot be told. */
static uint64_t size_of(const char *path, enum disk_format format)
{
	unsigned char head[QCOW2_SIZE_AT + 8];
	uint64_t size = 0;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		size = 0;
	} else if (format == FORMAT_RAW) {
		size = (uint64_t)st.st_size;
	} else if (pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head)) {
		uint32_t magic = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
		for (unsigned i = 0; i < 8 && magic == QCOW2_MAGIC; i++)
			size = size << 8 | head[QCOW2_SIZE_AT + i];
	}
	close(fd);
	return size;
}

static int check_disk(const libxl_device_disk *disk, struct err *err)
{
	const char *name = disk->vdev != NULL ? disk->vdev : "?";
	if (disk->is_cdrom)
		return err_set(err, ERR_UNSUPPORTED, "disk %s is a CD-ROM drive; detach it", name);
	if (disk->backend_domid != 0 || disk->backend_domname != NULL)
		return err_set(err, ERR_UNSUPPORTED, "disk %s is served by another domain", name);
	if (disk->backend != LIBXL_DISK_BACKEND_QDISK)
		return err_set(err, ERR_UNSUPPORTED,
		               "disk %s is not served by QEMU (backendtype=qdisk): what the VM writes to it cannot be "
		               "followed",
		               name);
	if (format_of(disk) == 0)
		return err_set(err, ERR_UNSUPPORTED, "disk %s is neither raw nor qcow2", name);
	if (is_true(disk->colo_enable))
		return err_set(err, ERR_UNSUPPORTED, "disk %s is replicated by COLO", name);
	if (disk->vdev == NULL || disk->pdev_path == NULL || strlen(disk->vdev) >= LIMIT_NAME ||
	    strlen(disk->pdev_path) >= LIMIT_PATH)
		return err_set(err, ERR_UNSUPPORTED, "disk %s: its name or path is too long", name);
	return 0;
}

/* xentop's monitor, if it is there: libxl uses the other one by itself, and each serves one client at a time. */
static void find_monitor(uint32_t domid, char ret_path[LIMIT_PATH])
{
	static const char *const names[] = { "qmp-libxenstat", "qmp-libxl" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(ret_path, LIMIT_PATH, RUN_XEN "/%s-%u", names[i], domid);
		if (access(ret_path, F_OK) == 0)
			return;
	}
	ret_path[0] = '\0';
}

int xen_config_disks(struct hypervisor *hv, uint32_t domid, const libxl_domain_config *config, bool backend,
                     struct hypervisor_disk *ret_disks, unsigned *count, struct err *err)
{
	char monitor[LIMIT_PATH] = "";
	(void)hv;
	if (config->num_disks < 0 || (unsigned)config->num_disks > *count)
		return err_set(err, ERR_UNSUPPORTED, "it has %d disks, at most %u are handled", config->num_disks,
		               *count);
	if (backend)
		find_monitor(domid, monitor);
	for (int i = 0; i < config->num_disks; i++) {
		const libxl_device_disk *from = &config->disks[i];
		struct hypervisor_disk *to = &ret_disks[i];
		if (check_disk(from, err) != 0)
			return -1;
		memset(to, 0, sizeof(*to));
		memcpy(to->name, from->vdev, strlen(from->vdev));
		memcpy(to->path, from->pdev_path, strlen(from->pdev_path));
		memcpy(to->qmp_path, monitor, sizeof(monitor));
		to->format = format_of(from);
		to->size_bytes = size_of(to->path, to->format);
		to->read_only = !from->readwrite;
		if (to->size_bytes == 0)
			return err_set(err, ERR_UNSUPPORTED, "disk %s: %.200s is no file of known size", to->name,
			               to->path);
		int bytes = snprintf(to->node, sizeof(to->node), "%s-%s", to->name, disk_format_name(to->format));
		if (bytes < 0 || (size_t)bytes >= sizeof(to->node))
			return err_set(err, ERR_UNSUPPORTED, "disk name '%s' is too long", to->name);
	}
	*count = (unsigned)config->num_disks;
	return 0;
}

/* ---- may it be migrated? ---- */
static int refuse(struct err *err, const char *why)
{
	return err_set(err, ERR_UNSUPPORTED, "%s", why);
}

static int check_devices(const libxl_domain_config *config, struct err *err)
{
	if (config->num_pcidevs > 0 || config->num_dtdevs > 0 || config->num_rdms > 0)
		return refuse(err, "it has a device of this host (PCI passthrough)");
	if (config->num_usbctrls > 0 || config->num_usbdevs > 0)
		return refuse(err, "it has a USB device of this host");
	if (config->num_vtpms > 0 || config->num_p9s > 0 || config->num_pvcallsifs > 0 || config->num_vdispls > 0 ||
	    config->num_vsnds > 0)
		return refuse(err, "it has a device (TPM, 9P share, display, sound) whose state stays on this host");
	if ((unsigned)config->num_nics > LIMIT_NICS)
		return err_set(err, ERR_UNSUPPORTED, "it has %d network interfaces, at most %d are handled",
		               config->num_nics, LIMIT_NICS);
	for (int i = 0; i < config->num_nics; i++)
		if (config->nics[i].backend_domid != 0 || config->nics[i].backend_domname != NULL)
			return refuse(err, "its network is served by another domain");
	if (config->b_info.num_vnuma_nodes > 0)
		return refuse(err, "it has virtual NUMA nodes, which libxl does not migrate");
	if (config->c_info.type == LIBXL_DOMAIN_TYPE_HVM && is_true(config->b_info.device_model_stubdomain))
		return refuse(err, "its device model runs in a stub domain");
	return 0;
}

static int check_toolstack(struct hypervisor *hv, uint32_t domid, struct err *err)
{
	uint8_t *data = NULL;
	int bytes = 0;
	if (libxl_userdata_retrieve(hv->ctx, domid, "libvirt-xml", &data, &bytes) != 0)
		return xen_fail(hv, err, "cannot tell whose domain %u is", domid);
	free(data);
	return bytes > 0 ? refuse(err, "it belongs to libvirt, which would not know where it went") : 0;
}

static int check_hypervisor(struct hypervisor *hv, struct err *err)
{
	libxl_physinfo info;
	libxl_physinfo_init(&info);
	int rc = libxl_get_physinfo(hv->ctx, &info);
	bool shadow = info.cap_shadow;
	libxl_physinfo_dispose(&info);
	if (rc != 0)
		return xen_fail(hv, err, "cannot ask Xen about this host");
	return shadow ? 0
	              : refuse(err, "it is a PV domain and this Xen is built without shadow paging, by which alone "
	                            "what a PV domain writes can be followed");
}

int xen_config_check(struct hypervisor *hv, const xc_domaininfo_t *info, const libxl_domain_config *config,
                     struct err *err)
{
	char text[8];
	unsigned count = LIMIT_DISKS;
	struct hypervisor_disk *disks = calloc(LIMIT_DISKS, sizeof(*disks));
	if (disks == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory");
	int result = xen_config_disks(hv, info->domain, config, false, disks, &count, err);
	free(disks);
	if (result != 0 || check_devices(config, err) != 0 || check_toolstack(hv, info->domain, err) != 0)
		return -1;
	if (config->c_info.type == LIBXL_DOMAIN_TYPE_PV && check_hypervisor(hv, err) != 0)
		return -1;
	if ((info->flags & XEN_DOMINF_paused) != 0 && !xen_domain_is_suspended(info))
		return refuse(err, "it is paused, and a VM that does not run cannot be suspended; unpause it");
	/* The node is there from the start, and empty until the kernel says that it can. HVM without PV drivers has
	 * none and can. */
	if (config->c_info.type != LIBXL_DOMAIN_TYPE_HVM &&
	    (!xen_domain_node(hv, info->domain, XEN_CAN_SUSPEND, text, sizeof(text)) || strcmp(text, "1") != 0))
		return refuse(err, "its kernel has not said (yet) that it can be suspended");
	return 0;
}
