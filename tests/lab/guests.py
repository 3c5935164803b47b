# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests: made through xl, and what they have said."""
import glob
import os
import re
import shlex
import uuid

from host import Trouble

HOME = {"raw": "/srv/vm", "qcow2": "/srv/qcow"}
BEAT = re.compile(r"beat (?P<name>\S+) (?P<beat>\d+) boot=(?P<boot>\S+) gap=(?P<gap>\d+) max=(?P<max>\d+) "
                  r"memory=(?P<memory>\d+) disk=(?P<disk>\d+) failed=(?P<failed>\d+) wrote=(?P<wrote>\d+)\r?$")
STAMP = re.compile(r"^\[[^]]*\] ")


def disk_path(name, number, options):
    return f"{HOME[options.format]}/{name}.xvd{chr(ord('a') + number)}.{options.format}"


def config(host, options):
    """The text of an xl configuration."""
    name = options.name
    command = (f"console=hvc0 loglevel=3 mitigations=off beat.name={name} beat.period={options.period} "
               f"beat.memory={options.work} beat.dirty={options.dirty} beat.write={options.write} beat.span={options.span}")
    vif = []
    if options.vif:
        number = uuid.uuid4().bytes
        vif = [f"mac=00:16:3e:{number[0] & 0x7f:02x}:{number[1]:02x}:{number[2]:02x},bridge=xenbr0"]
        command += f" beat.address=192.0.2.{100 + number[3] % 100}/24"
    disks = [f"format={options.format},vdev=xvd{chr(ord('a') + number)},access=rw,backendtype=qdisk,"
             f"target={disk_path(name, number, options)}" for number in range(len(options.disk))]
    return (f'name = "{name}"\nuuid = "{options.uuid or uuid.uuid4()}"\ntype = "{options.type}"\n'
            f'kernel = "/usr/lib/lab/guest/vmlinux"\nramdisk = "/usr/lib/lab/guest/initrd"\n'
            f'cmdline = "{command}"\nmemory = {options.memory}\nvcpus = {options.vcpus}\n'
            f"disk = {disks}\nvif = {vif}\n" 'on_crash = "preserve"\n')


def create(host, options):
    """The guest runs when this returns; disks that are there already are kept, with what is on them."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", options.name):
        raise Trouble(f"{options.name}: not a name for a guest")
    lines = ["set -e", "mkdir -p /srv/vm /srv/qcow"]
    for number, size in enumerate(options.disk):
        path = shlex.quote(disk_path(options.name, number, options))
        lines.append(f"[ -e {path} ] || qemu-img create -q -f {options.format} {path} {shlex.quote(size)}")
    file = f"/srv/{options.name}.cfg"
    lines += [f"cat > {file} <<'END'", config(host, options) + "END", f"xl create {file} >/dev/null"]
    host.must("\n".join(lines), f"make guest {options.name}")


def lines(lab, name):
    """(host, line) of all the console lines of that guest that we know of, by host."""
    for host in lab.hosts:
        for path in sorted(glob.glob(os.path.join(host.share, "console", "guest-*.log"))):
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if f" {name} " in line:
                        yield host.name, line.rstrip("\r\n")


def beats(lab, name):
    """All beats in the order of their numbers: dictionaries with host, stamp, and the line's fields."""
    found = []
    for host, line in lines(lab, name):
        match = BEAT.search(line)
        if match and match["name"] == name:
            stamp = STAMP.match(line)
            beat = {key: int(text) if key not in ("name", "boot") else text for key, text in match.groupdict().items()}
            found.append({"host": host, "stamp": stamp.group(0)[1:-2] if stamp else "", **beat})
    # A boot's beats belong together; which boot came first is told by when it was heard of.
    first = {}
    for beat in found:
        first[beat["boot"]] = min(first.get(beat["boot"], beat["stamp"]), beat["stamp"])
    return sorted(found, key=lambda beat: (first[beat["boot"]], beat["boot"], beat["beat"], beat["stamp"]))


def faults(found):
    """What a guest must never have said: a text each."""
    wrong = []
    for before, beat in zip(found, found[1:]):
        if beat["boot"] != before["boot"]:
            wrong.append(f"booted again after beat {before['beat']}")
        elif beat["beat"] == before["beat"]:
            wrong.append(f"beat {beat['beat']} twice: {before['host']} and {beat['host']}")
        elif beat["beat"] != before["beat"] + 1:
            wrong.append(f"beats {before['beat'] + 1} to {beat['beat'] - 1} are missing")
    for beat in found[-1:]:
        wrong += [f"{key}={beat[key]} at beat {beat['beat']}" for key in ("memory", "disk", "failed") if beat[key]]
    if not found:
        wrong.append("it has said nothing")
    elif found[0]["beat"] != 1:
        wrong.append(f"the first beat is {found[0]['beat']}")
    return wrong
