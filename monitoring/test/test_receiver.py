"""Tests of what the live test takes from Alertmanager's messages."""

from __future__ import annotations

import http.client
import json
import unittest

from live.receiver import Receiver


class Webhooks(unittest.TestCase):
    def setUp(self) -> None:
        self.receiver = Receiver("127.0.0.1")
        self.addCleanup(self.receiver.close)

    def send(self, path: str, *alerts: tuple[str, str, str]) -> None:
        body = {
            "alerts": [
                {"labels": {"alertname": name, "severity": "info"}, "status": status, "startsAt": started}
                for name, status, started in alerts
            ]
        }
        connection = http.client.HTTPConnection(self.receiver.url.removeprefix("http://"), timeout=10)
        self.addCleanup(connection.close)
        connection.request("POST", path, body=json.dumps(body))
        self.assertEqual(connection.getresponse().status, 200)

    def test_are_told_apart_by_their_path_and_repetitions_are_dropped(self) -> None:
        first, second = "2026-01-31T12:00:00.123456789Z", "2026-01-31T12:05:00Z"
        self.send("/team", ("A", "firing", first))
        self.send("/team", ("A", "firing", first), ("B", "firing", second))
        self.send("/log", ("A", "firing", first))
        self.send("/team", ("A", "resolved", first))
        self.send("/team", ("A", "firing", second))
        found = [(n.receiver, n.alert, n.firing) for n in self.receiver.notices()]
        self.assertEqual(
            found,
            [("team", "A", True), ("team", "B", True), ("log", "A", True), ("team", "A", False), ("team", "A", True)],
        )

    def test_keep_the_fraction_of_a_second_at_which_an_alert_began(self) -> None:
        self.send("/team", ("A", "firing", "2026-01-31T12:00:00.123456789Z"))
        self.send("/team", ("A", "firing", "2026-01-31T13:00:00+01:00"))
        exact, whole = (notice.started for notice in self.receiver.notices())
        self.assertEqual(whole, 1769860800.0)
        self.assertAlmostEqual(exact - whole, 0.123456, places=5)


if __name__ == "__main__":
    unittest.main()
