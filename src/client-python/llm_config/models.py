"""What the API answers, as immutable objects. Values are plain JSON: dict, list, str, int, float, bool, None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One version of an entry; `value` is None and `deleted` true where it was deleted."""

    namespace: str
    key: str
    env: str
    value: Any = field(repr=False)
    version: int
    revision: int
    secret: bool = False
    deleted: bool = False
    created_at: datetime | None = None
    created_by: str = ""
    updated_at: datetime | None = None
    updated_by: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    comment: str = ""


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a listing; `next_cursor` is None on the last one. `revision` is what it reflects, 0 where unsaid."""

    items: tuple[T, ...]
    next_cursor: str | None
    revision: int = 0


@dataclass(frozen=True)
class NamespaceCount:
    """A namespace and the number of its entries in all environments."""

    namespace: str
    entries: int


@dataclass(frozen=True)
class Resolved:
    """A namespace as an application in one environment sees it."""

    namespace: str
    environment: str
    values: Mapping[str, Any] = field(repr=False)
    sources: Mapping[str, str]
    revision: int
    etag: str = ""
    text: bytes = field(default=b"", repr=False, compare=False)
    """The answer as it came, in which numbers have all their digits."""


@dataclass(frozen=True)
class Diff:
    """Two versions and the RFC 6902 JSON Patch from one to the other."""

    from_entry: Entry
    to_entry: Entry
    patch: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class TxnOpResult:
    """What one operation did; `entry` is None for a `get` of what is not there."""

    op: str
    entry: Entry | None


@dataclass(frozen=True)
class TxnResult:
    """Which list ran, and what it did."""

    succeeded: bool
    revision: int
    results: tuple[TxnOpResult, ...]


@dataclass(frozen=True)
class Schema:
    """The JSON Schema of a key."""

    namespace: str
    key: str
    schema: Any = field(repr=False)
    version: int = 0
    updated_at: datetime | None = None
    updated_by: str = ""
    comment: str = ""


@dataclass(frozen=True)
class WatchEvent:
    """One change, or a bookmark: nothing up to `revision` is missing. `entry` is None for bookmarks only."""

    kind: Literal["set", "delete", "bookmark"]
    revision: int
    entry: Entry | None = None


def _member(document: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = document.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"the answer's {name} is missing or no {kind.__name__}")
    return value


def _object(document: Any) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise ValueError("the answer is not an object")
    return document


def _time(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def entry(document: Any) -> Entry:
    """An entry of an answer; `ValueError` when it lacks what the API promises."""
    found = _object(document)
    deleted = found.get("deleted") is True
    if not deleted and "value" not in found:
        raise ValueError("the answer's value is missing")
    return Entry(
        namespace=_member(found, "namespace", str),
        key=_member(found, "key", str),
        env=_member(found, "env", str),
        value=found.get("value"),
        version=_member(found, "version", int),
        revision=_member(found, "revision", int),
        secret=found.get("secret") is True,
        deleted=deleted,
        created_at=_time(found.get("created_at")),
        created_by=str(found.get("created_by") or ""),
        updated_at=_time(found.get("updated_at")),
        updated_by=str(found.get("updated_by") or ""),
        description=str(found.get("description") or ""),
        tags=tuple(str(tag) for tag in found.get("tags") or ()),
        comment=str(found.get("comment") or ""),
    )


def _cursor(found: Mapping[str, Any]) -> str | None:
    cursor = found.get("next_cursor")
    return cursor if isinstance(cursor, str) and cursor else None


def entries(document: Any) -> Page[Entry]:
    """A page of entries."""
    found = _object(document)
    items = tuple(entry(item) for item in _member(found, "items", list))
    revision = found.get("revision")
    return Page(items, _cursor(found), revision if isinstance(revision, int) else 0)


def namespaces(document: Any) -> Page[NamespaceCount]:
    """A page of namespaces."""
    found = _object(document)
    items = tuple(
        NamespaceCount(_member(_object(item), "namespace", str), _member(item, "entries", int))
        for item in _member(found, "items", list)
    )
    return Page(items, _cursor(found), _member(found, "revision", int))


def schemas(document: Any) -> Page[Schema]:
    """A page of schemas."""
    found = _object(document)
    items = tuple(schema(item) for item in _member(found, "items", list))
    return Page(items, _cursor(found))


def diff(document: Any) -> Diff:
    """Two sides and a patch."""
    found = _object(document)
    patch = _member(found, "patch", list)
    return Diff(entry(found.get("from")), entry(found.get("to")), patch)


def resolved(document: Any, etag: str, text: bytes) -> Resolved:
    """A resolved namespace."""
    found = _object(document)
    return Resolved(
        namespace=_member(found, "namespace", str),
        environment=_member(found, "environment", str),
        values=_member(found, "values", dict),
        sources=_member(found, "sources", dict),
        revision=_member(found, "revision", int),
        etag=etag,
        text=text,
    )


def txn_result(document: Any) -> TxnResult:
    """What a transaction did."""
    found = _object(document)
    results = tuple(
        TxnOpResult(
            _member(_object(one), "op", str),
            None if one.get("entry") is None else entry(one["entry"]),
        )
        for one in _member(found, "results", list)
    )
    return TxnResult(_member(found, "succeeded", bool), _member(found, "revision", int), results)


def schema(document: Any) -> Schema:
    """A key's schema."""
    found = _object(document)
    if "schema" not in found:
        raise ValueError("the answer's schema is missing")
    version = found.get("version")
    return Schema(
        namespace=_member(found, "namespace", str),
        key=_member(found, "key", str),
        schema=found["schema"],
        version=version if isinstance(version, int) else 0,
        updated_at=_time(found.get("updated_at")),
        updated_by=str(found.get("updated_by") or ""),
        comment=str(found.get("comment") or ""),
    )
