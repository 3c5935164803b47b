# SPDX-License-Identifier: LGPL-2.1-or-later
"""Chaos with real processes: schedules (a fleet each) of rounds with faults under load; see README.md. Started by chaos.sh."""
import argparse
import fcntl
import glob
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import plan
from faults import Strike, Struck
from fleet import POOLS, UP_SECONDS, Failed, Fleet
from network import COORDINATOR, Network
from report import Report

GUESTS = 6
ROUNDS = 10  # of one fleet: its ledgers grow, and verify reads them all
KEPT_MAX = 5  # homes of failed rounds that are kept
# Bounds of waiting, far above what is ever needed: passing one means that something is stuck for good.
FINAL_SECONDS = 240  # a hung peer is waited for up to a minute in several places
EMPTY_SECONDS = 120
VERIFY_SECONDS = 300  # it waits for a flush of each guest, one after the other
STRIKE_SECONDS = 120
HOMES = "drover-chaos."


class Log:
    """A line of JSON for everything that is done, so that a failure can be read and a schedule compared."""

    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")
        self.lock = threading.Lock()
        self.begin = time.monotonic()
        self.where = {}

    def __call__(self, event, **more):
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
        line = json.dumps({"at": stamp, "seconds": round(time.monotonic() - self.begin, 3), **self.where, "event": event, **more})
        with self.lock:
            self.file.write(line + "\n")
            self.file.flush()


class Load(threading.Thread):
    """Submits what the plan says when it says so; what is refused is refused."""

    def __init__(self, fleet, submissions, name, over, report):
        super().__init__(daemon=True)
        self.fleet, self.submissions, self.over, self.report = fleet, submissions, over, report
        self.key = name
        self.begin = time.monotonic()

    def run(self):
        for number, what in enumerate(self.submissions):
            if self.over.wait(max(0, self.begin + what.at - time.monotonic())):
                return
            vms = self.fleet.ask("vms", "vm", "list") or []
            busy = {migration["vm"]["name"] for migration in self.fleet.under_way() or []}
            guest = next((name for name in what.guests if name not in busy), what.guests[0])
            here = [vm["host"] for vm in vms if vm["name"] == guest]
            others = [host for host in self.fleet.hosts if host not in here] or self.fleet.hosts
            to = others[int(what.pick * len(others))]
            status, _, _ = self.fleet.drover("--connect-timeout", "1s", "migrate", guest, "--to", to, "--key",
                                             f"{self.key}-{number}", *what.options)
            self.report.submitted(status)


