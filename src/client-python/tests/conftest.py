"""Both clients behind one face, so that each promise is tested once, for threads, asyncio and trio."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from llm_config import AsyncClient, AsyncLiveConfig, Client, LiveConfig, Options

from .fake import Cluster, cluster, until

QUICK: dict[str, Any] = {
    "timeout": 4.0,
    "attempt_timeout": 0.4,
    "connect_timeout": 0.3,
    "watch_silence": 1.0,
}


class AsyncFace:
    """An `AsyncClient` for callers that are not asynchronous."""

    def __init__(self, portal: BlockingPortal, options: Options) -> None:
        self._portal = portal
        self._client = portal.call(lambda: _made(AsyncClient, options))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name in ("revision", "_core"):
            return found
        if name == "watch":
            return lambda *args, **kwargs: AsyncWatchFace(
                self._portal, partial(found, *args, **kwargs)
            )
        return lambda *args, **kwargs: self._portal.call(partial(found, *args, **kwargs))

    def live(self, *args: Any, **kwargs: Any) -> contextlib.AbstractContextManager[Any]:
        return _live(self._portal, self._client, args, kwargs)

    def close(self) -> None:
        self._portal.call(self._client.aclose)


async def _made(kind: Any, *args: Any, **kwargs: Any) -> Any:
    return kind(*args, **kwargs)


@contextlib.contextmanager
def _live(
    portal: BlockingPortal, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[Any]:
    live = portal.call(partial(_made, AsyncLiveConfig, client, *args, **kwargs))
    with portal.wrap_async_context_manager(live):
        yield LiveFace(portal, live)


class LiveFace:
    def __init__(self, portal: BlockingPortal, live: Any) -> None:
        self._portal, self._live = portal, live

    def __getattr__(self, name: str) -> Any:
        return getattr(self._live, name)

    def wait_for_revision(self, revision: int, timeout: float) -> bool:
        return self._portal.call(self._live.wait_for_revision, revision, timeout)  # type: ignore[no-any-return]


class AsyncWatchFace:
    def __init__(self, portal: BlockingPortal, make: Callable[[], Any]) -> None:
        self._portal = portal
        self._watch = make()

    def __iter__(self) -> AsyncWatchFace:
        return self

    def __next__(self) -> Any:
        try:
            return self._portal.call(self._watch.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> AsyncWatchFace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._portal.call(self._watch.aclose)


class SyncFace(Client):
    def live(self, *args: Any, **kwargs: Any) -> LiveConfig[Any]:
        return LiveConfig(self, *args, **kwargs)


@pytest.fixture(params=["threads", "asyncio", "trio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(kind: str) -> Iterator[Callable[..., Any]]:
    """Makes clients; afterwards neither a thread nor a connection of theirs is left."""
    before = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        portal = None if kind == "threads" else stack.enter_context(start_blocking_portal(kind))

        def make(endpoints: Any, **given: Any) -> Any:
            options = Options(endpoints=endpoints, **{**QUICK, **given})
            client = SyncFace(options) if portal is None else AsyncFace(portal, options)
            stack.callback(client.close)
            return client

        yield make

    def left() -> list[threading.Thread]:
        ours = [t for t in threading.enumerate() if t not in before and not _is_fake(t)]
        return [thread for thread in ours if thread.is_alive()]

    until(lambda: not left(), "the end of the client's threads")


def _is_fake(thread: threading.Thread) -> bool:
    # anyio keeps idle workers, and the fake nodes end after the clients.
    return thread.name.startswith("AnyIO") or (
        thread.daemon and not thread.name.startswith("llm-config")
    )


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    with cluster() as made:
        yield made
