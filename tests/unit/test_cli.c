/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The `drover` command as a whole: `drover key` in a home of its own, and questions to a coordinator that is played by
 * a child process over the real bus.
 */
#include <dirent.h>
#include <locale.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/bus.h"
#include "common/clock.h"
#include "common/keys.h"
#include "coordinator/cli/cli.h"

#define ARGS_MAX 64

/* ---- a home, and runs of the whole command ---- */

struct world {
	char home[128];     /* of client and coordinator alike */
	char stranger[128]; /* a client whose key nobody knows */
	char endpoint[LIMIT_ID];
	pid_t coordinator;
	int code; /* of the last run */
	char *out, *complaints;
};

/* Runs `drover --home HOME LINE`; what it said is in the world until the next run. */
static int run(struct world *world, const char *home, const char *line)
{
	char copy[2048], *argv[ARGS_MAX + 1] = { NULL }, *rest = copy;
	size_t out_bytes, complaint_bytes;
	int argc = 0;

	free(world->out);
	free(world->complaints);
	FILE *out = open_memstream(&world->out, &out_bytes),
	     *complaints = open_memstream(&world->complaints, &complaint_bytes);
	snprintf(copy, sizeof(copy), "drover --home %s %s", home, line);
	for (char *word = strsep(&rest, " "); word && argc < ARGS_MAX; word = strsep(&rest, " "))
		if (*word)
			argv[argc++] = word;
	world->code = cli_main(argc, argv, out, complaints);
	fclose(out);
	fclose(complaints);
	return world->code;
}

static void assert_said(const struct world *world, const char *words)
{
	if (!strstr(world->out, words))
		fail_msg("output '%s' (errors '%s') does not say '%s'", world->out, world->complaints, words);
}

/* One line on standard error, "drover: ..." */
static void assert_complained(const struct world *world, const char *words)
{
	const char *newline = strchr(world->complaints, '\n');

	if (strncmp(world->complaints, "drover: ", 8) != 0 || !strstr(world->complaints, words))
		fail_msg("error '%s' does not say '%s'", world->complaints, words);
	assert_true(newline && !newline[1]);
}

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

static void write_client_conf(const char *home, const char *endpoint)
{
	char path[256], text[512];

	snprintf(path, sizeof(path), "%s/etc/client.conf", home);
	snprintf(text, sizeof(text),
	         "coordinator = \"%s\"\nserver-key = \"coordinator.cert\"\nkey = \"keys/ops.cert_secret\"\n", endpoint);
	write_text(path, text);
}

static void copy_file(const char *from, const char *to)
{
	char text[4096];
	FILE *file = fopen(from, "r");

	assert_non_null(file);
	size_t bytes = fread(text, 1, sizeof(text) - 1, file);
	text[bytes] = '\0';
	fclose(file);
	write_text(to, text);
}

/* ---- the coordinator, in a process of its own ---- */

struct fake {
	struct loop *loop;
	struct bus_server *server;
	unsigned shows; /* questions for migration 17 so far */
};

#define FAKE_MIGRATION                                                                                     \
	"{\"id\":17,\"vm\":{\"name\":\"web3\"},\"source\":\"a1\",\"destination\":\"b2\",\"state\":\"%s\"," \
	"\"authority\":\"source\",\"downtime_ms\":null,\"progress\":{\"bytes_total\":100,\"bytes_done\":%u}}"

static void fake_show(struct fake *fake, const char *id, struct msg_reply *reply, char *json, size_t bytes)
{
	static const struct {
		const char *id, *state;
	} fixed[] = {
		{ "16", "copying" }, { "18", "failed" }, { "19", "cancelled" }, { "20", "lost" }, { "21", "done" }
	};

	if (strcmp(id, "17") == 0) {
		fake->shows++;
		snprintf(json, bytes, FAKE_MIGRATION, fake->shows < 3 ? "copying" : "done", fake->shows * 10);
		return;
	}
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
		if (strcmp(id, fixed[i].id) == 0) {
			snprintf(json, bytes, FAKE_MIGRATION, fixed[i].state, 50u);
			return;
		}
	reply->code = ERR_UNKNOWN_ID;
	reply->exit_code = 2;
	snprintf(reply->text, sizeof(reply->text), "show %.32s: no such migration; 'drover list --all' has them all",
	         id);
}

