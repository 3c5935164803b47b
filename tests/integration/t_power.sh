#!/bin/bash
# A power cut loses what was not flushed; nothing that a guest flushed, and nothing that a migration brought.
. "$(dirname "$0")/../lib.sh" "${1:-build}"

notes() { # of disks, in bytes
	cat "$FLEET/$1/power/"* 2>/dev/null | wc -c
}

guest_cut_off() {
	fleet_up
	drover-sim create web --home "$FLEET" --on a1 --memory 16M --dirty 1M/s --disk xvda=64M@local --disk xvdb=64M@qcow --disk-write 4M/s
	within 20 guest_ticks web
	within 20 test "$(notes a1)" -gt 0
	drover-sim power-off a1 --home "$FLEET"
	[ "$(notes a1)" -eq 0 ] || fail "notes are left"
	verify # forgives what was not flushed, no more
	drover-sim power-on a1 --home "$FLEET"
	within 20 guest_ticks web
	verify
	fleet_down
}

just_migrated() { # EXPORTER
	fleet_up --exporter "$1"
	drover-sim create web --home "$FLEET" --on a1 --memory 16M --dirty 1M/s --disk xvda=64M@local --disk xvdb=64M@local \
		--disk-write 4M/s --fill 50
	drover migrate web --to b1 --storage-map=local=qcow --wait
	drover-sim power-off b1 --home "$FLEET"
	drover-sim power-on b1 --home "$FLEET"
	within 20 guest_ticks web
	verify
	fleet_down
}

# What a power cut takes includes the mounts of exporters that are at work: here a FUSE export under tgtd.
while_copying() {
	local id
	fleet_up --exporter iscsi
	drover-sim create web --home "$FLEET" --on a1 --memory 16M --dirty 1M/s --disk xvda=16M@local --fill 100
	id=$(submit web b1 --storage-map local=qcow --bandwidth 1M/s)
	within 20 eval '[ -e "$FLEET/b1/run/export-$id-xvda/disk" ] && [ "$(field "$id" .progress.bytes_done)" -gt 100000 ]'
	drover-sim power-off b1 --home "$FLEET"
	[ -z "$(ls "$FLEET/b1/run" | grep export)" ] || fail "left: $(ls "$FLEET/b1/run")"
	drover-sim power-on b1 --home "$FLEET"
	within 60 state_is "$id" failed
	guest_ticks web
	within 20 verify
	fleet_down
}

# Were it not so, the test above could not fail: a destination whose flushes do nothing.
not_flushed() {
	DROVER_POWER_DEAF=/b1/sr/ fleet_up
	drover-sim create web --home "$FLEET" --on a1 --memory 16M --dirty 1M/s --disk xvda=64M@local --disk-write 4M/s --fill 50
	drover migrate web --to b1 --wait
	drover-sim power-off b1 --home "$FLEET"
	if drover-sim power-on b1 --home "$FLEET" && verify; then
		fail "nothing was lost, or nobody has seen it"
	fi
	fleet_down
}

t "a guest whose host loses its power loses what it did not flush, and goes on" guest_cut_off
t "power of the destination lost right after the migration: nothing is (nbd)" just_migrated nbd
t "power of the destination lost right after the migration: nothing is (iscsi)" just_migrated iscsi
t "power of the destination lost while disks are copied: rolled back, nothing is left" while_copying
t "a destination that does not flush is found out" not_flushed
exit $FAILED
