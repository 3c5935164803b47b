# SPDX-License-Identifier: LGPL-2.1-or-later
"""Faults, as they are done to a fleet and healed again. Each is tried once; one that finds nothing to strike is a miss."""
import collections
import os
import re
import signal
import threading
import time

from fleet import SRS
from network import COORDINATOR

LOOK_SECONDS = 0.004  # between two looks for a moment
FILLER = "filler-"  # and a number: files that fill a storage repository
DELAY_MS = (5, 250)
LOSS_PERCENT = (1, 25)
PATTERNS = {"agent": "agent", "leg": "leg-*", "exporter": "export-*", "reader": None, "guest": "guest-*", "backend": "backend-*"}


class Struck:
    """What a round has done, for those who judge it: whose end was meant."""

    def __init__(self):
        self.guests = set()  # killed, or their backends
        self.off = set()  # hosts whose power was off
        self.daemons = set()  # homes whose daemon was killed or ended
        self.power = collections.defaultdict(threading.Lock)  # of a host: nobody switches it on while somebody switches it off


class Strike(threading.Thread):
    """One fault: waits for its time or its moment, strikes, heals when its time is over or the round is."""

    def __init__(self, fleet, fault, start, over, struck, log):
        super().__init__(daemon=True)
        self.fleet, self.fault, self.start_at, self.over, self.struck, self.log = fleet, fault, start, over, struck, log
        self.result = None  # what was struck; None: nothing
        self.error = None

    def run(self):
        try:
            self.strike()
        except Exception as why:  # a fault of the harness: the round must not go on as if nothing were
            self.error = why

    def strike(self):
        fault = self.fault
        if self.over.wait(max(0, self.start_at + fault.at - time.monotonic())):
            return
        aim = None
        if fault.moment:
            aim = self.wait_for_moment()
            if aim is None:
                return
        if fault.party == "coordinator":
            host = COORDINATOR
        else:
            host = aim[0] if aim and aim[0] else fault.host
        done = getattr(self, fault.kind.replace("-", "_"))(host, aim)
        if done is None:
            return
        self.result, heal = done
        self.log("fault", kind=fault.kind, party=fault.party, what=self.result, moment=fault.moment, lasts=fault.seconds)
        if heal is not None:
            self.over.wait(fault.seconds)
            heal()
            self.log("healed", kind=fault.kind, what=self.result)

    # ---- moments ----
    def wait_for_moment(self):
        """(host, other host, migration) of a migration in which the moment has come; None when the round is over."""
        pattern = re.compile(self.fault.moment)
        seen = {}
        for host in self.fleet.hosts:
            for path in self.fleet.run_files(host, "leg-*.log"):
                seen[path] = os.path.getsize(path)
        while not self.over.is_set():
            for host in self.fleet.hosts:
                for path in self.fleet.run_files(host, "leg-*.log"):
                    if self.has_come(path, seen, pattern):
                        time.sleep(self.fault.late)  # how long after the moment it strikes, as drawn
                        return self.parts(path, host)
            self.over.wait(LOOK_SECONDS)
        return None

    @staticmethod
    def has_come(path, seen, pattern):
        try:
            size = os.path.getsize(path)
            before = seen.get(path, 0)
            if size <= before:
                return False
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(before)
                text = file.read()
        except OSError:
            return False
        seen[path] = size
        return pattern.search(text) is not None

    def parts(self, path, host):
        """Either side of the migration that the log is of, by the drawn number."""
        name = os.path.basename(path)[:-4]
        others = [h for h in self.fleet.hosts if h != host and self.fleet.run_files(h, name + ".log")]
        other = others[-1] if others else None
        sides = [host, other] if self.fault.pick < 0.5 or other is None else [other, host]
        return sides[0], sides[1], name[len("leg-"):]

    # ---- processes ----
    def victim(self, host, aim):
        """(home, name, pid)."""
        if self.fault.party == "coordinator":
            found = [(COORDINATOR, name, pid) for name, pid in self.fleet.pids(COORDINATOR, COORDINATOR)]
        else:
            pattern = PATTERNS[self.fault.party]
            homes = [host] if aim else [host, *[h for h in self.fleet.hosts if h != host]]
            found = []
            for home in homes:
                names = self.fleet.readers(home) if pattern is None else self.fleet.pids(home, pattern)
                if aim and self.fault.party in ("leg", "exporter"):
                    names = [(name, pid) for name, pid in names if re.search(rf"-{aim[2]}(-|$)", name)]
                found = [(home, name, pid) for name, pid in names]
                if found:
                    break
        return found[int(self.fault.pick * len(found))] if found else None

    def note(self, home, name):
        if name.startswith(("guest-", "backend-")):
            self.struck.guests.add(name.split("-", 1)[1])
        if name in ("agent", COORDINATOR):
            self.struck.daemons.add(home)

    def send(self, victim, number):
        try:
            os.kill(victim[2], number)
            return True
        except OSError:
            return False

    def kill(self, host, aim, number=signal.SIGKILL):
        victim = self.victim(host, aim)
        if victim is None:
            return None
        home, name, _ = victim
        self.note(home, name)
        if not self.send(victim, number):
            return None
        heal = None
        if name == COORDINATOR:
            heal = self.fleet.start_coordinator
        elif name == "agent":
            def heal():
                self.power_on(home)
        return f"{home}/{name}", heal

    def restart(self, host, aim):
        return self.kill(host, aim, signal.SIGTERM)

    def stop(self, host, aim):
        victim = self.victim(host, aim)
        if victim is None or not self.send(victim, signal.SIGSTOP):
            return None
        return f"{victim[0]}/{victim[1]}", lambda: self.send(victim, signal.SIGCONT)

    # ---- hosts and links ----
    def power(self, host, aim):
        self.struck.off.add(host)
        with self.struck.power[host]:
            status, out, err = self.fleet.sim("power-off", host)
        if status != 0 or err:
            raise RuntimeError(f"power-off {host}: exit {status}: {out}{err}")
        return host, lambda: self.power_on(host)

    def power_on(self, host):
        """Starts its agent and its guests. May fail while it cannot be reached: the end of the round sees to it."""
        with self.struck.power[host]:
            self.fleet.sim("power-on", host)

    def link(self, pairs, delay_ms, loss_percent):
        for one, other in pairs:
            self.fleet.network.link(one, other, delay_ms, loss_percent)
        what = " ".join(f"{one}-{other}" for one, other in pairs)

        def heal():
            for one, other in pairs:
                self.fleet.network.link(one, other, 0, 0)
        return f"{what} delay={delay_ms}ms loss={loss_percent}%", heal

    def around(self, host):
        return [(host, port) for port in self.fleet.network.ports if port != host]

    def pair(self, host, aim):
        other = aim[1] if aim and aim[1] else self.fault.other
        return [(host, other if other != host else COORDINATOR)]

    def cut_host(self, host, aim):
        return self.link(self.around(host), 0, 100)

    def cut_pair(self, host, aim):
        return self.link(self.pair(host, aim), 0, 100)

    def cut_control(self, host, aim):
        return self.link([(host, COORDINATOR)], 0, 100)

    def delay(self, host, aim):
        low, high = DELAY_MS
        return self.link(self.around(host), round(low + self.fault.amount ** 2 * (high - low)), 0)

    def loss(self, host, aim):
        low, high = LOSS_PERCENT
        return self.link(self.around(host), 0, round(low + self.fault.amount ** 2 * (high - low)))

    def full(self, host, aim):
        path = os.path.join(self.fleet.sr(host, SRS[int(self.fault.pick * len(SRS))]), f"{FILLER}{id(self)}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        block, written = b"\1" * (1 << 20), 0
        try:
            while block:
                try:
                    written += os.write(fd, block)
                except OSError:
                    block = block[: len(block) // 2] if len(block) > 4096 else b""
        finally:
            os.close(fd)

        def heal():
            os.unlink(path)
        return f"{host}/{os.path.basename(os.path.dirname(path))} {written >> 20} MiB", heal

    # ---- commands ----
    def cancel(self, host, aim):
        if aim:
            number = aim[2]
        else:
            active = self.fleet.under_way()
            if not active:
                return None
            number = str(active[int(self.fault.pick * len(active))]["id"])
        status, _, _ = self.fleet.drover("cancel", number)
        return f"migration {number}: exit {status}", None