static void fake_answer(struct fake *fake, const struct bus_peer *peer, const struct msg_request *request,
                        struct msg_reply *reply, char *json, size_t bytes)
{
	snprintf(json, bytes, "{}");
	if (request->verb == VERB_STATUS)
		snprintf(json, bytes, "{\"version\":\"9.9\",\"you\":\"%s\"}", peer->name);
	else if (request->verb == VERB_LIST && request->after == 0)
		snprintf(json, bytes,
		         "{\"migrations\":[{\"id\":4,\"state\":\"done\",\"vm\":{\"name\":\"x\\u001b[31m\"}}],\"more\":"
		         "true}");
	else if (request->verb == VERB_LIST)
		snprintf(json, bytes, "{\"migrations\":[{\"id\":5,\"state\":\"failed\"}],\"more\":false}");
	else if (request->verb == VERB_SHOW)
		fake_show(fake, request->id, reply, json, bytes);
	else if (request->verb == VERB_MIGRATE && request->dry_run)
		snprintf(json, bytes, "{\"checks\":[{\"host\":\"b2\",\"name\":\"memory\",\"ok\":%s,\"text\":\"t\"}]}",
		         strcmp(request->vm, "big") == 0 ? "false" : "true");
	else if (request->verb == VERB_MIGRATE && strcmp(request->vm, "ghost") == 0) {
		reply->code = ERR_AMBIGUOUS;
		reply->exit_code = 2;
		snprintf(reply->text, sizeof(reply->text), "migrate ghost: two VMs have this name; use a UUID");
	} else if (request->verb == VERB_MIGRATE)
		snprintf(json, bytes, FAKE_MIGRATION, "queued", 0u);
	else if (request->verb == VERB_CANCEL) {
		reply->code = ERR_TOO_LATE;
		reply->exit_code = 4;
		snprintf(reply->text, sizeof(reply->text), "cancel 17: too late: it is done");
	} else if (request->verb == VERB_HOST_LIST)
		snprintf(json, bytes, "[not json");
	else if (request->verb == VERB_EVENTS && request->after == 0)
		snprintf(json, bytes,
		         "{\"events\":[{\"number\":1,\"at\":\"2026-11-22T23:06:03Z\",\"kind\":\"state\","
		         "\"migration\":17,\"text\":\"queued\"},{\"number\":2,\"text\":\"checking\"}]}");
	else if (request->verb == VERB_EVENTS)
		snprintf(json, bytes, "{\"events\":[]}");
}

static void fake_on_message(void *ctx, const struct bus_peer *peer, const struct msg *msg)
{
	struct fake *fake = ctx;
	struct msg answer = { .version = PROTOCOL_VERSION, .epoch = 1, .sequence = msg->sequence };
	struct err err = { 0 };
	char json[1024];

	if (msg->kind == MSG_HELLO) {
		answer.kind = MSG_WELCOME;
		answer.u.welcome.version = PROTOCOL_VERSION;
		answer.u.welcome.heartbeat_ms = 1000;
		snprintf(answer.u.welcome.cluster_id, sizeof(answer.u.welcome.cluster_id), "test");
		snprintf(answer.u.welcome.software, sizeof(answer.u.welcome.software), "test");
	} else if (msg->kind == MSG_REQUEST && msg->u.request.verb == VERB_VM_LIST) {
		answer.kind = MSG_ERROR;
		answer.u.error.code = ERR_DENIED;
		snprintf(answer.u.error.text, sizeof(answer.u.error.text), "a viewer may not do that");
	} else if (msg->kind == MSG_REQUEST) {
		answer.kind = MSG_REPLY;
		fake_answer(fake, peer, &msg->u.request, &answer.u.reply, json, sizeof(json));
		answer.u.reply.json = json;
	} else {
		return;
	}
	if (bus_send(fake->server, peer, &answer, &err) != 0)
		fprintf(stderr, "fake coordinator: %s\n", err.text);
}

