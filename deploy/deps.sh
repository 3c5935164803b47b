#!/bin/sh
# Installs what drover needs from Debian packages.
#   deploy/deps.sh [build|run|demo|test|lab|all] [--check]
# build: compile it. run: run a coordinator, an agent and the simulated fleet. demo: what the script of `make demo` adds.
# test: what `make check` and the tools behind the other make targets add to all of these.
# lab: what `make lab`, two Xen hosts under QEMU, adds to build; not part of all.
# --check only says what is missing (exit 1 then), and changes nothing.
# Says what it is about to install before it does. Needs root only if something is missing.
set -eu

build="gcc make pkg-config protobuf-c-compiler libprotobuf-c-dev libzmq3-dev libczmq-dev
 libsqlite3-dev libjansson-dev libssl-dev libxxhash-dev libsmartcols-dev libconfuse-dev
 libsystemd-dev libnbd-dev libiscsi-dev uthash-dev uuid-dev scdoc libxen-dev"
run="qemu-system-common qemu-utils nbdkit tgt fuse3"
demo="jq procps"
check="clang libcmocka-dev valgrind libclang-rt-14-dev clang-format clang-tidy cppcheck gcovr git patch spin sqlite3 iproute2 python3"
lab="qemu-system-x86 qemu-utils ipxe-qemu seabios mmdebstrap e2fsprogs cpio gzip gawk kmod busybox-static openssh-client socat jq python3 procps"

what=all
only_say=no
for arg in "$@"; do
	case $arg in
	build | run | demo | test | lab | all) what=$arg ;;
	--check) only_say=yes ;;
	*)
		echo "deps.sh: unknown argument '$arg': use build, run, demo, test, lab or all, and --check" >&2
		exit 2
		;;
	esac
done
case $what in
build) wanted=$build ;;
run) wanted=$run ;;
demo) wanted=$demo ;;
test) wanted=$check ;;
lab) wanted=$lab ;;
all) wanted="$build $run $demo $check" ;;
esac

# shellcheck disable=SC2086 # a list of words on purpose
have=$(dpkg-query -W -f '${Package}=${db:Status-Status}\n' $wanted 2>/dev/null || true)
missing=
for package in $wanted; do
	echo "$have" | grep -qx "$package=installed" || missing="$missing $package"
done
if [ -z "$missing" ]; then
	exit 0
fi
if [ "$only_say" = yes ]; then
	echo "deps.sh: missing:$missing" >&2
	exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
	if command -v sudo >/dev/null 2>&1; then
		as_root=sudo
	else
		echo "deps.sh: not root and no sudo; as root run: apt-get install --no-install-recommends$missing" >&2
		exit 1
	fi
fi
echo "drover: installing these Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# The tgt package would start a world-open iSCSI target service; drover runs its own, on loopback.
if [ "${missing#* tgt}" != "$missing" ] && command -v systemctl >/dev/null 2>&1; then
	$as_root systemctl mask tgt.service >/dev/null 2>&1 || true
fi
$as_root apt-get -qq update
# shellcheck disable=SC2086 # a list of words on purpose
$as_root apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends -y $missing >/dev/null
