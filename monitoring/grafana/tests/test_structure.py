"""The dashboards are the documented ones, and each check of their structure finds what it looks for."""

from __future__ import annotations

import copy
import unittest
from collections.abc import Callable
from typing import Any

from llm_config_dashboards.__main__ import BOARDS
from llm_config_dashboards.panels import Json
from llm_config_dashboards.structure import documented, faults

# The operations guide: what each dashboard shows, in its order, and how.
DOCUMENTED = {
    "main-operations": (
        "5s",
        [
            ("System Status", "stat"),
            ("Uptime", "stat"),
            ("Request Rate", "timeseries"),
            ("Success Rate", "gauge"),
            ("P95 Latency", "timeseries"),
            ("Error Rate", "timeseries"),
            ("Cache Hit Rate", "gauge"),
            ("Active Configurations", "stat"),
            ("Operations Breakdown", "piechart"),
            ("CPU Usage", "timeseries"),
            ("Memory Usage", "timeseries"),
            ("Storage Size", "timeseries"),
        ],
    ),
    "security": (
        "10s",
        [
            ("Permission Denials", "timeseries"),
            ("Rate Limit Hits", "timeseries"),
            ("Banned IPs", "table"),
            ("Failed Authentication", "stat"),
            ("Secret Access", "timeseries"),
            ("Audit Events", "timeseries"),
        ],
    ),
    "performance": (
        "10s",
        [
            ("Latency Heatmap", "heatmap"),
            ("Operations Per Second", "timeseries"),
            ("Cache Performance", "timeseries"),
            ("Database Query Time", "timeseries"),
            ("Resource Utilization", "timeseries"),
            ("Connection Pools", "timeseries"),
        ],
    ),
    "key-metrics": (
        "10s",
        [
            ("Service Availability", "stat"),
            ("Request Success Rate", "timeseries"),
            ("Response Time (P95)", "timeseries"),
            ("Error Rate", "timeseries"),
            ("Cache Hit Rate", "gauge"),
            ("Storage Size", "gauge"),
            ("CPU Usage", "timeseries"),
            ("Memory Usage", "timeseries"),
            ("Configuration Operations", "timeseries"),
            ("Active Configurations", "barchart"),
        ],
    ),
}
GIB = 1024**3
# (dashboard, panel): where its thresholds are.
MARKS = {
    ("main-operations", "Success Rate"): [0.99],
    ("main-operations", "P95 Latency"): [0.1, 0.2],
    ("main-operations", "Error Rate"): [0.05, 0.1],
    ("main-operations", "Cache Hit Rate"): [0.7, 0.8],
    ("main-operations", "CPU Usage"): [0.85],
    ("main-operations", "Memory Usage"): [3.5 * GIB],
    ("main-operations", "Storage Size"): [90 * GIB],
    ("security", "Failed Authentication"): [10],
    ("key-metrics", "Request Success Rate"): [0.99],
    ("key-metrics", "Response Time (P95)"): [0.1, 0.2],
    ("key-metrics", "Error Rate"): [0.01, 0.05],
    ("key-metrics", "Cache Hit Rate"): [0.7, 0.8],
    ("key-metrics", "Storage Size"): [80 * GIB, 90 * GIB],
    ("key-metrics", "CPU Usage"): [0.7, 0.85],
    ("key-metrics", "Memory Usage"): [2 * GIB, 3.5 * GIB],
}


def panel(board: Json, title: str) -> Any:
    """The panel of that title."""
    (found,) = (panel for panel in board["panels"] if panel["title"] == title)
    return found


