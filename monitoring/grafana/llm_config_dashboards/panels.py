"""Builders of dashboards in Grafana's classic JSON model: what every panel has in common is said once, here.

In a query, `{@node}` stands for the choice of job, cluster and node, and `{@cluster}`, where something belongs to no
single node, for that of job and cluster alone. More matchers may follow: `{@node, tier="l1"}`.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

COLUMNS = 24
TAG = "llm-config-manager"
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}

_CLUSTER = 'job=~"$job", cluster=~"$cluster"'
_NODE = _CLUSTER + ', instance=~"$instance"'
# Every node exports it from its start on, whatever state it is in.
_ANCHOR = "llm_config_raft_has_leader"


def expand(expr: str) -> str:
    """The query as Grafana gets it."""
    return expr.replace("@node", _NODE).replace("@cluster", _CLUSTER)


def query(expr: str, legend: str = "", *, instant: bool = False, table: str = "time_series") -> Json:
    """A target without its letter; `legend` may name labels: `{{instance}}`."""
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": expand(expr),
        "format": table,
        "instant": instant,
        "legendFormat": legend,
        "range": not instant,
    }


def steps(base: str, *lines: tuple[float, str]) -> Json:
    """Thresholds: a colour from minus infinity on, and those from each value on."""
    rest = [{"color": color, "value": value} for value, color in lines]
    return {"mode": "absolute", "steps": [{"color": base, "value": None}, *rest]}


def values(*texts: tuple[int, str, str]) -> list[Json]:
    """A mapping of (value, text, colour)."""
    options = {
        str(value): {"text": text, "color": color, "index": index} for index, (value, text, color) in enumerate(texts)
    }
    return [{"type": "value", "options": options}]


def override(matcher: str, options: str, **properties: Any) -> Json:
    """Properties of single series; `custom__lineWidth` is `custom.lineWidth`."""
    return {
        "matcher": {"id": matcher, "options": options},
        "properties": [{"id": name.replace("__", "."), "value": value} for name, value in properties.items()],
    }


def dashed(ref: str) -> Json:
    """The series of one query as broken lines."""
    style = {"dash": [6, 6], "fill": "dash"}
    return override("byFrameRefID", ref, custom__lineStyle=style, custom__fillOpacity=0)


def right(ref: str, unit: str, **properties: Any) -> Json:
    """The series of one query on an axis of their own."""
    return override(
        "byFrameRefID",
        ref,
        unit=unit,
        custom__axisPlacement="right",
        custom__fillOpacity=0,
        **properties,
    )


def _panel(
    kind: str,
    title: str,
    description: str,
    targets: list[Json],
    options: Json,
    *,
    unit: str,
    thresholds: Json | None = None,
    mappings: list[Json] | None = None,
    overrides: list[Json] | None = None,
    custom: Json | None = None,
    **defaults: Any,
) -> Json:
    lettered = [{**target, "refId": chr(ord("A") + at)} for at, target in enumerate(targets)]
    field: Json = {
        "color": {"mode": "palette-classic" if custom else "thresholds"},
        "mappings": mappings or [],
        "thresholds": thresholds or steps("green"),
        "unit": unit,
        **defaults,
    }
    if custom is not None:
        field["custom"] = custom
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": field, "overrides": overrides or []},
        "options": options,
        "targets": lettered,
    }


_LAST: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def timeseries(
    title: str,
    description: str,
    *targets: Json,
    unit: str,
    lines: tuple[tuple[float, str], ...] = (),
    top: float | None = None,
    bottom: float = 0,
    stacked: bool = False,
    bars: bool = False,
    scale: Json | None = None,
    legend: str = "bottom",
    overrides: list[Json] | None = None,
    **defaults: Any,
) -> Json:
    """A graph over time. `lines` are drawn; `top` is what the axis reaches at least, so that they are seen."""
    custom: Json = {
        "axisBorderShow": False,
        "axisColorMode": "text",
        "axisLabel": "",
        "axisPlacement": "auto",
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 35 if stacked else 10,
        "gradientMode": "none",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "scaleDistribution": scale or {"type": "linear"},
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if lines else "off"},
    }
    if top is not None:
        custom["axisSoftMax"] = top
    if bottom:
        # The axis goes below it when a value does.
        custom["axisSoftMin"] = bottom
    options = {
        "legend": {
            "calcs": ["lastNotNull"],
            "displayMode": "table" if legend == "right" else "list",
            "placement": legend,
            "showLegend": True,
        },
        "tooltip": {"hideZeros": False, "mode": "multi", "sort": "desc"},
    }
    floor = {} if scale or bottom else {"min": 0}
    return _panel(
        "timeseries",
        title,
        description,
        list(targets),
        options,
        unit=unit,
        thresholds=steps("green", *lines),
        custom=custom,
        overrides=overrides,
        **{**floor, **defaults},
    )


LOG_SCALE: Json = {"log": 10, "type": "log"}
# Logarithmic from 1 on, and with room for 0.
SYMLOG_SCALE: Json = {"linearThreshold": 1, "log": 10, "type": "symlog"}


def stat(
    title: str,
    description: str,
    *targets: Json,
    unit: str,
    graph: bool = False,
    color: str = "background",
    text: str = "auto",
    **defaults: Any,
) -> Json:
    """Last values in large letters."""
    options = {
        "colorMode": color,
        "graphMode": "area" if graph else "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": _LAST,
        "showPercentChange": False,
        "textMode": text,
        "wideLayout": True,
    }
    return _panel("stat", title, description, list(targets), options, unit=unit, **defaults)


def gauge(title: str, description: str, *targets: Json, unit: str, **defaults: Any) -> Json:
    """A dial from `min` to `max`."""
    options = {
        "minVizHeight": 75,
        "minVizWidth": 75,
        "orientation": "auto",
        "reduceOptions": _LAST,
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
        "sizing": "auto",
    }
    return _panel("gauge", title, description, list(targets), options, unit=unit, **defaults)


def pie(title: str, description: str, *targets: Json, unit: str, **defaults: Any) -> Json:
    options = {
        "displayLabels": ["percent"],
        "legend": {
            "calcs": [],
            "displayMode": "table",
            "placement": "right",
            "showLegend": True,
            "values": ["percent"],
        },
        "orientation": "auto",
        "pieType": "donut",
        "reduceOptions": _LAST,
        "tooltip": {"hideZeros": False, "mode": "multi", "sort": "desc"},
    }
    custom: Json = {"hideFrom": {"legend": False, "tooltip": False, "viz": False}}
    return _panel("piechart", title, description, list(targets), options, unit=unit, custom=custom, **defaults)


def heatmap(title: str, description: str, target: Json, *, y_unit: str, cell_unit: str) -> Json:
    """Of a histogram whose buckets are the rows."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": cell_unit},
        "color": {
            "exponent": 0.5,
            "fill": "dark-orange",
            "mode": "scheme",
            "reverse": False,
            "scale": "exponential",
            "scheme": "Oranges",
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": y_unit},
    }
    custom: Json = {"hideFrom": {"legend": False, "tooltip": False, "viz": False}}
    return _panel("heatmap", title, description, [target], options, unit=cell_unit, custom=custom)


