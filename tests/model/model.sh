#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The vote protocol checked in every state that the model of it can reach, and its mutants refuted. See README.md here.
#   tests/model/model.sh [BUILD]        nothing of BUILD is used
# Prints a line for each run, with the states it stored.
set -u -o pipefail
model=$(cd "$(dirname "$0")" && pwd)/votes.pml || exit 2
for tool in spin gcc; do
	command -v "$tool" >/dev/null || {
		echo "not ok - model: $tool is not installed (Debian package $tool)"
		exit 1
	}
done
tmp=$(mktemp -d "${TMPDIR:-/tmp}/drover-model.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
export model tmp

# search FOLDER OPTION...: builds and runs a verifier, output in FOLDER/out.
search() {
	local dir=$tmp/$1
	shift
	mkdir "$dir" && cp "$model" "$dir" && cd "$dir" || return 1
	# -DNOREDUCE: the processes share all their variables, there is nothing to reduce. -w24: a hash table of 128 MB.
	spin "$@" -a votes.pml && gcc -O1 -w -DSAFETY -DNOREDUCE -DMEMLIM=1800 -o pan pan.c &&
		./pan -m20000 -w24
}

# one WANT NAME OPTION...: WANT is holds (the whole space searched, nothing found) or found (an assertion fails).
one() {
	local want=$1 name=$2 out states
	shift 2
	out=$tmp/$name.out
	search "$name" "$@" >"$out" 2>&1
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$out")
	if [ -z "$states" ]; then
		verdict='the verifier did not run'
	elif grep -q -E 'max search depth too small|out of memory|reached -DMEMLIM' "$out"; then
		verdict='the search was cut short'
	elif grep -q 'errors: 0$' "$out" && ! grep -q 'Search not completed' "$out"; then
		verdict=holds
	elif grep -q '^pan:[0-9]*: assertion violated' "$out"; then
		verdict=found
	else
		verdict='cannot tell what the verifier found'
	fi
	if [ "$verdict" = "$want" ]; then
		echo "ok - model: $name: $want ($states states)"
		return 0
	fi
	echo "not ok - model: $name: wanted $want, is: $verdict (${states:-no} states; spin $*)"
	grep -E 'assertion violated|[Ee]rror|depth' "$out" | cut -c1-300 | head -n 8 | sed 's/^/#   /'
	if [ -f "$tmp/$name/votes.pml.trail" ]; then
		(cd "$tmp/$name" && spin "$@" -t -p votes.pml 2>&1) | grep -v '\[assert\|\[else\]' | tail -n 60 | cut -c1-160 | sed 's/^/#   /'
	fi
	return 1
}
export -f search one

# Two at a time; the long ones first. One fault is enough for every mutant.
stuck='-DSTUCK -DFAULTS=1'
# What one says is kept together.
# shellcheck disable=SC2016 # for the inner shell
xargs -P 2 -L 1 bash -c 'said=$(one "$@"); status=$?; printf "%s\n" "$said"; exit $status' _ <<END
holds safety-3-faults -DFAULTS=3
holds safety-3-faults-exclusive-disk -DFAULTS=3 -DEXCLUSIVE
holds stuck-1-fault $stuck
found witness-moved -DFAULTS=1 -DWITNESS=1
found witness-aborted-late -DFAULTS=1 -DWITNESS=2
found witness-seconded -DFAULTS=1 -DWITNESS=3
found witness-given-back -DFAULTS=1 -DWITNESS=4
found witness-without-coordinator -DFAULTS=1 -DWITNESS=5
found witness-through-coordinator -DFAULTS=1 -DWITNESS=6
found mutant-V1 -DFAULTS=1 -DMUTANT_V1
found mutant-V2 -DFAULTS=1 -DMUTANT_V2
found mutant-V3 -DMUTANT_V3 $stuck
found mutant-V3C -DMUTANT_V3C $stuck
found mutant-V4 -DFAULTS=1 -DMUTANT_V4
found mutant-V4B -DFAULTS=1 -DMUTANT_V4B
found mutant-V5 -DMUTANT_V5 $stuck
found mutant-V6 -DFAULTS=1 -DMUTANT_V6
found mutant-V6B -DFAULTS=1 -DMUTANT_V6B
found mutant-V7 -DFAULTS=1 -DMUTANT_V7
found mutant-V7B -DMUTANT_V7B $stuck
found mutant-V7C -DFAULTS=1 -DMUTANT_V7C
found mutant-V8 -DFAULTS=1 -DMUTANT_V8
found mutant-V9 -DMUTANT_V9 $stuck
found mutant-V9B -DMUTANT_V9B $stuck
found mutant-V10 -DFAULTS=1 -DMUTANT_V10
found mutant-V11 -DFAULTS=1 -DMUTANT_V11
found mutant-V12 -DFAULTS=1 -DMUTANT_V12 -DEXCLUSIVE
found mutant-V13 -DFAULTS=1 -DMUTANT_V13
END
