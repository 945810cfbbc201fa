"""Client of the LLM Config Manager: finds the leader, retries safely, reads without going back in time, watches without
gap or duplicate, and keeps a namespace at hand that also starts when no node answers.

    from llm_config import Client, LiveConfig

    client = Client("http://127.0.0.1:8080,http://127.0.0.1:8081")
    client.set("shop/assistant", "temperature", 0.2, env="production")
    with LiveConfig(client, "shop/assistant", env="production") as live:
        print(live.values["temperature"])

`AsyncClient` and `AsyncLiveConfig` are the same for asyncio and trio. Errors are told apart by what one may conclude:
`Rejected` (it did not happen), `NotSent` (nor did this), `OutcomeUnknown` (it may have).
"""

from ._version import __version__
from .aio import AsyncClient, AsyncWatch
from .client import Client, Watch
from .errors import (
    Banned,
    CacheError,
    Closed,
    IdempotencyKeyReused,
    InvalidArgument,
    InvalidOption,
    LlmConfigError,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ParseError,
    PayloadTooLarge,
    PermissionDenied,
    Rejected,
    RevisionCompacted,
    SchemaViolation,
    SecretsUnavailable,
    StorageFull,
    Unauthenticated,
    VersionConflict,
)
from .live import AsyncLiveConfig, LiveConfig, Snapshot
from .models import (
    Diff,
    Entry,
    NamespaceCount,
    Page,
    Resolved,
    Schema,
    TxnOpResult,
    TxnResult,
    WatchEvent,
)
from .options import TLS, Options, ReadOptions
from .txn import Ops, Txn

__all__ = [
    "TLS",
    "AsyncClient",
    "AsyncLiveConfig",
    "AsyncWatch",
    "Banned",
    "CacheError",
    "Client",
    "Closed",
    "Diff",
    "Entry",
    "IdempotencyKeyReused",
    "InvalidArgument",
    "InvalidOption",
    "LiveConfig",
    "LlmConfigError",
    "NamespaceCount",
    "NotFound",
    "NotSent",
    "Ops",
    "Options",
    "OutcomeUnknown",
    "Page",
    "ParseError",
    "PayloadTooLarge",
    "PermissionDenied",
    "ReadOptions",
    "Rejected",
    "Resolved",
    "RevisionCompacted",
    "Schema",
    "SchemaViolation",
    "SecretsUnavailable",
    "Snapshot",
    "StorageFull",
    "Txn",
    "TxnOpResult",
    "TxnResult",
    "Unauthenticated",
    "VersionConflict",
    "Watch",
    "WatchEvent",
    "__version__",
]
