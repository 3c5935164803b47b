#!/bin/bash
# One fuzz target: under libFuzzer for FUZZ_SECONDS (60) if it was built for it, else its seeds once by the plain program.
#   tests/fuzz/fuzz.sh BUILD NAME
# What it finds stays in BUILD/libfuzzer/found (NAME-crash-*, NAME-timeout-* ...); what is worth keeping in
# BUILD/libfuzzer/corpus/NAME, from where the next run goes on.
set -u
build=$1
name=$2
folder=$(dirname "$0")
seeds=$folder/seeds/${name#fuzz_}
program=$build/libfuzzer/fuzz/$name
corpus=$build/libfuzzer/corpus/$name
found=$build/libfuzzer/found/$name
words=
[ -e "$folder/$name.dict" ] && words=-dict=$folder/$name.dict

if [ ! -x "$program" ]; then
	"$build/fuzz/$name" "$seeds"/* || { echo "not ok - $name, its seeds"; exit 1; }
	echo "ok - $name, its seeds"
	exit 0
fi
mkdir -p "$corpus" "$(dirname "$found")"
said=$(mktemp)
trap 'rm -f "$said"' EXIT
ASAN_OPTIONS=${ASAN_OPTIONS:-}:malloc_context_size=6 "$program" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 ${words:+"$words"} \
	-artifact_prefix="$found-" "$corpus" "$seeds" >"$said" 2>&1
status=$?
if [ $status -ne 0 ]; then
	tail -n 60 "$said"
	echo "not ok - $name (again by: $program $(ls -t "$found"-* 2>/dev/null | head -n 1))"
	exit 1
fi
awk -v name="$name" '
	/INITED cov: / { first = $4 }
	/ cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") last = $(i + 1) }
	/^stat::number_of_executed_units/ { runs = $2 }
	/^stat::average_exec_per_sec/ { rate = $2 }
	END { printf "# %s: %d runs, %d a second, edges covered: %d by what was there, %d now\n", name, runs, rate, first, last
		exit runs > 0 ? 0 : 1 }' "$said" || { echo "not ok - $name ran nothing"; exit 1; }
echo "ok - $name"
