"""One call with all its attempts, without any input or output of its own.

`call` is a generator: it yields what is to be done (`Send`, `Sleep`), and is sent back what came of it. The synchronous
and the asynchronous client only carry that out, so that retries, deadlines and the books on nodes, tokens and revisions
are written once, here.

An attempt fails in one of four ways. *Unreachable* and *refused*: nothing was proposed, try again. *Lost*: a write may
have happened; trying again is safe because every attempt carries the same idempotency key, but a failure can no longer
be reported as "did not happen". *Rejected*: final.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, Union
from urllib.parse import urlencode

from . import _json
from ._nodes import Node, Nodes, members
from ._token import Bearer, Shown
from ._version import __version__
from .errors import LlmConfigError, NotSent, OutcomeUnknown, Rejected, Unauthenticated, rejection
from .options import Options, seconds

T = TypeVar("T")

BACKOFF_FIRST = 0.025
BACKOFF_MAX = 1.0
#: Longest wait that a node is believed; a call gives up before it anyway.
WAIT_MAX = 3600.0
#: An attempt with less time than this only hides why the one before failed.
ATTEMPT_MIN = 0.02
#: For the question who is in the cluster: it only makes the way shorter, so it must not cost much of a call.
DISCOVERY_TIMEOUT = 1.0
#: Refused for what concerns this caller, on whichever node.
OF_THE_CALLER = frozenset({"RATE_LIMITED"})
REFUSALS = frozenset({"NO_LEADER", "NOT_READY", "OVERLOADED", "STALE", "RATE_LIMITED"})


@dataclass(frozen=True)
class Send:
    """Send this to a node and read the whole answer, within `timeout` seconds."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None
    timeout: float


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """What a node answered; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Fault:
    """No answer. `sent` is false when the request certainly did not reach the node."""

    reason: str
    sent: bool


Effect = Union[Send, Sleep]
Reply = Union[Answer, Fault, None]
Calling = Generator[Effect, Reply, T]


@dataclass(frozen=True)
class Request(Generic[T]):
    """One call of the API, and how its answer is read."""

    method: str
    path: str
    decode: Callable[[Answer], T] = field(repr=False)
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    write: bool = False
    idempotency_key: str = ""
    timeout: float | None = None
    is_delete: bool = False
    changes_schema: bool = False


# --- how one attempt failed ---


@dataclass(frozen=True)
class Unreachable:
    """The connection could not be opened, or what answered is no node."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """The node proposed nothing, and trying again makes sense, after a time if it named one."""

    code: str
    reason: str
    after: float


@dataclass(frozen=True)
class Lost:
    """No answer, or one that leaves it open: a write may have happened."""

    reason: str


@dataclass(frozen=True)
class Final:
    """Refused for good."""

    error: Rejected


Failure = Union[Unreachable, Refused, Lost, Final]


def classify(answer: Answer) -> Failure | None:
    """Reads the failure out of an answer; None when it is none."""
    if 200 <= answer.status < 300 or answer.status == 304:
        return None
    document = _problem(answer)
    if document is None:
        return _bare(answer)
    return classify_problem(document, retry_after(answer.headers), answer)


def classify_problem(
    document: Mapping[str, Any], after: float | None, answer: Answer | None = None
) -> Failure:
    """Reads the failure out of a problem document."""
    code, detail = str(document["code"]), str(document.get("detail") or "")
    applied = document.get("applied")
    if code in REFUSALS or (document.get("retryable") is True and applied == "no"):
        return Refused(code, f"{code}: {detail}", after or 0.0)
    if code == "OUTCOME_UNKNOWN" or applied == "unknown":
        return Lost(f"{code}: {detail}")
    status = answer.status if answer else document.get("status")
    known = {"code", "detail", "status", "request_id", "type", "title", "instance"}
    extensions = {name: value for name, value in document.items() if name not in known}
    if after is not None:
        extensions["retry_after_seconds"] = after
    request_id = str(document.get("request_id") or "")
    if not request_id and answer is not None:
        request_id = answer.headers.get("x-request-id", "")
    return Final(
        rejection(
            code,
            detail,
            status=status if isinstance(status, int) else 0,
            request_id=request_id,
            extensions=extensions,
        )
    )


def _problem(answer: Answer) -> Mapping[str, Any] | None:
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        document = _json.loads(answer.body)
    except ValueError:
        return None
    return document if isinstance(document, dict) and "code" in document else None


def _bare(answer: Answer) -> Failure:
    """Statuses without a problem document come from a proxy, or from what is no node at all."""
    status = answer.status
    if 300 <= status < 400:
        target = answer.headers.get("location", "elsewhere")[:200]
        # A token must not go where an answer says.
        return Unreachable(f"redirected to {target}, which is not followed; is it a node?")
    if status == 429:
        return Refused("RATE_LIMITED", "HTTP 429", retry_after(answer.headers) or 0.0)
    codes = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 413: "PAYLOAD_TOO_LARGE"}
    if 400 <= status < 500:
        return Final(
            rejection(
                codes.get(status, f"HTTP_{status}"),
                "the answer is not a node's problem document; is there a proxy, or no node?",
                status=status,
                request_id=answer.headers.get("x-request-id", ""),
                extensions={},
            )
        )
    return Lost(f"HTTP {status} without a problem document")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from 0 to an hour. Dates are not what nodes send."""
    try:
        return min(max(float(headers.get("retry-after", "")), 0.0), WAIT_MAX)
    except ValueError:
        return None


