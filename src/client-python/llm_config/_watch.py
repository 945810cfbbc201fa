"""A watch that survives the node it is on, without any input or output of its own.

It delivers each change once, in the order of revisions, across any number of streams: it remembers the last revision
that is complete, asks the next node for what follows, and drops what it has delivered already. A revision is complete
when the stream goes on to a later one, or says so by a bookmark; the events of a revision that broke off half-way are
asked for again, and those that were delivered are known by their address.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Union
from urllib.parse import urlencode

from . import _json
from ._core import (
    Answer,
    Core,
    Fault,
    Final,
    Lost,
    Refused,
    Sleep,
    Unreachable,
    again,
    backoff,
    classify,
    classify_problem,
    discover,
)
from ._core import Effect as CallEffect
from ._nodes import Node
from ._sse import Parser, ServerSentEvent, TooLarge
from ._token import Shown
from .errors import NotSent, Rejected
from .models import WatchEvent, entry


@dataclass(frozen=True)
class Open:
    """Open a stream; sent back is `Opened`, the `Answer` that refuses it, or a `Fault`."""

    url: str
    headers: dict[str, str] = field(repr=False)
    timeout: float


@dataclass(frozen=True)
class Opened:
    """The stream is open; names of headers in lower case."""

    headers: dict[str, str]


@dataclass(frozen=True)
class Receive:
    """Wait for bytes; sent back are they, none at the end of the stream, or a `Fault` after `timeout` seconds."""

    timeout: float


@dataclass(frozen=True)
class Shut:
    """Close the stream."""


@dataclass(frozen=True)
class Emit:
    """Give this to the caller."""

    event: WatchEvent


WatchEffect = Union[CallEffect, Open, Receive, Shut, Emit]
WatchReply = Union[Answer, Fault, Opened, bytes, None]
Watching = Generator[WatchEffect, WatchReply, None]


@dataclass(frozen=True)
class Wanted:
    """What is watched; None and "" do not restrict."""

    namespace: str | None = None
    namespace_prefix: str = ""
    prefix: str = ""
    env: str | None = None
    from_revision: int | None = None
    bookmarks: bool = False
    patient: bool = True
    """Whether an outage after the first opening is waited out; else it is told after the client's timeout."""


class Progress:
    """What was delivered."""

    def __init__(self, from_revision: int | None) -> None:
        #: Everything up to here was delivered, or was not asked for; None before the first word of a stream.
        self.complete = None if not from_revision else from_revision - 1
        self._partial = 0
        self._delivered: set[tuple[str, str, str]] = set()

    def accept(self, event: WatchEvent) -> bool:
        """Whether this is new; a node that is behind may repeat a revision or send an old bookmark."""
        complete = -1 if self.complete is None else self.complete
        if event.entry is None:
            if event.revision < max(complete, self._partial):
                return False
            self._finish(event.revision)
            return True
        if event.revision <= complete or event.revision < self._partial:
            return False
        if event.revision > self._partial:
            if self._partial > complete:
                self._finish(self._partial)
            self._partial = event.revision
            self._delivered.clear()
        address = (event.entry.namespace, event.entry.key, event.entry.env)
        if address in self._delivered:
            return False
        self._delivered.add(address)
        return True

    def _finish(self, revision: int) -> None:
        self.complete = revision
        self._delivered.clear()

    def mark(self) -> tuple[int | None, int]:
        """Changes when something was delivered."""
        return self.complete, self._partial

    def next_revision(self) -> int | None:
        """What to ask the next stream for; None: with the next change."""
        if self.complete is not None:
            return self.complete + 1
        # A stream that broke off within its first revision told where it began.
        return self._partial or None


class _Broken(Exception):
    """The stream cannot go on; another may."""


def watch(core: Core, wanted: Wanted) -> Watching:
    """Yields what is to be done, and the events.

    The first stream must open within the client's timeout; after it, the watch waits for the cluster as long as it
    takes, if it is patient. It ends only by an error: the cluster refused it.
    """
    progress = Progress(wanted.from_revision)
    deadline: float | None = time.monotonic() + core.options.timeout
    failures = 0
    last: Node | None = None
    while True:
        yield from discover(core, False, time.monotonic() + core.options.timeout)
        node = core.nodes.pick(False, avoid=last)
        headers, shown = core.headers({"accept": "text/event-stream", "cache-control": "no-store"})
        timeout = core.options.attempt_timeout
        if deadline is not None:
            timeout = min(timeout, max(deadline - time.monotonic(), 0.001))
        reply = yield Open(_url(core, node, wanted, progress), headers, timeout)
        pause, reason = 0.0, ""
        if isinstance(reply, Opened):
            core.answered(node, Answer(200, reply.headers, b""))
            deadline = None
            if core.bearer is not None and shown is not None:
                core.bearer.accepted(shown)
            before = progress.mark()
            try:
                yield from _stream(core, wanted, progress, shown)
            except _Broken as broken:
                reason = str(broken)
            yield Shut()
            if not wanted.patient:
                deadline = time.monotonic() + core.options.timeout
            if progress.mark() != before:
                failures = 0
            last = node
        else:
            pause, reason = _refused(core, node, reply, shown)
            last = node
        pause += backoff(failures)
        failures += 1
        if deadline is not None and time.monotonic() + pause >= deadline:
            raise NotSent(reason)
        yield Sleep(pause)


