"""What a dashboard has to be for Grafana to show it, and for people to find their way: checks of the JSON alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .panels import COLUMNS, DATASOURCE, TAG, Json
from .promql import selectors
from .units import FORMATS

# Options without which Grafana falls back to something else than what was meant.
PANELS: dict[str, tuple[str, ...]] = {
    "barchart": ("legend", "orientation", "showValue", "stacking", "xField", "xTickLabelMaxLength"),
    "gauge": ("orientation", "reduceOptions", "showThresholdMarkers"),
    "heatmap": ("calculate", "color", "rowsFrame", "showValue", "yAxis"),
    "piechart": ("displayLabels", "legend", "orientation", "pieType", "reduceOptions"),
    "stat": ("colorMode", "graphMode", "reduceOptions", "textMode"),
    "state-timeline": ("legend", "mergeValues", "rowHeight", "showValue"),
    "table": ("cellHeight", "showHeader", "sortBy"),
    "timeseries": ("legend", "tooltip"),
}
COLORS = {"blue", "green", "orange", "purple", "red", "text", "yellow"}
VARIABLES = ("datasource", "job", "cluster", "instance")
# What belongs to a whole cluster: one node's share of it would be wrong, or 0 on all nodes but the leader.
OF_THE_CLUSTER = {
    "ban_expiry_timestamp_seconds",
    "bans_active",
    "config_active_total",
    "health_status",
    "llm_config_raft_has_quorum",
    "llm_config_raft_is_leader",
    "llm_config_raft_leader_changes_total",
    "llm_config_raft_learners",
    "llm_config_raft_peer_lag_entries",
    "llm_config_raft_term",
    "llm_config_raft_voters",
    "llm_config_ready",
    "llm_config_revision",
    "up",
}
_MATCHERS = {name: (name, "=~", f"${name}") for name in ("job", "cluster", "instance")}
_UID = re.compile(r"[a-z0-9-]{1,40}")


def targets(dashboard: Json) -> Iterator[tuple[Json, Json]]:
    """Every panel with each of its targets."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel, target


def faults(dashboard: Json) -> list[str]:
    """What is wrong with it; nothing when it is right."""
    try:
        return [
            *_page(dashboard),
            *_grid(dashboard["panels"]),
            *(
                f"panel '{panel.get('title')}': {fault}"
                for panel in dashboard["panels"]
                for fault in (_row(panel) if panel["type"] == "row" else _panel(panel))
            ),
        ]
    except KeyError as missing:
        return [f"{missing} is missing"]


def _page(dashboard: Json) -> Iterator[str]:
    if not _UID.fullmatch(dashboard["uid"]):
        yield f"uid: '{dashboard['uid']}' is no name of up to 40 letters, digits and hyphens"
    for name, wanted in (
        ("schemaVersion", 42),
        ("editable", False),
        ("time", {"from": "now-1h", "to": "now"}),
        ("tags", [TAG]),
    ):
        if dashboard[name] != wanted:
            yield f"{name}: {dashboard[name]!r} is not {wanted!r}"
    if dashboard["refresh"] not in ("5s", "10s"):
        yield f"refresh: {dashboard['refresh']!r} is neither 5s nor 10s"
    for name in ("title", "description"):
        if not dashboard[name].strip():
            yield f"{name} is empty"
    names = tuple(variable["name"] for variable in dashboard["templating"]["list"])
    if names != VARIABLES:
        yield f"variables: {names} are not {VARIABLES}"
    text = str(dashboard["panels"])
    for name in VARIABLES:
        if f"${name}" not in text and f"${{{name}}}" not in text:
            yield f"variable '{name}' is used by no panel"
    if not any(link["type"] == "dashboards" and link["tags"] == [TAG] for link in dashboard["links"]):
        yield "no link to the other dashboards"
    if not any("process_start_time_seconds" in str(note) for note in dashboard["annotations"]["list"]):
        yield "restarts are not marked"


def _grid(panels: list[Json]) -> Iterator[str]:
    ids = [panel["id"] for panel in panels]
    if len(set(ids)) != len(ids):
        yield f"ids are not unique: {ids}"
    titles = [panel["title"] for panel in panels if panel["type"] != "row"]
    if len(set(titles)) != len(titles):
        yield f"titles are not unique: {titles}"
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        x, y, w, h = (place[name] for name in "xywh")
        if x < 0 or y < 0 or w < 1 or h < 1 or x + w > COLUMNS:
            yield f"panel '{panel['title']}' is not on the grid: {place}"
            continue
        for cell in ((x + column, y + row) for column in range(w) for row in range(h)):
            other = taken.setdefault(cell, panel["title"])
            if other != panel["title"]:
                yield f"panels '{other}' and '{panel['title']}' overlap"
                break
    bottom = max((y for _, y in taken), default=-1) + 1
    if len(taken) != bottom * COLUMNS:
        yield f"{bottom * COLUMNS - len(taken)} cells of the grid are empty"


