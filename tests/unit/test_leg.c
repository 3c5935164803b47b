/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whole legs: processes of their own, real guests, disks, exporters, TLS. */
#include "tests/unit/leg_rig.h"

/* The VM is the source's, as if nothing had been asked. */
static void assert_undisturbed(struct move *move)
{
	struct sim_record record;
	assert_int_equal(resources(&move->s), 0);
	assert_int_equal(resources(&move->d), 0);
	assert_int_equal(images(&move->s), 2);
	assert_int_equal(images(&move->d), 0);
	assert_int_equal(files_in(move->d.paths.run, "export-"), 0);
	assert_int_equal(sim_record_load(&move->d.paths, VM, &record, NULL), -1);
	guest_ticks(move, &move->s);
	ledger_last(move);
}

static void assert_moved(struct move *move)
{
	struct sim_record record;
	struct proc_id id;
	struct err err = { 0 };
	assert_int_equal(resources(&move->s), 0);
	assert_int_equal(resources(&move->d), 0);
	assert_int_equal(images(&move->s), 0);
	assert_int_equal(images(&move->d), 2);
	assert_int_equal(files_in(move->d.paths.run, "export-"), 0);
	assert_false(sim_guest_alive(&move->s.paths, VM, &id));
	rig_ok(sim_record_load(&move->d.paths, VM, &record, &err), &err);
	assert_int_equal(record.state, SIM_RUNNING);
	/* over the next checksum of the whole memory */
	long long tick = rig_ask(&move->d.paths, VM, "tick", NULL);
	rig_wait_tick(&move->d.paths, VM, tick + 105);
	assert_true(ledger_last(move) > (unsigned long long)tick);
}

static void migration__all_goes_well__vm_runs_at_the_destination(void **state)
{
	struct move *move = *state;
	until_ready(move);
	both(move, STEP_SWITCH);
	AWAIT(move, move->s.report.facts.running && move->d.report.facts.running);
	assert_int_equal(move->s.report.facts.vote[PARTY_SOURCE], VOTE_COMMIT);
	assert_int_equal(move->s.report.facts.vote[PARTY_DESTINATION], VOTE_COMMIT);
	assert_int_equal(move->s.report.phase, PHASE_COMMITTED);
	assert_true(move->s.report.budget.total_ms > 0);
	assert_true(move->s.report.budget.total_ms >= move->s.report.budget.suspend_ms);
	leg_step(move, &move->s, STEP_ABORT);
	AWAIT(move, move->s.answered[STEP_ABORT]);
	assert_int_equal(move->s.answers[STEP_ABORT].outcome, OUTCOME_REFUSED);
	assert_int_equal(move->s.answers[STEP_ABORT].cause.code, ERR_TOO_LATE);
	both(move, STEP_RELEASE);
	assert_int_equal(move->s.report.phase, PHASE_RELEASED);
	assert_int_equal(move->d.report.phase, PHASE_RELEASED);
	assert_moved(move);
	forget_both(move);
}

static void migration__source_to_be_kept__its_disks_stay_and_are_journaled(void **state)
{
	struct move *move = *state;
	struct journal_resource *list = NULL;
	size_t count = 0;
	move->plan.keep_source_s = 3600;
	until_ready(move);
	both(move, STEP_SWITCH);
	AWAIT(move, move->s.report.facts.running);
	both(move, STEP_RELEASE);
	assert_true(move->s.report.kept_until_wall_ms > (uint64_t)clock_real.wall_ms(&clock_real) + 3000 * 1000);
	assert_int_equal(images(&move->s), 2);
	assert_int_equal(journal_resource_list(move->s.journal, MIGRATION, GENERATION, &list, &count, NULL), 0);
	assert_int_equal(count, 2);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(list[i].kind, RESOURCE_SOURCE_DISK);
		assert_int_equal(list[i].state, RESOURCE_KEPT);
		assert_int_equal(access(list[i].path, F_OK), 0);
	}
	free(list);
	forget_both(move);
}

