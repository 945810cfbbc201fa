"""Draws a dashboard from live data, near to how Grafana would: one sees what is empty, cut off or without scale."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.patches import Wedge
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from .canvas import BORDER, COLORS, DIM, GRID, PALETTE, PANEL, TEXT, Box, Page, points
from .panels import COLUMNS, Json
from .prometheus import Prometheus, Series, Window
from .units import text as unit_text

_WIDTH = 1600
_MARGIN = 16
_GAP = 8
_CELL = 38
_HEAD = 56


@dataclass
class Drawn:
    """A series as a panel shows it: its name, how it is written, and its style."""

    name: str
    points: list[tuple[float, float]]
    ref: str
    labels: dict[str, str]
    defaults: Json
    custom: Json = field(default_factory=dict)
    color: str = TEXT

    @property
    def last(self) -> float | None:
        return self.points[-1][1] if self.points else None

    @property
    def right(self) -> bool:
        return bool(self.custom.get("axisPlacement") == "right")

    @property
    def dashed(self) -> bool:
        return "lineStyle" in self.custom

    def written(self, value: float | None) -> str:
        """With its unit, or the word that stands for it."""
        if value is None:
            return str(self.defaults.get("noValue", "-"))
        found = _mapping(self.defaults, value)
        if found:
            return str(found["text"])
        return unit_text(self.defaults["unit"], value, self.defaults.get("decimals"))

    def judged(self, value: float | None) -> str:
        """The colour of its threshold."""
        steps = self.defaults["thresholds"]["steps"]
        if value is None:
            return COLORS[steps[0]["color"]]
        found = _mapping(self.defaults, value)
        if found:
            return COLORS[found["color"]]
        reached = [step for step in steps if step["value"] is None or value >= step["value"]]
        return COLORS[reached[-1]["color"]]


def _mapping(defaults: Json, value: float) -> Json | None:
    for mapping in defaults["mappings"]:
        found: Json | None = mapping["options"].get(f"{value:g}")
        if found:
            return found
    return None


def _name(target: Json, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match.group(1), ""), target["legendFormat"])


def _drawn(panel: Json, found: list[tuple[Json, Series]]) -> list[Drawn]:
    config = panel["fieldConfig"]
    drawn = []
    for at, (target, series) in enumerate(found):
        defaults = dict(config["defaults"])
        custom = dict(defaults.get("custom", {}))
        name = _name(target, series.labels)
        for change in config["overrides"]:
            matcher = change["matcher"]
            if matcher["options"] != {"byFrameRefID": target["refId"], "byName": name}[matcher["id"]]:
                continue
            for item in change["properties"]:
                if item["id"].startswith("custom."):
                    custom[item["id"].removeprefix("custom.")] = item["value"]
                else:
                    defaults[item["id"]] = item["value"]
        drawn.append(
            Drawn(
                name,
                series.points,
                target["refId"],
                series.labels,
                defaults,
                custom,
                PALETTE[at % len(PALETTE)],
            )
        )
    return drawn


@dataclass(frozen=True)
class Scene:
    """What every panel is drawn with."""

    page: Page
    window: Window
    restarts: list[float]


def draw(server: Prometheus, dashboard: Json, window: Window, path: Path) -> None:
    """Writes the picture of the dashboard as it would look at the end of the window."""
    panels = dashboard["panels"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    page = Page(_WIDTH, _HEAD + bottom * _CELL + _MARGIN)
    _head(page, dashboard, window)
    restarts = [
        value / 1000
        for note in dashboard["annotations"]["list"]
        for series in server.run({"expr": note["target"]["expr"]}, window)
        for value in sorted({value for _, value in series.points})
        if window.end - window.seconds <= value / 1000 <= window.end
    ]
    for panel in panels:
        box = place(panel["gridPos"])
        if panel["type"] == "row":
            page.text(box.x + 4, box.y + box.h / 2, f"⌄  {panel['title']}", size=16, bold=True)
            continue
        page.rectangle(box, PANEL, edge=BORDER, round_by=3)
        page.text(box.x + 12, box.y + 18, panel["title"], size=14, bold=True)
        # The cells of a heatmap have to be wide enough to be told apart.
        span = replace(window, points=100) if panel["type"] == "heatmap" else window
        found = [
            (target, series) for target in panel["targets"] for series in server.run(target, span) if series.points
        ]
        drawn = _drawn(panel, found)
        inner = box.inset(12, 36, 12, 10)
        if drawn:
            _PAINTERS[panel["type"]](Scene(page, span, restarts), panel, drawn, inner)
        else:
            word = panel["fieldConfig"]["defaults"].get("noValue", "No data")
            page.text(inner.x + inner.w / 2, inner.y + inner.h / 2, word, size=16, color=DIM, align="center")
    page.save(path)


def place(grid: Json) -> Box:
    """Where a panel stands in the picture."""
    column = (_WIDTH - 2 * _MARGIN + _GAP) / COLUMNS
    return Box(
        _MARGIN + grid["x"] * column,
        _HEAD + grid["y"] * _CELL,
        grid["w"] * column - _GAP,
        grid["h"] * _CELL - _GAP,
    )


def _clock(at: float, *, seconds: bool = False) -> str:
    moment = datetime.datetime.fromtimestamp(at, tz=datetime.timezone.utc)
    return moment.strftime("%H:%M:%S" if seconds else "%H:%M")


def _head(page: Page, dashboard: Json, window: Window) -> None:
    page.text(_MARGIN, 28, dashboard["title"], size=20, bold=True)
    day = datetime.datetime.fromtimestamp(window.end, tz=datetime.timezone.utc).strftime("%Y-%m-%d")
    span = f"{day}  {_clock(window.end - window.seconds)} to {_clock(window.end)} UTC"
    page.text(
        _WIDTH - _MARGIN,
        28,
        f"{span}   ⟳ {dashboard['refresh']}",
        size=13,
        color=DIM,
        align="right",
    )


def _nice_times(start: float, end: float, count: int) -> tuple[list[float], bool]:
    """Round times within the span, and whether they need seconds."""
    wanted = (end - start) / count
    sizes = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
    size = next((size for size in sizes if size >= wanted), sizes[-1])
    first = math.ceil(start / size) * size
    return [float(at) for at in range(first, int(end) + 1, size)], size < 60


def _scale(axes: Axes, drawn: list[Drawn]) -> None:
    """The range of the value axis, its ticks and their words."""
    defaults, custom = drawn[0].defaults, drawn[0].custom
    kind = custom.get("scaleDistribution", {"type": "linear"})
    known = [value for series in drawn for _, value in series.points]
    if kind["type"] == "log":
        known = [value for value in known if value > 0] or [1.0]
    low, high = min(known), max(known)
    if custom.get("stacking", {}).get("mode") == "normal":
        low, high = 0, max(sum(column) for column in _columns(drawn)[1])
    high = max(high * 1.06 if high > 0 else high, custom.get("axisSoftMax", -math.inf))
    low = min(low, custom.get("axisSoftMin", math.inf))
    if defaults.get("min") is not None:
        low = defaults["min"]
    if defaults.get("max") is not None:
        high = defaults["max"]
    if high <= low:
        high = low + 1
    ticks: Any
    if kind["type"] == "log":
        axes.set_yscale("log", base=10)
        low = 10 ** math.floor(math.log10(low))
        high = max(high, 10 * low)
        ticks = LogLocator(base=10, numticks=7)
    elif kind["type"] == "symlog":
        axes.set_yscale("symlog", base=10, linthresh=kind["linearThreshold"])
        high = max(high, 10)
        powers = range(0, math.floor(math.log10(high)) + 1, 2 if high > 1e5 else 1)
        ticks = FixedLocator([0, *(10**power for power in powers)])
    elif defaults["unit"] in ("bytes", "binBps"):
        size = 1024 ** max(0, math.floor(math.log(max(high, 1), 1024)))
        round_values = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low / size, high / size)
        ticks = FixedLocator([at * size for at in round_values])
    else:
        whole = defaults["unit"] == "none"
        ticks = MaxNLocator(5, integer=whole, min_n_ticks=1 if whole else 2)
    axes.yaxis.set_major_locator(ticks)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low, high)
    decimals = defaults.get("decimals")
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: unit_text(defaults["unit"], round(value, 12), decimals))
    )


def _tick_room(page: Page, axes: Axes) -> float:
    low, high = sorted(axes.get_ylim())
    shown = [at for at in axes.yaxis.get_major_locator().tick_values(low, high) if low <= at <= high]
    words = [str(axes.yaxis.get_major_formatter()(at, 0)) for at in shown]
    return max((page.width(word, 11.5) for word in words), default=20) + 8


def _time_axis(axes: Axes, window: Window, width: float) -> None:
    start = window.end - window.seconds
    axes.set_xlim(start, window.end)
    ticks, seconds = _nice_times(start, window.end, max(2, int(width / 110)))
    axes.set_xticks(ticks, [_clock(at, seconds=seconds) for at in ticks])
    axes.tick_params(axis="x", pad=points(5))


def _broken(points: list[tuple[float, float]], step: float) -> tuple[list[float], list[float]]:
    """With a hole wherever a point is missing."""
    times: list[float] = []
    numbers: list[float] = []
    for at, value in points:
        if times and at - times[-1] > 1.5 * step:
            times.append(times[-1] + step)
            numbers.append(math.nan)
        times.append(at)
        numbers.append(value)
    return times, numbers


def _columns(drawn: list[Drawn]) -> tuple[list[float], list[list[float]]]:
    """All times, and for each the values of all series, 0 where one has none."""
    times = sorted({at for series in drawn for at, _ in series.points})
    known = [dict(series.points) for series in drawn]
    return times, [[values.get(at, 0) for values in known] for at in times]


def _legend_bottom(page: Page, drawn: list[Drawn], box: Box) -> float:
    """Draws the legend and returns the room that it took."""
    lines: list[list[tuple[Drawn, str, str, float]]] = [[]]
    used = 0.0
    for series in drawn:
        name = page.fitted(series.name, 12, box.w - 100)
        last = series.written(series.last)
        width = 22 + page.width(name, 12) + 6 + page.width(last, 12) + 18
        if used + width > box.w and lines[-1]:
            lines.append([])
            used = 0
        lines[-1].append((series, name, last, width))
        used += width
    height = 20.0 * len(lines)
    for at, line in enumerate(lines):
        x, y = box.x + 2, box.y + box.h - height + 20 * at + 11
        for series, name, last, width in line:
            page.line(x, y, 14, series.color, dashed=series.dashed, width=3)
            page.text(x + 20, y, name)
            page.text(x + 20 + page.width(name, 12) + 6, y, last, color=DIM)
            x += width
    return height


def _legend_right(page: Page, drawn: list[Drawn], box: Box) -> float:
    names = max(page.width(series.name, 12) for series in drawn)
    lasts = max(page.width(series.written(series.last), 12) for series in drawn)
    width = min(22 + names + 12 + lasts, box.w * 0.45)
    x = box.x + box.w - width
    page.text(box.x + box.w, box.y + 6, "Last", size=11, color=COLORS["blue"], align="right")
    room = int((box.h - 16) // 18)
    for at, series in enumerate(drawn[:room]):
        y = box.y + 26 + 18 * at
        page.line(x, y, 14, series.color, dashed=series.dashed, width=3)
        page.text(x + 20, y, page.fitted(series.name, 12, width - lasts - 28))
        page.text(box.x + box.w, y, series.written(series.last), color=DIM, align="right")
    return width


def _timeseries(scene: Scene, panel: Json, drawn: list[Drawn], box: Box) -> None:
    page, window = scene.page, scene.window
    if panel["options"]["legend"]["placement"] == "right":
        box = box.inset(0, 0, _legend_right(page, drawn, box) + 14, 0)
    else:
        box = box.inset(0, 0, 0, _legend_bottom(page, drawn, box) + 2)
    left = [series for series in drawn if not series.right]
    others = [series for series in drawn if series.right]
    plot = box.inset(0, 4, 0, 23)
    # The ticks say how much room they need, and for that the scale has to stand.
    axes = page.axes(plot)
    _scale(axes, left)
    room = _tick_room(page, axes)
    room_right = 6.0
    if others:
        second = page.axes(plot)
        _scale(second, others)
        room_right = _tick_room(page, second)
        second.remove()
    axes.remove()
    plot = plot.inset(room, 0, room_right, 0)
    axes = page.axes(plot)
    _scale(axes, left)
    _time_axis(axes, window, plot.w)
    axes.grid(color=GRID, linewidth=points(1))
    axes.set_axisbelow(True)
    _curves(axes, left, window.step)
    if others:
        second = page.axes(plot)
        second.yaxis.tick_right()
        _scale(second, others)
        _time_axis(second, window, plot.w)
        second.set_xticks([])
        second.tick_params(length=0, colors=DIM, labelsize=points(11.5))
        _curves(second, others, window.step)
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]:
        axes.axhline(step["value"], color=COLORS[step["color"]], linewidth=points(1.4), linestyle=(0, (5, 4)))
    for at in scene.restarts:
        axes.axvline(at, color=COLORS["blue"], linewidth=points(1.2), linestyle=(0, (2, 2)))


def _curves(axes: Axes, drawn: list[Drawn], step: float) -> None:
    if drawn[0].custom["stacking"]["mode"] == "normal":
        times, columns = _columns(drawn)
        below = [0.0] * len(times)
        for at, series in enumerate(drawn):
            above = [low + column[at] for low, column in zip(below, columns, strict=True)]
            axes.fill_between(times, below, above, color=series.color, alpha=0.35, linewidth=0)
            axes.plot(times, above, color=series.color, linewidth=points(1.3))
            below = above
        return
    floor = axes.get_ylim()[0]
    for series in drawn:
        times, numbers = _broken(series.points, step)
        opacity = series.custom["fillOpacity"] / 100
        if opacity and axes.get_yscale() == "linear":
            axes.fill_between(times, [floor] * len(times), numbers, color=series.color, alpha=opacity, linewidth=0)
        axes.plot(
            times,
            numbers,
            color=series.color,
            linewidth=points(1.3 * series.custom["lineWidth"]),
            linestyle=(0, (5, 4)) if series.dashed else "solid",
        )


def _spark(scene: Scene, series: Drawn, box: Box, color: str) -> None:
    """The way to the last value, without axes."""
    axes = scene.page.axes(box)
    axes.set_axis_off()
    times, numbers = _broken(series.points, scene.window.step)
    known = [value for value in numbers if math.isfinite(value)]
    low, high = min(0, *known), max(known)
    axes.set_ylim(low, high + (high - low or 1) * 0.05)
    axes.set_xlim(scene.window.end - scene.window.seconds, scene.window.end)
    axes.fill_between(times, [low] * len(times), numbers, color=color, alpha=0.18, linewidth=0)
    axes.plot(times, numbers, color=color, alpha=0.6, linewidth=points(1.5))


def _stat(scene: Scene, panel: Json, drawn: list[Drawn], box: Box) -> None:
    page, options = scene.page, panel["options"]
    box = box.inset(-4, 0, -4, -2)
    mode = options["textMode"]
    tiles = box.rows(len(drawn)) if box.w < 330 and box.h > 120 else box.columns(len(drawn))
    for series, tile in zip(drawn, tiles, strict=True):
        color = series.judged(series.last)
        filled = options["colorMode"] == "background"
        ink = "#ffffff" if filled else color
        if filled:
            page.rectangle(tile, color, round_by=3, alpha=0.82)
        words = tile
        if options["graphMode"] == "area" and len(series.points) > 1:
            words = tile.inset(0, 0, 0, tile.h * 0.35)
            _spark(scene, series, tile.inset(0, tile.h * 0.68, 0, 0), ink)
        value = series.name if mode == "name" else series.written(series.last)
        named = mode == "value_and_name" or (mode == "auto" and len(drawn) > 1)
        name_size = min(15.0, tile.h * 0.2)
        size = min((words.h - (name_size + 8 if named else 0)) * 0.55, 56.0)
        size = max(11.0, size * min(1.0, (tile.w - 36) / max(page.width(value, size, bold=True), 1)))
        x, y = tile.x + tile.w / 2, words.y + words.h / 2
        if named:
            name = page.fitted(series.name, name_size, tile.w - 12)
            page.text(x, y - size * 0.62, name, size=name_size, align="center", color=ink if filled else TEXT)
            y += name_size * 0.5
        page.text(x, y, value, size=size, color=ink, bold=True, align="center")


def _arc(axes: Axes, outer: float, width: float, shares: tuple[float, float], color: str) -> None:
    """The part of a dial between two shares of it; its middle is the origin."""
    # The axes count downwards, so the angles are mirrored.
    start, end = (240 * min(1, max(0, share)) - 210 for share in shares)
    axes.add_patch(Wedge((0, 0), outer, start, end, width=width, facecolor=color, linewidth=0))


def _gauge(scene: Scene, panel: Json, drawn: list[Drawn], box: Box) -> None:
    page = scene.page
    for series, tile in zip(drawn, box.columns(len(drawn)), strict=True):
        low, high = series.defaults["min"], series.defaults["max"]
        value = series.last or 0.0
        named = 22 if len(drawn) > 1 else 0
        radius = min(tile.w / 2 - 4, (tile.h - named) / 1.75)
        x, y = tile.w / 2, radius + 2
        axes = page.bare(tile)
        axes.set_xlim(-x, tile.w - x)
        axes.set_ylim(tile.h - y, -y)
        thin, thick = radius * 0.05, radius * 0.24
        steps = series.defaults["thresholds"]["steps"]
        for at, step in enumerate(steps):
            start = 0 if step["value"] is None else (step["value"] - low) / (high - low)
            end = 1 if at + 1 == len(steps) else (steps[at + 1]["value"] - low) / (high - low)
            if end > start:
                _arc(axes, radius, thin, (start, end), COLORS[step["color"]])
        inner = radius - thin - 3
        _arc(axes, inner, thick, (0, 1), GRID)
        share = (value - low) / (high - low)
        _arc(axes, inner, thick, (0, max(share, 0.006)), series.judged(value))
        word = series.written(series.last)
        size = min(34.0, radius * 0.4)
        size *= min(1.0, 2 * (inner - thick) * 0.86 / page.width(word, size, bold=True))
        page.text(tile.x + x, tile.y + y, word, size=size, color=series.judged(value), bold=True, align="center")
        if named:
            name = page.fitted(series.name, 13, tile.w)
            page.text(tile.x + x, tile.y + tile.h - 8, name, size=13, align="center")


def _piechart(scene: Scene, panel: Json, drawn: list[Drawn], box: Box) -> None:
    page = scene.page
    total = sum(series.last or 0 for series in drawn) or 1
    names = max(page.width(series.name, 12) for series in drawn)
    legend = 22 + names + 12 + page.width("100%", 12)
    radius = min(box.w - legend - 10, box.h) / 2
    axes = page.bare(box)
    start = -90.0
    for at, series in enumerate(drawn):
        share = (series.last or 0) / total
        axes.add_patch(
            Wedge(
                (radius, box.h / 2),
                radius,
                start,
                start + 360 * share,
                width=radius * 0.42,
                facecolor=series.color,
                edgecolor=PANEL,
                linewidth=points(1.5),
            )
        )
        start += 360 * share
        y = box.y + box.h / 2 + (at - (len(drawn) - 1) / 2) * 20
        x = box.x + box.w - legend
        page.line(x, y, 14, series.color, dashed=False, width=3)
        page.text(x + 20, y, series.name)
        page.text(box.x + box.w, y, unit_text("percentunit", share, 0), color=DIM, align="right")


_HEAT = LinearSegmentedColormap.from_list("heat", ["#3b1f0b", "#7f2704", "#d94801", "#fd8d3c", "#fdd0a2", "#fff5eb"])


def _heatmap(scene: Scene, panel: Json, drawn: list[Drawn], box: Box) -> None:
    page, window = scene.page, scene.window
    bounds = sorted((math.inf if s.labels["le"] == "+Inf" else float(s.labels["le"]), s) for s in drawn)
    times = sorted({at for series in drawn for at, _ in series.points})
    below: dict[float, float] = {}
    rows: list[list[float]] = []
    for _, series in bounds:
        cumulative = dict(series.points)
        rows.append([cumulative.get(at, math.nan) - below.get(at, 0) for at in times])
        below = cumulative
    shown = [[value if value > 1e-9 else math.nan for value in row] for row in rows]
    highest = max((value for row in shown for value in row if math.isfinite(value)), default=1)
    words = [
        "+Inf" if bound == math.inf else unit_text(panel["options"]["yAxis"]["unit"], bound) for bound, _ in bounds
    ]
    room = max(page.width(word, 11.5) for word in words) + 8
    plot = box.inset(room, 2, 6, 48)
    axes = page.axes(plot)
    edges = [at - window.step / 2 for at in times] + [times[-1] + window.step / 2]
    mesh = axes.pcolormesh(
        edges,
        list(range(len(rows) + 1)),
        shown,
        cmap=_HEAT,
        norm=PowerNorm(0.5, vmin=0, vmax=highest),
        edgecolors=PANEL,
        linewidth=points(0.4),
        rasterized=True,
    )
    mesh.set_zorder(2)
    _time_axis(axes, window, plot.w)
    # A row reaches up to its bound.
    axes.set_yticks([at + 1 for at in range(len(words))], words)
    axes.set_ylim(0, len(words))
    scale = Box(box.x + room, box.y + box.h - 12, 220, 8)
    ramp = page.axes(scale)
    ramp.set_axis_off()
    ramp.imshow([[(at / 63) ** 0.5 for at in range(64)]], aspect="auto", cmap=_HEAT, vmin=0, vmax=1)
    page.text(
        scale.x + scale.w + 8,
        scale.y + 4,
        unit_text(panel["options"]["cellValues"]["unit"], highest),
        size=11,
        color=DIM,
    )
    page.text(scale.x - 8, scale.y + 4, "0", size=11, color=DIM, align="right")


def _renamed(panel: Json) -> dict[str, str]:
    names: dict[str, str] = panel["transformations"][0]["options"]["renameByName"]
    return names


def _table(scene: Scene, panel: Json, drawn: list[Drawn], box: Box) -> None:
    page, columns = scene.page, _renamed(panel)
    (unit,) = (item["value"] for change in panel["fieldConfig"]["overrides"] for item in change["properties"])
    cells = box.columns(len(columns), gap=0)
    for cell, title in zip(cells, columns.values(), strict=True):
        page.text(cell.x + 8, box.y + 12, title, size=13, color=COLORS["blue"], bold=True)
    page.line(box.x, box.y + 27, box.w, BORDER, dashed=False, width=1)
    rows = sorted(drawn, key=lambda series: -(series.last or 0))[: int((box.h - 28) // 30)]
    for at, series in enumerate(rows):
        y = box.y + 28 + 30 * at
        if at % 2:
            page.rectangle(Box(box.x, y, box.w, 30), "#1e2126")
        for cell, label in zip(cells, columns, strict=True):
            word = unit_text(unit, series.last or 0) if label == "Value" else series.labels.get(label, "")
            page.text(cell.x + 8, y + 15, page.fitted(word, 13, cell.w - 16), size=13)


def _barchart(scene: Scene, panel: Json, drawn: list[Drawn], box: Box) -> None:
    page = scene.page
    label = panel["options"]["xField"]
    drawn = sorted(drawn, key=lambda series: series.labels.get(label, ""))
    room = box.inset(44, 18, 6, 22)
    axes = page.axes(room)
    heights = [series.last or 0 for series in drawn]
    axes.bar(range(len(drawn)), heights, width=0.6, color=PALETTE[0], alpha=0.8)
    _scale(axes, drawn)
    axes.set_xlim(-0.6, len(drawn) - 0.4)
    axes.grid(axis="y", color=GRID, linewidth=points(1))
    axes.set_axisbelow(True)
    axes.set_xticks(
        range(len(drawn)),
        [page.fitted(series.labels.get(label, ""), 11.5, room.w / len(drawn)) for series in drawn],
    )
    for at, series in enumerate(drawn):
        axes.annotate(
            series.written(heights[at]),
            (at, heights[at]),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            color=TEXT,
            fontsize=points(13),
        )


def _state_timeline(scene: Scene, panel: Json, drawn: list[Drawn], box: Box) -> None:
    page, window = scene.page, scene.window
    room = max(page.width(series.name, 12) for series in drawn) + 10
    plot = box.inset(room, 2, 6, 42)
    axes = page.axes(plot)
    _time_axis(axes, window, plot.w)
    axes.set_ylim(len(drawn), 0)
    axes.set_yticks([])
    seen: dict[str, str] = {}
    for row, series in enumerate(drawn):
        page.text(plot.x - 8, plot.y + plot.h * (row + 0.5) / len(drawn), series.name, align="right")
        bands: list[tuple[float, float, float]] = []
        for at, value in series.points:
            end = min(at + window.step, window.end)
            if bands and bands[-1][2] == value and at - bands[-1][1] < window.step / 2:
                bands[-1] = (bands[-1][0], end, value)
            else:
                bands.append((at, end, value))
        for start, end, value in bands:
            color, word = series.judged(value), series.written(value)
            seen[word] = color
            axes.barh(row + 0.5, end - start, left=start, height=0.8, color=color, alpha=0.7, linewidth=0)
            if (end - start) / window.seconds * plot.w > page.width(word, 12) + 16:
                axes.annotate(
                    word,
                    (start, row + 0.5),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    color="#ffffff",
                    fontsize=points(12),
                )
    x = box.x
    for word, color in seen.items():
        y = box.y + box.h - 8
        page.line(x, y, 14, color, dashed=False, width=3)
        page.text(x + 20, y, word)
        x += 20 + page.width(word, 12) + 18


_PAINTERS: dict[str, Callable[[Scene, Json, list[Drawn], Box], None]] = {
    "barchart": _barchart,
    "gauge": _gauge,
    "heatmap": _heatmap,
    "piechart": _piechart,
    "stat": _stat,
    "state-timeline": _state_timeline,
    "table": _table,
    "timeseries": _timeseries,
}
