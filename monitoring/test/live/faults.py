"""The faults, and the alerts that each of them must bring and, once it is mended, take back.

Each is done to the running system: processes are killed, stopped and restarted, disks filled, limits lowered, calls
made. No metric is made up.
"""

from __future__ import annotations

import http.client
import itertools
import signal
import threading
import time
from dataclasses import dataclass, field

from .cluster import RESERVE_MIB, Cluster, Connection, Node, entry
from .load import Load, Mix, cold_read, hot_read
from .machine import ControlGroup, ControlGroups
from .processes import Failure

MIB = 1 << 20
# From where wrong tokens come, so that only this address is banned.
STRANGER = "127.0.0.66"
# The environment whose change is to be told; the steady load changes another one.
CHANGED = "staging"


@dataclass(frozen=True)
class Expected:
    """An alert: one of the names, of this severity, with these labels."""

    names: tuple[str, ...]
    severity: str
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return " or ".join(self.names)


class Fault:
    """Something that is broken and mended. Its text says what."""

    text = ""
    expected: tuple[Expected, ...] = ()
    # Must not arrive while it lasts.
    never: frozenset[str] = frozenset()
    # One of them must begin to fire and be held back by Alertmanager.
    held_back: frozenset[str] = frozenset()
    # Resolves only minutes after the fault has ended: looked at later.
    resolves_late = False
    # Nodes are started while it lasts.
    restarts = False

    def __init__(self, cluster: Cluster, load: Load) -> None:
        self.cluster = cluster
        self.load = load

    def missing(self) -> str | None:
        """What the machine lacks for it."""
        return None

    def begin(self) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        """Called about twice a second while the alerts are waited for."""

    def end(self) -> None:
        raise NotImplementedError


def _alert(name: str, severity: str, **labels: str) -> tuple[Expected, ...]:
    return (Expected((name,), severity, labels),)


class Restart(Fault):
    text = "nodes are started, and the leader again"
    expected = _alert("DeploymentStarted", "info")
    resolves_late = True

    def begin(self) -> None:
        node = self.cluster.leader()
        status = node.process.stop()
        if status != 0:
            raise Failure(f"node {node.number} stops with exit status {status}")
        # The others go on without it.
        self.cluster.leader()
        node.start()
        node.wait_ready()

    def end(self) -> None:
        """It has happened."""


class Spike(Fault):
    text = "many times the usual reads"
    expected = _alert("UnusualAccessPattern", "info")

    def begin(self) -> None:
        self._end = self.load.more(hot_read, rate=360, threads=9)

    def end(self) -> None:
        self._end()


class Change(Fault):
    text = f"an entry of {CHANGED} is changed"
    expected = _alert("ConfigurationChanged", "info", environment=CHANGED)

    def begin(self) -> None:
        body = {"env": CHANGED, "value": time.time(), "comment": "a change that is told"}
        self.cluster.call("PUT", entry("shop/assistant", "limit"), body)

    def end(self) -> None:
        """Nothing but time resolves it."""


class WrongTokens(Fault):
    text = "calls with wrong tokens"
    expected = _alert("AuthenticationFailures", "warning")

    def begin(self) -> None:
        nodes = self.cluster.nodes
        self._turns = itertools.cycle(
            self.cluster.connection(node, token="wrong" * 8, source=STRANGER) for node in nodes
        )

    def tick(self) -> None:
        for _ in range(6):
            # A banned address is answered too.
            _refused(next(self._turns), "GET", entry("shop/assistant", "model/0"), None)

    def end(self) -> None:
        """The ban ends by itself, seconds after the last call."""


class Denials(Fault):
    text = "writes with a viewer's token"
    expected = _alert("PermissionDenialSpike", "warning")

    def begin(self) -> None:
        made = self.cluster.call("POST", "/api/v1/auth/tokens", {"name": "live-test-viewer", "roles": ["viewer"]})
        self._id = made["id"]
        self._turns = itertools.cycle(self.cluster.connection(node, token=made["token"]) for node in self.cluster.nodes)

    def tick(self) -> None:
        body = {"env": "production", "value": 1}
        for _ in range(12):
            # A node may not have heard of the new token yet.
            _refused(next(self._turns), "PUT", entry("shop/assistant", "x"), body)

    def end(self) -> None:
        self.cluster.call("DELETE", f"/api/v1/auth/tokens/{self._id}")