/* As one that was killed while it listed the disks had left it. */
static void release__some_disks_were_listed__all_go(void **state)
{
	struct move *move = *state;
	struct err err = { 0 };
	struct journal_resource first = { .kind = RESOURCE_SOURCE_DISK,
		                          .migration = MIGRATION,
		                          .generation = GENERATION };
	until_ready(move);
	memcpy(first.name, move->record.disks[0].name, sizeof(first.name));
	memcpy(first.path, move->record.disks[0].path, sizeof(first.path));
	rig_ok(journal_resource_add(move->s.journal, &first, &first.id, &err), &err);
	both(move, STEP_SWITCH);
	AWAIT(move, move->s.report.facts.running);
	both(move, STEP_RELEASE);
	assert_moved(move);
	forget_both(move);
}

static void abort__while_copying__source_is_free_at_once_and_nothing_is_left(void **state)
{
	struct move *move = *state;
	move->plan.bandwidth_bps = BANDWIDTH_SLOW;
	until_copying(move);
	AWAIT(move, move->s.progresses > 0);
	assert_true(move->s.progress.bytes_total > 0);
	int64_t asked_ms = disk_now_ms();
	leg_step(move, &move->s, STEP_ABORT);
	await_done(move, &move->s, STEP_ABORT);
	assert_true(disk_now_ms() - asked_ms < 1000);
	leg_step(move, &move->d, STEP_ABORT);
	await_done(move, &move->d, STEP_ABORT);
	assert_int_equal(move->s.report.phase, PHASE_ROLLED_BACK);
	assert_true(move->s.report.facts.resumed);
	assert_int_equal(move->s.report.cause.code, ERR_NONE);
	assert_undisturbed(move);
	forget_both(move);
}

static void abort__with_a_hung_destination__source_is_free_at_once(void **state)
{
	struct move *move = *state;
	move->plan.bandwidth_bps = BANDWIDTH_SLOW;
	until_copying(move);
	assert_int_equal(kill(move->d.leg.pid, SIGSTOP), 0);
	int64_t asked_ms = disk_now_ms();
	leg_step(move, &move->s, STEP_ABORT);
	await_done(move, &move->s, STEP_ABORT);
	assert_true(disk_now_ms() - asked_ms < 2000);
	assert_int_equal(kill(move->d.leg.pid, SIGCONT), 0);
	leg_step(move, &move->d, STEP_ABORT);
	await_done(move, &move->d, STEP_ABORT);
	assert_undisturbed(move);
	forget_both(move);
}

static void abort__before_anything_is_prepared__done(void **state)
{
	struct move *move = *state;
	start_both(move);
	both(move, STEP_ABORT);
	assert_undisturbed(move);
	leg_step(move, &move->s, STEP_PREPARE);
	AWAIT(move, move->s.answered[STEP_PREPARE]);
	assert_int_equal(move->s.answers[STEP_PREPARE].outcome, OUTCOME_REFUSED);
	forget_both(move);
}

static void copy__another_fingerprint_was_announced__denied_and_rolled_back(void **state)
{
	struct move *move = *state;
	start_both(move);
	both(move, STEP_PREPARE);
	char *digit = &move->d.answers[STEP_PREPARE].fingerprint[5];
	*digit = *digit == '0' ? '1' : '0';
	leg_step(move, &move->d, STEP_COPY);
	leg_step(move, &move->s, STEP_COPY);
	AWAIT(move, move->s.answered[STEP_COPY]);
	assert_int_equal(move->s.answers[STEP_COPY].outcome, OUTCOME_REFUSED);
	assert_int_equal(move->s.answers[STEP_COPY].cause.code, ERR_DENIED);
	both(move, STEP_ABORT);
	assert_int_equal(move->s.report.cause.code, ERR_DENIED);
	assert_undisturbed(move);
	forget_both(move);
}

static void prepare__no_such_storage__refused_with_the_cause(void **state)
{
	struct move *move = *state;
	snprintf(move->plan.to[1].sr, LIMIT_NAME, "nowhere");
	start_both(move);
	leg_step(move, &move->d, STEP_PREPARE);
	AWAIT(move, move->d.answered[STEP_PREPARE]);
	assert_int_equal(move->d.answers[STEP_PREPARE].outcome, OUTCOME_REFUSED);
	assert_int_equal(move->d.answers[STEP_PREPARE].cause.code, ERR_NO_MAP);
	both(move, STEP_ABORT);
	assert_undisturbed(move);
	forget_both(move);
}

