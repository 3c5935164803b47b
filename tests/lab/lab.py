# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands of lab.sh."""
import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import guests
from coordinator import Coordinator
from host import HOSTS, MEMORY_MIB, Host, Trouble, cpu_options, kvm, read

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77  # as tests/run.sh takes it
AGENT_SECONDS = 60
NEEDED = ("qemu-system-x86_64", "ssh", "ssh-keygen")


class Skip(Exception):
    """This machine cannot run a lab."""


class Lab:
    def __init__(self):
        self.build = os.path.realpath(os.environ["B"])
        self.cache = os.path.realpath(os.environ.get("LAB_CACHE") or os.path.join(self.build, "lab"))
        self.dir = os.path.realpath(os.environ.get("LAB") or os.path.join(self.build, "lab", "run"))
        self.hosts = [Host(self, name) for name in HOSTS]
        self.coordinator = Coordinator(self)

    def path(self, name):
        return os.path.join(self.dir, name)

    def host(self, name):
        return self.hosts[HOSTS.index(name)]

    def programs(self):
        """Those of drover that a host needs and that have been built."""
        return [name for name in ("drover-agent", "drover-leg-xen", "drover-xen-save-helper", "drover")
                if os.path.exists(os.path.join(self.build, "bin", name))]

    def no_agents(self):
        """Why no agent can run; "" if they can."""
        if "drover-leg-xen" not in self.programs():
            return "there is no drover-leg-xen in this build: hosts run without an agent"
        return ""

    # ---- up and down ----
    def check_machine(self):
        missing = [name for name in NEEDED if shutil.which(name) is None]
        if missing:
            raise Skip(f"{', '.join(missing)} not installed (deploy/deps.sh lab)")
        needed = len(HOSTS) * (MEMORY_MIB + 150)
        there = int(re.search(r"MemAvailable:\s+(\d+)", read("/proc/meminfo")).group(1)) >> 10
        running = sum(1 for host in self.hosts if host.pid())
        if not running and there < needed:
            raise Skip(f"two hosts need {needed} MiB of memory, {there} are available (LAB_MEMORY)")
        with tempfile.TemporaryDirectory() as work:
            pid = os.path.join(work, "pid")
            done = subprocess.run(["qemu-system-x86_64", "-machine", "none", "-accel", "kvm" if kvm() else "tcg", "-display",
                                   "none", "-S", "-daemonize", "-pidfile", pid], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Skip(f"QEMU does not run on this machine: {done.stderr.strip()}")
            os.kill(int(read(pid)), signal.SIGKILL)

    def prepare(self):
        if not os.path.exists(os.path.join(self.cache, "image.key")):
            raise Trouble(f"no image in {self.cache}: `make lab` or `lab.sh build` makes it")
        self.check_machine()
        os.makedirs(self.dir, exist_ok=True)
        if not os.path.exists(self.path("key")):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", self.path("key")], check=True)
        self.coordinator.configure(self.hosts)
        self.coordinator.start()

    def up(self, hosts):
        start = time.monotonic()
        self.prepare()
        for host in hosts:
            if not host.pid():
                say(f"{host.name}: booting ({cpu_options()[1].split(',', maxsplit=1)[0]})")
                host.start()
        for host in hosts:
            host.wait_ready()
            host.must("true")
            say(f"{host.name}: up" + (f" after {time.monotonic() - start:.0f} s" if host.process else ""))
        if self.no_agents():
            say(self.no_agents())
        else:
            self.wait_agents(hosts)

    def wait_agents(self, hosts):
        start = time.monotonic()
        while time.monotonic() - start < AGENT_SECONDS:
            missing = {host.name for host in hosts} - set(self.coordinator.connected())
            if not missing:
                say("agents are connected: " + ", ".join(host.name for host in hosts))
                return
            time.sleep(0.5)
        for host in hosts:
            if host.name in missing:
                words = read(os.path.join(host.share, "log", "agent.log")).strip().splitlines()
                say(f"{host.name}: its agent is not connected; it says: {words[-1] if words else 'nothing'}")

    def down(self, keep):
        for host in self.hosts:
            if host.kill():
                say(f"{host.name}: off")
        self.coordinator.stop()
        if not keep and os.path.exists(self.path("key")):
            # An ssh that sees its host gone takes its socket away at the same time.
            shutil.rmtree(self.dir, onerror=ignore_gone)


def ignore_gone(_function, path, why):
    if not issubclass(why[0], FileNotFoundError):
        raise Trouble(f"cannot remove {path}: {why[1]}")


def say(text):
    print(f"lab: {text}", flush=True)


# ---- commands: each takes the lab and the options, returns an exit status ----
def cmd_build(lab, _):
    if lab.cache != os.path.join(lab.build, "lab"):
        say(f"images are taken from {lab.cache}, and not made here (LAB_CACHE)")
        return 0
    missing = [name for name in ("mmdebstrap", "cpio", "qemu-system-x86_64") if shutil.which(name) is None]
    if missing:
        raise Skip(f"{', '.join(missing)} not installed (deploy/deps.sh lab)")
    return subprocess.run([os.path.join(HERE, "image.sh"), lab.build], check=False).returncode


def cmd_up(lab, options):
    lab.up([lab.host(options.host)] if options.host else lab.hosts)


def cmd_down(lab, options):
    lab.down(options.keep)


def cmd_sh(lab, options):
    words = options.words
    host = lab.host(options.host)
    if not words:
        return subprocess.run([*host.ssh(), "-t", "bash -l"], cwd=lab.dir, check=False).returncode
    return host.sh(words[0] if len(words) == 1 else shlex.join(words)).returncode


def cmd_put(lab, options):
    return lab.host(options.host).put(options.local, options.remote)


def cmd_get(lab, options):
    return lab.host(options.host).get(options.remote, options.local)


def cmd_console(lab, options):
    os.chdir(lab.dir)
    say("Ctrl-] leaves; Enter wakes the shell; Ctrl-A three times goes to Xen and back")
    return subprocess.run(["socat", "STDIO,raw,echo=0,escape=0x1d", f"UNIX-CONNECT:{options.host}/serial.sock"],
                          check=False).returncode


def cmd_power_off(lab, options):
    lab.host(options.host).kill()


def cmd_power_on(lab, options):
    lab.up([lab.host(options.host)])


def cut(lab, what, on):
    for host in lab.hosts:
        if what in ("link", host.name) and host.pid():
            host.set_cut("link" if what == "link" else "control", on)


def cmd_cut(lab, options):
    cut(lab, options.what, True)


def cmd_heal(lab, options):
    for what in [options.what] if options.what else ["link", *HOSTS]:
        cut(lab, what, False)


def cmd_update(lab, _):
    for host in lab.hosts:
        if host.pid():
            host.take_programs()
            # The agent is started again by who supervises it; legs go on.
            host.must("/usr/lib/lab/take; pid=$(cat /run/drover/agent.pid 2>/dev/null) && kill $pid; true")
            say(f"{host.name}: has {', '.join(lab.programs()) or 'nothing of drover'}")


def cmd_guest(lab, options):
    guests.create(lab.host(options.host), options)


def cmd_beats(lab, options):
    found = guests.beats(lab, options.name)
    if options.json:
        print(json.dumps({"beats": found[-options.tail:] if options.tail else found, "faults": guests.faults(found)}))
        return 0
    if options.check:
        wrong = guests.faults(found)
        print("\n".join(wrong) if wrong else f"{len(found)} beats, none missing, nothing wrong")
        return 1 if wrong else 0
    for beat in found[-options.tail:] if options.tail else found:
        print(f"{beat['host']} {beat['stamp']} {beat['beat']} boot={beat['boot']} gap={beat['gap']} max={beat['max']} "
              f"memory={beat['memory']} disk={beat['disk']} failed={beat['failed']} wrote={beat['wrote']}")
    return 0 if found else 1


def cmd_drover(lab, options):
    """`drover` as this lab's operator."""
    program = os.path.join(lab.build, "bin", "drover")
    os.execve(program, [program, *options.words], {**os.environ, "DROVER_HOME": lab.coordinator.home})


def cmd_help(_lab, _options):
    parser().print_help()


def cmd_hints(lab, _):
    program = os.path.relpath(os.path.join(HERE, "lab.sh"))
    print(f"""
Two Xen hosts are up. Try:
  {program} sh xen1 'xl list'                     a command in dom0 (xen1, xen2); without one: a shell
  {program} guest xen1 web1 --disk 64M            a guest with a disk
  {program} beats web1 --tail 5                   what it has said; --check: was anything lost?
  {program} drover host list                      drover as operator; also: export DROVER_HOME={lab.coordinator.home}
  {program} drover migrate web1 --to xen2 --watch
  {program} cut | heal | power-off xen2 | power-on xen2 | update | console xen1 | help
  make lab-down
""")


def cmd_status(lab, _):
    for host in lab.hosts:
        say(f"{host.name}: {'up, QEMU is process ' + str(host.pid()) if host.pid() else 'off'}")
    say(f"coordinator: {'up' if lab.coordinator.pid() else 'off'}, DROVER_HOME={lab.coordinator.home}")


def parser():
    top = argparse.ArgumentParser(prog="lab.sh", description="Two Xen hosts under QEMU.")
    sub = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, text, *words):
        one = sub.add_parser(name, help=text, description=text)
        for word in words:
            one.add_argument(word, **({"choices": HOSTS} if word == "host" else {}))
        return one
    command("build", "make dom0's image and the guest, where they are not there yet")
    command("up", "boot the hosts and the coordinator").add_argument("host", nargs="?", choices=HOSTS)
    command("down", "take all down and remove it").add_argument("--keep", action="store_true", help="leave disks and logs")
    command("status", "what runs")
    command("help", "this")
    command("hints", "a few things to try")
    for name in ("sh", "drover"):
        one = command(name, *(("run a command in a host's dom0", "host") if name == "sh" else ("drover, as operator",)))
        one.add_argument("words", nargs=argparse.REMAINDER)
    command("put", "copy a file into a host", "host", "local", "remote")
    command("get", "copy a file from a host", "host", "remote", "local")
    command("console", "the serial console: Xen and dom0", "host")
    command("power-off", "the host loses its power: what it has not flushed is lost", "host")
    command("power-on", "boot it again", "host")
    command("cut", "lose all frames between the hosts (link), or between a host and the coordinator").add_argument(
        "what", nargs="?", default="link", choices=("link", *HOSTS))
    command("heal", "the opposite of cut; without a word: of every cut").add_argument("what", nargs="?",
                                                                                     choices=("link", *HOSTS))
    command("update", "rebuilt programs into running hosts; agents are started again")
    guest = command("guest", "make a guest", "host", "name")
    guest.add_argument("--disk", action="append", default=[], metavar="SIZE", help="of a disk, as 64M; more than once: more disks")
    guest.add_argument("--format", choices=guests.HOME, default="raw")
    guest.add_argument("--type", choices=("pvh", "pv"), default="pvh")
    guest.add_argument("--vif", action="store_true", help="with a network interface in xenbr0")
    guest.add_argument("--uuid")
    for name, value, text in (("memory", 128, "MiB of the guest"), ("vcpus", 1, "processors"),
                              ("work", 16, "MiB of memory it works on"), ("dirty", 0, "KiB/s of memory it writes"),
                              ("write", 64, "KiB/s it writes to each disk"), ("span", 32, "MiB of each disk it uses; 0: all"),
                              ("period", 1000, "milliseconds of a beat")):
        guest.add_argument("--" + name, type=int, default=value, metavar="N", help=f"{text} (default {value})")
    one = command("beats", "what a guest has said, on both hosts, by beat", "name")
    one.add_argument("--check", action="store_true", help="say what is wrong instead; exit 1 if something is")
    one.add_argument("--json", action="store_true")
    one.add_argument("--tail", type=int, metavar="N", help="only the last N")
    return top


def main():
    options = parser().parse_args()
    try:
        status = globals()["cmd_" + options.command.replace("-", "_")](Lab(), options) or 0
        sys.stdout.flush()
        return status
    except Skip as why:
        print(f"skip - lab: {why}")
        return SKIPPED
    except BrokenPipeError:  # who read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Trouble, OSError, subprocess.SubprocessError) as why:
        print(f"lab: {why}", file=sys.stderr)
        return 1


sys.exit(main())