static void fake_on_bad(void *ctx, const struct bus_peer *peer, const struct err *err)
{
	(void)ctx;
	(void)peer;
	fprintf(stderr, "fake coordinator: bad frame: %s\n", err->text);
}

/* Writes its endpoint to `report` and serves until it is killed. */
static int fake_main(const char *home, int report)
{
	struct fake fake = { 0 };
	struct paths paths;
	struct err err = { 0 };
	char key[256];

	snprintf(key, sizeof(key), "%s/etc/keys/coordinator.cert_secret", home);
	fake.loop = loop_new(&err);
	if (!fake.loop || paths_init(&paths, home, &err) != 0 ||
	    bus_listen(&fake.server, fake.loop, "tcp://127.0.0.1:*", key, &paths, fake_on_message, fake_on_bad, &fake,
	               &err) != 0) {
		fprintf(stderr, "fake coordinator: %s\n", err.text);
		return 1;
	}
	const char *endpoint = bus_endpoint(fake.server);
	if (write(report, endpoint, strlen(endpoint) + 1) < 0)
		return 1;
	close(report);
	int failed = loop_run(fake.loop, &err);
	bus_server_free(fake.server);
	loop_free(fake.loop);
	return failed ? 1 : 0;
}

static int set_up(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	const char *tmp = getenv("TMPDIR");
	char from[256], to[256];
	int report[2];

	*state = world;
	snprintf(world->home, sizeof(world->home), "%.40s/cliXXXXXX", tmp ? tmp : "/tmp");
	snprintf(world->stranger, sizeof(world->stranger), "%.40s/cliXXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(world->home));
	assert_non_null(mkdtemp(world->stranger));
	assert_int_equal(run(world, world->home, "key generate coordinator --role coordinator"), 0);
	assert_int_equal(run(world, world->home, "key generate ops --role operator"), 0);
	snprintf(to, sizeof(to), "key authorize %s/etc/keys/ops.cert", world->home);
	assert_int_equal(run(world, world->home, to), 0);
	assert_int_equal(run(world, world->stranger, "key generate ops --role operator"), 0);
	snprintf(from, sizeof(from), "%s/etc/keys/coordinator.cert", world->home);
	snprintf(to, sizeof(to), "%s/etc/coordinator.cert", world->home);
	copy_file(from, to);
	snprintf(to, sizeof(to), "%s/etc/coordinator.cert", world->stranger);
	copy_file(from, to);
	assert_int_equal(pipe(report), 0);
	world->coordinator = fork();
	if (world->coordinator == 0) {
		char number[16];

		/* A program of its own: what ZeroMQ has set up here must not be used there. */
		close(report[0]);
		snprintf(number, sizeof(number), "%d", report[1]);
		execl("/proc/self/exe", "coordinator", world->home, number, (char *)NULL);
		_exit(127);
	}
	close(report[1]);
	ssize_t bytes = read(report[0], world->endpoint, sizeof(world->endpoint) - 1);
	close(report[0]);
	assert_true(bytes > 0);
	write_client_conf(world->home, world->endpoint);
	write_client_conf(world->stranger, world->endpoint);
	return 0;
}

static void remove_tree(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char inner[600];

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
		if (entry->d_type == DT_DIR)
			remove_tree(inner);
		else
			unlink(inner);
	}
	if (dir)
		closedir(dir);
	rmdir(path);
}

static int tear_down(void **state)
{
	struct world *world = *state;

	if (world->coordinator > 0) {
		kill(world->coordinator, SIGKILL);
		waitpid(world->coordinator, NULL, 0);
	}
	remove_tree(world->home);
	remove_tree(world->stranger);
	free(world->out);
	free(world->complaints);
	free(world);
	return 0;
}

/* ---- keys ---- */

