#!/bin/bash
# Makes what the lab boots from, out of Debian packages, and keeps it by a hash of what it is made of.
#   tests/lab/image.sh BUILD        BUILD/lab/: tree/, dom0.img, boot/, guest/
# Root (or sudo) is needed for tree and image alone: files in them belong to root. No loop mounts, no boot loader.
# LAB_MIRROR: a Debian mirror of your own (default: what mmdebstrap takes for bookworm).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=${1:?build directory}
mkdir -p "$build/lab"
cache=$(cd "$build/lab" && pwd)
BEAT=$build/lab/beat # made by make
suite=bookworm

say() { echo "lab: $*"; }
die() {
	echo "lab: $*" >&2
	exit 1
}
lines_of() { sed 's/#.*//' "$1" | awk 'NF {print $1}'; }
hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
is_made() { [ "$(cat "$cache/$1.key" 2>/dev/null)" = "$2" ]; } # WHAT KEY

# ---- the tree: packages unpacked, no maintainer scripts run; what those would have done and is needed is done here
tree_key() { { echo "tree 1 $suite ${LAB_MIRROR:-}" && lines_of "$here/packages.txt"; } | sha256sum | cut -d' ' -f1; }

tree_fill() { # TREE
	local wanted
	wanted=$(lines_of "$here/packages.txt" | paste -sd,)
	mmdebstrap --quiet --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include="$wanted" \
		"$suite" "$1" ${LAB_MIRROR:+"$LAB_MIRROR"} >/dev/null || die "mmdebstrap could not unpack Debian $suite; is its mirror reachable?"
}

tree_finish() { # TREE: accounts, links, caches
	local tree=$1 version
	cp "$tree/usr/share/base-passwd/passwd.master" "$tree/etc/passwd"
	cp "$tree/usr/share/base-passwd/group.master" "$tree/etc/group"
	sed -i '/^root:/s|:[^:]*$|:/bin/bash|' "$tree/etc/passwd"
	sed 's/:.*/:*:19000:0:99999:7:::/' "$tree/etc/passwd" >"$tree/etc/shadow"
	chmod 600 "$tree/etc/shadow"
	ln -sf gawk "$tree/usr/bin/awk"
	rm -rf "$tree"/usr/share/{doc,man,info,locale,lintian,bug,i18n} "$tree"/var/{cache,lib/apt,lib/dpkg} "$tree"/usr/lib/udev/hwdb.d
	mkdir -p "$tree"/var/{cache,lib/misc} "$tree"/{proc,sys,dev,run,tmp,srv,lab,opt/drover}
	rm -f "$tree/etc/resolv.conf" "$tree/etc/mtab"
	ln -s /proc/self/mounts "$tree/etc/mtab"
	chroot "$tree" /sbin/ldconfig
	version=$(ls "$tree/lib/modules")
	/sbin/depmod -b "$tree" "$version"
}

make_tree() {
	local key
	key=$(tree_key)
	is_made tree "$key" && return
	say "unpacking Debian packages for dom0 (some minutes, once)"
	rm -rf "$cache/tree" "$cache/tree.new" "$cache/tree.key"
	tree_fill "$cache/tree.new"
	tree_finish "$cache/tree.new"
	mv "$cache/tree.new" "$cache/tree"
	echo "$key" >"$cache/tree.key"
}


# ---- kernels and initial file systems
module_files() { # TREE NAME...: paths below lib/modules/VERSION in the order of loading, from modules.dep
	local directory=$1/lib/modules/$version
	shift
	awk -v wanted="$*" '
		function name_of(path) { sub(".*/", "", path); sub("[.]ko.*", "", path); gsub("-", "_", path); return path }
		{ file = $1; sub(":$", "", file); at[name_of(file)] = file; for (i = NF; i > 1; i--) needs[file] = needs[file] " " $i }
		END {
			count = split(wanted, names, " ")
			for (i = 1; i <= count; i++) {
				gsub("-", "_", names[i])
				if (!(names[i] in at)) continue # built in
				deps = split(needs[at[names[i]]], dep, " ")
				for (j = 1; j <= deps; j++) if (!done[dep[j]]++) print dep[j]
				if (!done[at[names[i]]]++) print at[names[i]]
			}
		}' "$directory/modules.dep"
}

make_cpio() { # DIRECTORY FILE
	(cd "$1" && find . | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=0:0) | gzip -1 >"$2"
}

new_initrd() { # DIRECTORY: with busybox
	rm -rf "$1"
	mkdir -p "$1"/{bin,dev,modules,proc,root,sys,sbin}
	cp "$cache/tree/bin/busybox" "$1/bin/"
	ln -s busybox "$1/bin/sh"
}

make_dom0_initrd() { # FILE
	local work=$cache/work file
	new_initrd "$work"
	cp "$here/dom0/initrd-init" "$work/init"
	for file in $(module_files "$cache/tree" virtio_pci virtio_blk crc32c_generic ext4); do
		cp "$cache/tree/lib/modules/$version/$file" "$work/modules/"
		basename "$file" >>"$work/modules/order"
	done
	make_cpio "$work" "$1"
	rm -rf "$work"
}

