/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What one field alone cannot tell. */
#include <string.h>

#include "proto/codec_shape.h"

static struct at below(const struct at *at, const char *name, int index)
{
	return (struct at) { .up = at, .name = name, .index = index };
}

static int must_be_set(bool set, const char *name, const struct at *at, struct err *err)
{
	struct at here = below(at, name, -1);
	return set ? 0 : at_fail(&here, err, "missing");
}

int rule_hello(const void *object, const struct at *at, struct err *err)
{
	const struct msg_hello *hello = object;
	if (hello->version_min <= hello->version_max)
		return 0;
	struct at here = below(at, "version_min", -1);
	return at_fail(&here, err, "%u, above version_max %u", hello->version_min, hello->version_max);
}

static bool we_speak(uint32_t version)
{
	return version >= PROTOCOL_VERSION_MIN && version <= PROTOCOL_VERSION;
}

int rule_welcome(const void *object, const struct at *at, struct err *err)
{
	const struct msg_welcome *welcome = object;
	(void)at;
	if (we_speak(welcome->version))
		return 0;
	return err_set(err, ERR_VERSION, "welcome.version: %u, we speak %u to %u", welcome->version,
	               PROTOCOL_VERSION_MIN, PROTOCOL_VERSION);
}

int rule_disk(const void *object, const struct at *at, struct err *err)
{
	const struct msg_disk *disk = object;
	return must_be_set(disk->name[0] != '\0', "name", at, err);
}

int rule_vm(const void *object, const struct at *at, struct err *err)
{
	const struct msg_vm *vm = object;
	for (uint32_t i = 1; i < vm->disk_count; i++)
		for (uint32_t j = 0; j < i; j++)
			if (strcmp(vm->disks[i].name, vm->disks[j].name) == 0) {
				struct at disk = below(at, "disks", (int)i), here = below(&disk, "name", -1);
				return at_fail(&here, err, "'%s' is disks[%u] already", vm->disks[i].name, j);
			}
	return 0;
}

int rule_progress(const void *object, const struct at *at, struct err *err)
{
	const struct msg_progress *progress = object;
	for (uint32_t i = 1; i < progress->disk_count; i++)
		for (uint32_t j = 0; j < i; j++)
			if (strcmp(progress->disks[i].name, progress->disks[j].name) == 0) {
				struct at disk = below(at, "disks", (int)i), here = below(&disk, "name", -1);
				return at_fail(&here, err, "'%s' is disks[%u] already", progress->disks[i].name, j);
			}
	return 0;
}

int rule_session(const void *object, const struct at *at, struct err *err)
{
	const struct msg_session *session = object;
	if (must_be_set(session->migration != 0, "migration", at, err) != 0 ||
	    must_be_set(session->generation != 0, "generation", at, err) != 0)
		return -1;
	return must_be_set((unsigned)session->side != 0, "side", at, err);
}

int rule_session_or_none(const void *object, const struct at *at, struct err *err)
{
	const struct msg_session *session = object;
	return session->phase == PHASE_NONE ? 0 : rule_session(object, at, err);
}

int rule_plan(const void *object, const struct at *at, struct err *err)
{
	const struct msg_plan *plan = object;
	for (uint32_t i = 0; i < plan->vm.disk_count; i++) {
		struct at disk = below(at, "to", (int)i);
		if (must_be_set(plan->to[i].sr[0] != '\0', "sr", &disk, err) != 0)
			return -1;
		if (plan->to[i].name[0] == '\0' || strcmp(plan->to[i].name, plan->vm.disks[i].name) == 0)
			continue;
		struct at here = below(&disk, "name", -1);
		return at_fail(&here, err, "'%s', but vm.disks[%u] is '%s'", plan->to[i].name, i,
		               plan->vm.disks[i].name);
	}
	return 0;
}

int rule_command(const void *object, const struct at *at, struct err *err)
{
	const struct msg_command *command = object;
	bool wants_plan = command->step == STEP_CHECK || command->step == STEP_PREPARE;
	if (wants_plan == (command->plan != NULL))
		return 0;
	struct at here = below(at, "plan", -1);
	return at_fail(&here, err, wants_plan ? "missing, %s needs one" : "%s takes none", step_name(command->step));
}

int rule_answer(const void *object, const struct at *at, struct err *err)
{
	const struct msg_answer *answer = object;
	if (answer->outcome != OUTCOME_REFUSED || answer->cause.code != ERR_NONE)
		return 0;
	struct at cause = below(at, "cause", -1), here = below(&cause, "code", -1);
	return at_fail(&here, err, "missing in a refusal");
}

int rule_error(const void *object, const struct at *at, struct err *err)
{
	const struct err *error = object;
	return must_be_set(error->code != ERR_NONE, "code", at, err);
}

int rule_version(const struct msg *msg, struct err *err)
{
	/* Whoever speaks no version of ours must still be able to say so, and to be answered. */
	if (msg->version != 0 && (msg->kind == MSG_HELLO || msg->kind == MSG_ERROR))
		return 0;
	if (we_speak(msg->version))
		return 0;
	return err_set(err, ERR_VERSION, "version: %u, we speak %u to %u", msg->version, PROTOCOL_VERSION_MIN,
	               PROTOCOL_VERSION);
}

static bool is_about_a_migration(enum msg_kind kind)
{
	switch (kind) {
	case MSG_COMMAND:
	case MSG_ANSWER:
	case MSG_REPORT:
	case MSG_PROGRESS:
	case MSG_FACTS:
		return true;
	case MSG_HELLO:
	case MSG_WELCOME:
	case MSG_HEARTBEAT:
	case MSG_HEARTBEAT_ACK:
	case MSG_INVENTORY:
	case MSG_REQUEST:
	case MSG_REPLY:
	case MSG_ERROR:
	case MSG_SURVEY:
	case MSG_HOLDINGS:
	case MSG_KINDS:
		break;
	}
	return false;
}

int rule_envelope(const struct msg *msg, struct err *err)
{
	if (!is_about_a_migration(msg->kind))
		return 0;
	if (must_be_set(msg->migration != 0, "migration", NULL, err) != 0 ||
	    must_be_set(msg->generation != 0, "generation", NULL, err) != 0)
		return -1;
	if (msg->kind != MSG_REPORT ||
	    (msg->u.report.migration == msg->migration && msg->u.report.generation == msg->generation))
		return 0;
	return err_set(err, ERR_PROTOCOL, "report: about migration %llu generation %u, but the envelope says %llu, %u",
	               (unsigned long long)msg->u.report.migration, msg->u.report.generation,
	               (unsigned long long)msg->migration, msg->generation);
}