def backoff(failures: int) -> float:
    """Full jitter: a random time up to a growing bound, so that clients that failed together come back apart."""
    return random.uniform(0.0, min(BACKOFF_FIRST * 2 ** min(failures, 16), BACKOFF_MAX))


# --- a client's memory ---


class Core:
    """What a client remembers between calls, for any number of threads."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.nodes = Nodes(options.endpoints, options.tls is not None, options.discovery_interval)
        has_token = options.token is not None or options.token_file is not None
        self.bearer = Bearer(options.token, options.token_file) if has_token else None
        self._lock = threading.Lock()
        self._revision = 0
        # Writes whose revision no answer told, and how many of them a linearizable read has covered.
        self._untold = 0
        self._untold_seen = 0

    @property
    def revision(self) -> int:
        """The highest revision that this client has seen."""
        return self._revision

    def seen(self, revision: int) -> None:
        """Remembers a revision."""
        with self._lock:
            self._revision = max(self._revision, revision)

    def headers(self, request_headers: Mapping[str, str]) -> tuple[dict[str, str], Shown | None]:
        """The headers of an attempt, and the token that they show."""
        headers = {"user-agent": f"llm-config-client-python/{__version__}", **request_headers}
        shown = None if self.bearer is None else self.bearer.shown()
        if shown is not None:
            headers["authorization"] = shown.header
        return headers, shown

    def session(self, request: Request[Any]) -> tuple[dict[str, str], int]:
        """The query of a read that must not go back, and how many untold writes it covers."""
        params = dict(request.params)
        untold = self._untold
        if request.write or not self.options.session:
            return params, 0
        if params.get("consistency") == "linearizable":
            return params, untold
        if untold > self._untold_seen:
            # Passed on by a follower, a delete does not say its revision; a schema has none.
            params["consistency"] = "linearizable"
            return params, untold
        if self._revision > 0:
            least = max(int(params.get("min_revision", "0")), self._revision)
            params["min_revision"] = str(least)
        return params, 0

    def answered(self, node: Node, answer: Answer) -> None:
        """Keeps the books after an answer."""
        node_id = _number(answer.headers.get("x-config-node"))
        leader_id = _number(answer.headers.get("x-config-leader"))
        self.nodes.answered(node, node_id, leader_id)
        revision = _number(answer.headers.get("x-config-revision"))
        if revision is not None:
            self.seen(revision)

    def succeeded(
        self,
        request: Request[Any],
        params: Mapping[str, str],
        answer: Answer,
        untold: int,
        before: int,
    ) -> None:
        """Keeps the books after an answer that is a success; `before` is the revision known when it was asked for."""
        revision = _number(answer.headers.get("x-config-revision"))
        newest = params.get("consistency") == "linearizable" and not request.write
        with self._lock:
            if newest and revision is not None and revision < before and self._revision <= before:
                # Restored from a backup: to wait for a revision that is gone would be for ever.
                self._revision = revision
            self._untold_seen = max(self._untold_seen, untold)
            node, leader = (answer.headers.get(f"x-config-{name}") for name in ("node", "leader"))
            passed_on = node is None or node != leader
            # A schema makes no revision at all.
            if request.changes_schema or (request.is_delete and passed_on):
                self._untold += 1


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


# --- one call ---


def call(core: Core, request: Request[T]) -> Calling[T]:
    """Carries a request out; returns what its answer decodes to, or raises what the caller may conclude."""
    budget = core.options.timeout
    if request.timeout is not None:
        budget = seconds("timeout", request.timeout)
    deadline = time.monotonic() + budget
    lost = False
    failures = 0
    last: Node | None = None
    refused_by: set[str] = set()
    while True:
        yield from discover(core, request.write, deadline)
        to_leader = request.write and core.options.follow_leader
        node = core.nodes.pick(to_leader, avoid=last)
        outcome, shown = yield from _attempt(core, request, node, deadline)
        if isinstance(outcome, _Success):
            return outcome.value
        last = node
        if isinstance(outcome, Final):
            pause = again(core, outcome.error, shown)
            if pause is None:
                # A write that an earlier attempt may still bring about is not "refused", whatever came later.
                if lost and request.write:
                    raise OutcomeUnknown(str(outcome.error), request.idempotency_key)
                raise outcome.error
            reason, code = str(outcome.error), outcome.error.code
        else:
            lost = lost or isinstance(outcome, Lost)
            pause = _pause(core, outcome, node, refused_by)
            reason = outcome.reason
            code = outcome.code if isinstance(outcome, Refused) else ""
        pause += backoff(failures)
        failures += 1
        if time.monotonic() + pause >= deadline - ATTEMPT_MIN:
            raise _conclude(request, lost, reason, code)
        yield Sleep(pause)


def _pause(
    core: Core, failure: Unreachable | Refused | Lost, node: Node, refused_by: set[str]
) -> float:
    """How long to wait before the next attempt at least."""
    if not isinstance(failure, Refused):
        return 0.0
    if failure.code == "NO_LEADER":
        core.nodes.not_leading()
    refused_by.add(node.address)
    # One node may be cut off or loaded while the others serve: its wait is for when all have refused.
    others = set(core.nodes.addresses()) - refused_by
    if others and failure.code not in OF_THE_CALLER:
        return 0.0
    refused_by.clear()
    return failure.after


def again(core: Core, error: Rejected, shown: Shown | None) -> float | None:
    """The wait before a rejected attempt is made again with another token; None when it is final."""
    if not isinstance(error, Unauthenticated) or core.bearer is None or shown is None:
        return None
    return core.bearer.refused(shown)


def _conclude(request: Request[Any], lost: bool, reason: str, code: str) -> LlmConfigError:
    if lost and request.write:
        return OutcomeUnknown(reason, request.idempotency_key)
    return NotSent(reason, code)


@dataclass(frozen=True)
class _Success(Generic[T]):
    value: T


def _attempt(
    core: Core, request: Request[T], node: Node, deadline: float
) -> Calling[tuple[_Success[T] | Failure, Shown | None]]:
    """One attempt at one node."""
    headers, shown = core.headers(request.headers)
    if request.write and request.idempotency_key:
        headers["idempotency-key"] = request.idempotency_key
    before = core.revision
    params, untold = core.session(request)
    url = core.nodes.url(node) + request.path
    if params:
        url += "?" + urlencode(params)
    timeout = min(core.options.attempt_timeout, max(deadline - time.monotonic(), 0.001))
    reply = yield Send(request.method, url, headers, request.body, timeout)
    if isinstance(reply, Fault):
        core.nodes.silent(node)
        reason = f"{node.address}: {reply.reason}"
        return (Lost(reason) if reply.sent else Unreachable(reason)), shown
    assert isinstance(reply, Answer)
    failure = classify(reply)
    if failure is None:
        try:
            value = request.decode(reply)
        except ValueError as error:
            core.nodes.silent(node)
            return Lost(f"{node.address}: {error}; is it a node of another version?"), shown
        core.answered(node, reply)
        core.succeeded(request, params, reply, untold, before)
        if core.bearer is not None and shown is not None:
            core.bearer.accepted(shown)
        return _Success(value), shown
    if isinstance(failure, Unreachable) or (
        isinstance(failure, Lost) and "x-config-node" not in reply.headers
    ):
        core.nodes.silent(node)
    else:
        core.answered(node, reply)
    return failure, shown


def discover(core: Core, for_leader: bool, deadline: float) -> Calling[None]:
    """Asks for the members when that is due. Failing costs nothing but the time."""
    if not core.nodes.discovery_due(for_leader and core.options.follow_leader):
        return
    node = core.nodes.pick(False)
    headers, _ = core.headers({})
    remaining = deadline - time.monotonic()
    timeout = max(min(DISCOVERY_TIMEOUT, core.options.attempt_timeout, remaining / 4), 0.001)
    url = core.nodes.url(node) + "/api/v1/cluster"
    reply = yield Send("GET", url, headers, None, timeout)
    if isinstance(reply, Fault):
        core.nodes.silent(node)
        return
    assert isinstance(reply, Answer)
    failure = classify(reply)
    if isinstance(failure, Final):
        core.nodes.discovery_refused()
    if failure is not None:
        return
    try:
        listed, leader = members(_json.loads(reply.body))
    except ValueError:
        return
    core.answered(node, reply)
    core.nodes.discovered(listed, leader)
