/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/leg/inventory.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_conf.h"
#include "common/log.h"

/* ---- SRs, for drivers that only know paths ---- */
static bool lacks_sr(const struct msg_inventory *inventory)
{
	for (uint32_t i = 0; i < inventory->vm_count; i++)
		for (uint32_t k = 0; k < inventory->vms[i].disk_count; k++)
			if (inventory->vms[i].disks[k].sr[0] == '\0')
				return true;
	return false;
}

static const char *path_of(const struct hypervisor_vm *vms, size_t count, const uuid_bytes uuid, const char *disk)
{
	for (size_t i = 0; i < count; i++)
		for (unsigned k = 0; k < vms[i].disk_count; k++)
			if (memcmp(vms[i].uuid, uuid, sizeof(uuid_bytes)) == 0 &&
			    strcmp(vms[i].disks[k].name, disk) == 0)
				return vms[i].disks[k].path;
	return NULL;
}

/* The SR in whose directory the file is. Where there is none, the directory itself: it is no SR's name, and the check
 * says which one agent.conf lacks. */
static void find_sr(const struct agent_conf *conf, const char *path, char ret_sr[LIMIT_NAME])
{
	char file[PATH_MAX], dir[PATH_MAX];
	char *slash = path && realpath(path, file) ? strrchr(file, '/') : NULL;
	if (!slash)
		return;
	*slash = '\0';
	for (uint32_t i = 0; i < conf->sr_count; i++)
		if (realpath(conf->srs[i].path, dir) && strcmp(dir, file) == 0) {
			memcpy(ret_sr, conf->srs[i].name, LIMIT_NAME);
			return;
		}
	snprintf(ret_sr, LIMIT_NAME, "%.*s", LIMIT_NAME - 1, file);
}

static int fill_srs(struct hypervisor *hv, const struct hypervisor_ops *ops, const struct paths *paths,
                    struct msg_inventory *inventory, struct err *err)
{
	struct hypervisor_vm *vms = NULL;
	size_t count = 0;
	if (!lacks_sr(inventory))
		return 0;
	struct agent_conf *conf = calloc(1, sizeof(*conf));
	int rc = conf ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for the configuration");
	if (!rc)
		rc = agent_conf_load(conf, paths, NULL, err) || ops->vms(hv, &vms, &count, err) ? -1 : 0;
	for (uint32_t i = 0; i < inventory->vm_count && !rc; i++) {
		struct msg_vm *vm = &inventory->vms[i];
		for (uint32_t k = 0; k < vm->disk_count; k++)
			if (vm->disks[k].sr[0] == '\0')
				find_sr(conf, path_of(vms, count, vm->uuid, vm->disks[k].name), vm->disks[k].sr);
	}
	free(vms);
	free(conf);
	return rc;
}

/* ---- the whole ---- */
static int print(const struct msg_inventory *inventory, FILE *out, struct err *err)
{
	void *blob = NULL;
	size_t bytes = 0;
	int rc = msg_inventory_encode(inventory, &blob, &bytes, err);
	if (!rc && (fwrite(blob, 1, bytes, out) != bytes || fflush(out)))
		rc = err_errno(err, ERR_IO, errno, "write the inventory");
	free(blob);
	return rc;
}

int inventory_print(const char *home, const struct hypervisor_ops *ops, FILE *out)
{
	struct err err = { 0 };
	struct paths paths;
	struct hypervisor *hv = NULL;
	struct msg_inventory inventory = { 0 };
	int rc = -1;
	if (!paths_init(&paths, home, &err) && !ops->open(&hv, &paths, &err) && !ops->inventory(hv, &inventory, &err) &&
	    !fill_srs(hv, ops, &paths, &inventory, &err)) {
		snprintf(inventory.hypervisor, sizeof(inventory.hypervisor), "%s", ops->name);
		snprintf(inventory.software, sizeof(inventory.software), "%s", DROVER_VERSION);
		rc = print(&inventory, out, &err);
	}
	if (rc)
		log_error("event=inventory-failed error=\"%s\"", err.text);
	msg_inventory_free(&inventory);
	if (hv)
		ops->close(hv);
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
