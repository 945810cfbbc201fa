"""A page measured in pixels from its upper left corner, in the colours of Grafana's dark theme."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

_DPI = 100

PAGE = "#111217"
PANEL = "#181b1f"
BORDER = "#25282e"
GRID = "#2a2d33"
TEXT = "#ccccdc"
DIM = "#8e8e9c"

COLORS = {
    "blue": "#5794f2",
    "green": "#73bf69",
    "orange": "#ff9830",
    "purple": "#b877d9",
    "red": "#f2495c",
    "text": TEXT,
    "yellow": "#fade2a",
}
# In this order series get their colours.
PALETTE = (
    "#73bf69",
    "#f2cc0c",
    "#8ab8ff",
    "#ff780a",
    "#f2495c",
    "#5794f2",
    "#b877d9",
    "#4fb3a5",
    "#c0d8ff",
    "#fade2a",
    "#37872d",
    "#ffa6b0",
    "#a352cc",
    "#e0b400",
    "#1f60c4",
    "#c4162a",
)


@dataclass(frozen=True)
class Box:
    """A rectangle on the page."""

    x: float
    y: float
    w: float
    h: float

    def inset(self, left: float, top: float, right: float, bottom: float) -> Box:
        """What remains without these margins."""
        return Box(self.x + left, self.y + top, self.w - left - right, self.h - top - bottom)

    def columns(self, count: int, gap: float = 6) -> list[Box]:
        """Equal parts side by side."""
        w = (self.w - gap * (count - 1)) / count
        return [Box(self.x + at * (w + gap), self.y, w, self.h) for at in range(count)]

    def rows(self, count: int, gap: float = 6) -> list[Box]:
        """Equal parts below each other."""
        h = (self.h - gap * (count - 1)) / count
        return [Box(self.x, self.y + at * (h + gap), self.w, h) for at in range(count)]


def points(pixels: float) -> float:
    """The size of a font, or of a line, of so many pixels."""
    return pixels * 72 / _DPI


class Page:
    """What is drawn on."""

    def __init__(self, width: int, height: int) -> None:
        self._width = width
        self._height = height
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=PAGE, layout=None)
        self._canvas = FigureCanvasAgg(self._figure)

    def save(self, path: Path) -> None:
        # Without the version and the date: the same data give the same bytes.
        self._figure.savefig(path, format="png", metadata={"Software": None}, facecolor=PAGE)

    def axes(self, box: Box) -> Axes:
        """Empty axes that fill the box."""
        axes = self._figure.add_axes(
            (
                box.x / self._width,
                1 - (box.y + box.h) / self._height,
                max(box.w, 1) / self._width,
                max(box.h, 1) / self._height,
            )
        )
        axes.patch.set_visible(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, colors=DIM, labelsize=points(11.5))
        return axes

    def bare(self, box: Box) -> Axes:
        """Axes without ticks, measured in pixels from the box's upper left corner."""
        axes = self.axes(box)
        axes.set_axis_off()
        axes.set_xlim(0, box.w)
        axes.set_ylim(box.h, 0)
        return axes

    def _add(self, patch: Patch) -> None:
        # Below all axes, in the order of drawing.
        patch.set_zorder(-1)
        patch.set_transform(self._figure.dpi_scale_trans)
        self._figure.add_artist(patch)

    def rectangle(self, box: Box, color: str, *, edge: str = "none", round_by: float = 0, alpha: float = 1) -> None:
        corner = (box.x / _DPI, (self._height - box.y - box.h) / _DPI)
        if round_by:
            style = f"round,pad=0,rounding_size={round_by / _DPI}"
            self._add(
                FancyBboxPatch(
                    corner,
                    box.w / _DPI,
                    box.h / _DPI,
                    boxstyle=style,
                    facecolor=color,
                    edgecolor=edge,
                    linewidth=points(1),
                    alpha=alpha,
                )
            )
        else:
            self._add(Rectangle(corner, box.w / _DPI, box.h / _DPI, facecolor=color, edgecolor=edge, alpha=alpha))

    def line(self, x: float, y: float, length: float, color: str, *, dashed: bool, width: float = 2) -> None:
        """Horizontal."""
        line = Line2D(
            [x / _DPI, (x + length) / _DPI],
            [(self._height - y) / _DPI] * 2,
            color=color,
            linewidth=points(width),
            linestyle=(0, (2, 1.2)) if dashed else "solid",
            transform=self._figure.dpi_scale_trans,
        )
        self._figure.add_artist(line)

    def width(self, text: str, size: float, *, bold: bool = False) -> float:
        """Pixels that the text is wide."""
        font = FontProperties(size=points(size), weight="bold" if bold else "normal")
        renderer = self._canvas.get_renderer()  # type: ignore[no-untyped-call] # matplotlib has no type for it
        width, _, _ = renderer.get_text_width_height_descent(text, font, False)
        return float(width)

    def fitted(self, text: str, size: float, room: float) -> str:
        """The text, cut to the room if it must be."""
        if self.width(text, size) <= room:
            return text
        while text and self.width(text + "…", size) > room:
            text = text[:-1]
        return text + "…"

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        color: str = TEXT,
        bold: bool = False,
        align: str = "left",
    ) -> None:
        """`y` is the middle of the line."""
        self._figure.text(
            x / self._width,
            1 - y / self._height,
            # A dollar sign begins a formula otherwise.
            text.replace("$", r"\$"),
            fontsize=points(size),
            color=color,
            fontweight="bold" if bold else "normal",
            ha=align,
            va="center_baseline",
        )
