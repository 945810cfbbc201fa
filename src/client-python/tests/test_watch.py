"""Watches against streams that break, stutter, repeat and fall silent: every change once, in order."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from llm_config import NotSent, PermissionDenied, Rejected, RevisionCompacted

from .fake import (
    TIME_LIMIT,
    Cluster,
    Node,
    Reply,
    bookmark,
    chunked,
    cut,
    event,
    problem,
    silence,
    stream_head,
    until,
)

Connect = Callable[..., Any]


def entry(revision: int, key: str = "k") -> dict[str, Any]:
    return {
        "namespace": "n",
        "key": key,
        "env": "base",
        "value": revision,
        "version": revision,
        "revision": revision,
    }


def stream(node: Node, *chunks: bytes, then: str = "cut", pause: float = 0.0) -> Reply:
    """A stream of these bytes that ends, breaks off or falls silent."""

    def raw(connection: socket.socket) -> None:
        connection.sendall(stream_head(node))
        for chunk in chunks:
            connection.sendall(chunked(chunk))
            time.sleep(pause)
        if then == "end":
            connection.sendall(b"0\r\n\r\n")
        if then == "silence":
            connection.settimeout(TIME_LIMIT)
            with contextlib.suppress(OSError):
                connection.recv(1)

    return Reply(raw=raw)


def take(watch: Any, count: int) -> list[tuple[int, str]]:
    return [(e.revision, e.entry.key) for _, e in zip(range(count), watch, strict=False)]


def test_changes_come_once_and_in_order_from_a_revision(connect: Connect, nodes: Cluster) -> None:
    for value in range(3):
        nodes.put("n", "k", value)
        nodes.put("other", "k", value)
    with connect(nodes.endpoints).watch("n", from_revision=1) as watch:
        assert take(watch, 3) == [(1, "k"), (3, "k"), (5, "k")]
        nodes.put("n", "new", 1)
        assert take(watch, 1) == [(7, "new")]


def test_it_goes_on_at_another_node_when_its_node_dies(connect: Connect, nodes: Cluster) -> None:
    seen: list[tuple[int, str]] = []
    with connect(nodes.endpoints).watch("n", from_revision=1) as watch:
        for round_ in range(6):
            nodes.put("n", f"k{round_}", 1)
            seen += take(watch, 1)
            watching = [r.node for r in nodes.requests if r.path == "/api/v1/watch"][-1]
            if round_ < 2:
                nodes.nodes[watching - 1].stop()
            else:
                nodes.nodes[watching - 1].cut_connections()
    assert seen == [(n + 1, f"k{n}") for n in range(6)]


def test_a_revision_cut_in_the_middle_is_completed_without_a_repetition(
    connect: Connect, nodes: Cluster
) -> None:
    nodes.put_together("n", {"a": 1, "b": 2, "c": 3})
    nodes.put("n", "d", 4)
    nodes.members = nodes.nodes[:1]  # so that it comes back to the node with the bad streams
    both = event(1, "set", nodes.log[0][2]) + event(1, "set", nodes.log[1][2])
    # The second event lacks its last byte when the connection breaks.
    nodes.nodes[0].once(stream(nodes.nodes[0], both[:-1]), "/api/v1/watch")
    nodes.nodes[0].once(stream(nodes.nodes[0], both, then="end"), "/api/v1/watch")
    with connect(nodes.endpoints[:1]).watch("n", from_revision=1) as watch:
        assert take(watch, 4) == [(1, "a"), (1, "b"), (1, "c"), (2, "d")]
    asked = [r.params["from_revision"] for r in nodes.requests if r.path == "/api/v1/watch"]
    assert asked == ["1"] * len(asked)
    assert len(asked) >= 3


def test_what_a_node_repeats_is_dropped(connect: Connect, nodes: Cluster) -> None:
    node = nodes.nodes[0]
    chunks = [
        bookmark(4),
        event(5, "set", entry(5)),
        event(5, "set", entry(5)),
        event(6, "delete", entry(6, "gone") | {"deleted": True}),
        event(5, "set", entry(5)),
        bookmark(3),
        event(7, "later_kind", entry(7)),
        bookmark(6),
        event(6, "set", entry(6)),
        event(8, "set", entry(8)),
    ]
    node.once(stream(node, *chunks, then="silence"), "/api/v1/watch")
    with connect(nodes.endpoints[:1]).watch("n", bookmarks=True) as watch:
        got = [(next(watch).kind, e) for e in range(5)]
        assert [kind for kind, _ in got] == ["bookmark", "set", "delete", "bookmark", "set"]


def test_a_stuttering_stream_loses_nothing(connect: Connect, nodes: Cluster) -> None:
    node = nodes.nodes[0]
    whole = bookmark(0) + event(1, "set", entry(1)) + event(2, "set", entry(2))
    pieces = [whole[at : at + 3] for at in range(0, len(whole), 3)]
    node.once(stream(node, *pieces, then="silence", pause=0.001), "/api/v1/watch")
    with connect(nodes.endpoints[:1]).watch("n") as watch:
        assert take(watch, 2) == [(1, "k"), (2, "k")]


def test_a_stream_without_bookmarks_is_left(connect: Connect, nodes: Cluster) -> None:
    node = nodes.nodes[0]
    node.once(stream(node, bookmark(0), then="silence"), "/api/v1/watch")
    client = connect(nodes.endpoints[:1], watch_silence=0.3, attempt_timeout=0.2)
    nodes.put("n", "k", 1)
    with client.watch("n", from_revision=1) as watch:
        assert take(watch, 1) == [(1, "k")]


def test_a_quiet_stream_with_bookmarks_outlives_the_time_for_an_attempt(
    connect: Connect, nodes: Cluster
) -> None:
    nodes.bookmark_seconds = 0.4
    client = connect(nodes.endpoints[:1], attempt_timeout=0.2, watch_silence=2.0)
    with client.watch("n", bookmarks=True) as watch:
        assert [next(watch).kind for _ in range(4)] == ["bookmark"] * 4
    assert len([r for r in nodes.requests if r.path == "/api/v1/watch"]) == 1


def test_nodes_that_do_not_answer_are_passed_over(connect: Connect, nodes: Cluster) -> None:
    nodes.nodes[0].script(lambda r: silence())
    nodes.nodes[1].script(lambda r: problem("NOT_READY", 503) if "watch" in r.path else cut())
    nodes.put("n", "k", 1)
    with connect(nodes.endpoints, attempt_timeout=0.2).watch("n", from_revision=1) as watch:
        assert take(watch, 1) == [(1, "k")]


def test_the_first_stream_has_a_deadline(connect: Connect, nodes: Cluster) -> None:
    endpoints = nodes.endpoints
    nodes.close()
    begun = time.monotonic()
    with connect(endpoints, timeout=0.4).watch("n") as watch, pytest.raises(NotSent):
        next(watch)
    assert time.monotonic() - begun < 1.5


def test_a_refusal_ends_it(connect: Connect, nodes: Cluster) -> None:
    nodes.oldest_revision = 5
    client = connect(nodes.endpoints)
    with client.watch("n", from_revision=1) as watch:
        with pytest.raises(RevisionCompacted) as caught:
            next(watch)
        assert caught.value.oldest_revision == 5
        assert list(watch) == []
    for node in nodes.nodes:
        node.script(lambda r: problem("PERMISSION_DENIED", 403) if "watch" in r.path else None)
    with client.watch("n") as watch, pytest.raises(PermissionDenied):
        next(watch)


def test_an_error_in_the_stream_ends_it_or_moves_it(connect: Connect, nodes: Cluster) -> None:
    node = nodes.nodes[0]
    nodes.put("n", "k", 1)

    def ending(code: str, retryable: str) -> bytes:
        text = f'{{"code":"{code}","detail":"x","retryable":{retryable},"applied":"no"}}'
        return f"event: error\ndata: {text}\n\n".encode()

    node.once(stream(node, ending("NOT_READY", "true"), then="end"), "/api/v1/watch")
    client = connect(nodes.endpoints[:1])
    with client.watch("n", from_revision=1) as watch:
        assert take(watch, 1) == [(1, "k")]
    node.once(stream(node, ending("REVISION_COMPACTED", "false"), then="end"), "/api/v1/watch")
    with client.watch("n", from_revision=1) as watch, pytest.raises(Rejected, match="COMPACTED"):
        next(watch)


def test_closing_wakes_who_waits(nodes: Cluster) -> None:
    from llm_config import Client

    nodes.bookmark_seconds = 30
    with Client(nodes.endpoints) as client:
        watch = client.watch("n")
        left: list[Any] = []
        thread = threading.Thread(target=lambda: left.extend(watch))
        thread.start()
        until(lambda: watch._response is not None, "the stream")
        begun = time.monotonic()
        watch.close()
        thread.join(TIME_LIMIT)
        assert not thread.is_alive()
        assert time.monotonic() - begun < 2
        assert left == []
