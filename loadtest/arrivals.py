"""When requests are meant to be sent: instants in seconds from the start of a measurement, drawn from one seed.

Open kinds do not look at the server: a request is due whether or not those before it were answered. The closed kind
has a number of callers of which each waits for its own answer, so a slow server is asked less; it says how fast a
server can go, never how it holds traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Instants = NDArray[np.float64]
Gaps = Callable[[int], Instants]
Positive = Annotated[float, Field(gt=0)]


class Kind(BaseModel):
    """What all kinds have in common: no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Poisson(Kind):
    """Callers that know nothing of each other: exponential gaps, CV 1."""

    kind: Literal["poisson"] = "poisson"


class Gamma(Kind):
    """Gaps of a gamma distribution: `cv` above 1 comes in clumps, below 1 is more even than Poisson."""

    kind: Literal["gamma"]
    cv: Positive = Field(default=3.0, description="standard deviation of the gaps over their mean")


class Diurnal(Kind):
    """A Poisson process whose rate is a sine wave, beginning at its lowest."""

    kind: Literal["diurnal"]
    period_s: Positive = Field(default=86_400.0, description="length of a day")
    depth: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.8, description="how far the rate goes above and below its mean, as a share of it"
    )


class Burst(Kind):
    """A Poisson process whose rate is `factor` times as high for `length_s` at the middle of every `every_s`."""

    kind: Literal["burst"]
    factor: Positive = Field(default=8.0, description="rate in a burst over the rate outside, which is the given one")
    every_s: Positive = Field(default=60.0, description="from one burst to the next")
    length_s: Positive = Field(default=10.0, description="of a burst")


class Closed(Kind):
    """`users` callers, each of which thinks, asks, and waits for the end. The rate is what comes of it."""

    kind: Literal["closed"]
    users: Annotated[int, Field(ge=1)] = Field(default=4, description="callers at once")
    think_s: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="mean pause between an end and the next request, exponential"
    )


class Replay(Kind):
    """The instants and requests of a recorded trace. Whatever the rate, `speed` stretches them."""

    kind: Literal["replay"]
    trace: Path = Field(description="Parquet as `skyreels-load trace` writes it; `sample` is the shipped one")
    speed: Positive = Field(default=1.0, description="2 sends twice as fast as it was recorded")


Open = Poisson | Gamma | Diurnal | Burst
Arrivals = Annotated[Open | Closed | Replay, Field(discriminator="kind")]


def instants(arrivals: Open, rate_hz: float, seconds: float, seed: int) -> Instants:
    """Sorted instants in [0, seconds) at a mean rate of `rate_hz` (for bursts: outside of them)."""
    draw = np.random.default_rng([seed, 1])
    match arrivals:
        case Poisson():
            return _renewal(lambda count: draw.exponential(1 / rate_hz, count), rate_hz, seconds)
        case Gamma(cv=cv):
            shape = 1 / cv**2
            return _renewal(lambda count: draw.gamma(shape, 1 / (rate_hz * shape), count), rate_hz, seconds)
        case Diurnal(period_s=period_s, depth=depth):
            most = rate_hz * (1 + depth)
            candidates = _renewal(lambda count: draw.exponential(1 / most, count), most, seconds)
            rate = rate_hz * (1 - depth * np.cos(2 * np.pi * candidates / period_s))
            return _thinned(candidates, rate / most, draw)
        case Burst(factor=factor, every_s=every_s, length_s=length_s):
            most = rate_hz * max(factor, 1.0)
            candidates = _renewal(lambda count: draw.exponential(1 / most, count), most, seconds)
            inside = np.abs(candidates % every_s - every_s / 2) < length_s / 2
            return _thinned(candidates, np.where(inside, rate_hz * factor, rate_hz) / most, draw)


def _renewal(gaps: Gaps, rate_hz: float, seconds: float) -> Instants:
    """Sums of gaps up to the end."""
    found = np.cumsum(gaps(int(rate_hz * seconds * 1.1) + 16))
    while found[-1] < seconds:
        found = np.concatenate([found, found[-1] + np.cumsum(gaps(int(rate_hz * seconds * 0.1) + 16))])
    return found[found < seconds]


def _thinned(candidates: Instants, keep: Instants, draw: np.random.Generator) -> Instants:
    """Each candidate stays with its own probability: a Poisson process of a varying rate (Lewis and Shedler, 1979)."""
    return candidates[draw.random(len(candidates)) < keep]
