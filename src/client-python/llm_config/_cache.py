"""The offline cache file: the last good answer for one namespace, for starts without a node.

One line says what it is: `llm-config-cache FORMAT CIPHER SHA256`; the rest is the body, whose hash that is. The body is
a line of JSON about the answer, and the answer as it came, so that numbers keep their digits. With a key the body is a
nonce and AES-256-GCM. A file that is damaged, of another namespace or of another format is refused, never guessed at.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _json, models
from ._json import ParseFloat
from .errors import CacheError, InvalidOption
from .models import Resolved

FORMAT = 1
MAGIC = "llm-config-cache"
HEADER_BYTES_MAX = 256
FILE_BYTES_MAX = 256 << 20
KEY_BYTES = 32
NONCE_BYTES = 12


@dataclass(frozen=True)
class Cached:
    """What the file holds; `saved_at` is seconds since 1970."""

    resolved: Resolved
    saved_at: float


class CacheFile:
    """One file for one namespace in one environment."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str,
        env: str,
        reveal: bool,
        key: bytes | None,
    ) -> None:
        self.path = Path(path)
        self._about = {"namespace": namespace, "env": env, "reveal": reveal}
        if reveal and key is None:
            raise InvalidOption(
                "cache_key: revealed secrets are only written encrypted; give 32 bytes, or leave "
                "out cache_file or reveal"
            )
        self._cipher = "none" if key is None else "aes-256-gcm"
        self._key = None if key is None else _aead(key)

    def save(self, resolved: Resolved) -> None:
        """Replaces the file, so that a crash leaves the old or the new one. `CacheError` when it cannot."""
        about = {**self._about, "saved_at": time.time(), "etag": resolved.etag}
        body = json.dumps(about).encode() + b"\n" + resolved.text
        if self._key is not None:
            nonce = secrets.token_bytes(NONCE_BYTES)
            body = nonce + self._key.encrypt(nonce, body, self._bound_to())
        digest = hashlib.sha256(body).hexdigest()
        header = f"{MAGIC} {FORMAT} {self._cipher} {digest}\n".encode()
        if len(header) + len(body) > FILE_BYTES_MAX:
            raise CacheError(f"{self.path}: the namespace is too large for a cache file")
        try:
            _replace(self.path, header + body)
        except OSError as error:
            raise CacheError(f"{self.path}: cannot be written: {error}") from error

    def load(self, parse_float: ParseFloat | None) -> Cached | None:
        """What was saved; None when there is no file. `CacheError` says why a file cannot be used."""
        try:
            with self.path.open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"{self.path}: cannot be read: {error}") from error
        if len(content) > FILE_BYTES_MAX:
            raise CacheError(f"{self.path}: is larger than any cache file")
        try:
            return self._decode(content, parse_float)
        except ValueError as error:
            raise CacheError(f"{self.path}: {error}; it is ignored") from error

    def _decode(self, content: bytes, parse_float: ParseFloat | None) -> Cached:
        line, newline, body = content.partition(b"\n")
        if len(line) > HEADER_BYTES_MAX or not newline:
            raise ValueError("is no cache file")
        words = line.decode("ascii", "replace").split(" ")
        if len(words) != 4 or words[0] != MAGIC:
            raise ValueError("is no cache file")
        _, version, cipher, digest = words
        if version != str(FORMAT):
            raise ValueError(f"has format {version[:16]!r}, and this release reads {FORMAT}")
        if digest != hashlib.sha256(body).hexdigest():
            raise ValueError("is damaged: its checksum does not match")
        if cipher != self._cipher:
            raise ValueError(f"is stored with {cipher[:16]!r}, and {self._cipher!r} was asked for")
        if self._key is not None:
            body = self._decrypt(body)
        about_line, _, text = body.partition(b"\n")
        about = _json.loads(about_line)
        if not isinstance(about, dict) or not isinstance(about.get("saved_at"), float):
            raise ValueError("is damaged: it does not say when it was saved")
        for name, wanted in self._about.items():
            if about.get(name) != wanted:
                raise ValueError(f"is of another configuration: {name} is {about.get(name)!r}")
        etag = about.get("etag")
        document = _json.loads(text, parse_float)
        resolved = models.resolved(document, etag if isinstance(etag, str) else "", text)
        return Cached(resolved, about["saved_at"])

    def _decrypt(self, body: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        assert self._key is not None
        try:
            decrypted: bytes = self._key.decrypt(
                body[:NONCE_BYTES], body[NONCE_BYTES:], self._bound_to()
            )
        except InvalidTag:
            raise ValueError("is encrypted under another key, or of another namespace") from None
        return decrypted

    def _bound_to(self) -> bytes:
        return json.dumps([MAGIC, FORMAT, self._cipher, self._about]).encode()


def _aead(key: bytes) -> Any:
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise InvalidOption(f"cache_key: must be {KEY_BYTES} bytes, as secrets.token_bytes(32)")
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise InvalidOption(
            "cache_key: encryption needs the extra: pip install 'llm-config-client[encryption]'"
        ) from error
    return AESGCM(key)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    # Some file systems cannot; then the rename is as durable as they make it.
    with contextlib.suppress(OSError):
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
