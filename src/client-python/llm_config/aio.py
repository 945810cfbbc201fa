"""The asynchronous client, on asyncio or trio."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
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


class AsyncClient:
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
        self._http = httpx.AsyncClient(**_http.settings(options))
        self._closed = False

    @property
    def revision(self) -> int:
        """The highest revision that this client has seen: hand it to another as `min_revision`."""
        return self._core.revision

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the client is closed")

    async def aclose(self) -> None:
        """Closes all connections. Calls in flight fail; watches are closed by themselves."""
        self._closed = True
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, request: Request[T]) -> T:
        machine = call(self._core, request)
        reply: Reply = None
        while True:
            try:
                effect = machine.send(reply)
            except StopIteration as stop:
                value: T = stop.value
                return value
            reply = await self._perform(effect)

    async def _perform(self, effect: Send | Sleep) -> Reply:
        self._check_open()
        if isinstance(effect, Sleep):
            await anyio.sleep(effect.seconds)
            return None
        return await self._send(effect)

    async def _send(self, send: Send) -> Answer | Fault:
        limits = _http.timeouts(send.timeout, self.options.connect_timeout, send.timeout)
        try:
            with anyio.move_on_after(send.timeout):
                async with self._http.stream(
                    send.method,
                    send.url,
                    headers=send.headers,
                    content=send.content,
                    timeout=limits,
                ) as response:
                    body = await bounded(response.aiter_bytes())
                return Answer(response.status_code, _http.lower(response.headers), body)
        except (httpx.RequestError, _http.TooMuch) as error:
            return _http.fault(error, send.timeout)
        return _http.no_answer(send.timeout)

    async def get(
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
        return await self._run(
            self._api.get(namespace, key, env, resolve, version, reveal, timeout, read)
        )

    async def set(
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
        return await self._run(
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

    async def delete(
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
        return await self._run(
            self._api.delete(
                namespace, key, env, comment, expected_version, idempotency_key, timeout
            )
        )

    async def rollback(
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
        return await self._run(
            self._api.rollback(
                namespace, key, version, env, comment, expected_version, idempotency_key, timeout
            )
        )

    async def commit(
        self, txn: Txn, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> TxnResult:
        """Carries a transaction out, all or nothing."""
        return await self._run(self._api.commit(txn, idempotency_key, timeout))

    async def list(
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
        return await self._run(self._api.list(namespace, env, prefix, limit, cursor, timeout, read))

    async def namespaces(
        self,
        *,
        prefix: str = "",
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Page[NamespaceCount]:
        """A page of the namespaces that have entries."""
        return await self._run(self._api.namespaces(prefix, limit, cursor, timeout, read))

    async def history(
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
        return await self._run(self._api.history(namespace, key, env, limit, cursor, timeout, read))

    async def diff(
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
        return await self._run(
            self._api.diff(
                namespace, key, env, from_version, to_version, env_from, env_to, timeout, read
            )
        )

    async def resolve(
        self,
        namespace: str,
        *,
        env: str | None = None,
        reveal: bool = False,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Resolved:
        """A whole namespace as an application in one environment sees it, secrets masked unless `reveal`."""
        found = await self._run(self._api.resolve(namespace, env, reveal, None, timeout, read))
        assert found is not None  # only an entity tag can be answered with "not modified"
        return found

    async def put_schema(
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
        return await self._run(
            self._api.put_schema(
                namespace, key, schema, comment, expected_version, idempotency_key, timeout
            )
        )

    async def get_schema(
        self,
        namespace: str,
        key: str,
        *,
        timeout: float | None = None,
        **read: Unpack[ReadOptions],
    ) -> Schema:
        """The key's schema; `NotFound` when it has none."""
        return await self._run(self._api.get_schema(namespace, key, timeout, read))

    async def list_schemas(
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
        return await self._run(
            self._api.list_schemas(namespace, prefix, limit, cursor, timeout, read)
        )

    async def delete_schema(
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
        return await self._run(
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
    ) -> AsyncWatch:
        """Every change once, in order, across reconnects; all namespaces and environments when None.

        `prefix` is that of the keys, `namespace_prefix`, instead of `namespace`, that of the namespaces.
        It begins with `from_revision` itself; when absent, with the first change after the stream is open. The first
        stream must open within the client's timeout (`NotSent`), after it the watch waits for the cluster as long as
        it takes. It ends by an error only, such as `RevisionCompacted`. `bookmarks` are events too then.
        """
        self._check_open()
        return AsyncWatch(
            self, Wanted(namespace, namespace_prefix, prefix, env, from_revision, bookmarks)
        )


class AsyncWatch:
    """A running watch: an asynchronous iterator, to be closed (`async with` does)."""

    def __init__(self, client: AsyncClient, wanted: Wanted) -> None:
        self._client = client
        self._machine = watch(client._core, wanted)
        self._reply: WatchReply = None
        self._closed = False
        self._response: httpx.Response | None = None
        self._chunks: AsyncGenerator[bytes, None] | None = None

    def __aiter__(self) -> AsyncIterator[WatchEvent]:
        return self

    async def __anext__(self) -> WatchEvent:
        if self._closed:
            raise StopAsyncIteration
        try:
            while True:
                effect = self._machine.send(self._reply)
                self._reply = None
                if isinstance(effect, Emit):
                    return effect.event
                self._reply = await self._perform(effect)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Ends it."""
        self._closed = True
        await self._shut()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _perform(self, effect: WatchEffect) -> WatchReply:
        if isinstance(effect, Open):
            return await self._open(effect)
        if isinstance(effect, Receive):
            return await self._receive(effect)
        if isinstance(effect, Shut):
            await self._shut()
            return None
        assert isinstance(effect, (Send, Sleep))
        return await self._client._perform(effect)

    async def _open(self, effect: Open) -> Opened | Answer | Fault:
        self._client._check_open()
        http, options = self._client._http, self._client.options
        limits = _http.timeouts(effect.timeout, options.connect_timeout, None)
        headers = {**effect.headers, "accept-encoding": "identity"}
        try:
            with anyio.move_on_after(effect.timeout):
                request = http.build_request("GET", effect.url, headers=headers, timeout=limits)
                response = await http.send(request, stream=True)
                if _http.is_stream(response):
                    self._response = response
                    # What httpx calls an iterator is a generator, which has to be closed in its own loop.
                    self._chunks = cast("AsyncGenerator[bytes, None]", response.aiter_raw())
                    return Opened(_http.lower(response.headers))
                try:
                    body = await bounded(response.aiter_bytes())
                finally:
                    await _aclose(response)
                return Answer(response.status_code, _http.lower(response.headers), body)
        except (httpx.RequestError, _http.TooMuch) as error:
            return _http.fault(error, effect.timeout)
        return _http.no_answer(effect.timeout)

    async def _receive(self, effect: Receive) -> bytes | Fault:
        assert self._chunks is not None
        try:
            with anyio.move_on_after(effect.timeout):
                return await anext(self._chunks, b"")
        except httpx.RequestError as error:
            return _http.fault(error, effect.timeout)
        return Fault(f"silent for {effect.timeout:.3g} s", sent=True)

    async def _shut(self) -> None:
        response, self._response = self._response, None
        chunks, self._chunks = self._chunks, None
        # Also while the task is being cancelled: neither the connection nor the generator must be left behind.
        with anyio.CancelScope(shield=True):
            if chunks is not None:
                await chunks.aclose()
            if response is not None:
                await response.aclose()


async def _aclose(response: httpx.Response) -> None:
    # Also while the task is being cancelled: the connection must not be left behind.
    with anyio.CancelScope(shield=True):
        await response.aclose()


async def bounded(chunks: AsyncIterator[bytes]) -> bytes:
    """All of it, if that is not too much."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > _http.ANSWER_BYTES_MAX:
            raise _http.TooMuch
    return bytes(body)
