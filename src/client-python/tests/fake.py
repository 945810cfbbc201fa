"""A cluster of scripted HTTP servers: a small store that answers as nodes do, and faults where a test wants them.

It keeps what the client's promises rest on (idempotency keys, revisions, watches that resume) and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

TIME_LIMIT = 10.0


def until(condition: Callable[[], Any], what: str = "the condition") -> None:
    """Waits for a condition, with a time limit."""
    deadline = time.monotonic() + TIME_LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.005)


@dataclass
class Request:
    """What a client sent."""

    node: int
    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def segments(self) -> list[str]:
        return [unquote(part) for part in self.path.split("/")[3:]]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """What a node answers; `raw` writes the answer itself."""

    status: int = 200
    document: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    raw: Callable[[socket.socket], None] | None = None


Handler = Callable[[Request], "Reply | None"]


def problem(code: str, status: int, *, retry_after: str = "", **members: Any) -> Reply:
    retryable = status in (429, 503, 504)
    document = {
        "code": code,
        "status": status,
        "detail": f"words about {code}",
        "request_id": "r-1",
        "retryable": retryable,
        "applied": "unknown" if status == 504 else "no",
        **members,
    }
    headers = {"content-type": "application/problem+json"}
    if retry_after:
        headers["retry-after"] = retry_after
    return Reply(status, document, headers)


def silence(seconds: float = TIME_LIMIT) -> Reply:
    """Takes the request and says nothing."""

    def raw(connection: socket.socket) -> None:
        connection.settimeout(seconds)
        with contextlib.suppress(OSError):
            connection.recv(1)

    return Reply(raw=raw)


def cut() -> Reply:
    """Closes the connection instead of an answer."""
    return Reply(raw=lambda connection: None)


class Node:
    """One server; `scripts` are asked first, each gives an answer or None."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.id = node_id
        self.scripts: list[Handler] = []
        self.requests: list[Request] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._spawn(self._accept, listener)

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut_connections()
        with self.cluster.changed:
            self.cluster.changed.notify_all()
        for thread in list(self._threads):
            thread.join(TIME_LIMIT)
            assert not thread.is_alive(), "a thread of a fake node is left"
        self._threads.clear()

    def cut_connections(self) -> None:
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def script(self, handler: Handler) -> None:
        self.scripts.append(handler)

    def once(self, reply: Reply, path: str = "/api/v1/", method: str = "") -> None:
        """The next request whose path begins so gets this answer."""

        def handler(request: Request) -> Reply | None:
            if not request.path.startswith(path) or (method and request.method != method):
                return None
            self.scripts.remove(handler)
            return reply

        self.script(handler)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with connection, connection.makefile("rb") as file:
                while True:
                    request = _read(file, self.id)
                    if request is None:
                        return
                    self.requests.append(request)
                    self.cluster.requests.append(request)
                    reply = self._reply(request)
                    if reply.raw is not None:
                        reply.raw(connection)
                        return
                    connection.sendall(self._encode(reply))
        except OSError:
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _reply(self, request: Request) -> Reply:
        for handler in list(self.scripts):
            reply = handler(request)
            if reply is not None:
                return reply
        return self.cluster.handle(self, request)

    def common_headers(self) -> dict[str, str]:
        headers = {
            "x-request-id": "r-1",
            "x-config-node": str(self.id),
            "x-config-revision": str(self.cluster.revision),
        }
        if self.cluster.leader is not None:
            headers["x-config-leader"] = str(self.cluster.leader)
        return headers

    def _encode(self, reply: Reply) -> bytes:
        body = reply.body
        if body is None:
            body = b"" if reply.document is None else json.dumps(reply.document).encode()
        headers = {"content-type": "application/json", **self.common_headers(), **reply.headers}
        headers["content-length"] = str(len(body))
        if reply.status in (204, 304):
            del headers["content-length"]
        head = f"HTTP/1.1 {reply.status} X\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        return head.encode() + b"\r\n" + body


