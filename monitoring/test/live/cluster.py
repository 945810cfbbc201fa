"""Three nodes as three processes, each on its documented ports of a loopback address of its own."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .machine import ControlGroup, ControlGroups, Volume
from .processes import Failure, Process, free_port, in_use, say, wait_for

HTTP_PORT, METRICS_PORT, GRPC_PORT, RAFT_PORT = 8080, 9090, 50051, 50061
# Below twice the reserve a node tidies up, which makes room for a moment: less than 15 % of the volume must be more.
VOLUME_MIB = 512
# What a node keeps free: room for its own files while it refuses writes.
RESERVE_MIB = 32
# The least that a node takes; some thousand entries are more than it holds.
CACHE = "1MiB"
BAN_SECONDS = 10


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One kept connection to one address, opened again when it broke. For one thread."""

    def __init__(self, host: str, port: int, token: str = "", source: str = "", timeout: float = 5) -> None:
        self._connection = http.client.HTTPConnection(
            host, port, timeout=timeout, source_address=(source, 0) if source else None
        )
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method: str, path: str, body: object = None) -> Reply:
        """The answer; OSError or HTTPException when there is none."""
        headers = dict(self._headers)
        text = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            text = json.dumps(body)
        try:
            self._connection.request(method, path, body=text, headers=headers)
            answer = self._connection.getresponse()
            return Reply(answer.status, answer.read())
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()