class Disk(Fault):
    """The disk of one follower has little room."""

    free_mib = 0.0
    mix = Mix()

    def missing(self) -> str | None:
        return None if self.cluster.has_volumes else "a file system of its own (root)"

    def begin(self) -> None:
        self.node = self.cluster.followers()[-1]
        self.load.mix = self.mix
        self.tick()

    def tick(self) -> None:
        assert self.node.volume is not None
        # What the node writes meanwhile is made up for.
        self.node.volume.leave(int(self.free_mib * MIB))

    def end(self) -> None:
        assert self.node.volume is not None
        self.node.volume.relieve()
        self.load.mix = Mix()


class DiskNearlyFull(Disk):
    text = "a disk is filled to 87 %"
    expected = _alert("StorageNearCapacity", "warning")
    free_share = 0.13

    def begin(self) -> None:
        node = self.cluster.followers()[-1]
        assert node.volume is not None
        self.free_mib = self.free_share * node.volume.capacity_bytes() / MIB
        super().begin()


class DiskAlmostFull(DiskNearlyFull):
    text = "a disk is filled to 92 %"
    expected = _alert("StorageNearCapacity", "critical")
    never = frozenset({"StorageFailure"})
    free_share = 0.08


class DiskFullFewWrites(Disk):
    text = "a disk is filled to the reserve, 7 % of the calls write"
    expected = (
        Expected(("ElevatedErrorRate",), "warning"),
        Expected(("StorageFailure",), "critical"),
    )
    held_back = frozenset({"StorageNearCapacity"})
    never = frozenset({"HighErrorRate", "NodeDown", "ServiceDown"})
    free_mib = RESERVE_MIB * 0.6
    mix = Mix(writes=0.08)


class DiskFullManyWrites(Disk):
    text = "a disk is filled to the reserve, 30 % of the calls write"
    expected = _alert("HighErrorRate", "critical")
    never = frozenset({"NodeDown", "ServiceDown"})
    free_mib = RESERVE_MIB * 0.6
    mix = Mix(writes=0.3)


class ColdCache(Fault):
    text = "reads of more entries than the cache holds"
    expected = (
        Expected(("LowCacheHitRate",), "warning"),
        Expected(("CacheEvictionHigh",), "info"),
    )

    def begin(self) -> None:
        self._end = self.load.more(cold_read, rate=150, threads=6)

    def end(self) -> None:
        self._end()


class Processor(Fault):
    """Hardly more processor time than a node takes at rest, and reads from all sides."""

    text = "a node gets 0.05 cores for more work than that"
    expected = _alert("HighCPU", "warning")
    cores = 0.05

    def missing(self) -> str | None:
        return None if self.cluster.nodes[0].group else "a control group `cpu` (root)"

    def begin(self) -> None:
        self.node = self.cluster.followers()[0]
        assert self.node.group is not None
        self.node.group.limit_cores(self.cores)
        self._end = self.load.more(hot_read, rate=1000, threads=8, only=self.node)

    def end(self) -> None:
        assert self.node.group is not None
        self.node.group.unlimit_cores()
        self._end()


class Memory(Fault):
    """A node is moved into a control group that allows hardly more memory than it has.

    What it had before stays charged to the group that it came from, so nothing is reclaimed and nothing killed; what the
    process has and what its group allows are as close as on a machine that is too small.
    """

    share = 0.0
    group: ControlGroup | None = None
    node: Node

    def __init__(self, cluster: Cluster, load: Load, tight: ControlGroup | None, home: ControlGroup | None) -> None:
        super().__init__(cluster, load)
        self._tight, self._home = tight, home

    def missing(self) -> str | None:
        return None if self._tight and self._home else "a control group `memory` (root)"

    def begin(self) -> None:
        assert self._tight is not None
        self.node = self.cluster.followers()[0]
        self._tight.limit_memory(int(self.node.process.resident_bytes() / self.share))
        self._tight.take(self.node.process.pid)

    def tick(self) -> None:
        # The process gets and gives back memory meanwhile.
        assert self._tight is not None
        self._tight.limit_memory(int(self.node.process.resident_bytes() / self.share))

    def end(self) -> None:
        assert self._home is not None
        self._home.take(self.node.process.pid)


