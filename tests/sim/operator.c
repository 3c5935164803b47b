/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who asks for migrations and cancels them, over the network, with keys, again until he is answered; and who remembers
 * what he was told.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus.h"
#include "tests/sim/world.h"

#define WORK_TIME_PER_MIGRATION (1000 * MS)
#define ASK_AGAIN (4 * SECOND)
#define ORDER_TRIES 6
#define REFUSALS_MAX 8 /* of one submission: the host may be back, the VM be free again */

enum told { TOLD_NOTHING = 0, TOLD_CANCELLED, TOLD_PENDING, TOLD_TOO_LATE };

struct submission {
	struct msg_request request;
	uint64_t id; /* 0: not accepted yet */
	unsigned refusals;
	bool refused, cancelling;
	enum told told;         /* of the cancelling */
	char final[LIMIT_NAME]; /* a final state that it was told of */
	uint64_t sequence;      /* of what is being asked */
};

/* What an operator does in the end about what he alone can decide. */
struct order {
	struct msg_request request;
	uint64_t sequence;
	unsigned tries;
	bool done;
};

static struct {
	struct order *orders;
	unsigned order_count, resolved, forgotten;
	struct proc *proc;
	struct bus_client *client;
	struct submission *list;
	unsigned count, asked, accepted, refused, cancels, told[4];
	uint64_t sequence;
	int64_t work_us;
} op;

static void ask_submission(void *ctx, uint64_t unused);
static void ask_cancel(void *ctx, uint64_t unused);

static bool is_settled(const struct submission *s)
{
	return s->refused || (s->id && (!s->cancelling || s->told != TOLD_NOTHING));
}

bool operator_is_done(void)
{
	for (unsigned i = 0; i < op.order_count; i++)
		if (!op.orders[i].done)
			return false;
	for (unsigned i = 0; i < op.count; i++)
		if (!is_settled(&op.list[i]))
			return false;
	return true;
}

static uint64_t ask(const struct msg_request *request)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	if (!msg)
		abort();
	msg->version = PROTOCOL_VERSION;
	msg->kind = MSG_REQUEST;
	msg->sequence = ++op.sequence;
	msg->u.request = *request;
	(void)bus_client_send(op.client, msg, NULL);
	free(msg);
	return op.sequence;
}

static void ask_submission(void *ctx, uint64_t unused)
{
	struct submission *s = ctx;
	(void)unused;
	if (s->id || s->refused)
		return;
	s->sequence = ask(&s->request);
	event_add(ASK_AGAIN, op.proc->pid, ask_submission, s, 0, false);
}

static void ask_cancel(void *ctx, uint64_t unused)
{
	struct submission *s = ctx;
	struct msg_request request = { .verb = VERB_CANCEL, .keep_source_s = -1, .keep_copy_s = -1 };
	(void)unused;
	if (s->told != TOLD_NOTHING)
		return;
	(void)snprintf(request.id, sizeof(request.id), "%llu", (unsigned long long)s->id);
	s->sequence = ask(&request);
	event_add(ASK_AGAIN, op.proc->pid, ask_cancel, s, 0, false);
}

/* ---- answers ---- */

static bool is_final(const char *state)
{
	return strcmp(state, "done") == 0 || strcmp(state, "cancelled") == 0 || strcmp(state, "failed") == 0 ||
	       strcmp(state, "lost") == 0;
}

static void hear_state(struct submission *s, json_t *doc)
{
	const char *state = json_string_value(json_object_get(doc, "state"));
	if (!state || !is_final(state))
		return;
	if (s->final[0] && strcmp(s->final, state) != 0)
		promise_broken("a final state never changes", "migration %llu was %s and is %s",
		               (unsigned long long)s->id, s->final, state);
	(void)snprintf(s->final, sizeof(s->final), "%s", state);
}

static void hear_submission(struct submission *s, const struct msg_reply *reply, json_t *doc)
{
	s->id = (uint64_t)json_integer_value(json_object_get(doc, "id"));
	if (s->id == 0 && ++s->refusals < REFUSALS_MAX && !world.calm)
		return; /* asked again */
	s->refused = s->id == 0;
	op.refused += s->refused;
	op.accepted += !s->refused;
	trace("%s to %s: migration %llu %s", s->request.vm, s->request.to, (unsigned long long)s->id, reply->text);
	if (s->id)
		hear_state(s, doc);
	if (s->id && s->cancelling)
		event_add(chance_us(0, chance_below(3) ? 3 * SECOND : 20 * SECOND), op.proc->pid, ask_cancel, s, 0,
		          false);
}

static void hear_cancel(struct submission *s, json_t *doc)
{
	const char *answer = json_string_value(json_object_get(doc, "cancel"));
	if (!answer)
		return; /* of an error that says nothing of it */
	s->told = strcmp(answer, "cancelled") == 0 ? TOLD_CANCELLED
	          : strcmp(answer, "pending") == 0 ? TOLD_PENDING
	                                           : TOLD_TOO_LATE;
	op.told[s->told]++;
	trace("cancel %llu: %s", (unsigned long long)s->id, answer);
	hear_state(s, doc);
}