def _columns(names: dict[str, str]) -> list[Json]:
    """Keeps the columns of `names`, renamed, in their order."""
    hidden = ["Time", "__name__", "cluster", "instance", "job"]
    return [
        {
            "id": "organize",
            "options": {
                "excludeByName": {name: True for name in hidden if name not in names},
                "indexByName": {name: at for at, name in enumerate(names)},
                "renameByName": names,
            },
        }
    ]


def table(
    title: str,
    description: str,
    target: Json,
    columns: dict[str, str],
    *,
    unit: str,
    empty: str,
    **defaults: Any,
) -> Json:
    """One row for each series; `columns` are labels, and `Value`, with their titles."""
    last = list(columns.values())[-1]
    options = {
        "cellHeight": "sm",
        "footer": {"countRows": False, "reducer": ["sum"], "show": False},
        "frameIndex": 0,
        "showHeader": True,
        "sortBy": [{"desc": True, "displayName": last}],
    }
    custom: Json = {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}
    panel = _panel(
        "table",
        title,
        description,
        [target],
        options,
        unit="none",
        custom=custom,
        noValue=empty,
        overrides=[override("byName", last, unit=unit)],
        **defaults,
    )
    panel["transformations"] = _columns(columns)
    return panel


def barchart(title: str, description: str, target: Json, *, label: str, name: str, unit: str) -> Json:
    """One bar for each value of `label`."""
    options = {
        "barRadius": 0,
        "barWidth": 0.7,
        "fullHighlight": False,
        "groupWidth": 0.7,
        "legend": {
            "calcs": [],
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": False,
        },
        "orientation": "auto",
        "showValue": "always",
        "stacking": "none",
        "tooltip": {"hideZeros": False, "mode": "single", "sort": "none"},
        "xField": label,
        "xTickLabelMaxLength": 0,
        "xTickLabelRotation": 0,
        "xTickLabelSpacing": 0,
    }
    custom: Json = {
        "axisBorderShow": False,
        "axisColorMode": "text",
        "axisLabel": "",
        "axisPlacement": "auto",
        "fillOpacity": 80,
        "gradientMode": "none",
        "lineWidth": 1,
        "scaleDistribution": {"type": "linear"},
        "thresholdsStyle": {"mode": "off"},
    }
    panel = _panel("barchart", title, description, [target], options, unit=unit, custom=custom, min=0)
    panel["transformations"] = _columns({label: label, "Value": name})
    return panel