static void key__list__shows_own_and_authorised(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "key list"), 0);
	assert_said(world, "ops");
	assert_said(world, "own, authorised");
	assert_int_equal(run(world, world->home, "key list --json"), 0);
	json_t *doc = json_loads(world->out, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(doc, "keys")), 2);
	json_decref(doc);
}

static void key__bad_ways__are_refused(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "key generate ops --role viewer"), 8);
	assert_complained(world, "make key ops");
	assert_int_equal(run(world, world->home, "key generate ../x --role viewer"), 2);
	assert_int_equal(run(world, world->home, "key revoke nobody"), 2);
	assert_complained(world, "revoke nobody");
	assert_int_not_equal(run(world, world->home, "key authorize /nonexistent"), 0);
}

static void key__generate_and_revoke__in_an_empty_home(void **state)
{
	struct world *world = *state;
	char home[160], line[256];
	struct stat found;

	snprintf(home, sizeof(home), "%s/new", world->stranger);
	assert_int_equal(run(world, home, "key generate a1 --role agent --host a1 --json"), 0);
	json_t *doc = json_loads(world->out, 0, NULL);
	assert_int_equal(stat(json_string_value(json_object_get(doc, "secret")), &found), 0);
	assert_int_equal(found.st_mode & 0777, 0600);
	snprintf(line, sizeof(line), "key authorize %s", json_string_value(json_object_get(doc, "public")));
	json_decref(doc);
	assert_int_equal(run(world, home, line), 0);
	assert_int_equal(run(world, home, "key list"), 0);
	assert_said(world, "agent");
	assert_int_equal(run(world, home, "key revoke a1"), 0);
	assert_int_equal(run(world, home, "key revoke a1"), 2);
}

/* ---- questions ---- */

static void ask__status__is_answered(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "status"), 0);
	assert_string_equal(world->out, "version  9.9\nyou      ops\n");
	assert_string_equal(world->complaints, "");
	assert_int_equal(run(world, world->home, "status --json"), 0);
	assert_string_equal(world->out, "{\"version\":\"9.9\",\"you\":\"ops\"}\n");
}

static void ask__list_in_pages__is_joined_and_clean(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "list --all"), 0);
	assert_said(world, "x?[31m");
	assert_said(world, "failed");
	assert_int_equal(run(world, world->home, "--json list --all"), 0);
	json_t *doc = json_loads(world->out, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(doc, "migrations")), 2);
	json_decref(doc);
}

static void ask__refusals__have_code_words_and_json(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "show 99"), 2);
	assert_complained(world, "drover: show 99: no such migration");
	assert_string_equal(world->out, "");
	assert_int_equal(run(world, world->home, "show 99 --json"), 2);
	json_t *doc = json_loads(world->out, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(json_object_get(doc, "error"), "code")), "unknown-id");
	json_decref(doc);
	assert_int_equal(run(world, world->home, "cancel 17"), 4);
	assert_complained(world, "too late");
	assert_int_equal(run(world, world->home, "migrate ghost --to b2"), 2);
	assert_int_equal(run(world, world->home, "vm list"), 7);
	assert_complained(world, "a viewer may not do that");
}

static void ask__answer_is_not_json__is_said(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "host list"), 1);
	assert_complained(world, "not JSON");
}

static void ask__dry_run__exits_8_if_a_check_fails(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "migrate web3 --to b2 --dry-run"), 0);
	assert_said(world, "ok");
	assert_int_equal(run(world, world->home, "migrate big --to b2 --dry-run"), 8);
	assert_said(world, "FAILED");
	assert_int_equal(run(world, world->home, "migrate big --to b2 --dry-run --json"), 8);
	assert_said(world, "{\"checks\":[");
}

static void ask__migrate__says_how_to_follow(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "migrate web3 --to b2"), 0);
	assert_string_equal(world->out, "migration 17: web3, a1 -> b2: queued; 'drover watch 17' follows it\n");
}

