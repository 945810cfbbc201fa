"""What a client shows to be let in: a token, as a text or in a file that may change while the client runs.

The text goes into the header of each call and nowhere else: no error and no `repr` has it.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InvalidOption

#: How often the file is looked at, at most.
LOOK_INTERVAL = 1.0
#: How long a node that does not know a token yet gets to hear of it.
NEWS_TIME = 0.5
#: Longer than any token that a node looks at.
FILE_BYTES_MAX = 16 << 10


@dataclass(frozen=True)
class Shown:
    """The header's value, and the how-manieth it is."""

    header: str = field(repr=False)
    generation: int


class Bearer:
    """Shows the token, and keeps up with its file."""

    def __init__(self, token: str | None, token_file: str | os.PathLike[str] | None) -> None:
        self._lock = threading.Lock()
        self._path = None if token_file is None else Path(token_file)
        self._stamp: tuple[int, int] | None = None
        if self._path is not None:
            text, self._stamp = _read(self._path)
        else:
            text = token or ""
        self._shown = Shown(_header(text, "token"), 0)
        self._looked = time.monotonic()
        # Accepted once, or has had its second chance.
        self._settled = False

    def __repr__(self) -> str:
        return f"Bearer({'in ' + str(self._path) if self._path else '…'})"

    def shown(self) -> Shown:
        """What to show now."""
        with self._lock:
            now = time.monotonic()
            if self._path is not None and now - self._looked >= LOOK_INTERVAL:
                self._looked = now
                try:
                    changed = _stamp(self._path) != self._stamp
                except OSError:
                    changed = False
                if changed:
                    self._reread()
            return self._shown

    def accepted(self, shown: Shown) -> None:
        """The token was accepted."""
        with self._lock:
            if shown.generation == self._shown.generation:
                self._settled = True

    def refused(self, shown: Shown) -> float | None:
        """The wait before another attempt; None when there is nothing else to show.

        It is tried again when the file has another token by now; and once in a token's life when no node has accepted
        it yet, because the one that was asked may not have heard of it. More would look like guessing.
        """
        with self._lock:
            self._reread()
            if self._shown.generation != shown.generation:
                return 0.0
            if self._settled:
                return None
            self._settled = True
            return NEWS_TIME

    def _reread(self) -> None:
        # A file that cannot be used, as while it is being replaced, leaves the token that was in it before.
        if self._path is None:
            return
        try:
            text, stamp = _read(self._path)
            header = _header(text, "token_file")
        except InvalidOption:
            return
        self._stamp = stamp
        if header != self._shown.header:
            self._shown = Shown(header, self._shown.generation + 1)
            self._settled = False


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _read(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        # Stamped before it is read: what is written in between is read again.
        stamp = _stamp(path)
        if stamp[1] > FILE_BYTES_MAX:
            raise InvalidOption(f"token_file: {path} has {stamp[1]} bytes, which no token has")
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode("ascii", "replace").strip(), stamp
    except OSError as error:
        raise InvalidOption(f"token_file: {path}: {error.strerror or error}") from error


def _header(text: str, option: str) -> str:
    if not text:
        raise InvalidOption(f"{option}: it is empty; give the word shown when it was made")
    if not all("!" <= character <= "~" for character in text):
        raise InvalidOption(f"{option}: it is not one word of printable ASCII characters")
    return f"Bearer {text}"
