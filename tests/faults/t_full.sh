#!/bin/bash
# The file system of a host's journal is full, really and to the last byte, from one of its leg's writes on, and stays so until the
# migration has come to its end: a VM that is suspended then must run again without anybody making room.
build=$(cd "$1" && pwd)
separate=(unshare --mount --propagation private)
[ "$(id -u)" -eq 0 ] || separate+=(--user --map-root-user)
if [ "${FULL_INSIDE:-no}" = no ]; then
	if "${separate[@]}" mount -t tmpfs tmpfs /run 2>/dev/null; then
		FULL_INSIDE=yes exec "${separate[@]}" bash "$0" "$build"
	fi
	echo "skip - full__needs_mounts_of_its_own"
	exit 77
fi
. "$(dirname "$0")/../lib.sh" "$build"
. "$(dirname "$0")/../chaos/crash_lib.sh"
trap 'drover-sim down --home "$FLEET" >/dev/null 2>&1; umount --lazy "$FLEET"/[ab]1/lib/vms "$FLEET"/[ab]1/lib; fleet_down' EXIT
LIB_BYTES=12M # four times the reserve must be free when it is made

# The journal on a small file system; what the simulated hypervisor keeps beside it is not what is tested here.
small_fleet() {
	local host
	fleet_dir
	for host in a1 b1; do
		mkdir -p "$FLEET/$host/lib"
		mount -t tmpfs -o "size=$LIB_BYTES" tmpfs "$FLEET/$host/lib"
		mkdir "$FLEET/$host/lib/vms"
		mount -t tmpfs tmpfs "$FLEET/$host/lib/vms"
	done
	fleet_up --hosts a1@A,b1@B
	for host in a1 b1; do
		printf 'journal-reserve = 2M\n' >>"$FLEET/$host/etc/agent.conf"
		stop_daemon "$host" agent
	done
	drover-sim up --home "$FLEET" >/dev/null
}

fill() { # HOST
	dd if=/dev/zero of="$FLEET/$1/lib/filler" bs=4k 2>/dev/null || true
	! dd if=/dev/zero of="$FLEET/$1/lib/last" bs=4k count=1 2>/dev/null || fail "$1 is not full"
}
make_room() { rm -f "$FLEET/$1/lib/filler" "$FLEET/$1/lib/last"; }

full_at() { # PARTY N
	local source home daemon program key=$1-$2
	source=$(where)
	party_is "$1" "$source"
	stop_daemon "$home" $daemon
	start_with_shim $program stop-before "$2"
	submit web1 "$(other "$source")" --key "$key" --keep-source 0s --keep-copy 0s >/dev/null
	fired=no
	until_mark_or_final "$key"
	[ ! -e "$FLEET/mark" ] || fired=yes
	if [ $fired = yes ]; then
		fill "$home"
		go_on
		within 60 settled
		state_is "$key" "done" failed || fail "state $(field "$key" .state)"
		within 10 guest_ticks web1
		drover migrate web1 --to "$(other "$(where)")" --dry-run --json >"$FLEET/dry" || true
		[ -e "$FLEET/$home/lib/journal.db.reserve" ] || grep -q 'journal.db.*make room' "$FLEET/dry" ||
			fail "new work without a reserve: $(cat "$FLEET/dry")"
		make_room "$home"
	fi
	stop_daemon "$home" $daemon # it would hand its environment on to the legs of the next schedule
	drover-sim up --home "$FLEET" >/dev/null
	within 30 settled
	within 30 verify
	within 10 no_leftovers
}

each_write() { # PARTY
	local n last=0
	for n in $(writes before); do
		echo "write $n" >&2 # shown only if the test fails
		full_at "$1" "$n"
		[ $fired != no ] || break
		last=$n
	done
	[ "$last" -gt 3 ] || fail "only $last writes: the shim does not see them"
}

small_fleet
drover-sim create web1 --on a1 --memory 16M --dirty 1M/s --disk xvda=8M@local --disk-write 512K/s --home "$FLEET"
within 10 vm_runs_on web1 a1
for party in source-leg destination-leg; do
	t "full__journal_of_${party%-leg}_from_a_write_of_its_leg_on__guest_runs_without_anybody_making_room" each_write $party
done
exit $FAILED
