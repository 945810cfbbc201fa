"""Three real nodes as processes on free loopback ports, for the tests marked `cluster`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

TIME_LIMIT = 60.0


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class RealNode:
    """One process, its folder and its log."""

    def __init__(self, node_id: int, folder: Path, ports: list[int], founders: str) -> None:
        self.id = node_id
        self.log = folder / f"{node_id}.log"
        http, metrics, grpc, raft = ports
        self.address = f"127.0.0.1:{http}"
        self._command = [
            os.environ["LLM_CONFIG_SERVER"],
            "serve",
            f"--node-id={node_id}",
            f"--data-dir={folder / str(node_id)}",
            f"--http-addr={self.address}",
            f"--metrics-addr=127.0.0.1:{metrics}",
            f"--grpc-addr=127.0.0.1:{grpc}",
            f"--raft-addr=127.0.0.1:{raft}",
            f"--initial-cluster={founders}",
            "--auth=off",
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(TIME_LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(TIME_LIMIT)
            self.process = None

    def answers(self, path: str = "/health/ready") -> bool:
        try:
            return httpx.get(f"http://{self.address}{path}", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


class RealCluster:
    """Three founders."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(12)
        groups = [ports[at : at + 4] for at in (0, 4, 8)]
        founders = ",".join(f"{n}=127.0.0.1:{group[3]}" for n, group in enumerate(groups, 1))
        self.nodes = [RealNode(n, folder, group, founders) for n, group in enumerate(groups, 1)]

    @property
    def endpoints(self) -> list[str]:
        return [node.address for node in self.nodes]

    def leader(self) -> RealNode:
        deadline = time.monotonic() + TIME_LIMIT
        while time.monotonic() < deadline:
            for node in self.nodes:
                if node.process is not None and node.answers("/health/leader"):
                    return node
            time.sleep(0.05)
        raise AssertionError(f"nobody leads; the logs are in {self.nodes[0].log.parent}")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + TIME_LIMIT
        while not all(node.answers() for node in self.nodes):
            assert time.monotonic() < deadline, self.nodes[0].log.read_text()[-2000:]
            time.sleep(0.05)


@contextlib.contextmanager
def real_cluster(folder: Path) -> Iterator[RealCluster]:
    cluster = RealCluster(folder)
    try:
        for node in cluster.nodes:
            node.start()
        cluster.wait_until_ready()
        yield cluster
    finally:
        for node in cluster.nodes:
            node.kill()