static void commands__that_come_twice__are_answered_the_same(void **state)
{
	struct move *move = *state;
	char fingerprint[LIMIT_ID];
	start_both(move);
	leg_step(move, &move->s, STEP_PREPARE);
	await_done(move, &move->s, STEP_PREPARE);
	memcpy(fingerprint, move->s.answers[STEP_PREPARE].fingerprint, LIMIT_ID);
	assert_int_equal(strlen(fingerprint), 64);
	leg_step(move, &move->s, STEP_PREPARE);
	await_done(move, &move->s, STEP_PREPARE);
	assert_string_equal(fingerprint, move->s.answers[STEP_PREPARE].fingerprint);
	/* Another agent takes over and is told at once how it stands. */
	struct host *s = &move->s;
	int old = s->fd;
	s->answered[STEP_PREPARE] = false;
	s->report.phase = PHASE_NONE;
	leg_connect(s);
	await_done(move, s, STEP_PREPARE);
	assert_int_equal(s->report.phase, PHASE_PREPARED);
	char byte;
	assert_int_equal(recv(old, &byte, 1, 0), 0);
	close(old);
	leg_step(move, s, STEP_ABORT);
	await_done(move, s, STEP_ABORT);
}

static void destination_leg_killed__while_copying__both_end_as_before(void **state)
{
	struct move *move = *state;
	move->plan.bandwidth_bps = BANDWIDTH_SLOW;
	until_copying(move);
	leg_kill(&move->d);
	AWAIT(move, move->s.report.phase == PHASE_ROLLED_BACK);
	assert_int_not_equal(move->s.report.cause.code, ERR_NONE);
	leg_start(move, &move->d, true);
	leg_connect(&move->d);
	AWAIT(move, move->d.report.phase == PHASE_ROLLED_BACK);
	assert_true(move->d.report.facts.renounced);
	both(move, STEP_ABORT);
	assert_undisturbed(move);
	forget_both(move);
}

static void source_leg_killed__while_copying__both_end_as_before(void **state)
{
	struct move *move = *state;
	move->plan.bandwidth_bps = BANDWIDTH_SLOW;
	until_copying(move);
	leg_kill(&move->s);
	AWAIT(move, move->d.report.phase == PHASE_ROLLED_BACK);
	leg_start(move, &move->s, true);
	leg_connect(&move->s);
	AWAIT(move, move->s.report.phase == PHASE_ROLLED_BACK);
	assert_int_equal(move->s.report.cause.code, ERR_LEG_LOST);
	both(move, STEP_ABORT);
	assert_undisturbed(move);
	forget_both(move);
}

static void second_leg__of_one_migration__leaves_without_a_trace(void **state)
{
	struct move *move = *state;
	move->plan.bandwidth_bps = BANDWIDTH_SLOW;
	until_copying(move);
	struct proc_id first = move->s.leg;
	int status = 0;
	leg_start(move, &move->s, true);
	assert_int_equal(waitpid(move->s.leg.pid, &status, 0), move->s.leg.pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), LEG_EXIT_TWIN);
	move->s.leg = first;
	assert_true(proc_alive(&first));
	both(move, STEP_ABORT); /* the connection of the first one still stands */
	assert_undisturbed(move);
	forget_both(move);
}

static void exporter_killed__while_copying__both_end_as_before(void **state)
{
	struct move *move = *state;
	long pid = 0;
	move->plan.bandwidth_bps = BANDWIDTH_SLOW;
	until_copying(move);
	assert_int_equal(paths_read_pid(&move->d.paths, "export-7-xvda", &pid), 0);
	assert_int_equal(kill((pid_t)pid, SIGKILL), 0);
	AWAIT(move, move->s.report.phase == PHASE_ROLLED_BACK && move->d.report.phase == PHASE_ROLLED_BACK);
	assert_int_not_equal(move->s.report.cause.code, ERR_NONE);
	both(move, STEP_ABORT);
	assert_undisturbed(move);
	forget_both(move);
}

