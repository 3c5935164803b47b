#!/bin/bash
# Runs tests, two at a time, and ends with "N passed, N failed, N skipped".
#   tests/run.sh BUILDDIR TEST...
# A TEST is a cmocka program, valgrind:PROGRAM, or SCRIPT.sh or SCRIPT.sh:ARGUMENT (gets BUILDDIR and the argument; prints
# "ok - name", "not ok - name" and "skip - name" lines, or nothing: then its exit status counts as one test, 77 = skipped).
# DROVER_TEST_LIMIT: seconds that a script may take. Lines of a script that begin with "#" are shown.
set -u
build=$1
shift
logs=$build/logs
mkdir -p "$logs"
suppressions=$(dirname "$0")/suppressions

run_one() {
	test=$1
	name=$(echo "$test" | tr '/:' '__')
	log=$logs/$name.log
	start=$(date +%s)
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:allocator_may_return_null=1
	export LSAN_OPTIONS=suppressions=$suppressions/lsan.txt:print_suppressions=0
	export UBSAN_OPTIONS=print_stacktrace=1
	export TSAN_OPTIONS=suppressions=$suppressions/tsan.txt
	case $test in
	valgrind:*)
		timeout -k 5 300 valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
			--suppressions="$suppressions/valgrind.txt" "${test#valgrind:}" >"$log" 2>&1 ;;
	*.sh) timeout -k 5 "${DROVER_TEST_LIMIT:-900}" bash "$test" "$build" >"$log" 2>&1 ;;
	*.sh:*) timeout -k 5 "${DROVER_TEST_LIMIT:-900}" bash "${test%:*}" "$build" "${test##*:}" >"$log" 2>&1 ;;
	*) timeout -k 5 300 "$test" >"$log" 2>&1 ;;
	esac
	status=$?
	passed=$(grep -c -E '^(\[       OK \]|ok - )' "$log")
	failed=$(grep -c -E '^(\[  FAILED  \] [a-zA-Z0-9_]+$|not ok - )' "$log")
	skipped=$(grep -c -E '^(\[  SKIPPED \] [a-zA-Z0-9_]+$|skip - )' "$log")
	# cmocka names a failed test twice: once when it fails and once in the list at the end.
	grep -q '^\[==========\]' "$log" && failed=$((failed / 2)) && skipped=$((skipped > 1 ? skipped / 2 : skipped))
	if [ $((passed + failed + skipped)) -eq 0 ]; then
		case $status in
		0) passed=1 ;;
		77) skipped=1 ;;
		*) failed=1 ;;
		esac
	elif [ $status -ne 0 ] && [ $status -ne 77 ] && [ "$failed" -eq 0 ]; then
		failed=1 # it crashed, hung or a sanitizer spoke
	fi
	echo "$passed $failed $skipped" >"$logs/$name.count"
	if [ "$failed" -gt 0 ]; then
		echo "FAIL $test (exit $status, $log)"
		grep -E '^(not ok - |\[  FAILED  \]|\[  ERROR   \]|\[   LINE   \]|.*(ERROR: AddressSanitizer|runtime error|WARNING: ThreadSanitizer))' "$log" | head -n 20
		tail -n 15 "$log"
	else
		echo "pass $test: $passed passed, $skipped skipped, $(($(date +%s) - start)) s"
		grep -E '^(skip - |# )' "$log"
	fi
}
export -f run_one
export build logs suppressions

rm -f "$logs"/*.count
[ $# -gt 0 ] || { echo '0 passed, 0 failed, 0 skipped' && exit 0; }
printf '%s\n' "$@" | xargs -P 2 -I{} bash -c 'run_one "$@"' _ {}
total=$(cat "$logs"/*.count | awk '{p += $1; f += $2; s += $3} END {printf "%d passed, %d failed, %d skipped", p, f, s}')
echo "$total"
[ "${total#*, 0 failed}" != "$total" ]
