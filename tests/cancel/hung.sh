#!/bin/bash
# A cancel while something hangs (SIGSTOP) in the middle of a pass: an exporter, the source's block backend, the peer's leg (so
# that a socket is full). From the request's arrival at the source's leg to the guest undisturbed it takes at most 1 s, by that
# leg's own clock; what hangs is never let go on before the guest is free.
. "$(dirname "$0")/../lib.sh" "$1"
BOUND_MS=1000 # docs/PROTOCOL.md, Cancel

pid_of() { cat "$FLEET/$1/run/$2.pid"; }
at_least() { [ "$(field "$1" ".progress.$2")" -ge "$3" ]; }

# What the source's leg measured, from the ABORT on (or from the destination's own, if that was heard of before).
undisturbed_ms() { # ID
	sed -n "s/.*event=vm-undisturbed migration=$1 after_ms=\([0-9]*\).*/\1/p" "$FLEET/a1/run/leg-$1.log" | head -n 1
}

stop() { # PID...: it stands still when this returns
	local pid
	for pid in "$@"; do
		kill -STOP "$pid"
		within 5 grep -q '^State:[[:space:]]*T' "/proc/$pid/status"
	done
}

# Cancels, and checks that the guest is free in time; nothing that hangs goes on meanwhile.
free_in_time() { # ID
	local took
	drover cancel "$1" >/dev/null || fail "cancel: $(drover show "$1" --json)"
	(within 30 eval "[ -n \"\$(undisturbed_ms $1)\" ]") ||
		fail "state $(field "$1" .state), cause $(field "$1" .cause): $(tail -n 20 "$FLEET/a1/run/leg-$1.log")"
	took=$(undisturbed_ms "$1")
	echo "$CASE: guest undisturbed $took ms after the request reached the source's leg" >>"$FLEET.said"
	[ "$took" -le $BOUND_MS ] || fail "$took ms until the guest was undisturbed"
}

ends_cancelled() { # ID
	within 30 state_is "$1" cancelled
	[ "$(field "$1" .cause.code)" = cancelled ] || fail "cause $(field "$1" .cause)"
	within 10 vm_runs_on web1 a1
	within 10 guest_ticks web1
	within 10 verify || fail "$(verify 2>&1)"
	within 10 no_leftovers
	[ "$(drover vm list --json | jq '.vms | length')" = 1 ] || fail "vm list: $(drover vm list --json)"
}

# ---- what hangs ----
exporters() { # ID: pids of all exporters of the destination
	cat "$FLEET"/b1/run/export-"$1"-*.pid
}

in_a_disk_pass() { # options: prints the id
	local id
	id=$(submit web1 b1 --bandwidth 4M/s "$@")
	within 20 state_is "$id" copying
	within 20 at_least "$id" bytes_done 1000000
	echo "$id"
}

in_a_memory_pass() {
	local id
	id=$(submit web1 b1 --bandwidth 7M/s --max-downtime 1ms --on-slow wait)
	within 20 state_is "$id" copying
	within 60 at_least "$id" memory.sent_bytes 1000000
	echo "$id"
}

hung_exporter() { # SR
	local id
	id=$(in_a_disk_pass --storage-map local="$1")
	# shellcheck disable=SC2046 # a list
	stop $(exporters "$id")
	free_in_time "$id"
	ends_cancelled "$id" # though it hangs for ever
}

hung_backend() {
	local id backend
	backend=$(pid_of a1 backend-web1)
	id=$(in_a_disk_pass)
	stop "$backend"
	free_in_time "$id"
	kill -CONT "$backend"
	ends_cancelled "$id"
}

hung_backend_in_a_memory_pass() {
	local id backend
	backend=$(pid_of a1 backend-web1)
	id=$(in_a_memory_pass)
	stop "$backend"
	free_in_time "$id"
	kill -CONT "$backend"
	ends_cancelled "$id"
}

