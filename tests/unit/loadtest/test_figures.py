"""Figures are valid drawings that show what they are given."""

from __future__ import annotations

from xml.etree import ElementTree

from loadtest.measure import Measured
from loadtest.records import Mark, Outcome, Sample, Span
from loadtest.report import figures
from loadtest.report.svg import Chart, ticks
from loadtest.slo import summarise
from tests.unit.loadtest.rows import row, small


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 7) == [0, 2, 4, 6]
    assert ticks(0.3, 12) == [2, 4, 6, 8, 10, 12]
    assert ticks(3, 3) == [3]


def test_text_in_a_drawing_is_escaped_and_points_stay_inside() -> None:
    chart = Chart("<x>", "y & z", (0, 1), (0, 1))
    chart.line([(-5, 5), (0.5, 0.5)], "#000", "<name>")
    root = ElementTree.fromstring(chart.svg())  # noqa: S314 (made here)
    points = next(child for child in root if child.tag == "polyline").attrib["points"]
    assert points.split()[0] == "56.0,14.0"
    assert "<name>" in "".join(root.itertext())


def test_a_job_of_lost_and_counted_attempts_is_drawn() -> None:
    spans = (Span("text", 0, 0, 1, 0, 0.1, 0.5, False), Span("text", 0, 0, 2, 0.5, 0.6, 1, True))
    drawn = figures.gantt(row(0, spans=spans))
    assert drawn.count("<rect") == 4
    assert "attempt 2: worked 0.400 s" in drawn
    assert figures.OUTCOME_COLOURS[Outcome.FAILED] in drawn


def test_marks_and_queues_are_on_the_timeline() -> None:
    samples = [Sample(float(at), "api", "skyreels_stage_ready", {"stage": "text"}, at / 2) for at in range(5)]
    point = Measured(0.5, 1, 30.0, rows=[row(0), row(1, outcome=Outcome.REJECTED, ended_s=None)], samples=samples)
    point.marks.append(Mark(12.0, "kill VaeRoom", 4.2))
    assert "kill VaeRoom, whole after 4.2 s" in figures.timeline(point)
    assert "text" in (figures.queues(point) or "")
    assert figures.queues(Measured(0.5, 1)) is None


def test_the_jobs_that_are_shown_are_the_median_and_the_slow_ones() -> None:
    span = (Span("text", 0, 0, 1, 0, 0, 1, True),)
    rows = [row(i, spans=span, ended_s=20.0 + 2 * i) for i in range(100)]
    assert [shown.index for shown in figures.samples(rows)] == [50, 90, 99]
    assert figures.samples([row(0)]) == []


def test_rates_are_drawn_with_what_was_refused() -> None:
    points = [Measured(rate, 1, rows=[row(0), row(1, outcome=Outcome.REJECTED)]) for rate in (0.5, 1.0)]
    summaries = [summarise([point], small()) for point in points]
    assert "in time" in figures.attainment(summaries, small())
    assert "rejected" in figures.goodput(summaries)
    assert (
        figures.distributions([(s, [p]) for s, p in zip(summaries, points, strict=True)], small()).count("<poly") == 2
    )