static void hear_order(struct order *order, const struct msg_reply *reply)
{
	bool resolve = order->request.verb == VERB_RESOLVE;
	trace("%s %s%s: %s", verb_name(order->request.verb), order->request.id, order->request.host,
	      reply->code == ERR_NONE ? "done" : reply->text);
	order->done = reply->code == ERR_NONE || ++order->tries == ORDER_TRIES || reply->code == ERR_UNKNOWN_HOST;
	if (reply->code != ERR_NONE)
		return;
	op.resolved += resolve;
	op.forgotten += !resolve;
}

static void on_message(void *ctx, const struct msg *msg)
{
	(void)ctx;
	if (msg->kind != MSG_REPLY)
		return;
	for (unsigned i = 0; i < op.order_count; i++)
		if (op.orders[i].sequence == msg->sequence && !op.orders[i].done)
			hear_order(&op.orders[i], &msg->u.reply);
	for (unsigned i = 0; i < op.count; i++) {
		struct submission *s = &op.list[i];
		if (s->sequence != msg->sequence)
			continue;
		json_t *doc = json_loads(msg->u.reply.json ? msg->u.reply.json : "{}", 0, NULL);
		if (s->id == 0 && !s->refused)
			hear_submission(s, &msg->u.reply, doc);
		else if (s->id && s->told == TOLD_NOTHING)
			hear_cancel(s, doc);
		json_decref(doc);
		return;
	}
}

static void on_connection(void *ctx, bool up)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	(void)ctx;
	if (!msg)
		abort();
	msg->version = PROTOCOL_VERSION;
	msg->kind = MSG_HELLO;
	msg->u.hello.version_min = PROTOCOL_VERSION_MIN;
	msg->u.hello.version_max = PROTOCOL_VERSION;
	if (up)
		(void)bus_client_send(op.client, msg, NULL);
	free(msg);
}

/* ---- work ---- */

static void plan_submission(struct submission *s, struct guest *guest, struct machine *to, int64_t at_us)
{
	struct msg_request *request = &s->request;
	*request = (struct msg_request) { .verb = VERB_MIGRATE,
		                          .keep_source_s = chance_below(4) ? 0 : 3600,
		                          .keep_copy_s = -1,
		                          .max_downtime_ms = 1 + (uint32_t)chance_below(5000),
		                          .timeout_s = chance_below(6) ? 0 : 1 + (uint32_t)chance_below(20),
		                          .priority = (int32_t)chance_below(5) - 2 };
	(void)snprintf(request->vm, sizeof(request->vm), "%s", guest->name);
	(void)snprintf(request->to, sizeof(request->to), "%s", to->name);
	(void)snprintf(request->key, sizeof(request->key), "key-%u", op.asked);
	s->cancelling = chance_below(5) == 0;
	op.cancels += s->cancelling;
	op.asked++;
	event_add(at_us, op.proc->pid, ask_submission, s, 0, false);
}

static struct machine *another(const struct machine *than)
{
	struct machine *machine = world.machines[chance_below(world.machine_count)];
	return machine != than ? machine : world.machines[(machine->index + 1) % world.machine_count];
}

/* All VMs of a host, as an operator does who empties it. */
static void drain(void *ctx, uint64_t host)
{
	struct machine *machine = world.machines[host];
	(void)ctx;
	trace("%s is drained", machine->name);
	for (struct instance *i = machine->instances; i && op.asked < op.count; i = i->next)
		if (i->state != INSTANCE_INCOMING)
			plan_submission(&op.list[op.asked], i->guest, another(machine),
			                (int64_t)chance_below(500 * MS));
}

static void one(void *ctx, uint64_t unused)
{
	struct guest *guest = world.guests[chance_below(world.guest_count)];
	(void)ctx, (void)unused;
	if (op.asked < op.count)
		plan_submission(&op.list[op.asked], guest, another(guest->running ? guest->running->machine : NULL), 0);
}

int operator_begin(struct err *err)
{
	op.count = world.scenario.migrations;
	op.list = calloc(op.count ? op.count : 1, sizeof(*op.list));
	op.proc = proc_new(PROC_OPERATOR, NULL, NULL);
	if (!op.list)
		return err_set(err, ERR_NO_MEMORY, "operator");
	world_current = op.proc;
	int rc = bus_connect(&op.client, NULL, "sim", "", "", on_message, NULL, err);
	world_current = NULL;
	if (rc)
		return -1;
	bus_on_connection(op.client, on_connection, NULL);
	/* A big world works on more at a time. */
	int64_t work_us = 20 * SECOND + (int64_t)op.count * WORK_TIME_PER_MIGRATION * 10 / (10 + world.machine_count);
	op.work_us = 8 * SECOND + work_us;
	for (unsigned i = 0; i < op.count; i++)
		event_add(8 * SECOND + chance_us(0, work_us), op.proc->pid, one, NULL, 0, false);
	for (unsigned i = 0; i < 1 + op.count / 40; i++)
		event_add(8 * SECOND + chance_us(0, work_us), op.proc->pid, drain, NULL,
		          chance_below(world.machine_count), false);
	return 0;
}