def _row(panel: Json) -> Iterator[str]:
    if panel["collapsed"] or panel["panels"]:
        yield "a heading hides panels"


def _panel(panel: Json) -> Iterator[str]:
    kind = panel["type"]
    if kind not in PANELS:
        yield f"'{kind}' is no known type"
        return
    for name in PANELS[kind]:
        if name not in panel["options"]:
            yield f"option '{name}' is missing"
    if not panel["title"].strip():
        yield "no title"
    if not panel["description"].strip().endswith("."):
        yield "the description is no sentence"
    if panel["datasource"] != DATASOURCE:
        yield "not the data source of the variable"
    yield from _field(panel)
    refs = [target["refId"] for target in panel["targets"]]
    if not refs:
        yield "no query"
    if len(set(refs)) != len(refs):
        yield f"letters of queries are not unique: {refs}"
    for target in panel["targets"]:
        yield from (f"query {target['refId']}: {fault}" for fault in _target(kind, target))
    for change in panel["fieldConfig"]["overrides"]:
        matcher = change["matcher"]
        if matcher["id"] == "byFrameRefID" and matcher["options"] not in refs:
            yield f"an override is for query {matcher['options']}, which is not there"


def _units(panel: Json) -> Iterator[str]:
    yield panel["fieldConfig"]["defaults"]["unit"]
    for change in panel["fieldConfig"]["overrides"]:
        yield from (item["value"] for item in change["properties"] if item["id"] == "unit")
    if panel["type"] == "heatmap":
        yield panel["options"]["yAxis"]["unit"]
        yield panel["options"]["cellValues"]["unit"]


def _thresholds(panel: Json) -> Iterator[Json]:
    yield panel["fieldConfig"]["defaults"]["thresholds"]
    for change in panel["fieldConfig"]["overrides"]:
        yield from (item["value"] for item in change["properties"] if item["id"] == "thresholds")


def _field(panel: Json) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    for unit in _units(panel):
        if unit not in FORMATS:
            yield f"unit '{unit}' is not known"
    for thresholds in _thresholds(panel):
        marks = [step["value"] for step in thresholds["steps"]]
        if marks[:1] != [None] or sorted(marks[1:]) != marks[1:]:
            yield f"thresholds do not rise from minus infinity: {marks}"
        for step in thresholds["steps"]:
            if step["color"] not in COLORS:
                yield f"colour '{step['color']}' is not known"
    if panel["type"] == "gauge" and not {"min", "max"} <= defaults.keys():
        yield "a gauge needs min and max"
    if panel["type"] == "timeseries":
        lines = [step["value"] for step in defaults["thresholds"]["steps"][1:]]
        custom = defaults["custom"]
        if lines and custom["thresholdsStyle"]["mode"] == "off":
            yield "thresholds are not drawn"
        top = defaults.get("max", custom.get("axisSoftMax"))
        if lines and (top is None or top < max(lines)):
            yield f"the axis ends at {top}, below the line at {max(lines)}"


def _target(kind: str, target: Json) -> Iterator[str]:
    if target["datasource"] != DATASOURCE:
        yield "not the data source of the variable"
    if not target["expr"].strip():
        yield "no expression"
    wanted = {"table": "table", "barchart": "table", "heatmap": "heatmap"}.get(kind, "time_series")
    if target["format"] != wanted:
        yield f"format '{target['format']}' is not '{wanted}'"
    if target["instant"] == target["range"]:
        yield "neither of a moment nor of a range, or both"
    if kind in ("timeseries", "heatmap", "state-timeline") and target["instant"]:
        yield "a moment, where a range is drawn"
    if kind != "table" and not target["legendFormat"].strip():
        yield "no legend"
    found = selectors(target["expr"])
    if not found:
        yield "selects nothing"
    for selector in found:
        needed = ["job", "cluster"]
        if not selector.metric.startswith("job:") and selector.metric not in OF_THE_CLUSTER:
            needed.append("instance")
        for name in needed:
            if _MATCHERS[name] not in selector.matchers:
                yield f"{selector.metric} does not select on ${name}"


def documented(dashboard: Json) -> list[tuple[str, str]]:
    """Titles and types of the panels, in the order of their numbers."""
    panels: list[dict[str, Any]] = sorted(dashboard["panels"], key=lambda panel: panel["id"])
    return [(panel["title"], panel["type"]) for panel in panels]
