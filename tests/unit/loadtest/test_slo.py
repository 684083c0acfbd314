"""What is counted, what is not, and where the time went."""

from __future__ import annotations

import pytest

from loadtest.client.base import Device
from loadtest.measure import Measured
from loadtest.records import Outcome, Span
from loadtest.slo import covered_s, residual_s, summarise
from tests.unit.loadtest.rows import row, small

SPANS = (Span("text", 0, 0, 1, 0.1, 0.2, 0.5, True), Span("denoise", 0, 0, 1, 0.4, 0.6, 1.5, True))


def test_outcomes_are_counted_apart_and_cancels_are_in_no_share() -> None:
    rows = [
        row(0),
        row(1, ended_s=20.0),  # too late
        row(2, outcome=Outcome.REJECTED, ended_s=None, refusals=1, retry_after=False, status=429),
        row(3, outcome=Outcome.FAILED),
        row(4, outcome=Outcome.CANCELLED, ended_s=None),
        row(5, outcome=Outcome.UNFINISHED, ended_s=None),
        row(0, intended_s=9.9),  # in the warm-up
    ]
    summary = summarise([Measured(0.5, 1, rows=rows)], small())
    assert summary.outcomes == {
        Outcome.COMPLETED: 2, Outcome.REJECTED: 1, Outcome.FAILED: 1, Outcome.CANCELLED: 1, Outcome.UNFINISHED: 1,
    }  # fmt: skip
    assert summary.counted == 5
    assert summary.attainment.value == pytest.approx(1 / 5)
    assert summary.goodput_hz.value == pytest.approx(1 / 20)
    assert summary.throughput_hz.value == pytest.approx(2 / 20)
    assert summary.refused_without_advice == 1
    assert summary.by_class == {"only": pytest.approx(1 / 5)}


def test_device_seconds_are_over_the_video_that_was_finished() -> None:
    rows = [row(0, seconds=2.0, results=2), row(1, outcome=Outcome.FAILED)]
    summary = summarise([Measured(0.5, 1, rows=rows, device=Device(6.0, 2.0))], small())
    assert (summary.video_s, summary.device_per_video, summary.wasted_s) == (4.0, 2.0, 2.0)
    assert summarise([Measured(0.5, 1, rows=rows)], small()).device_per_video is None


def test_the_parts_of_a_latency() -> None:
    rows = [
        row(i, queue_s=0.3, server_s=1.6, preview_s=11.5 + i, spans=SPANS, stage_s={"text": 0.3, "denoise": 0.9})
        for i in range(10)
    ]
    summary = summarise([Measured(0.5, 1, rows=rows)], small())
    told = {part.name: part.quantiles[0.5] for part in summary.parts}
    values = {name: estimate.value for name, estimate in told.items() if estimate is not None}
    assert values == pytest.approx(
        {
            "end to end": 2.0,
            "queue wait": 0.1 + 0.3,
            "service": 1.3,
            "first preview": 1.5,
            "residual": 2.0 - 1.4,
            "stage text": 0.3,
            "stage denoise": 0.9,
        }
    )
    assert summary.part("nothing") is None


def test_spans_side_by_side_cover_their_time_once() -> None:
    assert covered_s(SPANS) == pytest.approx(1.4)
    assert covered_s((SPANS[1], Span("x", 0, 0, 1, 3.0, 3.0, 4.0, True))) == pytest.approx(2.1)
    assert residual_s(row(0)) is None


def test_a_generator_that_is_late_shows() -> None:
    assert summarise([Measured(0.5, 1, rows=[row(0, sent_s=12.0)])], small()).late_p99_s == 2.0
    with pytest.raises(ValueError, match="measurement"):
        summarise([], small())
