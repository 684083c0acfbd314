"""Two runs of the same traffic side by side, as ratios with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loadtest.measure import Measured
from loadtest.records import Outcome
from loadtest.report.text import Results, shown, table
from loadtest.slo import counted
from loadtest.statistics import ratio

HEAD = ("asked, per s", "seeds", "what", "first", "second", "second / first")


class NotAlike(Exception):
    """The runs were not asked for the same traffic; the message says what differs."""


def compare(first: Results, second: Results) -> str:
    """A page of Markdown with the rates and seeds that both have.

    Raises:
        NotAlike: their scenarios differ in what was asked for, or they have no measurement in common.
    """
    differing = [
        key
        for key, value in first.scenario.model_dump(mode="json").items()
        if key not in {"sweep", "seeds", "rate_hz", "about"} and value != second.scenario.model_dump(mode="json")[key]
    ]
    if differing:
        raise NotAlike(f"The runs were asked for different traffic ({', '.join(differing)}); compare equal ones.")
    lines = ["# Two runs", "", *_facts("first", first), *_facts("second", second), ""]
    rows = list(_rows(first, second))
    if not rows:
        raise NotAlike("The runs have no rate and seed in common.")
    return "\n".join([*lines, *table(HEAD, rows), "Intervals of 95 % over seeds, paired.", ""])


def _facts(name: str, found: Results) -> Iterator[str]:
    manifest = found.manifest
    yield f"- {name}: {manifest.get('target')}, commit {manifest.get('commit')}, {manifest.get('date')}, "
    yield f"  {manifest.get('machine')}"


def _rows(first: Results, second: Results) -> Iterator[tuple[str, ...]]:
    others = {points[0].rate_hz: {point.seed: point for point in points} for _, points in second.rates}
    for _, points in first.rates:
        rate_hz = points[0].rate_hz
        pairs = [(point, others[rate_hz][point.seed]) for point in points if point.seed in others.get(rate_hz, {})]
        for name, of in KINDS.items():
            values = [(of(one, first), of(other, second)) for one, other in pairs]
            told = [(a, b) for a, b in values if a is not None and b is not None]
            if told:
                ours, theirs = [a for a, _ in told], [b for _, b in told]
                means = f"{sum(ours) / len(ours):.3f}", f"{sum(theirs) / len(theirs):.3f}"
                yield f"{rate_hz:g}", str(len(told)), name, *means, shown(ratio(theirs, ours), 3)


def _attainment(point: Measured, found: Results) -> float | None:
    rows = [row for row in counted(point, found.scenario) if row.outcome is not Outcome.CANCELLED]
    return sum(row.met for row in rows) / len(rows) if rows else None


def _goodput(point: Measured, found: Results) -> float | None:
    return sum(row.met for row in counted(point, found.scenario)) / found.scenario.window_s


def _latency(point: Measured, found: Results) -> float | None:
    taken = [row.latency_s for row in counted(point, found.scenario) if row.outcome is Outcome.COMPLETED]
    values = [value for value in taken if value is not None]
    return sum(values) / len(values) if values else None


def _device(point: Measured, found: Results) -> float | None:
    video_s = sum(row.seconds * row.results for row in point.rows if row.outcome is Outcome.COMPLETED)
    spent = point.device
    return (spent.useful_s + spent.wasted_s) / video_s if spent is not None and video_s else None


KINDS: dict[str, Callable[[Measured, Results], float | None]] = {
    "in time": _attainment,
    "goodput, per s": _goodput,
    "mean end to end, s": _latency,
    "device-s per video-s": _device,
}
