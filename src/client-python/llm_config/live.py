"""A namespace that is always at hand: resolved once, followed by watch, served from memory.

Reading it asks nobody and never waits. What is shown changes as a whole, from one good state to the next; a state that
does not parse is told and left out. With a cache file the last good state is there at the start even when no node
answers. It does not write to the cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import anyio
import anyio.abc
import anyio.to_thread

from ._cache import CacheFile
from ._core import backoff
from ._parse import Parse, parser
from ._watch import Wanted
from .aio import AsyncClient, AsyncWatch
from .client import Client
from .errors import CacheError, Closed, InvalidOption, LlmConfigError, NotSent, ParseError, Rejected
from .models import Resolved, WatchEvent
from .options import Options, seconds

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

logger = logging.getLogger("llm_config")

ENVIRONMENTS = {"dev": "development", "stage": "staging", "prod": "production"}
#: Where an environment falls back to; every other one falls back to base.
FALLBACKS = {"base": ("base",), "edge": ("edge", "production", "base")}
#: For the thread of a `LiveConfig` to end; it only cancels what it waits for.
CLOSE_TIMEOUT = 10.0


@dataclass(frozen=True)
class Snapshot(Generic[T]):
    """One good state. `revision` is what it was resolved at, `source` where it came from."""

    value: T = field(repr=False)
    values: Mapping[str, Any] = field(repr=False)
    sources: Mapping[str, str]
    revision: int
    source: Literal["cluster", "cache"]


@dataclass(frozen=True, kw_only=True)
class _Choices(Generic[T]):
    namespace: str
    env: str
    reveal: bool
    parse: Parse[T]
    cache: CacheFile | None
    on_change: Callable[[Snapshot[T]], object] | None
    on_error: Callable[[LlmConfigError], object] | None
    start_timeout: float


class _View(Generic[T]):
    """What both kinds show; written by the follower only, read by any thread."""

    def __init__(self, choices: _Choices[T]) -> None:
        self._choices = choices
        self._current: Snapshot[T] | None = None
        self._confirmed_revision = 0
        self._confirmed_at: float | None = None
        # By what has to happen for the error to be over.
        self._errors: dict[str, LlmConfigError] = {}
        self._changed = threading.Condition()
        self._closed = False

    @property
    def snapshot(self) -> Snapshot[T]:
        """The state as a whole: take it once where several values have to fit together."""
        if self._current is None:
            raise Closed("the live configuration is not started: use it in a `with` block")
        return self._current

    @property
    def value(self) -> T:
        """What `parse` made of it."""
        return self.snapshot.value

    @property
    def values(self) -> Mapping[str, Any]:
        """The values by key, secrets masked unless they are revealed."""
        return self.snapshot.values

    @property
    def source(self) -> Literal["cluster", "cache"]:
        """`cache` from an offline start until a node has answered."""
        return self.snapshot.source

    @property
    def revision(self) -> int:
        """Nothing up to this revision of the cluster is missing here."""
        return max(self._confirmed_revision, self.snapshot.revision)

    @property
    def age(self) -> float:
        """Seconds since the cluster last confirmed that this is the newest; at most about 10 while all is well.

        From a cache file: since it was saved, by this machine's clock.
        """
        confirmed = self._confirmed_at
        return float("inf") if confirmed is None else max(0.0, time.monotonic() - confirmed)

    @property
    def last_error(self) -> LlmConfigError | None:
        """What is wrong now: a state that does not parse, a cluster that does not answer, a cache file. None: nothing."""
        # A copy: the follower may change it meanwhile.
        errors = dict(self._errors)
        return next((errors[kind] for kind in ("parse", "link", "cache") if kind in errors), None)

    # --- for the follower ---

    def _publish(self, snapshot: Snapshot[T], confirmed_at: float) -> None:
        with self._changed:
            self._current = snapshot
            self._confirmed_at = confirmed_at
            # Lower than before only after a restore from a backup.
            self._confirmed_revision = snapshot.revision
            self._changed.notify_all()
        self._wake()
        self._tell(self._choices.on_change, snapshot)

    def _confirm(self, revision: int) -> None:
        with self._changed:
            self._confirmed_at = time.monotonic()
            self._confirmed_revision = max(self._confirmed_revision, revision)
            self._changed.notify_all()
        self._wake()

    def _wake(self) -> None:
        """For those who wait in another way than by the condition."""

    def _failed(self, kind: str, error: LlmConfigError) -> None:
        known = self._errors.get(kind)
        self._errors[kind] = error
        if known is None or str(known) != str(error):
            logger.warning("%s: %s", self._choices.namespace, error)
            self._tell(self._choices.on_error, error)

    def _over(self, kind: str) -> None:
        self._errors.pop(kind, None)

    @staticmethod
    def _tell(callback: Callable[[Any], object] | None, argument: object) -> None:
        if callback is None:
            return
        try:
            callback(argument)
        except Exception:
            # The application's fault must not end the following.
            logger.exception("a callback of a live configuration failed")

    def _end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Follower(Generic[T]):
    """Keeps a view up to date, on asyncio or trio."""

    def __init__(self, client: AsyncClient, choices: _Choices[T], view: _View[T]) -> None:
        self._client = client
        self._choices = choices
        self._view = view
        self._resolved_revision = 0
        self._etag: str | None = None
        self._stale = True
        self._environments = FALLBACKS.get(choices.env, (choices.env, "base"))

    async def start(self) -> None:
        """The first state: of the cluster, or of the cache file when no node answers or what it says does not parse."""
        choices = self._choices
        cached = await self._load()
        if cached is not None:
            # Never behind what was served before a restart.
            self._client._core.seen(cached[0].revision)
        try:
            await self._resolve(timeout=choices.start_timeout)
        except NotSent as error:
            if cached is None:
                raise
            self._view._failed("link", error)
        if self._view._current is None:
            if cached is None:
                raise self._view._errors["parse"]
            snapshot, age = cached
            self._view._publish(snapshot, time.monotonic() - age)

    async def _load(self) -> tuple[Snapshot[T], float] | None:
        choices = self._choices
        if choices.cache is None:
            return None
        parse_float = self._client.options.parse_float
        try:
            found = await anyio.to_thread.run_sync(choices.cache.load, parse_float)
            if found is None:
                return None
            value = choices.parse(found.resolved.values)
        except CacheError as error:
            self._view._failed("cache", error)
            return None
        except ParseError as error:
            self._view._failed("cache", CacheError(f"{choices.cache.path}: {error}; it is ignored"))
            return None
        age = max(0.0, time.time() - found.saved_at)
        return _snapshot(found.resolved, value, "cache"), age

    async def follow(self) -> None:
        """Follows the changes until it is cancelled."""
        failures = 0
        while True:
            before = self._view._confirmed_at
            error: LlmConfigError
            try:
                if self._stale:
                    await self._resolve()
                await self._watch()
                error = NotSent("the watch ended")
            except LlmConfigError as caught:
                error = caught
            if self._view._confirmed_at != before:
                failures = 0
            self._stale = True
            self._view._failed("link", error)
            if isinstance(error, Rejected):
                # The watch's start is gone, or the cluster was restored from a backup: what counts is what it has now.
                await self._recover()
            await anyio.sleep(backoff(failures))
            failures += 1

    async def _recover(self) -> None:
        try:
            await self._resolve(linearizable=True)
        except LlmConfigError as error:
            self._view._failed("link", error)
            # Refused again, or nobody answers: not to be asked at full speed.
            await anyio.sleep(1.0)

    async def _watch(self) -> None:
        choices = self._choices
        wanted = Wanted(
            choices.namespace,
            from_revision=self._resolved_revision + 1,
            bookmarks=True,
            # Whoever asks what is wrong is to hear of an outage.
            patient=False,
        )
        async with AsyncWatch(self._client, wanted) as watch:
            async for event in watch:
                self._view._over("link")
                if self._concerns(event):
                    await self._resolve(event.revision)
                elif event.kind == "bookmark":
                    self._view._confirm(event.revision)

    def _concerns(self, event: WatchEvent) -> bool:
        return (
            event.entry is not None
            and event.entry.env in self._environments
            and event.revision > self._resolved_revision
        )

    async def _resolve(
        self,
        min_revision: int = 0,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Takes over what the cluster has now; what does not parse is told and left out."""
        choices, view = self._choices, self._view
        request = self._client._api.resolve(
            choices.namespace,
            choices.env,
            choices.reveal,
            self._etag,
            timeout,
            {"consistency": "linearizable"}
            if linearizable
            else {"min_revision": min_revision}
            if min_revision
            else {},
        )
        resolved = await self._client._run(request)
        view._over("link")
        self._stale = False
        if resolved is None:
            self._resolved_revision = max(self._resolved_revision, min_revision)
            view._confirm(min_revision)
            return
        self._resolved_revision = resolved.revision
        self._etag = resolved.etag or None
        try:
            value = choices.parse(resolved.values)
        except ParseError as error:
            view._failed("parse", ParseError(error.detail, resolved.revision))
            view._confirm(resolved.revision)
            return
        view._over("parse")
        view._publish(_snapshot(resolved, value, "cluster"), time.monotonic())
        await self._save(resolved)

    async def _save(self, resolved: Resolved) -> None:
        if self._choices.cache is None:
            return
        try:
            await anyio.to_thread.run_sync(self._choices.cache.save, resolved)
        except CacheError as error:
            self._view._failed("cache", error)
        else:
            self._view._over("cache")


