"""Queries are read, filled in, asked and judged."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from llm_config_dashboards.__main__ import BOARDS, differences, generate, main
from llm_config_dashboards.prometheus import Prometheus, QueryError, Window, empty
from llm_config_dashboards.promql import Selector, selectors
from llm_config_dashboards.structure import targets
from standin import Answer, Found, prometheus

_DEADLINE_SECONDS = 30
WINDOW = Window(end=1_000_000, seconds=600, scrape=5)


def but_for(word: str, other: Found | str) -> Answer:
    """Something for every query, and `other` for those in which the word stands."""
    full: Found = [({"instance": "a:9090", "le": "0.1"}, lambda at: 1.0)]
    return lambda fields: other if word in fields["query"] else full


class Queries(unittest.TestCase):
    def test_selectors_are_told_from_everything_else(self) -> None:
        query = (
            'sum by (le, job) (rate(a:b_total{x="}(", y!~"z"}[5m])) / ignoring(c) group_left d'
            ' or label_replace(max(e{}), "f", "g", "", "") > bool 3.5 and on (h) count by (i) (j offset 5m)'
        )
        self.assertEqual(
            selectors(query),
            [
                Selector("a:b_total", (("x", "=", "}("), ("y", "!~", "z"))),
                Selector("d", ()),
                Selector("e", ()),
                Selector("j", ()),
            ],
        )

    def test_variables_are_filled_in(self) -> None:
        expr = 'x{job=~"$job", instance=~"$instance"}[$__rate_interval] y[$__range] z[$__interval]'
        self.assertEqual(WINDOW.fill(expr), 'x{job=~".+", instance=~".+"}[20000ms] y[600000ms] z[5000ms]')
        # Points that lie further apart than four scrapes need a longer rate, or there would be gaps between them.
        self.assertIn("[615000ms]", Window(end=0, seconds=180_000, scrape=15).fill(expr))

    def test_promtool_can_read_every_query(self) -> None:
        promtool = shutil.which("promtool")
        assert promtool, "promtool is not on the PATH; .ci/dashboards puts it there"
        rules = [
            {"record": "x", "expr": WINDOW.fill(target["expr"])}
            for board in BOARDS.values()
            for _, target in targets(board())
        ]
        self.assertGreater(len(rules), 80)
        for at, rule in enumerate(rules):
            rule["record"] = f"x{at}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "rules.yml")
            for expr, status in (("sum(", 1), ("sum(x)", 0)):
                groups = {"groups": [{"name": "x", "rules": [*rules, {"record": "y", "expr": expr}]}]}
                path.write_text(json.dumps(groups), encoding="utf-8")
                done = subprocess.run(
                    [promtool, "check", "rules", path], capture_output=True, timeout=_DEADLINE_SECONDS, check=False
                )
                self.assertEqual(done.returncode, status, done.stderr.decode())

    def test_a_full_prometheus_has_no_fault(self) -> None:
        with prometheus(but_for("nothing at all", [])) as url:
            for board in BOARDS.values():
                self.assertEqual(empty(Prometheus(url), board(), WINDOW, set()), [])

    def test_empty_and_failing_queries_are_listed(self) -> None:
        board = BOARDS["security"]()
        unknown: Found = [({}, lambda at: math.nan)]
        for nothing in ([], unknown):
            with prometheus(but_for("ban_expiry", nothing)) as url:
                (fault,) = empty(Prometheus(url), board, WINDOW, set())
                self.assertIn("panel 'Banned IPs', query A finds nothing: max by", fault)
                self.assertEqual(empty(Prometheus(url), board, WINDOW, {"Banned IPs"}), [])
        with prometheus(but_for("ban_expiry", "too many samples")) as url:
            faults = empty(Prometheus(url), board, WINDOW, {"Banned IPs"})
            self.assertEqual(faults, ["panel 'Banned IPs', query A: too many samples"])
        with prometheus(but_for("process_start_time_seconds", "no")) as url:
            self.assertEqual(empty(Prometheus(url), board, WINDOW, set()), ["annotation 'Restarts': no"])

    def test_an_address_where_nothing_answers_is_named(self) -> None:
        with prometheus(but_for("x", [])) as url:
            pass
        with self.assertRaisesRegex(QueryError, url):
            Prometheus(url).run({"expr": "up"}, WINDOW)
        with self.assertRaisesRegex(QueryError, "is no http or https address"):
            Prometheus("file:///etc/passwd")


class Commands(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        generate(self.folder)

    def run_main(self, *arguments: str) -> tuple[int, str]:
        """Exit status, and what was said on stderr."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            status = main(["--folder", str(self.folder), *arguments])
        return status, said.getvalue()

    def test_files_are_what_their_source_makes(self) -> None:
        self.assertEqual(differences(self.folder), [])
        self.assertEqual(self.run_main("check"), (0, ""))
        raft, more = self.folder / "raft.json", self.folder / "more.json"
        raft.write_text(raft.read_text(encoding="utf-8").replace("Quorum", "quorum"), encoding="utf-8")
        more.write_text("{}", encoding="utf-8")
        (self.folder / "security.json").unlink()
        self.assertEqual(
            [fault.split()[0] for fault in differences(self.folder)], ["more.json", "raft.json", "security.json"]
        )
        status, said = self.run_main("check")
        self.assertEqual(status, 1)
        self.assertIn("raft.json is not what its source makes", said)
        generate(self.folder)
        self.assertEqual(differences(self.folder), [])

    def test_a_check_of_queries_exits_with_what_it_found(self) -> None:
        with prometheus(but_for("ban_expiry", [])) as url:
            status, said = self.run_main("check", "--prometheus", url)
            self.assertEqual(status, 1)
            self.assertIn("error: security: panel 'Banned IPs', query A finds nothing", said)
            arguments = ("check", "--prometheus", url, "--may-be-empty", "Banned IPs")
            self.assertEqual(self.run_main(*arguments), (0, ""))
            status, said = self.run_main(*arguments, "--may-be-empty", "Banned")
            self.assertEqual(status, 1)
            self.assertIn("no panel has the title 'Banned'", said)
        self.assertEqual(self.run_main("draw", "--prometheus", url, "--out", str(self.folder))[0], 1)


if __name__ == "__main__":
    unittest.main()
