#!/bin/bash
# Kept copies and kept sources, real processes: retry after a cancel, a crash, tampering; undo; dates that pass.
. "$(dirname "$0")/../lib.sh" "$1"

LIMIT=(--bandwidth 16M/s) # slow enough to be met in the middle; a retry inherits it

pid_of() { cat "$FLEET/$1/run/$2.pid"; }

# A guest of the test's own, $VM, that writes little: what an attempt sends is what it has to.
guest_up() { # [MEMORY SIZE-OF-XVDA]
	echo one more >>"$FLEET/names"
	VM=web$(wc -l <"$FLEET/names")
	drover-sim create "$VM" --on a1 --memory "${1:-8M}" --dirty 256K/s --disk xvda="${2:-40M}"@local \
		--disk xvdb=8M@local --disk-write 64K/s --fill 60 --home "$FLEET"
	within 10 vm_runs_on "$VM" a1
	within 10 guest_ticks "$VM"
}

guest_down() {
	drover-sim destroy "$VM" --home "$FLEET"
	within 10 eval "[ \"\$(drover vm list --json | jq '[.vms[] | select(.name == \"$VM\")] | length')\" = 0 ]"
}

copied() { field "$1" '[.progress.disks[].copied_bytes] | add'; }
reused() { field "$1" .progress.reused_bytes; }
has_copied() { # ID BYTES
	[ "$(field "$1" '[.progress.disks[]?.copied_bytes] | add // 0')" -gt "$2" ]
}
kept() { # ID HOST [KIND]: told of as kept on purpose, with a date
	[ "$(field "$1" .kept_until)" != null ] || fail "no date: $(field "$1" .)"
	drover leftovers --host "$2" --json | jq -e --argjson id "$1" \
		'.leftovers[] | select(.migration == $id and .kept_until != null)' >/dev/null ||
		fail "not among the leftovers: $(drover leftovers --json)"
	[ $# -lt 3 ] || [ "$(field "$1" .leftovers[0].kind)" = "$3" ] || fail "$(field "$1" .leftovers)"
}
kept_file() { # HOST DISK: of $VM, which is on the other host
	local uuid
	uuid=$(drover vm list --json | jq -r --arg vm "$VM" '.vms[] | select(.name == $vm).uuid')
	ls "$FLEET/$1"/sr/*/"$uuid.$2".*
}

# Most of the disks is over there, and then it is cancelled. Prints the id.
cancelled_late() { # [options]
	local id
	id=$(submit "$VM" b1 "${LIMIT[@]}" --keep-copy 10m "$@")
	within 30 state_is "$id" copying
	within 60 has_copied "$id" $((MOST << 20))
	status_of 0 drover cancel "$id" --wait >/dev/null
	state_is "$id" cancelled || fail "$(field "$id" .state)"
	echo "$id"
}

retried() { # ID: prints the id of the attempt that went well
	local out
	out=$(status_of 0 drover retry "$1" --wait --json)
	[ "$(jq -r .state <<<"$out")" = done ] || fail "$out"
	[ "$(jq -r .retry_of <<<"$out")" = "$1" ] || fail "retry_of: $out"
	jq -r .id <<<"$out"
}

# Of what the first one copied the second one sent next to nothing, over the network too.
sent_little() { # FIRST SECOND
	local before now was wire
	before=$(copied "$1") now=$(copied "$2")
	was=$(field "$1" .progress.wire_bytes) wire=$(field "$2" .progress.wire_bytes)
	[ "$(reused "$2")" -ge $((before * 3 / 4)) ] || fail "reused $(reused "$2") of $before"
	[ "$now" -lt $((before / 2)) ] || fail "copied $now after $before"
	[ "$wire" -lt $((was * 3 / 4)) ] || fail "sent $wire bytes after $was"
}

after_a_cancel() { # SR
	local first second
	guest_up
	first=$(cancelled_late --storage-map local="$1")
	kept "$first" b1 copy
	vm_runs_on "$VM" a1
	within 10 verify
	second=$(retried "$first")
	sent_little "$first" "$second"
	within 5 vm_runs_on "$VM" b1
	guest_ticks "$VM"
	[ "$(field "$first" .kept_until)" = null ] || fail "the copy is taken, and still told of"
	within 10 verify
	guest_down
}

tampered_with() { # SR
	local first file
	guest_up
	first=$(cancelled_late --storage-map local="$1")
	file=$(kept_file b1 xvda)
	for at in 1 7 20 30; do
		dd if=/dev/urandom of="$file" bs=1000 count=70 seek=$((at * 1048)) conv=notrunc status=none
	done
	retried "$first" >/dev/null
	guest_ticks "$VM"
	within 10 verify
	guest_down
}

another_size() {
	local first second file
	guest_up
	first=$(cancelled_late)
	file=$(kept_file b1 xvda)
	truncate -s 39M "$file"
	second=$(retried "$first")
	[ "$(field "$second" '.progress.disks[] | select(.name == "xvda").reused_bytes')" = 0 ] || fail "taken over"
	[ -e "$file" ] || fail "it is gone before its time"
	guest_ticks "$VM"
	within 10 verify
	guest_down
}

leg_killed() { # HOST
	local first second
	guest_up
	first=$(submit "$VM" b1 "${LIMIT[@]}" --keep-copy 10m)
	within 30 state_is "$first" copying
	within 60 has_copied "$first" $((MOST << 20))
	kill -KILL "$(pid_of "$1" "leg-$first")"
	within 30 state_is "$first" failed
	kept "$first" b1 copy
	guest_ticks "$VM"
	within 10 verify
	second=$(retried "$first")
	sent_little "$first" "$second"
	guest_ticks "$VM"
	within 10 verify
	guest_down
}

# What was made up of two attempts is used by the third, and a plain migrate uses it too.
many_attempts() {
	local first second third
	guest_up
	first=$(cancelled_late)
	second=$(drover retry "$first" --json | jq -r .id)
	within 30 state_is "$second" copying
	within 60 eval "[ \"\$(field $second .progress.reused_bytes)\" -gt 1000000 ]"
	status_of 0 drover cancel "$second" --wait >/dev/null
	kept "$second" b1 copy
	[ "$(field "$first" .kept_until)" = null ] || fail "both tell of one copy"
	within 10 verify
	third=$(status_of 0 drover migrate "$VM" --to b1 --wait --json | jq -r .id)
	[ "$(reused "$third")" -gt $((MOST << 19)) ] || fail "reused $(reused "$third")"
	guest_ticks "$VM"
	within 10 verify
	guest_down
}

refused_for_a_reason() {
	local id
	guest_up
	id=$(submit "$VM" b1 --bandwidth 1M/s)
	within 30 state_is "$id" copying
	status_of 8 drover retry "$id" >/dev/null
	status_of 8 drover undo "$id" >/dev/null
	status_of 0 drover cancel "$id" --wait >/dev/null
	status_of 8 drover undo "$id" >/dev/null
	id=$(status_of 0 drover migrate "$VM" --to b1 --keep-source 0 --wait --json | jq -r .id)
	status_of 4 drover retry "$id" >/dev/null
	status_of 8 drover undo "$id" | grep -q "drover migrate $VM --to a1" || fail "no way is shown"
	status_of 2 drover retry 4711 >/dev/null
	guest_down
}

there() { # [options]: to b1; prints the id
	local id
	id=$(status_of 0 drover migrate "$VM" --to b1 "$@" --wait --json | jq -r .id)
	kept "$id" a1 source-disks
	within 10 guest_ticks "$VM"
	echo "$id"
}

undone() { # SR
	local first second
	guest_up
	first=$(there --storage-map local="$1")
	within 10 verify
	second=$(status_of 0 drover undo "$first" --wait --json | jq -r .id)
	[ "$(field "$second" .undo_of)" = "$first" ] || fail "undo_of"
	sent_little "$first" "$second"
	within 5 vm_runs_on "$VM" a1
	guest_ticks "$VM"
	[ "$(field "$first" .kept_until)" = null ] || fail "the source is in use, and told of as kept"
	kept "$second" b1 source-disks
	within 10 verify
	status_of 8 drover undo "$first" >/dev/null
	guest_down
}

undo_cancelled_before_the_copy() {
	local first second file
	guest_up
	first=$(there)
	file=$(kept_file a1 xvda)
	kill -STOP "$(pid_of b1 agent)" # it does not answer: the state stays
	second=$(drover undo "$first" --json | jq -r .id)
	within 10 state_is "$second" checking
	drover cancel "$second" >/dev/null || true
	kill -CONT "$(pid_of b1 agent)"
	within 30 state_is "$second" cancelled
	[ "$(kept_file a1 xvda)" = "$file" ] || fail "not kept any more"
	kept "$first" a1 source-disks
	guest_ticks "$VM"
	within 10 verify
	status_of 0 drover undo "$first" --wait >/dev/null
	within 5 vm_runs_on "$VM" a1
	within 10 verify
	guest_down
}

# HOST PROGRAM (agent, coordinator, leg) is killed while the undo copies. However that ends, the way goes on.
undo_with_a_crash() {
	local host=$1 what=$2 first id
	guest_up 32M 24M
	first=$(there --bandwidth 16M/s)
	id=$(drover undo "$first" --json | jq -r .id)
	within 30 state_is "$id" copying
	within 30 eval "[ \"\$(field $id .progress.bytes_done)\" -gt 2000000 ]"
	if [ "$what" = leg ]; then
		kill -KILL "$(pid_of "$host" "leg-$id")"
		within 30 state_is "$id" failed
		within 5 vm_runs_on "$VM" b1
		guest_ticks "$VM"
		within 10 verify
		kept "$id" a1 copy
		status_of 8 drover undo "$first" | grep -q "drover retry $id" || fail "no way is shown"
		id=$(retried "$id")
		[ "$(field "$id" .undo_of)" = "$first" ] || fail "undo_of"
		[ "$(reused "$id")" -gt 1000000 ] || fail "reused $(reused "$id")"
	else
		kill -KILL "$(pid_of "$host" "$what")"
		drover-sim up --home "$FLEET" >/dev/null
		within 60 state_is "$id" "done"
	fi
	within 10 vm_runs_on "$VM" a1
	guest_ticks "$VM"
	within 10 verify
	guest_down
}

gone() { [ ! -e "$1" ]; }

dates_pass() {
	local first second copy source
	guest_up
	first=$(cancelled_late --keep-copy 4s)
	copy=$(kept_file b1 xvda)
	kill -KILL "$(pid_of b1 agent)" # dates hold over a restart
	[ -n "$copy" ] && [ -e "$copy" ] || fail "not kept at all"
	drover-sim up --home "$FLEET" >/dev/null
	within 40 gone "$copy"
	within 10 verify
	[ "$(drover leftovers --json | jq --argjson id "$first" '[.leftovers[] | select(.migration == $id)] | length')" = 0 ]
	second=$(retried "$first")
	[ "$(reused "$second")" = 0 ] || fail "reused what is gone"
	guest_down
	guest_up
	first=$(status_of 0 drover migrate "$VM" --to b1 --keep-source 4s --wait --json | jq -r .id)
	source=$(kept_file a1 xvda)
	within 40 gone "$source"
	status_of 8 drover undo "$first" >/dev/null
	within 10 verify
	guest_down
}

MOST=40 # MiB, of 48 that are to be copied
for exporter in nbd iscsi; do
	fleet_up --hosts a1@A,b1@B --exporter $exporter
	for sr in local qcow; do
		t "retry__after_a_cancel_${exporter}_to_${sr}__sends_little" after_a_cancel $sr
	done
	t "retry__copy_tampered_with_${exporter}__repaired" tampered_with local
	t "undo__after_writes_${exporter}__sends_little" undone qcow
	fleet_down
done
fleet_up --hosts a1@A,b1@B
t retry__source_leg_killed__goes_on_with_the_copy leg_killed a1
t retry__destination_leg_killed__goes_on_with_the_copy leg_killed b1
t retry__kept_file_of_another_size__not_taken another_size
t retry__several_attempts__each_adds many_attempts
t retry_and_undo__impossible__refused_for_a_reason refused_for_a_reason
t undo__cancelled_before_the_copy__source_is_kept undo_cancelled_before_the_copy
t undo__its_source_leg_killed__retried undo_with_a_crash b1 leg
t undo__its_destination_leg_killed__retried undo_with_a_crash a1 leg
t undo__its_source_agent_killed__goes_on undo_with_a_crash b1 agent
t undo__its_destination_agent_killed__goes_on undo_with_a_crash a1 agent
t undo__coordinator_killed__goes_on undo_with_a_crash coordinator coordinator
t kept__time_is_over__removed dates_pass
exit $FAILED
