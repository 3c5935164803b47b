# shellcheck shell=bash
# Shared by tests/lab/t_*.sh:  . "$(dirname "$0")/lib.sh" "$1"; lab_begin; t name function; ...
# Each script has a pair of hosts of its own in BUILD/lab/check-NAME, and takes it down however it ends.
# shellcheck source=tests/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh" "$1"
LAB_SH=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/lab.sh
B=$(cd "$1" && pwd)
LAB=$B/lab/check-$(basename "$0" .sh)
export B LAB
# shellcheck disable=SC2034 # used by those who read this file
GUEST_SECONDS=600 # for what guests do: emulated, on a machine that may have other work

lab() { "$LAB_SH" "$@"; }

# What it took, and no QEMU left. KEEP_LAB=yes leaves disks and logs.
lab_end() {
	[ -d "$LAB" ] || return 0
	local name pid peak=0
	for name in xen1 xen2; do
		pid=$(cat "$LAB/$name/pid" 2>/dev/null) && [ -e "/proc/$pid/status" ] &&
			peak=$((peak + $(awk '$1 == "VmHWM:" {print int($2 / 1024)}' "/proc/$pid/status")))
	done
	echo "# $SECONDS s; $(du -sm "$LAB" | cut -f1) MB of disks and logs, $(du -sm "${LAB_CACHE:-$B/lab}/dom0.img" | cut -f1) MB of image," \
		"$peak MB of memory in QEMU"
	if [ "${KEEP_LAB:-no}" = yes ] || [ "$FAILED" -ne 0 ]; then
		lab down --keep
		echo "# kept: $LAB"
	else
		lab down
	fi
}
trap lab_end EXIT

# Boots both hosts; where this machine cannot, says why and ends the script as skipped.
lab_begin() {
	local status=0
	[ ! -d "$LAB" ] || lab down # of a run that has failed
	# Who is killed runs no trap: nothing of the lab may outlive this script.
	setsid bash -c 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; [ ! -d "$LAB" ] || "$2" down --keep' _ $$ "$LAB_SH" >/dev/null 2>&1 &
	lab build || status=$?
	[ $status -eq 0 ] && { lab up || status=$?; }
	[ $status -eq 77 ] && exit 77
	if [ $status -ne 0 ]; then
		echo "not ok - lab__two_hosts__boot"
		tail -n 5 "$LAB"/xen?/serial.log 2>/dev/null | sed 's/^/#   /'
		FAILED=1
		exit 1
	fi
}

newest() { lab beats "$1" --json | jq ".beats[-1].$2"; } # NAME FIELD
beats_to() { [ "$(newest "$1" beat)" -ge "$2" ]; }       # NAME BEAT: it has come so far
said_by() { [ "$(newest "$1" host)" = "\"$2\"" ]; }      # NAME HOST
xl_has() { lab sh "$1" "xl domid $2" >/dev/null 2>&1; }  # HOST NAME
