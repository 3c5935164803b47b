#!/bin/bash
# A party that hangs for long, or is gone for good, from one of its writes on.
#   tests/chaos/gone.sh BUILD hang-PARTY             stopped at the write until it is suspected, then it goes on
#   tests/chaos/gone.sh BUILD coordinator            the coordinator never comes back: the guest runs all the same
#   tests/chaos/gone.sh BUILD source                 the source's host loses its power for good (and returns, for the cleaning)
. "$(dirname "$0")/../lib.sh" "$1"
. "$(dirname "$0")/crash_lib.sh"
SAID=$(mktemp)
trap 'rm -f "$SAID"; fleet_down' EXIT
what=$2

guest() { drover-sim create web1 --on a1 --memory 16M --dirty 1M/s --disk xvda=8M@local --disk-write 512K/s --home "$FLEET"; }
suspects() { drover host list --json | jq -e '[.hosts[] | select(.state == "suspected")] | length > 0' >/dev/null; }

# Starts the PARTY with the shim, submits, waits. Sets `fired`, `id`.
strike() { # PARTY WHEN N
	local home daemon program
	fired=no
	party_is "$1" a1
	stop_daemon "$home" $daemon
	start_with_shim $program "$2" "$3"
	[ ! -e "$FLEET/mark" ] || { fired=early; return 0; } # at a write of its own start
	id=$1-$2-$3
	drover migrate web1 --to b1 --key "$id" --keep-source 0s --json >/dev/null 2>&1 &
	until_mark_or_final_or_gone "$id"
	[ ! -e "$FLEET/mark" ] || fired=yes
}

until_mark_or_final_or_gone() { # as until_mark_or_final, when the coordinator may be the one that was struck
	local deadline=$(($(date +%s) + 60))
	until [ -e "$FLEET/mark" ] || timeout 2 drover show "$1" --json 2>/dev/null | jq -e '.ended_at != null' >/dev/null; do
		[ "$(date +%s)" -lt $deadline ] || fail "neither final nor struck"
		sleep 0.05
	done
}

hang() { # PARTY WHEN N
	impatient_fleet
	guest
	within 10 vm_runs_on web1 a1
	strike "$1" "stop-$2" "$3"
	if [ $fired = yes ]; then
		case $1 in
		coordinator) within 20 guest_ticks web1 ;; # it is not needed
		*-leg) ;;                                   # its agent lives: nobody suspects anything
		*) within 20 suspects ;;
		esac
		go_on
		wait
		# A leg that stood still may have had its votes asked for meanwhile; the guest runs in one place all the same.
		within 60 final "$id"
	fi
	wait
	within 30 settled
	within 20 guest_ticks web1
	within 30 verify
	within 10 no_leftovers
	fleet_down
}

no_coordinator() { # WHEN N
	impatient_fleet
	guest
	within 10 vm_runs_on web1 a1
	strike coordinator "$1" "$2"
	wait
	if [ $fired != no ]; then # the hosts finish by themselves, or go on copying
		within 40 guest_ticks web1
	fi
	within 90 settles # long after
	within 20 guest_ticks web1
	within 30 verify
	fleet_down
}

no_source() { # WHEN N
	impatient_fleet
	guest
	within 10 vm_runs_on web1 a1
	strike source-leg "stop-$1" "$2"
	wait
	drover-sim power-off a1 --home "$FLEET"
	# Either the destination runs it by now or soon, or nobody can: the VM died with its host.
	within 30 eval "suspects && { guest_ticks web1 || ! state_is $id switching committed; }"
	drover-sim power-on a1 --home "$FLEET"
	within 60 final "$id"
	within 60 settled
	within 20 guest_ticks web1
	within 30 verify
	fleet_down
}

each_write() { # COMMAND...: with WHEN and N added
	local n when last=0
	for when in before after; do
		for n in $(writes $when); do
			echo "$when write $n" >&2 # shown only if the test fails
			"$@" $when "$n"
			[ $fired != no ] || break
			last=$n
		done
		[ "$last" -gt 3 ] || fail "only $n writes: the shim does not see them"
	done
	echo "$*: up to write $last" >>"$SAID"
}

case $what in
hang-*) t "hang__${what#hang-}_at_a_write_until_it_is_suspected__one_guest_and_nothing_left" each_write hang "${what#hang-}" ;;
coordinator) t "gone__coordinator_at_a_write_for_good__the_guest_runs" each_write no_coordinator ;;
source) t "gone__source_at_a_write_for_good__one_guest_and_nothing_left" each_write no_source ;;
*) fail "hang-PARTY, coordinator or source, not $what" ;;
esac
sed 's/^/# /' "$SAID"
exit $FAILED
