"""The figures of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtest.measure import Measured
from loadtest.mixes import Scenario
from loadtest.records import JobRow, Outcome
from loadtest.report.svg import COLOURS, Chart, Point
from loadtest.slo import Summary, counted

MOST_CURVES = 6
OUTCOME_COLOURS = {
    Outcome.COMPLETED: "#2a9d5c",
    Outcome.REJECTED: "#b58900",
    Outcome.FAILED: "#c0392b",
    Outcome.CANCELLED: "#7f7f7f",
    Outcome.UNFINISHED: "#8e5bb5",
}


def attainment(summaries: Sequence[Summary], scenario: Scenario) -> str:
    """Rate against the share that completed in time, with intervals over seeds."""
    chart = Chart("requests per second, as sent", "in time", (0, _most(summaries)), (0, 1))
    points = [(summary.offered_hz, summary.attainment) for summary in summaries]
    chart.line([(0, scenario.sweep.target), (_most(summaries), scenario.sweep.target)], "#999", "target", dashed=True)
    chart.line([(x, estimate.value) for x, estimate in points], COLOURS[0], "in time")
    chart.dots([(x, estimate.value) for x, estimate in points], COLOURS[0])
    chart.bars([(x, e.low, e.high) for x, e in points if e.low is not None and e.high is not None], COLOURS[0])
    return chart.svg()


def goodput(summaries: Sequence[Summary]) -> str:
    """Rate against what completed, and what of it was in time."""
    most = _most(summaries)
    chart = Chart("requests per second, as sent", "per second", (0, most), (0, most))
    chart.line([(0, 0), (most, most)], "#999", "as sent", dashed=True)
    kinds: dict[str, tuple[str, Callable[[Summary], float]]] = {
        "completed": (COLOURS[1], lambda summary: summary.throughput_hz.value),
        "in time": (COLOURS[0], lambda summary: summary.goodput_hz.value),
        "rejected": (
            OUTCOME_COLOURS[Outcome.REJECTED],
            lambda summary: _share(summary, Outcome.REJECTED) * summary.offered_hz,
        ),
    }
    for name, (colour, of) in kinds.items():
        points = [(summary.offered_hz, of(summary)) for summary in summaries]
        chart.line(points, colour, name)
        chart.dots(points, colour)
    return chart.svg()


def distributions(rates: Sequence[tuple[Summary, Sequence[Measured]]], scenario: Scenario) -> str:
    """Of a few rates, the share of completed requests that took at most so long."""
    step = max(1, -(-len(rates) // MOST_CURVES))
    curves = []
    for summary, points in rates[::step]:
        rows = [row for point in points for row in counted(point, scenario)]
        taken = sorted(row.latency_s for row in rows if row.outcome is Outcome.COMPLETED and row.latency_s is not None)
        curves.append((summary.name, taken))
    most = max((taken[-1] for _, taken in curves if taken), default=1.0)
    chart = Chart("seconds from the intended instant to the end", "share", (0, most), (0, 1))
    for index, (name, taken) in enumerate(curves):
        steps: list[Point] = [(0, 0)]
        for count, value in enumerate(taken):
            steps += [(value, count / len(taken)), (value, (count + 1) / len(taken))]
        chart.line(steps, COLOURS[index % len(COLOURS)], name)
    return chart.svg()


def samples(rows: Sequence[JobRow]) -> list[JobRow]:
    """Jobs to be shown: the median, the slowest of ten and the slowest of all that tell of their stages."""
    told = [row for row in rows if row.spans and row.outcome is Outcome.COMPLETED]
    told.sort(key=lambda row: row.latency_s or 0.0)
    chosen = {int(len(told) * share) for share in (0.5, 0.9)} | {len(told) - 1} if told else set()
    return [told[index] for index in sorted(chosen)]


def gantt(row: JobRow) -> str:
    """A job's stages: pale while ready, dark at work, red where the work was thrown away."""
    names = list(dict.fromkeys(f"{span.stage} {span.chunk}" for span in sorted(row.spans, key=lambda s: s.ready_s)))
    names.reverse()
    end_s = max(span.ended_s for span in row.spans)
    chart = Chart(
        "seconds since the job was created, by the server's clock", "", (0, end_s), (-0.6, len(names) - 0.4),
        height=60 + 18 * len(names), labels=names,
    )  # fmt: skip
    for span in row.spans:
        at = names.index(f"{span.stage} {span.chunk}")
        tip = f"{span.stage}, result {span.result}, chunk {span.chunk}, attempt {span.attempt}"
        waited, worked = span.began_s - span.ready_s, span.ended_s - span.began_s
        chart.span(at, span.ready_s, span.began_s, "#c9d8e8", f"{tip}: waited {waited:.3f} s", thick=0.35)
        colour = COLOURS[0] if span.counted else OUTCOME_COLOURS[Outcome.FAILED]
        chart.span(at, span.began_s, span.ended_s, colour, f"{tip}: worked {worked:.3f} s")
    return chart.svg()


def timeline(point: Measured) -> str:
    """Every request of a measurement at its intended instant with how long it took, and what was done to the system."""
    ended = [row for row in point.rows if row.latency_s is not None]
    most = max((row.latency_s or 0.0 for row in ended), default=1.0)
    chart = Chart("seconds since the start, when it was due", "seconds to its end", (0, point.seconds), (0, most))
    for outcome, colour in OUTCOME_COLOURS.items():
        rows = [row for row in point.rows if row.outcome is outcome]
        if rows:
            chart.dots([(row.intended_s, row.latency_s or 0.0) for row in rows], colour, outcome.value)
    for mark in point.marks:
        whole = "" if mark.whole_after_s is None else f", whole after {mark.whole_after_s:.1f} s"
        chart.mark(mark.at_s, mark.what + whole)
    return chart.svg()


def queues(point: Measured) -> str | None:
    """Calls that wait, by stage, as scraped; None where no page told."""
    series: dict[str, list[Point]] = {}
    for sample in point.samples:
        if sample.name == "skyreels_stage_ready" and "stage" in sample.labels:
            series.setdefault(sample.labels["stage"], []).append((sample.at_s, sample.value))
    if not series:
        return None
    most = max(value for points in series.values() for _, value in points)
    chart = Chart("seconds since the start", "calls that wait", (0, point.seconds), (0, max(most, 1.0)), height=200)
    for index, (stage, points) in enumerate(sorted(series.items())):
        chart.line(sorted(points), COLOURS[index % len(COLOURS)], stage)
    for mark in point.marks:
        chart.mark(mark.at_s, mark.what)
    return chart.svg()


def _most(summaries: Sequence[Summary]) -> float:
    return max((summary.offered_hz for summary in summaries), default=1.0) * 1.05 or 1.0


def _share(summary: Summary, outcome: Outcome) -> float:
    total = sum(summary.outcomes.values())
    return summary.outcomes[outcome] / total if total else 0.0