static void watch__until_the_end__exits_by_the_result(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "migrate web3 --to b2 --watch"), 0);
	assert_said(world, "17 web3  copying");
	assert_said(world, "migration 17: web3, a1 -> b2: done");
	assert_int_equal(run(world, world->home, "watch 18"), 1);
	assert_int_equal(run(world, world->home, "watch 19"), 3);
	assert_int_equal(run(world, world->home, "watch 20"), 5);
	assert_int_equal(run(world, world->home, "watch 21 --json"), 0);
	assert_ptr_equal(strchr(world->out, '\n'), world->out + strlen(world->out) - 1);
	assert_int_equal(run(world, world->home, "watch 99"), 2);
	assert_int_equal(run(world, world->home, "migrate web3 --to b2 --wait --json"), 0);
	json_t *doc = json_loads(world->out, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(doc, "state")), "done");
	json_decref(doc);
}

static void events__all__are_printed_once(void **state)
{
	struct world *world = *state;

	assert_int_equal(run(world, world->home, "events"), 0);
	assert_string_equal(world->out, "2026-11-22T23:06:03Z  17  state  queued\n-  checking\n");
	assert_int_equal(run(world, world->home, "events --json"), 0);
	json_t *doc = json_loads(world->out, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(doc, "events")), 2);
	json_decref(doc);
}

static void place__fleet_directory__stands_for_its_coordinator(void **state)
{
	struct world *world = *state;
	char fleet[160], link[256];

	snprintf(fleet, sizeof(fleet), "%s/fleet", world->stranger);
	assert_int_equal(mkdir(fleet, 0755), 0);
	snprintf(link, sizeof(link), "%s/coordinator", fleet);
	assert_int_equal(symlink(world->home, link), 0);
	assert_int_equal(run(world, fleet, "status"), 0);
}

static void place__no_or_bad_client_conf__says_which(void **state)
{
	struct world *world = *state;
	char path[256];

	assert_int_equal(run(world, "/nonexistent", "list"), 6);
	assert_complained(world, "/nonexistent/etc/client.conf");
	snprintf(path, sizeof(path), "%s/etc/client.conf", world->stranger);
	write_text(path, "coordinator = \"tcp://127.0.0.1:1\"\nspeed = 9\n");
	assert_int_equal(run(world, world->stranger, "list"), 2);
	assert_complained(world, "speed");
	write_text(path, "coordinator = \"tcp://127.0.0.1:1\"\nserver-key = \"none.cert\"\n");
	assert_int_equal(run(world, world->stranger, "list"), 2);
	assert_complained(world, "none.cert");
	write_client_conf(world->stranger, world->endpoint);
}

/* Asks the client of a home; how long it took, ms. */
static int64_t timed_run(struct world *world, const char *home, const char *line)
{
	int64_t from_ms = clock_ms(&clock_real);

	run(world, home, line);
	return clock_ms(&clock_real) - from_ms;
}

static void reach__key_not_authorised__looks_like_no_answer(void **state)
{
	struct world *world = *state;
	int64_t took_ms = timed_run(world, world->stranger, "status --connect-timeout 500ms --json");

	assert_true(world->code == 6 || world->code == 7);
	assert_complained(world, "authorised");
	assert_complained(world, world->endpoint);
	assert_said(world, "{\"error\":{\"code\":\"");
	assert_true(took_ms < 5000);
}

static void reach__somebody_listens_and_is_silent__exits_6_in_time(void **state)
{
	struct world *world = *state;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t bytes = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char endpoint[64];

	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
	snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%u", ntohs(address.sin_port));
	write_client_conf(world->stranger, endpoint);
	int64_t took_ms = timed_run(world, world->stranger, "list --connect-timeout 300ms");
	assert_int_equal(world->code, 6);
	assert_complained(world, endpoint);
	assert_complained(world, "client.conf");
	assert_true(took_ms >= 300 && took_ms < 5000);
	close(fd);
	/* And when nobody does. */
	assert_int_equal(run(world, world->stranger, "list --connect-timeout 300ms"), 6);
	write_client_conf(world->stranger, world->endpoint);
}