def _url(core: Core, node: Node, wanted: Wanted, progress: Progress) -> str:
    params: dict[str, str] = {}
    if wanted.namespace is not None:
        params["namespace"] = wanted.namespace
    if wanted.namespace_prefix:
        params["namespace_prefix"] = wanted.namespace_prefix
    if wanted.prefix:
        params["prefix"] = wanted.prefix
    if wanted.env is not None:
        params["env"] = wanted.env
    revision = progress.next_revision()
    if revision is not None:
        params["from_revision"] = str(revision)
    query = "?" + urlencode(params) if params else ""
    return f"{core.nodes.url(node)}/api/v1/watch{query}"


def _refused(core: Core, node: Node, reply: WatchReply, shown: Shown | None) -> tuple[float, str]:
    """What came of an attempt to open a stream that did not; raises what is final."""
    if isinstance(reply, Fault):
        core.nodes.silent(node)
        return 0.0, f"{node.address}: {reply.reason}"
    assert isinstance(reply, Answer)
    failure = classify(reply) or Unreachable(f"{node.address}: no stream of events")
    if isinstance(failure, Final):
        core.answered(node, reply)
        pause = again(core, failure.error, shown)
        if pause is None:
            raise failure.error
        return pause, str(failure.error)
    if isinstance(failure, Refused):
        core.answered(node, reply)
        # Another node may serve; this one is not asked again before its time.
        alone = len(core.nodes.addresses()) == 1 or failure.code == "RATE_LIMITED"
        return (failure.after if alone else min(failure.after, 1.0)), failure.reason
    core.nodes.silent(node)
    return 0.0, failure.reason


def _stream(core: Core, wanted: Wanted, progress: Progress, shown: Shown | None) -> Watching:
    """Reads one stream until it breaks (`_Broken`) or the cluster refuses to go on (`Rejected`)."""
    parser = Parser()
    heard = time.monotonic()
    while True:
        # Bytes that complete no event are no sign of life.
        left = core.options.watch_silence - (time.monotonic() - heard)
        if left <= 0:
            raise _Broken("the stream fell silent")
        chunk = yield Receive(left)
        if not isinstance(chunk, bytes) or not chunk:
            raise _Broken(chunk.reason if isinstance(chunk, Fault) else "the stream ended")
        try:
            received = parser.feed(chunk)
        except TooLarge as error:
            yield Shut()
            raise Rejected("MALFORMED_STREAM", str(error)) from error
        for one in received:
            heard = time.monotonic()
            event = _event(core, one, shown)
            if event is None or not progress.accept(event):
                continue
            core.seen(event.revision)
            if event.entry is not None or wanted.bookmarks:
                yield Emit(event)
                heard = time.monotonic()


def _event(core: Core, received: ServerSentEvent, shown: Shown | None) -> WatchEvent | None:
    """What an event says; None for kinds of later versions."""
    if received.event == "error":
        raise _ended(core, received, shown)
    if received.event not in ("set", "delete", "bookmark"):
        return None
    if not (received.id.isascii() and received.id.isdigit()):
        raise _Broken("an event without a revision")
    revision = int(received.id)
    if received.event == "bookmark":
        return WatchEvent("bookmark", revision)
    try:
        document = _json.loads(received.data, core.options.parse_float)
        changed = entry(document)
    except ValueError as error:
        raise _Broken(f"an event that is no entry: {error}") from error
    return WatchEvent("set" if received.event == "set" else "delete", revision, changed)


def _ended(core: Core, received: ServerSentEvent, shown: Shown | None) -> Exception:
    """Why the node ended the stream: for good, or only here."""
    try:
        document = _json.loads(received.data)
    except ValueError:
        document = None
    if not isinstance(document, dict) or "code" not in document:
        return _Broken("the node ended the stream")
    failure = classify_problem(document, None)
    if isinstance(failure, (Refused, Lost, Unreachable)):
        return _Broken(failure.reason)
    # A token that expired under the watch may have a successor.
    if again(core, failure.error, shown) is not None:
        return _Broken(str(failure.error))
    return failure.error
