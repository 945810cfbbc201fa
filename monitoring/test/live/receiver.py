"""Receives what Alertmanager sends, on one path for each receiver, and remembers when each alert came and went."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_BYTES_MAX = 4 << 20
# Repetitions are dropped, so this is far more than a run has.
NOTICES_MAX = 20_000


@dataclass(frozen=True)
class Notice:
    """One alert came to one receiver, or was resolved there."""

    receiver: str
    labels: Mapping[str, str]
    firing: bool
    # When the alert began to fire, by Prometheus' clock, and when the notice came, by both of ours.
    started: float
    at: float
    wall: float

    @property
    def alert(self) -> str:
        return self.labels.get("alertname", "")

    @property
    def severity(self) -> str:
        return self.labels.get("severity", "")


class Receiver:
    """The webhooks of all receivers on one address."""

    def __init__(self, address: str) -> None:
        self._notices: deque[Notice] = deque(maxlen=NOTICES_MAX)
        self._last: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[bool, float]] = {}
        self._came = threading.Condition()
        self._server = ThreadingHTTPServer((address, 0), _handler(self._take))
        self._server.daemon_threads = True
        self.url = f"http://{address}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def notices(self) -> list[Notice]:
        with self._came:
            return list(self._notices)

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Waits for a condition that changes with what comes in."""
        with self._came:
            return self._came.wait_for(until, timeout=seconds)

    def _take(self, receiver: str, body: bytes) -> None:
        message = json.loads(body)
        with self._came:
            for alert in message["alerts"]:
                labels: dict[str, str] = alert["labels"]
                firing = alert["status"] == "firing"
                started = _seconds(alert["startsAt"])
                key = (receiver, tuple(sorted(labels.items())))
                # Each message of a group names all its alerts again.
                if self._last.get(key) == (firing, started):
                    continue
                self._last[key] = (firing, started)
                self._notices.append(Notice(receiver, labels, firing, started, time.monotonic(), time.time()))
            self._came.notify_all()


def _seconds(stamp: str) -> float:
    """Nanoseconds are more than Python reads."""
    whole, _, rest = stamp.partition(".")
    zone = rest.lstrip("0123456789") if rest else ""
    fraction = rest[: len(rest) - len(zone)][:6].ljust(6, "0") if rest else ""
    text = f"{whole}.{fraction}{zone}" if rest else whole
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _handler(take: Callable[[str, bytes], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            if length > BODY_BYTES_MAX:
                self.send_error(413)
                return
            take(self.path.strip("/"), self.rfile.read(length))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing: the notices are the record."""

    return Handler
