/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One connection to the coordinator, one question at a time, each with a time limit.
 *
 * Laws: an answer that did not come is "unknown", never "refused"; what only reads is asked again after a connection
 * was lost and came back, what changes anything is not. SIGINT and SIGTERM end whatever is waited for.
 */
#ifndef DROVER_CLI_API_H
#define DROVER_CLI_API_H

#include <jansson.h>

#include "common/err.h"
#include "coordinator/cli/place.h"
#include "proto/msg.h"

#define API_REPLY_MS 30000u      /* how long an answer may take once connected */
#define API_LEFTOVERS_MS 160000u /* hosts look, and may take away */
#define API_DRY_RUN_MS 120000u   /* pre-checks ask two hosts */

struct api;

struct api_reply {
	enum err_code code; /* ERR_NONE: as asked */
	unsigned exit_code; /* of docs/CLI.md, 0 to 8 */
	char text[LIMIT_TEXT];
	json_t *doc; /* an object, never NULL; api_reply_free() */
};
void api_reply_free(struct api_reply *reply);

/* Connects, says hello and waits for the welcome. ERR_UNREACHABLE after connect_timeout_ms (the words say where it was
 * looked for, and that a key that is not authorised looks the same), ERR_DENIED or ERR_VERSION if refused in words,
 * ERR_CANCELLED on a signal. */
int api_open(struct api **ret_api, const struct place *place, unsigned connect_timeout_ms, struct err *err);
void api_close(struct api *api);

/* Asks and waits. 0: *ret_reply is filled, and may itself say that it was refused. ERR_UNREACHABLE: no answer within
 * timeout_ms; ERR_PROTOCOL: one that is not JSON; ERR_CANCELLED on a signal. */
int api_call(struct api *api, const struct msg_request *request, unsigned timeout_ms, struct api_reply *ret_reply,
             struct err *err);

/* Waits. -1 on a signal, else 0. */
int api_sleep(struct api *api, unsigned ms);
/* The signal that came, 0 if none. */
int api_signal(const struct api *api);
/* How long an unanswered connection is waited for, as api_open was told. */
unsigned api_patience_ms(const struct api *api);

#endif