def get_json(url: str, seconds: float = 10) -> Any:
    """What a GET of a loopback address answers, which must be JSON."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    connection = Connection(name, int(port), timeout=seconds)
    try:
        reply = connection.call("GET", f"/{path}")
    finally:
        connection.close()
    if reply.status != 200:
        raise Failure(f"{url} answers {reply.status}: {reply.body[:500].decode(errors='replace')}")
    return reply.json()


def entry(namespace: str, key: str, environment: str = "") -> str:
    path = f"/api/v1/configs/{quote(namespace, safe='')}/{quote(key, safe='')}"
    return f"{path}?env={environment}" if environment else path


class Node:
    def __init__(self, number: int, folder: Path, volume: Volume | None, process: Process) -> None:
        self.number = number
        self.host = f"127.0.0.{10 + number}"
        self.folder = folder
        self.data = folder / "data"
        self.volume = volume
        self.process = process
        self.group: ControlGroup | None = None

    @property
    def instance(self) -> str:
        return f"{self.host}:{METRICS_PORT}"

    def start(self) -> None:
        self.process.start()
        if self.group is not None:
            self.group.take(self.process.pid)

    def get(self, path: str, port: int = HTTP_PORT, seconds: float = 2) -> Reply | None:
        connection = Connection(self.host, port, timeout=seconds)
        try:
            return connection.call("GET", path)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def wait_ready(self, seconds: float = 60) -> None:
        def look() -> bool:
            if not self.process.runs():
                raise Failure(f"node {self.number} ended:\n" + "\n".join(self.process.tail(20)))
            reply = self.get("/health/ready")
            return reply is not None and reply.status == 200

        wait_for(f"node {self.number} is ready", seconds, look)

    def health(self) -> Mapping[str, Any] | None:
        reply = self.get("/health")
        return reply.json() if reply is not None else None


class Cluster:
    """The nodes, what is between them, and what they stand on."""

    def __init__(self, server: Path, folder: Path, groups: ControlGroups) -> None:
        self.token = secrets.token_hex(32)
        self.groups = groups
        self.started = 0.0
        token_file = folder / "bootstrap-token"
        key_file = folder / "master-key"
        for file, text in (
            (token_file, self.token),
            (key_file, base64.b64encode(secrets.token_bytes(32)).decode()),
        ):
            file.touch(mode=0o600)
            file.write_text(text + "\n")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LLM_CONFIG_")}
        hosts = [f"127.0.0.{10 + number}" for number in (1, 2, 3)]
        taken = [
            f"{host}:{port}"
            for host in hosts
            for port in (HTTP_PORT, METRICS_PORT, GRPC_PORT, RAFT_PORT)
            if in_use(host, port)
        ]
        if taken:
            raise Failure(f"these addresses are in use: {', '.join(taken)}")
        relayed = {host: free_port(host) for host in hosts}
        founders = ",".join(f"{at}={host}:{relayed[host]}" for at, host in enumerate(hosts, 1))
        self.relay = Process(
            "relay",
            [sys.executable, "-m", "live.relay"] + [f"{host}:{relayed[host]}={host}:{RAFT_PORT}" for host in hosts],
            folder / "relay.log",
            {**environment, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )
        self.nodes: list[Node] = []
        folders = [folder / f"node-{number}" for number in (1, 2, 3)]
        for number, host, at, volume in zip(
            (1, 2, 3), hosts, folders, Volume.mount_all(folders, VOLUME_MIB), strict=True
        ):
            command = [
                str(server),
                "serve",
                f"--node-id={number}",
                f"--data-dir={at / 'data'}",
                f"--initial-cluster={founders}",
                f"--http-addr={host}:{HTTP_PORT}",
                f"--metrics-addr={host}:{METRICS_PORT}",
                f"--grpc-addr={host}:{GRPC_PORT}",
                f"--raft-addr={host}:{RAFT_PORT}",
                f"--advertise-raft={host}:{relayed[host]}",
                f"--bootstrap-token-file={token_file}",
                f"--master-key-file={key_file}",
                f"--cache-bytes={CACHE}",
                f"--ban-duration={BAN_SECONDS}s",
                "--request-timeout=2s",
            ]
            if volume is not None:
                command.append(f"--disk-reserve={RESERVE_MIB}MiB")
            process = Process(f"node-{number}", command, folder / f"node-{number}.log", environment)
            self.nodes.append(Node(number, at, volume, process))

    @property
    def has_volumes(self) -> bool:
        return self.nodes[0].volume is not None

    def start(self) -> None:
        self.relay.start(stdin=subprocess.PIPE)
        self.started = time.monotonic()
        for node in self.nodes:
            node.group = self.groups.make("cpu", f"node-{node.number}")
            node.start()
        for node in self.nodes:
            node.wait_ready()
        say(f"three nodes serve; node {self.leader().number} leads")

    def node(self, number: int) -> Node:
        return self.nodes[number - 1]

    def connection(self, node: Node, token: str | None = None, source: str = "") -> Connection:
        return Connection(node.host, HTTP_PORT, self.token if token is None else token, source)

    def leader(self, seconds: float = 30) -> Node:
        """The node that knows itself to lead, with a majority."""

        def look() -> Node | None:
            for node in self.nodes:
                if node.process.runs():
                    reply = node.get("/health/leader", seconds=1)
                    if reply is not None and reply.status == 200:
                        return node
            return None

        return wait_for("a node leads", seconds, look)

    def followers(self) -> list[Node]:
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]

    def call(self, method: str, path: str, body: object = None) -> Any:
        """An administrator's call, to any node that answers it."""

        def look() -> Reply | None:
            for node in self.nodes:
                if not node.process.runs():
                    continue
                connection = self.connection(node)
                try:
                    reply = connection.call(method, path, body)
                except (OSError, http.client.HTTPException):
                    continue
                finally:
                    connection.close()
                if reply.status < 500:
                    return reply
            return None

        reply = wait_for(f"{method} {path} is answered", 30, look)
        if reply.status >= 300:
            raise Failure(f"{method} {path}: {reply.status} {reply.body.decode(errors='replace')}")
        return reply.json() if reply.body else None

    def cut(self) -> None:
        self.relay.write("cut")

    def join(self) -> None:
        self.relay.write("join")

    def stop(self) -> list[int]:
        for node in self.nodes:
            if node.volume is not None:
                node.volume.relieve()
        statuses = [node.process.stop() for node in self.nodes]
        self.relay.stop()
        return statuses

    def close(self) -> None:
        self.stop()
        self.groups.close()
        for node in self.nodes:
            if node.volume is not None:
                node.volume.unmount()
