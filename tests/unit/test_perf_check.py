"""What `make perf-check` calls worse."""

from __future__ import annotations

import json

from tests.perf.check import BASELINE, BETTER, worse

LOW = "residual / end to end, one job at a time"
HIGH = "goodput at twice the saturation / saturation"
KEPT = {"ratios": {LOW: {"value": 0.1, "tolerance": 0.25}, HIGH: {"value": 0.9, "tolerance": 0.25}}}


def test_better_and_a_little_worse_pass() -> None:
    assert worse({LOW: 0.05, HIGH: 1.0}, KEPT) == []
    assert worse({LOW: 0.12, HIGH: 0.7}, KEPT) == []


def test_more_than_the_tolerance_is_told() -> None:
    low, high = worse({LOW: 0.13, HIGH: 0.6}, KEPT)
    assert low.startswith(LOW)
    assert "0.130" in low
    assert high.startswith(HIGH)


def test_a_ratio_without_a_baseline_is_told() -> None:
    assert "--update" in worse({LOW: 0.1}, {"ratios": {}})[0]
    assert json.loads(BASELINE.read_text())["ratios"].keys() <= BETTER.keys()
