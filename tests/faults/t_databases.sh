#!/bin/bash
# Databases that cannot be used at the start of a daemon: refused with the file, the fault and the remedy; nothing is
# overwritten. A journal that is gone: the host says so, and does not vote in what it no longer knows (V11).
build=$(cd "$1" && pwd)
. "$(dirname "$0")/../lib.sh" "$1"
SHIM=$build/test/faults.so

fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 16M --dirty 1M/s --disk xvda=8M@local --disk-write 512K/s --home "$FLEET"
within 10 vm_runs_on web1 a1

daemon_of() { [ "$1" = coordinator ] && echo coordinator || echo agent; }
database_of() { [ "$1" = coordinator ] && echo "$FLEET/coordinator/lib/coordinator.db" || echo "$FLEET/$1/lib/journal.db"; }

# refused HOME WORDS: it ends with 1, names the file and says WORDS, and changes nothing
refused() {
	local home=$1 words=$2 database said
	database=$(database_of "$home")
	cp "$database" "$FLEET/before"
	said=$(status_of 1 timeout 20 "drover-$(daemon_of "$home")" --home "$FLEET/$home")
	[[ $said == *"$database"* ]] || fail "does not name $database: $said"
	[[ $said == *$words* ]] || fail "does not say '$words': $said"
	cmp "$database" "$FLEET/before" || fail "it was changed"
	echo "$said" | tail -n 1 >>"$FLEET.said"
}

each_damage() { # HOME
	local home=$1 database size
	database=$(database_of "$home")
	stop_daemon "$home" "$(daemon_of "$home")"
	# All of it into the one file, so that it can be put back.
	sqlite3 "$database" 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null
	rm -f "$database"-wal "$database"-shm
	cp "$database" "$FLEET/good"
	size=$(stat -c %s "$database")
	[ "$size" -gt 16384 ]

	head -c "$size" /dev/urandom >"$database"
	refused "$home" 'move it away'
	cp "$FLEET/good" "$database"
	truncate -s $((size / 2 / 4096 * 4096)) "$database"
	refused "$home" 'move it away'
	cp "$FLEET/good" "$database"
	dd if=/dev/zero of="$database" bs=4096 seek=2 count=2 conv=notrunc status=none
	refused "$home" 'move it away'
	: >"$database"
	case $home in
	coordinator) # what was kept there is gone
		said=$(status_of 1 timeout 20 drover-coordinator --home "$FLEET/$home")
		[[ $said == *'put them back from a backup'* ]] || fail "$said" ;;
	*) refused "$home" 'moved away' ;;
	esac
	rm -f "$database"*
	cp "$FLEET/good" "$database"
	sqlite3 "$database" 'PRAGMA user_version=99'
	refused "$home" 'use a newer drover'
	rm -f "$database"
	sqlite3 "$database" 'CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)'
	refused "$home" "another program"
	cp "$FLEET/good" "$database"
	touch "$FLEET/fault"
	LD_PRELOAD=$SHIM DROVER_FAULT="drover-$(daemon_of "$home") readonly 1 $FLEET/fault" refused "$home" 'writable'
	rm -f "$FLEET/fault"
	cp "$FLEET/good" "$database"
	drover-sim up --home "$FLEET" >/dev/null
	within 10 guest_ticks web1
	verify
}

records_gone() { # the coordinator does not begin anew in silence
	local lib=$FLEET/coordinator/lib said
	stop_daemon coordinator coordinator
	mkdir "$FLEET/kept"
	mv "$lib"/coordinator.db "$lib"/coordinator.db-* "$FLEET/kept/" 2>/dev/null || true
	said=$(status_of 1 timeout 20 drover-coordinator --home "$FLEET/coordinator")
	[[ $said == *'put them back from a backup'* ]] || fail "$said"
	echo "$said" >>"$FLEET.said"
	rm -f "$lib"/coordinator.db "$lib"/coordinator.db-*
	mv "$FLEET/kept"/* "$lib/"
	drover-sim up --home "$FLEET" >/dev/null
}

journal_gone() { # SIDE: in the middle of a copy
	local source destination host id before
	source=$(where)
	destination=$(other "$source")
	[ "$1" = source ] && host=$source || host=$destination
	id=$(submit web1 "$destination" --bandwidth 256K/s --keep-source 0s)
	within 20 state_is "$id" copying
	before=$(cat "$FLEET/$host/lib/journal.id")
	stop_daemon "$host" agent
	kill -KILL "$(cat "$FLEET/$host/run/leg-$id.pid")" # it has the file open still
	rm -f "$FLEET/$host"/lib/journal.db*
	drover-sim up --home "$FLEET" >/dev/null
	within 10 eval '[ "$(cat "$FLEET/$host/lib/journal.id")" != "$before" ]'
	within 10 grep -q event=journal-lost "$FLEET/$host/run/agent.log"
	within 20 eval 'drover events --json | jq -e ".events[] | select(.kind == \"journal-lost\" and .host == \"'"$host"'\")" >/dev/null'
	within 60 state_is "$id" failed || fail "state $(field "$id" .state), cause $(field "$id" .cause)"
	[ "$(field "$id" .votes.$1)" = null ] || fail "voted $(field "$id" .votes.$1)"
	within 10 vm_runs_on web1 "$source"
	within 10 guest_ticks web1
}

command -v sqlite3 >/dev/null || { echo "skip - no sqlite3 program"; exit 77; }
# Some rows first.
t "databases__a_migration_to_have_rows__done" status_of 0 drover migrate web1 --to b1 --keep-source 0s --wait
for home in coordinator a1; do
	t "databases__damaged_cut_empty_foreign_newer_read_only_${home}__refused_and_untouched" each_damage $home
	[ -e "$FLEET.said" ] && sed "s,$FLEET,FLEET,g; s/^/# /" "$FLEET.said"
	rm -f "$FLEET.said"
done
t databases__records_gone__coordinator_does_not_begin_anew records_gone
rm -f "$FLEET.said"
t databases__journal_of_the_destination_gone__told_and_not_voted journal_gone destination
fleet_down
fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 16M --dirty 1M/s --disk xvda=8M@local --disk-write 512K/s --home "$FLEET"
within 10 vm_runs_on web1 a1
t databases__journal_of_the_source_gone__told_and_not_voted journal_gone source
exit $FAILED
