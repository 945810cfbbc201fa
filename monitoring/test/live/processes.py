"""Processes that the test starts, and ends by their ids; and waiting for conditions with a time limit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_BEGAN = time.monotonic()


class Failure(Exception):
    """The test cannot go on, or has found what it looks for. Its text is for people."""


def say(text: str) -> None:
    """One line about how far the test is, with the time since its start."""
    sys.stdout.write(f"{time.monotonic() - _BEGAN:7.1f}  {text}\n")
    sys.stdout.flush()


def wait_for(what: str, seconds: float, look: Callable[[], T | None], every: float = 0.2) -> T:
    """What `look` returns as soon as it is not None (or False)."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() >= until:
            raise Failure(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


def free_port(address: str) -> int:
    with socket.socket() as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


def in_use(address: str, port: int) -> bool:
    with socket.socket() as listener:
        # As servers do it, so that connections that just ended do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return True
    return False


class Process:
    """A program that may be started again. What it writes goes to one log file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._environment = dict(os.environ if environment is None else environment)
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, stdin: int | None = subprocess.DEVNULL) -> None:
        assert not self.runs()
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C is for the test, which then ends everything in order.
            self._child = subprocess.Popen(
                self.command,
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def write(self, line: str) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(line.encode() + b"\n")
        self._child.stdin.flush()

    def runs(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def send(self, number: signal.Signals) -> None:
        # A process that has ended is not waited for in between, so the id is still its own.
        if self._child is not None and self._child.poll() is None:
            os.kill(self._child.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self._child is not None:
            self._child.wait(timeout=20)

    def stop(self, seconds: float = 20) -> int:
        """Asks the process to end, and ends it when it does not. Its exit status."""
        if self._child is None:
            return 0
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return self._child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            say(f"{self.name} did not end within {seconds:.0f} s: it is killed")
            self.kill()
            return -9

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[21]) * os.sysconf("SC_PAGE_SIZE")

    def tail(self, lines: int) -> list[str]:
        if not self.log.exists():
            return []
        size = self.log.stat().st_size
        with self.log.open("rb") as log:
            log.seek(max(0, size - (256 << 10)))
            return log.read().decode(errors="replace").splitlines()[-lines:]
