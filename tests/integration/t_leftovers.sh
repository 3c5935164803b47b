#!/bin/bash
# `drover leftovers` asks the hosts: what nobody claims is found and can be swept; nothing else ever is.
. "$(dirname "$0")/../lib.sh" "${1:-build}"

list() { # list JQ [options]: of the answer, complete or not
	local want=$1
	shift
	{ drover leftovers --json "$@" || true; } | jq -r "$want"
}

unclaimed() {
	list '[.leftovers[] | select(.claimed | not) | .host + " " + .kind + " " + .name] | sort | join(", ")' "$@"
}

ended() { # PID: a zombie counts, its parent is this shell
	! kill -0 "$1" 2>/dev/null || [ "$(ps -o stat= -p "$1" | cut -c 1)" = Z ]
}

is_called() { # PID COMM
	[ "$(cat "/proc/$1/comm")" = "$2" ]
}

strays() {
	local b=$FLEET/b1 uuid=11111111-2222-3333-4444-555555555555 disk exporter leg
	drover-sim create web1 --on b1 --memory 16M --dirty 1M/s --disk xvda=16M@local --disk-write 1M/s --home "$FLEET"
	within 10 vm_runs_on web1 b1
	[ "$(unclaimed)" = "" ] || fail "before: $(unclaimed)"
	disk=$b/sr/local/$uuid.xvda.999.raw
	truncate -s 1M "$disk" "$disk.reserve" "$b/sr/qcow/$uuid.xvdb.999.qcow2"
	# what is not called as we call ours, and a disk that no migration brought
	touch "$b/sr/local/precious.raw" "$b/sr/local/$uuid.xvda.0.raw" "$b/sr/local/$uuid.xvda.999.raw.bak"
	# an exporter whose leg is gone
	mkdir "$b/run/export-999-xvda"
	nbdkit --foreground --unix "$b/run/export-999-xvda/nbd.sock" file "$disk" &
	exporter=$!
	within 10 test -S "$b/run/export-999-xvda/nbd.sock"
	# a VM that was coming in
	jq '.state = "incoming" | .name = "ghost" | .guest = "" | .migration = 999 | .disks = [] |
		.uuid = "99999999-2222-3333-4444-555555555555"' "$b/lib/vms/web1.json" >"$FLEET/ghost.json"
	mv "$FLEET/ghost.json" "$b/lib/vms/ghost.json"
	# a leg that no journal has, and the files of another
	ln -s /bin/sh "$FLEET/drover-leg-x"
	mkfifo "$FLEET/fifo"
	echo "read -r x <$FLEET/fifo" >"$FLEET/run"
	(cd "$FLEET" && exec ./drover-leg-x run --home "$b" --migration 998 --generation 1) &
	leg=$!
	within 10 is_called $leg drover-leg-x
	touch "$b/run/leg-999.sock" "$b/run/leg-999.lock" "$b/run/leg-999.log"

	local all="b1 disk xvda, b1 disk xvdb, b1 export xvda, b1 file leg-999.lock, b1 file leg-999.sock, b1 leg leg-998, b1 reserve xvda, b1 vm ghost"
	[ "$(unclaimed)" = "$all" ] || fail "found: $(unclaimed)"
	[ "$(unclaimed --host a1)" = "" ] || fail "on a1: $(unclaimed --host a1)"
	[ "$(unclaimed --host b1)" = "$all" ] || fail "on b1: $(unclaimed --host b1)"
	[ "$(list '[.leftovers[] | select(.swept != null)] | length')" = 0 ] || fail "swept, and nobody asked for it"
	drover leftovers | grep -q "$disk" || fail "not shown: $(drover leftovers)"
	! ended $exporter && ! ended $leg || fail "ended before it was swept"
	[ -e "$disk" ] || fail "looking takes away"

	status_of 0 drover leftovers --sweep --json --host b1 >"$FLEET/swept.json"
	[ "$(jq '[.leftovers[] | select(.swept)] | length' "$FLEET/swept.json")" = 8 ] || fail "$(cat "$FLEET/swept.json")"
	[ "$(unclaimed)" = "" ] || fail "after: $(unclaimed)"
	ended $exporter || fail "the exporter lives"
	ended $leg || fail "the leg lives"
	local gone
	for gone in "$disk" "$disk.reserve" "$b/sr/qcow/$uuid.xvdb.999.qcow2" "$b/run/export-999-xvda" "$b/lib/vms/ghost.json" \
		"$b/run/leg-999.sock" "$b/run/leg-999.lock" "$b/run/leg-998.lock"; do
		[ ! -e "$gone" ] || fail "still there: $gone"
	done
	local stays
	for stays in "$b/sr/local/precious.raw" "$b/sr/local/$uuid.xvda.0.raw" "$b/sr/local/$uuid.xvda.999.raw.bak" "$b/run/leg-999.log"; do
		[ -e "$stays" ] || fail "taken away: $stays"
	done
	[ "$(drover events --json | jq -r '[.events[] | select(.kind == "swept" and .host == "b1")] | last | .details.swept | length')" = 8 ] ||
		fail "not on record: $(drover events --json)"
	rm "$b/sr/local/precious.raw" "$b/sr/local/$uuid.xvda.0.raw" "$b/sr/local/$uuid.xvda.999.raw.bak" "$b/run/leg-999.log"
	guest_ticks web1
	within 10 verify
}