def _snapshot(resolved: Resolved, value: T, source: Literal["cluster", "cache"]) -> Snapshot[T]:
    values, sources = MappingProxyType(resolved.values), MappingProxyType(resolved.sources)
    # Without `parse` the value is the values, and as unchangeable.
    shown = values if value is resolved.values else value
    return Snapshot(shown, values, sources, resolved.revision, source)  # type: ignore[arg-type]


def _choices(
    options: Options,
    namespace: str,
    env: str,
    parse: type[T] | Parse[T] | None,
    reveal: bool,
    cache_file: str | os.PathLike[str] | None,
    cache_key: bytes | None,
    on_change: Callable[[Snapshot[T]], object] | None,
    on_error: Callable[[LlmConfigError], object] | None,
    start_timeout: float | None,
) -> _Choices[T]:
    env = ENVIRONMENTS.get(env, env)
    cache = None
    if cache_file is not None:
        cache = CacheFile(cache_file, namespace=namespace, env=env, reveal=reveal, key=cache_key)
    elif cache_key is not None:
        raise InvalidOption("cache_key: give cache_file too")
    if start_timeout is None:
        start_timeout = options.timeout
    return _Choices(
        namespace=namespace,
        env=env,
        reveal=reveal,
        parse=parser(parse),
        cache=cache,
        on_change=on_change,
        on_error=on_error,
        start_timeout=seconds("start_timeout", start_timeout),
    )


