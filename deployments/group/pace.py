"""How long the steps of each shape take, and from when on one counts as hung."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from statistics import median

FACTOR = 10  # a step this many times longer than usual hangs
_KEPT = 32


class Pace:
    """Learns from finished steps. A shape is whatever decides a step's time: model, size, length, guidance."""

    def __init__(self, floor_s: float, limit_s: float) -> None:
        """`floor_s` is the shortest bound, `limit_s` the longest and that of a shape never seen."""
        self._floor_s = floor_s
        self._limit_s = limit_s
        self._seconds: dict[Hashable, deque[float]] = {}

    def measured(self, shape: Hashable, seconds: float) -> None:
        """One more step of this shape took so long."""
        self._seconds.setdefault(shape, deque(maxlen=_KEPT)).append(seconds)

    def typical_s(self, shape: Hashable) -> float | None:
        """The usual length of a step; None before the first."""
        return median(self._seconds[shape]) if shape in self._seconds else None

    def bound_s(self, shape: Hashable) -> float:
        """The longest a step may take."""
        typical_s = self.typical_s(shape)
        if typical_s is None:
            return self._limit_s
        return min(self._limit_s, max(FACTOR * typical_s, self._floor_s))
