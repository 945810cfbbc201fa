"""Asks a Prometheus what Grafana would ask it: queries with the variables filled in."""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from .panels import Json
from .structure import targets

_TIMEOUT_SECONDS = 30
_ANSWER_BYTES_MAX = 64 * 1024 * 1024


class QueryError(Exception):
    """Prometheus did not answer, or refused the query."""


@dataclass(frozen=True)
class Series:
    """Labels, and (time, value) without what is no number."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Window:
    """What a dashboard looks at: the last `seconds` up to `end`, scraped every `scrape` seconds."""

    end: float
    seconds: float
    scrape: float
    job: str = ".+"
    cluster: str = ".+"
    instance: str = ".+"
    points: int = 300

    @property
    def step(self) -> float:
        """Seconds between two points; never finer than the data, as in Grafana."""
        return max(self.scrape, math.ceil(self.seconds / self.points))

    def fill(self, expr: str) -> str:
        """The query without variables."""
        # As Grafana computes it: wide enough for a rate even when a scrape is lost.
        rate = max(self.step + self.scrape, 4 * self.scrape)
        for name, value in (
            ("$__rate_interval", _duration(rate)),
            ("$__interval", _duration(self.step)),
            ("$__range", _duration(self.seconds)),
            ("$job", self.job),
            ("$cluster", self.cluster),
            ("$instance", self.instance),
        ):
            expr = expr.replace(name, value)
        return expr


def window(minutes: float, scrape: float) -> Window:
    """The last minutes until now."""
    return Window(end=time.time(), seconds=60 * minutes, scrape=scrape)


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


class Prometheus:
    """A server, by its base address."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise QueryError(f"{url!r} is no http or https address")
        self._url = url.rstrip("/")

    def _ask(self, path: str, fields: dict[str, str]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
            f"{self._url}/api/v1/{path}",
            data=urllib.parse.urlencode({**fields, "timeout": f"{_TIMEOUT_SECONDS}s"}).encode(),
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as reply:  # noqa: S310
                body = reply.read(_ANSWER_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            body = error.read(_ANSWER_BYTES_MAX)
        except OSError as error:
            raise QueryError(f"{self._url}: {error}") from error
        if len(body) > _ANSWER_BYTES_MAX:
            raise QueryError(f"the answer is longer than {_ANSWER_BYTES_MAX} bytes")
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise QueryError(f"{self._url} does not speak Prometheus' API") from error
        if answer.get("status") != "success":
            raise QueryError(str(answer.get("error", answer)))
        return answer["data"]["result"]

    def run(self, target: Json, window: Window) -> list[Series]:
        """The series that a panel would get."""
        expr = window.fill(target["expr"])
        if target.get("instant"):
            found = self._ask("query", {"query": expr, "time": f"{window.end:.3f}"})
            return [_series(item["metric"], [item["value"]]) for item in found]
        found = self._ask(
            "query_range",
            {
                "query": expr,
                "start": f"{window.end - window.seconds:.3f}",
                "end": f"{window.end:.3f}",
                "step": f"{window.step:.3f}",
            },
        )
        return [_series(item["metric"], item["values"]) for item in found]


def _series(labels: dict[str, str], points: list[list[Any]]) -> Series:
    numbers = [(float(at), float(value)) for at, value in points]
    return Series(labels, [(at, value) for at, value in numbers if math.isfinite(value)])


def empty(server: Prometheus, dashboard: Json, window: Window, may_be_empty: set[str]) -> list[str]:
    """The queries that fail, and those that find nothing, but for the panels that may."""
    faults = []
    for panel, target in targets(dashboard):
        name = f"panel '{panel['title']}', query {target['refId']}"
        try:
            found = server.run(target, window)
        except QueryError as error:
            faults.append(f"{name}: {error}")
            continue
        if not any(series.points for series in found) and panel["title"] not in may_be_empty:
            faults.append(f"{name} finds nothing: {window.fill(target['expr'])}")
    for note in dashboard["annotations"]["list"]:
        try:
            server.run(note["target"], window)
        except QueryError as error:
            faults.append(f"annotation '{note['name']}': {error}")
    return faults
