# SPDX-License-Identifier: LGPL-2.1-or-later
"""A switch in user space between the network namespaces of a fleet's hosts, which cuts, delays and loses on demand.

Run in the namespace that has the hosts' ends of the links: switch.py PORT=INTERFACE... Commands on standard input, a line
each, done when the line "ok" is printed:
    link A B DELAY_MS LOSS_PERCENT    both ways between the ports A and B; 100 percent is a cut
    heal                              all links are as at the beginning
Frames go through with their virtio header, so that checksums and segments that are not computed yet stay as they are.
"""
import heapq
import random
import selectors
import socket
import sys
import time

SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3
VNET_BYTES = 10
FRAME_BYTES = 1 << 17  # a segment of 64 KiB with its headers fits
QUEUE_FRAMES = 4096  # that are delayed at a time; more are lost, as in any switch
BATCH = 64  # frames of one port before the others have their turn
BROADCAST = b"\xff" * 6


class Switch:
    def __init__(self, ports):
        self.names = list(ports)
        self.sockets = {}
        self.where = {}  # MAC address: port
        self.links = {}  # (port, port): (delay in seconds, loss from 0 to 1)
        self.late = []  # heap of (when, number, port, frame)
        self.number = 0
        self.random = random.Random(0)
        for name, interface in ports.items():
            port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            port.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            port.bind((interface, ETH_P_ALL))
            port.setblocking(False)
            self.sockets[name] = port

    def command(self, line):
        words = line.split()
        if words[0] == "heal":
            self.links.clear()
        elif words[0] == "link":
            delay, loss = float(words[3]) / 1000, float(words[4]) / 100
            self.links[words[1], words[2]] = self.links[words[2], words[1]] = delay, loss
        else:
            raise ValueError(line)
        print("ok", flush=True)

    def send(self, port, frame):
        try:
            self.sockets[port].send(frame)
        except OSError:
            pass  # no room, or the link is down: lost

    def forward(self, source, frame):
        target, sender = frame[VNET_BYTES : VNET_BYTES + 6], frame[VNET_BYTES + 6 : VNET_BYTES + 12]
        self.where[sender] = source
        known = self.where.get(target)
        for port in [known] if known is not None else self.names:
            if port == source:
                continue
            delay, loss = self.links.get((source, port), (0, 0))
            if loss > 0 and self.random.random() < loss:
                continue
            if delay == 0:
                self.send(port, frame)
            elif len(self.late) < QUEUE_FRAMES:
                self.number += 1
                heapq.heappush(self.late, (time.monotonic() + delay, self.number, port, frame))

    def receive(self, port):
        for _ in range(BATCH):
            try:
                frame = self.sockets[port].recv(FRAME_BYTES)
            except OSError:
                return
            if len(frame) > VNET_BYTES + 12:
                self.forward(port, frame)

    def run(self):
        selector = selectors.DefaultSelector()
        for name, port in self.sockets.items():
            selector.register(port, selectors.EVENT_READ, name)
        selector.register(sys.stdin, selectors.EVENT_READ, None)
        while True:
            pause = max(0, self.late[0][0] - time.monotonic()) if self.late else None
            for key, _ in selector.select(pause):
                if key.data is not None:
                    self.receive(key.data)
                    continue
                line = sys.stdin.readline()
                if not line:
                    return
                self.command(line)
            while self.late and self.late[0][0] <= time.monotonic():
                _, _, port, frame = heapq.heappop(self.late)
                self.send(port, frame)


Switch(dict(word.split("=", 1) for word in sys.argv[1:])).run()