# Stopped, it reads nothing: stream 0 fills with memory; of a disk no more goes out than its sink's window.
hung_leg() { # in_a_disk_pass | in_a_memory_pass
	local id leg
	id=$($1)
	leg=$(pid_of b1 "leg-$id")
	stop "$leg"
	[ "$1" = in_a_disk_pass ] || within 8 full_socket "$id" # after ten seconds the leg gives up by itself
	free_in_time "$id"
	kill -CONT "$leg"
	ends_cancelled "$id"
}

# A data connection of the source's leg through which nothing goes any more.
full_socket() { # ID
	local inodes queued
	inodes=$(readlink "/proc/$(pid_of a1 "leg-$1")/fd/"* | sed -n 's/^socket:\[\([0-9]*\)\]$/\1/p')
	queued=$(awk -v mine="$(echo $inodes)" 'BEGIN {split(mine, list, " "); for (i in list) is_mine[list[i]] = 1}
		$10 in is_mine {split($5, q, ":"); print q[1]}' /proc/net/tcp | sort | tail -n 1)
	[ $((16#${queued:-0})) -gt 20000 ] # what is acknowledged at once on a loopback, unless its window is closed
}

# The guest is suspended, the last of its memory on its way, when the peer hangs, and its block backend as well.
hung_while_switching() { # [-backend]
	local id leg backend= vm=web2${1:-}
	drover-sim create "$vm" --on a1 --memory 16M --dirty 8M/s --disk xvda=16M@local --disk-write 0 --home "$FLEET"
	within 10 vm_runs_on "$vm" a1
	id=$(submit "$vm" b1 --bandwidth 4M/s --max-downtime 10ms --on-slow force)
	leg=$(within 30 state_is "$id" copying && pid_of b1 "leg-$id")
	within 60 grep -q "event=phase migration=$id side=source phase=ready" "$FLEET/a1/run/leg-$id.log"
	stop "$leg"
	within 30 eval "[ \"\$(field $id .facts.suspended)\" = true ]"
	state_is "$id" switching || fail "state $(field "$id" .state)"
	if [ $# -gt 0 ]; then
		backend=$(pid_of a1 "backend-$vm")
		stop "$backend"
	fi
	free_in_time "$id"
	[ -z "$backend" ] || kill -CONT "$backend"
	within 10 guest_ticks "$vm"
	kill -CONT "$leg"
	within 30 state_is "$id" cancelled
	within 5 vm_runs_on "$vm" a1
	drover-sim destroy "$vm" --home "$FLEET"
	within 10 eval "[ \"\$(drover vm list --json | jq '.vms | length')\" = 1 ]"
	within 10 verify || fail "$(verify 2>&1)"
}

run() { # NAME COMMAND...
	CASE=$1
	shift
	t "cancel_with__${CASE}__guest_free_at_once" "$@"
	[ -e "$FLEET.said" ] && sed 's/^/# /' "$FLEET.said"
	rm -f "$FLEET.said"
}

up() { # EXPORTER
	fleet_up --hosts a1@A,b1@B --exporter "$1"
	drover-sim create web1 --on a1 --memory 64M --dirty 4M/s --disk xvda=128M@local --disk-write 2M/s --home "$FLEET"
	within 10 vm_runs_on web1 a1
}

up nbd
run hung_nbd_exporter hung_exporter local
run hung_nbd_exporter_of_qcow2 hung_exporter qcow
run hung_block_backend hung_backend
run hung_block_backend_in_a_memory_pass hung_backend_in_a_memory_pass
run hung_leg_in_a_disk_pass hung_leg in_a_disk_pass
run hung_leg_in_a_memory_pass hung_leg in_a_memory_pass
run hung_leg_while_switching hung_while_switching
run hung_leg_and_block_backend_while_switching hung_while_switching -backend
fleet_down
up iscsi
run hung_iscsi_exporter hung_exporter local
run hung_iscsi_exporter_of_qcow2 hung_exporter qcow
exit $FAILED
