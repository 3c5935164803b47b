#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Checks the rooms of docs/ARCHITECTURE.md: who includes whom, who may use which library, and that the pure cores need
# nothing from outside. The rules are in tests/rooms.txt.
#   tests/rooms.sh BUILDDIR
# Prints a line for each violation; exit 0: none, 1: some, 2: it could not check.
set -u -o pipefail
[ $# -eq 1 ] || { echo "usage: tests/rooms.sh BUILDDIR" >&2; exit 2; }
case $1 in /*) build=$1 ;; *) build=$PWD/$1 ;; esac
cd "$(dirname "$0")/.." || exit 2
rules=tests/rooms.txt
[ -r "$rules" ] || { echo "rooms: no $rules" >&2; exit 2; }
export LC_ALL=C

# A pattern of rooms.txt as an anchored regular expression.
matcher='function regex(p) { gsub(/[.+]/, "\\\\&", p); gsub(/\*\*/, "\001", p); gsub(/\*/, "[^/]*", p); gsub(/\001/, ".*", p); return "^" p "$" }'

# "file include" pairs; what is in quotes is ours, what is in <> is marked so.
includes() {
	find common proto coordinator agent -name '*.[ch]' -print0 | xargs -0 awk '
		FNR == 1 { print FILENAME, "-" }
		/^[ \t]*#[ \t]*include[ \t]*[<"]/ {
			line = $0
			sub(/^[ \t]*#[ \t]*include[ \t]*/, "", line)
			sub(/[>"][^>"]*$/, "", line)
			print FILENAME, line
		}'
}

check_includes() {
	awk "$matcher"'
	function level(file,  i) {
		for (i = 1; i <= rooms; i++)
			if (file ~ room[i]) return depth[i]
		return -1
	}
	function allowed(file, i,  j, n, list) {
		n = split(users[i], list, " ")
		for (j = 1; j <= n; j++)
			if (file ~ regex(list[j])) return 1
		return 0
	}
	function complain(text) { print "rooms: " text; bad++ }
	function check_foreign(file, header,  i) {
		for (i = 1; i <= foreigners; i++)
			if (header ~ foreign[i] && !allowed(file, i))
				complain(file " includes <" header ">, which is for: " users[i])
	}
	function check_own(file, header,  i, there) {
		if (system("test -f " header) != 0) {
			complain(file " includes \"" header "\": no such file from the top")
			return
		}
		there = level(header)
		if (there > level(file))
			complain(file " (level " level(file) ") includes \"" header "\" of the higher level " there)
		for (i = 1; i <= nevers; i++)
			if (file ~ from[i] && header ~ to[i])
				complain(file " includes \"" header "\": " rule[i])
	}
	FNR == NR && /^[ \t]*(#|$)/ { next }
	FNR == NR && $1 == "room" { room[++rooms] = regex($2); depth[rooms] = $3; next }
	FNR == NR && $1 == "never" { from[++nevers] = regex($2); to[nevers] = regex($3); rule[nevers] = $0; next }
	FNR == NR && $1 == "foreign" {
		foreign[++foreigners] = regex($2)
		for (i = 3; i <= NF; i++) users[foreigners] = users[foreigners] (i > 3 ? " " : "") $i
		next
	}
	FNR == NR && ($1 == "pure" || $1 == "symbol") { next }
	FNR == NR { complain("tests/rooms.txt: cannot understand: " $0); next }
	$2 == "-" { if (level($1) < 0) complain($1 " is in no room of tests/rooms.txt"); files++; next }
	{ header = substr($2, 2); includes++ }
	$2 ~ /^</ || header ~ /\.pb-c\.h$/ { check_foreign($1, header); next }
	{ check_own($1, header) }
	END {
		if (!rooms || !files || !includes) complain("nothing was checked")
		exit bad > 0
	}' "$rules" -
}

# The objects of the sources that are pure, one a line.
pure_objects() {
	awk '$1 == "pure" { print $2 }' "$rules" | while read -r pattern; do
		for source in ${pattern%.o}.c; do
			[ -f "$source" ] && echo "$build/obj/${source%.c}.o"
		done
	done
}

check_pure() {
	local objects object bad=0 allowed need
	objects=$(pure_objects)
	[ -n "$objects" ] || { echo "rooms: no pure sources found"; return 1; }
	for object in $objects; do
		[ -f "$object" ] || { echo "rooms: $object is not built"; return 1; }
	done
	if [ "$(nm -u $objects | grep -c -E '__(asan|tsan|ubsan|gcov|llvm)_')" -gt 0 ]; then
		echo "rooms: objects are instrumented; their symbols are not checked" >&2
		return 0
	fi
	allowed=$( { awk '$1 == "symbol" { for (i = 2; i <= NF; i++) print $i }' "$rules"; nm --defined-only -g $objects | awk 'NF == 3 { print $3 }'; } | sort -u)
	for object in $objects; do
		need=$(comm -23 <(nm -u "$object" | awk '$1 == "U" { print $2 }' | sort -u) <(echo "$allowed"))
		for symbol in $need; do
			echo "rooms: ${object#"$build"/obj/} is pure and needs $symbol"
			bad=1
		done
		# .data.rel.ro is const
		need=$(nm -f sysv "$object" | awk -F'[ |]+' '$NF ~ /^(\.data|\.bss|\*COM\*)$/ || $NF ~ /^\.t?(data|bss)(\.[^r]|$)/ { print $1 }')
		for symbol in $need; do
			echo "rooms: ${object#"$build"/obj/} is pure and has the variable $symbol"
			bad=1
		done
	done
	return $bad
}

failed=0
includes | check_includes || failed=1
check_pure || failed=1
[ $failed -eq 0 ] && echo "rooms: all in order"
exit $failed
