"""JSON with its digits, options, endpoints, tokens, requests: what is decided before anything is sent."""

from __future__ import annotations

import os
import pickle
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_config import (
    TLS,
    Client,
    InvalidOption,
    NotSent,
    Options,
    OutcomeUnknown,
    VersionConflict,
    _json,
)
from llm_config._api import _segment
from llm_config._core import BACKOFF_MAX, WAIT_MAX, backoff, retry_after
from llm_config._nodes import LEARNED_MAX, Nodes, parse
from llm_config._token import NEWS_TIME, Bearer

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back_as_it_went(value: Any) -> None:
    assert _json.loads(_json.dumps(value)) == value


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_keep_their_digits(number: Decimal) -> None:
    back = _json.loads(_json.dumps([number, 10**40]), Decimal)
    assert Decimal(back[0]) == number
    assert back[1] == 10**40


def test_what_has_no_json_form_is_named() -> None:
    loop: list[Any] = []
    loop.append(loop)
    cases: list[tuple[Any, str]] = [
        ({"a": [1, {1}]}, r"value\.a\[1\]: set"),
        ({"a": float("nan")}, r"value\.a: nan"),
        ({"a": Decimal("Infinity")}, r"value\.a: Infinity"),
        ({1: 2}, "name in an object is int"),
        ("\ud800", "surrogate"),
        (loop, "nested too deeply"),
    ]
    for value, words in cases:
        with pytest.raises((TypeError, ValueError), match=words):
            _json.dumps(value)
    with pytest.raises(ValueError, match="NaN"):
        _json.loads("NaN")


def test_endpoints_are_host_and_port() -> None:
    assert parse("http://node-1:8080/") == ("http", "node-1:8080")
    assert parse("[::1]:80") == (None, "[::1]:80")
    for bad in [
        "",
        "node",
        "http://node",
        "ftp://node:1",
        "node:x",
        "node:1/path",
        "a@node:1",
        ":5",
        "node:0",
        "node:1?",
        "no de:1",
        "node:99999",
    ]:
        with pytest.raises(InvalidOption, match="endpoints"):
            parse(bad)
    with pytest.raises(InvalidOption, match="at least one"):
        Client([])


def test_all_connections_have_tls_or_none_has() -> None:
    assert not Nodes(["http://a:1", "b:1"], False, 60).tls
    nodes = Nodes(["https://a:1", "b:1"], False, 60)
    assert {nodes.url(nodes.pick(False)) for _ in range(4)} == {"https://a:1", "https://b:1"}
    for endpoints, tls in [(["https://a:1", "http://b:1"], False), (["http://b:1"], True)]:
        with pytest.raises(InvalidOption, match="http://b:1 is without TLS"):
            Nodes(endpoints, tls, 60)


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("x")
    for tls, words in [
        (TLS(ca_file=bad), "ca_file"),
        (TLS(ca_file=tmp_path / "none"), "ca_file"),
        (TLS(certificate_file=bad), "certificate_file"),
        (TLS(key_file=bad), "certificate_file too"),
    ]:
        with pytest.raises(InvalidOption, match=words):
            Client("https://a:1", tls=tls)


def test_options_are_checked() -> None:
    for bad in [0, -1, float("nan"), float("inf"), True, "1"]:
        with pytest.raises(InvalidOption, match="timeout"):
            Options(endpoints="a:1", timeout=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="token_file"):
        Options(endpoints="a:1", token="x", token_file="y")
    assert list(Options(endpoints="a:1, b:1,").endpoints) == ["a:1", " b:1"]


def test_names_that_a_url_would_lose_are_refused() -> None:
    assert _segment("key", "a/b:c%é") == "a%2Fb%3Ac%25%C3%A9"
    for bad in ["", ".", "..", "\ud800"]:
        with pytest.raises(InvalidOption, match="key"):
            _segment("key", bad)


def test_a_token_is_one_word_and_never_shown() -> None:
    for bad in ["", "a b", "a\nb", "ü"]:
        with pytest.raises(InvalidOption, match="token"):
            Bearer(bad, None)
    bearer = Bearer("lcm_secret", None)
    options = Options(endpoints="a:1", token="lcm_secret")
    assert "secret" not in f"{bearer!r} {bearer.shown()!r} {options!r}"
    assert bearer.shown().header == "Bearer lcm_secret"


