#!/bin/bash
# kill -9 of every process that takes part, while disks are copied: the guest goes on, the copy too where it can.
. "$(dirname "$0")/../lib.sh" "$1"

pid_of() { cat "$FLEET/$1/run/$2.pid"; }
gone() { ! kill -0 "$1" 2>/dev/null; }

begin() { # starts a migration that takes some seconds; sets id
	id=$(submit web1 b1 --bandwidth 6M/s --on-slow force)
	within 10 state_is "$id" copying
	within 10 eval "[ \"\$(field $id .progress.bytes_done)\" -gt 1000000 ]"
}

back_home() {
	status_of 0 drover migrate web1 --to a1 --wait >/dev/null
	within 5 vm_runs_on web1 a1
}

failed_and_clean() { # ID CODE...
	within 30 state_is "$1" failed
	local code
	code=$(field "$1" .cause.code)
	shift
	[[ " $* " == *" $code "* ]] || fail "cause $code, wanted one of $*"
	guest_ticks web1 || fail "the guest does not tick"
	vm_runs_on web1 a1
	within 10 verify
}

done_and_clean() { # ID
	within 90 state_is "$1" "done" || fail "state $(field "$1" .state), cause $(field "$1" .cause)"
	within 5 vm_runs_on web1 b1
	guest_ticks web1
	within 5 verify
	back_home
}

agent_killed() { # HOST: the copy goes on in the same leg
	begin
	local leg_a leg_b victim
	leg_a=$(pid_of a1 "leg-$id")
	leg_b=$(pid_of b1 "leg-$id")
	victim=$(pid_of "$1" agent)
	kill -KILL "$victim"
	within 5 gone "$victim"
	drover-sim up --home "$FLEET" >/dev/null
	[ "$(pid_of a1 "leg-$id")" = "$leg_a" ] || fail "another leg on a1"
	[ "$(pid_of b1 "leg-$id")" = "$leg_b" ] || fail "another leg on b1"
	done_and_clean "$id"
}

coordinator_killed() {
	begin
	local leg_a victim
	leg_a=$(pid_of a1 "leg-$id")
	victim=$(pid_of coordinator coordinator)
	kill -KILL "$victim"
	within 5 gone "$victim"
	drover-sim up --home "$FLEET" >/dev/null
	kill -0 "$leg_a" || fail "the leg did not survive"
	done_and_clean "$id"
}

leg_killed() { # HOST
	begin
	kill -KILL "$(pid_of "$1" "leg-$id")"
	failed_and_clean "$id" leg-lost peer-lost
}

guest_killed() { # nothing is left to migrate or to resume: the migration says so, and waits for nothing
	begin
	local victim
	victim=$(pid_of a1 guest-web1)
	kill -KILL "$victim"
	within 5 gone "$victim"
	within 30 state_is "$id" failed || fail "state $(field "$id" .state)"
	[ "$(field "$id" .authority)" = source ] || fail "authority $(field "$id" .authority)"
	drover-sim up --home "$FLEET" >/dev/null
	within 10 guest_ticks web1
	within 5 vm_runs_on web1 a1
	within 10 verify
}

exporter_killed() {
	begin
	local pids
	pids=$(cat "$FLEET"/b1/run/export-"$id"-*.pid)
	[ -n "$pids" ] || fail "no exporter"
	# shellcheck disable=SC2086
	kill -KILL $pids
	failed_and_clean "$id" exporter peer-lost io
}

destination_full() {
	status_of 8 drover migrate web2 --to b1 >"$FLEET.out"
	grep -qi 'space' "$FLEET.out" || fail "says not why: $(cat "$FLEET.out")"
	rm -f "$FLEET.out"
	guest_ticks web2
	[ -z "$(ls "$FLEET/b1/sr/local" | grep -v web1 | grep reserve)" ] || fail "left: $(ls "$FLEET/b1/sr/local")"
	drover-sim destroy web2 --home "$FLEET"
	within 10 verify
}

for exporter in nbd iscsi; do
	fleet_up --hosts a1@A,b1@B --exporter $exporter
	drover-sim create web1 --on a1 --memory 16M --dirty 512K/s --disk xvda=32M@local --disk xvdb=16M@local --fill 100 \
		--disk-write 64K/s --home "$FLEET"
	within 10 vm_runs_on web1 a1
	t "leg_killed__source_${exporter}__rolled_back" leg_killed a1
	t "leg_killed__destination_${exporter}__rolled_back" leg_killed b1
	t "exporter_killed__${exporter}__rolled_back" exporter_killed
	if [ $exporter = nbd ]; then
		t "agent_killed__source__copy_goes_on" agent_killed a1
		t "agent_killed__destination__copy_goes_on" agent_killed b1
		t "coordinator_killed__copy_goes_on" coordinator_killed
		t "guest_killed__copying__fails_and_waits_for_nothing" guest_killed
		drover-sim create web2 --on a1 --memory 16M --disk xvda=8000G@local --home "$FLEET"
		within 10 vm_runs_on web2 a1
		t "destination_full__refused_before_anything_is_changed" destination_full
	fi
	fleet_down
done
exit $FAILED