class AsyncLiveConfig(_View[T]):
    """A live configuration for asyncio or trio; it follows in a task of its own, which ends with the block.

    ```
    async with AsyncLiveConfig(client, "shop/assistant", env="production") as live:
        live.values["model"]
    ```
    """

    @overload
    def __init__(
        self: AsyncLiveConfig[Mapping[str, Any]],
        client: AsyncClient,
        namespace: str,
        *,
        env: str = "base",
        parse: None = None,
        reveal: bool = False,
        cache_file: str | os.PathLike[str] | None = None,
        cache_key: bytes | None = None,
        on_change: Callable[[Snapshot[Mapping[str, Any]]], object] | None = None,
        on_error: Callable[[LlmConfigError], object] | None = None,
        start_timeout: float | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        client: AsyncClient,
        namespace: str,
        *,
        env: str = "base",
        parse: type[T] | Parse[T],
        reveal: bool = False,
        cache_file: str | os.PathLike[str] | None = None,
        cache_key: bytes | None = None,
        on_change: Callable[[Snapshot[T]], object] | None = None,
        on_error: Callable[[LlmConfigError], object] | None = None,
        start_timeout: float | None = None,
    ) -> None: ...

    def __init__(
        self,
        client: AsyncClient,
        namespace: str,
        *,
        env: str = "base",
        parse: type[T] | Parse[T] | None = None,
        reveal: bool = False,
        cache_file: str | os.PathLike[str] | None = None,
        cache_key: bytes | None = None,
        on_change: Callable[[Snapshot[Any]], object] | None = None,
        on_error: Callable[[LlmConfigError], object] | None = None,
        start_timeout: float | None = None,
    ) -> None:
        """`parse` is a dataclass, a pydantic model or a callable that takes the values; without it `value` is `values`.

        `cache_file` is for starts without a node; with `reveal` it needs `cache_key`, 32 bytes. `on_change` is called
        with each new state, `on_error` with each new error, in the task that follows: neither may block.
        """
        super().__init__(
            _choices(
                client.options,
                namespace,
                env,
                parse,
                reveal,
                cache_file,
                cache_key,
                on_change,
                on_error,
                start_timeout,
            )
        )
        self._follower = _Follower(client, self._choices, self)
        self._tasks: anyio.abc.TaskGroup | None = None
        self._woken = anyio.Event()

    async def __aenter__(self) -> Self:
        await self._follower.start()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._follower.follow)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._end()
        if self._tasks is None:
            return None
        self._tasks.cancel_scope.cancel()
        return await self._tasks.__aexit__(kind, error, traceback)

    async def wait_for_revision(self, revision: int, timeout: float) -> bool:
        """Waits until nothing up to this revision is missing; False when that takes longer than `timeout` seconds."""
        with anyio.move_on_after(seconds("timeout", timeout)):
            while self.revision < revision:
                await self._woken.wait()
        return self.revision >= revision

    def _wake(self) -> None:
        woken, self._woken = self._woken, anyio.Event()
        woken.set()


