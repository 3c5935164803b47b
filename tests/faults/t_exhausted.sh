#!/bin/bash
# No file descriptor and no memory left in a party of a migration: it may end, or refuse; it does not vote wrongly and loses no
# record. When there is enough again and what ended was started again, the migration ends and one host has the guest.
build=$(cd "$1" && pwd)
. "$(dirname "$0")/../lib.sh" "$1"
SHIM=$build/test/faults.so
ulimit -c 0

pid_at() { cat "$FLEET/$1/run/$2.pid"; }

# As its supervisor would: whatever ended is started again.
supervise_until() { # SECONDS COMMAND...
	local deadline=$(($(date +%s) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt $deadline ] || fail "not within its time: $*"
		timeout 20 drover-sim up --home "$FLEET" >/dev/null 2>&1 || true
		sleep 0.2 # the pace of polling, not a synchronisation
	done
}

ends_well() { # ID
	supervise_until 60 final "$1"
	state_is "$1" "done" failed || fail "state $(field "$1" .state): $(field "$1" .cause)"
	supervise_until 30 settled
	within 10 guest_ticks web1
	all_is_right || fail "$(verify 2>&1)"
	within 10 no_leftovers
}

# Its limit is what it has open already, and SPARE more.
no_descriptors() { # HOME NAME SPARE
	local pid
	pid=$(pid_at "$1" "$2")
	prlimit --pid "$pid" --nofile="$(($(find "/proc/$pid/fd" -mindepth 1 | wc -l) + $3)):"
}

enough_descriptors() { prlimit --pid "$(pid_at "$1" "$2")" --nofile=1024: 2>/dev/null || true; }

descriptors_of() { # PARTY SPARE
	local party=$1 spare=$2 source home daemon program key=$1-fd-$2
	supervise_until 20 settled
	source=$(where)
	party_is "$party" "$source"
	no_descriptors "$home" $daemon "$spare" # its legs inherit the limit
	timeout 5 drover migrate web1 --to "$(other "$source")" --key "$key" --keep-source 0s --json >/dev/null 2>&1 || true
	# It is tried for so long, and no longer.
	timeout 5 bash -c "until drover show $key --json | jq -e '.ended_at' >/dev/null; do sleep 0.1; done" 2>/dev/null || true
	enough_descriptors "$home" $daemon
	supervise_until 20 timeout 5 drover migrate web1 --to "$(other "$source")" --key "$key" --keep-source 0s --json
	ends_well "$key"
}

burst() { # more connections than the coordinator may have
	local i fds=()
	local port=${1##*:}
	no_descriptors coordinator coordinator 8
	for i in $(seq 40); do
		exec {fd}<>"/dev/tcp/127.0.0.1/$port" || break
		fds+=("$fd")
	done
	for fd in "${fds[@]}"; do exec {fd}>&-; done
	[ "${#fds[@]}" -gt 8 ] || fail "only ${#fds[@]} connections"
	supervise_until 30 timeout 5 drover status
	enough_descriptors coordinator coordinator
	within 10 eval '[ "$(drover status --json | jq -r .health)" = ok ]'
}

memory_of() { # PARTY ALLOCATION
	local party=$1 n=$2 source home daemon program key=$1-memory-$2
	rm -f "$FLEET/fault"
	supervise_until 20 settled
	source=$(where)
	party_is "$party" "$source"
	stop_daemon "$home" $daemon
	rm -f "$FLEET/fault.hit"
	: >"$FLEET/fault"
	LD_PRELOAD=$SHIM DROVER_FAULT="$program memory $n $FLEET/fault" timeout 20 drover-sim up --home "$FLEET" >/dev/null 2>&1 || true
	submitted() { timeout 3 drover migrate web1 --to "$(other "$source")" --key "$key" --keep-source 0s --json; }
	supervise_until 20 submitted
	timeout 20 bash -c "until [ -e $FLEET/fault.hit ] || drover show $key --json | jq -e '.ended_at' >/dev/null; do sleep 0.1; done" || true
	[ -e "$FLEET/fault.hit" ] || fail "it did not come to allocation $n"
	rm -f "$FLEET/fault"
	ends_well "$key"
	stop_daemon "$home" $daemon # its legs would inherit its environment
	drover-sim up --home "$FLEET" >/dev/null
}

[ -e "$SHIM" ] || { echo "not ok - $SHIM is not built"; exit 1; }
fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 16M --dirty 1M/s --disk xvda=8M@local --disk-write 512K/s --home "$FLEET"
within 10 vm_runs_on web1 a1
t exhausted__descriptors_of_the_coordinator_in_a_burst__answers_again \
	burst "$(drover status --json | jq -r .endpoint)"
for party in source destination; do
	for spare in 0 2 5; do
		t "exhausted__descriptors_of_${party}_${spare}_left__one_guest_and_nothing_left" descriptors_of $party $spare
	done
done
for schedule in coordinator:300 coordinator:3000 coordinator:8000 source:1000 source:5000 destination:3000 \
	source-leg:300 source-leg:2000 destination-leg:400 destination-leg:2500; do
	t "exhausted__memory_of_${schedule%:*}_at_${schedule#*:}__one_guest_and_nothing_left" memory_of "${schedule%:*}" "${schedule#*:}"
done
exit $FAILED
