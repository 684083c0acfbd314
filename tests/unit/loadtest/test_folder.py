"""What lies in a run's folder: taken up by the same run only, and whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.client.base import Device
from loadtest.folder import Journal, OtherRun, RunFolder, journalled
from loadtest.measure import Measured
from loadtest.records import Mark, Outcome, Sample
from tests.unit.loadtest.rows import row

MANIFEST = {"scenario": {"name": "small"}, "target": "one", "date": "today"}


def test_a_measurement_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = RunFolder.begin(tmp_path / "run", MANIFEST)
    measured = Measured(
        0.5, 1, 31.0, "2026-01-01T00:00:00Z", [row(0), row(1, outcome=Outcome.REJECTED)],
        [Sample(1.0, "api", "x", {}, 2.0)], [Mark(3.0, "kill", 2.5)], Device(1.0, 0.5), 2,
    )  # fmt: skip
    folder.start(0.5, 1)
    assert folder.finished(0.5, 1) is None
    folder.finish(measured)
    assert folder.finished(0.5, 1) == measured
    assert folder.all() == [measured]
    assert folder.finished(0.5, 2) is None


def test_a_journal_that_was_cut_off_keeps_whole_lines_and_is_put_aside(tmp_path: Path) -> None:
    folder = RunFolder.begin(tmp_path / "run", MANIFEST)
    point = folder.start(0.5, 1)
    with Journal(point / "journal.jsonl") as journal:
        journal.add(row(0))
        journal.add(row(1))
    with (point / "journal.jsonl").open("a") as file:
        file.write('{"index": 2')
    assert list(journalled(point / "journal.jsonl")) == [row(0), row(1)]
    assert folder.cut_off() == 2
    folder.start(0.5, 1)
    assert [path.name for path in point.iterdir()] == ["journal-1.jsonl"]
    folder.finish(Measured(0.5, 1, rows=[row(0)]))
    assert folder.cut_off() == 2


def test_another_run_is_not_taken_up(tmp_path: Path) -> None:
    RunFolder.begin(tmp_path, MANIFEST)
    assert RunFolder.begin(tmp_path, MANIFEST | {"date": "tomorrow"}).manifest() == MANIFEST
    with pytest.raises(OtherRun, match="another target"):
        RunFolder.begin(tmp_path, MANIFEST | {"target": "two"})
    with pytest.raises(OtherRun, match="no run"):
        RunFolder(tmp_path / "none").manifest()
