"""Live configurations: what they follow, what they keep, and what they say when something is wrong."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from llm_config import (
    CacheError,
    Client,
    Closed,
    InvalidOption,
    LiveConfig,
    NotSent,
    ParseError,
    PermissionDenied,
)
from llm_config._cache import CacheFile
from llm_config._parse import parser

from .fake import Cluster, problem, until

Connect = Callable[..., Any]
KEY = bytes(range(32))


@dataclass
class Limits:
    rpm: int


@dataclass
class Settings:
    model: str
    temperature: float = 0.5
    limits: Limits | None = None
    fallbacks: list[str] = field(default_factory=list)
    mode: Literal["chat", "embed"] = field(default="chat", metadata={"key": "model-mode"})


class Model(BaseModel):
    model: str
    temperature: float = 0.5


def test_it_follows_what_concerns_its_environment(connect: Connect, nodes: Cluster) -> None:
    nodes.put("n", "model", "a")
    nodes.put("n", "temperature", 0.1, "production")
    changes: list[Any] = []
    client = connect(nodes.endpoints)
    with client.live("n", env="prod", on_change=changes.append) as live:
        assert dict(live.values) == {"model": "a", "temperature": 0.1}
        assert live.value is live.values
        assert live.source == "cluster"
        with pytest.raises(TypeError):
            live.values["model"] = "x"
        revision = nodes.put("n", "model", "b", "production")
        assert live.wait_for_revision(revision, 5)
        assert live.values["model"] == "b"
        assert live.snapshot.sources["model"] == "production"
        resolved = len([r for r in nodes.requests if "/resolve/" in r.path])
        revision = nodes.put("n", "model", "c", "staging")
        assert live.wait_for_revision(revision, 5)
        assert len([r for r in nodes.requests if "/resolve/" in r.path]) == resolved
        assert live.age < 5
        assert live.last_error is None
        assert not live.wait_for_revision(revision + 1, 0.05)
    assert [change.values["model"] for change in changes] == ["a", "b"]
    assert live.values["model"] == "b", "the last state stays readable"


def test_several_changes_under_one_revision_are_seen_together(
    connect: Connect, nodes: Cluster
) -> None:
    nodes.put_together("n", {"a": 0, "b": 0})
    seen: list[tuple[int, int]] = []
    with connect(nodes.endpoints).live(
        "n", on_change=lambda s: seen.append((s.values["a"], s.values["b"]))
    ) as live:
        for value in range(1, 6):
            revision = nodes.put_together("n", {"a": value, "b": value})
        assert live.wait_for_revision(revision, 5)
    assert all(a == b for a, b in seen)
    assert seen[-1] == (5, 5)


@pytest.mark.parametrize("target", [Settings, Model, lambda v: Settings(v["model"] + "")])
def test_what_does_not_parse_is_told_and_left_out(
    connect: Connect, nodes: Cluster, target: Any
) -> None:
    nodes.put("n", "model", "a")
    errors: list[Any] = []
    with connect(nodes.endpoints).live("n", parse=target, on_error=errors.append) as live:
        assert live.value.model == "a"
        revision = nodes.put("n", "model", 5)
        assert live.wait_for_revision(revision, 5)
        assert live.value.model == "a"
        assert isinstance(live.last_error, ParseError)
        assert live.last_error.revision == revision
        assert len(errors) == 1
        revision = nodes.put("n", "model", "c")
        assert live.wait_for_revision(revision, 5)
        assert live.value.model == "c"
        assert live.last_error is None


def test_it_outlives_the_cluster_and_comes_back(connect: Connect, nodes: Cluster) -> None:
    nodes.put("n", "k", 1)
    with connect(nodes.endpoints, timeout=0.3).live("n") as live:
        for node in nodes.nodes:
            node.stop()
        until(lambda: live.last_error is not None, "the outage being told")
        assert live.values["k"] == 1
        nodes.put("n", "k", 2)
        for node in nodes.nodes:
            node.start()
        until(lambda: live.values["k"] == 2, "the news after the outage")
        until(lambda: live.last_error is None, "the end of the error")


def test_it_reads_anew_when_the_watch_s_start_is_gone(connect: Connect, nodes: Cluster) -> None:
    nodes.put("n", "k", 1)
    with connect(nodes.endpoints).live("n") as live:
        with nodes.changed:
            nodes.revision = 100
            nodes.oldest_revision = 100
            nodes._set("n", "k", "base", {"value": 2})
            nodes.log.clear()
        for node in nodes.nodes:
            node.cut_connections()
        until(lambda: live.values["k"] == 2, "the state read anew")
        assert live.revision == 101


def test_a_cluster_that_went_back_by_a_restore_is_believed(
    connect: Connect, nodes: Cluster
) -> None:
    for value in range(5):
        nodes.put("n", "k", value)
    with connect(nodes.endpoints).live("n") as live:
        with nodes.changed:
            nodes.revision = 2
            nodes.entries["n", "k", "base"]["value"] = "restored"
        for node in nodes.nodes:
            node.once(problem("INVALID_ARGUMENT", 400), "/api/v1/watch")
            node.cut_connections()
        until(lambda: live.values["k"] == "restored", "the restored state")
        assert live.revision == 2
        revision = nodes.put("n", "k", "after")
        assert revision == 3
        assert live.wait_for_revision(revision, 5)
        assert live.values["k"] == "after"


def test_a_refusal_at_the_start_is_raised(connect: Connect, nodes: Cluster, tmp_path: Path) -> None:
    for node in nodes.nodes:
        node.script(lambda r: problem("PERMISSION_DENIED", 403) if "resolve" in r.path else None)
    client = connect(nodes.endpoints)
    with pytest.raises(PermissionDenied), client.live("n", cache_file=tmp_path / "cache"):
        pass


def test_a_first_state_that_does_not_parse_is_raised(connect: Connect, nodes: Cluster) -> None:
    client = connect(nodes.endpoints)
    with pytest.raises(ParseError, match="model: is missing"), client.live("n", parse=Settings):
        pass


def test_a_failing_callback_does_not_end_the_following(connect: Connect, nodes: Cluster) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("the application's fault")

    with connect(nodes.endpoints).live("n", on_change=fail) as live:
        revision = nodes.put("n", "k", 1)
        assert live.wait_for_revision(revision, 5)
        assert live.values["k"] == 1


def test_it_starts_offline_and_takes_over_what_the_cluster_has(
    connect: Connect, nodes: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "cache"
    nodes.put("n", "k", {"price": 1})
    with connect(nodes.endpoints).live("n", cache_file=file):
        until(file.exists, "the cache file")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["cache"]
    for node in nodes.nodes:
        node.stop()
    client = connect(nodes.endpoints, timeout=0.3)
    with client.live("n", cache_file=file) as live:
        assert live.values["k"] == {"price": 1}
        assert live.source == "cache"
        assert isinstance(live.last_error, NotSent)
        assert 0 <= live.age < 60
        nodes.put("n", "k", {"price": 2})
        for node in nodes.nodes:
            node.start()
        until(lambda: live.source == "cluster", "the cluster's word")
        assert live.values["k"] == {"price": 2}
    for node in nodes.nodes:
        node.stop()
    with pytest.raises(NotSent), client.live("n", cache_file=tmp_path / "none"):
        pass
    with pytest.raises(NotSent), client.live("other", cache_file=file):
        pass


def test_a_cache_that_cannot_be_used_or_written_is_told(
    connect: Connect, nodes: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "cache"
    file.write_text("something else\n")
    nodes.put("n", "k", 1)
    errors: list[Any] = []
    client = connect(nodes.endpoints)
    with client.live("n", cache_file=file, on_error=errors.append) as live:
        assert live.values["k"] == 1
        until(lambda: live.last_error is None, "a good cache file")
    assert [str(error) for error in errors] == [f"{file}: is no cache file; it is ignored"]
    nowhere = tmp_path / "no" / "such" / "folder"
    with client.live("n", cache_file=nowhere) as live:
        assert live.values["k"] == 1
        until(lambda: isinstance(live.last_error, CacheError), "the error")


def test_revealed_secrets_are_only_written_encrypted(
    connect: Connect, nodes: Cluster, tmp_path: Path
) -> None:
    nodes.put("n", "api-key", "sk-canary")
    client = connect(nodes.endpoints, timeout=0.4)
    file = tmp_path / "cache"
    with pytest.raises(InvalidOption, match="cache_key"):
        client.live("n", reveal=True, cache_file=file).__enter__()
    with pytest.raises(InvalidOption, match="32 bytes"):
        client.live("n", reveal=True, cache_file=file, cache_key=b"short").__enter__()
    with pytest.raises(InvalidOption, match="cache_file"):
        client.live("n", cache_key=KEY).__enter__()
    with client.live("n", reveal=True, cache_file=file, cache_key=KEY):
        until(file.exists, "the cache file")
    assert nodes.reads()[0].params["reveal"] == "true"
    content = file.read_bytes()
    for canary in (b"sk-canary", base64.b64encode(b"sk-canary")):
        assert canary not in content
    for node in nodes.nodes:
        node.stop()
    with client.live("n", reveal=True, cache_file=file, cache_key=KEY) as live:
        assert live.values["api-key"] == "sk-canary"
    wrong = client.live("n", reveal=True, cache_file=file, cache_key=bytes(32))
    with pytest.raises(NotSent), wrong:
        pass


def test_every_damage_of_a_cache_file_is_noticed(nodes: Cluster, tmp_path: Path) -> None:
    nodes.put("n", "k", 1)
    for key in (None, KEY):
        file = tmp_path / ("plain" if key is None else "sealed")
        cache = CacheFile(file, namespace="n", env="base", reveal=key is not None, key=key)
        with Client(nodes.endpoints) as client:
            cache.save(client.resolve("n"))
        whole = file.read_bytes()
        found = cache.load(None)
        assert found is not None
        assert found.resolved.values == {"k": 1}
        for at in range(len(whole)):
            for bit in (0x01, 0x20, 0x80):
                file.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
                with pytest.raises(CacheError, match=str(file)):
                    cache.load(None)
        for length in range(len(whole)):
            file.write_bytes(whole[:length])
            with pytest.raises(CacheError):
                cache.load(None)
        file.write_bytes(whole.replace(b"llm-config-cache 1 ", b"llm-config-cache 2 ", 1))
        with pytest.raises(CacheError, match="format '2'"):
            cache.load(None)
        file.write_bytes(whole)
        for namespace, env in (("m", "base"), ("n", "production")):
            other = CacheFile(file, namespace=namespace, env=env, reveal=bool(key), key=key)
            with pytest.raises(CacheError, match=r"of another"):
                other.load(None)


def test_a_crash_while_saving_leaves_the_old_file(
    nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cache"
    nodes.put("n", "k", 1)
    cache = CacheFile(file, namespace="n", env="base", reveal=False, key=None)
    with Client(nodes.endpoints) as client:
        cache.save(client.resolve("n"))
        nodes.put("n", "k", 2)

        def fail(*_: Any) -> None:
            raise OSError("no space")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(CacheError, match="no space"):
            cache.save(client.resolve("n"))
    found = cache.load(None)
    assert found is not None
    assert found.resolved.values == {"k": 1}
    assert os.listdir(tmp_path) == ["cache"]


def test_a_thread_is_closed_from_anywhere(nodes: Cluster) -> None:
    nodes.put("n", "k", 1)
    with Client(nodes.endpoints) as client:
        holder: list[LiveConfig[Any]] = []
        closed = threading.Event()

        def close_it(_: Any) -> None:
            if holder:
                holder[0].close()
                closed.set()

        live: LiveConfig[Any] = LiveConfig(client, "n", on_change=close_it)
        with pytest.raises(Closed):
            _ = live.value
        holder.append(live)
        with contextlib.suppress(Closed):  # when it was closed before the start was through
            live.start()
        assert closed.wait(5)
        with pytest.raises(Closed, match="once"):
            live.start()
        live.close()
        assert not [t for t in threading.enumerate() if t.name == "llm-config n"]


def test_dataclasses_are_checked_and_say_where() -> None:
    parse = parser(Settings)
    good = {"model": "m", "temperature": 1, "limits": {"rpm": 5}, "model-mode": "embed", "new": 1}
    assert parse(good) == Settings("m", 1.0, Limits(5), [], "embed")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "model: is missing"),
        ({"model": 1}, "model: must be str, not int"),
        ({"model": "m", "temperature": "hot"}, "temperature: must be float, not str"),
        ({"model": "m", "temperature": True}, "temperature: must be float, not bool"),
        ({"model": "m", "limits": {"rpm": 1.5}}, r"limits\.rpm: must be int, not float"),
        ({"model": "m", "fallbacks": ["a", None]}, r"fallbacks\[1\]: must be str, not null"),
        ({"model": "m", "fallbacks": "a"}, "fallbacks: must be a list"),
        ({"model": "m", "model-mode": "x"}, "model-mode: must be one of"),
    ]
    for bad, words in cases:
        with pytest.raises(ParseError, match=words):
            parse(bad)
    with pytest.raises(TypeError, match="parse"):
        parser(3)  # type: ignore[arg-type]
