#!/bin/bash
# A host whose journal cannot be written: what an operator sees, on that host and at the coordinator, and that it is over when
# it is over. On a file system that is really full, where one can be had.
build=$(cd "$1" && pwd)
. "$(dirname "$0")/../lib.sh" "$1"
SHIM=$build/test/faults.so

host_state() { drover host list --json | jq -r --arg host "$1" '.hosts[] | select(.name == $host) | .state'; }

named() { # HOST WORDS: by the coordinator
	[ "$(drover status --json | jq -r .health)" = degraded ] || return 1
	drover status --json | jq -r --arg host "$1" '.troubles[] | select(.host == $host) | .message' | grep -q "$2" || return 1
	drover host show "$1" --json | jq -r .trouble | grep -q "journal.db" || return 1
	[ "$(host_state "$1")" = suspected ] # it counts as not there
}

well() { [ "$(drover status --json | jq -r .health)" = ok ]; }

journal_full() { # in the middle of a copy: it is given up, and ends when there is room again
	local id
	stop_daemon b1 agent
	: >"$FLEET/fault"
	LD_PRELOAD=$SHIM DROVER_FAULT="drover-agent full 5 $FLEET/fault" drover-sim up --home "$FLEET" >/dev/null
	id=$(submit web1 b1 --bandwidth 8M/s --on-slow force --keep-source 0s)
	within 30 named b1 'make room'
	grep -q 'event=journal-trouble error=".*journal.db.*make room' "$FLEET/b1/run/agent.log"
	within 5 guest_ticks web1
	rm "$FLEET/fault"
	within 30 well
	drover events --json | jq -e '.events[] | select(.kind == "host-trouble" and .host == "b1")' >/dev/null
	within 60 final "$id"
	within 20 vm_runs_on web1 "$(where)"
	all_is_right || fail "$(verify 2>&1)"
}

full_file_system() { # what the coordinator's records are on
	local lib=$FLEET/coordinator/lib id said
	stop_daemon coordinator coordinator
	mkdir "$FLEET/kept"
	cp -a "$lib/." "$FLEET/kept/"
	mount -t tmpfs -o size=4m,mode=700 none "$lib"
	cp -a "$FLEET/kept/." "$lib/"
	drover-sim up --home "$FLEET" >/dev/null
	dd if=/dev/zero of="$lib/ballast" bs=4096 status=none 2>/dev/null || true
	id=$(drover migrate web1 --to "$(other "$(where)")" --json 2>/dev/null | jq -r .id) || true
	[ -n "${id:-}" ] || said=$(status_of 8 drover migrate web1 --to "$(other "$(where)")")
	[ -n "${id:-}" ] || [[ $said == *'make room'* ]] || fail "$said"
	[ -n "${said:-}" ] || within 20 grep -q 'coordinator.db.*make room' "$FLEET/coordinator/run/coordinator.log"
	rm "$lib/ballast"
	drover-sim up --home "$FLEET" >/dev/null
	status_of 0 drover migrate web1 --to "$(other "$(where)")" --keep-source 0s --wait >/dev/null || within 60 settled
	within 10 guest_ticks web1
	all_is_right || fail "$(verify 2>&1)"
	stop_daemon coordinator coordinator
	cp -a "$lib/." "$FLEET/kept/"
	umount "$lib"
	cp -a "$FLEET/kept/." "$lib/"
}

# What a survey could not look at, it says: it is no proof that nothing is there.
directory_unreadable() {
	local said entry struck=0
	: >"$FLEET/fault"
	for entry in 1 2 4 8 16 32 64 128 256 512 1024; do
		rm -f "$FLEET/fault.hit"
		said=$(LD_PRELOAD=$SHIM DROVER_FAULT="drover-leg-sim list $entry $FLEET/fault" \
			drover-leg-sim survey --home "$FLEET/a1" 2>&1 >"$FLEET/found") || said="ended with $?: $said"
		[ -e "$FLEET/fault.hit" ] || break
		struck=$((struck + 1))
		[[ $said == *'Input/output error'* ]] || fail "entry $entry: not a word: $said"
		grep -aq 'Input/output error' "$FLEET/found" || fail "entry $entry: not in the answer"
	done
	rm -f "$FLEET/fault"
	[ $struck -ge 4 ] || fail "only $struck of them were come to"
}

[ -e "$SHIM" ] || { echo "not ok - $SHIM is not built"; exit 1; }
fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 16M --dirty 256K/s --disk xvda=8M@local --disk-write 64K/s --fill 100 --home "$FLEET"
within 10 vm_runs_on web1 a1
t trouble__a_directory_cannot_be_read__a_survey_says_so directory_unreadable
t trouble__journal_of_an_agent_full__named_by_the_coordinator_and_healed journal_full
if mount -t tmpfs -o size=64k none "$FLEET/a1/etc/keys" 2>/dev/null; then
	umount "$FLEET/a1/etc/keys"
	t trouble__file_system_of_the_records_full__refused_and_healed full_file_system
	umount "$FLEET/coordinator/lib" 2>/dev/null
else
	echo "skip - trouble__file_system_of_the_records_full: no file system may be mounted here"
fi
exit $FAILED
