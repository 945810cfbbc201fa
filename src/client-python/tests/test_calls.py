"""Calls against nodes that fail in every way: what is tried again, what is told, and where it goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_config import (
    Banned,
    Closed,
    InvalidOption,
    LlmConfigError,
    NotFound,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
    Rejected,
    SchemaViolation,
    StorageFull,
    Txn,
    Unauthenticated,
    VersionConflict,
)

from .fake import Cluster, Reply, Request, cut, problem, silence

Connect = Callable[..., Any]


def took_effect(cluster: Cluster, reply: Reply) -> Callable[[Request], Reply | None]:
    """Carries the next write out, but answers otherwise."""
    done: list[Request] = []

    def handler(request: Request) -> Reply | None:
        if request.method == "GET" or done:
            return None
        done.append(request)
        cluster.handle(cluster.nodes[request.node - 1], request)
        return reply

    return handler


def everywhere(cluster: Cluster, reply: Reply, path: str = "/api/v1/configs") -> None:
    for node in cluster.nodes:
        node.script(lambda request: reply if request.path.startswith(path) else None)


def test_every_call_is_read_and_written(connect: Connect, nodes: Cluster) -> None:
    client = connect(nodes.endpoints, parse_float=Decimal)
    entry = client.set("a/b", "k/1:x", {"price": Decimal("1.10"), "big": 10**30}, env="production")
    assert (entry.version, entry.revision, entry.env) == (1, 1, "production")
    put = nodes.writes()[0]
    assert put.path == "/api/v1/configs/a%2Fb/k%2F1%3Ax"
    assert b'"price":1.10' in put.body
    assert b"1000000000000000000000000000000" in put.body
    assert client.get("a/b", "k/1:x", env="production").version == 1
    result = client.commit(_txn())
    assert (result.succeeded, result.results[0].entry.key) == (True, "t")
    assert client.resolve("a/b", env="production").sources == {
        "t": "base",
        "k/1:x": "production",
    }
    client.delete("a/b", "t")
    with pytest.raises(NotFound):
        client.get("a/b", "t")


def _txn() -> Txn:
    txn = Txn().compare("a/b", "t", 0)
    txn.success.set("a/b", "t", 1)
    txn.failure.get("a/b", "t")
    return txn


def test_the_other_calls_ask_for_what_the_api_has(connect: Connect, nodes: Cluster) -> None:
    entry = {"namespace": "n", "key": "k", "env": "base", "value": 1, "version": 2, "revision": 9}
    page = {"items": [entry], "next_cursor": "c", "revision": 9}
    answers: dict[tuple[str, str], Any] = {
        ("GET", "/api/v1/configs/n"): page,
        ("GET", "/api/v1/configs/n/k/history"): {"items": [entry | {"deleted": True}]},
        ("GET", "/api/v1/configs/n/k/diff"): {"from": entry, "to": entry, "patch": []},
        ("POST", "/api/v1/configs/n/k/rollback/1"): entry,
        ("GET", "/api/v1/namespaces"): {
            "items": [{"namespace": "n", "entries": 2}],
            "next_cursor": None,
            "revision": 9,
        },
        ("PUT", "/api/v1/schemas/n/k"): {"namespace": "n", "key": "k", "schema": True},
        ("GET", "/api/v1/schemas/n/k"): {"namespace": "n", "key": "k", "schema": {}, "version": 3},
    }
    for node in nodes.nodes:
        node.script(
            lambda r: (
                Reply(200, answers[r.method, r.path]) if (r.method, r.path) in answers else None
            )
        )
        node.script(lambda r: Reply(204) if r.method == "DELETE" else None)
    client = connect(nodes.endpoints, session=False)
    listed = client.list(
        "n", prefix="k", limit=5, cursor="x", env="edge", consistency="linearizable"
    )
    assert (listed.items[0].version, listed.next_cursor, listed.revision) == (2, "c", 9)
    assert nodes.reads()[-1].params == {
        "prefix": "k",
        "limit": "5",
        "cursor": "x",
        "env": "edge",
        "consistency": "linearizable",
    }
    assert client.history("n", "k").items[0].deleted
    assert client.diff("n", "k", from_version=0, to_version=2, max_staleness_ms=50).patch == []
    assert nodes.reads()[-1].params == {"from": "0", "to": "2", "max_staleness_ms": "50"}
    assert client.rollback("n", "k", 1, comment="why", expected_version=0).version == 2
    assert nodes.writes()[-1].json() == {"comment": "why", "expected_version": 0}
    assert client.namespaces().items[0].entries == 2
    assert client.put_schema("n", "k", {"type": "object"}, comment="c").schema is True
    assert nodes.writes()[-1].json() == {"schema": {"type": "object"}, "comment": "c"}
    assert client.get_schema("n", "k").version == 3
    client.delete_schema("n", "k", expected_version=3)
    assert nodes.writes()[-1].params == {"expected_version": "3"}
    with pytest.raises(TypeError, match="min_revison"):
        client.get("n", "k", min_revison=3)


def test_writes_go_to_the_leader_that_one_node_names(connect: Connect, nodes: Cluster) -> None:
    nodes.leader = 3
    client = connect(nodes.endpoints[:1])
    client.set("n", "a", 1)
    nodes.leader = 2
    client.get("n", "a")  # its header says who leads now
    client.set("n", "b", 1)
    assert [write.node for write in nodes.writes()] == [3, 2]


def test_without_the_right_to_see_the_members_a_leader_is_known_by_its_answers(
    connect: Connect, nodes: Cluster
) -> None:
    nodes.members_refused = True
    client = connect(nodes.endpoints, session=False)
    client.set("n", "a", 1)
    for _ in range(3):
        client.get("n", "a")
    nodes.requests.clear()
    client.set("n", "a", 2)
    client.set("n", "a", 3)
    assert [(request.method, request.node) for request in nodes.requests] == [("PUT", 1)] * 2


def test_members_that_come_and_go_are_followed(connect: Connect, nodes: Cluster) -> None:
    client = connect(nodes.endpoints[:1], discovery_interval=0.001)
    client.set("n", "a", 1)
    fourth = nodes.add(4)
    nodes.members.append(fourth)
    nodes.members.remove(nodes.nodes[1])
    nodes.leader = 4
    client.get("n", "a")
    client.set("n", "a", 2)
    assert nodes.writes()[-1].node == 4
    assert client._core.nodes.addresses() == [
        node.address for node in (nodes.nodes[0], nodes.nodes[2], fourth)
    ]
    # The given endpoint is gone; those that were learned keep the client going.
    nodes.nodes[0].stop()
    assert client.get("n", "a").value == 2


def test_a_wrong_hint_at_the_leader_costs_an_attempt_only(connect: Connect, nodes: Cluster) -> None:
    lost = nodes.add(9)
    nodes.members.append(lost)
    nodes.leader = 9
    lost.stop()
    client = connect(nodes.endpoints[:3])
    assert client.set("n", "a", 1).version == 1


def test_an_answer_lost_after_the_write_is_asked_for_again(
    connect: Connect, nodes: Cluster
) -> None:
    for reply in (cut(), silence(), problem("OUTCOME_UNKNOWN", 504), Reply(502, body=b"<html>")):
        for node in nodes.nodes:
            node.scripts[:] = [took_effect(nodes, reply)]
        entry = connect(nodes.endpoints).set("n", "k", 1)
        keys = {write.headers["idempotency-key"] for write in nodes.writes()}
        assert len(nodes.writes()) >= 2
        assert len(keys) == 1
        assert len(nodes.log) == entry.version == 1
        nodes.requests.clear()
        nodes.log.clear()
        nodes.entries.clear()


def test_a_success_that_is_no_node_s_answer_is_not_believed(
    connect: Connect, nodes: Cluster
) -> None:
    everywhere(nodes, Reply(200, body=b"<html>welcome</html>"))
    client = connect(nodes.endpoints, timeout=0.5)
    with pytest.raises(OutcomeUnknown):
        client.set("n", "k", 1)
    with pytest.raises(OutcomeUnknown, match="HTTP 200"):
        client.delete("n", "k")
    with pytest.raises(NotSent):
        client.get("n", "k")


def test_an_outcome_that_stays_unknown_is_told_with_its_key(
    connect: Connect, nodes: Cluster
) -> None:
    everywhere(nodes, problem("OUTCOME_UNKNOWN", 504))
    client = connect(nodes.endpoints, timeout=0.4)
    with pytest.raises(OutcomeUnknown) as caught:
        client.set("n", "k", 1, idempotency_key="mine")
    assert caught.value.idempotency_key == "mine"
    assert "mine" in str(caught.value)
    with pytest.raises(NotSent):
        client.get("n", "k")


def test_a_refusal_after_a_lost_answer_is_no_proof(connect: Connect, nodes: Cluster) -> None:
    for node in nodes.nodes:
        node.once(cut(), "/api/v1/configs")
    refusal = problem("PERMISSION_DENIED", 403)
    first = nodes.nodes[0]
    first.script(lambda r: refusal if r.method != "GET" else None)
    with pytest.raises(OutcomeUnknown, match="PERMISSION_DENIED"):
        connect(nodes.endpoints[:1], follow_leader=False).set("n", "k", 1)


def test_what_is_refused_is_final_and_says_why(connect: Connect, nodes: Cluster) -> None:
    violations = [{"path": "/a", "message": "is no number"}]
    cases: list[tuple[Reply, type[Rejected], Callable[[Any], bool]]] = [
        (problem("NOT_FOUND", 404), NotFound, lambda e: e.status == 404),
        (
            problem("VERSION_CONFLICT", 409, current_version=7),
            VersionConflict,
            lambda e: e.current_version == 7,
        ),
        (
            problem("SCHEMA_VIOLATION", 422, violations=violations),
            SchemaViolation,
            lambda e: e.violations == violations,
        ),
        (problem("STORAGE_FULL", 507), StorageFull, lambda e: e.status == 507),
        (
            problem("BANNED", 403, retry_after="60"),
            Banned,
            lambda e: e.retry_after_seconds == 60,
        ),
        (problem("PERMISSION_DENIED", 403), PermissionDenied, lambda e: e.request_id == "r-1"),
        (problem("LATER_CODE", 418, hint="x"), Rejected, lambda e: e.extensions["hint"] == "x"),
        (Reply(405, body=b"no"), Rejected, lambda e: e.code == "HTTP_405"),
    ]
    client = connect(nodes.endpoints)
    client.set("n", "other", 1)
    for reply, kind, check in cases:
        for node in nodes.nodes:
            node.scripts.clear()
        everywhere(nodes, reply)
        nodes.requests.clear()
        with pytest.raises(kind) as caught:
            client.set("n", "k", 1)
        assert type(caught.value) is kind
        assert check(caught.value)
        assert len(nodes.writes()) == 1


def test_a_node_that_refuses_for_now_is_passed_over(connect: Connect, nodes: Cluster) -> None:
    nodes.put("n", "k", 1)
    for node in nodes.nodes[:2]:
        node.script(lambda r: problem("OVERLOADED", 503, retry_after="60"))
    client = connect(nodes.endpoints)
    begun = time.monotonic()
    assert client.get("n", "k").value == 1
    assert time.monotonic() - begun < 2


def test_retry_after_is_waited_out_and_not_beyond_the_deadline(
    connect: Connect, nodes: Cluster
) -> None:
    for node in nodes.nodes:
        node.once(problem("RATE_LIMITED", 429, retry_after="1"), "/api/v1/configs")
    client = connect(nodes.endpoints[:1])
    begun = time.monotonic()
    client.set("n", "k", 1)
    assert 1 <= time.monotonic() - begun < 3
    for node in nodes.nodes:
        node.scripts[:] = [lambda r: problem("NOT_READY", 503, retry_after="100")]
    begun = time.monotonic()
    with pytest.raises(NotSent, match="NOT_READY") as caught:
        client.set("n", "k", 2)
    assert caught.value.code == "NOT_READY"
    assert time.monotonic() - begun < 1


def test_a_write_waits_for_the_next_leader(connect: Connect, nodes: Cluster) -> None:
    nodes.leader = None
    client = connect(nodes.endpoints)
    elect = threading.Timer(0.3, lambda: setattr(nodes, "leader", 2))
    elect.start()
    assert client.set("n", "k", 1).version == 1
    elect.join()


def test_no_node_is_told_as_not_sent_in_time(connect: Connect, nodes: Cluster) -> None:
    endpoints = nodes.endpoints
    nodes.close()
    client = connect(endpoints, timeout=0.5)
    acts: list[Callable[[], Any]] = [
        lambda: client.set("n", "k", 1),
        lambda: client.get("n", "k"),
    ]
    for act in acts:
        begun = time.monotonic()
        with pytest.raises(NotSent):
            act()
        assert time.monotonic() - begun < 1.5


def test_nodes_that_hang_do_not_outlast_the_deadline(connect: Connect, nodes: Cluster) -> None:
    for node in nodes.nodes:
        node.script(lambda r: silence())
    client = connect(nodes.endpoints, timeout=0.8, attempt_timeout=0.3)
    begun = time.monotonic()
    with pytest.raises(OutcomeUnknown, match="no answer within"):
        client.set("n", "k", 1)
    assert time.monotonic() - begun < 2
    nodes.put("n", "k", 1)
    nodes.nodes[2].scripts.clear()
    assert client.get("n", "k", timeout=3).value == 1


def test_a_redirect_is_not_followed(connect: Connect, nodes: Cluster) -> None:
    elsewhere = nodes.add(8)
    everywhere(nodes, Reply(307, headers={"location": f"http://{elsewhere.address}/"}))
    client = connect(nodes.endpoints[:3], token="secret", timeout=0.4)
    with pytest.raises(NotSent, match="redirected"):
        client.set("n", "k", 1)
    assert not elsewhere.requests


def test_reads_spread_and_never_go_back(connect: Connect, nodes: Cluster) -> None:
    client = connect(nodes.endpoints)
    client.set("n", "k", 1)
    for _ in range(6):
        client.get("n", "k")
    reads = nodes.reads()
    assert {read.node for read in reads} == {1, 2, 3}
    assert {read.params["min_revision"] for read in reads} == {"1"}
    client.get("n", "k", min_revision=1, consistency="linearizable")
    assert nodes.reads()[-1].params == {"min_revision": "1", "consistency": "linearizable"}
    assert client.revision == 1
    other = connect(nodes.endpoints, session=False)
    other.get("n", "k")
    assert nodes.reads()[-1].params == {}


def test_a_delete_that_was_passed_on_is_seen_by_the_next_read(
    connect: Connect, nodes: Cluster
) -> None:
    nodes.put("n", "k", 1)
    nodes.leader = 2
    client = connect(nodes.endpoints[:1], follow_leader=False)
    client.delete("n", "k")
    for expected in ({"consistency": "linearizable"}, {"min_revision": "2"}):
        with pytest.raises(NotFound):
            client.get("n", "k")
        assert nodes.reads()[-1].params == expected
        client.resolve("n")


def test_a_schema_is_seen_by_the_next_read(connect: Connect, nodes: Cluster) -> None:
    schema = {"namespace": "n", "key": "k", "schema": True, "version": 1}
    for node in nodes.nodes:
        node.script(lambda r: Reply(200, schema) if "/schemas/" in r.path else None)
    client = connect(nodes.endpoints)
    client.get_schema("n", "k")
    assert nodes.reads()[-1].params == {}
    client.put_schema("n", "k", True)
    client.get_schema("n", "k")
    assert nodes.reads()[-1].params == {"consistency": "linearizable"}


def test_a_token_file_is_read_again_when_the_token_is_refused(
    connect: Connect, nodes: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old")

    def door(request: Request) -> Reply | None:
        if request.headers.get("authorization") == "Bearer new":
            return None
        file.write_text("new")
        return problem("UNAUTHENTICATED", 401)

    for node in nodes.nodes:
        node.script(door)
    client = connect(nodes.endpoints, token_file=file)
    client.set("n", "k", 1)
    assert nodes.writes()[-1].headers["authorization"] == "Bearer new"
    for node in nodes.nodes:
        node.scripts[:] = [lambda r: problem("UNAUTHENTICATED", 401)]
    with pytest.raises(Unauthenticated):
        client.set("n", "k", 1)


def test_a_bad_argument_sends_nothing(connect: Connect, nodes: Cluster) -> None:
    client = connect(nodes.endpoints)
    acts: tuple[Callable[[], Any], ...] = (
        lambda: client.set("n", "k", 1, idempotency_key="x" * 65),
        lambda: client.set("n", "k", 1, idempotency_key=""),
        lambda: client.set("n", "..", 1),
        lambda: client.set("n", "k", object()),
        lambda: client.set("n", "k", 1, tags="one"),
        lambda: client.get("n", "k", timeout=-1),
    )
    for act in acts:
        with pytest.raises((InvalidOption, TypeError)):
            act()
    assert not nodes.requests


def test_a_closed_client_says_so(connect: Connect, nodes: Cluster) -> None:
    client = connect(nodes.endpoints)
    client.close()
    acts: list[Callable[[], Any]] = [lambda: client.get("n", "k"), lambda: client.watch("n")]
    for act in acts:
        with pytest.raises(Closed):
            act()
    assert issubclass(Closed, LlmConfigError)
