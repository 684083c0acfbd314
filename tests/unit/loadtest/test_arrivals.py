"""Instants: their number, their spread, their shape over time, and that a seed repeats them."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.arrivals import Burst, Diurnal, Gamma, Open, Poisson, instants

KINDS: list[Open] = [
    Poisson(),
    Gamma(kind="gamma", cv=3),
    Gamma(kind="gamma", cv=0.3),
    Diurnal(kind="diurnal", period_s=500),
    Burst(kind="burst", factor=4, every_s=100, length_s=20),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_seed_repeats_them_and_another_does_not(kind: Open) -> None:
    first = instants(kind, 2.0, 200, seed=1)
    assert np.array_equal(first, instants(kind, 2.0, 200, seed=1))
    assert not np.array_equal(first[:50], instants(kind, 2.0, 200, seed=2)[:50])
    assert np.all(np.diff(first) >= 0)
    assert first[0] >= 0
    assert first[-1] < 200


@pytest.mark.parametrize(("cv", "least", "most"), [(0.3, 0.28, 0.32), (1.0, 0.96, 1.04), (3.0, 2.8, 3.2)])
def test_gaps_have_the_mean_and_the_cv(cv: float, least: float, most: float) -> None:
    kind = Poisson() if cv == 1 else Gamma(kind="gamma", cv=cv)
    gaps = np.diff(instants(kind, 5.0, 10_000, seed=3))
    assert gaps.mean() == pytest.approx(0.2, rel=0.05)
    assert least < gaps.std() / gaps.mean() < most


def test_a_day_is_quiet_at_its_ends_and_busy_in_the_middle() -> None:
    found = instants(Diurnal(kind="diurnal", period_s=1000, depth=0.8), 10.0, 1000, seed=1)
    counts, _ = np.histogram(found, bins=[0, 100, 450, 550, 900, 1000])
    assert len(found) == pytest.approx(10_000, rel=0.05)
    assert counts[2] > 5 * counts[0]
    assert counts[2] > 5 * counts[4]


def test_a_burst_has_its_factor_and_its_place() -> None:
    found = instants(Burst(kind="burst", factor=8, every_s=100, length_s=20), 2.0, 10_000, seed=1)
    inside = np.abs(found % 100 - 50) < 10
    assert inside.sum() / (20 * 100) == pytest.approx(16, rel=0.05)
    assert (~inside).sum() / (80 * 100) == pytest.approx(2, rel=0.05)
