"""Tests of what the live test does to the shipped files."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

from live import shorten

TIMES = re.compile(r"\b(?:\d+(?:ms|[smhdwy]))+\b")
MONITORING = Path(__file__).resolve().parent.parent

RULES = """\
groups:
  - name: records
    interval: 30s
    rules:
      - record: job:error_rate:5m
        expr: rate(errors{a="[b]"}[5m] offset 1h)
      - record: instance:growth:6h
        expr: |
          deriv(size[6h])
  - name: alerts
    interval: 1m
    rules:
      - alert: Plain
        expr: job:error_rate:5m > 0.10 and time() - started < 300
        for: 15m
      - alert: Sub
        expr: avg_over_time(x[1d:1h]) > max_over_time(y[10m:]) offset -5m
        for: 0s
        keep_firing_for: 30m
      - alert: Growing
        expr: instance:growth:6h > 5
        for: 1h
      - alert: WillFill
        expr: predict_linear(free[4h], 4 * 3600) < 0
        for: 30m
"""

ROUTES = """\
# Who is told
global:
  smtp_smarthost: mail:25
route:
  receiver: team
  group_wait: 10s
  group_interval: 5m
  repeat_interval: 4h
  routes:
    - matchers: ['severity = "info"']
      receiver: quiet-hours
      active_time_intervals: [office]
time_intervals:
  - name: office
    time_intervals:
      - weekdays: ['monday:friday']
        times: [{start_time: '09:00', end_time: '17:00'}]
inhibit_rules:
  - source_matchers: ['alertname = "A"']
    equal: [job]
receivers:
  - name: team
    slack_configs:
      - name: nested
        api_url_file: /secret
  - name: 'quiet-hours'
"""


class Durations(unittest.TestCase):
    def test_are_read_in_all_units(self) -> None:
        self.assertEqual(shorten.milliseconds("1h30m"), 5_400_000)
        self.assertEqual(shorten.milliseconds("250ms"), 250)
        self.assertEqual(shorten.milliseconds("1w2d"), 777_600_000)
        for wrong in ("", "5", "m", "5x", "5m x"):
            with self.assertRaises(ValueError):
                shorten.milliseconds(wrong)

    def test_are_divided_down_to_a_bound_and_never_made_longer(self) -> None:
        self.assertEqual(shorten.shortened("30m", 30), "60s")
        self.assertEqual(shorten.shortened("10s", 30), "333ms")
        self.assertEqual(shorten.shortened("10s", 30, 1000), "1s")
        self.assertEqual(shorten.shortened("500ms", 30, 1000), "500ms")
        self.assertEqual(shorten.shortened("0s", 30, 1000), "0s")


class Rules(unittest.TestCase):
    def test_get_shorter_times_and_keep_names_and_thresholds(self) -> None:
        short = shorten.rules(RULES, 30)
        for line in (
            'expr: rate(errors{a="[b]"}[10s] offset 120s)',
            "- record: job:error_rate:5m",
            "expr: job:error_rate:5m > 0.10 and time() - started < 300",
            "for: 30s",
            "avg_over_time(x[2880s:120s]) > max_over_time(y[20s:]) offset -10s",
            "for: 0s",
            "keep_firing_for: 60s",
            "interval: 1s",
            "interval: 2s",
        ):
            self.assertIn(line, short)

    def test_about_trends_keep_their_times(self) -> None:
        short = shorten.rules(RULES, 30)
        self.assertIn("deriv(size[6h])", short)
        self.assertIn("expr: instance:growth:6h > 5\n        for: 1h", short)
        self.assertIn("predict_linear(free[4h], 4 * 3600) < 0\n        for: 30m", short)

    def test_leave_no_range_without_samples(self) -> None:
        self.assertIn("[4s]", shorten.rules("- alert: A\n  expr: rate(x[1m])\n", 30))

    def test_names_of_alerts(self) -> None:
        self.assertEqual(shorten.alert_names(RULES), {"Plain", "Sub", "Growing", "WillFill"})

    def test_the_shipped_files_keep_every_rule_and_change_in_nothing_but_times(self) -> None:
        files = sorted((MONITORING / "prometheus" / "rules").glob("*.yml"))
        self.assertTrue(files)
        for file in files:
            text = file.read_text()
            short = shorten.rules(text, 30)
            self.assertEqual(shorten.alert_names(short), shorten.alert_names(text), file)
            self.assertEqual(short.count("\n"), text.count("\n"), file)
            self.assertNotEqual(short, text, file)
            self.assertEqual(TIMES.sub("T", short), TIMES.sub("T", text), file)


class Routes(unittest.TestCase):
    def test_lead_to_webhooks_at_any_time(self) -> None:
        short, receivers = shorten.routes(ROUTES, 150, "http://127.0.0.1:9")
        self.assertEqual(receivers, ["team", "quiet-hours"])
        self.assertIn("group_wait: 1s\n  group_interval: 2s\n  repeat_interval: 4h\n", short)
        self.assertIn("active_time_intervals: [office]", short)
        self.assertIn("- name: office\n    time_intervals: [{weekdays: ['sunday:saturday']}]", short)
        self.assertIn("url: 'http://127.0.0.1:9/quiet-hours'", short)
        self.assertIn("source_matchers: ['alertname = \"A\"']\n    equal: [job]", short)
        for gone in ("smtp", "slack", "nested", "09:00"):
            self.assertNotIn(gone, short)

    def test_without_receivers_are_refused(self) -> None:
        with self.assertRaises(ValueError):
            shorten.routes("route:\n  receiver: a\n", 30, "http://127.0.0.1:9")


class Scraping(unittest.TestCase):
    def test_is_done_every_second_at_the_tests_addresses(self) -> None:
        text = 'global:\n  scrape_interval: 15s\n  scrape_timeout: 10s\n- targets: ["alertmanager:9093", "localhost:9090"]\n'
        short = shorten.scrape(text, "127.0.0.1:1", "127.0.0.1:2")
        self.assertEqual(
            short,
            'global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n- targets: ["127.0.0.1:2", "127.0.0.1:1"]\n',
        )


if __name__ == "__main__":
    unittest.main()
