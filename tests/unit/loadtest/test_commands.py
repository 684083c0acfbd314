"""`skyreels-load` against a small server over HTTP: reports, comparisons, and a kill that loses nothing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from loadtest.cli import app
from loadtest.folder import JOURNAL, RunFolder, journalled
from loadtest.mixes import ScenarioError
from loadtest.records import Outcome
from loadtest.report.text import results
from tests.unit.loadtest.synthetic import Synthetic, constant, served

SCENARIO = """
name: short
about: A second or two of traffic
mix: [{model: skyreels-v3-r2v, resolutions: {64P: 1}, seconds: {1: 1}}]
slo: {only: {latency_s: 20}}
rate_hz: 20
seconds: 1
warmup_s: 0.2
drain_s: 20
settle_s: 0
seeds: [1, 2]
sweep: {from_hz: 10, factor: 4, most_hz: 40, bisections: 0, beyond: [], target: 0.9}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "short.yaml"
    path.write_text(SCENARIO)
    return str(path)


@pytest.fixture
def url() -> Iterator[str]:
    with served(Synthetic(8, constant(0.02)).app) as url:
        yield url


def called(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_leaves_a_report_that_needs_nothing_else(scenario: str, url: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    called("run", scenario, "--url", url, "--out", str(out))
    found = results(RunFolder(out))
    (summary,) = found.summaries
    assert summary.seeds == 2
    assert summary.attainment.value == 1
    assert summary.part("stage make") is not None
    assert {sample.name for point in RunFolder(out).all() for sample in point.samples} == {
        "skyreels_stage_ready",
        "skyreels_stage_slots",
    }
    page = (out / "report.html").read_text()
    assert not re.search(r"(src|href)=|@import|url\(", page)
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) >= 5
    for figure in figures:
        ElementTree.fromstring(figure)  # noqa: S314 (made here)
    text = (out / "report.md").read_text()
    assert "| end to end |" in text
    manifest = json.loads((out / "manifest.json").read_text())
    assert {"date", "commit", "machine", "python", "versions", "target", "scenario"} <= manifest.keys()


def test_a_sweep_goes_past_the_knee_and_can_be_compared(scenario: str, tmp_path: Path) -> None:
    with served(Synthetic(1, constant(0.06), most=1).app) as slow, served(Synthetic(8, constant(0.02)).app) as quick:
        for name, where in (("slow", slow), ("quick", quick)):
            called("sweep", scenario, "--url", where, "--out", str(tmp_path / name), "--seeds", "1")
    rejected = [summary.outcomes[Outcome.REJECTED] for summary in results(RunFolder(tmp_path / "slow")).summaries]
    assert rejected[-1] > 0
    assert "Retry-After" not in (tmp_path / "slow" / "report.md").read_text()
    told = called("compare", str(tmp_path / "slow"), str(tmp_path / "quick"))
    assert "goodput" in told
    called("report", str(tmp_path / "slow"))


def test_a_folder_of_another_run_is_refused(scenario: str, url: str, tmp_path: Path) -> None:
    called("run", scenario, "--url", url, "--out", str(tmp_path / "run"), "--seeds", "1")
    done = CliRunner().invoke(app, ["run", scenario, "--url", url, "--out", str(tmp_path / "run")])
    assert done.exit_code != 0
    assert "another scenario" in str(done.exception)


def test_a_closed_loop_has_no_rate_to_sweep(tmp_path: Path) -> None:
    path = tmp_path / "closed.yaml"
    path.write_text(SCENARIO + "arrivals: {kind: closed, users: 2}\n")
    with pytest.raises(ScenarioError, match="arrivals that have a rate"):
        CliRunner().invoke(app, ["sweep", str(path)], catch_exceptions=False)


def test_a_closed_loop_asks_as_fast_as_it_is_answered(url: str, tmp_path: Path) -> None:
    path = tmp_path / "closed.yaml"
    path.write_text(SCENARIO + "arrivals: {kind: closed, users: 3}\n")
    called("run", str(path), "--url", url, "--out", str(tmp_path / "run"), "--seeds", "1")
    (point,) = RunFolder(tmp_path / "run").all()
    assert len(point.rows) > 3
    open_at_once = max(sum(a.intended_s < b.intended_s < (a.ended_s or 0) for a in point.rows) for b in point.rows)
    assert open_at_once < 3


def test_scenarios_are_listed_and_traces_written(tmp_path: Path) -> None:
    assert "avatar" in called("scenarios")
    called("trace", str(tmp_path / "trace.parquet"), "--rate", "2", "--seconds", "30")
    assert (tmp_path / "trace.parquet").exists()


def test_a_killed_generator_loses_no_finished_measurement(scenario: str, url: str, tmp_path: Path) -> None:
    """Killed in its second measurement: the first is whole, what had ended of the second is in its journal, and the
    same call makes the second anew and leaves the first as it was.
    """
    out = tmp_path / "run"
    words = ["run", scenario, "--url", url, "--out", str(out), "--seconds", "3", "--rate", "10"]
    command = [sys.executable, "-c", "from loadtest.cli import main; main()", *words]
    folder = RunFolder(out)
    second = folder.point(10, 2) / JOURNAL
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (second.exists() and len(list(journalled(second))) >= 3):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = folder.finished(10, 1)
    assert before is not None
    assert before.rows
    assert folder.finished(10, 2) is None
    kept = len(list(journalled(second)))
    assert kept >= 3
    told = (folder.point(10, 1) / "point.json").stat().st_mtime_ns
    called(*words)
    assert folder.finished(10, 1) == before
    assert (folder.point(10, 1) / "point.json").stat().st_mtime_ns == told
    again = folder.finished(10, 2)
    assert again is not None
    assert len(again.rows) > kept
    assert folder.cut_off() == kept
    assert f"{kept} ended requests of measurements that were cut off" in (out / "report.md").read_text()
