#!/bin/bash
# Wall clocks that are set, machines that were suspended: no migration is aborted by it, no host is suspected for ever, no
# disk that is kept goes before its time. Every process of the fleet, guests too, reads its clocks through env_shim.c.
build=$(cd "$1" && pwd)
. "$(dirname "$0")/../lib.sh" "$1"
YEAR=31536000

set_clocks() { # WALL SUSPENDED, in seconds
	echo "$1 $2" >"$FLEET/clock.new"
	mv "$FLEET/clock.new" "$FLEET/clock"
}

begin_copy() { # sets id, source
	source=$(where)
	id=$(submit web1 "$(other "$source")" --bandwidth 1M/s --on-slow force --keep-source 0s)
	within 10 state_is "$id" copying
}

all_connected() { [ "$(drover status --json | jq -r .health)" = ok ]; }

jump_while_copying() { # WALL SUSPENDED STATE...: the states it may end in
	local wall=$1 suspended=$2
	shift 2
	within 20 settled
	begin_copy
	set_clocks "$wall" "$suspended"
	within 60 final "$id"
	state_is "$id" "$@" || fail "state $(field "$id" .state): $(field "$id" .cause)"
	within 30 all_connected
	within 10 guest_ticks web1
	all_is_right || fail "$(verify 2>&1)"
}

jump_before_restart() { # the coordinator comes back in another year
	within 20 settled
	begin_copy
	stop_daemon coordinator coordinator
	set_clocks $((2 * YEAR)) 0
	drover-sim up --home "$FLEET" >/dev/null
	within 60 final "$id"
	state_is "$id" "done" || fail "state $(field "$id" .state): $(field "$id" .cause)"
	set_clocks 0 0
}

kept_disk() { # a year forth makes nothing due that is kept for an hour; an hour of sleep does
	local keeper kept
	within 20 settled
	keeper=$(where)
	kept="$FLEET/$keeper/sr/local/$(drover vm list --json | jq -r '.vms[] | select(.name == "web1") | .uuid')*"
	status_of 0 drover migrate web1 --to "$(other "$keeper")" --keep-source 1h --wait >/dev/null
	compgen -G "$kept" >/dev/null || fail "nothing is kept"
	set_clocks $((YEAR + 3600)) 3600 # the hour that the test before has slept
	drover-sim create web2 --on "$keeper" --memory 16M --disk xvda=4M@local --home "$FLEET"
	within 10 vm_runs_on web2 "$keeper"
	local other_one
	other_one="$FLEET/$keeper/sr/local/$(drover vm list --json | jq -r '.vms[] | select(.name == "web2") | .uuid')*"
	status_of 0 drover migrate web2 --to "$(other "$keeper")" --keep-source 1s --wait >/dev/null
	# When that one is gone, the other one was looked at too.
	within 40 eval '! compgen -G "$other_one"'
	compgen -G "$kept" >/dev/null || fail "removed before its time: $(grep kept-disk "$FLEET/$keeper/run/agent.log")"
	set_clocks $((YEAR + 7300)) 7300
	within 40 eval '! compgen -G "$kept"'
	set_clocks 7300 7300
	within 30 all_connected
}

fleet_dir
export LD_PRELOAD=$build/test/faults.so DROVER_CLOCK=$FLEET/clock
[ -e "$LD_PRELOAD" ] || { echo "not ok - $LD_PRELOAD is not built"; exit 1; }
fleet_up --hosts a1@A,b1@B
set_clocks 0 0
drover-sim create web1 --on a1 --memory 16M --dirty 256K/s --disk xvda=8M@local --disk-write 64K/s --fill 50 --home "$FLEET"
within 10 vm_runs_on web1 a1
t clocks__wall_a_year_forth_while_copying__done jump_while_copying $YEAR 0 "done"
t clocks__wall_two_years_back_while_copying__done jump_while_copying -$YEAR 0 "done"
t clocks__wall_two_years_forth_while_the_coordinator_is_away__done jump_before_restart
# Whoever waits for an answer meanwhile has waited for an hour: that may cost the copy.
t clocks__suspended_for_an_hour_while_copying__done_or_rolled_back jump_while_copying 3600 3600 "done" failed
t clocks__wall_a_year_forth__kept_disk_stays_and_goes_in_its_time kept_disk
exit $FAILED
