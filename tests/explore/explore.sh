#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every state of one migration, and each mutant of the code that decides found. See README.md here.
#   tests/explore/explore.sh BUILD      needs BUILD/test/explore; FAULTS=n adds a run with n faults (default 1: none)
# Prints a line for each run and each mutant.
set -u -o pipefail
build=$(cd "${1:?build directory}" && pwd) || exit 2
cd "$(dirname "$0")/../.." || exit 2
CC=${CC:-gcc}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/drover-explore.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
export build tmp CC

# explore PROGRAM FROM FAULTS NUISANCES [ONLY, which may have spaces]
explore() {
	local program=$1 from=$2 faults=$3 nuisances=$4
	shift 4
	"$program" "$from" "$faults" "$nuisances" ${1:+"$*"} 2>&1
}

# holds FROM FAULTS NUISANCES [ONLY]: nothing is found, in all states.
holds() {
	local status=0 out
	out=$(mktemp "$tmp/holds.XXXXXX")
	explore "$build/test/explore" "$@" >"$out" || status=$?
	if [ "$status" -eq 0 ]; then
		echo "ok - explore: $*: all laws hold ($(grep '^states=' "$out"))"
		return 0
	fi
	echo "not ok - explore: $* (exit $status)"
	grep -v '^never: ' "$out" | cut -c1-420
	return 1
}

# mutant PATCH: builds the core with the patch, which must apply; the explorer must find what is broken.
mutant() {
	local patch=$1 name dir file what run status=0 objects
	name=$(basename "$patch" .patch)
	dir=$tmp/$name
	file=$(sed -n 's|^+++ b/||p' "$patch")
	what=$(sed -n 1p "$patch")
	run=$(sed -n 's/^run: //p' "$patch")
	mkdir -p "$dir/$(dirname "$file")" && cp "$file" "$dir/$file" || return 1
	if ! patch -s -p1 -F0 -d "$dir" <"$patch" >"$dir/out" 2>&1; then
		echo "not ok - explore: mutant $name: its patch does not apply"
		sed 's/^/#   /' "$dir/out"
		return 1
	fi
	objects=$(for c in tests/explore/*.c common/verdict.c coordinator/core/migration.c \
		coordinator/core/migration_table.c agent/core/session.c agent/core/leg_rules.c; do
		[ "$c" = "$file" ] || echo "$build/obj/${c%.c}.o"
	done)
	# shellcheck disable=SC2086 # a list of files; flags of an instrumented build are in its objects
	if ! $CC -std=c11 -D_GNU_SOURCE -O2 -w -I"$dir" -I. -c -o "$dir/mutant.o" "$dir/$file" >"$dir/out" 2>&1 ||
		! $CC -o "$dir/explore" "$dir/mutant.o" $objects >"$dir/out" 2>&1; then
		echo "not ok - explore: mutant $name: does not build"
		sed 's/^/#   /' "$dir/out"
		return 1
	fi
	# shellcheck disable=SC2086 # words of a line
	explore "$dir/explore" $run >"$dir/out" || status=$?
	if [ "$status" -eq 1 ] && grep -q -E '^(broken|stuck): ' "$dir/out"; then
		echo "ok - explore: mutant $name ($what): $(grep -m 1 -E '^(broken|stuck): ' "$dir/out")"
		return 0
	fi
	echo "not ok - explore: mutant $name ($what) survives (exit $status; explore $run)"
	grep -v '^never: ' "$dir/out" | head -n 3
	return 1
}
export -f explore holds mutant

failed=0
{
	echo holds copy 1 0
	echo holds start 1 0
	[ "${FAULTS:-1}" -gt 1 ] && echo holds copy "$FAULTS" 0
	echo holds copy 0 1
	echo 'holds copy 1 2 dies|operator'
	# What finds a mutant finds nothing without it; the first run has seen what is part of it.
	sed -n 's/^run: /holds /p' tests/explore/mutants/*.patch | sort -u | grep -v -E '^holds (copy [01] 0|copy 0 1|start 0 0)( |$)'
	printf 'mutant %s\n' tests/explore/mutants/*.patch
} >"$tmp/todo"
# What one says is kept together.
# shellcheck disable=SC2016 # for the inner shell
xargs -d '\n' -P 2 -n 1 bash -c 'read -r -a words <<<"$1"; said=$("${words[@]}"); status=$?; printf "%s\n" "$said"; exit $status' _ \
	<"$tmp/todo" || failed=1

# A step of the explorer that is never possible would prove nothing.
# An answer that changes nothing is dropped before it is heard: some never are.
names=$(cat "$tmp"/holds.* | grep '^never: ' | grep -v -E ' (refused|of nothing known)$' | sort | uniq -c |
	awk -v runs="$(grep -c '^holds' "$tmp/todo")" '$1 == runs { sub(/^ *[0-9]+ never: /, ""); print }')
if [ -z "$names" ]; then
	echo "ok - explore: every step is possible somewhere"
else
	echo "not ok - explore: steps that are never possible"
	printf '%s\n' "$names" | sed 's/^/#   /'
	failed=1
fi
exit $failed
