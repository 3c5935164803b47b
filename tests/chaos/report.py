# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a run has done, counted."""
import collections
import json
import statistics


class Report:
    def __init__(self, seed):
        self.seed = seed
        self.schedules = 0
        self.rounds = 0
        self.faults = collections.Counter()  # that struck something
        self.missed = collections.Counter()  # that found nothing to strike
        self.aimed = collections.Counter()  # that struck at a moment, by moment
        self.submissions = collections.Counter()  # by exit status
        self.outcomes = collections.Counter()
        self.causes = collections.Counter()
        self.rulings = 0  # by the operator
        self.downtimes = []
        self.failures = []

    def fault(self, fault, struck):
        name = f"{fault.kind} {fault.party}".strip()
        (self.faults if struck else self.missed)[name] += 1
        if struck and fault.moment:
            self.aimed[fault.moment] += 1

    def submitted(self, status):
        self.submissions["no answer" if status is None else f"exit {status}"] += 1

    def migrations(self, records):
        for record in records:
            self.outcomes[record["state"]] += 1
            if record["cause"]:
                self.causes[record["cause"]["code"]] += 1
            if record["state"] == "done" and record["downtime_ms"] is not None:
                self.downtimes.append(record["downtime_ms"])

    def failure(self, name, why, kept):
        self.failures.append({"name": name, "why": why, "kept": kept})

    def downtime(self):
        values = sorted(self.downtimes)
        if not values:
            return {"count": 0}
        return {"count": len(values), "min_ms": values[0], "median_ms": statistics.median(values),
                "p95_ms": values[min(len(values) - 1, int(len(values) * 0.95))], "max_ms": values[-1]}

    def document(self):
        return {"seed": self.seed, "schedules": self.schedules, "rounds": self.rounds, "migrations": dict(self.outcomes),
                "causes": dict(self.causes), "rulings": self.rulings, "submissions": dict(self.submissions), "faults": dict(self.faults),
                "faults_missed": dict(self.missed), "faults_at_moment": dict(self.aimed), "downtime": self.downtime(),
                "failures": self.failures}

    def write(self, path):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.document(), file, indent=1)

    def text(self):
        def line(name, counts):
            return f"# {name}: " + (", ".join(f"{key} {count}" for key, count in sorted(counts.items())) or "none")

        lines = [f"# seed {self.seed}: {self.schedules} schedules, {self.rounds} rounds",
                 line(f"{sum(self.outcomes.values())} migrations", self.outcomes), line("causes", self.causes),
                 f"# {self.rulings} rulings of an operator",
                 line("submissions", self.submissions),
                 line(f"{sum(self.faults.values())} faults", self.faults), line("found nothing to strike", self.missed),
                 line("struck at a moment of a migration", self.aimed), line("downtime of done ones", self.downtime()),
                 f"# failures: {len(self.failures)}"]
        lines += [f"#   {failure['name']}: {failure['why']}\n#     {failure['kept']}" for failure in self.failures]
        return "\n".join(lines)
