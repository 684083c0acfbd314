"""A sweep finds the knee, goes beyond it, and asks for the same rates when it is taken up again."""

from __future__ import annotations

import asyncio

from loadtest.knee import Knee, search
from loadtest.mixes import Sweep


def found(sweep: Sweep, capacity_hz: float) -> tuple[Knee, list[float]]:
    rates: list[float] = []

    async def attained(rate_hz: float) -> float:
        rates.append(rate_hz)
        return 1.0 if rate_hz <= capacity_hz else 0.2

    return asyncio.run(search(sweep, attained)), rates


def test_up_then_between_then_beyond() -> None:
    sweep = Sweep(from_hz=1, factor=2, bisections=3, beyond=(1.5, 2))
    knee, rates = found(sweep, 5.0)
    assert rates == [1, 2, 4, 8, 5.66, 4.76, 5.19, 7.14, 9.52]
    assert knee == Knee(4.76, 5.19)
    assert found(sweep, 5.0) == (knee, rates)


def test_a_system_that_holds_nothing_and_one_that_holds_all() -> None:
    assert found(Sweep(from_hz=1, beyond=()), 0.5) == (Knee(None, 1.0), [1.0])
    knee, rates = found(Sweep(from_hz=1, factor=2, most_hz=4, bisections=2), 99)
    assert (knee, rates) == (Knee(4.0, None), [1, 2, 4])