/* The source has sent everything; the destination has not been granted, so has not voted. */
static void until_stream_ended(struct move *move)
{
	until_ready(move);
	leg_step(move, &move->s, STEP_SWITCH);
	await_done(move, &move->s, STEP_SWITCH);
	AWAIT(move, move->s.report.facts.stream_ended && move->d.report.facts.stream_ended);
}

/* As the agent journals it when it passes SWITCH on: a leg that recovers looks there. */
static void journal_grant(struct move *move, struct host *host)
{
	const struct host *peer = host == &move->s ? &move->d : &move->s;
	const struct msg_answer *own = &host->answers[STEP_PREPARE], *its = &peer->answers[STEP_PREPARE];
	struct journal_session *session = calloc(1, sizeof(*session));
	struct err err = { 0 };
	rig_ok(journal_session_get(host->journal, MIGRATION, GENERATION, session, NULL, &err), &err);
	session->core.state = SESSION_SWITCHING;
	session->core.highest = STEP_SWITCH;
	memcpy(session->fingerprint, own->fingerprint, sizeof(session->fingerprint));
	memcpy(session->endpoint, own->endpoint, sizeof(session->endpoint));
	memcpy(session->peer_fingerprint, its->fingerprint, sizeof(session->peer_fingerprint));
	memcpy(session->peer_endpoint, its->endpoint, sizeof(session->peer_endpoint));
	rig_ok(journal_session_put(host->journal, session, NULL, &err), &err);
	free(session);
}

static void switching__source_leg_killed_after_the_stream__commits_by_way_of_the_agents(void **state)
{
	struct move *move = *state;
	until_stream_ended(move);
	leg_kill(&move->s);
	journal_grant(move, &move->s);
	leg_start(move, &move->s, true);
	leg_connect(&move->s);
	leg_step(move, &move->d, STEP_SWITCH);
	AWAIT(move, move->d.report.facts.vote[PARTY_DESTINATION] == VOTE_COMMIT);
	assert_false(move->d.report.facts.activating);
	leg_facts(&move->s, &move->d.report.facts);
	AWAIT(move, move->s.report.facts.vote[PARTY_SOURCE] == VOTE_COMMIT);
	leg_facts(&move->d, &move->s.report.facts);
	AWAIT(move, move->d.report.facts.running);
	leg_facts(&move->s, &move->d.report.facts);
	both(move, STEP_RELEASE);
	assert_moved(move);
	forget_both(move);
}

static void switching__destination_leg_killed_after_its_vote__recovered_leg_activates(void **state)
{
	struct move *move = *state;
	until_stream_ended(move);
	leg_kill(&move->s); /* so that the verdict waits */
	journal_grant(move, &move->s);
	journal_grant(move, &move->d);
	leg_step(move, &move->d, STEP_SWITCH);
	AWAIT(move, move->d.report.facts.vote[PARTY_DESTINATION] == VOTE_COMMIT);
	leg_kill(&move->d);
	leg_start(move, &move->s, true);
	leg_start(move, &move->d, true);
	leg_connect(&move->s);
	leg_connect(&move->d);
	leg_facts(&move->s, &move->d.report.facts);
	AWAIT(move, move->s.report.facts.vote[PARTY_SOURCE] == VOTE_COMMIT);
	leg_facts(&move->d, &move->s.report.facts);
	AWAIT(move, move->d.report.facts.running);
	leg_facts(&move->s, &move->d.report.facts);
	both(move, STEP_RELEASE);
	assert_moved(move);
	forget_both(move);
}

