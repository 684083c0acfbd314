"""Percentiles with confidence intervals, and none where there are too few samples to speak of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
RESAMPLES = 1000
LEVEL = 0.95
NEEDED: Mapping[float, int] = {0.5: 5, 0.9: 50, 0.95: 100, 0.99: 1000}  # samples below which a quantile is not told


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the ends of its interval; without them where there is one seed only."""

    value: float
    low: float | None = None
    high: float | None = None


def quantiles(by_seed: Sequence[Sequence[float]]) -> dict[float, Estimate | None]:
    """p50, p90, p95 and p99 of all samples together; None below `NEEDED` samples.

    The interval is a percentile bootstrap (Efron, 1979) in two levels: seeds are drawn with replacement, then samples
    within each. Samples of one seed hang together, because they queued together: seeds are what is independent.
    """
    groups = [np.asarray(group, dtype=np.float64) for group in by_seed if len(group)]
    total = sum(len(group) for group in groups)
    wanted = [quantile for quantile, needed in NEEDED.items() if total >= needed]
    found: dict[float, Estimate | None] = dict.fromkeys(NEEDED)
    if not wanted:
        return found
    values = np.quantile(np.concatenate(groups), wanted)
    ends = _interval(groups, lambda sample: np.asarray(np.quantile(sample, wanted), dtype=np.float64))
    for index, quantile in enumerate(wanted):
        low, high = (None, None) if ends is None else (float(ends[0][index]), float(ends[1][index]))
        found[quantile] = Estimate(float(values[index]), low, high)
    return found


def mean(by_seed: Sequence[Sequence[float]]) -> Estimate | None:
    """The mean of all samples together, with the interval of the same bootstrap. None without samples."""
    groups = [np.asarray(group, dtype=np.float64) for group in by_seed if len(group)]
    if not groups:
        return None
    ends = _interval(groups, lambda sample: np.asarray([sample.mean()]))
    value = float(np.concatenate(groups).mean())
    return Estimate(value) if ends is None else Estimate(value, float(ends[0][0]), float(ends[1][0]))


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate | None:
    """Mean of `above` over mean of `below`, paired by seed, with a bootstrap interval over the pairs."""
    pairs = np.asarray(list(zip(above, below, strict=True)), dtype=np.float64)
    if not len(pairs) or not pairs[:, 1].sum():
        return None
    value = float(pairs[:, 0].sum() / pairs[:, 1].sum())
    if len(pairs) < 2:
        return Estimate(value)
    draw = np.random.default_rng(len(pairs))
    sums = pairs[draw.integers(len(pairs), size=(RESAMPLES, len(pairs)))].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = sums[:, 0] / sums[:, 1]
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def _interval(groups: Sequence[Values], of: Callable[[Values], Values]) -> tuple[Values, Values] | None:
    if len(groups) < 2:
        return None
    draw = np.random.default_rng(len(groups))
    drawn = []
    for _ in range(RESAMPLES):
        chosen = [groups[index] for index in draw.integers(len(groups), size=len(groups))]
        drawn.append(of(np.concatenate([group[draw.integers(len(group), size=len(group))] for group in chosen])))
    ends = np.quantile(np.asarray(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    low, high = ends.astype(np.float64)
    return low, high
