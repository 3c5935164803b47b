#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Manual pages: each compiles without a word, and a page and --help of its program name the same options.
#   tests/man.sh [BUILD]        the build directory, default build
# A program that is there must have a page. Programs that nobody starts by hand (legs, guests) need none.
set -eu
cd "$(dirname "$0")/.."
bin=${1:-build}/bin
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
faults=0
fault() {
	echo "man.sh: $*" >&2
	faults=$((faults + 1))
}

options() { grep -oE -- '--[a-z][a-z-]*[a-z]' | sort -u; }

# What --help says, of the program and of each of its commands.
help_of() {
	"$1" --help
	[ "${1##*/}" = drover ] || return 0
	"$1" --help | sed -n '/^Commands:/,$s/^  \([a-z]*\( [a-z][a-z]*\)\{0,1\}\) .*/\1/p' | while read -r command; do
		# shellcheck disable=SC2086 # "host list" is two words
		"$1" $command --help
	done
}

for page in docs/man/*.scd; do
	out=$tmp/$(basename "$page" .scd)
	scdoc <"$page" >"$out" 2>"$tmp/words" || fault "$page: scdoc fails: $(cat "$tmp/words")"
	[ ! -s "$tmp/words" ] || fault "$page: scdoc says: $(cat "$tmp/words")"
	# man(1), where it is, reads what scdoc wrote.
	if command -v man >/dev/null 2>&1; then
		man --warnings -l "$out" >/dev/null 2>"$tmp/words" || fault "$page: man fails: $(cat "$tmp/words")"
		[ ! -s "$tmp/words" ] || fault "$page: man says: $(cat "$tmp/words")"
	fi
done

compared=0
for program in drover drover-coordinator drover-agent drover-sim; do
	[ -x "$bin/$program" ] || continue
	page=
	for section in 1 8; do
		[ ! -e "docs/man/$program.$section.scd" ] || page=docs/man/$program.$section.scd
	done
	if [ -z "$page" ]; then
		fault "$program has no manual page"
		continue
	fi
	# In the page an option counts where it is explained: *--name* at the start of a line, or after a comma there.
	grep -E '^\*--' "$page" | options >"$tmp/page" || :
	help_of "$bin/$program" >"$tmp/help" 2>&1 || fault "$program --help fails: $(head -1 "$tmp/help")"
	options <"$tmp/help" >"$tmp/said" || :
	for option in $(comm -13 "$tmp/page" "$tmp/said"); do
		fault "$page does not explain $option, which $program --help has"
	done
	for option in $(comm -23 "$tmp/page" "$tmp/said"); do
		fault "$page explains $option, which $program --help does not have"
	done
	compared=$((compared + 1))
done
[ "$compared" -gt 0 ] || fault "no program in $bin to compare a page with"
[ "$faults" -eq 0 ]
