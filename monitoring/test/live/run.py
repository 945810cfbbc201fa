"""The course of the test: a quiet time, the faults, and what became of each alert."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path

from . import guide
from .cluster import Cluster
from .faults import Expected, Fault, Restart, WrongTokens, stages
from .load import Load
from .machine import ControlGroups
from .processes import Failure, say, wait_for
from .receiver import Receiver
from .stack import Stack

# Longest waits. The longest condition is held for 30 minutes, which are one here, after a range of 5.
ARRIVAL_SECONDS = 240
RESOLVED_SECONDS = 120
# DeploymentStarted counts a node as new for 5 minutes of its own clock, which nothing shortens.
LATE_SECONDS = 420
QUIET_SECONDS = 240
CALM_SECONDS = 15
# Who must be told of each severity, whatever else the routes say; and to whom nothing less may come.
MUST = {"critical": "pager", "warning": "team", "info": "quiet-hours"}
ONLY = {"pager": "critical"}
# About the disk of the machine rather than that of the node where no file system could be made for it.
OF_THE_MACHINE = frozenset({"StorageNearCapacity", "DiskWillFill"})


@dataclass
class Outcome:
    """What became of one expected alert."""

    expected: Expected
    fault: Fault
    begun: float = 0.0
    begun_wall: float = 0.0
    ended: float = 0.0
    labels: dict[str, str] = dataclass_field(default_factory=dict)
    arrived: dict[str, float] = dataclass_field(default_factory=dict)
    resolved: dict[str, float] = dataclass_field(default_factory=dict)
    must: set[str] = dataclass_field(default_factory=set)
    skipped: str = ""

    def is_of(self, labels: Mapping[str, str]) -> bool:
        wanted = {"severity": self.expected.severity, **self.expected.labels}
        return labels.get("alertname") in self.expected.names and all(
            labels.get(name) == value for name, value in wanted.items()
        )

    @property
    def is_there(self) -> bool:
        return bool(self.must) and self.must <= self.arrived.keys()

    @property
    def is_resolved(self) -> bool:
        return self.is_there and self.arrived.keys() <= self.resolved.keys()

    def row(self) -> list[str]:
        def after(times: Iterable[float], since: float) -> str:
            return f"{max(times) - since:.0f}"

        name = self.labels.get("alertname", self.expected.title)
        if self.skipped:
            return [
                name,
                self.expected.severity,
                self.fault.text,
                "skipped",
                "",
                f"needs {self.skipped}",
            ]
        arrived = after(self.arrived.values(), self.begun) if self.is_there else "MISSING"
        resolved = after(self.resolved.values(), self.ended) if self.is_resolved else "MISSING"
        receivers = " ".join(sorted(self.arrived))
        return [name, self.expected.severity, self.fault.text, arrived, resolved, receivers]


@dataclass(frozen=True)
class Options:
    only: frozenset[str]
    short: bool
    check_dashboards: bool
    draw: Path | None
    repository: Path


class Run:
    def __init__(
        self,
        options: Options,
        cluster: Cluster,
        load: Load,
        stack: Stack,
        receiver: Receiver,
        groups: ControlGroups,
    ) -> None:
        self._options = options
        self._cluster, self._load, self._stack, self._receiver = cluster, load, stack, receiver
        self._stages = stages(cluster, load, groups, options.short)
        if options.only:
            self._stages = self._chosen(options.only)
        self.outcomes = [
            Outcome(expected, fault) for stage in self._stages for fault in stage for expected in fault.expected
        ]
        self.wrong: list[str] = []

    def _chosen(self, only: frozenset[str]) -> list[list[Fault]]:
        known = {n for stage in self._stages for f in stage for e in f.expected for n in e.names}
        if unknown := only - known:
            raise Failure(f"--only: no fault is for {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
        chosen = [[f for f in stage if any(only & set(e.names) for e in f.expected)] for stage in self._stages]
        return [stage for stage in chosen if stage]

    def course(self) -> None:
        """Everything in its order. What is wrong is in `wrong` and `outcomes`; a Failure ends it early."""
        late: list[Outcome] = []
        for at, stage in enumerate(self._stages):
            if at == 0 and not isinstance(stage[0], Restart):
                self._healthy_day()
            if any(fault.restarts for fault in stage):
                self._resolved(late, LATE_SECONDS)
                late.clear()
            late += self._stage(stage)
            if at == 0 and isinstance(stage[0], Restart):
                self._healthy_day()
        self._resolved(late, LATE_SECONDS)
        if self._options.check_dashboards or self._options.draw:
            self._dashboards()
        self._misdirected()

    def _healthy_day(self) -> None:
        """The guide's commands, and a time in which nothing may be wrong, after a node was stopped and started."""
        if self._options.only:
            return
        if not isinstance(self._stages[0][0], Restart):
            say("the leader is restarted in order")
            Restart(self._cluster, self._load).begin()
        self._quiet()
        say("the guide's commands:")
        self.wrong += guide.check(self._cluster)

    def _quiet(self) -> None:
        """Under load alone, only Watchdog and what is for information may fire."""

        def loud() -> set[str]:
            names = {a["alertname"] for a in self._stack.firing() if a.get("severity") in ("warning", "critical")}
            return names if self._cluster.has_volumes else names - OF_THE_MACHINE

        # A second of the restart just before counts as half a minute of one. What it leaves in the shortened windows of
        # ten seconds may still fire.
        calm_since = time.monotonic()

        def calm() -> bool:
            nonlocal calm_since
            if loud():
                calm_since = time.monotonic()
            return time.monotonic() - calm_since >= CALM_SECONDS

        wait_for("the alerts of the start have ended", QUIET_SECONDS, calm)
        seconds = 20 if self._options.short else 60
        say(f"{seconds} s in which nothing but Watchdog and information may fire")
        until = time.monotonic() + seconds
        found: set[str] = set()
        while time.monotonic() < until:
            found |= loud()
            time.sleep(0.5)
        if found:
            self.wrong.append(f"under load alone there fires {', '.join(sorted(found))}")
        if "Watchdog" in self._stack.alerts:
            there = any(n.alert == "Watchdog" and n.firing for n in self._receiver.notices())
            if not there:
                self.wrong.append("Watchdog does not arrive")

    def _stage(self, stage: list[Fault]) -> list[Outcome]:
        """Breaks, waits for the alerts, mends, waits until they are resolved. Those that resolve late are returned."""
        running: list[tuple[Fault, list[Outcome]]] = []
        for fault in stage:
            outcomes = [outcome for outcome in self.outcomes if outcome.fault is fault]
            if missing := fault.missing():
                say(f"skipped: {fault.text}: needs {missing}")
                for outcome in outcomes:
                    outcome.skipped = missing
            else:
                running.append((fault, outcomes))
        for fault, outcomes in running:
            # What is new is told from what still fires. A deployment is in progress since the nodes were started.
            if not fault.resolves_late:
                self._wait_inactive(fault, outcomes)
        open_faults: list[tuple[Fault, list[Outcome]]] = []
        try:
            for fault, outcomes in running:
                say(f"fault: {fault.text}")
                begun, begun_wall = time.monotonic(), time.time()
                if fault.resolves_late:
                    # It goes on since the nodes were started.
                    begun, begun_wall = self._cluster.started, begun_wall - (begun - self._cluster.started)
                for outcome in outcomes:
                    outcome.begun, outcome.begun_wall = begun, begun_wall
                fault.begin()
                open_faults.append((fault, outcomes))
            self._arrivals(open_faults)
        finally:
            for fault, _ in open_faults:
                fault.end()
        done = [outcome for _, outcomes in running for outcome in outcomes]
        late = [outcome for outcome in done if outcome.fault.resolves_late]
        self._resolved([outcome for outcome in done if outcome not in late], RESOLVED_SECONDS)
        for fault, outcomes in running:
            begun, ended = outcomes[0].begun_wall, outcomes[0].ended
            for notice in self._receiver.notices():
                new = notice.firing and notice.started >= begun and notice.at <= ended
                if new and notice.alert in fault.never:
                    self.wrong.append(f"{notice.alert} arrives at {notice.receiver} while {fault.text}, and must not")
        return late

    def _wait_inactive(self, fault: Fault, outcomes: list[Outcome]) -> None:
        """What comes with the fault is told from what was there before by waiting until nothing is."""
        watched = fault.never | fault.held_back

        def look() -> bool:
            firing = self._stack.firing()
            return not any(
                labels["alertname"] in watched or any(outcome.is_of(labels) for outcome in outcomes)
                for labels in firing
            )

        try:
            wait_for("nothing of it fires", QUIET_SECONDS, look, every=0.5)
        except Failure:
            names = ", ".join(sorted({labels["alertname"] for labels in self._stack.firing()}))
            self.wrong.append(f"before {fault.text}, there fires already one of: {names}")

    def _arrivals(self, open_faults: list[tuple[Fault, list[Outcome]]]) -> None:
        """Mends each fault as soon as its alerts are there; what is left when the time is over stays in the list."""
        until = time.monotonic() + ARRIVAL_SECONDS
        while open_faults and time.monotonic() < until:
            for fault, outcomes in list(open_faults):
                fault.tick()
                for outcome in outcomes:
                    self._note(outcome)
                if all(outcome.is_there for outcome in outcomes) and self._held_back(fault):
                    for outcome in outcomes:
                        outcome.ended = time.monotonic()
                    open_faults.remove((fault, outcomes))
                    fault.end()
            self._receiver.wait(lambda: False, 0.4)
        for fault, outcomes in open_faults:
            for outcome in outcomes:
                outcome.ended = time.monotonic()
                if not outcome.is_there:
                    self._explain(outcome)
            if fault.held_back and all(outcome.is_there for outcome in outcomes):
                self.wrong.append(
                    f"none of {', '.join(sorted(fault.held_back))} fires and is held back while {fault.text}"
                )

    def _held_back(self, fault: Fault) -> bool:
        if not fault.held_back:
            return True
        firing = {labels["alertname"] for labels in self._stack.firing()}
        held = firing & fault.held_back & self._stack.suppressed()
        if held:
            say(f"  held back: {', '.join(sorted(held))}")
        return bool(held)

    def _note(self, outcome: Outcome) -> None:
        """Takes over what came in for it."""
        was_there = outcome.is_there
        for notice in self._receiver.notices():
            if not outcome.is_of(notice.labels) or notice.started < outcome.begun_wall:
                continue
            if not outcome.must:
                outcome.labels = dict(notice.labels)
                outcome.must = self._stack.receivers_of(notice.labels)
                if MUST[outcome.expected.severity] not in outcome.must:
                    self.wrong.append(f"the routes send {notice.alert} to {', '.join(outcome.must)}")
            if notice.firing:
                outcome.arrived.setdefault(notice.receiver, notice.at)
                outcome.resolved.pop(notice.receiver, None)
            elif notice.receiver in outcome.arrived:
                outcome.resolved[notice.receiver] = notice.at
        if outcome.is_there and not was_there:
            seconds = max(outcome.arrived.values()) - outcome.begun
            say(f"  {outcome.labels['alertname']} ({outcome.expected.severity}) arrived after {seconds:.0f} s")

    def _resolved(self, outcomes: list[Outcome], seconds: float) -> None:
        waited = [outcome for outcome in outcomes if outcome.is_there]

        def look() -> bool:
            for outcome in waited:
                self._note(outcome)
            return all(outcome.is_resolved for outcome in waited)

        try:
            wait_for("resolved", seconds, look, every=0.4)
        except Failure:
            names = [outcome.expected.title for outcome in waited if not outcome.is_resolved]
            say(f"  not resolved within {seconds:.0f} s: {', '.join(names)}")
            return
        if waited:
            say(f"  resolved: {', '.join(outcome.labels['alertname'] for outcome in waited)}")

    def _explain(self, outcome: Outcome) -> None:
        """What Prometheus and Alertmanager know of an alert that did not arrive."""
        names = "|".join(outcome.expected.names)
        known = self._stack.query(f'ALERTS{{alertname=~"{names}"}}')
        say(f"  {outcome.expected.title} ({outcome.expected.severity}) did not arrive within {ARRIVAL_SECONDS} s")
        if not set(outcome.expected.names) & self._stack.alerts:
            say("    there is no such rule")
        for series in known[:10]:
            say(f"    Prometheus has {series['metric']}")
        if held := self._stack.suppressed() & set(outcome.expected.names):
            say(f"    Alertmanager holds back {', '.join(sorted(held))}")

    def _misdirected(self) -> None:
        for notice in self._receiver.notices():
            only = ONLY.get(notice.receiver)
            if only is not None and notice.severity != only:
                self.wrong.append(f"{notice.alert} ({notice.severity}) comes to {notice.receiver}")

    def _dashboards(self) -> None:
        """Every panel's query has an answer while the load goes on; a picture of each dashboard."""
        tool = self._options.repository / ".ci" / "dashboards"
        minutes = max(2, (time.monotonic() - self._cluster.started) / 60)
        asked = ["--prometheus", self._stack.url, "--scrape-interval", "1", "--minutes", f"{minutes:.1f}"]
        commands: list[list[str]] = []
        if self._options.check_dashboards:
            commands.append(["check", *asked])
        if self._options.draw is not None:
            commands.append(["draw", *asked, "--out", str(self._options.draw)])
        # Somebody has to be banned, or the table of them is empty.
        stranger = WrongTokens(self._cluster, self._load)
        stranger.begin()
        done = threading.Event()

        def try_tokens() -> None:
            while not done.wait(0.5):
                stranger.tick()

        thread = threading.Thread(target=try_tokens, name="stranger", daemon=True)
        thread.start()
        try:
            wait_for("an address is banned", 60, lambda: bool(self._stack.query("bans_active > 0")))
            for words in commands:
                say(f"dashboards {' '.join(words)}")
                if subprocess.run([str(tool), *words], timeout=600, check=False).returncode != 0:
                    self.wrong.append(f"{tool.name} {words[0]} fails")
        finally:
            done.set()
            thread.join(timeout=20)

    def table(self) -> str:
        head = ["alert", "severity", "fault", "arrived s", "resolved s", "receivers"]
        rows = [head, *(outcome.row() for outcome in self.outcomes)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(lines)
