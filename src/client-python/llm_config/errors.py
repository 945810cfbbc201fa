"""How a call can fail, cut by what the caller may conclude: refused, not sent, or unknown.

No error shows a token, a key or a secret's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LlmConfigError(Exception):
    """Everything that this package raises, but for wrong arguments (`ValueError`, `TypeError`)."""


class InvalidOption(LlmConfigError, ValueError):
    """An option, endpoint, token or name that cannot be used; nothing was sent."""


class Rejected(LlmConfigError):
    """The cluster refused the request: it did not happen and will not.

    `code` is the stable word to compare; `status` the HTTP status; `detail` names the field at fault; `request_id` is
    what the node's log and the audit log have; `extensions` are the members that the code adds.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int = 0,
        request_id: str = "",
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.extensions: Mapping[str, Any] = dict(extensions or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rejected_again, (type(self), self.code, self.detail, self.__dict__.copy()))

    def _number(self, name: str) -> int | None:
        value = self.extensions.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rejected_again(
    kind: type[Rejected], code: str, detail: str, state: dict[str, Any]
) -> Rejected:
    error = kind(code, detail)
    error.__dict__.update(state)
    return error


class InvalidArgument(Rejected):
    """A malformed name, value or parameter; `detail` names it."""


class Unauthenticated(Rejected):
    """Nobody knows who was asking: the token is unknown, revoked or expired, or there was none."""


class PermissionDenied(Rejected):
    """The token lacks a right."""


class Banned(Rejected):
    """The node shut this network address out; `retry_after_seconds` says for how long."""

    @property
    def retry_after_seconds(self) -> float | None:
        """Seconds until the address is let in again, where the node said so."""
        value = self.extensions.get("retry_after_seconds")
        return value if isinstance(value, (int, float)) else None


class NotFound(Rejected):
    """What was asked for does not exist."""


class VersionConflict(Rejected):
    """`expected_version` did not match."""

    @property
    def current_version(self) -> int | None:
        """The version that the entry has; 0 when it does not exist."""
        return self._number("current_version")


class IdempotencyKeyReused(Rejected):
    """The idempotency key was used for another request within the last ten minutes."""


class RevisionCompacted(Rejected):
    """The revision that a watch or history would start with is gone: read the state anew."""

    @property
    def oldest_revision(self) -> int | None:
        """The oldest revision that is kept."""
        return self._number("oldest_revision")


class PayloadTooLarge(Rejected):
    """A value, body or answer beyond its limit."""


class SchemaViolation(Rejected):
    """The value does not meet the key's JSON Schema."""

    @property
    def violations(self) -> list[dict[str, Any]]:
        """Each place, as `{"path", "message"}`."""
        value = self.extensions.get("violations")
        return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


class StorageFull(Rejected):
    """The quota or a disk is full; reads and deletes still work."""


class SecretsUnavailable(Rejected):
    """The node has no master key, so that secrets can be neither written nor revealed."""


class NotSent(LlmConfigError):
    """No node took the request before the deadline: a write did not happen and will not, a read got no answer.

    `code` is that of the last refusal, such as `NO_LEADER`; empty when no node answered at all.
    """

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason, code)
        self.reason = reason
        self.code = code

    def __str__(self) -> str:
        return f"no node took the request, nothing was changed: {self.reason}"


class OutcomeUnknown(LlmConfigError):
    """A write was sent and its answer was lost: it happened, or it will, or it never does.

    The same call with `idempotency_key=error.idempotency_key` within ten minutes finds out without doing it twice.
    """

    def __init__(self, reason: str, idempotency_key: str) -> None:
        super().__init__(reason, idempotency_key)
        self.reason = reason
        self.idempotency_key = idempotency_key

    def __str__(self) -> str:
        return (
            f"the outcome is unknown, it may have happened: {self.reason} "
            f"(idempotency key {self.idempotency_key})"
        )


class Closed(LlmConfigError):
    """The client, watch or live configuration was closed."""


class CacheError(LlmConfigError):
    """An offline cache file that is damaged, foreign, of another format, or that cannot be read or written."""


class ParseError(LlmConfigError):
    """A namespace's values do not fit what the application expects; `detail` names the place."""

    def __init__(self, detail: str, revision: int = 0) -> None:
        super().__init__(detail, revision)
        self.detail = detail
        self.revision = revision

    def __str__(self) -> str:
        at = f" (revision {self.revision})" if self.revision else ""
        return f"the configuration does not parse: {self.detail}{at}"


_BY_CODE: dict[str, type[Rejected]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "BANNED": Banned,
    "NOT_FOUND": NotFound,
    "VERSION_CONFLICT": VersionConflict,
    "IDEMPOTENCY_KEY_REUSED": IdempotencyKeyReused,
    "REVISION_COMPACTED": RevisionCompacted,
    "PAYLOAD_TOO_LARGE": PayloadTooLarge,
    "SCHEMA_VIOLATION": SchemaViolation,
    "STORAGE_FULL": StorageFull,
    "SECRETS_UNAVAILABLE": SecretsUnavailable,
}


def rejection(
    code: str, detail: str, *, status: int, request_id: str, extensions: Mapping[str, Any]
) -> Rejected:
    """The class that fits the code; `Rejected` itself for codes of later versions."""
    kind = _BY_CODE.get(code, Rejected)
    return kind(code, detail, status=status, request_id=request_id, extensions=extensions)