def test_a_token_gets_one_more_chance_and_a_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    bearer = Bearer(None, file)
    first = bearer.shown()
    assert bearer.refused(first) == NEWS_TIME
    assert bearer.refused(first) is None
    file.write_text("two\n")
    assert bearer.refused(first) == 0.0
    second = bearer.shown()
    assert second.header == "Bearer two"
    bearer.accepted(second)
    assert bearer.refused(second) is None
    file.write_text("")  # as while it is being replaced
    assert bearer.refused(second) is None
    assert bearer.shown().header == "Bearer two"
    with pytest.raises(InvalidOption, match="none"):
        Bearer(None, tmp_path / "none")
    (tmp_path / "large").write_bytes(b"x" * 20_000)
    with pytest.raises(InvalidOption, match="20000 bytes"):
        Bearer(None, tmp_path / "large")


def test_a_changed_token_file_is_seen_without_a_refusal(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    bearer = Bearer(None, file)
    file.write_text("three")
    bearer._looked = time.monotonic() - 2
    assert bearer.shown().header == "Bearer three"


def book(*endpoints: str) -> Nodes:
    return Nodes(endpoints, False, 60)


def test_reads_rotate_and_writes_follow_the_leader() -> None:
    nodes = book("a:1", "b:1")
    assert {nodes.pick(False).address for _ in range(2)} == {"a:1", "b:1"}
    nodes.discovered([(1, "a:1"), (3, "c:1")], 3)
    assert nodes.pick(True).address == "c:1"
    assert {nodes.pick(False).address for _ in range(6)} == {"a:1", "b:1"}


def test_a_given_endpoint_is_known_by_the_id_it_answers_with() -> None:
    nodes = book("a:1", "b:1")
    node = next(n for n in (nodes.pick(False) for _ in range(4)) if n.address == "b:1")
    nodes.answered(node, 2, 2)
    assert nodes.pick(True) is node
    # The same node by another name is no second one.
    nodes.discovered([(2, "10.0.0.2:1")], 2)
    assert nodes.addresses() == ["a:1", "b:1"]


def test_learned_addresses_are_bounded_checked_and_replaced() -> None:
    nodes = book("a:1")
    nodes.discovered([(n, f"n{n}:1") for n in range(1, 100)], 5)
    assert len(nodes.addresses()) == 1 + LEARNED_MAX
    nodes.discovered([(1, "https://x:1"), (2, "x" * 600 + ":1"), (3, "bad")], None)
    assert len(nodes.addresses()) == 1 + LEARNED_MAX, "a list without a usable member is ignored"
    nodes.discovered([(7, "seven:1")], 7)
    assert nodes.addresses() == ["a:1", "seven:1"]


def test_a_silent_leader_is_passed_over_even_when_named_again() -> None:
    nodes = book("a:1")
    nodes.discovered([(3, "c:1")], 3)
    leader = nodes.pick(True)
    nodes.silent(leader)
    nodes.answered(nodes.pick(False), 1, 3)
    assert nodes.pick(True).address == "a:1"
    nodes.answered(leader, 3, 3)
    assert nodes.pick(True) is leader


def test_waits_are_bounded() -> None:
    assert all(0 <= backoff(failures) <= BACKOFF_MAX for failures in range(2000))
    assert retry_after({"retry-after": "2"}) == 2.0
    assert retry_after({"retry-after": "1e99"}) == WAIT_MAX
    assert retry_after({"retry-after": "-5"}) == 0.0
    for bad in [{}, {"retry-after": "x"}, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}]:
        assert retry_after(bad) is None


def test_errors_can_be_sent_between_processes() -> None:
    conflict = VersionConflict(
        "VERSION_CONFLICT", "words", status=409, extensions={"current_version": 3}
    )
    again = pickle.loads(pickle.dumps(conflict))
    assert (type(again), again.current_version, again.status, str(again)) == (
        VersionConflict,
        3,
        409,
        str(conflict),
    )
    for error in (OutcomeUnknown("lost", "key"), NotSent("why", "NO_LEADER")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_the_package_says_that_it_is_typed() -> None:
    import llm_config

    assert os.path.exists(os.path.join(os.path.dirname(llm_config.__file__), "py.typed"))