def _read(file: Any, node: int) -> Request | None:
    line = file.readline()
    if not line.strip():
        return None
    method, target, _ = line.decode().split(" ")
    headers: dict[str, str] = {}
    while (line := file.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = file.read(int(headers.get("content-length", "0")))
    path, _, query = target.partition("?")
    params = dict(parse_qsl(query, keep_blank_values=True))
    return Request(node, method, path, params, headers, body)


class Cluster:
    """The store, and its nodes."""

    def __init__(self, nodes: int = 3) -> None:
        self.changed = threading.Condition()
        self.revision = 0
        self.log: list[tuple[int, str, dict[str, Any]]] = []
        self.entries: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.answers: dict[str, Reply] = {}
        self.requests: list[Request] = []
        self.oldest_revision = 0
        self.bookmark_seconds = 0.1
        self.members_refused = False
        self.nodes = [Node(self, node_id) for node_id in range(1, nodes + 1)]
        self.members = list(self.nodes)
        self.leader: int | None = 1

    @property
    def endpoints(self) -> list[str]:
        return [node.address for node in self.nodes]

    def close(self) -> None:
        for node in self.nodes:
            node.stop()

    def add(self, node_id: int) -> Node:
        node = Node(self, node_id)
        self.nodes.append(node)
        return node

    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.method != "GET"]

    def reads(self) -> list[Request]:
        return [r for r in self.requests if r.method == "GET" and r.path != "/api/v1/cluster"]

    # --- the store ---

    def put(self, namespace: str, key: str, value: Any, env: str = "base") -> int:
        """A change from elsewhere; gives its revision."""
        with self.changed:
            return int(self._set(namespace, key, env, {"value": value})["revision"])

    def put_together(self, namespace: str, values: dict[str, Any], env: str = "base") -> int:
        """Several changes under one revision."""
        with self.changed:
            for at, (key, value) in enumerate(values.items()):
                self._set(namespace, key, env, {"value": value}, new_revision=at == 0)
            return self.revision

    def _set(
        self,
        namespace: str,
        key: str,
        env: str,
        body: dict[str, Any],
        new_revision: bool = True,
        deleted: bool = False,
    ) -> dict[str, Any]:
        address = (namespace, key, env)
        old = self.entries.get(address)
        self.revision += new_revision
        entry = {
            "namespace": namespace,
            "key": key,
            "env": env,
            "secret": False,
            "version": (old["version"] if old else 0) + 1,
            "revision": self.revision,
            "created_at": "2026-01-31T12:00:00.000Z",
            "created_by": "anonymous",
            "updated_at": "2026-01-31T12:00:00.000Z",
            "updated_by": "anonymous",
            "description": body.get("description", ""),
            "tags": body.get("tags", []),
            "comment": body.get("comment", ""),
            **({"deleted": True} if deleted else {"value": body["value"]}),
        }
        self.entries[address] = entry
        self.log.append((self.revision, "delete" if deleted else "set", entry))
        self.changed.notify_all()
        return entry

    def handle(self, node: Node, request: Request) -> Reply:
        least = int(request.params.get("min_revision", "0"))
        with self.changed:
            if request.method == "GET" and least > self.revision:
                return problem("STALE", 503)
            return self._handle(node, request)

    def _handle(self, node: Node, request: Request) -> Reply:
        match request.method, request.segments:
            case "GET", ["cluster"]:
                if self.members_refused:
                    return problem("PERMISSION_DENIED", 403)
                return self._members(node)
            case "GET", ["watch"]:
                return self._watch(node, request)
            case "GET", ["resolve", namespace]:
                return self._resolve(namespace, request)
            case "GET", ["configs", namespace, key]:
                env = request.params.get("env", "base")
                entry = self.entries.get((namespace, key, env))
                if entry is None or entry.get("deleted"):
                    return problem("NOT_FOUND", 404)
                return Reply(200, entry)
            case _, ["configs" | "txn", *_]:
                return self._write(request)
        return problem("NOT_FOUND", 404)

    def _write(self, request: Request) -> Reply:
        """Any node takes a write; the same key gets the first answer again."""
        if self.leader is None:
            return problem("NO_LEADER", 503)
        key = request.headers["idempotency-key"]
        known = self.answers.get(key)
        if known is None:
            known = self.answers[key] = self._apply(request)
        return known

    def _apply(self, request: Request) -> Reply:
        if request.segments == ["txn"]:
            results = [
                {"op": op["op"], "entry": self._set(op["namespace"], op["key"], "base", op)}
                for op in request.json()["success"]
            ]
            return Reply(200, {"succeeded": True, "revision": self.revision, "results": results})
        _, namespace, key, *_ = request.segments
        if request.method == "DELETE":
            env = request.params.get("env", "base")
            if (namespace, key, env) not in self.entries:
                return problem("NOT_FOUND", 404)
            self._set(namespace, key, env, {}, deleted=True)
            return Reply(204)
        body = request.json()
        env = body.get("env", "base")
        expected = body.get("expected_version")
        current = self.entries.get((namespace, key, env), {"version": 0})["version"]
        if expected is not None and expected != current:
            return problem("VERSION_CONFLICT", 409, current_version=current)
        return Reply(200, self._set(namespace, key, env, body))

    def _members(self, node: Node) -> Reply:
        members = [{"id": one.id, "http": one.address} for one in self.members]
        return Reply(200, {"node_id": node.id, "leader_id": self.leader, "members": members})

    def _resolve(self, namespace: str, request: Request) -> Reply:
        env = request.params.get("env", "base")
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for source in dict.fromkeys(["base", env]):
            for (ns, key, entry_env), entry in self.entries.items():
                if (ns, entry_env) == (namespace, source) and not entry.get("deleted"):
                    values[key], sources[key] = entry["value"], source
        tag = f'"{hash(json.dumps(values)) & 0xFFFFFFFF:x}"'
        if request.headers.get("if-none-match") == tag:
            return Reply(304, headers={"etag": tag, "content-type": ""})
        document = {
            "namespace": namespace,
            "environment": env,
            "values": values,
            "sources": sources,
            "revision": self.revision,
        }
        return Reply(200, document, {"etag": tag})

    def _watch(self, node: Node, request: Request) -> Reply:
        start = int(request.params.get("from_revision", "0")) or self.revision + 1
        if start < self.oldest_revision:
            return problem("REVISION_COMPACTED", 410, oldest_revision=self.oldest_revision)
        namespace = request.params.get("namespace")

        def raw(connection: socket.socket) -> None:
            connection.sendall(stream_head(node))
            position = start - 1
            connection.sendall(chunked(bookmark(position)))
            while node._listener is not None:
                with self.changed:
                    if self.revision == position:
                        self.changed.wait(self.bookmark_seconds)
                    news = [one for one in self.log if one[0] > position]
                    position = max(position, self.revision)
                wanted = [one for one in news if namespace in (None, one[2]["namespace"])]
                data = b"".join(event(*one) for one in wanted) or bookmark(position)
                connection.sendall(chunked(data))

        return Reply(raw=raw)


def stream_head(node: Node) -> bytes:
    headers = {
        **node.common_headers(),
        "content-type": "text/event-stream",
        "transfer-encoding": "chunked",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode()


def chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def bookmark(revision: int) -> bytes:
    return f'id: {revision}\nevent: bookmark\ndata: {{"revision":{revision}}}\n\n'.encode()


def event(revision: int, kind: str, entry: dict[str, Any]) -> bytes:
    return f"id: {revision}\nevent: {kind}\ndata: {json.dumps(entry)}\n\n".encode()


@contextlib.contextmanager
def cluster(nodes: int = 3) -> Iterator[Cluster]:
    made = Cluster(nodes)
    try:
        yield made
    finally:
        made.close()
