#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The simulator as a test: the same seed is the same world, planted faults are found, old failures stay fixed, and some
# hundred worlds keep every promise.
#   tests/sim/sim.sh BUILDDIR
set -u
build=$1
here=$(dirname "$0")
sim=$build/test/sim
failed=0

ok() { # ok NAME STATUS [FILE that says why not]
	if [ "$2" -eq 0 ]; then
		echo "ok - $1"
	else
		echo "not ok - $1"
		[ $# -gt 2 ] && sed 's/^/#   /' "$3"
		failed=1
	fi
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The whole trace, so that a difference can be seen.
same_trace() {
	local first second
	first=$("$sim" --seed 18 --hosts 6 --migrations 30 --faults 3 --trace | tee "$log" | tail -n 1)
	second=$("$sim" --seed 18 --hosts 6 --migrations 30 --faults 3 --trace | tail -n 1)
	echo "first $first, then $second, of $(wc -l <"$log") lines"
	[ -n "$first" ] && [ "$first" = "$second" ] && [ "$(wc -l <"$log")" -gt 1000 ]
}
same_trace >"$log.same"
ok 'the same seed gives the same trace' $? "$log.same"
rm -f "$log.same"

# A promise must be found broken, and it must be one of those that this plant can break.
planted() { # planted NAME PATTERN
	local seed
	for seed in $(seq 1 24); do
		"$sim" --seed "$seed" --migrations 20 --plant "$1" >"$log" 2>&1 || {
			grep -q -E "^BROKEN .*: ($2)" "$log"
			return
		}
	done
	return 1
}
while IFS='|' read -r plant promises; do
	planted "$plant" "${promises//;/|}"
	ok "planted: $plant is found" $? "$log"
done <<'PLANTS'
impatient|never two hosts run one VM;a VM that died does not run;no VM that runs is destroyed
liar|never two hosts run one VM;only a whole copy is run;no VM stays paused;the record agrees with the hosts;no tick is run twice
rumour|no VM is lost
dirty-log|every acknowledged write is on the owner's copy
late-write|every acknowledged write is on the owner's copy
leak|nothing is left that no journal claims
amnesia|nothing is left that no journal claims;everything comes to its end;never two hosts run one VM;every flushed write
PLANTS

for scenario in "$here"/scenarios/*.txt; do
	"$sim" --replay "$scenario" --failed "$log.failed" >"$log" 2>&1
	ok "scenario: $(basename "$scenario" .txt)" $? "$log"
done

"$here"/seeds.sh "$build" 1 "${DROVER_SIM_SEEDS:-300}" >"$log" 2>&1
ok "seeds 1 to ${DROVER_SIM_SEEDS:-300}: every promise is kept" $? "$log"
sed 's/^/# /' "$log"
"$here"/seeds.sh "$build" 1001 1002 --hosts 60 --pools 5 --migrations 300 --faults 2 >"$log" 2>&1
ok 'big worlds: every promise is kept' $? "$log"
sed 's/^/# /' "$log"
exit $failed
