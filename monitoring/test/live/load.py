"""The clients: a steady mix of calls on all three nodes, which a fault may change, and some more on demand.

Each thread has one call under way and keeps to a rate; when answers come late there are fewer of them.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .cluster import GRPC_PORT, HTTP_PORT, Cluster, Connection, Node, entry

NAMESPACE = "shop/assistant"
# The steady load changes this environment only, so that a change of another one is seen.
ENVIRONMENT = "development"
HOT_KEYS = 40
COLD_NAMESPACE = "shop/archive"
COLD_KEYS = 3_000
COLD_VALUE_BYTES = 2_000
SECRET = ("shop/assistant", "api-key")
THREADS = 6
RATE = 36.0
CALL_SECONDS = 4


# Sends one call and answers its status.
Call = Callable[[Connection, random.Random], int]


@dataclass
class Mix:
    """Shares of the calls; the others are cached reads."""

    writes: float = 0.2
    linearizable: float = 0.1


class Load:
    def __init__(self, cluster: Cluster, seed: int, client: Path) -> None:
        self.mix = Mix()
        self._client = client
        self._cluster = cluster
        self._seed = seed
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.answered = 0
        self.refused = 0
        self.unanswered = 0

    def prepare(self) -> None:
        """The entries that are read, and a secret."""
        for at in range(HOT_KEYS):
            self._cluster.call(
                "PUT",
                entry(NAMESPACE, f"model/{at}"),
                {"env": ENVIRONMENT, "value": {"model": at, "temperature": 0.2}},
            )
        self._cluster.call("PUT", entry(*SECRET), {"env": ENVIRONMENT, "value": "sk-0", "secret": True})
        randomness = random.Random(self._seed)
        for first in range(0, COLD_KEYS, 100):
            keys = range(first, min(first + 100, COLD_KEYS))
            operations = [
                {
                    "op": "set",
                    "namespace": COLD_NAMESPACE,
                    "key": f"prompt/{at}",
                    "env": ENVIRONMENT,
                    "value": randomness.randbytes(COLD_VALUE_BYTES // 2).hex(),
                }
                for at in keys
            ]
            self._cluster.call("POST", "/api/v1/txn", {"success": operations})

    def start(self) -> None:
        for at in range(THREADS):
            self._run(f"load-{at}", self._paced(self._mixed(), RATE / THREADS, self._stop, at))
        self._run("variety", self._paced(self._various(), 3, self._stop, THREADS))
        for node in self._cluster.nodes:
            self._run(f"watch-{node.number}", self._watch(node))
        self._run("grpc", self._read_over_grpc)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def more(
        self,
        what: Call,
        rate: float,
        threads: int,
        only: Node | None = None,
    ) -> Callable[[], None]:
        """More calls of one kind until what is returned is called."""
        stop = threading.Event()
        started = [
            self._run(f"more-{at}", self._paced(what, rate / threads, stop, 100 + at, only)) for at in range(threads)
        ]

        def end() -> None:
            stop.set()
            for thread in started:
                thread.join(timeout=30)
                self._threads.remove(thread)

        return end

    def _run(self, name: str, body: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=body, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _paced(
        self,
        what: Call,
        rate: float,
        stop: threading.Event,
        number: int,
        only: Node | None = None,
    ) -> Callable[[], None]:
        """Calls at a rate, on the nodes in turn."""

        def body() -> None:
            randomness = random.Random(self._seed + number)
            connections = [
                Connection(node.host, HTTP_PORT, self._cluster.token, timeout=CALL_SECONDS)
                for node in ([only] if only else self._cluster.nodes)
            ]
            turn = number
            due = time.monotonic() + randomness.random() / rate
            while not stop.wait(max(0.0, due - time.monotonic())) and not self._stop.is_set():
                # What could not be sent in time is left out, so that no burst follows a pause.
                due = max(due + 1 / rate, time.monotonic() - 1 / rate)
                turn += 1
                try:
                    status = what(connections[turn % len(connections)], randomness)
                except (OSError, http.client.HTTPException):
                    status = 0
                with self._lock:
                    if status == 0:
                        self.unanswered += 1
                    elif status >= 500:
                        self.refused += 1
                    else:
                        self.answered += 1
            for connection in connections:
                connection.close()

        return body

    def _mixed(self) -> Call:
        """The steady calls of one thread.

        Which kind comes next is counted out, not drawn: in a window of some seconds chance alone would take a share of
        7 % below 5.
        """
        written = linearizable = 0.0

        def call(connection: Connection, randomness: random.Random) -> int:
            nonlocal written, linearizable
            key = f"model/{randomness.randrange(HOT_KEYS)}"
            written += self.mix.writes
            if written >= 1:
                written -= 1
                value = {"model": key, "temperature": round(randomness.random(), 3)}
                body = {"env": ENVIRONMENT, "value": value}
                return connection.call("PUT", entry(NAMESPACE, key), body).status
            path = entry(NAMESPACE, key, ENVIRONMENT)
            linearizable += self.mix.linearizable / (1 - self.mix.writes)
            if linearizable >= 1:
                linearizable -= 1
                path += "&consistency=linearizable"
            return connection.call("GET", path).status

        return call

    def _various(self) -> Call:
        """The calls that are made now and then, one after the other. None of them needs room on a disk."""
        key = entry(NAMESPACE, "model/0")
        namespace = f"/api/v1/configs/{NAMESPACE.replace('/', '%2F')}"
        calls: list[tuple[str, str, object]] = [
            ("GET", f"{namespace}?env={ENVIRONMENT}", None),
            ("GET", f"{key}/history?env={ENVIRONMENT}&limit=5", None),
            ("GET", f"/api/v1/resolve/{NAMESPACE.replace('/', '%2F')}?env={ENVIRONMENT}", None),
            ("GET", f"{entry(*SECRET, ENVIRONMENT)}&reveal=true", None),
            ("GET", "/api/v1/namespaces", None),
            ("GET", "/api/v1/cluster", None),
            ("DELETE", entry(NAMESPACE, "model/none", ENVIRONMENT), None),
        ]
        turn = iter(range(1 << 62))

        def various(connection: Connection, _: random.Random) -> int:
            method, path, body = calls[next(turn) % len(calls)]
            return connection.call(method, path, body).status

        return various

    def _watch(self, node: Node) -> Callable[[], None]:
        """Follows the changes on one node, and opens the stream again when it broke."""

        def body() -> None:
            while not self._stop.is_set():
                connection = http.client.HTTPConnection(node.host, HTTP_PORT, timeout=CALL_SECONDS)
                try:
                    connection.request(
                        "GET",
                        f"/api/v1/watch?namespace={NAMESPACE.replace('/', '%2F')}",
                        headers={"Authorization": f"Bearer {self._cluster.token}"},
                    )
                    answer = connection.getresponse()
                    while not self._stop.is_set() and answer.readline(1 << 20):
                        pass
                except (OSError, http.client.HTTPException):
                    pass
                finally:
                    connection.close()
                self._stop.wait(1)

        return body

    def _read_over_grpc(self) -> None:
        """A read a second by the command line client, which speaks gRPC as Python's library does not."""
        endpoints = ",".join(f"{node.host}:{GRPC_PORT}" for node in self._cluster.nodes)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LLM_CONFIG_")}
        environment |= {"LLM_CONFIG_ENDPOINTS": endpoints, "LLM_CONFIG_TOKEN": self._cluster.token}
        command = [str(self._client), "get", NAMESPACE, "model/0", "--env", ENVIRONMENT]
        while not self._stop.wait(1):
            # What comes of it is in the nodes' metrics. It may fail: that is what the faults are for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=CALL_SECONDS,
                    check=False,
                )


def hot_read(connection: Connection, randomness: random.Random) -> int:
    """A read of an entry that is in memory."""
    key = f"model/{randomness.randrange(HOT_KEYS)}"
    return connection.call("GET", entry(NAMESPACE, key, ENVIRONMENT)).status


def cold_read(connection: Connection, randomness: random.Random) -> int:
    """A read of one of more entries than the cache holds."""
    key = f"prompt/{randomness.randrange(COLD_KEYS)}"
    return connection.call("GET", entry(COLD_NAMESPACE, key, ENVIRONMENT)).status
