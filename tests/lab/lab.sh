#!/bin/bash
# Two real Xen hosts under QEMU, drover's agents in them: see README.md, or `lab.sh help`.
#   B=DIR        build directory whose programs are taken (default: build beside the Makefile)
#   LAB=DIR      this pair of hosts; any number of pairs may run (default: $B/lab/run)
#   LAB_CACHE=DIR  where image.sh keeps what hosts boot from (default: $B/lab)
here=$(cd "$(dirname "$0")" && pwd)
export B=${B:-$here/../../build}
exec python3 -B "$here/lab.py" "$@"
