#!/bin/bash
# What is refused, with which exit code, and that nothing was changed by it; keys and roles.
. "$(dirname "$0")/../lib.sh" "$1"

fleet_up --hosts a1@A,a2@A,b1@B
drover-sim create web1 --on a1 --memory 32M --disk xvda=32M@local --home "$FLEET"
drover-sim create web2 --on b1 --memory 32M --disk xvda=32M@local --home "$FLEET"
within 10 vm_runs_on web1 a1
within 10 vm_runs_on web2 b1

refusals() {
	status_of 2 drover migrate nobody --to b1 >/dev/null
	status_of 2 drover migrate web1 --to nowhere >/dev/null
	status_of 2 drover show 4711 >/dev/null
	status_of 2 drover migrate web1 >/dev/null
	status_of 8 drover migrate web1 --to a1 >/dev/null
	status_of 8 drover migrate web1 --to b1 --name web2 >/dev/null
	status_of 8 drover migrate web1 --to b1 --storage xvda=nosuch >/dev/null
	status_of 8 drover migrate web1 --to b1 --network xenbr0=nosuch >/dev/null
	status_of 2 drover migrate web1 --to b1 --pool A >/dev/null
	within 10 verify
}

dry_run() {
	status_of 0 drover migrate web1 --to b1 --dry-run --json >"$FLEET/o"
	[ "$(jq '[.checks[] | select(.ok)] | length > 4' "$FLEET/o")" = true ] || fail "$(cat "$FLEET/o")"
	[ "$(drover list --all --json | jq '.migrations | length')" = 0 ] || fail "something was recorded"
	within 10 verify
}

one_migration_a_vm() {
	local id
	id=$(submit web1 b1 --bandwidth 100K/s)
	within 10 state_is "$id" copying
	status_of 8 drover migrate web1 --to a2 >/dev/null
	status_of 0 drover cancel "$id" --wait >/dev/null
}

idempotent_key() {
	local id
	id=$(submit web1 a2 --key job-7 --bandwidth 100K/s)
	[ "$(submit web1 a2 --key job-7 --bandwidth 100K/s)" = "$id" ] || fail "another id"
	status_of 8 drover migrate web1 --to b1 --key job-7 >/dev/null
	[ "$(field job-7 .id)" = "$id" ] || fail "not found by key"
	status_of 0 drover cancel job-7 --wait >/dev/null
}

client_home() { # NAME ROLE: a home of its own with a new key, authorised
	local home=$FLEET/clients/$1
	mkdir -p "$home/etc"
	DROVER_HOME=$home drover key generate "$1" --role "$2" >/dev/null
	cp "$(dirname "$(find "$FLEET/coordinator/etc" -name client.conf)")/client.conf" "$home/etc/client.conf"
	sed -i "s|^ *key *=.*|key = \"$home/etc/keys/$1.cert_secret\"|; s|^ *server-key *=.*|server-key = \"$FLEET/coordinator/etc/keys/coordinator.cert\"|" \
		"$home/etc/client.conf"
	echo "$home"
}

roles() {
	local viewer submitter stranger
	viewer=$(client_home vera viewer)
	submitter=$(client_home sam submitter)
	stranger=$(client_home stan operator)
	drover key authorize "$viewer/etc/keys/vera.cert" >/dev/null
	drover key authorize "$submitter/etc/keys/sam.cert" >/dev/null
	kill -HUP "$(cat "$FLEET/coordinator/run/coordinator.pid")"
	within 5 drover --home "$viewer" list
	status_of 7 drover --home "$viewer" migrate web1 --to b1 >/dev/null
	status_of 0 drover --home "$submitter" migrate web1 --to b1 --wait >/dev/null
	status_of 6 drover --home "$stranger" list >"$FLEET/o" # a key that nobody authorised is not even answered
	drover key revoke vera >/dev/null
	kill -HUP "$(cat "$FLEET/coordinator/run/coordinator.pid")"
	within 5 status_of 6 drover --home "$viewer" list
	within 10 verify
}

