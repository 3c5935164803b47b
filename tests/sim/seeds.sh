#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Runs worlds, one for each seed, on all cores, and adds up what came of them.
#   tests/sim/seeds.sh BUILDDIR FIRST LAST [options of build/test/sim]
# Prints the sums; a broken promise is named with its seed and the file that replays it. Exit 1 if there was one.
set -u
sim=$1/test/sim first=$2 last=$3
shift 3
out=$(mktemp -d "${TMPDIR:-/tmp}/drover-seeds.XXXXXX")
failed=${DROVER_SIM_FAILED:-$(dirname "$sim")/sim-failed}
trap 'rm -rf "$out"' EXIT
trap 'exit 1' INT TERM
mkdir -p "$failed"
export sim out failed

run_seed() {
	local seed=$1
	shift
	"$sim" --seed "$seed" --failed "$failed/seed-$seed.txt" "$@" >"$out/$seed" 2>&1
	local status=$?
	[ $status -eq 0 ] && return
	if ! grep '^BROKEN' "$out/$seed"; then
		echo "seed $seed ended with $status:"
		tail -n 5 "$out/$seed"
	fi
	echo "  replay: $sim --replay $failed/seed-$seed.txt"
	return 1
}
export -f run_seed

status=0
seq "$first" "$last" | xargs -P "$(nproc)" -I{} bash -c 'run_seed "$@"' _ {} "$@" || status=1
cat "$out"/* | awk '
	/^world/ { worlds++ }
	/^submitted/ { asked += $2; accepted += $4; refused += $6; cancels += $8; cancelled += $10; pending += $12; late += $14 }
	/^orders/ { resolved += $3; forgotten += $5 }
	/^outcomes/ { for (i = 2; i < NF; i += 2) outcome[$i] += $(i + 1) }
	/^faults/ { for (i = 2; i < NF; i += 2) fault[$i] += $(i + 1) }
	/^time/ { seconds += $3; messages += $5; commits += $7 }
	function list(title, of,  name, text) {
		for (name in of) text = text " " name " " of[name] ","
		printf "%s:%s\n", title, substr(text, 1, length(text) - 1)
	}
	END {
		printf "%d worlds, %d s of virtual time, %d messages, %d commits\n", worlds, seconds, messages, commits
		printf "%d migrations asked for, %d accepted, %d refused; %d cancels: %d cancelled, %d pending, %d too late\n",
			asked, accepted, refused, cancels, cancelled, pending, late
		printf "%d resolved, %d hosts written off\n", resolved, forgotten
		list("outcomes", outcome)
		list("faults", fault)
	}'
exit $status
