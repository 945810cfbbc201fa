"""Makes short copies of the shipped Prometheus and Alertmanager files, so that an hour of them passes in two minutes.

Only times change: how long a condition must hold, how far a range reaches back, how often a group is evaluated, how
long Alertmanager collects. Thresholds, labels, routes and inhibition stay as they are shipped, and the shipped files are
never written to. The files are text in a known form and are treated as text; promtool and amtool check the copies.
"""

from __future__ import annotations

import itertools
import re

# A range needs some samples, which come every second; a shorter one would have no rate.
RANGE_MS_MIN = 4_000
INTERVAL_MS_MIN = 1_000

_UNITS_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_RANGE = re.compile(rf"\[\s*({_DURATION})\s*(?::\s*({_DURATION})?\s*)?\]")
_OFFSET = re.compile(rf"\boffset(\s+-?)({_DURATION})")
_HELD = re.compile(rf"^(\s*(?:- )?(?:for|keep_firing_for):\s*)({_DURATION})", re.MULTILINE)
_INTERVAL = re.compile(rf"^(\s*(?:- )?interval:\s*)({_DURATION})", re.MULTILINE)
_COLLECTED = re.compile(rf"\b((?:group_wait|group_interval):\s*)({_DURATION})")
_ITEM = re.compile(r"^ *- (?:alert|record|name): *(\S+)", re.MULTILINE)
_TREND = re.compile(r"\b(?:predict_linear|deriv|holt_winters|double_exponential_smoothing)\s*\(")
_NAMED = re.compile(r"^( *)- name: *(.+?) *$", re.MULTILINE)
_SCRAPED = re.compile(
    rf"^(\s*(?:- )?(?:scrape_interval|evaluation_interval|scrape_timeout):\s*){_DURATION}",
    re.MULTILINE,
)


def milliseconds(duration: str) -> int:
    """The length of a duration such as `1h30m`."""
    if not re.fullmatch(_DURATION, duration):
        raise ValueError(f"'{duration}' is no duration")
    return sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(duration))


def shortened(duration: str, factor: int, least_ms: int = 0) -> str:
    """A duration divided by the factor, but not made shorter than `least_ms`. Nothing gets longer, and 0 stays 0."""
    before = milliseconds(duration)
    after = min(before, max(before // factor, least_ms))
    return f"{after // 1000}s" if after % 1000 == 0 else f"{after}ms"


def _shorten_item(text: str, factor: int) -> str:
    def of_range(match: re.Match[str]) -> str:
        reach = shortened(match[1], factor, RANGE_MS_MIN)
        if ":" not in match[0]:
            return f"[{reach}]"
        step = shortened(match[2], factor, INTERVAL_MS_MIN) if match[2] else ""
        return f"[{reach}:{step}]"

    text = _RANGE.sub(of_range, text)
    text = _OFFSET.sub(lambda match: f"offset{match[1]}{shortened(match[2], factor)}", text)
    return _HELD.sub(lambda match: match[1] + shortened(match[2], factor, INTERVAL_MS_MIN), text)


def rules(text: str, factor: int) -> str:
    """A file of rules with shorter times.

    Rules that follow a trend (`predict_linear`, `deriv`), and those that use what such a rule records, keep their times:
    the trend of some seconds, drawn out by a factor, says nothing about one of hours.
    """
    starts = [match.start() for match in _ITEM.finditer(text)]
    edges = [0, *starts, len(text)]
    items = [text[a:b] for a, b in itertools.pairwise(edges)]
    trend = [bool(_TREND.search(item)) for item in items]
    changed = True
    while changed:
        changed = False
        recorded = {
            match[1]
            for item, follows in zip(items, trend, strict=True)
            if follows and (match := _ITEM.match(item)) and "record:" in match[0]
        }
        for at, item in enumerate(items):
            if not trend[at] and any(name in item for name in recorded):
                trend[at] = changed = True
    shorter = (item if follows else _shorten_item(item, factor) for item, follows in zip(items, trend, strict=True))
    return _INTERVAL.sub(lambda match: match[1] + shortened(match[2], factor, INTERVAL_MS_MIN), "".join(shorter))


def alert_names(text: str) -> set[str]:
    """The alerts that a file of rules has."""
    return {match[1] for match in _ITEM.finditer(text) if "alert:" in match[0]}


def _blocks(text: str) -> list[tuple[str, str]]:
    """The top-level keys of a YAML file and the lines below each; what stands before the first one has no name."""
    blocks: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines(keepends=True):
        key = re.match(r"([A-Za-z_]+):", line)
        if key:
            blocks.append((key[1], []))
        blocks[-1][1].append(line)
    return [(name, "".join(lines)) for name, lines in blocks]


def _names(block: str) -> list[str]:
    """The names of a list's items, not of lists inside of them."""
    found = _NAMED.findall(block)
    least = min((len(indent) for indent, _ in found), default=0)
    return [name.strip("'\"") for indent, name in found if len(indent) == least]


def routes(text: str, factor: int, url: str) -> tuple[str, list[str]]:
    """Alertmanager's file with every receiver a webhook at `url/NAME`, and the receivers' names.

    Alerts are collected for shorter times, and each named time interval is the whole week, so that the result does not
    depend on the day. `global` and `templates` are about the receivers that are left out.
    """
    kept: list[str] = []
    receivers: list[str] = []
    for key, block in _blocks(text):
        if key == "receivers":
            receivers = _names(block)
            hooks = (
                f"  - name: {name}\n    webhook_configs: [{{url: '{url}/{name}', send_resolved: true}}]\n"
                for name in receivers
            )
            kept.append("receivers:\n" + "".join(hooks))
        elif key in ("time_intervals", "mute_time_intervals"):
            always = (
                f"  - name: {name}\n    time_intervals: [{{weekdays: ['sunday:saturday']}}]\n" for name in _names(block)
            )
            kept.append(f"{key}:\n" + "".join(always))
        elif key not in ("global", "templates"):
            kept.append(_COLLECTED.sub(lambda match: match[1] + shortened(match[2], factor, INTERVAL_MS_MIN), block))
    if not receivers:
        raise ValueError("the Alertmanager file names no receivers")
    return "".join(kept), receivers


def scrape(text: str, prometheus: str, alertmanager: str) -> str:
    """Prometheus' file with everything done every second, and with the addresses that the test uses."""
    text = _SCRAPED.sub(lambda match: match[1] + "1s", text)
    text = re.sub(r"\balertmanager:9093\b", alertmanager, text)
    return re.sub(r"\blocalhost:9090\b", prometheus, text)
