"""What a caller may choose about a client, with defaults that fit a cluster in one region."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from ._json import ParseFloat
from .errors import InvalidOption

Consistency = Literal["cached", "linearizable"]


class ReadOptions(TypedDict, total=False):
    """What every read takes.

    `consistency`: `cached` (default) is what the answering node has applied; `linearizable` is confirmed with the
    leader. `min_revision`: wait until the node has applied this revision. `max_staleness_ms`: refuse when the node has
    not heard from a leader for so long.
    """

    consistency: Consistency
    min_revision: int
    max_staleness_ms: int


@dataclass(frozen=True, kw_only=True)
class TLS:
    """TLS towards the nodes. Files are PEM and are read when the client is made."""

    ca_file: str | os.PathLike[str] | None = None
    """The authorities that nodes' certificates are checked against; those that httpx trusts when absent."""
    certificate_file: str | os.PathLike[str] | None = None
    """The client's own certificate, with intermediates."""
    key_file: str | os.PathLike[str] | None = None
    """The key of `certificate_file`; in the same file when absent."""

    def context(self) -> ssl.SSLContext:
        """The context; `InvalidOption` names the file that cannot be used."""
        if self.key_file is not None and self.certificate_file is None:
            raise InvalidOption("tls.key_file: give certificate_file too")
        try:
            if self.ca_file is None:
                import httpx

                context = httpx.create_ssl_context()
            else:
                context = ssl.create_default_context(cafile=os.fspath(self.ca_file))
        except (OSError, ssl.SSLError) as error:
            raise InvalidOption(f"tls.ca_file: {self.ca_file}: {error}; give PEM") from error
        if self.certificate_file is not None:
            try:
                # An encrypted key would ask the terminal.
                context.load_cert_chain(self.certificate_file, self.key_file, password=lambda: b"")
            except (OSError, ssl.SSLError) as error:
                raise InvalidOption(
                    f"tls.certificate_file: {self.certificate_file}: {error}; give an "
                    "unencrypted PEM certificate and its key"
                ) from error
        return context


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices for a client. All times are seconds."""

    endpoints: Sequence[str]
    """HTTP addresses of any nodes, `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`. Never forgotten."""
    token: str | None = field(default=None, repr=False)
    """Shown with each call. Without TLS whoever listens on the way learns it."""
    token_file: str | os.PathLike[str] | None = None
    """The file with the token. It is read again when it has changed, at the latest when the token is refused."""
    tls: TLS | None = None
    """Endpoints without a scheme are `https://` then, and `http://` is refused."""
    timeout: float = 15.0
    """For one call with all its retries; longer than an election."""
    attempt_timeout: float = 4.0
    """For one attempt, so that a node that hangs does not use up the whole call."""
    connect_timeout: float = 1.0
    """To open a connection."""
    session: bool = True
    """Cached reads wait for the highest revision that this client has seen: they never go back, and see its writes."""
    follow_leader: bool = True
    """Writes go straight to the leader once it is known. Off: they rotate like reads, and the nodes forward them."""
    watch_silence: float = 30.0
    """A watch's stream without an event or bookmark for so long is dead. Nodes send a bookmark every 10 s at least."""
    discovery_interval: float = 60.0
    """How often the members of the cluster are asked for, at most, while the leader is known."""
    parse_float: ParseFloat | None = None
    """Makes numbers that are not whole from their text, as `decimal.Decimal` does; `float` when absent."""

    def __post_init__(self) -> None:
        if isinstance(self.endpoints, str):
            listed = tuple(part for part in self.endpoints.split(",") if part.strip())
        else:
            listed = tuple(self.endpoints)
        object.__setattr__(self, "endpoints", listed)
        if self.token is not None and self.token_file is not None:
            raise InvalidOption("token, token_file: give one of them")
        for name in (
            "timeout",
            "attempt_timeout",
            "connect_timeout",
            "watch_silence",
            "discovery_interval",
        ):
            seconds(name, getattr(self, name))
        if self.parse_float is not None and not callable(self.parse_float):
            raise InvalidOption("parse_float: must be callable, as decimal.Decimal is")


def seconds(name: str, value: Any) -> float:
    """A length of time that a wait can have."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidOption(f"{name}: must be a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value) or not 0 < value <= 86_400:
        raise InvalidOption(f"{name}: {value} is not between 0 and 86400 seconds")
    return float(value)
