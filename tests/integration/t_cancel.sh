#!/bin/bash
# Cancel in every state: answered with what it turns out to be, within a second, the guest never stops, nothing is left.
. "$(dirname "$0")/../lib.sh" "$1"

fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 64M --dirty 4M/s --disk xvda=256M@local --disk-write 2M/s --home "$FLEET"
within 10 vm_runs_on web1 a1

pid_of() { cat "$FLEET/$1/run/$2.pid"; }

# The largest gap between two ticks of the guest since tick $1, in ms.
largest_gap_ms() {
	cat "$FLEET"/*/ledger | awk -v from="$1" '$2 >= from {print $2, $3}' | sort -n |
		awk 'NR > 1 && $2 - last > gap {gap = $2 - last} {last = $2} END {printf "%d\n", gap / 1000000}'
}

nothing_left() { # ID
	within 5 eval "! ls $FLEET/*/run/leg-$1.pid $FLEET/*/run/leg-$1.sock 2>/dev/null"
	within 5 verify
	[ "$(drover vm list --json | jq '.vms | length')" = 1 ] || fail "vm list: $(drover vm list --json)"
}

cancelled_in_time() { # ID FROM_TICK
	local before after
	before=$(date +%s%N)
	status_of 0 drover cancel "$1" --wait >/dev/null
	after=$(date +%s%N)
	state_is "$1" cancelled || fail "state $(field "$1" .state)"
	[ "$(field "$1" .authority)" = source ] || fail "authority"
	[ "$(field "$1" .cause.code)" = cancelled ] || fail "cause $(field "$1" .cause)"
	[ $(((after - before) / 1000000)) -lt 3000 ] || fail "took $(((after - before) / 1000000)) ms"
	guest_ticks web1
	vm_runs_on web1 a1
	[ "$(largest_gap_ms "$2")" -lt 1000 ] || fail "the guest stood still for $(largest_gap_ms "$2") ms"
}

cancel_while_checking() {
	local id tick
	kill -STOP "$(pid_of b1 agent)" # it does not answer: the state stays
	tick=$(tick_of web1)
	id=$(submit web1 b1)
	within 5 state_is "$id" checking
	drover cancel "$id" >/dev/null || true
	kill -CONT "$(pid_of b1 agent)"
	within 5 state_is "$id" cancelled
	cancelled_final "$id" "$tick"
}

cancelled_final() {
	[ "$(field "$1" .cause.code)" = cancelled ] || fail "cause $(field "$1" .cause)"
	guest_ticks web1
	vm_runs_on web1 a1
	[ "$(largest_gap_ms "$2")" -lt 1000 ] || fail "the guest stood still"
	nothing_left "$1"
}

cancel_while_copying_disks() {
	local id tick
	tick=$(tick_of web1)
	id=$(submit web1 b1 --bandwidth 1M/s)
	within 10 state_is "$id" copying
	within 10 eval "[ \"\$(field $id .progress.bytes_done)\" -gt 500000 ]"
	cancelled_in_time "$id" "$tick"
	nothing_left "$id"
}

cancel_while_copying_memory() {
	local id tick
	tick=$(tick_of web1)
	# The memory never fits the downtime: 4 MiB/s dirtied over a link of 3 MiB/s.
	id=$(submit web1 b1 --bandwidth 7M/s --max-downtime 1ms --on-slow wait)
	within 10 state_is "$id" copying
	within 60 eval "[ \"\$(field $id .progress.memory.sent_bytes)\" -gt 1000000 ]"
	cancelled_in_time "$id" "$tick"
	nothing_left "$id"
}

cancel_with_a_hung_destination() {
	local id tick leg
	tick=$(tick_of web1)
	id=$(submit web1 b1 --bandwidth 2M/s)
	within 10 state_is "$id" copying
	within 10 eval "[ \"\$(field $id .progress.bytes_done)\" -gt 500000 ]"
	leg=$(pid_of b1 "leg-$id")
	kill -STOP "$leg"
	drover cancel "$id" >/dev/null || true
	# The guest is free at once, whatever the other side does.
	within 2 eval "[ \"\$(field $id .authority)\" = source ]"
	guest_ticks web1
	kill -CONT "$leg"
	within 10 state_is "$id" cancelled
	cancelled_final "$id" "$tick"
}

cancel_twice_and_too_late() {
	local id
	id=$(submit web1 b1 --bandwidth 1M/s)
	within 10 state_is "$id" copying
	status_of 0 drover cancel "$id" --wait >/dev/null
	status_of 0 drover cancel "$id" --wait >/dev/null
	nothing_left "$id"
	id=$(submit web1 b1)
	within 60 state_is "$id" "done"
	status_of 4 drover cancel "$id" >/dev/null
	within 5 vm_runs_on web1 b1
	status_of 0 drover migrate web1 --to a1 --wait >/dev/null
	within 10 verify
}

t cancel__while_checking__source_undisturbed cancel_while_checking
t cancel__while_copying_disks__within_a_second cancel_while_copying_disks
t cancel__while_copying_memory__within_a_second cancel_while_copying_memory
t cancel__with_a_hung_destination__guest_free_at_once cancel_with_a_hung_destination
t cancel__twice_is_once_and_after_done_too_late cancel_twice_and_too_late
exit $FAILED
