"""The promises against real nodes that are killed. Runs when LLM_CONFIG_SERVER names the server's program."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_config import (
    AsyncClient,
    AsyncLiveConfig,
    Client,
    LiveConfig,
    NotFound,
    Options,
    PayloadTooLarge,
    SchemaViolation,
    Txn,
    VersionConflict,
)

from .fake import until
from .real import RealCluster, real_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not os.environ.get("LLM_CONFIG_SERVER"),
        reason="LLM_CONFIG_SERVER names no program; `make python-test` builds and names it",
    ),
]

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    with real_cluster(tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


def options(nodes: RealCluster, **given: Any) -> Options:
    return Options(endpoints=nodes.endpoints, **{"timeout": 40.0, **given})


def test_every_call_is_understood(nodes: RealCluster) -> None:
    with Client(options(nodes, parse_float=Decimal)) as client:
        first = client.set(
            "t/calls",
            "bedrock/claude-3:0",
            {"price": Decimal("1.10")},
            env="production",
            description="d",
            tags=["x"],
            comment="why",
            expected_version=0,
        )
        assert (first.version, first.tags, first.comment) == (1, ("x",), "why")
        with pytest.raises(VersionConflict) as conflict:
            client.set("t/calls", "bedrock/claude-3:0", 1, env="production", expected_version=0)
        assert conflict.value.current_version == 1
        client.set("t/calls", "bedrock/claude-3:0", 2, env="production")
        assert client.rollback(
            "t/calls", "bedrock/claude-3:0", 1, env="prod", comment="back", expected_version=2
        ).value == {"price": Decimal("1.10")}
        history = client.history("t/calls", "bedrock/claude-3:0", env="production", limit=2)
        assert [entry.version for entry in history.items] == [3, 2]
        assert history.next_cursor is not None
        patch = client.diff(
            "t/calls", "bedrock/claude-3:0", env="production", from_version=1, to_version=2
        ).patch
        assert patch[0]["op"] == "replace"
        txn = Txn().compare("t/calls", "other", 0)
        txn.success.set("t/calls", "other", [1, 2.5, None]).get("t/calls", "none")
        result = client.commit(txn)
        assert result.succeeded
        assert [one.entry is not None for one in result.results] == [True, False]
        assert client.get("t/calls", "other", env="edge", resolve=True).env == "base"
        assert [e.key for e in client.list("t/calls", limit=1).items] == ["other"]
        assert "t/calls" in [one.namespace for one in client.namespaces(prefix="t/").items]
        resolved = client.resolve("t/calls", env="production", consistency="linearizable")
        assert b'"price":1.10' in resolved.text
        assert dict(resolved.sources) == {"bedrock/claude-3:0": "production", "other": "base"}
        client.delete("t/calls", "other", comment="gone", expected_version=1)
        with pytest.raises(NotFound):
            client.get("t/calls", "other")
        with pytest.raises(PayloadTooLarge):
            client.set("t/calls", "large", "x" * (1 << 20))
        old = client.get("t/calls", "bedrock/claude-3:0", env="production", version=1)
        assert old.revision == first.revision
        with pytest.raises(NotFound):
            client.get("t/calls", "none", max_staleness_ms=10_000)


def test_a_schema_refuses_what_does_not_meet_it(nodes: RealCluster) -> None:
    with Client(options(nodes)) as client:
        client.set("t/schema", "limit", 5)
        schema = client.put_schema("t/schema", "limit", {"type": "integer"}, comment="why")
        assert client.get_schema("t/schema", "limit") == schema
        client.put_schema("t/schema", "name", True)
        page = client.list_schemas("t/schema", limit=1)
        assert page.items == (schema,)
        rest = client.list_schemas("t/schema", limit=1, cursor=page.next_cursor)
        assert [one.key for one in rest.items] == ["name"]
        assert client.list_schemas("t/schema", prefix="n").items == rest.items
        with pytest.raises(SchemaViolation) as violation:
            client.set("t/schema", "limit", "five")
        assert violation.value.violations[0]["message"]
        client.delete_schema("t/schema", "limit", expected_version=schema.version)
        client.set("t/schema", "limit", "five")


def test_a_watch_follows_the_namespaces_that_begin_alike(nodes: RealCluster) -> None:
    with Client(options(nodes)) as client:
        begun = client.set("t/alike", "k", 0).revision
        for namespace in ("t/alike/a", "t/other", "t/alike/b"):
            client.set(namespace, "k", 1)
        watch = client.watch(namespace_prefix="t/alike/", from_revision=begun)
        with watch:
            seen = [next(watch).entry for _ in range(2)]
    assert [entry.namespace for entry in seen if entry] == ["t/alike/a", "t/alike/b"]


def test_writes_happen_once_and_are_watched_once_while_leaders_are_killed(
    nodes: RealCluster,
) -> None:
    writes = 60
    seen: list[tuple[int, int]] = []
    ready = threading.Event()

    def follow() -> None:
        with Client(options(nodes)) as watcher, watcher.watch("t/kill", bookmarks=True) as watch:
            for event in watch:
                ready.set()
                if event.entry is not None:
                    seen.append((event.revision, event.entry.version))
                    if event.entry.version == writes:
                        return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert ready.wait(30)
    revisions: list[int] = []
    with Client(options(nodes)) as client:
        for number in range(writes):
            if number in (15, 35):
                leader = nodes.leader()
                leader.kill()
                revisions.append(client.set("t/kill", "k", number).revision)
                leader.start()
                continue
            entry = client.set("t/kill", "k", number)
            revisions.append(entry.revision)
            assert client.get("t/kill", "k").value == number, "a write is seen by the next read"
        assert client.get("t/kill", "k", consistency="linearizable").version == writes
    thread.join(60)
    assert not thread.is_alive(), f"only {len(seen)} of {writes} were watched"
    assert seen == list(zip(revisions, range(1, writes + 1), strict=True))
    nodes.wait_until_ready()


def test_a_live_configuration_follows_and_starts_offline(
    nodes: RealCluster, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with Client(options(nodes)) as client:
        client.set("t/live", "model", "a")
        with LiveConfig(client, "t/live", env="production", cache_file=cache) as live:
            assert live.values["model"] == "a"
            entry = client.set("t/live", "model", "b", env="production")
            assert live.wait_for_revision(entry.revision, 20)
            assert live.values["model"] == "b"
            nodes.leader().kill()
            entry = client.set("t/live", "model", "c", env="production")
            assert live.wait_for_revision(entry.revision, 30)
            assert live.values["model"] == "c"
    for node in nodes.nodes:
        node.kill()
    with (
        Client(options(nodes, timeout=1.0)) as client,
        LiveConfig(client, "t/live", env="production", cache_file=cache) as live,
    ):
        assert (live.values["model"], live.source) == ("c", "cache")
        for node in nodes.nodes:
            node.start()
        nodes.wait_until_ready()
        deadline = time.monotonic() + 30
        while live.source != "cluster":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert live.values["model"] == "c"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_asynchronous_client_does_the_same(nodes: RealCluster, backend: str) -> None:
    async def main() -> None:
        async with AsyncClient(options(nodes)) as client:
            entry = await client.set(f"t/{backend}", "k", 1)
            async with AsyncLiveConfig(client, f"t/{backend}") as live:
                assert live.values["k"] == 1
                entry = await client.set(f"t/{backend}", "k", 2)
                assert await live.wait_for_revision(entry.revision, 20)
                assert live.values["k"] == 2
            async with client.watch(f"t/{backend}", from_revision=entry.revision) as watch:
                event = await anext(watch)
                assert event.entry is not None
                assert event.entry.value == 2

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_the_examples_do_what_they_claim(nodes: RealCluster, example: str) -> None:
    environment = {**os.environ, "LLM_CONFIG_ENDPOINTS": ",".join(nodes.endpoints)}
    environment.pop("LLM_CONFIG_TOKEN", None)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example)],
        env=environment | {"PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def test_an_example_without_a_cluster_fails_clearly() -> None:
    environment = {**os.environ, "LLM_CONFIG_ENDPOINTS": "127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "quick_start.py")],
        env=environment | {"PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode != 0
    assert "no node took the request" in done.stderr


def test_nothing_is_left_of_the_threads() -> None:
    until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("llm-config")],
        "the end of the threads",
    )