/* The destination's leg was killed after it had destroyed a VM that could not be unpaused, before it said so. */
static void switching__destination_leg_killed_while_it_gives_the_vm_back__source_resumes(void **state)
{
	struct move *move = *state;
	struct journal_resource *list = NULL;
	size_t count = 0;
	struct hypervisor *hv = NULL;
	struct err err = { 0 };
	struct verdict_facts facts = { .vote = { VOTE_NONE, VOTE_COMMIT, VOTE_COMMIT }, .activating = true };
	until_stream_ended(move);
	leg_kill(&move->s); /* so that the verdict waits */
	leg_step(move, &move->d, STEP_SWITCH);
	AWAIT(move, move->d.report.facts.vote[PARTY_DESTINATION] == VOTE_COMMIT);
	leg_kill(&move->d);
	journal_grant(move, &move->s);
	journal_grant(move, &move->d);
	rig_ok(journal_facts_add(move->d.journal, MIGRATION, GENERATION, &facts, NULL, &err), &err);
	rig_ok(journal_resource_list(move->d.journal, MIGRATION, GENERATION, &list, &count, &err), &err);
	for (size_t i = 0; i < count; i++)
		if (list[i].kind == RESOURCE_VM) {
			snprintf(list[i].note, sizeof(list[i].note), "never-ran");
			rig_ok(journal_resource_update(move->d.journal, &list[i], &err), &err);
		}
	free(list);
	rig_ok(hypervisor_sim.open(&hv, &move->d.paths, &err), &err);
	rig_ok(hypervisor_sim.dest_destroy(hv, move->plan.vm.uuid, MIGRATION, &err), &err);
	hypervisor_sim.close(hv);
	leg_start(move, &move->d, true);
	leg_start(move, &move->s, true);
	leg_connect(&move->d);
	leg_connect(&move->s);
	AWAIT(move, move->d.report.facts.renounced);
	leg_facts(&move->s, &move->d.report.facts);
	AWAIT(move, move->s.report.phase == PHASE_ROLLED_BACK && move->d.report.phase == PHASE_ROLLED_BACK);
	both(move, STEP_ABORT);
	assert_undisturbed(move);
	forget_both(move);
}

static void switching__destination_told_to_abort_before_its_vote__source_resumes(void **state)
{
	struct move *move = *state;
	until_stream_ended(move);
	leg_step(move, &move->d, STEP_ABORT);
	await_done(move, &move->d, STEP_ABORT);
	/* The news went over stream 0. */
	AWAIT(move, move->s.report.phase == PHASE_ROLLED_BACK);
	assert_true(move->s.report.facts.resumed);
	assert_int_equal(move->s.report.facts.vote[PARTY_SOURCE], VOTE_ABORT);
	assert_true(move->s.report.budget.total_ms > 0);
	assert_undisturbed(move);
	forget_both(move);
}

static void switching__destination_leg_killed_after_the_stream__source_waits_then_resumes(void **state)
{
	struct move *move = *state;
	char text[32];
	until_stream_ended(move);
	journal_grant(move, &move->d);
	leg_kill(&move->d);
	/* The source does not know, and V8 forbids to guess. */
	assert_false(move->s.report.facts.resumed);
	rig_ask(&move->s.paths, VM, "state", text);
	assert_string_equal(text, "suspended");
	leg_start(move, &move->d, true);
	leg_connect(&move->d);
	AWAIT(move, move->d.report.phase == PHASE_ROLLED_BACK);
	AWAIT(move, move->s.report.phase == PHASE_ROLLED_BACK);
	both(move, STEP_ABORT);
	assert_undisturbed(move);
	forget_both(move);
}

/* Nobody hears of the coordinator, and the data connection is gone with a leg: the two legs find each other again. */
static void switching__source_leg_killed_and_no_coordinator__commits_over_the_vote_line(void **state)
{
	struct move *move = *state;
	until_stream_ended(move);
	leg_step(move, &move->d, STEP_SWITCH);
	/* Stopped first, so that it cannot vote before it is killed. */
	assert_int_equal(kill(move->s.leg.pid, SIGSTOP), 0);
	AWAIT(move, move->d.report.facts.vote[PARTY_DESTINATION] == VOTE_COMMIT);
	leg_kill(&move->s);
	journal_grant(move, &move->s);
	leg_start(move, &move->s, true);
	leg_connect(&move->s);
	AWAIT(move, move->d.report.facts.running);
	AWAIT(move, move->s.report.facts.running);
	both(move, STEP_RELEASE);
	assert_moved(move);
	forget_both(move);
}

