"""What both clients ask of httpx, and how its errors are read."""

from __future__ import annotations

from typing import Any

import httpx

from ._core import Fault
from .options import Options

#: Of one answer; more is no answer of a node.
ANSWER_BYTES_MAX = 256 << 20

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class TooMuch(Exception):
    """An answer beyond the limit."""


def settings(options: Options) -> dict[str, Any]:
    """How httpx's clients are made."""
    return {
        "verify": True if options.tls is None else options.tls.context(),
        # Neither proxies nor a netrc file of the environment may see or change what goes to the cluster.
        "trust_env": False,
        "follow_redirects": False,
        "limits": httpx.Limits(max_connections=256, max_keepalive_connections=32),
    }


def timeouts(total: float, connect: float, read: float | None) -> httpx.Timeout:
    """The bounds of one attempt."""
    return httpx.Timeout(total, connect=min(connect, total), read=read)


def fault(error: Exception, timeout: float) -> Fault:
    """What an error of httpx says about the request."""
    if isinstance(error, TooMuch):
        return Fault(f"an answer of more than {ANSWER_BYTES_MAX} bytes", sent=True)
    if isinstance(error, (httpx.ReadTimeout, httpx.WriteTimeout)):
        return no_answer(timeout)
    reason = str(error) or type(error).__name__
    return Fault(reason, sent=not isinstance(error, _NOT_SENT))


def no_answer(timeout: float) -> Fault:
    """The node did not answer in time."""
    return Fault(f"no answer within {timeout:.3g} s", sent=True)


def lower(headers: httpx.Headers) -> dict[str, str]:
    """Headers by their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def is_stream(response: httpx.Response) -> bool:
    """Whether this is the stream of a watch."""
    kind = response.headers.get("content-type", "")
    return response.status_code == 200 and kind.startswith("text/event-stream")
