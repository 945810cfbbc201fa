"""Transactions: comparisons, then one of two lists of operations, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def _target(namespace: str, key: str, env: str | None) -> dict[str, Any]:
    target: dict[str, Any] = {"namespace": namespace, "key": key}
    if env is not None:
        target["env"] = env
    return target


class Ops:
    """A list of operations; each method returns the list itself. At most 128."""

    def __init__(self) -> None:
        self._ops: list[dict[str, Any]] = []

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
    ) -> Ops:
        """Creates or changes an entry."""
        given = {
            "secret": secret,
            "description": description,
            "tags": None if tags is None else list(tags),
            "comment": comment,
            "expected_version": expected_version,
        }
        op = {"op": "set", **_target(namespace, key, env), "value": value}
        return self._add({**op, **{k: v for k, v in given.items() if v is not None}})

    def delete(
        self,
        namespace: str,
        key: str,
        *,
        env: str | None = None,
        comment: str | None = None,
        expected_version: int | None = None,
    ) -> Ops:
        """Deletes an entry."""
        given = {"comment": comment, "expected_version": expected_version}
        op = {"op": "delete", **_target(namespace, key, env)}
        return self._add({**op, **{k: v for k, v in given.items() if v is not None}})

    def get(self, namespace: str, key: str, *, env: str | None = None) -> Ops:
        """Reads an entry in the same instant."""
        return self._add({"op": "get", **_target(namespace, key, env)})

    def _add(self, op: dict[str, Any]) -> Ops:
        self._ops.append(op)
        return self


class Txn:
    """A transaction to be given to `commit`.

    When every `compare` holds, `success` runs, otherwise `failure`; a list happens as a whole, under one revision, or
    not at all.
    """

    def __init__(self) -> None:
        self._compare: list[dict[str, Any]] = []
        self.success = Ops()
        self.failure = Ops()

    def compare(self, namespace: str, key: str, version: int, *, env: str | None = None) -> Txn:
        """The entry must be at this version; 0: it must not exist."""
        self._compare.append({**_target(namespace, key, env), "version": version})
        return self

    def document(self) -> dict[str, Any]:
        """The body of the request."""
        return {
            "compare": self._compare,
            "success": self.success._ops,
            "failure": self.failure._ops,
        }
