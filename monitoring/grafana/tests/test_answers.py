"""Panels that judge a cluster judge rightly: their queries are run by promtool on clusters in each state."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

from llm_config_dashboards.__main__ import BOARDS
from llm_config_dashboards.prometheus import Window

_DEADLINE_SECONDS = 30
DOWN = None
HEALTHY, DEGRADED, UNHEALTHY = 2, 1, 0

# Of each node its health, or that it is down; whether a majority is in contact. Then what the panels say: status,
# availability of the service, failures tolerated (nothing when no node can tell).
STATES: list[tuple[list[int | None], bool, int, int, int | None]] = [
    ([HEALTHY, HEALTHY, HEALTHY], True, 2, 1, 1),
    ([HEALTHY, HEALTHY, DEGRADED], True, 1, 1, 1),
    ([HEALTHY, HEALTHY, DOWN], True, 1, 1, 0),
    ([HEALTHY, HEALTHY, UNHEALTHY], True, 1, 1, 1),
    ([UNHEALTHY, DOWN, DOWN], False, 0, 0, -1),
    ([DOWN, DOWN, DOWN], False, 0, 0, None),
    ([HEALTHY], True, 2, 1, 0),
]


def expression(board: str, title: str) -> str:
    """The first query of the panel, for all clusters and nodes."""
    (panel,) = (panel for panel in BOARDS[board]()["panels"] if panel["title"] == title)
    return Window(end=0, seconds=3600, scrape=60).fill(panel["targets"][0]["expr"])


def series(cluster: str, nodes: list[int | None], quorum: bool) -> list[dict[str, str]]:
    """What Prometheus has of that cluster."""
    found = []
    for number, health in enumerate(nodes):
        labels = f'{{job="j", cluster="{cluster}", instance="{number}"}}'
        values: dict[str, int] = {"up": int(health is not None)}
        if health is not None:
            values |= {
                "health_status": health,
                "llm_config_raft_has_quorum": int(quorum),
                "llm_config_ready": 1,
                "llm_config_raft_learners": 0,
                "llm_config_raft_voters": len(nodes),
            }
        found += [{"series": name + labels, "values": f"{value}x5"} for name, value in values.items()]
    return found


def judge(cases: list[dict[str, Any]]) -> subprocess.CompletedProcess[bytes]:
    """Runs promtool's tests."""
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not on the PATH; .ci/dashboards puts it there"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "test.yml")
        path.write_text(json.dumps({"evaluation_interval": "1m", "tests": cases}), encoding="utf-8")
        return subprocess.run(
            [promtool, "test", "rules", path], capture_output=True, timeout=_DEADLINE_SECONDS, check=False
        )


def case(clusters: list[tuple[list[int | None], bool]], answers: list[tuple[str, int | None]]) -> dict[str, Any]:
    """One test: the clusters, and what each expression gives."""
    return {
        "interval": "1m",
        "input_series": [
            found for at, (nodes, quorum) in enumerate(clusters) for found in series(f"c{at}", nodes, quorum)
        ],
        "promql_expr_test": [
            {
                "expr": expr,
                "eval_time": "3m",
                "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
            }
            for expr, value in answers
        ],
    }


class Answers(unittest.TestCase):
    def setUp(self) -> None:
        self.status = expression("main-operations", "System Status")
        self.service = expression("key-metrics", "Service Availability")
        self.tolerated = expression("raft", "Failures Tolerated")

    def test_each_state_of_a_cluster_is_told(self) -> None:
        for nodes, quorum, status, service, tolerated in STATES:
            answers = [(self.status, status), (self.service, service), (self.tolerated, tolerated)]
            done = judge([case([(nodes, quorum)], answers)])
            self.assertEqual(done.returncode, 0, f"{nodes}: {done.stdout.decode()}{done.stderr.decode()}")

    def test_of_several_clusters_the_worst_is_told(self) -> None:
        clusters = [(nodes, quorum) for nodes, quorum, *_ in (STATES[0], STATES[4], STATES[1])]
        done = judge([case(clusters, [(self.status, 0), (self.service, 0), (self.tolerated, -1)])])
        self.assertEqual(done.returncode, 0, done.stderr.decode())

    def test_a_wrong_answer_is_found(self) -> None:
        self.assertNotEqual(judge([case([([HEALTHY], True)], [(self.status, 1)])]).returncode, 0)


if __name__ == "__main__":
    unittest.main()
