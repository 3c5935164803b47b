# SPDX-License-Identifier: LGPL-2.1-or-later
"""One fleet of drover-sim: made, asked, and looked at from outside."""
import glob
import json
import os
import re
import signal
import subprocess
import time

from network import COORDINATOR

POOLS = {"a1": "A", "a2": "A", "b1": "B", "b2": "B"}
SRS = ("local", "qcow")
SR_BYTES = 96 << 20  # of each mount: room for all guests and what is on its way
PORT = 6770
COMMAND_SECONDS = 15  # of a command whose coordinator may be stopped
POLL_SECONDS = 0.2
UP_SECONDS = 120  # until all agents are connected, on a loaded machine

# Short, so that a round is quick; a suspicion that is wrong costs at most a rollback.
COORDINATOR_CONF = """heartbeat = 200ms
suspect-after = 5
lost-after = 4s
retry = 200ms
retry-max = 1s
checking-deadline = 10s
preparing-deadline = 15s
switching-deadline = 6s
"""
AGENT_CONF = "orphan-grace = 8s\n"


class Failed(Exception):
    """What the fleet must never do; the text says what it did."""


class Fleet:
    def __init__(self, build, home, network, log):
        self.log = log
        self.bin = os.path.join(build, "bin")
        self.home = home
        self.network = network
        self.hosts = list(POOLS)
        self.coordinator = os.path.join(home, "coordinator")

    # ---- commands ----
    def program(self, *words, seconds=COMMAND_SECONDS):
        """Exit status, standard output, standard error; status None: it took too long."""
        try:
            done = subprocess.run([os.path.join(self.bin, words[0]), *words[1:]], capture_output=True, text=True,
                                  timeout=seconds)
            return done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            return None, "", "took too long"

    def sim(self, *words, seconds=60):
        return self.program("drover-sim", *words, "--home", self.home, seconds=seconds)

    def drover(self, *words, seconds=COMMAND_SECONDS):
        return self.program("drover", "--home", self.coordinator, *words, seconds=seconds)

    def ask(self, name, *words):
        """The list of that name, or None if the coordinator does not answer."""
        status, out, _ = self.drover(*words, "--json")
        try:
            return json.loads(out)[name] if status == 0 else None
        except (ValueError, KeyError):
            return None

    def failure(self, *words, seconds=60):
        """"" if drover-sim does it without a complaint, else what it says."""
        status, out, err = self.sim(*words, seconds=seconds)
        return "" if status == 0 and not err else f"drover-sim {' '.join(words)}: exit {status}: {out}{err}"

    def must(self, *words):
        failure = self.failure(*words)
        if failure:
            raise Failed(failure)

    # ---- made and ended ----
    def make(self, exporters):
        """Its directories, as drover-sim makes them, and the configuration of here. It is not started yet."""
        hosts = ",".join(f"{host}@{pool}" for host, pool in POOLS.items())
        self.within(UP_SECONDS, "the fleet does not come up", lambda: self.failure("up", "--hosts", hosts))
        self.must("down")
        endpoint = r"tcp://[0-9.]+:[0-9]+"
        address = self.network.address(COORDINATOR) if self.network else "127.0.0.1"
        here = f"tcp://{address}:{PORT}" if self.network else None
        conf = os.path.join(self.coordinator, "etc")
        self.edit(os.path.join(self.home, "fleet.json"), endpoint, here)
        self.edit(os.path.join(conf, "client.conf"), endpoint, here)
        self.edit(os.path.join(conf, "coordinator.conf"), endpoint, here, COORDINATOR_CONF)
        for host in self.hosts:
            conf = os.path.join(self.home, host, "etc")
            agent = os.path.join(conf, "agent.conf")
            self.edit(agent, endpoint, here)
            self.edit(agent, r"(?m)^exporter = .*\n", f"exporter = {exporters[host]}\n" + AGENT_CONF)
            if self.network:
                self.edit(agent, r'(?m)^data-address = .*', f'data-address = "{self.network.address(host)}"')
                with open(os.path.join(conf, "launcher"), "w", encoding="utf-8") as file:
                    file.write(self.network.launcher(host) + "\n")
                for sr in SRS:
                    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SR_BYTES}", "tmpfs", self.sr(host, sr)], check=True)

    @staticmethod
    def edit(path, pattern, replacement, more=""):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if replacement is not None:
            text = re.sub(pattern, lambda _: replacement, text)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + more)

    def end(self):
        """In order. kill_all() is for what that leaves."""
        self.must("down")

    # ---- looked at ----
    def sr(self, host, name):
        return os.path.join(self.home, host, "sr", name)

    def run_files(self, home, pattern):
        return sorted(glob.glob(os.path.join(self.home, home, "run", pattern)))

    def pids(self, home, pattern):
        """Living processes by their pid files: [(name, pid)]."""
        found = []
        for path in self.run_files(home, pattern + ".pid"):
            try:
                with open(path, encoding="utf-8") as file:
                    pid = int(file.read())
            except (OSError, ValueError):
                continue
            if self.belongs(pid, os.path.join(self.home, home)):  # else it is a pid of somebody else by now
                found.append((os.path.basename(path)[:-4], pid))
        return found

    @staticmethod
    def proc(pid, what):
        try:
            with open(f"/proc/{pid}/{what}", "rb") as file:
                return file.read()
        except OSError:
            return b""

    def belongs(self, pid, home):
        """Whether command line or environment name something below that directory. A zombie has neither."""
        path = home.encode() + b"/"
        words = self.proc(pid, "cmdline").replace(b"\0", b"/\0")
        return path in words or b"=" + path in self.proc(pid, "environ").replace(b"\0", b"/\0")

    def processes(self):
        """Every process that has to do with the fleet, but ours."""
        pids = [int(os.path.basename(path)) for path in glob.glob("/proc/[0-9]*")]
        return [pid for pid in pids if pid != os.getpid() and self.belongs(pid, self.home)]

    def readers(self, home):
        """The source legs' servers of qcow2 images, which have no pid file: [(name, pid)]."""
        return [("reader", pid) for pid in self.processes()
                if b"qemu-nbd\0--read-only" in self.proc(pid, "cmdline") and self.belongs(pid, os.path.join(self.home, home))]

    def guests(self):
        """{name: (host, state)} as drover-sim sees them."""
        status, out, err = self.sim("list", "--json")
        if status != 0:
            raise Failed(f"drover-sim list: exit {status}: {out}{err}")
        seen = {}
        for vm in json.loads(out)["vms"]:
            seen.setdefault(vm["name"], []).append((vm["host"], vm["state"]))
        return seen

    def under_way(self):
        return self.ask("migrations", "list")

    # ---- waited for ----
    def within(self, seconds, what, check):
        """Until check() has nothing to say any more. Returns how long it took."""
        begin = time.monotonic()
        deadline = begin + seconds
        before = None
        while True:
            wrong = check()
            if not wrong:
                return round(time.monotonic() - begin, 2)
            if wrong != before:
                self.log("waiting", what=what, wrong=wrong)
            before = wrong
            if time.monotonic() > deadline:
                raise Failed(f"{what}: {wrong} (after {seconds} s)")
            time.sleep(POLL_SECONDS)  # the pace of polling

    def start_coordinator(self):
        """As a service manager would."""
        with open(os.path.join(self.coordinator, "run", "coordinator.log"), "ab") as log:
            subprocess.Popen([os.path.join(self.bin, "drover-coordinator"), "--home", self.coordinator],
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def stop_all(self):
        """Everything stands still, to be looked at."""
        for _ in range(3):
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGSTOP)
                except OSError:
                    pass

    def kill_all(self):
        for _ in range(3):
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
        for host in self.hosts if self.network else []:
            for sr in SRS:
                subprocess.run(["umount", "--lazy", self.sr(host, sr)], check=False)
