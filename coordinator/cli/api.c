/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/api.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus.h"
#include "coordinator/cli/doc.h"
#include "coordinator/cli/exits.h"

struct api {
	struct loop *loop;
	struct bus_client *client;
	const struct place *place;
	unsigned connect_timeout_ms;
	bool up;      /* connected, the hello is sent */
	bool welcome; /* ... and answered */
	bool late;    /* the timer ran out */
	bool done;    /* what is waited for has come */
	int signo;
	uint32_t version;
	uint64_t sequence;
	const struct msg_request *asking; /* waits for its answer */
	bool lost;                        /* the connection went down after it was sent */
	struct api_reply *reply;
	struct err *err; /* why there is none; code ERR_NONE while all is well */
};

void api_reply_free(struct api_reply *reply)
{
	json_decref(reply->doc);
	reply->doc = NULL;
}

static bool only_reads(const struct msg_request *request)
{
	return request->verb != VERB_MIGRATE && request->verb != VERB_CANCEL && !request->sweep;
}

static void finish(struct api *api)
{
	api->done = true;
	loop_stop(api->loop);
}

static void send_request(struct api *api)
{
	struct msg msg = { .version = api->version, .sequence = api->sequence, .kind = MSG_REQUEST };

	msg.u.request = *api->asking;
	if (bus_client_send(api->client, &msg, api->err) != 0 && api->err->code != ERR_UNREACHABLE)
		finish(api);
	else
		err_clear(api->err); /* a connection that is gone comes back, or the timer ends this */
}

static void on_connection(void *ctx, bool up)
{
	struct api *api = ctx;
	struct msg msg = { .version = PROTOCOL_VERSION, .kind = MSG_HELLO };

	api->up = up;
	if (!up) {
		api->welcome = false;
		api->lost = true;
		return;
	}
	msg.u.hello.version_min = PROTOCOL_VERSION_MIN;
	msg.u.hello.version_max = PROTOCOL_VERSION;
	memcpy(msg.u.hello.software, DROVER_VERSION, sizeof(DROVER_VERSION));
	bus_client_send(api->client, &msg, NULL);
}

static void take_reply(struct api *api, const struct msg_reply *reply)
{
	if (doc_parse(&api->reply->doc, reply->json, api->err) != 0) {
		finish(api);
		return;
	}
	api->reply->code = reply->code;
	api->reply->exit_code = exit_of_reply(reply->code, reply->exit_code);
	memcpy(api->reply->text, reply->text, sizeof(api->reply->text));
	finish(api);
}

static void on_message(void *ctx, const struct msg *msg)
{
	struct api *api = ctx;

	if (msg->kind == MSG_WELCOME && !api->welcome) {
		api->welcome = true;
		api->version = msg->u.welcome.version;
		if (!api->asking)
			finish(api);
		else if (!api->lost || only_reads(api->asking))
			send_request(api);
	} else if (msg->kind == MSG_REPLY && api->asking && msg->sequence == api->sequence) {
		take_reply(api, &msg->u.reply);
	} else if (msg->kind == MSG_ERROR && (api->asking || !api->welcome) &&
	           (msg->sequence == 0 || msg->sequence == api->sequence)) {
		err_set(api->err, msg->u.error.code == ERR_NONE ? ERR_PROTOCOL : msg->u.error.code,
		        "the coordinator refuses: %s", msg->u.error.text);
		finish(api);
	}
}

static void on_late(void *ctx)
{
	struct api *api = ctx;

	api->late = true;
	loop_stop(api->loop);
}

static void on_signal(void *ctx, int signo)
{
	struct api *api = ctx;

	api->signo = signo;
	loop_stop(api->loop);
}

/* Runs the loop until `done`, a signal, or the time is up. 0: done. */
static int run(struct api *api, unsigned timeout_ms, struct err *err)
{
	int timer = loop_timer(api->loop, timeout_ms, false, on_late, api, err);
	int failed = timer < 0 ? -1 : 0;

	api->late = false;
	while (!failed && !api->done && !api->late && !api->signo)
		failed = loop_run(api->loop, err);
	if (!api->late)
		loop_timer_end(api->loop, timer);
	if (failed)
		return -1;
	if (api->done)
		return 0;
	if (api->signo)
		return err_set(err, ERR_CANCELLED, "interrupted");
	return err_set(err, ERR_TIMEOUT, "no answer within %u ms", timeout_ms);
}

