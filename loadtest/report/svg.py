"""Charts as inline SVG: axes with round ticks, lines, spans, marks. Nothing is fetched to show one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]
COLOURS = ("#1f77b4", "#d95f02", "#2a9d5c", "#8e5bb5", "#c0392b", "#7f7f7f", "#b58900", "#17a2b8")
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 40


@dataclass
class Chart:
    """One plot; x and y are in the units of its axes. What lies outside the ranges is cut off."""

    x_title: str
    y_title: str
    x: Point  # from, to
    y: Point
    width: int = 640
    height: int = 300
    labels: Sequence[str] = ()  # of rows, instead of ticks on the y axis: row i is y = i
    _body: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str]] = field(default_factory=list)

    def line(self, points: Sequence[Point], colour: str, name: str = "", *, dashed: bool = False) -> None:
        """Through the points, in their order."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        self._name(name, colour)

    def dots(self, points: Sequence[Point], colour: str, name: str = "", radius: float = 2.5) -> None:
        """A dot for each."""
        for x, y in points:
            self._body.append(f'<circle cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="{radius}" fill="{colour}"/>')
        self._name(name, colour)

    def bars(self, points: Sequence[tuple[float, float, float]], colour: str) -> None:
        """An interval at each x, from low to high."""
        for x, low, high in points:
            at = self._x(x)
            self._body.append(
                f'<path d="M{at:.1f} {self._y(low):.1f}V{self._y(high):.1f}M{at - 4:.1f} {self._y(low):.1f}h8'
                f'M{at - 4:.1f} {self._y(high):.1f}h8" stroke="{colour}" fill="none"/>'
            )

    def span(self, row: int, from_x: float, to_x: float, colour: str, tip: str, *, thick: float = 0.7) -> None:
        """A bar in a row of labels."""
        top, height = self._y(row) - self._row() * thick / 2, self._row() * thick
        width = max(self._x(to_x) - self._x(from_x), 0.8)
        self._body.append(
            f'<rect x="{self._x(from_x):.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}">'
            f"<title>{escape(tip)}</title></rect>"
        )

    def mark(self, x: float, text: str) -> None:
        """A line from bottom to top with a word."""
        at = self._x(x)
        self._body.append(
            f'<path d="M{at:.1f} {TOP}V{self.height - BOTTOM}" stroke="#c0392b" stroke-dasharray="2 3"/>'
            f'<text x="{at + 3:.1f}" y="{TOP + 9}" fill="#c0392b">{escape(text)}</text>'
        )

    def legend(self, name: str, colour: str) -> None:
        """An entry for what has no line."""
        self._name(name, colour)

    def svg(self) -> str:
        """The whole figure."""
        names = []
        at = LEFT + 8.0
        for name, colour in self._legend:
            names.append(
                f'<rect x="{at:.0f}" y="{self.height - 11}" width="10" height="8" fill="{colour}"/>'
                f'<text x="{at + 14:.0f}" y="{self.height - 3}">{escape(name)}</text>'
            )
            at += 26 + 6.2 * len(name)
        height = self.height + (0 if names else -6)
        return (
            f'<svg viewBox="0 0 {self.width} {height}" width="{self.width}" height="{height}" role="img" '
            f'font-size="11" font-family="system-ui, sans-serif" fill="#333">{self._axes()}{"".join(self._body)}'
            f"{''.join(names)}</svg>"
        )

    def _name(self, name: str, colour: str) -> None:
        if name and (name, colour) not in self._legend:
            self._legend.append((name, colour))

    def _axes(self) -> str:
        bottom, right = self.height - BOTTOM, self.width - RIGHT
        drawn = [f'<path d="M{LEFT} {TOP}V{bottom}H{right}" stroke="#999" fill="none"/>']
        for tick in ticks(*self.x):
            at = self._x(tick)
            drawn.append(
                f'<path d="M{at:.1f} {bottom}v4" stroke="#999"/>'
                f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>'
            )
        rows = enumerate(self.labels) if self.labels else ((tick, f"{tick:g}") for tick in ticks(*self.y))
        for value, label in rows:
            at = self._y(value)
            drawn.append(
                f'<path d="M{LEFT} {at:.1f}H{right}" stroke="#eee"/>'
                f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(label)}</text>'
            )
        drawn.append(f'<text x="{right}" y="{bottom + 26}" text-anchor="end">{escape(self.x_title)}</text>')
        drawn.append(f'<text x="{LEFT + 4}" y="{TOP - 3}">{escape(self.y_title)}</text>')
        return "".join(drawn)

    def _x(self, value: float) -> float:
        low, high = self.x
        share = (min(max(value, low), high) - low) / ((high - low) or 1)
        return LEFT + share * (self.width - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        low, high = self.y
        share = (min(max(value, low), high) - low) / ((high - low) or 1)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def _row(self) -> float:
        """The height of a row of labels."""
        return abs(self._y(0) - self._y(1))


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between two ends: steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * factor for factor in (1, 2, 5) if power * factor >= rough), power * 10)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(step * count, 12) for count in range(first, last + 1)]
