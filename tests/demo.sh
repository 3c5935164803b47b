#!/bin/bash
# The main job, to be watched: a running guest with memory and two disks moves between two hosts of two pools.
#   tests/demo.sh BINDIR
. "$(dirname "$0")/lib.sh" "$(dirname "$1")"
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] || step() { printf '\n== %s\n' "$*"; }

step "a coordinator and two hosts: a1 in pool A, b1 in pool B"
fleet_up --hosts a1@A,b1@B
drover host list

step "a guest on a1: 256 MiB memory (8 MiB/s dirtied), two disks of 1 GiB (8 MiB/s written)"
drover-sim create web1 --on a1 --memory 256M --dirty 8M/s --disk xvda=1G@local --disk xvdb=1G@local --disk-write 8M/s \
	--home "$FLEET"
within 20 vm_runs_on web1 a1
drover vm list

step "it moves to b1 while it runs: drover migrate web1 --to b1 --watch"
drover migrate web1 --to b1 --watch
result=$?

step "how it went: drover show"
drover show 1

step "checked by a program of its own: drover-sim verify"
verify || result=1

step "cleaned up"
fleet_down
exit $result