/* Starts the command as a process of its own; what it says on both streams comes out of *ret_fd. */
static pid_t start(const struct world *world, const char *word, const char *id, int *ret_fd)
{
	int said[2];

	assert_int_equal(pipe(said), 0);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(said[1], STDOUT_FILENO);
		dup2(said[1], STDERR_FILENO);
		close(said[0]);
		close(said[1]);
		execl("/proc/self/exe", "drover", "--home", world->home, word, id, (char *)NULL);
		_exit(127);
	}
	close(said[1]);
	*ret_fd = said[0];
	return pid;
}

/* Reads until `words` were said or the other end is closed. */
static bool read_until(int fd, char *text, size_t bytes, const char *words)
{
	size_t used = strlen(text);

	while (!strstr(text, words)) {
		ssize_t more = read(fd, text + used, bytes - 1 - used);

		if (more <= 0)
			return false;
		used += (size_t)more;
		text[used] = '\0';
	}
	return true;
}

static void watch__interrupted__leaves_the_migration_alone_and_says_so(void **state)
{
	static const int signals[] = { SIGINT, SIGTERM };
	struct world *world = *state;

	for (int i = 0; i < 2; i++) {
		char text[4096] = "";
		int fd, status;
		pid_t pid = start(world, "watch", "16", &fd);

		alarm(30); /* a watch that hangs ends the test */
		assert_true(read_until(fd, text, sizeof(text), " web3  copying"));
		kill(pid, signals[i]);
		assert_true(read_until(fd, text, sizeof(text), "migration 16 goes on (drover watch 16)"));
		close(fd);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		alarm(0);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), EXIT_SIGNAL + signals[i]);
	}
}

static void output__full_disk__is_an_error(void **state)
{
	struct world *world = *state;
	char *argv[] = { "drover", "--help", NULL }, *text = NULL;
	size_t bytes;
	FILE *out = fopen("/dev/full", "w"), *complaints = open_memstream(&text, &bytes);

	(void)world;
	assert_non_null(out);
	assert_int_equal(cli_main(2, argv, out, complaints), 1);
	fclose(complaints);
	fclose(out);
	assert_non_null(strstr(text, "write the output"));
	free(text);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest runs[] = {
		cmocka_unit_test(key__list__shows_own_and_authorised),
		cmocka_unit_test(key__bad_ways__are_refused),
		cmocka_unit_test(key__generate_and_revoke__in_an_empty_home),
		cmocka_unit_test(ask__status__is_answered),
		cmocka_unit_test(ask__list_in_pages__is_joined_and_clean),
		cmocka_unit_test(ask__refusals__have_code_words_and_json),
		cmocka_unit_test(ask__answer_is_not_json__is_said),
		cmocka_unit_test(ask__dry_run__exits_8_if_a_check_fails),
		cmocka_unit_test(ask__migrate__says_how_to_follow),
		cmocka_unit_test(watch__until_the_end__exits_by_the_result),
		cmocka_unit_test(watch__interrupted__leaves_the_migration_alone_and_says_so),
		cmocka_unit_test(events__all__are_printed_once),
		cmocka_unit_test(place__fleet_directory__stands_for_its_coordinator),
		cmocka_unit_test(place__no_or_bad_client_conf__says_which),
		cmocka_unit_test(reach__key_not_authorised__looks_like_no_answer),
		cmocka_unit_test(reach__somebody_listens_and_is_silent__exits_6_in_time),
		cmocka_unit_test(output__full_disk__is_an_error),
	};

	if (argc == 3 && strcmp(argv[0], "coordinator") == 0)
		return fake_main(argv[1], atoi(argv[2]));
	if (!setlocale(LC_ALL, "C.UTF-8"))
		return 1;
	if (argc > 1 && strcmp(argv[0], "drover") == 0)
		return cli_main(argc, argv, stdout, stderr);
	unsetenv("DROVER_HOME");
	return cmocka_run_group_tests(runs, set_up, tear_down);
}
