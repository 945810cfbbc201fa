"""Server-Sent Events out of bytes, however they were cut. It knows nothing of what the events mean.

An event that the connection breaks in the middle of is never given out.
"""

from __future__ import annotations

from dataclasses import dataclass

#: One event: a value of 1 MiB, whose text may be written with escapes, and its envelope.
EVENT_BYTES_MAX = 16 << 20


class TooLarge(ValueError):
    """An event, or a line, larger than any that a node sends."""


@dataclass(frozen=True)
class ServerSentEvent:
    """One event. `id` is the last one that was given, as the standard wants it."""

    event: str
    data: str
    id: str


class Parser:
    """Takes bytes, gives the events that they complete."""

    def __init__(self) -> None:
        # A list, so that a large event that comes in many pieces is not copied for each.
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._after_carriage_return = False
        self._first_line = True
        self._data: list[str] = []
        self._event = ""
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that are complete with this. `TooLarge` ends it for good."""
        events: list[ServerSentEvent] = []
        if self._after_carriage_return and chunk:
            self._after_carriage_return = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        start = 0
        for end, after in _line_ends(chunk):
            line = b"".join([*self._pieces, chunk[start:end]])
            self._pieces.clear()
            start = after
            event = self._line(line)
            if event is not None:
                events.append(event)
        if chunk.endswith(b"\r"):
            self._after_carriage_return = True
        rest = chunk[start:]
        if rest:
            self._pieces.append(rest)
            self._grow(len(rest))
        return events

    def _grow(self, size: int) -> None:
        self._bytes += size
        if self._bytes > EVENT_BYTES_MAX:
            raise TooLarge(f"an event is larger than {EVENT_BYTES_MAX} bytes")

    def _line(self, line: bytes) -> ServerSentEvent | None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        if name == b"data":
            self._grow(len(line))
            self._data.append(text)
        elif name == b"event":
            self._event = text
        elif name == b"id" and "\0" not in text:
            self._id = text
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._data, self._event, self._bytes = [], "", 0
        if not data:
            return None
        return ServerSentEvent(event or "message", "\n".join(data), self._id)


def _line_ends(chunk: bytes) -> list[tuple[int, int]]:
    """Where each line ends, and where the next begins. Lines end with LF, CR or both."""
    if b"\r" not in chunk:
        ends = []
        at = chunk.find(b"\n")
        while at >= 0:
            ends.append((at, at + 1))
            at = chunk.find(b"\n", at + 1)
        return ends
    ends = []
    at = 0
    while at < len(chunk):
        byte = chunk[at]
        if byte == 0x0D:
            after = at + 2 if chunk[at + 1 : at + 2] == b"\n" else at + 1
            ends.append((at, after))
            at = after
            continue
        if byte == 0x0A:
            ends.append((at, at + 1))
        at += 1
    return ends
