"""The load kit against a whole system: what it says of a job is what the system did."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from loadtest.folder import RunFolder
from loadtest.measure import Measured
from loadtest.mixes import load
from loadtest.records import JobRow, Outcome
from loadtest.report.page import write
from loadtest.runner import Runner, Target
from loadtest.slo import residual_s, summarise
from tests.integration.system import System

pytestmark = [pytest.mark.integration, pytest.mark.long]


class Quiet:
    """Shows nothing."""

    def begins(self, rate_hz: float, seed: int, requests: int, seconds: float) -> None: ...

    def ended(self, row: JobRow) -> None: ...

    def measured(self, point: Measured, *, before: bool) -> None: ...


def test_a_run_tells_where_the_time_went(system: System, tmp_path: Path) -> None:
    scenario = load("laptop").model_copy(update={"seconds": 8.0, "warmup_s": 0.0, "drain_s": 120.0, "seeds": (2,)})
    folder = RunFolder.begin(tmp_path / "run", {"scenario": scenario.model_dump(mode="json"), "target": "here"})
    target = Target(system.url, pages={"api": f"{system.url}/metrics", "replicas": system.metrics_url})

    async def measured() -> None:
        async with Runner(scenario, target, folder, Quiet()) as runner:
            await runner.rate(0.7)

    asyncio.run(measured())
    (point,) = folder.all()
    assert point.rows
    for row in point.rows:
        assert row.outcome is Outcome.COMPLETED, row
        assert {span.stage for span in row.spans} == {"text", "condition", "denoise", "decode"} == row.stage_s.keys()
        assert row.preview_s is not None
        assert row.server_s is not None
        assert row.latency_s is not None
        assert row.latency_s >= row.server_s
        residual = residual_s(row)
        assert residual is not None
        assert residual >= 0
    summary = summarise([point], scenario)
    assert summary.device_per_video is not None
    assert summary.device_per_video > 0
    assert any(sample.name.startswith("ray_skyreels_stage_seconds") for sample in point.samples)
    page, _ = write(folder)
    assert page.read_text().count("<svg") >= 4
