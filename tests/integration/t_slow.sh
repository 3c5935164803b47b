#!/bin/bash
# A guest that writes faster than the link: each --on-slow policy does what it says.
. "$(dirname "$0")/../lib.sh" "$1"

fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 16M --dirty 16M/s --disk xvda=16M@local --disk-write 64K/s --home "$FLEET"
within 10 vm_runs_on web1 a1

slow_abort() {
	status_of 1 drover migrate web1 --to b1 --bandwidth 6M/s --max-downtime 200ms --on-slow abort --wait --json >"$FLEET/o"
	[ "$(jq -r .cause.code "$FLEET/o")" = slow ] || fail "cause $(jq -c .cause "$FLEET/o")"
	jq -r .cause.message "$FLEET/o" | grep -q 'MiB/s' || fail "no figures: $(jq -r .cause.message "$FLEET/o")"
	guest_ticks web1
	vm_runs_on web1 a1
	within 5 verify
}

slow_wait() {
	local id
	id=$(submit web1 b1 --bandwidth 6M/s --max-downtime 200ms --on-slow wait)
	within 30 eval "[ \"\$(field $id .progress.memory.pass)\" -ge 4 ]"
	state_is "$id" copying || fail "state $(field "$id" .state)"
	status_of 0 drover cancel "$id" --wait >/dev/null
	within 5 verify
}

slow_force() {
	status_of 0 drover migrate web1 --to b1 --bandwidth 6M/s --max-downtime 10ms --on-slow force --wait --json >"$FLEET/o"
	[ "$(jq -r '.downtime_ms > 10' "$FLEET/o")" = true ] || fail "downtime $(jq .downtime_ms "$FLEET/o")"
	within 5 vm_runs_on web1 b1
	within 10 verify
	status_of 0 drover migrate web1 --to a1 --on-slow force --wait >/dev/null
}

slow_throttle() {
	local id
	id=$(submit web1 b1 --bandwidth 8M/s --max-downtime 150ms --on-slow throttle)
	within 90 state_is "$id" "done"
	[ "$(field "$id" '.progress.throttle_percent > 0')" = true ] || fail "never slowed down: $(field "$id" .progress)"
	within 5 vm_runs_on web1 b1
	within 10 verify
	guest_ticks web1
}

t on_slow__abort__gives_up_with_figures slow_abort
t on_slow__wait__waits slow_wait
t on_slow__force__beyond_the_downtime slow_force
t on_slow__throttle__slows_the_guest_down slow_throttle
exit $FAILED
