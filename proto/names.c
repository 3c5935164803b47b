/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The words for the enums of msg.h, as docs/CLI.md and operators see them. */
#include <stddef.h>
#include <string.h>

#include "proto/msg.h"

#define COUNT(names) (sizeof(names) / sizeof((names)[0]))

static const char *const roles[] = {
	[ROLE_NONE] = "none",         [ROLE_COORDINATOR] = "coordinator", [ROLE_AGENT] = "agent",
	[ROLE_OPERATOR] = "operator", [ROLE_SUBMITTER] = "submitter",     [ROLE_VIEWER] = "viewer",
};
_Static_assert(COUNT(roles) == ROLES, "a role without a name");

static const char *const sides[] = { [SIDE_SOURCE] = "source", [SIDE_DESTINATION] = "destination" };

static const char *const outcomes[] = {
	[OUTCOME_UNKNOWN] = "unknown",
	[OUTCOME_DONE] = "done",
	[OUTCOME_REFUSED] = "refused",
};

static const char *const steps[] = {
	[STEP_NONE] = "none",     [STEP_CHECK] = "check", [STEP_PREPARE] = "prepare", [STEP_COPY] = "copy",
	[STEP_SWITCH] = "switch", [STEP_ABORT] = "abort", [STEP_RELEASE] = "release", [STEP_FORGET] = "forget",
};
_Static_assert(COUNT(steps) == STEPS, "a step without a name");

static const char *const vm_states[] = {
	[VM_RUNNING] = "running",
	[VM_PAUSED] = "paused",
	[VM_SUSPENDED] = "suspended",
	[VM_HALTED] = "halted",
};

static const char *const formats[] = { [FORMAT_RAW] = "raw", [FORMAT_QCOW2] = "qcow2" };

static const char *const policies[] = {
	[ON_SLOW_WAIT] = "wait",
	[ON_SLOW_THROTTLE] = "throttle",
	[ON_SLOW_FORCE] = "force",
	[ON_SLOW_ABORT] = "abort",
};

static const char *const exporters[] = { [EXPORTER_NBD] = "nbd", [EXPORTER_ISCSI] = "iscsi" };

static const char *const phases[] = {
	[PHASE_NONE] = "none",
	[PHASE_CHECKED] = "checked",
	[PHASE_PREPARED] = "prepared",
	[PHASE_COPYING] = "copying",
	[PHASE_READY] = "ready",
	[PHASE_SWITCHING] = "switching",
	[PHASE_COMMITTED] = "committed",
	[PHASE_RELEASED] = "released",
	[PHASE_ROLLING_BACK] = "rolling-back",
	[PHASE_ROLLED_BACK] = "rolled-back",
};
_Static_assert(COUNT(phases) == PHASES, "a phase without a name");

static const char *const verbs[] = {
	[VERB_STATUS] = "status",       [VERB_MIGRATE] = "migrate",
	[VERB_LIST] = "list",           [VERB_SHOW] = "show",
	[VERB_EXPLAIN] = "explain",     [VERB_EVENTS] = "events",
	[VERB_CANCEL] = "cancel",       [VERB_HOST_LIST] = "host-list",
	[VERB_HOST_SHOW] = "host-show", [VERB_VM_LIST] = "vm-list",
	[VERB_VM_SHOW] = "vm-show",     [VERB_LEFTOVERS] = "leftovers",
	[VERB_RETRY] = "retry",         [VERB_UNDO] = "undo",
	[VERB_RESOLVE] = "resolve",     [VERB_HOST_FORGET] = "host-forget",
};
_Static_assert(COUNT(verbs) == VERBS, "a verb without a name");

static const char *const kinds[] = {
	[MSG_HELLO] = "hello",         [MSG_WELCOME] = "welcome",
	[MSG_HEARTBEAT] = "heartbeat", [MSG_HEARTBEAT_ACK] = "heartbeat-ack",
	[MSG_INVENTORY] = "inventory", [MSG_COMMAND] = "command",
	[MSG_ANSWER] = "answer",       [MSG_REPORT] = "report",
	[MSG_PROGRESS] = "progress",   [MSG_FACTS] = "facts",
	[MSG_REQUEST] = "request",     [MSG_REPLY] = "reply",
	[MSG_ERROR] = "error",         [MSG_SURVEY] = "survey",
	[MSG_HOLDINGS] = "holdings",
};
_Static_assert(COUNT(kinds) == MSG_KINDS, "a kind without a name");