def state_timeline(title: str, description: str, *targets: Json, mappings: list[Json], **defaults: Any) -> Json:
    """What state each series was in, as coloured bands."""
    options = {
        "alignValue": "left",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "mergeValues": True,
        "perPage": 20,
        "rowHeight": 0.8,
        "showValue": "auto",
        "tooltip": {"hideZeros": False, "mode": "single", "sort": "none"},
    }
    custom: Json = {"fillOpacity": 70, "insertNulls": False, "lineWidth": 0, "spanNulls": False}
    panel = _panel(
        "state-timeline",
        title,
        description,
        list(targets),
        options,
        unit="none",
        mappings=mappings,
        custom=custom,
        **defaults,
    )
    panel["fieldConfig"]["defaults"]["color"] = {"mode": "thresholds"}
    return panel


def _variable(name: str, label: str, selector: str) -> Json:
    definition = f"label_values({_ANCHOR}{selector}, {name})"
    return {
        "allValue": ".+",
        "allowCustomValue": False,
        "current": {"text": "All", "value": "$__all"},
        "datasource": DATASOURCE,
        "hide": 0,
        "includeAll": True,
        "label": label,
        "multi": True,
        "name": name,
        "options": [],
        "query": definition,
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
        "type": "query",
    }


def _variables() -> list[Json]:
    return [
        {
            "allowCustomValue": False,
            "current": {"text": "Prometheus", "value": "default"},
            "hide": 0,
            "includeAll": False,
            "label": "Data source",
            "multi": False,
            "name": "datasource",
            "options": [],
            "query": "prometheus",
            "refresh": 1,
            "regex": "",
            "skipUrlSync": False,
            "type": "datasource",
        },
        _variable("job", "Job", ""),
        _variable("cluster", "Cluster", '{job=~"$job"}'),
        _variable("instance", "Node", '{job=~"$job", cluster=~"$cluster"}'),
    ]


def _restarts() -> Json:
    # The value is the time of the event itself: exact, however far apart the points of the query are.
    expr = "1000 * process_start_time_seconds{@node}"
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "blue",
        "name": "Restarts",
        "target": {"expr": expand(expr), "interval": "", "legendFormat": "", "refId": "Anno"},
        "titleFormat": "{{instance}} started",
        "useValueForTime": True,
    }


class Board:
    """A dashboard: rows of panels, from the top."""

    def __init__(self, uid: str, name: str, description: str, refresh: str) -> None:
        self._uid = uid
        self._name = name
        self._description = description
        self._refresh = refresh
        self._panels: list[Json] = []
        self._y = 0

    def section(self, title: str) -> None:
        """A heading across the page."""
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": self._y}
        self._panels.append({"collapsed": False, "gridPos": place, "panels": [], "title": title, "type": "row"})
        self._y += 1

    def row(self, height: int, *panels: tuple[int, Json]) -> None:
        """Panels side by side, each with its width."""
        x = 0
        for width, panel in panels:
            self._panels.append({**panel, "gridPos": {"h": height, "w": width, "x": x, "y": self._y}})
            x += width
        self._y += height

    def json(self, order: list[str] | None = None) -> Json:
        """The model; `order` numbers the panels by their titles, else they count from the top."""
        panels = self._panels
        if order is not None:
            panels = sorted(panels, key=lambda panel: order.index(panel["title"]))
        return {
            "annotations": {"list": [_restarts()]},
            "description": self._description,
            "editable": False,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "links": [
                {
                    "asDropdown": False,
                    "icon": "dashboard",
                    "includeVars": True,
                    "keepTime": True,
                    "tags": [TAG],
                    "targetBlank": False,
                    "title": "LLM Config Manager",
                    "tooltip": "",
                    "type": "dashboards",
                    "url": "",
                }
            ],
            "panels": [{"id": at, **panel} for at, panel in enumerate(panels, start=1)],
            "refresh": self._refresh,
            "schemaVersion": 42,
            "tags": [TAG],
            "templating": {"list": _variables()},
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "title": f"LLM Config Manager / {self._name}",
            "uid": self._uid,
            "version": 1,
        }
