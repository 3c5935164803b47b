#!/bin/bash
# The database of a party of one migration cannot be written from its N-th commit on, until it can again.
#   tests/faults/journal_fails.sh BUILD PARTY:KIND:N...
#     PARTY: coordinator source destination source-leg destination-leg    KIND: full io sync, as in env_shim.c
# While it stands, the log names the file and what to do, and nothing is said that is not journaled; when it is over, the
# migration ends by itself (a daemon that ended was started again). After each: one host runs the guest, nothing is left.
build=$(cd "$1" && pwd)
. "$(dirname "$0")/../lib.sh" "$1"
shift
SHIM=$build/test/faults.so

named_in() { grep -qE '\.db: .*; (make room on|look at the disk)' "$@"; }

heal() { rm -f "$FLEET/fault"; }

fault_at() { # PARTY KIND N
	local party=$1 kind=$2 n=$3 source home daemon program key=$1-$2-$3 logs up=0
	heal # one that failed may have left it
	drover-sim up --home "$FLEET" >/dev/null
	within 20 settled
	source=$(where)
	party_is "$party" "$source"
	stop_daemon "$home" $daemon
	rm -f "$FLEET/$home/run/$daemon.log" "$FLEET/fault.hit"
	: >"$FLEET/fault"
	LD_PRELOAD=$SHIM DROVER_FAULT="$program $kind $n $FLEET/fault" drover-sim up --home "$FLEET" >/dev/null 2>&1 || up=$?
	if [ $up -ne 0 ]; then # it ended while it started, and has said why
		named_in "$FLEET/$home/run/$daemon.log" || fail "ended without a word: $(tail -n 3 "$FLEET/$home/run/$daemon.log")"
		heal
		drover-sim up --home "$FLEET" >/dev/null
	fi
	submitted() { timeout 3 drover migrate web1 --to "$(other "$source")" --key "$key" --keep-source 0s --json >/dev/null 2>&1; }
	while ! submitted; do # the same key and request: submitted once, however often it is asked
		[ -e "$FLEET/fault.hit" ] || fail "cannot be submitted"
		heal
		drover-sim up --home "$FLEET" >/dev/null
	done
	within 60 eval '[ -e "$FLEET/fault.hit" ] || final "$key"'
	if [ -e "$FLEET/fault.hit" ] && [ $up -eq 0 ]; then
		logs=$FLEET/$home/run/$daemon.log
		[ "$program" = drover-leg-sim ] && logs="$FLEET/$home/run/leg-*.log"
		# shellcheck disable=SC2086
		within 10 named_in $logs
		echo "$key: $(sed -nE 's/.*(text|error)="([^"]*\.db: [^"]*)".*/\2/p' $logs | head -n 1)" >>"$FLEET.said"
	fi
	[ -e "$FLEET/fault.hit" ] || fail "the fault did not come: too few commits"
	heal
	drover-sim up --home "$FLEET" >/dev/null
	within 60 final "$key"
	state_is "$key" "done" failed || fail "state $(field "$key" .state)"
	within 30 settled
	stop_daemon "$home" $daemon # it would hand its environment on to the legs of the next schedule
	drover-sim up --home "$FLEET" >/dev/null
	within 10 guest_ticks web1
	all_is_right || fail "$key from $source: $(verify 2>&1)"
	within 10 no_leftovers
}

[ -e "$SHIM" ] || { echo "not ok - $SHIM is not built"; exit 1; }
fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 16M --dirty 1M/s --disk xvda=8M@local --disk-write 512K/s --home "$FLEET"
within 10 vm_runs_on web1 a1
for schedule in "$@"; do
	IFS=: read -r party kind n <<<"$schedule"
	t "journal_fails__${party}_${kind}_from_commit_${n}__named_and_healed" fault_at "$party" "$kind" "$n"
	[ -e "$FLEET.said" ] && sed 's/^/# /' "$FLEET.said"
	rm -f "$FLEET.said"
done
exit $FAILED
