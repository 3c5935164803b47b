# SPDX-License-Identifier: LGPL-2.1-or-later
"""One Xen host: a QEMU process, its disks and sockets, a shell in its dom0."""
import glob
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

from qmp import Qmp, Refused

HOSTS = ("xen1", "xen2")
BOOT_SECONDS = int(os.environ.get("LAB_BOOT_SECONDS", "300"))
MEMORY_MIB = int(os.environ.get("LAB_MEMORY", "1024"))
DOM0_MIB = 512
DISK_BYTES = 8 << 30  # sparse
LINK = "192.0.2."  # host to host; documentation addresses, nothing of them leaves QEMU
CONTROL = "198.51.100."  # host to coordinator
SHELL = "203.0.113."  # this machine to host
COORDINATOR = CONTROL + "2"  # QEMU's user network: this machine's loopback
POLL_SECONDS = 0.2
TRIES = 5


class Trouble(Exception):
    """Told to whoever called, without a trace."""


def kvm():
    """Whether QEMU can use the hardware: Xen inside needs it nested."""
    nested = ""
    for path in glob.glob("/sys/module/kvm_*/parameters/nested"):
        with open(path, encoding="ascii") as file:
            nested += file.read().strip()
    return os.access("/dev/kvm", os.R_OK | os.W_OK) and nested in ("1", "Y")


def cpu_options():
    accel = os.environ.get("LAB_ACCEL") or ("kvm" if kvm() else "tcg")
    if accel == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # With richer CPU models dom0 crashes early under emulation.
    return ["-accel", "tcg,thread=multi,tb-size=128", "-cpu", "qemu64,+svm,+npt"]


def read(path, default=""):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return default


