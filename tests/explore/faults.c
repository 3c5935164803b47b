/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What fails, at a cost of one of the world's faults each. */
#include <string.h>

#include "tests/explore/world.h"

static const struct verdict_facts no_facts;

static bool leg_dies(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (h->dead || !h->leg.lives)
		return false;
	h->leg.out = 0;
	leg_end(w, i);
	return true;
}

static bool reboot(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (h->dead)
		return false;
	h->leg.out = 0;
	leg_end(w, i);
	h->vm = IMAGE_NONE;
	h->old_boot = h->row;
	h->failed = true;
	if (w->c.core.state != MIGRATION_QUEUED)
		w->c.hello[i] = w->c.new_boot[i] = true;
	agent_restart(w, i);
	return true;
}

static bool host_dies(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (h->dead)
		return false;
	h->leg.out = 0;
	leg_end(w, i);
	h->dead = true;
	h->connected = false;
	return true;
}

/* V11: the disk with the journal was replaced, agent and leg started again. The VM stays as it is. */
static bool lose_journal(struct world *w, int i, unsigned arg)
{
	struct host *h = &w->h[i];
	(void)arg;
	if (h->dead)
		return false;
	h->leg.out = 0;
	leg_end(w, i);
	*h = (struct host) { .lost = true, .vm = h->vm, .failed = true };
	if (w->c.core.state != MIGRATION_QUEUED)
		w->c.hello[i] = w->c.new_journal[i] = true;
	return true;
}

static bool c_dies(struct world *w, int i, unsigned arg)
{
	(void)i;
	(void)arg;
	if (w->c.dead)
		return false;
	w->c.dead = true;
	return true;
}

static bool cut(struct world *w, int i, unsigned arg)
{
	(void)arg;
	if (w->o.cut[i])
		return false;
	w->o.cut[i] = true;
	return true;
}

static bool cut_legs(struct world *w, int i, unsigned arg)
{
	(void)i;
	(void)arg;
	if (w->o.cut_legs)
		return false;
	w->o.cut_legs = true;
	if (w->o.link == LINK_UP)
		w->o.link = LINK_DOWN;
	return true;
}

static bool spoil_unpause(struct world *w, int i, unsigned arg)
{
	(void)i;
	(void)arg;
	if (w->o.cannot_unpause || w->o.ran)
		return false;
	w->o.cannot_unpause = true;
	return true;
}

const struct step_rule fault_rules[] = {
	{ "S's leg is killed", leg_dies, S, 0, FAULT },
	{ "D's leg is killed", leg_dies, D, 0, FAULT },
	{ "S is rebooted", reboot, S, 0, FAULT },
	{ "D is rebooted", reboot, D, 0, FAULT },
	{ "S dies for ever", host_dies, S, 0, FAULT },
	{ "D dies for ever", host_dies, D, 0, FAULT },
	{ "S loses its journal", lose_journal, S, 0, FAULT },
	{ "D loses its journal", lose_journal, D, 0, FAULT },
	{ "C dies for ever", c_dies, 0, 0, FAULT },
	{ "C and S are cut for ever", cut, S, 0, FAULT },
	{ "C and D are cut for ever", cut, D, 0, FAULT },
	{ "S and D are cut for ever", cut_legs, 0, 0, FAULT },
	{ "D can never unpause", spoil_unpause, 0, 0, FAULT },
	{ 0 },
};

const struct step_rule *const step_rules[] = {
	coordinator_rules, agent_rules, leg_rules, copy_rules, fault_rules, NULL
};

void world_init(struct world *w, unsigned faults, unsigned nuisances)
{
	memset(w, 0, sizeof(*w));
	migration_init(&w->c.core);
	w->h[S].vm = IMAGE_RUNNING;
	w->o.faults = faults;
	w->o.nuisances = nuisances;
	w->o.truth = no_facts;
}
