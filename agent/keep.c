/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What sessions left on this host: kept disks go when their time is over, leftovers are told of. */
#include <inttypes.h>
#include <stdlib.h>

#include "agent/agent_impl.h"
#include "common/clock.h"
#include "common/log.h"

static void expire(struct agent *agent, const struct journal_resource *kept)
{
	struct err err;
	if (kept->path[0] && sr_disk_remove(kept->path, &err) < 0) {
		log_warning("event=kept-disk migration=%" PRIu64 " disk=%s path=%s error=\"%s\"", kept->migration,
		            kept->name, kept->path, err.text);
		return; /* tried again with the next sweep */
	}
	if (journal_resource_gone(agent->journal, kept->id, &err) < 0) {
		log_error("event=journal error=\"%s\"", err.text);
		return;
	}
	log_notice("event=kept-disk-removed migration=%" PRIu64 " disk=%s path=%s", kept->migration, kept->name,
	           kept->path);
}

/* Nobody works on it any more, and it is not there on purpose. */
static bool is_leftover(struct agent *agent, const struct journal_resource *resource)
{
	if (resource->state == RESOURCE_KEPT)
		return false;
	const struct session *session = session_find(agent, resource->migration, resource->generation);
	return !session || (session_is_final(session->row.core.state) && !session->row.core.leg_wanted);
}

void keep_sweep(struct agent *agent)
{
	struct journal_resource *list = NULL;
	size_t count = 0;
	struct err err;
	unsigned leftovers = 0;
	uint64_t now_ms = (uint64_t)clock_real.wall_ms(&clock_real);
	if (journal_resource_list(agent->journal, 0, 0, &list, &count, &err) < 0) {
		log_error("event=journal error=\"%s\"", err.text);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		const struct journal_resource *resource = &list[i];
		if (resource->state == RESOURCE_KEPT && resource->kept_until_wall_ms != 0 &&
		    resource->kept_until_wall_ms <= now_ms)
			expire(agent, resource);
		leftovers += is_leftover(agent, resource);
	}
	if (leftovers != agent->leftovers) {
		agent->leftovers = leftovers;
		log_warning("event=leftovers count=%u", leftovers);
		for (size_t i = 0; i < count; i++)
			if (is_leftover(agent, &list[i]))
				log_warning("event=leftover migration=%" PRIu64 " kind=%s name=%s path=%s",
				            list[i].migration, resource_kind_name(list[i].kind), list[i].name,
				            list[i].path);
	}
	free(list);
}