static void switching__destination_leg_killed_and_no_coordinator__commits_over_the_vote_line(void **state)
{
	struct move *move = *state;
	until_stream_ended(move);
	assert_int_equal(kill(move->s.leg.pid, SIGSTOP), 0);
	leg_step(move, &move->d, STEP_SWITCH);
	AWAIT(move, move->d.report.facts.vote[PARTY_DESTINATION] == VOTE_COMMIT);
	journal_grant(move, &move->d);
	leg_kill(&move->d);
	/* What it had said on stream 0 is lost with it, or is heard now; the rest goes over the line. */
	assert_int_equal(kill(move->s.leg.pid, SIGCONT), 0);
	leg_start(move, &move->d, true);
	leg_connect(&move->d);
	AWAIT(move, move->d.report.facts.running);
	AWAIT(move, move->s.report.facts.running);
	both(move, STEP_RELEASE);
	assert_moved(move);
	forget_both(move);
}

static void switching__both_legs_killed_and_no_coordinator__source_resumes_over_the_vote_line(void **state)
{
	struct move *move = *state;
	until_stream_ended(move);
	leg_kill(&move->s);
	leg_kill(&move->d);
	journal_grant(move, &move->s);
	journal_grant(move, &move->d);
	leg_start(move, &move->s, true);
	leg_connect(&move->s);
	leg_start(move, &move->d, true);
	leg_connect(&move->d);
	AWAIT(move, move->d.report.phase == PHASE_ROLLED_BACK); /* it had not voted: its copy is not whole any more */
	AWAIT(move, move->s.report.phase == PHASE_ROLLED_BACK);
	both(move, STEP_ABORT);
	assert_undisturbed(move);
	forget_both(move);
}

static void told_to_end__while_copying__rolls_back_and_leaves(void **state)
{
	struct move *move = *state;
	move->plan.bandwidth_bps = BANDWIDTH_SLOW;
	until_copying(move);
	assert_int_equal(kill(move->s.leg.pid, SIGTERM), 0);
	leg_await_end(move, &move->s);
	AWAIT(move, move->d.report.phase == PHASE_ROLLED_BACK);
	assert_undisturbed(move);
}

int main(int argc, char **argv)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(migration__all_goes_well__vm_runs_at_the_destination),
		T(migration__source_to_be_kept__its_disks_stay_and_are_journaled),
		T(release__some_disks_were_listed__all_go),
		T(abort__while_copying__source_is_free_at_once_and_nothing_is_left),
		T(abort__with_a_hung_destination__source_is_free_at_once),
		T(abort__before_anything_is_prepared__done),
		T(copy__another_fingerprint_was_announced__denied_and_rolled_back),
		T(prepare__no_such_storage__refused_with_the_cause),
		T(commands__that_come_twice__are_answered_the_same),
		T(destination_leg_killed__while_copying__both_end_as_before),
		T(source_leg_killed__while_copying__both_end_as_before),
		T(second_leg__of_one_migration__leaves_without_a_trace),
		T(exporter_killed__while_copying__both_end_as_before),
		T(switching__source_leg_killed_after_the_stream__commits_by_way_of_the_agents),
		T(switching__destination_leg_killed_after_its_vote__recovered_leg_activates),
		T(switching__destination_leg_killed_while_it_gives_the_vm_back__source_resumes),
		T(switching__destination_told_to_abort_before_its_vote__source_resumes),
		T(switching__destination_leg_killed_after_the_stream__source_waits_then_resumes),
		T(switching__source_leg_killed_and_no_coordinator__commits_over_the_vote_line),
		T(switching__destination_leg_killed_and_no_coordinator__commits_over_the_vote_line),
		T(switching__both_legs_killed_and_no_coordinator__source_resumes_over_the_vote_line),
		T(told_to_end__while_copying__rolls_back_and_leaves),
	};
#undef T
	signal(SIGPIPE, SIG_IGN);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
