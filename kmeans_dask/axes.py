"""Panels of a picture: values become ticks, lines and points of an SVG, always with the same bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final
from xml.etree import ElementTree as ET

INK, MUTED, GRID, LINE, MARK, BAND = "#1f2933", "#616e7c", "#e4e7eb", "#2f6fb0", "#c2410c", "#fce5d4"
FONT: Final = "Helvetica, Arial, 'Liberation Sans', sans-serif"
_SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ROOM: Final = 0.08  # of an axis, left free beyond the values
_APART: Final = 16  # pixels between numbers below an axis


@dataclass(frozen=True, slots=True)
class Box:
    """Where a panel's values lie, in pixels."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Series:
    """What a panel shows over k: values, None where there is none; errors up and down; the k that it would take."""

    title: str
    values: tuple[float | None, ...]
    marked: int | None = None
    errors: tuple[float, ...] = ()
    from_zero: bool = False


def ticks(lowest: float, highest: float, about: int) -> list[float]:
    """Return round values from lowest to highest, about so many: multiples of 1, 2 or 5 times a power of ten."""
    span = highest - lowest
    power = int(f"{span / about:e}".partition("e")[2])
    unit = 10.0**power if power >= 0 else 1 / 10.0**-power
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit * about >= span * (1 - 1e-9))
    first, last = math.ceil(lowest / step - 1e-9), math.floor(highest / step + 1e-9)
    return [step * i for i in range(first, last + 1)]


def power_of(magnitude: float) -> int:
    """Return the power of ten to write before an axis; 0 where plain numbers stay short."""
    power = int(f"{magnitude:e}".partition("e")[2]) if magnitude else 0
    return power if not -3 <= power < 5 else 0


