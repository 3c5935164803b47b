# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's control socket."""
import json
import socket

SECONDS = 20


class Refused(Exception):
    """QEMU's answer to a command was an error."""


class Qmp:
    """One connection: `with Qmp(path) as qmp: qmp.do("stop")`."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.lines.readline()  # the greeting
        self.do("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def do(self, command, **arguments):
        question = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(question).encode() + b"\n")
        for line in self.lines:
            answer = json.loads(line)
            if "error" in answer:
                raise Refused(f"{command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]
        raise Refused(f"{command}: QEMU has ended")
