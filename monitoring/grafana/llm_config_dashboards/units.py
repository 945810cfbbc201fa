"""Grafana's units, as far as the dashboards use them: how a number is written."""

from __future__ import annotations

import math
from collections.abc import Callable


def number(value: float, decimals: int | None = None) -> str:
    """Three digits where nothing else is asked for, as few as will do."""
    if decimals is None:
        if value == 0:
            return "0"
        decimals = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f"{value:.{min(decimals, 9)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{decimals}f}"


def _scaled(base: float, names: list[str], separator: str = " ") -> Callable[[float, int | None], str]:
    def text(value: float, decimals: int | None) -> str:
        step = 0
        while abs(value) >= base and step + 1 < len(names):
            value /= base
            step += 1
        name = names[step]
        return number(value, decimals) + (separator + name if name else "")

    return text


def _seconds(value: float, decimals: int | None) -> str:
    size = abs(value)
    if size == 0:
        return "0 s"
    for limit, scale, name in (
        (1e-3, 1e6, "µs"),
        (1, 1e3, "ms"),
        (60, 1, "s"),
        (3600, 1 / 60, "min"),
        (86400, 1 / 3600, "hours"),
        (604800, 1 / 86400, "days"),
        (math.inf, 1 / 604800, "weeks"),
    ):
        if size < limit:
            return f"{number(value * scale, decimals)} {name}"
    raise AssertionError(value)


def _clock(value: float, decimals: int | None) -> str:
    seconds = round(value)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _percent(value: float, decimals: int | None) -> str:
    return f"{number(value * 100, decimals)}%"


_COUNTS = ["", "K", "Mil", "Bil", "Tri"]
_BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]

FORMATS: dict[str, Callable[[float, int | None], str]] = {
    "none": number,
    "short": _scaled(1000, _COUNTS),
    "percentunit": _percent,
    "s": _seconds,
    "dthms": _clock,
    "bytes": _scaled(1024, _BINARY),
    "binBps": _scaled(1024, [f"{name}/s" for name in _BINARY]),
    "reqps": _scaled(1000, ["req/s", "K req/s", "M req/s"]),
    "ops": _scaled(1000, ["ops/s", "K ops/s", "M ops/s"]),
    "eps": _scaled(1000, ["events/s", "K events/s", "M events/s"]),
}


def text(unit: str, value: float, decimals: int | None = None) -> str:
    """The number as a panel shows it."""
    return FORMATS[unit](value, decimals)