# A copy of a migration that was given up goes; the disk that a migration has brought stays, even when its VM is unknown.
copies() {
	local b=$FLEET/b1 uuid=11111111-2222-3333-4444-555555555555 id brought
	drover-sim create web2 --on a1 --memory 16M --dirty 1M/s --disk xvda=16M@local --disk-write 1M/s --home "$FLEET"
	within 10 vm_runs_on web2 a1
	id=$(submit web2 b1 --bandwidth 1M/s)
	within 10 state_is "$id" copying
	drover cancel "$id" --wait
	touch "$b/sr/local/$uuid.xvda.$id.raw"
	[ "$(unclaimed)" = "b1 disk xvda" ] || fail "found: $(unclaimed)"
	status_of 0 drover leftovers --sweep >/dev/null
	[ ! -e "$b/sr/local/$uuid.xvda.$id.raw" ] || fail "still there"
	drover migrate web2 --to b1 --keep-source 0s --wait >/dev/null
	within 10 vm_runs_on web2 b1
	brought=$(ls "$b"/sr/local/*.xvda.*.raw | grep -v '\.0\.raw')
	mv "$b/lib/vms/web2.json" "$FLEET/web2.json"
	[ "$(unclaimed)" = "b1 disk xvda" ] || fail "found: $(unclaimed)"
	status_of 1 drover leftovers --sweep >/dev/null
	[ -e "$brought" ] || fail "the disk of a VM is gone"
	mv "$FLEET/web2.json" "$b/lib/vms/web2.json"
	[ "$(unclaimed)" = "" ] || fail "after: $(unclaimed)"
	guest_ticks web2
	within 10 verify
}

silent_host() {
	drover-sim power-off b1 --home "$FLEET"
	status_of 1 drover leftovers --json >"$FLEET/silent.json"
	[ "$(jq -r '.hosts_silent | join(",")' "$FLEET/silent.json")" = b1 ] || fail "$(cat "$FLEET/silent.json")"
	status_of 0 drover leftovers --host a1 --json | jq -e '.hosts_silent == []'
	status_of 1 drover leftovers --host b1 | grep -q "b1: no answer"
	status_of 2 drover leftovers --host nowhere >/dev/null
	drover-sim power-on b1 --home "$FLEET"
	within 20 eval 'drover leftovers --host b1'
	status_of 0 drover leftovers --json | jq -e '.hosts_silent == []'
}

# In a loop while migrations run: sweeping, too, finds nothing that is not claimed and harms nothing.
look_until() { # FILE: ends when it exists
	local n=0 options
	while [ ! -e "$1" ]; do
		options=--json
		[ $((n % 3)) -ne 1 ] || options="--json --sweep"
		# shellcheck disable=SC2086
		{ drover leftovers $options || true; } >>"$FLEET/looked"
		n=$((n + 1))
	done
}

while_migrating() {
	local i id loop
	rm -f "$FLEET/stop" "$FLEET/looked"
	drover-sim create web3 --on a1 --memory 16M --dirty 1M/s --disk xvda=16M@local --disk xvdb=16M@qcow --disk-write 1M/s \
		--home "$FLEET"
	within 10 vm_runs_on web3 a1
	look_until "$FLEET/stop" &
	loop=$!
	trap 'touch "$FLEET/stop"; wait $loop' EXIT # or it would go on after a failure
	for i in 1 2 3; do
		drover migrate web3 --to b1 --storage-map local=qcow --keep-source 0s --wait >/dev/null
		within 10 vm_runs_on web3 b1
		id=$(submit web3 a1 --bandwidth 2M/s)
		within 10 state_is "$id" copying
		drover cancel "$id" --wait >/dev/null
		drover migrate web3 --to a1 --keep-source 0s --wait >/dev/null
		within 10 vm_runs_on web3 a1
	done
	touch "$FLEET/stop"
	wait $loop
	trap - EXIT
	[ "$(jq -s length "$FLEET/looked")" -ge 6 ] || fail "looked $(jq -s length "$FLEET/looked") times only"
	jq -e -s 'map(has("leftovers")) | all' "$FLEET/looked" >/dev/null || fail "$(cat "$FLEET/looked")"
	[ "$(jq -s '[.[].leftovers[] | select((.claimed | not) or .swept)] | length' "$FLEET/looked")" = 0 ] ||
		fail "$(jq -c -s '[.[].leftovers[] | select((.claimed | not) or .swept)]' "$FLEET/looked")"
	guest_ticks web3
	within 10 verify
}

fleet_up --hosts a1@A,b1@B
t "strays of each kind are found; --sweep removes exactly these, and puts it on record" strays
t "a copy of a migration that was given up goes, a disk that a migration has brought stays" copies
t "a host that is off is named, and is not taken for one that holds nothing" silent_host
fleet_down
for exporter in nbd iscsi; do
	fleet_up --hosts a1@A,b1@B --exporter $exporter
	t "nothing of a migration that runs is ever unclaimed, and sweeping harms nothing ($exporter)" while_migrating
	fleet_down
done
exit $FAILED
