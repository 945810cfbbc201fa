"""Pictures show the data: every panel of every dashboard has them, and says so when there are none."""

from __future__ import annotations

import math
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path

from llm_config_dashboards.__main__ import BOARDS
from llm_config_dashboards.panels import Json
from llm_config_dashboards.picture import draw, place
from llm_config_dashboards.prometheus import Prometheus, Window
from PIL import Image
from standin import Found, prometheus

WINDOW = Window(end=1_000_000, seconds=600, scrape=10)


def wave(size: float) -> Callable[[float], float]:
    """A number that moves between one and three times the size."""
    return lambda at: size * (2 + math.sin(at / 60))


def busy(fields: dict[str, str]) -> Found:
    """Two nodes whose numbers move, and the buckets of a histogram."""
    if "process_start_time_seconds" in fields["query"]:
        return [({"instance": "a:9090"}, lambda at: 1000 * (WINDOW.end - 300))]
    if "_bucket" in fields["query"] and "quantile" not in fields["query"]:
        return [({"le": le}, wave(rank)) for rank, le in enumerate(("0.1", "1", "+Inf"))]
    nodes = (("a:9090", 0.1), ("b:9090", 0.2))
    return [({"instance": node, "environment": node, "address": node}, wave(size)) for node, size in nodes]


def colored(picture: Image.Image, panel: Json) -> int:
    """How many pixels of the panel, below its title and beside its legend, are neither grey nor of a dark colour."""
    box = place(panel["gridPos"])
    inside = (int(box.x), int(box.y) + 30, int(box.x + box.w * 0.7), int(box.y + box.h * 0.75))
    pixels = picture.crop(inside).convert("HSV").tobytes()
    return sum(saturation > 90 and value > 90 for saturation, value in zip(pixels[1::3], pixels[2::3], strict=True))


def drawn(url: str, board: Json) -> Image.Image:
    """The picture of the dashboard from what answers there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        draw(Prometheus(url), board, WINDOW, path)
        with Image.open(path) as picture:
            return picture.convert("RGB")


def panels(board: Json) -> list[Json]:
    """All but the headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


class Pictures(unittest.TestCase):
    def test_every_panel_shows_its_data(self) -> None:
        with prometheus(busy) as url:
            for name, make in BOARDS.items():
                board = make()
                picture = drawn(url, board)
                self.assertEqual(picture.width, 1600)
                for panel in panels(board):
                    self.assertGreater(colored(picture, panel), 100, f"{name}: {panel['title']}")

    def test_a_panel_without_data_is_drawn_empty(self) -> None:
        with prometheus(lambda fields: []) as url:
            for name, make in BOARDS.items():
                board = make()
                picture = drawn(url, board)
                for panel in panels(board):
                    self.assertEqual(colored(picture, panel), 0, f"{name}: {panel['title']}")


if __name__ == "__main__":
    unittest.main()
