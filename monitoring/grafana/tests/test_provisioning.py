"""Grafana is told to load the dashboards from where they are."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

from llm_config_dashboards.__main__ import BOARDS

ROOT = Path(__file__).resolve().parents[3]
PROVISIONING = ROOT / "monitoring/grafana/provisioning"


def value(path: Path, name: str) -> str:
    """What stands behind the only `name:` of the file."""
    (found,) = re.findall(rf"^\s*{re.escape(name)}: *(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert isinstance(found, str)
    return found


class Provisioning(unittest.TestCase):
    def test_the_folder_that_is_loaded_is_the_folder_that_is_mounted(self) -> None:
        compose = (ROOT / "cluster/compose.yaml").read_text(encoding="utf-8")
        folder = value(PROVISIONING / "dashboards/llm-config-manager.yml", "path")
        self.assertIn(f"- ../monitoring/grafana/dashboards:{folder}:ro\n", compose)
        self.assertIn("- ../monitoring/grafana/provisioning:/etc/grafana/provisioning:ro\n", compose)

    def test_the_home_page_is_a_dashboard(self) -> None:
        home = Path(value(ROOT / "cluster/compose.yaml", "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"))
        folder = value(PROVISIONING / "dashboards/llm-config-manager.yml", "path")
        self.assertEqual(str(home.parent), folder)
        self.assertIn(home.stem, BOARDS)

    def test_grafana_knows_how_often_the_nodes_are_read(self) -> None:
        """Else `$__rate_interval` is too short for a rate, or longer than it has to be."""
        told = value(PROVISIONING / "datasources/prometheus.yml", "timeInterval")
        self.assertEqual(told, value(ROOT / "monitoring/prometheus/prometheus.yml", "scrape_interval"))


if __name__ == "__main__":
    unittest.main()
