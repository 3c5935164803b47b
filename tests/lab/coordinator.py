# SPDX-License-Identifier: LGPL-2.1-or-later
"""The coordinator on this machine, and keys and configurations of the agents."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time

from host import COORDINATOR, Trouble, read

UP_SECONDS = 20
# Emulated hosts take minutes for what others do in a second.
PATIENCE = "checking-deadline = 5m\npreparing-deadline = 5m\nswitching-deadline = 5m\nlost-after = 5m\n"
POLL_SECONDS = 0.1


class Coordinator:
    def __init__(self, lab):
        self.lab = lab
        self.home = lab.path("coordinator")
        self.etc = os.path.join(self.home, "etc")

    def program(self, *words):
        return subprocess.run([os.path.join(self.lab.build, "bin", words[0]), *words[1:]], capture_output=True, text=True,
                              check=False, env={**os.environ, "DROVER_HOME": self.home})

    def must(self, *words):
        done = self.program(*words)
        if done.returncode != 0:
            raise Trouble(f"{' '.join(words)}: exit {done.returncode}: {(done.stdout + done.stderr).strip()}")
        return done.stdout

    def pid(self):
        text = read(os.path.join(self.home, "run", "coordinator.pid")).strip()
        alive = text and f"--home={self.home}" in read(f"/proc/{text}/cmdline").split("\0")
        return int(text) if alive else None

    # ---- keys and configurations: once ----
    def configure(self, hosts):
        if not os.path.exists(os.path.join(self.etc, "client.conf")):
            self.must("drover", "key", "generate", "coordinator", "--role", "coordinator")
            self.must("drover", "key", "generate", "operator", "--role", "operator")
            self.must("drover", "key", "authorize", os.path.join(self.etc, "keys", "operator.cert"))
            for host in hosts:
                self.must("drover", "key", "generate", host.name, "--role", "agent", "--host", host.name)
                self.must("drover", "key", "authorize", os.path.join(self.etc, "keys", f"{host.name}.cert"))
            with socket.socket() as probe:  # somebody may take it before the coordinator does: then `up` says so
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            self.write("coordinator.conf", f'listen = "tcp://127.0.0.1:{port}"\n'
                       f'key = "{self.etc}/keys/coordinator.cert_secret"\n{PATIENCE}')
            self.write("client.conf", f'coordinator = "tcp://127.0.0.1:{port}"\n'
                       f'server-key = "{self.etc}/keys/coordinator.cert"\nkey = "{self.etc}/keys/operator.cert_secret"\n')
        port = read(os.path.join(self.etc, "coordinator.conf")).split(":")[2].split('"')[0]
        for host in hosts:
            self.configure_agent(host, port)

    def write(self, name, text):
        with open(os.path.join(self.etc, name), "w", encoding="ascii") as file:
            file.write(text)

    def configure_agent(self, host, port):
        etc = os.path.join(host.share, "etc")
        os.makedirs(os.path.join(etc, "keys"), exist_ok=True)
        keys = os.path.join(self.etc, "keys")
        shutil.copy(os.path.join(keys, f"{host.name}.cert_secret"), os.path.join(etc, "keys", "agent.cert_secret"))
        shutil.copy(os.path.join(keys, f"{host.name}.cert"), os.path.join(etc, "keys", "agent.cert"))
        shutil.copy(os.path.join(keys, "coordinator.cert"), os.path.join(etc, "coordinator.cert"))
        with open(os.path.join(etc, "agent.conf"), "w", encoding="ascii") as file:
            file.write(f'host = "{host.name}"\npool = "lab{host.number}"\nhypervisor = "xen"\n'
                       f'coordinator = "tcp://{COORDINATOR}:{port}"\ndata-address = "{host.address}"\n'
                       'networks = {"xenbr0"}\n'
                       'sr local {\n\ttype = dir\n\tpath = "/srv/vm"\n\tformat = raw\n}\n'
                       'sr qcow {\n\ttype = dir\n\tpath = "/srv/qcow"\n\tformat = qcow2\n}\n')

    # ---- the process ----
    def start(self):
        if self.pid():
            return
        os.makedirs(os.path.join(self.home, "run"), exist_ok=True)
        log = os.path.join(self.home, "run", "coordinator.log")
        with open(log, "ab") as out:
            process = subprocess.Popen([os.path.join(self.lab.build, "bin", "drover-coordinator"), f"--home={self.home}"],
                                       cwd=self.lab.dir, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       start_new_session=True)
        start = time.monotonic()
        while self.program("drover", "status").returncode != 0:
            if process.poll() is not None or time.monotonic() - start > UP_SECONDS:
                raise Trouble(f"the coordinator does not come up: {read(log).strip()[-500:]}")
            time.sleep(POLL_SECONDS)

    def stop(self):
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        start = time.monotonic()
        while self.pid():
            if time.monotonic() - start > UP_SECONDS:
                os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def connected(self):
        """Names of hosts whose agents are connected."""
        done = self.program("drover", "host", "list", "--json")
        if done.returncode != 0:
            return []
        return [host["name"] for host in json.loads(done.stdout)["hosts"] if host.get("state") == "connected"]
