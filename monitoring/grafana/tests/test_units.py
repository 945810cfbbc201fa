"""Numbers are written as Grafana writes them."""

from __future__ import annotations

import unittest

from llm_config_dashboards.units import text


class Units(unittest.TestCase):
    def test_numbers(self) -> None:
        for unit, value, decimals, wanted in (
            ("none", 3.0, None, "3"),
            ("none", 0.0, None, "0"),
            ("short", 1234.0, None, "1.23 K"),
            ("short", -1234.0, None, "-1.23 K"),
            ("short", 2.6, 0, "3"),
            ("percentunit", 0.99904, 2, "99.90%"),
            ("percentunit", 0.05, None, "5%"),
            ("s", 0.0, None, "0 s"),
            ("s", 0.00091, None, "910 µs"),
            ("s", 0.1, None, "100 ms"),
            ("s", 90.0, None, "1.5 min"),
            ("s", 7200.0, 1, "2.0 hours"),
            ("s", 86400.0 * 14, None, "2 weeks"),
            ("dthms", 3723.4, None, "01:02:03"),
            ("bytes", 3.5 * 1024**3, None, "3.5 GiB"),
            ("bytes", 0.0, None, "0 B"),
            ("binBps", 2048.0, None, "2 KiB/s"),
            ("reqps", 12.5, None, "12.5 req/s"),
            ("ops", 1500.0, None, "1.5 K ops/s"),
            ("eps", 0.25, None, "0.25 events/s"),
        ):
            self.assertEqual(text(unit, value, decimals), wanted)


if __name__ == "__main__":
    unittest.main()