static const char *const holdings[] = {
	[HOLDING_DISK] = "disk", [HOLDING_RESERVE] = "reserve", [HOLDING_EXPORT] = "export",
	[HOLDING_VM] = "vm",     [HOLDING_BITMAP] = "bitmap",   [HOLDING_SOURCE_DISK] = "source-disk",
	[HOLDING_FILE] = "file", [HOLDING_LEG] = "leg",
};
_Static_assert(COUNT(holdings) == HOLDING_KINDS, "a kind of holding without a name");

static const char *const overs[] = {
	[OVER_UNKNOWN] = "unknown",
	[OVER_ABORTED] = "aborted",
	[OVER_OTHER] = "other",
};
_Static_assert(COUNT(overs) == OVERS, "a way to be over without a name");

static const char *name_of(const char *const *names, size_t count, unsigned value, const char *otherwise)
{
	return value < count && names[value] != NULL ? names[value] : otherwise;
}

/* 0 if there is none of that name. */
static unsigned value_of(const char *const *names, size_t count, const char *name)
{
	for (unsigned i = 1; i < count; i++)
		if (name != NULL && names[i] != NULL && strcmp(names[i], name) == 0)
			return i;
	return 0;
}

const char *role_name(enum role role)
{
	return name_of(roles, COUNT(roles), (unsigned)role, "none");
}

enum role role_from_name(const char *name)
{
	return (enum role)value_of(roles, COUNT(roles), name);
}

const char *side_name(enum side side)
{
	return name_of(sides, COUNT(sides), (unsigned)side, "none");
}

enum side side_from_name(const char *name)
{
	return (enum side)value_of(sides, COUNT(sides), name);
}

enum party party_of(enum side side)
{
	switch (side) {
	case SIDE_SOURCE:
		return PARTY_SOURCE;
	case SIDE_DESTINATION:
		return PARTY_DESTINATION;
	}
	return PARTIES;
}

const char *outcome_name(enum outcome outcome)
{
	return name_of(outcomes, COUNT(outcomes), (unsigned)outcome, "unknown");
}

const char *step_name(enum step step)
{
	return name_of(steps, COUNT(steps), (unsigned)step, "unknown");
}

const char *vm_state_name(enum vm_state state)
{
	return name_of(vm_states, COUNT(vm_states), (unsigned)state, "unknown");
}

const char *disk_format_name(enum disk_format format)
{
	return name_of(formats, COUNT(formats), (unsigned)format, "unknown");
}

enum disk_format disk_format_from_name(const char *name)
{
	return (enum disk_format)value_of(formats, COUNT(formats), name);
}

const char *on_slow_name(enum on_slow policy)
{
	return name_of(policies, COUNT(policies), (unsigned)policy, "unknown");
}

enum on_slow on_slow_from_name(const char *name)
{
	return (enum on_slow)value_of(policies, COUNT(policies), name);
}

const char *exporter_name(enum exporter_kind kind)
{
	return name_of(exporters, COUNT(exporters), (unsigned)kind, "unknown");
}

enum exporter_kind exporter_from_name(const char *name)
{
	return (enum exporter_kind)value_of(exporters, COUNT(exporters), name);
}

const char *session_phase_name(enum session_phase phase)
{
	return name_of(phases, COUNT(phases), (unsigned)phase, "unknown");
}

const char *verb_name(enum verb verb)
{
	return name_of(verbs, COUNT(verbs), (unsigned)verb, "unknown");
}

const char *msg_kind_name(enum msg_kind kind)
{
	return name_of(kinds, COUNT(kinds), (unsigned)kind, "unknown");
}

const char *holding_kind_name(enum holding_kind kind)
{
	return name_of(holdings, COUNT(holdings), (unsigned)kind, "unknown");
}

const char *over_name(enum over over)
{
	return name_of(overs, COUNT(overs), (unsigned)over, "none");
}

enum over over_from_name(const char *name)
{
	return (enum over)value_of(overs, COUNT(overs), name);
}
