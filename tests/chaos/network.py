# SPDX-License-Identifier: LGPL-2.1-or-later
"""The hosts' network: a namespace for each, and a switch between them and the coordinator that can cut and delay."""
import os
import subprocess
import sys
import threading

COORDINATOR = "coordinator"  # its port: the namespace that we run in
NETNS = "/run/netns"
SWITCH = "switch"


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Network:
    """Names of hosts are ports. Made once, for all fleets of a run; gone with the namespaces of this process."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.ports = [COORDINATOR, *hosts]
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        os.mkdir(NETNS)
        ip("netns", "add", SWITCH)
        ip("link", "set", "lo", "up")
        for number, name in enumerate(self.ports):
            if name == COORDINATOR:
                ip("link", "add", f"p{number}", "netns", SWITCH, "type", "veth", "peer", "name", "eth0")
                self.configure([], name)
            else:
                ip("netns", "add", name)
                ip("link", "add", f"p{number}", "netns", SWITCH, "type", "veth", "peer", "name", "eth0", "netns", name)
                self.configure(["-n", name], name)
            ip("-n", SWITCH, "link", "set", f"p{number}", "up")
        self.process = subprocess.Popen(
            ["nsenter", f"--net={NETNS}/{SWITCH}", sys.executable, os.path.join(os.path.dirname(__file__), "switch.py"),
             *[f"{name}=p{number}" for number, name in enumerate(self.ports)]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()
        self.heal()

    def configure(self, where, name):
        ip(*where, "link", "set", "lo", "up")
        ip(*where, "addr", "add", self.address(name) + "/24", "dev", "eth0")
        ip(*where, "link", "set", "eth0", "up")

    def address(self, name):
        return f"10.66.0.{self.ports.index(name) + 1}"

    def launcher(self, host):
        return f"nsenter --net={NETNS}/{host}"

    def command(self, line):
        with self.lock:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            if self.process.stdout.readline() != "ok\n":
                raise RuntimeError("the switch has died")

    def link(self, one, other, delay_ms, loss_percent):
        self.command(f"link {one} {other} {delay_ms} {loss_percent}")

    def heal(self):
        self.command("heal")
