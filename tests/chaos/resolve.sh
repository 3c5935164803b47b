#!/bin/bash
# The destination's host dies in the middle of a switchover, for ever or for a moment: its leg is stopped at each of its last writes, before and
# after it, and then the power is cut. What does not end by itself an operator resolves for the source: the guest goes on
# there. When the host returns it gives up what it had begun, and nothing is left but what is kept on purpose.
. "$(dirname "$0")/../lib.sh" "$1"
. "$(dirname "$0")/crash_lib.sh"
SAID=$(mktemp)
trap 'rm -f "$SAID"; fleet_down' EXIT

suspected() { [ "$(drover host show b1 --json | jq -r .state)" = suspected ]; }
ran_there() { grep -q '^web1 ' "$FLEET/b1/ledger" 2>/dev/null; }
only_on_a1() { [ "$(where)" = a1 ] && guest_ticks web1; }
over() { state_is "$1" "done" failed cancelled; }
owned() { suspected && [ "$(field "$1" .facts.running)" = true ]; } # it died with the VM, or will go on with it
undecided() { suspected && ! over "$1" && [ "$(drover explain "$1" --json | jq '[.rulings[] | select(.possible)] | length')" -gt 0 ]; }

# b1 loses its power at that write of its leg. Sets `id`, `fired`, and `resolved` to "no".
cut_off_at() { # WHEN N
	fired=no resolved=no
	impatient_fleet
	drover-sim create web1 --on a1 --memory 16M --dirty 1M/s --disk xvda=8M@local --disk-write 512K/s --home "$FLEET"
	within 10 vm_runs_on web1 a1
	stop_daemon b1 agent
	start_with_shim drover-leg-sim "stop-$1" "$2"
	id=$(submit web1 b1 --keep-source 0s)
	until_mark_or_final "$id"
	[ ! -e "$FLEET/mark" ] || fired=yes
	drover-sim power-off b1 --home "$FLEET"
}

# Each sets `fired` and `resolved`.
dies_at() { # WHEN N
	local id
	cut_off_at "$1" "$2"
	within 30 eval "over $id || undecided $id || owned $id"
	if ! over "$id" && ! owned "$id"; then
		status_of 2 drover resolve "$id" --owner source --fenced a1 --reason "a mistake"
		status_of 0 drover resolve "$id" --owner source --fenced b1 --reason "it is off"
		resolved=yes
		within 20 state_is "$id" failed
		within 10 only_on_a1
		[ "$(field "$id" .facts.ruling)" = source ] || fail "the ruling is not shown"
		drover events "$id" --json | jq -e '[.events[] | select(.text | contains("it is off"))] | length > 0' >/dev/null
	fi
	drover-sim power-on b1 --home "$FLEET"
	within 30 eval '[ "$(drover list --json | jq ".migrations | length")" = 0 ]'
	within 20 no_leftovers
	if [ $resolved = yes ]; then
		within 10 only_on_a1
		[ ! -e "$FLEET/b1/lib/vms/web1.json" ] || fail "b1 still has a record of the VM"
		ran_there || within 20 verify # what ran there was undone, and is told of as ticks run twice
	else
		within 30 verify
	fi
	fleet_down
}

held_back() { [ "$(drover-sim list --home "$FLEET" --json | jq '[.vms[] | select(.state == "running")] | length')" = 0 ]; }
boots_there() { drover-sim up --home "$FLEET" >/dev/null && [ "$(where)" = b1 ] && guest_ticks web1; }

# It is back at once. If it had begun to run the guest, nobody runs it until an operator has said who: here the destination, from
# whose disks it is booted, while the source has it suspended still.
reboots_at() { # WHEN N
	local id
	cut_off_at "$1" "$2"
	drover-sim power-on b1 --home "$FLEET" >/dev/null 2>&1
	within 30 eval "over $id || state_is $id lost"
	if state_is "$id" lost && [ "$(field "$id" .facts.released)" = false ]; then
		held_back || fail "somebody runs it before it is said who: $(drover-sim list --home "$FLEET")"
		drover leftovers --json | jq -e '[.leftovers[] | select(.text | contains("drover explain"))] | length == 2' >/dev/null
		status_of 0 drover resolve "$id" --owner destination --fenced a1 --reason "it has run there"
		resolved=yes
		within 20 boots_there
	fi
	within 30 settled
	within 20 no_leftovers
	within 30 verify
	fleet_down
}

at_the_last_writes() { # COMMAND FIRST
	local n when resolutions=0
	for when in before after; do
		for n in $(writes $when); do
			[ "$n" -ge "$2" ] || continue # long before the switchover
			echo "$when write $n" >&2 # shown only if the test fails
			"$1" $when "$n"
			[ $resolved = no ] || resolutions=$((resolutions + 1))
			[ $fired = yes ] || break
		done
		[ "$n" -gt 10 ] || fail "only $n writes: the shim does not see them"
		[ "$n" -lt $((WRITES_MAX - STRIDE)) ] || fail "still stopped at write $n"
	done
	[ $resolutions -gt 0 ] || fail "nothing was ever in doubt"
	echo "$1: $resolutions of the schedules needed an operator" >>"$SAID"
}

t "destination_off_for_ever__at_each_of_its_last_writes__resolved_for_the_source" at_the_last_writes dies_at 8
STRIDE=1 # a single write is between what counts as having run and what is known to run
t "destination_rebooted__at_each_of_its_last_writes__resolved_for_the_destination_if_it_had_begun" at_the_last_writes reboots_at 13
sed 's/^/# /' "$SAID"
exit $FAILED
