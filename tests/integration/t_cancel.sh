#!/bin/bash
# Cancel in every state: answered with what it turns out to be, within a second, the guest never stops, nothing is left.
. "$(dirname "$0")/../lib.sh" "$1"

fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 64M --dirty 4M/s --disk xvda=256M@local --disk-write 2M/s --home "$FLEET"
within 10 vm_runs_on web1 a1

pid_of() { cat "$FLEET/$1/run/$2.pid"; }

# The largest gap between two ticks of the guest since tick $1, in ms.
largest_gap_ms() {
	cat "$FLEET"/*/ledger | awk -v from="$1" '$1 == "web1" && $2 >= from {print $2, $3}' | sort -n |
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

cancel_while_queued() {
	local first id tick
	tick=$(tick_of web1)
	echo 'max-migrations = 1' >>"$FLEET/coordinator/etc/coordinator.conf"
	restart_coordinator
	drover-sim create web2 --on a1 --memory 16M --disk xvda=16M@local --home "$FLEET"
	within 10 vm_runs_on web2 a1
	first=$(submit web2 b1 --bandwidth 100K/s)
	within 10 state_is "$first" copying
	id=$(submit web1 b1)
	within 5 state_is "$id" queued
	cancelled_in_time "$id" "$tick"
	state_is "$first" copying || fail "the first is $(field "$first" .state)"
	status_of 0 drover cancel "$first" --wait >/dev/null
	drover-sim destroy web2 --home "$FLEET"
	sed -i '/^max-migrations/d' "$FLEET/coordinator/etc/coordinator.conf"
	restart_coordinator
	within 10 eval "[ \"\$(drover vm list --json | jq '.vms | length')\" = 1 ]"
	nothing_left "$id"
}

restart_coordinator() {
	kill -TERM "$(pid_of coordinator coordinator)"
	within 10 eval "! [ -e $FLEET/coordinator/run/coordinator.pid ]"
	drover-sim up --home "$FLEET" >/dev/null
}

# Legs of b1 start when the file is there.
cancel_while_preparing() {
	local id tick
	tick=$(tick_of web1)
	printf '#!/bin/sh\n[ "$1" != run ] || until [ -e "%s" ]; do sleep 0.05; done\nexec "%s" "$@"\n' "$FLEET/go" "$BIN/drover-leg-sim" \
		>"$FLEET/leg"
	chmod +x "$FLEET/leg"
	sed -i "1ileg = \"$FLEET/leg\"" "$FLEET/b1/etc/agent.conf"
	kill -TERM "$(pid_of b1 agent)"
	within 10 eval "! [ -e $FLEET/b1/run/agent.pid ]"
	drover-sim up --home "$FLEET" >/dev/null
	id=$(submit web1 b1)
	within 10 state_is "$id" preparing
	drover cancel "$id" >/dev/null || true
	within 2 eval "[ \"\$(field $id .authority)\" = source ]"
	touch "$FLEET/go"
	within 10 state_is "$id" cancelled
	cancelled_final "$id" "$tick"
	sed -i '/^leg = /d' "$FLEET/b1/etc/agent.conf"
	kill -TERM "$(pid_of b1 agent)"
	within 10 eval "! [ -e $FLEET/b1/run/agent.pid ]"
	drover-sim up --home "$FLEET" >/dev/null
}

# A VM that dirties faster than the link: the last round takes seconds, so that the switchover can be met.
slow_to_switch() { # VM: prints the migration's id, in state switching
	local id
	drover-sim create "$1" --on a1 --memory 16M --dirty 8M/s --disk xvda=16M@local --disk-write 0 --home "$FLEET"
	within 10 vm_runs_on "$1" a1
	id=$(submit "$1" b1 --bandwidth 4M/s --max-downtime 10ms --on-slow force)
	within 60 state_is "$id" switching
	echo "$id"
}

# The guest is suspended when the cancel comes, and runs on at once.
cancel_while_switching() {
	local id before after
	id=$(slow_to_switch late1)
	before=$(date +%s%N)
	status_of 0 drover cancel "$id" --wait >/dev/null
	after=$(date +%s%N)
	state_is "$id" cancelled || fail "state $(field "$id" .state)"
	[ $(((after - before) / 1000000)) -lt 3000 ] || fail "took $(((after - before) / 1000000)) ms"
	[ "$(field "$id" .cause.code)" = cancelled ] || fail "cause $(field "$id" .cause)"
	guest_ticks late1
	within 5 vm_runs_on late1 a1
	drover-sim destroy late1 --home "$FLEET"
	within 10 eval "[ \"\$(drover vm list --json | jq '.vms | length')\" = 1 ]"
	nothing_left "$id"
}

# The source's agent is away when both have voted: the verdict is there, the clean-up is not.
cancel_while_committed() {
	local id
	id=$(slow_to_switch late2)
	kill -STOP "$(pid_of a1 agent)"
	within 60 state_is "$id" committed
	status_of 4 drover cancel "$id" >/dev/null
	kill -CONT "$(pid_of a1 agent)"
	within 30 state_is "$id" "done"
	within 10 vm_runs_on late2 b1
	within 10 verify
	drover-sim destroy late2 --home "$FLEET"
	within 10 eval "[ \"\$(drover vm list --json | jq '.vms | length')\" = 1 ]"
}

t cancel__while_queued__source_undisturbed cancel_while_queued
t cancel__while_preparing__source_undisturbed cancel_while_preparing
t cancel__while_switching__guest_runs_on_the_source cancel_while_switching
t cancel__while_committed__too_late cancel_while_committed
t cancel__while_checking__source_undisturbed cancel_while_checking
t cancel__while_copying_disks__within_a_second cancel_while_copying_disks
t cancel__while_copying_memory__within_a_second cancel_while_copying_memory
t cancel__with_a_hung_destination__guest_free_at_once cancel_with_a_hung_destination
t cancel__twice_is_once_and_after_done_too_late cancel_twice_and_too_late
exit $FAILED