def times(power: int) -> str:
    """Return a power of ten in words for an axis, nothing for 0."""
    return f" (× 10{str(power).translate(_SUPERSCRIPTS)})" if power else ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart of one series over the numbers of clusters, the chosen one banded."""

    parent: ET.Element
    box: Box
    ks: Sequence[int]
    series: Series
    chosen: int
    n_ticks: int = 4

    def draw(self) -> None:
        """Add the panel to its picture."""
        lowest, highest = self._limits()
        self._frame(lowest, highest)
        places = [
            None if v is None else (self._x(k), self._y(v, lowest, highest))
            for k, v in zip(self.ks, self.series.values, strict=True)
        ]
        self._line(places)
        self._errors(lowest, highest)
        for k, place in zip(self.ks, places, strict=True):
            if place is not None:
                marked = k == self.series.marked
                circle(self.parent, *place, 5.5 if marked else 3, MARK if marked else LINE)

    def _limits(self) -> tuple[float, float]:
        errors = self.series.errors or (0.0,) * len(self.ks)
        shown = [(v, e) for v, e in zip(self.series.values, errors, strict=True) if v is not None]
        lowest = min((v - e for v, e in shown), default=0.0)
        highest = max((v + e for v, e in shown), default=1.0)
        if self.series.from_zero:
            lowest = min(0.0, lowest)
        span = highest - lowest or abs(highest) or 1.0
        below = 0.0 if self.series.from_zero and lowest == 0 else _ROOM * span
        return lowest - below, highest + _ROOM * span

    def _x(self, k: float) -> float:
        first, last = self.ks[0], self.ks[-1]
        return self.box.left + self.box.width * (0.03 + 0.94 * (k - first) / ((last - first) or 1))

    def _y(self, value: float, lowest: float, highest: float) -> float:
        return self.box.top + self.box.height * (1 - (value - lowest) / (highest - lowest))

    def _frame(self, lowest: float, highest: float) -> None:
        box, bottom = self.box, self.box.top + self.box.height
        if self.chosen in self.ks:
            rect(self.parent, self._x(self.chosen) - 9, box.top, 18, box.height, BAND)
        power = power_of(max(abs(lowest), abs(highest)))
        values = ticks(lowest, highest, self.n_ticks)
        shown = [value / 10.0**power if power >= 0 else value * 10.0**-power for value in values]
        for value, number in zip(values, _numbers(shown), strict=True):
            y = self._y(value, lowest, highest)
            line(self.parent, box.left, y, box.left + box.width, y, GRID)
            text(self.parent, box.left - 8, y + 4, number, 11, MUTED, "end")
        self._number_axis(bottom)
        line(self.parent, box.left, bottom, box.left + box.width, bottom, MUTED)
        line(self.parent, box.left, box.top, box.left, bottom, MUTED)
        text(self.parent, box.left, box.top - 10, self.series.title + times(power), 13, INK, weight="bold")

    def _number_axis(self, bottom: float) -> None:
        """Write numbers of clusters below the axis, the chosen one always, and others where there is room."""
        chosen = self._x(self.chosen)
        others = [
            k for k in _whole_ticks(self.ks, int(self.box.width / 34)) if abs(self._x(k) - chosen) > _APART
        ]
        for k in others:
            line(self.parent, self._x(k), bottom, self._x(k), bottom + 5, MUTED)
            text(self.parent, self._x(k), bottom + 18, str(k), 11, MUTED, "middle")
        if self.chosen in self.ks:
            line(self.parent, chosen, bottom, chosen, bottom + 5, INK)
            text(self.parent, chosen, bottom + 18, str(self.chosen), 11, INK, "middle", "bold")

    def _line(self, places: Sequence[tuple[float, float] | None]) -> None:
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in (place for place in places if place is not None))
        ET.SubElement(
            self.parent, "polyline",
            {"points": points, "fill": "none", "stroke": LINE, "stroke-width": "2", "stroke-linejoin": "round"},
        )  # fmt: skip

    def _errors(self, lowest: float, highest: float) -> None:
        for k, value, error in zip(self.ks, self.series.values, self.series.errors, strict=False):
            if value is not None:
                x = self._x(k)
                ends = [self._y(value + sign * error, lowest, highest) for sign in (1, -1)]
                line(self.parent, x, ends[0], x, ends[1], LINE, 1.5)
                half = min(4.0, 0.3 * self.box.width / len(self.ks))
                for y in ends:
                    line(self.parent, x - half, y, x + half, y, LINE, 1.5)


def _numbers(values: Sequence[float]) -> list[str]:
    """Return ticks' values without rounding's remains, with as many decimals as any needs, thousands parted."""
    decimals = max((len(f"{abs(v):.6g}".partition(".")[2]) for v in values if abs(v) < 1000), default=0)
    return [f"{value + 0.0:,.{decimals}f}" for value in values]


def _whole_ticks(ks: Sequence[int], room: int) -> Sequence[int]:
    """Return the numbers of clusters to write below an axis: all, or round ones where these are too many."""
    if len(ks) <= room and (ks[-1] - ks[0]) < 2 * room * min(b - a for a, b in pairwise(ks)):
        return ks
    return sorted({round(value) for value in ticks(ks[0], ks[-1], max(2, room // 2))})


def text(
    parent: ET.Element, x: float, y: float, words: str, size: int, fill: str, anchor: str = "start",
    weight: str = "normal",
) -> None:  # fmt: skip
    """Add a line of text whose baseline is at y."""
    attributes = {
        "x": f"{x:.2f}",
        "y": f"{y:.2f}",
        "font-size": str(size),
        "fill": fill,
        "text-anchor": anchor,
        "font-weight": weight,
    }
    ET.SubElement(parent, "text", attributes).text = words


def line(
    parent: ET.Element, x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1.0
) -> None:
    """Add a straight line."""
    places = {
        name: f"{value:.2f}" for name, value in zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True)
    }
    ET.SubElement(parent, "line", {**places, "stroke": stroke, "stroke-width": f"{width:g}"})


def rect(parent: ET.Element, x: float, y: float, width: float, height: float, fill: str) -> None:
    """Add a filled rectangle."""
    sizes = {"x": x, "y": y, "width": width, "height": height}
    ET.SubElement(parent, "rect", {**{name: f"{value:.2f}" for name, value in sizes.items()}, "fill": fill})


def circle(parent: ET.Element, x: float, y: float, radius: float, fill: str) -> None:
    """Add a dot with a white rim."""
    ET.SubElement(
        parent, "circle",
        {"cx": f"{x:.2f}", "cy": f"{y:.2f}", "r": f"{radius:g}", "fill": fill, "stroke": "white", "stroke-width": "1"},
    )  # fmt: skip
