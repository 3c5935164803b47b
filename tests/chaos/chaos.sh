#!/bin/bash
# Chaos with real processes under load: faults of all kinds on a seeded schedule, see README.md.
#   tests/chaos/chaos.sh BUILD          MINUTES (default 5) and SEED (default: drawn, and printed) in the environment
# Everything runs in namespaces of its own (network, mounts, processes), by root's right or by that of a user namespace:
# when this ends, however it ends, the kernel takes processes, links and mounts away. Where none can be made, the faults
# that need them are left out, and a line says so.
set -u
build=$(cd "${1:?build directory}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
separate=(unshare --net --mount --pid --fork --kill-child --mount-proc)
[ "$(id -u)" -eq 0 ] || separate+=(--user --map-root-user)
inside=no
if "${separate[@]}" mount -t tmpfs tmpfs /run 2>/dev/null; then
	inside=yes
else
	separate=()
fi
# bash is the first process there: it reaps what nobody else waits for.
# shellcheck disable=SC2016 # expanded inside
exec nice -n 5 "${separate[@]}" bash -c '
	python3 -B "$1/chaos.py" --build "$2" --namespaces "$3" --minutes "$4" ${5:+--seed "$5"} &
	trap "kill -TERM $!" INT TERM
	wait $!
	status=$?
	while kill -0 $! 2>/dev/null; do wait $!; status=$?; done
	exit $status' _ "$here" "$build" "$inside" "${MINUTES:-5}" "${SEED:-}"
