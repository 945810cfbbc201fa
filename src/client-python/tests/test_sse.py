"""The parser of Server-Sent Events: however the bytes are cut, the events are the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_config import _sse
from llm_config._sse import Parser, ServerSentEvent, TooLarge

LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data",
        b"data:  two",
        b"id: 7",
        b"id",
        b"event: set",
        b"event: bookmark",
        b": comment",
        b"unknown: y",
        "data: ü😀".encode(),
        b"data: \xff",
        b"",
        b"",
        b"\xef\xbb\xbf",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


def parse(*chunks: bytes) -> list[ServerSentEvent]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@given(STREAMS, st.lists(st.integers(0, 400)))
def test_any_cut_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    at = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[a:b] for a, b in pairwise(at)]
    whole = parse(stream)
    assert parse(*pieces) == whole
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == whole


@given(st.binary(max_size=200))
def test_no_bytes_break_it(stream: bytes) -> None:
    assert parse(stream) == parse(*(stream[i : i + 1] for i in range(len(stream))))


def test_an_event_has_its_kind_data_and_id() -> None:
    events = parse(b"\xef\xbb\xbfid: 7\nevent: set\ndata: {\ndata: }\n\ndata: x\r\rdata: half")
    assert events == [ServerSentEvent("set", "{\n}", "7"), ServerSentEvent("message", "x", "7")]


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sse, "EVENT_BYTES_MAX", 1000)
    with pytest.raises(TooLarge):
        parse(*[b"data: 0123456789\n"] * 1000)
    with pytest.raises(TooLarge):
        Parser().feed(b"x" * 1001)
    parser = Parser()
    for _ in range(1000):
        parser.feed(b"data: 0123456789\n\n")
