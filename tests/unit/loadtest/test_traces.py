"""Traces: drawn by shares, repeated by seed, kept by Parquet, replayed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from loadtest.arrivals import Closed, Replay
from loadtest.mixes import Scenario, ScenarioError, load
from loadtest.parquet import BadFile, facts, read_jobs, read_samples, read_trace, write_jobs, write_samples, write_trace
from loadtest.records import JobRow, Outcome, Sample, Span
from loadtest.traces import plan

R2V = load("r2v")


def long(scenario: Scenario) -> Scenario:
    return scenario.model_copy(update={"seconds": 2000.0})


def test_a_seed_repeats_the_trace_and_the_rate_changes_only_the_gaps() -> None:
    slow, fast = plan(R2V, 0.5, 1), plan(R2V, 2.0, 1)
    assert slow == plan(R2V, 0.5, 1)
    assert [(r.seed, r.tenant, r.prompt) for r in slow] == [(r.seed, r.tenant, r.prompt) for r in fast[: len(slow)]]
    assert slow[-1].at_s > fast[len(slow) - 1].at_s


def test_shares_are_kept() -> None:
    requests = plan(long(R2V), 2.0, 1)
    tenants = Counter(request.tenant for request in requests)
    assert tenants["ada"] / len(requests) == pytest.approx(0.5, abs=0.03)
    assert sum(request.results == 2 for request in requests) / len(requests) == pytest.approx(0.1, abs=0.02)
    assert sum(request.cancel_after_s is not None for request in requests) / len(requests) == pytest.approx(
        0.02, abs=0.01
    )
    classes = {(request.slo, request.seconds, request.results, request.limit_s) for request in requests}
    assert ("interactive", 2.0, 2, 5 + 2 * 4) in classes


def test_a_closed_loop_has_pauses_instead_of_instants() -> None:
    scenario = R2V.model_copy(update={"arrivals": Closed(kind="closed", users=2, think_s=0.5)})
    pauses = [request.at_s for request in plan(scenario, 1.0, 1)]
    assert sum(pauses) / len(pauses) == pytest.approx(0.5, rel=0.1)


def test_a_recorded_trace_is_replayed(tmp_path: Path) -> None:
    recorded = plan(R2V, 1.0, 1)
    write_trace(tmp_path / "trace.parquet", recorded, {"seed": "1"})
    assert read_trace(tmp_path / "trace.parquet") == recorded
    assert facts(tmp_path / "trace.parquet")["seed"] == "1"
    replay = Replay(kind="replay", trace=tmp_path / "trace.parquet", speed=2)
    again = plan(R2V.model_copy(update={"arrivals": replay}), 99.0, 7)
    assert [request.at_s for request in again] == [request.at_s / 2 for request in recorded]
    assert again[0].prompt == recorded[0].prompt


def test_the_shipped_trace_says_what_it_was_drawn_from() -> None:
    scenario = R2V.model_copy(update={"arrivals": Replay(kind="replay", trace=Path("sample")), "seconds": 600.0})
    found = plan(scenario, 1.0, 1)
    path = Path(__file__).parents[3] / "loadtest" / "scenarios" / "sample.parquet"
    said = facts(path)
    drawn_from = Scenario.model_validate(json.loads(said["scenario"]))
    assert found == plan(drawn_from, float(said["rate_hz"]), int(said["seed"]))


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    write_samples(tmp_path / "y.parquet", [])
    for name in ("x.parquet", "y.parquet", "none.parquet"):
        with pytest.raises(BadFile):
            read_trace(tmp_path / name)
    scenario = R2V.model_copy(update={"arrivals": Replay(kind="replay", trace=tmp_path / "none.parquet")})
    with pytest.raises(ScenarioError, match="cannot be read"):
        plan(scenario, 1.0, 1)


def test_results_and_scrapes_come_back_as_they_were(tmp_path: Path) -> None:
    span = Span("text", 0, 0, 1, 0.0, 0.1, 0.4, True)
    row = JobRow(
        0.5, 1, 0, "ada", "only", 5.0, "skyreels-v3-r2v", "64P", 1.0, 1, 2.0, 2.01, Outcome.COMPLETED,
        ended_s=4.0, stage_s={"text": 0.3}, spans=(span,),
    )  # fmt: skip
    refused = JobRow(
        0.5, 1, 1, "ada", "only", 5.0, "skyreels-v3-r2v", "64P", 1.0, 1, 2.0, 2.0, Outcome.REJECTED,
        refusals=1, retry_after=True, status=429,
    )  # fmt: skip
    write_jobs(tmp_path / "jobs.parquet", [row, refused])
    assert read_jobs(tmp_path / "jobs.parquet") == [row, refused]
    assert (row.latency_s, row.met, refused.met) == (2.0, True, False)
    sample = Sample(1.0, "api", "skyreels_jobs", {"state": "queued"}, 3.0)
    write_samples(tmp_path / "samples.parquet", [sample])
    assert read_samples(tmp_path / "samples.parquet") == [sample]
    assert not list(tmp_path.glob(".*"))
