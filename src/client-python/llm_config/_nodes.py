"""The nodes a client may talk to, who of them leads, and who is better left alone for a while.

Endpoints given by the caller stay for good. Addresses learned from the cluster stand beside them, a bounded number, and
go when a newer list of members lacks them. Over HTTP a leader is named by its id, so that ids are remembered too: of
each node that answered (`X-Config-Node`) and of each member. It opens no connection.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import InvalidOption

#: Addresses remembered beside the given endpoints.
LEARNED_MAX = 16
ADDRESS_BYTES_MAX = 512
SUSPECT_FIRST = 0.5
SUSPECT_MAX = 30.0
#: After the members could not be learned: not asked again for so long, and when the token may not, for longer.
DISCOVERY_PAUSE = 2.0
DISCOVERY_REFUSED_PAUSE = 300.0


@dataclass(eq=False)
class Node:
    """One node by its address; `id` once it is known."""

    address: str
    learned: bool = False
    id: int | None = None
    failures: int = 0
    suspect_until: float = 0.0


class Nodes:
    """The book of nodes, for any number of threads."""

    def __init__(self, endpoints: Iterable[str], tls: bool, discovery_interval: float) -> None:
        parsed = [parse(endpoint) for endpoint in endpoints]
        if not parsed:
            raise InvalidOption("endpoints: give at least one, like http://127.0.0.1:8080")
        self.tls = tls or any(scheme == "https" for scheme, _ in parsed)
        for scheme, address in parsed:
            if self.tls and scheme == "http":
                raise InvalidOption(
                    f"endpoints: http://{address} is without TLS, and TLS is asked for; "
                    "write https:// for all"
                )
        self._scheme = "https" if self.tls else "http"
        self._lock = threading.Lock()
        self._nodes = [Node(address) for address in dict.fromkeys(a for _, a in parsed)]
        # A random start, so that many clients with one list do not all begin at its first node.
        self._cursor = random.randrange(len(self._nodes))
        self._leader_id: int | None = None
        self._discovery_interval = discovery_interval
        self._discover_at = 0.0
        self._leader_asked: int | None = None

    def url(self, node: Node) -> str:
        """The address with its scheme."""
        return f"{self._scheme}://{node.address}"

    def addresses(self) -> list[str]:
        """All addresses, the given ones first."""
        with self._lock:
            return [node.address for node in self._nodes]

    @property
    def leader_id(self) -> int | None:
        """Who leads, by the last word of any node."""
        return self._leader_id

    def pick(self, prefer_leader: bool, avoid: Node | None = None) -> Node:
        """The leader if wanted, known and answering; else the next endpoint that answers; else the next to be tried.

        `avoid` failed just now: it is taken only when nobody else answers.
        """
        now = time.monotonic()
        with self._lock:
            if prefer_leader:
                leader = self._leader(now)
                if leader is not None and leader is not avoid:
                    return leader
            self._cursor += 1
            start = self._cursor % len(self._nodes)
            rotated = self._nodes[start:] + self._nodes[:start]
            answering = [n for n in rotated if n.suspect_until <= now and n is not avoid]
            for node in answering:
                if not node.learned:
                    return node
            if answering:
                return answering[0]
            return min(rotated, key=lambda node: node.suspect_until)

    def _leader(self, now: float) -> Node | None:
        if self._leader_id is None:
            return None
        for node in self._nodes:
            if node.id == self._leader_id and node.suspect_until <= now:
                return node
        return None

    def answered(self, node: Node, node_id: int | None, leader_id: int | None) -> None:
        """The node answered, and said who it is and who leads."""
        with self._lock:
            node.failures = 0
            node.suspect_until = 0.0
            if node_id is not None:
                node.id = node_id
            if leader_id is not None:
                self._leader_id = leader_id

    def silent(self, node: Node) -> None:
        """The node did not answer: pass it over for a while, and forget it as the leader."""
        with self._lock:
            pause = min(SUSPECT_FIRST * 2 ** min(node.failures, 16), SUSPECT_MAX)
            node.failures += 1
            node.suspect_until = time.monotonic() + pause
            if node.id is not None and node.id == self._leader_id:
                self._leader_id = None

    def not_leading(self) -> None:
        """A node answered that nobody leads."""
        with self._lock:
            self._leader_id = None

    def discovery_due(self, for_leader: bool) -> bool:
        """Whether the members should be asked for now; True to one caller at a time."""
        now = time.monotonic()
        with self._lock:
            # A leader whose address nobody named is asked for once.
            strange = (
                for_leader
                and self._leader_id is not None
                and self._leader_id != self._leader_asked
                and all(node.id != self._leader_id for node in self._nodes)
            )
            if now < self._discover_at and not strange:
                return False
            self._leader_asked = self._leader_id
            self._discover_at = now + DISCOVERY_PAUSE
            return True

    def discovered(self, members: Sequence[tuple[int, str]], leader_id: int | None) -> None:
        """The cluster's members by id and HTTP address. They are input from the network: bad ones are ignored."""
        usable: dict[int, str] = {}
        for node_id, text in members:
            if len(text) > ADDRESS_BYTES_MAX:
                continue
            try:
                scheme, address = parse(text)
            except InvalidOption:
                continue
            if scheme in (None, self._scheme):
                usable[node_id] = address
        now = time.monotonic()
        with self._lock:
            self._discover_at = now + self._discovery_interval
            if leader_id is not None:
                self._leader_id = leader_id
            if not usable:
                return
            listed = set(usable.values())
            self._nodes = [n for n in self._nodes if not n.learned or n.address in listed]
            for node_id, address in usable.items():
                self._learn(node_id, address)

    def _learn(self, node_id: int, address: str) -> None:
        for node in self._nodes:
            if node.address == address:
                # What a node says of itself counts more; a member's word is for those that never answered.
                if node.id is None or node.learned:
                    node.id = node_id
                return
        if any(node.id == node_id and not node.learned for node in self._nodes):
            return  # a given endpoint under another name
        if sum(node.learned for node in self._nodes) < LEARNED_MAX:
            self._nodes.append(Node(address, learned=True, id=node_id))

    def discovery_refused(self) -> None:
        """The token may not see the members: writes are forwarded, unless a given endpoint turns out to lead."""
        with self._lock:
            self._discover_at = time.monotonic() + DISCOVERY_REFUSED_PAUSE