class LiveConfig(_View[T]):
    """A live configuration for threads; it follows in a thread of its own, which ends with `close`.

    ```
    with LiveConfig(client, "shop/assistant", env="production") as live:
        live.values["model"]
    ```

    The thread has its own connections, made with the client's options; a process that forks starts it after the fork.
    """

    @overload
    def __init__(
        self: LiveConfig[Mapping[str, Any]],
        client: Client,
        namespace: str,
        *,
        env: str = "base",
        parse: None = None,
        reveal: bool = False,
        cache_file: str | os.PathLike[str] | None = None,
        cache_key: bytes | None = None,
        on_change: Callable[[Snapshot[Mapping[str, Any]]], object] | None = None,
        on_error: Callable[[LlmConfigError], object] | None = None,
        start_timeout: float | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        client: Client,
        namespace: str,
        *,
        env: str = "base",
        parse: type[T] | Parse[T],
        reveal: bool = False,
        cache_file: str | os.PathLike[str] | None = None,
        cache_key: bytes | None = None,
        on_change: Callable[[Snapshot[T]], object] | None = None,
        on_error: Callable[[LlmConfigError], object] | None = None,
        start_timeout: float | None = None,
    ) -> None: ...

    def __init__(
        self,
        client: Client,
        namespace: str,
        *,
        env: str = "base",
        parse: type[T] | Parse[T] | None = None,
        reveal: bool = False,
        cache_file: str | os.PathLike[str] | None = None,
        cache_key: bytes | None = None,
        on_change: Callable[[Snapshot[Any]], object] | None = None,
        on_error: Callable[[LlmConfigError], object] | None = None,
        start_timeout: float | None = None,
    ) -> None:
        """As of `AsyncLiveConfig`; the callbacks are called in the thread that follows."""
        super().__init__(
            _choices(
                client.options,
                namespace,
                env,
                parse,
                reveal,
                cache_file,
                cache_key,
                on_change,
                on_error,
                start_timeout,
            )
        )
        self._options = client.options
        self._seen = client.revision
        self._thread: threading.Thread | None = None
        self._cancel: Callable[[], None] | None = None
        self._started: Future[None] = Future()

    def start(self) -> Self:
        """Returns with the first state, or raises why there is none. `with` calls it."""
        if self._closed or self._thread is not None:
            raise Closed("a live configuration is started once")
        self._thread = threading.Thread(
            target=self._main, name=f"llm-config {self._choices.namespace}", daemon=True
        )
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Ends the thread. The last state stays readable."""
        self._end()
        with self._changed:
            cancel = self._cancel
        if cancel is not None:
            cancel()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_TIMEOUT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_for_revision(self, revision: int, timeout: float) -> bool:
        """Waits until nothing up to this revision is missing; False when that takes longer than `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self.revision >= revision, seconds("timeout", timeout)
            )
            return self.revision >= revision

    def _main(self) -> None:
        try:
            anyio.run(partial(self._follow), backend="asyncio")
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            else:
                logger.exception("a live configuration ended by a fault")
        finally:
            if not self._started.done():
                self._started.set_exception(Closed("the live configuration was closed"))
            self._end()

    async def _follow(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            with self._changed:
                self._cancel = _threadsafe(loop.call_soon_threadsafe, scope.cancel)
                closed = self._closed
            if closed:
                return
            async with AsyncClient(self._options) as client:
                client._core.seen(self._seen)
                follower = _Follower(client, self._choices, self)
                await follower.start()
                self._started.set_result(None)
                await follower.follow()
        with self._changed:
            self._cancel = None


def _threadsafe(
    schedule: Callable[..., object], action: Callable[[], object]
) -> Callable[[], None]:
    def call() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            schedule(action)

    return call
