/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hypervisor_xen: what a source tells of a VM ahead of its memory, and what a destination makes of it. */
#include <stdlib.h>
#include <string.h>

#include "agent/hypervisor/xen_driver.h"

/* ---- source ---- */
static int read_features(struct hypervisor *hv, uint32_t domid, uint32_t words[XEN_CPU_WORDS], struct err *err)
{
	uint32_t leaf_count = 0, msr_count = 0;
	xen_cpuid_leaf_t *leaves = NULL;
	xen_msr_entry_t *msrs = NULL;
	xc_cpu_policy_t *policy = xc_cpu_policy_init();
	int result = -1;
	memset(words, 0, XEN_CPU_WORDS * sizeof(words[0]));
	if (policy != NULL && xc_cpu_policy_get_size(hv->xch, &leaf_count, &msr_count) == 0) {
		leaves = calloc(leaf_count, sizeof(*leaves));
		msrs = calloc(msr_count, sizeof(*msrs));
	}
	if (leaves != NULL && msrs != NULL && xc_cpu_policy_get_domain(hv->xch, domid, policy) == 0)
		result = xc_cpu_policy_serialise(hv->xch, policy, leaves, &leaf_count, msrs, &msr_count);
	for (uint32_t i = 0; i < leaf_count && result == 0; i++) {
		const struct xen_cpu_leaf leaf = { leaves[i].leaf, leaves[i].subleaf, leaves[i].a,
			                           leaves[i].b,    leaves[i].c,       leaves[i].d };
		xen_cpu_add(words, &leaf);
	}
	free(leaves);
	free(msrs);
	xc_cpu_policy_destroy(policy);
	return result == 0 ? 0 : xen_fail(hv, err, "cannot read the CPU that domain %u sees", domid);
}

static json_t *pack(const char *config, const char *userdata, int userdata_bytes, bool is_pv,
                    const libxl_version_info *version, const uint32_t words[XEN_CPU_WORDS])
{
	json_t *features = json_array();
	for (unsigned i = 0; i < XEN_CPU_WORDS; i++)
		json_array_append_new(features, json_integer(words[i]));
	json_t *root = json_pack("{s:s,s:b,s:i,s:i,s:o}", "config", config, "pv", (int)is_pv, "major",
	                         version->xen_version_major, "minor", version->xen_version_minor, "features", features);
	/* A file of the operator's: what is not UTF-8 is not taken along. */
	json_t *text = userdata != NULL ? json_stringn(userdata, (size_t)userdata_bytes) : NULL;
	if (root != NULL && text != NULL)
		json_object_set_new(root, "userdata", text);
	return root;
}

int xen_describe(struct hypervisor *hv, uint32_t domid, char **ret_text, struct err *err)
{
	libxl_domain_config config;
	uint32_t words[XEN_CPU_WORDS];
	uint8_t *userdata = NULL;
	int bytes = 0;
	const libxl_version_info *version = libxl_get_version_info(hv->ctx);
	if (version == NULL)
		return xen_fail(hv, err, "Xen does not tell its version");
	if (read_features(hv, domid, words, err) != 0 || xen_config_read(hv, domid, &config, err) != 0)
		return -1;
	char *text = libxl_domain_config_to_json(hv->ctx, &config);
	bool is_pv = config.c_info.type == LIBXL_DOMAIN_TYPE_PV;
	libxl_domain_config_dispose(&config);
	if (text == NULL)
		return xen_fail(hv, err, "libxl cannot write down the configuration of domain %u", domid);
	if (libxl_userdata_retrieve(hv->ctx, domid, "xl", &userdata, &bytes) != 0)
		userdata = NULL; /* undefined on errors */
	json_t *root = pack(text, (const char *)userdata, bytes, is_pv, version, words);
	free(text);
	free(userdata);
	*ret_text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (*ret_text == NULL)
		return err_set(err, ERR_NO_MEMORY, "no memory for the description of domain %u", domid);
	if (strlen(*ret_text) <= XEN_STREAM_TEXT_MAX)
		return 0;
	free(*ret_text);
	return err_set(err, ERR_UNSUPPORTED, "the configuration of domain %u is too long", domid);
}

/* ---- destination ---- */
void xen_description_free(struct xen_description *description)
{
	free(description->config);
	free(description->userdata);
	*description = (struct xen_description) { 0 };
}

int xen_description_parse(const char *text, size_t bytes, struct xen_description *ret_description, struct err *err)
{
	struct xen_description description = { 0 };
	const char *config, *userdata = NULL;
	int is_pv, major, minor;
	json_t *features, *item;
	size_t i;
	json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
	bool good =
		root != NULL && json_unpack(root, "{s:s,s:b,s:i,s:i,s:o,s?s}", "config", &config, "pv", &is_pv, "major",
	                                    &major, "minor", &minor, "features", &features, "userdata", &userdata) == 0;
	good = good && major >= 0 && minor >= 0 && json_is_array(features) &&
	       json_array_size(features) <= XEN_CPU_WORDS;
	for (i = 0; good && i < json_array_size(features); i++) {
		item = json_array_get(features, i);
		json_int_t word = json_integer_value(item);
		good = json_is_integer(item) && word >= 0 && word <= UINT32_MAX;
		description.features[i] = (uint32_t)word;
	}
	if (good) {
		description.is_pv = is_pv != 0;
		description.major = (unsigned)major;
		description.minor = (unsigned)minor;
		description.config = strdup(config);
		description.userdata = userdata != NULL ? strdup(userdata) : NULL;
	}
	bool whole = description.config != NULL && (userdata == NULL || description.userdata != NULL);
	json_decref(root);
	if (good && whole) {
		*ret_description = description;
		return 0;
	}
	xen_description_free(&description);
	return good ? err_set(err, ERR_NO_MEMORY, "no memory")
	            : err_set(err, ERR_PROTOCOL, "memory stream: the VM's description cannot be understood");
}

static int check_cpu(struct hypervisor *hv, const struct xen_description *description, struct err *err)
{
	uint32_t host[XEN_CPU_WORDS] = { 0 }, count = XEN_CPU_WORDS, bits;
	unsigned word;
	uint32_t set = description->is_pv ? XEN_SYSCTL_cpu_featureset_pv_max : XEN_SYSCTL_cpu_featureset_hvm_max;
	if (xc_get_cpu_featureset(hv->xch, set, &count, host) != 0)
		return xen_fail(hv, err, "cannot read what this host's CPU can do");
	if (xen_cpu_fits(description->features, host, count, &word, &bits))
		return 0;
	return err_set(err, ERR_UNSUPPORTED,
	               "this host's CPU cannot do all that the VM was told it can (word %u of the featureset, bits "
	               "%08x); start the VM with a cpuid= that both hosts have",
	               word, bits);
}

int xen_description_check(struct hypervisor *hv, const struct xen_description *description, struct err *err)
{
	const libxl_version_info *version = libxl_get_version_info(hv->ctx);
	if (version == NULL)
		return xen_fail(hv, err, "Xen does not tell its version");
	unsigned major = (unsigned)version->xen_version_major, minor = (unsigned)version->xen_version_minor;
	if (major < description->major || (major == description->major && minor < description->minor))
		return err_set(err, ERR_UNSUPPORTED, "this host runs Xen %u.%u, older than the source's %u.%u", major,
		               minor, description->major, description->minor);
	return check_cpu(hv, description, err);
}
