"""Traces: the requests of one measurement, drawn from a scenario, a rate and a seed, or read back from a file.

The same scenario, rate and seed give the same requests. What is asked is drawn apart from when, so that two rates ask
for the same requests in the same order and differ in their gaps alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TypeVar

import numpy as np

from loadtest.arrivals import Closed, Replay, instants
from loadtest.mixes import Scenario, ScenarioError
from loadtest.parquet import BadFile, read_trace
from loadtest.records import Planned

T = TypeVar("T")
SAMPLE = "sample"
MAX_SEED = 2**31 - 1


def plan(scenario: Scenario, rate_hz: float, seed: int) -> tuple[Planned, ...]:
    """The requests in the order in which they are due; of a closed loop as many as could be needed.

    Raises:
        ScenarioError: the recorded trace cannot be read.
    """
    match scenario.arrivals:
        case Replay(trace=path, speed=speed):
            return _replayed(path, speed, scenario.seconds)
        case Closed(users=users, think_s=think_s):
            draw = np.random.default_rng([seed, 3])
            count = int(users * scenario.seconds * 50)
            due = draw.exponential(think_s, count) if think_s else np.zeros(count)
        case arrivals:
            due = instants(arrivals, rate_hz, scenario.seconds, seed)
    return tuple(_requests(scenario, due.tolist(), seed))


def _requests(scenario: Scenario, due: Sequence[float], seed: int) -> Iterable[Planned]:
    draw = np.random.default_rng([seed, 2])
    entries = {index: entry.weight for index, entry in enumerate(scenario.mix)}
    classes = {name: slo.weight for name, slo in scenario.slo.items()}
    for index, at_s in enumerate(due):
        entry = scenario.mix[_pick(draw, entries)]
        seconds, results = _pick(draw, entry.seconds), _pick(draw, entry.results)
        slo = _pick(draw, classes)
        cancelled = draw.random() < scenario.cancels.share
        after_s = float(draw.exponential(scenario.cancels.after_s))
        yield Planned(
            index=index,
            at_s=at_s,
            tenant=_pick(draw, scenario.tenants),
            slo=slo,
            limit_s=scenario.slo[slo].limit_s(seconds * results),
            model=entry.model,
            resolution=_pick(draw, entry.resolutions),
            seconds=seconds,
            results=results,
            images=_pick(draw, entry.images),
            steps=entry.steps,
            seed=int(draw.integers(MAX_SEED)),
            priority=scenario.slo[slo].priority,
            prompt=_pick(draw, dict.fromkeys(scenario.prompts, 1.0)),
            cancel_after_s=after_s if cancelled else None,
        )


def _pick(draw: np.random.Generator, weights: Mapping[T, float]) -> T:
    """One of the keys, by its weight."""
    at = draw.random() * sum(weights.values())
    for value, weight in weights.items():
        at -= weight
        if at < 0:
            return value
    return value


def _replayed(path: Path, speed: float, seconds: float) -> tuple[Planned, ...]:
    try:
        with resources.as_file(resources.files("loadtest") / "scenarios" / "sample.parquet") as shipped:
            found = read_trace(shipped if str(path) == SAMPLE else path)
    except BadFile as error:
        raise ScenarioError(f"arrivals.trace: {error}") from error
    stretched = (replace(request, at_s=request.at_s / speed) for request in found)
    return tuple(request for request in stretched if request.at_s < seconds)
