#!/bin/bash
# kill -9 of each party of one migration at each write of its journal: before the write, and after it.
#   tests/chaos/crash_each_write.sh BUILD [PARTY...]    PARTY: coordinator source destination source-leg destination-leg
# The killed daemon is started again and the migration must end as if nothing had been (coordinator, agents); a killed leg may
# cost the migration, never the guest. After each: one host runs the guest, its ledger and images are right, nothing is left.
. "$(dirname "$0")/../lib.sh" "$1"
. "$(dirname "$0")/crash_lib.sh"
shift

# One schedule: PARTY WHEN N. Sets `fired`: whether the party made so many writes.
crash_at() {
	local party=$1 when=$2 n=$3 source home daemon program mark=$FLEET/mark
	fired=no
	within 30 settled
	source=$(where)
	party_is "$party" "$source"
	stop_daemon "$home" $daemon
	start_with_shim $program "$when" "$n"
	[ ! -e "$mark" ] || drover-sim up --home "$FLEET" >/dev/null # it died while it started
	key=$party-$when-$n
	submitted() { timeout 3 drover migrate web1 --to "$(other "$source")" --key "$key" --keep-source 0s --json >/dev/null 2>&1; }
	while ! submitted; do # the same key and request: submitted once, however often it is asked
		[ -e "$mark" ] || { submitted || fail "cannot be submitted: $(drover migrate web1 --to "$(other "$source")" --key "$key" --keep-source 0s 2>&1)"; break; }
		drover-sim up --home "$FLEET" >/dev/null
	done
	until_mark_or_final "$key"
	[ -e "$mark" ] && fired=yes
	drover-sim up --home "$FLEET" >/dev/null # also after the end: the last writes come then
	within 60 final "$key"
	[ -e "$mark" ] && fired=yes
	case $program in
	drover-leg-sim) state_is "$key" "done" failed || fail "state $(field "$key" .state)" ;;
	*) state_is "$key" "done" || fail "state $(field "$key" .state), cause $(field "$key" .cause)" ;;
	esac
	within 30 settled
	[ -e "$mark" ] && fired=yes
	stop_daemon "$home" $daemon # it would hand its environment on to the legs of the next schedule
	drover-sim up --home "$FLEET" >/dev/null
	within 10 guest_ticks web1
	all_is_right || fail "$key from $source: $(verify 2>&1)"
	within 10 eval '[ "$(drover leftovers --json | jq ".leftovers | length")" = 0 ]'
}

every_write() { # PARTY WHEN
	local n
	for n in $(seq $WRITES_MAX); do
		echo "write $n" >&2 # shown only if the test fails
		crash_at "$1" "$2" "$n"
		[ $fired = yes ] || break
	done
	[ "$n" -gt 3 ] || fail "only $n writes: the shim does not see them"
	[ "$n" -lt $WRITES_MAX ] || fail "still killed at write $n"
	echo "$1 $2: killed at each of $((n - 1)) writes" >>"$FLEET.said"
}

[ $# -gt 0 ] || set -- coordinator source destination source-leg destination-leg
fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 16M --dirty 1M/s --disk xvda=8M@local --disk-write 512K/s --home "$FLEET"
within 10 vm_runs_on web1 a1
for party in "$@"; do
	for when in before after; do
		t "crash_each_write__${party}_${when}__one_guest_and_nothing_left" every_write "$party" "$when"
		[ -e "$FLEET.said" ] && sed 's/^/# /' "$FLEET.said"
		rm -f "$FLEET.said"
	done
done
exit $FAILED
