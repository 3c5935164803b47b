/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What this host really holds: the leg program looks, and takes away what it is told to. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/agent_impl.h"
#include "common/log.h"

#define OVER_WORDS_BYTES (LIMIT_HOLDINGS * 32) /* one is a number, a colon, a word and a comma */

static void answer(struct agent *agent)
{
	struct survey *survey = &agent->survey;
	struct msg *msg = control_msg(MSG_HOLDINGS);
	msg->sequence = survey->sequence;
	msg->u.holdings = survey->holdings;
	control_send(agent, msg);
	free(msg); /* the list stays the survey's */
}

static void on_done(struct agent *agent, const struct err *failure)
{
	struct survey *survey = &agent->survey;
	struct err err = *failure;
	msg_holdings_free(&survey->holdings);
	survey->holdings = (struct msg_holdings) { 0 };
	if (err.code != ERR_NONE ||
	    msg_holdings_decode(survey->query.bytes, survey->query.count, &survey->holdings, &err) < 0) {
		log_warning("event=survey error=\"%s\"", err.text);
		survey->holdings.cause = err; /* nothing is known: that is an answer too */
	}
	survey->holdings.sweep = survey->sweep;
	survey->answered = true;
	log_info("event=survey sweep=%d items=%u cut=%u code=%s", survey->sweep, survey->holdings.count,
	         survey->holdings.cut, err_name(survey->holdings.cause.code));
	answer(agent);
}

/* "17:aborted,18:unknown" */
static void over_words(const struct msg_survey *asked, char *ret_words)
{
	size_t used = 0;
	ret_words[0] = '\0';
	for (uint32_t i = 0; i < asked->over_count; i++)
		used += (size_t)snprintf(ret_words + used, OVER_WORDS_BYTES - used, "%s%" PRIu64 ":%s", i ? "," : "",
		                         asked->over[i].migration, over_name(asked->over[i].over));
}

void survey_asked(struct agent *agent, const struct msg *msg)
{
	struct survey *survey = &agent->survey;
	const struct msg_survey *asked = &msg->u.survey;
	struct err err = { 0 };
	bool same = survey->known && survey->epoch == msg->epoch && survey->sequence == msg->sequence;
	if (survey->query.pid > 0)
		return;
	if (same && survey->answered) {
		answer(agent);
		return;
	}
	char *over = malloc(OVER_WORDS_BYTES);
	if (!over)
		abort(); /* as in control_msg() */
	over_words(asked, over);
	const char *options[] = { "--over", over, asked->sweep ? "--sweep" : NULL, NULL };
	survey->known = true;
	survey->epoch = msg->epoch;
	survey->sequence = msg->sequence;
	survey->sweep = asked->sweep != 0;
	survey->answered = false;
	if (query_start(&survey->query, options, &err) < 0)
		on_done(agent, &err);
	free(over);
}

void survey_init(struct agent *agent)
{
	query_init(&agent->survey.query, agent, "survey", SURVEY_LIMIT_MS, on_done);
}

void survey_free(struct agent *agent)
{
	query_end(&agent->survey.query);
	msg_holdings_free(&agent->survey.holdings);
}
