# Shared by the scripts that kill or stop a party of a migration at a write of its journal (crash_shim.c); after tests/lib.sh.
# shellcheck shell=bash
SHIM=$(dirname "$BIN")/test/crash.so
WRITES_MAX=120 # no party writes as often in one migration

[ -e "$SHIM" ] || { echo "not ok - $SHIM is not built"; exit 1; }

# Which writes are tried: each STRIDE-th, from another one on for "after" (default 3; crash_coordinator.sh, crash_agents.sh and
# crash_legs.sh, and all of `make crash` and `make cancel`: each).
STRIDE=${STRIDE:-3}
writes() { # WHEN
	local first=1
	[ "$1" = before ] || [ "$STRIDE" -eq 1 ] || first=2
	seq $first "$STRIDE" $WRITES_MAX
}

go_on() { kill -CONT "$(cat "$FLEET/mark")"; }
# A write after the end, or of its own end, strikes as well.
let_go() { [ ! -e "$FLEET/mark" ] || go_on 2>/dev/null || true; }

# Starts what is not running, with the shim in it. Returns at once when it has struck: the mark is there then.
start_with_shim() { # PROGRAM WHEN N
	local up
	rm -f "$FLEET/mark"
	LD_PRELOAD=$SHIM DROVER_CRASH="$1 $2 $3 $FLEET/mark" drover-sim up --home "$FLEET" >/dev/null 2>&1 &
	up=$!
	while kill -0 $up 2>/dev/null && [ ! -e "$FLEET/mark" ]; do sleep 0.05; done
	if [ -e "$FLEET/mark" ]; then
		case $2 in
		stop-*) go_on ;; # it was about to be started: this is not what is tested
		*) kill $up 2>/dev/null || true ;;
		esac
		wait $up 2>/dev/null || true
	else
		wait $up
	fi
}

until_mark_or_final() { # ID
	local deadline=$(($(date +%s) + 60))
	until [ -e "$FLEET/mark" ] || final "$1" 2>/dev/null; do
		[ "$(date +%s)" -lt $deadline ] || fail "neither final nor struck: $(field "$1" .state)"
		sleep 0.02
	done
}

# As settled; starts whatever is not running. A party may be struck at the last of its writes, which come after the end: while this
# waits for it to connect, or after that. So it is to be tried again.
settles() { drover-sim up --home "$FLEET" >/dev/null && settled; }

# A fleet of two hosts in which a silent host is suspected within a second, and given up after two.
impatient_fleet() {
	fleet_up --hosts a1@A,b1@B
	printf 'heartbeat = 200ms\nlost-after = 2s\n' >>"$FLEET/coordinator/etc/coordinator.conf"
	stop_daemon coordinator coordinator
	drover-sim up --home "$FLEET" >/dev/null
}