def unlocked_homes():
    """Directories of runs that were killed."""
    for path in glob.glob(os.path.join(tempfile.gettempdir(), HOMES + "*")):
        lock = os.path.join(path, "lock")
        try:
            with open(lock, "w", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


class Chaos:
    def __init__(self, args):
        self.args = args
        self.out = os.path.join(args.build, "chaos")
        shutil.rmtree(self.out, ignore_errors=True)
        os.makedirs(self.out)
        unlocked_homes()
        self.top = tempfile.mkdtemp(prefix=HOMES)
        self.lock = open(os.path.join(self.top, "lock"), "w", encoding="utf-8")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.log = Log(os.path.join(self.out, "log.json"))
        self.report = Report(args.seed)
        self.network = Network(list(POOLS)) if args.namespaces == "yes" else None
        missing = () if self.network else plan.LINK_KINDS + plan.MOUNT_KINDS
        self.kinds = {kind: weight for kind, weight in plan.KINDS.items() if kind not in missing}
        self.deadline = time.monotonic() + args.minutes * 60

    def time_is_left(self):
        return time.monotonic() < self.deadline

    # ---- a round ----
    def disturb(self, fleet, drawn, name):
        """Faults and load until the window is over and all is healed. Returns what was struck."""
        over, struck, start = threading.Event(), Struck(), time.monotonic()
        strikes = [Strike(fleet, fault, start, over, struck, self.log) for fault in drawn.faults]
        load = Load(fleet, drawn.submissions, name, over, self.report)
        for thread in [load, *strikes]:
            thread.start()
        over.wait(plan.WINDOW_SECONDS + 1)
        over.set()
        for thread in [load, *strikes]:
            thread.join(STRIKE_SECONDS)
            if thread.is_alive():
                raise Failed(f"a fault was not healed within {STRIKE_SECONDS} s: {getattr(thread, 'fault', 'load')}")
        for strike in strikes:
            if strike.error is not None:
                raise Failed(f"{strike.fault.kind} could not be done: {strike.error}")
            self.report.fault(strike.fault, strike.result is not None)
        if self.network:
            self.network.heal()
        return struck

    @staticmethod
    def nobody_died_by_itself(fleet, struck):
        for home, name in [(COORDINATOR, COORDINATOR), *[(host, "agent") for host in fleet.hosts]]:
            if home not in struck.daemons and home not in struck.off and not fleet.pids(home, name):
                raise Failed(f"{home}: {name} has died by itself")
        for guest, places in fleet.guests().items():
            for host, state in places:
                if state in ("halted", "failed") and guest not in struck.guests and host not in struck.off:
                    raise Failed(f"guest {guest} on {host} is {state}, and nobody has killed it")
        for host in fleet.hosts:
            for path in fleet.run_files(host, "agent.log"):
                with open(path, encoding="utf-8", errors="replace") as file:
                    crashed = re.search(r"event=leg-ended .* signal=(4|6|7|8|11)\b", file.read())
                if crashed:
                    raise Failed(f"{host}: a leg has crashed: {crashed.group(0)}")

    def rule(self, fleet):
        """The operator's part: a destination that was booted anew after it had begun to run the VM, and a source that still has it
        suspended, wait for a word. It is given for the destination, where the guest may have written more."""
        for migration in fleet.ask("migrations", "list", "--all") or []:
            if migration["state"] != "lost" or migration["facts"]["ruling"]:
                continue
            for ruling in fleet.ask("rulings", "explain", str(migration["id"])) or []:
                if ruling["possible"] and "--owner destination" in ruling["command"]:
                    words = ruling["command"].replace("TEXT", "chaos").split()[1:]
                    status, _, err = fleet.drover(*words)
                    self.log("ruled", migration=migration["id"], status=status, err=err)
                    self.report.rulings += status == 0

    def settle(self, fleet):
        """Everything is healed: all migrations end, nothing is left, every guest runs exactly once. Returns what took how long."""
        def comes_up():
            self.rule(fleet)
            return fleet.failure("up")

        def not_final():
            active = fleet.under_way()
            return "the coordinator does not answer" if active is None else [(m["id"], m["state"]) for m in active]

        def leftovers():
            left = fleet.ask("leftovers", "leftovers")
            if left is None:
                return "the coordinator does not answer"
            return [one for one in left if one["kept_until"] is None]  # the others are there on purpose

        def verify():
            return fleet.failure("verify", seconds=VERIFY_SECONDS)

        def runs_once():
            return {guest: places for guest, places in fleet.guests().items() if [state for _, state in places] != ["running"]}

        return {
            "up": fleet.within(UP_SECONDS, "the fleet does not come up", comes_up),
            "final": fleet.within(FINAL_SECONDS, "migrations do not end", not_final),
            "empty": fleet.within(EMPTY_SECONDS, "leftovers", leftovers),
            "up_again": fleet.within(EMPTY_SECONDS, "the fleet does not come up", comes_up),  # guests that were held back
            "verified": fleet.within(VERIFY_SECONDS, "verify", verify),
            "once": fleet.within(EMPTY_SECONDS, "guests that do not run exactly once", runs_once),
        }

    def round(self, fleet, schedule, number):
        self.log.where = {"schedule": schedule, "round": number}
        drawn = plan.draw_round(self.args.seed, schedule, number, fleet.hosts, [f"g{n}" for n in range(GUESTS)], self.kinds)
        self.log("round", faults=[vars(fault) for fault in drawn.faults])
        struck = self.disturb(fleet, drawn, f"{schedule}-{number}")
        self.nobody_died_by_itself(fleet, struck)
        self.log("settled", seconds_taken=self.settle(fleet))
        self.report.rounds += 1

    # ---- a schedule ----
    def keep(self, fleet, name, why):
        """The home of a fleet that has failed, with what can be asked, to be looked at."""
        self.log("failed", why=why)
        kept = os.path.join(self.out, f"failed-{name}")
        asked = "".join(f"== {' '.join(words)}\n{fleet.drover(*words)[1]}\n"
                        for words in (["list", "--all"], ["host", "list"], ["vm", "list"], ["leftovers"]))
        for migration in fleet.under_way() or []:
            for verb in ("show", "explain"):
                asked += f"== {verb} {migration['id']}\n{fleet.drover(verb, str(migration['id']))[1]}\n"
        asked += f"== drover-sim list\n{fleet.sim('list')[1]}\n"
        fleet.stop_all()
        asked += "== ps\n" + subprocess.run(["ps", "-eo", "pid,ppid,stat,lstart,args"], capture_output=True, text=True, check=False).stdout
        if len(glob.glob(os.path.join(self.out, "failed-*"))) < KEPT_MAX:
            subprocess.run(["cp", "-a", "--sparse=always", fleet.home, kept], check=False)
        else:
            os.mkdir(kept)
        with open(os.path.join(kept, "why"), "w", encoding="utf-8") as file:
            file.write(f"{why}\n{asked}")
        self.report.failure(name, why, kept)
        print(f"# failed: {name}: {why}\n# kept: {kept}", flush=True)

    def schedule(self, number):
        home = os.path.join(self.top, str(number))
        shape = plan.shape(self.args.seed, number, list(POOLS), GUESTS)
        self.log.where = {"schedule": number}
        self.log("fleet", exporters=shape.exporters, guests=shape.guests)
        fleet = Fleet(self.args.build, home, self.network, self.log)
        name = f"{self.args.seed}-{number}"
        try:
            fleet.make(shape.exporters)
            fleet.within(UP_SECONDS, "the fleet does not come up", lambda: fleet.failure("up"))
            with ThreadPoolExecutor() as pool:
                for done in [pool.submit(fleet.must, "create", guest, "--on", host, *options)
                             for guest, host, options in shape.guests]:
                    done.result()
            self.settle(fleet)
            for which in range(self.args.round, ROUNDS):
                if not self.time_is_left():
                    break
                name = f"{self.args.seed}-{number}-{which}"
                self.round(fleet, number, which)
            self.report.migrations(fleet.ask("migrations", "list", "--all") or [])
            fleet.end()
        except Failed as why:
            self.report.migrations(fleet.ask("migrations", "list", "--all") or [])
            self.keep(fleet, name, str(why))
        finally:
            fleet.kill_all()
            shutil.rmtree(home, ignore_errors=True)
        self.report.schedules += 1

    def run(self):
        print(f"# seed {self.args.seed}, {self.args.minutes} minutes, network namespaces: {self.args.namespaces}", flush=True)
        number = self.args.schedule
        try:
            while self.time_is_left():
                self.schedule(number)
                self.report.write(os.path.join(self.out, "report.json"))
                number += 1
        finally:
            shutil.rmtree(self.top, ignore_errors=True)
        print(self.report.text())
        print(f"# report: {os.path.join(self.out, 'report.json')}, log: {os.path.join(self.out, 'log.json')}")
        if self.network is None:
            print("skip - chaos__links_cut_and_disks_full__needs_namespaces")
        print(("not ok" if self.report.failures else "ok") + f" - chaos__seed_{self.args.seed}__one_guest_and_nothing_left")
        return 1 if self.report.failures else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--schedule", type=int, default=0, help="the first one: fleets are numbered from 0")
    parser.add_argument("--round", type=int, default=0, help="the first one of each schedule")
    parser.add_argument("--namespaces", choices=("yes", "no"), default="no")
    return Chaos(parser.parse_args()).run()


sys.exit(main())