/* ---- in the end ---- */

static void ask_order(void *ctx, uint64_t number)
{
	struct order *order = &op.orders[number];
	(void)ctx;
	if (order->done)
		return;
	order->sequence = ask(&order->request);
	event_add(ASK_AGAIN, op.proc->pid, ask_order, NULL, number, false);
}

static void add_order(const struct msg_request *request, int64_t after_us)
{
	op.orders = reallocarray(op.orders, op.order_count + 1, sizeof(*op.orders));
	if (!op.orders)
		abort();
	op.orders[op.order_count] = (struct order) { .request = *request };
	(void)snprintf(op.orders[op.order_count].request.reason, LIMIT_REASON, "it is gone for ever");
	event_add(after_us, op.proc->pid, ask_order, NULL, op.order_count++, false);
}

/* Who owns the VM, where one of the two hosts is gone, or was off and has lost it. */
static void resolve(const struct record *r)
{
	struct guest *guest = guest_by_uuid(r->vm);
	bool lost = strcmp(r->state, "lost") == 0;
	struct msg_request request = { .verb = VERB_RESOLVE, .keep_source_s = -1, .keep_copy_s = -1 };
	bool open = strcmp(r->state, "switching") == 0 || strcmp(r->state, "in-doubt") == 0 ||
	            strcmp(r->state, "committed") == 0;
	if (!guest || (!open && !lost) || (lost && chance_below(2)))
		return;
	bool to_source = lost ? chance_below(2) : r->destination->gone;
	if (!lost && r->destination->gone == r->source->gone)
		return;
	request.owner = to_source ? SIDE_SOURCE : SIDE_DESTINATION;
	(void)snprintf(request.id, sizeof(request.id), "%llu", (unsigned long long)r->id);
	(void)snprintf(request.fenced, sizeof(request.fenced), "%s", (to_source ? r->destination : r->source)->name);
	guest->ruled |= to_source;
	add_order(&request, SECOND);
}

void operator_close(void)
{
	size_t count = 0;
	struct record *list = records_list(&count);
	world.closed = true;
	for (size_t i = 0; i < count; i++)
		resolve(&list[i]);
	free(list);
	for (unsigned i = 0; i < world.machine_count; i++) {
		struct msg_request request = { .verb = VERB_HOST_FORGET, .keep_source_s = -1, .keep_copy_s = -1 };
		(void)snprintf(request.host, sizeof(request.host), "%s", world.machines[i]->name);
		if (world.machines[i]->gone)
			add_order(&request, 40 * SECOND);
	}
}

int64_t operator_work_us(void)
{
	return op.work_us;
}

void operator_free(void)
{
	if (op.client)
		bus_client_free(op.client);
	free(op.list);
	free(op.orders);
}

/* ---- was it true? ---- */

static const struct submission *submission_of(uint64_t id)
{
	for (unsigned i = 0; i < op.count; i++)
		if (op.list[i].id == id)
			return &op.list[i];
	return NULL;
}

void operator_check(void)
{
	size_t count = 0;
	struct record *list = records_list(&count);
	unsigned known = 0;
	for (size_t i = 0; i < count; i++) {
		const struct record *r = &list[i];
		const struct submission *s = submission_of(r->id);
		if (!s)
			continue;
		known++;
		bool forward = strcmp(r->state, "done") == 0 || strcmp(r->state, "committed") == 0;
		bool reopened = op.resolved && strcmp(s->final, "lost") == 0;
		if (s->final[0] && strcmp(s->final, r->state) != 0 && !reopened)
			promise_broken("a final state never changes", "migration %llu was %s and is %s",
			               (unsigned long long)r->id, s->final, r->state);
		if (s->told == TOLD_CANCELLED && forward)
			promise_broken("what a cancel is answered is true", "migration %llu was cancelled and is %s",
			               (unsigned long long)r->id, r->state);
	}
	if (known != op.accepted)
		promise_broken("what was accepted is on record", "%u of %u migrations are", known, op.accepted);
	free(list);
}

void operator_print(void)
{
	(void)printf("submitted %u accepted %u refused %u cancels %u: cancelled %u pending %u too-late %u\n", op.asked,
	             op.accepted, op.refused, op.cancels, op.told[TOLD_CANCELLED], op.told[TOLD_PENDING],
	             op.told[TOLD_TOO_LATE]);
	(void)printf("orders resolved %u forgotten %u\n", op.resolved, op.forgotten);
}