int api_open(struct api **ret_api, const struct place *place, unsigned connect_timeout_ms, struct err *err)
{
	struct err own = { 0 };
	struct api *api = calloc(1, sizeof(*api));

	if (!api)
		return err_set(err, ERR_NO_MEMORY, "reach the coordinator: no memory");
	api->place = place;
	api->connect_timeout_ms = connect_timeout_ms;
	api->version = PROTOCOL_VERSION;
	api->err = &own;
	api->loop = loop_new(err);
	if (!api->loop)
		goto failed;
	loop_on_signal(api->loop, on_signal, api);
	if (bus_connect(&api->client, api->loop, place->endpoint, place->key_file, place->server_cert, on_message, api,
	                err) != 0) {
		err_wrap(err, "reach the coordinator at %s", place->endpoint);
		goto failed;
	}
	bus_on_connection(api->client, on_connection, api);
	if (run(api, connect_timeout_ms, err) != 0) {
		if (err && err->code == ERR_TIMEOUT)
			err_set(err, ERR_UNREACHABLE,
			        "reach the coordinator: no answer from %s (%.200s) within %u.%u s%s; is it running, "
			        "and is the key in "
			        "%.100s authorised there?",
			        place->endpoint, place->file, connect_timeout_ms / 1000,
			        connect_timeout_ms % 1000 / 100, api->up ? ", though connected" : "",
			        strrchr(place->key_file, '/') ? strrchr(place->key_file, '/') + 1 : place->key_file);
		goto failed;
	}
	if (own.code != ERR_NONE) {
		err_set(err, own.code, "reach the coordinator at %s: %.400s", place->endpoint, own.text);
		goto failed;
	}
	api->err = NULL;
	*ret_api = api;
	return 0;
failed:
	api_close(api);
	return -1;
}

void api_close(struct api *api)
{
	if (!api)
		return;
	if (api->client)
		bus_client_free(api->client);
	if (api->loop)
		loop_free(api->loop);
	free(api);
}

int api_call(struct api *api, const struct msg_request *request, unsigned timeout_ms, struct api_reply *ret_reply,
             struct err *err)
{
	struct err own = { 0 };

	memset(ret_reply, 0, sizeof(*ret_reply));
	api->sequence++;
	api->asking = request;
	api->reply = ret_reply;
	api->err = &own;
	api->lost = false;
	api->done = false;
	if (api->welcome)
		send_request(api);
	int failed = run(api, timeout_ms, err);
	api->asking = NULL;
	api->reply = NULL;
	api->err = NULL;
	if (failed && err && err->code == ERR_TIMEOUT)
		return err_set(err, ERR_UNREACHABLE, "%s: no answer from %s (%.200s) within %u s; %s",
		               verb_name(request->verb), api->place->endpoint, api->place->file, timeout_ms / 1000,
		               only_reads(request) ? "is the coordinator running?"
		               : request->sweep    ? "whether it was done is unknown: look with 'drover events'"
		                                   : "whether it was done is unknown: look with 'drover list --all'");
	if (failed || own.code == ERR_NONE)
		return failed;
	api_reply_free(ret_reply);
	return err_set(err, own.code, "%s: %.400s", verb_name(request->verb), own.text);
}

static void on_slept(void *ctx)
{
	finish(ctx);
}

int api_sleep(struct api *api, unsigned ms)
{
	int timer = loop_timer(api->loop, ms, false, on_slept, api, NULL);

	api->done = false;
	while (timer > 0 && !api->done && !api->signo)
		if (loop_run(api->loop, NULL) != 0)
			break;
	if (!api->done)
		loop_timer_end(api->loop, timer);
	return api->signo ? -1 : 0;
}

int api_signal(const struct api *api)
{
	return api->signo;
}

unsigned api_patience_ms(const struct api *api)
{
	return api->connect_timeout_ms;
}