# b1's agent presents a2's name with its own key: it must not be able to speak for it.
host_is_bound_to_its_key() {
	local fake=$FLEET/fake
	mkdir -p "$fake"
	cp -r "$FLEET/b1/etc" "$fake/etc"
	sed -i 's/^\( *host *= *\).*/\1"a2"/' "$fake/etc/agent.conf"
	timeout 3 drover-agent --home "$fake" >"$fake.log" 2>&1 || true
	grep -qi 'a2' "$FLEET/coordinator/run/coordinator.log" || fail "not logged by the coordinator"
	grep -qiE 'refused|denied|not authori' "$fake.log" || fail "not told: $(cat "$fake.log")"
	rm -rf "$fake" "$fake.log"
	[ "$(drover host show a2 --json | jq -r .state)" = connected ] || fail "a2 is $(drover host show a2 --json)"
}

wire() { # as the operator
	"$BIN/../test/wire" "$(sed -n 's/^coordinator = "\(.*\)"/\1/p' "$FLEET/coordinator/etc/client.conf")" \
		"$FLEET/coordinator/etc/keys/operator.cert_secret" "$FLEET/coordinator/etc/keys/coordinator.cert" "$@"
}

wrong_version() {
	local said
	[ "$(wire hello 1 1)" = "welcome 1" ] || fail "a good hello: $(wire hello 1 1)"
	[ "$(wire hello 1 99)" = "welcome 1" ] || fail "a newer peer that speaks ours: $(wire hello 1 99)"
	said=$(wire hello 98 99)
	[[ $said == "error version: "*1*98*99* ]] || fail "a peer that speaks only newer ones is told: $said"
	drover list >/dev/null
}

# A key of the fleet protects nobody from nonsense.
wrong_frames() {
	local said bytes
	for bytes in 0 1 1000 $((256 * 1024)); do
		said=$(wire frame "$bytes")
		[[ $said == "error "* ]] || fail "a frame of $bytes bytes: $said"
	done
	said=$(wire frame $((256 * 1024 + 1)))
	[[ $said == closed || $said == "error protocol: "*262144* ]] || fail "a frame too long by a byte: $said"
	said=$(wire frame $((64 * 1024 * 1024)))
	[ "$said" = closed ] || fail "a frame of 64 MiB: $said"
	drover list >/dev/null
	[ "$(drover host list --json | jq '[.hosts[] | select(.state == "connected")] | length')" = 3 ] || fail "agents were cut off"
}

no_coordinator() {
	kill -KILL "$(cat "$FLEET/coordinator/run/coordinator.pid")"
	status_of 6 drover list >"$FLEET/o"
	grep -q 'tcp://' "$FLEET/o" || fail "does not say where it looked: $(cat "$FLEET/o")"
	drover-sim up --home "$FLEET" >/dev/null
	drover list >/dev/null
}

second_coordinator() {
	local out=0
	timeout 10 drover-coordinator --home "$FLEET/coordinator" >"$FLEET/o" 2>&1 || out=$?
	[ $out -ne 0 ] && [ $out -ne 124 ] || fail "it started"
	grep -q "$(cat "$FLEET/coordinator/run/coordinator.pid")" "$FLEET/o" || fail "does not name the holder: $(cat "$FLEET/o")"
}

t refuse__what_cannot_be_done__exit_codes refusals
t refuse__dry_run__changes_nothing dry_run
t refuse__second_migration_of_a_vm one_migration_a_vm
t key__same_request_is_the_same_migration idempotent_key
t roles__viewer_submitter_stranger_revoked roles
t host__bound_to_its_key host_is_bound_to_its_key
t wire__another_version__is_told_which wrong_version
t wire__nonsense_and_oversized_frames__refused wrong_frames
t coordinator__away__exit_6 no_coordinator
t coordinator__a_second_one_on_the_same_database__refused second_coordinator
exit $FAILED
