"""Recovery from a hurt, and how long a backlog waits for replicas."""

from __future__ import annotations

from loadtest.dynamics import autoscale_lags, recovery_s
from loadtest.records import Mark, Sample
from tests.unit.loadtest.rows import row

MARK = Mark(20.0, "kill VaeRoom")


def test_recovered_is_when_requests_are_met_again_one_after_the_other() -> None:
    found = [row(i, intended_s=float(i), ended_s=i + (9.0 if i in {21, 22, 24, 26} else 1.0)) for i in range(60)]
    assert recovery_s(found, MARK) == 27 - 20


def test_whoever_was_on_the_way_when_it_happened_counts() -> None:
    found = [row(i, intended_s=float(i), ended_s=i + (9.0 if i == 18 else 1.0)) for i in range(60)]
    assert recovery_s(found, MARK) == 0  # the next ones were in time


def test_nothing_missed_is_no_time_and_nothing_met_is_none() -> None:
    assert recovery_s([row(i, intended_s=float(i), ended_s=i + 1.0) for i in range(60)], MARK) == 0
    assert recovery_s([row(i, intended_s=float(i), ended_s=i + 9.0) for i in range(60)], MARK) is None


def test_a_backlog_waits_until_slots_rise() -> None:
    series = [(0, 0, 1), (2, 3, 1), (4, 4, 1), (6, 4, 2), (8, 5, 2), (10, 0, 2), (12, 3, 2), (14, 3, 3)]
    samples = [
        Sample(float(at), "api", f"skyreels_stage_{name}", {"stage": "denoise"}, float(value))
        for at, ready, slots in series
        for name, value in (("ready", ready), ("slots", slots))
    ]
    assert autoscale_lags(samples) == {"denoise": [4.0, 2.0]}
    assert autoscale_lags(samples[:4]) == {}
