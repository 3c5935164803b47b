# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is going to happen in a round: drawn from the seed alone, so that the same seed draws the same again."""
import random
from dataclasses import dataclass, field

WINDOW_SECONDS = 10.0  # in which faults and submissions of a round begin
FAULTS = (1, 2, 4, 6, 8, 10, 12, 16)  # how many a round may have, at equal odds
SUBMISSIONS = (8, 16)
AIMED = 0.7  # of the faults wait for a moment of a migration, and hit one that takes part in it
PAIRED = 0.4  # of these wait for the same one as the fault before
LONG = 0.15  # of the faults last longer than anybody's patience (lost-after, the links' silence)

# Who can be killed or stopped, and how often it is drawn.
PARTIES = {"coordinator": 4, "agent": 4, "leg": 5, "exporter": 3, "reader": 1, "guest": 1, "backend": 1}
# All kinds, and how often they are drawn. kill and stop draw a party as well.
KINDS = {"kill": 8, "stop": 6, "restart": 3, "power": 3, "cut-host": 3, "cut-pair": 3, "cut-control": 3, "delay": 3, "loss": 2,
         "full": 2, "cancel": 5}
LINK_KINDS = ("cut-host", "cut-pair", "cut-control", "delay", "loss")
MOUNT_KINDS = ("full",)
# What a leg has just logged when an aimed fault strikes.
MOMENTS = ("step=prepare", "event=prepared", "phase=copying", "of=disks pass=0", "event=pass .*of=memory", "phase=switching",
           "event=memory-sent", "event=complete", "side=destination vote=commit", "side=source vote=commit", "vote=abort",
           "fact=activating", "event=running", "step=release", "event=rolled-back", "fact=renounced")


@dataclass
class Fault:
    at: float  # seconds from the beginning of the round
    kind: str
    party: str  # of kill, stop and restart; else ""
    host: str  # the one that it strikes, unless it is aimed
    other: str  # the second one of a pair
    seconds: float  # until it is healed; the end of the round heals it in any case
    pick: float  # from 0 to 1: which of several processes or migrations
    moment: str  # of an aimed one; "" for the others
    late: float  # seconds after the moment
    amount: float  # from 0 to 1: how much delay or loss


@dataclass
class Submission:
    at: float
    guests: list  # in the order of preference: the first that is not under way already
    pick: float  # which of the other hosts
    options: list = field(default_factory=list)


@dataclass
class Round:
    faults: list
    submissions: list


@dataclass
class Shape:
    """Of a fleet: guests and exporters."""
    exporters: dict
    guests: list  # (name, host, options of create)


def weighted(draw, table):
    return draw.choices(list(table), weights=list(table.values()))[0]


def shape(seed, schedule, hosts, guests):
    draw = random.Random(f"{seed}/{schedule}/shape")
    made = []
    for number in range(guests):
        disks = [f"--disk=xvd{'abc'[disk]}={draw.choice((2, 4))}M@{draw.choice(('local', 'qcow'))}"
                 for disk in range(draw.choice((1, 1, 2)))]
        made.append((f"g{number}", draw.choice(hosts),
                     ["--memory", draw.choice(("4M", "8M")), "--tick", "20ms", "--fill", "100",
                      "--dirty", draw.choice(("128K/s", "512K/s", "1M/s")),
                      "--disk-write", draw.choice(("32K/s", "128K/s")), *disks]))
    return Shape({host: draw.choice(("nbd", "iscsi")) for host in hosts}, made)


def draw_fault(draw, hosts, kinds):
    kind = weighted(draw, kinds)
    party = {"kill": weighted(draw, PARTIES), "stop": weighted(draw, PARTIES),
             "restart": draw.choice(("coordinator", "agent"))}.get(kind, "")
    host, other = draw.sample(hosts, 2)
    aimed = draw.random() < AIMED
    return Fault(at=round(draw.uniform(0, WINDOW_SECONDS), 2), kind=kind, party=party, host=host, other=other,
                 seconds=round(draw.uniform(5, 14) if draw.random() < LONG else draw.uniform(0.2, 3), 2),
                 pick=draw.random(), moment=draw.choice(MOMENTS) if aimed else "",
                 late=draw.choice((0, 0, 0.002, 0.01, 0.05)), amount=draw.random())


def draw_submission(draw, guests):
    options = ["--keep-source", draw.choice(("0s", "0s", "0s", "2s")), "--on-slow",
               draw.choice(("wait", "throttle", "force", "force", "force", "force", "force", "abort"))]
    bandwidth = draw.choice(("", "4M/s", "8M/s"))
    downtime = draw.choice(("", "", "10ms", "1s"))
    change = draw.choice(("", "", "local=qcow", "qcow=local"))
    options += ["--bandwidth", bandwidth] if bandwidth else []
    options += ["--max-downtime", downtime] if downtime else []
    options += ["--storage-map", change] if change else []
    options += ["--timeout", "12s"]
    return Submission(at=round(draw.uniform(0, WINDOW_SECONDS), 2), guests=draw.sample(guests, len(guests)), pick=draw.random(),
                      options=options)


def draw_round(seed, schedule, number, hosts, guests, kinds):
    draw = random.Random(f"{seed}/{schedule}/{number}")
    faults = [draw_fault(draw, hosts, kinds) for _ in range(draw.choice(FAULTS))]
    for before, fault in zip(faults, faults[1:]):
        if before.moment and fault.moment and draw.random() < PAIRED:
            fault.at, fault.moment = before.at, before.moment
    submissions = [draw_submission(draw, guests) for _ in range(draw.randint(*SUBMISSIONS))]
    return Round(sorted(faults, key=lambda f: f.at), sorted(submissions, key=lambda s: s.at))
