"""Rows of results for tests."""

from __future__ import annotations

from typing import Any

from loadtest.mixes import Scenario, parse
from loadtest.records import JobRow, Outcome

SCENARIO = """
name: small
about: a test
mix: [{model: skyreels-v3-r2v, resolutions: {64P: 1}, seconds: {1: 1}}]
slo: {only: {latency_s: 5}}
seconds: 30
warmup_s: 10
seeds: [1, 2]
"""


def small(**changes: Any) -> Scenario:
    return parse(SCENARIO, "small").model_copy(update=changes)


def row(index: int = 0, **changes: Any) -> JobRow:
    told: dict[str, Any] = {
        "rate_hz": 0.5, "run_seed": 1, "index": index, "tenant": "default", "slo": "only", "limit_s": 5.0,
        "model": "skyreels-v3-r2v", "resolution": "64P", "seconds": 1.0, "results": 1, "intended_s": 10.0 + index,
        "sent_s": 10.0 + index, "outcome": Outcome.COMPLETED, "accepted_s": 10.1 + index, "ended_s": 12.0 + index,
    }  # fmt: skip
    return JobRow(**(told | changes))