make_boot() {
	local new=$cache/boot.new
	rm -rf "$new"
	mkdir "$new"
	python3 -B "$here/unpack.py" gzip "$cache/tree/boot/xen-4.17-amd64.gz" "$new/xen"
	python3 -B "$here/unpack.py" vmlinux "$cache/tree/boot/vmlinuz-$version" "$new/vmlinux"
	make_dom0_initrd "$new/initrd"
	rm -rf "${cache:?}/boot"
	mv "$new" "$cache/boot"
}

# ---- dom0's root file system
stage_dom0() { # DIRECTORY: links to the tree's files, so nothing here may be written in place
	local stage=$1 keep=$cache/keep file
	rm -rf "$stage"
	cp -al "$cache/tree" "$stage"
	(cd "$stage/lib/modules/$version" && find kernel -name '*.ko*') | LC_ALL=C sort >"$keep.all"
	# shellcheck disable=SC2046 # a list of words on purpose
	module_files "$cache/tree" $(lines_of "$here/modules.txt") | LC_ALL=C sort >"$keep"
	comm -23 "$keep.all" "$keep" | (cd "$stage/lib/modules/$version" && xargs -r rm -f)
	rm -f "$keep" "$keep.all" "$stage"/boot/*
	find "$stage/lib/modules/$version/kernel" -type d -empty -delete
	cp -r "$stage/lib/modules/$version" "$stage/lib/modules/copy"
	rm -r "$stage/lib/modules/$version"
	mv "$stage/lib/modules/copy" "$stage/lib/modules/$version"
	/sbin/depmod -b "$stage" "$version"
	mkdir -p "$stage/usr/lib/lab/guest"
	for file in boot take supervise; do install -m 755 "$here/dom0/$file" "$stage/usr/lib/lab/$file"; done
	install -m 644 "$here/dom0/inittab" "$stage/etc/inittab"
	install -m 644 "$here/dom0/xl.conf" "$stage/etc/xen/xl.conf"
	printf '/bin/sh\n/bin/bash\n' >"$stage/etc/shells" # others may not log in
	cp "$cache/boot/vmlinux" "$stage/usr/lib/lab/guest/vmlinux"
	for file in killall less ping vi wget; do
		[ -e "$stage/usr/bin/$file" ] || ln -s /bin/busybox "$stage/usr/bin/$file"
	done
	ln -sf nc.openbsd "$stage/usr/bin/nc"
	rm -rf "$stage/sbin/init" "$stage"/var/{run,lock}
	ln -s /run "$stage/var/run"
	ln -s /run/lock "$stage/var/lock"
	ln -s /bin/busybox "$stage/sbin/init"
}

image_key() {
	{ tree_key && hash_of "$here"/{image.sh,unpack.py,modules.txt} "$here"/dom0/*; } | sha256sum | cut -d' ' -f1
}

make_image() {
	local key
	key=$(image_key)
	is_made image "$key" && return
	say "making dom0's image"
	rm -f "$cache/image.key"
	make_boot
	stage_dom0 "$cache/stage"
	rm -f "$cache/dom0.img.new"
	/sbin/mke2fs -q -t ext4 -L lab -O ^has_journal,^metadata_csum -d "$cache/stage" "$cache/dom0.img.new" 1200M >/dev/null
	rm -rf "$cache/stage"
	mv "$cache/dom0.img.new" "$cache/dom0.img" # hosts that run keep the old one
	chmod -R a+rX "$cache/boot" "$cache/dom0.img"
	echo "$key" >"$cache/image.key"
}

# ---- the guest: no root needed
make_guest() {
	local key work=$cache/work-guest file
	key=$({ tree_key && hash_of "$here/image.sh" "$here/guest/init" "$BEAT"; } | sha256sum | cut -d' ' -f1)
	is_made guest "$key" && return
	say "making the guest's initial file system"
	new_initrd "$work"
	cp "$here/guest/init" "$work/init"
	cp "$BEAT" "$work/beat"
	# What the kernel calls when the toolstack asks for a shutdown.
	printf '#!/bin/sh\nexec busybox poweroff -f\n' >"$work/sbin/poweroff"
	printf '#!/bin/sh\nexec busybox reboot -f\n' >"$work/sbin/reboot"
	chmod 755 "$work"/sbin/*
	for file in $(module_files "$cache/tree" xen-blkfront xen-netfront); do cp "$cache/tree/lib/modules/$version/$file" "$work/modules/"; done
	mkdir -p "$cache/guest"
	make_cpio "$work" "$cache/guest/initrd.new"
	mv "$cache/guest/initrd.new" "$cache/guest/initrd"
	rm -rf "$work"
	echo "$key" >"$cache/guest.key"
}

privileged() { # runs this script's part for root
	if [ "$(id -u)" -eq 0 ]; then
		"$0" "$build" as-root
	elif command -v sudo >/dev/null; then
		sudo LAB_MIRROR="${LAB_MIRROR:-}" "$0" "$build" as-root
	else
		echo "skip - lab: dom0's image must be made by root, once: $0 $build as-root"
		exit 77 # as tests/run.sh takes it
	fi
}

version= # of dom0's kernel
find_version() { version=$(basename "$cache"/tree/lib/modules/*); }
if [ "${2:-}" = as-root ]; then
	make_tree
	find_version
	make_image
	exit 0
fi
# Tests that begin at the same time: the first makes it, the others find it made.
exec 9>"$cache/lock"
flock 9
if ! is_made tree "$(tree_key)" || ! is_made image "$(image_key)"; then privileged; fi
find_version
make_guest
