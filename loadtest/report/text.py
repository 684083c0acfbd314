"""A run as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from loadtest.dynamics import autoscale_lags, recovery_s
from loadtest.folder import RunFolder
from loadtest.measure import Measured
from loadtest.mixes import Scenario
from loadtest.records import Outcome
from loadtest.slo import LATE_S, Summary, counted, summarise
from loadtest.statistics import NEEDED, Estimate

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Results:
    """A run as it was read back."""

    manifest: Mapping[str, Any]
    scenario: Scenario
    rates: Sequence[tuple[Summary, Sequence[Measured]]]  # by rate
    cut_off: int

    @property
    def summaries(self) -> list[Summary]:
        return [summary for summary, _ in self.rates]

    @property
    def knee_hz(self) -> float | None:
        """The highest rate that was held below the first that was not."""
        held = None
        for summary in self.summaries:
            if summary.attainment.value < self.scenario.sweep.target:
                break
            held = summary.rate_hz or summary.offered_hz
        return held


def results(folder: RunFolder) -> Results:
    """What lies in a run's folder. OtherRun; ValueError when nothing was finished."""
    manifest = folder.manifest()
    scenario = Scenario.model_validate(manifest["scenario"])
    rates = [list(points) for _, points in groupby(folder.all(), key=lambda point: point.rate_hz)]
    if not rates:
        raise ValueError(f"{folder.path} holds no finished measurement yet.")
    return Results(manifest, scenario, [(summarise(p, scenario), p) for p in rates], folder.cut_off())


def markdown(found: Results) -> str:
    """The page."""
    scenario = found.scenario
    lines = [f"# Load: {scenario.name}", "", f"{scenario.about}.", "", *facts(found), ""]
    lines += ["## Rates", "", *table(RATES, map(rate_row, found.summaries)), *notes(found), ""]
    lines += ["## Where the time goes", "", "Seconds: value (interval of 95 % over seeds).", *_needed(), ""]
    for summary in found.summaries:
        lines += [f"### {summary.name}", "", *table(PARTS, part_rows(summary))]
    hurts = list(hurt_rows(found))
    if hurts:
        lines += ["## What was hurt", "", *table(HURTS, hurts)]
    lags = list(lag_rows(found))
    if lags:
        lines += ["## Scaling", "", *table(LAGS, lags)]
    return "\n".join(lines)


RATES = (
    *(
        "asked, per s",
        "sent, per s",
        "seeds",
        "requests",
        "in time",
        "goodput, per s",
        "completed, per s",
        "rejected",
        "failed",
    ),
    *("cancelled", "unfinished", "device-s per video-s", "wasted, device-s"),
)
PARTS = ("part", "samples", "p50", "p90", "p95", "p99")
HURTS = ("rate", "seed", "at, s", "what", "whole after, s", "in time again after, s")
LAGS = ("rate", "stage", "backlogs", "longest until slots rose, s")


def facts(found: Results) -> list[str]:
    """The manifest as a list."""
    hidden = {"scenario"}
    told = {name: value for name, value in found.manifest.items() if name not in hidden}
    scenario = found.scenario
    told["arrivals"] = scenario.arrivals.model_dump(mode="json")
    told["measurement"] = (
        f"{scenario.seconds:g} s each, the first {scenario.warmup_s:g} s not counted, seeds {list(scenario.seeds)}"
    )
    told["in time"] = ", ".join(
        f"{name}: {slo.latency_s:g} s + {slo.per_video_s:g} s per second of video" for name, slo in scenario.slo.items()
    )
    return [f"- {name}: {_plain(value)}" for name, value in told.items()]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {told}" for name, told in value.items())
    return str(value)


def rate_row(summary: Summary) -> tuple[str, ...]:
    """A row of the table of rates."""
    outcomes = [str(summary.outcomes[outcome]) for outcome in Outcome if outcome is not Outcome.COMPLETED]
    return (
        f"{summary.rate_hz:g}" if summary.rate_hz else NOTHING,
        f"{summary.offered_hz:.2f}",
        str(summary.seeds),
        str(sum(summary.outcomes.values())),
        shown(summary.attainment, 3),
        shown(summary.goodput_hz, 2),
        shown(summary.throughput_hz, 2),
        *outcomes,
        NOTHING if summary.device_per_video is None else f"{summary.device_per_video:.2f}",
        NOTHING if summary.wasted_s is None else f"{summary.wasted_s:.1f}",
    )


def notes(found: Results) -> Iterator[str]:
    """What a reader must know about the table."""
    knee = found.knee_hz
    target = f"{found.scenario.sweep.target:.0%}"
    if knee is None:
        yield f"At no rate were {target} in time."
    else:
        yield f"Up to {knee:g} per second at least {target} were in time."
    yield "Cancelled requests are those that their callers meant to cancel; they are in no share."
    for summary in found.summaries:
        if summary.late_p99_s > LATE_S:
            yield (
                f"At {summary.name} the generator itself was late ({summary.late_p99_s:.2f} s at "
                "p99): latencies hold that too, as they should, but it is not the server's."
            )
        if summary.refused_without_advice:
            yield (f"At {summary.name} {summary.refused_without_advice} were refused without a Retry-After.")
        if summary.scrape_failures:
            yield f"At {summary.name} {summary.scrape_failures} pages of metrics were not read."
    if found.cut_off:
        yield f"{found.cut_off} ended requests of measurements that were cut off are in their journals and not here."


def _needed() -> list[str]:
    needed = ", ".join(f"p{quantile * 100:g} {count:,}" for quantile, count in NEEDED.items())
    return [f"A percentile is told from so many samples on: {needed}."]


def part_rows(summary: Summary) -> Iterator[tuple[str, ...]]:
    """Rows of the table of parts."""
    for part in summary.parts:
        yield part.name, str(part.samples), *(shown(part.quantiles[quantile], 3) for quantile in NEEDED)


def hurt_rows(found: Results) -> Iterator[tuple[str, ...]]:
    """Rows of what was done to the system."""
    for summary, points in found.rates:
        for point in points:
            for mark in point.marks:
                whole = NOTHING if mark.whole_after_s is None else f"{mark.whole_after_s:.1f}"
                recovered = recovery_s(counted(point, found.scenario), mark)
                again = NOTHING if recovered is None else f"{recovered:.1f}"
                yield summary.name, str(point.seed), f"{mark.at_s:.1f}", mark.what, whole, again


def lag_rows(found: Results) -> Iterator[tuple[str, ...]]:
    """Rows of backlogs that waited for slots."""
    for summary, points in found.rates:
        lags: dict[str, list[float]] = {}
        for point in points:
            for stage, values in autoscale_lags(point.samples).items():
                lags.setdefault(stage, []).extend(values)
        for stage, values in sorted(lags.items()):
            yield summary.name, stage, str(len(values)), f"{max(values):.1f}"


def shown(estimate: Estimate | None, digits: int) -> str:
    """A figure with its interval."""
    if estimate is None:
        return NOTHING
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f}–{estimate.high:.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    body = ["| " + " | ".join(row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body, ""]
