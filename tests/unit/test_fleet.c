/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes of a simulated host: started behind a launcher, all of them ended. The test is the daemon that it starts.
 */
#include "tests/unit/sim_rig.h"

#include <signal.h>

#include "agent/sim/fleet.h"

#define DAEMON "test_fleet"
#define DIE_S 60 /* of a daemon that the test has forgotten */

struct fixture {
	struct rig rig;
	struct paths host;
	char launcher[PATHS_MAX * 2];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	assert_non_null(f);
	rig_open(&f->rig);
	rig_host(&f->rig, "a1", &f->host);
	snprintf(f->launcher, sizeof(f->launcher), "%s/launcher", f->host.etc);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	struct err err = { 0 };
	rig_ok(fleet_kill(f->host.home, &err), &err);
	rig_close(&f->rig);
	free(f);
	return 0;
}

static void write_launcher(const struct fixture *f, const char *text)
{
	FILE *file = fopen(f->launcher, "w");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

static bool has_started(const char *path)
{
	for (int64_t until_ms = disk_now_ms() + RIG_WAIT_MS; disk_now_ms() < until_ms;) {
		short none;
		if (access(path, F_OK) == 0)
			return true;
		disk_wait(NULL, -1, 0, disk_now_ms() + 5, &none, NULL);
	}
	return false;
}

static void launcher__has_words__they_come_before_the_daemon(void **state)
{
	struct fixture *f = *state;
	struct err err = { 0 };
	struct proc_id id;
	char path[PATHS_MAX * 2];
	write_launcher(f, "env FLEET_LAUNCHED=yes\n\tFLEET_TWICE=yes\n");
	rig_ok(fleet_daemon_start(&f->host, "agent", DAEMON, &err), &err);
	snprintf(path, sizeof(path), "%s/daemon-says", f->host.run);
	assert_true(has_started(path));
	assert_true(fleet_daemon_alive(&f->host, "agent", DAEMON, &id));
	assert_true(fleet_has_environment(&id, "FLEET_LAUNCHED=yes"));
	assert_true(fleet_has_environment(&id, "FLEET_TWICE=yes"));
	rig_ok(fleet_kill(f->host.home, &err), &err);
	assert_false(proc_alive(&id));
}

static void launcher__too_long__is_refused(void **state)
{
	struct fixture *f = *state;
	struct err err = { 0 };
	char many[5000];
	memset(many, 'x', sizeof(many) - 1);
	many[sizeof(many) - 1] = '\0';
	write_launcher(f, many);
	assert_int_equal(fleet_daemon_start(&f->host, "agent", DAEMON, &err), -1);
	assert_int_equal(err.code, ERR_CONFIG);
	for (size_t i = 1; i < sizeof(many) - 1; i += 2)
		many[i] = ' ';
	many[200] = '\0';
	write_launcher(f, many);
	assert_int_equal(fleet_daemon_start(&f->host, "agent", DAEMON, &err), -1);
	assert_int_equal(err.code, ERR_CONFIG);
}

/* One has ended, another one has come: as many as before, and yet there is one to be stopped. */
static void processes__as_many_but_others__are_not_all_known(void **state)
{
	const struct proc_id before[] = { { 10, 1 }, { 11, 1 } }, after[] = { { 10, 1 }, { 12, 2 } };
	const struct proc_id reused[] = { { 10, 1 }, { 11, 9 } };
	(void)state;
	assert_true(fleet_all_known(before, 2, before, 2));
	assert_true(fleet_all_known(before, 1, before, 2));
	assert_true(fleet_all_known(NULL, 0, NULL, 0));
	assert_false(fleet_all_known(after, 2, before, 2));
	assert_false(fleet_all_known(reused, 2, before, 2));
	assert_false(fleet_all_known(before, 2, before, 1));
}

/* As the daemon that is started: says so, and waits for its end. */
static int serve(const char *home)
{
	char path[PATHS_MAX];
	snprintf(path, sizeof(path), "%s/run/daemon-says", home);
	FILE *file = fopen(path, "w");
	if (file == NULL || fclose(file) != 0)
		return 1;
	alarm(DIE_S);
	pause();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--home") == 0)
		return serve(argv[2]);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(launcher__has_words__they_come_before_the_daemon, set_up, tear_down),
		cmocka_unit_test_setup_teardown(launcher__too_long__is_refused, set_up, tear_down),
		cmocka_unit_test(processes__as_many_but_others__are_not_all_known),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
