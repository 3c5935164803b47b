#!/bin/bash
# drover on real Xen hosts: a guest with a disk goes over while it writes, and is told apart from one that was booted anew.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/lib.sh" "$1"

known() { lab drover vm list --json | jq -e '[.vms[] | select(.name == "web1" and .state == "running")] | length == 1' >/dev/null; }
goes_on_at() { # HOST: some beats more are said there, and all is right
	local beat
	beat=$(newest web1 beat)
	within "$GUEST_SECONDS" beats_to web1 $((beat + 3))
	said_by web1 "$1" || fail "it is not $1 that has heard of it last"
	lab beats web1 --check
}
nothing_left() { [ "$(lab drover leftovers --json | jq '.leftovers | length')" = 0 ]; }

migrated() {
	lab guest xen1 web1 --disk 32M --write 256 --dirty 128
	within "$GUEST_SECONDS" beats_to web1 5
	within "$GUEST_SECONDS" known
	lab drover migrate web1 --to xen2 --max-downtime 2m --keep-source 0s --wait
	goes_on_at xen2
	! xl_has xen1 web1 || fail "it is still on xen1"
	xl_has xen2 web1 || fail "xl of xen2 does not know it"
	within "$GUEST_SECONDS" nothing_left
	[ -z "$(lab sh xen1 'ls /srv/vm')" ] || fail "xen1 still has $(lab sh xen1 'ls /srv/vm')"
}

cancelled() {
	local id
	id=$(lab drover migrate web1 --to xen1 --bandwidth 1M/s --keep-copy 0s --json | jq -r .id)
	within "$GUEST_SECONDS" eval 'case $(lab drover show "$id" --json | jq -r .state) in queued | checking | preparing) false ;; esac'
	[ "$(lab drover show "$id" --json | jq -r .state)" = copying ] || fail "$(lab drover show "$id")"
	status_of 0 lab drover cancel "$id" --wait
	goes_on_at xen2
	! xl_has xen1 web1 || fail "something of it is on xen1"
	within "$GUEST_SECONDS" nothing_left
	[ -z "$(lab sh xen1 'ls /srv/vm')" ] || fail "xen1 still has $(lab sh xen1 'ls /srv/vm')"
}

if [ ! -x "$B/bin/drover-leg-xen" ]; then
	echo "skip - drover_on_xen: no drover-leg-xen in this build"
	exit 77
fi
lab_begin
t drover_on_xen__guest_that_writes__goes_over_and_misses_nothing migrated
t drover_on_xen__cancelled_while_copying__goes_on_and_leaves_nothing cancelled
exit $FAILED
