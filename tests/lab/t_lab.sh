#!/bin/bash
# The lab itself: what later tests rely on, without drover's help wherever that is possible.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/lib.sh" "$1"

both_boot() {
	local host
	for host in xen1 xen2; do
		lab sh "$host" 'xl list' | grep -q '^Domain-0 ' || fail "no dom0 in xl list of $host"
		lab sh "$host" 'xl info' | grep -q '^virt_caps .* hvm ' || fail "no HVM on $host"
	done
	status_of 3 lab sh xen1 'exit 3' >/dev/null
	[ "$(echo words | lab sh xen2 'cat; echo more')" = $'words\nmore' ]
}

guest_counts() {
	lab guest xen1 web1 --disk 48M --write 256 --dirty 512
	within "$GUEST_SECONDS" beats_to web1 5
	lab beats web1 --check
	[ "$(newest web1 wrote)" -gt 0 ] || fail "it has written nothing"
}

corruption_is_seen() { # of a disk, behind the guest's back
	lab guest xen2 web3 --disk 8M --write 256
	within "$GUEST_SECONDS" beats_to web3 5
	lab beats web3 --check
	lab sh xen2 'dd if=/dev/urandom of=/srv/vm/web3.xvda.raw bs=1M seek=1 count=7 conv=notrunc,fsync 2>&1'
	within "$GUEST_SECONDS" eval '[ "$(newest web3 disk)" -gt 0 ]'
	status_of 1 lab beats web3 --check
	lab sh xen2 'xl destroy web3'
}

plain_migration() {
	lab guest xen1 web2
	within "$GUEST_SECONDS" beats_to web2 3
	lab sh xen1 "xl migrate -s '' web2 'socat -b262144 - TCP:xen2:8002'" 2>&1
	local beat
	beat=$(newest web2 beat)
	within "$GUEST_SECONDS" beats_to web2 $((beat + 3))
	said_by web2 xen2 || fail "it is not xen2 that has heard of it last"
	! xl_has xen1 web2 || fail "it is still on xen1"
	lab beats web2 --check
}

link_cut() {
	reach() { lab sh "$1" "ping -c 1 -W 5 $2 >/dev/null"; }
	reach xen1 xen2
	lab cut
	! reach xen1 xen2 || fail "frames pass the cut"
	reach xen2 coordinator || fail "the coordinator cannot be reached either"
	lab heal
	within "$GUEST_SECONDS" reach xen1 xen2
	lab cut xen2
	! reach xen2 coordinator || fail "the coordinator can be reached through the cut"
	reach xen2 xen1
	lab heal
	within "$GUEST_SECONDS" reach xen2 coordinator
}

# What a guest was told to be on its disk is there after the host has lost its power; what dom0 did not sync is not.
power_cut() {
	local beat
	# In place: what a guest has synced brings new blocks of others along, but not these.
	lab sh xen1 'echo 0 >/proc/sys/vm/dirty_writeback_centisecs; echo 1 >/srv/synced; sync
		echo 2 | dd of=/srv/synced conv=notrunc status=none; echo 3 >/root/lost'
	beat=$(newest web1 beat)
	lab power-off xen1
	status_of 1 lab sh xen1 true >/dev/null
	lab power-on xen1
	[ "$(lab sh xen1 'cat /srv/synced')" = 1 ] || fail "the page cache of dom0 has survived"
	! lab sh xen1 'cat /root/lost' || fail "the root file system has survived"
	! xl_has xen1 web1 || fail "a guest has survived"
	lab guest xen1 web1 --disk 48M
	within "$GUEST_SECONDS" eval 'grep -h "disk web1 xvda" "$LAB"/xen1/share/console/guest-web1.log | grep -v found=0'
	local found
	found=$(grep -h 'disk web1 xvda' "$LAB/xen1/share/console/guest-web1.log" | tail -n 1)
	[[ $found == *" torn=0"* ]] || fail "$found"
	lab sh xen1 'xl destroy web1'
	[ "$(sed 's/.*found=\([0-9]*\).*/\1/' <<<"$found")" -ge "$beat" ] || fail "$found, but beat $beat was said"
}

agents_connected() {
	[ "$(lab drover host list --json | jq -r '[.hosts[] | select(.state == "connected") | .name] | sort | join(" ")')" = "xen1 xen2" ]
}

lab_begin
t lab__two_hosts__boot both_boot
t lab__guest_with_disk__counts guest_counts
t lab__power_cut__synced_data_stay power_cut
t lab__disk_overwritten_under_guest__seen corruption_is_seen
t lab__plain_migration__no_beat_lost plain_migration
t lab__link_cut__nothing_passes link_cut
if [ -x "$B/bin/drover-leg-xen" ]; then
	t lab__agents_started__connected within "$GUEST_SECONDS" agents_connected
else
	echo "skip - lab__agents_started__connected: no drover-leg-xen in this build"
fi
exit $FAILED