class Structure(unittest.TestCase):
    def test_every_dashboard_is_right(self) -> None:
        for name, board in BOARDS.items():
            self.assertEqual(faults(board()), [], name)

    def test_the_documented_panels_are_there_in_their_order(self) -> None:
        for name, (refresh, panels) in DOCUMENTED.items():
            board = BOARDS[name]()
            self.assertEqual(documented(board), panels, name)
            self.assertEqual(board["refresh"], refresh, name)

    def test_the_documented_marks_are_drawn(self) -> None:
        for (name, title), marks in MARKS.items():
            steps = panel(BOARDS[name](), title)["fieldConfig"]["defaults"]["thresholds"]["steps"]
            self.assertEqual([step["value"] for step in steps[1:]], marks, f"{name}: {title}")

    def test_uids_are_unique(self) -> None:
        uids = [board()["uid"] for board in BOARDS.values()]
        self.assertEqual(len(set(uids)), len(uids))

    def test_the_checks_find_what_they_look_for(self) -> None:
        """Each change of a dashboard that is right makes the fault that is named."""
        good = BOARDS["main-operations"]()

        def target(board: Json) -> Any:
            return panel(board, "Request Rate")["targets"][0]

        def field(board: Json, title: str = "Error Rate") -> Any:
            return panel(board, title)["fieldConfig"]["defaults"]

        changes: list[tuple[str, Callable[[Json], Any]]] = [
            ("uid:", lambda board: board.update(uid="Main Operations")),
            ("schemaVersion:", lambda board: board.update(schemaVersion=41)),
            ("editable:", lambda board: board.update(editable=True)),
            ("time:", lambda board: board.update(time={"from": "now-6h", "to": "now"})),
            ("tags:", lambda board: board.update(tags=[])),
            ("refresh:", lambda board: board.update(refresh="1m")),
            ("description is empty", lambda board: board.update(description=" ")),
            ("'title' is missing", lambda board: board.pop("title")),
            ("variables:", lambda board: board["templating"]["list"].pop()),
            ("no link", lambda board: board["links"].clear()),
            ("restarts are not marked", lambda board: board["annotations"]["list"].clear()),
            ("ids are not unique", lambda board: board["panels"][1].update(id=1)),
            ("titles are not unique", lambda board: board["panels"][1].update(title="System Status")),
            ("is not on the grid", lambda board: board["panels"][0]["gridPos"].update(x=21)),
            ("overlap", lambda board: panel(board, "Uptime")["gridPos"].update(x=3)),
            ("cells of the grid are empty", lambda board: panel(board, "Uptime")["gridPos"].update(w=3)),
            ("is no known type", lambda board: board["panels"][0].update(type="graph")),
            ("option 'reduceOptions' is missing", lambda board: board["panels"][0]["options"].pop("reduceOptions")),
            ("no title", lambda board: board["panels"][0].update(title=" ")),
            ("the description is no sentence", lambda board: board["panels"][0].update(description="Status")),
            ("not the data source", lambda board: board["panels"][0].update(datasource={"uid": "prometheus"})),
            ("no query", lambda board: board["panels"][0]["targets"].clear()),
            ("letters of queries are not unique", lambda board: panel(board, "Uptime")["targets"][1].update(refId="A")),
            ("an override is for query B", lambda board: panel(board, "Uptime")["targets"].pop()),
            ("unit 'parsecs' is not known", lambda board: field(board).update(unit="parsecs")),
            ("colour 'pink' is not known", lambda board: field(board)["thresholds"]["steps"][1].update(color="pink")),
            ("do not rise", lambda board: field(board)["thresholds"]["steps"][1].update(value=0.5)),
            ("a gauge needs min and max", lambda board: field(board, "Success Rate").pop("max")),
            ("are not drawn", lambda board: field(board)["custom"]["thresholdsStyle"].update(mode="off")),
            ("below the line", lambda board: field(board)["custom"].update(axisSoftMax=0.05)),
            ("query A: not the data source", lambda board: target(board).update(datasource={"uid": "x"})),
            ("no expression", lambda board: target(board).update(expr=" ")),
            ("selects nothing", lambda board: target(board).update(expr="vector(1)")),
            ("format 'table' is not 'time_series'", lambda board: target(board).update(format="table")),
            ("neither of a moment nor of a range", lambda board: target(board).update(range=False)),
            ("where a range is drawn", lambda board: target(board).update(instant=True, range=False)),
            ("no legend", lambda board: target(board).update(legendFormat="")),
            ("up does not select on $job", lambda board: target(board).update(expr="up")),
            (
                "x does not select on $instance",
                lambda board: target(board).update(expr='x{job=~"$job", cluster=~"$cluster", instance="$instance"}'),
            ),
        ]
        for wanted, change in changes:
            board = copy.deepcopy(good)
            change(board)
            found = faults(board)
            self.assertTrue(any(wanted in fault for fault in found), f"{wanted!r} is not in {found}")

    def test_a_heading_hides_nothing(self) -> None:
        board = BOARDS["raft"]()
        panel(board, "Replication")["collapsed"] = True
        self.assertEqual(faults(board), ["panel 'Replication': a heading hides panels"])

    def test_a_variable_that_no_panel_uses_is_found(self) -> None:
        board = BOARDS["main-operations"]()
        for each in board["panels"]:
            for target in each["targets"]:
                target["expr"] = target["expr"].replace(', instance=~"$instance"', "")
        self.assertIn("variable 'instance' is used by no panel", faults(board))


if __name__ == "__main__":
    unittest.main()