class Host:
    def __init__(self, lab, name):
        self.lab = lab
        self.name = name
        self.number = HOSTS.index(name) + 1
        self.dir = os.path.join(lab.dir, name)
        self.share = os.path.join(self.dir, "share")
        self.address = f"{LINK}{10 + self.number}"
        self.process = None  # QEMU, if it was started by this command

    def path(self, name):
        return os.path.join(self.dir, name)

    def mac(self, net):
        return f"52:54:00:4c:{net:02x}:{self.number:02x}"

    # ---- files ----
    def prepare(self):
        for name in ("bin", "etc", "guest", "console", "log"):
            os.makedirs(os.path.join(self.share, name), exist_ok=True)
        disk = self.path("srv.img")
        if not os.path.exists(disk):
            with open(disk + ".new", "wb") as file:
                file.truncate(DISK_BYTES)
            subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", disk + ".new"], check=True)
            os.rename(disk + ".new", disk)
        shutil.copy(os.path.join(self.lab.cache, "guest", "initrd"), os.path.join(self.share, "guest", "initrd"))
        shutil.copy(self.lab.path("key.pub"), os.path.join(self.share, "authorized_keys"))
        settings = {"NAME": self.name, "ADDRESS": self.address, "XEN1": LINK + "11", "XEN2": LINK + "12",
                    "COORDINATOR": COORDINATOR, "CONTROL_ADDRESS": CONTROL + "15", "SHELL_ADDRESS": SHELL + "15",
                    "MAC_LINK": self.mac(1), "MAC_CONTROL": self.mac(2), "MAC_SHELL": self.mac(3)}
        with open(os.path.join(self.share, "host.env"), "w", encoding="ascii") as file:
            file.writelines(f"{key}={value}\n" for key, value in settings.items())
        self.take_programs()

    def take_programs(self):
        """drover's programs of now into the share; those that are gone, out of it."""
        there = os.path.join(self.share, "bin")
        for name in os.listdir(there):
            if name not in self.lab.programs():
                os.unlink(os.path.join(there, name))
        for name in self.lab.programs():
            shutil.copy2(os.path.join(self.lab.build, "bin", name), os.path.join(there, name))

    # ---- QEMU ----
    def pid(self):
        """Of the QEMU of this host, or None. A number alone could be somebody else's by now."""
        text = read(self.path("pid")).strip()
        if not text:
            return None
        try:
            cwd = os.readlink(f"/proc/{text}/cwd")
        except OSError:
            return None
        words = read(f"/proc/{text}/cmdline").split("\0")
        return int(text) if cwd == self.lab.dir and f"drover-lab-{self.name}" in words else None

    def command(self):
        me, boot = self.name, os.path.join(self.lab.cache, "boot")
        peer = HOSTS[2 - self.number]
        user = "restrict=off,ipv6=off,host={0}2,net={0}0/24,dhcpstart={0}15"
        words = ["qemu-system-x86_64", "-name", f"drover-lab-{me}", "-machine", "pc", *cpu_options(), "-smp", "1",
                 "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                 "-pidfile", f"{me}/pid",
                 "-kernel", os.path.join(boot, "xen"),
                 "-append", f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M spec-ctrl=no xpti=no "
                 "sched=credit loglvl=info guest_loglvl=warning",
                 "-initrd", f"{boot}/vmlinux console=hvc0 loglevel=4 mitigations=off,{boot}/initrd"]
        # What dom0 changes in its root file system is gone with the power; /srv is on a disk that stays.
        words += ["-drive", f"if=none,id=root,format=raw,snapshot=on,file={self.lab.cache}/dom0.img",
                  "-device", "virtio-blk-pci,drive=root",
                  "-drive", f"if=none,id=srv,format=raw,discard=unmap,file={me}/srv.img",
                  "-device", "virtio-blk-pci,drive=srv",
                  "-virtfs", f"local,id=lab,mount_tag=lab,security_model=none,path={me}/share"]
        nets = ["dgram,id=link,local.type=unix,local.path={0}/link.sock,remote.type=unix,remote.path={1}/link.sock".format(
                    me, peer),
                "user,id=control," + user.format(CONTROL),
                "user,id=shell,hostfwd=tcp:127.0.0.1:0-:22," + user.format(SHELL)]
        for number, net in enumerate(nets, 1):
            name = ("link", "control", "shell")[number - 1]
            words += ["-netdev", net, "-device", f"virtio-net-pci,netdev={name},mac={self.mac(number)},romfile="]
        words += ["-chardev", "null,id=hole",
                  "-chardev", f"socket,id=serial,path={me}/serial.sock,server=on,wait=off,logfile={me}/serial.log",
                  "-serial", "chardev:serial", "-qmp", f"unix:{me}/qmp.sock,server=on,wait=off"]
        return words

    def start(self):
        if self.pid():
            return
        for stale in ("pid", "link.sock", "serial.sock", "qmp.sock", "ssh.sock"):
            if os.path.exists(self.path(stale)):
                os.unlink(self.path(stale))
        if os.path.exists(self.path("serial.log")):
            os.rename(self.path("serial.log"), self.path("serial.log.old"))
        self.prepare()
        with open(self.path("qemu.log"), "ab") as log:
            # Its own session: it goes on when this command has ended. TMPDIR: where snapshot=on keeps what it must.
            self.process = subprocess.Popen(self.command(), cwd=self.lab.dir, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True,
                                            env={**os.environ, "TMPDIR": self.lab.dir})

    def wait_ready(self):
        """Until dom0 says so; seconds that it took."""
        start = time.monotonic()
        while time.monotonic() - start < BOOT_SECONDS:
            text = read(self.path("serial.log"))
            if f"LAB READY {self.name}" in text:
                return time.monotonic() - start
            failed = re.search(r"LAB FAILED.*|.*Hardware Dom0 crashed.*|.*Kernel panic.*|.*Panic on CPU.*", text)
            if failed:
                raise Trouble(f"{self.name} does not boot: {failed.group(0).strip()} (see {self.path('serial.log')})")
            if self.process.poll() is not None if self.process else self.pid() is None:
                raise Trouble(f"{self.name}: QEMU has ended: {read(self.path('qemu.log')).strip()[-500:]}")
            time.sleep(POLL_SECONDS)
        raise Trouble(f"{self.name} was not up after {BOOT_SECONDS} s (LAB_BOOT_SECONDS); see {self.path('serial.log')}")

    def kill(self):
        """What a power cut does."""
        pid = self.pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        while self.pid():
            time.sleep(0.02)
        return True

    def qmp(self):
        # The path of a socket is short: it may be relative, since names of labs may be long.
        os.chdir(self.lab.dir)
        return Qmp(f"{self.name}/qmp.sock")

    def set_cut(self, net, cut):
        """Frames of that network vanish, both ways and without a sign: nobody sees a cable that is out."""
        try:
            with self.qmp() as qmp:
                if cut:
                    qmp.do("object-add", **{"qom-type": "filter-redirector", "id": f"cut-{net}", "netdev": net,
                                            "queue": "all", "outdev": "hole"})
                else:
                    qmp.do("object-del", id=f"cut-{net}")
        except Refused as why:  # it is as was asked for already
            if not re.search("duplicate|not found", str(why)):
                raise

    # ---- a shell in dom0 ----
    def port(self):
        kept = read(self.path("port")).split()
        pid = self.pid()
        if pid is None:
            raise Trouble(f"{self.name} is not running (lab.sh power-on {self.name})")
        if len(kept) == 2 and kept[0] == str(pid):
            return kept[1]
        with self.qmp() as qmp:
            text = qmp.do("human-monitor-command", **{"command-line": "info usernet"})
        found = re.search(r"TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)", text)
        if not found:
            raise Trouble(f"{self.name}: QEMU forwards no port: {text}")
        with open(self.path("port"), "w", encoding="ascii") as file:
            file.write(f"{pid} {found.group(1)}\n")
        return found.group(1)

    def ssh(self):
        """Words of the command; one connection is kept and shared, a handshake is dear under emulation."""
        return ["ssh", "-F", "none", "-i", "key", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=60",
                "-o", "ServerAliveInterval=30", "-o", "ControlMaster=auto", "-o", "ControlPersist=600",
                "-o", f"ControlPath={self.name}/ssh.sock", "-c", "chacha20-poly1305@openssh.com",
                "-p", self.port(), "root@127.0.0.1"]

    def sh(self, command, **how):
        """As subprocess.run; `command` is for the shell there."""
        return subprocess.run([*self.ssh(), command], cwd=self.lab.dir, check=False, **how)

    def must(self, command, what=""):
        done = self.sh(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Trouble(f"{self.name}: {what or command}: exit {done.returncode}: "
                          f"{(done.stdout + done.stderr).strip()[-1500:]}")
        return done.stdout

    def put(self, source, target):
        with open(source, "rb") as file:
            done = self.sh(f"cat > {shlex.quote(target)} && chmod {os.stat(source).st_mode & 0o777:o} "
                           f"{shlex.quote(target)}", stdin=file)
        return done.returncode

    def get(self, source, target):
        with open(target, "wb") as file:
            return self.sh(f"cat {shlex.quote(source)}", stdin=subprocess.DEVNULL, stdout=file).returncode