def members(document: Any) -> tuple[list[tuple[int, str]], int | None]:
    """Ids and HTTP addresses, and who leads, of an answer of `GET /api/v1/cluster`."""
    if not isinstance(document, dict):
        return [], None
    listed = document.get("members")
    found = [
        (one["id"], one["http"])
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict)
        and isinstance(one.get("id"), int)
        and isinstance(one.get("http"), str)
    ]
    leader = document.get("leader_id")
    return found, leader if isinstance(leader, int) else None


def parse(endpoint: str) -> tuple[str | None, str]:
    """Scheme, if given, and `host:port` of an endpoint."""

    def invalid(reason: str) -> InvalidOption:
        return InvalidOption(f"endpoints: {endpoint!r} {reason}, like http://127.0.0.1:8080")

    if not isinstance(endpoint, str):
        raise InvalidOption(f"endpoints: must be texts, not {type(endpoint).__name__}")
    scheme, separator, rest = endpoint.strip().partition("://")
    if not separator:
        scheme, rest = "", scheme
    if scheme not in ("", "http", "https"):
        raise invalid("must begin with http:// or https://")
    rest = rest.removesuffix("/")
    try:
        split = urlsplit(f"//{rest}")
        host, port = split.hostname, split.port
    except ValueError:
        raise invalid("is not HOST:PORT") from None
    if split.path or split.query or split.fragment or "@" in rest or "?" in rest or "#" in rest:
        raise invalid("must be HOST:PORT only, without path, query or user")
    if not rest.isascii() or any(character.isspace() or character == "\\" for character in rest):
        raise invalid("is not HOST:PORT")
    if not host:
        raise invalid("has no host; write HOST:PORT")
    if not port:
        raise invalid("has no port; write HOST:PORT")
    return scheme or None, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
