#!/bin/bash
# kill -9 of each party of one migration at each write of its journal: before the write, and after it.
#   tests/chaos/crash_each_write.sh BUILD [PARTY...]    PARTY: coordinator source destination source-leg destination-leg
# WAY=retry: the migration goes on with the copy that a cancelled one has left. WAY=undo: it goes back over kept disks. Whatever
# a killed leg leaves of them, another retry ends well.
# The killed daemon is started again and the migration must end as if nothing had been (coordinator, agents); a killed leg may
# cost the migration, never the guest. After each: one host runs the guest, its ledger and images are right, nothing is left.
. "$(dirname "$0")/../lib.sh" "$1"
. "$(dirname "$0")/crash_lib.sh"
shift
WAY=${WAY:-migrate}
# What comes before the migration that is to be killed; prints its id.
prelude() { # SOURCE
	local id
	case $WAY in
	retry)
		id=$(submit web1 "$(other "$1")" --bandwidth 8M/s --keep-copy 5m --keep-source 0s)
		within 30 state_is "$id" copying
		within 30 eval "[ \"\$(field $id .progress.bytes_done)\" -gt 3000000 ]"
		status_of 0 drover cancel "$id" --wait >/dev/null
		;;
	undo) id=$(status_of 0 drover migrate web1 --to "$(other "$1")" --keep-source 1m --wait --json | jq -r .id) ;;
	esac
	[ "$WAY" = migrate ] || [ "$(field "$id" .kept_until)" != null ] || fail "nothing is kept: $(field "$id" .)"
	echo "${id:-}"
}
ask_for_it() { # PRELUDE SOURCE KEY
	case $WAY in
	migrate) drover migrate web1 --to "$(other "$2")" --key "$3" --keep-source 0s --keep-copy 0s --json ;;
	*) drover "$WAY" "$1" --key "$3" --json ;;
	esac
}

# One schedule: PARTY WHEN N. Sets `fired`: whether the party made so many writes.
crash_at() {
	local party=$1 when=$2 n=$3 source home daemon program mark=$FLEET/mark before
	fired=no
	within 30 settled
	before=$(prelude "$(where)")
	within 30 settled
	source=$(where)
	party_is "$party" "$source"
	stop_daemon "$home" $daemon
	start_with_shim $program "$when" "$n"
	[ ! -e "$mark" ] || drover-sim up --home "$FLEET" >/dev/null # it died while it started
	key=$party-$when-$n
	submitted() (PATH=$PATH timeout 3 bash -c "$(declare -f ask_for_it other); WAY=$WAY; ask_for_it '$before' $source $key" >/dev/null 2>&1)
	while ! submitted; do # the same key and request: submitted once, however often it is asked
		[ -e "$mark" ] || { submitted || fail "cannot be submitted: $(ask_for_it "$before" "$source" "$key" 2>&1)"; break; }
		drover-sim up --home "$FLEET" >/dev/null
	done
	until_mark_or_final "$key"
	[ -e "$mark" ] && fired=yes
	within 90 settles
	stop_daemon "$home" $daemon # it would hand its environment on to the legs of the next schedule
	[ -e "$mark" ] && fired=yes
	drover-sim up --home "$FLEET" >/dev/null
	case $program in
	drover-leg-sim) state_is "$key" "done" failed || fail "state $(field "$key" .state)" ;;
	*) state_is "$key" "done" || fail "state $(field "$key" .state), cause $(field "$key" .cause)" ;;
	esac
	within 10 guest_ticks web1
	all_is_right || fail "$key from $source: $(verify 2>&1)"
	if [ "$WAY" != migrate ] && state_is "$key" failed; then
		status_of 0 drover retry "$key" --wait >/dev/null
		within 10 guest_ticks web1
		all_is_right || fail "retry of $key from $source: $(verify 2>&1)"
	fi
	within 10 no_leftovers
}

every_write() { # PARTY WHEN
	local n tried=0
	for n in $(writes "$2"); do
		echo "write $n" >&2 # shown only if the test fails
		crash_at "$1" "$2" "$n"
		[ $fired = yes ] || break
		tried=$((tried + 1))
	done
	[ "$n" -gt 3 ] || fail "only $n writes: the shim does not see them"
	[ "$n" -lt $((WRITES_MAX - STRIDE)) ] || fail "still killed at write $n"
	echo "$1 $2: killed at $tried of up to $((n - 1)) writes" >>"$FLEET.said"
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
