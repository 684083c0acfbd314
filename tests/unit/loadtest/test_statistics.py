"""Quantiles are told with intervals, and only where there are samples enough."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.statistics import NEEDED, mean, quantiles, ratio


def drawn(seeds: int, size: int) -> list[list[float]]:
    return [np.random.default_rng(seed).exponential(1.0, size).tolist() for seed in range(seeds)]


@pytest.mark.parametrize(("quantile", "needed"), NEEDED.items())
def test_no_quantile_below_its_number_of_samples(quantile: float, needed: int) -> None:
    assert quantiles([list(range(needed - 1))])[quantile] is None
    assert quantiles([list(range(needed))])[quantile] is not None
    assert NEEDED[0.99] == 1000


def test_an_interval_holds_the_truth_and_its_own_estimate() -> None:
    for quantile, estimate in quantiles(drawn(8, 400)).items():
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low <= -np.log(1 - quantile) <= estimate.high


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = quantiles([[1.0, 2.0, 3.0, 4.0, 5.0] * 20] * 4)[0.5]
    apart = quantiles([[value + shift for value in (1.0, 2.0, 3.0, 4.0, 5.0)] * 20 for shift in (0, 5, 10, 15)])[0.5]
    assert alike is not None
    assert apart is not None
    assert None not in {alike.low, alike.high, apart.low, apart.high}
    assert (apart.high or 0) - (apart.low or 0) > 5 * ((alike.high or 0) - (alike.low or 0))


def test_one_seed_has_no_interval() -> None:
    estimate = quantiles(drawn(1, 400))[0.5]
    assert estimate is not None
    assert (estimate.low, estimate.high) == (None, None)
    assert mean([]) is None
    assert mean([[1.0, 3.0]]) is not None


def test_a_ratio_is_paired_by_seed() -> None:
    estimate = ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)
    assert ratio([1.0], [0.0]) is None
