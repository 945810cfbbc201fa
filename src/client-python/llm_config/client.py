"""The synchronous client. Safe for use by any number of threads.

A process that forks makes its clients after the fork: connections cannot be shared between processes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from . import _http
from ._api import Api
from ._core import Answer, Core, Fault, Reply, Request, Send, Sleep, call
from ._json import ParseFloat
from ._watch import Emit, Open, Opened, Receive, Shut, Wanted, WatchEffect, WatchReply, watch
from .errors import Closed
from .models import (
    Diff,
    Entry,
    NamespaceCount,
    Page,
    Resolved,
    Schema,
    TxnResult,
    WatchEvent,
)
from .options import TLS, Options, ReadOptions
from .txn import Txn

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")


class Client:
    """A client of the cluster; one for an application is enough."""

    def __init__(
        self,
        endpoints: str | Sequence[str] | Options,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        tls: TLS | None = None,
        timeout: float = 15.0,
        parse_float: ParseFloat | None = None,
    ) -> None:
        """Endpoints and the choices that are made most; an `Options` has all of them. Nothing is sent yet."""
        if isinstance(endpoints, Options):
            options = endpoints
        else:
            options = Options(
                endpoints=endpoints,
                token=token,
                token_file=token_file,
                tls=tls,
                timeout=timeout,
                parse_float=parse_float,
            )
        self.options = options
        self._core = Core(options)
        self._api = Api(self._core)
        self._http = httpx.Client(**_http.settings(options))
        self._closed = False

    @property
    def revision(self) -> int:
        """The highest revision that this client has seen: hand it to another as `min_revision`."""
        return self._core.revision

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the client is closed")

    def close(self) -> None:
        """Closes all connections. Calls in flight fail; watches are closed by themselves."""
        self._closed = True
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, request: Request[T]) -> T:
        machine = call(self._core, request)
        reply: Reply = None
        while True:
            try:
                effect = machine.send(reply)
            except StopIteration as stop:
                value: T = stop.value
                return value
            reply = self._perform(effect)

    def _perform(self, effect: Send | Sleep) -> Reply:
        self._check_open()
        if isinstance(effect, Sleep):
            time.sleep(effect.seconds)
            return None
        return self._send(effect)

    def _send(self, send: Send) -> Answer | Fault:
        deadline = time.monotonic() + send.timeout
        limits = _http.timeouts(send.timeout, self.options.connect_timeout, send.timeout)
        body = bytearray()
        try:
            with self._http.stream(
                send.method, send.url, headers=send.headers, content=send.content, timeout=limits
            ) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _http.ANSWER_BYTES_MAX:
                        raise _http.TooMuch
                    if time.monotonic() > deadline:
                        return _http.no_answer(send.timeout)
            return Answer(response.status_code, _http.lower(response.headers), bytes(body))
        except (httpx.RequestError, _http.TooMuch) as error:
            return _http.fault(error, send.timeout)

    def get(
        self,
        namespace: str,
        key: str,
        *,
        env: str | None = None,
        resolve: bool = False,
        version: int | None = None,
        reveal: bool = False,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Entry:
        """One entry; `NotFound` when it is not there.

        `resolve` falls back as the environment does, `version` gives an old one, `reveal` the plaintext of a secret.
        """
        return self._run(
            self._api.get(namespace, key, env, resolve, version, reveal, timeout, read)
        )

    def set(
        self,
        namespace: str,
        key: str,
        value: Any,
        *,
        env: str | None = None,
        secret: bool | None = None,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        comment: str | None = None,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Entry:
        """Creates or changes an entry, at most once, whatever it took.

        `expected_version=0`: it must not exist. `comment` says why, in the history and in the audit log.
        """
        return self._run(
            self._api.set(
                namespace,
                key,
                value,
                env,
                secret,
                description,
                tags,
                comment,
                expected_version,
                idempotency_key,
                timeout,
            )
        )

    def delete(
        self,
        namespace: str,
        key: str,
        *,
        env: str | None = None,
        comment: str | None = None,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Deletes an entry; `NotFound` when it is not there. History keeps what was."""
        return self._run(
            self._api.delete(
                namespace, key, env, comment, expected_version, idempotency_key, timeout
            )
        )

    def rollback(
        self,
        namespace: str,
        key: str,
        version: int,
        *,
        env: str | None = None,
        comment: str | None = None,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Entry:
        """Brings the value of an old version back, as a new version."""
        return self._run(
            self._api.rollback(
                namespace, key, version, env, comment, expected_version, idempotency_key, timeout
            )
        )

    def commit(
        self, txn: Txn, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> TxnResult:
        """Carries a transaction out, all or nothing."""
        return self._run(self._api.commit(txn, idempotency_key, timeout))

    def list(
        self,
        namespace: str,
        *,
        env: str | None = None,
        prefix: str = "",
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Page[Entry]:
        """A page of a namespace's entries in one environment, by key; `limit` is 1 to 1000, 100 when absent."""
        return self._run(self._api.list(namespace, env, prefix, limit, cursor, timeout, read))

    def namespaces(
        self,
        *,
        prefix: str = "",
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Page[NamespaceCount]:
        """A page of the namespaces that have entries."""
        return self._run(self._api.namespaces(prefix, limit, cursor, timeout, read))

    def history(
        self,
        namespace: str,
        key: str,
        *,
        env: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Page[Entry]:
        """A page of an entry's versions, the newest first, deletes included."""
        return self._run(self._api.history(namespace, key, env, limit, cursor, timeout, read))

    def diff(
        self,
        namespace: str,
        key: str,
        *,
        env: str | None = None,
        from_version: int | None = None,
        to_version: int | None = None,
        env_from: str | None = None,
        env_to: str | None = None,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Diff:
        """What changed between two versions, or between the current values of two environments."""
        return self._run(
            self._api.diff(
                namespace, key, env, from_version, to_version, env_from, env_to, timeout, read
            )
        )

    def resolve(
        self,
        namespace: str,
        *,
        env: str | None = None,
        reveal: bool = False,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Resolved:
        """A whole namespace as an application in one environment sees it, secrets masked unless `reveal`."""
        found = self._run(self._api.resolve(namespace, env, reveal, None, timeout, read))
        assert found is not None  # only an entity tag can be answered with "not modified"
        return found

    def put_schema(
        self,
        namespace: str,
        key: str,
        schema: Any,
        *,
        comment: str | None = None,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Schema:
        """Sets the JSON Schema (2020-12) that every later value of the key must meet."""
        return self._run(
            self._api.put_schema(
                namespace, key, schema, comment, expected_version, idempotency_key, timeout
            )
        )

    def get_schema(
        self,
        namespace: str,
        key: str,
        *,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Schema:
        """The key's schema; `NotFound` when it has none."""
        return self._run(self._api.get_schema(namespace, key, timeout, read))

    def list_schemas(
        self,
        namespace: str,
        *,
        prefix: str = "",
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Page[Schema]:
        """A page of the namespace's schemas, sorted by key."""
        return self._run(self._api.list_schemas(namespace, prefix, limit, cursor, timeout, read))

    def delete_schema(
        self,
        namespace: str,
        key: str,
        *,
        comment: str | None = None,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Removes the key's schema."""
        return self._run(
            self._api.delete(
                namespace,
                key,
                None,
                comment,
                expected_version,
                idempotency_key,
                timeout,
                of="schemas",
            )
        )

    def watch(
        self,
        namespace: str | None = None,
        *,
        namespace_prefix: str = "",
        prefix: str = "",
        env: str | None = None,
        from_revision: int | None = None,
        bookmarks: bool = False,
    ) -> Watch:
        """Every change once, in order, across reconnects; all namespaces and environments when None.

        `prefix` is that of the keys, `namespace_prefix`, instead of `namespace`, that of the namespaces.
        It begins with `from_revision` itself; when absent, with the first change after the stream is open. The first
        stream must open within the client's timeout (`NotSent`), after it the watch waits for the cluster as long as
        it takes. It ends by an error only, such as `RevisionCompacted`. `bookmarks` are events too then.
        """
        self._check_open()
        return Watch(
            self, Wanted(namespace, namespace_prefix, prefix, env, from_revision, bookmarks)
        )


class Watch:
    """A running watch: an iterator, to be closed (`with` does). `close` may be called from another thread."""

    def __init__(self, client: Client, wanted: Wanted) -> None:
        self._client = client
        self._machine = watch(client._core, wanted)
        self._reply: WatchReply = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[WatchEvent]:
        return self

    def __next__(self) -> WatchEvent:
        try:
            while not self._closing.is_set():
                effect = self._machine.send(self._reply)
                self._reply = None
                if isinstance(effect, Emit):
                    return effect.event
                self._reply = self._perform(effect)
        except BaseException:
            self._closing.set()
            self._shut()
            raise
        self._shut()
        raise StopIteration

    def close(self) -> None:
        """Ends it, also while another thread waits for the next event."""
        self._closing.set()
        with self._lock:
            response = self._response
        if response is not None:
            # Whoever reads is woken by the end of the connection, and closes it.
            stream = response.extensions.get("network_stream")
            sock = None if stream is None else stream.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):  # it has ended already
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._shut()

    def _perform(self, effect: WatchEffect) -> WatchReply:
        if isinstance(effect, Sleep):
            self._closing.wait(effect.seconds)
            return None
        if isinstance(effect, Open):
            return self._open(effect)
        if isinstance(effect, Receive):
            return self._receive(effect)
        if isinstance(effect, Shut):
            self._shut()
            return None
        assert isinstance(effect, Send)
        return self._client._perform(effect)

    def _open(self, effect: Open) -> Opened | Answer | Fault:
        self._client._check_open()
        http, options = self._client._http, self._client.options
        limits = _http.timeouts(effect.timeout, options.connect_timeout, effect.timeout)
        headers = {**effect.headers, "accept-encoding": "identity"}
        try:
            request = http.build_request("GET", effect.url, headers=headers, timeout=limits)
            response = http.send(request, stream=True)
            if not _http.is_stream(response):
                try:
                    body = bounded(response.iter_bytes())
                finally:
                    response.close()
                return Answer(response.status_code, _http.lower(response.headers), body)
        except (httpx.RequestError, _http.TooMuch) as error:
            return _http.fault(error, effect.timeout)
        # The answer began in time; from now on silence is what counts, not the time for an attempt.
        request.extensions["timeout"]["read"] = options.watch_silence
        with self._lock:
            self._response = response
        self._chunks = response.iter_raw()
        return Opened(_http.lower(response.headers))

    def _receive(self, effect: Receive) -> bytes | Fault:
        assert self._chunks is not None
        try:
            return next(self._chunks, b"")
        except httpx.RequestError as error:
            return _http.fault(error, effect.timeout)

    def _shut(self) -> None:
        with self._lock:
            response, self._response = self._response, None
        self._chunks = None
        if response is not None:
            response.close()


def bounded(chunks: Iterator[bytes]) -> bytes:
    """All of it, if that is not too much."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > _http.ANSWER_BYTES_MAX:
            raise _http.TooMuch
    return bytes(body)
