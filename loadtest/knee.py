"""Where a system stops holding: up until attainment is below the target, then bisection, then beyond."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loadtest.mixes import Sweep

DIGITS = 3  # of rates, so that a resumed sweep asks for the very same ones


@dataclass(frozen=True, slots=True)
class Knee:
    """The highest rate that was held and the lowest that was not. None: even the first was not; even the last was."""

    held_hz: float | None
    missed_hz: float | None


async def search(sweep: Sweep, attained: Callable[[float], Awaitable[float]]) -> Knee:
    """Measures rate after rate. `attained` measures one, or knows it already; its attainment."""
    held: float | None = None
    missed: float | None = None
    rate = rounded(sweep.from_hz)
    while missed is None and rate <= sweep.most_hz:
        if await attained(rate) >= sweep.target:
            held = rate
        else:
            missed = rate
        rate = rounded(rate * sweep.factor)
    for _ in range(sweep.bisections):
        if held is None or missed is None:
            break
        middle = rounded((held * missed) ** 0.5)
        if middle in {held, missed}:
            break
        if await attained(middle) >= sweep.target:
            held = middle
        else:
            missed = middle
    for factor in sweep.beyond:
        if missed is not None:
            await attained(rounded((held or missed) * factor))
    return Knee(held, missed)


def rounded(rate_hz: float) -> float:
    """A rate as it is measured and named."""
    return float(f"{rate_hz:.{DIGITS}g}")
