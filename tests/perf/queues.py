"""The load kit beside theory: servers of known law on a virtual clock. Prints Markdown for BENCHMARKS.md.

`python -m tests.perf.queues`; the same figures every time, on any machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from loadtest.arrivals import Gamma
from loadtest.report.text import shown, table
from loadtest.slo import summarise
from loadtest.theory import allen_cunneen_wait_s, mdc_wait_s, mmc_within, quantile
from tests.unit.loadtest.synthetic import Synthetic, constant, exponential
from tests.unit.loadtest.test_selftest import SEEDS, measured, scenario, shifted, waits


def sojourns(load: float) -> Iterator[tuple[str, ...]]:
    """M/M/2, services of 1 s."""
    asked = scenario(1500)
    rate_hz = 2 * load
    points = [measured(asked, rate_hz, seed, Synthetic(2, shifted(exponential(1.0), seed))) for seed in SEEDS]
    part = summarise(points, asked).part("end to end")
    for probability, estimate in (part.quantiles if part else {}).items():
        expected = quantile(lambda s: mmc_within(s, load, 2, 1.0), probability)
        yield (
            f"{load:g}",
            str(part.samples if part else 0),
            f"p{probability * 100:g}",
            f"{expected:.2f}",
            shown(estimate, 2),
        )


def constants(workers: int, load: float) -> tuple[str, ...]:
    """M/D/c, services of 1 s: the mean wait."""
    asked = scenario(1500)
    points = [measured(asked, workers * load, seed, Synthetic(workers, constant(1.0))) for seed in SEEDS]
    return _means(f"M/D/{workers}", load, mdc_wait_s(load, workers, 1.0), waits(points, asked))


def general(cv: float, load: float) -> tuple[str, ...]:
    """G/M/2, services of 1 s: the mean wait."""
    asked = scenario(1500, Gamma(kind="gamma", cv=cv))
    points = [measured(asked, 2 * load, seed, Synthetic(2, shifted(exponential(1.0), seed))) for seed in SEEDS]
    expected = allen_cunneen_wait_s(load, 2, 1.0, cv, 1.0)
    return _means(f"G/M/2, arrivals of CV {cv:g}", load, expected, waits(points, asked))


def _means(name: str, load: float, expected: float, found: list[list[float]]) -> tuple[str, ...]:
    means = [statistics.mean(seed) for seed in found]
    value = statistics.mean(means)
    spread = f"{value:.3f} ({min(means):.3f}–{max(means):.3f})"
    return name, f"{load:g}", f"{expected:.3f}", spread, f"{value / expected:.2f}"


def main() -> None:
    rows = [row for load in (0.5, 0.7) for row in sojourns(load)]
    print("\n".join(table(("load", "samples", "M/M/2", "theory, s", "measured, s"), rows)))  # noqa: T201
    means = [constants(1, 0.7), constants(2, 0.7), constants(2, 0.85), general(0.5, 0.6), general(2.0, 0.6)]
    print("\n".join(table(("queue", "load", "mean wait by theory, s", "measured, s", "ratio"), means)))  # noqa: T201


if __name__ == "__main__":
    main()
