"""The calls of the API as requests, for both clients. Nothing is sent here."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from . import _json, models
from ._core import Answer, Core, Request
from .errors import InvalidOption
from .models import Diff, Entry, NamespaceCount, Page, Resolved, Schema, TxnResult
from .options import ReadOptions
from .txn import Txn

T = TypeVar("T")

IDEMPOTENCY_KEY_BYTES_MAX = 64


def _segment(name: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{name}: must be str, not {type(text).__name__}")
    if text in ("", ".", ".."):
        # A URL would lose it on the way.
        raise InvalidOption(f"{name}: {text!r} is not a name")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise InvalidOption(f"{name}: contains half of a surrogate pair") from None


def _params(**given: Any) -> dict[str, str]:
    params: dict[str, str] = {}
    for name, value in given.items():
        if value is None or value == "" or value is False:
            continue
        params[name] = "true" if value is True else str(value)
    return params


def _reading(read: ReadOptions) -> dict[str, str]:
    unknown = set(read) - {"consistency", "min_revision", "max_staleness_ms"}
    if unknown:
        raise TypeError(f"{', '.join(sorted(unknown))}: not an argument of this call")
    return _params(**read)


def _key(given: str | None) -> str:
    if given is None:
        return str(uuid.uuid4())
    if not 1 <= len(given) <= IDEMPOTENCY_KEY_BYTES_MAX or not all("!" <= c <= "~" for c in given):
        raise InvalidOption(
            "idempotency_key: must be 1 to 64 printable ASCII characters without spaces"
        )
    return given


def _no_content(answer: Answer) -> None:
    if answer.status != 204:
        raise ValueError(f"a delete was answered with HTTP {answer.status}")


class Api:
    """Makes the requests of one client."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def _json(self, answer: Answer) -> Any:
        return _json.loads(answer.body, self._core.options.parse_float)

    def _entry(self, answer: Answer) -> Entry:
        found = models.entry(self._json(answer))
        self._core.seen(found.revision)
        return found

    @staticmethod
    def _path(namespace: str, key: str | None = None, *, of: str = "configs") -> str:
        path = f"/api/v1/{of}/{_segment('namespace', namespace)}"
        return path if key is None else f"{path}/{_segment('key', key)}"

    def _write(
        self,
        method: str,
        path: str,
        decode: Any,
        document: Any,
        idempotency_key: str | None,
        timeout: float | None,
        params: dict[str, str] | None = None,
    ) -> Request[Any]:
        return Request(
            method,
            path,
            decode,
            params=params or {},
            body=None if document is None else _json.dumps(document),
            headers={} if document is None else {"content-type": "application/json"},
            write=True,
            idempotency_key=_key(idempotency_key),
            timeout=timeout,
            is_delete=method == "DELETE",
            changes_schema=path.startswith("/api/v1/schemas/"),
        )

    def get(
        self,
        namespace: str,
        key: str,
        env: str | None,
        resolve: bool,
        version: int | None,
        reveal: bool,
        timeout: float | None,
        read: ReadOptions,
    ) -> Request[Entry]:
        params = _params(env=env, resolve=resolve, version=version, reveal=reveal)
        params |= _reading(read)
        path = self._path(namespace, key)
        # What an old version says of its own revision is no news; the header is.
        return Request(
            "GET",
            path,
            lambda answer: models.entry(self._json(answer)),
            params=params,
            timeout=timeout,
        )

    def set(
        self,
        namespace: str,
        key: str,
        value: Any,
        env: str | None,
        secret: bool | None,
        description: str | None,
        tags: Sequence[str] | None,
        comment: str | None,
        expected_version: int | None,
        idempotency_key: str | None,
        timeout: float | None,
    ) -> Request[Entry]:
        if isinstance(tags, str):
            raise TypeError("tags: must be a list of texts, not one text")
        given = {
            "env": env,
            "secret": secret,
            "description": description,
            "tags": None if tags is None else list(tags),
            "comment": comment,
            "expected_version": expected_version,
        }
        document = {"value": value, **{k: v for k, v in given.items() if v is not None}}
        path = self._path(namespace, key)
        return self._write("PUT", path, self._entry, document, idempotency_key, timeout)

    def delete(
        self,
        namespace: str,
        key: str,
        env: str | None,
        comment: str | None,
        expected_version: int | None,
        idempotency_key: str | None,
        timeout: float | None,
        of: str = "configs",
    ) -> Request[None]:
        params = _params(env=env, comment=comment, expected_version=expected_version)
        path = self._path(namespace, key, of=of)
        return self._write("DELETE", path, _no_content, None, idempotency_key, timeout, params)

    def rollback(
        self,
        namespace: str,
        key: str,
        version: int,
        env: str | None,
        comment: str | None,
        expected_version: int | None,
        idempotency_key: str | None,
        timeout: float | None,
    ) -> Request[Entry]:
        given = {"comment": comment, "expected_version": expected_version}
        document = {k: v for k, v in given.items() if v is not None}
        path = f"{self._path(namespace, key)}/rollback/{int(version)}"
        return self._write(
            "POST", path, self._entry, document, idempotency_key, timeout, _params(env=env)
        )

    def commit(
        self, txn: Txn, idempotency_key: str | None, timeout: float | None
    ) -> Request[TxnResult]:
        def decode(answer: Answer) -> TxnResult:
            found = models.txn_result(self._json(answer))
            self._core.seen(found.revision)
            return found

        return self._write("POST", "/api/v1/txn", decode, txn.document(), idempotency_key, timeout)

    def list(
        self,
        namespace: str,
        env: str | None,
        prefix: str,
        limit: int | None,
        cursor: str | None,
        timeout: float | None,
        read: ReadOptions,
    ) -> Request[Page[Entry]]:
        params = _params(env=env, prefix=prefix, limit=limit, cursor=cursor) | _reading(read)
        return Request(
            "GET",
            self._path(namespace),
            lambda answer: models.entries(self._json(answer)),
            params=params,
            timeout=timeout,
        )

    def namespaces(
        self,
        prefix: str,
        limit: int | None,
        cursor: str | None,
        timeout: float | None,
        read: ReadOptions,
    ) -> Request[Page[NamespaceCount]]:
        return Request(
            "GET",
            "/api/v1/namespaces",
            lambda answer: models.namespaces(self._json(answer)),
            params=_params(prefix=prefix, limit=limit, cursor=cursor) | _reading(read),
            timeout=timeout,
        )

    def history(
        self,
        namespace: str,
        key: str,
        env: str | None,
        limit: int | None,
        cursor: str | None,
        timeout: float | None,
        read: ReadOptions,
    ) -> Request[Page[Entry]]:
        return Request(
            "GET",
            f"{self._path(namespace, key)}/history",
            lambda answer: models.entries(self._json(answer)),
            params=_params(env=env, limit=limit, cursor=cursor) | _reading(read),
            timeout=timeout,
        )

    def diff(
        self,
        namespace: str,
        key: str,
        env: str | None,
        from_version: int | None,
        to_version: int | None,
        env_from: str | None,
        env_to: str | None,
        timeout: float | None,
        read: ReadOptions,
    ) -> Request[Diff]:
        params = _params(env=env, to=to_version, env_from=env_from, env_to=env_to)
        params |= {"from": str(from_version)} if from_version is not None else {}
        return Request(
            "GET",
            f"{self._path(namespace, key)}/diff",
            lambda answer: models.diff(self._json(answer)),
            params=params | _reading(read),
            timeout=timeout,
        )

    def resolve(
        self,
        namespace: str,
        env: str | None,
        reveal: bool,
        etag: str | None,
        timeout: float | None,
        read: ReadOptions,
    ) -> Request[Resolved | None]:
        """None: the content is still that of `etag`."""

        def decode(answer: Answer) -> Resolved | None:
            if answer.status == 304:
                return None
            tag = answer.headers.get("etag", "")
            return models.resolved(self._json(answer), tag, answer.body)

        return Request(
            "GET",
            self._path(namespace, of="resolve"),
            decode,
            params=_params(env=env, reveal=reveal) | _reading(read),
            headers={"if-none-match": etag} if etag else {},
            timeout=timeout,
        )

    def put_schema(
        self,
        namespace: str,
        key: str,
        schema: Any,
        comment: str | None,
        expected_version: int | None,
        idempotency_key: str | None,
        timeout: float | None,
    ) -> Request[Schema]:
        given = {"comment": comment, "expected_version": expected_version}
        document = {"schema": schema, **{k: v for k, v in given.items() if v is not None}}
        path = self._path(namespace, key, of="schemas")
        return self._write("PUT", path, self._schema, document, idempotency_key, timeout)

    def get_schema(
        self, namespace: str, key: str, timeout: float | None, read: ReadOptions
    ) -> Request[Schema]:
        path = self._path(namespace, key, of="schemas")
        return Request("GET", path, self._schema, params=_reading(read), timeout=timeout)

    def list_schemas(
        self,
        namespace: str,
        prefix: str,
        limit: int | None,
        cursor: str | None,
        timeout: float | None,
        read: ReadOptions,
    ) -> Request[Page[Schema]]:
        return Request(
            "GET",
            self._path(namespace, of="schemas"),
            lambda answer: models.schemas(self._json(answer)),
            params=_params(prefix=prefix, limit=limit, cursor=cursor) | _reading(read),
            timeout=timeout,
        )

    def _schema(self, answer: Answer) -> Schema:
        return models.schema(self._json(answer))