class MemoryHigh(Memory):
    text = "a node may have a seventh more memory than it has"
    expected = _alert("HighMemory", "warning")
    never = frozenset({"OutOfMemory"})
    share = 0.875


class MemoryOut(Memory):
    text = "a node may have hardly more memory than it has"
    expected = _alert("OutOfMemory", "critical")
    share = 0.975


class SlowLeader(Fault):
    """The leader's process stands still again and again, and too shortly for the others to elect another one."""

    text = "the leader stands still for two thirds of the time"
    expected = _alert("HighLatency", "warning")
    never = frozenset({"ServiceDown"})
    stopped_seconds, running_seconds = 0.33, 0.14

    def begin(self) -> None:
        self.load.mix = Mix(writes=0.3, linearizable=0.4)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._turns, name="slow-leader", daemon=True)
        self._thread.start()

    def _turns(self) -> None:
        while not self._stop.is_set():
            # Asked anew now and then: on a busy machine another node may lead after all.
            try:
                leader = self.cluster.leader(seconds=5)
            except Failure:
                continue
            for _ in range(5):
                leader.process.send(signal.SIGSTOP)
                try:
                    self._stop.wait(self.stopped_seconds)
                finally:
                    leader.process.send(signal.SIGCONT)
                if self._stop.wait(self.running_seconds):
                    return

    def end(self) -> None:
        self._stop.set()
        self._thread.join(timeout=20)
        self.load.mix = Mix()


class Kill(Fault):
    restarts = True
    text = "a node is killed"
    expected = _alert("NodeDown", "warning")
    never = frozenset({"ServiceDown", "QuorumLost", "NoLeader", "HighErrorRate"})

    def begin(self) -> None:
        self.node = self.cluster.followers()[0]
        self.node.process.kill()

    def end(self) -> None:
        self.node.start()
        self.node.wait_ready()


class Partition(Fault):
    text = "the nodes are cut off from each other"
    expected = (Expected(("QuorumLost", "NoLeader"), "critical"),)
    never = frozenset({"ServiceDown", "NodeDown"})

    def begin(self) -> None:
        self.cluster.cut()

    def end(self) -> None:
        self.cluster.join()
        self.cluster.leader(seconds=60)


class KillMajority(Fault):
    restarts = True
    text = "two nodes of three are killed"
    expected = _alert("ServiceDown", "critical")
    held_back = frozenset({"HighErrorRate", "LowSuccessRate"})
    never = frozenset({"HighErrorRate", "ElevatedErrorRate", "LowSuccessRate", "HighLatency"})

    def begin(self) -> None:
        self.killed = self.cluster.followers()
        for node in self.killed:
            node.process.kill()

    def end(self) -> None:
        for node in self.killed:
            node.start()
        for node in self.killed:
            node.wait_ready()


def _refused(connection: Connection, method: str, path: str, body: object) -> None:
    try:
        status = connection.call(method, path, body).status
    except (OSError, http.client.HTTPException):
        return  # Other faults go on at the same time.
    if status not in (401, 403):
        raise Failure(f"{method} {path} is to be refused and is answered {status}")


def stages(cluster: Cluster, load: Load, groups: ControlGroups, short: bool) -> list[list[Fault]]:
    """The faults in their order; those of one stage do not disturb each other and last at the same time."""
    tight, home = groups.make("memory", "tight"), groups.make("memory", "home")
    if short:
        return [
            [
                Change(cluster, load),
                WrongTokens(cluster, load),
                Denials(cluster, load),
                DiskNearlyFull(cluster, load),
            ],
            [Kill(cluster, load)],
            [KillMajority(cluster, load)],
        ]
    return [
        [Restart(cluster, load)],
        [Spike(cluster, load)],
        [
            Change(cluster, load),
            WrongTokens(cluster, load),
            Denials(cluster, load),
            MemoryHigh(cluster, load, tight, home),
            DiskNearlyFull(cluster, load),
        ],
        [ColdCache(cluster, load), MemoryOut(cluster, load, tight, home), DiskAlmostFull(cluster, load)],
        [Processor(cluster, load)],
        [SlowLeader(cluster, load)],
        [DiskFullFewWrites(cluster, load)],
        [DiskFullManyWrites(cluster, load)],
        [Kill(cluster, load)],
        [Partition(cluster, load)],
        [KillMajority(cluster, load)],
    ]
